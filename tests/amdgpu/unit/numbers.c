/* Conversions of the narrow formats: every f16 and 8-bit code, and roundings against exact
 * arithmetic. */
#include "support.h"

#include <math.h>

#include "../fp8.h"

static void test_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        _Float16 x;
        uint16_t bits = (uint16_t)h;
        memcpy(&x, &bits, 2);
        float expected = (float)x, got = half_to_float(h);
        if (expected != expected) {
            assert_true(got != got);
            continue;
        }
        assert_memory_equal(&expected, &got, 4);
        assert_int_equal(float_to_half(got), h);
    }
}

static void test_half_rounding(void **state)
{
    uint64_t seed = 9;
    (void)state;
    for (int i = 0; i < 1000000; i++) {
        uint32_t u = (uint32_t)(next_random(&seed) >> 20);
        if (i & 1) u = (u & 0x8fffffff) | 0x30000000; /* near the range of f16 */
        float f = as_float(u);
        if (f != f) continue;
        _Float16 h = (_Float16)f;
        uint16_t expected;
        memcpy(&expected, &h, 2);
        assert_int_equal(float_to_half(f), expected);
    }
}

/* Rounding to odd in between must not change the rounding from f64 to f16. */
static void test_odd_rounding(void **state)
{
    uint64_t seed = 10;
    (void)state;
    for (int i = 0; i < 300000; i++) {
        double x = ldexp((double)(int64_t)next_random(&seed), -60 - i % 24);
        /* f16 neighbours of x, by exact distances */
        uint32_t near = float_to_half((float)x), got = float_to_half(double_to_float_odd(x));
        double best = INFINITY;
        uint32_t expected = 0;
        for (uint32_t c = (near ? near - 1 : 0); c <= near + 1; c++) {
            double distance = fabs((double)half_to_float(c) - x);
            if (distance < best || (distance == best && !(c & 1))) best = distance, expected = c;
        }
        if (best == 0 || (expected & 0x7fff) == 0) continue;
        assert_int_equal(got, expected);
    }
}

static void test_fp8(void **state)
{
    (void)state;
    for (int format = FP8_OCP; format <= BF8_FNUZ; format++) {
        float last = -1;
        for (uint32_t code = 0; code < 128; code++) { /* increasing, and back to the same code */
            float x = fp8_to_float(code, (enum fp8_format)format);
            if (x != x) continue;
            assert_true(x > last);
            assert_int_equal(float_to_fp8(x, (enum fp8_format)format), isinf(x) ? 0x7c : code);
            if (code && !isinf(x))
                assert_int_equal(float_to_fp8(-x, (enum fp8_format)format), code | 0x80);
            if (code > 1 && !isinf(x)) { /* the middle goes to the even code */
                float middle = (x + last) / 2;
                assert_int_equal(float_to_fp8(middle, (enum fp8_format)format),
                                 code & 1 ? code - 1 : code);
            }
            last = x;
        }
    }
    assert_true(fp8_to_float(0x7e, FP8_OCP) == 448);
    assert_true(fp8_to_float(0x7b, BF8_OCP) == 57344);
    assert_true(fp8_to_float(0x7f, FP8_FNUZ) == 240);
    assert_true(fp8_to_float(0x7f, BF8_FNUZ) == 57344);
    assert_true(isnan(fp8_to_float(0x80, FP8_FNUZ)));
    assert_int_equal(float_to_fp8(1000, FP8_OCP), 0x7f);
    assert_int_equal(float_to_fp8(-1e6f, BF8_OCP), 0xfc);
    assert_int_equal(float_to_fp8(1000, FP8_FNUZ), 0x80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half),
        cmocka_unit_test(test_half_rounding),
        cmocka_unit_test(test_odd_rounding),
        cmocka_unit_test(test_fp8),
    };
    return cmocka_run_group_tests_name("amdgpu numbers", tests, NULL, NULL);
}
