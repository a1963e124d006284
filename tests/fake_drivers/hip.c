/* hip.c: a stand-in for libamdhip64.so: the functions of hip_api.def over host memory. See fake.h.
 */
#include "fake.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define ENTER(name, device)                                                                        \
    do {                                                                                           \
        int code_ = fake_call(name, device);                                                       \
        if (code_) return code_;                                                                   \
    } while (0)

#define HIP(optional, field, symbol, type, parameters) EXPORT type symbol parameters;
#include "gpu/hip_api.def"
#undef HIP

enum { MULTIPROCESSORS = 63, SHARED = 74, INVALID = 1, FILE_NOT_FOUND = 301, COPY_DEFAULT = 4 };

static _Thread_local int current;

int hipInit(unsigned flags)
{
    current = 0; /* so that one session's failed return to device 0 does not change the next one */
    ENTER("hipInit", NO_DEVICE);
    return flags ? INVALID : 0;
}

int hipRuntimeGetVersion(int *version)
{
    ENTER("hipRuntimeGetVersion", NO_DEVICE);
    *version = fake_state()->version ? fake_state()->version : 60443480;
    return 0;
}

int hipGetDeviceCount(int *count)
{
    ENTER("hipGetDeviceCount", NO_DEVICE);
    *count = fake_state()->devices;
    return 0;
}

int hipDeviceGetName(char *name, int size, int device)
{
    ENTER("hipDeviceGetName", device);
    snprintf(name, (size_t)size, "Fake gfx GPU %d", device);
    return 0;
}

int hipDeviceTotalMem(size_t *bytes, int device)
{
    ENTER("hipDeviceTotalMem", device);
    *bytes = (size_t)192 << 30;
    return 0;
}

int hipDeviceGetAttribute(int *value, int attribute, int device)
{
    ENTER("hipDeviceGetAttribute", device);
    *value = attribute == MULTIPROCESSORS ? 304
             : attribute == SHARED        ? fake_state()->max_shared
                                          : -1;
    return *value < 0 ? INVALID : 0;
}

/* Libraries have one of the two names, both, or, which rapt refuses, neither: mk/gpu.mk. */
#if !defined(WITHOUT_PROPERTIES) || !defined(WITHOUT_PROPERTIES_6)
/* As ROCm's struct: the marketing name first, the arch with its features somewhere behind; between
 * them what else looks like one. */
static int properties(unsigned char *to, int at, int device)
{
    memset(to, 0, 1024);
    snprintf((char *)to, 256, "Fake gfx906 GPU of gfx906");
    snprintf((char *)to + 300, 64, "gfx9, gfx90a is the arch, gfx");
    snprintf((char *)to + at, 256, "%s:sramecc+:xnack-",
             fake_arch(device)[0] ? fake_arch(device) : "gfx942");
    return 0;
}

#endif

#ifndef WITHOUT_PROPERTIES_6
int hipGetDevicePropertiesR0600(void *to, int device)
{
    ENTER("hipGetDeviceProperties", device);
    return properties(to, 700, device);
}

#endif

#ifndef WITHOUT_PROPERTIES
int hipGetDeviceProperties(void *to, int device)
{
    ENTER("hipGetDeviceProperties", device);
    return properties(to, 396, device);
}
#endif

int hipGetDevice(int *device)
{
    ENTER("hipGetDevice", NO_DEVICE);
    *device = current;
    return 0;
}

int hipSetDevice(int device)
{
    ENTER("hipSetDevice", device);
    if (device < 0 || device >= fake_state()->devices) return INVALID;
    current = device;
    return 0;
}

/* As ROCm 5 and 6, where the file that the image is mapped from has a space in its name. */
int hipModuleLoadData(void **module, const void *image)
{
    Dl_info mapped;
    ENTER("hipModuleLoadData", current);
    if (dladdr(image, &mapped)) return FILE_NOT_FOUND;
    return fake_module_load(current, image, module);
}

int hipModuleUnload(void *module)
{
    fake_call("hipModuleUnload", NO_DEVICE);
    return fake_module_unload(module);
}

int hipModuleGetFunction(void **function, void *module, const char *name)
{
    ENTER("hipModuleGetFunction", ((struct fake_module *)module)->device);
    return fake_module_function(module, name, function);
}

int hipModuleLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                          unsigned by, unsigned bz, unsigned shared, void *stream,
                          void **parameters, void **extra)
{
    ENTER("hipModuleLaunchKernel", current);
    if (extra) fake_misuse("hipModuleLaunchKernel: both kinds of parameters");
    return fake_launch(current, function, (unsigned[3]){gx, gy, gz}, (unsigned[3]){bx, by, bz},
                       shared, stream, parameters, 0);
}

int hipMalloc(void **memory, size_t bytes)
{
    ENTER("hipMalloc", current);
    return fake_alloc(bytes, memory);
}

int hipFree(void *memory)
{
    fake_call("hipFree", NO_DEVICE);
    return fake_free(memory);
}

int hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    ENTER("hipMemcpyAsync", current);
    (void)stream;
    if (kind != COPY_DEFAULT) fake_misuse("hipMemcpyAsync of kind %d", kind);
    memmove(to, from, bytes);
    return 0;
}

int hipStreamSynchronize(void *stream)
{
    ENTER("hipStreamSynchronize", current);
    fake_state()->waited_for = stream;
    return 0;
}

const char *hipGetErrorName(int error)
{
    return error == FAKE_WORDLESS        ? NULL
           : error == FAKE_OUT_OF_MEMORY ? "hipErrorOutOfMemory"
           : error == FAKE_NO_BINARY     ? "hipErrorNoBinaryForGpu"
           : error == FAKE_NOT_FOUND     ? "hipErrorNotFound"
                                         : "hipErrorOther";
}

const char *hipGetErrorString(int error)
{
    return error == FAKE_WORDLESS        ? NULL
           : error == FAKE_OUT_OF_MEMORY ? "out of memory"
                                         : "a made-up failure";
}
