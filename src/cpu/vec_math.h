/* vec_math.h: exponentials and tanh over a vector vocabulary (vec_*.h, included before this file).
 * The polynomial is 2^u on [-1/2, 1/2], minimax in relative error (Lawson's algorithm, constant
 * term 1): 7.9e-8. */
#ifndef RAPT_CPU_VEC_MATH_H
#define RAPT_CPU_VEC_MATH_H

#define LOG2_E 1.44269504088896341f
#define LN_2   0.69314718055994531f

/* (2^u - 1) / u for |u| <= 1/2 */
VEC vec v_exp2_slope(vec u)
{
    vec p = v_set(1.535336188319500e-4f);
    p = v_fma(p, u, v_set(1.339887440266574e-3f));
    p = v_fma(p, u, v_set(9.618437357674640e-3f));
    p = v_fma(p, u, v_set(5.550332471162809e-2f));
    p = v_fma(p, u, v_set(2.402264791363012e-1f));
    return v_fma(p, u, v_set(6.931472028550421e-1f));
}

/* 2^x: exact at 0, 0 at -inf, NaN at NaN. */
VEC vec v_exp2(vec x)
{
    vec n = v_round(x), u = v_sub(x, n);
    return v_scale2(v_fma(v_exp2_slope(u), u, v_set(1)), n);
}

/* Steps over some vectors at once must be unrolled, or the vectors live in memory. */
#if defined(__clang__)
#define V_EACH(i, count) _Pragma("clang loop unroll(full)") for (int i = 0; i < (count); i++)
#else
#define V_EACH(i, count) _Pragma("GCC unroll 8") for (int i = 0; i < (count); i++)
#endif

/* Of (2^u - 1) / u, highest power first: on [0, 1), to 1.5e-7 and 2.9e-6, where V_REDUCES; else on [-1/2, 1/2]. */
#ifdef V_REDUCES
#define V_EXP2_F32_TERMS  1.86713e-3f, 9.017031e-3f, 5.5799913e-2f, 2.4016444e-1f, 6.931513e-1f
#define V_EXP2_HALF_TERMS 1.3426684e-2f, 5.2242473e-2f, 2.412802e-1f, 6.9304484e-1f
#else
#define V_EXP2_F32_TERMS                                                                           \
    1.326472707e-3f, 9.671512649e-3f, 5.550733744e-2f, 2.402224209e-1f, 6.931469776e-1f
#define V_EXP2_HALF_TERMS 9.582852994e-3f, 5.590642474e-2f, 2.402409861e-1f, 6.931241934e-1f
#endif

/* 2^x of up to 8 vectors, to 1.7e-7, or half: to 2.9e-6, for what f16 or bf16 will hold, and 0 where
 * 2^x is subnormal (v_scale2_normal); for x below 127.5. From there on 2^x or infinity, as the level
 * has it; otherwise as v_exp2. Each operation of all vectors comes before the next, so that their long
 * chains fill each other's waits. */
VEC void v_exp2_several(vec *x, int count, int half)
{
    vec n[8], p[8], given[8];
#ifdef V_REDUCES
    V_EACH(i, count) n[i] = given[i] = x[i];
    V_EACH(i, count) x[i] = v_rest(x[i]);
#else
    V_EACH(i, count) n[i] = v_round(given[i] = x[i]);
    V_EACH(i, count) x[i] = v_sub(x[i], n[i]);
#endif
    if (half) {
        static const float c[4] = {V_EXP2_HALF_TERMS};
        V_EACH(i, count) p[i] = v_fma(v_set(c[0]), x[i], v_set(c[1]));
        V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(c[2]));
        V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(c[3]));
    } else {
        static const float c[5] = {V_EXP2_F32_TERMS};
        V_EACH(i, count) p[i] = v_fma(v_set(c[0]), x[i], v_set(c[1]));
        V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(c[2]));
        V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(c[3]));
        V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(c[4]));
    }
    V_EACH(i, count) p[i] = v_fma(p[i], x[i], v_set(1));
    V_EACH(i, count) x[i] = v_scale2_normal(p[i], n[i], given[i]);
}

VEC vec v_exp2_f32(vec x)
{
    v_exp2_several(&x, 1, 0);
    return x;
}

VEC vec v_exp2_half(vec x)
{
    v_exp2_several(&x, 1, 1);
    return x;
}

/* e^x, with the reduction in two steps (Cody and Waite) so that large |x| keeps its last bits. Below -128,
 * where f32 has 0, n would be so coarse that what is left overflows; NaN stays. */
VEC vec v_exp(vec x)
{
    x = v_max(v_set(-128), x);
    vec n = v_round(v_mul(x, v_set(LOG2_E)));
    vec r = v_fnma(n, v_set(0.693359375f), x);
    vec u = v_mul(v_fnma(n, v_set(-2.12194440e-4f), r), v_set(LOG2_E));
    return v_scale2(v_fma(v_exp2_slope(u), u, v_set(1)), n);
}

/* tanh x = m / (m + 2), m = e^(2|x|) - 1 without cancellation. */
VEC vec v_tanh(vec x)
{
    vec y = v_min(v_set(40 * LOG2_E), v_mul(v_abs(x), v_set(2 * LOG2_E)));
    vec n = v_round(y), u = v_sub(y, n), power = v_scale2(v_set(1), n);
    vec m = v_fma(power, v_mul(v_exp2_slope(u), u), v_sub(power, v_set(1)));
    return v_copysign(v_div(m, v_add(m, v_set(2))), x);
}

#endif
