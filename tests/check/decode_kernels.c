/* decode_kernels.c: decode_qk and decode_pv of every instruction set against f64, for every tile of
 * rows, dtype, channel count and range of keys. All memory outside the rows that a call may read is
 * NaN, and outside what it may write a mark. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "cpu/decode.h"
#include "cpu/decode_kernels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "numbers.h"

enum { FIFTHS = 1, KEYS = 40, ROWS = 16, CHANNELS = 264, GAP = 3, MARK = 12345, Q_STRIDE = 304 };

_Static_assert(Q_STRIDE % 16 == 0, "rows of q begin at cache lines");

/* One case: what is called and what it was called with. */
struct setting {
    const struct cpu_kernels *kernels;
    int64_t dtype, rows, channels, stride, first, last;
    int64_t scale_channels;
    int null_row; /* a key without a row; FIFTHS: each fifth; 0: none */
    int next;
    int small; /* scales, and what o holds before, below 2^-110 */
};

/* Memory of one case. Rows of keys are CHANNELS * 2 + GAP elements apart, so that none is aligned.
 */
static _Alignas(64) unsigned char data[KEYS * (CHANNELS * 2 + GAP) * 4];
static const void *rows[KEYS], *next_rows[KEYS];
static float scales[KEYS][CHANNELS];
static const float *scale_rows[KEYS];
static double values[KEYS][CHANNELS];
static _Alignas(64) float q[ROWS * Q_STRIDE], s[ROWS * KEYS + 64], o[ROWS * CHANNELS],
    p[ROWS * KEYS + 64];
static double q_values[ROWS][CHANNELS], p_values[ROWS][KEYS], o_values[ROWS][CHANNELS];

static void poison(void *memory, size_t bytes)
{
    memset(memory, 0xff, bytes); /* NaN in F32, F16 and BF16 */
}

static int is_null(const struct setting *t, int64_t j)
{
    return t->null_row == FIFTHS ? j % 5 == 2 : t->null_row && j == t->null_row;
}

static struct cpu_rows make_rows(const struct setting *t)
{
    int64_t size = (int64_t)dtype_size(t->dtype), row_bytes = (CHANNELS * 2 + GAP) * size;
    poison(data, sizeof data);
    poison(scales, sizeof scales);
    for (int64_t j = 0; j < KEYS; j++) {
        unsigned char *row = data + j * row_bytes;
        rows[j] = row;
        next_rows[j] = row;
        scale_rows[j] = scales[j];
        int used = j >= t->first && j < t->last && !is_null(t, j);
        if (j >= t->first && j < t->last && !used) rows[j] = NULL;
        for (int64_t c = 0; c < t->channels; c++) {
            values[j][c] = 0;
            if (!used) continue;
            if (t->dtype == RAPT_I8) {
                float scale = 0.25f + 0.125f * (float)(j % 3 + c / t->scale_channels % 2);
                if (t->small) scale *= 0x1p-120f;
                scales[j][c / t->scale_channels] = scale;
                ((int8_t *)row)[c * t->stride] = (int8_t)(127 * number());
                values[j][c] = (double)scale * ((int8_t *)row)[c * t->stride];
            } else {
                store_float(row, t->dtype, c * t->stride, number());
                values[j][c] = load_float(row, t->dtype, c * t->stride);
            }
        }
    }
    return (struct cpu_rows){.row = rows,
                             .dtype = t->dtype,
                             .channel_stride = t->stride,
                             .scale = scale_rows,
                             .scale_channels = t->scale_channels,
                             .scale_stride = 1};
}

/* A number as the level keeps it: f32, or bf16 at half the place. */
static double put(const struct setting *t, float *row, int64_t i, float x)
{
    if (t->kernels->pair == 1) {
        row[i] = x;
        return x;
    }
    ((uint16_t *)row)[i] = bf16_from_float(x);
    return float_from_bf16(((uint16_t *)row)[i]);
}

static void explain(const struct setting *t, const char *what, int64_t row, int64_t at, double got,
                    double expected, double bound)
{
    fail_msg("%s %s: %s rows %lld channels %lld stride %lld keys %lld...%lld null %d: [%lld][%lld] "
             "is %.9g, not %.9g +- %.2g",
             t->kernels->name, what, dtype_name(t->dtype), (long long)t->rows,
             (long long)t->channels, (long long)t->stride, (long long)t->first, (long long)t->last,
             t->null_row, (long long)row, (long long)at, got, expected, bound);
}

/* Sums of n products in any order, each rounded to f32: n + 2 roundings of the sum of magnitudes.
 * bf16 pairs flush products below 2^-126, which the numbers here do not reach. */
static double rounding(int64_t n, double magnitude)
{
    return (double)(n + 2) * 0x1p-24 * magnitude;
}

