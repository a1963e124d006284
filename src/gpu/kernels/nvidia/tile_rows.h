/* tile_rows.h: rows of a view as tiles of the portable kernels load them. Registers are many: all that
 * a load needs is worked out once. */
#ifndef RAPT_NVIDIA_TILE_ROWS_H
#define RAPT_NVIDIA_TILE_ROWS_H

struct rows {
    const struct attention_args *a;
    const struct view *view;
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

DEVICE struct rows rows_of(const struct attention_args *a, const struct view *v, int64_t batch,
                           int64_t head, int64_t first_token, int channels)
{
    struct rows r = {};
    r.a = a;
    r.view = v;
    r.base = element_at(v, batch, head, first_token, 0);
    r.row_bytes = v->stride[2] * dtype_bytes(v->dtype);
    r.channel_stride = v->stride[3];
    r.dtype = v->dtype;
    r.channels = channels;
    r.aligned = runs_aligned(v, 4) && channels % 4 == 0 && v->dtype != DTYPE_i8;
    return r;
}

/* Adds what only the general kernel knows: pages and scales. */
DEVICE void rows_add_pages(struct rows *r, int sequence, int head)
{
    const struct attention_args *a = r->a;
    if (!a->page_table.data) return;
    r->table = &a->page_table;
    r->paged = r->view;
    r->page_tokens = a->page_tokens;
    r->page_shift = a->page_shift;
    r->sequence = sequence;
    r->head = head;
}

DEVICE void rows_add_scale(struct rows *r, const struct view *scale, const int32_t *block,
                           int64_t batch, int64_t head, int64_t first_token)
{
    if (!scale->data) return;
    r->scale = scale;
    r->scale_block = *block;
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

#endif
