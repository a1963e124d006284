/* decode_amx.c: the decode kernels on the matrix unit (AMX BF16), K and V as they lie in memory. Scores: 16 keys by
 * 32 channels are a left operand, and q, turned once, the right one. Values: V is the right operand, of which a tile
 * adds the products of neighbours of 16 bits. In a row of V these are two channels, so the left operand holds each row
 * of weights twice, with a zero behind each weight for the even channels and with one before it for the odd ones. The
 * zeros meet values too: where a sum is NaN or infinite the level below serves, and wherever keys do not lie one
 * behind another, as when those of several heads do: 16 rows of a tile then come from as many pieces of memory. */
#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/amx_shapes.h"
#include "cpu/x86/transpose_avx512.h"

#include <string.h>

enum {
    KEYS = 16,   /* of a tile */
    LEAST = 128, /* keys of a call: it turns q and shapes tiles anew */
    STEP = 32,   /* channels of a tile */
    LINE = 64,   /* bytes of a row of a tile */
    ROWS = 16,   /* of q */
    VALUE_ROWS = 8,
    GROUPS = 16, /* of KEYS keys whose weights are turned at once */
};

/* 16 rows of LINE bytes each; rows: of the first five tiles, if not 0. */
static void shape_all(int rows)
{
    struct tile_shapes shapes = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) shapes.row_bytes[i] = ROW_BYTES, shapes.rows[i] = KEYS;
    for (int i = 0; rows && i < 5; i++) shapes.rows[i] = (uint8_t)rows;
    load_shapes(&shapes);
}

/* Whether the next KEYS keys lie one behind another, bytes each, and none is absent. */
static int lie_together(const void *const *row, int64_t bytes)
{
    const __m512i some = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    __m512i at = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(intptr_t)row[0]),
                                  _mm512_mullo_epi64(_mm512_set1_epi64(bytes), some)),
            next = _mm512_add_epi64(at, _mm512_set1_epi64(8 * bytes));
    return row[0] && !_mm512_cmpneq_epi64_mask(at, _mm512_loadu_si512(row)) &&
           !_mm512_cmpneq_epi64_mask(next, _mm512_loadu_si512(row + 8));
}

/* Whether tiles can take keys first ... last - 1. With one row the level below waits for memory alone. */
static int can_take(const struct cpu_rows *keys, int64_t rows, int64_t channels, int64_t first,
                    int64_t last)
{
    if (rows == 1 || keys->channel_stride != 1 || keys->span || channels % STEP ||
        last - first < LEAST)
        return 0;
    for (int64_t j = first; j + KEYS <= last; j += KEYS)
        if (!lie_together(keys->row + j, 2 * channels)) return 0;
    return 1;
}

/* ---- Scores ---- */

/* q of up to ROWS rows: pairs of channels, each of all rows. */
static void turn_queries(vec (*turned)[ROWS], const float *q, int64_t q_stride, int64_t rows,
                         int64_t channels)
{
    for (int64_t c = 0; c < channels / STEP; c++) {
        for (int64_t r = 0; r < ROWS; r++)
            turned[c][r] = r < rows ? v_load(q + r * q_stride + c * LANES, RAPT_F32) : v_zero();
        transpose(turned[c]);
    }
}

/* Scores of KEYS keys, with tiles of their own, so that neighbours overlap. */
#define SCORES(sum, left, right, to, key)                                                          \
    do {                                                                                           \
        _tile_zero(sum);                                                                           \
        for (int64_t c = 0; c < channels / STEP; c++) {                                            \
            prefetch_lines(&fetch, KEYS);                                                          \
            _tile_loadd(left, (key) + c * LINE, bytes);                                            \
            _tile_loadd(right, turned[c], LINE);                                                   \
            _tile_dpbf16ps(sum, left, right);                                                      \
        }                                                                                          \
        _tile_stored(sum, to, LINE);                                                               \
    } while (0)

static void store_scores(float *s, int64_t s_stride, int64_t rows, vec *found)
{
    KEEP_ORDER;
    transpose(found);
    for (int64_t r = 0; r < rows; r++) v_store(s + r * s_stride, RAPT_F32, found[r]);
}

static void score_rows(float *s, int64_t s_stride, const float *q, int64_t q_stride,
                       const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                       int64_t last, const struct cpu_ahead *ahead)
{
    vec turned[DECODE_CHANNELS_MAX / STEP][ROWS], found[2][KEYS];
    struct prefetch fetch = prefetch_of(ahead);
    const size_t bytes = 2 * (size_t)channels;
    int64_t j = first;
    turn_queries(turned, q, q_stride, rows, channels);
    shape_all(0);
    KEEP_ORDER;
    for (; j + 2 * KEYS <= last; j += 2 * KEYS) {
        SCORES(0, 2, 4, found[0], (const char *)k->row[j]);
        SCORES(1, 3, 5, found[1], (const char *)k->row[j + KEYS]);
        store_scores(s + j, s_stride, rows, found[0]);
        store_scores(s + j + KEYS, s_stride, rows, found[1]);
    }
    _tile_release();
    prefetch_rest(&fetch);
    if (j < last) decode_qk_avx512_bf16(s, s_stride, q, q_stride, k, rows, channels, j, last, NULL);
}

DECODE_QK(amx)
{
    if (!can_take(k, rows, channels, first, last)) {
        decode_qk_avx512_bf16(s, s_stride, q, q_stride, k, rows, channels, first, last, ahead);
        return;
    }
    for (int64_t r = 0; r < rows; r += ROWS, ahead = NULL)
        score_rows(s + r * s_stride, s_stride, (const float *)q + r * q_stride, q_stride, k,
                   min64(rows - r, ROWS), channels, first, last, ahead);
}

