/* decode_amx.c: the decode kernels on the matrix unit (AMX BF16), K and V as they lie in memory. Scores: 16 keys by
 * 32 channels are a left operand, and q, turned, the right one. Values: V is the right operand, of which a tile
 * adds the products of neighbours of 16 bits. In a row of V these are two channels, so the left operand holds each row
 * of weights twice, with a zero behind each weight for the even channels and with one before it for the odd ones. The
 * zeros meet values too: where a sum is NaN or infinite the level below serves, and wherever keys do not lie a
 * constant step apart. Shapes are loaded once for the scores of a block, of all its heads, and once for its values:
 * that takes as long as 25 lines from memory. */
#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/amx_shapes.h"
#include "cpu/x86/transpose_avx512.h"

#include <string.h>

enum {
    KEYS = 16, /* of a tile */
    STEP = 32, /* channels of a tile */
    LINE = 64, /* bytes of a row of a tile */
    ROWS = 16, /* of q: DECODE_ROWS_MAX */
    FEW = 4,   /* of them: a quarter of a tile */
    VALUE_ROWS = 8,
    GROUPS = 16, /* of KEYS keys whose weights are turned at once */
};

/* Scores: sums in tiles 0 and 1, keys in 2 and 3, q in 4 and 5. */
static void shape_scores(int64_t rows)
{
    struct tile_shapes shapes = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) {
        int whole = rows > FEW || i == 2 || i == 3;
        shapes.row_bytes[i] = whole ? LINE : FEW * sizeof(float);
        shapes.rows[i] = KEYS;
    }
    load_shapes(&shapes);
}

/* Rows of a tile of weights: each row twice. */
static int64_t weight_rows(int64_t rows)
{
    return 2 * min64(rows, VALUE_ROWS);
}

/* Values: sums in tiles 0 to 3, weights in 4, values in 5 and 6. */
static void shape_values(int64_t rows)
{
    struct tile_shapes shapes = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) {
        shapes.row_bytes[i] = LINE;
        shapes.rows[i] = (uint8_t)(i <= 4 ? weight_rows(rows) : KEYS);
    }
    load_shapes(&shapes);
}

/* With one row the level below waits for memory alone. */
static int can_take_rows(int64_t rows, int64_t channels)
{
    return rows > 1 && channels % STEP == 0;
}

void decode_stage_amx(enum decode_stage stage, int64_t rows, int64_t channels)
{
    if (stage == DECODE_DONE) _tile_release();
    else if (!can_take_rows(rows, channels)) return;
    else if (stage == DECODE_SCORES) shape_scores(rows);
    else shape_values(rows);
}

/* Whether the next KEYS keys lie step bytes apart, and so none is absent. */
static int lie_apart(const void *const *row, int64_t step)
{
    const __m512i some = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    __m512i at = _mm512_add_epi64(_mm512_set1_epi64((int64_t)(intptr_t)row[0]),
                                  _mm512_mullo_epi64(_mm512_set1_epi64(step), some)),
            next = _mm512_add_epi64(at, _mm512_set1_epi64(8 * step));
    return !_mm512_cmpneq_epi64_mask(at, _mm512_loadu_si512(row)) &&
           !_mm512_cmpneq_epi64_mask(next, _mm512_loadu_si512(row + 8));
}

/* The bytes from key to key if tiles can take keys first ... last - 1, else 0. Where pages lie must not matter, so each
 * tile has to be of one page. */
static int64_t step_of(const struct cpu_rows *keys, int64_t rows, int64_t channels, int64_t first,
                       int64_t last)
{
    if (!can_take_rows(rows, channels) || keys->channel_stride != 1 || keys->span ||
        last - first < DECODE_KEYS_AMX || keys->page % KEYS || (keys->page && first % KEYS))
        return 0;
    int64_t step = (intptr_t)keys->row[first + 1] - (intptr_t)keys->row[first];
    for (int64_t j = first; j + KEYS <= last; j += KEYS)
        if (!lie_apart(keys->row + j, step)) return 0;
    return step;
}

/* ---- Scores ---- */

/* q of up to width rows, which is FEW or ROWS: for each STEP channels KEYS rows of so many pairs. */
VEC void turn_queries(vec *turned, const float *q, int64_t q_stride, int64_t rows, int64_t channels,
                      int width)
{
    for (int64_t c = 0; c < channels / STEP; c++, turned += width) {
        for (int64_t r = 0; r < width; r++)
            turned[r] = r < rows ? v_load(q + r * q_stride + c * LANES, RAPT_F32) : v_zero();
        if (width == FEW) columns_of_4(turned);
        else transpose(turned);
    }
}

VEC void store_scores(float *s, int64_t s_stride, int64_t rows, vec *found, int width)
{
    if (width == FEW) rows_of_4(found);
    else transpose(found);
    for (int64_t r = 0; r < rows; r++) v_store(s + r * s_stride, RAPT_F32, found[r]);
}

/* Scores of KEYS keys, with tiles of their own, so that neighbours overlap. */
#define SCORES(sum, left, right, to, key)                                                          \
    do {                                                                                           \
        _tile_zero(sum);                                                                           \
        for (int64_t c = 0; c < channels / STEP; c++) {                                            \
            prefetch_lines(&fetch, KEYS);                                                          \
            _tile_loadd(left, (const char *)(key) + c * LINE, step);                               \
            _tile_loadd(right, turned + c * width, width * sizeof(float));                         \
            _tile_dpbf16ps(sum, left, right);                                                      \
        }                                                                                          \
        _tile_stored(sum, to, width * sizeof(float));                                              \
    } while (0)

