/* forward_sm90.cu: fused attention forward for H100 and H200 (sm_90a), f16, bf16 and f32 in parts:
 * wgmma fed by TMA, one flat pipeline.
 *
 * Warpgroup 0 loads (sm90_load.h). Each other warpgroup owns 64 query rows and repeats one step per
 * key block n, from the last visible one down to the first:
 *
 *     S = q K[n]^T          both issued, in this order; the tensor cores work on them one after the
 * other O += P V[n + 1] wait for S; mask; softmax of S      runs under P V wait for O; P = S
 * rounded
 *
 * The first step of the next tile takes the last P V of this one along, so tile boundaries cost no
 * bubble, and O goes from registers to memory. Ideas: FlashAttention-3 (Shah et al. 2024) for
 * roles, turns and the overlap inside a warpgroup; FlashAttention-4 for keeping the maximum.
 * bench/notes/hopper.md has what each idea was predicted to give and gave.
 *
 * ptxas keeps a wait inside its basic block but moves exponentials, whose results nobody needs
 * until P is rounded, below the wait for O, and nothing overlaps. So a branch on their sum, to a
 * wait that is already over, stands before that wait; the wait for K[n - 1] comes there too.
 * tools/sass checks the order in every object. */
#include "sm90_load.h"
#include "sm90_mask.h"
#include "sm90_repair.h"
#include "sm90_softmax.h"
#include "sm90_store.h"
#if PARTS > 1
#define NAME_WITH(name, tail) name##tail
#define NAME_OF(name, tail)   NAME_WITH(name, tail)
#define PREPARE_NAME          NAME_OF(KERNEL_NAME, _prepare)
#include "sm90_prepare.h"
#endif

/* What a consumer thread knows besides its tile. */
struct consumer {
    uint32_t base;             /* of shared memory */
    int group, thread;         /* warpgroup, from 0; thread of the warpgroup */
    uint32_t stage, phase;     /* of the K and V block worked on last */
    uint32_t slot, slot_phase; /* of Q */
    float scale;               /* log2 units per unit of a score as the softmax sees it */
#if FEATURES
    int tail;    /* rows that exist in the V block that comes next */
    float slope; /* ALiBi's, times log2(e) */
#endif
};

/* Derived from the thread's number where they are needed: the empty statement keeps them out of
 * registers in between. */
DEVICE int thread_now(const struct consumer &c)
{
    int thread = c.thread;
    asm volatile("" : "+r"(thread));
    return thread;
}

DEVICE int lane_now(const struct consumer &c)
{
    return thread_now(c) & 31;
}

/* The lane's first row in the tile; its other one is 8 below. */
DEVICE int row_now(const struct consumer &c)
{
    int thread = thread_now(c);
    return c.group * 64 + (thread >> 5) * 16 + (thread >> 2 & 7);
}

/* The lane's first column in a block of scores. */
DEVICE int column_now(const struct consumer &c)
{
    return (thread_now(c) & 3) * 2;
}

DEVICE void release_stage(const struct consumer &c, uint32_t at)
{
#if CLUSTER > 1
    if (c.thread < CLUSTER)
        mbarrier_arrive_at(c.base + at, c.thread); /* the other block writes into this stage too */
#else
    if (c.thread == 0) mbarrier_arrive(c.base + at);
#endif
}

/* Of the slot and of the tile's record in it; the barrier orders the reads of the other lanes
 * before the arrival of one. */
DEVICE void release_q(const struct consumer &c)
{
    __syncwarp();
    if (lane_now(c) == 0) mbarrier_arrive(c.base + AT_Q_EMPTY + 8 * (c.slot * GROUPS + c.group));
}

/* Waits for a tile; its Q is then in shared memory and, with Q_HELD, in registers as A operands. */
DEVICE void receive_tile(const struct consumer &c, const struct attention_args &a, struct tile &t)
{
    uint32_t i = c.slot * GROUPS + c.group;
    mbarrier_wait(c.base + AT_Q_FULL + 8 * i, c.slot_phase);
    tile_read(c.base + AT_RECORD + RECORD_BYTES * i, &t);
}

DEVICE void hold_q(const struct consumer &c, uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1])
{
    if (!Q_HELD) return;
    int thread = thread_now(c),
        row = (thread >> 5) * 16 +
              (thread & 15); /* swizzle: 16-byte column c of row r lies at column c ^ (r % 8) */
    uint32_t at = c.base + AT_Q + (c.slot * GROUPS + c.group) * Q_BYTES + row * 128;
#pragma unroll
    for (int k = 0; k < QK_SLICES; k++)
        ldmatrix4(at + (k >> 2) * 64 * 128 + ((((k & 3) * 2 + (thread >> 4 & 1)) ^ (row & 7)) << 4),
                  held + (Q_HELD ? 4 * k : 0));
    registers_fence(held);
    release_q(c);
}

