/* sm90_scales_i8.h: scales of i8 keys and values (KV_I8), on scores and weights.
 *
 * A key's scale, in units of log2, multiplies its scores where these become exponents; a value's its
 * weights, when these are summed up. A hidden key's may be anything: what it gives is overwritten.
 *
 * f16 (UNITS): a row's weights are multiplied by a power of two, its unit, in that its reference is lower
 * by as much: the one which brings the largest scale so far, of the values that the row sees, to 2^9 ...
 * 2^10, so that weights up to LARGEST_SUM times scales are numbers of f16, and small ones keep their
 * bits. Scales that are no numbers ask for none. */
#ifndef RAPT_NVIDIA_SM90_SCALES_I8_H
#define RAPT_NVIDIA_SM90_SCALES_I8_H

#include "sm90_turns.h"
#include "sm90_weights.h"

#if KV_I8
static_assert(EARLY_COLUMNS % 2 == 0, "scales come for 16 keys, two columns, at a time");

/* Of the block worked on: its keys' scales, then its values'. */
DEVICE uint32_t scales_now(const struct consumer &c)
{
    return c.base + AT_SCALES + (c.phase * STAGES + c.stage) * SLOT_BYTES;
}

/* Those of the lane's columns of 16 keys from 16 i on. */
DEVICE struct four_scales lane_scales(const struct consumer &c, uint32_t scales, int i)
{
    struct four_scales f;
    shared_load4(scales + 64 * i + (thread_now(c) & 3) * 16, f.x[0], f.x[1], f.x[2], f.x[3]);
    return f;
}

/* When the block's keys are there. */
DEVICE void hold_scales(struct consumer &c)
{
#pragma unroll
    for (int i = 0; i < KEYS_HELD; i++)
        c.scales[i] = lane_scales(c, scales_now(c) + AT_KEY_SCALES, i);
}

/* Column of the j-th of lane_scales(i), and where its score of the lane's first row is. */
__host__ __device__ constexpr int scale_column(int i, int j)
{
    return 16 * i + j / 2 * 8 + j % 2;
}
__host__ __device__ constexpr int scale_score(int i, int j)
{
    return 8 * i + j / 2 * 4 + j % 2;
}

/* Exponents of columns 8 BEGIN ... 8 END - 1, before the mask. */
template <int BEGIN, int END>
DEVICE void scale_exponents(const struct consumer &c, float (&s)[KEYS / 2],
                            const struct weighing &w)
{
#pragma unroll
    for (int i = BEGIN / 2; i < END / 2; i++) {
        struct four_scales f =
            i < KEYS_HELD ? c.scales[i] : lane_scales(c, scales_now(c) + AT_KEY_SCALES, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int at = scale_score(i, j);
            s[at] = __fmaf_rn(s[at], f.x[j], -w.from0);
            s[at + 2] = __fmaf_rn(s[at + 2], f.x[j], -w.from1);
        }
    }
}

/* Exponents become weights. SHIFTED: less from0, from1, which are 0, as the compiler may not know. */
template <int BEGIN, int END, bool SHIFTED>
DEVICE void weigh_exponents(float (&s)[KEYS / 2], struct weighing &w)
{
#pragma unroll
    for (int i = BEGIN; i < END; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float &x = s[4 * i + e], &y = s[4 * i + 2 + e];
            x = exp2_approx(SHIFTED ? __fadd_rn(x, -w.from0) : x);
            y = exp2_approx(SHIFTED ? __fadd_rn(y, -w.from1) : y);
        }
        w.sum0 = __fadd_rn(w.sum0, __fadd_rn(s[4 * i], s[4 * i + 1]));
        w.sum1 = __fadd_rn(w.sum1, __fadd_rn(s[4 * i + 2], s[4 * i + 3]));
    }
}

/* Columns of a block that the lane's two rows see: below <= column < above, from its first one on. */
struct seen_columns {
    int below0, above0, below1, above1;
};
DEVICE struct seen_columns columns_seen(const struct consumer &c, const struct attention_args &a,
                                        const struct tile &t, int block)
{
    int row = token_of_row(a, row_now(c)), first = block * KEYS + column_now(c);
    struct seen_columns seen;
    visible_columns(a, t, block, row, column_now(c), seen.above0, seen.above1);
    seen.below0 = t.rows * tile_tokens(a) + row + query_offset(a, &t) - a.window_left - first;
    seen.below1 = seen.below0 + 8;
    return seen;
}

/* Of the visible scores times scales. */
DEVICE void visible_maxima(const struct consumer &c, const struct attention_args &a,
                           const struct tile &t, const float (&s)[KEYS / 2], int block, float &x0,
                           float &x1)
{
    const struct seen_columns seen = columns_seen(c, a, t, block);
    x0 = x1 = -INFINITY;
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        struct four_scales f = lane_scales(c, scales_now(c) + AT_KEY_SCALES, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int column = scale_column(i, j), at = scale_score(i, j);
            float x = __fmul_rn(s[at], f.x[j]), y = __fmul_rn(s[at + 2], f.x[j]);
            if (column >= seen.below0 && column < seen.above0) x0 = fmaxf(x0, x);
            if (column >= seen.below1 && column < seen.above1) x1 = fmaxf(x1, y);
        }
    }
}

#if DTYPE == DTYPE_f16 && !V_BF16
/* The unit for a scale of this exponent. Smaller scales ask for no larger one: sums of weights stay
 * finite. */
