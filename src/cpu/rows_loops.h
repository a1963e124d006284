/* rows_loops.h: the kernels of row_kernels.h over a vector vocabulary; included once per instruction set after vec_*.h.
 * The including file defines ROWS_NAME (the table) and ROWS_TEXT (its name), and for what its vocabulary lacks
 * ROWS_WITHOUT_STREAM (stores past the caches), ROWS_WITHOUT_FMA, ROWS_WITHOUT_SHUFFLES (v_swap_pairs ...) and
 * ROWS_LIBM_ANGLES (angles by cos and sin). */
#include "cpu/dtype_cases.h"
#include "cpu/row_kernels.h"
#include "cpu/vec_math.h"

#include <math.h>
#include <string.h>

VEC const char *at(const void *p, int dtype, int64_t i)
{
    return (const char *)p + i * (dtype == RAPT_F32 ? 4 : 2);
}

VEC vec load_row_part(const void *p, int dtype, int64_t i, int64_t n)
{
    return n - i >= LANES ? v_load(at(p, dtype, i), dtype)
                          : v_load_part(at(p, dtype, i), dtype, n - i);
}

VEC void store_row_part(void *p, int dtype, vec x, int64_t i, int64_t n)
{
    char *to = (char *)p + (at(p, dtype, i) - (const char *)p);
    if (n - i >= LANES) v_store(to, dtype, x);
    else v_store_part(to, dtype, x, n - i);
}

#ifdef ROWS_WITHOUT_STREAM
VEC void v_store_two(void *p, int dtype, vec a, vec b, int stream)
{
    (void)stream;
    v_store(p, dtype, a);
    v_store((char *)p + LANES * (dtype == RAPT_F32 ? 4 : 2), dtype, b);
}
#endif

#ifndef V_HAS_PAIRS
VEC void v_load_two(const void *p, int dtype, vec *a, vec *b)
{
    *a = v_load(p, dtype);
    *b = v_load(at(p, dtype, LANES), dtype);
}
#endif

/* Whether vectors from p on may bypass the caches. */
static int streamable(const void *p, int64_t step)
{
    return (uintptr_t)p % 64 == 0 && step % 64 == 0;
}

/* ---- softmax ---- */

VEC float row_largest(const void *from, int dtype, int64_t n)
{
    vec m0 = v_set(-INFINITY), m1 = m0;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec x, y;
        v_load_two(at(from, dtype, i), dtype, &x, &y);
        m0 = v_max(x, m0);
        m1 = v_max(y, m1);
    }
    for (; i < n; i += LANES) {
        vec x = load_row_part(from, dtype, i, n);
        m0 = v_max(v_keep(x, 0, (int)(n - i < LANES ? n - i : LANES), v_set(-INFINITY)), m0);
    }
    return v_largest(v_max(m0, m1));
}

/* e^(x - m), at first up to a factor near 1 that all terms share and the sum takes out: the
 * rounding of m log2(e), below 1/2 while |m| is below NEAR; x log2(e) must not be rounded for that.
 * Farther off the difference comes first. */
#define NEAR 4e6f

/* 2^x of a row that will be rounded to dtype. */
VEC vec guessed_term(vec x, int dtype)
{
    return dtype == RAPT_F32 ? v_exp2_f32(x) : v_exp2_half(x);
}

VEC vec term(vec x, vec shift, vec m, int near)
{
    return near ? v_exp2(v_fma(x, v_set(LOG2_E), shift)) : v_exp(v_sub(x, m));
}

