/* tiles_avx2.c: the AVX2 level: 6 x 16 register tiles of f32, K transposed 8 x 8 in registers. */
#include "base/dtype.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/vec_avx2.h"
#include "cpu/vec_math.h"

enum { ROW_TILE = 6, COLUMN_TILE = 16 };

VEC vec widen_i8(const void *p, int64_t n)
{
    uint64_t bytes = 0;
    memcpy(&bytes, p, (size_t)n);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((long long)bytes)));
}

VEC vec hide_lanes(vec s, const unsigned char *mask, int64_t n)
{
    __m256 hidden = _mm256_cmp_ps(widen_i8(mask, n), v_zero(), _CMP_EQ_OQ);
    return _mm256_blendv_ps(s, v_set(-__builtin_inff()), hidden);
}

VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    _mm256_store_ps(s + j, p0);
    _mm256_store_ps(s + j + LANES, p1);
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += LANES) _mm256_store_ps(s + j, _mm256_setzero_ps());
}

/* v_exp2_f32 for what softmax asks, x <= 0 or NaN, without v_scale2's general 2^n; 0 below 2^-127.
 * Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. 22 cycles for 16 scores
 * become 17. */
VEC vec exp2_falling(vec x)
{
    const vec magic = v_set(12582912);
    x = v_max(v_set(-127), x);
    vec shifted = v_add(x, magic), u = v_sub(x, v_sub(shifted, magic));
    static const float c[] = {V_EXP2_F32_TERMS};
    vec p = v_fma(v_set(c[0]), u, v_set(c[1]));
    p = v_fma(p, u, v_set(c[2]));
    p = v_fma(p, u, v_set(c[3]));
    p = v_fma(p, u, v_set(c[4]));
    __m256i power = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23),
                                     _mm256_set1_epi32(127 << 23));
    return v_mul(v_fma(p, u, v_set(1)), _mm256_castsi256_ps(power));
}

/* 8 x 8 lanes of 32 bits: neighbours of 32 bits, of 64 bits, then the halves. */
VEC void transpose(vec x[LANES])
{
    vec t[LANES], u[LANES];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int h = 0; h < 2; h++) {
            __m256d a = _mm256_castps_pd(t[4 * i + h]), b = _mm256_castps_pd(t[4 * i + 2 + h]);
            u[4 * i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            u[4 * i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

#define TILE_HIDE(s, mask, n) hide_lanes(s, mask, n)
#define TILE_I8(p, n)         widen_i8(p, n)
#define TILE_STORE            store_p
#define TILE_CLEAR            clear_p
#define TILE_EXP2             exp2_falling
#define TILE_PAIR             1
#define TILE_MULTIPLY_ADD     v_fma
#define TILE_ROWS(X)          X(1) X(2) X(3) X(4) X(5) X(6)
#include "cpu/tile_loops.h"

const struct cpu_kernels cpu_avx2 = {
    .name = "cpu_avx2",
    .arch = "avx2",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 1,
    .decode_qk = decode_qk_avx2,
    .decode_pv = decode_pv_avx2,
};
