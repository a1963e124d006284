/* tiles_amxint8.c: the AMX INT8 level: half queries over i8 keys and values, in tiles of 16 x 16
 * sums of 8-bit products. A row of q, and the weights of 64 keys times the scales of V, become
 * 16-bit integers relative to their largest, as in decode_avx512vnni.c (decisions/0009): high
 * bytes are signed, low ones not, and each half has a sum of its own, which 32 bits hold. One
 * conversion to f32 per sum and scale follows.
 *
 * q [row]: high bytes, low bytes from half the row on, the step in the last 4 bytes. A lane of a panel has four bytes;
 * what is missing of four is 0. */
#include "cpu/decode_kernels.h"

#include "cpu/x86/amx_shapes.h"

#define LEVEL_BELOW cpu_avx512
#include "cpu/x86/level_above.h"

#include "cpu/x86/fixed_point_avx512.h"
#include "cpu/x86/transpose_avx512.h"

enum { ROW_TILE = 16, COLUMN_TILE = 32, FOUR = 4, TOGETHER = FOUR, LINE = 64 };
#include "cpu/x86/i8_panels.h"

enum { DEPTH = 16 /* fours of one step */, GROUP = 64 /* keys whose weights share a step */ };

/* Tile registers: the sums of high and low bytes, an A tile of each and a B tile, and these for a
 * last step of less than DEPTH fours. Macros, as the intrinsics paste the number. */
#define SUM_HIGH   0
#define SUM_LOW    1
#define HIGH       2
#define LOW        3
#define RIGHT      4
#define LAST_HIGH  5
#define LAST_LOW   6
#define LAST_RIGHT 7

static void shape_tiles(int64_t rows, int64_t fours)
{
    int64_t rest = fours % DEPTH ? fours % DEPTH : DEPTH;
    struct tile_shapes t = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) {
        int is_last_left = i == LAST_HIGH || i == LAST_LOW;
        t.row_bytes[i] = (uint16_t)(is_last_left ? rest * FOUR : ROW_BYTES);
        t.rows[i] = (uint8_t)(i == RIGHT ? DEPTH : i == LAST_RIGHT ? rest : rows);
    }
    load_shapes(&t);
}

struct sums {
    _Alignas(64) int32_t high[ROW_TILE][LANES], low[ROW_TILE][LANES];
};

/* 16 columns: rows of integers, a_step bytes apart, low bytes low bytes after the high ones; b: a
 * panel from some four on. */
static void multiply(struct sums *sum, const char *a, size_t a_step, size_t low, const char *b,
                     int64_t fours)
{
    _tile_zero(SUM_HIGH);
    _tile_zero(SUM_LOW);
    for (; fours >= DEPTH; fours -= DEPTH, a += DEPTH * FOUR, b += DEPTH * PANEL_ROW) {
        _tile_loadd(RIGHT, b, PANEL_ROW);
        _tile_loadd(HIGH, a, a_step);
        _tile_dpbssd(SUM_HIGH, HIGH, RIGHT);
        _tile_loadd(LOW, a + low, a_step);
        _tile_dpbusd(SUM_LOW, LOW, RIGHT);
    }
    if (fours) {
        _tile_loadd(LAST_RIGHT, b, PANEL_ROW);
        _tile_loadd(LAST_HIGH, a, a_step);
        _tile_dpbssd(SUM_HIGH, LAST_HIGH, LAST_RIGHT);
        _tile_loadd(LAST_LOW, a + low, a_step);
        _tile_dpbusd(SUM_LOW, LAST_LOW, LAST_RIGHT);
    }
    _tile_stored(SUM_HIGH, sum->high, LINE);
    _tile_stored(SUM_LOW, sum->low, LINE);
}

VEC vec sum_of(const struct sums *sum, int64_t row)
{
    return v_fma(_mm512_cvtepi32_ps(_mm512_load_si512(sum->high[row])), v_set(256),
                 _mm512_cvtepi32_ps(_mm512_load_si512(sum->low[row])));
}

/* The bytes of 16-bit integers. */
VEC void split(char *high, char *low, __m256i x)
{
    _mm_storeu_si128((__m128i *)(void *)high, _mm256_cvtepi16_epi8(_mm256_srli_epi16(x, 8)));
    _mm_storeu_si128((__m128i *)(void *)low, _mm256_cvtepi16_epi8(x));
}

/* ---- Scores ---- */

