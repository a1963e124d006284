/* decode_avx512.c: the decode kernels for AVX-512. */
#define DECODE_ISA  avx512
#define DECODE_ROWS 8
#include "cpu/x86/vec_avx512.h"
#include "cpu/decode_loops.h"

#define HEADS_TILE(t, dtype, rows, keys, wanted, fetch)                                            \
    qk_tile(t, dtype, rows, keys, 0, wanted, fetch)
#define HEADS_WINDOW(t, dtype, rows) pv_window(t, dtype, rows, 0)
#define HEADS_TYPES(heads_of, type, count, ...)                                                    \
    if ((type) == RAPT_F32) heads_of(t, RAPT_F32, count, __VA_ARGS__);                             \
    else if ((type) == RAPT_F16) heads_of(t, RAPT_F16, count, __VA_ARGS__);                        \
    else heads_of(t, RAPT_BF16, count, __VA_ARGS__)
#include "cpu/decode_heads_loops.h"
