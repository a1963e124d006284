/* Atomic operations on global memory, flat addresses and LDS. */
#include "access.h"

enum {
    AT_ADD,
    AT_SUB,
    AT_SMIN,
    AT_UMIN,
    AT_SMAX,
    AT_UMAX,
    AT_AND,
    AT_OR,
    AT_XOR,
    AT_INC,
    AT_DEC,
    AT_SWAP,
    AT_CMPSWAP,
    AT_FADD,
    AT_FMIN,
    AT_FMAX,
    AT_PK_F16,
    AT_PK_BF16,
    AT_OP = 0x1f,
    AT_WIDE = 0x20,
    AT_RETURNS = 0x40,  /* ds_*_rtn_* */
    AT_CMP_FIRST = 0x80 /* ds_cmpst: the comparand comes before the value */
};

static uint64_t combine_wide(uint32_t op, uint64_t old, uint64_t x)
{
    switch (op) {
    case AT_ADD:
        return old + x;
    case AT_SUB:
        return old - x;
    case AT_SMIN:
        return (int64_t)old < (int64_t)x ? old : x;
    case AT_UMIN:
        return old < x ? old : x;
    case AT_SMAX:
        return (int64_t)old > (int64_t)x ? old : x;
    case AT_UMAX:
        return old > x ? old : x;
    case AT_AND:
        return old & x;
    case AT_OR:
        return old | x;
    case AT_XOR:
        return old ^ x;
    case AT_INC:
        return old >= x ? 0 : old + 1;
    case AT_DEC:
        return old == 0 || old > x ? x : old - 1;
    case AT_FADD:
        return as_bits64(as_double(old) + as_double(x));
    case AT_FMIN:
        return as_bits64(min_num_d(as_double(old), as_double(x)));
    case AT_FMAX:
        return as_bits64(max_num_d(as_double(old), as_double(x)));
    default:
        return x;
    }
}

static uint32_t combine(uint32_t op, uint32_t old, uint32_t x)
{
    switch (op) {
    case AT_SMIN:
        return (int32_t)old < (int32_t)x ? old : x;
    case AT_SMAX:
        return (int32_t)old > (int32_t)x ? old : x;
    case AT_FADD:
        return as_bits(as_float(old) + as_float(x));
    case AT_FMIN:
        return as_bits(min_num(as_float(old), as_float(x)));
    case AT_FMAX:
        return as_bits(max_num(as_float(old), as_float(x)));
    case AT_PK_F16:
        return float_to_half(half_to_float(old & 0xffff) + half_to_float(x & 0xffff)) |
               float_to_half(half_to_float(old >> 16) + half_to_float(x >> 16)) << 16;
    case AT_PK_BF16:
        return float_to_bf16(bf16_to_float(old & 0xffff) + bf16_to_float(x & 0xffff)) |
               float_to_bf16(bf16_to_float(old >> 16) + bf16_to_float(x >> 16)) << 16;
    default:
        return (uint32_t)combine_wide(op, old, x);
    }
}

