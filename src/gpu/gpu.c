/* gpu.c: the two GPU backends, cuda and hip: devices, memory, rows; they differ in their driver
 * alone. */
#include "gpu/gpu.h"
#include "base/alloc.h"
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append_reason(char reason[REASON_SIZE], const char *sentence)
{
    size_t length = strlen(reason);
    snprintf(reason + length, REASON_SIZE - length, "%s%s", length ? "; " : "", sentence);
}

static void free_device(struct gpu_device *device)
{
    if (!device) return;
    modules_free(device->modules);
    free(device->kernels);
    free(device);
}

static int runs_something(const struct gpu_device *device)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (kernel_rows[i].vendor == device->driver->vendor &&
            kernel_rows[i].end > kernel_rows[i].begin && row_suits(&kernel_rows[i], device->arch))
            return 1;
    return 0;
}

static rapt_status make_device(struct gpu *gpu, int ordinal, rapt_device_info *info,
                               struct gpu_device **out)
{
    struct gpu_device *device = alloc_zeroed(1, sizeof *device);
    *out = NULL;
    if (!device)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for device %s:%d", gpu->driver->name,
                    ordinal);
    device->driver = gpu->driver;
    device->api = gpu->api;
    device->ordinal = ordinal;
    snprintf(device->label, sizeof device->label, "%s:%d", gpu->driver->name, ordinal);
    snprintf(info->backend, sizeof info->backend, "%s", gpu->driver->name);
    info->index = ordinal;
    rapt_status status = gpu->driver->describe(device, info);
    snprintf(info->arch, sizeof info->arch, "%s", device->arch);
    info->compute_units = device->units;
    if (!status && !(device->modules = modules_create(&gpu->overrides))) status = RAPT_NO_MEMORY;
    if (!status) status = kernels_list(device);
    if (status) {
        free_device(device);
        return status;
    }
    *out = device;
    return RAPT_OK;
}

/* A device that its driver cannot describe is left out, with the reason. */
static rapt_status add_device(rapt_context *context, const struct backend *backend, struct gpu *gpu,
                              int ordinal, char reason[REASON_SIZE])
{
    rapt_device_info info = {.struct_size = sizeof info};
    struct gpu_device *device;
    rapt_status status = make_device(gpu, ordinal, &info, &device);
    if (status == RAPT_DRIVER) {
        append_reason(reason, last_error());
        return RAPT_OK;
    }
    if (status) return status;
    if (!runs_something(device)) {
        char sentence[REASON_SIZE];
        snprintf(sentence, sizeof sentence, "%s: %.64s, %s, has no code object in this library",
                 device->label, info.name, device->arch);
        append_reason(reason, sentence);
    }
    status = context_add_device(context, backend, &info, device);
    if (status) free_device(device);
    return status;
}

static void gpu_close(void *state)
{
    struct gpu *gpu = state;
    gpu->driver->close(gpu->api);
    overrides_free(&gpu->overrides);
    free(gpu);
}

static rapt_status gpu_open(const struct backend *backend, const struct driver *driver,
                            rapt_context *context, void **state, char reason[REASON_SIZE])
{
    void *api;
    int devices = 0;
    rapt_status status = driver->open(&api, &devices, reason);
    *state = NULL;
    if (status || !api) return status;
    struct gpu *gpu = alloc_zeroed(1, sizeof *gpu);
    if (!gpu) {
        driver->close(api);
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for the %s backend", driver->name);
    }
    gpu->driver = driver;
    gpu->api = api;
    *state = gpu; /* from here on the context closes it, after its devices */
    status = overrides_read(&gpu->overrides, driver);
    for (int i = 0; i < devices && !status; i++)
        status = add_device(context, backend, gpu, i, reason);
    return status;
}

static void gpu_device_close(rapt_device *rapt)
{
    struct gpu_device *device = rapt->state;
    struct driver_scope scope;
    if (modules_loaded(device->modules)) { /* tried even if enter fails: nothing is lost by it */
        int entered = !device->driver->enter(device, &scope);
        modules_unload(device);
        if (entered) device->driver->leave(device, &scope);
    }
    device->driver->release(device);
    free_device(device);
    rapt->state = NULL;
}

static int gpu_kernel_count(const rapt_device *device)
{
    return ((const struct gpu_device *)device->state)->kernel_count;
}

static const char *gpu_kernel_name(const rapt_device *device, int kernel)
{
    return ((const struct gpu_device *)device->state)->kernels[kernel].row->name;
}

static const char *gpu_kernel_refuses(const rapt_device *device, int kernel,
                                      const struct problem *p, char reason[REASON_SIZE])
{
    return kernels_refuse(device->state, kernel, p, reason);
}

/* The rows of one vendor, then the composed path, which is made of them. */
static int rows_of(enum vendor vendor)
{
    int count = 1;
    for (int i = 0; i < kernel_row_count; i++) count += kernel_rows[i].vendor == vendor;
    return count;
}