constexpr int LEAST_EXPONENT = 60;
DEVICE float unit_for(int exponent)
{
    return __uint_as_float((uint32_t)(263 - max_int(exponent, LEAST_EXPONENT)) << 23);
}

DEVICE float exponent_of_power(float x)
{
    return (float)((int)(__float_as_uint(x) >> 23) - 127);
}

DEVICE int row_max_int(int x)
{
    x = max_int(x, __shfl_xor_sync(~0u, x, 2));
    return max_int(x, __shfl_xor_sync(~0u, x, 1));
}

/* Units for the largest scales of a block that the lane's rows see. */
template <bool MASKED>
DEVICE float2 units_for_block(const struct consumer &c, const struct attention_args &a,
                              const struct tile &t, int block)
{
    uint32_t slot = scales_now(c);
    if (!MASKED) {
        int x = max_int(shared_load(slot + AT_EXPONENTS), shared_load(slot + AT_EXPONENTS + 4));
        return make_float2(unit_for(x), unit_for(x));
    }
    const struct seen_columns seen = columns_seen(c, a, t, block);
    int x0 = 0, x1 = 0;
#pragma unroll 1 /* registers are few */
    for (int i = 0; i < KEYS / 16; i++) {
        struct four_scales f = lane_scales(c, slot + AT_VALUE_SCALES, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int column = scale_column(i, j), x = scale_exponent(__float_as_uint(f.x[j]));
            if (column >= seen.below0 && column < seen.above0) x0 = max_int(x0, x);
            if (column >= seen.below1 && column < seen.above1) x1 = max_int(x1, x);
        }
    }
    return make_float2(unit_for(row_max_int(x0)), unit_for(row_max_int(x1)));
}

/* Lowers units where a block asks for it; what the rows have so far is to be multiplied by as much. */
template <bool MASKED, bool FIRST>
DEVICE void lower_units(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, struct row_state &r, int block)
{
    float2 unit = units_for_block<MASKED>(c, a, t, block);
    if (FIRST) {
        r.unit0 = unit.x;
        r.unit1 = unit.y;
        return;
    }
    if (!__any_sync(~0u, (unit.x < r.unit0) | (unit.y < r.unit1))) return;
    float decay0 = fminf(__fmul_rn(unit.x, inverse_power(r.unit0)), 1),
          decay1 = fminf(__fmul_rn(unit.y, inverse_power(r.unit1)), 1);
    r.unit0 = __fmul_rn(r.unit0, decay0);
    r.unit1 = __fmul_rn(r.unit1, decay1);
    r.reference0 = __fadd_rn(r.reference0, -exponent_of_power(decay0));
    r.reference1 = __fadd_rn(r.reference1, -exponent_of_power(decay1));
    set_decay(r, decay0, decay1);
}

/* A row's largest score, lowered so that weights are in its unit. */
DEVICE float in_unit(float x, float unit)
{
    return __fadd_rn(x, -exponent_of_power(unit));
}
#else
template <bool MASKED, bool FIRST>
DEVICE void lower_units(const struct consumer &, const struct attention_args &, const struct tile &,
                        struct row_state &, int)
{
}
DEVICE float in_unit(float x, float)
{
    return x;
}
#endif

/* begin_block() of sm90_consumer.h. Where MASKED, exponents are whole before the mask. */
template <bool MASKED, bool FIRST, bool REPAIR>
DEVICE struct weighing begin_scaled(const struct consumer &c, const struct attention_args &a,
                                    const struct tile &t, float (&s)[KEYS / 2], struct row_state &r,
                                    int block)
{
    bool maxima = needs_maxima<MASKED, FIRST, REPAIR>(r);
    lower_units<MASKED, FIRST>(c, a, t, r, block);
    if (maxima) {
        float x0, x1;
        float2 unit = units_of(r);
        visible_maxima(c, a, t, s, block, x0, x1);
        take_maxima<REPAIR>(r, in_unit(x0, unit.x), in_unit(x1, unit.y));
    }
    struct weighing w = weighing_of<MASKED, REPAIR>(r);
    if (MASKED) {
        scale_exponents<0, COLUMNS>(c, s, w);
        mask_block(a, t, s, block, token_of_row(a, row_now(c)), column_now(c));
        w.from0 = w.from1 = 0;
    } else {
        scale_exponents<0, EARLY_COLUMNS>(c, s, w);
    }
    weigh_exponents<0, EARLY_COLUMNS, false>(s, w);
    return w;
}

/* end_block(), from where the other exponents may be taken. */
template <bool MASKED>
DEVICE void end_scaled(const struct consumer &c, const struct attention_args &a,
                       const struct tile &t, float (&s)[KEYS / 2], struct weighing &w, int block)
{
    if (!MASKED) scale_exponents<EARLY_COLUMNS, COLUMNS>(c, s, w);
    weigh_exponents<EARLY_COLUMNS, COLUMNS, MASKED>(s, w);
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        struct four_scales f = lane_scales(c, scales_now(c) + AT_VALUE_SCALES, i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int at = scale_score(i, j);
            s[at] = __fmul_rn(s[at], f.x[j]);
            s[at + 2] = __fmul_rn(s[at + 2], f.x[j]);
        }
    }
    /* several scales: what is no number is the values' own */
    if (MASKED && SCALE_BLOCKS == 1)
        mask_block(a, t, s, block, token_of_row(a, row_now(c)), column_now(c), 0);
}

#endif
#endif
