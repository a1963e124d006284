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

/* Rows of a view as a tile loads them: what every load needs. The rest is read from the kernel's
 * arguments anew where it is used, for scalar registers are few. */
struct rows {
    const struct attention_args *a;
    int view;                  /* where the view lies in the arguments, bytes */
    const char *base;          /* row 0, channel 0 */
    int64_t row_bytes;         /* not where READ_AGAIN */
    int channels;
    int aligned;               /* runs of four channels can be loaded at once */
    int scale, block;          /* as view, of i8 and of its channels per scale; 0: never has any */
    const char *scale_base;
    int paged, sequence, head; /* paged: the view may be of pages */
};

DEVICE int place_in(const struct attention_args *a, const void *field)
{
    return (int)((const char *)field - (const char *)a);
}

DEVICE const struct view *view_at(const struct attention_args *a, int place)
{
    return (const struct view *)((const char *)a + place);
}

DEVICE struct rows rows_of(const struct attention_args *a, const struct view *v, int64_t batch,
                           int64_t head, int64_t first_token, int channels)
{
    struct rows r = {};
    r.a = a;
    r.view = place_in(a, v);
    r.base = element_at(v, batch, head, first_token, 0);
    r.row_bytes = v->stride[2] * dtype_bytes(v->dtype);
    r.channels = channels;
    r.aligned = runs_aligned(v, 4) && channels % 4 == 0 && v->dtype != DTYPE_i8;
    return r;
}

/* Adds what only the general kernel knows: pages and scales. */
DEVICE void rows_add_pages(struct rows *r, int sequence, int head)
{
    r->paged = 1;
    r->sequence = sequence;
    r->head = head;
}

DEVICE void rows_add_scale(struct rows *r, const struct view *scale, const int32_t *block,
                           int64_t batch, int64_t head, int64_t first_token)
{
    r->scale = place_in(r->a, scale);
    r->block = place_in(r->a, block);
    r->base = in_lanes(r->base);
    r->scale_base = in_lanes(element_at(scale, batch, head, first_token, 0));
}

/* The scales of the rows; NULL: there are none. */
DEVICE const struct view *scale_of(const struct attention_args *a, const struct rows *r)
{
    return r->scale && view_at(a, r->scale)->data ? view_at(a, r->scale) : NULL;
}

DEVICE int64_t row_bytes_of(const struct attention_args *a, const struct rows *r)
{
    const struct view *v = view_at(a, r->view);
    return READ_AGAIN ? v->stride[2] * dtype_bytes(v->dtype) : r->row_bytes;
}

/* Where a token's channel 0 lies; its scale 0 in *scales. a: the arguments, as new. */
DEVICE const char *row_at(const struct attention_args *a, const struct rows *r, int64_t row_bytes,
                          int token, const char **scales)
{
    if (r->paged && a->page_table.data) {
        a = AGAIN(attention_args, a);
        int page = a->page_shift >= 0 ? token >> a->page_shift : token / a->page_tokens,
            within = token - page * a->page_tokens;
        int64_t number = load_index(&a->page_table, r->sequence, page);
        if (scale_of(a, r)) *scales = element_at(scale_of(a, r), number, r->head, within, 0);
        return element_at(view_at(a, r->view), number, r->head, within, 0);
    }
    if (scale_of(a, r)) *scales = r->scale_base + token * scale_of(a, r)->stride[2] * 4;
    return r->base + (uint32_t)token * row_bytes;
}

DEVICE float load_channel(const struct attention_args *a, const struct rows *r, int token,
                          int channel)
{
    const struct view *v = view_at(a, r->view);
    const char *scales = NULL, *row = row_at(a, r, row_bytes_of(a, r), token, &scales);
    float x = load_element(row, channel * v->stride[3], v->dtype);
    if (!scale_of(a, r)) return x;
    int block = *(const int32_t *)((const char *)a + r->block);
    return x * LOAD(float, scales + channel / block * scale_of(a, r)->stride[3] * 4);
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
    const struct attention_args *a = AGAIN(attention_args, r->a);
#pragma unroll 1
    for (int i = fresh(THREAD); i < count * width * 4; i += THREADS) {
        int row = i / (width * 4), c = i % (width * 4), token = first_row + row,
            channel = first_channel + c;
        float x = token < limit && channel < r->channels ? load_channel(a, r, token, channel) : 0;
        ((float *)tile)[4 * (row * width + swizzled(c / 4, row, swizzle)) + c % 4] = x;
    }
}

