/* Vector comparisons: a lane mask to SGPRs, and to EXEC for v_cmpx. */
#include <math.h>

#include "lanes.h"

#define COMPARE(name, A, expr)                                                                     \
    static void lane_cmp_##name(LANE_ARGS)                                                         \
    {                                                                                              \
        (void)m;                                                                                   \
        FOR_LANES                                                                                  \
        {                                                                                          \
            T_##A a = GET_##A(pa), b = GET_##A(pb);                                                \
            d[l] = (expr) ? ~0u : 0;                                                               \
        }                                                                                          \
    }
#define FLOAT_LIST(X, type, A)                                                                     \
    X(lt_##type, A, a < b)                                                                         \
    X(eq_##type, A, a == b)                                                                        \
    X(le_##type, A, a <= b)                                                                        \
    X(gt_##type, A, a > b)                                                                         \
    X(lg_##type, A, a<b || a> b)                                                                   \
    X(ge_##type, A, a >= b)                                                                        \
    X(o_##type, A, a == a && b == b)                                                               \
    X(u_##type, A, a != a || b != b)                                                               \
    X(nge_##type, A, !(a >= b))                                                                    \
    X(nlg_##type, A, !(a < b || a > b))                                                            \
    X(ngt_##type, A, !(a > b))                                                                     \
    X(nle_##type, A, !(a <= b))                                                                    \
    X(neq_##type, A, !(a == b))                                                                    \
    X(nlt_##type, A, !(a < b))
#define INTEGER_LIST(X, type, A)                                                                   \
    X(lt_##type, A, a < b)                                                                         \
    X(eq_##type, A, a == b)                                                                        \
    X(le_##type, A, a <= b)                                                                        \
    X(gt_##type, A, a > b)                                                                         \
    X(ne_##type, A, a != b)                                                                        \
    X(ge_##type, A, a >= b)
#define EVERY(X)                                                                                   \
    FLOAT_LIST(X, f32, F)                                                                          \
    FLOAT_LIST(X, f16, H)                                                                          \
    FLOAT_LIST(X, f64, D)                                                                          \
    INTEGER_LIST(X, i32, I)                                                                        \
    INTEGER_LIST(X, u32, U)                                                                        \
    INTEGER_LIST(X, i16, T)                                                                        \
    INTEGER_LIST(X, u16, S)                                                                        \
    INTEGER_LIST(X, i64, L)                                                                        \
    INTEGER_LIST(X, u64, Q)

EVERY(COMPARE)

/* Class bits of v_cmp_class: sNaN, qNaN, -inf, -normal, -subnormal, -0, +0, +subnormal, +normal,
 * +inf. */
static uint32_t class_of(uint64_t bits, int exponent_bits, int mantissa_bits)
{
    uint64_t m = bits & ((UINT64_C(1) << mantissa_bits) - 1);
    uint64_t e = bits >> mantissa_bits & ((1u << exponent_bits) - 1),
             top = (1u << exponent_bits) - 1;
    int negative = (int)(bits >> (exponent_bits + mantissa_bits) & 1);
    if (e == top && m) return m >> (mantissa_bits - 1) ? 2 : 1;
    if (e == top) return negative ? 1u << 2 : 1u << 9;
    if (e) return negative ? 1u << 3 : 1u << 8;
    if (m) return negative ? 1u << 4 : 1u << 7;
    return negative ? 1u << 5 : 1u << 6;
}

static void lane_class_f32(LANE_ARGS)
{
    (void)m;
    for (int l = 0; l < n; l++) d[l] = class_of(pa[l], 8, 23) & pb[l] ? ~0u : 0;
}

static void lane_class_f16(LANE_ARGS)
{
    (void)m;
    for (int l = 0; l < n; l++) d[l] = class_of(pa[l] & 0xffff, 5, 10) & pb[l] ? ~0u : 0;
}

static void lane_class_f64(LANE_ARGS)
{
    (void)m;
    for (int l = 0; l < n; l++)
        d[l] = class_of(pa[l] | (uint64_t)pa[l + ROW] << 32, 11, 52) & pb[l] ? ~0u : 0;
}

static void exec_compare(struct wave *w, const struct inst *in)
{
    int d = in->ndst;
    const uint32_t *a = fetch(w, in, d, 0), *b = fetch(w, in, d + 1, 1);
    uint64_t undef = undefined_lanes(w, in) & w->exec;
    in->lane(w->tmp[4], a, b, b, w->mask, w->n);
    uint64_t result = row_to_mask(w->tmp[4], w->n) & w->exec;
    if (d) {
        write_lane_mask(w, &in->op[0], result);
        mark_lane_mask(w, &in->op[0], undef);
    }
    if (!(in->flags & OPF_WRITES_EXEC)) return;
    if (undef && w->worker->launch->options->check_undefined)
        fault_undefined(w, w->root, "EXEC depends on a value that was never written");
    set_exec(w, result);
}

#define ROW_CMP(name, A, expr)                                                                     \
    {"v_cmp_" #name, exec_compare, (void (*)(void))lane_cmp_##name, "M:" #A #A, OPF_VALU, 0},      \
        {"v_cmpx_" #name,                                                                          \
         exec_compare,                                                                             \
         (void (*)(void))lane_cmp_##name,                                                          \
         "M:" #A #A,                                                                               \
         OPF_VALU | OPF_WRITES_EXEC,                                                               \
         0},
#define ROW_CLASS(type, A)                                                                         \
    {"v_cmp_class_" #type, exec_compare, (void (*)(void))lane_class_##type,                        \
     "M:" #A "U",          OPF_VALU,     0},                                                       \
        {"v_cmpx_class_" #type,                                                                    \
         exec_compare,                                                                             \
         (void (*)(void))lane_class_##type,                                                        \
         "M:" #A "U",                                                                              \
         OPF_VALU | OPF_WRITES_EXEC,                                                               \
         0},

static const struct op_row rows[] = {EVERY(ROW_CMP) ROW_CLASS(f32, F) ROW_CLASS(f16, H)
                                         ROW_CLASS(f64, D)};

const struct op_table ops_compare = {rows, sizeof rows / sizeof *rows};
