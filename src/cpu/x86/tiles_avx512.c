/* tiles_avx512.c: the AVX-512 level: 12 x 32 register tiles of f32, K transposed 16 x 16 in
 * registers. */
#include "base/dtype.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/vec_avx512.h"

enum { ROW_TILE = 12, COLUMN_TILE = 32 };

VEC vec load_i8(const void *p, int64_t n)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), p)));
}

VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    _mm512_store_ps(s + j, p0);
    _mm512_store_ps(s + j + LANES, p1);
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += LANES) _mm512_store_ps(s + j, _mm512_setzero_ps());
}

#define TILE_HIDE(s, mask, n) v_hide(s, mask, n)
#define TILE_I8(p, n)         load_i8(p, n)
#define TILE_STORE            store_p
#define TILE_CLEAR            clear_p
#define TILE_EXP2             v_exp2_f32
#define TILE_PAIR             1
#define TILE_MULTIPLY_ADD     v_fma
/* Panels stay in the second cache. Asked for so early, a row of one is in the first when two
 * multipliers need it: 5 % faster on Cascade Lake. One multiplier (Zen 4) takes 24 cycles for a row,
 * and all loads and requests of a row 9. A request past the last panel cannot fault. */
#define TILE_AHEAD    8
#define TILE_TOGETHER 4
#define TILE_ROWS(X)  X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#include "cpu/x86/transpose_avx512.h"
#include "cpu/tile_loops.h"

#define FORWARD CPU_TILE_SLOTS, CPU_PACK_SLOTS, .pair = 1, .attend_few = attend_few_avx512

const struct cpu_kernels cpu_avx512 = {
    .name = "cpu_avx512",
    .arch = "avx512",
    FORWARD,
    .decode_qk = decode_qk_avx512,
    .decode_pv = decode_pv_avx512,
    .decode_qk_heads = decode_qk_heads_avx512,
    .decode_pv_heads = decode_pv_heads_avx512,
};

/* The matrix unit serves what its pipelines can. */
const struct cpu_kernels cpu_amx_f32 = {
    .name = "cpu_amx_f32",
    .arch = "amx_f32",
    FORWARD,
    .decode_qk = decode_qk_avx512,
    .decode_pv = decode_pv_avx512,
    .decode_qk_heads = decode_qk_heads_avx512,
    .decode_pv_heads = decode_pv_heads_avx512,
    .pipeline_f32 = &pipeline_f32_amx,
    .pipeline_f16 = &pipeline_f16_amx,
    .wake_share = 2 << 20, /* 40 us */
};
