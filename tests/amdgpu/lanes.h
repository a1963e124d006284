/* How lane operations are written: one row per instruction gives the operand types and an
   expression; the macros make the loop over the lanes, which the compiler turns into vector code.

   Types: F f32, U u32, I i32, H f16 (low half of the word, computed as float), B bf16, S u16, T
   i16, D f64, Q u64, L i64 (pairs of rows), P/K packed halves, W pair of f32, M lane mask (SGPRs),
   E either f32 or a half of the word as f16, as op_sel and op_sel_hi say.
 */
#ifndef AMDGPU_LANES_H
#define AMDGPU_LANES_H

#include <stdint.h>
#include <string.h>

#include "emu.h"

#define LANE_UNUSED __attribute__((unused))
#define LANE_ARGS                                                                                  \
    uint32_t *d, LANE_UNUSED const uint32_t *pa, LANE_UNUSED const uint32_t *pb,                   \
        LANE_UNUSED const uint32_t *pc, const uint32_t *m, int n

/* Rows either coincide or are disjoint, so lanes are independent. */
#define FOR_LANES                                                                                  \
    for (int h_ = 0; h_ < n; h_ += 32) _Pragma("GCC ivdep") for (int l = h_; l < h_ + 32; l++)

static inline float as_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t as_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline double as_double(uint64_t u)
{
    double f;
    memcpy(&f, &u, 8);
    return f;
}

static inline uint64_t as_bits64(double f)
{
    uint64_t u;
    memcpy(&u, &f, 8);
    return u;
}

/* f16 to f32, exact, branch-free; subnormals by the subtraction trick, which does not depend on
 * DAZ. */
static inline float half_to_float(uint32_t h)
{
    uint32_t exponent = h & 0x7c00, magnitude = (h & 0x7fff) << 13, sign = (h & 0x8000) << 16;
    uint32_t normal = magnitude + (112u << 23);
    uint32_t special = magnitude | 0x7f800000;
    float small = as_float((113u << 23) | (h & 0x3ff) << 13) - as_float(113u << 23);
    uint32_t r = exponent == 0x7c00 ? special : normal;
    r = exponent == 0 ? as_bits(small) : r;
    return as_float(r | sign);
}

/* f32 to f16, round to nearest even, subnormals kept. */
static inline uint32_t float_to_half(float f)
{
    uint32_t u = as_bits(f), sign = u >> 16 & 0x8000, x = u & 0x7fffffff;
    /* subnormal results: adding 0.5 aligns the mantissa so that the f32 adder rounds at the right
     * bit */
    uint32_t tiny = as_bits(as_float(x) + 0.5f) - 0x3f000000;
    uint32_t normal = (x + ((x >> 13 & 1) + 0xfff) - (112u << 23)) >> 13;
    uint32_t r = x < (113u << 23) ? tiny : normal;
    r = x >= 0x477ff000 ? 0x7c00 : r;
    r = x > 0x7f800000 ? (0x7e00 | (x >> 13 & 0x3ff)) : r;
    return r | sign;
}

static inline float bf16_to_float(uint32_t b)
{
    return as_float(b << 16);
}

/* f32 to bf16, round to nearest even. */
static inline uint32_t float_to_bf16(float f)
{
    uint32_t u = as_bits(f);
    uint32_t r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (u & 0x7fffffff) > 0x7f800000 ? (u >> 16 | 0x40) : r;
}

/* f64 to f32 rounding to odd: a later rounding to f16 is then correct (Boldo and Melquiond, 2008).
 */
static inline float double_to_float_odd(double x)
{
    float f = (float)x;
    uint32_t u = as_bits(f);
    double back = f;
    int inexact = back != x && back == back;
    int away = (back < 0 ? -back : back) > (x < 0 ? -x : x);
    u = inexact ? (away ? (u - 1) | 1 : u | 1) : u;
    return as_float(u);
}

