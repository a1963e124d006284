/* One kernel per matrix instruction: registers of A, B and C as raw words per lane in, D out. */
#include "kernel.h"

typedef _Float16 half4 __attribute__((ext_vector_type(4)));
typedef _Float16 half8 __attribute__((ext_vector_type(8)));
typedef _Float16 half16 __attribute__((ext_vector_type(16)));
typedef __bf16 bf8 __attribute__((ext_vector_type(8)));
typedef short short4 __attribute__((ext_vector_type(4)));
typedef short short8 __attribute__((ext_vector_type(8)));
typedef short short16 __attribute__((ext_vector_type(16)));
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef float float8 __attribute__((ext_vector_type(8)));
typedef float float16 __attribute__((ext_vector_type(16)));
typedef float float32 __attribute__((ext_vector_type(32)));
typedef int int2v __attribute__((ext_vector_type(2)));
typedef int int4v __attribute__((ext_vector_type(4)));
typedef int int8v __attribute__((ext_vector_type(8)));
typedef int int16v __attribute__((ext_vector_type(16)));

#define MATRIX(name, TA, TC, call)                                                                 \
    KERNEL THREADS(WAVE) void name(const TA *A, const TA *B, const TC *C, TC *D)                   \
    {                                                                                              \
        TA a = A[THREAD], b = B[THREAD];                                                           \
        TC c = C[THREAD];                                                                          \
        D[THREAD] = call;                                                                          \
    }
