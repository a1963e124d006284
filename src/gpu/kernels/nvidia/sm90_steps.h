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

#if FEATURES
/* Rows of the V block that comes next past the sequence's end, if not converters made them zeros;
 * then `tail` of the one behind it exist. */
DEVICE void clear_before(struct consumer &c, const struct place &v, int tail)
{
    if (!KV_I8 && c.tail < KEYS) {
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
        clear_tail(c, v.stage);
    }
    c.tail = tail;
}
#endif

/* Keeps a block's weights, or raises its reference. False if that is left to steps(). */
template <bool NEAR>
DEVICE bool settle_weights(const struct consumer &c, const struct attention_args &a,
                           float (&s)[KEYS / 2], float (&o)[VALUES / 2],
                           uint32_t (&p)[WEIGHT_WORDS], struct row_state &r, struct weighing &w)
{
    if (keep_weights<NEAR>(r, w)) return true;
    if (RAISES_APART) return false;
    raise_block<NEAR>(c, a, s, r, w, p);
    rescale(o, r);
    return true;
}

/* The loop never runs, which the compiler does not know. */
DEVICE void hold_scores(const struct attention_args &a)
{
    while (HOLDS_SCORES && a.q_heads < 0) asm volatile("nanosleep.u32 1;" ::: "memory");
}

/* K of the block behind the one worked on. */
DEVICE void await_next(const struct consumer &c)
{
    uint32_t next = c.stage + 1 == STAGES ? 0 : c.stage + 1,
             parity = c.stage + 1 == STAGES ? c.phase ^ 1 : c.phase;
    mbarrier_wait(c.base + AT_K_FULL + 8 * next, parity);
}

/* One step, see above. FIRST: block opens tile t, so O belongs to the tile `done` before and is
 * finished; V of the blocks between is given back. last: of the tile's blocks. False if the block's
 * reference is still to be raised, by weights and w. */
template <bool MASKED, bool FIRST, bool NEAR = false>
DEVICE bool step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                 const struct tile &done, int block, int last, float (&o)[VALUES / 2],
                 uint32_t (&p)[WEIGHT_WORDS], uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1],
                 struct row_state &r, float (&weights)[KEYS / 2], struct weighing &w)
{
    float s[KEYS / 2];
    struct product product;
    struct row_state finished = r;
    struct step_trace trace = trace_step(c, a, block);
    stamp(trace, TRACE_STEP);
    const struct place v = place_before(c, FIRST ? blocks_between(c, a, done, t) : 0);
    next_stage(c);
#if FEATURES
    clear_before(c, v, FIRST ? existing_rows(t) : KEYS);
#endif
    struct operands scores;
    uint64_t values = 0;
    if (OPERANDS_FIRST) scores = score_operands(c), values = value_operand(c, v.stage);
    ask_block(c, a, t, block);
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
#if SCALE_BLOCKS > 1
    struct scale_steps steps;
    read_steps(c, steps, 1);
#endif
    take_turn(c);
    stamp(trace, TRACE_ASK);
    registers_fence(o);
    registers_fence(p);
    if (!OPERANDS_FIRST) scores = score_operands(c);
#if SCALE_BLOCKS > 1
    issue_in_turns(c, steps, scores, value_operand(c, v.stage), c.base + AT_V_FULL + 8 * v.stage,
                   v.phase, s, held, o, p);
#else
    issue_qk(scores, s, held);
    mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
    if (!OPERANDS_FIRST) values = value_operand(c, v.stage);
    issue_pv(values, o, product, p);
#endif
#if KV_I8
    hold_scales(c);
#endif
    stamp(trace, TRACE_SCORES);
    wgmma_wait<EARLY == 0 && SCALE_BLOCKS == 1 ? 0 : 1>();
    end_turn(c);
    stamp(trace, TRACE_EARLY);
    hold_scores(a);
    registers_fence(s);
    if (Q_HELD && FIRST) release_q(c);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (!Q_HELD && block == last) release_q(c);
    if (EARLY > 0) w = begin_block<MASKED, FIRST, false, NEAR>(c, a, t, s, r, block);
    registers_fence(s);
    if (PARTS > 1 && !(r.sum0 + r.sum1 < 1e38f))
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase); /* never; see forward_sm90.cu */
#if SPLIT_KEYS && EARLY > 0
    if (FIRST && !(w.sum0 + w.sum1 < 1e38f))
        mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase); /* likewise */
#endif
    /* Not while V of a block that was passed over may wait for this step's V: the next K is behind it. */
    if (EARLY > 0 && !(FIRST && UNSEEN_MOST == STAGES) && (ASCENDING ? block < last : block > last))
        await_next(c);
    stamp(trace, TRACE_VALUES);
    wgmma_wait<0>();
    stamp(trace, TRACE_WEIGHTS);
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * v.stage);
    if (FIRST) pass_values(c, blocks_between(c, a, done, t), 1);
    if (EARLY == 0) w = begin_block<MASKED, FIRST, false, NEAR>(c, a, t, s, r, block);
    end_block<MASKED, FIRST, NEAR>(c, a, t, block, o, s, r, w, p);
#if KV_I8 &&                                                                                       \
    SPLIT_KEYS /* or weights are kept for the sums beside those with scales: registers are few */
    if (FIRST && !(w.sum0 + w.sum1 < 1e38f)) asm volatile("nanosleep.u32 1;" ::: "memory");
