/* cpu.c: the CPU backend: detects the CPU, lists its levels (levels.def) as kernels, plans, checks indices and
 * dispatches. */
#include "cpu/cpu.h"
#include "base/alloc.h"
#include "base/cpuid.h"
#include "base/dtype.h"
#include "base/error.h"
#include "cpu/arena.h"
#include "overlap.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- What the CPU offers ---- */

/* What the CPU offers of what the first levels need, and what is no instruction set. */
static uint64_t usable_features(int count)
{
    uint64_t wanted =
        CPU_KEEPS_REQUESTS | CPU_FETCHES_TWICE | CPU_FETCHES_EARLY | CPU_DROPS_REQUESTS;
    for (int i = 0; i < count; i++) wanted |= cpu_levels[i].needs;
    return cpu_permitted(cpu_features() & wanted);
}

/* Measured: bench/notes/cpu.md has what others cost. A CPU that drops requests while its buffers are full is asked
 * again a little later. */
const struct cpu_requests cpu_requests[CPU_REQUESTS] = {
    /* Intel with AMX */
    {.feature = CPU_FETCHES_TWICE, .ahead = 12 << 10, .again = -(10 << 10), .rows_ahead = 4 << 10},
    /* Zen 5, bf16 by pairs and all else */
    {.feature = CPU_FETCHES_EARLY,
     .pair = 2,
     .ahead = 8 << 10,
     .again = CPU_ONCE,
     .span = 8 << 10,
     .span_again = CPU_ONCE,
     .rows_ahead = 4 << 10},
    {.feature = CPU_FETCHES_EARLY,
     .ahead = 12 << 10,
     .again = -(4 << 10),
     .span = 8 << 10,
     .span_again = CPU_ONCE,
     .rows_ahead = 4 << 10},
    /* Zen 4 */
    {.feature = CPU_DROPS_REQUESTS,
     .ahead = 8 << 10,
     .again = 2 << 10,
     .span = 16 << 10,
     .span_again = 2 << 10},
    /* Intel */
    {.feature = CPU_KEEPS_REQUESTS, .ahead = 8 << 10},
    {.ahead = 8 << 10, .again = 2 << 10},
};

const struct cpu_requests *cpu_requests_of(uint64_t features, int64_t pair)
{
    const struct cpu_requests *requests = cpu_requests;
    while (requests->feature & ~features || (requests->pair && requests->pair != pair)) requests++;
    return requests;
}

/* ---- Device ---- */

static int64_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (int64_t)pages * size : 0;
}

static rapt_status open_backend(rapt_context *context, void **state, char reason[REASON_SIZE])
{
    const char *mask = getenv("RAPT_CPU");
    int count = cpu_levels_under(mask);
    *state = NULL;
    if (count < 0) {
        char names[128];
        cpu_level_names(names, sizeof names);
        return fail(RAPT_INVALID, "rapt_open: RAPT_CPU is '%s' (one of %s)", mask, names);
    }
    struct cpu_device *device = alloc_zeroed(1, sizeof *device);
    if (!device)
        return fail(RAPT_NO_MEMORY, "rapt_open: no memory for the CPU device (%zu bytes)",
                    sizeof *device);
    device->features = usable_features(count);
    device->threads = context->config.threads;
    for (const struct cpu_level *level = &cpu_levels[count - 1]; level >= cpu_levels; level--)
        if ((device->features & level->needs) == level->needs) {
            device->levels[device->level_count++] = level;
            if (!device->rows) device->rows = level->rows;
        }
    device->pool = pool_open(device->threads);
    if (!device->pool) {
        free(device);
        return fail(RAPT_NO_MEMORY,
                    "rapt_open: the system starts no %" PRId64
                    " threads (ask for fewer, by rapt_config or RAPT_THREADS)",
                    context->config.threads);
    }
    rapt_device_info info = {.struct_size = sizeof info,
                             .compute_units = device->threads,
                             .memory_bytes = memory_bytes()};
    cpu_name(info.name, sizeof info.name);
    snprintf(info.backend, sizeof info.backend, "cpu");
    snprintf(info.arch, sizeof info.arch, "%s", device->levels[0]->kernels->arch);
    rapt_status status = context_add_device(context, &cpu_backend, &info, device);
    if (status) {
        pool_close(device->pool);
        free(device);
        return status;
    }
    *state = device;
    reason[0] = 0;
    return RAPT_OK;
}

