/* row_kernels.h: what an instruction set offers the separate operations that work row by row. */
#ifndef RAPT_CPU_ROW_KERNELS_H
#define RAPT_CPU_ROW_KERNELS_H

#include "base/dtype.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SOFTMAX_GUESS_LEAST =
        256, /* columns of a row whose largest element is guessed, its lines asked for ahead */
    SOFTMAX_SCRATCH = 4096,        /* floats: rows up to so many columns are exponentiated once, */
    SOFTMAX_SCRATCH_MOST = 131072, /* and up to so many, with memory of the heap */
};

/* Rows that a kernel takes one after another. */
struct row_run {
    void *to;
    const void *from;
    int64_t to_step, from_step; /* bytes from a row to the next */
    int64_t rows;
    int64_t table_step; /* rotate: floats from a row's cos and sin to the next; 0: all share them */
    int64_t ahead; /* bytes from a row to the one whose lines are asked for meanwhile; 0: none */
    int stream;    /* past the caches, where lines allow it */
};

/* Rows of softmax on their way: the terms of a row are scaled and stored while the next row's are
 * computed, so that writing and arithmetic overlap. */
struct softmax_rows {
    float *scratch[2]; /* terms of a row, of the rows in turn: 64-byte aligned */
    int64_t columns;   /* of each; at least SOFTMAX_SCRATCH */
    int turn;
    void *to; /* the row that waits, its terms in scratch[turn]; NULL: none */
    int64_t dtype, n;
    float factor;
    int stream;
    int64_t ahead; /* of the row that is given: as in row_run */
};

/* Where the scales of a run's rows go, each row in blocks of equal width: steps in floats. */
struct row_scales {
    float *first;
    int64_t row_step, blocks, block_step;
};

/* Of a block whose largest magnitude has these bits, symmetric: max |x| / 127, but at least 2^-126, so that neither
 * the scale nor its inverse leaves the normal numbers; 0 for zeros alone. NaN or infinity makes it NaN, and the
 * integers 1, so that it stays visible. */
struct row_scale {
    float scale, inverse;
    int finite;
};
static inline __attribute__((always_inline)) struct row_scale row_scale_of(uint32_t largest_bits)
{
    float largest = float_from_bits(largest_bits);
    if (largest_bits >= 0x7f800000) return (struct row_scale){.scale = NAN};
    if (!largest_bits) return (struct row_scale){.finite = 1};
    if (largest < 127 * 0x1p-126f) largest = 127 * 0x1p-126f;
    return (struct row_scale){.scale = largest / 127, .inverse = 127 / largest, .finite = 1};
}

/* Rows are contiguous in their channels and aligned to their elements. stream: past the caches
 * where the destination's lines allow it, for what would not stay in them. */
struct row_kernels {
    const char *name;
    /* to = softmax(from) over n elements; -inf everywhere gives zeros, NaN anywhere gives NaN
     * everywhere. from may be to. The rows of a state are whole after softmax_end. */
    void (*softmax)(void *to, int64_t to_dtype, const void *from, int64_t from_dtype, int64_t n,
                    struct softmax_rows *state, int stream);
    void (*softmax_end)(struct softmax_rows *state);
    /* Rotates the pairs of each row; from may be to. interleaved: pairs (2c, 2c + 1), else
     * (c, c + pairs). */
    void (*rotate)(const struct row_run *run, int64_t dtype, const float *cos, const float *sin,
                   int64_t pairs, int interleaved);
    /* Rows [count][pairs]: cos and sin of (position + row) * inverse[i], in f64, times magnitude,
     * rounded to f32. Angles stay below ANGLE_MAX, also that of 1. */
    void (*angles)(float *cos, float *sin, int64_t position, int64_t count, const double *inverse,
                   double magnitude, int64_t pairs);
    /* Rows of n elements into another type of float. */
    void (*convert)(const struct row_run *run, int64_t to_dtype, int64_t from_dtype, int64_t n);
    /* Rows of n elements into integers, block by block (row_scale_of). */
    void (*quantise)(const struct row_run *run, const struct row_scales *scales, int64_t dtype,
                     int64_t n);
    /* What that consists of, for a block that comes in parts. The bits of the largest magnitude; more than those of
     * infinity: there is a NaN. */
    uint32_t (*largest)(const float *x, int64_t n);
    /* x * inverse to the nearest integers, -127 to 127; inverse: 127 / the largest magnitude, as the caller rounds. */
    void (*integers)(int8_t *to, const float *x, int64_t n, float inverse);
    /* Copies bytes past the caches (NULL: memcpy serves). */
    void (*copy_stream)(void *to, const void *from, size_t bytes);
    /* The same to count places, step bytes apart; NULL with copy_stream. */
    void (*repeat_stream)(void *to, int64_t step, int64_t count, const void *from, size_t bytes);
    /* Repeats a line of 64 bytes, which consists of equal elements; NULL: there is none. */
    void (*fill)(void *to, const void *line, size_t bytes, int stream);
    /* After the last of them on a thread (ops_parallel): other threads see the bytes from here on. */
    void (*stream_end)(void);
};

/* Up to here the two-part reduction of angles() is exact in f64 (the multiple of pi/2 has at most
 * 20 bits). */
#define ANGLE_MAX 1.6e6

/* The levels that have some (levels.def). */
#define LEVEL(name, ...) extern const struct row_kernels rows_##name;
#include "cpu/levels.def"

/* Asks for lines of 64 bytes from p on: before something else is computed, of what is read next. */
static inline __attribute__((always_inline)) void ops_expect_lines(const void *p, int64_t lines)
{
    for (int64_t i = 0; i < lines; i++) __builtin_prefetch((const char *)p + 64 * i, 0, 2);
}
#endif
