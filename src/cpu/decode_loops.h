/* decode_loops.h: decode_qk and decode_pv in f32 arithmetic over a vector vocabulary; included once per instruction set
 * after vec_*.h, by decode_*.c. The including file defines
 *
 *   DECODE_ISA   the suffix: it becomes decode_qk_<suffix> and decode_pv_<suffix> (decode_kernels.h)
 *   DECODE_ROWS  most rows of a tile, 4 or 8; more go by in several passes over the keys of the call
 *
 * QK is a dot product per key and row: a tile keeps rows x keys accumulators and reads each key
 * once. PV keeps rows x columns accumulators over all keys of the call. The scales of I8 rows enter
 * once per dot product and once per weight where a row has one scale, else with each vector. Rows
 * whose channels do not lie side by side are copied to floats first. */
#include "base/dtype.h"
#include "cpu/decode_kernels.h"

enum { GATHER_KEYS = 4, SCALED_KEYS = 64 };

/* Row j as floats, whatever its dtype and stride. */
static void gather_row(float *x, const struct cpu_rows *rows, int64_t j, int64_t channels)
{
    const void *row = rows->row[j];
    for (int64_t c = 0; c < channels; c++)
        if (!row) x[c] = 0;
        else if (rows->dtype == RAPT_I8)
            x[c] = rows->scale[j][c / rows->scale_channels * rows->scale_stride] *
                   ((const int8_t *)row)[channel_offset(rows, c)];
        else x[c] = load_float(row, rows->dtype, channel_offset(rows, c));
}

/* Rows that the loops below cannot read in place: strided, or with scales that change within a
 * vector. */
static int gathered(const struct cpu_rows *rows, int64_t channels)
{
    return rows->channel_stride != 1 || rows->span ||
           (rows->dtype == RAPT_I8 && rows->scale_channels < channels &&
            rows->scale_channels % LANES);
}

VEC int64_t element_size(int dtype)
{
    return dtype == RAPT_F32 ? 4 : dtype == RAPT_I8 ? 1 : 2;
}

/* Of I8 rows with several scales: those of each row from the call's first on, for how many channels one is, and floats
 * from one to the next. row NULL: other rows, or the scales have been applied. */
struct block_scales {
    const float *const *row;
    int64_t channels, stride;
};

/* The scales of up to SCALED_KEYS rows with one scale each; 0 for NULL rows. */
static void gather_scales(float *scale, const struct cpu_rows *rows, int64_t first, int64_t keys)
{
    for (int64_t j = 0; j < keys; j++)
        scale[j] = rows->row[first + j] ? *rows->scale[first + j] : 0;
}

static struct block_scales block_scales_of(const struct cpu_rows *rows, int64_t first,
                                           int64_t channels)
{
    struct block_scales scales = {0};
    if (rows->dtype == RAPT_I8 && rows->scale_channels < channels)
        scales =
            (struct block_scales){rows->scale + first, rows->scale_channels, rows->scale_stride};
    return scales;
}

/* Whether each row has one scale for all of its channels. */
static int has_row_scales(const struct cpu_rows *rows, int64_t channels)
{
    return rows->dtype == RAPT_I8 && rows->scale_channels >= channels;
}

VEC vec scaled(vec x, const struct block_scales *scales, int64_t j, int64_t channel)
{
    return v_mul(x, v_set(scales->row[j][channel / scales->channels * scales->stride]));
}

/* ---- scores ---- */

struct qk_call {
    float *s;
    const float *q;
    int64_t s_stride, q_stride, channels;
    const void *const *row; /* of the tile's first key, as are the scales */
    int64_t offset;         /* bytes, of all rows */
    struct block_scales scales;
};

/* Channels c ... c + LANES - 1 of keys first ... first + count - 1 of a tile. */
VEC void qk_step(const struct qk_call *t, const char *const *k, vec *sum, int dtype, int row_count,
                 int key_count, int first, int count, int blocks, int64_t c)
{
    int64_t size = element_size(dtype);
    vec key[8];
#pragma GCC unroll 8
    for (int j = 0; j < count; j++) {
        key[j] = v_load(k[first + j] + c * size, dtype);
        if (blocks && k[first + j] != decode_zeros)
            key[j] = scaled(key[j], &t->scales, first + j, c);
    }
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++) {
        vec x = v_load(t->q + r * t->q_stride + c, RAPT_F32);
#pragma GCC unroll 8
        for (int j = 0; j < count; j++)
            sum[r * key_count + first + j] = v_fma(key[j], x, sum[r * key_count + first + j]);
    }
}

