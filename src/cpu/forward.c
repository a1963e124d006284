/* forward.c: attention by tiles, for any problem. An item is one block of packed rows of one
 * sequence and KV head: packed row r is query r / group of head kv_head * group + r % group, so
 * that all heads of a group share each packed block of K and V. For each block of keys: pack K and
 * V once into panels (forward_pack.c), then for each tile of rows q k^T, score options, online
 * softmax, p v (Dao et al., FlashAttention, 2022; Milakov and Gimelshein, Online normalizer
 * calculation for softmax, 2018), or all tiles through the level's pipeline (forward_pipeline.c).
 *
 * A row's arithmetic depends on nothing but its own data and key_block, neither on the rows beside
 * it nor on the thread, so results have the same bits for any number of threads, any row_block and
 * any batch. */
#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/forward.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    PANEL_BYTES = 256 << 10, /* K and V panels of a block together: a quarter of a 1 MiB L2 cache */
    ROW_BYTES = 768 << 10,   /* q and o of an item */
    ROWS_MAX = 768,          /* K and V of a long sequence come from memory once per item */
    PIPELINE_SHARE = 2,      /* times as much of each with a pipeline, whose CPUs have 2 MiB */
    KEYS_MIN = 64,
    KEYS_MAX = 512,       /* s of a tile stays within three quarters of a 32 KiB L1 cache */
    ITEMS_PER_THREAD = 4, /* at least, or the last to finish keep the others waiting */
    TILES_LEAST = 4,      /* an item packs its keys for itself: its rows must pay for that */
    CHANNELS_LEAST = 4,   /* that K panels have room for */
};

static int64_t cache_share(const struct cpu_plan *plan)
{
    return plan->pipeline ? PIPELINE_SHARE : 1;
}

/* Of q and panels, all parts together. */
static int64_t element_bytes(const struct cpu_plan *plan)
{
    return plan->pipeline ? 2 * plan->pipeline->parts : plan->kernels->pair == 1 ? 4 : 2;
}

static void scratch_lay_out(struct forward_scratch *w, const struct problem *p,
                            const struct cpu_plan *plan, struct arena *arena)
{
    const struct cpu_kernels *k = plan->kernels;
    int64_t keys = plan->key_block, rows = plan->row_block;
    int64_t depth = round_up(p->qk_channels, k->pair),
            width = round_up(p->v_channels, k->column_tile), element = element_bytes(plan);
    w->q_stride = round_up(depth * element / 4, 16);
    w->o_stride = width;
    w->q = take(arena, rows * w->q_stride, 4);
    w->o = take(arena, rows * w->o_stride, sizeof(float));
    w->s = take(arena, k->row_tile * keys, sizeof(float));
    w->pipeline = take(arena, plan->pipeline ? (int64_t)plan->pipeline->scratch_bytes : 0, 1);
    w->k_panels = take(arena, keys * max64(depth, CHANNELS_LEAST), (size_t)element);
    w->v_panels = take(arena, keys * width, (size_t)element);
    w->m = take(arena, rows, sizeof(float));
    w->l = take(arena, rows, sizeof(float));
    w->factor = take(arena, rows, sizeof(float));
    w->first = take(arena, rows, sizeof(int64_t));
    w->last = take(arena, rows, sizeof(int64_t));
    w->head = take(arena, rows, sizeof(int64_t));
    w->query = take(arena, rows, sizeof(int64_t));
    w->tile_low = take(arena, rows, sizeof(int64_t));
    w->tile_high = take(arena, rows, sizeof(int64_t));
    w->row = take(arena, max64(p->qk_channels, p->v_channels), sizeof(float));
    w->k_rows = take(arena, keys, sizeof(void *));
    w->v_rows = take(arena, keys, sizeof(void *));
    w->k_scales = take(arena, keys, sizeof(void *));
    w->v_scales = take(arena, keys, sizeof(void *));
    w->unusual = take(arena, keys, sizeof(int64_t));
    w->nonfinite_row = take(arena, rows, 1);
    w->nonfinite_key = take(arena, keys, 1);
    w->seen = take(arena, plan->tile_rows * keys, 1);
    w->options =
        take(arena, plan->pipeline && cpu_has_score_options(&p->a) ? rows : 0, sizeof *w->options);
}

/* Keys of a block: as many as PANEL_BYTES hold. */
static int64_t choose_key_block(const struct problem *p, const struct cpu_plan *plan)
{
    int64_t width = round_up(p->v_channels, plan->kernels->column_tile),
            key_bytes = (p->qk_channels + width) * element_bytes(plan);
    int64_t step = plan->pipeline && (p->kv_tokens > CPU_PIPELINE_KEYS || p->a.batch_invariant)
                       ? CPU_PIPELINE_KEYS
                       : KEYS_MIN,
            keys = PANEL_BYTES * cache_share(plan) / key_bytes / step * step;
    return min64(min64(max64(keys, step), KEYS_MAX),
                 max64(round_up(p->kv_tokens, KEYS_MIN), KEYS_MIN));
}

