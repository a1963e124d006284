/* softmax.h: the online softmax of the AMD forward (Milakov and Gimelshein 2018). All decisions are
 * a row's own, so that a row's bits do not depend on the other rows of its wave. */
#ifndef RAPT_AMD_SOFTMAX_H
#define RAPT_AMD_SOFTMAX_H

#include "amd/work.h"

struct accumulator {
    results o[QT][CT]; /* transposed: channels x queries */
    float m[QT];       /* what exponents are taken against, times log2 e: a maximum of scores so far;
                          both halves hold the same */
    float minus[QT];   /* -m, but 0 while m is -inf */
    float limit[QT];   /* the largest sum of a score tile's weights that leaves m as it is */
    float l[QT];       /* this lane's part of the sum */
};

/* A maximum is kept until the weights of a tile sum up to more: they stay far below the largest f16,
 * and O is rescaled rarely. */
#define LIMIT 1024.0f

/* The multiply-subtract of weights_of is exact but for one rounding, while m is a rounded product;
 * far from 0 the two part. There the scores are rounded first and the scale becomes 1. */
#define FAR 65536.0f

DEVICE int is_far(float m)
{
    return (m > FAR || m < -FAR) && m != -INFINITY;
}

DEVICE void set_maximum(struct accumulator *acc, int r, float m)
{
    acc->m[r] = m;
    acc->minus[r] = m == -INFINITY ? 0 : -m;
    acc->limit[r] = m == -INFINITY || is_far(m) ? -1 : LIMIT; /* -1: every tile goes the rare way */
}

DEVICE void start(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    float sink = -INFINITY, zero = float_of(fresh(0)); /* not a constant that is kept */
    if (FEATURES && a->sink.data)
        sink = load_element(element_at(&a->sink, w->b, w->head, 0, 0), 0, DTYPE_f32) * LOG2_E;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        set_maximum(acc, r, sink);
        acc->l[r] = sink != -INFINITY && fresh(THREAD) % WAVE / EDGE == 0 ? 1 : 0;
#pragma unroll
        for (int c = 0; c < CT; c++) acc->o[r][c] = zero;
    }
}

/* The same number, new to the compiler. */
DEVICE float fresh_f32(float x)
{
    asm volatile("" : "+v"(x));
    return x;
}

/* Weights exp2(scale * s + minus) rounded to DTYPE, as operands; the sum is of the unrounded ones. */
DEVICE float weights_of(results s, float scale, float minus, operand *p)
{
    float2 sum = {0, 0}, scales = {scale, scale}, minuses = {minus, minus};
#pragma unroll
    for (int v = 0; v < RESULTS; v += 2) {
        float2 x = {s[v], s[v + 1]};
        x = __builtin_elementwise_fma(x, scales, minuses);
        x.x = exp2_fast(x.x);
        x.y = exp2_fast(x.y);
        sum = v ? sum + x : x;
        s[v] = x.x, s[v + 1] = x.y;
    }
    weights_operand(p, s);
    return sum.x + sum.y;
}

DEVICE float maximum_of(results s)
{
    float m = s[0];
#pragma unroll
    for (int v = 1; v < RESULTS; v++) m = maximum(m, s[v]);
    return m;
}

/* The rare way: the row's maximum follows its scores, and the weights are made again. */
DEVICE float weights_after_raise(struct accumulator *acc, int r, results s, float scale, float sum,
                                 operand *p)
{
    float m = maximum_of(s) * scale, over = sum <= acc->limit[r] ? 0 : 1;
    m = maximum(m, lane_xor(m, EDGE));
    over = maximum(over, lane_xor(over, EDGE));
    float raised = over != 0 ? maximum(acc->m[r], m) : acc->m[r];
    float factor = exp2_fast(acc->m[r] - (raised == -INFINITY ? 0 : raised));
    set_maximum(acc, r, raised);
    acc->l[r] *= factor;
#pragma unroll
    for (int c = 0; c < CT; c++) acc->o[r][c] *= factor;
    s *= is_far(raised) ? scale : 1.0f;
    return weights_of(s, is_far(raised) ? 1.0f : scale, acc->minus[r], p);
}

/* Weights of score tile n against the maximum so far, which mostly holds; sum: of them, by query
 * tile. */
DEVICE void try_weights(const struct accumulator *acc, results (*s)[KT],
                        operand (*p)[CHUNKS_OF_EDGE], float scale, int n, float *sum)
{
#pragma unroll
    for (int r = 0; r < QT; r++) sum[r] = weights_of(s[r][n], scale, fresh_f32(acc->minus[r]), p[r]);
}

/* Makes these final. */
DEVICE void settle_weights(struct accumulator *acc, results (*s)[KT], operand (*p)[CHUNKS_OF_EDGE],
                           float scale, int n, float *sum)
{
    int over = 0;
#pragma unroll
    for (int r = 0; r < QT; r++) over |= !(sum[r] <= acc->limit[r]);
    if (any_in_wave(over)) {
#pragma unroll
        for (int r = 0; r < QT; r++)
            sum[r] = weights_after_raise(acc, r, s[r][n], scale, sum[r], p[r]);
    }
#pragma unroll
    for (int r = 0; r < QT; r++) acc->l[r] += sum[r];
}

#endif
