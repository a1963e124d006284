/* sm90_schedule.h: which tiles a block works on, and how the producer hands a tile to the
 * consumers.
 *
 * A tile is ROWS query rows of one head. Tiles are ordered by section (a few heads, so that their K
 * and V stay in L2), in a section by falling work, heads fastest. A block starts with the tile of
 * its own index and takes the others from a counter, so that the last ones to finish hold the
 * lightest tiles; for that the last section may be wider than the others. */
#ifndef RAPT_NVIDIA_SM90_SCHEDULE_H
#define RAPT_NVIDIA_SM90_SCHEDULE_H

#include "sm90_tile.h"

struct tile {
    int rows; /* index of the row tile within its sequence and head; -1: no more tiles */
    int head, batch;
    int key_end; /* key blocks key_begin ... key_end - 1, at least one; see nth_block() */
#if FEATURES
    int key_begin;
#if SPLIT_KEYS
    int part, index; /* part of the keys; the tile's number. head: the first of its heads */
#else
    int q_start;  /* first token of the sequence in q and out */
    int q_tokens; /* of the sequence */
#endif
    int kv_tokens; /* of the sequence; 0: nothing visible in the whole tile */
#endif
};

/* Queries of a tile. */
DEVICE int tile_tokens(const struct attention_args &a)
{
    return SPLIT_KEYS ? a.tile_tokens : ROWS;
}

/* The query, counted from the tile's first, that row `row` of it is. */
DEVICE int token_of_row(const struct attention_args &a, int row)
{
    return SPLIT_KEYS ? row & (a.tile_tokens - 1) : row;
}

DEVICE int min_int(int a, int b)
{
    return a < b ? a : b;
}
DEVICE int max_int(int a, int b)
{
    return a > b ? a : b;
}

#if FEATURES
DEVICE int key_begin(const struct tile *t)
{
    return t->key_begin;
}
DEVICE int q_tokens(const struct attention_args &a, const struct tile *t)
{
#if SPLIT_KEYS
    return a.q_tokens;
#else
    return t->q_tokens;
#endif
}
DEVICE int kv_tokens(const struct attention_args &, const struct tile *t)
{
    return t->kv_tokens;
}
#else
DEVICE int key_begin(const struct tile *)
{
    return 0;
}
DEVICE int q_tokens(const struct attention_args &a, const struct tile *)
{
    return a.q_tokens;
}
DEVICE int kv_tokens(const struct attention_args &a, const struct tile *)
{
    return a.kv_tokens;
}
#endif

/* The i-th block that a tile works on. */
DEVICE int nth_block(const struct tile *t, int i)
{
    return ASCENDING ? key_begin(t) + i : t->key_end - 1 - i;
}

/* Position of query 0 on the key axis. */
DEVICE int query_offset(const struct attention_args &a, const struct tile *t)
{
    return a.top_left ? 0 : kv_tokens(a, t) - q_tokens(a, t);
}

/* ---- Consumers and producer share the tile's record in shared memory
 * -------------------------------------------------------- */

DEVICE void tile_write(uint32_t at, const struct tile *t)
{
    shared_store4(at, t->rows, t->head, t->batch, t->key_end);
#if FEATURES
#if SPLIT_KEYS
    shared_store4(at + 16, t->key_begin, t->part, t->index, t->kv_tokens);
#else
    shared_store4(at + 16, t->key_begin, t->q_start, t->q_tokens, t->kv_tokens);
#endif
#endif
}

/* One lane of the warp reads, the one that later gives the slot back; the reductions bring its
 * values to the others and prove to the compiler that they are the same in all lanes. */
DEVICE void tile_read(uint32_t at, bool reads, struct tile *t)
{
    int x[4] = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    if (reads) shared_load4(at, x[0], x[1], x[2], x[3]);
    t->rows = __reduce_max_sync(~0u, x[0]);
    t->head = __reduce_max_sync(~0u, x[1]);
    t->batch = __reduce_max_sync(~0u, x[2]);
    t->key_end = __reduce_max_sync(~0u, x[3]);
#if FEATURES
    if (reads) shared_load4(at + 16, x[0], x[1], x[2], x[3]);
    t->key_begin = __reduce_max_sync(~0u, x[0]);
#if SPLIT_KEYS
    t->part = __reduce_max_sync(~0u, x[1]);
    t->index = __reduce_max_sync(~0u, x[2]);
#else
    t->q_start = __reduce_max_sync(~0u, x[1]);
    t->q_tokens = __reduce_max_sync(~0u, x[2]);
#endif
    t->kv_tokens = __reduce_max_sync(~0u, x[3]);
#endif
}

