/* ops_matmul.c: scores (scale * q k^T) and weighted values (weights v) on a CPU, by the decode
 * kernels in place: no panels, no workspace. */
#include "base/dtype.h"
#include "cpu/ops.h"
#include "overlap.h"

#include <math.h>
#include <string.h>

enum {
    TILE_ROWS = 8, /* of one kernel call */
    BLOCK_KEYS =
        64, /* of one kernel call: a block of f32 keys of 128 channels fits the first cache */
    PART_CHANNELS = 256, /* wider rows are summed in parts, */
    VALUE_CHANNELS =
        128,        /* those of values in smaller ones, of which a stack has to hold ITEM_ROWS */
    ITEM_ROWS = 32, /* query rows of one work item */
    ITEM_KEYS = 512,
};

/* The best level that multiplies floats: not pairs, not integers. */
static const struct cpu_kernels *float_level(const rapt_device *device)
{
    const struct cpu_level *const *level = ops_device(device)->levels; /* scalar, the last, does */
    while ((*level)->kernels->pair != 1 || (*level)->kernels->decode_q ||
           !(*level)->kernels->decode_qk)
        level++;
    return (*level)->kernels;
}

struct matmul_job {
    const rapt_tensor *a, *b, *out; /* q or weights, k or v, out */
    const struct cpu_kernels *kernels;
    int64_t group, row_blocks, key_blocks;
    float scale;
};

/* ---- scores ---- */

static void score_tile(const struct matmul_job *job, int64_t batch, int64_t head, int64_t row0,
                       int64_t rows, int64_t key0, int64_t keys)
{
    const rapt_tensor *q = job->a, *k = job->b, *out = job->out;
    size_t q_size = dtype_size(q->dtype), k_size = dtype_size(k->dtype);
    _Alignas(64) float x[TILE_ROWS][PART_CHANNELS], s[TILE_ROWS][BLOCK_KEYS],
        sum[TILE_ROWS][BLOCK_KEYS];
    const void *row[BLOCK_KEYS];
    for (int64_t c = 0; c == 0 || c < q->size[3]; c += PART_CHANNELS) {
        int64_t width = q->size[3] - c < PART_CHANNELS ? q->size[3] - c : PART_CHANNELS;
        for (int64_t r = 0; r < rows; r++)
            job->kernels->load_row(x[r],
                                   (char *)ops_row(q, q_size, batch, head, row0 + r) +
                                       c * q->stride[3] * (int64_t)q_size,
                                   q->dtype, q->stride[3], width);
        for (int64_t j = 0; j < keys; j++)
            row[j] = (char *)ops_row(k, k_size, batch, head / job->group, key0 + j) +
                     c * k->stride[3] * (int64_t)k_size;
        struct cpu_rows k_rows = {.row = row, .dtype = k->dtype, .channel_stride = k->stride[3]};
        job->kernels->decode_qk(c ? s[0] : sum[0], BLOCK_KEYS, x, PART_CHANNELS, &k_rows, rows,
                                width, 0, keys, NULL);
        for (int64_t r = 0; r < rows && c; r++)
            for (int64_t j = 0; j < keys; j++) sum[r][j] += s[r][j];
    }
    for (int64_t r = 0; r < rows; r++) {
        char *to = ops_row(out, dtype_size(out->dtype), batch, head, row0 + r);
        job->kernels->store_row(to + key0 * out->stride[3] * (int64_t)dtype_size(out->dtype),
                                out->dtype, out->stride[3], sum[r], job->scale, keys);
    }
}

/* Item: ITEM_KEYS keys of one KV head against all query rows of its group; a block of keys stays in
 * the first cache while the rows pass. */
static void score_block(const void *argument, int64_t index)
{
    const struct matmul_job *job = argument;
    int64_t block = index % job->key_blocks, kv_head = index / job->key_blocks % job->b->size[1];
    int64_t batch = index / job->key_blocks / job->b->size[1], tokens = job->a->size[2],
            keys = job->b->size[2];
    int64_t last = (block + 1) * ITEM_KEYS < keys ? (block + 1) * ITEM_KEYS : keys;
    for (int64_t key = block * ITEM_KEYS; key < last; key += BLOCK_KEYS)
        for (int64_t head = kv_head * job->group; head < (kv_head + 1) * job->group; head++)
            for (int64_t row = 0; row < tokens; row += TILE_ROWS)
                score_tile(job, batch, head, row,
                           tokens - row < TILE_ROWS ? tokens - row : TILE_ROWS, key,
                           last - key < BLOCK_KEYS ? last - key : BLOCK_KEYS);
}

rapt_status cpu_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream)
{
    (void)stream;
    const rapt_tensor *q = &args->q, *k = &args->k;
    struct matmul_job job = {.a = q, .b = k, .out = &args->out, .kernels = float_level(device)};
    if (!view_has_elements(&args->out)) return RAPT_OK;
    job.group = q->size[1] / k->size[1];
    job.key_blocks = ceil_div(k->size[2], ITEM_KEYS);
    job.scale = (float)(args->scale != 0 ? args->scale : 1 / sqrt((double)q->size[3]));
    double work = (double)q->size[0] * (double)q->size[1] * (double)q->size[2] * (double)k->size[2];
    ops_parallel(device, k->size[0] * k->size[1] * job.key_blocks, work * 4, score_block, &job);
    return RAPT_OK;
}

