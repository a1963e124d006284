/* block_loops.h: the slots of struct cpu_block_kernels in f32 arithmetic over a vector vocabulary; included once per
 * instruction set after vec_*.h, by blocks_*.c. The including file defines
 *
 *   COLUMN_TILE  of an enum: that of the level
 *   BLOCK_ROWS   most rows of a tile of decode: 4 or 8
 *   BLOCKS_NAME  the table, a column of levels.def
 *
 * A block of K is [channel][32 keys], so q k^T multiplies a broadcast q by vectors of keys, without
 * a sum over lanes; a block of V is [channel / 32][key][32 channels]. In bf16 two neighbours of the
 * summed axis share 32 bits: one shift, or one mask, makes each of them a float. */
#include "base/dtype.h"
#include "cpu/blocks.h"
#include "cpu/dtype_cases.h"

#include <string.h>

enum { GROUP_LANES = 2 * LANES, DEPTH = 4 }; /* keys of a tile; channels of a step */
typedef uint32_t lane_bits __attribute__((vector_size(LANES * 4)));

/* Lanes of bf16 pairs: the first and the second of each. */
VEC vec pair_first(const char *p)
{
    lane_bits x;
    memcpy(&x, p, sizeof x);
    return (vec)(x << 16);
}

VEC vec pair_second(const char *p)
{
    lane_bits x;
    memcpy(&x, p, sizeof x);
    return (vec)(x & 0xffff0000u);
}

/* Keys t ... t + LANES - 1 of a block of K, channel c. */
VEC vec load_keys(const char *block, int dtype, int64_t c, int64_t t)
{
    if (dtype == RAPT_F32) return v_load(block + (c * RAPT_KV_BLOCK + t) * 4, dtype);
    if (dtype == RAPT_F16) return v_load(block + (c * RAPT_KV_BLOCK + t) * 2, dtype);
    const char *p = block + (c / 2 * RAPT_KV_BLOCK + t) * 4;
    return c % 2 ? pair_second(p) : pair_first(p);
}

/* Channels c ... c + LANES - 1 of key t of a block of V; they lie within one panel. */
VEC vec load_values(const char *block, int dtype, int64_t t, int64_t c)
{
    int64_t panel = c / RAPT_KV_BLOCK * BLOCK_PANEL, column = c % RAPT_KV_BLOCK;
    if (dtype == RAPT_F32) return v_load(block + (panel + t * RAPT_KV_BLOCK + column) * 4, dtype);
    if (dtype == RAPT_F16) return v_load(block + (panel + t * RAPT_KV_BLOCK + column) * 2, dtype);
    const char *p = block + (panel + t / 2 * 2 * RAPT_KV_BLOCK + column * 2) * 2;
    return t % 2 ? pair_second(p) : pair_first(p);
}

/* ---- Panels ---- */

/* Keys j0 ... j0 + COLUMN_TILE - 1 as they stand in their block, hidden ones too. */
VEC void pack_k_panel(float *to, const char *block, int64_t t, int64_t channels,
                      const struct blocks_ahead *ahead, int dtype)
{
    const int64_t row = RAPT_KV_BLOCK * (dtype == RAPT_F32 ? 4 : 2);
    for (int64_t c = 0; c < channels; c += 2, to += 2 * COLUMN_TILE) {
        if (!t) ask_ahead(ahead, c * row, 2 * row);
        for (int64_t i = 0; i < COLUMN_TILE; i += LANES) {
            v_store(to + i, RAPT_F32, load_keys(block, dtype, c, t + i));
            v_store(to + COLUMN_TILE + i, RAPT_F32, load_keys(block, dtype, c + 1, t + i));
        }
    }
}

static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    for (int64_t j = first; j < last; j += COLUMN_TILE) {
        const char *block = block_of(k, j, min64(j + COLUMN_TILE, last));
        float *to = (float *)panels + j * channels;
        if (!block) continue;
        struct blocks_ahead ahead = blocks_after(k, j, last);
#define CALL(dtype) pack_k_panel(to, block, j % RAPT_KV_BLOCK, channels, &ahead, dtype)
        FLOAT_CASES(k->dtype, CALL)
#undef CALL
    }
}

