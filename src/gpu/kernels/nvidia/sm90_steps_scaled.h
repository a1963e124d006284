/* sm90_steps_scaled.h: the order of a consumer's work on f32 in two f16 parts. Per block n, from
 * the last visible one down to the first:
 *
 *     softmax of S, P = weights in two parts
 *     T = P V[n];  S = q K[n - 1]^T       issued
 *     wait for T;  O += T                 runs under q k^T
 *     wait for S
 *
 * Six products a block keep the tensor cores busy five times as long as the softmax takes, so the
 * other warpgroup's products hide it, and T's registers are free while it runs. With two sums to a
 * score, blocks go one by one: sm90_sums.h. */
#ifndef RAPT_NVIDIA_SM90_STEPS_SCALED_H
#define RAPT_NVIDIA_SM90_STEPS_SCALED_H

#include "sm90_consumer.h"
#if SUMS > 1
#include "sm90_sums.h"
#endif

/* Issues q k^T of a block of tile t, when its K has come. */
DEVICE void start_scores(struct consumer &c, float (&s)[KEYS / 2])
{
    uint32_t none[1];
    next_stage(c);
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
    issue_qk(score_operands(c), s, none);
}

/* Its stage is free again. */
DEVICE void end_scores(const struct consumer &c, float (&s)[KEYS / 2])
{
    wgmma_wait<0>();
    registers_fence(s);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
}

/* Scores to weights in p, which P V takes from there. factor: of the product, see
 * add_product(). */
DEVICE void start_values(struct consumer &c, const struct attention_args &a, const struct tile &t,
                         int block, float (&s)[KEYS / 2], float (&o)[VALUES / 2],
                         struct product &product, float &factor, uint32_t (&p)[PARTS * KEYS / 4],
                         struct row_state &r)
{
    weigh_scaled(c, a, t, s, r, block, block_common(c));
    follow_references(c, a, o, r);
    mbarrier_wait(c.base + AT_V_FULL + 8 * c.stage, c.phase);
    factor = issue_weights(c, s, o, product, p, r, c.stage);
}

/* The row state and O of a tile's start. */
DEVICE void clear_tile(float (&o)[VALUES / 2], struct row_state &r)
{
    r = {-INFINITY, -INFINITY, 0, 0, 1, 1, false, ~0u};
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
}

/* One block but the tile's first; q k^T of the next one is issued behind its p v. */
DEVICE void step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                 int block, float (&s)[KEYS / 2], float (&o)[VALUES / 2],
                 uint32_t (&p)[PARTS * KEYS / 4], struct row_state &r)
{
    struct product product;
    float factor;
    start_values(c, a, t, block, s, o, product, factor, p, r);
    uint32_t v_stage = c.stage;
    start_scores(c, s);
    wgmma_wait<1>();
    add_product(o, product, factor);
    release_stage(c, AT_V_EMPTY + 8 * v_stage);
    registers_fence(o);
    end_scores(c, s);
}

/* The next tile, and its Q on the way to registers. */
DEVICE void take_tile(struct consumer &c, const struct attention_args &a, struct tile &t,
                      float4 (&x)[ROW_LOADS])
{
    receive_tile(c, a, t);
    pass_tiles(c, a, t);
    if (t.rows >= 0) release_q(c); /* of the record alone */
    load_q(c, a, t, x);            /* of no tile: zeros */
}

/* All tiles of the block. */
DEVICE void work(struct consumer &c, const struct attention_args &a)
{
    struct tile t, done;
    float4 x[ROW_LOADS];
    take_tile(c, a, t, x);
    while (t.rows >= 0) {
        struct row_state r;
        float o[VALUES / 2];
        split_q(c, a, t, x);
        begin_tile(c, a, t);
        clear_tile(o, r);
#if SUMS > 1
        int passed = IN_PLACE ? unseen_blocks(c, a, t) : 0;
        if (IN_PLACE) pass_blocks(c, a, passed);
#pragma unroll 1
        for (int block = t.key_end - 1 - passed, last = key_begin(&t); block >= last; block--)
            whole_step(c, a, t, block, last, o, r);
#else
        float s[KEYS / 2];
        uint32_t p[PARTS * KEYS / 4];
        int passed = unseen_blocks(c, a, t), block = t.key_end - 1 - passed, last = key_begin(&t);
        pass_keys(c, passed);
        start_scores(c, s);
        end_scores(c, s);
        pass_values(c, passed, 1);
#pragma unroll 1
        for (; block > last; block--) step(c, a, t, block, s, o, p, r);
        struct product product;
        float factor;
        start_values(c, a, t, block, s, o, product, factor, p, r);
        wgmma_wait<0>();
        add_product(o, product, factor);
        release_stage(c, AT_V_EMPTY + 8 * c.stage);
#endif
        next_slot(c);
        done = kept_tile(c);
        take_tile(c, a, t, x);
        finish_tile(c, a, done, o, r);
    }
}

#endif
