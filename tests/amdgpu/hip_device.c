/* Emulated HIP runtime: start-up, devices, attributes, errors. */
#include <stdlib.h>
#include <string.h>

#include "hip.h"

static struct hip_state state = {.lock = PTHREAD_MUTEX_INITIALIZER};
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool usable;
static _Thread_local int current_device;
static _Thread_local hip_error last_error;

static void read_options(struct amdgpu_options *o)
{
    const char *order = getenv("RAPT_EMULATE_ORDER"), *checks = getenv("RAPT_EMULATE_CHECKS");
    const char *threads = getenv("RAPT_EMULATE_THREADS"), *report = getenv("RAPT_EMULATE_STATS");
    *o = amdgpu_default_options();
    if (order && strncmp(order, "backward", 8) == 0) o->order = AMDGPU_BACKWARD;
    if (order && strncmp(order, "shuffled", 8) == 0) {
        o->order = AMDGPU_SHUFFLED;
        if (order[8] == ':') o->seed = (uint32_t)strtoul(order + 9, NULL, 10);
    }
    if (checks && strcmp(checks, "all") == 0) o->check_races = true;
    if (checks && strcmp(checks, "none") == 0) o->check_undefined = o->check_waits = false;
    if (threads) o->threads = atoi(threads);
    if (report) state.report = strcmp(report, "sum") == 0    ? 2
                                : strcmp(report, "loop") == 0 ? 3
                                                              : atoi(report) != 0;
    o->profile = state.report >= 2;
}

static void start(void)
{
    const char *list = getenv("RAPT_EMULATE");
    char name[32];
    if (!list || !*list) list = "gfx1100";
    while (*list && state.device_count < MAX_DEVICES) {
        size_t n = strcspn(list, ",");
        struct hip_device *d = &state.devices[state.device_count];
        snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), list);
        if (!amdgpu_device_info(name, &d->info)) {
            fprintf(stderr, "RAPT_EMULATE: \"%s\" is not an emulated GPU\n", name);
            return;
        }
        d->total = (size_t)192
                   << 30; /* more than any test asks for; large allocations are mapped sparsely */
        state.device_count++;
        list += n + (list[n] == ',');
    }
    state.memory = amdgpu_memory_open();
    read_options(&state.options);
    usable = state.memory != NULL;
}

struct hip_state *hip_state(void)
{
    pthread_once(&once, start);
    return usable ? &state : NULL;
}

int hip_current_device(void)
{
    return current_device;
}

hip_error hip_note(hip_error e)
{
    if (e) last_error = e;
    return e;
}

HIP_API const char *hipGetErrorName(hip_error);
HIP_API const char *hipGetErrorString(hip_error);
HIP_API hip_error hipGetLastError(void);
HIP_API hip_error hipPeekAtLastError(void);
HIP_API hip_error hipInit(unsigned);
HIP_API hip_error hipDriverGetVersion(int *);
HIP_API hip_error hipRuntimeGetVersion(int *);
HIP_API hip_error hipGetDeviceCount(int *);
HIP_API hip_error hipDeviceGet(int *, int);
HIP_API hip_error hipDeviceGetName(char *, int, int);
HIP_API hip_error hipDeviceTotalMem(size_t *, int);
HIP_API hip_error hipDeviceGetAttribute(int *, int, int);
HIP_API hip_error hipGetDevicePropertiesR0600(void *, int);
HIP_API hip_error hipGetDevice(int *);
HIP_API hip_error hipSetDevice(int);
HIP_API hip_error hipDevicePrimaryCtxRetain(void **, int);
HIP_API hip_error hipDevicePrimaryCtxRelease(int);
HIP_API hip_error hipCtxSetCurrent(void *);
HIP_API hip_error hipCtxGetCurrent(void **);
HIP_API hip_error hipCtxGetDevice(int *);
HIP_API hip_error hipDeviceSynchronize(void);
HIP_API hip_error hipDeviceGetPCIBusId(char *, int, int);
HIP_API hip_error hipDeviceComputeCapability(int *, int *, int);

