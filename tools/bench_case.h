/* bench_case.h: one problem made ready on a device, and its times. */
#ifndef RAPT_TOOLS_BENCH_CASE_H
#define RAPT_TOOLS_BENCH_CASE_H

#include "device.h"
#include "problem.h"

struct bench_times {
    double least, median, most; /* seconds of a call */
    int64_t calls;
};

enum { BENCH_ROUNDS_MAX = 1000 };

struct bench_case {
    struct device *device;
    struct problem_line line;
    struct problem_instance instance;
    struct problem_device on_device;
    rapt_plan *plan; /* of forward; NULL for the other operations */
    void *workspace;
    int through_forward; /* calls go through rapt_forward instead, which keeps plans itself */
    char kernel[64];
    int64_t copies;       /* of K and V; 0: the instance's own are used */
    void *memory;         /* of the copies: K and V of the first, of the second, ...; or of all
                             tensors of an operation */
    void *stream_memory;  /* part of it that a stream may be timed over; NULL: none */
    size_t stream_bytes;
    size_t copy_bytes[2]; /* of one K and one V */
    int64_t turn;         /* copy that the next call takes */
    double working_set;   /* bytes that the calls go through before one comes again */
    int64_t round_calls;  /* calls that are timed together */
    double round_seconds[BENCH_ROUNDS_MAX]; /* of a call */
    int rounds;
    struct bench_times times;
};

/* 1: memory rather than arithmetic limits the problem on common hardware. */
int bench_is_bound_by_memory(const struct problem_line *line);
/* Builds the problem. rotate: copies of K and V; -1: chosen. 0, or an exit code after a sentence;
 * *out is then empty. */
int bench_case_open(struct device *device, const struct device_options *options,
                    const struct problem_line *line, int64_t rotate, struct bench_case *out);
/* Calls before any that counts. */
int bench_case_warm(struct bench_case *c);
/* Times calls of about so many seconds in all, at least one round; may be called again. */
int bench_case_time(struct bench_case *c, double seconds);
/* Over all rounds so far. */
struct bench_times bench_case_times(struct bench_case *c);
void bench_case_close(struct bench_case *c);

#endif
