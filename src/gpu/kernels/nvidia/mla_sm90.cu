/* mla_sm90.cu: attention of absorbed MLA (multi-head latent attention: one KV head of 576 channels, whose
 * first 512 are the values) for H100 and H200, f16 and bf16: wgmma fed by TMA, split over the keys.
 *
 * A block takes 64 rows, queries of several heads, and a part of the keys. K is read once, into two stages
 * of 64 keys. Warpgroup 0 loads. Each of the other two, the consumers, has a stage, and every second block
 * of keys; and each has half of the channels of O, 64 x 256 numbers, in its registers. Of its own block a
 * consumer makes
 *
 *     S = q K^T; the rows' maxima; P = weights, rounded, in registers and where K's last 64 channels were
 *     O += P V       with its half of the values, P in registers
 *
 * and with the other's block
 *
 *     O += P V       with its half of the values, P in shared memory
 *     S = q K^T      of its own next block, right behind
 *
 * so that a stage is loaded while the other one's block is worked on. Ideas: FlashMLA (DeepSeek 2025) for halves of
 * O and two blocks in turns. */
#include "nvidia/mla_combine.h"
#include "nvidia/mla_store.h"
#include "nvidia/quad.h"

/* d += A B, A (weights) in shared memory, K-major, B (values) with N contiguous. */
DEVICE void multiply_values(float (&d)[128], uint64_t weights, uint64_t values)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." WGMMA_TYPE " {" W_NAMES_128
                 "}, %128, %129, 1, 1, 1, 0, 1;"
                 : W_128(d)
                 : "l"(weights), "l"(values));
}

/* A consumer's addresses and rows. */
struct consumer {
    uint32_t base, own;        /* shared memory; its stage */
    int number, thread, row;   /* 0 or 1; of 128; first of the thread's two rows, row and row + 8 */
    struct span sees[2];       /* of these rows */
    uint64_t q, keys[2], rest; /* operands: Q, the halves of the own stage's panels, the last one */
    uint64_t values,
        other_values; /* the consumer's half of the channels, of its stage and the other */
    uint64_t other_weights;
};

/* What it sums up: weights times values, maxima (log2 units), the thread's sums of weights. */
struct state {
    float o[DV / 4], m[2], l[2];
};

DEVICE struct consumer consumer_of(const struct attention_args &a, const struct part &p,
                                   uint32_t base, int number)
{
    struct consumer c;
    int lane = threadIdx.x % 32, half = number * HALF * PANEL;
    uint32_t other = stage_at(base, 1 - number);
    c.base = base;
    c.own = stage_at(base, number);
    c.number = number;
    c.thread = threadIdx.x % 128;
    c.row = c.thread / 32 * 16 + lane / 4;
    for (int i = 0; i < 2; i++) c.sees[i] = span_of_query(a, p, query_of(a, p, c.row + 8 * i));
    c.q = matrix_descriptor(base, 16);
    c.keys[0] = matrix_descriptor(c.own + half, 16);
    c.keys[1] = matrix_descriptor(c.own + HALF * PANEL - half, 16);
    c.rest = matrix_descriptor(c.own + (PANELS - 1) * PANEL, 16);
    c.values = matrix_descriptor(c.own + half, PANEL);
    c.other_values = matrix_descriptor(other + half, PANEL);
    c.other_weights = matrix_descriptor(other + (PANELS - 1) * PANEL, 16);
    return c;
}

/* This consumer's warp is done with half a stage. */
DEVICE void free_half(const struct consumer &c, int stage, int half)
{
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty_at(c.base, stage, half));
}

/* Scores of its own next block, from channels that its values' half has, and from the others. `before`: behind
 * products with the other's block, whose half is freed as soon as these are over, with some more products
 * under way. */
DEVICE void begin_scores(const struct consumer &c, uint32_t phase, bool before, float (&s)[32])
{
    uint64_t q = c.q + (c.number ? HALF * PANEL >> 4 : 0);
    registers_fence(s);
    mbarrier_wait(full_at(c.base, c.number, 0), phase);
    wgmma_fence(); /* behind a branch; else the compiler serialises all multiplies */
#pragma unroll
    for (int k = 0; k < 4 * HALF; k++) {
        wgmma_ss(s, q + slice_offset(k, ROWS), c.keys[0] + slice_offset(k, KEYS), k > 0);
        if (k == 3 && before) {
            wgmma_commit();
            wgmma_wait<1>();
            free_half(c, 1 - c.number, 1);
        }
    }
    wgmma_commit();
}

