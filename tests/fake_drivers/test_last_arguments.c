/* test_last_arguments.c: a plan keeps the arguments that it passed last, and no execute on other memory
 * or after a failure is given them. */
#include "session.h"

#include <pthread.h>
#include <stdio.h>

static _Alignas(256) char memory[5 << 18];

/* Another workspace and other data come through. */
static void memory_changes(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    a.kernel = "composed";
    rapt_plan *plan = session_plan(device, &a, NULL);
    void *workspace[2];
    const void *scores[4], *q[4];
    for (int i = 0; i < 2; i++)
        assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace[i]),
                         RAPT_OK);
    for (int i = 0; i < 4; i++) { /* one of the two changes at a time */
        a.q.data = memory + 4096 * (i / 2);
        fake->launch_count = 0;
        assert_int_equal(rapt_plan_execute(plan, &a, workspace[(i + 1) / 2 % 2], NULL), RAPT_OK);
        scores[i] = fake->launch[0].args.attention.scores.data;
        q[i] = fake->launch[0].args.attention.q.data;
    }
    for (int i = 0; i < 4; i++) assert_ptr_equal(q[i], memory + 4096 * (i / 2));
    assert_true(scores[0] == scores[3] && scores[1] == scores[2] && scores[0] != scores[1]);
    for (int i = 0; i < 2; i++) rapt_free(device, workspace[i]);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* An execute that failed leaves nothing behind that a later one on the same memory would take. */
static void failures_are_forgotten(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    snprintf(fake->arch, sizeof fake->arch, "sm_90");
    session_override(v, "FLASH_ATTENTION_NCAUSAL", NULL); /* so that a row with maps serves */
    session_override(v, "FLASH_ATTENTION", NULL);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    a.kernel = "sm90_f16_d64";
    rapt_plan *plan = session_plan(device, &a, NULL);
    void *workspace = NULL;
    int failed = 0;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    for (int call = 1; call < 9; call++) {
        a.k.data = memory + (1 << 18) + 4096 * call;
        fake->fail_at = fake->calls + call;
        fake->fail_code = FAKE_LAUNCH_FAILED;
        fake->failed[0] = 0;
        rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
        fake->fail_at = 0;
        int maps = session_calls(fake, "cuTensorMapEncodeTiled");
        assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
        assert_ptr_equal(fake->launch[fake->launch_count - 1].args.attention.k.data, a.k.data);
        if (strcmp(fake->failed, "cuTensorMapEncodeTiled") != 0) continue;
        assert_int_equal(status, RAPT_DRIVER);
        assert_int_equal(session_calls(fake, "cuTensorMapEncodeTiled"), maps + 4);
        failed++;
    }
    assert_int_equal(failed, 4);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* A tensor whose dtype is 0 is absent whatever its pointer says: the kernel sees none. */
static void absent_tensors_have_no_data(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    a.bias.data = a.mask.data = a.sink.data = a.kv_length.data = a.lse.data = memory;
    assert_int_equal(rapt_forward(device, &a, NULL), RAPT_OK);
    const struct attention_args *args = &fake->launch[fake->launch_count - 1].args.attention;
    assert_ptr_equal(args->q.data, a.q.data);
    assert_true(!args->bias.data && !args->mask.data && !args->sink.data);
    assert_true(!args->kv_length.data && !args->lse.data);
    rapt_close(&context);
    session_end(v);
}

enum { WORKERS = 4, EXECUTES = FAKE_LAUNCHES / WORKERS, ROUNDS = 200 };

struct work {
    const rapt_plan *plan;
    char *memory;
    pthread_barrier_t *start;
    int failures;
};

static void *work(void *argument)
{
    struct work *w = argument;
    rapt_attention a = session_problem(w->memory);
    a.kernel = "flash";
    pthread_barrier_wait(w->start);
    for (int i = 0; i < EXECUTES; i++)
        w->failures += rapt_plan_execute(w->plan, &a, NULL, w->memory) != RAPT_OK;
    return NULL;
}

/* Threads that execute one plan at once, each on memory of its own, whose address is its stream. */
static void threads_share_a_plan(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    rapt_plan *plan = session_plan(rapt_device_at(context, 0), &a, NULL);
    pthread_barrier_t start;
    assert_int_equal(pthread_barrier_init(&start, NULL, WORKERS), 0);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[WORKERS];
        struct work of[WORKERS];
        fake->launch_count = 0;
        for (int i = 0; i < WORKERS; i++) {
            of[i] = (struct work){plan, memory + 4096 * (i + 1), &start, 0};
            assert_int_equal(pthread_create(&threads[i], NULL, work, &of[i]), 0);
        }
        for (int i = 0; i < WORKERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(of[i].failures, 0);
        }
        assert_int_equal(fake->launch_count, FAKE_LAUNCHES);
        for (int i = 0; i < FAKE_LAUNCHES; i++)
            assert_ptr_equal(fake->launch[i].args.attention.q.data, fake->launch[i].stream);
    }
    pthread_barrier_destroy(&start);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(memory_changes),
        BOTH(threads_share_a_plan),
        BOTH(absent_tensors_have_no_data),
        {"cuda: failures_are_forgotten", failures_are_forgotten, NULL, NULL, (void *)&vendors[0]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
