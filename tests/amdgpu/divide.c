/* The division helpers v_div_scale, v_div_fmas and v_div_fixup, after the pseudo code of the RDNA3
 * ISA document. */
#include <math.h>

#include "lanes.h"

struct format {
    int bias_top;    /* largest biased exponent */
    int far;         /* exponent distance from which the denominator is scaled */
    int tiny;        /* biased numerator exponent up to which everything is scaled */
    int step;        /* power of two of the scaling */
    int underflow;   /* exponent distance that gives zero */
    double smallest; /* smallest normal number */
};
static const struct format single = {255, 96, 23, 64, -150, 0x1p-126};
static const struct format twice = {2047, 768, 53, 128, -1075, 0x1p-1022};

static int biased_exponent(double x, const struct format *f)
{
    if (f == &single) return (int)(as_bits((float)x) >> 23 & 0xff);
    return (int)(as_bits64(x) >> 52 & 0x7ff);
}

static bool subnormal(double x, const struct format *f)
{
    return x != 0 && fabs(x) < f->smallest;
}

static double quotient(double a, double b, const struct format *f)
{
    return f == &single ? (double)((float)a / (float)b) : a / b;
}

static double scaled(double s0, double s1, double s2, const struct format *f, bool *flag)
{
    bool denominator = s0 == s1;
    *flag = false;
    if (s2 == 0 || s1 == 0) return NAN;
    if (biased_exponent(s2, f) - biased_exponent(s1, f) >= f->far) {
        *flag = true;
        return denominator ? ldexp(s0, f->step) : s0;
    }
    if (subnormal(s1, f)) return ldexp(s0, f->step);
    bool tiny_reciprocal = subnormal(quotient(1.0, s1, f), f),
         tiny_result = subnormal(quotient(s2, s1, f), f);
    if (tiny_reciprocal && tiny_result) { /* the document scales up here, which would overflow;
                                             v_div_fmas undoes a scaling down */
        *flag = true;
        return denominator ? ldexp(s0, -f->step) : s0;
    }
    if (tiny_reciprocal) return ldexp(s0, -f->step);
    if (tiny_result) {
        *flag = true;
        return s0 == s2 ? ldexp(s0, f->step) : s0;
    }
    return biased_exponent(s2, f) <= f->tiny ? ldexp(s0, f->step) : s0;
}

static double get(const uint32_t *row, int l, bool wide)
{
    return wide ? as_double(row[l] | (uint64_t)row[l + ROW] << 32) : (double)as_float(row[l]);
}

static void put(uint32_t *row, int l, bool wide, double x)
{
    row[l] = wide ? (uint32_t)as_bits64(x) : as_bits((float)x);
    if (wide) row[l + ROW] = (uint32_t)(as_bits64(x) >> 32);
}

static void exec_div_scale(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 2, 0), *b = fetch(w, in, 3, 1), *c = fetch(w, in, 4, 2);
    bool wide = in->param;
    uint64_t mask = 0, undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        bool flag;
        double r = scaled(get(a, l, wide), get(b, l, wide), get(c, l, wide),
                          wide ? &twice : &single, &flag);
        put(w->tmp[4], l, wide, r);
        mask |= (uint64_t)flag << l;
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, w->tmp[4]);
    write_lane_mask(w, &in->op[1], mask & w->exec);
    mark_lane_mask(w, &in->op[1], undef & w->exec);
}

static void exec_div_fmas(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1), *c = fetch(w, in, 3, 2);
    bool wide = in->param;
    uint64_t vcc = w->s[S_VCC] | (w->n == 64 ? (uint64_t)w->s[S_VCC + 1] << 32 : 0);
    uint64_t undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        double x = get(a, l, wide), y = get(b, l, wide), z = get(c, l, wide);
        double r = wide ? fma(x, y, z) : (double)fmaf((float)x, (float)y, (float)z);
        int step = wide ? 128 : 64;
        if (vcc >> l & 1) r = ldexp(r, fabs(z) >= 2 ? step : -step);
        put(w->tmp[4], l, wide, r);
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, w->tmp[4]);
}

static double fixed_up(double q, double d, double n, const struct format *f)
{
    double sign = signbit(d) != signbit(n) ? -1.0 : 1.0;
    if (isnan(n)) return n;
    if (isnan(d)) return d;
    if ((d == 0 && n == 0) || (isinf(d) && isinf(n))) return -NAN;
    if (d == 0 || isinf(n)) return sign * INFINITY;
    if (isinf(d) || n == 0) return sign * 0.0;
    if (biased_exponent(n, f) - biased_exponent(d, f) < f->underflow) return sign * 0.0;
    return copysign(q, sign);
}

static void exec_div_fixup(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1), *c = fetch(w, in, 3, 2);
    bool wide = in->param == 1, half = in->param == 2;
    uint64_t undef = undefined_lanes(w, in);
    for (int l = 0; l < w->n; l++) {
        double x[3];
        const uint32_t *src[] = {a, b, c};
        for (int i = 0; i < 3; i++)
            x[i] = half ? (double)half_to_float(src[i][l] & 0xffff) : get(src[i], l, wide);
        double r = fixed_up(x[0], x[1], x[2], wide ? &twice : &single);
        if (half) w->tmp[4][l] = float_to_half((float)r);
        else put(w->tmp[4], l, wide, r);
    }
    set_undefined(w, &in->vwrite[0], w->exec, undef);
    finish_row(w, in, w->tmp[4]);
}

static const struct op_row rows[] = {
    {"v_div_scale_f32", exec_div_scale, NULL, "FM:FFF", OPF_VALU | OPF_TWO_DST, 0},
    {"v_div_scale_f64", exec_div_scale, NULL, "DM:DDD", OPF_VALU | OPF_TWO_DST, 1},
    {"v_div_fmas_f32", exec_div_fmas, NULL, "F:FFF", OPF_VALU | OPF_READS_VCC, 0},
    {"v_div_fmas_f64", exec_div_fmas, NULL, "D:DDD", OPF_VALU | OPF_READS_VCC, 1},
    {"v_div_fixup_f32", exec_div_fixup, NULL, "F:FFF", OPF_VALU, 0},
    {"v_div_fixup_f64", exec_div_fixup, NULL, "D:DDD", OPF_VALU, 1},
    {"v_div_fixup_f16", exec_div_fixup, NULL, "H:HHH", OPF_VALU, 2},
};

const struct op_table ops_divide = {rows, sizeof rows / sizeof *rows};
