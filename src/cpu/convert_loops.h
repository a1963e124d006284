/* convert_loops.h: the part of rows_loops.h that changes the type of neighbouring numbers. */

/* ---- from one float to another ---- */

#ifndef V_HAS_EXACT
#define v_store_two_exact v_store_two
#endif

VEC void convert_row(char *to, int to_dtype, const void *from, int from_dtype, int64_t n,
                     int stream)
{
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        vec x, y;
        v_load_two(at(from, from_dtype, i), from_dtype, &x, &y);
        v_store_two_exact(to + i * (to_dtype == RAPT_F32 ? 4 : 2), to_dtype, x, y, stream);
    }
    for (; i < n; i += LANES)
        store_row_part(to, to_dtype, load_row_part(from, from_dtype, i, n), i, n);
}

VEC void convert_rows(const struct row_run *run, int to_dtype, int from_dtype, int64_t n,
                      int stream)
{
    char *to = run->to;
    const char *from = run->from;
    for (int64_t r = 0; r < run->rows; r++, to += run->to_step, from += run->from_step)
        convert_row(to, to_dtype, from, from_dtype, n, stream);
}

/* A table: each type to each, past the caches or not. */
#define CONVERT_TO(name, type)                                                                     \
    static void name(const struct row_run *run, int64_t from_dtype, int64_t n)                     \
    {                                                                                              \
        if (run->stream && streamable(run->to, run->to_step)) {                                    \
            FLOAT_CASES(from_dtype, type##_STREAMED)                                               \
        } else {                                                                                   \
            FLOAT_CASES(from_dtype, type##_KEPT)                                                   \
        }                                                                                          \
    }
#define F32_STREAMED(from)  convert_rows(run, RAPT_F32, from, n, 1)
#define F32_KEPT(from)      convert_rows(run, RAPT_F32, from, n, 0)
#define F16_STREAMED(from)  convert_rows(run, RAPT_F16, from, n, 1)
#define F16_KEPT(from)      convert_rows(run, RAPT_F16, from, n, 0)
#define BF16_STREAMED(from) convert_rows(run, RAPT_BF16, from, n, 1)
#define BF16_KEPT(from)     convert_rows(run, RAPT_BF16, from, n, 0)
CONVERT_TO(convert_to_f32, F32)
CONVERT_TO(convert_to_f16, F16)
CONVERT_TO(convert_to_bf16, BF16)

static void convert(const struct row_run *run, int64_t to_dtype, int64_t from_dtype, int64_t n)
{
    switch (to_dtype) {
    case RAPT_F32:
        convert_to_f32(run, from_dtype, n);
        break;
    case RAPT_F16:
        convert_to_f16(run, from_dtype, n);
        break;
    default:
        convert_to_bf16(run, from_dtype, n);
        break;
    }
}

/* ---- to integers ---- */

/* Magnitudes are in the order of their bits, in each type; infinity and NaN come last. As those of f32. */
VEC uint32_t largest_bits(const void *from, int dtype, int64_t n)
{
    int64_t i = 0;
    int32_t wide = 0;
    uint16_t half = 0;
#ifdef V_HAS_INTEGERS
    int64_t step = dtype == RAPT_F32 ? LANES : 2 * LANES;
    vec m = v_zero();
    for (; i + step <= n; i += step) m = v_larger_bits(m, at(from, dtype, i), dtype);
    if (i) wide = (int32_t)v_largest_bits(m, dtype);
    half = (uint16_t)wide;
#endif
    for (; i < n && dtype == RAPT_F32; i++) {
        int32_t bits;
        memcpy(&bits, at(from, dtype, i), sizeof bits);
        bits &= 0x7fffffff;
        wide = bits > wide ? bits : wide;
    }
    for (; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, at(from, dtype, i), sizeof bits);
        bits &= 0x7fff;
        half = bits > half ? bits : half;
    }
    return dtype == RAPT_F32 ? (uint32_t)wide : bits_from_float(load_float(&half, dtype, 0));
}

/* The nearest integers of x, which the bits of sums with 1.5 * 2^23 count from those of that number. Where the caller
 * rounds upward a quotient may exceed 127. */
VEC void store_integers(int8_t *to, const vec *x, int count, int64_t n)
{
    float sums[4 * LANES];
    int8_t bytes[4 * LANES];
    V_EACH(k, count) v_store(sums + k * LANES, RAPT_F32, x[k]);
    for (int i = 0; i < count * LANES; i++) {
        int32_t q = (int32_t)bits_from_float(sums[i]) - 0x4b400000;
        bytes[i] = (int8_t)(q > 127 ? 127 : q);
    }
    memcpy(to, bytes, (size_t)n);
}

VEC void integers_of_part(int8_t *to, const char *from, int dtype, int count, float inverse,
                          int stream)
{
    vec x[4];
    v_load_two(from, dtype, x, x + 1);
    if (count == 4) v_load_two(at(from, dtype, 2 * LANES), dtype, x + 2, x + 3);
    V_EACH(k, count) x[k] = v_fma(x[k], v_set(inverse), v_set(0x1.8p23f));
#ifdef V_HAS_INTEGERS
    v_store_integers(to, x, count, stream);
#else
    (void)stream;
    store_integers(to, x, count, count * LANES);
#endif
}

VEC void integers_of(int8_t *to, const void *from, int dtype, int64_t n, float inverse, int stream)
{
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        integers_of_part(to + i, at(from, dtype, i), dtype, 4, inverse, stream);
    if (i + 2 * LANES <= n) {
        integers_of_part(to + i, at(from, dtype, i), dtype, 2, inverse, stream);
        i += 2 * LANES;
    }
    for (; i < n; i += LANES) {
        vec x = v_fma(load_row_part(from, dtype, i, n), v_set(inverse), v_set(0x1.8p23f));
        store_integers(to + i, &x, 1, n - i < LANES ? n - i : LANES);
    }
}

VEC void quantise_rows(const struct row_run *run, const struct row_scales *scales, int dtype,
                       int64_t n, int stream)
{
    int64_t width = n / scales->blocks;
    for (int64_t r = 0; r < run->rows; r++)
        for (int64_t b = 0; b < scales->blocks; b++) {
            const void *from = at((const char *)run->from + r * run->from_step, dtype, b * width);
            int8_t *to = (int8_t *)run->to + r * run->to_step + b * width;
            struct row_scale s = row_scale_of(largest_bits(from, dtype, width));
            scales->first[r * scales->row_step + b * scales->block_step] = s.scale;
            if (s.finite) integers_of(to, from, dtype, width, s.inverse, stream);
            else memset(to, 1, (size_t)width);
        }
}

static void quantise(const struct row_run *run, const struct row_scales *scales, int64_t dtype,
                     int64_t n)
{
    int64_t width = n / scales->blocks; /* one store each: half a line, or lines */
    int stream = run->stream && streamable(run->to, run->to_step) &&
                 (width == 2 * LANES || width % (4 * LANES) == 0);
#define CALL(type)                                                                                 \
    if (stream) quantise_rows(run, scales, type, n, 1);                                            \
    else quantise_rows(run, scales, type, n, 0)
    FLOAT_CASES(dtype, CALL)
#undef CALL
}

static uint32_t largest_of_floats(const float *x, int64_t n)
{
    return largest_bits(x, RAPT_F32, n);
}

static void integers_of_floats(int8_t *to, const float *x, int64_t n, float inverse)
{
    integers_of(to, x, RAPT_F32, n, inverse, 0);
}
