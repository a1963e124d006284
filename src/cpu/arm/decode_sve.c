/* decode_sve.c: the decode kernels for SVE of 256 bits. */
#define DECODE_ISA  sve
#define DECODE_ROWS 8
#include "cpu/arm/vec_sve.h"
#include "cpu/decode_loops.h"
