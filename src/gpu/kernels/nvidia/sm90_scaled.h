/* sm90_scaled.h: f32 as two f16 parts (PARTS 2): a power of two for every row, the pass that
 * splits, and the rows of Q. sm90_softmax_scaled.h has the softmax.
 * docs/decisions/0007-f32-on-tensor-cores.md has the bound.
 *
 * The elements of a row of Q, K or V, times 2^(14 - e), where its largest one has exponent e, in K
 * and V rounded up (cell_of), lie below 2^15: hi is the nearest f16 and lo the nearest one of what
 * remains, 22 bits together for all but the row's small elements, which are exact to 2^-25. The
 * factor of a key of V goes into its weight: w = p 2^e. So nothing that a query does not see can
 * touch it; the reference is the largest of score + e among the keys that the row sees, and the row
 * sum counts p itself. */
#ifndef RAPT_NVIDIA_SM90_SCALED_H
#define RAPT_NVIDIA_SM90_SCALED_H

#include "sm90_tasks.h"

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
DEVICE uint32_t finite_size(float x)
{
    return is_finite(x) ? __float_as_uint(fabsf(x)) : 0;
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

/* The exponent of a row of K or V, rounded up to one of ..., -2, 2, 6, ..., so that mostly all keys
 * of a block have the same. */
DEVICE int cell_of(int exponent)
{
    return ((exponent + 1) & ~3) + 2;
}

constexpr int ROW_LANES = D / 16; /* lanes that hold a row: four times four channels, D / 4 apart */
constexpr int ROWS_AT_ONCE = 32 / ROW_LANES;

/* A lane knows its channels by `left`, how many of the row there are from its first one on; without
 * FEATURES the row has all. Those that do not exist are zeros. */
DEVICE bool channels_exist(int left, int i)
{
    return !FEATURES || i * D / 4 < left;
}

/* What a lane knows of a row when it has seen all of it. */
struct row_range {
    int exponent; /* of the row's factor, the same in every lane of the row */
    float scale;
    bool wide; /* f16 parts cannot hold the row, or this lane's channels */
    bool odd;  /* NaN or Inf in one of the warp's rows */
};

/* NaN if x or y is. */
DEVICE float larger_or_nan(float x, float y)
{
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(fabsf(x)), "f"(fabsf(y)));
    return z;
}

DEVICE float larger_of4(const float4 &x)
{
    return larger_or_nan(larger_or_nan(x.x, x.y), larger_or_nan(x.z, x.w));
}

DEVICE float largest_of16(const float4 *x)
{
    return larger_or_nan(larger_or_nan(larger_of4(x[0]), larger_of4(x[1])),
                         larger_or_nan(larger_of4(x[2]), larger_of4(x[3])));
}

DEVICE uint32_t finite_size4(const float4 &x)
{
    return larger_size(larger_size(finite_size(x.x), finite_size(x.y)),
                       larger_size(finite_size(x.z), finite_size(x.w)));
}

DEVICE float least_of4(const float4 &x)
{
    return fminf(fminf(fabsf(x.x), fabsf(x.y)), fminf(fabsf(x.z), fabsf(x.w)));
}

/* Of the lane's channels that exist. */
DEVICE float least_of16(const float4 *x, int left)
{
    float y[4];
#pragma unroll
    for (int i = 0; i < 4; i++) y[i] = channels_exist(left, i) ? least_of4(x[i]) : INFINITY;
    return fminf(fminf(y[0], y[1]), fminf(y[2], y[3]));
}

DEVICE uint32_t largest_of_row(uint32_t size)
{
#pragma unroll
    for (int i = 1; i < ROW_LANES; i *= 2) size = larger_size(size, __shfl_xor_sync(~0u, size, i));
    return size;
}

