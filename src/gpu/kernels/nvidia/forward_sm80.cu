/* forward_sm80.cu: fused forward for f16 and bf16 on every NVIDIA GPU from sm_80 on: mma.sync
 * m16n8k16, K and V through cp.async. One block per (query tile, head, sequence). While a tile of K
 * is multiplied, V is on its way; while P V runs, the next K is (the schedule of FlashAttention-2,
 * Dao 2023). */
#include "nvidia/mma_store.h"
#if SPLIT_KEYS
#include "nvidia/mma_store_part.h"
#define store_tile store_part
#else
#define store_tile store_results
#endif

#ifndef BLOCKS
#define BLOCKS 2 /* of a multiprocessor */
#endif

enum { SECTION = 16 }; /* heads whose K and V share the L2 cache at a time; see place_of_block */

DEVICE int last_tile(const struct work *w)
{
    return (w->end_key - 1) / TILE_KV * TILE_KV;
}

/* The tile of K that comes first, with what changes its scores. */
DEVICE void load_last_keys(const struct attention_args *a, const struct work *w)
{
    if (FEATURES) load_changes(a, w, last_tile(w));
    load_keys(a, w, last_tile(w));
}

/* All keys of the tile, last to first: the masked ones come first. The last tile of K is on its
 * way. careful: values may be NaN or infinite. */
DEVICE void walk_keys(const struct attention_args *a, const struct work *w, struct accumulator *acc,
                      int careful)
{
    int bursts = careful || (PAGES && a->page_table.data);
#pragma unroll 1
    for (int key = last_tile(w); key >= w->first_key; key -= TILE_KV) {
        float s[RT][NT][4], m[ROWS];
        uint32_t p[RT][NT / 2][4];
        int more = key > w->first_key, spread_k = SPREAD && a->channels == D && !bursts,
            spread_v = SPREAD && a->v_channels == D && !bursts && key + TILE_KV <= w->seq.kv_length;
        struct copies v = copies_of(v_tile(), w->v, a->v.stride[2] * 2, key, spread_v);
        copies_wait();
        block_barrier();
        if (!spread_v) load_values(a, w, key);
        scores(s, &v);
        copies_commit();
        if (FEATURES) change_scores(s, a, w, own_keys(key));
        if (FEATURES && a->mask.data) mask_by_tensor(s);
        if (has_hidden(a, w, own_keys(key))) mask_scores(s, a, w, own_keys(key));
        struct copies k =
            copies_of(k_tile(), w->k, a->k.stride[2] * 2, key - TILE_KV, more && spread_k);
        float scale = FEATURES ? w->scale_log2 : a->scale_log2;
        int unusual = SPLIT > 1 && find_maxima(acc, s, scale, m);
        copies_wait();
        if (SPLIT > 1) unusual = __syncthreads_or(unusual);
        else block_barrier();
        if (more && !spread_k) load_keys(a, w, key - TILE_KV);
        if (FEATURES && more) load_changes(a, w, key - TILE_KV);
        if (SPREAD && EARLY_K) copy_some(&k, COPIES); /* here, for want of registers */
        if (SPLIT == 1) unusual = __any_sync(~0u, find_maxima(acc, s, scale, m));
        softmax_step(acc, s, p, scale, m, unusual, &k);
        copies_commit();
        if (careful) take_special_values(a, w, acc, key);
        add_values(acc, p);
    }
    copies_wait();
    if (careful && !SPLIT_KEYS) clear_weightless(acc); /* parts: when they are added up */
}

DEVICE void load_queries(const struct attention_args *a, const struct work *w)
{
#if SPLIT_KEYS
    /* Sixteen rows are one head's. */
    int end = (w->kv_head + 1) * a->group;
#pragma unroll 1
    for (int row = 0; row < TILE_Q; row += 16) {
        int head = w->head + row / w->tokens;
        load_rows(q_tile() + row * PITCH, 16,
                  element_at(&a->q, w->seq.q_batch, head, w->seq.q_start, 0), a->q.stride[2] * 2,
                  w->first_query + (row & (w->tokens - 1)), head < end ? w->seq.q_length : 0,
                  a->channels);
    }
    return;
#endif
    load_rows(q_tile(), TILE_Q, element_at(&a->q, w->seq.q_batch, w->head, w->seq.q_start, 0),
              a->q.stride[2] * 2, w->first_query, w->seq.q_length, a->channels);
}

