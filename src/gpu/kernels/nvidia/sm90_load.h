/* sm90_load.h: the producer: one thread that walks the tiles of its block and keeps Q, K and V
 * coming.
 *
 * Per tile: the tile's record and Q into the next Q slot, then K of each key block in turn, with V
 * of the one before. V is one block behind K because the consumers' q k^T is one block ahead of
 * their p v; that also makes one stage number serve both. With SUMS 2 nothing is ahead: K[n],
 * V[n]. Paged K and V are loaded by warps beside it (sm90_pages.h). */
#ifndef RAPT_NVIDIA_SM90_LOAD_H
#define RAPT_NVIDIA_SM90_LOAD_H

#include "sm90_cells.h"
#include "sm90_lead.h"
#include "sm90_scale.h"
#include "sm90_schedule.h"
#include "sm90_trace.h"
#if PARTS == 2
#include "sm90_scaled.h"
#endif

/* Parts of a tile that are asked for without a loop; 1 where registers are few. */
constexpr int LOADS_AT_ONCE = FEATURES && PARTS == 3 ? 1 : PARTS;

/* One box of `rows` rows and PANELS panels of 64 columns, to `to`; its other parts behind it.
 * apart: from one part to the next on the batch axis. first: channel of the first column. */
template <int PANELS>
DEVICE void load_tile(const struct tensor_map *map, uint32_t to, uint32_t full, int rows, int row,
                      int head, int batch, int apart, int first, uint64_t policy)
{
#if IN_PLACE
    tma_load_5d(to, map, full, 0, row, 0, head, batch, policy);
#elif PANEL_MAPS
#pragma unroll
    for (int p = 0; p < PANELS; p++)
        tma_load_4d(to + p * rows * 128, map, full, first + 64 * p, row, head, batch, policy);
#elif BY_PANELS
#pragma unroll 1
    for (int i = 0; i < PARTS; i++)
#pragma unroll 1
        for (int p = 0; p < PANELS; p++)
            tma_load_4d(to + (i * PANELS + p) * rows * 128, map, full, 64 * p, row, head,
                        batch + i * apart, policy);
#else
#pragma unroll(LOADS_AT_ONCE)
    for (int i = 0; i < PARTS; i++)
        tma_load_5d(to + i * PANELS * rows * 128, map, full, 0, row, 0, head, batch + i * apart,
                    policy);
#endif
}

/* A block of K or V. */
template <int PANELS>
DEVICE void load_keys(const struct tensor_map *map, uint32_t to, uint32_t full, int row,
                      struct head_place at, int batch, int apart)
{
    load_tile<PANELS>(map, to, full, KEYS, row, at.head, batch, apart, at.first, L2_EVICT_LAST);
}

/* Q of the g-th warpgroup; lead: K's. */
DEVICE void load_q(const struct attention_args &a, const struct tensor_maps &maps, uint32_t to,
                   uint32_t full, const struct tile *t, int g, int lead = 0)
{
#if SPLIT_KEYS
#pragma unroll
    for (int i = 0; i < 4; i++) { /* for each warp */
        int row = 64 * g + 16 * i;
        load_tile<QK_PANELS>(&maps.q, to + i * Q_BYTES / 4, full, 16,
                             t->rows * a.tile_tokens + token_of_row(a, row),
                             t->head + row / a.tile_tokens, t->batch, a.batch, 0, L2_EVICT_FIRST);
    }
    return;
#endif
#if FEATURES && !SPLIT_KEYS
    int token = t->q_start + t->rows * ROWS + 64 * g, batch = a.q_start.data ? 0 : t->batch;
#else
    int token = t->rows * ROWS + 64 * g, batch = t->batch;
#endif
    load_tile<QK_PANELS>(&maps.q, to, full, 64, token, t->head, batch, q_batches(a), -lead,
                         L2_EVICT_FIRST);
}

#if PARTS == 2
/* Of a block of keys, counted from the first of K's parts. */
DEVICE void load_key_factors(const struct attention_args &a, uint32_t to, uint32_t full, int block,
                             int head, int batch)
{
    int64_t keys = factor_rows(a);
    bulk_load(to, a.key_factors + ((batch * a.kv_heads + head) * keys + block * KEYS) * 4,
              KEY_FACTOR_BYTES, full);
}

