/* tile.h: f32 tiles in shared memory for the portable kernels: loading rows of a view, and the two
 * register-tiled products scores += Q K^T and out += P V. A block of THREADS is THREADS / 16 rows
 * of 16 lanes; the 16 lanes of a row lie in one wave.
 *
 * Lane x, row y own query rows y + ROW_LANES * i (i < RM), keys x * RN + n (n < RN) and output
 * channels 4 * (x + 16 * j) ... + 3 (j < NC). Tiles are arrays of float4, whose index within a row
 * is XORed with a number of the row so that the 8 lanes that one access serves meet 8 different
 * bank groups. */
#ifndef RAPT_TILE_H
#define RAPT_TILE_H

#include "device.h"

enum {
    LANES = 16,
    ROW_LANES = THREADS / LANES,
    RM = TILE_Q /
         ROW_LANES, /* query rows per thread; ROW_LANES is a multiple of 8, so row % 8 is y % 8 */
    RN = TILE_KV / LANES, /* keys per thread */
    NC = DV / 64,         /* float4 of output channels per thread */
    /* Keys whose values are in registers together: with 512 registers for two waves of 64, four
     * would leave too few for wide outputs. */
    AHEAD = WAVE == 64 && NC >= 4 ? 2 : 4
};

static_assert(ROW_LANES % 8 == 0 && TILE_Q % ROW_LANES == 0 && TILE_KV % LANES == 0 &&
                  D % 64 == 0 && DV % 64 == 0,
              "tile sizes");

enum { SWIZZLE_NONE, SWIZZLE_ROW, SWIZZLE_KEY };

/* Where float4 number `at` of a row lies within it. */
DEVICE int swizzled(int at, int row, int swizzle)
{
    return swizzle == SWIZZLE_ROW   ? at ^ (row & 7)
           : swizzle == SWIZZLE_KEY ? at ^ (row / RN & 7)
                                    : at;
}

/* What the vendors' registers make of rows: rows_of, rows_add_pages, rows_add_scale, load_tile. */
#ifdef __HIP__
#include "amd/tile_rows.h"
#else
#include "nvidia/tile_rows.h"
#endif

/* s[i][n] += q[row i][first ... first + 4 * width - 1] . k[key n][0 ... 4 * width - 1]; q has rows
 * of q_width float4, k of k_width. */
DEVICE void add_scores(float (*s)[RN], const float4 *q, int q_width, int first, const float4 *k,
                       int k_width, int width)
{
    int x = THREAD % LANES, y = THREAD / LANES;
    const float4 *q_row = q + y * q_width + first, *k_row = k + x * RN * k_width;
#pragma unroll 1
    for (int c = 0; c < width; c++) {
        int cq = c ^ (y & 7), ck = c ^ (x & 7);
        float4 a[RM];
#pragma unroll
        for (int i = 0; i < RM; i++) a[i] = q_row[i * ROW_LANES * q_width + cq];
        if (DUAL_ISSUE) { /* neighbouring keys take different components */
            float4 b[RN];
#pragma unroll
            for (int n = 0; n < RN; n++) b[n] = k_row[n * k_width + ck];
#pragma unroll
            for (int t = 0; t < 4; t++)
#pragma unroll
                for (int i = 0; i < RM; i++)
#pragma unroll
                    for (int n = 0; n < RN; n++)
                        s[i][n] = fused(component(a[i], (t + n) % 4), component(b[n], (t + n) % 4),
                                        s[i][n]);
            continue;
        }
#pragma unroll
        for (int n = 0; n < RN; n++) {
            float4 b = k_row[n * k_width + ck];
#pragma unroll
            for (int i = 0; i < RM; i++) {
                s[i][n] = fused(a[i].x, b.x, s[i][n]);
                s[i][n] = fused(a[i].y, b.y, s[i][n]);
                s[i][n] = fused(a[i].z, b.z, s[i][n]);
                s[i][n] = fused(a[i].w, b.w, s[i][n]);
            }
        }
    }
}

/* Weights at * AHEAD ... of a row, AHEAD of them, as scalars. */
DEVICE void load_weights(float *w, const float4 *p, int row, int at)
{
    const float4 *line = p + row * (TILE_KV / 4);
    int bank = THREAD / LANES & 7;
    if (AHEAD == 2) {
        float2 x = ((const float2 *)(line + (at / 2 ^ bank)))[at % 2];
        w[0] = x.x, w[1] = x.y;
    } else {
        float4 x = line[at ^ bank];
        w[0] = x.x, w[1] = x.y, w[2 % AHEAD] = x.z, w[3 % AHEAD] = x.w;
    }
}

/* o[i][j] += sum over keys of p[row i][first_key + key] v[key]: `keys` rows of v (float4 rows of 16
 * * NC). skip: weights whose bits equal `hidden` under `hidden_mask` touch no value, be it NaN;
 * without it every weight multiplies. */
