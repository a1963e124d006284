/* tiles_avx512bf16.c: the AVX-512 BF16 level: 12 x 32 register tiles of dot products of bf16 pairs,
 * summed in f32. vdpbf16ps flushes subnormal inputs and rounds each step to nearest even (Intel
 * SDM, VDPBF16PS). */
#define V_BF16_CONVERSION
#include "base/dtype.h"
#include "cpu/decode_kernels.h"
#include "cpu/x86/vec_avx512.h"

enum { ROW_TILE = 12, COLUMN_TILE = 32 };

/* p of columns j ... j + 31 as bf16 at the start of the row: behind what is still to be read, since
 * 2 j <= 4 j. */
VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    _mm512_store_si512((uint16_t *)s + j, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += COLUMN_TILE)
        _mm512_store_si512((uint16_t *)s + j, _mm512_setzero_si512());
}

VEC vec add_products(vec a, vec b, vec c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

#define TILE_PAIR             2
#define TILE_MULTIPLY_ADD     add_products
#define TILE_HIDE(s, mask, n) v_hide(s, mask, n)
#define TILE_I8(p, n)         v_zero() /* a level of bf16 pairs has no I8 rows */
#define TILE_STORE            store_p
#define TILE_CLEAR            clear_p
#define TILE_EXP2             v_exp2_half
#define TILE_ROWS(X)          X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#include "cpu/x86/transpose_avx512.h"
#include "cpu/tile_loops.h"

/* ---- Packing ---- */

static void pack_q_pairs(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                         int64_t channels, float sign)
{
    if (channel_stride != 1 || dtype != RAPT_BF16) {
        scalar_pack_q_pairs(q, row, dtype, channel_stride, channels, sign);
        return;
    }
    uint16_t *to = q, flip = sign < 0 ? 0x8000 : 0;
    const uint16_t *from = row;
    for (int64_t c = 0; c < channels; c++) to[c] = from[c] ^ flip;
    if (channels % 2) to[channels] = 0;
}

/* 32 channels of a row as bits, 0 past the last and in NULL rows. */
VEC __m512i load_bits(const struct cpu_rows *rows, int64_t j, int64_t last, int64_t c,
                      int64_t channels)
{
    if (j >= last || !rows->row[j]) return _mm512_setzero_si512();
    int64_t n = channels - c < 2 * LANES ? channels - c : 2 * LANES;
    const uint16_t *p = (const uint16_t *)rows->row[j] + c;
    if (n == 2 * LANES) return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
}

/* A pair of channels is one lane of 32 bits, so the transposition is that of f32. */
static void pack_k_pairs(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                         int64_t channels)
{
    if (!rows_are_plain(k, channels)) {
        scalar_pack_k_panels(panels, k, first, last, channels, COLUMN_TILE, 2);
        return;
    }
    int64_t pairs = (channels + 1) / 2;
    for (int64_t j0 = first; j0 < last; j0 += COLUMN_TILE)
        for (int64_t half = 0; half < COLUMN_TILE && j0 + half < last; half += LANES) {
            float *to = (float *)panels + j0 * pairs + half;
            int64_t j = j0 + half, c = 0;
            if (j + LANES <= last && rows_are_there(k, j, j + LANES))
                for (; 2 * (c + LANES) <= channels; c += LANES) {
                    prefetch_keys(k, j + LANES, j + 3 * LANES, last, 2 * c, 2 * (c + LANES),
                                  RAPT_BF16);
                    pack_square(to + c * COLUMN_TILE, k, j, last, c, pairs, RAPT_F32, 1);
                }
            for (; c < pairs; c += LANES) {
                vec x[LANES];
                for (int i = 0; i < LANES; i++)
                    x[i] = _mm512_castsi512_ps(load_bits(k, j + i, last, 2 * c, channels));
                transpose(x);
                for (int i = 0; i < LANES && c + i < pairs; i++)
                    _mm512_store_ps(to + (c + i) * COLUMN_TILE, x[i]);
            }
        }
}

/* Two keys are interleaved; an exponent of all ones is NaN or infinity. */
static int pack_v_pairs(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                        int64_t channels, int64_t panel_keys)
{
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    __mmask32 unusual = 0;
    if (!rows_are_plain(v, channels))
        return scalar_pack_v_panels(panels, v, first, last, channels, panel_keys, COLUMN_TILE, 2);
    for (int64_t j = first; j < last; j += 2) {
        prefetch_keys(v, j + KEYS_AHEAD, j + KEYS_AHEAD + 2, last, 0, channels, RAPT_BF16);
        prefetch_keys(v, j + KEYS_AHEAD / 2, j + KEYS_AHEAD / 2 + 2, last, 0, channels, RAPT_BF16);
        uint16_t *to = (uint16_t *)panels + j * COLUMN_TILE;
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, to += panel_keys * COLUMN_TILE) {
            __m512i a = load_bits(v, j, last, c, channels),
                    b = load_bits(v, j + 1, last, c, channels);
            unusual |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(a, exponent), exponent);
            unusual |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(b, exponent), exponent);
            __m512i both[2];
            interleave(a, b, both);
            _mm512_store_si512(to, both[0]);
            _mm512_store_si512(to + COLUMN_TILE, both[1]);
        }
    }
    return unusual != 0;
}

const struct cpu_kernels cpu_avx512_bf16 = {
    .name = "cpu_avx512_bf16",
    .arch = "avx512_bf16",
    CPU_TILE_SLOTS,
    .pair = 2,
    .pack_q = pack_q_pairs,
    .pack_k = pack_k_pairs,
    .pack_v = pack_v_pairs,
    .decode_qk = decode_qk_avx512_bf16,
    .decode_pv = decode_pv_avx512_bf16,
    .decode_qk_heads = decode_qk_heads_avx512_bf16,
    .decode_pv_heads = decode_pv_heads_avx512_bf16,
    .attend_few = attend_few_avx512_bf16,
};
