/* mma.h: the sm_80 verbs: asynchronous 16-byte copies to shared memory, ldmatrix, m16n8k16 products
 * with f32 sums, packing of two. Fragment layouts: PTX ISA, "Matrix fragments for mma.m16n8k16".
 * With g = lane / 4, t = lane % 4: A  16x16  a[0] (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 8 +
 * 2t..), a[3] (g + 8, 8 + 2t..) B  16x8   b[0] (k 2t.., n g), b[1] (k 8 + 2t.., n g) C  16x8
 * c[0..1] (g, 2t..), c[2..3] (g + 8, 2t..) */
#ifndef RAPT_MMA_H
#define RAPT_MMA_H

#include "nvidia/quad.h"

DEVICE uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes of which the first `bytes` are read and the rest are zero. */
DEVICE void copy_async(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(bytes)
                 : "memory");
}

/* 4 bytes, or zero. */
DEVICE void copy_async_word(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

/* 16 bytes where on is not 0; no branch, for the code around it to be scheduled as one. */
DEVICE void copy_async_if(uint32_t to, const void *from, int on)
{
    asm volatile("{.reg .pred p; setp.ne.s32 p, %2, 0;"
                 " @p cp.async.cg.shared.global.L2::128B [%0], [%1], 16;}" ::"r"(to),
                 "l"(from), "r"(on)
                 : "memory");
}

DEVICE void copies_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until all of this thread's copies have landed; a barrier makes them visible to the block. */
DEVICE void copies_wait(void)
{
    asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* Until at most GROUPS of the commits before have not. */
template <int GROUPS> DEVICE void copies_wait_but(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

/* Four 8x8 matrices of 2-byte elements; lanes 8i ... 8i + 7 give the row addresses of matrix i. */
DEVICE void load_matrices(uint32_t *r, uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

DEVICE void load_matrices_transposed(uint32_t *r, uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

#if DTYPE == DTYPE_bf16
#define MMA_TYPES "bf16.bf16"
#define PACK_TYPE "bf16x2"
#else
#define MMA_TYPES "f16.f16"
#define PACK_TYPE "f16x2"
#endif

/* c += a b */
DEVICE void multiply_add(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." MMA_TYPES
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two floats rounded to DTYPE, the first in the low half. */
DEVICE uint32_t pack(float low, float high)
{
    uint32_t x;
    asm("cvt.rn." PACK_TYPE ".f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

#endif
