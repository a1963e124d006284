/* Evaluates every expression of expressions.def for each work item. */
#include "kernel.h"

enum {
#define INTEGER(name, ...) integer_##name,
#define FLOAT(name, ...)   float_##name,
#define DOUBLE(name, ...)  double_##name,
#include "expressions.def"
#undef INTEGER
#undef FLOAT
#undef DOUBLE
};
enum { STRIDE = 64 };

KERNEL THREADS(64) void integers(const u32 *in, u32 *out)
{
    int i = GROUP * 64 + THREAD, k = 0;
    u32 a = in[4 * i], b = in[4 * i + 1], c = in[4 * i + 2];
    u64 A = (u64)b << 32 | a, B = (u64)in[4 * i + 3] << 32 | c;
#define INTEGER(name, ...) out[i * STRIDE + k++] = (u32)(__VA_ARGS__);
#include "expressions.def"
#undef INTEGER
}

KERNEL THREADS(64) void floats(const float *in, float *out)
{
    int i = GROUP * 64 + THREAD, k = 0;
    float a = in[4 * i], b = in[4 * i + 1], c = in[4 * i + 2];
    int bits_a = __builtin_bit_cast(int, in[4 * i + 3]);
#define FLOAT(name, ...) out[i * STRIDE + k++] = (float)(__VA_ARGS__);
#include "expressions.def"
#undef FLOAT
}

KERNEL THREADS(64) void doubles(const double *in, double *out)
{
    int i = GROUP * 64 + THREAD, k = 0;
    double a = in[4 * i], b = in[4 * i + 1], c = in[4 * i + 2];
    int bits_a = (int)in[4 * i + 3];
#define DOUBLE(name, ...) out[i * STRIDE + k++] = (double)(__VA_ARGS__);
#include "expressions.def"
#undef DOUBLE
}

/* Approximate instructions: the host allows an error. */
KERNEL THREADS(64) void approximations(const float *in, float *out)
{
    int i = GROUP * 64 + THREAD;
    float x = in[i];
    out[8 * i] = __builtin_amdgcn_exp2f(x);
    out[8 * i + 1] = __builtin_amdgcn_logf(x < 0 ? -x : x);
    out[8 * i + 2] = __builtin_amdgcn_rcpf(x);
    out[8 * i + 3] = __builtin_amdgcn_rsqf(x < 0 ? -x : x);
    out[8 * i + 4] = __builtin_amdgcn_sinf(x / 256);
    out[8 * i + 5] = __builtin_amdgcn_cosf(x / 256);
    out[8 * i + 6] = __builtin_amdgcn_fractf(x);
    out[8 * i + 7] = __builtin_amdgcn_frexp_mantf(x);
}

/* Packed halves. */
typedef _Float16 half2 __attribute__((ext_vector_type(2)));
typedef short short2 __attribute__((ext_vector_type(2)));
KERNEL THREADS(64) void packed(const u32 *in, u32 *out)
{
    int i = GROUP * 64 + THREAD;
    half2 a = __builtin_bit_cast(half2, in[4 * i]), b = __builtin_bit_cast(half2, in[4 * i + 1]);
    short2 s = __builtin_bit_cast(short2, in[4 * i + 2]),
           t = __builtin_bit_cast(short2, in[4 * i + 3]);
    out[8 * i] = __builtin_bit_cast(u32, a + b);
    out[8 * i + 1] = __builtin_bit_cast(u32, a * b);
    out[8 * i + 2] = __builtin_bit_cast(u32, s + t);
    out[8 * i + 3] = __builtin_bit_cast(u32, s * t);
    out[8 * i + 4] = __builtin_bit_cast(u32, __builtin_elementwise_max(s, t));
    out[8 * i + 5] = __builtin_bit_cast(u32, a.yx + b);
    out[8 * i + 6] = __builtin_bit_cast(u32, s << (t & 15));
    out[8 * i + 7] = __builtin_bit_cast(
        u32, (half2){(_Float16)((float)a.x * (float)b.x + 1.0f), (_Float16)(float)s.x});
}
