/* vnni_avx512.h: what the decode kernels for i8 K and V share: products of pairs of 16-bit
 * integers, and the addresses and scales of rows. */
#ifndef RAPT_CPU_X86_VNNI_AVX512_H
#define RAPT_CPU_X86_VNNI_AVX512_H

#include "cpu/decode_kernels.h"
#include "cpu/x86/fixed_point_avx512.h"

#include <string.h>

enum { LINE = 64, STEP = 32, ROWS = 4, KEYS_MAX = 64 };

/* sum + the products of pairs of 16-bit integers. The compiler's intrinsic copies sum before and
 * after each use, which costs the loops below a third of their speed (gcc 12). */
VEC __m512i dot_pairs(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

static inline int has_blocks(const struct cpu_rows *rows, int64_t channels)
{
    return rows->scale_channels < channels;
}

/* Bytes from each of KEYS_MAX pointers to the next, in *step; 0: they differ, or some are NULL. */
static inline int in_equal_steps(const void *const *pointer, int64_t *step)
{
    const __m512i lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    int64_t first = (int64_t)(intptr_t)pointer[0];
    __mmask8 wrong = 0;
    *step = (int64_t)((uintptr_t)pointer[1] - (uintptr_t)pointer[0]);
    __m512i want = _mm512_add_epi64(_mm512_set1_epi64(first),
                                    _mm512_mullo_epi64(lanes, _mm512_set1_epi64(*step)));
#pragma GCC unroll 8
    for (int64_t j = 0; j < KEYS_MAX; j += 8) {
        wrong |= _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(pointer + j), want);
        want = _mm512_add_epi64(want, _mm512_set1_epi64(8 * *step));
    }
    return first && *step > 0 && !wrong;
}

/* Bit j: row first + j is not NULL; keys is at most 64. */
static inline uint64_t rows_there(const struct cpu_rows *rows, int64_t first, int64_t keys)
{
    uint64_t there = 0;
    int64_t step;
    if (keys == KEYS_MAX && in_equal_steps(rows->row + first, &step)) return ~there;
    for (int64_t j = 0; j < keys; j += 8) {
        __mmask8 wanted = (__mmask8)(keys - j < 8 ? (1u << (keys - j)) - 1 : 0xff);
        __m512i row = _mm512_maskz_loadu_epi64(wanted, rows->row + first + j);
        there |= (uint64_t)_mm512_test_epi64_mask(row, row) << j;
    }
    return there;
}

/* Scales of channel c; 0 for NULL rows. */
static inline void gather_scales(float *scale, const struct cpu_rows *rows, int64_t first,
                                 int64_t keys, int64_t c, uint64_t there)
{
    int64_t at = c / rows->scale_channels * rows->scale_stride, step;
    const float *const *from = rows->scale + first;
    if (there == ~(uint64_t)0 && in_equal_steps((const void *const *)from, &step)) {
        const char *x = (const char *)(from[0] + at);
        if (step == sizeof(float))
#pragma GCC unroll 4
            for (int64_t j = 0; j < KEYS_MAX; j += LANES)
                _mm512_storeu_ps(scale + j, _mm512_loadu_ps(x + j * step));
        else
#pragma GCC unroll 8
            for (int64_t j = 0; j < KEYS_MAX; j++) memcpy(&scale[j], x + j * step, sizeof *scale);
        return;
    }
    for (int64_t j = 0; j < keys; j++) scale[j] = there >> j & 1 ? from[j][at] : 0;
}

/* Pointers to zeros for NULL rows, and from KEYS_MAX on; count is a multiple of 8. */
static inline void copy_rows(const void **to, int64_t count, const void *const *row, uint64_t there)
{
    const __m512i zeros = _mm512_set1_epi64((int64_t)(intptr_t)decode_zeros);
    for (int64_t j = 0; j < count; j += 8) {
        __mmask8 lanes = j < KEYS_MAX ? (__mmask8)(there >> j) : 0;
        _mm512_storeu_si512(to + j, _mm512_mask_loadu_epi64(zeros, lanes, row + j));
    }
}

static inline int64_t block_count(const struct cpu_rows *rows, int64_t channels)
{
    return (channels + rows->scale_channels - 1) / rows->scale_channels;
}

/* In each quarter: to[i] has lane i of all four. */
VEC void turn(__m512i to[4], const __m512i from[4])
{
    __m512i t[4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        t[i] = _mm512_unpacklo_epi32(from[2 * i], from[2 * i + 1]);
        t[i + 2] = _mm512_unpackhi_epi32(from[2 * i], from[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        to[2 * i] = _mm512_unpacklo_epi64(t[2 * i], t[2 * i + 1]);
        to[2 * i + 1] = _mm512_unpackhi_epi64(t[2 * i], t[2 * i + 1]);
    }
}

/* Block b's scales of LANES keys to to + b * to_stride, a key in each lane; of rows of zeros, 0. */
static inline void load_scales(float *to, int64_t to_stride, const float *const *scale,
                               const void *const *row, int64_t blocks, int64_t stride)
{
    const float *from[LANES];
    int64_t b = 0;
    for (int j = 0; j < LANES; j += 8) {
        const __m512i zeros = _mm512_set1_epi64((int64_t)(intptr_t)decode_zeros);
        __mmask8 there = _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(row + j), zeros);
        _mm512_storeu_si512(from + j, _mm512_mask_loadu_epi64(zeros, there, scale + j));
    }
    for (; b + 4 <= blocks && stride == 1; b += 4) {
        __m512i x[4], turned[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            vec y = _mm512_castps128_ps512(_mm_loadu_ps(from[i] + b));
            y = _mm512_insertf32x4(y, _mm_loadu_ps(from[i + 4] + b), 1);
            y = _mm512_insertf32x4(y, _mm_loadu_ps(from[i + 8] + b), 2);
            y = _mm512_insertf32x4(y, _mm_loadu_ps(from[i + 12] + b), 3);
            x[i] = _mm512_castps_si512(y);
        }
        turn(turned, x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) _mm512_storeu_si512(to + (b + i) * to_stride, turned[i]);
    }
    for (; b < blocks; b++)
        for (int j = 0; j < LANES; j++)
            to[b * to_stride + j] = (const char *)row[j] == decode_zeros ? 0 : from[j][b * stride];
}

#endif