/* S = q K^T of the current stage. */
DEVICE void issue_qk(const struct consumer &c, float (&s)[KEYS / 2],
                     uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1])
{
    uint64_t k_desc = matrix_descriptor(c.base + AT_K + c.stage * K_BYTES, 16);
    uint64_t q_desc = matrix_descriptor(c.base + AT_Q + (c.slot * GROUPS + c.group) * Q_BYTES, 16);
    registers_fence(s);
    if (Q_HELD) registers_fence(held);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
#pragma unroll
        for (int k = 0; k < QK_SLICES; k++) {
            uint64_t right = k_desc + slice_offset(k, KEYS) + pair_right(i) * K_PART / 16;
            if (Q_HELD) wgmma_rs(s, held + (Q_HELD ? 4 * k : 0), right, k > 0);
            else
                wgmma_ss(s, q_desc + slice_offset(k, 64) + pair_left(i) * Q_PART / 16, right,
                         i > 0 || k > 0);
        }
    }
    wgmma_commit();
}

/* What P V is added to: O itself; with parts a sum of its own that starts from zero, since the
 * multiplies truncate where they add, and O would gather that over all keys. */
struct product {
    float sum[PARTS > 1 ? VALUES / 2 : 1];
};

/* O, or the product, += P V of a stage. */
DEVICE void issue_pv(const struct consumer &c, float (&o)[VALUES / 2], struct product &product,
                     const uint32_t (&p)[PARTS * KEYS / 4], uint32_t stage)
{
    uint64_t v_desc = matrix_descriptor(c.base + AT_V + stage * V_BYTES, KEYS * 128);
#if PARTS > 1
    registers_fence(product.sum);
#endif
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < PAIRS; i++) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            const uint32_t *left = p + pair_left(i) * KEYS / 4 + 4 * k;
            uint64_t right = v_desc + row_slice_offset(k) + pair_right(i) * V_PART / 16;
#if PARTS > 1
            wgmma_rs_v(product.sum, left, right, i > 0 || k > 0);
#else
            wgmma_rs_v(o, left, right, 1);
#endif
        }
    }
    wgmma_commit();
}

/* When the multiplies are over. */
DEVICE void add_product(float (&o)[VALUES / 2], struct product &product)
{
#if PARTS > 1
    registers_fence(product.sum);
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = __fadd_rn(o[i], product.sum[i]);
#else
    registers_fence(o);
#endif
}

#if FEATURES
/* Rows past a sequence's end hold what lies behind it in memory; a weight of 0 would not keep NaN
 * out of p v. Every warpgroup writes the same zeros, so they need not wait for each other. */
DEVICE void clear_tail(const struct consumer &c, uint32_t stage)
{
    uint32_t at = c.base + AT_V + stage * V_BYTES;
    for (int p = 0; p < V_PANELS; p++)
        for (int i = c.tail * 8 + c.thread; i < KEYS * 8; i += 128)
            shared_store4(at + p * KEYS * 128 + i * 16, 0, 0, 0, 0);
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + c.group, 128);
}
#endif

#if FEATURES
/* Of a tile's first block, the only one that can reach past the sequence's end. */
DEVICE int existing_rows(const struct tile &t)
{
    return max_int(0, min_int(KEYS, t.kv_tokens - (t.key_end - 1) * KEYS));
}
#endif

/* Mask, then softmax; MASKED: some scores of the block may be hidden. FIRST: of the tile. */
template <bool MASKED, bool FIRST>
DEVICE void weigh_block(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, float (&s)[KEYS / 2], struct row_state &r, int block)
{
#if FEATURES
    if (scores_change(a)) change_scores(a, t, s, block, row_now(c), column_now(c), c.slope);
#endif
    if (MASKED && (CAUSAL || FEATURES || (block + 1) * KEYS > kv_tokens(a, &t)))
        mask_block(a, t, s, block, row_now(c), column_now(c));
    softmax_block<MASKED, FIRST>(s, r, c.scale);
}

DEVICE void rescale(float (&o)[VALUES / 2], const struct row_state &r)
{
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++) {
        o[4 * i] = __fmul_rn(o[4 * i], r.decay0);
        o[4 * i + 1] = __fmul_rn(o[4 * i + 1], r.decay0);
        o[4 * i + 2] = __fmul_rn(o[4 * i + 2], r.decay1);
        o[4 * i + 3] = __fmul_rn(o[4 * i + 3], r.decay1);
    }
}

