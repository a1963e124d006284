/* sm90_mend.h: computes noted tiles again, see sm90_repair.h. */
#ifndef RAPT_NVIDIA_SM90_MEND_H
#define RAPT_NVIDIA_SM90_MEND_H

#include "sm90_consumer.h"
#if BY_PANELS
#include "sm90_panels.h"
#elif SUMS > 1
#include "sm90_sums.h"
#endif

/* A tile, or what the warp keeps of it. */
DEVICE struct tile tile_now(const struct consumer &c, const struct tile &t)
{
#if FEATURES && PARTS == 2
    return kept_tile(c);
#else
    return t;
#endif
}

#if BY_PANELS
#include "sm90_mend_panels.h"
#else
/* Whether a block that some row of the tile sees in part has bad rows of V. Else nothing can be
 * mended: every row sees the bad key. */
DEVICE bool hides_bad_values(const struct consumer &c, const struct attention_args &a,
                             const struct tensor_maps &maps, const struct tile &whole,
                             uint32_t &phase)
{
    int above = masked_from(c, a, whole), below = masked_below(a, whole);
#pragma unroll 1
    for (int block = whole.key_end - 1; block >= key_begin(&whole); block--) {
        const struct tile t = tile_now(c, whole);
        if (block < above && block >= below) continue;
        fetch_block(a, maps, t, c.base, group_now(c), thread_now(c), {false, false}, block, phase);
        if (any_key(clean_values(c.base, group_now(c), thread_now(c)))) return true;
    }
    return false;
}

#if CELLS == 1
/* Whether row `row` of the tile sees one of the keys of the bits from `from` to `to` - 1, by the cells
 * in stage 0. */
DEVICE bool shows_key(const struct consumer &c, const struct key_bits &bits, int from, int to,
                      int row)
{
#if LOOSE
    await_rows();
    uint32_t at = own_cells(c) + (row & 15) * LOOSE_PITCH * 4 + c.shift;
    const int swizzle = 0;
#else
    uint32_t at = c.base + AT_CELLS + row * 128;
    const int swizzle = row & 7;
#endif
    bool shown = false;
#pragma unroll
    for (int i = 0; i < KEY_WORDS; i++) {
#pragma unroll 1
        for (uint32_t left = bits.word[i]; left; left &= left - 1) {
            int key = 32 * i + __ffs((int)left) - 1;
            if (key < from || key >= to) continue;
            shown |= load_byte(at + ((key >> 4 ^ swizzle) << 4) + (key & 15)) != 0;
        }
    }
    return shown;
}
#endif

#if KEYED
/* Leaves the bits of keys that the mask tensor shows. */
DEVICE void see_keys(const struct key_cells &c, struct key_bits &bits)
{
#pragma unroll
    for (int i = 0; i < KEY_WORDS; i++) bits.word[i] &= __ballot_sync(~0u, c.shown[i] != 0);
}
#endif

#if LEADS
/* A row without weights, which has an output of 0 whatever V holds. */
DEVICE bool weightless(float sum)
{
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2) == 0;
}
#endif

/* The whole tile again, see sm90_repair.h: the multiplies of step(), one at a time. clean: without the
 * bad rows of V. Returns whether there are such, and one more time without them changes a row. */
