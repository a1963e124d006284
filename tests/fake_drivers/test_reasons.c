/* test_reasons.c: why a kernel of a GPU does not serve, and what no whole session arrives at. */
#include "session.h"

#include "gpu/driver.h"

#include <stdio.h>

static _Alignas(256) char memory[5 << 18];

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

/* No row of AMD's asks for tensor maps. */
static void tensor_maps(void **state)
{
    struct gpu_device device = {.label = "none:0"};
    struct driver_map map = {.rank = 4};
    (void)state;
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

        cmocka_unit_test(tensor_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