/* x * 0 is NaN for NaN and infinity alone, and the sum keeps it. */
VEC int pack_v_as(float *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys, int dtype)
{
    const int64_t size = dtype == RAPT_F32 ? 4 : 2;
    vec probe = v_zero();
    for (int64_t j0 = first; j0 < last; j0 += RAPT_KV_BLOCK - j0 % RAPT_KV_BLOCK) {
        int64_t end = min64(j0 + RAPT_KV_BLOCK - j0 % RAPT_KV_BLOCK, last);
        const char *block = block_of(v, j0, end);
        struct blocks_ahead ahead = blocks_after(v, j0, last);
        for (int64_t c = 0; c < channels; c += COLUMN_TILE)
            for (int64_t j = j0; j < end; j++) {
                if (c % RAPT_KV_BLOCK == 0)
                    ask_ahead(&ahead,
                              (c * RAPT_KV_BLOCK + j % RAPT_KV_BLOCK * RAPT_KV_BLOCK) * size,
                              RAPT_KV_BLOCK * size);
                float *to = panels + c * panel_keys + j * COLUMN_TILE;
                for (int64_t i = 0; i < COLUMN_TILE; i += LANES) {
                    vec x =
                        v->row[j] ? load_values(block, dtype, j % RAPT_KV_BLOCK, c + i) : v_zero();
                    probe = v_fma(x, v_zero(), probe);
                    v_store(to + i, RAPT_F32, x);
                }
            }
    }
    return v_any_nan(probe);
}

static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    int unusual = 0;
#define CALL(dtype) unusual = pack_v_as(panels, v, first, last, channels, panel_keys, dtype)
    FLOAT_CASES(v->dtype, CALL)
#undef CALL
    return unusual;
}

/* ---- Decode: scores ---- */

struct score_call {
    const float *q;
    int64_t q_stride, channels;
    struct prefetch fetch;
};

/* GROUP_LANES keys from token t of a block against rows of q, into s[row][GROUP_LANES]. Few rows
 * have several sums each, or an FMA would wait for the one before it. */
VEC void score_tile(struct score_call *call, float *s, int64_t s_stride, const char *block,
                    int64_t t, int rows, int dtype)
{
    const int sums = rows == 1 ? 4 : rows == 2 ? 2 : 1;
    vec sum[8][4][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < sums; n++) sum[r][n][0] = sum[r][n][1] = v_zero();
    struct prefetch fetch = call->fetch; /* in registers */
    for (int64_t c = 0; c < call->channels; c += DEPTH) {
        prefetch_step(&fetch, 0, DEPTH * GROUP_LANES * (dtype == RAPT_F32 ? 4 : 2));
#pragma GCC unroll 4
        for (int i = 0; i < DEPTH; i++) {
            vec low = load_keys(block, dtype, c + i, t),
                high = load_keys(block, dtype, c + i, t + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                vec x = v_set(call->q[r * call->q_stride + c + i]);
                sum[r][i % sums][0] = v_fma(low, x, sum[r][i % sums][0]);
                sum[r][i % sums][1] = v_fma(high, x, sum[r][i % sums][1]);
            }
        }
    }
    call->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int w = 0; w < 2; w++) {
            vec all = sum[r][0][w];
#pragma GCC unroll 4
            for (int n = 1; n < sums; n++) all = v_add(all, sum[r][n][w]);
            v_store(s + r * s_stride + w * LANES, RAPT_F32, all);
        }
}

#define SCORE_CASE(count)                                                                          \
    case count:                                                                                    \
        score_tile(call, s, s_stride, block, t, count, dtype);                                     \
        break;

VEC void score_rows(struct score_call *call, float *s, int64_t s_stride, const char *block,
                    int64_t t, int64_t rows, int dtype)
{
    switch (rows) {
        SCORE_CASE(1)
        SCORE_CASE(2)
        SCORE_CASE(3)
        SCORE_CASE(4)
#if BLOCK_ROWS > 4
        SCORE_CASE(5)
        SCORE_CASE(6)
        SCORE_CASE(7)
        SCORE_CASE(8)
#endif
    default:
        break;
    }
}

/* Columns [first, last) of a group of keys that begins at column start. */
static void score_group(struct score_call *call, float *s, int64_t s_stride, const char *block,
                        int64_t start, int64_t first, int64_t last, int64_t rows, int64_t dtype)
{
    int whole = first == start && last == start + GROUP_LANES;
    _Alignas(64) float part[BLOCK_ROWS * GROUP_LANES];
    float *to = whole ? s + start : part;
    int64_t stride = whole ? s_stride : GROUP_LANES, t = start % RAPT_KV_BLOCK;
#define CALL(type) score_rows(call, to, stride, block, t, rows, type)
    FLOAT_CASES(dtype, CALL)
#undef CALL
    for (int64_t r = 0; r < rows && !whole; r++)
        memcpy(s + r * s_stride + first, part + r * GROUP_LANES + first - start,
               (size_t)(last - first) * sizeof(float));
}