static const struct row *row_at(enum vendor vendor, int index)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (kernel_rows[i].vendor == vendor && index-- == 0) return &kernel_rows[i];
    return NULL;
}

/* Whether a device of the context uses this row's code; row NULL: the composed path. */
static int is_present(const rapt_context *context, const struct driver *driver,
                      const struct row *row)
{
    for (int i = 0; i < context->device_count; i++) {
        const struct gpu_device *device = context->devices[i]->state;
        if (strcmp(context->devices[i]->backend->name, driver->name)) continue;
        if (row ? kernels_row(device, row->name) == row : kernels_composed(device)) return 1;
    }
    return 0;
}

static void describe_row(const rapt_context *context, const struct driver *driver,
                         const struct gpu *gpu, int index, rapt_kernel_info *info)
{
    const struct row *row = row_at(driver->vendor, index);
    if (row) {
        info->name = row->name;
        info->arch = row->arch;
        info->op = op_name[row->op];
        info->override = gpu ? overrides_find(&gpu->overrides, row->name) : NULL;
        info->bytes = row->end - row->begin;
        info->present = is_present(context, driver, row);
    } else {
        info->name = "composed";
        info->arch = "any";
        info->op = op_name[OP_forward];
        info->present = is_present(context, driver, NULL);
    }
}

static rapt_status gpu_alloc(rapt_device *rapt, size_t bytes, void **out)
{
    struct gpu_device *device = rapt->state;
    struct driver_scope scope;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    status = device->driver->alloc(device, bytes, out);
    device->driver->leave(device, &scope);
    return status;
}

static void gpu_free(rapt_device *rapt, void *memory)
{
    struct gpu_device *device = rapt->state;
    struct driver_scope scope;
    int entered = !device->driver->enter(
        device, &scope); /* an address says by itself whose it is, so a free may still work */
    device->driver->free(device, memory);
    if (entered) device->driver->leave(device, &scope);
}

static rapt_status gpu_copy(rapt_device *rapt, void *to, const void *from, size_t bytes,
                            rapt_stream stream)
{
    struct gpu_device *device = rapt->state;
    struct driver_scope scope;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    status = device->driver->copy(device, to, from, bytes, stream);
    device->driver->leave(device, &scope);
    return status;
}

static rapt_status gpu_synchronize(rapt_device *rapt, rapt_stream stream)
{
    struct gpu_device *device = rapt->state;
    struct driver_scope scope;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    status = device->driver->synchronize(device, stream);
    device->driver->leave(device, &scope);
    return status;
}

/* What a vendor's slots need to know is the vendor; everything else is shared. */
#define VENDOR_SLOTS(vendor)                                                                       \
    static rapt_status vendor##_open(rapt_context *context, void **state,                          \
                                     char reason[REASON_SIZE])                                     \
    {                                                                                              \
        return gpu_open(&vendor##_backend, &vendor##_driver, context, state, reason);              \
    }                                                                                              \
    static int vendor##_row_count(void)                                                            \
    {                                                                                              \
        return rows_of(VENDOR_##vendor);                                                           \
    }                                                                                              \
    static void vendor##_row_describe(const rapt_context *context, void *state, int row,           \
                                      rapt_kernel_info *info)                                      \
    {                                                                                              \
        describe_row(context, &vendor##_driver, state, row, info);                                 \
    }
VENDOR_SLOTS(cuda)
VENDOR_SLOTS(hip)

#define BACKEND(vendor)                                                                            \
    const struct backend vendor##_backend = {                                                      \
        .name = #vendor,                                                                           \
        .thread_stream = (rapt_stream)2, /* CU_STREAM_PER_THREAD, hipStreamPerThread */            \
        .open = vendor##_open,                                                                     \
        .close = gpu_close,                                                                        \
        .device_close = gpu_device_close,                                                          \
        .kernel_count = gpu_kernel_count,                                                          \
        .kernel_name = gpu_kernel_name,                                                            \
        .kernel_refuses = gpu_kernel_refuses,                                                      \
        .row_count = vendor##_row_count,                                                           \
        .row_describe = vendor##_row_describe,                                                     \
        .plan = gpu_plan,                                                                          \
        .plan_free = gpu_plan_free,                                                                \
        .execute = gpu_execute,                                                                    \
        .alloc = gpu_alloc,                                                                        \
        .free = gpu_free,                                                                          \
        .copy = gpu_copy,                                                                          \
        .synchronize = gpu_synchronize,                                                            \
        .rope = gpu_rope,                                                                          \
        .softmax = gpu_softmax,                                                                    \
        .qk = gpu_qk,                                                                              \
        .pv = gpu_pv,                                                                              \
        .causal_mask = gpu_causal_mask,                                                            \
        .kv_replicate = gpu_kv_replicate,                                                          \
        .kv_append = gpu_kv_append,                                                                \
    };
BACKEND(cuda)
BACKEND(hip)
