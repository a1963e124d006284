/* few_amx.c: few queries against few keys on the matrix unit (AMX BF16), 16 rows at a time, which may see
 * different keys. Scores are [key][row]: keys as they lie are a left operand, the queries, turned once, the
 * right one, so that softmax takes no step across lanes. Values as they lie are a right operand, with the
 * weights as in decode_amx.c: with zeros behind them for the even channels, then before them for the odd
 * ones. As the zeros meet values too, the level below serves rows whose sums are not finite. */
#define V_BF16_CONVERSION
#include "cpu/kernels.h"
#include "cpu/x86/amx_shapes.h"
#include "cpu/x86/transpose_avx512.h"

#include "cpu/vec_math.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = LANES, /* of a group */
    STRIPS = ROWS / FEW_STRIP,
    KEYS = 16, /* of a tile */
    KEY_TILES_MAX = FEW_KEYS_MAX / KEYS,
    STEP = 32, /* channels of a tile */
    LINE = 64,
    EXPONENTIALS = 4, /* at once */
};

/* KEYS rows that tiles load, or fewer; step: from each to the next, 0 if they differ or rows are missing. */
struct tile_rows {
    const char *const *row;
    int64_t at, count, step;
};

static struct tile_rows rows_from(const char *const *row, int64_t at, int64_t count)
{
    int64_t step = count == KEYS ? row[1] - row[0] : 0;
    for (int64_t i = 1; i < KEYS && step; i++)
        if (row[i] - row[i - 1] != step) step = 0;
    return (struct tile_rows){row, at, count, step};
}

/* What a tile loads of rows that do not lie as it needs them: zeros behind the last one. */
struct copied_lines {
    _Alignas(64) char line[KEYS][LINE];
};

/* Where a tile finds the lines that begin so many bytes from the rows' beginnings. */
VEC const char *lines_at(const struct tile_rows *from, int64_t bytes, struct copied_lines *copy,
                         size_t *step)
{
    *step = (size_t)from->step;
    if (from->step) return from->row[0] + from->at + bytes;
    for (int64_t i = 0; i < KEYS; i++)
        _mm512_store_si512(copy->line[i], i < from->count
                                              ? _mm512_loadu_si512(from->row[i] + from->at + bytes)
                                              : _mm512_setzero_si512());
    KEEP_ORDER;
    *step = LINE;
    return copy->line[0];
}

/* One group against the keys that any of its rows sees. */
struct group {
    const struct cpu_few *x;
    int64_t row, keys;
    __m512i first, last; /* of each row */
    vec factor;
    _Alignas(64) float s[KEY_TILES_MAX * KEYS][ROWS];
    vec even[KEY_TILES_MAX][ROWS], odd[KEY_TILES_MAX][ROWS]; /* weights [row][key] */
    struct copied_lines copy;
};

static void find_keys(struct group *g, const struct cpu_few_strip *strip)
{
    int32_t first[ROWS], last[ROWS];
    g->keys = 0;
    for (int i = 0; i < STRIPS; i++) {
        memcpy(first + i * FEW_STRIP, strip[i].first, sizeof strip[i].first);
        memcpy(last + i * FEW_STRIP, strip[i].last, sizeof strip[i].last);
        if (strip[i].high > g->keys) g->keys = strip[i].high;
    }
    g->first = _mm512_loadu_si512(first);
    g->last = _mm512_loadu_si512(last);
}

static int64_t keys_of_tile(const struct group *g, int64_t tile)
{
    int64_t rest = g->keys - tile * KEYS;
    return rest < KEYS ? rest : KEYS;
}

/* [pair of channels][row] */
static void turn_queries(const struct group *g)
{
    const struct cpu_few *x = g->x;
    for (int64_t c = 0; c < x->qk_channels / STEP; c++) {
        vec line[ROWS];
        for (int i = 0; i < ROWS; i++)
            line[i] = _mm512_loadu_ps((const float *)(x->q[g->row + i] + x->q_at) + c * LANES);
        transpose(line);
        for (int i = 0; i < ROWS; i++)
            _mm512_store_ps(x->turned + (c * LANES + i) * LANES, line[i]);
    }
}

/* -inf where a row does not see a key. */
static void score(struct group *g)
{
    const struct cpu_few *x = g->x;
    turn_queries(g);
    KEEP_ORDER;
    for (int64_t t = 0; t * KEYS < g->keys; t++) {
        struct tile_rows k = rows_from(x->k + t * KEYS, x->k_at, keys_of_tile(g, t));
        _tile_zero(0);
        for (int64_t c = 0; c < x->qk_channels / STEP; c++) {
            size_t step;
            const char *at = lines_at(&k, c * LINE, &g->copy, &step);
            _tile_loadd(1, at, step);
            _tile_loadd(2, x->turned + c * LANES * LANES, LINE);
            _tile_dpbf16ps(0, 1, 2);
            KEEP_ORDER;
        }
        _tile_stored(0, g->s[t * KEYS], LINE);
        KEEP_ORDER;
        for (int64_t j = t * KEYS; j < (t + 1) * KEYS; j++) {
            __m512i key = _mm512_set1_epi32((int)j);
            __mmask16 seen =
                _mm512_cmple_epi32_mask(g->first, key) & _mm512_cmplt_epi32_mask(key, g->last);
            _mm512_store_ps(g->s[j],
                            _mm512_mask_blend_ps(seen, v_set(-INFINITY), _mm512_load_ps(g->s[j])));
        }
    }
}

