/* device.h: the one header that knows both device languages, CUDA (nvcc) and HIP (clang without
 * ROCm): ids, barriers, shuffles, conversions, the few elementary functions that attention needs,
 * and access to elements of a view. Everything else is one plain source. */
#ifndef RAPT_DEVICE_H
#define RAPT_DEVICE_H

#include "gpu/kernel_args.h"
#include <stddef.h>

#if defined(__HIP__)
/* ---- HIP ------------------------------------------------------------------------------------- */
#define __global__      __attribute__((global))
#define __device__      __attribute__((device))
#define __shared__      __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
/* Two waves of a SIMD at least, so that one works while the other waits. */
#define LAUNCH(threads, blocks_per_unit)                                                           \
    __attribute__((amdgpu_flat_work_group_size(threads, threads), amdgpu_waves_per_eu(2)))
#define BY_VALUE /* CUDA: __grid_constant__ */
typedef float float4 __attribute__((ext_vector_type(4)));
typedef float float2 __attribute__((ext_vector_type(2)));
typedef uint32_t uint4 __attribute__((ext_vector_type(4)));
typedef uint32_t uint2 __attribute__((ext_vector_type(2)));
#define INFINITY __builtin_inff()
#define THREAD   ((int)__builtin_amdgcn_workitem_id_x())
#define BLOCK_X  ((int)__builtin_amdgcn_workgroup_id_x())
#define BLOCK_Y  ((int)__builtin_amdgcn_workgroup_id_y())
#define BLOCK_Z  ((int)__builtin_amdgcn_workgroup_id_z())
/* __GFX9__ (CDNA) runs waves of 64 lanes, RDNA of 32. */
#if defined(__GFX9__)
#define WAVE 64
#else
#define WAVE 32
#endif
/* The kernel's first parameter, where the hardware keeps it: a by-value struct whose address is
 * taken, or whose arrays are indexed at run time, would be copied to scratch. */
#define ARGUMENT(type, name)                                                                       \
    ((void)name, (const struct type *)(const __attribute__((                                       \
                     address_space(4))) struct type *)__builtin_amdgcn_kernarg_segment_ptr())
/* The same pointer, but new to the compiler, which then loads fields again instead of keeping them
 * in scalar registers (there are about 100) from one part of a kernel to another. */
#define AGAIN(type, a)                                                                             \
    ((void)(a), (const struct type *)(const __attribute__((address_space(4))) struct type *)       \
                    kernarg_again())

#define READ_AGAIN 1 /* cheaper than a scalar register that is kept */
typedef const __attribute__((address_space(4))) void *kernarg_pointer;
static __device__ __forceinline__ kernarg_pointer kernarg_again(void)
{
    kernarg_pointer p = (kernarg_pointer)__builtin_amdgcn_kernarg_segment_ptr();
    asm volatile("" : "+s"(p));
    return p;
}
static __device__ __forceinline__ uint32_t bits_of(float x)
{
    return __builtin_bit_cast(uint32_t, x);
}
static __device__ __forceinline__ float float_of(uint32_t x)
{
    return __builtin_bit_cast(float, x);
}
/* The fence names LDS alone: a fence of all memory would invalidate caches at every barrier (gfx11,
 * gfx12). */
static __device__ __forceinline__ void block_barrier(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup", "local");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup", "local");
}
/* Orders shared memory between the lanes of one wave. */
static __device__ __forceinline__ void wave_barrier(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront", "local");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront", "local");
}
static __device__ __forceinline__ float lane_xor(float x, int mask)
{
    return float_of(
        __builtin_amdgcn_ds_bpermute(((THREAD ^ mask) & (WAVE - 1)) << 2, (int)bits_of(x)));
}
/* x of another lane of the wave; which lanes a condition holds in, as bits. */
static __device__ __forceinline__ float lane_read(float x, int lane)
{
    return float_of(__builtin_amdgcn_ds_bpermute(lane << 2, (int)bits_of(x)));
}
static __device__ __forceinline__ uint64_t lanes_with(int condition)
{
#if defined(__GFX9__)
    return __builtin_amdgcn_ballot_w64(condition != 0);
#else
    return __builtin_amdgcn_ballot_w32(condition != 0);
#endif
}
/* Within 16 lanes: swaps of 1, of 2, then mirrors of 8 and of 16, which after the former act as
 * swaps of 4 and of 8. */
