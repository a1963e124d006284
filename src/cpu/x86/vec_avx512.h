/* vec_avx512.h: the vector vocabulary of AVX-512 (F, BW, VL, DQ); shared loops are compiled once
 * per vocabulary. dtype arguments are compile-time constants (F32, F16, BF16, for loads also I8);
 * parts count lanes, 1 ... LANES - 1. */
#ifndef RAPT_CPU_X86_VEC_AVX512_H
#define RAPT_CPU_X86_VEC_AVX512_H

#include "rapt/rapt.h"

#include <immintrin.h>

#define VEC static inline __attribute__((always_inline))

typedef __m512 vec;
enum { LANES = 16, ACCUMULATORS = 16 };

/* One verb, one line. */
/* clang-format off */
VEC vec v_zero(void) { return _mm512_setzero_ps(); }
VEC vec v_set(float x) { return _mm512_set1_ps(x); }
VEC vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
VEC vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
VEC vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
VEC vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
VEC vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); } /* a b + c */
VEC vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
VEC vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); } /* b when one is NaN */
VEC vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); } /* b when one is NaN */
VEC vec v_abs(vec a) { return _mm512_abs_ps(a); }
VEC vec v_round(vec a) { return _mm512_roundscale_ps(a, 8); }
/* a 2^n for integral n; 0 for n = -inf whatever a is. */
VEC vec v_scale2(vec a, vec n) { return _mm512_scalef_ps(a, n); }
/* The same; 0 where x is below -126: products of subnormal weights take Intel's cores a hundred times as
 * long as others. */
VEC vec v_scale2_normal(vec a, vec n, vec x)
{
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126), _CMP_NLT_UQ); /* or NaN */
    return _mm512_maskz_scalef_ps(normal, a, n);
}
#if defined(V_REDUCES)
/* a - floor(a): one operation on Intel's cores since Sapphire Rapids, two before and on Zen 4 */
VEC vec v_rest(vec a)
{
    enum { DOWN = 1, QUIET = 8 };
    return _mm512_reduce_ps(a, DOWN | QUIET);
}
#endif
VEC vec v_copysign(vec magnitude, vec sign)
{
    return _mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
VEC vec v_iota(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
/* lanes first <= i < last of a, the others of b */
VEC vec v_keep(vec a, int first, int last, vec b)
{
    __m512 i = v_iota();
    __mmask16 keep = _mm512_cmp_ps_mask(i, _mm512_set1_ps((float)first), _CMP_GE_OQ) &
                     _mm512_cmp_ps_mask(i, _mm512_set1_ps((float)last), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(keep, b, a);
}
VEC float v_sum(vec a) { return _mm512_reduce_add_ps(a); }
VEC float v_largest(vec a) { return _mm512_reduce_max_ps(a); }
VEC int v_any_nan(vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) != 0; }
/* (a1, a0, a3, a2, ...) */
VEC vec v_swap_pairs(vec a) { return _mm512_permute_ps(a, 0xb1); }
/* a b - c in even lanes, a b + c in odd lanes */
VEC vec v_fmaddsub(vec a, vec b, vec c) { return _mm512_fmaddsub_ps(a, b, c); }
/* LANES / 2 floats, each twice */
VEC vec v_load_twice(const float *p)
{
    const __m512i at = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(at, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
/* clang-format on */

VEC vec v_widen(__m256i bits, int dtype)
{
    if (dtype == RAPT_F16) return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/* Nearest even; NaN stays NaN. */
VEC __m256i v_narrow(vec a, int dtype)
{
    if (dtype == RAPT_F16) return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512i bits = _mm512_castps_si512(a),
            odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), bits,
                                   _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

VEC vec v_load(const void *p, int dtype)
{
    if (dtype == RAPT_I8) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
    if (dtype == RAPT_F32) return _mm512_loadu_ps(p);
    return v_widen(_mm256_loadu_si256(p), dtype);
}

/* n lanes, 0 in the others; memory past them is not read. */
VEC vec v_load_part(const void *p, int dtype, int64_t n)
{
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    if (dtype == RAPT_I8)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, p)));
    if (dtype == RAPT_F32) return _mm512_maskz_loadu_ps(lanes, p);
    return v_widen(_mm256_maskz_loadu_epi16(lanes, p), dtype);
}

VEC void v_store(void *p, int dtype, vec a)
{
    if (dtype == RAPT_F32) _mm512_storeu_ps(p, a);
    else _mm256_storeu_si256(p, v_narrow(a, dtype));
}

VEC void v_store_part(void *p, int dtype, vec a, int64_t n)
{
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    if (dtype == RAPT_F32) _mm512_mask_storeu_ps(p, lanes, a);
    else _mm256_mask_storeu_epi16(p, lanes, v_narrow(a, dtype));
}

/* bf16 of two vectors, as v_narrow rounds. */
VEC __m512i v_narrow_two_exact(vec a, vec b)
{
    const __m512i half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
    const __m512i high =
        _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                         25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    __m512i low = _mm512_add_epi32(_mm512_add_epi32(x, half),
                                   _mm512_and_si512(_mm512_srli_epi32(x, 16), one)),
            next = _mm512_add_epi32(_mm512_add_epi32(y, half),
                                    _mm512_and_si512(_mm512_srli_epi32(y, 16), one));
    if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) {
        const __m512i quiet = _mm512_set1_epi32(0x400000);
        low = _mm512_mask_or_epi32(low, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), x, quiet);
        next = _mm512_mask_or_epi32(next, _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q), y, quiet);
    }
    return _mm512_permutex2var_epi16(low, high, next);
}

