/* mma_change.h: what changes the scores of the sm_80 forward beyond their scale: softcap, bias,
 * ALiBi and the mask tensor (FEATURES).
 *
 * Bias and mask of a tile lie in shared memory, behind what the row always has (NEED_CELLS): first
 * the mask, if there is one, a byte for each score, then the bias in its own dtype. They are copied
 * with the tile of K that they belong to, 16 bytes at a time where the tensor's rows allow that,
 * else by element. An 8x8 matrix of ldmatrix is just what an accumulator holds of a 16-bit bias.
 * Cells of queries or keys that do not exist are zero and not read. */
#ifndef RAPT_MMA_CHANGE_H
#define RAPT_MMA_CHANGE_H

#include "nvidia/mma_forward.h"

enum { CELLS = TILE_Q * TILE_KV, ELEMENTS = 16 /* that a thread asks for before it waits */ };

static_assert(!FEATURES || (SPLIT == 1 && (TILE_KV == 64 || TILE_KV == 32)), "see cell_swizzle");

/* ---- Tiles in shared memory ------------------------------------------------------------------ */

DEVICE int mask_cells(void)
{
    return SHARED_BYTES;
}

DEVICE int bias_cells(const struct attention_args *a)
{
    return SHARED_BYTES + (a->mask.data ? CELLS : 0);
}

/* Piece i of a row lies at i * 16 ^ this: what a warp reads of 8 rows, or of f32 of 4 rows, falls
 * into different banks. bytes: of an element, a constant. Rows whose numbers differ by 8 agree. */
DEVICE int cell_swizzle(int row, int bytes)
{
    int pieces = TILE_KV * bytes / 16;
    return bytes == 4 ? row % 4 * 32 : row / (8 / pieces) % pieces * 16;
}

/* One element of it at a time. */
DEVICE void load_elements(int to, const char *from, int64_t row_bytes, int64_t step, int queries,
                          int keys, int bytes)
{
    int column = fresh(THREAD) % TILE_KV, first = fresh(THREAD) / TILE_KV;
    from += first * row_bytes + column * step;
#pragma unroll 1
    for (int i = 0; i < CELLS / THREADS; i += ELEMENTS) {
        uint32_t x[ELEMENTS];
#pragma unroll
        for (int j = 0; j < ELEMENTS; j++) {
            int row = first + (i + j) * (THREADS / TILE_KV),
                exists = row < queries && column < keys;
            int at = to + row * TILE_KV * bytes + (column * bytes ^ cell_swizzle(row, bytes));
            if (bytes == 4) copy_async_word(q_tile() + at, from, exists ? 4 : 0);
            else if (!exists) x[j] = 0;
            else x[j] = bytes == 2 ? LOAD(uint16_t, from) : LOAD(uint8_t, from);
            from += THREADS / TILE_KV * row_bytes;
        }
#pragma unroll
        for (int j = 0; j < ELEMENTS && bytes < 4; j++) {
            int row = first + (i + j) * (THREADS / TILE_KV);
            char *at = (char *)shared_memory + to + row * TILE_KV * bytes +
                       (column * bytes ^ cell_swizzle(row, bytes));
            if (bytes == 2) *(uint16_t *)at = (uint16_t)x[j];
            else *(uint8_t *)at = (uint8_t)x[j];
        }
    }
}

/* A tile of v, which has elements of so many bytes, from shared_memory + to on. */
DEVICE void load_cells(int to, const struct view *v, const struct work *w, int key, int bytes)
{
    int pieces = TILE_KV * bytes / 16, together = THREADS / pieces;
    int keys = smaller(TILE_KV, w->seq.kv_length - key), queries = w->seq.q_length - w->first_query;
    int64_t row_bytes = v->stride[2] * bytes;
    const char *from = element_at(v, w->seq.q_batch, w->head, w->seq.q_start + w->first_query, key);
    if (!runs_aligned(v, 16 / bytes)) {
        load_elements(to, from, row_bytes, v->stride[3] * bytes, queries, keys, bytes);
        return;
    }
    int row = fresh(THREAD) / pieces, piece = fresh(THREAD) % pieces;
    int size = larger(0, smaller(16, keys * bytes - piece * 16));
    from += row * row_bytes + piece * 16;
    uint32_t at = q_tile() + to + row * TILE_KV * bytes + (piece * 16 ^ cell_swizzle(row, bytes));
#pragma unroll
    for (int i = 0; i < TILE_Q; i += together) {
        copy_async(at + i * TILE_KV * bytes, from, row + i < queries ? size : 0);
        from += together * row_bytes;
    }
}

