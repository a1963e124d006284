/* Scalar ALU: reading and writing scalar registers, arithmetic, comparisons, EXEC masks. */
#include "lanes.h"

uint32_t read_scalar(struct wave *w, const struct operand *o)
{
    if (o->kind == OPK_IMM) return (uint32_t)o->imm;
    if (o->kind != OPK_SGPR) return 0;
    switch (o->reg) {
    case S_SCC:
        return w->scc;
    case S_VCCZ:
        return (w->s[S_VCC] | (w->n == 64 ? w->s[S_VCC + 1] : 0)) == 0;
    case S_EXECZ:
        return w->exec == 0;
    default:
        return w->s[o->reg];
    }
}

uint64_t read_scalar64(struct wave *w, const struct operand *o)
{
    if (o->kind == OPK_IMM) return o->imm;
    if (o->kind != OPK_SGPR) return 0;
    if (o->dwords < 2) return read_scalar(w, o);
    return w->s[o->reg] | (uint64_t)w->s[o->reg + 1] << 32;
}

void set_exec(struct wave *w, uint64_t mask)
{
    w->exec = mask & w->full;
    w->s[S_EXEC] = (uint32_t)mask;
    w->s[S_EXEC + 1] = (uint32_t)(mask >> 32);
    mask_to_row(w->exec, w->mask);
}

void write_scalar(struct wave *w, const struct operand *o, uint32_t value)
{
    if (o->kind != OPK_SGPR) return;
    w->s[o->reg] = value;
    w->s_undef[o->reg] = 0;
    if (o->reg == S_EXEC || o->reg == S_EXEC + 1)
        set_exec(w, w->s[S_EXEC] | (uint64_t)w->s[S_EXEC + 1] << 32);
}

void write_scalar64(struct wave *w, const struct operand *o, uint64_t value)
{
    if (o->kind != OPK_SGPR) return;
    w->s[o->reg] = (uint32_t)value;
    w->s[o->reg + 1] = (uint32_t)(value >> 32);
    w->s_undef[o->reg] = w->s_undef[o->reg + 1] = 0;
    if (o->reg == S_EXEC) set_exec(w, value);
}

void write_lane_mask(struct wave *w, const struct operand *o, uint64_t mask)
{
    if (w->n == 64) write_scalar64(w, o, mask);
    else write_scalar(w, o, (uint32_t)mask);
}

uint64_t read_lane_mask(struct wave *w, const struct operand *o)
{
    if (o->kind == OPK_IMM) return o->imm;
    return w->n == 64 ? read_scalar64(w, o) : read_scalar(w, o);
}

static uint32_t reverse32(uint32_t x)
{
    x = (x >> 1 & 0x55555555) | (x & 0x55555555) << 1;
    x = (x >> 2 & 0x33333333) | (x & 0x33333333) << 2;
    x = (x >> 4 & 0x0f0f0f0f) | (x & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(x);
}

static uint32_t sign_run(uint32_t a)
{
    uint32_t x = (int32_t)a < 0 ? ~a : a;
    return x ? (uint32_t)__builtin_clz(x) : ~0u;
}

/* Of the low 32 bits. */
static uint32_t whole_quads(uint64_t a)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 4)
        if (a >> i & 15) r |= 15u << i;
    return r;
}

static uint32_t quads(uint32_t a)
{
    uint32_t r = 0;
    for (int i = 0; i < 8; i++)
        if (a >> (4 * i) & 15) r |= 1u << i;
    return r;
}

/* Bit field: offset in bits 4:0 of the second source, width in bits 22:16. */
static uint32_t field(uint32_t a, uint32_t b, bool is_signed)
{
    uint32_t offset = b & 31, width = b >> 16 & 127;
    if (width == 0) return 0;
    if (width > 32 - offset) width = 32 - offset;
    uint32_t x = a << (32 - offset - width);
    return is_signed ? (uint32_t)((int32_t)x >> (32 - width)) : x >> (32 - width);
}

static uint64_t field64(uint64_t a, uint32_t b, bool is_signed)
{
    uint32_t offset = b & 63, width = b >> 16 & 127;
    if (width == 0) return 0;
    if (width > 64 - offset) width = 64 - offset;
    uint64_t x = a << (64 - offset - width);
    return is_signed ? (uint64_t)((int64_t)x >> (64 - width)) : x >> (64 - width);
}

