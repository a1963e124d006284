/* sm90_mask.h: which scores of a block are hidden, and what else changes a score before the
 * softmax. */
#ifndef RAPT_NVIDIA_SM90_MASK_H
#define RAPT_NVIDIA_SM90_MASK_H

#include "sm90_cell_rows.h"

constexpr float LN2 = 0.6931471805599453f, LOG2E = 1.4426950408889634f;

/* Column limits of a lane's two rows, r and r + 8, relative to the lane's first column of the
 * block: hidden unless below <= c < above. Element 4i + e is row r, column column_of(i, e); 4i + 2 + e
 * is row r + 8. Overwrites, so NaN in hidden scores goes. */
DEVICE void hide_above(float (&s)[KEYS / 2], int above0, int above1, float hidden = -INFINITY)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (column_of(i, e) >= above0) s[4 * i + e] = hidden;
            if (column_of(i, e) >= above1) s[4 * i + 2 + e] = hidden;
        }
    }
}

DEVICE void hide_below(float (&s)[KEYS / 2], int below0, int below1, float hidden = -INFINITY)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            if (column_of(i, e) < below0) s[4 * i + e] = hidden;
            if (column_of(i, e) < below1) s[4 * i + 2 + e] = hidden;
        }
    }
}

/* Columns that the lane's two rows see from the left: hide_above's limits. row: the lane's first
 * row within the tile, as a query; column: within a block. */
DEVICE void visible_columns(const struct attention_args &a, const struct tile &t, int block,
                            int row, int column, int &above0, int &above1)
{
    int first = block * KEYS + column;
    above0 = above1 = kv_tokens(a, &t);
    if (CAUSAL || FEATURES) {
        int end = t.rows * tile_tokens(a) + row + query_offset(a, &t) + a.window_right +
                  1; /* below 2^31: see attention_args */
        above0 = min_int(above0, end);
        above1 = min_int(above1, end + 8);
    }
    above0 -= first;
    above1 -= first;
}

DEVICE void mask_block(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                       int block, int row, int column, float hidden = -INFINITY)
{
    int above0, above1;
    visible_columns(a, t, block, row, column, above0, above1);
#if FEATURES
    int first_end =
        t.rows * tile_tokens(a) + query_offset(a, &t) + a.window_right + 1; /* of the first row */
    if (block * KEYS + KEYS > min_int(first_end, t.kv_tokens))
        hide_above(s, above0, above1, hidden);
#else
    hide_above(s, above0, above1, hidden);
#endif
#if FEATURES
    int begin = t.rows * tile_tokens(a) + row + query_offset(a, &t) - a.window_left;
    int first = block * KEYS + column;
    if (block * KEYS < (t.rows + 1) * tile_tokens(a) + query_offset(a, &t) - a.window_left)
        hide_below(s, begin - first, begin + 8 - first, hidden);
#endif
}

#if FEATURES

/* Whether scores leave their linear form, so that they must be put in units of log2 before the
 * softmax, or with SCORES_CAPPED in it. */
DEVICE bool scores_change(const struct attention_args &a)
{
    if (SCORES != SCORES_ANY) return SCORES != SCORES_LINEAR && SCORES != SCORES_KEYED;
    return a.softcap != 0 || a.alibi.data || a.scale < 0 || (CELL_ROWS && a.bias.data);
}

/* tanh x = 1 - 2 / (1 + e^2x); tanh.approx would leave 2^-11, times the cap a percent of the
 * weight. Roundings are written out here as in sm90_softmax.h. */
DEVICE float tanh_exp2(float x) /* of x / (2 log2 e) */
{
    return __fmaf_rn(-2, reciprocal_approx(__fadd_rn(1, exp2_approx(x))), 1);
}

/* Scores to capped ones times log2(e). scale: log2(e) for one unit of them. */
DEVICE void cap_scores(const struct attention_args &a, float (&s)[KEYS / 2], float scale)
{
#if PARTS == 2 /* a division would be a call: registers are few */
    float near = reciprocal_approx(a.softcap),
          in = 2 * scale * __fmaf_rn(__fmaf_rn(-a.softcap, near, 1), near, near),
          out = a.softcap * 1.4426950408889634f;
#else
    float in = 2 * scale / a.softcap, out = a.softcap * 1.4426950408889634f;
#endif
#pragma unroll
    for (int i = 0; i < KEYS / 2; i++) s[i] = __fmul_rn(out, tanh_exp2(__fmul_rn(in, s[i])));
}

DEVICE float tile_slope(const struct attention_args &a, const struct tile &t)
{
    if (!a.alibi.data) return 0;
    return ((const float *)a.alibi.data)[t.batch * a.alibi.stride[0] + t.head * a.alibi.stride[1]] *
           LOG2E;
}

/* Scores less the ALiBi distance, slope * |key - position|; all times log2(e). */
DEVICE void slope_scores(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                         int block, int row, int column, float slope)
{
    float distance = (float)(block * KEYS + column - (t.rows * ROWS + row + query_offset(a, &t)));
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x = fabsf(distance + column_of(i, e)),
                  y = fabsf(distance + (column_of(i, e) - 8));
            s[4 * i + e] = __fmaf_rn(-slope, x, s[4 * i + e]);
            s[4 * i + 2 + e] = __fmaf_rn(-slope, y, s[4 * i + 2 + e]);
        }
    }
}

/* Scores times log2(e): scaled, capped, and less the ALiBi distance. slope: times log2(e). */
DEVICE void change_scores(const struct attention_args &a, const struct tile &t,
                          float (&s)[KEYS / 2], int block, int row, int column, float slope)
{
    if (a.softcap != 0) {
        cap_scores(a, s, a.scale_log2);
    } else {
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) s[i] = __fmul_rn(s[i], a.scale_log2);
    }
    if (a.alibi.data) slope_scores(a, t, s, block, row, column, slope);
#if CELL_ROWS
    if (a.bias.data) add_bias(a, t, s, block, row, column);
#endif
}

#endif
#endif
