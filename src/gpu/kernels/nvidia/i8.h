/* i8.h: integers of 8 bits to numbers of q's type, exactly. */
#ifndef RAPT_NVIDIA_I8_H
#define RAPT_NVIDIA_I8_H

#ifndef DEVICE
#define DEVICE __device__ __forceinline__
#endif

/* Upper bytes of numbers whose last bits hold an integer. */
#define I8_EXPONENT (DTYPE == DTYPE_f16 ? 0x64646464u : 0x43434343u)

/* Bytes of x, which are i8, to two numbers of q's type: SELECT 0x4140 takes the first two, 0x4342 the
 * last two, 0x4240 and 0x4341 every second. f16: a byte + 128 in the last bits of 1024, from which 1152
 * is taken. bf16: the low 7 bits in those of 128, the sign, where it doubles 128, apart from them. */
template <int SELECT> DEVICE uint32_t two_numbers(uint32_t x, uint32_t exponent = I8_EXPONENT)
{
#if DTYPE == DTYPE_f16
    uint32_t y = __byte_perm(x ^ 0x80808080u, exponent, SELECT), from = 0x64806480u;
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(y) : "r"(from));
#else
    uint32_t both = __byte_perm(x, exponent, SELECT), from = both & 0xff80ff80u,
             y = both & 0xff7fff7fu;
#if __CUDA_ARCH__ >= 900
    asm("sub.rn.bf16x2 %0, %0, %1;" : "+r"(y) : "r"(from));
#else
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(y) : "r"(from), "r"(0xbf80bf80u)); /* times -1 */
#endif
#endif
    return y;
}

#endif
