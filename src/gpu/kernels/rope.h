/* rope.h: rotary position embedding of one row (Su et al. 2021), in runs of neighbouring pairs; for
 * rope and kv_append. */
#ifndef RAPT_ROPE_H
#define RAPT_ROPE_H

#include "rows.h"

enum { RUN_MAX = 8 };

/* x less `turns` quarters of a circle, pi/2 in two parts. */
DEVICE double less_quarters(double x, double turns)
{
    const double half_pi = 1.5707963267948966, half_pi_rest = 6.123233995736766e-17;
    return fused_f64(-turns, half_pi_rest, fused_f64(-turns, half_pi, x));
}

/* sin and cos of an angle of any size, in radians. x is reduced to [-pi/4, pi/4] in f64; Taylor
 * series on that range err by less than 2e-9, far below f32. */
DEVICE void sincos_f64(double x, float *sine, float *cosine)
{
    const double two_over_pi = 0.63661977236758138;
    const double units =
        0x1.8p52; /* added to a number, leaves the nearest integer in the low bits */
    double turns = x * two_over_pi, shifted = turns + units;
    double r = less_quarters(x, shifted - units);
    int quarter = low_word(shifted) & 3;
    if (RARE(!(turns < 0x1p50 && turns > -0x1p50))) {
        turns = nearest_f64(turns);
        r = less_quarters(x, turns);
        if (r > 0.8 || r < -0.8) { /* above 2^52 turns is off by some: take the rest away */
            double more = nearest_f64(r * two_over_pi);
            r = less_quarters(r, more);
            turns = turns - 4 * floor_f64(turns * 0.25) + more;
        }
        quarter = (int)(turns - 4 * floor_f64(turns * 0.25)) & 3;
    }
    float f = (float)r, ff = f * f;
    float s =
        f + f * ff * (-1 / 6.0f + ff * (1 / 120.0f + ff * (-1 / 5040.0f + ff * (1 / 362880.0f))));
    float c =
        1 + ff * (-0.5f + ff * (1 / 24.0f +
                                ff * (-1 / 720.0f + ff * (1 / 40320.0f + ff * (-1 / 3628800.0f)))));
    float first = quarter & 1 ? c : s, second = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -first : first;
    *cosine = (quarter + 1) & 2 ? -second : second;
}

/* How rows are cut: every item is a run of `run` pairs, or of `run` channels that are only copied.
 */
struct rope_cut {
    int run, pair_items, items;
    int pairs, interleaved;
    int64_t in, out; /* dtypes */
};

/* run is 1 unless every piece of a row is whole and aligned in both views, of one dtype. */
DEVICE struct rope_cut rope_cut_of(const struct view *from, const struct view *to, int channels,
                                   int rotary, int interleaved)
{
    int shift = from->dtype == DTYPE_f32 ? 2 : 3, run = 1 << shift;
    if (from->dtype != to->dtype || !runs_aligned(from, run) || !runs_aligned(to, run) ||
        channels & (run - 1) || rotary & (2 * run - 1))
        shift = 0, run = 1;
    int pair_items = rotary >> shift >> 1;
    struct rope_cut cut = {run,        pair_items,  pair_items + ((channels - rotary) >> shift),
                           rotary / 2, interleaved, from->dtype,
                           to->dtype};
    return cut;
}

/* The values of an item: of pairs, x and y are the first and the second ones; of copied channels,
 * x. */
struct rope_values {
    float x[RUN_MAX], y[RUN_MAX];
};

/* An item as it lies in memory: of pairs, x and y are the first and the second ones; of copied
 * channels, x. 16 bytes each, or with run 1 the bits of one f32 in x.x and y.x. */
struct rope_piece {
    uint4 x, y;
};

/* One element or a whole run: the row's cut says which. */
DEVICE uint4 load_piece(const char *row, const struct view *v, int channel,
                        const struct rope_cut *cut)
{
    const char *from = row + channel * v->stride[3] * dtype_bytes(cut->in);
    if (cut->run > 1) return LOAD(uint4, from);
    uint4 one = {bits_of(load_element(from, 0, cut->in)), 0, 0, 0};
    return one;
}

DEVICE void unpack_piece(uint4 piece, const struct rope_cut *cut, float *x)
{
    if (cut->run == 1) x[0] = float_of(piece.x);
    else unpack_16_bytes(piece, cut->run == 4 ? DTYPE_f32 : cut->in, x);
}

DEVICE void store_piece(char *row, const struct view *v, int channel, const struct rope_cut *cut,
                        const float *x)
{
    char *to = row + channel * v->stride[3] * dtype_bytes(cut->out);
    if (cut->run == 1) store_element(to, 0, cut->out, x[0]);
    else if (cut->run == 4) store_run(to, DTYPE_f32, 4, 4, x);
    else store_eight(to, cut->out == DTYPE_f16 ? DTYPE_f16 : DTYPE_bf16, x);
}

/* Channel of the first element of an item. */
DEVICE int item_channel(const struct rope_cut *cut, int item)
{
    if (item >= cut->pair_items) return 2 * cut->pairs + (item - cut->pair_items) * cut->run;
    return item * cut->run * (cut->interleaved ? 2 : 1);
}

