/* test_scales.c: rows of the mma decode kernels for i8 keys and values with a scale for each 32
 * channels: what they refuse, and that another kernel runs where scales are not 16-byte aligned. */
#include "session.h"

#include <stdio.h>

enum { TOKENS = 256 };

static _Alignas(256) char memory[4 << 18], scales[2][2 * TOKENS * 32 + 32];

static struct fake *begin(rapt_context **context)
{
    struct fake *fake = session_begin(&vendors[0]);
#define OVERRIDE(name, stem) session_override(&vendors[0], #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    fake->max_shared = 227 << 10;
    snprintf(fake->arch, sizeof fake->arch, "sm_90");
    *context = session_open(&vendors[0]);
    return fake;
}

/* One sequence of two heads, with so many scales for a token and head of k and of v. */
static rapt_attention problem_of(int64_t channels, int64_t k_scales, int64_t v_scales)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bthd(memory, RAPT_BF16, 1, 2, TOKENS, channels);
    a.k = rapt_tensor_bthd(memory + (1 << 18), RAPT_I8, 1, 2, TOKENS, channels);
    a.v = rapt_tensor_bthd(memory + (2 << 18), RAPT_I8, 1, 2, TOKENS, channels);
    a.out = rapt_tensor_bthd(memory + (3 << 18), RAPT_BF16, 1, 2, TOKENS, channels);
    a.k_scale = rapt_tensor_bthd(scales[0], RAPT_F32, 1, 2, TOKENS, k_scales);
    a.v_scale = rapt_tensor_bthd(scales[1], RAPT_F32, 1, 2, TOKENS, v_scales);
    return a;
}

/* The kernel that serves it, or, asked for by name, the sentence with which that refuses. */
static void assert_served(rapt_device *device, rapt_attention a, const char *kernel, int served)
{
    static const char words[] =
        "does not do keys and values but those of i8 with a scale for each 32 channels, contiguous "
        "and in whole steps of all of a row's";
    char whole[300];
    rapt_plan *plan = session_plan(device, &a, NULL);
    assert_int_equal(!strcmp(rapt_plan_kernel(plan), kernel), served);
    rapt_plan_destroy(&plan);
    if (served) return;
    a.kernel = kernel;
    assert_int_equal(rapt_plan_create(&plan, device, &a), RAPT_UNSUPPORTED);
    snprintf(whole, sizeof whole, "rapt_plan_create: no kernel of cuda:0 serves this (%s: %s)",
             kernel, words);
    assert_string_equal(rapt_last_error(), whole);
}

static void problems(void **state)
{
    static const char d128[] = "decode_bf16_i8_d128_block32", d64[] = "decode_bf16_i8_d64_block32";
    rapt_context *context;
    (void)state;
    begin(&context);
    rapt_device *device = rapt_device_at(context, 0);
    for (int64_t k = 1; k <= 8; k *= 2)
        for (int64_t v = 1; v <= 8; v *= 2) {
            assert_served(device, problem_of(128, k, v), d128, k == 4 && v == 4);
            assert_served(device, problem_of(64, k, v), d64, k == 2 && v == 2);
        }
    for (int n = 0; n < 12; n++) { /* a step on each axis of either tensor: by 1 or by all scales */
        rapt_attention a = problem_of(128, 4, 4);
        rapt_tensor *t = n & 1 ? &a.k_scale : &a.v_scale;
        int whole = (n & 2) != 0, axis = 1 + n / 4;
        t->stride[axis] += axis == 3 ? !whole : whole ? 4 : 1;
        assert_served(device, a, d128, whole);
    }
    rapt_attention a = problem_of(64, 2, 2);
    a.k_scale.stride[2] += 2;
    assert_served(device, a, d64, 1);
    a.k.dtype = a.v.dtype = RAPT_BF16;
    a.k_scale = a.v_scale = (rapt_tensor){0};
    assert_served(device, a, d64, 0);
    rapt_close(&context);
    session_end(&vendors[0]);
}

static void addresses(void **state)
{
    static const char name[] = "decode_bf16_i8_d128_block32";
    rapt_context *context;
    (void)state;
    struct fake *fake = begin(&context);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(128, 4, 4);
    rapt_plan *plan = session_plan(device, &a, NULL), *named = session_plan(device, &a, name);
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    assert_string_equal(rapt_plan_kernel(plan), name);
    for (int i = 0; i < 2; i++)
        for (int bytes = 0; bytes <= 32; bytes += 4) {
            rapt_tensor *scale = i ? &a.v_scale : &a.k_scale;
            scale->data = scales[i] + bytes;
            fake->launch_count = 0;
            assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
            assert_int_equal(!strcmp(fake->launch[0].name, name), bytes % 16 == 0);
            rapt_status status = rapt_plan_execute(named, &a, workspace, NULL);
            assert_int_equal(status, bytes % 16 ? RAPT_UNSUPPORTED : RAPT_OK);
            if (status)
                assert_true(says(rapt_last_error(),
                                 "rapt_plan_execute: k_scale or v_scale is not 16-byte aligned (* "
                                 "needs that, and no other kernel was allowed or serves)"));
            scale->data = scales[i];
        }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_plan_destroy(&named);
    rapt_close(&context);
    session_end(&vendors[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(problems), cmocka_unit_test(addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
