/* decode_values_avx512vnni.c: weighted sums of i8 V with AVX-512 VNNI: products of 16-bit integers, summed
 * exactly in 32 bits. V is widened; the weights of a row over KEYS_MAX keys, times the scales of
 * the keys, become 16-bit fixed-point numbers relative to their largest. */
#include "cpu/x86/vnni_avx512.h"

#include <math.h>
#include <string.h>

enum { HALVES = 2 };

/* Weights of ROWS rows and KEYS_MAX keys, for the channels that share their scales; or, where the
 * halves of a line have scales of their own, for both in turn, two keys each. */
struct weights {
    float step[HALVES][ROWS];
    int32_t excess[HALVES][ROWS]; /* what bytes without sign add, negated */
    const void *row[KEYS_MAX];    /* of the keys */
    int small; /* rows whose step is 2^LIFT times what it should be: see set_half */
    _Alignas(64) int16_t p[ROWS][HALVES * KEYS_MAX];
};

/* One group of rows over at most KEYS_MAX keys. */
struct pv_call {
    float *o;
    int64_t o_stride;
    const void *const *row;
    int64_t keys;
    const struct weights *weights;
    struct prefetch fetch;
};

/* Element r: what op makes of the lanes of a[r]. */
#define OF_ROWS(name, op)                                                                          \
    VEC __m128i name(const __m512i a[ROWS])                                                        \
    {                                                                                              \
        __m512i t = _mm512_##op(_mm512_unpacklo_epi32(a[0], a[1]),                                 \
                                _mm512_unpackhi_epi32(a[0], a[1])),                                \
                u = _mm512_##op(_mm512_unpacklo_epi32(a[2], a[3]),                                 \
                                _mm512_unpackhi_epi32(a[2], a[3]));                                \
        t = _mm512_##op(_mm512_unpacklo_epi64(t, u), _mm512_unpackhi_epi64(t, u));                 \
        __m256i v = _mm256_##op(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64(t, 1));       \
        return _mm_##op(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));                \
    }
OF_ROWS(largest_of_rows, max_epi32)
OF_ROWS(sums_of_rows, add_epi32)
#undef OF_ROWS

/* fixed_for of four rows, with the power of two in the factor. The bits of a magnitude order as
 * numbers do, with NaN last. A row that is not finite gets a step of NaN, and integers of 0.
 * Returns the rows, a bit each, whose factor may be too large for a float. */
enum { LIFT = 96 };
VEC int fix_rows(__m128i most, float *factor, float *step)
{
    __mmask8 bad = _mm_cmpgt_epi32_mask(most, _mm_set1_epi32(0x7f7fffff)),
             used = (__mmask8)(_mm_test_epi32_mask(most, most) & ~bad);
    __m128 x = _mm_castsi128_ps(most), levels = _mm_set1_ps(LEVELS),
           mantissa = _mm_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src),
           power = _mm_maskz_getexp_ps(used, x),
           unit = _mm_maskz_scalef_ps(used, _mm_div_ps(mantissa, levels), power);
    _mm_storeu_ps(step, _mm_mask_mov_ps(unit, bad, _mm_set1_ps(NAN)));
    _mm_storeu_ps(factor, _mm_maskz_scalef_ps(used, _mm_div_ps(levels, mantissa),
                                              _mm_sub_ps(_mm_setzero_ps(), power)));
    return _mm_mask_cmplt_epi32_mask(used, most, _mm_set1_epi32((127 - LIFT) << 23));
}

/* p times the scales of the keys, as integers; 0 where a row is NULL, whatever p is there. Returns
 * what fix_rows does. */
