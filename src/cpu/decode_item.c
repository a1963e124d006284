/* decode_item.c: one item of decode: some query rows against one chunk of keys, in blocks.
 *
 * Memory is read in its own order. Where the KV heads of a token lie side by side, an item holds as
 * many heads as make long runs, takes a window of a block's keys for all of them, and meanwhile asks
 * for the next window, token by token, into the second cache; where memory has no gaps, for what
 * lies as far on as that and FURTHER, or as the CPU's row of cpu_requests says. */
#include "base/dtype.h"
#include "cpu/decode.h"
#include "cpu/decode_kernels.h"

#include <math.h>
#include <string.h>

enum {
    /* Bytes of K or V past the next window: of what is asked for one window ahead, some is still on
     * its way when it is needed. */
    FURTHER = 4 << 10,
    RUNS_MAX =
        2 * (DECODE_BLOCK_MAX / DECODE_PAGE_MIN + 1) /* of a block, and of what is read next */
};

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

/* One pass: keys key0 + first ... key0 + last - 1 of all heads; first >= last: none. The next one begins at
 * key0 + keys. */
struct block {
    int64_t key0, keys, first, last;
    int uniform; /* every row sees all of them */
    int stepped; /* the tables have the keys alone at which a window may begin */
    const struct decode_table *k, *v;
};

/* One head of an item. */
struct head {
    int64_t number; /* within the item */
    const void *q;
    float *s, *o, *m, *l;
};

static struct head head_at(const struct decode_item *t, int64_t number)
{
    int64_t width = t->job->width, q_bytes = t->rows * q_stride(t->call->problem, t->kernels) * 4;
    float *partial = t->partial + number * t->partial_step;
    return (struct head){.number = number,
                         .q = (const char *)t->scratch.q + number * q_bytes,
                         .s = t->scratch.s + number * t->rows * decode_score_stride(t->call->plan),
                         .o = partial,
                         .m = partial_m(partial, t->rows, width),
                         .l = partial_l(partial, t->rows, width)};
}

/* Rows of q and the keys that they see. */
static void load_queries(struct decode_item *t)
{
    const struct problem *p = t->call->problem;
    const rapt_attention *a = t->call->a;
    int64_t stride = q_stride(p, t->kernels), heads = t->call->plan->decode_heads;
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
    t->loaded = t->table;
    t->loaded_head = t->kv_head;
}

static void clear_partial(const struct decode_item *t)
{
    int64_t width = t->job->width;
    float *partial = t->partial;
    for (int64_t h = 0; h < t->call->plan->decode_heads; h++, partial += t->partial_step) {
        for (int64_t r = 0; r < t->rows; r++) {
            partial_m(partial, t->rows, width)[r] = -INFINITY;
            partial_l(partial, t->rows, width)[r] = 0;
        }
        memset(partial, 0, (size_t)(t->rows * width) * sizeof *partial);
    }
}

/* ---- Where keys lie ---- */

static int64_t window_end(const struct decode_item *t, const struct block *b, int64_t first)
{
    int64_t keys = t->call->plan->decode_window;
    return min64(first / keys * keys + keys, b->last);
}

/* Of windows that have gaps each row is asked for by itself (ahead_of). */
static void fill_stepped(const struct decode_item *t, const rapt_tensor *tensor,
                         const struct block *b, const struct decode_table *table)
{
    if (!decode_gapless(t->call->problem, tensor, t->call->plan->decode_heads))
        key_rows(t->call, tensor, &t->sequence, t->kv_head, b->key0, b->first, b->last, table->row,
                 NULL);
    for (int64_t j = b->first; j < b->last; j = window_end(t, b, j))
        key_rows(t->call, tensor, &t->sequence, t->kv_head, b->key0, j, j + 1, table->row,
                 table->scale);
}

static void fill_table(const struct decode_item *t, const rapt_tensor *tensor,
                       const struct block *b, const struct decode_table *table)
{
    if (b->stepped) {
        fill_stepped(t, tensor, b, table);
        return;
    }
    for (int64_t j = 0; j < b->first; j++) table->row[j] = NULL;
    for (int64_t j = b->last; j < round_up(b->last, DECODE_BLOCK); j++) table->row[j] = NULL;
    key_rows(t->call, tensor, &t->sequence, t->kv_head, b->key0, b->first, b->last, table->row,
             tensor->dtype == RAPT_I8 ? table->scale : NULL);
}

