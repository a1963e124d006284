/* test_plan_cache.c: the plans and workspaces that rapt_forward keeps on a device: what is taken again,
 * what makes room, what is never taken away. */
#include "session.h"

#include "plan.h"

#include <pthread.h>
#include <stdio.h>

/* What the cache holds: PLAN_CACHE_SIZE of plan_cache.c. */
enum { KEPT = 64 };

static _Alignas(256) char memory[5 << 18];

/* The composed path, whose workspace is one allocation of the device for each plan; another problem
 * for each number. */
static rapt_attention numbered(int number)
{
    rapt_attention a = session_problem(memory);
    a.kernel = "composed";
    a.scale = 1 + number;
    return a;
}

static int allocations(const struct stand_in *v, const struct fake *fake)
{
    return session_calls(fake, strcmp(v->name, "cuda") ? "hipMalloc" : "cuMemAlloc");
}

/* Whether the call had to make a plan. */
static int is_new(const struct stand_in *v, const struct fake *fake, rapt_device *device,
                  int number)
{
    rapt_attention a = numbered(number);
    int before = allocations(v, fake);
    if (rapt_forward(device, &a, NULL)) fail_msg("%s", rapt_last_error());
    return allocations(v, fake) - before;
}

static void least_recently_used(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < KEPT; i++) assert_int_equal(is_new(v, fake, device, i), 1);
    for (int i = 0; i < KEPT; i++) assert_int_equal(is_new(v, fake, device, i), 0);
    assert_int_equal(fake->allocations, KEPT);
    assert_int_equal(is_new(v, fake, device, 0), 0);
    assert_int_equal(is_new(v, fake, device, KEPT), 1); /* in the place of 1 */
    assert_int_equal(fake->allocations, KEPT);
    assert_int_equal(is_new(v, fake, device, 0), 0);
    for (int i = 2; i <= KEPT; i++) assert_int_equal(is_new(v, fake, device, i), 0);
    assert_int_equal(is_new(v, fake, device, 1), 1); /* in the place of 0 */
    assert_int_equal(is_new(v, fake, device, 0), 1);
    assert_int_equal(fake->allocations, KEPT);
    rapt_close(&context);
    session_end(v);
}

/* A plan knows no addresses: the same call on other memory takes it again. */
static void other_memory(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = numbered(0);
    is_new(v, fake, device, 0);
    a.q.data = memory + 256, a.k.data = memory + (1 << 18) + 2, a.out.data = memory + (4 << 18);
    int before = allocations(v, fake);
    assert_int_equal(rapt_forward(device, &a, NULL), RAPT_OK);
    assert_int_equal(allocations(v, fake), before);
    assert_ptr_equal(fake->launch[fake->launch_count - 1].args.attention.out.data, a.out.data);
    rapt_close(&context);
    session_end(v);
}

/* Calls that no kernel serves cost one plan at most, however many they are. */
static void failures_keep_the_others(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < KEPT; i++) is_new(v, fake, device, i);
    rapt_attention a = numbered(0);
    a.kernel = "none of that name";
    for (int i = 0; i < 5; i++) assert_int_equal(rapt_forward(device, &a, NULL), RAPT_UNSUPPORTED);
    assert_int_equal(fake->allocations, KEPT - 1);
    for (int i = 1; i < KEPT; i++) assert_int_equal(is_new(v, fake, device, i), 0);
    rapt_close(&context);
    session_end(v);
}

/* One problem for two kernels is two plans; one without a workspace has none. */
static void kernels_apart(void **state)
{
    static const char *const kernels[] = {"composed", "flash", NULL, "flash", "composed", NULL};
    static const char *const first[] = {"qk", "flash", "flash_nocausal"};
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    char name[16];
    for (int i = 0; i < 6; i++) {
        if (kernels[i]) snprintf(name, sizeof name, "%s", kernels[i]);
        a.kernel = kernels[i] ? name : NULL; /* which the cache keeps a copy of */
        fake->launch_count = 0;
        assert_int_equal(rapt_forward(rapt_device_at(context, 0), &a, NULL), RAPT_OK);
        const char *expected = first[!kernels[i] ? 2 : !strcmp(kernels[i], "flash")];
        assert_string_equal(fake->launch[0].name, expected);
    }
    assert_int_equal(allocations(v, fake), 1);
    rapt_close(&context);
    session_end(v);
}

