/* transpose_avx512.h: 16 x 16 transposition of 32-bit lanes in registers. */
#ifndef RAPT_CPU_X86_TRANSPOSE_AVX512_H
#define RAPT_CPU_X86_TRANSPOSE_AVX512_H

#include "cpu/x86/vec_avx512.h"

/* Four rounds: neighbours of 32 bits, of 64 bits, then of 128-bit quarters twice. */
VEC void transpose(vec x[LANES])
{
    vec t[LANES];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            __m512d a = _mm512_castps_pd(t[4 * i + h]), b = _mm512_castps_pd(t[4 * i + 2 + h]);
            x[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            x[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            t[i + 8 * h] = _mm512_shuffle_f32x4(x[i + 8 * h], x[i + 4 + 8 * h], 0x88);
            t[i + 4 + 8 * h] = _mm512_shuffle_f32x4(x[i + 8 * h], x[i + 4 + 8 * h], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
}

#endif
