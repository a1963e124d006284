/* test_driver.c: what rapt asks of a driver besides launches: copies and what they wait for, whose
 * context is current, the primary context that two threads ask for at once, the runtime that is loaded
 * already, what a driver too old for an object is said to be. */
#include "session.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const rapt_stream stream = (void *)0x77;

static const char *synchronize(const struct stand_in *v)
{
    return strcmp(v->name, "cuda") ? "hipStreamSynchronize" : "cuStreamSynchronize";
}

/* 64 bytes from one place to another arrive, and the host waits for them or not. */
static void expect_copy(const struct stand_in *v, struct fake *fake, rapt_device *device, void *to,
                        const void *from, int waits)
{
    static int value;
    memset(to, 0, 64);
    memset((void *)(uintptr_t)from, ++value, 64);
    int before = session_calls(fake, synchronize(v));
    fake->waited_for = NULL;
    assert_int_equal(rapt_copy(device, to, from, 64, stream), RAPT_OK);
    assert_int_equal(*(char *)to, value);
    assert_int_equal(((char *)to)[63], value);
    assert_int_equal(session_calls(fake, synchronize(v)) - before, waits);
    assert_ptr_equal(fake->waited_for, waits ? stream : NULL);
}

/* Between two places on the device nobody waits, where the driver can tell. */
static void copies(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    char host[2][64];
    void *there[2];
    for (int i = 0; i < 2; i++) assert_int_equal(rapt_alloc(device, 64, &there[i]), RAPT_OK);
    expect_copy(v, fake, device, there[0], host[0], 1);
    expect_copy(v, fake, device, host[1], there[1], 1);
    expect_copy(v, fake, device, host[1], host[0], 1);
    expect_copy(v, fake, device, there[1], there[0], strcmp(v->name, "cuda") != 0);
    fake->pinned = host[0]; /* host memory all the same */
    expect_copy(v, fake, device, there[0], host[0], 1);
    expect_copy(v, fake, device, host[0], there[0], 1);
    assert_int_equal(rapt_synchronize(device, (void *)0x99), RAPT_OK);
    assert_ptr_equal(fake->waited_for, (void *)0x99);
    for (int i = 0; i < 2; i++) rapt_free(device, there[i]);
    assert_int_equal(rapt_alloc(device, 0, &there[0]), RAPT_OK); /* no bytes are memory too */
    assert_non_null(there[0]);
    rapt_free(device, there[0]);
    rapt_close(&context);
    session_end(v);
}

/* All that enters a device. */
static void use(rapt_device *device)
{
    char bytes[64] = {0};
    void *block = NULL;
    rapt_tensor x = rapt_tensor_bthd(bytes, RAPT_F32, 1, 1, 1, 16);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    assert_int_equal(rapt_alloc(device, sizeof bytes, &block), RAPT_OK);
    assert_int_equal(rapt_copy(device, block, bytes, sizeof bytes, NULL), RAPT_OK);
    rapt_free(device, block);
    assert_int_equal(rapt_synchronize(device, NULL), RAPT_OK);
}

/* The caller's own current context, of another device or of none, is current again after each
 * call; one that is the device's already is left in place. */
static void contexts_of_the_caller(void **state)
{
    const struct stand_in *v = *state;
    int (*retain)(void **context, int device), (*push)(void *context), (*pop)(void **context),
        (*current)(void **context), (*release)(int device);
    void *address, *of[2], *now;
#define FIND(function, name)                                                                       \
    address = session_symbol(v, name);                                                             \
    memcpy(&function, &address, sizeof function)
    FIND(retain, "cuDevicePrimaryCtxRetain");
    FIND(release, "cuDevicePrimaryCtxRelease_v2");
    FIND(push, "cuCtxPushCurrent_v2");
    FIND(pop, "cuCtxPopCurrent_v2");
    FIND(current, "cuCtxGetCurrent");
    struct fake *fake = session_begin(v);
    fake->devices = 2;
    rapt_context *context = session_open(v);
    use(rapt_device_at(context, 0));
    current(&now);
    assert_null(now);
    for (int own = 0; own < 2; own++) {
        retain(&of[own], own);
        push(of[own]);
        int pushes = session_calls(fake, "cuCtxPushCurrent");
        use(rapt_device_at(context, 0));
        current(&now);
        assert_ptr_equal(now, of[own]);
        assert_int_equal(session_calls(fake, "cuCtxPushCurrent") - pushes, own ? 5 : 0);
        pop(&now);
        assert_ptr_equal(now, of[own]);
        release(own);
    }
    rapt_close(&context);
    session_end(v);
}

