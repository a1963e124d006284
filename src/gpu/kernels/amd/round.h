/* round.h: weights to 16 bits, two to a register. */
#ifndef RAPT_AMD_ROUND_H
#define RAPT_AMD_ROUND_H

#include "device.h"

typedef _Float16 halves_2 __attribute__((ext_vector_type(2)));
typedef __bf16 brains_2 __attribute__((ext_vector_type(2)));

/* Two weights, which are never negative, rounded to nearest; a tie of bf16 goes up, which takes an
 * instruction less than to even. */
DEVICE uint32_t pack_weights(float low, float high)
{
#if DTYPE == DTYPE_f16
    float2 x = {low, high};
    return __builtin_bit_cast(uint32_t, __builtin_convertvector(x, halves_2));
#elif defined(__gfx950__)
    float2 x = {low, high};
    return __builtin_bit_cast(uint32_t, __builtin_convertvector(x, brains_2));
#else
    return __builtin_amdgcn_perm(bits_of(high) + 0x8000, bits_of(low) + 0x8000, 0x07060302);
#endif
}

#endif
