/* vec_sve.h: the vector vocabulary of SVE with vectors of 256 bits, a length fixed at compile time;
 * shared loops are compiled once per vocabulary. dtype arguments are compile-time constants (F32,
 * F16, BF16, for loads also I8); parts count lanes, 1 ... LANES - 1. */
#ifndef RAPT_CPU_ARM_VEC_SVE_H
#define RAPT_CPU_ARM_VEC_SVE_H

#include "rapt/rapt.h"

#include <arm_sve.h>

#define VEC static inline __attribute__((always_inline))

typedef svfloat32_t vec __attribute__((arm_sve_vector_bits(256)));
enum { LANES = 8, ACCUMULATORS = 16 };

#define V_ALL     svptrue_b32()
#define V_PART(n) svwhilelt_b32_s64(0, n)

/* One verb, one line. */
/* clang-format off */
VEC vec v_zero(void) { return svdup_f32(0); }
VEC vec v_set(float x) { return svdup_f32(x); }
VEC vec v_add(vec a, vec b) { return svadd_f32_x(V_ALL, a, b); }
VEC vec v_sub(vec a, vec b) { return svsub_f32_x(V_ALL, a, b); }
VEC vec v_mul(vec a, vec b) { return svmul_f32_x(V_ALL, a, b); }
VEC vec v_div(vec a, vec b) { return svdiv_f32_x(V_ALL, a, b); }
VEC vec v_fma(vec a, vec b, vec c) { return svmla_f32_x(V_ALL, c, a, b); } /* a b + c */
VEC vec v_fnma(vec a, vec b, vec c) { return svmls_f32_x(V_ALL, c, a, b); } /* c - a b */
VEC vec v_max(vec a, vec b) { return svsel_f32(svcmpgt_f32(V_ALL, a, b), a, b); } /* b when one is NaN */
VEC vec v_min(vec a, vec b) { return svsel_f32(svcmplt_f32(V_ALL, a, b), a, b); } /* b when one is NaN */
VEC vec v_abs(vec a) { return svabs_f32_x(V_ALL, a); }
VEC vec v_round(vec a) { return svrintn_f32_x(V_ALL, a); }
VEC vec v_copysign(vec magnitude, vec sign)
{
    svuint32_t bit = svand_n_u32_x(V_ALL, svreinterpret_u32_f32(sign), 0x80000000u);
    svuint32_t rest = svand_n_u32_x(V_ALL, svreinterpret_u32_f32(magnitude), 0x7fffffffu);
    return svreinterpret_f32_u32(svorr_u32_x(V_ALL, bit, rest));
}
VEC vec v_iota(void) { return svcvt_f32_s32_x(V_ALL, svindex_s32(0, 1)); }
/* a 2^n for integral n; 0 for n = -inf whatever a is. */
VEC vec v_scale2(vec a, vec n)
{
    vec scaled = svscale_f32_x(V_ALL, a, svcvt_s32_f32_x(V_ALL, n));
    return svsel_f32(svcmplt_n_f32(V_ALL, n, -250), v_zero(), scaled);
}
/* The same; 0 where x is below -126. */
VEC vec v_scale2_normal(vec a, vec n, vec x)
{
    return svsel_f32(svcmplt_n_f32(V_ALL, x, -126), v_zero(), v_scale2(a, n));
}
/* lanes first <= i < last of a, the others of b */
VEC vec v_keep(vec a, int first, int last, vec b)
{
    svint32_t i = svindex_s32(0, 1);
    return svsel_f32(svcmplt_n_s32(svcmpge_n_s32(V_ALL, i, first), i, last), a, b);
}
VEC float v_sum(vec a) { return svaddv_f32(V_ALL, a); }
VEC float v_largest(vec a) { return svmaxnmv_f32(V_ALL, a); }
VEC int v_any_nan(vec a) { return svptest_any(V_ALL, svcmpuo_f32(V_ALL, a, a)); }
/* clang-format on */

VEC vec v_load_lanes(svbool_t lanes, const void *p, int dtype)
{
    if (dtype == RAPT_F32) return svld1_f32(lanes, p);
    if (dtype == RAPT_I8) return svcvt_f32_s32_x(V_ALL, svld1sb_s32(lanes, p));
    svuint32_t bits = svld1uh_u32(lanes, p);
    if (dtype == RAPT_F16) return svcvt_f32_f16_x(V_ALL, svreinterpret_f16_u32(bits));
    return svreinterpret_f32_u32(svlsl_n_u32_x(V_ALL, bits, 16));
}

/* Nearest even; NaN stays NaN. */
VEC void v_store_lanes(svbool_t lanes, void *p, int dtype, vec a)
{
    if (dtype == RAPT_F32) {
        svst1_f32(lanes, p, a);
        return;
    }
    if (dtype == RAPT_F16) {
        svst1h_u32(lanes, p, svreinterpret_u32_f16(svcvt_f16_f32_x(V_ALL, a)));
        return;
    }
    svuint32_t bits = svreinterpret_u32_f32(a),
               odd = svand_n_u32_x(V_ALL, svlsr_n_u32_x(V_ALL, bits, 16), 1);
    svuint32_t rounded = svadd_u32_x(V_ALL, svadd_n_u32_x(V_ALL, bits, 0x7fff), odd);
    rounded = svsel_u32(svcmpuo_f32(V_ALL, a, a), svorr_n_u32_x(V_ALL, bits, 0x400000), rounded);
    svst1h_u32(lanes, p, svlsr_n_u32_x(V_ALL, rounded, 16));
}

/* One verb, one line. */
/* clang-format off */
VEC vec v_load(const void *p, int dtype) { return v_load_lanes(V_ALL, p, dtype); }
/* n lanes, 0 in the others; memory past them is not read. */
VEC vec v_load_part(const void *p, int dtype, int64_t n) { return v_load_lanes(V_PART(n), p, dtype); }
VEC void v_store(void *p, int dtype, vec a) { v_store_lanes(V_ALL, p, dtype, a); }
VEC void v_store_part(void *p, int dtype, vec a, int64_t n) { v_store_lanes(V_PART(n), p, dtype, a); }
/* clang-format on */

/* Sums of neighbours, those of a before those of b. */
VEC vec v_add_pairs(vec a, vec b)
{
    return v_add(svuzp1_f32(a, b), svuzp2_f32(a, b));
}
/* Lane i: the sum of a[i]'s lanes. */
VEC vec v_sums(const vec a[LANES])
{
    vec low = v_add_pairs(v_add_pairs(a[0], a[1]), v_add_pairs(a[2], a[3]));
    vec high = v_add_pairs(v_add_pairs(a[4], a[5]), v_add_pairs(a[6], a[7]));
    return v_add_pairs(low, high);
}

/* 8 x 8 lanes of 32 bits: three perfect shuffles of the rows i and i + 4. */
VEC void v_transpose(vec x[LANES])
{
    for (int step = 0; step < 3; step++) {
        vec t[LANES];
        for (int i = 0; i < 4; i++) {
            t[2 * i] = svzip1_f32(x[i], x[i + 4]);
            t[2 * i + 1] = svzip2_f32(x[i], x[i + 4]);
        }
        for (int i = 0; i < LANES; i++) x[i] = t[i];
    }
}

/* -inf in the lanes whose mask byte is 0; n bytes are read. */
VEC vec v_hide(vec s, const unsigned char *mask, int64_t n)
{
    svuint32_t seen = svld1ub_u32(V_PART(n), mask);
    return svsel_f32(svcmpeq_n_u32(V_ALL, seen, 0), v_set(-__builtin_inff()), s);
}

#endif
