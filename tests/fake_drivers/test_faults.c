/* test_faults.c: a whole session with every driver call failing once, and with every host
 * allocation failing once: a status and a sentence, nothing leaked, nothing crashed. */
#include "session.h"

#include <stdio.h>

static _Alignas(256) char memory[5 << 18];

/* Host allocations of the library go through these (linked with --wrap). */
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);

static int allocations, failing_allocation;
static int calls_before_close; /* of the driver, in the session last run */

static int allocation_fails(void)
{
    return ++allocations == failing_allocation;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return allocation_fails() ? NULL : __real_realloc(old, bytes);
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

static void attend(struct outcome *o, rapt_device *device, const char *kernel)
{
    rapt_attention a = session_problem(memory);
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    a.kernel = kernel;
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

static void use(struct outcome *o, rapt_device *device)
{
    void *block = NULL;
    char bytes[64] = {0};
    rapt_tensor x = rapt_tensor_bthd(memory, RAPT_F32, 1, 4, 8, 64);
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = x, .out = x};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
    attend(o, device, NULL);
    attend(o, device, "flash");
    attend(o, device, "composed");
    if (step(o, rapt_alloc(device, sizeof bytes, &block))) {
        step(o, rapt_copy(device, block, bytes, sizeof bytes, NULL));
        rapt_free(device, block);
    }
    step(o, rapt_rope(device, &rope, NULL));
    step(o, rapt_softmax(device, &softmax, NULL));
    step(o, rapt_synchronize(device, NULL));
}

/* Opens two devices and uses the second, as far as it gets. note: the backend's note. */
static struct outcome session(const struct stand_in *v, const struct fake *fake, char note[512])
{
    struct outcome o = {RAPT_OK, ""};
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    note[0] = 0;
    if (step(&o, rapt_open(&context, &config))) {
        const char *name, *text;
        for (int i = 0; (text = rapt_backend_note(context, i, &name)); i++)
            if (!strcmp(name, v->name)) snprintf(note, 512, "%s", text);
        use(&o, rapt_device_at(context, rapt_device_count(context) - 1));
    }
    calls_before_close = fake->calls;
    rapt_close(&context);
    assert_null(context);
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

static void every_call_fails_once(void **state)
{
    const struct stand_in *v = *state;
    char note[512];
    struct fake *fake = session_begin(v);
    fake->devices = 2;
    struct outcome o = session(v, fake, note);
    if (o.status) print_error("%s\n", o.sentence);
    assert_int_equal(o.status, RAPT_OK);
    int calls = fake->calls, reported = 0, frees = 0;
    session_end(v);
    assert_true(calls > 50);
    for (int code = FAKE_OUT_OF_MEMORY; code <= FAKE_LAUNCH_FAILED;
         code += FAKE_LAUNCH_FAILED - FAKE_OUT_OF_MEMORY)
        for (int i = 1; i <= calls; i++) {
            fake = session_begin(v);
            fake->devices = 2;
            fake->fail_at = i;
            fake->fail_code = code;
            o = session(v, fake, note);
            if (o.status || strstr(note, fake->failed)) {
                const char *sentence = o.status ? o.sentence : note;
                reported++;
                if (!strstr(sentence, fake->failed))
                    print_error("call %d, %s: %s\n", i, fake->failed, sentence);
                assert_non_null(strstr(sentence, fake->failed));
                if (!strstr(sentence, v->name))
                    print_error("call %d of %d (%d), %s: %s\n", i, calls, fake->calls, fake->failed,
                                sentence);
                assert_non_null(strstr(sentence, v->name));
                assert_true(
                    says(sentence, "*: failed on * (*)") ||
                    says(sentence, "*: failed on * (*); *") /* and another device's note */ ||
                    strstr(sentence, ": failed (")); /* before there is a device */
            } else if (!is_cleanup(fake->failed) && i <= calls_before_close) {
                /* rapt_free reports nothing, but frees all the same: session_end checks that. */
                assert_true(!strcmp(fake->failed, v->enter) ||
                            !strcmp(fake->failed, "cuCtxPushCurrent"));
                frees++;
            }
            session_end(v);
        }
    print_message("# %s: %d driver calls, each failed twice; %d failures reported\n", v->name,
                  calls, reported);
    assert_true(reported > calls);
    assert_true(frees < 32); /* two codes, at most so many calls of rapt_free */
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
    struct fake *fake = session_begin(v);
    fake->devices = 2;
    allocations = failing_allocation = 0;
    assert_int_equal(session(v, fake, note).status, RAPT_OK);
    int count = allocations;
    session_end(v);
    assert_true(count > 10);
    for (int i = 1; i <= count; i++) {
        fake = session_begin(v);
        fake->devices = 2;
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

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(every_call_fails_once),
                                       BOTH(every_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
