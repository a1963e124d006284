/* tile_kernels.c: packing, products, score options, softmax and weights of every instruction set
 * against f64, for every number of rows, dtype, channel count and range of keys. Memory that a call
 * may not read is NaN; memory that it may not write holds a mark. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/levels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "group.h"
#include "numbers.h"

enum { KEYS = 192, CHANNELS = 160, MARK = 12345 };

/* One case of a product. */
struct setting {
    const struct cpu_kernels *kernels;
    int64_t dtype, rows, channels, stride, first, last;
    int64_t scale_channels; /* I8 */
    float sign;
    int accumulate, null_rows;
    int key_power, row_power; /* every third key, or row of q, is multiplied by 2 to this power, and
                                 what meets a large one by 2 to -20: no sum overflows */
    int scale_power;          /* I8: scales are multiplied by 2 to this power */
};

static struct setting plain(const struct cpu_kernels *kernels, int64_t dtype, int64_t rows,
                            int64_t channels, int64_t first, int64_t last)
{
    return (struct setting){kernels,  dtype, rows, channels, 1, first, last,
                            channels, 1,     0,    0,        0, 0,     0};
}

static _Alignas(64) unsigned char data[KEYS * (2 * CHANNELS + 3) * 4];
static _Alignas(64) unsigned char panels[KEYS * (CHANNELS + COLUMN_TILE_MAX) * 4];
static _Alignas(64) float q[ROW_TILE_MAX * CHANNELS], s[ROW_TILE_MAX * KEYS],
    o[ROW_TILE_MAX * CHANNELS];
static unsigned char q_data[2 * CHANNELS * 4];
static double values[KEYS][CHANNELS], left[ROW_TILE_MAX][KEYS + CHANNELS],
    before[ROW_TILE_MAX][CHANNELS];
static const void *pointers[KEYS];
static float scales[KEYS][CHANNELS];
static const float *scale_rows[KEYS];

/* power: of its own kind; meets: that of the other. */
static float scaled(float x, int64_t index, int power, int meets)
{
    return ldexpf(x, (index % 3 ? 0 : power) - (meets > 0 ? 20 : 0));
}

/* The number that the row holds in channel c. */
static double put_value(const struct setting *t, unsigned char *row, int64_t j, int64_t c)
{
    if (t->dtype != RAPT_I8) {
        store_float(row, t->dtype, c * t->stride, scaled(number(), j, t->key_power, t->row_power));
        return load_float(row, t->dtype, c * t->stride);
    }
    int64_t block = c / t->scale_channels;
    scales[j][block] = ldexpf(0.25f + 0.125f * (float)((j + block) % 3), t->scale_power);
    ((int8_t *)row)[c * t->stride] = (int8_t)(127 * number());
    return (double)scales[j][block] * ((int8_t *)row)[c * t->stride];
}

/* Rows 2 * CHANNELS + 3 elements apart, so that none is aligned; rows outside [first, last) are
 * NaN, or have NaN scales, some inside are NULL. */
static struct cpu_rows make_rows(const struct setting *t)
{
    memset(data, 0xff, sizeof data);
    memset(scales, 0xff, sizeof scales);
    for (int64_t j = 0; j < KEYS; j++) {
        unsigned char *row = data + (size_t)(j * (2 * CHANNELS + 3)) * dtype_size(t->dtype);
        scale_rows[j] = scales[j];
        int used = j >= t->first && j < t->last;
        pointers[j] = used && t->null_rows && j % 7 == 3 ? NULL : row;
        for (int64_t c = 0; c < t->channels; c++) {
            values[j][c] = 0;
            if (used && pointers[j]) values[j][c] = put_value(t, row, j, c);
        }
    }
    return (struct cpu_rows){.row = pointers,
                             .dtype = t->dtype,
                             .channel_stride = t->stride,
                             .scale = scale_rows,
                             .scale_channels = t->scale_channels,
                             .scale_stride = 1};
}

/* Whether the level takes 16-bit integers for q and p: those of the i8 rows that it packs itself. */
static int fixed_point(const struct cpu_kernels *k)
{
    return k->tile_q != NULL;
}

