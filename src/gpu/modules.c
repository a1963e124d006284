/* modules.c: loads code objects, embedded ones or the files that the environment names in their
 * place. */
#include "gpu/modules.h"
#include "base/alloc.h"
#include "base/error.h"
#include "gpu/splits.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *stem;
} overridable[] = {
#define OVERRIDE(name, stem) {#name, #stem},
#include "gpu/overrides.def"
#undef OVERRIDE
};

struct gpu_modules {
    const struct overrides *overrides;
    pthread_mutex_t lock;         /* held while loading */
    _Atomic(struct code *) *code; /* [kernel_row_count], NULL: not loaded */
};

static void variable_name(int index, const struct driver *driver, char *name, size_t size)
{
    snprintf(name, size, "%s_%s", overridable[index].stem, driver->override);
}

rapt_status overrides_read(struct overrides *o, const struct driver *driver)
{
    char variable[64];
    for (int i = 0; i < OVERRIDE_COUNT; i++) {
        variable_name(i, driver, variable, sizeof variable);
        const char *path = getenv(variable);
        if (!path || !*path) continue;
        o->path[i] = alloc_zeroed(1, strlen(path) + 1);
        if (!o->path[i]) {
            overrides_free(o);
            return fail(RAPT_NO_MEMORY, "rapt_open: no memory to keep %s", variable);
        }
        memcpy(o->path[i], path, strlen(path));
    }
    return RAPT_OK;
}

void overrides_free(struct overrides *o)
{
    for (int i = 0; i < OVERRIDE_COUNT; i++) {
        free(o->path[i]);
        o->path[i] = NULL;
    }
}

static int override_index(const struct overrides *o, const char *row_name)
{
    for (int i = 0; i < OVERRIDE_COUNT; i++)
        if (o->path[i] && !strcmp(overridable[i].name, row_name)) return i;
    return -1;
}

const char *overrides_find(const struct overrides *o, const char *row_name)
{
    int i = override_index(o, row_name);
    return i < 0 ? NULL : o->path[i];
}

struct gpu_modules *modules_create(const struct overrides *overrides)
{
    struct gpu_modules *m = alloc_zeroed(1, sizeof *m);
    if (m) m->code = alloc_zeroed((size_t)kernel_row_count, sizeof *m->code);
    if (!m || !m->code || pthread_mutex_init(&m->lock, NULL)) {
        if (m) free(m->code);
        free(m);
        fail(RAPT_NO_MEMORY, "rapt_open: no memory for a list of %d code objects",
             kernel_row_count);
        return NULL;
    }
    m->overrides = overrides;
    return m;
}

int modules_loaded(const struct gpu_modules *m)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (atomic_load(&m->code[i])) return 1;
    return 0;
}

void modules_unload(struct gpu_device *device)
{
    for (int i = 0; i < kernel_row_count; i++) {
        struct code *code = atomic_exchange(&device->modules->code[i], NULL);
        if (!code) continue;
        device->driver->module_unload(device, code->module);
        free(code->image);
        free(code);
    }
}

void modules_free(struct gpu_modules *m)
{
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    free(m->code);
    free(m);
}

int modules_replaced(const struct gpu_modules *m, const char *row_name)
{
    return overrides_find(m->overrides, row_name) != NULL;
}

enum { LARGEST_FILE = 256 << 20 };

/* Whether a file ends before what its head tells of: the section table of a 64-bit ELF file, which
 * linkers put last, or what a fat binary of CUDA holds. Drivers are told no size and would read on.
 */
static int is_cut_short(const char *bytes, size_t size)
{
    static const char fat_binary[] = "\x50\xed\x55\xba";
    uint64_t table, held;
    uint16_t entry, count, head;
    if (size >= 4 && !memcmp(bytes, fat_binary, 4)) {
        if (size < 16) return 1;
        memcpy(&head, bytes + 6, sizeof head);
        memcpy(&held, bytes + 8, sizeof held);
        return head > size || held > size - head;
    }
    if (size < 4 || memcmp(bytes, "\177ELF", 4)) return 0;
    if (size < 64) return 1;
    memcpy(&table, bytes + 40, sizeof table);
    memcpy(&entry, bytes + 58, sizeof entry);
    memcpy(&count, bytes + 60, sizeof count);
    return table > size || (uint64_t)entry * count > size - table;
}

