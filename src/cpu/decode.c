/* decode.c: attention of few query rows against many keys, the keys split over the threads. An item
 * is one chunk of keys, at absolute positions, of one sequence and some KV heads, with all query
 * rows of these heads together, so that K and V are read once, in place. Each item leaves a partial
 * result (o, m, l) per head; the item that finishes last for its sequence and heads merges them in
 * the order of the chunks (Dao et al., "Flash-Decoding", 2023). Chunks depend on the keys that a
 * sequence's queries see alone, and no head's arithmetic on its neighbours: the same sequence has the
 * same bits alone, in any batch and with any number of threads.
 *
 * Packed row r is query r / group of head kv_head * group + r % group, as in forward.c. */
#include "cpu/decode.h"
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/decode_kernels.h"

#include <math.h>

#define LOG2_E 1.44269504088896340736

enum {
    /* So few keys make one panel, and packing it pays from SHORT_ROWS rows on: 16 rows of 16 keys
     * take 80 us there, 97 us here (32 heads, 128 channels, f32, Zen 4). */
    SHORT_KEYS = 32,
    SHORT_ROWS = 8,
    CHUNK_MIN = 512, /* keys of an item: 2 blocks, against one partial result written and merged */
    CHUNK_COUNT_MAX = 32, /* more keys make longer chunks: partial results stay small */
    RUN_MAX = 8, /* neighbouring chunks that a thread takes: it asks ahead past a chunk's end */
    RUNS_PER_THREAD = 4, /* of the items that are left */
    /* DECODE_WINDOW keys of K and as much of V, and the next of both: half of a cache of 1 MiB. */
    HEADS_BYTES = 128 << 10,
    /* In the order of memory, o of all heads goes through the first cache for every few keys, of F32 for half as
     * many: numbers of o times bytes of one of V. */
    IN_ORDER_O = 16 << 10,
    SCORES_BYTES = 256 << 10, /* of a block of all heads, where these go by page by page */
    /* Of K or V, of all heads of an item: what is asked for ahead. Fewer keys make more calls. */
    WINDOW_BYTES = 64 << 10,
    WINDOW_MIN = 16,
    WAKE_BYTES = 512 << 10, /* of K and V: 35 us, as long as to wake a thread */
    MERGE_AHEAD = 8, /* partial results: rows of them lie apart, and in another core's cache */
};

/* ---- Sizes ----------------------------------------------------------------------------------- */

static int64_t o_width(const struct problem *p, const struct cpu_kernels *k)
{
    return round_up(round_up(p->v_channels, k->column_tile), 16);
}

/* Floats of one partial result. */
static int64_t partial_floats(int64_t rows, int64_t width)
{
    return rows * width + round_up(2 * rows, 16);
}

/* Keys of a chunk of so many. */
static int64_t chunk_of(int64_t keys)
{
    int64_t chunk = CHUNK_MIN;
    while (keys / chunk > CHUNK_COUNT_MAX) chunk *= 2;
    return chunk;
}

/* Upper bound on rows * chunks over all sequences, per KV head, and on chunks: of a sequence's capacity, or
 * of what a window shows of it, which may begin in the middle of a chunk. */
static void count_chunks(const struct problem *p, int64_t *row_chunks, int64_t *chunks)
{
    int64_t keys = p->kv_tokens, parts = p->window_left < keys ? 2 : 1;
    if (p->window_left < keys && p->window_right < keys)
        keys = min64(keys, p->window_left + p->window_right + DECODE_ROWS_MAX);
    int64_t each = min64(keys / CHUNK_MIN, CHUNK_COUNT_MAX) + parts;
    *chunks = p->batch * each;
    if (p->ragged_kv) *chunks = min64(*chunks, p->kv_tokens / CHUNK_MIN + parts * p->batch);
    *row_chunks = *chunks * (p->ragged_q ? DECODE_ROWS_MAX : p->q_tokens * p->group);
    if (p->ragged_q) *row_chunks = min64(*row_chunks, p->q_tokens * p->group * each);
}