/* The same; where the CPU converts itself, subnormal numbers become 0. */
VEC __m512i v_narrow_two(vec a, vec b)
{
#if defined(V_BF16_CONVERSION)
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
#else
    return v_narrow_two_exact(a, b);
#endif
}

VEC void v_store_bits(void *p, __m512i bits, int stream)
{
    if (stream) _mm512_stream_si512(p, bits);
    else _mm512_storeu_si512(p, bits);
}

VEC void v_store_half(void *p, __m256i bits, int stream)
{
    if (stream) _mm256_stream_si256(p, bits);
    else _mm256_storeu_si256(p, bits);
}

/* Two neighbouring vectors; stream: past the caches, with p at a multiple of 64 bytes. F16: joining the
 * halves of a line would cost a shuffle. */
VEC void v_store_two(void *p, int dtype, vec a, vec b, int stream)
{
    if (dtype == RAPT_F32) {
        v_store_bits(p, _mm512_castps_si512(a), stream);
        v_store_bits((float *)p + LANES, _mm512_castps_si512(b), stream);
    } else if (dtype == RAPT_F16) {
        v_store_half(p, v_narrow(a, dtype), stream);
        v_store_half((uint16_t *)p + LANES, v_narrow(b, dtype), stream);
    } else v_store_bits(p, v_narrow_two(a, b), stream);
}

#define V_HAS_EXACT
/* With subnormal numbers in each type. */
VEC void v_store_two_exact(void *p, int dtype, vec a, vec b, int stream)
{
    if (dtype == RAPT_BF16) v_store_bits(p, v_narrow_two_exact(a, b), stream);
    else v_store_two(p, dtype, a, b, stream);
}

#define V_HAS_INTEGERS
/* The larger of bits without their signs: of m, and of LANES f32 or 2 LANES f16 or bf16 from p on. */
VEC vec v_larger_bits(vec m, const void *p, int dtype)
{
    __m512i x = _mm512_loadu_si512(p), y = _mm512_castps_si512(m);
    if (dtype == RAPT_F32)
        return _mm512_castsi512_ps(
            _mm512_max_epi32(y, _mm512_and_si512(x, _mm512_set1_epi32(0x7fffffff))));
    return _mm512_castsi512_ps(_mm512_max_epi16(y, _mm512_and_si512(x, _mm512_set1_epi16(0x7fff))));
}
VEC uint32_t v_largest_bits(vec m, int dtype)
{
    __m512i x = _mm512_castps_si512(m);
    if (dtype != RAPT_F32)
        x = _mm512_max_epi32(_mm512_srli_epi32(x, 16),
                             _mm512_and_si512(x, _mm512_set1_epi32(0xffff)));
    return (uint32_t)_mm512_reduce_max_epi32(x);
}
/* Bytes of two or four neighbouring vectors of sums of an integer and 1.5 * 2^23, whose lower halves are that
 * integer; at most 127. stream: past the caches, with p at a multiple of as many bytes. */
VEC void v_store_integers(void *p, const vec *x, int count, int stream)
{
    const __m512i low = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34,
                                         32, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2,
                                         0),
                  in_order = _mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0);
    __m512i first =
        _mm512_permutex2var_epi16(_mm512_castps_si512(x[0]), low, _mm512_castps_si512(x[1]));
    if (count == 2) {
        v_store_half(p, _mm512_cvtsepi16_epi8(first), stream);
        return;
    }
    __m512i second =
        _mm512_permutex2var_epi16(_mm512_castps_si512(x[2]), low, _mm512_castps_si512(x[3]));
    v_store_bits(p, _mm512_permutexvar_epi64(in_order, _mm512_packs_epi16(first, second)), stream);
}

