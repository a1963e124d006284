/* device.c: finds the device that --device names, and moves tensors to and from it. */
#include "device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* backend and index that a name asks for; backend "" is auto. 0 or -1: no such form. */
static int parse_name(const char *name, char backend[16], int64_t *index)
{
    *index = 0;
    *backend = 0;
    if (!name || !strcmp(name, "auto")) return 0;
    const char *colon = strchr(name, ':');
    size_t length = colon ? (size_t)(colon - name) : strlen(name);
    if (length >= 16) return -1;
    memcpy(backend, name, length);
    backend[length] = 0;
    if (strcmp(backend, "cpu") && strcmp(backend, "cuda") && strcmp(backend, "hip")) return -1;
    if (!colon) return 0;
    char *end;
    errno = 0;
    *index = strtoll(colon + 1, &end, 10);
    return errno || end == colon + 1 || *end || *index < 0 ? -1 : 0;
}

static void describe(struct device *device, rapt_device *handle)
{
    device->handle = handle;
    device->info = (rapt_device_info){.struct_size = sizeof device->info};
    rapt_device_describe(handle, &device->info);
    device->is_cpu = !strcmp(device->info.backend, "cpu");
    if (device->is_cpu && !device->info.index) snprintf(device->label, sizeof device->label, "cpu");
    else
        snprintf(device->label, sizeof device->label, "%s:%lld", device->info.backend,
                 (long long)device->info.index);
}

/* Says which devices there are and why other backends have none. */
static int complain_no_device(const struct device *device, const char *name)
{
    complain(EXIT_NOT_HERE, "there is no device %s on this machine", name);
    const char *backend, *note;
    for (int i = 0; (note = rapt_backend_note(device->context, i, &backend)); i++)
        if (*note)
            complain(EXIT_NOT_HERE, "%s%s%s", strstr(note, backend) == note ? "" : backend,
                     strstr(note, backend) == note ? "" : ": ", note);
    return EXIT_NOT_HERE;
}

static int open_context(const struct device_options *options, struct device *out, char backend[16],
                        int64_t *index)
{
    memset(out, 0, sizeof *out);
    if (parse_name(options->device, backend, index))
        return complain(EXIT_BAD_INPUT, "--device: \"%s\" is unknown (auto, cpu, cuda:N or hip:N)",
                        options->device);
    rapt_config config = {.struct_size = sizeof config,
                          .threads = options->threads,
                          .backends = *backend ? backend : NULL};
    rapt_status status = rapt_open(&out->context, &config);
    if (status)
        return complain(exit_code_of(status), "%s: %s", options->device ? options->device : "auto",
                        rapt_last_error());
    out->pieces = calloc(DEVICE_PIECES, sizeof *out->pieces);
    if (out->pieces) return EXIT_OK;
    device_close(out);
    return complain(EXIT_NOT_HERE, "out of memory");
}

/* The next device from number *next on that fits backend and index; 0: none. */
static int next_device(struct device *device, const char *backend, int64_t index, int *next)
{
    while (*next < rapt_device_count(device->context)) {
        describe(device, rapt_device_at(device->context, (*next)++));
        if (!*backend || (!strcmp(device->info.backend, backend) && device->info.index == index))
            return 1;
    }
    device->handle = NULL;
    return 0;
}

int device_open(const struct device_options *options, struct device *out)
{
    char backend[16];
    int64_t index;
    int next = 0, code = open_context(options, out, backend, &index);
    if (code) return code;
    if (next_device(out, backend, index, &next)) return EXIT_OK;
    code = complain_no_device(out, options->device ? options->device : "auto");
    device_close(out);
    return code;
}

int device_plan(const struct device_options *options, rapt_attention *a, struct device *out,
                rapt_plan **plan)
{
    char backend[16];
    int64_t index;
    int next = 0, code = open_context(options, out, backend, &index);
    if (code) return code;
    a->kernel = options->kernel;
    rapt_status status = RAPT_NO_DEVICE;
    while (next_device(out, backend, index, &next)) {
        status = rapt_plan_create(plan, out->handle, a);
        if (!status) return EXIT_OK;
        complain(EXIT_NOT_HERE, "%s: %s", out->label, rapt_last_error());
        if (status != RAPT_UNSUPPORTED) break;
    }
    if (status == RAPT_NO_DEVICE)
        complain_no_device(out, options->device ? options->device : "auto");
    device_close(out);
    return exit_code_of(status);
}

void device_select(struct device *device, int index)
{
    describe(device, rapt_device_at(device->context, index));
}

void device_close(struct device *device)
{
    for (int i = 0; device->pieces && i < device->piece_count; i++)
        rapt_free(device->handle, device->pieces[i]);
    free(device->pieces);
    rapt_close(&device->context);
    memset(device, 0, sizeof *device);
}

void *device_memory(struct device *device, size_t bytes)
{
    void *memory = NULL;
    if (device->piece_count == DEVICE_PIECES ||
        rapt_alloc(device->handle, bytes ? bytes : 1, &memory)) {
        complain(EXIT_NOT_HERE, "%s: no %zu bytes of memory: %s", device->label, bytes,
                 rapt_last_error());
        return NULL;
    }
    device->pieces[device->piece_count++] = memory;
    return memory;
}

void *device_upload(struct device *device, const void *host, size_t bytes)
{
    if (device->is_cpu) return (void *)host;
    void *memory = device_memory(device, bytes);
    if (!memory || !bytes || !rapt_copy(device->handle, memory, host, bytes, NULL)) return memory;
    complain(EXIT_NOT_HERE, "%s: %s", device->label, rapt_last_error());
    return NULL;
}

int device_download(struct device *device, void *host, const void *memory, size_t bytes)
{
    if (host == memory || !bytes) return EXIT_OK;
    rapt_status status = rapt_copy(device->handle, host, memory, bytes, NULL);
    return status ? complain(exit_code_of(status), "%s: %s", device->label, rapt_last_error())
                  : EXIT_OK;
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double median_of(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}
