/* mission.c: the end-to-end tests that the project was asked for: real model shapes, MQA and GQA,
 * long and extreme inputs, on every device against the oracle, and GPUs against the CPU. */
#include "devices.h"

#include <math.h>

/* In f32, GPU and CPU agree to this share of the largest value: the mission's own demand, far
 * looser than the bounds. */
static const float gpu_equals_cpu = 1e-3f;

static void expect_close(const float *a, const float *b, int64_t count, float tolerance,
                         const char *what)
{
    float largest = 0, difference = 0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmaxf(largest, fabsf(b[i]));
        assert_true(isfinite(a[i]) == isfinite(b[i]));
        if (isfinite(a[i])) difference = fmaxf(difference, fabsf(a[i] - b[i]));
    }
    if (!(difference <= tolerance * largest))
        fail_msg("%s: GPU and CPU differ by %g of the largest value %g", what, difference / largest,
                 largest);
}

/* Of 16 bits, both round their weights and their outputs. */
static float tolerance_of(const struct problem_instance *instance)
{
    int64_t dtype = instance->line.dtype;
    return dtype == RAPT_F32 ? gpu_equals_cpu : 4 * (float)unit_roundoff(dtype);
}

/* As elements(), but values of any dtype. */
static float *values(const rapt_tensor *t, int64_t *count)
{
    double row[1024];
    assert_in_range(t->size[3], 1, sizeof row / sizeof *row);
    *count = t->size[0] * t->size[1] * t->size[2] * t->size[3];
    float *x = malloc((size_t)(*count ? *count : 1) * sizeof *x), *at = x;
    assert_non_null(x);
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t i = 0; i < t->size[2]; i++) {
                oracle_load(t, b, h, i, row);
                for (int64_t c = 0; c < t->size[3]; c++) *at++ = (float)row[c];
            }
    return x;
}

/* A problem on a GPU and on the CPU: each within its bound, and every element of one like the
 * other's. */
static void like_the_cpu(rapt_device *gpu, struct problem_instance *instance)
{
    int64_t count;
    run_on(gpu, instance);
    float *got = values(&instance->args.forward.out, &count);
    run_on(cpu_device(), instance);
    float *want = values(&instance->args.forward.out, &count);
    expect_close(got, want, count, tolerance_of(instance), instance->line.text);
    free(got);
    free(want);
}

/* One problem on every device within its bound; GPUs against the CPU too, of 16 bits where scores
 * are moderate. */
static void everywhere(const char *text)
{
    struct problem_instance instance;
    build(text, &instance);
    for_each_device(device)
    {
        bool moderate = instance.line.dtype == RAPT_F32 || instance.line.data == DATA_normal;
        if (is_gpu(device) && moderate) like_the_cpu(device, &instance);
        else run_on(device, &instance);
    }
    problem_free(&instance);
}

static void in_each_dtype(const char *rest)
{
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    char text[256];
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "forward %s %s", dtypes[i], rest);
        everywhere(text);
    }
}

static void qwen2_shape(void **state)
{
    (void)state;
    in_each_dtype("b1 h32/32 q16 kv16 d128 lse");
    in_each_dtype("b1 h32/32 q16 kv16 d128 causal lse");
}

static void llama_shape(void **state)
{
    (void)state;
    in_each_dtype("b1 h40/40 q8 kv8 d128 lse");
    in_each_dtype("b1 h40/40 q8 kv8 d128 causal lse");
}

static void mqa_32_to_1(void **state)
{
    (void)state;
    in_each_dtype("b1 h32/1 q16 kv16 d128 causal lse");
    in_each_dtype("b1 h32/1 q64 kv64 d128");
}

static void gqa_32_to_8(void **state)
{
    (void)state;
    in_each_dtype("b1 h32/8 q16 kv16 d128 causal lse");
    in_each_dtype("b1 h32/8 q64 kv64 d128");
}

static void batch_of_4(void **state)
{
    (void)state;
    in_each_dtype("b4 h8/8 q16 kv16 d128 lse");
    in_each_dtype("b4 h8/8 q16 kv16 d128 causal lse");
}

/* A long problem: its token count is the point, so slow devices get one head. GPUs are compared
 * with the CPU too where it takes seconds: all elements, where the oracle has time for some. */
static void long_problem(int tokens, const char *heads, const char *rest, bool slow_devices)
{
    char text[256];
    for_each_device(device)
    {
        bool slow = !is_gpu(device) || is_emulated(device);
        if (slow && !slow_devices) {
            print_message("# %d tokens: left to hardware GPUs\n", tokens);
            continue;
        }
        struct problem_instance instance;
        snprintf(text, sizeof text, "forward %s b1 %s q%d kv%d d128 causal lse", rest,
                 is_emulated(device) ? "h1/1" : heads, tokens, tokens);
        build(text, &instance);
        if (is_gpu(device) && (tokens <= 32768 || instance.line.dtype == RAPT_F32))
            like_the_cpu(device, &instance);
        else run_on(device, &instance);
        problem_free(&instance);
    }
}

static void tokens_2048(void **state)
{
    (void)state;
    long_problem(2048, "h4/2", "f32", true);
    long_problem(2048, "h4/2", "bf16", true);
    long_problem(2048, "h4/2", "f16", true);
}

static void tokens_32768(void **state)
{
    (void)state;
    long_problem(32768, "h2/1", "f32", false);
    long_problem(32768, "h8/2", "bf16", false);
}

static void tokens_131072(void **state)
{
    (void)state;
    long_problem(131072, "h1/1", "f32", false);
    long_problem(131072, "h2/1", "bf16", false);
}

