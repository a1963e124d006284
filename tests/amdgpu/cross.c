/* Vector operations across lanes and odd ones: readlane, permlane, mbcnt, moves by index,
 * three-input bit tables. */
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

static bool undefined_at(const struct wave *w, int reg, int lane)
{
    return ((w->undef[reg][0] | w->undef[reg][1]) >> lane & 1) != 0;
}

static void exec_readlane(struct wave *w, const struct inst *in)
{
    const struct operand *o = &in->op[1];
    int lane = w->exec ? __builtin_ctzll(w->exec) : 0;
    if (in->param) lane = (int)(read_scalar(w, &in->op[2]) & (uint32_t)(w->n - 1));
    if (o->kind != OPK_VGPR) { /* a uniform value needs no lane */
        write_scalar(w, &in->op[0], read_scalar(w, o));
        return;
    }
    write_scalar(w, &in->op[0], vrow(w, o->reg)[lane]);
    if (in->op[0].kind != OPK_SGPR) return;
    bool undef = undefined_at(w, o->reg, lane);
    if (undef) note_root(w, w->v_root[o->reg]);
    mark_scalar(w, in->op[0].reg, undef ? ~0u : 0);
}

static void exec_writelane(struct wave *w, const struct inst *in)
{
    uint32_t value = read_scalar(w, &in->op[1]);
    int lane = (int)(read_scalar(w, &in->op[2]) & (uint32_t)(w->n - 1));
    vrow(w, in->op[0].reg)[lane] = value;
    bool undef = in->op[1].kind == OPK_SGPR && w->s_undef[in->op[1].reg];
    set_undefined(w, &in->vwrite[0], UINT64_C(1) << lane, undef ? ~UINT64_C(0) : 0);
}

/* out[l] = src[from[l]], lanes with from < 0 keep their value. Sources outside of EXEC: op_sel bit
   0 (fetch inactive) reads them, bit 1 (bound_ctrl) gives 0, otherwise the lane is not written. */
static void gather(struct wave *w, const struct inst *in, const uint32_t *src, int src_reg,
                   const int *from)
{
    uint32_t *r = w->tmp[4];
    uint64_t lanes = w->exec, undef = 0;
    for (int l = 0; l < w->n; l++) {
        bool active = w->exec >> from[l] & 1 || in->opsel & 1;
        r[l] = active ? src[from[l]] : 0;
        if (!active && !(in->opsel & 2)) lanes &= ~(UINT64_C(1) << l);
        if (active && undefined_at(w, src_reg, from[l])) undef |= UINT64_C(1) << l;
    }
    write_row(w, in->op[0].reg, r, lanes);
    set_undefined(w, &in->vwrite[0], lanes, undef);
}

/* v_permlane16 / x16: within each row of 16, or from the other row of the pair; 4-bit selectors
   from two scalars, or a VGPR for the _var forms. param bit 0: other row, bit 1: selectors per
   lane. */
static void exec_permlane16(struct wave *w, const struct inst *in)
{
    uint32_t src[ROW];
    int from[ROW];
    memcpy(src, fetch(w, in, 1, 0), sizeof src);
    uint64_t selectors = 0;
    if (!(in->param & 2))
        selectors = read_scalar(w, &in->op[2]) | (uint64_t)read_scalar(w, &in->op[3]) << 32;
    for (int l = 0; l < w->n; l++) {
        int pick = in->param & 2 ? (int)(vrow(w, in->op[2].reg)[l] & 15)
                                 : (int)(selectors >> (4 * (l & 15)) & 15);
        from[l] = ((l & ~15) ^ (in->param & 1 ? 16 : 0)) + pick;
    }
    gather(w, in, src, in->op[1].reg, from);
}

static void exec_permlane64(struct wave *w, const struct inst *in)
{
    uint32_t src[ROW];
    int from[ROW];
    memcpy(src, fetch(w, in, 1, 0), sizeof src);
    for (int l = 0; l < w->n; l++) from[l] = w->n == 64 ? l ^ 32 : l;
    gather(w, in, src, in->op[1].reg, from);
}

/* v_permlane{16,32}_swap: odd rows (or the upper half) of the first register change places with the
 * even rows of the second. */
