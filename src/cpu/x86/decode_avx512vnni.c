/* decode_avx512vnni.c: scores of i8 K with AVX-512 VNNI, summed exactly in 32 bits. A row of q
 * becomes 16-bit fixed-point numbers relative to its largest magnitude, of which K meets one byte
 * and then the other. Decision 0009 has the error. Rows lie in one piece, and a scale belongs to a
 * whole row or to a multiple of STEP channels. */
#include "cpu/x86/vnni_avx512.h"

#include <math.h>
#include <string.h>

enum { TILE = LANES };

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

/* The integers of a row, which may lie in its place, and their step. */
static float fix_row(int16_t *to, const float *row, int64_t channels, int levels)
{
    float largest = largest_magnitude(row, channels);
    struct fixed f = fixed_for(largest, channels <= LONG_CHANNELS ? levels : levels / 2);
    if (isnan(f.step)) return infinite_row(to, row, channels, largest);
    for (int64_t i = 0; i < channels; i += LANES)
        _mm256_storeu_si256((__m256i *)(void *)(to + i),
                            to_fixed(load_up_to(row + i, channels - i), &f));
    return f.step;
}

void fix_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    for (float *row = q; rows > 0; rows--, row += q_stride)
        row[q_stride / 2] = fix_row((int16_t *)row, row, channels, LEVELS);
}

/* What decode_qk takes of a row of q: an integer is 256 times its high byte plus its low one, both
 * signed. The high bytes, then the low ones, each 0 from the channels to the end of their LINE;
 * behind them the step, and for each STEP channels 128 times the sum of the integers, negated: what
 * bytes of K without sign add. */

static int64_t padded(int64_t channels)
{
    return (channels + LINE - 1) / LINE * LINE;
}

static int64_t q_tail(int64_t channels)
{
    return padded(channels) / 2; /* in floats */
}

void decode_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels)
{
    _Alignas(64) int16_t integers[DECODE_CHANNELS_MAX];
    for (float *row = q; rows > 0; rows--, row += q_stride) {
        int32_t *excess = (int32_t *)row + q_tail(channels) + 1;
        memset(integers, 0, sizeof integers);
        float step = fix_row(integers, row, channels, Q_LEVELS);
        int8_t *high = (int8_t *)row, *low = high + padded(channels);
        for (int64_t c = 0; c < padded(channels); c += STEP) {
            __m512i x = _mm512_loadu_si512(integers + c),
                    upper = _mm512_srai_epi16(_mm512_add_epi16(x, _mm512_set1_epi16(128)), 8),
                    sum = dot_pairs(_mm512_setzero_si512(), x, _mm512_set1_epi16(-128));
            _mm256_storeu_si256((__m256i *)(void *)(low + c), _mm512_cvtepi16_epi8(x));
            _mm256_storeu_si256((__m256i *)(void *)(high + c), _mm512_cvtepi16_epi8(upper));
            excess[c / STEP] = _mm512_reduce_add_epi32(sum);
        }
        row[q_tail(channels)] = step;
    }
}

/* ---- Scores ---- */

struct qk_call {
    float *s;
    const int8_t *q;
    int64_t s_stride, q_stride, channels; /* q_stride in bytes */
    const void *const *key;               /* TILE of them may be read past the last */
    const float *scale;                   /* one of each key: rows with one scale */
    const void *const *of_blocks;         /* rows with several */
    int64_t scale_channels, scale_stride, block_count;
    struct q_rows *rows;
};

/* ROWS rows of q, side by side. */
struct q_rows {
    /* infinity: 1, or that of a row that has one, in whose place its step is 1 where rows have several scales: times
     * a block without it it is NaN. */
    float step[ROWS], infinity[ROWS];
    int32_t excess[DECODE_CHANNELS_MAX / STEP]
                  [ROWS]; /* rows with one scale: [0] for all channels */
    /* Four high bytes of each row, and four low ones: of channels 64 l + 16 p + 4 i ... in
     * [l][0][i][p] and [l][1][i][p]. */
    int32_t four[DECODE_CHANNELS_MAX / LINE][2][4][4][ROWS];
};

