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
    size_t bytes, apart; /* of a loop over memory */
    int touched;
    double rate;
    pthread_t thread;
};

static void *member_main(void *argument)
{
    struct member *me = argument;
    struct team *team = me->team;
    if (me->bytes && !me->touched) { /* first touched by its user, so that it lies near it */
        memset(me->memory, 1, me->bytes / 2);
        memset(me->memory + me->apart, 1, me->bytes / 2);
    }
    me->touched = 1;
    atomic_fetch_add(&team->ready, 1);
    while (!atomic_load(&team->go)) sched_yield();
    double start = seconds_now(), done = team->work(&team->stop, me->memory, me->bytes, me->apart);
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

/* memory is cut into equal shares; of copies its first half is, and they go to the second; of
 * repetitions the first of 1 + REPEATS parts is, and they go to the others. NULL: no memory, or too
 * many threads. */
static struct member *members_of(int64_t threads, char *memory, size_t bytes, enum traffic traffic)
{
    if (threads < 1 || threads > MAX_THREADS) return NULL;
    struct member *members = calloc((size_t)threads, sizeof *members);
    size_t share = bytes / (size_t)threads / 512 * 512;
    for (int64_t i = 0; members && i < threads; i++) {
        size_t first = (traffic == TRAFFIC_COPIES ? share / 2 : share) * (size_t)i;
        members[i].memory = memory ? memory + first : NULL;
        members[i].bytes = share;
        members[i].apart = traffic == TRAFFIC_COPIES ? bytes / 128 * 64 : share / 2;
        if (traffic != TRAFFIC_REPETITIONS) continue;
        size_t part = share / (1 + REPEATS) / 512 * 512, n = (size_t)i;
        members[i].memory = memory ? memory + part * n : NULL;
        members[i].bytes = (1 + REPEATS) * part;
        members[i].apart = part * ((size_t)threads + (REPEATS - 1) * n);
    }
    return members;
}

/* The best of some trials, as arithmetic in registers has no neighbours that would speed it up. */
struct ceiling ceiling_cpu_flops(int64_t dtype, int64_t threads)
{
    const char *name;
    loop work = loop_flops(dtype, &name);
    struct ceiling ceiling = {0};
    struct member *members = members_of(threads, NULL, 0, TRAFFIC_READS);
    for (int i = 0; members && i < TRIALS; i++) {
        double rate = trial(work, members, threads);
        if (rate > ceiling.rate) ceiling.rate = rate;
    }
    free(members);
    snprintf(ceiling.what, sizeof ceiling.what, "%s in registers, %" PRId64 " thread%s", name,
             threads, threads == 1 ? "" : "s");
    return ceiling;
}

struct stream {
    enum traffic traffic;
    int64_t threads;
    size_t bytes;
    char *memory, *owned; /* owned: to be freed; NULL: the caller's */
    struct member *members;
    loop work;
    double rates[STREAM_TRIALS_MAX];
    int trials;
};

struct stream *stream_open(enum traffic traffic, double bytes, void *memory, int64_t threads)
{
    size_t least = (size_t)threads << 16, most = (size_t)1 << 30;
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->traffic = traffic;
    s->threads = threads;
    s->bytes = bytes < (double)most ? (size_t)bytes : most;
    if (s->bytes < least && !memory) s->bytes = least;
    if (!memory) s->owned = aligned_alloc(4096, (s->bytes + 4095) / 4096 * 4096);
    s->memory = memory ? memory : s->owned;
    s->members = s->memory ? members_of(threads, s->memory, s->bytes, traffic) : NULL;
    for (int64_t i = 0; s->members && memory && i < threads; i++) s->members[i].touched = 1;
    if (!s->members) {
        stream_close(s);
        return NULL;
    }
    double best = -1;
    loop work;
    for (int i = 0; (work = loop_memory(traffic, i)); i++) {
        double rate = trial(work, s->members, threads);
        if (rate > best) {
            best = rate;
            s->work = work;
        }
    }
    return s;
}

void stream_try(struct stream *s)
{
    if (s && s->trials < STREAM_TRIALS_MAX)
        s->rates[s->trials++] = trial(s->work, s->members, s->threads);
}

struct ceiling stream_ceiling(struct stream *s)
{
    static const char *const names[TRAFFICS] = {
        [TRAFFIC_READS] = "reads of %.3g MB",
        [TRAFFIC_COPIES] = "copies of %.3g MB, read + write",
        [TRAFFIC_REPETITIONS] = "%.3g MB, read once + written 4 times",
        [TRAFFIC_WRITES] = "writes of %.3g MB"};
    struct ceiling ceiling = {0};
    if (!s || !s->trials) return ceiling;
    char *end = ceiling.what;
    ceiling.rate = median_of(s->rates, s->trials);
    end += snprintf(end, sizeof ceiling.what, names[s->traffic], (double)s->bytes * 1e-6);
    snprintf(end, sizeof ceiling.what - (size_t)(end - ceiling.what), ", %" PRId64 " thread%s",
             s->threads, s->threads == 1 ? "" : "s");
    return ceiling;
}

void stream_close(struct stream *s)
{
    if (!s) return;
    free(s->owned);
    free(s->members);
    free(s);
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
