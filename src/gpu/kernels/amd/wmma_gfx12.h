/* wmma_gfx12.h: the vocabulary of fragment.h for RDNA4 (gfx1200, gfx1201): 16 x 16 products in waves
 * of 32 lanes. Layouts: AMD RDNA4 ISA, "Wave Matrix Multiply Accumulate": lane l % 16 holds half a
 * line of A or B, 8 elements in 4 registers; D's register v is row v + 8 (lane / 16). Hardware gives
 * the 8 elements of a half other numbers (4 and 4) than their order in memory; A and B are renamed
 * alike. */
#ifndef RAPT_AMD_WMMA_GFX12_H
#define RAPT_AMD_WMMA_GFX12_H

#include "amd/round.h"

enum {
    EDGE = 16,
    RESULTS = 8,
    RUN = 8,
    HALF_ROWS = 8,
    OPERAND_PIECES = 1,
    QUAD_STEP = 1,
    OPERANDS_AT_ONCE = 4,
    AHEAD = 0,
    PARTS = 1
};

typedef float results __attribute__((ext_vector_type(8)));
typedef uint4 operand;
typedef _Float16 halves_8 __attribute__((ext_vector_type(8)));
typedef short shorts_8 __attribute__((ext_vector_type(8)));

DEVICE int row_of(int v)
{
    return v;
}

DEVICE int operand_piece(int half, int i)
{
    return half + i;
}

DEVICE int key_of_place(int place)
{
    return place;
}

DEVICE void multiply_add_part(results *d, operand a, operand b, int part)
{
    (void)part;
#if DTYPE == DTYPE_bf16
    *d = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(__builtin_bit_cast(shorts_8, a),
                                                           __builtin_bit_cast(shorts_8, b), *d);
#else
    *d = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(__builtin_bit_cast(halves_8, a),
                                                          __builtin_bit_cast(halves_8, b), *d);
#endif
}

DEVICE void pin(void) {}

DEVICE void finish(results *d)
{
    if (D > 128) asm volatile("" : "+v"(*d) : : "memory");
}

/* Register v of half h is key 8 h + v: element v of this half's piece. */
DEVICE void weights_operand(operand *p, const uint32_t *pairs)
{
#pragma unroll
    for (int i = 0; i < 4; i++) (*p)[i] = pairs[i];
}

#endif