/* Whether all keys of the launch are split. base: of shared memory. */
DEVICE bool all_split(const struct attention_args &a, uint32_t base)
{
    bool all = load_acquire(split_done(a)) >= split_tasks(a, base + AT_KEY_TABLE) * SHARES;
    if (all) async_proxy_fence_global();
    return all;
}

/* Until a block of keys is split, perhaps by another block of threads: both K and V, whose factors
 * come together. */
DEVICE void wait_split(const struct attention_args &a, int batch, int head, int block)
{
    const int32_t *k = ready_word(a, false, batch, head, block),
                  *v = ready_word(a, true, batch, head, block);
    while (load_acquire(k) < BLOCK_SPLIT || load_acquire(v) < BLOCK_SPLIT) {}
    async_proxy_fence_global();
}

#endif

#if KV_AHEAD
/* The scales of a block of keys as they lie in shared memory, in the workspace. */
DEVICE float *scales_ahead(const struct attention_args &a, int batch, int head, int block)
{
    int at = (batch * a.kv_heads + head) * a.wide_keys + block;
    return a.key_factors + (int64_t)at * (SLOT_BYTES / 4);
}
#endif

#if PAGES || KV_AHEAD
#include "sm90_pages.h"
#endif

/* Whether this launch leaves the tile as two parts have done it. */
DEVICE bool leaves(const struct attention_args &a, const struct tile &t)
{
    return PARTS == 3 && a.wide && a.wide[t.batch * a.kv_heads + t.head / a.group] == 0;
}

/* Record and Q of a tile into a slot; rows -1: the record alone, which ends the consumers. */
DEVICE void produce_q(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                      const struct tile *t, uint32_t slot, uint32_t phase, int lead)
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        uint32_t i = slot * GROUPS + g, full = base + AT_Q_FULL + 8 * i;
        mbarrier_wait(base + AT_Q_EMPTY + 8 * i, phase);
        stamp_load(a, base, TRACE_Q, t->rows);
        tile_write(base + AT_RECORD + RECORD_BYTES * i, t);
        if (PARTS == 2 || t->rows < 0) {
            mbarrier_arrive(full);
            continue;
        }
        mbarrier_expect(full, Q_BYTES);
        load_q(a, maps, base + AT_Q + i * Q_BYTES, full, t, g, lead);
    }
}

/* Where the blocks of a tile lie in K and V. */
struct key_source {
    int token, head, batch; /* token: of key block 0, with parts in these */
    int apart;              /* from one part of f32 to the next, on the batch axis; LEADS: leads */
};

DEVICE struct key_source key_source_of(const struct attention_args &a, const struct tile *t)
{
    struct key_source s = {0, t->head / a.group, t->batch, a.batch};
#if LEADS
    s.apart = leads_of(a, s.head);
#endif
#if FEATURES
    if (a.kv_start.data) {
#if PARTS > 1 || KV_AHEAD
        s.token = first_key_block(a, t->batch) * PREPARED_KEYS;
        s.apart = 1;
#else
        s.token = index_at(a.kv_start, t->batch);
#endif
        s.batch = 0;
    }
#endif
    return s;
}

/* Computed anew where registers are few. */
DEVICE int parts_apart(const struct attention_args &a, const struct key_source &s)
{
    return FEATURES && PARTS > 1 ? kv_batches(a) : s.apart;
}

/* The stage that K comes to next, and its parity. */
struct ring {
    uint32_t stage, phase;
#if PARTS == 2
    uint32_t factors; /* slot of the keys' factors */
    bool split;       /* all keys are */
#endif
};

#if IN_PLACE
/* The block of keys that a stage's K or V is of; sequence -1: none, behind the last tile. */
DEVICE uint32_t stage_record(uint32_t base, uint32_t stage, bool of_value)
{
    return base + AT_STAGE_RECORD + 16 * (2 * stage + of_value);
}
#endif

