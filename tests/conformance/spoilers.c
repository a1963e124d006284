/* spoilers.c: a NaN or an Inf stays in the rows that see it (S19): all others have the bits of a run
 * without it. One test per line, device and kernel: the library's choice, then each of
 * RAPT_TEST_KERNELS that serves the line. --list prints the names of the lines. */
#include "trial.h"

struct line {
    const char *name, *text;
    bool in_q; /* not in K or V: no row sees the middle key */
};

static const struct line lines[] = {
    {"causal-f32", "forward f32 b2 h4/2 q70 kv70 d64 causal", false},
    {"causal-bf16", "forward bf16 b2 h4/2 q70 kv70 d64 causal", false},
    {"window-f16", "forward f16 b2 h4/2 q70 kv70 d64 window9,9", false},
    {"decode-f32", "forward f32 b2 h8/2 q1 kv300 d64", false},
    {"decode-window-bf16", "forward bf16 b2 h8/2 q4 kv300 d128 causal window30,0", true},
    {"causal-2100-bf16", "forward bf16 b1 h2 q2100 kv2100 d64 causal", false},
    {"causal-300-128-f16", "forward f16 b2 h4/2 q300 kv300 d128 causal", false},
    {"causal-300-256-bf16", "forward bf16 b1 h2 q300 kv300 d256 causal", false},
    {"causal-300-64-bf16", "forward bf16 b2 h4/2 q300 kv300 d64 causal", false},
    /* heads side by side in a tile's rows; values by panels */
    {"causal-300-72-bf16", "forward bf16 b2 h4/2 q300 kv300 d72 causal", false},
    {"window-300-72-f16", "forward f16 b2 h4/2 q300 kv300 d72 window99,99", false},
    {"causal-300-96-bf16", "forward bf16 b2 h4/2 q300 kv300 d96 causal", false},
    {"window-300-160-f16", "forward f16 b2 h4/2 q300 kv300 d160 window99,99", false},
    {"causal-300-200-f32", "forward f32 b2 h4/2 q300 kv300 d200 causal", false},
    {"causal-300-128-i8-bf16", "forward bf16 kv-i8 b2 h4/2 q300 kv300 d128 causal", false},
    {"causal-300-64-i8-f16", "forward f16 kv-i8 b2 h4/2 q300 kv300 d64 causal", false},
    {"causal-300-64-f32", "forward f32 b2 h4/2 q300 kv300 d64 causal", false},
    /* many tiles; tiles of 192 and 128 rows */
    {"causal-500-128-f32", "forward f32 b1 h4/2 q500 kv500 d128 causal", false},
    {"causal-23-f32", "forward f32 b2 h4/2 q23 kv23 d64 causal", false},
    {"causal-23-bf16", "forward bf16 b2 h2 q23 kv23 d64 causal", false},
    {"bias-70-bf16", "forward bf16 b2 h4/2 q70 kv70 d64 causal bias", false},
    {"bias-300-128-f16", "forward f16 b2 h4/2 q300 kv300 d128 causal softcap20 alibi bias-own",
     false},
    {"bias-140-128-f32", "forward f32 b2 h4/2 q140 kv300 d128 bias", false}};
enum { LINES = sizeof lines / sizeof *lines };

/* y is x with the middle query, or its bias, or the middle key of sequence 0 spoiled, in the first
 * head. */
static void assert_stays(const struct trial *x, const struct trial *y, bool in_q)
{
    const rapt_attention *a = &x->host.args.forward, *b = &y->host.args.forward;
    int64_t group = a->q.size[1] / a->k.size[1], differing = 0,
            middle = (in_q ? a->q.size[2] : problem_kv_length(&x->line, 0)) / 2;
    for (int64_t s = 0; s < a->out.size[0]; s++)
        for (int64_t h = 0; h < a->out.size[1]; h++)
            for (int64_t i = 0; i < a->out.size[2]; i++) {
                int64_t first, last;
                problem_visible(&x->line, s, i, &first, &last);
                bool touched = !s && (in_q ? !h && i == middle
                                           : h < group && middle >= first && middle < last);
                int64_t differs = row_differs(&a->out, &b->out, s, h, i, s);
                differing += differs;
                if (!touched && differs)
                    fail_msg("%s: row %lld,%lld,%lld does not see it and changed", y->line.text,
                             (long long)s, (long long)h, (long long)i);
            }
    assert_true(differing > 0);
}

