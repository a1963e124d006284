/* test_execute.c: what reaches the driver: arguments, grids, order of launches, devices, streams,
 * threads; and what does not. */
#include "session.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

static _Alignas(256) char memory[5 << 18];

static void run(rapt_device *device, const rapt_attention *a, rapt_stream stream)
{
    rapt_plan *plan = session_plan(device, a, NULL);
    void *workspace = NULL;
    size_t size = rapt_plan_workspace_size(plan);
    if (size) assert_int_equal(rapt_alloc(device, size, &workspace), RAPT_OK);
    assert_int_equal(rapt_plan_execute(plan, a, workspace, stream), RAPT_OK);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
}

static void flash_arguments(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    a.causal = 1;
    a.softcap = 30;
    a.bias.data = memory; /* without a dtype it is absent all the same */
    a.window_left = RAPT_WINDOW(7);
    run(rapt_device_at(context, 0), &a, (void *)0x77);
    assert_int_equal(fake->launch_count, 1);
    const struct fake_launch *l = &fake->launch[0];
    const struct attention_args *args = &l->args.attention;
    assert_string_equal(l->name, "flash");
    assert_ptr_equal(l->stream, (void *)0x77);
    assert_ptr_equal(args->q.data, memory);
    assert_ptr_equal(args->out.data, memory + (3 << 18));
    assert_null(args->bias.data);
    assert_int_equal(args->q.stride[0], 64 * 4 * 64);
    assert_int_equal(args->q.stride[1], 64);
    assert_int_equal(args->q.stride[2], 4 * 64);
    assert_int_equal(args->k.stride[1], 96 * 64);
    assert_int_equal(args->k.dtype, DTYPE_f16);
    assert_true(args->batch == 2 && args->q_heads == 4 && args->kv_heads == 2 && args->group == 2);
    assert_true(args->q_tokens == 64 && args->kv_tokens == 96 && args->channels == 64 &&
                args->v_channels == 64);
    assert_true(args->window_left == 7 && args->window_right == 0 && args->top_left == 0);
    assert_true(args->scale == 0.125f && args->softcap == 30.0f);
    assert_true(args->scale_log2 > 0.18033f && args->scale_log2 < 0.18034f); /* log2(e) / 8 */
    rapt_close(&context);
    session_end(v);
}

static void open_windows(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    run(rapt_device_at(context, 0), &a, NULL);
    a.window_left = INT64_MAX;
    a.window_right = RAPT_WINDOW(0);
    run(rapt_device_at(context, 0), &a, NULL);
    assert_int_equal(fake->launch[0].args.attention.window_left, WINDOW_LIMIT);
    assert_int_equal(fake->launch[0].args.attention.window_right, WINDOW_LIMIT);
    assert_int_equal(fake->launch[1].args.attention.window_left, WINDOW_LIMIT);
    assert_int_equal(fake->launch[1].args.attention.window_right, 0);
    rapt_close(&context);
    session_end(v);
}

/* qk, mask only where something hides or changes scores, softmax, pv; scores in the workspace or in
 * the caller's f32 weights. */
static void composed_order(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    a.kernel = "composed";
    run(device, &a, NULL);
    assert_int_equal(fake->launch_count, 3);
    assert_string_equal(fake->launch[0].name, "qk");
    assert_string_equal(fake->launch[1].name, "softmax");
    assert_string_equal(fake->launch[2].name, "pv");
    const struct attention_args *args = &fake->launch[1].args.attention;
    assert_non_null(args->scores.data);
    assert_ptr_equal(args->scores.data, args->weights.data);
    assert_int_equal(args->scores.dtype, DTYPE_f32);
    assert_memory_equal(&args->scores, &args->weights, sizeof args->scores); /* in place */
    assert_true(args->scores.stride[2] == 96 && args->scores.stride[1] == 64 * 96 &&
                args->columns == 96);
    fake->launch_count = 0;
    a.causal = 1;
    a.weights = rapt_tensor_bhtd(memory + (4 << 18), RAPT_F32, 2, 4, 64, 96);
    rapt_plan *plan = session_plan(device, &a, NULL);
    assert_int_equal(rapt_plan_workspace_size(plan), 0);
    rapt_plan_destroy(&plan);
    run(device, &a, NULL);
    assert_int_equal(fake->launch_count, 4);
    assert_string_equal(fake->launch[1].name, "causal_mask");
    assert_ptr_equal(fake->launch[1].args.attention.scores.data, memory + (4 << 18));
    assert_ptr_equal(fake->launch[3].args.attention.weights.data, memory + (4 << 18));
    fake->launch_count = 0;
    a.weights = rapt_tensor_bhtd(memory + (4 << 18), RAPT_F16, 2, 4, 64, 96);
    run(device, &a, NULL);
    assert_int_equal(fake->launch_count, 4);
    args = &fake->launch[2].args.attention;
    assert_ptr_equal(args->weights.data, memory + (4 << 18));
    assert_ptr_not_equal(args->scores.data, args->weights.data);
    rapt_close(&context);
    session_end(v);
}