#define MFMA(name, TA, TC)                                                                         \
    MATRIX(mfma_##name, TA, TC, __builtin_amdgcn_mfma_##name(a, b, c, 0, 0, 0))

#if defined(__GFX9__)
MFMA(f32_32x32x1f32, float, float32)
MFMA(f32_16x16x1f32, float, float16)
MFMA(f32_4x4x1f32, float, float4)
MFMA(f32_32x32x2f32, float, float16)
MFMA(f32_16x16x4f32, float, float4)
MFMA(f32_32x32x4f16, half4, float32)
MFMA(f32_16x16x4f16, half4, float16)
MFMA(f32_4x4x4f16, half4, float4)
MFMA(f32_32x32x8f16, half4, float16)
MFMA(f32_16x16x16f16, half4, float4)
MFMA(f32_32x32x4bf16_1k, short4, float32)
MFMA(f32_16x16x4bf16_1k, short4, float16)
MFMA(f32_4x4x4bf16_1k, short4, float4)
MFMA(f32_32x32x8bf16_1k, short4, float16)
MFMA(f32_16x16x16bf16_1k, short4, float4)
#if defined(__gfx90a__)
MFMA(i32_32x32x8i8, int, int16v)
MFMA(i32_16x16x16i8, int, int4v)
#else
MFMA(i32_32x32x16_i8, long, int16v)
MFMA(i32_16x16x32_i8, long, int4v)
MFMA(f32_16x16x32_fp8_fp8, long, float4)
MFMA(f32_16x16x32_fp8_bf8, long, float4)
MFMA(f32_16x16x32_bf8_fp8, long, float4)
MFMA(f32_16x16x32_bf8_bf8, long, float4)
MFMA(f32_32x32x16_fp8_fp8, long, float16)
MFMA(f32_32x32x16_bf8_bf8, long, float16)
#endif
#if defined(__gfx942__)
MFMA(f32_16x16x8_xf32, float2, float4)
MFMA(f32_32x32x4_xf32, float2, float16)
#endif
#if defined(__gfx950__)
MFMA(f32_16x16x32_f16, half8, float4)
MFMA(f32_32x32x16_f16, half8, float16)
MFMA(f32_16x16x32_bf16, bf8, float4)
MFMA(f32_32x32x16_bf16, bf8, float16)
MFMA(i32_16x16x64_i8, int4v, int4v)
MFMA(i32_32x32x32_i8, int4v, int16v)
#endif
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define WMMA(name, TA, TC)                                                                         \
    MATRIX(wmma_##name, TA, TC, __builtin_amdgcn_wmma_##name##_w32_gfx12(a, b, c))
#define WMMAI(name, TA, sa, sb)                                                                    \
    MATRIX(wmma_##name##_##sa##sb, TA, int8v,                                                      \
           __builtin_amdgcn_wmma_##name##_w32_gfx12(sa, a, sb, b, c, false))
WMMA(f32_16x16x16_f16, half8, float8)
WMMA(f32_16x16x16_bf16, short8, float8)
WMMA(f16_16x16x16_f16, half8, half8)
WMMA(bf16_16x16x16_bf16, short8, short8)
WMMA(f32_16x16x16_fp8_fp8, int2v, float8)
WMMA(f32_16x16x16_fp8_bf8, int2v, float8)
WMMA(f32_16x16x16_bf8_fp8, int2v, float8)
WMMA(f32_16x16x16_bf8_bf8, int2v, float8)
WMMAI(i32_16x16x16_iu8, int2v, 1, 1)
WMMAI(i32_16x16x16_iu8, int2v, 0, 1)
WMMAI(i32_16x16x16_iu4, int, 1, 1)
WMMAI(i32_16x16x32_iu4, int2v, 1, 0)
#elif defined(__gfx1100__) || defined(__gfx1151__)
#define WMMA(name, TA, TC) MATRIX(wmma_##name, TA, TC, __builtin_amdgcn_wmma_##name##_w32(a, b, c))
#define WMMAI(name, TA, sa, sb)                                                                    \
    MATRIX(wmma_##name##_##sa##sb, TA, int8v,                                                      \
           __builtin_amdgcn_wmma_##name##_w32(sa, a, sb, b, c, false))
WMMA(f32_16x16x16_f16, half16, float8)
WMMA(f32_16x16x16_bf16, short16, float8)
MATRIX(wmma_f16_16x16x16_f16, half16, half16,
       __builtin_amdgcn_wmma_f16_16x16x16_f16_w32(a, b, c, false))
MATRIX(wmma_bf16_16x16x16_bf16, short16, short16,
       __builtin_amdgcn_wmma_bf16_16x16x16_bf16_w32(a, b, c, false))
MATRIX(wmma_f16_16x16x16_f16_high, half16, half16,
       __builtin_amdgcn_wmma_f16_16x16x16_f16_w32(a, b, c, true))
WMMAI(i32_16x16x16_iu8, int4v, 1, 1)
WMMAI(i32_16x16x16_iu8, int4v, 0, 1)
WMMAI(i32_16x16x16_iu4, int2v, 1, 1)
/* Lanes 16 to 31 have rows of their own. */
KERNEL THREADS(WAVE) void unrepeated(const int *A, float8 *D)
{
    half16 a = (half16)(_Float16)A[THREAD];
    D[THREAD] = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, a, (float8)0);
}
#endif

/* n rounds of one matrix instruction and one LDS read in which each bank serves two words. */
#if defined(__GFX9__)
#define ROUND(a, c) __builtin_amdgcn_mfma_f32_32x32x8f16(a, a, c, 0, 0, 0)
typedef half4 round_in;
typedef float16 round_out;
#elif defined(__gfx1200__) || defined(__gfx1201__)
#define ROUND(a, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, a, c)
typedef half8 round_in;
typedef float8 round_out;
#elif defined(__gfx1100__) || defined(__gfx1151__)
#define ROUND(a, c) __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, a, c)
typedef half16 round_in;
typedef float8 round_out;
#endif
#ifdef ROUND
KERNEL THREADS(WAVE) void rounds(round_out *D, int n)
{
    SHARED int words[2 * WAVE];
    words[THREAD] = words[THREAD + WAVE] = 1;
    barrier();
    round_out c = (round_out)0.0f;
#pragma unroll 1
    for (int i = 0; i < n; i++) {
        asm volatile("" ::: "memory"); /* reads anew */
        round_in a = (round_in)(_Float16)words[2 * THREAD];
        c = ROUND(a, c);
    }
    D[THREAD] = c;
}
#endif

KERNEL void present(void) {}
