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
    NC = DV / 64          /* float4 of output channels per thread */
};

static_assert(ROW_LANES % 8 == 0 && TILE_Q % ROW_LANES == 0 && TILE_KV % LANES == 0 &&
                  D % 64 == 0 && DV % 64 == 0,
              "tile sizes");

/* Rows of a view as a tile loads them. */
struct rows {
    const char *base; /* row 0, channel 0 */
    int64_t row_bytes, channel_stride;
    int64_t dtype;
    int channels;
    int aligned;              /* runs of four channels can be loaded at once */
    const struct view *scale; /* of i8; NULL: none */
    const char *scale_base;
    int scale_block;
    const struct view *table, *paged; /* NULL: not paged; paged: the view of pages */
    int page_tokens, page_shift, sequence, head;
};

DEVICE struct rows rows_of(const struct view *v, int64_t batch, int64_t head, int64_t first_token,
                           int channels)
{
    struct rows r = {};
    r.base = element_at(v, batch, head, first_token, 0);
    r.row_bytes = v->stride[2] * dtype_bytes(v->dtype);
    r.channel_stride = v->stride[3];
    r.dtype = v->dtype;
    r.channels = channels;
    r.aligned = runs_aligned(v, 4) && channels % 4 == 0 && v->dtype != DTYPE_i8;
    return r;
}

/* Adds what only the general kernel knows: pages and scales. */
DEVICE void rows_add_pages(struct rows *r, const struct attention_args *a, const struct view *v,
                           int sequence, int head)
{
    if (!a->page_table.data) return;
    r->table = &a->page_table;
    r->paged = v;
    r->page_tokens = a->page_tokens;
    r->page_shift = a->page_shift;
    r->sequence = sequence;
    r->head = head;
}

DEVICE void rows_add_scale(struct rows *r, const struct view *scale, int block, int64_t batch,
                           int64_t head, int64_t first_token)
{
    if (!scale->data) return;
    r->scale = scale;
    r->scale_block = block;
    r->scale_base = element_at(scale, batch, head, first_token, 0);
}

/* Where a token's channel 0 lies; its scale 0 in *scales. */
DEVICE const char *row_at(const struct rows *r, int token, const char **scales)
{
    if (r->table) {
        int page = r->page_shift >= 0 ? token >> r->page_shift : token / r->page_tokens,
            within = token - page * r->page_tokens;
        int64_t number = load_index(r->table, r->sequence, page);
        if (r->scale) *scales = element_at(r->scale, number, r->head, within, 0);
        return element_at(r->paged, number, r->head, within, 0);
    }
    if (r->scale) *scales = r->scale_base + token * r->scale->stride[2] * 4;
    return r->base + token * r->row_bytes;
}

DEVICE float load_channel(const struct rows *r, int token, int channel)
{
    const char *scales = NULL, *row = row_at(r, token, &scales);
    float x = load_element(row, channel * r->channel_stride, r->dtype);
    return r->scale ? x * LOAD(float, scales + channel / r->scale_block * r->scale->stride[3] * 4)
                    : x;
}

enum { SWIZZLE_NONE, SWIZZLE_ROW, SWIZZLE_KEY };

/* Where float4 number `at` of a row lies within it. */
DEVICE int swizzled(int at, int row, int swizzle)
{
    return swizzle == SWIZZLE_ROW   ? at ^ (row & 7)
           : swizzle == SWIZZLE_KEY ? at ^ (row / RN & 7)
                                    : at;
}

/* load_tile, element by element: any stride, any dtype. */
DEVICE void load_tile_slowly(float4 *tile, int count, int width, int swizzle, const struct rows *r,
                             int first_row, int limit, int first_channel)
{
#pragma unroll 1
    for (int i = fresh(THREAD); i < count * width * 4; i += THREADS) {
        int row = i / (width * 4), c = i % (width * 4), token = first_row + row,
            channel = first_channel + c;
        float x = token < limit && channel < r->channels ? load_channel(r, token, channel) : 0;
        ((float *)tile)[4 * (row * width + swizzled(c / 4, row, swizzle)) + c % 4] = x;
    }
}