/* The device owns all state; the backend's state is the same object, seen by row_describe. */
static void close_backend(void *state)
{
    (void)state;
}

static void close_device(rapt_device *device)
{
    struct cpu_device *own = device->state;
    pool_close(own->pool);
    free(own);
}

/* ---- Kernels ---- */

static int kernel_count(const rapt_device *device)
{
    return ((const struct cpu_device *)device->state)->level_count;
}

static const struct cpu_level *level_of(const rapt_device *device, int kernel)
{
    return ((const struct cpu_device *)device->state)->levels[kernel];
}

static const char *kernel_name(const rapt_device *device, int kernel)
{
    return level_of(device, kernel)->kernels->name;
}

static const char *kernel_refuses(const rapt_device *device, int kernel, const struct problem *p,
                                  char reason[REASON_SIZE])
{
    const struct cpu_level *level = level_of(device, kernel);
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        if (!view_fits(problem_tensor(&p->asked, i)))
            return "counts elements of a tensor in 48 bits, empty axes as 1";
    if (p->batch > VIEW_MOST / max64(p->kv_heads, 1))
        return "counts sequences times KV heads in 48 bits";
    return level->refuses ? level->refuses(p, reason) : NULL;
}

static int row_count(void)
{
    return CPU_LEVELS;
}

static void row_describe(const rapt_context *context, void *state, int row, rapt_kernel_info *info)
{
    const struct cpu_device *device = state;
    const struct cpu_level *level = &cpu_levels[CPU_LEVELS - 1 - row];
    (void)context;
    info->name = level->kernels->name;
    info->backend = "cpu";
    info->arch = level->kernels->arch;
    info->op = "forward";
    info->override = NULL;
    info->bytes = 0;
    info->present = 0;
    for (int i = 0; device && i < device->level_count; i++)
        if (device->levels[i] == level) info->present = 1;
}

/* ---- Plan and execute ---- */

/* The level's slots, those that read K and V by their forms for a blocked cache. */
static void choose_block_kernels(struct cpu_plan *plan, const struct cpu_block_kernels *blocks)
{
    plan->blocked = *plan->kernels;
    plan->blocked.pack_k = blocks->pack_k;
    plan->blocked.pack_v = blocks->pack_v;
    plan->blocked.decode_stage = NULL;
    plan->blocked.decode_keys = 0;
    plan->blocked.decode_qk = blocks->decode_qk;
    plan->blocked.decode_pv = blocks->decode_pv;
    plan->kernels = &plan->blocked;
}

int64_t cpu_threads_worth_waking(const struct problem *p, const struct cpu_plan *plan)
{
    int64_t share = plan->kernels->wake_share;
    double work = (double)p->batch * (double)(p->q_heads * p->q_tokens) * (double)p->kv_tokens *
                  (double)(p->qk_channels + p->v_channels);
    if (!share || work >= (double)share * INT32_MAX) return INT32_MAX;
    return max64(1, (int64_t)(work / (double)share));
}

int cpu_has_score_options(const rapt_attention *a)
{
    return a->softcap != 0 || a->bias.dtype || a->mask.dtype || a->alibi_slope.dtype;
}

float cpu_exponent_scale(const rapt_attention *a)
{
    const double log2_e = 1.44269504088896340736;
    return (float)((cpu_has_score_options(a) ? 1 : fabs(a->scale)) * log2_e);
}

