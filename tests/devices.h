/* devices.h: which devices a test program runs on, from the environment.
 *
 *   RAPT_TEST_DEVICE   cpu (default), gpu (all GPUs), all, or one: cuda:0, hip:1
 *   RAPT_TEST_FILTER   comma list of name patterns with * and ?; !pattern excludes
 *   RAPT_TEST_SIZE     largest size class of the named problems (default 2)
 *   RAPT_TEST_KERNELS  best (default); all: every kernel that takes the problem, each by name; or patterns
 *                      of such names, as in RAPT_TEST_FILTER
 *   RAPT_TEST_PART     with RAPT_TEST_PARTS N: every Nth problem or test, counted from this one
 *   RAPT_TEST_SHARE    with RAPT_TEST_SHARES N: every Nth kind of problem, in one of its types
 *   RAPT_TEST_BUDGET   millions of multiply-adds for the oracle per problem (60), else rows are sampled
 *   RAPT_TEST_VERBOSE  set: the worst fraction of the bound of each problem, on stderr */
#ifndef RAPT_TESTS_DEVICES_H
#define RAPT_TESTS_DEVICES_H

#include "rapt/rapt.h"

#include <stdbool.h>

enum { TEST_DEVICES = 16 };

struct test_devices {
    rapt_context *context;
    rapt_device *device[TEST_DEVICES];
    rapt_device_info info[TEST_DEVICES];
    int count; /* 0: none is present; the program should skip */
};

/* false: the library failed to open; rapt_last_error says why. */
bool test_devices_open(struct test_devices *devices);
void test_devices_close(struct test_devices *devices);
/* When RAPT_CPU names a level that this CPU lacks: true, and the program should skip. */
bool test_level_missing(const struct test_devices *devices);
/* Whether RAPT_TEST_KERNELS asks for kernels by name. */
bool test_kernels_named(void);
/* Names of the device's forward kernels, best first; those of RAPT_TEST_KERNELS where it names some.
 * names has room for rapt_kernel_count() of them. */
int test_device_kernels(const struct test_devices *devices, int device, const char *names[]);
/* "cpu:0" */
const char *test_device_label(const rapt_device_info *info, char label[32]);
/* The whole number of an environment variable, or fallback. */
int64_t test_environment(const char *name, int64_t fallback);

#endif
