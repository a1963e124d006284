/* qkt_matmul.cu: scores = scale * Q K^T, one block per tile of TILE_Q queries and TILE_KV keys;
 * portable, f32 arithmetic. Keys past their sequence's length are not read; their scores are 0. */
#include "tile.h"

enum { PART = 64 }; /* channels staged at a time */
static_assert(SHARED_BYTES == (TILE_Q + TILE_KV) * PART * 4, "one part of Q and of K");

extern __shared__ float4 shared_memory[];

/* This thread's RN neighbouring scores of one row. */
DEVICE void store_scores(const struct attention_args *a, const struct sequence *seq, int head,
                         int query, int key, const float *s, int aligned)
{
    char *to = element_at(&a->scores, seq->q_batch, head, seq->q_start + query, key);
    if (aligned && key + RN <= a->columns) {
        store_four(to, a->scores.dtype, float4_of(s[0], s[1], s[2], s[3]));
        return;
    }
#pragma unroll
    for (int n = 0; n < RN; n++)
        if (key + n < a->columns) store_element(to, n * a->scores.stride[3], a->scores.dtype, s[n]);
}

DEVICE void score_tile(const struct attention_args *a, int b, int head, int tile)
{
    a = AGAIN(attention_args, a);
    struct sequence seq = sequence_of(a, b);
    int first_query = tile * TILE_Q, first_key = BLOCK_X * TILE_KV;
    if (first_query >= seq.q_length) return;
    int kv_head = head / a->group, limit = smaller(seq.kv_length, a->columns);
    struct rows q = rows_of(a, &a->q, seq.q_batch, head, seq.q_start, a->channels);
    struct rows k = rows_of(a, &a->k, seq.kv_batch, kv_head, seq.kv_start, a->channels);
    rows_add_pages(&k, b, kv_head);
    rows_add_scale(&q, &a->q_scale, &a->q_block, seq.q_batch, head, seq.q_start);
    rows_add_scale(&k, &a->k_scale, &a->k_block, seq.kv_batch, kv_head, seq.kv_start);
    float4 *q_tile = shared_memory, *k_tile = q_tile + TILE_Q * PART / 4;
    float s[RM][RN] = {};
#pragma unroll 1
    for (int c = 0; c < a->channels && first_key < limit; c += PART) {
        block_barrier();
        load_tile(q_tile, TILE_Q, PART / 4, SWIZZLE_ROW, &q, first_query, seq.q_length, c);
        load_tile(k_tile, TILE_KV, PART / 4, SWIZZLE_KEY, &k, first_key, limit, c);
        block_barrier();
        add_scores(s, q_tile, PART / 4, 0, k_tile, PART / 4, PART / 4);
    }
    a = AGAIN(attention_args, a);
    int aligned = runs_aligned(&a->scores, RN);
#pragma unroll
    for (int i = 0; i < RM; i++) {
        int query = first_query + THREAD / LANES + ROW_LANES * i,
            key = first_key + THREAD % LANES * RN;
#pragma unroll
        for (int n = 0; n < RN; n++) s[i][n] *= a->scale;
        if (query < seq.q_length) store_scores(a, &seq, head, query, key, s[i], aligned);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int64_t pairs = (int64_t)a->batch * a->q_heads;
    for (int64_t pair = BLOCK_Z; pair < pairs; pair += GRID_LIMIT)
        for (int tile = BLOCK_Y; tile * TILE_Q < a->q_tokens; tile += GRID_LIMIT)
            score_tile(a, (int)(pair / a->q_heads), (int)(pair % a->q_heads), tile);
}
