/* cuda.c: a stand-in for libcuda.so.1: the functions of cuda_api.def over host memory. See fake.h.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define ENTER(name, device)                                                                        \
    do {                                                                                           \
        int code_ = fake_call(name, device);                                                       \
        if (code_) return code_;                                                                   \
    } while (0)

#define CUDA(optional, field, symbol, parameters) EXPORT int symbol parameters;
#include "gpu/cuda_api.def"
#undef CUDA

enum {
    SHARED_OPTIN = 97,
    MULTIPROCESSORS = 16,
    MEMORY_CLOCK = 36,
    MEMORY_WIDTH = 37,
    MAJOR = 75,
    MINOR = 76,
    SERIALISATION = 6,
    INVALID = 1,
    INVALID_CONTEXT = 201,
    DEPTH = 8
};

/* The primary contexts, of which the address alone says something: threads may retain one at once.
 * And each thread's stack of current ones. */
static char contexts[FAKE_DEVICES];
static _Thread_local void *stack[DEPTH];
static _Thread_local int depth;

static int device_of(const void *context)
{
    return (int)((const char *)context - contexts);
}

static int current_device(const char *name)
{
    if (depth) return device_of(stack[depth - 1]);
    fake_misuse("%s without a current context", name);
    return 0;
}

int cuInit(unsigned flags)
{
    ENTER("cuInit", NO_DEVICE);
    return flags ? INVALID : 0;
}

int cuDriverGetVersion(int *version)
{
    ENTER("cuDriverGetVersion", NO_DEVICE);
    *version = fake_state()->version ? fake_state()->version : 13000;
    return 0;
}

int cuDeviceGetCount(int *count)
{
    ENTER("cuDeviceGetCount", NO_DEVICE);
    *count = fake_state()->devices;
    return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
    ENTER("cuDeviceGet", ordinal);
    *device = ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int size, int device)
{
    ENTER("cuDeviceGetName", device);
    snprintf(name, (size_t)size, "Fake GPU %d", device);
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    ENTER("cuDeviceTotalMem", device);
    *bytes = (size_t)80 << 30;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    ENTER("cuDeviceGetAttribute", device);
    int arch = fake_arch(device)[0] ? atoi(fake_arch(device) + 3) : 90;
    *value = attribute == SHARED_OPTIN      ? fake_state()->max_shared
             : attribute == MULTIPROCESSORS ? 132
             : attribute == MEMORY_CLOCK
                 ? (fake_state()->memory_khz ? fake_state()->memory_khz : 2619000)
             : attribute == MEMORY_WIDTH ? 5120
             : attribute == MAJOR        ? arch / 10
             : attribute == MINOR        ? arch % 10
                                         : -1;
    return *value < 0 ? INVALID : 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
    ENTER("cuDevicePrimaryCtxRetain", device);
    fake_pause();
    *context = &contexts[device];
    __atomic_add_fetch(&fake_state()->contexts, 1, __ATOMIC_RELAXED);
    return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    __atomic_sub_fetch(&fake_state()->contexts, 1, __ATOMIC_RELAXED);
    return fake_call("cuDevicePrimaryCtxRelease",
                     device); /* released even so: a caller can do nothing
                                                      about a failure */
}

int cuCtxGetCurrent(void **context)
{
    ENTER("cuCtxGetCurrent", NO_DEVICE);
    *context = depth ? stack[depth - 1] : NULL;
    return 0;
}

int cuCtxPushCurrent_v2(void *context)
{
    ENTER("cuCtxPushCurrent", device_of(context));
    if (depth == DEPTH) return INVALID;
    stack[depth++] = context;
    __atomic_add_fetch(&fake_state()->pushed, 1, __ATOMIC_RELAXED);
    return 0;
}

int cuCtxPopCurrent_v2(void **context)
{
    fake_call("cuCtxPopCurrent", NO_DEVICE);
    if (!depth) return INVALID_CONTEXT;
    *context = stack[--depth];
    __atomic_sub_fetch(&fake_state()->pushed, 1, __ATOMIC_RELAXED);
    return 0;
}

int cuModuleLoadData(void **module, const void *image)
{
    ENTER("cuModuleLoadData", current_device("cuModuleLoadData"));
    return fake_module_load(current_device("cuModuleLoadData"), image, module);
}

int cuModuleUnload(void *module)
{
    fake_call("cuModuleUnload", NO_DEVICE);
    return fake_module_unload(module);
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    ENTER("cuModuleGetFunction", ((struct fake_module *)module)->device);
    return fake_module_function(module, name, function);
}

int cuFuncSetAttribute(void *function, int attribute, int value)
{
    ENTER("cuFuncSetAttribute", ((struct fake_function *)function)->module->device);
    if (attribute != 8 || value > fake_state()->max_shared) return INVALID;
    ((struct fake_function *)function)->shared = value;
    return 0;
}

