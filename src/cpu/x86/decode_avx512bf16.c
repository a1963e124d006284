/* decode_avx512bf16.c: the decode kernels for AVX-512 BF16: dot products of bf16 pairs, summed in
 * f32. A K row is a row of pairs as it lies in memory; V rows are taken two by two and interleaved
 * in registers. q and p are bf16 (pair = 2 of kernels.h). Rows whose channels do not lie side by
 * side are copied first. */
#include "base/dtype.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/vec_avx512.h"

#include <string.h>

enum { GATHER_KEYS = 4, STEP = 32, ROWS = 8 };
/* Each number of rows has a function of its own (decode_loops.h). */
_Static_assert((int)ROWS == 8, "the longest list");
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

/* By elements of 16 bits: of others, gcc 12 passes some through memory. */
VEC __m512bh load_pairs(const void *p)
{
    return (__m512bh)_mm512_loadu_epi16(p);
}
VEC __m512bh load_pairs_part(const void *p, int64_t n)
{
    return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
}

/* ---- scores ---- */

struct qk_call {
    float *s;
    const uint16_t *q;
    int64_t s_stride, q_stride, channels; /* q_stride in elements */
    const void *const *row;
    int64_t offset; /* bytes, of all rows */
};

/* Channels c ... c + STEP - 1 of keys first ... first + count - 1 of a tile. */
VEC void qk_step(const struct qk_call *t, const uint16_t *const *k, vec *sum, int row_count,
                 int key_count, int first, int count, int64_t c)
{
    __m512bh key[8];
#pragma GCC unroll 8
    for (int j = 0; j < count; j++) key[j] = load_pairs(k[first + j] + c);
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++) {
        /* Rows of q, loaded all at once, would take the registers of sums. */
        __asm__ volatile("" ::: "memory");
        __m512bh x = load_pairs(t->q + r * t->q_stride + c);
#pragma GCC unroll 8
        for (int j = 0; j < count; j++)
            sum[r * key_count + first + j] =
                _mm512_dpbf16_ps(sum[r * key_count + first + j], key[j], x);
    }
}

/* So many steps from channel c on; of four rows, two keys at a time, near the order of memory. */
VEC void qk_steps(const struct qk_call *t, const uint16_t *const *k, vec *sum, int row_count,
                  int key_count, int64_t c, int steps, struct prefetch *fetch)
{
    const int count = row_count == 4 ? 2 : key_count;
#pragma GCC unroll 2
    for (int first = 0; first < key_count; first += count)
#pragma GCC unroll 4
        for (int i = 0; i < steps; i++) {
            prefetch_lines(fetch, count);
            qk_step(t, k, sum, row_count, key_count, first, count, c + i * STEP);
        }
}

/* Steps are unrolled so that, with 64 or 128 channels, each load instruction walks through memory
 * in equal strides: the first cache's prefetcher goes by instruction. */
VEC void qk_tile(const struct qk_call *t, int row_count, int key_count, int64_t wanted,
                 struct prefetch *fetch)
{
    vec sum[LANES];
    const uint16_t *k[8];
    float dots[LANES];
    int64_t c = 0;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) sum[i] = v_zero();
#pragma GCC unroll 8
    for (int j = 0; j < key_count; j++)
        k[j] = (const uint16_t *)(const void *)(j < wanted && t->row[j]
                                                    ? (const char *)t->row[j] + t->offset
                                                    : decode_zeros);
    for (; c + 4 * STEP <= t->channels; c += 4 * STEP)
        qk_steps(t, k, sum, row_count, key_count, c, 4, fetch);
    if (c + 2 * STEP <= t->channels) {
        qk_steps(t, k, sum, row_count, key_count, c, 2, fetch);
        c += 2 * STEP;
    }
    if (c + STEP <= t->channels) {
        prefetch_lines(fetch, key_count);
        qk_step(t, k, sum, row_count, key_count, 0, key_count, c);
        c += STEP;
    }
    if (c < t->channels)
#pragma GCC unroll 8
        for (int r = 0; r < row_count; r++) {
            __m512bh x = load_pairs_part(t->q + r * t->q_stride + c, t->channels - c);
#pragma GCC unroll 8
            for (int j = 0; j < key_count; j++)
                sum[r * key_count + j] = _mm512_dpbf16_ps(
                    sum[r * key_count + j], load_pairs_part(k[j] + c, t->channels - c), x);
        }
    v_store(dots, RAPT_F32, v_sums(sum));
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
        if (wanted >= key_count)
            memcpy(t->s + r * t->s_stride, dots + r * key_count, (size_t)key_count * sizeof(float));
        else
            for (int64_t j = 0; j < wanted; j++)
                t->s[r * t->s_stride + j] = dots[r * key_count + j];
}

