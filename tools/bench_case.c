/* bench_case.c: builds a problem on a device and times its calls. */
#include "bench_case.h"

#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A sequence that brings at most so many queries to its cache is a decode step. */
enum { DECODE_QUERIES = 32, LEAST_ROUNDS = 1, COPY_ALIGNMENT = 4096 };

/* Flop a byte below which memory is the limit: CPUs and GPUs of today balance at 5 to 300. */
#define BALANCE 40.0

/* A round's calls share one synchronisation, which on a GPU costs some microseconds. */
#define CPU_ROUND_SECONDS 2e-4
#define GPU_ROUND_SECONDS 5e-3
#define WARM_SECONDS      0.1

/* Last-level caches where the system does not tell: larger than those of the GPUs that are built
 * for (50 MB and 256 MB). */
static const struct {
    const char *backend;
    double bytes;
} caches[] = {{"cuda", 64e6}, {"hip", 256e6}, {"cpu", 32e6}};

/* Linux names each level's size in KiB ("32768K"); sysconf counts caches of CPUs that a virtual
 * machine does not have. */
static double cpu_cache(void)
{
    double most = 0;
    for (int index = 0; index < 8; index++) {
        char path[80], unit = 'K';
        double size = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
        FILE *file = fopen(path, "r");
        if (!file) break;
        /* NOLINTNEXTLINE(cert-err34-c): the system writes a number that fits */
        if (fscanf(file, "%lf%c", &size, &unit) >= 1)
            most = fmax(most, size * (unit == 'M' ? 1 << 20 : 1 << 10));
        fclose(file);
    }
    return most;
}

static double last_cache(const struct device *device)
{
    double found = device->is_cpu ? cpu_cache() : 0;
    for (size_t i = 0; i < sizeof caches / sizeof *caches && found <= 0; i++)
        if (!strcmp(device->info.backend, caches[i].backend)) found = caches[i].bytes;
    return found;
}

int bench_is_bound_by_memory(const struct problem_line *line)
{
    return problem_flops(line) < BALANCE * problem_bytes(line);
}

static const struct problem_region *region_of(const struct bench_case *c, const rapt_tensor *tensor)
{
    for (int i = 0; i < c->instance.region_count; i++)
        if (c->instance.region[i].tensor == tensor) return &c->instance.region[i];
    return NULL;
}

/* Where a region begins in device memory. */
static char *region_memory(const struct bench_case *c, const struct problem_region *region)
{
    void *memory = c->on_device.memory[region - c->instance.region];
    return memory ? memory : region->base;
}

/* Copy n of K (which 0) or V (1). */
static char *copy_at(const struct bench_case *c, int64_t n, int which)
{
    return (char *)c->memory + (size_t)n * (c->copy_bytes[0] + c->copy_bytes[1]) +
           (which ? c->copy_bytes[0] : 0);
}

static int refuse(struct bench_case *c, int code, const char *sentence)
{
    complain(code, "\"%s\": %s", c->line.text, sentence);
    bench_case_close(c);
    return code;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + COPY_ALIGNMENT - 1) / COPY_ALIGNMENT * COPY_ALIGNMENT;
}

/* Moves the tensors of an operation into one piece of memory, those that it writes behind those
 * that it only reads, so that a stream can be timed over the very same memory: a copy from its first
 * half to its second overwrites no input. */
