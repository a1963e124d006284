/* pipeline_nonfinite.c: scores of queries and keys that hold NaN or infinity, for pipeline_amx.c, whose elements are
 * sums of parts. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/scalar/scalar.h"
#include "cpu/x86/pipeline_scores.h"

#include <math.h>

static float query_value(const struct cpu_pipeline *x, int parts, int64_t row, int64_t c)
{
    const uint16_t *q = (const uint16_t *)((const float *)x->q + row * x->q_stride);
    float sum = 0;
    for (int i = 0; i < parts; i++) sum += float_from_bf16(q[i * x->qk_channels + c]);
    return sum;
}

/* The channels of a row of q that hold infinity: as many as fit, all being more than those. */
struct infinities {
    int64_t channel[16], count;
    int nan;
};

static struct infinities infinities_of(const struct cpu_pipeline *x, int parts, int64_t row)
{
    struct infinities found = {.count = 0};
    for (int64_t c = 0; c < x->qk_channels && !found.nan; c++) {
        float value = query_value(x, parts, row, c);
        found.nan = isnan(value);
        if (!isinf(value)) continue;
        if (found.count < (int64_t)(sizeof found.channel / sizeof *found.channel))
            found.channel[found.count] = c;
        found.count++;
    }
    return found;
}

/* Beside a key of finite channels, only what is infinite in q counts. */
static float score(const struct cpu_pipeline *x, int parts, int64_t row, int64_t j,
                   const struct infinities *q, int nonfinite_key)
{
    int all =
        nonfinite_key || !q->count || q->count > (int64_t)(sizeof q->channel / sizeof *q->channel);
    int64_t count = all ? x->qk_channels : q->count;
    float sum = q->nan ? NAN : 0;
    for (int64_t i = 0; !isnan(sum) && i < count; i++) {
        int64_t c = all ? i : q->channel[i];
        sum += query_value(x, parts, row, c) * scalar_row_value(x->k, j, c);
    }
    return sum;
}

void pipeline_score_nonfinite(const struct cpu_pipeline *x, int parts, int64_t row, int64_t first,
                              float *s, int64_t width)
{
    int64_t from = max64(x->first, first), last = min64(x->last, first + width);
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++, s += width) {
        int nonfinite_row = x->nonfinite_row && x->nonfinite_row[row + r];
        struct infinities q = {.count = 0};
        if (nonfinite_row) q = infinities_of(x, parts, row + r);
        for (int64_t j = from; j < last; j++) {
            int nonfinite_key = x->nonfinite_key && x->nonfinite_key[j];
            if (nonfinite_row || nonfinite_key)
                s[j - first] = score(x, parts, row + r, j, &q, nonfinite_key);
        }
    }
}
