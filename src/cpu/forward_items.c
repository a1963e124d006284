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
 * items for each thread, a block of rows, so that the last items to finish are short. Either way
 * their number does not grow with the sequences. */
static int units_are_sequences(const struct problem *p, const struct cpu_plan *plan)
{
    return plan->block_count * p->kv_heads >= ITEMS_MANY * plan->slots;
}

int64_t forward_count_units(const struct problem *p, const struct cpu_plan *plan)
{
    return units_are_sequences(p, plan) ? p->batch : plan->block_count;
}

struct unit_sort {
    const struct cpu_call *call;
    struct forward_unit *table; /* NULL while counting */
    double cost_max;            /* 0 while it is sought */
    int64_t start[COST_CLASSES + 1];
};

static int64_t cost_class(const struct unit_sort *sort, double cost)
{
    return sort->cost_max > 0
               ? COST_CLASSES - 1 - (int64_t)(cost / sort->cost_max * (COST_CLASSES - 1))
               : 0;
}

/* One pass over all units: finds the largest cost, then counts, then places. */
static void each_unit(struct unit_sort *sort, double *cost_max)
{
    const struct cpu_call *call = sort->call;
    const struct problem *p = call->problem;
    int whole = units_are_sequences(p, call->plan);
    for (int64_t b = 0; b < p->batch; b++) {
        struct cpu_sequence s = sequence_at(call, b);
        int64_t rows = s.q_length * p->group, unit = whole ? rows : call->plan->row_block;
        if (rows <= call->plan->decode_rows) continue;
        for (int64_t row0 = 0; row0 < rows; row0 += unit) {
            int64_t count = min64(unit, rows - row0);
            double cost = (double)count * (double)block_cost(p, &s, row0, count);
            if (cost_max && cost > *cost_max) *cost_max = cost;
            int64_t class = cost_class(sort, cost);
            if (!cost_max && sort->table)
                sort->table[sort->start[class]++] =
                    (struct forward_unit){.sequence = b, .row_first = row0, .rows = count};
            else if (!cost_max) sort->start[class + 1]++;
        }
    }
}

static int64_t blocks_of(const struct cpu_plan *plan, const struct forward_unit *unit)
{
    return (unit->rows + plan->row_block - 1) / plan->row_block;
}

int64_t forward_sort_units(const struct cpu_call *call, struct forward_unit *table, int64_t *items)
{
    struct unit_sort sort = {.call = call};
    double cost_max = 0;
    each_unit(&sort, &cost_max);
    sort.cost_max = cost_max;
    each_unit(&sort, NULL);
    for (int64_t i = 0; i < COST_CLASSES; i++) sort.start[i + 1] += sort.start[i];
    int64_t count = sort.start[COST_CLASSES];
    sort.table = table;
    each_unit(&sort, NULL);
    *items = 0;
    for (int64_t i = 0; i < count; i++) {
        table[i].item0 = *items;
        *items += blocks_of(call->plan, &table[i]) * call->problem->kv_heads;
    }
    return count;
}

struct forward_block forward_item_at(const struct cpu_call *call, const struct forward_unit *table,
                                     int64_t count, int64_t item)
{
    int64_t low = 0, high = count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (table[middle].item0 <= item) low = middle;
        else high = middle;
    }
    const struct forward_unit *unit = &table[low];
    int64_t blocks = blocks_of(call->plan, unit), n = item - unit->item0;
    return (struct forward_block){.sequence = unit->sequence,
                                  .kv_head = n / blocks,
                                  .row0 = unit->row_first +
                                          (blocks - 1 - n % blocks) * call->plan->row_block};
}