DEVICE void produce_k(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                      const struct ring &r, const struct key_source &from, int block)
{
    uint32_t full = base + AT_K_FULL + 8 * r.stage;
#if PARTS == 2 && !IN_PLACE
    if (!r.split) wait_split(a, from.batch, from.head, from.token / KEYS + block);
#endif
    mbarrier_wait(base + AT_K_EMPTY + 8 * r.stage, r.phase);
    stamp_load(a, base, TRACE_K, block);
#if IN_PLACE
    shared_store4(stage_record(base, r.stage, false), from.batch, from.head, block, 0);
#endif
    mbarrier_expect(full, K_BYTES + (IN_PLACE ? 0 : KEY_FACTOR_BYTES));
#if IN_PLACE
#elif PARTS == 2
    load_key_factors(a, base + AT_KEY_FACTORS + r.factors * KEY_FACTOR_BYTES, full,
                     from.token / KEYS + block, from.head, from.batch);
#elif KV_AHEAD
    bulk_load(base + AT_SCALES + ((r.phase ^ 1) * STAGES + r.stage) * SLOT_BYTES,
              scales_ahead(a, from.batch, from.head, from.token / KEYS + block), SLOT_BYTES, full);
#endif
    load_keys<QK_PANELS>(&maps.k, base + AT_K + r.stage * K_BYTES, full, from.token + block * KEYS,
                         key_place(a, from.head, from.apart), from.batch, parts_apart(a, from));
}

/* Into the stage before. */
DEVICE void produce_v(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                      const struct ring &r, const struct key_source &from, int block)
{
    uint32_t stage = (r.stage == 0 ? STAGES : r.stage) - 1,
             phase = r.stage == 0 ? r.phase ^ 1 : r.phase;
    uint32_t full = base + AT_V_FULL + 8 * stage;
    mbarrier_wait(base + AT_V_EMPTY + 8 * stage, phase);
    stamp_load(a, base, TRACE_V, block);
#if IN_PLACE
    shared_store4(stage_record(base, stage, true), from.batch, from.head, block, 0);
#endif
    mbarrier_expect(full, V_BYTES);
    load_keys<V_PANELS>(&maps.v, base + AT_V + stage * V_BYTES, full, from.token + block * KEYS,
                        value_place(a, from.head, from.apart), from.batch, parts_apart(a, from));
}

#if IN_PLACE
/* Behind the last block, which ends the warps that split: each has a share of K in every block. */
DEVICE void produce_nothing(uint32_t base, const struct ring &r)
{
    mbarrier_wait(base + AT_K_EMPTY + 8 * r.stage, r.phase);
    shared_store4(stage_record(base, r.stage, false), -1, 0, 0, 0);
    mbarrier_arrive(base + AT_K_FULL + 8 * r.stage);
}
#endif

DEVICE void advance(struct ring &r)
{
    if (++r.stage == STAGES) r.stage = 0, r.phase ^= 1;
#if PARTS == 2
    if (++r.factors == FACTOR_SLOTS) r.factors = 0;
#endif
}

/* Whether a tile's slot is written before its first K: another one is free, or the slot holds the
 * record alone, with which consumers that read Q themselves can begin. */
constexpr bool SLOT_FIRST = Q_SLOTS > 1 || PARTS == 2 || BY_PANELS;

#if CONVERTS
#include "sm90_keys_i8.h"
#endif

/* Whether the consumers' q k^T is a block ahead of their p v. */
constexpr bool V_BEHIND = SUMS == 1 && !BY_PANELS;

/* The V block that a tile leaves to the next one's first step waits in shared memory: registers are
 * few here. */
DEVICE void produce_v_behind(const struct attention_args &a, const struct tensor_maps &maps,
                             uint32_t base, const struct ring &r)
{
    struct key_source from;
    shared_load4(base + AT_BEHIND, from.token, from.head, from.batch, from.apart);
    produce_v(a, maps, base, r, from, 0);
}

#if BY_PANELS
/* Panels of 64 channels that so many channels lie in. */
DEVICE int panels_of(int channels)
{
    return (channels + 63) / 64;
}

/* A panel of a block of K or V, all parts, when its slot at `to` is free; more: bytes that come with
 * it. */
