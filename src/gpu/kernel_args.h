/* kernel_args.h: what the host passes to a kernel, by value; compiled by the host's C compiler and
 * by both device compilers.
 *
 * Every entry point is `extern "C" __global__ void NAME(const struct OP_args a)`, NAME being the
 * row's name in kernels.def; rows with tensor maps have a second parameter, `const struct
 * tensor_maps maps` (CUDA: both `__grid_constant__`). forward, qk, pv, softmax and causal_mask
 * share attention_args. All structs stay under 4 KB, the least that a driver accepts.
 *
 * Axes are [batch, head, token, channel], strides are in elements, may be negative, and 0 repeats.
 */
#ifndef RAPT_GPU_KERNEL_ARGS_H
#define RAPT_GPU_KERNEL_ARGS_H

#include <stdint.h>

/* rapt_dtype's values, as macros so that #if can test -DDTYPE=DTYPE_bf16, which the build passes
 * from the row. */
#define DTYPE_any  0
#define DTYPE_f32  1
#define DTYPE_f16  2
#define DTYPE_bf16 3
#define DTYPE_i8   4
#define DTYPE_u8   5
#define DTYPE_i32  6
#define DTYPE_i64  7

/* data NULL: the tensor is absent. */
struct view {
    void *data;
    int64_t stride[4];
    int64_t dtype; /* DTYPE_... */
};

/* Tokens and channels are below 2^29 and the window limits at most 2^30, so that sums of two of
 * them fit 32 bits. Products (offsets) need 64. */
enum { WINDOW_LIMIT = 1 << 30 };

enum { GRID_LIMIT = 65535 }; /* blocks on the y and z axes of a grid */

/* 16-bit parts that an f32 is split into (NEED_HALVES). */
enum { HALVES = 3 };
/* With rows that take packed keys, each sequence's parts of K and V begin with a block of so many
 * keys: those of sequence b, which begins at token x, at row (x / PART_KEYS + b) * PART_KEYS. */
enum { PART_KEYS = 128 };
/* NEED_NUMBERS: words beside a block of keys: of each key so many scales as it has, one of its value, and
 * four more, in an order that nvidia/sm90_scale.h has. */
#define SCALE_WORDS(scales, keys) (((scales) + 1) * (keys) + 4)

/* How the composed path uses it, after a launch of qk (scores), causal_mask (softcap, bias, ALiBi,
 * then -inf where mask, window or length hide), softmax (sink; writes weights, which may be the
 * same memory as scores, and lse) and pv (weights): one struct, all fields filled as for forward.
 * qk touches no key past its sequence's length and writes 0 there; pv touches no value whose weight
 * is 0; softmax writes 0 in hidden columns. On their own, qk and pv see neither lengths nor
 * windows.
 *
 * Workspace pointers are 64-byte aligned and NULL unless the row's NEED_ bits (registry.h) ask for
 * them. */