static void lay_out(struct decode_job *job, const struct problem *p, const struct cpu_plan *plan,
                    struct arena *arena)
{
    int64_t row_chunks, chunks;
    count_chunks(p, &row_chunks, &chunks);
    job->width = o_width(p, plan->kernels);
    job->sequences = take(arena, p->batch, sizeof *job->sequences);
    job->unfinished =
        take(arena, p->batch * (p->kv_heads / plan->decode_heads), sizeof *job->unfinished);
    job->scratch = take(arena, plan->decode_slots, plan->decode_scratch_bytes);
    job->partials =
        take(arena, p->kv_heads * (row_chunks * job->width + chunks * 16 + row_chunks * 2),
             sizeof(float));
}

static int serves(const struct problem *p, const struct cpu_kernels *k)
{
    const rapt_attention *a = &p->a;
    if (!k->decode_qk || !k->decode_pv || DECODE_BLOCK % k->column_tile || a->q.dtype == RAPT_I8)
        return 0;
    if (a->mask.dtype || a->bias.dtype || a->weights.dtype) return 0;
    if (p->qk_channels > DECODE_CHANNELS_MAX || p->v_channels > DECODE_CHANNELS_MAX) return 0;
    if (p->ragged_q) return p->group <= DECODE_ROWS_MAX;
    int64_t rows = p->q_tokens * p->group;
    int is_short = rows >= SHORT_ROWS && p->kv_tokens <= SHORT_KEYS && !p->ragged_kv &&
                   !a->batch_invariant; /* a table is as wide as the batch's longest sequence */
    return rows <= DECODE_ROWS_MAX && !is_short;
}

/* Those of a token. Heads that overlap do not: alone, theirs are rows without gaps, which have other blocks. */
static int heads_lie_together(const rapt_tensor *t)
{
    return t->stride[1] >= t->size[3] && t->stride[1] < t->stride[2];
}

/* Whether a level takes decode_keys keys of each head in turn, and what is asked for meanwhile comes into the second
 * cache: the first is too small for so many. */
static int waits_in_second_cache(const struct cpu_plan *plan)
{
    return plan->kernels->decode_keys && plan->requests->span_again != CPU_ONCE;
}

/* Whether so many heads of an item go by in the order of memory, where they have few rows. */
static int in_order(const struct problem *p, const struct cpu_plan *plan, int64_t heads)
{
    return heads > 1 && plan->requests->span && plan->kernels->decode_qk_heads &&
           p->a.kv_layout == RAPT_KV_STRIDED &&
           (p->a.k.dtype != RAPT_I8 || waits_in_second_cache(plan)) &&
           decode_gapless(p, &p->a.k, heads) && decode_gapless(p, &p->a.v, heads);
}

static int heads_of_tokens(const struct problem *p)
{
    return heads_lie_together(&p->a.k) && heads_lie_together(&p->a.v);
}

static int heads_of_pages(const struct problem *p, const struct cpu_plan *plan)
{
    return plan->requests->span && decode_by_page(p, &p->a.k) && decode_by_page(p, &p->a.v);
}

static int heads_fit(const struct problem *p, const struct cpu_plan *plan, int64_t heads)
{
    int64_t channels = heads * max64(p->qk_channels, p->v_channels),
            rows = p->ragged_q ? DECODE_ROWS_MAX : p->q_tokens * p->group;
    int few = rows <= DECODE_HEADS_ROWS && in_order(p, plan, heads);
    int64_t scores = heads * rows * DECODE_BLOCK_MAX * (int64_t)sizeof(float);
    if (heads_of_pages(p, plan)) {
        /* Windows of more rows wait in the second cache. */
        if (!few && plan->requests->span_again == CPU_ONCE) return 0;
        if (scores > SCORES_BYTES) return 0;
    }
    if (p->a.k.dtype != RAPT_I8 && few &&
        heads * rows * p->v_channels * (int64_t)dtype_size(p->a.v.dtype) <= IN_ORDER_O)
        return 1;
    return DECODE_WINDOW * channels * (int64_t)dtype_size(p->a.k.dtype) <= HEADS_BYTES;
}

/* KV heads of an item: those of a token, or of a page, that lie together, as many as fit and leave each
 * thread some items. */