DEVICE bool repair_tile(struct consumer &c, const struct attention_args &a,
                        const struct tensor_maps &maps, const struct tile &whole, uint32_t &phase,
                        bool clean = true)
{
    struct row_state r = {-INFINITY, -INFINITY, 0, 0, 1, 1, false, ~0u};
#if PARTS == 2
    {
        float4 x[ROW_LOADS];
        load_q(c, a, tile_now(c, whole), x);
        split_q(c, a, tile_now(c, whole), x);
    }
#endif
    float o[VALUES / 2];
    bool clean0 = true, clean1 = true, found = false;
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
#pragma unroll 1
    for (int i = 0;; i++) {
        const struct tile t = tile_now(c, whole);
        if (i >= t.key_end - key_begin(&t)) break;
        int block = nth_block(&t, i);
        bool first = PARTS != 2 && i == 0;
        int key = block * KEYS, keys = kv_tokens(a, &t) - key;
        ask_block(c, a, t, block);
        fetch_block(a, maps, t, c.base, group_now(c), thread_now(c), {first, true}, block, phase);
        float s[KEYS / 2];
        struct product product;
        uint32_t p[WEIGHT_WORDS], held[Q_HELD ? 4 * QK_SLICES : 1];
        hold_q(c, held); /* anew for every block: held only after the first, its registers were
                            given to p as well (nvcc 13.0) */
        int end = t.rows * tile_tokens(a) + token_of_row(a, row_now(c)) + query_offset(a, &t) +
                  a.window_right + 1;
        int begin = FEATURES ? end - 1 - a.window_right - a.window_left : -8;
#if KV_I8 && SCALE_BLOCKS == 1
        struct key_bits bad = {}; /* integers are all good, and scales keep to themselves */
#else
        struct key_bits bad = clean_values(c.base, group_now(c), thread_now(c), clean);
#endif
#if LEADS
        found = found || any_key(bad);
#endif
#if KEYED
        see_keys(c.cells, bad);
#endif
#if CELLS == 1
        int row = row_now(c);
        bool bad0 = shows_key(c, bad, begin - key, min_int(end - key, keys), row);
        bool bad1 = shows_key(c, bad, begin + 8 - key, min_int(end + 8 - key, keys), row + 8);
#elif CELL_ROWS
        int row = row_now(c);
        bool bad0 = any_key(bad) && shows_key(a, t, bad.word, KEY_WORDS, block, begin - key,
                                              min_int(end - key, keys), row);
        bool bad1 = any_key(bad) && shows_key(a, t, bad.word, KEY_WORDS, block, begin + 8 - key,
                                              min_int(end + 8 - key, keys), row + 8);
#else
        bool bad0 = any_key_between(bad, begin - key, min_int(end - key, keys));
        bool bad1 = any_key_between(bad, begin + 8 - key, min_int(end + 8 - key, keys));
#endif
#if PARTS == 2 /* registers are few: such a row's factor is NaN from here on */
        if (bad0) c.row0 = __uint_as_float(0x7fffffff);
        if (bad1) c.row1 = __uint_as_float(0x7fffffff);
#else
        clean0 = clean0 && !bad0;
        clean1 = clean1 && !bad1;
#endif
#if SUMS > 1
        struct common f;
        multiply_qk(c, s, f, true);
#else
        begin_qk(c, s, held);
        wgmma_wait<0>();
        registers_fence(s);
#endif
#if SUMS > 1
        weigh_scaled(c, a, t, s, r, block, f);
#elif PARTS == 2
        weigh_scaled(c, a, t, s, r, block, block_common(c));
#else
#if KV_I8
        hold_scales(c);
#endif
        struct weighing w;
        if (first) w = begin_block<true, true, true>(c, a, t, s, r, block);
        else w = begin_block<true, false, true>(c, a, t, s, r, block);
        if (first) end_block<true, true>(c, a, t, block, o, s, r, w, p);
        else end_block<true, false>(c, a, t, block, o, s, r, w, p);
        if (first) add_sums(r, w);
        else if (!keep_weights<false>(r, w)) raise_block<false>(c, a, s, r, w, p);
#endif
        follow_references(c, a, o, r); /* the tile's queries were split anew */
        float factor = 1;
        registers_fence(o);
#if PARTS == 2
        factor = issue_weights(c, s, o, product, p, r, 0);
#else
        registers_fence(p);
        issue_pv(value_operand(c, 0), o, product, p);
#endif
        wgmma_wait<0>();
        add_product(o, product, factor);
    }
#if PARTS == 2
    clean0 = c.row0 == c.row0;
    clean1 = c.row1 == c.row1;
#endif
    const struct tile t = tile_now(c, whole);
#if LEADS
    bool changes = clean0 | clean1 | weightless(r.sum0) | weightless(r.sum1);
    found = found && !clean && group_any(c, changes);
    if (!clean) clean0 = clean1 = true;
#endif
#if SPLIT_KEYS
    store_part(a, t, o, r, row_now(c), lane_now(c), clean0, clean1);
#else
    store_tile(a, t, o, r, PARTS == 1 ? 1 : c.scale, row_now(c), lane_now(c), clean0, clean1);
#endif
    return found;
}

#endif

/* What the warpgroups have noted, one warpgroup after the other: they share a stage. All loads of
 * the producer have arrived and been used by now. */
DEVICE void repair_noted(struct consumer &c, const struct attention_args &a0,
                         const struct tensor_maps &maps)
{
    int heads[4];
    uint32_t phase = 0;
    named_barrier_sync(BARRIER_REPAIR, 128 * GROUPS);
    const struct attention_args &a = a0;
    shared_load4(c.base + AT_NOTES, heads[0], heads[1], heads[2], heads[3]);
    if (!(heads[0] | heads[1] | heads[2] | heads[3])) return;
    c.stage = c.tiles = 0;
#if PARTS == 2
    c.factors = c.phase = 0;
#endif
#if KV_I8
    c.phase = 0;
#endif
#pragma unroll 1
    for (int turn = group_now(c); turn > 0; turn--)
        named_barrier_sync(BARRIER_REPAIR, 128 * GROUPS);
    uint32_t place = __reduce_max_sync(~0u, shared_load(c.base + AT_NOTES + 4 * group_now(c)));
#pragma unroll 1
    while (place) {
        struct tile t;
#if FEATURES && (PARTS == 2 || BY_PANELS)
        const struct attention_args *args = &a0;
        asm volatile("" : "+l"(args));
        const struct attention_args &a = *args;
#endif
        place = read_note(a, place, &t);
#if FEATURES && PARTS == 2
        begin_tile(c, a, t);
#elif FEATURES
        c.slope = tile_slope(a, t);
#endif
        if (PARTS == 1 || CELL_ROWS || hides_bad_values(c, a, maps, t, phase))
#if LEADS
#pragma unroll 1
            for (int turn = 0; turn < 2; turn++)
                if (!repair_tile(c, a, maps, t, phase, turn)) break;
#else
            repair_tile(c, a, maps, t, phase);
#endif
#if FEATURES && PARTS == 2
        place = note_at(a, note_place(a, kept_tile(c), group_now(c)))->next;
        place = __reduce_max_sync(~0u, place);
#endif
    }
    async_proxy_fence();
#pragma unroll 1
    for (int turn = group_now(c); turn < GROUPS; turn++)
        named_barrier_sync(BARRIER_REPAIR, 128 * GROUPS);
}

#endif
