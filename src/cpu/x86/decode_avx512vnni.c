/* decode_avx512vnni.c: scores of i8 K with AVX-512 VNNI: products of 16-bit integers, summed exactly
 * in 32 bits. K is widened; a row of q becomes 16-bit fixed-point numbers relative to its largest
 * magnitude. Decision 0009 has the error. Rows lie in one piece, and a scale belongs to a whole row
 * or to a multiple of STEP channels. */
#include "cpu/x86/vnni_avx512.h"

#include <math.h>
#include <string.h>

enum { TILE = 8, PAIRS = TILE / 2 };

/* ---- Fixed point ---- */

VEC vec load_up_to(const float *p, int64_t n)
{
    return n >= LANES ? v_load(p, RAPT_F32) : v_load_part(p, RAPT_F32, n);
}

/* NaN if there is a NaN. */
static float largest_magnitude(const float *x, int64_t n)
{
    vec most = v_zero();
    int bad = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        vec a = load_up_to(x + i, n - i);
        bad |= v_any_nan(a);
        most = v_max(most, v_abs(a));
    }
    return bad ? NAN : v_largest(most);
}

/* A row that has one infinity and no NaN keeps its sign: its scores are infinite, or NaN where K is
 * 0. */
static float infinite_row(int16_t *to, const float *x, int64_t n, float largest)
{
    int64_t infinities = 0;
    for (int64_t i = 0; i < n; i++) infinities += isinf(x[i]) != 0;
    if (isnan(largest) || infinities > 1) return NAN;
    for (int64_t i = 0; i < n; i++) to[i] = (int16_t)(isinf(x[i]) ? x[i] > 0 ? 1 : -1 : 0);
    return INFINITY;
}

/* The integers of a row, which may lie in its place, and their step. */
static float fix_row(int16_t *to, const float *row, int64_t channels)
{
    float largest = largest_magnitude(row, channels);
    struct fixed f = fixed_for(largest, channels <= LONG_CHANNELS ? LEVELS : LEVELS / 2);
    if (isnan(f.step)) return infinite_row(to, row, channels, largest);
    for (int64_t i = 0; i < channels; i += LANES)
        _mm256_storeu_si256((__m256i *)(void *)(to + i),
                            to_fixed(load_up_to(row + i, channels - i), &f));
    return f.step;
}

void fix_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    for (float *row = q; rows > 0; rows--, row += q_stride)
        row[q_stride / 2] = fix_row((int16_t *)row, row, channels);
}

/* What decode_qk takes of a row of q: for each STEP channels the even ones and the odd ones, each
 * 16-bit integer twice, STEP / 2 further on; 0 past the channels. Behind them the step, and 128 times
 * the sum of the integers, by which bytes without sign exceed those with one. */

static int64_t q_tail(int64_t channels)
{
    return (channels + STEP - 1) / STEP * STEP; /* in floats */
}

/* Returns the sum. */
static int32_t lay_out_q(int16_t *to, const int16_t *x, int64_t channels)
{
    const __m512i even = _mm512_set_epi16(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0,
                                          30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2,
                                          0),
                  odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
    __m512i sum = _mm512_setzero_si512();
    for (int64_t c = 0; c < channels; c += STEP, to += 2 * STEP) {
        int64_t n = channels - c;
        __m512i q = _mm512_maskz_loadu_epi16(
            n < STEP ? (__mmask32)((1ull << n) - 1) : ~(__mmask32)0, x + c);
        sum = dot_pairs(sum, q, _mm512_set1_epi16(1));
        _mm512_storeu_si512(to, _mm512_permutexvar_epi16(even, q));
        _mm512_storeu_si512(to + STEP, _mm512_permutexvar_epi16(odd, q));
    }
    return _mm512_reduce_add_epi32(sum);
}