VEC int set_half(struct weights *to, int half, __m512i integer[ROWS][2], const float *const p[ROWS],
                 const float *scale, uint64_t there)
{
    enum { VECTORS = KEYS_MAX / LANES };
    vec x[ROWS][VECTORS];
    __m512i most[ROWS], sum[ROWS];
    float factor[ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
        most[r] = sum[r] = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int i = 0; i < VECTORS; i++) {
            __mmask16 lanes = (__mmask16)(there >> i * LANES);
            vec weight = lanes == 0xffff ? _mm512_loadu_ps(p[r] + i * LANES)
                                         : _mm512_maskz_loadu_ps(lanes, p[r] + i * LANES);
            x[r][i] = _mm512_maskz_mul_ps(lanes, weight, _mm512_loadu_ps(scale + i * LANES));
            most[r] = _mm512_max_epi32(most[r], _mm512_castps_si512(v_abs(x[r][i])));
        }
    }
    int small = fix_rows(largest_of_rows(most), factor, to->step[half]);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < VECTORS; i += 2) {
            __m512i a = _mm512_cvtps_epi32(v_mul(x[r][i], v_set(factor[r]))),
                    b = _mm512_cvtps_epi32(v_mul(x[r][i + 1], v_set(factor[r])));
            a = narrow(a, b);
            sum[r] = dot_pairs(sum[r], a, _mm512_set1_epi16(-128));
            integer[r][i / 2] = a;
        }
    _mm_storeu_si128((__m128i *)(void *)to->excess[half], sums_of_rows(sum));
    return small;
}

/* The weights for each half, and its scales, KEYS_MAX of them. */
struct halves {
    const float *p[HALVES][ROWS];
    const float *scale;
    uint64_t there;
};

/* Returns what set_half does; of the second half ROWS bits further. */
VEC int set_halves(struct weights *to, int halves, const struct halves *from, uint64_t there)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0),
                  high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    __m512i x[ROWS][2], y[ROWS][2];
    int small = set_half(to, 0, x, from->p[0], from->scale, there);
    if (halves > 1) small |= set_half(to, 1, y, from->p[1], from->scale + KEYS_MAX, there) << ROWS;
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            int16_t *at = &to->p[r][halves * i * 2 * LANES];
            if (halves == 1) _mm512_store_si512(at, x[r][i]);
            if (halves == 1) continue;
            _mm512_store_si512(at, _mm512_permutex2var_epi32(x[r][i], low, y[r][i]));
            _mm512_store_si512(at + 2 * LANES, _mm512_permutex2var_epi32(x[r][i], high, y[r][i]));
        }
    return small;
}

static int set_all(struct weights *to, int halves, const struct halves *from)
{
    const uint64_t all = ~(uint64_t)0;
    if (halves == 1 && from->there == all) return set_halves(to, 1, from, all);
    if (from->there == all) return set_halves(to, 2, from, all);
    if (halves == 1) return set_halves(to, 1, from, from->there);
    return set_halves(to, 2, from, from->there);
}

/* The rows of set_halves' bits with their weights times 2^LIFT. */
static __attribute__((noinline)) void set_lifted(struct weights *to, int halves,
                                                 const struct halves *from, int small)
{
    float lifted[HALVES][ROWS][KEYS_MAX];
    struct halves higher = *from;
    for (int i = 0; i < HALVES * ROWS; i++) {
        int half = i / ROWS, r = i % ROWS;
        if (!(small >> i & 1)) continue;
        for (int64_t j = 0; j < KEYS_MAX; j++)
            lifted[half][r][j] = from->there >> j & 1 ? from->p[half][r][j] * 0x1p96f : 0;
        higher.p[half][r] = lifted[half][r];
    }
    set_all(to, halves, &higher);
}

/* scale: KEYS_MAX of each half. */
static void set_weights(struct weights *to, int halves, const float *p, int64_t p_stride,
                        int64_t rows, const float *scale, uint64_t there)
{
    struct halves from = {.scale = scale, .there = there};
    for (int r = 0; r < ROWS; r++) from.p[0][r] = from.p[1][r] = p + (r < rows ? r : 0) * p_stride;
    to->small = set_all(to, halves, &from);
    if (__builtin_expect(to->small, 0)) set_lifted(to, halves, &from, to->small);
}

