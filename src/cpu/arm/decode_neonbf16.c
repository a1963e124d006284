/* decode_neonbf16.c: the decode kernels for NEON BF16: dot products of bf16 pairs (BFDOT), summed
 * in f32. A K row is a row of pairs as it lies in memory; V rows are taken two by two and
 * interleaved in registers. q and p are bf16 (pair = 2 of kernels.h). Rows whose channels do not
 * lie side by side are copied first. */
#include "base/dtype.h"
#include "cpu/arm/vec_neon.h"
#include "cpu/decode_kernels.h"

enum {
    GATHER_KEYS = 4,
    STEP = 8,
    ROWS = 4,
    KEYS = 4,
    WIDTH = 4
}; /* WIDTH: vectors of 4 columns of a tile of values */

VEC bfloat16x8_t load_pairs(const uint16_t *p)
{
    return vreinterpretq_bf16_u16(vld1q_u16(p));
}
VEC bfloat16x8_t load_pairs_part(const uint16_t *p, int64_t n)
{
    uint16_t part[STEP] = {0};
    memcpy(part, p, (size_t)n * sizeof *p);
    return load_pairs(part);
}

/* ---- scores ---- */

struct qk_call {
    float *s;
    const uint16_t *q;
    int64_t s_stride, q_stride, channels; /* q_stride in elements */
    const void *const *row;
};

VEC void qk_tile(const struct qk_call *t, int row_count, int64_t wanted, struct prefetch *fetch)
{
    vec sum[ROWS][KEYS];
    const uint16_t *k[KEYS];
    int64_t c = 0;
#pragma GCC unroll 4
    for (int j = 0; j < KEYS; j++)
        k[j] = (const uint16_t *)(j < wanted && t->row[j] ? t->row[j] : decode_zeros);
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++)
#pragma GCC unroll 4
        for (int j = 0; j < KEYS; j++) sum[r][j] = v_zero();
    for (; c < t->channels; c += STEP) {
        int64_t n = t->channels - c;
        bfloat16x8_t key[KEYS];
        if (n >= STEP) prefetch_step(fetch, c / STEP, KEYS * STEP * (int)sizeof *k[0]);
#pragma GCC unroll 4
        for (int j = 0; j < KEYS; j++)
            key[j] = n >= STEP ? load_pairs(k[j] + c) : load_pairs_part(k[j] + c, n);
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            const uint16_t *p = t->q + r * t->q_stride + c;
            bfloat16x8_t x = n >= STEP ? load_pairs(p) : load_pairs_part(p, n);
#pragma GCC unroll 4
            for (int j = 0; j < KEYS; j++) sum[r][j] = vbfdotq_f32(sum[r][j], key[j], x);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        vec dots = v_sums(sum[r]);
        if (wanted >= KEYS) v_store(t->s + r * t->s_stride, RAPT_F32, dots);
        else v_store_part(t->s + r * t->s_stride, RAPT_F32, dots, wanted);
    }
}

VEC void qk_rows(struct qk_call t, int row_count, int64_t keys, const struct cpu_ahead *ahead)
{
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t j = 0; j < keys; j += KEYS, t.row += KEYS, t.s += KEYS)
        qk_tile(&t, row_count, keys - j, &fetch);
    prefetch_rest(&fetch);
}

static void qk_all_rows(struct qk_call t, int64_t rows, int64_t keys, const struct cpu_ahead *ahead)
{
    for (int64_t r = 0; r < rows; r += ROWS, t.q += ROWS * t.q_stride, t.s += ROWS * t.s_stride) {
        switch (rows - r < ROWS ? rows - r : ROWS) {
        case 1:
            qk_rows(t, 1, keys, ahead);
            break;
        case 2:
            qk_rows(t, 2, keys, ahead);
            break;
        case 3:
            qk_rows(t, 3, keys, ahead);
            break;
        default:
            qk_rows(t, 4, keys, ahead);
            break;
        }
        ahead = NULL;
    }
}

DECODE_QK(neon_bf16)
{
    struct qk_call t = {.s = s + first,
                        .q = q,
                        .s_stride = s_stride,
                        .q_stride = 2 * q_stride,
                        .channels = channels,
                        .row = k->row + first};
    if (k->channel_stride == 1 && !k->span) {
        qk_all_rows(t, rows, last - first, ahead);
        return;
    }
    uint16_t x[GATHER_KEYS][DECODE_CHANNELS_MAX];
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
    int64_t keys, channels;
    const struct cpu_ahead *ahead;
    struct prefetch fetch;
};

