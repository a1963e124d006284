/* blocks_avx512bf16.c: kernels for blocked caches for AVX-512 BF16: a block of K or V is a panel of
 * pairs as it stands in memory. q and p are bf16 (pair = 2 of kernels.h). */
#include "cpu/blocks.h"
#include "cpu/x86/vec_avx512.h"

#include <string.h>

enum {
    COLUMN_TILE = RAPT_KV_BLOCK,
    ROWS = 8,                       /* most rows of a tile of decode */
    PAIR_BYTES = RAPT_KV_BLOCK * 4, /* a pair of channels of 32 keys, or of keys of 32 channels */
    DEPTH = 4                       /* pairs of channels of a step */
};

/* ---- Panels ---- */

static void pack_k_pairs(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                         int64_t channels)
{
    for (int64_t j = first; j < last; j += COLUMN_TILE) {
        const char *block = block_of(k, j, min64(j + COLUMN_TILE, last));
        struct blocks_ahead ahead = blocks_after(k, j, last);
        char *to = (char *)panels + j * channels * (int64_t)sizeof(uint16_t);
        for (int64_t at = 0; block && at < channels / 2 * PAIR_BYTES; at += PAIR_BYTES) {
            ask_ahead(&ahead, at, PAIR_BYTES);
            memcpy(to + at, block + at, PAIR_BYTES);
        }
    }
}

/* The pair of keys j, j + 1 of 16 channels; 0 for what is a NULL row or past the last. */
VEC __m512i load_pair(const struct cpu_rows *v, const char *p, int64_t j, int64_t last)
{
    int low = v->row[j] != NULL, high = j + 1 < last && v->row[j + 1] != NULL;
    if (low && high) return _mm512_loadu_si512(p);
    __mmask32 keep = (low ? 0x55555555u : 0) | (high ? 0xaaaaaaaau : 0);
    return _mm512_maskz_loadu_epi16(keep, p);
}

/* An exponent of all ones is NaN or infinity. */
static int pack_v_pairs(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                        int64_t channels, int64_t panel_keys)
{
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    __mmask32 unusual = 0;
    for (int64_t j0 = first; j0 < last; j0 += RAPT_KV_BLOCK - j0 % RAPT_KV_BLOCK) {
        int64_t end = min64(j0 + RAPT_KV_BLOCK - j0 % RAPT_KV_BLOCK, last);
        const char *block = block_of(v, j0, end);
        struct blocks_ahead ahead = blocks_after(v, j0, last);
        for (int64_t c = 0; c < channels; c += RAPT_KV_BLOCK)
            for (int64_t j = j0; j < end; j += 2) {
                uint16_t *to = (uint16_t *)panels + c * panel_keys + j * COLUMN_TILE;
                int64_t at = c * RAPT_KV_BLOCK * 2 + j % RAPT_KV_BLOCK / 2 * PAIR_BYTES;
                const char *from = block + at;
                ask_ahead(&ahead, at, PAIR_BYTES);
                __m512i a = _mm512_setzero_si512(), b = a;
                if (block) a = load_pair(v, from, j, end), b = load_pair(v, from + 64, j, end);
                unusual |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(a, exponent), exponent);
                unusual |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(b, exponent), exponent);
                _mm512_store_si512(to, a);
                _mm512_store_si512(to + COLUMN_TILE, b);
            }
    }
    return unusual != 0;
}

/* ---- Decode: scores ---- */

struct score_call {
    const uint32_t *q; /* pairs */
    int64_t q_stride, pairs;
    struct prefetch fetch;
};

/* The 32 keys of a block against rows of q, into s[row][32]. Few rows have several sums each, or a
 * product would wait for the one before it. */
VEC void score_tile(struct score_call *call, float *s, int64_t s_stride, const char *block,
                    int rows)
{
    const int sums = rows == 1 ? 4 : rows == 2 ? 2 : 1;
    vec sum[8][4][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int n = 0; n < sums; n++) sum[r][n][0] = sum[r][n][1] = v_zero();
    struct prefetch fetch = call->fetch; /* in registers */
    for (int64_t c = 0; c < call->pairs; c += DEPTH) {
#pragma GCC unroll 4
        for (int i = 0; i < DEPTH; i++) {
            prefetch_lines(&fetch, PAIR_BYTES / FETCH_LINE);
            const char *at = block + (c + i) * PAIR_BYTES;
            __m512bh low = (__m512bh)_mm512_loadu_si512(at),
                     high = (__m512bh)_mm512_loadu_si512(at + 64);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                __m512bh x = (__m512bh)_mm512_set1_epi32((int)call->q[r * call->q_stride + c + i]);
                sum[r][i % sums][0] = _mm512_dpbf16_ps(sum[r][i % sums][0], low, x);
                sum[r][i % sums][1] = _mm512_dpbf16_ps(sum[r][i % sums][1], high, x);
            }
        }
    }
    call->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int w = 0; w < 2; w++) {
            vec all = sum[r][0][w];
#pragma GCC unroll 4
            for (int n = 1; n < sums; n++) all = v_add(all, sum[r][n][w]);
            v_store(s + r * s_stride + w * LANES, RAPT_F32, all);
        }
}

#define ROW_CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

static void score_rows(struct score_call *call, float *s, int64_t s_stride, const char *block,
                       int64_t rows)
{
#define CASE(count)                                                                                \
    case count:                                                                                    \
        score_tile(call, s, s_stride, block, count);                                               \
        break;
    switch (rows) {
        ROW_CASES(CASE)
    default:
        break;
    }
#undef CASE
}

