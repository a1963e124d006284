/* cpuid.c: instruction sets by CPUID and XGETBV on x86, by the auxiliary vector on ARM. */
#include "base/cpuid.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The register state that the operating system saves (Intel SDM vol. 1, 13.3: XCR0). */
enum { XCR0_AVX = 0x6, XCR0_AVX512 = 0xe6, XCR0_AMX = 0x60000 };

static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int bit(uint32_t word, int index)
{
    return (int)(word >> index & 1);
}

static int is_of(const char *vendor)
{
    uint32_t a, name[3];
    return __get_cpuid(0, &a, &name[0], &name[2], &name[1]) && !memcmp(name, vendor, 12);
}

/* From EAX of leaf 1; the extended family adds to a family of 15. */
static int family_of(uint32_t version)
{
    int family = (int)(version >> 8 & 15), extended = (int)(version >> 20 & 255);
    return family < 15 ? family : family + extended;
}

/* Feature bits: Intel SDM vol. 2, CPUID, leaves 1 and 7. */
uint64_t cpu_features(void)
{
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) return 0; /* OSXSAVE */
    int fma = bit(c, 12) && bit(c, 28) && bit(c, 29);             /* FMA, AVX, F16C */
    int intel = is_of("GenuineIntel"), amd = is_of("AuthenticAMD") ? family_of(a) : 0;
    uint64_t saved = saved_state(), features = 0;
    uint32_t b7, c7, d7, a71 = 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    if (a >= 1) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    if ((saved & XCR0_AVX) != XCR0_AVX || !fma || !bit(b7, 5)) return 0;
    features |= CPU_AVX2;
    if (intel) features |= CPU_KEEPS_REQUESTS;
    if (amd >= 26) features |= CPU_FETCHES_EARLY;
    int avx512 = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31); /* F DQ BW VL */
    if ((saved & XCR0_AVX512) != XCR0_AVX512 || !avx512) return features;
    features |= CPU_AVX512;
    if (amd == 25) features |= CPU_DROPS_REQUESTS; /* with AVX-512: Zen 4 */
    if (bit(a71, 5)) features |= CPU_AVX512_BF16;
    if (bit(c7, 11)) features |= CPU_AVX512_VNNI;
    if ((saved & XCR0_AMX) != XCR0_AMX || !bit(d7, 24)) return features;
    if (bit(d7, 22)) features |= CPU_AMX_BF16;
    if (bit(d7, 25)) features |= CPU_AMX_INT8;
    if (intel) features |= CPU_FETCHES_TWICE;
    return features;
}

/* Linux saves tiles only for processes that asked (Documentation/arch/x86/xstate.rst); a system that
 * does not know the question refuses it. */
uint64_t cpu_permitted(uint64_t features)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    const uint64_t amx = CPU_AMX_BF16 | CPU_AMX_INT8;
    if (!(features & amx)) return features;
    long refused = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
    return refused ? features & ~amx : features;
}

void cpu_name(char *name, size_t size)
{
    uint32_t words[13] = {0};
    char *text = (char *)words;
    if ((uint32_t)__get_cpuid_max(0x80000000u, NULL) >= 0x80000004u) {
        for (uint32_t i = 0; i < 3; i++) {
            uint32_t *w = words + (size_t)4 * i;
            __get_cpuid(0x80000002u + i, &w[0], &w[1], &w[2], &w[3]);
        }
    }
    while (*text == ' ') text++;
    size_t length = strlen(text);
    while (length && text[length - 1] == ' ') text[--length] = 0;
    snprintf(name, size, "%s", length ? text : "unknown CPU");
}

#elif defined(__aarch64__)
#include <sys/auxv.h>
#include <sys/prctl.h>

/* Bits of the Linux arm64 ABI (arch/arm64/include/uapi/asm/hwcap.h). */
#ifndef PR_SVE_GET_VL
#define PR_SVE_GET_VL 51 /* the low 16 bits are the bytes of a vector (prctl(2)) */
#endif
enum { SVE_BYTES = 32 }; /* the length that the SVE level is compiled for */
enum { HWCAP_BIT_ASIMD = 1, HWCAP_BIT_SVE = 22, HWCAP2_BIT_BF16 = 14 };

uint64_t cpu_features(void)
{
    unsigned long capabilities = getauxval(AT_HWCAP), more = getauxval(AT_HWCAP2);
    uint64_t features = 0;
    if (capabilities >> HWCAP_BIT_ASIMD & 1) features |= CPU_NEON;
    int sve = capabilities >> HWCAP_BIT_SVE & 1;
    if (sve && (prctl(PR_SVE_GET_VL) & 0xffff) == SVE_BYTES) features |= CPU_SVE;
    if (more >> HWCAP2_BIT_BF16 & 1) features |= CPU_NEON_BF16;
    return features;
}

uint64_t cpu_permitted(uint64_t features)
{
    return features;
}

void cpu_name(char *name, size_t size)
{
    snprintf(name, size, "ARM CPU");
}

#else

uint64_t cpu_features(void)
{
    return 0;
}

uint64_t cpu_permitted(uint64_t features)
{
    return features;
}

void cpu_name(char *name, size_t size)
{
    snprintf(name, size, "unknown CPU");
}
#endif
