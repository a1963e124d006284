/* test_refusals.c: what a GPU backend refuses that the CPU would take, files it cannot use, and why a
 * kernel does not serve, each with its sentence. */
#include "session.h"

#include "gpu/driver.h"

#include <stdio.h>
#include <unistd.h>

static _Alignas(256) char memory[5 << 18];

static void expect(rapt_status status, rapt_status expected, const char *sentence)
{
    if (status != expected || !says(rapt_last_error(), sentence))
        fail_msg("%s, not %s with \"%s\": %s", rapt_status_text(status), rapt_status_text(expected),
                 sentence, rapt_last_error());
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
    expect(status, RAPT_SYSTEM, "FLASH_ATTENTION_*: cannot read * (it ends before its size)");
    rapt_close(&context);
    session_end(v);
}

/* Why a kernel does not serve, on a device of so much shared memory (0: the stand-in's own). */
static void refused(const struct stand_in *v, int64_t layout, int shared, const char *reason)
{
    char sentence[512];
    struct fake *fake = session_begin(v);
    if (shared) fake->max_shared = shared;
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    a.kernel = "flash";
    a.kv_layout = layout;
    snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (flash: %s)", v->name,
             reason);
    expect_plan(rapt_device_at(context, 0), &a, sentence);
    rapt_close(&context);
    session_end(v);
}

static void kernels(void **state)
{
    const struct stand_in *v = *state;
    refused(v, RAPT_KV_BLOCKED, 0, "reads k and v by their strides (kv_layout is blocked)");
    refused(v, RAPT_KV_STRIDED, 1024, "needs * bytes of shared memory (* has 1024)");
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

/* An address that nobody reads: n times 2^60. */
static char *far(int n)
{
    return (char *)((uintptr_t)n << 60);
}

/* More blocks, or elements of scores, than 31 or 63 bits count. */
static void too_many_blocks(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    int64_t b = 1 << 20, h = 1 << 10, sq = 1 << 24, skv = 1 << 28;
    rapt_attention a = {.struct_size = sizeof a, .kernel = "composed"};
    a.q = rapt_tensor_bthd(far(1), RAPT_F16, b, h, sq, 1);
    a.k = rapt_tensor_bthd(far(2), RAPT_F16, 1, 1, skv, 1);
    a.k.size[0] = b, a.k.stride[0] = 0;
    a.v = a.k;
    a.out = rapt_tensor_bthd(far(4), RAPT_F16, b, h, sq, 1);
    rapt_plan *plan = NULL;
    expect(rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY,
           "rapt_plan_create: the scores of * query rows and 268435456 keys do not fit in 63 bits");
    a.q.size[0] = a.out.size[0] = a.k.size[0] = a.v.size[0] = 8; /* 2^65 of them, 2^61, 2^59 */
    expect(rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY,
           "rapt_plan_create: the scores of * query rows and 268435456 keys do not fit in 63 bits");
    a.k.size[2] = a.v.size[2] = 1 << 24;
    expect(rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY,
           "rapt_plan_create: the scores of * query rows and 16777216 keys do not fit in 63 bits");
    a.k.size[2] = a.v.size[2] = 1 << 22;
    expect(rapt_plan_create(&plan, device, &a), RAPT_UNSUPPORTED,
           "rapt_plan_create: softmax would need more blocks than a launch may have (split the "
           "batch)");
    a.q.size[0] = a.out.size[0] = a.k.size[0] = a.v.size[0] = b;
    a.k.size[2] = a.v.size[2] = 1;
    expect(rapt_plan_create(&plan, device, &a), RAPT_UNSUPPORTED,
           "rapt_plan_create: softmax would need more blocks than a launch may have (split the "
           "batch)");
    rapt_tensor rows = rapt_tensor_bhtd(far(1), RAPT_F32, 1 << 28, 1 << 28, 1, 1), out = rows;
    out.data = far(4);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = rows, .out = out};
    expect(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED,
           "rapt_softmax: more blocks than a launch may have (split the call)");
    softmax.x = rapt_tensor_bhtd(far(1), RAPT_F16, 1, 1, 1 << 29, 1);
    softmax.out = rapt_tensor_bhtd(far(4), RAPT_F16, 1, 1, 1 << 29, 1);
    expect(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED,
           "rapt_softmax: x has size 536870912 on an axis (a GPU kernel takes less than 2^29)");
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = softmax.x};
    expect(rapt_causal_mask(device, &mask, NULL), RAPT_UNSUPPORTED,
           "rapt_causal_mask: x has size 536870912 on an axis (a GPU kernel takes less than 2^29)");
    rapt_pv_args wide = {.struct_size = sizeof wide,
                         .weights = rapt_tensor_bhtd(far(1), RAPT_F16, 1, 1, 1, 4),
                         .v = rapt_tensor_bhtd(far(2), RAPT_F16, 1, 1, 4, 1 << 29),
                         .out = rapt_tensor_bhtd(far(4), RAPT_F16, 1, 1, 1, 1 << 29)};
    expect(rapt_pv(device, &wide, NULL), RAPT_UNSUPPORTED,
           "rapt_pv: v has size 536870912 on an axis (a GPU kernel takes less than 2^29)");
    rapt_close(&context);
    session_end(v);
}

