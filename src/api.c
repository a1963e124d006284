/* api.c: the exported functions of attention, devices and memory: adopt, check, delegate. */
#include "base/error.h"
#include "plan.h"

#include <stdio.h>
#include <string.h>

RAPT_API const char *rapt_status_text(rapt_status status)
{
    switch (status) {
#define CASE(name, value, text)                                                                    \
    case RAPT_##name:                                                                              \
        return text;
        RAPT_STATUS_LIST(CASE)
#undef CASE
    }
    return "unknown status";
}

RAPT_API const char *rapt_last_error(void)
{
    return last_error();
}

RAPT_API int rapt_version(void)
{
    return RAPT_VERSION_MAJOR * 10000 + RAPT_VERSION_MINOR * 100 + RAPT_VERSION_PATCH;
}

RAPT_API int rapt_device_count(const rapt_context *context)
{
    return context ? context->device_count : 0;
}

RAPT_API rapt_device *rapt_device_at(const rapt_context *context, int index)
{
    return context && index >= 0 && index < context->device_count ? context->devices[index] : NULL;
}

static rapt_status fail_on_no_device(const char *function)
{
    return fail(RAPT_INVALID, "%s: device is NULL (as rapt_device_at past the last one)", function);
}

/* Fills a caller's growing output struct with as much as it has room for; its own size stays. */
static rapt_status give(void *to, const void *from, size_t size, const char *function)
{
    uint64_t given;
    if (!to) return fail(RAPT_INVALID, "%s: info is NULL (pass the address of a struct)", function);
    memcpy(&given, to, sizeof given);
    if (given < size || given > 65536)
        return fail(RAPT_INVALID,
                    "%s: struct_size is %llu (set it to sizeof of the struct, at least %zu)",
                    function, (unsigned long long)given, size);
    memset(to, 0, (size_t)given);
    memcpy(to, from, size);
    memcpy(to, &given, sizeof given);
    return RAPT_OK;
}

RAPT_API rapt_status rapt_device_describe(const rapt_device *device, rapt_device_info *info)
{
    if (!device) return fail_on_no_device("rapt_device_describe");
    return give(info, &device->info, sizeof device->info, "rapt_device_describe");
}

RAPT_API const char *rapt_backend_note(const rapt_context *context, int index, const char **name)
{
    if (!context || index < 0 || index >= BACKEND_COUNT) return NULL;
    if (name) *name = backends[index]->name;
    return context->note[index];
}

RAPT_API int64_t rapt_kernel_count(const rapt_context *context)
{
    int64_t count = 0;
    for (int i = 0; context && i < BACKEND_COUNT; i++) count += backends[i]->row_count();
    return count;
}

RAPT_API rapt_status rapt_kernel_at(const rapt_context *context, int64_t index,
                                    rapt_kernel_info *info)
{
    int64_t row = index;
    if (!context) return fail(RAPT_INVALID, "rapt_kernel_at: context is NULL");
    for (int i = 0; row >= 0 && i < BACKEND_COUNT; i++) {
        int count = backends[i]->row_count();
        if (row < count) {
            rapt_kernel_info full = {.struct_size = sizeof full, .backend = backends[i]->name};
            backends[i]->row_describe(context, context->state[i], (int)row, &full);
            return give(info, &full, sizeof full, "rapt_kernel_at");
        }
        row -= count;
    }
    return fail(RAPT_INVALID, "rapt_kernel_at: there is no kernel %lld (0 ... %lld)",
                (long long)index, (long long)rapt_kernel_count(context) - 1);
}

RAPT_API rapt_status rapt_alloc(rapt_device *device, size_t bytes, void **out)
{
    if (!out) return fail(RAPT_INVALID, "rapt_alloc: out is NULL (pass the address of a pointer)");
    *out = NULL;
    if (!device) return fail_on_no_device("rapt_alloc");
    return device->backend->alloc(device, bytes, out);
}

RAPT_API void rapt_free(rapt_device *device, void *memory)
{
    if (device && memory) device->backend->free(device, memory);
}

