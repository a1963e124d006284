/* sm90_products.h: the two matrix products of a block, as consumer warpgroups ask for them. */
#ifndef RAPT_NVIDIA_SM90_PRODUCTS_H
#define RAPT_NVIDIA_SM90_PRODUCTS_H

#include "sm90_softmax.h"
#if PARTS == 2
#include "sm90_softmax_scaled.h"
#endif
#include "sm90_turns.h"

/* Where the operands of a block's scores lie, for the tensor cores; and V. */
struct operands {
    uint64_t q, k;
};

DEVICE struct operands score_operands(const struct consumer &c)
{
    struct operands x;
    x.k = matrix_descriptor(c.base + AT_K + c.stage * K_BYTES, 16);
    x.q = matrix_descriptor(c.base + AT_Q + (slot_now(c) * GROUPS + group_now(c)) * Q_BYTES, 16);
    return x;
}

DEVICE uint64_t value_operand(const struct consumer &c, uint32_t stage)
{
    return matrix_descriptor(c.base + AT_V + stage * V_BYTES, KEYS * 128);
}

/* S = q K^T. */
DEVICE void issue_qk(const struct operands &x, float (&s)[KEYS / 2],
                     uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1])
{
    registers_fence(s);
    if (Q_HELD) registers_fence(held);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
#pragma unroll
        for (int k = 0; k < QK_SLICES; k++) {
            uint64_t right = x.k + slice_offset(k, KEYS) + pair_right(i) * K_PART / 16;
            if (Q_HELD) wgmma_rs(s, held + (Q_HELD ? 4 * k : 0), right, k > 0);
            else
                wgmma_ss(s, x.q + slice_offset(k, 64) + pair_left(i) * Q_PART / 16, right,
                         i > 0 || k > 0);
        }
    }
    wgmma_commit();
}

#if SCALE_BLOCKS > 1
/* One block of channels of q K^T, added to those before. */
DEVICE void issue_channels(const struct operands &x, float (&s)[KEYS / 2],
                           uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], int block)
{
    constexpr int SLICES = SCALE_CHANNELS / 16;
    registers_fence(s);
    if (Q_HELD) registers_fence(held);
    wgmma_fence();
#pragma unroll
    for (int k = block * SLICES; k < (block + 1) * SLICES; k++) {
        uint64_t right = x.k + slice_offset(k, KEYS);
        if (Q_HELD) wgmma_rs(s, held + (Q_HELD ? 4 * k : 0), right, k > 0);
        else wgmma_ss(s, x.q + slice_offset(k, 64), right, k > 0);
    }
    wgmma_commit();
}

/* What brings the lane's sums of scores over blocks of channels from the scale of one to that of the next. */
struct scale_steps {
    struct four_scales of[STEPS_HELD];
};

/* Those to `block`. */
DEVICE void read_steps(const struct consumer &c, struct scale_steps &x, int block)
{
#pragma unroll
    for (int i = 0; i < STEPS_HELD; i++)
        x.of[i] = lane_scales(c, scales_now(c) + (block - 1) * SCALE_BYTES, i);
}

/* Sums of scores to the scale of `block`, when PENDING groups of products are still to end; reads the steps
 * to the next block, if there is one. */
template <int PENDING>
DEVICE void follow_scale(const struct consumer &c, struct scale_steps &x, float (&s)[KEYS / 2],
                         int block)
{
    wgmma_wait<PENDING>();
    registers_fence(s);
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        struct four_scales f =
            i < STEPS_HELD ? x.of[i] : lane_scales(c, scales_now(c) + (block - 1) * SCALE_BYTES, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int at = scale_score(i, j);
            s[at] = __fmul_rn(s[at], f.x[j]);
            s[at + 2] = __fmul_rn(s[at + 2], f.x[j]);
        }
    }
    if (block + 1 < SCALE_BLOCKS) read_steps(c, x, block + 1);
}
#endif

/* S = q K^T alone; it is over behind wgmma_wait<0>(). */
DEVICE void begin_qk(const struct consumer &c, float (&s)[KEYS / 2],
                     uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1])
{
#if SCALE_BLOCKS > 1
    const struct operands x = score_operands(c);
    struct scale_steps steps;
    read_steps(c, steps, 1);
    issue_channels(x, s, held, 0);
#pragma unroll
    for (int block = 1; block < SCALE_BLOCKS; block++) {
        follow_scale<0>(c, steps, s, block);
        issue_channels(x, s, held, block);
    }
#else
    issue_qk(score_operands(c), s, held);
#endif
}

/* What P V is added to: O itself; with parts a sum of its own that starts from zero, since the
 * multiplies truncate where they add, and O would gather that over all keys. */
struct product {
    float sum[PARTS > 1 ? VALUES / 2 : 1];
};

#if SCALE_BLOCKS > 1
/* One of SHARES of the products of O += P V: the weights' first numbers times the values' first ones, then times
 * what these leave; V_BF16: at last what the weights leave times the values' first. */
