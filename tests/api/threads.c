/* threads.c: one device, one plan and one context used by many threads at once give the bits of a
 * single thread. */
#include "bound.h"
#include "problem.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "group.h"

enum { THREADS = 8, ROUNDS = 12, LINES = 4 };

static const char *const lines[LINES] = {
    "forward f32 b2 h4/2 q33 kv70 d40 causal lse",
    "forward bf16 b3 h8/2 q1 kv200 d64 kvlen=200,3,0 lse",
    "forward f16 h4/2 q20 kv30 d64 causal lse qlens=20,0,3 kvlens=30,4,9",
    "forward f32 b2 h4 q9 kv40 d64 paged7 softcap3 sink lse"};

/* What a single thread gets: copies of out and lse. */
struct expected {
    struct problem_line line;
    uint64_t bits;
};

static uint64_t bits_of(const struct problem_instance *p)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int i = 0; i < p->region_count; i++)
        for (size_t at = 0; at < p->region[i].bytes && p->region[i].output; at++)
            hash = (hash ^ (unsigned char)p->region[i].base[at]) * 0x100000001b3u;
    return hash;
}

static rapt_context *context;
static rapt_device *device;
static struct expected expected[LINES];
static rapt_plan *plans[LINES];

enum { BY_FORWARD, BY_PLAN, BY_OWN_CONTEXT };

struct worker {
    pthread_t thread;
    int number, way;
    char fault[512];
};

static rapt_status call_once(struct problem_instance *p, int line, int way)
{
    if (way == BY_PLAN) {
        void *workspace =
            aligned_alloc(64, (rapt_plan_workspace_size(plans[line]) + 127) / 64 * 64);
        rapt_status status = rapt_plan_execute(plans[line], &p->args.forward, workspace, NULL);
        free(workspace);
        return status;
    }
    if (way == BY_FORWARD) {
        char text[256];
        rapt_explain(device, &p->args.forward, text, sizeof text);
        return rapt_forward(device, &p->args.forward, NULL);
    }
    rapt_context *own;
    rapt_config config = {.struct_size = sizeof config, .threads = 2, .backends = "cpu"};
    rapt_status status = rapt_open(&own, &config);
    if (!status) status = rapt_forward(rapt_device_at(own, 0), &p->args.forward, NULL);
    rapt_close(&own);
    return status;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    for (int round = 0; round < ROUNDS && !w->fault[0]; round++) {
        int line = (w->number + round) % LINES;
        struct problem_instance *p = malloc(sizeof *p);
        if (!p || !problem_build(&expected[line].line, p, w->fault, sizeof w->fault)) break;
        if (call_once(p, line, w->way))
            snprintf(w->fault, sizeof w->fault, "%s", rapt_last_error());
        else if (bits_of(p) != expected[line].bits)
            snprintf(w->fault, sizeof w->fault, "%s: other bits than a single thread's",
                     lines[line]);
        problem_free(p);
        free(p);
    }
    return NULL;
}

static void run_workers(int way)
{
    static struct worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.number = i, .way = way < 0 ? i % 3 : way};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++)
        if (workers[i].fault[0]) fail_msg("thread %d: %s", i, workers[i].fault);
}

static void forward_from_many_threads(void **state)
{
    (void)state;
    run_workers(BY_FORWARD);
}

static void one_plan_in_many_threads(void **state)
{
    (void)state;
    run_workers(BY_PLAN);
}

static void a_context_per_thread(void **state)
{
    (void)state;
    run_workers(BY_OWN_CONTEXT);
}

static void all_ways_at_once(void **state)
{
    (void)state;
    run_workers(-1);
}

/* A problem that takes longer than rapt_forward needs to see more shapes than it keeps plans. */
#define SLOW "forward f32 h4 q400 kv400 d64 causal lse"
enum { SHAPES = 200 };

struct slow_worker {
    pthread_t thread;
    atomic_int done;
    char fault[512];
};