/* Of integers relative to the largest magnitude: half a unit, and the roundings of factor and
 * product. */
static double fixed_point_error(const struct setting *t, double largest)
{
    return fixed_point(t->kernels) ? 0.51 * largest / 32766 : 0;
}

/* |got - sum of products| within n + 2 roundings to f32 of the sum of magnitudes, in any order of
 * summation, and what fixed point adds. */
static void expect(const struct setting *t, const char *what, int64_t row, int64_t at, double got,
                   double sum, double magnitude, double fixed, int64_t n)
{
    double bound = (double)(n + 2) * 0x1p-24 * (magnitude + fixed) + fixed;
    if (!(fabs(got - sum) <= bound))
        fail_msg("%s %s: %s rows %lld channels %lld stride %lld keys %lld...%lld: [%lld][%lld] is "
                 "%.9g, not %.9g +- %.2g",
                 t->kernels->name, what, dtype_name(t->dtype), (long long)t->rows,
                 (long long)t->channels, (long long)t->stride, (long long)t->first,
                 (long long)t->last, (long long)row, (long long)at, got, sum, bound);
}

static void check_qk(const struct setting *t)
{
    const struct cpu_kernels *k = t->kernels;
    struct cpu_rows keys = make_rows(t);
    int64_t dtype = t->dtype == RAPT_I8 ? RAPT_BF16 : t->dtype;
    memset(q, 0xff, sizeof q);
    for (int64_t r = 0; r < t->rows; r++) {
        memset(q_data, 0xff, sizeof q_data);
        for (int64_t c = 0; c < t->channels; c++) {
            store_float(q_data, dtype, c * t->stride,
                        scaled(number(), r, t->row_power, t->key_power));
            left[r][c] = t->sign * load_float(q_data, dtype, c * t->stride);
        }
        k->pack_q(q + r * CHANNELS, q_data, dtype, t->stride, t->channels, t->sign);
    }
    if (k->tile_q) k->tile_q(q, CHANNELS, t->rows, t->channels);
    int64_t start = t->first / k->column_tile * k->column_tile,
            end = round_up(t->last, k->column_tile);
    for (int64_t j = start; j < t->first; j++) pointers[j] = NULL;
    for (int64_t i = 0; i < ROW_TILE_MAX * KEYS; i++) s[i] = MARK;
    k->pack_k(panels, &keys, start, t->last, t->channels);
    k->qk(s, KEYS, q, CHANNELS, panels, t->rows, t->channels, start, t->last);
    for (int64_t r = 0; r < ROW_TILE_MAX; r++)
        for (int64_t j = 0; j < KEYS; j++) {
            double sum = 0, magnitude = 0, largest = 0, others = 0;
            if (r < t->rows && j >= t->last && j < end) continue;
            if (r >= t->rows || j < start || j >= end) {
                expect(t, "qk wrote", r, j, s[r * KEYS + j], MARK, 0, 0, 0);
                continue;
            }
            for (int64_t c = 0; c < t->channels && j >= t->first; c++) {
                sum += left[r][c] * values[j][c];
                magnitude += fabs(left[r][c] * values[j][c]);
                largest = fmax(largest, fabs(left[r][c]));
                others += fabs(values[j][c]);
            }
            expect(t, "qk", r, j, s[r * KEYS + j], sum, magnitude,
                   others * fixed_point_error(t, largest), t->channels);
        }
}

/* Puts p[row][j] in the level's format. */
static double put_p(const struct cpu_kernels *k, float *row, int64_t j, float x)
{
    if (k->pair == 1) return row[j] = x;
    uint16_t bits = bf16_from_float(x);
    ((uint16_t *)row)[j] = bits;
    return float_from_bf16(bits);
}

/* Of the weights of each 64 keys relative to the largest, times scales. */
static double weights_error(const struct setting *t, int64_t row, int64_t channel)
{
    enum { GROUP = 64 };
    double sum = 0;
    for (int64_t j0 = 0; t->dtype == RAPT_I8 && j0 < t->last; j0 += GROUP) {
        double largest = 0, integers = 0;
        for (int64_t j = j0; j < j0 + GROUP && j < t->last; j++) {
            double scale = scales[j][channel / t->scale_channels];
            if (j < t->first || !pointers[j]) continue;
            largest = fmax(largest, left[row][j] * scale);
            integers += fabs(values[j][channel]) / scale;
        }
        sum += integers * fixed_point_error(t, largest);
    }
    return sum;
}

