/* vec_neon.h: the vector vocabulary of AArch64's Advanced SIMD; shared loops are compiled once per
 * vocabulary. dtype arguments are compile-time constants (F32, F16, BF16, for loads also I8); parts
 * count lanes, 1 ... LANES - 1. */
#ifndef RAPT_CPU_ARM_VEC_NEON_H
#define RAPT_CPU_ARM_VEC_NEON_H

#include "rapt/rapt.h"

#include <arm_neon.h>
#include <string.h>

#define VEC static inline __attribute__((always_inline))

typedef float32x4_t vec;
enum { LANES = 4, ACCUMULATORS = 16 };

/* One verb, one line. */
/* clang-format off */
VEC vec v_zero(void) { return vdupq_n_f32(0); }
VEC vec v_set(float x) { return vdupq_n_f32(x); }
VEC vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
VEC vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
VEC vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
VEC vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
VEC vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); } /* a b + c */
VEC vec v_fnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); } /* c - a b */
VEC vec v_max(vec a, vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); } /* b when one is NaN */
VEC vec v_min(vec a, vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); } /* b when one is NaN */
VEC vec v_abs(vec a) { return vabsq_f32(a); }
VEC vec v_round(vec a) { return vrndnq_f32(a); }
VEC vec v_copysign(vec magnitude, vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
VEC vec v_iota(void)
{
    static const float lanes[4] = {0, 1, 2, 3};
    return vld1q_f32(lanes);
}
VEC vec v_power2(int32x4_t n) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23)); }
/* a 2^n for integral n; 0 for n = -inf whatever a is. In two factors, since 2^n itself may leave
 * the exponent's range. */
VEC vec v_scale2(vec a, vec n)
{
    uint32x4_t least = vcltq_f32(n, v_set(-250));
    int32x4_t whole = vcvtnq_s32_f32(v_min(v_set(250), v_max(v_set(-250), n))),
              half = vshrq_n_s32(whole, 1);
    a = v_mul(v_mul(a, v_power2(half)), v_power2(vsubq_s32(whole, half)));
    return vbslq_f32(least, v_zero(), a);
}
/* The same; 0 where x is below -126. n of 128 and more give 255 in the exponent, infinity, also where
 * a 2^n is finite. */
VEC vec v_scale2_normal(vec a, vec n, vec x)
{
    vec scaled = v_mul(a, v_power2(vcvtnq_s32_f32(v_min(v_set(128), v_max(v_set(-126), n)))));
    return vbslq_f32(vcltq_f32(x, v_set(-126)), v_zero(), scaled);
}
/* lanes first <= i < last of a, the others of b */
VEC vec v_keep(vec a, int first, int last, vec b)
{
    uint32x4_t keep = vandq_u32(vcgeq_f32(v_iota(), v_set((float)first)),
                                vcltq_f32(v_iota(), v_set((float)last)));
    return vbslq_f32(keep, a, b);
}
VEC float v_sum(vec a) { return vaddvq_f32(a); }
VEC float v_largest(vec a) { return vmaxnmvq_f32(a); }
VEC int v_any_nan(vec a) { return vminvq_u32(vceqq_f32(a, a)) == 0; }
/* (a1, a0, a3, a2) */
VEC vec v_swap_pairs(vec a) { return vrev64q_f32(a); }
/* a b - c in even lanes, a b + c in odd lanes */
VEC vec v_fmaddsub(vec a, vec b, vec c)
{
    uint32x4_t even = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000u));
    return vfmaq_f32(vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(c), even)), a, b);
}
/* LANES / 2 floats, each twice */
VEC vec v_load_twice(const float *p)
{
    float32x4_t x = vcombine_f32(vld1_f32(p), vld1_f32(p));
    return vzip1q_f32(x, x);
}
/* clang-format on */

/* Nearest even; NaN stays NaN. */
VEC uint16x4_t v_narrow(vec a, int dtype)
{
    if (dtype == RAPT_F16) return vreinterpret_u16_f16(vcvt_f16_f32(a));
    uint32x4_t bits = vreinterpretq_u32_f32(a),
               odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet), 16);
}

VEC vec v_load(const void *p, int dtype)
{
    if (dtype == RAPT_F32) return vld1q_f32(p);
    if (dtype == RAPT_I8) {
        uint32_t bytes;
        memcpy(&bytes, p, sizeof bytes);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(bytes)))));
    }
    uint16x4_t bits = vld1_u16(p);
    if (dtype == RAPT_F16) return vcvt_f32_f16(vreinterpret_f16_u16(bits));
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

/* n lanes, 0 in the others; memory past them is not read. */
VEC vec v_load_part(const void *p, int dtype, int64_t n)
{
    uint32_t lanes[4] = {0};
    memcpy(lanes, p, (size_t)n * (dtype == RAPT_F32 ? 4 : dtype == RAPT_I8 ? 1 : 2));
    return v_load(lanes, dtype);
}

VEC void v_store(void *p, int dtype, vec a)
{
    if (dtype == RAPT_F32) vst1q_f32(p, a);
    else vst1_u16(p, v_narrow(a, dtype));
}

VEC void v_store_part(void *p, int dtype, vec a, int64_t n)
{
    uint32_t lanes[4];
    v_store(lanes, dtype, a);
    memcpy(p, lanes, (size_t)n * (dtype == RAPT_F32 ? 4 : 2));
}

/* Lane i: the sum of a[i]'s lanes. */
VEC vec v_sums(const vec a[LANES])
{
    return vpaddq_f32(vpaddq_f32(a[0], a[1]), vpaddq_f32(a[2], a[3]));
}

/* 4 x 4 lanes of 32 bits: neighbours of 32 bits, then of 64. */
VEC void v_transpose(vec x[LANES])
{
    vec even0 = vtrn1q_f32(x[0], x[1]), odd0 = vtrn2q_f32(x[0], x[1]);
    vec even1 = vtrn1q_f32(x[2], x[3]), odd1 = vtrn2q_f32(x[2], x[3]);
#define V_PAIRS(half, a, b)                                                                        \
    vreinterpretq_f32_f64(vtrn##half##q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
    x[0] = V_PAIRS(1, even0, even1);
    x[1] = V_PAIRS(1, odd0, odd1);
    x[2] = V_PAIRS(2, even0, even1);
    x[3] = V_PAIRS(2, odd0, odd1);
#undef V_PAIRS
}

/* -inf in the lanes whose mask byte is 0; n bytes are read. */
VEC vec v_hide(vec s, const unsigned char *mask, int64_t n)
{
    uint32_t bytes = 0;
    memcpy(&bytes, mask, (size_t)n);
    uint32x4_t seen = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes))));
    return vbslq_f32(vceqq_u32(seen, vdupq_n_u32(0)), v_set(-__builtin_inff()), s);
}

#endif