/* The whole file with a 0 behind it (PTX is text), to be freed; NULL with a sentence. */
static void *read_file(const char *path, const char *variable, rapt_status *status)
{
    FILE *file = fopen(path, "rb");
    long size = -1;
    if (file && !fseek(file, 0, SEEK_END)) size = ftell(file);
    char *bytes = NULL;
    if (size > 0 && size <= LARGEST_FILE && !fseek(file, 0, SEEK_SET)) {
        bytes = alloc_bytes((size_t)size + 1);
        if (!bytes) {
            *status =
                fail(RAPT_NO_MEMORY, "%s: no memory for %s (%ld bytes)", variable, path, size);
        } else if (fread(bytes, 1, (size_t)size, file) != (size_t)size) {
            *status = fail(RAPT_SYSTEM, "%s: cannot read %s (%s)", variable, path,
                           ferror(file) ? strerror(errno) : "it ends before its size");
            free(bytes);
            bytes = NULL;
        } else if (is_cut_short(bytes, (size_t)size)) {
            *status =
                fail(RAPT_INVALID, "%s: %s is cut short: its head tells of more than it holds",
                     variable, path);
            free(bytes);
            bytes = NULL;
        } else {
            bytes[size] = 0;
        }
    } else {
        *status = fail(RAPT_INVALID, "%s: %s is no code object (%s)", variable, path,
                       !file       ? strerror(errno)
                       : size == 0 ? "it is empty"
                                   : "it is no file of at most 256 MiB");
    }
    if (file) fclose(file);
    return bytes;
}

/* The entry points that the row asks for. */
static rapt_status find_functions(struct gpu_device *device, const struct row *row,
                                  struct code *code)
{
    char name[128];
    int most = row_shared(row, 1, sizeof(float)); /* with a mask and a bias of f32 */
    if (most < splits_most_shared(row)) most = splits_most_shared(row);
    if (most > device->max_shared) most = device->max_shared;
    rapt_status status =
        device->driver->function(device, code->module, row->name, most, &code->main);
    if (!status && (row->needs & NEED_PREPARE)) {
        snprintf(name, sizeof name, "%s_prepare", row->name);
        status = device->driver->function(device, code->module, name, 0, &code->prepare);
    }
    if (!status && (row->needs & NEED_COMBINE)) {
        snprintf(name, sizeof name, "%s_combine", row->name);
        status = device->driver->function(device, code->module, name,
                                          splits_most_combine_shared(row), &code->combine);
    }
    return status;
}

/* Loads into code; on failure nothing stays loaded. what: the object in words, for the sentence. */
static rapt_status load_image(struct gpu_device *device, const struct row *row, const void *image,
                              const char *what, struct code *code)
{
    rapt_status status = device->driver->module_load(device, image, &code->module);
    if (status)
        return fail(status, "%s does not load on %s, %s: %s", what, device->label, device->arch,
                    last_error());
    status = find_functions(device, row, code);
    if (!status) return RAPT_OK;
    device->driver->module_unload(device, code->module);
    return fail(status, "%s has no usable entry point %s: %s", what, row->name, last_error());
}

/* NULL: no memory. The image is set where the driver wants a copy of embedded code. */
static struct code *create_code(const struct gpu_device *device, const struct row *row)
{
    struct code *code = alloc_zeroed(1, sizeof *code);
    size_t bytes = (size_t)(row->end - row->begin);
    if (!code || !device->driver->wants_copies || modules_replaced(device->modules, row->name))
        return code;
    code->image = alloc_bytes(bytes);
    if (code->image) return memcpy(code->image, row->begin, bytes), code;
    free(code);
    return NULL;
}

static rapt_status load(struct gpu_device *device, const struct row *row, struct code *code)
{
    char what[512], variable[64];
    int index = override_index(device->modules->overrides, row->name);
    if (index < 0) {
        snprintf(what, sizeof what, "%s: the embedded code object for %s", row->name, row->arch);
        return load_image(device, row, code->image ? code->image : row->begin, what, code);
    }
    const char *path = device->modules->overrides->path[index];
    rapt_status status = RAPT_OK;
    variable_name(index, device->driver, variable, sizeof variable);
    void *image = read_file(path, variable, &status);
    if (!image) return status;
    snprintf(what, sizeof what, "%s: %s", variable, path);
    status = load_image(device, row, image, what, code);
    if (status) free(image);
    else code->image = image; /* kept: see modules.h */
    return status;
}

rapt_status modules_get(struct gpu_device *device, const struct row *row, const struct code **out)
{
    _Atomic(struct code *) *slot = &device->modules->code[row - kernel_rows];
    *out = atomic_load_explicit(slot, memory_order_acquire);
    if (*out) return RAPT_OK;
    pthread_mutex_lock(&device->modules->lock);
    rapt_status status = RAPT_OK;
    struct code *code = atomic_load_explicit(slot, memory_order_relaxed);
    if (!code) {
        code = create_code(device, row);
        status = code ? load(device, row, code)
                      : fail(RAPT_NO_MEMORY, "%s: no memory for a loaded module on %s", row->name,
                             device->label);
        if (status && code) {
            free(code->image);
            free(code);
            code = NULL;
        }
        atomic_store_explicit(slot, code, memory_order_release);
    }
    pthread_mutex_unlock(&device->modules->lock);
    *out = code;
    return status;
}
