/* ops.h: what the files of the CPU's separate operations share: ops.c, a loop over threads; ops_rope.c, rotations,
 * which kv_append (ops_append.c) does too. */
#ifndef RAPT_CPU_OPS_H
#define RAPT_CPU_OPS_H

#include "base/integer.h"
#include "cpu/cpu.h"
#include "cpu/row_kernels.h"

/* Outputs of more bytes than this leave the caches anyway, so they bypass them: no read before each
 * write. */
#define STREAM_BYTES 16e6

/* ---- ops.c ---- */

const struct cpu_device *ops_device(const rapt_device *device);
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

/* ---- ops_rope.c ---- */

enum {
    LINES_FIRST = 32,      /* asked for before the angles of a block are computed */
    ROTATED_FLOATS = 2048, /* of rows that are rotated before they are converted */
};

/* A rotation as an operation needs it; filled by rotation_prepare. Where the caller gives no table of cos and sin,
 * angles are position * inverse[pair], and cos and sin are multiplied by magnitude. */
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
/* The same for count positions from first, 0 or more, on. */
rapt_status rotation_check_run(const struct rotation *r, int64_t first, int64_t count,
                               const char *function);
/* cos and sin [count][pairs] of positions. */
void rotation_angles(const struct rotation *r, const int64_t *position, int64_t count, float *cos,
                     float *sin);
/* Rows of channels elements that lie side by side, of one dtype, as rotation_row does each. */
void rotation_rows(const struct rotation *r, const struct row_run *run, int64_t dtype,
                   int64_t channels, const float *cos, const float *sin);
/* Rows of a run from row first on, in f32 and side by side, as many as x has room for: returns how many. channels: at
 * most ROTATED_FLOATS. */
int64_t rotation_piece(const struct rotation *r, float x[ROTATED_FLOATS], const struct row_run *run,
                       int64_t first, int64_t dtype, int64_t channels, const float *cos,
                       const float *sin);
/* One row of channels elements, rotated in its first 2 * pairs and copied in the rest; from may be
 * to with equal stride. */
void rotation_row(const struct rotation *r, void *to, int64_t to_dtype, int64_t to_stride,
                  const void *from, int64_t from_dtype, int64_t from_stride, int64_t channels,
                  const float *cos, const float *sin);

#endif
