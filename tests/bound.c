/* bound.c: error bounds of attention from rounding analysis. */
/* clang-format off */
/* Engines. f32 data: f32 arithmetic, one rounding u = 2^-24 per step of a sum in any order, or a split that is
 * no worse. Half data (f16, bf16): products are exact in f32, but matrix units truncate when they align the
 * terms of a group: with k terms in a group an error of at most (k + 1) 2^-23 of the largest term (Fasi,
 * Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021). With k >= 4 that is 1.25
 * steps of ua = 2^-23 per term; f32 engines: ua = u, 1 step. gamma(n) = n ua / (1 - n ua) bounds n such steps
 * relative to the sum of magnitudes.
 *
 * Score of key j, absolute error e_s:
 *     gamma(1.25 D + 2) |scale| sum |q k|     the dot product; 0 when its sums are exact
 *   + |scale| sum |q k| of products with an element below 2^-14, in f16 on gfx90a, whose matrix units take it for 0
 *   + |scale| fixed(max |q|) sum |k|          I8 keys and half queries: q in 16-bit fixed point
 *   + 4 u |scale dot|                         scale in f32, its product, log2(e) folded in
 *   + 8 u softcap                             tanh; its slope is at most 1, so the error before it passes through
 *   + 3 u (|bias| + |alibi|) + 2 u |s|        the added terms and the stored score
 * A bias beside which the product is less than u |bias| / 4 is the score, to every engine; where it is the row's
 * maximum, as in a row of equal ones, there is no other error: |scale dot|, or 0 where f64 loses it too
 *
 * Weight exp(s - m), relative error expm1(e), e = e_s + 4 u |s - m| + 8 u + 10 u R:
 *     4 u |s - m|   the subtraction and the base-2 exponent
 *     8 u           the exponential itself
 *     10 u R        R rescales by exp(m_old - m_new), whose exponents add up to at most |s - m|. A rescale needs a new
 *                   maximum, and the maxima that an engine meets form an increasing subsequence of the scores in its
 *                   direction through the keys: R is the longest one, forwards or backwards, + 2 for merges.
 *
 * Denominator, relative error S = sum p_j expm1(e_j) + (the same of the sink) + gamma(1.25 n + R).
 *
 * Numerator of channel d, divided by the total, with A_d = sum p_j |v_jd|:
 *     N_d = sum p_j |v_jd| (expm1(e_j) (1 + up) + up) + gamma(1.25 n + R) A_d + floor sum |v_jd| / total
 *     up: P is rounded to q's dtype before PV (0 for f32); floor: the absolute error of a small P, half of the smallest
 *     f16 number, or a flush below 2^-126.
 *
 *     f16 on gfx90a: + sum p_j |v_jd| of values below 2^-14, as above
 *
 *     I8 values and half queries: weights times scales in 16-bit fixed point, relative to the largest of them among the
 *     visible keys of an aligned group of 64 keys: + sum over groups of fixed(max p_i scale_i) sum |integer v_jd|
 *     fixed(x) = 0.51 x / 32766, half a unit and the roundings on the way to it; of q over more than 512 channels twice
 *     as much (docs/decisions/0009). In f16 on GPUs a product is an f16 number relative to a power of two:
 *     + 2^-29 (largest p) (largest scale) sum |integer v_jd|
 *
 *     The CPU's kernels keep the weights of I8 values so or in f32 (up = 0, floor = 2^-126), and sum in f32 or exactly
 *     (ua = u, 1 step a term, and 1 more for a scale that belongs to a term), whatever the dtype of q.
 *
 *     f32 on sm_90a: + what small weights lose, see small_weight_error()
 *
 * Quotient: (N_d + |out| S) / (1 - S) + 3 u |out|, then the rounding to out's dtype. It never exceeds max |v| + |out|,
 * because an average of values stays between them.
 *
 * lse = m + log(total): -log(1 - S) + 4 u + 2 u |lse| + 2 u |m|; at most the largest e_j, as lse moves no more than the
 * scores do.
 *
 * Weights output: p ((expm1(e_j) + S) / (1 - S) + 2 u |lse|), its rounding and its floor; of hidden keys exactly 0.
 * Empty rows: exactly 0, and lse exactly -inf. */
/* clang-format on */
#include "bound.h"
#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double u = 0x1p-24, smallest_normal = 0x1p-126, smallest_f16 = 0x1p-14;

double unit_roundoff(int64_t dtype)
{
    return dtype == RAPT_F16 ? 0x1p-11 : dtype == RAPT_BF16 ? 0x1p-8 : u;
}

double subnormal_error(int64_t dtype)
{
    return dtype == RAPT_F16 ? 0x1p-25 : smallest_normal;
}

