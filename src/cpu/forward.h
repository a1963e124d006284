/* forward.h: what the parts of forward.c share: forward_items.c orders the items, forward_rows.c says what the rows of
 * an item are and see, forward_pack.c packs what it reads, forward_pipeline.c takes it through a level's pipeline,
 * forward_unusual.c adds values that must not be multiplied. */
#ifndef RAPT_CPU_FORWARD_H
#define RAPT_CPU_FORWARD_H

#include "cpu/cpu.h"
#include "cpu/scalar/scalar.h"

/* What an item works on: packed rows row0 ..., at most row_block, of one sequence and KV head. */
struct forward_block {
    int64_t sequence, kv_head, row0;
};

/* Neighbouring items, from number item0 on: packed rows [row_first, row_first + rows) of a sequence, KV head by KV
 * head, the last block first. */
struct forward_unit {
    int64_t sequence, row_first, rows, item0;
};

/* Scratch of one thread, in the caller's workspace; laid out by forward.c. Sizes in brackets: those of the plan and its
 * kernels. A row is a packed row of the item at hand, counted from its row0; a column is a key of the block at hand. */
struct forward_scratch {
    float *q, *o; /* [row_block][q_stride], in the level's format; [row_block][o_stride] */
    float *s;     /* [row_tile][key_block]: scores, then weights, of one tile (not of a pipeline) */
    void *k_panels, *v_panels;
    float *m, *l;          /* [row_block]: as in struct cpu_softmax_tile */
    float *factor;         /* [row_block]: out = factor * o */
    int64_t *first, *last; /* [row_block]: keys, not columns, that a row sees before the mask */
    int64_t *head, *query; /* [row_block]: query head, and query of the sequence */
    /* [tiles of row_block]: an interval of keys that holds those that a tile's rows see; none: both 0. */
    int64_t *tile_low, *tile_high;
    float *row; /* one row of q or v in f32 */
    /* [key_block]: row and scale of struct cpu_rows, of K and of V. */
    const void **k_rows, **v_rows;
    const float **k_scales, **v_scales;
    int64_t *unusual;    /* [key_block]: columns that v_panels lack (forward_unusual.c) */
    unsigned char *seen; /* [tile_rows][key_block]: row sees column unusual[n] */
    /* Of a pipeline, as in struct cpu_pipeline: [row_block], [key_block], [row_block]. */
    unsigned char *nonfinite_row, *nonfinite_key;
    struct cpu_score_row *options;
    void *pipeline; /* its scratch */
    int64_t q_stride, o_stride;
};

/* A thread's items, one after another. */
struct forward_item {
    /* Of the call. */
    const struct cpu_call *call;
    const struct problem *problem;
    const struct cpu_plan *plan;
    const struct cpu_kernels *kernels;
    struct forward_scratch scratch;
    int score_options;    /* s is a logit after them; else s is q k^T, not yet scaled */
    float exponent_scale; /* log2(e), times |scale| if s is not yet scaled */
    /* Of the item at hand: its block, the number of its tiles, and an interval of keys that holds those that its rows
     * see (none: both 0). */
    struct cpu_sequence sequence;
    int64_t kv_head, row0, rows, tiles;
    int64_t low, high;
    const float *q; /* of row0: scratch.q, or the caller's (forward_load_queries) */
    int64_t q_stride;
    int has_nonfinite_rows;
    /* Of the block of keys at hand, set by forward_pack_keys and forward_pack_values. */
    struct cpu_rows keys, values;
    int has_nonfinite_keys;
    int64_t unusual_count; /* entries of scratch.unusual */
};

/* The part of a block that some row of the item sees: columns [first, last) are packed; panels begin at start, first
 * rounded down to column_tile. */
struct forward_range {
    int64_t key0, start, first, last;
};

/* One tile, rows r0 ... r0 + rows - 1 of the item, against columns [first, last) of a block, first a multiple of
 * column_tile. row_first, row_last: columns that each row sees, which may lie outside of these. */
struct forward_tile {
    int64_t r0, rows, key0, first, last;
    int64_t row_first[CPU_PIPELINE_ROWS], row_last[CPU_PIPELINE_ROWS];
};
_Static_assert((int)ROW_TILE_MAX <= (int)CPU_PIPELINE_ROWS,
               "a tile has room for the rows of every level");

/* Row r of the item in q, out or a tensor of scores. */
static inline void *forward_row(const struct forward_item *t, const rapt_tensor *tensor, int64_t r)
{
    return query_row(t->call, tensor, &t->sequence, t->scratch.head[r], t->scratch.query[r]);
}

/* ---- forward_rows.c ---- */

/* For row0 and rows: which head and query each row is, the keys that rows, tiles and the item see; m and l of none. */
void forward_place_rows(struct forward_item *t);
/* The first row of tile number i: tiles are as even as they can be, or have CPU_PIPELINE_ROWS with a pipeline. */
int64_t forward_tile_start(const struct forward_item *t, int64_t i);
/* The part of the block at key0 that some row of the item sees. */
struct forward_range forward_block_range(const struct forward_item *t, int64_t key0);
/* Tile i against the packed block; false: no row of the tile sees a key of the block. */
int forward_place_tile(const struct forward_item *t, const struct forward_range *range, int64_t i,
                       struct forward_tile *tile);
/* Address of row r and key key0 in bias, mask or weights; NULL: it is absent. */
const void *forward_operand(const struct forward_item *t, const rapt_tensor *tensor, int64_t r,
                            int64_t key0);

/* ---- forward_pack.c ---- */

void forward_load_queries(struct forward_item *t);
void forward_pack_keys(struct forward_item *t, const struct forward_range *range);
void forward_pack_values(struct forward_item *t, const struct forward_range *range);
/* As forward_row, of q or out, and the row that comes a few later is asked for. */
void *forward_row_ahead(const struct forward_item *t, const rapt_tensor *tensor, int64_t r);

/* ---- forward.c ---- */

/* The score options of row r; column 0 is key key0. */
struct cpu_score_row forward_score_row(const struct forward_item *t, int64_t r, int64_t key0);

/* ---- forward_pipeline.c ---- */

/* NULL: none serves the problem. */
const struct cpu_pipeline_kernels *forward_pipeline_of(const struct problem *p,
                                                       const struct cpu_kernels *k);
/* Fills scratch.options, for every row of the item. */
void forward_place_options(struct forward_item *t);
/* All tiles against the packed block. */
void forward_pipelined(struct forward_item *t, const struct forward_range *range);

/* ---- forward_unusual.c ---- */

/* Notes which rows of the tile see which unusual value. */
void forward_note_seen(struct forward_item *t, const struct forward_tile *tile);
/* o += p v for them; x NULL: the weights are in s, else where the pipeline left them. */
void forward_add_unusual(struct forward_item *t, const struct forward_tile *tile,
                         const struct cpu_pipeline *x);

/* ---- forward_items.c ---- */

/* Blocks of row_block packed rows over all sequences; for ragged batches the most that any lengths make. */
int64_t forward_count_blocks(const struct problem *p, int64_t row_block);
/* Once plan->slots is known: at most so many units. */
int64_t forward_count_units(const struct problem *p, const struct cpu_plan *plan);
/* Fills the table, longest first, counts the items, and returns the number of units. */
int64_t forward_sort_units(const struct cpu_call *call, struct forward_unit *table, int64_t *items);
struct forward_block forward_item_at(const struct cpu_call *call, const struct forward_unit *table,
                                     int64_t count, int64_t item);

#endif
