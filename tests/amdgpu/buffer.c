/* Buffer loads and stores: raw and structured resources, and the scratch resource of the targets
 * before flat scratch. */
#include "access.h"

/* data, vaddr, resource, soffset + offen, idxen, offset. A resource whose base lies in the private
   aperture is the scratch resource the dispatcher put there: its accesses are private to the lane.
 */
static void exec_buffer(struct wave *w, const struct inst *in)
{
    const struct operand *va = &in->op[1], *so = &in->op[3];
    if (in->lds) fault(w, "buffer load to LDS is not emulated");
    need_defined(w, in, &in->op[2], w->exec, "buffer resource");
    if (va->kind == OPK_VGPR) need_defined(w, in, va, w->exec, "buffer address");
    if (so->kind == OPK_SGPR) need_defined(w, in, so, w->exec, "buffer offset");
    const uint32_t *r = &w->s[in->op[2].reg];
    uint64_t base = (r[0] | (uint64_t)r[1] << 32) & UINT64_C(0xffffffffffff);
    uint32_t stride = r[1] >> 16 & 0x3fff, records = r[2], scalar = read_scalar(w, so);
    uint32_t bytes = in->param & ACC_BYTES;
    uint64_t at[ROW], exec = w->exec, inside = 0;
    int64_t offset[ROW];
    bool scratch = (base >> 32) == (PRIVATE_APERTURE >> 32 & 0xffff);
    for (int l = 0; l < w->n; l++) {
        uint32_t index = in->idxen ? vrow(w, va->reg)[l] : 0;
        uint32_t lane_offset = in->offen ? vrow(w, va->reg + in->idxen)[l] : 0;
        uint64_t place = (uint64_t)lane_offset + (uint32_t)in->offset;
        offset[l] = (int64_t)(place + scalar);
        at[l] = base + (uint64_t)index * stride + place + scalar;
        bool in_range = stride && in->idxen ? index < records : place + scalar + bytes <= records;
        inside |= (uint64_t)in_range << l;
    }
    if (scratch) {
        scratch_access(w, in, &in->op[0], offset);
        return;
    }
    /* out of range: loads give 0, stores are dropped (ISA documents, "Buffer range checking") */
    w->exec = exec & inside;
    mask_to_row(w->exec, w->mask);
    global_access(w, in, &in->op[0], at);
    uint64_t outside = exec & ~inside;
    if (!(in->flags & OPF_STORE) && outside) {
        static const uint32_t zeros[ROW];
        for (int k = 0; k < in->vwrite[0].count; k++)
            write_row(w, in->vwrite[0].reg + k, zeros, outside);
        set_undefined(w, &in->vwrite[0], outside, 0);
    }
    w->exec = exec;
    mask_to_row(w->exec, w->mask);
}

#define LOADS(name, acc, flag)                                                                     \
    {"buffer_load_" name, exec_buffer, NULL, "U:UUU", OPF_VMEM | (flag), acc},
#define STORES(name, acc, flag)                                                                    \
    {"buffer_store_" name, exec_buffer, NULL, ":UUUU", OPF_VMEM | OPF_STORE | (flag), acc},

static const struct op_row rows[] = {
#include "loads.def"
};

const struct op_table ops_buffer = {rows, sizeof rows / sizeof *rows};