struct attention_args {
    /* ragged q: [1, Hq, total, .]; ragged k, v: [1, Hkv, total, .]; paged: [page, Hkv, row, .] */
    struct view q, k, v, out;
    struct view lse; /* f32, natural logarithm */
    /* [batch, q head, query, key]; bias f32 or q's dtype; mask u8, 0 hides. Ragged q: as q */
    struct view bias, mask;
    struct view alibi, sink; /* f32, [batch, q head]: stride[0], stride[1] */
    /* forward: absent; softmax: the output; pv: the input. f32, f16, bf16 */
    struct view weights;
    /* qk: the output; causal_mask: changed in place; softmax: the input. f32, f16, bf16 */
    struct view scores;
    /* f32, of i8 data: one per q_block, k_block, v_block channels */
    struct view q_scale, k_scale, v_scale;
    struct view q_start, kv_start; /* i32 or i64 [batch + 1], stride[0] */
    /* i32 or i64 [batch], stride[0]; absent: kv_tokens, or what kv_start says */
    struct view kv_length;
    /* i32 or i64 [batch, -, page]: stride[0], stride[2] */
    struct view page_table;
    /* NEED_HALVES: dense bf16 [HALVES * batch, head, token, channel] in the workspace, part i of
     * sequence b at batch i * batch + b; the parts of an element, largest first, sum up to it.
     * Channels are those of the row's tile. Rows that take packed keys: tokens of K and V a multiple
     * of PART_KEYS; ragged: batch 1. NEED_NUMBERS: k_half and v_half alone, dense [batch, kv head,
     * token, channel] of q's type: the integers of K and V, pages resolved, tokens a multiple of
     * tile_kv, which stands for PART_KEYS there; with NEED_BLOCK_SCALES v_half is bf16 and has twice
     * the channels, values and then what these leave */
    struct view q_half, k_half, v_half;
    /* NEED_STRICT, powers of two: [batch][kv head][pair of keys, wide_keys blocks of them][8], see
     * nvidia/sm90_scaled.h; ragged: batch 1. NEED_NUMBERS: scales, [batch][kv head][wide_keys
     * blocks of tile_kv tokens of k_half][SCALE_WORDS()] */
    float *key_factors;
    /* NEED_STRICT: bits 0 and 1 not 0 for blocks with rows that two f16 parts cannot hold, of 16
     * queries, [batch][q head][wide_queries], then of tile_kv keys, [batch][k heads, v heads]
     * [wide_keys]; above, how much of the keys is split. Ragged: batch 1, sequence b from block
     * q_start / 16 + b, kv_start / PART_KEYS + b on */
    int32_t *wide_blocks;
    /* NEED_STRICT, [batch][kv head]: 1 where a KV head and its query heads are done again, else 0;
     * then how much of all keys is split; NULL for a strict row that works alone */
    int32_t *wide;
    int32_t wide_queries, wide_keys;
    /* NEED_CLAIMED: one; with NEED_STRICT an int32_t behind it counts the blocks of keys that are
     * being split; then from 16 bytes on one 16-byte note per (batch, q head, tile of q_tokens,
     * 64 rows); ragged q: per (q head, tile, 64 rows) with q_tokens / tile_q + batch + 1 tiles */
    uint64_t *counters;
    /* NEED_PARTIALS with more than one split: [split][batch][q head][q token][v channel], channels
     * rounded up to a multiple of 4; ragged q: batch 1, q token of the total */
    float *partial_out;
    /* likewise [split][batch][q head][q token][2]: maximum (of scores * log2 e) and sum, see
     * kernels/combine.h */
    float *partial_lse;
    /* pseudo-random, another one for every execute, its low half never 0; a replayed graph repeats
     * its own */
    uint64_t ticket;
    int32_t batch;                    /* sequences */
    int32_t q_heads, kv_heads, group; /* group = q_heads / kv_heads */
    int32_t q_tokens;                 /* of a sequence; ragged: of all */
    int32_t kv_tokens;                /* capacity of a sequence; ragged: of all */
    /* of scores and weights: kv_tokens, but for ragged keys what the caller's weights have */
    int32_t columns;
    int32_t channels; /* of q and k */
    int32_t v_channels;
    int32_t page_tokens;               /* 0: not paged */
    int32_t page_shift;                /* log2(page_tokens), or -1: no power of two */
    int32_t q_block, k_block, v_block; /* channels per scale */
    /* keys pos - left ... pos + right are visible, pos = query + offset; causal: right = 0;
     * WINDOW_LIMIT: open. Never negative */
    int32_t window_left, window_right;
    /* 0: offset = kv_length - q_length of the sequence; 1: offset = 0 */
    int32_t top_left;
    /* grid rules split...: parts that the keys of a sequence are cut into; 1: the kernel writes out
     * and lse itself. NEED_TILE_TOKENS: parts of what a tile sees, several */
    int32_t splits;
    /* keys per part, a multiple of tile_kv, for kv_tokens; a kernel cuts what is visible of a
     * sequence finer, but not with batch_invariant (keys_of_part of kernels/combine.h) */
    int32_t split_keys;
    /* 1: nothing may depend on neighbours; the host has chosen split_keys accordingly */
    int32_t batch_invariant;
    float scale;      /* on q k^T */
    float scale_log2; /* scale * log2(e) */
    float softcap;    /* 0: none */
    int32_t units;    /* multiprocessors or compute units of the device */
    /* NEED_TILE_TOKENS: queries of a tile, a power of two from 16 to tile_q; its rows are
     * those of tile_q / tile_tokens heads of a group */
    int32_t tile_tokens;
};

