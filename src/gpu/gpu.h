/* gpu.h: the parts of the GPU backend among themselves: kernels of a device (kernels.c), attention
 * (forward.c), the pieces (ops.c). */
#ifndef RAPT_GPU_GPU_H
#define RAPT_GPU_GPU_H

#include "gpu/modules.h"

/* A backend's state in a context: one vendor. */
struct gpu {
    const struct driver *driver;
    void *api;
    struct overrides overrides;
};

/* The composed path: the pieces one after the other, scores in the workspace. */
enum { PIECE_QK, PIECE_MASK, PIECE_SOFTMAX, PIECE_PV, PIECE_COUNT };

/* One way to compute attention on a device. */
struct gpu_kernel {
    const struct row *row; /* composed: own */
    int composed;
    struct row own;                       /* composed: what the pieces can do together */
    const struct row *piece[PIECE_COUNT]; /* composed: NULL where the device has none */
};

/* kernels.c. Fills kernels and kernel_count, best first, composed last. NO_MEMORY with a sentence.
 */
rapt_status kernels_list(struct gpu_device *device);
/* The row of this name that suits the device best and has code; NULL: none. */
const struct row *kernels_row(const struct gpu_device *device, const char *name);
/* The row that serves rows of so many columns of a type in place of this one: softmax_long those
 * beyond the tile_kv of softmax, softmax_longer and softmax_longest those of more bytes than the
 * tile_kv of f32 of the one before. */
const struct row *kernels_for_rows(const struct gpu_device *device, const struct row *row,
                                   int64_t columns, int64_t dtype);
/* Whether the composed path has all its pieces. */
int kernels_composed(const struct gpu_device *device);
/* As backend.kernel_refuses. */
const char *kernels_refuse(const struct gpu_device *device, int kernel, const struct problem *p,
                           char reason[REASON_SIZE]);

/* forward.c: backend.plan, plan_free, execute. */
rapt_status gpu_plan(rapt_plan *plan);
void gpu_plan_free(rapt_plan *plan);
rapt_status gpu_execute(const rapt_plan *plan, const struct problem_data *data, void *workspace,
                        rapt_stream stream);

/* A tensor as kernels see it; log2 of a power of two, -1 for any other number; channels that share
 * a scale, 0 without scales. */
struct view view_of(const rapt_tensor *t);
int32_t shift_of(int64_t x);
int32_t block_of(const rapt_tensor *scale, int64_t channels);

/* ops.c: the pieces of struct backend. */
rapt_status gpu_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream);
rapt_status gpu_softmax(rapt_device *device, const rapt_softmax_args *args, rapt_stream stream);
rapt_status gpu_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream);
rapt_status gpu_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream);
rapt_status gpu_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                            rapt_stream stream);
rapt_status gpu_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                             rapt_stream stream);
rapt_status gpu_kv_append(rapt_device *device, const rapt_kv_append_args *args, rapt_stream stream);

#endif
