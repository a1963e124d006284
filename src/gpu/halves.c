/* halves.c: f32 in parts of 16 bits: their views, and the room for them and for what says which
 * rows two parts cannot hold. */
#include "gpu/halves.h"
#include "base/error.h"
#include "base/integer.h"

/* Blocks of PART_KEYS keys of one head, with ragged keys of all sequences: each begins one. */
static int64_t key_blocks(const struct problem *p)
{
    return p->ragged_kv ? p->kv_tokens / PART_KEYS + p->batch : ceil_div(p->kv_tokens, PART_KEYS);
}

/* Dense [HALVES * batch, head, token, channel]: the largest parts of all sequences first. */
static struct view half_view(const rapt_tensor *t, int64_t tokens, int64_t channels)
{
    struct view v = {
        NULL, {t->size[1] * tokens * channels, tokens * channels, channels, 1}, DTYPE_bf16};
    return v;
}

/* Repeated or overlapping tensors may have more elements than memory. */
static int bytes_of_halves(const rapt_tensor *t, int64_t tokens, int64_t channels, size_t *bytes)
{
    int64_t x;
    if (__builtin_mul_overflow(t->size[0] * t->size[1], tokens, &x) ||
        __builtin_mul_overflow(x, channels * HALVES * 2, &x) || x > INT64_MAX / 8)
        return 0;
    *bytes = (size_t)x;
    return 1;
}

rapt_status halves_views(struct attention_args *args, const struct row *row,
                         const struct problem *p, size_t bytes[3])
{
    const rapt_tensor *tensors[3] = {&p->a.q, &p->a.k, &p->a.v};
    struct view *half[3] = {&args->q_half, &args->k_half, &args->v_half};
    const int64_t channels[3] = {row->d, row->d, row->dv};
    for (int i = 0; i < 3; i++) {
        int64_t tokens = tensors[i]->size[2];
        if (i > 0 && (row->can & CAN_RAGGED_KV)) tokens = key_blocks(p) * PART_KEYS;
        if (!bytes_of_halves(tensors[i], tokens, channels[i], &bytes[i]))
            return fail(RAPT_NO_MEMORY,
                        "rapt_plan_create: the 16-bit parts of %c, %lld x %lld x %lld rows, do not "
                        "fit in 63 bits",
                        "qkv"[i], (long long)tensors[i] -> size[0],
                        (long long)tensors[i] -> size[1], (long long)tokens);
        *half[i] = half_view(tensors[i], tokens, channels[i]);
    }
    return RAPT_OK;
}

struct strict_bytes halves_strict(struct attention_args *args, const struct problem *p)
{
    int64_t q_heads = p->a.q.size[0] * p->q_heads, kv_heads = p->a.k.size[0] * p->kv_heads;
    int64_t queries = p->ragged_q ? p->q_tokens / 16 + p->batch : ceil_div(p->q_tokens, 16);
    int64_t keys = key_blocks(p);
    args->wide_queries = (int32_t)queries;
    args->wide_keys = (int32_t)keys;
    return (struct strict_bytes){.factors = (size_t)(kv_heads * keys * PART_KEYS) * 16,
                                 .blocks = (size_t)(q_heads * queries + 2 * kv_heads * keys) * 4,
                                 .heads = (size_t)(p->batch * p->kv_heads + 1) * 4};
}

int64_t halves_split_blocks(const struct attention_args *args, const struct row *row,
                            const struct problem *p)
{
    int64_t tasks = 2 * p->a.k.size[0] * p->kv_heads * args->wide_keys;
    int64_t ahead = 2 * (int64_t)args->units;
    return ceil_div(ahead < tasks ? ahead : tasks, row->threads / 128);
}
