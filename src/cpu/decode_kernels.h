/* decode_kernels.h: the decode slots of struct cpu_kernels (kernels.h), one pair of functions per instruction set, and what
 * their files share. */
#ifndef RAPT_CPU_DECODE_KERNELS_H
#define RAPT_CPU_DECODE_KERNELS_H

#include "cpu/kernels.h"

enum { DECODE_CHANNELS_MAX = 1024 }; /* of a row; the buffers below are sized by it */

#define DECODE_QK(isa)                                                                             \
    void decode_qk_##isa(float *s, int64_t s_stride, const void *q, int64_t q_stride, const struct cpu_rows *k, int64_t rows, \
                         int64_t channels, int64_t first, int64_t last, const void *const *next)
#define DECODE_PV(isa)                                                                             \
    void decode_pv_##isa(float *o, int64_t o_stride, const float *p, int64_t p_stride, const struct cpu_rows *v, int64_t rows, \
                         int64_t channels, int64_t first, int64_t last, const void *const *next)

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

/* Walks over rows that a later call will read, in the order of memory, which is what makes the hardware's own prefetchers
 * run ahead, and asks for their cache lines. */
struct prefetch {
    const void *const *row; /* NULL: nothing to ask for */
    int64_t rows, bytes;    /* bytes of a row */
    int64_t at, step;       /* within the row; bytes of one step */
};

static inline __attribute__((always_inline)) void prefetch_step(struct prefetch *p)
{
    if (!p->row || p->rows <= 0) return;
    const char *row = *p->row;
    int64_t end = p->at + p->step;
    for (int64_t i = p->at; row && i < end; i += 64) __builtin_prefetch(row + i, 0, 3);
    p->at = end;
    if (end >= p->bytes) {
        p->at = 0;
        p->row++;
        p->rows--;
    }
}

#endif
