/* test_companions.c: a plan of a kernel that reads 16 bytes at a time carries another kernel for the
 * executes whose addresses are not so aligned: which one, with what workspace, and when it runs. */
#include "session.h"

#include <stdio.h>

static _Alignas(256) char memory[6 << 18];
enum { HEAD = 128 };

static struct fake *begin(const struct stand_in *v, rapt_context **context, int shared)
{
    struct fake *fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    if (shared) fake->max_shared = shared;
    *context = session_open(v);
    return fake;
}

/* One sequence of two heads. */
static rapt_attention problem_of(rapt_dtype dtype, int64_t tokens)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bthd(memory, dtype, 1, 2, tokens, HEAD);
    a.k = rapt_tensor_bthd(memory + (1 << 18), dtype, 1, 2, tokens, HEAD);
    a.v = rapt_tensor_bthd(memory + (2 << 18), dtype, 1, 2, tokens, HEAD);
    a.out = rapt_tensor_bthd(memory + (3 << 18), dtype, 1, 2, tokens, HEAD);
    return a;
}

static rapt_plan *plan_of(rapt_device *device, const rapt_attention *a, const char *kernel)
{
    rapt_plan *plan = NULL;
    rapt_attention named = *a;
    named.kernel = kernel;
    if (rapt_plan_create(&plan, device, &named)) fail_msg("%s", rapt_last_error());
    return plan;
}

static size_t workspace_of(rapt_device *device, const rapt_attention *a, const char *kernel)
{
    rapt_plan *plan = plan_of(device, a, kernel);
    size_t size = rapt_plan_workspace_size(plan);
    rapt_plan_destroy(&plan);
    return size;
}

/* The kernel that the library takes where rows themselves are not aligned. */
static void name_of_companion(rapt_device *device, rapt_attention a, char name[64])
{
    a.k.stride[2]++;
    rapt_plan *plan = plan_of(device, &a, NULL);
    snprintf(name, 64, "%s", rapt_plan_kernel(plan));
    rapt_plan_destroy(&plan);
}

/* Executes with one tensor `bytes` on; whether the companion ran. */
static int runs_companion(struct fake *fake, const rapt_plan *plan, rapt_attention a, int tensor,
                          int bytes, void *workspace)
{
    rapt_tensor *t[] = {&a.q, &a.k, &a.v, &a.out};
    t[tensor]->data = (char *)t[tensor]->data + bytes;
    fake->launch_count = 0;
    if (rapt_plan_execute(plan, &a, workspace, NULL)) fail_msg("%s", rapt_last_error());
    const struct attention_args *args = &fake->launch[0].args.attention;
    const struct view *views[] = {&args->q, &args->k, &args->v, &args->out};
    assert_true(fake->launch_count > 0);
    assert_ptr_equal(views[tensor]->data, t[tensor]->data);
    for (int i = 0; i < fake->launch_count; i++)
        if (!strcmp(fake->launch[i].name, rapt_plan_kernel(plan))) return 0;
    return 1;
}

/* Each of the four tensors decides, at every step below 16 bytes. */
static void each_address(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    char companion[64];
    rapt_plan *plan = plan_of(device, &a, NULL);
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    name_of_companion(device, a, companion);
    assert_string_not_equal(rapt_plan_kernel(plan), companion);
    for (int tensor = 0; tensor < 4; tensor++)
        for (int bytes = 0; bytes <= 32; bytes += 2) {
            int ran = runs_companion(fake, plan, a, tensor, bytes, workspace);
            assert_int_equal(ran, bytes % 16 != 0);
            if (ran) assert_string_equal(fake->launch[0].name, companion);
        }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* A kernel asked for by name runs or refuses; no other takes its place. */
static void no_companion_of_a_name(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    rapt_plan *any = plan_of(device, &a, NULL), *plan = plan_of(device, &a, rapt_plan_kernel(any));
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    a.kernel = rapt_plan_kernel(plan);
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    a.v.data = memory + (2 << 18) + 2;
    fake->launch_count = 0;
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_UNSUPPORTED);
    assert_true(says(rapt_last_error(),
                     "rapt_plan_execute: q, k, v or out is not 16-byte aligned (* needs that, and "
                     "no other kernel was allowed or serves)"));
    assert_non_null(strstr(rapt_last_error(), rapt_plan_kernel(plan)));
    assert_int_equal(fake->launch_count, 0);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_plan_destroy(&any);
    rapt_close(&context);
    session_end(v);
}

/* The backend's name is no kernel's: it means the best one, companion and all. */
static void companion_of_the_backend(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    a.kernel = v->name;
    rapt_plan *plan = plan_of(rapt_device_at(context, 0), &a, v->name);
    void *workspace = NULL;
    assert_int_equal(
        rapt_alloc(rapt_device_at(context, 0), rapt_plan_workspace_size(plan), &workspace),
        RAPT_OK);
    assert_int_equal(runs_companion(fake, plan, a, 2, 2, workspace), 1);
    rapt_free(rapt_device_at(context, 0), workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* rapt_explain: a line for each kernel that refuses, the last one for the kernel that runs. */
static void explained(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    char text[16384], name[64], expected[96];
    name_of_companion(device, a, name);
    a.k.stride[2]++;
    size_t length = rapt_explain(device, &a, text, sizeof text);
    assert_true(length == strlen(text) && text[length - 1] == '\n');
    snprintf(expected, sizeof expected, "\n%s: runs\n", name);
    assert_string_equal(text + length - strlen(expected), expected);
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        assert_non_null(strstr(line, ": "));
    assert_true(lines > 2);
    rapt_close(&context);
    session_end(v);
}

/* A kernel that takes any address loads nothing for a second one. */
static void none_where_none_is_needed(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    a.k.stride[2]++;
    rapt_plan *plan = plan_of(device, &a, NULL);
    assert_int_equal(fake->modules, 1);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* The workspace is the larger of the two kernels'. shared: of the device, where only some rows fit. */
static int larger_of_companion(const struct stand_in *v, int shared, rapt_dtype dtype,
                               int64_t tokens)
{
    rapt_context *context;
    struct fake *fake = begin(v, &context, shared);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(dtype, tokens);
    char companion[64];
    rapt_plan *plan = plan_of(device, &a, NULL);
    void *workspace = NULL;
    name_of_companion(device, a, companion);
    size_t size = rapt_plan_workspace_size(plan),
           own = workspace_of(device, &a, rapt_plan_kernel(plan)),
           other = workspace_of(device, &a, companion);
    assert_int_equal(size, own > other ? own : other);
    assert_int_equal(rapt_alloc(device, size, &workspace), RAPT_OK);
    if (strcmp(companion, rapt_plan_kernel(plan)) != 0) {
        assert_int_equal(runs_companion(fake, plan, a, 1, 0, workspace), 0);
        assert_int_equal(runs_companion(fake, plan, a, 1, 8, workspace), 1);
    }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
    return other > own;
}

static void workspaces(void **state)
{
    const struct stand_in *v = *state;
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    static const int64_t tokens[] = {2, 8, 32, 200};
    int larger = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
            larger_of_companion(v, 0, dtypes[i], tokens[j]);
            /* keys in registers need no shared memory, the composed path less than flash */
            if (!strcmp(v->name, "cuda") && tokens[j] <= 32)
                larger += larger_of_companion(v, 40000, dtypes[i], tokens[j]);
        }
    assert_true(strcmp(v->name, "cuda") || larger > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(each_address), BOTH(no_companion_of_a_name),    BOTH(companion_of_the_backend),
        BOTH(explained),    BOTH(none_where_none_is_needed), BOTH(workspaces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
