/* Scalar and vector arithmetic: the compiler's code for each expression of kernels/expressions.def
 * gives the host's bits. */
#include "support.h"

#include <math.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;
typedef uint16_t u16;

enum { ITEMS = 256, STRIDE = 64 };

static const char *const integer_names[] = {
#define INTEGER(name, ...) #name,
#include "../kernels/expressions.def"
#undef INTEGER
};
static const char *const float_names[] = {
#define FLOAT(name, ...) #name,
#include "../kernels/expressions.def"
#undef FLOAT
};
static const char *const double_names[] = {
#define DOUBLE(name, ...) #name,
#include "../kernels/expressions.def"
#undef DOUBLE
};

static int host_integers(const u32 *in, u32 *out)
{
    int k = 0;
    u32 a = in[0], b = in[1], c = in[2];
    u64 A = (u64)b << 32 | a, B = (u64)in[3] << 32 | c;
#define INTEGER(name, ...) out[k++] = (u32)(__VA_ARGS__);
#include "../kernels/expressions.def"
#undef INTEGER
    return k;
}

static int host_floats(const float *in, float *out)
{
    int k = 0, bits_a;
    float a = in[0], b = in[1], c = in[2];
    memcpy(&bits_a, &in[3], 4);
#define FLOAT(name, ...) out[k++] = (float)(__VA_ARGS__);
#include "../kernels/expressions.def"
#undef FLOAT
    return k;
}

static int host_doubles(const double *in, double *out)
{
    int k = 0, bits_a = (int)in[3];
    double a = in[0], b = in[1], c = in[2];
#define DOUBLE(name, ...) out[k++] = (double)(__VA_ARGS__);
#include "../kernels/expressions.def"
#undef DOUBLE
    return k;
}

static void test_integers(void **state)
{
    struct object o;
    uint64_t seed = 11;
    object_open(&o, "arithmetic", *state);
    u32 *in = buffer(&o, ITEMS * 16), *out = buffer(&o, ITEMS * STRIDE * 4);
    static const u32 edges[] = {0,          1,      0xffffffff, 0x80000000,
                                0x7fffffff, 0x8000, 0xffff,     0x00ff00ff};
    for (int i = 0; i < 4 * ITEMS; i++) {
        uint64_t r = next_random(&seed);
        in[i] = r >> 60 < 5 ? edges[r >> 40 & 7] : (u32)(r >> 20) >> (r & 15);
    }
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "integers", ITEMS / 64, 64, 0);
    for (int i = 0; i < ITEMS; i++) {
        u32 expected[STRIDE];
        int n = host_integers(in + 4 * i, expected);
        for (int k = 0; k < n; k++)
            if (out[i * STRIDE + k] != expected[k])
                fail_msg("%s of %08x %08x %08x %08x: %08x, expected %08x", integer_names[k],
                         in[4 * i], in[4 * i + 1], in[4 * i + 2], in[4 * i + 3],
                         out[i * STRIDE + k], expected[k]);
    }
    object_close(&o);
}

static bool same_float(float x, float y)
{
    return memcmp(&x, &y, 4) == 0 || (isnan(x) && isnan(y));
}

static void test_floats(void **state)
{
    struct object o;
    uint64_t seed = 12;
    object_open(&o, "arithmetic", *state);
    float *in = buffer(&o, ITEMS * 16), *out = buffer(&o, ITEMS * STRIDE * 4);
    static const float edges[] = {0,          -0.0f, INFINITY, -INFINITY, NAN,      0x1p-140f,
                                  -0x1p-130f, 65520, 0.5f,     -2.5f,     0x1p-24f, 3e38f};
    for (int i = 0; i < 4 * ITEMS; i++) {
        uint64_t r = next_random(&seed);
        in[i] = r >> 60 < 4 ? edges[(r >> 30) % 12]
                            : ldexpf((float)(int32_t)(r >> 32), -31 + (int)(r & 31) - 10);
    }
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "floats", ITEMS / 64, 64, 0);
    for (int i = 0; i < ITEMS; i++) {
        float expected[STRIDE];
        int n = host_floats(in + 4 * i, expected);
        for (int k = 0; k < n; k++)
            if (!same_float(out[i * STRIDE + k], expected[k]))
                fail_msg("%s of %a %a %a %a: %a, expected %a", float_names[k], in[4 * i],
                         in[4 * i + 1], in[4 * i + 2], in[4 * i + 3], out[i * STRIDE + k],
                         expected[k]);
    }
    object_close(&o);
}

