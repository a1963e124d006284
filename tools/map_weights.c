/* map_weights.c: runs blocks of query rows through the library and pools the weights that come
 * back.
 *
 * Row block [i0, i1) of a sequence becomes a problem of its own, with i1 - i0 queries and the first
 * `keys` keys. Bottom-right alignment puts the block's query r at keys - (i1 - i0) + r, where the
 * whole problem has i0 + r + offset: too far right by shift = keys - i1 - offset. Visibility keeps
 * its meaning when the window's left side grows by the shift and its right side shrinks by it; keys
 * is chosen so that no visible key is lost and the right side stays at 0 or more: keys = min(all,
 * i1 + offset + right). ALiBi's distances cannot be shifted; they become a bias unless the shift is
 * 0. */
#include "map_weights.h"

#include "base/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A block's weights stay within the last cache of most machines, and above the cost of a call. */
enum { BLOCK_BYTES = 8 << 20, BLOCK_ROWS = 512 };

#define OPEN INT64_MAX

struct block_run {
    struct device *device;
    const struct input *input;
    const struct map_request *request;
    rapt_attention whole; /* one sequence, one head, all queries; device pointers */
    int64_t q_length, kv_length, offset, left, right; /* left, right: OPEN or keys */
    int64_t block_rows;
    rapt_attention planned; /* of the plan, without data pointers */
    rapt_plan *plan;
    void *workspace;
    size_t workspace_size;
    float *weights; /* host [block_rows][capacity] */
    float *pooled;  /* [capacity]: the rows of a row of cells so far */
    int64_t *length_host;
    float *bias_host; /* [block_rows][capacity]; NULL: not needed */
    int64_t capacity;
};

static rapt_tensor *field(rapt_attention *a, int i)
{
    return (rapt_tensor *)((char *)a + input_fields[i].offset);
}

/* Moves to index on an axis and leaves one entry of it; an axis of size 1 is broadcast. */
static void pick(rapt_tensor *t, int axis, int64_t index, int64_t count)
{
    if (!t->dtype) return;
    if (t->size[axis] != 1 || count != 1) {
        if (t->size[axis] == 1) index = 0, count = 1;
        t->data = (char *)t->data + index * t->stride[axis] * (int64_t)dtype_size(t->dtype);
    }
    t->size[axis] = count;
}

/* Uploads the tensors and narrows them to the sequence and head. */
static int narrow(struct block_run *run)
{
    const struct input *input = run->input;
    int64_t b = run->request->sequence, h = run->request->head;
    rapt_attention *w = &run->whole;
    *w = input->a;
    const rapt_tensor *qs = &input->a.q_start, *ks = &input->a.kv_start;
    int64_t q_first = qs->dtype ? load_index(qs->data, qs->dtype, b) : 0;
    int64_t k_first = ks->dtype ? load_index(ks->data, ks->dtype, b) : 0;
    int64_t q_row = qs->dtype ? 0 : b, k_row = ks->dtype ? 0 : b,
            g = h / (w->q.size[1] / w->k.size[1]);
    memset(&w->q_start, 0, sizeof w->q_start);
    memset(&w->kv_start, 0, sizeof w->kv_start);
    memset(&w->kv_length, 0, sizeof w->kv_length);
    for (int i = 0; i < input_field_count; i++) {
        rapt_tensor *t = field(w, i);
        size_t bytes = (size_t)tensor_elements(t) * dtype_size(t->dtype);
        if (t->dtype && !(t->data = device_upload(run->device, t->data, bytes)))
            return EXIT_NOT_HERE;
    }
    rapt_tensor *query_like[] = {&w->q, &w->bias, &w->mask, &w->q_scale};
    for (size_t i = 0; i < 4; i++) {
        pick(query_like[i], 0, q_row, 1);
        pick(query_like[i], 1, h, 1);
        if (query_like[i]->size[2] != 1 || qs->dtype)
            pick(query_like[i], 2, q_first, run->q_length);
    }
    pick(&w->bias, 3, 0, run->capacity);
    pick(&w->mask, 3, 0, run->capacity);
    rapt_tensor *key_like[] = {&w->k, &w->v, &w->k_scale, &w->v_scale};
    for (size_t i = 0; i < 4; i++) {
        if (!w->page_table.dtype) pick(key_like[i], 0, k_row, 1);
        pick(key_like[i], 1, g, 1);
        if (ks->dtype) pick(key_like[i], 2, k_first, run->capacity);
    }
    pick(&w->page_table, 0, b, 1);
    pick(&w->sink, 1, h, 1);
    pick(&w->alibi_slope, 1, h, 1);
    return EXIT_OK;
}