/* The weights of two keys, in every pair of 16-bit integers; of two halves, in turn. */
VEC __m512i two_weights(const struct weights *w, int r, int64_t j, int halves)
{
    int32_t one;
    int64_t both;
    memcpy(&one, &w->p[r][j], sizeof one);
    memcpy(&both, &w->p[r][HALVES * j], sizeof both);
    return halves > 1 ? _mm512_set1_epi64(both) : _mm512_set1_epi32(one);
}

/* A sum of row r at its beginning. */
VEC __m512i less_excess(const struct weights *w, int r, int halves)
{
    __m512i excess = _mm512_set1_epi32(w->excess[0][r]);
    return halves > 1 ? _mm512_mask_set1_epi32(excess, 0xaaaa, w->excess[1][r]) : excess;
}

VEC vec steps(const struct weights *w, int r, int halves)
{
    vec step = v_set(w->step[0][r]);
    return halves > 1 ? _mm512_mask_blend_ps(0xaaaa, step, v_set(w->step[1][r])) : step;
}

/* 2^-LIFT where the step is lifted, else 1. */
VEC vec powers(const struct weights *w, int r, int halves)
{
    vec first = v_set(w->small >> r & 1 ? 0x1p-96f : 1),
        second = v_set(w->small >> (ROWS + r) & 1 ? 0x1p-96f : 1);
    return halves > 1 ? _mm512_mask_blend_ps(0xaaaa, first, second) : first;
}

/* Of halves that differ, pairs of channels of one and of the other in turn, in the order in which
 * natural_halves finds them. */
VEC __m512i load_line(const void *row, int64_t c, int64_t part, int halves)
{
    const __m512i in_turn =
        _mm512_set_epi16(31, 15, 30, 14, 23, 7, 22, 6, 29, 13, 28, 12, 21, 5, 20, 4, 27, 11, 26, 10,
                         19, 3, 18, 2, 25, 9, 24, 8, 17, 1, 16, 0);
    const char *at = (const char *)row + c;
    __m512i x = part ? _mm512_maskz_loadu_epi8((1ull << part) - 1, at) : _mm512_loadu_si512(at);
    if (halves > 1) x = _mm512_permutexvar_epi16(in_turn, x);
    return _mm512_xor_si512(x, _mm512_set1_epi8(-128));
}

/* The order of channels, from sums of which each has every second of 8 neighbours of 16. */
VEC void natural(vec x[4])
{
    vec y[4];
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    /* y[i]: channels 4 i ... 4 i + 3 of each 16. */
    vec a = _mm512_shuffle_f32x4(y[0], y[1], 0x44), b = _mm512_shuffle_f32x4(y[2], y[3], 0x44),
        d = _mm512_shuffle_f32x4(y[0], y[1], 0xee), e = _mm512_shuffle_f32x4(y[2], y[3], 0xee);
    x[0] = _mm512_shuffle_f32x4(a, b, 0x88);
    x[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
    x[2] = _mm512_shuffle_f32x4(d, e, 0x88);
    x[3] = _mm512_shuffle_f32x4(d, e, 0xdd);
}

/* The same of a line whose halves were loaded in turn. */
VEC void natural_halves(vec x[4])
{
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1])),
                b = _mm512_castps_pd(_mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
        x[2 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        x[2 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
    vec y = x[1];
    x[1] = x[2];
    x[2] = y;
}

/* o += the integers of one row. */
VEC void add_line(const struct pv_call *t, const __m512i *sum, int r, int halves, int64_t c,
                  int64_t part)
{
    vec step = steps(t->weights, r, halves), x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) x[i] = _mm512_cvtepi32_ps(sum[i]);
    if (halves > 1 || __builtin_expect(t->weights->small, 0)) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) x[i] = v_mul(x[i], step);
        step = v_set(1);
    }
    if (__builtin_expect(t->weights->small, 0))
        for (int i = 0; i < 4; i++) x[i] = v_mul(x[i], powers(t->weights, r, halves));
    if (halves > 1) natural_halves(x);
    else natural(x);
    uint64_t wanted = part ? (1ull << part) - 1 : ~(uint64_t)0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __mmask16 m = (__mmask16)(wanted >> i * LANES);
        float *o = t->o + r * t->o_stride + c + i * LANES;
        _mm512_mask_storeu_ps(o, m, v_fma(x[i], step, _mm512_maskz_loadu_ps(m, o)));
    }
}

