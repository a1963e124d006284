/* load.h: Q to registers, K and V to LDS by way of registers: a tile is requested long before it is
 * stored, so that memory's latency passes behind matrix products. V is transposed on the way, four
 * keys at a time. */
#ifndef RAPT_AMD_LOAD_H
#define RAPT_AMD_LOAD_H

#include "amd/work.h"

/* Neighbouring lanes take neighbouring pieces of a row: as many as the largest power of 2 that
 * divides the pieces of a row. */
enum {
    K_LANES = K_PIECES & -K_PIECES,
    V_LANES = V_PIECES & -V_PIECES,
    K_ITEMS = TILE_KV * K_PIECES,    /* pieces of K */
    V_ITEMS = TILE_KV / 4 * V_PIECES, /* V: a piece of four rows */
    K_LOADS = (K_ITEMS + THREADS - 1) / THREADS,
    V_LOADS = (V_ITEMS + THREADS - 1) / THREADS
};

/* The thread's item i: `lanes` pieces, then `rows` rows, then the next pieces. */
struct item {
    int row, piece;
};

DEVICE struct item item_of(int i, int lanes, int rows)
{
    int number = THREAD + i * THREADS;
    struct item it = {number / lanes % rows, number % lanes + number / (lanes * rows) * lanes};
    return it;
}

/* The last threads of a wave's item may have none. Items come in whole waves. */
static_assert(K_ITEMS % WAVE == 0 && V_ITEMS % WAVE == 0, "whole waves");

DEVICE int has_item(int i, int items)
{
    return (i + 1) * THREADS <= items || (int)(wave_here() * WAVE) + i * THREADS < items;
}

struct staged {
    uint4 k[K_LOADS];
    uint4 v[V_LOADS][4];
};

/* One piece; channels from `channels` on become zero and are not read. */
DEVICE uint4 load_piece(const char *row, int piece, int channels)
{
    uint4 x = {0, 0, 0, 0};
    if (!FEATURES || piece * 8 + 8 <= channels) return LOAD(uint4, row + piece * 16);
#pragma unroll
    for (int c = 0; c < 8; c++)
        if (piece * 8 + c < channels)
            x[c / 2] |= (uint32_t)LOAD(uint16_t, row + piece * 16 + c * 2) << c % 2 * 16;
    return x;
}

/* Row `token` of a sequence of K or V. */
DEVICE const char *token_row(const struct attention_args *a, const struct work *w,
                             const struct view *view, const char *base, int token)
{
    if (FEATURES && a->page_table.data) {
        int page = a->page_shift >= 0 ? token >> a->page_shift : token / a->page_tokens;
        return element_at(view, load_index(&a->page_table, w->b, page), w->kv_head,
                          token - page * a->page_tokens, 0);
    }
    return base + token * (view->stride[2] * 2);
}

/* Requests the tile that starts at `key`. Rows from the end of the sequence on repeat its last row:
 * their keys are hidden by mask_scores. */
DEVICE void request_keys(const struct attention_args *a, const struct work *w, int key,
                         struct staged *to)
{
    int last = w->seq.kv_length - 1;
#pragma unroll
    for (int i = 0; i < K_LOADS; i++) {
        struct item it = item_of(i, K_LANES, TILE_KV);
        if (has_item(i, K_ITEMS))
            to->k[i] = load_piece(token_row(a, w, &a->k, w->k, smaller(key + it.row, last)),
                                  it.piece, a->channels);
    }
}

DEVICE void request_values(const struct attention_args *a, const struct work *w, int key,
                           struct staged *to)
{
    int last = w->seq.kv_length - 1;
#pragma unroll
    for (int i = 0; i < V_LOADS; i++) {
        struct item it = item_of(i, V_LANES, TILE_KV / 4);
        if (!has_item(i, V_ITEMS)) continue;
        int place = it.row * 4, row = key + place / EDGE * EDGE + key_of_place(place % EDGE);
#pragma unroll
        for (int j = 0; j < 4; j++)
            to->v[i][j] =
                load_piece(token_row(a, w, &a->v, w->v, smaller(row + j * QUAD_STEP, last)),
                           it.piece, a->v_channels);
    }
}

DEVICE void store_keys(const struct staged *from)
{
#pragma unroll
    for (int i = 0; i < K_LOADS; i++) {
        struct item it = item_of(i, K_LANES, TILE_KV);
        if (has_item(i, K_ITEMS)) shared_memory[k_place(it.row, it.piece)] = from->k[i];
    }
}

/* Four keys of eight channels: rows become columns. */
DEVICE void store_values(const struct staged *from)
{
#pragma unroll
    for (int i = 0; i < V_LOADS; i++) {
        struct item it = item_of(i, V_LANES, TILE_KV / 4);
        if (!has_item(i, V_ITEMS)) continue;
        const uint4 *x = from->v[i];
#pragma unroll
        for (int c = 0; c < 8; c++) {
            uint32_t take = c % 2 ? 0x07060302 : 0x05040100;
            int channel = it.piece * 8 + c;
            uint2 four;
            four.x = __builtin_amdgcn_perm(x[1][c / 2], x[0][c / 2], take);
            four.y = __builtin_amdgcn_perm(x[3][c / 2], x[2][c / 2], take);
            uint2 *to = (uint2 *)(shared_memory + v_place(channel, it.row / 2));
            to[(it.row ^ v_swapped(channel)) & 1] = four;
        }
    }
}

/* The wave's rows of Q as operands; rows past the end of the sequence repeat its last one. */
DEVICE void load_queries(const struct attention_args *a, const struct work *w,
                         operand (*q)[QK_CHUNKS])
{
    const char *base = element_at(&a->q, w->seq.q_batch, w->head, w->seq.q_start, 0);
    int lane = lane_here(), half = lane / EDGE;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        int query = w->first_query + (wave_here() * QT + r) * EDGE + lane % EDGE;
        const char *row = base + smaller(query, w->seq.q_length - 1) * (a->q.stride[2] * 2);
#pragma unroll
        for (int c = 0; c < QK_CHUNKS; c++) {
            uint4 *x = (uint4 *)&q[r][c];
#pragma unroll
            for (int i = 0; i < OPERAND_PIECES; i++)
                x[i] = load_piece(row, 2 * c + operand_piece(half, i), a->channels);
        }
    }
}

#endif
