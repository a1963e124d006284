/* rope.c: rotations where the row kernels' arithmetic ends, and what changes all of them at once. */
#include "backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

/* A position as large as its type, on an angle of one radian a step: the angle is what f64 makes of
 * the position, and its cosine and sine are true. Positions in one call reach into both sides of
 * ANGLE_MAX (cpu/ops.h). */
static void far_positions(void **state)
{
    enum { COUNT = 12 };
    static int64_t positions[COUNT] = {0,
                                       1599999,
                                       1600000,
                                       1600001,
                                       -1600001,
                                       1 << 30,
                                       (int64_t)1 << 40,
                                       -((int64_t)1 << 40),
                                       (int64_t)1 << 53,
                                       (int64_t)1 << 60,
                                       -((int64_t)1 << 62),
                                       INT64_MAX};
    static float x[COUNT * 2], out[COUNT * 2];
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = "cpu"};
    (void)state;
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    for (int i = 0; i < COUNT; i++) x[2 * i] = 1; /* turned, (1, 0) is the cosine and the sine */
    rapt_rope_args rope = {.struct_size = sizeof rope,
                           .x = rapt_tensor_bthd(x, RAPT_F32, 1, 1, COUNT, 2),
                           .out = rapt_tensor_bthd(out, RAPT_F32, 1, 1, COUNT, 2),
                           .position = rapt_tensor_bhtd(positions, RAPT_I64, 1, 1, COUNT, 1)};
    assert_int_equal(rapt_rope(rapt_device_at(context, 0), &rope, NULL), RAPT_OK);
    for (int i = 0; i < COUNT; i++) {
        double angle = (double)positions[i];
        if (!(fabs(out[2 * i] - cos(angle)) < 2e-7 && fabs(out[2 * i + 1] - sin(angle)) < 2e-7))
            fail_msg("position %lld: (%.9g, %.9g), not (%.9g, %.9g)", (long long)positions[i],
                     out[2 * i], out[2 * i + 1], cos(angle), sin(angle));
    }
    rapt_close(&context);
}

/* YaRN's magnitude, unless the caller gives another one (arXiv:2309.00071, section 3.4). */
static void magnitudes(void **state)
{
    double inverse[32], magnitude;
    rapt_rope_args a = {.scaling = RAPT_ROPE_YARN, .factor = 8, .original_context = 4096};
    (void)state;
    rope_frequencies(&a, 64, inverse, &magnitude);
    assert_true(fabs(magnitude - (0.1 * log(8) + 1)) < 1e-12);
    a.attention_factor = 1.25;
    rope_frequencies(&a, 64, inverse, &magnitude);
    assert_true(magnitude == 1.25);
    a.scaling = RAPT_ROPE_LINEAR; /* which has none */
    rope_frequencies(&a, 64, inverse, &magnitude);
    assert_true(magnitude == 1);
}

/* YaRN on a context so short that no pair turns once in it: the blend from kept to divided
 * frequencies has no width, and all pairs past its end are divided. */
static void a_blend_without_width(void **state)
{
    double inverse[32], plain[32], magnitude;
    rapt_rope_args a = {.scaling = RAPT_ROPE_PLAIN, .factor = 4, .original_context = 1};
    (void)state;
    rope_frequencies(&a, 64, plain, &magnitude);
    a.scaling = RAPT_ROPE_YARN;
    rope_frequencies(&a, 64, inverse, &magnitude);
    assert_true(inverse[0] == 1);
    for (int i = 1; i < 32; i++) assert_true(fabs(inverse[i] - plain[i] / 4) <= 1e-15 * plain[i]);
}

/* The pairs between which YaRN blends, by hand: rotary * ln(context / (2 pi turns)) / (2 ln theta),
 * rounded outwards or as they are, within 0 ... rotary - 1. */