/* The tile's output from registers to memory; a NaN in it is noted. */
DEVICE void finish_tile(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, const float (&o)[VALUES / 2],
                        const struct row_state &r)
{
    bool bad = store_tile(a, t, o, r, c.scale, row_now(c), lane_now(c));
    if (REPAIRS && __any_sync(~0u, bad)) {
        if (lane_now(c) == 0) note_tile(a, t, c.base, c.group);
        __syncwarp();
    }
}

/* One step, see above. FIRST: block opens tile t, so O belongs to the tile `done` before and is
 * finished. */
template <bool MASKED, bool FIRST>
DEVICE void step(struct consumer &c, const struct attention_args &a, const struct tile &t,
                 const struct tile &done, int block, float (&o)[VALUES / 2],
                 uint32_t (&p)[PARTS * KEYS / 4], uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1],
                 struct row_state &r)
{
    float s[KEYS / 2];
    struct product product;
    uint32_t v_stage = c.stage, v_phase = c.phase;
    struct row_state finished = r;
    if (++c.stage == STAGES) c.stage = 0, c.phase ^= 1;
#if FEATURES
    if (c.tail < KEYS) {
        mbarrier_wait(c.base + AT_V_FULL + 8 * v_stage, v_phase);
        clear_tail(c, v_stage);
    }
    c.tail = FIRST ? existing_rows(t) : KEYS;
#endif
    mbarrier_wait(c.base + AT_K_FULL + 8 * c.stage, c.phase);
    if (PING_PONG) named_barrier_sync(BARRIER_TURN + c.group, 256);
    registers_fence(o);
    registers_fence(p);
    issue_qk(c, s, held);
    mbarrier_wait(c.base + AT_V_FULL + 8 * v_stage, v_phase);
    issue_pv(c, o, product, p, v_stage);
    if (PING_PONG)
        named_barrier_arrive(BARRIER_TURN + (c.group + 1) % GROUPS,
                             256); /* issued, not done: the queue never drains */
    wgmma_wait<1>();
    registers_fence(s);
    release_stage(c, AT_K_EMPTY + 8 * c.stage);
    if (!Q_HELD && block == key_begin(&t)) release_q(c);
    weigh_block<MASKED, FIRST>(c, a, t, s, r, block);
    registers_fence(s);
    if (!(r.sum0 + r.sum1 < 1e38f))
        mbarrier_wait(c.base + AT_V_FULL + 8 * v_stage,
                      v_phase); /* never; see the file's comment */
    if (block > key_begin(&t)) {
        uint32_t next = c.stage + 1 == STAGES ? 0 : c.stage + 1,
                 parity = c.stage + 1 == STAGES ? c.phase ^ 1 : c.phase;
        mbarrier_wait(c.base + AT_K_FULL + 8 * next, parity);
    }
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * v_stage);
    pack_weights(s, p);
    if (FIRST) {
        finish_tile(c, a, done, o, finished);
#pragma unroll
        for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
    } else if (r.rescale) {
        rescale(o, r);
    }
}

#if FEATURES
DEVICE float tile_slope(const struct attention_args &a, const struct tile &t)
{
    if (!a.alibi.data) return 0;
    return ((const float *)a.alibi.data)[t.batch * a.alibi.stride[0] + t.head * a.alibi.stride[1]] *
           LOG2E;
}
#endif

/* The first block that every row of the tile sees whole, counted down from key_end; blocks above
 * need the mask. */
DEVICE int masked_from(const struct attention_args &a, const struct tile &t)
{
#if FEATURES
    int first_row = t.rows * ROWS + query_offset(a, &t) + a.window_right + 1;
    return max_int(0, min_int(t.kv_tokens, first_row)) / KEYS;
#else
    return max_int(0, (t.rows * ROWS + query_offset(a, &t) + a.window_right) / KEYS);
#endif
}

/* Blocks below it are masked on the left. */
DEVICE int masked_below(const struct attention_args &a, const struct tile &t)
{
#if FEATURES
    return (max_int(0, t.rows * ROWS + ROWS - 1 + query_offset(a, &t) - a.window_left) + KEYS - 1) /
           KEYS;
#else
    return 0;
#endif
}

/* Whether a block that some row of the tile sees in part has bad rows of V. Else nothing can be
 * mended: every row sees the bad key. */
