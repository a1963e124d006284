/* forward.cu: fused forward for f16 and bf16 on the matrix units of AMD GPUs: MFMA (CDNA) and WMMA
 * (RDNA3, RDNA4). One block per (query tile, head, sequence). While a tile of K and V is
 * multiplied, the next one lies in registers and the one after is on its way. */
#include "amd/load.h"
#include "amd/store.h"
#include "amd/values.h"
#if SPLIT_KEYS
#include "amd/store_part.h"
#define store_tile store_part
#else
#define store_tile store_results
#endif

enum { SECTION = 16 }; /* heads whose K and V share the L2 cache at a time; see place_of_block */

/* Whether weights of score tile 0 are made while products run. */
enum { MEANWHILE = KT > 1 && !Q_STREAMED };

/* Whether the products of the tile that starts at key are not yet the scores. */
DEVICE int has_options(const struct attention_args *a, const struct work *w, int key)
{
    return (FEATURES && w->changes) || has_hidden(a, w, key);
}

DEVICE void finish_scores(results (*s)[KT], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (FEATURES) change_scores(s, a, w, key);
    if (has_hidden(a, w, key)) mask_scores(s, a, w, key);
}

/* All keys of the tile, last to first: the masked ones come first. The next tile is requested a
 * whole one ahead, or with LATE while the products run that precede its store. */
DEVICE void walk_keys(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    struct staged next;
    operand q[QT][QK_CHUNKS];
    float scale = FEATURES ? w->scale_log2 : a->scale_log2;
    int key = (w->end_key - 1) / TILE_KV * TILE_KV;
    struct source from = source_of(a, w, key - TILE_KV);
    request_keys_slowly(a, w, key, &next);
    if (LATE) store_keys(&from, &next);
    request_values_slowly(a, w, key, &next);
    if (!LATE) store_keys(&from, &next);
    store_values(&from, &next);
    struct query_rows rows = query_rows_of(a, w);
    if (!Q_STREAMED) load_queries(&rows, q);
    if (!LATE && key > w->first_key) {
        request_keys(a, w, key - TILE_KV, &from, &next);
        request_values(a, w, key - TILE_KV, &from, &next);
    }
    start(a, w, acc); /* here: its registers hold nothing before */
    block_barrier();
#pragma unroll 1
    for (; key >= w->first_key; key -= TILE_KV) {
        results s[QT][KT];
        operand p[QT][CHUNKS_OF_EDGE];
        struct weighing weights;
        int more = key > w->first_key, yet_more = key - TILE_KV > w->first_key;
        if (LATE) a = fresh_args(a); /* scalars are few, too */
        if (LATE && more) request_keys(a, w, key - TILE_KV, &from, &next);
        begin_weights(&weights, acc, scale);
        if (has_options(a, w, key)) {
            scores(s, q, Q_STREAMED ? STREAMED : PLAIN, &weights, &rows);
            finish_scores(s, a, w, key);
            if (MEANWHILE) weigh_all(&weights, s, 0);
        } else {
            scores(s, q, Q_STREAMED ? STREAMED : WITH_WEIGHTS, &weights, &rows);
        }
        block_barrier(); /* K is free, V is there */
        store_keys(&from, &next);
        if (!LATE && yet_more) request_keys(a, w, key - 2 * TILE_KV, &from, &next);
        if (!MEANWHILE) weigh_all(&weights, s, 0);
#pragma unroll
        for (int n = 0; n < KT; n++) {
            settle_weights(acc, s, p, scale, n, &weights);
            if (n + 1 < KT) begin_weights(&weights, acc, scale);
            if (LATE && !n && more) request_values(a, w, key - TILE_KV, &from, &next);
            add_values(acc, p, n, n + 1 < KT, &weights, s);
        }
        block_barrier(); /* V is free, K is there */
        store_values(&from, &next);
        if (!LATE && yet_more) request_values(a, w, key - 2 * TILE_KV, &from, &next);
    }
}