const char *hipGetErrorName(hip_error e)
{
#define NAME(name, value, text)                                                                    \
    if (e == value) return #name;
    HIP_ERROR_LIST(NAME)
    return "hipErrorUnknown";
}

const char *hipGetErrorString(hip_error e)
{
#define TEXT(name, value, text)                                                                    \
    if (e == value) return text;
    HIP_ERROR_LIST(TEXT)
    return "unknown error";
}

hip_error hipGetLastError(void)
{
    hip_error e = last_error;
    last_error = hipSuccess;
    return e;
}

hip_error hipPeekAtLastError(void)
{
    return last_error;
}

hip_error hipInit(unsigned flags)
{
    if (flags) return hip_note(hipErrorInvalidValue);
    return hip_note(hip_state() ? hipSuccess : hipErrorNoDevice);
}

hip_error hipRuntimeGetVersion(int *version)
{
    if (!version) return hip_note(hipErrorInvalidValue);
    *version = 60443482; /* HIP 6.4 */
    return hipSuccess;
}

hip_error hipDriverGetVersion(int *version)
{
    return hipRuntimeGetVersion(version);
}

hip_error hipGetDeviceCount(int *count)
{
    struct hip_state *s = hip_state();
    if (!count) return hip_note(hipErrorInvalidValue);
    *count = s ? s->device_count : 0;
    return hip_note(*count ? hipSuccess : hipErrorNoDevice);
}

static struct hip_device *device_at(int device)
{
    struct hip_state *s = hip_state();
    return s && device >= 0 && device < s->device_count ? &s->devices[device] : NULL;
}

hip_error hipDeviceGet(int *device, int ordinal)
{
    if (!device || !device_at(ordinal)) return hip_note(hipErrorInvalidDevice);
    *device = ordinal;
    return hipSuccess;
}

hip_error hipDeviceGetName(char *name, int size, int device)
{
    const struct hip_device *d = device_at(device);
    if (!d) return hip_note(hipErrorInvalidDevice);
    if (!name || size <= 0) return hip_note(hipErrorInvalidValue);
    snprintf(name, (size_t)size, "%s", d->info.name);
    return hipSuccess;
}

hip_error hipDeviceTotalMem(size_t *bytes, int device)
{
    const struct hip_device *d = device_at(device);
    if (!d) return hip_note(hipErrorInvalidDevice);
    if (!bytes) return hip_note(hipErrorInvalidValue);
    *bytes = d->total;
    return hipSuccess;
}

static int number_after_gfx(const char *gfx, bool minor)
{
    int value = (int)strtol(gfx + 3, NULL, 16), major = value >> 8, rest = value >> 4 & 15;
    return minor ? rest : major / 16 * 10 + major % 16; /* gfx1100: 11.0, gfx942: 9.4 */
}

/* Attribute numbers of hipDeviceAttribute_t, ROCm 5 and later. */
hip_error hipDeviceGetAttribute(int *value, int attribute, int device)
{
    const struct hip_device *d = device_at(device);
    if (!d) return hip_note(hipErrorInvalidDevice);
    if (!value) return hip_note(hipErrorInvalidValue);
    const struct {
        int attribute, value;
    } known[] = {{5, 2000000},
                 {23, number_after_gfx(d->info.gfx, false)},
                 {26, 1024},
                 {27, 1024},
                 {28, 1024},
                 {29, INT32_MAX},
                 {30, 65535},
                 {31, 65535},
                 {56, 1024},
                 {57, d->info.waves_per_simd * d->info.simds_per_unit * d->info.wave_size},
                 {60, 1000000},
                 {61, number_after_gfx(d->info.gfx, true)},
                 {63, d->info.units},
                 {74, d->info.lds_bytes},
                 {87, d->info.wave_size}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].attribute == attribute) {
            *value = known[i].value;
            return hipSuccess;
        }
    return hip_note(hipErrorInvalidValue);
}

