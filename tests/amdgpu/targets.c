/* The GPUs the emulator knows, one row each; figures from AMD's ISA and architecture documents and
 * LLVM's target tables. */
#include <string.h>

#include "emu.h"

static const struct target targets[] = {
    /* name, mach, generation, wave, VGPRs per lane and SIMD, granule, waves per SIMD, SIMDs per
       unit, LDS, units, packed ids, architected ids, architected scratch, stores in vmcnt, zero
       high 16 */
    {"gfx90a", 0x3f, GEN_CDNA2, 64, 512, 8, 8, 4, 65536, 104, 1, 0, 0, 1, 1},
    {"gfx942", 0x4c, GEN_CDNA3, 64, 512, 8, 8, 4, 65536, 304, 1, 0, 1, 1, 1},
    {"gfx950", 0x4f, GEN_CDNA4, 64, 512, 8, 8, 4, 163840, 256, 1, 0, 1, 1, 1},
    {"gfx1030", 0x36, GEN_RDNA2, 32, 1024, 16, 16, 4, 65536, 40, 0, 0, 0, 0, 0},
    {"gfx1100", 0x41, GEN_RDNA3, 32, 1536, 24, 16, 4, 65536, 48, 1, 0, 1, 0, 0},
    {"gfx1151", 0x4a, GEN_RDNA3, 32, 1536, 24, 16, 4, 65536, 20, 1, 0, 1, 0, 0},
    {"gfx1200", 0x48, GEN_RDNA4, 32, 1536, 24, 16, 4, 65536, 16, 1, 1, 1, 0, 0},
    {"gfx1201", 0x4e, GEN_RDNA4, 32, 1536, 24, 16, 4, 65536, 32, 1, 1, 1, 0, 0},
};

const struct target *find_target(uint32_t mach)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (targets[i].mach == mach) return &targets[i];
    return NULL;
}

const struct target *find_target_name(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        if (strcmp(targets[i].name, name) == 0) return &targets[i];
    return NULL;
}

bool amdgpu_device_info(const char *gfx, struct amdgpu_device_info *info)
{
    const struct target *t = find_target_name(gfx);
    if (!t) return false;
    *info =
        (struct amdgpu_device_info){t->name,  "AMD GPU (emulated)", t->wave, t->units, t->lds_bytes,
                                    t->simds, t->waves_per_simd,    t->vgprs};
    return true;
}
