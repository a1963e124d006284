/* threads.h: a pool of sleeping workers that help a caller through one job. */
#ifndef RAPT_BASE_THREADS_H
#define RAPT_BASE_THREADS_H

#include <stdint.h>

struct thread_pool;

/* threads includes the caller of pool_run, so threads - 1 workers are started; at least 1. NULL
 * when the system gives none. */
struct thread_pool *pool_open(int64_t threads);
/* No pool_run may be under way. NULL is fine. */
void pool_close(struct thread_pool *pool);
int64_t pool_threads(const struct thread_pool *pool);

enum { POOL_LONG = 64 }; /* threads that a long job is worth: see pool_run */

/* Calls run(argument, slot) at once on the calling thread (slot 0) and on up to slots - 1 workers
 * (slots 1, 2, ..., each at most once), and returns when all that began have returned. worth: the
 * threads that the work is worth waking, the caller included, however many there are: it takes tens
 * of microseconds; beyond that those begin that are still awake after an earlier job. A worker that
 * comes too late never begins, so run must take its work from a shared atomic counter until none is
 * left, and a job is done when the caller's own run returns and the others have. Any number of
 * threads may run jobs at once; of n callers, each invites workers for an nth of the threads, itself
 * included, but for jobs worth POOL_LONG threads or more, which mostly outlast the other callers.
 * Allocates nothing; waits for microseconds before it sleeps; no lock is held while run runs. Workers
 * keep off the CPU of the caller where at least as many CPUs as workers are left to them. */
void pool_run(struct thread_pool *pool, int64_t slots, int64_t worth,
              void (*run)(void *argument, int64_t slot), void *argument);

#endif
