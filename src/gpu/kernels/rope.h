/* rope.h: rotary position embedding of one row (Su et al. 2021), in runs of neighbouring pairs; for
 * rope and kv_append. */
#ifndef RAPT_ROPE_H
#define RAPT_ROPE_H

#include "rows.h"

enum { RUN_MAX = 8 };

/* How rows are cut: every item is a run of `run` pairs, or of `run` channels that are only copied.
 */
struct rope_cut {
    int run, pair_items, items;
    int pairs, interleaved;
};

/* run is 1 unless every piece of a row is whole and aligned in both views. */
DEVICE struct rope_cut rope_cut_of(const struct view *from, const struct view *to, int channels,
                                   int rotary, int interleaved)
{
    int wide = from->dtype == DTYPE_f32, run = wide ? 4 : 8;
    if (wide != (to->dtype == DTYPE_f32) || to->dtype == DTYPE_i8 || !runs_aligned(from, run) ||
        !runs_aligned(to, run) || channels % run || rotary % (2 * run))
        run = 1;
    struct rope_cut cut = {run, rotary / 2 / run, rotary / 2 / run + (channels - rotary) / run,
                           rotary / 2, interleaved};
    return cut;
}

/* The values of an item: of pairs, x and y are the first and the second ones; of copied channels,
 * x. */
struct rope_values {
    float x[RUN_MAX], y[RUN_MAX];
};

/* One element or a whole run: the row's cut says which. */
DEVICE void load_piece(float *x, const char *row, const struct view *v, int channel, int run)
{
    const char *from = row + channel * v->stride[3] * dtype_bytes(v->dtype);
    if (run == 1) x[0] = load_element(from, 0, v->dtype);
    else if (v->dtype == DTYPE_f32) load_run(x, from, DTYPE_f32, 4, 4, 0);
    else load_eight(from, v->dtype, x);
}

DEVICE void store_piece(char *row, const struct view *v, int channel, int run, const float *x)
{
    char *to = row + channel * v->stride[3] * dtype_bytes(v->dtype);
    if (run == 1) store_element(to, 0, v->dtype, x[0]);
    else if (v->dtype == DTYPE_f32) store_run(to, DTYPE_f32, 4, 4, x);
    else store_eight(to, v->dtype, x);
}

/* Channel of the first element of an item. */
DEVICE int item_channel(const struct rope_cut *cut, int item)
{
    if (item >= cut->pair_items) return 2 * cut->pairs + (item - cut->pair_items) * cut->run;
    return item * cut->run * (cut->interleaved ? 2 : 1);
}

DEVICE void load_item(struct rope_values *r, const char *row, const struct view *v,
                      const struct rope_cut *cut, int item)
{
    int channel = item_channel(cut, item), pairs = item < cut->pair_items;
    load_piece(r->x, row, v, channel, cut->run);
    if (pairs)
        load_piece(r->y, row, v, channel + (cut->interleaved ? cut->run : cut->pairs), cut->run);
}

DEVICE void store_item(const struct rope_values *r, char *row, const struct view *v,
                       const struct rope_cut *cut, int item)
{
    int channel = item_channel(cut, item), pairs = item < cut->pair_items;
    store_piece(row, v, channel, cut->run, r->x);
    if (pairs)
        store_piece(row, v, channel + (cut->interleaved ? cut->run : cut->pairs), cut->run, r->y);
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

/* Of the pairs of an item. */
DEVICE void item_angles(const struct rope_args *a, const struct rope_cut *cut, int item,
                        int64_t position, float *cosine, float *sine)
{
    UNROLL for (int i = 0; i < RUN_MAX; i++)
    {
        if (i >= cut->run) break;
        struct angle t = pair_angle(a, item * cut->run + i, position);
        cosine[i] = t.cosine;
        sine[i] = t.sine;
    }
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

#endif