/* What a kernel would count in 32 bits: each axis, and the tokens of a sequence in pages. */
static void sizes_of_append(rapt_device *device, rapt_kv_append_args straight)
{
    enum { LARGE = 1 << 29 };
    rapt_kv_append_args append = straight;
    append.k = rapt_tensor_bhtd(far(1), RAPT_F16, 2, 2, LARGE, 32);
    append.v = rapt_tensor_bhtd(far(3), RAPT_F16, 2, 2, LARGE, 32);
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: k has size 536870912 on an axis (a GPU kernel takes less than 2^29)");
    append = straight;
    append.v_new = rapt_tensor_bhtd(far(1), RAPT_F16, 2, 2, 3, LARGE);
    append.v = rapt_tensor_bhtd(far(3), RAPT_F16, 2, 2, 32, LARGE);
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: v_new has size 536870912 on an axis (a GPU kernel takes less than "
           "2^29)");
    append = straight;
    append.k_new.size[0] = append.v_new.size[0] = 1;
    append.q_start = rapt_tensor_bhtd(far(1), RAPT_I32, LARGE, 1, 1, 1);
    append.k = rapt_tensor_bhtd(far(3), RAPT_F16, LARGE - 1, 2, 32, 32);
    append.v = rapt_tensor_bhtd(far(5), RAPT_F16, LARGE - 1, 2, 32, 32);
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: q_start has size 536870912 on an axis (a GPU kernel takes less than "
           "2^29)");
    append = straight;
    append.page_table = (rapt_tensor){far(5), RAPT_I64, {2, 1, LARGE, 1}, {LARGE, 0, 1, 0}};
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: page_table has size 536870912 on an axis (a GPU kernel takes less than "
           "2^29)");
    append.page_table.size[2] = LARGE / 32;
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: 16777216 pages of 32 tokens for each sequence (a GPU kernel takes less "
           "than 2^29 tokens)");
    append.page_table.size[2] = LARGE / 32 - 1;
    assert_int_equal(rapt_kv_append(device, &append, NULL), RAPT_OK);
}

