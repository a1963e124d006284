/* test_short_keys.c: for which f32 problems an sm_90 takes the row whose tiles split their keys
 * themselves, and with which launches. */
#include "session.h"

#include "gpu/registry.h"

#include <stdio.h>

static _Alignas(256) char memory[4 << 20]; /* nothing reads it */

/* Causal; two sequences of heads of 128 channels. */
static rapt_attention problem_of(int64_t q_tokens, int64_t kv_tokens, int64_t heads, int64_t group)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rapt_tensor_bthd(memory, RAPT_F32, 2, heads, q_tokens, 128);
    a.k = rapt_tensor_bthd(memory + (1 << 20), RAPT_F32, 2, heads / group, kv_tokens, 128);
    a.v = rapt_tensor_bthd(memory + (2 << 20), RAPT_F32, 2, heads / group, kv_tokens, 128);
    a.out = rapt_tensor_bthd(memory + (3 << 20), RAPT_F32, 2, heads, q_tokens, 128);
    return a;
}

static const char *kernel_of(rapt_device *device, rapt_attention a)
{
    static char name[64];
    rapt_plan *plan = session_plan(device, &a, NULL);
    snprintf(name, sizeof name, "%s", rapt_plan_kernel(plan));
    rapt_plan_destroy(&plan);
    return name;
}

static rapt_device *begin(const struct stand_in *v, rapt_context **context, struct fake **fake)
{
    *fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    (*fake)->max_shared = 227 << 10;
    snprintf((*fake)->arch, sizeof(*fake)->arch, "sm_90");
    *context = session_open(v);
    return rapt_device_at(*context, 0);
}

/* Keys times heads of a KV head, on either side of the limit; queries do not count. */
static void few_keys(void **state)
{
    (void)state;
    static const struct {
        int64_t q_tokens, kv_tokens, heads, group;
        int taken;
    } cases[] = {{256, 512, 2, 1, 1},  {256, 513, 2, 1, 0}, {4096, 512, 2, 1, 1},
                 {256, 256, 4, 2, 1},  {256, 257, 4, 2, 0}, {256, 64, 8, 8, 1},
                 {256, 65, 8, 8, 0},   {256, 33, 2, 1, 1},  {300, 4096, 2, 1, 0},
                 {512, 512, 32, 1, 1}, {255, 300, 2, 1, 0}};
    rapt_context *context;
    struct fake *fake;
    rapt_device *device = begin(&vendors[0], &context, &fake);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rapt_attention a =
            problem_of(cases[i].q_tokens, cases[i].kv_tokens, cases[i].heads, cases[i].group);
        int taken = !strcmp(kernel_of(device, a), "sm90_f32_d128_causal_short");
        if (taken != cases[i].taken) print_error("case %d\n", (int)i);
        assert_int_equal(taken, cases[i].taken);
    }
    char text[16384];
    rapt_attention long_keys = problem_of(256, 513, 2, 1);
    rapt_explain(device, &long_keys, text, sizeof text);
    assert_non_null(strstr(text, "does not do more than 512 keys times heads of a KV head unless "
                                 "named, each tile splitting them anew"));
    rapt_attention whole = problem_of(512, 512, 2, 1), named = problem_of(256, 2048, 4, 2);
    whole.causal = 0;
    assert_string_equal(kernel_of(device, whole), "sm90_f32_d128");
    named.kernel = "sm90_f32_d128_causal_short";
    assert_string_equal(kernel_of(device, named), named.kernel);
    rapt_close(&context);
    session_end(&vendors[0]);
}

/* Behind it come the strict launches of the row that serves else. */
static void companion(void **state)
{
    (void)state;
    static const char *const names[] = {
        "sm90_f32_d128_causal_short_prepare", "sm90_f32_d128_causal_short",
        "sm90_f32_d128_causal_strict_prepare", "sm90_f32_d128_causal_strict"};
    rapt_context *context;
    struct fake *fake;
    rapt_device *device = begin(&vendors[0], &context, &fake);
    rapt_attention a = problem_of(300, 300, 2, 1);
    rapt_plan *plan = session_plan(device, &a, NULL);
    void *workspace = NULL;
    if (rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace))
        fail_msg("%s", rapt_last_error());
    fake->launch_count = 0;
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    assert_int_equal(fake->launch_count, 4);
    for (int i = 0; i < 4; i++) assert_string_equal(fake->launch[i].name, names[i]);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(&vendors[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_keys), cmocka_unit_test(companion)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
