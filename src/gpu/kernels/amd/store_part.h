/* store_part.h: what a tile of the AMD forward leaves of its part of the keys (SPLIT_KEYS), as
 * combine.h wants it. */
#ifndef RAPT_AMD_STORE_PART_H
#define RAPT_AMD_STORE_PART_H

#include "amd/scores.h"
#include "amd/softmax.h"

/* RUN neighbouring channels from register v on. */
DEVICE void store_run(float *to, results o, int v)
{
    if (RUN < 4) {
        STORE(float, to, o[v]);
        return;
    }
#pragma unroll
    for (int i = 0; i < RUN; i += 4)
        STORE(float4, to + i, float4_of(o[v + i], o[v + i + 1], o[v + i + 2], o[v + i + 3]));
}

/* Of a row that sees no key of the part they are -inf, 0, and values of 0; visible scores that are all
 * -inf leave NaN of the values that they meet. Rows past the last query, or of heads of
 * the next group, are nobody's. */
DEVICE void store_part(const struct attention_args *a, const struct work *w,
                       const struct accumulator *acc)
{
    int lane = fresh(THREAD) % WAVE, half = lane / EDGE, end = (w->kv_head + 1) * a->group;
#pragma unroll
    for (int r = 0; r < QT; r++) {
        float l = acc->l[r] + lane_xor(acc->l[r], EDGE);
        int query = query_of(w, r, lane), head = head_of(w, r, lane);
        if (query >= w->seq.q_length || head >= end) continue;
        int64_t row = partial_row(a, w->b, head, query);
        if (half == 0) {
            float2 ends = {acc->m[r], l};
            STORE(float2, partial_lse_at(a, w->part, row), ends);
        }
        float *to = partial_out_at(a, w->part, row, half * HALF_ROWS);
#pragma unroll
        for (int c = 0; c < CT; c++) {
            results o = acc->o[r][c];
#pragma unroll
            for (int v = 0; v < RESULTS; v += RUN) store_run(to + c * EDGE + row_of(v), o, v);
        }
    }
}

#endif
