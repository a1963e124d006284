/* cpuid.c: takes the place of base/cpuid.c in programs that model AMX: the real CPU's features and
 * those of the model. */
#include "base/cpuid.h"

/* The real functions, compiled once more under these names (mk/amx.mk). */
uint64_t real_cpu_features(void);
uint64_t real_cpu_permitted(uint64_t features);
void real_cpu_name(char *name, size_t size);

uint64_t cpu_features(void)
{
    uint64_t features = real_cpu_features();
    if (features & CPU_AVX512_BF16) features |= CPU_AMX_BF16;
    if (features & CPU_AVX512_VNNI) features |= CPU_AMX_INT8;
    return features;
}

uint64_t cpu_permitted(uint64_t features)
{
    return features;
}

void cpu_name(char *name, size_t size)
{
    real_cpu_name(name, size);
}
