/* thread_pool.c: the worker pool does every piece of work once, gives each slot to one thread, and
 * returns only when all that began have ended, also for many callers at once; workers keep off their
 * caller's CPU, round as it does and take no signals of the process. */
#include "base/threads.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "group.h"

enum { PIECES = 200, SLOTS = 6, CALLERS = 4 };

struct job {
    atomic_int next, inside;
    atomic_int done[PIECES], entered[SLOTS];
    int64_t slots;
    atomic_int wrong_slot;
};

static void work(void *argument, int64_t slot)
{
    struct job *job = argument;
    atomic_fetch_add(&job->inside, 1);
    if (slot < 0 || slot >= job->slots || atomic_fetch_add(&job->entered[slot], 1))
        atomic_fetch_add(&job->wrong_slot, 1);
    for (int i; (i = atomic_fetch_add(&job->next, 1)) < PIECES;) atomic_fetch_add(&job->done[i], 1);
    atomic_fetch_sub(&job->inside, 1);
}

/* Runs one job; the number of things that are wrong with it afterwards. */
static int faults_of_a_job(struct thread_pool *pool, int64_t slots)
{
    struct job job;
    memset(&job, 0, sizeof job);
    job.slots = slots;
    pool_run(pool, slots, slots, work, &job);
    int faults = atomic_load(&job.wrong_slot) + (atomic_load(&job.inside) != 0) +
                 (atomic_load(&job.entered[0]) != 1);
    for (int i = 0; i < PIECES; i++) faults += atomic_load(&job.done[i]) != 1;
    return faults;
}

static void one_caller(void **state)
{
    (void)state;
    for (int64_t threads = 1; threads <= 5; threads += 2) {
        struct thread_pool *pool = pool_open(threads);
        assert_non_null(pool);
        assert_int_equal(pool_threads(pool), threads);
        for (int n = 0; n < 600; n++) assert_int_equal(faults_of_a_job(pool, 1 + n % SLOTS), 0);
        pool_close(pool);
    }
}

struct caller {
    struct thread_pool *pool;
    int faults;
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    for (int n = 0; n < 300; n++) caller->faults += faults_of_a_job(caller->pool, 1 + n % SLOTS);
    return NULL;
}

static void many_callers(void **state)
{
    (void)state;
    struct thread_pool *pool = pool_open(3);
    assert_non_null(pool);
    pthread_t threads[CALLERS];
    struct caller callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){pool, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].faults, 0);
    }
    pool_close(pool);
}

/* A worker that ends while no other is inside does not end the job: one that joins later is waited
 * for, too. */
struct latecomer {
    atomic_int begun, ended;
};

static void come_late(void *argument, int64_t slot)
{
    struct latecomer *job = argument;
    const struct timespec moment = {0, 50000}, work_time = {0, 200000};
    if (slot == 0) /* stays open for a while, so that the others can join */
        for (int i = 0; i < 20 && !atomic_load(&job->begun); i++) nanosleep(&moment, NULL);
    if (slot < 2) return;
    atomic_store(&job->begun, 1);
    nanosleep(&work_time, NULL);
    atomic_store(&job->ended, 1);
}

static void late_workers_are_waited_for(void **state)
{
    (void)state;
    struct thread_pool *pool = pool_open(3);
    assert_non_null(pool);
    int joined = 0;
    for (int n = 0; n < 500 && joined < 200; n++) {
        struct latecomer job = {0};
        pool_run(pool, 3, 3, come_late, &job);
        assert_int_equal(atomic_load(&job.begun), atomic_load(&job.ended));
        joined += atomic_load(&job.begun);
    }
    assert_true(joined > 0);
    pool_close(pool);
}

/* Slots of one job, or of two, that wait for each other: a pool has as many threads as it says, and
 * a job that has all its threads is passed over for the next. */
enum { AT_ONCE = 4 };

struct meeting {
    struct thread_pool *pool;
    atomic_int inside;
    int64_t slots; /* of a job */
};

static void meet(void *argument, int64_t slot)
{
    struct meeting *m = argument;
    const struct timespec moment = {0, 1000000};
    (void)slot;
    atomic_fetch_add(&m->inside, 1);
    for (int i = 0; i < 30000 && atomic_load(&m->inside) < AT_ONCE; i++) nanosleep(&moment, NULL);
}

