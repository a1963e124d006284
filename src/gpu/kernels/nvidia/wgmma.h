/* wgmma.h: the warpgroup matrix multiply of sm_90a: a 64 x N tile of f32 in registers += A (64 x
 * 16) B (16 x N).
 *
 * Fragments (PTX ISA, "wgmma D fragment"): warp w of the group holds rows 16w ... 16w + 15. Lane t
 * holds row t/4 in d[4i], d[4i+1] and row t/4 + 8 in d[4i+2], d[4i+3], columns 8i + 2(t%4) and the
 * next. Two 8-column blocks of that layout, rounded to 16 bits, are an A operand of 16 columns as
 * they lie: no data moves between the two matrix products of attention.
 *
 * Operands in shared memory come as panels of 64 elements (128 bytes) with 128-byte swizzle, as a
 * TMA box with that swizzle leaves them, at multiples of 1024 bytes.
 *
 * A register that belongs to a multiply in flight must not be touched, or ptxas serialises every
 * multiply (warnings C7510 to C7517, which tools/sass refuses). registers_fence() keeps the
 * compiler from moving accesses over the multiply. */
#ifndef RAPT_NVIDIA_WGMMA_H
#define RAPT_NVIDIA_WGMMA_H

#include "tma.h"

/* f32 goes in as parts of bf16, or of f16 where the row says so. */
#ifndef F16_PARTS
#define F16_PARTS (DTYPE == DTYPE_f16)
#endif
#if F16_PARTS
#define WGMMA_TYPE "f16.f16"
#elif DTYPE == DTYPE_bf16 || DTYPE == DTYPE_f32
#define WGMMA_TYPE "bf16.bf16"
#else
#error "wgmma.h: element type (bf16 or f16; f32 goes in as bf16 parts)"
#endif
/* Of weights and values. With several scales (SCALE_CHANNELS) and q in f16, which has no room for weights
 * times scales of every size: values are bf16, and so are weights, as two numbers that add up. */
#if defined SCALE_CHANNELS && DTYPE == DTYPE_f16
#define V_BF16 1
#else
#define V_BF16 0
#endif
#if V_BF16
#define WGMMA_V_TYPE "bf16.bf16"
#else
#define WGMMA_V_TYPE WGMMA_TYPE
#endif

DEVICE void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
DEVICE void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most PENDING committed groups are in flight. */
template <int PENDING> DEVICE void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int N> DEVICE void registers_fence(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

template <int N> DEVICE void registers_fence(uint32_t (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i])::"memory");
}

/* ---- Matrix descriptors (PTX ISA, "matrix descriptor")
 * ---------------------------------------------------------------------- */

/* A tile at shared address `at`: swizzle 128 bytes, 8-row groups 1024 bytes apart. panel_bytes:
 * from one 64-column panel to the next, for an operand whose N runs along the panels (V); 16,
 * ignored, for one whose K does (Q, K). The or-reduction proves to the compiler that the value is
 * the same in all lanes, so that descriptors live in uniform registers: +2 ... 5 %. */
DEVICE uint64_t matrix_descriptor(uint32_t at, uint32_t panel_bytes)
{
    uint32_t low = __reduce_or_sync(~0u, ((at >> 4) & 0x3fff) | ((panel_bytes >> 4) << 16));
    return (uint64_t)low | ((uint64_t)(1024 >> 4) << 32) | (1ull << 62);
}

/* Byte offset of the k-th slice of 16 columns in a K-major tile of `rows` rows, in descriptor
 * units. */
__host__ __device__ constexpr uint32_t slice_offset(int k, int rows)
{
    return ((k & 3) * 32 + (k >> 2) * rows * 128) >> 4;
}

/* The same for 16 rows of an operand whose rows are its K (V): one 16-row slice is 2048 bytes on.
 */
__host__ __device__ constexpr uint32_t row_slice_offset(int k)
{
    return k * 2048 >> 4;
}

/* ---- The instruction
 * ------------------------------------------------------------------------------------------
 */

/* Names of the accumulator registers in the text, %0 ... %(N/2 - 1), and the operands behind them.
 */
#define W_NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define W_NAMES_32                                                                                 \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%"  \
    "25,%26,%27,%28,%29,%30,%31"
#define W_NAMES_40 W_NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define W_NAMES_48 W_NAMES_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define W_NAMES_56 W_NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define W_NAMES_64 W_NAMES_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define W_NAMES_72 W_NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define W_NAMES_80 W_NAMES_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define W_NAMES_88 W_NAMES_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define W_NAMES_96 W_NAMES_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define W_NAMES_112                                                                                \
    W_NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define W_NAMES_128                                                                                \
    W_NAMES_112 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define W_8(d, i)                                                                                  \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define W_16(d)  W_8(d, 0), W_8(d, 8)
