/* tiles_avx512vnni.c: the AVX-512 VNNI level: half queries over i8 keys and values, in register tiles of 12 x 32 sums
 * of products of pairs of 16-bit integers. A row of q, and the weights of 64 keys times the scales of V, become such
 * integers relative to their largest, as in decode_avx512vnni.c (decisions/0009); sums are exact, and one conversion
 * to f32 per sum and scale follows.
 *
 * q [row]: integers, and from half the row on the step. A lane of a panel has two integers; what is missing of two
 * is 0. */
#include "cpu/x86/vnni_avx512.h"

#define LEVEL_BELOW cpu_avx512
#include "cpu/x86/level_above.h"

#include "cpu/x86/transpose_avx512.h"

enum { ROW_TILE = 12, COLUMN_TILE = 32, TOGETHER = 2 };
enum { GROUP = 64 /* keys whose weights share a step */, GROUP_PAIRS = GROUP / TOGETHER };
#include "cpu/x86/i8_panels.h"

/* ---- Register tiles ---- */

/* What a tile of sums, products of rows of a with columns of b, becomes: of each times step[row]. */
struct product {
    const int32_t *a; /* pairs; of values, rows of GROUP_PAIRS */
    const int32_t *b; /* [depth][COLUMN_TILE] */
    int64_t a_stride, depth;
    const float *step; /* step_stride from a row's to the next one's */
    int64_t step_stride;
    const float *scale; /* scores: of each column; else NULL */
    float *to;
    int64_t to_stride;
    int accumulate;
};

/* Scores are NaN where a scale is infinite (SEMANTICS, S23). */
VEC void finish(const struct product *t, int is_score, int rows, int vectors, __m512i sum[][2])
{
    vec scale[2], none[2];
#pragma GCC unroll 2
    for (int w = 0; w < vectors && is_score; w++) {
        scale[w] = v_load(t->scale + w * LANES, RAPT_F32);
        none[w] = v_sub(scale[w], scale[w]);
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        float *to = t->to + r * t->to_stride;
        vec step = v_set(t->step[r * t->step_stride]);
#pragma GCC unroll 2
        for (int w = 0; w < vectors; w++, to += LANES) {
            vec x = _mm512_cvtepi32_ps(sum[r][w]),
                before = t->accumulate ? v_load(to, RAPT_F32) : v_zero();
            if (is_score) x = v_fma(v_mul(x, step), scale[w], v_add(before, none[w]));
            else x = v_fma(x, step, before);
            v_store(to, RAPT_F32, x);
        }
    }
}

VEC void multiply(const struct product *given, int is_score, int rows, int vectors)
{
    struct product t = *given; /* so that no store changes it */
    int64_t a_stride = is_score ? t.a_stride : GROUP_PAIRS;
    __m512i sum[ROW_TILE][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int w = 0; w < vectors; w++) sum[r][w] = _mm512_setzero_si512();
    for (int64_t k = 0; k < t.depth; k++, t.b += COLUMN_TILE) {
        __m512i x[2];
#pragma GCC unroll 2
        for (int w = 0; w < vectors; w++) x[w] = _mm512_load_si512(t.b + w * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512i y = _mm512_set1_epi32(t.a[r * a_stride + k]);
#pragma GCC unroll 2
            for (int w = 0; w < vectors; w++) sum[r][w] = dot_pairs(sum[r][w], x[w], y);
        }
    }
    finish(&t, is_score, rows, vectors, sum);
}

#define TILES(X, vectors)                                                                          \
    X(1, vectors)                                                                                  \
    X(2, vectors)                                                                                  \
    X(3, vectors)                                                                                  \
    X(4, vectors)                                                                                  \
    X(5, vectors)                                                                                  \
    X(6, vectors)                                                                                  \
    X(7, vectors) X(8, vectors) X(9, vectors) X(10, vectors) X(11, vectors) X(12, vectors)
#define TILE_FUNCTIONS(rows, vectors)                                                              \
    static void scores_##rows##_##vectors(const struct product *t)                                 \
    {                                                                                              \
        multiply(t, 1, rows, vectors);                                                             \
    }                                                                                              \
    static void values_##rows##_##vectors(const struct product *t)                                 \
    {                                                                                              \
        multiply(t, 0, rows, vectors);                                                             \
    }
TILES(TILE_FUNCTIONS, 1)
TILES(TILE_FUNCTIONS, 2)

/* By whether the columns are more than one vector, and by rows. */
typedef void tile_fn(const struct product *t);
#define SCORES_ENTRY(rows, vectors) [rows] = scores_##rows##_##vectors,
#define VALUES_ENTRY(rows, vectors) [rows] = values_##rows##_##vectors,
static tile_fn *const score_tiles[2][ROW_TILE + 1] = {{TILES(SCORES_ENTRY, 1)},
                                                      {TILES(SCORES_ENTRY, 2)}};
