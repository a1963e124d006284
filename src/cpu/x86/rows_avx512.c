/* rows_avx512.c: the row kernels for AVX-512. */
#define ROWS_NAME rows_avx512
#define ROWS_TEXT "avx512"
#include "base/dtype.h"
#include "cpu/x86/vec_avx512.h"
#include "cpu/rows_loops.h"
