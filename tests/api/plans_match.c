/* plans_match.c: what an execute may say otherwise than its plan: the addresses, and nothing else; and
 * which addresses those may be. */
#include "api.h"

static rapt_context *context;
static rapt_device *device;
static struct call call;
static _Alignas(64) char workspace[1 << 20];

/* Every tensor of rapt_attention, in its order. */
static const char *const names[] = {"q",        "k",         "v",           "out",     "lse",
                                    "bias",     "mask",      "alibi_slope", "sink",    "q_start",
                                    "kv_start", "kv_length", "page_table",  "q_scale", "k_scale",
                                    "v_scale",  "weights"};
enum { TENSORS = sizeof names / sizeof *names };

static rapt_tensor *tensor_of(rapt_attention *a, int i)
{
    return &(&a->q)[i];
}

static rapt_plan *plan_of(const rapt_attention *a)
{
    rapt_plan *plan = NULL;
    if (rapt_plan_create(&plan, device, a)) fail_msg("%s", rapt_last_error());
    assert_true(rapt_plan_workspace_size(plan) <= sizeof workspace);
    return plan;
}

static void expect_differs(const rapt_plan *plan, const rapt_attention *a, const char *name,
                           const char *how)
{
    char sentence[192];
    snprintf(sentence, sizeof sentence,
             "rapt_plan_execute: %s differs from the plan: %s (only data pointers may change)",
             name, how);
    expect(rapt_plan_execute(plan, a, workspace, NULL), RAPT_INVALID, sentence);
}

/* Whether its last axis is one of keys. */
static int scores(int i)
{
    return !strcmp(names[i], "bias") || !strcmp(names[i], "mask") || !strcmp(names[i], "weights");
}

/* One number of one tensor at a time, of those that are there and of those that are not. */
static void each_number(void **state)
{
    static const char *const axes[] = {"batch", "head", "token", "channel"};
    char how[96];
    (void)state;
    call_reset(&call);
    call.a.lse = rapt_tensor_bhtd(call.lse, RAPT_F32, B, HQ, SQ, 1);
    call.a.bias = rapt_tensor_bhtd(call.bias, RAPT_F32, B, HQ, SQ, SKV);
    call.a.sink = rapt_tensor_bhtd(call.sink, RAPT_F32, B, HQ, 1, 1);
    rapt_plan *plan = plan_of(&call.a);
    assert_int_equal(rapt_plan_execute(plan, &call.a, workspace, NULL), RAPT_OK);
    for (int i = 0; i < TENSORS; i++) {
        const rapt_tensor *planned = tensor_of(&call.a, i);
        rapt_attention a = call.a;
        tensor_of(&a, i)->dtype = a.q.dtype == RAPT_F32 && i ? RAPT_BF16 : RAPT_F16;
        snprintf(how, sizeof how, "dtype %s, planned %s", i ? "bf16" : "f16",
                 planned->dtype ? "f32" : "none");
        expect_differs(plan, &a, names[i], how);
        for (int axis = 0; axis < 4; axis++) {
            const char *name = axis == 3 && scores(i) ? "key" : axes[axis];
            long long size = planned->size[axis], stride = planned->stride[axis];
            a = call.a;
            tensor_of(&a, i)->size[axis]++;
            snprintf(how, sizeof how, "size %lld on its %s axis, planned %lld", size + 1, name,
                     size);
            expect_differs(plan, &a, names[i], how);
            a = call.a;
            tensor_of(&a, i)->stride[axis]++;
            snprintf(how, sizeof how, "stride %lld on its %s axis, planned %lld", stride + 1, name,
                     stride);
            expect_differs(plan, &a, names[i], how);
        }
    }
    rapt_plan_destroy(&plan);
}

