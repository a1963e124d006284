/* refusals_objects.c: what calls say of absent objects, of structs to fill and of levels that refuse. */
#include "api.h"
#include "cpu/levels.h"

static rapt_context *context;
static rapt_device *device;
static struct call call;

static void null_objects_are_refused(void **state)
{
    rapt_plan *plan;
    rapt_device_info info = {.struct_size = sizeof info};
    (void)state;
    call_reset(&call);
    expect(rapt_plan_create(NULL, device, &call.a), RAPT_INVALID,
           "rapt_plan_create: out is NULL (pass the address of a plan pointer)");
    expect(rapt_plan_create(&plan, NULL, &call.a), RAPT_INVALID,
           "rapt_plan_create: device is NULL (as rapt_device_at past the last one)");
    expect(rapt_plan_create(&plan, device, NULL), RAPT_INVALID,
           "rapt_plan_create: the struct is NULL (pass its address)");
    assert_null(plan);
    expect(rapt_plan_execute(NULL, &call.a, NULL, NULL), RAPT_INVALID,
           "rapt_plan_execute: plan is NULL");
    expect(rapt_forward(NULL, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: device is NULL (as rapt_device_at past the last one)");
    expect(rapt_forward(device, NULL, NULL), RAPT_INVALID,
           "rapt_forward: the struct is NULL (pass its address)");
    expect(rapt_explain(NULL, &call.a, NULL, 0) > 0, 1,
           "rapt_explain: device is NULL (as rapt_device_at past the last one)");
    expect(rapt_explain(device, NULL, NULL, 100) > 0, 1,
           "rapt_explain: the struct is NULL (pass its address)");
    assert_int_equal(rapt_plan_workspace_size(NULL), 0);
    assert_string_equal(rapt_plan_kernel(NULL), "");
    expect(rapt_alloc(NULL, 8, (void **)&plan), RAPT_INVALID,
           "rapt_alloc: device is NULL (as rapt_device_at past the last one)");
    expect(rapt_alloc(device, 8, NULL), RAPT_INVALID,
           "rapt_alloc: out is NULL (pass the address of a pointer)");
    void *memory = &call;
    expect(rapt_alloc(NULL, 8, &memory), RAPT_INVALID,
           "rapt_alloc: device is NULL (as rapt_device_at past the last one)");
    assert_null(memory);
    expect(rapt_copy(device, NULL, &call, 8, NULL), RAPT_INVALID, "rapt_copy: to is NULL");
    expect(rapt_copy(device, &call, NULL, 8, NULL), RAPT_INVALID, "rapt_copy: from is NULL");
    expect(rapt_copy(NULL, &call, &call, 8, NULL), RAPT_INVALID,
           "rapt_copy: device is NULL (as rapt_device_at past the last one)");
    assert_int_equal(rapt_copy(device, NULL, NULL, 0, NULL), RAPT_OK);
    expect(rapt_synchronize(NULL, NULL), RAPT_INVALID,
           "rapt_synchronize: device is NULL (as rapt_device_at past the last one)");
    expect(rapt_device_describe(NULL, &info), RAPT_INVALID,
           "rapt_device_describe: device is NULL (as rapt_device_at past the last one)");
    rapt_free(device, NULL);
    rapt_free(NULL, NULL);
}

/* The level of that kernel; NULL: this architecture has none. */
static const struct cpu_level *level_of(const char *kernel)
{
    for (int i = 0; i < CPU_LEVELS; i++)
        if (!strcmp(cpu_levels[i].kernels->arch, kernel + strlen("cpu_"))) return &cpu_levels[i];
    return NULL;
}

/* NULL: the level serves the call. */
static const char *refusal_of(const struct cpu_level *level, char reason[REASON_SIZE])
{
    static struct problem problem;
    rapt_attention a = call.a;
    a.kernel = NULL;
    assert_int_equal(params_check(&a, "refusal_of", &problem), RAPT_OK);
    return level->refuses(&problem, reason);
}

/* A level that does not take the call says why, also where the CPU lacks it; there its kernel has no name. */
static void levels_say_what_they_need(void **state)
{
    static const struct {
        const char *kernel;
        rapt_dtype q, k;
        int64_t blocks, stride;
        const char *reason;
        int64_t channels; /* 0: as they are */
    } rows[] = {
        {"cpu_avx512_bf16", RAPT_F32, RAPT_F32, 0, 1, "q is f32 (needs bf16)", 0},
        {"cpu_neon_bf16", RAPT_F16, RAPT_F16, 0, 1, "q is f16 (needs bf16)", 0},
        {"cpu_amx_f32", RAPT_BF16, RAPT_BF16, 0, 1,
         "q, k and v are bf16, bf16 and bf16 (needs f32 or f16 in all)", 0},
        {"cpu_avx512_vnni", RAPT_F32, RAPT_I8, 1, 1, "q is f32 (needs f16 or bf16)", 0},
        {"cpu_avx512_vnni", RAPT_F16, RAPT_F16, 0, 1, "k is f16, v is f16 (needs i8)", 0},
        {"cpu_avx512_vnni", RAPT_F16, RAPT_I8, 1, 2,
         "the channels of a key do not lie side by side", 0},
        {"cpu_avx512_vnni", RAPT_F16, RAPT_I8, 2, 1,
         "a scale has fewer than 32 channels, or not a multiple of 32", 0},
        {"cpu_avx512_vnni", RAPT_F16, RAPT_I8, 1, 1, "q has 1025 channels (at most 1024)", 1025},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char sentence[256], absent[256], own[REASON_SIZE];
        rapt_plan *plan;
        call_reset(&call);
        call.a.kernel = rows[i].kernel;
        call.a.q.dtype = call.a.out.dtype = rows[i].q;
        call.a.k.dtype = call.a.v.dtype = rows[i].k;
        if (rows[i].blocks)
            call.a.k_scale = call.a.v_scale =
                rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, rows[i].blocks);
        call.a.k.stride[3] *= rows[i].stride;
        if (rows[i].channels) call.a.q.size[3] = call.a.k.size[3] = rows[i].channels;
        snprintf(sentence, sizeof sentence, "no kernel of cpu:0 serves this (%s: %s)",
                 rows[i].kernel, rows[i].reason);
        snprintf(absent, sizeof absent,
                 "no kernel of cpu:0 serves this (%s: this device has no kernel of that name)",
                 rows[i].kernel);
        const struct cpu_level *level = level_of(rows[i].kernel);
        if (level) assert_string_equal(refusal_of(level, own), rows[i].reason);
        assert_int_equal(rapt_plan_create(&plan, device, &call.a), RAPT_UNSUPPORTED);
        if (!level || !says(rapt_last_error(), absent))
            expect(RAPT_OK, RAPT_OK, level ? sentence : absent);
    }
}

/* Also where the CPU lacks what the level needs. */
static void levels_take_their_types(void **state)
{
    static const struct {
        const char *kernel;
        rapt_dtype q, k;
        int taken;
    } rows[] = {
        {"cpu_avx512_bf16", RAPT_BF16, RAPT_BF16, 1}, {"cpu_amx", RAPT_BF16, RAPT_BF16, 1},
        {"cpu_amx", RAPT_BF16, RAPT_I8, 0},           {"cpu_amx", RAPT_F16, RAPT_F16, 0},
        {"cpu_amx_f32", RAPT_F32, RAPT_F32, 1},       {"cpu_amx_f32", RAPT_F16, RAPT_F16, 1},
        {"cpu_amx_f32", RAPT_F32, RAPT_F16, 0},       {"cpu_amx_f32", RAPT_F16, RAPT_I8, 0},
        {"cpu_avx512_vnni", RAPT_F16, RAPT_I8, 1},    {"cpu_avx512_vnni", RAPT_BF16, RAPT_I8, 1},
        {"cpu_amx_int8", RAPT_F16, RAPT_I8, 1},       {"cpu_amx_int8", RAPT_F32, RAPT_I8, 0},
        {"cpu_neon_bf16", RAPT_BF16, RAPT_BF16, 1},   {"cpu_neon_bf16", RAPT_F32, RAPT_F32, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char reason[REASON_SIZE];
        const struct cpu_level *level = level_of(rows[i].kernel);
        if (!level) continue;
        call_reset(&call);
        call.a.q.dtype = call.a.out.dtype = rows[i].q;
        call.a.k.dtype = call.a.v.dtype = rows[i].k;
        if (rows[i].k == RAPT_I8)
            call.a.k_scale = call.a.v_scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, 1);
        assert_int_equal(refusal_of(level, reason) == NULL, rows[i].taken);
    }
}

/* Rules of two numbers, with only the second of them wrong. */
static void one_of_two_is_wrong(void **state)
{
    rapt_plan *plan;
    (void)state;
    call_reset(&call);
    call.a.v.size[3] = call.a.out.size[3] = 0;
    expect(rapt_plan_create(&plan, device, &call.a), RAPT_INVALID,
           "q has 8 and v has 0 channels (at least 1)");
    call_reset(&call);
    call.a.k.dtype = call.a.v.dtype = RAPT_F32 + 32; /* no bit of a word */
    expect(rapt_plan_create(&plan, device, &call.a), RAPT_INVALID,
           "k has dtype 33, * (must be f32, f16, bf16 or i8)");
    call_reset(&call);
    call.a.k.dtype = call.a.v.dtype = RAPT_I8;
    call.a.k_scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, 1);
    call.a.v_scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, 0);
    expect(rapt_plan_create(&plan, device, &call.a), RAPT_INVALID,
           "v_scale has 0 blocks for 6 channels (blocks must divide channels)");
    call_reset(&call);
    call.a.kv_layout = RAPT_KV_BLOCKED;
    call.a.q.size[3] = 32;
    call.a.out = rapt_tensor_bhtd(call.a.out.data, RAPT_F32, B, HQ, SQ, 32);
    call.a.k = call.a.v = rapt_tensor_bhtd(call.k, RAPT_F32, B, HKV, 32, 32);
    call.a.v.stride[3] = 2;
    expect(rapt_plan_create(&plan, device, &call.a), RAPT_INVALID,
           "rapt_plan_create: v has strides 32, 2 on its token and channel axes (blocked: its "
           "channels, 1)");
    for (int tokens = 0; tokens < 2; tokens++) {
        call_reset(&call);
        call.a.kv_layout = RAPT_KV_BLOCKED;
        call.a.k = call.a.v = rapt_tensor_bhtd(call.a.k.data, RAPT_F32, call.a.k.size[0],
                                               call.a.k.size[1], tokens ? 40 : 64, tokens ? 32 : 8);
        call.a.q.size[3] = tokens ? 32 : 8;
        call.a.out = rapt_tensor_bhtd(call.a.out.data, RAPT_F32, B, HQ, SQ, call.a.q.size[3]);
        expect(rapt_plan_create(&plan, device, &call.a), RAPT_INVALID,
               tokens ? "k has 40 tokens and 32 channels (blocked: multiples of 32)"
                      : "k has 64 tokens and 8 channels (blocked: multiples of 32)");
    }
}

