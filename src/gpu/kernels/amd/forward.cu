/* forward.cu: fused forward for f16 and bf16 on the matrix units of AMD GPUs: MFMA (CDNA) and WMMA
 * (RDNA3, RDNA4). One block per (query tile, head, sequence). While a tile of K and V is multiplied,
 * the next one lies in registers and the one after is on its way. */
#include "amd/load.h"
#include "amd/store.h"
#include "amd/values.h"

enum { SECTION = 16 }; /* heads whose K and V share the L2 cache at a time; see place_of_block */

/* All keys of the tile, last to first: the masked ones come first. careful: values may be NaN or
 * infinite. */
DEVICE void walk_keys(const struct attention_args *a, const struct work *w, struct accumulator *acc,
                      operand (*q)[QK_CHUNKS], int careful)
{
    struct staged next;
    int key = (w->end_key - 1) / TILE_KV * TILE_KV;
    request_keys(a, w, key, &next);
    request_values(a, w, key, &next);
    store_keys(&next);
    store_values(&next);
    if (key > w->first_key) {
        request_keys(a, w, key - TILE_KV, &next);
        request_values(a, w, key - TILE_KV, &next);
    }
    block_barrier();
#pragma unroll 1
    for (; key >= w->first_key; key -= TILE_KV) {
        results s[QT][KT];
        operand p[QT][PV_CHUNKS];
        scores(s, q);
        block_barrier(); /* K is free, V is there */
        if (key > w->first_key) {
            store_keys(&next);
            if (key - TILE_KV > w->first_key) request_keys(a, w, key - 2 * TILE_KV, &next);
        }
        if (FEATURES) change_scores(s, a, w, key);
        if (FEATURES && a->mask.data) mask_by_tensor(s, a, w, key);
        if (has_hidden(a, w, key)) mask_scores(s, a, w, key);
        softmax_step(acc, s, p, FEATURES ? w->scale_log2 : a->scale_log2);
        if (careful) take_special_values(a, w, acc, key);
        add_values(acc, p);
        block_barrier(); /* V is free, K is there */
        if (key > w->first_key) {
            store_values(&next);
            if (key - TILE_KV > w->first_key) request_values(a, w, key - 2 * TILE_KV, &next);
        }
    }
}

/* One tile of one head. The result of a pass that is not finite is computed once more, with care.
 */
DEVICE void forward_tile(const struct attention_args *a, const struct work *w)
{
    struct accumulator acc;
    operand q[QT][QK_CHUNKS];
    int careful = 0;
    if (w->end_key > w->first_key) load_queries(a, w, q);
#pragma unroll 1
    do {
        start(a, w, &acc);
        if (w->end_key > w->first_key) walk_keys(a, w, &acc, q, careful);
    } while (!careful++ && any_in_block(!result_is_finite(&acc)));
    store_results(a, w, &acc);
}

KERNEL_ENTRY void LAUNCH(THREADS, 2) __attribute__((amdgpu_waves_per_eu(2)))
    KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int tiles = (a->q_tokens + TILE_Q - 1) / TILE_Q;
    int heads = smaller(a->q_heads, GRID_LIMIT), batches = smaller(a->batch, GRID_LIMIT);
    struct tile_place at = place_of_block(tiles, heads, batches, SECTION);
#pragma unroll 1
    for (int b = at.z; b < a->batch; b += batches) {
#pragma unroll 1
        for (int head = at.y; head < a->q_heads; head += heads) {
            struct work w = work_of(a, b, head, at.tile);
            if (w.first_query < w.seq.q_length) forward_tile(a, &w);
        }
    }
}
