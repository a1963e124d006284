/* device.h: the device that a command runs on, and tensors in its memory. */
#ifndef RAPT_TOOLS_DEVICE_H
#define RAPT_TOOLS_DEVICE_H

#include "options.h"

/* At most this many pieces of device memory per command: every tensor of a problem, its workspace,
 * rotated copies. */
enum { DEVICE_PIECES = 4096 };

struct device {
    rapt_context *context;
    rapt_device *handle;
    rapt_device_info info;
    char label[32]; /* as --device takes it: "cpu", "cuda:0" */
    int is_cpu;
    void **pieces; /* memory to free at close */
    int piece_count;
};

/* Opens the context and the named device; auto: the first one. 0, or an exit code after a sentence
 * on the error stream. */
int device_open(const struct device_options *options, struct device *out);
/* Opens the device and plans a on it; auto: the first device that can serve a; those that refuse
 * are named on the error stream. a's kernel field is set from the options. On failure nothing is
 * left open. */
int device_plan(const struct device_options *options, rapt_attention *a, struct device *out,
                rapt_plan **plan);
/* Moves on to device number index of the open context. */
void device_select(struct device *device, int index);
/* Frees all pieces and closes the context. Plans must have been destroyed. */
void device_close(struct device *device);

/* bytes of device memory that live until device_close; NULL after a sentence on the error stream.
 */
void *device_memory(struct device *device, size_t bytes);
/* Where the device can read host's bytes: host itself on a CPU, else a copy. NULL after a sentence.
 */
void *device_upload(struct device *device, const void *host, size_t bytes);
/* Copies back what the device wrote to memory; nothing to do when they are the same. 0 or an exit
 * code after a sentence. */
int device_download(struct device *device, void *host, const void *memory, size_t bytes);

/* Monotonic time in seconds. */
double seconds_now(void);
/* The middle one of count values, at least one, which it sorts. */
double median_of(double *values, int count);

#endif
