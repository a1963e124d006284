/* sm90_keyed.h: a bias and a mask tensor whose row is the same for all queries, as padding has
 * (SCORES_KEYED): what they say of a block of keys.
 *
 * Each lane asks for the cells of its keys, lane, lane + 32 ..., before the block's products, and has
 * them behind these. A block whose cells change nothing costs one vote; in another each score's
 * cell comes from the lane that has it. No tensor map: rows may begin anywhere. */
#ifndef RAPT_NVIDIA_SM90_KEYED_H
#define RAPT_NVIDIA_SM90_KEYED_H

#include "sm90_mask.h"

#if KEYED

constexpr int LANE_KEYS = (KEYS + 31) / 32;

/* What a lane has of the block worked on. */
struct key_cells {
    uint32_t bias[LANE_KEYS], shown[LANE_KEYS]; /* as they lie in memory */
    float scale; /* log2 units per unit of a score as the softmax sees it */
};

template <int BYTES> DEVICE uint32_t load_cell(const char *at)
{
    uint32_t x;
    uint16_t half;
    if (BYTES == 4) {
        asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(x) : "l"(at));
        return x;
    }
    if (BYTES == 1) {
        asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(x) : "l"(at));
        return x;
    }
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(half) : "l"(at));
    return half;
}

/* Of keys from, from + 32, ... below `end`; of others what changes nothing. */
template <int BYTES>
DEVICE void load_row(const struct view &v, int batch, int head, int from, int end,
                     uint32_t (&x)[LANE_KEYS], uint32_t nothing)
{
    const char *at = (const char *)v.data +
                     (batch * v.stride[0] + head * v.stride[1] + from * v.stride[3]) * BYTES;
#pragma unroll
    for (int i = 0; i < LANE_KEYS; i++) {
        x[i] = nothing;
        if (from + 32 * i < end) x[i] = load_cell<BYTES>(at + 32 * i * v.stride[3] * BYTES);
    }
}

DEVICE void ask_cells(const struct attention_args &a, const struct tile &t, int block, int lane,
                      struct key_cells &c)
{
    int batch = a.q_start.data ? 0 : t.batch, from = block * KEYS + lane,
        end = min_int(t.kv_tokens, block * KEYS + KEYS);
#pragma unroll
    for (int i = 0; i < LANE_KEYS; i++) c.bias[i] = 0, c.shown[i] = 1;
    if (a.mask.data) load_row<1>(a.mask, batch, t.head, from, end, c.shown, 1);
    if (!a.bias.data) return;
    if (a.bias.dtype == DTYPE_f32) load_row<4>(a.bias, batch, t.head, from, end, c.bias, 0);
    else load_row<2>(a.bias, batch, t.head, from, end, c.bias, 0);
}

/* In units of log2. */
DEVICE float bias_of(const struct attention_args &a, uint32_t x)
{
    float y = __uint_as_float(x);
    if (a.bias.dtype != DTYPE_f32) {
#if DTYPE == DTYPE_bf16
        y = __uint_as_float(x << 16);
#else
        asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"((uint16_t)x));
#endif
    }
    return __fmul_rn(y, LOG2E);
}

/* Scores of a block in which some bias is not 0. */
DEVICE void add_key_bias(const struct attention_args &a, const float (&bias)[LANE_KEYS],
                         float (&s)[KEYS / 2], int column)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float x = __shfl_sync(~0u, bias[i / 4], 8 * (i % 4) + column + e);
            s[4 * i + e] = __fmaf_rn(s[4 * i + e], a.scale_log2, x);
            s[4 * i + 2 + e] = __fmaf_rn(s[4 * i + 2 + e], a.scale_log2, x);
        }
    }
}

/* In which some key is hidden. */
DEVICE void hide_keys(const struct key_cells &c, float (&s)[KEYS / 2], int column)
{
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        uint32_t word = __ballot_sync(~0u, c.shown[i / 4] != 0) >> (8 * (i % 4) + column);
        if (!(word & 1)) s[4 * i] = s[4 * i + 2] = -INFINITY;
        if (!(word & 2)) s[4 * i + 1] = s[4 * i + 3] = -INFINITY;
    }
}

/* What the tensors say about a block's scores. column: the lane's first. */
DEVICE void take_key_cells(const struct attention_args &a, struct key_cells &c,
                           float (&s)[KEYS / 2], int column)
{
    float bias[LANE_KEYS];
    bool biased = false, hidden = false;
#pragma unroll
    for (int i = 0; i < LANE_KEYS; i++) {
        bias[i] = bias_of(a, c.bias[i]);
        biased |= bias[i] != 0; /* so is NaN */
        hidden |= c.shown[i] == 0;
    }
    c.scale = a.scale_log2;
    if (__any_sync(~0u, biased)) {
        add_key_bias(a, bias, s, column);
        c.scale = 1;
    }
    if (__any_sync(~0u, hidden)) hide_keys(c, s, column);
}

#endif
#endif