DEVICE bool hides_bad_values(const struct consumer &c, const struct attention_args &a,
                             const struct tensor_maps &maps, const struct tile &t, uint32_t &phase)
{
    int above = masked_from(a, t), below = masked_below(a, t);
#pragma unroll 1
    for (int block = t.key_end - 1; block >= key_begin(&t); block--) {
        if (block < above && block >= below) continue;
        fetch_block(a, maps, t, c.base, c.group, c.thread, {false, false}, block, phase);
        if (any_key(clean_values(c.base, c.group, c.thread))) return true;
    }
    return false;
}

/* The whole tile again, see sm90_repair.h: the multiplies of step(), one at a time. */
DEVICE void repair_tile(const struct consumer &c, const struct attention_args &a,
                        const struct tensor_maps &maps, const struct tile &t, uint32_t &phase)
{
    struct row_state r = {0, 0, 0, 0, 1, 1, false};
    float o[VALUES / 2], s[KEYS / 2];
    struct product product;
    uint32_t p[PARTS * KEYS / 4], held[Q_HELD ? 4 * QK_SLICES : 1];
    int end = t.rows * ROWS + row_now(c) + query_offset(a, &t) + a.window_right + 1;
    int begin = FEATURES ? end - 1 - a.window_right - a.window_left : -8;
    bool clean0 = true, clean1 = true;
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
#pragma unroll 1
    for (int block = t.key_end - 1; block >= key_begin(&t); block--) {
        bool first = block == t.key_end - 1;
        int key = block * KEYS, keys = kv_tokens(a, &t) - key;
        fetch_block(a, maps, t, c.base, c.group, c.thread, {first, true}, block, phase);
        if (first) hold_q(c, held);
        struct key_bits bad = clean_values(c.base, c.group, c.thread);
        clean0 = clean0 && !any_key_between(bad, begin - key, min_int(end - key, keys));
        clean1 = clean1 && !any_key_between(bad, begin + 8 - key, min_int(end + 8 - key, keys));
        issue_qk(c, s, held);
        wgmma_wait<0>();
        registers_fence(s);
        if (first) weigh_block<true, true>(c, a, t, s, r, block);
        else weigh_block<true, false>(c, a, t, s, r, block);
        pack_weights(s, p);
        if (r.rescale) rescale(o, r);
        registers_fence(o);
        registers_fence(p);
        issue_pv(c, o, product, p, 0);
        wgmma_wait<0>();
        add_product(o, product);
    }
    store_tile(a, t, o, r, c.scale, row_now(c), lane_now(c), clean0, clean1);
}

/* What the warpgroups have noted, one warpgroup after the other: they share a stage. All loads of
 * the producer have arrived and been used by now. */
DEVICE void repair_noted(struct consumer &c, const struct attention_args &a,
                         const struct tensor_maps &maps)
{
    int heads[4];
    uint32_t phase = 0;
    named_barrier_sync(BARRIER_REPAIR, 128 * GROUPS);
    shared_load4(c.base + AT_NOTES, heads[0], heads[1], heads[2], heads[3]);
    if (!(heads[0] | heads[1] | heads[2] | heads[3])) return;
    c.stage = c.slot = 0;
#pragma unroll 1
    for (int turn = 0; turn < GROUPS; turn++) {
        uint32_t place =
            turn == c.group ? __reduce_max_sync(~0u, shared_load(c.base + AT_NOTES + 4 * turn)) : 0;
#pragma unroll 1
        while (place) {
            struct tile t;
            place = read_note(a, place, &t);
#if FEATURES
            c.slope = tile_slope(a, t);
#endif
            if (hides_bad_values(c, a, maps, t, phase)) repair_tile(c, a, maps, t, phase);
        }
        async_proxy_fence();
        named_barrier_sync(BARRIER_REPAIR, 128 * GROUPS);
    }
}

