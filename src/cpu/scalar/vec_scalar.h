/* vec_scalar.h: the vector vocabulary with one lane, in plain C: the reference of the other vocabularies.
 *
 * A vocabulary has vec, LANES, ACCUMULATORS (sums of a tile that fit in registers beside its operands) and those verbs
 * that the *_loops.h use which are compiled for it: more than the ones below, as these do for one lane. What only some
 * have, they announce: V_HAS_PAIRS (v_load_two, v_load_pairs, v_store_pairs), V_HAS_EXACT (v_store_two_exact),
 * V_HAS_INTEGERS (v_larger_bits, v_largest_bits, v_store_integers). Files for CPUs that can more define
 * V_BF16_CONVERSION (f32 to bf16) and V_REDUCES (v_rest) before they include theirs. */
#ifndef RAPT_CPU_SCALAR_VEC_SCALAR_H
#define RAPT_CPU_SCALAR_VEC_SCALAR_H

#include "base/dtype.h"

#include <math.h>

#define VEC static inline __attribute__((always_inline))

typedef float vec;
enum { LANES = 1, ACCUMULATORS = 8 };

/* One verb, one line. */
/* clang-format off */
VEC vec v_zero(void) { return 0; }
VEC vec v_set(float x) { return x; }
VEC vec v_add(vec a, vec b) { return a + b; }
VEC vec v_sub(vec a, vec b) { return a - b; }
VEC vec v_mul(vec a, vec b) { return a * b; }
VEC vec v_div(vec a, vec b) { return a / b; }
VEC vec v_fma(vec a, vec b, vec c) { return a * b + c; }
VEC vec v_fnma(vec a, vec b, vec c) { return c - a * b; }
VEC vec v_max(vec a, vec b) { return a > b ? a : b; } /* b when one is NaN */
VEC vec v_min(vec a, vec b) { return a < b ? a : b; } /* b when one is NaN */
VEC vec v_abs(vec a) { return fabsf(a); }
VEC vec v_round(vec a) { return nearbyintf(a); }
/* a 2^n for integral n; 0 for n = -inf whatever a is. */
VEC vec v_scale2(vec a, vec n)
{
    if (n < -250) return 0;
    if (!(n >= -250)) return n;
    int whole = n > 250 ? 250 : (int)n, half = whole / 2;
    return a * float_from_bits((uint32_t)(half + 127) << 23) *
           float_from_bits((uint32_t)(whole - half + 127) << 23);
}
/* The same; 0 where x is below -126. */
VEC vec v_scale2_normal(vec a, vec n, vec x) { return x < -126 ? 0 : v_scale2(a, n); }
VEC vec v_copysign(vec magnitude, vec sign) { return copysignf(magnitude, sign); }
VEC vec v_iota(void) { return 0; }
VEC vec v_keep(vec a, int first, int last, vec b) { return first <= 0 && last > 0 ? a : b; }
VEC float v_sum(vec a) { return a; }
VEC float v_largest(vec a) { return a; }
VEC int v_any_nan(vec a) { return a != a; }
VEC vec v_load(const void *p, int dtype) { return dtype == RAPT_I8 ? *(const int8_t *)p : load_float(p, dtype, 0); }
VEC vec v_load_part(const void *p, int dtype, int64_t n) { return n ? v_load(p, dtype) : 0; }
VEC void v_store(void *p, int dtype, vec a) { store_float(p, dtype, 0, a); }
VEC void v_store_part(void *p, int dtype, vec a, int64_t n) { if (n) store_float(p, dtype, 0, a); }
VEC vec v_sums(const vec a[LANES]) { return a[0]; }
/* clang-format on */

#endif