/* Applies one lane's operation to naturally aligned memory; returns what was there. */
static uint64_t apply(uint32_t param, void *p, uint64_t x, uint64_t comparand)
{
    uint32_t op = param & AT_OP;
    if (param & AT_WIDE) {
        uint64_t *m = p, old = __atomic_load_n(m, __ATOMIC_SEQ_CST), next;
        do {
            next = op == AT_CMPSWAP ? (old == comparand ? x : old) : combine_wide(op, old, x);
        } while (
            !__atomic_compare_exchange_n(m, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
        return old;
    }
    uint32_t *m = p, old = __atomic_load_n(m, __ATOMIC_SEQ_CST), next;
    do {
        next = op == AT_CMPSWAP ? (old == (uint32_t)comparand ? (uint32_t)x : old)
                                : combine(op, old, (uint32_t)x);
    } while (
        !__atomic_compare_exchange_n(m, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return old;
}

static uint64_t lane_value(const struct wave *w, int reg, int lane, bool wide)
{
    return w->v[reg][lane] | (wide ? (uint64_t)w->v[reg + 1][lane] << 32 : 0);
}

static void put_result(struct wave *w, const struct inst *in, int lane, uint64_t old)
{
    w->v[in->op[0].reg][lane] = (uint32_t)old;
    if (in->param & AT_WIDE) w->v[in->op[0].reg + 1][lane] = (uint32_t)(old >> 32);
}

static void check_alignment(struct wave *w, uint64_t address, uint32_t bytes, int lane)
{
    if (address & (bytes - 1))
        fault(w, "lane %d: atomic on %u bytes at 0x%llx is not naturally aligned", lane, bytes,
              (unsigned long long)address);
}

static void finish(struct wave *w, const struct inst *in, uint64_t lanes, enum counter c)
{
    issue(w, c);
    for (int i = 0; i < in->nvwrite; i++) {
        set_undefined(w, &in->vwrite[i], lanes, 0);
        tag_vgprs(w, in->vwrite[i].reg, in->vwrite[i].count, c);
    }
}

static void exec_global_atomic(struct wave *w, const struct inst *in)
{
    bool wide = in->param & AT_WIDE, flat = in->flags & OPF_HALVES;
    uint32_t bytes = wide ? 8 : 4;
    const struct operand *va = &in->op[in->ndst], *data = &in->op[in->ndst + 1];
    const struct operand *sa = in->nops > in->ndst + 2 ? &in->op[in->ndst + 2] : NULL;
    need_defined(w, in, va, w->exec, "address");
    need_defined(w, in, data, w->exec, "atomic operand");
    uint64_t base = (uint64_t)(int64_t)in->offset;
    bool scalar_base = sa && sa->kind == OPK_SGPR;
    if (scalar_base) base += read_scalar64(w, sa);
    for (uint64_t e = w->exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint64_t address = base + lane_value(w, va->reg, l, !scalar_base);
        uint64_t x = lane_value(w, data->reg, l, wide);
        uint64_t comparand = lane_value(w, data->reg + (wide ? 2 : 1), l, wide);
        check_alignment(w, address, bytes, l);
        uint8_t *p;
        if (flat && address >> 32 == SHARED_APERTURE >> 32)
            p = lds_at(w, in, address & UINT32_MAX, bytes, l);
        else p = global_at(w, in, address, bytes, l);
        uint64_t old = apply(in->param, p, x, comparand);
        if (in->ndst) put_result(w, in, l, old);
        w->worker->stats.global_written += bytes;
    }
    finish(w, in, w->exec, in->ndst || w->program->target->store_in_vmcnt ? CNT_VM : CNT_VS);
    if (flat) issue(w, CNT_DS);
}

static void exec_lds_atomic(struct wave *w, const struct inst *in)
{
    bool wide = in->param & AT_WIDE;
    uint32_t bytes = wide ? 8 : 4;
    int first = in->param & AT_RETURNS ? 1 : 0;
    const struct operand *va = &in->op[first], *data = &in->op[first + 1],
                         *second = &in->op[first + 2];
    need_defined(w, in, va, w->exec, "LDS address");
    need_defined(w, in, data, w->exec, "atomic operand");
    if (in->param & AT_CMP_FIRST) {
        const struct operand *swap = data;
        data = second;
        second = swap;
    }
    for (uint64_t e = w->exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint64_t address = (uint64_t)w->v[va->reg][l] + (uint64_t)in->offset, comparand = 0;
        check_alignment(w, address, bytes, l);
        uint8_t *p = lds_at(w, in, address, bytes, l);
        if (!w->worker->lds_written[address] && w->worker->launch->options->check_undefined)
            fault(w, "lane %d: atomic on LDS address %llu, which was never written", l,
                  (unsigned long long)address);
        if ((in->param & AT_OP) == AT_CMPSWAP) comparand = lane_value(w, second->reg, l, wide);
        uint64_t old = apply(in->param, p, lane_value(w, data->reg, l, wide), comparand);
        if (first) put_result(w, in, l, old);
    }
    finish(w, in, w->exec, CNT_DS);
    w->last_lds_store = w->issued[CNT_DS];
    w->worker->stats.lds_written += (uint64_t)__builtin_popcountll(w->exec) * bytes;
}

#define GLOBAL(name, param)                                                                        \
    {"global_atomic_" name, exec_global_atomic, NULL, "U:UUU", OPF_VMEM | OPF_ATOMIC, param},      \
        {"flat_atomic_" name,                                                                      \
         exec_global_atomic,                                                                       \
         NULL,                                                                                     \
         "U:UUU",                                                                                  \
         OPF_VMEM | OPF_ATOMIC | OPF_HALVES,                                                       \
         param},
#define BOTH(name, op) GLOBAL(name, op) GLOBAL(name "_x2", (op) | AT_WIDE)
#define DS(name, type, op)                                                                         \
    {"ds_" name "_" type, exec_lds_atomic, NULL, ":UUU", OPF_LDS | OPF_STORE, op},                 \
        {"ds_" name "_rtn_" type, exec_lds_atomic, NULL, "U:UUU", OPF_LDS, (op) | AT_RETURNS},

static const struct op_row rows[] = {
    BOTH("add", AT_ADD) BOTH("sub", AT_SUB) BOTH("smin", AT_SMIN) BOTH("umin", AT_UMIN) BOTH(
        "smax", AT_SMAX) BOTH("umax", AT_UMAX) BOTH("and", AT_AND) BOTH("or", AT_OR)
        BOTH("xor", AT_XOR) BOTH("inc", AT_INC) BOTH("dec", AT_DEC) BOTH("swap", AT_SWAP) BOTH(
            "cmpswap", AT_CMPSWAP) BOTH("fmin", AT_FMIN) BOTH("fmax", AT_FMAX)
            GLOBAL("add_u32", AT_ADD) GLOBAL("add_u64", AT_ADD | AT_WIDE) GLOBAL(
                "sub_u32", AT_SUB) GLOBAL("sub_u64", AT_SUB | AT_WIDE) GLOBAL("min_i32", AT_SMIN)
                GLOBAL("min_u32", AT_UMIN) GLOBAL("min_i64", AT_SMIN | AT_WIDE) GLOBAL(
                    "min_u64",
                    AT_UMIN | AT_WIDE) GLOBAL("max_i32",
                                              AT_SMAX) GLOBAL("max_u32", AT_UMAX)
                    GLOBAL("max_i64",
                           AT_SMAX | AT_WIDE) GLOBAL("max_u64", AT_UMAX | AT_WIDE)
                        GLOBAL("and_b32", AT_AND) GLOBAL("and_b64", AT_AND | AT_WIDE) GLOBAL(
                            "or_b32", AT_OR) GLOBAL("or_b64", AT_OR | AT_WIDE)
                            GLOBAL("xor_b32", AT_XOR) GLOBAL("xor_b64", AT_XOR | AT_WIDE) GLOBAL(
                                "inc_u32",
                                AT_INC) GLOBAL("inc_u64", AT_INC | AT_WIDE)
                                GLOBAL("dec_u32", AT_DEC) GLOBAL("dec_u64", AT_DEC | AT_WIDE) GLOBAL(
                                    "swap_b32",
                                    AT_SWAP) GLOBAL("swap_b64", AT_SWAP | AT_WIDE)
                                    GLOBAL("cmpswap_b32", AT_CMPSWAP) GLOBAL(
                                        "cmpswap_b64",
                                        AT_CMPSWAP | AT_WIDE) GLOBAL("add_f32", AT_FADD)
                                        GLOBAL("add_f64", AT_FADD | AT_WIDE) GLOBAL("min_f32", AT_FMIN) GLOBAL(
                                            "max_f32",
                                            AT_FMAX) GLOBAL("min_num_f32", AT_FMIN)
                                            GLOBAL("max_num_f32", AT_FMAX) GLOBAL("min_f64", AT_FMIN | AT_WIDE) GLOBAL(
                                                "max_f64",
                                                AT_FMAX | AT_WIDE) GLOBAL("pk_add_f16", AT_PK_F16)
                                                GLOBAL("pk_add_bf16", AT_PK_BF16) DS("add", "u32", AT_ADD) DS(
                                                    "add",
                                                    "u64",
                                                    AT_ADD | AT_WIDE) DS("sub", "u32", AT_SUB)
                                                    DS("sub", "u64", AT_SUB | AT_WIDE) DS(
                                                        "min",
                                                        "i32",
                                                        AT_SMIN) DS("min", "u32", AT_UMIN)
                                                        DS("max", "i32", AT_SMAX) DS("max", "u32", AT_UMAX) DS(
                                                            "min",
                                                            "i64",
                                                            AT_SMIN |
                                                                AT_WIDE) DS("min", "u64", AT_UMIN | AT_WIDE)
                                                            DS("max", "i64", AT_SMAX | AT_WIDE) DS(
                                                                "max",
                                                                "u64",
                                                                AT_UMAX | AT_WIDE) DS("and",
                                                                                      "b32", AT_AND)
                                                                DS("or", "b32", AT_OR) DS(
                                                                    "xor",
                                                                    "b32",
                                                                    AT_XOR) DS("and", "b64", AT_AND | AT_WIDE)
                                                                    DS("or", "b64", AT_OR | AT_WIDE) DS(
                                                                        "xor",
                                                                        "b64",
                                                                        AT_XOR |
                                                                            AT_WIDE) DS("inc", "u32", AT_INC)
                                                                        DS("dec", "u32", AT_DEC) DS(
                                                                            "inc",
                                                                            "u64",
                                                                            AT_INC |
                                                                                AT_WIDE) DS("dec", "u64", AT_DEC | AT_WIDE)
                                                                            DS("wrxchg", "b32", AT_SWAP) DS(
                                                                                "wrxchg", "b64",
                                                                                AT_SWAP | AT_WIDE) DS("storexchg",
                                                                                                      "b32",
                                                                                                      AT_SWAP)
                                                                                DS("storexchg", "b64", AT_SWAP | AT_WIDE) DS(
                                                                                    "cmpst",
                                                                                    "b32",
                                                                                    AT_CMPSWAP |
                                                                                        AT_CMP_FIRST) DS("cmpst",
                                                                                                         "b64",
                                                                                                         AT_CMPSWAP |
                                                                                                             AT_CMP_FIRST |
                                                                                                             AT_WIDE)
                                                                                    DS("cmpstore", "b32", AT_CMPSWAP) DS(
                                                                                        "cmpstore",
                                                                                        "b64",
                                                                                        AT_CMPSWAP |
                                                                                            AT_WIDE)
                                                                                        DS("add", "f32", AT_FADD) DS(
                                                                                            "add",
                                                                                            "f64",
                                                                                            AT_FADD |
                                                                                                AT_WIDE)
                                                                                            DS("mi"
                                                                                               "n",
                                                                                               "f3"
                                                                                               "2",
                                                                                               AT_FMIN)
                                                                                                DS("max", "f32", AT_FMAX) DS(
                                                                                                    "min_num",
                                                                                                    "f32",
                                                                                                    AT_FMIN)
                                                                                                    DS("max_num",
                                                                                                       "f32",
                                                                                                       AT_FMAX)
                                                                                                        DS("pk_add",
                                                                                                           "f16",
                                                                                                           AT_PK_F16)
                                                                                                            DS("pk_add",
                                                                                                               "bf16",
                                                                                                               AT_PK_BF16)};

const struct op_table ops_atomic = {rows, sizeof rows / sizeof *rows};