static void test_doubles(void **state)
{
    struct object o;
    uint64_t seed = 13;
    object_open(&o, "arithmetic", *state);
    double *in = buffer(&o, ITEMS * 32), *out = buffer(&o, ITEMS * STRIDE * 8);
    for (int i = 0; i < 4 * ITEMS; i++) {
        uint64_t r = next_random(&seed);
        in[i] = ldexp((double)(int64_t)r, -63 + (int)(r & 31)) * (i % 4 == 3 ? 0.1 : 1);
        if (i % 37 == 5) in[i] = i % 2 ? INFINITY : 0;
        if (i % 4 == 3) in[i] = (double)(int32_t)(r >> 33);
    }
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "doubles", ITEMS / 64, 64, 0);
    for (int i = 0; i < ITEMS; i++) {
        double expected[STRIDE];
        int n = host_doubles(in + 4 * i, expected);
        for (int k = 0; k < n; k++) {
            double x = out[i * STRIDE + k], y = expected[k];
            if (memcmp(&x, &y, 8) != 0 && !(isnan(x) && isnan(y)))
                fail_msg("%s of %a %a %a %a: %a, expected %a", double_names[k], in[4 * i],
                         in[4 * i + 1], in[4 * i + 2], in[4 * i + 3], x, y);
        }
    }
    object_close(&o);
}

/* Transcendentals: within one unit in the last place of f32, or 2^-20 absolute for sine and cosine.
 */
static void test_approximations(void **state)
{
    struct object o;
    uint64_t seed = 14;
    object_open(&o, "arithmetic", *state);
    float *in = buffer(&o, ITEMS * 4), *out = buffer(&o, ITEMS * 32);
    for (int i = 0; i < ITEMS; i++) in[i] = ldexpf((float)(int32_t)next_random(&seed), -25 + i % 8);
    in[0] = 1;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "approximations", ITEMS / 64, 64, 0);
    for (int i = 0; i < ITEMS; i++) {
        double x = in[i], turn = 6.283185307179586, fraction = x / 256 - floor(x / 256);
        int e;
        double expected[] = {exp2(x),           log2(fabs(x)),        1 / x,
                             1 / sqrt(fabs(x)), sin(turn * fraction), cos(turn * fraction),
                             x - floor(x),      frexp(x, &e)};
        for (int k = 0; k < 8; k++) {
            double got = out[8 * i + k],
                   bound = k == 4 || k == 5 ? 0x1p-20 : fabs(expected[k]) * 0x1p-23;
            if (expected[k] > 3.4e38 || fabs(expected[k]) < 0x1p-126)
                continue; /* overflow, and flushed subnormals */
            if (fabs(got - expected[k]) > bound)
                fail_msg("approximation %d of %a: %a, expected %a", k, x, got, expected[k]);
        }
    }
    object_close(&o);
}

static uint16_t half_bits(_Float16 h)
{
    uint16_t u;
    memcpy(&u, &h, 2);
    return u;
}

static _Float16 half_of(uint32_t u)
{
    _Float16 h;
    uint16_t low = (uint16_t)u;
    memcpy(&h, &low, 2);
    return h;
}

/* Bit pattern of a half, every NaN the same. */
static uint32_t canonical(uint32_t u)
{
    return (u & 0x7fff) > 0x7c00 ? 0x7e00 : u;
}

static void test_packed(void **state)
{
    struct object o;
    uint64_t seed = 15;
    object_open(&o, "arithmetic", *state);
    u32 *in = buffer(&o, ITEMS * 16), *out = buffer(&o, ITEMS * 32);
    for (int i = 0; i < 4 * ITEMS; i++) in[i] = (u32)(next_random(&seed) >> 16);
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "packed", ITEMS / 64, 64, 0);
    for (int i = 0; i < ITEMS; i++)
        for (int h = 0; h < 2; h++) {
            u32 *p = in + 4 * i;
            int shift = 16 * h;
            _Float16 a = half_of(p[0] >> shift), b = half_of(p[1] >> shift),
                     other = half_of(p[0] >> (16 - shift));
            int16_t s = (int16_t)(p[2] >> shift), t = (int16_t)(p[3] >> shift);
            u32 expected[] = {canonical(half_bits(a + b)),
                              canonical(half_bits(a * b)),
                              (u16)(s + t),
                              (u16)(s * t),
                              (u16)(s > t ? s : t),
                              canonical(half_bits(other + b)),
                              (u16)((u16)s << (t & 15))};
            for (int k = 0; k < 7; k++) {
                u32 got = out[8 * i + k] >> shift & 0xffff;
                if (k < 2 || k == 5) got = canonical(got);
                if (got != expected[k])
                    fail_msg("packed %d half %d of %08x %08x: %04x, expected %04x", k, h, p[0],
                             p[1], got, expected[k]);
            }
        }
    object_close(&o);
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "integers", test_integers, "gfx");
    add_test(&s, "floats", test_floats, "gfx");
    add_test(&s, "doubles", test_doubles, "gfx");
    add_test(&s, "approximations", test_approximations, "gfx");
    add_test(&s, "packed", test_packed, "gfx");
    return run_suite(&s, "amdgpu arithmetic");
}