/* Floats so many apart on one line. */
static int64_t rows_of_line(int64_t stride)
{
    enum { FLOATS = FETCH_LINE / sizeof(float) };
    return stride > 0 && stride < FLOATS ? FLOATS / stride : 1;
}

/* The scales of a block's rows, for all heads of the item. Few bytes of the whole, but a kernel that
 * found them in memory would wait for each line. */
static void ask_for_scales(const struct decode_item *t, const rapt_tensor *scales,
                           const struct block *b, const struct decode_table *table)
{
    enum { READ = 0, SECOND_CACHE = 2 };
    int64_t keys = rows_of_line(scales->stride[2]), heads = rows_of_line(scales->stride[1]);
    for (int64_t h = 0; h < t->call->plan->decode_heads; h += heads)
        for (int64_t c = 0; c < scales->size[3]; c += FETCH_LINE / (int64_t)sizeof(float))
            for (int64_t j = b->first; j < b->last; j += keys) {
                const float *key = b->stepped
                                       ? table->scale[b->first] + (j - b->first) * scales->stride[2]
                                       : table->scale[j];
                __builtin_prefetch(key + h * scales->stride[1] + c, READ, SECOND_CACHE);
            }
}

/* Keys from key0 on, low ... high - 1 of them, as long as every row sees all of them or the block is the
 * shortest. */
static struct block block_at(const struct decode_item *t, int64_t key0, int64_t low, int64_t high,
                             int turn)
{
    struct block b = {.key0 = key0,
                      .keys = t->call->plan->decode_block,
                      .first = max64(low - key0, 0),
                      .k = &t->scratch.k[turn],
                      .v = &t->scratch.v[turn]};
    for (;; b.keys = DECODE_BLOCK) {
        b.last = min64(high - key0, b.keys);
        b.uniform = 1;
        for (int64_t r = 0; r < t->rows; r++)
            if (t->scratch.first[r] > key0 + b.first || t->scratch.last[r] < key0 + b.last)
                b.uniform = 0;
        if (b.uniform || b.keys == DECODE_BLOCK) break;
    }
    if (b.first >= b.last) return b;
    b.stepped = t->call->plan->decode_steps && b.uniform && b.first % 2 == 0;
    fill_table(t, &t->call->a->k, &b, b.k);
    fill_table(t, &t->call->a->v, &b, b.v);
    if (t->call->a->k.dtype == RAPT_I8) ask_for_scales(t, &t->call->a->k_scale, &b, b.k);
    if (t->call->a->v.dtype == RAPT_I8) ask_for_scales(t, &t->call->a->v_scale, &b, b.v);
    return b;
}

/* Addresses of keys first ... last - 1 of an item's head, from those of its first one. */
static struct decode_table table_of(const struct decode_item *t, const rapt_tensor *tensor,
                                    const rapt_tensor *scales, const struct block *b,
                                    const struct decode_table *table, int64_t head, int64_t first,
                                    int64_t last)
{
    struct decode_table to = t->scratch.of_head;
    int64_t step = head * tensor->stride[1] * (int64_t)dtype_size(tensor->dtype),
            scale_step = head * scales->stride[1];
    if (!head) return *table;
    if (first < b->first) to.row[first++] = NULL;
    if (b->stepped) last = first + 1;
    for (int64_t j = first; j < last; j++) to.row[j] = (const char *)table->row[j] + step;
    if (tensor->dtype == RAPT_I8)
        for (int64_t j = first; j < last; j++) to.scale[j] = table->scale[j] + scale_step;
    return to;
}

/* Of keys without gaps: bytes [from, from + bytes) past the first of a window, and FURTHER on, up to
 * the last key of the thread; on a CPU that asks for lines twice, those of the window itself then come
 * into the first cache. */