void decode_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    _Alignas(64) int16_t integers[DECODE_CHANNELS_MAX] = {0};
    for (float *row = q; rows > 0; rows--, row += q_stride) {
        float step = fix_row(integers, row, channels);
        int32_t sum = 128 * lay_out_q((int16_t *)row, integers, channels);
        row[q_tail(channels)] = step;
        memcpy(&row[q_tail(channels) + 1], &sum, sizeof sum);
    }
}

/* ---- Scores ---- */

struct qk_call {
    float *s;
    const int16_t *q;
    int64_t s_stride, q_stride, channels; /* q_stride in elements */
    const void *const *row;
    const float *scale;            /* one of each key: rows with one scale */
    const float *const *of_blocks; /* rows with several */
    int64_t scale_channels, scale_stride;
    vec step[ROWS / 2];       /* of two rows, one in each half */
    __m512i excess[ROWS / 2]; /* alike: what bytes without sign add */
};

/* Two keys side by side: n <= STEP channels of each, 0 past them. */
VEC __m512i two_keys(const int8_t *a, const int8_t *b, int64_t n)
{
    __mmask32 lanes = n >= STEP ? ~(__mmask32)0 : (__mmask32)((1ull << n) - 1);
    __m256i x = n >= STEP ? _mm256_loadu_si256((const __m256i *)(const void *)a)
                          : _mm256_maskz_loadu_epi8(lanes, a),
            y = n >= STEP ? _mm256_loadu_si256((const __m256i *)(const void *)b)
                          : _mm256_maskz_loadu_epi8(lanes, b);
    return _mm512_inserti64x4(_mm512_castsi256_si512(x), y, 1);
}

/* Even and odd channels as 16-bit integers; plus 128 where a subtraction at the end is cheaper than
 * a sign. */
VEC void widen(__m512i x, int with_sign, __m512i *even, __m512i *odd)
{
    if (with_sign) {
        *even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8);
        *odd = _mm512_srai_epi16(x, 8);
        return;
    }
    x = _mm512_xor_si512(x, _mm512_set1_epi8(-128));
    *even = _mm512_and_si512(x, _mm512_set1_epi16(255));
    *odd = _mm512_srli_epi16(x, 8);
}

VEC vec scales_of_two(const struct qk_call *t, const int8_t *const *k, int j, int64_t at)
{
    float a = (const char *)k[j] == decode_zeros ? 0 : t->of_blocks[j][at],
          b = (const char *)k[j + PAIRS] == decode_zeros ? 0 : t->of_blocks[j + PAIRS][at];
    return _mm512_mask_blend_ps(0xff00, v_set(a), v_set(b));
}

/* Adds n <= STEP channels from c on to the sums of a tile: as integers, or as floats with the scale
 * of their block. */
VEC void qk_step(const struct qk_call *t, const int8_t *const *k, __m512i *sum, int row_count,
                 int blocks, int64_t c, int64_t n)
{
    __m512i even[PAIRS], odd[PAIRS];
    vec scale[PAIRS];
#pragma GCC unroll 4
    for (int j = 0; j < PAIRS; j++) {
        widen(two_keys(k[j] + c, k[j + PAIRS] + c, n), blocks, &even[j], &odd[j]);
        if (blocks) scale[j] = scales_of_two(t, k, j, c / t->scale_channels * t->scale_stride);
    }
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        const int16_t *q = t->q + r * t->q_stride + c * 2;
        __m512i x = _mm512_loadu_si512(q), y = _mm512_loadu_si512(q + STEP);
#pragma GCC unroll 4
        for (int j = 0; j < PAIRS; j++) {
            __m512i *to = &sum[r * PAIRS + j], from = blocks ? _mm512_setzero_si512() : *to;
            from = dot_pairs(dot_pairs(from, even[j], x), odd[j], y);
            *to = blocks ? _mm512_castps_si512(v_fma(_mm512_cvtepi32_ps(from), scale[j],
                                                     _mm512_castsi512_ps(*to)))
                         : from;
        }
    }
}

