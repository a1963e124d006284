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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(far_positions),
                                       cmocka_unit_test(magnitudes),
                                       cmocka_unit_test(a_blend_without_width)};
    return run_group("rope", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
