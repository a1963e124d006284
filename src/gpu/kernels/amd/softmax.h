/* softmax.h: the online softmax of the AMD forward (Milakov and Gimelshein 2018). All decisions are
 * a row's own, so that a row's bits do not depend on the other rows of its wave. */
#ifndef RAPT_AMD_SOFTMAX_H
#define RAPT_AMD_SOFTMAX_H

#include "amd/work.h"

struct accumulator {
    results o[QT][CT]; /* transposed: channels x queries */
    float m[QT];     /* what exponents are taken against, times log2 e: a maximum of scores so far, or
                          LIFT below it; both halves hold the same */
    float minus[QT]; /* -m, but 0 while m is -inf */
    float limit[QT]; /* the largest sum of a score tile's weights that leaves m as it is */
    float l[QT];     /* this lane's part of the sum */
};

/* A maximum is kept until the weights of a tile sum up to more: they stay far below the largest
 * f16, and O is rescaled rarely. gfx90a's matrix units take f16 below 2^-14 for 0: there the weight of
 * a maximum is 2^LIFT, so that what is lost is no more than what subnormal numbers elsewhere lose. */
#if DTYPE == DTYPE_f16 && defined(__gfx90a__)
#define LIFT  11
#define LIMIT 65504.0f
#else
#define LIFT  0
#define LIMIT 1024.0f
#endif

/* The multiply-subtract of weights_of is exact but for one rounding, while m is a rounded product;
 * far from 0 the two part. There the scores are rounded first and the scale becomes 1. */
#define FAR 65536.0f

DEVICE int is_far(float m)
{
    return (m > FAR || m < -FAR) && m != -INFINITY;
}

/* What exponents are taken against where m is the maximum. */
DEVICE float lifted(float m)
{
    return LIFT && !is_far(m) ? m - LIFT : m;
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
    float one = LIFT && !is_far(sink) ? 1 << LIFT : 1; /* the weight of the sink */
#pragma unroll
    for (int r = 0; r < QT; r++) {
        set_maximum(acc, r, lifted(sink));
        acc->l[r] = sink != -INFINITY && fresh(THREAD) % WAVE / EDGE == 0 ? one : 0;
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

/* The weights of a score tile in the making: exp2(scale * s + minus), two of a lane's at a time, in
 * steps that run between matrix products. */
struct weighing {
    float2 scale[QT], minus[QT], sum[QT]; /* sum: of the unrounded ones */
    float x[QT][RESULTS];
    uint32_t pairs[QT][RESULTS / 2]; /* rounded to DTYPE */
};

enum { WEIGHING_STEPS = RESULTS + 4 };

DEVICE void begin_row(struct weighing *g, int r, float scale, float minus)
{
    g->scale[r].x = g->scale[r].y = scale;
    g->minus[r].x = g->minus[r].y = fresh_f32(minus); /* no copies of it are kept */
}

/* Against the maximum so far, which mostly holds. */
DEVICE void begin_weights(struct weighing *g, const struct accumulator *acc, float scale)
{
#pragma unroll
    for (int r = 0; r < QT; r++) begin_row(g, r, scale, acc->minus[r]);
}

/* One step for query tile r: three stages of three successive pairs, so that none waits for
 * another, with one exponential a step. */
DEVICE void weigh_step(struct weighing *g, const results *s, int r, int step)
{
    float *x = g->x[r];
    if (step >= 2 && step - 2 < RESULTS) x[step - 2] = exp2_fast(x[step - 2]);
    if (step % 2 == 0 && step < RESULTS) {
        float2 two = {(*s)[step], (*s)[step + 1]};
        two = __builtin_elementwise_fma(two, g->scale[r], g->minus[r]);
        x[step] = two.x, x[step + 1] = two.y;
    }
    if (step % 2 && step >= 5) {
        int i = step - 5;
        float2 two = {x[i], x[i + 1]};
        g->sum[r] = i ? g->sum[r] + two : two;
        g->pairs[r][i / 2] = pack_weights(two.x, two.y);
        asm volatile("" : "+v"(g->pairs[r][i / 2])); /* here, not where it is used */
    }
}

/* The steps that fall into slot `slot` of `slots`, of score tile n. */
DEVICE void weigh(struct weighing *g, results (*s)[KT], int n, int slot, int slots)
{
#pragma unroll
    for (int i = 0; i < WEIGHING_STEPS * QT; i++)
        if (i * slots / (WEIGHING_STEPS * QT) == slot) weigh_step(g, &s[i % QT][n], i % QT, i / QT);
}

DEVICE void weigh_all(struct weighing *g, results (*s)[KT], int n)
{
    weigh(g, s, n, 0, 1);
}

DEVICE float maximum_of(results s)
{
    float m = s[0];
#pragma unroll
    for (int v = 1; v < RESULTS; v++) m = maximum(m, s[v]);
    return m;
}

/* The rare way: the row's maximum follows its scores, and the weights are made again. */
DEVICE void weigh_after_raise(struct accumulator *acc, int r, results s, float scale,
                              struct weighing *g)
{
    float sum = g->sum[r].x + g->sum[r].y, over = sum <= acc->limit[r] ? 0 : 1;
    float m = maximum_of(s) * scale;
    m = lifted(maximum(m, lane_xor(m, EDGE)));
    over = maximum(over, lane_xor(over, EDGE));
    float raised = over != 0 ? maximum(acc->m[r], m) : acc->m[r];
    float factor = exp2_fast(acc->m[r] - (raised == -INFINITY ? 0 : raised));
    set_maximum(acc, r, raised);
    acc->l[r] *= factor;
#pragma unroll
    for (int c = 0; c < CT; c++) acc->o[r][c] *= factor;
    s *= is_far(raised) ? scale : 1.0f;
    begin_row(g, r, is_far(raised) ? 1.0f : scale, acc->minus[r]);
#pragma unroll
    for (int i = 0; i < WEIGHING_STEPS; i++) weigh_step(g, &s, r, i);
}

/* Makes the weights of score tile n final; p: as operands. */
DEVICE void settle_weights(struct accumulator *acc, results (*s)[KT], operand (*p)[CHUNKS_OF_EDGE],
                           float scale, int n, struct weighing *g)
{
    int over = 0;
#pragma unroll
    for (int r = 0; r < QT; r++) over |= !(g->sum[r].x + g->sum[r].y <= acc->limit[r]);
    if (any_in_wave(over)) {
#pragma unroll
        for (int r = 0; r < QT; r++) weigh_after_raise(acc, r, s[r][n], scale, g);
    }
#pragma unroll
    for (int r = 0; r < QT; r++) {
        acc->l[r] += g->sum[r].x + g->sum[r].y;
        weights_operand(p[r], g->pairs[r]);
    }
}

#endif
