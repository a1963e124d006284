/* tiles_sve.c: the level of SVE with 256 bits: 12 x 16 register tiles of f32 (24 of 32 registers
 * are sums), K transposed 8 x 8 in registers. */
#include "base/dtype.h"
#include "cpu/arm/vec_sve.h"
#include "cpu/decode_kernels.h"

enum { ROW_TILE = 12, COLUMN_TILE = 16 };

#include "cpu/arm/tiles_f32.h"

const struct cpu_kernels cpu_sve = {
    .name = "cpu_sve",
    .arch = "sve",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 1,
    .decode_qk = decode_qk_sve,
    .decode_pv = decode_pv_sve,
};