static void exec_permlane_swap(struct wave *w, const struct inst *in)
{
    int step = (int)in->param;
    uint32_t *x = vrow(w, in->op[0].reg), *y = vrow(w, in->op[1].reg);
    for (int l = 0; l < w->n; l++) {
        if (!(l & step)) continue;
        uint32_t keep = x[l];
        x[l] = y[l - step];
        y[l - step] = keep;
    }
    for (int h = 0; h < 2; h++) {
        uint64_t *u = &w->undef[in->op[0].reg][h], *v = &w->undef[in->op[1].reg][h], high = 0;
        for (int l = 0; l < w->n; l++)
            if (l & step) high |= UINT64_C(1) << l;
        uint64_t a = *u, b = *v;
        *u = (a & ~high) | ((b << step) & high);
        *v = (b & high) | ((a & high) >> step);
    }
}

static void exec_swap(struct wave *w, const struct inst *in)
{
    uint32_t *x = vrow(w, in->op[0].reg), *y = vrow(w, in->op[1].reg);
    for (int l = 0; l < w->n; l++) {
        uint32_t a = x[l], b = y[l];
        x[l] = w->mask[l] ? b : a;
        y[l] = w->mask[l] ? a : b;
    }
    for (int h = 0; h < 2; h++) {
        uint64_t *u = &w->undef[in->op[0].reg][h], *v = &w->undef[in->op[1].reg][h];
        uint64_t a = *u, b = *v;
        *u = (a & ~w->exec) | (b & w->exec);
        *v = (b & ~w->exec) | (a & w->exec);
    }
}

static void exec_mbcnt(struct wave *w, const struct inst *in)
{
    const uint32_t *mask = fetch(w, in, 1, 0), *add = fetch(w, in, 2, 1);
    uint32_t *r = w->tmp[4];
    bool high = in->param;
    uint64_t undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        int below = high ? l - 32 : l;
        uint32_t keep = below <= 0 ? 0 : below >= 32 ? ~0u : (1u << below) - 1;
        r[l] = (uint32_t)__builtin_popcount(mask[l] & keep) + add[l];
    }
    write_row(w, in->op[0].reg, r, w->exec);
    set_undefined(w, &in->vwrite[0], w->exec, undef);
}

/* v_bitop3: bit i of the table is the result for inputs a b c = i in binary. */
static void exec_bitop3(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1), *c = fetch(w, in, 3, 2);
    uint32_t *r = w->tmp[4];
    uint64_t undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        uint32_t x = 0;
        for (int i = 0; i < 8; i++)
            if (in->bitop3 >> i & 1)
                x |= (i & 4 ? a[l] : ~a[l]) & (i & 2 ? b[l] : ~b[l]) & (i & 1 ? c[l] : ~c[l]);
        r[l] = x;
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, r);
}

/* v_movrels / v_movreld: M0 is added to the source or destination register number. */
static void exec_movrel(struct wave *w, const struct inst *in)
{
    int offset = (int)w->s[S_M0], from = in->op[1].reg, to = in->op[0].reg;
    if (in->param & 1) from += offset;
    if (in->param & 2) to += offset;
    if (from < 0 || from >= 256 || to < 0 || to >= 256)
        fault(w, "register index %d + m0 is out of range", offset);
    const uint32_t *src = in->op[1].kind == OPK_VGPR ? vrow(w, from) : fetch(w, in, 1, 0);
    uint64_t undef = in->op[1].kind == OPK_VGPR ? w->undef[from][0] | w->undef[from][1] : 0;
    struct reg_range written = {(uint16_t)to, 1, 3};
    uint32_t copy[ROW];
    memcpy(copy, src, sizeof copy);
    write_row(w, to, copy, w->exec);
    set_undefined(w, &written, w->exec, undef);
}

/* Adds the index to the register numbers of the operands that the mode names: bit 0 to 2 sources,
 * bit 3 destination. */
static struct inst shifted(struct wave *w, const struct inst *in, int mode, int index)
{
    struct inst copy = *in;
    copy.nvread = copy.nvwrite = 0;
    for (int i = 0; i < in->nops; i++) {
        struct operand *o = &copy.op[i];
        bool writes = i < in->ndst;
        if (o->kind != OPK_VGPR) continue;
        if (mode >> (writes ? 3 : i - in->ndst) & 1) {
            if (o->reg + index >= 256)
                fault(w, "register v%d + index %d is out of range", o->reg, index);
            o->reg = (uint16_t)(o->reg + index);
        }
        struct reg_range range = {o->reg, o->dwords, 3};
        if (writes) copy.vwrite[copy.nvwrite++] = range;
        else copy.vread[copy.nvread++] = range;
    }
    return copy;
}

