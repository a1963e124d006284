/* values_avx512vnni.c: weighted sums of i8 V with AVX-512 VNNI, as decode_avx512vnni.c: the weights of
 * a row over the keys of a call, times the scales of the keys, become 16-bit fixed-point numbers
 * relative to their largest. */
#include "cpu/x86/vnni_avx512.h"

#include <math.h>
#include <string.h>

/* One group of rows over at most KEYS_MAX keys and LINE channels. */
enum { LINE = 64, HALVES = 2 };
struct pv_call {
    float *o;
    int64_t o_stride;
    const void *const *row;
    int64_t keys;
    struct prefetch fetch;
    /* Of the channels in the first and the second half of a line, which may have scales of their
     * own. */
    float step[HALVES][ROWS];
    int32_t excess[HALVES][ROWS]; /* what bytes without sign add, negated */
    _Alignas(64) int16_t p[HALVES][ROWS][KEYS_MAX];
};

/* Element r: what op makes of the lanes of a[r]. */
#define OF_ROWS(name, op)                                                                          \
    VEC __m128i name(const __m512i a[ROWS])                                                        \
    {                                                                                              \
        __m512i t = _mm512_##op(_mm512_unpacklo_epi32(a[0], a[1]),                                 \
                                _mm512_unpackhi_epi32(a[0], a[1])),                                \
                u = _mm512_##op(_mm512_unpacklo_epi32(a[2], a[3]),                                 \
                                _mm512_unpackhi_epi32(a[2], a[3]));                                \
        t = _mm512_##op(_mm512_unpacklo_epi64(t, u), _mm512_unpackhi_epi64(t, u));                 \
        __m256i v = _mm256_##op(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64(t, 1));       \
        return _mm_##op(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));                \
    }
OF_ROWS(largest_of_rows, max_epi32)
OF_ROWS(sums_of_rows, add_epi32)
#undef OF_ROWS

/* fixed_for of four rows. The bits of a magnitude order as numbers do, with NaN last. A row that is
 * not finite gets a step of NaN, and integers of 0. */
VEC void fix_rows(__m128i most, float *exponent, float *factor, float *step)
{
    __mmask8 bad = _mm_cmpgt_epi32_mask(most, _mm_set1_epi32(0x7f7fffff)),
             used = (__mmask8)(_mm_test_epi32_mask(most, most) & ~bad);
    __m128 x = _mm_castsi128_ps(most), levels = _mm_set1_ps(LEVELS),
           mantissa = _mm_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src),
           power = _mm_maskz_getexp_ps(used, x),
           unit = _mm_maskz_scalef_ps(used, _mm_div_ps(mantissa, levels), power);
    _mm_storeu_ps(exponent, _mm_sub_ps(_mm_setzero_ps(), power));
    _mm_storeu_ps(factor, _mm_maskz_div_ps(used, levels, mantissa));
    _mm_storeu_ps(step, _mm_mask_mov_ps(unit, bad, _mm_set1_ps(NAN)));
}

/* p times the scales of the keys, as integers; 0 where a row is NULL, whatever p is there. */
static void set_weights(struct pv_call *t, int half, const float *p, int64_t p_stride, int64_t rows,
                        const float *scale, uint64_t there)
{
    enum { VECTORS = KEYS_MAX / LANES };
    const __m512i even =
        _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                         24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    vec x[ROWS][VECTORS];
    __m512i most[ROWS], sum[ROWS];
    float exponent[ROWS], factor[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        const float *from = p + (r < rows ? r : 0) * p_stride;
        most[r] = sum[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            __mmask16 lanes = (__mmask16)(there >> i * LANES);
            x[r][i] = v_mul(_mm512_maskz_loadu_ps(lanes, from + i * LANES),
                            _mm512_maskz_loadu_ps(lanes, scale + i * LANES));
            most[r] = _mm512_max_epi32(most[r], _mm512_castps_si512(v_abs(x[r][i])));
        }
    }
    fix_rows(largest_of_rows(most), exponent, factor, t->step[half]);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < VECTORS; i += 2) {
            __m512i a = _mm512_cvtps_epi32(
                        v_mul(v_scale2(x[r][i], v_set(exponent[r])), v_set(factor[r]))),
                    b = _mm512_cvtps_epi32(
                        v_mul(v_scale2(x[r][i + 1], v_set(exponent[r])), v_set(factor[r])));
            a = _mm512_permutex2var_epi16(a, even, b);
            sum[r] = dot_pairs(sum[r], a, _mm512_set1_epi16(-128));
            _mm512_store_si512(&t->p[half][r][i * LANES], a);
        }
    _mm_storeu_si128((__m128i *)(void *)t->excess[half], sums_of_rows(sum));
}

VEC __m512i load_line(const void *row, int64_t c, int64_t part)
{
    const char *at = (const char *)(row ? row : decode_zeros) + c;
    __m512i x = part ? _mm512_maskz_loadu_epi8((1ull << part) - 1, at) : _mm512_loadu_si512(at);
    return _mm512_xor_si512(x, _mm512_set1_epi8(-128));
}

/* The weights of two keys in a row of weights, in every pair of 16-bit integers. */
VEC __m512i two_weights(const struct pv_call *t, int r, int64_t j, int halves)
{
    int32_t pair[HALVES];
    memcpy(&pair[0], &t->p[0][r][j], sizeof *pair);
    if (halves < 2) return _mm512_set1_epi32(pair[0]);
    memcpy(&pair[1], &t->p[1][r][j], sizeof *pair);
    return _mm512_mask_blend_epi32(0xff00, _mm512_set1_epi32(pair[0]), _mm512_set1_epi32(pair[1]));
}

