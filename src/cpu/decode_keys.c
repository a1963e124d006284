/* decode_keys.c: the keys of an item of decode. Their addresses are found once for a block, of the item's first head;
 * other heads lie a step further. Memory is read in its own order, and what is read next is asked for meanwhile, in one
 * of two ways:
 *
 * - By windows (window_ahead), where the KV heads of a token lie side by side, or with gaps. An item holds as many
 *   heads as make long runs, takes a window of a block's keys for all of them, and each head asks for its share of the
 *   next window, token by token, into the second cache; where memory has no gaps, for what lies as far on as that and
 *   FURTHER. So too where pages hold the heads one behind another and a query has many rows: page by page.
 *
 * - By blocks (decode_block_ahead), where one call reads a whole block: keys of one head without gaps or in pages, or
 *   several heads in the order of memory. Lines are asked for some way ahead, as the CPU's row of cpu_requests says,
 *   over the end of the block into what is read next. */
#include "cpu/decode_keys.h"
#include "cpu/decode_kernels.h"

/* Bytes of K or V past the next window: of what is asked for one window ahead, some is still on its way when it is
 * needed. */
enum { FURTHER = 4 << 10 };

/* ---- Blocks and their tables ---- */

struct decode_side decode_keys_of(const struct decode_item *t, const struct decode_block *b)
{
    const rapt_attention *a = t->call->a;
    return (struct decode_side){b, &a->k, &a->k_scale, b->k};
}

struct decode_side decode_values_of(const struct decode_item *t, const struct decode_block *b)
{
    const rapt_attention *a = t->call->a;
    return (struct decode_side){b, &a->v, &a->v_scale, b->v};
}

int64_t decode_window_end(const struct decode_item *t, const struct decode_block *b, int64_t first)
{
    int64_t keys = t->plan->decode_window;
    return min64(first / keys * keys + keys, b->last);
}

/* Of windows that have gaps each row is asked for by itself (window_ahead). */
static void fill_stepped(const struct decode_item *t, const struct decode_side *side)
{
    const struct decode_block *b = side->block;
    const struct decode_table *table = side->table;
    if (!decode_gapless(t->problem, side->tensor, t->plan->decode_heads))
        key_rows(t->call, side->tensor, &t->sequence, t->kv_head, b->key0, b->first, b->last,
                 table->row, NULL);
    for (int64_t j = b->first; j < b->last; j = decode_window_end(t, b, j))
        key_rows(t->call, side->tensor, &t->sequence, t->kv_head, b->key0, j, j + 1, table->row,
                 table->scale);
}

static void fill_table(const struct decode_item *t, const struct decode_side *side)
{
    const struct decode_block *b = side->block;
    const struct decode_table *table = side->table;
    if (b->stepped) {
        fill_stepped(t, side);
        return;
    }
    const void **row = table->row;
    int64_t first = b->first, last = b->last;
    for (int64_t j = 0; j < first; j++) row[j] = NULL;
    for (int64_t j = last; j < round_up(last, DECODE_BLOCK); j++) row[j] = NULL;
    key_rows(t->call, side->tensor, &t->sequence, t->kv_head, b->key0, first, last, row,
             side->tensor->dtype == RAPT_I8 ? table->scale : NULL);
}

/* Floats so many apart on one line. */
static int64_t rows_of_line(int64_t stride)
{
    enum { FLOATS = FETCH_LINE / sizeof(float) };
    return stride > 0 && stride < FLOATS ? FLOATS / stride : 1;
}

/* The scales of a block's rows, for all heads of the item. Few bytes of the whole, but a kernel that
 * found them in memory would wait for each line. */
static void ask_for_scales(const struct decode_item *t, const struct decode_side *side)
{
    enum { READ = 0, SECOND_CACHE = 2 };
    const struct decode_block *b = side->block;
    const rapt_tensor *scales = side->scales;
    int64_t keys = rows_of_line(scales->stride[2]), heads = rows_of_line(scales->stride[1]);
    for (int64_t h = 0; h < t->plan->decode_heads; h += heads)
        for (int64_t c = 0; c < scales->size[3]; c += FETCH_LINE / (int64_t)sizeof(float))
            for (int64_t j = b->first; j < b->last; j += keys) {
                const float *const *scale = side->table->scale;
                const float *key =
                    b->stepped ? scale[b->first] + (j - b->first) * scales->stride[2] : scale[j];
                __builtin_prefetch(key + h * scales->stride[1] + c, READ, SECOND_CACHE);
            }
}