static tile_fn *const value_tiles[2][ROW_TILE + 1] = {{TILES(VALUES_ENTRY, 1)},
                                                      {TILES(VALUES_ENTRY, 2)}};

/* ---- Scores ---- */

/* 2 * LANES channels of a row from c on as 16-bit integers, 0 past the last. */
VEC __m512i load_wide(const void *row, int64_t c, int64_t channels)
{
    int64_t n = channels - c < 2 * LANES ? channels - c : 2 * LANES;
    return _mm512_cvtepi8_epi16(
        _mm256_maskz_loadu_epi8((__mmask32)((1ull << n) - 1), (const char *)row + c));
}

/* Keys j ... j + LANES - 1 to their columns of a panel. A pair of channels is one lane of 32 bits, so the
 * transposition is that of f32. */
static void pack_columns(char *to, const struct k_panel *panel, const struct cpu_rows *k, int64_t j,
                         int64_t last, int64_t channels)
{
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        vec x[LANES];
        for (int i = 0; i < LANES; i++) {
            int64_t later = j + LANES + i;
            if (c % LINE == 0 && later < last && k->row[later])
                __builtin_prefetch((const char *)k->row[later] + c);
            x[i] = v_zero();
            if (j + i < last && k->row[j + i])
                x[i] = _mm512_castsi512_ps(load_wide(k->row[j + i], c, channels));
        }
        transpose(x);
        for (int64_t i = 0; i < LANES && c / 2 + i < panel->rows; i++)
            v_store(to + (c / 2 + i) * PANEL_ROW, RAPT_F32, x[i]);
    }
}

static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    struct k_panel panel = k_panel(channels);
    for (int64_t j = first; j < last; j += LANES) {
        char *base = (char *)panels + j / COLUMN_TILE * panel.bytes;
        pack_columns(base + j % COLUMN_TILE * (int64_t)sizeof(int32_t), &panel, k, j, last,
                     channels);
        put_k_scales(panels, &panel, k, j, last, channels);
    }
}

static void qk(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last)
{
    struct k_panel panel = k_panel(channels);
    const float *own_step = (const float *)q + q_stride / 2;
    float step[ROW_TILE];
    int infinite = finite_steps(step, own_step, q_stride, rows);
    for (int64_t j = first; j < last; j += COLUMN_TILE) {
        const char *base = (const char *)panels + j / COLUMN_TILE * panel.bytes;
        int64_t block = block_of(base, &panel);
        struct product t = {.a = q,
                            .b = (const int32_t *)(const void *)base,
                            .a_stride = q_stride,
                            .depth = (block + 1) / 2,
                            .step = step,
                            .step_stride = 1,
                            .scale = (const float *)(const void *)(base + panel.scales),
                            .to = s + j,
                            .to_stride = s_stride};
        for (int64_t c = 0; c < channels; c += block, t.accumulate = 1) {
            score_tiles[last - j > LANES][rows](&t);
            t.a += t.depth;
            t.b += t.depth * COLUMN_TILE;
            t.scale += COLUMN_TILE;
        }
    }
    if (infinite) put_infinities(s + first, s_stride, own_step, q_stride, rows, last - first);
}

/* ---- Weighted values ---- */

static const void *value_row(const struct cpu_rows *v, int64_t j, int64_t last)
{
    return j < last ? v->row[j] : NULL;
}

/* Zeros of a row that is not there. */
VEC __m512i load_value(const void *row, int64_t c, int64_t channels)
{
    return row ? load_wide(row, c, channels) : _mm512_setzero_si512();
}

/* first is even. Two keys are interleaved. */
static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    enum { KEYS_AHEAD = 16 };
    struct v_panel panel = v_panel(panel_keys);
    for (int64_t j = first; j < last; j += 2) {
        const void *one = value_row(v, j, last), *other = value_row(v, j + 1, last);
        char *to = (char *)panels + j / 2 * PANEL_ROW;
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, to += panel.bytes) {
            for (int64_t i = j + KEYS_AHEAD; c % LINE == 0 && i < j + KEYS_AHEAD + 2; i++) {
                const char *later = value_row(v, i, last);
                if (later) __builtin_prefetch(later + c);
            }
            __m512i a = load_value(one, c, channels), b = load_value(other, c, channels), both[2];
            interleave(a, b, both);
            _mm512_store_si512(to, both[0]);
            _mm512_store_si512(to + LINE, both[1]);
        }
    }
    return put_v_scales(panels, &panel, v, first, last, channels);
}

/* The weights of a group of keys, times the scales of their values. */
struct group_weights {
    float step[LANES];
    _Alignas(64) int16_t p[ROW_TILE][GROUP];
};

/* What makes integers of lanes that are at most largest in magnitude: x * factor, or where that is too large for a
 * float x * 2^power * factor. */
struct fixing {
    vec factor, power, step;
    int is_small; /* in some lane */
};

