/* trial.h: runs a problem line on a device inside a cmocka test, for the programs of this folder.
 */
#ifndef RAPT_TESTS_TRIAL_H
#define RAPT_TESTS_TRIAL_H

#include "base/dtype.h"
#include "bound.h"
#include "devices.h"
#include "problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

static struct test_devices devices;

/* ---- Running a line ---- */

/* A problem in host and device memory; heap memory, as args and regions point into it. */
struct trial {
    struct problem_line line;
    struct problem_instance host;
    struct problem_device there;
};

static inline struct trial *trial_open(const char *text, rapt_device *device)
{
    char error[256];
    struct trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    if (!problem_parse(text, &t->line, error, sizeof error) ||
        !problem_build(&t->line, &t->host, error, sizeof error))
        fail_msg("%s", error);
    if (problem_upload(&t->host, device, &t->there)) fail_msg("%s", rapt_last_error());
    return t;
}

static inline void trial_close(struct trial *t)
{
    problem_device_free(&t->there);
    problem_free(&t->host);
    free(t);
}

/* Changes that a test made to the host's inputs are carried to the device first. */
static inline void trial_refresh(struct trial *t)
{
    rapt_device *device = t->there.device;
    problem_device_free(&t->there);
    if (problem_upload(&t->host, device, &t->there)) fail_msg("%s", rapt_last_error());
}

static inline void trial_run(struct trial *t)
{
    if (problem_run(&t->there, t->line.op, NULL))
        fail_msg("%s: %s", t->line.text, rapt_last_error());
    if (problem_download(&t->there, &t->host)) fail_msg("%s", rapt_last_error());
}

static inline struct trial *trial_of(const char *text, rapt_device *device)
{
    struct trial *t = trial_open(text, device);
    trial_run(t);
    return t;
}

static inline void assert_accurate(const struct trial *t)
{
    struct accuracy accuracy;
    assert_true(accuracy_check(&t->host, 0, &accuracy));
    if (accuracy.worst > 1)
        fail_msg("%s: %s is %.9g, should be %.9g, %.3g of the bound", t->line.text, accuracy.where,
                 accuracy.got, accuracy.want, accuracy.worst);
}

static inline bool same_element(const rapt_tensor *x, const rapt_tensor *y, const int64_t at[4],
                                int64_t y0)
{
    size_t bytes = dtype_size(x->dtype);
    int64_t i = tensor_offset(x, at[0], at[1], at[2], at[3]),
            j = tensor_offset(y, y0, at[1], at[2], at[3]);
    return !memcmp((char *)x->data + i * (int64_t)bytes, (char *)y->data + j * (int64_t)bytes,
                   bytes);
}

/* Elements of a row that differ in their bits; y0: the batch index in y. */
static inline int64_t row_differs(const rapt_tensor *x, const rapt_tensor *y, int64_t b, int64_t h,
                                  int64_t i, int64_t y0)
{
    int64_t count = 0;
    for (int64_t c = 0; c < x->size[3]; c++)
        count += !same_element(x, y, (const int64_t[4]){b, h, i, c}, y0);
    return count;
}

#define EACH_DEVICE(device)                                                                        \
    for (int device##_index = 0; device##_index < devices.count; device##_index++)                 \
        for (rapt_device *device = devices.device[device##_index]; device; device = NULL)

static const char *const types[] = {"f32", "f16", "bf16"};

/* The line with %s replaced by each type, on each device. */
typedef void line_test(const char *text, rapt_device *device);

static inline void each_type(const char *pattern, line_test *test)
{
    EACH_DEVICE(device) for (size_t n = 0; n < 3; n++)
    {
        char text[PROBLEM_LINE];
        snprintf(text, sizeof text, pattern, types[n]);
        test(text, device);
    }
}

/* Of the tests, those of this part (RAPT_TEST_PART); free. */
static inline struct CMUnitTest *tests_of_part(const struct CMUnitTest *tests, size_t count,
                                               size_t *kept)
{
    int64_t part = test_environment("RAPT_TEST_PART", 0),
            parts = test_environment("RAPT_TEST_PARTS", 1);
    struct CMUnitTest *mine = malloc((count + 1) * sizeof *mine);
    if (!mine) abort();
    *kept = 0;
    for (size_t i = 0; i < count; i++)
        if ((int64_t)i % parts == part) mine[(*kept)++] = tests[i];
    return mine;
}

/* The main of such a program: the tests on the chosen devices; skips without one. */
static inline int run_on_devices(const char *group, const struct CMUnitTest *tests, size_t count,
                                 int argc, char **argv)
{
    if (!test_devices_open(&devices)) {
        fprintf(stderr, "%s\n", rapt_last_error());
        return 1;
    }
    size_t kept;
    struct CMUnitTest *mine = tests_of_part(tests, count, &kept);
    bool lists = argc > 1, runs = lists || (devices.count && kept);
    if (!runs) printf("1..0 # SKIP no such device here, or no test in this part\n");
    int failed = runs ? run_group(group, mine, kept, NULL, NULL, argc, argv) : 0;
    free(mine);
    test_devices_close(&devices);
    return failed;
}

#endif
