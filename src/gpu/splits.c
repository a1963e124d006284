/* splits.c: how many blocks share the keys of a query row, and what their results take. */
#include "gpu/splits.h"
#include "base/error.h"
#include "base/integer.h"
#include "gpu/gpu.h"
#include "gpu/numbers.h"

#include <string.h>

/* ---- Tiles that share the keys of many query rows (NEED_TILE_TOKENS) ---- */

/* What a kind of tile takes, its unit being the time in which a block of keys passes; the last row of
 * the table is for all others. units: what splits_pay reckons with, which asks no device. */
static const struct family {
    const char *source, *arch; /* that these begin with */
    uint32_t can, needs;       /* bits that its rows have */
    int units;     /* multiprocessors, compute units or pairs of these of a large GPU of its kind */
    int threads;   /* that one holds: whole tiles */
    int alone;     /* eighths of its time that a block takes where no unit has two tiles */
    int ends;      /* blocks that pass while a tile begins and ends */
    int launch;    /* blocks that pass during the second launch */
    int part_rows; /* rows of a part that are written and read in a block's time */
    int memory; /* blocks of different keys that memory brings in a block's time, or eight of each KV
                 * head of a sequence, if those are more; 0: enough */
    int queries, rows; /* fewer queries of a sequence, or so many rows of a KV head: decode */
    int saves;         /* of whole tiles' time parts must save one in so many */
} families[] = {
    /* measured on an H100; a block of integers takes longer, so that all else counts less */
    {"nvidia/forward_sm90.cu", "sm_90", CAN_I8, NEED_NUMBERS | NEED_BLOCK_SCALES, 132, 384, 8, 2, 2,
     5120, 64, 8, 32, 25},
    {"nvidia/forward_sm90.cu", "sm_90", CAN_I8, NEED_NUMBERS, 132, 384, 8, 2, 2, 5120, 64, 8, 32,
     9},
    {"nvidia/forward_sm90.cu", "sm_90", CAN_I8, 0, 132, 384, 8, 1, 1, 8192, 0, 8, 32, 9},
    {"nvidia/forward_sm90.cu", "sm_90", 0, 0, 132, 384, 8, 2, 2, 4096, 64, 8, 32, 9},
    {"nvidia/forward_sm80.cu", "sm_90", 0, 0, 132, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    /* the same tiles by reckoning: A100, RTX 3090, RTX 4090, B200, RTX 5090 */
    {"nvidia/forward_sm80.cu", "sm_80", 0, 0, 108, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    {"nvidia/forward_sm80.cu", "sm_86", 0, 0, 82, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    {"nvidia/forward_sm80.cu", "sm_89", 0, 0, 128, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    {"nvidia/forward_sm80.cu", "sm_100", 0, 0, 148, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    {"nvidia/forward_sm80.cu", "sm_120", 0, 0, 170, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
    /* by reckoning, docs/AMD.md: MI250 (a die), MI300X, MI350X, RX 7900 XTX, Radeon 8060S, RX 9060 and 9070 XT */
    {"amd/forward.cu", "gfx90a", 0, 0, 104, 512, 5, 1, 1, 16384, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx942", 0, 0, 304, 512, 5, 1, 1, 16384, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx950", 0, 0, 256, 512, 5, 1, 1, 16384, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx1100", 0, 0, 48, 512, 5, 1, 1, 4096, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx1151", 0, 0, 20, 512, 5, 1, 1, 4096, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx1200", 0, 0, 16, 512, 5, 1, 1, 4096, 0, 1, 0, 9},
    {"amd/forward.cu", "gfx1201", 0, 0, 32, 512, 5, 1, 1, 4096, 0, 1, 0, 9},
    /* PTX, on whatever there is */
    {"", "", 0, 0, 108, 256, 5, 1, 1, 8192, 0, 1, 0, 9},
};

static int begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

static int64_t tiles_at_once(const struct family *f, const struct row *row, int64_t units)
{
    return units * max64(f->threads / max64(row->threads, 1), 1);
}

static const struct family *family_of(const struct row *row)
{
    const struct family *f = families;
    while (!begins(row->source, f->source) || !begins(row->arch, f->arch) ||
           (row->can & f->can) != f->can || (row->needs & f->needs) != f->needs)
        f++;
    return f;
}

int64_t splits_tiles(const struct attention_args *args, const struct row *row)
{
    int64_t heads = ceil_div((int64_t)args->group * args->tile_tokens, row->tile_q);
    return ceil_div(args->q_tokens, args->tile_tokens) * heads * args->kv_heads * args->batch;
}

/* Queries of a tile: those that make the fewest tiles; of these the most. */
static void choose_tile(struct attention_args *args, const struct row *row)
{
    int64_t fewest = INT64_MAX;
    int32_t best = row->tile_q;
    for (int32_t tokens = row->tile_q; tokens >= 16; tokens /= 2) {
        args->tile_tokens = tokens;
        int64_t tiles = splits_tiles(args, row);
        if (tiles < fewest) fewest = tiles, best = tokens;
    }
    args->tile_tokens = best;
}

/* Blocks of keys that a tile sees, at most; of ragged keys, in a sequence of average length. */
static int64_t seen_blocks(const struct attention_args *args, const struct row *row)
{
    int64_t keys = args->kv_tokens;
    if (args->kv_start.dtype) keys = ceil_div(keys, max64(args->batch, 1));
    if (args->top_left) keys = min64(keys, (int64_t)args->q_tokens + args->window_right);
    keys = min64(keys, (int64_t)args->window_left + args->window_right + row->tile_q);
    return max64(ceil_div(keys, row->tile_kv), 1);
}

/* Blocks of different keys that memory brings: an H100's 64 by its 3352 GB/s, an H200's 112 by 4917, as the fastest
 * parts of both tell. */
static int64_t blocks_from_memory(const struct family *f, int memory_gbs)
{
    enum { MEASURED = 3352, EACH = 32 };
    if (memory_gbs <= 0 || !f->memory) return f->memory;
    if (memory_gbs < MEASURED) return ceil_div((int64_t)f->memory * memory_gbs, MEASURED);
    return f->memory + (memory_gbs - MEASURED) / EACH;
}

/* About how long it takes, in part_rows-ths of a block of keys. sets: of keys, a KV head's of a
 * sequence, of which its tiles ask for the same blocks at a time. */
static int64_t time_of(const struct family *f, int64_t tiles, int64_t sets, int64_t blocks,
                       int64_t parts, int64_t rows, int64_t units, int64_t at_once, int64_t memory)
{
    const int64_t block = f->part_rows, many = 1 << 20; /* enough not to share keys */
    int64_t all = min64(tiles, many) * parts, turns = ceil_div(all, max64(at_once, 1)),
            each = all > units ? block : block / 8 * f->alone;
    if (memory && parts > 1) {
        int64_t heads = min64(sets, many),
                asked = min64(all, at_once) * heads / max64(min64(tiles, many), 1);
        each = max64(each, block * asked / max64(memory, 8 * heads));
    }
    int64_t time = turns * (ceil_div(blocks, parts) * each + f->ends * block);
    return parts > 1 ? time + f->launch * block + parts * min64(rows, many * block) : time;
}

/* How many parts, at least two, take the least time, which is returned. */
static int64_t choose_parts(struct attention_args *args, const struct row *row, int64_t units,
                            int memory_gbs)
{
    enum { MOST = 256 };
    const struct family *f = family_of(row);
    choose_tile(args, row);
    int64_t tiles = splits_tiles(args, row), blocks = seen_blocks(args, row),
            rows = (int64_t)args->batch * args->q_heads * args->q_tokens,
            sets = (int64_t)args->batch * args->kv_heads, at_once = tiles_at_once(f, row, units),
            memory = blocks_from_memory(f, memory_gbs), least = INT64_MAX;
    for (int32_t parts = 2; parts == 2 || (parts <= blocks && parts <= MOST); parts++) {
        int64_t time = time_of(f, tiles, sets, blocks, parts, rows, units, at_once, memory);
        if (time < least) least = time, args->splits = parts;
    }
    return least;
}

int splits_pay(const struct problem *p, const struct row *row)
{
    const struct family *f = family_of(row);
    const int64_t open = WINDOW_LIMIT;
    if (p->q_tokens < f->queries || p->q_tokens * p->group <= f->rows) return 0;
    struct attention_args a = {.batch = (int32_t)p->batch,
                               .q_heads = (int32_t)p->q_heads,
                               .kv_heads = (int32_t)p->kv_heads,
                               .group = (int32_t)p->group,
                               .q_tokens = (int32_t)p->q_tokens,
                               .kv_tokens = (int32_t)p->kv_tokens,
                               .kv_start.dtype = p->a.kv_start.dtype,
                               .window_left = (int32_t)min64(p->window_left, open),
                               .window_right = (int32_t)min64(p->window_right, open),
                               .top_left = p->a.align == RAPT_TOP_LEFT};
    int64_t whole = ceil_div(p->q_tokens, row->tile_q) * p->q_heads * p->batch;
    int64_t at_once = tiles_at_once(f, row, f->units);
    /* Two tiles on a unit do not keep in step for long: many turns leave little idle. */
    if (at_once > f->units && whole >= 2 * at_once) return 0;
    int64_t parts = choose_parts(&a, row, f->units, 0),
            time = time_of(f, whole, 0, seen_blocks(&a, row), 1, 0, f->units, at_once, 0);
    int saves = f->saves;
    /* Tiles that find numbers made ahead take about three quarters of the time. */
    if ((row->can & CAN_I8) && !(row->needs & NEED_NUMBERS) && numbers_pay_whole(p, row)) saves = 4;
    return parts * saves < time * (saves - 1);
}

/* ---- Blocks that share the keys of few query rows ---- */

/* Blocks of a launch in which each has all keys of its rows. */
static int64_t unsplit_blocks(const struct attention_args *args, const struct row *row)
{
    struct extent e = extent_of(args, 0);
    int64_t blocks[3];
    e.splits = 1;
    row->grid(&e, row, blocks);
    return blocks[0] * blocks[1] * blocks[2];
}

/* Two blocks fit on a compute unit: neither takes more than half of its shared memory or, on NVIDIA, of
 * its registers. */
static int two_fit(const struct row *row)
{
    return row->shared <= 113 << 10 && (row->vendor != VENDOR_cuda || row->threads <= 128);
}

/* Integers become numbers on the way: instructions take the time, not memory, and a unit with two blocks does
 * more of them, but each block takes longer. */
static int two_are_slower(const struct row *row)
{
    return two_fit(row) && row->vendor == VENDOR_cuda && row->dtype && (row->can & CAN_I8);
}

static int64_t blocks_at_once(const struct attention_args *args, const struct row *row)
{
    return (two_fit(row) ? 2 : 1) * max64(args->units, 1);
}

/* None has fewer than SHORTEST: a second launch must pay. */
enum { SHORTEST = 128 };

static int64_t keys_of(const struct attention_args *args, const struct row *row, int64_t parts)
{
    int64_t tile = max64(row->tile_kv, 1), keys = max64(ceil_div(args->kv_tokens, parts), SHORTEST);
    return ceil_div(keys, tile) * tile;
}

/* What a launch takes, in the time of a key: turns of blocks, each of which begins and ends, and a
 * second launch, which reads a sum of each part. two_are_slower: measured on an H200. */
static int64_t cost_of(const struct attention_args *args, const struct row *row, int64_t blocks,
                       int64_t parts)
{
    enum { TURN = 256, PART = 6, SECOND = 320 };
    int64_t keys = keys_of(args, row, parts), second = 0;
    if (two_are_slower(row)) {
        if (blocks * parts > args->units) keys += keys * 5 / 8;
        if (parts > 1) second = SECOND;
    }
    return ceil_div(blocks * parts, blocks_at_once(args, row)) * (keys + TURN) + parts * PART +
           second;
}

/* The cheapest, of at most TURNS turns where it is not one part. */
static int64_t choose_cuts(const struct attention_args *args, const struct row *row)
{
    enum { TURNS = 4 };
    int64_t blocks = unsplit_blocks(args, row), at_once = blocks_at_once(args, row),
            most = ceil_div(args->kv_tokens, SHORTEST), best = 1, least = INT64_MAX;
    for (int64_t parts = 1; parts <= most && blocks; parts++) {
        int64_t cost = cost_of(args, row, blocks, parts);
        if (parts > 1 && blocks * parts > TURNS * at_once) break;
        if (cost < least) least = cost, best = parts;
    }
    return best;
}

/* With batch_invariant the cuts depend on nothing but the position of a key. */
void splits_choose(struct attention_args *args, const struct row *row, int memory_gbs)
{
    enum { INVARIANT = 1024 };
    int64_t keys = INVARIANT;
    if (row->needs & NEED_TILE_TOKENS) {
        choose_parts(args, row, args->units, memory_gbs);
        return;
    }
    if (!args->batch_invariant) keys = keys_of(args, row, choose_cuts(args, row));
    args->splits = (int32_t)max64(ceil_div(args->kv_tokens, keys), 1);
    args->split_keys = (int32_t)keys;
}

rapt_status splits_bytes(const struct attention_args *args, int64_t rows, size_t *out, size_t *lse)
{
    int64_t channels = ceil_div(args->v_channels, 4) * 4, each, total;
    *out = *lse = 0;
    if (args->splits == 1) return RAPT_OK;
    if (__builtin_mul_overflow(rows, args->splits, &each) ||
        __builtin_mul_overflow(each, max64(channels, 4), &total) || total > INT64_MAX / 8)
        return fail(RAPT_NO_MEMORY,
                    "rapt_plan_create: the sums of %lld query rows over %d parts of their keys do "
                    "not fit in 63 bits",
                    (long long)rows, args->splits);
    *out = (size_t)(each * channels) * 4;
    *lse = (size_t)each * 8;
    return RAPT_OK;
}

/* In one dimension the rows that memory has sums for fit into a grid. */
struct grid splits_combine_grid(const struct attention_args *args, const struct row *row)
{
    int64_t batch = args->q_start.dtype ? 1 : args->batch, heads = args->q_heads,
            rows = row->needs & NEED_TILE_TOKENS ? row->threads / row_wave(row) : 1;
    if (row->needs & NEED_SHARED_KV) {
        int64_t blocks = ceil_div(heads, COMBINED_HEADS(args)) * args->q_tokens * batch;
        return (struct grid){(uint32_t)min64(blocks, INT32_MAX), 1, 1};
    }
    return (struct grid){(uint32_t)ceil_div(args->q_tokens, rows),
                         (uint32_t)min64(heads, GRID_LIMIT), (uint32_t)min64(batch, GRID_LIMIT)};
}

/* One block, two, or four have a multiprocessor of sm_90 or sm_100 to themselves. */
enum { FOR_ONE = 120 << 10, FOR_TWO = 76 << 10, FOR_FOUR = 48 << 10 };

static int has_228_kib(const struct row *row)
{
    return begins(row->arch, "sm_90") || begins(row->arch, "sm_100");
}

static int has_unit_alone(const struct attention_args *args, const struct row *row)
{
    return !two_fit(row) || unsplit_blocks(args, row) * args->splits <= args->units;
}

int splits_shared(const struct attention_args *args, const struct row *row)
{
    return splits_most_shared(row) && has_unit_alone(args, row) ? FOR_ONE : 0;
}

int splits_most_shared(const struct row *row)
{
    return (row->needs & NEED_COMBINE) && two_are_slower(row) && has_228_kib(row) ? FOR_ONE : 0;
}

/* Blocks come to multiprocessors that the first launch leaves free, or to its own ones as these become free, and
 * one that has three of them while others have none reads parts for longer (bench/notes/decode.md). A first launch
 * of less than a third leaves room for those of the problem behind it. Beside two blocks of a first launch that
 * share a multiprocessor, few blocks of many channels gain. */
int splits_combine_shared(const struct attention_args *args, const struct row *row)
{
    int64_t units = args->units, most = splits_most_combine_shared(row),
            first = min64(unsplit_blocks(args, row) * args->splits, units);
    struct grid grid = splits_combine_grid(args, row);
    int64_t blocks = (int64_t)grid.x * grid.y * grid.z;
    if (!most || 3 * first <= units) return 0;
    if (row->needs & NEED_SHARED_KV) {
        int64_t each = ceil_div(blocks, max64(units - first, first));
        return each == 1 ? FOR_ONE : each == 2 ? FOR_TWO : 0;
    }
    int alone = has_unit_alone(args, row);
    if (2 * blocks <= units && (alone || row->dv > 64)) return FOR_TWO;
    return alone && blocks <= 2 * units ? FOR_FOUR : 0;
}

int splits_most_combine_shared(const struct row *row)
{
    if (row->needs & NEED_SHARED_KV) return FOR_ONE;
    int decodes = row->dtype && (row->needs & NEED_PARTIALS) && !(row->needs & NEED_TILE_TOKENS);
    return decodes && (row->needs & NEED_EARLY) && has_228_kib(row) ? FOR_TWO : 0;
}
