/* sm90_softmax.h: the online softmax of a lane's two rows (Milakov and Gimelshein 2018), in units
 * of log2: its state, for all rows; for 16-bit ones see sm90_weights.h. */
#ifndef RAPT_NVIDIA_SM90_SOFTMAX_H
#define RAPT_NVIDIA_SM90_SOFTMAX_H

#include "sm90_tile.h"

/* A reference maximum is kept while no row of the warp exceeds its own by more than this, in log2
 * units: then neither the shuffles nor the rescaling of the output happen. Weights grow to 2^8,
 * exact in the f32 sum, in range for f16 products. */
constexpr float KEEP = 8.f;

struct row_state {
    float reference0, reference1; /* of scores as they leave q k^T; -inf: nothing visible yet */
    float sum0, sum1;             /* of this lane's columns only */
    float decay0, decay1;         /* what the old output must be multiplied by, if rescale */
    bool rescale;
    uint32_t least; /* PARTS == 2: the bits of the lane's least weight of a block but 0, less one */
#if KV_I8
    float unit0, unit1; /* UNITS: powers of two that weights are multiplied by */
#endif
};

/* What exponents are taken against: -inf - -inf must not reach exp2. */
DEVICE float finite_base(float reference)
{
    return reference == -INFINITY ? 0.f : reference;
}

/* A row must have the same bits whichever copy of this code works on it: masked or not, in the
 * pipeline or in a repair (sm90_repair.h). The compiler may fuse a product and a sum in one copy
 * and not in another, so every rounding is written out: __fmul_rn,
 * __fadd_rn and __fmaf_rn are never fused. And whether a warp raises its references makes no
 * difference to a row that keeps its own: it is then multiplied by exp2(0) = 1.
 *
 * s becomes exp2(scale * (s - reference)). FIRST: the tile's first block, r has no reference yet.
 * CHECKED: rows may have nothing visible in this block or before. scale: log2 units per unit of s,
 * positive. */
template <bool CHECKED, bool FIRST>
DEVICE void softmax_block(float (&s)[KEYS / 2], struct row_state &r, float scale)
{
    float x0 = fmaxf(s[0], s[1]), x1 = fmaxf(s[2], s[3]);
#pragma unroll
    for (int i = 1; i < KEYS / 8; i++) {
        x0 = fmaxf(x0, fmaxf(s[4 * i], s[4 * i + 1]));
        x1 = fmaxf(x1, fmaxf(s[4 * i + 2], s[4 * i + 3]));
    }
    bool raise = true;
    if (!FIRST && !CHECKED)
        raise = __any_sync(~0u, ((x0 - r.reference0) * scale > KEEP) |
                                    ((x1 - r.reference1) * scale > KEEP));
    r.rescale = false;
    if (raise) {
        x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2));
        x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
        x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1));
        x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
        if (!FIRST) { /* -inf - -inf is NaN, which keeps the old */
            x0 = (x0 - r.reference0) * scale > KEEP ? x0 : r.reference0;
            x1 = (x1 - r.reference1) * scale > KEEP ? x1 : r.reference1;
        }
        if (!FIRST) {
            r.decay0 = exp2_approx(__fmul_rn(r.reference0 - finite_base(x0), scale));
            r.decay1 = exp2_approx(__fmul_rn(r.reference1 - finite_base(x1), scale));
            r.sum0 = __fmul_rn(r.sum0, r.decay0);
            r.sum1 = __fmul_rn(r.sum1, r.decay1);
            r.rescale = true;
        } else {
            r.sum0 = 0;
            r.sum1 = 0;
        }
        r.reference0 = x0;
        r.reference1 = x1;
    }
    float shift0 = __fmul_rn(finite_base(r.reference0), scale),
          shift1 = __fmul_rn(finite_base(r.reference1), scale);
    float block0 = 0, block1 = 0; /* PARTS == 3: the block's sums */
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        s[4 * i] = exp2_approx(__fmaf_rn(s[4 * i], scale, -shift0));
        s[4 * i + 1] = exp2_approx(__fmaf_rn(s[4 * i + 1], scale, -shift0));
        s[4 * i + 2] = exp2_approx(__fmaf_rn(s[4 * i + 2], scale, -shift1));
        s[4 * i + 3] = exp2_approx(__fmaf_rn(s[4 * i + 3], scale, -shift1));
        float &sum0 = PARTS == 3 ? block0 : r.sum0, &sum1 = PARTS == 3 ? block1 : r.sum1;
        sum0 = __fadd_rn(sum0, __fadd_rn(s[4 * i], s[4 * i + 1]));
        sum1 = __fadd_rn(sum1, __fadd_rn(s[4 * i + 2], s[4 * i + 3]));
    }
    if (PARTS == 3) { /* equal weights, as of many small keys, would all be rounded one way */
        r.sum0 = __fadd_rn(r.sum0, block0);
        r.sum1 = __fadd_rn(r.sum1, block1);
    }
}

/* The next part of two floats, the first in the low half; what remains of each stays. */
#if PARTS == 2
DEVICE uint32_t take_part2(float &low, float &high)
{
    float x, y;
    uint32_t part = pack2(low, high);
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
        : "=f"(x), "=f"(y)
        : "r"(part));
    low -= x;
    high -= y;
    return part;
}
#else
/* The upper halves of two floats, which are their bf16 parts of 8 bits. */
DEVICE uint32_t take_part2(float &low, float &high)
{
    uint32_t x = __float_as_uint(low), y = __float_as_uint(high);
    low -= __uint_as_float(x & 0xffff0000);
    high -= __uint_as_float(y & 0xffff0000);
    return __byte_perm(x, y, 0x7632);
}
#endif

/* Weights as the A operand of p v: the layouts agree, see wgmma.h. Register i of a part holds
 * scores 2i and 2i + 1. */
DEVICE void pack_weights(const float (&s)[KEYS / 2], uint32_t (&p)[WEIGHT_WORDS])
{
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) {
#if V_BF16
        float low = s[2 * i], high = s[2 * i + 1];
        p[i] = take_part2(low, high);
        p[KEYS / 4 + i] = pack2_bf16(low, high);
#elif PARTS == 1
        p[i] = pack2(s[2 * i], s[2 * i + 1]);
#else
        float low = s[2 * i], high = s[2 * i + 1];
#pragma unroll
        for (int part = 0; part < PARTS; part++) p[part * KEYS / 4 + i] = take_part2(low, high);
#endif
    }
}

/* O follows its references. */
DEVICE void rescale(float (&o)[VALUES / 2], const struct row_state &r)
{
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++) {
        o[4 * i] = __fmul_rn(o[4 * i], r.decay0);
        o[4 * i + 1] = __fmul_rn(o[4 * i + 1], r.decay0);
        o[4 * i + 2] = __fmul_rn(o[4 * i + 2], r.decay1);
        o[4 * i + 3] = __fmul_rn(o[4 * i + 3], r.decay1);
    }
}

#endif
