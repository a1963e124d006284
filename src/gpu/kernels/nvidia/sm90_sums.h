/* sm90_sums.h: f32 in two f16 parts, a score in two sums (SUMS 2): blocks one by one, nothing of a
 * warpgroup's own overlapped. The other warpgroup's multiplies take longer than a softmax, so the
 * two fall into turns by themselves. */
#ifndef RAPT_NVIDIA_SM90_SUMS_H
#define RAPT_NVIDIA_SM90_SUMS_H

#include "sm90_consumer.h"

/* S = q K^T of the current stage, done. Each half of the channels has a sum of its own. */
DEVICE void multiply_qk(const struct consumer &c, float (&s)[KEYS / 2], struct common &f,
                        bool fetched = false)
{
    float sum[SUMS][KEYS / 2];
    uint64_t k_desc = matrix_descriptor(c.base + AT_K + c.stage * K_BYTES, 16);
    uint64_t q_desc = matrix_descriptor(c.base + AT_Q + group_now(c) * Q_BYTES, 16);
#pragma unroll
    for (int i = 0; i < SUMS; i++) registers_fence(sum[i]);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
#pragma unroll
        for (int k = 0; k < QK_SLICES; k++) {
            uint64_t left = q_desc + slice_offset(k, 64) + pair_left(i) * Q_PART / 16,
                     right = k_desc + slice_offset(k, KEYS) + pair_right(i) * K_PART / 16;
            wgmma_ss(sum[k * SUMS / QK_SLICES], left, right, i > 0 || k * SUMS % QK_SLICES > 0);
        }
    }
    wgmma_commit();
    if (IN_PLACE && !fetched) /* V's factors */
        mbarrier_wait(c.base + AT_V_READY + 8 * c.stage, phase_now(c));
    f = block_common(c);
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < SUMS; i++) registers_fence(sum[i]);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = __fadd_rn(sum[0][i], sum[1][i]);
}

/* One block, from K to O. last: the tile's. */
DEVICE void whole_step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                       int block, int last, float (&o)[VALUES / 2], struct row_state &r)
{
    float s[KEYS / 2];
    uint32_t p[PARTS * KEYS / 4];
    struct product product;
    next_stage(c);
    mbarrier_wait(c.base + AT_K_READY + 8 * c.stage, phase_now(c));
    struct common f;
    multiply_qk(c, s, f);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (block == last) prefetch_q(c, a);
    weigh_scaled(c, a, t, s, r, block, f);
    follow_references(c, a, o, r);
    if (!IN_PLACE) mbarrier_wait(c.base + AT_V_FULL + 8 * c.stage, phase_now(c));
    float factor = issue_weights(c, s, o, product, p, r, c.stage);
    wgmma_wait<0>();
    add_product(o, product, factor);
    registers_fence(o);
    release_stage(c, AT_V_EMPTY + 8 * c.stage);
}

#endif