static void tile_q(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    int64_t half = 2 * q_stride;
    fix_q_avx512_vnni(q, q_stride, rows, channels);
    for (float *row = q; rows > 0; rows--, row += q_stride) {
        char *to = (char *)row;
        float step = row[q_stride / 2];
        for (int64_t c = 0; c < channels; c += LANES)
            split(to + c, to + half + c, _mm256_loadu_si256((const __m256i *)(void *)(to + 2 * c)));
        row[q_stride - 1] = step;
    }
}

/* A four of channels is one lane of 32 bits, so the transposition is that of f32. */
static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    struct k_panel panel = k_panel(channels);
    for (int64_t j = first; j < last; j += LANES) {
        char *to = (char *)panels + j / COLUMN_TILE * panel.bytes + j % COLUMN_TILE * FOUR;
        for (int64_t c = 0; c < channels; c += LINE) {
            int64_t n = channels - c < LINE ? channels - c : LINE;
            __mmask64 there = n < LINE ? (1ull << n) - 1 : ~0ull;
            vec x[LANES];
            for (int i = 0; i < LANES; i++)
                x[i] = j + i < last && k->row[j + i] ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi8(
                                                           there, (const char *)k->row[j + i] + c))
                                                     : v_zero();
            transpose(x);
            for (int64_t i = 0; i < LANES && c / FOUR + i < panel.rows; i++)
                v_store(to + (c / FOUR + i) * PANEL_ROW, RAPT_F32, x[i]);
        }
        put_k_scales(panels, &panel, k, j, last, channels);
    }
}

static void qk(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last)
{
    struct k_panel panel = k_panel(channels);
    const char *base = (const char *)panels + first / COLUMN_TILE * panel.bytes;
    const float *own_step = (const float *)q + q_stride - 1;
    float step[ROW_TILE];
    int infinite = finite_steps(step, own_step, q_stride, rows);
    struct sums sum;
    int64_t block = block_of(base, &panel);
    int64_t block_fours = (block + FOUR - 1) / FOUR;
    shape_tiles(rows, block_fours);
    for (int64_t j = first; j < last; j += LANES) {
        const char *b =
            (const char *)panels + j / COLUMN_TILE * panel.bytes + j % COLUMN_TILE * FOUR;
        for (int64_t c = 0; c < channels; c += block) {
            multiply(&sum, (const char *)q + c, (size_t)q_stride * sizeof(float),
                     2 * (size_t)q_stride, b + c / FOUR * PANEL_ROW, block_fours);
            vec scale = v_load(b + panel.scales + c / block * PANEL_ROW, RAPT_F32),
                none = v_sub(scale, scale); /* NaN where it is infinite: see S23 */
            for (int64_t r = 0; r < rows; r++) {
                vec x = v_mul(sum_of(&sum, r), v_set(step[r]));
                float *to = s + r * s_stride + j;
                v_store(to, RAPT_F32,
                        v_fma(x, scale, c ? v_add(none, v_load(to, RAPT_F32)) : none));
            }
        }
    }
    _tile_release();
    if (infinite) put_infinities(s + first, s_stride, own_step, q_stride, rows, last - first);
}

/* ---- Weighted values ---- */

/* COLUMN_TILE channels of a key, 0 past the last and in rows that are not there. */
VEC __m256i load_value(const struct cpu_rows *v, int64_t j, int64_t first, int64_t last, int64_t c,
                       int64_t channels)
{
    if (j < first || j >= last || !v->row[j]) return _mm256_setzero_si256();
    int64_t n = channels - c < COLUMN_TILE ? channels - c : COLUMN_TILE;
    return _mm256_maskz_loadu_epi8((__mmask32)((1ull << n) - 1), (const char *)v->row[j] + c);
}

/* to [COLUMN_TILE][4]: the rows of four keys, byte by byte in turn. */
VEC void store_fours(char *to, const __m256i x[FOUR])
{
    __m256i a = _mm256_unpacklo_epi8(x[0], x[1]), b = _mm256_unpackhi_epi8(x[0], x[1]),
            c = _mm256_unpacklo_epi8(x[2], x[3]), d = _mm256_unpackhi_epi8(x[2], x[3]);
    /* channels 0 ... 3 and 16 ... 19, and so on */
    __m256i e = _mm256_unpacklo_epi16(a, c), f = _mm256_unpackhi_epi16(a, c),
            g = _mm256_unpacklo_epi16(b, d), h = _mm256_unpackhi_epi16(b, d);
    __m256i *quarter = (__m256i *)(void *)to;
    _mm256_store_si256(quarter, _mm256_permute2x128_si256(e, f, 0x20));
    _mm256_store_si256(quarter + 1, _mm256_permute2x128_si256(g, h, 0x20));
    _mm256_store_si256(quarter + 2, _mm256_permute2x128_si256(e, f, 0x31));
    _mm256_store_si256(quarter + 3, _mm256_permute2x128_si256(g, h, 0x31));
}