/* s_set_gpr_idx_on s4, gpr_idx(SRC0,DST) (gfx9): vector instructions up to s_set_gpr_idx_off
   address registers relative to the index. The compiler puts nothing but moves between the two. */
static void exec_index_on(struct wave *w, const struct inst *in)
{
    static const char *const names[] = {"SRC0", "SRC1", "SRC2", "DST"};
    char error[600];
    const char *source = strchr(in->text, ' ');
    int mode = 0, index;
    while (source && *source == ' ') source++;
    for (int i = 0; i < 4; i++)
        if (strstr(in->text, names[i])) mode |= 1 << i;
    if (!source) fault(w, "s_set_gpr_idx_on without an index");
    if (*source == 'm') index = (int)(w->s[S_M0] & 255);
    else
        index = (int)((*source == 's' ? w->s[strtol(source + 1, NULL, 10)]
                                      : (uint32_t)strtol(source, NULL, 0)) &
                      255);
    for (;;) {
        const struct inst *next = decode_at(w->program, w->pc, error, sizeof error);
        if (!next) fault(w, "%s", error);
        w->at = next;
        w->pc = next->next_pc;
        w->worker->counts[next->category]++;
        if (strcmp(next->row->name, "s_set_gpr_idx_off") == 0) return;
        if (next->flags & OPF_END_BLOCK) fault(w, "a branch while registers are indexed");
        struct inst copy = next->flags & OPF_VALU ? shifted(w, next, mode, index) : *next;
        if (w->outstanding && w->worker->launch->options->check_waits) check_pending(w, &copy);
        copy.exec(w, &copy);
    }
}

static void exec_nothing(struct wave *w, const struct inst *in)
{
    (void)w;
    (void)in;
}

static const struct op_row rows[] = {
    {"v_nop", exec_nothing, NULL, "", OPF_VALU, 0},
    {"v_readfirstlane_b32", exec_readlane, NULL, "U:U", OPF_VALU | OPF_CROSS, 0},
    {"v_readlane_b32", exec_readlane, NULL, "U:UU", OPF_VALU | OPF_CROSS, 1},
    {"v_writelane_b32", exec_writelane, NULL, "U:UU", OPF_VALU | OPF_CROSS | OPF_READS_DST, 0},
    {"v_permlane16_b32", exec_permlane16, NULL, "U:UUU", OPF_VALU | OPF_CROSS | OPF_READS_DST, 0},
    {"v_permlanex16_b32", exec_permlane16, NULL, "U:UUU", OPF_VALU | OPF_CROSS | OPF_READS_DST, 1},
    {"v_permlane16_var_b32", exec_permlane16, NULL, "U:UU", OPF_VALU | OPF_CROSS | OPF_READS_DST,
     2},
    {"v_permlanex16_var_b32", exec_permlane16, NULL, "U:UU", OPF_VALU | OPF_CROSS | OPF_READS_DST,
     3},
    {"v_permlane64_b32", exec_permlane64, NULL, "U:U", OPF_VALU | OPF_CROSS, 0},
    {"v_permlane16_swap_b32", exec_permlane_swap, NULL, "UU:", OPF_VALU | OPF_CROSS | OPF_TWO_DST,
     16},
    {"v_permlane32_swap_b32", exec_permlane_swap, NULL, "UU:", OPF_VALU | OPF_CROSS | OPF_TWO_DST,
     32},
    {"v_swap_b32", exec_swap, NULL, "UU:", OPF_VALU | OPF_TWO_DST, 0},
    {"v_mbcnt_lo_u32_b32", exec_mbcnt, NULL, "U:UU", OPF_VALU, 0},
    {"v_mbcnt_hi_u32_b32", exec_mbcnt, NULL, "U:UU", OPF_VALU, 1},
    {"v_bitop3_b32", exec_bitop3, NULL, "U:UUU", OPF_VALU, 0},
    {"v_bitop3_b16", exec_bitop3, NULL, "S:SSS", OPF_VALU, 0},
    {"s_set_gpr_idx_on", exec_index_on, NULL, "", 0, 0},
    {"s_set_gpr_idx_off", exec_nothing, NULL, "", 0, 0},
    {"v_movrels_b32", exec_movrel, NULL, "U:U", OPF_VALU, 1},
    {"v_movreld_b32", exec_movrel, NULL, "U:U", OPF_VALU, 2},
    {"v_movrelsd_b32", exec_movrel, NULL, "U:U", OPF_VALU, 3},
};

const struct op_table ops_cross = {rows, sizeof rows / sizeof *rows};