DEVICE void consume(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                    int group)
{
    struct consumer c;
    c.base = base;
    c.group = group;
    c.thread = threadIdx.x - 128 * (group + 1);
    c.stage = c.phase = c.slot = c.slot_phase = 0;
    c.scale = a.scale_log2;
#if FEATURES
    if (scores_change(a)) c.scale = 1;
#endif
    struct tile t, done;
    struct row_state r = {0, 0, 0, 0, 1, 1, false};
    float o[VALUES / 2];
    uint32_t p[PARTS * KEYS / 4], held[Q_HELD ? 4 * QK_SLICES : 1];
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
    if (PING_PONG && group == 0) named_barrier_arrive(BARRIER_TURN, 256); /* the first turn */
    receive_tile(c, a, t);
    if (t.rows < 0) return;
    hold_q(c, held);
#if FEATURES
    c.tail = existing_rows(t);
    c.slope = tile_slope(a, t);
#endif
    { /* nothing to overlap with yet */
        float s[KEYS / 2];
        mbarrier_wait(base + AT_K_FULL, 0);
        issue_qk(c, s, held);
        wgmma_wait<0>();
        registers_fence(s);
        release_stage(c, AT_K_EMPTY);
        if (!Q_HELD && t.key_end - 1 == key_begin(&t)) release_q(c);
        weigh_block<true, true>(c, a, t, s, r, t.key_end - 1);
        pack_weights(s, p);
    }
    for (;;) {
        int block = t.key_end - 2;
#if FEATURES
        int above = masked_from(a, t); /* blocks at and above it are masked on the right, those
                                          below `below` on the left */
        int below = masked_below(a, t);
        while (block >= t.key_begin) {
#pragma unroll 1
            for (; block >= t.key_begin && (block >= above || block < below); block--)
                step<true, false>(c, a, t, done, block, o, p, held, r);
#pragma unroll 1
            for (; block >= max_int(t.key_begin, below) && block < above; block--)
                step<false, false>(c, a, t, done, block, o, p, held, r);
        }
#else
        if (CAUSAL) {
            int masked = masked_from(a, t);
#pragma unroll 1
            for (; block >= masked; block--) step<true, false>(c, a, t, done, block, o, p, held, r);
        }
#pragma unroll 1
        for (; block >= 0; block--) step<false, false>(c, a, t, done, block, o, p, held, r);
#endif
        if (++c.slot == Q_SLOTS) c.slot = 0, c.slot_phase ^= 1;
        done = t;
        receive_tile(c, a, t);
        if (t.rows < 0) break;
        hold_q(c, held);
#if FEATURES
        c.slope = tile_slope(a, t);
#endif
        step<true, true>(c, a, t, done, t.key_end - 1, o, p, held, r);
    }
#if FEATURES
    if (c.tail < KEYS) {
        mbarrier_wait(base + AT_V_FULL + 8 * c.stage, c.phase);
        clear_tail(c, c.stage);
    }
#endif
    mbarrier_wait(base + AT_V_FULL + 8 * c.stage, c.phase);
    registers_fence(o);
    registers_fence(p);
    struct product product;
    issue_pv(c, o, product, p, c.stage);
    wgmma_wait<0>();
    add_product(o, product);
    release_stage(c, AT_V_EMPTY + 8 * c.stage);
    finish_tile(c, a, done, o, r);
    if (REPAIRS) repair_noted(c, a, maps);
}

extern "C" __global__ void __launch_bounds__(THREADS, GROUPS == 1 ? 2 : 1)
    KERNEL_NAME(const __grid_constant__ struct attention_args a,
                const __grid_constant__ struct tensor_maps maps)
{
    extern __shared__ __align__(1024) char shared[];
    uint32_t base = shared_address(shared);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(base + AT_K_FULL + 8 * i, 1);
            mbarrier_init(base + AT_K_EMPTY + 8 * i, GROUPS * CLUSTER);
            mbarrier_init(base + AT_V_FULL + 8 * i, 1);
            mbarrier_init(base + AT_V_EMPTY + 8 * i, GROUPS * CLUSTER);
        }
        for (int i = 0; i < Q_COUNT; i++) {
            mbarrier_init(base + AT_Q_FULL + 8 * i, 1);
            mbarrier_init(base + AT_Q_EMPTY + 8 * i, 4);
        }
        for (int i = 0; i < GROUPS; i++) mbarrier_init(base + AT_REPAIR_FULL + 8 * i, 1);
        shared_store4(base + AT_NOTES, 0, 0, 0, 0);
        mbarrier_init_fence();
        tensor_map_prefetch(&maps.q);
        tensor_map_prefetch(&maps.k);
        tensor_map_prefetch(&maps.v);
    }
#if FEATURES
    if (a.q_start.data) {
        ragged_table(a, shared, shared);
        async_proxy_fence(); /* its scratch lies where Q will */
    }
#endif
    if (CLUSTER > 1) cluster_sync();
    else __syncthreads();
    if (group == 0) {
        registers_release<PRODUCER_REGISTERS>();
        if (threadIdx.x < 32 && elect_lane()) produce(a, maps, base, shared);
        __syncwarp();
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        consume(a, maps, base, group - 1);
    }
    if (CLUSTER > 1) cluster_sync(); /* no block leaves while the other may still write to it */
}
