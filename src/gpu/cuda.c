/* cuda.c: the CUDA driver API, libcuda.so.1, opened at run time. */
#include "base/alloc.h"
#include "base/dynlib.h"
#include "base/error.h"
#include "gpu/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From cuda.h. */
enum { CUDA_SUCCESS = 0, CUDA_ERROR_OUT_OF_MEMORY = 2 };
enum {
    ATTRIBUTE_MULTIPROCESSORS = 16,
    ATTRIBUTE_MEMORY_CLOCK = 36, /* kHz */
    ATTRIBUTE_MEMORY_WIDTH = 37, /* bits */
    ATTRIBUTE_MAJOR = 75,
    ATTRIBUTE_MINOR = 76,
    ATTRIBUTE_SHARED_OPTIN = 97,
    FUNCTION_DYNAMIC_SHARED = 8,
    POINTER_MEMORY_TYPE = 2,
    MEMORY_DEVICE = 2,
    MAP_UINT8 = 0,
    MAP_FLOAT16 = 6,
    MAP_FLOAT32 = 7,
    MAP_BFLOAT16 = 9,
    MAP_SWIZZLE_128B = 3,
    MAP_PROMOTION_128B = 2,
    LAUNCH_PROGRAMMATIC = 6, /* programmatic stream serialization */
};
/* 12.0 knows all symbols. Cubins and PTX of this library come from CUDA 13, which a driver of an
 * older major version may refuse. */
enum { OLDEST_DRIVER = 12000, TOOLKIT = 13000 };

/* CUlaunchConfig, CUlaunchAttribute. */
struct launch_attribute {
    int id, padding;
    union {
        int flag;
        char bytes[64];
    } value;
};

struct launch_config {
    unsigned grid[3], block[3], shared;
    void *stream;
    const struct launch_attribute *attributes;
    unsigned attribute_count;
};

struct cuda {
    void *library;
/* NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration */
#define CUDA(optional, field, symbol, parameters) int(*field) parameters;
#include "gpu/cuda_api.def"
#undef CUDA
};

static const struct dynlib_symbol symbols[] = {
#define CUDA(optional, field, symbol, parameters) {#symbol, offsetof(struct cuda, field), optional},
#include "gpu/cuda_api.def"
#undef CUDA
};

static const struct cuda *api_of(const struct gpu_device *device)
{
    return device->api;
}

static void describe_error(const struct cuda *cuda, int error, char *text, size_t size)
{
    const char *name = NULL, *meaning = NULL;
    cuda->error_name(error, &name);
    cuda->error_text(error, &meaning);
    snprintf(text, size, "%s, %s", meaning ? meaning : "unknown error", name ? name : "no name");
}

/* RAPT_OK, or the sentence of a failed call. */
static rapt_status check(const struct gpu_device *device, const char *call, int error)
{
    if (error == CUDA_SUCCESS) return RAPT_OK;
    char text[256];
    describe_error(device->api, error, text, sizeof text);
    return fail(error == CUDA_ERROR_OUT_OF_MEMORY ? RAPT_NO_MEMORY : RAPT_DRIVER,
                "%s: failed on %s (%s)", call, device->label, text);
}

#define CALL(device, field, symbol, ...) check(device, #symbol, api_of(device)->field(__VA_ARGS__))

/* Fills *devices, or reason. */
static int start(struct cuda *cuda, int *devices, char reason[REASON_SIZE])
{
    char text[256];
    int version = 0, error = cuda->init(0);
    const char *call = "cuInit";
    if (!error) call = "cuDriverGetVersion", error = cuda->version(&version);
    if (!error && version < OLDEST_DRIVER) {
        snprintf(reason, REASON_SIZE,
                 "cuda: the driver supports CUDA %d.%d (12.0 or newer is needed)", version / 1000,
                 version % 1000 / 10);
        return 0;
    }
    if (!error) call = "cuDeviceGetCount", error = cuda->device_count(devices);
    if (error) {
        describe_error(cuda, error, text, sizeof text);
        snprintf(reason, REASON_SIZE, "cuda: %s: failed (%s)", call, text);
        return 0;
    }
    if (*devices < 1) snprintf(reason, REASON_SIZE, "cuda: the driver sees no device");
    return *devices > 0;
}

