/* softmax.h: the online softmax of the AMD forward (Milakov and Gimelshein 2018). All decisions are
 * a row's own, so that a row's bits do not depend on the other rows of its wave. */
#ifndef RAPT_AMD_SOFTMAX_H
#define RAPT_AMD_SOFTMAX_H

#include "amd/work.h"

struct accumulator {
    results o[QT][CT]; /* transposed: channels x queries */
    /* What exponents are taken against, times log2 e: at most KEEP below the maximum so far. Both
     * halves hold the same */
    float m[QT];
    float l[QT]; /* this lane's part of the sum */
};

/* A maximum is kept while no score exceeds it by more: P grows to 2^8 at most, and O is rescaled
 * rarely. */
#define KEEP 8.0f

/* The multiply-subtract of softmax_step is exact but for one rounding, while m is a rounded
 * product; far from 0 the two part. There the scores are rounded first and the scale becomes 1. */
#define FAR 65536.0f

DEVICE void start(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    float sink = -INFINITY;
    if (FEATURES && a->sink.data)
        sink = load_element(element_at(&a->sink, w->b, w->head, 0, 0), 0, DTYPE_f32) * LOG2_E;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        acc->m[r] = sink;
        acc->l[r] = sink != -INFINITY && lane_here() / EDGE == 0 ? 1 : 0;
#pragma unroll
        for (int c = 0; c < CT; c++) acc->o[r][c] = 0;
    }
}

/* m: this lane's maximum of its scores, scaled. */
DEVICE void raise_maximum(struct accumulator *acc, int r, float m)
{
    m = maximum(m, lane_xor(m, EDGE));
    float raised = m > acc->m[r] + KEEP ? m : acc->m[r];
    float factor = exp2_fast(acc->m[r] - (raised == -INFINITY ? 0 : raised));
    acc->m[r] = raised;
    acc->l[r] *= factor;
#pragma unroll
    for (int c = 0; c < CT; c++) acc->o[r][c] *= factor;
}

DEVICE float maximum_of(const results *s)
{
    float m = s[0][0];
#pragma unroll
    for (int n = 0; n < KT; n++)
#pragma unroll
        for (int v = 0; v < RESULTS; v++) m = maximum(m, s[n][v]);
    return m;
}

/* Scores become weights exp2(scale * s - m); p: rounded to DTYPE, as operands; the sums take the
 * unrounded ones. */
DEVICE void softmax_step(struct accumulator *acc, results (*s)[KT], operand (*p)[PV_CHUNKS],
                         float scale_log2)
{
    float m[QT], scale[QT];
    int unusual = 0;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        scale[r] = scale_log2;
        m[r] = maximum_of(s[r]) * scale_log2;
        unusual |= m[r] > acc->m[r] + KEEP || m[r] < -FAR || m[r] > FAR;
    }
    if (any_in_wave(unusual)) {
#pragma unroll
        for (int r = 0; r < QT; r++) {
            raise_maximum(acc, r, m[r]);
            int far = (acc->m[r] > FAR || acc->m[r] < -FAR) && acc->m[r] != -INFINITY;
#pragma unroll
            for (int n = 0; n < KT; n++) s[r][n] *= far ? scale_log2 : 1.0f;
            scale[r] = far ? 1.0f : scale_log2;
        }
    }
#pragma unroll
    for (int r = 0; r < QT; r++) {
        float base = acc->m[r] == -INFINITY ? 0 : acc->m[r];
#pragma unroll
        for (int n = 0; n < KT; n++) {
            results x = __builtin_elementwise_fma(s[r][n], (results)scale[r], (results)-base);
#pragma unroll
            for (int v = 0; v < RESULTS; v++) x[v] = exp2_fast(x[v]);
#pragma unroll
            for (int v = 0; v < RESULTS; v++) acc->l[r] += x[v];
            weights_operand(&p[r][n * CHUNKS_OF_EDGE], x);
        }
    }
}

#endif
