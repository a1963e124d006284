/* sm90_numbers.h: i8 keys and values as numbers of q's type, which hold them exactly, made once for all
 * tiles by a launch ahead of the forward kernel (KV_AHEAD). With a scale for each 32 channels those of a
 * key stay exact integers but for scales far below others; a value times its scale is rounded to bf16
 * and what that leaves again, which lies behind all of the key's first numbers.
 *
 * The numbers lie in the workspace, [batch, kv head, key, channel], a sequence's from the beginning of a
 * block of PART_KEYS keys on, so that the forward kernel knows nothing of pages; beside them the scales,
 * for each block as consumers want them in shared memory. Keys past the sequence's end are zeros with
 * scales of 0, to the end of their block; no integer or scale of theirs is read. Blocks that no query sees
 * are left out but for the first one, which stands for the keys of tiles that see none. */
#ifndef RAPT_NVIDIA_SM90_NUMBERS_H
#define RAPT_NVIDIA_SM90_NUMBERS_H

#include "i8.h"
#include "sm90_load.h"

/* Eight channels of a key are read at a time, all of a thread's together. */
constexpr int OCTETS = D / 8, OCTETS_OF_BLOCK = KEYS * OCTETS,
              OCTET_READS = (OCTETS_OF_BLOCK + THREADS - 1) / THREADS;
static_assert(D == DV, "K and V alike");

/* A block of keys of K or V. */
struct block_at {
    int sequence, head, block;
    bool values;
};

/* Where the row of a key of the block begins in a view, in elements. */
DEVICE int64_t row_of_key(const struct attention_args &a, const struct view &v,
                          const struct block_at &at, int key)
{
    int64_t batch = at.sequence, row = at.block * KEYS + key;
    if (paged(a)) {
        int page = page_index(a, (int)row);
        batch = page_of(a, {(int)row, at.head, at.sequence, INT32_MAX}, 0);
        row -= (int64_t)page * a.page_tokens;
    } else if (a.kv_start.data) {
        batch = 0;
        row += first_key(a, at.sequence);
    }
    return batch * v.stride[0] + at.head * v.stride[1] + row * v.stride[2];
}

/* The thread's octets of the block, zeros for keys that do not exist; rows: where those of keys begin. */
DEVICE void read_octets(const struct view &from, const int64_t (&rows)[KEYS], int left,
                        uint2 (&x)[OCTET_READS])
{
#pragma unroll
    for (int i = 0; i < OCTET_READS; i++) {
        int octet = threadIdx.x + i * THREADS, key = octet / OCTETS;
        x[i] = make_uint2(0, 0);
        if (octet < OCTETS_OF_BLOCK && key < left)
            x[i] =
                __ldcs((const uint2 *)((const char *)from.data + rows[key] + octet % OCTETS * 8));
    }
}

#if SCALE_BLOCKS == 1
/* By two warps, a half of the block each; left: keys of the block that exist. */
DEVICE void write_scales(const struct attention_args &a, const struct block_at &at, float *to,
                         int left, int half, int lane)
{
    const struct view &v = at.values ? a.v_scale : a.k_scale;
    int exponent = 0;
#pragma unroll
    for (int i = 0; i < KEYS / 64; i++) {
        int key = half * (KEYS / 2) + 32 * i + lane;
        float x = 0;
        if (key < left) x = ((const float *)v.data)[row_of_key(a, v, at, key)];
        if (!at.values) x = scale_of_key(x, a.scale_log2);
        to[at.values * KEYS + place_of_scale(key)] = x;
        exponent = max_int(exponent, scale_exponent(__float_as_uint(x)));
    }
    if (!at.values) return;
    exponent = __reduce_max_sync(~0u, exponent);
    if (lane == 0) ((int *)to)[2 * KEYS + half] = exponent;
}

DEVICE void write_numbers(const struct attention_args &a, const struct block_at &at, int keys)
{
    const struct view &from = at.values ? a.v : a.k, &to = at.values ? a.v_half : a.k_half;
    const int left = keys - at.block * KEYS, batch = a.kv_start.data ? 0 : at.sequence,
              block = at.block + first_key_block(a, at.sequence);
    __shared__ int64_t rows[KEYS];
    for (int key = threadIdx.x; key < KEYS; key += THREADS)
        rows[key] = key < left ? row_of_key(a, from, at, key) : 0;
    __syncthreads();
    uint2 x[OCTET_READS];
    read_octets(from, rows, left, x);
    int warp = threadIdx.x / 32;
    if (warp < 2)
        write_scales(a, at, scales_ahead(a, batch, at.head, block), left, warp, threadIdx.x % 32);
    uint4 *target = (uint4 *)((uint16_t *)to.data + batch * to.stride[0] + at.head * to.stride[1] +
                              (int64_t)block * KEYS * D);
#pragma unroll
    for (int i = 0; i < OCTET_READS; i++) {
        int octet = threadIdx.x + i * THREADS;
        if (octet < OCTETS_OF_BLOCK)
            target[octet] = make_uint4(two_numbers<0x4140>(x[i].x), two_numbers<0x4342>(x[i].x),
                                       two_numbers<0x4140>(x[i].y), two_numbers<0x4342>(x[i].y));
    }
}

