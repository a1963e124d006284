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

/* What P V is added to: O itself; with parts a sum of its own that starts from zero, since the
 * multiplies truncate where they add, and O would gather that over all keys. */
struct product {
    float sum[PARTS > 1 ? VALUES / 2 : 1];
};

/* O, or the product, += P V. */
DEVICE void issue_pv(uint64_t v, float (&o)[VALUES / 2], struct product &product,
                     const uint32_t (&p)[PARTS * KEYS / 4])
{
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

#if PARTS == 2
/* Whether a thread of the warpgroup says so; the reduction proves that all lanes know the same. */
DEVICE bool group_any(const struct consumer &c, bool x)
{
    return __reduce_or_sync(~0u, named_barrier_or(BARRIER_GROUP + group_now(c), 128, x));
}

/* Weights to parts, and their P V. Where some are so small that they want a product of their own,
 * that of the others comes first and is added to O; the small ones meanwhile lie in local memory,
 * since registers are few. Returns the factor of the last product, which is on its way. */
DEVICE float issue_weights(const struct consumer &c, float (&s)[KEYS / 2], float (&o)[VALUES / 2],
                           struct product &product, uint32_t (&p)[PARTS * KEYS / 4],
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
