/* decode_item.c: one item of decode: some query rows of each of its heads against one chunk of keys.
 *
 * decode_run_item walks over the chunk in blocks (decode_keys.c finds their addresses, one block ahead). attend_block
 * takes one: the scores of all heads, then all softmaxes, then all values, so that each of K and V is read in one go.
 * Where the level can, several heads go by in one call, in the order of memory; else the keys go by in windows, each
 * for all heads: what is asked for a whole block ahead comes more slowly (bench/notes/cpu.md). Each head's o, m and l
 * grow in its partial result, which decode.c merges. */
#include "base/dtype.h"
#include "cpu/decode_keys.h"
#include "cpu/decode_kernels.h"

#include <math.h>
#include <string.h>

/* ---- What an item works with ---- */

/* In 4-byte units; whole cache lines, so that kernels may read full vectors. */
static int64_t q_stride(const struct problem *p, const struct cpu_kernels *k)
{
    if (k->decode_q) return decode_q_words(p->qk_channels);
    return round_up((p->qk_channels + k->pair - 1) / k->pair, 16);
}

static struct decode_table take_table(struct arena *arena, const struct cpu_plan *plan)
{
    struct decode_table table = {.row = take(arena, plan->decode_block, sizeof(void *))};
    table.scale = take(arena, plan->decode_block, sizeof(void *));
    return table;
}

void decode_lay_out_scratch(struct decode_scratch *w, const struct problem *p,
                            const struct cpu_plan *plan, struct arena *arena)
{
    int64_t rows = p->ragged_q ? DECODE_ROWS_MAX : p->q_tokens * p->group;
    w->q = take(arena, plan->decode_heads * rows * q_stride(p, plan->kernels), 4);
    w->s = take(arena, plan->decode_heads * rows * decode_score_stride(plan), sizeof(float));
    for (int i = 0; i < 2; i++) {
        w->k[i] = take_table(arena, plan);
        w->v[i] = take_table(arena, plan);
    }
    w->of_head = take_table(arena, plan);
    w->first = take(arena, DECODE_ROWS_MAX, sizeof(int64_t));
    w->last = take(arena, DECODE_ROWS_MAX, sizeof(int64_t));
}

/* One head of an item. */
struct head {
    int64_t number; /* within the item */
    const void *q;
    float *s, *o, *m, *l;
};

static struct head head_at(const struct decode_item *t, int64_t number)
{
    int64_t width = t->job->width, q_bytes = t->rows * q_stride(t->problem, t->kernels) * 4;
    float *partial = t->partial + number * t->partial_step;
    return (struct head){.number = number,
                         .q = (const char *)t->scratch.q + number * q_bytes,
                         .s = t->scratch.s + number * t->rows * decode_score_stride(t->plan),
                         .o = partial,
                         .m = partial_m(partial, t->rows, width),
                         .l = partial_l(partial, t->rows, width)};
}

/* Rows of q and the keys that they see. */
static void load_queries(struct decode_item *t)
{
    const struct problem *p = t->problem;
    const rapt_attention *a = t->call->a;
    int64_t stride = q_stride(p, t->kernels), heads = t->plan->decode_heads;
    char *q = t->scratch.q;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t r = 0; r < t->rows; r++, q += stride * 4) {
            const void *row = query_row(t->call, &a->q, &t->sequence,
                                        decode_query_head(t, t->kv_head + h, r), r / p->group);
            t->kernels->pack_q(q, row, a->q.dtype, a->q.stride[3], p->qk_channels,
                               a->scale < 0 ? -1 : 1);
        }
    if (t->kernels->decode_q)
        t->kernels->decode_q(t->scratch.q, stride, heads * t->rows, p->qk_channels);
    for (int64_t r = 0; r < t->rows; r++)
        visible_keys(p, r / p->group, t->sequence.q_length, t->sequence.kv_length,
                     &t->scratch.first[r], &t->scratch.last[r]);
    t->loaded = t->split;
    t->loaded_head = t->kv_head;
}

static void clear_partial(const struct decode_item *t)
{
    int64_t width = t->job->width;
    float *partial = t->partial;
    for (int64_t h = 0; h < t->plan->decode_heads; h++, partial += t->partial_step) {
        for (int64_t r = 0; r < t->rows; r++) {
            partial_m(partial, t->rows, width)[r] = -INFINITY;
            partial_l(partial, t->rows, width)[r] = 0;
        }
        memset(partial, 0, (size_t)(t->rows * width) * sizeof *partial);
    }
}

/* ---- One head of a block ---- */