#define DPP_SWAP_1    0xB1
#define DPP_SWAP_2    0x4E
#define DPP_MIRROR_8  0x141
#define DPP_MIRROR_16 0x140
#define DPP(x, control)                                                                            \
    float_of(__builtin_amdgcn_update_dpp(0, (int)bits_of(x), control, 0xf, 0xf, true))
static __device__ __forceinline__ float sum_of_8(float x)
{
    x += DPP(x, DPP_SWAP_1);
    x += DPP(x, DPP_SWAP_2);
    return x + DPP(x, DPP_MIRROR_8);
}
static __device__ __forceinline__ float sum_of_16(float x)
{
    x = sum_of_8(x);
    return x + DPP(x, DPP_MIRROR_16);
}
static __device__ __forceinline__ float max_of_16(float x)
{
    x = __builtin_fmaxf(x, DPP(x, DPP_SWAP_1));
    x = __builtin_fmaxf(x, DPP(x, DPP_SWAP_2));
    x = __builtin_fmaxf(x, DPP(x, DPP_MIRROR_8));
    return __builtin_fmaxf(x, DPP(x, DPP_MIRROR_16));
}
/* The same number, but new to the compiler: addresses made from it are not kept in registers across
 * a loop. */
static __device__ __forceinline__ int fresh(int x)
{
    asm volatile("" : "+v"(x));
    return x;
}
/* The same pointer in vector registers, of which there are more: for those that are only added to
 * what differs from lane to lane. */
static __device__ __forceinline__ const char *in_lanes(const char *p)
{
    asm("" : "+v"(p));
    return p;
}
/* RDNA3 and RDNA4 issue two multiply-adds at once when their sources lie in different register banks
 * (number mod 4): loops that count on it walk the four components of their operands side by side. */
#if defined(__GFX11__) || defined(__GFX12__)
#define DUAL_ISSUE 1
#else
#define DUAL_ISSUE 0
#endif
static __device__ __forceinline__ float component(float4 x, int i)
{
    return x[i];
}
#define LOAD(type, address)         (*(const __attribute__((address_space(1))) type *)(address))
#define LOAD_NEW(type, address)     LOAD(type, address)
#define STORE(type, address, value) (*(__attribute__((address_space(1))) type *)(address) = (value))
static __device__ __forceinline__ float
exp2_fast(float x) /* 1 ulp; -inf gives 0; results below 2^-126 give 0 */
{
    return __builtin_amdgcn_exp2f(x);
}
static __device__ __forceinline__ float log2_fast(float x)
{
    return __builtin_amdgcn_logf(x);
}
static __device__ __forceinline__ float maximum(float a,
                                                float b) /* the other one when one is NaN */
{
    return __builtin_fmaxf(a, b);
}
static __device__ __forceinline__ float fused(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
static __device__ __forceinline__ double fused_f64(double a, double b, double c)
{
    return __builtin_fma(a, b, c);
}
static __device__ __forceinline__ double nearest_f64(double x)
{
    return __builtin_rint(x);
}
static __device__ __forceinline__ float nearest_f32(float x)
{
    return __builtin_rintf(x);
}
static __device__ __forceinline__ double floor_f64(double x)
{
    return __builtin_floor(x);
}
static __device__ __forceinline__ int low_word(double x)
{
    return (int)__builtin_bit_cast(uint64_t, x);
}
static __device__ __forceinline__ float f16_to_f32(uint16_t h)
{
    return (float)__builtin_bit_cast(_Float16, h);
}
static __device__ __forceinline__ uint16_t f32_to_f16(float x)
{
    return __builtin_bit_cast(uint16_t, (_Float16)x);
}
static __device__ __forceinline__ uint16_t f32_to_bf16(float x) /* nearest even; NaN stays NaN */
{
    uint32_t u = bits_of(x);
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
    return (uint16_t)(x != x ? 0x7fff : rounded);
}
static __device__ __forceinline__ uint32_t pack_f16(float low, float high)
{
    return f32_to_f16(low) | (uint32_t)f32_to_f16(high) << 16;
}
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    return f32_to_bf16(low) | (uint32_t)f32_to_bf16(high) << 16;
}
static __device__ __forceinline__ float4 float4_of(float x, float y, float z, float w)
{
    float4 v = {x, y, z, w};
    return v;
}