/* Whether there is no row of a result; starts that are one number tell of no query. */
static int asks_nothing(const struct problem *p)
{
    return !view_has_elements(&p->a.out) || (p->ragged_q && !p->a.q_start.stride[0]);
}

static rapt_status plan_attention(rapt_plan *plan)
{
    const struct cpu_device *device = plan->device->state;
    struct cpu_plan *own = alloc_zeroed(1, sizeof *own);
    if (!own)
        return fail(RAPT_NO_MEMORY, "rapt_plan_create: no memory for a plan (%zu bytes)",
                    sizeof *own);
    const struct cpu_level *level = level_of(plan->device, plan->kernel);
    own->kernels = level->kernels;
    if (plan->problem.a.kv_layout == RAPT_KV_BLOCKED && level->blocks)
        choose_block_kernels(own, level->blocks);
    own->slots = device->threads;
    own->requests = cpu_requests_of(device->features, own->kernels->pair);
    plan->state = own;
    if (asks_nothing(&plan->problem)) return RAPT_OK;
    plan->workspace_size = few_plan(&plan->problem, own);
    if (!own->serves_few) {
        size_t decode = decode_plan(&plan->problem, own),
               forward = forward_plan(&plan->problem, own);
        plan->workspace_size = decode > forward ? decode : forward;
    }
    return RAPT_OK;
}

static void plan_free(rapt_plan *plan)
{
    free(plan->state);
}

static int64_t index_at(const rapt_tensor *t, int64_t i0, int64_t i2)
{
    return load_index(t->data, t->dtype, i0 * t->stride[0] + i2 * t->stride[2]);
}

/* Starts of a ragged batch: rising, within the tokens that exist. */
static rapt_status check_starts(const rapt_tensor *t, const char *name, int64_t tokens,
                                const char *function)
{
    int64_t before = 0;
    for (int64_t b = 0; b < view_distinct(t, 0); b++) {
        int64_t start = index_at(t, b, 0);
        if (start < before || start > tokens)
            return fail(RAPT_INVALID,
                        "%s: %s[%" PRId64 "] is %" PRId64 " (%" PRId64 " ... %" PRId64 ")",
                        function, name, b, start, before, tokens);
        before = start;
    }
    return RAPT_OK;
}

static int64_t capacity_of(const struct problem *p, const rapt_attention *a, int64_t b)
{
    return p->ragged_kv ? index_at(&a->kv_start, b + 1, 0) - index_at(&a->kv_start, b, 0)
                        : p->kv_tokens;
}

static rapt_status check_pages(const struct problem *p, const rapt_attention *a, int64_t b,
                               int64_t length, const char *function)
{
    int64_t used = ceil_div(length, p->page_tokens);
    if (!a->page_table.stride[2]) used = min64(used, 1);
    for (int64_t i = 0; i < used; i++) {
        int64_t page = index_at(&a->page_table, b, i);
        if (page < 0 || page >= a->k.size[0])
            return fail(RAPT_INVALID,
                        "%s: page_table[%" PRId64 ", %" PRId64 "] is %" PRId64 " (0 ... %" PRId64
                        ")",
                        function, b, i, page, a->k.size[0] - 1);
    }
    return RAPT_OK;
}

/* Score-shaped tensors must have a column for every key of the longest sequence, which ragged keys
 * tell only now. */
static rapt_status check_columns(const rapt_attention *a, int64_t b, int64_t length,
                                 const char *function)
{
    const struct {
        const char *name;
        const rapt_tensor *t;
        int64_t repeated; /* columns that stand for any number */
    } rows[] = {{"bias", &a->bias, 1}, {"mask", &a->mask, 1}, {"weights", &a->weights, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].t->dtype && rows[i].t->size[3] < length &&
            rows[i].t->size[3] != rows[i].repeated)
            return fail(RAPT_INVALID,
                        "%s: %s has %" PRId64 " columns (sequence %" PRId64 " has %" PRId64
                        " keys)",
                        function, rows[i].name, rows[i].t->size[3], b, length);
    return RAPT_OK;
}

