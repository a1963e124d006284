/* tiles_neon.c: the NEON level: 12 x 8 register tiles of f32 (24 of 32 registers are sums), K
 * transposed 4 x 4 in registers. */
#include "base/dtype.h"
#include "cpu/arm/vec_neon.h"
#include "cpu/decode_kernels.h"

enum { ROW_TILE = 12, COLUMN_TILE = 8 };

#include "cpu/arm/tiles_f32.h"

const struct cpu_kernels cpu_neon = {
    .name = "cpu_neon",
    .arch = "neon",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 1,
    .decode_qk = decode_qk_neon,
    .decode_pv = decode_pv_neon,
};
