/* allocations.c: linked with --wrap of the allocating functions and of pthread_create
 * (mk/tests.mk). Executing a plan allocates nothing; and whichever allocation fails, the call says
 * so, leaks nothing and leaves the library usable. */
#include "api.h"
#include "base/alloc.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_long calls, live; /* allocating calls so far; blocks not yet freed */
static atomic_long failing;     /* the call that fails, counted from 1; 0: none */
static atomic_size_t aligned;   /* bytes of the last call for aligned memory */

static int must_fail(void)
{
    return atomic_fetch_add(&calls, 1) + 1 == atomic_load(&failing);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
void __real_free(void *block);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);
void __wrap_free(void *block);

static void *counted(void *block)
{
    if (block) atomic_fetch_add(&live, 1);
    return block;
}

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *old, size_t size)
{
    if (must_fail()) return NULL;
    void *block = __real_realloc(old, size);
    return old ? block : counted(block);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    atomic_store(&aligned, size);
    return must_fail() ? NULL : counted(__real_aligned_alloc(alignment, size));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    if (must_fail()) return ENOMEM;
    int error = __real_posix_memalign(out, alignment, size);
    if (!error) counted(*out);
    return error;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    return must_fail() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}

void __wrap_free(void *block)
{
    if (block) atomic_fetch_sub(&live, 1);
    __real_free(block);
}

static struct call call;

/* Kinds of call: each takes another way through the engine. */
static void plain(struct call *c)
{
    c->a.lse = rapt_tensor_bhtd(c->lse, RAPT_F32, B, HQ, SQ, 1);
}
static void few_queries(struct call *c)
{
    c->a.q.size[2] = c->a.out.size[2] = 1;
}
static void with_everything(struct call *c)
{
    c->a.bias = rapt_tensor_bhtd(c->bias, RAPT_F32, B, HQ, SQ, SKV);
    c->a.mask = rapt_tensor_bhtd(c->mask, RAPT_U8, B, HQ, SQ, SKV);
    c->a.sink = rapt_tensor_bhtd(c->sink, RAPT_F32, B, HQ, 1, 1);
    c->a.alibi_slope = rapt_tensor_bhtd(c->slope, RAPT_F32, B, HQ, 1, 1);
    c->a.weights = rapt_tensor_bhtd(c->weights, RAPT_F32, B, HQ, SQ, SKV);
}
static void packed(struct call *c)
{
    c->a.q = rapt_tensor_bthd(c->q, RAPT_F32, 1, HQ, B * SQ, D);
    c->a.out = rapt_tensor_bthd(c->out, RAPT_F32, 1, HQ, B * SQ, DV);
    c->a.q_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
}
static void paged(struct call *c)
{
    c->a.page_table = rapt_tensor_bhtd(c->pages, RAPT_I32, B, 1, 1, 1);
    c->a.kv_length = rapt_tensor_bhtd(c->lengths, RAPT_I32, B, 1, 1, 1);
}

static void (*const kinds[])(struct call *) = {plain, few_queries, with_everything, packed, paged};
enum { KINDS = sizeof kinds / sizeof *kinds };

static rapt_status run_pieces(rapt_device *device)
{
    rapt_tensor x = rapt_tensor_bhtd(call.q, RAPT_F32, 1, 2, 3, D),
                y = rapt_tensor_bhtd(call.weights, RAPT_F32, 1, 2, 3, D);
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = x, .out = y};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = y};
    rapt_qk_args qk = {.struct_size = sizeof qk,
                       .q = x,
                       .k = rapt_tensor_bhtd(call.k, RAPT_F32, 1, 1, D, D),
                       .out = y};
    rapt_pv_args pv = {.struct_size = sizeof pv, .weights = x, .v = qk.k, .out = y};
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = y};
    rapt_kv_append_args append = {.struct_size = sizeof append,
                                  .k_new = x,
                                  .v_new = x,
                                  .k = y,
                                  .v = rapt_tensor_bhtd(call.out, RAPT_F32, 1, 2, 3, D)};
    rapt_status status = rapt_rope(device, &rope, NULL);
    if (!status) status = rapt_softmax(device, &softmax, NULL);
    if (!status) status = rapt_qk(device, &qk, NULL);
    if (!status) status = rapt_pv(device, &pv, NULL);
    if (!status) status = rapt_causal_mask(device, &mask, NULL);
    return status ? status : rapt_kv_append(device, &append, NULL);
}