static void check_pv(const struct setting *t)
{
    const struct cpu_kernels *k = t->kernels;
    struct cpu_rows v = make_rows(t);
    int64_t first = t->first / k->column_tile * k->column_tile,
            width = round_up(t->channels, k->column_tile);
    for (int64_t j = first; j < t->first; j++) pointers[j] = NULL;
    memset(panels, 0xff, sizeof panels);
    memset(s, 0xff, sizeof s);
    for (int64_t i = 0; i < ROW_TILE_MAX * CHANNELS; i++) o[i] = MARK;
    for (int64_t r = 0; r < t->rows; r++) {
        for (int64_t j = first; j < round_up(t->last, k->pair); j++)
            left[r][j] = put_p(
                k, s + r * KEYS, j,
                j < t->first || j >= t->last ? 0 : fabsf(scaled(number(), 1, 0, t->key_power)));
        for (int64_t c = 0; c < t->channels && t->accumulate; c++)
            before[r][c] = o[r * CHANNELS + c] = number();
    }
    assert_int_equal(k->pack_v(panels, &v, first, t->last, t->channels, KEYS), 0);
    k->pv(o, CHANNELS, s, KEYS, panels, KEYS, t->rows, t->channels, first, t->last, t->accumulate);
    for (int64_t r = 0; r < ROW_TILE_MAX; r++)
        for (int64_t c = 0; c < CHANNELS; c++) {
            if (r < t->rows && c >= t->channels && c < width) continue;
            if (r >= t->rows || c >= width) {
                expect(t, "pv wrote", r, c, o[r * CHANNELS + c], MARK, 0, 0, 0);
                continue;
            }
            double sum = t->accumulate ? before[r][c] : 0, magnitude = fabs(sum);
            for (int64_t j = t->first; j < t->last; j++) {
                sum += left[r][j] * values[j][c];
                magnitude += fabs(left[r][j] * values[j][c]);
            }
            expect(t, "pv", r, c, o[r * CHANNELS + c], sum, magnitude, weights_error(t, r, c),
                   t->last - t->first + 1);
        }
}

static int takes(const struct cpu_kernels *k, int64_t dtype)
{
    if (dtype == RAPT_I8 || fixed_point(k)) return dtype == RAPT_I8 && k->pair == 1;
    return k->pair == 1 || dtype == RAPT_BF16;
}

static void products(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static const int64_t dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16, RAPT_I8},
                         channels[] = {1, 3, 16, 31, 64, 80, 96};
    static const int64_t ranges[][2] = {{0, 1},   {0, 33},   {0, 64},  {5, 17},
                                        {64, 96}, {70, 127}, {0, KEYS}};
    for (size_t d = 0; d < 4; d++)
        for (int64_t rows = 1; rows <= k->row_tile && takes(k, dtypes[d]); rows++)
            for (size_t c = 0; c < sizeof channels / sizeof *channels; c++) {
                const int64_t *range = ranges[(rows + (int64_t)c) % 7];
                struct setting t = plain(k, dtypes[d], rows, channels[c], range[0], range[1]);
                if (!fixed_point(k)) t.stride = 1 + (rows + (int64_t)c) % 5 / 4;
                if (channels[c] % 32 == 0 && rows % 2 == 0) t.scale_channels = 32;
                t.sign = rows % 2 ? 1 : -1;
                t.accumulate = c % 2;
                t.null_rows = rows % 3 == 0;
                check_qk(&t);
                check_pv(&t);
            }
}