/* A token more changes strides as well: the sentence says the size. */
static void sizes_before_strides(void **state)
{
    (void)state;
    call_reset(&call);
    rapt_plan *plan = plan_of(&call.a);
    call.a.k = rapt_tensor_bthd(call.k, RAPT_F32, B, HKV, SKV + 1, D);
    expect(rapt_plan_execute(plan, &call.a, workspace, NULL), RAPT_INVALID,
           "k differs from the plan: size 8 on its token axis, planned 7 (only data pointers may "
           "change)");
    memset(&call.a.q, 0, sizeof call.a.q);
    expect(rapt_plan_execute(plan, &call.a, workspace, NULL), RAPT_INVALID,
           "q differs from the plan: dtype none, planned f32 (only data pointers may change)");
    rapt_plan_destroy(&plan);
}

static void each_option(void **state)
{
    (void)state;
    call_reset(&call);
    rapt_plan *plan = plan_of(&call.a);
    static const char *const options[] = {"scale",           "softcap",     "causal",
                                          "align",           "window_left", "window_right",
                                          "batch_invariant", "kv_layout"};
    for (int i = 0; i < 8; i++) {
        rapt_attention a = call.a;
        int64_t *integers[] = {&a.causal,       &a.align,           &a.window_left,
                               &a.window_right, &a.batch_invariant, &a.kv_layout};
        if (i < 2) *(i ? &a.softcap : &a.scale) = 0.5;
        else *integers[i - 2] ^= 1;
        expect_differs(plan, &a, options[i],
                       i < 2    ? "0.5, planned 0"
                       : i == 2 ? "0, planned 1"
                                : "1, planned 0");
    }
    rapt_plan_destroy(&plan);
}

static void addresses(void **state)
{
    (void)state;
    call_reset(&call);
    rapt_plan *plan = plan_of(&call.a);
    rapt_attention a = call.a;
    a.k.data = (char *)call.k + 2; /* two bytes are no step of an f32 */
    expect(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_INVALID,
           "k is not aligned to its elements (4 bytes)");
    rapt_plan_destroy(&plan);
    call.a.q.size[2] = call.a.out.size[2] = 0; /* nothing to read or write, no memory */
    call.a.q.data = call.a.out.data = NULL;
    plan = plan_of(&call.a);
    assert_int_equal(rapt_plan_execute(plan, &call.a, workspace, NULL), RAPT_OK);
    rapt_plan_destroy(&plan);
}

/* Tensors whose tokens lie backwards reach below their address: out is SQ rows of HQ * DV, the last of
 * them at `last`. */
static void backwards(void **state)
{
    enum { ROW = HQ * DV };
    static float memory[4 * HQ * SQ * D];
    float *last = memory + 2 * HQ * SQ * D, *lowest = last - (SQ - 1) * ROW;
    const struct {
        float *q;
        int apart;
    } cases[] = {{lowest - HQ * SQ * D, 1}, {lowest - HQ * SQ * D + 1, 0}, {lowest, 0},
                 {lowest + 2 * ROW, 0},     {last + ROW - 1, 0},           {last + ROW, 1}};
    (void)state;
    call_reset(&call);
    call.a.out = rapt_tensor_bthd(last, RAPT_F32, 1, HQ, SQ, DV);
    call.a.q.size[0] = call.a.k.size[0] = call.a.v.size[0] = 1;
    call.a.out.stride[2] = -call.a.out.stride[2];
    rapt_plan *plan = plan_of(&call.a);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rapt_attention a = call.a;
        a.q.data = cases[i].q;
        rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
        if (cases[i].apart) assert_int_equal(status, RAPT_OK);
        else expect(status, RAPT_INVALID, "out overlaps q (outputs need memory of their own)");
    }
    rapt_plan_destroy(&plan);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_number), cmocka_unit_test(sizes_before_strides),
        cmocka_unit_test(each_option), cmocka_unit_test(addresses), cmocka_unit_test(backwards)};
    open_cpu(&context, 1);
    device = rapt_device_at(context, 0);
    int failed =
        run_group("plans match", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
