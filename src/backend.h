/* backend.h: what a kind of hardware must offer to the layers above (api, plan). Implemented in
 * src/cpu and src/gpu. */
#ifndef RAPT_BACKEND_H
#define RAPT_BACKEND_H

#include "params.h"

enum { REASON_SIZE = 512, BACKEND_COUNT = 3 };

struct backend;

struct rapt_context {
    rapt_config config;                    /* complete; backends: not kept after open */
    void *state[BACKEND_COUNT];            /* of each backend; NULL: not open */
    char note[BACKEND_COUNT][REASON_SIZE]; /* why a backend opened no device; "": it did */
    rapt_device **devices;
    int device_count;
};

struct rapt_device {
    rapt_context *context;
    const struct backend *backend;
    rapt_device_info info;
    void *state;              /* the backend's own */
    struct plan_cache *cache; /* of rapt_forward; plan_cache.c */
};

struct rapt_plan {
    rapt_device *device;
    int kernel; /* index into the backend's kernels for this device, best first */
    struct problem problem;
    int named;             /* 1: the caller asked for this kernel and no other */
    size_t workspace_size; /* bytes; set by backend->plan */
    void *state;           /* the backend's own; NULL: none */
};

/* One backend: a constant table. Functions that fail leave a sentence through fail(). Slots marked
 * (optional) may be NULL. */
struct backend {
    const char *name;          /* "cuda", "hip", "cpu" */
    rapt_stream thread_stream; /* the handle of a stream for each thread; NULL: no streams */

    /* Opens the driver and adds one device for each it finds with context_add_device(). No driver
     * or no device is not a failure: it writes the reason and returns OK. *state is passed to
     * close. */
    rapt_status (*open)(rapt_context *context, void **state, char reason[REASON_SIZE]);
    void (*close)(void *state);
    void (*device_close)(rapt_device *device);

    /* Attention kernels of a device, best first: names, and why one cannot serve a problem (NULL:
     * it can). reason is scratch of REASON_SIZE bytes for sentences with numbers in them. */
    int (*kernel_count)(const rapt_device *device);
    const char *(*kernel_name)(const rapt_device *device, int kernel);
    const char *(*kernel_refuses)(const rapt_device *device, int kernel, const struct problem *p,
                                  char reason[REASON_SIZE]);
    /* Every row of the library for this backend, present or not, for rapt_kernel_at; state may be
     * NULL (not open). */
    int (*row_count)(void);
    void (*row_describe)(const rapt_context *context, void *state, int row, rapt_kernel_info *info);

    rapt_status (*plan)(
        rapt_plan *plan); /* device, kernel, problem are set; fills workspace_size and state */
    void (*plan_free)(rapt_plan *plan); /* (optional) */
    /* data: matched to the plan. Neither allocates nor logs. */
    rapt_status (*execute)(const rapt_plan *plan, const struct problem_data *data, void *workspace,
                           rapt_stream stream);

    rapt_status (*alloc)(rapt_device *device, size_t bytes, void **out);
    void (*free)(rapt_device *device, void *memory);
    rapt_status (*copy)(rapt_device *device, void *to, const void *from, size_t bytes,
                        rapt_stream stream);
    rapt_status (*synchronize)(rapt_device *device, rapt_stream stream);

    /* The pieces: arguments are complete and checked (shapes, dtypes, NULLs, broadcasts as stride
     * 0). */
    rapt_status (*rope)(rapt_device *device, const rapt_rope_args *args, rapt_stream stream);
    rapt_status (*softmax)(rapt_device *device, const rapt_softmax_args *args, rapt_stream stream);
    rapt_status (*qk)(rapt_device *device, const rapt_qk_args *args, rapt_stream stream);
    rapt_status (*pv)(rapt_device *device, const rapt_pv_args *args, rapt_stream stream);
    rapt_status (*causal_mask)(rapt_device *device, const rapt_causal_mask_args *args,
                               rapt_stream stream);
    rapt_status (*kv_replicate)(rapt_device *device, const rapt_kv_replicate_args *args,
                                rapt_stream stream);
    rapt_status (*kv_append)(rapt_device *device, const rapt_kv_append_args *args,
                             rapt_stream stream);
};

/* In order of preference: cuda, hip, cpu (context.c). */
extern const struct backend *const backends[BACKEND_COUNT];
extern const struct backend cuda_backend, hip_backend, cpu_backend;

/* Appends a device; info and state are copied in. Owned by the context. NO_MEMORY when it cannot.
 */
rapt_status context_add_device(rapt_context *context, const struct backend *backend,
                               const rapt_device_info *info, void *state);

enum { ROPE_PAIRS_MAX = 1024 }; /* the longest table of frequencies */
/* RoPE's inverse frequencies in radians per position, after scaling, for rotary / 2 pairs, in f64,
 * and the factor on cos and sin (attention_factor). Shared by all backends (rope_table.c). */
void rope_frequencies(const rapt_rope_args *args, int64_t rotary, double *inverse,
                      double *magnitude);

#endif