/* A whole session; the first failure ends it. */
static rapt_status session(void)
{
    rapt_context *context;
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 3, .backends = "cpu"};
    rapt_status status = rapt_open(&context, &config);
    rapt_device *device = rapt_device_at(context, 0);
    for (int i = 0; i < KINDS && !status; i++) {
        call_reset(&call);
        kinds[i](&call);
        status = rapt_forward(device, &call.a, NULL);
        if (!status) status = rapt_plan_create(&plan, device, &call.a);
        if (!status) status = rapt_alloc(device, rapt_plan_workspace_size(plan) + 64, &workspace);
        if (!status) status = rapt_plan_execute(plan, &call.a, workspace, NULL);
        rapt_free(device, workspace);
        workspace = NULL;
        rapt_plan_destroy(&plan);
    }
    if (!status) status = run_pieces(device);
    rapt_close(&context);
    return status;
}

/* What must have been said in the end. */
static const char *const sentences[] = {
    "rapt_open: no memory for a context (* bytes)",
    "rapt_open: no memory for a list of * devices",
    "rapt_open: no memory for device cpu:0",
    "rapt_open: no memory for the CPU device (* bytes)",
    "rapt_open: the system starts no 3 threads (ask for fewer, by rapt_config or RAPT_THREADS)",
    "rapt_plan_create: no memory for a plan (* bytes)",
    "rapt_forward: no memory for a plan (* bytes)",
    "rapt_forward: no memory to keep a plan",
    "rapt_forward: no memory to keep a workspace",
    "rapt_alloc: no memory (* bytes)",
    "rapt_forward: no memory (* bytes)",
};
enum { SENTENCES = sizeof sentences / sizeof *sentences };

static void every_allocation_fails_once(void **state)
{
    long failures = 0;
    int said[SENTENCES] = {0};
    (void)state;
    atomic_store(&failing, 0);
    assert_int_equal(session(), RAPT_OK); /* once before, for what the C library itself keeps */
    for (long k = 1;; k++) {
        long before = atomic_load(&live);
        atomic_store(&calls, 0);
        atomic_store(&failing, k);
        rapt_status status = session();
        long used = atomic_load(&calls);
        atomic_store(&failing, 0);
        if (status != RAPT_OK && status != RAPT_NO_MEMORY && status != RAPT_SYSTEM)
            fail_msg("allocation %ld: %s: %s", k, rapt_status_text(status), rapt_last_error());
        int known = status == RAPT_OK;
        for (int i = 0; i < SENTENCES && status; i++)
            if (says(rapt_last_error(), sentences[i])) known = said[i] = 1;
        if (!known) fail_msg("allocation %ld: %s", k, rapt_last_error());
        if (atomic_load(&live) != before)
            fail_msg("allocation %ld: %ld blocks leak", k, atomic_load(&live) - before);
        failures += status != RAPT_OK;
        if (used < k) break; /* the session needs fewer than k */
    }
    assert_true(failures > 5);
    for (int i = 0; i < SENTENCES; i++)
        if (!said[i]) fail_msg("never said: %s", sentences[i]);
    assert_int_equal(session(), RAPT_OK);
}

/* Rows of so many columns want memory of their own, and are right without it. */
static void long_softmax_needs_no_memory(void **state)
{
    enum { ROWS = 3, COLUMNS = 5000 };
    static float x[ROWS * COLUMNS], y[2][ROWS * COLUMNS];
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = "cpu"};
    (void)state;
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    for (int i = 0; i < ROWS * COLUMNS; i++) x[i] = (float)(i % 977) * 0.01f;
    for (int fails = 0; fails < 2; fails++) {
        rapt_softmax_args args = {.struct_size = sizeof args,
                                  .x = rapt_tensor_bhtd(x, RAPT_F32, 1, 1, ROWS, COLUMNS),
                                  .out = rapt_tensor_bhtd(y[fails], RAPT_F32, 1, 1, ROWS, COLUMNS)};
        long before = atomic_load(&live);
        atomic_store(&calls, 0);
        atomic_store(&failing, fails);
        rapt_status status = rapt_softmax(rapt_device_at(context, 0), &args, NULL);
        atomic_store(&failing, 0);
        assert_int_equal(status, RAPT_OK);
        assert_true(atomic_load(&calls) >= 1); /* so that one failed */
        assert_int_equal(atomic_load(&live), before);
    }
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = r * COLUMNS; i < (r + 1) * COLUMNS; i++) {
            sum += y[1][i];
            assert_true(fabsf(y[1][i] - y[0][i]) <= 1e-5f * y[0][i]);
        }
        assert_true(sum > 1 - 1e-4 && sum < 1 + 1e-4);
    }
    rapt_close(&context);
}

