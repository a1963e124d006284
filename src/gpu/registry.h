/* registry.h: the rows of kernels.def as C data. */
#ifndef RAPT_GPU_REGISTRY_H
#define RAPT_GPU_REGISTRY_H

#include "params.h"
#include "gpu/kernel_args.h"

enum vendor { VENDOR_cuda, VENDOR_hip };

enum op {
    OP_forward,
    OP_qk,
    OP_pv,
    OP_softmax,
    OP_causal_mask,
    OP_rope,
    OP_kv_replicate,
    OP_kv_append,
    OP_COUNT
};

/* What the host prepares for a row besides its arguments. */
enum {
    /* second parameter: struct tensor_maps */
    NEED_MAPS = 1,
    /* with NEED_MAPS: 4-D maps (channels, tokens, heads, batch), one box of 64 channels per panel,
     * for head sizes that are no multiple of 64 or vary (CAN_NARROW) */
    NEED_PANELS = 2,
    /* attention_args.counters, one word and notes, which may hold anything: the kernel claims the
     * word by attention_args.ticket */
    NEED_CLAIMED = 4,
    /* attention_args.partial_out, partial_lse for `splits` parts, if these are several */
    NEED_PARTIALS = 8,
    /* attention_args.q_half ... (f32 in parts of 16 bits) */
    NEED_HALVES = 16,
    /* entry point NAME_prepare, launched before with the same arguments and block and no dynamic
     * shared memory: x = ceil(max(q_tokens, kv_tokens) / tile_kv), y = q_heads + 2 * kv_heads,
     * z = batch; a strict row with 2048 for tile_kv; with NEED_NUMBERS x = ceil(kv_tokens / tile_kv) or 1,
     * y = 2 * kv_heads */
    NEED_PREPARE = 32,
    /* entry point NAME_combine, launched after if there are several splits, with the same arguments and block,
     * splits_combine_grid() and splits_combine_shared() */
    NEED_COMBINE = 64,
    /* may be launched before earlier work of the stream has ended, since the kernel itself waits
     * for that (griddepcontrol, which sm_90 and newer have) before it touches memory */
    NEED_EARLY = 128,
    /* attention_args.key_factors, wide_blocks and wide; NAME_prepare has halves_split_blocks() blocks; and
     * the row NAME_strict, whose prepare and main launches follow and do the heads again that are
     * wide */
    NEED_STRICT = 256,
    /* with NEED_MAPS: tensor_maps.out */
    NEED_OUT_MAP = 512,
    /* behind the row's shared memory a tile of the mask tensor and one of the bias, in their dtypes,
     * where the problem has them: row_shared() */
    NEED_CELLS = 1024,
    /* with NEED_MAPS: tensor_maps.cells, of the bias if the row does biases, else of the mask; it
     * serves no problem without that tensor */
    NEED_CELL_MAP = 2048,
    /* with NEED_CELL_MAP: of a bias of f32, not of q's type */
    NEED_F32_CELLS = 4096,
    /* with NEED_PARTIALS: attention_args.tile_tokens, and several splits; tiles of many query rows
     * share the keys that these see (grids shared_keys, key_parts). NAME_combine makes a row with
     * each of its waves */
    NEED_TILE_TOKENS = 8192,
    /* serves no problem but those with a bias or a mask tensor, of one row for all queries each */
    NEED_KEY_CELLS = 16384,
    /* as NEED_CELL_MAP says, but no tensor map: rows of the bias or mask may begin anywhere */
    NEED_LOOSE_CELLS = 32768,
    /* with NEED_PANELS: where PAIRED of kernel_args.h says so, the heads of the maps of K and V are
     * pairs of heads, and their channels all from the first head's first to the second one's last */
    NEED_PAIRS = 65536,
    /* serves no problem but those of i8 keys and values with a scale for each 32 channels, read 16
     * bytes at a time */
    NEED_BLOCK_SCALES = 131072,
    /* with NEED_PREPARE: attention_args.k_half, v_half and key_factors, which NAME_prepare makes of i8
     * keys and values and their scales; maps of K and V are of these */
    NEED_NUMBERS = 262144,
    /* serves no problem but those whose values are the first channels of the keys, in the same memory */
    NEED_SHARED_KV = 524288,
    /* with NEED_STRICT: maps of K and V are of these themselves, in boxes of all a row's channels; the
     * strict row's name is NAME without its last word, _strict behind it */
    NEED_WHOLE_KEYS = 1048576,
};

enum feature_index {
#define FEATURE(name, test, words) FEATURE_##name,
#define LIMIT(test, words)
#include "gpu/features.def"
#undef FEATURE
    FEATURE_COUNT
};

enum {
#define FEATURE(name, test, words) CAN_##name = (int)(1u << FEATURE_##name),
#include "gpu/features.def"
#undef FEATURE
#undef LIMIT
    CAN_ALL = (int)(~0u >> (32 - FEATURE_COUNT))
};

/* What grids.def counts. */
struct extent {
    int64_t batch, q_heads, kv_heads, group, q_tokens, kv_tokens, columns, rows, splits, units,
        tile_tokens, ragged, score_bytes;
};

/* Of a launch on so many query rows. */
struct extent extent_of(const struct attention_args *a, int64_t rows);

/* One launch's blocks. */
struct grid {
    uint32_t x, y, z;
};

struct row {
    enum vendor vendor;
    const char *arch, *source, *name;
    enum op op;
    int64_t dtype; /* rapt_dtype, or 0: any of f32, f16, bf16 */
    int32_t d, dv, tile_q, tile_kv, threads, shared;
    void (*grid)(const struct extent *e, const struct row *row, int64_t blocks[3]);
    uint32_t can, needs;
    /* the embedded code object; the same: not built into this library */
    const unsigned char *begin, *end;
};

/* "forward", "qk", ... */
extern const char *const op_name[OP_COUNT];

extern const struct row kernel_rows[];
extern const int kernel_row_count;

/* The tensor of NEED_CELL_MAP. */
const rapt_tensor *row_cells(const struct row *row, const struct problem *p);

/* Why the row cannot serve a forward problem ("does not do softcap"; perhaps written to reason), or
 * NULL: it can. Pure: asks no device. */
const char *row_refuses(const struct row *row, const struct problem *p, char *reason, size_t size);

/* How well the row's code suits a device of this arch ("sm_90", "gfx942"); 0: it does not run.
 * CUDA: sm_NNa needs exactly NN; a cubin of the same major and at most the device's minor version
 * runs, the nearest best; PTX (compute_NN) runs on NN and newer, less good than any cubin. HIP: the
 * same name. */
int row_suits(const struct row *row, const char *arch);

/* Dynamic shared memory of a launch for a problem with a mask tensor (or not) and a bias of elements of
 * so many bytes (0: none). */
int row_shared(const struct row *row, int mask, int bias_bytes);

/* Lanes of a wave. */
int row_wave(const struct row *row);

/* The row's launch shape; y and z cut to GRID_LIMIT. 0: no block at all. -1: x exceeds 2^31 - 1 blocks,
 * or on HIP 2^32 - 1 threads. */
int row_grid(const struct row *row, const struct extent *e, struct grid *grid);

#endif