/* Magnitudes that a level may have to treat apart from others, beside ordinary ones. */
static void magnitudes(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static const int powers[] = {-118, -101, -99, 100, 127, 128};
    /* These leave the factor of fixed-point weights, or what it is made of, hardly a float, or none. */
    static const int of_scales[] = {-113, -112, -98, -97, 90, 117};
    for (size_t i = 0; i < sizeof powers / sizeof *powers && takes(k, RAPT_F32); i++)
        for (int64_t rows = 1; rows <= k->row_tile; rows += 5)
            for (int of_keys = 0; of_keys < 2; of_keys++) {
                struct setting t = plain(k, RAPT_F32, rows, 80, 5, 127);
                t.accumulate = (int)rows % 2;
                if (of_keys) t.key_power = powers[i];
                else t.row_power = powers[i];
                check_qk(&t);
                if (of_keys) check_pv(&t);
            }
    for (size_t i = 0; i < sizeof of_scales / sizeof *of_scales && takes(k, RAPT_I8); i++)
        for (int64_t rows = 1; rows <= k->row_tile; rows++) {
            struct setting t = plain(k, RAPT_I8, rows, 64, 0, 100);
            t.scale_channels = rows % 2 ? 64 : 32;
            t.scale_power = of_scales[i];
            check_qk(&t);
            check_pv(&t);
        }
}

/* Products of one sign that overflow give that infinity, however a level adds them up. */
static void overflow(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    enum { WIDTH = 64, COUNT = 32 };
    static float row[WIDTH], key[COUNT][WIDTH];
    for (int j = 0; j < COUNT; j++) {
        pointers[j] = key[j];
        for (int c = 0; c < WIDTH; c++) key[j][c] = ldexpf(-1 - fabsf(number()), 70);
    }
    struct cpu_rows keys = {.row = pointers, .dtype = RAPT_F32, .channel_stride = 1};
    for (int c = 0; c < WIDTH; c++) row[c] = ldexpf(1 + fabsf(number()), 70);
    if (!takes(k, RAPT_F32)) return;
    k->pack_q(q, row, RAPT_F32, 1, WIDTH, 1);
    k->pack_k(panels, &keys, 0, COUNT, WIDTH);
    k->qk(s, KEYS, q, CHANNELS, panels, 1, WIDTH, 0, COUNT);
    for (int j = 0; j < COUNT; j++)
        if (s[j] != -INFINITY) fail_msg("%s: score %d is %g, not -inf", k->name, j, (double)s[j]);
}

/* A weight that is NaN, whatever its bits, makes its own row NaN and no other. */
static void nan_weights(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static const uint32_t bits[] = {0x7fc00000, 0x7fffffff, 0xffffffff, 0x7fc08000};
    struct setting t = plain(k, fixed_point(k) ? RAPT_I8 : RAPT_F32, 5, 37, 0, 40);
    for (int n = 0; n < 4 && takes(k, t.dtype); n++) {
        struct cpu_rows v = make_rows(&t);
        for (int64_t i = 0; i < ROW_TILE_MAX * KEYS; i++) s[i] = fabsf(number());
        memcpy(s + 2 * KEYS + 9, &bits[n], sizeof *bits);
        k->pack_v(panels, &v, 0, t.last, t.channels, KEYS);
        k->pv(o, CHANNELS, s, KEYS, panels, KEYS, t.rows, t.channels, 0, t.last, 0);
        for (int64_t r = 0; r < t.rows; r++)
            for (int64_t c = 0; c < t.channels; c++)
                if (isnan(o[r * CHANNELS + c]) != (r == 2))
                    fail_msg("%s: weight %08x of row 2: o[%d][%d] is %g", k->name, bits[n], (int)r,
                             (int)c, (double)o[r * CHANNELS + c]);
    }
}

/* pack_v tells of NaN and infinity wherever they are, and of nothing else. */
static void unusual_values(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static const int64_t dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    static const float unusual[] = {NAN, INFINITY, -INFINITY};
    for (size_t d = 0; d < 3; d++)
        for (int64_t channel = 0; channel < 37 && takes(k, dtypes[d]); channel++) {
            struct setting t = plain(k, dtypes[d], 1, 37, 0, 35);
            struct cpu_rows v = make_rows(&t);
            store_float((void *)pointers[0], t.dtype, channel,
                        dtypes[d] == RAPT_F16 ? 65504 : 3e38f);
            assert_int_equal(k->pack_v(panels, &v, 0, 35, 37, KEYS), 0);
            store_float((void *)pointers[(channel * 11) % 35], t.dtype, channel,
                        unusual[channel % 3]);
            if (k->pack_v(panels, &v, 0, 35, 37, KEYS) != 1)
                fail_msg("%s: pack_v missed %g in channel %lld of %s", k->name,
                         (double)unusual[channel % 3], (long long)channel, dtype_name(t.dtype));
        }
}