static void *run_meeting(void *argument)
{
    struct meeting *m = argument;
    pool_run(m->pool, m->slots, m->slots, meet, m);
    return NULL;
}

static void all_threads_at_once(void **state)
{
    (void)state;
    struct meeting one = {pool_open(AT_ONCE), 0, AT_ONCE};
    assert_non_null(one.pool);
    pool_run(one.pool, one.slots, one.slots, meet, &one);
    assert_int_equal(atomic_load(&one.inside), AT_ONCE);
    pool_close(one.pool);
    struct meeting two = {pool_open(AT_ONCE), 0, AT_ONCE / 2};
    pthread_t other;
    assert_non_null(two.pool);
    assert_int_equal(pthread_create(&other, NULL, run_meeting, &two), 0);
    run_meeting(&two);
    pthread_join(other, NULL);
    assert_int_equal(atomic_load(&two.inside), AT_ONCE);
    pool_close(two.pool);
}

/* A caller whose wait a signal ends waits on. */
static void ignore(int number)
{
    (void)number;
}

struct signalled {
    pthread_t caller;
    atomic_int begun, ended;
};

static void interrupt_caller(void *argument, int64_t slot)
{
    struct signalled *job = argument;
    const struct timespec moment = {0, 1000000};
    if (slot == 0) { /* the caller goes to wait while the other works */
        for (int i = 0; i < 30000 && !atomic_load(&job->begun); i++) nanosleep(&moment, NULL);
        return;
    }
    atomic_store(&job->begun, 1);
    for (int i = 0; i < 20; i++) {
        nanosleep(&moment, NULL);
        pthread_kill(job->caller, SIGUSR1);
    }
    atomic_store(&job->ended, 1);
}

static void signals_end_no_wait(void **state)
{
    (void)state;
    struct sigaction before, action = {.sa_handler = ignore}; /* no SA_RESTART */
    sigaction(SIGUSR1, &action, &before);
    struct thread_pool *pool = pool_open(2);
    assert_non_null(pool);
    static struct signalled job;
    job = (struct signalled){.caller = pthread_self()};
    pool_run(pool, 2, 2, interrupt_caller, &job);
    int begun = atomic_load(&job.begun), ended = atomic_load(&job.ended);
    pool_close(pool);
    sigaction(SIGUSR1, &before, NULL);
    assert_true(begun && ended);
}

/* A signal of the process that the program's threads block waits for them. */
struct blocked {
    atomic_int known;
    sigset_t set; /* of a worker */
};

static void note_signals(void *argument, int64_t slot)
{
    struct blocked *job = argument;
    const struct timespec moment = {0, 1000000};
    if (slot) {
        pthread_sigmask(SIG_BLOCK, NULL, &job->set);
        atomic_store(&job->known, 1);
    }
    for (int i = 0; i < 30000 && !atomic_load(&job->known); i++) nanosleep(&moment, NULL);
}

static void workers_take_no_signals(void **state)
{
    (void)state;
    const struct timespec while_workers_could = {0, 20000000}, second = {1, 0};
    struct sigaction before, action = {.sa_handler = ignore};
    sigset_t wanted, mask, after;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR2);
    sigaction(SIGUSR2, &action, &before);
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    struct thread_pool *pool = pool_open(3);
    assert_non_null(pool);
    pthread_sigmask(SIG_BLOCK, &wanted, &after); /* once the workers have begun */
    kill(getpid(), SIGUSR2);
    nanosleep(&while_workers_could, NULL);
    int number = sigtimedwait(&wanted, NULL, &second);
    static struct blocked job;
    pool_run(pool, 2, 2, note_signals, &job);
    pool_close(pool);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    sigaction(SIGUSR2, &before, NULL);
    assert_int_equal(number, SIGUSR2);
    assert_true(atomic_load(&job.known));
    for (int n = 1; n < 32; n++) { /* the opener's own set is as it was */
        assert_int_equal(sigismember(&after, n), sigismember(&mask, n));
        if (n == SIGKILL || n == SIGSTOP) continue;
        int own = n == SIGSEGV || n == SIGBUS || n == SIGFPE || n == SIGILL || n == SIGTRAP ||
                  n == SIGSYS || n == SIGPROF;
        assert_int_equal(sigismember(&job.set, n), !own);
    }
}

