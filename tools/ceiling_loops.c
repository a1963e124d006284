/* ceiling_loops.c: the fastest loops of each instruction set: multiply-adds in registers, and
 * reads, copies and writes of memory. */
#include "ceiling_loops.h"

#include "base/cpuid.h"
#include "rapt/rapt.h"

#include <stdint.h>
#include <string.h>

/* Chains of dependent operations, enough to hide a latency of 6 cycles on 2 units. They are
 * variables of their own, as an array would be kept in memory. */
#define CHAINS_12(X) X(x0) X(x1) X(x2) X(x3) X(x4) X(x5) X(x6) X(x7) X(x8) X(x9) X(x10) X(x11)
#define CHAINS_24(X)                                                                               \
    CHAINS_12(X)                                                                                   \
    X(x12) X(x13) X(x14) X(x15) X(x16) X(x17) X(x18) X(x19) X(x20) X(x21) X(x22) X(x23)
enum { BATCH = 2000 };

#define DECLARE(x) VECTOR x = START;
#define STEP(x)                                                                                    \
    x = OPERATION(x);                                                                              \
    KEEP(x);

/* clang-format off */
/* A loop over the chains, with VECTOR, START, OPERATION(x) and KEEP(x) as defined where it is used.
 * flop: of one operation. */
#define FLOP_LOOP(name, isa, chains, count, flop)                                                  \
    isa static double name(atomic_int *stop, char *memory, size_t bytes, size_t apart)       \
    {                                                                                              \
        const double step = (double)BATCH * (count) * (flop);                                      \
        double done = 0;                                                                           \
        (void)memory;                                                                              \
        (void)bytes;                                                                               \
        (void)apart;                                                                               \
        OPERANDS                                                                                   \
        chains(DECLARE)                                                                            \
        for (; !atomic_load_explicit(stop, memory_order_relaxed); done += step)                    \
            for (int i = 0; i < BATCH; i++) {                                                      \
                chains(STEP)                                                                       \
            }                                                                                      \
        return done;                                                                               \
    }

/* clang-format on */

#if defined(__x86_64__)
#include <immintrin.h>

#define KEEP(x)     __asm__ volatile("" : "+v"(x))
#define AVX2        __attribute__((target("avx2,fma")))
#define AVX512      __attribute__((target("avx512f")))
#define AVX512_BF16 __attribute__((target("avx512f,avx512bf16")))
#define AVX512_VNNI __attribute__((target("avx512f,avx512vnni")))
#define AMX         __attribute__((target("amx-tile,amx-bf16,amx-int8")))

#define VECTOR       __m256
#define START        _mm256_set1_ps(1)
#define OPERANDS     VECTOR a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
#define OPERATION(x) _mm256_fmadd_ps(x, a, b)
FLOP_LOOP(fma_avx2, AVX2, CHAINS_12, 12, 8 * 2)
#undef VECTOR
#undef START
#undef OPERANDS
#undef OPERATION

#define VECTOR       __m512
#define START        _mm512_set1_ps(1)
#define OPERANDS     VECTOR a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
#define OPERATION(x) _mm512_fmadd_ps(x, a, b)
FLOP_LOOP(fma_avx512, AVX512, CHAINS_24, 24, 16 * 2)
#undef OPERANDS
#undef OPERATION

#define OPERANDS     __m512bh a = (__m512bh)_mm512_set1_epi32(0x3a803a80); /* pairs of 2^-10 */
#define OPERATION(x) _mm512_dpbf16_ps(x, a, a)
FLOP_LOOP(dot_avx512_bf16, AVX512_BF16, CHAINS_24, 24, 32 * 2)
#undef VECTOR
#undef START
#undef OPERANDS
#undef OPERATION

/* By the intrinsic gcc 12 copies the sum before and after. */
AVX512_VNNI static inline __m512i add_pairs(__m512i sum, __m512i a)
{
    __asm__("vpdpwssd %1, %1, %0" : "+v"(sum) : "v"(a));
    return sum;
}