/* ---- Score options ---- */

static void check_score(const struct cpu_kernels *k, const struct cpu_score_row *r, int64_t first,
                        int64_t last)
{
    double x[KEYS];
    for (int64_t j = 0; j < KEYS; j++) x[j] = s[j] = j < first || j >= last ? MARK : 20 * number();
    k->score(s, r, first, last);
    for (int64_t j = 0; j < KEYS; j++) {
        double y = x[j], product = fabs(y * r->scale), added = 0;
        if (j >= first && j < last) {
            y *= r->scale;
            if (r->softcap != 0) y = r->softcap * tanh(y / r->softcap);
            if (r->bias) {
                double bias = load_float(r->bias, r->bias_dtype, j * r->bias_stride);
                y += bias;
                added += fabs(bias);
            }
            double slope = (double)r->slope * fabs((double)r->position - (double)j);
            y -= slope;
            added += fabs(slope);
            if (r->mask && !r->mask[j * r->mask_stride]) y = -INFINITY;
        }
        /* scale and softcap: six roundings; each addition one of everything so far. */
        double bound = isinf(y)                 ? 0
                       : j < first || j >= last ? 0
                                                : 0x1p-24 * (8 * product + 4 * added);
        if (!(s[j] == y || fabs(s[j] - y) <= bound))
            fail_msg("%s score: scale %g softcap %g slope %g position %lld: [%lld] is %.9g, not "
                     "%.9g +- %.2g",
                     k->name, (double)r->scale, (double)r->softcap, (double)r->slope,
                     (long long)r->position, (long long)j, (double)s[j], y, bound);
    }
}

static void score_options(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static float bias[2 * KEYS];
    static uint16_t half[2 * KEYS];
    static unsigned char mask[2 * KEYS];
    for (int i = 0; i < 2 * KEYS; i++) {
        bias[i] = 3 * number();
        mask[i] = number() < 0 ? 0 : (unsigned char)(1 + i % 255);
    }
    for (int n = 0; n < 512; n++) {
        int64_t dtype = n % 3 == 0   ? RAPT_F32
                        : n % 3 == 1 ? RAPT_F16
                                     : RAPT_BF16,
                first = n % 37, last = first + 1 + n * 7 % 150;
        for (int i = 0; i < 2 * KEYS; i++) store_float(half, RAPT_F16 + n % 3 / 2, i, bias[i]);
        struct cpu_score_row r = {.scale = n % 2 ? 0.125f : 1, .bias_dtype = dtype};
        if (n & 4) r.softcap = n % 5 ? 3 : 50;
        if (n & 8)
            r.slope = 0.0625f * (float)(1 + n % 9), r.position = n & 16  ? n - 100
                                                                 : n % 5 ? 1000000
                                                                         : INT64_C(1) << 40;
        if (n & 32) r.bias = dtype == RAPT_F32 ? (void *)bias : (void *)half;
        if (n & 64) r.mask = mask;
        r.bias_stride = n % 11 == 0 ? 0 : 1 + (n % 13 == 0);
        r.mask_stride = n % 7 == 0 ? 0 : 1 + (n % 17 == 0);
        check_score(k, &r, first, last);
    }
}

/* ---- Softmax ---- */

static double get_p(const struct cpu_kernels *k, const float *row, int64_t j)
{
    return k->pair == 1 ? row[j] : float_from_bf16(((const uint16_t *)row)[j]);
}

/* Relative error of p: the exponent's two roundings, the polynomial (bf16 pairs: a shorter one),
 * and bf16 itself. */
static double p_error(const struct cpu_kernels *k, double exponent)
{
    return fabs(exponent) * 0x1p-23 + (k->pair == 1 ? 4e-7 : 4e-6 + 0x1p-8);
}

/* Two blocks of keys over the same rows: the second may raise the maximum, and then o and l shrink.
 */