static void decode_qk(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                      const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead)
{
    struct score_call call = {
        .q_stride = q_stride, .pairs = channels / 2, .fetch = prefetch_of(ahead)};
    for (int64_t j = first / RAPT_KV_BLOCK * RAPT_KV_BLOCK; j < last; j += RAPT_KV_BLOCK) {
        int64_t low = max64(j, first), high = min64(j + RAPT_KV_BLOCK, last);
        int whole = high - low == RAPT_KV_BLOCK;
        const char *block = block_of(k, low, high);
        _Alignas(64) float part[ROWS * RAPT_KV_BLOCK];
        for (int64_t r = 0; r < rows; r += ROWS) {
            int64_t tile = min64(rows - r, ROWS);
            call.q = (const uint32_t *)q + r * q_stride;
            score_rows(&call, whole ? s + r * s_stride + j : part, whole ? s_stride : RAPT_KV_BLOCK,
                       block, tile);
            for (int64_t i = 0; i < tile && !whole; i++)
                memcpy(s + (r + i) * s_stride + low, part + i * RAPT_KV_BLOCK + low - j,
                       (size_t)(high - low) * sizeof(float));
        }
    }
    prefetch_rest(&call.fetch);
}

/* ---- Decode: weighted values ---- */

struct value_call {
    float *o;
    const uint16_t *p;
    int64_t o_stride, p_stride; /* p_stride in elements */
    const struct cpu_rows *v;
    const char *block;
    int64_t start, first, last; /* the block's first token; tokens of the call, first even */
    int whole;                  /* all tokens of the block, and no NULL row */
    struct prefetch fetch;
};

/* Tokens j and j + 1 of 32 * panels channels. */
VEC void add_pair(const struct value_call *call, vec sum[8][4], const char *from, int64_t j,
                  int rows, int panels, int whole)
{
    __m512bh x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 2 * panels; i++) {
        const char *at = from + i / 2 * BLOCK_PANEL * 2 + i % 2 * 64;
        x[i] = whole ? (__m512bh)_mm512_loadu_si512(at)
                     : (__m512bh)load_pair(call->v, at, j, call->last);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        uint32_t pair;
        memcpy(&pair, call->p + r * call->p_stride + j, sizeof pair);
        __m512bh p = (__m512bh)_mm512_set1_epi32((int)pair);
#pragma GCC unroll 4
        for (int i = 0; i < 2 * panels; i++) sum[r][i] = _mm512_dpbf16_ps(sum[r][i], p, x[i]);
    }
}

/* o of rows x 32 * panels channels from c on, over the tokens of one block. One panel lies in one
 * piece; two are for few rows, whose products would wait for one another. */
VEC void value_tile(struct value_call *call, int64_t c, int rows, int panels)
{
    enum { PAIRS = 4 }; /* of a step */
    vec sum[8][4];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 2 * panels; i++)
            sum[r][i] = v_load(call->o + r * call->o_stride + c + i * LANES, RAPT_F32);
    struct prefetch fetch = call->fetch;
    const char *from = call->block + c * RAPT_KV_BLOCK * 2;
    int64_t j = call->first;
    if (call->whole)
        for (; j < call->last; j += 2 * PAIRS, from += PAIRS * PAIR_BYTES) {
#pragma GCC unroll 4
            for (int i = 0; i < PAIRS; i++) {
                prefetch_lines(&fetch, 2 * panels);
                add_pair(call, sum, from + i * PAIR_BYTES, j + 2 * i, rows, panels, 1);
            }
        }
    else
        for (; j < call->last; j += 2) {
            prefetch_lines(&fetch, 2 * panels);
            add_pair(call, sum, from + (j - call->start) / 2 * PAIR_BYTES, j, rows, panels, 0);
        }
    call->fetch = fetch;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < 2 * panels; i++)
            v_store(call->o + r * call->o_stride + c + i * LANES, RAPT_F32, sum[r][i]);
}

static void value_rows(struct value_call *call, int64_t rows, int64_t channels)
{
#define CASE(count)                                                                                \
    case count: {                                                                                  \
        int64_t c = 0;                                                                             \
        for (; (count) <= 2 && channels - c >= 64; c += 64) value_tile(call, c, count, 2);         \
        for (; c < channels; c += 32) value_tile(call, c, count, 1);                               \
        break;                                                                                     \
    }
    switch (rows) {
        ROW_CASES(CASE)
    default:
        break;
    }
#undef CASE
}

/* No row of the tokens of a call is NULL. */
static int all_there(const struct value_call *call)
{
    for (int64_t j = call->first; j < call->last; j++)
        if (!call->v->row[j]) return 0;
    return 1;
}

static void decode_pv(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead)
{
    struct value_call call = {
        .o_stride = o_stride, .p_stride = 2 * p_stride, .v = v, .fetch = prefetch_of(ahead)};
    for (int64_t j = first, end; j < last; j = end) {
        call.start = j / RAPT_KV_BLOCK * RAPT_KV_BLOCK;
        end = min64(call.start + RAPT_KV_BLOCK, last);
        call.block = block_of(v, j, end);
        call.first = j;
        call.last = end;
        call.whole = end - j == RAPT_KV_BLOCK && all_there(&call);
        for (int64_t r = 0; r < rows && call.block; r += ROWS) {
            call.o = o + r * o_stride;
            call.p = (const uint16_t *)p + r * 2 * p_stride;
            value_rows(&call, min64(rows - r, ROWS), channels);
        }
    }
    prefetch_rest(&call.fetch);
}

const struct cpu_block_kernels cpu_blocks_avx512_bf16 = {
    .pack_k = pack_k_pairs, .pack_v = pack_v_pairs, .decode_qk = decode_qk, .decode_pv = decode_pv};
