/* decode_avx2.c: the decode kernels for AVX2. */
#define DECODE_ISA  avx2
#define DECODE_ROWS 4
#include "cpu/x86/vec_avx2.h"
#include "cpu/decode_loops.h"
