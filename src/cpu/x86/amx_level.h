/* amx_level.h: what the AMX levels share: the shapes of tiles, and the slots that the level below
 * fills as well. The including file defines AMX_BELOW, that level's table. */
#include "cpu/kernels.h"

#include <immintrin.h>

#ifdef RAPT_AMX_MODEL
#include "amx_model.h" /* tests: the instructions in C */
#endif

enum { PALETTE = 1, ROW_BYTES = 64, TILES = 8 };

/* The operand of ldtilecfg (Intel SDM vol. 1, 18.3: TILECFG). */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_shapes) == 64, "ldtilecfg reads 64 bytes");

static void load_shapes(const struct tile_shapes *t)
{
    __asm__ volatile("" : : "r"(t) : "memory"); /* gcc 12 takes 8 of the 64 bytes for read */
    _tile_loadconfig(t);
}

static void load_row(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels)
{
    AMX_BELOW.load_row(x, row, dtype, channel_stride, channels);
}

static void store_row(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels)
{
    AMX_BELOW.store_row(row, dtype, channel_stride, x, factor, channels);
}

static void pack_q(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign)
{
    AMX_BELOW.pack_q(q, row, dtype, channel_stride, channels, sign);
}

static void score(float *s, const struct cpu_score_row *r, int64_t first, int64_t last)
{
    AMX_BELOW.score(s, r, first, last);
}

/* Its tiles have fewer rows. */
static void softmax(const struct cpu_softmax_tile *t)
{
    for (int64_t row = 0; row < t->rows; row += AMX_BELOW.row_tile) {
        struct cpu_softmax_tile part = *t;
        part.s += row * t->stride;
        part.rows = t->rows - row < AMX_BELOW.row_tile ? t->rows - row : AMX_BELOW.row_tile;
        part.row_first += row;
        part.row_last += row;
        part.m += row;
        part.l += row;
        part.o += row * t->o_stride;
        AMX_BELOW.softmax(&part);
    }
}

static void weights(float *s, int64_t first, int64_t last, float scale, float m, float factor)
{
    AMX_BELOW.weights(s, first, last, scale, m, factor);
}