/* ---- Weighted values ---- */

/* Weights of up to VALUE_ROWS rows and KEYS keys: with zeros behind them, then before them. */
static void spread_weights(vec *to, const uint16_t *p, int64_t p_stride, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512i low = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256((const __m256i *)(const void *)(p + r * p_stride)));
        to[r] = _mm512_castsi512_ps(low);
        to[rows + r] = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    }
}

/* o += what a tile has summed of STEP channels, even ones in the first rows, odd ones in the others. */
static void add_sums(float *o, int64_t o_stride, const vec *sum, int64_t rows)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t r = 0; r < rows; r++, o += o_stride) {
        vec a = _mm512_permutex2var_ps(sum[r], low, sum[rows + r]),
            b = _mm512_permutex2var_ps(sum[r], high, sum[rows + r]);
        v_store(o, RAPT_F32, v_add(v_load(o, RAPT_F32), a));
        v_store(o + LANES, RAPT_F32, v_add(v_load(o + LANES, RAPT_F32), b));
    }
}

/* Whether all are finite: x - x is 0 then. */
static int are_finite(const vec *sum, int64_t count)
{
    vec seen = v_zero();
    for (int64_t i = 0; i < count; i++) seen = v_add(seen, v_sub(sum[i], sum[i]));
    return !v_any_nan(seen);
}

#define VALUES 4 /* tiles of sums */
#define ADD_PRODUCT(i, right)                                                                      \
    if (i < tiles) {                                                                               \
        prefetch_lines(fetch, KEYS);                                                               \
        _tile_loadd(right, value + i * LINE, bytes);                                               \
        _tile_dpbf16ps(i, 4, right);                                                               \
    }
#define STORE_SUM(i)                                                                               \
    if (i < tiles) _tile_stored(i, sum[i], LINE)

/* Sums of the values of groups of KEYS keys from channel on, in up to VALUES tiles. */
VEC void multiply_values(vec (*sum)[KEYS], vec (*p)[KEYS], const void *const *row, int64_t groups,
                         int64_t channel, int64_t channels, int tiles, struct prefetch *fetch)
{
    const size_t bytes = 2 * (size_t)channels;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t g = 0; g < groups; g++) {
        const char *value = (const char *)row[g * KEYS] + 2 * channel;
        _tile_loadd(4, p[g], LINE);
        ADD_PRODUCT(0, 5)
        ADD_PRODUCT(1, 6)
        ADD_PRODUCT(2, 5)
        ADD_PRODUCT(3, 6)
    }
    STORE_SUM(0);
    STORE_SUM(1);
    STORE_SUM(2);
    STORE_SUM(3);
}

/* Some channels of groups whose sums are not finite, from the level below. */
static void add_below(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t first, int64_t groups,
                      int64_t channel, int64_t channels)
{
    const void *row[GROUPS * KEYS];
    struct cpu_rows part = *v;
    part.row = row;
    for (int64_t j = 0; j < groups * KEYS; j++)
        row[j] = (const char *)v->row[first + j] + channel * 2;
    decode_pv_avx512_bf16(o + channel, o_stride, p + first / 2, p_stride, &part, rows, channels, 0,
                          groups * KEYS, NULL);
}

/* At most GROUPS times KEYS keys. */
static void add_rows(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                     const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                     int64_t groups, struct prefetch *fetch)
{
    vec spread[GROUPS][KEYS], sum[VALUES][KEYS];
    for (int64_t g = 0; g < groups; g++)
        spread_weights(spread[g], (const uint16_t *)p + first + g * KEYS, 2 * p_stride, rows);
    KEEP_ORDER;
    for (int64_t channel = 0; channel < channels; channel += VALUES * STEP) {
        int tiles = (int)min64((channels - channel) / STEP, VALUES), finite = 1;
        shape_all((int)(2 * rows));
        if (tiles == VALUES)
            multiply_values(sum, spread, v->row + first, groups, channel, channels, VALUES, fetch);
        else multiply_values(sum, spread, v->row + first, groups, channel, channels, tiles, fetch);
        _tile_release();
        KEEP_ORDER;
        for (int i = 0; i < tiles; i++) finite &= are_finite(sum[i], 2 * rows);
        for (int i = 0; finite && i < tiles; i++)
            add_sums(o + channel + i * STEP, o_stride, sum[i], rows);
        if (!finite)
            add_below(o, o_stride, p, p_stride, v, rows, first, groups, channel, tiles * STEP);
    }
}

DECODE_PV(amx)
{
    if (!can_take(v, rows, channels, first, last)) {
        decode_pv_avx512_bf16(o, o_stride, p, p_stride, v, rows, channels, first, last, ahead);
        return;
    }
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t r = 0; r < rows;
         r += VALUE_ROWS, o += VALUE_ROWS * o_stride, p += VALUE_ROWS * p_stride) {
        int64_t some = min64(rows - r, VALUE_ROWS), j = first;
        for (int64_t groups; (groups = min64((last - j) / KEYS, GROUPS)) > 0; j += groups * KEYS)
            add_rows(o, o_stride, p, p_stride, v, some, channels, j, groups, &fetch);
        if (j < last)
            decode_pv_avx512_bf16(o, o_stride, p, p_stride, v, some, channels, j, last, NULL);
    }
    prefetch_rest(&fetch);
}
