/* rows_neon.c: the row kernels for NEON. */
#define ROWS_NAME rows_neon
#define ROWS_TEXT "neon"
#define ROWS_WITHOUT_STREAM
#include "base/dtype.h"
#include "cpu/arm/vec_neon.h"
#include "cpu/rows_loops.h"