static uint32_t to_int(float a)
{
    return (uint32_t)(a != a                ? 0
                      : a >= 2147483648.0f  ? INT32_MAX
                      : a <= -2147483648.0f ? INT32_MIN
                                            : (int32_t)a);
}

static uint32_t to_unsigned(float a)
{
    return a != a || a <= 0 ? 0 : a >= 4294967296.0f ? UINT32_MAX : (uint32_t)a;
}

/* Marks bits of a scalar register as never given a value, or derived from such. */
void mark_scalar(struct wave *w, int reg, uint32_t undef_bits)
{
    w->s_undef[reg] = undef_bits;
    if (undef_bits) w->s_root[reg] = w->root;
}

void mark_lane_mask(struct wave *w, const struct operand *o, uint64_t undef_lanes)
{
    if (o->kind != OPK_SGPR) return;
    mark_scalar(w, o->reg, (uint32_t)undef_lanes);
    if (w->n == 64) mark_scalar(w, o->reg + 1, (uint32_t)(undef_lanes >> 32));
}

/* The undefined bits of a 32 or 64-bit scalar operand. */
static uint64_t undefined_bits(const struct wave *w, const struct operand *o)
{
    if (o->kind != OPK_SGPR) return 0;
    return w->s_undef[o->reg] | (o->dwords > 1 ? (uint64_t)w->s_undef[o->reg + 1] << 32 : 0);
}

uint64_t undefined_mask(const struct wave *w, const struct operand *o)
{
    return undefined_bits(w, o) & w->full;
}

static bool scalar_undefined(struct wave *w, const struct inst *in)
{
    bool undef = false;
    for (int i = 0; i < in->nsread; i++)
        for (int k = 0; k < in->sread[i].count; k++)
            if (w->s_undef[in->sread[i].reg + k]) {
                undef = true;
                note_root(w, w->s_root[in->sread[i].reg + k]);
            }
    return undef;
}

static void no_undefined_exec(struct wave *w, uint64_t undef)
{
    if (undef & w->full && w->worker->launch->options->check_undefined)
        fault_undefined(w, w->root, "EXEC depends on a value that was never written");
}

static void mark_result(struct wave *w, const struct inst *in, uint64_t undef)
{
    const struct operand *o = &in->op[0];
    if (o->kind != OPK_SGPR) return;
    if (o->reg == S_EXEC || o->reg == S_EXEC + 1)
        no_undefined_exec(w, o->reg == S_EXEC ? undef : undef << 32);
    mark_scalar(w, o->reg, (uint32_t)undef);
    if (o->dwords > 1) mark_scalar(w, o->reg + 1, (uint32_t)(undef >> 32));
}

#define ADDK_OVERFLOW (((~(old ^ (uint32_t)(int16_t)a) & (old ^ r)) >> 31) != 0)
#define NONE          w->scc
#define NONZERO       r != 0
/* Each operation becomes a pure function of its sources and a handler. When a source has undefined
   bits the function is evaluated again with those bits 0 and 1 (in both mixtures for two sources);
   result bits that differ are undefined. The SCC column is compared as text: NONE leaves SCC alone.
 */
