/* forward_sm90.cu: fused attention forward for H100 and H200 (sm_90a), f16, bf16 and f32 in parts:
 * wgmma fed by TMA, one flat pipeline.
 *
 * Warpgroup 0 loads (sm90_load.h). Each other warpgroup owns 64 query rows and repeats one step per
 * key block n, from the first to the last visible one in plain causal rows, the other way in others:
 *
 *     S = q K[n]^T, O += P V[n before]   both issued; the tensor cores work on one after the other
 *     wait for S; mask; a part of the weights, EARLY eighths
 *     wait for O; the other weights; P = weights rounded
 *
 * No maximum is looked for but in a row's first block (sm90_weights.h). Since two warpgroups take
 * turns at the tensor cores, it does not matter whether a softmax overlaps its own p v or the other
 * warpgroup's multiplies; what counts is its number of instructions, and that rounding runs beside
 * exponentials.
 *
 * The first step of the next tile takes the last P V of this one along, so tile boundaries cost no
 * bubble, and O goes from registers to memory, in some rows by way of shared memory. Ideas:
 * FlashAttention-3 (Shah et al. 2024) for roles, turns and the overlap inside a warpgroup;
 * FlashAttention-4 for keeping the maximum. bench/notes/hopper.md has what each idea was predicted
 * to give and gave.
 *
 * ptxas moves exponentials over waits in either direction: up, so that all of them come before the
 * wait for O, where the rounding cannot (end_block() says how that is prevented), and down, with
 * three parts, or with SPLIT_KEYS in a tile's first step, so that nothing overlaps; there a branch
 * on their sum, to a wait that is already over, stands before the wait. tools/sass checks the order
 * in every object. */
#if PARTS > 1 || KV_AHEAD
#define NAME_WITH(name, tail) name##tail
#define NAME_OF(name, tail)   NAME_WITH(name, tail)
#define PREPARE_NAME          NAME_OF(KERNEL_NAME, _prepare)
#endif
#if SPLIT_KEYS
#define COMBINE_THREADS 32 /* of a row: there are many, and few parts */
#include "combine.h"
#endif
#include "sm90_mend.h"
#if IN_PLACE
#include "sm90_in_place.h"
#endif
#if BY_PANELS
#include "sm90_panels.h"
#elif PARTS == 2
#include "sm90_steps_scaled.h"
#else
#include "sm90_steps.h"
#endif
#if KV_AHEAD
#include "sm90_numbers.h"
#endif

DEVICE void consume(const struct attention_args &a, const struct tensor_maps &maps, uint32_t base,
                    int group)
{
    struct consumer c;
    c.base = base;
#if LINES == 2
    c.out_map = &maps.out;
#endif
    c.group = group;
    c.thread = threadIdx.x - 128 * (group + 1);
    c.stage = STAGES - 1;
    c.phase = 1;
    c.tiles = 0;
    c.scale = a.scale_log2;
#if PARTS == 2
    c.scale = 1; /* of references */
    c.factors = FACTOR_SLOTS - 1;
#endif
#if FEATURES
    if (scores_change(a)) c.scale = 1;
#endif
#if CAPPED
    c.cap = cap_of(a);
#endif
    work(c, a);
#if LINES == 2
    tma_store_wait(); /* before a repair stores the same rows, and before shared memory goes */
#endif
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
            mbarrier_init(base + AT_K_FULL + 8 * i, CONVERTS ? 2 : 1);
            mbarrier_init(base + AT_K_EMPTY + 8 * i, GROUPS);
            mbarrier_init(base + AT_V_FULL + 8 * i, CONVERTS ? 2 : 1);
            mbarrier_init(base + AT_V_EMPTY + 8 * i, GROUPS);
        }
        for (int i = 0; i < Q_COUNT; i++) {
            mbarrier_init(base + AT_Q_FULL + 8 * i, 1);
            mbarrier_init(base + AT_Q_EMPTY + 8 * i, 4);
        }
        for (int i = 0; i < GROUPS; i++) mbarrier_init(base + AT_REPAIR_FULL + 8 * i, 1);
#if CELLS
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(base + AT_CELLS_FULL + 8 * i, 1);
            mbarrier_init(base + AT_CELLS_EMPTY + 8 * i, 4 * GROUPS);
        }
#endif
        shared_store4(base + AT_NOTES, 0, 0, 0, 0);
        trace_begin(a, base);
#if IN_PLACE
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(base + AT_K_READY + 8 * i, SHARES_OF_BLOCK);
            mbarrier_init(base + AT_V_READY + 8 * i, SHARES_OF_BLOCK);
        }
#endif
#if CONVERTS
        for (int i = 0; i < JOBS; i++) {
            mbarrier_init(job_full(base, i), 1);
            mbarrier_init(job_empty(base, i), CONVERTERS);
        }
#elif PAGES
        mbarrier_init(base + AT_JOB_FULL, 1);
        mbarrier_init(base + AT_JOB_EMPTY, 2);
#endif
#if CAPPED
        for (int i = 0; i < 2 * GROUPS; i++) shared_store(base + AT_FAR + 4 * i, 0);
#endif
        mbarrier_init_fence();
        tensor_map_prefetch(&maps.q);
        if (!CONVERTS) tensor_map_prefetch(&maps.k);
        if (!CONVERTS) tensor_map_prefetch(&maps.v);
#if LINES == 2
        tensor_map_prefetch(&maps.out);
#endif
#if CELLS && !LOOSE
        tensor_map_prefetch(&maps.cells);
#endif
    }
    wait_for_predecessors();
#if PARTS == 3
    if (a.wide && !any_wide(a)) return;
#endif
#if FEATURES && !SPLIT_KEYS
    if (a.q_start.data) {
        ragged_table(a, shared, shared);
        async_proxy_fence(); /* its scratch lies where Q will */
    }
#endif
#if FEATURES && PARTS == 2
    if (a.kv_start.data) {
        fill_key_table(a, *(struct key_table *)(shared + AT_KEY_TABLE), (int *)shared);
        async_proxy_fence();
    }
#endif
    __syncthreads();
    if (group == 0) {
        registers_release<PRODUCER_REGISTERS>();
        load(a, maps, base, shared);
#if IN_PLACE
        int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
        if (warp > 0) split_in_place(a, base, warp - 1);
#elif PARTS == 2
        int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
        if (warp > 0) split_ahead(a, base, warp - 1);
#endif
        __syncwarp();
#if IN_PLACE
    } else if (group > GROUPS) {
        registers_release<PRODUCER_REGISTERS>();
        split_in_place(a, base, __shfl_sync(~0u, threadIdx.x / 32, 0) - 4 * GROUPS - 1);
#endif
    } else {
        registers_claim<CONSUMER_REGISTERS>();
        consume(a, maps, base, group - 1);
    }
}