/* The second half of a pair's item: half a row behind, or the next run. */
DEVICE int second_channel(const struct rope_cut *cut, int item)
{
    return item_channel(cut, item) + (cut->interleaved ? cut->run : cut->pairs);
}

/* Only loads, so that those of several items are on their way together. */
DEVICE void load_item(struct rope_piece *r, const char *row, const struct view *v,
                      const struct rope_cut *cut, int item)
{
    uint4 none = {0, 0, 0, 0};
    r->x = load_piece(row, v, item_channel(cut, item), cut);
    r->y = none;
    if (item < cut->pair_items) r->y = load_piece(row, v, second_channel(cut, item), cut);
}

DEVICE void unpack_item(const struct rope_piece *piece, const struct rope_cut *cut,
                        struct rope_values *r)
{
    unpack_piece(piece->x, cut, r->x);
    unpack_piece(piece->y, cut, r->y);
}

DEVICE void store_item(const struct rope_values *r, char *row, const struct view *v,
                       const struct rope_cut *cut, int item)
{
    store_piece(row, v, item_channel(cut, item), cut, r->x);
    if (item < cut->pair_items) store_piece(row, v, second_channel(cut, item), cut, r->y);
}

struct angle {
    float cosine, sine;
};

/* Of one pair at a position. */
DEVICE struct angle pair_angle(const struct rope_args *a, int pair, int64_t position)
{
    struct angle t;
    if (a->cos.data) {
        t.cosine = LOAD(float, (const float *)a->cos.data + position * a->cos.stride[2] +
                                   pair * a->cos.stride[3]);
        t.sine = LOAD(float, (const float *)a->sin.data + position * a->sin.stride[2] +
                                 pair * a->sin.stride[3]);
        return t;
    }
    sincos_f64((double)position * a->inverse[pair], &t.sine, &t.cosine);
    t.cosine *= (float)a->magnitude;
    t.sine *= (float)a->magnitude;
    return t;
}

DEVICE void turn(float *x, float *y, float cosine, float sine)
{
    float first = *x * cosine - *y * sine;
    *y = *x * sine + *y * cosine;
    *x = first;
}

/* Interleaved runs hold pairs (x[0], x[1]), (x[2], x[3]), ... and go on in y. */
DEVICE void turn_item(struct rope_values *r, const struct rope_cut *cut, const float *cosine,
                      const float *sine)
{
    if (!cut->interleaved || cut->run == 1) {
#pragma unroll
        for (int i = 0; i < RUN_MAX; i++)
            if (i < cut->run) turn(&r->x[i], &r->y[i], cosine[i], sine[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < RUN_MAX / 2; i++) {
        if (cut->run == 8) {
            turn(&r->x[2 * i], &r->x[2 * i + 1], cosine[i], sine[i]);
            turn(&r->y[2 * i], &r->y[2 * i + 1], cosine[4 + i], sine[4 + i]);
        } else if (i < 2) {
            turn(&r->x[2 * i], &r->x[2 * i + 1], cosine[i], sine[i]);
            turn(&r->y[2 * i], &r->y[2 * i + 1], cosine[2 + i], sine[2 + i]);
        }
    }
}

/* ---- Rows of a block ----------------------------------------------------------------------- */

/* Where a row comes from and goes to (NULL: nowhere), and which angles of the block's are its first
 * pair's. */
struct rope_row {
    const char *from;
    char *to;
    int angle;
};

/* An item of the rows first, first + step, ... below end. */
struct rope_span {
    int item, first, step, end;
};

/* An item's angles from a table: 16 bytes at a time where they come in runs. */
DEVICE void load_angles(const float *from, int run, float *to)
{
    if (run == 1) to[0] = from[0];
#pragma unroll
    for (int i = 0; i < run / 4; i++) {
        float4 four = ((const float4 *)from)[i];
        to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
    }
}

/* The loads of two rows are on their way together. */
DEVICE void turn_rows(const struct rope_row *rows, const struct rope_span *s,
                      const struct rope_cut *cut, const struct view *in, const struct view *out,
                      const float *cosines, const float *sines)
{
    enum { TOGETHER = 2 };
#pragma unroll 1
    for (int row = s->first; row < s->end; row += TOGETHER * s->step) {
        struct rope_piece pieces[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const struct rope_row *r = &rows[smaller(row + i * s->step, s->end - 1)];
            load_item(&pieces[i], r->from, in, cut, s->item);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const struct rope_row *r = &rows[row + i * s->step];
            struct rope_values values;
            if (row + i * s->step >= s->end || !r->to) continue;
            unpack_item(&pieces[i], cut, &values);
            if (s->item < cut->pair_items) {
                float cosine[RUN_MAX], sine[RUN_MAX];
                load_angles(cosines + r->angle + s->item * cut->run, cut->run, cosine);
                load_angles(sines + r->angle + s->item * cut->run, cut->run, sine);
                turn_item(&values, cut, cosine, sine);
            }
            store_item(&values, r->to, out, cut, s->item);
        }
    }
}

#endif