DEVICE void load_panel(const struct tensor_map *map, uint32_t to, uint32_t full, int panel, int row,
                       const struct key_source &from, int apart, uint32_t more)
{
    mbarrier_expect(full, K_BYTES + more);
#pragma unroll
    for (int i = 0; i < PARTS; i++)
        tma_load_4d(to + i * K_PART, map, full, 64 * panel, row, from.head, from.batch + i * apart,
                    L2_EVICT_LAST);
}

/* All panels of a block: those of K, then those of V. */
DEVICE void produce_panels(const struct attention_args &a, const struct tensor_maps &maps,
                           uint32_t base, struct ring &r, const struct key_source &from, int block)
{
    int of_keys = panels_of(a.channels), all = of_keys + panels_of(a.v_channels),
        row = from.token + block * KEYS;
#if PARTS == 2
    if (!r.split) wait_split(a, from.batch, from.head, row / PART_KEYS);
#endif
#pragma unroll 1
    for (int i = 0; i < all; i++) {
        uint32_t full = base + AT_K_FULL + 8 * r.stage;
        bool values = i >= of_keys;
        mbarrier_wait(base + AT_K_EMPTY + 8 * r.stage, r.phase);
        load_panel(values ? &maps.v : &maps.k, base + AT_K + r.stage * K_BYTES, full,
                   values ? i - of_keys : i, row, from, parts_apart(a, from),
                   i == 0 ? KEY_FACTOR_BYTES : 0);
#if PARTS == 2
        if (i == 0)
            load_key_factors(a, base + AT_KEY_FACTORS + r.factors * KEY_FACTOR_BYTES, full,
                             row / KEYS, from.head, from.batch);
#endif
        if (++r.stage == STAGES) r.stage = 0, r.phase ^= 1;
    }
#if PARTS == 2
    r.factors ^= 1;
#endif
}
#endif

/* Block i of a tile, with V of the one before. nothing: there is none. */
template <bool PAGED>
DEVICE void produce_block(const struct attention_args &a, const struct tensor_maps &maps,
                          uint32_t base, struct ring &r, const struct key_source &from,
                          const struct tile *t, int i, bool nothing)
{
    int block = nth_block(t, i);
#if CONVERTS
    post_keys(a, base, from, *t, block, r);
    return;
#elif PAGES
    if (PAGED) {
        post_job(base, {block * KEYS, t->head, t->batch, t->kv_tokens}, r.phase);
        return;
    }
#endif
#if BY_PANELS
    produce_panels(a, maps, base, r, from, block);
    return;
#endif
    produce_k(a, maps, base, r, from, block);
#if CELLS && !LOOSE
    produce_cells(a, maps, base, r.stage, r.phase, t, block);
#endif
    if (V_BEHIND && i == 0 && !nothing) produce_v_behind(a, maps, base, r);
    if (V_BEHIND && i > 0) produce_v(a, maps, base, r, from, nth_block(t, i - 1));
    advance(r);
}

/* TAKEN_LATE: the producer takes the number of its next tile when TAKEN_AHEAD blocks of keys are
 * still to be loaded, so that it is there in time. Earlier, a block that is ahead of others keeps a
 * tile waiting that one of them could begin. Rows that share keys take it behind a tile's last load, the
 * others with their second tile's first block: there the compiler would undo the overlap (tools/sass). */
constexpr bool TAKEN_LATE = PARTS <= 2 && !SPLIT_KEYS && (THREADS < 512 || IN_PLACE);
constexpr int TAKEN_AHEAD = 2;

/* Read where it is needed: registers are few. */
DEVICE int grid_blocks(void)
{
#if FEATURES && PARTS == 3
    int blocks;
    asm volatile("mov.u32 %0, %%nctaid.x;" : "=r"(blocks));
    return blocks;
#else
    return gridDim.x;
#endif
}

