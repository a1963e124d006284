/* pack_parts_amx.c: q, K and V of f16 or f32 as sums of two or three parts in bf16 (struct
 * cpu_pipeline_kernels): the first eight bits of a number, the next eight, the rest. f16 has eleven, f32
 * twenty-four: nothing is lost but what is below 2^-126. */
#include "base/integer.h"
#include "cpu/scalar/scalar.h"
#include "cpu/x86/pack_parts_amx.h"
#include "cpu/x86/transpose_avx512.h"

enum { PANEL = 32, PARTS_MAX = 3, ROWS_AHEAD = 16, CACHE_LINE = 64 };

/* 32 neighbours of a row, in two vectors. */
struct strip {
    vec low, high;
};

VEC struct strip load_strip(const struct cpu_rows *rows, int64_t j, int64_t last, int64_t c)
{
    struct strip x = {v_zero(), v_zero()};
    if (j >= last || !rows->row[j]) return x;
    if (rows->channel_stride != 1 || rows->span) {
        float value[PANEL];
        for (int64_t i = 0; i < PANEL; i++) value[i] = scalar_row_value(rows, j, c + i);
        x.low = v_load(value, RAPT_F32), x.high = v_load(value + LANES, RAPT_F32);
    } else if (rows->dtype == RAPT_F32) {
        const float *p = (const float *)rows->row[j] + c;
        x.low = v_load(p, RAPT_F32), x.high = v_load(p + LANES, RAPT_F32);
    } else {
        const uint16_t *p = (const uint16_t *)rows->row[j] + c;
        x.low = v_load(p, RAPT_F16), x.high = v_load(p + LANES, RAPT_F16);
    }
    return x;
}

VEC __mmask16 unusual_lanes(vec x)
{
    enum { QUIET_NAN = 0x01, INFINITE = 0x08 | 0x10, SIGNALLING_NAN = 0x80 };
    return _mm512_fpclass_ps_mask(x, QUIET_NAN | INFINITE | SIGNALLING_NAN);
}

/* Takes the first eight bits from x and returns them; NaN and infinity leave 0. */
VEC vec take_part(vec *x)
{
    vec part = _mm512_and_ps(*x, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000)));
    __mmask16 unusual = unusual_lanes(*x), nan = _mm512_cmp_ps_mask(*x, *x, _CMP_UNORD_Q);
    part = _mm512_mask_or_ps(part, nan, part, _mm512_castsi512_ps(_mm512_set1_epi32(0x400000)));
    *x = _mm512_maskz_sub_ps((__mmask16)~unusual, *x, part);
    return part;
}

VEC __mmask16 unusual_in(struct strip x)
{
    return unusual_lanes(x.low) | unusual_lanes(x.high);
}

/* Each part of 32 neighbours in bf16. */
VEC void split(struct strip x, int parts, __m512i part[PARTS_MAX])
{
    for (int i = 0; i < parts; i++) {
        vec low = take_part(&x.low), high = take_part(&x.high);
        part[i] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    }
}

VEC void ask_for(const struct cpu_rows *rows, int64_t j, int64_t last, int64_t channels)
{
    if (j >= last || !rows->row[j] || rows->channel_stride != 1 || rows->span) return;
    int64_t bytes = channels * (rows->dtype == RAPT_F32 ? 4 : 2);
    for (int64_t at = 0; at < bytes; at += CACHE_LINE)
        __builtin_prefetch((const char *)rows->row[j] + at);
}

VEC int pack_q(int parts, void *q, const void *row, int64_t dtype, int64_t channel_stride,
               int64_t channels, float sign)
{
    const struct cpu_rows one = {.row = &row, .dtype = dtype, .channel_stride = channel_stride};
    __mmask16 unusual = 0;
    for (int64_t c = 0; c < channels; c += PANEL) {
        struct strip x = load_strip(&one, 0, 1, c);
        __m512i part[PARTS_MAX];
        x.low = v_mul(x.low, v_set(sign)), x.high = v_mul(x.high, v_set(sign));
        unusual |= unusual_in(x);
        split(x, parts, part);
        for (int i = 0; i < parts; i++)
            _mm512_storeu_si512((uint16_t *)q + i * channels + c, part[i]);
    }
    return unusual != 0;
}

