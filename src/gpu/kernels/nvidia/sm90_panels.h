/* sm90_panels.h: the order of a consumer's work on f32 rows of up to 256 channels (BY_PANELS). K and V
 * come one panel at a time, 64 channels of a block of keys, all parts: those of K, then those of V.
 * Panels without channels do not come. Per block:
 *
 *     S = sum over K's panels of q K^T     each product from zero, added when it is done
 *     softmax of S, P = weights in parts
 *     O += P V                             panel by panel, likewise
 *
 * A warpgroup overlaps nothing itself: O takes 128 registers of a thread, so that S, or P, and one
 * product of 64 channels are all that fits beside it. The other warpgroup's multiplies run under its
 * additions and its softmax. One sum for each 64 channels of a score cuts less: decision 7. */
#ifndef RAPT_NVIDIA_SM90_PANELS_H
#define RAPT_NVIDIA_SM90_PANELS_H

#include "sm90_consumer.h"

/* Panels as they come through the ring. */
struct ring_panels {
    DEVICE uint32_t take(struct consumer &c)
    {
        next_stage(c);
        mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, phase_now(c));
        return c.stage;
    }
    DEVICE void give(const struct consumer &c)
    {
        release_stage(c, AT_K_EMPTY + 8 * c.stage);
    }
    DEVICE uint32_t take_key(struct consumer &c, int)
    {
        return take(c);
    }
    /* keeps: V's panels will be asked for again, from the first on. */
    DEVICE uint32_t take_value(struct consumer &c, int i, bool keeps)
    {
        uint32_t stage;
        if (keeps) {
            stage = c.stage + 1 + i;
            bool wraps = stage >= STAGES;
            if (wraps) stage -= STAGES;
            mbarrier_wait(c.base + AT_K_FULL + 8 * stage, phase_now(c) ^ wraps);
        } else {
            stage = take(c);
        }
#if PARTS == 3
        if (c.tail < KEYS) clear_tail(c, stage);
#endif
        return stage;
    }
};

/* S = q K^T. */
template <typename PANELS>
DEVICE void multiply_keys(struct consumer &c, const struct attention_args &a, PANELS &panels,
                          float (&s)[KEYS / 2])
{
    float sum[KEYS / 2];
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = 0;
#pragma unroll 1
    for (int panel = 0; panel < panels_of(a.channels); panel++) {
        uint32_t stage = panels.take_key(c, panel);
        uint64_t k_desc = matrix_descriptor(c.base + AT_K + stage * K_BYTES, 16);
        uint64_t q_desc =
            matrix_descriptor(c.base + AT_Q + group_now(c) * Q_BYTES + panel * 64 * 128, 16);
        registers_fence(sum);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
#pragma unroll
            for (int k = 0; k < 4; k++)
                wgmma_ss(sum, q_desc + slice_offset(k, 64) + pair_left(i) * Q_PART / 16,
                         k_desc + slice_offset(k, KEYS) + pair_right(i) * K_PART / 16,
                         i > 0 || k > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        registers_fence(sum);
        panels.give(c);
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = __fadd_rn(s[i], sum[i]);
    }
}

/* O += P V * factor. */
template <typename PANELS>
DEVICE void multiply_values(struct consumer &c, const struct attention_args &a, PANELS &panels,
                            float (&o)[VALUES / 2], uint32_t (&p)[PARTS * KEYS / 4], float factor,
                            bool keeps)
{
    int count = panels_of(a.v_channels);
#pragma unroll
    for (int panel = 0; panel < V_PANELS; panel++) {
        if (panel >= count) break;
        float sum[32];
        uint32_t stage = panels.take_value(c, panel, keeps);
        uint64_t v_desc = matrix_descriptor(c.base + AT_K + stage * K_BYTES, KEYS * 128);
        registers_fence(sum);
        registers_fence(p);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
#pragma unroll
            for (int k = 0; k < KEYS / 16; k++)
                wgmma_rs_v(sum, p + pair_left(i) * KEYS / 4 + 4 * k,
                           v_desc + row_slice_offset(k) + pair_right(i) * V_PART / 16,
                           i > 0 || k > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        registers_fence(sum);
        if (!keeps) panels.give(c);
#pragma unroll
        for (int i = 0; i < 32; i++)
            o[32 * panel + i] = __fmaf_rn(sum[i], factor, o[32 * panel + i]);
    }
}

/* Weights to parts, and their P V; small ones by products of their own, as issue_weights() has it. */
template <typename PANELS>
DEVICE void multiply_weights(struct consumer &c, const struct attention_args &a, PANELS &panels,
                             float (&s)[KEYS / 2], float (&o)[VALUES / 2], struct row_state &r)
{
    uint32_t p[PARTS * KEYS / 4];
    float factor = 1;
#if PARTS == 2
#pragma unroll 1
    while (group_any(c, has_small(r))) {
        volatile float left[KEYS / 2];
        volatile uint32_t least;
        pack_large(s, p, r);
        least = r.least;
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) left[i] = s[i];
        multiply_values(c, a, panels, o, p, factor, true);
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = left[i];
        r.least = least;
        factor *= 1 / RANGE;
    }
#endif
    pack_weights(s, p);
    multiply_values(c, a, panels, o, p, factor, false);
}

/* One block, from K to O. */
template <typename PANELS>
DEVICE void panel_step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                       PANELS &panels, int block, float (&o)[VALUES / 2], struct row_state &r)
{
    float s[KEYS / 2];
    multiply_keys(c, a, panels, s);
#if PARTS == 2
    int last, none;
    shared_load4(own_tile(c) + RECORD_BYTES, c.above, c.below, last, none);
    shared_load2(own_factors(c), c.row0, c.row1);
    weigh_scaled(c, a, t, s, r, block, block_common(c));
#else
    weigh_block<true, false>(c, a, t, s, r, block);
#endif
    follow_references(c, a, o, r);
    multiply_weights(c, a, panels, s, o, r);
}