static void decode_qk(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                      const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead)
{
    struct prefetch none = {0};
    struct score_call call = {
        .q_stride = q_stride, .channels = channels, .fetch = prefetch_of(ahead)};
    for (int64_t j = first / GROUP_LANES * GROUP_LANES; j < last; j += GROUP_LANES) {
        int64_t low = max64(j, first), high = min64(j + GROUP_LANES, last);
        const char *block = block_of(k, low, high);
        for (int64_t r = 0; r < rows; r += BLOCK_ROWS) {
            call.q = (const float *)q + r * q_stride;
            struct prefetch fetch = call.fetch;
            if (r) call.fetch = none;
            score_group(&call, s + r * s_stride, s_stride, block, j, low, high,
                        min64(rows - r, BLOCK_ROWS), k->dtype);
            if (r) call.fetch = fetch;
        }
    }
    prefetch_rest(&call.fetch);
}

/* ---- Decode: weighted values ---- */

struct value_call {
    float *o;
    const float *p; /* of the block's first token */
    int64_t o_stride, p_stride;
    const void *const *row; /* of the block's first token */
    const char *block;
    int64_t first, last; /* tokens of the block */
    struct prefetch fetch;
};

/* o of rows x vectors * LANES channels from c on, over the tokens of one block. */
VEC void value_tile(struct value_call *call, int64_t c, int rows, int vectors, int dtype)
{
    vec sum[8][4];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            sum[r][i] = v_load(call->o + r * call->o_stride + c + i * LANES, RAPT_F32);
    struct prefetch fetch = call->fetch;
    for (int64_t t = call->first; t < call->last; t++) {
        vec x[4];
        prefetch_step(&fetch, t, vectors * LANES * (dtype == RAPT_F32 ? 4 : 2));
        if (!call->row[t]) continue;
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) x[i] = load_values(call->block, dtype, t, c + i * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vec p = v_set(call->p[r * call->p_stride + t]);
#pragma GCC unroll 4
            for (int i = 0; i < vectors; i++) sum[r][i] = v_fma(p, x[i], sum[r][i]);
        }
    }
    call->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++)
            v_store(call->o + r * call->o_stride + c + i * LANES, RAPT_F32, sum[r][i]);
}

/* Vectors of a tile of so many rows: sums and values fit in the registers. */
#define VALUE_VECTORS(rows) ((rows)*4 <= ACCUMULATORS ? 4 : 2)

#define VALUE_CASE(count)                                                                          \
    case count:                                                                                    \
        for (int64_t c = 0; c < channels; c += VALUE_VECTORS(count) * LANES)                       \
            if (channels - c >= VALUE_VECTORS(count) * LANES)                                      \
                value_tile(call, c, count, VALUE_VECTORS(count), dtype);                           \
            else value_tile(call, c, count, 2, dtype);                                             \
        break;

VEC void value_rows(struct value_call *call, int64_t rows, int64_t channels, int dtype)
{
    switch (rows) {
        VALUE_CASE(1)
        VALUE_CASE(2)
        VALUE_CASE(3)
        VALUE_CASE(4)
#if BLOCK_ROWS > 4
        VALUE_CASE(5)
        VALUE_CASE(6)
        VALUE_CASE(7)
        VALUE_CASE(8)
#endif
    default:
        break;
    }
}

static void decode_pv(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead)
{
    struct value_call call = {
        .o_stride = o_stride, .p_stride = p_stride, .fetch = prefetch_of(ahead)};
    for (int64_t j = first, end; j < last; j = end) {
        int64_t start = j / RAPT_KV_BLOCK * RAPT_KV_BLOCK;
        end = min64(start + RAPT_KV_BLOCK, last);
        call.block = block_of(v, j, end);
        call.first = j - start;
        call.last = end - start;
        call.row = v->row + start;
        for (int64_t r = 0; r < rows && call.block; r += BLOCK_ROWS) {
            call.o = o + r * o_stride;
            call.p = p + r * p_stride + start;
#define CALL(dtype) value_rows(&call, min64(rows - r, BLOCK_ROWS), channels, dtype)
            FLOAT_CASES(v->dtype, CALL)
#undef CALL
        }
    }
    prefetch_rest(&call.fetch);
}

const struct cpu_block_kernels BLOCKS_NAME = {
    .pack_k = pack_k, .pack_v = pack_v, .decode_qk = decode_qk, .decode_pv = decode_pv};
