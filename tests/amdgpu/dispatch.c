/* Launches: kernel arguments, workgroups over threads, waves of a workgroup in a chosen order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

struct amdgpu_options amdgpu_default_options(void)
{
    struct amdgpu_options o = {.check_undefined = true, .check_waits = true};
    return o;
}

/* Copies the explicit arguments and fills the hidden ones (LLVM AMDGPU usage, "Code object V5
 * metadata"). */
static void fill_kernarg(const struct amdgpu_dispatch *d, uint8_t *out, uint32_t size)
{
    const struct amdgpu_kernel *k = d->kernel;
    memset(out, 0, size);
    memcpy(out, d->args, d->args_size < size ? d->args_size : size);
    for (int i = 0; i < k->arg_count; i++) {
        const struct amdgpu_arg *a = &k->args[i];
        uint64_t value = 0;
        if (strncmp(a->kind, "hidden_", 7) != 0 || a->offset + a->size > size || a->size > 8)
            continue;
        const char *kind = a->kind + 7;
        int axis = kind[strlen(kind) - 1] - 'x';
        if (strncmp(kind, "block_count_", 12) == 0) value = d->grid[axis];
        if (strncmp(kind, "group_size_", 11) == 0) value = d->block[axis];
        if (strcmp(kind, "grid_dims") == 0) value = d->grid[2] > 1 ? 3 : d->grid[1] > 1 ? 2 : 1;
        if (strcmp(kind, "dynamic_lds_size") == 0) value = d->dynamic_lds;
        if (strcmp(kind, "private_base") == 0) value = PRIVATE_APERTURE >> 32;
        if (strcmp(kind, "shared_base") == 0) value = SHARED_APERTURE >> 32;
        memcpy(out + a->offset, &value, a->size);
    }
}

/* Part of the AQL dispatch packet that kernels read through dispatch_ptr. */
static void fill_packet(const struct amdgpu_dispatch *d, uint8_t packet[64])
{
    memset(packet, 0, 64);
    for (int i = 0; i < 3; i++) {
        uint16_t block = (uint16_t)d->block[i];
        uint32_t grid = d->grid[i] * d->block[i];
        memcpy(packet + 4 + 2 * i, &block, 2);
        memcpy(packet + 12 + 4 * i, &grid, 4);
    }
}

static void order_waves(const struct launch *l, uint64_t group, uint32_t *order)
{
    uint64_t state = l->options->seed * UINT64_C(0x9e3779b97f4a7c15) + group + 1;
    for (uint32_t i = 0; i < l->waves; i++)
        order[i] = l->options->order == AMDGPU_BACKWARD ? l->waves - 1 - i : i;
    if (l->options->order != AMDGPU_SHUFFLED) return;
    for (uint32_t i = l->waves; i > 1; i--) {
        state ^= state << 13; /* xorshift64, Marsaglia 2003 */
        state ^= state >> 7;
        state ^= state << 17;
        uint32_t j = (uint32_t)(state % i), keep = order[i - 1];
        order[i - 1] = order[j];
        order[j] = keep;
    }
}

static void run_group(struct worker *k, uint64_t number)
{
    const struct launch *l = k->launch;
    struct group g = {.live = l->waves, .wave_count = l->waves, .lds_size = l->lds_size};
    uint32_t order[64];
    g.id[0] = (uint32_t)(number % l->grid[0]);
    g.id[1] = (uint32_t)(number / l->grid[0] % l->grid[1]);
    g.id[2] = (uint32_t)(number / l->grid[0] / l->grid[1]);
    g.epoch = k->epoch + 1;
    k->count_conflicts = number == 0 || l->options->profile;
    memset(k->lds, 0xdb, l->lds_size);
    memset(k->lds_written, 0, l->lds_size);
    order_waves(l, number, order);
    for (uint32_t i = 0; i < l->waves; i++) setup_wave(&k->waves[i], &g, i);
    set_float_mode(&k->waves[0]);
    while (g.live) {
        bool progress = false;
        for (uint32_t i = 0; i < l->waves; i++) {
            struct wave *w = &k->waves[order[i]];
            if (w->done_flag || (w->blocked && w->generation_seen == g.generation)) continue;
            w->blocked = 0;
            set_float_mode(w);
            run_wave(w);
            progress = true;
        }
        if (!progress)
            fault(&k->waves[order[0]], "every wave waits at a barrier that cannot complete");
    }
    k->epoch = g.epoch;
    if (k->epoch >= (1u << 24) - 4096) { /* the shadow keeps 24 bits */
        memset(k->lds_writer, 0, AMDGPU_LDS_MAX);
        memset(k->lds_reader, 0, AMDGPU_LDS_MAX);
        k->epoch = 0;
    }
    k->stats.groups++;
    k->stats.waves += l->waves;
}