#define VECTOR       __m512i
#define START        _mm512_setzero_si512()
#define OPERANDS     VECTOR a = _mm512_set1_epi32(1);
#define OPERATION(x) add_pairs(x, a)
FLOP_LOOP(dot_avx512_vnni, AVX512_VNNI, CHAINS_24, 24, 32 * 2)

/* The layout that LDTILECFG reads: Intel SDM, volume 1, chapter 18. */
struct tile_configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
};

/* Four accumulators, two tiles of each operand: 16 x 16 x depth multiply-adds an instruction, of which it takes so
 * many for one of the problem. */
#define AMX_TILES(name, instruction, depth)                                                        \
    AMX static double name(atomic_int *stop, double products)                                      \
    {                                                                                              \
        struct tile_configuration configuration = {.palette = 1};                                  \
        double done = 0;                                                                           \
        for (int t = 0; t < 8; t++) {                                                              \
            configuration.bytes_per_row[t] = 64;                                                   \
            configuration.rows[t] = 16;                                                            \
        }                                                                                          \
        _tile_loadconfig(&configuration);                                                          \
        _tile_zero(0);                                                                             \
        _tile_zero(1);                                                                             \
        _tile_zero(2);                                                                             \
        _tile_zero(3);                                                                             \
        _tile_zero(4);                                                                             \
        _tile_zero(5);                                                                             \
        _tile_zero(6);                                                                             \
        _tile_zero(7);                                                                             \
        for (; !atomic_load_explicit(stop, memory_order_relaxed);                                  \
             done += (double)BATCH * 4 * 16 * 16 * (depth)*2)                                      \
            for (int i = 0; i < BATCH; i++) {                                                      \
                instruction(0, 4, 6);                                                              \
                instruction(1, 4, 7);                                                              \
                instruction(2, 5, 6);                                                              \
                instruction(3, 5, 7);                                                              \
            }                                                                                      \
        _tile_release();                                                                           \
        return done / products;                                                                    \
    }
AMX_TILES(tiles_amx, _tile_dpbf16ps, 32)
AMX_TILES(tiles_of_bytes_amx, _tile_dpbssd, 64)

#define AMX_LOOP(name, tiles, products)                                                            \
    static double name(atomic_int *stop, char *memory, size_t bytes, size_t apart)                 \
    {                                                                                              \
        (void)memory;                                                                              \
        (void)bytes;                                                                               \
        (void)apart;                                                                               \
        return tiles(stop, products);                                                              \
    }
AMX_LOOP(tiles_amx_bf16, tiles_amx, 1)
AMX_LOOP(tiles_amx_f16, tiles_amx, 3.5)       /* by two parts: four for scores, three for values */
AMX_LOOP(tiles_amx_f32, tiles_amx, 6)         /* by three parts */
AMX_LOOP(tiles_amx_i8, tiles_of_bytes_amx, 2) /* q and weights by two bytes */

AVX512 static double read_avx512(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    (void)apart;
    __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (const char *at = memory; at < memory + bytes; at += 256) {
            s0 = _mm512_or_si512(s0, _mm512_load_si512(at));
            s1 = _mm512_or_si512(s1, _mm512_load_si512(at + 64));
            s2 = _mm512_or_si512(s2, _mm512_load_si512(at + 128));
            s3 = _mm512_or_si512(s3, _mm512_load_si512(at + 192));
        }
    s0 = _mm512_or_si512(_mm512_or_si512(s0, s1), _mm512_or_si512(s2, s3));
    KEEP(s0);
    return done;
}

