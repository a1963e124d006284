/* driver.h: what gpu.c needs of a GPU driver; implemented for CUDA (cuda.c) and HIP (hip.c). Driver
 * API only, opened at run time. */
#ifndef RAPT_GPU_DRIVER_H
#define RAPT_GPU_DRIVER_H

#include "backend.h"
#include "gpu/registry.h"

#include <stdatomic.h>

enum { LONGER = 3 }; /* rows that do softmax of more columns than its own row should */

/* One device: what its driver says and keeps of it, and the code that runs on it. */
struct gpu_device {
    const struct driver *driver;
    void *api; /* of the driver, shared by its devices: struct cuda or struct hip */
    int ordinal;
    int id; /* CUDA: the CUdevice, from describe on; HIP: unused */
    /* CUDA: the retained primary context, NULL before first use; HIP: unused */
    _Atomic(void *) context;
    int max_shared; /* bytes of shared memory that a block may have */
    int units;
    int memory_gbs; /* GB/s of its memory, by clock and width; 0: not known */
    char arch[32];  /* "sm_90", "gfx942" */
    char label[24]; /* "cuda:0", for sentences */
    struct gpu_modules *modules;
    const struct row *op_row[OP_COUNT]; /* of each op but forward; NULL: no code for this device */
    const struct row *longer[LONGER];   /* see kernels_for_rows; NULL: none */
    struct gpu_kernel *kernels;         /* attention kernels, best first */
    int kernel_count;
};

/* What was current on this thread before enter. */
struct driver_scope {
    void *context;
    int device;
};

struct driver_launch {
    void *function;
    uint32_t grid[3], threads, shared;
    void **parameters; /* as cuLaunchKernel's kernelParams */
    int early;         /* may start before earlier work of the stream ends (NEED_EARLY) */
};

/* A view for cuTensorMapEncodeTiled, with 128-byte swizzle. */
struct driver_map {
    uint32_t rank;               /* 4 or 5 */
    uint64_t size[5], stride[4]; /* elements; bytes, of axes 1 to 4 */
    uint32_t box[5];
    int64_t dtype; /* DTYPE_f32, f16, bf16 or u8 */
};

/* Every function that fails leaves a sentence that names the driver's call and the device. */
struct driver {
    const char *name;     /* "cuda" */
    const char *override; /* "CUBIN": suffix of the variables that replace a code object */
    enum vendor vendor;
    int wants_copies; /* module_load takes no image that lies in a mapped file */

    /* Opens the library. RAPT_OK with *api NULL: there is none, or it is too old, or it sees no
     * device; reason says so. */
    rapt_status (*open)(void **api, int *devices, char reason[REASON_SIZE]);
    void (*close)(void *api);
    /* Fills arch, max_shared, units and info of device (driver, api, ordinal are set). Holds
     * nothing. */
    rapt_status (*describe)(struct gpu_device *device, rapt_device_info *info);
    void (*release)(struct gpu_device *device); /* what enter retained */

    /* Makes the device current on this thread, and what was current before again. */
    rapt_status (*enter)(struct gpu_device *device, struct driver_scope *scope);
    void (*leave)(struct gpu_device *device, const struct driver_scope *scope);

    /* All below: between enter and leave. */
    rapt_status (*module_load)(struct gpu_device *device, const void *image, void **module);
    void (*module_unload)(struct gpu_device *device, void *module);
    /* shared: dynamic shared memory that launches will ask for. */
    rapt_status (*function)(struct gpu_device *device, void *module, const char *name, int shared,
                            void **function);
    rapt_status (*launch)(struct gpu_device *device, const struct driver_launch *launch,
                          rapt_stream stream);
    rapt_status (*encode)(struct gpu_device *device, const struct driver_map *map, const void *data,
                          struct tensor_map *out);
    rapt_status (*alloc)(struct gpu_device *device, size_t bytes, void **out);
    void (*free)(struct gpu_device *device, void *memory);
    rapt_status (*copy)(struct gpu_device *device, void *to, const void *from, size_t bytes,
                        rapt_stream stream);
    rapt_status (*synchronize)(struct gpu_device *device, rapt_stream stream);
};

extern const struct driver cuda_driver, hip_driver;

#endif