/* Keys in pairs of tiles; returns the first that is left. */
VEC int64_t score_rows(float *s, int64_t s_stride, const float *q, int64_t q_stride,
                       const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t step,
                       int64_t first, int64_t last, const struct cpu_ahead *ahead, int width)
{
    vec turned[DECODE_CHANNELS_MAX / STEP * ROWS], found[2][ROWS];
    struct prefetch fetch = prefetch_of(ahead);
    turn_queries(turned, q, q_stride, rows, channels, width);
    KEEP_ORDER;
    for (; first + 2 * KEYS <= last; first += 2 * KEYS) {
        SCORES(0, 2, 4, found[0], k->row[first]);
        SCORES(1, 3, 5, found[1], k->row[first + KEYS]);
        KEEP_ORDER;
        store_scores(s + first, s_stride, rows, found[0], width);
        store_scores(s + first + KEYS, s_stride, rows, found[1], width);
    }
    prefetch_rest(&fetch);
    return first;
}

DECODE_QK(amx)
{
    int64_t step = step_of(k, rows, channels, first, last), next = first;
    if (step && rows <= FEW)
        next =
            score_rows(s, s_stride, q, q_stride, k, rows, channels, step, first, last, ahead, FEW);
    else if (step)
        next =
            score_rows(s, s_stride, q, q_stride, k, rows, channels, step, first, last, ahead, ROWS);
    if (next < last)
        decode_qk_avx512_bf16(s, s_stride, q, q_stride, k, rows, channels, next, last,
                              step ? NULL : ahead);
}

/* ---- Weighted values ---- */

/* Weights of up to VALUE_ROWS rows and KEYS keys: in one half of a tile with zeros behind them, in the other with
 * zeros before them. */
static void spread_weights(vec *to, const uint16_t *p, int64_t p_stride, int64_t rows, int64_t half)
{
    for (int64_t r = 0; r < rows; r++) {
        __m512i low = _mm512_cvtepu16_epi32(
            _mm256_loadu_si256((const __m256i *)(const void *)(p + r * p_stride)));
        to[r] = _mm512_castsi512_ps(low);
        to[half + r] = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    }
    for (int64_t r = rows; r < half; r++) to[r] = to[half + r] = v_zero();
}

/* o += what a tile has summed of STEP channels, even ones in the first rows, odd ones in the others. */
static void add_sums(float *o, int64_t o_stride, const vec *sum, int64_t rows, int64_t half)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t r = 0; r < rows; r++, o += o_stride) {
        vec a = _mm512_permutex2var_ps(sum[r], low, sum[half + r]),
            b = _mm512_permutex2var_ps(sum[r], high, sum[half + r]);
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
        _tile_loadd(right, value + i * LINE, step);                                                \
        _tile_dpbf16ps(i, 4, right);                                                               \
    }
#define STORE_SUM(i)                                                                               \
    if (i < tiles) _tile_stored(i, sum[i], LINE)

/* Sums of the values of groups of KEYS keys from channel on, in up to VALUES tiles. */
VEC void multiply_values(vec (*sum)[KEYS], vec (*p)[KEYS], const void *const *row, int64_t groups,
                         int64_t channel, int64_t step, int tiles, struct prefetch *fetch)
{
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

/* At most GROUPS times KEYS keys. half: rows of half a tile of weights. */
static void add_rows(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                     const struct cpu_rows *v, int64_t rows, int64_t half, int64_t channels,
                     int64_t step, int64_t first, int64_t groups, struct prefetch *fetch)
{
    vec spread[GROUPS][KEYS], sum[VALUES][KEYS];
    for (int64_t g = 0; g < groups; g++)
        spread_weights(spread[g], (const uint16_t *)p + first + g * KEYS, 2 * p_stride, rows, half);
    KEEP_ORDER;
    for (int64_t channel = 0; channel < channels; channel += VALUES * STEP) {
        int tiles = (int)min64((channels - channel) / STEP, VALUES), finite = 1;
        if (tiles == VALUES)
            multiply_values(sum, spread, v->row + first, groups, channel, step, VALUES, fetch);
        else multiply_values(sum, spread, v->row + first, groups, channel, step, tiles, fetch);
        KEEP_ORDER;
        for (int i = 0; i < tiles; i++) finite &= are_finite(sum[i], 2 * half);
        for (int i = 0; finite && i < tiles; i++)
            add_sums(o + channel + i * STEP, o_stride, sum[i], rows, half);
        if (!finite)
            add_below(o, o_stride, p, p_stride, v, rows, first, groups, channel, tiles * STEP);
    }
}

DECODE_PV(amx)
{
    int64_t step = step_of(v, rows, channels, first, last), half = weight_rows(rows) / 2;
    if (!step) {
        decode_pv_avx512_bf16(o, o_stride, p, p_stride, v, rows, channels, first, last, ahead);
        return;
    }
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t r = 0; r < rows;
         r += VALUE_ROWS, o += VALUE_ROWS * o_stride, p += VALUE_ROWS * p_stride) {
        int64_t some = min64(rows - r, VALUE_ROWS), j = first;
        for (int64_t groups; (groups = min64((last - j) / KEYS, GROUPS)) > 0; j += groups * KEYS)
            add_rows(o, o_stride, p, p_stride, v, some, half, channels, step, j, groups, &fetch);
        if (j < last)
            decode_pv_avx512_bf16(o, o_stride, p, p_stride, v, some, channels, j, last, NULL);
    }
    prefetch_rest(&fetch);
}