/* What the problem has of both, for the tile of keys that starts at key. */
DEVICE void load_changes(const struct attention_args *a, const struct work *w, int key)
{
    if (a->mask.data) load_cells(mask_cells(), &a->mask, w, key, 1);
    if (!a->bias.data) return;
    if (a->bias.dtype == DTYPE_f32) load_cells(bias_cells(a), &a->bias, w, key, 4);
    else load_cells(bias_cells(a), &a->bias, w, key, 2);
}

/* ---- Scores ---------------------------------------------------------------------------------- */

DEVICE float low_element(uint32_t two)
{
    return DTYPE == DTYPE_bf16 ? float_of(two << 16) : f16_to_f32((uint16_t)two);
}

DEVICE float high_element(uint32_t two)
{
    return DTYPE == DTYPE_bf16 ? float_of(two & 0xffff0000u) : f16_to_f32((uint16_t)(two >> 16));
}

/* s times factor, plus a bias of DTYPE. */
DEVICE void add_bias(float (*s)[NT][4], const struct attention_args *a, float factor)
{
    int thread = fresh(THREAD), row = thread % 16, half = thread / 16 % 2;
    uint32_t from = q_tile() + bias_cells(a) + (thread / 32 * RT * 16 + row) * TILE_KV * 2;
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t x[4];
            load_matrices(x,
                          from + i * 16 * TILE_KV * 2 + ((n + half) * 16 ^ cell_swizzle(row, 2)));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float *y = &s[i][n + j / 2][j % 2 * 2];
                y[0] = fused(y[0], factor, low_element(x[j]));
                y[1] = fused(y[1], factor, high_element(x[j]));
            }
        }
}

/* The same of f32. */
DEVICE void add_bias_f32(float (*s)[NT][4], const struct attention_args *a, float factor)
{
    struct lane lane = lane_here();
    const char *from = (const char *)shared_memory + bias_cells(a) +
                       (lane.group * RT * 16 + lane.g) * TILE_KV * 4 + lane.t % 2 * 8;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const char *at = from + ((2 * n + lane.t / 2) * 16 ^ cell_swizzle(lane.g, 4));
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float2 x = *(const float2 *)(at + r * 8 * TILE_KV * 4);
            float *y = &s[r / 2][n][r % 2 * 2];
            y[0] = fused(y[0], factor, x.x);
            y[1] = fused(y[1], factor, x.y);
        }
    }
}

/* s times factor, less the distance times the slope. */
DEVICE void add_slope(float (*s)[NT][4], const struct work *w, int key, float factor)
{
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int position = query_of(w, &lane, r) + w->seq.offset - key - 2 * lane.t;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[r / 2][n][r % 2 * 2 + i];
                int distance = position - 8 * n - i;
                *x = fused(*x, factor, -(w->slope * (float)(distance < 0 ? -distance : distance)));
            }
    }
}

/* Scale, softcap, bias and ALiBi, in the order that SEMANTICS gives; the scores are then natural
 * ones. Each in a loop of its own, where the problem has it. */
DEVICE void change_scores(float (*s)[NT][4], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (!changes_scores(a)) return;
    float factor = a->scale, cap = a->softcap;
    if (cap > 0 || !(a->bias.data || a->alibi.data)) {
        float inverse = cap > 0 ? factor / cap : 0;
#pragma unroll
        for (int i = 0; i < RT * NT * 4; i++) {
            float *x = &s[i / 4 / NT][i / 4 % NT][i % 4];
            *x = cap > 0 ? cap * tanh_f32(*x * inverse) : *x * factor;
        }
        factor = 1;
    }
    if (a->bias.data) {
        if (a->bias.dtype == DTYPE_f32) add_bias_f32(s, a, factor);
        else add_bias(s, a, factor);
        factor = 1;
    }
    if (a->alibi.data) add_slope(s, w, key, factor);
}

/* The mask tensor: 0 hides. */
DEVICE void mask_by_tensor(float (*s)[NT][4])
{
    struct lane lane = lane_here();
    const char *from = (const char *)shared_memory + mask_cells() +
                       (lane.group * RT * 16 + lane.g) * TILE_KV + 2 * lane.t;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const char *at = from + (n / 2 * 16 ^ cell_swizzle(lane.g, 1)) + n % 2 * 8;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            uint32_t two = *(const uint16_t *)(at + r * 8 * TILE_KV);
            float *x = &s[r / 2][n][r % 2 * 2];
            if (!(two & 0xff)) x[0] = -INFINITY;
            if (two < 0x100) x[1] = -INFINITY;
        }
    }
}

#endif
