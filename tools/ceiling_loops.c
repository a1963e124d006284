/* ceiling_loops.c: the fastest loops of each instruction set: multiply-adds in registers, and reads. */
#include "ceiling_loops.h"

#include "base/cpuid.h"
#include "rapt/rapt.h"

#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* Twelve chains hide the latency of a multiply-add (4 cycles on 2 units, 8 chains) on all machines so far. */
enum { CHAINS = 12, BATCH = 2000 };
#define KEEP(x) __asm__ volatile("" : "+v"(x))

__attribute__((target("avx2,fma"))) static double fma_avx2(atomic_int *stop, const char *memory, size_t bytes)
{
    __m256 x[CHAINS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++) x[c] = _mm256_set1_ps((float)c);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * CHAINS * 8 * 2)
        for (int i = 0; i < BATCH; i++)
#pragma GCC unroll 12
            for (int c = 0; c < CHAINS; c++) {
                x[c] = _mm256_fmadd_ps(x[c], a, b);
                KEEP(x[c]);
            }
    return done;
}

__attribute__((target("avx512f"))) static double fma_avx512(atomic_int *stop, const char *memory, size_t bytes)
{
    __m512 x[CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++) x[c] = _mm512_set1_ps((float)c);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * CHAINS * 16 * 2)
        for (int i = 0; i < BATCH; i++)
#pragma GCC unroll 12
            for (int c = 0; c < CHAINS; c++) {
                x[c] = _mm512_fmadd_ps(x[c], a, b);
                KEEP(x[c]);
            }
    return done;
}

__attribute__((target("avx512f,avx512bf16"))) static double dot_avx512_bf16(atomic_int *stop, const char *memory, size_t bytes)
{
    __m512 x[CHAINS];
    __m512i bits = _mm512_set1_epi32(0x3a803a80); /* pairs of 2^-10 */
    __m512bh a = (__m512bh)bits, b = (__m512bh)bits;
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++) x[c] = _mm512_set1_ps((float)c);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * CHAINS * 32 * 2)
        for (int i = 0; i < BATCH; i++)
#pragma GCC unroll 12
            for (int c = 0; c < CHAINS; c++) {
                x[c] = _mm512_dpbf16_ps(x[c], a, b);
                KEEP(x[c]);
            }
    return done;
}

/* The layout that LDTILECFG reads: Intel SDM, volume 1, chapter 18. */
struct tile_configuration {
    uint8_t  palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t  rows[16];
};

/* Four accumulators, two tiles of each operand: 16 x 16 x 32 multiply-adds an instruction. */
__attribute__((target("amx-tile,amx-bf16"))) static double tiles_amx_bf16(atomic_int *stop, const char *memory, size_t bytes)
{
    struct tile_configuration configuration = {.palette = 1};
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int t = 0; t < 8; t++) {
        configuration.bytes_per_row[t] = 64;
        configuration.rows[t] = 16;
    }
    _tile_loadconfig(&configuration);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * 4 * 16 * 16 * 32 * 2)
        for (int i = 0; i < BATCH; i++) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    _tile_release();
    return done;
}

__attribute__((target("avx512f"))) static double read_avx512(atomic_int *stop, const char *memory, size_t bytes)
{
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (size_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 4
            for (size_t c = 0; c < 4; c++) sum[c] = _mm512_or_si512(sum[c], _mm512_load_si512(memory + i + c * 64));
    for (size_t c = 0; c < 4; c++) KEEP(sum[c]);
    return done;
}

__attribute__((target("avx2"))) static double read_avx2(atomic_int *stop, const char *memory, size_t bytes)
{
    __m256i sum[8] = {0};
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (size_t i = 0; i < bytes; i += 256)
#pragma GCC unroll 8
            for (size_t c = 0; c < 8; c++) sum[c] = _mm256_or_si256(sum[c], _mm256_load_si256((const __m256i *)(const void *)(memory + i + c * 32)));
    for (size_t c = 0; c < 8; c++) KEEP(sum[c]);
    return done;
}
#elif defined(__aarch64__)
#include <arm_neon.h>

enum { CHAINS = 24, BATCH = 2000 };
#define KEEP(x) __asm__ volatile("" : "+w"(x))

static double fma_neon(atomic_int *stop, const char *memory, size_t bytes)
{
    float32x4_t x[CHAINS], a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++) x[c] = vdupq_n_f32((float)c);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * CHAINS * 4 * 2)
        for (int i = 0; i < BATCH; i++)