DEVICE void end_scores(const struct consumer &c, uint32_t phase, float (&s)[32])
{
    uint64_t q = c.q + (c.number ? 0 : HALF * PANEL >> 4);
    mbarrier_wait(full_at(c.base, c.number, 1), phase);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_ss(s, c.q + slice_offset(8 * HALF + k, ROWS), c.rest + slice_offset(k, KEYS), 1);
#pragma unroll
    for (int k = 0; k < 4 * HALF; k++)
        wgmma_ss(s, q + slice_offset(k, ROWS), c.keys[1] + slice_offset(k, KEYS), 1);
    wgmma_commit();
    wgmma_wait<0>();
    registers_fence(s);
}

DEVICE void hide_scores(const struct consumer &c, int key, float (&s)[32])
{
    int first = key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; i++) {
        int own = first + i / 4 * 8 + i % 2;
        struct span row = c.sees[i / 2 % 2];
        if (own < row.first || own >= row.end) s[i] = -INFINITY; /* no row ends behind the part */
    }
}

/* Raises the state to these maxima where they are greater. */
DEVICE void raise_maxima(const float (&top)[2], struct state &st)
{
    if (!__any_sync(~0u, top[0] > st.m[0] || top[1] > st.m[1])) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float m = maximum(st.m[r], top[r]), factor = exp2_fast(st.m[r] - exponent_base(m));
        st.m[r] = m;
        st.l[r] *= factor;
#pragma unroll
        for (int i = 0; i < DV / 8; i++) st.o[i / 2 * 4 + 2 * r + i % 2] *= factor;
    }
}

DEVICE uint32_t maximum_at(const struct consumer &c, int number, int r)
{
    return c.base + AT_MAXIMA + (number * ROWS + c.row + 8 * r) * 4;
}

/* The maxima after the own block, in log2 units; also for the other consumer. */
DEVICE void find_maxima(const struct consumer &c, float scale_log2, const float (&s)[32],
                        struct state &st)
{
    float top[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = -INFINITY;
#pragma unroll
        for (int i = 0; i < 16; i++) top[r] = maximum(top[r], s[i / 2 * 4 + 2 * r + i % 2]);
        top[r] = max_of_quad(top[r]) * scale_log2;
    }
    raise_maxima(top, st);
    if (threadIdx.x % 4 == 0)
        for (int r = 0; r < 2; r++) shared_store(maximum_at(c, c.number, r), bits_of(st.m[r]));
}

/* Scores to weights, rounded and packed as an operand. */
DEVICE void weigh_scores(float scale_log2, const float (&s)[32], struct state &st,
                         uint32_t (&weights)[16])
{
    float base[2] = {exponent_base(st.m[0]), exponent_base(st.m[1])};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int r = i % 2;
        float x = exp2_fast(fused(s[2 * i], scale_log2, -base[r])),
              y = exp2_fast(fused(s[2 * i + 1], scale_log2, -base[r]));
        st.l[r] += x + y;
        weights[i] = pack2(x, y);
    }
}

/* Weights to the last panel of the own stage, for the other consumer. */
DEVICE void leave_weights(const struct consumer &c, const uint32_t (&weights)[16])
{
    int lane = threadIdx.x % 32, row = c.thread / 32 * 16 + lane % 16;
    uint32_t at = c.own + (PANELS - 1) * PANEL + row * 128;
#pragma unroll
    for (int k = 0; k < 4; k++)
        stmatrix4(at + ((2 * k + lane / 16) ^ row % 8) * 16, weights + 4 * k);
}

/* Its own block, whose scores are there: weights, for the other consumer as well, and O += P V. Whether
 * values that some row does not see were not finite. */
DEVICE bool add_own(const struct attention_args &a, const struct part &p, const struct consumer &c,
                    int key, float (&s)[32], struct state &st)
{
    uint32_t weights[16];
    bool some_hidden = key < p.all_first || key + KEYS > smaller(p.all_end, p.end), special = false;
    if (RARE(some_hidden)) hide_scores(c, key, s);
    find_maxima(c, a.scale_log2, s, st);
    weigh_scores(a.scale_log2, s, st, weights);
    named_barrier_sync(BARRIER_OWN + c.number, 128); /* all warps have multiplied the last panel */
    leave_weights(c, weights);
    if (RARE(some_hidden)) special = clear_hidden(p, c.own, key, c.thread);
    async_proxy_fence();
    named_barrier_arrive(BARRIER_WEIGHTS + c.number, CONSUMERS);
    if (RARE(some_hidden)) named_barrier_sync(BARRIER_OWN + c.number, 128);
    registers_fence(st.o);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        wgmma_rs_v(st.o, weights + 4 * k, c.values + row_slice_offset(k), 1);
    wgmma_commit();
    wgmma_wait<0>();
    registers_fence(st.o);
    free_half(c, c.number, 0);
    return special;
}