AVX2 static double read_avx2(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    (void)apart;
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (const char *at = memory; at < memory + bytes; at += 128) {
            const __m256i *p = (const __m256i *)(const void *)at;
            s0 = _mm256_or_si256(s0, _mm256_load_si256(p));
            s1 = _mm256_or_si256(s1, _mm256_load_si256(p + 1));
            s2 = _mm256_or_si256(s2, _mm256_load_si256(p + 2));
            s3 = _mm256_or_si256(s3, _mm256_load_si256(p + 3));
        }
    s0 = _mm256_or_si256(_mm256_or_si256(s0, s1), _mm256_or_si256(s2, s3));
    KEEP(s0);
    return done;
}

/* clang-format off */
/* Copies half of the bytes from the memory to a place that far apart. */
#define COPY_LOOP(name, isa, vector, step, LOAD, STORE)                                            \
    isa static double name(atomic_int *stop, char *memory, size_t bytes, size_t apart)             \
    {                                                                                              \
        double done = 0;                                                                           \
        char *to = memory + apart;                                                                 \
        for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)           \
            for (size_t i = 0; i < bytes / 2; i += 4 * (step)) {                                   \
                vector x0 = LOAD((const void *)(memory + i)),                                      \
                       x1 = LOAD((const void *)(memory + i + (step))),                             \
                       x2 = LOAD((const void *)(memory + i + 2 * (step))),                         \
                       x3 = LOAD((const void *)(memory + i + 3 * (step)));                         \
                STORE((void *)(to + i), x0);                                                       \
                STORE((void *)(to + i + (step)), x1);                                              \
                STORE((void *)(to + i + 2 * (step)), x2);                                          \
                STORE((void *)(to + i + 3 * (step)), x3);                                          \
            }                                                                                      \
        _mm_sfence();                                                                              \
        return done;                                                                               \
    }

/* Reads 256 bytes, and writes them REPEATS times side by side. */
#define REPEAT_LOOP(name, isa, vector, step, LOAD, STORE)                                          \
    isa static double name(atomic_int *stop, char *memory, size_t bytes, size_t apart)             \
    {                                                                                              \
        double done = 0;                                                                           \
        for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes) {         \
            char *to = memory + apart;                                                             \
            for (size_t i = 0; i < bytes / (1 + REPEATS); i += 256)                                \
                for (int n = 0; n < REPEATS; n++, to += 256)                                       \
                    for (size_t k = 0; k < 256; k += (step))                                       \
                        STORE((void *)(to + k), LOAD((const void *)(memory + i + k)));             \
        }                                                                                          \
        _mm_sfence();                                                                              \
        return done;                                                                               \
    }

/* Fills the memory. Not with zeros: on some machines lines of zeros are written at twice the rate
 * of others. */
#define WRITE_LOOP(name, isa, vector, step, STORE, PATTERN)                                        \
    isa static double name(atomic_int *stop, char *memory, size_t bytes, size_t apart)             \
    {                                                                                              \
        (void)apart;                                                                               \
        double done = 0;                                                                           \
        vector x = PATTERN;                                                                        \
        for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)           \
            for (char *at = memory; at < memory + bytes; at += 4 * (step)) {                       \
                STORE((void *)at, x);                                                              \
                STORE((void *)(at + (step)), x);                                                   \
                STORE((void *)(at + 2 * (step)), x);                                               \
                STORE((void *)(at + 3 * (step)), x);                                               \
                KEEP(x);                                                                           \
            }                                                                                      \
        _mm_sfence();                                                                              \
        return done;                                                                               \
    }
/* clang-format on */