/* The tile, or what the warp keeps of it. */
DEVICE struct tile tile_of(const struct consumer &c, const struct tile &t)
{
#if PARTS == 2
    return kept_tile(c);
#else
    return t;
#endif
}

/* Blocks at the upper end of the tile that none of the warpgroup's rows sees; one is left. */
DEVICE int unseen_above(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t)
{
    int end = t.rows * ROWS + 64 * group_now(c) + 64 + query_offset(a, &t) + a.window_right;
    return t.key_end -
           max_int(t.key_begin + 1, min_int(t.key_end, max_int(0, end + KEYS - 1) / KEYS));
}

/* The first block that is worked on. */
DEVICE int pass_unseen(struct consumer &c, const struct attention_args &a, const struct tile &t)
{
    int passed = unseen_above(c, a, t);
    pass_blocks(c, a, passed);
    return t.key_end - 1 - passed;
}

/* The last one. */
DEVICE int last_block(const struct consumer &c, const struct tile &t)
{
#if PARTS == 2
    return (int)shared_load(own_tile(c) + RECORD_BYTES + 8);
#else
    return t.key_begin;
#endif
}

/* All tiles of the block. */
DEVICE void work(struct consumer &c, const struct attention_args &a)
{
    struct tile t;
    struct ring_panels panels;
    receive_tile(c, a, t);
    pass_tiles(c, a, t);
    while (t.rows >= 0) {
        struct row_state r = {-INFINITY, -INFINITY, 0, 0, 1, 1, false, ~0u};
        float o[VALUES / 2];
        begin_tile(c, a, t);
#if PARTS == 2
        release_q(c); /* of the record alone */
        split_q(c, a, tile_of(c, t));
#else
        c.slope = tile_slope(a, t);
        c.tail = existing_rows(t);
        named_barrier_sync(BARRIER_GROUP + group_now(c), 128); /* no warp is a tile behind */
#endif
#pragma unroll
        for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
        int block = pass_unseen(c, a, tile_of(c, t));
#pragma unroll 1
        for (; block >= last_block(c, t); block--) {
#if PARTS == 2
            if (block == last_block(c, t)) prefetch_q(c, a);
#else
            if (block < t.key_end - 1) c.tail = KEYS;
#endif
            panel_step(c, a, t, panels, block, o, r);
            next_factors(c);
        }
#if PARTS == 3
        release_q(c);
#endif
        next_slot(c);
        finish_tile(c, a, tile_of(c, t), o, r);
        receive_tile(c, a, t);
        pass_tiles(c, a, t);
    }
}

#endif
