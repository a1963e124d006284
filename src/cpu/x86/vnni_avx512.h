/* vnni_avx512.h: what the kernels for i8 K and V share: products of pairs of 16-bit integers and, of decode, the
 * addresses and scales of rows. */
#ifndef RAPT_CPU_X86_VNNI_AVX512_H
#define RAPT_CPU_X86_VNNI_AVX512_H

#include "cpu/decode_kernels.h"
#include "cpu/x86/fixed_point_avx512.h"

#include <string.h>

enum { LINE = 64, STEP = 32, ROWS = 4, KEYS_MAX = 64, HEADS_AT_ONCE = 16 };

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

/* KEYS_MAX keys of a call from j on, or as many as are left. */
struct keys {
    const struct cpu_rows *rows;
    int64_t first, j, count; /* first: of the call */
    uint64_t there;          /* bit i: key j + i is not a NULL row */
    /* The first one's scales, and bytes from each to the next; NULL: they may lie anywhere. */
    const char *scale;
    int64_t scale_step;
};

static inline uint64_t rows_there(const void *const *row, int64_t count)
{
    uint64_t there = 0;
    int64_t step;
    if (count == KEYS_MAX && in_equal_steps(row, &step)) return ~there;
    for (int64_t j = 0; j < count; j += 8) {
        __mmask8 wanted = (__mmask8)(count - j < 8 ? (1u << (count - j)) - 1 : 0xff);
        __m512i x = _mm512_maskz_loadu_epi64(wanted, row + j);
        there |= (uint64_t)_mm512_test_epi64_mask(x, x) << j;
    }
    return there;
}

static inline struct keys keys_at(const struct cpu_rows *rows, int64_t first, int64_t j,
                                  int64_t last)
{
    struct keys k = {.rows = rows, .first = first, .j = j, .scale_step = rows->scale_step};
    k.count = last - j < KEYS_MAX ? last - j : KEYS_MAX;
    k.there = rows->step ? ~k.there >> (KEYS_MAX - k.count) : rows_there(rows->row + j, k.count);
    if (rows->step) k.scale = (const char *)rows->scale[first] + (j - first) * k.scale_step;
    else if (k.there == ~(uint64_t)0 &&
             in_equal_steps((const void *const *)rows->scale + j, &k.scale_step))
        k.scale = (const char *)rows->scale[j];
    return k;
}

/* Where KEYS_MAX keys lie, bytes from what pointer says; step: from one to the next, where rows->step says so.
 * Zeros in place of those that are not there. */
static inline void put_pointers(const void **to, const struct keys *k, const void *const *pointer,
                                int64_t step, int64_t bytes)
{
    const __m512i zeros = _mm512_set1_epi64((int64_t)(intptr_t)decode_zeros),
                  lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    __m512i add = _mm512_set1_epi64(bytes);
    if (!k->rows->step) {
        for (int64_t i = 0; i < KEYS_MAX; i += 8) {
            __mmask8 there = (__mmask8)(k->there >> i);
            __m512i x = _mm512_maskz_loadu_epi64(there, pointer + k->j + i);
            _mm512_storeu_si512(to + i, _mm512_mask_add_epi64(zeros, there, x, add));
        }
        return;
    }
    const char *at = (const char *)pointer[k->first] + (k->j - k->first) * step;
    __m512i x = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(intptr_t)at),
                                 _mm512_mullo_epi64(lanes, _mm512_set1_epi64(step)));
    for (int64_t i = 0; i < KEYS_MAX; i += 8) {
        _mm512_storeu_si512(to + i,
                            _mm512_mask_add_epi64(zeros, (__mmask8)(k->there >> i), x, add));
        add = _mm512_add_epi64(add, _mm512_set1_epi64(8 * step));
    }
}

static inline void put_rows(const void **to, const struct keys *k, int64_t bytes)
{
    put_pointers(to, k, k->rows->row, k->rows->step, bytes);
}

static inline void put_scales(const void **to, const struct keys *k, int64_t bytes)
{
    put_pointers(to, k, (const void *const *)k->rows->scale, k->rows->scale_step, bytes);
}

/* The first scale of each of KEYS_MAX keys, of those bytes further; 0 for keys that are not there. */
static inline void gather_scales(float *scale, const struct keys *k, int64_t bytes)
{
    int64_t step = k->scale_step;
    if (!k->scale || k->count < KEYS_MAX) {
        const void *from[KEYS_MAX];
        put_scales(from, k, bytes);
        for (int64_t j = 0; j < KEYS_MAX; j++) memcpy(&scale[j], from[j], sizeof *scale);
        return;
    }
    const char *x = k->scale + bytes;
    if (step == sizeof(float))
#pragma GCC unroll 4
        for (int64_t j = 0; j < KEYS_MAX; j += LANES)
            _mm512_storeu_ps(scale + j, _mm512_loadu_ps(x + j * step));
    else
#pragma GCC unroll 8
        for (int64_t j = 0; j < KEYS_MAX; j++) memcpy(&scale[j], x + j * step, sizeof *scale);
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

/* Block b's scales of LANES keys to to + b * to_stride, a key in each lane. */
static inline void load_scales(float *to, int64_t to_stride, const void *const *from,
                               int64_t blocks, int64_t stride)
{
    int64_t b = 0;
    for (; b + 4 <= blocks && stride == 1; b += 4) {
        __m512i x[4], turned[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            vec y = _mm512_castps128_ps512(_mm_loadu_ps((const float *)from[i] + b));
            y = _mm512_insertf32x4(y, _mm_loadu_ps((const float *)from[i + 4] + b), 1);
            y = _mm512_insertf32x4(y, _mm_loadu_ps((const float *)from[i + 8] + b), 2);
            y = _mm512_insertf32x4(y, _mm_loadu_ps((const float *)from[i + 12] + b), 3);
            x[i] = _mm512_castps_si512(y);
        }
        turn(turned, x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) _mm512_storeu_si512(to + (b + i) * to_stride, turned[i]);
    }
    for (; b < blocks; b++)
        for (int j = 0; j < LANES; j++)
            to[b * to_stride + j] =
                (const char *)from[j] == decode_zeros ? 0 : ((const float *)from[j])[b * stride];
}

/* Rows with one scale: those of KEYS_MAX keys, of several heads where these lie side by side. */
struct head_scales {
    float of_head[HEADS_AT_ONCE][KEYS_MAX];
};

/* Those of head h, 0 for keys that are not there; h = 0 comes first, and the same keys until then. */
static inline const float *scales_of(struct head_scales *to, const struct keys *k,
                                     const struct cpu_heads *heads, int64_t h)
{
    const void *from[KEYS_MAX];
    if (heads->count == 1 || heads->count > HEADS_AT_ONCE || heads->scale_bytes != sizeof(float)) {
        gather_scales(to->of_head[0], k, h * heads->scale_bytes);
        return to->of_head[0];
    }
    if (!h) put_scales(from, k, 0);
    for (int64_t i = 0; i < k->count && !h; i += LANES)
        load_scales(to->of_head[0] + i, KEYS_MAX, from + i, heads->count, 1);
    return to->of_head[h];
}

#endif