#else
/* Octets of channels that have a scale in common, in neighbouring threads. */
constexpr int SCALE_OCTETS = SCALE_CHANNELS / 8;
static_assert(THREADS % 32 == 0 && OCTETS_OF_BLOCK % 32 == 0 && SCALE_OCTETS == 4 &&
                  KEYS <= THREADS,
              "whole warps of octets, and a thread for each key");

/* What the threads of a block of keys tell each other: where rows begin, which blocks of channels have
 * integers but zeros, and what integers are multiplied by. */
struct key_notes {
    int64_t row[KEYS];
    float factor[KEYS][SCALE_BLOCKS];
    bool some[KEYS][SCALE_BLOCKS];
};

DEVICE float power_at_least(int exponent)
{
    return __uint_as_float((uint32_t)max_int(exponent, 1) << 23);
}

/* From a key's scales what its integers are multiplied by, 1 but where a scale is below 2^-30 of one
 * before it (or 0, or of zeros alone), so that no sum of scores outgrows f32 on its way through the
 * scales; and what sums are multiplied by, last of all the scale of scores. A scale that is no number
 * makes all of the key's scores NaN. */
DEVICE void follow_scales(const float (&x)[SCALE_BLOCKS], const bool (&some)[SCALE_BLOCKS],
                          float scale_log2, float (&factor)[SCALE_BLOCKS], float *to)
{
    float largest = 0, before = 0, bad = 0;
#pragma unroll
    for (int i = 0; i < SCALE_BLOCKS; i++) {
        bad = __fadd_rn(bad, __fadd_rn(x[i], -x[i]));
        float size = some[i] ? fabsf(x[i]) : 0, least = __fmul_rn(largest, 0x1p-30f);
        bool low = !(size >= least) || size == 0;
        float scale = low ? least : x[i];
        factor[i] = low ? (least > 0 && some[i] ? __fdiv_rn(x[i], least) : 0) : 1;
        if (i > 0) to[(i - 1) * KEYS] = before == 0 || scale == 0 ? 0 : __fdiv_rn(before, scale);
        largest = fmaxf(largest, size);
        before = scale;
    }
    to[(SCALE_BLOCKS - 1) * KEYS] = __fadd_rn(__fmul_rn(before, scale_log2), bad);
}

/* A value's scale is a power of two near its largest one; one that is no number makes numbers that are
 * none. */
DEVICE void share_scale(const float (&x)[SCALE_BLOCKS], const bool (&some)[SCALE_BLOCKS],
                        float (&factor)[SCALE_BLOCKS], float *to)
{
    int largest = 0;
#pragma unroll
    for (int i = 0; i < SCALE_BLOCKS; i++)
        if (some[i]) largest = max_int(largest, scale_exponent(__float_as_uint(x[i])));
    float scale = power_at_least(largest);
#pragma unroll
    for (int i = 0; i < SCALE_BLOCKS; i++) factor[i] = __fdiv_rn(x[i], scale);
    *to = scale;
}

DEVICE float2 two_floats(uint32_t x)
{
#if DTYPE == DTYPE_f16
    float low, high;
    asm("{ .reg .f16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(x));
    return make_float2(low, high);
#else
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
#endif
}

/* Two numbers times a factor, rounded; of values as bf16, and what that leaves as well. */
DEVICE uint32_t scaled_numbers(uint32_t numbers, float factor)
{
    float2 x = two_floats(numbers);
    return pack2(__fmul_rn(x.x, factor), __fmul_rn(x.y, factor));
}

DEVICE uint32_t scaled_values(uint32_t numbers, float factor, uint32_t &rest)
{
    float2 x = two_floats(numbers);
    x.x = __fmul_rn(x.x, factor);
    x.y = __fmul_rn(x.y, factor);
    uint32_t first = pack2_bf16(x.x, x.y);
    rest = pack2_bf16(__fadd_rn(x.x, -__uint_as_float(first << 16)),
                      __fadd_rn(x.y, -__uint_as_float(first & 0xffff0000u)));
    if (!isfinite(factor)) rest = 0;
    return first;
}

DEVICE void write_octet(uint2 x, float factor, bool values, uint4 *to)
{
    uint32_t y[4] = {two_numbers<0x4140>(x.x), two_numbers<0x4342>(x.x), two_numbers<0x4140>(x.y),
                     two_numbers<0x4342>(x.y)},
             rest[4];
    if (values || factor != 1) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[i] = values ? scaled_values(y[i], factor, rest[i]) : scaled_numbers(y[i], factor);
    }
    *to = make_uint4(y[0], y[1], y[2], y[3]);
    if (values) to[OCTETS] = make_uint4(rest[0], rest[1], rest[2], rest[3]);
}