static int sees_all(const struct decode_item *t, const struct decode_block *b)
{
    for (int64_t r = 0; r < t->rows; r++)
        if (t->scratch.first[r] > b->key0 + b->first || t->scratch.last[r] < b->key0 + b->last)
            return 0;
    return 1;
}

/* As long as every row sees all of its keys, or the shortest. */
struct decode_block decode_block_at(const struct decode_item *t, int64_t key0, int64_t low,
                                    int64_t high, int turn)
{
    struct decode_block b = {.key0 = key0,
                             .keys = t->plan->decode_block,
                             .first = max64(low - key0, 0),
                             .k = &t->scratch.k[turn],
                             .v = &t->scratch.v[turn]};
    for (;; b.keys = DECODE_BLOCK) {
        b.last = min64(high - key0, b.keys);
        b.uniform = sees_all(t, &b);
        if (b.uniform || b.keys == DECODE_BLOCK) break;
    }
    if (b.first >= b.last) return b;
    b.stepped = t->plan->decode_steps && b.uniform && b.first % 2 == 0;
    struct decode_side k = decode_keys_of(t, &b), v = decode_values_of(t, &b);
    fill_table(t, &k);
    fill_table(t, &v);
    if (k.tensor->dtype == RAPT_I8) ask_for_scales(t, &k);
    if (v.tensor->dtype == RAPT_I8) ask_for_scales(t, &v);
    return b;
}

/* ---- What kernels are given ---- */

struct decode_table decode_table_of(const struct decode_item *t, const struct decode_side *side,
                                    int64_t head, int64_t first, int64_t last)
{
    const struct decode_table *table = side->table;
    const rapt_tensor *tensor = side->tensor;
    struct decode_table to = t->scratch.of_head;
    int64_t step = head * tensor->stride[1] * (int64_t)dtype_size(tensor->dtype),
            scale_step = head * side->scales->stride[1];
    if (!head) return *table;
    if (first < side->block->first) to.row[first++] = NULL;
    if (side->block->stepped) last = first + 1;
    for (int64_t j = first; j < last; j++) to.row[j] = (const char *)table->row[j] + step;
    if (tensor->dtype == RAPT_I8)
        for (int64_t j = first; j < last; j++) to.scale[j] = table->scale[j] + scale_step;
    return to;
}

struct cpu_rows decode_rows_of(const struct decode_item *t, const struct decode_side *side,
                               const struct decode_table *table)
{
    const rapt_tensor *tensor = side->tensor;
    struct cpu_rows rows = rows_behind(t->call, tensor, table->row, table->scale);
    if (!side->block->stepped) return rows;
    rows.step = tensor->stride[2] * (int64_t)dtype_size(tensor->dtype);
    rows.scale_step = side->scales->stride[2] * (int64_t)sizeof(float);
    return rows;
}

/* Heads together: keys of each head in turn, at most so many, from tokens of so many bytes. */
static int64_t keys_in_turn(const struct decode_item *t, int64_t token, int64_t most)
{
    if (t->kernels->decode_keys) return t->kernels->decode_keys;
    return min64(max64(t->plan->requests->span / max64(token, 1) / 2 * 2, 2), most);
}

struct cpu_heads decode_heads_of(const struct decode_item *t, const struct decode_side *side,
                                 int64_t first, int64_t most)
{
    const rapt_tensor *tensor = side->tensor;
    int64_t heads = t->plan->decode_heads, page = t->problem->page_tokens,
            token = decode_gapless(t->problem, tensor, heads);
    struct cpu_heads of = {.count = heads,
                           .bytes = tensor->stride[1] * (int64_t)dtype_size(tensor->dtype),
                           .o_step = t->partial_step,
                           .scale_bytes = side->scales->stride[1] * (int64_t)sizeof(float),
                           .keys = keys_in_turn(t, token, most)};
    of.turn = of.keys;
    if (!decode_by_page(t->problem, tensor)) return of;
    of.turn = page;
    of.before = (side->block->key0 + first) % page;
    return of;
}