/* The call's plan is refused by each level for this reason. */
static void expect_reason(const char *reason)
{
    char sentence[256];
    rapt_plan *plan;
    snprintf(sentence, sizeof sentence, "rapt_plan_create: no kernel of cpu:0 serves this (*: %s*)",
             reason);
    expect(rapt_plan_create(&plan, device, &call.a), RAPT_UNSUPPORTED, sentence);
}

/* Sizes of which no memory has as many elements, and an output that would be written twice. */
static void impossible_tensors(void **state)
{
    (void)state;
    call_reset(&call);
    call.a.q.size[0] = call.a.k.size[0] = call.a.v.size[0] = call.a.out.size[0] = (int64_t)1 << 60;
    call.a.q.size[2] = call.a.out.size[2] = call.a.k.size[2] = call.a.v.size[2] = 0;
    expect_reason("counts elements of a tensor in 48 bits, empty axes as 1");
    call_reset(&call);
    call.a.q_start = call.a.kv_start =
        (rapt_tensor){call.starts, RAPT_I32, {((int64_t)1 << 46) + 1, 1, 1, 1}, {0, 0, 0, 0}};
    call.a.q = call.a.out = rapt_tensor_bhtd(call.q, RAPT_F32, 1, 1 << 20, 1, 1);
    call.a.k = call.a.v = call.a.q;
    expect_reason("counts sequences times KV heads in 48 bits");
    call_reset(&call);
    call.a.out.stride[1] = call.a.out.stride[2];
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: out has elements that share memory (check its strides)");
}

