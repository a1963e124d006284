/* convert_loops.h: the part of rows_loops.h that changes the type of neighbouring numbers. */

static void row_to_floats(float *to, const void *from, int64_t dtype, int64_t n)
{
#define CALL(type)                                                                                 \
    for (int64_t i = 0; i < n; i += LANES)                                                         \
    store_row_part(to, RAPT_F32, load_row_part(from, type, i, n), i, n)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

static void floats_to_row(void *to, int64_t dtype, const float *from, int64_t n)
{
#define CALL(type)                                                                                 \
    for (int64_t i = 0; i < n; i += LANES)                                                         \
    store_row_part(to, type, load_row_part(from, RAPT_F32, i, n), i, n)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

/* Magnitudes are in the order of their bits; infinity and NaN come last. */
static uint32_t largest_of_floats(const float *x, int64_t n)
{
    int32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return (uint32_t)largest;
}

/* To the nearest integers, which the bits of sums with 1.5 * 2^23 count from those of that number. Where the caller
 * rounds upward a quotient may exceed 127. */
static void quantise_floats(int8_t *restrict to, const float *restrict x, int64_t n, float inverse)
{
    for (int64_t i = 0; i < n; i++) {
        float sum = x[i] * inverse + 0x1.8p23f;
        int32_t q;
        memcpy(&q, &sum, sizeof q);
        q -= 0x4b400000;
        to[i] = (int8_t)(q > 127 ? 127 : q);
    }
}