struct run {
    const struct line *line;
    rapt_device *device;
    char text[PROBLEM_LINE - 16]; /* of the line, with the kernel's name */
    char name[160];
};

static void test_run(void **state)
{
    static const char *const spoilers[] = {"nan_q", "nan_k",  "nan_v",    "inf_q",   "inf_k",
                                           "inf_v", "minf_k", "nan_bias", "inf_bias"};
    const struct run *run = *state;
    struct trial *x = trial_of(run->text, run->device);
    for (size_t n = 0; n < sizeof spoilers / sizeof *spoilers; n++) {
        char spoiled[PROBLEM_LINE];
        bool in_bias = strstr(spoilers[n], "bias") != NULL,
             in_q = in_bias || strchr(spoilers[n], 'q') != NULL;
        if (run->line->in_q && !in_q) continue;
        if (in_bias && !strstr(run->line->text, " bias")) continue;
        snprintf(spoiled, sizeof spoiled, "%s %s", run->text, spoilers[n]);
        struct trial *y = trial_of(spoiled, run->device);
        assert_stays(x, y, in_q);
        trial_close(y);
    }
    trial_close(x);
}

/* Whether the device's kernel of the line takes it; plans need no memory. */
static bool is_served(const struct run *run)
{
    char error[256];
    rapt_plan *plan = NULL;
    struct trial *t = calloc(1, sizeof *t);
    if (!t || !problem_parse(run->text, &t->line, error, sizeof error) ||
        !problem_build(&t->line, &t->host, error, sizeof error))
        abort();
    bool refused = rapt_plan_create(&plan, run->device, &t->host.args.forward) == RAPT_UNSUPPORTED;
    rapt_plan_destroy(&plan);
    problem_free(&t->host);
    free(t);
    return !refused;
}

static struct run run_of(const struct line *line, int device, const char *kernel)
{
    struct run run = {.line = line, .device = devices.device[device]};
    char label[32];
    test_device_label(&devices.info[device], label);
    snprintf(run.name, sizeof run.name, "%s on %s %s", line->name, label, kernel ? kernel : "");
    snprintf(run.text, sizeof run.text, kernel ? "%s kernel=%s" : "%s", line->text, kernel);
    return run;
}

/* The runs of this part: of all lines, devices and kernels in turn every RAPT_TEST_PARTS-th. */
static size_t collect(struct run *runs, const char *names[])
{
    int64_t part = test_environment("RAPT_TEST_PART", 0),
            parts = test_environment("RAPT_TEST_PARTS", 1), number = 0;
    size_t count = 0;
    for (int d = 0; d < devices.count; d++) {
        int named = test_kernels_named() ? test_device_kernels(&devices, d, names) : 0;
        for (int i = 0; i < LINES; i++)
            for (int k = -1; k < named; k++) {
                if (number++ % parts != part) continue;
                runs[count] = run_of(&lines[i], d, k < 0 ? NULL : names[k]);
                if (k < 0 || is_served(&runs[count])) count++;
            }
    }
    return count;
}

static int run_all(void)
{
    size_t kernels = (size_t)rapt_kernel_count(devices.context),
           room = (size_t)devices.count * LINES * (kernels + 1);
    const char **names = malloc((kernels + 1) * sizeof *names);
    struct run *runs = malloc((room + 1) * sizeof *runs);
    struct CMUnitTest *tests = calloc(room + 1, sizeof *tests);
    if (!names || !runs || !tests) abort();
    size_t count = collect(runs, names);
    for (size_t i = 0; i < count; i++)
        tests[i] = (struct CMUnitTest){runs[i].name, test_run, NULL, NULL, &runs[i]};
    if (!count) printf("1..0 # SKIP no such device here, or no test in this part\n");
    int failed = count ? _cmocka_run_group_tests("spoilers", tests, count, NULL, NULL) : 0;
    free(tests);
    free(runs);
    free(names);
    return failed;
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        for (int i = 0; i < LINES; i++) printf("%s\n", lines[i].name);
        return 0;
    }
    if (!test_devices_open(&devices)) {
        fprintf(stderr, "%s\n", rapt_last_error());
        return 1;
    }
    int failed = run_all();
    test_devices_close(&devices);
    return failed != 0;
}