static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    struct v_panel panel = v_panel(panel_keys);
    char *to = panels;
    for (int64_t c = 0; c < channels; c += COLUMN_TILE, to += panel.bytes)
        for (int64_t j = first / FOUR * FOUR; j < last; j += FOUR) {
            __m256i x[FOUR];
            for (int i = 0; i < FOUR; i++) x[i] = load_value(v, j + i, first, last, c, channels);
            store_fours(to + j / FOUR * PANEL_ROW, x);
        }
    return put_v_scales(panels, &panel, v, first, last, channels);
}

/* The weights of a group of keys, times the scales of their values. */
struct group_weights {
    float step[ROW_TILE];
    _Alignas(64) char high[ROW_TILE][GROUP], low[ROW_TILE][GROUP];
};

/* Bits of there: keys of the group. */
static void set_weights(struct group_weights *w, const float *p, int64_t p_stride, int64_t rows,
                        const float *scale, uint64_t there)
{
    enum { VECTORS = GROUP / LANES };
    for (int64_t r = 0; r < rows; r++, p += p_stride) {
        vec x[VECTORS], most = v_zero();
        int bad = 0;
        for (int i = 0; i < VECTORS; i++) {
            __mmask16 lanes = (__mmask16)(there >> i * LANES);
            x[i] = v_mul(_mm512_maskz_loadu_ps(lanes, p + i * LANES),
                         _mm512_maskz_loadu_ps(lanes, scale + i * LANES));
            bad |= v_any_nan(x[i]);
            most = v_max(most, v_abs(x[i]));
        }
        struct fixed f = fixed_for(bad ? NAN : v_largest(most), LEVELS);
        w->step[r] = f.step;
        for (int i = 0; i < VECTORS; i++)
            split(w->high[r] + i * LANES, w->low[r] + i * LANES, to_fixed(x[i], &f));
    }
}

static void add_group(float *o, int64_t o_stride, const struct group_weights *w, const char *panel,
                      int64_t rows, int64_t columns, int accumulate)
{
    struct sums sum;
    for (int64_t half = 0; half < columns; half += LANES, o += LANES, panel += LANES * FOUR) {
        multiply(&sum, w->high[0], GROUP, sizeof w->high, panel, DEPTH);
        for (int64_t r = 0; r < rows; r++) {
            float *to = o + r * o_stride;
            vec x = sum_of(&sum, r), step = v_set(w->step[r]);
            v_store(to, RAPT_F32,
                    accumulate ? v_fma(x, step, v_load(to, RAPT_F32)) : v_mul(x, step));
        }
    }
}

/* Groups begin at multiples of GROUP, so that a row's bits do not depend on where its neighbours'
 * keys begin; weights outside of [first, last) are 0 there, whatever the panel holds. */
static void pv(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate)
{
    struct v_panel panel = v_panel(panel_keys);
    struct group_weights w;
    shape_tiles(rows, DEPTH);
    for (int64_t j = first / GROUP * GROUP; j < last; j += GROUP) {
        uint64_t there = ~0ull << (first > j ? first - j : 0);
        if (last - j < GROUP) there &= (1ull << (last - j)) - 1;
        const char *base = panels;
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, base += panel.bytes) {
            if (base[panel.is_new])
                set_weights(&w, p + j, p_stride, rows,
                            (const float *)(const void *)(base + panel.scales) + j, there);
            add_group(o + c, o_stride, &w, base + j / FOUR * PANEL_ROW, rows,
                      channels - c < COLUMN_TILE ? channels - c : COLUMN_TILE,
                      accumulate || j > first);
        }
    }
    _tile_release();
}

const struct cpu_kernels cpu_amx_int8 = {
    .name = "cpu_amx_int8",
    .arch = "amx_int8",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 1,
    .tile_q = tile_q,
    DECODE_SLOTS_VNNI,
};
