/* sm90_scaled.h: f32 as two f16 parts (PARTS 2): a power of two for every row, the pass that
 * splits, and the softmax between products of such parts.
 * docs/decisions/0007-f32-on-tensor-cores.md has the bound.
 *
 * The elements of a row of Q, K or V, times 2^(14 - e), where its largest one has exponent e, lie
 * below 2^15: hi is the nearest f16 and lo the nearest one of what remains, 22 bits together for
 * all but the row's small elements, which are exact to 2^-25. The factor of a key of V goes into
 * its weight: w = p 2^e. So nothing that a query does not see can touch it; the reference is the
 * largest of score + e among the keys that the row sees, and the row sum counts p itself. */
#ifndef RAPT_NVIDIA_SM90_SCALED_H
#define RAPT_NVIDIA_SM90_SCALED_H

#include "sm90_softmax.h"

/* Weights reach 2^TOP while their reference holds, 2^(TOP + KEEP) before it is raised. */
constexpr float TOP = 7.f;
/* Exponents of a row's largest element that factors can hold; beyond, the head is `wide`. */
constexpr int EXPONENT_LIMIT = 40;

/* ---- The pass that splits ---- */

DEVICE uint32_t half2_of(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

/* Both halves as f32. */
DEVICE void halves_of(uint32_t x, float &low, float &high)
{
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
        : "=f"(low), "=f"(high)
        : "r"(x));
}

DEVICE bool is_finite(float x)
{
    return fabsf(x) <= 3.402823466e38f;
}

/* ODD: NaN and Inf, which are lo, with hi 0: of the other operand lo meets hi alone. */
template <bool ODD>
DEVICE void split_half2(float x, float y, float scale, uint32_t &hi, uint32_t &lo)
{
    bool keep_x = !ODD || is_finite(x), keep_y = !ODD || is_finite(y);
    float low, high, u = keep_x ? x * scale : 0, v = keep_y ? y * scale : 0;
    hi = half2_of(u, v);
    halves_of(hi, low, high);
    lo = half2_of(keep_x ? u - low : x, keep_y ? v - high : y);
}

/* Whether scaling loses the element altogether. */
DEVICE bool is_lost(float x, float scale)
{
    return x != 0 && fabsf(x * scale) < 0x1p-25f;
}

/* Bits of the magnitude; a greater number has greater ones. */
DEVICE uint32_t size_of(float x)
{
    return __float_as_uint(x) & 0x7fffffff;
}

DEVICE uint32_t finite_size(float x)
{
    return is_finite(x) ? size_of(x) : 0;
}

