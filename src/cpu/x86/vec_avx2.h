/* vec_avx2.h: the vector vocabulary of AVX2, FMA and F16C; shared loops are compiled once per
 * vocabulary. dtype arguments are compile-time constants (F32, F16, BF16, for loads also I8); parts
 * count lanes, 1 ... LANES - 1. */
#ifndef RAPT_CPU_X86_VEC_AVX2_H
#define RAPT_CPU_X86_VEC_AVX2_H

#include "rapt/rapt.h"

#include <immintrin.h>
#include <string.h>

#define VEC static inline __attribute__((always_inline))

typedef __m256 vec;
enum { LANES = 8, ACCUMULATORS = 8 };

/* One verb, one line. */
/* clang-format off */
VEC vec v_zero(void) { return _mm256_setzero_ps(); }
VEC vec v_set(float x) { return _mm256_set1_ps(x); }
VEC vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
VEC vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
VEC vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
VEC vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
VEC vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); } /* a b + c */
VEC vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
VEC vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); } /* b when one is NaN */
VEC vec v_min(vec a, vec b) { return _mm256_min_ps(a, b); } /* b when one is NaN */
VEC vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
VEC vec v_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VEC vec v_copysign(vec magnitude, vec sign)
{
    return _mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
VEC vec v_iota(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
/* a 2^n for integral n; 0 for n = -inf whatever a is. In two factors, since 2^n itself may leave
 * the exponent's range. */
VEC vec v_scale2(vec a, vec n)
{
    __m256 least = _mm256_cmp_ps(n, _mm256_set1_ps(-250), _CMP_LT_OQ);
    __m256i whole = _mm256_cvtps_epi32(v_min(_mm256_set1_ps(250), v_max(_mm256_set1_ps(-250), n)));
    __m256i half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    __m256i rest = _mm256_sub_epi32(whole, half);
    a = v_mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    a = v_mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
    return _mm256_andnot_ps(least, a);
}
/* The same; 0 where x is below -126: products of subnormal weights take Intel's cores a hundred times as
 * long as others. n of 128 and more give 255 in the exponent, infinity, also where a 2^n is finite. */
VEC vec v_scale2_normal(vec a, vec n, vec x)
{
    __m256 subnormal = _mm256_cmp_ps(x, _mm256_set1_ps(-126), _CMP_LT_OQ);
    __m256i whole = _mm256_cvtps_epi32(v_min(_mm256_set1_ps(128), v_max(_mm256_set1_ps(-126), n)));
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(whole, _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(subnormal, v_mul(a, _mm256_castsi256_ps(power)));
}
/* lanes first <= i < last of a, the others of b */
VEC vec v_keep(vec a, int first, int last, vec b)
{
    __m256 i = v_iota();
    __m256 keep = _mm256_and_ps(_mm256_cmp_ps(i, v_set((float)first), _CMP_GE_OQ),
                                _mm256_cmp_ps(i, v_set((float)last), _CMP_LT_OQ));
    return _mm256_blendv_ps(b, a, keep);
}
VEC float v_sum(vec a)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
VEC float v_largest(vec a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
VEC int v_any_nan(vec a) { return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)) != 0; }
/* (a1, a0, a3, a2, ...) */
VEC vec v_swap_pairs(vec a) { return _mm256_permute_ps(a, 0xb1); }
/* a b - c in even lanes, a b + c in odd lanes */
VEC vec v_fmaddsub(vec a, vec b, vec c) { return _mm256_fmaddsub_ps(a, b, c); }
/* LANES / 2 floats, each twice */
VEC vec v_load_twice(const float *p)
{
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),
                                    _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
/* clang-format on */

VEC vec v_widen(__m128i bits, int dtype)
{
    if (dtype == RAPT_F16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* Nearest even; NaN stays NaN. */
VEC __m128i v_narrow(vec a, int dtype)
{
    if (dtype == RAPT_F16) return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256i bits = _mm256_castps_si256(a),
            odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    rounded =
        _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)));
    rounded = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

VEC vec v_load(const void *p, int dtype)
{
    if (dtype == RAPT_I8) return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadu_si64(p)));
    if (dtype == RAPT_F32) return _mm256_loadu_ps(p);
    return v_widen(_mm_loadu_si128(p), dtype);
}

/* n lanes, 0 in the others; memory past them is not read. */
VEC vec v_load_part(const void *p, int dtype, int64_t n)
{
    uint32_t lanes[8] = {0};
    memcpy(lanes, p, (size_t)n * (dtype == RAPT_F32 ? 4 : dtype == RAPT_I8 ? 1 : 2));
    return v_load(lanes, dtype);
}

VEC void v_store(void *p, int dtype, vec a)
{
    if (dtype == RAPT_F32) _mm256_storeu_ps(p, a);
    else _mm_storeu_si128(p, v_narrow(a, dtype));
}

VEC void v_store_part(void *p, int dtype, vec a, int64_t n)
{
    uint32_t lanes[8];
    v_store(lanes, dtype, a);
    memcpy(p, lanes, (size_t)n * (dtype == RAPT_F32 ? 4 : 2));
}

/* Two neighbouring vectors; stream: past the caches, with p at a multiple of 32 bytes. */
VEC void v_store_two(void *p, int dtype, vec a, vec b, int stream)
{
    if (dtype == RAPT_F32 && stream) {
        _mm256_stream_ps(p, a);
        _mm256_stream_ps((float *)p + LANES, b);
    } else if (dtype == RAPT_F32) {
        _mm256_storeu_ps(p, a);
        _mm256_storeu_ps((float *)p + LANES, b);
    } else {
        __m256i bits = _mm256_set_m128i(v_narrow(b, dtype), v_narrow(a, dtype));
        if (stream) _mm256_stream_si256(p, bits);
        else _mm256_storeu_si256(p, bits);
    }
}

/* Lane i: the sum of a[i]'s lanes. */
VEC vec v_sums(const vec a[LANES])
{
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
    return v_add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

/* One cache line past the caches. p is 64-byte aligned. */
VEC void v_stream_line(void *p, const void *from)
{
    __m256i *to = p;
    const __m256i *source = from;
    _mm256_stream_si256(to, _mm256_loadu_si256(source));
    _mm256_stream_si256(to + 1, _mm256_loadu_si256(source + 1));
}
VEC void v_stream_end(void)
{
    _mm_sfence();
}

#endif
