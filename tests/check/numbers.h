/* numbers.h: pseudo-random numbers of the tests of kernels, the same in each run. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <stdint.h>

static uint32_t seed = 1;

/* From -1 to below 1. */
static float number(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1;
}

#endif
