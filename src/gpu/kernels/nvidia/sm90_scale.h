/* sm90_scale.h: a scale of i8 keys or values as consumers find it (sm90_scales_i8.h). */
#ifndef RAPT_NVIDIA_SM90_SCALE_H
#define RAPT_NVIDIA_SM90_SCALE_H

#include "sm90_tile.h"

/* In an order in which a lane's columns of scores are neighbours, four of 16 keys: key 8 h + 2 q + e
 * at 4 q + 2 h + e. */
DEVICE int place_of_scale(int key)
{
    return (key & ~15) | (key & 6) << 1 | (key >> 2 & 2) | (key & 1);
}

/* Of a scale's bits; 0 for what is no number. */
DEVICE int scale_exponent(uint32_t scale)
{
    int exponent = scale >> 23 & 255;
    return exponent == 255 ? 0 : exponent;
}

/* In units of log2, and NaN where it is infinite, as products of an infinity with numbers of both
 * signs are. */
DEVICE float scale_of_key(float x, float scale_log2)
{
    return __fmaf_rn(x, scale_log2, __fadd_rn(x, -x));
}

#endif