static int64_t saturating_add(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* The part of a whole problem that block [first, last) is, but for its data in `out`, `weights`,
 * lengths and bias. */
static rapt_attention block_problem(const struct block_run *run, int64_t first, int64_t last,
                                    int64_t keys)
{
    rapt_attention a = run->whole;
    int64_t rows = last - first, shift = keys - last - run->offset;
    rapt_tensor *query_like[] = {&a.q, &a.bias, &a.mask, &a.q_scale};
    for (size_t i = 0; i < 4; i++)
        if (query_like[i]->size[2] > 1) pick(query_like[i], 2, first, rows);
    a.align = RAPT_BOTTOM_RIGHT;
    a.causal = 0;
    a.window_left = run->left == OPEN ? 0 : saturating_add(run->left + 1, shift);
    a.window_right = run->right == OPEN ? 0 : RAPT_WINDOW(run->right - shift);
    if (run->right != OPEN && run->right == shift) a.causal = 1, a.window_right = 0;
    if (run->bias_host) {
        a.bias = rapt_tensor_bhtd(run->bias_host, RAPT_F32, 1, 1, rows, run->capacity);
        memset(&a.alibi_slope, 0, sizeof a.alibi_slope);
    }
    a.kv_length = rapt_tensor_bhtd(run->length_host, RAPT_I64, 1, 1, 1, 1);
    a.out = rapt_tensor_bhtd(NULL, a.q.dtype == RAPT_I8 ? RAPT_F32 : (rapt_dtype)a.q.dtype, 1, 1,
                             rows, a.v.size[3]);
    a.weights = rapt_tensor_bhtd(run->weights, RAPT_F32, 1, 1, rows, run->capacity);
    return a;
}

static void forget_pointers(rapt_attention *a)
{
    for (int i = 0; i < input_field_count; i++) field(a, i)->data = NULL;
    a->out.data = a->weights.data = NULL;
}

/* Plans a unless the last plan fits it. */
static int plan_block(struct block_run *run, const rapt_attention *a)
{
    rapt_attention bare = *a;
    forget_pointers(&bare);
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): no padding */
    if (run->plan && !memcmp(&bare, &run->planned, sizeof bare)) return EXIT_OK;
    rapt_plan_destroy(&run->plan);
    rapt_status status = rapt_plan_create(&run->plan, run->device->handle, a);
    if (status)
        return complain(exit_code_of(status), "%s: %s", run->device->label, rapt_last_error());
    run->planned = bare;
    size_t bytes = rapt_plan_workspace_size(run->plan);
    if (bytes <= run->workspace_size) return EXIT_OK;
    rapt_free(run->device->handle, run->workspace);
    run->workspace = NULL;
    run->workspace_size = 0;
    status = rapt_alloc(run->device->handle, bytes, &run->workspace);
    if (status)
        return complain(exit_code_of(status), "%s: %s", run->device->label, rapt_last_error());
    run->workspace_size = bytes;
    return EXIT_OK;
}

/* bias[row][key] = the file's bias - slope |distance|, on the host. */
static void fill_bias(struct block_run *run, int64_t first, int64_t last)
{
    const struct input *input = run->input;
    const rapt_tensor *bias = &input->a.bias;
    int64_t b = run->request->sequence, h = run->request->head;
    int64_t row0 =
        input->a.q_start.dtype ? load_index(input->a.q_start.data, input->a.q_start.dtype, b) : 0;
    double slope = ((const float *)input->a.alibi_slope.data)[h];
    for (int64_t i = first; i < last; i++)
        for (int64_t j = 0; j < run->capacity; j++) {
            double x = -slope * (double)llabs(i + run->offset - j);
            if (bias->dtype) {
                int64_t at = (bias->size[0] > 1 ? b : 0) * bias->stride[0] +
                             (bias->size[1] > 1 ? h : 0) * bias->stride[1] +
                             (bias->size[2] > 1 ? row0 + i : 0) * bias->stride[2] +
                             (bias->size[3] > 1 ? j : 0);
                x += load_float(bias->data, bias->dtype, at);
            }
            run->bias_host[(i - first) * run->capacity + j] = (float)x;
        }
}