#endif
    if (FIRST) {
        add_sums(r, w);
        stamp(trace, TRACE_OUTPUT);
        finish_tile(c, a, done, o, finished);
#pragma unroll
        for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
        return true;
    }
    if (PARTS > 1 && r.rescale) rescale(o, r);
    if (UNITS && r.rescale) {
        rescale(o, r);
        r.rescale = false;
    }
    bool settled = settle_weights<NEAR>(c, a, s, o, p, r, w);
#pragma unroll
    for (int i = 0; RAISES_APART && i < KEYS / 2; i++) weights[i] = s[i];
    return settled;
}

/* Steps of the blocks from `block` up to, or with descending ones down to, the one before `end`.
 * Where a reference is raised the inner loop is left: its code stays short. */
template <bool MASKED, bool NEAR = false>
DEVICE void steps(struct consumer &c, const struct attention_args &a, const struct tile &t,
                  int block, int end, int last, float (&o)[VALUES / 2], uint32_t (&p)[WEIGHT_WORDS],
                  uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], struct row_state &r)
{
    float s[KEYS / 2];
    struct weighing w;
#pragma unroll 1
    for (;;) {
#pragma unroll 1
        for (;;) {
            if (ASCENDING ? block >= end : block <= end) return;
            bool kept = step<MASKED, false, NEAR>(c, a, t, t, block, last, o, p, held, r, s, w);
            block += ASCENDING ? 1 : -1;
#if CAPPED
            if (!NEAR && !MASKED) note_far(c, w);
#endif
            if (!kept) break;
        }
#if CAPPED
        if (NEAR) note_far(c, w);
#endif
        raise_block<NEAR>(c, a, s, r, w, p);
        if (!NEAR || r.rescale) rescale(o, r);
    }
}

/* The first block of a tile when there is nothing to overlap it with. */
DEVICE void open_tile(struct consumer &c, const struct attention_args &a, const struct tile &t,
                      float (&o)[VALUES / 2], uint32_t (&p)[WEIGHT_WORDS],
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
    ask_block(c, a, t, block);
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
    take_turn(c);
    begin_qk(c, s, held);
#if KV_I8
    hold_scales(c);
#endif
    wgmma_wait<0>();
    end_turn(c);
    registers_fence(s);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (Q_HELD || block == last_block(c, a, t)) release_q(c);
    struct weighing w = begin_block<true, true, false>(c, a, t, s, r, block);
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
    end_block<true, true>(c, a, t, block, o, s, r, w, p);
    add_sums(r, w);
}

/* All blocks of a tile but its first. */
DEVICE void all_steps(struct consumer &c, const struct attention_args &a, const struct tile &t,
                      float (&o)[VALUES / 2], uint32_t (&p)[WEIGHT_WORDS],
                      uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], struct row_state &r)
{
#if FEATURES
    int block = t.key_end - 2;
    int above = masked_from(c, a, t); /* blocks at and above it are masked on the right, those
                                         below `below` on the left */
    int below = masked_below(a, t);
#if CAPPED
    const bool near = begin_near(c);
#else
    constexpr bool near = false;
#endif
    while (block >= t.key_begin) {
        int end = block >= above ? max_int(t.key_begin, above) : t.key_begin;
        if (block >= above || block < below) {
            steps<true>(c, a, t, block, end - 1, t.key_begin, o, p, held, r);
        } else {
            end = max_int(end, below);
            if (near) steps<false, NEAR_STEPS>(c, a, t, block, end - 1, t.key_begin, o, p, held, r);
            else steps<false>(c, a, t, block, end - 1, t.key_begin, o, p, held, r);
        }
        block = end - 1;
    }
#elif ASCENDING
    int block = 1, last = last_block(c, a, t), masked = masked_from(c, a, t);
#if !MERGED
    steps<false>(c, a, t, block, masked, last, o, p, held, r);
    block = max_int(block, masked);
#endif
    steps<true>(c, a, t, block, last + 1, last, o, p, held, r);
#else
    int block = first_block(c, a, t) - 1;
    if (CAUSAL) {
        int masked = masked_from(c, a, t);
        steps<true>(c, a, t, block, masked - 1, 0, o, p, held, r);
        block = min_int(block, masked - 1);
    }
    steps<false>(c, a, t, block, -1, 0, o, p, held, r);
#endif
}

/* The last product of a tile when there is nothing to overlap it with. */
DEVICE void close_tile(struct consumer &c, const struct attention_args &a, const struct tile &t,
                       float (&o)[VALUES / 2], uint32_t (&p)[WEIGHT_WORDS],
                       const struct row_state &r)
{
    struct product product;
    int passed = ASCENDING ? unseen_blocks(c, a, t) : 0;
    const struct place v = place_before(c, passed);
    mbarrier_wait(c.base + AT_V_FULL + 8 * v.stage, v.phase);
#if FEATURES
    if (!KV_I8 && c.tail < KEYS) clear_tail(c, v.stage);
#endif
    registers_fence(o);
    registers_fence(p);
    issue_pv(value_operand(c, v.stage), o, product, p);
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
    uint32_t p[WEIGHT_WORDS], held[Q_HELD ? 4 * QK_SLICES : 1];
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
            float s[KEYS / 2];
            struct weighing w;
            step<true, true>(c, a, t, done, first_block(c, a, t), last_block(c, a, t), o, p, held,
                             r, s, w);
        }
        close_tile(c, a, done, o, p, r);
        if (!IDLES) return;
        pass_tiles(c, a, t);
    }
}

#endif
