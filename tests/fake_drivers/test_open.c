/* test_open.c: what rapt says when there is no driver, an old one, a broken one, no device, a
 * device without code objects or a bad file. Linked without any code object (mk/gpu.mk). */
#include "session.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char memory[4 << 18];

/* Sentences that each vendor words in its own way. */
static const char *of(const struct stand_in *v, const char *cuda, const char *hip)
{
    return v == &vendors[0] ? cuda : hip;
}

static const char *note_start(const struct stand_in *v)
{
    return of(v, "cuda: ", "hip: ");
}

/* The note of the vendor's backend in a context that has the CPU too. */
static void expect_note(const struct stand_in *v, const char *expected)
{
    rapt_context *context = NULL;
    char list[32];
    const char *name = NULL, *note = NULL;
    snprintf(list, sizeof list, "%s,cpu", v->name);
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = list};
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_int_equal(rapt_device_count(context), 1);
    for (int i = 0; (note = rapt_backend_note(context, i, &name)); i++)
        if (!strcmp(name, v->name)) break;
    if (!note || !says(note, expected)) print_error("note: %s\n", note ? note : "none");
    assert_non_null(note);
    assert_true(says(note, expected));
    rapt_close(&context);
    config.backends = v->name;
    assert_int_equal(rapt_open(&context, &config), RAPT_NO_DEVICE);
    assert_null(context);
    assert_true(says(rapt_last_error(), "rapt_open: no device (*)"));
    assert_non_null(strstr(rapt_last_error(), note_start(v)));
    assert_null(strstr(rapt_last_error(), "not opened")); /* nothing of those not asked for */
}

/* The note about a device that stays in the list without a kernel of its own. */
static void expect_no_objects(const struct stand_in *v, const rapt_context *context,
                              const char *arch)
{
    char expected[128];
    const char *name, *note;
    snprintf(expected, sizeof expected,
             "%s:0: Fake %sGPU 0, %s, has no code object in this library", v->name,
             of(v, "", "gfx "), arch);
    for (int i = 0; (note = rapt_backend_note(context, i, &name)); i++)
        if (!strcmp(name, v->name)) break;
    if (!note || strcmp(note, expected)) print_error("note: %s\n", note ? note : "none");
    assert_non_null(note);
    assert_string_equal(note, expected);
}

static void no_driver(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    setenv(v->library_variable, "/nonexistent/driver.so", 1);
    expect_note(v, of(v, "cuda: no driver (*/nonexistent/driver.so*)",
                      "hip: no runtime (*/nonexistent/driver.so*)"));
    session_end(v);
}

/* named: RAPT_*_LIBRARY and ROCM_PATH are there but empty, which is as if they were not. */
static void no_library(const struct stand_in *v, int named)
{
    session_begin(v);
    unsetenv(v->library_variable);
    if (named) setenv(v->library_variable, "", 1);
    setenv("ROCM_PATH", named ? "" : "/nonexistent/rocm", 1);
    rapt_context *context = NULL;
    assert_int_equal(rapt_open(&context, NULL),
                     RAPT_OK); /* a machine without this vendor still has its CPU */
    assert_true(rapt_device_count(context) >= 1);
    /* Neighbours that fail alike share one reason, so that the sentence is short and whole. */
    const char *note = rapt_backend_note(context, v == &vendors[0] ? 0 : 1, NULL);
    assert_null(strstr(note, "the library has no")); /* "" is no library: it is the program */
    if (strstr(note, of(v, "no driver (", "no runtime ("))) { /* else this machine has one */
        assert_true(says(note, of(v, "cuda: no driver (libcuda.so.1, libcuda.so: *)",
                                  named ? "hip: no runtime (libamdhip64.so.7, *, "
                                          "/opt/rocm/lib/libamdhip64.so: *)"
                                        : "hip: no runtime (/nonexistent/rocm/lib/"
                                          "libamdhip64.so.7, *, /opt/rocm/lib/libamdhip64.so: "
                                          "*)")));
        const char *reason = strstr(note, "libamdhip64.so: ");
        assert_true(!reason || !strstr(reason + 1, "libamdhip64"));
    }
    rapt_close(&context);
    unsetenv("ROCM_PATH");
    session_end(v);
}

