/* sm90_steps.h: the order of a consumer's work that overlaps softmax and p v inside a warpgroup;
 * the head of forward_sm90.cu describes it. */
#ifndef RAPT_NVIDIA_SM90_STEPS_H
#define RAPT_NVIDIA_SM90_STEPS_H

#include "sm90_consumer.h"

/* Of the tile's blocks that the warpgroup sees, which it works on in this order; none of the others
 * comes between. */
DEVICE int first_block(const struct consumer &c, const struct attention_args &a,
                       const struct tile &t)
{
    return nth_block(&t, ASCENDING ? 0 : unseen_blocks(c, a, t));
}

DEVICE int last_block(const struct consumer &c, const struct attention_args &a,
                      const struct tile &t)
{
    return ASCENDING ? t.key_end - 1 - unseen_blocks(c, a, t) : key_begin(&t);
}

/* Blocks between the last one of a tile and the first one of the next that the warpgroup passes
 * over. */
DEVICE int blocks_between(const struct consumer &c, const struct attention_args &a,
                          const struct tile &done, const struct tile &next)
{
    return unseen_blocks(c, a, ASCENDING ? done : next);
}

/* One step, see above. FIRST: block opens tile t, so O belongs to the tile `done` before and is
 * finished; V of the blocks between is given back. last: of the tile's blocks. */
template <bool MASKED, bool FIRST>
DEVICE void step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                 const struct tile &done, int block, int last, float (&o)[VALUES / 2],
                 uint32_t (&p)[PARTS * KEYS / 4], uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1],
                 struct row_state &r)
{
    float s[KEYS / 2];
    struct product product;
    struct row_state finished = r;
    const struct place v = place_before(c, FIRST ? blocks_between(c, a, done, t) : 0);
    next_stage(c);
#if FEATURES
    if (c.tail < KEYS) {
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
        clear_tail(c, v.stage);
    }
    c.tail = FIRST ? existing_rows(t) : KEYS;
#endif
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
    take_turn(c);
    registers_fence(o);
    registers_fence(p);
    issue_qk(c, s, held);
    mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
    issue_pv(c, o, product, p, v.stage);
    end_turn(c);
    wgmma_wait<EARLY == 0 ? 0 : 1>();
    registers_fence(s);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (!Q_HELD && block == last) release_q(c);
    struct weighing w;
    if (EARLY > 0) w = begin_block<MASKED, FIRST, false>(c, a, t, s, r, block);
    registers_fence(s);
    if (PARTS > 1 && !(r.sum0 + r.sum1 < 1e38f))
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase); /* never; see forward_sm90.cu */
    if (EARLY > 0 && (ASCENDING ? block < last : block > last)) {
        uint32_t next = c.stage + 1 == STAGES ? 0 : c.stage + 1,
                 parity = c.stage + 1 == STAGES ? c.phase ^ 1 : c.phase;
        mbarrier_wait(c.base + AT_K_FULL + 8 * next, parity);
    }
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * v.stage);
    if (FIRST) pass_values(c, blocks_between(c, a, done, t), 1);
    if (EARLY == 0) w = begin_block<MASKED, FIRST, false>(c, a, t, s, r, block);
    end_block<MASKED, FIRST>(c, a, o, s, r, w, p);
    if (FIRST) {
        finish_tile(c, a, done, o, finished);
#pragma unroll
        for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
    } else if (r.rescale) {
        rescale(o, r);
    }
}

/* The first block of a tile when there is nothing to overlap it with. */
DEVICE void open_tile(struct consumer &c, const struct attention_args &a, const struct tile &t,
                      float (&o)[VALUES / 2], uint32_t (&p)[PARTS * KEYS / 4],
                      uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], struct row_state &r)
{
    float s[KEYS / 2];
    hold_q(c, held);
#if FEATURES
    c.tail = existing_rows(t);
    c.slope = tile_slope(a, t);
#endif
    int passed = ASCENDING ? 0 : unseen_blocks(c, a, t), block = first_block(c, a, t);
    pass_keys(c, passed);
    pass_values(c, passed, 0);
    next_stage(c);
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
    take_turn(c);
    issue_qk(c, s, held);
    end_turn(c);
    wgmma_wait<0>();
    registers_fence(s);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (!Q_HELD && block == last_block(c, a, t)) release_q(c);
    struct weighing w = begin_block<true, true, false>(c, a, t, s, r, block);
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
    end_block<true, true>(c, a, o, s, r, w, p);
}

