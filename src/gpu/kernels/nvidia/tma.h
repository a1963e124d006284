/* tma.h: the asynchronous side of sm_90a: mbarriers, tensor copies (TMA), named barriers.
 * One PTX instruction each.
 *
 * Shared-memory addresses are 32-bit, from shared_address(). A phase is the parity that a wait
 * expects: a fresh mbarrier lets a wait for parity 1 through at once (PTX ISA, "mbarrier"), so
 * producers start at 1 and consumers at 0. */
#ifndef RAPT_NVIDIA_TMA_H
#define RAPT_NVIDIA_TMA_H

#include <stdint.h>

#ifndef DEVICE
#define DEVICE __device__ __forceinline__
#endif

DEVICE uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarrier
 * ------------------------------------------------------------------------------------------
 */

DEVICE void mbarrier_init(uint32_t bar, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}

/* Makes the inits visible to the copy engine. */
DEVICE void mbarrier_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* One arrival that also announces bytes to come from tensor copies. */
DEVICE void mbarrier_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}

DEVICE void mbarrier_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

DEVICE void mbarrier_wait(uint32_t bar, uint32_t phase)
{
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra END;\nbra AGAIN;\nEND:\n}" ::"r"(bar),
        "r"(phase)
        : "memory");
}

/* Whether a wait would end at once. */
DEVICE bool mbarrier_done(uint32_t bar, uint32_t phase)
{
    uint32_t done;
    asm volatile("{\n.reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(bar), "r"(phase)
                 : "memory");
    return done;
}

DEVICE void prefetch_line(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

/* ---- Tensor copies
 * ------------------------------------------------------------------------------------------
 */

/* L2 policies: the values that createpolicy.fractional gives for a fraction of 1. K and V are read
 * again by the other row tiles of their head: evict last. Q is read once: evict first. */
#define L2_EVICT_FIRST 0x12F0000000000000ull
#define L2_EVICT_LAST  0x14F0000000000000ull

DEVICE void tensor_map_prefetch(const void *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Coordinates innermost first; the bytes of the whole box arrive at bar, elements outside the
 * tensor as zero. */
DEVICE void tma_load_4d(uint32_t to, const void *map, uint32_t bar, int c0, int c1, int c2, int c3,
                        uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::"
                 "cache_hint [%0], "
                 "[%1, {%3,%4,%5,%6}], [%2], %7;" ::"r"(to),
                 "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "l"(policy)
                 : "memory");
}

DEVICE void tma_load_5d(uint32_t to, const void *map, uint32_t bar, int c0, int c1, int c2, int c3,
                        int c4, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::"
                 "cache_hint [%0], "
                 "[%1, {%3,%4,%5,%6,%7}], [%2], %8;" ::"r"(to),
                 "l"(map), "r"(bar), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "l"(policy)
                 : "memory");
}

/* A box from shared memory, less what is outside the tensor. */
DEVICE void tma_store_5d(const void *map, uint32_t from, int c0, int c1, int c2, int c3, int c4,
                         uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group.L2::cache_hint "
                 "[%0, {%2,%3,%4,%5,%6}], [%1], %7;" ::"l"(map),
                 "r"(from), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "l"(policy)
                 : "memory");
}

DEVICE void tma_store_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Until the thread's stores have read shared memory; until they are done. */
DEVICE void tma_store_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

DEVICE void tma_store_wait(void)
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/* 16-byte aligned bytes in one piece, from shared memory; tma_store_commit and tma_store_wait follow. */
DEVICE void bulk_store(void *to, uint32_t from, uint32_t bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(from),
                 "r"(bytes)
                 : "memory");
}

/* 16-byte aligned bytes in one piece; they arrive at bar. */
DEVICE void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(bar)
                 : "memory");
}

/* Orders ordinary accesses to shared memory before later ones of the copy engine and of wgmma. */
DEVICE void async_proxy_fence(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Orders ordinary accesses to global memory before later ones of the copy engine, and back. */
DEVICE void async_proxy_fence_global(void)
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* 16 bytes, or zeros; the thread's copies since its last commit are a group. */
DEVICE void async_copy16(uint32_t to, const void *from, bool exists)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(exists ? 16 : 0)
                 : "memory");
}

