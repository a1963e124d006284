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

/* One bit for each of four bytes that is not 0. */
DEVICE uint32_t shown4(uint32_t x)
{
    x = (((x & 0x7f7f7f7f) + 0x7f7f7f7f) | x) >> 7 & 0x01010101;
    return x * 0x01020408 >> 24;
}

DEVICE uint32_t shown16(const uint4 &x)
{
    return shown4(x.x) | shown4(x.y) << 4 | shown4(x.z) << 8 | shown4(x.w) << 12;
}

#if CELL_ROWS

/* Elements from v's first one to the cell of row `row` of the tile and the first key of a block. */
DEVICE int64_t cell_offset(const struct attention_args &a, const struct view &v,
                           const struct tile &t, int block, int row)
{
    int query = min_int(t.rows * ROWS + row, q_tokens(a, &t) - 1);
    return (a.q_start.data ? 0 : t.batch * v.stride[0]) + t.head * v.stride[1] +
           (t.q_start + query) * v.stride[2] + block * KEYS;
}

/* Whether all keys of a block exist. */
DEVICE bool whole_block(const struct attention_args &a, const struct tile &t, int block)
{
    return (block + 1) * KEYS <= kv_tokens(a, &t);
}

/* Neighbouring cells of a row. */
constexpr int NEIGHBOURS = KEY_QUADS ? 4 : 2;
struct cells {
    float x[NEIGHBOURS];
};

DEVICE struct cells load_cells(const float *from)
{
    struct cells c;
#if PARTS == 2
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(c.x[0]), "=f"(c.x[1]), "=f"(c.x[2]), "=f"(c.x[3])
                 : "l"(from));
#else
    asm volatile("ld.global.nc.v2.f32 {%0, %1}, [%2];" : "=f"(c.x[0]), "=f"(c.x[1]) : "l"(from));
#endif
    return c;
}

/* `left` of them exist; the others are 0. */
DEVICE struct cells load_cells(const float *from, int left)
{
    struct cells c;
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; i++)
        asm volatile("{.reg .pred p; setp.gt.s32 p, %2, 0; mov.b32 %0, 0;\n\t"
                     "@p ld.global.nc.f32 %0, [%1];}"
                     : "=&f"(c.x[i])
                     : "l"(from + i), "r"(left - i));
    return c;
}

/* Scores in units of log2 plus the bias. Towards zero, so that a finite bias stays finite. */
DEVICE void add_cells(float *s, const struct cells &c)
{
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; i++) {
        float &to = s[i / 2 * 4 + i % 2];
        to = __fmaf_rz(c.x[i], 1.4426950408889634f, to);
    }
}

/* row, column: the lane's first of the tile and of the block. The loads of a whole block are on
 * their way together. */
DEVICE void add_bias(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                     int block, int row, int column)
{
    const float *base = (const float *)a.bias.data + column;
    const float *from0 = base + cell_offset(a, a.bias, t, block, row),
                *from1 = base + cell_offset(a, a.bias, t, block, row + 8);
    constexpr int STEP = 4 * NEIGHBOURS;
    if (whole_block(a, t, block)) {
#pragma unroll
        for (int i = 0; i < KEYS / STEP; i++) {
            struct cells x = load_cells(from0 + STEP * i), y = load_cells(from1 + STEP * i);
            add_cells(s + 2 * NEIGHBOURS * i, x);
            add_cells(s + 2 * NEIGHBOURS * i + 2, y);
        }
    } else {
        int left = kv_tokens(a, &t) - block * KEYS - column;
#pragma unroll
        for (int i = 0; i < KEYS / STEP; i++) {
            add_cells(s + 2 * NEIGHBOURS * i, load_cells(from0 + STEP * i, left - STEP * i));
            add_cells(s + 2 * NEIGHBOURS * i + 2, load_cells(from1 + STEP * i, left - STEP * i));
        }
    }
}

/* Of 32 bytes, `left` of which exist, one bit for each that is not 0. */
DEVICE uint32_t shown_of(const uint8_t *from, int left)
{
    uint32_t bits = 0;
#pragma unroll 1
    for (int i = 0; i < min_int(left, 32); i++) bits |= (uint32_t)(from[i] != 0) << i;
    return bits;
}

/* Scores whose byte is 0 are hidden. The four lanes of a row read 32 keys each and exchange their
 * bits. */
DEVICE void hide_cells(const struct attention_args &a, const struct tile &t, float (&s)[KEYS / 2],
                       int block, int row, int lane)
{
    int first = (lane & 3) * 32;
    const uint8_t *from[2] = {
        (const uint8_t *)a.mask.data + cell_offset(a, a.mask, t, block, row) + first,
        (const uint8_t *)a.mask.data + cell_offset(a, a.mask, t, block, row + 8) + first};
    uint32_t own[2] = {0, 0};
    if (whole_block(a, t, block)) {
        uint4 x[4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (first < KEYS) x[i] = __ldg((const uint4 *)from[i / 2] + i % 2);
        own[0] = shown16(x[0]) | shown16(x[1]) << 16;
        own[1] = shown16(x[2]) | shown16(x[3]) << 16;
    } else {
        int left = min_int(kv_tokens(a, &t) - block * KEYS, KEYS) - first;
        own[0] = shown_of(from[0], left);
        own[1] = shown_of(from[1], left);
    }
#pragma unroll
    for (int j = 0; j < KEYS / 32; j++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t bits = __shfl_sync(~0u, own[r], (lane & ~3) + j) >> (lane & 3) * NEIGHBOURS;
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (!(bits >> column_of(i / 2, i % 2) & 1))
                    s[16 * j + i / 2 * 4 + r * 2 + i % 2] = -INFINITY;
        }
    }
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