#define W_32(d)  W_8(d, 0), W_8(d, 8), W_8(d, 16), W_8(d, 24)
#define W_40(d)  W_32(d), W_8(d, 32)
#define W_48(d)  W_40(d), W_8(d, 40)
#define W_56(d)  W_48(d), W_8(d, 48)
#define W_64(d)  W_56(d), W_8(d, 56)
#define W_72(d)  W_64(d), W_8(d, 64)
#define W_80(d)  W_72(d), W_8(d, 72)
#define W_88(d)  W_80(d), W_8(d, 80)
#define W_96(d)  W_88(d), W_8(d, 88)
#define W_112(d) W_96(d), W_8(d, 96), W_8(d, 104)
#define W_128(d) W_112(d), W_8(d, 112), W_8(d, 120)

/* For an accumulator of R = N/2 registers; %a ... %f are operands R, R + 1, ... Overloads, told
 * apart by the array's size: wgmma_ss    A and B in shared memory, both K-major (q k^T) wgmma_rs A
 * in registers, B K-major (q k^T with q in registers) wgmma_rs_v  A in registers, B in shared
 * memory with N contiguous (p v) keep 0: the accumulator starts from zero instead of its old value.
 */
#define WGMMA(n, r, a, b, c, d_, e, f)                                                             \
    DEVICE void wgmma_ss(float(&d)[r], uint64_t x, uint64_t y, int keep)                           \
    {                                                                                              \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #c                                          \
                     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." WGMMA_TYPE            \
                     " {" W_NAMES_##r "}, %" #a ", %" #b ", p, 1, 1, 0, 0;}"                       \
                     : W_##r(d)                                                                    \
                     : "l"(x), "l"(y), "r"(keep));                                                 \
    }                                                                                              \
    DEVICE void wgmma_rs(float(&d)[r], const uint32_t *x, uint64_t y, int keep)                    \
    {                                                                                              \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #f                                          \
                     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." WGMMA_TYPE            \
                     " {" W_NAMES_##r "}, {%" #a ",%" #b ",%" #c ",%" #d_ "}, %" #e                \
                                      ", p, 1, 1, 0;}"                                             \
                     : W_##r(d)                                                                    \
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(y), "r"(keep));             \
    }                                                                                              \
    DEVICE void wgmma_rs_v(float(&d)[r], const uint32_t *x, uint64_t y, int keep)                  \
    {                                                                                              \
        asm volatile("{.reg .pred p; setp.ne.b32 p, %" #f                                          \
                     ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32." WGMMA_V_TYPE          \
                     " {" W_NAMES_##r "}, {%" #a ",%" #b ",%" #c ",%" #d_ "}, %" #e                \
                                      ", p, 1, 1, 1;}"                                             \
                     : W_##r(d)                                                                    \
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(y), "r"(keep));             \
    }

WGMMA(32, 16, 16, 17, 18, 19, 20, 21)
WGMMA(64, 32, 32, 33, 34, 35, 36, 37)
WGMMA(80, 40, 40, 41, 42, 43, 44, 45)
WGMMA(96, 48, 48, 49, 50, 51, 52, 53)
WGMMA(112, 56, 56, 57, 58, 59, 60, 61)
WGMMA(128, 64, 64, 65, 66, 67, 68, 69)
WGMMA(144, 72, 72, 73, 74, 75, 76, 77)
WGMMA(160, 80, 80, 81, 82, 83, 84, 85)
WGMMA(176, 88, 88, 89, 90, 91, 92, 93)
WGMMA(192, 96, 96, 97, 98, 99, 100, 101)
WGMMA(224, 112, 112, 113, 114, 115, 116, 117)
WGMMA(256, 128, 128, 129, 130, 131, 132, 133)

#undef WGMMA

/* ---- Small arithmetic
 * ------------------------------------------------------------------------------------------
 */

DEVICE float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float reciprocal_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE uint32_t pack2_bf16(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

/* Two floats rounded to the element type, the first in the low half. */
DEVICE uint32_t pack2(float low, float high)
{
    uint32_t y;
#if !F16_PARTS
    y = pack2_bf16(low, high);
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
#endif
    return y;
}

/* Four 8 x 8 matrices of 16-bit elements; lane 8i + j gives the address of row j of matrix i. */
DEVICE void ldmatrix4(uint32_t at, uint32_t *x)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}

/* Stores four 8 x 8 matrices, from where ldmatrix4 puts them. */
DEVICE void stmatrix4(uint32_t at, const uint32_t *x)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(at),
                 "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}

#endif
