/* Every class of fault the emulator catches, planted on purpose; and the same code without the
 * fault, which must run. */
#include "support.h"

static void test_global_bounds(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    int *in = buffer(&o, 400), *out = buffer(&o, 400);
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    arg_int(&o, 99);
    assert_launch(&o, "global_over", 2, 64, 0);
    clear_args(&o);
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    arg_int(&o, 100);
    assert_fault(&o, "global_over", 2, 64, 0, "out of bounds");
    assert_non_null(strstr(o.error, "lane"));
    object_close(&o);
}

static void test_shared_bounds(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    int *out = buffer(&o, 256);
    arg_pointer(&o, out);
    arg_int(&o, 0);
    assert_launch(&o, "shared_over", 1, 64, 256);
    assert_fault(&o, "shared_over", 1, 64, 252, "LDS address 252, out of bounds");
    object_close(&o);
}

static void test_shared_unwritten(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    int *out = buffer(&o, 256);
    arg_pointer(&o, out);
    assert_fault(&o, "shared_unwritten", 1, 64, 0, "never written");
    object_close(&o);
}

/* The race shadow names the missing barrier; with it off, the result depends on the order of the
 * waves. */
static void test_missing_barrier(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    int *out = buffer(&o, 512), reference[128];
    arg_pointer(&o, out);
    assert_launch(&o, "with_barrier", 1, 128, 0);
    for (int i = 0; i < 128; i++) assert_int_equal(out[i], 3 * (127 - i));
    assert_fault(&o, "reuse", 1, 128, 0, "missing barrier");
    o.options.check_undefined = false;
    assert_fault(&o, "no_barrier", 1, 128, 0, "missing barrier");
    o.options.check_races = false;
    o.options.threads = 1;
    assert_launch(&o, "no_barrier", 1, 128, 0);
    memcpy(reference, out, sizeof reference);
    o.options.order = AMDGPU_BACKWARD;
    assert_launch(&o, "no_barrier", 1, 128, 0);
    assert_memory_not_equal(reference, out, sizeof reference);
    object_close(&o);
}

static void test_misaligned(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    char *out = buffer(&o, 1024);
    arg_pointer(&o, out);
    assert_fault(&o, "misaligned", 1, 64, 0, "not naturally aligned");
    arg_int(&o, 0);
    assert_launch(&o, "misaligned_shared", 1, 64, 512);
    clear_args(&o);
    arg_pointer(&o, out);
    arg_int(&o, 2);
    assert_fault(&o, "misaligned_shared", 1, 64, 512, "not 4-byte aligned");
    object_close(&o);
}

static void test_trap(void **state)
{
    struct object o;
    object_open(&o, "faulty", *state);
    int *out = buffer(&o, 256);
    arg_pointer(&o, out);
    arg_int(&o, 64);
    assert_launch(&o, "stop", 1, 64, 0);
    clear_args(&o);
    arg_pointer(&o, out);
    arg_int(&o, 3);
    assert_false(launch(&o, "stop", 1, 64, 0));
    assert_true(strstr(o.error, "trap") || strstr(o.error, "end of the kernel"));
    object_close(&o);
}

static void run_planted(const char *target, const char *kernel, const char *text)
{
    struct object o;
    object_open(&o, "planted", target);
    int *in = buffer(&o, 256), *out = buffer(&o, 256);
    for (int i = 0; i < 64; i++) in[i] = i * 11;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    if (text) {
        assert_fault(&o, kernel, 1, (uint32_t)wave_size(target), 0, text);
    } else {
        assert_launch(&o, kernel, 1, (uint32_t)wave_size(target), 0);
        for (int i = 0; i < wave_size(target); i++) assert_int_equal(out[i], in[i]);
    }
    object_close(&o);
}

static void test_waits(void **state)
{
    bool gfx12 = strncmp(*state, "gfx12", 5) == 0;
    run_planted(*state, "waited", NULL);
    run_planted(*state, "no_scalar_wait", gfx12 ? "s_wait_kmcnt" : "lgkmcnt");
    run_planted(*state, "no_vector_wait", gfx12 ? "s_wait_loadcnt" : "vmcnt");
    run_planted(*state, "no_shared_wait", gfx12 ? "s_wait_dscnt" : "lgkmcnt");
    run_planted(*state, "no_wait_before_barrier", "LDS store is outstanding");
    run_planted(*state, "partial_wait", "v2 is still on its way");
}

static void test_unwritten_registers(void **state)
{
    run_planted(*state, "unwritten_vector", "never written");
    run_planted(*state, "unwritten_scalar", "never written");
    run_planted(*state, "unwritten_branch", "branch on scc");
}

static void test_unknown_instruction(void **state)
{
    run_planted(*state, "not_emulated", "unknown instruction at code+0x");
    run_planted(*state, "not_emulated",
                strncmp(*state, "gfx9", 4) == 0 ? "buffer_atomic_add" : "image_load");
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "global bounds", test_global_bounds, "gfx");
    add_test(&s, "LDS bounds", test_shared_bounds, "gfx");
    add_test(&s, "unwritten LDS", test_shared_unwritten, "gfx");
    add_test(&s, "missing barrier", test_missing_barrier, "gfx");
    add_test(&s, "misaligned", test_misaligned, "gfx");
    add_test(&s, "trap", test_trap, "gfx");
    static const char *const families[] = {"gfx9", "gfx10", "gfx11", "gfx12"};
    for (int i = 0; i < 4; i++) {
        add_test(&s, "waits", test_waits, families[i]);
        add_test(&s, "unwritten registers", test_unwritten_registers, families[i]);
        add_test(&s, "unknown instruction", test_unknown_instruction, families[i]);
    }
    return run_suite(&s, "amdgpu faults");
}
