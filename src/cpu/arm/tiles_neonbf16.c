/* tiles_neonbf16.c: the NEON BF16 level: 12 x 8 register tiles of dot products of bf16 pairs
 * (BFDOT), summed in f32. BFDOT flushes subnormals and rounds the sum of a pair to odd before it is
 * added (Arm ARM, FEAT_BF16). */
#include "base/dtype.h"
#include "cpu/arm/vec_neon.h"
#include "cpu/decode_kernels.h"

enum { ROW_TILE = 12, COLUMN_TILE = 8 };

/* p of columns j ... j + 7 as bf16 at the start of the row: behind what is still to be read, since
 * 2 j <= 4 j. */
VEC void store_p(float *s, int64_t j, vec p0, vec p1)
{
    bfloat16x8_t p = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(p0), p1);
    vst1q_bf16((bfloat16_t *)s + j, p);
}

VEC void clear_p(float *s, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += COLUMN_TILE)
        vst1q_u16((uint16_t *)s + j, vdupq_n_u16(0));
}

VEC vec add_products(vec a, vec b, vec c)
{
    return vbfdotq_f32(c, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
}

#define transpose             v_transpose
#define TILE_HIDE(s, mask, n) v_hide(s, mask, n)
#define TILE_I8(p, n)         v_zero() /* a level of bf16 pairs has no I8 rows */
#define TILE_STORE            store_p
#define TILE_CLEAR            clear_p
#define TILE_EXP2             v_exp2
#define TILE_PAIR             2
#define TILE_MULTIPLY_ADD     add_products
#define TILE_ROWS(X)          X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#include "cpu/tile_loops.h"

/* ---- Packing --------------------------------------------------------------------------------- */

/* 8 channels of a row as bits, 0 past the last and in NULL rows. */
VEC uint16x8_t load_bits(const struct cpu_rows *rows, int64_t j, int64_t last, int64_t c,
                         int64_t channels)
{
    if (j >= last || !rows->row[j] || c >= channels) return vdupq_n_u16(0);
    const uint16_t *p = (const uint16_t *)rows->row[j] + c;
    if (channels - c >= 8) return vld1q_u16(p);
    uint16_t part[8] = {0};
    memcpy(part, p, (size_t)(channels - c) * sizeof *p);
    return vld1q_u16(part);
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
        for (int64_t half = 0; half < COLUMN_TILE && j0 + half < last; half += LANES)
            for (int64_t c = 0; c < pairs; c += LANES) {
                float *to = (float *)panels + j0 * pairs + c * COLUMN_TILE + half;
                vec x[LANES];
                for (int i = 0; i < LANES; i++)
                    x[i] =
                        vreinterpretq_f32_u16(load_bits(k, j0 + half + i, last, 2 * c, channels));
                transpose(x);
                for (int i = 0; i < LANES && c + i < pairs; i++)
                    vst1q_f32(to + i * COLUMN_TILE, x[i]);
            }
}

/* Two keys are interleaved; an exponent of all ones is NaN or infinity. */
static int pack_v_pairs(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                        int64_t channels, int64_t panel_keys)
{
    const uint16x8_t exponent = vdupq_n_u16(0x7f80);
    uint16x8_t unusual = vdupq_n_u16(0);
    if (!rows_are_plain(v, channels))
        return scalar_pack_v_panels(panels, v, first, last, channels, panel_keys, COLUMN_TILE, 2);
    for (int64_t j = first; j < last; j += 2) {
        uint16_t *to = (uint16_t *)panels + j * COLUMN_TILE;
        for (int64_t c = 0; c < channels; c += COLUMN_TILE, to += panel_keys * COLUMN_TILE) {
            uint16x8_t a = load_bits(v, j, last, c, channels),
                       b = load_bits(v, j + 1, last, c, channels);
            unusual = vorrq_u16(unusual, vceqq_u16(vandq_u16(a, exponent), exponent));
            unusual = vorrq_u16(unusual, vceqq_u16(vandq_u16(b, exponent), exponent));
            vst1q_u16(to, vzip1q_u16(a, b));
            vst1q_u16(to + COLUMN_TILE, vzip2q_u16(a, b));
        }
    }
    return vmaxvq_u16(unusual) != 0;
}

const struct cpu_kernels cpu_neon_bf16 = {
    .name = "cpu_neon_bf16",
    .arch = "neon_bf16",
    CPU_TILE_SLOTS,
    .pair = 2,
    .pack_q = scalar_pack_q_pairs,
    .pack_k = pack_k_pairs,
    .pack_v = pack_v_pairs,
    .decode_qk = decode_qk_neon_bf16,
    .decode_pv = decode_pv_neon_bf16,
};
