/* Scalar loads: s_load_* and s_buffer_load_*. */
#include "lanes.h"

static void load_words(struct wave *w, const struct inst *in, uint64_t address)
{
    uint32_t count = in->param & 0xff, reg = in->op[0].reg;
    if (address & 3)
        fault(w, "scalar load from 0x%llx: not 4-byte aligned (scalar loads drop the low bits)",
              (unsigned long long)address);
    const uint8_t *p = global_at(w, in, address, 4 * count, 0);
    memcpy(&w->s[reg], p, (size_t)count * 4);
    memset(&w->s_undef[reg], 0, count * sizeof *w->s_undef);
    enum counter c = w->program->target->gen == GEN_RDNA4 ? CNT_KM : CNT_DS;
    w->last_smem = issue(w, c);
    tag_sgprs(w, (int)reg, (int)count, c);
    w->worker->stats.global_read += 4 * count;
}

static uint64_t scalar_offset(struct wave *w, const struct inst *in)
{
    const struct operand *o = &in->op[2];
    int64_t offset = in->offset;
    if (in->nops < 3) return (uint64_t)offset;
    need_defined(w, in, o, 1, "address");
    if (o->kind == OPK_IMM) offset += (int32_t)o->imm;
    if (o->kind == OPK_SGPR) offset += read_scalar(w, o);
    return (uint64_t)offset;
}

static void exec_load(struct wave *w, const struct inst *in)
{
    need_defined(w, in, &in->op[1], 1, "address");
    load_words(w, in, read_scalar64(w, &in->op[1]) + scalar_offset(w, in));
}

static void exec_buffer_load(struct wave *w, const struct inst *in)
{
    need_defined(w, in, &in->op[1], 1, "buffer resource");
    const uint32_t *resource = &w->s[in->op[1].reg];
    uint64_t base = (resource[0] | (uint64_t)resource[1] << 32) & UINT64_C(0xffffffffffff);
    load_words(w, in, base + scalar_offset(w, in));
}

#define LOADS(old_name, new_name, count)                                                           \
    {"s_load_" old_name, exec_load, NULL, "U:UU", OPF_SMEM, count},                                \
        {"s_load_" new_name, exec_load, NULL, "U:UU", OPF_SMEM, count},                            \
        {"s_buffer_load_" old_name, exec_buffer_load, NULL, "U:UU", OPF_SMEM, count},              \
        {"s_buffer_load_" new_name, exec_buffer_load, NULL, "U:UU", OPF_SMEM, count},

static void exec_load_narrow(struct wave *w, const struct inst *in)
{
    uint64_t address = read_scalar64(w, &in->op[1]) + scalar_offset(w, in);
    uint32_t bytes = in->param & 3, value = 0, sign;
    need_defined(w, in, &in->op[1], 1, "address");
    memcpy(&value, global_at(w, in, address, bytes, 0), bytes);
    sign = in->param & 0x100 ? 1u << (8 * bytes - 1) : 0;
    w->s[in->op[0].reg] = (value ^ sign) - sign;
    w->s_undef[in->op[0].reg] = 0;
    w->last_smem = issue(w, CNT_KM);
    tag_sgprs(w, in->op[0].reg, 1, CNT_KM);
    w->worker->stats.global_read += bytes;
}

static const struct op_row rows[] = {
    LOADS("dword", "b32", 1) LOADS("dwordx2", "b64", 2) LOADS("dwordx3", "b96", 3)
        LOADS("dwordx4", "b128", 4) LOADS("dwordx8", "b256", 8)
            LOADS("dwordx16", "b512", 16){"s_load_u8", exec_load_narrow, NULL, "U:UU", OPF_SMEM, 1},
    {"s_load_i8", exec_load_narrow, NULL, "U:UU", OPF_SMEM, 1 | 0x100},
    {"s_load_u16", exec_load_narrow, NULL, "U:UU", OPF_SMEM, 2},
    {"s_load_i16", exec_load_narrow, NULL, "U:UU", OPF_SMEM, 2 | 0x100},
};

const struct op_table ops_scalar_memory = {rows, sizeof rows / sizeof *rows};
