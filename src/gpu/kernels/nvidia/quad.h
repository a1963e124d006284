/* quad.h: sums and maxima of four neighbouring lanes, which hold a row of a matrix fragment, and what its exponents
 * are taken from. */
#ifndef RAPT_QUAD_H
#define RAPT_QUAD_H

#include "device.h"

DEVICE float sum_of_quad(float x)
{
    x += lane_xor(x, 1);
    return x + lane_xor(x, 2);
}

DEVICE float max_of_quad(float x)
{
    x = maximum(x, lane_xor(x, 1));
    return maximum(x, lane_xor(x, 2));
}

/* A maximum of -inf (no key yet) is replaced by 0, so that -inf - -inf never reaches exp2. */
DEVICE float exponent_base(float maximum)
{
    return maximum == -INFINITY ? 0 : maximum;
}

#endif
