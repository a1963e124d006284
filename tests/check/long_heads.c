/* long_heads.c: the largest scores that i8 keys can give, at and past the numbers of channels up to which levels sum in
 * 32-bit integers: every element of q, K and V is as large as its type allows, so that a sum that overflows shows; and
 * with scales of keys so large that such a sum times one of them would; and an infinity of q, of which other blocks of
 * channels know nothing. */
#include "cpu/levels.h"
#include "rapt/rapt.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

enum { CHANNELS = 2048, KEYS = 150, QUERIES = 20, V_CHANNELS = 40, BF16_ONE = 0x3f80 };

static uint16_t q[QUERIES * CHANNELS], out[QUERIES * V_CHANNELS];
static int8_t k[KEYS * CHANNELS], v[KEYS * V_CHANNELS];
static float scale = 1.0f / 128, k_scale, lse[QUERIES];

static rapt_attention attention(int64_t queries, int64_t channels, int power)
{
    rapt_attention a = {.struct_size = sizeof a, .scale = ldexp(1.0 / (double)channels, -power)};
    k_scale = ldexpf(scale, power);
    a.q = rapt_tensor_bhtd(q, RAPT_BF16, 1, 1, queries, channels);
    a.k = rapt_tensor_bhtd(k, RAPT_I8, 1, 1, KEYS, channels);
    a.v = rapt_tensor_bhtd(v, RAPT_I8, 1, 1, KEYS, V_CHANNELS);
    a.k_scale = a.v_scale = (rapt_tensor){&scale, RAPT_F32, {1, 1, KEYS, 1}, {0, 0, 0, 1}};
    a.k_scale.data = &k_scale;
    a.out = rapt_tensor_bhtd(out, RAPT_BF16, 1, 1, queries, V_CHANNELS);
    a.lse = rapt_tensor_bhtd(lse, RAPT_F32, 1, 1, queries, 1);
    return a;
}

/* Each score is value / 128, each output value / 128. */
static void check(rapt_device *device, const char *level, int64_t queries, int64_t channels,
                  int value, int power)
{
    rapt_attention a = attention(queries, channels, power);
    double expected = value / 128.0 + log(KEYS);
    memset(k, value, sizeof k);
    memset(v, value, sizeof v);
    memset(out, 0xff, sizeof out);
    for (int64_t i = 0; i < queries * channels; i++) q[i] = BF16_ONE;
    if (rapt_forward(device, &a, NULL)) fail_msg("%s: %s", level, rapt_last_error());
    for (int64_t r = 0; r < queries; r++) {
        if (!(fabs(lse[r] - expected) <= 1e-5))
            fail_msg("%s: %d queries, %d channels, k %d times 2^%d: lse %.9g, not %.9g", level,
                     (int)queries, (int)channels, value, power, (double)lse[r], expected);
        for (int64_t c = 0; c < V_CHANNELS; c++) {
            uint32_t bits = (uint32_t)out[r * V_CHANNELS + c] << 16;
            float x;
            memcpy(&x, &bits, sizeof x);
            if (!(fabs(x - value / 128.0) <= 0x1p-8))
                fail_msg("%s: %d queries, v %d: %g", level, (int)queries, value, (double)x);
        }
    }
}

/* Every score is -infinity, so that a row is 0. */
static void check_infinity(rapt_device *device, const char *level, int64_t queries)
{
    static float scales[KEYS * 4];
    enum { BLOCKED = 128, MINUS_INFINITY = 0xff80 };
    rapt_attention a = attention(queries, BLOCKED, 0);
    for (int i = 0; i < KEYS * 4; i++) scales[i] = 1.0f / 128;
    a.k_scale = rapt_tensor_bhtd(scales, RAPT_F32, 1, 1, KEYS, 4);
    memset(k, 5, sizeof k);
    memset(v, 5, sizeof v);
    memset(out, 0xff, sizeof out);
    for (int64_t i = 0; i < queries * BLOCKED; i++)
        q[i] = i % BLOCKED == 40 ? MINUS_INFINITY : BF16_ONE;
    if (rapt_forward(device, &a, NULL)) fail_msg("%s: %s", level, rapt_last_error());
    for (int64_t r = 0; r < queries; r++) {
        if (lse[r] != -INFINITY)
            fail_msg("%s: %d queries, lse %g", level, (int)queries, (double)lse[r]);
        for (int64_t c = 0; c < V_CHANNELS; c++)
            assert_int_equal(out[r * V_CHANNELS + c] & 0x7fff, 0);
    }
}

/* Calls test for each level; one that this CPU lacks leaves the one before. */
static void each_level(void (*test)(rapt_device *device, const char *level))
{
    for (int i = 0; i < CPU_LEVELS; i++) {
        const char *level = cpu_levels[i].kernels->arch;
        rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
        rapt_context *context = NULL;
        setenv("RAPT_CPU", level, 1);
        if (rapt_open(&context, &config)) fail_msg("%s: %s", level, rapt_last_error());
        unsetenv("RAPT_CPU");
        test(rapt_device_at(context, 0), level);
        rapt_close(&context);
    }
}

static void check_lengths(rapt_device *device, const char *level)
{
    static const int64_t channels[] = {511, 512, 513, 1023, 1024, 1025, CHANNELS};
    for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
        for (int value = -128; value <= 127; value += 255)
            for (int64_t queries = 1; queries <= QUERIES; queries += QUERIES - 1)
                for (int power = 0; power <= 110; power += 110)
                    check(device, level, queries, channels[c], value, power);
}

static void check_infinities(rapt_device *device, const char *level)
{
    for (int64_t queries = 1; queries <= QUERIES; queries++) check_infinity(device, level, queries);
}

static void largest_scores(void **state)
{
    (void)state;
    each_level(check_lengths);
}

static void infinite_scores(void **state)
{
    (void)state;
    each_level(check_infinities);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(largest_scores),
                                       cmocka_unit_test(infinite_scores)};
    return run_group("long heads", tests, 2, NULL, NULL, argc, argv);
}
