/* sm90_prepare.h: f32 tensors as sums of three bf16 parts, written to the workspace before the
 * forward kernel reads them by TMA.
 *
 * Each part is what remains, rounded to 8 bits: x = x0 + x1 + x2 exactly unless x is below 2^-110,
 * with |x1| <= 2^-8 |x| and |x2| <= 2^-16 |x|. bf16 has the range of f32, so nothing needs a scale
 * and no element depends on another one. NaN and Inf become the last part and the others 0: the
 * last part meets only the first one of the other operand, and 0 * Inf arises only where f32 has
 * it. */
#ifndef RAPT_NVIDIA_SM90_PREPARE_H
#define RAPT_NVIDIA_SM90_PREPARE_H

#include "sm90_schedule.h"

/* The nearest bf16, as an f32; where that would overflow, the one towards zero. */
DEVICE float nearest_part(float x)
{
    uint32_t bits = __float_as_uint(x), up = bits + 0x7fff + (bits >> 16 & 1);
    return __uint_as_float(((up & 0x7f800000) == 0x7f800000 ? bits : up) & 0xffff0000);
}

DEVICE void split(float x, float (&part)[PARTS])
{
    bool finite = fabsf(x) <= 3.402823466e38f;
    part[0] = finite ? nearest_part(x) : 0;
    part[1] = finite ? nearest_part(x - part[0]) : 0;
    part[2] = finite   ? nearest_part(x - part[0] - part[1])
              : x == x ? x
                       : __uint_as_float(0x7fff0000);
}

/* Four channels of one token, or zeros. */
DEVICE void prepare4(const float *from, uint16_t *to, int64_t apart, bool exist)
{
    float4 x = make_float4(0, 0, 0, 0);
    if (exist) x = *(const float4 *)from;
    float part[4][PARTS];
    split(x.x, part[0]);
    split(x.y, part[1]);
    split(x.z, part[2]);
    split(x.w, part[3]);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        uint32_t low =
            __byte_perm(__float_as_uint(part[0][i]), __float_as_uint(part[1][i]), 0x7632);
        uint32_t high =
            __byte_perm(__float_as_uint(part[2][i]), __float_as_uint(part[3][i]), 0x7632);
        *(uint2 *)(to + i * apart) = make_uint2(low, high);
    }
}

/* Which rows of a tensor, and where they go. */
struct rows_of {
    int place, batches; /* on the batch axis, which has so many places */
    int first, to, tokens;
    int channels, own; /* of the tile; that exist */
};

DEVICE struct rows_of query_rows(const struct attention_args &a, int sequence)
{
    struct rows_of r = {sequence, q_batches(a), 0, 0, a.q_tokens, D, D};
#if FEATURES
    r.own = a.channels;
    if (BY_PANELS) r.channels = (r.own + 63) / 64 * 64;
    if (a.q_start.data) {
        r.place = 0;
        r.first = r.to = first_query(a, sequence);
        r.tokens = first_query(a, sequence + 1) - r.first;
    }
#endif
    return r;
}

DEVICE struct rows_of key_rows(const struct attention_args &a, int sequence, bool values)
{
    struct rows_of r = {sequence, kv_batches(a), 0, 0, a.kv_tokens, values ? DV : D, D};
#if FEATURES
    r.own = values ? a.v_channels : a.channels;
    if (BY_PANELS) r.channels = (r.own + 63) / 64 * 64;
    r.tokens = sequence_keys(a, sequence);
    if (a.kv_start.data) {
        r.place = 0;
        r.first = first_key(a, sequence);
        r.to = first_key_block(a, sequence) * PART_KEYS;
    }
#endif
    return r;
}

/* TILE_KV tokens of one head at a time. */
DEVICE void prepare_rows(const struct view &from, const struct view &to, const struct rows_of &r,
                         int head)
{
    int tokens = r.tokens;
    const float *source = (const float *)from.data + r.place * from.stride[0] +
                          head * from.stride[1] + r.first * from.stride[2];
    uint16_t *target =
        (uint16_t *)to.data + r.place * to.stride[0] + head * to.stride[1] + r.to * to.stride[2];
    for (int first = blockIdx.x * TILE_KV; first < tokens; first += gridDim.x * TILE_KV) {
        int columns = r.channels / 4, rows = tokens - first < TILE_KV ? tokens - first : TILE_KV;
        for (int i = threadIdx.x; i < rows * columns; i += THREADS) {
            int token = first + i / columns, channel = i % columns * 4;
            prepare4(source + token * from.stride[2] + channel,
                     target + token * to.stride[2] + channel, r.batches * to.stride[0],
                     !FEATURES || channel < r.own);
        }
    }
}

/* Behind the launch in two f16 parts (sm90_scaled.h): whether a row of the group's queries, of its
 * keys or its values was wide; then the whole group is done again in three parts. The block of its
 * keys tells the forward kernel. */
DEVICE int group_is_wide(const struct attention_args &a, int sequence, int key_head, bool tells)
{
    struct rows_of q = query_rows(a, sequence), k = key_rows(a, sequence, false);
    int64_t queries = wide_query_at(a, q.place, key_head * a.group),
            keys = wide_key_at(a, k.place, key_head);
    int wide = 0, key_count = a.wide_keys;
#if FEATURES
    int count = (q.tokens + 15) / 16;
    queries += first_query_block(a, sequence);
    keys += first_key_block(a, sequence);
    key_count = key_blocks(k.tokens);
    for (int i = threadIdx.x; i < a.group * count; i += THREADS)
        wide |= a.wide_blocks[queries + (int64_t)(i / count) * a.wide_queries + i % count];
#else
    for (int i = threadIdx.x; i < a.group * a.wide_queries; i += THREADS)
        wide |= a.wide_blocks[queries + i];
#endif
    for (int i = threadIdx.x; i < key_count; i += THREADS)
        wide |= a.wide_blocks[keys + i] | a.wide_blocks[keys + a.kv_heads * a.wide_keys + i];
    wide = __syncthreads_or(wide & WIDE_BITS);
    if (tells && threadIdx.x == 0) a.wide[sequence * a.kv_heads + key_head] = wide;
    return wide;
}

/* Grid: key blocks of the longest axis, or fewer, heads of q, k and v, sequences. */
extern "C" __global__ void __launch_bounds__(THREADS)
    PREPARE_NAME(const __grid_constant__ struct attention_args a)
{
    wait_for_predecessors();
    if (a.wide && !any_wide(a)) return;
    for (int sequence = blockIdx.z; sequence < a.batch; sequence += gridDim.z)
        for (int head = blockIdx.y; head < a.q_heads + 2 * a.kv_heads; head += gridDim.y) {
            int key_head = head - a.q_heads, value_head = key_head - a.kv_heads;
            int group = key_head < 0 ? head / a.group : value_head < 0 ? key_head : value_head;
            bool tells = blockIdx.x == 0 && key_head == group;
            if (a.wide && !group_is_wide(a, sequence, group, tells)) continue;
            if (key_head < 0) prepare_rows(a.q, a.q_half, query_rows(a, sequence), head);
            else if (value_head < 0)
                prepare_rows(a.k, a.k_half, key_rows(a, sequence, false), key_head);
            else prepare_rows(a.v, a.v_half, key_rows(a, sequence, true), value_head);
        }
}

#endif
