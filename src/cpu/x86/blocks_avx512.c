/* blocks_avx512.c: kernels for blocked caches for AVX-512. */
#include "cpu/x86/vec_avx512.h"

enum { COLUMN_TILE = 32 };
#define BLOCK_ROWS  8
#define BLOCKS_NAME cpu_blocks_avx512
#include "cpu/block_loops.h"