/* ---- weighted values ---- */

static int row_is_finite(const struct matmul_job *job, const char *row, int64_t channels)
{
    float x[VALUE_CHANNELS], largest = 0;
    job->kernels->load_row(x, row, job->b->dtype, job->b->stride[3], channels);
    for (int64_t c = 0; c < channels; c++) largest += x[c] * 0;
    return largest == 0;
}

/* Adds one key to the rows whose weight is not 0. */
static void add_key(const struct matmul_job *job, float (*o)[VALUE_CHANNELS],
                    float (*p)[BLOCK_KEYS], int64_t rows, int64_t j, const char *row,
                    int64_t channels)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels && p[r][j] != 0; c++)
            o[r][c] += p[r][j] * load_float(row, job->b->dtype, c * job->b->stride[3]);
}

/* A weight of 0 must not touch its value, which may be NaN or infinite: keys that no row wants are
 * skipped, and where only some rows want a value that is not finite, it is added to those alone. */
static void sort_keys(const struct matmul_job *job, float (*o)[VALUE_CHANNELS],
                      float (*p)[BLOCK_KEYS], int64_t rows, int64_t keys, const void **row,
                      int64_t channels)
{
    for (int64_t j = 0; j < keys; j++) {
        int64_t zeros = 0;
        for (int64_t r = 0; r < rows; r++) zeros += p[r][j] == 0;
        if (zeros == 0) continue;
        if (zeros < rows) {
            if (row_is_finite(job, row[j], channels)) continue;
            add_key(job, o, p, rows, j, row[j], channels);
        }
        row[j] = NULL;
        for (int64_t r = 0; r < rows; r++) p[r][j] = 0;
    }
}

static void value_tile(const struct matmul_job *job, int64_t batch, int64_t head, int64_t row0,
                       int64_t rows, int64_t channel, int64_t width)
{
    const rapt_tensor *w = job->a, *v = job->b, *out = job->out;
    size_t w_size = dtype_size(w->dtype), v_size = dtype_size(v->dtype),
           out_size = dtype_size(out->dtype);
    _Alignas(64) float p[ITEM_ROWS][BLOCK_KEYS], o[ITEM_ROWS][VALUE_CHANNELS];
    const void *row[BLOCK_KEYS], *wanted[BLOCK_KEYS];
    memset(o, 0, sizeof o);
    for (int64_t key = 0; key < v->size[2]; key += BLOCK_KEYS) {
        int64_t keys = v->size[2] - key < BLOCK_KEYS ? v->size[2] - key : BLOCK_KEYS;
        for (int64_t j = 0; j < keys; j++)
            row[j] = (char *)ops_row(v, v_size, batch, head / job->group, key + j) +
                     channel * v->stride[3] * (int64_t)v_size;
        for (int64_t r = 0; r < rows; r++)
            job->kernels->load_row(p[r],
                                   (char *)ops_row(w, w_size, batch, head, row0 + r) +
                                       key * w->stride[3] * (int64_t)w_size,
                                   w->dtype, w->stride[3], keys);
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
            int64_t tile = rows - r < TILE_ROWS ? rows - r : TILE_ROWS;
            memcpy(wanted, row, (size_t)keys * sizeof *row);
            sort_keys(job, o + r, p + r, tile, keys, wanted, width);
            struct cpu_rows v_rows = {
                .row = wanted, .dtype = v->dtype, .channel_stride = v->stride[3]};
            job->kernels->decode_pv(o[r], VALUE_CHANNELS, p[r], BLOCK_KEYS, &v_rows, tile, width, 0,
                                    keys, NULL);
        }
    }
    for (int64_t r = 0; r < rows; r++)
        job->kernels->store_row((char *)ops_row(out, out_size, batch, head, row0 + r) +
                                    channel * out->stride[3] * (int64_t)out_size,
                                out->dtype, out->stride[3], o[r], 1, width);
}

/* Item: ITEM_ROWS query rows of one head. */
static void value_block(const void *argument, int64_t index)
{
    const struct matmul_job *job = argument;
    int64_t tokens = job->a->size[2], heads = job->a->size[1], channels = job->b->size[3];
    int64_t first = index % job->row_blocks * ITEM_ROWS, head = index / job->row_blocks % heads;
    int64_t batch = index / job->row_blocks / heads;
    for (int64_t c = 0; c < channels; c += VALUE_CHANNELS)
        value_tile(job, batch, head, first, tokens - first < ITEM_ROWS ? tokens - first : ITEM_ROWS,
                   c, channels - c < VALUE_CHANNELS ? channels - c : VALUE_CHANNELS);
}

rapt_status cpu_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream)
{
    (void)stream;
    const rapt_tensor *w = &args->weights, *v = &args->v;
    struct matmul_job job = {.a = w, .b = v, .out = &args->out, .kernels = float_level(device)};
    if (!view_has_elements(&args->out)) return RAPT_OK;
    job.group = w->size[1] / v->size[1];
    job.row_blocks = ceil_div(w->size[2], ITEM_ROWS);
    double work = (double)w->size[0] * (double)w->size[1] * (double)w->size[2] * (double)w->size[3];
    ops_parallel(device, w->size[0] * w->size[1] * job.row_blocks, work * 4, value_block, &job);
    return RAPT_OK;
}
