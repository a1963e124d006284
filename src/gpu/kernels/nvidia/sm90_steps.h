/* sm90_steps.h: the order of a consumer's work that overlaps softmax and p v inside a warpgroup; the
 * head of forward_sm90.cu describes it. */
#ifndef RAPT_NVIDIA_SM90_STEPS_H
#define RAPT_NVIDIA_SM90_STEPS_H

#include "sm90_consumer.h"

/* One step, see above. FIRST: block opens tile t, so O belongs to the tile `done` before and is
 * finished. If blocks of t that the warpgroup does not see came between, their V is given back. */
template <bool MASKED, bool FIRST>
DEVICE void step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                 const struct tile &done, int block, float (&o)[VALUES / 2],
                 uint32_t (&p)[PARTS * KEYS / 4], uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1],
                 struct row_state &r)
{
    float s[KEYS / 2];
    struct product product;
    struct row_state finished = r;
    const struct place v = place_before(c, FIRST ? unseen_blocks(c, a, t) : 0);
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
    if (!Q_HELD && block == key_begin(&t)) release_q(c);
    struct weighing w;
    if (EARLY > 0) w = begin_block<MASKED, FIRST, false>(c, a, t, s, r, block);
    registers_fence(s);
    if (PARTS > 1 && !(r.sum0 + r.sum1 < 1e38f))
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage,
                      v.phase); /* never; see forward_sm90.cu */
    if (EARLY > 0 && block > key_begin(&t)) {
        uint32_t next = c.stage + 1 == STAGES ? 0 : c.stage + 1,
                 parity = c.stage + 1 == STAGES ? c.phase ^ 1 : c.phase;
        mbarrier_wait(c.base + AT_K_FULL + 8 * next, parity);
    }
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * v.stage);
    if (FIRST) pass_values(c, unseen_blocks(c, a, t), 1);
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
    int passed = unseen_blocks(c, a, t), block = t.key_end - 1 - passed;
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
    if (!Q_HELD && block == key_begin(&t)) release_q(c);
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
    int block = t.key_end - 2 - unseen_blocks(c, a, t);
#if FEATURES
    int above = masked_from(c, a, t); /* blocks at and above it are masked on the right, those
                                         below `below` on the left */
    int below = masked_below(a, t);
    while (block >= t.key_begin) {
#pragma unroll 1
        for (; block >= t.key_begin && (block >= above || block < below); block--)
            step<true, false>(c, a, t, t, block, o, p, held, r);
#pragma unroll 1
        for (; block >= max_int(t.key_begin, below) && block < above; block--)
            step<false, false>(c, a, t, t, block, o, p, held, r);
    }
#else
    if (CAUSAL) {
        int masked = masked_from(c, a, t);
#pragma unroll 1
        for (; block >= masked; block--) step<true, false>(c, a, t, t, block, o, p, held, r);
    }
#pragma unroll 1
    for (; block >= 0; block--) step<false, false>(c, a, t, t, block, o, p, held, r);
#endif
}

/* The last product of a tile when there is nothing to overlap it with. */
DEVICE void close_tile(const struct consumer &c, const struct attention_args &a,
                       const struct tile &t, float (&o)[VALUES / 2],
                       uint32_t (&p)[PARTS * KEYS / 4], const struct row_state &r)
{
    struct product product;
    mbarrier_wait(c.base + AT_V_FULL + 8 * c.stage, c.phase);
#if FEATURES
    if (c.tail < KEYS) clear_tail(c, c.stage);
#endif
    registers_fence(o);
    registers_fence(p);
    issue_pv(c, o, product, p, c.stage);
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * c.stage);
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
            c.tiles++;
            done = t;
            receive_tile(c, a, t);
            if (t.rows < 0 || idle_in(c, a, t)) break;
            hold_q(c, held);
#if FEATURES
            c.slope = tile_slope(a, t);
#endif
            pass_keys(c, unseen_blocks(c, a, t));
            step<true, true>(c, a, t, done, t.key_end - 1 - unseen_blocks(c, a, t), o, p, held, r);
        }
        close_tile(c, a, done, o, p, r);
        if (!IDLES) return;
        pass_tiles(c, a, t);
    }
}

#endif
