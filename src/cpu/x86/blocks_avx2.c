/* blocks_avx2.c: kernels for blocked caches for AVX2. */
#include "cpu/x86/vec_avx2.h"

enum { COLUMN_TILE = 16 };
#define BLOCK_ROWS  4
#define BLOCKS_NAME cpu_blocks_avx2
#include "cpu/block_loops.h"
