/* forward_unusual.c: rows of V that hold NaN or infinity, or nothing but what the parts of a pipeline would lose. They
 * are packed as zeros (forward_pack_values), as 0 times NaN would reach rows that do not see them, and added to just
 * the rows that do. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/forward.h"

/* Notes which rows of the tile see which unusual value. A score of -inf hides nothing: the weight is
 * 0, and 0 * NaN is NaN. */
void forward_note_seen(struct forward_item *t, const struct forward_tile *tile)
{
    struct forward_scratch *w = &t->scratch;
    int64_t stride = t->plan->key_block, mask_stride = t->call->a->mask.stride[3];
    for (int64_t i = 0; i < tile->rows; i++) {
        const unsigned char *mask = forward_operand(t, &t->call->a->mask, tile->r0 + i, tile->key0);
        for (int64_t n = 0; n < t->unusual_count; n++) {
            int64_t j = w->unusual[n];
            int inside = j >= max64(tile->row_first[i], tile->first) &&
                         j < min64(tile->row_last[i], tile->last);
            w->seen[i * stride + n] = inside && (!mask || mask[j * mask_stride]);
        }
    }
}

/* Of row i of the tile and column j of the block. */
static float weight_at(const struct forward_item *t, const struct cpu_pipeline *x, int64_t i,
                       int64_t j)
{
    const float *s = t->scratch.s + i * t->plan->key_block;
    float sum = 0;
    if (!x) return t->kernels->pair == 1 ? s[j] : float_from_bf16(((const uint16_t *)s)[j]);
    for (int part = 0; part < t->plan->pipeline->parts; part++)
        sum += float_from_bf16(x->p[part * x->p_part + i * x->p_stride + j - x->p_first]);
    return sum;
}

/* For the values that were left out, in just the rows that see them. */
void forward_add_unusual(struct forward_item *t, const struct forward_tile *tile,
                         const struct cpu_pipeline *x)
{
    struct forward_scratch *w = &t->scratch;
    int64_t stride = t->plan->key_block, channels = t->problem->v_channels;
    for (int64_t n = 0; n < t->unusual_count; n++) {
        int64_t j = w->unusual[n];
        for (int64_t c = 0; c < channels; c++) w->row[c] = scalar_row_value(&t->values, j, c);
        for (int64_t i = 0; i < tile->rows; i++) {
            if (!w->seen[i * stride + n]) continue;
            float weight = weight_at(t, x, i, j), *o = w->o + (tile->r0 + i) * w->o_stride;
            for (int64_t c = 0; c < channels; c++) o[c] += weight * w->row[c];
        }
    }
}