static rapt_status cuda_open(void **api, int *devices, char reason[REASON_SIZE])
{
    const char *chosen = getenv("RAPT_CUDA_LIBRARY");
    const char *const standard[] = {"libcuda.so.1", "libcuda.so", NULL}, *const only[] = {chosen,
                                                                                          NULL};
    char text[REASON_SIZE - 80];
    *api = NULL;
    void *library = dynlib_open(chosen && *chosen ? only : standard, text, sizeof text);
    if (!library) {
        snprintf(reason, REASON_SIZE, "cuda: no driver (%s)", text);
        return RAPT_OK;
    }
    struct cuda *cuda = alloc_zeroed(1, sizeof *cuda);
    if (!cuda) {
        dynlib_close(library);
        return fail(RAPT_NO_MEMORY,
                    "rapt_open: no memory for the CUDA driver's functions (%zu bytes)",
                    sizeof *cuda);
    }
    cuda->library = library;
    if (!dynlib_resolve(library, symbols, sizeof symbols / sizeof *symbols, cuda, text,
                        sizeof text)) {
        snprintf(reason, REASON_SIZE, "cuda: %s", text);
    } else if (start(cuda, devices, reason)) {
        *api = cuda;
        return RAPT_OK;
    }
    dynlib_close(library);
    free(cuda);
    return RAPT_OK;
}

static void cuda_close(void *api)
{
    struct cuda *cuda = api;
    dynlib_close(cuda->library);
    free(cuda);
}

static rapt_status cuda_describe(struct gpu_device *device, rapt_device_info *info)
{
    int major = 0, minor = 0, clock = 0, width = 0;
    size_t bytes = 0;
    rapt_status status = CALL(device, device_get, cuDeviceGet, &device->id, device->ordinal);
    if (!status)
        status =
            CALL(device, device_name, cuDeviceGetName, info->name, sizeof info->name, device->id);
    if (!status) status = CALL(device, device_memory, cuDeviceTotalMem, &bytes, device->id);
    const struct {
        int *value, attribute;
    } wanted[] = {{&major, ATTRIBUTE_MAJOR},
                  {&minor, ATTRIBUTE_MINOR},
                  {&clock, ATTRIBUTE_MEMORY_CLOCK},
                  {&width, ATTRIBUTE_MEMORY_WIDTH},
                  {&device->units, ATTRIBUTE_MULTIPROCESSORS},
                  {&device->max_shared, ATTRIBUTE_SHARED_OPTIN}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted && !status; i++)
        status = CALL(device, device_attribute, cuDeviceGetAttribute, wanted[i].value,
                      wanted[i].attribute, device->id);
    snprintf(device->arch, sizeof device->arch, "sm_%d%d", major, minor);
    device->memory_gbs = (int)((int64_t)clock * width * 2 / 8 / 1000000);
    info->memory_bytes = (int64_t)bytes;
    return status;
}

/* The primary context is retained at first use, so that listing the devices costs no device memory.
 * Two threads may both retain; the loser gives its count back. */
static rapt_status retain(struct gpu_device *device, void **out)
{
    void *context = NULL, *expected = NULL;
    rapt_status status =
        CALL(device, context_retain, cuDevicePrimaryCtxRetain, &context, device->id);
    if (status) return status;
    if (!atomic_compare_exchange_strong(&device->context, &expected, context))
        api_of(device)->context_release(device->id);
    *out = context;
    return RAPT_OK;
}

static void cuda_release(struct gpu_device *device)
{
    if (atomic_load(&device->context)) api_of(device)->context_release(device->id);
}

static rapt_status cuda_enter(struct gpu_device *device, struct driver_scope *scope)
{
    void *own = atomic_load_explicit(&device->context, memory_order_acquire);
    rapt_status status = own ? RAPT_OK : retain(device, &own);
    if (!status) status = CALL(device, context_current, cuCtxGetCurrent, &scope->context);
    if (!status && scope->context != own)
        status = CALL(device, context_push, cuCtxPushCurrent, own);
    return status;
}

static void cuda_leave(struct gpu_device *device, const struct driver_scope *scope)
{
    void *popped;
    if (scope->context != atomic_load_explicit(&device->context, memory_order_relaxed))
        api_of(device)->context_pop(&popped);
}

