/* sm90_softmax_scaled.h: the softmax between products of two f16 parts (PARTS 2), whose rows come
 * with powers of two: sm90_scaled.h. */
#ifndef RAPT_NVIDIA_SM90_SOFTMAX_SCALED_H
#define RAPT_NVIDIA_SM90_SOFTMAX_SCALED_H

#include "sm90_mask.h"
#include "sm90_scaled.h"
#include "sm90_softmax.h"

/* Weights reach 2^TOP while their reference holds, 2^(TOP + KEEP) before it is raised. */
constexpr float TOP = 7.f;

/* x0, x1: the largest of the lane's columns; -inf: nothing visible. A reference is kept while no
 * row of the warp exceeds its own by more than TOP + KEEP; a tile starts with -inf. */
DEVICE void raise_references(struct row_state &r, float x0, float x1)
{
    r.rescale =
        __any_sync(~0u, (x0 - r.reference0 > TOP + KEEP) | (x1 - r.reference1 > TOP + KEEP));
    if (!r.rescale) return;
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
    x0 = x0 - r.reference0 > TOP + KEEP ? x0 - TOP : r.reference0;
    x1 = x1 - r.reference1 > TOP + KEEP ? x1 - TOP : r.reference1;
    r.decay0 = exp2_approx(r.reference0 - (x0 == -INFINITY ? 0.f : x0));
    r.decay1 = exp2_approx(r.reference1 - (x1 == -INFINITY ? 0.f : x1));
    r.sum0 = __fmul_rn(r.sum0, r.decay0);
    r.sum1 = __fmul_rn(r.sum1, r.decay1);
    r.reference0 = x0;
    r.reference1 = x1;
}

/* The bits less one; 0 is the greatest. */
DEVICE uint32_t nonzero_size(float x)
{
    return __float_as_uint(x) - 1;
}

/* The factors of a block's keys where all are the same; those of hidden keys count too. */
struct common {
    float key, value; /* 2^(e - 14) of K, 2^e of V */
    bool all;
};

/* factors: the block's, a shared address. row0, row1: see softmax_scaled(); their products with
 * factors must be exact. */
DEVICE struct common common_factors(uint32_t factors, int lane, float row0, float row1)
{
    static_assert(KEYS % 64 == 0, "pairs of keys for each lane");
    struct common f;
    float k[KEYS / 32], v[KEYS / 32];
#pragma unroll
    for (int i = 0; i < KEYS / 64; i++)
        shared_load2(factors + 32 * lane + 32 * 32 * i, k[2 * i], k[2 * i + 1]);
#pragma unroll
    for (int i = 0; i < KEYS / 64; i++)
        shared_load2(factors + 32 * lane + 32 * 32 * i + 16, v[2 * i], v[2 * i + 1]);
    f.key = __uint_as_float(shared_load(factors));
    f.value = __uint_as_float(shared_load(factors + 16));
    bool all = row0 * f.key >= 0x1p-126f && row1 * f.key >= 0x1p-126f;
#pragma unroll
    for (int i = 0; i < KEYS / 32; i++) all = all && k[i] == f.key && v[i] == f.value;
    f.all = __all_sync(~0u, all);
    return f;
}

/* s becomes s times the key's 2^(e - 14). at: see softmax_scaled(). */
DEVICE void scale_keys(float (&s)[KEYS / 2], uint32_t at)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float k[2];
        shared_load2(at + 128 * i, k[0], k[1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            s[4 * i + j] = __fmul_rn(s[4 * i + j], k[j]);
            s[4 * i + 2 + j] = __fmul_rn(s[4 * i + 2 + j], k[j]);
        }
    }
}

#if FEATURES
/* Scores that leave their linear form, to units of log2: then the factors row0 and row1 are in
 * them. */
DEVICE void change_scaled(const struct attention_args &a, const struct tile &t,
                          float (&s)[KEYS / 2], int block, int row, int column, float &row0,
                          float &row1)
{
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = __fmul_rn(s[i], i & 2 ? row1 : row0);
    if (a.softcap != 0) cap_scores(a, s, 1);
    if (a.alibi.data) slope_scores(a, t, s, block, row, column, tile_slope(a, t));
#if CELL_ROWS
    if (a.bias.data) add_bias(a, t, s, block, row, column);
#endif
    row0 = row1 = 1;
}
#endif

/* s0, s1: the largest of the lane's two rows. MASKED: s becomes -inf in columns from above0, above1
 * on, relative to the lane's first. */
template <bool MASKED>
DEVICE void largest_scores(float (&s)[KEYS / 2], int above0, int above1, float &s0, float &s1)
{
    s0 = s1 = -INFINITY;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int j = 0; j < 2; j++) {
            if (MASKED && 8 * i + j >= above0) s[4 * i + j] = -INFINITY;
            if (MASKED && 8 * i + j >= above1) s[4 * i + 2 + j] = -INFINITY;
            s0 = fmaxf(s0, s[4 * i + j]);
            s1 = fmaxf(s1, s[4 * i + 2 + j]);
        }
    }
}

/* The largest of x + e of the lane's columns, for its two rows. */
DEVICE void largest_scaled(const float (&s)[KEYS / 2], uint32_t at, float row0, float row1,
                           float &x0, float &x1)
{
    x0 = x1 = -INFINITY;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float e[2];
        shared_load2(at + 128 * i + 8, e[0], e[1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            x0 = fmaxf(x0, __fmaf_rn(s[4 * i + j], row0, e[j]));
            x1 = fmaxf(x1, __fmaf_rn(s[4 * i + 2 + j], row1, e[j]));
        }
    }
}