static int gather_tensors(struct bench_case *c)
{
    struct problem_instance *p = &c->instance;
    size_t at[2] = {0, 0}; /* of what is read, of what is written */
    for (int i = 0; i < p->region_count; i++) {
        if (p->region[i].sparse) return EXIT_OK;
        at[p->region[i].output] += whole_pages(p->region[i].bytes);
    }
    size_t inputs = at[0], outputs = at[1];
    if (rapt_alloc(c->device->handle, inputs + outputs, &c->memory))
        return refuse(c, EXIT_NOT_HERE, rapt_last_error());
    at[0] = 0;
    at[1] = inputs;
    for (int i = 0; i < p->region_count; i++) {
        const struct problem_region *region = &p->region[i];
        char *to = (char *)c->memory + at[region->output];
        rapt_tensor *t = (rapt_tensor *)((char *)&c->on_device.args +
                                         ((char *)region->tensor - (char *)&p->args));
        memcpy(to, region->base, region->bytes);
        t->data = to + ((char *)t->data - region->base);
        at[region->output] += whole_pages(region->bytes);
    }
    if (p->line.inplace) {
        c->on_device.args.rope.out = c->on_device.args.rope.x;
        c->on_device.args.softmax.out = c->on_device.args.softmax.x;
    }
    size_t unpaired = inputs > outputs ? inputs - outputs : 0;
    c->stream_memory = (char *)c->memory + unpaired;
    c->stream_bytes = inputs + outputs - unpaired;
    return EXIT_OK;
}

/* Copies of K and V that calls take in turn, in one piece of memory. On a CPU the calls take them
 * from there even if there is one alone: then a stream can be timed over the very same memory. */
static int make_copies(struct bench_case *c, int64_t rotate)
{
    const struct problem_region *regions[2] = {region_of(c, &c->instance.args.forward.k),
                                               region_of(c, &c->instance.args.forward.v)};
    double bytes = 0;
    c->working_set = problem_bytes(&c->line);
    if (c->line.op != OP_forward) return c->device->is_cpu ? gather_tensors(c) : EXIT_OK;
    for (int i = 0; i < 2; i++) {
        if (!regions[i] || regions[i]->sparse) return EXIT_OK;
        c->copy_bytes[i] = whole_pages(regions[i]->bytes);
        bytes += (double)regions[i]->bytes;
    }
    /* Decode finds a cache that other layers' have pushed out; a prefill's keys, however few, were
     * written just before. */
    if (rotate < 0)
        rotate = c->line.q_tokens <= DECODE_QUERIES && c->line.kv_tokens > c->line.q_tokens
                     ? (int64_t)ceil(4 * last_cache(c->device) / bytes)
                     : 1;
    if (rotate < 2 && !(c->device->is_cpu && bench_is_bound_by_memory(&c->line))) return EXIT_OK;
    if (rotate < 1) rotate = 1;
    c->stream_bytes = (size_t)rotate * (c->copy_bytes[0] + c->copy_bytes[1]);
    if (rapt_alloc(c->device->handle, c->stream_bytes, &c->memory))
        return refuse(c, EXIT_NOT_HERE, rapt_last_error());
    c->stream_memory = c->memory;
    for (int64_t n = 0; n < rotate; n++)
        for (int i = 0; i < 2; i++)
            if (rapt_copy(c->device->handle, copy_at(c, n, i), region_memory(c, regions[i]),
                          regions[i]->bytes, NULL))
                return refuse(c, EXIT_NOT_HERE, rapt_last_error());
    c->copies = rotate;
    c->working_set = problem_bytes(&c->line) + (double)(rotate - 1) * bytes;
    return EXIT_OK;
}

/* forward is planned by hand; the other operations have no plan. */
static int make_plan(struct bench_case *c, const struct device_options *options)
{
    if (c->line.op != OP_forward) {
        if (options->kernel) return refuse(c, EXIT_BAD_INPUT, "--kernel belongs to forward");
        static const char *const names[] = {
#define NAME(name) #name,
            PROBLEM_OP_LIST(NAME)
#undef NAME
        };
        snprintf(c->kernel, sizeof c->kernel, "%s", names[c->line.op]);
        return EXIT_OK;
    }
    if (options->kernel) c->on_device.args.forward.kernel = options->kernel;
    rapt_status status = rapt_plan_create(&c->plan, c->device->handle, &c->on_device.args.forward);
    if (status) return refuse(c, exit_code_of(status), rapt_last_error());
    snprintf(c->kernel, sizeof c->kernel, "%s", rapt_plan_kernel(c->plan));
    size_t bytes = rapt_plan_workspace_size(c->plan);
    if (bytes) status = rapt_alloc(c->device->handle, bytes, &c->workspace);
    return status ? refuse(c, exit_code_of(status), rapt_last_error()) : EXIT_OK;
}

