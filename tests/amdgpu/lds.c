/* LDS: reads, writes, permutes, with bounds, written-byte map, race shadow and bank conflicts. */
#include "access.h"

uint8_t *lds_at(struct wave *w, const struct inst *in, uint64_t address, uint32_t bytes, int lane)
{
    (void)in;
    if (address + bytes > w->group->lds_size)
        fault(w,
              "lane %d accesses %u bytes at LDS address %llu, out of bounds: the workgroup has %u "
              "bytes",
              lane, bytes, (unsigned long long)address, w->group->lds_size);
    if (bytes >= 4 && address & 3)
        fault(w, "lane %d accesses %u bytes at LDS address %llu: not 4-byte aligned", lane, bytes,
              (unsigned long long)address);
    return w->worker->lds + address;
}

/* Bookkeeping of one lane's access: race shadow and written bytes. */
void lds_note(struct wave *w, const struct inst *in, uint32_t address, uint32_t bytes, int lane,
              bool write, bool defined)
{
    (void)in;
    if (w->worker->launch->options->check_races && w->group->wave_count > 1) {
        if (write) race_write(w, address, bytes, lane);
        else race_read(w, address, bytes, lane);
    }
    if (write) memset(w->worker->lds_written + address, defined, bytes);
}

static bool lds_defined(const struct wave *w, uint32_t address, uint32_t bytes)
{
    const uint8_t *p = w->worker->lds_written + address;
    uint32_t word;
    if (bytes < 4) return p[0] && p[bytes - 1];
    for (uint32_t k = 0; k < bytes; k += 4) {
        memcpy(&word, p + k, 4);
        if (word != 0x01010101) return false;
    }
    return true;
}

/* Extra cycles by bank conflicts: 32 banks of 4 bytes; lanes are served in groups of 32 (4 bytes),
   16 (8 bytes) or 8 (16 bytes), and lanes that read the same dword share it. */
static void count_conflicts(struct wave *w, const uint32_t *address, uint32_t bytes)
{
    int words = bytes < 4 ? 1 : (int)bytes / 4, per_group = 32 / words;
    if (per_group * words > 32) per_group = 32;
    uint64_t cycles = 0, extra = 0;
    for (int first = 0; first < w->n; first += per_group) {
        uint32_t seen[32][8];
        uint8_t used[32] = {0};
        int worst = 0;
        for (int l = first; l < first + per_group && l < w->n; l++) {
            if (!(w->exec >> l & 1)) continue;
            for (int k = 0; k < words; k++) {
                uint32_t word = address[l] / 4 + (uint32_t)k, bank = word % 32;
                bool known = false;
                for (int i = 0; i < used[bank] && i < 8; i++) known |= seen[bank][i] == word;
                if (known) continue;
                if (used[bank] < 8) seen[bank][used[bank]] = word;
                if (++used[bank] > worst) worst = used[bank];
            }
        }
        cycles += worst > 0;
        extra += worst > 1 ? (uint64_t)(worst - 1) : 0;
    }
    w->worker->stats.lds_conflict_cycles += extra;
    w->worker->stats.lds_cycles += cycles;
    w->worker->stats.lds_sampled++;
    if (!w->worker->launch->options->profile || !w->program->profile) return;
    struct place *place = &w->program->profile[(w->at->pc - w->program->base) / 4];
    __atomic_fetch_add(&place->lds_cycles, cycles, __ATOMIC_RELAXED);
    __atomic_fetch_add(&place->lds_conflicts, extra, __ATOMIC_RELAXED);
}

/* Bounds and alignment of all active lanes at once; the slow way names the lane that is wrong. */
static void check_places(struct wave *w, const struct inst *in, const uint32_t *address,
                         uint32_t bytes)
{
    uint32_t highest = 0, low_bits = 0;
    for (int l = 0; l < w->n; l++) {
        uint32_t a = address[l] & w->mask[l];
        highest = a > highest ? a : highest;
        low_bits |= a;
    }
    if (w->exec && ((uint64_t)highest + bytes > w->group->lds_size || (bytes >= 4 && low_bits & 3)))
        for (uint64_t e = w->exec; e; e &= e - 1)
            lds_at(w, in, address[__builtin_ctzll(e)], bytes, __builtin_ctzll(e));
}

