/* decode_plan.c: which problems decode.c serves, and with what sizes: the chunk of keys and the KV heads of an item,
 * the keys of a block and of a call, the workspace. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/decode.h"
#include "cpu/decode_kernels.h"

enum {
    /* So few keys make one panel, and packing it pays from SHORT_ROWS rows on: 16 rows of 16 keys
     * take 80 us there, 97 us here (32 heads, 128 channels, f32, Zen 4). */
    SHORT_KEYS = 32,
    SHORT_ROWS = 8,
    CHUNK_MIN = 512, /* keys of an item: 2 blocks, against one partial result written and merged */
    CHUNK_COUNT_MAX = 32, /* more keys make longer chunks: partial results stay small */
    /* DECODE_WINDOW keys of K and as much of V, and the next of both: half of a cache of 1 MiB. */
    HEADS_BYTES = 128 << 10,
    /* In the order of memory, o of all heads goes through the first cache for every few keys, of F32 for half as
     * many: numbers of o times bytes of one of V. */
    IN_ORDER_O = 16 << 10,
    SCORES_BYTES = 256 << 10, /* of a block of all heads, where these go by page by page */
    /* Of K or V, of all heads of an item: what is asked for ahead. Fewer keys make more calls. */
    WINDOW_BYTES = 64 << 10,
    WINDOW_MIN = 16,
};

/* Floats of a row of o. */
static int64_t o_width(const struct problem *p, const struct cpu_kernels *k)
{
    return round_up(round_up(p->v_channels, k->column_tile), 16);
}

int64_t decode_chunk_keys(int64_t keys)
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

void decode_lay_out(struct decode_job *job, const struct problem *p, const struct cpu_plan *plan,
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

/* Other problems go to forward.c. */
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

/* Whether one call may take so many heads of an item, in the order of memory, where they have few rows. */
static int heads_in_order(const struct problem *p, const struct cpu_plan *plan, int64_t heads)
{
    return heads > 1 && plan->requests->span && plan->kernels->decode_qk_heads &&
           p->a.kv_layout == RAPT_KV_STRIDED &&
           (p->a.k.dtype != RAPT_I8 || waits_in_second_cache(plan)) &&
           decode_gapless(p, &p->a.k, heads) && decode_gapless(p, &p->a.v, heads);
}

/* Whether the heads of a token, of K and of V, may share items; the next: those of a page. */
static int heads_of_tokens(const struct problem *p)
{
    return heads_lie_together(&p->a.k) && heads_lie_together(&p->a.v);
}

static int heads_of_pages(const struct problem *p, const struct cpu_plan *plan)
{
    return plan->requests->span && decode_by_page(p, &p->a.k) && decode_by_page(p, &p->a.v);
}

/* Whether an item may have so many heads: what waits between two calls for a head stays in a cache. */
static int heads_fit(const struct problem *p, const struct cpu_plan *plan, int64_t heads)
{
    int64_t channels = heads * max64(p->qk_channels, p->v_channels),
            rows = p->ragged_q ? DECODE_ROWS_MAX : p->q_tokens * p->group;
    int few = rows <= DECODE_HEADS_ROWS && heads_in_order(p, plan, heads);
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
            p->kv_heads / heads * chunks >= plan->slots * 2 * DECODE_RUNS_PER_THREAD)
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

/* plan->decode_window. The bits of a head must not depend on how many others an item has. */
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
    plan->decode_in_order = heads_in_order(p, plan, plan->decode_heads);
    plan->decode_steps = steps_are_equal(p, plan);
    plan->decode_slots = max64(1, min64(plan->slots, chunks * (p->kv_heads / plan->decode_heads)));
    struct decode_scratch scratch;
    struct arena each = {NULL, 0}, all = {NULL, 0};
    decode_lay_out_scratch(&scratch, p, plan, &each);
    plan->decode_scratch_bytes = each.used;
    struct decode_job job;
    decode_lay_out(&job, p, plan, &all);
    return all.used;
}
