/* sm90_weights.h: the softmax of 16-bit rows. References are in units of log2.
 *
 * The first visible block of a row sets its reference to the block's maximum. Later blocks look
 * for no maximum: their weights are taken against the reference as it is, and only when a lane's
 * sum of them exceeds LARGEST_SUM is the reference raised, to the block's maximum or by a whole
 * number. A largest weight of exactly 1 is not rounded, which for peaked scores is the better part
 * of the error (docs/decisions/0003-rounding-of-p.md). A weight that overflows, 2^128 above the
 * reference, makes the output infinite or NaN; such a tile is computed again with maxima
 * (sm90_repair.h).
 *
 * A row must have the same bits whichever copy of this code works on it: masked or not, in the
 * pipeline or in a repair. The compiler may fuse a product and a sum in one copy and not in
 * another, so every rounding is written out: __fmul_rn, __fadd_rn and __fmaf_rn are never fused.
 * And whether a warp raises references makes no difference to a row that keeps its own: it is then
 * multiplied by 1. */
#ifndef RAPT_NVIDIA_SM90_WEIGHTS_H
#define RAPT_NVIDIA_SM90_WEIGHTS_H

#include "sm90_low.h"
#include "sm90_mask.h"
#include "sm90_softmax.h"

/* Where a row's first block shows it all keys, normal scores hardly ever have a weight far above 1,
 * and the largest is brought to 1, which is not rounded. Else rows that began with few keys would
 * nearly all be raised. Not with panels, where it costs the overlap (nvcc 13.0). Measured:
 * bench/notes/hopper.md */
constexpr bool TO_ONE = !FEATURES && !PANEL_MAPS && (!CAUSAL || ASCENDING);

/* Of a lane's KEYS / 4 weights of one row in a block, in its unit. f16 holds each of them, also times
 * a scale. */
constexpr float LARGEST_SUM = UNITS ? 0x1p5f : !TO_ONE ? 0x1p15f : KEYS > 80 ? 24 : 32;

/* 8-key columns of a block, and those whose weights are taken while p v runs; the others follow
 * behind it, beside their rounding. */
constexpr int COLUMNS = KEYS / 8, EARLY_COLUMNS = COLUMNS * EARLY / 8;

/* SCORES_CAPPED: columns that are prepared ahead; registers are few. */
constexpr int CAP_COLUMNS = VALUES > 128 ? 2 : 4;

/* A block on its way: what to subtract from its rows' scores, and the sums of their weights. With
 * SCORES_SLOPED no row sees a key past its own position, so that ALiBi's distance is linear in the
 * key: from0 and from1 hold the distance of the lane's first column as well. */
struct weighing {
    float from0, from1, sum0, sum1;
#if SCORES == SCORES_CAPPED
    bool far; /* this and what follows: sm90_capped.h */
    float t[4 * CAP_COLUMNS];
    uint32_t signs; /* bit 31: no score met so far is beyond the polynomial */
    float early[EARLY > 0 ? EARLY_COLUMNS : 1][4];
#endif
};

/* A score in units of log2, less from; column: counted from the lane's first. */
DEVICE float exponent_of(float s, float scale, float slope, int column, float from)
{
    return __fmaf_rn(s, scale,
                     SCORES == SCORES_SLOPED ? __fmaf_rn(slope, (float)column, -from) : -from);
}

/* Of the lane's scores in each row; with SCORES_SLOPED, from those of the lane's first column. */
DEVICE void row_maxima(const float (&s)[KEYS / 2], float scale, float slope, float &x0, float &x1)
{
    x0 = x1 = -INFINITY;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            bool sloped = SCORES == SCORES_SLOPED;
            float x = s[4 * i + e], y = s[4 * i + 2 + e];
            x0 = fmaxf(x0, sloped ? exponent_of(x, scale, slope, 8 * i + e, 0) : x);
            x1 = fmaxf(x1, sloped ? exponent_of(y, scale, slope, 8 * i + e, 0) : y);
        }
    }
    if (SCORES != SCORES_SLOPED) x0 = __fmul_rn(x0, scale);
    if (SCORES != SCORES_SLOPED) x1 = __fmul_rn(x1, scale);
}