RAPT_API rapt_status rapt_copy(rapt_device *device, void *to, const void *from, size_t bytes,
                               rapt_stream stream)
{
    if (!device) return fail_on_no_device("rapt_copy");
    if (!bytes) return RAPT_OK;
    if (!to || !from) return fail(RAPT_INVALID, "rapt_copy: %s is NULL", to ? "from" : "to");
    return device->backend->copy(device, to, from, bytes, stream);
}

RAPT_API rapt_status rapt_synchronize(rapt_device *device, rapt_stream stream)
{
    if (!device) return fail_on_no_device("rapt_synchronize");
    return device->backend->synchronize(device, stream);
}

RAPT_API rapt_status rapt_plan_create(rapt_plan **out, rapt_device *device, const rapt_attention *a)
{
    struct problem p;
    if (!out)
        return fail(RAPT_INVALID,
                    "rapt_plan_create: out is NULL (pass the address of a plan pointer)");
    *out = NULL;
    if (!device) return fail_on_no_device("rapt_plan_create");
    rapt_status status = params_check(a, "rapt_plan_create", &p);
    return status ? status : plan_build(device, &p, "rapt_plan_create", out);
}

RAPT_API size_t rapt_plan_workspace_size(const rapt_plan *plan)
{
    return plan ? plan->workspace_size : 0;
}

RAPT_API const char *rapt_plan_kernel(const rapt_plan *plan)
{
    return plan ? plan->device->backend->kernel_name(plan->device, plan->kernel) : "";
}

RAPT_API rapt_status rapt_plan_execute(const rapt_plan *plan, const rapt_attention *a,
                                       void *workspace, rapt_stream stream)
{
    struct problem_data data;
    if (!plan) return fail(RAPT_INVALID, "rapt_plan_execute: plan is NULL");
    rapt_status status = params_match(&plan->problem, a, "rapt_plan_execute", &data);
    if (status) return status;
    if (plan->workspace_size && !workspace)
        return fail(RAPT_INVALID,
                    "rapt_plan_execute: workspace is NULL (the plan needs %zu bytes of it)",
                    plan->workspace_size);
    if (plan->workspace_size && (uintptr_t)workspace % 64)
        return fail(RAPT_INVALID, "rapt_plan_execute: workspace is %p (must be 64-byte aligned)",
                    workspace);
    return plan->device->backend->execute(plan, &data, workspace, stream);
}

RAPT_API void rapt_plan_destroy(rapt_plan **plan)
{
    if (!plan) return;
    plan_destroy(*plan);
    *plan = NULL;
}

RAPT_API size_t rapt_explain(rapt_device *device, const rapt_attention *a, char *text, size_t size)
{
    struct problem p;
    if (!text) size = 0;
    rapt_status status =
        device ? params_check(a, "rapt_explain", &p) : fail_on_no_device("rapt_explain");
    if (status) return (size_t)snprintf(text, size, "%s", last_error());
    return plan_explain(device, &p, text, size);
}

/* A sentence of one of its steps is rapt_forward's own; those of a driver name the driver's call. */
static rapt_status speak_as_forward(rapt_status status)
{
    static const char *const steps[] = {
        "rapt_plan_create: ", "rapt_alloc: ", "rapt_plan_execute: "};
    for (size_t i = 0; status && i < sizeof steps / sizeof *steps; i++)
        if (!strncmp(last_error(), steps[i], strlen(steps[i])))
            return fail(status, "%s: %s", "rapt_forward", last_error() + strlen(steps[i]));
    return status;
}

RAPT_API rapt_status rapt_forward(rapt_device *device, const rapt_attention *a, rapt_stream stream)
{
    struct problem p;
    struct cached_plan cached;
    struct problem_data data;
    if (!device) return fail_on_no_device("rapt_forward");
    rapt_status status = params_check(a, "rapt_forward", &p);
    if (!status) status = params_match(&p, a, "rapt_forward", &data);
    if (!status) status = plan_cache_take(device, &p, stream, &cached);
    if (status) return speak_as_forward(status);
    status = device->backend->execute(cached.plan, &data, cached.workspace, stream);
    plan_cache_return(device, &cached);
    return speak_as_forward(status);
}
