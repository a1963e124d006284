/* ops.h: what the files of the CPU's separate operations share: row kernels per instruction set,
 * and a loop over threads. */
#ifndef RAPT_CPU_OPS_H
#define RAPT_CPU_OPS_H

#include "base/integer.h"
#include "cpu/cpu.h"

enum {
    ROPE_PAIRS_MAX = 1024, /* of rope_frequencies */
    LINES_FIRST = 32,      /* asked for before the angles of a block are computed */
    SOFTMAX_GUESS_LEAST =
        256, /* columns of a row whose largest element is guessed, its lines asked for ahead */
    SOFTMAX_SCRATCH = 4096,        /* floats: rows up to so many columns are exponentiated once, */
    SOFTMAX_SCRATCH_MOST = 131072, /* and up to so many, with memory of the heap */
};

/* Outputs of more bytes than this leave the caches anyway, so they bypass them: no read before each
 * write. */
#define STREAM_BYTES 16e6

/* Rows of one rotation each: the steps from one to the next in bytes, and in floats for their cos
 * and sin (0: all share them). stream: past the caches, where lines allow it. ahead: bytes from a row to
 * the one whose lines are asked for meanwhile; 0: none. */
struct row_run {
    void *to;
    const void *from;
    int64_t to_step, from_step, rows, table_step, ahead;
    int stream;
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

extern const struct row_kernels rows_scalar;
#if defined(__x86_64__)
extern const struct row_kernels rows_avx2, rows_avx512, rows_avx512_bf16, rows_amx;
#elif defined(__aarch64__)
extern const struct row_kernels rows_neon;
#endif

const struct cpu_device *ops_device(const rapt_device *device);
const struct row_kernels *ops_rows(const rapt_device *device);
/* Runs item(argument, i) for i in 0 ... items - 1, on several threads when about so many bytes are
 * worth it; ends the streams of each thread. */
void ops_parallel(const rapt_device *device, int64_t items, double bytes,
                  void (*item)(const void *argument, int64_t index), const void *argument);
/* Address of element [i0, i1, i2, 0]. */
static inline void *ops_row(const rapt_tensor *t, size_t element, int64_t i0, int64_t i1,
                            int64_t i2)
{
    return (char *)t->data +
           (i0 * t->stride[0] + i1 * t->stride[1] + i2 * t->stride[2]) * (int64_t)element;
}
/* Asks for lines of 64 bytes from p on: before something else is computed, of what is read next. */
static inline __attribute__((always_inline)) void ops_expect_lines(const void *p, int64_t lines)
{
    for (int64_t i = 0; i < lines; i++) __builtin_prefetch((const char *)p + 64 * i, 0, 2);
}
/* Asks for the first lines of each page of what comes soon, to be read or written past the caches: the
 * processor follows a stream of lines by itself, but not into the next page, whose translation takes
 * longer than the line. How many pay depends on how much is computed between them. */
static inline void ops_expect(const void *p, int64_t bytes, int64_t lines)
{
    enum { PAGE = 4096 };
    for (int64_t at = 0; at < bytes; at += PAGE) ops_expect_lines((const char *)p + at, lines);
}
/* The other way, as the CPU's row of cpu_requests says: while a run of rows is read, the lines of the run that
 * comes its rows_ahead later or more. Returns the bytes to that from run i of a block of runs that begin step bytes
 * apart, and blocks block_step; 0: ops_expect serves. */
static inline int64_t ops_ahead(const rapt_device *device, int64_t run_bytes, int64_t i,
                                int64_t runs, int64_t step, int64_t block_step)
{
    int64_t bytes = cpu_requests_of(ops_device(device)->features, 0)->rows_ahead;
    if (!bytes || run_bytes <= 0) return 0;
    int64_t then = i + ceil_div(bytes, run_bytes);
    return then / runs * block_step + (then % runs - i) * step;
}

/* A rotation as an operation needs it: checked tables or frequencies. */
struct rotation {
    const rapt_rope_args *args;
    int64_t pairs;
    double inverse[ROPE_PAIRS_MAX], magnitude, largest; /* of |inverse| */
    const struct row_kernels *rows;
};

/* args: checked, with its rotary_channels filled in. */
void rotation_prepare(struct rotation *r, const rapt_device *device, const rapt_rope_args *args);
/* INVALID when the caller's table has no row for position. */
rapt_status rotation_check(const struct rotation *r, int64_t position, const char *function);
/* cos and sin [count][pairs] of positions. */
void rotation_angles(const struct rotation *r, const int64_t *position, int64_t count, float *cos,
                     float *sin);
/* Rows of channels elements that lie side by side, of one dtype, as rotation_row does each. */
void rotation_rows(const struct rotation *r, const struct row_run *run, int64_t dtype,
                   int64_t channels, const float *cos, const float *sin);
/* One row of channels elements, rotated in its first 2 * pairs and copied in the rest; from may be
 * to with equal stride. */
void rotation_row(const struct rotation *r, void *to, int64_t to_dtype, int64_t to_stride,
                  const void *from, int64_t from_dtype, int64_t from_stride, int64_t channels,
                  const float *cos, const float *sin);

#endif