static struct cpu_ahead further_ahead(const struct decode_item *t, const struct block *b,
                                      const struct decode_table *table, int64_t key_bytes,
                                      int64_t from, int64_t bytes)
{
    int64_t end = (t->ahead - b->key0 - b->first) * key_bytes,
            again = t->call->plan->requests->again;
    from += FURTHER;
    if (from >= end) return (struct cpu_ahead){0};
    bytes = min64(bytes, end - from);
    return (struct cpu_ahead){.run = table->row + b->first,
                              .run_bytes = from + bytes,
                              .skip = from,
                              .bytes = bytes,
                              .again = again < 0 ? -FURTHER : again};
}

/* A blocked cache holds whole blocks in one piece; an item has one head of it. */
static struct cpu_ahead blocks_ahead(const struct block *b, const struct decode_table *table,
                                     int64_t key_bytes)
{
    int64_t bytes = (round_up(b->last, RAPT_KV_BLOCK) - b->first) * key_bytes;
    if (b->first % RAPT_KV_BLOCK) return (struct cpu_ahead){0};
    return (struct cpu_ahead){.run = table->row + b->first,
                              .run_step = RAPT_KV_BLOCK,
                              .run_bytes = RAPT_KV_BLOCK * key_bytes,
                              .bytes = bytes};
}

/* What table_of has. */
static struct cpu_rows rows_of(const struct decode_item *t, const rapt_tensor *tensor,
                               const rapt_tensor *scales, const struct block *b,
                               const struct decode_table *table)
{
    struct cpu_rows rows = rows_behind(t->call, tensor, table->row, table->scale);
    if (!b->stepped) return rows;
    rows.step = tensor->stride[2] * (int64_t)dtype_size(tensor->dtype);
    rows.scale_step = scales->stride[2] * (int64_t)sizeof(float);
    return rows;
}

/* Keys first ... last - 1 of a block, no more of them than a window has. */
static struct block window_of(const struct decode_item *t, const struct block *b, int64_t first)
{
    struct block part = *b;
    part.first = max64(first, b->first);
    part.last = min64(part.first + t->call->plan->decode_window, b->last);
    return part;
}

/* Head h's share of a window's rows, in the order of memory. */
static struct cpu_ahead ahead_of(const struct decode_item *t, const rapt_tensor *tensor,
                                 const struct block *b, const struct decode_table *table, int64_t h)
{
    int64_t size = (int64_t)dtype_size(tensor->dtype), keys = b->last - b->first,
            heads = t->call->plan->decode_heads;
    int64_t run = ((heads - 1) * tensor->stride[1] + tensor->size[3]) * size;
    if (keys <= 0 || run <= 0) return (struct cpu_ahead){0};
    if (t->call->a->kv_layout == RAPT_KV_BLOCKED)
        return blocks_ahead(b, table, tensor->size[3] * size);
    if (tensor->stride[3] != 1) return (struct cpu_ahead){0};
    int64_t share = keys * run / heads, before = h * share;
    if (tensor->stride[2] * size == run && !t->call->problem->page_tokens)
        return further_ahead(t, b, table, run, before, share);
    return (struct cpu_ahead){.run = table->row + b->first + before / run,
                              .run_step = 1,
                              .run_bytes = run,
                              .skip = before % run,
                              .bytes = share};
}

/* Heads together: keys of each head in turn, from tokens of so many bytes. */
static int64_t keys_in_turn(const struct decode_item *t, int64_t token)
{
    const struct cpu_requests *requests = t->call->plan->requests;
    if (t->kernels->decode_keys) return t->kernels->decode_keys;
    return min64(max64(requests->span / max64(token, 1) / 2 * 2, 2), DECODE_HEADS_KEYS);
}

/* Where the block's first key lies in its page. */
static int64_t in_page(const struct decode_item *t, const struct block *b)
{
    int64_t page = t->call->problem->page_tokens;
    return page ? (b->key0 + b->first) % page : 0;
}

/* The runs of a block that begin before key end, from the page of its first key on; returns how many. */
static int64_t runs_of(const struct decode_item *t, const struct block *b,
                       const struct decode_table *table, int64_t key, int64_t end, const void **run)
{
    int64_t page = t->call->problem->page_tokens, start = in_page(t, b), count = 1, back = start;
    /* Within a block of a blocked cache keys do not follow each other: its beginning is near enough. */
    if (t->call->a->kv_layout == RAPT_KV_BLOCKED) back -= start % RAPT_KV_BLOCK;
    run[0] = (const char *)table->row[b->first] - back * key;
    if (page)
        for (int64_t j = b->first - start + page; j < end; j += page) run[count++] = table->row[j];
    return count;
}

