/* ops_rows.c: the row kernels (softmax, rotations, angles, copies) of every instruction set against
 * f64. Memory around a row is NaN, and what a kernel may not write is compared afterwards. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "cpu/ops.h"

#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "numbers.h"

enum { EDGE = 64, LONGEST = 9000 };

static const int64_t dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
/* A row between poisoned edges. */
static _Alignas(64) unsigned char from_memory[(LONGEST + 2 * EDGE) * 4],
    to_memory[(LONGEST + 2 * EDGE) * 4];
static double expected[LONGEST];

static void *row_of(unsigned char *memory, int64_t dtype)
{
    memset(memory, 0xff, sizeof from_memory);
    return memory + EDGE * dtype_size(dtype);
}

/* The unit in the last place of x in a dtype, subnormals included, times a half: what storing
 * rounds by. */
static double half_ulp(int64_t dtype, double x)
{
    static const int digits[] = {[RAPT_F32] = 24, [RAPT_F16] = 11, [RAPT_BF16] = 8};
    static const double smallest[] = {
        [RAPT_F32] = 0x1p-150, [RAPT_F16] = 0x1p-25, [RAPT_BF16] = 0x1p-134};
    return fmax(ldexp(fabs(x), -digits[dtype]), smallest[dtype]);
}

static void assert_edges(const unsigned char *memory, int64_t dtype, int64_t n, const char *what)
{
    size_t size = dtype_size(dtype), end = (size_t)(EDGE + n) * size;
    for (size_t i = 0; i < EDGE * size; i++)
        if (memory[i] != 0xff || memory[end + i] != 0xff)
            fail_msg("%s wrote outside its row of %lld", what, (long long)n);
}

/* ---- softmax ---- */

/* e^(x - m): the difference is rounded to f32, which moves the power by |x - m| 2^-24; the power
 * itself is good to 3e-7, or 2.9e-6 for f16 and bf16, once in a term and once in the sum
 * (vec_math.h); sums of n terms in at least 16 parts are good to n 2^-24 /
 * 16 (scalar: errors of both signs). */
static void compare_softmax(const struct cpu_level *level, int64_t dtype, int64_t n,
                            const void *from, const void *to)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, load_float(from, dtype, i));
    for (int64_t i = 0; i < n; i++) sum += expected[i] = exp(load_float(from, dtype, i) - largest);
    for (int64_t i = 0; i < n; i++) {
        double p = expected[i] / sum, got = load_float(to, dtype, i),
               fall = largest - load_float(from, dtype, i);
        double bound = p * (6e-7 + fmin(fall, 200) * 0x1p-24 + (double)n * 0x1p-24 / 16) +
                       half_ulp(dtype, p) + 0x1p-126 + (dtype == RAPT_F32 ? 0 : p * 6e-6);
        if (!(fabs(got - p) <= bound))
            fail_msg("%s softmax %s n %lld [%lld]: %.9g, not %.9g +- %.2g", level->rows->name,
                     dtype_name(dtype), (long long)n, (long long)i, got, p, bound);
    }
}

static _Alignas(64) float scratch[2][SOFTMAX_SCRATCH];
static struct softmax_rows state_of_rows = {{scratch[0], scratch[1]}, .columns = SOFTMAX_SCRATCH};
/* With memory for the longest rows, as much as they need in lines. */
enum { WIDE = (LONGEST + 15) / 16 * 16 };
static _Alignas(64) float wide_scratch[2][WIDE];
static struct softmax_rows wide_state = {{wide_scratch[0], wide_scratch[1]}, .columns = WIDE};

static void softmax_rows(void **state)
{
    const struct cpu_level *level = *state;
    static const int64_t lengths[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 100, 1000, 4096, 4097, 9000};
    static const float spreads[] = {0, 1, 20, 60000};
    for (int d = 0; d < 3; d++)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
            for (int s = 0; s < 8; s++) {
                struct softmax_rows *rows = s < 4 ? &state_of_rows : &wide_state;
                void *from = row_of(from_memory, dtypes[d]), *to = row_of(to_memory, dtypes[d]);
                for (int64_t i = 0; i < lengths[l]; i++)
                    store_float(from, dtypes[d], i, spreads[s % 4] * number());
                if (s % 4 == 1 && lengths[l] > 1)
                    store_float(from, dtypes[d], lengths[l] / 2, -INFINITY);
                level->rows->softmax(to, dtypes[d], from, dtypes[d], lengths[l], rows, s % 2);
                level->rows->softmax_end(rows);
                if (level->rows->stream_end) level->rows->stream_end();
                compare_softmax(level, dtypes[d], lengths[l], from, to);
                assert_edges(to_memory, dtypes[d], lengths[l], "softmax");
            }
}

