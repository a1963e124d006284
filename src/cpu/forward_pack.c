/* forward_pack.c: what an item of forward.c reads, in the level's formats: its rows of q once, its keys and values
 * block by block. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/forward.h"

#include <math.h>

enum {
    ROWS_AHEAD = 16,
    ROWS_IN_PLACE = 16, /* with more, each element would meet too many keys at strides of memory */
    CACHE_LINE = 64,
};

/* ---- Queries ---- */

/* I8 queries: value = scale * data, in f32. */
static void scale_row(const rapt_tensor *scales, const float *scale, float *x, int64_t channels)
{
    int64_t span = channels / scales->size[3];
    for (int64_t c = 0; c < channels; c++) x[c] *= scale[c / span * scales->stride[3]];
}

/* One row of q into the level's format. */
static void load_query(struct forward_item *t, int64_t r, const void *row)
{
    const rapt_tensor *q = &t->call->a->q, *scales = &t->call->a->q_scale;
    struct forward_scratch *w = &t->scratch;
    int64_t channels = t->problem->qk_channels, dtype = q->dtype, stride = q->stride[3];
    if (dtype == RAPT_I8) {
        t->kernels->load_row(w->row, row, dtype, stride, channels);
        scale_row(scales, forward_row(t, scales, r), w->row, channels);
        row = w->row, dtype = RAPT_F32, stride = 1;
    }
    const struct cpu_pipeline_kernels *pipeline = t->plan->pipeline;
    float *to = w->q + r * w->q_stride, sign = t->call->a->scale < 0 ? -1 : 1;
    int nonfinite = 0;
    if (pipeline && pipeline->pack_q)
        nonfinite = pipeline->pack_q(to, row, dtype, stride, channels, sign);
    else t->kernels->pack_q(to, row, dtype, stride, channels, sign);
    w->nonfinite_row[r] = (unsigned char)nonfinite;
    t->has_nonfinite_rows |= nonfinite;
}

/* Row r of q or out, asked for a few rows before it is needed: it comes from memory, and only many
 * requests at once hide how long that takes. */
void *forward_row_ahead(const struct forward_item *t, const rapt_tensor *tensor, int64_t r)
{
    if (r + ROWS_AHEAD < t->rows && tensor->stride[3] == 1) {
        const char *row = forward_row(t, tensor, r + ROWS_AHEAD);
        int64_t bytes = tensor->size[3] * (int64_t)dtype_size(tensor->dtype);
        for (int64_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(row + at);
    }
    return forward_row(t, tensor, r);
}

/* f32 rows of one head, a step apart, that few keys will meet: as they lie in memory. */
static int queries_in_place(struct forward_item *t)
{
    const rapt_attention *a = t->call->a;
    if (a->q.dtype != RAPT_F32 || t->kernels->pair != 1 || t->plan->pipeline ||
        t->problem->group != 1 || a->q.stride[3] != 1 || a->scale < 0 || t->rows > ROWS_IN_PLACE)
        return 0;
    t->q = forward_row(t, &a->q, 0);
    t->q_stride = a->q.stride[2];
    return 1;
}

void forward_load_queries(struct forward_item *t)
{
    t->has_nonfinite_rows = 0;
    if (queries_in_place(t)) return;
    t->q = t->scratch.q;
    t->q_stride = t->scratch.q_stride;
    for (int64_t r = 0; r < t->rows; r++) load_query(t, r, forward_row_ahead(t, &t->call->a->q, r));
    if (t->kernels->tile_q)
        t->kernels->tile_q(t->scratch.q, t->q_stride, t->rows, t->problem->qk_channels);
}

/* ---- Keys and values ---- */

/* The keys of a block as rows in place; those of its first panel before range->first are NULL. */
static struct cpu_rows block_rows(const struct forward_item *t, const rapt_tensor *tensor,
                                  const void **row, const float **scale,
                                  const struct forward_range *range)
{
    int64_t first = range->first;
    for (int64_t j = range->start; j < first; j++) row[j] = NULL;
    key_rows(t->call, tensor, &t->sequence, t->kv_head, range->key0, first, range->last, row,
             tensor->dtype == RAPT_I8 ? scale : NULL);
    return rows_behind(t->call, tensor, row, scale);
}

/* NaN or infinity, or nothing as large as least but something other than 0. */
static int row_is_unusual(const struct cpu_rows *rows, int64_t j, int64_t channels, float least)
{
    float largest = 0;
    for (int64_t c = 0; c < channels; c++) {
        float x = fabsf(scalar_row_value(rows, j, c));
        if (!isfinite(x)) return 1;
        if (x > largest) largest = x;
    }
    return largest > 0 && largest < least;
}

void forward_pack_keys(struct forward_item *t, const struct forward_range *range)
{
    struct forward_scratch *w = &t->scratch;
    const rapt_attention *a = t->call->a;
    const struct cpu_pipeline_kernels *pipeline = t->plan->pipeline;
    int64_t channels = t->problem->qk_channels;
    t->keys = block_rows(t, &a->k, w->k_rows, w->k_scales, range);
    t->has_nonfinite_keys = 0;
    if (!pipeline || !pipeline->pack_k) {
        t->kernels->pack_k(w->k_panels, &t->keys, range->start, range->last, channels);
        return;
    }
    if (!pipeline->pack_k(w->k_panels, &t->keys, range->start, range->last, channels)) return;
    for (int64_t j = range->start; j < range->last; j++)
        w->nonfinite_key[j] = j >= range->first && row_is_unusual(&t->keys, j, channels, 0);
    t->has_nonfinite_keys = 1;
}

/* Rows with NaN or infinity would reach, as 0 * NaN, also the queries that do not see them: they are packed as zeros,
 * by a second pass with NULL in their place, and noted in w->unusual for forward_add_unusual. */
void forward_pack_values(struct forward_item *t, const struct forward_range *range)
{
    struct forward_scratch *w = &t->scratch;
    const rapt_attention *a = t->call->a;
    int64_t channels = t->problem->v_channels, keys = t->plan->key_block;
    t->values = block_rows(t, &a->v, w->v_rows, w->v_scales, range);
    const struct cpu_pipeline_kernels *pipeline = t->plan->pipeline;
    int (*pack)(void *, const struct cpu_rows *, int64_t, int64_t, int64_t, int64_t) =
        pipeline && pipeline->pack_v ? pipeline->pack_v : t->kernels->pack_v;
    float least = pipeline ? pipeline->least_value : 0;
    t->unusual_count = 0;
    if (!pack(w->v_panels, &t->values, range->start, range->last, channels, keys)) return;
    for (int64_t j = range->first; j < range->last; j++)
        if (row_is_unusual(&t->values, j, channels, least)) w->unusual[t->unusual_count++] = j;
    for (int64_t i = 0; i < t->unusual_count; i++) w->v_rows[w->unusual[i]] = NULL;
    pack(w->v_panels, &t->values, range->start, range->last, channels, keys);
    key_rows(t->call, &a->v, &t->sequence, t->kv_head, range->key0, range->first, range->last,
             w->v_rows, NULL);
}
