/* sm90_capped.h: softcap for rows of scores that have nothing else (SCORES_CAPPED).
 *
 * tanh by special functions takes two of them for each score, next to the softmax's one, and their
 * pipe then sets the pace. Up to 0.3 of a cap, tanh x = x T(x^2) with T of degree 2 is right to
 * 2.9 units of 2^-24: multiply-adds, which fit under the softmax's exponentials. T is taken around
 * the end of its range, so that the sign of its argument says whether a score is within it. When
 * some score of a warp is beyond, the warp takes special functions for the scores that are, and the
 * same polynomial for the others: a score has the same bits whatever its neighbours are. */
#ifndef RAPT_NVIDIA_SM90_CAPPED_H
#define RAPT_NVIDIA_SM90_CAPPED_H

#include "sm90_weights.h"

/* Of scores as they leave q k^T: capped and in units of log2, s * (term[0] + t term[1] + t^2
 * term[2]) where t = s^2 - square is negative. */
struct cap {
    float square, term[3];
};

DEVICE struct cap cap_of(const struct attention_args &a)
{
    constexpr float END = 0.3f, T0 = 0.99999601f, T1 = -0.332974797f, T2 = 0.125225911f;
    float g = a.scale / a.softcap, y = g * g, near = END / g; /* g: tanh's argument per unit of s */
    struct cap c = {near * near,
                    {(T0 + END * END * (T1 + END * END * T2)) * a.scale_log2,
                     (T1 + 2 * END * END * T2) * a.scale_log2 * y, T2 * a.scale_log2 * y * y}};
    if (g > 0x1p24f) c.square = 0; /* y * y may overflow: nothing is near */
    if (g < 0x1p-24f) {            /* or underflow: tanh x = x while x^2 / 3 is below 2^-25 */
        near = fminf(0x1p-12f / g, 0x1p20f);
        c = {near * near, {a.scale_log2, 0, 0x1p-126f}}; /* above 0 for -inf */
    }
    return c;
}

DEVICE float cap_argument(float s, const struct cap &c)
{
    return __fmaf_rn(s, s, -c.square);
}

/* A capped score in units of log2, less from; s = -inf, a hidden one, stays so. */
DEVICE float cap_near(float s, float t, const struct cap &c, float from)
{
    return __fmaf_rn(s, __fmaf_rn(t, __fmaf_rn(t, c.term[2], c.term[1]), c.term[0]), -from);
}

/* The same for any score. HIDES: -inf stands for a hidden one. */
struct cap_wide {
    float in, out;
};

DEVICE struct cap_wide cap_wide_of(const struct attention_args &a)
{
    return {__fdividef(2 * a.scale_log2, a.softcap), a.softcap * 1.4426950408889634f};
}

template <bool HIDES>
DEVICE float cap_any(float s, const struct cap &c, const struct cap_wide &wide, float from)
{
    float t = cap_argument(s, c);
    float x = __fmaf_rn(wide.out, tanh_exp2(__fmul_rn(wide.in, s)), -from);
    x = t < 0 ? cap_near(s, t, c, from) : x;
    return HIDES && s == -INFINITY ? -INFINITY : x;
}

/* Before the mask: whether a score of the lane is beyond the polynomial. A score of -inf, which is
 * -1 cap, is told from a hidden one then. */
DEVICE bool any_far(float (&s)[KEYS / 2], const struct cap &c)
{
    uint32_t signs[2] = {~0u, ~0u};
#pragma unroll
    for (int i = 0; i < KEYS / 2; i += 4) {
#pragma unroll
        for (int e = 0; e < 2; e++)
            signs[e] &= __float_as_uint(cap_argument(s[i + 2 * e], c)) &
                        __float_as_uint(cap_argument(s[i + 2 * e + 1], c));
    }
    bool far = (int32_t)(signs[0] & signs[1]) >= 0;
    if (__any_sync(~0u, far)) {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = s[i] == -INFINITY ? -0x1.fffffep127f : s[i];
    }
    return far;
}

/* The next CAP_COLUMNS columns, from the 8 BEGIN-th on: their arguments, and whether a score of the
 * warp is beyond the polynomial, which is known before if the block is masked (HIDES). */
template <int BEGIN, bool HIDES>
DEVICE void cap_prepare(const float (&s)[KEYS / 2], struct weighing &w, const struct cap &c)
{
    uint32_t signs[2] = {~0u, ~0u};
#pragma unroll
    for (int i = 0; i < 4 * CAP_COLUMNS && i + 4 * BEGIN < KEYS / 2; i++) {
        w.t[i] = cap_argument(s[i + 4 * BEGIN], c);
        signs[i >> 1 & 1] &= __float_as_uint(w.t[i]);
    }
    if (!HIDES) w.far = (int32_t)(signs[0] & signs[1]) >= 0;
}

