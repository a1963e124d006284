/* sm90_loose.h: cells as in sm90_cells.h, of rows that may begin at any byte (LOOSE), which no tensor
 * map describes: those of an odd number of keys, say.
 *
 * Each consumer warp copies the cells of its own 16 rows before the block's products, by words of 4
 * bytes that lie where such words do in memory: the cells begin up to 3 bytes behind a row's first
 * word. Rows that differ by 8 have the same shift. */
#ifndef RAPT_NVIDIA_SM90_LOOSE_H
#define RAPT_NVIDIA_SM90_LOOSE_H

#include "sm90_cells.h"

#if LOOSE

DEVICE void copy_word(uint32_t to, const char *from, int size)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(size)
                 : "memory");
}

/* Cells of row `row` of the tile, from the block's first key on. */
DEVICE const char *cell_row(const struct attention_args &a, const struct tile &t, int block,
                            int row)
{
    const struct view &v = CELLS > 1 ? a.bias : a.mask;
    int64_t batch = a.q_start.data ? 0 : t.batch, token = t.q_start + t.rows * ROWS + row;
    return (const char *)v.data +
           (batch * v.stride[0] + t.head * v.stride[1] + token * v.stride[2] + block * KEYS) *
               CELLS;
}

/* Bytes from a row's first word to its first cell. */
DEVICE int shift_of(const char *row)
{
    return (int)((uintptr_t)row & 3);
}

/* What words of 4 bytes hold of 16 rows, from the tile's row `first` on, into `to`. */
DEVICE void ask_rows(const struct attention_args &a, const struct tile &t, int block, int first,
                     int lane, uint32_t to)
{
    const char *row = cell_row(a, t, block, first);
    int64_t down = (CELLS > 1 ? a.bias : a.mask).stride[2] * CELLS;
    int rows = t.q_tokens - t.rows * ROWS - first;
    int bytes = min_int(KEYS, t.kv_tokens - block * KEYS) * CELLS;
    __syncwarp(); /* all lanes have read what lay there */
#pragma unroll
    for (int r = 0; r < 16; r++) {
        int shift = shift_of(row), left = r < rows ? bytes + shift : 0;
        const char *data = (const char *)(CELLS > 1 ? a.bias : a.mask).data,
                   *from = left > 0 ? row - shift : data - shift_of(data);
#pragma unroll
        for (int i = 0; i < LOOSE_WORDS; i += 32) {
            int word = i + lane, size = max_int(0, min_int(4, left - 4 * word));
            if (word < LOOSE_WORDS)
                copy_word(to + (r * LOOSE_PITCH + word) * 4, size > 0 ? from + 4 * word : from,
                          size);
        }
        row += down;
    }
}

DEVICE void await_rows(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
}

DEVICE uint32_t shared_word(uint32_t at)
{
    uint32_t x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    return x;
}

/* Four bytes at any address: `at` is a word's, `bits` eight times the bytes behind it. */
DEVICE uint32_t shared_bytes(uint32_t at, int bits)
{
    return __funnelshift_r(shared_word(at), shared_word(at + 4), bits);
}

/* Of the lane's columns in row lane / 4 of the warp's; the other row's lie 8 rows below. */
struct loose_place {
    uint32_t at;
    int bits;
};

DEVICE struct loose_place loose_place_of(uint32_t base, int shift, int lane)
{
    int first = shift + (lane & 3) * 2 * CELLS;
    return {base + (lane >> 2) * LOOSE_PITCH * 4 + (first & ~3), 8 * (first & 3)};
}

/* What the tensor says about the scores; base: of the warp's rows. */
DEVICE void take_loose(float (&s)[KEYS / 2], float scale, uint32_t base, int shift, int lane)
{
    const struct loose_place p = loose_place_of(base, shift, lane);
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t at = p.at + half * 8 * LOOSE_PITCH * 4 + i * 8 * CELLS;
            float &low = s[4 * i + 2 * half], &high = s[4 * i + 2 * half + 1];
            if (CELLS == 4) {
                low = __fmaf_rn(low, scale, __uint_as_float(shared_word(at)));
                high = __fmaf_rn(high, scale, __uint_as_float(shared_word(at + 4)));
                continue;
            }
            uint32_t x = shared_bytes(at, p.bits);
            if (CELLS == 2) {
                low = __fmaf_rn(low, scale, low_cell(x));
                high = __fmaf_rn(high, scale, high_cell(x));
            } else {
                if (!(x & 0xff)) low = -INFINITY;
                if (!(x & 0xff00)) high = -INFINITY;
            }
        }
    }
}

#endif
#endif