template <bool KEY> DEVICE struct row_range range_of(const float4 *x, int left)
{
    struct row_range r;
    uint32_t size = largest_of_row(__float_as_uint(largest_of16(x)));
    r.odd = __any_sync(~0u, size >= 0x7f800000);
    if (r.odd)
        size = largest_of_row(larger_size(larger_size(finite_size4(x[0]), finite_size4(x[1])),
                                          larger_size(finite_size4(x[2]), finite_size4(x[3]))));
    r.exponent = (int)(size >> 23) - 127;
    r.wide = size != 0 && (r.exponent > EXPONENT_LIMIT || r.exponent < -EXPONENT_LIMIT);
    if (r.wide || size == 0) r.exponent = -EXPONENT_LIMIT;
    if (KEY) r.exponent = cell_of(r.exponent);
    r.scale = power_of_two(14 - r.exponent);
    float least = least_of16(x, left);
    if (least * r.scale < 0x1p-25f) { /* few, but for zeros */
#pragma unroll
        for (int i = 0; i < 4; i++)
            r.wide = r.wide | is_lost(x[i].x, r.scale) | is_lost(x[i].y, r.scale) |
                     is_lost(x[i].z, r.scale) | is_lost(x[i].w, r.scale);
    }
    return r;
}

/* The exponents of the lane's rows, in K and V those of their factors; false if a row of the warp is 0,
 * wide, has NaN or Inf, or an element of 0 or so small that it may be lost. All roundings and
 * exchanges run side by side. */
template <bool KEY, int STEPS>
DEVICE bool plain_exponents(const float4 (&x)[4 * STEPS], int left, int (&exponent)[STEPS])
{
    uint32_t size[STEPS];
    bool plain = true;
#pragma unroll
    for (int n = 0; n < STEPS; n++) size[n] = __float_as_uint(largest_of16(x + 4 * n));
#pragma unroll
    for (int i = 1; i < ROW_LANES; i *= 2) {
#pragma unroll
        for (int n = 0; n < STEPS; n++)
            size[n] = larger_size(size[n], __shfl_xor_sync(~0u, size[n], i));
    }
#pragma unroll
    for (int n = 0; n < STEPS; n++) {
        float least = least_of16(x + 4 * n, left);
        exponent[n] = (int)(size[n] >> 23) - 127;
        plain = plain && exponent[n] <= EXPONENT_LIMIT && exponent[n] >= -EXPONENT_LIMIT;
        if (KEY) exponent[n] = cell_of(exponent[n]);
        plain = plain && least * power_of_two(14 - exponent[n]) >= 0x1p-25f;
    }
    return __all_sync(~0u, plain);
}

/* Four channels in two parts. */
template <bool ODD> DEVICE void split_parts(const float4 &x, float scale, uint2 &hi, uint2 &lo)
{
    split_half2<ODD>(x.x, x.y, scale, hi.x, lo.x);
    split_half2<ODD>(x.z, x.w, scale, hi.y, lo.y);
}

DEVICE void split4(const float4 &x, const struct row_range &r, uint2 &hi, uint2 &lo)
{
    if (r.odd) split_parts<true>(x, r.scale, hi, lo);
    else split_parts<false>(x, r.scale, hi, lo);
}

/* A lane's sixteen channels of a row; asked once, all roundings run side by side. */
DEVICE void split16(const float4 *x, const struct row_range &r, uint2 (&hi)[4], uint2 (&lo)[4])
{
    if (r.odd) {
#pragma unroll
        for (int i = 0; i < 4; i++) split_parts<true>(x[i], r.scale, hi[i], lo[i]);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) split_parts<false>(x[i], r.scale, hi[i], lo[i]);
    }
}

/* Keys of a head that have room for factors. */
DEVICE int64_t factor_rows(const struct attention_args &a)
{
    return FEATURES ? a.wide_keys * PART_KEYS : (a.kv_tokens + 127) / 128 * 128;
}

/* Where the factor of key `token` of its head goes. For each pair of keys 8 words, as the forward
 * kernel copies them: 2^(e - 14) of K, e of V, 2^e of V, two each, and 2 unused. */
DEVICE float *factor_at(const struct attention_args &a, int sequence, int head, int token)
{
    int64_t keys = factor_rows(a);
    int place = place_of_key(token);
    return a.key_factors + ((sequence * a.kv_heads + head) * keys + place / 2 * 2) * 4 +
           (place & 1);
}

DEVICE void write_factor(float *to, bool of_value, int exponent)
{
    if (of_value) {
        to[2] = (float)exponent;
        to[4] = power_of_two(exponent);
    } else {
        to[0] = power_of_two(exponent - 14);
    }
}

/* Rows first, ..., first + COUNT - 1 of a task. Each lane reads back what it has loaded itself: 64
 * bytes of each step, in a ring of BATCHES. at: the ring's shared address plus 16 * lane. Returns
 * whether one of the lane's rows is wide. */
