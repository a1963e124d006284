/* decode.c: attention of few query rows against many keys, the keys split over the threads. An item
 * is one chunk of keys, at absolute positions, of one sequence and KV head, with all query rows of
 * the group together, so that K and V are read once, in place. Each item leaves a partial result
 * (o, m, l); the item that finishes last for its sequence and head merges them in the order of the
 * chunks (Dao et al., "Flash-Decoding", 2023). Chunks depend on the problem's sizes alone: the same
 * sequence has the same bits alone, in any batch and with any number of threads.
 *
 * Packed row r is query r / group of head kv_head * group + r % group, as in forward.c. */
#include "base/dtype.h"
#include "cpu/cpu.h"
#include "cpu/decode_kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#define LOG2_E 1.44269504088896340736

enum {
    /* Past this, reading K and V again for each tile of rows costs more than packing them. */
    DECODE_ROWS_MAX = 16,
    /* So few keys make one panel, and packing it pays from SHORT_ROWS rows on: 16 rows of 16 keys
     * take 80 us there, 97 us here (32 heads, 128 channels, f32, Zen 4). */
    SHORT_KEYS = 32,
    SHORT_ROWS = 8,
    BLOCK = 64, /* keys of one softmax */
    /* Pointers of a block: what is asked for ahead may run past its end, into NULL rows. */
    ROW_SLOTS = 2 * BLOCK,
    /* K or V rows of one kernel call: with as much that it asks for ahead, within the first cache.
     */
    STEP_BYTES = 8192,
    CHUNK_MIN = 512, /* keys of an item: 8 blocks, against one partial result written and merged */
    CHUNK_COUNT_MAX = 128, /* longer sequences get longer chunks: partial results stay small */
    RUN_MAX = 8, /* neighbouring chunks that a thread takes: it asks ahead past a chunk's end */
    RUNS_PER_THREAD = 4,
};

static int64_t round_up(int64_t x, int64_t step)
{
    return (x + step - 1) / step * step;
}