static rapt_status cuda_module_load(struct gpu_device *device, const void *image, void **module)
{
    rapt_status status = CALL(device, module_load, cuModuleLoadData, module, image);
    int version = TOOLKIT;
    if (status != RAPT_DRIVER || api_of(device)->version(&version) || version >= TOOLKIT)
        return status;
    return fail(status,
                "%s; the driver supports CUDA %d.%d, and code objects of CUDA %d need driver 580 "
                "or newer",
                last_error(), version / 1000, version % 1000 / 10, TOOLKIT / 1000);
}

static void cuda_module_unload(struct gpu_device *device, void *module)
{
    api_of(device)->module_unload(module);
}

static rapt_status cuda_function(struct gpu_device *device, void *module, const char *name,
                                 int shared, void **function)
{
    rapt_status status = CALL(device, module_function, cuModuleGetFunction, function, module, name);
    /* Over 48 KiB together with static shared memory, which the driver counts, a kernel must ask.
     */
    if (!status && shared)
        status = CALL(device, function_set, cuFuncSetAttribute, *function, FUNCTION_DYNAMIC_SHARED,
                      shared);
    return status;
}

static rapt_status cuda_launch(struct gpu_device *device, const struct driver_launch *l,
                               rapt_stream stream)
{
    if (!l->early)
        return CALL(device, launch, cuLaunchKernel, l->function, l->grid[0], l->grid[1], l->grid[2],
                    l->threads, 1, 1, l->shared, stream, l->parameters, NULL);
    struct launch_attribute early = {.id = LAUNCH_PROGRAMMATIC, .value.flag = 1};
    struct launch_config config = {
        {l->grid[0], l->grid[1], l->grid[2]}, {l->threads, 1, 1}, l->shared, stream, &early, 1};
    return CALL(device, launch_with, cuLaunchKernelEx, &config, l->function, l->parameters, NULL);
}

static rapt_status cuda_encode(struct gpu_device *device, const struct driver_map *map,
                               const void *data, struct tensor_map *out)
{
    static const uint32_t every[5] = {1, 1, 1, 1, 1};
    int type = map->dtype == DTYPE_u8    ? MAP_UINT8
               : map->dtype == DTYPE_f32 ? MAP_FLOAT32
               : map->dtype == DTYPE_f16 ? MAP_FLOAT16
                                         : MAP_BFLOAT16;
    return CALL(device, encode, cuTensorMapEncodeTiled, out, type, map->rank, (void *)data,
                map->size, map->stride, map->box, every, 0, MAP_SWIZZLE_128B, MAP_PROMOTION_128B,
                0);
}

static rapt_status cuda_alloc(struct gpu_device *device, size_t bytes, void **out)
{
    uint64_t memory = 0;
    rapt_status status = CALL(device, alloc, cuMemAlloc, &memory, bytes ? bytes : 1);
    *out = (void *)(uintptr_t)memory; /* NOLINT(performance-no-int-to-ptr): a CUdeviceptr */
    return status;
}

static void cuda_free(struct gpu_device *device, void *memory)
{
    api_of(device)->free((uint64_t)(uintptr_t)memory);
}

static int on_device(const struct gpu_device *device, const void *pointer)
{
    unsigned type = 0;
    return !api_of(device)->pointer_attribute(&type, POINTER_MEMORY_TYPE,
                                              (uint64_t)(uintptr_t)pointer) &&
           type == MEMORY_DEVICE;
}

static rapt_status cuda_synchronize(struct gpu_device *device, rapt_stream stream)
{
    return CALL(device, synchronize, cuStreamSynchronize, stream);
}

static rapt_status cuda_copy(struct gpu_device *device, void *to, const void *from, size_t bytes,
                             rapt_stream stream)
{
    int wait = !on_device(device, to) || !on_device(device, from);
    rapt_status status = CALL(device, copy, cuMemcpyAsync, (uint64_t)(uintptr_t)to,
                              (uint64_t)(uintptr_t)from, bytes, stream);
    return !status && wait ? cuda_synchronize(device, stream) : status;
}

const struct driver cuda_driver = {
    .name = "cuda",
    .override = "CUBIN",
    .vendor = VENDOR_cuda,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .release = cuda_release,
    .enter = cuda_enter,
    .leave = cuda_leave,
    .module_load = cuda_module_load,
    .module_unload = cuda_module_unload,
    .function = cuda_function,
    .launch = cuda_launch,
    .encode = cuda_encode,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .copy = cuda_copy,
    .synchronize = cuda_synchronize,
};
