/* random.c: problems of random sizes, types, layouts and options against the oracle. RAPT_TEST_RANDOM of them on each
 * device (default 200, for an emulator 10), from number RAPT_TEST_SEED (default 1) on: each number is one problem, so
 * that one that fails can be run again alone. `make check-random` runs 10,000 on the CPU. */
#include "trial.h"

struct draw {
    uint64_t seed, count;
};

static int64_t below(struct draw *d, int64_t n)
{
    return (int64_t)(problem_random(d->seed, 77, d->count++) % (uint64_t)n);
}

static bool chance(struct draw *d, int percent)
{
    return below(d, 100) < percent;
}

#define ONE_OF(d, list) (list)[below(d, sizeof(list) / sizeof *(list))]

__attribute__((format(printf, 2, 3))) static void add(char *line, const char *format, ...)
{
    size_t length = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + length, PROBLEM_LINE - length, format, arguments);
    va_end(arguments);
}

/* Words that may be there beside any others, and how often of a hundred times. */
static const struct {
    const char *word;
    int percent;
} options[] = {{"causal", 35},   {"topleft", 20},   {"lse", 60},        {"sink", 12},
               {"alibi", 12},    {"softcap2", 7},   {"softcap0.25", 4}, {"scale-0.3", 5},
               {"scale0.7", 5},  {"bhtd", 40},      {"kvlen", 30},      {"batch_invariant", 15},
               {"edge", 20},     {"weights", 5},    {"out-f32", 15},    {"hidden-nan", 25},
               {"i64", 10},      {"bias", 6},       {"bias=1h1k", 3},   {"bias=b11k", 3},
               {"bias-own", 5},  {"mask", 6},       {"mask=11qk", 3},   {"mask=b1q1", 3},
               {"ragged-q", 10}, {"ragged-kv", 10}, {"spare3", 10}};

/* At most one of a kind of words. */
static const char *const strides[] = {"neg", "odd", "pad8", "chan2", "zero"};
static const char *const pages[] = {"paged1", "paged7", "paged16", "paged33", "paged64"};
static const char *const windows[] = {"window0,0", "window5,3", "window40,0", "windowinf,9",
                                      "window130,inf"};
static const char *const scales[] = {"block32",    "block32",    "block16",
                                     "scales=1h1", "scales=b1t", "scales=111"};
/* But the first two also of i8, whose scales make inexact what these have exact. */
static const char *const numbers[] = {"huge",     "integer",    "needles",  "growing",   "falling",
                                      "peaked",   "cancelling", "constant", "sincos100", "tiny",
                                      "denormal", "leap",       "large_v"};
enum { EXACT = 2, NUMBERS = sizeof numbers / sizeof *numbers };
/* The second half also of i8, whose infinite scales may give NaN (S23). */
static const char *const special[] = {"inf_q", "inf_v", "minf_k", "minf_first", "minf_last",
                                      "nan_q", "nan_k", "nan_v",  "nan_v_end",  "nan_heads"};

static void draw_sizes(struct draw *d, char *line, int step)
{
    static const int64_t queries[] = {1, 1, 1, 2, 3, 4, 7, 13, 17, 33, 40, 64, 65, 100, 129},
                         keys[] = {0,   1,   2,   7,   15,   16,   17,  31,  33,
                                   63,  65,  100, 127, 128,  129,  255, 256, 257,
                                   300, 511, 513, 700, 1023, 1025, 1537},
                         channels[] = {1,  3,  8,  16, 17,  31,  33,  40,
                                       64, 65, 80, 96, 128, 130, 192, 256},
                         groups[] = {1, 1, 2, 3, 4, 5, 8, 9, 16};
    int64_t q = ONE_OF(d, queries), kv = ONE_OF(d, keys), batch = 1 + below(d, 3),
            kv_heads = 1 + below(d, 3), group = ONE_OF(d, groups), qk = ONE_OF(d, channels),
            v = chance(d, 70) ? qk : ONE_OF(d, channels);
    if (step > 1) qk = step * (1 + below(d, 6)), v = chance(d, 70) ? qk : step * (1 + below(d, 6));
    while (batch * kv_heads * group * q * kv * (qk + v) > 6000000) {
        if (q > 2 * kv) q /= 2;
        else if (group > 1) group /= 2;
        else if (batch > 1) batch--;
        else if (kv_heads > 1) kv_heads--;
        else if (q > 8) q /= 2;
        else kv /= 2;
    }
    add(line, " b%d h%d/%d q%d kv%d d%d/%d", (int)batch, (int)(kv_heads * group), (int)kv_heads,
        (int)q, (int)kv, (int)qk, (int)v);
}

