/* The inner loop of a kernel with matrix instructions, from a profile: what it issues, and how much
   of that is matrix work.

   Issue cycles are counted as if nothing overlapped, one wave alone: a matrix instruction takes the
   clocks in which its unit is busy; any other takes one pass of its wave through a SIMD: 4 clocks of
   64 lanes on CDNA (SIMDs of 16 lanes), 1 of 32 lanes on RDNA; exponentials, logarithms, roots and
   reciprocals take 4 times that. Hardware overlaps matrix, vector, scalar and memory instructions
   of several waves, so the matrix share found here is a lower bound of what the unit can reach.

   Ordered cycles let the units overlap as they do for one wave whose results are always ready (a
   second wave of the SIMD fills what waits for data): it issues in order, one instruction per pass
   of a wave, and an instruction waits only while its own unit is busy. On RDNA matrix instructions
   are the vector unit's. */
#include <stdio.h>
#include <string.h>

#include "load.h"

/* Multiply-adds of a matrix instruction per clock and SIMD, counted as 2: AMD's CDNA and RDNA ISA
   documents and data sheets (peak rates / units / SIMDs / clock). Rows as enum generation; columns:
   32-bit, 16-bit, 8-bit and narrower. */
static const int matrix_rate[][3] = {
    [GEN_CDNA2] = {64, 256, 256},   [GEN_CDNA3] = {64, 512, 1024}, [GEN_CDNA4] = {64, 1024, 2048},
    [GEN_RDNA2] = {1, 1, 1},        [GEN_RDNA3] = {1, 256, 256},   [GEN_RDNA4] = {1, 512, 1024},
};

static bool is_slow(const char *text)
{
    static const char *const names[] = {"v_exp_", "v_log_", "v_rcp_", "v_rsq_",
                                        "v_sqrt_", "v_sin_", "v_cos_"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(text, names[i], strlen(names[i])) == 0) return true;
    return false;
}

static double cycles_of(const struct program *p, const struct inst *in)
{
    double pass = p->target->wave == 64 ? 4 : 1;
    if (in->category != CAT_MATRIX) return is_slow(in->text) ? 4 * pass : pass;
    double flops;
    int bits;
    matrix_work(in, &flops, &bits);
    return flops / matrix_rate[p->target->gen][bits == 32 ? 0 : bits == 16 ? 1 : 2];
}

static const struct inst *at(const struct program *p, uint64_t offset)
{
    return __atomic_load_n(&p->at[offset / 4], __ATOMIC_ACQUIRE);
}

/* The offset of a taken loop's start when the instruction at offset branches backwards. */
static bool loop_start(const struct program *p, uint64_t offset, uint64_t *first)
{
    const struct inst *in = at(p, offset);
    if (!in || !p->profile[offset / 4].hits || strncmp(in->text, "s_", 2) != 0) return false;
    if (!in->target || in->target > in->pc || in->target < p->base) return false;
    *first = in->target - p->base;
    return true;
}

static enum category unit_of(const struct program *p, const struct inst *in)
{
    return in->category == CAT_MATRIX && p->target->wave == 32 ? CAT_VALU : in->category;
}

/* Of the instructions that most passes execute. */
static void order_units(const struct program *p, struct amdgpu_loop *l)
{
    enum { PASSES = 8, WARM = 4 };
    double pass = p->target->wave == 64 ? 4 : 1, issue = 0, warm = 0, free_at[CAT_KINDS] = {0};
    double matrix = 0;
    for (int i = 0; i < PASSES; i++) {
        if (i == WARM) warm = issue;
        for (uint64_t o = l->first; o <= l->last; o += 4) {
            const struct inst *in = at(p, o);
            if (!in || p->profile[o / 4].hits * 2 < l->passes) continue;
            double *unit = &free_at[unit_of(p, in)], start = *unit > issue ? *unit : issue;
            issue = start + pass;
            *unit = start + cycles_of(p, in);
            if (in->category == CAT_MATRIX) matrix += cycles_of(p, in);
        }
    }
    l->ordered_cycles = (issue - warm) / (PASSES - WARM);
    l->ordered_matrix_cycles = matrix / PASSES;
}

static struct amdgpu_loop measure(const struct program *p, uint64_t first, uint64_t last)
{
    struct amdgpu_loop l = {.first = first, .last = last};
    l.passes = p->profile[last / 4].hits;
    for (uint64_t o = first; o <= last; o += 4) {
        const struct inst *in = at(p, o);
        const struct place *place = &p->profile[o / 4];
        if (!in || !place->hits) continue;
        double times = (double)place->hits / (double)l.passes, cycles = times * cycles_of(p, in);
        l.instructions += times;
        l.cycles += cycles;
        if (in->category == CAT_MATRIX) {
            l.matrix_instructions += times;
            l.matrix_cycles += cycles;
        }
        l.lds_cycles += place->lds_cycles;
        l.lds_conflicts += place->lds_conflicts;
    }
    order_units(p, &l);
    return l;
}

bool amdgpu_matrix_loop(const struct amdgpu_module *m, struct amdgpu_loop *out)
{
    const struct program *p = &m->program;
    double most = 0;
    for (uint64_t last = 0; last < p->size; last += 4) {
        uint64_t first, inner;
        if (!loop_start(p, last, &first)) continue;
        struct amdgpu_loop l = measure(p, first, last);
        bool innermost = l.matrix_instructions > 0;
        for (uint64_t o = first; o < last && innermost; o += 4)
            if (loop_start(p, o, &inner) && inner >= first)
                innermost = measure(p, inner, o).matrix_instructions == 0;
        if (!innermost || l.cycles * (double)l.passes <= most) continue;
        most = l.cycles * (double)l.passes;
        *out = l;
    }
    return most > 0;
}

void amdgpu_loop_print(const struct amdgpu_module *m, const struct amdgpu_loop *l, FILE *to)
{
    const struct program *p = &m->program;
    for (uint64_t o = l->first; o <= l->last; o += 4) {
        const struct inst *in = at(p, o);
        if (in && 2 * p->profile[o / 4].hits >= l->passes) fprintf(to, "loop: %s\n", in->text);
    }
}

void amdgpu_loop_report(const struct amdgpu_loop *l, char *text, size_t size)
{
    double served = l->lds_cycles ? (double)(l->lds_cycles + l->lds_conflicts) : 1;
    snprintf(text, size,
             "  matrix loop code+0x%llx..0x%llx, %llu passes: %.1f instructions (%.1f matrix), %.1f "
             "issue cycles, %.1f%% of them matrix (%.1f%% of %.1f when units overlap in order); LDS "
             "conflicts %.2f%% of %llu cycles\n",
             (unsigned long long)l->first, (unsigned long long)l->last,
             (unsigned long long)l->passes, l->instructions, l->matrix_instructions, l->cycles,
             100 * l->matrix_cycles / l->cycles,
             100 * l->ordered_matrix_cycles / l->ordered_cycles,
             l->ordered_cycles, 100 * (double)l->lds_conflicts / served,
             (unsigned long long)(l->lds_cycles + l->lds_conflicts));
}