template <int BATCHES, int COUNT>
DEVICE bool split_keys(const struct attention_args &a, const struct split_task &t, int first,
                       uint32_t at, int lane)
{
    constexpr int STEPS = COUNT / ROWS_AT_ONCE;
    static_assert(COUNT % ROWS_AT_ONCE == 0 && STEPS >= BATCHES, "");
    const struct view &from = t.of_value ? a.v : a.k, &to = t.of_value ? a.v_half : a.k_half;
    int channel = lane % ROW_LANES * 4, token = t.block * PART_KEYS + first + lane / ROW_LANES,
        left = (t.of_value ? a.v_channels : a.channels) - channel;
    const float *source = (const float *)from.data + t.sequence * from.stride[0] +
                          t.head * from.stride[1] + task_token(t, token) * from.stride[2] + channel;
    uint16_t *target = (uint16_t *)to.data + t.sequence * to.stride[0] + t.head * to.stride[1] +
                       place_of_key(token) * to.stride[2] + channel;
    int64_t apart = kv_batches(a) * to.stride[0];
    int steps = (task_keys(a, t, token) + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE; /* of this lane */
    float *factors = factor_at(a, t.sequence, t.head, token);
    bool wide = false;
#pragma unroll 1
    for (int step = -BATCHES; step < STEPS; step++) {
        if (step >= 0) {
            async_copy_wait<BATCHES - 1>();
            float4 x[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                shared_load4(at + (step % BATCHES * 4 + i) * 512, x[i].x, x[i].y, x[i].z, x[i].w);
            struct row_range r = range_of<true>(x, left);
            if (channel == 0)
                write_factor(KEY_QUADS
                                 ? factor_at(a, t.sequence, t.head, token + ROWS_AT_ONCE * step)
                                 : factors + 4 * ROWS_AT_ONCE * step,
                             t.of_value, r.exponent);
            wide |= r.wide;
            if (FEATURES || step < steps) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (BY_PANELS && i * D / 4 >= left + channel) continue; /* nobody reads it */
                    uint2 hi, lo;
                    split4(x[i], r, hi, lo);
                    *(uint2 *)(target + i * D / 4) = hi;
                    *(uint2 *)(target + i * D / 4 + apart) = lo;
                }
            }
            int next_token = token + ROWS_AT_ONCE * (step + 1);
            target +=
                (KEY_QUADS ? place_of_key(next_token) - place_of_key(next_token - ROWS_AT_ONCE)
                           : ROWS_AT_ONCE) *
                to.stride[2];
        }
        int next = step + BATCHES;
        if (next < STEPS) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                async_copy16(at + (next % BATCHES * 4 + i) * 512, source + i * D / 4,
                             next < steps && channels_exist(left, i));
            source += ROWS_AT_ONCE * from.stride[2];
        }
        async_copy_commit();
    }
    return wide;
}

/* By one lane, when all rows of the task, or of a share of it, are split. */
DEVICE void end_task(const struct attention_args &a, const struct split_task &t, bool wide)
{
    if (wide) tell_wide(a);
    store_release(ready_word(a, t.of_value, t.sequence, t.head, t.block), BLOCK_SPLIT | wide);
}

DEVICE void end_share(const struct attention_args &a, const struct split_task &t, bool wide)
{
    if (wide) tell_wide(a);
    add_release(ready_word(a, t.of_value, t.sequence, t.head, t.block), SHARE_SPLIT + wide);
    add_release(split_done(a), 1);
}

/* Tasks first, ..., tasks - 1 are marked as not done. */
DEVICE void clear_tasks(const struct attention_args &a, int first, int tasks, uint32_t table)
{
    for (int i = first + blockIdx.x * THREADS + threadIdx.x; i < tasks; i += gridDim.x * THREADS) {
        struct split_task t = split_task_at(a, i, table);
        *ready_word(a, t.of_value, t.sequence, t.head, t.block) = 0;
    }
}

/* Four warps take a task. */
constexpr int TASK_WARPS = 4, TASKS_OF_BLOCK = THREADS / 32 / TASK_WARPS;

