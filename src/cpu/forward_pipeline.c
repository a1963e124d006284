/* forward_pipeline.c: whether a level's pipeline serves, and the way of an item's tiles through it. */
#include "base/integer.h"
#include "cpu/forward.h"

const struct cpu_pipeline_kernels *forward_pipeline_of(const struct problem *p,
                                                       const struct cpu_kernels *k)
{
    enum { CHANNELS = 32 };
    const rapt_attention *a = &p->a;
    if (a->weights.dtype || p->qk_channels % CHANNELS || p->v_channels % CHANNELS ||
        (p->q_tokens * p->group <= k->row_tile && !(p->ragged_q && a->batch_invariant)) ||
        a->k.dtype != a->q.dtype || a->v.dtype != a->q.dtype)
        return NULL;
    return a->q.dtype == RAPT_F32    ? k->pipeline_f32
           : a->q.dtype == RAPT_F16  ? k->pipeline_f16
           : a->q.dtype == RAPT_BF16 ? k->pipeline_bf16
                                     : NULL;
}

void forward_place_options(struct forward_item *t)
{
    for (int64_t r = 0; r < round_up(t->rows, CPU_PIPELINE_ROWS); r++)
        t->scratch.options[r] = forward_score_row(t, min64(r, t->rows - 1), 0);
}

static int options_are_plain(const struct forward_item *t)
{
    enum { EXACT_INTEGERS = 1 << 24 };
    const rapt_attention *a = t->call->a;
    int64_t bias = a->bias.dtype ? a->bias.stride[3] : 0,
            mask = a->mask.dtype ? a->mask.stride[3] : 0;
    return bias >= 0 && bias <= 1 && mask >= 0 && mask <= 1 &&
           t->sequence.kv_length + t->sequence.q_length < EXACT_INTEGERS;
}

/* Tiles first ... first + tiles - 1 against the packed block. */
static struct cpu_pipeline pipeline_tiles(struct forward_item *t, const struct forward_range *range,
                                          int64_t first, int64_t tiles)
{
    struct forward_scratch *w = &t->scratch;
    const struct problem *p = t->problem;
    int64_t r0 = forward_tile_start(t, first);
    struct cpu_pipeline x = {.q = t->q + r0 * t->q_stride,
                             .q_stride = t->q_stride,
                             .tiles = tiles,
                             .k_panels = w->k_panels,
                             .v_panels = w->v_panels,
                             .panel_keys = t->plan->key_block,
                             .qk_channels = p->qk_channels,
                             .v_channels = p->v_channels,
                             .key0 = range->key0,
                             .first = range->start,
                             .last = range->last,
                             .row_first = w->first + r0,
                             .row_last = w->last + r0,
                             .tile_low = w->tile_low + first,
                             .tile_high = w->tile_high + first,
                             .scale = t->exponent_scale,
                             .m = w->m + r0,
                             .l = w->l + r0,
                             .o = w->o + r0 * w->o_stride,
                             .o_stride = w->o_stride,
                             .nonfinite_row = t->has_nonfinite_rows ? w->nonfinite_row + r0 : NULL,
                             .nonfinite_key = t->has_nonfinite_keys ? w->nonfinite_key : NULL,
                             .k = &t->keys,
                             .options = t->score_options ? w->options + r0 : NULL,
                             .plain_options = options_are_plain(t),
                             .has_slopes = t->call->a->alibi_slope.dtype != 0,
                             .scratch = w->pipeline};
    t->plan->pipeline->run(&x);
    return x;
}

void forward_pipelined(struct forward_item *t, const struct forward_range *range)
{
    struct forward_tile tile;
    if (!t->unusual_count) {
        pipeline_tiles(t, range, 0, t->tiles);
        return;
    }
    /* Weights are needed afterwards. */
    for (int64_t i = 0; i < t->tiles; i++)
        for (int64_t key = (range->last - 1) / CPU_PIPELINE_KEYS * CPU_PIPELINE_KEYS;
             key > range->start - CPU_PIPELINE_KEYS; key -= CPU_PIPELINE_KEYS) {
            struct forward_range part = *range;
            part.start = max64(range->start, key);
            part.last = min64(range->last, key + CPU_PIPELINE_KEYS);
            if (!forward_place_tile(t, &part, i, &tile)) continue;
            struct cpu_pipeline x = pipeline_tiles(t, &part, i, 1);
            forward_note_seen(t, &tile);
            forward_add_unusual(t, &tile, &x);
        }
}