/* ---- The counter
 * ------------------------------------------------------------------------------------------
 */

/* One 64-bit word: the launch's ticket above, tiles taken below. The first to come replaces a
 * foreign ticket, so that the word needs no zeroing; whoever takes the last number puts the word
 * back to 0, so that a replayed graph finds no stale count. */
DEVICE unsigned long long *counter_word(const struct attention_args &a)
{
    return (unsigned long long *)a.counters;
}

DEVICE void counter_claim(const struct attention_args &a)
{
    unsigned long long seen = *(volatile unsigned long long *)counter_word(a);
    while ((uint32_t)(seen >> 32) != (uint32_t)a.ticket) {
        unsigned long long old =
            atomicCAS(counter_word(a), seen, (unsigned long long)a.ticket << 32);
        if (old == seen) return;
        seen = old;
    }
}

DEVICE int counter_take(const struct attention_args &a)
{
    return (int)(uint32_t)atomicAdd(counter_word(a), 1ull);
}
DEVICE void counter_reset(const struct attention_args &a)
{
    atomicExch(counter_word(a), 0ull);
}

/* Places on the batch axis of q, and of k and v. */
DEVICE int q_batches(const struct attention_args &a)
{
    return FEATURES && a.q_start.data ? 1 : a.batch;
}

DEVICE int kv_batches(const struct attention_args &a)
{
    return FEATURES && a.kv_start.data ? 1 : a.batch;
}

#if PARTS > 1
/* Of a word of wide_blocks: not 0 if a row of the block is wide. */
constexpr int WIDE_BITS = 3;

/* Whether two parts have left anything to three: the launches' ticket in the last of the counter's
 * 16 bytes. In a replayed graph it can be that of an earlier replay, which costs time alone. */
DEVICE int *wide_word(const struct attention_args &a)
{
    return (int *)(a.counters + 1) + 1;
}

DEVICE void tell_wide(const struct attention_args &a)
{
    *wide_word(a) = (int)a.ticket;
}

DEVICE bool any_wide(const struct attention_args &a)
{
    return *wide_word(a) == (int)a.ticket;
}

/* Which blocks are wide: of 16 queries, [batch][q head][a.wide_queries]; behind them, with what is
 * split in the upper bits, of PART_KEYS keys, [batch][k heads, v heads][a.wide_keys]. */
DEVICE int64_t wide_query_at(const struct attention_args &a, int batch, int head)
{
    return ((int64_t)batch * a.q_heads + head) * a.wide_queries;
}

DEVICE int64_t wide_key_at(const struct attention_args &a, int batch, int head)
{
    return wide_query_at(a, q_batches(a), 0) +
           ((int64_t)batch * 2 * a.kv_heads + head) * a.wide_keys;
}
#endif

/* ---- Tiles by number
 * ------------------------------------------------------------------------------------------
 */

struct schedule {
    int tiles; /* row tiles of a head; ragged queries: of all sequences together, one head */
    int heads; /* batch * q_heads; ragged queries: q_heads */
    int section, last; /* heads of a section, and at least of the last one */
    int total;
};

/* Of K and V of all heads. */
DEVICE int64_t key_bytes(const struct attention_args &a)
{
    int64_t bytes = (int64_t)a.kv_heads * a.kv_tokens * (D + DV) * 2 * PARTS;
#if FEATURES
    return a.kv_start.data ? bytes : bytes * a.batch;
#else
    return bytes * a.batch;
#endif
}

/* While all K and V fit a part of the L2 cache, one section holds all heads: the best balance. */
DEVICE int section_heads(const struct attention_args &a, int heads)
{
    return key_bytes(a) <= (24 << 20) ? heads : min_int(SECTION, heads);
}

/* The least that the last section holds, which ends with the light tiles of all its heads:
 * SECTION_LAST tiles for each block, as if a head had SECTION_TILES of them at least. */