#define QK_KEYS(rows) ((rows) == 1 ? 8 : (rows) <= 4 ? 4 : 2)

VEC void qk_rows(struct qk_call t, int row_count, int64_t keys, const struct cpu_ahead *ahead)
{
    const int key_count = QK_KEYS(row_count);
    struct prefetch fetch = prefetch_of(ahead);
    int64_t j = 0;
    for (; j + key_count <= keys; j += key_count, t.row += key_count, t.s += key_count)
        qk_tile(&t, row_count, key_count, key_count, &fetch);
    if (j < keys) qk_tile(&t, row_count, key_count, keys - j, &fetch);
    prefetch_rest(&fetch);
}

#define QK_FUNCTION(count)                                                                         \
    static void qk_##count(const struct qk_call *t, int64_t keys, const struct cpu_ahead *ahead)   \
    {                                                                                              \
        qk_rows(*t, count, keys, ahead);                                                           \
    }
EACH_ROWS(QK_FUNCTION)

static void qk_all_rows(struct qk_call t, int64_t rows, int64_t keys, const struct cpu_ahead *ahead)
{
#define QK_ENTRY(count) qk_##count,
    static void (*const qk[ROWS])(const struct qk_call *, int64_t,
                                  const struct cpu_ahead *) = {EACH_ROWS(QK_ENTRY)};
    for (; rows > 0; rows -= ROWS, t.q += ROWS * t.q_stride, t.s += ROWS * t.s_stride) {
        qk[(rows < ROWS ? rows : ROWS) - 1](&t, keys, ahead);
        ahead = NULL;
    }
}

static struct qk_call qk_call_of(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                                 const struct cpu_rows *k, int64_t channels, int64_t first)
{
    return (struct qk_call){.s = s + first,
                            .q = q,
                            .s_stride = s_stride,
                            .q_stride = 2 * q_stride,
                            .channels = channels,
                            .row = k->row + first};
}

DECODE_QK(avx512_bf16)
{
    struct qk_call t = qk_call_of(s, s_stride, q, q_stride, k, channels, first);
    if (k->channel_stride == 1 && !k->span) {
        qk_all_rows(t, rows, last - first, ahead);
        return;
    }
    _Alignas(64) uint16_t x[GATHER_KEYS][DECODE_CHANNELS_MAX];
    const void *row[GATHER_KEYS] = {x[0], x[1], x[2], x[3]};
    t.row = row;
    for (int64_t j = first; j < last; j += GATHER_KEYS, t.s += GATHER_KEYS) {
        int64_t keys = last - j < GATHER_KEYS ? last - j : GATHER_KEYS;
        for (int64_t i = 0; i < keys; i++) gather_bf16_row(x[i], k, j + i, channels);
        qk_all_rows(t, rows, keys, NULL);
    }
}

/* ---- weighted values ---- */

struct pv_call {
    float *o;
    const uint16_t *p;
    int64_t o_stride, p_stride; /* p_stride in elements */
    const void *const *row;
    int64_t offset; /* bytes, of all rows */
    int64_t keys, channels;
    const struct cpu_ahead *ahead;
    struct prefetch fetch;
};

