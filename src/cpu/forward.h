/* forward.h: the state of one item of forward.c, and what its parts share. */
#ifndef RAPT_CPU_FORWARD_H
#define RAPT_CPU_FORWARD_H

#include "cpu/cpu.h"
#include "cpu/scalar/scalar.h"

/* What an item works on: a block of packed rows of one sequence and KV head. */
struct forward_block {
    int64_t sequence, kv_head, row0;
};

/* Neighbouring items: rows [row_first, row_first + rows) of a sequence, KV head by KV head, the last
 * block first. */
struct forward_unit {
    int64_t sequence, row_first, rows, item0;
};

/* Scratch of one thread, in the caller's workspace. Strides in floats. */
struct forward_scratch {
    float *q, *o; /* [row_block][q_stride], [row_block][o_stride] */
    float *s;     /* [row_tile][key_block] */
    void *k_panels, *v_panels;
    float *m, *l;          /* [row_block], as in struct cpu_softmax_tile */
    float *factor;         /* [row_block]: out = factor * o */
    int64_t *first, *last; /* [row_block]: the keys a row sees, before mask */
    int64_t *head, *query; /* [row_block] */
    int64_t *tile_low,
        *tile_high; /* [tiles of row_block]: an interval that holds the keys its rows see */
    float *row;     /* one row of q or v in f32 */
    const void **k_rows, **v_rows; /* [key_block] */
    const float **k_scales, **v_scales;
    int64_t *unusual;    /* [key_block]: keys of the block whose value holds NaN or infinity */
    unsigned char *seen; /* [tile_rows][key_block]: row sees unusual[n] */
    unsigned char *nonfinite_row, *nonfinite_key; /* [row_block], [key_block]: as in struct cpu_pipeline */
    struct cpu_score_row *options;    /* [row_block] */
    void *pipeline;                   /* its scratch */
    int64_t q_stride, o_stride;
};

struct forward_item {
    const struct cpu_call *call;
    const struct problem *problem;
    const struct cpu_plan *plan;
    const struct cpu_kernels *kernels;
    struct forward_scratch scratch;
    struct cpu_sequence sequence;
    int64_t kv_head, row0, rows, tiles;
    const float *q; /* of row0: scratch.q, or the caller's */
    int64_t q_stride;
    int64_t low, high;      /* an interval that holds the keys its rows see */
    int score_options;      /* softcap, bias, ALiBi or mask: s is a logit; else s is q k^T, not yet
                               scaled */
    float exponent_scale;   /* log2(e), times |scale| if s is not yet scaled */
    struct cpu_rows values; /* of the current block */
    int64_t unusual_count;
    struct cpu_rows keys; /* of the current block */
    int has_nonfinite_rows, has_nonfinite_keys;
};

/* Keys key0 + first ... key0 + last - 1 are packed; panels begin at start, first rounded down to
 * column_tile. */
struct forward_range {
    int64_t key0, start, first, last;
};

/* One tile of rows against one block of keys, columns [first, last). */
struct forward_tile {
    int64_t r0, rows, key0, first, last;
    int64_t row_first[CPU_PIPELINE_ROWS], row_last[CPU_PIPELINE_ROWS];
};

/* Row r of the item in q, out or a tensor of scores. */
static inline void *forward_row(const struct forward_item *t, const rapt_tensor *tensor, int64_t r)
{
    return query_row(t->call, tensor, &t->sequence, t->scratch.head[r], t->scratch.query[r]);
}

/* forward_pack.c. Which head and query each row is, and the keys that rows, tiles and the item see. */
void forward_place_rows(struct forward_item *t);
void forward_load_queries(struct forward_item *t);
void forward_pack_keys(struct forward_item *t, const struct forward_range *range);
void forward_pack_values(struct forward_item *t, const struct forward_range *range);
/* As forward_row, of q or out, and the row that comes a few later is asked for. */
void *forward_row_ahead(const struct forward_item *t, const rapt_tensor *tensor, int64_t r);

/* forward.c. Column 0 is key key0. */
struct cpu_score_row forward_score_row(const struct forward_item *t, int64_t r, int64_t key0);

/* forward_pipeline.c. NULL: none serves the problem. */
const struct cpu_pipeline_kernels *forward_pipeline_of(const struct problem *p,
                                                       const struct cpu_kernels *k);
/* Rows of tile number i of the item: as even as they can be, or as the pipeline has them. */
int64_t forward_tile_start(const struct forward_item *t, int64_t i);
/* Tile i against the packed block; false: no row of the tile sees a key of the block. */
int forward_place_tile(const struct forward_item *t, const struct forward_range *range, int64_t i,
                       struct forward_tile *tile);
/* The score options of each row of the item. */
void forward_place_options(struct forward_item *t);
/* All tiles against the packed block. */
void forward_pipelined(struct forward_item *t, const struct forward_range *range);

/* forward_unusual.c. Address of column 0 of the block in a [.., .., query, key] tensor; NULL: it is absent. */
const void *forward_operand(const struct forward_item *t, const rapt_tensor *tensor, int64_t r,
                            int64_t key0);
/* Notes which rows of the tile see which unusual value. */
void forward_note_seen(struct forward_item *t, const struct forward_tile *tile);
/* o += p v for them; x NULL: the weights are in s, else where the pipeline left them. */
void forward_add_unusual(struct forward_item *t, const struct forward_tile *tile,
                         const struct cpu_pipeline *x);

/* forward_items.c. Blocks of row_block packed rows over all sequences; for ragged batches the most
 * that any lengths make. */
int64_t forward_count_blocks(const struct problem *p, int64_t row_block);
/* Once plan->slots is known: at most so many units. */
int64_t forward_count_units(const struct problem *p, const struct cpu_plan *plan);
/* Fills the table, longest first, counts the items, and returns the number of units. */
int64_t forward_sort_units(const struct cpu_call *call, struct forward_unit *table, int64_t *items);
struct forward_block forward_item_at(const struct cpu_call *call, const struct forward_unit *table,
                                     int64_t count, int64_t item);

#endif