/* What every row refuses, its pieces' arguments cannot hold either. */
static void composed_refuses(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    rapt_plan *plan = NULL;
    a.kernel = "composed";
    a.k.size[2] = a.v.size[2] = 1 << 29;
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_UNSUPPORTED);
    assert_non_null(
        strstr(rapt_last_error(),
               "(composed: counts tokens, channels, heads, batch and pages in 29 bits)"));
    rapt_close(&context);
    session_end(v);
}

/* A file named by the environment runs before the library's own better rows. */
static void replaced_rows_first(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    run(rapt_device_at(context, 0), &a, NULL);
    assert_string_equal(fake->launch[0].name, "flash_nocausal");
    a.causal = 1;
    run(rapt_device_at(context, 0), &a, NULL);
    assert_string_equal(fake->launch[1].name, "flash_causal");
    a.softcap = 20;
    run(rapt_device_at(context, 0), &a, NULL);
    assert_string_equal(fake->launch[2].name, "flash");
    rapt_close(&context);
    session_end(v);
}

/* The backend's name is its best kernel, companions for other addresses included. */
static void named_by_backend(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = v->name;
    run(rapt_device_at(context, 0), &a, NULL);
    assert_string_equal(fake->launch[0].name, "flash_nocausal");
    a.k.data = memory + (1 << 18) + 2;
    run(rapt_device_at(context, 0), &a, NULL);
    a.kernel = "cpu";
    rapt_plan *plan = NULL;
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_UNSUPPORTED);
    rapt_close(&context);
    session_end(v);
}

static void nothing_to_do(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    a.q = rapt_tensor_bthd(memory, RAPT_F16, 2, 4, 0, 64);
    a.out = rapt_tensor_bthd(memory + (3 << 18), RAPT_F16, 2, 4, 0, 64);
    run(rapt_device_at(context, 0), &a, NULL);
    assert_int_equal(fake->launch_count, 0);
    rapt_close(&context);
    session_end(v);
}

/* A base address that is only element-aligned goes to a kernel that takes it, whatever the plan's
 * own kernel needs. */
static void unaligned_addresses(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.k.data = memory + (1 << 18) + 2;
    run(rapt_device_at(context, 0), &a, NULL);
    assert_true(fake->launch_count > 0);
    assert_ptr_equal(fake->launch[0].args.attention.k.data, memory + (1 << 18) + 2);
    rapt_close(&context);
    session_end(v);
}

/* What an execute must not do on the host; linked with --wrap (mk/gpu.mk). */
static _Thread_local int executing, host_calls;
#define WRAPPED(type, name, parameters, arguments)                                                 \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        host_calls += executing;                                                                   \
        return __real_##name arguments;                                                            \
    }
WRAPPED(void *, malloc, (size_t bytes), (bytes))
WRAPPED(void *, realloc, (void *old, size_t bytes), (old, bytes))
WRAPPED(void *, aligned_alloc, (size_t alignment, size_t bytes), (alignment, bytes))
WRAPPED(int, pthread_mutex_lock, (pthread_mutex_t * lock), (lock))

/* Ten executes: no host memory, no lock; of the driver, launches, tensor maps the first time, and
 * what makes the device current: no memory, no module, no waiting. */
static void expect_lean(const struct stand_in *v, struct fake *fake, rapt_device *device,
                        const rapt_attention *a)
{
    static const char *const allowed[] = {
        "cuCtxGetCurrent",  "cuCtxPushCurrent", "cuCtxPopCurrent",       "cuLaunchKernel",
        "cuLaunchKernelEx", "hipGetDevice",     "hipModuleLaunchKernel", "cuTensorMapEncodeTiled"};
    rapt_plan *plan = session_plan(device, a, NULL);
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    memset(fake->call, 0, sizeof fake->call);
    fake->launch_count = 0;
    executing = 1;
    for (int i = 0; i < 10; i++)
        assert_int_equal(rapt_plan_execute(plan, a, workspace, NULL), RAPT_OK);
    executing = 0;
    assert_int_equal(host_calls, 0);
    assert_true(fake->launch_count > 0 && fake->launch_count % 10 == 0);
    assert_int_equal(session_calls(fake, v->enter), 10);
    assert_true(session_calls(fake, "cuTensorMapEncodeTiled") <= 2 * 3);
    for (int i = 0; i < FAKE_CALLS && fake->call[i].name[0]; i++) {
        int known = 0;
        for (size_t j = 0; j < sizeof allowed / sizeof *allowed; j++)
            known |= !strcmp(fake->call[i].name, allowed[j]);
        if (!known) print_error("execute called %s\n", fake->call[i].name);
        assert_true(known);
    }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
}

