/* sm90_tasks.h: f32 as two f16 parts (PARTS 2): which blocks of keys are to be split, and in which
 * order; and the words that say how far that is. */
#ifndef RAPT_NVIDIA_SM90_TASKS_H
#define RAPT_NVIDIA_SM90_TASKS_H

#include "sm90_schedule.h"

/* A warp of the forward kernel splits half of a block of keys at a time: so few are under way that
 * tiles find most of them in L2. In the block's word each such share counts SHARE_SPLIT, and 1
 * if it is wide (WIDE_BITS). */
constexpr int SHARES = 2, SHARE_SPLIT = WIDE_BITS + 1, BLOCK_SPLIT = SHARES * SHARE_SPLIT;

/* A block of keys of one head of K or of V, to be split. In the order in which tiles ask for them:
 * by section, from the last keys down, heads fastest, K before V. */
struct split_task {
    int sequence, head, block; /* in the parts; sequence: on the batch axis */
    bool of_value;
#if FEATURES
    int token, keys; /* where the block begins in k and v; how many of its keys exist, the others
                        become zeros; -1: no tile asks for it */
#endif
};

#if FEATURES
/* For ragged keys, in shared memory: sequences by falling number of keys, as tiles are ordered, and
 * the first block of each in that order. */
struct key_table {
    int first[RAGGED_LIMIT + 1];
    uint16_t order[RAGGED_LIMIT];
};
static_assert(sizeof(struct key_table) == KEY_TABLE_BYTES, "");

/* By all threads. keys: room for RAGGED_LIMIT. */
DEVICE void fill_key_table(const struct attention_args &a, struct key_table &table, int *keys)
{
    for (int b = threadIdx.x; b < a.batch; b += THREADS) keys[b] = sequence_keys(a, b);
    __syncthreads();
    order_by_keys(a.batch, keys, table.order, table.first,
                  [=](int i) { return key_blocks(keys[i]); });
    __syncthreads();
}

DEVICE int table_first(uint32_t table, int rank)
{
    return (int)shared_load(table + 4 * rank);
}

DEVICE int table_order(uint32_t table, int rank)
{
    uint32_t two = shared_load(table + 4 * (RAGGED_LIMIT + 1) + rank / 2 * 4);
    return rank & 1 ? two >> 16 : two & 0xffff;
}

/* Blocks of one head: of all sequences, or of each. */
DEVICE int blocks_of_head(const struct attention_args &a, uint32_t table)
{
    return a.kv_start.data ? table_first(table, a.batch) : a.wide_keys;
}
#else
DEVICE int blocks_of_head(const struct attention_args &a, uint32_t)
{
    return a.wide_keys;
}
#endif

/* table: the shared address of the key table. */
DEVICE int split_tasks(const struct attention_args &a, uint32_t table)
{
    return 2 * kv_batches(a) * a.kv_heads * blocks_of_head(a, table);
}

#if FEATURES
/* rest: of the blocks of the task's head, in the order of their turn; each sequence from its last
 * one down. */
DEVICE void complete_task(const struct attention_args &a, uint32_t table, int rest,
                          struct split_task &t)
{
    int b = t.sequence;
    if (a.kv_start.data) {
        int low = 0, high = a.batch; /* first[low] <= rest < first[high] */
        while (high - low > 1) {
            int middle = (low + high) / 2;
            if (table_first(table, middle) <= rest) low = middle;
            else high = middle;
        }
        rest -= table_first(table, low);
        b = table_order(table, low);
    }
    int keys = sequence_keys(a, b), block = key_blocks(keys) - 1 - rest;
    t.keys = block < 0 ? -1 : max_int(0, min_int(PART_KEYS, keys - block * PART_KEYS));
    if (block < 0) block = rest; /* behind the last one */
    t.block = first_key_block(a, b) + block;
    t.token = first_key(a, b) + block * PART_KEYS;
}
#endif

DEVICE struct split_task split_task_at(const struct attention_args &a, int index, uint32_t table)
{
    int blocks = blocks_of_head(a, table), heads = kv_batches(a) * a.kv_heads,
        width = section_heads(a, q_batches(a) * a.q_heads) / a.group, rest;
    struct schedule s = {blocks, heads, max_int(1, width), 1, heads * blocks};
    struct split_task t;
    tile_position(s, index / 2, &rest, &t.head);
    t.block = blocks - 1 - rest;
    t.sequence = t.head / a.kv_heads;
    t.head -= t.sequence * a.kv_heads;
    t.of_value = index & 1;
#if FEATURES
    complete_task(a, table, rest, t);
#endif
    return t;
}

/* Whether a tile asks for it. */
DEVICE bool is_wanted(const struct split_task &t)
{
#if FEATURES
    return t.keys >= 0;
#else
    return true;
#endif
}

/* Row `row` of the parts: which token of k or v it is, and how many exist from there on. */
DEVICE int task_token(const struct split_task &t, int row)
{
#if FEATURES
    return t.token - t.block * PART_KEYS + row;
#else
    return row;
#endif
}

DEVICE int task_keys(const struct attention_args &a, const struct split_task &t, int row)
{
#if FEATURES
    return t.keys + t.block * PART_KEYS - row;
#else
    return a.kv_tokens - row;
#endif
}

DEVICE int32_t *ready_word(const struct attention_args &a, bool of_value, int sequence, int head,
                           int block)
{
    return a.wide_blocks + wide_key_at(a, sequence, head + of_value * a.kv_heads) + block;
}

/* Shares of tasks taken so far; beside the counter of tiles. */
DEVICE int *split_counter(const struct attention_args &a)
{
    return (int *)(a.counters + 1);
}

/* Shares done; behind the heads' words. */
DEVICE int32_t *split_done(const struct attention_args &a)
{
    return a.wide + a.batch * a.kv_heads;
}

#endif
