/* mla_combine.h: the second launch of mla_sm90.cu: results of several parts. combine.h says what these leave.
 *
 * 128 threads read a row of a part, four channels each. Where parts are few they read all of them, and a block makes
 * rows of three heads; else a block makes one row, and its three times 128 threads share the parts. */
#ifndef RAPT_NVIDIA_MLA_COMBINE_H
#define RAPT_NVIDIA_MLA_COMBINE_H

#include "nvidia/mla_part.h"

enum { ROW_THREADS = DV / 4, GROUPS = 3, AHEAD = 4 };
static_assert(THREADS == GROUPS * ROW_THREADS, "three rows, or a third of the parts each");

/* Maximum and sum of one part of a row for each lane: the lane's, of 32 from `first` on. */
DEVICE float2 ends_from(const char *ends, int64_t step, int first, int parts)
{
    int part = first + (int)(threadIdx.x % WAVE);
    return part < parts ? LOAD_NEW(float2, ends + part * step) : make_float2(-INFINITY, NO_KEYS);
}

/* What the values of these parts count; below 0: not, whatever they are. */
DEVICE float weight_of(float2 ends, const struct total &t)
{
    return ends.y < 0 ? -1 : exp2_fast(ends.x - t.base);
}

/* A row, of which a thread reads all parts, or every STEP-th, and the first ROW_THREADS store. */
template <int STEP>
DEVICE void combine_row(const struct attention_args &a, int b, int head, int token)
{
    __shared__ float4 sums[STEP > 1 ? THREADS : 1];
    int batch = a.q_start.data ? 0 : b, channel = threadIdx.x % ROW_THREADS * 4,
        first = STEP > 1 ? threadIdx.x / ROW_THREADS : 0, parts = a.splits;
    int64_t row = partial_row(&a, batch, head, token), step = score_row_count(&a) * 8;
    const char *ends = settled(partial_lse_at(&a, 0, row)),
               *values = settled(partial_out_at(&a, first, row, channel));
    wait_for_earlier_work(); /* which the addresses do not need */
    float sink = sink_of(&a, b, head);
    float2 own = ends_from(ends, step, 0, parts);
    float4 next[AHEAD], sum = float4_of(0, 0, 0, 0);
    struct total t;
    float weight;
#pragma unroll 1
    for (int part = first;;) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++, values += step * (STEP * DV / 2))
            if (part + i * STEP < parts) next[i] = LOAD_NEW(float4, values);
        if (part == first) {
            float m = own.x;
#pragma unroll 1
            for (int more = WAVE; STEP > 1 && more < parts; more += WAVE)
                m = maximum(m, ends_from(ends, step, more, parts).x);
            t = total_of(max_of_wave(m), sink);
            weight = weight_of(own, t);
            float l = weight < 0 ? 0 : fused(own.y, weight, 0);
#pragma unroll 1
            for (int more = WAVE; STEP > 1 && more < parts; more += WAVE) {
                float2 others = ends_from(ends, step, more, parts);
                if (!(others.y < 0)) l = fused(others.y, exp2_fast(others.x - t.base), l);
            }
            t.l += sum_of_wave(l);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int number = part + i * STEP;
            if (number >= parts) break;
            if (STEP > 1 && number >= WAVE && number % WAVE < STEP) /* the first of the next ones */
                weight = weight_of(ends_from(ends, step, number / WAVE * WAVE, parts), t);
            float w = __shfl_sync(~0u, weight, number % WAVE);
            if (!(w < 0)) sum = add_part(sum, next[i], w);
        }
        part += AHEAD * STEP;
        if (part >= parts) break;
    }
    if (STEP > 1) {
        sums[threadIdx.x] = sum;
        __syncthreads();
#pragma unroll
        for (int i = 1; i < STEP && first == 0; i++)
            sum = add_part(sum, sums[i * ROW_THREADS + threadIdx.x], 1);
    }
    if (first == 0) {
        float factor = total_factor(&t);
        if (factor == 0) sum = float4_of(0, 0, 0, 0);
        store_four(element_at(&a.out, batch, head, token, channel), a.out.dtype,
                   float4_of(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor));
        if (channel == 0) store_lse_of(&a, batch, head, token, &t);
    }
}

/* Blocks: tokens, each of all heads, one by one or in threes. */
extern "C" __global__ void __launch_bounds__(THREADS, 3)
    COMBINE_ENTRY(KERNEL_NAME)(const __grid_constant__ struct attention_args a)
{
    const int heads = COMBINED_HEADS(&a), each = (a.q_heads + heads - 1) / heads;
    int token = BLOCK_X / each, number = BLOCK_X - token * each, b = 0;
    let_successors_begin();
    if (a.q_start.data) {
        wait_for_earlier_work();
        b = sequence_of_token(&a.q_start, a.batch, token);
        struct sequence seq = sequence_of(&a, b); /* tokens of no sequence have no result */
        if (token < seq.q_start || token >= seq.q_start + seq.q_length) return;
    } else {
        b = token / a.q_tokens;
        token -= b * a.q_tokens;
    }
    if (heads == 1) {
        combine_row<GROUPS>(a, b, number, token);
    } else {
        int head = number * heads + threadIdx.x / ROW_THREADS;
        if (head < a.q_heads) combine_row<1>(a, b, head, token);
    }
}

#endif