static void limits_of_the_blend(void **state)
{
    enum { ROTARY = 64, PAIRS = ROTARY / 2 };
    static const struct {
        double context, theta, fast, slow, low, high;
        int64_t untruncated;
    } cases[] = {{4096, 0, 0, 0, 10, 23, 0},    /* 10.47, 22.51 */
                 {4096, 0, 8, 2, 15, 21, 0},    /* 15.29, 20.11 */
                 {4096, 0, 16, 0, 12, 23, 0},   /* 12.88 */
                 {4096, 0, 0, 4, 10, 18, 0},    /* 17.70 */
                 {4096, 1e6, 0, 0, 6, 16, 0},   /* 6.98, 15.01 */
                 {64, 0, 0, 0, 0, 9, 0},        /* -3.98, 8.06 */
                 {6, 0, 0, 0, 0, 0.5, 0},       /* -12.2, -0.16: no pair lies between */
                 {4096, 10, 1000, 0, 0, 63, 0}, /* -5.95, 90.1: past the last channel */
                 {4096, 0, 0, 0, 10.4722408103180265, 22.5134406368772743, 1},
                 {64, 0, 0, 0, 0, 8.0640008450061770, 1},
                 {6, 0, 0, 0, 0, 0.5, 1},
                 {4096, 10, 1000, 0, 0, 63, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double inverse[PAIRS], plain[PAIRS], magnitude;
        rapt_rope_args a = {.scaling = RAPT_ROPE_YARN,
                            .factor = 4,
                            .original_context = cases[i].context,
                            .theta = cases[i].theta,
                            .beta_fast = cases[i].fast,
                            .beta_slow = cases[i].slow,
                            .untruncated = cases[i].untruncated};
        rope_frequencies(&a, ROTARY, inverse, &magnitude);
        a.scaling = RAPT_ROPE_PLAIN;
        rope_frequencies(&a, ROTARY, plain, &magnitude);
        for (int pair = 0; pair < PAIRS; pair++) {
            double blend = (pair - cases[i].low) / (cases[i].high - cases[i].low);
            blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
            double want = plain[pair] * (1 - blend * 3 / 4);
            if (!(fabs(inverse[pair] - want) <= 1e-14 * want))
                fail_msg("case %zu, pair %d: %.17g, not %.17g", i, pair, inverse[pair], want);
        }
    }
}

/* gpt-oss: heads of 64 channels, and pairs 8.09 to 17.40 to blend between; rounded, 8 to 18. The
 * frequencies were worked out in decimal, with 50 digits. */
static void gpt_oss(void **state)
{
    static const struct {
        int pair;
        double truncated, untruncated;
    } want[] = {{8, 0.050813274815461473628, 0.050813274815461473628},
                {9, 0.031620752275346487904, 0.031705696184663765988},
                {13, 0.0040695547147582428178, 0.0038603593171920662812},
                {17, 2.2794779579512526326e-4, 1.2931870124506272061e-4},
                {18, 3.8308812373753382914e-5, 3.8308812373753382914e-5}};
    rapt_rope_args a = {.scaling = RAPT_ROPE_YARN,
                        .theta = 150000,
                        .factor = 32,
                        .original_context = 4096,
                        .beta_fast = 32,
                        .beta_slow = 1};
    (void)state;
    for (a.untruncated = 0; a.untruncated < 2; a.untruncated++) {
        double inverse[32], magnitude;
        rope_frequencies(&a, 64, inverse, &magnitude);
        assert_true(fabs(magnitude - 1.3465735902799727) < 1e-15);
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
            double got = inverse[want[i].pair],
                   expected = a.untruncated ? want[i].untruncated : want[i].truncated;
            if (!(fabs(got - expected) <= 1e-13 * expected))
                fail_msg("pair %d, untruncated %d: %.17g, not %.17g", want[i].pair,
                         (int)a.untruncated, got, expected);
        }
    }
}

/* NTK's base is theta * factor^(d / (d - 2)), which 2 channels have no use for. */
static void ntk_base(void **state)
{
    double inverse[2], magnitude;
    rapt_rope_args a = {.scaling = RAPT_ROPE_NTK, .factor = 3};
    (void)state;
    rope_frequencies(&a, 2, inverse, &magnitude);
    assert_true(inverse[0] == 1);
    a.factor = 0.5;
    rope_frequencies(&a, 2, inverse, &magnitude);
    assert_true(inverse[0] == 1);
    rope_frequencies(&a, 4, inverse, &magnitude); /* a base of 10000 / 4 */
    assert_true(inverse[0] == 1 && fabs(inverse[1] - 0.02) <= 1e-15);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(far_positions),
                                       cmocka_unit_test(magnitudes),
                                       cmocka_unit_test(a_blend_without_width),
                                       cmocka_unit_test(limits_of_the_blend),
                                       cmocka_unit_test(gpt_oss),
                                       cmocka_unit_test(ntk_base)};
    return run_group("rope", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
