/* Loading code objects: facts of the metadata, offload bundles, and damaged files, which must be
 * refused or load, never crash. */
#include "support.h"

static uint8_t *read_object(const char *target, size_t *size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/memory.%s.co", AMDGPU_KERNELS, target);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing", path);
    uint8_t *data = calloc(1, 1 << 18);
    assert_non_null(data);
    *size = fread(data, 1, 1 << 18, f);
    fclose(f);
    return data;
}

static void test_facts(void **state)
{
    struct object o;
    uint64_t address, size;
    object_open(&o, "memory", *state);
    assert_string_equal(amdgpu_module_target(o.module), *state);
    assert_int_equal(amdgpu_module_kernel_count(o.module), 8);
    const struct amdgpu_kernel *k = amdgpu_module_kernel(o.module, "transpose");
    assert_non_null(k);
    assert_int_equal(k->lds_size, 16 * 17 * 4);
    assert_int_equal(k->kernarg_size >= 16, 1);
    assert_int_equal(k->max_workgroup, 256);
    assert_int_equal(k->explicit_args, 2);
    assert_int_equal(k->args[1].offset, 8);
    assert_string_equal(k->args[1].kind, "global_buffer");
    assert_int_equal(k->wave_size, wave_size(*state));
    assert_true(amdgpu_module_symbol(o.module, "transpose.kd", &address, &size));
    assert_int_equal(size, 64);
    assert_true(address == k->descriptor);
    assert_null(amdgpu_module_kernel(o.module, "absent"));
    struct amdgpu_occupancy full = amdgpu_occupancy(o.module, k, 256, 0);
    struct amdgpu_occupancy one = amdgpu_occupancy(o.module, k, 256, 60000);
    assert_true(full.waves_per_simd > one.waves_per_simd);
    object_close(&o);
}

/* Two entries, the second for this target: the loader picks it by name. */
static void test_bundle(void **state)
{
    static const char magic[] = "__CLANG_OFFLOAD_BUNDLE__";
    struct amdgpu_memory *memory = amdgpu_memory_open();
    char error[512] = "", id[64];
    size_t size;
    uint8_t *object = read_object(*state, &size), *bundle = calloc(1, size + 8192);
    assert_non_null(bundle);
    int length = snprintf(id, sizeof id, "hipv4-amdgcn-amd-amdhsa--%s", (const char *)*state);
    uint64_t count = 2, host[] = {4096, 0, 4}, entry[] = {4096, size, (uint64_t)length};
    memcpy(bundle, magic, 24);
    memcpy(bundle + 24, &count, 8);
    memcpy(bundle + 32, host, 24);
    memcpy(bundle + 56, "host", 4);
    memcpy(bundle + 60, entry, 24);
    memcpy(bundle + 84, id, (size_t)length);
    memcpy(bundle + 4096, object, size);
    struct amdgpu_module *m =
        amdgpu_module_load(bundle, size + 4096, *state, memory, error, sizeof error);
    if (!m) fail_msg("%s", error);
    amdgpu_module_close(&m);
    m = amdgpu_module_load(bundle, size + 4096, "gfx906", memory, error, sizeof error);
    assert_null(m);
    assert_non_null(strstr(error, "bundle"));
    free(bundle);
    free(object);
    amdgpu_memory_close(&memory);
}

static void test_damaged(void **state)
{
    struct amdgpu_memory *memory = amdgpu_memory_open();
    char error[512];
    size_t size, refused = 0;
    uint64_t seed = 77;
    uint8_t *good = read_object(*state, &size), *bad = malloc(size);
    assert_non_null(bad);
    for (size_t cut = 0; cut < size; cut += size / 50 + 1) {
        struct amdgpu_module *m = amdgpu_module_load(good, cut, NULL, memory, error, sizeof error);
        refused += m == NULL;
        amdgpu_module_close(&m);
    }
    assert_true(refused >= 45);     /* the tail may be sections that nobody needs */
    for (int n = 0; n < 300; n++) { /* bytes of the headers, symbols and notes */
        memcpy(bad, good, size);
        for (int k = 0; k < 4; k++) bad[next_random(&seed) % 0x900] = (uint8_t)next_random(&seed);
        struct amdgpu_module *m = amdgpu_module_load(bad, size, NULL, memory, error, sizeof error);
        amdgpu_module_close(&m);
    }
    free(bad);
    free(good);
    amdgpu_memory_close(&memory);
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "facts", test_facts, "gfx");
    add_test(&s, "bundle", test_bundle, "gfx");
    add_test(&s, "damaged", test_damaged, "gfx1100");
    add_test(&s, "damaged", test_damaged, "gfx942");
    return run_suite(&s, "amdgpu load");
}
