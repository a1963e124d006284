/* devices.h: the devices that an end-to-end test runs on: GPUs under test, and the CPU they are
 * compared with. */
#ifndef RAPT_TESTS_E2E_DEVICES_H
#define RAPT_TESTS_E2E_DEVICES_H

#include "bound.h"
#include "problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* RAPT_TEST_DEVICE: absent or "all": every device, the CPU included; "gpu": GPUs alone; "cpu",
 * "cuda", "hip": of that backend. RAPT_EMULATE set: the HIP device is emulated and slow, so long
 * problems use fewer heads. */
static rapt_context *context;

static inline int open_devices(void **state)
{
    (void)state;
    if (rapt_open(&context, NULL)) print_error("%s\n", rapt_last_error());
    return context ? 0 : -1;
}

static inline int close_devices(void **state)
{
    (void)state;
    rapt_close(&context);
    return 0;
}

static inline rapt_device_info info_of(const rapt_device *device)
{
    rapt_device_info info = {.struct_size = sizeof info};
    rapt_device_describe(device, &info);
    return info;
}

static inline bool is_gpu(const rapt_device *device)
{
    return strcmp(info_of(device).backend, "cpu") != 0;
}

static inline bool is_emulated(const rapt_device *device)
{
    return getenv("RAPT_EMULATE") && !strcmp(info_of(device).backend, "hip");
}

static inline rapt_device *cpu_device(void)
{
    return rapt_device_at(context, rapt_device_count(context) - 1);
}

/* The device at index if it is to be tested, else NULL. */
static inline rapt_device *tested_device(int index)
{
    const char *wanted = getenv("RAPT_TEST_DEVICE");
    rapt_device *device = rapt_device_at(context, index);
    rapt_device_info info = info_of(device);
    size_t length = strlen(info.backend);
    if (!wanted || !*wanted || !strcmp(wanted, "all")) return device;
    if (!strcmp(wanted, "gpu")) return is_gpu(device) ? device : NULL;
    return !strncmp(wanted, info.backend, length) &&
                   (!wanted[length] || atoi(wanted + length + 1) == info.index)
               ? device
               : NULL;
}

/* for_each_device(device): the body runs once per device under test. */
#define for_each_device(device)                                                                    \
    for (int device##_index = 0; device##_index < rapt_device_count(context); device##_index++)    \
        for (rapt_device *device = tested_device(device##_index); device; device = NULL)

/* Whether there is a device to test (a GPU, with gpus); if not, one line says so. */
static inline bool has_device(bool gpus)
{
    int found = 0;
    if (open_devices(NULL)) return true; /* for the tests to say so */
    for_each_device(device) found += is_gpu(device) || !gpus;
    close_devices(NULL);
    if (!found) printf("1..0 # SKIP no GPU here\n");
    return found;
}

#define run_end_to_end(name, tests, gpus)                                                          \
    (has_device(gpus) ? cmocka_run_group_tests_name(name, tests, open_devices, close_devices) : 0)

static inline void expect_ok(rapt_status status, const rapt_device *device, const char *what)
{
    if (status) {
        rapt_device_info info = info_of(device);
        fail_msg("%s:%d %s: %s", info.backend, (int)info.index, what, rapt_last_error());
    }
}

/* Builds the problem of a line on the host. */
static inline void build(const char *text, struct problem_instance *instance)
{
    struct problem_line line;
    char error[256];
    if (!problem_parse(text, &line, error, sizeof error)) fail_msg("%s: %s", text, error);
    if (!problem_build(&line, instance, error, sizeof error)) fail_msg("%s: %s", text, error);
}

/* The error of the results in the instance is within its bound, and nothing else was written. */
static inline void expect_right(const rapt_device *device, const struct problem_instance *instance)
{
    struct accuracy accuracy;
    rapt_device_info info = info_of(device);
    assert_true(accuracy_check(instance, 2e9, &accuracy));
    const char *spoiled = problem_spoiled(instance);
    if (spoiled)
        fail_msg("%s:%d %s: %s was overwritten", info.backend, (int)info.index, instance->line.text,
                 spoiled);
    if (!(accuracy.worst <= 1))
        fail_msg("%s:%d %s: error is %.3g of its bound at %s (got %.9g, want %.9g)", info.backend,
                 (int)info.index, instance->line.text, accuracy.worst, accuracy.where, accuracy.got,
                 accuracy.want);
    print_message("# %s:%d %s: %.3f of the bound\n", info.backend, (int)info.index,
                  instance->line.text, accuracy.worst);
}

/* Runs a built problem on a device and demands that its results are right. */
static inline void run_on(rapt_device *device, struct problem_instance *instance)
{
    struct problem_device on;
    problem_reset(instance);
    expect_ok(problem_upload(instance, device, &on), device, instance->line.text);
    rapt_status status = problem_run(&on, instance->line.op, NULL);
    if (!status) status = rapt_synchronize(device, NULL);
    if (!status) status = problem_download(&on, instance);
    problem_device_free(&on);
    expect_ok(status, device, instance->line.text);
    expect_right(device, instance);
}

/* All elements of a host tensor as a new array in logical order; count is set. Freed by the caller.
 */
static inline float *elements(const rapt_tensor *t, int64_t *count)
{
    *count = t->size[0] * t->size[1] * t->size[2] * t->size[3];
    float *x = malloc((size_t)(*count ? *count : 1) * sizeof *x), *at = x;
    assert_non_null(x);
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t i = 0; i < t->size[2]; i++)
                for (int64_t c = 0; c < t->size[3]; c++) {
                    int64_t offset = tensor_offset(t, b, h, i, c);
                    uint16_t half;
                    if (t->dtype == RAPT_F32) {
                        memcpy(at++, (const char *)t->data + offset * 4, 4);
                        continue;
                    }
                    memcpy(&half, (const char *)t->data + offset * 2, 2);
                    *at++ = half; /* the bits as a number: enough to compare for equality */
                }
    return x;
}

#endif