static void extreme_values(void **state)
{
    (void)state;
    in_each_dtype("b1 h4/2 q33 kv65 d128 causal lse sincos100");
    everywhere("forward f32 b1 h4/2 q33 kv65 d128 causal lse huge");
    everywhere("forward f32 b1 h4/2 q33 kv65 d128 lse minus1e30");
    in_each_dtype("b1 h4/2 q33 kv65 d128 lse denormal");
    everywhere("forward f32 b1 h4/2 q33 kv65 d128 lse tiny");
    everywhere("forward f32 b1 h4/2 q33 kv65 d128 lse growing");
    everywhere("forward bf16 b1 h4/2 q33 kv65 d128 causal lse growing");
    in_each_dtype("b1 h4/2 q33 kv65 d128 lse bias bias-inf");   /* whole rows of -inf */
    everywhere("forward f32 b1 h4/2 q65 kv33 d128 causal lse"); /* rows without a key */
}

/* Every kernel of a device that serves a problem is within its bound; in f32 each of a GPU's also
 * gives what the composed path gives. */
static void run_named(rapt_device *device, const char *line, const char *kernel,
                      const float *composed, int *ran)
{
    struct problem_instance instance;
    rapt_plan *plan;
    int64_t count;
    build(line, &instance);
    instance.args.forward.kernel = kernel;
    if (!rapt_plan_create(&plan, device, &instance.args.forward)) {
        rapt_plan_destroy(&plan);
        run_on(device, &instance);
        ++*ran;
        if (composed) {
            float *got = elements(&instance.args.forward.out, &count);
            expect_close(got, composed, count, gpu_equals_cpu, kernel);
            free(got);
        }
    }
    problem_free(&instance);
}

/* The output of a kernel, which must serve the problem; freed by the caller. */
static float *output_of(rapt_device *device, const char *line, const char *kernel, int64_t *count)
{
    struct problem_instance instance;
    build(line, &instance);
    instance.args.forward.kernel = kernel;
    run_on(device, &instance);
    float *out = elements(&instance.args.forward.out, count);
    problem_free(&instance);
    return out;
}

static void kernels_agree(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "forward f32 b2 h8/2 q48 kv80 d64", "forward f32 b2 h8/2 q48 kv80 d64 causal",
        "forward bf16 b2 h8/2 q48 kv80 d128 causal", "forward f16 b2 h8/2 q48 kv80 d128"};
    for_each_device(device)
    {
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
            int ran = 0;
            int64_t count;
            bool compare = is_gpu(device) && !strncmp(lines[i], "forward f32", 11);
            float *composed = compare ? output_of(device, lines[i], "composed", &count) : NULL;
            for (int64_t k = 0; k < rapt_kernel_count(context); k++) {
                rapt_kernel_info kernel = {.struct_size = sizeof kernel};
                assert_int_equal(rapt_kernel_at(context, k, &kernel), RAPT_OK);
                if (strcmp(kernel.op, "forward") ||
                    strcmp(kernel.backend, info_of(device).backend) || !kernel.present)
                    continue;
                run_named(device, lines[i], kernel.name, composed, &ran);
            }
            if (is_gpu(device)) assert_true(ran >= 2); /* composed and a flash kernel at least */
            free(composed);
        }
    }
}

static void expect_same(rapt_device *device, const char *line, const char *kernel,
                        const char *other_line, const char *other_kernel)
{
    int64_t count, other_count;
    float *a = output_of(device, line, kernel, &count),
          *b = output_of(device, other_line, other_kernel, &other_count);
    assert_int_equal(count, other_count);
    expect_close(a, b, count, 1e-5f, line);
    free(a);
    free(b);
}

/* A causal mask, a window that says the same, and where nothing is hidden no mask at all give equal
 * answers; on GPUs also from the causal, the non-causal and the generic kernel. */
static void masks_agree(void **state)
{
    (void)state;
    const char *causal = "forward f32 b1 h4/4 q70 kv70 d64 causal",
               *window = "forward f32 b1 h4/4 q70 kv70 d64 windowinf,0",
               *plain = "forward f32 b1 h4/4 q70 kv70 d64",
               *last = "forward f32 b1 h4/4 q1 kv70 d64 causal", /* one query sees all keys */
                   *plain_last = "forward f32 b1 h4/4 q1 kv70 d64";
    for_each_device(device)
    {
        expect_same(device, causal, NULL, window, NULL);
        expect_same(device, last, NULL, plain_last, NULL);
        if (!is_gpu(device)) continue;
        expect_same(device, causal, "flash_causal", causal, "flash");
        expect_same(device, causal, "flash_causal", window, "flash");
        expect_same(device, plain, "flash_nocausal", plain, "flash");
        expect_same(device, plain, "flash_nocausal", plain, "flash_causal");
        expect_same(device, last, "flash_causal", plain_last, "flash_nocausal");
        expect_same(device, last, "flash_causal", plain_last, "composed");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen2_shape),    cmocka_unit_test(llama_shape),
        cmocka_unit_test(mqa_32_to_1),    cmocka_unit_test(gqa_32_to_8),
        cmocka_unit_test(batch_of_4),     cmocka_unit_test(tokens_2048),
        cmocka_unit_test(tokens_32768),   cmocka_unit_test(tokens_131072),
        cmocka_unit_test(extreme_values), cmocka_unit_test(kernels_agree),
        cmocka_unit_test(masks_agree),
    };
    return run_end_to_end("mission", tests, false);
}