double gamma_bound(double n, double unit)
{
    return n * unit < 0.5 ? n * unit / (1 - n * unit) : 1;
}

struct engine engine_of(const rapt_device_info *device)
{
    return (struct engine){.cpu = !strcmp(device->backend, "cpu"),
                           .flushes = !strcmp(device->arch, "gfx90a"),
                           .halves = !strncmp(device->arch, "sm_90", 5)};
}

struct rounding rounding_of(const rapt_attention *a, int exact, struct engine engine)
{
    bool i8 = engine.cpu && a->k.dtype == RAPT_I8 && a->v.dtype == RAPT_I8,
         half = !i8 && (a->q.dtype == RAPT_F16 || a->q.dtype == RAPT_BF16);
    return (struct rounding){.accumulate = half ? 1.25 * 0x1p-23 : u,
                             .weight = half ? unit_roundoff(a->q.dtype) : 0,
                             .weight_floor = i8 ? smallest_normal : subnormal_error(a->q.dtype),
                             .scaled = i8,
                             .output = unit_roundoff(a->out.dtype),
                             .output_floor = subnormal_error(a->out.dtype),
                             .weights_output = unit_roundoff(a->weights.dtype),
                             .weights_floor = subnormal_error(a->weights.dtype),
                             .least = engine.flushes && a->q.dtype == RAPT_F16 ? smallest_f16 : 0,
                             .small = engine.halves && a->q.dtype == RAPT_F32 ? 0x1p-9 : 0,
                             .product_floor = !engine.cpu && a->q.dtype == RAPT_F16 ? 0x1p-29 : 0,
                             .zeros = engine.cpu,
                             .exact = exact};
}

bool row_bound_open(struct row_bound *bound, const struct oracle *o)
{
    size_t n = (size_t)o->capacity + 1;
    bound->out = malloc(sizeof(double) * (size_t)(o->v_channels + 1));
    bound->weights = malloc(sizeof(double) * n);
    bound->error = malloc(sizeof(double) * n);
    bound->pile = malloc(sizeof(double) * n);
    bound->small = malloc(sizeof(double) * (size_t)(o->v_channels + 1));
    if (bound->out && bound->weights && bound->error && bound->pile && bound->small) return true;
    row_bound_close(bound);
    return false;
}

void row_bound_close(struct row_bound *bound)
{
    free(bound->out);
    free(bound->weights);
    free(bound->error);
    free(bound->pile);
    free(bound->small);
    memset(bound, 0, sizeof *bound);
}

/* Length of the longest increasing subsequence of the visible scores, forwards (step 1) or
 * backwards (step -1), by patience sorting: pile[i] is the smallest end of a subsequence of length
 * i + 1. */
static int64_t longest_rise(const struct oracle_row *row, int step, double *pile)
{
    int64_t length = 0;
    for (int64_t n = 0, j = step > 0 ? 0 : row->columns - 1; n < row->columns; n++, j += step) {
        if (!row->seen[j]) continue;
        int64_t low = 0, high = length;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (pile[middle] < row->score[j]) low = middle + 1;
            else high = middle;
        }
        pile[low] = row->score[j];
        if (low == length) length++;
    }
    return length;
}

/* Half queries over I8 keys and values: a kernel may take 16-bit integers. */
static bool fixed_point(const rapt_attention *a)
{
    return (a->q.dtype == RAPT_F16 || a->q.dtype == RAPT_BF16) && a->k.dtype == RAPT_I8 &&
           a->v.dtype == RAPT_I8;
}

static double fixed_error(double largest)
{
    return 0.51 * largest / 32766;
}

static double query_error(const struct oracle *o, int64_t j)
{
    double largest = 0, keys = 0;
    for (int64_t c = 0; c < o->qk_channels; c++) {
        largest = fmax(largest, fabs(o->q[c]));
        keys += fabs(o->k[j * o->qk_channels + c]);
    }
    return fabs(o->scale) * keys * fixed_error(largest) * (o->qk_channels > 512 ? 2 : 1);
}

/* Of the products of key j that have an element which may count as 0. */
static double flushed_products(const struct oracle *o, int64_t j, double least)
{
    double sum = 0;
    for (int64_t c = 0; c < o->qk_channels; c++) {
        double q = fabs(o->q[c]), k = fabs(o->k[j * o->qk_channels + c]);
        if (q < least || k < least) sum += q * k;
    }
    return fabs(o->scale) * sum;
}