/* Of three and four rows, the longest keys go by two at a time, and four values: nearer the order of memory. Fewer
 * rows gain nothing by it, more are bound by arithmetic. */
#define FEW_AT_ONCE(dtype, rows) ((dtype) == RAPT_F32 && ((rows) == 3 || (rows) == 4))
enum {
    QK_KEYS_FEW = 2,
    PV_KEYS_FEW = 4,
    FETCH_BURST = 512 /* bytes; of more lines asked for at once, more are dropped */
};

/* So many steps from channel c on. */
VEC void qk_steps(const struct qk_call *t, const char *const *k, vec *sum, int dtype, int row_count,
                  int key_count, int blocks, int64_t c, int steps, struct prefetch *fetch)
{
    const int count = FEW_AT_ONCE(dtype, row_count) ? QK_KEYS_FEW : key_count;
    const int bytes = (int)(count * LANES * element_size(dtype)), all = steps * bytes;
    const int burst = count < key_count && all > FETCH_BURST ? FETCH_BURST : all;
#pragma GCC unroll 8
    for (int first = 0; first < key_count; first += count)
#pragma GCC unroll 16
        for (int i = 0; i < steps; i++) {
            if (i * bytes % burst == 0) prefetch_lines(fetch, burst / FETCH_LINE);
            qk_step(t, k, sum, dtype, row_count, key_count, first, count, blocks, c + i * LANES);
        }
}

/* wanted: keys of the tile that exist; all but t and, in the last tile, wanted are constants.
 * blocks: rows have several scales. Steps are unrolled so that, with 64 or 128 channels, each load
 * instruction walks through memory in equal strides: the first cache's prefetcher goes by
 * instruction. Not of many rows, which are bound by arithmetic. */
VEC void qk_tile(const struct qk_call *t, int dtype, int row_count, int key_count, int blocks,
                 int64_t wanted, struct prefetch *fetch)
{
    enum { SUMS = 16 + LANES, LONG = 128 / LANES, SHORT = 64 / LANES };
    const int unrolled = LANES >= 8 && row_count <= 4 && !blocks;
    vec sum[SUMS];
    const char *k[8];
    float dots[SUMS];
    int64_t c = 0, size = element_size(dtype);
#pragma GCC unroll 32
    for (int i = 0; i < row_count * key_count; i++) sum[i] = v_zero();
#pragma GCC unroll 8
    for (int j = 0; j < key_count; j++)
        k[j] = j < wanted && t->row[j] ? (const char *)t->row[j] + t->offset : decode_zeros;
    for (; unrolled && c + LONG * LANES <= t->channels; c += LONG * LANES)
        qk_steps(t, k, sum, dtype, row_count, key_count, blocks, c, LONG, fetch);
    if (unrolled && c + SHORT * LANES <= t->channels) {
        qk_steps(t, k, sum, dtype, row_count, key_count, blocks, c, SHORT, fetch);
        c += SHORT * LANES;
    }
    for (; c + LANES <= t->channels; c += LANES) {
        prefetch_step(fetch, c / LANES, (int)(key_count * LANES * size));
        qk_step(t, k, sum, dtype, row_count, key_count, 0, key_count, blocks, c);
    }
    if (c < t->channels)
#pragma GCC unroll 8
        for (int r = 0; r < row_count; r++) {
            vec x = v_load_part(t->q + r * t->q_stride + c, RAPT_F32, t->channels - c);
#pragma GCC unroll 8
            for (int j = 0; j < key_count; j++) {
                vec key = v_load_part(k[j] + c * size, dtype, t->channels - c);
                if (blocks && k[j] != decode_zeros) key = scaled(key, &t->scales, j, c);
                sum[r * key_count + j] = v_fma(key, x, sum[r * key_count + j]);
            }
        }
#pragma GCC unroll 32
    for (int i = row_count * key_count; i % LANES; i++) sum[i] = v_zero();
#pragma GCC unroll 32
    for (int i = 0; i < row_count * key_count; i += LANES)
        v_store(dots + i, RAPT_F32, v_sums(sum + i));
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
        if (wanted >= key_count)
            memcpy(t->s + r * t->s_stride, dots + r * key_count, (size_t)key_count * sizeof(float));
        else
            for (int64_t j = 0; j < wanted; j++)
                t->s[r * t->s_stride + j] = dots[r * key_count + j];
}