/* Workers that sleep are woken for no more slots than that is worth. One that happens to be awake may
 * join: so once in a few times. */
struct sleepers {
    atomic_int begun;
    int expected;
};

static void count_workers(void *argument, int64_t slot)
{
    struct sleepers *job = argument;
    const struct timespec moment = {0, 1000000}, more = {0, 5000000};
    if (slot) {
        atomic_fetch_add(&job->begun, 1);
        return;
    }
    for (int i = 0; i < 30000 && atomic_load(&job->begun) < job->expected; i++)
        nanosleep(&moment, NULL);
    nanosleep(&more, NULL);
}

static void sleepers_are_woken_where_it_pays(void **state)
{
    (void)state;
    const struct timespec asleep = {0, 20000000};
    struct thread_pool *pool = pool_open(4);
    assert_non_null(pool);
    for (int wake = 0; wake <= 4; wake++) {
        int begun = -1, expected = wake > 1 ? wake - 1 : 0;
        for (int n = 0; n < 20 && begun != expected; n++) {
            struct sleepers job = {.expected = expected};
            nanosleep(&asleep, NULL);
            pool_run(pool, 4, wake, count_workers, &job);
            begun = atomic_load(&job.begun);
            assert_true(begun >= expected);
        }
        assert_int_equal(begun, expected);
    }
    pool_close(pool);
}

/* A caller leaves others their share of the threads, also one whose job is its own alone; a long job takes all. */
struct stay {
    struct thread_pool *pool;
    atomic_int inside, over;
};

static void stay_inside(void *argument, int64_t slot)
{
    struct stay *job = argument;
    const struct timespec moment = {0, 1000000};
    (void)slot;
    atomic_store(&job->inside, 1);
    for (int i = 0; i < 30000 && !atomic_load(&job->over); i++) nanosleep(&moment, NULL);
}

static void *call_and_stay(void *argument)
{
    struct stay *job = argument;
    pool_run(job->pool, 1, 1, stay_inside, job);
    return NULL;
}

static void callers_share_the_threads(void **state)
{
    (void)state;
    const struct timespec moment = {0, 1000000};
    struct stay other = {.pool = pool_open(4)};
    pthread_t thread;
    assert_non_null(other.pool);
    assert_int_equal(pthread_create(&thread, NULL, call_and_stay, &other), 0);
    for (int i = 0; i < 30000 && !atomic_load(&other.inside); i++) nanosleep(&moment, NULL);
    struct sleepers beside = {.expected = 1}, outlasts = {.expected = 3}, alone = {.expected = 3};
    pool_run(other.pool, 4, POOL_LONG - 1, count_workers, &beside);
    pool_run(other.pool, 4, POOL_LONG, count_workers, &outlasts);
    atomic_store(&other.over, 1);
    pthread_join(thread, NULL);
    pool_run(other.pool, 4, 4, count_workers, &alone);
    pool_close(other.pool);
    assert_int_equal(atomic_load(&other.inside), 1);
    assert_int_equal(atomic_load(&beside.begun), 1);
    assert_int_equal(atomic_load(&outlasts.begun), 3);
    assert_int_equal(atomic_load(&alone.begun), 3);
}

/* Where a worker may run once it has begun. */
struct places {
    atomic_int begun, known;
    cpu_set_t worker;
    pthread_t thread;
};

static void look_around(void *argument, int64_t slot)
{
    struct places *job = argument;
    const struct timespec moment = {0, 1000000};
    if (slot == 0) /* asleep, so that a worker on the same CPU begins too */
        for (int i = 0; i < 30000 && !atomic_load(&job->known); i++) nanosleep(&moment, NULL);
    else if (!atomic_fetch_add(&job->begun, 1)) {
        sched_getaffinity(0, sizeof job->worker, &job->worker);
        job->thread = pthread_self();
        atomic_store(&job->known, 1);
    }
}