/* Weights of columns 8 BEGIN ... 8 END - 1 to the sums. */
template <int BEGIN, int END>
DEVICE void add_columns(const float (&s)[KEYS / 2], struct weighing &w)
{
#pragma unroll
    for (int i = 4 * BEGIN; i < 4 * END; i += 4) {
        w.sum0 = __fadd_rn(w.sum0, __fadd_rn(s[i], s[i + 1]));
        w.sum1 = __fadd_rn(w.sum1, __fadd_rn(s[i + 2], s[i + 3]));
    }
}

/* Scores of columns 8 BEGIN ... 8 END - 1, prepared from BEGIN on, become weights. Each branch
 * prepares what follows, so that it is done under the exponentials. */
template <int BEGIN, int END, bool HIDES>
DEVICE void weigh_capped(const struct attention_args &a, float (&s)[KEYS / 2], struct weighing &w,
                         const struct cap &c)
{
    if constexpr (BEGIN < END) {
        constexpr int NEXT = BEGIN + CAP_COLUMNS < END ? BEGIN + CAP_COLUMNS : END;
        const float from[2] = {w.from0, w.from1};
        if (__any_sync(~0u, w.far)) {
            struct cap_wide wide = cap_wide_of(a);
            w.signs = 0;
            registers_fence(s); /* or both branches share the polynomials: registers are few */
#pragma unroll
            for (int i = 4 * BEGIN; i < 4 * NEXT; i++)
                s[i] = exp2_approx(cap_any<HIDES>(s[i], c, wide, from[i >> 1 & 1]));
            add_columns<BEGIN, NEXT>(s, w);
            cap_prepare<NEXT, HIDES>(s, w, c);
        } else {
#pragma unroll
            for (int i = 4 * BEGIN; i < 4 * NEXT; i++)
                s[i] = exp2_approx(cap_near(s[i], w.t[i - 4 * BEGIN], c, from[i >> 1 & 1]));
            add_columns<BEGIN, NEXT>(s, w);
            cap_prepare<NEXT, HIDES>(s, w, c);
        }
        weigh_capped<NEXT, END, HIDES>(a, s, w, c);
    }
}

/* ---- Blocks whose scores are all taken for near ones
 *
 * Branches between groups of scores cost 3 to 8 % of the time, so a step takes all of a block's
 * scores for near ones, keeps them until it knows, and weighs them again where some are not. A tile
 * does so unless its warpgroup met others in the tile before. */

/* Weights x of the 8-key column i, to the sums. Right where all scores of the lane are within the
 * polynomial: w.signs keeps its sign bit then. */
DEVICE void weigh_near(const float (&s)[KEYS / 2], int i, float (&x)[4], struct weighing &w,
                       const struct cap &c)
{
    float t[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
        t[e] = cap_argument(s[4 * i + e], c);
        x[e] = exp2_approx(cap_near(s[4 * i + e], t[e], c, e < 2 ? w.from0 : w.from1));
    }
    w.signs &= __float_as_uint(t[0]) & __float_as_uint(t[1]);
    w.signs &= __float_as_uint(t[2]) & __float_as_uint(t[3]);
    w.sum0 = __fadd_rn(w.sum0, __fadd_rn(x[0], x[1]));
    w.sum1 = __fadd_rn(w.sum1, __fadd_rn(x[2], x[3]));
}

DEVICE bool beyond(const struct weighing &w)
{
    return (int32_t)w.signs >= 0;
}

/* The columns from BEGIN on, and the early ones, to P, while w.far does not say that a score of the
 * warp is beyond. The question comes twice, since nvcc 13.0 keeps the arguments up to it. */
template <int BEGIN>
DEVICE void weigh_near_late(const float (&s)[KEYS / 2], struct weighing &w, uint32_t (&p)[KEYS / 4],
                            const struct cap &c)
{
    constexpr int HALF = (COLUMNS - EARLY_COLUMNS + 1) / 2;
    constexpr int END = BEGIN + HALF < COLUMNS ? BEGIN + HALF : COLUMNS;
    if (w.far) return;
#pragma unroll
    for (int i = BEGIN == EARLY_COLUMNS ? 0 : BEGIN; i < END; i++) {
        float late[4];
        if (i >= EARLY_COLUMNS) weigh_near(s, i, late, w, c);
        const float *x = i < EARLY_COLUMNS ? w.early[i] : late;
        p[2 * i] = pack2(x[0], x[1]);
        p[2 * i + 1] = pack2(x[2], x[3]);
    }
    if constexpr (END < COLUMNS) {
        w.far = __any_sync(~0u, beyond(w));
        weigh_near_late<END>(s, w, p, c);
    }
}

#endif
