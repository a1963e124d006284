/* mla_part.h: what a block of mla_sm90.cu works on, and its shared memory. */
#ifndef RAPT_NVIDIA_MLA_PART_H
#define RAPT_NVIDIA_MLA_PART_H

#define OWN_COMBINE /* mla_combine.h */
#include "combine.h"
#include "nvidia/wgmma.h"

enum {
    ROWS = 64,          /* of queries */
    KEYS = 64,          /* of a stage: TILE_KV */
    PANEL = KEYS * 128, /* bytes of 64 channels of a stage, or of Q */
    PANELS = D / 64,    /* of a stage; the last one comes to hold weights */
    HALF = DV / 128,    /* panels that a warpgroup multiplies its weights with */
    STAGES = 2,         /* one for each consumer */
    STAGE_BYTES = PANELS * PANEL,
    CONSUMERS = 256,        /* threads */
    SUMS_PITCH = DV + 8,    /* floats; eight more, so that four rows fall into different banks */
    AT_KV = PANELS * PANEL, /* behind Q; at the end the sums */
    AT_MAXIMA = AT_KV + STAGES * STAGE_BYTES, /* [consumer][row], floats */
    AT_TOTALS = AT_MAXIMA + STAGES * ROWS * 4,
    AT_FULL = AT_TOTALS + STAGES * ROWS * 4, /* [stage][half], mbarriers */
    AT_EMPTY = AT_FULL + STAGES * 2 * 8,
    AT_SPECIAL = AT_EMPTY + STAGES * 2 * 8 /* whether values were not finite, see mla_store.h */
};
static_assert(D == 576 && DV == 512 && TILE_KV == KEYS && THREADS == CONSUMERS + 128, "tile sizes");
static_assert(ROWS * SUMS_PITCH * 4 <= STAGES * STAGE_BYTES, "room for the sums");
static_assert(SHARED_BYTES >= AT_SPECIAL + 4, "shared memory");

/* Named barriers; 0 is __syncthreads. */
enum { BARRIER_BLOCK = 1, BARRIER_START, BARRIER_WEIGHTS, BARRIER_OWN = BARRIER_WEIGHTS + 2 };

/* Keys [first, end). */
struct span {
    int first, end;
};

/* Rows row ... row + count - 1 of a KV head, row r being query r / group of its query head r % group,
 * and a part of the keys of sequence b. */
struct part {
    int b, kv_head, number;
    int row, count; /* none: count is not above 0 */
    struct sequence seq;
    int first, end;         /* keys of this part that some row sees; first is a multiple of KEYS */
    int all_first, all_end; /* keys that all rows see */
};

DEVICE struct span span_of_query(const struct attention_args &a, const struct part &p, int query)
{
    int position = query + p.seq.offset;
    struct span x = {larger(0, position - a.window_left),
                     smaller(p.seq.kv_length, position + a.window_right + 1)};
    return x;
}

/* The query of one of the block's rows; rows behind the last are the last one. */
DEVICE int query_of(const struct attention_args &a, const struct part &p, int row)
{
    return (p.row + smaller(row, p.count - 1)) / a.group;
}

/* All but the keys. Tiles of the same keys are neighbours, so that all but one find them in a cache. */
DEVICE struct part rows_of_block(const struct attention_args &a)
{
    int rows = a.q_tokens * a.group, packed = a.q_start.data != nullptr,
        tiles = packed ? rows / ROWS + a.batch : (rows + ROWS - 1) / ROWS, rest = BLOCK_X / tiles,
        tile = BLOCK_X - rest * tiles, pair = rest / a.splits;
    struct part p;
    p.number = rest - pair * a.splits;
    p.b = pair / a.kv_heads;
    p.kv_head = pair - p.b * a.kv_heads;
    if (packed) {
        p.b = sequence_of_tile(&a, tile, ROWS);
        tile -= first_tile_of(&a, p.b, ROWS);
    }
    p.seq = sequence_of(&a, p.b);
    p.row = tile * ROWS;
    p.count = tile < 0 ? 0 : smaller(p.seq.q_length * a.group - p.row, ROWS);
    return p;
}

DEVICE void find_keys(const struct attention_args &a, struct part &p)
{
    struct span first = span_of_query(a, p, query_of(a, p, 0)),
                last = span_of_query(a, p, query_of(a, p, p.count - 1));
    struct key_range own = keys_of_part(&a, first.first, last.end, KEYS, p.number);
    /* Cuts lie at multiples of KEYS. The reductions prove to the compiler that the loop over the keys is
     * the same in all lanes, without which it serialises the multiplies. */
    p.first = __reduce_max_sync(~0u, own.first / KEYS * KEYS);
    p.end = __reduce_max_sync(~0u, own.end);
    p.all_first = last.first;
    p.all_end = first.end;
}

/* Which page a key lies in. */
DEVICE int page_index(const struct attention_args &a, int key)
{
    return a.page_shift >= 0 ? key >> a.page_shift : key / a.page_tokens;
}

#endif
