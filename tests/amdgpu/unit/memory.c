/* Memory of every kind, hidden arguments and the order of waves. */
#include "support.h"

static const enum amdgpu_order orders[] = {AMDGPU_FORWARD, AMDGPU_BACKWARD, AMDGPU_SHUFFLED};

static void test_transpose(void **state)
{
    struct object o;
    object_open(&o, "memory", *state);
    float *in = buffer(&o, 3072), *out = buffer(&o, 3072);
    for (int i = 0; i < 768; i++) in[i] = (float)i;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    for (int k = 0; k < 3; k++) { /* the order of waves must not matter */
        o.options.order = orders[k];
        o.options.seed = 5;
        memset(out, 0, 3072);
        assert_launch(&o, "transpose", 3, 256, 0);
        for (int i = 0; i < 768; i++)
            assert_true(out[i] == (float)((i & ~255) + (i & 15) * 16 + (i >> 4 & 15)));
    }
    assert_int_equal(o.stats.groups, 3);
    assert_int_equal(o.stats.lds_written, 3 * 1024);
    assert_int_equal(o.stats.global_written, 3072);
    object_close(&o);
}

static void test_dynamic(void **state)
{
    struct object o;
    object_open(&o, "memory", *state);
    uint32_t *in = buffer(&o, 1200), *out = buffer(&o, 1200);
    for (uint32_t i = 0; i < 300; i++) in[i] = i * 7;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    arg_int(&o, 300);
    assert_launch(&o, "dynamic", 1, 64, 1200);
    for (uint32_t i = 0; i < 300; i++) assert_int_equal(out[i], (299 - i) * 7);
    assert_fault(&o, "dynamic", 1, 64, 1196, "out of bounds");
    object_close(&o);
}

static void test_scratch(void **state)
{
    struct object o;
    object_open(&o, "memory", *state);
    int *in = buffer(&o, 256), *out = buffer(&o, 256);
    for (int i = 0; i < 64; i++) in[i] = i * 37 % 101;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "scratch", 1, 64, 0);
    for (int t = 0; t < 64; t++) {
        int kept[24];
        uint32_t sum = 0;
        for (int i = 0; i < 24; i++) kept[i] = in[(t + i) & 63] + i;
        for (int i = 0; i < 24; i++) kept[in[i] % 24] ^= kept[(in[i] + t) % 24] + i;
        for (int i = 0; i < 24; i++) sum = sum * 31 + (uint32_t)kept[i];
        assert_int_equal((uint32_t)out[t], sum);
    }
    object_close(&o);
}

static void test_flat(void **state)
{
    struct object o;
    object_open(&o, "memory", *state);
    int *in = buffer(&o, 256), *out = buffer(&o, 256);
    for (int i = 0; i < 64; i++) in[i] = i + 100;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    arg_int(&o, 5); /* work items 0 and 2 of each four read LDS */
    assert_launch(&o, "flat", 1, 64, 0);
    for (int i = 0; i < 64; i++) assert_int_equal(out[i], (163 - i) * (i % 2 == 0 ? 5 : 1));
    object_close(&o);
}

static void test_narrow(void **state)
{
    struct object o;
    object_open(&o, "memory", *state);
    uint8_t *in = buffer(&o, 256), *out = buffer(&o, 2048);
    uint64_t seed = 3;
    for (int i = 0; i < 256; i++) in[i] = (uint8_t)next_random(&seed);
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "narrow", 1, 64, 0);
    for (int i = 0; i < 64; i++) {
        uint16_t a, b, x, y;
        memcpy(&a, in + 2 * i, 2);
        memcpy(&b, in + 2 * i + 2, 2);
        memcpy(&x, out + 256 + 2 * i, 2);
        memcpy(&y, out + 384 + 2 * i, 2);
        assert_int_equal(out[i], (uint8_t)(in[i] + in[i + 64]));
        assert_int_equal(out[64 + i], (uint8_t)((int8_t)in[i] >> 1));
        assert_int_equal(x, (uint16_t)(a * 3 + b));
        assert_int_equal(y, (uint16_t)((int16_t)a >> 2));
        assert_memory_equal(out + 512 + 12 * i, in + 4 * (i & 15), 12);
    }
    object_close(&o);
}

static void test_atomics(void **state)
{
    struct object o;
    enum { GROUPS = 6, ALL = 256 * GROUPS };
    object_open(&o, "memory", *state);
    uint32_t *counters = buffer(&o, 64), *slots = buffer(&o, ALL * 4);
    uint64_t *wide = buffer(&o, 64);
    float *sum = buffer(&o, 4);
    arg_pointer(&o, counters);
    arg_pointer(&o, wide);
    arg_pointer(&o, sum);
    arg_pointer(&o, slots);
    assert_launch(&o, "atomics", GROUPS, 256, 0);
    assert_int_equal(counters[0], ALL);
    assert_int_equal(counters[1], 255);
    assert_int_equal(counters[2], 0);
    assert_int_equal(counters[3], GROUPS * 255 * 128);
    assert_int_equal(counters[4], GROUPS * 255);
    assert_true(wide[0] == ((uint64_t)(GROUPS * 255 * 128) << 32 | ALL));
    assert_true(wide[1] == 3 * ALL);
    assert_true(*sum == (float)ALL);
    for (int i = 0; i < ALL; i++) assert_int_equal(slots[i], 1);
    object_close(&o);
}

static void test_places(void **state)
{
    struct object o;
    const uint32_t grid[] = {3, 2, 4}, block[] = {5, 4, 3};
    object_open(&o, "memory", *state);
    uint32_t *out = buffer(&o, 24 * 60 * 4);
    arg_pointer(&o, out);
    if (!launch3(&o, "places", grid, block)) fail_msg("%s", o.error);
    for (uint32_t i = 0; i < 24 * 60; i++) {
        uint32_t group = i / 60, item = i % 60;
        uint32_t x = item % 5, y = item / 5 % 4, z = item / 20, gx = group % 3, gy = group / 3 % 2,
                 gz = group / 6;
        assert_int_equal(out[i], x | y << 4 | z << 8 | gx << 12 | gy << 16 | gz << 20);
    }
    object_close(&o);
}

static void test_by_value(void **state)
{
    struct object o;
    struct {
        const int *from;
        int *to;
        int table[40];
        float scale;
    } s;
    object_open(&o, "memory", *state);
    s.from = buffer(&o, 256);
    s.to = buffer(&o, 256);
    s.scale = 0.5f;
    for (int i = 0; i < 40; i++) s.table[i] = 2 * i;
    arg(&o, &s, sizeof s);
    assert_launch(&o, "by_value", 1, 64, 0);
    for (int i = 0; i < 64; i++) assert_int_equal(s.to[i], i % 40);
    object_close(&o);
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "transpose", test_transpose, "gfx");
    add_test(&s, "dynamic LDS", test_dynamic, "gfx");
    add_test(&s, "scratch", test_scratch, "gfx");
    add_test(&s, "flat", test_flat, "gfx");
    add_test(&s, "narrow", test_narrow, "gfx");
    add_test(&s, "atomics", test_atomics, "gfx");
    add_test(&s, "places", test_places, "gfx");
    add_test(&s, "by value", test_by_value, "gfx");
    return run_suite(&s, "amdgpu memory");
}