#pragma GCC unroll 24
            for (int c = 0; c < CHAINS; c++) {
                x[c] = vfmaq_f32(x[c], a, b);
                KEEP(x[c]);
            }
    return done;
}

__attribute__((target("arch=armv8.2-a+bf16"))) static double matrix_neon_bf16(atomic_int *stop, const char *memory, size_t bytes)
{
    float32x4_t x[CHAINS];
    bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3a80)); /* 2^-10 */
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++) x[c] = vdupq_n_f32((float)c);
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)BATCH * CHAINS * 16 * 2)
        for (int i = 0; i < BATCH; i++)
#pragma GCC unroll 24
            for (int c = 0; c < CHAINS; c++) {
                x[c] = vbfmmlaq_f32(x[c], a, a);
                KEEP(x[c]);
            }
    return done;
}
#endif

/* Portable forms: as fast as the compiler makes them. */
static double fma_plain(atomic_int *stop, const char *memory, size_t bytes)
{
    float x[64];
    double done = 0;
    (void)memory;
    (void)bytes;
    for (int c = 0; c < 64; c++) x[c] = (float)c;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += 500.0 * 64 * 2)
        for (int i = 0; i < 500; i++) {
            for (int c = 0; c < 64; c++) x[c] = x[c] * 0.999f + 0.001f;
            __asm__ volatile("" : : "r"(x) : "memory");
        }
    return done;
}

static double read_plain(atomic_int *stop, const char *memory, size_t bytes)
{
    const uint64_t *words = (const uint64_t *)(const void *)memory;
    uint64_t sum[8] = {0};
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (size_t i = 0; i < bytes / 8; i += 8)
            for (size_t c = 0; c < 8; c++) sum[c] |= words[i + c];
    __asm__ volatile("" : : "r"(sum) : "memory");
    return done;
}

/* Best first; dtype 0: any. */
static const struct flop_loop {
    uint64_t    features;
    int64_t     dtype;
    loop        work;
    const char *name;
} flop_rows[] = {
#if defined(__x86_64__)
    {CPU_AMX_BF16, RAPT_BF16, tiles_amx_bf16, "AMX bf16 tile products"},
    {CPU_AVX512 | CPU_AVX512_BF16, RAPT_BF16, dot_avx512_bf16, "AVX-512 bf16 dot products"},
    {CPU_AVX512, 0, fma_avx512, "AVX-512 f32 multiply-adds"},
    {CPU_AVX2, 0, fma_avx2, "AVX2 f32 multiply-adds"},
#elif defined(__aarch64__)
    {CPU_NEON_BF16, RAPT_BF16, matrix_neon_bf16, "NEON bf16 matrix products"},
    {CPU_NEON, 0, fma_neon, "NEON f32 multiply-adds"},
#endif
    {0, 0, fma_plain, "f32 multiply-adds"},
};

static const struct read_loop {
    uint64_t features;
    loop     work;
} read_rows[] = {
#if defined(__x86_64__)
    {CPU_AVX512, read_avx512},
    {CPU_AVX2, read_avx2},
#endif
    {0, read_plain},
};

/* Linux gives a process the tile registers when it asks for them. */
static int has(uint64_t features)
{
    if ((cpu_features() & features) != features) return 0;
#if defined(__x86_64__) && defined(SYS_arch_prctl)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    if (features & CPU_AMX_BF16) return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
#endif
    return 1;
}

loop loop_flops(int64_t dtype, const char **name)
{
    const struct flop_loop *row = flop_rows;
    while (!has(row->features) || (row->dtype && row->dtype != dtype)) row++;
    *name = row->name;
    return row->work;
}

loop loop_reads(void)
{
    const struct read_loop *row = read_rows;
    while (!has(row->features)) row++;
    return row->work;
}
