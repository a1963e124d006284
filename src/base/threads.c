/* threads.c: the worker pool. Jobs live on their caller's stack; idle workers sleep on one
 * semaphore. */
#include "base/threads.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

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
    int64_t threads;
    int64_t started; /* of worker[] */
    pthread_t worker[];
};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) && errno == EINTR) {}
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
    for (;;) {
        wait_for(&pool->wake);
        pthread_mutex_lock(&pool->mutex);
        int stop = pool->stop;
        int64_t slot = 0;
        struct job *job = stop ? NULL : join_job(pool, &slot);
        pthread_mutex_unlock(&pool->mutex);
        if (stop) return NULL;
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

void pool_run(struct thread_pool *pool, int64_t slots, void (*run)(void *argument, int64_t slot),
              void *argument)
{
    int64_t invited = (slots < pool->threads ? slots : pool->threads) - 1;
    struct job job = {.run = run, .argument = argument, .slots = slots, .next_slot = 1};
    if (invited <= 0 || sem_init(&job.finished, 0, 0)) {
        run(argument, 0);
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    struct job **link = &pool->jobs;
    while (*link) link = &(*link)->next;
    *link = &job;
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t i = 0; i < invited; i++) sem_post(&pool->wake);
    run(argument, 0);
    if (close_job(pool, &job)) {
        wait_for(&job.finished);
        /* The worker that posted may still hold the mutex and touch the job; wait until it has
         * left. */
        pthread_mutex_lock(&pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
    }
    sem_destroy(&job.finished);
}
