/* level_above.h: for a level that has its own products (qk, pv) and panels alone: functions for the other slots, which
 * call those of the level below. The including file defines LEVEL_BELOW, the table of that level. */
#include "cpu/kernels.h"

static void load_row(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels)
{
    LEVEL_BELOW.load_row(x, row, dtype, channel_stride, channels);
}

static void store_row(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels)
{
    LEVEL_BELOW.store_row(row, dtype, channel_stride, x, factor, channels);
}

static void pack_q(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign)
{
    LEVEL_BELOW.pack_q(q, row, dtype, channel_stride, channels, sign);
}

static void score(float *s, const struct cpu_score_row *r, int64_t first, int64_t last)
{
    LEVEL_BELOW.score(s, r, first, last);
}

/* Its tiles may have fewer rows. */
static void softmax(const struct cpu_softmax_tile *t)
{
    for (int64_t row = 0; row < t->rows; row += LEVEL_BELOW.row_tile) {
        struct cpu_softmax_tile part = *t;
        part.s += row * t->stride;
        part.rows = t->rows - row < LEVEL_BELOW.row_tile ? t->rows - row : LEVEL_BELOW.row_tile;
        part.row_first += row;
        part.row_last += row;
        part.m += row;
        part.l += row;
        part.o += row * t->o_stride;
        LEVEL_BELOW.softmax(&part);
    }
}

static void weights(float *s, int64_t first, int64_t last, float scale, float m, float factor)
{
    LEVEL_BELOW.weights(s, first, last, scale, m, factor);
}
