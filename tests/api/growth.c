/* growth.c: structs that begin with struct_size: a newer header's call with an older library, and
 * no read past the size. */
#include "api.h"
#include "params.h"

#include <sys/mman.h>
#include <unistd.h>

static rapt_context *context;
static rapt_device *device;

/* The struct at the end of a page behind which nothing is mapped, followed by `tail` bytes that
 * belong to it. */
static void *at_the_edge(const void *from, size_t size, size_t tail)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size + tail + page - 1) / page * page;
    char *base =
        mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    mprotect(base + bytes, page, PROT_NONE);
    char *to = base + bytes - size - tail;
    memcpy(to, from, size);
    uint64_t total = size + tail;
    memcpy(to, &total, sizeof total);
    return to;
}

static void a_newer_struct_with_zeros_runs(void **state)
{
    static struct call call;
    (void)state;
    call_reset(&call);
    rapt_attention *a = at_the_edge(&call.a, sizeof call.a, 65536); /* as large as one may be */
    assert_int_equal(rapt_forward(device, a, NULL), RAPT_OK);
    a->struct_size += 8;
    expect(rapt_forward(device, a, NULL), RAPT_INVALID,
           "rapt_forward: struct_size is * (set it to sizeof of the struct)");
    a = at_the_edge(&call.a, sizeof call.a, 64);
    assert_int_equal(rapt_forward(device, a, NULL), RAPT_OK);
    rapt_plan *plan;
    assert_int_equal(rapt_plan_create(&plan, device, a), RAPT_OK);
    rapt_plan_destroy(&plan);
    rapt_rope_args rope = {.x = call.a.q,
                           .out = rapt_tensor_bthd(call.weights, RAPT_F32, 1, 2, 3, D)};
    rope.x.size[0] = 1, rope.x.size[1] = 2, rope.x.size[2] = 3;
    assert_int_equal(rapt_rope(device, at_the_edge(&rope, sizeof rope, 8), NULL), RAPT_OK);
    rapt_config config = {.threads = 1, .backends = "cpu"};
    rapt_context *other;
    assert_int_equal(rapt_open(&other, at_the_edge(&config, sizeof config, 32)), RAPT_OK);
    rapt_close(&other);
}

static void a_newer_field_that_is_set_is_refused(void **state)
{
    static struct call call;
    (void)state;
    for (size_t at = 0; at < 64; at += 9) {
        call_reset(&call);
        char *a = at_the_edge(&call.a, sizeof call.a, 64);
        a[sizeof call.a + at] = 1;
        expect(
            rapt_forward(device, (rapt_attention *)a, NULL), RAPT_UNSUPPORTED,
            "rapt_forward: a field that version *.*.* does not know is set (link a newer library)");
        for (size_t i = 0; i < sizeof call.out; i++)
            assert_int_equal(((unsigned char *)call.out)[i], 0xff);
    }
    rapt_config config = {.threads = 1, .backends = "cpu"};
    rapt_context *other;
    char *newer = at_the_edge(&config, sizeof config, 8);
    newer[sizeof config] = 1;
    assert_int_equal(rapt_open(&other, (rapt_config *)newer), RAPT_UNSUPPORTED);
    assert_null(other);
}

/* A struct that claims to be shorter than the first version is refused without a read behind it. */
static void a_short_struct_is_refused(void **state)
{
    static struct call call;
    (void)state;
    for (size_t size = 8; size < sizeof call.a; size += 56) {
        call_reset(&call);
        rapt_attention *a = at_the_edge(&call.a, size, 0);
        expect(rapt_forward(device, a, NULL), RAPT_INVALID,
               "rapt_forward: struct_size is * (set it to sizeof of the struct, at least *)");
    }
}

/* What was compiled before kv_layout was added still runs, and nothing behind its struct is read.
 */
static void an_older_struct_runs(void **state)
{
    static struct call call;
    (void)state;
    call_reset(&call);
    rapt_attention *a = at_the_edge(&call.a, offsetof(rapt_attention, kv_layout), 0);
    rapt_plan *plan;
    assert_int_equal(rapt_forward(device, a, NULL), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, device, a), RAPT_OK);
    assert_int_equal(rapt_plan_execute(plan, a, NULL, NULL) == RAPT_OK,
                     rapt_plan_workspace_size(plan) == 0);
    rapt_plan_destroy(&plan);
}

/* Equal problems have equal bytes, whatever header their callers had, so that one plan is kept for all. */
static void structs_of_all_sizes_are_one_problem(void **state)
{
    static struct call call;
    static struct problem problem[3];
    (void)state;
    call_reset(&call);
    const rapt_attention *const given[] = {
        &call.a, at_the_edge(&call.a, sizeof call.a, 64),
        at_the_edge(&call.a, offsetof(rapt_attention, kv_layout), 0)};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(params_check(given[i], "growth", &problem[i]), RAPT_OK);
        assert_memory_equal(&problem[i], &problem[0], sizeof problem[0]);
    }
}

