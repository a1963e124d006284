/* few_avx512.c: few queries against few keys in f32 (few_loops.h). */
#include "cpu/kernels.h"
#include "cpu/x86/vec_avx512.h"

#define FEW_PAIR         1
#define FEW_HALF         0
#define FEW_MULTIPLY_ADD v_fma
VEC void values_as(const struct cpu_few *x, int64_t s, int dtype);
#include "cpu/x86/few_loops.h"

/* Where key j's weights of a strip begin; row i's is 4 i further. */
VEC const float *weights_of(const float *p, int64_t j)
{
    return p + j / LINES * LANES + j % LINES;
}

/* Keys [first, last), of which each row adds those it sees: 0 * NaN would be NaN. */
VEC void add_some(vec sum[LINES][4], const struct cpu_few *x, int64_t s, int64_t c, int width,
                  int64_t first, int64_t last)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    for (int64_t j = first; j < last; j++) {
        const float *p = weights_of(scores_of(x, s), j), *v = (const void *)(x->v[j] + x->v_at);
        vec y[4];
        for (int w = 0; w < width; w++) y[w] = _mm512_loadu_ps(v + c + w * LANES);
        for (int i = 0; i < LINES; i++) {
            if (j < strip->first[i] || j >= strip->last[i]) continue;
            for (int w = 0; w < width; w++) sum[i][w] = v_fma(v_set(p[i * LINES]), y[w], sum[i][w]);
        }
    }
}

VEC void add_all(vec sum[LINES][4], const struct cpu_few *x, int64_t s, int64_t c, int width,
                 int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j++) {
        const float *p = weights_of(scores_of(x, s), j), *v = (const void *)(x->v[j] + x->v_at);
        vec y[4];
        for (int w = 0; w < width; w++) y[w] = _mm512_loadu_ps(v + c + w * LANES);
        for (int i = 0; i < LINES; i++)
            for (int w = 0; w < width; w++) sum[i][w] = v_fma(v_set(p[i * LINES]), y[w], sum[i][w]);
    }
}

/* Channels c ... c + width * LANES - 1 of a strip. */
VEC void value_tile(const struct cpu_few *x, int64_t s, int64_t c, int width, int dtype)
{
    const struct cpu_few_strip *strip = &x->strip[s];
    vec sum[LINES][4];
    for (int i = 0; i < LINES; i++)
        for (int w = 0; w < width; w++) sum[i][w] = v_zero();
    add_some(sum, x, s, c, width, strip->low, strip->all_low);
    add_all(sum, x, s, c, width, strip->all_low, strip->all_high);
    add_some(sum, x, s, c, width, strip->all_high, strip->high);
    for (int i = 0; i < LINES; i++) {
        float factor = x->factor[s * LANES + i * LINES];
        char *out = x->out[s * LINES + i] + x->out_at + c * (dtype == RAPT_F32 ? 4 : 2);
        for (int w = 0; w < width; w++)
            v_store(out + w * LANES * (dtype == RAPT_F32 ? 4 : 2), dtype,
                    _mm512_maskz_mul_ps(row_lanes(factor), sum[i][w], v_set(factor)));
    }
}

VEC void values_as(const struct cpu_few *x, int64_t s, int dtype)
{
    int64_t c = 0;
    for (; c + 4 * LANES <= x->v_channels; c += 4 * LANES) value_tile(x, s, c, 4, dtype);
    for (; c < x->v_channels; c += LANES) value_tile(x, s, c, 1, dtype);
}

void attend_few_avx512(const struct cpu_few *x)
{
    attend_strips(x, 0, x->strips);
}