#define SCALAR(name, type, dtype, read, write, sets, scc_value, expr)                              \
    static dtype value_##name(const struct wave *w, type a, type b, type c, type old,              \
                              uint32_t *scc)                                                       \
    {                                                                                              \
        type carry = w->scc;                                                                       \
        (void)a, (void)b, (void)c, (void)old, (void)carry;                                         \
        dtype r = (dtype)(expr);                                                                   \
        *scc = (scc_value) ? 1 : 0;                                                                \
        return r;                                                                                  \
    }                                                                                              \
    static void undefined_##name(struct wave *w, const struct inst *in, type a, type b, type c,    \
                                 type old)                                                         \
    {                                                                                              \
        type ua = in->nops > 1 ? (type)undefined_bits(w, &in->op[1]) : 0;                          \
        type ub = in->nops > 2 ? (type)undefined_bits(w, &in->op[2]) : 0, differ = 0;              \
        uint32_t scc[4];                                                                           \
        dtype r[4];                                                                                \
        for (int v = 0; v < 4; v++)                                                                \
            r[v] = value_##name(w, v & 1 ? a | ua : a & ~ua, v & 2 ? b | ub : b & ~ub, c, old,     \
                                &scc[v]);                                                          \
        for (int v = 1; v < 4; v++) differ |= r[v] ^ r[0];                                         \
        mark_result(w, in, differ);                                                                \
        if (sets)                                                                                  \
            mark_scalar(w, S_SCC,                                                                  \
                        scc[0] != scc[1] || scc[0] != scc[2] || scc[0] != scc[3] ? 1 : 0);         \
    }                                                                                              \
    static void scalar_##name(struct wave *w, const struct inst *in)                               \
    {                                                                                              \
        type a = in->nops > 1 ? read(w, &in->op[1]) : 0,                                           \
             b = in->nops > 2 ? read(w, &in->op[2]) : 0;                                           \
        type c = in->nops > 3 ? read(w, &in->op[3]) : 0, old = read(w, &in->op[0]);                \
        uint32_t scc;                                                                              \
        bool undef = scalar_undefined(w, in);                                                      \
        dtype r = value_##name(w, a, b, c, old, &scc);                                             \
        if (undef) undefined_##name(w, in, a, b, c, old);                                          \
        else if (sets) w->s_undef[S_SCC] = 0;                                                      \
        uint32_t keep[2] = {in->op[0].kind == OPK_SGPR ? w->s_undef[in->op[0].reg] : 0,            \
                            in->op[0].kind == OPK_SGPR ? w->s_undef[in->op[0].reg + 1] : 0};       \
        if (sets) w->scc = scc;                                                                    \
        write(w, &in->op[0], r);                                                                   \
        if (undef && in->op[0].kind == OPK_SGPR) {                                                 \
            w->s_undef[in->op[0].reg] = keep[0];                                                   \
            if (in->op[0].dwords > 1) w->s_undef[in->op[0].reg + 1] = keep[1];                     \
        }                                                                                          \
    }
#define SETS(scc_value) (__builtin_strcmp(#scc_value, "NONE") != 0)
#define S32(name, count, scc_value, ...)                                                           \
    SCALAR(name, uint32_t, uint32_t, read_scalar, write_scalar, SETS(scc_value), scc_value,        \
           (__VA_ARGS__))
#define C32(name, scc_value, ...)                                                                  \
    SCALAR(name, uint32_t, uint32_t, read_scalar, write_scalar, true, scc_value, (__VA_ARGS__))
#define S64(name, count, scc_value, ...)                                                           \
    SCALAR(name, uint64_t, uint64_t, read_scalar64, write_scalar64, SETS(scc_value), scc_value,    \
           (__VA_ARGS__))
#define M64(name, scc_value, ...)                                                                  \
    SCALAR(name, uint64_t, uint32_t, read_scalar64, write_scalar, SETS(scc_value), scc_value,      \
           (__VA_ARGS__))
#include "scalar.def"
#undef SETS
#undef S32
#undef C32
#undef S64
#undef M64

/* s_<op>_saveexec: the old EXEC goes to the destination, the combination to EXEC. param: the truth
   table of (source, exec), bit index 2 * source + exec. */
static void exec_saveexec(struct wave *w, const struct inst *in)
{
    uint64_t old = w->exec, s = read_lane_mask(w, &in->op[1]) & w->full, r = 0;
    uint64_t unknown = undefined_mask(w, &in->op[1]), without_s = 0, with_s = 0;
    if (in->param & 1) without_s |= ~old;
    if (in->param & 2) without_s |= old;
    if (in->param & 4) with_s |= ~old;
    if (in->param & 8) with_s |= old;
    r = ((s & with_s) | (~s & without_s)) & w->full;
    if (unknown) {
        note_root(w, w->s_root[in->op[1].reg]);
        no_undefined_exec(w, unknown & (with_s ^ without_s));
    }
    set_exec(w, r);
    write_lane_mask(w, &in->op[0], in->flags & OPF_NO_DST ? r : old);
    w->scc = r != 0;
    w->s_undef[S_SCC] = 0;
}