DEVICE uint32_t larger_size(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The power of two 2^e, e in -126 ... 127. */
DEVICE float power_of_two(int e)
{
    return __uint_as_float((uint32_t)(e + 127) << 23);
}

constexpr int ROW_LANES = D / 4; /* lanes that hold a row, four channels each */

/* Four channels of a row in two parts. */
struct split4 {
    uint2 hi, lo;
    int exponent; /* of the row's factor, in every lane of the row */
    bool wide;    /* parts of f16 cannot hold these channels */
};

/* The largest of a row, which D / 4 lanes hold. */
DEVICE uint32_t largest_of_row(uint32_t size)
{
    if (ROW_LANES == 32) return __reduce_max_sync(~0u, size);
#pragma unroll
    for (int i = 1; i < ROW_LANES; i *= 2) size = larger_size(size, __shfl_xor_sync(~0u, size, i));
    return size;
}

DEVICE struct split4 split_row4(const float4 &x)
{
    struct split4 y;
    uint32_t size = largest_of_row(larger_size(larger_size(size_of(x.x), size_of(x.y)),
                                               larger_size(size_of(x.z), size_of(x.w))));
    bool odd = __any_sync(~0u, size >= 0x7f800000); /* of a row in the warp */
    if (odd)
        size = largest_of_row(larger_size(larger_size(finite_size(x.x), finite_size(x.y)),
                                          larger_size(finite_size(x.z), finite_size(x.w))));
    y.exponent = (int)(size >> 23) - 127;
    y.wide = size != 0 && (y.exponent > EXPONENT_LIMIT || y.exponent < -EXPONENT_LIMIT);
    if (y.wide || size == 0) y.exponent = -EXPONENT_LIMIT;
    float scale = power_of_two(14 - y.exponent);
    if (odd) {
        split_half2<true>(x.x, x.y, scale, y.hi.x, y.lo.x);
        split_half2<true>(x.z, x.w, scale, y.hi.y, y.lo.y);
    } else {
        split_half2<false>(x.x, x.y, scale, y.hi.x, y.lo.x);
        split_half2<false>(x.z, x.w, scale, y.hi.y, y.lo.y);
    }
    y.wide = y.wide | is_lost(x.x, scale) | is_lost(x.y, scale) | is_lost(x.z, scale) |
             is_lost(x.w, scale);
    return y;
}

/* The factor of key `token` of its head, in the layout that the forward kernel copies: for each
 * pair of keys 8 words, 2^(e - 14) of K, e of V, 2^e of V, two each, and 2 unused. */
DEVICE void write_factor(const struct attention_args &a, bool of_value, int sequence, int head,
                         int token, int exponent)
{
    int64_t keys = (a.kv_tokens + 127) / 128 * 128;
    float *to =
        a.key_factors + ((sequence * a.kv_heads + head) * keys + token / 2 * 2) * 4 + (token & 1);
    if (of_value) {
        to[2] = (float)exponent;
        to[4] = power_of_two(exponent);
    } else {
        to[0] = power_of_two(exponent - 14);
    }
}

/* TILE_KV tokens of one head of K or V, from the grid's x on; keys up to the next multiple of
 * TILE_KV get a factor, of a row of zeros. Returns whether one of them is wide. */
DEVICE bool split_keys(const struct attention_args &a, bool of_value, int sequence, int head)
{
    constexpr int WARP_ROWS = 32 / ROW_LANES, STEP = THREADS / 32 * WARP_ROWS, BATCH = 3;
    const struct view &from = of_value ? a.v : a.k, &to = of_value ? a.v_half : a.k_half;
    const float *source =
        (const float *)from.data + sequence * from.stride[0] + head * from.stride[1];
    uint16_t *target = (uint16_t *)to.data + sequence * to.stride[0] + head * to.stride[1];
    int first = blockIdx.x * TILE_KV, channel = threadIdx.x % ROW_LANES * 4;
    int64_t apart = a.batch * to.stride[0];
    bool wide = false;
#pragma unroll 1
    for (int start = threadIdx.x / ROW_LANES; start < (TILE_KV + STEP - 1) / STEP * STEP;
         start += BATCH * STEP) {
        float4 x[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int row = start + i * STEP, token = first + row;
            x[i] = make_float4(0, 0, 0, 0);
            if (row < TILE_KV && token < a.kv_tokens)
                x[i] = __ldcs((const float4 *)(source + token * from.stride[2] + channel));
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            int row = start + i * STEP, token = first + row;
            struct split4 y = split_row4(x[i]);
            if (row >= TILE_KV) continue;
            if (channel == 0) write_factor(a, of_value, sequence, head, token, y.exponent);
            if (token >= a.kv_tokens) continue;
            uint16_t *at = target + token * to.stride[2] + channel;
            *(uint2 *)at = y.hi;
            *(uint2 *)(at + apart) = y.lo;
            wide |= y.wide;
        }
    }
    return wide;
}

/* Which blocks are wide: of 16 queries, [batch][q head][a.wide_queries]; behind them of TILE_KV
 * keys, [batch][k heads, v heads][a.wide_keys]. */
DEVICE int64_t wide_query_at(const struct attention_args &a, int sequence, int head)
{
    return ((int64_t)sequence * a.q_heads + head) * a.wide_queries;
}

DEVICE int64_t wide_key_at(const struct attention_args &a, int sequence, int head)
{
    return wide_query_at(a, a.batch, 0) + ((int64_t)sequence * 2 * a.kv_heads + head) * a.wide_keys;
}

/* K and V of all heads; queries are split where they are used. Grid: key blocks, heads of k and v,
 * sequences. */
extern "C" __global__ void __launch_bounds__(THREADS)
    PREPARE_NAME(const __grid_constant__ struct attention_args a)
{
    wait_for_predecessors();
    for (int sequence = blockIdx.z; sequence < a.batch; sequence += gridDim.z)
        for (int head = blockIdx.y; head < 2 * a.kv_heads; head += gridDim.y) {
            bool of_value = head >= a.kv_heads;
            int wide = __syncthreads_or(
                split_keys(a, of_value, sequence, of_value ? head - a.kv_heads : head));
            if (threadIdx.x == 0) a.wide_blocks[wide_key_at(a, sequence, head) + blockIdx.x] = wide;
        }
}

/* Sixteen rows of Q of a warp, from row `first` on, a row or two at a time. */
constexpr int ROWS_AT_ONCE = 32 / ROW_LANES, ROW_LOADS = 16 / ROWS_AT_ONCE;

DEVICE void load_queries(const struct attention_args &a, int sequence, int head, int first,
                         int lane, float4 (&x)[ROW_LOADS])
{
    const float *from = (const float *)a.q.data + sequence * a.q.stride[0] + head * a.q.stride[1] +
                        lane % ROW_LANES * 4;
#pragma unroll
    for (int i = 0; i < ROW_LOADS; i++) {
        int token = first + i * ROWS_AT_ONCE + lane / ROW_LANES;
        x[i] = make_float4(0, 0, 0, 0);
        if ((uint32_t)token < (uint32_t)a.q_tokens)
            x[i] = __ldcs((const float4 *)(from + token * a.q.stride[2]));
    }
}

/* These rows into the warp's part of the slot at `to`, in the layout of a TMA box. Returns the
 * exponents of the lane's two rows; whether one of the rows is wide goes to wide_blocks. */
DEVICE int2 split_queries(const struct attention_args &a, int sequence, int head, int first,
                          int lane, const float4 (&x)[ROW_LOADS], uint32_t to)
{
    int channel = lane % ROW_LANES * 4, column = channel % 64 / 8;
    int2 exponents = {0, 0};
    bool wide = false;
#pragma unroll
    for (int i = 0; i < ROW_LOADS; i++) {
        int row = i * ROWS_AT_ONCE + lane / ROW_LANES;
        struct split4 y = split_row4(x[i]);
        uint32_t at = to + channel / 64 * 64 * 128 + row * 128 + ((column ^ (row & 7)) << 4) +
                      (channel & 4) * 2;
        shared_store2(at, y.hi.x, y.hi.y);
        shared_store2(at + Q_PART, y.lo.x, y.lo.y);
        wide |= y.wide;
#pragma unroll
        for (int k = 0; k < ROWS_AT_ONCE; k++) {
            int exponent = __shfl_sync(~0u, y.exponent, k * ROW_LANES);
            if (i * ROWS_AT_ONCE + k == lane / 4) exponents.x = exponent;
            if (i * ROWS_AT_ONCE + k == lane / 4 + 8) exponents.y = exponent;
        }
    }
    wide = __any_sync(~0u, wide);
    if (lane == 0 && first < a.q_tokens)
        a.wide_blocks[wide_query_at(a, sequence, head) + first / 16] = wide;
    return exponents;
}

/* ---- The softmax ---- */

/* x0, x1: the largest of the lane's columns; -inf: nothing visible. A reference is kept while no
 * row of the warp exceeds its own by more than TOP + KEEP; a tile starts with -inf. */
DEVICE void raise_references(struct row_state &r, float x0, float x1)
{
    r.rescale =
        __any_sync(~0u, (x0 - r.reference0 > TOP + KEEP) | (x1 - r.reference1 > TOP + KEEP));
    if (!r.rescale) return;
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 2));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 2));
    x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, 1));
    x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, 1));
    x0 = x0 - r.reference0 > TOP + KEEP ? x0 - TOP : r.reference0;
    x1 = x1 - r.reference1 > TOP + KEEP ? x1 - TOP : r.reference1;
    r.decay0 = exp2_approx(r.reference0 - (x0 == -INFINITY ? 0.f : x0));
    r.decay1 = exp2_approx(r.reference1 - (x1 == -INFINITY ? 0.f : x1));
    r.sum0 = __fmul_rn(r.sum0, r.decay0);
    r.sum1 = __fmul_rn(r.sum1, r.decay1);
    r.reference0 = x0;
    r.reference1 = x1;
}

