/* Memory of every kind: LDS, scratch, flat pointers, narrow accesses, atomics, hidden arguments. */
#include "kernel.h"

KERNEL THREADS(256) void transpose(const float *in, float *out)
{
    SHARED float tile[16][17];
    int x = THREAD & 15, y = THREAD >> 4;
    tile[y][x] = in[GROUP * 256 + THREAD];
    barrier();
    out[GROUP * 256 + THREAD] = tile[x][y];
}

KERNEL THREADS(64) void dynamic(const u32 *in, u32 *out, int n)
{
    extern SHARED u32 buffer[];
    for (int i = THREAD; i < n; i += 64) buffer[i] = in[i];
    barrier();
    for (int i = THREAD; i < n; i += 64) out[i] = buffer[n - 1 - i];
}

/* An array whose index is only known at run time lives in scratch. */
KERNEL THREADS(64) void scratch(const int *in, int *out)
{
    int kept[24];
    for (int i = 0; i < 24; i++) kept[i] = in[(THREAD + i) & 63] + i;
#pragma clang loop unroll(disable)
    for (int i = 0; i < 24; i++) kept[in[i] % 24] ^= kept[(in[i] + THREAD) % 24] + i;
    int sum = 0;
    for (int i = 0; i < 24; i++) sum = sum * 31 + kept[i];
    out[THREAD] = sum;
}

KERNEL THREADS(64) void flat(const int *in, int *out, int which)
{
    SHARED int own[64];
    own[THREAD] = in[THREAD] * 5;
    barrier();
    const int *p = (which >> (THREAD & 3) & 1) ? (const int *)own : in;
    asm volatile("" : "+v"(p)); /* the compiler no longer knows what it points at */
    out[THREAD] = p[63 - THREAD];
}

KERNEL THREADS(64) void narrow(const u8 *in, u8 *out)
{
    int i = THREAD;
    const u16 *in16 = (const u16 *)in;
    u16 *out16 = (u16 *)(out + 256);
    out[i] = (u8)(in[i] + in[i + 64]);
    out[64 + i] = (u8)((int)((signed char *)in)[i] >> 1);
    out16[i] = (u16)(in16[i] * 3 + in16[i + 1]);
    out16[64 + i] = (u16)((int)((short *)in)[i] >> 2);
    __builtin_memcpy(out + 512 + 12 * i, in + 4 * (i & 15), 12);
}

KERNEL THREADS(256) void atomics(u32 *counters, u64 *wide, float *sum, u32 *slots)
{
    SHARED u32 local, local_max;
    if (THREAD == 0) {
        local = 0;
        local_max = 0;
    }
    barrier();
    __hip_atomic_fetch_add(&local, (u32)THREAD, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    __hip_atomic_fetch_max(&local_max, (u32)(THREAD * 7 % 256), __ATOMIC_RELAXED,
                           __HIP_MEMORY_SCOPE_WORKGROUP);
    u32 ticket =
        __hip_atomic_fetch_add(&counters[0], 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    slots[ticket] = 1;
    __hip_atomic_fetch_max(&counters[1], (u32)THREAD, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_xor(&counters[2], 1u << (THREAD & 31), __ATOMIC_RELAXED,
                           __HIP_MEMORY_SCOPE_AGENT);
    __hip_atomic_fetch_add(&wide[0], (u64)THREAD << 32 | 1, __ATOMIC_RELAXED,
                           __HIP_MEMORY_SCOPE_AGENT);
    u64 seen = 0;
    do seen = wide[1];
    while (!__hip_atomic_compare_exchange_strong(&wide[1], &seen, seen + 3, __ATOMIC_RELAXED,
                                                 __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT));
    float old = *(volatile float *)sum;
    while (!__hip_atomic_compare_exchange_strong(
        (u32 *)sum, (u32 *)&old, __builtin_bit_cast(u32, old + 1.0f), __ATOMIC_RELAXED,
        __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT)) {}
    barrier();
    if (THREAD == 0) {
        __hip_atomic_fetch_add(&counters[3], local, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
        __hip_atomic_fetch_add(&counters[4], local_max, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
    }
}

/* Places of work items and sizes from hidden arguments. */
KERNEL void places(u32 *out)
{
    u32 bx = __builtin_amdgcn_workgroup_size_x(), by = __builtin_amdgcn_workgroup_size_y();
    u32 bz = __builtin_amdgcn_workgroup_size_z();
    u32 x = __builtin_amdgcn_workitem_id_x(), y = __builtin_amdgcn_workitem_id_y(),
        z = __builtin_amdgcn_workitem_id_z();
    u32 gx = __builtin_amdgcn_workgroup_id_x(), gy = __builtin_amdgcn_workgroup_id_y(),
        gz = __builtin_amdgcn_workgroup_id_z();
    u32 nx = __builtin_amdgcn_grid_size_x() / bx, ny = __builtin_amdgcn_grid_size_y() / by;
    u32 group = gx + nx * (gy + ny * gz);
    out[group * bx * by * bz + x + bx * (y + by * z)] =
        x | y << 4 | z << 8 | gx << 12 | gy << 16 | gz << 20;
}

/* A struct argument larger than registers. */
struct large {
    const int *from;
    int *to;
    int table[40];
    float scale;
};
KERNEL THREADS(64) void by_value(struct large s)
{
    s.to[THREAD] = (int)((float)(s.from[THREAD] + s.table[THREAD % 40]) * s.scale);
}
