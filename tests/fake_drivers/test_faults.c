/* test_faults.c: a whole session on two devices with every driver call failing once, and with every
 * host allocation failing once: a status and a sentence that names the call and the device, nothing
 * leaked, nothing crashed. */
#include "session.h"

#include <stdio.h>

static _Alignas(256) char memory[5 << 18];

/* Host allocations of the library go through these (linked with --wrap). */
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __real_free(void *block);
void __wrap_free(void *block);
void *__real_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags);
int __real_dlclose(void *library);
int __wrap_dlclose(void *library);

static int allocations, failing_allocation, alive, libraries; /* alive: blocks of the library */
/* Of the session last run: driver calls before closing; the device in use when a call was made to
 * fail, NO_DEVICE while opening. */
static int calls_before_close, used_at_failure;

static int allocation_fails(void)
{
    return ++allocations == failing_allocation;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    void *block = allocation_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
    alive += block != NULL;
    return block;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    void *block = allocation_fails() ? NULL : __real_realloc(old, bytes);
    alive += block && !old;
    return block;
}

void __wrap_free(void *block)
{
    alive -= block != NULL;
    __real_free(block);
}

void *__wrap_dlopen(const char *name, int flags)
{
    void *library = __real_dlopen(name, flags);
    libraries += library != NULL;
    return library;
}

int __wrap_dlclose(void *library)
{
    libraries--;
    return __real_dlclose(library);
}

/* The first failure of a session: its status and sentence. */
struct outcome {
    rapt_status status;
    char sentence[512];
};

static int step(struct outcome *o, rapt_status status)
{
    if (status && !o->status) {
        o->status = status;
        snprintf(o->sentence, sizeof o->sentence, "%s", rapt_last_error());
    }
    return status == RAPT_OK;
}

static void attend(struct outcome *o, rapt_device *device, rapt_attention a)
{
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    a.causal = 1;
    if (step(o, rapt_plan_create(&plan, device, &a))) {
        if (step(o, rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace)))
            step(o, rapt_plan_execute(plan, &a, workspace, NULL));
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
    } else {
        assert_null(plan);
    }
    step(o, rapt_forward(device, &a, NULL));
}

/* One problem for each way to launch: with tensor maps, in parts of 16 bits with a companion, in parts
 * of the keys, and without any. */
static void attend_all(struct outcome *o, rapt_device *device)
{
    rapt_attention a = session_problem(memory), wide = {.struct_size = sizeof wide}, few = wide;
    wide.q = rapt_tensor_bhtd(memory, RAPT_F32, 1, 2, 256, 128);
    wide.k = rapt_tensor_bhtd(memory + (1 << 18), RAPT_F32, 1, 2, 256, 128);
    wide.v = rapt_tensor_bhtd(memory + (2 << 18), RAPT_F32, 1, 2, 256, 128);
    wide.out = rapt_tensor_bhtd(memory + (3 << 18), RAPT_F32, 1, 2, 256, 128);
    attend(o, device, a);
    attend(o, device, wide);
    few.q = few.out = rapt_tensor_bhtd(memory, RAPT_F32, 1, 2, 1, 128);
    few.out.data = memory + (3 << 18);
    few.k = few.v = rapt_tensor_bhtd(memory + (1 << 18), RAPT_F32, 1, 1, 512, 128);
    few.kernel = "decode_d128";
    attend(o, device, few);
    a.kernel = "flash";
    attend(o, device, a);
    a.kernel = "composed";
    attend(o, device, a);
}

static void use(struct outcome *o, rapt_device *device)
{
    void *block = NULL;
    char bytes[64] = {0};
    rapt_tensor x = rapt_tensor_bthd(memory, RAPT_F32, 1, 4, 8, 64);
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = x, .out = x};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
    attend_all(o, device);
    if (step(o, rapt_alloc(device, sizeof bytes, &block))) {
        step(o, rapt_copy(device, block, bytes, sizeof bytes, NULL));
        rapt_free(device, block);
    }
    step(o, rapt_rope(device, &rope, NULL));
    step(o, rapt_softmax(device, &softmax, NULL));
    step(o, rapt_synchronize(device, NULL));
}

/* Opens two devices and uses them, the second first, as far as it gets. note: the backend's note.
 */
static struct outcome session(const struct stand_in *v, const struct fake *fake, char note[512])
{
    struct outcome o = {RAPT_OK, ""};
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    note[0] = 0;
    used_at_failure = NO_DEVICE;
    alive = libraries = 0;
    if (step(&o, rapt_open(&context, &config))) {
        const char *name, *text;
        for (int i = 0; (text = rapt_backend_note(context, i, &name)); i++)
            if (!strcmp(name, v->name)) snprintf(note, 512, "%s", text);
        for (int i = rapt_device_count(context) - 1; i >= 0; i--) {
            int before = fake->failed[0] != 0;
            use(&o, rapt_device_at(context, i));
            if (!before && fake->failed[0]) used_at_failure = i;
        }
    }
    calls_before_close = fake->calls;
    rapt_close(&context);
    assert_null(context);
    assert_int_equal(alive, 0);
    assert_int_equal(libraries, 0);
    return o;
}

