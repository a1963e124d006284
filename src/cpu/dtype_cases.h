/* dtype_cases.h: a call for each type of data, with the type as a constant, which the loops that it
 * names are compiled for. */
#ifndef RAPT_CPU_DTYPE_CASES_H
#define RAPT_CPU_DTYPE_CASES_H

#include "rapt/rapt.h"

#define DTYPE_CASE(dtype, CALL)                                                                    \
    case dtype:                                                                                    \
        CALL(dtype);                                                                               \
        break;
#define FLOAT_CASES(dtype, CALL)                                                                   \
    switch (dtype) {                                                                               \
        DTYPE_CASE(RAPT_F32, CALL)                                                                 \
        DTYPE_CASE(RAPT_F16, CALL)                                                                 \
    default:                                                                                       \
        CALL(RAPT_BF16);                                                                           \
        break;                                                                                     \
    }
#define DATA_CASES(dtype, CALL)                                                                    \
    switch (dtype) {                                                                               \
        DTYPE_CASE(RAPT_F32, CALL)                                                                 \
        DTYPE_CASE(RAPT_F16, CALL)                                                                 \
        DTYPE_CASE(RAPT_I8, CALL)                                                                  \
    default:                                                                                       \
        CALL(RAPT_BF16);                                                                           \
        break;                                                                                     \
    }

#endif