/* An input of bytes whose first byte is out's last, or whose last is out's first; a byte farther it is
 * fine. */
static void one_byte_in_common(void **state)
{
    (void)state;
    const char *sentence = "rapt_forward: out overlaps mask (outputs need memory of their own)";
    for (int before = 0; before < 2; before++)
        for (int between = 0; between < 2; between++) {
            call_reset(&call);
            unsigned char *memory = calloc(1, sizeof call.out + 2 * sizeof call.mask);
            unsigned char *out = memory + sizeof call.mask; /* a multiple of 4 */
            call.a.out.data = out;
            call.a.mask = rapt_tensor_bhtd(before ? out - sizeof call.mask + 1 - between
                                                  : out + sizeof call.out - 1 + between,
                                           RAPT_U8, B, HQ, SQ, SKV);
            if (between) assert_int_equal(rapt_forward(device, &call.a, NULL), RAPT_OK);
            else expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID, sentence);
            free(memory);
        }
}

/* The structs that the library fills. */
static void information_is_refused(void **state)
{
    rapt_device_info info = {.struct_size = 8};
    rapt_kernel_info kernel = {.struct_size = sizeof kernel};
    (void)state;
    expect(rapt_device_describe(device, NULL), RAPT_INVALID,
           "rapt_device_describe: info is NULL (pass the address of a struct)");
    expect(rapt_device_describe(device, &info), RAPT_INVALID,
           "rapt_device_describe: struct_size is 8 (set it to sizeof of the struct, at least *)");
    expect(rapt_kernel_at(context, -1, &kernel), RAPT_INVALID,
           "rapt_kernel_at: there is no kernel -1 (0 ... *)");
    expect(rapt_kernel_at(NULL, 0, &kernel), RAPT_INVALID, "rapt_kernel_at: context is NULL");
    char sentence[96];
    int64_t count = rapt_kernel_count(context);
    snprintf(sentence, sizeof sentence, "rapt_kernel_at: there is no kernel %lld (0 ... %lld)",
             (long long)count, (long long)count - 1);
    expect(rapt_kernel_at(context, count, &kernel), RAPT_INVALID, sentence);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_objects_are_refused), cmocka_unit_test(information_is_refused),
        cmocka_unit_test(one_of_two_is_wrong),      cmocka_unit_test(impossible_tensors),
        cmocka_unit_test(one_byte_in_common),       cmocka_unit_test(levels_say_what_they_need),
        cmocka_unit_test(levels_take_their_types)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("refusals of objects", tests, sizeof tests / sizeof *tests, NULL, NULL,
                           argc, argv);
    rapt_close(&context);
    return failed;
}
