/* numbers.c: i8 keys and values as numbers of q's type: their views, the room for them, and where they
 * pay. */
#include "gpu/numbers.h"
#include "base/error.h"
#include "base/integer.h"

/* Sequences that have numbers of their own on the batch axis: not packed ones. */
static int64_t batches(const struct problem *p)
{
    return p->ragged_kv ? 1 : p->batch;
}

/* Of tile_kv keys, of a sequence or of all packed ones, each of which begins a block; a tile asks
 * for one even if there are no keys. */
static int64_t key_blocks(const struct problem *p, const struct row *row)
{
    return p->ragged_kv ? p->kv_tokens / row->tile_kv + p->batch
                        : max64(ceil_div(p->kv_tokens, row->tile_kv), 1);
}

/* Scales of a key. */
static int64_t scales_of(const struct row *row)
{
    return row->needs & NEED_BLOCK_SCALES ? row->d / 32 : 1;
}

/* Numbers of a value: with several scales each of its channels has two, which add up. */
static int64_t value_numbers(const struct row *row)
{
    return row->needs & NEED_BLOCK_SCALES ? 2 * (int64_t)row->dv : row->dv;
}

static struct view dense(const struct problem *p, int64_t tokens, int64_t channels, int64_t dtype)
{
    struct view v = {
        NULL, {p->kv_heads * tokens * channels, tokens * channels, channels, 1}, dtype};
    return v;
}

rapt_status numbers_views(struct attention_args *args, const struct row *row,
                          const struct problem *p, struct number_bytes *bytes)
{
    int64_t blocks = key_blocks(p, row), keys = row->tile_kv, numbers = value_numbers(row), all,
            channels = max64(numbers, row->d);
    if (__builtin_mul_overflow(batches(p) * p->kv_heads, blocks, &all) ||
        all > INT64_MAX / ((channels + 4) * 8 * keys))
        return fail(
            RAPT_NO_MEMORY,
            "rapt_plan_create: the numbers of %lld x %lld blocks of %lld keys do not fit in "
            "63 bits",
            (long long)(batches(p) * p->kv_heads), (long long)blocks, (long long)keys);
    args->wide_keys = (int32_t)blocks;
    args->k_half = dense(p, blocks * keys, row->d, p->a.q.dtype);
    args->v_half = dense(p, blocks * keys, numbers,
                         row->needs & NEED_BLOCK_SCALES ? DTYPE_bf16 : p->a.q.dtype);
    bytes->k = (size_t)(all * keys * row->d) * 2;
    bytes->v = (size_t)(all * keys * numbers) * 2;
    bytes->scales = (size_t)(all * SCALE_WORDS(scales_of(row), keys)) * 4;
    return RAPT_OK;
}

/* Measured on an H100 (bench/notes/decode.md): a launch more takes time. */
struct least {
    int64_t rows, windowed; /* query rows of a key; where a window bounds them */
    int64_t work, all;      /* rows times keys of a sequence, and of all KV heads and sequences */
};

static int pays(const struct problem *p, const struct row *row, struct least least)
{
    const int64_t most_bytes = 512 << 20;
    int64_t of_block = row->tile_kv * (row->d + value_numbers(row)) * 2,
            sets = max64(batches(p) * p->kv_heads, 1), most = most_bytes / of_block / sets,
            sequences = max64(p->batch, 1),
            queries = p->ragged_q ? p->q_tokens / sequences : p->q_tokens,
            keys = p->ragged_kv ? p->kv_tokens / sequences : p->kv_tokens,
            seen_by = min64(p->window_left, WINDOW_LIMIT) + min64(p->window_right, WINDOW_LIMIT) +
                      row->tile_q, /* by tiles */
        rows = min64(seen_by, queries) * p->group;
    return !p->a.batch_invariant && key_blocks(p, row) <= most &&
           rows >= (seen_by < queries ? least.windowed : least.rows) && rows * keys >= least.work &&
           sequences * p->kv_heads * rows * keys >= least.all;
}

/* Fewer rows where whole tiles serve, each of which would make the numbers. */
int numbers_pay_whole(const struct problem *p, const struct row *row)
{
    return pays(p, row, (struct least){512, 512, 1 << 20, 0});
}

int numbers_pay(const struct problem *p, const struct row *row)
{
    /* several scales: else decode rows serve, whose time is that of all KV heads and sequences */
    if ((row->needs & NEED_BLOCK_SCALES) && row->d > 64)
        return pays(p, row, (struct least){96, 256, 0, 3 << 20});
    if (row->needs & NEED_BLOCK_SCALES) return pays(p, row, (struct least){128, 256, 0, 1 << 22});
    return (row->needs & NEED_TILE_TOKENS) ? pays(p, row, (struct least){768, 768, 1 << 20, 0})
                                           : numbers_pay_whole(p, row);
}

/* Decode rows take longer over several scales. A whole tile has queries of one head, and few of them leave it half
 * empty. */
int numbers_fill_tiles(const struct problem *p, const struct row *row)
{
    int64_t sequences = p->ragged_q ? max64(p->batch, 1) : 1;
    if (row->needs & NEED_BLOCK_SCALES) return p->q_tokens * (p->group + 1) >= 240 * sequences;
    return p->q_tokens * p->group >= 512 * sequences;
}
