/* What the emulator's test kernels need of the device language, without ROCm. */
#ifndef AMDGPU_TEST_KERNEL_H
#define AMDGPU_TEST_KERNEL_H

#define KERNEL     extern "C" __attribute__((global))
#define DEVICE     static __attribute__((device, always_inline)) inline
#define SHARED     __attribute__((shared))
#define THREADS(n) __attribute__((amdgpu_flat_work_group_size(n, n)))
#define THREAD     ((int)__builtin_amdgcn_workitem_id_x())
#define GROUP      ((int)__builtin_amdgcn_workgroup_id_x())
#if defined(__GFX9__)
#define WAVE 64
#else
#define WAVE 32
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned short u16;
typedef unsigned char u8;

DEVICE void barrier(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
}

#endif
