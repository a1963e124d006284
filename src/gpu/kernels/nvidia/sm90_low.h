/* sm90_low.h: maxima far below 0, as padding by a bias of -1e4, -1e30 or the like gives them
 * (LOW_ROWS: rows with a bias).
 *
 * A block's maximum below LOW, in units of log2, is no reference: such keys have weight 0 beside
 * others, and no sum overflows when these come. A row that may need their weights all the same has a
 * sum of NaN, so that its tile is done again (sm90_repair.h), where they count: all its keys are
 * low, or its first other maximum is less than GAP above a low one. */
#ifndef RAPT_NVIDIA_SM90_LOW_H
#define RAPT_NVIDIA_SM90_LOW_H

#include "sm90_mask.h"
#include "sm90_softmax.h"

#if LOW_ROWS

constexpr float LOW = -0x1p13f, GAP = 150;

DEVICE float no_number(void)
{
    return __uint_as_float(0x7fffffff);
}

DEVICE bool is_low(float reference)
{
    return reference < LOW && reference != -INFINITY;
}

/* x: a block's maximum. A low one is kept as the reference until another comes. */
DEVICE void find_reference(float &reference, float &sum, float x)
{
    if (!(reference < LOW)) return;
    if (x < LOW) {
        reference = fmaxf(reference, x);
        return;
    }
    if (__fadd_rn(x, -reference) < GAP) sum = no_number();
    reference = x;
}

/* Of a row that has met low keys alone. */
DEVICE struct row_state marked(struct row_state r)
{
    if (is_low(r.reference0)) r.sum0 = no_number();
    if (is_low(r.reference1)) r.sum1 = no_number();
    return r;
}

/* In a repair: scores of the lane's row ROW / 2, less a low reference. One multiply-add of such numbers
 * is off by more than their distance; two products of the same number are the same. (KEYED: their
 * factor is 1.) */
template <int ROW> DEVICE void lift_low(float (&s)[KEYS / 2], float reference, float &from)
{
    if (KEYED || !is_low(reference)) return;
#pragma unroll
    for (int i = 0; i < KEYS / 4; i++) {
        float &x = s[i / 2 * 4 + ROW + i % 2];
        x = __fmul_rn(__fadd_rn(__fmul_rn(x, LOG2E), -reference), LN2);
    }
    from = 0;
}

#endif
#endif
