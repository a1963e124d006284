/* ops_rope.c: rotary position embedding on a CPU (Su et al., "RoFormer", arXiv:2104.09864),
 * half-split and interleaved. */
#include "base/dtype.h"
#include "base/error.h"
#include "cpu/ops.h"
#include "overlap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void rotation_prepare(struct rotation *r, const rapt_device *device, const rapt_rope_args *args)
{
    r->args = args;
    r->pairs = args->rotary_channels / 2;
    r->rows = ops_device(device)->rows;
    r->magnitude = 1;
    r->largest = 0;
    if (args->cos.dtype) return;
    rope_frequencies(args, args->rotary_channels, r->inverse, &r->magnitude);
    for (int64_t i = 0; i < r->pairs; i++) r->largest = fmax(r->largest, fabs(r->inverse[i]));
}

static int64_t table_rows(const struct rotation *r)
{
    return min64(r->args->cos.size[2], r->args->sin.size[2]);
}

rapt_status rotation_check(const struct rotation *r, int64_t position, const char *function)
{
    if (!r->args->cos.dtype) return RAPT_OK;
    int64_t rows = table_rows(r);
    if (position >= 0 && position < rows) return RAPT_OK;
    return fail(RAPT_INVALID, "%s: a position is %lld (cos and sin have rows 0 ... %lld)", function,
                (long long)position, (long long)rows - 1);
}

rapt_status rotation_check_run(const struct rotation *r, int64_t first, int64_t count,
                               const char *function)
{
    if (count < 1) return RAPT_OK;
    return rotation_check(r, max64(first, min64(first + count - 1, table_rows(r))), function);
}

static void table_row(float *to, const rapt_tensor *table, int64_t position, int64_t pairs)
{
    const float *row = ops_row(table, sizeof(float), 0, 0, position);
    for (int64_t i = 0; i < pairs; i++) to[i] = row[i * table->stride[3]];
}

/* Whether the row kernels' reduction of angles is exact. */
static int is_near(const struct rotation *r, int64_t position)
{
    return fmax(fabs((double)position), 1) * r->largest < ANGLE_MAX;
}

/* Neighbours in runs. */
void rotation_angles(const struct rotation *r, const int64_t *position, int64_t count,
                     float *cosine, float *sine)
{
    for (int64_t i = 0, end; i < count; i = end) {
        float *c = cosine + i * r->pairs, *s = sine + i * r->pairs;
        end = i + 1;
        if (r->args->cos.dtype) {
            table_row(c, &r->args->cos, position[i], r->pairs);
            table_row(s, &r->args->sin, position[i], r->pairs);
            continue;
        }
        int near = is_near(r, position[i]);
        while (end < count && position[end - 1] < INT64_MAX &&
               position[end] == position[end - 1] + 1 && is_near(r, position[end]) == near)
            end++;
        const struct row_kernels *rows = near ? r->rows : &rows_scalar;
        rows->angles(c, s, position[i], end - i, r->inverse, r->magnitude, r->pairs);
    }
}

static void rotate_strided(const struct rotation *r, void *to, int64_t to_dtype, int64_t to_stride,
                           const void *from, int64_t from_dtype, int64_t from_stride,
                           const float *cosine, const float *sine)
{
    int64_t step = r->args->interleaved ? 2 : 1, second = r->args->interleaved ? 1 : r->pairs;
    for (int64_t i = 0; i < r->pairs; i++) {
        int64_t low = i * step, high = low + second;
        float x = load_float(from, from_dtype, low * from_stride),
              y = load_float(from, from_dtype, high * from_stride);
        /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): all pairs are set */
        store_float(to, to_dtype, low * to_stride, x * cosine[i] - y * sine[i]);
        store_float(to, to_dtype, high * to_stride, y * cosine[i] + x * sine[i]);
    }
}

void rotation_rows(const struct rotation *r, const struct row_run *run, int64_t dtype,
                   int64_t channels, const float *cosine, const float *sine)
{
    size_t size = dtype_size(dtype), done = 2 * (size_t)r->pairs * size;
    r->rows->rotate(run, dtype, cosine, sine, r->pairs, r->args->interleaved != 0);
    if (run->to == run->from || done == (size_t)channels * size) return;
    for (int64_t i = 0; i < run->rows; i++)
        memcpy((char *)run->to + i * run->to_step + done,
               (const char *)run->from + i * run->from_step + done, (size_t)channels * size - done);
}

