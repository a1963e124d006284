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

/* Who works on a row: a wave or the whole block. */
struct team {
    int lanes, lane; /* how many threads, this one's number */
    float *shared;   /* for the block's reductions */
};

DEVICE float team_max(float x, const struct team *t)
{
    return t->lanes == THREADS ? block_max(x, t->shared) : max_of_wave(x);
}

DEVICE float team_sum(float x, const struct team *t)
{
    return t->lanes == THREADS ? block_sum(x, t->shared) : sum_of_wave(x);
}

/* Rows follow each other at one distance, and no row has a sink or a log-sum-exp. */
DEVICE int is_simple(const struct attention_args *a)
{
    const struct view *in = &a->scores, *out = &a->weights;
    return !a->q_start.data && !a->sink.data && !a->lse.data &&
           in->stride[1] == a->q_tokens * in->stride[2] &&
           out->stride[1] == a->q_tokens * out->stride[2] &&
           in->stride[0] == a->q_heads * in->stride[1] &&
           out->stride[0] == a->q_heads * out->stride[1];
}

/* Row `number` of scores or weights. */
DEVICE char *row_at(const struct attention_args *a, const struct view *v, int64_t number,
                    int simple)
{
    if (simple) return (char *)v->data + number * v->stride[2] * dtype_bytes(v->dtype);
    struct score_row s = score_row_of(a, number);
    return element_at(v, s.seq.q_batch, s.head, s.seq.q_start + s.query, 0);
}

/* The row's sink joins as a logit without a column; also writes the log-sum-exp. Returns what to
 * multiply exp(x - m) with. */
DEVICE float finish_row(const struct attention_args *a, int64_t number, float m, float l,
                        int simple, int writer)
{
    if (simple) return l == 0 ? 0 : 1 / l; /* 0 for a row without keys */
    struct score_row s = score_row_of(a, number);
    struct partial own = {m, l}, extra = {-INFINITY, 1};
    if (a->sink.data)
        extra.m = load_element(element_at(&a->sink, s.b, s.head, 0, 0), 0, DTYPE_f32);
    if (extra.m != -INFINITY) own = merged(own, extra);
    if (a->lse.data && writer)
        store_element(element_at(&a->lse, s.seq.q_batch, s.head, s.seq.q_start + s.query, 0), 0,
                      DTYPE_f32, own.m + log2_fast(own.l) * LN_2);
    float change = extra.m == -INFINITY ? 1 : exp2_fast((m - own.m) * LOG2_E);
    return own.l == 0 ? 0 : change / own.l;
}

/* ---- Rows in runs of 16 bytes or more -------------------------------------------------------- */

/* How a row is read: in, out: dtypes; run: elements of a run; kept: elements per lane, in runs that
 * are WAVE * run columns apart (the wave's own part of the row, so that the distances are
 * constants); end: where the whole runs end, the elements behind it are taken one per lane. */
struct runs {
    int64_t in, out;
    int run, kept, end;
};

DEVICE int first_column(const struct runs *c, const struct team *t)
{
    return t->lane / WAVE * WAVE * c->kept + t->lane % WAVE * c->run;
}

DEVICE uint32_t hidden_bits(int64_t dtype) /* -inf, twice where it is narrow */
{
    return dtype == DTYPE_f32 ? 0xff800000u : dtype == DTYPE_f16 ? 0xfc00fc00u : 0xff80ff80u;
}

/* The lane's elements from column `start` on, as they lie in memory; -inf from the end on. */
DEVICE void load_kept(uint4 *raw, const char *row, const struct runs *c, int start,
                      const struct team *t)
{
    int bytes = dtype_bytes(c->in), parts = c->run * bytes / 16,
        first = start + first_column(c, t);
    uint32_t fill = hidden_bits(c->in);
    row += (int64_t)first * bytes;
#pragma unroll
    for (int k = 0; k < c->kept / c->run; k++) {
#pragma unroll
        for (int i = 0; i < parts; i++) {
            uint4 h = {fill, fill, fill, fill};
            if (k * WAVE * c->run < c->end - first)
                h = LOAD(uint4, row + k * WAVE * c->run * bytes + i * 16);
            raw[k * parts + i] = h;
        }
    }
}

DEVICE void unpack_kept(const uint4 *raw, const struct runs *c, float *x)
{
    int each = 16 / dtype_bytes(c->in);
#pragma unroll
    for (int k = 0; k < c->kept / each; k++) unpack_16_bytes(raw[k], c->in, x + k * each);
}

DEVICE void store_kept(const float *x, char *row, const struct runs *c, int start,
                       const struct team *t)
{
    int bytes = dtype_bytes(c->out), first = start + first_column(c, t);
    row += (int64_t)first * bytes;
#pragma unroll
    for (int k = 0; k < c->kept / c->run; k++)
        if (k * WAVE * c->run < c->end - first)
            store_run(row + k * WAVE * c->run * bytes, c->out, c->run, c->run, x + k * c->run);
}

DEVICE float max_of_kept(const float *x, int kept, float m)
{
#pragma unroll
    for (int i = 0; i < kept; i++) m = maximum(m, x[i]);
    return m;
}

/* x becomes factor * exp(x - base); returns the sum of the exponentials. */
DEVICE float exp_of_kept(float *x, int kept, float base, float factor)
{
    float l = 0;
#pragma unroll
    for (int i = 0; i < kept; i++) {
        float e = exp2_fast((x[i] - base) * LOG2_E);
        l += e;
        x[i] = e * factor;
    }
    return l;
}

