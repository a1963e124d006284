/* Occupancy and the per-kernel report. */
#include <stdio.h>

#include "load.h"

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Waves a SIMD can hold, limited by registers, by LDS and by the hardware. */
struct amdgpu_occupancy amdgpu_occupancy(const struct amdgpu_module *m,
                                         const struct amdgpu_kernel *k, uint32_t block_threads,
                                         uint32_t dynamic_lds)
{
    const struct target *t = m->target;
    struct amdgpu_occupancy o = {0};
    uint32_t granule = (uint32_t)t->vgpr_granule, vgprs = k->vgpr_count ? k->vgpr_count : 1;
    uint32_t file = (uint32_t)t->vgprs;
    if (k->wave_size == 64 && t->wave == 32) { /* a wave64 takes two rows of a wave32 machine */
        file /= 2;
        granule /= 2;
    }
    vgprs = (vgprs + granule - 1) / granule * granule;
    o.limit_vgpr = file / vgprs;
    o.limit_hardware = (uint32_t)t->waves_per_simd;
    uint32_t waves = (block_threads + (uint32_t)k->wave_size - 1) / (uint32_t)k->wave_size;
    uint32_t lds = o.lds_bytes = k->lds_size + dynamic_lds;
    uint32_t pool = t->wave == 32 ? 2 * (uint32_t)t->lds_bytes
                                  : (uint32_t)t->lds_bytes; /* RDNA: one pool per two units */
    uint32_t groups = lds ? pool / lds : 1024;
    o.limit_lds = smaller(groups * waves / (uint32_t)t->simds, 1024);
    if (groups && !o.limit_lds) o.limit_lds = 1;
    o.waves_per_simd = smaller(smaller(o.limit_vgpr, o.limit_hardware), o.limit_lds);
    return o;
}

void amdgpu_report(const struct amdgpu_module *m, const struct amdgpu_kernel *k,
                   const struct amdgpu_stats *s, const struct amdgpu_occupancy *o, char *text,
                   size_t size)
{
    double total = s->instructions ? (double)s->instructions : 1;
    snprintf(text, size,
             "%s on %s: %llu workgroups, %llu waves of %d, %llu wave-instructions\n"
             "  matrix %.1f%%, vector %.1f%%, scalar %.1f%%, LDS %.1f%%, memory %.1f%%, scalar "
             "loads %.1f%%\n"
             "  global memory %llu bytes read, %llu written; LDS %llu read, %llu written\n"
             "  LDS bank conflicts: %llu extra cycles in %llu LDS accesses (workgroup 0)\n"
             "  %u VGPRs, %u SGPRs, %u bytes of LDS, %u of scratch, spills %u VGPR %u SGPR\n"
             "  occupancy %u waves per SIMD (registers %u, LDS %u, hardware %u)\n"
             "  emulated at %.1f million wave-instructions per second and core\n",
             k->name, m->target->name, (unsigned long long)s->groups, (unsigned long long)s->waves,
             k->wave_size, (unsigned long long)s->instructions, 100 * (double)s->matrix / total,
             100 * (double)s->valu / total, 100 * (double)s->salu / total,
             100 * (double)s->lds / total, 100 * (double)s->vmem / total,
             100 * (double)s->smem / total, (unsigned long long)s->global_read,
             (unsigned long long)s->global_written, (unsigned long long)s->lds_read,
             (unsigned long long)s->lds_written, (unsigned long long)s->lds_conflict_cycles,
             (unsigned long long)s->lds_sampled, k->vgpr_count, k->sgpr_count, o->lds_bytes,
             k->private_size, k->vgpr_spills, k->sgpr_spills, o->waves_per_simd, o->limit_vgpr,
             o->limit_lds, o->limit_hardware,
             s->nanoseconds ? 1e3 * (double)s->instructions / (double)s->nanoseconds : 0);
}