static int launch(struct fake_function *f, const unsigned grid[3], const unsigned block[3],
                  unsigned shared, void *stream, void **parameters, void **extra, int early)
{
    if (extra) fake_misuse("cuLaunchKernel: both kinds of parameters");
    if (shared > 48 << 10 && f->shared < (int)shared)
        fake_misuse("%s: %u bytes of shared memory without the attribute", f->name, shared);
    return fake_launch(current_device("cuLaunchKernel"), f, grid, block, shared, stream, parameters,
                       early);
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **parameters, void **extra)
{
    ENTER("cuLaunchKernel", current_device("cuLaunchKernel"));
    return launch(function, (unsigned[3]){gx, gy, gz}, (unsigned[3]){bx, by, bz}, shared, stream,
                  parameters, extra, 0);
}

/* CUlaunchConfig and CUlaunchAttribute of the CUDA Driver API reference; the one attribute known
 * here is programmatic stream serialisation. */
struct config {
    unsigned grid[3], block[3], shared;
    void *stream;
    const struct {
        int id, padding;
        union {
            int on;
            char bytes[64];
        } value;
    } * attributes;
    unsigned count;
};

int cuLaunchKernelEx(const void *config, void *function, void **parameters, void **extra)
{
    ENTER("cuLaunchKernelEx", current_device("cuLaunchKernelEx"));
    const struct config *c = config;
    if (c->count != 1 || c->attributes->id != SERIALISATION || c->attributes->value.on != 1)
        fake_misuse("cuLaunchKernelEx: an attribute that is not known");
    return launch(function, c->grid, c->block, c->shared, c->stream, parameters, extra, 1);
}

int cuMemAlloc_v2(uint64_t *memory, size_t bytes)
{
    ENTER("cuMemAlloc", current_device("cuMemAlloc"));
    void *address;
    int error = fake_alloc(bytes, &address);
    if (!error) *memory = (uint64_t)(uintptr_t)address;
    return error;
}

int cuMemFree_v2(uint64_t memory)
{
    fake_call("cuMemFree", NO_DEVICE);
    return fake_free((void *)(uintptr_t)memory);
}

int cuMemcpyAsync(uint64_t to, uint64_t from, size_t bytes, void *stream)
{
    ENTER("cuMemcpyAsync", current_device("cuMemcpyAsync"));
    (void)stream;
    memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
    return 0;
}

int cuPointerGetAttribute(void *value, int attribute, uint64_t pointer)
{
    ENTER("cuPointerGetAttribute", NO_DEVICE);
    int pinned = fake_state()->pinned && (uintptr_t)fake_state()->pinned == (uintptr_t)pointer;
    if (attribute != 2 || (!pinned && !fake_owns((const void *)(uintptr_t)pointer, 1)))
        return INVALID;
    *(unsigned *)value = pinned ? 1 : 2; /* CU_MEMORYTYPE_ HOST, DEVICE */
    return 0;
}

int cuStreamSynchronize(void *stream)
{
    ENTER("cuStreamSynchronize", current_device("cuStreamSynchronize"));
    fake_state()->waited_for = stream;
    return 0;
}

/* Error texts are asked while a failure is being reported: not counted. */
int cuGetErrorName(int error, const char **text)
{
    *text = NULL;
    if (error == FAKE_WORDLESS) return INVALID;
    *text = error == FAKE_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == FAKE_NO_BINARY   ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
            : error == FAKE_NOT_FOUND   ? "CUDA_ERROR_NOT_FOUND"
                                        : "CUDA_ERROR_OTHER";
    return 0;
}

int cuGetErrorString(int error, const char **text)
{
    *text = NULL;
    if (error == FAKE_WORDLESS) return INVALID;
    *text = error == FAKE_OUT_OF_MEMORY ? "out of memory" : "a made-up failure";
    return 0;
}

int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, void *data, const uint64_t *size,
                           const uint64_t *stride, const uint32_t *box, const uint32_t *step,
                           int interleave, int swizzle, int promotion, int fill)
{
    ENTER("cuTensorMapEncodeTiled", NO_DEVICE);
    if ((uintptr_t)map % 64 || (uintptr_t)data % 16 || !data || rank < 3 || rank > 5 || interleave)
        return INVALID;
    struct fake_map m = {
        .data = data, .rank = (uint8_t)rank, .type = (uint8_t)type, .swizzle = (uint8_t)swizzle};
    m.fill = (uint8_t)fill;
    m.promotion = (uint8_t)promotion;
    for (uint32_t i = 0; i < rank; i++) {
        if (size[i] < 1 || size[i] > (uint64_t)1 << 32 || box[i] < 1 || box[i] > 256 ||
            step[i] != 1)
            return INVALID;
        if (i + 1 < rank && (stride[i] % 16 || stride[i] >= (uint64_t)1 << 40)) return INVALID;
        m.size[i] = size[i];
        m.box[i] = box[i];
        if (i + 1 < rank) m.stride[i] = stride[i];
    }
    memset(map, 0x5a, sizeof(struct tensor_map));
    memcpy(map, &m, sizeof m);
    return 0;
}