static void *work_slowly(void *argument)
{
    struct slow_worker *w = argument;
    struct problem_line line;
    struct problem_instance *p = malloc(sizeof *p);
    uint64_t bits = 0;
    int built = p && problem_parse(SLOW, &line, w->fault, sizeof w->fault) &&
                problem_build(&line, p, w->fault, sizeof w->fault);
    for (int round = 0; round < ROUNDS && built && !w->fault[0]; round++) {
        problem_reset(p);
        if (rapt_forward(device, &p->args.forward, NULL))
            snprintf(w->fault, sizeof w->fault, "%s", rapt_last_error());
        else if (round && bits_of(p) != bits)
            snprintf(w->fault, sizeof w->fault, "round %d: other bits than the first", round);
        bits = bits_of(p);
    }
    if (built) problem_free(p);
    free(p);
    atomic_store(&w->done, 1);
    return NULL;
}

/* The plan and the workspace of a call that still runs are not those that make room. */
static void plans_in_use_are_kept(void **state)
{
    (void)state;
    static float q[64], k[SHAPES * 64], v[SHAPES * 64], out[64];
    static struct slow_worker worker;
    for (int i = 0; i < SHAPES * 64; i++) v[i] = 1;
    assert_int_equal(pthread_create(&worker.thread, NULL, work_slowly, &worker), 0);
    for (int keys = 1; !atomic_load(&worker.done); keys = keys % SHAPES + 1) {
        rapt_attention a = {.struct_size = sizeof a};
        a.q = rapt_tensor_bhtd(q, RAPT_F32, 1, 1, 1, 64);
        a.k = rapt_tensor_bhtd(k, RAPT_F32, 1, 1, keys, 64);
        a.v = rapt_tensor_bhtd(v, RAPT_F32, 1, 1, keys, 64);
        a.out = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 1, 64);
        out[63] = 0;
        assert_int_equal(rapt_forward(device, &a, NULL), RAPT_OK);
        assert_true(out[63] > 0.999f && out[63] < 1.001f);
    }
    pthread_join(worker.thread, NULL);
    if (worker.fault[0]) fail_msg("%s", worker.fault);
}

static int open_all(void **state)
{
    rapt_config config = {.struct_size = sizeof config, .threads = 3, .backends = "cpu"};
    (void)state;
    if (rapt_open(&context, &config)) return -1;
    device = rapt_device_at(context, 0);
    for (int i = 0; i < LINES; i++) {
        char error[256];
        struct problem_instance *p = malloc(sizeof *p);
        if (!p || !problem_parse(lines[i], &expected[i].line, error, sizeof error)) return -1;
        if (!problem_build(&expected[i].line, p, error, sizeof error)) return -1;
        if (rapt_plan_create(&plans[i], device, &p->args.forward) ||
            rapt_forward(device, &p->args.forward, NULL))
            return -1;
        expected[i].bits = bits_of(p);
        problem_free(p);
        free(p);
    }
    return 0;
}

/* Threads of this process that a profiler would show as workers. */
static int64_t named_workers(void)
{
    char name[300], comm[32];
    int64_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(name, sizeof name, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(name, "r");
        if (!file) continue;
        if (fgets(comm, sizeof comm, file)) count += !strcmp(comm, "rapt worker\n");
        fclose(file);
    }
    closedir(tasks);
    return count;
}

static void workers_have_a_name(void **state)
{
    rapt_context *own;
    rapt_config config = {.struct_size = sizeof config, .threads = 4, .backends = "cpu"};
    int64_t before = named_workers(), now = before;
    (void)state;
    assert_int_equal(rapt_open(&own, &config), RAPT_OK);
    for (int i = 0; i < 5000 && now != before + 3; i++) { /* each names itself as it begins */
        usleep(1000);
        now = named_workers();
    }
    rapt_close(&own);
    assert_int_equal(now, before + 3);
}

static int close_all(void **state)
{
    (void)state;
    for (int i = 0; i < LINES; i++) rapt_plan_destroy(&plans[i]);
    rapt_close(&context);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_from_many_threads), cmocka_unit_test(one_plan_in_many_threads),
        cmocka_unit_test(a_context_per_thread),      cmocka_unit_test(all_ways_at_once),
        cmocka_unit_test(plans_in_use_are_kept),     cmocka_unit_test(workers_have_a_name)};
    return run_group("threads", tests, sizeof tests / sizeof *tests, open_all, close_all, argc,
                     argv);
}