DEVICE void add_values(float4 (*o)[NC], const float4 *p, int first_key, const float4 *v, int keys,
                       int skip, uint32_t hidden, uint32_t hidden_mask)
{
    int x = THREAD % LANES, y = THREAD / LANES;
#pragma unroll 1
    for (int part = 0; part < keys / AHEAD; part++) {
        float w[RM][AHEAD];
#pragma unroll
        for (int i = 0; i < RM; i++)
            load_weights(w[i], p, y + ROW_LANES * i, first_key / AHEAD + part);
        if (DUAL_ISSUE && NC <= 2 && !skip) { /* neighbouring channels take different keys */
            float4 b[4][NC];
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < NC; j++)
                    b[k][j] = v[(part * 4 + k) * (LANES * NC) + x + LANES * j];
#pragma unroll
            for (int t = 0; t < 4; t++)
#pragma unroll
                for (int i = 0; i < RM; i++)
#pragma unroll
                    for (int j = 0; j < NC; j++) {
                        o[i][j].x = fused(w[i][t], b[t][j].x, o[i][j].x);
                        o[i][j].y = fused(w[i][(t + 1) % 4], b[(t + 1) % 4][j].y, o[i][j].y);
                        o[i][j].z = fused(w[i][(t + 2) % 4], b[(t + 2) % 4][j].z, o[i][j].z);
                        o[i][j].w = fused(w[i][(t + 3) % 4], b[(t + 3) % 4][j].w, o[i][j].w);
                    }
            continue;
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            float4 b[NC];
#pragma unroll
            for (int j = 0; j < NC; j++)
                b[j] = v[(part * AHEAD + k) * (LANES * NC) + x + LANES * j];
#pragma unroll
            for (int i = 0; i < RM; i++) {
                if (skip && (bits_of(w[i][k]) & hidden_mask) == hidden) continue;
#pragma unroll
                for (int j = 0; j < NC; j++) {
                    o[i][j].x = fused(w[i][k], b[j].x, o[i][j].x);
                    o[i][j].y = fused(w[i][k], b[j].y, o[i][j].y);
                    o[i][j].z = fused(w[i][k], b[j].z, o[i][j].z);
                    o[i][j].w = fused(w[i][k], b[j].w, o[i][j].w);
                }
            }
        }
    }
}

/* The RN weights of this thread for its row i, as neighbours. */
DEVICE void store_weights(float4 *p, int i, const float *w)
{
    int x = THREAD % LANES, y = THREAD / LANES;
    float *line = (float *)(p + (y + ROW_LANES * i) * (TILE_KV / 4));
    if (RN == 4) {
        *(float4 *)(line + 4 * (x ^ (y & 7))) = float4_of(w[0], w[1], w[2 % RN], w[3 % RN]);
    } else {
#pragma unroll
        for (int n = 0; n < RN; n++) {
            int key = x * RN + n;
            line[4 * (key / 4 ^ (y & 7)) + key % 4] = w[n];
        }
    }
}

/* Times the factor of a row: 0 where it has no weights, whatever its values hold. */
DEVICE float4 scaled_row(float4 o, float factor)
{
    if (factor == 0) return float4_of(0, 0, 0, 0);
    return float4_of(o.x * factor, o.y * factor, o.z * factor, o.w * factor);
}

/* This thread's channels of its row i, times factor, to a tile [TILE_Q][DV / 4]. */
DEVICE void stage_row(float4 *tile, int i, const float4 *o, float factor)
{
    int x = THREAD % LANES, y = THREAD / LANES;
#pragma unroll
    for (int j = 0; j < NC; j++)
        tile[(y + ROW_LANES * i) * (DV / 4) + x + LANES * j] = scaled_row(o[j], factor);
}

/* Four channels of a row, times factor, to a view; from `channels` on nothing is written. aligned:
 * the four can be stored at once. */
DEVICE void store_channels(const struct view *v, int64_t batch, int64_t head, int row, int channel,
                           int channels, int aligned, float4 x, float factor)
{
    x = scaled_row(x, factor);
    float four[4] = {x.x, x.y, x.z, x.w};
    if (channel >= channels) return;
    char *to = element_at(v, batch, head, row, channel);
    if (aligned) {
        store_four(to, v->dtype, float4_of(four[0], four[1], four[2], four[3]));
        return;
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        if (channel + n < channels) store_element(to, n * v->stride[3], v->dtype, four[n]);
}

/* Such a tile to rows first_row + row, row < count, of a view; channels from `channels` on are not
 * written. */
DEVICE void store_tile(const float4 *tile, int count, const struct view *v, int64_t batch,
                       int64_t head, int first_row, int channels)
{
    if (runs_aligned(v, 4) && channels % 4 == 0) {
#pragma unroll 1
        for (int i = fresh(THREAD); i < count * (DV / 4); i += THREADS) {
            int row = i / (DV / 4), c = i % (DV / 4) * 4;
            if (c < channels)
                store_four(element_at(v, batch, head, first_row + row, c), v->dtype, tile[i]);
        }
        return;
    }
#pragma unroll 1
    for (int i = fresh(THREAD); i < count * DV; i += THREADS) {
        int row = i / DV, c = i % DV;
        if (c < channels)
            store_element(element_at(v, batch, head, first_row + row, c), 0, v->dtype,
                          ((const float *)tile)[i]);
    }
}

#endif