/* Of all lanes of a row, which are four. */
DEVICE float row_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 1));
}

/* What came before is to be multiplied by these. */
DEVICE void set_decay(struct row_state &r, float decay0, float decay1)
{
    r.sum0 = __fmul_rn(r.sum0, decay0);
    r.sum1 = __fmul_rn(r.sum1, decay1);
    r.decay0 = r.rescale ? __fmul_rn(r.decay0, decay0) : decay0;
    r.decay1 = r.rescale ? __fmul_rn(r.decay1, decay1) : decay1;
    r.rescale = true;
}

/* In a repair: the decay of a row whose reference must rise to x, or 1. */
DEVICE float raise_far(float &reference, float x)
{
    if (!(__fadd_rn(x, -reference) >= 127)) return 1;
    float decay = exp2_approx(reference - x);
    reference = x;
    return decay;
}

/* Whether a block's maxima are needed. FIRST: of a tile, r holds nothing yet. CHECKED: rows may
 * have had nothing visible before. */
template <bool CHECKED, bool FIRST, bool REPAIR> DEVICE bool needs_maxima(struct row_state &r)
{
    if (FIRST) r.sum0 = r.sum1 = 0;
    if (FIRST) r.reference0 = r.reference1 = -INFINITY;
    r.rescale = false;
#if LOW_ROWS
    return FIRST || REPAIR || __any_sync(~0u, (r.reference0 < LOW) | (r.reference1 < LOW));
#endif
    return FIRST || REPAIR ||
           (CHECKED && !ASCENDING &&
            __any_sync(~0u, (r.reference0 == -INFINITY) | (r.reference1 == -INFINITY)));
}

/* x0, x1: the lane's maxima, in units of log2. */
template <bool REPAIR> DEVICE void take_maxima(struct row_state &r, float x0, float x1)
{
    x0 = row_max(x0);
    x1 = row_max(x1);
#if LOW_ROWS
    if (!REPAIR) {
        find_reference(r.reference0, r.sum0, x0);
        find_reference(r.reference1, r.sum1, x1);
        return;
    }
#endif
    if (r.reference0 == -INFINITY) r.reference0 = x0;
    if (r.reference1 == -INFINITY) r.reference1 = x1;
    if (REPAIR) {
        float decay0 = raise_far(r.reference0, x0), decay1 = raise_far(r.reference1, x1);
        set_decay(r, decay0, decay1);
    }
}

template <bool CHECKED, bool REPAIR> DEVICE struct weighing weighing_of(const struct row_state &r)
{
    struct weighing w = {r.reference0, r.reference1, 0, 0};
#if LOW_ROWS
    if (!REPAIR && r.reference0 < LOW) w.from0 = 0;
    if (!REPAIR && r.reference1 < LOW) w.from1 = 0;
#endif
    if (CHECKED && r.reference0 == -INFINITY) w.from0 = 0;
    if (CHECKED && r.reference1 == -INFINITY) w.from1 = 0;
    return w;
}

/* Scores of columns 8 BEGIN ... 8 END - 1 become weights. */
template <int BEGIN, int END>
DEVICE void weigh_columns(float (&s)[KEYS / 2], struct weighing &w, float scale, float slope)
{
#pragma unroll
    for (int i = BEGIN; i < END; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float &x = s[4 * i + e], &y = s[4 * i + 2 + e];
            x = exp2_approx(exponent_of(x, scale, slope, 8 * i + e, w.from0));
            y = exp2_approx(exponent_of(y, scale, slope, 8 * i + e, w.from1));
        }
        w.sum0 = __fadd_rn(w.sum0, __fadd_rn(s[4 * i], s[4 * i + 1]));
        w.sum1 = __fadd_rn(w.sum1, __fadd_rn(s[4 * i + 2], s[4 * i + 3]));
    }
}

