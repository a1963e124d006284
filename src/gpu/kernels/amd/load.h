/* load.h: Q to registers, K and V to LDS by way of registers: a tile is requested long before it is
 * stored, so that memory's latency passes behind matrix products. V is transposed on the way, four
 * keys at a time. */
#ifndef RAPT_AMD_LOAD_H
#define RAPT_AMD_LOAD_H

#include "amd/work.h"

/* Neighbouring lanes take neighbouring pieces of a row: as many as the largest power of 2 that
 * divides the pieces of a row, and at most an eighth of the threads. */
enum {
    K_POWER = K_PIECES & -K_PIECES,
    V_POWER = V_PIECES & -V_PIECES,
    K_LANES = K_POWER < THREADS / 8 ? K_POWER : THREADS / 8,
    V_LANES = V_POWER < THREADS / 8 ? V_POWER : THREADS / 8,
    K_ITEMS = TILE_KV * K_PIECES,     /* pieces of K */
    V_ITEMS = TILE_KV / 4 * V_PIECES, /* V: a piece of four rows */
    K_LOADS = (K_ITEMS + THREADS - 1) / THREADS,
    V_LOADS = (V_ITEMS + THREADS - 1) / THREADS
};

/* The thread's item i: `lanes` pieces, then `rows` rows, then the next pieces. */
struct item {
    int row, piece;
};

DEVICE struct item item_of(int thread, int i, int lanes, int rows)
{
    uint32_t number = thread + i * THREADS, across = lanes, down = rows;
    struct item it = {(int)(number / across % down),
                      (int)(number % across + number / (across * down) * across)};
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

/* Whether rows are not whole pieces, so that they are loaded with care. */
DEVICE int is_narrow(const struct attention_args *a)
{
    return FEATURES && (a->channels < D || a->v_channels < DV);
}

/* The first of the four rows of an item of V, and how far the next is. */
DEVICE int v_row(int quad)
{
    return quad * 4 / EDGE * EDGE + key_of_place(quad * 4 % EDGE);
}

/* Requests K or V of the tile that starts at `key`, row by row; rows from kv_length on repeat the
 * last one: mask_scores hides their keys. */
DEVICE void request_keys_slowly(const struct attention_args *a, const struct work *w, int key,
                                struct staged *to)
{
    int thread = fresh(THREAD), last = w->seq.kv_length - 1;
#pragma unroll
    for (int i = 0; i < K_LOADS; i++) {
        struct item it = item_of(thread, i, K_LANES, TILE_KV);
        if (has_item(i, K_ITEMS))
            to->k[i] = load_piece(w->k + smaller(key + it.row, last) * (a->k.stride[2] * 2),
                                  it.piece, a->channels);
    }
}

DEVICE void request_values_slowly(const struct attention_args *a, const struct work *w, int key,
                                  struct staged *to)
{
    int thread = fresh(THREAD), last = w->seq.kv_length - 1;
#pragma unroll
    for (int i = 0; i < V_LOADS; i++) {
        struct item it = item_of(thread, i, V_LANES, TILE_KV / 4);
        if (!has_item(i, V_ITEMS)) continue;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int token = smaller(key + v_row(it.row) + j * QUAD_STEP, last);
            to->v[i][j] = load_piece(w->v + token * (a->v.stride[2] * 2), it.piece, a->v_channels);
        }
    }
}

/* Where the first of the four places of an item of V lies. */
DEVICE int v_write_address(struct item it)
{
    return v_address(it.piece * 8, it.row / 2) + ((it.row ^ v_swapped(it.piece * 8)) & 1) * 8;
}

/* Where the next tile to request lies, row 0 of it, and a thread's first item within; where that
 * goes in LDS. */
struct source {
    const char *k, *v;
    uint32_t k_offset, v_offset;
    int k_to, v_to;
};