/* tile[row][0 ... width - 1] (float4) = channels first_channel ... of rows first_row + row, row <
 * count; zero from row `limit` and channel `channels` on, where nothing is read. Batches of four
 * keep that many loads in flight. */
DEVICE void load_tile(float4 *tile, int count, int width, int swizzle, const struct rows *r,
                      int first_row, int limit, int first_channel)
{
    int total = count * width, narrow = r->dtype != DTYPE_f32;
    if (!r->aligned) {
        load_tile_slowly(tile, count, width, swizzle, r, first_row, limit, first_channel);
        return;
    }
#pragma unroll 1
    for (int start = fresh(THREAD); start < total; start += 4 * THREADS) {
        float4 x[4];
        const char *from[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int i = start + j * THREADS, row = first_row + i / width,
                channel = first_channel + i % width * 4;
            const char *scales;
            from[j] = NULL;
            if (i < total && row < limit && channel < r->channels)
                from[j] = row_at(r, row, &scales) + channel * (narrow ? 2 : 4);
        }
        if (narrow) {
            uint2 h[4] = {};
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (from[j]) h[j] = LOAD(uint2, from[j]);
#pragma unroll
            for (int j = 0; j < 4; j++) x[j] = unpack_four(h[j], r->dtype);
        } else {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                x[j] = float4_of(0, 0, 0, 0);
                if (from[j]) x[j] = LOAD(float4, from[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int i = start + j * THREADS, row = i / width;
            if (i < total) tile[row * width + swizzled(i % width, row, swizzle)] = x[j];
        }
    }
}

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
                        s[i][n] = fused(component(a[i], (t + n) % 4),
                                        component(b[n], (t + n) % 4), s[i][n]);
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

/* Four weights of a row as scalars. */
DEVICE void load_weights(float *w, const float4 *p, int row, int at)
{
    float4 x = p[row * (TILE_KV / 4) + (at ^ (THREAD / LANES & 7))];
    w[0] = x.x, w[1] = x.y, w[2] = x.z, w[3] = x.w;
}

/* o[i][j] += sum over keys of p[row i][first_key + key] v[key]: `keys` rows of v (float4 rows of 16
 * * NC). skip: weights whose bits equal `hidden` under `hidden_mask` touch no value, be it NaN;
 * without it every weight multiplies. */
DEVICE void add_values(float4 (*o)[NC], const float4 *p, int first_key, const float4 *v, int keys,
                       int skip, uint32_t hidden, uint32_t hidden_mask)
{
    int x = THREAD % LANES, y = THREAD / LANES;
#pragma unroll 1
    for (int k4 = 0; k4 < keys / 4; k4++) {
        float w[RM][4];
#pragma unroll
        for (int i = 0; i < RM; i++) load_weights(w[i], p, y + ROW_LANES * i, first_key / 4 + k4);
        if (DUAL_ISSUE && NC <= 2 && !skip) { /* neighbouring channels take different keys */
            float4 b[4][NC];
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < NC; j++)
                    b[k][j] = v[(k4 * 4 + k) * (LANES * NC) + x + LANES * j];
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
        for (int k = 0; k < 4; k++) {
            float4 b[NC];
#pragma unroll
            for (int j = 0; j < NC; j++) b[j] = v[(k4 * 4 + k) * (LANES * NC) + x + LANES * j];
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

/* This thread's channels of its row i, times factor, to a tile [TILE_Q][DV / 4]. */
DEVICE void stage_row(float4 *tile, int i, const float4 *o, float factor)
{
    int x = THREAD % LANES, y = THREAD / LANES;
#pragma unroll
    for (int j = 0; j < NC; j++)
        tile[(y + ROW_LANES * i) * (DV / 4) + x + LANES * j] =
            float4_of(o[j].x * factor, o[j].y * factor, o[j].z * factor, o[j].w * factor);
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
