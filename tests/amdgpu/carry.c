/* Vector operations with a lane mask in or out: carries, selection, 64-bit multiply-add. */
#include "lanes.h"

static void finish_mask(struct wave *w, const struct operand *o, uint64_t mask, uint64_t undef)
{
    write_lane_mask(w, o, mask & w->exec);
    mark_lane_mask(w, o, undef & w->exec);
}

enum { CARRY_SUB = 1, CARRY_REVERSE = 2, CARRY_IN = 4 };

/* dst, carry out, a, b[, carry in] */
static void exec_carry(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 2, 0), *b = fetch(w, in, 3, 1);
    uint32_t *carry_in = w->tmp[2], *sum = w->tmp[3], *carry = w->tmp[4];
    uint64_t undef = undefined_lanes(w, in);
    if (in->param & CARRY_REVERSE) {
        const uint32_t *swap = a;
        a = b;
        b = swap;
    }
    mask_to_row(in->param & CARRY_IN ? read_lane_mask(w, &in->op[4]) : 0, carry_in);
    bool subtract = in->param & CARRY_SUB;
    for (int l = 0; l < w->n; l++) {
        uint64_t y = (uint64_t)b[l] + (carry_in[l] & 1);
        uint64_t r = subtract ? (uint64_t)a[l] - y : (uint64_t)a[l] + y;
        sum[l] = (uint32_t)r;
        carry[l] = 0u - (uint32_t)(r >> 32 & 1);
    }
    uint64_t out = row_to_mask(carry, w->n);
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, sum);
    finish_mask(w, &in->op[1], out, undef);
}

/* dst, false value, true value, mask */
static void exec_select(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1);
    const struct operand *condition = &in->op[3];
    uint64_t mask = read_lane_mask(w, condition), undef = 0;
    uint32_t *choose = w->tmp[2], *r = w->tmp[4];
    mask_to_row(mask, choose);
    for (int l = 0; l < w->n; l++) r[l] = choose[l] ? b[l] : a[l];
    undef = undefined_mask(w, condition);
    if (undef) note_root(w, w->s_root[condition->reg]);
    for (int i = 1; i <= 2; i++) {
        const struct operand *o = &in->op[i];
        uint64_t lanes = 0;
        if (o->kind == OPK_VGPR) lanes = w->undef[o->reg][0] | w->undef[o->reg][1];
        if (o->kind == OPK_SGPR && w->s_undef[o->reg]) lanes = w->full;
        if (lanes) note_root(w, o->kind == OPK_VGPR ? w->v_root[o->reg] : w->s_root[o->reg]);
        undef |= lanes & (i == 2 ? mask : ~mask);
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, r);
}

/* dst pair, carry out, a, b, c pair */
static void exec_mad64(struct wave *w, const struct inst *in)
{
    bool is_signed = in->param;
    const uint32_t *a = fetch(w, in, 2, 0), *b = fetch(w, in, 3, 1), *c = fetch(w, in, 4, 2);
    uint32_t *r = w->tmp[4], *carry = w->tmp[3];
    uint64_t undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        uint64_t addend = c[l] | (uint64_t)c[l + ROW] << 32;
        uint64_t product =
            is_signed ? (uint64_t)((int64_t)(int32_t)a[l] * (int32_t)b[l]) : (uint64_t)a[l] * b[l];
        uint64_t sum = product + addend;
        r[l] = (uint32_t)sum;
        r[l + ROW] = (uint32_t)(sum >> 32);
        carry[l] = sum < addend ? ~0u : 0;
    }
    uint64_t out = row_to_mask(carry, w->n);
    /* the low word of the result does not depend on the addend's high word */
    uint64_t low_undef = undef;
    if (undef && in->op[4].kind == OPK_VGPR) {
        const struct operand *o = &in->op[4];
        uint64_t(*u)[2] = w->undef;
        low_undef = u[o->reg][0] | u[o->reg][1];
        for (int i = 2; i < 4; i++) {
            o = &in->op[i];
            if (o->kind == OPK_VGPR) low_undef |= u[o->reg][0] | u[o->reg][1];
            if (o->kind == OPK_SGPR && w->s_undef[o->reg]) low_undef = w->full;
        }
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    set_undefined(w, &(struct reg_range){in->op[0].reg, 1, 3}, w->exec, low_undef);
    finish_row(w, in, r);
    finish_mask(w, &in->op[1], out, undef);
}

#define CARRY(name, types, param)                                                                  \
    {"v_" #name, exec_carry, NULL, types, OPF_VALU | OPF_TWO_DST, param},

static const struct op_row rows[] = {
#include "carry.def"
    {"v_cndmask_b32", exec_select, NULL, "U:FFM", OPF_VALU, 0},
    {"v_cndmask_b16", exec_select, NULL, "S:SSM", OPF_VALU, 0},
    {"v_mad_u64_u32", exec_mad64, NULL, "QM:UUQ", OPF_VALU | OPF_TWO_DST, 0},
    {"v_mad_i64_i32", exec_mad64, NULL, "LM:UUQ", OPF_VALU | OPF_TWO_DST, 1},
    {"v_mad_co_u64_u32", exec_mad64, NULL, "QM:UUQ", OPF_VALU | OPF_TWO_DST, 0},
    {"v_mad_co_i64_i32", exec_mad64, NULL, "LM:UUQ", OPF_VALU | OPF_TWO_DST, 1},
};

const struct op_table ops_carry = {rows, sizeof rows / sizeof *rows};
