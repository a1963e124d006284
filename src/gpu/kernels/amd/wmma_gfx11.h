/* wmma_gfx11.h: the vocabulary of fragment.h for RDNA3 (gfx1100, gfx1151): 16 x 16 products in waves
 * of 32 lanes. Layouts: AMD RDNA3 ISA, "Wave Matrix Multiply Accumulate": lane l % 16 holds a whole
 * line of A or B, 16 elements in 8 registers, and lanes 16 to 31 the same once more; D's register v
 * is row 2 v + lane / 16. */
#ifndef RAPT_AMD_WMMA_GFX11_H
#define RAPT_AMD_WMMA_GFX11_H

#include "amd/round.h"

enum {
    EDGE = 16,
    RESULTS = 8,
    RUN = 1,
    HALF_ROWS = 1,
    OPERAND_PIECES = 2,
    QUAD_STEP = 2,
    OPERANDS_AT_ONCE = D > 128 ? 2 : 4,
    AHEAD = 0,
    PARTS = 1
};

typedef float results __attribute__((ext_vector_type(8)));
typedef uint32_t operand __attribute__((ext_vector_type(8)));
typedef _Float16 halves_16 __attribute__((ext_vector_type(16)));
typedef short shorts_16 __attribute__((ext_vector_type(16)));

DEVICE int row_of(int v)
{
    return 2 * v;
}

DEVICE int operand_piece(int half, int i)
{
    (void)half;
    return i;
}

/* Even keys, which lanes 0 to 15 have, then odd ones. */
DEVICE int key_of_place(int place)
{
    return (place & 7) << 1 | (place & 15) >> 3 | (place & 16);
}

DEVICE void multiply_add_part(results *d, operand a, operand b, int part)
{
    (void)part;
#if DTYPE == DTYPE_bf16
    *d = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(shorts_16, a),
                                                     __builtin_bit_cast(shorts_16, b), *d);
#else
    *d = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(__builtin_bit_cast(halves_16, a),
                                                    __builtin_bit_cast(halves_16, b), *d);
#endif
}

/* The register of lane ^ 16. */
DEVICE uint32_t other_half(uint32_t x)
{
    return __builtin_amdgcn_permlanex16(x, x, 0x76543210, 0xfedcba98, false, false);
}

DEVICE void pin(void) {}

DEVICE void finish(results *d)
{
    asm volatile("" : "+v"(*d) : : "memory");
}

DEVICE void weights_operand(operand *p, const uint32_t *pairs)
{
    int upper = THREAD & 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t own = pairs[i], other = other_half(own);
        (*p)[i] = upper ? other : own;
        (*p)[i + 4] = upper ? own : other;
    }
}

#endif