static void no_library_at_all(void **state)
{
    no_library(*state, 0);
    no_library(*state, 1);
}

/* The one library below ROCM_PATH, under one of its names, beside a broken one of an older name
 * (NULL: none). */
static void below_rocm_path(const struct stand_in *v, const char *name, const char *older)
{
    char folder[256], path[512], target[PATH_MAX];
    session_begin(v);
    unsetenv(v->library_variable);
    snprintf(folder, sizeof folder, RAPT_BUILD_FOLDER "/tests/fake_drivers/rocm.%d", (int)getpid());
    assert_int_equal(mkdir(folder, 0700), 0);
    setenv("ROCM_PATH", folder, 1);
    snprintf(path, sizeof path, "%s/lib", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_non_null(realpath(v->library, target));
    snprintf(path, sizeof path, "%s/lib/%s", folder, name);
    assert_int_equal(symlink(target, path), 0);
    if (older) {
        snprintf(path, sizeof path, "%s/lib/%s", folder, older);
        assert_non_null(realpath(v->broken_library, target));
        assert_int_equal(symlink(target, path), 0);
    }
    rapt_context *context = session_open(v);
    rapt_device_info info = {.struct_size = sizeof info};
    assert_int_equal(rapt_device_describe(rapt_device_at(context, 0), &info), RAPT_OK);
    assert_non_null(strstr(info.name, "Fake"));
    rapt_close(&context);
    if (older) assert_int_equal(remove(path), 0);
    snprintf(path, sizeof path, "%s/lib/%s", folder, name);
    assert_int_equal(remove(path), 0);
    snprintf(path, sizeof path, "%s/lib", folder);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(folder), 0);
    unsetenv("ROCM_PATH");
    session_end(v);
}

/* Without RAPT_HIP_LIBRARY, the newest version of the library below ROCM_PATH. */
static void rocm_path(void **state)
{
    below_rocm_path(*state, "libamdhip64.so.7", "libamdhip64.so.6");
    below_rocm_path(*state, "libamdhip64.so.6", "libamdhip64.so.5");
    below_rocm_path(*state, "libamdhip64.so.5", "libamdhip64.so");
    below_rocm_path(*state, "libamdhip64.so", NULL);
}

/* The newest version that is refused and the oldest that is not. */
static void old_driver(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->version = v->old_version;
    expect_note(v, of(v, "cuda: the driver supports CUDA 11.4 (12.0 or newer is needed)",
                      "hip: the runtime is ROCm 4.3 (5.0 or newer is needed)"));
    fake->version = v == &vendors[0] ? 11080 : 49999999;
    expect_note(v, of(v, "cuda: the driver supports CUDA 11.8 (12.0 or newer is needed)",
                      "hip: the runtime is ROCm 4.99 (5.0 or newer is needed)"));
    fake->version = v == &vendors[0] ? 12000 : 50000000;
    rapt_context *context = session_open(v);
    rapt_close(&context);
    session_end(v);
}

/* An error that the driver has no words for. */
static void wordless_error(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->fail_at = fake->calls + 1;
    fake->fail_code = FAKE_WORDLESS;
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    assert_int_equal(rapt_open(&context, &config), RAPT_NO_DEVICE);
    assert_non_null(strstr(rapt_last_error(), of(v, "cuInit: failed (unknown error, no name)",
                                                 "hipInit: failed (unknown error, no name)")));
    session_end(v);
}

static void broken_library(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    setenv(v->library_variable, v->broken_library, 1);
    expect_note(v, of(v, "cuda: the library has no cuInit (it is too old or no driver)",
                      "hip: the library has no hipInit (it is too old or no driver)"));
    session_end(v);
}