/* Reads `bytes` per lane into registers from `reg`; returns the lanes that met unwritten bytes. */
static uint64_t read_lanes(struct wave *w, const struct inst *in, const uint32_t *address, int reg,
                           uint32_t bytes)
{
    uint64_t undef = 0;
    uint32_t *d = vrow(w, reg);
    const uint8_t *lds = w->worker->lds;
    check_places(w, in, address, bytes);
    if (w->worker->launch->options->check_races)
        for (uint64_t e = w->exec; e; e &= e - 1) {
            int l = __builtin_ctzll(e);
            lds_note(w, in, address[l], bytes, l, false, true);
        }
    for (uint64_t e = w->exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        const uint8_t *p = lds + address[l];
        if (!lds_defined(w, address[l], bytes)) undef |= UINT64_C(1) << l;
        if (bytes == 16) {
            uint32_t x[4];
            memcpy(x, p, 16);
            d[l] = x[0];
            d[ROW + l] = x[1];
            d[2 * ROW + l] = x[2];
            d[3 * ROW + l] = x[3];
        } else if (bytes < 4) {
            d[l] = narrow_value(in, p, d[l]);
        } else {
            for (uint32_t k = 0; k < bytes / 4; k++)
                memcpy(&d[k * ROW + (uint32_t)l], p + 4 * k, 4);
        }
    }
    return undef;
}

static void write_lanes(struct wave *w, const struct inst *in, const uint32_t *address,
                        const struct operand *data, uint32_t bytes)
{
    const uint32_t *s = vrow(w, data->reg);
    uint32_t shift = in->flags & OPF_D16_HI || data->half == 2 ? 16 : 0;
    uint64_t undef = 0;
    check_places(w, in, address, bytes);
    if (bytes < 4) undef = w->undef[data->reg][shift != 0];
    else
        for (uint32_t k = 0; k < bytes / 4; k++)
            undef |= w->undef[data->reg + k][0] | w->undef[data->reg + k][1];
    for (uint64_t e = w->exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint8_t *p = w->worker->lds + address[l];
        lds_note(w, in, address[l], bytes, l, true, !(undef >> l & 1));
        if (bytes < 4) {
            uint32_t value = s[l] >> shift;
            if (bytes == 2) memcpy(p, &value, 2);
            else *p = (uint8_t)value;
        } else {
            for (uint32_t k = 0; k < bytes / 4; k++)
                memcpy(p + 4 * k, &s[k * ROW + (uint32_t)l], 4);
        }
    }
}

static void lane_places(struct wave *w, const struct inst *in, int op, int32_t offset,
                        uint32_t *address)
{
    const uint32_t *base = vrow(w, in->op[op].reg);
    need_defined(w, in, &in->op[op], w->exec, "LDS address");
    for (int l = 0; l < w->n; l++) address[l] = base[l] + (uint32_t)offset;
}

static void exec_read(struct wave *w, const struct inst *in)
{
    uint32_t address[ROW], bytes = in->param & ACC_BYTES;
    int parts = in->param & ACC_TWO ? 2 : 1;
    uint64_t undef[2] = {0, 0};
    int32_t step = (int32_t)bytes * (in->param & ACC_STRIDE64 ? 64 : 1);
    uint32_t base[ROW];
    lane_places(w, in, 1, parts == 1 ? in->offset : 0, base);
    for (int p = 0; p < parts; p++) {
        int32_t offset = parts == 1 ? 0 : (p ? in->offset1 : in->offset0) * step;
        for (int l = 0; l < w->n; l++) address[l] = base[l] + (uint32_t)offset;
        undef[p] = read_lanes(w, in, address, in->op[0].reg + p * (int)bytes / 4, bytes);
        if (w->worker->count_conflicts) count_conflicts(w, address, bytes);
    }
    issue(w, CNT_DS);
    if (parts == 1) {
        set_undefined(w, &in->vwrite[0], w->exec, undef[0]);
    } else {
        for (int p = 0; p < 2; p++) {
            struct reg_range half = {(uint16_t)(in->op[0].reg + p * (int)bytes / 4),
                                     (uint8_t)(bytes / 4), 3};
            set_undefined(w, &half, w->exec, undef[p]);
        }
    }
    tag_vgprs(w, in->vwrite[0].reg, in->vwrite[0].count, CNT_DS);
    w->worker->stats.lds_read += (uint64_t)__builtin_popcountll(w->exec) * bytes * (uint64_t)parts;
}

static void exec_write(struct wave *w, const struct inst *in)
{
    uint32_t address[ROW], bytes = in->param & ACC_BYTES;
    int parts = in->param & ACC_TWO ? 2 : 1;
    int32_t step = (int32_t)bytes * (in->param & ACC_STRIDE64 ? 64 : 1);
    for (int p = 0; p < parts; p++) {
        lane_places(w, in, 0, parts == 1 ? in->offset : (p ? in->offset1 : in->offset0) * step,
                    address);
        write_lanes(w, in, address, &in->op[1 + p], bytes);
        if (w->worker->count_conflicts) count_conflicts(w, address, bytes);
    }
    w->last_lds_store = issue(w, CNT_DS);
    w->worker->stats.lds_written +=
        (uint64_t)__builtin_popcountll(w->exec) * bytes * (uint64_t)parts;
}

