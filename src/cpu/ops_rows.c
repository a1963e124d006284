/* ops_rows.c: softmax, causal mask and KV head replication on a CPU: operations that work row by
 * row. */
#include "base/alloc.h"
#include "base/dtype.h"
#include "cpu/ops.h"
#include "overlap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double elements_of(const rapt_tensor *t)
{
    return (double)t->size[0] * (double)t->size[1] * (double)t->size[2] * (double)t->size[3];
}

static int64_t rows_of(const rapt_tensor *t)
{
    return t->size[0] * t->size[1] * t->size[2];
}

enum { LINE = 64, ROWS_AHEAD = 8, LINES_OF_PAGE = 8 };

/* Rows go to threads in blocks of about so many elements; of more, where each block begins with a row
 * that nobody asked for ahead. */
enum { BLOCK_ELEMENTS = 16384, STREAM_BLOCKS = 8 };

struct row_job {
    const rapt_tensor *x, *out;
    const struct row_kernels *rows;
    int64_t block_rows, offset;
    int64_t ahead; /* rows of x, whose lines are asked for; 0: ops_expect does it */
    int stream;    /* past the caches, which the tensor would not fit anyway */
};

static struct row_job row_job(const rapt_device *device, const rapt_tensor *x,
                              const rapt_tensor *out)
{
    struct row_job job = {.x = x, .out = out, .rows = ops_device(device)->rows};
    int64_t channels = x->size[3] ? x->size[3] : 1;
    job.block_rows = ceil_div(BLOCK_ELEMENTS, channels);
    return job;
}

/* Row number r of a tensor, counted over its first three axes. */
static void *numbered_row(const rapt_tensor *t, int64_t r)
{
    int64_t token = r % t->size[2], head = r / t->size[2] % t->size[1],
            batch = r / t->size[2] / t->size[1];
    return ops_row(t, dtype_size(t->dtype), batch, head, token);
}

/* ---- softmax ---- */

/* A row whose elements do not lie side by side: three passes in plain C. */
static void softmax_strided(const rapt_tensor *x, const rapt_tensor *out, const void *from,
                            void *to)
{
    int64_t n = x->size[3], step = x->stride[3];
    float m = -INFINITY, sum = 0;
    int nan = 0;
    for (int64_t i = 0; i < n; i++) {
        float value = load_float(from, x->dtype, i * step);
        nan |= value != value;
        if (value > m) m = value;
    }
    for (int64_t i = 0; i < n && m != -INFINITY; i++)
        sum += expf(load_float(from, x->dtype, i * step) - m);
    for (int64_t i = 0; i < n; i++) {
        float p = nan              ? NAN
                  : m == -INFINITY ? 0
                                   : expf(load_float(from, x->dtype, i * step) - m) / sum;
        store_float(to, out->dtype, i * out->stride[3], p);
    }
}

static void softmax_block(const void *argument, int64_t index)
{
    const struct row_job *job = argument;
    const rapt_tensor *x = job->x, *out = job->out;
    int64_t first = index * job->block_rows, last = first + job->block_rows, n = x->size[3];
    if (last > rows_of(x)) last = rows_of(x);
    int contiguous = n <= 1 || (x->stride[3] == 1 && out->stride[3] == 1);
    _Alignas(64) float own[2][SOFTMAX_SCRATCH], *more = NULL;
    struct softmax_rows state = {{own[0], own[1]}, .columns = SOFTMAX_SCRATCH};
    if (contiguous && n > SOFTMAX_SCRATCH && n <= SOFTMAX_SCRATCH_MOST) {
        int64_t columns = ceil_div(n, LINE) * LINE;
        more = alloc_bytes((size_t)(2 * columns) * sizeof(float));
        if (more) /* else more passes, over what there is */
            state.scratch[0] = more, state.scratch[1] = more + columns, state.columns = columns;
    }
    for (int64_t r = first; r < last; r++) {
        const void *from = numbered_row(x, r);
        void *to = numbered_row(out, r);
        state.ahead = contiguous && job->ahead && r + job->ahead < rows_of(x)
                          ? (const char *)numbered_row(x, r + job->ahead) - (const char *)from
                          : 0;
        if (job->stream && !job->ahead && contiguous && r + 1 < last) {
            ops_expect(numbered_row(x, r + 1), x->size[3] * (int64_t)dtype_size(x->dtype),
                       LINES_OF_PAGE);
            ops_expect(numbered_row(out, r + 1), x->size[3] * (int64_t)dtype_size(out->dtype),
                       LINES_OF_PAGE);
        }
        if (contiguous)
            job->rows->softmax(to, out->dtype, from, x->dtype, x->size[3], &state, job->stream);
        else softmax_strided(x, out, from, to);
    }
    job->rows->softmax_end(&state);
    free(more);
}