/* The sum of the terms; keeps them in scratch where there is one. */
VEC float row_terms(const void *from, int dtype, int64_t n, float m, float *scratch, int near)
{
    vec s0 = v_zero(), s1 = v_zero(), top = v_set(m), shift = v_set(-m * LOG2_E);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec x, y;
        v_load_two(at(from, dtype, i), dtype, &x, &y);
        x = term(x, shift, top, near);
        y = term(y, shift, top, near);
        s0 = v_add(s0, x);
        s1 = v_add(s1, y);
        if (scratch) v_store(scratch + i, RAPT_F32, x), v_store(scratch + i + LANES, RAPT_F32, y);
    }
    for (; i < n; i += LANES) {
        vec x = term(load_row_part(from, dtype, i, n), shift, top, near);
        s0 = v_add(s0, v_keep(x, 0, (int)(n - i < LANES ? n - i : LANES), v_zero()));
        if (scratch) store_row_part(scratch, RAPT_F32, x, i, n);
    }
    return v_sum(v_add(s0, s1));
}

VEC float row_sum(const void *from, int dtype, int64_t n, float m, float *scratch)
{
#ifndef ROWS_WITHOUT_FMA
    if (m < NEAR && m > -NEAR) return row_terms(from, dtype, n, m, scratch, 1);
#endif
    return row_terms(from, dtype, n, m, scratch, 0);
}

VEC void row_scale_as(void *to, int dtype, const float *x, int64_t n, float factor, int stream)
{
    vec f = v_set(factor);
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        v_store_two((char *)to + (at(to, dtype, i) - (const char *)to), dtype,
                    v_mul(v_load(x + i, RAPT_F32), f), v_mul(v_load(x + i + LANES, RAPT_F32), f),
                    stream);
    for (; i < n; i += LANES)
        store_row_part(to, dtype, v_mul(load_row_part(x, RAPT_F32, i, n), f), i, n);
}

VEC void row_scale(void *to, int dtype, const float *x, int64_t n, float factor, int stream)
{
    if (stream && streamable(to, 0)) row_scale_as(to, dtype, x, n, factor, 1);
    else row_scale_as(to, dtype, x, n, factor, 0);
}

VEC void row_fill(void *to, int dtype, int64_t n, float value, int stream)
{
    vec x = v_set(value);
    int64_t i = 0;
    for (; stream && streamable(to, 0) && i + 2 * LANES <= n; i += 2 * LANES)
        v_store_two((char *)to + (at(to, dtype, i) - (const char *)to), dtype, x, x, 1);
    for (; i < n; i += LANES) store_row_part(to, dtype, x, i, n);
}

static float row_largest_of(const void *from, int64_t dtype, int64_t n)
{
    float m = 0;
#define CALL(type) m = row_largest(from, type, n)
    FLOAT_CASES(dtype, CALL)
#undef CALL
    return m;
}

static float row_sum_of(const void *from, int64_t dtype, int64_t n, float m, float *scratch)
{
    float sum = 0;
#define CALL(type) sum = row_sum(from, type, n, m, scratch)
    FLOAT_CASES(dtype, CALL)
#undef CALL
    return sum;
}

