/* fake.h: what a test sets in and reads from a stand-in driver (libcuda.so or libamdhip64.so of
 * this folder). The test opens the library itself and asks for fake_state(); rapt then opens the
 * same one. Kernels do not run: launches are recorded and checked. */
#ifndef FAKE_H
#define FAKE_H

#include "gpu/kernel_args.h"

#include <stddef.h>

enum { FAKE_DEVICES = 4, FAKE_LAUNCHES = 256, FAKE_CALLS = 64 };

/* Codes that mean the same to both drivers. */
enum {
    FAKE_OUT_OF_MEMORY = 2,
    FAKE_NO_DEVICE = 100,
    FAKE_NO_BINARY = 209,
    FAKE_NOT_FOUND = 500,
    FAKE_CAPTURING = 900,
    FAKE_LAUNCH_FAILED = 719,
    FAKE_WORDLESS = 4242 /* a code that the driver itself has no words for */
};

/* What the stand-in leaves in a tensor map: how it was encoded. */
struct fake_map {
    const void *data;
    uint64_t size[5], stride[4];
    uint32_t box[5];
    uint8_t rank, type, swizzle, fill, promotion;
};
_Static_assert(sizeof(struct fake_map) <= sizeof(struct tensor_map), "it lies in the map");

struct fake_launch {
    int device;
    char arch[32]; /* of the code object */
    char name[64];
    unsigned grid[3], block[3], shared;
    void *stream;
    union {
        struct attention_args attention;
        struct rope_args rope;
        struct kv_replicate_args replicate;
        struct kv_append_args append;
    } args;
    struct tensor_maps maps; /* of attention, the second parameter: each a struct fake_map */
    int early;               /* by cuLaunchKernelEx */
};

struct fake {
    /* Set by the test. */
    int version, devices;
    char arch[32];                  /* "sm_90", "gfx942" */
    char arch_of[FAKE_DEVICES][32]; /* of this device; "": arch */
    int max_shared;
    int memory_khz; /* of 5,120 bits; 0: an H100's */
    int fail_at,
        fail_code; /* the call of this number from now on, from 1, fails with this code; 0: none */
    int most_allocations; /* alive at once: one more finds no memory; 0: any */
    int capturing;        /* what a stream capture forbids fails: memory, modules, waiting */
    int slow_start; /* the primary context and modules take 20 ms, so that threads meet in them */
    const void *pinned; /* host memory that the driver knows; NULL: none */

    /* Kept by the fake. */
    int calls;       /* since fake_reset */
    char failed[64]; /* the call that was made to fail */
    int failed_on;   /* the device that this call was about, -1: it names none */
    int modules, allocations, contexts, pushed; /* alive */
    char misuse[256]; /* the first thing a caller did wrong; "": nothing */
    void *waited_for; /* the stream of the last synchronisation */
    int launch_count;
    struct fake_launch launch[FAKE_LAUNCHES];
    struct {
        char name[48];
        int count;
    } call[FAKE_CALLS]; /* how often each function was called since fake_reset */
};

/* One per library. */
typedef struct fake *fake_state_function(void);
struct fake *fake_state(void);
/* Back to one device and no record; objects alive stay counted. */
typedef void fake_reset_function(void);
void fake_reset(void);

/* ---- Between the two fakes (fake.c)
 * ----------------------------------------------------------------------------------------- */

enum { NO_DEVICE = -1 };
/* Counts a call about a device; the code it has to fail with, or 0. */
int fake_call(const char *name, int device);
/* "sm_90", of a device. */
const char *fake_arch(int device);
void fake_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct fake_module {
    int device;
    char arch[32]; /* of a made-up object; "": of a real one */
    char
        symbols[512]; /* " softmax flash "; "*": an object of a real compiler, which may have any */
};
struct fake_function {
    struct fake_module *module;
    char name[64];
    int shared;
};

/* The image "fake ARCH symbol symbol ...", or a real ELF or PTX. */
int fake_module_load(int device, const void *image, void **module);
int fake_module_unload(void *module);
int fake_module_function(void *module, const char *name, void **function);
int fake_launch(int device, void *function, const unsigned grid[3], const unsigned block[3],
                unsigned shared, void *stream, void **parameters, int early);
int fake_alloc(size_t bytes, void **memory);
int fake_free(void *memory);
/* 20 ms, if the test asks for them. */
void fake_pause(void);
/* Whether all these bytes lie in one allocation. */
int fake_owns(const void *address, size_t bytes);

#endif
