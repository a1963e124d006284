/* conformance.c: the named problems on the chosen devices and kernels against the oracle, and one
 * test per problem.
 * --list prints the names, --runs what would run on the devices. tests/devices.h names the
 * environment variables. */
#include "base/dtype.h"
#include "bound.h"
#include "devices.h"
#include "problem.h"

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <fenv.h>
#endif
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct run {
    const struct named_problem *named;
    rapt_device *device;
    const char *kernel; /* NULL: the library's choice */
    char name[160];
};

/* Multiply-adds that the oracle may spend on one problem; beyond, it samples rows.
 * RAPT_TEST_BUDGET: in millions. */
static double budget(void)
{
    return 1e6 * (double)test_environment("RAPT_TEST_BUDGET", 60);
}

static bool is_in(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* Where the composed path of GPUs leaves the definition (S19): where a value is NaN that other rows give a
 * weight, or infinite as its key is. */
static bool is_exception(const struct problem_line *line, const char *kernel)
{
    if (strcmp(kernel, "composed")) return false;
    return (line->bias_inf && (line->data == DATA_nan_v || line->data == DATA_mixed_v)) ||
           (line->kv_shared && (line->data == DATA_inf_k || line->data == DATA_minf_first));
}

/* The composed path leaves out values of weight 0 (S19), as all NaN of these problems are. */
static void leave_out(struct problem_instance *problem, const char *kernel)
{
    const rapt_tensor *v = &problem->args.forward.v;
    int data = problem->line.data;
    if (strcmp(kernel, "composed") || v->dtype == RAPT_I8 ||
        (data != DATA_minf_first_nan_v && data != DATA_minf_nan_v))
        return;
    for (int64_t b = 0; b < v->size[0]; b++)
        for (int64_t h = 0; h < v->size[1]; h++)
            for (int64_t j = 0; j < v->size[2]; j++)
                for (int64_t c = 0; c < v->size[3]; c++) {
                    int64_t at = tensor_offset(v, b, h, j, c);
                    if (isnan(load_float(v->data, v->dtype, at)))
                        store_float(v->data, v->dtype, at, 0);
                }
}

/* The kernel that serves; "" if none does, and for the separate operations. */
static void name_kernel(struct problem_instance *problem, rapt_device *device, char name[64])
{
    rapt_plan *plan = NULL;
    name[0] = 0;
    if (problem->line.op != OP_forward) return;
    if (!rapt_plan_create(&plan, device, &problem->args.forward))
        snprintf(name, 64, "%s", rapt_plan_kernel(plan));
    rapt_plan_destroy(&plan);
}

static void check_result(struct problem_instance *problem, const char *kernel)
{
    struct accuracy accuracy;
    const char *spoiled = problem_spoiled(problem);
    if (spoiled)
        fail_msg("%s: bytes outside of the outputs were written, around or in %s",
                 problem->line.text, spoiled);
    leave_out(problem, kernel);
    if (!accuracy_check(problem, budget(), &accuracy)) fail_msg("no memory for the oracle");
    if (accuracy.worst > 1)
        fail_msg("%s: %s is %.9g, should be %.9g; the error is %.3g of the bound %.3g",
                 problem->line.text, accuracy.where, accuracy.got, accuracy.want, accuracy.worst,
                 accuracy.bound);
    if (getenv("RAPT_TEST_VERBOSE"))
        fprintf(stderr, "# %.4f of the bound at %s, %lld elements\n", accuracy.worst,
                accuracy.where, (long long)accuracy.elements);
}

static bool is_gpu(rapt_device *device)
{
    rapt_device_info info = {.struct_size = sizeof info};
    return !rapt_device_describe(device, &info) && strcmp(info.backend, "cpu");
}

/* Rounding, and whether subnormal numbers count: the caller's, which a call leaves as they are. */
static unsigned float_control(void)
{
#if defined(__x86_64__)
    enum { FLAGS = 0x3f }; /* what has happened so far */
    return _mm_getcsr() & ~(unsigned)FLAGS;
#else
    return (unsigned)fegetround();
#endif
}

/* Runs the problem and compares what it gives. */
static void run_problem(const struct run *run, struct problem_instance *problem, const char *kernel)
{
    const struct problem_line *line = &problem->line;
    struct problem_device there;
    assert_int_equal(problem_upload(problem, run->device, &there), RAPT_OK);
    unsigned control = float_control();
    rapt_status status = problem_run(&there, line->op, NULL);
    assert_int_equal(float_control(), control);
    /* A plan does not know the addresses yet. */
    bool unaligned = status == RAPT_UNSUPPORTED && run->kernel &&
                     is_in(rapt_last_error(), "is not 16-byte aligned");
    bool blocked = status == RAPT_UNSUPPORTED && line->kv_blocked && is_gpu(run->device);
    if (blocked) assert_true(is_in(rapt_last_error(), "kv_layout is blocked"));
    if (status && !unaligned && !blocked)
        fail_msg("%s: %s: %s", line->text, rapt_status_text(status), rapt_last_error());
    if (!status && problem_download(&there, problem)) fail_msg("%s", rapt_last_error());
    if (!status) check_result(problem, kernel);
    problem_device_free(&there);
}

static void test_problem(void **state)
{
    const struct run *run = *state;
    struct problem_line line;
    char error[256], kernel[64];
    if (!problem_parse(run->named->line, &line, error, sizeof error)) fail_msg("%s", error);
    if (run->kernel) snprintf(line.kernel, sizeof line.kernel, "%s", run->kernel);
    struct problem_instance *problem = malloc(sizeof *problem);
    assert_non_null(problem);
    if (!problem_build(&line, problem, error, sizeof error)) fail_msg("%s", error);
    name_kernel(problem, run->device, kernel);
    if (is_exception(&line, kernel))
        print_message("# %s: left out, %s may differ there (S19)\n", run->named->name, kernel);
    else run_problem(run, problem, kernel);
    problem_free(problem);
    free(problem);
}

/* The problem, for asking kernels whether they serve it; problem_free, then free. */
static struct problem_instance *instance_of(const struct named_problem *named)
{
    static struct problem_line line;
    char error[256];
    struct problem_instance *problem = malloc(sizeof *problem);
    if (!problem || !problem_parse(named->line, &line, error, sizeof error) ||
        !problem_build(&line, problem, error, sizeof error))
        abort();
    return problem;
}

/* Whether the kernel takes the problem: it is not a test of kernels that refuse it. */
static bool is_served(struct problem_instance *problem, rapt_device *device, const char *kernel)
{
    rapt_plan *plan = NULL;
    problem->args.forward.kernel = kernel;
    bool refused = rapt_plan_create(&plan, device, &problem->args.forward) == RAPT_UNSUPPORTED;
    rapt_plan_destroy(&plan);
    return !refused;
}

/* What runs, and what cmocka makes of it. */
struct suite {
    struct test_devices devices;
    struct run *runs;
    size_t count, room;
    int64_t part, parts;   /* this program takes every parts-th problem */
    int64_t share, shares; /* of every shares-th kind, one type; 0: all */
};

static void add_run(struct suite *suite, const struct named_problem *named, int device,
                    const char *kernel)
{
    char label[32];
    if (suite->count == suite->room) {
        suite->room = 2 * suite->room + 1024;
        suite->runs = realloc(suite->runs, suite->room * sizeof *suite->runs);
        if (!suite->runs) abort();
    }
    struct run *run = &suite->runs[suite->count++];
    *run = (struct run){.named = named, .device = suite->devices.device[device], .kernel = kernel};
    test_device_label(&suite->devices.info[device], label);
    snprintf(run->name, sizeof run->name, "%s on %s %s", named->name, label, kernel ? kernel : "");
}

/* The library's choice, or each kernel of the names that serves and keeps to the definition. */
static void add_problem(struct suite *suite, const struct named_problem *named, int device,
                        const char *const names[], int name_count)
{
    if (!name_count || strncmp(named->line, "forward", 7)) {
        add_run(suite, named, device, NULL);
        return;
    }
    struct problem_instance *problem = instance_of(named);
    for (int k = 0; k < name_count; k++)
        if (!is_exception(&problem->line, names[k]) &&
            is_served(problem, suite->devices.device[device], names[k]))
            add_run(suite, named, device, names[k]);
    problem_free(problem);
    free(problem);
}

/* Which kernels to name: none for the library's choice, those of RAPT_TEST_KERNELS, or with RAPT_CPU
 * that level's own, so that a level is not credited with problems that it leaves to a lower one. */
static int named_kernels(const struct test_devices *devices, int device, const char *names[])
{
    int count = test_device_kernels(devices, device, names);
    if (test_kernels_named()) return count;
    const char *level = getenv("RAPT_CPU");
    return level && *level && !strcmp(devices->info[device].backend, "cpu") && count ? 1 : 0;
}

/* Letters of a name without its type: problems that differ in that alone are one kind. */
static size_t kind_length(const char *name)
{
    const char *type = strrchr(name, '-');
    if (type && (!strcmp(type, "-f32") || !strcmp(type, "-f16") || !strcmp(type, "-bf16")))
        return (size_t)(type - name);
    return strlen(name);
}

/* Behind the last problem of the kind that begins at `first`. */
static int end_of_kind(int first)
{
    const char *name = named_problems[first].name;
    size_t length = kind_length(name);
    int i = first + 1;
    while (i < named_problem_count && kind_length(named_problems[i].name) == length &&
           !strncmp(named_problems[i].name, name, length))
        i++;
    return i;
}

/* The shares take the kinds in turn, and of their types one in turn. */
static bool is_of_share(const struct suite *suite, int64_t kind, int type, int types)
{
    return suite->shares < 1 ||
           (kind % suite->shares == suite->share && kind / suite->shares % types == type);
}

static void add_all(struct suite *suite)
{
    const char *filter = getenv("RAPT_TEST_FILTER");
    const char **names = malloc((size_t)rapt_kernel_count(suite->devices.context) * sizeof *names);
    if (!names) abort();
    int64_t largest = test_environment("RAPT_TEST_SIZE", 2), number = 0, kind = 0;
    for (int d = 0; d < suite->devices.count; d++) {
        int named = named_kernels(&suite->devices, d, names);
        for (int first = 0, end; first < named_problem_count; first = end, kind++) {
            end = end_of_kind(first);
            for (int i = first; i < end; i++)
                if (named_problems[i].size <= largest &&
                    is_of_share(suite, kind, i - first, end - first) &&
                    problem_selected(named_problems[i].name, filter) &&
                    number++ % suite->parts == suite->part)
                    add_problem(suite, &named_problems[i], d, names, named);
        }
    }
    free(names);
}

static int run_all(const struct suite *suite)
{
    struct CMUnitTest *tests = calloc(suite->count, sizeof *tests);
    if (!tests) abort();
    for (size_t i = 0; i < suite->count; i++)
        tests[i] =
            (struct CMUnitTest){suite->runs[i].name, test_problem, NULL, NULL, &suite->runs[i]};
    int failed = _cmocka_run_group_tests("conformance", tests, suite->count, NULL, NULL);
    free(tests);
    return failed;
}

int main(int argc, char **argv)
{
    struct suite suite = {.part = test_environment("RAPT_TEST_PART", 0),
                          .parts = test_environment("RAPT_TEST_PARTS", 1),
                          .share = test_environment("RAPT_TEST_SHARE", 0),
                          .shares = test_environment("RAPT_TEST_SHARES", 0)};
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < named_problem_count; i++) printf("%s\n", named_problems[i].name);
        return 0;
    }
    if (!test_devices_open(&suite.devices)) {
        fprintf(stderr, "%s\n", rapt_last_error());
        return 1;
    }
    if (!suite.devices.count || test_level_missing(&suite.devices)) {
        printf("1..0 # SKIP no such device or CPU level here\n");
        test_devices_close(&suite.devices);
        return 0;
    }
    if (suite.parts > 0) add_all(&suite);
    bool lists = argc > 1 && !strcmp(argv[1], "--runs");
    for (size_t i = 0; lists && i < suite.count; i++) printf("%s\n", suite.runs[i].name);
    int failed = suite.count && !lists ? run_all(&suite) : 0;
    if (!suite.count) printf("1..0 # SKIP the filter leaves no problem\n");
    free(suite.runs);
    test_devices_close(&suite.devices);
    return failed != 0;
}
