/* test_sentences.c: what the GPU host code refuses, sentence by sentence. */
#include "session.h"

#include "gpu/driver.h"

#include <stdio.h>

static _Alignas(256) char memory[5 << 18];

/* An address that nobody reads, far from all others. */
static void *far_away(int n)
{
    return (void *)(((uintptr_t)1 << 44) + ((uintptr_t)n << 60));
}

static void expect(rapt_status status, rapt_status expected, const char *sentence)
{
    if (status != expected || !says(rapt_last_error(), sentence))
        print_error("%d, not %d with \"%s\": %s\n", (int)status, (int)expected, sentence,
                    rapt_last_error());
    assert_int_equal(status, expected);
    assert_true(says(rapt_last_error(), sentence));
}

static void expect_plan(rapt_device *device, const rapt_attention *a, const char *sentence)
{
    rapt_plan *plan = NULL;
    rapt_status status = rapt_plan_create(&plan, device, a);
    assert_null(plan);
    expect(status, status == RAPT_NO_MEMORY ? status : RAPT_UNSUPPORTED, sentence);
}

static int fread_fails; /* linked with --wrap (mk/gpu.mk) */
size_t __real_fread(void *to, size_t size, size_t count, FILE *file);
size_t __wrap_fread(void *to, size_t size, size_t count, FILE *file);
size_t __wrap_fread(void *to, size_t size, size_t count, FILE *file)
{
    return fread_fails ? 0 : __real_fread(to, size, count, file);
}

static void unreadable_file(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    rapt_plan *plan;
    a.kernel = "flash";
    fread_fails = 1;
    rapt_status status = rapt_plan_create(&plan, rapt_device_at(context, 0), &a);
    fread_fails = 0;
    expect(status, RAPT_SYSTEM, "FLASH_ATTENTION_*: cannot read * (*)");
    rapt_close(&context);
    session_end(v);
}

/* Why a kernel does not serve. */
static void kernels(void **state)
{
    const struct stand_in *v = *state;
    char sentence[512];
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    a.kv_layout = RAPT_KV_BLOCKED;
    snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (flash: %s)", v->name,
             "reads k and v by their strides (kv_layout is blocked)");
    expect_plan(rapt_device_at(context, 0), &a, sentence);
    rapt_close(&context);
    session_end(v);

    fake = session_begin(v);
    fake->max_shared = 1024;
    context = session_open(v);
    a.kv_layout = RAPT_KV_STRIDED;
    snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (flash: %s)", v->name,
             "needs * bytes of shared memory (* has 1024)");
    expect_plan(rapt_device_at(context, 0), &a, sentence);
    rapt_close(&context);
    session_end(v);
}

static void no_overrides(const struct stand_in *v)
{
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
}

/* A library that was built without the device's compiler, or with rows for other devices alone. */
static void absent_objects(void **state)
{
    const struct stand_in *v = *state;
    char sentence[512];
    struct fake *fake = session_begin(v);
    no_overrides(v);
    rapt_context *context = session_open(v);
    rapt_kernel_info info = {.struct_size = sizeof info};
    rapt_attention a = session_problem(memory);
    snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (*: %s)", v->name,
             "is not in this library for * (it was built without that compiler)");
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++) {
        if (strcmp(info.backend, v->name) || strcmp(info.name, "flash") ||
            strcmp(info.arch, v->arch) || info.bytes)
            continue;
        a.kernel = info.name;
        expect_plan(rapt_device_at(context, 0), &a, sentence);
    }
    rapt_close(&context);
    session_end(v);

    fake = session_begin(v);
    no_overrides(v);
    snprintf(fake->arch, sizeof fake->arch, "%s", v->old_arch);
    context = session_open(v);
    a.kernel = "composed";
    snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (composed: %s)", v->name,
             "has no code object of its pieces for * (this library was built without)");
    expect_plan(rapt_device_at(context, 0), &a, sentence);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    expect(rapt_softmax(rapt_device_at(context, 0), &softmax, NULL), RAPT_UNSUPPORTED,
           "rapt_softmax: *, *, has no code object of softmax (this library was built without)");
    rapt_close(&context);
    session_end(v);
}

