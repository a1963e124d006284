/* threads.c: the worker pool. Jobs live on their caller's stack; idle workers sleep on one
 * semaphore.
 *
 * A worker keeps off the CPU of the thread that called last. Linux may wake it there although others
 * are idle (a virtual one that rests counts as taken away), behind the caller, which is busy until
 * the job is over; both then share that CPU until the load is balanced, some milliseconds later.
 *
 * Workers end within microseconds of their caller, and jobs follow each other as closely, where to
 * sleep and be woken takes tens: both look for a moment first. */
#include "base/threads.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    CALLER_LOOKS = 50000, /* ns before it sleeps */
    WORKER_LOOKS = 20000,
    LOOKS = 8, /* between two readings of the clock */
};

struct job {
    void (*run)(void *argument, int64_t slot);
    void *argument;
    int64_t slots, next_slot; /* guarded by the pool's mutex, as is the list */
    int64_t running;          /* workers inside run */
    int closed;               /* the caller waits: the last worker out posts finished */
    sem_t finished;
    struct job *next;
};

struct thread_pool {
    pthread_mutex_t mutex; /* held for a few list operations only, never while a job runs */
    sem_t wake;            /* counts invitations; a worker that finds no job sleeps again */
    struct job *jobs;
    int stop;
    int caller_cpu;          /* of the last job; -1: not known */
    _Atomic int64_t awake;   /* workers that look for a job */
    _Atomic int64_t callers; /* inside pool_run */
    int64_t threads;
    int64_t started; /* of worker[] */
    pthread_t worker[];
};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) && errno == EINTR) {}
}

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* 1: within looks ns. */
static int look_for(sem_t *semaphore, int64_t looks)
{
    int64_t end = nanoseconds() + looks;
    do {
        for (int i = 0; i < LOOKS; i++, relax())
            if (!sem_trywait(semaphore)) return 1;
    } while (nanoseconds() < end);
    return 0;
}

/* Where a worker may run: what it set itself, but for the CPU that it keeps off (-1: none). */
struct place {
    cpu_set_t set;
    int off;
};

/* A set that somebody else has changed in the meantime is where the worker begins anew. */
static void keep_off(struct place *place, int cpu, int64_t workers)
{
    cpu_set_t allowed;
    if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == place->off) return;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    if (place->off >= 0 && CPU_EQUAL(&allowed, &place->set)) CPU_SET(place->off, &allowed);
    struct place next = {allowed, cpu};
    CPU_CLR(cpu, &next.set);
    if (CPU_COUNT(&next.set) < workers) return;
    if (!sched_setaffinity(0, sizeof next.set, &next.set)) *place = next;
}

/* Takes a slot of the first job that still has one. */
static struct job *join_job(struct thread_pool *pool, int64_t *slot)
{
    struct job *job = pool->jobs;
    while (job && job->next_slot >= job->slots) job = job->next;
    if (!job) return NULL;
    *slot = job->next_slot++;
    job->running++;
    return job;
}

static void *work(void *argument)
{
    struct thread_pool *pool = argument;
    struct place place = {.off = -1};
    for (;;) {
        atomic_fetch_add_explicit(&pool->awake, 1, memory_order_relaxed);
        int found = look_for(&pool->wake, WORKER_LOOKS);
        atomic_fetch_sub_explicit(&pool->awake, 1, memory_order_relaxed);
        if (!found) wait_for(&pool->wake);
        pthread_mutex_lock(&pool->mutex);
        int stop = pool->stop;
        int64_t slot = 0;
        struct job *job = stop ? NULL : join_job(pool, &slot);
        int caller_cpu = pool->caller_cpu;
        pthread_mutex_unlock(&pool->mutex);
        if (stop) return NULL;
        keep_off(&place, caller_cpu, pool->threads - 1);
        if (!job) continue;
        job->run(job->argument, slot);
        pthread_mutex_lock(&pool->mutex);
        int last = --job->running == 0 && job->closed;
        if (last)
            sem_post(&job->finished); /* under the mutex: the job's memory lives until its caller
                                         has been here */
        pthread_mutex_unlock(&pool->mutex);
    }
}

struct thread_pool *pool_open(int64_t threads)
{
    if (threads < 1) threads = 1;
    struct thread_pool *pool =
        alloc_zeroed(1, sizeof *pool + (size_t)(threads - 1) * sizeof pool->worker[0]);
    if (!pool) return NULL;
    pool->threads = threads;
    pool->caller_cpu = -1;
    if (pthread_mutex_init(&pool->mutex, NULL)) {
        free(pool);
        return NULL;
    }
    if (sem_init(&pool->wake, 0, 0)) {
        pthread_mutex_destroy(&pool->mutex);
        free(pool);
        return NULL;
    }
    while (pool->started < threads - 1) {
        if (pthread_create(&pool->worker[pool->started], NULL, work, pool)) {
            pool_close(pool);
            return NULL;
        }
        pool->started++;
    }
    return pool;
}

void pool_close(struct thread_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = 1;
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t i = 0; i < pool->started; i++) sem_post(&pool->wake);
    for (int64_t i = 0; i < pool->started; i++) pthread_join(pool->worker[i], NULL);
    sem_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int64_t pool_threads(const struct thread_pool *pool)
{
    return pool->threads;
}

/* Removes the job from the list, so that no more workers join; 1 if some are still inside. */
static int close_job(struct thread_pool *pool, struct job *job)
{
    pthread_mutex_lock(&pool->mutex);
    struct job **link = &pool->jobs;
    while (*link != job) link = &(*link)->next;
    *link = job->next;
    job->closed = 1;
    int busy = job->running > 0;
    pthread_mutex_unlock(&pool->mutex);
    return busy;
}

/* Runs a job with the workers that are invited. */
static void run_shared(struct thread_pool *pool, int64_t slots, int64_t invited,
                       void (*run)(void *argument, int64_t slot), void *argument)
{
    struct job job = {.run = run, .argument = argument, .slots = slots, .next_slot = 1};
    if (invited <= 0 || sem_init(&job.finished, 0, 0)) {
        run(argument, 0);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    struct job **link = &pool->jobs;
    while (*link) link = &(*link)->next;
    *link = &job;
    pool->caller_cpu = sched_getcpu();
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t i = 0; i < invited; i++) sem_post(&pool->wake);
    run(argument, 0);
    if (close_job(pool, &job)) {
        if (!look_for(&job.finished, CALLER_LOOKS)) wait_for(&job.finished);
        /* The worker that posted may still hold the mutex and touch the job; wait until it has
         * left. */
        pthread_mutex_lock(&pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
    }
    sem_destroy(&job.finished);
}

/* A worker that takes a CPU from another caller serves neither. */
void pool_run(struct thread_pool *pool, int64_t slots, int64_t worth,
              void (*run)(void *argument, int64_t slot), void *argument)
{
    int64_t callers = 1 + atomic_fetch_add_explicit(&pool->callers, 1, memory_order_relaxed),
            threads = worth < POOL_LONG ? pool->threads / callers : pool->threads,
            awake = 1 + atomic_load_explicit(&pool->awake, memory_order_relaxed);
    if (worth < awake) worth = awake;
    if (threads > slots) threads = slots;
    if (threads > worth) threads = worth;
    run_shared(pool, slots, threads - 1, run, argument);
    atomic_fetch_sub_explicit(&pool->callers, 1, memory_order_relaxed);
}
