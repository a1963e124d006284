/* weighted_matmul.cu: out = weights V, one block per tile of TILE_Q queries and DV channels at a
 * time; portable, f32 arithmetic. A weight of 0 does not touch its value, which may be NaN. */
#include "tile.h"

enum { V_KEYS = TILE_KV / 2 }; /* values staged at a time */
static_assert(SHARED_BYTES == (TILE_Q * TILE_KV + V_KEYS * DV) * 4, "weights and values");

extern __shared__ float4 shared_memory[];

DEVICE void weigh_channels(const struct attention_args *a, const struct sequence *seq, int head,
                           const struct rows *weights, const struct rows *v, int first_query,
                           int first_channel, int limit)
{
    float4 *p = shared_memory, *stage = p + TILE_Q * TILE_KV / 4;
    float4 o[RM][NC];
#pragma unroll
    for (int i = 0; i < RM; i++)
#pragma unroll
        for (int j = 0; j < NC; j++) o[i][j] = float4_of(0, 0, 0, 0);
#pragma unroll 1
    for (int key = 0; key < limit; key += TILE_KV) {
        block_barrier();
        load_tile(p, TILE_Q, TILE_KV / 4, SWIZZLE_ROW, weights, first_query, seq->q_length, key);
#pragma unroll 1
        for (int part = 0; part < TILE_KV && key + part < limit; part += V_KEYS) {
            if (part) block_barrier();
            load_tile(stage, V_KEYS, DV / 4, SWIZZLE_NONE, v, key + part, limit, first_channel);
            block_barrier();
            add_values(o, p, part, stage, V_KEYS, 1, 0, 0x7fffffffu);
        }
    }
    int rows = smaller(TILE_Q, seq->q_length - first_query),
        channels = a->v_channels - first_channel;
    /* The result goes out through the stage, as many rows at a time as it holds. */
#pragma unroll
    for (int i = 0; i < RM; i++) {
        block_barrier();
        int x = THREAD % LANES, y = THREAD / LANES;
#pragma unroll
        for (int j = 0; j < NC; j++) stage[y * (DV / 4) + x + LANES * j] = o[i][j];
        block_barrier();
        a = AGAIN(attention_args, a);
        struct view out = a->out;
        out.data = element_at(&a->out, 0, 0, 0, first_channel);
        store_tile(stage, smaller(ROW_LANES, rows - ROW_LANES * i), &out, seq->q_batch, head,
                   seq->q_start + first_query + ROW_LANES * i, channels);
    }
}

DEVICE void weigh_tile(const struct attention_args *a, int b, int head)
{
    a = AGAIN(attention_args, a);
    struct sequence seq = sequence_of(a, b);
    int first_query = BLOCK_X * TILE_Q, kv_head = head / a->group;
    if (first_query >= seq.q_length) return;
    int limit = smaller(seq.kv_length, a->columns);
    struct rows weights = rows_of(a, &a->weights, seq.q_batch, head, seq.q_start, limit);
    weights.aligned = runs_aligned(&a->weights, 4) && a->columns % 4 == 0;
    struct rows v = rows_of(a, &a->v, seq.kv_batch, kv_head, seq.kv_start, a->v_channels);
    rows_add_pages(&v, b, kv_head);
    rows_add_scale(&v, &a->v_scale, &a->v_block, seq.kv_batch, kv_head, seq.kv_start);
#pragma unroll 1
    for (int c = 0; c < a->v_channels; c += DV) {
        weigh_channels(a, &seq, head, &weights, &v, first_query, c, limit);
        a = AGAIN(attention_args, a);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    for (int b = BLOCK_Z; b < a->batch; b += GRID_LIMIT)
        for (int head = BLOCK_Y; head < a->q_heads; head += GRID_LIMIT) {
            weigh_tile(a, b, head);
            a = AGAIN(attention_args, a);
        }
}