static void execute_is_lean(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    session_override(v, "FLASH_ATTENTION_NCAUSAL", NULL); /* so that the best row serves */
    session_override(v, "FLASH_ATTENTION", NULL);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory), wide = {.struct_size = sizeof wide};
    wide.q = rapt_tensor_bhtd(memory, RAPT_F32, 1, 2, 256, 128);
    wide.k = rapt_tensor_bhtd(memory + (1 << 18), RAPT_F32, 1, 2, 256, 128);
    wide.v = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F32, 1, 2, 256, 128);
    wide.out = rapt_tensor_bhtd(memory + (3 << 18), RAPT_F32, 1, 2, 256, 128);
    expect_lean(v, fake, device, &a);
    expect_lean(v, fake, device, &wide);
    a.kernel = "flash";
    expect_lean(v, fake, device, &a);
    a.kernel = "composed";
    expect_lean(v, fake, device, &a);
    rapt_close(&context);
    session_end(v);
}

static void assert_refused(const struct stand_in *v, rapt_status status, const char *call)
{
    char device[16];
    snprintf(device, sizeof device, "%s:0", v->name);
    assert_int_equal(status, RAPT_DRIVER);
    if (!strstr(rapt_last_error(), call) || !strstr(rapt_last_error(), device))
        print_error("%s\n", rapt_last_error());
    assert_non_null(strstr(rapt_last_error(), call));
    assert_non_null(strstr(rapt_last_error(), device));
}

/* While a stream is captured: what was planned executes; what would have to load a kernel, take
 * memory or wait is refused with the driver's call and the device, and works afterwards. */