static void options_of_pieces(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_kv_append_args append = {.struct_size = sizeof append,
                                  .k_new = rapt_tensor_bthd(memory, RAPT_F16, 2, 2, 3, 32),
                                  .v_new = rapt_tensor_bthd(memory, RAPT_F16, 2, 2, 3, 32),
                                  .k = rapt_tensor_bhtd(memory + (1 << 18), RAPT_F16, 2, 2, 32, 32),
                                  .v = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F16, 2, 2, 32, 32),
                                  .kv_layout = RAPT_KV_BLOCKED};
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED,
           "rapt_kv_append: kv_layout is blocked (a GPU's caches are strided)");
    append.kv_layout = RAPT_KV_STRIDED;
    sizes_of_append(device, append);
    rapt_rope_args rope = {.struct_size = sizeof rope,
                           .x = rapt_tensor_bthd(memory, RAPT_F16, 1, 1, 1, 640),
                           .out = rapt_tensor_bthd(memory + (1 << 18), RAPT_F16, 1, 1, 1, 640)};
    expect(rapt_rope(device, &rope, NULL), RAPT_UNSUPPORTED,
           "rapt_rope: 640 rotary channels (a GPU kernel takes at most 576; give cos and sin)");
    rope.cos = rope.sin = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F32, 1, 1, 8, 320);
    assert_int_equal(rapt_rope(device, &rope, NULL), RAPT_OK);
    rapt_close(&context);
    session_end(v);
}

/* Softmax by a file that begins with these bytes and has `size`. */
static rapt_status softmax_of_file(const struct stand_in *v, const void *bytes, size_t count,
                                   long size)
{
    char variable[64];
    rapt_attention a = session_problem(memory);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    session_begin(v);
    snprintf(variable, sizeof variable, "SOFTMAX_%s", v->suffix);
    FILE *file = fopen(getenv(variable), "wb"); /* the session removes it */
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(ftruncate(fileno(file), size), 0); /* a hole takes no room */
    assert_int_equal(fclose(file), 0);
    rapt_context *context = session_open(v);
    rapt_status status = rapt_softmax(rapt_device_at(context, 0), &softmax, NULL);
    rapt_close(&context);
    session_end(v);
    return status;
}

/* The head of an object whose section table, at the address in bytes 40 to 47, of as many entries as
 * bytes 60 and 61 say of the size in 58 and 59, lies past its end, begins there or ends there. */
static void cut_short(void **state)
{
    static const char sentence[] =
        "SOFTMAX_*: * is cut short: its head tells of more than it holds";
    unsigned char far[64] = {127, 'E', 'L', 'F', [41] = 16},
                  long_table[64] = {127, 'E', 'L', 'F', [40] = 32, [58] = 11, [60] = 3},
                  whole[64] = {127, 'E', 'L', 'F', [40] = 32, [58] = 8, [60] = 4};
    expect(softmax_of_file(*state, far, 64, 64), RAPT_INVALID, sentence);
    expect(softmax_of_file(*state, long_table, 64, 64), RAPT_INVALID, sentence);
    expect(softmax_of_file(*state, far, 63, 63), RAPT_INVALID, sentence);
    assert_int_equal(softmax_of_file(*state, whole, 64, 64), RAPT_OK);
}

/* A fat binary: its head's size in bytes 6 and 7, that of what follows in bytes 8 to 15. */
static void fat_binary_cut_short(void **state)
{
    static const char sentence[] =
        "SOFTMAX_*: * is cut short: its head tells of more than it holds";
    unsigned char head[64] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 49},
                  whole[64] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 48},
                  far[64] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, [15] = 1},
                  long_head[64] = {0x50, 0xed, 0x55, 0xba, 1, 0, 65};
    expect(softmax_of_file(*state, head, 64, 64), RAPT_INVALID, sentence);
    expect(softmax_of_file(*state, far, 64, 64), RAPT_INVALID, sentence);
    expect(softmax_of_file(*state, long_head, 64, 64), RAPT_INVALID, sentence);
    expect(softmax_of_file(*state, whole, 15, 15), RAPT_INVALID, sentence);
    assert_int_equal(softmax_of_file(*state, whole, 64, 64), RAPT_OK);
}