static void check_softmax(const struct cpu_kernels *k, int64_t first, int64_t last, float spread)
{
    float m[ROW_TILE_MAX], l[ROW_TILE_MAX], scale = 0.7f;
    double m_true[ROW_TILE_MAX], l_true[ROW_TILE_MAX], o_true[ROW_TILE_MAX];
    int64_t row_first[ROW_TILE_MAX], row_last[ROW_TILE_MAX], width = k->column_tile;
    for (int64_t r = 0; r < k->row_tile; r++)
        m[r] = -INFINITY, l[r] = 0, m_true[r] = -INFINITY, l_true[r] = 0, o_true[r] = NAN;
    for (int block = 0; block < 2; block++) {
        static double x[ROW_TILE_MAX][KEYS];
        for (int64_t r = 0; r < k->row_tile; r++) {
            row_first[r] = first + r * 3 % 20;
            row_last[r] = r == 2 ? row_first[r] : last - r * 5 % 30;
            for (int64_t j = 0; j < KEYS; j++) x[r][j] = s[r * KEYS + j] = spread * number();
            for (int64_t j = first; j < last; j++)
                if (r == 1 || j % 9 == 4) x[r][j] = s[r * KEYS + j] = -INFINITY;
            for (int64_t j = first; j < round_up(last, k->column_tile); j++)
                if (j < row_first[r] || j >= row_last[r])
                    x[r][j] = -INFINITY, s[r * KEYS + j] = NAN;
            for (int64_t c = 0; c < width; c++) o[r * CHANNELS + c] = l[r] > 0 ? 1 : NAN;
            if (l[r] > 0) o_true[r] = 1;
        }
        struct cpu_softmax_tile t = {s,     KEYS, k->row_tile, first, last,     row_first, row_last,
                                     scale, m,    l,           o,     CHANNELS, width};
        k->softmax(&t);
        for (int64_t r = 0; r < k->row_tile; r++) {
            double top = m_true[r], sum = 0;
            for (int64_t j = first; j < last; j++) top = x[r][j] > top ? x[r][j] : top;
            double shrink =
                top > m_true[r] && m_true[r] > -INFINITY ? exp2(scale * (m_true[r] - top)) : 1;
            for (int64_t j = first; j < round_up(last, k->pair); j++) {
                double p = j < last && x[r][j] > -INFINITY ? exp2(scale * (x[r][j] - top)) : 0,
                       got = get_p(k, s + r * KEYS, j);
                double bound =
                    p * p_error(k, scale * (x[r][j] - top)) + (k->pair == 1 ? 0x1p-149 : 0x1p-126);
                sum += p;
                if (p == 0 ? got != 0 : !(fabs(got - p) <= bound))
                    fail_msg("%s softmax: p[%lld][%lld] is %.9g, not %.9g +- %.2g", k->name,
                             (long long)r, (long long)j, got, p, bound);
            }
            l_true[r] = l_true[r] * shrink + sum;
            m_true[r] = top;
            o_true[r] *= shrink;
            if (m[r] != (float)top || !(fabs(l[r] - l_true[r]) <= 1e-5 * (1 + spread) * l_true[r]))
                fail_msg("%s softmax: row %lld: m %.9g l %.9g, not %.9g %.9g", k->name,
                         (long long)r, (double)m[r], (double)l[r], top, l_true[r]);
            for (int64_t c = 0; c < width; c++)
                if (!(isnan(o_true[r])
                          ? isnan(o[r * CHANNELS + c])
                          : fabs(o[r * CHANNELS + c] - o_true[r]) <= 1e-5 * (1 + spread)))
                    fail_msg("%s softmax: o[%lld][%lld] is %.9g, not %.9g", k->name, (long long)r,
                             (long long)c, (double)o[r * CHANNELS + c], o_true[r]);
        }
    }
}

static void softmax(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    for (int64_t first = 0; first <= 64; first += 64)
        for (int64_t last = first + 4; last <= KEYS; last += 3)
            for (int n = 0; n < 3; n++)
                check_softmax(k, first, last, n == 0 ? 1 : n == 1 ? 30 : 1e30f);
}