/* The largest of x + e of the lane's columns, for its two rows; s becomes s times the key's
 * 2^(e - 14), -inf in columns from above0, above1 on (MASKED; relative to the lane's first column).
 * at, row0, row1: see softmax_scaled. */
template <bool MASKED>
DEVICE void largest_scaled(float (&s)[KEYS / 2], uint32_t at, float row0, float row1, int above0,
                           int above1, float &x0, float &x1)
{
    x0 = x1 = -INFINITY;
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float k[2], e[2];
        shared_load4(at + 128 * i, k[0], k[1], e[0], e[1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            s[4 * i + j] = __fmul_rn(s[4 * i + j], k[j]);
            s[4 * i + 2 + j] = __fmul_rn(s[4 * i + 2 + j], k[j]);
            if (MASKED && 8 * i + j >= above0) s[4 * i + j] = -INFINITY;
            if (MASKED && 8 * i + j >= above1) s[4 * i + 2 + j] = -INFINITY;
            x0 = fmaxf(x0, __fmaf_rn(s[4 * i + j], row0, e[j]));
            x1 = fmaxf(x1, __fmaf_rn(s[4 * i + 2 + j], row1, e[j]));
        }
    }
}

/* s, products of scaled q and k with hidden ones at -inf behind largest_scaled(), becomes w = p 2^e,
 * see the file's comment: p = exp2(x - reference), x = s * (2^(e - 14) of the key) * row. at: the
 * shared address of the factors of the lane's first two columns. References are in log2 units, of
 * x + e less TOP. The block's sum is taken for itself first: equal weights, as of keys that are
 * all small, would be rounded all in one direction. */
