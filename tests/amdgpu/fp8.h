/* The 8-bit float formats: OCP e4m3fn and e5m2 (gfx12, gfx950) and the FNUZ ones of gfx942 (no -0,
 * no infinity). */
#ifndef AMDGPU_FP8_H
#define AMDGPU_FP8_H

#include "lanes.h"

enum fp8_format { FP8_OCP, BF8_OCP, FP8_FNUZ, BF8_FNUZ };

static inline float fp8_to_float(uint32_t byte, enum fp8_format format)
{
    bool wide = format == BF8_OCP || format == BF8_FNUZ, fnuz = format >= FP8_FNUZ;
    int mbits = wide ? 2 : 3, bias = (wide ? 15 : 7) + fnuz;
    uint32_t sign = (byte & 0x80) << 24, magnitude = byte & 0x7f;
    uint32_t e = magnitude >> mbits, m = magnitude & ((1u << mbits) - 1);
    if (fnuz && (byte & 0xff) == 0x80) return as_float(0x7fc00000);
    if (format == FP8_OCP && magnitude == 0x7f) return as_float(sign | 0x7fc00000);
    if (format == BF8_OCP && e == 31) return as_float(sign | 0x7f800000 | m << 21);
    if (e == 0) {
        float f = (float)m * as_float((uint32_t)(127 + 1 - bias - mbits) << 23);
        return as_float(as_bits(f) | sign);
    }
    return as_float(sign | (e + 127 - (uint32_t)bias) << 23 | m << (23 - mbits));
}

/* Round to nearest even; beyond the range: NaN, or infinity where the format has one. */
static inline uint32_t float_to_fp8(float f, enum fp8_format format)
{
    bool wide = format == BF8_OCP || format == BF8_FNUZ, fnuz = format >= FP8_FNUZ;
    int mbits = wide ? 2 : 3, bias = (wide ? 15 : 7) + fnuz;
    uint32_t sign = as_bits(f) >> 24 & 0x80, x = as_bits(f) & 0x7fffffff;
    uint32_t nan = fnuz ? 0x80 : sign | 0x7f, over = format == BF8_OCP ? sign | 0x7c : nan;
    if (x > 0x7f800000) return nan;
    if (x == 0x7f800000) return over;
    int e = (int)(x >> 23) - 127, drop = 23 - mbits;
    if (e < 1 - bias) drop += 1 - bias - e;
    if (x < 0x00800000 || drop > 24) return fnuz ? 0 : sign;
    uint32_t m = (x & 0x7fffff) | 0x800000;
    uint32_t rounded = (m + ((1u << (drop - 1)) - 1) + (m >> drop & 1)) >> drop;
    uint32_t code = e < 1 - bias ? rounded : rounded + ((uint32_t)(e + bias - 1) << mbits);
    uint32_t largest = format == FP8_OCP ? 0x7e : format == BF8_OCP ? 0x7b : 0x7f;
    if (code > largest) return over;
    if (fnuz && code == 0) return 0;
    return sign | code;
}

#endif