#else
/* ---- CUDA ------------------------------------------------------------------------------------ */
#define LAUNCH(threads, blocks_per_unit) __launch_bounds__(threads, blocks_per_unit)
#define BY_VALUE                         __grid_constant__
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#define THREAD                      ((int)threadIdx.x)
#define BLOCK_X                     ((int)blockIdx.x)
#define BLOCK_Y                     ((int)blockIdx.y)
#define BLOCK_Z                     ((int)blockIdx.z)
#define WAVE                        32
#define ARGUMENT(type, name)        (&(name))
#define AGAIN(type, a)              (a)
#define READ_AGAIN                  0
#define DUAL_ISSUE                  0

static __device__ __forceinline__ uint32_t bits_of(float x)
{
    return __float_as_uint(x);
}
static __device__ __forceinline__ float float_of(uint32_t x)
{
    return __uint_as_float(x);
}
static __device__ __forceinline__ void block_barrier(void)
{
    __syncthreads();
}
static __device__ __forceinline__ void wave_barrier(void)
{
    __syncwarp();
}
static __device__ __forceinline__ float lane_xor(float x, int mask)
{
    return __shfl_xor_sync(~0u, x, mask);
}
static __device__ __forceinline__ float lane_read(float x, int lane)
{
    return __shfl_sync(~0u, x, lane);
}
static __device__ __forceinline__ uint64_t lanes_with(int condition)
{
    return __ballot_sync(~0u, condition);
}
static __device__ __forceinline__ float sum_of_8(float x)
{
    x += lane_xor(x, 1);
    x += lane_xor(x, 2);
    return x + lane_xor(x, 4);
}
static __device__ __forceinline__ float sum_of_16(float x)
{
    x = sum_of_8(x);
    return x + lane_xor(x, 8);
}
static __device__ __forceinline__ float max_of_16(float x)
{
    x = fmaxf(x, lane_xor(x, 1));
    x = fmaxf(x, lane_xor(x, 2));
    x = fmaxf(x, lane_xor(x, 4));
    return fmaxf(x, lane_xor(x, 8));
}
/* The same number, but new to the compiler: addresses made from it are not kept in registers across
 * a loop. */
