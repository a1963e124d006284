/* bench_case.h: one problem made ready on a device, and its times. */
#ifndef RAPT_TOOLS_BENCH_CASE_H
#define RAPT_TOOLS_BENCH_CASE_H

#include "device.h"
#include "problem.h"

struct bench_times {
    double least, median, most; /* seconds of a call */
    int64_t calls;
};

struct bench_case {
    struct device *device;
    struct problem_line line;
    struct problem_instance instance;
    struct problem_device on_device;
    rapt_plan *plan; /* of forward; NULL for the other operations */
    void *workspace;
    int through_forward; /* calls go through rapt_forward instead, which keeps plans itself */
    char kernel[64];
    int64_t copies;       /* of K and V, 1 or more */
    char *copy[2];        /* copies - 1 of K's and of V's memory, in one piece each */
    size_t copy_bytes[2]; /* from one to the next */
    int64_t turn;         /* copy that the next call takes */
    double working_set;   /* bytes that the calls go through before one comes again */
    struct bench_times times;
};

/* 1: memory rather than arithmetic limits the problem on common hardware. */
int bench_is_bound_by_memory(const struct problem_line *line);
/* Builds the problem. rotate: copies of K and V; -1: chosen. 0, or an exit code after a sentence;
 * *out is then empty. */
int bench_case_open(struct device *device, const struct device_options *options,
                    const struct problem_line *line, int64_t rotate, struct bench_case *out);
/* Fills times from calls of about so many seconds in all. */
int bench_case_time(struct bench_case *c, double seconds);
void bench_case_close(struct bench_case *c);

#endif