static void softmax_special(void **state)
{
    const struct cpu_level *level = *state;
    static const int64_t lengths[] = {1, 5, 16, 40, 300, 4096, 4100};
    for (int d = 0; d < 3; d++)
        for (size_t l = 0; l < 2 * sizeof lengths / sizeof *lengths; l++)
            for (int special = 0; special < 8; special++) {
                int nan = special / 2, stream = special % 2;
                int64_t n = lengths[l / 2], at = l % 2 ? n / 3 : 0;
                void *from = row_of(from_memory, dtypes[d]), *to = row_of(to_memory, dtypes[d]);
                for (int64_t i = 0; i < n; i++)
                    store_float(from, dtypes[d], i, nan % 2 ? number() : -INFINITY);
                if (nan) store_float(from, dtypes[d], at, nan == 3 ? INFINITY : NAN);
                level->rows->softmax(to, dtypes[d], from, dtypes[d], n, &state_of_rows, stream);
                level->rows->softmax_end(&state_of_rows);
                if (level->rows->stream_end) level->rows->stream_end();
                assert_edges(to_memory, dtypes[d], n, "softmax");
                for (int64_t i = 0; i < n; i++) {
                    float got = load_float(to, dtypes[d], i);
                    if (nan ? !isnan(got) : got != 0)
                        fail_msg("%s softmax n %lld [%lld]: %g", level->rows->name, (long long)n,
                                 (long long)i, got);
                }
            }
}

/* Values so large that their own rounding is larger than what an exponent can be, some hidden. */
static void softmax_far(void **state)
{
    const struct cpu_level *level = *state;
    static const float bases[] = {5e6f, -5e6f, 1e9f, -1e9f, 1e20f, -1e20f, 3e38f, -3e38f};
    static const int64_t lengths[] = {5, 40, 300, 4100};
    for (int c = 0; c < 8 * 4 * 2 * 2; c++) {
        int64_t n = lengths[c / 8 % 4], dtype = c / 32 % 2 ? RAPT_BF16 : RAPT_F32;
        void *from = row_of(from_memory, dtype), *to = row_of(to_memory, dtype);
        for (int64_t i = 0; i < n; i++)
            store_float(from, dtype, i,
                        c / 64 && i % 3 == 1 ? -INFINITY
                                             : bases[c % 8] * (1 - 0x1p-21f * (float)(i * 7 % 5)));
        level->rows->softmax(to, dtype, from, dtype, n, &state_of_rows, 0);
        level->rows->softmax_end(&state_of_rows);
        compare_softmax(level, dtype, n, from, to);
    }
}

/* Rows of one state, stored while the next is computed: what a row that is done in another way
 * leaves of the one before it. Fall: how far the first elements lie below the rest; 88.5: where their
 * terms are about 2^127.5, at which some levels turn to infinity (v_scale2_normal). */
static void softmax_in_turn(void **state)
{
    enum { ROWS = 8, COLUMNS = 300, HIDDEN = 3 };
    static const float fall[ROWS] = {0, 5, 100, 0, 6e4f, 8, 88.5f, 0};
    const struct cpu_level *level = *state;
    for (int d = 0; d < 3; d++)
        for (int stream = 0; stream < 2; stream++) {
            size_t size = dtype_size(dtypes[d]), step = COLUMNS * size;
            char *from = row_of(from_memory, dtypes[d]), *to = row_of(to_memory, dtypes[d]);
            for (int64_t i = 0; i < ROWS * COLUMNS; i++)
                store_float(from, dtypes[d], i,
                            i / COLUMNS == HIDDEN
                                ? -INFINITY
                                : number() - (i % COLUMNS < 100 ? fall[i / COLUMNS] : 0));
            for (size_t r = 0; r < ROWS; r++)
                level->rows->softmax(to + r * step, dtypes[d], from + r * step, dtypes[d], COLUMNS,
                                     &state_of_rows, stream);
            level->rows->softmax_end(&state_of_rows);
            if (level->rows->stream_end) level->rows->stream_end();
            assert_edges(to_memory, dtypes[d], ROWS * COLUMNS, "softmax");
            for (size_t r = 0; r < ROWS; r++)
                if (r != HIDDEN)
                    compare_softmax(level, dtypes[d], COLUMNS, from + r * step, to + r * step);
            for (int64_t i = 0; i < COLUMNS; i++)
                assert_true(load_float(to + HIDDEN * step, dtypes[d], i) == 0);
        }
}