/* ---- Ahead by windows ---- */

/* Of keys without gaps: bytes [from, from + bytes) past key first of a window, and FURTHER on, up to
 * the last key of the thread; on a CPU that asks for lines twice, those of the window itself then come
 * into the first cache. */
static struct cpu_ahead gapless_ahead(const struct decode_item *t, const struct decode_side *side,
                                      int64_t first, int64_t key_bytes, int64_t from, int64_t bytes)
{
    int64_t end = (t->ahead - side->block->key0 - first) * key_bytes,
            again = t->plan->requests->again;
    from += FURTHER;
    if (from >= end) return (struct cpu_ahead){0};
    bytes = min64(bytes, end - from);
    return (struct cpu_ahead){.run = side->table->row + first,
                              .run_bytes = from + bytes,
                              .skip = from,
                              .bytes = bytes,
                              .again = again < 0 ? -FURTHER : again};
}

/* A blocked cache holds whole blocks in one piece; an item has one head of it. */
static struct cpu_ahead blocked_ahead(const struct decode_side *side, int64_t first, int64_t last,
                                      int64_t key_bytes)
{
    if (first % RAPT_KV_BLOCK) return (struct cpu_ahead){0};
    return (struct cpu_ahead){.run = side->table->row + first,
                              .run_step = RAPT_KV_BLOCK,
                              .run_bytes = RAPT_KV_BLOCK * key_bytes,
                              .bytes = (round_up(last, RAPT_KV_BLOCK) - first) * key_bytes};
}

/* A head's share of the pages of a window, which hold the heads one behind another: of those of which a query sees all
 * keys. */
static struct cpu_ahead pages_ahead(const struct decode_item *t, const struct decode_side *side,
                                    int64_t first, int64_t last, int64_t head)
{
    const rapt_tensor *tensor = side->tensor;
    int64_t page = t->problem->page_tokens, key0 = side->block->key0, heads = t->plan->decode_heads,
            bytes = heads * page * tensor->size[3] * (int64_t)dtype_size(tensor->dtype);
    first = round_up(key0 + first, page) - key0;
    int64_t share = (last - first) / page * bytes / heads, before = head * share;
    if (share <= 0) return (struct cpu_ahead){0};
    return (struct cpu_ahead){.run = side->table->row + first + before / bytes * page,
                              .run_step = page,
                              .run_bytes = bytes,
                              .skip = before % bytes,
                              .bytes = share};
}

/* A head's share of the rows of the window from key first on, in the order of memory. */
static struct cpu_ahead window_ahead(const struct decode_item *t, const struct decode_side *side,
                                     int64_t first, int64_t head)
{
    const rapt_tensor *tensor = side->tensor;
    int64_t size = (int64_t)dtype_size(tensor->dtype), heads = t->plan->decode_heads,
            last = decode_window_end(t, side->block, first),
            run = ((heads - 1) * tensor->stride[1] + tensor->size[3]) * size;
    if (last <= first || run <= 0) return (struct cpu_ahead){0};
    if (heads > 1 && decode_by_page(t->problem, tensor))
        return pages_ahead(t, side, first, last, head);
    if (t->call->a->kv_layout == RAPT_KV_BLOCKED)
        return blocked_ahead(side, first, last, tensor->size[3] * size);
    if (tensor->stride[3] != 1) return (struct cpu_ahead){0};
    int64_t share = (last - first) * run / heads, before = head * share;
    if (tensor->stride[2] * size == run && !t->problem->page_tokens)
        return gapless_ahead(t, side, first, run, before, share);
    return (struct cpu_ahead){.run = side->table->row + first + before / run,
                              .run_step = 1,
                              .run_bytes = run,
                              .skip = before % run,
                              .bytes = share};
}

/* ---- Ahead by blocks ---- */

/* Where the block's first key lies in its page. */
static int64_t in_page(const struct decode_item *t, const struct decode_block *b)
{
    int64_t page = t->problem->page_tokens;
    return page ? (b->key0 + b->first) % page : 0;
}