/* PAGED: K and V are; their blocks are left to the pagers. */
template <bool PAGED>
DEVICE void produce(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                    const char *shared)
{
    struct ring keys = {0, 1};
    uint32_t slot = 0, slot_phase = 1;
    bool first = true, claimed = false;
    int index = blockIdx.x;

#pragma unroll 1
    for (;;) {
        struct schedule s = schedule_of(a, shared);
        if (index >= s.total) break;
        struct tile t;
        int next = index + grid_blocks();
        tile_at(a, shared, s, index, &t);
        if (PARTS == 3 && leaves(a, t)) {
            if (s.total > grid_blocks() && !claimed) counter_claim(a);
            if (s.total > grid_blocks()) next = grid_blocks() + counter_take(a);
            claimed = true;
            index = next;
            continue;
        }
        struct key_source from = key_source_of(a, &t);
#if PARTS == 2 && !IN_PLACE
        keys.split = keys.split || all_split(a, base);
#endif
        int blocks = t.key_end - key_begin(&t);
        bool taken = claimed && !SPLIT_KEYS && (!TAKEN_LATE || blocks <= TAKEN_AHEAD);
        if (taken && s.total > grid_blocks()) next = grid_blocks() + counter_take(a);
        if (SLOT_FIRST) produce_q(a, maps, base, &t, slot, slot_phase, key_lead(from.apart));
        produce_block<PAGED>(a, maps, base, keys, from, &t, 0, first);
        if (!SLOT_FIRST) produce_q(a, maps, base, &t, slot, slot_phase, key_lead(from.apart));
        if (!V_BEHIND && !BY_PANELS) produce_v(a, maps, base, keys, from, nth_block(&t, 0));
        if (++slot == Q_SLOTS) slot = 0, slot_phase ^= 1;
#pragma unroll 1
        for (int i = 1; i < blocks; i++) {
            if (TAKEN_LATE && claimed && i == blocks - TAKEN_AHEAD) {
                if (schedule_of(a, shared).total > grid_blocks())
                    next = grid_blocks() + counter_take(a);
                taken = true;
            }
            /* from here on it waits for slots in any case */
            if (TAKEN_LATE && !claimed && i == STAGES) {
                if (schedule_of(a, shared).total > grid_blocks()) counter_claim(a);
                claimed = true;
            }
            produce_block<PAGED>(a, maps, base, keys, from, &t, i, false);
            if (!V_BEHIND && !BY_PANELS) produce_v(a, maps, base, keys, from, nth_block(&t, i));
        }
        if (V_BEHIND && !PAGED)
            shared_store4(base + AT_BEHIND, from.token + nth_block(&t, blocks - 1) * KEYS,
                          from.head, from.batch, from.apart);
        /* a short first tile: behind its loads, for these are up to three round trips to L2 */
        if (!taken && schedule_of(a, shared).total > grid_blocks()) {
            if (!claimed) counter_claim(a);
            next = grid_blocks() + counter_take(a);
        }
        first = false;
        claimed = true;
        index = next;
    }
    int total = schedule_of(a, shared).total;
    if (total > grid_blocks() && index == grid_blocks() + total - 1)
        counter_reset(a); /* the last number: nobody takes another */
#if CONVERTS
    post_end(base, keys);
#elif PAGES
    if (PAGED) post_job(base, {-1}, keys.phase);
#endif
    if (V_BEHIND && !PAGED && !first) produce_v_behind(a, maps, base, keys);
#if IN_PLACE
    produce_nothing(base, keys);
#endif
    struct tile end = {-1};
    produce_q(a, maps, base, &end, slot, slot_phase, 0);
}

/* What the threads of the first warpgroup do: the producer, and beside it the pagers. */
DEVICE void load(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                 const char *shared)
{
#if CONVERTS
    if (threadIdx.x >= 32) convert_blocks(a, base, threadIdx.x / 32 - 1);
    else if (elect_lane()) produce<true>(a, maps, base, shared);
    return;
#elif PAGES
    if (paged(a)) {
        if (threadIdx.x < 32) {
            if (elect_lane()) produce<true>(a, maps, base, shared);
        } else if (threadIdx.x < 64) {
            load_paged<QK_PANELS>(a, &maps.k, base, base + AT_K, base + AT_K_FULL,
                                  base + AT_K_EMPTY, false);
        } else if (threadIdx.x < 96) {
            load_paged<V_PANELS>(a, &maps.v, base, base + AT_V, base + AT_V_FULL, base + AT_V_EMPTY,
                                 true);
        }
        return;
    }
#endif
    if (threadIdx.x < 32 && elect_lane()) produce<false>(a, maps, base, shared);
}

#endif
