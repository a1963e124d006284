/* sm90_mend.h: computes noted tiles again, see sm90_repair.h. */
#ifndef RAPT_NVIDIA_SM90_MEND_H
#define RAPT_NVIDIA_SM90_MEND_H

#include "sm90_special.h"
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
/* Whether a block that some row of the tile sees in part has bad values of V. Else nothing can be
 * mended: every row sees the bad key. */
DEVICE bool hides_bad_values(const struct consumer &c, const struct attention_args &a,
                             const struct tensor_maps &maps, const struct tile &whole,
                             uint32_t &phase)
{
#if SPECIALS
    int above = masked_from(c, a, whole), below = masked_below(a, whole);
#pragma unroll 1
    for (int block = whole.key_end - 1; block >= key_begin(&whole); block--) {
        const struct tile t = tile_now(c, whole);
        if (block < above && block >= below) continue;
        fetch_block(a, maps, t, c.base, group_now(c), thread_now(c), {false, false}, block, phase);
        if (group_bits(c, own_octets(c, c.base + AT_V))) return true;
    }
#endif
    return false;
}

/* The whole tile again, see sm90_repair.h: the multiplies of step(), one at a time. */
DEVICE void repair_tile(struct consumer &c, const struct attention_args &a,
                        const struct tensor_maps &maps, const struct tile &whole, uint32_t &phase)
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
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
#if SPECIALS
    clear_found(c);
#endif
#pragma unroll 1
    for (int i = 0;; i++) {
        const struct tile t = tile_now(c, whole);
        if (i >= t.key_end - key_begin(&t)) break;
        int block = nth_block(&t, i);
        bool first = PARTS != 2 && i == 0;
#if CELL_ROWS && PARTS == 2 && D == 128 /* anew: else nvcc 13.0 spills */
        c.above = masked_from(c, a, t);
        c.below = masked_below(a, t);
#endif
        ask_block(c, a, t, block);
        fetch_block(a, maps, t, c.base, group_now(c), thread_now(c), {first, true}, block, phase);
#if SPECIALS
        uint32_t own = own_octets(c, c.base + AT_V), octets = group_bits(c, own);
        if (octets) {
            take_special(c, c.base + AT_V, own, octets);
            note_special(c, a, t, block, 0, octets);
        }
#endif
        float s[KEYS / 2];
        struct product product;
        uint32_t p[WEIGHT_WORDS], held[Q_HELD ? 4 * QK_SLICES : 1];
        hold_q(c, held); /* anew for every block: held only after the first, its registers were
                            given to p as well (nvcc 13.0) */
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
    const struct tile t = tile_now(c, whole);
#if SPECIALS
    add_special(c, a, t, o, r);
#endif
#if SPLIT_KEYS
    store_part(a, t, o, r, row_now(c), lane_now(c));
#else
    store_tile(a, t, o, r, PARTS == 1 ? 1 : c.scale, row_now(c), lane_now(c));
#endif
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
            repair_tile(c, a, maps, t, phase);
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