/* The same of HIP's current device. */
static void device_of_the_caller(void **state)
{
    const struct stand_in *v = *state;
    int (*set)(int device), (*get)(int *device);
    void *address;
    FIND(set, "hipSetDevice");
    FIND(get, "hipGetDevice");
#undef FIND
    struct fake *fake = session_begin(v);
    fake->devices = 3;
    rapt_context *context = session_open(v);
    for (int own = 0; own < 3; own++) {
        int now = -1;
        set(own);
        int sets = session_calls(fake, "hipSetDevice");
        use(rapt_device_at(context, 1));
        get(&now);
        assert_int_equal(now, own);
        assert_int_equal(session_calls(fake, "hipSetDevice") - sets, own == 1 ? 0 : 2 * 5);
    }
    set(0);
    rapt_close(&context);
    session_end(v);
}

static void *first_use(void *device)
{
    static char bytes[64];
    void *block = NULL;
    rapt_tensor x = rapt_tensor_bthd(bytes, RAPT_F32, 1, 1, 1, 16);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
    if (!rapt_alloc(device, 64, &block)) rapt_free(device, block);
    rapt_softmax(device, &softmax, NULL);
    return NULL;
}

/* Threads that all find no context yet, nor a module: each count of the driver's is given back, and
 * one of them loads the module for all. */
static void first_use_at_once(void **state)
{
    enum { THREADS = 4 };
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    pthread_t threads[THREADS];
    fake->slow_start = 1;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, first_use, rapt_device_at(context, 0)),
                         0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    print_message("# %d threads retained the context\n",
                  session_calls(fake, "cuDevicePrimaryCtxRetain"));
    assert_int_equal(fake->contexts, strcmp(v->name, "cuda") == 0);
    assert_int_equal(fake->modules, 1);
    assert_int_equal(fake->launch_count, THREADS);
    rapt_close(&context);
    session_end(v);
}

/* Nothing to write, or nobody to write it for, is no launch. */
static void pieces_of_nothing(void **state)
{
    static char memory[4096];
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    rapt_context *context = session_open(v);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_tensor none = rapt_tensor_bhtd(memory, RAPT_F32, 2, 2, 3, 0),
                some = rapt_tensor_bhtd(memory, RAPT_F32, 2, 2, 3, 4),
                headless = rapt_tensor_bhtd(memory, RAPT_F32, 2, 0, 3, 4);
    rapt_rope_args rope = {.struct_size = sizeof rope, .x = none, .out = none};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = none, .out = none};
    rapt_pv_args pv = {.struct_size = sizeof pv, .weights = some, .out = none};
    pv.v = rapt_tensor_bhtd(memory + 1024, RAPT_F32, 2, 2, 4, 0);
    rapt_qk_args qk = {.struct_size = sizeof qk, .q = headless, .k = headless};
    qk.out = rapt_tensor_bhtd(memory + 2048, RAPT_F32, 2, 0, 3, 3);
    assert_int_equal(rapt_rope(device, &rope, NULL), RAPT_OK);
    assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
    assert_int_equal(rapt_pv(device, &pv, NULL), RAPT_OK);
    assert_int_equal(rapt_qk(device, &qk, NULL), RAPT_OK);
    assert_int_equal(fake->launch_count, 0);
    rapt_close(&context);
    session_end(v);
}