DEVICE struct source source_of(const struct attention_args *a, const struct work *w, int key)
{
    int64_t k_pitch = a->k.stride[2] * 2, v_pitch = a->v.stride[2] * 2;
    int thread = fresh(THREAD);
    struct item k = item_of(thread, 0, K_LANES, TILE_KV),
                v = item_of(thread, 0, V_LANES, TILE_KV / 4);
    struct source s = {w->k + key * k_pitch,
                       w->v + key * v_pitch,
                       k.row * (uint32_t)k_pitch + k.piece * 16,
                       v_row(v.row) * (uint32_t)v_pitch + v.piece * 16,
                       k_address(k.row, k.piece),
                       v_write_address(v)};
    return s;
}

/* Items of a thread: the next ones are that many rows and pieces on. */
static_assert(THREADS / K_LANES % 8 == 0 &&
                  (TILE_KV % (THREADS / K_LANES) == 0 || THREADS / K_LANES % TILE_KV == 0),
              "regular items");
static_assert(TILE_KV / 4 % (THREADS / V_LANES) == 0 || THREADS / V_LANES % (TILE_KV / 4) == 0,
              "regular items");

/* 16 bytes at tile + more + offset, more being the same in all lanes, both below 2^31. CDNA: a
 * buffer load adds a scalar to the lane's offset by itself, where a global load takes two
 * instructions to add it to the base. Its resource is all memory from the tile on; its fourth word:
 * CDNA3 ISA, "Buffer resource". */
DEVICE uint4 load_within(const char *tile, uint32_t more, uint32_t offset)
{
#if defined(__GFX9__)
    const int raw_32_bit = 0x00020000;
    return __builtin_amdgcn_raw_buffer_load_b128(
        __builtin_amdgcn_make_buffer_rsrc((void *)tile, 0, 0xffffffffu, raw_32_bit), (int)offset,
        (int)more, 0);
#else
    /* 32 bits, widened where they are used */
    return LOAD(uint4, scalar(tile + more) + (uint32_t)fresh((int)offset));
#endif
}

DEVICE void request_keys(const struct attention_args *a, const struct work *w, int key,
                         struct source *from, struct staged *to)
{
    if (is_narrow(a)) {
        request_keys_slowly(a, w, key, to);
        return;
    }
    int64_t pitch = a->k.stride[2] * 2;
#pragma unroll
    for (int i = 0; i < K_LOADS; i++) {
        int rows = i * (THREADS / K_LANES) % TILE_KV, pieces = i * (THREADS / K_LANES) / TILE_KV;
        if (has_item(i, K_ITEMS))
            to->k[i] = load_within(from->k, rows * (uint32_t)pitch + pieces * K_LANES * 16,
                                   from->k_offset);
    }
    from->k -= TILE_KV * pitch;
}

DEVICE void request_values(const struct attention_args *a, const struct work *w, int key,
                           struct source *from, struct staged *to)
{
    if (is_narrow(a)) {
        request_values_slowly(a, w, key, to);
        return;
    }
    int64_t pitch = a->v.stride[2] * 2;
#pragma unroll
    for (int i = 0; i < V_LOADS; i++) {
        int quads = i * (THREADS / V_LANES) % (TILE_KV / 4),
            pieces = i * (THREADS / V_LANES) / (TILE_KV / 4);
        if (!has_item(i, V_ITEMS)) continue;
#pragma unroll
        for (int j = 0; j < 4; j++)
            to->v[i][j] = load_within(
                from->v, (v_row(quads) + j * QUAD_STEP) * (uint32_t)pitch + pieces * V_LANES * 16,
                from->v_offset);
    }
    from->v -= TILE_KV * pitch;
}

DEVICE void store_keys(const struct source *places, const struct staged *from)
{
    int to = places->k_to;
#pragma unroll
    for (int i = 0; i < K_LOADS; i++) {
        int rows = i * (THREADS / K_LANES) % TILE_KV, pieces = i * (THREADS / K_LANES) / TILE_KV;
        if (has_item(i, K_ITEMS))
            *shared_at(k_further(to, pieces * K_LANES) + rows * K_PIECES * 16) = from->k[i];
    }
}