/* Offsets of hipDeviceProp_tR0600 (1472 bytes, ROCm 6). */
hip_error hipGetDevicePropertiesR0600(void *properties, int device)
{
    const struct hip_device *d = device_at(device);
    uint8_t *p = properties;
    if (!d) return hip_note(hipErrorInvalidDevice);
    if (!p) return hip_note(hipErrorInvalidValue);
    memset(p, 0, 1472);
    snprintf((char *)p, 256, "%s", d->info.name);
    snprintf((char *)p + 1160, 256, "%s%s", d->info.gfx,
             d->info.wave_size == 64 ? ":sramecc+:xnack-" : "");
    const struct {
        int offset, bytes;
        uint64_t value;
    } fields[] = {{288, 8, d->total},
                  {296, 8, (uint64_t)d->info.lds_bytes},
                  {304, 4, 65536},
                  {308, 4, (uint64_t)d->info.wave_size},
                  {320, 4, 1024},
                  {324, 4, 1024},
                  {328, 4, 1024},
                  {332, 4, 1024},
                  {336, 4, INT32_MAX},
                  {340, 4, 65535},
                  {344, 4, 65535},
                  {348, 4, 2000000},
                  {360, 4, (uint64_t)number_after_gfx(d->info.gfx, false)},
                  {364, 4, (uint64_t)number_after_gfx(d->info.gfx, true)},
                  {388, 4, (uint64_t)d->info.units},
                  {1416, 8, (uint64_t)d->info.lds_bytes}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        memcpy(p + fields[i].offset, &fields[i].value, (size_t)fields[i].bytes);
    return hipSuccess;
}

hip_error hipDeviceComputeCapability(int *major, int *minor, int device)
{
    const struct hip_device *d = device_at(device);
    if (!d || !major || !minor) return hip_note(hipErrorInvalidDevice);
    *major = number_after_gfx(d->info.gfx, false);
    *minor = number_after_gfx(d->info.gfx, true);
    return hipSuccess;
}

hip_error hipDeviceGetPCIBusId(char *text, int size, int device)
{
    if (!device_at(device)) return hip_note(hipErrorInvalidDevice);
    snprintf(text, (size_t)size, "0000:%02x:00.0", device + 1);
    return hipSuccess;
}

hip_error hipGetDevice(int *device)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!device) return hip_note(hipErrorInvalidValue);
    *device = current_device;
    return hipSuccess;
}

hip_error hipSetDevice(int device)
{
    if (!device_at(device)) return hip_note(hipErrorInvalidDevice);
    current_device = device;
    return hipSuccess;
}

hip_error hipDevicePrimaryCtxRetain(void **context, int device)
{
    if (!device_at(device) || !context) return hip_note(hipErrorInvalidDevice);
    *context = device_at(device);
    return hipSuccess;
}

hip_error hipDevicePrimaryCtxRelease(int device)
{
    return hip_note(device_at(device) ? hipSuccess : hipErrorInvalidDevice);
}

hip_error hipCtxSetCurrent(void *context)
{
    struct hip_state *s = hip_state();
    for (int i = 0; s && i < s->device_count; i++)
        if (context == &s->devices[i]) {
            current_device = i;
            return hipSuccess;
        }
    return hip_note(context ? hipErrorInvalidHandle : hipSuccess);
}

hip_error hipCtxGetCurrent(void **context)
{
    if (!context || !device_at(current_device)) return hip_note(hipErrorInvalidValue);
    *context = device_at(current_device);
    return hipSuccess;
}

hip_error hipCtxGetDevice(int *device)
{
    return hipGetDevice(device);
}

hip_error hipDeviceSynchronize(void)
{
    struct hip_state *s = hip_state();
    if (!s) return hip_note(hipErrorNoDevice);
    return hip_note(__atomic_load_n(&s->captures, __ATOMIC_SEQ_CST)
                        ? hipErrorStreamCaptureUnsupported
                        : hipSuccess);
}
