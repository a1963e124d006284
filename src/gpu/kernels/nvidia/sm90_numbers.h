/* sm90_numbers.h: i8 keys and values as numbers of q's type, which hold them exactly, made once for all
 * tiles by a launch ahead of the forward kernel (KV_AHEAD).
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
#pragma unroll
    for (int i = 0; i < OCTET_READS; i++) {
        int octet = threadIdx.x + i * THREADS, key = octet / OCTETS;
        x[i] = make_uint2(0, 0);
        if (octet < OCTETS_OF_BLOCK && key < left)
            x[i] =
                __ldcs((const uint2 *)((const char *)from.data + rows[key] + octet % OCTETS * 8));
    }
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

/* Grid: key blocks of the longest sequence, heads of k and v, sequences. */
extern "C" __global__ void __launch_bounds__(THREADS)
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