/* One of two names of a function must be there. */
static void library_without_properties(void **state)
{
    const struct stand_in *v = *state;
    session_begin(v);
    setenv(v->library_variable, RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64_none.so", 1);
    expect_note(v, "hip: the library has no hipGetDeviceProperties (it is too old or no driver)");
    session_end(v);
}

/* Either name will do. An arch that has no form of one is told as such. */
static void either_properties(void **state)
{
    static const char *const libraries[] = {
        RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64_5.so",
        RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64_7.so"};
    struct stand_in own = *(const struct stand_in *)*state, *v = &own;
    for (int i = 0; i < 2; i++)
        for (int known = 0; known < 2; known++) {
            v->library = libraries[i];
            struct fake *fake = session_begin(v);
            if (!known) snprintf(fake->arch, sizeof fake->arch, "navi31");
            rapt_context *context = session_open(v);
            rapt_device_info info = {.struct_size = sizeof info};
            assert_int_equal(rapt_device_describe(rapt_device_at(context, 0), &info), RAPT_OK);
            assert_string_equal(info.arch, known ? v->arch : "unknown");
            rapt_close(&context);
            session_end(v);
        }
}

static void no_device(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->devices = 0;
    expect_note(v, of(v, "cuda: the driver sees no device", "hip: the runtime sees no device"));
    fake->fail_at =
        fake->calls + 1; /* the driver's initialisation, as on a machine whose GPU is gone */
    fake->fail_code = FAKE_NO_DEVICE;
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    assert_int_equal(rapt_open(&context, &config), RAPT_NO_DEVICE);
    assert_non_null(
        strstr(rapt_last_error(), of(v, "cuda: cuInit: failed (", "hip: hipInit: failed (")));
    assert_true(says(rapt_last_error(), "rapt_open: no device (*)"));
    fake->fail_at = fake->calls + 1;
    config.backends = of(v, "cuda,cpu", "hip,cpu");
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_true(says(rapt_backend_note(context, v == &vendors[0] ? 0 : 1, NULL),
                     of(v, "cuda: cuInit: failed (*)", "hip: hipInit: failed (*)")));
    rapt_close(&context);
    session_end(v);
}

/* A library that was built without the device's compiler. */
static void absent_objects(void **state)
{
    const struct stand_in *v = *state;
    static const struct {
        const char *kernel, *why;
    } cases[] = {
        {"flash", "is not in this library for * (it was built without that compiler)"},
        {"composed", "has no code object of its pieces for * (this library was built without)"}};
    session_begin(v);
    session_no_overrides(v);
    setenv(of(v, "FLASH_ATTENTION_CUBIN", "FLASH_ATTENTION_HSACO"), "", 1); /* names no file */
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    expect_no_objects(v, context, v->arch);
    for (int i = 0; i < 2; i++) {
        char sentence[512];
        rapt_plan *plan = NULL;
        a.kernel = cases[i].kernel;
        snprintf(sentence, sizeof sentence, "no kernel of %s:0 serves this (%s: %s)", v->name,
                 a.kernel, cases[i].why);
        assert_int_equal(rapt_plan_create(&plan, device, &a), RAPT_UNSUPPORTED);
        if (!says(rapt_last_error(), sentence)) print_error("%s\n", rapt_last_error());
        assert_true(says(rapt_last_error(), sentence));
    }
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED);
    assert_true(says(rapt_last_error(), "rapt_softmax: *, *, has no code object of softmax (this "
                                        "library was built without)"));
    rapt_close(&context);
    session_end(v);
}

/* Without files in their place, the library's own code objects do not fit a device that is too old.
 */
static void unknown_arch(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    session_no_overrides(v);
    snprintf(fake->arch, sizeof fake->arch, "%s", v->old_arch);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_device_info info = {.struct_size = sizeof info};
    assert_int_equal(rapt_device_describe(device, &info), RAPT_OK);
    assert_string_equal(info.arch, v->old_arch);
    expect_no_objects(v, context, v->old_arch);
    rapt_attention a = session_problem(memory);
    rapt_plan *plan;
    assert_int_equal(rapt_plan_create(&plan, device, &a), RAPT_UNSUPPORTED);
    assert_non_null(strstr(rapt_last_error(), v->old_arch));
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_UNSUPPORTED);
    assert_non_null(strstr(rapt_last_error(), v->old_arch));
    rapt_close(&context);
    session_end(v);
}

