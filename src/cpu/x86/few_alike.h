/* few_alike.h: 16 rows that see the same keys, in bf16 (part of few_avx512bf16.c). A row is a lane:
 * the queries are turned into [pair of channels][row], and against these the pairs of four keys at
 * a time are broadcast from where they lie, so that sums and softmax take no step across lanes;
 * weights are [pair of keys][row]. In f32 strips are faster. */
#include "cpu/x86/transpose_avx512.h"

#include <string.h>

enum {
    ALIKE = LANES / FEW_STRIP, /* strips */
    KEYS = 4,                  /* at once */
    CHAINS = 2,
    ROWS = LANES / 2, /* of two vectors of sums each */
};

/* Strips s ... s + 3, whose rows all see the same keys: the first ones, in whole pairs. */
VEC int are_alike(const struct cpu_few *x, int64_t s)
{
    const struct cpu_few_strip *strip = x->strip + s;
    if (s + ALIKE > x->strips || !strip->high || strip->high % FEW_PAIR) return 0;
    for (int i = 0; i < ALIKE; i++)
        if (strip[i].low || strip[i].all_low || strip[i].high != strip->high ||
            strip[i].all_high != strip->high)
            return 0;
    return 1;
}

/* The operand in memory is broadcast by the instruction itself, which compilers do not find: a
 * broadcast into a register takes a load of a whole vector, one a cycle. */
VEC vec add_one(vec a, const float *b, vec c)
{
    __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(a), "m"(*b));
    return c;
}

/* Each line of q is read once: rows of a token's heads share few sets of the first cache. */
VEC void turn_queries(const struct cpu_few *x, int64_t row)
{
    for (int64_t c = 0; c < x->qk_channels / FEW_PAIR; c += LANES) {
        vec line[LANES];
        for (int i = 0; i < LANES; i++)
            line[i] = _mm512_loadu_ps((const float *)(x->q[row + i] + x->q_at) + c);
        transpose(line);
        for (int i = 0; i < LANES; i++) _mm512_store_ps(x->turned + (c + i) * LANES, line[i]);
    }
}

/* Scores [key][row] of four keys, -inf from key last on. */
VEC void score_keys(const struct cpu_few *x, float *to, int64_t key, int64_t last)
{
    const float *k[KEYS];
    vec sum[CHAINS][KEYS];
    for (int n = 0; n < KEYS; n++) {
        k[n] = (const void *)(x->k[key + n] + x->k_at);
        for (int h = 0; h < CHAINS; h++) sum[h][n] = v_zero();
    }
    for (int64_t c = 0; c < x->qk_channels / FEW_PAIR; c += CHAINS)
        for (int h = 0; h < CHAINS; h++) {
            vec q = _mm512_load_ps(x->turned + (c + h) * LANES);
            for (int n = 0; n < KEYS; n++) sum[h][n] = add_one(q, k[n] + c + h, sum[h][n]);
        }
    for (int n = 0; n < KEYS; n++)
        _mm512_store_ps(to + (key + n) * LANES,
                        key + n < last ? v_add(sum[0][n], sum[1][n]) : v_set(-INFINITY));
}

VEC void put_weights(float *p, int64_t key, vec factor)
{
    const __m512i in_turn =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t j = key; j < key + KEYS; j += 2) {
        vec a = v_mul(_mm512_load_ps(p + j * LANES), factor),
            b = v_mul(_mm512_load_ps(p + (j + 1) * LANES), factor);
        _mm512_store_si512(p + j / 2 * LANES,
                           _mm512_permutexvar_epi16(in_turn, v_narrow_two(a, b)));
    }
}