/* Devices that were never used have no context to give back. */
static void unused_devices(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = session_begin(v);
    fake->devices = 2;
    rapt_context *context = session_open(v);
    use(rapt_device_at(context, 1));
    rapt_close(&context);
    assert_int_equal(session_calls(fake, "cuDevicePrimaryCtxRelease"), strcmp(v->name, "hip") != 0);
    session_end(v);
}

/* A driver of an older major version than that of the objects' compiler says so itself only in part. */
static void older_driver(void **state)
{
    static const struct {
        int version;
        const char *told;
    } drivers[] = {
        {12040,
         "*; the driver supports CUDA 12.4, and code objects of CUDA 13 need driver 580 or newer"},
        {12090,
         "*; the driver supports CUDA 12.9, and code objects of CUDA 13 need driver 580 or newer"},
        {13000, NULL},
        {14000, NULL}};
    const struct stand_in *v = &vendors[0];
    static char memory[4 << 18];
    (void)state;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        struct fake *fake = session_begin(v);
        fake->version = drivers[i].version;
        session_override(v, "FLASH_ATTENTION", "not a code object");
        rapt_context *context = session_open(v);
        rapt_attention a = session_problem(memory);
        a.kernel = "flash";
        rapt_plan *plan;
        assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_DRIVER);
        if (drivers[i].told) assert_true(says(rapt_last_error(), drivers[i].told));
        else assert_null(strstr(rapt_last_error(), "the driver supports"));
        rapt_close(&context);
        session_end(v);
    }
}

/* In a process of its own, since a runtime once loaded stays: the runtime that the process uses already
 * serves, not the newer one below ROCM_PATH. */
static int opens_the_loaded_one(const struct stand_in *v, const char *rocm)
{
    static const char named[] = RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64_named.so";
    rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    fake_state_function *state;
    setenv("ROCM_PATH", rocm, 1);
    setenv("FAKE_ARCH", v->arch, 1);
    unsetenv(v->library_variable);
    void *library = dlopen(named, RTLD_NOW | RTLD_LOCAL),
         *address = library ? dlsym(library, "fake_state") : NULL;
    if (!address) return 1;
    memcpy(&state, &address, sizeof state);
    if (rapt_open(&context, &config)) return 2;
    return state()->calls > 0 ? 0 : 3;
}

static void loaded_runtime(void **state)
{
    const struct stand_in *v = *state;
    char rocm[256], folder[300], link[340], target[PATH_MAX];
    int code;
    snprintf(rocm, sizeof rocm, RAPT_BUILD_FOLDER "/tests/fake_drivers/newer.%d", (int)getpid());
    snprintf(folder, sizeof folder, "%s/lib", rocm);
    snprintf(link, sizeof link, "%s/libamdhip64.so.7", folder);
    assert_non_null(realpath(v->library, target));
    assert_int_equal(mkdir(rocm, 0700) | mkdir(folder, 0700) | symlink(target, link), 0);
    pid_t child = fork();
    if (!child) _exit(opens_the_loaded_one(v, rocm));
    assert_true(child > 0 && waitpid(child, &code, 0) == child);
    assert_int_equal(remove(link) | rmdir(folder) | rmdir(rocm), 0);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(copies),
        {"cuda: contexts_of_the_caller", contexts_of_the_caller, NULL, NULL, (void *)&vendors[0]},
        {"hip: device_of_the_caller", device_of_the_caller, NULL, NULL, (void *)&vendors[1]},
        BOTH(first_use_at_once),
        BOTH(pieces_of_nothing),
        BOTH(unused_devices),
        {"cuda: older_driver", older_driver, NULL, NULL, NULL},
        {"hip: loaded_runtime", loaded_runtime, NULL, NULL, (void *)&vendors[1]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
