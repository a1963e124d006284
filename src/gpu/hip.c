/* hip.c: the HIP runtime, libamdhip64, opened at run time. */
#include "base/alloc.h"
#include "base/dynlib.h"
#include "base/error.h"
#include "gpu/driver.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From hip_runtime_api.h; these values are the same in ROCm 5, 6 and 7. */
enum { HIP_SUCCESS = 0, HIP_ERROR_OUT_OF_MEMORY = 2, HIP_COPY_DEFAULT = 4 };
enum { ATTRIBUTE_MULTIPROCESSORS = 63, ATTRIBUTE_SHARED = 74 };
/* ROCm 5.0: code object version 5 came with 5.x, HSA ABI v4 before. */
enum { OLDEST_RUNTIME = 50000000 };

struct hip {
    void *library;
/* NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration */
#define HIP(optional, field, symbol, type, parameters) type(*field) parameters;
#include "gpu/hip_api.def"
#undef HIP
};

static const struct dynlib_symbol symbols[] = {
#define HIP(optional, field, symbol, type, parameters)                                             \
    {#symbol, offsetof(struct hip, field), optional},
#include "gpu/hip_api.def"
#undef HIP
};

static const struct hip *api_of(const struct gpu_device *device)
{
    return device->api;
}

static void describe_error(const struct hip *hip, int error, char *text, size_t size)
{
    const char *name = hip->error_name(error), *meaning = hip->error_text(error);
    snprintf(text, size, "%s, %s", meaning ? meaning : "unknown error", name ? name : "no name");
}

static rapt_status check(const struct gpu_device *device, const char *call, int error)
{
    if (error == HIP_SUCCESS) return RAPT_OK;
    char text[256];
    describe_error(device->api, error, text, sizeof text);
    return fail(error == HIP_ERROR_OUT_OF_MEMORY ? RAPT_NO_MEMORY : RAPT_DRIVER,
                "%s: failed on %s (%s)", call, device->label, text);
}

#define CALL(device, field, symbol, ...) check(device, #symbol, api_of(device)->field(__VA_ARGS__))

static int start(struct hip *hip, int *devices, char reason[REASON_SIZE])
{
    char text[256];
    int version = 0, error = hip->init(0);
    const char *call = "hipInit";
    if (!error) call = "hipRuntimeGetVersion", error = hip->version(&version);
    if (!error && version < OLDEST_RUNTIME) {
        snprintf(reason, REASON_SIZE, "hip: the runtime is ROCm %d.%d (5.0 or newer is needed)",
                 version / 10000000, version / 100000 % 100);
        return 0;
    }
    if (!error) call = "hipGetDeviceCount", error = hip->device_count(devices);
    if (error) {
        describe_error(hip, error, text, sizeof text);
        snprintf(reason, REASON_SIZE, "hip: %s: failed (%s)", call, text);
        return 0;
    }
    if (*devices < 1) snprintf(reason, REASON_SIZE, "hip: the runtime sees no device");
    return *devices > 0;
}

enum { MAJORS = 3, PATH_SIZE = 512 };

/* The named library alone, or the one that the process uses already, whose streams and memory a
 * second runtime would not know, or each soname below ROCM_PATH, then by the loader's own search,
 * then in /opt/rocm. */
static void *open_library(char *reason, size_t size)
{
    static const char *const names[MAJORS + 2] = {"libamdhip64.so.7", "libamdhip64.so.6",
                                                  "libamdhip64.so.5", "libamdhip64.so", NULL};
    const char *chosen = getenv("RAPT_HIP_LIBRARY"), *rocm = getenv("ROCM_PATH");
    if (chosen && *chosen) return dynlib_open((const char *const[]){chosen, NULL}, reason, size);
    void *loaded = dynlib_loaded(names);
    if (loaded) return loaded;
    char below[2 * (MAJORS + 1)][PATH_SIZE];
    const char *paths[3 * (MAJORS + 1) + 1];
    int count = 0, made = 0;
    for (int i = 0; i <= MAJORS && rocm && *rocm; i++) {
        snprintf(below[made], PATH_SIZE, "%s/lib/%s", rocm, names[i]);
        paths[count++] = below[made++];
    }
    for (int i = 0; i <= MAJORS; i++) paths[count++] = names[i];
    for (int i = 0; i <= MAJORS; i++) {
        snprintf(below[made], PATH_SIZE, "/opt/rocm/lib/%s", names[i]);
        paths[count++] = below[made++];
    }
    paths[count] = NULL;
    return dynlib_open(paths, reason, size);
}

static rapt_status hip_open(void **api, int *devices, char reason[REASON_SIZE])
{
    char text[REASON_SIZE - 80];
    *api = NULL;
    void *library = open_library(text, sizeof text);
    if (!library) {
        snprintf(reason, REASON_SIZE, "hip: no runtime (%s)", text);
        return RAPT_OK;
    }
    struct hip *hip = alloc_zeroed(1, sizeof *hip);
    if (!hip) {
        dynlib_close(library);
        return fail(RAPT_NO_MEMORY,
                    "rapt_open: no memory for the HIP runtime's functions (%zu bytes)",
                    sizeof *hip);
    }
    hip->library = library;
    if (!dynlib_resolve(library, symbols, sizeof symbols / sizeof *symbols, hip, text,
                        sizeof text)) {
        snprintf(reason, REASON_SIZE, "hip: %s", text);
    } else if (!hip->properties_6 && !hip->properties) {
        snprintf(reason, REASON_SIZE,
                 "hip: the library has no hipGetDeviceProperties (it is too old or no driver)");
    } else if (start(hip, devices, reason)) {
        *api = hip;
        return RAPT_OK;
    }
    dynlib_close(library);
    free(hip);
    return RAPT_OK;
}

static void hip_close(void *api)
{
    struct hip *hip = api;
    dynlib_close(hip->library);
    free(hip);
}

/* hipDeviceProp_t differs between releases (name[256] is first in all), so gcnArchName,
 * "gfx90a:sramecc+:xnack-", is found by its form: "gfx", hexadecimal digits, then ':' or the end.
 */
static void find_arch(const unsigned char *properties, size_t size, char *arch, size_t arch_size)
{
    for (size_t i = 256; i + 16 < size; i++) {
        if (memcmp(properties + i, "gfx", 3)) continue;
        size_t length = 3;
        while (length < 12 && isxdigit(properties[i + length])) length++;
        unsigned char end = properties[i + length];
        if (length < 6 || (end && end != ':')) continue;
        snprintf(arch, arch_size, "%.*s", (int)length, (const char *)properties + i);
        return;
    }
    snprintf(arch, arch_size, "unknown");
}

static rapt_status hip_describe(struct gpu_device *device, rapt_device_info *info)
{
    enum { PROPERTIES_SIZE = 16 << 10 }; /* ROCm 7's struct has under 2 KB */
    const struct hip *hip = api_of(device);
    size_t bytes = 0;
    unsigned char *properties = alloc_zeroed(1, PROPERTIES_SIZE);
    if (!properties)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for the properties of %s", device->label);
    rapt_status status =
        hip->properties_6
            ? CALL(device, properties_6, hipGetDeviceProperties, properties, device->ordinal)
            : CALL(device, properties, hipGetDeviceProperties, properties, device->ordinal);
    if (!status) find_arch(properties, PROPERTIES_SIZE, device->arch, sizeof device->arch);
    free(properties);
    if (!status)
        status = CALL(device, device_name, hipDeviceGetName, info->name, sizeof info->name,
                      device->ordinal);
    if (!status) status = CALL(device, device_memory, hipDeviceTotalMem, &bytes, device->ordinal);
    if (!status)
        status = CALL(device, device_attribute, hipDeviceGetAttribute, &device->units,
                      ATTRIBUTE_MULTIPROCESSORS, device->ordinal);
    if (!status)
        status = CALL(device, device_attribute, hipDeviceGetAttribute, &device->max_shared,
                      ATTRIBUTE_SHARED, device->ordinal);
    info->memory_bytes = (int64_t)bytes;
    return status;
}

static void hip_release(struct gpu_device *device)
{
    (void)device; /* HIP's runtime shares one context per device by itself */
}

static rapt_status hip_enter(struct gpu_device *device, struct driver_scope *scope)
{
    rapt_status status = CALL(device, get_device, hipGetDevice, &scope->device);
    if (!status && scope->device != device->ordinal)
        status = CALL(device, set_device, hipSetDevice, device->ordinal);
    return status;
}

static void hip_leave(struct gpu_device *device, const struct driver_scope *scope)
{
    if (scope->device != device->ordinal) api_of(device)->set_device(scope->device);
}

static rapt_status hip_module_load(struct gpu_device *device, const void *image, void **module)
{
    return CALL(device, module_load, hipModuleLoadData, module, image);
}

static void hip_module_unload(struct gpu_device *device, void *module)
{
    api_of(device)->module_unload(module);
}

static rapt_status hip_function(struct gpu_device *device, void *module, const char *name,
                                int shared, void **function)
{
    (void)shared; /* a launch may ask for all of the LDS */
    return CALL(device, module_function, hipModuleGetFunction, function, module, name);
}

static rapt_status hip_launch(struct gpu_device *device, const struct driver_launch *l,
                              rapt_stream stream)
{
    return CALL(device, launch, hipModuleLaunchKernel, l->function, l->grid[0], l->grid[1],
                l->grid[2], l->threads, 1, 1, l->shared, stream, l->parameters, NULL);
}

static rapt_status hip_encode(struct gpu_device *device, const struct driver_map *map,
                              const void *data, struct tensor_map *out)
{
    (void)map, (void)data, (void)out;
    return fail(RAPT_UNSUPPORTED,
                "rapt_plan_create: %s has no tensor maps (a row of kernels.def asks for them)",
                device->label);
}

static rapt_status hip_alloc(struct gpu_device *device, size_t bytes, void **out)
{
    return CALL(device, alloc, hipMalloc, out, bytes ? bytes : 1);
}

static void hip_free(struct gpu_device *device, void *memory)
{
    api_of(device)->free(memory);
}

static rapt_status hip_synchronize(struct gpu_device *device, rapt_stream stream)
{
    return CALL(device, synchronize, hipStreamSynchronize, stream);
}

/* Waits even between two places on the device: hipPointerAttribute_t differs between releases, so
 * host memory is not told apart. */
static rapt_status hip_copy(struct gpu_device *device, void *to, const void *from, size_t bytes,
                            rapt_stream stream)
{
    rapt_status status =
        CALL(device, copy, hipMemcpyAsync, to, from, bytes, HIP_COPY_DEFAULT, stream);
    return status ? status : hip_synchronize(device, stream);
}

const struct driver hip_driver = {
    .name = "hip",
    .override = "HSACO",
    .vendor = VENDOR_hip,
    /* Of such an image ROCm 5 and 6 open the file, for each module, by its name up to a space. */
    .wants_copies = 1,
    .open = hip_open,
    .close = hip_close,
    .describe = hip_describe,
    .release = hip_release,
    .enter = hip_enter,
    .leave = hip_leave,
    .module_load = hip_module_load,
    .module_unload = hip_module_unload,
    .function = hip_function,
    .launch = hip_launch,
    .encode = hip_encode,
    .alloc = hip_alloc,
    .free = hip_free,
    .copy = hip_copy,
    .synchronize = hip_synchronize,
};