DEVICE int last_heads(const struct schedule &s)
{
    int tiles = SECTION_TILES > 1 ? max_int(s.tiles, SECTION_TILES) : s.tiles;
    return min_int(s.heads, (SECTION_LAST * (int)gridDim.x + s.tiles) / tiles);
}

/* index / per_section and so on: one thread does this once per tile. */
DEVICE void tile_position(const struct schedule &s, int index, int *row_tile, int *head)
{
    int per_section = s.section * s.tiles, last = (s.heads - s.last) / s.section;
    int section = min_int(index / per_section, last), rest = index - section * per_section;
    int width = section < last ? s.section : s.heads - section * s.section;
    *row_tile = rest / width;
    *head = section * s.section + rest - *row_tile * width;
}

/* Computed again for every tile, which the opaque zero enforces: the producer has few registers. */
DEVICE int opaque_zero(void)
{
    int zero;
    asm volatile("mov.b32 %0, 0;" : "=r"(zero));
    return zero;
}

#if FEATURES

DEVICE int index_at(const struct view &v, int i)
{
    int64_t at = i * v.stride[0];
    return v.dtype == DTYPE_i64 ? (int)((const int64_t *)v.data)[at]
                                : ((const int32_t *)v.data)[at];
}

DEVICE int sequence_keys(const struct attention_args &a, int b)
{
    int capacity =
        a.kv_start.data ? index_at(a.kv_start, b + 1) - index_at(a.kv_start, b) : a.kv_tokens;
    return a.kv_length.data ? min_int(capacity, max_int(0, index_at(a.kv_length, b))) : capacity;
}

/* A sequence's first token in packed queries, and in packed keys. */
DEVICE int first_query(const struct attention_args &a, int b)
{
    return a.q_start.data ? index_at(a.q_start, b) : 0;
}

DEVICE int first_key(const struct attention_args &a, int b)
{
    return a.kv_start.data ? index_at(a.kv_start, b) : 0;
}

#if PARTS > 1 || KV_AHEAD
/* Keys that a launch ahead takes as a block. */
constexpr int PREPARED_KEYS = KV_AHEAD ? KEYS : PART_KEYS;

/* A sequence's first block of 16 queries in a.wide_blocks, and its first of keys there and in the
 * parts of K and V. */
DEVICE int first_query_block(const struct attention_args &a, int b)
{
    return a.q_start.data ? index_at(a.q_start, b) / 16 + b : 0;
}

DEVICE int first_key_block(const struct attention_args &a, int b)
{
    return a.kv_start.data ? index_at(a.kv_start, b) / PREPARED_KEYS + b : 0;
}

/* Of a sequence: a tile asks for one even if there are no keys. */
DEVICE int key_blocks(int keys)
{
    return max_int(1, (keys + PART_KEYS - 1) / PART_KEYS);
}
#endif

#if !SPLIT_KEYS
/* Sequences by falling number of keys, and of what count() gives for each how many come before it in
 * that order. By all threads. */
template <typename COUNT>
DEVICE void order_by_keys(int batch, const int *keys, uint16_t *order, int *first, COUNT count)
{
    for (int b = threadIdx.x; b < batch; b += THREADS) {
        int rank = 0, before = 0;
        for (int i = 0; i < batch; i++) {
            bool ahead = keys[i] > keys[b] || (keys[i] == keys[b] && i < b);
            rank += ahead;
            before += ahead ? count(i) : 0;
        }
        order[rank] = (uint16_t)b;
        first[rank] = before;
        if (rank == batch - 1) first[batch] = before + count(b);
    }
}

/* For ragged queries: sequences by falling number of keys, and the first tile of each in that
 * order. Called by all threads before the roles part; scratch: 8 * RAGGED_LIMIT bytes that nobody
 * uses yet. */
DEVICE void ragged_table(const struct attention_args &a, char *shared, char *scratch)
{
    int *first = (int *)(shared + AT_FIRST_TILE), *keys = (int *)scratch,
        *tiles = keys + RAGGED_LIMIT;
    uint16_t *order = (uint16_t *)(shared + AT_ORDER);
    for (int b = threadIdx.x; b < a.batch; b += THREADS) {
        keys[b] = sequence_keys(a, b);
        tiles[b] = (index_at(a.q_start, b + 1) - index_at(a.q_start, b) + ROWS - 1) / ROWS;
    }
    __syncthreads();
    order_by_keys(a.batch, keys, order, first, [=](int i) { return tiles[i]; });
    __syncthreads();
}