rapt_status cpu_softmax(rapt_device *device, const rapt_softmax_args *args, rapt_stream stream)
{
    (void)stream;
    struct row_job job = row_job(device, &args->x, &args->out);
    if (!view_has_elements(&args->x)) return RAPT_OK;
    job.stream = args->x.data != args->out.data &&
                 elements_of(&args->x) * (double)dtype_size(args->out.dtype) > STREAM_BYTES;
    if (job.stream) {
        int64_t n = args->x.size[3], bytes = n * (int64_t)dtype_size(args->x.dtype);
        job.block_rows *= STREAM_BLOCKS;
        if (n >= SOFTMAX_GUESS_LEAST) job.ahead = ops_ahead(device, bytes, 0, 1, 0, 1);
    }
    ops_parallel(device, ceil_div(rows_of(&args->x), job.block_rows), elements_of(&args->x) * 8,
                 softmax_block, &job);
    return RAPT_OK;
}

/* ---- causal mask ---- */

/* -inf in elements first ... last - 1 of a row; line: 64 bytes of -inf. */
static void fill_hidden(const struct row_job *job, void *row, const void *line, int64_t first,
                        int64_t last)
{
    int64_t dtype = job->x->dtype, stride = job->x->stride[3];
    size_t size = dtype_size(dtype), bytes = (size_t)(last - first) * size;
    char *to = (char *)row + first * (int64_t)size;
    if (stride != 1)
        for (int64_t j = first; j < last; j++) store_float(row, dtype, j * stride, -INFINITY);
    else if (job->rows->fill) job->rows->fill(to, line, bytes, job->stream);
    else {
        size_t i = 0;
        for (; i + LINE <= bytes; i += LINE) memcpy(to + i, line, LINE);
        memcpy(to + i, line, bytes - i);
    }
}

/* Columns of a query that stay. */
static int64_t visible_of(const struct row_job *job, int64_t query)
{
    int64_t visible = query + job->offset + 1;
    return visible < 0 ? 0 : visible;
}

/* The lines that a row's hidden part fills only in part must be read from memory, and all writes
 * behind them wait: they are asked for some rows ahead. Inline, or gcc takes the function for one
 * without effects and drops its calls. */
static inline __attribute__((always_inline)) void ask_for_ends(const struct row_job *job,
                                                               const char *row, int64_t visible)
{
    int64_t size = (int64_t)dtype_size(job->x->dtype), columns = job->x->size[3];
    if (visible >= columns) return;
    const char *first = row + visible * size, *last = row + columns * size - 1;
    if ((uintptr_t)first % LINE) __builtin_prefetch(first, 1);
    if ((uintptr_t)last % LINE != LINE - 1) __builtin_prefetch(last, 1);
}

/* Rows first ... last - 1, whose queries belong to one head. */
static void mask_rows(const struct row_job *job, const void *line, int64_t first, int64_t last)
{
    const rapt_tensor *x = job->x;
    int64_t step = x->stride[2] * (int64_t)dtype_size(x->dtype), query = first % x->size[2];
    char *row = numbered_row(x, first);
    for (int64_t r = 0; r < ROWS_AHEAD && first + r < last && x->stride[3] == 1; r++)
        ask_for_ends(job, row + r * step, visible_of(job, query + r));
    for (int64_t r = first; r < last; r++, query++, row += step) {
        int64_t visible = visible_of(job, query);
        if (r + ROWS_AHEAD < last && x->stride[3] == 1)
            ask_for_ends(job, row + ROWS_AHEAD * step, visible_of(job, query + ROWS_AHEAD));
        if (visible < x->size[3]) fill_hidden(job, row, line, visible, x->size[3]);
    }
}

static void mask_block(const void *argument, int64_t index)
{
    const struct row_job *job = argument;
    const rapt_tensor *x = job->x;
    int64_t first = index * job->block_rows, last = first + job->block_rows, end;
    if (last > rows_of(x)) last = rows_of(x);
    char line[LINE];
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): unknown dtypes were refused */
    for (size_t i = 0; i < LINE / dtype_size(x->dtype); i++)
        store_float(line, x->dtype, (int64_t)i, -INFINITY);
    for (; first < last; first = end) {
        end = first + x->size[2] - first % x->size[2];
        if (end > last) end = last;
        mask_rows(job, line, first, end);
    }
}

