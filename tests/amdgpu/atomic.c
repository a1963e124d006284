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
#include "atomic.def"
};

const struct op_table ops_atomic = {rows, sizeof rows / sizeof *rows};
