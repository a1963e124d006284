/* sm90_cells.h: a tensor with a cell for each score: a bias of the elements' type (SCORES_BIASED)
 * or of f32 (SCORES_BIASED_F32), or a mask of bytes (SCORES_HIDDEN).
 *
 * The producer brings a tile of ROWS x KEYS cells with each block of K, into a slot of that stage,
 * as panels of 128 bytes a row with 128-byte swizzle. Cells past the tensor's end are zero. K's
 * stage is free again before the softmax that needs the cells, so they have barriers of their own. */
#ifndef RAPT_NVIDIA_SM90_CELLS_H
#define RAPT_NVIDIA_SM90_CELLS_H

#include "sm90_schedule.h"

#if CELLS && !LOOSE

DEVICE void load_cells(const struct attention_args &a, const struct tensor_maps &maps, uint32_t to,
                       uint32_t full, const struct tile *t, int block)
{
    const struct view &v = CELLS > 1 ? a.bias : a.mask;
    int head = v.stride[1] ? t->head : 0, batch = v.stride[0] && !a.q_start.data ? t->batch : 0;
#pragma unroll
    for (int p = 0; p < CELL_PANELS; p++)
        tma_load_4d(to + p * ROWS * 128, &maps.cells, full, block * KEYS + p * 128 / CELLS,
                    t->q_start + t->rows * ROWS, head, batch,
                    v.stride[1] ? L2_EVICT_FIRST : L2_EVICT_LAST);
}

/* Into the slot of a stage whose K is on its way. */
DEVICE void produce_cells(const struct attention_args &a, const struct tensor_maps &maps,
                          uint32_t base, uint32_t stage, uint32_t phase, const struct tile *t,
                          int block)
{
    uint32_t full = base + AT_CELLS_FULL + 8 * stage;
    mbarrier_wait(base + AT_CELLS_EMPTY + 8 * stage, phase);
    mbarrier_expect(full, CELL_BYTES);
    load_cells(a, maps, base + AT_CELLS + stage * CELL_BYTES, full, t, block);
}

#endif

#if CELLS
DEVICE float low_cell(uint32_t x)
{
#if DTYPE == DTYPE_bf16
    return __uint_as_float(x << 16);
#else
    float y;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(y) : "r"(x));
    return y;
#endif
}

DEVICE float high_cell(uint32_t x)
{
#if DTYPE == DTYPE_bf16
    return __uint_as_float(x & 0xffff0000);
#else
    return low_cell(x >> 16);
#endif
}

/* Scores become natural ones: scaled, plus the bias. An 8 x 8 matrix of ldmatrix is what the lanes
 * hold of 8 columns. at: of the slot; row: the warp's first in the tile. */
DEVICE void add_cells(float (&s)[KEYS / 2], float scale, uint32_t at, int row, int lane)
{
    at += (row + (lane & 15)) * 128;
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++) {
        uint32_t x[4];
        ldmatrix4(at + i / 4 * ROWS * 128 + ((i % 4 * 2 + (lane >> 4) ^ (lane & 7)) << 4), x);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float &low = s[8 * i + 2 * j], &high = s[8 * i + 2 * j + 1];
            low = __fmaf_rn(low, scale, low_cell(x[j]));
            high = __fmaf_rn(high, scale, high_cell(x[j]));
        }
    }
}

/* The same of f32. */
DEVICE void add_cells_f32(float (&s)[KEYS / 2], float scale, uint32_t at, int row, int lane)
{
    at += (row + (lane >> 2)) * 128 + (lane & 1) * 8;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        uint32_t from =
            at + i / 4 * ROWS * 128 + (((i % 4 * 2 + (lane >> 1 & 1)) ^ (lane >> 2)) << 4);
        float x[4];
        shared_load2(from, x[0], x[1]);
        shared_load2(from + 8 * 128, x[2], x[3]);
#pragma unroll
        for (int j = 0; j < 4; j++) s[4 * i + j] = __fmaf_rn(s[4 * i + j], scale, x[j]);
    }
}

DEVICE uint32_t load_pair(uint32_t at)
{
    uint16_t x;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(x) : "r"(at) : "memory");
    return x;
}

/* Scores whose byte is 0 are hidden. */
DEVICE void hide_cells(float (&s)[KEYS / 2], uint32_t at, int row, int lane)
{
    at += (row + (lane >> 2)) * 128 + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        uint32_t from = at + ((i / 2 ^ (lane >> 2)) << 4) + i % 2 * 8, x = load_pair(from),
                 y = load_pair(from + 8 * 128);
        if (!(x & 0xff)) s[4 * i] = -INFINITY;
        if (x < 0x100) s[4 * i + 1] = -INFINITY;
        if (!(y & 0xff)) s[4 * i + 2] = -INFINITY;
        if (y < 0x100) s[4 * i + 3] = -INFINITY;
    }
}

#endif
#endif