/* Four keys of eight channels: rows become columns. */
DEVICE void store_values(const struct source *places, const struct staged *from)
{
#pragma unroll
    for (int i = 0; i < V_LOADS; i++) {
        if (!has_item(i, V_ITEMS)) continue;
        const uint4 *x = from->v[i];
        int to = i ? v_write_address(item_of(THREAD, i, V_LANES, TILE_KV / 4)) : places->v_to;
        if (FEW_ADDRESSES || WAVE == 32) to = fresh(to);
#pragma unroll
        for (int c = 0; c < 8; c++) {
            uint32_t take = c % 2 ? 0x07060302 : 0x05040100;
            uint2 four;
            four.x = __builtin_amdgcn_perm(x[1][c / 2], x[0][c / 2], take);
            four.y = __builtin_amdgcn_perm(x[3][c / 2], x[2][c / 2], take);
            *(uint2 *)shared_at(to ^ (c * V_LINE | turn_of(c, V_TURNS)) * 16) = four;
        }
    }
}

/* Where a lane's queries lie; past the end of the sequence they repeat its last one. */
struct query_rows {
    const char *row[QT];
    int channels;
};

DEVICE struct query_rows query_rows_of(const struct attention_args *a, const struct work *w)
{
    const char *base = half_at(&a->q, w->seq.q_batch, w->head, w->seq.q_start);
    struct query_rows rows;
    rows.channels = a->channels;
#pragma unroll
    for (int r = 0; r < QT; r++) {
#if SPLIT_KEYS
        /* Rows of the next group's heads repeat the last head. */
        int lane = fresh(THREAD) % WAVE, last = (w->kv_head + 1) * a->group - 1,
            own = w->first_query + (row_in_tile(r, lane) & (w->tokens - 1));
        rows.row[r] = half_at(&a->q, w->seq.q_batch, smaller(head_of(w, r, lane), last),
                              w->seq.q_start + smaller(own, w->seq.q_length - 1));
        continue;
#endif
        int query = w->first_query + (wave_here() * QT + r) * EDGE + fresh(THREAD) % WAVE % EDGE;
        rows.row[r] = base + smaller(query, w->seq.q_length - 1) * (a->q.stride[2] * 2);
    }
    return rows;
}

/* Chunk c of the wave's queries as operands. */
DEVICE void load_query_chunk(const struct query_rows *rows, operand (*q)[QK_CHUNKS], int c)
{
    int half = fresh(THREAD) % WAVE / EDGE;
#pragma unroll
    for (int r = 0; r < QT; r++)
#pragma unroll
        for (int i = 0; i < OPERAND_PIECES; i++)
            ((uint4 *)&q[r][c])[i] =
                load_piece(rows->row[r], 2 * c + operand_piece(half, i), rows->channels);
}

/* All of them, the last ones to LDS, where only the wave itself reads them. */
DEVICE void load_queries(const struct query_rows *rows, operand (*q)[QK_CHUNKS])
{
    int lane = fresh(THREAD) % WAVE, half = lane / EDGE;
#pragma unroll
    for (int c = 0; c < QK_CHUNKS; c++) {
        load_query_chunk(rows, q, c);
        if (c < Q_OWN) continue;
#pragma unroll
        for (int r = 0; r < QT; r++)
#pragma unroll
            for (int i = 0; i < OPERAND_PIECES; i++)
                *shared_at(q_address((wave_here() * QT + r) * EDGE + lane % EDGE,
                                     2 * (c - Q_OWN) + operand_piece(half, i))) =
                    ((const uint4 *)&q[r][c])[i];
    }
    if (Q_SHARED) wave_barrier();
}

#endif
