/* decode_kernels.h: the decode slots of struct cpu_kernels (kernels.h), one pair of functions per
 * instruction set, and what their files share. */
#ifndef RAPT_CPU_DECODE_KERNELS_H
#define RAPT_CPU_DECODE_KERNELS_H

#include "cpu/kernels.h"

enum { DECODE_CHANNELS_MAX = 1024 }; /* of a row; the buffers below are sized by it */

#define DECODE_QK(isa)                                                                             \
    void decode_qk_##isa(float *s, int64_t s_stride, const void *q, int64_t q_stride,              \
                         const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,  \
                         int64_t last, const void *const *next)
#define DECODE_PV(isa)                                                                             \
    void decode_pv_##isa(float *o, int64_t o_stride, const float *p, int64_t p_stride,             \
                         const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,  \
                         int64_t last, const void *const *next)

DECODE_QK(scalar);
DECODE_PV(scalar);
#if defined(__x86_64__)
DECODE_QK(avx2);
DECODE_PV(avx2);
DECODE_QK(avx512);
DECODE_PV(avx512);
DECODE_QK(avx512_bf16);
DECODE_PV(avx512_bf16);
#elif defined(__aarch64__)
DECODE_QK(neon);
DECODE_PV(neon);
DECODE_QK(neon_bf16);
DECODE_PV(neon_bf16);
DECODE_QK(sve);
DECODE_PV(sve);
#endif

/* What a NULL row stands for, in any dtype. */
extern const char decode_zeros[DECODE_CHANNELS_MAX * 4];

/* Walks over rows that the following call will read, in the order of memory, which is what makes
 * the hardware's own prefetchers run ahead: a whole row in each `every` steps. */
struct prefetch {
    const void *const *row, *const *end; /* equal: nothing is left */
    int64_t bytes;                       /* of a row */
    int64_t every, wait;
};

static inline __attribute__((always_inline)) struct prefetch
prefetch_of(const void *const *next, int64_t rows, int64_t bytes, int64_t every)
{
    return (struct prefetch){next, next ? next + rows : next, bytes, every, every};
}

static inline __attribute__((always_inline)) void prefetch_step(struct prefetch *p)
{
    if (--p->wait) return;
    p->wait = p->every;
    if (p->row == p->end) return;
    const char *row = *p->row++;
    int64_t i = row ? 0 : p->bytes;
    for (; i + 256 <= p->bytes; i += 256) {
        __builtin_prefetch(row + i);
        __builtin_prefetch(row + i + 64);
        __builtin_prefetch(row + i + 128);
        __builtin_prefetch(row + i + 192);
    }
    for (; i < p->bytes; i += 64) __builtin_prefetch(row + i);
}

#endif