/* Packed rows of an item: as many as ROW_BYTES hold, but fewer where threads would have too few items. */
static int64_t choose_row_block(const struct problem *p, const struct cpu_plan *plan)
{
    int64_t width = round_up(p->v_channels, plan->kernels->column_tile),
            row_bytes = plan->pipeline ? p->qk_channels * element_bytes(plan) + width * 4
                                       : (p->qk_channels + width) * 4;
    int64_t rows = min64(min64(ROWS_MAX, ROW_BYTES / row_bytes) * cache_share(plan),
                         round_up(p->q_tokens * p->group, plan->tile_rows));
    int64_t tiles = max64(rows / plan->tile_rows, 1);
    while (tiles > TILES_LEAST && forward_count_blocks(p, tiles * plan->tile_rows) * p->kv_heads <
                                      ITEMS_PER_THREAD * plan->slots)
        tiles = (tiles + 1) / 2;
    return tiles * plan->tile_rows;
}

size_t forward_plan(const struct problem *p, struct cpu_plan *plan)
{
    plan->pipeline = forward_pipeline_of(p, plan->kernels);
    plan->tile_rows = plan->pipeline ? CPU_PIPELINE_ROWS : plan->kernels->row_tile;
    plan->key_block = choose_key_block(p, plan);
    plan->row_block = choose_row_block(p, plan);
    plan->block_count = forward_count_blocks(p, plan->row_block);
    plan->slots = max64(1, min64(plan->slots, plan->block_count * p->kv_heads));

    struct forward_scratch scratch;
    struct arena arena = {NULL, 0};
    scratch_lay_out(&scratch, p, plan, &arena);
    plan->scratch_bytes = arena.used;
    struct arena table = {NULL, 0};
    take(&table, forward_count_units(p, plan), sizeof(struct forward_unit));
    return table.used + (size_t)plan->slots * plan->scratch_bytes;
}

/* ---- Tiles of rows against a block of keys ---- */

struct cpu_score_row forward_score_row(const struct forward_item *t, int64_t r, int64_t key0)
{
    const rapt_attention *a = t->call->a;
    const struct cpu_sequence *s = &t->sequence;
    return (struct cpu_score_row){
        .scale = (float)fabs(a->scale),
        .softcap = (float)a->softcap,
        .slope = head_value(&a->alibi_slope, s->index, t->scratch.head[r], 0),
        .position =
            query_position(t->problem, t->scratch.query[r], s->q_length, s->kv_length) - key0,
        .bias = forward_operand(t, &a->bias, r, key0),
        .bias_dtype = a->bias.dtype,
        .bias_stride = a->bias.stride[3],
        .mask = forward_operand(t, &a->mask, r, key0),
        .mask_stride = a->mask.stride[3]};
}

/* Applies softcap, bias, ALiBi and mask to a tile; then s is a natural logit. */
static void apply_score_options(const struct forward_item *t, const struct forward_tile *tile)
{
    for (int64_t i = 0; i < tile->rows; i++) {
        struct cpu_score_row row = forward_score_row(t, tile->r0 + i, tile->key0);
        t->kernels->score(t->scratch.s + i * t->plan->key_block, &row,
                          max64(tile->row_first[i], tile->first),
                          min64(tile->row_last[i], tile->last));
    }
}

/* q k^T and score options of one tile; 0: none of its rows sees a key of the block. */
static int tile_scores(struct forward_item *t, const struct forward_range *range, int64_t i,
                       struct forward_tile *tile)
{
    const struct forward_scratch *w = &t->scratch;
    if (!forward_place_tile(t, range, i, tile)) return 0;
    t->kernels->qk(w->s, t->plan->key_block, t->q + tile->r0 * t->q_stride, t->q_stride,
                   w->k_panels, tile->rows, t->problem->qk_channels, tile->first, tile->last);
    if (t->score_options) apply_score_options(t, tile);
    return 1;
}

/* One tile of rows against the packed block. The first block that a tile sees sets o, later ones
 * add to it. */
