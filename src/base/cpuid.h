/* cpuid.h: which instruction sets this CPU and its operating system offer, and the CPU's name. */
#ifndef RAPT_BASE_CPUID_H
#define RAPT_BASE_CPUID_H

#include <stddef.h>
#include <stdint.h>

/* One bit each; a bit is set only if the operating system also saves the registers. */
enum {
    CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    CPU_AVX512 = 1 << 1, /* F, BW, DQ, VL */
    CPU_AVX512_BF16 = 1 << 2,
    CPU_AVX512_VNNI = 1 << 3,
    CPU_AMX_BF16 = 1 << 5, /* the process must still ask the kernel for the tiles */
    CPU_AMX_INT8 = 1 << 6,
    CPU_NEON = 1 << 8,
    CPU_NEON_BF16 = 1 << 9,
    CPU_SVE = 1 << 11, /* with vectors of 256 bits */
    /* No instruction set: what is asked for while all buffers are busy waits for one, and is not
     * dropped (Intel). */
    CPU_KEEPS_REQUESTS = 1 << 12,
    /* Nor this: lines come soonest when they are asked for into the second cache and, near their
     * use, into the first one (Intel with AMX; bench/notes/cpu.md). */
    CPU_FETCHES_TWICE = 1 << 13,
    /* The same, but farther from their use (AMD since Zen 5). */
    CPU_FETCHES_EARLY = 1 << 14,
    /* Nor this: what is asked for while all buffers are busy is dropped, and what is asked for into the
     * first cache keeps them busy (AMD Zen 4). */
    CPU_DROPS_REQUESTS = 1 << 15,
};

uint64_t cpu_features(void);
/* Asks the operating system for what of these a process must ask for (the tiles of AMX); returns
 * those that may be used. A permission holds for the whole process and is not given back. */
uint64_t cpu_permitted(uint64_t features);
/* The CPU's own name, 0-terminated; "unknown CPU" where it has none. */
void cpu_name(char *name, size_t size);

#endif
