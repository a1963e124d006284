/* random.c: problems of random sizes, types, layouts and options against the oracle, forward and the separate
 * operations. RAPT_TEST_RANDOM of each on each device (default 200, for an emulator 10), from number RAPT_TEST_SEED
 * (default 1) on: each number is one problem, so that one that fails can be run again alone. With RAPT_TEST_KERNELS
 * every kernel of these that takes a problem. `make check-random` runs 10,000 on the CPU. */
#include "draw.h"
#include "trial.h"

/* A copy of it, or NULL where its words contradict each other. */
static struct trial *trial_of_any(const char *line, rapt_device *device, const char *kernel)
{
    char error[256];
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    if (problem_parse(line, &t->line, error, sizeof error)) {
        if (kernel) snprintf(t->line.kernel, sizeof t->line.kernel, "%s", kernel);
        if (problem_build(&t->line, &t->host, error, sizeof error)) {
            if (problem_upload(&t->host, device, &t->there))
                fail_msg("%s: %s", line, rapt_last_error());
            return t;
        }
    }
    free(t);
    return NULL;
}

/* GPUs' composed path leaves out values of weight 0 (S19), so that NaN among them may not show. */
static bool is_composed(const rapt_attention *a, rapt_device *device)
{
    rapt_plan *plan = NULL;
    bool composed =
        !rapt_plan_create(&plan, device, a) && !strcmp(rapt_plan_kernel(plan), "composed");
    rapt_plan_destroy(&plan);
    return composed;
}

/* 1: right; 0: a GPU has no kernel for it, the named one refuses, or nobody could have. Wrong ends the test, and so
 * does a CPU's refusal. */
static int check_line(int number, const char *line, rapt_device *device, const char *kernel,
                      bool may_refuse, bool special)
{
    struct trial *t = trial_of_any(line, device, kernel);
    if (!t) return 0;
    if (special && is_composed(&t->there.args.forward, device)) {
        trial_close(t);
        return 0;
    }
    const char *name = kernel ? kernel : "";
    rapt_status status = problem_run(&t->there, t->line.op, NULL);
    if (status && !(may_refuse && status == RAPT_UNSUPPORTED))
        fail_msg("%d: %s: %s: %s", number, line, name, rapt_last_error());
    if (!status) {
        struct accuracy accuracy;
        if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
        const char *spoiled = problem_spoiled(&t->host);
        if (spoiled)
            fail_msg("%d: %s: %s: bytes beside %s were written", number, line, name, spoiled);
        assert_true(accuracy_check(&t->host, 0, &accuracy));
        if (accuracy.worst > 1)
            fail_msg("%d: %s: %s: %s is %.9g, should be %.9g, %.3g of the bound", number, line,
                     name, accuracy.where, accuracy.got, accuracy.want, accuracy.worst);
    }
    trial_close(t);
    return !status;
}

/* Of a device: whether it may refuse, and the kernels to ask for by name. */
struct target {
    rapt_device *device;
    bool is_cpu;
    const char **names;
    int count;
};

/* Whether the kernel takes the problem. */
static bool is_served(struct trial *t, rapt_device *device, const char *kernel)
{
    rapt_plan *plan = NULL;
    t->there.args.forward.kernel = kernel;
    bool served = !rapt_plan_create(&plan, device, &t->there.args.forward);
    rapt_plan_destroy(&plan);
    return served;
}

static int check_forward(int number, struct draw *d, char *line, const struct target *target)
{
    int done = 0;
    bool special = draw_forward(d, line);
    special |= strstr(line, " large_v") != NULL; /* infinite in f16 */
    if (!target->count)
        return check_line(number, line, target->device, NULL, !target->is_cpu, special);
    struct trial *t = trial_of_any(line, target->device, NULL);
    for (int k = 0; t && k < target->count; k++)
        if (is_served(t, target->device, target->names[k]))
            done += check_line(number, line, target->device, target->names[k], true, special);
    if (t) trial_close(t);
    return done;
}

static int check_operation(int number, struct draw *d, char *line, const struct target *target)
{
    draw_operation(d, line);
    return check_line(number, line, target->device, NULL, !target->is_cpu, false);
}

typedef int draw_and_check(int number, struct draw *d, char *line, const struct target *target);

/* Numbers whose problem ran, with one kernel at least; of each, up to 20 problems are drawn. */
static void check_numbers(draw_and_check *check, const char *what)
{
    int64_t first = test_environment("RAPT_TEST_SEED", 1),
            count = test_environment("RAPT_TEST_RANDOM", getenv("RAPT_TEST_EMULATED") ? 10 : 200);
    EACH_DEVICE(device)
    {
        const char *backend = devices.info[device_index].backend;
        struct target target = {device, !strcmp(backend, "cpu"), NULL, 0};
        target.names = calloc((size_t)rapt_kernel_count(devices.context) + 1, sizeof(char *));
        assert_non_null(target.names);
        if (test_kernels_named())
            target.count = test_device_kernels(&devices, device_index, target.names);
        int64_t right = 0, runs = 0;
        for (int64_t i = first; i < first + count; i++) {
            struct draw d = {(uint64_t)i, 0};
            char line[PROBLEM_LINE] = "";
            int done = 0;
            for (int tries = 0; tries < 20 && !done; tries++)
                done = check((int)i, &d, line, &target);
            right += done > 0;
            runs += done;
        }
        print_message("# %lld of %lld random %s on %s, %lld runs\n", (long long)right,
                      (long long)count, what, backend, (long long)runs);
        free(target.names);
        if (!test_kernels_named()) assert_true(right >= (count * 9 + 9) / 10);
    }
}

static void random_problems(void **state)
{
    (void)state;
    check_numbers(check_forward, "problems");
}

static void random_operations(void **state)
{
    (void)state;
    check_numbers(check_operation, "operations");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_problems),
                                       cmocka_unit_test(random_operations)};
    return run_on_devices("random problems", tests, sizeof tests / sizeof *tests, argc, argv);
}