/* A file runs on whatever device there is: the driver decides. */
static void files_for_an_unknown_arch(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    char text[64];
    snprintf(fake->arch, sizeof fake->arch, "%s", v->old_arch);
    snprintf(text, sizeof text, "fake %s softmax flash", v->old_arch);
    session_override(v, "SOFTMAX", text);
    session_override(v, "FLASH_ATTENTION", text);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = session_problem(memory);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    a.kernel = "flash";
    rapt_plan *plan = NULL;
    if (rapt_plan_create(&plan, device, &a)) fail_msg("%s", rapt_last_error());
    assert_int_equal(rapt_plan_execute(plan, &a, NULL, NULL), RAPT_OK);
    assert_string_equal(fake->launch[0].arch, v->old_arch);
    assert_string_equal(fake->launch[1].name, "flash");
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* A device that its driver cannot describe is left out, and the note says why; the others stay. */
static void a_device_that_fails(void **state)
{
    const struct stand_in *v = *state;
    const char *call = of(v, "cuDeviceTotalMem", "hipDeviceTotalMem"), *note = NULL;
    int found = 0;
    for (int at = 1; at < 32; at++) {
        char expected[128];
        struct fake *fake = session_begin(v);
        fake->devices = 2;
        fake->fail_at = fake->calls + at;
        fake->fail_code = FAKE_LAUNCH_FAILED;
        rapt_context *context = NULL;
        rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
        rapt_status status = rapt_open(&context, &config);
        if (!strcmp(fake->failed, call)) {
            rapt_device_info info = {.struct_size = sizeof info};
            assert_int_equal(status, RAPT_OK);
            assert_int_equal(rapt_device_count(context), 1);
            assert_int_equal(rapt_device_describe(rapt_device_at(context, 0), &info), RAPT_OK);
            assert_int_equal(info.index, !fake->failed_on);
            note = rapt_backend_note(context, v == &vendors[0] ? 0 : 1, NULL);
            snprintf(expected, sizeof expected, "%s: failed on %s:%d (", call, v->name,
                     fake->failed_on);
            assert_non_null(strstr(note, expected));
            found++;
        }
        rapt_close(&context);
        session_end(v);
    }
    assert_int_equal(found, 2);
}

static void several_devices(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->devices = 3;
    rapt_context *context = session_open(v);
    assert_int_equal(rapt_device_count(context), 3);
    assert_int_equal(fake->contexts, 0); /* listing devices takes none of their memory */
    for (int i = 0; i < 3; i++) {
        rapt_device_info info = {.struct_size = sizeof info};
        void *block = NULL;
        assert_int_equal(rapt_device_describe(rapt_device_at(context, i), &info), RAPT_OK);
        assert_int_equal(info.index, i);
        assert_string_equal(info.backend, v->name);
        assert_true(info.memory_bytes > 0 && info.compute_units > 0 && strstr(info.name, "Fake"));
        assert_int_equal(rapt_alloc(rapt_device_at(context, i), 4096, &block), RAPT_OK);
        rapt_free(rapt_device_at(context, i), block);
    }
    rapt_close(&context);
    session_end(v);
}

/* Descriptors of this process below 64. */
static int open_files(void)
{
    int count = 0;
    for (int file = 0; file < 64; file++) count += fcntl(file, F_GETFD) >= 0;
    return count;
}

/* Each bad file is a sentence that names the variable, at plan creation or at the piece's first
 * call. */
static void bad_files(void **state)
{
    const struct stand_in *v = *state;
    const struct {
        const char *text, *expected;
    } files[] = {
        {"", "FLASH_ATTENTION_*: * is no code object (it is empty)"},
        {"\177ELF and no more",
         "FLASH_ATTENTION_*: * is cut short: its head tells of more than it holds"},
        {"fake other_arch flash softmax", "FLASH_ATTENTION_*: * does not load on *, *: *"},
        {"not a code object", "FLASH_ATTENTION_*: * does not load on *, *: *"},
        {"fake ARCH something_else", "FLASH_ATTENTION_*: * has no usable entry point flash: *"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char text[128];
        int open_before = open_files();
        session_begin(v);
        snprintf(text, sizeof text,
                 strcmp(files[i].text, "fake ARCH something_else") ? "%s" : "fake %s other",
                 strcmp(files[i].text, "fake ARCH something_else") ? files[i].text : v->arch);
        session_override(v, "FLASH_ATTENTION", text);
        rapt_context *context = session_open(v);
        rapt_attention a = session_problem(memory);
        a.kernel = "flash";
        rapt_plan *plan;
        assert_int_not_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_OK);
        assert_null(plan);
        if (!says(rapt_last_error(), files[i].expected)) print_error("%s\n", rapt_last_error());
        assert_true(says(rapt_last_error(), files[i].expected));
        rapt_close(&context);
        session_end(v);
        assert_int_equal(open_files(), open_before);
    }
}

static void missing_file(void **state)
{
    const struct stand_in *v = *state;
    char variable[64];
    session_begin(v);
    snprintf(variable, sizeof variable, "SOFTMAX_%s", v->suffix);
    setenv(variable, "/nonexistent/softmax", 1);
    rapt_context *context = session_open(v);
    rapt_attention a = session_problem(memory);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
    assert_int_not_equal(rapt_softmax(rapt_device_at(context, 0), &softmax, NULL), RAPT_OK);
    assert_non_null(strstr(rapt_last_error(), variable));
    assert_non_null(strstr(rapt_last_error(), "/nonexistent/softmax"));
    rapt_kernel_info info = {.struct_size = sizeof info};
    int shown = 0;
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++)
        shown += !strcmp(info.name, "softmax") && info.override &&
                 !strcmp(info.override, "/nonexistent/softmax");
    assert_true(shown > 0);
    rapt_close(&context);
    session_end(v);
}