/* These cannot report: what they undo is gone all the same. */
static int is_cleanup(const char *call)
{
    static const char *const names[] = {"cuCtxPopCurrent", "cuDevicePrimaryCtxRelease",
                                        "cuModuleUnload",  "cuMemFree",
                                        "hipModuleUnload", "hipFree",
                                        "hipSetDevice",    "cuPointerGetAttribute"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(call, names[i])) return 1;
    return 0;
}

static struct fake *begin(const struct stand_in *v)
{
    struct fake *fake = session_begin(v);
    session_override(v, "FLASH_ATTENTION_CAUSAL", NULL); /* so that the best row serves */
    session_override(v, "FLASH_ATTENTION", NULL);
    session_override(v, "SOFTMAX", NULL); /* which has kernels of other lengths then */
    fake->devices = 2;
    return fake;
}

/* Each driver function that rapt knows was called, but for those that no row needs and those that
 * word an error. */
static void expect_all_called(const struct stand_in *v, const struct fake *fake)
{
    static const struct {
        const char *vendor, *name;
    } functions[] = {
#define CUDA(optional, field, symbol, parameters) {"cuda", #symbol},
#include "gpu/cuda_api.def"
#undef CUDA
#define HIP(optional, field, symbol, type, parameters) {"hip", #symbol},
#include "gpu/hip_api.def"
#undef HIP
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s", functions[i].name);
        char *version = strstr(name, "_v2"), *release = strstr(name, "R0600");
        if (version) *version = 0;
        if (release) *release = 0;
        if (strcmp(functions[i].vendor, v->name) || strstr(name, "GetErrorName") ||
            strstr(name, "GetErrorString"))
            continue;
        if (!session_calls(fake, name)) print_error("%s was not called\n", name);
        assert_true(session_calls(fake, name) > 0);
    }
}

/* The failed call's sentence names it and the device that it was about: "CALL: failed on cuda:1
 * (...)", at the end of what rapt was doing; or, where no device is at stake yet, the vendor. */
static void expect_named(const struct stand_in *v, const struct fake *fake, const char *sentence)
{
    char expected[128];
    int device = fake->failed_on;
    if (device == NO_DEVICE) device = used_at_failure;
    else if (used_at_failure != NO_DEVICE)
        assert_int_equal(device, used_at_failure); /* nothing is asked of another device */
    if (device == NO_DEVICE)
        snprintf(expected, sizeof expected, "%s: %s: failed (", v->name, fake->failed);
    else
        snprintf(expected, sizeof expected, "%s: failed on %s:%d (", fake->failed, v->name, device);
    if (!strstr(sentence, expected))
        print_error("call of %d: not \"%s\" but \"%s\"\n", fake->fail_at, expected, sentence);
    assert_non_null(strstr(sentence, expected));
    assert_true(device == NO_DEVICE || says(sentence, "*: failed on * (*)") ||
                says(sentence, "*: failed on * (*); *")); /* and another device's note */
}

static void every_call_fails_once(void **state)
{
    const struct stand_in *v = *state;
    char note[512];
    struct fake *fake = begin(v);
    struct outcome o = session(v, fake, note);
    if (o.status) print_error("%s\n", o.sentence);
    assert_int_equal(o.status, RAPT_OK);
    expect_all_called(v, fake);
    int calls = fake->calls, frees = 0, rooms = 0,
        reported[3] = {0}; /* without a device, on 0, on 1 */
    session_end(v);
    assert_true(calls > 100);
    for (int code = FAKE_OUT_OF_MEMORY; code <= FAKE_LAUNCH_FAILED;
         code += FAKE_LAUNCH_FAILED - FAKE_OUT_OF_MEMORY)
        for (int i = 1; i <= calls; i++) {
            fake = begin(v);
            fake->fail_at = i;
            fake->fail_code = code;
            o = session(v, fake, note);
            if (o.status || strstr(note, fake->failed)) {
                expect_named(v, fake, o.status ? o.sentence : note);
                int device = fake->failed_on == NO_DEVICE ? used_at_failure : fake->failed_on;
                reported[1 + device]++;
                if (o.status && device != NO_DEVICE)
                    assert_int_equal(o.status,
                                     code == FAKE_OUT_OF_MEMORY ? RAPT_NO_MEMORY : RAPT_DRIVER);
            } else if (code == FAKE_OUT_OF_MEMORY && strstr(fake->failed, "lloc")) {
                rooms++; /* an idle workspace of rapt_forward made room */
            } else if (!is_cleanup(fake->failed) && i <= calls_before_close) {
                /* rapt_free reports nothing, but frees all the same: session_end checks that. */
                assert_true(!strcmp(fake->failed, v->enter) ||
                            !strcmp(fake->failed, "cuCtxPushCurrent"));
                frees++;
            }
            session_end(v);
        }
    print_message("# %s: %d driver calls, each failed twice; reported: %d of the driver, %d of "
                  "device 0, %d of device 1\n",
                  v->name, calls, reported[0], reported[1], reported[2]);
    assert_int_equal(reported[0], 2 * 3); /* start, version, count of devices */
    assert_true(reported[1] > 40 && reported[2] > 40);
    assert_true(rooms > 0 && rooms < 16);
    assert_true(frees < 64); /* two codes, at most so many calls of rapt_free */
}