static void captures(void **state)
{
    const struct stand_in *v = *state;
    int cuda = !strcmp(v->name, "cuda");
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    void *block = NULL;
    a.kernel = "flash";
    rapt_plan *plan = session_plan(device, &a, NULL), *other = NULL;
    fake->capturing = 1;
    assert_int_equal(rapt_plan_execute(plan, &a, NULL, NULL), RAPT_OK);
    assert_refused(v, rapt_softmax(device, &softmax, NULL),
                   cuda ? "cuModuleLoadData" : "hipModuleLoadData");
    a.kernel = "composed";
    assert_refused(v, rapt_plan_create(&other, device, &a),
                   cuda ? "cuModuleLoadData" : "hipModuleLoadData");
    assert_null(other);
    assert_refused(v, rapt_alloc(device, 64, &block), cuda ? "cuMemAlloc" : "hipMalloc");
    assert_null(block);
    assert_refused(v, rapt_synchronize(device, NULL),
                   cuda ? "cuStreamSynchronize" : "hipStreamSynchronize");
    fake->capturing = 0;
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    fake->capturing = 1; /* its kernel is there now */
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    fake->capturing = 0;
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* Rows of another length than those before the capture, whose kernel is another one. */
static void captures_longer_rows(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    session_override(v, "SOFTMAX", NULL);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    for (int64_t columns = 100; columns <= 1000000; columns *= 10) {
        rapt_tensor x = rapt_tensor_bhtd(memory, RAPT_F32, 1, 1, 1, columns);
        rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
        if (rapt_softmax(device, &softmax, NULL)) fail_msg("%s", rapt_last_error());
        fake->capturing = 1;
    }
    assert_string_not_equal(fake->launch[0].name, fake->launch[fake->launch_count - 1].name);
    fake->capturing = 0;
    rapt_close(&context);
    session_end(v);
}

/* Work of two streams may run at once, so rapt_forward gives each a workspace of its own and keeps
 * both. */
static void a_workspace_for_each_stream(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    a.kernel = "composed"; /* keeps its scores in the workspace */
    const int stream[] = {1, 2, 1, 2, 3}, alive[] = {1, 2, 2, 2, 3};
    for (size_t i = 0; i < sizeof stream / sizeof *stream; i++) {
        assert_int_equal(rapt_forward(device, &a, (void *)(uintptr_t)stream[i]), RAPT_OK);
        assert_int_equal(fake->allocations, alive[i]);
    }
    rapt_close(&context);
    session_end(v);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* The library's own share of an execute, the fake's included: the best of many short runs, so that
 * a busy machine does not matter. */
static void execute_is_quick(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    rapt_plan *plan = session_plan(rapt_device_at(context, 0), &a, NULL);
    double best = 1e9;
    for (int batch = 0; batch < 200; batch++) {
        double begin = now();
        for (int i = 0; i < 20; i++) rapt_plan_execute(plan, &a, NULL, NULL);
        double each = (now() - begin) / 20;
        if (each < best) best = each;
    }
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    double piece = 1e9;
    for (int batch = 0; batch < 200; batch++) {
        double begin = now();
        for (int i = 0; i < 20; i++) rapt_softmax(rapt_device_at(context, 0), &softmax, NULL);
        double each = (now() - begin) / 20;
        if (each < piece) piece = each;
    }
    print_message("# %s: %.2f us per execute, %.2f us per softmax\n", v->name, best, piece);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (!getenv("RAPT_TEST_EMULATED")) assert_true(best < 3 && piece < 3); /* mk/qemu.mk */
#endif
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

static void pieces(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_tensor x = rapt_tensor_bthd(memory, RAPT_F32, 2, 4, 8, 64), y = x;
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = x, .out = x};
    assert_int_equal(rapt_rope(device, &rope, NULL), RAPT_OK);
    const struct rope_args *r = &fake->launch[0].args.rope;
    assert_string_equal(fake->launch[0].name, "rope");
    assert_true(r->rotary == 64 && r->channels == 64 && r->heads == 4 && r->tokens == 8 &&
                r->batch == 2);
    assert_true(r->inverse[0] == 1 && r->inverse[31] > 0 && r->inverse[31] < 1.4e-4 &&
                r->magnitude == 1);
    y.data = memory + (1 << 18);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = y};
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    assert_string_equal(fake->launch[1].name, "softmax");
    assert_ptr_equal(fake->launch[1].args.attention.weights.data, y.data);
    rapt_qk_args qk = {.struct_size = sizeof qk,
                       .q = x,
                       .k = rapt_tensor_bthd(memory + (1 << 18), RAPT_F32, 2, 2, 24, 64),
                       .out = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F32, 2, 4, 8, 24)};
    assert_int_equal(rapt_qk(device, &qk, NULL), RAPT_OK);
    assert_int_equal(fake->launch[2].args.attention.group, 2);
    assert_true(fake->launch[2].args.attention.scale == 0.125f);
    rapt_pv_args pv = {.struct_size = sizeof pv,
                       .weights = qk.out,
                       .v = qk.k,
                       .out = rapt_tensor_bhtd(memory + (3 << 18), RAPT_F32, 2, 4, 8, 64)};
    assert_int_equal(rapt_pv(device, &pv, NULL), RAPT_OK);
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = qk.out};
    assert_int_equal(rapt_causal_mask(device, &mask, NULL), RAPT_OK);
    assert_int_equal(fake->launch[4].args.attention.window_right, 0);
    rapt_kv_replicate_args replicate = {
        .struct_size = sizeof replicate,
        .k = qk.k,
        .v = qk.k,
        .k_out = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F32, 2, 4, 24, 64),
        .v_out = rapt_tensor_bhtd(memory + (3 << 18), RAPT_F32, 2, 4, 24, 64)};
    assert_int_equal(rapt_kv_replicate(device, &replicate, NULL), RAPT_OK);
    assert_string_equal(fake->launch[5].name, "kv_replicate");
    assert_true(fake->launch[5].args.replicate.group == 2 && fake->launch[5].grid[2] == 2);
    assert_int_equal(fake->launch_count, 6);
    rapt_close(&context);
    session_end(v);
}

static void rotary_limits(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_tensor x = rapt_tensor_bthd(memory, RAPT_F32, 1, 1, 1, 1024);
    rapt_rope_args rope = {
        .struct_size = sizeof rope, .x = x, .out = x, .rotary_channels = 2 * ROPE_ARGS_PAIRS + 2};
    assert_int_equal(rapt_rope(rapt_device_at(context, 0), &rope, NULL), RAPT_UNSUPPORTED);
    rope.rotary_channels = 2 * ROPE_ARGS_PAIRS;
    assert_int_equal(rapt_rope(rapt_device_at(context, 0), &rope, NULL), RAPT_OK);
    rapt_close(&context);
    session_end(v);
}

