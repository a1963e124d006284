/* See support.h. */
#include "support.h"

static const char *const targets[] = {"gfx90a",  "gfx942",  "gfx950",  "gfx1030",
                                      "gfx1100", "gfx1151", "gfx1200", "gfx1201"};

static void *read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    void *data = n > 0 ? malloc((size_t)n) : NULL;
    *size = data ? fread(data, 1, (size_t)n, f) : 0;
    fclose(f);
    return data;
}

void object_open(struct object *o, const char *name, const char *target)
{
    char path[512];
    size_t size = 0;
    memset(o, 0, sizeof *o);
    snprintf(path, sizeof path, "%s/%s.%s.co", AMDGPU_KERNELS, name, target);
    void *data = read_all(path, &size);
    if (!data) fail_msg("%s is missing", path);
    o->memory = amdgpu_memory_open();
    assert_non_null(o->memory);
    o->module = amdgpu_module_load(data, size, target, o->memory, o->error, sizeof o->error);
    free(data);
    if (!o->module) fail_msg("%s: %s", path, o->error);
    o->options = amdgpu_default_options();
    o->options.check_races = true;
}

void object_close(struct object *o)
{
    amdgpu_module_close(&o->module);
    amdgpu_memory_close(&o->memory);
    for (int i = 0; i < o->buffer_count; i++) free(o->buffers[i]);
}

void *buffer(struct object *o, size_t size)
{
    assert_in_range(o->buffer_count, 0, MAX_BUFFERS - 1);
    void *p = aligned_alloc(256, (size + 4096) / 256 * 256);
    assert_non_null(p);
    memset(p, 0, size);
    assert_true(amdgpu_memory_add(o->memory, p, size, "test buffer"));
    o->buffers[o->buffer_count++] = p;
    return p;
}

void clear_args(struct object *o)
{
    o->args_size = 0;
}

void arg(struct object *o, const void *value, size_t size)
{
    size_t align = size > 8 ? 8 : size;
    o->args_size = (o->args_size + align - 1) / align * align;
    memcpy(o->args + o->args_size, value, size);
    o->args_size += size;
}

void arg_pointer(struct object *o, const void *p)
{
    arg(o, &p, sizeof p);
}

void arg_int(struct object *o, int x)
{
    arg(o, &x, sizeof x);
}

static bool dispatch(struct object *o, const char *kernel, const uint32_t grid[3],
                     const uint32_t block[3], uint32_t lds)
{
    struct amdgpu_dispatch d = {.module = o->module,
                                .memory = o->memory,
                                .args = o->args,
                                .args_size = o->args_size,
                                .dynamic_lds = lds};
    d.kernel = amdgpu_module_kernel(o->module, kernel);
    if (!d.kernel) fail_msg("no kernel %s", kernel);
    memcpy(d.grid, grid, sizeof d.grid);
    memcpy(d.block, block, sizeof d.block);
    o->error[0] = 0;
    return amdgpu_launch(&d, &o->options, &o->stats, o->error, sizeof o->error);
}

bool launch(struct object *o, const char *kernel, uint32_t groups, uint32_t threads,
            uint32_t dynamic_lds)
{
    return dispatch(o, kernel, (uint32_t[3]){groups, 1, 1}, (uint32_t[3]){threads, 1, 1},
                    dynamic_lds);
}

bool launch3(struct object *o, const char *kernel, const uint32_t grid[3], const uint32_t block[3])
{
    return dispatch(o, kernel, grid, block, 0);
}

uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64, Marsaglia 2003 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

void add_test(struct suite *s, const char *name, CMUnitTestFunction test, const char *only)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        char full[96];
        if (strncmp(targets[i], only, strlen(only)) != 0 || s->count == MAX_TESTS) continue;
        snprintf(full, sizeof full, "%s %s", name, targets[i]);
        s->tests[s->count++] = (struct CMUnitTest){.name = strdup(full),
                                                   .test_func = test,
                                                   .initial_state = (void *)(uintptr_t)targets[i]};
    }
}

int run_suite(struct suite *s, const char *name)
{
    int failed = _cmocka_run_group_tests(name, s->tests, (size_t)s->count, NULL, NULL);
    for (int i = 0; i < s->count; i++) free((void *)(uintptr_t)s->tests[i].name);
    return failed;
}

int wave_size(const char *target)
{
    struct amdgpu_device_info info;
    assert_true(amdgpu_device_info(target, &info));
    return info.wave_size;
}