DEVICE void softmax_scaled(float (&s)[KEYS / 2], struct row_state &r, uint32_t at, float row0,
                           float row1, float x0, float x1)
{
    raise_references(r, x0, x1);
    float from0 = r.reference0 == -INFINITY ? 0.f : r.reference0;
    float from1 = r.reference1 == -INFINITY ? 0.f : r.reference1;
    float sum0[2] = {0, 0}, sum1[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        float v[2];
        shared_load2(at + 128 * i + 16, v[0], v[1]);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            float p0 = exp2_approx(__fmaf_rn(s[4 * i + j], row0, -from0));
            float p1 = exp2_approx(__fmaf_rn(s[4 * i + 2 + j], row1, -from1));
            sum0[j] = __fadd_rn(sum0[j], p0);
            sum1[j] = __fadd_rn(sum1[j], p1);
            s[4 * i + j] = __fmul_rn(p0, v[j]);
            s[4 * i + 2 + j] = __fmul_rn(p1, v[j]);
            r.least0 = min(r.least0, __float_as_uint(s[4 * i + j]) - 1);
            r.least1 = min(r.least1, __float_as_uint(s[4 * i + 2 + j]) - 1);
        }
    }
    r.sum0 = __fadd_rn(r.sum0, __fadd_rn(sum0[0], sum0[1]));
    r.sum1 = __fadd_rn(r.sum1, __fadd_rn(sum1[0], sum1[1]));
}

/* Two f16 parts hold a weight to 2^-25. Below 2^-16, where the row's largest so far is 2^7 to
 * 2^15, fewer than 9 bits remain, and where the values of all larger weights are 0 such a weight is the
 * result: a row that has one is done again in three parts. A row asks by its own weights alone, so
 * what it does not see cannot change its bits. */
DEVICE void tell_small_weights(const struct attention_args &a, int sequence, int head, int first,
                               int lane, const struct row_state &r)
{
    uint32_t limit = __float_as_uint(0x1p-16f) - 1;
    uint32_t small0 = __ballot_sync(~0u, r.least0 < limit),
             small1 = __ballot_sync(~0u, r.least1 < limit);
    if ((small0 | small1) == 0 || lane != 0 || first >= a.q_tokens) return;
    int rows = 0;
    for (int i = 0; i < 8; i++) {
        if (small0 >> (4 * i) & 15) rows |= 2 << i;
        if (small1 >> (4 * i) & 15) rows |= 512 << i;
    }
    a.wide_blocks[wide_query_at(a, sequence, head) + first / 16] |= rows;
}

#endif