/* How far ahead lines are asked for: of several heads, ahead of the last of the keys that are taken in turn. */
static int64_t distance_of(const struct decode_item *t, int64_t key)
{
    const struct cpu_requests *requests = t->call->plan->requests;
    if (t->call->plan->decode_heads > 1)
        return (keys_in_turn(t, key) - 1) * key / FETCH_LINE * FETCH_LINE + requests->span / 2;
    return t->call->problem->page_tokens ? requests->span : requests->ahead;
}

/* Before a page lies another one, so there lines are asked for twice at once. */
static int64_t again_of(const struct decode_item *t)
{
    const struct cpu_requests *requests = t->call->plan->requests;
    if (!t->call->problem->page_tokens)
        return t->call->plan->decode_heads > 1 ? requests->span_again : requests->again;
    return min64(requests->span_again, 0);
}

/* While a whole block is read: its lines, some way ahead, then as many of what is read next. A run is a page,
 * or the whole block; runs of what is next follow where this block ends with one and that begins with one. */
static struct cpu_ahead near_ahead(const struct decode_item *t, const rapt_tensor *tensor,
                                   const struct block *b, const struct decode_table *table,
                                   const rapt_tensor *other, const struct block *next,
                                   const struct decode_table *other_table, const void **run)
{
    const struct problem *p = t->call->problem;
    int64_t heads = t->call->plan->decode_heads, key = decode_gapless(p, tensor, heads),
            other_key = decode_gapless(p, other, heads), bytes = (b->last - b->first) * key,
            run_bytes = p->page_tokens ? p->page_tokens * key : bytes,
            distance = distance_of(t, key), skip = min64(distance, bytes),
            start = in_page(t, b) * key,
            more = min64(distance_of(t, other_key), (next->last - next->first) * other_key),
            count = runs_of(t, b, table, key, b->last, run);
    if (p->page_tokens && (key != other_key || (start + bytes) % run_bytes || in_page(t, next)))
        more = 0;
    if (!p->page_tokens) more = min64(more, bytes);
    if (more > 0)
        runs_of(t, next, other_table, other_key, next->first + (more + other_key - 1) / other_key,
                run + count);
    skip += start;
    return (struct cpu_ahead){.run = run + skip / run_bytes,
                              .run_step = 1,
                              .run_bytes = run_bytes,
                              .skip = skip % run_bytes,
                              .bytes = start + bytes - skip + max64(more, 0),
                              .again = again_of(t)};
}

/* ---- One head of a block ---- */

/* Softcap and ALiBi: then s is a natural logit. */
static void apply_score_options(const struct decode_item *t, const struct block *b,
                                const struct head *h)
{
    const rapt_attention *a = t->call->a;
    const struct problem *p = t->call->problem;
    const struct cpu_sequence *s = &t->sequence;
    struct cpu_score_row row = {.scale = (float)fabs(a->scale), .softcap = (float)a->softcap};
    for (int64_t r = 0; r < t->rows; r++) {
        row.slope = head_value(&a->alibi_slope, s->index,
                               decode_query_head(t, t->kv_head + h->number, r), 0);
        row.position = query_position(p, r / p->group, s->q_length, s->kv_length) - b->key0;
        t->kernels->score(h->s + r * decode_score_stride(t->call->plan), &row, b->first, b->last);
    }
}

static void softmax_rows(const struct decode_item *t, const struct block *b, const struct head *h)
{
    int64_t tile = t->kernels->row_tile, row_first[ROW_TILE_MAX], row_last[ROW_TILE_MAX],
            stride = decode_score_stride(t->call->plan);
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
            .channels = round_up(t->call->problem->v_channels, t->kernels->column_tile)};
        t->kernels->softmax(&softmax);
    }
}

/* Queries that see different parts of a block take their own keys alone: a hidden value must not be
 * touched, and 0 * NaN would be. The neighbours that an even start or end takes in are set aside.
 */
