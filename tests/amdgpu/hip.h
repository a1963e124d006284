/* State of the emulated HIP runtime (build/tests/libamdhip64.so) shared by its files.

   RAPT_EMULATE          the GPUs, comma separated: gfx942 or gfx1100,gfx1201 (default gfx1100)
   RAPT_EMULATE_ORDER    forward, backward or shuffled[:SEED]: order of the waves of a workgroup
   RAPT_EMULATE_CHECKS   all (adds LDS races), some (the default), none
   RAPT_EMULATE_THREADS  host threads per launch (default: one per core)
   RAPT_EMULATE_STATS    1: report every launch on stderr; sum: sums per kernel, and its matrix
                         loop, when the module is unloaded; loop: its instructions too */
#ifndef AMDGPU_HIP_H
#define AMDGPU_HIP_H

#include <pthread.h>
#include <stdio.h>

#include "amdgpu.h"

#define HIP_API __attribute__((visibility("default")))

/* Values of hipError_t as in ROCm's hip_runtime_api.h. */
#define HIP_ERROR_LIST(X)                                                                          \
    X(hipSuccess, 0, "no error")                                                                   \
    X(hipErrorInvalidValue, 1, "invalid argument")                                                 \
    X(hipErrorOutOfMemory, 2, "out of memory")                                                     \
    X(hipErrorNotInitialized, 3, "initialization error")                                           \
    X(hipErrorInvalidConfiguration, 9, "invalid configuration argument")                           \
    X(hipErrorInvalidDevicePointer, 17, "invalid device pointer")                                  \
    X(hipErrorNoDevice, 100, "no ROCm-capable device is detected")                                 \
    X(hipErrorInvalidDevice, 101, "invalid device ordinal")                                        \
    X(hipErrorInvalidImage, 200, "device kernel image is invalid")                                 \
    X(hipErrorNoBinaryForGpu, 209, "no kernel image is available for execution on the device")     \
    X(hipErrorInvalidHandle, 400, "invalid resource handle")                                       \
    X(hipErrorNotFound, 500, "named symbol not found")                                             \
    X(hipErrorNotReady, 600, "device not ready")                                                   \
    X(hipErrorIllegalAddress, 700, "an illegal memory access was encountered")                     \
    X(hipErrorLaunchFailure, 719, "unspecified launch failure")                                    \
    X(hipErrorNotSupported, 801, "operation not supported")                                        \
    X(hipErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing")   \
    X(hipErrorStreamCaptureUnmatched, 903, "capture was not initiated in this stream")             \
    X(hipErrorUnknown, 999, "unknown error")

#define HIP_ERROR_ENUM(name, value, text) name = value,
typedef enum hip_error { HIP_ERROR_LIST(HIP_ERROR_ENUM) } hip_error;

enum { MAX_DEVICES = 8 };

struct hip_device {
    struct amdgpu_device_info info;
    size_t total, used; /* bytes of memory it pretends to have, and in use */
};

struct hip_state {
    pthread_mutex_t lock;
    struct hip_device devices[MAX_DEVICES];
    int device_count;
    struct amdgpu_memory *memory;
    struct amdgpu_options options;
    int report; /* 1: each launch, 2: sums at exit, 3: and the matrix loop */
    int captures;
};

/* The state, set up on first use; NULL when RAPT_EMULATE names an unknown GPU. */
struct hip_state *hip_state(void);
int hip_current_device(void);
hip_error hip_note(hip_error); /* remembers an error for hipGetLastError and returns it */

/* One piece of work of a stream: done at once, or recorded while the stream captures. */
enum work_kind { WORK_LAUNCH, WORK_COPY, WORK_FILL };
struct work {
    enum work_kind kind;
    struct amdgpu_dispatch dispatch; /* args owned by the work */
    void *to;
    const void *from;
    size_t bytes;
    uint32_t value, value_size;
};
hip_error hip_submit(void *stream, const struct work *);
hip_error hip_perform(const struct work *);
bool hip_is_capturing(void *stream);
bool hip_is_stream(void *stream);
hip_error hip_launch_now(const struct amdgpu_dispatch *);

#endif