/* Columns c ... c + LINE - 1; part: how many of them, 0 for all. Rows are interleaved by 16 bits,
 * so that each byte of such a pair has its partner of the same channel 16 bits further. */
VEC void pv_line(struct pv_call *t, int row_count, int halves, int64_t c, int64_t part)
{
    const __m512i low = _mm512_set1_epi16(255);
    const struct weights *w = t->weights;
    __m512i sum[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[r][i] = less_excess(w, r, halves);
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j += 2) {
        __m512i x = load_line(t->row[j], c, part, halves),
                y = load_line(t->row[j + 1], c, part, halves); /* zeros past the last */
        __m512i first = _mm512_unpacklo_epi16(x, y), second = _mm512_unpackhi_epi16(x, y);
        __m512i value[4] = {_mm512_and_si512(first, low), _mm512_srli_epi16(first, 8),
                            _mm512_and_si512(second, low), _mm512_srli_epi16(second, 8)};
        prefetch_lines(&fetch, 2);
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            __m512i p = two_weights(w, r, j, halves);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum[r][i] = dot_pairs(sum[r][i], value[i], p);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) add_line(t, sum[r], r, halves, c, part);
}

VEC void pv_lines(struct pv_call *t, int row_count, int halves, int64_t c, int64_t end)
{
    for (; c + LINE <= end; c += LINE) pv_line(t, row_count, halves, c, 0);
    if (c < end) pv_line(t, row_count, halves, c, end - c);
}

#define PV_CASE(count)                                                                             \
    case count:                                                                                    \
        if (halves < 2) pv_lines(t, count, 1, c, end);                                             \
        else pv_lines(t, count, 2, c, end);                                                        \
        break;

static void pv_group(struct pv_call *t, int64_t rows, int halves, int64_t c, int64_t end)
{
    switch (rows) {
        PV_CASE(1)
        PV_CASE(2)
        PV_CASE(3)
        PV_CASE(4)
    default:
        break;
    }
}

/* ---- All columns ---- */

/* A part of the work: keys [j, next) of a head, channels [c, end), which share their scales, and rows from
 * r on. */
struct part {
    int64_t j, next, head, c, end, r, rows;
};

struct parts {
    const struct cpu_rows *v;
    const struct cpu_heads *heads;
    int64_t first, last, channels, width, rows;
    const float *p;
    int64_t p_stride;
};

static void group_of_rows(struct part *at, const struct parts *all, int64_t r)
{
    at->r = r;
    at->rows = all->rows - r < ROWS ? all->rows - r : ROWS;
}

/* Keys from j on up to the end of their KEYS_MAX, all that are fixed together. */
static struct part part_at(const struct parts *all, int64_t j, int64_t head, int64_t c)
{
    struct part at = {
        .j = j, .next = j - j % KEYS_MAX + KEYS_MAX, .head = head, .c = c, .end = c + all->width};
    if (at.next > all->last) at.next = all->last;
    if (at.end > all->channels) at.end = all->channels;
    group_of_rows(&at, all, 0);
    return at;
}

/* j of the one after the last is the last key. */
static struct part part_after(struct part at, const struct parts *all)
{
    if (at.r + ROWS < all->rows) {
        group_of_rows(&at, all, at.r + ROWS);
        return at;
    }
    if (at.end < all->channels) return part_at(all, at.j, at.head, at.end);
    return at.head + 1 < all->heads->count ? part_at(all, at.j, at.head + 1, 0)
                                           : part_at(all, at.next, 0, 0);
}

