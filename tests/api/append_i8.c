/* append_i8.c: an append to an i8 cache, by its blocks of channels: the scale is the largest magnitude / 127,
 * at least 2^-126, each number within half a scale of its value; what is not finite makes its own block's
 * scale NaN. */
#include "api.h"

#include <float.h>
#include <math.h>

enum { CHANNELS = 96, BLOCK = 32, BLOCKS = CHANNELS / BLOCK, TOKENS = 3 };

static rapt_context *context;
static rapt_device *device;
static float k_new[TOKENS * CHANNELS], v_new[TOKENS * CHANNELS];
static int8_t k[TOKENS * CHANNELS], v[TOKENS * CHANNELS];
static float k_scale[TOKENS * BLOCKS], v_scale[TOKENS * BLOCKS];

static void fill(void)
{
    for (int i = 0; i < TOKENS * CHANNELS; i++) {
        k_new[i] = (float)(i % 23 - 11) * (1 + (float)(i / BLOCK));
        v_new[i] = -(float)(i % 29) / 7;
    }
    memset(k, 99, sizeof k), memset(v, 99, sizeof v);
    for (int i = 0; i < TOKENS * BLOCKS; i++) k_scale[i] = v_scale[i] = -1;
}

static void append(void)
{
    rapt_kv_append_args a = {.struct_size = sizeof a,
                             .k_new = rapt_tensor_bhtd(k_new, RAPT_F32, 1, 1, TOKENS, CHANNELS),
                             .v_new = rapt_tensor_bhtd(v_new, RAPT_F32, 1, 1, TOKENS, CHANNELS),
                             .k = rapt_tensor_bhtd(k, RAPT_I8, 1, 1, TOKENS, CHANNELS),
                             .v = rapt_tensor_bhtd(v, RAPT_I8, 1, 1, TOKENS, CHANNELS),
                             .k_scale = rapt_tensor_bhtd(k_scale, RAPT_F32, 1, 1, TOKENS, BLOCKS),
                             .v_scale = rapt_tensor_bhtd(v_scale, RAPT_F32, 1, 1, TOKENS, BLOCKS)};
    if (rapt_kv_append(device, &a, NULL)) fail_msg("%s", rapt_last_error());
}

/* `bad`: the block that is to have a NaN for a scale, or -1. */
static void check(const char *what, const float *x, const int8_t *numbers, const float *scale,
                  int bad)
{
    for (int block = 0; block < TOKENS * BLOCKS; block++) {
        float largest = 0;
        const float *own = x + block * BLOCK;
        if (block == bad) {
            if (!isnan(scale[block])) fail_msg("%s: block %d is %g", what, block, scale[block]);
            continue;
        }
        for (int c = 0; c < BLOCK; c++) largest = fmaxf(largest, fabsf(own[c]));
        float least = largest > 0 ? FLT_MIN : 0;
        if (scale[block] != fmaxf(largest / 127, least))
            fail_msg("%s: block %d: %g", what, block, scale[block]);
        for (int c = 0; c < BLOCK; c++) {
            int number = numbers[block * BLOCK + c];
            double off = fabs((double)number * scale[block] - own[c]);
            if (number < -127 || off > (0.5 + 127 * FLT_EPSILON) * scale[block])
                fail_msg("%s: block %d, channel %d: %d times %g for %g", what, block, c, number,
                         scale[block], own[c]);
        }
    }
}

static void half_a_scale(void **state)
{
    (void)state;
    fill();
    append();
    check("k", k_new, k, k_scale, -1);
    check("v", v_new, v, v_scale, -1);
}

/* A block of zeros has the scale 0. */
static void zeros(void **state)
{
    (void)state;
    fill();
    memset(v_new + BLOCK, 0, BLOCK * sizeof *v_new);
    append();
    check("v", v_new, v, v_scale, -1);
    for (int c = 0; c < BLOCK; c++) assert_int_equal(v[BLOCK + c], 0);
}

/* Every power of two, and so every magnitude down to the least that a float has. */
static void magnitudes(void **state)
{
    (void)state;
    for (int power = -160; power <= 120; power++) {
        fill();
        for (int i = 0; i < TOKENS * CHANNELS; i++) {
            k_new[i] = ldexpf(k_new[i], power);
            v_new[i] = ldexpf(v_new[i], power);
        }
        append();
        check("k", k_new, k, k_scale, -1);
        check("v", v_new, v, v_scale, -1);
    }
}

static void not_finite(void **state)
{
    static const float values[] = {NAN, -NAN, INFINITY, -INFINITY};
    (void)state;
    for (int i = 0; i < 4; i++)
        for (int at = 0; at < BLOCK; at += BLOCK - 1)
            for (int block = 0; block < TOKENS * BLOCKS; block++) {
                fill();
                k_new[block * BLOCK + at] = values[i];
                append();
                check("k", k_new, k, k_scale, block);
                check("v", v_new, v, v_scale, -1);
            }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(half_a_scale), cmocka_unit_test(zeros),
                                       cmocka_unit_test(magnitudes), cmocka_unit_test(not_finite)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed =
        run_group("append i8", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
