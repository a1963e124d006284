/* few_threads.c: how many threads few queries over few keys are worth waking, however many there are: one for less than
 * two of a level's wake_share, any number where it has none; and how many may join: as there are heads or threads. */
#include "cpu/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "group.h"

enum {
    HEADS = 4,
    TOKENS = 16,
    CHANNELS = 64,
    THREADS = 8,
    WORK = HEADS * TOKENS * TOKENS * 2 * CHANNELS
};

static float q[HEADS * TOKENS * CHANNELS], k[HEADS * TOKENS * CHANNELS],
    v[HEADS * TOKENS * CHANNELS], out[HEADS * TOKENS * CHANNELS];

static void by_the_share(void **state)
{
    static const struct {
        int64_t share, threads;
    } cases[] = {{0, INT32_MAX}, {1, WORK},         {WORK / 20, 20}, {WORK / 3, 3},
                 {WORK / 2, 2},  {WORK / 2 + 1, 1}, {WORK, 1},       {WORK + 1, 1}};
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = THREADS};
    rapt_attention a = {.struct_size = sizeof a};
    rapt_context *context = NULL;
    rapt_plan *plan = NULL;
    (void)state;
    a.q = rapt_tensor_bthd(q, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    a.k = rapt_tensor_bthd(k, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    a.v = rapt_tensor_bthd(v, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    a.out = rapt_tensor_bthd(out, RAPT_F32, 1, HEADS, TOKENS, CHANNELS);
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_OK);
    struct cpu_plan own = *(const struct cpu_plan *)plan->state;
    struct cpu_kernels kernels = *own.kernels;
    int serves = own.serves_few;
    own.kernels = &kernels;
    own.slots = THREADS;
    for (size_t i = 0; serves && i < sizeof cases / sizeof *cases; i++) {
        kernels.wake_share = cases[i].share;
        size_t bytes = few_plan(&plan->problem, &own);
        assert_int_equal(own.few_worth, cases[i].threads);
        assert_int_equal(own.few_slots, HEADS);
        assert_int_equal(bytes, own.few_scratch_bytes * HEADS);
    }
    struct problem immense = plan->problem;
    immense.batch = (int64_t)1 << 62; /* times WORK it is beyond 64 bits */
    kernels.wake_share = 1;
    assert_int_equal(cpu_threads_worth_waking(&immense, &own), INT32_MAX);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    if (!serves) skip_test("no kernel here for few queries over few keys");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_the_share)};
    return run_group("few threads", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
