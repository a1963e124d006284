/* i8_panels.h: panels of i8 keys and values, for levels that multiply integers. A lane of 32 bits holds TOGETHER
 * channels of a key of K, or keys of a channel of V, and a row of a panel COLUMN_TILE of them; the including file
 * defines both, and says what a lane looks like.
 *
 * K panels [panel]: rows [channel / TOGETHER], scales [block][COLUMN_TILE], then how many channels share one. V panels
 * [panel]: rows [key / TOGETHER], scales [key], then whether they differ from those of the panel before. */
#include "cpu/kernels.h"

#include <math.h>
#include <string.h>

enum { PANEL_ROW = COLUMN_TILE * 4, LEAST_BLOCK = 32 /* channels */, PANEL_END = 64 };

/* Sizes in bytes, but rows. */
struct k_panel {
    int64_t rows, scales, block, bytes; /* where scales and the size of a block begin */
};

static struct k_panel k_panel(int64_t channels)
{
    struct k_panel p = {.rows = (channels + TOGETHER - 1) / TOGETHER};
    int64_t blocks = channels / LEAST_BLOCK > 1 ? channels / LEAST_BLOCK : 1;
    p.scales = p.rows * PANEL_ROW;
    p.block = p.scales + blocks * COLUMN_TILE * (int64_t)sizeof(float);
    p.bytes = p.block + PANEL_END;
    return p;
}

/* Of keys j ... j + LANES - 1. */
static void put_k_scales(void *panels, const struct k_panel *panel, const struct cpu_rows *k,
                         int64_t j, int64_t last, int64_t channels)
{
    char *base = (char *)panels + j / COLUMN_TILE * panel->bytes;
    float *scale = (float *)(void *)(base + panel->scales) + j % COLUMN_TILE;
    int64_t block = k->scale_channels < channels ? k->scale_channels : channels;
    memcpy(base + panel->block, &block, sizeof block);
    for (int64_t c = 0; c < channels; c += block, scale += COLUMN_TILE)
        for (int64_t i = 0; i < LANES; i++)
            scale[i] = j + i < last && k->row[j + i]
                           ? k->scale[j + i][c / k->scale_channels * k->scale_stride]
                           : 0;
}

/* Channels that share a scale. */
static int64_t block_of(const char *base, const struct k_panel *panel)
{
    int64_t block;
    memcpy(&block, base + panel->block, sizeof block);
    return block;
}

/* The steps of rows of q, but 1 for a row with an infinity, which comes in when all of its blocks are summed up: times
 * a block without it it is NaN. Returns whether there is such a row. */
static int finite_steps(float *to, const float *step, int64_t stride, int64_t rows)
{
    int infinite = 0;
    for (int64_t r = 0; r < rows; r++) {
        to[r] = isinf(step[r * stride]) ? 1 : step[r * stride];
        infinite |= isinf(step[r * stride]) != 0;
    }
    return infinite;
}

static void put_infinities(float *s, int64_t s_stride, const float *step, int64_t stride,
                           int64_t rows, int64_t keys)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; isinf(step[r * stride]) && j < keys; j++)
            s[r * s_stride + j] *= step[r * stride];
}

/* Bytes up to its scales, up to whether they are new, and in all. */
struct v_panel {
    int64_t scales, is_new, bytes;
};

static struct v_panel v_panel(int64_t panel_keys)
{
    struct v_panel p = {.scales = panel_keys / TOGETHER * PANEL_ROW};
    p.is_new = p.scales + panel_keys * (int64_t)sizeof(float);
    p.bytes = p.is_new + PANEL_END;
    return p;
}

/* Returns 1 if some scale is NaN or infinite, else 0. */
static int put_v_scales(void *panels, const struct v_panel *panel, const struct cpu_rows *v,
                        int64_t first, int64_t last, int64_t channels)
{
    char *to = panels;
    int unusual = 0;
    for (int64_t c = 0, before = -1; c < channels; c += COLUMN_TILE, to += panel->bytes) {
        int64_t block = c / v->scale_channels;
        float *scale = (float *)(void *)(to + panel->scales);
        to[panel->is_new] = (char)(block != before);
        if (block == before) continue;
        before = block;
        for (int64_t j = first; j < last; j++) {
            scale[j] = v->row[j] ? v->scale[j][block * v->scale_stride] : 0;
            unusual |= !isfinite(scale[j]);
        }
    }
    return unusual;
}
