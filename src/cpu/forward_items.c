/* forward_items.c: the items of a call of forward.c, in the order in which threads take them. */
#include "cpu/arena.h"
#include "cpu/forward.h"

enum {
    ITEMS_MANY =
        12, /* per thread: then their order matters less to the balance than to the cache */
    COST_CLASSES = 64,
};

int64_t forward_count_blocks(const struct problem *p, int64_t row_block)
{
    if (!p->ragged_q) return p->batch * ((p->q_tokens * p->group + row_block - 1) / row_block);
    return p->q_tokens * p->group / row_block + p->batch;
}

/* Keys that the rows see between them. */
static int64_t block_cost(const struct problem *p, const struct cpu_sequence *s, int64_t row0,
                          int64_t rows)
{
    int64_t low, high, unused;
    visible_keys(p, row0 / p->group, s->q_length, s->kv_length, &low, &unused);
    visible_keys(p, (row0 + rows - 1) / p->group, s->q_length, s->kv_length, &unused, &high);
    return high > low ? high - low : 0;
}

/* Units are sorted by class of falling cost. A unit is a whole sequence, head by head, so that
 * blocks that share K and V follow each other and find them in the cache; or, where there are few
 * items for each thread, a block of rows, so that the last items to finish are short. */
struct item_sort {
    const struct cpu_call *call;
    struct forward_block *table; /* NULL while counting */
    int whole_sequences;
    double cost_max; /* 0 while it is sought */
    int64_t start[COST_CLASSES + 1];
};

static int64_t cost_class(const struct item_sort *sort, double cost)
{
    return sort->cost_max > 0
               ? COST_CLASSES - 1 - (int64_t)(cost / sort->cost_max * (COST_CLASSES - 1))
               : 0;
}

static void place_unit(struct item_sort *sort, int64_t sequence, int64_t row_first,
                       int64_t row_last, int64_t class)
{
    int64_t step = sort->call->plan->row_block, *at = &sort->start[class];
    int64_t last_block = (row_last - row_first - 1) / step * step + row_first;
    for (int64_t head = 0; head < sort->call->problem->kv_heads; head++)
        for (int64_t row0 = last_block; row0 >= row_first; row0 -= step)
            sort->table[(*at)++] = (struct forward_block){sequence, head, row0};
}

/* One pass over all units: finds the largest cost, then counts, then places. */
static void each_unit(struct item_sort *sort, double *cost_max)
{
    const struct cpu_call *call = sort->call;
    const struct problem *p = call->problem;
    for (int64_t b = 0; b < p->batch; b++) {
        struct cpu_sequence s = sequence_at(call, b);
        int64_t rows = s.q_length * p->group, step = call->plan->row_block;
        if (rows <= call->plan->decode_rows) continue;
        int64_t unit = sort->whole_sequences ? rows : step;
        for (int64_t row0 = 0; row0 < rows; row0 += unit) {
            int64_t count = min64(unit, rows - row0);
            double cost = (double)count * (double)block_cost(p, &s, row0, count);
            if (cost_max && cost > *cost_max) *cost_max = cost;
            int64_t class = cost_class(sort, cost);
            if (!cost_max && sort->table) place_unit(sort, b, row0, row0 + count, class);
            else if (!cost_max) sort->start[class + 1] += (count + step - 1) / step * p->kv_heads;
        }
    }
}

int64_t forward_sort_items(const struct cpu_call *call, struct forward_block *table)
{
    struct item_sort sort = {.call = call};
    double cost_max = 0;
    sort.whole_sequences =
        call->plan->block_count * call->problem->kv_heads >= ITEMS_MANY * call->plan->slots;
    each_unit(&sort, &cost_max);
    sort.cost_max = cost_max;
    each_unit(&sort, NULL);
    for (int64_t i = 0; i < COST_CLASSES; i++) sort.start[i + 1] += sort.start[i];
    int64_t count = sort.start[COST_CLASSES];
    sort.table = table;
    each_unit(&sort, NULL);
    return count;
}
