/* rows.c: the row kernels in plain C, the reference of the others. */
#define ROWS_NAME rows_scalar
#define ROWS_TEXT "scalar"
#define ROWS_WITHOUT_SHUFFLES
#define ROWS_WITHOUT_STREAM
#define ROWS_LIBM_ANGLES
#define ROWS_WITHOUT_FMA
#include "base/dtype.h"
#include "cpu/scalar/vec_scalar.h"
#include "cpu/rows_loops.h"