/* Problems beyond what a plan can count. */
static void enormous(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    const int64_t many = (int64_t)1 << 28;
    rapt_attention a = {.struct_size = sizeof a, .kernel = "composed"};
    a.q = rapt_tensor_bhtd(far_away(1), RAPT_F16, 1, 1024, many, 64);
    a.k = rapt_tensor_bhtd(far_away(2), RAPT_F16, 1, 1024, many, 64);
    a.v = rapt_tensor_bhtd(far_away(3), RAPT_F16, 1, 1024, many, 64);
    a.out = rapt_tensor_bhtd(far_away(4), RAPT_F16, 1, 1024, many, 64);
    expect_plan(device, &a,
                "rapt_plan_create: the scores of 274877906944 query rows and 268435456 keys do not "
                "fit in 63 bits");
    a.k.size[2] = a.v.size[2] = 16;
    expect_plan(
        device, &a,
        "rapt_plan_create: softmax would need more blocks than a launch may have (split the "
        "batch)");
    rapt_softmax_args softmax = {.struct_size = sizeof softmax};
    softmax.x = rapt_tensor_bhtd(far_away(1), RAPT_F16, 1, many, many, 1);
    softmax.out = rapt_tensor_bhtd(far_away(2), RAPT_F16, 1, many, many, 1);
    expect(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED,
           "rapt_softmax: more blocks than a launch may have (split the call)");
    softmax.x = softmax.out = rapt_tensor_bhtd(far_away(1), RAPT_F16, 1, 1, 1, 2 * many);
    expect(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED,
           "rapt_softmax: x has size 536870912 on an axis (a GPU kernel takes less than 2^29)");
    rapt_close(&context);
    session_end(v);
}

static void pieces(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_tensor wide = rapt_tensor_bhtd(memory, RAPT_F16, 1, 1, 2, 2048);
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = wide, .out = wide};
    expect(rapt_rope(device, &rope, NULL), RAPT_UNSUPPORTED,
           "rapt_rope: 2048 rotary channels (a GPU kernel takes at most *; give cos and sin)");
    rapt_kv_append_args append = {.struct_size = sizeof append, .kv_layout = RAPT_KV_BLOCKED};
    append.k_new = append.v_new = rapt_tensor_bhtd(memory, RAPT_F16, 1, 1, 1, 64);
    append.k = rapt_tensor_bhtd(memory + (1 << 16), RAPT_F16, 1, 1, 32, 64);
    append.v = rapt_tensor_bhtd(memory + (2 << 16), RAPT_F16, 1, 1, 32, 64);
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: kv_layout is blocked (a GPU's caches are strided)");
    rapt_close(&context);
    session_end(v);
}

/* A named kernel that wants aligned rows has nobody to hand the others to. The replaceable rows take
 * any, so this runs where a compiler for the device was at hand. */
static void unaligned_pointers(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_kernel_info info = {.struct_size = sizeof info};
    int refused = 0;
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++) {
        rapt_attention a = session_problem(memory);
        rapt_plan *plan;
        void *workspace = NULL;
        a.kernel = info.name;
        if (strcmp(info.backend, v->name) || !info.present || !info.bytes ||
            rapt_plan_create(&plan, device, &a))
            continue;
        assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan) + 64, &workspace), 0);
        a.q.data = memory + 2;
        rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
        refused += status != RAPT_OK;
        if (status)
            expect(status, RAPT_UNSUPPORTED,
                   "rapt_plan_execute: q, k, v or out is not 16-byte aligned (* needs that, and no "
                   "other kernel was allowed or serves)");
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
    }
    print_message("# %s: %d kernels want aligned rows\n", v->name, refused);
    rapt_close(&context);
    session_end(v);
}

/* Only Hopper's rows ask for tensor maps, which the drivers of other devices need not have. */
static void tensor_maps(void **state)
{
    static const max_align_t no_functions[256];
    struct gpu_device device = {.api = (void *)no_functions, .label = "none:0"};
    struct driver_map map = {.rank = 4};
    (void)state;
    expect(cuda_driver.encode(&device, &map, memory, NULL), RAPT_UNSUPPORTED,
           "cuTensorMapEncodeTiled: the driver of none:0 lacks it (CUDA 12 has it)");
    expect(hip_driver.encode(&device, &map, memory, NULL), RAPT_UNSUPPORTED,
           "rapt_plan_create: none:0 has no tensor maps (a row of kernels.def asks for them)");
}

#define BOTH(test)                                                                                 \
    {"cuda: " #test, test, NULL, NULL, (void *)&vendors[0]},                                       \
    {                                                                                              \
        "hip: " #test, test, NULL, NULL, (void *)&vendors[1]                                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(unreadable_file),
        BOTH(kernels),
        BOTH(absent_objects),
        BOTH(enormous),
        BOTH(pieces),
        BOTH(unaligned_pointers),
        cmocka_unit_test(tensor_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
