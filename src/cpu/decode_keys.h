/* decode_keys.h: the keys of an item of decode, block by block: where they lie, and what is asked for while they are
 * read. */
#ifndef RAPT_CPU_DECODE_KEYS_H
#define RAPT_CPU_DECODE_KEYS_H

#include "cpu/decode.h"

enum {
    DECODE_RUNS_MAX =
        2 * (DECODE_BLOCK_MAX / DECODE_PAGE_MIN + 1) /* of a block, and of what is read next */
};

/* Keys that go by between two softmaxes: key0 + first ... key0 + last - 1, of all heads of the item; first >= last:
 * none. The next block begins at key0 + keys. */
struct decode_block {
    int64_t key0, keys, first, last;
    int uniform; /* every row sees all of them */
    int stepped; /* the tables have the keys alone at which a window may begin: step of struct cpu_rows */
    const struct decode_table *k, *v; /* [column], of the first head */
};

/* K or V of a block, of the item's first head. */
struct decode_side {
    const struct decode_block *block;
    const rapt_tensor *tensor, *scales; /* k and k_scale, or v and v_scale */
    const struct decode_table *table;
};

/* The block at key0, of keys low ... high - 1, its tables filled: those of this turn, 0 or 1. */
struct decode_block decode_block_at(const struct decode_item *t, int64_t key0, int64_t low,
                                    int64_t high, int turn);
struct decode_side decode_keys_of(const struct decode_item *t, const struct decode_block *b);
struct decode_side decode_values_of(const struct decode_item *t, const struct decode_block *b);
/* Where the window of key first ends. */
int64_t decode_window_end(const struct decode_item *t, const struct decode_block *b, int64_t first);

/* Addresses of keys first ... last - 1 of an item's head; they last until the next call. */
struct decode_table decode_table_of(const struct decode_item *t, const struct decode_side *side,
                                    int64_t head, int64_t first, int64_t last);
/* As kernels take them. */
struct cpu_rows decode_rows_of(const struct decode_item *t, const struct decode_side *side,
                               const struct decode_table *table);
/* All heads of the item, for a call from a block's key first on, at most so many keys of a head at a time. */
struct cpu_heads decode_heads_of(const struct decode_item *t, const struct decode_side *side,
                                 int64_t first, int64_t most);

/* What to ask for while keys of a head up to end are read; then is what is read after now: after K of a block its V,
 * after V K of the next block. The result may point to run, [DECODE_RUNS_MAX]. */
struct cpu_ahead decode_ahead(const struct decode_item *t, const struct decode_side *now,
                              const struct decode_side *then, int64_t end, int64_t head,
                              const void **run);
/* The same while a whole block is read at once. */
struct cpu_ahead decode_block_ahead(const struct decode_item *t, const struct decode_side *now,
                                    const struct decode_side *then, const void **run);

#endif
