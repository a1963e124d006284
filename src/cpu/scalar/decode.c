/* decode.c: the decode kernels in plain C, the reference of the others, and the row of zeros that
 * all of them share. */
#define DECODE_ISA  scalar
#define DECODE_ROWS 4
#include "cpu/scalar/vec_scalar.h"
#include "cpu/decode_loops.h"

const char decode_zeros[DECODE_CHANNELS_MAX * 4];