DEVICE void write_numbers(const struct attention_args &a, const struct block_at &at, int keys)
{
    const struct view &from = at.values ? a.v : a.k, &to = at.values ? a.v_half : a.k_half,
                      &scale = at.values ? a.v_scale : a.k_scale;
    const int left = keys - at.block * KEYS, batch = a.kv_start.data ? 0 : at.sequence,
              block = at.block + first_key_block(a, at.sequence), own = threadIdx.x,
              width = at.values ? V_NUMBERS : 1;
    __shared__ struct key_notes notes;
    float scales[SCALE_BLOCKS] = {};
    if (own < KEYS) {
        notes.row[own] = own < left ? row_of_key(a, from, at, own) : 0;
        if (own < left) {
            const float *row = (const float *)scale.data + row_of_key(a, scale, at, own);
#pragma unroll
            for (int i = 0; i < SCALE_BLOCKS; i++) scales[i] = row[i];
        }
    }
    __syncthreads();
    uint2 x[OCTET_READS];
    read_octets(from, notes.row, left, x);
#pragma unroll
    for (int i = 0; i < OCTET_READS; i++) {
        int octet = threadIdx.x + i * THREADS;
        uint32_t any = x[i].x | x[i].y;
        any |= __shfl_xor_sync(~0u, any, 1);
        any |= __shfl_xor_sync(~0u, any, 2);
        if (octet < OCTETS_OF_BLOCK && octet % SCALE_OCTETS == 0)
            notes.some[octet / OCTETS][octet % OCTETS / SCALE_OCTETS] = any != 0;
    }
    __syncthreads();
    if (own < KEYS) {
        float *target = scales_ahead(a, batch, at.head, block) + place_of_scale(own);
        if (at.values)
            share_scale(scales, notes.some[own], notes.factor[own], target + SCALE_BLOCKS * KEYS);
        else follow_scales(scales, notes.some[own], a.scale_log2, notes.factor[own], target);
    }
    __syncthreads();
    uint4 *target = (uint4 *)((uint16_t *)to.data + batch * to.stride[0] + at.head * to.stride[1] +
                              (int64_t)block * KEYS * width * D);
#pragma unroll
    for (int i = 0; i < OCTET_READS; i++) {
        int octet = threadIdx.x + i * THREADS, key = octet / OCTETS, part = octet % OCTETS;
        if (octet < OCTETS_OF_BLOCK)
            write_octet(x[i], notes.factor[key][part / SCALE_OCTETS], at.values,
                        target + key * width * OCTETS + part);
    }
}
#endif

/* The blocks that some query of the sequence sees; the first one at least. */
struct blocks_seen {
    int begin, end;
};
DEVICE struct blocks_seen blocks_of(const struct attention_args &a, int sequence, int keys)
{
    int queries =
            a.q_start.data ? first_query(a, sequence + 1) - first_query(a, sequence) : a.q_tokens,
        offset = a.top_left ? 0 : keys - queries,
        end = min_int(keys, queries + offset + a.window_right);
    return {max_int(0, offset - a.window_left) / KEYS, max_int(1, (end + KEYS - 1) / KEYS)};
}

/* Several scales: three blocks of threads a multiprocessor, or two where that would spill. */
#if SCALE_BLOCKS > 1
#define PREPARE_BOUNDS __launch_bounds__(THREADS, DTYPE == DTYPE_f16 ? 2 : 3)
#else
#define PREPARE_BOUNDS __launch_bounds__(THREADS)
#endif

/* Grid: key blocks of the longest sequence, heads of k and v, sequences. */
extern "C" __global__ void PREPARE_BOUNDS
PREPARE_NAME(const __grid_constant__ struct attention_args a)
{
    wait_for_predecessors();
    for (int sequence = blockIdx.z; sequence < a.batch; sequence += gridDim.z) {
        const int keys = sequence_keys(a, sequence);
        const struct blocks_seen seen = blocks_of(a, sequence, keys);
        for (int block = blockIdx.x; block < seen.end; block += gridDim.x) {
            if (block > 0 && block < seen.begin) continue;
            for (int head = blockIdx.y; head < 2 * a.kv_heads; head += gridDim.y) {
                bool values = head >= a.kv_heads;
                write_numbers(a, {sequence, values ? head - a.kv_heads : head, block, values},
                              keys);
                __syncthreads(); /* rows of keys are read */
            }
        }
    }
}

#endif