/* A row that the team's registers hold: read once. */
DEVICE void kept_row(const struct attention_args *a, int64_t number, int64_t in, int64_t out,
                     int run, int simple, const struct team *t)
{
    struct runs c = {in, out, run, KEPT, a->columns / run * run};
    int last = c.end + t->lane, rest = last < a->columns;
    const char *from = row_at(a, &a->scores, number, simple);
    float own = rest ? load_element(from, last, in) : -INFINITY, x[KEPT];
    uint4 raw[KEPT / 4];
    load_kept(raw, from, &c, 0, t);
    unpack_kept(raw, &c, x);
    float m = team_max(max_of_kept(x, KEPT, own), t), base = m == -INFINITY ? 0 : m;
    own = exp2_fast((own - base) * LOG2_E);
    float l = team_sum(own + exp_of_kept(x, KEPT, base, 1), t);
    float factor = finish_row(a, number, m, l, simple, t->lane == 0);
    char *to = row_at(a, &a->weights, number, simple);
#pragma unroll
    for (int i = 0; i < KEPT; i++) x[i] *= factor;
    store_kept(x, to, &c, 0, t);
    if (rest) store_element(to, last, out, own * factor);
}

/* A longer one: read twice. */
DEVICE void long_row(const struct attention_args *a, int64_t number, int64_t in, int64_t out,
                     int run, const struct team *t)
{
    struct runs c = {in, out, run, KEPT, a->columns / run * run};
    int step = t->lanes * KEPT, last = c.end + t->lane, rest = last < a->columns;
    const char *from = row_at(a, &a->scores, number, 0);
    float own = rest ? load_element(from, last, in) : -INFINITY, x[KEPT];
    struct partial sum = {own, own == -INFINITY ? 0.0f : 1.0f};
    uint4 raw[KEPT / 4];
#pragma unroll 1
    for (int start = 0; start < c.end; start += step) {
        load_kept(raw, from, &c, start, t);
        unpack_kept(raw, &c, x);
        struct partial part = {max_of_kept(x, KEPT, -INFINITY), 0};
        part.l = exp_of_kept(x, KEPT, part.m == -INFINITY ? 0 : part.m, 1);
        sum = merged(sum, part);
    }
    float m = team_max(sum.m, t), base = m == -INFINITY ? 0 : m;
    float l = team_sum(sum.l * exp2_fast((sum.m - base) * LOG2_E), t);
    float factor = finish_row(a, number, m, l, 0, t->lane == 0);
    char *to = row_at(a, &a->weights, number, 0);
#pragma unroll 1
    for (int start = 0; start < c.end; start += step) {
        load_kept(raw, from, &c, start, t);
        unpack_kept(raw, &c, x);
        exp_of_kept(x, KEPT, base, factor);
        store_kept(x, to, &c, start, t);
    }
    if (rest) store_element(to, last, out, exp2_fast((own - base) * LOG2_E) * factor);
}

/* ---- Rows of any strides and dtypes ---------------------------------------------------------- */

/* Element by element; reads the row twice. */
DEVICE void row_of_elements(const struct attention_args *a, int64_t number, const struct team *t)
{
    int n = a->columns;
    int64_t in = a->scores.dtype, out = a->weights.dtype, step = a->scores.stride[3],
            out_step = a->weights.stride[3];
    const char *from = row_at(a, &a->scores, number, 0);
    char *to = row_at(a, &a->weights, number, 0);
    struct partial own = {-INFINITY, 0};
    for (int at = t->lane; at < n; at += t->lanes) {
        struct partial one = {load_element(from, at * step, in), 1};
        if (one.m != -INFINITY) own = merged(own, one);
    }
    float m = team_max(own.m, t), base = m == -INFINITY ? 0 : m;
    float l = team_sum(own.l * exp2_fast((own.m - base) * LOG2_E), t);
    float factor = finish_row(a, number, m, l, 0, t->lane == 0);
    for (int at = t->lane; at < n; at += t->lanes) {
        float x = load_element(from, at * step, in);
        store_element(to, at * out_step, out, exp2_fast((x - base) * LOG2_E) * factor);
    }
}

/* A wide row is the block's; of others each wave takes its share of TILE_Q. run 1: element by
 * element; else in and out are the dtypes, constants where they can be. */
DEVICE void rows_of_block(const struct attention_args *a, int run, int64_t in, int64_t out,
                          float *shared)
{
    int wide = a->columns > SHORT_ROW, simple = is_simple(a);
    struct team t = {wide ? THREADS : WAVE, wide ? THREAD : THREAD % WAVE, shared};
    int64_t number = wide ? BLOCK_X : (int64_t)BLOCK_X * TILE_Q + THREAD / WAVE,
            all = score_row_count(a), end = wide ? number + 1 : ((int64_t)BLOCK_X + 1) * TILE_Q;
    if (end > all) end = all;
#pragma unroll 1
    for (; number < end; number += WAVES) {
        if (run == 1) row_of_elements(a, number, &t);
        else if (a->columns <= t.lanes * KEPT) kept_row(a, number, in, out, run, simple, &t);
        else long_row(a, number, in, out, run, &t);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    __shared__ float shared[WAVES];
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int64_t in = a->scores.dtype, out = a->weights.dtype;
    int wide = in == DTYPE_f32, run = wide && out == DTYPE_f32 ? 4 : 8;
    if (!runs_aligned(&a->scores, run) || !runs_aligned(&a->weights, run) || (!wide && in != out))
        rows_of_block(a, 1, 0, 0, shared);
    else if (run == 4) rows_of_block(a, 4, DTYPE_f32, DTYPE_f32, shared);
    else if (wide) rows_of_block(a, 8, DTYPE_f32, out, shared);
    else if (in == DTYPE_f16) rows_of_block(a, 8, DTYPE_f16, DTYPE_f16, shared);
    else rows_of_block(a, 8, DTYPE_bf16, DTYPE_bf16, shared);
}
