/* ceiling_loops.h: the loops that ceiling.c times. */
#ifndef RAPT_TOOLS_CEILING_LOOPS_H
#define RAPT_TOOLS_CEILING_LOOPS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Works until *stop is not 0 and returns the flop or the bytes that it did. memory (64-byte
 * aligned) and bytes (a multiple of 512) are those of a loop over memory; a copy takes bytes / 2
 * from there to a place apart bytes behind, a repetition bytes / (1 + REPEATS). */
typedef double (*loop)(atomic_int *stop, char *memory, size_t bytes, size_t apart);

/* What a loop over memory does with it. Each byte of a copy counts as read and as written; of a
 * repetition as read once and written REPEATS times. */
enum traffic { TRAFFIC_READS, TRAFFIC_COPIES, TRAFFIC_REPETITIONS, TRAFFIC_WRITES, TRAFFICS };
enum { REPEATS = 4 };

/* This CPU's fastest multiply-adds for the dtype; *name says which. */
loop loop_flops(int64_t dtype, const char **name);
/* The loops of this CPU's widest vectors for the traffic, one call each: number 0, 1, ...; NULL past
 * the last. Writes come through the caches and around them: which is faster depends on the size. */
loop loop_memory(enum traffic traffic, int number);

#endif