static void weights(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    for (int64_t first = 0; first < 40; first += 3)
        for (int64_t last = first + 1; last < KEYS; last += 11) {
            double x[KEYS];
            for (int64_t j = 0; j < KEYS; j++) x[j] = s[j] = j % 6 == 2 ? -INFINITY : 20 * number();
            k->weights(s, first, last, 1.25f, 20, 0.375f);
            for (int64_t j = 0; j < KEYS; j++) {
                int inside = j >= first && j < last;
                double p = inside ? 0.375 * exp2(1.25 * (x[j] - 20)) : x[j],
                       bound = inside ? p * (4e-7 + 64 * 0x1p-23) : 0;
                if (!(s[j] == p || fabs(s[j] - p) <= bound))
                    fail_msg("%s weights: [%lld] is %.9g, not %.9g", k->name, (long long)j,
                             (double)s[j], p);
            }
        }
}

/* Rows to f32 are exact; back they are rounded once, to nearest even, and nothing beside them is
 * touched. */
static void rows_to_floats(void **state)
{
    const struct cpu_kernels *k = ((const struct cpu_level *)*state)->kernels;
    static const int64_t dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    for (size_t d = 0; d < 3; d++)
        for (int64_t channels = 1; channels <= 70; channels++)
            for (int64_t stride = 1; stride <= 2; stride++) {
                unsigned char *row = data + dtype_size(dtypes[d]);
                memset(data, 0x5a, sizeof data);
                for (int64_t c = 0; c < channels; c++)
                    store_float(row, dtypes[d], c * stride, number());
                for (int64_t c = 0; c <= channels; c++) o[c] = MARK;
                k->load_row(o, row, dtypes[d], stride, channels);
                for (int64_t c = 0; c < channels; c++)
                    assert_true(o[c] == load_float(row, dtypes[d], c * stride));
                assert_true(o[channels] == MARK);
                for (int64_t c = 0; c < channels; c++) o[c] = number();
                k->store_row(row, dtypes[d], stride, o, 3, channels);
                for (int64_t c = 0; c < channels; c++) {
                    store_float(q_data, dtypes[d], 0, o[c] * 3);
                    assert_true(load_float(q_data, dtypes[d], 0) ==
                                load_float(row, dtypes[d], c * stride));
                }
                assert_int_equal(data[dtype_size(dtypes[d]) - 1], 0x5a);
                assert_int_equal(row[(size_t)(channels * stride) * dtype_size(dtypes[d])], 0x5a);
            }
}

/* What RAPT_CPU takes is the row's name. */
static void names(void **state)
{
    static const char *const rows[] = {
#define LEVEL(name, ...) #name,
#include "cpu/levels.def"
    };
    const struct cpu_level *level = *state;
    assert_string_equal(level->kernels->arch, rows[level - cpu_levels]);
    assert_memory_equal(level->kernels->name, "cpu_", 4);
    assert_string_equal(level->kernels->name + 4, level->kernels->arch);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void **state);
    } groups[] = {{"products", products},
                  {"magnitudes", magnitudes},
                  {"overflow", overflow},
                  {"NaN weights", nan_weights},
                  {"unusual values", unusual_values},
                  {"score options", score_options},
                  {"softmax", softmax},
                  {"weights", weights},
                  {"rows", rows_to_floats},
                  {"names", names}};
    enum { GROUPS = sizeof groups / sizeof *groups };
    static struct CMUnitTest tests[GROUPS * CPU_LEVELS];
    static char names[GROUPS * CPU_LEVELS][64];
    size_t count = 0;
    for (int i = 0; i < CPU_LEVELS; i++)
        for (size_t g = 0; g < GROUPS; g++) {
            if (cpu_permitted(cpu_features() & cpu_levels[i].needs) != cpu_levels[i].needs)
                continue;
            snprintf(names[count], sizeof names[count], "%s %s", cpu_levels[i].kernels->name,
                     groups[g].name);
            tests[count] = (struct CMUnitTest){names[count], groups[g].run, NULL, NULL,
                                               (void *)&cpu_levels[i]};
            count++;
        }
    return run_group("tile kernels", tests, count, NULL, NULL, argc, argv);
}
