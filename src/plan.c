/* plan.c: chooses a kernel by walking the device's table, best first, and keeps the reasons of
 * those that refuse. */
#include "plan.h"
#include "base/alloc.h"
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text that grows in a fixed buffer and counts what it would have been. */
struct text {
    char *to;
    size_t size, length;
};

__attribute__((format(printf, 2, 3))) static void append(struct text *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t left = t->length < t->size ? t->size - t->length : 0;
    int written = vsnprintf(left ? t->to + t->length : NULL, left, format, arguments);
    va_end(arguments);
    if (written > 0) t->length += (size_t)written;
}

/* The problem as this device's kernels see it: the name of a backend asks for none of them. */
static struct problem seen_by(const rapt_device *device, const struct problem *p)
{
    struct problem seen = *p;
    if (p->kernel && !strcmp(p->kernel, device->backend->name)) seen.kernel = NULL;
    return seen;
}

/* The index of the first kernel that serves, or -1; each refusal is appended as "name: reason" and
 * separator. */
static int choose(rapt_device *device, const struct problem *p, const char *separator,
                  struct text *refusals)
{
    const struct backend *backend = device->backend;
    char scratch[REASON_SIZE];
    int count = backend->kernel_count(device);
    for (int i = 0; i < count; i++) {
        const char *name = backend->kernel_name(device, i);
        if (p->kernel && strcmp(p->kernel, name)) continue;
        const char *reason = backend->kernel_refuses(device, i, p, scratch);
        if (!reason) return i;
        append(refusals, "%s%s: %s", refusals->length ? separator : "", name, reason);
    }
    if (p->kernel && !refusals->length)
        append(refusals, "%s: this device has no kernel of that name", p->kernel);
    return -1;
}

rapt_status plan_build(rapt_device *device, const struct problem *asked, const char *function,
                       rapt_plan **out)
{
    char reasons[REASON_SIZE] = "";
    struct text refusals = {reasons, sizeof reasons, 0};
    const struct problem p = seen_by(device, asked);
    *out = NULL;
    int chosen = choose(device, &p, "; ", &refusals);
    if (chosen < 0)
        return fail(RAPT_UNSUPPORTED, "%s: no kernel of %s:%lld serves this (%s)", function,
                    device->info.backend, (long long)device->info.index, reasons);
    rapt_plan *plan = alloc_zeroed(1, sizeof *plan);
    if (!plan)
        return fail(RAPT_NO_MEMORY, "%s: no memory for a plan (%zu bytes)", function, sizeof *plan);
    plan->device = device;
    plan->kernel = chosen;
    plan->problem = p;
    plan->problem.kernel = NULL;
    plan->named = p.kernel != NULL;
    rapt_status status = device->backend->plan(plan);
    if (status) {
        free(plan);
        return status;
    }
    *out = plan;
    return RAPT_OK;
}

void plan_destroy(rapt_plan *plan)
{
    if (!plan) return;
    if (plan->device->backend->plan_free) plan->device->backend->plan_free(plan);
    free(plan);
}

size_t plan_explain(rapt_device *device, const struct problem *asked, char *text, size_t size)
{
    struct text t = {text, size, 0};
    const struct problem p = seen_by(device, asked);
    int chosen = choose(device, &p, "\n", &t);
    const char *separator = t.length ? "\n" : "";
    if (chosen >= 0)
        append(&t, "%s%s: runs\n", separator, device->backend->kernel_name(device, chosen));
    else append(&t, "%snothing on this device serves this problem\n", separator);
    return t.length;
}