/* Where the device finds the block's small inputs and leaves its outputs. */
struct block_memory {
    void *out, *weights, *length, *bias;
};

static int compute_block(struct block_run *run, const struct block_memory *memory, int64_t first,
                         int64_t last, int64_t keys)
{
    rapt_device *device = run->device->handle;
    rapt_attention a = block_problem(run, first, last, keys);
    int code = plan_block(run, &a);
    if (code) return code;
    *run->length_host = keys;
    if (run->bias_host) fill_bias(run, first, last);
    a.out.data = memory->out;
    a.weights.data = memory->weights;
    a.kv_length.data = memory->length;
    if (run->bias_host) a.bias.data = memory->bias;
    size_t bytes = (size_t)(last - first) * (size_t)run->capacity * sizeof(float);
    rapt_status status = RAPT_OK;
    if (!run->device->is_cpu)
        status =
            rapt_copy(device, memory->length, run->length_host, sizeof *run->length_host, NULL);
    if (!status && run->bias_host && !run->device->is_cpu)
        status = rapt_copy(device, memory->bias, run->bias_host, bytes, NULL);
    if (!status) status = rapt_plan_execute(run->plan, &a, run->workspace, NULL);
    if (!status) status = rapt_synchronize(device, NULL);
    if (status)
        return complain(exit_code_of(status), "%s: %s", run->device->label, rapt_last_error());
    return device_download(run->device, run->weights, memory->weights, bytes);
}

/* Ten thousand million weights of a long sequence pass through these two loops: vector code,
 * whatever the file is built with. */
#if defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((optimize("O3")))
#else
#define VECTORISED
#endif

/* The larger of two, and NaN if one is NaN. */
VECTORISED static void pool_max(float *restrict to, const float *restrict row, int64_t count)
{
    for (int64_t j = 0; j < count; j++)
        to[j] = ((row[j] > to[j]) | (row[j] != row[j])) ? row[j] : to[j];
}

VECTORISED static void pool_sum(float *restrict to, const float *restrict row, int64_t count)
{
    for (int64_t j = 0; j < count; j++) to[j] += row[j];
}

/* Pools the columns of one row of cells, whose `rows` rows of weights are in run->pooled. */
static void finish_cells(const struct block_run *run, float *cells, int64_t rows)
{
    const struct map_request *r = run->request;
    for (int64_t c = 0, j = 0; c < r->columns; c++) {
        int64_t end = (c + 1) * run->kv_length / r->columns, first = j;
        double sum = 0;
        float most = 0;
        for (; j < end; j++) {
            sum += run->pooled[j];
            pool_max(&most, &run->pooled[j], 1);
        }
        cells[c] = r->mean ? (float)(sum / ((double)(end - first) * (double)rows)) : most;
    }
    memset(run->pooled, 0, (size_t)run->capacity * sizeof *run->pooled);
}

/* Adds rows [first, last) of which keys past the first `keys` are hidden, as are those before the
 * window of the first row; keys 0: rows that see none. */
static void pool_rows(const struct block_run *run, float *cells, int64_t first, int64_t last,
                      int64_t keys)
{
    const struct map_request *r = run->request;
    int64_t from = run->left == OPEN ? 0 : first + run->offset - run->left;
    if (from < 0) from = 0;
    for (int64_t i = first; i < last; i++) {
        int64_t cell = ((i + 1) * r->rows - 1) / run->q_length;
        int64_t begin = cell * run->q_length / r->rows, end = (cell + 1) * run->q_length / r->rows;
        const float *row = run->weights + (i - first) * run->capacity;
        if (keys > from)
            (r->mean ? pool_sum : pool_max)(run->pooled + from, row + from, keys - from);
        if (i + 1 == end) finish_cells(run, cells + cell * r->columns, end - begin);
    }
}

/* The blocks in order; rows that see no key by their position alone are not computed. */
static int run_blocks(struct block_run *run, const struct block_memory *memory, float *cells)
{
    for (int64_t first = 0, last; first < run->q_length; first = last) {
        last = first + run->block_rows < run->q_length ? first + run->block_rows : run->q_length;
        int64_t keys = run->kv_length, seen = last;
        if (run->right != OPEN) {
            int64_t reach = saturating_add(last + run->offset, run->right);
            if (reach < keys) keys = reach;
        }
        if (run->left != OPEN) {
            int64_t end = saturating_add(keys - run->offset, run->left);
            if (end < seen) seen = end > first ? end : first;
        }
        if (keys <= 0) seen = first;
        if (seen > first) {
            /* Fewer rows: the window's right side may end before all keys again. */
            int64_t reach =
                run->right == OPEN ? keys : saturating_add(seen + run->offset, run->right);
            if (reach < keys) keys = reach;
            int code = compute_block(run, memory, first, seen, keys);
            if (code) return code;
            pool_rows(run, cells, first, seen, keys);
        }
        pool_rows(run, cells, seen, last, 0);
    }
    return EXIT_OK;
}