/* A sum of row r at its beginning. */
VEC __m512i less_excess(const struct pv_call *t, int r, int halves)
{
    __m512i excess = _mm512_set1_epi32(t->excess[0][r]);
    return halves < 2 ? excess : _mm512_mask_set1_epi32(excess, 0xff00, t->excess[1][r]);
}

/* o += the integers of one row, of which each vector of a sum has every second of 8 neighbours of 16
 * channels. */
VEC void add_line(const struct pv_call *t, const __m512i *sum, int r, int halves, int64_t c,
                  int64_t part)
{
    vec step = v_set(t->step[0][r]), x[4], y[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) x[i] = _mm512_cvtepi32_ps(sum[i]);
    if (halves == 2) {
        step = _mm512_mask_blend_ps(0xff00, step, v_set(t->step[1][r]));
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) x[i] = v_mul(x[i], step);
        step = v_set(1);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    /* y[i]: channels 4 i ... 4 i + 3 of each 16. */
    vec a = _mm512_shuffle_f32x4(y[0], y[1], 0x44), b = _mm512_shuffle_f32x4(y[2], y[3], 0x44),
        d = _mm512_shuffle_f32x4(y[0], y[1], 0xee), e = _mm512_shuffle_f32x4(y[2], y[3], 0xee);
    x[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    x[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
    x[2] = _mm512_shuffle_f32x4(d, e, 0x88);
    x[3] = _mm512_shuffle_f32x4(d, e, 0xdd);
    uint64_t wanted = part ? (1ull << part) - 1 : ~(uint64_t)0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __mmask16 m = (__mmask16)(wanted >> i * LANES);
        float *o = t->o + r * t->o_stride + c + i * LANES;
        _mm512_mask_storeu_ps(o, m, v_fma(x[i], step, _mm512_maskz_loadu_ps(m, o)));
    }
}

/* Columns c ... c + LINE - 1; part: how many of them, 0 for all. Rows are interleaved by 16 bits, so
 * that each byte of such a pair has its partner of the same channel 16 bits further. */
VEC void pv_line(struct pv_call *t, int row_count, int halves, int64_t c, int64_t part)
{
    const __m512i low = _mm512_set1_epi16(255);
    __m512i sum[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[r][i] = less_excess(t, r, halves);
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j += 2) {
        __m512i x = load_line(t->row[j], c, part),
                y = load_line(j + 1 < t->keys ? t->row[j + 1] : NULL, c, part);
        __m512i first = _mm512_unpacklo_epi16(x, y), second = _mm512_unpackhi_epi16(x, y);
        __m512i value[4] = {_mm512_and_si512(first, low), _mm512_srli_epi16(first, 8),
                            _mm512_and_si512(second, low), _mm512_srli_epi16(second, 8)};
        prefetch_lines(&fetch, 2);
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            __m512i p = two_weights(t, r, j, halves);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[r][i] = dot_pairs(sum[r][i], value[i], p);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) add_line(t, sum[r], r, halves, c, part);
}

VEC void pv_lines(struct pv_call *t, int row_count, int halves, int64_t c, int64_t end)
{
    for (; c + LINE <= end; c += LINE) pv_line(t, row_count, halves, c, 0);
    if (c < end) pv_line(t, row_count, halves, c, end - c);
}

#define PV_CASE(count)                                                                             \
    case count:                                                                                    \
        if (halves < 2) pv_lines(t, count, 1, c, end);                                             \
        else pv_lines(t, count, 2, c, end);                                                        \
        break;

static void pv_group(struct pv_call *t, int64_t rows, int halves, int64_t c, int64_t end)
{
    switch (rows) {
        PV_CASE(1)
        PV_CASE(2)
        PV_CASE(3)
        PV_CASE(4)
    default:
        break;
    }
}

/* Rows with several scales: a line at a time, which has channels of two blocks, or of one twice. */
DECODE_PV(avx512_vnni)
{
    float scale[HALVES][KEYS_MAX];
    struct pv_call t;
    int halves = has_blocks(v, channels) ? 2 : 1;
    int64_t width = halves < 2 ? channels : LINE;
    t.fetch = prefetch_of(ahead);
    t.o_stride = o_stride;
    for (int64_t j = first, next; j < last; j = next) {
        next = j - j % KEYS_MAX + KEYS_MAX;
        if (next > last) next = last;
        t.keys = next - j;
        t.row = v->row + j;
        uint64_t there = rows_there(v, j, t.keys);
        for (int64_t c = 0; c < channels; c += width) {
            int64_t end = c + width < channels ? c + width : channels;
            int both = halves == 2 && c + STEP < channels;
            gather_scales(scale[0], v, j, t.keys, c, there);
            if (both) gather_scales(scale[1], v, j, t.keys, c + STEP, there);
            for (int64_t r = 0; r < rows; r += ROWS) {
                int64_t group = rows - r < ROWS ? rows - r : ROWS;
                const float *weights = p + r * p_stride + j;
                set_weights(&t, 0, weights, p_stride, group, scale[0], there);
                if (both) set_weights(&t, 1, weights, p_stride, group, scale[1], there);
                t.o = o + r * o_stride;
                pv_group(&t, group, both ? 2 : 1, c, end);
            }
        }
    }
    prefetch_rest(&t.fetch);
}