#define SUM_HALVES(type, add, lo32, hi32, lo64, hi64, shuffle)                                     \
    type t[4], u[2];                                                                               \
    for (int i = 0; i < 4; i++)                                                                    \
        t[i] = add(lo32(a[2 * i], a[2 * i + 1]), hi32(a[2 * i], a[2 * i + 1]));                    \
    for (int i = 0; i < 2; i++)                                                                    \
        u[i] = add(lo64(t[2 * i], t[2 * i + 1]), hi64(t[2 * i], t[2 * i + 1]));                    \
    return add(shuffle(u[0], u[1], 0x88), shuffle(u[0], u[1], 0xdd));

/* Two rows, PAIRS vectors each: the sums of their low halves, then of their high halves, first row
 * first. */
VEC __m512i integer_sums(const __m512i a[2 * PAIRS])
{
    SUM_HALVES(__m512i, _mm512_add_epi32, _mm512_unpacklo_epi32, _mm512_unpackhi_epi32,
               _mm512_unpacklo_epi64, _mm512_unpackhi_epi64, _mm512_shuffle_i32x4)
}

VEC vec unpack_low_two(vec a, vec b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

VEC vec unpack_high_two(vec a, vec b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

VEC vec float_sums(const __m512i bits[2 * PAIRS])
{
    vec a[2 * PAIRS];
    for (int i = 0; i < 2 * PAIRS; i++) a[i] = _mm512_castsi512_ps(bits[i]);
    SUM_HALVES(vec, v_add, _mm512_unpacklo_ps, _mm512_unpackhi_ps, unpack_low_two, unpack_high_two,
               _mm512_shuffle_f32x4)
}

VEC void store_keys(float *s, __m256 x, int64_t wanted)
{
    if (wanted >= TILE) _mm256_storeu_ps(s, x);
    else _mm256_mask_storeu_ps(s, (__mmask8)((1u << wanted) - 1), x);
}

/* The scores of rows r and r + 1; wanted: keys of the tile that exist. */
VEC void store_scores(const struct qk_call *t, const __m512i *sum, int r, int row_count, int blocks,
                      int64_t wanted)
{
    vec total = blocks ? float_sums(sum)
                       : _mm512_cvtepi32_ps(_mm512_sub_epi32(integer_sums(sum), t->excess[r / 2]));
    total = v_mul(total, t->step[r / 2]);
    if (!blocks) total = v_mul(total, _mm512_broadcast_f32x8(_mm256_loadu_ps(t->scale)));
    float *s = t->s + r * t->s_stride;
    store_keys(s, _mm512_castps512_ps256(total), wanted);
    if (r + 1 < row_count)
        store_keys(s + t->s_stride, _mm512_extractf32x8_ps(total, 1), wanted);
}

/* Four steps are unrolled so that, with 128 channels, each load instruction walks through memory in
 * equal strides: the first cache's prefetcher goes by instruction. */
VEC void qk_tile(const struct qk_call *t, int row_count, int blocks, int64_t wanted,
                 struct prefetch *fetch)
{
    __m512i sum[(ROWS + 1) * PAIRS];
    const int8_t *k[TILE];
    int64_t c = 0;
#pragma GCC unroll 20
    for (int i = 0; i < (row_count + 1) * PAIRS; i++) sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int j = 0; j < TILE; j++)
        k[j] = (const int8_t *)(j < wanted && t->row[j] ? t->row[j] : decode_zeros);
    for (; c + 4 * STEP <= t->channels; c += 4 * STEP)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            prefetch_step(fetch, i, TILE * STEP);
            qk_step(t, k, sum, row_count, blocks, c + i * STEP, STEP);
        }
    for (; c < t->channels; c += STEP)
        qk_step(t, k, sum, row_count, blocks, c, t->channels - c);
#pragma GCC unroll 2
    for (int r = 0; r < row_count; r += 2)
        store_scores(t, sum + r * PAIRS, r, row_count, blocks, wanted);
}

