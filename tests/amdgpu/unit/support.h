/* Shared by the emulator's unit tests: code objects per target, buffers, arguments, tests repeated
 * for every target. */
#ifndef AMDGPU_UNIT_SUPPORT_H
#define AMDGPU_UNIT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../amdgpu.h"

enum { MAX_BUFFERS = 16, MAX_TESTS = 256 };

struct object {
    struct amdgpu_memory *memory;
    struct amdgpu_module *module;
    void *buffers[MAX_BUFFERS];
    int buffer_count;
    struct amdgpu_options options;
    struct amdgpu_stats stats;
    char error[1024];
    uint8_t args[512];
    size_t args_size;
};

/* Opens NAME.TARGET.co of the test kernels; fails the test when it is missing or does not load. */
void object_open(struct object *, const char *name, const char *target);
void object_close(struct object *);
/* Zeroed and registered; freed by object_close. */
void *buffer(struct object *, size_t size);
void clear_args(struct object *);
void arg(struct object *, const void *value, size_t size);
void arg_pointer(struct object *, const void *);
void arg_int(struct object *, int);
/* One-dimensional launch; false with the sentence in object.error. */
bool launch(struct object *, const char *kernel, uint32_t groups, uint32_t threads,
            uint32_t dynamic_lds);
bool launch3(struct object *, const char *kernel, const uint32_t grid[3], const uint32_t block[3]);
#define assert_launch(o, kernel, groups, threads, lds)                                             \
    do {                                                                                           \
        if (!launch(o, kernel, groups, threads, lds)) fail_msg("%s", (o)->error);                  \
    } while (0)
#define assert_fault(o, kernel, groups, threads, lds, text)                                        \
    do {                                                                                           \
        if (launch(o, kernel, groups, threads, lds)) fail_msg("%s ran without the fault", kernel); \
        if (!strstr((o)->error, text))                                                             \
            fail_msg("wrong fault: %s (expected \"%s\")", (o)->error, text);                       \
    } while (0)

uint64_t next_random(uint64_t *state);

/* Adds `test` once per target (or those whose name starts with `only`); its state is the target's
 * name. */
struct suite {
    struct CMUnitTest tests[MAX_TESTS];
    int count;
};
void add_test(struct suite *, const char *name, CMUnitTestFunction, const char *only);
int run_suite(struct suite *, const char *name);
int wave_size(const char *target);

#endif
