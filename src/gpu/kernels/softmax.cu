/* softmax.cu: weights = softmax(scores) along the keys, any length and stride; a row of -inf gives
 * zeros. Portable, f32 arithmetic. Rows whose scores fit in registers are read once; longer and
 * strided ones twice. */
#include "rows.h"

enum { WAVES = THREADS / WAVE, KEPT = 32 /* elements per lane that are kept in registers */ };

struct partial {
    float m, l; /* maximum; sum of exp(x - m) */
};

DEVICE struct partial merged(struct partial a, struct partial b)
{
    struct partial c = {maximum(a.m, b.m), 0};
    float base = c.m == -INFINITY ? 0 : c.m;
    c.l = a.l * exp2_fast((a.m - base) * LOG2_E) + b.l * exp2_fast((b.m - base) * LOG2_E);
    return c;
}

DEVICE float block_max(float x, float *shared)
{
    x = max_of_wave(x);
    block_barrier();
    if (THREAD % WAVE == 0) shared[THREAD / WAVE] = x;
    block_barrier();
#pragma unroll
    for (int i = 0; i < WAVES; i++) x = maximum(x, shared[i]);
    return x;
}

DEVICE float block_sum(float x, float *shared)
{
    x = sum_of_wave(x);
    block_barrier();
    if (THREAD % WAVE == 0) shared[THREAD / WAVE] = x;
    block_barrier();
    x = 0;
#pragma unroll
    for (int i = 0; i < WAVES; i++) x += shared[i];
    return x;
}

/* The row's sink joins as a logit without a column; also writes the log-sum-exp. Returns what to
 * multiply exp(x - m) with. */
DEVICE float finish_row(const struct attention_args *a, const struct score_row *r, float m, float l,
                        float sink, int writer)
{
    struct partial own = {m, l}, extra = {sink, 1};
    if (sink != -INFINITY) own = merged(own, extra);
    if (a->lse.data && writer)
        store_element(element_at(&a->lse, r->seq.q_batch, r->head, r->seq.q_start + r->query, 0), 0,
                      DTYPE_f32, own.m + log2_fast(own.l) * LN_2);
    float change =
        sink == -INFINITY ? 1 : exp2_fast((m - own.m) * LOG2_E); /* 0 for a row without keys */
    return own.l == 0 ? 0 : change / own.l;
}

/* lanes: how many threads share the row (a wave or the block), lane: this one's number. dtype: of
 * both tensors where the caller knows it, a constant, else 0. */
DEVICE void kept_row(const struct attention_args *a, const struct score_row *r, const char *from,
                     char *to, int run, int64_t dtype, int lanes, int lane, float sink,
                     float *shared)
{
    float x[KEPT / 4][8], m = -INFINITY, l = 0;
    int n = a->columns;
    int64_t in = dtype ? dtype : a->scores.dtype, out = dtype ? dtype : a->weights.dtype;
    int64_t bytes = dtype_bytes(in), out_bytes = dtype_bytes(out);
#pragma unroll
    for (int k = 0; k < KEPT / run; k++) {
        int at = (lane + k * lanes) * run;
        load_run(x[k], from + at * bytes, in, run, n - at, -INFINITY);
    }
#pragma unroll
    for (int k = 0; k < KEPT / run; k++)
#pragma unroll
        for (int i = 0; i < run; i++) m = maximum(m, x[k][i]);
    m = lanes == THREADS ? block_max(m, shared) : max_of_wave(m);
    float base = m == -INFINITY ? 0 : m;
#pragma unroll
    for (int k = 0; k < KEPT / run; k++)
#pragma unroll
        for (int i = 0; i < run; i++) l += x[k][i] = exp2_fast((x[k][i] - base) * LOG2_E);
    l = lanes == THREADS ? block_sum(l, shared) : sum_of_wave(l);
    float factor = finish_row(a, r, m, l, sink, lane == 0);
#pragma unroll
    for (int k = 0; k < KEPT / run; k++) {
        int at = (lane + k * lanes) * run;
#pragma unroll
        for (int i = 0; i < run; i++) x[k][i] *= factor;
        if (at < n) store_run(to + at * out_bytes, out, run, n - at, x[k]);
    }
}