/* The other's block: O += P V, P from shared memory; then, if there is one, the scores of its own next. */
DEVICE void add_other(const struct consumer &c, bool next, uint32_t phase, float (&s)[32],
                      struct state &st)
{
    float top[2];
    named_barrier_sync(BARRIER_WEIGHTS + 1 - c.number, CONSUMERS);
#pragma unroll
    for (int r = 0; r < 2; r++) top[r] = float_of(shared_load(maximum_at(c, 1 - c.number, r)));
    raise_maxima(top, st);
    registers_fence(st.o);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++)
        multiply_values(st.o, c.other_weights + slice_offset(k, ROWS),
                        c.other_values + row_slice_offset(k));
    wgmma_commit();
    if (next) {
        begin_scores(c, phase, true, s);
        end_scores(c, phase, s);
    } else {
        wgmma_wait<0>();
        free_half(c, 1 - c.number, 1);
    }
    registers_fence(st.o);
}

/* All blocks of keys, the own ones and the other's in turns. Consumer 1 begins with the other's. */
DEVICE bool walk_keys(const struct attention_args &a, const struct part &p,
                      const struct consumer &c, struct state &st)
{
    bool special = false;
    uint32_t phase = c.number;
    float s[32];
    if (p.first < p.end && !c.number) {
        begin_scores(c, 0, false, s);
        end_scores(c, 0, s);
    }
#pragma unroll 1
    for (int key = p.first - c.number * KEYS; key < p.end; key += 2 * KEYS) {
        phase ^= 1;
        if (key >= p.first) special |= add_own(a, p, c, key, s, st);
        if (key + KEYS < p.end) add_other(c, key + 2 * KEYS < p.end, phase, s, st);
    }
    return special;
}

/* What the block leaves of its part. */
DEVICE void finish(const struct attention_args &a, const struct part &p, const struct consumer &c,
                   const struct state &st, bool special, char *shared)
{
    float *totals = (float *)(shared + AT_TOTALS), *sums = (float *)(shared + AT_KV);
    float2 *ends = (float2 *)shared; /* where Q was */
    int channel = c.number * (DV / 2) + threadIdx.x % 4 * 2;
    float2 own[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        own[r] = make_float2(st.m[r], sum_of_quad(st.l[r]));
        if (threadIdx.x % 4 == 0) totals[c.number * ROWS + c.row + 8 * r] = own[r].y;
    }
    if (RARE(special)) shared_store(c.base + AT_SPECIAL, 1);
    named_barrier_sync(BARRIER_BLOCK, CONSUMERS); /* nobody reads Q and K any more */
    special = shared_load(c.base + AT_SPECIAL) != 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = c.row + 8 * r;
        own[r].y = totals[row] + totals[ROWS + row];
        if (channel == 0) ends[row] = own[r];
    }
    leave_sums(st.o, sums, c.row, channel);
    async_proxy_fence();
    named_barrier_sync(BARRIER_BLOCK, CONSUMERS);
    if (a.splits > 1 && !special) store_part(a, p, sums, ends, c.number * 128 + c.thread);
    else write_rows(a, p, sums, ends, special, c.number * 128 + c.thread);
}

DEVICE void consume(const struct attention_args &a, const struct part &p, uint32_t base, int number,
                    char *shared)
{
    struct consumer c = consumer_of(a, p, base, number);
    struct state st;
    async_copy_wait<0>(); /* Q */
    async_proxy_fence();
    named_barrier_sync(BARRIER_BLOCK, CONSUMERS);
#pragma unroll
    for (int i = 0; i < DV / 4; i++) st.o[i] = 0;
    for (int r = 0; r < 2; r++) st.m[r] = -INFINITY, st.l[r] = 0;
    bool special = walk_keys(a, p, c, st);
    finish(a, p, c, st, special, shared);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    KERNEL_NAME(const __grid_constant__ struct attention_args a,
                const __grid_constant__ struct tensor_maps maps)
{
    extern __shared__ __align__(1024) char shared[];
    uint32_t base = shared_address(shared);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES * 2; i++) {
            mbarrier_init(base + AT_FULL + 8 * i, 1);
            mbarrier_init(base + AT_EMPTY + 8 * i, 4);
        }
        shared_store(base + AT_SPECIAL, 0);
        mbarrier_init_fence();
        tensor_map_prefetch(&maps.k);
    }
    wait_for_predecessors();
    struct part p = rows_of_block(a);
    if (p.count <= 0) return;                                   /* a tile of no sequence */
    if (group > 0) load_queries(a, p, base, threadIdx.x - 128); /* while lengths come */
    find_keys(a, p);
    if (group == 0) {
        __syncwarp();
        named_barrier_arrive(BARRIER_START, THREADS);
        registers_release<56>();
        if (threadIdx.x < 32) load_keys(a, maps, p, base);
    } else {
        named_barrier_sync(BARRIER_START, THREADS); /* mbarriers are there */
        registers_claim<224>();
        consume(a, p, base, group - 1, shared);
    }
}