/* Columns channel ... channel + 4 * vectors - 1; part: how many of two vectors, 0 for all. */
VEC void pv_tile(struct pv_call *t, int row_count, int vectors, int64_t channel, int64_t part)
{
    vec sum[ROWS][WIDTH];
    float tail[ROWS][STEP];
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        const float *o = t->o + r * t->o_stride + channel;
        if (part) {
            memset(tail[r], 0, sizeof tail[r]);
            memcpy(tail[r], o, (size_t)part * sizeof(float));
            o = tail[r];
        }
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) sum[r][i] = v_load(o + i * LANES, RAPT_F32);
    }
    struct prefetch fetch = t->fetch; /* in registers */
    for (int64_t j = 0; j < t->keys; j += 2) {
        const uint16_t *row = t->row[j], *second = j + 1 < t->keys ? t->row[j + 1] : NULL;
        if (!part) prefetch_step(&fetch, j / 2, 2 * vectors * LANES * (int)sizeof *row);
        if (!row && !second) continue;
        if (!row) row = (const uint16_t *)decode_zeros;
        if (!second) second = (const uint16_t *)decode_zeros;
        bfloat16x8_t value[WIDTH];
#pragma GCC unroll 2
        for (int i = 0; i < vectors / 2; i++) {
            const uint16_t *x = row + channel + i * STEP, *y = second + channel + i * STEP;
            uint16x8_t a = vreinterpretq_u16_bf16(part ? load_pairs_part(x, part) : load_pairs(x));
            uint16x8_t b = vreinterpretq_u16_bf16(part ? load_pairs_part(y, part) : load_pairs(y));
            value[2 * i] = vreinterpretq_bf16_u16(vzip1q_u16(a, b));
            value[2 * i + 1] = vreinterpretq_bf16_u16(vzip2q_u16(a, b));
        }
#pragma GCC unroll 4
        for (int r = 0; r < row_count; r++) {
            uint32_t pair;
            memcpy(&pair, t->p + r * t->p_stride + j, sizeof pair);
            bfloat16x8_t p = vreinterpretq_bf16_u32(vdupq_n_u32(pair));
#pragma GCC unroll 4
            for (int i = 0; i < vectors; i++) sum[r][i] = vbfdotq_f32(sum[r][i], p, value[i]);
        }
    }
    t->fetch = fetch;
#pragma GCC unroll 4
    for (int r = 0; r < row_count; r++) {
        float *o = t->o + r * t->o_stride + channel, *to = part ? tail[r] : o;
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) v_store(to + i * LANES, RAPT_F32, sum[r][i]);
        if (part) memcpy(o, to, (size_t)part * sizeof(float));
    }
}

VEC void pv_rows(struct pv_call *t, int row_count)
{
    int64_t c = 0, width = LANES * WIDTH;
    t->fetch = prefetch_of(t->ahead);
    for (; c + width <= t->channels; c += width) pv_tile(t, row_count, WIDTH, c, 0);
    for (; c + STEP <= t->channels; c += STEP) pv_tile(t, row_count, 2, c, 0);
    if (c < t->channels) pv_tile(t, row_count, 2, c, t->channels - c);
    prefetch_rest(&t->fetch);
}

static void pv_all_rows(struct pv_call t, int64_t rows)
{
    for (int64_t r = 0; r < rows; r += ROWS, t.o += ROWS * t.o_stride, t.p += ROWS * t.p_stride) {
        switch (rows - r < ROWS ? rows - r : ROWS) {
        case 1:
            pv_rows(&t, 1);
            break;
        case 2:
            pv_rows(&t, 2);
            break;
        case 3:
            pv_rows(&t, 3);
            break;
        default:
            pv_rows(&t, 4);
            break;
        }
        t.ahead = NULL;
    }
}

DECODE_PV(neon_bf16)
{
    struct pv_call t = {.o = o,
                        .p = (const uint16_t *)p + first,
                        .o_stride = o_stride,
                        .p_stride = 2 * p_stride,
                        .row = v->row + first,
                        .keys = last - first,
                        .channels = channels,
                        .ahead = ahead};
    if (v->channel_stride == 1 && !v->span) {
        pv_all_rows(t, rows);
        return;
    }
    uint16_t x[GATHER_KEYS][DECODE_CHANNELS_MAX];
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