static int compare(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

enum {
    CMP_EQ = 1,
    CMP_LG,
    CMP_GT,
    CMP_GE,
    CMP_LT,
    CMP_LE,
    CMP_MASK = 7,
    CMP_SIGNED = 8,
    CMP_WIDE = 16,
    CMP_SHORT = 32
};

static void exec_compare(struct wave *w, const struct inst *in)
{
    int order;
    if (in->param & CMP_WIDE) {
        order = read_scalar64(w, &in->op[0]) != read_scalar64(w, &in->op[1]);
    } else {
        uint32_t a = read_scalar(w, &in->op[0]), b = read_scalar(w, &in->op[1]);
        if (in->param & CMP_SHORT) b = (uint32_t)(int32_t)(int16_t)b;
        order = in->param & CMP_SIGNED ? compare((int32_t)a, (int32_t)b) : compare(a, b);
    }
    static const uint8_t truth[] = {0, 2, 5, 4, 6, 1, 3}; /* bit 0 less, 1 equal, 2 greater */
    w->scc = truth[in->param & CMP_MASK] >> (order + 1) & 1;
    mark_scalar(w, S_SCC, scalar_undefined(w, in) ? 1 : 0);
}

static void exec_compare_float(struct wave *w, const struct inst *in)
{
    float a = as_float(read_scalar(w, &in->op[0])), b = as_float(read_scalar(w, &in->op[1]));
    uint32_t order = a != a || b != b ? 8 : a < b ? 1 : a > b ? 4 : 2;
    w->scc = (in->param & order) != 0;
    mark_scalar(w, S_SCC, scalar_undefined(w, in) ? 1 : 0);
}

static void exec_bit_test(struct wave *w, const struct inst *in)
{
    uint32_t count = read_scalar(w, &in->op[1]);
    uint64_t a = in->param & 2 ? read_scalar64(w, &in->op[0]) : read_scalar(w, &in->op[0]);
    w->scc = (a >> (count & (in->param & 2 ? 63 : 31)) & 1) == (in->param & 1);
    mark_scalar(w, S_SCC, scalar_undefined(w, in) ? 1 : 0);
}

#define ROW_(name, types)                {"s_" #name, scalar_##name, NULL, types, 0, 0},
#define S32(name, count, scc_value, ...) ROW_(name, "U:UUU")
#define C32(name, scc_value, ...)        ROW_(name, "U:UUU")
#define S64(name, count, scc_value, ...) ROW_(name, "Q:QQQ")
#define M64(name, scc_value, ...)        ROW_(name, "U:Q")
#define SAVEEXEC(name, table)                                                                      \
    {"s_" #name "_saveexec_b32", exec_saveexec, NULL, "U:U", 0, table},                            \
        {"s_" #name "_saveexec_b64", exec_saveexec, NULL, "U:U", 0, table},
#define WREXEC(name, table)                                                                        \
    {"s_" #name "_wrexec_b32", exec_saveexec, NULL, "U:U", OPF_NO_DST, table},                     \
        {"s_" #name "_wrexec_b64", exec_saveexec, NULL, "U:U", OPF_NO_DST, table},
#define COMPARES(op, code)                                                                         \
    {"s_cmp_" #op "_i32", exec_compare, NULL, ":UU", 0, CMP_##code | CMP_SIGNED},                  \
        {"s_cmp_" #op "_u32", exec_compare, NULL, ":UU", 0, CMP_##code},                           \
        {"s_cmpk_" #op "_i32", exec_compare, NULL, ":UU", 0, CMP_##code | CMP_SIGNED | CMP_SHORT}, \
        {"s_cmpk_" #op "_u32", exec_compare, NULL, ":UU", 0, CMP_##code},
#define FCOMPARE(op, set) {"s_cmp_" #op "_f32", exec_compare_float, NULL, ":UU", 0, set},

static const struct op_row rows[] = {
#include "scalar.def"
#include "scalar_mask.def"
    {"s_cmp_eq_u64", exec_compare, NULL, ":QQ", 0, CMP_EQ | CMP_WIDE},
    {"s_cmp_lg_u64", exec_compare, NULL, ":QQ", 0, CMP_LG | CMP_WIDE},
    {"s_bitcmp0_b32", exec_bit_test, NULL, ":UU", 0, 0},
    {"s_bitcmp1_b32", exec_bit_test, NULL, ":UU", 0, 1},
    {"s_bitcmp0_b64", exec_bit_test, NULL, ":QU", 0, 2},
    {"s_bitcmp1_b64", exec_bit_test, NULL, ":QU", 0, 3},
};

const struct op_table ops_scalar = {rows, sizeof rows / sizeof *rows};
