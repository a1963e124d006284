/* The emulated libamdhip64.so through dlopen, as the product uses it: devices, memory, launches in
 * both forms, capture. */
#include "support.h"

#include <dlfcn.h>

#define HIP_LIST(X)                                                                                \
    X(hipInit, (unsigned))                                                                         \
    X(hipGetDeviceCount, (int *))                                                                  \
    X(hipDeviceGetName, (char *, int, int))                                                        \
    X(hipDeviceGetAttribute, (int *, int, int))                                                    \
    X(hipGetDevicePropertiesR0600, (void *, int))                                                  \
    X(hipSetDevice, (int))                                                                         \
    X(hipGetDevice, (int *))                                                                       \
    X(hipMalloc, (void **, size_t))                                                                \
    X(hipFree, (void *))                                                                           \
    X(hipMemGetInfo, (size_t *, size_t *))                                                         \
    X(hipMemcpy, (void *, const void *, size_t, int))                                              \
    X(hipMemcpyAsync, (void *, const void *, size_t, int, void *))                                 \
    X(hipMemsetD32Async, (void *, int, size_t, void *))                                            \
    X(hipStreamCreate, (void **))                                                                  \
    X(hipStreamDestroy, (void *))                                                                  \
    X(hipStreamSynchronize, (void *))                                                              \
    X(hipStreamBeginCapture, (void *, int))                                                        \
    X(hipStreamEndCapture, (void *, void **))                                                      \
    X(hipGraphInstantiate, (void **, void *, void **, char *, size_t))                             \
    X(hipGraphLaunch, (void *, void *))                                                            \
    X(hipGraphDestroy, (void *))                                                                   \
    X(hipGraphExecDestroy, (void *))                                                               \
    X(hipEventCreate, (void **))                                                                   \
    X(hipEventRecord, (void *, void *))                                                            \
    X(hipEventElapsedTime, (float *, void *, void *))                                              \
    X(hipEventDestroy, (void *))                                                                   \
    X(hipModuleLoadData, (void **, const void *))                                                  \
    X(hipModuleUnload, (void *))                                                                   \
    X(hipModuleGetFunction, (void **, void *, const char *))                                       \
    X(hipModuleLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,  \
                              unsigned, void *, void **, void **))                                 \
    X(hipFuncGetAttribute, (int *, int, void *))                                                   \
    X(hipGetLastError, (void))

static struct {
#define FIELD(name, parameters) int(*name) parameters;
    HIP_LIST(FIELD)
#undef FIELD
    const char *(*hipGetErrorName)(int);
} hip;

enum {
    TO_DEVICE = 1,
    TO_HOST = 2,
    ILLEGAL_ADDRESS = 700,
    NO_BINARY = 209,
    CAPTURE_UNSUPPORTED = 900
};

static void *file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", AMDGPU_KERNELS, name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing", path);
    void *data = malloc(1 << 20);
    assert_non_null(data);
    assert_true(fread(data, 1, 1 << 20, f) > 64);
    fclose(f);
    return data;
}

static int open_library(void **state)
{
    (void)state;
    setenv("RAPT_EMULATE", "gfx942,gfx1201", 1);
    void *library = dlopen(AMDGPU_HIP, RTLD_NOW);
    if (!library) return -1;
#define RESOLVE(name, parameters) *(void **)(&hip.name) = dlsym(library, #name);
    HIP_LIST(RESOLVE)
    *(void **)(&hip.hipGetErrorName) = dlsym(library, "hipGetErrorName");
#define PRESENT(name, parameters)                                                                  \
    if (!hip.name) return -1;
    HIP_LIST(PRESENT)
    return hip.hipInit(0);
}

