/* decode_avx512vnni.c: the decode kernels for i8 K and V with AVX-512 VNNI: products of 16-bit
 * integers, summed exactly in 32 bits. K and V are widened; a row of q, and the weights of a row
 * over the keys of a call, become 16-bit fixed-point numbers relative to their largest magnitude.
 * Decision 0009 has the error. Rows lie in one piece, and a scale belongs to a whole row or to a
 * multiple of STEP channels. */
#include "cpu/decode_kernels.h"
#include "cpu/x86/fixed_point_avx512.h"

#include <math.h>
#include <string.h>

enum { STEP = 32, ROWS = 4, KEYS_MAX = 64 };

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

/* In place: the integers lie at the start of the row, its step half a row further. */
void decode_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    int levels = channels <= LONG_CHANNELS ? LEVELS : LEVELS / 2;
    for (float *row = q; rows > 0; rows--, row += q_stride) {
        float largest = largest_magnitude(row, channels);
        struct fixed f = fixed_for(largest, levels);
        int16_t *to = (int16_t *)row;
        if (isnan(f.step)) f.step = infinite_row(to, row, channels, largest);
        else
            for (int64_t i = 0; i < channels; i += LANES)
                _mm256_storeu_si256((__m256i *)(void *)(to + i),
                                    to_fixed(load_up_to(row + i, channels - i), &f));
        row[q_stride / 2] = f.step;
    }
}

/* ---- Rows of K and V ---- */

/* n of STEP channels, widened; 0 past them. */
VEC __m512i widen(const int8_t *row, int64_t n)
{
    if (n >= STEP)
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)row));
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8((__mmask32)((1ull << n) - 1), row));
}

VEC __m512i load_q(const int16_t *q, int64_t n)
{
    if (n >= STEP) return _mm512_loadu_si512(q);
    return _mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), q);
}

/* sum + the products of pairs of 16-bit integers. The compiler's intrinsic copies sum before and
 * after each use, which costs the loops below a third of their speed (gcc 12). */