/* The runs of a block that begin before key end, from the page of its first key on; returns how many. */
static int64_t runs_of(const struct decode_item *t, const struct decode_side *side, int64_t end,
                       const void **run)
{
    const void **row = side->table->row;
    int64_t page = t->problem->page_tokens, first = side->block->first,
            start = in_page(t, side->block), count = 1, back = start,
            row_bytes = side->tensor->stride[2] * (int64_t)dtype_size(side->tensor->dtype);
    /* Within a block of a blocked cache keys do not follow each other: its beginning is near enough. */
    if (t->call->a->kv_layout == RAPT_KV_BLOCKED) back -= start % RAPT_KV_BLOCK;
    run[0] = (const char *)row[first] - back * row_bytes;
    if (page)
        for (int64_t j = first - start + page; j < end; j += page) run[count++] = row[j];
    return count;
}

/* How far ahead lines are asked for: of several heads, ahead of the last of the keys that are taken in turn. */
static int64_t distance_of(const struct decode_item *t, int64_t key_bytes)
{
    const struct cpu_requests *requests = t->plan->requests;
    if (t->plan->decode_heads > 1)
        return (keys_in_turn(t, key_bytes, DECODE_HEADS_KEYS) - 1) * key_bytes / FETCH_LINE *
                   FETCH_LINE +
               requests->span / 2;
    return t->problem->page_tokens ? requests->span : requests->ahead;
}

/* Before a page lies another one, so there lines are asked for twice at once. */
static int64_t again_of(const struct decode_item *t)
{
    const struct cpu_requests *requests = t->plan->requests;
    if (!t->problem->page_tokens)
        return t->plan->decode_heads > 1 ? requests->span_again : requests->again;
    return min64(requests->span_again, 0);
}

/* Its lines, some way ahead, then as many of what is read next. A run is a page, or the whole block; runs of what is
 * next follow where this block ends with one and that begins with one. Of pages that hold heads one behind another
 * those are asked for of which a query sees all keys. */
struct cpu_ahead decode_block_ahead(const struct decode_item *t, const struct decode_side *now,
                                    const struct decode_side *then, const void **run)
{
    const struct decode_block *b = now->block, *next = then->block;
    int64_t page = t->problem->page_tokens, heads = t->plan->decode_heads;
    int64_t key = decode_gapless(t->problem, now->tensor, heads),
            next_key = decode_gapless(t->problem, then->tensor, heads);
    if (!key || !next_key) return (struct cpu_ahead){0}; /* decode_plan has no blocks of these */
    /* Bytes from the beginning of the first run to the block's first key, to its end, to what is asked for first. */
    int64_t start = in_page(t, b) * key, end = start + (b->last - b->first) * key,
            run_bytes = page ? page * key : end;
    int64_t skip = start + distance_of(t, key), next_keys = next->last - next->first;
    if (heads > 1 && decode_by_page(t->problem, now->tensor)) {
        if (start) skip = max64(skip, run_bytes);
        end -= end % run_bytes;
        next_keys -= next_keys % page;
    }
    /* Bytes of what is read next; without pages they are one more run. */
    int64_t more = min64(distance_of(t, next_key), next_keys * next_key);
    if (!page) more = min64(more, run_bytes);
    else if (key != next_key || (b->key0 + b->last) % page || in_page(t, next)) more = 0;
    int64_t count = runs_of(t, now, b->last, run);
    if (more > 0) runs_of(t, then, next->first + ceil_div(more, next_key), run + count);
    skip = min64(skip, end);
    return (struct cpu_ahead){.run = run + skip / run_bytes,
                              .run_step = 1,
                              .run_bytes = run_bytes,
                              .skip = skip % run_bytes,
                              .bytes = end - skip + max64(more, 0),
                              .again = again_of(t)};
}

struct cpu_ahead decode_ahead(const struct decode_item *t, const struct decode_side *now,
                              const struct decode_side *then, int64_t end, int64_t head,
                              const void **run)
{
    if (t->plan->decode_window == t->plan->decode_block)
        return decode_block_ahead(t, now, then, run);
    if (end < now->block->last) return window_ahead(t, now, end, head);
    return window_ahead(t, then, then->block->first, head);
}
