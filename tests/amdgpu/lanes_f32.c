/* f32 arithmetic over lanes. Transcendentals are evaluated in f64 and rounded once: the hardware is
 * allowed 1 ulp. */
#include <math.h>

#include "lanes.h"

/* v_exp, v_log, v_rcp, v_rsq and v_sqrt treat subnormal inputs and results as zero. */
static inline float flush(float x)
{
    return as_float((as_bits(x) & 0x7f800000) == 0 ? as_bits(x) & 0x80000000 : as_bits(x));
}

static inline float median(float a, float b, float c)
{
    float low = min_num(a, b), high = max_num(a, b);
    float r = max_num(low, min_num(high, c));
    return (a != a || b != b || c != c) ? min_num(low, c) : r;
}

static inline float fraction(float a)
{
    float r = a - __builtin_floorf(a);
    return r >= 1.0f ? 0x1.fffffep-1f : r;
}

/* 2^x. Split at the nearest integer; the Taylor series of 2^f on [-1/2, 1/2] to degree 10 has error
 * below 2e-13. */
static inline float exp2_rounded(float a)
{
    double x = a > 200.0f ? 200.0 : a < -200.0f ? -200.0 : (double)a;
    x = a != a ? 0.0 : x;
    double shifted = x + 0x1.8p52, whole = shifted - 0x1.8p52;
    double f = (x - whole) * 0.69314718055994530942;
    double p = 1.0 / 3628800;
    p = p * f + 1.0 / 362880;
    p = p * f + 1.0 / 40320;
    p = p * f + 1.0 / 5040;
    p = p * f + 1.0 / 720;
    p = p * f + 1.0 / 120;
    p = p * f + 1.0 / 24;
    p = p * f + 1.0 / 6;
    p = p * f + 0.5;
    p = p * f + 1.0;
    p = p * f + 1.0;
    uint64_t power = (as_bits64(shifted) + 1023) << 52;
    float r = flush((float)(p * as_double(power)));
    return a != a ? a : r;
}

/* log2 x by the series of artanh((m-1)/(m+1)), m in [sqrt(1/2), sqrt 2); error below 1e-14. */
static inline float log2_rounded(float a)
{
    float x = flush(a);
    uint32_t bits = as_bits(x);
    int32_t e = (int32_t)((bits - 0x3f3504f3u) & 0xff800000) >> 23;
    double m = (double)as_float(bits - ((uint32_t)e << 23));
    double s = (m - 1) / (m + 1), q = s * s, p = 1.0 / 17;
    p = p * q + 1.0 / 15;
    p = p * q + 1.0 / 13;
    p = p * q + 1.0 / 11;
    p = p * q + 1.0 / 9;
    p = p * q + 1.0 / 7;
    p = p * q + 1.0 / 5;
    p = p * q + 1.0 / 3;
    p = p * q + 1.0;
    float r = (float)(2.8853900817779268 * s * p + (double)e);
    r = x == INFINITY ? INFINITY : r;
    r = x < 0 ? NAN : r;
    r = x == 0 ? -INFINITY : r;
    return a != a ? a : r;
}

static inline float reciprocal(float a)
{
    return flush(1.0f / flush(a));
}

static inline float sine_turns(float a)
{
    double x = (double)a - floor((double)a);
    return isinf(a) ? NAN : (float)sin(6.283185307179586476925 * x);
}

static inline float cosine_turns(float a)
{
    double x = (double)a - floor((double)a);
    return isinf(a) ? NAN : (float)cos(6.283185307179586476925 * x);
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

static inline float scale(float a, int32_t b)
{
    return ldexpf(a, b > 1000 ? 1000 : b < -1000 ? -1000 : b);
}

#define LANE_DEF "lanes_f32.def"
#include "lanes_gen.h"

const struct op_table ops_f32 = {rows, sizeof rows / sizeof *rows};

/* gfx12's transcendentals on scalars: the vector operation on one value. */
static void exec_pseudo_scalar(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0);
    uint64_t undef = undefined_lanes(w, in);
    uint32_t *r = w->tmp[4];
    memset(w->tmp[3], 0xff, ROW * 4);
    ((lane_fn *)in->row->fn)(r, a, a, a, w->tmp[3], 32);
    write_scalar(w, &in->op[0], r[0]);
    if (in->op[0].kind == OPK_SGPR) mark_scalar(w, in->op[0].reg, undef ? ~0u : 0);
}

#define PSEUDO(name)                                                                               \
    {                                                                                              \
        "v_s_" #name, exec_pseudo_scalar, (void (*)(void))lane_##name, "F:F", OPF_VALU, 0          \
    }
static const struct op_row pseudo[] = {PSEUDO(exp_f32), PSEUDO(log_f32), PSEUDO(rcp_f32),
                                       PSEUDO(rsq_f32), PSEUDO(sqrt_f32)};

const struct op_table ops_pseudo_scalar = {pseudo, sizeof pseudo / sizeof *pseudo};