/* 4 bytes, or 0. */
DEVICE void async_copy4(uint32_t to, const void *from, bool exists)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from),
                 "r"(exists ? 4 : 0)
                 : "memory");
}

DEVICE void async_copy_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most PENDING groups of the thread are in flight. */
template <int PENDING> DEVICE void async_copy_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE void store_release(int32_t *to, int32_t x)
{
    asm volatile("st.release.gpu.s32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}

DEVICE void add_release(int32_t *to, int32_t x)
{
    asm volatile("red.release.gpu.add.s32 [%0], %1;" ::"l"(to), "r"(x) : "memory");
}

DEVICE int32_t load_acquire(const int32_t *from)
{
    int32_t x;
    asm volatile("ld.acquire.gpu.s32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}

/* ---- Named barriers, registers
 * ------------------------------------------------------------------------------------ */

DEVICE void named_barrier_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/* Whether one of the threads says so. */
DEVICE uint32_t named_barrier_or(int id, int threads, bool x)
{
    uint32_t y;
    asm volatile("{.reg .pred p, q; setp.ne.u32 p, %3, 0; barrier.cta.red.or.pred q, %1, %2, p; "
                 "selp.u32 %0, 1, 0, q;}"
                 : "=r"(y)
                 : "r"(id), "r"(threads), "r"((uint32_t)x)
                 : "memory");
    return y;
}
DEVICE void named_barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Every warp of the warpgroup executes it. Multiples of 8, 24 ... 256; a block owns no more than it
 * was launched with. */
template <int COUNT> DEVICE void registers_release(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> DEVICE void registers_claim(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

/* True in one lane of the warp, always the same one. */
DEVICE bool elect_lane(void)
{
    uint32_t chosen;
    asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}"
                 : "=r"(chosen));
    return chosen;
}

#ifndef RAPT_EARLY_H
/* The launch may come before earlier work of the stream has ended (NEED_EARLY): lets the next
 * launch do the same, then waits for that work. Nothing in memory may be touched before. */
DEVICE void wait_for_predecessors(void)
{
    asm volatile("griddepcontrol.launch_dependents;\ngriddepcontrol.wait;" ::: "memory");
}
#endif

/* 16 bytes of zeros, or four words, in shared memory. */
DEVICE void shared_store4(uint32_t at, int a, int b, int c, int d)
{
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

DEVICE void shared_store(uint32_t at, uint32_t x)
{
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
}

DEVICE void shared_store2(uint32_t at, uint32_t x, uint32_t y)
{
    asm volatile("st.shared.v2.b32 [%0], {%1,%2};" ::"r"(at), "r"(x), "r"(y) : "memory");
}

DEVICE void shared_store8(uint32_t at, uint64_t x)
{
    asm volatile("st.shared.b64 [%0], %1;" ::"r"(at), "l"(x) : "memory");
}

DEVICE uint64_t shared_load8(uint32_t at)
{
    uint64_t x;
    asm volatile("ld.shared.b64 %0, [%1];" : "=l"(x) : "r"(at) : "memory");
    return x;
}

DEVICE void shared_load2(uint32_t at, float &x, float &y)
{
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(x), "=f"(y) : "r"(at) : "memory");
}

DEVICE void shared_load2(uint32_t at, uint32_t &x, uint32_t &y)
{
    asm volatile("ld.shared.v2.b32 {%0,%1}, [%2];" : "=r"(x), "=r"(y) : "r"(at) : "memory");
}

DEVICE uint32_t shared_load(uint32_t at)
{
    uint32_t x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    return x;
}

/* Returns what was there; it is replaced by x if it was `expected`. */
DEVICE uint32_t shared_compare_and_swap(uint32_t at, uint32_t expected, uint32_t x)
{
    uint32_t old;
    asm volatile("atom.shared.cas.b32 %0, [%1], %2, %3;"
                 : "=r"(old)
                 : "r"(at), "r"(expected), "r"(x)
                 : "memory");
    return old;
}

DEVICE void shared_load4(uint32_t at, float &a, float &b, float &c, float &d)
{
    asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(a), "=f"(b), "=f"(c), "=f"(d)
                 : "r"(at)
                 : "memory");
}

DEVICE void shared_load4(uint32_t at, int &a, int &b, int &c, int &d)
{
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                 : "r"(at)
                 : "memory");
}

#endif