template <int BATCHES>
DEVICE void split_first(const struct attention_args &a, const struct split_task &t, char *ring)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    bool wide = is_wanted(t) && split_keys<BATCHES, PART_KEYS / TASK_WARPS>(
                                    a, t, warp % TASK_WARPS * (PART_KEYS / TASK_WARPS),
                                    shared_address(ring) + warp * BATCHES * 2048 + lane * 16, lane);
    async_proxy_fence_global();
    wide = named_barrier_or(1 + warp / TASK_WARPS, 32 * TASK_WARPS, wide);
    __threadfence();
    if (threadIdx.x % (32 * TASK_WARPS) == 0) end_task(a, t, wide);
}

#if IN_PLACE
/* No block of keys is known as wide. */
extern "C" __global__ void __launch_bounds__(THREADS)
    PREPARE_NAME(const __grid_constant__ struct attention_args a)
{
    wait_for_predecessors();
    clear_tasks(a, 0, split_tasks(a, 0), 0);
}
#else
/* The first tasks, so that the forward kernel can begin; the others are marked as not done. */
extern "C" __global__ void __launch_bounds__(THREADS)
    PREPARE_NAME(const __grid_constant__ struct attention_args a)
{
    constexpr int BATCHES = 2, WARPS = THREADS / 32;
    __shared__ __align__(16) char ring[WARPS * BATCHES * 2048];
    int index = blockIdx.x * TASKS_OF_BLOCK + threadIdx.x / 32 / TASK_WARPS,
        first = gridDim.x * TASKS_OF_BLOCK;
#if FEATURES
    struct split_task t;
    uint32_t table = shared_address(ring);
    wait_for_predecessors();
    if (a.kv_start.data)
        fill_key_table(a, *(struct key_table *)ring, (int *)(ring + sizeof(struct key_table)));
    int tasks = split_tasks(a, table);
    if (index < tasks) t = split_task_at(a, index, table);
    clear_tasks(a, first, tasks, table);
    __syncthreads(); /* the table lies where rows will */
    if (index < tasks) split_first<BATCHES>(a, t, ring);
#else
    int tasks = split_tasks(a, 0);
    wait_for_predecessors();
    if (index < tasks) split_first<BATCHES>(a, split_task_at(a, index, 0), ring);
    clear_tasks(a, first, tasks, 0);
#endif
    if (blockIdx.x == 0 && threadIdx.x == 0) *split_counter(a) = *split_done(a) = first * SHARES;
}

/* What the producer's idle warps do: the other tasks, ahead of the tiles. warp: 0 ... 2. */
DEVICE void split_ahead(const struct attention_args &a, uint32_t base, int warp)
{
    constexpr int ROWS_OF_SHARE = PART_KEYS / SHARES;
    uint32_t table = base + AT_KEY_TABLE;
    int lane = threadIdx.x % 32, shares = split_tasks(a, table) * SHARES;
    uint32_t at = base + AT_SPLIT + warp * SPLIT_RING_BYTES + lane * 16;
#pragma unroll 1
    for (;;) {
        int index = 0;
        if (lane == 0) index = atomicAdd(split_counter(a), 1);
        index = __shfl_sync(~0u, index, 0);
        if (index >= shares) break;
        struct split_task t = split_task_at(a, index / SHARES, table);
        bool wide = is_wanted(t) && split_keys<SPLIT_RING_BYTES / 2048, ROWS_OF_SHARE>(
                                        a, t, index % SHARES * ROWS_OF_SHARE, at, lane);
        async_proxy_fence_global();
        wide = __any_sync(~0u, wide);
        __threadfence();
        __syncwarp();
        if (lane == 0) end_share(a, t, wide);
    }
}

#endif

/* Where a tile's sequence lies in q. */
DEVICE int query_batch(const struct attention_args &a, const struct tile &t)
{
    return FEATURES && a.q_start.data ? 0 : t.batch;
}

DEVICE int query_start(const struct tile &t)
{
#if FEATURES
    return t.q_start;
#else
    return 0;
#endif
}

/* Rows of Q of a warp, from row `first` on, two, four or eight at a time: all sixteen, or eight of
 * many channels. */
constexpr int Q_ROWS = D > 128 ? 8 : 16, Q_STEPS = Q_ROWS / ROWS_AT_ONCE, ROW_LOADS = 4 * Q_STEPS;