#define PATTERN_512 _mm512_set1_epi32(0x3f800000)
#define PATTERN_256 _mm256_set1_epi32(0x3f800000)
static const size_t zmm = 64, ymm = 32;
COPY_LOOP(copy_avx512, AVX512, __m512i, zmm, _mm512_load_si512, _mm512_store_si512)
COPY_LOOP(copy_avx512_stream, AVX512, __m512i, zmm, _mm512_load_si512, _mm512_stream_si512)
COPY_LOOP(copy_avx2, AVX2, __m256i, ymm, _mm256_load_si256, _mm256_store_si256)
COPY_LOOP(copy_avx2_stream, AVX2, __m256i, ymm, _mm256_load_si256, _mm256_stream_si256)
REPEAT_LOOP(repeat_avx512, AVX512, __m512i, zmm, _mm512_load_si512, _mm512_store_si512)
REPEAT_LOOP(repeat_avx512_stream, AVX512, __m512i, zmm, _mm512_load_si512, _mm512_stream_si512)
REPEAT_LOOP(repeat_avx2, AVX2, __m256i, ymm, _mm256_load_si256, _mm256_store_si256)
REPEAT_LOOP(repeat_avx2_stream, AVX2, __m256i, ymm, _mm256_load_si256, _mm256_stream_si256)
WRITE_LOOP(write_avx512, AVX512, __m512i, zmm, _mm512_store_si512, PATTERN_512)
WRITE_LOOP(write_avx512_stream, AVX512, __m512i, zmm, _mm512_stream_si512, PATTERN_512)
WRITE_LOOP(write_avx2, AVX2, __m256i, ymm, _mm256_store_si256, PATTERN_256)
WRITE_LOOP(write_avx2_stream, AVX2, __m256i, ymm, _mm256_stream_si256, PATTERN_256)
#elif defined(__aarch64__)
#include <arm_neon.h>

#define KEEP(x) __asm__ volatile("" : "+w"(x))
#define NEON
#define NEON_BF16 __attribute__((target("arch=armv8.2-a+bf16")))

#define VECTOR       float32x4_t
#define START        vdupq_n_f32(1)
#define OPERANDS     VECTOR a = vdupq_n_f32(0.999f), b = vdupq_n_f32(0.001f);
#define OPERATION(x) vfmaq_f32(x, a, b)
FLOP_LOOP(fma_neon, NEON, CHAINS_24, 24, 4 * 2)
#undef OPERANDS
#undef OPERATION

#define OPERANDS     bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3a80)); /* 2^-10 */
#define OPERATION(x) vbfmmlaq_f32(x, a, a)
FLOP_LOOP(matrix_neon_bf16, NEON_BF16, CHAINS_24, 24, 16 * 2)
#endif

/* Portable forms: as fast as the compiler makes them. */
static double fma_plain(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    float x[64];
    double done = 0;
    (void)memory;
    (void)bytes;
    (void)apart;
    for (int c = 0; c < 64; c++) x[c] = (float)c;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += 500.0 * 64 * 2)
        for (int i = 0; i < 500; i++) {
            for (int c = 0; c < 64; c++) x[c] = x[c] * 0.999f + 0.001f;
            __asm__ volatile("" : : "r"(x) : "memory");
        }
    return done;
}

static double read_plain(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    (void)apart;
    const uint64_t *words = (const uint64_t *)(const void *)memory;
    uint64_t sum[8] = {0};
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (size_t i = 0; i < bytes / 8; i += 8)
            for (size_t c = 0; c < 8; c++) sum[c] |= words[i + c];
    __asm__ volatile("" : : "r"(sum) : "memory");
    return done;
}

static double copy_plain(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        memcpy(memory + apart, memory, bytes / 2);
    return done;
}

static double repeat_plain(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        for (size_t i = 0; i < bytes / (1 + REPEATS) / 256; i++)
            for (size_t n = 0; n < REPEATS; n++)
                memcpy(memory + apart + (i * REPEATS + n) * 256, memory + i * 256, 256);
    return done;
}

static double write_plain(atomic_int *stop, char *memory, size_t bytes, size_t apart)
{
    (void)apart;
    double done = 0;
    for (; !atomic_load_explicit(stop, memory_order_relaxed); done += (double)bytes)
        memset(memory, (int)done & 1, bytes);
    return done;
}

