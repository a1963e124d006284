/* sm90_cell_rows.h: a bias of f32 and a mask of bytes, one of them or both, for f32 rows
 * (CELL_ROWS). Shared memory is full, so each warp reads them for itself, straight from memory,
 * after q k: the other warpgroup's multiplies take longer than the wait. What the next block wants
 * is asked into L2 a block ahead.
 *
 * A row of cells is 16-byte aligned. Cells behind the sequence's keys are not read, and rows behind
 * its queries read the last query's. */
#ifndef RAPT_NVIDIA_SM90_CELL_ROWS_H
#define RAPT_NVIDIA_SM90_CELL_ROWS_H

#include "sm90_schedule.h"

#if CELL_ROWS

/* Elements from v's first one to the cell of row `row` of the tile and the first key of a block. */
DEVICE int64_t cell_offset(const struct attention_args &a, const struct view &v,
                           const struct tile &t, int block, int row)
{
    int query = min_int(t.rows * ROWS + row, q_tokens(a, &t) - 1);
    return (a.q_start.data ? 0 : t.batch * v.stride[0]) + t.head * v.stride[1] +
           (t.q_start + query) * v.stride[2] + block * KEYS;
}

/* Two cells, of which `left` exist; the others are 0. */
DEVICE float2 load_cells2(const float *from, int left)
{
    float2 x;
    asm volatile("{.reg .pred two, one;\n\t"
                 "setp.gt.s32 two, %3, 1; setp.eq.s32 one, %3, 1;\n\t"
                 "mov.b32 %0, 0; mov.b32 %1, 0;\n\t"
                 "@two ld.global.nc.v2.f32 {%0, %1}, [%2];\n\t"
                 "@one ld.global.nc.f32 %0, [%2];}"
                 : "=&f"(x.x), "=&f"(x.y)
                 : "l"(from), "r"(left));
    return x;
}

/* Scores in units of log2 plus the bias. Towards zero, so that a finite bias stays finite. row,
 * column: the lane's first of the tile and of the
 * block. */
DEVICE void add_bias(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                     int block, int row, int column)
{
    const float *from0 = (const float *)a.bias.data + cell_offset(a, a.bias, t, block, row),
                *from1 = (const float *)a.bias.data + cell_offset(a, a.bias, t, block, row + 8);
    int left = kv_tokens(a, &t) - block * KEYS - column;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float2 x = load_cells2(from0 + column + 8 * i, left - 8 * i),
               y = load_cells2(from1 + column + 8 * i, left - 8 * i);
        s[4 * i] = __fmaf_rz(x.x, 1.4426950408889634f, s[4 * i]);
        s[4 * i + 1] = __fmaf_rz(x.y, 1.4426950408889634f, s[4 * i + 1]);
        s[4 * i + 2] = __fmaf_rz(y.x, 1.4426950408889634f, s[4 * i + 2]);
        s[4 * i + 3] = __fmaf_rz(y.y, 1.4426950408889634f, s[4 * i + 3]);
    }
}

/* One bit for each of four bytes that is not 0. */
DEVICE uint32_t shown4(uint32_t x)
{
    x = (((x & 0x7f7f7f7f) + 0x7f7f7f7f) | x) >> 7 & 0x01010101;
    return x * 0x01020408 >> 24;
}

/* Of sixteen bytes, `left` of which exist, one bit for each that is not 0. */
DEVICE uint32_t shown16(const uint8_t *from, int left)
{
    uint32_t bits = 0;
    if (left >= 16) {
        uint4 x = __ldg((const uint4 *)from);
        return shown4(x.x) | shown4(x.y) << 4 | shown4(x.z) << 8 | shown4(x.w) << 12;
    }
#pragma unroll 1
    for (int i = 0; i < left; i++) bits |= (uint32_t)(from[i] != 0) << i;
    return bits;
}

/* Scores whose byte is 0 are hidden. The four lanes of a row read 32 keys each and exchange their
 * bits. */
DEVICE void hide_cells(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                       int block, int row, int lane)
{
    int first = (lane & 3) * 32, left = min_int(kv_tokens(a, &t) - block * KEYS, KEYS) - first;
    uint32_t own[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const uint8_t *from =
            (const uint8_t *)a.mask.data + cell_offset(a, a.mask, t, block, row + 8 * r) + first;
        own[r] = shown16(from, left) | shown16(from + 16, left - 16) << 16;
    }
#pragma unroll
    for (int j = 0; j < KEYS / 32; j++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t bits = __shfl_sync(~0u, own[r], (lane & ~3) + j) >> (lane & 3) * 2;
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (!(bits >> (i / 2 * 8 + i % 2) & 1))
                    s[16 * j + i / 2 * 4 + r * 2 + i % 2] = -INFINITY;
        }
    }
}

/* Whether row `row` of the tile sees one of the keys of the bits from `from` to `to` - 1 of the
 * block. */
DEVICE bool shows_key(const struct attention_args &a, const struct tile &t, const uint32_t *words,
                      int count, int block, int from, int to, int row)
{
    bool shown = false;
#pragma unroll 1
    for (int key = max_int(from, 0); key < min_int(to, 32 * count); key++) {
        uint32_t word = words[0];
#pragma unroll
        for (int i = 1; i < (KEYS + 31) / 32; i++) word = key / 32 == i ? words[i] : word;
        if (!(word >> key % 32 & 1)) continue;
        shown |= !a.mask.data ||
                 ((const uint8_t *)a.mask.data)[cell_offset(a, a.mask, t, block, row) + key] != 0;
    }
    return shown;
}

/* A block's rows of 16 queries, for a warp. row: its first. */
DEVICE void prefetch_rows(const struct attention_args &a, const struct view &v, int size,
                          const struct tile &t, int block, int row, int lane)
{
    const char *from = (const char *)v.data + cell_offset(a, v, t, block, row + (lane & 15)) * size;
    int bytes = min_int(kv_tokens(a, &t) - block * KEYS, KEYS) * size;
#pragma unroll
    for (int i = 0; i < KEYS * 4; i += 256) {
        int at = i + (lane >> 4) * 128;
        if (at < bytes) asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
    }
}

DEVICE void prefetch_cells(const struct attention_args &a, const struct tile &t, int block, int row,
                           int lane)
{
    if (a.bias.data) prefetch_rows(a, a.bias, 4, t, block, row, lane);
    if (a.mask.data) prefetch_rows(a, a.mask, 1, t, block, row, lane);
}

#endif
#endif
