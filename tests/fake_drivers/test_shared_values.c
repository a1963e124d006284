/* test_shared_values.c: rows whose values are the first channels of the keys (NEED_SHARED_KV): what
 * they refuse where a plan is made, and what happens where one is executed on values that lie elsewhere. */
#include "session.h"

#include "gpu/registry.h"

#include <stdio.h>

static _Alignas(256) char memory[1 << 20];

/* Two sequences of 16 heads over one KV head, as absorbed MLA has them. */
static rapt_attention problem_of(rapt_dtype dtype)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bthd(memory, dtype, 2, 16, 1, 576);
    a.k = a.v = rapt_tensor_bthd(memory + (1 << 18), dtype, 2, 1, 96, 576);
    a.out = rapt_tensor_bthd(memory + (3 << 18), dtype, 2, 16, 1, 512);
    a.v.size[3] = 512;
    return a;
}

static const char *refusal(const char *name, const rapt_attention *a)
{
    static char reason[512];
    struct problem p;
    const struct row *row = kernel_rows;
    while (strcmp(row->name, name)) row++;
    assert_int_equal(params_check(a, "test", &p), RAPT_OK);
    const char *words = row_refuses(row, &p, reason, sizeof reason);
    return words ? words : "";
}

#define CASE(expected, ...)                                                                        \
    do {                                                                                           \
        rapt_attention a = problem_of(RAPT_F16);                                                   \
        __VA_ARGS__;                                                                               \
        assert_string_equal(refusal("mla_f16", &a), expected);                                     \
    } while (0)
#define PAGES(tokens)                                                                              \
    a.page_table = rapt_tensor_bthd(memory, RAPT_I32, 2, 1, 3, 1),                                 \
    a.k.size[2] = a.v.size[2] = tokens

/* The same strides along all axes that have any; and what else these rows do not do. */
static void refusals(void **state)
{
    static const char apart[] =
        "does not do values but the first channels of the keys, in the same memory",
                      queries[] = "does not do so many queries or query rows per KV head, or with "
                                  "batch_invariant any packed batch",
                      odd_pages[] = "does not do pages whose tokens are no multiple of 16";
    (void)state;
    CASE("", );
    CASE(apart, a.v.stride[2] = 512);
    CASE(apart, a.v.stride[2] = 1152);
    CASE(apart, a.v.stride[0] += 576);
    CASE("", a.v.stride[1] += 8); /* of one head, none */
    CASE("", a.q.size[2] = a.out.size[2] = 4096, a.causal = 1);
    CASE("", a.q.size[2] = a.out.size[2] = 1 << 16);
    CASE(queries, a.q.size[2] = a.out.size[2] = (1 << 16) + 1); /* rows past 2^20 */
    CASE("", PAGES(48));
    CASE(odd_pages, PAGES(24));
    CASE("does not do softcap", a.softcap = 1);
    CASE("does not do a negative scale", a.scale = -1);
    CASE("does not do fewer channels than its tile", a.q.size[3] = a.k.size[3] = 512);
}

/* Whether values lie within the keys is known where a plan is executed: another kernel takes those that
 * do not, unless one was asked for by name. */
static void values_elsewhere(void **state)
{
    (void)state;
    for (int named = 0; named < 2; named++) {
        struct fake *fake = session_begin(&vendors[0]);
#define OVERRIDE(name, stem) session_override(&vendors[0], #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
        fake->max_shared = 232448;
        snprintf(fake->arch, sizeof fake->arch, "sm_90");
        rapt_context *context = session_open(&vendors[0]);
        rapt_device *device = rapt_device_at(context, 0);
        rapt_attention a = problem_of(RAPT_BF16);
        a.kernel = named ? "mla_bf16" : NULL;
        rapt_plan *plan = session_plan(device, &a, a.kernel);
        void *workspace = NULL;
        assert_string_equal(rapt_plan_kernel(plan), "mla_bf16");
        assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
        assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
        assert_string_equal(fake->launch[0].name, "mla_bf16");
        a.v.data = memory + (2 << 18);
        fake->launch_count = 0;
        rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
        assert_int_equal(status, named ? RAPT_UNSUPPORTED : RAPT_OK);
        if (named)
            assert_true(says(rapt_last_error(),
                             "rapt_plan_execute: v does not begin where k does (* takes its values "
                             "from the keys, and no other kernel was allowed or serves)"));
        else assert_string_equal(fake->launch[0].name, "flash_nocausal");
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
        rapt_close(&context);
        session_end(&vendors[0]);
    }
}

