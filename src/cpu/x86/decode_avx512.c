/* decode_avx512.c: the decode kernels for AVX-512. */
#define DECODE_ISA  avx512
#define DECODE_ROWS 8
#include "cpu/x86/vec_avx512.h"
#include "cpu/decode_loops.h"

#define HEADS_TILE(t, dtype, rows, keys, wanted, fetch)                                            \
    qk_tile(t, dtype, rows, keys, 0, wanted, fetch)
#define HEADS_WINDOW(t, dtype, rows) pv_window(t, dtype, rows, 0)
#define HEADS_TYPES(X, rows)         X(rows, f32, RAPT_F32) X(rows, f16, RAPT_F16) X(rows, bf16, RAPT_BF16)
#define HEADS_FIRST_TYPE             RAPT_F32
#include "cpu/decode_heads_loops.h"