/* A pair of channels is one lane of 32 bits. */
VEC int pack_k(int parts, void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
               int64_t channels)
{
    int64_t pairs = channels / 2;
    __mmask16 unusual = 0;
    for (int64_t j = first; j < last; j += LANES) {
        float *to = (float *)panels + j / PANEL * PANEL * pairs * parts + j % PANEL;
        for (int64_t i = j + LANES; i < j + 2 * LANES; i++) ask_for(k, i, last, channels);
        for (int64_t c = 0; c < channels; c += PANEL) {
            vec x[PARTS_MAX][LANES];
            for (int i = 0; i < LANES; i++) {
                __m512i part[PARTS_MAX];
                struct strip keys = load_strip(k, j + i, last, c);
                unusual |= unusual_in(keys);
                split(keys, parts, part);
                for (int n = 0; n < parts; n++) x[n][i] = _mm512_castsi512_ps(part[n]);
            }
            for (int n = 0; n < parts; n++) {
                transpose(x[n]);
                for (int i = 0; i < LANES; i++)
                    _mm512_store_ps(to + (n * pairs + c / 2 + i) * PANEL, x[n][i]);
            }
        }
    }
    return unusual != 0;
}

/* Whether the largest of the lanes is neither 0 nor as large as least. */
VEC __mmask16 is_tiny(vec most, float least)
{
    __mmask16 large = _mm512_cmp_ps_mask(most, v_set(least), _CMP_GE_OQ);
    return large ? 0 : _mm512_cmp_ps_mask(most, v_zero(), _CMP_NEQ_OQ);
}

/* Two keys are interleaved. */
VEC int pack_v(int parts, float least, void *panels, const struct cpu_rows *v, int64_t first,
               int64_t last, int64_t channels, int64_t panel_keys)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __mmask16 unusual = 0;
    for (int64_t j = first; j < last; j += 2) {
        ask_for(v, j + ROWS_AHEAD, last, channels);
        ask_for(v, j + ROWS_AHEAD + 1, last, channels);
        vec most_x = v_zero(), most_y = v_zero();
        for (int64_t c = 0; c < channels; c += PANEL) {
            struct strip x = load_strip(v, j, last, c), y = load_strip(v, j + 1, last, c);
            __m512i a[PARTS_MAX], b[PARTS_MAX];
            unusual |= unusual_in(x) | unusual_in(y);
            most_x = v_max(most_x, v_max(v_abs(x.low), v_abs(x.high)));
            most_y = v_max(most_y, v_max(v_abs(y.low), v_abs(y.high)));
            split(x, parts, a);
            split(y, parts, b);
            for (int i = 0; i < parts; i++) {
                float *to =
                    (float *)panels + (c * parts + i * PANEL) * (panel_keys / 2) + j / 2 * PANEL;
                _mm512_store_si512(to, _mm512_permutex2var_epi16(a[i], low, b[i]));
                _mm512_store_si512(to + LANES, _mm512_permutex2var_epi16(a[i], high, b[i]));
            }
        }
        if (least > 0) unusual |= is_tiny(most_x, least) | is_tiny(most_y, least);
    }
    return unusual != 0;
}

#define DEFINE(type, parts, least)                                                                 \
    int pack_q_##type##_amx(void *q, const void *row, int64_t dtype, int64_t channel_stride,       \
                            int64_t channels, float sign)                                          \
    {                                                                                              \
        return pack_q(parts, q, row, dtype, channel_stride, channels, sign);                       \
    }                                                                                              \
    int pack_k_##type##_amx(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,   \
                            int64_t channels)                                                      \
    {                                                                                              \
        return pack_k(parts, panels, k, first, last, channels);                                    \
    }                                                                                              \
    int pack_v_##type##_amx(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,   \
                            int64_t channels, int64_t panel_keys)                                  \
    {                                                                                              \
        return pack_v(parts, least, panels, v, first, last, channels, panel_keys);                 \
    }
DEFINE(f16, 2, 0)
DEFINE(f32, 3, PACK_LEAST_F32)