static void attend_tile(struct forward_item *t, const struct forward_range *range, int64_t i)
{
    struct forward_scratch *w = &t->scratch;
    const struct cpu_plan *plan = t->plan;
    struct forward_tile tile;
    if (!tile_scores(t, range, i, &tile)) return;
    if (t->unusual_count) forward_note_seen(t, &tile);
    int64_t channels = t->problem->v_channels;
    float *o = w->o + tile.r0 * w->o_stride;
    struct cpu_softmax_tile softmax = {.s = w->s,
                                       .stride = plan->key_block,
                                       .rows = tile.rows,
                                       .first = tile.first,
                                       .last = tile.last,
                                       .row_first = tile.row_first,
                                       .row_last = tile.row_last,
                                       .scale = t->exponent_scale,
                                       .m = w->m + tile.r0,
                                       .l = w->l + tile.r0,
                                       .o = o,
                                       .o_stride = w->o_stride,
                                       .channels = channels};
    t->kernels->softmax(&softmax);
    t->kernels->pv(o, w->o_stride, w->s, plan->key_block, w->v_panels, plan->key_block, tile.rows,
                   channels, tile.first, tile.last, w->tile_low[i] < range->key0);
    if (t->unusual_count) forward_add_unusual(t, &tile, NULL);
}

static void attend(struct forward_item *t)
{
    int64_t keys = t->plan->key_block;
    for (int64_t key0 = t->low / keys * keys; key0 < t->high; key0 += keys) {
        struct forward_range range = forward_block_range(t, key0);
        forward_pack_keys(t, &range);
        forward_pack_values(t, &range);
        for (int64_t i = 0; i < t->tiles; i++) attend_tile(t, &range, i);
    }
}

/* The same, the last block first. */
static void attend_pipelined(struct forward_item *t)
{
    int64_t keys = t->plan->key_block;
    if (!t->high) return;
    if (t->score_options) forward_place_options(t);
    for (int64_t key0 = (t->high - 1) / keys * keys; key0 > t->low - keys; key0 -= keys) {
        struct forward_range range = forward_block_range(t, key0);
        forward_pack_keys(t, &range);
        forward_pack_values(t, &range);
        forward_pipelined(t, &range);
    }
}

/* ---- Results ---- */

static double sink_of(const struct forward_item *t, int64_t r)
{
    return head_value(&t->call->a->sink, t->sequence.index, t->scratch.head[r], -INFINITY);
}

static int sees_key(const struct forward_item *t, int64_t r)
{
    const struct forward_scratch *w = &t->scratch;
    const unsigned char *mask = forward_operand(t, &t->call->a->mask, r, 0);
    int64_t stride = t->call->a->mask.stride[3], j = w->first[r];
    while (mask && j < w->last[r] && !mask[j * stride]) j++;
    return j < w->last[r];
}

/* Whether no value counts: a row sees no key, or its scores are all -inf. Beside a sink, which has
 * all the weight then, values count times 0. */
static int is_empty(const struct forward_item *t, int64_t r)
{
    return t->scratch.l[r] == 0 && (sink_of(t, r) == -INFINITY || !sees_key(t, r));
}

/* From m (in units of s) and l of row r: the factor of its o, and its log-sum-exp. The sink comes
 * in here, once. */
static double finish_row(struct forward_item *t, int64_t r)
{
    struct forward_scratch *w = &t->scratch;
    double l = w->l[r], m = l == 0 || w->m[r] == -INFINITY
                                ? -INFINITY
                                : w->m[r] * (t->score_options ? 1 : fabs(t->call->a->scale));
    double sink = sink_of(t, r);
    if (sink != -INFINITY) {
        double top = m > sink ? m : sink, share = exp(m - top), total = l * share + exp(sink - top);
        if (l != l) total = l;
        w->factor[r] = is_empty(t, r) || (l == 0 && sink < INFINITY) ? 0 : (float)(share / total);
        return top + log(total);
    }
    w->factor[r] = l == 0 ? 0 : (float)(1 / l);
    if (l == 0) return -INFINITY;
    return (l != l ? 0 : m) + (t->call->a->lse.dtype ? log(l) : 0);
}

/* Normalises and writes out and lse of each row; a row without weights gives exactly 0. */
static void finish(struct forward_item *t)
{
    struct forward_scratch *w = &t->scratch;
    const rapt_attention *a = t->call->a;
    int64_t channels = t->problem->v_channels;
    for (int64_t r = 0; r < t->rows; r++) {
        float *o = w->o + r * w->o_stride, *lse = a->lse.dtype ? forward_row(t, &a->lse, r) : NULL;
        double value = finish_row(t, r);
        if (is_empty(t, r)) memset(o, 0, (size_t)channels * sizeof *o);
        t->kernels->store_row(forward_row_ahead(t, &a->out, r), a->out.dtype, a->out.stride[3], o,
                              w->factor[r], channels);
        if (lse) *lse = (float)value;
    }
}

/* ---- Weights: a second pass with the final m and sum ---- */

