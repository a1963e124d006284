/* context.c: opens and closes backends and devices; the array of backends in order of preference.
 */
#include "backend.h"
#include "base/alloc.h"
#include "base/error.h"
#include "plan.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sched.h>
#endif
#include <unistd.h>

const struct backend *const backends[BACKEND_COUNT] = {&cuda_backend, &hip_backend, &cpu_backend};

enum { MAX_THREADS = 1024 };

/* CPUs this process may run on. */
static int64_t allowed_cpus(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? count : 1;
}

static rapt_status resolve_threads(rapt_config *config)
{
    const char *text = getenv("RAPT_THREADS");
    if (!config->threads && text && *text) {
        char *end;
        errno = 0;
        long value = strtol(text, &end, 10);
        if (errno || *end || value < 1 || value > MAX_THREADS)
            return fail(RAPT_INVALID, "rapt_open: RAPT_THREADS is '%s' (1 ... %d)", text,
                        MAX_THREADS);
        config->threads = value;
    }
    if (!config->threads)
        config->threads = allowed_cpus() < MAX_THREADS ? allowed_cpus() : MAX_THREADS;
    if (config->threads < 1 || config->threads > MAX_THREADS)
        return fail(RAPT_INVALID, "rapt_open: threads is %lld (0 ... %d)",
                    (long long)config->threads, MAX_THREADS);
    return RAPT_OK;
}

/* Whether name is an item of a comma list. */
static bool listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *item = list; item; item = strchr(item, ',') ? strchr(item, ',') + 1 : NULL)
        if (!strncmp(item, name, length) && (!item[length] || item[length] == ',')) return true;
    return false;
}

static rapt_status check_backend_list(const char *list)
{
    for (const char *item = list; item;) {
        const char *comma = strchr(item, ',');
        int length = comma ? (int)(comma - item) : (int)strlen(item);
        bool known = false;
        for (int i = 0; i < BACKEND_COUNT; i++)
            known |= (int)strlen(backends[i]->name) == length &&
                     !strncmp(item, backends[i]->name, (size_t)length);
        if (!known)
            return fail(
                RAPT_INVALID,
                "rapt_open: there is no backend '%.*s' (cuda, hip and cpu, with commas between)",
                length, item);
        item = comma ? comma + 1 : NULL;
    }
    return RAPT_OK;
}

rapt_status context_add_device(rapt_context *context, const struct backend *backend,
                               const rapt_device_info *info, void *state)
{
    size_t count = (size_t)context->device_count;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): the elements are pointers */
    rapt_device **devices = realloc(context->devices, (count + 1) * sizeof *devices);
    if (!devices)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for a list of %zu devices", count + 1);
    context->devices = devices;
    rapt_device *device = alloc_zeroed(1, sizeof *device);
    struct plan_cache *cache = plan_cache_create();
    if (!device || !cache) {
        free(device);
        free(cache);
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for device %s:%lld", backend->name,
                    (long long)info->index);
    }
    *device = (rapt_device){context, backend, *info, state, cache};
    device->info.struct_size = sizeof device->info;
    devices[context->device_count++] = device;
    return RAPT_OK;
}

RAPT_API void rapt_close(rapt_context **context)
{
    if (!context || !*context) return;
    rapt_context *c = *context;
    for (int i = 0; i < c->device_count; i++) {
        plan_cache_destroy(c->devices[i]);
        c->devices[i]->backend->device_close(c->devices[i]);
        free(c->devices[i]);
    }
    for (int i = 0; i < BACKEND_COUNT; i++)
        if (c->state[i]) backends[i]->close(c->state[i]);
    free(c->devices);
    free(c);
    *context = NULL;
}

/* Names why each backend that was asked for has no device. */
static rapt_status fail_without_device(const rapt_context *context)
{
    char notes[BACKEND_COUNT * (REASON_SIZE + 2)] = "";
    const char *asked = context->config.backends;
    size_t length = 0;
    for (int i = 0; i < BACKEND_COUNT; i++)
        if (!asked || listed(asked, backends[i]->name))
            length += (size_t)snprintf(notes + length, sizeof notes - length, "%s%s",
                                       length ? "; " : "", context->note[i]);
    return fail(RAPT_NO_DEVICE, "rapt_open: no device (%s)", notes);
}

RAPT_API rapt_status rapt_open(rapt_context **out, const rapt_config *config)
{
    if (!out)
        return fail(RAPT_INVALID, "rapt_open: out is NULL (pass the address of a context pointer)");
    *out = NULL;
    rapt_config defaults = {.struct_size = sizeof defaults}, adopted;
    rapt_status status = params_adopt(&adopted, sizeof adopted, config ? config : &defaults,
                                      sizeof adopted, "rapt_open");
    if (!status) status = resolve_threads(&adopted);
    if (!status && adopted.backends) status = check_backend_list(adopted.backends);
    if (status) return status;
    rapt_context *context = alloc_zeroed(1, sizeof *context);
    if (!context)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for a context (%zu bytes)",
                    sizeof *context);
    context->config = adopted;
    for (int i = 0; i < BACKEND_COUNT && !status; i++) {
        if (adopted.backends && !listed(adopted.backends, backends[i]->name))
            snprintf(context->note[i], REASON_SIZE, "%s: not opened (rapt_config.backends is '%s')",
                     backends[i]->name, adopted.backends);
        else status = backends[i]->open(context, &context->state[i], context->note[i]);
    }
    if (!status && !context->device_count) status = fail_without_device(context);
    context->config.backends = NULL;
    if (status) rapt_close(&context);
    *out = context;
    return status;
}
