/* sm90_capped.h: softcap for rows of scores that have nothing else (SCORES_CAPPED).
 *
 * tanh by special functions takes two of them for each score, next to the softmax's one, and their
 * pipe then sets the pace. Up to 0.4 of a cap, tanh x = x T(x^2) with T of degree 3 is right to
 * 2^-23: multiply-adds. When some score of a warp is larger, the warp takes special functions for
 * the scores that are, and the same polynomial for the others: a score has the same bits whatever
 * its neighbours are. */
#ifndef RAPT_NVIDIA_SM90_CAPPED_H
#define RAPT_NVIDIA_SM90_CAPPED_H

#include "sm90_mask.h"

/* Of scores as they leave q k^T. */
struct cap {
    float near;    /* the polynomial serves up to here */
    float term[4]; /* capped score in units of log2: s * sum term[i] s^2i */
};

/* Computed anew for each block, which the empty statement enforces: registers are few. */
DEVICE struct cap cap_of(const struct attention_args &a)
{
    float limit = a.softcap;
    asm volatile("" : "+f"(limit));
    float x = __fdividef(a.scale, limit), y = x * x; /* tanh's argument per unit of s, squared */
    struct cap c;
    c.near = __fdividef(0.4f, x);
    c.term[0] = 0.999999901f * a.scale_log2;
    c.term[1] = -0.333313563f * a.scale_log2 * y;
    c.term[2] = 0.132708743f * a.scale_log2 * y * y;
    c.term[3] = -0.0475493467f * a.scale_log2 * y * y * y;
    return c;
}

DEVICE float cap_near(float s, const struct cap &c)
{
    float y = __fmul_rn(s, s), p = __fmaf_rn(y, c.term[3], c.term[2]);
    p = __fmaf_rn(y, p, c.term[1]);
    p = __fmaf_rn(y, p, c.term[0]);
    return __fmul_rn(s, p);
}

/* Whether a score of the warp is beyond the polynomial. (Three-way integer maxima would be half as
 * many, but ptxas 13.0 serialises the multiplies when accumulators are read as integers.) */
DEVICE bool any_far(const float (&s)[KEYS / 2], float near)
{
    float x = 0;
#pragma unroll
    for (int i = 0; i < KEYS / 2; i += 2) x = fmaxf(x, fmaxf(fabsf(s[i]), fabsf(s[i + 1])));
    return __any_sync(~0u, x > near);
}

/* Scores as they leave q k^T to capped ones in units of log2. */
DEVICE void cap_block(const struct attention_args &a, float (&s)[KEYS / 2])
{
    const struct cap c = cap_of(a);
    float in = 2 * a.scale_log2 / a.softcap, out = a.softcap * 1.4426950408889634f;
    if (any_far(s, c.near)) {
        registers_fence(s); /* or the compiler shares the polynomials, and both need registers */
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) {
            float x = __fmul_rn(out, tanh_exp2(__fmul_rn(in, s[i])));
            s[i] = fabsf(s[i]) <= c.near ? cap_near(s[i], c) : x;
        }
    } else {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = cap_near(s[i], c);
    }
}

#endif