/* NEED_SHARED_KV: query heads of whose rows a block of NAME_combine makes results: several where parts are few. */
#define COMBINED_HEADS(a) ((a)->splits <= 8 && !(a)->batch_invariant ? 3 : 1)

/* NEED_PAIRS: whether the map of K or V has pairs of heads in place of heads: two heads of an odd number
 * of 16 bytes, of a token, are whole sectors of 32, and columns of the tile are left for 8 channels
 * before a head. */
#define PAIRED(stride, heads, channels, columns)                                                   \
    ((channels) % 16 == 8 && (channels) + 8 <= (columns) && (heads) % 2 == 0 &&                    \
     (stride)[1] % 16 == 8 && (stride)[1] > 0 && (stride)[1] < 1 << 16 && (stride)[2] % 16 == 0 && \
     (stride)[0] % 16 == 0)

/* An opaque CUtensorMap. */
struct tensor_map {
    uint64_t word[16];
} __attribute__((aligned(64)));

/* Of elements of 2 bytes, but for cells and, with NEED_WHOLE_KEYS, K and V of f32, of which 32 stand for 64 below.
 * With NEED_PANELS see registry.h; else D is a multiple of 64 and they are 5-D
 * views (64, tokens, D / 64, heads, batch) with 128-byte swizzle, elements past the end read as
 * zero, so that one box of (64, rows, D / 64, 1, 1) lands as D / 64 panels of rows x 128 bytes.
 * rows is q: min(tile_q, 64), with NEED_PARTIALS 16, k and v: tile_kv. Ragged: batch 1. Paged:
 * batch is the page, and boxes of k and v have one panel and as many rows as the largest power of
 * two that divides both tile_kv and page_tokens. With NEED_HALVES the maps are of q_half, k_half
 * and v_half (HALVES * batch). out: with NEED_OUT_MAP, rows is OUT_MAP_ROWS; elements past the end
 * are not written. cells: with NEED_CELL_MAP, of the bias or the mask tensor, 4-D (keys, queries,
 * heads, batch), an axis that repeats being 1 long, in boxes of (128 bytes, tile_q, 1, 1). */
struct tensor_maps {
    struct tensor_map q, k, v;
    union {
        struct tensor_map out, cells;
    };
};

enum { OUT_MAP_ROWS = 16 };

enum { ROPE_ARGS_PAIRS = 288 }; /* what kernel arguments have room for */

/* Pair c of the token at position t turns by t * inverse[c] radians (reduced in f64); cos and sin
 * are multiplied by magnitude. */
struct rope_args {
    struct view x, out; /* f32, f16, bf16; out may be x */
    /* i32 or i64 [batch, -, token]: stride[0], stride[2]; absent: 0, 1, 2, ... */
    struct view position;
    /* f32 [-, -, position, pair]: used in place of inverse and magnitude */
    struct view cos, sin;
    int32_t batch, heads, tokens, channels;
    int32_t rotary;      /* channels that turn, even; the rest is copied */
    int32_t interleaved; /* 0: pairs (c, c + rotary/2); 1: (2c, 2c + 1) */
    double magnitude;
    double inverse[ROPE_ARGS_PAIRS];
};

/* KV head g becomes heads g * group ... g * group + group - 1. Both tensors in one launch:
 * blockIdx.z 0 is k, 1 is v; a dtype's bits are copied. */
struct kv_replicate_args {
    struct view k, v, k_out, v_out;
    int32_t batch, kv_heads, group, tokens, channels, v_channels;
};

/* Token i of sequence b goes to row kv_length[b] + i of its cache; k turns first when rope.rotary >
 * 0 (x, out, batch, heads and tokens of rope are not used; position absent: the row). */
struct kv_append_args {
    struct view k_new, v_new; /* ragged: [1, Hkv, total, .] with q_start */
    struct view k, v;         /* the cache; paged: [page, Hkv, row, .] */
    /* f32, written when the cache is i8: largest magnitude of a block / 127, at least 2^-126 */
    struct view k_scale, v_scale;
    struct view kv_length, q_start, page_table;
    int32_t batch, kv_heads, tokens, channels, v_channels;
    int32_t page_tokens, page_shift;
    int32_t k_block, v_block;
    struct rope_args rope;
};

#endif
