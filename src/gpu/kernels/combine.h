/* combine.h: kernels whose blocks share the keys of a query row (NEED_PARTIALS, NEED_COMBINE): which
 * keys are a block's, what it leaves for a row, and the second launch that makes one result of it.
 *
 * A part (blockIdx.x of grid split) leaves for each of its rows the maximum m of the scores that it
 * saw, times log2(e), the sum l of exp2(score - m), and the sum of exp2(score - m) v, not divided.
 * A part that sees no key of a row leaves m = -inf, l = NO_KEYS for it and no values: those do not
 * count then; or m = -inf and l = 0 with values of 0. So every m and l is written in every launch,
 * and the workspace may hold anything before. The sink enters when parts are added up, once; with
 * one part there is no second launch, and the block does the same sums itself (total_of_one), which
 * makes its bits those of a row whose other parts are empty.
 */
#ifndef RAPT_COMBINE_H
#define RAPT_COMBINE_H

#include "early.h"
#include "rows.h"

#define NO_KEYS (-1.0f)

struct key_range {
    int first, end;
};

/* The keys of a part, of those from first_key to end_key - 1 that some row of the sequence sees;
 * none: end <= first. Cuts lie at multiples of `tile`. With batch_invariant they are where the host
 * said, whatever is visible; else the parts share what is visible. */
DEVICE struct key_range keys_of_part(const struct attention_args *a, int first_key, int end_key,
                                     int tile, int part)
{
    int origin = 0, keys = a->split_keys;
    if (!a->batch_invariant && (first_key >= tile || end_key != a->kv_tokens)) {
        origin = first_key / tile * tile;
        keys = ((end_key - origin + a->splits - 1) / a->splits + tile - 1) / tile * tile;
    }
    int first = origin + part * keys;
    struct key_range r = {larger(first, first_key), smaller(first + keys, end_key)};
    return r;
}

/* A row of part 0: token is seq.q_start + query, batch seq.q_batch. */
DEVICE int64_t partial_row(const struct attention_args *a, int batch, int head, int token)
{
    return ((int64_t)batch * a->q_heads + head) * a->q_tokens + token;
}

DEVICE float *partial_lse_at(const struct attention_args *a, int part, int64_t row)
{
    return a->partial_lse + 2 * (part * score_row_count(a) + row);
}

/* Rows are padded to whole float4. */
DEVICE float *partial_out_at(const struct attention_args *a, int part, int64_t row, int channel)
{
    return a->partial_out + (part * score_row_count(a) + row) * ((a->v_channels + 3) & ~3) +
           channel;
}

/* Of ragged queries, the number of a sequence's first tile of `rows` query rows of a KV head. No two
 * sequences have a tile in common, and there are q_tokens * group / rows + batch at most. */
DEVICE int first_tile_of(const struct attention_args *a, int b, int rows)
{
    return (int)(load_index(&a->q_start, b, 0) * a->group / rows) + b;
}

/* The last sequence whose first tile is not behind this one. */
DEVICE int sequence_of_tile(const struct attention_args *a, int tile, int rows)
{
    int low = 0, high = a->batch;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (first_tile_of(a, middle, rows) <= tile) low = middle;
        else high = middle;
    }
    return low;
}

/* ---- Adding up ---- */

/* The sink of a head in log2 units, -inf without one. */
DEVICE float sink_of(const struct attention_args *a, int b, int head)
{
    if (!a->sink.data) return -INFINITY;
    return load_element(element_at(&a->sink, b, head, 0, 0), 0, DTYPE_f32) * LOG2_E;
}

/* What a row's parts have in common: exponents are relative to base. */
struct total {
    float m, base, l;
};

DEVICE struct total total_of(float m, float sink)
{
    struct total t;
    t.m = maximum(m, sink);
    t.base = t.m == -INFINITY ? 0 : t.m; /* -inf - -inf must not reach exp2 */
    t.l = exp2_fast(sink - t.base);
    return t;
}

/* Of a row that one part saw alone: its values times the weight that is returned are the sum. */
DEVICE float total_of_one(struct total *t, float m, float l, float sink)
{
    *t = total_of(m, sink);
    float weight = exp2_fast(m - t->base);
    t->l += fused(l, weight, 0); /* rounded before it is added, as with several parts */
    return weight;
}