/* The first call that needs the code object of one of the nine replaceable rows. */
static rapt_status use_row(rapt_device *device, const char *row)
{
    rapt_attention a = session_problem(memory);
    rapt_tensor scores = rapt_tensor_bhtd(memory, RAPT_F32, 2, 4, 64, 96);
    rapt_tensor wide = rapt_tensor_bhtd(memory, RAPT_F16, 2, 4, 96, 64);
    rapt_qk_args qk = {.struct_size = sizeof qk, .q = a.q, .k = a.k, .out = scores};
    rapt_pv_args pv = {.struct_size = sizeof pv, .weights = scores, .v = a.v, .out = a.out};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = scores, .out = scores};
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = scores};
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = a.q, .out = a.q};
    rapt_kv_replicate_args copy = {
        .struct_size = sizeof copy, .k = a.k, .v = a.v, .k_out = wide, .v_out = wide};
    copy.v_out.data = memory + (3 << 18);
    if (!strcmp(row, "qk")) {
        qk.out.data = memory + (3 << 18);
        return rapt_qk(device, &qk, NULL);
    }
    if (!strcmp(row, "pv")) return rapt_pv(device, &pv, NULL);
    if (!strcmp(row, "softmax")) return rapt_softmax(device, &softmax, NULL);
    if (!strcmp(row, "causal_mask")) return rapt_causal_mask(device, &mask, NULL);
    if (!strcmp(row, "rope")) return rapt_rope(device, &rope, NULL);
    if (!strcmp(row, "kv_replicate")) return rapt_kv_replicate(device, &copy, NULL);
    rapt_plan *plan = NULL;
    a.kernel = row;
    a.causal = !strcmp(row, "flash_causal");
    rapt_status status = rapt_plan_create(&plan, device, &a);
    rapt_plan_destroy(&plan);
    return status;
}