static void add_values_by_query(const struct decode_item *t, const struct block *b,
                                const struct head *h, const struct cpu_rows *v, const void **row)
{
    int64_t group = t->call->problem->group, width = t->job->width,
            stride = decode_score_stride(t->call->plan);
    for (int64_t r = 0; r < t->rows; r += group) {
        int64_t first = max64(t->scratch.first[r] - b->key0, b->first),
                last = min64(t->scratch.last[r] - b->key0, b->last);
        if (last <= first) continue;
        int64_t even = first & ~(int64_t)1, odd = last % 2 ? last : even;
        const void *before = row[even], *after = row[odd];
        if (even < first) row[even] = NULL;
        if (odd == last) row[odd] = NULL;
        t->kernels->decode_pv(h->o + r * width, width, h->s + r * stride, stride, v, group,
                              t->call->problem->v_channels, even, last, NULL);
        row[odd] = after;
        row[even] = before;
    }
}

/* ---- A block: scores of all heads, then all softmaxes, then all values. The keys go by in windows,
 * each for all heads, while the next window is asked for: what is asked for a whole block ahead
 * comes more slowly (bench/notes/cpu.md) ---- */

/* What to ask for while keys up to end are read: the rest of these rows, then the first of others. */
static struct cpu_ahead ahead_from(const struct decode_item *t, const struct block *b, int64_t end,
                                   const rapt_tensor *tensor, const struct decode_table *table,
                                   const struct block *next, const rapt_tensor *other,
                                   const struct decode_table *other_table, int64_t head,
                                   const void **run)
{
    if (t->call->plan->decode_window == t->call->plan->decode_block)
        return near_ahead(t, tensor, b, table, other, next, other_table, run);
    struct block part = end < b->last ? window_of(t, b, end) : window_of(t, next, next->first);
    return end < b->last ? ahead_of(t, tensor, &part, table, head)
                         : ahead_of(t, other, &part, other_table, head);
}

static int in_order(const struct decode_item *t)
{
    return t->call->plan->decode_in_order && t->rows <= DECODE_HEADS_ROWS;
}

static struct cpu_heads heads_of(const struct decode_item *t, const rapt_tensor *tensor,
                                 const rapt_tensor *scales)
{
    int64_t heads = t->call->plan->decode_heads,
            token = decode_gapless(t->call->problem, tensor, heads);
    return (struct cpu_heads){.count = heads,
                              .bytes = tensor->stride[1] * (int64_t)dtype_size(tensor->dtype),
                              .o_step = t->partial_step,
                              .scale_bytes = scales->stride[1] * (int64_t)sizeof(float),
                              .keys = keys_in_turn(t, token)};
}

static void add_scores_in_order(const struct decode_item *t, const struct block *b)
{
    const rapt_attention *a = t->call->a;
    const void *run[RUNS_MAX];
    struct head h = head_at(t, 0);
    struct cpu_heads heads = heads_of(t, &a->k, &a->k_scale);
    struct cpu_rows k = rows_of(t, &a->k, &a->k_scale, b, b->k);
    struct cpu_ahead ahead = near_ahead(t, &a->k, b, b->k, &a->v, b, b->v, run);
    t->kernels->decode_qk_heads(h.s, decode_score_stride(t->call->plan), h.q,
                                q_stride(t->call->problem, t->kernels), &k, &heads, t->rows,
                                t->call->problem->qk_channels, b->first, b->last,
                                ahead.bytes ? &ahead : NULL);
}

static void add_values_in_order(const struct decode_item *t, const struct block *b,
                                const struct block *next)
{
    const rapt_attention *a = t->call->a;
    const void *run[RUNS_MAX];
    struct head h = head_at(t, 0);
    struct cpu_heads heads = heads_of(t, &a->v, &a->v_scale);
    struct cpu_rows v = rows_of(t, &a->v, &a->v_scale, b, b->v);
    struct cpu_ahead ahead = near_ahead(t, &a->v, b, b->v, &a->k, next, next->k, run);
    t->kernels->decode_pv_heads(h.o, t->job->width, h.s, decode_score_stride(t->call->plan), &v,
                                &heads, t->rows, t->call->problem->v_channels,
                                b->first & ~(int64_t)1, b->last, ahead.bytes ? &ahead : NULL);
}

