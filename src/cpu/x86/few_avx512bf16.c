/* few_avx512bf16.c: few queries against few keys in bf16 (few_loops.h): the products of q and k sum
 * pairs of channels as they lie, those of weights and values pairs of keys, interleaved on the
 * way. */
#define V_BF16_CONVERSION
#include "cpu/kernels.h"
#include "cpu/x86/vec_avx512.h"

VEC vec add_products(vec a, vec b, vec c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

#define FEW_PAIR         2
#define FEW_HALF         1
#define FEW_MULTIPLY_ADD add_products
VEC void values_as(const struct cpu_few *x, int64_t s, int dtype);
#include "cpu/x86/few_loops.h"

enum { PART = 2 * LANES }; /* channels of a vector of bf16 */

/* Weights as pairs of keys, in place: two tiles to a vector, from an even one on. */
VEC void pair_weights(const struct cpu_few *x, int64_t s)
{
    float *p = scores_of(x, s);
    int64_t first = x->strip[s].low / (2 * LINES) * 2,
            last = (x->strip[s].high + LINES - 1) / LINES;
    for (int64_t t = first; t < last; t += 2) {
        vec low = _mm512_load_ps(p + t * LANES), high = _mm512_load_ps(p + (t + 1) * LANES);
        _mm512_store_si512((uint32_t *)p + t * LANES / 2, v_narrow_two(low, high));
    }
}

/* The pair's weights of row i. */
VEC vec weight_pair(const float *p, int64_t j, int i)
{
    return v_set(p[j / LINES * (LANES / 2) + i * 2 + j % LINES / 2]);
}

/* Keys j and j + 1, channels c ... c + 31: channels 8 n ... 8 n + 3 in the first vector, the other
 * four of each eight in the second. */
VEC void load_pairs(vec y[2], const struct cpu_few *x, int64_t j, int64_t c)
{
    int64_t at = x->v_at + c * (int64_t)sizeof(uint16_t);
    __m512i a = _mm512_loadu_si512(x->v[j] + at), b = _mm512_loadu_si512(x->v[j + 1] + at);
    y[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(a, b));
    y[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(a, b));
}

/* Pairs from j = first on, of which each row adds the keys that it sees: 0 * NaN would be NaN. */
VEC void add_some(vec sum[LINES][4], const struct cpu_few *x, int64_t s, int64_t c, int width,
                  int64_t first, int64_t last)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    const float *p = scores_of(x, s);
    for (int64_t j = first; j < last; j += 2) {
        vec y[4];
        for (int w = 0; w < width; w += 2) load_pairs(y + w, x, j, c + w * LANES);
        for (int i = 0; i < LINES; i++) {
            int one = strip->first[i] <= j && j < strip->last[i],
                two = strip->first[i] <= j + 1 && j + 1 < strip->last[i];
            if (!one && !two) continue;
            vec weight = weight_pair(p, j, i);
            if (one && two)
                for (int w = 0; w < width; w++) sum[i][w] = add_products(weight, y[w], sum[i][w]);
            else {
                __mmask32 seen = one ? 0x55555555u : 0xaaaaaaaau;
                for (int w = 0; w < width; w++) {
                    __m512i pairs = _mm512_maskz_mov_epi16(seen, _mm512_castps_si512(y[w]));
                    sum[i][w] = add_products(weight, _mm512_castsi512_ps(pairs), sum[i][w]);
                }
            }
        }
    }
}

VEC void add_all(vec sum[LINES][4], const struct cpu_few *x, int64_t s, int64_t c, int width,
                 int64_t first, int64_t last)
{
    const float *p = scores_of(x, s);
    for (int64_t j = first; j < last; j += 2) {
        vec y[4];
        for (int w = 0; w < width; w += 2) load_pairs(y + w, x, j, c + w * LANES);
        for (int i = 0; i < LINES; i++)
            for (int w = 0; w < width; w++)
                sum[i][w] = add_products(weight_pair(p, j, i), y[w], sum[i][w]);
    }
}

/* Two vectors as load_pairs leaves them. */
VEC void store_part(char *out, int dtype, vec a, vec b)
{
    if (dtype == RAPT_BF16) {
        const __m512i in_turn = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
        _mm512_storeu_si512(out, _mm512_permutexvar_epi64(in_turn, v_narrow_two(a, b)));
        return;
    }
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                  high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    v_store_two(out, dtype, _mm512_castpd_ps(_mm512_permutex2var_pd(x, low, y)),
                _mm512_castpd_ps(_mm512_permutex2var_pd(x, high, y)), 0);
}

VEC void value_tile(const struct cpu_few *x, int64_t s, int64_t c, int width, int dtype)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    int64_t low = strip->low / 2 * 2, all_low = (strip->all_low + 1) / 2 * 2,
            all_high = strip->all_high / 2 * 2;
    if (all_high < all_low) all_low = all_high = low;
    vec sum[LINES][4];
    for (int i = 0; i < LINES; i++)
        for (int w = 0; w < width; w++) sum[i][w] = v_zero();
    add_some(sum, x, s, c, width, low, all_low);
    add_all(sum, x, s, c, width, all_low, all_high);
    add_some(sum, x, s, c, width, all_high, strip->high);
    for (int i = 0; i < LINES; i++) {
        float factor = x->factor[s * LANES + i * LINES];
        __mmask16 lanes = row_lanes(factor);
        char *out = x->out[s * LINES + i] + x->out_at + c * (dtype == RAPT_F32 ? 4 : 2);
        for (int w = 0; w < width; w += 2)
            store_part(out + w * LANES * (dtype == RAPT_F32 ? 4 : 2), dtype,
                       _mm512_maskz_mul_ps(lanes, sum[i][w], v_set(factor)),
                       _mm512_maskz_mul_ps(lanes, sum[i][w + 1], v_set(factor)));
    }
}

VEC void values_as(const struct cpu_few *x, int64_t s, int dtype)
{
    int64_t c = 0;
    pair_weights(x, s);
    for (; c + 2 * PART <= x->v_channels; c += 2 * PART) value_tile(x, s, c, 4, dtype);
    if (c < x->v_channels) value_tile(x, s, c, 2, dtype);
}

#include "cpu/x86/few_alike.h"

void attend_few_avx512_bf16(const struct cpu_few *x)
{
    for (int64_t s = 0; s < x->strips;) {
        int64_t first = s;
        while (s < x->strips && !are_alike(x, s)) s++;
        attend_strips(x, first, s);
        for (; are_alike(x, s); s += ALIKE) attend_alike(x, s);
    }
}