/* The same of rope's, before untruncated was added, alone and in an append. */
static void an_older_rope_runs(void **state)
{
    enum { SIZE = offsetof(rapt_rope_args, untruncated) };
    static float x[2][4 * D], out[2][4 * D];
    rapt_rope_args rope = {.x = rapt_tensor_bthd(x[0], RAPT_F32, 1, 1, 4, D),
                           .out = rapt_tensor_bthd(out[0], RAPT_F32, 1, 1, 4, D),
                           .scaling = RAPT_ROPE_YARN,
                           .factor = 4,
                           .original_context = 64};
    rapt_kv_append_args append = {.struct_size = sizeof append,
                                  .k_new = rope.x,
                                  .v_new = rapt_tensor_bthd(x[1], RAPT_F32, 1, 1, 4, D),
                                  .k = rope.out,
                                  .v = rapt_tensor_bthd(out[1], RAPT_F32, 1, 1, 4, D)};
    static const char short_one[] =
        "struct_size is 488 (set it to sizeof of the struct, at least 496)",
                      newer_one[] =
                          "a field that version *.*.* does not know is set (link a newer library)";
    (void)state;
    assert_int_equal(SIZE, 496);
    append.rope = at_the_edge(&rope, SIZE, 0);
    assert_int_equal(rapt_rope(device, append.rope, NULL), RAPT_OK);
    assert_int_equal(rapt_kv_append(device, &append, NULL), RAPT_OK);
    append.rope = at_the_edge(&rope, SIZE - 8, 0);
    expect(rapt_rope(device, append.rope, NULL), RAPT_INVALID, short_one);
    expect(rapt_kv_append(device, &append, NULL), RAPT_INVALID, short_one);
    char *newer = at_the_edge(&rope, sizeof rope, 8);
    newer[sizeof rope] = 1;
    append.rope = (rapt_rope_args *)newer;
    expect(rapt_rope(device, append.rope, NULL), RAPT_UNSUPPORTED, newer_one);
    expect(rapt_kv_append(device, &append, NULL), RAPT_UNSUPPORTED, newer_one);
}

static void answers_fill_a_newer_struct(void **state)
{
    struct {
        rapt_device_info info;
        char tail[16];
    } * device_info;
    struct {
        rapt_kernel_info info;
        char tail[16];
    } * kernel_info;
    rapt_device_info empty = {0};
    rapt_kernel_info no_kernel = {0};
    (void)state;
    device_info = at_the_edge(&empty, sizeof empty, 16);
    memset(device_info->tail, 0x55, sizeof device_info->tail);
    assert_int_equal(rapt_device_describe(device, &device_info->info), RAPT_OK);
    assert_string_equal(device_info->info.backend, "cpu");
    assert_int_equal(device_info->info.struct_size, sizeof empty + 16);
    for (int i = 0; i < 16; i++) assert_int_equal(device_info->tail[i], 0);
    kernel_info = at_the_edge(&no_kernel, sizeof no_kernel, 16);
    assert_int_equal(rapt_kernel_at(context, rapt_kernel_count(context) - 1, &kernel_info->info),
                     RAPT_OK);
    assert_int_equal(kernel_info->info.struct_size, sizeof no_kernel + 16);
    empty.struct_size = 8;
    assert_int_equal(rapt_device_describe(device, &empty), RAPT_INVALID);
    rapt_device_info *large = calloc(1, 65536 + 8); /* as large as no library is */
    large->struct_size = 65536 + 8;
    expect(rapt_device_describe(device, large), RAPT_INVALID,
           "rapt_device_describe: struct_size is 65544 (set it to sizeof of the struct, at least "
           "*)");
    large->struct_size = 65536;
    assert_int_equal(rapt_device_describe(device, large), RAPT_OK);
    free(large);
    assert_int_equal(rapt_device_describe(device, NULL), RAPT_INVALID);
}

/* Only 64-bit fields and no padding, so that all compilers agree on the layout. */
static void structs_have_no_padding(void **state)
{
    (void)state;
    assert_int_equal(sizeof(rapt_tensor), 80);
    assert_int_equal(offsetof(rapt_attention, scale), 8 + 17 * 80);
    assert_int_equal(sizeof(rapt_attention), 8 + 17 * 80 + 2 * 8 + 5 * 8 + 8 + 8);
    assert_int_equal(sizeof(rapt_rope_args), 8 + 5 * 80 + 11 * 8 + 8);
    assert_int_equal(sizeof(rapt_kv_append_args), 8 + 9 * 80 + 8 + 8);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_newer_struct_with_zeros_runs),
                                       cmocka_unit_test(a_newer_field_that_is_set_is_refused),
                                       cmocka_unit_test(a_short_struct_is_refused),
                                       cmocka_unit_test(an_older_struct_runs),
                                       cmocka_unit_test(structs_of_all_sizes_are_one_problem),
                                       cmocka_unit_test(an_older_rope_runs),
                                       cmocka_unit_test(answers_fill_a_newer_struct),
                                       cmocka_unit_test(structs_have_no_padding)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("growth", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
