/* faults.c: a bound that cannot fail proves nothing: every planted fault must exceed it, in every
 * dtype where it is a fault, and the engine without a fault must stay within it. */
#include "bound.h"
#include "flawed.h"
#include "problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

struct fault_test {
    enum fault fault;
    const char *name;
    unsigned dtypes; /* bit per rapt_dtype */
};

enum {
    all = 1 << RAPT_F32 | 1 << RAPT_F16 | 1 << RAPT_BF16,
    f32 = 1 << RAPT_F32,
    f16 = 1 << RAPT_F16,
    not_bf16 = 1 << RAPT_F32 | 1 << RAPT_F16
};

static struct fault_test tests[] = {
#define TEST(name, dtypes) {FAULT_##name, #name, dtypes},
    FAULT_LIST(TEST)
#undef TEST
};

/* What the problems with these names are about decides every fault; NaN and Inf problems only tell
 * that NaN spreads. */
static const char *const standard =
    "semantics/*,extreme/*,long/needles-4200-*,!*nan-in*,!*inf-in*,!*00-causal*,!extreme/*70000";

/* The fraction of the bound on one problem; -1: not served. */
static double fraction(const char *text, enum fault fault, int64_t dtype, char *where, size_t size)
{
    static struct problem_line line;
    struct accuracy accuracy = {.worst = -1};
    char error[256];
    if (!problem_parse(text, &line, error, sizeof error)) fail_msg("%s", error);
    if (line.op != OP_forward || line.dtype != dtype) return -1;
    struct problem_instance *problem = malloc(sizeof *problem);
    assert_non_null(problem);
    if (!problem_build(&line, problem, error, sizeof error)) fail_msg("%s", error);
    if (flawed_forward(&problem->args.forward, fault))
        assert_true(accuracy_check(problem, line.kv_tokens > 4096 ? 0 : 2e6, &accuracy));
    snprintf(where, size, "%s: %s is %.9g, should be %.9g within %.3g", text, accuracy.where,
             accuracy.got, accuracy.want, accuracy.bound);
    problem_free(problem);
    free(problem);
    return accuracy.worst;
}

/* Looks for a problem beyond the bound. */
static bool is_caught(enum fault fault, int64_t dtype, char *where, size_t size, double *worst)
{
    *worst = -1;
    for (int i = 0; i < named_problem_count; i++) {
        char place[512];
        if (named_problems[i].size > 1 || !problem_selected(named_problems[i].name, standard))
            continue;
        double found = fraction(named_problems[i].line, fault, dtype, place, sizeof place);
        if (found > *worst) {
            *worst = found;
            snprintf(where, size, "%s", place);
        }
        if (found > 1) return true;
    }
    return false;
}

static void test_fault(void **state)
{
    const struct fault_test *test = *state;
    for (int64_t dtype = RAPT_F32; dtype <= RAPT_BF16; dtype++) {
        char where[512] = "";
        double worst;
        if (!(test->dtypes >> dtype & 1)) continue;
        bool caught = is_caught(test->fault, dtype, where, sizeof where, &worst);
        if (getenv("RAPT_TEST_VERBOSE"))
            fprintf(stderr, "# %s: %.3g of the bound, %s\n", test->name, worst, where);
        if (test->fault == FAULT_none && caught)
            fail_msg("the engine without a fault is at %.3g of the bound: %s", worst, where);
        if (test->fault != FAULT_none && !caught)
            fail_msg("%s is not caught: at most %.3g of the bound: %s", test->name, worst, where);
    }
}

int main(int argc, char **argv)
{
    struct CMUnitTest list[FAULT_COUNT];
    for (int i = 0; i < FAULT_COUNT; i++)
        list[i] = (struct CMUnitTest){tests[i].name, test_fault, NULL, NULL, &tests[i]};
    return run_group("planted faults", list, FAULT_COUNT, NULL, NULL, argc, argv);
}