/* Best first; dtype 0: any; I8: of 16-bit integers with bytes. */
static const struct flop_loop {
    uint64_t features;
    int64_t dtype;
    loop work;
    const char *name;
} flop_rows[] = {
#if defined(__x86_64__)
    {CPU_AMX_BF16, RAPT_BF16, tiles_amx_bf16, "AMX bf16 tile products"},
    {CPU_AMX_BF16, RAPT_F16, tiles_amx_f16, "AMX bf16 tile products, 3.5 for one of f16"},
    {CPU_AMX_BF16, RAPT_F32, tiles_amx_f32, "AMX bf16 tile products, 6 for one of f32"},
    {CPU_AMX_INT8, RAPT_I8, tiles_amx_i8, "AMX int8 tile products, 2 for one of 16 bits"},
    {CPU_AVX512 | CPU_AVX512_BF16, RAPT_BF16, dot_avx512_bf16, "AVX-512 bf16 dot products"},
    {CPU_AVX512 | CPU_AVX512_VNNI, RAPT_I8, dot_avx512_vnni, "AVX-512 products of 16-bit integers"},
    {CPU_AVX512, 0, fma_avx512, "AVX-512 f32 multiply-adds"},
    {CPU_AVX2, 0, fma_avx2, "AVX2 f32 multiply-adds"},
#elif defined(__aarch64__)
    {CPU_NEON_BF16, RAPT_BF16, matrix_neon_bf16, "NEON bf16 matrix products"},
    {CPU_NEON, 0, fma_neon, "NEON f32 multiply-adds"},
#endif
    {0, 0, fma_plain, "f32 multiply-adds"},
};

/* For each traffic, the rows of the first features that are here serve. */
static const struct memory_loop {
    uint64_t features;
    enum traffic traffic;
    loop work;
} memory_rows[] = {
#if defined(__x86_64__)
    {CPU_AVX512, TRAFFIC_READS, read_avx512},
    {CPU_AVX512, TRAFFIC_COPIES, copy_avx512},
    {CPU_AVX512, TRAFFIC_COPIES, copy_avx512_stream},
    {CPU_AVX512, TRAFFIC_REPETITIONS, repeat_avx512},
    {CPU_AVX512, TRAFFIC_REPETITIONS, repeat_avx512_stream},
    {CPU_AVX512, TRAFFIC_WRITES, write_avx512},
    {CPU_AVX512, TRAFFIC_WRITES, write_avx512_stream},
    {CPU_AVX2, TRAFFIC_READS, read_avx2},
    {CPU_AVX2, TRAFFIC_COPIES, copy_avx2},
    {CPU_AVX2, TRAFFIC_COPIES, copy_avx2_stream},
    {CPU_AVX2, TRAFFIC_REPETITIONS, repeat_avx2},
    {CPU_AVX2, TRAFFIC_REPETITIONS, repeat_avx2_stream},
    {CPU_AVX2, TRAFFIC_WRITES, write_avx2},
    {CPU_AVX2, TRAFFIC_WRITES, write_avx2_stream},
#endif
    {0, TRAFFIC_READS, read_plain},
    {0, TRAFFIC_COPIES, copy_plain},
    {0, TRAFFIC_REPETITIONS, repeat_plain},
    {0, TRAFFIC_WRITES, write_plain},
};
enum { MEMORY_ROWS = sizeof memory_rows / sizeof *memory_rows };

static int has(uint64_t features)
{
    return cpu_permitted(cpu_features() & features) == features;
}

loop loop_flops(int64_t dtype, const char **name)
{
    const struct flop_loop *row = flop_rows;
    while (!has(row->features) || (row->dtype && row->dtype != dtype)) row++;
    *name = row->name;
    return row->work;
}

loop loop_memory(enum traffic traffic, int number)
{
    const struct memory_loop *row = memory_rows, *end = memory_rows + MEMORY_ROWS;
    while (row->traffic != traffic || !has(row->features)) row++;
    for (uint64_t features = row->features; row < end && row->features == features; row++)
        if (row->traffic == traffic && number-- == 0) return row->work;
    return NULL;
}