/* ---- rotations ---- */

enum { TURNED = 3 }; /* rows of a run */

static float cosine[TURNED * ROPE_PAIRS_MAX], sine[TURNED * ROPE_PAIRS_MAX];

/* Rows a step apart, with angles of their own or shared; the channels between them stay. */
static void compare_rotation(const struct cpu_level *level, int64_t dtype, int64_t pairs,
                             int interleaved, int shared, int stream)
{
    void *from = row_of(from_memory, dtype), *to = row_of(to_memory, dtype);
    int64_t step = interleaved ? 2 : 1, other = interleaved ? 1 : pairs,
            apart = stream ? (2 * pairs + 63) / 32 * 32 : 2 * pairs + 3,
            size = (int64_t)dtype_size(dtype);
    struct row_run run = {.to = to,
                          .from = from,
                          .to_step = apart * size,
                          .from_step = apart * size,
                          .rows = TURNED,
                          .table_step = shared ? 0 : pairs,
                          .stream = stream};
    for (int64_t i = 0; i < TURNED * pairs; i++) {
        double angle = 3 * number();
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    memset(expected, 0, sizeof expected);
    for (int64_t r = 0; r < TURNED; r++)
        for (int64_t i = 0; i < pairs; i++) {
            int64_t low = r * apart + i * step, high = low + other,
                    a = (shared ? 0 : r) * pairs + i;
            store_float(from, dtype, low, number());
            store_float(from, dtype, high, number());
            double x = load_float(from, dtype, low), y = load_float(from, dtype, high);
            expected[low] = x * cosine[a] - y * sine[a];
            expected[high] = y * cosine[a] + x * sine[a];
        }
    level->rows->rotate(&run, dtype, cosine, sine, pairs, interleaved);
    if (level->rows->stream_end) level->rows->stream_end();
    assert_edges(to_memory, dtype, TURNED * apart, "rotation");
    for (int64_t i = 0; i < TURNED * apart; i++) {
        double got = load_float(to, dtype, i), bound = 4 * 0x1p-24 + half_ulp(dtype, expected[i]);
        if (i % apart < 2 * pairs ? !(fabs(got - expected[i]) <= bound) : !isnan(got))
            fail_msg("%s rotation %s pairs %lld interleaved %d [%lld]: %.9g, not %.9g",
                     level->rows->name, dtype_name(dtype), (long long)pairs, interleaved,
                     (long long)i, got, expected[i]);
    }
    run.to = from;
    run.stream = 0;
    level->rows->rotate(&run, dtype, cosine, sine, pairs, interleaved);
    assert_memory_equal(from, to, (size_t)(TURNED * apart * size)); /* in place: the same bits */
}

static void rotations(void **state)
{
    static const int64_t pairs[] = {1, 3, 4, 7, 8, 9, 16, 20, 32, 33, 64, 128};
    for (int d = 0; d < 3; d++)
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
            for (int form = 0; form < 8; form++)
                compare_rotation(*state, dtypes[d], pairs[i], form & 1, form >> 1 & 1, form >> 2);
}

static void expect_angles(const struct cpu_level *level, const float *c, const float *s,
                          int64_t position, const double *inverse, int64_t pairs)
{
    for (int64_t i = 0; i < pairs; i++) {
        double angle = (double)position * inverse[i];
        if (fabs(c[i] - 1.25 * cos(angle)) > 1.3e-7 || fabs(s[i] - 1.25 * sin(angle)) > 1.3e-7)
            fail_msg("%s angles of %lld * %g: %.9g %.9g", level->rows->name, (long long)position,
                     inverse[i], c[i], s[i]);
    }
}

/* The angle itself is rounded once in f64, by up to 1.2e-10 at ANGLE_MAX; the result once to f32. A
 * position of a run has the bits that it has alone. */
static void angles(void **state)
{
    enum { RUN = 37, PAIRS_OF_RUN = 53 };
    const struct cpu_level *level = *state;
    static const int64_t positions[] = {0,      1,       -1,     2,       100,     4095,
                                        131071, -131072, 999999, 1599960, -1599999};
    static double inverse[ROPE_PAIRS_MAX];
    static float run_cosine[RUN * PAIRS_OF_RUN], run_sine[RUN * PAIRS_OF_RUN];
    for (int64_t i = 0; i < ROPE_PAIRS_MAX; i++) inverse[i] = pow(10000, -(double)i / 64);
    for (size_t n = 0; n < sizeof positions / sizeof *positions; n++) {
        for (int64_t pairs = 1; pairs <= ROPE_PAIRS_MAX; pairs = pairs * 3 + 1) {
            level->rows->angles(cosine, sine, positions[n], 1, inverse, 1.25, pairs);
            expect_angles(level, cosine, sine, positions[n], inverse, pairs);
        }
        level->rows->angles(run_cosine, run_sine, positions[n], RUN, inverse, 1.25, PAIRS_OF_RUN);
        for (int64_t r = 0; r < RUN; r++) {
            const float *c = run_cosine + r * PAIRS_OF_RUN, *s = run_sine + r * PAIRS_OF_RUN;
            expect_angles(level, c, s, positions[n] + r, inverse, PAIRS_OF_RUN);
            level->rows->angles(cosine, sine, positions[n] + r, 1, inverse, 1.25, PAIRS_OF_RUN);
            assert_memory_equal(c, cosine, PAIRS_OF_RUN * sizeof *c);
            assert_memory_equal(s, sine, PAIRS_OF_RUN * sizeof *s);
        }
    }
}

/* ---- copies ---- */

/* A copy and a fill at every kind of alignment: the bytes themselves and nothing around them. */
static void copies(void **state)
{
    const struct cpu_level *level = *state;
    unsigned char line[64];
    memset(line, 0x5a, sizeof line);
    if (!level->rows->copy_stream || !level->rows->fill) return;
    for (size_t offset = 0; offset < 130; offset += 13)
        for (size_t bytes = 0; bytes < 1000; bytes += 37)
            for (int fill = 0; fill < 3; fill++) {
                memset(to_memory, 0xff, sizeof to_memory);
                for (size_t i = 0; i < bytes; i++)
                    from_memory[i + 5] = fill ? 0x5a : (unsigned char)(i * 7);
                if (fill) level->rows->fill(to_memory + offset, line, bytes, fill == 2);
                else {
                    level->rows->copy_stream(to_memory + offset, from_memory + 5, bytes);
                    level->rows->repeat_stream(to_memory + 2000 + offset, 1100, 3, from_memory + 5,
                                               bytes);
                }
                level->rows->stream_end();
                assert_memory_equal(to_memory + offset, from_memory + 5, bytes);
                for (size_t i = 0; i < 3 && !fill; i++) {
                    const unsigned char *copy = to_memory + 2000 + offset + i * 1100;
                    assert_memory_equal(copy, from_memory + 5, bytes);
                    assert_int_equal(copy[-1], 0xff);
                    assert_int_equal(copy[bytes], 0xff);
                }
                for (size_t i = 0; i < offset; i++) assert_int_equal(to_memory[i], 0xff);
                for (size_t i = 0; i < 64; i++)
                    assert_int_equal(to_memory[offset + bytes + i], 0xff);
            }
}

/* ---- Conversions ---- */

/* From low to high. */
static int between(int low, int high)
{
    return low + (int)((number() + 1) / 2 * (float)(high - low + 1));
}

/* Of all kinds: 16-bit types, what they round from, ties, overflow, subnormal numbers, NaN whose upper half is that of
 * infinity. */
static float float_of_kind(int64_t i)
{
    static const uint32_t bits[] = {0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x7f7fffff,
                                    0x80000000, 0x00000001, 0x007fffff, 0x00800000, 0x477fefff,
                                    0x477ff000, 0x33000000, 0x33000001, 0x387fffff, 0x3f808000,
                                    0x3f818000, 0x3f808001, 0x3f801000, 0x3f803000, 0x7f7f8000};
    enum { KINDS = sizeof bits / sizeof *bits };
    float x;
    number();
    uint32_t any = i % 3 ? bits[i / 3 % KINDS] : seed ^ seed >> 16;
    memcpy(&x, &any, sizeof x);
    return x;
}

static int same_number(int64_t dtype, const void *x, const void *y, int64_t i)
{
    float a = load_float(x, dtype, i), b = load_float(y, dtype, i);
    return (isnan(a) && isnan(b)) || (a == b && !signbit(a) == !signbit(b));
}

/* Rows a step apart, what lies between them left alone; into the caches and past them. */
static void compare_conversion(const struct cpu_level *level, int64_t to_dtype, int64_t from_dtype,
                               int64_t n, int stream)
{
    enum { ROWS = 3 };
    static float wanted[LONGEST];
    int64_t step = stream ? (n + 31) / 32 * 32 : n + 3, to_size = (int64_t)dtype_size(to_dtype),
            from_size = (int64_t)dtype_size(from_dtype);
    unsigned char *to = row_of(to_memory, to_dtype), *from = from_memory;
    struct row_run run = {.to = to,
                          .from = from,
                          .to_step = step * to_size,
                          .from_step = (n + 1) * from_size,
                          .rows = ROWS,
                          .stream = stream};
    for (int64_t i = 0; i < ROWS * (n + 1); i++)
        store_float(from, from_dtype, i, float_of_kind(i + n));
    level->rows->convert(&run, to_dtype, from_dtype, n);
    if (level->rows->stream_end) level->rows->stream_end();
    assert_edges(to_memory, to_dtype, ROWS * step, "convert");
    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t i = 0; i < step; i++) {
            float x = load_float(from, from_dtype, r * (n + 1) + i);
            if (i < n) store_float(wanted, to_dtype, r * step + i, x);
            else memset((char *)wanted + (r * step + i) * to_size, 0xff, (size_t)to_size);
            if (!same_number(to_dtype, to, wanted, r * step + i))
                fail_msg("%s: %a in %s becomes %a in %s, not %a", level->rows->name, (double)x,
                         dtype_name(from_dtype), (double)load_float(to, to_dtype, r * step + i),
                         dtype_name(to_dtype), (double)load_float(wanted, to_dtype, r * step + i));
        }
}