/* The same results for finite data, bit by bit, tile after tile, with little in registers. careful:
 * right ones too where values are NaN or infinite; slow. */
DEVICE void walk_keys_directly(const struct attention_args *a, const struct work *w,
                               struct accumulator *acc, int careful)
{
    if (Q_SHARED && !careful) { /* with care: they lie there already */
        operand q[QT][QK_CHUNKS];
        struct query_rows rows = query_rows_of(a, w);
        load_queries(&rows, q);
    }
    start(a, w, acc);
#pragma unroll 1
    for (int key = (w->end_key - 1) / TILE_KV * TILE_KV; key >= w->first_key; key -= TILE_KV) {
        struct staged tile;
        operand q[QT][QK_CHUNKS], p[QT][CHUNKS_OF_EDGE];
        results s[QT][KT];
        struct weighing weights;
        a = fresh_args(a);
        float scale = FEATURES ? w->scale_log2 : a->scale_log2;
        struct source places = source_of(a, w, key);
        request_keys_slowly(a, w, key, &tile);
        store_keys(&places, &tile);
        request_values_slowly(a, w, key, &tile);
        store_values(&places, &tile);
        struct query_rows rows = query_rows_of(a, w);
        block_barrier();
        scores(s, q, Q_SHARED ? PLAIN : STREAMED, &weights, &rows);
        finish_scores(s, a, w, key);
#pragma unroll
        for (int n = 0; n < KT; n++) {
            begin_weights(&weights, acc, scale);
            weigh_all(&weights, s, n);
            settle_weights(acc, s, p, scale, n, &weights);
            if (careful) add_values_carefully(a, w, acc, p, n, key);
            else add_values(acc, p, n, 0, &weights, s);
        }
        block_barrier();
    }
}

/* One tile of one head. A result that is not finite is computed once more, with care. */
DEVICE void forward_tile(const struct attention_args *a, const struct work *w)
{
    struct accumulator acc;
    if (w->end_key <= w->first_key) {
        start(a, w, &acc);
    } else {
        if (DIRECT) walk_keys_directly(a, w, &acc, 0);
        else walk_keys(a, w, &acc);
        if (any_in_block(!result_is_finite(&acc))) {
            a = fresh_args(a);
            walk_keys_directly(a, w, &acc, 1);
        }
    }
    store_tile(fresh_args(a), w, &acc);
}

#if SPLIT_KEYS
KERNEL_ENTRY void LAUNCH(THREADS, 2)
KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    struct part_place at = part_place_of_block(a);
    struct work w = work_of(fresh_args(a), at.b, at.head, at.tile);
    take_part(a, at.part, &w.first_key, &w.end_key);
    w.first_key = uniform(w.first_key), w.end_key = uniform(w.end_key);
    w.part = uniform(at.part), w.tokens = uniform(a->tile_tokens);
    if (w.first_query < w.seq.q_length) forward_tile(a, &w);
}
#else
/* Blocks that share `count` heads or sequences. */
DEVICE int grid_of(int count)
{
    return smaller(count, GRID_LIMIT);
}

/* The outer loops load most of what they need of the arguments again: gfx90a has a few scalar
 * registers less than the other targets. */
KERNEL_ENTRY void LAUNCH(THREADS, 2)
KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int tiles = (a->q_tokens + TILE_Q - 1) / TILE_Q;
    struct tile_place at = place_of_block(tiles, grid_of(a->q_heads), grid_of(a->batch), SECTION);
#pragma unroll 1
    for (int b = at.z; b < fresh_args(a)->batch; b += grid_of(fresh_args(a)->batch)) {
#pragma unroll 1
        for (int head = at.y; head < (Q_STREAMED ? fresh_args(a) : a)->q_heads;
             head += grid_of(fresh_args(a)->q_heads)) {
            struct work w = work_of(fresh_args(a), b, head, at.tile);
            if (w.first_query < w.seq.q_length) forward_tile(a, &w);
        }
    }
}
#endif