/* The decay of a row that one of its lanes' sums is too large for, or 1: with TO_ONE it makes the
 * block's largest weight 1, or where all weights are about as large 1/2, which is as exact and keeps
 * the next block's sum in bounds (rows past the last query have equal scores); else it is a power of
 * two. The reference goes up by as much. */
DEVICE float lower_weights(float sum, float largest, float &reference)
{
    sum = row_max(sum);
    if (TO_ONE) {
        largest = row_max(largest);
        if (!(sum > LARGEST_SUM)) return 1;
        float before = reference, rise = __log2f(largest);
        if (sum > LARGEST_SUM * largest) rise = __fadd_rn(rise, 1);
        reference = __fadd_rn(before, fminf(rise, 126));
        return exp2_approx(fmaxf(__fadd_rn(before, -reference), -126)); /* below: flushed to 0 */
    }
    int exponent = sum > LARGEST_SUM ? min_int((int)(__float_as_uint(sum) >> 23) - 127, 126) : 0;
    reference = __fadd_rn(reference, (float)exponent);
    return __uint_as_float((uint32_t)(127 - exponent) << 23);
}

#if KV_I8
/* What the weights of the lane's rows are multiplied by. */
DEVICE float2 units_of(const struct row_state &r)
{
    return UNITS ? make_float2(r.unit0, r.unit1) : make_float2(1, 1);
}
#endif

/* Of a power of two. */
DEVICE float inverse_power(float x)
{
    return __uint_as_float((254u << 23) - __float_as_uint(x));
}

/* Rare. */
DEVICE void lower_block(float (&s)[KEYS / 2], struct row_state &r, struct weighing &w)
{
    float x = 0, y = 0;
#pragma unroll
    for (int i = 0; TO_ONE && i < COLUMNS; i++) {
        x = fmaxf(x, fmaxf(s[4 * i], s[4 * i + 1]));
        y = fmaxf(y, fmaxf(s[4 * i + 2], s[4 * i + 3]));
    }
#if KV_I8
    float2 unit = units_of(r);
    x = lower_weights(w.sum0 * inverse_power(unit.x), x, r.reference0);
    y = lower_weights(w.sum1 * inverse_power(unit.y), y, r.reference1);
#else
    x = lower_weights(w.sum0, x, r.reference0);
    y = lower_weights(w.sum1, y, r.reference1);
#endif
    set_decay(r, x, y);
#if KV_I8 /* where s holds them times scales: powers of two, so exactly the sums of the lower weights */
    w.sum0 = __fmul_rn(w.sum0, x);
    w.sum1 = __fmul_rn(w.sum1, y);
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = __fmul_rn(s[i], i & 2 ? y : x);
    return;
#endif
    w.sum0 = w.sum1 = 0;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        s[4 * i] = __fmul_rn(s[4 * i], x);
        s[4 * i + 1] = __fmul_rn(s[4 * i + 1], x);
        s[4 * i + 2] = __fmul_rn(s[4 * i + 2], y);
        s[4 * i + 3] = __fmul_rn(s[4 * i + 3], y);
        w.sum0 = __fadd_rn(w.sum0, __fadd_rn(s[4 * i], s[4 * i + 1]));
        w.sum1 = __fadd_rn(w.sum1, __fadd_rn(s[4 * i + 2], s[4 * i + 3]));
    }
}

DEVICE void add_sums(struct row_state &r, const struct weighing &w)
{
    r.sum0 = __fadd_rn(r.sum0, w.sum0);
    r.sum1 = __fadd_rn(r.sum1, w.sum1);
}

DEVICE bool too_large(const struct row_state &r, const struct weighing &w)
{
#if KV_I8
    float2 unit = units_of(r);
    return __any_sync(~0u, (w.sum0 > LARGEST_SUM * unit.x) | (w.sum1 > LARGEST_SUM * unit.y));
#endif
    return __any_sync(~0u, (w.sum0 > LARGEST_SUM) | (w.sum1 > LARGEST_SUM));
}

#endif