static void *aligned_zero(size_t size)
{
    void *p = aligned_alloc(64, (size + 63) / 64 * 64);
    if (p) memset(p, 0, size);
    return p;
}

static bool open_worker(struct worker *k, struct launch *l)
{
    memset(k, 0, sizeof *k);
    k->launch = l;
    k->lds = aligned_zero(AMDGPU_LDS_MAX + 64);
    k->lds_written = aligned_zero(AMDGPU_LDS_MAX + 64);
    k->lds_writer = aligned_zero(AMDGPU_LDS_MAX + 64);
    k->lds_reader = aligned_zero(AMDGPU_LDS_MAX + 64);
    k->waves = aligned_zero(l->waves * sizeof *k->waves);
    if (!k->lds || !k->lds_written || !k->lds_writer || !k->lds_reader || !k->waves) return false;
    for (uint32_t i = 0; i < l->waves; i++) {
        struct wave *w = &k->waves[i];
        size_t scratch = (size_t)l->kernel->private_size * (size_t)l->kernel->wave_size;
        w->worker = k;
        w->private_size = l->kernel->private_size;
        w->v = aligned_zero(VGPR_ROWS * sizeof *w->v);
        w->undef = aligned_zero(VGPR_ROWS * sizeof *w->undef);
        w->vtag = aligned_zero(VGPR_ROWS * sizeof *w->vtag);
        w->v_root = aligned_zero(VGPR_ROWS * sizeof *w->v_root);
        w->scratch = aligned_zero(scratch + 64);
        w->scratch_written = aligned_zero(scratch + 64);
        if (!w->v || !w->undef || !w->vtag || !w->v_root || !w->scratch || !w->scratch_written)
            return false;
        /* garbage that shows: a quiet NaN pattern */
        for (int r = 0; r < VGPR_ROWS; r++)
            for (int lane = 0; lane < ROW; lane++) w->v[r][lane] = 0x7fc0dead;
    }
    return true;
}

static void close_worker(struct worker *k)
{
    for (uint32_t i = 0; k->waves && i < k->launch->waves; i++) {
        free(k->waves[i].v);
        free(k->waves[i].undef);
        free(k->waves[i].vtag);
        free(k->waves[i].v_root);
        free(k->waves[i].scratch);
        free(k->waves[i].scratch_written);
    }
    free(k->waves);
    free(k->lds);
    free(k->lds_written);
    free(k->lds_writer);
    free(k->lds_reader);
}

static uint64_t thread_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *worker_main(void *argument)
{
    struct worker *k = argument;
    struct launch *l = k->shared;
    uint64_t start = thread_time();
    if (setjmp(k->escape)) {
        __atomic_store_n(&l->failed, 1, __ATOMIC_SEQ_CST);
        return NULL;
    }
    while (!__atomic_load_n(&l->failed, __ATOMIC_RELAXED)) {
        uint64_t number = __atomic_fetch_add(&l->next_group, 1, __ATOMIC_RELAXED);
        if (number >= l->total_groups) break;
        run_group(k, number);
    }
    k->stats.nanoseconds = thread_time() - start;
    return NULL;
}

static void add_counts(struct worker *k, struct amdgpu_stats *s)
{
    const uint64_t *c = k->counts;
    struct amdgpu_stats *t = &k->stats;
    s->valu += c[CAT_VALU];
    s->salu += c[CAT_SALU] + c[CAT_OTHER];
    s->matrix += c[CAT_MATRIX];
    s->lds += c[CAT_LDS];
    s->vmem += c[CAT_VMEM];
    s->smem += c[CAT_SMEM];
    for (int i = 0; i < CAT_KINDS; i++) s->instructions += c[i];
    s->matrix_flops += t->matrix_flops;
    s->global_read += t->global_read;
    s->global_written += t->global_written;
    s->lds_read += t->lds_read;
    s->lds_written += t->lds_written;
    s->lds_cycles += t->lds_cycles;
    s->lds_conflict_cycles += t->lds_conflict_cycles;
    s->lds_sampled += t->lds_sampled;
    s->barriers += t->barriers;
    s->groups += t->groups;
    s->waves += t->waves;
    s->nanoseconds += t->nanoseconds;
}