/* Weights, for tiles, and what each row's values are multiplied with. While the largest score is -inf, 0 stands in
 * for it: -inf - m must stay -inf. */
static void weigh(struct group *g)
{
    const struct cpu_few *x = g->x;
    int64_t end = (g->keys + KEYS - 1) / KEYS * KEYS;
    vec m = v_set(-INFINITY), sum = v_zero(), scale = v_set(x->scale);
    for (int64_t j = 0; j < g->keys; j++) m = v_max(m, _mm512_load_ps(g->s[j]));
    vec top = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, v_set(-INFINITY), _CMP_NEQ_UQ), m);
    for (int64_t t = 0; t * KEYS < end; t++) {
        vec p[KEYS];
        for (int j = 0; j < KEYS; j++)
            p[j] = v_mul(v_sub(_mm512_load_ps(g->s[t * KEYS + j]), top), scale);
        for (int j = 0; j < KEYS; j += EXPONENTIALS) v_exp2_several(p + j, EXPONENTIALS, 1);
        for (int j = 0; j < KEYS; j++) sum = v_add(sum, p[j]);
        transpose(p);
        for (int i = 0; i < ROWS; i++) {
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(p[i]));
            g->even[t][i] = _mm512_castsi512_ps(low);
            g->odd[t][i] = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
        }
    }
    __mmask16 some = _mm512_cmp_ps_mask(sum, v_zero(), _CMP_NEQ_UQ);
    g->factor = _mm512_maskz_div_ps(some, v_set(1), sum);
    if (!x->m) return;
    _mm512_storeu_ps(x->m + g->row, m);
    _mm512_storeu_ps(x->l + g->row, sum);
}

/* STEP channels of a row, from its sums of even ones and of odd ones. */
VEC void store_channels(char *out, int64_t dtype, vec even, vec odd)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    v_store_two(out, (int)dtype, _mm512_permutex2var_ps(even, low, odd),
                _mm512_permutex2var_ps(even, high, odd), 0);
}

/* Returns 0, and stores nothing further, if a value that a row has is not finite: sums of even channels show
 * those of odd ones too, which met zeros. */
static int add_values(struct group *g)
{
    const struct cpu_few *x = g->x;
    struct tile_rows v[KEY_TILES_MAX];
    float factor[ROWS];
    vec even[ROWS], odd[ROWS];
    int64_t tiles = (g->keys + KEYS - 1) / KEYS, size = x->out_dtype == RAPT_F32 ? 4 : 2;
    v_store(factor, RAPT_F32, g->factor);
    for (int64_t t = 0; t < tiles; t++)
        v[t] = rows_from(x->v + t * KEYS, x->v_at, keys_of_tile(g, t));
    KEEP_ORDER;
    for (int64_t c = 0; c < x->v_channels; c += STEP) {
        vec seen = v_zero();
        _tile_zero(0);
        _tile_zero(3);
        for (int64_t t = 0; t < tiles; t++) {
            size_t step;
            const char *at = lines_at(&v[t], 2 * c, &g->copy, &step);
            _tile_loadd(1, at, step);
            KEEP_ORDER;
            _tile_loadd(2, g->even[t], LINE);
            _tile_dpbf16ps(0, 2, 1);
            _tile_loadd(4, g->odd[t], LINE);
            _tile_dpbf16ps(3, 4, 1);
        }
        _tile_stored(0, even, LINE);
        _tile_stored(3, odd, LINE);
        KEEP_ORDER;
        for (int i = 0; i < ROWS; i++) seen = v_fma(even[i], v_zero(), seen);
        if (v_any_nan(seen)) return 0;
        for (int i = 0; i < ROWS; i++)
            store_channels(x->out[g->row + i] + x->out_at + c * size, x->out_dtype,
                           v_mul(even[i], v_set(factor[i])), v_mul(odd[i], v_set(factor[i])));
    }
    return 1;
}

static void attend_below(const struct cpu_few *x, int64_t strip, int64_t strips)
{
    struct cpu_few part = *x;
    part.strip += strip;
    part.strips = strips;
    part.q += strip * FEW_STRIP;
    part.out += strip * FEW_STRIP;
    if (x->m) part.m += strip * FEW_STRIP, part.l += strip * FEW_STRIP;
    if (strips) attend_few_avx512_bf16(&part);
}

static void shape_tiles(void)
{
    struct tile_shapes shapes = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) shapes.row_bytes[i] = ROW_BYTES, shapes.rows[i] = KEYS;
    load_shapes(&shapes);
}

/* Groups of all rows that fill one. */
void attend_few_amx(const struct cpu_few *x)
{
    struct group g;
    int64_t s = 0;
    g.x = x;
    for (; s + STRIPS <= x->strips; s += STRIPS) {
        g.row = s * FEW_STRIP;
        find_keys(&g, x->strip + s);
        shape_tiles();
        score(&g);
        weigh(&g);
        int stored = add_values(&g);
        _tile_release();
        if (!stored) attend_below(x, s, STRIPS);
    }
    attend_below(x, s, x->strips - s);
}