DEVICE void load_queries(const struct attention_args &a, const struct tile &t, int first, int lane,
                         float4 (&x)[ROW_LOADS])
{
    const float *from = (const float *)a.q.data + query_batch(a, t) * a.q.stride[0] +
                        t.head * a.q.stride[1] + lane % ROW_LANES * 4;
    int left = a.channels - lane % ROW_LANES * 4;
#pragma unroll
    for (int n = 0; n < Q_STEPS; n++) {
        int token = first + n * ROWS_AT_ONCE + lane / ROW_LANES;
        bool exists = (uint32_t)token < (uint32_t)q_tokens(a, &t);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[4 * n + i] = make_float4(0, 0, 0, 0);
            if (exists && channels_exist(left, i))
                x[4 * n + i] = __ldcs(
                    (const float4 *)(from + (query_start(t) + token) * a.q.stride[2] + i * D / 4));
        }
    }
}

/* The parts of the lane's channels of one row to the slot at `to`, in the layout of a TMA box. */
DEVICE void store_query(uint32_t to, int row, int lane, const uint2 (&hi)[4], const uint2 (&lo)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int channel = i * D / 4 + lane % ROW_LANES * 4, column = channel % 64 / 8;
        uint32_t at = to + channel / 64 * 64 * 128 + row * 128 + ((column ^ (row & 7)) << 4) +
                      (channel & 4) * 2;
        shared_store2(at, hi[i].x, hi[i].y);
        shared_store2(at + Q_PART, lo[i].x, lo[i].y);
    }
}

/* Rows n * ROWS_AT_ONCE, ... of the warp: parts to the slot; exponents: of the lane's two rows of
 * scores. */
DEVICE void split_query(const float4 *x, const struct row_range &r, int n, int lane, uint32_t to,
                        int2 &exponents)
{
    int mine = lane / 4;
    uint2 hi[4], lo[4];
    split16(x, r, hi, lo);
    store_query(to, n * ROWS_AT_ONCE + lane / ROW_LANES, lane, hi, lo);
    int exponent = __shfl_sync(~0u, r.exponent, mine % ROWS_AT_ONCE * ROW_LANES);
    if (n == mine / ROWS_AT_ONCE) exponents.x = exponent;
    if (n == (mine + 8) / ROWS_AT_ONCE) exponents.y = exponent;
}

/* The first of the sequence's blocks of queries in a.wide_blocks. */
DEVICE int tile_query_block(const struct attention_args &a, const struct tile &t)
{
#if FEATURES
    return a.q_start.data ? t.q_start / 16 + t.batch : 0;
#else
    return 0;
#endif
}

/* Whether one of a warp's 16 queries, from `first` on, is wide. */
DEVICE void tell_queries(const struct attention_args &a, const struct tile &t, int first, int lane,
                         bool wide)
{
    if (lane == 0 && first < q_tokens(a, &t)) {
        a.wide_blocks[wide_query_at(a, query_batch(a, t), t.head) + tile_query_block(a, t) +
                      first / 16] = wide;
        if (wide) tell_wide(a);
    }
}

/* These rows, from step `begin` of the warp's sixteen on, into its part of the slot at `to`; and the
 * exponents of the lane's two rows, where they are among them. Returns whether one of the lane's
 * channels is wide. */
DEVICE bool split_some(const struct attention_args &a, int lane, const float4 (&x)[ROW_LOADS],
                       int begin, uint32_t to, int2 &exponents)
{
    int left = a.channels - lane % ROW_LANES * 4;
    int exponent[Q_STEPS];
    bool wide = false;
    if (plain_exponents<false>(x, left, exponent)) {
#pragma unroll
        for (int n = 0; n < Q_STEPS; n++) {
            struct row_range r = {exponent[n], power_of_two(14 - exponent[n]), false, false};
            split_query(x + 4 * n, r, begin + n, lane, to, exponents);
        }
    } else {
#pragma unroll
        for (int n = 0; n < Q_STEPS; n++) {
            struct row_range r = range_of<false>(x + 4 * n, left);
            wide |= r.wide;
            split_query(x + 4 * n, r, begin + n, lane, to, exponents);
        }
    }
    return wide;
}

/* All sixteen rows. Returns the exponents of the lane's two; whether one of the rows is wide goes to
 * wide_blocks. */
DEVICE int2 split_queries(const struct attention_args &a, const struct tile &t, int first, int lane,
                          const float4 (&x)[ROW_LOADS], uint32_t to)
{
    int2 exponents = {0, 0};
    bool wide = __any_sync(~0u, split_some(a, lane, x, 0, to, exponents));
    tell_queries(a, t, first, lane, wide);
    return exponents;
}

#endif