static void conversions(void **state)
{
    for (int pair = 0; pair < 9; pair++)
        for (int64_t n = 0; n < 4 * EDGE; n += n < 70 ? 1 : 31)
            for (int stream = 0; stream < 2; stream++)
                compare_conversion(*state, dtypes[pair / 3], dtypes[pair % 3], n, stream);
}

/* The largest magnitude wherever it is, NaN above infinity; integers within half of one, and -127 to 127 however the
 * caller rounds. */
static void integers(void **state)
{
    const struct cpu_level *level = *state;
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    static float x[LONGEST];
    for (int64_t n = 1; n < 4 * EDGE; n += n < 70 ? 1 : 31)
        for (int m = 0; m < 4; m++) {
            float top = ldexpf(1 + (float)between(0, 4096) / 4096, between(-100, 100));
            for (int64_t i = 0; i < n; i++) x[i] = top * (float)between(-4096, 4096) / 4096;
            int64_t place = between(0, (int)n - 1);
            x[place] = (n + m) % 2 ? -top : top;
            uint32_t bits;
            memcpy(&bits, &top, sizeof bits);
            assert_int_equal(level->rows->largest(x, n), bits);
            int8_t *to = (int8_t *)row_of(to_memory, RAPT_F32);
            fesetround(modes[m]);
            volatile float most = 127, inverse = most / top; /* after the mode */
            level->rows->integers(to, x, n, inverse);
            fesetround(FE_TONEAREST);
            assert_true(abs(to[place]) >= (m ? 126 : 127) && to[place] != -128);
            assert_true((to[place] < 0) == (x[place] < 0));
            assert_int_equal(to_memory[4 * EDGE - 1], 0xff);
            assert_int_equal((unsigned char)to[n], 0xff);
            for (int64_t i = 0; i < n; i++) {
                double off = fabs(to[i] - (double)x[i] * (double)inverse);
                if (!(off <= (m ? 1 : 0.5) + 127 * 0x1p-22))
                    fail_msg("%s: %a times %a is %d", level->rows->name, (double)x[i],
                             (double)inverse, to[i]);
            }
            x[place] = INFINITY;
            assert_int_equal(level->rows->largest(x, n), 0x7f800000);
            x[place] = NAN;
            assert_true(level->rows->largest(x, n) > 0x7f800000);
        }
}

