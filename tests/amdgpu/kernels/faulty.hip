/* Kernels with one fault each, which the emulator has to name. */
#include "kernel.h"

KERNEL THREADS(64) void global_over(const int *in, int *out, int n)
{
    int i = GROUP * 64 + THREAD;
    if (i <= n) out[i] = in[i]; /* one too many */
}

KERNEL THREADS(64) void shared_over(int *out, int n)
{
    extern SHARED int buffer[];
    buffer[THREAD + n] = THREAD;
    barrier();
    out[THREAD] = buffer[n + 63 - THREAD];
}

KERNEL THREADS(64) void shared_unwritten(int *out)
{
    SHARED int buffer[128];
    buffer[THREAD] = THREAD;
    barrier();
    out[THREAD] = buffer[THREAD + 1]; /* the last one was never written */
}

KERNEL THREADS(128) void no_barrier(int *out)
{
    SHARED int buffer[128];
    ((volatile int *)buffer)[THREAD] = THREAD * 3;
    out[THREAD] = ((volatile int *)buffer)[127 - THREAD];
}

KERNEL THREADS(128) void with_barrier(int *out)
{
    SHARED int buffer[128];
    ((volatile int *)buffer)[THREAD] = THREAD * 3;
    barrier();
    out[THREAD] = ((volatile int *)buffer)[127 - THREAD];
}

/* Only the second round lacks its barrier: the buffer is written again while another wave may still
 * read it. */
KERNEL THREADS(128) void reuse(int *out)
{
    SHARED int buffer[128];
    volatile int *v = buffer;
    v[THREAD] = THREAD;
    barrier();
    int x = v[127 - THREAD];
    v[THREAD] = x + 1;
    barrier();
    out[THREAD] = v[THREAD];
}

KERNEL THREADS(64) void misaligned(char *out)
{
    __hip_atomic_fetch_add((u32 *)(out + 8 * THREAD + (THREAD == 5 ? 2 : 0)), 1u, __ATOMIC_RELAXED,
                           __HIP_MEMORY_SCOPE_AGENT);
}

KERNEL THREADS(64) void misaligned_shared(int *out, int offset)
{
    extern SHARED char bytes[];
    *(volatile int *)(bytes + 4 * THREAD + offset) = THREAD;
    barrier();
    out[THREAD] = *(volatile int *)(bytes + 4 * THREAD + offset);
}

KERNEL THREADS(64) void stop(int *out, int n)
{
    if (THREAD == n) __builtin_trap();
    out[THREAD] = 1;
}