static __device__ __forceinline__ int fresh(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}
static __device__ __forceinline__ const char *in_lanes(const char *p)
{
    return p;
}
/* Global memory that this launch does not write before it reads; and a store to it. */
#define LOAD(type, address)         __ldg((const type *)(address))
/* Global memory that a launch wrote which may still have run when this one began. */
#define LOAD_NEW(type, address)     __ldcg((const type *)(address))
#define STORE(type, address, value) (*(type *)(address) = (value))
static __device__ __forceinline__ float
exp2_fast(float x) /* 2 ulp; -inf gives 0; results below 2^-126 give 0 */
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ float maximum(float a,
                                                float b) /* the other one when one is NaN */
{
    return fmaxf(a, b);
}
static __device__ __forceinline__ float fused(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}
static __device__ __forceinline__ double fused_f64(double a, double b, double c)
{
    return __fma_rn(a, b, c);
}
static __device__ __forceinline__ double nearest_f64(double x)
{
    return rint(x);
}
static __device__ __forceinline__ float nearest_f32(float x)
{
    return rintf(x);
}
static __device__ __forceinline__ double floor_f64(double x)
{
    return floor(x);
}
static __device__ __forceinline__ int low_word(double x)
{
    return __double2loint(x);
}
static __device__ __forceinline__ float f16_to_f32(uint16_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}
static __device__ __forceinline__ uint16_t f32_to_f16(float x)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
static __device__ __forceinline__ uint16_t f32_to_bf16(float x)
{
    uint16_t h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
static __device__ __forceinline__ uint32_t pack_f16(float low, float high)
{
    uint32_t x;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t x;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}
static __device__ __forceinline__ float4 float4_of(float x, float y, float z, float w)
{
    return make_float4(x, y, z, w);
}
static __device__ __forceinline__ float component(float4 x, int i)
{
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
#endif

/* ---- Both ------------------------------------------------------------------------------------ */
#define DEVICE       static __device__ __forceinline__
#define UNROLL       _Pragma("unroll")
#define RARE(x)      __builtin_expect(!!(x), 0)
#define KERNEL_ENTRY extern "C" __global__

#define LOG2_E 1.4426950408889634f
#define LN_2   0.6931471805599453f

DEVICE float bf16_to_f32(uint32_t h)
{
    return float_of(h << 16);
}

DEVICE float sum_of_wave(float x)
{
    x = sum_of_16(x);
    x += lane_xor(x, 16);
    return WAVE == 64 ? x + lane_xor(x, 32) : x;
}

DEVICE float max_of_wave(float x)
{
    x = max_of_16(x);
    x = maximum(x, lane_xor(x, 16));
    return WAVE == 64 ? maximum(x, lane_xor(x, 32)) : x;
}

DEVICE int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* a / b for a of 0 and more; most numbers of rows fit 32 bits, where a division costs a third. */
DEVICE int64_t quotient(int64_t a, int32_t b)
{
    return a >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

DEVICE int larger(int a, int b)
{
    return a > b ? a : b;
}

DEVICE int is_finite(float x)
{
    return (bits_of(x) & 0x7f800000u) != 0x7f800000u;
}

/* tanh: Lambert's continued fraction to 9 below 0.7 (relative error 1e-8), else 1 - 2 / (e^2x + 1).
 */
DEVICE float tanh_f32(float x)
{
    float a = x < 0 ? -x : x, xx = x * x;
    if (a < 0.7f) return x * (945 + xx * (105 + xx)) / (945 + xx * (420 + 15 * xx));
    float y = 1 - 2 / (exp2_fast(a * (2 * LOG2_E)) + 1);
    return x < 0 ? -y : x != x ? x : y;
}

/* ---- Elements of views ----------------------------------------------------------------------- */

DEVICE int dtype_bytes(int64_t dtype)
{
    return dtype == DTYPE_f32 || dtype == DTYPE_i32    ? 4
           : dtype == DTYPE_f16 || dtype == DTYPE_bf16 ? 2
           : dtype == DTYPE_i64                        ? 8
                                                       : 1;
}

DEVICE float load_element(const void *base, int64_t index, int64_t dtype)
{
    if (dtype == DTYPE_f32) return LOAD(float, (const float *)base + index);
    if (dtype == DTYPE_i8) return (float)LOAD(signed char, (const signed char *)base + index);
    uint16_t h = LOAD(uint16_t, (const uint16_t *)base + index);
    return dtype == DTYPE_f16 ? f16_to_f32(h) : bf16_to_f32(h);
}

DEVICE void store_element(void *base, int64_t index, int64_t dtype, float x)
{
    if (dtype == DTYPE_f32) STORE(float, (float *)base + index, x);
    else
        STORE(uint16_t, (uint16_t *)base + index,
              dtype == DTYPE_f16 ? f32_to_f16(x) : f32_to_bf16(x));
}

DEVICE int64_t load_index(const struct view *v, int64_t i0, int64_t i2)
{
    int64_t at = i0 * v->stride[0] + i2 * v->stride[2];
    return v->dtype == DTYPE_i64 ? LOAD(int64_t, (const int64_t *)v->data + at)
                                 : LOAD(int32_t, (const int32_t *)v->data + at);
}

DEVICE char *element_at(const struct view *v, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (char *)v->data +
           (i0 * v->stride[0] + i1 * v->stride[1] + i2 * v->stride[2] + i3 * v->stride[3]) *
               dtype_bytes(v->dtype);
}

/* Whether runs of `elements` channels that start at a multiple of it are contiguous and aligned to
 * their size in every row. */
DEVICE int runs_aligned(const struct view *v, int elements)
{
    int64_t strides = v->stride[0] | v->stride[1] | v->stride[2];
    uint64_t bytes = (uint64_t)elements * dtype_bytes(v->dtype);
    return v->stride[3] == 1 && !(strides & (elements - 1)) && !((uint64_t)v->data & (bytes - 1));
}

/* Four packed 16-bit floats. */
DEVICE float4 unpack_four(uint2 h, int64_t dtype)
{
    if (dtype == DTYPE_bf16)
        return float4_of(float_of(h.x << 16), float_of(h.x & 0xffff0000u), float_of(h.y << 16),
                         float_of(h.y & 0xffff0000u));
    return float4_of(f16_to_f32((uint16_t)h.x), f16_to_f32((uint16_t)(h.x >> 16)),
                     f16_to_f32((uint16_t)h.y), f16_to_f32((uint16_t)(h.y >> 16)));
}

DEVICE uint32_t pack_two(float low, float high, int64_t dtype)
{
    return dtype == DTYPE_f16 ? pack_f16(low, high) : pack_bf16(low, high);
}

DEVICE void store_four(void *base, int64_t dtype, float4 x)
{
    if (dtype == DTYPE_f32) {
        STORE(float4, base, x);
        return;
    }
    uint2 h;
    h.x = pack_two(x.x, x.y, dtype);
    h.y = pack_two(x.z, x.w, dtype);
    STORE(uint2, base, h);
}

/* The 4 or 8 floats of 16 loaded bytes. Loads come first and this after the last of them, so that
 * they wait together. */
DEVICE void unpack_16_bytes(uint4 h, int64_t dtype, float *x)
{
    uint32_t w[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (dtype == DTYPE_f32) {
            x[i] = float_of(w[i]);
            continue;
        }
        x[2 * i] = dtype == DTYPE_f16 ? f16_to_f32((uint16_t)w[i]) : float_of(w[i] << 16);
        x[2 * i + 1] =
            dtype == DTYPE_f16 ? f16_to_f32((uint16_t)(w[i] >> 16)) : float_of(w[i] & 0xffff0000u);
    }
}

/* Eight neighbours of any float type in 16-byte pieces: f32 takes two. */
DEVICE void store_eight(void *base, int64_t dtype, const float *x)
{
    if (dtype == DTYPE_f32) {
        STORE(float4, base, float4_of(x[0], x[1], x[2], x[3]));
        STORE(float4, (char *)base + 16, float4_of(x[4], x[5], x[6], x[7]));
        return;
    }
    uint4 h;
    h.x = pack_two(x[0], x[1], dtype);
    h.y = pack_two(x[2], x[3], dtype);
    h.z = pack_two(x[4], x[5], dtype);
    h.w = pack_two(x[6], x[7], dtype);
    STORE(uint4, base, h);
}

/* ---- Sequences ------------------------------------------------------------------------------- */

/* Where the tokens of a sequence lie: ragged tensors have batch 0 and start at `start`. */
struct sequence {
    int32_t q_batch, q_start, q_length;
    int32_t kv_batch, kv_start, kv_length;
    int32_t offset; /* of query 0 on the key axis */
};

DEVICE struct sequence sequence_of(const struct attention_args *a, int b)
{
    struct sequence s = {b, 0, a->q_tokens, b, 0, a->kv_tokens, 0};
    if (a->q_start.data) {
        s.q_batch = 0;
        s.q_start = (int32_t)load_index(&a->q_start, b, 0);
        s.q_length = (int32_t)load_index(&a->q_start, b + 1, 0) - s.q_start;
    }
    if (a->kv_start.data) {
        s.kv_batch = 0;
        s.kv_start = (int32_t)load_index(&a->kv_start, b, 0);
        s.kv_length = (int32_t)load_index(&a->kv_start, b + 1, 0) - s.kv_start;
    }
    if (a->kv_length.data) s.kv_length = (int32_t)load_index(&a->kv_length, b, 0);
    s.offset = a->top_left ? 0 : s.kv_length - s.q_length;
    return s;
}

/* The block of a grid of (tile, head, batch), renumbered: sections of `section` (head, batch) pairs
 * follow each other, so that their keys share the cache, and within one the tiles come in falling
 * order, heads fastest: causal work is longest first. */
struct tile_place {
    int tile, y, z;
};

DEVICE struct tile_place place_of_block(int tiles, int heads, int batches, int section)
{
    struct tile_place place = {BLOCK_X, BLOCK_Y, BLOCK_Z};
    if ((double)tiles * heads * batches >= 2e9) return place; /* the arithmetic below is 32-bit */
    uint32_t linear = BLOCK_X + (uint32_t)tiles * (BLOCK_Y + (uint32_t)heads * BLOCK_Z);
    uint32_t pairs = (uint32_t)heads * batches;
    uint32_t first = linear / ((uint32_t)tiles * section) * section;
    uint32_t width = pairs - first < (uint32_t)section ? pairs - first : section;
    uint32_t within = linear - first * tiles;
    uint32_t pair = first + within % width;
    place.tile = tiles - 1 - (int)(within / width);
    place.y = (int)(pair % heads);
    place.z = (int)(pair / heads);
    return place;
}

#endif
