/* scores.h: S^T = K Q^T of the AMD forward, its options and its mask. A lane's scores belong to one
 * query per query tile; their keys are key_in_tile(n, v) + half * HALF_ROWS. */
#ifndef RAPT_AMD_SCORES_H
#define RAPT_AMD_SCORES_H

#include "amd/softmax.h"

/* Chunk c of a line of K or Q; base: where the lane's first piece of chunk 0 lies. */
DEVICE operand line_operand(int base, int c, int offset)
{
    operand x;
#pragma unroll
    for (int i = 0; i < OPERAND_PIECES; i++)
        ((uint4 *)&x)[i] = *shared_at((k_further(base, 2 * c) ^ i * 16) + offset);
    return x;
}

/* s = K Q^T of this wave's queries and all keys of the tile; with_weights: those of score tile 0 are
 * made while the products of the others run. */
DEVICE void scores(results (*s)[KT], operand (*q)[QK_CHUNKS], int with_weights,
                   struct weighing *weights)
{
    enum { SLOTS = (KT > 1 ? KT - 1 : 1) * QK_CHUNKS * PARTS };
    int lane = lane_here(), half = lane / EDGE, row = lane % EDGE,
        base = k_address(row, operand_piece(half, 0)),
        q_base = q_address(wave_here() * QT * EDGE + row, operand_piece(half, 0));
    operand k[KT * QK_CHUNKS];
#pragma unroll
    for (int t = 0; t < KT * QK_CHUNKS + AHEAD; t++) {
        if (t < KT * QK_CHUNKS) {
            if (DIRECT) base = fresh(base), q_base = fresh(q_base); /* keeps no address */
            k[t] = line_operand(base, t % QK_CHUNKS, t / QK_CHUNKS * EDGE * K_PIECES * 16);
        }
        int now = t - AHEAD, n = now / QK_CHUNKS, c = now % QK_CHUNKS;
        if (now < 0) continue;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
            for (int r = 0; r < QT; r++) {
                if (!c && !part) s[r][n] = 0;
                multiply_add_part(&s[r][n], k[now],
                                  Q_SHARED ? line_operand(q_base, c, r * EDGE * K_PIECES * 16)
                                           : q[r][c], part);
            }
            if (with_weights && KT > 1 && n)
                weigh(weights, s, 0, (now - QK_CHUNKS) * PARTS + part, SLOTS);
            pin();
        }
        if ((c + 1) % OPERANDS_AT_ONCE == 0) finish(&s[0][n]);
    }
    if (with_weights && KT == 1) weigh_all(weights, s, 0);
}

DEVICE int key_in_tile(int n, int v)
{
    return n * EDGE + row_of(v);
}

/* Query (within the sequence) of a lane in the wave's query tile r. */
DEVICE int query_of(const struct work *w, int r, int lane)
{
    return w->first_query + (wave_here() * QT + r) * EDGE + lane % EDGE;
}

DEVICE int is_hidden(const struct attention_args *a, const struct work *w, int query, int key)
{
    int position = query + w->seq.offset, hidden = key >= w->seq.kv_length;
    if (CAUSAL || FEATURES) hidden |= key > position + a->window_right;
    if (FEATURES) hidden |= key < position - a->window_left;
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
    int lane = fresh(THREAD) % WAVE, first_key = key + lane / EDGE * HALF_ROWS;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int position = query_of(w, r, lane) + w->seq.offset - first_key,
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

/* Scale, softcap and ALiBi, in the order that SEMANTICS gives; the scores are then natural ones. */
DEVICE void change_scores(results (*s)[KT], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (!changes_scores(a)) return;
    float inverse = a->softcap > 0 ? a->scale / a->softcap : 0;
    int lane = fresh(THREAD) % WAVE, first = key + lane / EDGE * HALF_ROWS;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int position = query_of(w, r, lane) + w->seq.offset - first;
#pragma unroll
        for (int n = 0; n < KT; n++) {
#pragma unroll
            for (int v = 0; v < RESULTS; v++) {
                float x = s[r][n][v];
                int distance = position - key_in_tile(n, v);
                x = a->softcap > 0 ? a->softcap * tanh_f32(x * inverse) : x * a->scale;
                s[r][n][v] = x - w->slope * (float)(distance < 0 ? -distance : distance);
            }
        }
    }
}

#endif