/* Keys of a tile for so many rows: accumulators fill the registers, and there are enough of them to
 * hide an FMA's latency. */
#define QK_KEYS(rows) ((rows) == 1 ? 8 : (rows) == 2 || ACCUMULATORS / (rows) >= 4 ? 4 : 2)

VEC void qk_rows(struct qk_call t, int dtype, int row_count, int blocks, int64_t keys,
                 const struct cpu_ahead *ahead)
{
    const int key_count = QK_KEYS(row_count);
    struct prefetch fetch = prefetch_of(ahead);
    int64_t j = 0;
    for (; j + key_count <= keys; j += key_count) {
        qk_tile(&t, dtype, row_count, key_count, blocks, key_count, &fetch);
        t.row += key_count;
        t.s += key_count;
        if (blocks) t.scales.row += key_count;
    }
    if (j < keys) qk_tile(&t, dtype, row_count, key_count, blocks, keys - j, &fetch);
    prefetch_rest(&fetch);
}

/* Each number of rows and each type has a function of its own: in one function of them all, the compiler keeps
 * what they share on the stack. */
#define OF_TYPES(X, count)                                                                         \
    X(count, f32, RAPT_F32, 0)                                                                     \
    X(count, f16, RAPT_F16, 0)                                                                     \
    X(count, bf16, RAPT_BF16, 0) X(count, i8, RAPT_I8, 0) X(count, i8_blocks, RAPT_I8, 1)
#if DECODE_ROWS > 4
#define OF_ROWS(X)                                                                                 \
    OF_TYPES(X, 1)                                                                                 \
    OF_TYPES(X, 2)                                                                                 \
    OF_TYPES(X, 3)                                                                                 \
    OF_TYPES(X, 4) OF_TYPES(X, 5) OF_TYPES(X, 6) OF_TYPES(X, 7) OF_TYPES(X, 8)
#else
#define OF_ROWS(X) OF_TYPES(X, 1) OF_TYPES(X, 2) OF_TYPES(X, 3) OF_TYPES(X, 4)
#endif
enum { TYPES = 5 };
_Static_assert(RAPT_F16 == RAPT_F32 + 1 && RAPT_BF16 == RAPT_F32 + 2 && RAPT_I8 == RAPT_F32 + 3,
               "types in their order");

/* The place of so many rows' function in a table of them all. */
static int64_t of_rows(int64_t rows, int64_t dtype, int blocks)
{
    return ((rows < DECODE_ROWS ? rows : DECODE_ROWS) - 1) * TYPES + dtype - RAPT_F32 + blocks;
}

#define QK_FUNCTION(count, name, dtype, blocks)                                                    \
    static void qk_##name##_##count(const struct qk_call *t, int64_t keys,                         \
                                    const struct cpu_ahead *ahead)                                 \
    {                                                                                              \
        qk_rows(*t, dtype, count, blocks, keys, ahead);                                            \
    }
OF_ROWS(QK_FUNCTION)

/* Any number of rows, in tiles; the keys of the call stay in the first cache meanwhile. */
static void qk_all_rows(struct qk_call t, int64_t dtype, int64_t rows, int64_t keys,
                        const struct cpu_ahead *ahead)
{
#define QK_ENTRY(count, name, dtype, blocks) qk_##name##_##count,
    static void (*const qk[])(const struct qk_call *, int64_t,
                              const struct cpu_ahead *) = {OF_ROWS(QK_ENTRY)};
    for (; rows > 0; rows -= DECODE_ROWS) {
        qk[of_rows(rows, dtype, !!t.scales.row)](&t, keys, ahead);
        t.q += DECODE_ROWS * t.q_stride;
        t.s += DECODE_ROWS * t.s_stride;
        ahead = 0;
    }
}

#define DECODE_QK_OF(isa) DECODE_QK(isa)
#define DECODE_PV_OF(isa) DECODE_PV(isa)

/* I8 rows with one scale each: the scale of a dot product. An infinite one makes NaN, as the products
 * of an infinity with numbers of both signs do. */
static void scale_scores(float *s, int64_t s_stride, const struct cpu_rows *k, int64_t rows,
                         int64_t first, int64_t last)
{
    float scale[SCALED_KEYS];
    for (; first < last; first += SCALED_KEYS) {
        int64_t keys = last - first < SCALED_KEYS ? last - first : SCALED_KEYS;
        gather_scales(scale, k, first, keys);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < keys; j++) {
                float *x = s + r * s_stride + first + j;
                *x = *x * scale[j] + (scale[j] - scale[j]);
            }
    }
}