static void take(rapt_device *device, int number, struct cached_plan *out)
{
    struct problem p;
    rapt_attention a = numbered(number);
    assert_int_equal(params_check(&a, "test", &p), RAPT_OK);
    if (plan_cache_take(device, &p, NULL, out)) fail_msg("%s", rapt_last_error());
}

/* More plans than the cache holds, all in use: none makes room, and two calls of one plan on one
 * stream have two workspaces. */
static void all_in_use(void **state)
{
    enum { USED = KEPT + 3 };
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    struct cached_plan used[USED], twice;
    for (int i = 0; i < USED; i++) take(device, i, &used[i]);
    assert_int_equal(fake->allocations, USED);
    take(device, 0, &twice);
    assert_ptr_equal(twice.plan, used[0].plan);
    assert_ptr_not_equal(twice.workspace, used[0].workspace);
    assert_int_equal(fake->allocations, USED + 1);
    plan_cache_return(device, &used[0]);
    assert_int_equal(is_new(v, fake, device, USED), 1); /* 0 has one user left */
    assert_int_equal(fake->allocations, USED + 2);
    for (int i = 1; i < USED; i++) plan_cache_return(device, &used[i]);
    plan_cache_return(device, &twice);
    assert_int_equal(is_new(v, fake, device, 0), 0);
    assert_int_equal(is_new(v, fake, device, USED + 1), 1); /* in the place of 1 */
    assert_int_equal(is_new(v, fake, device, 1), 1);
    rapt_close(&context);
    session_end(v);
}

/* A device that is full: idle workspaces make room, those used longest ago first, but none in use. */
static void full_device(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    struct cached_plan used;
    for (int i = 0; i < 4; i++) is_new(v, fake, device, i);
    take(device, 0, &used);
    fake->most_allocations = 4;
    is_new(v, fake, device, 4); /* in the place of 1 */
    assert_int_equal(fake->allocations, 4);
    assert_int_equal(is_new(v, fake, device, 2), 0);
    assert_int_equal(is_new(v, fake, device, 3), 0);
    assert_int_equal(is_new(v, fake, device, 4), 0);
    fake->most_allocations = 1;
    rapt_attention a = numbered(1);
    assert_int_equal(rapt_forward(device, &a, NULL), RAPT_NO_MEMORY);
    assert_int_equal(fake->allocations, 1); /* 0's, which is in use */
    a = numbered(0);
    assert_int_equal(rapt_forward(device, &a, NULL), RAPT_NO_MEMORY);
    assert_int_equal(fake->allocations, 1);
    a = numbered(1);
    plan_cache_return(device, &used);
    assert_int_equal(rapt_forward(device, &a, NULL), RAPT_OK);
    assert_int_equal(fake->allocations, 1);
    rapt_close(&context);
    session_end(v);
}

struct call {
    rapt_device *device;
    rapt_stream stream;
};

static void *forward_twice(void *of)
{
    const struct call *call = of;
    rapt_attention a = numbered(0);
    for (int i = 0; i < 2; i++)
        if (rapt_forward(call->device, &a, call->stream)) return of;
    return NULL;
}

/* A handle that is another stream in each thread has a workspace in each; any other has one. */
static void streams_of_threads(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    char other;
    struct call calls[] = {{rapt_device_at(context, 0), (rapt_stream)2},
                           {rapt_device_at(context, 0), &other}};
    for (int i = 0; i < 2; i++)
        for (int threads = 1; threads <= 3; threads++) {
            pthread_t thread;
            void *failed;
            assert_int_equal(pthread_create(&thread, NULL, forward_twice, &calls[i]), 0);
            assert_int_equal(pthread_join(thread, &failed), 0);
            assert_null(failed);
            assert_int_equal(fake->allocations, i ? 4 : threads);
        }
    fake->most_allocations = 4; /* a fifth thread's takes the place of those that are idle */
    assert_null(forward_twice(&calls[0]));
    assert_int_equal(fake->allocations, 1);
    rapt_close(&context);
    session_end(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(least_recently_used), BOTH(other_memory), BOTH(failures_keep_the_others),
        BOTH(kernels_apart),       BOTH(all_in_use),   BOTH(full_device),
        BOTH(streams_of_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
