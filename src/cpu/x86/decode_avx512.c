/* decode_avx512.c: the decode kernels for AVX-512. */
#define DECODE_ISA  avx512
#define DECODE_ROWS 8
#include "cpu/x86/vec_avx512.h"
#include "cpu/decode_loops.h"
#include "cpu/decode_heads_loops.h"
