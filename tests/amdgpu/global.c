/* Global, flat and scratch loads and stores. */
#include "access.h"

/* The lane addresses of a global or flat instruction: a 64-bit VGPR pair, or an SGPR base plus a
 * 32-bit VGPR offset. */
static void lane_addresses(struct wave *w, const struct inst *in, int address_op, uint64_t *at)
{
    const struct operand *va = &in->op[address_op];
    const struct operand *sa = in->nops > address_op + 1 ? &in->op[in->nops - 1] : NULL;
    const uint32_t *low = vrow(w, va->reg);
    need_defined(w, in, va, w->exec, "address");
    if (sa && sa->kind == OPK_SGPR && !(in->param & ACC_FLAT && va->dwords == 2)) {
        need_defined(w, in, sa, w->exec, "address");
        uint64_t base = read_scalar64(w, sa) + (uint64_t)(int64_t)in->offset;
        for (int l = 0; l < w->n; l++) at[l] = base + low[l];
        return;
    }
    const uint32_t *high = vrow(w, va->reg + 1);
    uint64_t offset = (uint64_t)(int64_t)in->offset;
    for (int l = 0; l < w->n; l++) at[l] = (low[l] | (uint64_t)high[l] << 32) + offset;
}

/* One check for the whole wave when the active lanes lie in one allocation, else one per lane. */
static void check_lanes(struct wave *w, const struct inst *in, const uint64_t *at, uint32_t bytes)
{
    uint64_t low = ~UINT64_C(0), high = 0;
    for (int l = 0; l < w->n; l++) {
        uint64_t x = w->mask[l] ? at[l] : ~UINT64_C(0), y = w->mask[l] ? at[l] : 0;
        low = x < low ? x : low;
        high = y > high ? y : high;
    }
    if (global_span(w, low, high + bytes)) return;
    for (uint64_t e = w->exec; e; e &= e - 1)
        global_at(w, in, at[__builtin_ctzll(e)], bytes, __builtin_ctzll(e));
}

static void load_rows(struct wave *w, const struct inst *in, const uint64_t *at, uint64_t lanes)
{
    uint32_t bytes = in->param & ACC_BYTES;
    uint32_t *d = vrow(w, in->op[0].reg);
    for (uint64_t e = lanes; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        const uint8_t *p = (const uint8_t *)(uintptr_t)at[l];
        if (bytes < 4) {
            d[l] = narrow_value(in, p, d[l]);
            continue;
        }
        uint32_t words[4];
        if (bytes == 16) memcpy(words, p, 16);
        else memcpy(words, p, bytes);
        for (uint32_t k = 0; k < bytes / 4; k++) d[k * ROW + (uint32_t)l] = words[k];
    }
}

static void store_rows(struct wave *w, const struct inst *in, const struct operand *data,
                       const uint64_t *at, uint64_t lanes)
{
    uint32_t bytes = in->param & ACC_BYTES,
             shift = in->flags & OPF_D16_HI || data->half == 2 ? 16 : 0;
    const uint32_t *s = vrow(w, data->reg);
    for (uint64_t e = lanes; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint8_t *p = (uint8_t *)(uintptr_t)at[l];
        if (bytes < 4) {
            uint32_t value = s[l] >> shift;
            memcpy(p, &value, bytes);
            continue;
        }
        for (uint32_t k = 0; k < bytes / 4; k++) memcpy(p + 4 * k, &s[k * ROW + (uint32_t)l], 4);
    }
}

/* Undefined lanes of the registers a store reads; narrow stores look only at their half. */
static uint64_t data_undefined(const struct wave *w, const struct inst *in,
                               const struct operand *data)
{
    uint32_t bytes = in->param & ACC_BYTES;
    if (bytes < 4) return w->undef[data->reg][in->flags & OPF_D16_HI || data->half == 2];
    uint64_t undef = 0;
    for (uint32_t k = 0; k < bytes / 4; k++)
        undef |= w->undef[data->reg + k][0] | w->undef[data->reg + k][1];
    return undef;
}

static void mark_loaded(struct wave *w, const struct inst *in, uint64_t lanes, uint64_t undef,
                        enum counter c)
{
    for (int i = 0; i < in->nvwrite; i++) {
        set_undefined(w, &in->vwrite[i], lanes, undef);
        tag_vgprs(w, in->vwrite[i].reg, in->vwrite[i].count, c);
    }
}

static enum counter store_counter(const struct wave *w)
{
    return w->program->target->store_in_vmcnt ? CNT_VM : CNT_VS;
}

/* Scratch: private_size bytes per lane, with a byte map of what was written. */
static uint32_t scratch_place(struct wave *w, int64_t offset, uint32_t bytes, int lane)
{
    if (offset < 0 || offset + bytes > w->private_size)
        fault(w,
              "scratch access at byte %lld, %u bytes, lane %d: the kernel has %u bytes of scratch "
              "per lane",
              (long long)offset, bytes, lane, w->private_size);
    return (uint32_t)lane * w->private_size + (uint32_t)offset;
}

static void scratch_load(struct wave *w, const struct inst *in, const int64_t *offset,
                         uint64_t lanes)
{
    uint64_t at[ROW], undef = 0;
    uint32_t bytes = in->param & ACC_BYTES;
    for (uint64_t e = lanes; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint32_t place = scratch_place(w, offset[l], bytes, l);
        at[l] = (uint64_t)(uintptr_t)(w->scratch + place);
        for (uint32_t k = 0; k < bytes; k++)
            if (!w->scratch_written[place + k]) undef |= UINT64_C(1) << l;
    }
    load_rows(w, in, at, lanes);
    for (int i = 0; i < in->nvwrite; i++) set_undefined(w, &in->vwrite[i], lanes, undef);
}