/* How many rows, and whether all of that name, the context shows as replaced by the file. */
static int shown(const struct stand_in *v, rapt_context *context, const char *row, const char *file)
{
    rapt_kernel_info info = {.struct_size = sizeof info};
    int count = 0;
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++) {
        if (strcmp(info.backend, v->name) || strcmp(info.name, row)) continue;
        assert_non_null(info.override);
        assert_string_equal(info.override, file);
        count++;
    }
    return count;
}

/* One row's file is missing, of another architecture or without its symbol: the context shows it,
 * and its use is refused by a sentence that names variable, file and what is wrong. */
static void replaced_badly(const struct stand_in *v, const char *row, const char *stem)
{
    char variable[64], text[128], sentence[512];
    snprintf(variable, sizeof variable, "%s_%s", stem, v->suffix);
    for (int i = 0; i < 3; i++) {
        session_begin(v);
        if (i == 2) snprintf(text, sizeof text, "fake %s something_else", v->arch);
        else snprintf(text, sizeof text, "fake other_arch %s", row);
        if (i) session_override(v, stem, text);
        else setenv(variable, "/nonexistent/object", 1);
        const char *file = getenv(variable);
        rapt_context *context = session_open(v);
        assert_true(shown(v, context, row, file) > 0);
        if (!i)
            snprintf(sentence, sizeof sentence,
                     "%s: %s is no code object (No such file or directory)", variable, file);
        else if (i == 1)
            snprintf(sentence, sizeof sentence,
                     "%s: %s does not load on %s:0, %s: %s: failed on %s:0 (*)", variable, file,
                     v->name, v->arch, of(v, "cuModuleLoadData", "hipModuleLoadData"), v->name);
        else
            snprintf(sentence, sizeof sentence,
                     "%s: %s has no usable entry point %s: %s: failed on %s:0 (*)", variable, file,
                     row, of(v, "cuModuleGetFunction", "hipModuleGetFunction"), v->name);
        rapt_status status = use_row(rapt_device_at(context, 0), row);
        if (!status || !says(rapt_last_error(), sentence))
            print_error("%s, case %d: %s\n", variable, i, rapt_last_error());
        assert_int_equal(status, i ? RAPT_DRIVER : RAPT_INVALID);
        assert_true(says(rapt_last_error(), sentence));
        rapt_close(&context);
        session_end(v);
    }
}

static void every_variable(void **state)
{
    const struct stand_in *v = *state;
    int count = 0;
#define OVERRIDE(name, stem) replaced_badly(v, #name, #stem), count++;
#include "gpu/overrides.def"
#undef OVERRIDE
    assert_int_equal(count, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(no_driver),
        BOTH(no_library_at_all),
        {"hip: rocm_path", rocm_path, NULL, NULL, (void *)&vendors[1]},
        BOTH(old_driver),
        BOTH(wordless_error),
        BOTH(broken_library),
        BOTH(no_device),
        BOTH(absent_objects),
        BOTH(unknown_arch),
        {"hip: library_without_properties", library_without_properties, NULL, NULL,
         (void *)&vendors[1]},
        {"hip: either_properties", either_properties, NULL, NULL, (void *)&vendors[1]},
        BOTH(files_for_an_unknown_arch),
        BOTH(a_device_that_fails),
        BOTH(several_devices),
        BOTH(bad_files),
        BOTH(missing_file),
        BOTH(every_variable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
