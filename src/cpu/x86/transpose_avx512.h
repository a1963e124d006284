/* transpose_avx512.h: transposition of 32-bit lanes in registers, 16 x 16 and 4 x 16. */
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

/* 16 rows of 4, one behind another, become 4 rows of 16. */
VEC void rows_of_4(vec x[4])
{
    const __m512i low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(2));
    vec a = _mm512_permutex2var_ps(x[0], low, x[1]), b = _mm512_permutex2var_ps(x[0], high, x[1]),
        c = _mm512_permutex2var_ps(x[2], low, x[3]), d = _mm512_permutex2var_ps(x[2], high, x[3]);
    x[0] = _mm512_shuffle_f32x4(a, c, 0x44);
    x[1] = _mm512_shuffle_f32x4(a, c, 0xee);
    x[2] = _mm512_shuffle_f32x4(b, d, 0x44);
    x[3] = _mm512_shuffle_f32x4(b, d, 0xee);
}

/* And back. */
VEC void columns_of_4(vec x[4])
{
    const __m512i low = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(4));
    vec a = _mm512_shuffle_f32x4(x[0], x[1], 0x44), b = _mm512_shuffle_f32x4(x[0], x[1], 0xee),
        c = _mm512_shuffle_f32x4(x[2], x[3], 0x44), d = _mm512_shuffle_f32x4(x[2], x[3], 0xee);
    x[0] = _mm512_permutex2var_ps(a, low, c);
    x[1] = _mm512_permutex2var_ps(a, high, c);
    x[2] = _mm512_permutex2var_ps(b, low, d);
    x[3] = _mm512_permutex2var_ps(b, high, d);
}

/* Words of two rows in turn: a0 b0 a1 b1 ... */
VEC void interleave(__m512i a, __m512i b, __m512i to[2])
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0),
                  high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    to[0] = _mm512_permutex2var_epi16(a, low, b);
    to[1] = _mm512_permutex2var_epi16(a, high, b);
}

#endif