static void execute_allocates_nothing(void **state)
{
    rapt_context *context;
    (void)state;
    open_cpu(&context, 3);
    for (int i = 0; i < KINDS; i++) {
        rapt_plan *plan;
        void *workspace;
        call_reset(&call);
        kinds[i](&call);
        assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &call.a), RAPT_OK);
        assert_int_equal(
            rapt_alloc(rapt_device_at(context, 0), rapt_plan_workspace_size(plan) + 64, &workspace),
            RAPT_OK);
        long before = atomic_load(&calls);
        for (int n = 0; n < 3; n++)
            assert_int_equal(rapt_plan_execute(plan, &call.a, workspace, NULL), RAPT_OK);
        assert_int_equal(atomic_load(&calls), before);
        rapt_free(rapt_device_at(context, 0), workspace);
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
}

/* The plan and the workspace of an earlier call of the same shape serve the next one, whatever stream it names: a
 * CPU has none. */
static void forward_allocates_once_per_shape(void **state)
{
    rapt_context *context;
    (void)state;
    open_cpu(&context, 2);
    call_reset(&call);
    plain(&call);
    assert_int_equal(rapt_forward(rapt_device_at(context, 0), &call.a, NULL), RAPT_OK);
    long before = atomic_load(&calls);
    for (intptr_t n = 0; n < 5; n++) {
        rapt_stream stream = (rapt_stream)n;
        assert_int_equal(rapt_forward(rapt_device_at(context, 0), &call.a, stream), RAPT_OK);
    }
    assert_int_equal(atomic_load(&calls), before);
    rapt_close(&context);
}

/* A refusal allocates nothing either, and its sentence is there. */
static void a_refusal_allocates_nothing(void **state)
{
    rapt_context *context;
    (void)state;
    open_cpu(&context, 2);
    call_reset(&call);
    call.a.causal = 7;
    long before = atomic_load(&calls);
    assert_int_equal(rapt_forward(rapt_device_at(context, 0), &call.a, NULL), RAPT_INVALID);
    assert_int_equal(atomic_load(&calls), before);
    rapt_close(&context);
}

/* Sizes that no size_t holds once they are multiplied or rounded up; the C library is not asked. */
static void sizes_that_overflow(void **state)
{
    (void)state;
    long before = atomic_load(&calls);
    assert_null(alloc_bytes(SIZE_MAX));
    assert_null(alloc_large(SIZE_MAX));
    assert_null(alloc_zeroed(SIZE_MAX / 2 + 2, 2)); /* 2 bytes, modulo */
    assert_int_equal(atomic_load(&calls), before);
    void *nothing = alloc_zeroed(SIZE_MAX, 0);
    assert_non_null(nothing);
    free(nothing);
}

/* Whole cache lines or large pages, at least as many bytes as were asked for, and no page more. */
static void sizes_are_rounded_up(void **state)
{
    static const size_t sizes[] = {
        1, 63, 64, 65, 128, 129, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, (10 << 20) + 1};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int large = 0; large < 2; large++) {
            void *memory = large ? alloc_large(sizes[i]) : alloc_bytes(sizes[i]);
            size_t asked = atomic_load(&aligned);
            assert_non_null(memory);
            assert_true((uintptr_t)memory % 64 == 0 && asked % 64 == 0);
            assert_true(asked >= sizes[i] &&
                        asked - sizes[i] < (large && sizes[i] >= 8 << 20 ? 2 << 20 : 64));
            free(memory);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails_once),
                                       cmocka_unit_test(long_softmax_needs_no_memory),
                                       cmocka_unit_test(execute_allocates_nothing),
                                       cmocka_unit_test(forward_allocates_once_per_shape),
                                       cmocka_unit_test(a_refusal_allocates_nothing),
                                       cmocka_unit_test(sizes_that_overflow),
                                       cmocka_unit_test(sizes_are_rounded_up)};
    return run_group("allocations", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
