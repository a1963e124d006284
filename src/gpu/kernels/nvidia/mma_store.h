/* mma_store.h: the end of an sm_80 forward: values that are not finite, output and log-sum-exp. */
#ifndef RAPT_MMA_STORE_H
#define RAPT_MMA_STORE_H

#include "nvidia/mma_change.h"

/* ---- Values that are not finite -------------------------------------------------------------- */

DEVICE int element_is_finite(uint32_t h)
{
    uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) != exponent;
}

/* 0 * NaN is NaN: a hidden key's value must not meet its weight 0. Before P V of such a tile, every
 * NaN and infinity of V is added to the rows that see its key, and becomes 0 in shared memory.
 * Slow; run only after a tile's result came out not finite. */
DEVICE void take_special_values(const struct attention_args *a, const struct work *w,
                                struct accumulator *acc, int key)
{
    char *tile = (char *)shared_memory + (TILE_Q + TILE_KV) * PITCH;
    struct lane lane = lane_here();
#pragma unroll 1
    for (int j = 0; j < TILE_KV; j++) {
#pragma unroll
        for (int c = 0; c < CT; c++) {
            asm volatile("" ::: "memory"); /* one at a time: the scores hold the registers */
            int row = fresh(j), at = (lane.part * CT + c) * 16 ^ swizzle(row);
            uint32_t two = *(const uint32_t *)(tile + row * PITCH + at + lane.t * 4);
            if (element_is_finite(two) && element_is_finite(two >> 16)) continue;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t h = i ? two >> 16 : two & 0xffff;
                if (element_is_finite(h)) continue;
                float x = DTYPE == DTYPE_bf16 ? bf16_to_f32(h) : f16_to_f32((uint16_t)h);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    if (!is_hidden(a, w, query_of(w, &lane, r), key + j))
                        acc->o[r / 2][c][r % 2 * 2 + i] += x;
            }
        }
    }
    block_barrier();
    for (int i = fresh(THREAD); i < TILE_KV * D; i += THREADS) {
        uint16_t *h = (uint16_t *)(tile + i / D * PITCH) + i % D;
        if (!element_is_finite(*h)) *h = 0;
    }
    block_barrier();
}

/* Rows whose visible scores are all -inf have no weights: no value reaches them. NaN among the
 * scores is in the sum, and so in what it divides. */
DEVICE void clear_weightless(struct accumulator *acc)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < CT; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (acc->m[r] == -INFINITY) acc->o[r / 2][c][r % 2 * 2 + i] = 0;
}

DEVICE int result_is_finite(const struct accumulator *acc)
{
    float nothing[4] = {0, 0, 0, 0}; /* 0 * x is NaN for an x that is not finite */
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int c = 0; c < CT; c++)
#pragma unroll
            for (int h = 0; h < 4; h++) nothing[h] = fused(acc->o[i][c][h], 0, nothing[h]);
    return nothing[0] + nothing[1] + nothing[2] + nothing[3] == 0;
}

/* ---- Store ----------------------------------------------------------------------------------- */

/* One piece of a row whose last channels are not all there. */
DEVICE void store_narrow(char *to, const char *from, int channels)
{
    for (int c = 0; c < channels; c++) ((uint16_t *)to)[c] = ((const uint16_t *)from)[c];
}

/* Where piece c of the warp's channels lies in the memory of its Q rows, through which it goes out;
 * row: of the warp. */
DEVICE char *out_piece(const struct lane *lane, int row, int c)
{
    return (char *)shared_memory + (lane->group * RT * 16 + row) * PITCH +
           ((lane->part * CT + c) * 16 ^ swizzle(row));
}

/* Rows of the warp, in its channels, 16 bytes at a time. */
DEVICE void store_packed(const struct attention_args *a, const struct work *w,
                         const struct accumulator *acc, const float *factor)
{
    struct lane lane = lane_here();
    wave_barrier();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < CT; c++)
            *(uint32_t *)(out_piece(&lane, r / 2 * 16 + r % 2 * 8 + lane.g, c) + lane.t * 4) =
                pack(acc->o[r / 2][c][r % 2 * 2] * factor[r],
                     acc->o[r / 2][c][r % 2 * 2 + 1] * factor[r]);
    wave_barrier();
    int first = w->first_query + lane.group * RT * 16,
        count = smaller(RT * 16, w->seq.q_length - first), own = fresh(THREAD) % 32;
    int64_t step = a->out.stride[2] * 2;
    char *to = element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + first, 0) +
               lane.part * CT * 16;
    if (32 % CT == 0 && a->v_channels == D) {
        to += own / CT * step + own % CT * 16;
#pragma unroll 8
        for (int row = own / CT; row < RT * 16; row += 32 / CT) {
            if (row < count) *(uint4 *)to = *(const uint4 *)out_piece(&lane, row, own % CT);
            to += 32 / CT * step;
        }
        return;
    }
#pragma unroll 1
    for (int i = own; i < count * CT; i += 32) {
        int row = i / CT, c = i % CT, channels = a->v_channels - (lane.part * CT + c) * 8;
        const char *from = out_piece(&lane, row, c);
        if (RARE(channels < 8)) store_narrow(to + row * step + c * 16, from, channels);
        else *(uint4 *)(to + row * step + c * 16) = *(const uint4 *)from;
    }
}

DEVICE void store_f32(const struct attention_args *a, const struct work *w,
                      const struct accumulator *acc, const float *factor)
{
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int query = query_of(w, &lane, r);
        if (query >= w->seq.q_length) continue;
        float *to =
            (float *)element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + query, 0);
#pragma unroll
        for (int c = 0; c < CT; c++) {
            int channel = 8 * (lane.part * CT + c) + 2 * lane.t;
            if (channel < a->v_channels) to[channel] = acc->o[r / 2][c][r % 2 * 2] * factor[r];
            if (channel + 1 < a->v_channels)
                to[channel + 1] = acc->o[r / 2][c][r % 2 * 2 + 1] * factor[r];
        }
    }
}

DEVICE void store_results(const struct attention_args *a, const struct work *w,
                          const struct accumulator *acc)
{
    float factor[ROWS], sum[ROWS], other[ROWS];
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) other[r] = sum[r] = sum_of_quad(acc->l[r]);
    if (SPLIT > 1) swap_rows(other);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float l = SPLIT > 1 ? sum[r] + other[r] : sum[r];
        int query = query_of(w, &lane, r);
        factor[r] = l == 0 ? 0 : 1 / l;
        if (a->lse.data && lane.part == 0 && lane.t == 0 && query < w->seq.q_length)
            store_element(element_at(&a->lse, w->seq.q_batch, w->head, w->seq.q_start + query, 0),
                          0, DTYPE_f32, (acc->m[r] + log2_fast(l)) * LN_2);
    }
    if (a->out.dtype == DTYPE_f32) store_f32(a, w, acc, factor);
    else store_packed(a, w, acc, factor);
}

#endif