static void scratch_store(struct wave *w, const struct inst *in, const struct operand *data,
                          const int64_t *offset, uint64_t lanes)
{
    uint64_t at[ROW], undef = data_undefined(w, in, data);
    uint32_t bytes = in->param & ACC_BYTES;
    for (uint64_t e = lanes; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint32_t place = scratch_place(w, offset[l], bytes, l);
        at[l] = (uint64_t)(uintptr_t)(w->scratch + place);
        memset(w->scratch_written + place, !(undef >> l & 1), bytes);
    }
    store_rows(w, in, data, at, lanes);
}

/* Also used by buffer instructions on the scratch resource. */
void scratch_access(struct wave *w, const struct inst *in, const struct operand *data,
                    const int64_t *offset)
{
    if (in->flags & OPF_STORE) {
        scratch_store(w, in, data, offset, w->exec);
        issue(w, store_counter(w));
    } else {
        issue(w, CNT_VM);
        scratch_load(w, in, offset, w->exec);
        for (int i = 0; i < in->nvwrite; i++)
            tag_vgprs(w, in->vwrite[i].reg, in->vwrite[i].count, CNT_VM);
    }
}

/* Loads and stores whose addresses are all in global memory; shared with the buffer instructions.
 */
void global_access(struct wave *w, const struct inst *in, const struct operand *data,
                   const uint64_t *at)
{
    uint32_t bytes = in->param & ACC_BYTES;
    uint64_t active = (uint64_t)__builtin_popcountll(w->exec) * bytes;
    bool store = in->flags & OPF_STORE;
    if (w->exec) check_lanes(w, in, at, bytes);
    if (store) {
        uint64_t undef = data_undefined(w, in, data) & w->exec;
        if (undef) need_defined(w, in, data, w->exec, "store of");
        store_rows(w, in, data, at, w->exec);
        issue(w, store_counter(w));
        w->worker->stats.global_written += active;
        return;
    }
    load_rows(w, in, at, w->exec);
    issue(w, CNT_VM);
    mark_loaded(w, in, w->exec, 0, CNT_VM);
    w->worker->stats.global_read += active;
}

static void exec_global(struct wave *w, const struct inst *in)
{
    uint64_t at[ROW];
    bool store = in->flags & OPF_STORE;
    lane_addresses(w, in, store ? 0 : 1, at);
    global_access(w, in, &in->op[1], at);
}

static void exec_scratch(struct wave *w, const struct inst *in)
{
    int64_t offset[ROW];
    int first = in->flags & OPF_STORE ? 0 : 1;
    const struct operand *va = &in->op[first], *sa = &in->op[in->nops - 1];
    int64_t base = in->offset;
    if (sa->kind == OPK_SGPR) {
        need_defined(w, in, sa, w->exec, "scratch address");
        base += (int32_t)read_scalar(w, sa);
    }
    if (va->kind == OPK_VGPR) need_defined(w, in, va, w->exec, "scratch address");
    for (int l = 0; l < w->n; l++)
        offset[l] = base + (va->kind == OPK_VGPR ? (int64_t)(int32_t)vrow(w, va->reg)[l] : 0);
    scratch_access(w, in, in->flags & OPF_STORE ? &in->op[1] : NULL, offset);
}

/* A flat access goes lane by lane to LDS, scratch or global memory, by the aperture in the upper
 * address half. */
static void exec_flat(struct wave *w, const struct inst *in)
{
    uint64_t at[ROW], kinds[3] = {0, 0, 0}, exec = w->exec;
    int64_t offset[ROW];
    lane_addresses(w, in, in->flags & OPF_STORE ? 0 : 1, at);
    for (uint64_t e = exec; e; e &= e - 1) {
        int l = __builtin_ctzll(e);
        uint64_t high = at[l] >> 32;
        int kind = high == SHARED_APERTURE >> 32 ? 1 : high == PRIVATE_APERTURE >> 32 ? 2 : 0;
        kinds[kind] |= UINT64_C(1) << l;
        offset[l] = (int64_t)(uint32_t)at[l];
    }
    issue(w, CNT_DS);
    if (kinds[1]) {
        w->exec = kinds[1];
        mask_to_row(w->exec, w->mask);
        lds_flat(w, in, at);
    }
    if (kinds[2]) {
        w->exec = kinds[2];
        mask_to_row(w->exec, w->mask);
        scratch_access(w, in, &in->op[1], offset);
    }
    if (kinds[0]) {
        w->exec = kinds[0];
        mask_to_row(w->exec, w->mask);
        global_access(w, in, &in->op[1], at);
    }
    w->exec = exec;
    mask_to_row(w->exec, w->mask);
}

#define LOADS(name, acc, flag)                                                                     \
    {"global_load_" name, exec_global, NULL, "U:UU", OPF_VMEM | (flag), acc},                      \
        {"flat_load_" name, exec_flat, NULL, "U:UU", OPF_VMEM | (flag), (acc) | ACC_FLAT},         \
        {"scratch_load_" name, exec_scratch, NULL, "U:UU", OPF_VMEM | (flag), (acc) | ACC_SCRATCH},
#define STORES(name, acc, flag)                                                                    \
    {"global_store_" name, exec_global, NULL, ":UUU", OPF_VMEM | OPF_STORE | (flag), acc},         \
        {"flat_store_" name, exec_flat, NULL, ":UUU", OPF_VMEM | OPF_STORE | (flag),               \
         (acc) | ACC_FLAT},                                                                        \
        {"scratch_store_" name,         exec_scratch,       NULL, ":UUU",                          \
         OPF_VMEM | OPF_STORE | (flag), (acc) | ACC_SCRATCH},

static const struct op_row rows[] = {
#include "loads.def"
};

const struct op_table ops_global = {rows, sizeof rows / sizeof *rows};