/* All blocks of a tile but its first. */
DEVICE void all_steps(struct consumer &c, const struct attention_args &a, const struct tile &t,
                      float (&o)[VALUES / 2], uint32_t (&p)[PARTS * KEYS / 4],
                      uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], struct row_state &r)
{
#if FEATURES
    int block = t.key_end - 2;
    int above = masked_from(c, a, t); /* blocks at and above it are masked on the right, those
                                         below `below` on the left */
    int below = masked_below(a, t);
    while (block >= t.key_begin) {
#pragma unroll 1
        for (; block >= t.key_begin && (block >= above || block < below); block--)
            step<true, false>(c, a, t, t, block, t.key_begin, o, p, held, r);
#pragma unroll 1
        for (; block >= max_int(t.key_begin, below) && block < above; block--)
            step<false, false>(c, a, t, t, block, t.key_begin, o, p, held, r);
    }
#elif ASCENDING
    int block = 1, last = last_block(c, a, t), masked = masked_from(c, a, t);
#if !MERGED
#pragma unroll 1
    for (; block < masked; block++) step<false, false>(c, a, t, t, block, last, o, p, held, r);
#endif
#pragma unroll 1
    for (; block <= last; block++) step<true, false>(c, a, t, t, block, last, o, p, held, r);
#else
    int block = first_block(c, a, t) - 1;
    if (CAUSAL) {
        int masked = masked_from(c, a, t);
#pragma unroll 1
        for (; block >= masked; block--) step<true, false>(c, a, t, t, block, 0, o, p, held, r);
    }
#pragma unroll 1
    for (; block >= 0; block--) step<false, false>(c, a, t, t, block, 0, o, p, held, r);
#endif
}

/* The last product of a tile when there is nothing to overlap it with. */
DEVICE void close_tile(struct consumer &c, const struct attention_args &a, const struct tile &t,
                       float (&o)[VALUES / 2], uint32_t (&p)[PARTS * KEYS / 4],
                       const struct row_state &r)
{
    struct product product;
    int passed = ASCENDING ? unseen_blocks(c, a, t) : 0;
    const struct place v = place_before(c, passed);
    mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
#if FEATURES
    if (c.tail < KEYS) clear_tail(c, v.stage);
#endif
    registers_fence(o);
    registers_fence(p);
    issue_pv(c, o, product, p, v.stage);
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * v.stage);
    pass_values(c, passed, 0);
    finish_tile(c, a, t, o, r);
}

/* All tiles of the block. */
DEVICE void work(struct consumer &c, const struct attention_args &a)
{
    struct tile t, done;
    struct row_state r = {0, 0, 0, 0, 1, 1, false};
    float o[VALUES / 2];
    uint32_t p[PARTS * KEYS / 4], held[Q_HELD ? 4 * QK_SLICES : 1];
    if (PING_PONG && group_now(c) == 0)
        named_barrier_arrive(BARRIER_TURN, 256); /* the first turn */
    receive_tile(c, a, t);
    pass_tiles(c, a, t);
    while (t.rows >= 0) {
        open_tile(c, a, t, o, p, held, r);
        for (;;) {
            all_steps(c, a, t, o, p, held, r);
            if (ASCENDING) pass_keys(c, unseen_blocks(c, a, t));
            c.tiles++;
            done = t;
            receive_tile(c, a, t);
            if (t.rows < 0 || idle_in(c, a, t)) break;
            hold_q(c, held);
#if FEATURES
            c.slope = tile_slope(a, t);
#endif
            if (!ASCENDING) pass_keys(c, unseen_blocks(c, a, t));
            step<true, true>(c, a, t, done, first_block(c, a, t), last_block(c, a, t), o, p, held,
                             r);
        }
        close_tile(c, a, done, o, p, r);
        if (!IDLES) return;
        pass_tiles(c, a, t);
    }
}

#endif
