/* Wave set-up as the hardware's dispatcher does it, and the interpreter loop. */
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "lanes.h"
#include "load.h"

/* kernel_code_properties bits and rsrc2 fields (LLVM AMDGPU usage, "Kernel Descriptor"). */
enum {
    PROP_PRIVATE_BUFFER = 1 << 0,
    PROP_DISPATCH_PTR = 1 << 1,
    PROP_QUEUE_PTR = 1 << 2,
    PROP_KERNARG_PTR = 1 << 3,
    PROP_DISPATCH_ID = 1 << 4,
    PROP_FLAT_SCRATCH = 1 << 5,
    PROP_PRIVATE_SIZE = 1 << 6
};

/* f32 denormals: bits 5:4 of the mode register; 3 keeps them. f16 and f64 always keep theirs here.
 */
void set_float_mode(const struct wave *w)
{
#if defined(__SSE2__)
    unsigned flush = (w->s[S_MODE] >> 4 & 3) == 3 ? 0 : 0x8040;
    unsigned now = _mm_getcsr();
    if ((now & 0x8040) != flush) _mm_setcsr((now & ~0x8040u) | flush);
#else
    (void)w;
#endif
}

static void give_sgpr(struct wave *w, int reg, uint32_t value)
{
    w->s[reg] = value;
    w->s_undef[reg] = 0;
}

/* User SGPRs in their fixed order; returns how many were filled. */
static int user_sgprs(struct wave *w, const struct launch *l)
{
    const struct amdgpu_kernel *k = l->kernel;
    uint64_t kernarg = (uint64_t)(uintptr_t)l->kernarg;
    int at = 0;
    if (k->properties &
        PROP_PRIVATE_BUFFER) { /* a resource in the private aperture: see buffer.c */
        give_sgpr(w, at, 0);
        give_sgpr(w, at + 1, (uint32_t)(PRIVATE_APERTURE >> 32));
        give_sgpr(w, at + 2, ~0u);
        give_sgpr(w, at + 3, 0x00e00000);
        at += 4;
    }
    if (k->properties & PROP_DISPATCH_PTR) {
        uint64_t packet = (uint64_t)(uintptr_t)l->packet;
        give_sgpr(w, at++, (uint32_t)packet);
        give_sgpr(w, at++, (uint32_t)(packet >> 32));
    }
    if (k->properties & PROP_QUEUE_PTR) at += 2; /* left unwritten: reading it is reported */
    if (k->properties & PROP_KERNARG_PTR) {
        give_sgpr(w, at++, (uint32_t)kernarg);
        give_sgpr(w, at++, (uint32_t)(kernarg >> 32));
    }
    if (k->properties & PROP_DISPATCH_ID) at += 2;
    if (k->properties & PROP_FLAT_SCRATCH) {
        give_sgpr(w, at++, 0);
        give_sgpr(w, at++, 0);
    }
    if (k->properties & PROP_PRIVATE_SIZE) give_sgpr(w, at++, k->private_size);
    int preload = k->preload & 127, offset = k->preload >> 7;
    for (int i = 0; i < preload; i++) {
        uint32_t word = 0;
        if ((uint32_t)(offset + i + 1) * 4 <= l->kernarg_size)
            memcpy(&word, l->kernarg + 4 * (offset + i), 4);
        give_sgpr(w, at++, word);
    }
    return at;
}

static void system_sgprs(struct wave *w, const struct launch *l, const struct group *g)
{
    uint32_t rsrc2 = l->kernel->rsrc2;
    int at = (int)(rsrc2 >> 1 & 31);
    if (w->program->target->architected_ids) {
        give_sgpr(w, S_TTMP + 9, g->id[0]);
        give_sgpr(w, S_TTMP + 7, g->id[1] | g->id[2] << 16);
        give_sgpr(w, S_TTMP + 8, (w->index & 31) << 25);
        return;
    }
    for (int i = 0; i < 3; i++)
        if (rsrc2 >> (7 + i) & 1) give_sgpr(w, at++, g->id[i]);
    if (rsrc2 >> 10 & 1) at++; /* workgroup info: left unwritten */
    if (rsrc2 & 1 && !w->program->target->architected_scratch) give_sgpr(w, at, 0);
}

/* v0 (packed) or v0..v2: the work item's place in the workgroup. */
static void work_item_ids(struct wave *w, const struct launch *l)
{
    int dimensions = (int)(l->kernel->rsrc2 >> 11 & 3) + 1;
    bool packed = w->program->target->packed_ids;
    for (int lane = 0; lane < w->n; lane++) {
        uint32_t t = w->index * (uint32_t)w->n + (uint32_t)lane, id[3];
        id[0] = t % l->block[0];
        id[1] = t / l->block[0] % l->block[1];
        id[2] = t / (l->block[0] * l->block[1]);
        if (packed)
            w->v[0][lane] =
                id[0] | (dimensions > 1 ? id[1] << 10 : 0) | (dimensions > 2 ? id[2] << 20 : 0);
        else
            for (int i = 0; i < dimensions; i++) w->v[i][lane] = id[i];
    }
    for (int i = 0; i < (packed ? 1 : dimensions); i++) w->undef[i][0] = w->undef[i][1] = 0;
}

