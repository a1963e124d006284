/* sm90_store_part.h: what a tile that shares its rows' keys with others leaves of its part
 * (SPLIT_KEYS), as combine.h wants it. */
#ifndef RAPT_NVIDIA_SM90_STORE_PART_H
#define RAPT_NVIDIA_SM90_STORE_PART_H

#include "sm90_store.h"

/* row, and the result: as in store_tile(). The maximum is here the row's reference. A row that sees no key of the part
 * leaves -inf, 0, and values of 0, when it is repaired at the latest: the values count nothing. */
DEVICE bool store_part(const struct attention_args &a, const struct tile &t, float (&o)[VALUES / 2],
                       struct row_state r, int row, int lane)
{
    r.sum0 += __shfl_xor_sync(~0u, r.sum0, 2);
    r.sum1 += __shfl_xor_sync(~0u, r.sum1, 2);
    r.sum0 += __shfl_xor_sync(~0u, r.sum0, 1);
    r.sum1 += __shfl_xor_sync(~0u, r.sum1, 1);
    int token = t.rows * a.tile_tokens + token_of_row(a, row), head = t.head + row / a.tile_tokens;
    bool exists = head < t.head - t.head % a.group + a.group, row0 = exists && token < a.q_tokens,
         row1 = exists && token + 8 < a.q_tokens;
    int64_t at = partial_row(&a, t.batch, head, token);
    if ((lane & 3) == 0) {
        float *ends = partial_lse_at(&a, t.part, at);
        if (row0) *(float2 *)ends = make_float2(r.reference0, r.sum0);
        if (row1) *(float2 *)(ends + 16) = make_float2(r.reference1, r.sum1);
    }
    store_f32(o, 1, 1, partial_out_at(&a, t.part, at, 0), DV, row0, row1, 2 * (lane & 3), DV);
    return (row0 && unset(r.sum0, r.reference0)) || (row1 && unset(r.sum1, r.reference1)) ||
           ((mendable(r.sum0) || mendable(r.sum1)) && any_nan(o));
}

#endif