static void test_devices(void **state)
{
    char name[64], properties[4096];
    int count = 0, value = 0;
    (void)state;
    assert_int_equal(hip.hipGetDeviceCount(&count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(hip.hipDeviceGetName(name, sizeof name, 0), 0);
    assert_int_equal(hip.hipDeviceGetAttribute(&value, 87, 0), 0);
    assert_int_equal(value, 64);
    assert_int_equal(hip.hipDeviceGetAttribute(&value, 87, 1), 0);
    assert_int_equal(value, 32);
    assert_int_equal(hip.hipDeviceGetAttribute(&value, 74, 0), 0);
    assert_int_equal(value, 65536);
    assert_int_equal(hip.hipGetDevicePropertiesR0600(properties, 1), 0);
    assert_string_equal(properties + 1160, "gfx1201");
    assert_int_equal(hip.hipSetDevice(2), 101);
    assert_int_equal(hip.hipGetLastError(), 101);
    assert_int_equal(hip.hipGetLastError(), 0);
    assert_string_equal(hip.hipGetErrorName(209), "hipErrorNoBinaryForGpu");
}

static void test_memory(void **state)
{
    size_t before, after, total;
    int words[16], back[16];
    void *p;
    (void)state;
    assert_int_equal(hip.hipMemGetInfo(&before, &total), 0);
    assert_int_equal(hip.hipMalloc(&p, sizeof words), 0);
    assert_int_equal(hip.hipMemGetInfo(&after, &total), 0);
    assert_int_equal(before - after, sizeof words);
    for (int i = 0; i < 16; i++) words[i] = i * i;
    assert_int_equal(hip.hipMemcpy(p, words, sizeof words, TO_DEVICE), 0);
    assert_int_equal(hip.hipMemsetD32Async((char *)p + 16, 7, 2, NULL), 0);
    assert_int_equal(hip.hipMemcpy(back, p, sizeof back, TO_HOST), 0);
    for (int i = 0; i < 16; i++) assert_int_equal(back[i], i == 4 || i == 5 ? 7 : i * i);
    assert_int_not_equal(hip.hipMemcpy(p, words, sizeof words + 4, TO_DEVICE),
                         0);                                            /* past its end */
    assert_int_not_equal(hip.hipMemcpy(words, words, 4, TO_DEVICE), 0); /* not device memory */
    assert_int_equal(hip.hipFree(p), 0);
    assert_int_not_equal(hip.hipFree(p), 0);
    assert_int_equal(hip.hipMalloc(&p, (size_t)1 << 50), 2);
}

struct run {
    void *module, *function, *in, *out;
    float host[256];
};

static void open_run(struct run *r, const char *object, const char *kernel)
{
    void *data = file(object);
    assert_int_equal(hip.hipModuleLoadData(&r->module, data), 0);
    free(data);
    assert_int_equal(hip.hipModuleGetFunction(&r->function, r->module, kernel), 0);
    assert_int_equal(hip.hipMalloc(&r->in, 1024), 0);
    assert_int_equal(hip.hipMalloc(&r->out, 1024), 0);
    for (int i = 0; i < 256; i++) r->host[i] = (float)i;
    assert_int_equal(hip.hipMemcpy(r->in, r->host, 1024, TO_DEVICE), 0);
}

static void close_run(struct run *r)
{
    assert_int_equal(hip.hipFree(r->in), 0);
    assert_int_equal(hip.hipFree(r->out), 0);
    assert_int_equal(hip.hipModuleUnload(r->module), 0);
    assert_int_not_equal(hip.hipModuleUnload(r->module), 0);
}

static void check_transposed(const struct run *r)
{
    float back[256];
    assert_int_equal(hip.hipMemcpy(back, r->out, 1024, TO_HOST), 0);
    for (int i = 0; i < 256; i++) assert_true(back[i] == (float)((i & 15) * 16 + (i >> 4)));
}

static void test_launch(void **state)
{
    struct run r;
    void *nothing;
    int value;
    (void)state;
    assert_int_equal(hip.hipSetDevice(0), 0);
    open_run(&r, "memory.gfx942.co", "transpose");
    void *parameters[] = {&r.in, &r.out};
    assert_int_equal(
        hip.hipModuleLaunchKernel(r.function, 1, 1, 1, 256, 1, 1, 0, NULL, parameters, NULL), 0);
    check_transposed(&r);
    void *packed[] = {r.in, r.out};
    size_t size = sizeof packed;
    void *extra[] = {(void *)1, packed, (void *)2, &size, (void *)3};
    assert_int_equal(hip.hipMemsetD32Async(r.out, 0, 256, NULL), 0);
    assert_int_equal(
        hip.hipModuleLaunchKernel(r.function, 1, 1, 1, 256, 1, 1, 0, NULL, NULL, extra), 0);
    check_transposed(&r);
    assert_int_not_equal(
        hip.hipModuleLaunchKernel(r.function, 0, 1, 1, 256, 1, 1, 0, NULL, parameters, NULL), 0);
    assert_int_not_equal(
        hip.hipModuleLaunchKernel(r.function, 1, 1, 1, 257, 1, 1, 0, NULL, parameters, NULL), 0);
    assert_int_not_equal(
        hip.hipModuleLaunchKernel(r.function, 1, 1, 1, 256, 1, 1, 65536, NULL, parameters, NULL),
        0);
    assert_int_equal(hip.hipFuncGetAttribute(&value, 1, r.function), 0);
    assert_int_equal(value, 16 * 17 * 4);
    assert_int_not_equal(hip.hipModuleGetFunction(&nothing, r.module, "absent"), 0);
    close_run(&r);
}

static void test_wrong_target(void **state)
{
    void *module, *data = file("memory.gfx942.co");
    (void)state;
    assert_int_equal(hip.hipSetDevice(1), 0);
    assert_int_equal(hip.hipModuleLoadData(&module, data), NO_BINARY);
    assert_int_equal(hip.hipSetDevice(0), 0);
    assert_int_not_equal(
        hip.hipModuleLoadData(&module, "no code object at all, but long enough to look at it"), 0);
    free(data);
}

static void test_fault(void **state)
{
    struct run r;
    int n = 256;
    (void)state;
    open_run(&r, "faulty.gfx942.co", "global_over");
    void *parameters[] = {&r.in, &r.out, &n};
    assert_int_equal(
        hip.hipModuleLaunchKernel(r.function, 5, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL),
        ILLEGAL_ADDRESS);
    n = 255;
    assert_int_equal(
        hip.hipModuleLaunchKernel(r.function, 5, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL), 0);
    close_run(&r);
}

/* A captured stream does nothing until its graph is launched; arguments are those of the capture.
 */
static void test_capture(void **state)
{
    struct run r;
    void *stream, *graph, *exec, *extra, *start, *stop;
    float back[256], milliseconds;
    (void)state;
    open_run(&r, "memory.gfx942.co", "transpose");
    assert_int_equal(hip.hipStreamCreate(&stream), 0);
    assert_int_equal(hip.hipMemsetD32Async(r.out, 0, 256, stream), 0);
    assert_int_equal(hip.hipStreamBeginCapture(stream, 0), 0);
    void *parameters[] = {&r.in, &r.out};
    assert_int_equal(
        hip.hipModuleLaunchKernel(r.function, 1, 1, 1, 256, 1, 1, 0, stream, parameters, NULL), 0);
    parameters[0] = parameters[1] = NULL;
    assert_int_equal(hip.hipMalloc(&extra, 16), CAPTURE_UNSUPPORTED);
    assert_int_equal(hip.hipStreamSynchronize(stream), CAPTURE_UNSUPPORTED);
    assert_int_equal(hip.hipStreamEndCapture(stream, &graph), 0);
    assert_int_equal(hip.hipMemcpy(back, r.out, 1024, TO_HOST), 0);
    for (int i = 0; i < 256; i++) assert_true(back[i] == 0);
    assert_int_equal(hip.hipGraphInstantiate(&exec, graph, NULL, NULL, 0), 0);
    assert_int_equal(hip.hipGraphDestroy(graph), 0);
    assert_int_equal(hip.hipEventCreate(&start), 0);
    assert_int_equal(hip.hipEventCreate(&stop), 0);
    assert_int_equal(hip.hipEventRecord(start, stream), 0);
    assert_int_equal(hip.hipGraphLaunch(exec, stream), 0);
    assert_int_equal(hip.hipEventRecord(stop, stream), 0);
    assert_int_equal(hip.hipEventElapsedTime(&milliseconds, start, stop), 0);
    assert_true(milliseconds > 0);
    check_transposed(&r);
    assert_int_equal(hip.hipGraphExecDestroy(exec), 0);
    assert_int_equal(hip.hipStreamDestroy(stream), 0);
    assert_int_equal(hip.hipEventDestroy(start), 0);
    assert_int_equal(hip.hipEventDestroy(stop), 0);
    close_run(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_launch),  cmocka_unit_test(test_wrong_target),
        cmocka_unit_test(test_fault),   cmocka_unit_test(test_capture),
    };
    return cmocka_run_group_tests_name("amdgpu hip", tests, open_library, NULL);
}