static void row_scale_to(void *to, int64_t dtype, const float *x, int64_t n, float factor,
                         int stream)
{
#define CALL(type) row_scale(to, type, x, n, factor, stream)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

static void row_fill_to(void *to, int64_t dtype, int64_t n, float value, int stream)
{
#define CALL(type) row_fill(to, type, n, value, stream)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

static int row_has_nan(const void *from, int64_t dtype, int64_t n)
{
    int found = 0;
    for (int64_t i = 0; i < n && !found; i += LANES) {
#define CALL(type) found = v_any_nan(load_row_part(from, type, i, n))
        FLOAT_CASES(dtype, CALL)
#undef CALL
    }
    return found;
}

/* Vectors of a step: their long chains of operations fill each other's waits. */
enum { AT_ONCE = LANES == 16 ? 8 : 2 };

/* The sum of e^(x - m) for a row whose largest element is at least m, and the terms in scratch; what
 * waits (of as many elements) is stored meanwhile. Where the sum is at most GUESS_SUM, no element
 * exceeds m by more than 8.4, whose rounding costs the largest term 6 units of 2^-24, of the n that
 * the sum of a row is allowed; where it is at most n, up to 131072 (SOFTMAX_SCRATCH_MOST), by 11.8, which costs 12. */
enum { GUESS_FROM = 64, GUESS_SUM = 4096 };

/* Elements i ... i + count * LANES - 1 of the row that waits. */
VEC void store_waiting(const struct softmax_rows *before, int dtype, int64_t i, int count,
                       vec factor, int stream)
{
    const float *terms = before->scratch[before->turn] + i;
    char *to = (char *)before->to + i * (dtype == RAPT_F32 ? 4 : 2);
    for (int k = 0; k < count; k += 2)
        v_store_two(to + k * LANES * (dtype == RAPT_F32 ? 4 : 2), dtype,
                    v_mul(v_load(terms + k * LANES, RAPT_F32), factor),
                    v_mul(v_load(terms + (k + 1) * LANES, RAPT_F32), factor), stream);
}

/* In 16 bits, where arithmetic is the limit, the row that waits comes before the chains, so that they
 * have something to wait with; in f32 after them, beside the stores of the terms. */
VEC float row_guessed(const void *from, int dtype, int64_t n, float m, float *scratch,
                      const struct softmax_rows *before, int waits, int stream)
{
    vec s0 = v_zero(), s1 = v_zero(), shift = v_set(-m * LOG2_E), factor = v_set(LOG2_E);
    const float *terms = before->scratch[before->turn];
    char *to = before->to;
    vec f = v_set(waits ? before->factor : 0);
    int64_t i = 0;
    const int half = dtype != RAPT_F32, step = half || AT_ONCE < 4 ? AT_ONCE : AT_ONCE / 2;
    for (; i + step * LANES <= n; i += step * LANES) {
        vec x[AT_ONCE];
        if (before->ahead)
            ops_expect_lines(at(from, dtype, i) + before->ahead,
                             step * LANES * (half ? 2 : 4) / 64);
        V_EACH(k, step / 2)
        v_load_two(at(from, dtype, i + 2 * k * LANES), dtype, &x[2 * k], &x[2 * k + 1]);
        V_EACH(k, step) x[k] = v_fma(x[k], factor, shift);
        if (waits && half) store_waiting(before, dtype, i, step, f, stream);
        v_exp2_several(x, step, half);
        V_EACH(k, step) v_store(scratch + i + k * LANES, RAPT_F32, x[k]);
        V_EACH(k, step / 2) s0 = v_add(s0, x[2 * k]), s1 = v_add(s1, x[2 * k + 1]);
        if (waits && !half) store_waiting(before, dtype, i, step, f, stream);
    }
    for (; i < n; i += LANES) {
        vec x = guessed_term(v_fma(load_row_part(from, dtype, i, n), factor, shift), dtype);
        s0 = v_add(s0, v_keep(x, 0, (int)(n - i < LANES ? n - i : LANES), v_zero()));
        store_row_part(scratch, RAPT_F32, x, i, n);
        if (waits) store_row_part(to, dtype, v_mul(load_row_part(terms, RAPT_F32, i, n), f), i, n);
    }
    return v_sum(v_add(s0, s1));
}

static float row_guessed_of(const void *from, int64_t dtype, int64_t n, float m, float *scratch,
                            const struct softmax_rows *before)
{
    float sum = 0;
    int waits = before->to != NULL, stream = waits && before->stream && streamable(before->to, 0);
#define CALL(type)                                                                                 \
    sum = stream  ? row_guessed(from, type, n, m, scratch, before, 1, 1)                           \
          : waits ? row_guessed(from, type, n, m, scratch, before, 1, 0)                           \
                  : row_guessed(from, type, n, m, scratch, before, 0, 0)
    FLOAT_CASES(dtype, CALL)
#undef CALL
    return sum;
}

static void softmax_row_end(struct softmax_rows *state)
{
    if (state->to)
        row_scale_to(state->to, state->dtype, state->scratch[state->turn], state->n, state->factor,
                     state->stream);
    state->to = NULL;
}

/* A row in one pass less: the largest of the first few elements in place of the largest of all. 0:
 * it does not serve, and to is untouched. */
static int softmax_guessed(void *to, int64_t dtype, const void *from, int64_t n,
                           struct softmax_rows *state, int stream)
{
#ifdef ROWS_WITHOUT_FMA
    return 0;
#endif
    float m = row_largest_of(from, dtype, GUESS_FROM);
    if (!(m < NEAR && m > -NEAR)) return 0;
    int turn = !state->turn;
    float sum = row_guessed_of(from, dtype, n, m, state->scratch[turn], state);
    state->to = NULL;
    if (!(sum <= GUESS_SUM || sum <= (float)n)) return 0;
    state->to = to;
    state->turn = turn;
    state->dtype = dtype;
    state->n = n;
    state->factor = 1 / sum;
    state->stream = stream;
    return 1;
}

static void softmax_row(void *to, int64_t to_dtype, const void *from, int64_t from_dtype, int64_t n,
                        struct softmax_rows *state, int stream)
{
    if (to_dtype == from_dtype && n >= SOFTMAX_GUESS_LEAST && n <= state->columns &&
        softmax_guessed(to, to_dtype, from, n, state, stream))
        return;
    float *scratch = state->scratch[!state->turn];
    float *kept = n <= state->columns ? scratch : to_dtype == RAPT_F32 ? to : NULL;
    float m = row_largest_of(from, from_dtype, n);
    if (m == -INFINITY) {
        row_fill_to(to, to_dtype, n, row_has_nan(from, from_dtype, n) ? NAN : 0, stream);
        return;
    }
    if (kept) {
        float sum = row_sum_of(from, from_dtype, n, m, kept);
        row_scale_to(to, to_dtype, kept, n, 1 / sum, stream && kept == scratch);
        return;
    }
    float factor = 1 / row_sum_of(from, from_dtype, n, m, NULL);
    int64_t from_size = from_dtype == RAPT_F32 ? 4 : 2, to_size = to_dtype == RAPT_F32 ? 4 : 2;
    for (int64_t i = 0; i < n; i += SOFTMAX_SCRATCH) {
        int64_t part = n - i < SOFTMAX_SCRATCH ? n - i : SOFTMAX_SCRATCH;
        row_sum_of((const char *)from + i * from_size, from_dtype, part, m, scratch);
        row_scale_to((char *)to + i * to_size, to_dtype, scratch, part, factor, stream);
    }
}

/* ---- rotary embedding ---- */

VEC void rotate_half_row(void *to, const void *from, int dtype, const float *cos, const float *sin,
                         int64_t pairs, int stream)
{
    int64_t size = dtype == RAPT_F32 ? 4 : 2, i = 0;
    char *high_to = (char *)to + pairs * size;
    const char *high = at(from, dtype, pairs);
    for (; i + 2 * LANES <= pairs; i += 2 * LANES) {
        vec x0, x1, y0, y1;
        v_load_two(at(from, dtype, i), dtype, &x0, &x1);
        v_load_two(at(high, dtype, i), dtype, &y0, &y1);
        vec c0 = v_load(cos + i, RAPT_F32), c1 = v_load(cos + i + LANES, RAPT_F32);
        vec s0 = v_load(sin + i, RAPT_F32), s1 = v_load(sin + i + LANES, RAPT_F32);
        v_store_two((char *)to + i * size, dtype, v_fnma(y0, s0, v_mul(x0, c0)),
                    v_fnma(y1, s1, v_mul(x1, c1)), stream);
        v_store_two(high_to + i * size, dtype, v_fma(x0, s0, v_mul(y0, c0)),
                    v_fma(x1, s1, v_mul(y1, c1)), stream);
    }
    for (; i < pairs; i += LANES) {
        vec x = load_row_part(from, dtype, i, pairs), y = load_row_part(high, dtype, i, pairs);
        vec c = load_row_part(cos, RAPT_F32, i, pairs), s = load_row_part(sin, RAPT_F32, i, pairs);
        store_row_part(to, dtype, v_fnma(y, s, v_mul(x, c)), i, pairs);
        store_row_part(high_to, dtype, v_fma(x, s, v_mul(y, c)), i, pairs);
    }
}

VEC void rotate_pairs_row(void *to, const void *from, int dtype, const float *cos, const float *sin,
                          int64_t pairs, int stream)
{
    int64_t i = 0, size = dtype == RAPT_F32 ? 4 : 2;
    (void)size;
    (void)stream;
#ifdef V_HAS_PAIRS
    for (; dtype != RAPT_F32 && i + LANES <= pairs; i += LANES) {
        vec x, y, c = v_load(cos + i, RAPT_F32), s = v_load(sin + i, RAPT_F32);
        v_load_pairs((const char *)from + 2 * i * size, dtype, &x, &y);
        v_store_pairs((char *)to + 2 * i * size, dtype, v_fnma(y, s, v_mul(x, c)),
                      v_fma(x, s, v_mul(y, c)), stream);
    }
#endif
#ifndef ROWS_WITHOUT_SHUFFLES
    for (; i + LANES <= pairs; i += LANES) {
        vec x = v_load((const char *)from + 2 * i * size, dtype),
            y = v_load((const char *)from + (2 * i + LANES) * size, dtype);
        vec s = v_mul(v_swap_pairs(x), v_load_twice(sin + i)),
            t = v_mul(v_swap_pairs(y), v_load_twice(sin + i + LANES / 2));
        v_store_two((char *)to + 2 * i * size, dtype, v_fmaddsub(x, v_load_twice(cos + i), s),
                    v_fmaddsub(y, v_load_twice(cos + i + LANES / 2), t), stream);
    }
    for (; i + LANES / 2 <= pairs; i += LANES / 2) {
        vec x = v_load((const char *)from + 2 * i * size, dtype);
        vec s = v_mul(v_swap_pairs(x), v_load_twice(sin + i));
        v_store((char *)to + 2 * i * size, dtype, v_fmaddsub(x, v_load_twice(cos + i), s));
    }
#endif
    for (; i < pairs; i++) {
        float x = load_float(from, dtype, 2 * i), y = load_float(from, dtype, 2 * i + 1);
        store_float(to, dtype, 2 * i, x * cos[i] - y * sin[i]);
        store_float(to, dtype, 2 * i + 1, y * cos[i] + x * sin[i]);
    }
}

VEC void rotate_rows(const struct row_run *run, int dtype, const float *cos, const float *sin,
                     int64_t pairs, int interleaved, int stream)
{
    char *to = run->to;
    const char *from = run->from;
    int64_t lines = (2 * pairs * (dtype == RAPT_F32 ? 4 : 2) + 63) / 64;
    for (int64_t r = 0; r < run->rows; r++, to += run->to_step, from += run->from_step) {
        if (run->ahead) ops_expect_lines(from + run->ahead, lines);
        if (interleaved) rotate_pairs_row(to, from, dtype, cos, sin, pairs, stream);
        else rotate_half_row(to, from, dtype, cos, sin, pairs, stream);
        cos += run->table_step;
        sin += run->table_step;
    }
}

static void rotate(const struct row_run *run, int64_t dtype, const float *cos, const float *sin,
                   int64_t pairs, int interleaved)
{
    int64_t half = pairs * (dtype == RAPT_F32 ? 4 : 2);
    int stream = run->stream && streamable(run->to, run->to_step) && half % 64 == 0 &&
                 pairs % (2 * LANES) == 0;
#define CALL(type)                                                                                 \
    if (interleaved && stream) rotate_rows(run, type, cos, sin, pairs, 1, 1);                      \
    else if (interleaved) rotate_rows(run, type, cos, sin, pairs, 1, 0);                           \
    else if (stream) rotate_rows(run, type, cos, sin, pairs, 0, 1);                                \
    else rotate_rows(run, type, cos, sin, pairs, 0, 0)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

#ifdef ROWS_LIBM_ANGLES
static void angles_rows(float *cosine, float *sine, int64_t position, int64_t count,
                        const double *inverse, double magnitude, int64_t pairs)
{
    for (int64_t n = 0; n < count; n++)
        for (int64_t i = 0; i < pairs; i++) {
            double angle = (double)(position + n) * inverse[i];
            cosine[n * pairs + i] = (float)(cos(angle) * magnitude);
            sine[n * pairs + i] = (float)(sin(angle) * magnitude);
        }
}
#else
/* LANES / 2 angles at once. x = n pi/2 + r: pi/2 in two parts of which the first has 33 bits, so
 * that n times it is exact for |n| < 2^20; Taylor series of sine and cosine to r^13 and r^14, whose
 * remainders on |r| <= pi/4 are below 1e-13 of the value: nothing to its rounding to f32. */
enum { ANGLES = LANES / 2 };
typedef double angles __attribute__((vector_size(ANGLES * 8)));
typedef int64_t angle_bits __attribute__((vector_size(ANGLES * 8)));
typedef float angle_floats __attribute__((vector_size(ANGLES * 4)));

VEC angles angle_select(angle_bits mask, angles a, angles b)
{
    return (angles)(((angle_bits)a & mask) | ((angle_bits)b & ~mask));
}

VEC void angles_of(angles x, angles *cosine, angles *sine)
{
    const double to_integer = 0x1.8p52;
    angles shifted = x * 0.63661977236758134308 + to_integer, n = shifted - to_integer;
    angles r = x - n * 0x1.921fb544p+0;
    r = r - n * 0x1.0b4611a626331p-34;
    angles z = r * r;
    angles s = z * (1 / 6227020800.0) - 1 / 39916800.0;
    s = s * z + 1 / 362880.0;
    s = s * z - 1 / 5040.0;
    s = s * z + 1 / 120.0;
    s = s * z - 1 / 6.0;
    s = r + r * z * s;
    angles c = z * (-1 / 87178291200.0) + 1 / 479001600.0;
    c = c * z - 1 / 3628800.0;
    c = c * z + 1 / 40320.0;
    c = c * z - 1 / 720.0;
    c = c * z + 1 / 24.0;
    c = c * z - 0.5;
    c = 1 + z * c;
    angle_bits quadrant = (angle_bits)shifted & 3, odd = -(quadrant & 1);
    angle_bits sign_of_sine = (quadrant >> 1) << 63, sign_of_cosine = ((quadrant + 1) >> 1 & 1)
                                                                      << 63;
    *sine = (angles)((angle_bits)angle_select(odd, c, s) ^ sign_of_sine);
    *cosine = (angles)((angle_bits)angle_select(odd, s, c) ^ sign_of_cosine);
}

VEC void store_angles(float *to, angles x, int64_t part)
{
    angle_floats rounded = __builtin_convertvector(x, angle_floats);
    if (part == ANGLES) memcpy(to, &rounded, sizeof rounded);
    else memcpy(to, &rounded, (size_t)part * sizeof(float));
}

/* Positions from one multiple of ANCHOR up to the next follow from that multiple by the rule of
 * Chebyshev, cos (n + 1) a = 2 cos a cos n a - cos (n - 1) a, sine alike: a position's bits follow
 * from it alone. An error grows to at most n + 1 times itself in n steps: 136 roundings to f64 and
 * 16 times the series' 1e-13 in the last of 15. Some columns of angles at once: the steps of one wait
 * for each other. */
enum { ANCHOR = 16, COLUMNS = LANES == 16 ? 4 : 2 };

VEC void angles_columns(float *cosine, float *sine, int64_t position, int64_t count,
                        const angles *frequency, double magnitude, int64_t pairs, int columns,
                        int64_t part)
{
    angles step_c[COLUMNS], step_s[COLUMNS], c[COLUMNS], s[COLUMNS], before_c[COLUMNS],
        before_s[COLUMNS];
    V_EACH(i, columns) angles_of(frequency[i], &step_c[i], &step_s[i]);
    int64_t end = position + count;
    for (int64_t at = position & -ANCHOR; at < end; at += ANCHOR) {
        V_EACH(i, columns)
        {
            angles_of(frequency[i] * (double)at, &c[i], &s[i]);
            c[i] = c[i] * magnitude;
            s[i] = s[i] * magnitude;
            before_c[i] = c[i] * step_c[i] + s[i] * step_s[i];
            before_s[i] = s[i] * step_c[i] - c[i] * step_s[i];
        }
        int64_t last = end - at < ANCHOR ? end : at + ANCHOR;
        for (int64_t p = at; p < last; p++) {
            V_EACH(i, columns)
            {
                int64_t to = (p - position) * pairs + i * ANGLES;
                if (p >= position) store_angles(cosine + to, c[i], part);
                if (p >= position) store_angles(sine + to, s[i], part);
                angles next_c = 2 * step_c[i] * c[i] - before_c[i];
                angles next_s = 2 * step_c[i] * s[i] - before_s[i];
                before_c[i] = c[i], c[i] = next_c;
                before_s[i] = s[i], s[i] = next_s;
            }
        }
    }
}

static void angles_rows(float *cosine, float *sine, int64_t position, int64_t count,
                        const double *inverse, double magnitude, int64_t pairs)
{
    angles frequency[COLUMNS];
    int64_t i = 0;
    for (; i + COLUMNS * ANGLES <= pairs; i += COLUMNS * ANGLES) {
        memcpy(frequency, inverse + i, sizeof frequency);
        angles_columns(cosine + i, sine + i, position, count, frequency, magnitude, pairs, COLUMNS,
                       ANGLES);
    }
    for (int64_t left; (left = pairs - i) > 0; i += ANGLES) {
        int64_t part = left < ANGLES ? left : ANGLES;
        frequency[0] = (angles){0};
        memcpy(frequency, inverse + i, (size_t)part * sizeof(double));
        angles_columns(cosine + i, sine + i, position, count, frequency, magnitude, pairs, 1, part);
    }
}
#endif

#ifndef ROWS_WITHOUT_STREAM
static void copy_stream_row(void *to, const void *from, size_t bytes)
{
    size_t head = -(uintptr_t)to & 63;
    if (head > bytes) head = bytes;
    if (head) memcpy(to, from, head);
    size_t i = head;
    for (; i + 64 <= bytes; i += 64) v_stream_line((char *)to + i, (const char *)from + i);
    if (i < bytes) memcpy((char *)to + i, (const char *)from + i, bytes - i);
}

static void repeat_stream_row(void *to, int64_t step, int64_t count, const void *from, size_t bytes)
{
    for (int64_t i = 0; i < count; i++) copy_stream_row((char *)to + i * step, from, bytes);
}

static void stream_end_rows(void)
{
    v_stream_end();
}

VEC void fill_as(char *to, const char *line, size_t bytes, int stream)
{
    size_t head = -(uintptr_t)to & 63;
    if (head > bytes) head = bytes;
    if (head) memcpy(to, line, head);
    size_t i = head;
    for (; i + 64 <= bytes; i += 64)
        if (stream) v_stream_line(to + i, line);
        else memcpy(__builtin_assume_aligned(to + i, 64), line, 64);
    if (i < bytes) memcpy(to + i, line, bytes - i);
}

static void fill_row(void *to, const void *line, size_t bytes, int stream)
{
    if (stream) fill_as(to, line, bytes, 1);
    else fill_as(to, line, bytes, 0);
}
#endif

#include "cpu/convert_loops.h"

const struct row_kernels ROWS_NAME = {
    .name = ROWS_TEXT,
    .softmax = softmax_row,
    .softmax_end = softmax_row_end,
    .rotate = rotate,
    .angles = angles_rows,
    .convert = convert,
    .quantise = quantise,
    .largest = largest_of_floats,
    .integers = integers_of_floats,
#ifndef ROWS_WITHOUT_STREAM
    .copy_stream = copy_stream_row,
    .repeat_stream = repeat_stream_row,
    .fill = fill_row,
    .stream_end = stream_end_rows,
#endif
};
