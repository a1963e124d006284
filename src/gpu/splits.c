/* splits.c: how many blocks share the keys of a query row, and what their results take. */
#include "gpu/splits.h"
#include "base/error.h"

static int64_t ceil_div(int64_t x, int64_t y)
{
    return x / y + (x % y != 0);
}

static int64_t at_least(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

/* About as many blocks as run at once, two for each compute unit, or one that takes more than LARGE
 * bytes of its shared memory; none under SHORTEST keys: a second launch must pay. With
 * batch_invariant the cuts depend on nothing but the position of a key. */
void splits_choose(struct attention_args *args, const struct row *row)
{
    enum { SHORTEST = 128, INVARIANT = 1024, LARGE = 113 << 10 };
    int64_t tile = at_least(row->tile_kv, 1),
            tiles = ceil_div((int64_t)args->q_tokens * args->group, at_least(row->tile_q, 1));
    int64_t blocks = at_least(tiles * args->kv_heads * args->batch, 1), keys = INVARIANT;
    if (!args->batch_invariant) {
        int64_t parts = at_least((row->shared > LARGE ? 1 : 2) * (int64_t)args->units / blocks, 1);
        keys = at_least(ceil_div(args->kv_tokens, parts), SHORTEST);
    }
    keys = ceil_div(keys, tile) * tile;
    args->splits = (int32_t)at_least(ceil_div(args->kv_tokens, keys), 1);
    args->split_keys = (int32_t)keys;
}

rapt_status splits_bytes(const struct attention_args *args, int64_t rows, size_t *out, size_t *lse)
{
    int64_t channels = ceil_div(args->v_channels, 4) * 4, each, total;
    *out = *lse = 0;
    if (args->splits == 1) return RAPT_OK;
    if (__builtin_mul_overflow(rows, args->splits, &each) ||
        __builtin_mul_overflow(each, at_least(channels, 4), &total) || total > INT64_MAX / 8)
        return fail(RAPT_NO_MEMORY,
                    "rapt_plan_create: the sums of %lld query rows over %d parts of their keys do "
                    "not fit in 63 bits",
                    (long long)rows, args->splits);
    *out = (size_t)(each * channels) * 4;
    *lse = (size_t)each * 8;
    return RAPT_OK;
}
