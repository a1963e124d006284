/* sm90_in_place.h: f32 as two f16 parts, K and V split where they lie (IN_PLACE).
 *
 * A block of K or V comes to its stage as f32, 32 channels of a row in 128 bytes, and there a row's
 * four times 128 bytes are those that its parts take afterwards: hi of channels 0 ... 63, then of the
 * others, then lo. So warps that do nothing else make parts of rows in place, a block ahead of the
 * consumers, and no part is ever in memory. Every tile splits its keys anew, which pays where few
 * tiles share them. */
#ifndef RAPT_NVIDIA_SM90_IN_PLACE_H
#define RAPT_NVIDIA_SM90_IN_PLACE_H

#include "sm90_scaled.h"

/* A warp splits a share of so many rows, and ROWS_AT_ONCE of these in a step. */
constexpr int SHARE_ROWS = 8, SHARE_STEPS = SHARE_ROWS / ROWS_AT_ONCE,
              SHARES_OF_BLOCK = KEYS / SHARE_ROWS;
static_assert(SHARE_STEPS == 2, "eight rows of a swizzle pattern");

/* The lane's row of eight in a step. Rows side by side differ in bit 2, so that parts of half a row
 * go to other banks. */
DEVICE int share_row(int lane, int step)
{
    return (lane >> 3 & 1) * 4 + (lane >> 4) + 2 * step;
}

/* The rows of step n of a share, which begins at `at`. */
DEVICE void load_step(uint32_t at, int lane, int n, float4 *x)
{
    int row = share_row(lane, n);
    uint32_t from = at + row * 128 + (((lane & 7) ^ row) << 4);
#pragma unroll
    for (int i = 0; i < 4; i++) shared_load4(from + i * KEYS * 128, x[i].x, x[i].y, x[i].z, x[i].w);
}

/* Step n: its parts, and its factors, see factor_at(). */
DEVICE void store_step(uint32_t at, uint32_t factors, int lane, int n, const float4 *x,
                       const struct row_range &r, bool of_value)
{
    uint2 hi[4], lo[4];
    int row = share_row(lane, n);
    split16(x, r, hi, lo);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int chunk = i % 2 * 4 + (lane & 7) / 2;
        uint32_t to = at + i / 2 * KEYS * 128 + row * 128 + ((chunk ^ row) << 4) + (lane & 1) * 8;
        shared_store2(to, hi[i].x, hi[i].y);
        shared_store2(to + K_PART, lo[i].x, lo[i].y);
    }
    if ((lane & 7) == 0) {
        uint32_t factor = factors + row / 2 * 32 + (row & 1) * 4;
        if (of_value) {
            shared_store(factor + 8, __float_as_uint((float)r.exponent));
            shared_store(factor + 16, __float_as_uint(power_of_two(r.exponent)));
        } else {
            shared_store(factor, __float_as_uint(power_of_two(r.exponent - 14)));
        }
    }
}

/* A share: its rows begin at `at`, their factors at `factors`. Returns whether one is wide. */
DEVICE bool split_share(uint32_t at, uint32_t factors, int lane, bool of_value)
{
    float4 x[4 * SHARE_STEPS];
    int exponent[SHARE_STEPS];
    bool wide = false;
#pragma unroll
    for (int n = 0; n < SHARE_STEPS; n++) load_step(at, lane, n, x + 4 * n);
    if (plain_exponents<true>(x, D, exponent)) {
        __syncwarp(); /* a row is read whole before it is written */
#pragma unroll
        for (int n = 0; n < SHARE_STEPS; n++) {
            struct row_range r = {exponent[n], power_of_two(14 - exponent[n]), false, false};
            store_step(at, factors, lane, n, x + 4 * n, r, of_value);
        }
        return false;
    }
#pragma unroll 1
    for (int n = 0; n < SHARE_STEPS; n++) { /* read anew, for registers are few */
        load_step(at, lane, n, x);
        struct row_range r = range_of<true>(x, D);
        __syncwarp();
        wide |= r.wide;
        store_step(at, factors, lane, n, x, r, of_value);
    }
    return __any_sync(~0u, wide);
}

/* A warp's shares of all blocks that come: WORKERS warps take the shares in turn, those of K, then
 * those of V. So each of them has one of every block at least, and misses no parity. */
DEVICE void split_in_place(const struct attention_args &a, uint32_t base, int worker)
{
    static_assert(WORKERS <= SHARES_OF_BLOCK, "a share of every block");
    int lane = threadIdx.x % 32, share = worker;
    uint32_t stage = 0, phase = 0, slot = 0;
#pragma unroll 1
    for (;;) {
        bool of_value = share >= SHARES_OF_BLOCK;
        int rows = share % SHARES_OF_BLOCK * SHARE_ROWS, sequence, head, block, none;
        mbarrier_wait(base + (of_value ? AT_V_FULL : AT_K_FULL) + 8 * stage, phase);
        shared_load4(stage_record(base, stage, of_value), sequence, head, block, none);
        if (sequence < 0) break;
        bool wide = split_share(base + (of_value ? AT_V : AT_K) + stage * K_BYTES + rows * 128,
                                base + AT_KEY_FACTORS + slot * KEY_FACTOR_BYTES + rows * 16, lane,
                                of_value);
        if (wide && lane == 0) {
            atomicOr(ready_word(a, of_value, sequence, head, block * KEYS / PART_KEYS), 1);
            tell_wide(a);
        }
        async_proxy_fence();
        __syncwarp();
        if (lane == 0) mbarrier_arrive(base + (of_value ? AT_V_READY : AT_K_READY) + 8 * stage);
        share += WORKERS;
        if (share < 2 * SHARES_OF_BLOCK) continue;
        share -= 2 * SHARES_OF_BLOCK;
        if (++stage == STAGES) stage = 0, phase ^= 1;
        if (++slot == FACTOR_SLOTS) slot = 0;
    }
}

/* Where a warpgroup has loaded a block for itself: all of it, in stage 0. */
DEVICE void split_fetched(uint32_t base, int thread, bool keys)
{
#pragma unroll 1
    for (int i = thread / 32; i < (keys ? 2 : 1) * SHARES_OF_BLOCK; i += 4) {
        int rows = i % SHARES_OF_BLOCK * SHARE_ROWS;
        bool of_value = i < SHARES_OF_BLOCK;
        split_share(base + (of_value ? AT_V : AT_K) + rows * 128, base + AT_KEY_FACTORS + rows * 16,
                    thread & 31, of_value);
    }
}

#endif