/* Columns channel ... channel + 32 * doubles - 1; part: how many of a single double, 0 for all. */
VEC void pv_tile(struct pv_call *t, int row_count, int doubles, int64_t channel, int64_t part)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    __mmask32 wanted = part ? (__mmask32)((1ull << part) - 1) : ~(__mmask32)0;
    vec sum[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 8
        for (int i = 0; i < 2 * doubles; i++) {
            const float *o = t->o + r * t->o_stride + channel + i * LANES;
            sum[r][i] = part ? _mm512_maskz_loadu_ps((__mmask16)(wanted >> i * 16), o)
                             : v_load(o, RAPT_F32);
        }
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j += 2) {
        const char *one = t->row[j], *other = j + 1 < t->keys ? t->row[j + 1] : NULL;
        const uint16_t *row = (const void *)(one ? one + t->offset : NULL),
                       *second = (const void *)(other ? other + t->offset : NULL);
        prefetch_lines(&fetch, 2 * doubles);
        if (!row && !second) continue;
        if (!row) row = (const uint16_t *)decode_zeros;
        if (!second) second = (const uint16_t *)decode_zeros;
        __m512bh value[8];
#pragma GCC unroll 4
        for (int i = 0; i < doubles; i++) {
            __m512i a = (__m512i)load_pairs_part(row + channel, part),
                    b = (__m512i)load_pairs_part(second + channel, part);
            if (!part) {
                a = _mm512_loadu_si512(row + channel + i * STEP);
                b = _mm512_loadu_si512(second + channel + i * STEP);
            }
            value[2 * i] = (__m512bh)_mm512_permutex2var_epi16(a, low, b);
            value[2 * i + 1] = (__m512bh)_mm512_permutex2var_epi16(a, high, b);
        }
#pragma GCC unroll 8
        for (int r = 0; r < row_count; r++) {
            uint32_t pair;
            memcpy(&pair, t->p + r * t->p_stride + j, sizeof pair);
            __m512bh p = (__m512bh)_mm512_set1_epi32((int)pair);
#pragma GCC unroll 8
            for (int i = 0; i < 2 * doubles; i++)
                sum[r][i] = _mm512_dpbf16_ps(sum[r][i], p, value[i]);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 8
        for (int i = 0; i < 2 * doubles; i++) {
            float *o = t->o + r * t->o_stride + channel + i * LANES;
            if (part) _mm512_mask_storeu_ps(o, (__mmask16)(wanted >> i * 16), sum[r][i]);
            else v_store(o, RAPT_F32, sum[r][i]);
        }
}

#define PV_DOUBLES(rows) ((rows) <= 2 ? 4 : (rows) <= 4 ? 2 : 1)

/* All channels of t->keys keys. */
VEC void pv_window(struct pv_call *t, int row_count)
{
    const int doubles = PV_DOUBLES(row_count);
    int64_t c = 0;
    for (; c + STEP * doubles <= t->channels; c += STEP * doubles)
        pv_tile(t, row_count, doubles, c, 0);
    for (; c + STEP <= t->channels; c += STEP) pv_tile(t, row_count, 1, c, 0);
    if (c < t->channels) pv_tile(t, row_count, 1, c, t->channels - c);
}

/* A few keys at a time: what lies between the channels of a tile is read soon after them, near the
 * order of memory. */
VEC void pv_rows(struct pv_call t, int row_count)
{
    t.fetch = prefetch_of(t.ahead);
    for (int64_t keys = t.keys; keys > 0; keys -= PV_KEYS, t.row += PV_KEYS, t.p += PV_KEYS) {
        t.keys = keys < PV_KEYS ? keys : PV_KEYS;
        pv_window(&t, row_count);
    }
    prefetch_rest(&t.fetch);
}

#define PV_FUNCTION(count)                                                                         \
    static void pv_##count(const struct pv_call *t)                                                \
    {                                                                                              \
        pv_rows(*t, count);                                                                        \
    }
EACH_ROWS(PV_FUNCTION)

static void pv_all_rows(struct pv_call t, int64_t rows)
{
#define PV_ENTRY(count) pv_##count,
    static void (*const pv[ROWS])(const struct pv_call *) = {EACH_ROWS(PV_ENTRY)};
    for (; rows > 0; rows -= ROWS, t.o += ROWS * t.o_stride, t.p += ROWS * t.p_stride) {
        pv[(rows < ROWS ? rows : ROWS) - 1](&t);
        t.ahead = NULL;
    }
}

static struct pv_call pv_call_of(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                                 const struct cpu_rows *v, int64_t channels, int64_t first,
                                 int64_t last, const struct cpu_ahead *ahead)
{
    return (struct pv_call){.o = o,
                            .p = (const uint16_t *)p + first,
                            .o_stride = o_stride,
                            .p_stride = 2 * p_stride,
                            .row = v->row + first,
                            .keys = last - first,
                            .channels = channels,
                            .ahead = ahead};
}

DECODE_PV(avx512_bf16)
{
    struct pv_call t = pv_call_of(o, o_stride, p, p_stride, v, channels, first, last, ahead);
    if (v->channel_stride == 1 && !v->span) {
        pv_all_rows(t, rows);
        return;
    }
    _Alignas(64) uint16_t x[GATHER_KEYS][DECODE_CHANNELS_MAX];
    const void *row[GATHER_KEYS];
    t.row = row;
    t.ahead = NULL;
    for (int64_t j = first; j < last; j += GATHER_KEYS, t.p += GATHER_KEYS) {
        t.keys = last - j < GATHER_KEYS ? last - j : GATHER_KEYS;
        for (int64_t i = 0; i < t.keys; i++) {
            row[i] = v->row[j + i] ? x[i] : NULL;
            gather_bf16_row(x[i], v, j + i, channels);
        }
        pv_all_rows(t, rows);
    }
}

/* ---- several heads ---- */

#define DECODE_ISA avx512_bf16
#define HEADS_TILE(t, dtype, rows, keys, wanted, fetch)                                            \
    ((void)(dtype), qk_tile(t, rows, keys, wanted, fetch))
#define HEADS_WINDOW(t, dtype, rows) ((void)(dtype), pv_window(t, rows))
#define HEADS_TYPES(X, rows)         X(rows, bf16, RAPT_BF16)
#define HEADS_FIRST_TYPE             RAPT_BF16
#include "cpu/decode_heads_loops.h"
