/* ceiling.c: the rates that no program can exceed, measured in the same run as what is compared
 * with them. */
#include "ceiling.h"

#include "ceiling_loops.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIAL_SECONDS 0.04
enum { TRIALS = 8, MAX_THREADS = 4096 };

struct team {
    loop work;
    atomic_int ready, go, stop;
};

struct member {
    struct team *team;
    char *memory;
    size_t bytes;
    double rate;
    pthread_t thread;
};

static void *member_main(void *argument)
{
    struct member *me = argument;
    struct team *team = me->team;
    if (me->bytes)
        memset(me->memory, 1, me->bytes); /* first touched by its user, so that it lies near it */
    atomic_fetch_add(&team->ready, 1);
    while (!atomic_load(&team->go)) sched_yield();
    double start = seconds_now(), done = team->work(&team->stop, me->memory, me->bytes);
    me->rate = done / (seconds_now() - start);
    return NULL;
}

static void sleep_for(double seconds)
{
    struct timespec pause = {0, (long)(seconds * 1e9)};
    nanosleep(&pause, NULL);
}

/* The sum of the members' rates; 0: not every thread could be started. */
static double trial(loop work, struct member *members, int64_t threads)
{
    struct team team = {.work = work};
    int64_t started = 0;
    double rate = 0;
    for (; started < threads; started++) {
        members[started].team = &team;
        if (pthread_create(&members[started].thread, NULL, member_main, &members[started])) break;
    }
    while (atomic_load(&team.ready) < started) sched_yield();
    if (started < threads) atomic_store(&team.stop, 1);
    atomic_store(&team.go, 1);
    if (started == threads) sleep_for(TRIAL_SECONDS);
    atomic_store(&team.stop, 1);
    for (int64_t i = 0; i < started; i++) {
        pthread_join(members[i].thread, NULL);
        rate += members[i].rate;
    }
    return started == threads ? rate : 0;
}

/* The best of some trials, as a ceiling is what was reached and not what is usual. memory is cut
 * into equal shares. */
static double best_rate(loop work, int64_t threads, char *memory, size_t bytes)
{
    if (threads < 1 || threads > MAX_THREADS) return 0;
    struct member *members = calloc((size_t)threads, sizeof *members);
    double best = 0;
    size_t share = bytes / (size_t)threads / 512 * 512;
    for (int64_t i = 0; members && i < threads; i++) {
        members[i].memory = memory ? memory + share * (size_t)i : NULL;
        members[i].bytes = share;
    }
    for (int i = 0; members && i < TRIALS; i++) {
        double rate = trial(work, members, threads);
        if (rate > best) best = rate;
    }
    free(members);
    return best;
}

struct ceiling ceiling_cpu_flops(int64_t dtype, int64_t threads)
{
    const char *name;
    loop work = loop_flops(dtype, &name);
    struct ceiling ceiling = {.rate = best_rate(work, threads, NULL, 0)};
    snprintf(ceiling.what, sizeof ceiling.what, "%s in registers, %" PRId64 " thread%s", name,
             threads, threads == 1 ? "" : "s");
    return ceiling;
}

struct ceiling ceiling_cpu_memory(enum traffic traffic, double bytes, int64_t threads)
{
    static const char *const names[TRAFFICS] = {[TRAFFIC_READS] = "reads of %.3g MB",
                                                [TRAFFIC_COPIES] =
                                                    "copies of %.3g MB, read + write",
                                                [TRAFFIC_WRITES] = "writes of %.3g MB"};
    struct ceiling ceiling = {0};
    size_t least = (size_t)threads << 16, most = (size_t)1 << 30,
           size = bytes < (double)most ? (size_t)bytes : most;
    if (size < least) size = least;
    char *memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096), *end = ceiling.what;
    loop work;
    for (int i = 0; memory && (work = loop_memory(traffic, i)); i++) {
        double rate = best_rate(work, threads, memory, size);
        if (rate > ceiling.rate) ceiling.rate = rate;
    }
    free(memory);
    end += snprintf(end, sizeof ceiling.what, names[traffic], (double)size * 1e-6);
    snprintf(end, sizeof ceiling.what - (size_t)(end - ceiling.what), ", %" PRId64 " thread%s",
             threads, threads == 1 ? "" : "s");
    return ceiling;
}

struct ceiling ceiling_gpu_copies(struct device *device)
{
    enum { COPIES = 10 };
    struct ceiling ceiling = {0};
    size_t bytes = (size_t)512 << 20;
    void *from = NULL, *to = NULL;
    rapt_status status = RAPT_OK;
    if (device->info.memory_bytes > 0 && (uint64_t)device->info.memory_bytes / 16 < bytes)
        bytes = (size_t)device->info.memory_bytes / 16;
    if (rapt_alloc(device->handle, bytes, &from) || rapt_alloc(device->handle, bytes, &to))
        status = RAPT_NO_MEMORY;
    for (int i = 0; i <= TRIALS && !status; i++) {
        double start = seconds_now();
        for (int c = 0; c < COPIES && !status; c++)
            status = rapt_copy(device->handle, to, from, bytes, NULL);
        if (!status) status = rapt_synchronize(device->handle, NULL);
        double rate = 2.0 * COPIES * (double)bytes / (seconds_now() - start);
        if (i && rate > ceiling.rate) ceiling.rate = rate; /* the first is the warm-up */
    }
    rapt_free(device->handle, from);
    rapt_free(device->handle, to);
    if (status) ceiling.rate = 0;
    snprintf(ceiling.what, sizeof ceiling.what, "copies of %.3g MB within the device, read + write",
             (double)bytes * 1e-6);
    return ceiling;
}