/* The tile anew, for a result that is not finite. A function of its own, so that neither its
 * registers nor its length are the common path's. */
static __device__ __noinline__ void repeat_with_care(const struct attention_args *a,
                                                     const struct work *w)
{
    struct accumulator acc;
    load_last_keys(a, w);
    start(a, w, &acc);
    walk_keys(a, w, &acc, 1);
    store_tile(a, w, &acc);
}

/* One tile of one head; its queries and its last tile of K are on their way. */
DEVICE void forward_tile(const struct attention_args *a, const struct work *w)
{
    struct accumulator acc;
    start(a, w, &acc);
    if (w->end_key > w->first_key) {
        walk_keys(a, w, &acc, 0);
        if (__syncthreads_or(!result_is_finite(&acc))) {
            repeat_with_care(a, w);
            return;
        }
    }
    store_tile(a, w, &acc);
}

/* The same with one loop for both passes: half the code, for the kernels that are large as it is. */
DEVICE void forward_tile_compact(const struct attention_args *a, const struct work *w)
{
    struct accumulator acc;
    int careful = 0, some = w->end_key > w->first_key;
#pragma unroll 1
    for (;;) {
        start(a, w, &acc);
        if (some) walk_keys(a, w, &acc, careful);
        if (careful || !__syncthreads_or(!result_is_finite(&acc))) break;
        careful = 1;
        if (some) load_last_keys(a, w);
    }
    store_tile(a, w, &acc);
}

/* Every thread knows the work while it starts the loads; then it lies in shared memory. */
DEVICE void share(const struct attention_args *a, struct work *work, const struct work *own)
{
    if (THREAD == 0) *work = *own;
    if (own->first_query >= own->seq.q_length) return;
    if (own->end_key > own->first_key) {
        load_queries(a, own);
        load_last_keys(a, own);
    }
}

DEVICE void forward(const struct attention_args *a, const struct work *w)
{
    if (w->first_query < w->seq.q_length) {
        if (FEATURES) forward_tile_compact(a, w);
        else forward_tile(a, w);
    }
}

#if SPLIT_KEYS
DEVICE void begin_part(const struct attention_args *a, struct work *work)
{
    struct part_place at = part_place_of_block(a);
    struct work own = work_of(a, at.b, at.head, at.tile);
    own.part = at.part, own.tokens = a->tile_tokens;
    take_part(a, at.part, &own.first_key, &own.end_key);
    share(a, work, &own);
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    struct work *work = (struct work *)((char *)shared_memory + SHARED_BYTES - WORK_BYTES);
    const struct attention_args *a = ARGUMENT(attention_args, args);
    begin_part(a, work);
    block_barrier();
    forward(a, work);
}
#else
DEVICE void begin(const struct attention_args *a, struct work *work, int b, int head, int tile)
{
    struct work own = work_of(a, b, head, tile);
    share(a, work, &own);
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    struct work *work = (struct work *)((char *)shared_memory + SHARED_BYTES - WORK_BYTES);
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int tiles = (a->q_tokens + TILE_Q - 1) / TILE_Q;
    struct tile_place at = {BLOCK_X, BLOCK_Y, BLOCK_Z};
    if (a->window_right < a->kv_tokens) /* tiles differ in length */
        at = place_of_block(tiles, smaller(a->q_heads, GRID_LIMIT), smaller(a->batch, GRID_LIMIT),
                            SECTION);
#pragma unroll 1
    for (;;) {
        begin(a, work, at.z, at.y, at.tile);
        block_barrier();
        forward(a, work);
        if (a->q_heads <= GRID_LIMIT && a->batch <= GRID_LIMIT) return;
        /* More rounds past the largest grid. */
        int more_heads = work->head + GRID_LIMIT < a->q_heads;
        at.tile = work->first_query / TILE_Q;
        at.z = more_heads ? work->b : work->b + GRID_LIMIT;
        at.y = more_heads ? work->head + GRID_LIMIT : work->head % GRID_LIMIT;
        if (at.z >= a->batch) return;
        block_barrier();
    }
}
#endif