/* Softcap and ALiBi: then s is a natural logit. */
static void apply_score_options(const struct decode_item *t, const struct decode_block *b,
                                const struct head *h)
{
    const rapt_attention *a = t->call->a;
    const struct problem *p = t->problem;
    const struct cpu_sequence *s = &t->sequence;
    struct cpu_score_row row = {.scale = (float)fabs(a->scale), .softcap = (float)a->softcap};
    for (int64_t r = 0; r < t->rows; r++) {
        row.slope = head_value(&a->alibi_slope, s->index,
                               decode_query_head(t, t->kv_head + h->number, r), 0);
        row.position = query_position(p, r / p->group, s->q_length, s->kv_length) - b->key0;
        t->kernels->score(h->s + r * decode_score_stride(t->plan), &row, b->first, b->last);
    }
}

static void softmax_rows(const struct decode_item *t, const struct decode_block *b,
                         const struct head *h)
{
    int64_t tile = t->kernels->row_tile, row_first[ROW_TILE_MAX], row_last[ROW_TILE_MAX],
            stride = decode_score_stride(t->plan);
    for (int64_t r0 = 0; r0 < t->rows; r0 += tile) {
        int64_t rows = min64(tile, t->rows - r0);
        for (int64_t i = 0; i < rows; i++) {
            row_first[i] = min64(max64(t->scratch.first[r0 + i] - b->key0, b->first), b->last);
            row_last[i] = max64(min64(t->scratch.last[r0 + i] - b->key0, b->last), row_first[i]);
        }
        struct cpu_softmax_tile softmax = {
            .s = h->s + r0 * stride,
            .stride = stride,
            .rows = rows,
            .first = b->first / t->kernels->column_tile * t->kernels->column_tile,
            .last = b->last,
            .row_first = row_first,
            .row_last = row_last,
            .scale = t->job->exponent_scale,
            .m = h->m + r0,
            .l = h->l + r0,
            .o = h->o + r0 * t->job->width,
            .o_stride = t->job->width,
            .channels = round_up(t->problem->v_channels, t->kernels->column_tile)};
        t->kernels->softmax(&softmax);
    }
}

/* Queries that see different parts of a block take their own keys alone: a hidden value must not be
 * touched, and 0 * NaN would be. The neighbours that an even start or end takes in are set aside. */
static void add_values_by_query(const struct decode_item *t, const struct decode_block *b,
                                const struct head *h, const struct cpu_rows *v, const void **row)
{
    int64_t group = t->problem->group, width = t->job->width, stride = decode_score_stride(t->plan);
    for (int64_t r = 0; r < t->rows; r += group) {
        int64_t first = max64(t->scratch.first[r] - b->key0, b->first),
                last = min64(t->scratch.last[r] - b->key0, b->last);
        if (last <= first) continue;
        int64_t even = first & ~(int64_t)1, odd = last % 2 ? last : even;
        const void *before = row[even], *after = row[odd];
        if (even < first) row[even] = NULL;
        if (odd == last) row[odd] = NULL;
        t->kernels->decode_pv(h->o + r * width, width, h->s + r * stride, stride, v, group,
                              t->problem->v_channels, even, last, NULL);
        row[odd] = after;
        row[even] = before;
    }
}

/* ---- A block ---- */

/* Whether each call takes all heads. */
static int in_order(const struct decode_item *t)
{
    return t->plan->decode_in_order && t->rows <= DECODE_HEADS_ROWS;
}

static void find_scores_in_order(const struct decode_item *t, const struct decode_side *k,
                                 const struct decode_side *v)
{
    const struct decode_block *b = k->block;
    const void *run[DECODE_RUNS_MAX];
    struct head h = head_at(t, 0);
    struct cpu_heads heads = decode_heads_of(t, k, b->first, DECODE_HEADS_SCORES);
    struct cpu_rows rows = decode_rows_of(t, k, k->table);
    struct cpu_ahead ahead = decode_block_ahead(t, k, v, run);
    t->kernels->decode_qk_heads(
        h.s, decode_score_stride(t->plan), h.q, q_stride(t->problem, t->kernels), &rows, &heads,
        t->rows, t->problem->qk_channels, b->first, b->last, ahead.bytes ? &ahead : NULL);
}