/* Rows of blocks, each by its own largest magnitude: zeros, subnormal numbers, infinity and NaN among them. The
 * bytes and scales between the rows stay. */
static void compare_quantised(const struct cpu_level *level, int64_t dtype, int64_t width,
                              int64_t blocks, int stream)
{
    enum { ROWS = 5 };
    static float scale[ROWS * 8 * 2], x[LONGEST];
    int64_t n = width * blocks, step = stream ? (n + 63) / 64 * 64 : n + 5, apart = 2 * blocks;
    size_t size = dtype_size(dtype);
    int8_t *to = (int8_t *)row_of(to_memory, RAPT_F32);
    struct row_run run = {.to = to,
                          .from = from_memory,
                          .to_step = step,
                          .from_step = n * (int64_t)size,
                          .rows = ROWS,
                          .stream = stream};
    struct row_scales scales = {scale, apart, blocks, 2};
    memset(scale, 0xff, sizeof scale);
    for (int64_t i = 0; i < ROWS * n; i++) {
        int kind = (int)((i / width + width) % 7);
        float top = kind == 3 ? 0x1p-14f : kind == 4 ? 0 : 1000;
        x[i] = (i % n % width == (width / 2 + i / n) % width ? 1 : number()) * top;
        if (dtype != RAPT_F16 && kind == 3) x[i] *= 0x1p-118f;
        if (i % width == width - 1 && kind > 4) x[i] = kind == 5 ? -INFINITY : NAN;
        store_float(from_memory, dtype, i, x[i]);
        x[i] = load_float(from_memory, dtype, i);
    }
    level->rows->quantise(&run, &scales, dtype, n);
    if (level->rows->stream_end) level->rows->stream_end();
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t i = n; i < step; i++) assert_int_equal(to[r * step + i], -1);
        for (int64_t b = 0; b < blocks; b++) {
            const float *own = x + r * n + b * width;
            const int8_t *got = to + r * step + b * width;
            float largest = 0, s = scale[r * apart + b * 2];
            for (int64_t i = 0; i < width; i++)
                largest = isnan(own[i]) ? INFINITY : fmaxf(largest, fabsf(own[i]));
            if (!isfinite(largest)) assert_true(isnan(s));
            else assert_true(s == (largest ? fmaxf(largest / 127, 0x1p-126f) : 0));
            assert_true(isnan(scale[r * apart + b * 2 + 1]));
            for (int64_t i = 0; i < width; i++)
                if (isnan(s) ? got[i] != 1
                             : !(fabs((double)got[i] * s - own[i]) <= (0.5 + 127 * 0x1p-22) * s))
                    fail_msg("%s: %a in %s by %a becomes %d", level->rows->name, (double)own[i],
                             dtype_name(dtype), (double)s, got[i]);
        }
    }
    assert_int_equal((unsigned char)to[-1], 0xff);
    assert_int_equal((unsigned char)to[ROWS * step], 0xff);
}