/* What the worker may use while the caller is on one CPU. */
static struct places places_of(struct thread_pool *pool, int caller, int64_t slots)
{
    struct places job = {0};
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(caller, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    pool_run(pool, slots, slots, look_around, &job);
    assert_true(atomic_load(&job.known));
    return job;
}

static cpu_set_t without(cpu_set_t set, int cpu)
{
    CPU_CLR(cpu, &set);
    return set;
}

static cpu_set_t all_cpus;

static int find_cpus(void **state)
{
    (void)state;
    return sched_getaffinity(0, sizeof all_cpus, &all_cpus);
}

static int take_all_cpus(void **state)
{
    (void)state;
    return sched_setaffinity(0, sizeof all_cpus, &all_cpus);
}

static void workers_keep_off_the_caller(void **state)
{
    (void)state;
    if (CPU_COUNT(&all_cpus) < 2) skip_test("fewer than two CPUs here");
    int a = 0, b;
    while (!CPU_ISSET(a, &all_cpus)) a++;
    for (b = a + 1; !CPU_ISSET(b, &all_cpus);) b++;

    struct thread_pool *pool = pool_open(2);
    assert_non_null(pool);
    struct places places = places_of(pool, a, 2);
    cpu_set_t expected = without(all_cpus, a);
    assert_true(CPU_EQUAL(&places.worker, &expected));
    places = places_of(pool, b, 2);
    expected = without(all_cpus, b);
    assert_true(CPU_EQUAL(&places.worker, &expected));

    /* A set from outside is kept to (with two CPUs, it is the worker's own). */
    int last = CPU_SETSIZE - 1;
    while (!CPU_ISSET(last, &all_cpus)) last--;
    CPU_ZERO(&expected);
    CPU_SET(last, &expected);
    assert_int_equal(pthread_setaffinity_np(places.thread, sizeof expected, &expected), 0);
    places = places_of(pool, a, 2);
    assert_true(CPU_EQUAL(&places.worker, &expected));
    pool_close(pool);

    /* Workers whose caller's CPU is all they have (they inherit it), or too many for the others. */
    pool = pool_open(2);
    assert_non_null(pool);
    places = places_of(pool, a, 2);
    CPU_ZERO(&expected);
    CPU_SET(a, &expected);
    assert_true(CPU_EQUAL(&places.worker, &expected));
    pool_close(pool);
    assert_int_equal(take_all_cpus(NULL), 0);
    int64_t threads = CPU_COUNT(&all_cpus) + 1;
    pool = pool_open(threads);
    assert_non_null(pool);
    places = places_of(pool, a, threads);
    assert_true(CPU_EQUAL(&places.worker, &all_cpus));
    pool_close(pool);
}

/* A worker that outlasts its caller, and where it may run then. */
struct straggler {
    atomic_int begun;
    cpu_set_t own, wanted, found; /* own: what it sets itself; empty: nothing */
};

static void outlast(void *argument, int64_t slot)
{
    struct straggler *job = argument;
    const struct timespec moment = {0, 1000000};
    if (slot == 0) {
        for (int i = 0; i < 30000 && !atomic_load(&job->begun); i++) nanosleep(&moment, NULL);
        return;
    }
    if (CPU_COUNT(&job->own)) sched_setaffinity(0, sizeof job->own, &job->own);
    atomic_store(&job->begun, 1);
    for (int i = 0; i < 30; i++) nanosleep(&moment, NULL); /* by now its caller sleeps */
    for (int i = 0; i < 30000; i++, nanosleep(&moment, NULL)) {
        sched_getaffinity(0, sizeof job->found, &job->found);
        if (CPU_EQUAL(&job->found, &job->wanted)) return;
    }
}

static void sleeping_callers_let_workers_in(void **state)
{
    (void)state;
    if (CPU_COUNT(&all_cpus) < 2) skip_test("fewer than two CPUs here");
    int a = 0;
    while (!CPU_ISSET(a, &all_cpus)) a++;
    struct thread_pool *pool = pool_open(2);
    assert_non_null(pool);
    cpu_set_t expected = without(all_cpus, a);
    for (int i = 0; i < 3; i++) {
        struct places places = places_of(pool, a, 2);
        assert_true(CPU_EQUAL(&places.worker, &expected));
        struct straggler job = {.wanted = all_cpus};
        pool_run(pool, 2, 2, outlast, &job);
        assert_true(CPU_EQUAL(&job.found, &all_cpus));
    }
    /* A set from outside stays, while its caller sleeps and after. */
    struct straggler job = {0};
    CPU_SET(a, &job.own);
    job.wanted = job.own;
    pool_run(pool, 2, 2, outlast, &job);
    assert_true(CPU_EQUAL(&job.found, &job.own));
    struct places places = places_of(pool, a, 2);
    assert_true(CPU_EQUAL(&places.worker, &job.own));
    pool_close(pool);
}

struct rounding {
    atomic_int entered, mode[SLOTS];
};

/* All slots meet before they end, so that each has a thread of its own. */
static void note_rounding(void *argument, int64_t slot)
{
    struct rounding *r = argument;
    atomic_store(&r->mode[slot], fegetround());
    const struct timespec moment = {0, 1000000};
    atomic_fetch_add(&r->entered, 1);
    for (int i = 0; i < 30000 && atomic_load(&r->entered) < 3; i++) nanosleep(&moment, NULL);
}

static void workers_round_as_the_caller(void **state)
{
    static const int modes[] = {FE_UPWARD, FE_TONEAREST, FE_TOWARDZERO};
    struct thread_pool *pool = pool_open(3);
    (void)state;
    assert_non_null(pool);
    for (int n = 0; n < 3; n++) {
        struct rounding r = {0};
        fesetround(modes[n]);
        pool_run(pool, 3, 3, note_rounding, &r);
        fesetround(FE_TONEAREST);
        assert_int_equal(atomic_load(&r.entered), 3);
        for (int slot = 0; slot < 3; slot++) assert_int_equal(r.mode[slot], modes[n]);
    }
    pool_close(pool);
}

struct cancelled {
    struct thread_pool *pool;
    atomic_int entered, left, returned;
};

/* The worker leaves long after the caller, which sees it enter; sched_yield ends no thread. */
static void linger(void *argument, int64_t slot)
{
    struct cancelled *c = argument;
    const struct timespec moment = {0, 20000000};
    if (slot) {
        atomic_store(&c->entered, 1);
        nanosleep(&moment, NULL);
        atomic_store(&c->left, 1);
    } else
        for (int i = 0; i < 100000000 && !atomic_load(&c->entered); i++) sched_yield();
}

static void *call_cancelled(void *argument)
{
    struct cancelled *c = argument;
    pthread_cancel(pthread_self());
    pool_run(c->pool, 2, 2, linger, c);
    atomic_store(&c->returned, 1);
    return NULL;
}

/* A caller that is to end does so when its workers have left its stack. */
static void cancelled_callers_wait(void **state)
{
    struct cancelled c = {.pool = pool_open(2)};
    pthread_t thread;
    (void)state;
    assert_non_null(c.pool);
    assert_int_equal(pthread_create(&thread, NULL, call_cancelled, &c), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&c.returned), 1);
    assert_int_equal(atomic_load(&c.left), 1);
    pool_close(c.pool);
}

static void closing(void **state)
{
    (void)state;
    pool_close(NULL);
    for (int n = 0; n < 50; n++) {
        struct thread_pool *pool = pool_open(4);
        assert_non_null(pool);
        if (n % 2) assert_int_equal(faults_of_a_job(pool, 4), 0);
        pool_close(pool);
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_caller),
        cmocka_unit_test(many_callers),
        cmocka_unit_test(late_workers_are_waited_for),
        cmocka_unit_test(all_threads_at_once),
        cmocka_unit_test(signals_end_no_wait),
        cmocka_unit_test(workers_take_no_signals),
        cmocka_unit_test(sleepers_are_woken_where_it_pays),
        cmocka_unit_test(callers_share_the_threads),
        cmocka_unit_test_setup_teardown(workers_keep_off_the_caller, find_cpus, take_all_cpus),
        cmocka_unit_test_setup_teardown(sleeping_callers_let_workers_in, find_cpus, take_all_cpus),
        cmocka_unit_test(workers_round_as_the_caller),
        cmocka_unit_test(cancelled_callers_wait),
        cmocka_unit_test(closing),
    };
    return run_group("thread pool", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