static void large_files(void **state)
{
    const struct stand_in *v = *state;
    char text[64];
    int length = snprintf(text, sizeof text, "fake %s softmax", v->arch);
    assert_int_equal(softmax_of_file(v, text, (size_t)length, 20 << 20), RAPT_OK);
    expect(softmax_of_file(v, text, (size_t)length, (256 << 20) + 1), RAPT_INVALID,
           "SOFTMAX_*: * is no code object (it is no file of at most 256 MiB)");
}

/* Named kernels that move 16 bytes at a time refuse addresses that do not allow it. */
static void named_kernels_and_addresses(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    session_no_overrides(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    rapt_kernel_info info = {.struct_size = sizeof info};
    int refused = 0, kernels = 0;
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++) {
        if (!info.present || !info.bytes || strcmp(info.op, "forward") ||
            strcmp(info.backend, v->name))
            continue;
        a = session_problem(memory);
        a.kernel = info.name;
        rapt_plan *plan = NULL;
        if (rapt_plan_create(&plan, device, &a)) continue;
        void *workspace = NULL;
        assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
        a.k.data = memory + (1 << 18) + 2;
        rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
        if (status)
            expect(status, RAPT_UNSUPPORTED,
                   "rapt_plan_execute: q, k, v or out is not 16-byte aligned (* needs that, and no "
                   "other kernel was allowed or serves)");
        kernels++;
        refused += status != RAPT_OK;
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
    }
    assert_true(refused > 0 && refused < kernels);
    print_message("# %s: %d of %d kernels ask for 16-byte addresses\n", v->name, refused, kernels);
    rapt_close(&context);
    session_end(v);
}

/* K whose heads overlap, so that its extent is small and its parts are not. */
static void parts_without_number(void **state)
{
    const struct stand_in *v = &vendors[0];
    (void)state;
    struct fake *fake = session_begin(v);
    snprintf(fake->arch, sizeof fake->arch, "sm_90");
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    const int64_t b = 1 << 20, h = 1 << 12, s = 1 << 28;
    rapt_attention a = {.struct_size = sizeof a, .kernel = "sm90_f32_d64"};
    a.q = rapt_tensor_bthd(far(1), RAPT_F32, b, h, 1, 64);
    a.k = rapt_tensor_bthd(far(2), RAPT_F32, 1, 1, s, 64);
    a.k.size[0] = b, a.k.size[1] = h;
    a.k.stride[0] = a.k.stride[1] = 64;
    a.v = a.k;
    a.v.data = far(3);
    a.out = a.q;
    a.out.data = far(4);
    rapt_plan *plan = NULL;
    expect(
        rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY, /* 3 x 2^67 bytes */
        "rapt_plan_create: the 16-bit parts of k, 1048576 x 4096 x 268435456 rows, do not fit in "
        "63 bits");
    a.kernel = "sm90_f32_d64_strict";
    expect(rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY,
           "rapt_plan_create: the 16-bit parts of k, * do not fit in 63 bits");
    a.k.size[2] = a.v.size[2] = s >> 9; /* 3 x 2^58 bytes of each */
    assert_int_equal(rapt_plan_create(&plan, device, &a), RAPT_OK);
    assert_true(rapt_plan_workspace_size(plan) > (size_t)1 << 60);
    rapt_plan_destroy(&plan);
    a.k.size[2] = a.v.size[2] = s >> 8;
    expect(rapt_plan_create(&plan, device, &a), RAPT_NO_MEMORY,
           "rapt_plan_create: the 16-bit parts of k, * do not fit in 63 bits");
    rapt_close(&context);
    session_end(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(unreadable_file),
        BOTH(cut_short),
        BOTH(fat_binary_cut_short),
        BOTH(large_files),
        BOTH(kernels),
        BOTH(too_many_blocks),
        cmocka_unit_test(parts_without_number),
        BOTH(options_of_pieces),
        BOTH(named_kernels_and_addresses),
        cmocka_unit_test(tensor_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