/* Parts on a device of 132 multiprocessors, and the blocks of the second launch: one for a row of many parts, or for
 * rows of three heads where parts are few and nothing may hang on their number; and how many have room on a
 * multiprocessor of 227 KB, each with 7 of its own, where fewer than three are to. */
static void second_launches(void **state)
{
    static const struct {
        int batch, heads, queries, keys, invariant, parts;
        unsigned blocks; /* 0: no second launch */
        unsigned room;   /* 0: as many as their registers let */
    } cases[] = {
        {64, 128, 1, 4096, 0, 1, 0, 0},        {16, 128, 1, 2048, 0, 4, 43 * 16, 0},
        {16, 16, 1, 2048, 0, 8, 6 * 16, 1},    {16, 16, 2, 2048, 0, 8, 6 * 2 * 16, 2},
        {15, 16, 1, 8192, 0, 8, 6 * 15, 1},    {14, 16, 1, 8192, 0, 9, 16 * 14, 2},
        {1, 16, 1, 8192, 0, 32, 16, 0},        {1, 128, 2, 8192, 0, 32, 256, 2},
        {1, 128, 1, 2048, 0, 16, 128, 0},      {1, 128, 1, 8192, 0, 32, 128, 2},
        {1, 128, 1, 32768, 0, 64, 128, 1},     {3, 128, 1, 8192, 0, 22, 384, 0},
        {16, 128, 1, 2048, 1, 2, 128 * 16, 0}, {2, 16, 1, 1024, 1, 1, 0, 0},
    };
    char *base = (char *)((uintptr_t)1 << 44); /* nobody reads */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fake *fake = session_begin(&vendors[0]);
        fake->max_shared = 232448;
        snprintf(fake->arch, sizeof fake->arch, "sm_90");
        rapt_context *context = session_open(&vendors[0]);
        rapt_device *device = rapt_device_at(context, 0);
        int batch = cases[i].batch, heads = cases[i].heads, queries = cases[i].queries;
        rapt_attention a = {.struct_size = sizeof a,
                            .causal = 1,
                            .kernel = "mla_bf16",
                            .batch_invariant = cases[i].invariant};
        a.q = rapt_tensor_bthd(base, RAPT_BF16, batch, heads, queries, 576);
        a.k = a.v =
            rapt_tensor_bthd(base + ((uintptr_t)1 << 40), RAPT_BF16, batch, 1, cases[i].keys, 576);
        a.out =
            rapt_tensor_bthd(base + ((uintptr_t)2 << 40), RAPT_BF16, batch, heads, queries, 512);
        a.v.size[3] = 512;
        rapt_plan *plan = session_plan(device, &a, a.kernel);
        void *workspace = NULL;
        if (rapt_plan_workspace_size(plan))
            assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace),
                             RAPT_OK);
        assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
        const struct fake_launch *l = fake->launch;
        assert_int_equal(l[0].args.attention.splits, cases[i].parts);
        assert_int_equal(fake->launch_count, 1 + (cases[i].blocks > 0));
        if (cases[i].blocks) {
            assert_string_equal(l[1].name, "mla_bf16_combine");
            assert_int_equal(l[1].grid[0], cases[i].blocks);
            assert_true(l[1].grid[1] == 1 && l[1].grid[2] == 1 && l[1].early);
            assert_int_equal(l[1].shared ? 227 / (l[1].shared / 1024 + 7) : 0, cases[i].room);
        }
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
        rapt_close(&context);
        session_end(&vendors[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(refusals),
                                       cmocka_unit_test(values_elsewhere),
                                       cmocka_unit_test(second_launches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
