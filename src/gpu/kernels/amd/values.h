/* values.h: O^T += V^T P^T of the AMD forward, and what keeps NaN and Inf in V from rows that do not
 * see them. */
#ifndef RAPT_AMD_VALUES_H
#define RAPT_AMD_VALUES_H

#include "amd/scores.h"
#include "amd/softmax.h"

DEVICE void add_values(struct accumulator *acc, operand (*p)[PV_CHUNKS])
{
    int lane = lane_here(), half = lane / EDGE, row = lane % EDGE;
#pragma unroll
    for (int n = 0; n < PV_CHUNKS; n++) {
#pragma unroll
        for (int c = 0; c < CT; c++) {
            operand v;
#pragma unroll
            for (int i = 0; i < OPERAND_PIECES; i++) {
                uint4 x = shared_memory[v_place(c * EDGE + row, 2 * n + operand_piece(half, i))];
                ((uint4 *)&v)[i] = v_swapped(c * EDGE) ? x.zwxy : x;
            }
#pragma unroll
            for (int r = 0; r < QT; r++) multiply_add(&acc->o[r][c], v, p[r][n]);
        }
    }
}

DEVICE int element_is_finite(uint32_t h)
{
    uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) != exponent;
}

/* Where element `place` of a line of V lies in LDS. */
DEVICE uint16_t *v_element(int channel, int place)
{
    return (uint16_t *)(shared_memory + v_place(channel, place / 8)) +
           (place % 8 ^ v_swapped(channel) * 4);
}

/* 0 * NaN is NaN: a hidden key's value must not meet its weight 0. Before P V of such a tile, every
 * NaN and infinity of V is added to the rows that see its key, and becomes 0 in LDS. Slow; run only
 * after a tile's result came out not finite. */
DEVICE void take_special_values(const struct attention_args *a, const struct work *w,
                                struct accumulator *acc, int key)
{
    int half = lane_here() / EDGE;
#pragma unroll 1
    for (int place = 0; place < TILE_KV; place++) {
        int j = key + place / EDGE * EDGE + key_of_place(place % EDGE), hidden = 0;
#pragma unroll
        for (int r = 0; r < QT; r++) hidden |= is_hidden(a, w, query_of(w, r), j) << r;
#pragma unroll
        for (int c = 0; c < CT; c++) {
#pragma unroll
            for (int v = 0; v < RESULTS; v++) {
                asm volatile("" ::: "memory"); /* one at a time: the scores hold the registers */
                uint16_t h = *v_element(c * EDGE + row_of(v) + half * HALF_ROWS, place);
                if (element_is_finite(h)) continue;
                float x = DTYPE == DTYPE_bf16 ? bf16_to_f32(h) : f16_to_f32(h);
#pragma unroll
                for (int r = 0; r < QT; r++)
                    if (!(hidden >> r & 1)) acc->o[r][c][v] += x;
            }
        }
    }
    block_barrier();
#pragma unroll 1
    for (int i = THREAD; i < TILE_KV * DV; i += THREADS) {
        uint16_t *h = (uint16_t *)(shared_memory + K_BYTES / 16) + i;
        if (!element_is_finite(*h)) *h = 0;
    }
    block_barrier();
}

DEVICE int result_is_finite(const struct accumulator *acc)
{
    int finite = 1;
#pragma unroll
    for (int r = 0; r < QT; r++)
#pragma unroll
        for (int c = 0; c < CT; c++)
#pragma unroll
            for (int v = 0; v < RESULTS; v++) finite &= is_finite(acc->o[r][c][v]);
    return finite;
}

#endif
