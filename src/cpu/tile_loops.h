/* tile_loops.h: the slots of struct cpu_kernels for prefill over a vector vocabulary: rows to and from f32, packing,
 * scores and softmax (softmax_loops.h), products in register tiles. Included once per instruction set after vec_*.h, by
 * tiles_*.c, which then fills its table with CPU_TILE_SLOTS and CPU_PACK_SLOTS (kernels.h).
 *
 * The including file defines, as constants of an enum:
 *
 *   ROW_TILE, COLUMN_TILE      as in struct cpu_kernels; a tile is ROW_TILE x COLUMN_TILE sums, COLUMN_TILE = 2 * LANES
 *
 * as macros:
 *
 *   TILE_PAIR                  1 or 2, as pair of struct cpu_kernels; with 2 the file packs q, K and V itself
 *   TILE_ROWS(X)               X(1) ... X(ROW_TILE)
 *   TILE_MULTIPLY_ADD(a, b, c) a b + c by lanes, or c + the sum of both products of a pair
 *   TILE_HIDE(s, mask, n)      s with -inf in the lanes whose mask byte is 0; n bytes may be read
 *   TILE_I8(p, n)              n signed bytes as floats
 *   TILE_EXP2(x)               2^x by lanes, for x <= 0, -inf and NaN
 *   TILE_STORE(s, j, p0, p1)   p of columns j ... j + 2 * LANES - 1 in the level's format
 *   TILE_CLEAR(s, first, last) the same for zeros
 *   TILE_AHEAD                 if defined: rows of a panel between the one that is multiplied and the one asked for
 *   TILE_TOGETHER              if defined: vectors of a row, an even number up to 8, whose 2^x v_exp2_several computes
 *                              at once; v_sums and v_maxima then reduce all rows at once
 *
 * and a function or macro transpose(vec x[LANES]). */
#include "cpu/dtype_cases.h"
#include "cpu/scalar/scalar.h"
#include "cpu/vec_math.h"

#include <math.h>
#include <string.h>

enum { CACHE_LINE = 64, KEYS_AHEAD = 32 };
#ifdef TILE_AHEAD
enum { PANEL_AHEAD = TILE_AHEAD };
#else
enum { PANEL_AHEAD = 0 };
#endif
enum { PAIR = TILE_PAIR, EXACT_INTEGERS = 1 << 24 }; /* integers up to here are exact in f32 */

VEC const char *element_at(const void *p, int dtype, int64_t i)
{
    return (const char *)p + i * (dtype == RAPT_F32 ? 4 : dtype == RAPT_I8 ? 1 : 2);
}

/* Lanes of channels c ... of key j, 0 past channels and in NULL rows. */
VEC vec load_channels(const struct cpu_rows *rows, int64_t j, int64_t c, int64_t channels,
                      int dtype)
{
    const void *row = rows->row[j];
    if (!row) return v_zero();
    const char *p = element_at(row, dtype, c);
    int64_t n = channels - c < LANES ? channels - c : LANES;
    if (dtype == RAPT_I8)
        return v_mul(TILE_I8(p, n),
                     v_set(rows->scale[j][c / rows->scale_channels * rows->scale_stride]));
    return n == LANES ? v_load(p, dtype) : v_load_part(p, dtype, n);
}

/* Asks for the cache lines of channels first ... last - 1 of key j, which come from memory: only
 * many requests at once hide how long that takes. A line is asked for by its first element, into the second cache:
 * the first has room for fewer. Callers ask twice, as a processor may drop requests. */
VEC void prefetch_channels(const struct cpu_rows *rows, int64_t j, int64_t first, int64_t last,
                           int dtype)
{
    enum { READ = 0, SECOND_CACHE = 2 };
    int64_t line = CACHE_LINE / (dtype == RAPT_F32 ? 4 : dtype == RAPT_I8 ? 1 : 2);
    if (first % line) return;
    for (int64_t c = first; rows->row[j] && c < last; c += line)
        __builtin_prefetch(element_at(rows->row[j], dtype, c), READ, SECOND_CACHE);
}

/* The same of keys low ... high - 1 that come before last. */
VEC void prefetch_keys(const struct cpu_rows *rows, int64_t low, int64_t high, int64_t last,
                       int64_t c, int64_t end, int dtype)
{
    for (int64_t j = low; j < high && j < last; j++) prefetch_channels(rows, j, c, end, dtype);
}

/* Whether load_channels can serve: neighbours in memory, and one scale for a vector of I8. */
static int rows_are_plain(const struct cpu_rows *rows, int64_t channels)
{
    if ((rows->channel_stride != 1 && channels > 1) || rows->span) return 0;
    return rows->dtype != RAPT_I8 || rows->scale_channels >= channels ||
           rows->scale_channels % LANES == 0;
}