static bool run_workers(struct launch *l, int threads, struct amdgpu_stats *stats, char *error,
                        size_t error_size)
{
    struct worker *workers = calloc((size_t)threads, sizeof *workers);
    pthread_t *ids = calloc((size_t)threads, sizeof *ids);
    bool ok = workers && ids;
    int opened = 0, started = 0;
    while (ok && opened < threads) {
        ok = open_worker(&workers[opened], l);
        workers[opened++].shared = l;
    }
    if (!ok) snprintf(error, error_size, "%s: out of memory", l->kernel->name);
    for (int i = 1; ok && i < threads; i++)
        if (pthread_create(&ids[i], NULL, worker_main, &workers[i]) == 0) started = i;
        else break;
    if (ok) worker_main(&workers[0]);
    for (int i = 1; i <= started; i++) pthread_join(ids[i], NULL);
    for (int i = 0; i < opened; i++) {
        add_counts(&workers[i], stats);
        if (ok && workers[i].error[0]) {
            snprintf(error, error_size, "%s", workers[i].error);
            ok = false;
        }
        close_worker(&workers[i]);
    }
    free(workers);
    free(ids);
    return ok;
}

static const char *check_dispatch(const struct amdgpu_dispatch *d, const struct launch *l)
{
    for (int i = 0; i < 3; i++)
        if (!d->grid[i] || !d->block[i]) return "a grid or block dimension is 0";
    if (l->threads > 1024) return "more than 1024 work items in a workgroup";
    if (d->kernel->max_workgroup && l->threads > d->kernel->max_workgroup)
        return "the workgroup is larger than the kernel was compiled for (max_flat_workgroup_size)";
    if (l->lds_size > (uint32_t)d->module->target->lds_bytes) return "more LDS than the target has";
    if (d->kernel->rsrc1 >> 12 & 15) return "only round-to-nearest-even kernels are emulated";
    return NULL;
}

bool amdgpu_launch(const struct amdgpu_dispatch *d, const struct amdgpu_options *options,
                   struct amdgpu_stats *stats, char *error, size_t error_size)
{
    struct amdgpu_options defaults = amdgpu_default_options();
    struct amdgpu_stats unused;
    uint8_t packet[64];
    struct launch l = {.kernel = d->kernel,
                       .module = d->module,
                       .program = &d->module->program,
                       .memory = d->memory};
    if (!stats) stats = &unused;
    memset(stats, 0, sizeof *stats);
    l.options = options ? options : &defaults;
    memcpy(l.grid, d->grid, sizeof l.grid);
    memcpy(l.block, d->block, sizeof l.block);
    l.threads = d->block[0] * d->block[1] * d->block[2];
    l.lds_size = d->kernel->lds_size + d->dynamic_lds;
    const char *wrong = check_dispatch(d, &l);
    if (wrong) {
        snprintf(error, error_size, "%s: %s", d->kernel->name, wrong);
        return false;
    }
    l.waves = (l.threads + (uint32_t)d->kernel->wave_size - 1) / (uint32_t)d->kernel->wave_size;
    l.total_groups = (uint64_t)d->grid[0] * d->grid[1] * d->grid[2];
    l.kernarg_size = d->kernel->kernarg_size;
    uint8_t *kernarg = aligned_zero(l.kernarg_size + 64);
    if (!kernarg) return false;
    fill_kernarg(d, kernarg, l.kernarg_size);
    fill_packet(d, packet);
    l.kernarg = kernarg;
    l.packet = packet;
    amdgpu_memory_add(d->memory, kernarg, l.kernarg_size + 16, "kernel arguments");
    amdgpu_memory_add(d->memory, packet, sizeof packet, "dispatch packet");
    int threads = l.options->threads > 0 ? l.options->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if ((uint64_t)threads > l.total_groups) threads = (int)l.total_groups;
    memory_hold(d->memory);
    bool ok = run_workers(&l, threads, stats, error, error_size);
    memory_release(d->memory);
    amdgpu_memory_remove(d->memory, packet);
    amdgpu_memory_remove(d->memory, kernarg);
    free(kernarg);
    return ok;
}