enum { WORKERS = 8, ROUNDS = 50, STREAM = 0x1000 };

struct work {
    rapt_device *device;
    rapt_plan *shared;
    rapt_stream stream;
    int failures;
};

/* Where a thread's tensors begin that it executes the shared plan on. */
static char *memory_of(uintptr_t stream)
{
    return memory + 4096 * (stream - STREAM);
}

static void *work(void *argument)
{
    struct work *w = argument;
    rapt_attention a = session_problem(memory_of((uintptr_t)w->stream)), mine = a;
    a.kernel = "flash";
    mine.kernel = "composed";
    for (int i = 0; i < ROUNDS; i++) {
        rapt_plan *plan;
        void *workspace = NULL;
        w->failures += rapt_plan_execute(w->shared, &a, NULL, w->stream) != RAPT_OK;
        if (rapt_plan_create(&plan, w->device, &mine)) {
            w->failures++;
            continue;
        }
        w->failures += rapt_alloc(w->device, rapt_plan_workspace_size(plan), &workspace) != RAPT_OK;
        w->failures += rapt_plan_execute(plan, &mine, workspace, NULL) != RAPT_OK;
        w->failures += rapt_forward(w->device, &mine, NULL) != RAPT_OK;
        rapt_free(w->device, workspace);
        rapt_plan_destroy(&plan);
    }
    return NULL;
}

/* Two devices, a plan shared by all threads of a device, plans of their own, modules loaded once
 * for all. */
static void many_threads(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->devices = 2;
    rapt_context *context = session_open(v);
    pthread_t threads[WORKERS];
    struct work work_of[WORKERS] = {0};
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    rapt_plan *shared[2] = {session_plan(rapt_device_at(context, 0), &a, NULL),
                            session_plan(rapt_device_at(context, 1), &a, NULL)};
    for (int i = 0; i < WORKERS; i++) {
        work_of[i].device = rapt_device_at(context, i % 2);
        work_of[i].shared = shared[i % 2];
        work_of[i].stream = (void *)(uintptr_t)(STREAM + i);
        assert_int_equal(pthread_create(&threads[i], NULL, work, &work_of[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(work_of[i].failures, 0);
    }
    assert_int_equal(fake->launch_count, WORKERS * ROUNDS * 7);
    for (int i = 0; i < FAKE_LAUNCHES; i++) {
        const struct fake_launch *l = &fake->launch[i];
        if (!l->stream) continue;
        assert_int_equal(l->device, ((uintptr_t)l->stream - STREAM) % 2);
        assert_ptr_equal(l->args.attention.q.data, memory_of((uintptr_t)l->stream));
    }
    assert_int_equal(fake->modules, 2 * 4); /* flash, qk, softmax, pv on each device */
    rapt_plan_destroy(&shared[0]);
    rapt_plan_destroy(&shared[1]);
    rapt_close(&context);
    session_end(v);
}

/* The library's own mask waits for earlier work itself and may begin before that ends; a file that
 * takes its place may not. */
static void early_launches(void **state)
{
    const struct stand_in *v = *state;
    for (int own = 0; own <= 1; own++) {
        struct fake *fake = session_begin(v);
        if (own) session_override(v, "CAUSAL_MASK", NULL);
        rapt_context *context = session_open(v);
        rapt_causal_mask_args mask = {.struct_size = sizeof mask};
        mask.x = rapt_tensor_bhtd(memory, RAPT_F32, 1, 2, 64, 64);
        assert_int_equal(rapt_causal_mask(rapt_device_at(context, 0), &mask, NULL), RAPT_OK);
        assert_int_equal(fake->launch_count, 1);
        assert_int_equal(session_calls(fake, "cuLaunchKernelEx"), own && !strcmp(v->name, "cuda"));
        rapt_close(&context);
        session_end(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(flash_arguments),      BOTH(open_windows),
        BOTH(composed_order),       BOTH(composed_refuses),
        BOTH(nothing_to_do),        BOTH(named_by_backend),
        BOTH(replaced_rows_first),  BOTH(unaligned_addresses),
        BOTH(execute_is_lean),      BOTH(captures),
        BOTH(captures_longer_rows), BOTH(a_workspace_for_each_stream),
        BOTH(execute_is_quick),     BOTH(pieces),
        BOTH(rotary_limits),        BOTH(many_threads),
        BOTH(early_launches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