int64_t rotation_piece(const struct rotation *r, float x[ROTATED_FLOATS], const struct row_run *run,
                       int64_t first, int64_t dtype, int64_t channels, const float *cosine,
                       const float *sine)
{
    int64_t most = ROTATED_FLOATS / channels, row = channels * (int64_t)sizeof *x;
    struct row_run piece = {.to = x,
                            .from = (const char *)run->from + first * run->from_step,
                            .to_step = row,
                            .from_step = run->from_step,
                            .rows = run->rows - first < most ? run->rows - first : most,
                            .table_step = run->table_step};
    if (dtype != RAPT_F32) {
        r->rows->convert(&piece, RAPT_F32, dtype, channels);
        piece.from = x;
        piece.from_step = row;
    }
    rotation_rows(r, &piece, RAPT_F32, channels, cosine + first * run->table_step,
                  sine + first * run->table_step);
    return piece.rows;
}

void rotation_row(const struct rotation *r, void *to, int64_t to_dtype, int64_t to_stride,
                  const void *from, int64_t from_dtype, int64_t from_stride, int64_t channels,
                  const float *cosine, const float *sine)
{
    if (to_dtype == from_dtype && to_stride == 1 && from_stride == 1) {
        struct row_run run = {.to = to, .from = from, .rows = 1};
        rotation_rows(r, &run, to_dtype, channels, cosine, sine);
        return;
    }
    rotate_strided(r, to, to_dtype, to_stride, from, from_dtype, from_stride, cosine, sine);
    for (int64_t i = 2 * r->pairs; i < channels; i++)
        store_float(to, to_dtype, i * to_stride, load_float(from, from_dtype, i * from_stride));
}

/* ---- the operation ---- */

enum {
    TABLE_FLOATS = 2048, /* of cos and of sin: a block of tokens, in half of the first cache */
    BLOCK_MOST = 64,
};

struct rope_job {
    const rapt_rope_args *args;
    const struct rotation *rotation;
    int64_t block_tokens, blocks; /* per sequence */
    const rapt_device *device;
    int stream;
};

static int64_t token_position(const rapt_tensor *position, int64_t b, int64_t token)
{
    if (!position->dtype) return token;
    return load_index(position->data, position->dtype,
                      b * position->stride[0] + token * position->stride[2]);
}

/* Into another type, by way of f32. */
static void rotate_converting(const struct rope_job *job, const struct row_run *run,
                              const float *cosine, const float *sine)
{
    const rapt_tensor *x = &job->args->x, *out = &job->args->out;
    _Alignas(64) float piece[ROTATED_FLOATS];
    struct row_run to = *run;
    to.from = piece;
    to.from_step = x->size[3] * (int64_t)sizeof *piece;
    for (int64_t i = 0; i < run->rows; i += to.rows) {
        to.rows = rotation_piece(job->rotation, piece, run, i, x->dtype, x->size[3], cosine, sine);
        to.to = (char *)run->to + i * run->to_step;
        job->rotation->rows->convert(&to, out->dtype, RAPT_F32, x->size[3]);
    }
}

/* Tokens of one sequence whose channels lie side by side: the heads of a token at a time, or the
 * tokens of a head, in the order of memory. */
static void rope_rows(const struct rope_job *job, int64_t b, int64_t first, int64_t last,
                      int token_first, const float *cosine, const float *sine)
{
    const rapt_tensor *x = &job->args->x, *out = &job->args->out;
    size_t size = dtype_size(x->dtype), to_size = dtype_size(out->dtype);
    int64_t pairs = job->rotation->pairs, runs = token_first ? last - first : x->size[1];
    int axis = token_first ? 1 : 2;
    struct row_run run = {.to_step = out->stride[axis] * (int64_t)to_size,
                          .from_step = x->stride[axis] * (int64_t)size,
                          .rows = token_first ? x->size[1] : last - first,
                          .table_step = token_first ? 0 : pairs,
                          .stream = job->stream};
    for (int64_t i = 0; i < runs; i++) {
        int64_t head = token_first ? 0 : i, token = token_first ? first + i : first;
        const float *c = cosine + (token - first) * pairs, *s = sine + (token - first) * pairs;
        run.to = ops_row(out, to_size, b, head, token);
        run.from = ops_row(x, size, b, head, token);
        if (job->stream && (i == 0 || !token_first)) /* as far for all tokens */
            run.ahead = ops_ahead(job->device, run.rows * x->size[3] * (int64_t)size, head,
                                  token_first ? 1 : runs, x->stride[1] * (int64_t)size,
                                  (token_first ? 1 : run.rows) * x->stride[2] * (int64_t)size);
        if (job->stream && !run.ahead) {
            ops_expect((const char *)run.from + run.rows * run.from_step, run.rows * run.from_step,
                       1);
            ops_expect((const char *)run.to + run.rows * run.to_step, run.rows * run.to_step, 1);
        }
        if (x->dtype == out->dtype) rotation_rows(job->rotation, &run, x->dtype, x->size[3], c, s);
        else rotate_converting(job, &run, c, s);
    }
}