#define V_HAS_PAIRS
/* Two neighbouring vectors. bf16: each word to the upper half of its lane. */
VEC void v_load_two(const void *p, int dtype, vec *a, vec *b)
{
    if (dtype == RAPT_BF16) {
        const __m512i first = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0,
                                               7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0),
                      second = _mm512_add_epi16(first, _mm512_set1_epi16(LANES));
        __m512i x = _mm512_loadu_si512(p);
        *a = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, first, x));
        *b = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, second, x));
        return;
    }
    *a = v_load(p, dtype);
    *b = v_load((const char *)p + LANES * (dtype == RAPT_F32 ? 4 : 2), dtype);
}

/* The even and the odd of 2 LANES neighbours of F16 or BF16, and back. */
VEC void v_load_pairs(const void *p, int dtype, vec *even, vec *odd)
{
    if (dtype == RAPT_BF16) {
        __m512i x = _mm512_loadu_si512(p), high = _mm512_set1_epi32((int)0xffff0000);
        *even = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
        *odd = _mm512_castsi512_ps(_mm512_and_si512(x, high));
        return;
    }
    const __m256i evens =
        _mm256_set_epi16(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m256i x = _mm256_loadu_si256(p),
            y = _mm256_loadu_si256((const void *)((const uint16_t *)p + LANES));
    *even = _mm512_cvtph_ps(_mm256_permutex2var_epi16(x, evens, y));
    *odd = _mm512_cvtph_ps(
        _mm256_permutex2var_epi16(x, _mm256_add_epi16(evens, _mm256_set1_epi16(1)), y));
}

VEC void v_store_pairs(void *p, int dtype, vec even, vec odd, int stream)
{
    if (dtype == RAPT_BF16) {
        const __m512i in_turn =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                             22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        v_store_bits(p, _mm512_permutexvar_epi16(in_turn, v_narrow_two(even, odd)), stream);
        return;
    }
    const __m256i first = _mm256_set_epi16(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
                  second = _mm256_add_epi16(first, _mm256_set1_epi16(LANES / 2));
    __m256i x = v_narrow(even, dtype), y = v_narrow(odd, dtype);
    v_store_half(p, _mm256_permutex2var_epi16(x, first, y), stream);
    v_store_half((uint16_t *)p + LANES, _mm256_permutex2var_epi16(x, second, y), stream);
}

/* Lane i: the sum of a[i]'s lanes, or the largest of them. A transposition by halves: 4 steps of 8, 4, 2,
 * 1 operations, each of a blend and a shuffle: two shuffles would take turns in the units that multiply. The
 * order is that of v_sum. */
#define REDUCE_EACH(name, join)                                                                    \
    VEC vec name(const vec a[LANES])                                                               \
    {                                                                                              \
        const __m512i halves = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2); /* of 128 bits */       \
        vec t[8], u[4], w[2];                                                                      \
        for (int i = 0; i < 8; i++)                                                                \
            t[i] = join(_mm512_mask_blend_ps(0xff00, a[i], a[i + 8]),                              \
                        _mm512_shuffle_f32x4(a[i], a[i + 8], 0x4e));                               \
        for (int i = 0; i < 4; i++)                                                                \
            u[i] = join(_mm512_mask_blend_ps(0xf0f0, t[i], t[i + 4]),                              \
                        _mm512_castpd_ps(_mm512_permutex2var_pd(_mm512_castps_pd(t[i]), halves,    \
                                                                _mm512_castps_pd(t[i + 4]))));     \
        for (int i = 0; i < 2; i++)                                                                \
            w[i] = join(_mm512_mask_blend_ps(0xcccc, u[i], u[i + 2]),                              \
                        _mm512_castpd_ps(_mm512_shuffle_pd(_mm512_castps_pd(u[i]),                 \
                                                           _mm512_castps_pd(u[i + 2]), 0x55)));    \
        return join(_mm512_mask_blend_ps(0xaaaa, w[0], w[1]),                                      \
                    _mm512_permute_ps(_mm512_mask_blend_ps(0x5555, w[0], w[1]), 0xb1));            \
    }
REDUCE_EACH(v_sums, v_add)
REDUCE_EACH(v_maxima, v_max)
#undef REDUCE_EACH

/* -inf in the lanes whose mask byte is 0; n bytes are read. */
VEC vec v_hide(vec s, const unsigned char *mask, int64_t n)
{
    __mmask16 lanes = (__mmask16)((1u << n) - 1);
    __m128i bytes = _mm_maskz_loadu_epi8(lanes, mask);
    return _mm512_mask_blend_ps(_mm_test_epi8_mask(bytes, bytes), v_set(-__builtin_inff()), s);
}

/* One cache line past the caches. p is 64-byte aligned. */
VEC void v_stream_line(void *p, const void *from)
{
    _mm512_stream_si512(p, _mm512_loadu_si512(from));
}
VEC void v_stream_end(void)
{
    _mm_sfence();
}

#endif