/* sum + the products of bytes without sign and four signed ones, the same in each lane. */
VEC __m512i dot_bytes(__m512i sum, __m512i bytes, const int32_t *four)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(bytes), "m"(*four));
    return sum;
}

/* A line of a tile, LINE channels of its keys, half turned: part[m][p] has 16 channels from 16 p on
 * of keys 4 m ... 4 m + 3, 128 added to each. Neighbours come together, as memory is best read in
 * its own order. */
struct tile {
    __m512i part[4][4];
};

/* n <= LINE channels from k[m] + c on. */
VEC void load_part(struct tile *to, const void *const *k, int m, int64_t c, int64_t n)
{
    __m512i x[4], t[4];
    __mmask64 wanted = n >= LINE ? ~(__mmask64)0 : (1ull << n) - 1;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const int8_t *at = (const int8_t *)k[4 * m + i] + c;
        x[i] = n >= LINE ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi8(wanted, at);
        x[i] = _mm512_xor_si512(x[i], _mm512_set1_epi8(-128));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        t[i] = _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0x44);
        t[i + 2] = _mm512_shuffle_i32x4(x[2 * i], x[2 * i + 1], 0xee);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        to->part[m][2 * i] = _mm512_shuffle_i32x4(t[2 * i], t[2 * i + 1], 0x88);
        to->part[m][2 * i + 1] = _mm512_shuffle_i32x4(t[2 * i], t[2 * i + 1], 0xdd);
    }
}

/* x[i]: channels 16 p + 4 i ... 16 p + 4 i + 3, a key in each lane: key 4 m + g in lane 4 g + m. */
VEC void turn_part(__m512i x[4], const struct tile *from, int p)
{
    __m512i of_part[4] = {from->part[0][p], from->part[1][p], from->part[2][p], from->part[3][p]};
    turn(x, of_part);
}

VEC __m512i sum_of_parts(__m512i high, __m512i low)
{
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}

/* Adds 16 channels from c on to the sums of a tile. */
VEC void add_part(const struct qk_call *t, const __m512i *x, __m512i *high, __m512i *low,
                  int row_count, int64_t c)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            high[r] = dot_bytes(high[r], x[i], &t->rows->four[c / LINE][0][i][c % LINE / 16][r]);
            low[r] = dot_bytes(low[r], x[i], &t->rows->four[c / LINE][1][i][c % LINE / 16][r]);
        }
}

/* From the order of turn_part's lanes to that of keys, and back. */
VEC vec exchange(vec x)
{
    return _mm512_permutexvar_ps(
        _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), x);
}

VEC void store_scores(const struct qk_call *t, int r, int blocks, vec total, int64_t wanted)
{
    float *s = t->s + r * t->s_stride;
    if (blocks) total = v_mul(total, v_set(t->rows->infinity[r]));
    total = exchange(total);
    if (wanted >= TILE) _mm512_storeu_ps(s, total);
    else _mm512_mask_storeu_ps(s, (__mmask16)((1u << wanted) - 1), total);
}

/* The sums of a tile: of integers, from the excess of STEP channels number i or of all, and of
 * floats where rows have several scales. */
struct sums {
    __m512i high[ROWS], low[ROWS];
    vec total[ROWS];
};

VEC void begin_sums(const struct qk_call *t, struct sums *sums, int row_count, int64_t i)
{
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        sums->high[r] = _mm512_setzero_si512();
        sums->low[r] = _mm512_set1_epi32(t->rows->excess[i][r]);
    }
}

/* The step comes first: a sum of integers times a scale may be more than a float holds. */
VEC void end_sums(const struct qk_call *t, struct sums *sums, int row_count, vec scale)
{
    scale = exchange(scale);
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        vec x = _mm512_cvtepi32_ps(sum_of_parts(sums->high[r], sums->low[r]));
        sums->total[r] = v_fma(v_mul(x, v_set(t->rows->step[r])), scale, sums->total[r]);
    }
}