/* Sequences that the index tensors may tell apart: 1 of those that are alike. */
static int64_t sequences_that_differ(const struct problem *p, const rapt_attention *a)
{
    int64_t strides = a->kv_start.stride[0] | a->kv_length.stride[0] | a->page_table.stride[0];
    return strides ? p->batch : min64(p->batch, 1);
}

static rapt_status check_indices(const struct problem *p, const rapt_attention *a,
                                 const char *function)
{
    rapt_status status;
    if (p->ragged_q && (status = check_starts(&a->q_start, "q_start", p->q_tokens, function)))
        return status;
    if (p->ragged_kv && (status = check_starts(&a->kv_start, "kv_start", p->kv_tokens, function)))
        return status;
    if (!p->ragged_kv && !a->kv_length.dtype && !p->page_tokens) return RAPT_OK;
    for (int64_t b = 0; b < sequences_that_differ(p, a); b++) {
        int64_t capacity = capacity_of(p, a, b), length = capacity;
        if (a->kv_length.dtype) length = index_at(&a->kv_length, b, 0);
        if (length < 0 || length > capacity)
            return fail(RAPT_INVALID,
                        "%s: kv_length[%" PRId64 "] is %" PRId64 " (0 ... %" PRId64 ")", function,
                        b, length, capacity);
        if (p->page_tokens && (status = check_pages(p, a, b, length, function))) return status;
        if ((status = check_columns(a, b, length, function))) return status;
    }
    return RAPT_OK;
}

static rapt_status execute(const rapt_plan *plan, const struct problem_data *data, void *workspace,
                           rapt_stream stream)
{
    const struct cpu_plan *own = plan->state;
    const struct cpu_device *device = plan->device->state;
    rapt_attention a;
    (void)stream;
    params_complete(&plan->problem, data, &a);
    rapt_status status = check_indices(&plan->problem, &a, "rapt_plan_execute");
    if (status || asks_nothing(&plan->problem)) return status;
    struct cpu_call call = {&plan->problem, &a, own, device->pool, workspace};
    const struct problem *p = &plan->problem;
    if (own->serves_few) {
        few_run(&call);
        return RAPT_OK;
    }
    if (own->decode_rows) decode_run(&call);
    if (p->ragged_q || p->q_tokens * p->group > own->decode_rows) forward_run(&call);
    return RAPT_OK;
}

/* ---- Memory ---- */

static rapt_status allocate(rapt_device *device, size_t bytes, void **out)
{
    (void)device;
    *out = alloc_large(bytes);
    return *out ? RAPT_OK : fail(RAPT_NO_MEMORY, "rapt_alloc: no memory (%zu bytes)", bytes);
}

static void release(rapt_device *device, void *memory)
{
    (void)device;
    free(memory);
}

static rapt_status copy(rapt_device *device, void *to, const void *from, size_t bytes,
                        rapt_stream stream)
{
    (void)device;
    (void)stream;
    if (bytes) memmove(to, from, bytes);
    return RAPT_OK;
}

static rapt_status synchronize(rapt_device *device, rapt_stream stream)
{
    (void)device;
    (void)stream;
    return RAPT_OK;
}

const struct backend cpu_backend = {
    .name = "cpu",
    .open = open_backend,
    .close = close_backend,
    .device_close = close_device,
    .kernel_count = kernel_count,
    .kernel_name = kernel_name,
    .kernel_refuses = kernel_refuses,
    .row_count = row_count,
    .row_describe = row_describe,
    .plan = plan_attention,
    .plan_free = plan_free,
    .execute = execute,
    .alloc = allocate,
    .free = release,
    .copy = copy,
    .synchronize = synchronize,
    .rope = cpu_rope,
    .softmax = cpu_softmax,
    .qk = cpu_qk,
    .pv = cpu_pv,
    .causal_mask = cpu_causal_mask,
    .kv_replicate = cpu_kv_replicate,
    .kv_append = cpu_kv_append,
};
