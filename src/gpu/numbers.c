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
                        : at_least(ceil_div(p->kv_tokens, row->tile_kv), 1);
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
            channels = at_least(numbers, row->d);
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

/* Measured on an H100 (bench/notes/decode.md): so many query rows of a key, and so many rows times keys of
 * a sequence, for a launch more takes time. */
static int pays(const struct problem *p, const struct row *row, int64_t least_rows,
                int64_t least_work)
{
    const int64_t most_bytes = 512 << 20;
    int64_t of_block = row->tile_kv * (row->d + value_numbers(row)) * 2,
            most = most_bytes / of_block / at_least(batches(p) * p->kv_heads, 1),
            sequences = at_least(p->batch, 1),
            queries = p->ragged_q ? p->q_tokens / sequences : p->q_tokens,
            keys = p->ragged_kv ? p->kv_tokens / sequences : p->kv_tokens,
            seen_by = at_most(p->window_left, WINDOW_LIMIT) +
                      at_most(p->window_right, WINDOW_LIMIT) + row->tile_q, /* by tiles */
        rows = at_most(seen_by, queries) * p->group;
    return !p->a.batch_invariant && key_blocks(p, row) <= most && rows >= least_rows &&
           rows * keys >= least_work;
}

/* Fewer rows where whole tiles serve, each of which would make the numbers. */
int numbers_pay_whole(const struct problem *p, const struct row *row)
{
    return pays(p, row, 512, 1 << 20);
}

int numbers_pay(const struct problem *p, const struct row *row)
{
    /* several scales: else decode rows serve, whose time is that of all sequences */
    if (row->needs & NEED_BLOCK_SCALES) return pays(p, row, 256, p->batch > 1 ? 1 << 19 : 1 << 20);
    return row->needs & NEED_TILE_TOKENS ? pays(p, row, 768, 1 << 20) : numbers_pay_whole(p, row);
}