/* The line of a tile at c. Meanwhile the next one is loaded, from next on: shuffles and products in
 * turn, as they go to different pipes. */
VEC void qk_line(const struct qk_call *t, struct tile *tile, struct sums *sums, int row_count,
                 int blocks, int64_t c, const void *const *next, int64_t next_c,
                 const float (*scale)[TILE], struct prefetch *fetch)
{
    struct tile after;
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
        __m512i x[4];
        if (blocks && p % 2 == 0) begin_sums(t, sums, row_count, (c + 16 * p) / STEP);
        turn_part(x, tile, p);
        add_part(t, x, sums->high, sums->low, row_count, c + 16 * p);
        if (t->channels - c > STEP) prefetch_lines(fetch, 4);
        else prefetch_lines(fetch, 2);
        load_part(&after, next, p, next_c, t->channels - next_c);
        if (blocks && p % 2 == 1 && c + 16 * p - 16 < t->channels)
            end_sums(t, sums, row_count, v_load(scale[(c + 16 * p) / t->scale_channels], RAPT_F32));
    }
    *tile = after;
}

/* 0 for each key; NaN where a scale is infinite, as the products of an infinity with numbers of both
 * signs are. */
VEC vec without_products(const struct qk_call *t, int blocks, const float (*scale)[TILE])
{
    vec none = v_zero();
    if (!blocks) return exchange(v_fma(v_load(t->scale, RAPT_F32), none, none));
    for (int64_t i = 0; i < t->block_count; i++)
        none = v_fma(v_load(scale[i], RAPT_F32), v_zero(), none);
    return exchange(none);
}

VEC void qk_tile(const struct qk_call *t, struct tile *tile, int row_count, int blocks,
                 const void *const *k, int64_t wanted, struct prefetch *fetch)
{
    _Alignas(64) float scale[DECODE_CHANNELS_MAX / STEP][TILE];
    struct sums sums;
    if (blocks) load_scales(scale[0], LANES, t->of_blocks, t->block_count, t->scale_stride);
    vec none = without_products(t, blocks, (const float(*)[TILE])scale);
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) sums.total[r] = none;
    if (!blocks) begin_sums(t, &sums, row_count, 0);
#pragma GCC unroll 2
    for (int64_t c = 0; c < t->channels; c += LINE) {
        int more = c + LINE < t->channels;
        qk_line(t, tile, &sums, row_count, blocks, c, more ? k : k + TILE, more ? c + LINE : 0,
                (const float(*)[TILE])scale, fetch);
    }
    if (!blocks) end_sums(t, &sums, row_count, _mm512_loadu_ps(t->scale));
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) store_scores(t, r, blocks, sums.total[r], wanted);
}

/* row_count rows, then zeros. */
static void set_rows(struct q_rows *to, const struct qk_call *t, int row_count, int blocks)
{
    int64_t bytes = padded(t->channels), count = bytes / STEP;
    const int8_t *row[ROWS];
    for (int r = 0; r < ROWS; r++) {
        row[r] = r < row_count ? t->q + r * t->q_stride : (const int8_t *)decode_zeros;
        const float *tail = (const float *)(const void *)row[r] + q_tail(t->channels);
        int32_t sum = 0;
        to->step[r] = r < row_count ? *tail : 0;
        to->infinity[r] = 1;
        if (blocks && isinf(to->step[r])) to->infinity[r] = to->step[r], to->step[r] = 1;
        for (int64_t i = 0; i < count; i++) {
            memcpy(&to->excess[i][r], tail + 1 + i, sizeof to->excess[i][r]);
            sum += to->excess[i][r];
        }
        if (!blocks) to->excess[0][r] = sum;
    }
    for (int64_t c = 0; c < 2 * bytes; c += LINE) {
        __m512i x[ROWS], t4[4];
        int32_t *four = to->four[c % bytes / LINE][c / bytes][0][0];
        for (int r = 0; r < ROWS; r++) x[r] = _mm512_loadu_si512(row[r] + c);
        turn(t4, x);
        for (int i = 0; i < 4; i++) _mm512_storeu_si512(four + i * LANES, t4[i]);
    }
}

