/* kernels.c: which rows serve a device, best first, and why one refuses a problem. */
#include "base/alloc.h"
#include "base/dtype.h"
#include "base/error.h"
#include "gpu/gpu.h"

#include <stdio.h>
#include <string.h>

/* What the composed path can do only if both qk and pv can; all the rest is done by causal_mask and
 * softmax. */
enum { CAN_OF_PIECES = CAN_RAGGED_Q | CAN_RAGGED_KV | CAN_PAGED | CAN_I8 | CAN_MIXED };

static int has_code(const struct row *row)
{
    return row->end > row->begin;
}

/* A file from the environment runs on whatever device there is: the driver decides. */
const struct row *kernels_row(const struct gpu_device *device, const char *name)
{
    const struct row *best = NULL;
    int best_suits = 0, replaced = modules_replaced(device->modules, name);
    for (int i = 0; i < kernel_row_count; i++) {
        if (kernel_rows[i].vendor != device->driver->vendor || strcmp(kernel_rows[i].name, name))
            continue;
        int suits = row_suits(&kernel_rows[i], device->arch);
        if (replaced) suits++;
        if (suits > best_suits && (replaced || has_code(&kernel_rows[i])))
            best = &kernel_rows[i], best_suits = suits;
    }
    return best;
}

const struct row *kernels_for_rows(const struct gpu_device *device, const struct row *row,
                                   int64_t columns, int64_t dtype)
{
    const struct row *first = row;
    if (!row || row->op != OP_softmax) return row;
    int64_t bytes = columns * (int64_t)dtype_size(dtype);
    for (int i = 0; i < LONGER; i++) {
        int64_t most = row->tile_kv * (int64_t)sizeof(float);
        if (device->longer[i] && (row == first ? columns > row->tile_kv : bytes > most))
            row = device->longer[i];
    }
    return row;
}

/* A file that replaces softmax serves every length. */
static void list_longer(struct gpu_device *device)
{
    static const char *const names[LONGER] = {"softmax_long", "softmax_longer", "softmax_longest"};
    if (modules_replaced(device->modules, op_name[OP_softmax])) return;
    for (int i = 0; i < LONGER; i++) {
        const struct row *row = kernels_row(device, names[i]);
        if (row && row->shared <= device->max_shared) device->longer[i] = row;
    }
}

static int listed(const struct gpu_device *device, const char *name)
{
    for (int i = 0; i < device->kernel_count; i++)
        if (!strcmp(device->kernels[i].row->name, name)) return 1;
    return 0;
}

static void add_composed(struct gpu_device *device)
{
    static const enum op ops[PIECE_COUNT] = {OP_qk, OP_causal_mask, OP_softmax, OP_pv};
    struct gpu_kernel *k = &device->kernels[device->kernel_count++];
    k->composed = 1;
    for (int i = 0; i < PIECE_COUNT; i++) k->piece[i] = device->op_row[ops[i]];
    const struct row *qk = k->piece[PIECE_QK], *pv = k->piece[PIECE_PV];
    uint32_t shared = qk && pv ? qk->can & pv->can & CAN_OF_PIECES : 0;
    k->own = (struct row){.vendor = device->driver->vendor,
                          .arch = device->arch,
                          .name = "composed",
                          .op = OP_forward,
                          .can = (CAN_ALL & ~(uint32_t)CAN_OF_PIECES) | shared};
    k->row = &k->own;
}

/* Adds each forward row once, in the table's order: those that a file replaces (replaced 1), or the
 * others. A row that this library was built without stays in the list when its arch fits, so that
 * it can say so. */
static void add_rows(struct gpu_device *device, int replaced)
{
    for (int i = 0; i < kernel_row_count; i++) {
        const struct row *row = &kernel_rows[i];
        if (row->vendor != device->driver->vendor || row->op != OP_forward ||
            listed(device, row->name))
            continue;
        if (modules_replaced(device->modules, row->name) != replaced) continue;
        const struct row *best = kernels_row(device, row->name);
        if (!best && row_suits(row, device->arch)) best = row;
        if (best) device->kernels[device->kernel_count++].row = best;
    }
}

/* Whoever sets a variable wants that file to run, so replaced rows come first. */
rapt_status kernels_list(struct gpu_device *device)
{
    device->kernels = alloc_zeroed((size_t)kernel_row_count + 1, sizeof *device->kernels);
    if (!device->kernels)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for the kernels of %s", device->label);
    add_rows(device, 1);
    add_rows(device, 0);
    for (int op = 0; op < OP_COUNT; op++)
        if (op != OP_forward) device->op_row[op] = kernels_row(device, op_name[op]);
    list_longer(device);
    add_composed(device);
    return RAPT_OK;
}

int kernels_composed(const struct gpu_device *device)
{
    const struct gpu_kernel *k = &device->kernels[device->kernel_count - 1];
    for (int i = 0; i < PIECE_COUNT; i++)
        if (!k->piece[i]) return 0;
    return 1;
}

const char *kernels_refuse(const struct gpu_device *device, int kernel, const struct problem *p,
                           char reason[REASON_SIZE])
{
    const struct gpu_kernel *k = &device->kernels[kernel];
    if (p->a.kv_layout != RAPT_KV_STRIDED) {
        snprintf(reason, REASON_SIZE, "reads k and v by their strides (kv_layout is blocked)");
        return reason;
    }
    if (k->composed) {
        if (kernels_composed(device)) return row_refuses(&k->own, p, reason, REASON_SIZE);
        snprintf(reason, REASON_SIZE,
                 "has no code object of its pieces for %s (this library was built without)",
                 device->arch);
        return reason;
    }
    if (!has_code(k->row) && !modules_replaced(device->modules, k->row->name)) {
        snprintf(reason, REASON_SIZE,
                 "is not in this library for %s (it was built without that compiler)",
                 k->row->arch);
        return reason;
    }
    int shared = row_shared(k->row, p->a.mask.dtype != 0, (int)dtype_size(p->a.bias.dtype));
    if (shared > device->max_shared) {
        snprintf(reason, REASON_SIZE, "needs %d bytes of shared memory (%s has %d)", shared,
                 device->label, device->max_shared);
        return reason;
    }
    return row_refuses(k->row, p, reason, REASON_SIZE);
}