/* e of 2^e. */
DEVICE float exponent_of(uint32_t bits)
{
    return (float)((int)(bits >> 23) - 127);
}

/* The largest e of a block's values, hidden ones too. factors: their shared address. */
DEVICE float largest_exponent(uint32_t factors, int lane)
{
    float v[KEYS / 32];
    uint32_t size;
#pragma unroll
    for (int i = 0; i < KEYS / 64; i++)
        shared_load2(factors + 32 * lane + 32 * 32 * i + 16, v[2 * i], v[2 * i + 1]);
#pragma unroll
    for (int i = 0; i < KEYS / 64; i++) {
        uint32_t pair = larger_size(__float_as_uint(v[2 * i]), __float_as_uint(v[2 * i + 1]));
        size = i ? larger_size(size, pair) : pair;
    }
    return exponent_of(__reduce_max_sync(~0u, size));
}

/* References for a block's scores, behind scale_keys(), or with the factor of all keys in row0 and
 * row1 (same). s0, s1: the largest; e: of the values. Roundings keep the order: where s0 and e ask
 * for no other reference, no x + e does, and none is looked at. */
DEVICE void update_references(const float (&s)[KEYS / 2], struct row_state &r, uint32_t at,
                              float row0, float row1, float s0, float s1, float e, bool same)
{
    float x0 = __fmaf_rn(s0, row0, e), x1 = __fmaf_rn(s1, row1, e);
    bool stay = x0 - r.reference0 <= TOP + KEEP && x1 - r.reference1 <= TOP + KEEP; /* no NaN */
    r.rescale = false;
    if (__all_sync(~0u, stay)) return;
    if (!same) largest_scaled(s, at, row0, row1, x0, x1);
    raise_references(r, x0, x1);
}

/* A reference beyond FAR is rounded so much that e, or a part of a score, may be lost in it, and
 * weights become too large for f16. With a bias the rounding is in the scores themselves: then
 * weights have factors of up to 2^e alone, which f16 holds to 2^LARGEST_FAR. */
constexpr float FAR = 0x1p19f, LARGEST_FAR = 15;

/* An infinite one makes its own row NaN, whatever the factors are. */
DEVICE bool is_far(float reference)
{
    float size = fabsf(reference);
    return size > FAR && size < INFINITY;
}

DEVICE bool far_references(const struct row_state &r)
{
    return __any_sync(~0u, is_far(r.reference0) || is_far(r.reference1));
}

/* s, products of scaled q and k with hidden ones at -inf, becomes w = p 2^e, see sm90_scaled.h:
 * p = exp2(x - reference), x = s * (2^(e - 14) of the key) * row. Where all keys have one factor
 * (SAME) it is in row0 and row1, with the same bits, and 2^e in value.
 * at: the shared address of the factors of the lane's first two columns. References are in log2
 * units, of x + e less TOP. The block's sum is taken for itself first: equal weights, as of keys
 * that are all small, would be rounded all in one direction. */
template <bool SAME>
DEVICE void softmax_scaled(float (&s)[KEYS / 2], struct row_state &r, uint32_t at, float row0,
                           float row1, float value)
{
    float from0 = r.reference0 == -INFINITY ? 0.f : r.reference0;
    float from1 = r.reference1 == -INFINITY ? 0.f : r.reference1;
    float sum0[2] = {0, 0}, sum1[2] = {0, 0};
    r.least = ~0u;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float v[2] = {value, value};
        if (!SAME) shared_load2(at + 128 * i + 16, v[0], v[1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float p0 = exp2_approx(__fmaf_rn(s[4 * i + j], row0, -from0));
            float p1 = exp2_approx(__fmaf_rn(s[4 * i + 2 + j], row1, -from1));
            sum0[j] = __fadd_rn(sum0[j], p0);
            sum1[j] = __fadd_rn(sum1[j], p1);
            s[4 * i + j] = __fmul_rn(p0, v[j]);
            s[4 * i + 2 + j] = __fmul_rn(p1, v[j]);
            r.least = min(r.least, nonzero_size(s[4 * i + j])); /* a hidden weight is 0 */
            r.least = min(r.least, nonzero_size(s[4 * i + 2 + j]));
        }
    }
    r.sum0 = __fadd_rn(r.sum0, __fadd_rn(sum0[0], sum0[1]));
    r.sum1 = __fadd_rn(r.sum1, __fadd_rn(sum1[0], sum1[1]));
}

/* Two f16 parts hold a weight to 2^-25, so with at least 9 bits from SMALL on. Where the values of
 * larger weights are 0, smaller ones are the result: they wait for a product of their own,
 * multiplied by RANGE, and so on. */
constexpr float SMALL = 0x1p-16f, RANGE = 0x1p31f;

DEVICE bool has_small(const struct row_state &r)
{
    return r.least < nonzero_size(SMALL);
}

/* Weights that P V takes now, in p; what is left for the next product in s. */
DEVICE void pack_large(float (&s)[KEYS / 2], uint32_t (&p)[PARTS * KEYS / 4], struct row_state &r)
{
    r.least = ~0u;
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) {
        float now[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float &x = s[2 * i + j];
            now[j] = x < SMALL ? 0.f : x; /* NaN goes along */
            x = x < SMALL ? __fmul_rn(x, RANGE) : 0.f;
            r.least = min(r.least, nonzero_size(x));
        }
        p[i] = take_part2(now[0], now[1]);
        p[KEYS / 4 + i] = take_part2(now[0], now[1]);
    }
}

#endif
