/* memory.c: attention needs memory for its tensors and no more: the scores of long sequences are
 * never stored. Each case runs in a process of its own and reports its peak. The full 131,072 x
 * 131,072 runs with RAPT_TEST_SIZE=3. */
#include "devices.h"
#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "group.h"

/* One forward call on dense tensors, without the guards of problem.c: peak resident kilobytes to
 * the pipe. */
static void run(const char *text, int to)
{
    static struct problem_line line;
    char error[256];
    struct rusage usage;
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (!problem_parse(text, &line, error, sizeof error) || rapt_open(&context, &config)) _exit(1);
    size_t element = line.dtype == RAPT_F32 ? 4 : 2;
    rapt_attention a = {.struct_size = sizeof a, .causal = line.causal};
    rapt_tensor *tensors[4] = {&a.q, &a.k, &a.v, &a.out};
    for (int i = 0; i < 4; i++) {
        size_t count = (size_t)(line.q_heads * line.q_tokens * line.qk_channels);
        char *data = malloc(count * element);
        if (!data) _exit(1);
        for (size_t n = 0; n < count * element; n++)
            data[n] = (char)(n % 2 ? 0x3c + n % 3 : n % 251); /* all finite */
        *tensors[i] = rapt_tensor_bhtd(data, (rapt_dtype)line.dtype, 1, line.q_heads, line.q_tokens,
                                       line.qk_channels);
    }
    if (rapt_forward(rapt_device_at(context, 0), &a, NULL)) _exit(1);
    rapt_close(&context);
    getrusage(RUSAGE_SELF, &usage);
    _exit(write(to, &usage.ru_maxrss, sizeof usage.ru_maxrss) == sizeof usage.ru_maxrss ? 0 : 1);
}

/* Peak megabytes. */
static double peak(const char *text)
{
    int ends[2], status;
    long kilobytes = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) run(text, ends[1]);
    close(ends[1]);
    ssize_t got = read(ends[0], &kilobytes, sizeof kilobytes);
    close(ends[0]);
    waitpid(child, &status, 0);
    assert_true(got == sizeof kilobytes && WIFEXITED(status) && !WEXITSTATUS(status));
    return (double)kilobytes / 1024;
}

/* Scores of 8192 x 8192 would take 256 MiB in f32; the tensors take 2 MiB and the engine's own
 * memory does not grow. */
static void peak_does_not_grow_with_the_square(void **state)
{
    (void)state;
    double small = peak("forward f32 b1 h1 q256 kv256 d16 causal"),
           large = peak("forward f32 b1 h1 q8192 kv8192 d16 causal");
    if (getenv("RAPT_TEST_VERBOSE"))
        fprintf(stderr, "# peak %.1f MiB of 256 tokens, %.1f MiB of 8192\n", small, large);
    assert_true(large - small < 24);
}

static void tokens_131072_under_one_gigabyte(void **state)
{
    (void)state;
    double megabytes = peak("forward bf16 b1 h1 q131072 kv131072 d64");
    fprintf(stderr, "# peak %.1f MiB of 131072 tokens\n", megabytes);
    assert_true(megabytes < 1024);
}

/* Bytes of a plan's workspace for so many tokens, and the second-level cache that its kernel counts on: CPUs with
 * AMX have 2 MiB. */
static size_t workspace_of(rapt_context *context, const char *format, int tokens, size_t *cache)
{
    static struct problem_line line;
    char text[128], error[256];
    rapt_plan *plan;
    snprintf(text, sizeof text, format, tokens, tokens); /* a decode line uses one number */
    assert_true(problem_parse(text, &line, error, sizeof error));
    rapt_attention a = {.struct_size = sizeof a, .causal = line.causal};
    rapt_dtype type = (rapt_dtype)line.dtype;
    a.q = rapt_tensor_bthd(NULL, type, 1, line.q_heads, line.q_tokens, line.qk_channels);
    a.k = a.v = rapt_tensor_bthd(NULL, type, 1, line.kv_heads, line.kv_tokens, line.qk_channels);
    a.out = a.q;
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_OK);
    size_t bytes = rapt_plan_workspace_size(plan);
    *cache = strncmp(rapt_plan_kernel(plan), "cpu_amx", 7) ? 1 << 20 : 2 << 20;
    rapt_plan_destroy(&plan);
    return bytes;
}

/* The tiles of a prefill are cut for a second-level cache: each thread takes at most one and a half of it,
 * for any length, and from 16384 tokens on to the byte as much. */
static void workspace_fits_the_cache(void **state)
{
    size_t cache;
    static const char *const types[] = {"f32", "f16", "bf16"}, *const heads[] = {"h8", "h32/8",
                                                                                 "h16/1"};
    static const int channels[] = {32, 64, 80, 96, 128, 192, 256, 512, 576};
    (void)state;
    for (int threads = 1; threads <= 4; threads += 3) {
        rapt_context *context;
        rapt_config config = {.struct_size = sizeof config, .threads = threads, .backends = "cpu"};
        assert_int_equal(rapt_open(&context, &config), RAPT_OK);
        for (int i = 0; i < 3 * 3 * 9 * 2; i++) {
            char line[128];
            snprintf(line, sizeof line, "forward %s b1 %s q%%d kv%%d d%d%s", types[i % 3],
                     heads[i / 3 % 3], channels[i / 9 % 9], i / 81 ? " causal" : "");
            size_t usual = workspace_of(context, line, 16384, &cache);
            for (int tokens = 64; tokens <= 1 << 20; tokens *= 4) {
                size_t bytes = workspace_of(context, line, tokens, &cache);
                if (bytes > (size_t)threads * cache * 3 / 2 || (tokens >= 16384 && bytes != usual))
                    fail_msg("%s: %zu bytes for %d tokens, %zu for 16384, %d threads", line, bytes,
                             tokens, usual, threads);
            }
        }
        rapt_close(&context);
    }
}

/* That of a decode step, which keeps partial results, is bounded too. */
static void workspace_of_decode_is_bounded(void **state)
{
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .threads = 4, .backends = "cpu"};
    (void)state;
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    size_t cache, some = workspace_of(context, "forward bf16 b1 h8/2 q1 kv%d d128", 4096, &cache),
                  many = workspace_of(context, "forward bf16 b1 h8/2 q1 kv%d d128", 131072, &cache);
    if (many > some + (1 << 20)) fail_msg("%zu bytes for 4096 keys, %zu for 131072", some, many);
    rapt_close(&context);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(peak_does_not_grow_with_the_square),
                                       cmocka_unit_test(workspace_fits_the_cache),
                                       cmocka_unit_test(workspace_of_decode_is_bounded),
                                       cmocka_unit_test(tokens_131072_under_one_gigabyte)};
    size_t count = sizeof tests / sizeof *tests;
    if (test_environment("RAPT_TEST_SIZE", 2) < 3) count--; /* the last one takes minutes */
    return run_group("memory", tests, count, NULL, NULL, argc, argv);
}
