/* forward_sm80.cu: fused forward for f16 and bf16 on every NVIDIA GPU from sm_80 on: mma.sync
 * m16n8k16, K and V through cp.async. One block per (query tile, head, sequence). While a tile of K
 * is multiplied, V is on its way; while P V runs, the next K is (the schedule of FlashAttention-2,
 * Dao 2023). */
#include "nvidia/mma_forward.h"

enum { SECTION = 16 }; /* heads whose K and V share the L2 cache at a time; see place_of_block */

/* All keys of the tile, last to first: the masked ones come first. careful: values may be NaN or
 * infinite. */
DEVICE void walk_keys(const struct attention_args *a, const struct work *w, struct accumulator *acc,
                      int careful)
{
    int key = (w->end_key - 1) / TILE_KV * TILE_KV;
    load_keys(a, w, key);
#pragma unroll 1
    for (; key >= w->first_key; key -= TILE_KV) {
        float s[RT][NT][4];
        uint32_t p[RT][NT / 2][4];
        copies_wait();
        block_barrier();
        load_values(a, w, key);
        scores(s);
        if (FEATURES) change_scores(s, a, w, key);
        if (FEATURES && a->mask.data) mask_by_tensor(s, a, w, key);
        if (has_hidden(a, w, key)) mask_scores(s, a, w, key);
        copies_wait();
        block_barrier();
        if (key > w->first_key) load_keys(a, w, key - TILE_KV);
        softmax_step(acc, s, p, FEATURES ? w->scale_log2 : a->scale_log2);
        if (careful) take_special_values(a, w, acc, key);
        add_values(acc, p);
    }
    copies_wait();
}

DEVICE void load_queries(const struct attention_args *a, const struct work *w)
{
    load_rows(q_tile(), TILE_Q, element_at(&a->q, w->seq.q_batch, w->head, w->seq.q_start, 0),
              a->q.stride[2] * 2, w->first_query, w->seq.q_length, a->channels);
}

/* One tile of one head. The result of a pass that is not finite is computed once more, with care.
 */
DEVICE void forward_tile(const struct attention_args *a, const struct work *w)
{
    struct accumulator acc;
    int careful = 0;
    if (w->end_key > w->first_key) load_queries(a, w);
#pragma unroll 1
    do {
        start(a, w, &acc);
        if (w->end_key > w->first_key) walk_keys(a, w, &acc, careful);
    } while (!careful++ && __syncthreads_or(!result_is_finite(&acc)));
    store_results(a, w, &acc);
}

KERNEL_ENTRY void LAUNCH(THREADS, 2) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    struct work *work = (struct work *)((char *)shared_memory + SHARED_BYTES - WORK_BYTES);
    const struct attention_args *a = ARGUMENT(attention_args, args);
    if (THREAD == 0) {
        int tiles = (a->q_tokens + TILE_Q - 1) / TILE_Q;
        struct tile_place at = place_of_block(tiles, smaller(a->q_heads, GRID_LIMIT),
                                              smaller(a->batch, GRID_LIMIT), SECTION);
        *work = work_of(a, at.z, at.y, at.tile);
    }
    block_barrier();
#pragma unroll 1
    while (work->b < a->batch) { /* more than one round only past the largest grid */
        if (work->first_query < work->seq.q_length) forward_tile(a, work);
        block_barrier();
        if (THREAD == 0) {
            int more_heads = work->head + GRID_LIMIT < a->q_heads,
                tile = work->first_query / TILE_Q;
            int b = more_heads ? work->b : work->b + GRID_LIMIT,
                head = more_heads ? work->head + GRID_LIMIT : work->head % GRID_LIMIT;
            if (b < a->batch) *work = work_of(a, b, head, tile);
            else work->b = b;
        }
        block_barrier();
    }
}
