/* tile_rows.h: rows of a view as tiles of the portable kernels load them. Scalar registers are few:
 * what not every load needs is read from the kernel's arguments anew where it is used. */
#ifndef RAPT_AMD_TILE_ROWS_H
#define RAPT_AMD_TILE_ROWS_H

struct rows {
    const struct attention_args *a;
    int view;         /* where the view lies in the arguments, bytes */
    const char *base; /* row 0, channel 0 */
    int channels;
    int aligned;      /* runs of four channels can be loaded at once */
    int scale, block; /* as view, of i8 and of its channels per scale; 0: never has any */
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
    return v->stride[2] * dtype_bytes(v->dtype);
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

#endif
