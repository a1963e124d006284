/* sm90_store_part.h: what a tile that shares its rows' keys with others leaves of its part
 * (SPLIT_KEYS), as combine.h wants it. */
#ifndef RAPT_NVIDIA_SM90_STORE_PART_H
#define RAPT_NVIDIA_SM90_STORE_PART_H

#include "sm90_store.h"

/* Whether a row sees a key of the tile. */
DEVICE bool sees_part(const struct attention_args &a, const struct tile &t, int token)
{
    int position = token + query_offset(a, &t),
        begin = max_int(position - a.window_left, t.key_begin * KEYS),
        end = min_int(position + a.window_right + 1, min_int(t.kv_tokens, t.key_end * KEYS));
    return begin < end;
}

/* Maximum, which here is the row's reference, and sum, to what adds up the parts. */
DEVICE void store_ends(float *to, bool sees, float reference, float sum)
{
    *(float2 *)to = sees ? make_float2(reference, sum) : make_float2(-INFINITY, NO_KEYS);
}

/* row, keep0, keep1, and the result: as in store_tile(). Maximum and sum do not depend on V and are
 * always stored. */
DEVICE bool store_part(const struct attention_args &a, const struct tile &t, float (&o)[VALUES / 2],
                       struct row_state r, int row, int lane, bool keep0 = true, bool keep1 = true)
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
        if (row0) store_ends(ends, sees_part(a, t, token), r.reference0, r.sum0);
        if (row1) store_ends(ends + 16, sees_part(a, t, token + 8), r.reference1, r.sum1);
    }
    store_f32(o, 1, 1, partial_out_at(&a, t.part, at, 0), DV, row0 && keep0, row1 && keep1,
              2 * (lane & 3), DV);
    return (row0 && unset(r.sum0, r.reference0)) || (row1 && unset(r.sum1, r.reference1)) ||
           ((mendable(r.sum0) || mendable(r.sum1)) && any_nan(o));
}

#endif