/* Loops over rows and vectors of a register tile must vanish, or the tile lives in memory. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

VEC void load_row_as(float *x, const void *row, int64_t channels, int dtype)
{
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        v_store(x + c, RAPT_F32, v_load(element_at(row, dtype, c), dtype));
    if (c < channels)
        v_store_part(x + c, RAPT_F32, v_load_part(element_at(row, dtype, c), dtype, channels - c),
                     channels - c);
}

static void load_row(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels)
{
    if (channel_stride != 1 || dtype == RAPT_I8)
        scalar_load_row(x, row, dtype, channel_stride, channels);
    else if (dtype == RAPT_F32) load_row_as(x, row, channels, RAPT_F32);
    else if (dtype == RAPT_F16) load_row_as(x, row, channels, RAPT_F16);
    else load_row_as(x, row, channels, RAPT_BF16);
}

VEC void store_row_as(void *row, const float *x, float factor, int64_t channels, int dtype)
{
    vec f = v_set(factor);
    int64_t c = 0;
#ifdef V_BF16_CONVERSION
    for (; dtype == RAPT_BF16 && c + 2 * LANES <= channels; c += 2 * LANES)
        v_store_two((char *)element_at(row, dtype, c), dtype, v_mul(f, v_load(x + c, RAPT_F32)),
                    v_mul(f, v_load(x + c + LANES, RAPT_F32)), 0);
#endif
    for (; c + LANES <= channels; c += LANES)
        v_store((char *)element_at(row, dtype, c), dtype, v_mul(f, v_load(x + c, RAPT_F32)));
    if (c < channels)
        v_store_part((char *)element_at(row, dtype, c), dtype,
                     v_mul(f, v_load_part(x + c, RAPT_F32, channels - c)), channels - c);
}

static void store_row(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels)
{
    if (channel_stride != 1) scalar_store_row(row, dtype, channel_stride, x, factor, channels);
    else if (dtype == RAPT_F32) store_row_as(row, x, factor, channels, RAPT_F32);
    else if (dtype == RAPT_F16) store_row_as(row, x, factor, channels, RAPT_F16);
    else store_row_as(row, x, factor, channels, RAPT_BF16);
}

#if TILE_PAIR == 1
static void pack_q(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign)
{
    float *x = q;
    load_row(x, row, dtype, channel_stride, channels);
    if (sign < 0)
        for (int64_t c = 0; c < channels; c++) x[c] = -x[c];
}

/* x * 0 is NaN for NaN and infinity alone, and the sum keeps it. */
VEC int pack_v_as(float *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys, int dtype)
{
    vec probe[2] = {v_zero(), v_zero()};
    for (int64_t j = first; j < last; j++) {
        float *to = panels + j * COLUMN_TILE;
        prefetch_keys(v, j + KEYS_AHEAD, j + KEYS_AHEAD + 1, last, 0, channels, dtype);
        prefetch_keys(v, j + KEYS_AHEAD / 2, j + KEYS_AHEAD / 2 + 1, last, 0, channels, dtype);
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, to += panel_keys * COLUMN_TILE)
            for (int64_t i = 0; i < COLUMN_TILE; i += LANES) {
                vec x = c + i < channels ? load_channels(v, j, c + i, channels, dtype) : v_zero();
                probe[i / LANES % 2] = v_fma(x, v_zero(), probe[i / LANES % 2]);
                v_store(to + i, RAPT_F32, x);
            }
    }
    return v_any_nan(v_add(probe[0], probe[1]));
}

static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    int unusual = 0;
    if (!rows_are_plain(v, channels))
        return scalar_pack_v_panels(panels, v, first, last, channels, panel_keys, COLUMN_TILE, 1);
#define CALL(dtype) unusual = pack_v_as(panels, v, first, last, channels, panel_keys, dtype)
    DATA_CASES(v->dtype, CALL)
#undef CALL
    return unusual;
}
#endif

#include "cpu/softmax_loops.h"

/* ---- K panels ---- */

/* LANES keys from j on, channels c ... c + LANES - 1, transposed. whole: all are there, so that x
 * stays in registers. */
VEC void pack_square(float *to, const struct cpu_rows *k, int64_t j, int64_t last, int64_t c,
                     int64_t channels, int dtype, int whole)
{
    vec x[LANES];
    UNROLL for (int i = 0; i < LANES; i++) x[i] =
        whole          ? v_load(element_at(k->row[j + i], dtype, c), dtype)
        : j + i < last ? load_channels(k, j + i, c, channels, dtype)
                       : v_zero();
    transpose(x);
    UNROLL for (int i = 0; i < LANES; i++) if (whole || c + i < channels)
        v_store(to + i * COLUMN_TILE, RAPT_F32, x[i]);
}

VEC int rows_are_there(const struct cpu_rows *rows, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j++)
        if (!rows->row[j]) return 0;
    return 1;
}

#if TILE_PAIR == 1
VEC void pack_k_as(float *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels, int dtype)
{
    for (int64_t j0 = first; j0 < last; j0 += COLUMN_TILE)
        for (int64_t half = 0; half < COLUMN_TILE && j0 + half < last; half += LANES) {
            float *to = panels + j0 * channels + half;
            int64_t j = j0 + half, c = 0;
            if (dtype != RAPT_I8 && j + LANES <= last && rows_are_there(k, j, j + LANES))
                for (; c + LANES <= channels; c += LANES) {
                    prefetch_keys(k, j + LANES, j + 3 * LANES, last, c, c + LANES, dtype);
                    pack_square(to + c * COLUMN_TILE, k, j, last, c, channels, dtype, 1);
                }
            for (; c < channels; c += LANES)
                pack_square(to + c * COLUMN_TILE, k, j, last, c, channels, dtype, 0);
        }
}