/* A row whose sum is NaN: every key it sees has weight NaN, and a key that the mask hides still has
 * 0. */
static void spoiled_weights(const struct forward_item *t, int64_t r, int64_t key0, float *s,
                            int64_t first, int64_t last)
{
    const unsigned char *mask = forward_operand(t, &t->call->a->mask, r, key0);
    int64_t stride = t->call->a->mask.stride[3];
    for (int64_t j = first; j < last; j++) s[j] = mask && !mask[j * stride] ? 0 : NAN;
}

static void clear_weights(const struct forward_item *t)
{
    const rapt_tensor *weights = &t->call->a->weights;
    for (int64_t r = 0; r < t->rows; r++) {
        void *row = forward_row(t, weights, r);
        for (int64_t j = 0; j < weights->size[3]; j++)
            store_float(row, weights->dtype, j * weights->stride[3], 0);
    }
}

static void store_tile_weights(const struct forward_item *t, const struct forward_tile *tile)
{
    const struct forward_scratch *w = &t->scratch;
    const rapt_tensor *weights = &t->call->a->weights;
    int64_t size = (int64_t)dtype_size(weights->dtype);
    for (int64_t i = 0; i < tile->rows; i++) {
        int64_t r = tile->r0 + i, first = max64(tile->row_first[i], tile->first);
        int64_t last = min64(tile->row_last[i], tile->last);
        if (last <= first || (w->l[r] == 0 && w->factor[r] == w->factor[r])) continue;
        float *s = w->s + i * t->plan->key_block, m = w->m[r] == -INFINITY ? 0 : w->m[r];
        if (w->factor[r] == w->factor[r])
            t->kernels->weights(s, first, last, t->exponent_scale, m, w->factor[r]);
        else spoiled_weights(t, r, tile->key0, s, first, last);
        char *row = forward_row(t, weights, r);
        t->kernels->store_row(row + (tile->key0 + first) * weights->stride[3] * size,
                              weights->dtype, weights->stride[3], s + first, 1, last - first);
    }
}

static void write_weights(struct forward_item *t)
{
    int64_t keys = t->plan->key_block;
    struct forward_tile tile;
    clear_weights(t);
    for (int64_t key0 = t->low / keys * keys; key0 < t->high; key0 += keys) {
        struct forward_range range = forward_block_range(t, key0);
        forward_pack_keys(t, &range);
        for (int64_t i = 0; i < t->tiles; i++)
            if (tile_scores(t, &range, i, &tile)) store_tile_weights(t, &tile);
    }
}

/* ---- All items over the threads ---- */

struct forward_job {
    const struct cpu_call *call;
    const struct forward_unit *table;
    int64_t units, items;
    char *scratch;
    atomic_int_fast64_t next;
};

static void run_item(struct forward_item *t, struct forward_block block)
{
    const struct problem *p = t->problem;
    t->sequence = sequence_at(t->call, block.sequence);
    t->kv_head = block.kv_head;
    t->row0 = block.row0;
    t->rows = min64(t->plan->row_block, t->sequence.q_length * p->group - block.row0);
    t->tiles = (t->rows + t->plan->tile_rows - 1) / t->plan->tile_rows;
    forward_place_rows(t);
    forward_load_queries(t);
    if (t->plan->pipeline) attend_pipelined(t);
    else attend(t);
    finish(t);
    if (t->call->a->weights.dtype) write_weights(t);
}

static void work(void *argument, int64_t slot)
{
    struct forward_job *job = argument;
    const struct cpu_call *call = job->call;
    const rapt_attention *a = call->a;
    struct forward_item item = {
        .call = call, .problem = call->problem, .plan = call->plan, .kernels = call->plan->kernels};
    struct arena arena = {job->scratch + (size_t)slot * call->plan->scratch_bytes, 0};
    scratch_lay_out(&item.scratch, call->problem, call->plan, &arena);
    item.score_options = cpu_has_score_options(a);
    item.exponent_scale = cpu_exponent_scale(a);
    int64_t i;
    while ((i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->items)
        run_item(&item, forward_item_at(call, job->table, job->units, i));
}

void forward_run(const struct cpu_call *call)
{
    struct arena arena = {call->workspace, 0};
    struct forward_unit *table =
        take(&arena, forward_count_units(call->problem, call->plan), sizeof *table);
    struct forward_job job = {
        .call = call, .table = table, .scratch = call->workspace + arena.used};
    job.units = forward_sort_units(call, table, &job.items);
    atomic_init(&job.next, 0);
    int64_t slots = min64(call->plan->slots, job.items);
    pool_run(call->pool, slots, cpu_threads_worth_waking(call->problem, call->plan), work, &job);
}