static struct qk_call qk_call_of(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                                 const struct cpu_rows *k, int64_t channels, int64_t first)
{
    return (struct qk_call){.s = s + first,
                            .q = q,
                            .s_stride = s_stride,
                            .q_stride = q_stride,
                            .channels = channels,
                            .row = k->row + first,
                            .scales = block_scales_of(k, first, channels)};
}

DECODE_QK_OF(DECODE_ISA)
{
    struct qk_call t = qk_call_of(s, s_stride, q, q_stride, k, channels, first);
    if (!gathered(k, channels)) {
        qk_all_rows(t, k->dtype, rows, last - first, ahead);
        if (has_row_scales(k, channels)) scale_scores(s, s_stride, k, rows, first, last);
        return;
    }
    t.scales.row = 0;
    _Alignas(64) float x[GATHER_KEYS][DECODE_CHANNELS_MAX];
    const void *row[GATHER_KEYS] = {x[0], x[1], x[2], x[3]};
    t.row = row;
    for (int64_t j = first; j < last; j += GATHER_KEYS, t.s += GATHER_KEYS) {
        int64_t keys = last - j < GATHER_KEYS ? last - j : GATHER_KEYS;
        for (int64_t i = 0; i < keys; i++) gather_row(x[i], k, j + i, channels);
        qk_all_rows(t, RAPT_F32, rows, keys, 0);
    }
}

/* ---- weighted values ---- */

struct pv_call {
    float *o;
    const float *p;
    int64_t o_stride, p_stride;
    const void *const *row;
    int64_t offset; /* bytes, of all rows */
    int64_t keys, channels;
    const struct cpu_ahead *ahead;
    struct prefetch fetch;
    struct block_scales scales;
};

/* Columns channel ... channel + LANES * vectors - 1; part: how many of a single vector, 0 for all.
 */
VEC void pv_tile(struct pv_call *t, int dtype, int row_count, int vectors, int blocks,
                 int64_t channel, int64_t part)
{
    vec sum[8][8];
    int64_t size = element_size(dtype), at = t->offset + channel * size;
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++) {
            const float *o = t->o + r * t->o_stride + channel + i * LANES;
            sum[r][i] = part ? v_load_part(o, RAPT_F32, part) : v_load(o, RAPT_F32);
        }
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j++) {
        vec value[8];
        const char *row = t->row[j];
        if (!part) prefetch_step(&fetch, j, (int)(vectors * LANES * size));
        if (!row) continue;
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++) {
            value[i] = part ? v_load_part(row + at, dtype, part)
                            : v_load(row + at + i * LANES * size, dtype);
            if (blocks) value[i] = scaled(value[i], &t->scales, j, channel + i * LANES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < row_count; r++) {
            vec p = v_set(t->p[r * t->p_stride + j]);
#pragma GCC unroll 8
            for (int i = 0; i < vectors; i++) sum[r][i] = v_fma(p, value[i], sum[r][i]);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 8
        for (int i = 0; i < vectors; i++) {
            float *o = t->o + r * t->o_stride + channel + i * LANES;
            if (part) v_store_part(o, RAPT_F32, sum[r][i], part);
            else v_store(o, RAPT_F32, sum[r][i]);
        }
}

#define PV_VECTORS(rows) (ACCUMULATORS / (rows) >= 8 ? 8 : ACCUMULATORS / (rows) >= 4 ? 4 : 2)

/* All channels of t->keys keys. */
VEC void pv_window(struct pv_call *t, int dtype, int row_count, int blocks)
{
    const int vectors = PV_VECTORS(row_count);
    int64_t c = 0;
    for (; c + LANES * vectors <= t->channels; c += LANES * vectors)
        pv_tile(t, dtype, row_count, vectors, blocks, c, 0);
    for (; c + LANES <= t->channels; c += LANES) pv_tile(t, dtype, row_count, 1, blocks, c, 0);
    if (c < t->channels) pv_tile(t, dtype, row_count, 1, blocks, c, t->channels - c);
}

/* A few keys at a time: what lies between the channels of a tile is read soon after them, near the
 * order of memory. */
VEC void pv_rows(struct pv_call t, int dtype, int row_count, int blocks)
{
    const int64_t window = FEW_AT_ONCE(dtype, row_count) ? PV_KEYS_FEW : PV_KEYS;
    t.fetch = prefetch_of(t.ahead);
    for (int64_t keys = t.keys; keys > 0; keys -= window, t.row += window, t.p += window) {
        t.keys = keys < window ? keys : window;
        pv_window(&t, dtype, row_count, blocks);
        if (blocks) t.scales.row += window;
    }
    prefetch_rest(&t.fetch);
}

#define PV_FUNCTION(count, name, dtype, blocks)                                                    \
    static void pv_##name##_##count(const struct pv_call *t)                                       \
    {                                                                                              \
        pv_rows(*t, dtype, count, blocks);                                                         \
    }
OF_ROWS(PV_FUNCTION)

static void pv_all_rows(struct pv_call t, int64_t dtype, int64_t rows)
{
#define PV_ENTRY(count, name, dtype, blocks) pv_##name##_##count,
    static void (*const pv[])(const struct pv_call *) = {OF_ROWS(PV_ENTRY)};
    for (; rows > 0; rows -= DECODE_ROWS) {
        pv[of_rows(rows, dtype, !!t.scales.row)](&t);
        t.o += DECODE_ROWS * t.o_stride;
        t.p += DECODE_ROWS * t.p_stride;
        t.ahead = 0;
    }
}

/* Weights of up to SCALED_KEYS keys times the scale of each, so that values stay as they lie in
 * memory. */
static void scale_weights(float *to, const float *p, int64_t p_stride, int64_t rows,
                          const struct cpu_rows *v, int64_t first, int64_t keys)
{
    float scale[SCALED_KEYS];
    gather_scales(scale, v, first, keys);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < keys; j++)
            to[r * SCALED_KEYS + j] = p[r * p_stride + first + j] * scale[j];
}

