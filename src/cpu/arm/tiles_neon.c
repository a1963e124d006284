/* tiles_neon.c: the NEON level: 12 x 8 register tiles of f32 (24 of 32 registers are sums), K
 * transposed 4 x 4 in registers. */
#include "base/dtype.h"
#include "cpu/arm/vec_neon.h"
#include "cpu/decode_kernels.h"

enum { ROW_TILE = 12, COLUMN_TILE = 8 };

VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    vst1q_f32(s + j, p0);
    vst1q_f32(s + j + LANES, p1);
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += LANES) vst1q_f32(s + j, v_zero());
}

VEC vec widen_i8(const void *p, int64_t n)
{
    return n == LANES ? v_load(p, RAPT_I8) : v_load_part(p, RAPT_I8, n);
}

#define transpose             v_transpose
#define TILE_HIDE(s, mask, n) v_hide(s, mask, n)
#define TILE_I8(p, n)         widen_i8(p, n)
#define TILE_STORE            store_p
#define TILE_CLEAR            clear_p
#define TILE_EXP2             v_exp2
#define TILE_PAIR             1
#define TILE_MULTIPLY_ADD     v_fma
#define TILE_ROWS(X)          X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#include "cpu/tile_loops.h"

const struct cpu_kernels cpu_neon = {
    .name = "cpu_neon",
    .arch = "neon",
    .row_tile = ROW_TILE,
    .column_tile = COLUMN_TILE,
    .pair = 1,
    .load_row = load_row,
    .store_row = store_row,
    .pack_q = pack_q,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .qk = qk,
    .score = score,
    .softmax = softmax,
    .pv = pv,
    .weights = weights,
    .decode_qk = decode_qk_neon,
    .decode_pv = decode_pv_neon,
};
