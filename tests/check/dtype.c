/* dtype.c: conversions of f16 and bf16: every value both ways, and every boundary of rounding to
 * nearest even. */
#include "base/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "group.h"

/* A 16-bit type: conversions, its infinity's bits, and its value by the definition of the format.
 */
struct type {
    const char *name;
    float (*to_float)(uint16_t x);
    uint16_t (*from_float)(float x);
    int mantissa, bias;
};

static struct type types[] = {{"f16", float_from_f16, f16_from_float, 10, 15},
                              {"bf16", float_from_bf16, bf16_from_float, 7, 127}};

static uint16_t infinity_of(const struct type *t)
{
    return (uint16_t)(0x7fff & ~((1 << t->mantissa) - 1));
}

static double value_of(const struct type *t, uint16_t x)
{
    int exponent = (x & 0x7fff) >> t->mantissa, fraction = x & ((1 << t->mantissa) - 1);
    double magnitude = exponent ? ldexp(1 + ldexp(fraction, -t->mantissa), exponent - t->bias)
                                : ldexp(fraction, 1 - t->bias - t->mantissa);
    return x & 0x8000 ? -magnitude : magnitude;
}

static void every_value(void **state)
{
    const struct type *t = *state;
    for (uint32_t x = 0; x < 0x10000; x++) {
        float f = t->to_float((uint16_t)x);
        uint16_t magnitude = x & 0x7fff, infinity = infinity_of(t);
        if (magnitude > infinity) {
            assert_true(isnan(f) && isnan(t->to_float(t->from_float(f))));
            continue;
        }
        if (magnitude == infinity) assert_true(isinf(f) && (f < 0) == (x > 0x7fff));
        else assert_true((double)f == value_of(t, (uint16_t)x));
        assert_int_equal(t->from_float(f), x);
    }
}

/* Between neighbours a and b: the middle goes to the even one, the floats around it to the nearer
 * one; beyond the largest number the middle and more are infinite. */
static void every_boundary(void **state)
{
    const struct type *t = *state;
    uint16_t infinity = infinity_of(t);
    for (uint16_t a = 0; a < infinity; a++) {
        uint16_t b = (uint16_t)(a + 1), even = a & 1 ? b : a;
        double above = b == infinity ? ldexp(1, 16 * (t->bias == 15) + 128 * (t->bias == 127))
                                     : value_of(t, b);
        float middle = (float)((value_of(t, a) + above) / 2);
        assert_int_equal(t->from_float(middle), even);
        assert_int_equal(t->from_float(-middle), even | 0x8000);
        assert_int_equal(t->from_float(nextafterf(middle, INFINITY)), b);
        assert_int_equal(t->from_float(nextafterf(middle, 0)), a);
    }
}

static void names_and_sizes(void **state)
{
    (void)state;
    assert_int_equal(dtype_size(RAPT_F32), 4);
    assert_int_equal(dtype_size(RAPT_BF16), 2);
    assert_int_equal(dtype_size(RAPT_I64), 8);
    assert_int_equal(dtype_size(0), 0);
    assert_int_equal(dtype_size(-5), 0);
    assert_int_equal(dtype_size(1000), 0);
    assert_string_equal(dtype_name(RAPT_I8), "i8");
    assert_string_equal(dtype_name(99), "unknown");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        {"every_value_f16", every_value, NULL, NULL, &types[0]},
        {"every_value_bf16", every_value, NULL, NULL, &types[1]},
        {"every_boundary_f16", every_boundary, NULL, NULL, &types[0]},
        {"every_boundary_bf16", every_boundary, NULL, NULL, &types[1]},
        cmocka_unit_test(names_and_sizes)};
    return run_group("dtype", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