/* Any length: reads the row twice. step, out_step: strides in elements of single elements; runs
 * need both to be 1. */
DEVICE void long_row(const struct attention_args *a, const struct score_row *r, const char *from,
                     char *to, int run, int lanes, int lane, float sink, float *shared)
{
    int n = a->columns;
    int64_t step = a->scores.stride[3] * dtype_bytes(a->scores.dtype),
            out_step = a->weights.stride[3] * dtype_bytes(a->weights.dtype);
    struct partial own = {-INFINITY, 0};
    for (int at = lane * run; at < n; at += lanes * run) {
        float x[8], m = -INFINITY, l = 0;
        load_run(x, from + at * step, a->scores.dtype, run, n - at, -INFINITY);
#pragma unroll
        for (int i = 0; i < run; i++) m = maximum(m, x[i]);
        float base = m == -INFINITY ? 0 : m;
#pragma unroll
        for (int i = 0; i < run; i++) l += exp2_fast((x[i] - base) * LOG2_E);
        struct partial part = {m, l};
        own = merged(own, part);
    }
    float m = lanes == THREADS ? block_max(own.m, shared) : max_of_wave(own.m),
          base = m == -INFINITY ? 0 : m;
    float l = own.l * exp2_fast((own.m - base) * LOG2_E);
    l = lanes == THREADS ? block_sum(l, shared) : sum_of_wave(l);
    float factor = finish_row(a, r, m, l, sink, lane == 0);
    for (int at = lane * run; at < n; at += lanes * run) {
        float x[8];
        load_run(x, from + at * step, a->scores.dtype, run, n - at, -INFINITY);
#pragma unroll
        for (int i = 0; i < run; i++) x[i] = exp2_fast((x[i] - base) * LOG2_E) * factor;
        store_run(to + at * out_step, a->weights.dtype, run, n - at, x);
    }
}

DEVICE void one_row(const struct attention_args *a, int64_t row, int run, int64_t dtype, int lanes,
                    int lane, float *shared)
{
    struct score_row r = score_row_of(a, row);
    int token = r.seq.q_start + r.query;
    const char *from = element_at(&a->scores, r.seq.q_batch, r.head, token, 0);
    char *to = element_at(&a->weights, r.seq.q_batch, r.head, token, 0);
    float sink = a->sink.data ? load_element(element_at(&a->sink, r.b, r.head, 0, 0), 0, DTYPE_f32)
                              : -INFINITY;
    if (run == 1 || a->columns > lanes * KEPT)
        long_row(a, &r, from, to, run, lanes, lane, sink, shared);
    else kept_row(a, &r, from, to, run, dtype, lanes, lane, sink, shared);
}

DEVICE void rows_of_block(const struct attention_args *a, int run, int64_t dtype, float *shared)
{
    if (a->columns > SHORT_ROW) {
        one_row(a, BLOCK_X, run, dtype, THREADS, THREAD, shared);
        return;
    }
    int64_t rows = score_row_count(a);
    for (int i = THREAD / WAVE; i < TILE_Q; i += WAVES) {
        int64_t row = (int64_t)BLOCK_X * TILE_Q + i;
        if (row < rows) one_row(a, row, run, dtype, WAVE, THREAD % WAVE, shared);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    __shared__ float shared[WAVES];
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int same = a->scores.dtype == a->weights.dtype,
        run = same && a->scores.dtype == DTYPE_f32 ? 4 : 8;
    if (!runs_aligned(&a->scores, run) || !runs_aligned(&a->weights, run))
        rows_of_block(a, 1, 0, shared);
    else if (run == 4) rows_of_block(a, 4, DTYPE_f32, shared);
    else if (!same) rows_of_block(a, 8, 0, shared);
    else if (a->scores.dtype == DTYPE_f16) rows_of_block(a, 8, DTYPE_f16, shared);
    else rows_of_block(a, 8, DTYPE_bf16, shared);
}