/* The scales of up to KEYS_MAX keys of a head. */
struct scales {
    struct keys keys;
    int64_t head;       /* whose they are, or -1 */
    const float *first; /* KEYS_MAX of each block of channels, or of all channels */
    struct head_scales of_heads;
    float of_block[DECODE_CHANNELS_MAX / STEP][KEYS_MAX];
};

static void find_scales(struct scales *to, const struct parts *all, const struct part *at)
{
    const void *from[KEYS_MAX];
    if (to->head == at->head && to->keys.j == at->j) return;
    if (to->head < 0 || to->keys.j != at->j)
        to->keys = keys_at(all->v, all->first, at->j, at->next);
    to->head = at->head;
    if (!has_blocks(all->v, all->channels)) {
        to->first = scales_of(&to->of_heads, &to->keys, all->heads, at->head);
        return;
    }
    to->first = to->of_block[0];
    put_scales(from, &to->keys, at->head * all->heads->scale_bytes);
    for (int64_t i = 0; i < to->keys.count; i += LANES)
        load_scales(to->of_block[0] + i, KEYS_MAX, from + i, block_count(all->v, all->channels),
                    all->v->scale_stride);
}

/* Whether the halves of a part's lines have scales of their own. */
static int halves_of(const struct part *at, const struct cpu_rows *v)
{
    int64_t second = at->c + STEP < at->end ? at->c + STEP : at->c;
    return at->end - at->c <= LINE && at->c / v->scale_channels != second / v->scale_channels ? 2
                                                                                              : 1;
}

static void set_part(struct weights *to, const struct part *at, struct scales *scales,
                     const struct parts *all)
{
    find_scales(scales, all, at);
    put_rows(to->row, &scales->keys, at->head * all->heads->bytes);
    set_weights(to, halves_of(at, all->v),
                all->p + (at->head * all->rows + at->r) * all->p_stride + at->j, all->p_stride,
                at->rows, scales->first + at->c / all->v->scale_channels * KEYS_MAX,
                scales->keys.there);
}

/* KEYS_MAX keys of each head in turn. The weights of a part are set before the products of the one before it,
 * which hide the wait. */
static void pv_heads(float *o, int64_t o_stride, const struct parts *all,
                     const struct cpu_ahead *ahead)
{
    struct weights weights[2];
    struct scales scales;
    struct pv_call t = {.o_stride = o_stride, .fetch = prefetch_of(ahead)};
    struct part at = part_at(all, all->first, 0, 0);
    scales.head = -1;
    if (at.j < all->last) set_part(&weights[0], &at, &scales, all);
    for (int turn = 0; at.j < all->last; turn = !turn) {
        struct part next = part_after(at, all);
        if (next.j < all->last) set_part(&weights[!turn], &next, &scales, all);
        t.o = o + at.head * all->heads->o_step + at.r * o_stride;
        t.row = weights[turn].row;
        t.keys = at.next - at.j;
        t.weights = &weights[turn];
        pv_group(&t, at.rows, halves_of(&at, all->v), at.c, at.end);
        at = next;
    }
    prefetch_rest(&t.fetch);
}

DECODE_PV_HEADS(avx512_vnni)
{
    struct parts all = {v, heads, first, last, channels, channels, rows, p, p_stride};
    if (has_blocks(v, channels)) all.width = v->scale_channels % LINE ? LINE : v->scale_channels;
    pv_heads(o, o_stride, &all, ahead);
}

DECODE_PV(avx512_vnni)
{
    const struct cpu_heads one = {.count = 1};
    decode_pv_heads_avx512_vnni(o, o_stride, p, p_stride, v, &one, rows, channels, first, last,
                                ahead);
}