static void quantised(void **state)
{
    static const int64_t widths[] = {1, 2, 7, 16, 31, 32, 33, 64, 96, 100, 128, 160, 257};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int64_t blocks = 1; blocks <= 4; blocks += blocks)
            for (int form = 0; form < 6; form++)
                compare_quantised(*state, dtypes[form / 2], widths[w], blocks, form % 2);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void **state);
    } groups[] = {{"softmax", softmax_rows},
                  {"softmax of nothing and NaN", softmax_special},
                  {"softmax of rows in turn", softmax_in_turn},
                  {"softmax of far values", softmax_far},
                  {"rotations", rotations},
                  {"angles", angles},
                  {"copies", copies},
                  {"conversions", conversions},
                  {"integers", integers},
                  {"rows of integers", quantised}};
    enum { GROUPS = sizeof groups / sizeof *groups };
    struct CMUnitTest tests[GROUPS * CPU_LEVELS];
    static char names[GROUPS * CPU_LEVELS][64];
    size_t count = 0;
    seed = 7;
    for (int i = 0; i < CPU_LEVELS; i++)
        for (int g = 0; g < GROUPS; g++) {
            if (!cpu_levels[i].rows ||
                (cpu_features() & cpu_levels[i].needs) != cpu_levels[i].needs)
                continue;
            snprintf(names[count], sizeof names[count], "%s %s", cpu_levels[i].rows->name,
                     groups[g].name);
            tests[count] = (struct CMUnitTest){names[count], groups[g].run, NULL, NULL,
                                               (void *)&cpu_levels[i]};
            count++;
        }
    return _cmocka_run_group_tests("row kernels", tests, count, NULL, NULL);
}
