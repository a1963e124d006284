/* mma_store_part.h: what a tile of an sm_80 forward leaves of its part of the keys (SPLIT_KEYS), as
 * combine.h wants it. */
#ifndef RAPT_MMA_STORE_PART_H
#define RAPT_MMA_STORE_PART_H

#include "nvidia/mma_forward.h"

static_assert(SPLIT == 1, "a lane has its rows' whole sums");

/* The maximum is here the row's reference. A row that sees no key of the part leaves -inf, 0, and
 * values of 0; one whose visible scores are all -inf the NaN of its values. Rows past the last query,
 * or of heads of the next group, are nobody's. */
DEVICE void store_part(const struct attention_args *a, const struct work *w,
                       const struct accumulator *acc)
{
    struct lane lane = lane_here();
    int end = (w->kv_head + 1) * a->group;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float l = sum_of_quad(acc->l[r]);
        int query = query_of(w, &lane, r), head = w->head + row_of(&lane, r) / w->tokens;
        if (query >= w->seq.q_length || head >= end) continue;
        int64_t row = partial_row(a, w->b, head, query);
        if (lane.t == 0) {
            float2 ends = {acc->m[r], l};
            *(float2 *)partial_lse_at(a, w->part, row) = ends;
        }
        float *to = partial_out_at(a, w->part, row, 2 * lane.t);
#pragma unroll
        for (int c = 0; c < CT; c++)
            if (8 * c + 2 * lane.t < a->v_channels) {
                float2 two = {acc->o[r / 2][c][r % 2 * 2], acc->o[r / 2][c][r % 2 * 2 + 1]};
                *(float2 *)(to + 8 * c) = two;
            }
    }
}

#endif