DEVICE float total_lse(const struct total *t)
{
    return (t->m + log2_fast(t->l)) * LN_2;
}

/* What to multiply the sum of values with; 0: the row has no weights, whatever its values hold. */
DEVICE float total_factor(const struct total *t)
{
    return t->l == 0 ? 0 : 1 / t->l;
}

DEVICE float4 add_part(float4 sum, float4 values, float weight)
{
    return float4_of(fused(values.x, weight, sum.x), fused(values.y, weight, sum.y),
                     fused(values.z, weight, sum.z), fused(values.w, weight, sum.w));
}

/* Channels channel ... + 3 of a row of out, those that it has, times factor; 0 writes zeros. */
DEVICE void store_result(const struct attention_args *a, int batch, int head, int token,
                         int channel, float4 x, float factor)
{
    int none = factor == 0;
    float4 y = float4_of(none ? 0 : x.x * factor, none ? 0 : x.y * factor, none ? 0 : x.z * factor,
                         none ? 0 : x.w * factor);
    if (channel >= a->v_channels) return;
    char *to = element_at(&a->out, batch, head, token, channel);
    if (runs_aligned(&a->out, 4) && channel + 3 < a->v_channels) {
        store_four(to, a->out.dtype, y);
        return;
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
        if (channel + n < a->v_channels)
            store_element(to, n * a->out.stride[3], a->out.dtype, component(y, n));
}

DEVICE void store_lse_of(const struct attention_args *a, int batch, int head, int token,
                         const struct total *t)
{
    if (a->lse.data)
        store_element(element_at(&a->lse, batch, head, token, 0), 0, DTYPE_f32, total_lse(t));
}

/* ---- The second launch ---- */

#define COMBINE_JOIN(name)  name##_combine
#define COMBINE_ENTRY(name) COMBINE_JOIN(name)

#if DV && !defined OWN_COMBINE
/* Threads that make one result: a block; or a wave, where rows are many and parts few. */
#ifndef COMBINE_THREADS
#define COMBINE_THREADS THREADS
#endif
enum {
    /* threads that read a part's row side by side, 16 bytes each; so many parts at once; each
     * COMBINE_AHEAD of them before it uses the first */
    ROW_THREADS = COMBINE_THREADS == WAVE ? WAVE
                  : DV <= 64              ? 16
                  : DV <= 128             ? 32
                  : DV <= 256             ? 64
                  : DV <= 512             ? 128
                                          : 256,
    ROWS_AT_ONCE = COMBINE_THREADS / ROW_THREADS,
    COMBINE_AHEAD = 4
};
static_assert(THREADS % COMBINE_THREADS == 0 && COMBINE_THREADS % ROW_THREADS == 0,
              "a block takes whole rows");
static_assert(COMBINE_THREADS == THREADS || DV <= 4 * WAVE, "a lane has four channels");

/* A row's parts: m and l, this thread's four channels, and the bytes from part to part. */
struct parts {
    const char *ends, *values;
    int64_t ends_step, values_step;
    int count, has_channels; /* 0: the row has fewer */
};

DEVICE struct parts parts_of(const struct attention_args *a, int64_t row, int channel)
{
    struct parts p;
    p.ends = settled(partial_lse_at(a, 0, row));
    p.values = settled(partial_out_at(a, 0, row, channel));
    p.ends_step = settled(partial_lse_at(a, 1, row)) - p.ends;
    p.values_step = settled(partial_out_at(a, 1, row, channel)) - p.values;
    p.count = a->splits;
    p.has_channels = channel < a->v_channels;
    return p;
}

DEVICE float2 ends_of(const struct parts *p, int part)
{
    float2 none;
    none.x = -INFINITY, none.y = NO_KEYS;
    return part < p->count ? LOAD_NEW(float2, p->ends + part * p->ends_step) : none;
}

/* What a thread adds up at a time. */
struct some_parts {
    float2 ends[COMBINE_AHEAD];
    float4 values[COMBINE_AHEAD];
};

/* Parts first, first + ROWS_AT_ONCE ...; the values of those without keys may be anything. */
DEVICE void load_parts(const struct parts *p, int first, struct some_parts *some)
{
#pragma unroll
    for (int i = 0; i < COMBINE_AHEAD; i++) {
        int part = first + i * ROWS_AT_ONCE;
        some->ends[i] = ends_of(p, part);
        some->values[i] = float4_of(0, 0, 0, 0);
        if (part < p->count && p->has_channels)
            some->values[i] = LOAD_NEW(float4, p->values + part * p->values_step);
    }
}

/* The maximum of all parts and the sum of all l: each wave finds both, lane i from parts i, i +
 * WAVE ...; own: the lane's first. */
DEVICE struct total total_of_parts(const struct parts *p, float2 own, float sink)
{
    float m = own.x, l = 0;
    int lane = THREAD % WAVE;
#pragma unroll 1
    for (int part = lane + WAVE; part < p->count; part += WAVE) m = maximum(m, ends_of(p, part).x);
    struct total t = total_of(max_of_wave(m), sink);
#pragma unroll 1
    for (int part = lane;;) {
        if (!(own.y < 0)) l = fused(own.y, exp2_fast(own.x - t.base), l);
        part += WAVE;
        if (part >= p->count) break;
        own = ends_of(p, part);
    }
    t.l += sum_of_wave(l);
    return t;
}

/* All that a row of few parts needs is requested together. */
DEVICE void combine_row(const struct attention_args *a, int b, int head, int token)
{
    __shared__ float4 sums[ROWS_AT_ONCE > 1 ? THREADS : 1];
    int batch = a->q_start.data ? 0 : b, channel = 4 * (THREAD % ROW_THREADS),
        first = THREAD % COMBINE_THREADS / ROW_THREADS;
    struct parts p = parts_of(a, partial_row(a, batch, head, token), channel);
    wait_for_earlier_work(); /* which the addresses do not need */
    float sink = sink_of(a, b, head);
    float2 own = ends_of(&p, THREAD % WAVE);
    float4 sum = float4_of(0, 0, 0, 0);
    struct total t = {};
#pragma unroll 1
    for (int part = first; part == first || part < p.count; part += COMBINE_AHEAD * ROWS_AT_ONCE) {
        struct some_parts some;
        load_parts(&p, part, &some);
        if (part == first) t = total_of_parts(&p, own, sink);
#pragma unroll
        for (int i = 0; i < COMBINE_AHEAD; i++)
            if (!(some.ends[i].y < 0))
                sum = add_part(sum, some.values[i], exp2_fast(some.ends[i].x - t.base));
    }
    if (ROWS_AT_ONCE > 1) {
        sums[THREAD] = sum;
        block_barrier();
    }
    if (first == 0) {
#pragma unroll
        for (int i = 1; i < ROWS_AT_ONCE; i++)
            sum = add_part(sum, sums[i * ROW_THREADS + THREAD], 1);
        store_result(a, batch, head, token, channel, sum, total_factor(&t));
        if (channel == 0) store_lse_of(a, batch, head, token, &t);
    }
    if (ROWS_AT_ONCE > 1) block_barrier();
}

/* COMBINE_THREADS for each row: x tokens, y heads, z sequences (packed: one, and x all tokens). */
DEVICE void combine_rows(const struct attention_args *a)
{
    const int rows = THREADS / COMBINE_THREADS;
    int token = BLOCK_X * rows + THREAD / COMBINE_THREADS, packed = a->q_start.data != NULL,
        batches = packed ? 1 : a->batch;
    let_successors_begin();
    if (rows > 1 && token >= a->q_tokens) return;
    for (int z = BLOCK_Z; z < batches; z += GRID_LIMIT) {
        if (packed) wait_for_earlier_work();
        int b = packed ? sequence_of_token(&a->q_start, a->batch, token) : z;
        if (packed) { /* tokens of no sequence have no result */
            struct sequence seq = sequence_of(a, b);
            if (token < seq.q_start || token >= seq.q_start + seq.q_length) return;
        }
        for (int head = BLOCK_Y; head < a->q_heads; head += GRID_LIMIT)
            combine_row(a, b, head, token);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, 1)
    COMBINE_ENTRY(KERNEL_NAME)(const BY_VALUE struct attention_args a)
{
    combine_rows(ARGUMENT(attention_args, a));
}
#endif

#endif
