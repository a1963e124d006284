/* fixed_point_avx512.h: numbers as integers of 16 bits relative to the largest of them: what the
 * levels of i8 K and V make of q and of the weights (decisions/0009). */
#ifndef RAPT_CPU_X86_FIXED_POINT_AVX512_H
#define RAPT_CPU_X86_FIXED_POINT_AVX512_H

#include "cpu/x86/vec_avx512.h"

#include <math.h>

/* Largest integers: 512 products with them and 8 bits, or 1024 with half of them, stay below 2^31. */
enum {
    LEVELS = 32766,
    Q_LEVELS = 127 * 256 + 127, /* of two signed bytes */
    LONG_CHANNELS = 512
};

/* x ~ step * integer. NaN: x has a NaN, or infinities. */
struct fixed {
    float factor, step;
    float exponent; /* of the power of two that x is divided by before factor */
};

VEC struct fixed fixed_for(float largest, int levels)
{
    struct fixed f = {0};
    if (!(largest <= 0x1.fffffep127f)) {
        f.step = NAN;
        return f;
    }
    if (largest <= 0) return f;
    __m128 x = _mm_set_ss(largest), exponent = _mm_getexp_ss(x, x),
           mantissa = _mm_getmant_ss(x, x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    f.exponent = _mm_cvtss_f32(exponent);
    f.factor = (float)levels / _mm_cvtss_f32(mantissa);
    f.step =
        _mm_cvtss_f32(_mm_scalef_ss(_mm_div_ss(mantissa, _mm_set_ss((float)levels)), exponent));
    return f;
}

VEC __m256i to_fixed(vec x, const struct fixed *f)
{
    vec y = v_mul(v_scale2(x, v_set(-f->exponent)), v_set(f->factor));
    return _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(y));
}

/* decode_avx512vnni.c: rows of q, in place, from f32 to integers of 16 bits in the order of the channels, and from half
 * of the row on, as a float, their step. */
void fix_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels);

/* The lower halves of 32-bit integers: of a, then of b. */
VEC __m512i narrow(__m512i a, __m512i b)
{
    return _mm512_permutex2var_epi16(a,
                                     _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42,
                                                      40, 38, 36, 34, 32, 30, 28, 26, 24, 22, 20,
                                                      18, 16, 14, 12, 10, 8, 6, 4, 2, 0),
                                     b);
}

#endif