/* The LDS lanes of a flat instruction; EXEC is already narrowed to them. */
void lds_flat(struct wave *w, const struct inst *in, const uint64_t *at)
{
    uint32_t address[ROW], bytes = in->param & ACC_BYTES;
    for (int l = 0; l < w->n; l++) address[l] = (uint32_t)at[l];
    if (in->flags & OPF_STORE) {
        write_lanes(w, in, address, &in->op[1], bytes);
        w->last_lds_store = w->issued[CNT_DS];
    } else {
        uint64_t undef = read_lanes(w, in, address, in->op[0].reg, bytes);
        set_undefined(w, &in->vwrite[0], w->exec, undef);
        tag_vgprs(w, in->vwrite[0].reg, in->vwrite[0].count, CNT_DS);
    }
}

static void finish_permute(struct wave *w, const struct inst *in, const uint32_t *r, uint64_t undef)
{
    write_row(w, in->op[0].reg, r, w->exec);
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    issue(w, CNT_DS);
    tag_vgprs(w, in->op[0].reg, 1, CNT_DS);
}

/* ds_bpermute: each lane reads the data of lane address/4; inactive source lanes give 0.
 * ds_permute: each lane sends. */
static void exec_permute(struct wave *w, const struct inst *in)
{
    const uint32_t *address = vrow(w, in->op[1].reg), *data = vrow(w, in->op[2].reg);
    uint64_t source_undef = w->undef[in->op[2].reg][0] | w->undef[in->op[2].reg][1], undef = 0;
    uint32_t *r = w->tmp[4];
    need_defined(w, in, &in->op[1], w->exec, "lane address");
    memset(r, 0, ROW * 4);
    for (uint64_t e = w->exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        int other = (int)((address[l] + (uint32_t)in->offset) >> 2) & (w->n - 1);
        int from = in->param ? l : other, to = in->param ? other : l;
        if (!(w->exec >> from & 1) && !(in->flags & OPF_HALVES)) continue;
        r[to] = data[from];
        if (source_undef >> from & 1) undef |= UINT64_C(1) << to;
    }
    finish_permute(w, in, r, undef);
}

/* ds_swizzle: bit 15 of the offset selects quad permutation; bits 15:14 = 11 rotates groups of 32
   (gfx9 on); else and, or and xor masks within 32 lanes. */
static void exec_swizzle(struct wave *w, const struct inst *in)
{
    const uint32_t *data = vrow(w, in->op[1].reg);
    uint64_t source_undef = w->undef[in->op[1].reg][0] | w->undef[in->op[1].reg][1], undef = 0;
    uint32_t *r = w->tmp[4], offset = in->swizzle;
    for (int l = 0; l < w->n; l++) {
        int from;
        if ((offset & 0xe000) == 0xe000) fault(w, "ds_swizzle in FFT mode is not emulated");
        else if ((offset & 0xe000) == 0xc000)
            from = (l & ~31) | (((l & 31) + ((offset >> 10 & 1) ? -(int)(offset >> 5 & 31)
                                                                : (int)(offset >> 5 & 31))) &
                                31);
        else if (offset & 0x8000) from = (l & ~3) | (int)(offset >> (2 * (l & 3)) & 3);
        else
            from = (l & ~31) | (int)((((uint32_t)(l & 31) & (offset & 31)) | (offset >> 5 & 31)) ^
                                     (offset >> 10 & 31));
        r[l] = w->exec >> from & 1 ? data[from] : 0;
        if (source_undef >> from & 1) undef |= UINT64_C(1) << l;
    }
    finish_permute(w, in, r, undef);
}

static void exec_ds_nop(struct wave *w, const struct inst *in)
{
    (void)w;
    (void)in;
}

#define READS(name, acc, flag)                                                                     \
    {"ds_read_" name, exec_read, NULL, "U:U", OPF_LDS | (flag), acc},                              \
        {"ds_load_" name, exec_read, NULL, "U:U", OPF_LDS | (flag), acc},
#define WRITES(name, acc, flag)                                                                    \
    {"ds_write_" name, exec_write, NULL, ":UU", OPF_LDS | OPF_STORE | (flag), acc},                \
        {"ds_store_" name, exec_write, NULL, ":UU", OPF_LDS | OPF_STORE | (flag), acc},
#define READ2(name, acc)  {name, exec_read, NULL, "U:U", OPF_LDS, (acc) | ACC_TWO},
#define WRITE2(name, acc) {name, exec_write, NULL, ":UUU", OPF_LDS | OPF_STORE, (acc) | ACC_TWO},

static const struct op_row rows[] = {
#include "lds.def"
    {"ds_bpermute_b32", exec_permute, NULL, "U:UU", OPF_LDS, 0},
    {"ds_bpermute_fi_b32", exec_permute, NULL, "U:UU", OPF_LDS | OPF_HALVES, 0},
    {"ds_permute_b32", exec_permute, NULL, "U:UU", OPF_LDS, 1},
    {"ds_swizzle_b32", exec_swizzle, NULL, "U:U", OPF_LDS, 0},
    {"ds_nop", exec_ds_nop, NULL, "", OPF_LDS, 0},
};

const struct op_table ops_lds = {rows, sizeof rows / sizeof *rows};