/* Tokens block_tokens * index ... of one sequence, all heads. */
static void rope_block(const void *argument, int64_t index)
{
    const struct rope_job *job = argument;
    const rapt_tensor *x = &job->args->x, *out = &job->args->out;
    const struct rotation *r = job->rotation;
    int64_t b = index / job->blocks, first = index % job->blocks * job->block_tokens;
    int64_t last = first + job->block_tokens < x->size[2] ? first + job->block_tokens : x->size[2];
    _Alignas(64) float cosine[TABLE_FLOATS], sine[TABLE_FLOATS];
    int64_t position[BLOCK_MOST], heads = x->size[1], tokens = last - first;
    for (int64_t t = 0; t < tokens; t++)
        position[t] = token_position(&job->args->position, b, first + t);
    ops_expect_lines(ops_row(x, dtype_size(x->dtype), b, 0, first), LINES_FIRST);
    rotation_angles(r, position, tokens, cosine, sine);
    int token_first = llabs(x->stride[2]) > llabs(x->stride[1]); /* the order of memory */
    int runs = x->dtype == out->dtype || (x->size[3] > 0 && x->size[3] <= ROTATED_FLOATS);
    if (runs && x->stride[3] == 1 && out->stride[3] == 1) {
        rope_rows(job, b, first, last, token_first, cosine, sine);
        return;
    }
    for (int64_t i = 0; i < heads * tokens; i++) {
        int64_t h = token_first ? i % heads : i / tokens, t = token_first ? i / heads : i % tokens;
        rotation_row(r, ops_row(out, dtype_size(out->dtype), b, h, first + t), out->dtype,
                     out->stride[3], ops_row(x, dtype_size(x->dtype), b, h, first + t), x->dtype,
                     x->stride[3], x->size[3], cosine + t * r->pairs, sine + t * r->pairs);
    }
}

/* Those that are not given begin at 0 in each sequence. */
static rapt_status check_positions(const struct rotation *r, const rapt_tensor *x)
{
    const rapt_tensor *position = &r->args->position;
    rapt_status status = RAPT_OK;
    if (!r->args->cos.dtype || !x->size[0] || !x->size[2]) return RAPT_OK;
    if (!position->dtype) return rotation_check_run(r, 0, x->size[2], "rapt_rope");
    for (int64_t b = 0; b < view_distinct(position, 0); b++)
        for (int64_t t = 0; t < view_distinct(position, 2) && !status; t++)
            status = rotation_check(r, token_position(position, b, t), "rapt_rope");
    return status;
}

rapt_status cpu_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream)
{
    (void)stream;
    const rapt_tensor *x = &args->x;
    struct rotation rotation;
    rapt_status status;
    rotation_prepare(&rotation, device, args);
    if ((status = check_positions(&rotation, x))) return status;
    if (!view_has_elements(x)) return RAPT_OK;
    struct rope_job job = {.args = args, .rotation = &rotation, .device = device};
    int64_t fitting = rotation.pairs ? TABLE_FLOATS / rotation.pairs : TABLE_FLOATS;
    job.block_tokens = fitting < BLOCK_MOST ? fitting : BLOCK_MOST;
    job.blocks = ceil_div(x->size[2], job.block_tokens);
    double elements =
        (double)x->size[0] * (double)x->size[1] * (double)x->size[2] * (double)x->size[3];
    job.stream =
        x->data != args->out.data && elements * (double)dtype_size(args->out.dtype) > STREAM_BYTES;
    ops_parallel(device, x->size[0] * job.blocks, elements * 8, rope_block, &job);
    return RAPT_OK;
}
