/* Half-precision arithmetic over lanes and conversions from and to f16 and bf16. */
#include <math.h>

#include "lanes.h"

/* The product of two halves is exact in f64; rounding to odd keeps the final rounding to f16
 * correct. */
static inline float fma_half(float a, float b, float c)
{
    return double_to_float_odd((double)a * (double)b + (double)c);
}

static inline float mantissa(float a)
{
    int e;
    return isfinite(a) ? frexpf(a, &e) : a;
}

static inline int32_t exponent(float a)
{
    int e = 0;
    if (isfinite(a)) (void)frexpf(a, &e);
    return e;
}

static inline uint32_t half_toward_zero(float f)
{
    uint32_t h = float_to_half(f);
    float back = half_to_float(h);
    int away = (back < 0 ? -back : back) > (f < 0 ? -f : f) && f == f;
    int was_infinite = (as_bits(f) & 0x7fffffff) == 0x7f800000;
    return away && !was_infinite ? h - 1 : h;
}

static inline int32_t to_int(float a)
{
    return a != a                ? 0
           : a >= 2147483648.0f  ? INT32_MAX
           : a <= -2147483648.0f ? INT32_MIN
                                 : (int32_t)a;
}

static inline uint32_t clamp_i16(int32_t a)
{
    return (uint32_t)(a > 32767 ? 32767 : a < -32768 ? -32768 : a) & 0xffff;
}

static inline uint32_t clamp_u16(int32_t a)
{
    return (uint32_t)(a > 65535 ? 65535 : a < 0 ? 0 : a);
}

static inline uint32_t snorm16(float a)
{
    float c = a != a ? 0 : a > 1 ? 1 : a < -1 ? -1 : a;
    return (uint32_t)(int32_t)__builtin_rintf(c * 32767.0f) & 0xffff;
}

#define LANE_DEF "lanes_f16.def"
#include "lanes_gen.h"

const struct op_table ops_f16 = {rows, sizeof rows / sizeof *rows};

uint32_t f32_to_f16_bits(float f)
{
    return float_to_half(f);
}

float f16_bits_to_f32(uint32_t h)
{
    return half_to_float(h);
}
