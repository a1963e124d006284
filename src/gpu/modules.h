/* modules.h: code objects on a device: embedded or from a file that the environment names, loaded
 * once, at first need. */
#ifndef RAPT_GPU_MODULES_H
#define RAPT_GPU_MODULES_H

#include "gpu/driver.h"

enum {
#define OVERRIDE(name, stem) OVERRIDE_##name,
#include "gpu/overrides.def"
#undef OVERRIDE
    OVERRIDE_COUNT
};

/* The files of one vendor; NULL: none. Read from the environment when the context opens. */
struct overrides {
    char *path[OVERRIDE_COUNT];
};

/* NO_MEMORY when a path cannot be kept; then nothing is. */
rapt_status overrides_read(struct overrides *o, const struct driver *driver);
void overrides_free(struct overrides *o);
/* The file that replaces rows of this name, or NULL. */
const char *overrides_find(const struct overrides *o, const char *row_name);

/* A row's entry points; prepare and combine NULL unless the row needs them. */
struct code {
    void *module, *prepare, *main, *combine;
    /* A file's bytes, or a copy of embedded ones: HIP may read them until the module goes; NULL:
     * embedded. */
    void *image;
};

/* One device's modules; NULL with a sentence when memory is out. */
struct gpu_modules *modules_create(const struct overrides *overrides);
/* Whether any is loaded. */
int modules_loaded(const struct gpu_modules *modules);
/* Unloads all, between enter and leave. */
void modules_unload(struct gpu_device *device);
void modules_free(struct gpu_modules *modules);
/* Whether a file replaces rows of this name. */
int modules_replaced(const struct gpu_modules *modules, const char *row_name);
/* The row's code, loaded under a lock the first time; between enter and leave. Lives as long as the
 * device. */
rapt_status modules_get(struct gpu_device *device, const struct row *row, const struct code **out);

#endif