/* Of the numerator of channel d. */
static double weight_error(const struct oracle *o, const struct oracle_row *row, int64_t d)
{
    enum { GROUP = 64 };
    double sum = 0;
    for (int64_t j0 = 0; j0 < row->columns; j0 += GROUP) {
        double largest = 0, integers = 0;
        for (int64_t j = j0; j < j0 + GROUP && j < row->columns; j++) {
            double unit = fabs(o->v_unit[j * o->v_channels + d]);
            if (!row->seen[j] || unit <= 0) continue;
            largest = fmax(largest, row->p[j] * unit);
            integers += fabs(row->v[j * o->v_channels + d]) / unit;
        }
        sum += fixed_error(largest) * integers;
    }
    return sum;
}

/* Of the numerator of channel d, in f16 on GPUs: a weight times its value's scale may be lost below the
 * share r->product_floor of the largest weight times the largest scale. */
static double lost_products(const struct oracle *o, const struct oracle_row *row, double share,
                            int64_t d)
{
    double weight = 0, scale = 0, integers = 0;
    for (int64_t j = 0; j < row->columns; j++) {
        double unit = fabs(o->v_unit[j * o->v_channels + d]);
        if (!row->seen[j] || unit <= 0) continue;
        weight = fmax(weight, row->p[j]);
        scale = fmax(scale, unit);
        integers += fabs(row->v[j * o->v_channels + d]) / unit;
    }
    return share * weight * scale * integers;
}

static double largest_value(const struct oracle *o, const struct oracle_row *row, int64_t j)
{
    double most = 0;
    for (int64_t d = 0; d < o->v_channels; d++) {
        double v = fabs(row->v[j * o->v_channels + d]);
        if (v < INFINITY) most = fmax(most, v);
    }
    return most;
}

/* Of the numerators, in f32 on sm_90a: a weight times the power of two of its row of values, w, is a sum
 * of two f16 parts, which hold it to 2^-32 of the largest w, and to 2^-9 of itself at least. That
 * power lies in most / 2 ... 8 most of the row's largest value. Weights from 2^-10 of the largest w on keep
 * all bits. (docs/decisions/0007) */
static void small_weight_error(const struct oracle *o, const struct oracle_row *row,
                               double relative, double *error)
{
    double largest = 0;
    memset(error, 0, sizeof *error * (size_t)o->v_channels);
    for (int64_t j = 0; j < row->columns; j++)
        if (row->seen[j]) largest = fmax(largest, row->p[j] * largest_value(o, row, j));
    for (int64_t j = 0; j < row->columns; j++) {
        double most = row->seen[j] ? largest_value(o, row, j) : 0;
        if (!(most > 0) || row->p[j] * most > 0x1p-6 * largest) continue;
        for (int64_t d = 0; d < o->v_channels; d++)
            error[d] += fabs(row->v[j * o->v_channels + d]) *
                        fmin(relative * row->p[j], 0x1p-28 * largest / most);
    }
}

static double score_error(const struct oracle *o, const struct oracle_row *row,
                          const struct rounding *r, int64_t j)
{
    double steps = (double)o->qk_channels + 2 + r->scaled, e = 3 * u * row->added[j];
    double product = fabs(row->product[j]), score = fabs(row->score[j]);
    if (product < u * row->added[j] / 4 && score >= row->added[j] &&
        row->score[j] >= row->maximum) /* f32 loses the product, and f64 may too */
        return product < 0x1p-54 * score ? 0 : product;
    if (!r->exact) e += gamma_bound(steps, r->accumulate) * row->magnitude[j];
    if (r->exact < 2) e += 4 * u * fabs(row->product[j]) + 2 * u * fabs(row->score[j]);
    if (r->least > 0) e += flushed_products(o, j, r->least);
    if (fixed_point(o->a)) e += query_error(o, j);
    if (o->a->softcap > 0) e += 8 * u * o->a->softcap;
    return e + fabs(o->scale) * (double)o->qk_channels * 0x1p-120;
}

/* Fills bound->error with the relative errors of the weights and returns S. *largest: the largest
 * absolute exponent error. */
static double weight_errors(const struct oracle *o, const struct oracle_row *row,
                            const struct rounding *r, struct row_bound *bound, double *sums,
                            double *largest)
{
    int64_t forwards = longest_rise(row, 1, bound->pile),
            backwards = longest_rise(row, -1, bound->pile);
    double rescales = (double)(forwards > backwards ? forwards : backwards) + 2,
           n = (double)row->visible;
    double fixed = 8 * u + 10 * u * rescales, total = 0;
    *sums = gamma_bound(n + rescales + r->scaled, r->accumulate);
    *largest = 0;
    for (int64_t j = 0; j < row->columns; j++) {
        bound->error[j] = 0;
        if (!row->seen[j] || row->score[j] == -INFINITY) continue;
        double e = score_error(o, row, r, j) + 4 * u * fabs(row->score[j] - row->maximum) + fixed;
        if (e > *largest && row->p[j] > 0) *largest = e;
        bound->error[j] = e < 700 ? expm1(e) : INFINITY;
        if (row->p[j] > 0) total += row->p[j] * bound->error[j];
    }
    if (row->sink != -INFINITY) {
        double e = 2 * u * fabs(row->sink) + 4 * u * fabs(row->sink - row->maximum) + fixed;
        total += exp(row->sink - row->maximum) / row->total * expm1(e);
        if (e > *largest) *largest = e;
    }
    return total + *sums + n * smallest_normal / row->total;
}