DEVICE struct schedule schedule_of(const struct attention_args &a, const char *shared)
{
    struct schedule s;
    s.tiles = a.q_start.data ? ((const int *)(shared + AT_FIRST_TILE))[a.batch]
                             : (a.q_tokens + ROWS - 1) / ROWS;
    s.tiles += opaque_zero();
    s.heads = a.q_start.data ? a.q_heads : a.q_heads * a.batch;
    s.section = section_heads(a, s.heads);
    s.last = last_heads(s);
    s.total = s.tiles * s.heads;
    return s;
}
#endif

/* Key blocks that some row of the tile sees; a tile that sees none gets one block and no keys. */
DEVICE void tile_blocks(const struct attention_args &a, struct tile *t)
{
    int offset = query_offset(a, t), top = t->rows * tile_tokens(a) + offset,
        bottom = min_int((t->rows + 1) * tile_tokens(a), q_tokens(a, t)) - 1 + offset;
    int end = min_int(t->kv_tokens, bottom + a.window_right + 1),
        begin = max_int(0, top - a.window_left);
    if (begin < end) {
        t->key_begin = begin / KEYS;
        t->key_end = (end + KEYS - 1) / KEYS;
    } else {
        t->kv_tokens = 0;
        t->key_begin = 0;
        t->key_end = 1;
    }
}

#if SPLIT_KEYS
#include "sm90_parts.h"
#else
/* The rest of a tile whose rows, head and batch are known. */
DEVICE void tile_complete(const struct attention_args &a, struct tile *t)
{
    t->q_start = a.q_start.data ? index_at(a.q_start, t->batch) : 0;
    t->q_tokens = a.q_start.data ? index_at(a.q_start, t->batch + 1) - t->q_start : a.q_tokens;
    t->kv_tokens = sequence_keys(a, t->batch);
    tile_blocks(a, t);
}

DEVICE void tile_at(const struct attention_args &a, const char *shared, const struct schedule &s,
                    int index, struct tile *t)
{
    int row_tile, head;
    tile_position(s, index, &row_tile, &head);
    if (a.q_start.data) {
        const int *first = (const int *)(shared + AT_FIRST_TILE);
        int low = 0,
            high =
                a.batch; /* first[low] <= row_tile < first[high]; empty sequences are passed over */
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (first[middle] <= row_tile) low = middle;
            else high = middle;
        }
        t->batch = ((const uint16_t *)(shared + AT_ORDER))[low];
        t->head = head;
        t->rows = first[low + 1] - 1 - row_tile;
    } else {
        t->batch = head / a.q_heads;
        t->head = head - t->batch * a.q_heads;
        t->rows = s.tiles - 1 - row_tile;
    }
    tile_complete(a, t);
}
#endif

#else

DEVICE struct schedule schedule_of(const struct attention_args &a, const char *)
{
    struct schedule s;
    s.tiles = (a.q_tokens + ROWS - 1) / ROWS + opaque_zero();
    s.heads = a.q_heads * a.batch;
    s.section = section_heads(a, s.heads);
    s.last = last_heads(s);
    s.total = s.tiles * s.heads;
    return s;
}

/* The rest of a tile whose rows, head and batch are known. */
DEVICE void tile_complete(const struct attention_args &a, struct tile *t)
{
    t->key_end = (a.kv_tokens + KEYS - 1) / KEYS;
    if (CAUSAL) /* the last row sees keys up to rows * ROWS + ROWS - 1 + offset + window_right; one
                   block even if it sees none */
        t->key_end = max_int(1, min_int(t->key_end, (t->rows * ROWS + ROWS + query_offset(a, t) +
                                                     a.window_right + KEYS - 1) /
                                                        KEYS));
}

DEVICE void tile_at(const struct attention_args &a, const char *, const struct schedule &s,
                    int index, struct tile *t)
{
    int row_tile, head;
    tile_position(s, index, &row_tile, &head);
    t->batch = head / a.q_heads;
    t->head = head - t->batch * a.q_heads;
    t->rows = CAUSAL ? s.tiles - 1 - row_tile : row_tile;
    tile_complete(a, t);
}

#endif
#endif
