/* threads.c: the worker pool. Jobs live on their caller's stack; idle workers sleep on one
 * semaphore.
 *
 * A worker keeps off the CPU of the thread that called last. Linux may wake it there although others
 * are idle (a virtual one that rests counts as taken away), behind the caller, which is busy until
 * the job is over; both then share that CPU until the load is balanced, some milliseconds later. While that
 * thread sleeps, the CPU is free for workers whose own one is busy with something else.
 *
 * Workers end within microseconds of their caller, and jobs follow each other as closely, where to
 * sleep and be woken takes tens: both look for a moment first. */
#include "base/threads.h"

#include "base/alloc.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum {
    CALLER_LOOKS = 50000,   /* ns before it sleeps */
    CALLER_SLEEPS = 300000, /* ns before it gives its CPU away */
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
    fenv_t environment; /* the caller's */
    struct job *next;
};

struct worker {
    struct thread_pool *pool;
    pthread_t thread;
    /* Where it may run: what it set itself, but for the CPU that it keeps off (-1: none). Both change under
     * the pool's places. */
    cpu_set_t set;
    _Atomic int off;
};

struct thread_pool {
    pthread_mutex_t mutex; /* held for a few list operations only, never while a job runs */
    pthread_mutex_t places;
    sem_t wake; /* counts invitations; a worker that finds no job sleeps again */
    struct job *jobs;
    int stop;
    int caller_cpu;          /* of the last job; -1: not known */
    _Atomic int64_t awake;   /* workers that look for a job */
    _Atomic int64_t callers; /* inside pool_run */
    int64_t threads;
    int64_t started; /* of worker[] */
    struct worker worker[];
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

/* 1: within so many ns. */
static int sleep_for(sem_t *semaphore, int64_t ns)
{
    struct timespec t;
    int failed;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += ns;
    if (t.tv_nsec >= 1000000000) t.tv_nsec -= 1000000000, t.tv_sec++;
    while ((failed = sem_timedwait(semaphore, &t)) && errno == EINTR) {}
    return !failed;
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

/* A set that somebody else has changed in the meantime is where the worker begins anew. */
static void move_off(struct worker *own, int cpu)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    if (own->off >= 0 && CPU_EQUAL(&allowed, &own->set)) CPU_SET(own->off, &allowed);
    cpu_set_t set = allowed;
    CPU_CLR(cpu, &set);
    if (CPU_COUNT(&set) < own->pool->threads - 1) return;
    if (sched_setaffinity(0, sizeof set, &set)) return;
    own->set = set;
    own->off = cpu;
}

static void keep_off(struct worker *own, int cpu)
{
    if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == own->off) return;
    pthread_mutex_lock(&own->pool->places);
    move_off(own, cpu);
    pthread_mutex_unlock(&own->pool->places);
}

/* Opens a CPU to the workers that keep off it, or closes it again. */
static void open_cpu(struct thread_pool *pool, int cpu, int open)
{
    pthread_mutex_lock(&pool->places);
    for (int64_t i = 0; i < pool->started; i++) {
        struct worker *w = &pool->worker[i];
        cpu_set_t now, opened = w->set;
        if (cpu < 0 || w->off != cpu) continue;
        CPU_SET(cpu, &opened);
        if (pthread_getaffinity_np(w->thread, sizeof now, &now)) continue;
        if (!CPU_EQUAL(&now, open ? &w->set : &opened)) continue; /* somebody else's */
        (void)pthread_setaffinity_np(w->thread, sizeof now, open ? &opened : &w->set);
    }
    pthread_mutex_unlock(&pool->places);
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

/* With the caller's rounding and subnormals, so that results do not depend on who computes them. */
static void run_as_caller(const struct job *job, int64_t slot)
{
    fenv_t own;
    fegetenv(&own);
    fesetenv(&job->environment);
    job->run(job->argument, slot);
    fesetenv(&own);
}

static void *work(void *argument)
{
    struct worker *own = argument;
    struct thread_pool *pool = own->pool;
    pthread_setname_np(pthread_self(), "rapt worker"); /* for top, gdb and profilers */
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
        keep_off(own, caller_cpu);
        if (!job) continue;
        run_as_caller(job, slot);
        pthread_mutex_lock(&pool->mutex);
        int last = --job->running == 0 && job->closed;
        if (last)
            sem_post(&job->finished); /* under the mutex: the job's memory lives until its caller
                                         has been here */
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Signals of the process are for the program's own threads, which may wait for them. Faults of a worker and what
 * profilers send are its own. */
static void block_signals(sigset_t *before)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPROF};
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, before);
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
    if (pthread_mutex_init(&pool->places, NULL)) {
        pthread_mutex_destroy(&pool->mutex);
        free(pool);
        return NULL;
    }
    if (sem_init(&pool->wake, 0, 0)) {
        pthread_mutex_destroy(&pool->places);
        pthread_mutex_destroy(&pool->mutex);
        free(pool);
        return NULL;
    }
    sigset_t before;
    block_signals(&before); /* threads begin with their maker's set */
    int failed = 0;
    while (!failed && pool->started < threads - 1) {
        struct worker *w = &pool->worker[pool->started];
        w->pool = pool;
        w->off = -1;
        failed = pthread_create(&w->thread, NULL, work, w);
        pool->started += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) pool_close(pool);
    return failed ? NULL : pool;
}

void pool_close(struct thread_pool *pool)
{
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = 1;
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t i = 0; i < pool->started; i++) sem_post(&pool->wake);
    for (int64_t i = 0; i < pool->started; i++) pthread_join(pool->worker[i].thread, NULL);
    sem_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->places);
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
    fegetenv(&job.environment);
    pthread_mutex_lock(&pool->mutex);
    struct job **link = &pool->jobs;
    while (*link) link = &(*link)->next;
    *link = &job;
    int cpu = pool->caller_cpu = sched_getcpu();
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t i = 0; i < invited; i++) sem_post(&pool->wake);
    run(argument, 0);
    if (close_job(pool, &job)) {
        int cancel; /* the job is on this stack: a thread that is to end waits first */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
        if (!look_for(&job.finished, CALLER_LOOKS) && !sleep_for(&job.finished, CALLER_SLEEPS)) {
            open_cpu(pool, cpu, 1);
            wait_for(&job.finished);
            open_cpu(pool, cpu, 0);
        }
        /* The worker that posted may still hold the mutex and touch the job; wait until it has
         * left. */
        pthread_mutex_lock(&pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
        pthread_setcancelstate(cancel, NULL);
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