static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    if (!rows_are_plain(k, channels)) {
        scalar_pack_k_panels(panels, k, first, last, channels, COLUMN_TILE, 1);
        return;
    }
#define CALL(dtype) pack_k_as(panels, k, first, last, channels, dtype)
    DATA_CASES(k->dtype, CALL)
#undef CALL
}
#endif

/* ---- Register tiles ---- */

/* The next row of a tile, hidden from the compiler: it would compute the addresses of all rows ahead
 * of the loop and spill them (bf16 of 64 channels: 89 % of the peak, 93 % without). */
VEC float *next_row(float *row, int64_t stride)
{
    row += stride;
    __asm__("" : "+r"(row));
    return row;
}

/* c[rows][vectors] (+)= a[rows][depth] b[depth][COLUMN_TILE] over lanes of 32 bits: f32, or a pair
 * of bf16. rows and vectors are constants after inlining, so that c stays in registers. */
/* clang-format off */
VEC void multiply(int rows, int vectors, float *c, int64_t c_stride, const float *a,
                  int64_t a_stride, const float *b, int64_t depth, int accumulate)
{
    vec sum[ROW_TILE][2];
    float *row = c;
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int w = 0; w < vectors; w++)
            sum[i][w] = accumulate ? v_load(row + w * LANES, RAPT_F32) : v_zero();
        row = next_row(row, c_stride);
    }
    for (int64_t k = 0; k < depth; k++) {
        vec x[2];
        UNROLL for (int w = 0; w < vectors && PANEL_AHEAD > 0; w++)
            __builtin_prefetch(b + (k + PANEL_AHEAD) * COLUMN_TILE + w * LANES);
        UNROLL for (int w = 0; w < vectors; w++)
            x[w] = v_load(b + k * COLUMN_TILE + w * LANES, RAPT_F32);
        UNROLL for (int i = 0; i < rows; i++) {
            vec y = v_set(a[i * a_stride + k]);
            UNROLL for (int w = 0; w < vectors; w++)
                sum[i][w] = TILE_MULTIPLY_ADD(y, x[w], sum[i][w]);
        }
    }
    row = c;
    UNROLL for (int i = 0; i < rows; i++) {
        UNROLL for (int w = 0; w < vectors; w++)
            v_store(row + w * LANES, RAPT_F32, sum[i][w]);
        row = next_row(row, c_stride);
    }
}
/* clang-format on */

typedef void multiply_fn(float *c, int64_t c_stride, const float *a, int64_t a_stride,
                         const float *b, int64_t depth, int accumulate);

#define DEFINE(rows)                                                                               \
    static void half_##rows(float *c, int64_t c_stride, const float *a, int64_t a_stride,          \
                            const float *b, int64_t depth, int accumulate)                         \
    {                                                                                              \
        multiply(rows, 1, c, c_stride, a, a_stride, b, depth, accumulate);                         \
    }                                                                                              \
    static void full_##rows(float *c, int64_t c_stride, const float *a, int64_t a_stride,          \
                            const float *b, int64_t depth, int accumulate)                         \
    {                                                                                              \
        multiply(rows, 2, c, c_stride, a, a_stride, b, depth, accumulate);                         \
    }
TILE_ROWS(DEFINE)
#undef DEFINE

/* By number of rows: half a panel, and a whole one. */
static multiply_fn *const by_half[ROW_TILE + 1] = {
#define ENTRY(rows) [rows] = half_##rows,
    TILE_ROWS(ENTRY)
#undef ENTRY
};
static multiply_fn *const by_full[ROW_TILE + 1] = {
#define ENTRY(rows) [rows] = full_##rows,
    TILE_ROWS(ENTRY)
#undef ENTRY
};

static void qk(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last)
{
    int64_t depth = (channels + PAIR - 1) / PAIR, j = first;
    const float *k = panels;
    for (; j + LANES < last; j += COLUMN_TILE)
        by_full[rows](s + j, s_stride, q, q_stride, k + j * depth, depth, 0);
    if (j < last) by_half[rows](s + j, s_stride, q, q_stride, k + j * depth, depth, 0);
}

static void pv(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate)
{
    const float *v = (const float *)panels + first / PAIR * COLUMN_TILE;
    int64_t depth = (last - first + PAIR - 1) / PAIR, panel = panel_keys / PAIR;
    int64_t c = 0;
    for (; c + LANES < channels; c += COLUMN_TILE)
        by_full[rows](o + c, o_stride, p + first / PAIR, p_stride, v + c * panel, depth,
                      accumulate);
    if (c < channels)
        by_half[rows](o + c, o_stride, p + first / PAIR, p_stride, v + c * panel, depth,
                      accumulate);
}