/* fixed_for of each lane; bits of magnitudes order as numbers do, NaN last. */
VEC struct fixing fix_lanes(__m512i largest)
{
    enum { LEAST = -100 };
    __mmask16 bad = _mm512_cmpgt_epi32_mask(largest, _mm512_set1_epi32(0x7f7fffff)),
              used = (__mmask16)(_mm512_test_epi32_mask(largest, largest) & ~bad);
    vec x = _mm512_castsi512_ps(largest), levels = v_set(LEVELS),
        mantissa = _mm512_maskz_getmant_ps(used, x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src),
        power = _mm512_maskz_getexp_ps(used, x);
    struct fixing f = {.factor = _mm512_maskz_div_ps(used, levels, mantissa),
                       .power = v_sub(v_zero(), power)};
    f.step = _mm512_maskz_scalef_ps(used, _mm512_div_ps(mantissa, levels), power);
    f.step = _mm512_mask_mov_ps(f.step, bad, v_set(NAN));
    f.is_small = _mm512_cmp_ps_mask(power, v_set(LEAST), _CMP_LT_OQ) != 0;
    if (!f.is_small) f.factor = v_scale2(f.factor, f.power);
    return f;
}

/* The largest lane of each row. */
VEC __m512i largest_of_rows(const __m512i *row, int64_t rows)
{
    vec x[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) x[i] = i < rows ? _mm512_castsi512_ps(row[i]) : v_zero();
    transpose(x);
#pragma GCC unroll 4
    for (int n = LANES / 2; n; n /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            x[i] = _mm512_castsi512_ps(
                _mm512_max_epi32(_mm512_castps_si512(x[i]), _mm512_castps_si512(x[i + n])));
    return _mm512_castps_si512(x[0]);
}

/* Bits of there: keys of the group. */
static void set_weights(struct group_weights *w, const float *p, int64_t p_stride, int64_t rows,
                        const float *scale, uint64_t there)
{
    enum { VECTORS = GROUP / LANES };
    __m512i most[ROW_TILE];
    vec x[ROW_TILE][VECTORS], of_keys[VECTORS];
    _Alignas(64) float factor[LANES], power[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < VECTORS; i++)
        of_keys[i] = _mm512_maskz_loadu_ps((__mmask16)(there >> i * LANES), scale + i * LANES);
    for (int64_t r = 0; r < rows; r++) {
        most[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            vec weight = _mm512_maskz_loadu_ps((__mmask16)(there >> i * LANES),
                                               p + r * p_stride + i * LANES);
            x[r][i] = v_mul(weight, of_keys[i]);
            most[r] = _mm512_max_epi32(most[r], _mm512_castps_si512(v_abs(x[r][i])));
        }
    }
    struct fixing f = fix_lanes(largest_of_rows(most, rows));
    _mm512_store_ps(factor, f.factor);
    _mm512_store_ps(power, f.power);
    _mm512_storeu_ps(w->step, f.step);
    for (int64_t r = 0; r < rows; r++) {
        __m512i n[VECTORS];
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            if (__builtin_expect(f.is_small, 0)) x[r][i] = v_scale2(x[r][i], v_set(power[r]));
            n[i] = _mm512_cvtps_epi32(v_mul(x[r][i], v_set(factor[r])));
        }
#pragma GCC unroll 2
        for (int i = 0; i < VECTORS; i += 2)
            _mm512_store_si512(w->p[r] + i * LANES, narrow(n[i], n[i + 1]));
    }
}

/* Groups begin at multiples of GROUP, so that a row's bits do not depend on where its neighbours' keys begin; weights
 * outside of [first, last) are 0 there, whatever the panel holds. */
static void pv(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate)
{
    struct v_panel panel = v_panel(panel_keys);
    struct group_weights w;
    for (int64_t j = first / GROUP * GROUP; j < last; j += GROUP) {
        int64_t low = first > j ? (first - j) / 2 : 0,
                high = last - j < GROUP ? (last - j + 1) / 2 : GROUP_PAIRS;
        uint64_t there = ~0ull << 2 * low;
        if (last - j < GROUP) there &= (1ull << (last - j)) - 1;
        const char *base = panels;
        struct product t = {.a = (const int32_t *)(const void *)w.p[0] + low,
                            .depth = high - low,
                            .step = w.step,
                            .step_stride = 1,
                            .to_stride = o_stride,
                            .accumulate = accumulate || j > first};
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, base += panel.bytes) {
            if (base[panel.is_new])
                set_weights(&w, p + j, p_stride, rows,
                            (const float *)(const void *)(base + panel.scales) + j, there);
            t.b = (const int32_t *)(const void *)(base + (j / 2 + low) * PANEL_ROW);
            t.to = o + c;
            value_tiles[channels - c > LANES][rows](&t);
        }
    }
}

/* It serves i8 keys and values alone. */
const struct cpu_kernels cpu_avx512_vnni = {
    .name = "cpu_avx512_vnni",
    .arch = "avx512_vnni",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 1,
    .tile_q = fix_q_avx512_vnni,
    DECODE_SLOTS_VNNI,
};
