/* registry.h: the rows of kernels.def as C data. */
#ifndef RAPT_GPU_REGISTRY_H
#define RAPT_GPU_REGISTRY_H

#include "params.h"
#include "gpu/kernel_args.h"

enum vendor { VENDOR_cuda, VENDOR_hip };

enum op { OP_forward, OP_qk, OP_pv, OP_softmax, OP_causal_mask, OP_rope, OP_kv_replicate, OP_kv_append, OP_COUNT };

/* What the host prepares for a row besides its arguments. */
enum {
    NEED_MAPS = 1,      /* second parameter: struct tensor_maps */
    NEED_COUNTERS = 2,  /* attention_args.counters; the host zeroes them in stream order before every execute */
    NEED_PARTIALS = 4,  /* attention_args.partial_out, partial_lse for `splits` parts; grid split, or any kernel that uses splits */
    NEED_HALVES = 8,    /* attention_args.q_half ... (f32 as two f16) */
    NEED_PREPARE = 16,  /* entry point NAME_prepare, launched before with the same arguments, grid_rows blocks of `threads` */
    NEED_COMBINE = 32,  /* entry point NAME_combine, launched after, likewise */
};

enum feature_index {
#define FEATURE(name, test, words) FEATURE_##name,
#include "gpu/features.def"
#undef FEATURE
    FEATURE_COUNT
};

enum {
#define FEATURE(name, test, words) CAN_##name = 1 << FEATURE_##name,
#include "gpu/features.def"
#undef FEATURE
    CAN_ALL = (1 << FEATURE_COUNT) - 1
};

/* One launch's blocks. */
struct grid {
    uint32_t x, y, z;
};

struct row {
    enum vendor vendor;
    const char *arch, *source, *name;
    enum op     op;
    int64_t     dtype;          /* rapt_dtype, or 0: any of f32, f16, bf16 */
    int32_t     d, dv, tile_q, tile_kv, threads, shared;
    void      (*grid)(const struct attention_args *a, const struct row *row, struct grid *grid);
    uint32_t    can, needs;
    const unsigned char *begin, *end; /* the embedded code object; both NULL: not built into this library */
};

extern const struct row rows[];
extern const int        row_count;

/* Why the row cannot serve a forward problem, as "NAME: words (rule)" in reason, or NULL: it can. Pure: asks no device. */
const char *row_refuses(const struct row *row, const struct problem *p, char *reason, size_t size);

/* Whether the row's code runs on a device of this arch: "sm_90", "gfx942". CUDA: a cubin of the same major version and at most its
 * minor one; sm_NNa only exactly; PTX (compute_NN) on NN and newer. HIP: the same name. */
int row_runs_on(const struct row *row, const char *arch);

/* The row's launch shape; y and z cut to 65535. */
void row_grid(const struct row *row, const struct attention_args *a, struct grid *grid);
/* For NEED_PREPARE and NEED_COMBINE: the rows of q, k and v together, and of out, by `threads` elements of work. */

#endif
