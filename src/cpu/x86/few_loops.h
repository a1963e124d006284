/* few_loops.h: few queries against few keys, all read in place; included once per AVX-512 level. A
 * tile of scores is 4 rows by 4 keys, the lanes of one vector: dot products over the channels,
 * whose 16 sums over lanes one transposition by halves gives. So nothing is packed, softmax serves
 * four rows at once, and tiles that a causal mask hides are left out. The including file defines
 * FEW_PAIR (1: f32; 2: bf16 pairs), FEW_MULTIPLY_ADD, FEW_HALF (as v_exp2_several) and
 * values_as(x, s, dtype): out of strip s in that dtype, from its weights. */
#include "cpu/vec_math.h"

#include <math.h>

enum { LINES = FEW_STRIP };

/* Scores of a strip: its tiles one after the other. */
VEC float *scores_of(const struct cpu_few *x, int64_t s)
{
    return x->p + s * x->key_tiles * LANES;
}

/* A lane for row i and key j of a tile is i * 4 + j. */
VEC vec dots(const struct cpu_few *x, int64_t row, int64_t key)
{
    vec sum[LANES];
    const float *q[LINES], *k[LINES];
    for (int i = 0; i < LINES; i++) q[i] = (const void *)(x->q[row + i] + x->q_at);
    for (int i = 0; i < LINES; i++) k[i] = (const void *)(x->k[key + i] + x->k_at);
    for (int i = 0; i < LANES; i++) sum[i] = v_zero();
    for (int64_t c = 0; c < x->qk_channels / FEW_PAIR; c += LANES) {
        vec a[LINES];
        for (int i = 0; i < LINES; i++) a[i] = _mm512_loadu_ps(q[i] + c);
        for (int j = 0; j < LINES; j++) {
            vec b = _mm512_loadu_ps(k[j] + c);
            for (int i = 0; i < LINES; i++)
                sum[i * LINES + j] = FEW_MULTIPLY_ADD(a[i], b, sum[i * LINES + j]);
        }
    }
    return v_sums(sum);
}

/* The row's value in each of its four lanes. */
VEC __m512i by_row(const int32_t *of)
{
    const __m512i at = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_epi32(at, _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)of)));
}

VEC void score_strip(const struct cpu_few *x, int64_t s)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    const __m512i column = _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    __m512i first = by_row(strip->first), last = by_row(strip->last);
    float *to = scores_of(x, s);
    for (int64_t j = strip->low / LINES * LINES; j < strip->high; j += LINES) {
        vec tile = dots(x, s * LINES, j);
        __m512i key = _mm512_add_epi32(column, _mm512_set1_epi32((int)j));
        __mmask16 seen = _mm512_cmple_epi32_mask(first, key) & _mm512_cmplt_epi32_mask(key, last);
        _mm512_store_ps(to + j * LINES, _mm512_mask_blend_ps(seen, v_set(-INFINITY), tile));
    }
}

/* The largest and the sum of a row's four lanes, in each of them. */
VEC vec row_largest(vec a)
{
    a = v_max(a, _mm512_permute_ps(a, 0xb1));
    return v_max(a, _mm512_permute_ps(a, 0x4e));
}

VEC vec row_sum(vec a)
{
    a = v_add(a, _mm512_permute_ps(a, 0xb1));
    return v_add(a, _mm512_permute_ps(a, 0x4e));
}

/* Weights of count neighbouring tiles; returns sum plus their lanes. */
VEC vec weigh(float *s, int count, vec top, vec scale, vec sum)
{
    vec p[4];
    for (int i = 0; i < count; i++) p[i] = v_mul(v_sub(_mm512_load_ps(s + i * LANES), top), scale);
    v_exp2_several(p, count, FEW_HALF);
    for (int i = 0; i < count; i++) {
        sum = v_add(sum, p[i]);
        _mm512_store_ps(s + i * LANES, p[i]);
    }
    return sum;
}

/* Scores of a strip into weights, and what each row's sum of values is to be multiplied with. While
 * the largest score is -inf, 0 stands in for it: -inf - m must stay -inf. */
VEC void weigh_strip(const struct cpu_few *x, int64_t s)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    float *at = scores_of(x, s) + strip->low / LINES * LANES;
    int64_t tiles = (strip->high + LINES - 1) / LINES - strip->low / LINES;
    vec m = v_set(-INFINITY), sum = v_zero(), scale = v_set(x->scale);
    for (int64_t t = 0; t < tiles; t++) m = v_max(m, _mm512_load_ps(at + t * LANES));
    m = row_largest(m);
    vec top = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, v_set(-INFINITY), _CMP_NEQ_UQ), m);
    int64_t t = 0;
    for (; t + 4 <= tiles; t += 4) sum = weigh(at + t * LANES, 4, top, scale, sum);
    if (tiles & 2) sum = weigh(at + t * LANES, 2, top, scale, sum);
    if (tiles & 1) sum = weigh(at + (tiles - 1) * LANES, 1, top, scale, sum);
    sum = row_sum(sum);
    __mmask16 some = _mm512_cmp_ps_mask(sum, v_zero(), _CMP_NEQ_UQ);
    _mm512_store_ps(x->factor + s * LANES, _mm512_maskz_div_ps(some, v_set(1), sum));
    if (!x->m) return;
    const __m512i rows = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(x->m + s * LINES, _mm512_castps512_ps128(_mm512_permutexvar_ps(rows, m)));
    _mm_storeu_ps(x->l + s * LINES, _mm512_castps512_ps128(_mm512_permutexvar_ps(rows, sum)));
}

/* All lanes, where a row has a sum; a row without one is 0 whatever its values are. */
VEC __mmask16 row_lanes(float factor)
{
    return factor != 0 ? 0xffff : 0;
}

/* The dtype is a constant in each of the three. */
VEC void values(const struct cpu_few *x, int64_t s)
{
    if (x->out_dtype == RAPT_F32) values_as(x, s, RAPT_F32);
    else if (x->out_dtype == RAPT_F16) values_as(x, s, RAPT_F16);
    else values_as(x, s, RAPT_BF16);
}

/* Strips [first, last), a step at a time for all: their long chains fill each other's waits. */
static void attend_strips(const struct cpu_few *x, int64_t first, int64_t last)
{
    for (int64_t s = first; s < last; s++) score_strip(x, s);
    for (int64_t s = first; s < last; s++) weigh_strip(x, s);
    for (int64_t s = first; s < last; s++) values(x, s);
}
