/* integer.h: small helpers for sizes and counts. */
#ifndef RAPT_BASE_INTEGER_H
#define RAPT_BASE_INTEGER_H

#include <stdint.h>

/* x / y rounded up; neither is negative. */
static inline int64_t ceil_div(int64_t x, int64_t y)
{
    return x / y + (x % y != 0);
}

/* x rounded up to a multiple of step; neither is negative. */
static inline int64_t round_up(int64_t x, int64_t step)
{
    return (x + step - 1) / step * step;
}

static inline int64_t min64(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static inline int64_t max64(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

/* The least power of two that is not below x. */
static inline int64_t power_from(int64_t x)
{
    int64_t p = 1;
    while (p < x) p *= 2;
    return p;
}

#endif
