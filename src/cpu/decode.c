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

enum {
    RUN_MAX = 8, /* neighbouring chunks that a thread takes: it asks ahead past a chunk's end */
    WAKE_BYTES = 512 << 10, /* of K and V: 35 us, as long as to wake a thread */
    MERGE_AHEAD = 8, /* partial results: rows of them lie apart, and in another core's cache */
};

/* ---- Merging --------------------------------------------------------------------------------- */

static float *partial_of(const struct decode_job *job, const struct decode_sequence *s,
                         int64_t kv_head, int64_t chunk)
{
    return job->partials + s->partial0 +
           (kv_head * s->chunks + chunk) * decode_partial_floats(s->rows, job->width);
}

/* Writes out and lse of row r of a KV head from the partial results of all chunks; the sum gathers
 * in the first of them. */
static void merge_row(const struct decode_item *t, int64_t kv_head, int64_t r)
{
    const struct decode_sequence *s = t->split;
    const struct problem *p = t->problem;
    const rapt_attention *a = t->call->a;
    int64_t width = t->job->width, channels = p->v_channels, query = r / p->group,
            head = decode_query_head(t, kv_head, r),
            ahead = MERGE_AHEAD * decode_partial_floats(s->rows, width);
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
    t->split = s;
    t->kv_head = kv_head;
    t->rows = s->rows;
    t->partial = partial_of(job, s, kv_head, chunk);
    t->partial_step = s->chunks * decode_partial_floats(s->rows, job->width);
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
    int64_t shares = job->call->plan->decode_slots * DECODE_RUNS_PER_THREAD;
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

/* The keys that some query of the sequence sees, and their chunks. */
static void split_keys(const struct problem *p, const struct cpu_sequence *sequence,
                       struct decode_sequence *s)
{
    for (int64_t query = 0; query < sequence->q_length; query++) {
        int64_t first, last;
        visible_keys(p, query, sequence->q_length, sequence->kv_length, &first, &last);
        if (last <= first) continue;
        s->low = min64(s->low, first);
        s->high = max64(s->high, last);
    }
    if (!s->high) return;
    s->chunk_keys = decode_chunk_keys(s->high - s->low);
    s->chunk0 = s->low / s->chunk_keys;
    s->chunks = ceil_div(s->high, s->chunk_keys) - s->chunk0;
}

/* Fills job->sequences and job->unfinished; returns the number of items. *keys_read: those of a KV head, of all
 * sequences. */
static int64_t number_items(struct decode_job *job, int64_t *keys_read)
{
    const struct problem *p = job->call->problem;
    int64_t items = 0, partial = 0, sets = p->kv_heads / job->call->plan->decode_heads;
    for (int64_t b = 0; b < p->batch; b++) {
        struct cpu_sequence sequence = sequence_at(job->call, b);
        struct decode_sequence *s = &job->sequences[b];
        int64_t rows = sequence.q_length * p->group;
        *s = (struct decode_sequence){
            .item0 = items, .partial0 = partial, .chunks = 1, .low = INT64_MAX};
        if (rows > job->call->plan->decode_rows || !rows) continue;
        s->rows = rows;
        split_keys(p, &sequence, s);
        for (int64_t i = 0; i < sets; i++) atomic_init(&job->unfinished[b * sets + i], s->chunks);
        *keys_read += max64(s->high - s->low, 0);
        items += sets * s->chunks;
        partial += p->kv_heads * s->chunks * decode_partial_floats(s->rows, job->width);
    }
    return items;
}

void decode_run(const struct cpu_call *call)
{
    const rapt_attention *a = call->a;
    struct decode_job job = {.call = call};
    struct arena arena = {call->workspace, 0};
    decode_lay_out(&job, call->problem, call->plan, &arena);
    job.score_options = cpu_has_score_options(a);
    job.exponent_scale = cpu_exponent_scale(a);
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
