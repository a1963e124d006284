/* ceiling.h: what this machine can do at most, measured: arithmetic in registers, and streams of
 * reads, copies and writes. */
#ifndef RAPT_TOOLS_CEILING_H
#define RAPT_TOOLS_CEILING_H

#include "ceiling_loops.h"
#include "device.h"

struct ceiling {
    double rate;   /* flop/s or bytes/s; 0: not known here */
    char what[96]; /* "bf16 dot products in registers, 2 threads" */
};

/* Multiply-adds (2 flop each) of the CPU's best instructions for the dtype, over threads at once.
 */
struct ceiling ceiling_cpu_flops(int64_t dtype, int64_t threads);
/* The traffic over a buffer of so many bytes (64 KiB a thread ... 1 GiB of it), again and again,
 * over threads at once. A copy counts its bytes as read and as written, over a buffer that holds
 * both its sides; nothing else that the hardware moves counts, such as lines it reads to write.
 * Memory has other users, whose load changes: trials are meant to lie between the rounds of what is
 * compared, and the rate is their median, as a program's time is. NULL: no memory; the others take
 * it and do nothing. memory: the buffer, for reads alone (64-byte aligned), as where pages lie and
 * how large they are matters much; NULL: one of its own. */
enum { STREAM_TRIALS_MAX = 64 };
struct stream;
struct stream *stream_open(enum traffic traffic, double bytes, void *memory, int64_t threads);
void stream_try(struct stream *s);
struct ceiling stream_ceiling(struct stream *s);
void stream_close(struct stream *s);
/* Copies within a GPU's memory; each byte counts as read and as written. */
struct ceiling ceiling_gpu_copies(struct device *device);

#endif