int bench_case_open(struct device *device, const struct device_options *options,
                    const struct problem_line *line, int64_t rotate, struct bench_case *out)
{
    char error[512];
    memset(out, 0, sizeof *out);
    out->device = device;
    out->line = *line;
    if (!problem_build(line, &out->instance, error, sizeof error))
        return complain(EXIT_NOT_HERE, "\"%s\": %s", line->text, error);
    rapt_status status = problem_upload(&out->instance, device->handle, &out->on_device);
    if (status) return refuse(out, exit_code_of(status), rapt_last_error());
    int code = make_plan(out, options);
    return code ? code : make_copies(out, rotate);
}

static rapt_status call(struct bench_case *c)
{
    if (!c->plan) return problem_run(&c->on_device, c->line.op, NULL);
    rapt_attention a = c->on_device.args.forward;
    rapt_tensor *tensors[2] = {&a.k, &a.v};
    const rapt_tensor *host[2] = {&c->instance.args.forward.k, &c->instance.args.forward.v};
    for (int i = 0; i < 2 && c->copies; i++) {
        const struct problem_region *region = region_of(c, host[i]);
        tensors[i]->data = copy_at(c, c->turn, i) + ((char *)host[i]->data - region->base);
    }
    if (c->copies) c->turn = (c->turn + 1) % c->copies;
    return c->through_forward ? rapt_forward(c->device->handle, &a, NULL)
                              : rapt_plan_execute(c->plan, &a, c->workspace, NULL);
}

/* Seconds of calls back to back, up to their completion. */
static rapt_status time_round(struct bench_case *c, int64_t calls, double *seconds)
{
    double start = seconds_now();
    rapt_status status = RAPT_OK;
    for (int64_t i = 0; i < calls && !status; i++) status = call(c);
    if (!status) status = rapt_synchronize(c->device->handle, NULL);
    *seconds = seconds_now() - start;
    return status;
}

int bench_case_warm(struct bench_case *c)
{
    double round = c->device->is_cpu ? CPU_ROUND_SECONDS : GPU_ROUND_SECONDS, one = 0;
    c->round_calls = 1;
    rapt_status status = time_round(c, 1, &one); /* kernels are loaded and pages touched */
    for (double warm = 0; !status && (warm < WARM_SECONDS || warm == 0);
         warm += one * (double)c->round_calls) {
        status = time_round(c, c->round_calls, &one);
        one /= (double)c->round_calls;
        if (one * (double)c->round_calls < round)
            c->round_calls = (int64_t)ceil(round / fmax(one, 1e-9));
    }
    return status ? complain(exit_code_of(status), "\"%s\": %s", c->line.text, rapt_last_error())
                  : EXIT_OK;
}

int bench_case_time(struct bench_case *c, double seconds)
{
    double one = 0, total = 0;
    for (int n = 0; c->rounds < BENCH_ROUNDS_MAX && (total < seconds || n < LEAST_ROUNDS); n++) {
        rapt_status status = time_round(c, c->round_calls, &one);
        if (status)
            return complain(exit_code_of(status), "\"%s\": %s", c->line.text, rapt_last_error());
        total += one;
        c->round_seconds[c->rounds++] = one / (double)c->round_calls;
    }
    return EXIT_OK;
}

struct bench_times bench_case_times(struct bench_case *c)
{
    double median = median_of(c->round_seconds, c->rounds);
    return (struct bench_times){c->round_seconds[0], median, c->round_seconds[c->rounds - 1],
                                c->round_calls * c->rounds};
}

void bench_case_close(struct bench_case *c)
{
    rapt_plan_destroy(&c->plan);
    rapt_free(c->device->handle, c->memory);
    rapt_free(c->device->handle, c->workspace);
    if (c->on_device.device) problem_device_free(&c->on_device);
    problem_free(&c->instance);
    memset(c, 0, sizeof *c);
}