static void set_steps(struct qk_call *t, int row_count)
{
    float step[ROWS] = {0};
    int32_t excess[ROWS] = {0};
    int64_t tail = 2 * q_tail(t->channels);
    for (int r = 0; r < row_count; r++) {
        memcpy(&step[r], t->q + r * t->q_stride + tail, sizeof *step);
        memcpy(&excess[r], t->q + r * t->q_stride + tail + 2, sizeof *excess);
    }
    for (int r = 0; r < ROWS; r += 2) {
        t->step[r / 2] = _mm512_mask_blend_ps(0xff00, v_set(step[r]), v_set(step[r + 1]));
        t->excess[r / 2] = _mm512_mask_blend_epi32(0xff00, _mm512_set1_epi32(excess[r]),
                                                   _mm512_set1_epi32(excess[r + 1]));
    }
}

/* One channel count has a form of its own. */
enum { USUAL = 128 };
#define Q_STRIDE(channels) (2 * ((channels) + 16))

/* channels: a constant where it is known to the compiler, else 0. */
VEC void qk_rows(struct qk_call t, int row_count, int blocks, int64_t channels, int64_t keys,
                 struct prefetch *fetch)
{
    if (channels) {
        t.channels = channels;
        t.q_stride = Q_STRIDE(channels);
    }
    int64_t j = 0;
    struct prefetch walk = *fetch; /* in registers */
    set_steps(&t, row_count);
    for (; j + TILE <= keys; j += TILE) {
        qk_tile(&t, row_count, blocks, TILE, &walk);
        t.row += TILE;
        t.s += TILE;
        t.scale += TILE;
        if (blocks) t.of_blocks += TILE;
    }
    if (j < keys) qk_tile(&t, row_count, blocks, keys - j, &walk);
    *fetch = walk;
}

#define QK_CASE(count)                                                                             \
    case count:                                                                                    \
        if (blocks) qk_rows(t, count, 1, 0, keys, fetch);                                          \
        else if ((count) == ROWS && t.channels == USUAL && t.q_stride == Q_STRIDE(USUAL))            \
            qk_rows(t, count, 0, USUAL, keys, fetch);                                              \
        else qk_rows(t, count, 0, 0, keys, fetch);                                                 \
        break;

static void qk_all_rows(struct qk_call t, int blocks, int64_t rows, int64_t keys,
                        struct prefetch *fetch)
{
    struct prefetch none = {0};
    for (int64_t r = 0; r < rows; r += ROWS, t.q += ROWS * t.q_stride, t.s += ROWS * t.s_stride) {
        switch (rows - r < ROWS ? rows - r : ROWS) {
            QK_CASE(1)
            QK_CASE(2)
            QK_CASE(3)
            QK_CASE(4)
        default:
            break;
        }
        fetch = &none;
    }
}

DECODE_QK(avx512_vnni)
{
    float scale[KEYS_MAX + TILE];
    int blocks = has_blocks(k, channels);
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t j = first; j < last; j += KEYS_MAX) {
        int64_t keys = last - j < KEYS_MAX ? last - j : KEYS_MAX;
        if (!blocks) gather_scales(scale, k, j, keys, 0, rows_there(k, j, keys));
        _mm256_storeu_ps(scale + keys, _mm256_setzero_ps()); /* a last tile reads on */
        struct qk_call t = {.s = s + j,
                            .q = q,
                            .s_stride = s_stride,
                            .q_stride = 2 * q_stride,
                            .channels = channels,
                            .row = k->row + j,
                            .scale = scale,
                            .of_blocks = k->scale + j,
                            .scale_channels = k->scale_channels,
                            .scale_stride = k->scale_stride};
        qk_all_rows(t, blocks, rows, keys, &fetch);
    }
    prefetch_rest(&fetch);
}