/* Fetching changes nothing that can be seen; runs that do not divide into what a step fetches. */
static struct cpu_ahead ahead_of(const struct setting *t)
{
    int64_t bytes = t->channels * (int64_t)dtype_size(t->dtype);
    return (struct cpu_ahead){
        next_rows, 1, bytes, bytes / 2, (t->last - t->first) * bytes - bytes / 2, 64};
}

/* Of 16-bit integers relative to the largest magnitude: half a unit, and the roundings of factor
 * and product. */
static double fixed_point_error(double largest, int64_t most)
{
    return 0.51 * largest / (double)most;
}

/* Replaces the values of q by those that decode_q leaves, which are near. */
static void use_fixed_point(const struct setting *t)
{
    t->kernels->decode_q(q, Q_STRIDE, t->rows, t->channels);
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t width = round_up(t->channels, 64);
        const int8_t *high = (const int8_t *)(q + r * Q_STRIDE), *low = high + width;
        double largest = 0, step = q[r * Q_STRIDE + width / 2];
        for (int64_t c = 0; c < t->channels; c++) largest = fmax(largest, fabs(q_values[r][c]));
        for (int64_t c = 0; c < t->channels; c++) {
            double x = step * (256 * high[c] + low[c]), bound = fixed_point_error(largest, 32766);
            if (!(fabs(x - q_values[r][c]) <= bound))
                explain(t, "q", r, c, x, q_values[r][c], bound);
            q_values[r][c] = x;
        }
    }
}

static void prepare(const struct setting *t, enum decode_stage stage)
{
    if (t->kernels->decode_stage) t->kernels->decode_stage(stage, t->rows, t->channels);
}

static void check_scores(const struct setting *t)
{
    struct cpu_rows k = make_rows(t);
    poison(q, sizeof q);
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t c = 0; c < t->channels; c++)
            q_values[r][c] = put(t, q + r * Q_STRIDE, c, number());
    if (t->kernels->decode_q) use_fixed_point(t);
    for (size_t i = 0; i < sizeof s / sizeof *s; i++) s[i] = MARK;
    struct cpu_ahead ahead = ahead_of(t);
    prepare(t, DECODE_SCORES);
    t->kernels->decode_qk(s, KEYS, q, Q_STRIDE, &k, t->rows, t->channels, t->first, t->last,
                          t->next ? &ahead : NULL);
    prepare(t, DECODE_DONE);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t j = 0; j < KEYS; j++) {
            double expected = 0, magnitude = 0;
            for (int64_t c = 0; c < t->channels && r < t->rows; c++) {
                expected += q_values[r][c] * values[j][c];
                magnitude += fabs(q_values[r][c] * values[j][c]);
            }
            int written = r < t->rows && j >= t->first && j < t->last;
            double bound = written ? rounding(t->channels, magnitude) : 0;
            if (!written) expected = MARK;
            if (!(fabs(s[r * KEYS + j] - expected) <= bound))
                explain(t, "qk", r, j, s[r * KEYS + j], expected, bound);
        }
}

/* Of weights in fixed point, which take the scale of the channel's block with them. */
static double weight_error(const struct setting *t, int64_t r, int64_t c)
{
    double largest = 0, integers = 0;
    for (int64_t j = t->first; j < t->last; j++) {
        if (!rows[j]) continue;
        double scale = scales[j][c / t->scale_channels];
        largest = fmax(largest, fabs(p_values[r][j] * scale));
        integers += fabs(values[j][c] / scale);
    }
    return fixed_point_error(largest, 32766) * integers;
}

static void check_values(const struct setting *t)
{
    struct cpu_rows v = make_rows(t);
    poison(p, sizeof p);
    for (size_t i = 0; i < sizeof o / sizeof *o; i++) o[i] = MARK;
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t j = t->first; j < t->last; j++)
            p_values[r][j] = put(t, p + r * KEYS, j, rows[j] ? fabsf(number()) : 0);
        if (t->last % 2 && t->last < KEYS)
            put(t, p + r * KEYS, t->last, 0); /* the partner of an odd last key */
        for (int64_t c = 0; c < t->channels; c++)
            o_values[r][c] = o[r * CHANNELS + c] = number() * (t->small ? 0x1p-120f : 1);
    }
    struct cpu_ahead ahead = ahead_of(t);
    prepare(t, DECODE_VALUES);
    t->kernels->decode_pv(o, CHANNELS, p, KEYS, &v, t->rows, t->channels, t->first, t->last,
                          t->next ? &ahead : NULL);
    prepare(t, DECODE_DONE);
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t c = 0; c < CHANNELS; c++) {
            int written = r < t->rows && c < t->channels;
            double expected = written ? o_values[r][c] : MARK, magnitude = fabs(expected);
            for (int64_t j = t->first; j < t->last && written; j++) {
                expected += p_values[r][j] * values[j][c];
                magnitude += fabs(p_values[r][j] * values[j][c]);
            }
            double bound = written ? rounding(t->last - t->first + 2, magnitude) : 0;
            if (t->kernels->decode_q && written) bound += weight_error(t, r, c);
            if (!(fabs(o[r * CHANNELS + c] - expected) <= bound))
                explain(t, "pv", r, c, o[r * CHANNELS + c], expected, bound);
        }
}

