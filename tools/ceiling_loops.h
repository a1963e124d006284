/* ceiling_loops.h: the loops that ceiling.c times. */
#ifndef RAPT_TOOLS_CEILING_LOOPS_H
#define RAPT_TOOLS_CEILING_LOOPS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Works until *stop is not 0 and returns the flop or the bytes that it did. memory (64-byte
 * aligned) and bytes (a multiple of 256) are a reader's. */
typedef double (*loop)(atomic_int *stop, const char *memory, size_t bytes);

/* This CPU's fastest multiply-adds for the dtype; *name says which. */
loop loop_flops(int64_t dtype, const char **name);
loop loop_reads(void);

#endif
