/* decode_rows.h: which query rows of a KV head and which part of its keys a block of decode_mma.cu has. */
#ifndef RAPT_DECODE_ROWS_H
#define RAPT_DECODE_ROWS_H

#include "combine.h"

#ifndef BLOCK_ROWS
#define BLOCK_ROWS 16
#endif

/* A block's tile of rows, one of all sequences where queries are packed, and its part of the keys. */
struct share {
    int tile, number;
};

DEVICE struct share share_of_block(const struct attention_args *a)
{
    int x = fresh(BLOCK_X), rows = a->q_tokens * a->group,
        tiles =
            a->q_start.data ? rows / BLOCK_ROWS + a->batch : (rows + BLOCK_ROWS - 1) / BLOCK_ROWS,
        number = tiles > 1 ? x / tiles : x;
    struct share s = {x - number * tiles, number};
    return s;
}

/* Its rows and where their queries lie: found anew where they are needed, for registers are few. */
struct own_rows {
    int first, count;               /* of the tile; none: not above 0 */
    int q_batch, q_start, q_length; /* of the sequence */
    int number;                     /* of the part of the keys */
};

DEVICE struct own_rows rows_of_block(const struct attention_args *a, int b)
{
    struct share own = share_of_block(a);
    struct own_rows r = {0, 0, b, 0, a->q_tokens, own.number};
    if (a->q_start.data) {
        own.tile -= first_tile_of(a, b, BLOCK_ROWS);
        r.q_batch = 0;
        r.q_start = (int)load_index(&a->q_start, b, 0);
        r.q_length = (int)load_index(&a->q_start, b + 1, 0) - r.q_start;
    }
    r.first = own.tile * BLOCK_ROWS;
    r.count = own.tile < 0 ? 0 : smaller(r.q_length * a->group - r.first, BLOCK_ROWS);
    return r;
}

#endif
