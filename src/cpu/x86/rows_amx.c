/* rows_amx.c: the row kernels for CPUs with AMX, whose vreduceps is one operation; no tiles in them. */
#define ROWS_NAME rows_amx
#define ROWS_TEXT "amx"
#define V_BF16_CONVERSION
#define V_REDUCES
#include "base/dtype.h"
#include "cpu/x86/vec_avx512.h"
#include "cpu/rows_loops.h"