/* One channel count has a form of its own. */
enum { USUAL = 128 };
#define Q_STRIDE(channels) (4 * ((channels) + 16))

/* channels: a constant where it is known to the compiler, else 0. */
VEC void qk_rows(struct qk_call t, int row_count, int blocks, int64_t channels, int64_t keys,
                 struct prefetch *fetch)
{
    if (channels) {
        t.channels = channels;
        t.q_stride = Q_STRIDE(channels);
    }
    struct prefetch walk = *fetch; /* in registers */
    struct tile tile;
    struct q_rows q;
    t.rows = &q;
    set_rows(&q, &t, row_count, blocks);
    for (int m = 0; m < 4; m++) load_part(&tile, t.key, m, 0, t.channels);
    for (int64_t j = 0; j < keys; j += TILE) {
        qk_tile(&t, &tile, row_count, blocks, t.key, keys - j, &walk);
        t.key += TILE;
        t.s += TILE;
        t.scale += TILE;
        if (blocks) t.of_blocks += TILE;
    }
    *fetch = walk;
}

#define QK_CASE(count)                                                                             \
    case count:                                                                                    \
        if ((count) == ROWS && usual && blocks) qk_rows(t, count, 1, USUAL, keys, fetch);          \
        else if ((count) == ROWS && usual) qk_rows(t, count, 0, USUAL, keys, fetch);               \
        else if (blocks) qk_rows(t, count, 1, 0, keys, fetch);                                     \
        else qk_rows(t, count, 0, 0, keys, fetch);                                                 \
        break;

static void qk_all_rows(struct qk_call t, int blocks, int64_t rows, int64_t keys,
                        struct prefetch *fetch)
{
    struct prefetch none = {0};
    int usual = t.channels == USUAL && t.q_stride == Q_STRIDE(USUAL);
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

/* KEYS_MAX keys of each head in turn. */
static void qk_heads(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                     const struct cpu_rows *k, const struct cpu_heads *heads, int64_t rows,
                     int64_t channels, int64_t first, int64_t last, const struct cpu_ahead *ahead)
{
    struct head_scales scales;
    const void *key[KEYS_MAX + 2 * TILE], *of_blocks[KEYS_MAX];
    int blocks = has_blocks(k, channels);
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t i = KEYS_MAX; i < KEYS_MAX + 2 * TILE; i++) key[i] = decode_zeros;
    for (int64_t j = first; j < last; j += KEYS_MAX) {
        struct keys at = keys_at(k, first, j, last);
        for (int64_t h = 0; h < heads->count; h++) {
            put_rows(key, &at, h * heads->bytes);
            if (blocks) put_scales(of_blocks, &at, h * heads->scale_bytes);
            struct qk_call t = {.s = s + h * rows * s_stride + j,
                                .q = (const int8_t *)q + h * rows * 4 * q_stride,
                                .s_stride = s_stride,
                                .q_stride = 4 * q_stride,
                                .channels = channels,
                                .key = key,
                                .scale = blocks ? NULL : scales_of(&scales, &at, heads, h),
                                .of_blocks = of_blocks,
                                .scale_channels = k->scale_channels,
                                .scale_stride = k->scale_stride,
                                .block_count = block_count(k, channels)};
            qk_all_rows(t, blocks, rows, at.count, &fetch);
        }
    }
    prefetch_rest(&fetch);
}

DECODE_QK(avx512_vnni)
{
    const struct cpu_heads one = {.count = 1};
    qk_heads(s, s_stride, q, q_stride, k, &one, rows, channels, first, last, ahead);
}

DECODE_QK_HEADS(avx512_vnni)
{
    qk_heads(s, s_stride, q, q_stride, k, heads, rows, channels, first, last, ahead);
}