#define T_F float
#define T_U uint32_t
#define T_I int32_t
#define T_H float
#define T_B float
#define T_S uint32_t
#define T_T int32_t
#define T_D double
#define T_Q uint64_t
#define T_L int64_t
#define T_P uint32_t
#define T_K uint32_t

#define GET_U(p) ((p)[l])
#define GET_P(p) ((p)[l])
#define GET_K(p) ((p)[l])
#define GET_I(p) ((int32_t)(p)[l])
#define GET_F(p) as_float((p)[l])
#define GET_H(p) half_to_float((p)[l] & 0xffff)
#define GET_B(p) bf16_to_float((p)[l] & 0xffff)
#define GET_S(p) ((p)[l] & 0xffff)
#define GET_T(p) ((int32_t)(int16_t)(p)[l])
#define GET_Q(p) ((uint64_t)(p)[l] | (uint64_t)(p)[l + ROW] << 32)
#define GET_L(p) ((int64_t)GET_Q(p))
#define GET_D(p) as_double(GET_Q(p))

#define PUT32_(value)                                                                              \
    do {                                                                                           \
        uint32_t word_ = (value);                                                                  \
        d[l] = m[l] ? word_ : d[l];                                                                \
    } while (0)
#define PUT64_(value)                                                                              \
    do {                                                                                           \
        uint64_t pair_ = (value);                                                                  \
        d[l] = m[l] ? (uint32_t)pair_ : d[l];                                                      \
        d[l + ROW] = m[l] ? (uint32_t)(pair_ >> 32) : d[l + ROW];                                  \
    } while (0)
#define PUT_U(r) PUT32_(r)
#define PUT_P(r) PUT32_(r)
#define PUT_K(r) PUT32_(r)
#define PUT_I(r) PUT32_((uint32_t)(r))
#define PUT_F(r) PUT32_(as_bits(r))
#define PUT_H(r) PUT32_(float_to_half(r))
#define PUT_B(r) PUT32_(float_to_bf16(r))
#define PUT_S(r) PUT32_((r)&0xffff)
#define PUT_T(r) PUT32_((uint32_t)(r)&0xffff)
#define PUT_Q(r) PUT64_(r)
#define PUT_L(r) PUT64_((uint64_t)(r))
#define PUT_D(r) PUT64_(as_bits64(r))

/* IEEE 754-2008 maxNum/minNum: a NaN loses against a number, +0 is larger than -0. */
static inline float max_num(float a, float b)
{
    uint32_t equal = as_bits(a) & as_bits(b);
    float r = a > b ? a : a < b ? b : as_float(equal);
    r = b != b ? a : r;
    return a != a ? b : r;
}

static inline float min_num(float a, float b)
{
    uint32_t equal = as_bits(a) | as_bits(b);
    float r = a < b ? a : a > b ? b : as_float(equal);
    r = b != b ? a : r;
    return a != a ? b : r;
}

/* IEEE 754-2019 maximum/minimum: NaN wins. */
static inline float maximum(float a, float b)
{
    float r = max_num(a, b);
    return a != a ? a : b != b ? b : r;
}

static inline float minimum(float a, float b)
{
    float r = min_num(a, b);
    return a != a ? a : b != b ? b : r;
}

static inline double max_num_d(double a, double b)
{
    return a != a ? b : b != b ? a : a > b ? a : a < b ? b : as_double(as_bits64(a) & as_bits64(b));
}

static inline double min_num_d(double a, double b)
{
    return a != a ? b : b != b ? a : a < b ? a : a > b ? b : as_double(as_bits64(a) | as_bits64(b));
}

/* A table of operations one file contributes. */
struct op_table {
    const struct op_row *rows;
    int count;
};
extern const struct op_table ops_f32, ops_int, ops_f16, ops_wide, ops_convert, ops_compare,
    ops_packed, ops_cross, ops_matrix, ops_scalar, ops_branch, ops_lds, ops_global, ops_buffer,
    ops_scalar_memory, ops_atomic, ops_carry, ops_divide, ops_fp8, ops_pseudo_scalar;

#endif