static void bound_out(const struct oracle *o, const struct oracle_row *row,
                      const struct rounding *r, double s, double sums, struct row_bound *bound)
{
    int64_t channels = o->v_channels;
    if (r->small > 0) small_weight_error(o, row, r->small, bound->small);
    for (int64_t d = 0; d < channels; d++) {
        double numerator = r->small > 0 ? bound->small[d] : 0, average = 0, all = 0, most = 0;
        for (int64_t j = 0; j < row->columns; j++) {
            if (!row->seen[j]) continue;
            double v = fabs(row->v[j * channels + d]);
            if (row->p[j] > 0)
                numerator += row->p[j] * v * (bound->error[j] * (1 + r->weight) + r->weight);
            if (v < r->least) numerator += row->p[j] * v;
            average += row->p[j] * v;
            all += v;
            if (v > most) most = v;
        }
        double out = fabs(row->out[d]), e = INFINITY;
        if (fixed_point(o->a)) numerator += weight_error(o, row, d);
        if (fixed_point(o->a) && r->product_floor > 0)
            numerator += lost_products(o, row, r->product_floor, d);
        numerator += sums * average + r->weight_floor * all / row->total;
        if (s < 0.5) e = (numerator + out * s) / (1 - s) + 3 * u * out;
        if (!(e < most + out)) e = most + out;
        bound->out[d] = e + r->output * (out + e) + r->output_floor +
                        (2 + (double)row->visible / row->total) * smallest_normal;
    }
}

void bound_row(const struct oracle *o, const struct oracle_row *row, const struct rounding *r,
               struct row_bound *bound)
{
    double sums, largest;
    bool empty = row->maximum == -INFINITY;
    if (empty || !row->visible) { /* nothing is computed: zeros, and the sink */
        memset(bound->out, 0, sizeof(double) * (size_t)o->v_channels);
        memset(bound->weights, 0, sizeof(double) * (size_t)row->columns);
        bound->lse = empty ? 0 : 4 * u * (1 + fabs(row->sink));
        return;
    }
    double s = weight_errors(o, row, r, bound, &sums, &largest);
    double total_error = s < 0.5 ? -log1p(-s) : INFINITY;
    if (!(total_error < largest + sums)) total_error = largest + sums;
    bound->lse = total_error + u * (4 + 2 * fabs(row->lse) + 2 * fabs(row->maximum));
    bound_out(o, row, r, s, sums, bound);
    for (int64_t j = 0; j < row->columns; j++) {
        double e =
            s < 0.5 && row->p[j] > 0 ? (bound->error[j] + s) / (1 - s) + 2 * u * fabs(row->lse) : 1;
        if (e > 1) e = 1 / (row->p[j] > 0 ? row->p[j] : 1);
        bound->weights[j] =
            row->seen[j]
                ? row->p[j] * (e * (1 + r->weights_output) + r->weights_output) + r->weights_floor
                : 0;
    }
}

void accuracy_note(struct accuracy *result, double got, double want, double bound, int64_t dtype,
                   const char *name, const int64_t at[4])
{
    double error = fabs(got - want), fraction = error <= 0 ? 0 : error / bound;
    result->elements++;
    if (want == got) fraction = 0; /* infinities too */
    if (isnan(want)) fraction = isfinite(got) ? INFINITY : 0;
    if (isinf(want) && got != want) fraction = isfinite(got) ? INFINITY : 0;
    if (isfinite(want) && !isfinite(got)) {
        bool overflow = dtype == RAPT_F16 && isinf(got) && fabs(want) + bound >= 65520 &&
                        (got > 0) == (want > 0);
        fraction = overflow ? 0 : INFINITY;
    }
    if (!strcmp(name, "out")) {
        double most = fraction <= 0 && !isfinite(error) ? 0 : isnan(error) ? INFINITY : error;
        if (most > result->max_abs) result->max_abs = most;
        if (isfinite(want) && fabs(want) > result->max_want) result->max_want = fabs(want);
    }
    if (fraction <= result->worst) return;
    result->worst = fraction;
    result->got = got;
    result->want = want;
    result->bound = bound;
    snprintf(result->where, sizeof result->where, "%s[%lld,%lld,%lld,%lld]", name, (long long)at[0],
             (long long)at[1], (long long)at[2], (long long)at[3]);
}
