/* tiny.h: what the rows for short problems share: which keys a query sees, and the loop over more
 * heads than a grid holds. Such a row keeps every key in registers or static shared memory (TILE_KV
 * of them at most), asks for all of its memory at once, and so costs little more than a launch and
 * one round trip to memory. */
#ifndef RAPT_TINY_H
#define RAPT_TINY_H

#include "early.h"
#include "nvidia/quad.h"

/* Visible keys of a query: [first, last). Plain lengths alone. */
struct visible {
    int first, last;
};

DEVICE struct visible visible_of(const struct attention_args *a, int query)
{
    int position = query + (a->top_left ? 0 : a->kv_tokens - a->q_tokens);
    struct visible v = {larger(0, position - a->window_left),
                        smaller(a->kv_tokens, position + a->window_right + 1)};
    return v;
}

DEVICE int sees(struct visible v, int key)
{
    return key >= v.first && key < v.last;
}

DEVICE void store_lse(const struct attention_args *a, int b, int head, int query,
                      float maximum_log2, float sum)
{
    if (a->lse.data)
        STORE(float, element_at(&a->lse, b, head, query, 0),
              sum == 0 ? -INFINITY : (maximum_log2 + log2_fast(sum)) * LN_2);
}

/* Runs body for every (head, batch) of this block's place in the grid. */
#define FOR_EACH_HEAD(a, head, b)                                                                  \
    for (int b = BLOCK_Z; b < (a)->batch; b += (int)gridDim.z)                                     \
        for (int head = BLOCK_Y; head < (a)->q_heads; head += (int)gridDim.y)

#endif