VEC __m512i dot_pairs(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

static int has_blocks(const struct cpu_rows *rows, int64_t channels)
{
    return rows->scale_channels < channels;
}

/* Scales of channel c; 0 for NULL rows. */
static void gather_scales(float *scale, const struct cpu_rows *rows, int64_t first, int64_t keys,
                          int64_t c)
{
    int64_t at = c / rows->scale_channels * rows->scale_stride;
    const void *const *row = rows->row + first;
    const float *const *from = rows->scale + first;
    for (int64_t j = 0; j < keys; j++) scale[j] = row[j] ? from[j][at] : 0;
}

/* Bit j: row first + j is not NULL. */
static uint64_t rows_there(const struct cpu_rows *rows, int64_t first, int64_t keys)
{
    const void *const *row = rows->row + first;
    uint64_t there = 0;
    for (int64_t j = 0; j < keys; j++) there |= (uint64_t)(row[j] != NULL) << j;
    return there;
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
    vec steps; /* lane r * keys + j: the step of row r */
};

/* As v_sums. */
VEC __m512i integer_sums(const __m512i a[LANES])
{
    __m512i t[8], u[4], w[2];
    for (int i = 0; i < 8; i++)
        t[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        u[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(t[2 * i], t[2 * i + 1]),
                                _mm512_unpackhi_epi64(t[2 * i], t[2 * i + 1]));
    for (int i = 0; i < 2; i++)
        w[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(u[2 * i], u[2 * i + 1], 0x88),
                                _mm512_shuffle_i32x4(u[2 * i], u[2 * i + 1], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(w[0], w[1], 0x88),
                            _mm512_shuffle_i32x4(w[0], w[1], 0xdd));
}

/* Adds n <= STEP channels from c on to the sums of a tile: as integers, or as floats with the scale
 * of their block. */
VEC void qk_step(const struct qk_call *t, const int8_t *const *k, __m512i *sum, int row_count,
                 int key_count, int blocks, int64_t c, int64_t n)
{
    __m512i key[8];
    vec scale[8];
    int64_t at = blocks ? c / t->scale_channels * t->scale_stride : 0;
#pragma GCC unroll 8
    for (int j = 0; j < key_count; j++) {
        key[j] = widen(k[j] + c, n);
        if (blocks) scale[j] = v_set((const char *)k[j] == decode_zeros ? 0 : t->of_blocks[j][at]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++) {
        __m512i x = load_q(t->q + r * t->q_stride + c, n);
#pragma GCC unroll 8
        for (int j = 0; j < key_count; j++) {
            __m512i *to = &sum[r * key_count + j];
            if (!blocks) *to = dot_pairs(*to, key[j], x);
            else
                *to = _mm512_castps_si512(v_fma(
                    _mm512_cvtepi32_ps(dot_pairs(_mm512_setzero_si512(), key[j], x)),
                    scale[j], _mm512_castsi512_ps(*to)));
        }
    }
}

VEC vec repeat_scales(const float *scale, int key_count)
{
    if (key_count == 8) return _mm512_broadcast_f32x8(_mm256_loadu_ps(scale));
    return _mm512_broadcast_f32x4(_mm_loadu_ps(scale));
}

/* Four steps are unrolled so that, with 128 channels, each load instruction walks through memory in
 * equal strides: the first cache's prefetcher goes by instruction. */
VEC void qk_tile(const struct qk_call *t, int row_count, int key_count, int blocks, int64_t wanted,
                 struct prefetch *fetch)
{
    __m512i sum[LANES];
    const int8_t *k[8];
    float dots[LANES];
    int64_t c = 0;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int j = 0; j < key_count; j++)
        k[j] = (const int8_t *)(j < wanted && t->row[j] ? t->row[j] : decode_zeros);
    for (; c + 4 * STEP <= t->channels; c += 4 * STEP)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            prefetch_step(fetch, i, key_count * STEP);
            qk_step(t, k, sum, row_count, key_count, blocks, c + i * STEP, STEP);
        }
    for (; c < t->channels; c += STEP)
        qk_step(t, k, sum, row_count, key_count, blocks, c, t->channels - c);
    vec total;
    if (blocks) {
        vec parts[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) parts[i] = _mm512_castsi512_ps(sum[i]);
        total = v_mul(v_sums(parts), t->steps);
    } else
        total = v_mul(v_mul(_mm512_cvtepi32_ps(integer_sums(sum)), t->steps),
                      repeat_scales(t->scale, key_count));
    v_store(dots, RAPT_F32, total);
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
        if (wanted >= key_count)
            memcpy(t->s + r * t->s_stride, dots + r * key_count, (size_t)key_count * sizeof(float));
        else
            for (int64_t j = 0; j < wanted; j++)
                t->s[r * t->s_stride + j] = dots[r * key_count + j];
}

VEC void qk_rows(struct qk_call t, int row_count, int blocks, int64_t keys,
                 struct prefetch *fetch)
{
    const int key_count = row_count <= 2 ? 8 : 4;
    float steps[LANES] = {0};
    int64_t j = 0;
    struct prefetch walk = *fetch; /* in registers */
    for (int r = 0; r < row_count; r++)
        for (int i = 0; i < key_count; i++)
            memcpy(&steps[r * key_count + i], t.q + r * t.q_stride + t.q_stride / 2, sizeof(float));
    t.steps = v_load(steps, RAPT_F32);
    for (; j + key_count <= keys; j += key_count) {
        qk_tile(&t, row_count, key_count, blocks, key_count, &walk);
        t.row += key_count;
        t.s += key_count;
        t.scale += key_count;
        if (blocks) t.of_blocks += key_count;
    }
    if (j < keys) qk_tile(&t, row_count, key_count, blocks, keys - j, &walk);
    *fetch = walk;
}

#define QK_CASE(count)                                                                             \
    case count:                                                                                    \
        if (blocks) qk_rows(t, count, 1, keys, fetch);                                             \
        else qk_rows(t, count, 0, keys, fetch);                                                    \
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
    float scale[KEYS_MAX + 8];
    int blocks = has_blocks(k, channels);
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t j = first; j < last; j += KEYS_MAX) {
        int64_t keys = last - j < KEYS_MAX ? last - j : KEYS_MAX;
        memset(scale, 0, sizeof scale);
        if (!blocks) gather_scales(scale, k, j, keys, 0);
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

/* ---- Weighted values ---- */

/* One group of rows over at most KEYS_MAX keys and over channels that share a scale. */
struct pv_call {
    float *o;
    int64_t o_stride;
    const void *const *row;
    int64_t keys;
    struct prefetch fetch;
    float step[ROWS];
    _Alignas(64) int16_t p[ROWS][KEYS_MAX];
};

/* p times the scales of the keys, as integers; 0 where a row is NULL, whatever p is there. */
static void set_weights(struct pv_call *t, const float *p, int64_t p_stride, int64_t rows,
                        const float *scale, uint64_t there)
{
    enum { VECTORS = KEYS_MAX / LANES };
    for (int64_t r = 0; r < rows; r++, p += p_stride) {
        vec x[VECTORS], most = v_zero();
        __mmask16 bad = 0;
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            __mmask16 lanes = (__mmask16)(there >> i * LANES);
            x[i] = v_mul(_mm512_maskz_loadu_ps(lanes, p + i * LANES),
                         v_load(scale + i * LANES, RAPT_F32));
            bad |= _mm512_cmp_ps_mask(x[i], x[i], _CMP_UNORD_Q);
            most = v_max(most, v_abs(x[i]));
        }
        struct fixed f = fixed_for(bad ? NAN : v_largest(most), LEVELS);
        t->step[r] = f.step;
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++)
            _mm256_store_si256((__m256i *)(void *)&t->p[r][i * LANES],
                               isnan(f.step) ? _mm256_setzero_si256() : to_fixed(x[i], &f));
    }
}

