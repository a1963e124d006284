/* 64-bit arithmetic over lanes. */
#include <math.h>

#include "lanes.h"

static inline double fraction(double a)
{
    double r = a - __builtin_floor(a);
    return r >= 1.0 ? 0x1.fffffffffffffp-1 : r;
}

static inline double mantissa(double a)
{
    int e;
    return isfinite(a) ? frexp(a, &e) : a;
}

static inline int32_t exponent(double a)
{
    int e = 0;
    if (isfinite(a)) (void)frexp(a, &e);
    return e;
}

static inline double scale(double a, int32_t b)
{
    return ldexp(a, b > 5000 ? 5000 : b < -5000 ? -5000 : b);
}

static inline int32_t to_int(double a)
{
    if (a != a) return 0;
    return a >= 2147483647.0 ? INT32_MAX : a <= -2147483648.0 ? INT32_MIN : (int32_t)a;
}

static inline uint32_t to_unsigned(double a)
{
    return a != a || a <= 0 ? 0 : a >= 4294967295.0 ? UINT32_MAX : (uint32_t)a;
}

/* Bits of 2/pi after the binary point, most significant first. */
static const uint32_t two_over_pi_words[] = {
    0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab, 0xdebbc561,
    0xb7246e3a, 0x424dd2e0, 0x06492eea, 0x09d1921c, 0xfe1deb1c, 0xb129a73e, 0xe88235f5, 0x2ebb4484,
    0xe99c7026, 0xb45f7e41, 0x3991d639, 0x835339f4, 0x9c845f8b, 0xbdf9283b, 0x1ff897ff, 0xde05980f,
    0xef2f118b, 0x5a0a6d1f, 0x6d367ecf, 0x27cb09b7, 0x4f463f66, 0x9e5fea2d, 0x7527bac7, 0xebe5f17b,
    0x3d0739f7, 0x8a5292ea, 0x6bfb5fb1, 0x1f8d5d08, 0x56033046};

/* Segment b (53 bits each) of 2/pi for an argument of the size of a, as v_trig_preop_f64 delivers
   it to the Payne-Hanek reduction: bits from 53 b, later for large exponents, scaled to their
   weight. */
static double two_over_pi(double a, uint32_t b)
{
    int e = (int)(as_bits64(a) >> 52 & 0x7ff);
    int shift = (int)(b & 31) * 53 + (e > 1077 ? e - 1077 : 0);
    uint64_t segment = 0;
    for (int i = 0; i < 53; i++) {
        int bit = shift + i;
        uint32_t word =
            bit / 32 < (int)(sizeof two_over_pi_words / 4) ? two_over_pi_words[bit / 32] : 0;
        segment = segment << 1 | (word >> (31 - bit % 32) & 1);
    }
    int weight = -53 - shift + (e >= 0x7b0 ? 128 : 0);
    return ldexp((double)segment, weight);
}

#define LANE_DEF "lanes_wide.def"
#include "lanes_gen.h"

const struct op_table ops_wide = {rows, sizeof rows / sizeof *rows};
