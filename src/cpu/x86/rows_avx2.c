/* rows_avx2.c: the row kernels for AVX2. */
#define ROWS_NAME rows_avx2
#define ROWS_TEXT "avx2"
#include "base/dtype.h"
#include "cpu/x86/vec_avx2.h"
#include "cpu/rows_loops.h"