static void add_values_in_order(const struct decode_item *t, const struct decode_side *v,
                                const struct decode_side *next_k)
{
    const struct decode_block *b = v->block;
    const void *run[DECODE_RUNS_MAX];
    struct head h = head_at(t, 0);
    int64_t first = b->first & ~(int64_t)1;
    struct cpu_heads heads = decode_heads_of(t, v, first, DECODE_HEADS_KEYS);
    struct cpu_rows rows = decode_rows_of(t, v, v->table);
    struct cpu_ahead ahead = decode_block_ahead(t, v, next_k, run);
    t->kernels->decode_pv_heads(h.o, t->job->width, h.s, decode_score_stride(t->plan), &rows,
                                &heads, t->rows, t->problem->v_channels, first, b->last,
                                ahead.bytes ? &ahead : NULL);
}

static void find_scores(const struct decode_item *t, const struct decode_block *b)
{
    const struct problem *p = t->problem;
    struct decode_side k = decode_keys_of(t, b), v = decode_values_of(t, b);
    if (in_order(t)) {
        find_scores_in_order(t, &k, &v);
        return;
    }
    const void *run[DECODE_RUNS_MAX];
    for (int64_t first = b->first, end; first < b->last; first = end) {
        end = decode_window_end(t, b, first);
        for (int64_t n = 0; n < t->plan->decode_heads; n++) {
            struct head h = head_at(t, n);
            struct decode_table own = decode_table_of(t, &k, n, first, end);
            struct cpu_rows rows = decode_rows_of(t, &k, &own);
            struct cpu_ahead ahead = decode_ahead(t, &k, &v, end, n, run);
            t->kernels->decode_qk(h.s, decode_score_stride(t->plan), h.q, q_stride(p, t->kernels),
                                  &rows, t->rows, p->qk_channels, first, end,
                                  ahead.bytes ? &ahead : NULL);
        }
    }
}

static void add_values(const struct decode_item *t, const struct decode_block *b,
                       const struct decode_block *next)
{
    struct decode_side v = decode_values_of(t, b), next_k = decode_keys_of(t, next);
    if (b->uniform && in_order(t)) {
        add_values_in_order(t, &v, &next_k);
        return;
    }
    int64_t channels = t->problem->v_channels, width = t->job->width,
            stride = decode_score_stride(t->plan);
    const void *run[DECODE_RUNS_MAX];
    for (int64_t first = b->first & ~(int64_t)1, end; first < b->last; first = end) {
        end = b->uniform ? decode_window_end(t, b, first) : b->last;
        for (int64_t n = 0; n < t->plan->decode_heads; n++) {
            struct head h = head_at(t, n);
            struct decode_table own = decode_table_of(t, &v, n, first, end);
            struct cpu_rows rows = decode_rows_of(t, &v, &own);
            struct cpu_ahead ahead = decode_ahead(t, &v, &next_k, end, n, run);
            if (b->uniform)
                t->kernels->decode_pv(h.o, width, h.s, stride, &rows, t->rows, channels, first, end,
                                      ahead.bytes ? &ahead : NULL);
            else add_values_by_query(t, b, &h, &rows, own.row);
        }
    }
}

/* Tells the level what is next, where it wants to know. */
static void prepare(const struct decode_item *t, enum decode_stage stage, int64_t rows,
                    int64_t channels)
{
    if (t->kernels->decode_stage) t->kernels->decode_stage(stage, rows, channels);
}

static void attend_block(const struct decode_item *t, const struct decode_block *b,
                         const struct decode_block *next)
{
    const struct problem *p = t->problem;
    int64_t rows_of_values = b->uniform ? t->rows : p->group;
    prepare(t, DECODE_SCORES, t->rows, p->qk_channels);
    find_scores(t, b);
    for (int64_t n = 0; n < t->plan->decode_heads; n++) {
        struct head h = head_at(t, n);
        if (t->job->score_options) apply_score_options(t, b, &h);
        softmax_rows(t, b, &h);
    }
    prepare(t, DECODE_VALUES, rows_of_values, p->v_channels);
    add_values(t, b, next);
    prepare(t, DECODE_DONE, rows_of_values, p->v_channels);
}

void decode_run_item(struct decode_item *t, int64_t low, int64_t high)
{
    clear_partial(t);
    if (high <= low) return;
    if (t->loaded != t->split || t->loaded_head != t->kv_head) load_queries(t);
    int turn = 0;
    struct decode_block b = decode_block_at(t, low / DECODE_BLOCK * DECODE_BLOCK, low, high, turn);
    for (;;) {
        int64_t end = min64(b.key0 + b.keys, high);
        int more = end < high;
        turn = !turn;
        struct decode_block next = decode_block_at(t, end, low, more ? high : t->ahead, turn);
        attend_block(t, &b, &next);
        if (!more) return;
        b = next;
    }
}