/* tile[row][0 ... width - 1] (float4) = channels first_channel ... of rows first_row + row, row <
 * count; zero from row `limit` and channel `channels` on, where nothing is read. Batches of up to
 * four keep that many loads in flight. */
DEVICE void load_tile(float4 *tile, int count, int width, int swizzle, const struct rows *r,
                      int first_row, int limit, int first_channel)
{
    if (!r->aligned) {
        load_tile_slowly(tile, count, width, swizzle, r, first_row, limit, first_channel);
        return;
    }
    const struct attention_args *a = AGAIN(attention_args, r->a);
    int64_t dtype = view_at(a, r->view)->dtype, row_bytes = row_bytes_of(a, r);
    int narrow = dtype != DTYPE_f32;
    uint32_t total = count * width, batch = smaller(4, (total + THREADS - 1) / THREADS);
    int whole = total % (batch * THREADS) == 0; /* these are constants */
#pragma unroll 1
    for (uint32_t start = fresh(THREAD); start < total; start += batch * THREADS) {
        float4 x[4];
        const char *from[4];
#pragma unroll
        for (uint32_t j = 0; j < batch; j++) {
            uint32_t i = start + j * THREADS;
            int row = first_row + (int)(i / width), channel = first_channel + (int)(i % width) * 4;
            const char *scales;
            from[j] = NULL;
            if ((whole || i < total) && row < limit && channel < r->channels)
                from[j] = row_at(a, r, row_bytes, row, &scales) + channel * (narrow ? 2 : 4);
        }
        if (narrow) {
            uint2 h[4] = {};
#pragma unroll
            for (uint32_t j = 0; j < batch; j++)
                if (from[j]) h[j] = LOAD(uint2, from[j]);
#pragma unroll
            for (uint32_t j = 0; j < batch; j++) x[j] = unpack_four(h[j], dtype);
        } else {
#pragma unroll
            for (uint32_t j = 0; j < batch; j++) {
                x[j] = float4_of(0, 0, 0, 0);
                if (from[j]) x[j] = LOAD(float4, from[j]);
            }
        }
#pragma unroll
        for (uint32_t j = 0; j < batch; j++) {
            uint32_t i = start + j * THREADS, row = i / width;
            if (whole || i < total) tile[row * width + swizzled(i % width, row, swizzle)] = x[j];
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

/* The weights of the keys key ... key + AHEAD - 1 of a row as scalars. */
DEVICE void load_weights(float *w, const float4 *p, int row, int key)
{
    const float4 *four = p + row * (TILE_KV / 4) + (key / 4 ^ (THREAD / LANES & 7));
    if (AHEAD == 2) {
        float2 x = ((const float2 *)four)[key / 2 % 2];
        w[0] = x.x, w[1] = x.y;
    } else {
        float4 x = *four;
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
        int key = part * AHEAD;
        float w[RM][AHEAD];
#pragma unroll
        for (int i = 0; i < RM; i++) load_weights(w[i], p, y + ROW_LANES * i, first_key + key);
        if (DUAL_ISSUE && NC <= 2 && !skip) { /* neighbouring channels take different keys */
            float4 b[4][NC];
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int j = 0; j < NC; j++)
                    b[k][j] = v[(key + k) * (LANES * NC) + x + LANES * j];
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
            for (int j = 0; j < NC; j++) b[j] = v[(key + k) * (LANES * NC) + x + LANES * j];
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

/* Four channels of a row, times factor, to a view; from `channels` on nothing is written. aligned:
 * the four can be stored at once. */
DEVICE void store_channels(const struct view *v, int64_t batch, int64_t head, int row, int channel,
                           int channels, int aligned, float4 x, float factor)
{
    float four[4] = {x.x * factor, x.y * factor, x.z * factor, x.w * factor};
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
