/* dtype.h: sizes and names of the element types, and scalar f16 and bf16 conversion. */
#ifndef RAPT_BASE_DTYPE_H
#define RAPT_BASE_DTYPE_H

#include "rapt/rapt.h"

#include <string.h>

/* Bytes of one element; 0 for a value that is no dtype. */
static inline size_t dtype_size(int64_t dtype)
{
    static const unsigned char bytes[] = {0,
#define ROW(name, value, size, text) [value] = size,
                                          RAPT_DTYPE_LIST(ROW)
#undef ROW
    };
    return dtype >= 0 && dtype < (int64_t)sizeof bytes ? bytes[dtype] : 0;
}

/* "f32" ...; "none" for 0, "unknown" for a value that is no dtype. */
static inline const char *dtype_name(int64_t dtype)
{
    static const char *const names[] = {"none",
#define ROW(name, value, size, text) [value] = text,
                                        RAPT_DTYPE_LIST(ROW)
#undef ROW
    };
    return dtype >= 0 && dtype < (int64_t)(sizeof names / sizeof *names) ? names[dtype] : "unknown";
}

static inline float float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t bits_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_from_bf16(uint16_t x)
{
    return float_from_bits((uint32_t)x << 16);
}

/* Round to nearest even; NaN stays NaN (quiet). */
static inline uint16_t bf16_from_float(float x)
{
    uint32_t bits = bits_from_float(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* IEEE binary16, subnormals included. */
static inline float float_from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 31u, mantissa = x & 1023u;
    if (exponent == 31) return float_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

/* Round to nearest even; overflow to infinity, NaN stays NaN (quiet). */
static inline uint16_t f16_from_float(float x)
{
    uint32_t bits = bits_from_float(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Adding 0.5 aligns the last bit of the sum with the last bit of a subnormal half. */
        float aligned = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_from_float(aligned) - 0x3f000000u));
    }
    return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

/* Element index of F32, F16 or BF16 data as float. */
static inline float load_float(const void *data, int64_t dtype, int64_t index)
{
    if (dtype == RAPT_F32) return ((const float *)data)[index];
    uint16_t bits = ((const uint16_t *)data)[index];
    return dtype == RAPT_F16 ? float_from_f16(bits) : float_from_bf16(bits);
}

static inline void store_float(void *data, int64_t dtype, int64_t index, float x)
{
    if (dtype == RAPT_F32) ((float *)data)[index] = x;
    else ((uint16_t *)data)[index] = dtype == RAPT_F16 ? f16_from_float(x) : bf16_from_float(x);
}

/* Element index of I32 or I64 data. */
static inline int64_t load_index(const void *data, int64_t dtype, int64_t index)
{
    return dtype == RAPT_I32 ? ((const int32_t *)data)[index] : ((const int64_t *)data)[index];
}

#endif