/* Everything but EXEC, the given registers and the apertures starts as never written. */
void setup_wave(struct wave *w, struct group *g, uint32_t index)
{
    const struct launch *l = w->worker->launch;
    uint32_t first = index * (uint32_t)l->kernel->wave_size, left = l->threads - first;
    w->n = l->kernel->wave_size;
    w->full = w->n == 64 ? ~UINT64_C(0) : UINT32_MAX;
    w->group = g;
    w->index = index;
    w->program = l->program;
    w->pc = l->kernel->entry + (l->kernel->preload & 127 ? 256 : 0);
    w->at = NULL;
    w->scc = 0;
    w->budget = 0;
    w->done_flag = w->blocked = w->yield = w->signalled = 0;
    memset(w->issued, 0, sizeof w->issued);
    memset(w->done, 0, sizeof w->done);
    w->last_smem = w->last_lds_store = 0;
    w->outstanding = false;
    memset(w->s, 0xdb, sizeof w->s);
    memset(w->s_undef, 0xff, sizeof w->s_undef);
    memset(w->stag, 0, sizeof w->stag);
    memset(w->vtag, 0, VGPR_ROWS * sizeof *w->vtag);
    memset(w->v_root, 0, VGPR_ROWS * sizeof *w->v_root);
    memset(w->s_root, 0, sizeof w->s_root);
    memset(w->undef, 0xff, VGPR_ROWS * sizeof *w->undef);
    w->s_undef[S_SCC] = 0; /* hardware clears it; compilers rely on nothing */
    for (int r = S_EXEC; r < S_EXEC + 2; r++) w->s_undef[r] = 0;
    w->s_undef[S_VCCZ] = w->s_undef[S_EXECZ] = 0;
    uint64_t apertures[] = {SHARED_APERTURE, SHARED_APERTURE | UINT32_MAX, PRIVATE_APERTURE,
                            PRIVATE_APERTURE | UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        give_sgpr(w, S_SHARED_BASE + 2 * i, (uint32_t)apertures[i]);
        give_sgpr(w, S_SHARED_BASE + 2 * i + 1, (uint32_t)(apertures[i] >> 32));
    }
    give_sgpr(w, S_FLAT_SCRATCH_HW, 0);
    give_sgpr(w, S_FLAT_SCRATCH_HW + 1, 0);
    give_sgpr(w, S_MODE, l->kernel->rsrc1 >> 12 & 0xff);
    give_sgpr(w, S_M0, ~0u);
    user_sgprs(w, l);
    system_sgprs(w, l, g);
    work_item_ids(w, l);
    set_exec(w, left >= (uint32_t)w->n ? w->full : (UINT64_C(1) << left) - 1);
    if (w->private_size) memset(w->scratch_written, 0, (size_t)w->private_size * (size_t)w->n);
}

static const struct inst *decode_or_fault(struct wave *w, uint64_t pc)
{
    char error[600];
    const struct inst *in = decode_at(w->program, pc, error, sizeof error);
    if (!in) fault(w, "%s", error);
    return in;
}

/* Runs until the wave ends, waits at a barrier, or has had its turn. */
void run_wave(struct wave *w)
{
    const struct program *program = w->program;
    const struct amdgpu_options *options = w->worker->launch->options;
    uint64_t *counts = w->worker->counts, turn = 0, limit = options->max_instructions;
    bool check_waits = options->check_waits;
    struct place *profile = options->profile ? program->profile : NULL;
    w->yield = 0;
    while (!w->yield) {
        uint64_t offset = w->pc - program->base;
        const struct inst *in = offset < program->size
                                    ? __atomic_load_n(&program->at[offset / 4], __ATOMIC_ACQUIRE)
                                    : NULL;
        if (!in) in = decode_or_fault(w, w->pc);
        w->at = in;
        if (w->outstanding && check_waits) check_pending(w, in);
        w->pc = in->next_pc;
        counts[in->category]++;
        if (profile) __atomic_fetch_add(&profile[offset / 4].hits, 1, __ATOMIC_RELAXED);
        in->exec(w, in);
        if (++turn == 1 << 20) w->yield = 1; /* let other waves run: this one may wait for them */
    }
    w->budget += turn;
    if (limit && w->budget > limit)
        fault(w, "%llu instructions in one wave (limit)", (unsigned long long)w->budget);
}