/* What must have been said when every allocation has failed, of which vendor; NULL: of both. */
static const struct {
    const char *vendor, *sentence;
} sentences[] = {
    {"cuda", "rapt_open: no memory for the CUDA driver's functions (* bytes)"},
    {"hip", "rapt_open: no memory for the HIP runtime's functions (* bytes)"},
    {"hip", "rapt_open: no memory for the properties of hip:*"},
    {"cuda", "rapt_open: no memory for the cuda backend"},
    {"hip", "rapt_open: no memory for the hip backend"},
    {NULL, "rapt_open: no memory for a context (* bytes)"},
    {NULL, "rapt_open: no memory for a list of * devices"},
    {NULL, "rapt_open: no memory for device *:*"},
    {NULL, "rapt_open: no memory for a list of * code objects"},
    {NULL, "rapt_open: no memory for the kernels of *"},
    {NULL, "rapt_open: no memory to keep *"},
    {NULL, "*: no memory for * (* bytes)"},
    {NULL, "*: no memory for a loaded module on *"},
    {NULL, "rapt_plan_create: no memory for a plan (* bytes)"},
    {NULL, "rapt_forward: no memory for a plan (* bytes)"},
    {NULL, "rapt_forward: no memory to keep a plan"},
    {NULL, "rapt_forward: no memory to keep a workspace"},
};
enum { SENTENCES = sizeof sentences / sizeof *sentences };

static void every_allocation_fails_once(void **state)
{
    const struct stand_in *v = *state;
    int said[SENTENCES] = {0};
    char note[512];
    struct fake *fake = begin(v);
    allocations = failing_allocation = 0;
    assert_int_equal(session(v, fake, note).status, RAPT_OK);
    int count = allocations;
    session_end(v);
    assert_true(count > 10);
    for (int i = 1; i <= count; i++) {
        fake = begin(v);
        allocations = 0;
        failing_allocation = i;
        struct outcome o = session(v, fake, note);
        failing_allocation = 0;
        if (o.status != RAPT_NO_MEMORY)
            print_error("allocation %d: %d %s\n", i, (int)o.status, o.sentence);
        assert_int_equal(o.status, RAPT_NO_MEMORY);
        int known = 0;
        for (int n = 0; n < SENTENCES; n++)
            if (says(o.sentence, sentences[n].sentence)) known = said[n] = 1;
        if (!known) print_error("allocation %d: %s\n", i, o.sentence);
        assert_true(known);
        session_end(v);
    }
    for (int n = 0; n < SENTENCES; n++) {
        if (sentences[n].vendor && strcmp(sentences[n].vendor, v->name)) continue;
        if (!said[n]) print_error("%s: never said: %s\n", v->name, sentences[n].sentence);
        assert_true(said[n]);
    }
    print_message("# %s: %d host allocations, each failed once\n", v->name, count);
}

/* A backend that fails ends the call, though the CPU behind it could be opened. */
static void a_failure_is_not_forgotten(void **state)
{
    const struct stand_in *v = *state;
    char list[16];
    int failures = 0;
    snprintf(list, sizeof list, "%s,cpu", v->name);
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = list};
    for (int i = 1, more = 1; more; i++) {
        rapt_context *context;
        begin(v);
        alive = allocations = 0;
        failing_allocation = i;
        rapt_status status = rapt_open(&context, &config);
        more = allocations >= i;
        failing_allocation = 0;
        assert_int_equal(status, more ? RAPT_NO_MEMORY : RAPT_OK);
        failures += status != RAPT_OK;
        assert_int_equal(context == NULL, more);
        rapt_close(&context);
        assert_int_equal(alive, 0);
        session_end(v);
    }
    assert_true(failures > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(every_call_fails_once),
                                       BOTH(every_allocation_fails_once),
                                       BOTH(a_failure_is_not_forgotten)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
