/* scores.h: S^T = K Q^T of the AMD forward, its options and its mask. A lane's scores belong to one
 * query per query tile; their keys are key_in_tile(n, v) + half * HALF_ROWS. */
#ifndef RAPT_AMD_SCORES_H
#define RAPT_AMD_SCORES_H

#include "amd/load.h"
#include "amd/softmax.h"

/* Pieces of a line from `address` on, as an operand. */
DEVICE operand operand_at(int address)
{
    operand x;
#pragma unroll
    for (int i = 0; i < OPERAND_PIECES; i++) ((uint4 *)&x)[i] = *shared_at(address ^ i * 16);
    return x;
}

/* How the products of a tile of keys are made. */
enum {
    PLAIN,        /* score tile after score tile, Q in registers or LDS */
    WITH_WEIGHTS, /* the same, and weights of score tile 0 while the others' products run */
    STREAMED      /* Q is read from memory once more, and used for all score tiles at a time */
};

enum { Q_AHEAD = 3 }; /* chunks that a streamed Q is requested ahead */

/* s = K Q^T of this wave's queries and all keys of the tile. */
DEVICE void scores(results (*s)[KT], operand (*q)[QK_CHUNKS], int how, struct weighing *weights,
                   const struct query_rows *rows)
{
    enum { SLOTS = (KT > 1 ? KT - 1 : 1) * QK_CHUNKS * PARTS };
    int lane = lane_here(), half = lane / EDGE, row = lane % EDGE,
        base = k_address(row, operand_piece(half, 0)),
        q_base = q_address(wave_here() * QT * EDGE + row, operand_piece(half, 0));
    operand k[KT * QK_CHUNKS];
    if (how == STREAMED) {
#pragma unroll
        for (int c = 0; c < Q_AHEAD; c++) load_query_chunk(rows, q, c);
    }
#pragma unroll
    for (int t = 0; t < KT * QK_CHUNKS + AHEAD; t++) {
        int next_n = how == STREAMED ? t % KT : t / QK_CHUNKS,
            next_c = how == STREAMED ? t / KT : t % QK_CHUNKS;
        if (t < KT * QK_CHUNKS) {
            if (FEW_ADDRESSES) base = fresh(base), q_base = fresh(q_base);
            k[t] = operand_at(k_further(base, 2 * next_c) + next_n * EDGE * K_PIECES * 16);
            if (how == STREAMED && !next_n && next_c + Q_AHEAD < QK_CHUNKS)
                load_query_chunk(rows, q, next_c + Q_AHEAD);
        }
        int now = t - AHEAD, n = how == STREAMED ? now % KT : now / QK_CHUNKS,
            c = how == STREAMED ? now / KT : now % QK_CHUNKS;
        if (now < 0) continue;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
            for (int r = 0; r < QT; r++) {
                if (!c && !part) s[r][n] = 0;
                if (how != STREAMED && c >= Q_OWN && !part)
                    q[r][c] =
                        operand_at(q_further(q_base, 2 * (c - Q_OWN)) + r * EDGE * Q_LINE * 16);
                multiply_add_part(&s[r][n], k[now], q[r][c], part);
            }
            if (how == WITH_WEIGHTS && n)
                weigh(weights, s, 0, (now - QK_CHUNKS) * PARTS + part, SLOTS);
            pin();
        }
        if ((c + 1) % OPERANDS_AT_ONCE == 0) finish(&s[0][n]);
    }
}

DEVICE int key_in_tile(int n, int v)
{
    return n * EDGE + row_of(v);
}

/* Query (within the sequence) of a lane in the wave's query tile r. */
DEVICE int query_of(const struct work *w, int r, int lane)
{
#if SPLIT_KEYS
    return w->first_query + (row_in_tile(r, lane) & (w->tokens - 1));
#endif
    return w->first_query + (wave_here() * QT + r) * EDGE + lane % EDGE;
}

DEVICE int is_hidden(const struct attention_args *a, const struct work *w, int query, int key)
{
    int position = query + w->seq.offset, hidden = key >= w->seq.kv_length;
    if (CAUSAL || WINDOWS) hidden |= key > position + a->window_right;
    if (WINDOWS) hidden |= key < position - a->window_left;
    return hidden;
}

/* Whether some row of this wave may not see some key of the tile that starts at key. */
DEVICE int has_hidden(const struct attention_args *a, const struct work *w, int key)
{
    int first = w->first_query + wave_here() * QT * EDGE + w->seq.offset, queries = QT * EDGE,
        hidden = key + TILE_KV > w->seq.kv_length;
#if SPLIT_KEYS
    first = w->first_query + (wave_here() * QT * EDGE & (w->tokens - 1)) + w->seq.offset;
    queries = smaller(queries, w->tokens);
#endif
    if (CAUSAL || WINDOWS) hidden |= key + TILE_KV - 1 > first + a->window_right;
    if (WINDOWS) hidden |= key < first + queries - 1 - a->window_left;
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
        if (CAUSAL || WINDOWS) end = smaller(end, position + a->window_right + 1);
        if (WINDOWS) first = position - a->window_left;
#pragma unroll
        for (int n = 0; n < KT; n++)
#pragma unroll
            for (int v = 0; v < RESULTS; v++)
                if (key_in_tile(n, v) >= end || (WINDOWS && key_in_tile(n, v) < first))
                    s[r][n][v] = -INFINITY;
    }
}

/* Scale, softcap and ALiBi, in the order that SEMANTICS gives; the scores are then natural ones. */
DEVICE void change_scores(results (*s)[KT], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (!w->changes) return;
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
