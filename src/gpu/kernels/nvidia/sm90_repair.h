/* sm90_repair.h: keeps NaN and Inf in V from rows that do not see them, or give them no weight.
 *
 * A hidden key has weight 0, and 0 * NaN is NaN: one bad value of V reaches every row of a tile
 * through p v. That is found where a tile is stored, by a NaN in its output; the tile is then
 * noted, and when a block has no more tiles it computes the noted ones again, with the same
 * instructions in the same order but with bad values of V replaced by zeros. Rows have the bits of
 * a run without bad data then, and what bad values make of rows that see them is written over those
 * (sm90_special.h); not of rows whose visible scores are all -inf, which are 0 whatever they see.
 *
 * What lies beside a head (sm90_lead.h) is found alike, and such tiles are computed again without it.
 *
 * Rows whose first block had scores of -inf alone found no reference in it. They are told by that,
 * noted and computed again with a maximum for every block (16-bit rows; f32 looks anyway).
 *
 * Notes lie behind the counter word in the workspace, one place for each tile and warpgroup,
 * chained through `next`; the chain's head, 0 for none, is in shared memory. So nothing needs
 * clearing before a launch, and no number of notes is too many. */
#ifndef RAPT_NVIDIA_SM90_REPAIR_H
#define RAPT_NVIDIA_SM90_REPAIR_H

#include "sm90_load.h"
#if IN_PLACE
#include "sm90_in_place.h"
#endif

struct note {
    int rows, head, batch; /* as in struct tile; SPLIT_KEYS: rows is its index */
    uint32_t next;         /* place of the next note; 0: none */
};

/* 16 * place is the offset from attention_args.counters, whose first word is the counter: places
 * start at 1. */
DEVICE volatile struct note *note_at(const struct attention_args &a, uint32_t place)
{
    return (volatile struct note *)a.counters + place;
}

/* Sequence b of a ragged batch starts at q_start / ROWS + b, which leaves each sequence room for
 * its last, partial tile. */
DEVICE uint32_t note_place(const struct attention_args &a, const struct tile &t, int group)
{
#if SPLIT_KEYS
    return 1 + t.index * GROUPS + group;
#elif FEATURES
    if (a.q_start.data) {
        uint32_t per_head = a.q_tokens / ROWS + a.batch + 1,
                 tile = t.q_start / ROWS + t.batch + t.rows;
        return 1 + (t.head * per_head + tile) * GROUPS + group;
    }
#endif
    uint32_t per_head = (a.q_tokens + ROWS - 1) / ROWS;
    return 1 + ((t.batch * a.q_heads + t.head) * per_head + t.rows) * GROUPS + group;
}

/* By one lane of each warp that found a NaN. The turns of the warpgroups keep warps from being a
 * tile apart, so a tile that was noted already is at the head of the chain. */
DEVICE void note_tile(const struct attention_args &a, const struct tile &t, uint32_t base,
                      int group)
{
    uint32_t at = base + AT_NOTES + 4 * group, place = note_place(a, t, group),
             head = shared_load(at);
    volatile struct note *note = note_at(a, place);
    while (head != place) {
#if SPLIT_KEYS
        note->rows = t.index;
#else
        note->rows = t.rows;
#endif
        note->head = t.head;
        note->batch = t.batch;
        note->next = head;
        uint32_t old = shared_compare_and_swap(at, head, place);
        if (old == head) break;
        head = old;
    }
}

/* The tile of a note, complete. */
DEVICE uint32_t read_note(const struct attention_args &a, uint32_t place, struct tile *t)
{
    volatile struct note *note = note_at(a, place);
#if SPLIT_KEYS
    tile_at(a, nullptr, schedule_of(a, nullptr), __reduce_max_sync(~0u, note->rows), t);
#else
    t->rows = __reduce_max_sync(~0u, note->rows);
    t->head = __reduce_max_sync(~0u, note->head);
    t->batch = __reduce_max_sync(~0u, note->batch);
    tile_complete(a, t);
#endif
    return note->next;
}

#if !BY_PANELS
/* What a warpgroup loads for itself here: nothing is overlapped. */
struct fetch {
    bool q, k; /* besides V */
};

/* Into Q slot 0 and stage 0, when all threads of the warpgroup are through with what lies there. */
DEVICE void fetch_block(const struct attention_args &a, const struct tensor_maps &maps,
                        const struct tile &t, uint32_t base, int group, int thread,
                        struct fetch what, int block, uint32_t &phase)
{
    uint32_t full = base + AT_REPAIR_FULL + 8 * group;
#if CONVERTS
    if (thread == 0) write_job(a, key_source_of(a, &t), t, block, job_at(base, JOBS));
#endif
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group, 128);
#if CONVERTS
    if (thread == 0 && what.q) {
        mbarrier_expect(full, Q_BYTES);
        load_q(a, maps, base + AT_Q + group * Q_BYTES, full, &t, group);
    }
    __syncwarp();
    fetch_unit(a, base, thread / 32, thread % 32);
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group, 128);
    if (what.q) mbarrier_wait(full, phase), phase ^= 1;
    return;
#endif
    if (thread == 0) {
        struct key_source from = key_source_of(a, &t);
        int row = from.token + block * KEYS;
        bool q = what.q && PARTS != 2; /* else the warps split it */
        mbarrier_expect(
            full, V_BYTES +
                      (what.k ? K_BYTES + CELL_BYTES + (IN_PLACE ? 0 : KEY_FACTOR_BYTES) : 0) +
                      (q ? Q_BYTES : 0));
        if (q)
            load_q(a, maps, base + AT_Q + group * Q_BYTES, full, &t, group, key_lead(from.apart));
#if PAGES
        bool pages = paged(a);
        if (pages) {
            struct page_job job = {row, from.head, from.batch, t.kv_tokens};
            if (what.k)
                load_pages<QK_PANELS>(a, &maps.k, base + AT_K, full, job,
                                      key_place(a, from.head, from.apart));
            load_pages<V_PANELS>(a, &maps.v, base + AT_V, full, job,
                                 value_place(a, from.head, from.apart));
        }
#else
        bool pages = false;
#endif
#if PARTS == 2 && !IN_PLACE
        if (what.k)
            load_key_factors(a, base + AT_KEY_FACTORS, full, row / KEYS, from.head, from.batch);
#elif KV_AHEAD
        if (what.k)
            bulk_load(base + AT_SCALES, scales_ahead(a, from.batch, from.head, row / KEYS),
                      SLOT_BYTES, full);
#endif
#if CELLS && !LOOSE
        if (what.k) load_cells(a, maps, base + AT_CELLS, full, &t, block);
#endif
        if (what.k && !pages)
            load_keys<QK_PANELS>(&maps.k, base + AT_K, full, row,
                                 key_place(a, from.head, from.apart), from.batch, from.apart);
        if (!pages)
            load_keys<V_PANELS>(&maps.v, base + AT_V, full, row,
                                value_place(a, from.head, from.apart), from.batch, from.apart);
    }
    __syncwarp();
    mbarrier_wait(full, phase);
    phase ^= 1;
#if IN_PLACE
    split_fetched(base, thread, what.k);
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group, 128);
#endif
#if LEADS
    int leads = leads_of(a, t.head / a.group);
    bool exists = thread < t.kv_tokens - block * KEYS;
    if (thread < KEYS) {
        clear_beside(base + AT_K, QK_PANELS, thread, key_lead(leads), a.channels);
        clear_beside(base + AT_V, V_PANELS, thread, value_lead(leads), exists ? a.v_channels : 0);
    }
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group, 128);
#endif
}
#endif

#endif