static void add_scores(const struct decode_item *t, const struct block *b)
{
    if (in_order(t)) {
        add_scores_in_order(t, b);
        return;
    }
    const struct problem *p = t->call->problem;
    const rapt_attention *a = t->call->a;
    const void *run[RUNS_MAX];
    for (int64_t first = b->first, end; first < b->last; first = end) {
        end = window_end(t, b, first);
        for (int64_t n = 0; n < t->call->plan->decode_heads; n++) {
            struct head h = head_at(t, n);
            struct decode_table own = table_of(t, &a->k, &a->k_scale, b, b->k, n, first, end);
            struct cpu_rows k = rows_of(t, &a->k, &a->k_scale, b, &own);
            struct cpu_ahead ahead = ahead_from(t, b, end, &a->k, b->k, b, &a->v, b->v, n, run);
            t->kernels->decode_qk(h.s, decode_score_stride(t->call->plan), h.q,
                                  q_stride(p, t->kernels), &k, t->rows, p->qk_channels, first, end,
                                  ahead.bytes ? &ahead : NULL);
        }
    }
}

static void add_values(const struct decode_item *t, const struct block *b, const struct block *next)
{
    if (b->uniform && in_order(t)) {
        add_values_in_order(t, b, next);
        return;
    }
    const rapt_attention *a = t->call->a;
    int64_t channels = t->call->problem->v_channels, width = t->job->width,
            stride = decode_score_stride(t->call->plan);
    const void *run[RUNS_MAX];
    for (int64_t first = b->first & ~(int64_t)1, end; first < b->last; first = end) {
        end = b->uniform ? window_end(t, b, first) : b->last;
        for (int64_t n = 0; n < t->call->plan->decode_heads; n++) {
            struct head h = head_at(t, n);
            struct decode_table own = table_of(t, &a->v, &a->v_scale, b, b->v, n, first, end);
            struct cpu_rows v = rows_of(t, &a->v, &a->v_scale, b, &own);
            struct cpu_ahead ahead =
                ahead_from(t, b, end, &a->v, b->v, next, &a->k, next->k, n, run);
            if (b->uniform)
                t->kernels->decode_pv(h.o, width, h.s, stride, &v, t->rows, channels, first, end,
                                      ahead.bytes ? &ahead : NULL);
            else add_values_by_query(t, b, &h, &v, own.row);
        }
    }
}

/* Tells the level what is next, where it wants to know. */
static void prepare(const struct decode_item *t, const struct block *b, enum decode_stage stage)
{
    const struct problem *p = t->call->problem;
    if (!t->kernels->decode_stage) return;
    t->kernels->decode_stage(stage, stage == DECODE_SCORES || b->uniform ? t->rows : p->group,
                             stage == DECODE_SCORES ? p->qk_channels : p->v_channels);
}

static void attend_block(const struct decode_item *t, const struct block *b,
                         const struct block *next)
{
    prepare(t, b, DECODE_SCORES);
    add_scores(t, b);
    for (int64_t n = 0; n < t->call->plan->decode_heads; n++) {
        struct head h = head_at(t, n);
        if (t->job->score_options) apply_score_options(t, b, &h);
        softmax_rows(t, b, &h);
    }
    prepare(t, b, DECODE_VALUES);
    add_values(t, b, next);
    prepare(t, b, DECODE_DONE);
}

void decode_run_item(struct decode_item *t, int64_t low, int64_t high)
{
    clear_partial(t);
    if (high <= low) return;
    if (t->loaded != t->table || t->loaded_head != t->kv_head) load_queries(t);
    int turn = 0;
    struct block b = block_at(t, low / DECODE_BLOCK * DECODE_BLOCK, low, high, turn);
    for (;;) {
        int64_t end = min64(b.key0 + b.keys, high);
        int more = end < high;
        turn = !turn;
        struct block next = block_at(t, end, low, more ? high : t->ahead, turn);
        attend_block(t, &b, &next);
        if (!more) return;
        b = next;
    }
}
