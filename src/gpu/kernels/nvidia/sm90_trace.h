/* sm90_trace.h: where the clocks of a launch go. In a build with -DTRACE=1 (`make trace-gpu`) the
 * producer and a thread of each consumer warpgroup write the clock of their multiprocessor at the
 * points below, in the place of the LSE; in every other build a stamp is nothing.
 * bench/trace_gpu.py runs such a build and draws what it wrote. */
#ifndef RAPT_NVIDIA_SM90_TRACE_H
#define RAPT_NVIDIA_SM90_TRACE_H

#include "sm90_tile.h"

#ifndef TRACE
#define TRACE 0
#endif

/* What begins at a stamp: of the producer, and of a consumer in the order of a step. */
enum { TRACE_Q, TRACE_K, TRACE_V };
enum trace_point {
    TRACE_BLOCK,   /* no stamp: which block of keys the step is for */
    TRACE_STEP,    /* waits for K and for its turn */
    TRACE_ASK,     /* asks for both products */
    TRACE_SCORES,  /* waits for q k^T */
    TRACE_EARLY,   /* mask, and the first weights */
    TRACE_VALUES,  /* waits for p v */
    TRACE_WEIGHTS, /* the other weights; rounding */
    TRACE_OUTPUT,  /* a tile's first step: output of the tile before */
    TRACE_POINTS
};

/* A step's stamps; null in threads that write none. */
struct step_trace {
#if TRACE
    uint32_t *at;
#endif
};

#if TRACE
/* The memory is [block of threads][actor][TRACE_WORDS]: the producer's, actor 0, are pairs of clock
 * and block << 8 | what; the others' are steps of TRACE_POINTS words. Where each actor stands is in
 * shared memory, behind what the kernel itself needs. */
constexpr int TRACE_ACTORS = 4, TRACE_WORDS = 64 * TRACE_POINTS;
constexpr uint32_t AT_TRACE = (SHARED_END + 15) / 16 * 16;
static_assert(AT_TRACE + 4 * TRACE_ACTORS <= SHARED_BYTES && GROUPS < TRACE_ACTORS, "room");

DEVICE uint32_t clock_now(void)
{
    uint32_t clock;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(clock)::"memory");
    return clock;
}

/* Without an LSE there is no room. */
DEVICE void trace_begin(const struct attention_args &a, uint32_t base)
{
    for (int i = 0; i < TRACE_ACTORS; i++)
        shared_store(base + AT_TRACE + 4 * i, a.lse.data ? 0 : TRACE_WORDS);
}

/* The actor's next words; null if there are no more. */
DEVICE uint32_t *trace_words(const struct attention_args &a, uint32_t base, int actor, int words)
{
    uint32_t at = base + AT_TRACE + 4 * actor, used = shared_load(at);
    if (used + words > TRACE_WORDS) return nullptr;
    shared_store(at, used + words);
    return (uint32_t *)a.lse.data + (blockIdx.x * TRACE_ACTORS + actor) * TRACE_WORDS + used;
}

DEVICE void stamp_load(const struct attention_args &a, uint32_t base, int what, int block)
{
    uint32_t *to = trace_words(a, base, 0, 2);
    if (to) to[0] = clock_now(), to[1] = block << 8 | what;
}

template <class CONSUMER>
DEVICE struct step_trace trace_step(const CONSUMER &c, const struct attention_args &a, int block)
{
    struct step_trace t = {nullptr};
    if (thread_now(c) == 0) t.at = trace_words(a, c.base, 1 + group_now(c), TRACE_POINTS);
    if (t.at) t.at[TRACE_BLOCK] = block;
    return t;
}

DEVICE void stamp(const struct step_trace &t, enum trace_point point)
{
    if (t.at) t.at[point] = clock_now();
}
#else
DEVICE void trace_begin(const struct attention_args &, uint32_t) {}
DEVICE void stamp_load(const struct attention_args &, uint32_t, int, int) {}
template <class CONSUMER>
DEVICE struct step_trace trace_step(const CONSUMER &, const struct attention_args &, int)
{
    return {};
}
DEVICE void stamp(const struct step_trace &, enum trace_point) {}
#endif

#endif