/* Scores of keys [0, last) into weights that sum up to 1; returns the rows without any. */
VEC unsigned weigh_alike(const struct cpu_few *x, float *p, int64_t row, int64_t last)
{
    vec m = v_set(-INFINITY), sum = v_zero();
    for (int64_t j = 0; j < last; j += KEYS) {
        const float *s = p + j * LANES;
        vec a = v_max(_mm512_load_ps(s), _mm512_load_ps(s + LANES)),
            b = v_max(_mm512_load_ps(s + 2 * LANES), _mm512_load_ps(s + 3 * LANES));
        m = v_max(m, v_max(a, b));
    }
    vec top = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, v_set(-INFINITY), _CMP_NEQ_UQ), m);
    for (int64_t j = 0; j < last; j += KEYS)
        sum = v_add(sum, weigh(p + j * LANES, KEYS, top, v_set(x->scale), v_zero()));
    __mmask16 some = _mm512_cmp_ps_mask(sum, v_zero(), _CMP_NEQ_UQ);
    vec factor = _mm512_maskz_div_ps(some, v_set(1), sum);
    for (int64_t j = 0; j < last; j += KEYS) put_weights(p, j, factor);
    if (x->m) {
        _mm512_storeu_ps(x->m + row, m);
        _mm512_storeu_ps(x->l + row, sum);
    }
    return 0xffffu & ~(unsigned)some;
}

/* Pairs of keys of channels c ... c + 31. Both halves of the rows take them, and rows of V a power of
 * two apart share one set of the first cache: they would come from the second one again. */
VEC void pair_values(const struct cpu_few *x, int64_t last, int64_t c)
{
    for (int64_t j = 0; j < last; j += 2) {
        vec y[2];
        load_pairs(y, x, j, c);
        _mm512_store_ps(x->paired + j * LANES, y[0]);
        _mm512_store_ps(x->paired + (j + 1) * LANES, y[1]);
    }
}

/* 32 channels, paired, of ROWS rows, whose first weights are at p. */
VEC void value_part(const struct cpu_few *x, const float *p, int64_t row, int64_t last, int64_t c,
                    int dtype)
{
    vec sum[ROWS][2];
    for (int i = 0; i < ROWS; i++) sum[i][0] = sum[i][1] = v_zero();
    for (int64_t j = 0; j < last; j += 2) {
        const float *y = x->paired + j * LANES;
        vec low = _mm512_load_ps(y), high = _mm512_load_ps(y + LANES);
        for (int i = 0; i < ROWS; i++) {
            sum[i][0] = add_one(low, p + i, sum[i][0]);
            sum[i][1] = add_one(high, p + i, sum[i][1]);
        }
        p += LANES;
        __asm__("" : "+r"(p)); /* one address for all rows, not one for each */
    }
    int64_t to = x->out_at + c * (dtype == RAPT_F32 ? 4 : 2);
    for (int i = 0; i < ROWS; i++) store_part(x->out[row + i] + to, dtype, sum[i][0], sum[i][1]);
}

VEC void values_alike_as(const struct cpu_few *x, const float *p, int64_t row, int64_t last,
                         int dtype)
{
    for (int64_t c = 0; c < x->v_channels; c += PART) {
        pair_values(x, last, c);
        for (int half = 0; half < LANES; half += ROWS)
            value_part(x, p + half, row + half, last, c, dtype);
    }
}

/* The dtype is a constant in each of the three. */
VEC void values_alike(const struct cpu_few *x, const float *p, int64_t row, int64_t last)
{
    if (x->out_dtype == RAPT_F32) values_alike_as(x, p, row, last, RAPT_F32);
    else if (x->out_dtype == RAPT_F16) values_alike_as(x, p, row, last, RAPT_F16);
    else values_alike_as(x, p, row, last, RAPT_BF16);
}

/* A row without weights is 0 whatever its values are. */
VEC void clear_rows(const struct cpu_few *x, int64_t row, unsigned which)
{
    size_t bytes = (size_t)x->v_channels * (x->out_dtype == RAPT_F32 ? 4 : 2);
    for (int i = 0; i < LANES; i++)
        if (which >> i & 1) memset(x->out[row + i] + x->out_at, 0, bytes);
}

VEC void attend_alike(const struct cpu_few *x, int64_t s)
{
    int64_t row = s * FEW_STRIP, last = x->strip[s].high;
    float *p = scores_of(x, s);
    turn_queries(x, row);
    for (int64_t j = 0; j < last; j += KEYS) score_keys(x, p, j, last);
    unsigned none = weigh_alike(x, p, row, last);
    values_alike(x, p, row, last);
    if (none) clear_rows(x, row, none);
}