static int64_t min64(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t max64(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

/* One sequence as the items see it. */
struct decode_sequence {
    int64_t item0;          /* number of its first item */
    int64_t low, high;      /* keys that some query sees; low is not reduced to a chunk's start */
    int64_t chunk0, chunks; /* at least one chunk, even without a key, so that out is written */
    int64_t rows;           /* 0: forward.c serves it */
    int64_t partial0;       /* in floats, within the partial results */
};

/* Scratch of one thread. */
struct decode_scratch {
    void *q;
    float *s;                         /* [DECODE_ROWS_MAX][BLOCK] */
    const void **k_rows[2], **v_rows; /* [ROW_SLOTS]: this block's and the next one's keys */
    const float **k_scales[2], **v_scales;
    int64_t *first, *last; /* [DECODE_ROWS_MAX]: the keys a row sees */
};

struct decode_job {
    const struct cpu_call *call;
    struct decode_sequence *sequences;
    _Atomic int64_t *unfinished; /* [batch][kv_heads]: chunks */
    float *partials;
    char *scratch;
    int64_t items, run; /* a thread takes run items at a time */
    int64_t width;      /* channels of o, padded */
    int64_t step;       /* keys of one kernel call */
    int score_options;
    float exponent_scale; /* p = 2^(exponent_scale * (s - m)) */
    _Atomic int64_t next;
};

/* ---- Sizes ----------------------------------------------------------------------------------- */

struct arena {
    char *base;
    size_t used;
};

static void *take(struct arena *arena, int64_t count, size_t size)
{
    void *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += ((size_t)count * size + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT *
                   WORKSPACE_ALIGNMENT;
    return piece;
}

/* In 4-byte units; whole cache lines, so that kernels may read full vectors. */
static int64_t q_stride(const struct problem *p, const struct cpu_kernels *k)
{
    return round_up((p->qk_channels + k->pair - 1) / k->pair, 16);
}

static int64_t o_width(const struct problem *p, const struct cpu_kernels *k)
{
    return round_up(round_up(p->v_channels, k->column_tile), 16);
}

/* Floats of one partial result: o [rows][width], m [rows], l [rows]. */
static int64_t partial_floats(int64_t rows, int64_t width)
{
    return rows * width + round_up(2 * rows, 16);
}

static void lay_out_scratch(struct decode_scratch *w, const struct problem *p,
                            const struct cpu_plan *plan, struct arena *arena)
{
    w->q = take(arena, DECODE_ROWS_MAX * q_stride(p, plan->kernels), 4);
    w->s = take(arena, (int64_t)DECODE_ROWS_MAX * BLOCK, sizeof(float));
    for (int i = 0; i < 2; i++) {
        w->k_rows[i] = take(arena, ROW_SLOTS, sizeof(void *));
        w->k_scales[i] = take(arena, BLOCK, sizeof(void *));
    }
    w->v_rows = take(arena, ROW_SLOTS, sizeof(void *));
    w->v_scales = take(arena, BLOCK, sizeof(void *));
    w->first = take(arena, DECODE_ROWS_MAX, sizeof(int64_t));
    w->last = take(arena, DECODE_ROWS_MAX, sizeof(int64_t));
}

/* Most chunks of one sequence: of its capacity, or of what a window shows of it. */
static int64_t sequence_chunks(const struct problem *p, int64_t chunk)
{
    int64_t chunks = p->kv_tokens / chunk + 1;
    if (p->window_left < p->kv_tokens && p->window_right < p->kv_tokens)
        chunks = min64(chunks, (p->window_left + p->window_right + DECODE_ROWS_MAX) / chunk + 2);
    return chunks;
}

/* Upper bound on rows * chunks over all sequences, per KV head, and on chunks. */
static void count_chunks(const struct problem *p, const struct cpu_plan *plan, int64_t *row_chunks,
                         int64_t *chunks)
{
    int64_t each = sequence_chunks(p, plan->chunk_keys);
    *chunks = p->batch * each;
    if (p->ragged_kv) *chunks = min64(*chunks, p->kv_tokens / plan->chunk_keys + p->batch);
    *row_chunks = *chunks * (p->ragged_q ? DECODE_ROWS_MAX : p->q_tokens * p->group);
    if (p->ragged_q) *row_chunks = min64(*row_chunks, p->q_tokens * p->group * each);
}

/* A power of two, so that steps divide blocks and are even. */
static int64_t step_keys(const struct problem *p)
{
    int64_t bytes = max64(p->qk_channels, p->v_channels) * (int64_t)dtype_size(p->a.k.dtype),
            keys = BLOCK, least = p->a.kv_layout == RAPT_KV_BLOCKED ? RAPT_KV_BLOCK : 16;
    while (keys > least && keys * bytes > STEP_BYTES) keys /= 2;
    return keys;
}

static void lay_out(struct decode_job *job, const struct problem *p, const struct cpu_plan *plan,
                    struct arena *arena)
{
    int64_t row_chunks, chunks;
    count_chunks(p, plan, &row_chunks, &chunks);
    job->width = o_width(p, plan->kernels);
    job->sequences = take(arena, p->batch, sizeof *job->sequences);
    job->unfinished = take(arena, p->batch * p->kv_heads, sizeof *job->unfinished);
    job->scratch = take(arena, plan->decode_slots, plan->decode_scratch_bytes);
    job->partials =
        take(arena, p->kv_heads * (row_chunks * job->width + chunks * 16 + row_chunks * 2),
             sizeof(float));
}

static int serves(const struct problem *p, const struct cpu_kernels *k)
{
    const rapt_attention *a = &p->a;
    if (!k->decode_qk || !k->decode_pv || BLOCK % k->column_tile || a->q.dtype == RAPT_I8) return 0;
    if (a->mask.dtype || a->bias.dtype || a->weights.dtype) return 0;
    if (p->qk_channels > DECODE_CHANNELS_MAX || p->v_channels > DECODE_CHANNELS_MAX) return 0;
    if (p->ragged_q) return p->group <= DECODE_ROWS_MAX;
    int64_t rows = p->q_tokens * p->group;
    int is_short = rows >= SHORT_ROWS && p->kv_tokens <= SHORT_KEYS && !p->ragged_kv;
    return rows <= DECODE_ROWS_MAX && !is_short;
}

size_t decode_plan(const struct problem *p, struct cpu_plan *plan)
{
    plan->decode_rows = 0;
    if (!serves(p, plan->kernels)) return 0;
    plan->decode_rows = DECODE_ROWS_MAX;
    plan->chunk_keys = CHUNK_MIN;
    while (p->kv_tokens / plan->chunk_keys > CHUNK_COUNT_MAX) plan->chunk_keys *= 2;
    int64_t row_chunks, chunks;
    count_chunks(p, plan, &row_chunks, &chunks);
    plan->decode_slots = max64(1, min64(plan->slots, chunks * p->kv_heads));
    struct decode_scratch scratch;
    struct arena each = {NULL, 0}, all = {NULL, 0};
    lay_out_scratch(&scratch, p, plan, &each);
    plan->decode_scratch_bytes = each.used;
    struct decode_job job;
    lay_out(&job, p, plan, &all);
    return all.used;
}

/* ---- One item -------------------------------------------------------------------------------- */

struct decode_item {
    struct decode_job *job;
    const struct cpu_call *call;
    const struct cpu_kernels *kernels;
    struct decode_scratch scratch;
    struct cpu_sequence sequence;
    const struct decode_sequence *table;
    int64_t kv_head, rows;
    float *o, *m, *l; /* of this item's partial result */
};

/* One pass: keys key0 + first ... key0 + last - 1. */
struct decode_block {
    int64_t key0, first, last;
    int uniform; /* every row sees all of them */
    struct cpu_rows k, v;
};

static int64_t head_of(const struct decode_item *t, int64_t r)
{
    return t->kv_head * t->call->problem->group + r % t->call->problem->group;
}

static float *partial_of(const struct decode_job *job, const struct decode_sequence *s,
                         int64_t kv_head, int64_t chunk)
{
    return job->partials + s->partial0 +
           (kv_head * s->chunks + chunk) * partial_floats(s->rows, job->width);
}

static void load_queries(struct decode_item *t)
{
    const struct problem *p = t->call->problem;
    const rapt_attention *a = t->call->a;
    int64_t stride = q_stride(p, t->kernels);
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t query = r / p->group;
        const void *row = query_row(t->call, &a->q, &t->sequence, head_of(t, r), query);
        t->kernels->pack_q((char *)t->scratch.q + r * stride * 4, row, a->q.dtype, a->q.stride[3],
                           p->qk_channels, a->scale < 0 ? -1 : 1);
        visible_keys(p, query, t->sequence.q_length, t->sequence.kv_length, &t->scratch.first[r],
                     &t->scratch.last[r]);
        t->m[r] = -INFINITY;
        t->l[r] = 0;
    }
    memset(t->o, 0, (size_t)(t->rows * t->job->width) * sizeof *t->o);
}

static struct cpu_rows rows_of(const struct decode_item *t, const rapt_tensor *tensor,
                               const void **row, const float **scale, const struct decode_block *b)
{
    memset(row, 0, ROW_SLOTS * sizeof *row);
    key_rows(t->call, tensor, &t->sequence, t->kv_head, b->key0, b->first, b->last, row,
             tensor->dtype == RAPT_I8 ? scale : NULL);
    return rows_behind(t->call, tensor, row, scale);
}

/* Softcap and ALiBi: then s is a natural logit. */
static void apply_score_options(const struct decode_item *t, const struct decode_block *b)
{
    const rapt_attention *a = t->call->a;
    int64_t offset = a->align == RAPT_TOP_LEFT ? 0 : t->sequence.kv_length - t->sequence.q_length;
    struct cpu_score_row row = {.scale = (float)fabs(a->scale), .softcap = (float)a->softcap};
    for (int64_t r = 0; r < t->rows; r++) {
        row.slope = head_value(&a->alibi_slope, t->sequence.index, head_of(t, r), 0);
        row.position = r / t->call->problem->group + offset - b->key0;
        t->kernels->score(t->scratch.s + r * BLOCK, &row, b->first, b->last);
    }
}

static void softmax_rows(const struct decode_item *t, const struct decode_block *b)
{
    int64_t tile = t->kernels->row_tile, row_first[ROW_TILE_MAX], row_last[ROW_TILE_MAX];
    for (int64_t r0 = 0; r0 < t->rows; r0 += tile) {
        int64_t rows = min64(tile, t->rows - r0);
        for (int64_t i = 0; i < rows; i++) {
            row_first[i] = min64(max64(t->scratch.first[r0 + i] - b->key0, b->first), b->last);
            row_last[i] = max64(min64(t->scratch.last[r0 + i] - b->key0, b->last), row_first[i]);
        }
        struct cpu_softmax_tile softmax = {
            .s = t->scratch.s + r0 * BLOCK,
            .stride = BLOCK,
            .rows = rows,
            .first = b->first / t->kernels->column_tile * t->kernels->column_tile,
            .last = b->last,
            .row_first = row_first,
            .row_last = row_last,
            .scale = t->job->exponent_scale,
            .m = t->m + r0,
            .l = t->l + r0,
            .o = t->o + r0 * t->job->width,
            .o_stride = t->job->width,
            .channels = round_up(t->call->problem->v_channels, t->kernels->column_tile)};
        t->kernels->softmax(&softmax);
    }
}

/* Queries that see different parts of a block take their own keys alone: a hidden value must not be
 * touched, and 0 * NaN would be. The neighbours that an even start or end takes in are set aside.
 */
static void add_values_by_query(const struct decode_item *t, const struct decode_block *b)
{
    int64_t group = t->call->problem->group;
    const void **row = t->scratch.v_rows;
    for (int64_t r = 0; r < t->rows; r += group) {
        int64_t first = max64(t->scratch.first[r] - b->key0, b->first),
                last = min64(t->scratch.last[r] - b->key0, b->last);
        if (last <= first) continue;
        int64_t even = first & ~(int64_t)1;
        const void *before = row[even], *after = row[last];
        if (even < first) row[even] = NULL;
        row[last] = NULL;
        t->kernels->decode_pv(t->o + r * t->job->width, t->job->width, t->scratch.s + r * BLOCK,
                              BLOCK, &b->v, group, t->call->problem->v_channels, even, last, NULL);
        row[even] = before;
        row[last] = after;
    }
}

/* Keys [*first, return value) of the next kernel call: a step, cut at the block's end. */
static int64_t step_end(const struct decode_item *t, const struct decode_block *b, int64_t first)
{
    return min64(first / t->job->step * t->job->step + t->job->step, b->last);
}

/* Scores, softmax, values. Each call asks for the rows of the one after it; next_k: of the
 * following block. */
static void attend_block(const struct decode_item *t, const struct decode_block *b,
                         const void *const *next_k)
{
    const struct problem *p = t->call->problem;
    for (int64_t first = b->first, last; first < b->last; first = last) {
        last = step_end(t, b, first);
        t->kernels->decode_qk(t->scratch.s, BLOCK, t->scratch.q, q_stride(p, t->kernels), &b->k,
                              t->rows, p->qk_channels, first, last,
                              last < b->last ? b->k.row + last : b->v.row + b->first);
    }
    if (t->job->score_options) apply_score_options(t, b);
    softmax_rows(t, b);
    if (!b->uniform) {
        add_values_by_query(t, b);
        return;
    }
    for (int64_t first = b->first & ~(int64_t)1, last; first < b->last; first = last) {
        last = step_end(t, b, first);
        t->kernels->decode_pv(t->o, t->job->width, t->scratch.s, BLOCK, &b->v, t->rows,
                              p->v_channels, first, last,
                              last < b->last ? b->v.row + last : next_k);
    }
}

static struct decode_block block_at(const struct decode_item *t, int64_t key0, int64_t low,
                                    int64_t high)
{
    struct decode_block b = {.key0 = key0,
                             .first = max64(low - key0, 0),
                             .last = min64(high - key0, BLOCK),
                             .uniform = 1};
    for (int64_t r = 0; r < t->rows; r++)
        if (t->scratch.first[r] > key0 + b.first || t->scratch.last[r] < key0 + b.last)
            b.uniform = 0;
    return b;
}

/* Keys [low, high), which lie within one chunk. Keys from high up to ahead are this thread's next:
 * their K is asked for. */
static void attend(struct decode_item *t, int64_t low, int64_t high, int64_t ahead)
{
    const rapt_attention *a = t->call->a;
    struct decode_scratch *w = &t->scratch;
    if (high <= low) return;
    int64_t key0 = low / BLOCK * BLOCK;
    int turn = 0;
    struct decode_block b = block_at(t, key0, low, high);
    b.k = rows_of(t, &a->k, w->k_rows[turn], w->k_scales[turn], &b);
    for (;; turn = !turn) {
        int more = b.key0 + BLOCK < high;
        struct decode_block after = block_at(t, b.key0 + BLOCK, low, more ? high : ahead);
        b.v = rows_of(t, &a->v, w->v_rows, w->v_scales, &b);
        if (after.last > 0)
            after.k = rows_of(t, &a->k, w->k_rows[!turn], w->k_scales[!turn], &after);
        attend_block(t, &b, after.last > 0 ? after.k.row : NULL);
        if (!more) return;
        b = after;
    }
}

/* ---- Merging --------------------------------------------------------------------------------- */

/* Writes out and lse of row r from the partial results of all chunks; the sum gathers in the first
 * of them. */
static void merge_row(const struct decode_item *t, int64_t r)
{
    const struct decode_sequence *s = t->table;
    const rapt_attention *a = t->call->a;
    int64_t width = t->job->width, channels = t->call->problem->v_channels, head = head_of(t, r);
    double unit = t->job->score_options ? 1 : fabs(a->scale);
    double sink = head_value(&a->sink, t->sequence.index, head, -INFINITY), top = sink;
    float *sum = partial_of(t->job, s, t->kv_head, 0) + r * width;
    for (int64_t c = 0; c < s->chunks; c++) {
        double m = partial_of(t->job, s, t->kv_head, c)[s->rows * width + r];
        if (m != -INFINITY && m * unit > top) top = m * unit;
    }
    if (top == -INFINITY) top = 0;
    double total = exp(sink - top);
    for (int64_t c = 0; c < s->chunks; c++) {
        const float *part = partial_of(t->job, s, t->kv_head, c), *o = part + r * width;
        double m = part[s->rows * width + r], l = part[s->rows * width + s->rows + r];
        float weight = m == -INFINITY ? 0 : (float)exp(m * unit - top);
        total += m == -INFINITY ? l : weight * l; /* without a key l is 0, or NaN from NaN scores */
        if (c == 0)
            for (int64_t i = 0; i < channels; i++) sum[i] *= weight;
        else
            for (int64_t i = 0; i < channels; i++) sum[i] += weight * o[i];
    }
    float factor = total == 0 ? 0 : (float)(1 / total);
    void *out = query_row(t->call, &a->out, &t->sequence, head, r / t->call->problem->group);
    t->kernels->store_row(out, a->out.dtype, a->out.stride[3], sum, factor, channels);
    float *lse = query_row(t->call, &a->lse, &t->sequence, head, r / t->call->problem->group);
    if (lse) *lse = (float)(top + log(total));
}

/* more: the thread goes on with the next chunk. */
static void run_item(struct decode_item *t, const struct decode_sequence *s, int64_t b,
                     int64_t kv_head, int64_t chunk, int more)
{
    struct decode_job *job = t->job;
    int64_t keys = t->call->plan->chunk_keys, start = (s->chunk0 + chunk) * keys;
    t->sequence = sequence_at(t->call, b);
    t->table = s;
    t->kv_head = kv_head;
    t->rows = s->rows;
    t->o = partial_of(job, s, kv_head, chunk);
    t->m = t->o + s->rows * job->width;
    t->l = t->m + s->rows;
    load_queries(t);
    int64_t high = min64(start + keys, s->high);
    attend(t, max64(start, s->low), high, more ? min64(high + BLOCK, s->high) : high);
    _Atomic int64_t *unfinished = &job->unfinished[b * t->call->problem->kv_heads + kv_head];
    if (atomic_fetch_sub_explicit(unfinished, 1, memory_order_acq_rel) > 1) return;
    for (int64_t r = 0; r < s->rows; r++) merge_row(t, r);
}

/* ---- All items over the threads -------------------------------------------------------------- */

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

static void work(void *argument, int64_t slot)
{
    struct decode_job *job = argument;
    const struct cpu_call *call = job->call;
    struct decode_item item = {.job = job, .call = call, .kernels = call->plan->kernels};
    struct arena arena = {job->scratch + (size_t)slot * call->plan->decode_scratch_bytes, 0};
    lay_out_scratch(&item.scratch, call->problem, call->plan, &arena);
    int64_t first;
    while ((first = atomic_fetch_add_explicit(&job->next, job->run, memory_order_relaxed)) <
           job->items) {
        int64_t last = min64(first + job->run, job->items);
        for (int64_t i = first; i < last; i++) {
            int64_t b = sequence_of(job, i);
            const struct decode_sequence *s = &job->sequences[b];
            int64_t chunk = (i - s->item0) % s->chunks;
            run_item(&item, s, b, (i - s->item0) / s->chunks, chunk,
                     i + 1 < last && chunk + 1 < s->chunks);
        }
    }
}

/* Where the items and partial results of each sequence begin; returns the number of items. */
static int64_t number_items(struct decode_job *job)
{
    const struct problem *p = job->call->problem;
    int64_t keys = job->call->plan->chunk_keys, items = 0, partial = 0;
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
            s->chunk0 = s->low / keys;
            s->chunks = (s->high + keys - 1) / keys - s->chunk0;
        }
        for (int64_t head = 0; head < p->kv_heads; head++)
            atomic_init(&job->unfinished[b * p->kv_heads + head], s->chunks);
        if (s->rows) {
            items += p->kv_heads * s->chunks;
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
    job.step = step_keys(call->problem);
    job.items = number_items(&job);
    atomic_init(&job.next, 0);
    job.run = max64(1, min64(RUN_MAX, job.items / (call->plan->decode_slots * RUNS_PER_THREAD)));
    if (job.items) pool_run(call->pool, min64(call->plan->decode_slots, job.items), work, &job);
}
