/* decode_neon.c: the decode kernels for NEON. */
#define DECODE_ISA  neon
#define DECODE_ROWS 8
#include "cpu/arm/vec_neon.h"
#include "cpu/decode_loops.h"
