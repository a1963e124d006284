/* odd.c: scores of queries and keys that hold NaN or infinity, for a pipeline whose elements are sums of
 * parts. */
#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/scalar/scalar.h"

#include <math.h>

static float query_value(const struct cpu_pipeline *x, int parts, int64_t row, int64_t c)
{
    const uint16_t *q = (const uint16_t *)((const float *)x->q + row * x->q_stride);
    float sum = 0;
    for (int i = 0; i < parts; i++) sum += float_from_bf16(q[i * x->qk_channels + c]);
    return sum;
}

/* A row of NaN has no other scores: asked first, as otherwise each would take all its channels. */
static int query_is_nan(const struct cpu_pipeline *x, int parts, int64_t row)
{
    for (int64_t c = 0; c < x->qk_channels; c++)
        if (isnan(query_value(x, parts, row, c))) return 1;
    return 0;
}

void scalar_score_odd(const struct cpu_pipeline *x, int parts, int64_t row, int64_t first, float *s,
                      int64_t width)
{
    int64_t from = max64(x->first, first), last = min64(x->last, first + width);
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++, s += width) {
        int odd = x->odd_row && x->odd_row[row + r], nan = odd && query_is_nan(x, parts, row + r);
        for (int64_t j = from; j < last; j++) {
            if (!odd && !(x->odd_key && x->odd_key[j])) continue;
            float sum = nan ? NAN : 0;
            for (int64_t c = 0; !isnan(sum) && c < x->qk_channels; c++)
                sum += query_value(x, parts, row + r, c) * scalar_row_value(x->k, j, c);
            s[j - first] = sum;
        }
    }
}