static int64_t heads_of_item(const struct problem *p, const struct cpu_plan *plan, int64_t chunks)
{
    int of_tokens = p->a.kv_layout == RAPT_KV_STRIDED && heads_of_tokens(p);
    if (!of_tokens && !heads_of_pages(p, plan)) return 1;
    for (int64_t heads = p->kv_heads; heads > 1; heads--)
        if (p->kv_heads % heads == 0 && heads_fit(p, plan, heads) &&
            p->kv_heads / heads * chunks >= plan->slots * 2 * RUNS_PER_THREAD)
            return heads;
    return 1;
}

/* Keys that go by without gaps, or in pages, in whole blocks: fewer calls. f32 arithmetic on i8 scales the weights
 * of a window at a time. */
static int takes_blocks(const struct problem *p, const struct cpu_plan *plan)
{
    return (plan->decode_heads == 1 || heads_of_pages(p, plan)) &&
           (p->a.k.dtype != RAPT_I8 || plan->kernels->decode_q) &&
           (!p->page_tokens || plan->requests->span) && decode_gapless(p, &p->a.k, 1) &&
           decode_gapless(p, &p->a.v, 1);
}

/* Whether all keys of a sequence lie so that kernels for i8 find them from the first. */
static int steps_are_equal(const struct problem *p, const struct cpu_plan *plan)
{
    return p->a.k.dtype == RAPT_I8 && p->a.v.dtype == RAPT_I8 && plan->kernels->decode_q &&
           !p->page_tokens && p->a.kv_layout == RAPT_KV_STRIDED && p->a.k.stride[2] > 0 &&
           p->a.v.stride[2] > 0;
}

/* The bits of a head must not depend on how many others an item has. */
static int64_t window_of_item(const struct problem *p, const struct cpu_plan *plan)
{
    int64_t row = plan->decode_heads * max64(p->qk_channels, p->v_channels) *
                  (int64_t)dtype_size(p->a.k.dtype),
            keys = DECODE_WINDOW;
    if (takes_blocks(p, plan) && plan->decode_heads == 1) return plan->decode_block;
    if (plan->kernels->decode_keys) return plan->kernels->decode_keys;
    if (plan->decode_heads == 1 || heads_of_pages(p, plan)) return keys;
    while (keys > WINDOW_MIN && keys * row > WINDOW_BYTES) keys /= 2;
    return keys;
}

size_t decode_plan(const struct problem *p, struct cpu_plan *plan)
{
    plan->decode_rows = 0;
    if (!serves(p, plan->kernels)) return 0;
    plan->decode_rows = DECODE_ROWS_MAX;
    int64_t row_chunks, chunks;
    count_chunks(p, &row_chunks, &chunks);
    plan->decode_heads = heads_of_item(p, plan, chunks);
    plan->decode_block = DECODE_BLOCK;
    if (takes_blocks(p, plan) && p->kv_tokens > DECODE_BLOCK)
        plan->decode_block = round_up(min64(p->kv_tokens, DECODE_BLOCK_MAX), DECODE_BLOCK);
    plan->decode_window = window_of_item(p, plan);
    plan->decode_in_order = in_order(p, plan, plan->decode_heads);
    plan->decode_steps = steps_are_equal(p, plan);
    plan->decode_slots = max64(1, min64(plan->slots, chunks * (p->kv_heads / plan->decode_heads)));
    struct decode_scratch scratch;
    struct arena each = {NULL, 0}, all = {NULL, 0};
    decode_lay_out_scratch(&scratch, p, plan, &each);
    plan->decode_scratch_bytes = each.used;
    struct decode_job job;
    lay_out(&job, p, plan, &all);
    return all.used;
}

/* ---- Merging --------------------------------------------------------------------------------- */

static float *partial_of(const struct decode_job *job, const struct decode_sequence *s,
                         int64_t kv_head, int64_t chunk)
{
    return job->partials + s->partial0 +
           (kv_head * s->chunks + chunk) * partial_floats(s->rows, job->width);
}

/* Writes out and lse of row r of a KV head from the partial results of all chunks; the sum gathers
 * in the first of them. */
