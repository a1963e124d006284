/* prefetch.c: when decode asks for a cache line of K and V that have no gaps, and when again: by the CPU
 * (cpu_requests). */
#include "base/cpuid.h"
#include "cpu/ops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cmocka.h>

#include "decode_spies.h"
#include "group.h"

enum { KEYS = 1024, CHANNELS = 64 };

static float q[CHANNELS], k[KEYS * CHANNELS], v[KEYS * CHANNELS], out[CHANNELS];
static int64_t asks, skip, again;

/* Notes what comes with a call on its way to the level's own function. */
static void note(const struct cpu_ahead *ahead)
{
    if (!ahead) return;
    asks++;
    skip = ahead->skip;
    again = ahead->again;
}

static rapt_attention one_query(void)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bthd(q, RAPT_F32, 1, 1, 1, CHANNELS);
    a.k = rapt_tensor_bthd(k, RAPT_F32, 1, 1, KEYS, CHANNELS);
    a.v = rapt_tensor_bthd(v, RAPT_F32, 1, 1, KEYS, CHANNELS);
    a.out = rapt_tensor_bthd(out, RAPT_F32, 1, 1, 1, CHANNELS);
    return a;
}

static rapt_plan *plan_at(const char *level, rapt_context **context)
{
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
    rapt_attention a = one_query();
    rapt_plan *plan = NULL;
    if (level) setenv("RAPT_CPU", level, 1);
    else unsetenv("RAPT_CPU");
    assert_int_equal(rapt_open(context, &config), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(*context, 0), &a), RAPT_OK);
    return plan;
}

/* Bytes after which lines are asked for once more; 0: at once. */
static int64_t again_of(const struct cpu_requests *requests)
{
    rapt_context *context = NULL;
    rapt_plan *plan = plan_at(NULL, &context);
    rapt_attention a = one_query();
    struct cpu_plan *own = plan->state;
    void *workspace = aligned_alloc(64, (rapt_plan_workspace_size(plan) + 63) / 64 * 64);
    struct cpu_kernels spies = spies_of(own->kernels);
    assert_non_null(workspace);
    own->kernels = &spies;
    own->requests = requests;
    asks = 0;
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    assert_true(asks > 0);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    free(workspace);
    return again;
}

static void as_the_row_says(void **state)
{
    (void)state;
    for (int i = 0; i < CPU_REQUESTS; i++) {
        const struct cpu_requests *row = &cpu_requests[i];
        assert_true(row->ahead > 0); /* ahead of what is read both times */
        assert_true(row->again == CPU_ONCE || -row->again < row->ahead);
        assert_true(row->span >= 0);
        assert_int_equal(again_of(row), row->again);
        assert_int_equal(skip, row->ahead);
    }
}

/* Whatever levels RAPT_CPU hides. */
static void by_the_cpu(void **state)
{
    static const char *const levels[] = {NULL, "scalar"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        rapt_context *context = NULL;
        rapt_plan *plan = plan_at(levels[i], &context);
        const struct cpu_plan *own = plan->state;
        uint64_t features = cpu_features();
        assert_ptr_equal(own->requests, &cpu_requests[features & CPU_FETCHES_TWICE    ? 0
                                                      : features & CPU_FETCHES_EARLY  ? 2
                                                      : features & CPU_DROPS_REQUESTS ? 3
                                                      : features & CPU_KEEPS_REQUESTS ? 4
                                                                                      : 5]);
        rapt_plan_destroy(&plan);
        rapt_close(&context);
    }
    unsetenv("RAPT_CPU");
}

/* A row of one kind of levels is for these alone. */
static void by_the_pair(void **state)
{
    (void)state;
    for (int64_t pair = 0; pair <= 2; pair++)
        assert_ptr_equal(cpu_requests_of(CPU_FETCHES_EARLY, pair),
                         &cpu_requests[pair == 2 ? 1 : 2]);
    assert_ptr_equal(cpu_requests_of(0, 2), &cpu_requests[5]);
}

static void by_the_vendor(void **state)
{
    (void)state;
#if defined(__x86_64__)
    int keeps = !!(cpu_features() & CPU_KEEPS_REQUESTS);
    assert_int_equal(keeps, __builtin_cpu_is("intel") && cpu_features() & CPU_AVX2);
    int has_tiles = !!(cpu_features() & (CPU_AMX_BF16 | CPU_AMX_INT8));
    assert_true(!(cpu_features() & CPU_FETCHES_TWICE) || keeps);
    if (keeps && has_tiles) assert_true(cpu_features() & CPU_FETCHES_TWICE);
    uint32_t a = 0, b, c, d;
    (void)__get_cpuid(1, &a, &b, &c, &d);
    int family = __builtin_cpu_is("amd") && (a >> 8 & 15) == 15 ? 15 + (int)(a >> 20 & 255) : 0;
    assert_int_equal(!!(cpu_features() & CPU_FETCHES_EARLY),
                     family >= 26 && cpu_features() & CPU_AVX2);
    assert_int_equal(!!(cpu_features() & CPU_DROPS_REQUESTS),
                     family == 25 && cpu_features() & CPU_AVX512);
#else
    skip_test("not an x86 CPU");
#endif
}

/* Separate operations: the run asked for is the first that comes rows_ahead bytes of rows later, in the order of
 * blocks and of the runs in each. */
static void of_operations(void **state)
{
    enum { STEP = 100000, BLOCK_STEP = 640 };
    (void)state;
    for (int i = 0; i < CPU_REQUESTS; i++) {
        struct cpu_device own = {.features = cpu_requests[i].feature};
        rapt_device device = {.state = &own};
        int64_t asked = cpu_requests[i].rows_ahead;
        if (cpu_requests[i].pair) continue;
        assert_ptr_equal(cpu_requests_of(own.features, 0), &cpu_requests[i]);
        for (int64_t runs = 1; runs <= 5; runs++)
            for (int64_t bytes = 128; bytes <= 16384; bytes *= 2)
                for (int64_t run = 0; run < runs; run++) {
                    int64_t later = 1;
                    while (later * bytes < asked) later++;
                    int64_t block = (run + later) / runs, of_block = (run + later) % runs;
                    int64_t expected = block * BLOCK_STEP + of_block * STEP - run * STEP;
                    assert_int_equal(ops_ahead(&device, bytes, run, runs, STEP, BLOCK_STEP),
                                     asked ? expected : 0);
                }
        assert_int_equal(ops_ahead(&device, 0, 0, 1, STEP, BLOCK_STEP), 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_the_row_says),
                                       cmocka_unit_test(by_the_cpu), cmocka_unit_test(by_the_pair),
                                       cmocka_unit_test(by_the_vendor),
                                       cmocka_unit_test(of_operations)};
    return run_group("prefetch", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
