/* devices.c: see devices.h. */
#include "devices.h"
#include "problem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *test_device_label(const rapt_device_info *info, char label[32])
{
    snprintf(label, 32, "%s:%lld", info->backend, (long long)info->index);
    return label;
}

static bool is_wanted(const rapt_device_info *info, const char *spec)
{
    char label[32];
    bool cpu = !strcmp(info->backend, "cpu");
    if (!strcmp(spec, "all")) return true;
    if (!strcmp(spec, "gpu")) return !cpu;
    return !strcmp(spec, info->backend) || !strcmp(spec, test_device_label(info, label));
}

bool test_devices_open(struct test_devices *devices)
{
    const char *spec = getenv("RAPT_TEST_DEVICE");
    memset(devices, 0, sizeof *devices);
    if (!spec || !*spec) spec = "cpu";
    rapt_config config = {.struct_size = sizeof config,
                          .backends = strcmp(spec, "cpu") ? NULL : "cpu"};
    if (rapt_open(&devices->context, &config)) return false;
    for (int i = 0; i < rapt_device_count(devices->context) && devices->count < TEST_DEVICES; i++) {
        rapt_device_info info = {.struct_size = sizeof info};
        rapt_device *device = rapt_device_at(devices->context, i);
        if (rapt_device_describe(device, &info) || !is_wanted(&info, spec)) continue;
        devices->device[devices->count] = device;
        devices->info[devices->count++] = info;
    }
    return true;
}

void test_devices_close(struct test_devices *devices)
{
    rapt_close(&devices->context);
    devices->count = 0;
}

bool test_level_missing(const struct test_devices *devices)
{
    const char *level = getenv("RAPT_CPU");
    if (!level || !*level || devices->count != 1 || strcmp(devices->info[0].backend, "cpu"))
        return false;
    return strcmp(devices->info[0].arch, level) != 0;
}

bool test_kernels_named(void)
{
    const char *mode = getenv("RAPT_TEST_KERNELS");
    return mode && *mode && strcmp(mode, "best") != 0;
}

static bool is_asked(const char *kernel)
{
    const char *mode = getenv("RAPT_TEST_KERNELS");
    return !test_kernels_named() || !strcmp(mode, "all") || problem_selected(kernel, mode);
}

int test_device_kernels(const struct test_devices *devices, int device, const char *names[])
{
    int count = 0;
    for (int64_t i = 0; i < rapt_kernel_count(devices->context); i++) {
        rapt_kernel_info info = {.struct_size = sizeof info};
        if (rapt_kernel_at(devices->context, i, &info) || !info.present ||
            strcmp(info.op, "forward") || strcmp(info.backend, devices->info[device].backend) ||
            !is_asked(info.name))
            continue;
        bool known = false;
        for (int k = 0; k < count; k++) known = known || !strcmp(names[k], info.name);
        if (!known) names[count++] = info.name;
    }
    return count;
}

int64_t test_environment(const char *name, int64_t fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtoll(text, NULL, 10) : fallback;
}