/* Words may contradict each other: then the parser says so, and others are drawn. */
static void draw_line(struct draw *d, char *line, bool any_values)
{
    static const char *const dtypes[] = {"f32",        "f16",        "bf16",       "f32",
                                         "f16",        "bf16",       "f32 kv-i8",  "f16 kv-i8",
                                         "bf16 kv-i8", "bf16 kv-i8", "f32 kv-f16", "f32 kv-bf16",
                                         "i8 kv-i8"};
    const char *dtype = ONE_OF(d, dtypes), *scale = chance(d, 60) ? ONE_OF(d, scales) : "";
    bool q_is_i8 = dtype[0] == 'i', is_i8 = strstr(dtype, "i8") != NULL,
         blocked = !is_i8 && chance(d, 12);
    snprintf(line, PROBLEM_LINE, "forward %s", dtype);
    draw_sizes(d, line, (is_i8 && strncmp(scale, "block", 5) == 0) || blocked ? 32 : 1);
    if (is_i8) add(line, " %s", scale);
    if (blocked) add(line, " kv-blocked%s", chance(d, 30) ? " paged64" : "");
    else if (chance(d, 20)) add(line, " %s", ONE_OF(d, pages));
    if (!blocked && chance(d, 15)) add(line, " %s", ONE_OF(d, strides));
    if (chance(d, 20)) add(line, " %s", ONE_OF(d, windows));
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (chance(d, options[i].percent) && !(q_is_i8 && !strcmp(options[i].word, "bias-own")))
            add(line, " %s", options[i].word);
    if (chance(d, 25))
        add(line, " %s", numbers[is_i8 ? EXACT + below(d, NUMBERS - EXACT) : below(d, NUMBERS)]);
    else if (any_values && chance(d, 20))
        add(line, " %s", special[is_i8 ? 5 + below(d, 5) : below(d, 10)]);
    add(line, " seed%d", (int)below(d, 1000));
}

/* A copy of it, or NULL where its words contradict each other. */
static struct trial *trial_of_any(const char *line, rapt_device *device)
{
    char error[256];
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    if (problem_parse(line, &t->line, error, sizeof error) &&
        problem_build(&t->line, &t->host, error, sizeof error)) {
        if (problem_upload(&t->host, device, &t->there))
            fail_msg("%s: %s", line, rapt_last_error());
        return t;
    }
    free(t);
    return NULL;
}

/* 1: right; 0: a GPU has no kernel for it, or nobody could have. Wrong ends the test, and so does a CPU's refusal. */
static int check_line(int number, const char *line, rapt_device *device, bool is_cpu)
{
    struct trial *t = trial_of_any(line, device);
    if (!t) return 0;
    rapt_status status = problem_run(&t->there, OP_forward, NULL);
    if (status && (is_cpu || status != RAPT_UNSUPPORTED))
        fail_msg("%d: %s: %s", number, line, rapt_last_error());
    if (!status) {
        struct accuracy accuracy;
        if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
        const char *spoiled = problem_spoiled(&t->host);
        if (spoiled) fail_msg("%d: %s: bytes beside %s were written", number, line, spoiled);
        assert_true(accuracy_check(&t->host, 0, &accuracy));
        if (accuracy.worst > 1)
            fail_msg("%d: %s: %s is %.9g, should be %.9g, %.3g of the bound", number, line,
                     accuracy.where, accuracy.got, accuracy.want, accuracy.worst);
    }
    trial_close(t);
    return !status;
}

static void random_problems(void **state)
{
    int64_t first = test_environment("RAPT_TEST_SEED", 1),
            count = test_environment("RAPT_TEST_RANDOM", getenv("RAPT_TEST_EMULATED") ? 10 : 200);
    (void)state;
    EACH_DEVICE(device)
    {
        bool is_cpu = !strcmp(devices.info[device_index].backend, "cpu");
        int64_t right = 0;
        for (int64_t i = first; i < first + count; i++) {
            struct draw d = {(uint64_t)i, 0};
            char line[PROBLEM_LINE] = "";
            int done = 0;
            for (int tries = 0; tries < 20 && !done; tries++) {
                draw_line(&d, line, is_cpu);
                done = check_line((int)i, line, device, is_cpu);
            }
            right += done;
        }
        print_message("# %lld of %lld random problems on %s\n", (long long)right, (long long)count,
                      devices.info[device_index].backend);
        assert_true(right >= (count * 9 + 9) / 10);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_problems)};
    return run_on_devices("random problems", tests, 1, argc, argv);
}