constexpr int V_PRODUCTS = (V_NUMBERS + V_BF16) * KEYS / 16;
template <int SHARE, int SHARES>
DEVICE void issue_share(uint64_t v, float (&o)[VALUES / 2], const uint32_t (&p)[WEIGHT_WORDS])
{
    wgmma_fence();
#pragma unroll
    for (int i = SHARE * V_PRODUCTS / SHARES; i < (SHARE + 1) * V_PRODUCTS / SHARES; i++) {
        int turn = i / (KEYS / 16), k = i % (KEYS / 16), left = turn == 2 ? KEYS / 4 : 0;
        wgmma_rs_v(o, p + left + 4 * k, v + row_slice_offset(k) + turn % 2 * V_PART / 16, 1);
    }
    wgmma_commit();
}
#endif

/* O, or the product, += P V. */
DEVICE void issue_pv(uint64_t v, float (&o)[VALUES / 2], struct product &product,
                     const uint32_t (&p)[WEIGHT_WORDS])
{
#if SCALE_BLOCKS > 1
    issue_share<0, 1>(v, o, p);
    return;
#endif
#if PARTS > 1
    registers_fence(product.sum);
#endif
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            const uint32_t *left = p + pair_left(i) * KEYS / 4 + 4 * k;
            uint64_t right = v + row_slice_offset(k) + pair_right(i) * V_PART / 16;
#if PARTS > 1
            wgmma_rs_v(product.sum, left, right, i > 0 || k > 0);
#else
            wgmma_rs_v(o, left, right, 1);
#endif
        }
    }
    wgmma_commit();
}

#if SCALE_BLOCKS > 1
/* The shares of P V from that behind block BLOCK - 1 of channels on, and the blocks between them. */
template <int BLOCK>
DEVICE void issue_from(const struct consumer &c, struct scale_steps &steps,
                       const struct operands &x, uint64_t v, float (&s)[KEYS / 2],
                       uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1], float (&o)[VALUES / 2],
                       const uint32_t (&p)[WEIGHT_WORDS])
{
    issue_share<BLOCK - 1, SCALE_BLOCKS>(v, o, p);
    if constexpr (BLOCK < SCALE_BLOCKS) {
        follow_scale<1>(c, steps, s, BLOCK);
        issue_channels(x, s, held, BLOCK);
        issue_from<BLOCK + 1>(c, steps, x, v, s, held, o, p);
    }
}

/* S = q K^T, with a share of O += P V behind each block of channels, so that the tensor cores are at work
 * while scores follow the scales, and when they are over. */
DEVICE void issue_in_turns(const struct consumer &c, struct scale_steps &steps,
                           const struct operands &x, uint64_t v, uint32_t v_full, uint32_t parity,
                           float (&s)[KEYS / 2], uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1],
                           float (&o)[VALUES / 2], const uint32_t (&p)[WEIGHT_WORDS])
{
    issue_channels(x, s, held, 0);
    mbarrier_wait(v_full, parity);
    issue_from<1>(c, steps, x, v, s, held, o, p);
}
#endif

/* When the multiplies are over. factor: a power of two. */
DEVICE void add_product(float (&o)[VALUES / 2], struct product &product, float factor = 1)
{
#if PARTS > 1
    registers_fence(product.sum);
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = __fmaf_rn(product.sum[i], factor, o[i]);
#else
    registers_fence(o);
#endif
}

/* Whether a thread of the warpgroup says so; the reduction proves that all lanes know the same. */
DEVICE bool group_any(const struct consumer &c, bool x)
{
    return __reduce_or_sync(~0u, named_barrier_or(BARRIER_GROUP + group_now(c), 128, x));
}

#if PARTS == 2
/* Weights to parts, and their P V. Where some are so small that they want a product of their own,
 * that of the others comes first and is added to O; the small ones meanwhile lie in local memory,
 * since registers are few. Returns the factor of the last product, which is on its way. */
DEVICE float issue_weights(const struct consumer &c, float (&s)[KEYS / 2], float (&o)[VALUES / 2],
                           struct product &product, uint32_t (&p)[WEIGHT_WORDS],
                           struct row_state &r, uint32_t stage)
{
    float factor = 1;
#pragma unroll 1
    while (group_any(c, has_small(r))) {
        volatile float left[KEYS / 2];
        struct product part;
        pack_large(s, p, r);
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) left[i] = s[i];
        registers_fence(p);
        issue_pv(value_operand(c, stage), o, part, p);
        wgmma_wait<0>();
        add_product(o, part, factor);
        registers_fence(o);
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = left[i];
        factor *= 1 / RANGE;
    }
    pack_weights(s, p);
    registers_fence(p);
    issue_pv(value_operand(c, stage), o, product, p);
    return factor;
}
#endif

#endif
