/* tiles_f32.h: what the f32 levels of arm64 share: tiles of 12 rows, in the vectors of the vec_*.h
 * that was included before. */
VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    v_store(s + j, RAPT_F32, p0);
    v_store(s + j + LANES, RAPT_F32, p1);
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += LANES) v_store(s + j, RAPT_F32, v_zero());
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