/* Columns c ... c + STEP * doubles - 1; part: how many of a single double, 0 for all. Two rows are
 * interleaved by bytes: the low half of a double holds channels 0-7 and 16-23, the high half the
 * others. */
VEC void pv_tile(struct pv_call *t, int row_count, int doubles, int64_t c, int64_t part)
{
    __mmask32 wanted = part ? (__mmask32)((1ull << part) - 1) : ~(__mmask32)0;
    __m512i sum[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 2 * doubles; i++) sum[r][i] = _mm512_setzero_si512();
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j += 2) {
        const void *row = t->row[j], *second = j + 1 < t->keys ? t->row[j + 1] : NULL;
        const char *a = row ? row : decode_zeros, *b = second ? second : decode_zeros;
        __m512i value[4];
        prefetch_step(&fetch, j / 2, 2 * doubles * STEP);
#pragma GCC unroll 2
        for (int i = 0; i < doubles; i++) {
            __m256i x = part
                            ? _mm256_maskz_loadu_epi8(wanted, a + c)
                            : _mm256_loadu_si256((const __m256i *)(const void *)(a + c + i * STEP)),
                    y = part
                            ? _mm256_maskz_loadu_epi8(wanted, b + c)
                            : _mm256_loadu_si256((const __m256i *)(const void *)(b + c + i * STEP));
            value[2 * i] = _mm512_cvtepi8_epi16(_mm256_unpacklo_epi8(x, y));
            value[2 * i + 1] = _mm512_cvtepi8_epi16(_mm256_unpackhi_epi8(x, y));
        }
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            int32_t pair;
            memcpy(&pair, &t->p[r][j], sizeof pair);
            __m512i p = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int i = 0; i < 2 * doubles; i++)
                sum[r][i] = dot_pairs(sum[r][i], value[i], p);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 2
        for (int i = 0; i < doubles; i++) {
            float *o = t->o + r * t->o_stride + c + i * STEP;
            vec low = _mm512_cvtepi32_ps(sum[r][2 * i]),
                high = _mm512_cvtepi32_ps(sum[r][2 * i + 1]), step = v_set(t->step[r]);
            vec first = _mm512_shuffle_f32x4(low, high, 0x44),
                second = _mm512_shuffle_f32x4(low, high, 0xee);
            __mmask16 m0 = (__mmask16)wanted, m1 = (__mmask16)(wanted >> LANES);
            _mm512_mask_storeu_ps(o, m0, v_fma(step, first, _mm512_maskz_loadu_ps(m0, o)));
            _mm512_mask_storeu_ps(o + LANES, m1,
                                  v_fma(step, second, _mm512_maskz_loadu_ps(m1, o + LANES)));
        }
}

VEC void pv_rows(struct pv_call *t, int row_count, int64_t c, int64_t end)
{
    for (; c + 2 * STEP <= end; c += 2 * STEP) pv_tile(t, row_count, 2, c, 0);
    for (; c + STEP <= end; c += STEP) pv_tile(t, row_count, 1, c, 0);
    if (c < end) pv_tile(t, row_count, 1, c, end - c);
}

static void pv_group(struct pv_call *t, int64_t rows, int64_t c, int64_t end)
{
    switch (rows) {
    case 1:
        pv_rows(t, 1, c, end);
        break;
    case 2:
        pv_rows(t, 2, c, end);
        break;
    case 3:
        pv_rows(t, 3, c, end);
        break;
    default:
        pv_rows(t, 4, c, end);
        break;
    }
}

DECODE_PV(avx512_vnni)
{
    float scale[KEYS_MAX] = {0};
    struct pv_call t = {.o_stride = o_stride};
    int64_t block = v->scale_channels < channels ? v->scale_channels : channels;
    t.fetch = prefetch_of(ahead);
    for (int64_t j = first; j < last; j += KEYS_MAX) {
        t.keys = last - j < KEYS_MAX ? last - j : KEYS_MAX;
        t.row = v->row + j;
        uint64_t there = rows_there(v, j, t.keys);
        for (int64_t c = 0; c < channels; c += block) {
            gather_scales(scale, v, j, t.keys, c);
            for (int64_t r = 0; r < rows; r += ROWS) {
                int64_t group = rows - r < ROWS ? rows - r : ROWS,
                        end = c + block < channels ? c + block : channels;
                set_weights(&t, p + r * p_stride + j, p_stride, group, scale,
                            there);
                t.o = o + r * o_stride;
                pv_group(&t, group, c, end);
            }
        }
    }
    prefetch_rest(&t.fetch);
}