/* I8 rows with one scale each. */
static void pv_scaled(struct pv_call t, const struct cpu_rows *v, const float *p, int64_t rows,
                      int64_t first, int64_t last)
{
    float weights[DECODE_ROWS * SCALED_KEYS];
    int64_t p_stride = t.p_stride;
    t.p_stride = SCALED_KEYS;
    t.p = weights;
    for (; first < last; first += SCALED_KEYS, t.row += SCALED_KEYS) {
        t.keys = last - first < SCALED_KEYS ? last - first : SCALED_KEYS;
        float *o = t.o;
        for (int64_t r = 0; r < rows; r += DECODE_ROWS, t.o += DECODE_ROWS * t.o_stride) {
            int64_t tile = rows - r < DECODE_ROWS ? rows - r : DECODE_ROWS;
            scale_weights(weights, p + r * p_stride, p_stride, tile, v, first, t.keys);
            pv_all_rows(t, RAPT_I8, tile);
            if (r) continue;
            t.ahead = 0;
        }
        t.o = o;
    }
}

static struct pv_call pv_call_of(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                                 const struct cpu_rows *v, int64_t channels, int64_t first,
                                 int64_t last, const struct cpu_ahead *ahead)
{
    return (struct pv_call){.o = o,
                            .p = p + first,
                            .o_stride = o_stride,
                            .p_stride = p_stride,
                            .row = v->row + first,
                            .keys = last - first,
                            .channels = channels,
                            .ahead = ahead,
                            .scales = block_scales_of(v, first, channels)};
}

DECODE_PV_OF(DECODE_ISA)
{
    struct pv_call t = pv_call_of(o, o_stride, p, p_stride, v, channels, first, last, ahead);
    if (has_row_scales(v, channels) && v->channel_stride == 1) {
        pv_scaled(t, v, p, rows, first, last);
        return;
    }
    if (!gathered(v, channels)) {
        pv_all_rows(t, v->dtype, rows);
        return;
    }
    t.scales.row = 0;
    _Alignas(64) float x[GATHER_KEYS][DECODE_CHANNELS_MAX];
    const void *row[GATHER_KEYS];
    t.row = row;
    t.ahead = 0;
    for (int64_t j = first; j < last; j += GATHER_KEYS, t.p += GATHER_KEYS) {
        t.keys = last - j < GATHER_KEYS ? last - j : GATHER_KEYS;
        for (int64_t i = 0; i < t.keys; i++) {
            row[i] = v->row[j + i] ? x[i] : 0;
            gather_row(x[i], v, j + i, channels);
        }
        pv_all_rows(t, RAPT_F32, rows);
    }
}
