/* rows_avx512bf16.c: the row kernels for AVX-512 with conversions to bf16. */
#define ROWS_NAME rows_avx512_bf16
#define ROWS_TEXT "avx512_bf16"
#define V_BF16_CONVERSION
#include "base/dtype.h"
#include "cpu/x86/vec_avx512.h"
#include "cpu/rows_loops.h"