/* ---- The cases of one level ---- */

static void check_both(struct setting t)
{
    check_scores(&t);
    t.first &= ~(int64_t)1; /* as softmax leaves p: an even start */
    check_values(&t);
}

static void every_tile(void **state)
{
    const struct cpu_level *level = *state;
    if (level->kernels->decode_q) return; /* for i8 alone */
    static const int64_t dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16},
                         channels[] = {1, 7, 16, 31, 32, 33, 64, 80, 128, 200, 264};
    for (size_t d = 0; d < 3; d++)
        for (int64_t n = 1; n <= ROWS; n++)
            for (size_t c = 0; c < sizeof channels / sizeof *channels; c++) {
                if (level->kernels->pair == 2 && dtypes[d] != RAPT_BF16) continue;
                check_both((struct setting){level->kernels, dtypes[d], n, channels[c], 1, 0, 32, 1,
                                            0, (int)(c % 2), 0});
            }
}

static void every_range(void **state)
{
    const struct cpu_level *level = *state;
    int64_t dtype = level->kernels->decode_q ? RAPT_I8 : RAPT_BF16,
            channels = level->kernels->decode_stage ? 64 : 72; /* tiles take whole ones */
    static const int nulls[] = {0, FIFTHS, 12, 25}; /* of the second 8 keys, of the second 16 */
    for (int64_t first = 0; first < KEYS; first += 3)
        for (int64_t last = first + 1; last <= KEYS; last += 2)
            for (size_t n = 0; n < sizeof nulls / sizeof *nulls; n++)
                check_both((struct setting){level->kernels, dtype, 4, channels, 1, first, last,
                                            channels, nulls[n], 1, 0});
}

static void strided_rows(void **state)
{
    const struct cpu_level *level = *state;
    if (level->kernels->decode_q) return; /* refuses them */
    for (int64_t n = 1; n <= 9; n += 4)
        for (int null_row = 0; null_row < 2; null_row++)
            check_both(
                (struct setting){level->kernels, RAPT_BF16, n, 50, 2, 4, 37, 1, null_row, 1, 0});
}

static void quantised_rows(void **state)
{
    const struct cpu_level *level = *state;
    if (level->kernels->pair == 2) return; /* its keys and values are bf16 */
    static const int64_t channels[] = {32, 64, 96, 128, 256}, blocks[] = {1, 2, 3, 4, 8};
    for (int64_t n = 1; n <= ROWS; n += 3)
        for (size_t c = 0; c < 5; c++)
            for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
                int64_t block = channels[c] / blocks[b];
                if (channels[c] % blocks[b]) continue;
                if (level->kernels->decode_q && blocks[b] > 1 && block % 32) continue;
                check_both((struct setting){level->kernels, RAPT_I8, n, channels[c], 1, 0, 33,
                                            block, (int)b % 2, 1, n == 4});
            }
    for (int64_t c = 1; c < CHANNELS; c += 17)
        check_both(
            (struct setting){level->kernels, RAPT_I8, 1 + c % ROWS, c, 1, 0, 40, c, 1, 1, 0});
    if (level->kernels->decode_q) return; /* refuses the next */
    check_both((struct setting){level->kernels, RAPT_I8, 4, 63, 2, 3, 32, 21, 0, 0, 0});
}

int main(void)
{
    struct CMUnitTest tests[4 * CPU_LEVELS];
    static char names[4 * CPU_LEVELS][64];
    static const struct {
        const char *name;
        void (*run)(void **state);
    } groups[] = {{"tiles", every_tile},
                  {"ranges", every_range},
                  {"strides", strided_rows},
                  {"i8", quantised_rows}};
    size_t count = 0;
    for (int i = 0; i < CPU_LEVELS; i++)
        for (size_t g = 0; g < 4; g++) {
            if (cpu_permitted(cpu_features() & cpu_levels[i].needs) != cpu_levels[i].needs)
                continue;
            snprintf(names[count], sizeof names[count], "%s %s", cpu_levels[i].kernels->name,
                     groups[g].name);
            tests[count] = (struct CMUnitTest){names[count], groups[g].run, NULL, NULL,
                                               (void *)&cpu_levels[i]};
            count++;
        }
    return _cmocka_run_group_tests("decode kernels", tests, count, NULL, NULL);
}
