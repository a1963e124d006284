/* overrides.c: each environment name of overrides.def on the GPUs under test. With a file of the
 * row's own its problems are right. With that file cut short, another row's, another arch's or none
 * they are refused by a sentence that names the variable: so it is that file that runs.
 *
 *   RAPT_OBJECTS   folder of ROW_ARCH.co (default: those that the library was built from) */
#include "devices.h"

#include <unistd.h>

static const struct {
    const char *row, *stem;
} names[] = {
#define OVERRIDE(name, stem) {#name, #stem},
#include "gpu/overrides.def"
#undef OVERRIDE
};
enum { NAMES = sizeof names / sizeof *names, PATH = 512 };

/* What a row is tried with, in each type. */
static const struct {
    const char *row, *op, *rest;
} problems[NAMES] = {
    {"softmax", "softmax", "b2 h3 q17 kv100"},
    {"rope", "rope", "b2 h4 q33 d64"},
    {"qk", "qk", "b2 h6/2 q17 kv33 d64"},
    {"pv", "pv", "b2 h6/2 q17 kv33 d64"},
    {"flash_nocausal", "forward", "b2 h6/2 q33 kv65 d64 kernel=flash_nocausal"},
    {"causal_mask", "causal_mask", "b2 h3 q17 kv33"},
    {"flash_causal", "forward", "b2 h6/2 q33 kv65 d64 causal kernel=flash_causal"},
    {"flash", "forward", "b2 h6/2 q33 kv65 d64 causal softcap30 sink alibi kernel=flash"},
    {"kv_replicate", "kv_replicate", "b2 h6/2 kv33 d64"},
};

static void line_of(const char *row, const char *dtype, char line[256])
{
    line[0] = 0;
    for (int i = 0; i < NAMES; i++)
        if (!strcmp(problems[i].row, row))
            snprintf(line, 256, "%s %s %s", problems[i].op, dtype, problems[i].rest);
    assert_true(line[0]);
}

static int exists(const char *path)
{
    FILE *file = fopen(path, "rb");
    int some = file && fgetc(file) != EOF;
    if (file) fclose(file);
    return some;
}

/* The object of a row that the device uses (used 1) or that it cannot, of another arch. 0: none is
 * here. */
static int object_of(const rapt_device *device, const char *row, int used, char path[PATH])
{
    const char *folder = getenv("RAPT_OBJECTS");
    rapt_device_info info = info_of(device);
    rapt_kernel_info k = {.struct_size = sizeof k};
    for (int64_t i = 0; !rapt_kernel_at(context, i, &k); i++) {
        if (strcmp(k.backend, info.backend) || strcmp(k.name, row) || k.present != used ||
            !strncmp(k.arch, "compute", 7))
            continue;
        snprintf(path, PATH, "%s/%s_%s.co", folder ? folder : RAPT_BUILD_FOLDER "/gpu", row,
                 k.arch);
        if (exists(path)) return 1;
    }
    return 0;
}

/* A context of its own, in which the variable names the file; the same device in it. */
static rapt_context *open_with(const rapt_device *like, const char *variable, const char *path,
                               rapt_device **device)
{
    rapt_context *own = NULL;
    setenv(variable, path, 1);
    rapt_status status = rapt_open(&own, NULL);
    unsetenv(variable);
    expect_ok(status, like, "rapt_open");
    *device = NULL;
    for (int i = 0; i < rapt_device_count(own); i++) {
        rapt_device_info a = info_of(rapt_device_at(own, i)), b = info_of(like);
        if (!strcmp(a.backend, b.backend) && a.index == b.index) *device = rapt_device_at(own, i);
    }
    assert_non_null(*device);
    return own;
}

static void serves(const rapt_device *like, const char *row, const char *variable, const char *path)
{
    static const char *const dtypes[] = {"f32", "f16", "bf16"};
    rapt_device *device;
    rapt_context *own = open_with(like, variable, path, &device);
    for (int i = 0; i < 3; i++) {
        struct problem_instance instance;
        char line[256];
        line_of(row, dtypes[i], line);
        build(line, &instance);
        run_on(device, &instance);
        problem_free(&instance);
    }
    rapt_close(&own);
}

/* Refused with "VARIABLE: ... words ...". */
static void refused(const rapt_device *like, const char *row, const char *variable,
                    const char *path, const char *words)
{
    struct problem_instance instance;
    struct problem_device on;
    rapt_device *device;
    char line[256];
    rapt_context *own = open_with(like, variable, path, &device);
    line_of(row, "f32", line);
    build(line, &instance);
    expect_ok(problem_upload(&instance, device, &on), device, line);
    rapt_status status = problem_run(&on, instance.line.op, NULL);
    if (!status || !strstr(rapt_last_error(), variable) || !strstr(rapt_last_error(), words))
        fail_msg("%s=%s: status %d, not \"%s\": %s", variable, path, (int)status, words,
                 rapt_last_error());
    print_message("# %s\n", rapt_last_error());
    problem_device_free(&on);
    problem_free(&instance);
    rapt_close(&own);
}

/* The first bytes of a file as a file of its own. */
static void cut(const char *path, const char *to)
{
    char bytes[2000];
    FILE *from = fopen(path, "rb"), *file = fopen(to, "wb");
    assert_non_null(from);
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, fread(bytes, 1, sizeof bytes, from), file), sizeof bytes);
    assert_int_equal(fclose(file), 0);
    fclose(from);
}

static void one_name(const rapt_device *device, const char *row, const char *stem)
{
    int cuda = !strcmp(info_of(device).backend, "cuda");
    char variable[64], own[PATH], other[PATH], label[64], cut_file[PATH];
    const char *another = strcmp(row, "softmax") ? "softmax" : "rope";
    snprintf(cut_file, sizeof cut_file, RAPT_BUILD_FOLDER "/tests/e2e/cut.%d.co", (int)getpid());
    snprintf(variable, sizeof variable, "%s_%s", stem, cuda ? "CUBIN" : "HSACO");
    snprintf(label, sizeof label, "does not load on %s:%d", info_of(device).backend,
             (int)info_of(device).index);
    if (!object_of(device, row, 1, own) || !object_of(device, another, 1, other))
        fail_msg("no object of %s or %s", row, another);
    serves(device, row, variable, own);
    refused(device, row, variable, RAPT_BUILD_FOLDER "/no such file", "No such file");
    refused(device, row, variable, other, "has no usable entry point");
    cut(own, cut_file);
    refused(device, row, variable, cut_file, "is cut short");
    remove(cut_file);
    if (object_of(device, row, 0, other)) refused(device, row, variable, other, label);
    else print_message("# %s: no object of another arch here\n", variable);
}

static void nine_names(void **state)
{
    (void)state;
    assert_int_equal(NAMES, 9);
    for_each_device(device)
    {
        for (int i = 0; i < NAMES && is_gpu(device); i++)
            one_name(device, names[i].row, names[i].stem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nine_names)};
    return run_end_to_end("overrides", tests, true);
}
