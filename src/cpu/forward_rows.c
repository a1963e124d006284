/* forward_rows.c: the rows of an item of forward.c: which head and query each is, which keys it sees, and how rows and
 * keys meet in tiles and blocks. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/forward.h"

#include <math.h>

int64_t forward_tile_start(const struct forward_item *t, int64_t i)
{
    const struct cpu_plan *plan = t->plan;
    return plan->pipeline ? min64(i * plan->tile_rows, t->rows) : t->rows * i / t->tiles;
}

/* The keys that some row of a tile, and of the item, sees: intervals that hold them all. */
static void find_ranges(struct forward_item *t)
{
    struct forward_scratch *w = &t->scratch;
    t->low = INT64_MAX;
    t->high = 0;
    for (int64_t i = 0; i < t->tiles; i++) {
        int64_t low = INT64_MAX, high = 0;
        for (int64_t r = forward_tile_start(t, i); r < forward_tile_start(t, i + 1); r++) {
            if (w->last[r] <= w->first[r]) continue;
            low = min64(low, w->first[r]);
            high = max64(high, w->last[r]);
        }
        w->tile_low[i] = high ? low : 0;
        w->tile_high[i] = high;
        if (high) t->low = min64(t->low, low);
        t->high = max64(t->high, high);
    }
    if (!t->high) t->low = 0;
}

/* Packed row r is head (row0 + r) % group of the group, query (row0 + r) / group. */
void forward_place_rows(struct forward_item *t)
{
    const struct problem *p = t->problem;
    struct forward_scratch *w = &t->scratch;
    int64_t head = t->row0 % p->group, query = t->row0 / p->group,
            first_head = t->kv_head * p->group;
    for (int64_t r = 0; r < t->rows; r++) {
        w->head[r] = first_head + head;
        w->query[r] = query;
        if (++head == p->group) head = 0, query++;
        visible_keys(p, w->query[r], t->sequence.q_length, t->sequence.kv_length, &w->first[r],
                     &w->last[r]);
        w->m[r] = -INFINITY;
        w->l[r] = 0;
    }
    for (int64_t r = t->rows; r < round_up(t->rows, t->plan->tile_rows); r++) {
        w->first[r] = w->last[r] = 0;
        w->nonfinite_row[r] = 0;
        w->m[r] = -INFINITY;
        w->l[r] = 0;
    }
    find_ranges(t);
}

struct forward_range forward_block_range(const struct forward_item *t, int64_t key0)
{
    int64_t first = max64(t->low - key0, 0), column_tile = t->kernels->column_tile;
    return (struct forward_range){.key0 = key0,
                                  .start = first / column_tile * column_tile,
                                  .first = first,
                                  .last = min64(t->high - key0, t->plan->key_block)};
}

int forward_place_tile(const struct forward_item *t, const struct forward_range *range, int64_t i,
                       struct forward_tile *tile)
{
    const struct forward_scratch *w = &t->scratch;
    int64_t low = max64(w->tile_low[i] - range->key0, range->start),
            high = min64(w->tile_high[i] - range->key0, range->last);
    int64_t r0 = forward_tile_start(t, i), rows = forward_tile_start(t, i + 1) - r0,
            column_tile = t->kernels->column_tile;
    if (high <= low) return 0;
    *tile = (struct forward_tile){.r0 = r0,
                                  .rows = rows,
                                  .key0 = range->key0,
                                  .first = low / column_tile * column_tile,
                                  .last = high};
    for (int64_t r = 0; r < rows; r++) {
        tile->row_first[r] = max64(w->first[r0 + r] - range->key0, 0);
        tile->row_last[r] = max64(w->last[r0 + r] - range->key0, 0);
    }
    return 1;
}

const void *forward_operand(const struct forward_item *t, const rapt_tensor *tensor, int64_t r,
                            int64_t key0)
{
    const char *row = forward_row(t, tensor, r);
    return row ? row + key0 * tensor->stride[3] * (int64_t)dtype_size(tensor->dtype) : NULL;
}