static void merge_row(const struct decode_item *t, int64_t kv_head, int64_t r)
{
    const struct decode_sequence *s = t->table;
    const struct problem *p = t->problem;
    const rapt_attention *a = t->call->a;
    int64_t width = t->job->width, channels = p->v_channels, query = r / p->group,
            head = decode_query_head(t, kv_head, r),
            ahead = MERGE_AHEAD * partial_floats(s->rows, width);
    double unit = t->job->score_options ? 1 : fabs(a->scale);
    double sink = head_value(&a->sink, t->sequence.index, head, -INFINITY), top = sink;
    float *sum = partial_of(t->job, s, kv_head, 0) + r * width;
    for (int64_t c = 0; c < s->chunks; c++) {
        double m = partial_m(partial_of(t->job, s, kv_head, c), s->rows, width)[r];
        if (m != -INFINITY && m * unit > top) top = m * unit;
    }
    if (top == -INFINITY) top = 0;
    double total = exp(sink - top);
    int weightless = 1;
    for (int64_t c = 0; c < s->chunks; c++) {
        float *part = partial_of(t->job, s, kv_head, c), *o = part + r * width;
        if (c + MERGE_AHEAD < s->chunks)
            for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(o + ahead + i);
        double m = partial_m(part, s->rows, width)[r], l = partial_l(part, s->rows, width)[r];
        float weight = m == -INFINITY ? 0 : (float)exp(m * unit - top);
        weightless &= l == 0;
        total += m == -INFINITY ? l : weight * l; /* without a key l is 0, or NaN from NaN scores */
        if (c == 0)
            for (int64_t i = 0; i < channels; i++) sum[i] *= weight;
        else
            for (int64_t i = 0; i < channels; i++) sum[i] += weight * o[i];
    }
    float factor = (float)(1 / total);
    int64_t first, last;
    visible_keys(p, query, t->sequence.q_length, t->sequence.kv_length, &first, &last);
    if (weightless && (last <= first || sink == -INFINITY)) { /* 0 whatever its values are */
        memset(sum, 0, (size_t)channels * sizeof *sum);
        factor = 0;
    }
    void *out = query_row(t->call, &a->out, &t->sequence, head, query);
    t->kernels->store_row(out, a->out.dtype, a->out.stride[3], sum, factor, channels);
    float *lse = query_row(t->call, &a->lse, &t->sequence, head, query);
    if (lse) *lse = (float)(top + log(total));
}

/* ---- All items over the threads -------------------------------------------------------------- */

/* Chunk number chunk of the heads from kv_head on. more: the thread goes on with the next chunk. */
static void run_item(struct decode_item *t, const struct decode_sequence *s, int64_t b,
                     int64_t kv_head, int64_t chunk, int more)
{
    const struct decode_job *job = t->job;
    int64_t keys = s->chunk_keys, start = (s->chunk0 + chunk) * keys, heads = t->plan->decode_heads,
            sets = t->problem->kv_heads / heads;
    t->sequence = sequence_at(t->call, b);
    t->table = s;
    t->kv_head = kv_head;
    t->rows = s->rows;
    t->partial = partial_of(job, s, kv_head, chunk);
    t->partial_step = s->chunks * partial_floats(s->rows, job->width);
    int64_t high = min64(start + keys, s->high);
    t->ahead = more ? min64(high + keys, s->high) : high;
    decode_run_item(t, max64(start, s->low), high);
    _Atomic int64_t *unfinished = &job->unfinished[b * sets + kv_head / heads];
    if (atomic_fetch_sub_explicit(unfinished, 1, memory_order_acq_rel) > 1) return;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t r = 0; r < s->rows; r++) merge_row(t, kv_head + h, r);
}

/* The sequence whose items include number i. */
static int64_t sequence_of(const struct decode_job *job, int64_t i)
{
    int64_t low = 0, high = job->call->problem->batch;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (job->sequences[middle].item0 <= i) low = middle;
        else high = middle;
    }
    return low;
}

/* Takes items [*first, *last): a share of those that are left, so that the last runs are short and
 * no thread waits long for another. 0: none is left. */
