/* mfma_gfx9.h: the vocabulary of fragment.h for CDNA2, CDNA3 and CDNA4 (gfx90a, gfx942, gfx950):
 * 32 x 32 products in waves of 64 lanes. Layouts: AMD CDNA3 ISA, "Matrix fused-multiply-add":
 * A[i][k] and B[k][j] lie in lane i (or j) + 32 g, element e, k = E g + e with E elements per lane;
 * D's register v is row 8 (v / 4) + 4 (lane / 32) + v % 4.
 *
 * The 16 of the depth are one instruction on gfx950 and two elsewhere; there the second takes the
 * upper 8 bytes of the same pieces, which renames the depth of both operands alike. */
#ifndef RAPT_AMD_MFMA_GFX9_H
#define RAPT_AMD_MFMA_GFX9_H

#include "amd/round.h"

enum {
    EDGE = 32,
    RESULTS = 16,
    RUN = 4,
    HALF_ROWS = 4,
    OPERAND_PIECES = 1,
    QUAD_STEP = 1,
    OPERANDS_AT_ONCE = 1,
    AHEAD = D > 128 ? 1 : 2,
#if defined(__gfx950__)
    PARTS = 1
#else
    PARTS = 2
#endif
};

typedef float results __attribute__((ext_vector_type(16)));
typedef uint4 operand;
typedef _Float16 halves_8 __attribute__((ext_vector_type(8)));
typedef _Float16 halves_4 __attribute__((ext_vector_type(4)));
typedef __bf16 brains_8 __attribute__((ext_vector_type(8)));
typedef short shorts_4 __attribute__((ext_vector_type(4)));

DEVICE int row_of(int v)
{
    return v / 4 * 8 + v % 4;
}

DEVICE int operand_piece(int half, int i)
{
    return half + i;
}

/* Registers 8u + 4s + e of half h hold key 16u + 8s + 4h + e, and are elements 4s + e of operand u,
 * whose piece in a line is 2u + h. */
DEVICE int key_of_place(int place)
{
    return (place & 19) | (place & 8) >> 1 | (place & 4) << 1;
}

/* Instruction `part` of the product. */
DEVICE void multiply_add_part(results *d, operand a, operand b, int part)
{
#if defined(__gfx950__) && DTYPE == DTYPE_bf16
    *d = __builtin_amdgcn_mfma_f32_32x32x16_bf16(__builtin_bit_cast(brains_8, a),
                                                 __builtin_bit_cast(brains_8, b), *d, 0, 0, 0);
    (void)part;
#elif defined(__gfx950__)
    *d = __builtin_amdgcn_mfma_f32_32x32x16_f16(__builtin_bit_cast(halves_8, a),
                                                __builtin_bit_cast(halves_8, b), *d, 0, 0, 0);
    (void)part;
#else
    /* Named: a bit cast of a swizzle takes the first elements instead (clang 22). */
    uint2 a_low = a.xy, a_high = a.zw, b_low = b.xy, b_high = b.zw, x = part ? a_high : a_low,
          y = part ? b_high : b_low;
#if DTYPE == DTYPE_bf16
    *d = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(__builtin_bit_cast(shorts_4, x),
                                                  __builtin_bit_cast(shorts_4, y), *d, 0, 0, 0);
#else
    *d = __builtin_amdgcn_mfma_f32_32x32x8f16(__builtin_bit_cast(halves_4, x),
                                              __builtin_bit_cast(halves_4, y), *d, 0, 0, 0);
#endif
#endif
}

/* Instructions stay on their side of it: the order written is what keeps the matrix unit busy, each
 * of whose instructions leaves the vector unit 28 of 32 clocks. */
DEVICE void pin(void)
{
    __builtin_amdgcn_sched_barrier(0);
}

DEVICE void finish(results *d)
{
    (void)d;
}

DEVICE void weights_operand(operand *p, const uint32_t *pairs)
{
#pragma unroll
    for (int u = 0; u < EDGE / 16; u++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[u][i] = pairs[4 * u + i];
}

#endif