rapt_status cpu_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                            rapt_stream stream)
{
    (void)stream;
    struct row_job job = row_job(device, &args->x, &args->x);
    if (!view_has_elements(&args->x)) return RAPT_OK;
    job.stream = elements_of(&args->x) / 2 * (double)dtype_size(args->x.dtype) > STREAM_BYTES;
    if (job.stream) job.block_rows *= STREAM_BLOCKS;
    job.offset = args->align == RAPT_TOP_LEFT ? 0 : args->x.size[3] - args->x.size[2];
    ops_parallel(device, ceil_div(rows_of(&args->x), job.block_rows), elements_of(&args->x) * 2,
                 mask_block, &job);
    return RAPT_OK;
}

/* ---- KV head replication ---- */

struct replicate_job {
    const rapt_tensor *from[2];
    const rapt_tensor *to[2];
    const struct row_kernels *rows;
    int64_t block_tokens, blocks;
    int stream;
};

static void copy_row(const struct replicate_job *job, const rapt_tensor *from,
                     const rapt_tensor *to, void *out, const void *in, int64_t count)
{
    size_t size = dtype_size(from->dtype);
    if (from->dtype == to->dtype && (count == 1 || (from->stride[3] == 1 && to->stride[3] == 1))) {
        if (job->stream && job->rows->copy_stream)
            job->rows->copy_stream(out, in, (size_t)count * size);
        else memcpy(out, in, (size_t)count * size);
        return;
    }
    for (int64_t c = 0; c < count; c++)
        store_float(out, to->dtype, c * to->stride[3],
                    load_float(in, from->dtype, c * from->stride[3]));
}

/* Whether each row can be written to all heads of its group at once. */
static int lines_stream(const struct replicate_job *job, const rapt_tensor *from,
                        const rapt_tensor *to)
{
    return job->stream && job->rows->repeat_stream && from->dtype == to->dtype &&
           (from->size[3] == 1 || (from->stride[3] == 1 && to->stride[3] == 1));
}

/* Tokens first ... last - 1 of one KV head to the heads of its group. */
static void replicate_head(const struct replicate_job *job, const rapt_tensor *from,
                           const rapt_tensor *to, int64_t batch, int64_t head, int64_t first,
                           int64_t last)
{
    int64_t group = to->size[1] / from->size[1], channels = from->size[3];
    int dense = from->dtype == to->dtype && from->stride[3] == 1 && to->stride[3] == 1 &&
                from->stride[2] == channels && to->stride[2] == channels;
    int64_t step = dense ? last - first : 1, size = (int64_t)dtype_size(to->dtype);
    if (!dense && lines_stream(job, from, to)) {
        for (int64_t t = first; t < last; t++)
            job->rows->repeat_stream(
                ops_row(to, (size_t)size, batch, head * group, t), to->stride[1] * size, group,
                ops_row(from, (size_t)size, batch, head, t), (size_t)(channels * size));
        return;
    }
    for (int64_t g = 0; g < group && first < last; g++)
        for (int64_t t = first; t < last; t += step)
            copy_row(job, from, to, ops_row(to, dtype_size(to->dtype), batch, head * group + g, t),
                     ops_row(from, dtype_size(from->dtype), batch, head, t), step * channels);
}

/* A block of tokens of k (even items) or v (odd items), written in the order of memory: a token's
 * heads, or a head's tokens. */
static void replicate_block(const void *argument, int64_t index)
{
    const struct replicate_job *job = argument;
    const rapt_tensor *from = job->from[index % 2], *to = job->to[index % 2];
    int64_t batch = index / 2 / job->blocks, block = index / 2 % job->blocks;
    int64_t first = block * job->block_tokens, last = first + job->block_tokens;
    if (last > from->size[2]) last = from->size[2];
    int token_first = llabs(to->stride[2]) > llabs(to->stride[1]);
    int64_t step = token_first ? 1 : job->block_tokens;
    for (int64_t t = first; t < last; t += step)
        for (int64_t head = 0; head < from->size[1]; head++)
            replicate_head(job, from, to, batch, head, t, t + step < last ? t + step : last);
}

rapt_status cpu_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                             rapt_stream stream)
{
    (void)stream;
    struct replicate_job job = {.from = {&args->k, &args->v},
                                .to = {&args->k_out, &args->v_out},
                                .rows = ops_device(device)->rows};
    if (!view_has_elements(&args->k_out) && !view_has_elements(&args->v_out)) return RAPT_OK;
    double bytes = elements_of(&args->k_out) * (double)dtype_size(args->k.dtype) +
                   elements_of(&args->v_out) * (double)dtype_size(args->v.dtype);
    job.stream = bytes > STREAM_BYTES;
    job.block_tokens = 64;
    job.blocks = ceil_div(args->k.size[2], job.block_tokens);
    ops_parallel(device, 2 * args->k.size[0] * job.blocks, bytes, replicate_block, &job);
    return RAPT_OK;
}
