/* scores.h: S^T = K Q^T of the AMD forward, its options and its mask. A lane's scores belong to one
 * query per query tile; their keys are key_in_tile(n, v) + half * HALF_ROWS. */
#ifndef RAPT_AMD_SCORES_H
#define RAPT_AMD_SCORES_H

#include "amd/work.h"

/* s = K Q^T of this wave's queries and all keys of the tile. */
DEVICE void scores(results (*s)[KT], operand (*q)[QK_CHUNKS])
{
    int lane = lane_here(), half = lane / EDGE, row = lane % EDGE;
#pragma unroll
    for (int r = 0; r < QT; r++)
#pragma unroll
        for (int n = 0; n < KT; n++) s[r][n] = 0;
#pragma unroll
    for (int c = 0; c < QK_CHUNKS; c++) {
#pragma unroll
        for (int n = 0; n < KT; n++) {
            operand k;
#pragma unroll
            for (int i = 0; i < OPERAND_PIECES; i++)
                ((uint4 *)&k)[i] =
                    shared_memory[k_place(n * EDGE + row, 2 * c + operand_piece(half, i))];
#pragma unroll
            for (int r = 0; r < QT; r++) multiply_add(&s[r][n], k, q[r][c]);
        }
    }
}

DEVICE int key_in_tile(int n, int v)
{
    return n * EDGE + row_of(v);
}

/* Query (within the sequence) of this lane in the wave's query tile r. */
DEVICE int query_of(const struct work *w, int r)
{
    return w->first_query + (wave_here() * QT + r) * EDGE + lane_here() % EDGE;
}

DEVICE int is_hidden(const struct attention_args *a, const struct work *w, int query, int key)
{
    int position = query + w->seq.offset, hidden = key >= w->seq.kv_length;
    if (CAUSAL || FEATURES) hidden |= key > position + a->window_right;
    if (FEATURES) hidden |= key < position - a->window_left;
    if (FEATURES && a->mask.data && !hidden && query < w->seq.q_length)
        hidden = !LOAD(uint8_t,
                       element_at(&a->mask, w->seq.q_batch, w->head, w->seq.q_start + query, key));
    return hidden;
}

/* Whether some row of this wave may not see some key of the tile that starts at key. */
DEVICE int has_hidden(const struct attention_args *a, const struct work *w, int key)
{
    int first = w->first_query + wave_here() * QT * EDGE + w->seq.offset,
        hidden = key + TILE_KV > w->seq.kv_length;
    if (CAUSAL || FEATURES) hidden |= key + TILE_KV - 1 > first + a->window_right;
    if (FEATURES) hidden |= key < first + QT * EDGE - 1 - a->window_left;
    return hidden;
}

DEVICE void mask_scores(results (*s)[KT], const struct attention_args *a, const struct work *w,
                        int key)
{
    int first_key = key + lane_here() / EDGE * HALF_ROWS;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int position = query_of(w, r) + w->seq.offset - first_key,
            end = w->seq.kv_length - first_key, first = -1;
        if (CAUSAL || FEATURES) end = smaller(end, position + a->window_right + 1);
        if (FEATURES) first = position - a->window_left;
#pragma unroll
        for (int n = 0; n < KT; n++)
#pragma unroll
            for (int v = 0; v < RESULTS; v++)
                if (key_in_tile(n, v) >= end || (FEATURES && key_in_tile(n, v) < first))
                    s[r][n][v] = -INFINITY;
    }
}

/* Scale, softcap, bias and ALiBi, in the order that SEMANTICS gives; the scores are then natural
 * ones. */
DEVICE void change_scores(results (*s)[KT], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (!changes_scores(a)) return;
    float inverse = a->softcap > 0 ? a->scale / a->softcap : 0;
    int64_t step = a->bias.stride[3] * dtype_bytes(a->bias.dtype);
    int first = key + lane_here() / EDGE * HALF_ROWS;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int query = query_of(w, r), position = query + w->seq.offset - first;
        int end = a->bias.data && query < w->seq.q_length ? w->seq.kv_length - first : 0;
        const char *bias =
            element_at(&a->bias, w->seq.q_batch, w->head, w->seq.q_start + query, first);
#pragma unroll
        for (int n = 0; n < KT; n++) {
#pragma unroll
            for (int v = 0; v < RESULTS; v++) {
                float x = s[r][n][v];
                int at = key_in_tile(n, v), distance = position - at;
                x = a->softcap > 0 ? a->softcap * tanh_f32(x * inverse) : x * a->scale;
                if (at < end) x += load_element(bias + at * step, 0, a->bias.dtype);
                s[r][n][v] = x - w->slope * (float)(distance < 0 ? -distance : distance);
            }
        }
    }
}

/* The mask tensor: 0 hides. */
DEVICE void mask_by_tensor(results (*s)[KT], const struct attention_args *a, const struct work *w,
                           int key)
{
    int first = key + lane_here() / EDGE * HALF_ROWS;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int query = query_of(w, r);
        int end = query < w->seq.q_length ? w->seq.kv_length - first : 0;
        const char *mask =
            element_at(&a->mask, w->seq.q_batch, w->head, w->seq.q_start + query, first);
#pragma unroll
        for (int n = 0; n < KT; n++)
#pragma unroll
            for (int v = 0; v < RESULTS; v++) {
                int at = key_in_tile(n, v);
                if (at < end && !LOAD(uint8_t, mask + at * a->mask.stride[3]))
                    s[r][n][v] = -INFINITY;
            }
    }
}

#endif