/* A side of the window. One that shows every key of every query is open, so that sums of it with
 * positions stay small. */
static int64_t side_of(const struct block_run *run, int64_t window)
{
    int64_t farthest = run->q_length + run->kv_length;
    return window && window - 1 < farthest ? window - 1 : OPEN;
}

static void measure(struct block_run *run)
{
    const rapt_attention *a = &run->input->a;
    run->q_length = input_q_length(run->input, run->request->sequence);
    run->kv_length = input_kv_length(run->input, run->request->sequence);
    run->capacity = a->page_table.dtype ? a->page_table.size[2] * a->k.size[2]
                    : a->kv_start.dtype ? run->kv_length
                                        : a->k.size[2];
    if (a->kv_start.dtype)
        run->capacity =
            load_index(a->kv_start.data, a->kv_start.dtype, run->request->sequence + 1) -
            load_index(a->kv_start.data, a->kv_start.dtype, run->request->sequence);
    run->offset = a->align == RAPT_TOP_LEFT ? 0 : run->kv_length - run->q_length;
    run->left = side_of(run, a->window_left);
    run->right = side_of(run, a->window_right);
    if (a->causal) run->right = 0;
    run->block_rows = BLOCK_BYTES / (int64_t)sizeof(float) / (run->capacity ? run->capacity : 1);
    if (run->block_rows > BLOCK_ROWS) run->block_rows = BLOCK_ROWS;
    if (run->block_rows < 1) run->block_rows = 1;
    if (run->block_rows > run->q_length) run->block_rows = run->q_length;
}

static int allocate(struct block_run *run, struct block_memory *memory)
{
    size_t block = (size_t)run->block_rows * (size_t)run->capacity * sizeof(float);
    int shifted = run->right == OPEN || run->right > 0 || run->input->a.align == RAPT_TOP_LEFT;
    run->weights = malloc(block);
    run->pooled = calloc((size_t)run->capacity, sizeof *run->pooled);
    run->length_host = malloc(sizeof *run->length_host);
    if (run->input->a.alibi_slope.dtype && shifted && !(run->bias_host = malloc(block)))
        return complain(EXIT_NOT_HERE, "no %zu bytes of memory for a block of rows", block);
    if (!run->weights || !run->pooled || !run->length_host)
        return complain(EXIT_NOT_HERE, "no %zu bytes of memory for a block of rows", block);
    memory->out = device_memory(run->device, (size_t)run->block_rows *
                                                 (size_t)run->whole.v.size[3] * sizeof(float));
    if (!memory->out) return EXIT_NOT_HERE;
    *memory = (struct block_memory){memory->out, run->weights, run->length_host, run->bias_host};
    if (run->device->is_cpu) return EXIT_OK;
    memory->weights = device_memory(run->device, block);
    memory->length = device_memory(run->device, sizeof *run->length_host);
    if (run->bias_host) memory->bias = device_memory(run->device, block);
    return memory->weights && memory->length && (memory->bias || !run->bias_host) ? EXIT_OK
                                                                                  : EXIT_NOT_HERE;
}

int map_weights(struct device *device, const struct device_options *options,
                const struct input *input, const struct map_request *request, float *cells,
                char kernel[64])
{
    struct block_run run = {.device = device, .input = input, .request = request};
    struct block_memory memory = {0};
    measure(&run);
    int code = narrow(&run);
    run.whole.kernel = options->kernel;
    if (!code) code = allocate(&run, &memory);
    if (!code) code = run_blocks(&run, &memory, cells);
    snprintf(kernel, 64, "%s", run.plan ? rapt_plan_kernel(run.plan) : "none: no query sees a key");
    rapt_plan_destroy(&run.plan);
    rapt_free(device->handle, run.workspace);
    free(run.weights);
    free(run.pooled);
    free(run.length_host);
    free(run.bias_host);
    return code;
}
