/* amx_shapes.h: the shapes of AMX tiles. */
#ifndef RAPT_CPU_X86_AMX_SHAPES_H
#define RAPT_CPU_X86_AMX_SHAPES_H

#include "cpu/kernels.h"

#include <immintrin.h>

#ifdef RAPT_AMX_MODEL
#include "amx_model.h" /* tests: the instructions in C */
#endif

/* The intrinsics do not say that a load reads memory. */
#define KEEP_ORDER __asm__ volatile("" : : : "memory")

enum { PALETTE = 1, ROW_BYTES = 64, TILES = 8 };

/* The operand of ldtilecfg (Intel SDM vol. 1, 18.3: TILECFG). */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_shapes) == 64, "ldtilecfg reads 64 bytes");

static void load_shapes(const struct tile_shapes *t)
{
    __asm__ volatile("" : : "r"(t) : "memory"); /* gcc 12 takes 8 of the 64 bytes for read */
    _tile_loadconfig(t);
}

#endif