static int take_run(struct decode_job *job, int64_t *first, int64_t *last)
{
    int64_t shares = job->call->plan->decode_slots * RUNS_PER_THREAD;
    *first = atomic_load_explicit(&job->next, memory_order_relaxed);
    do {
        if (*first >= job->items) return 0;
        *last = *first + max64(1, min64(RUN_MAX, (job->items - *first) / shares));
    } while (!atomic_compare_exchange_weak_explicit(&job->next, first, *last, memory_order_relaxed,
                                                    memory_order_relaxed));
    return 1;
}

static void work(void *argument, int64_t slot)
{
    struct decode_job *job = argument;
    const struct cpu_call *call = job->call;
    struct decode_item item = {.job = job,
                               .call = call,
                               .problem = call->problem,
                               .plan = call->plan,
                               .kernels = call->plan->kernels};
    struct arena arena = {job->scratch + (size_t)slot * call->plan->decode_scratch_bytes, 0};
    decode_lay_out_scratch(&item.scratch, call->problem, call->plan, &arena);
    int64_t first, last;
    while (take_run(job, &first, &last))
        for (int64_t i = first; i < last; i++) {
            int64_t b = sequence_of(job, i);
            const struct decode_sequence *s = &job->sequences[b];
            int64_t chunk = (i - s->item0) % s->chunks;
            run_item(&item, s, b, (i - s->item0) / s->chunks * call->plan->decode_heads, chunk,
                     i + 1 < last && chunk + 1 < s->chunks);
        }
}

/* Where the items and partial results of each sequence begin; returns the number of items.
 * *keys_read: those of a KV head, of all sequences. */
static int64_t number_items(struct decode_job *job, int64_t *keys_read)
{
    const struct problem *p = job->call->problem;
    int64_t items = 0, partial = 0, sets = p->kv_heads / job->call->plan->decode_heads;
    for (int64_t b = 0; b < p->batch; b++) {
        struct cpu_sequence sequence = sequence_at(job->call, b);
        struct decode_sequence *s = &job->sequences[b];
        *s = (struct decode_sequence){
            .item0 = items, .partial0 = partial, .chunks = 1, .low = INT64_MAX};
        int64_t rows = sequence.q_length * p->group;
        if (rows <= job->call->plan->decode_rows) s->rows = rows;
        for (int64_t query = 0; query < sequence.q_length && s->rows; query++) {
            int64_t first, last;
            visible_keys(p, query, sequence.q_length, sequence.kv_length, &first, &last);
            if (last <= first) continue;
            s->low = min64(s->low, first);
            s->high = max64(s->high, last);
        }
        if (s->high > 0) {
            s->chunk_keys = chunk_of(s->high - s->low);
            s->chunk0 = s->low / s->chunk_keys;
            s->chunks = ceil_div(s->high, s->chunk_keys) - s->chunk0;
        }
        for (int64_t i = 0; i < sets; i++) atomic_init(&job->unfinished[b * sets + i], s->chunks);
        if (s->rows) {
            *keys_read += max64(s->high - s->low, 0);
            items += sets * s->chunks;
            partial += p->kv_heads * s->chunks * partial_floats(s->rows, job->width);
        }
    }
    return items;
}

void decode_run(const struct cpu_call *call)
{

    const rapt_attention *a = call->a;
    struct decode_job job = {.call = call};
    struct arena arena = {call->workspace, 0};
    lay_out(&job, call->problem, call->plan, &arena);
    job.score_options = a->softcap != 0 || a->alibi_slope.dtype;
    job.exponent_scale = (float)((job.score_options ? 1 : fabs(a->scale)) * LOG2_E);
    int64_t keys = 0;
    job.items = number_items(&job, &keys);
    atomic_init(&job.next, 0);
    const struct problem *p = call->problem;
    int64_t bytes =
        keys * p->kv_heads * (p->qk_channels + p->v_channels) * (int64_t)dtype_size(a->k.dtype);
    if (job.items)
        pool_run(call->pool, min64(call->plan->decode_slots, job.items),
                 max64(1, bytes / WAKE_BYTES), work, &job);
}
