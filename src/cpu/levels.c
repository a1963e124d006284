/* levels.c: the table of levels, what each refuses, and their names for RAPT_CPU. */
#include "cpu/levels.h"
#include "base/cpuid.h"
#include "base/dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- What levels refuse (levels.def) ---- */

#if defined(__x86_64__) || defined(__aarch64__)
static const char *all_but_bf16(const struct problem *p, char reason[REASON_SIZE])
{
    const rapt_tensor *t[3] = {&p->a.q, &p->a.k, &p->a.v};
    static const char *const names[3] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++)
        if (t[i]->dtype != RAPT_BF16) {
            snprintf(reason, REASON_SIZE, "%s is %s (needs bf16)", names[i],
                     dtype_name(t[i]->dtype));
            return reason;
        }
    return NULL;
}
#endif

#if defined(__x86_64__)
static const char *all_but_f32(const struct problem *p, char reason[REASON_SIZE])
{
    const rapt_attention *a = &p->a;
    if ((a->q.dtype == RAPT_F32 || a->q.dtype == RAPT_F16) && a->k.dtype == a->q.dtype &&
        a->v.dtype == a->q.dtype)
        return NULL;
    snprintf(reason, REASON_SIZE, "q, k and v are %s, %s and %s (needs f32 or f16 in all)",
             dtype_name(a->q.dtype), dtype_name(a->k.dtype), dtype_name(a->v.dtype));
    return reason;
}

/* Scales that change within a step of the VNNI kernels. */
static int has_short_blocks(const rapt_tensor *t, const rapt_tensor *scale)
{
    enum { STEP = 32 };
    return scale->size[3] > 1 && t->size[3] / scale->size[3] % STEP != 0;
}

static const char *all_but_i8(const struct problem *p, char reason[REASON_SIZE])
{
    enum { CHANNELS = 1024 /* sums of products stay below 2^31: cpu/x86/fixed_point_avx512.h */ };
    const rapt_attention *a = &p->a;
    if (a->q.dtype != RAPT_F16 && a->q.dtype != RAPT_BF16)
        snprintf(reason, REASON_SIZE, "q is %s (needs f16 or bf16)", dtype_name(a->q.dtype));
    else if (a->k.dtype != RAPT_I8 || a->v.dtype != RAPT_I8)
        snprintf(reason, REASON_SIZE, "k is %s, v is %s (needs i8)", dtype_name(a->k.dtype),
                 dtype_name(a->v.dtype));
    else if (a->kv_layout == RAPT_KV_BLOCKED || a->k.stride[3] != 1 || a->v.stride[3] != 1)
        snprintf(reason, REASON_SIZE, "the channels of a key do not lie side by side");
    else if (has_short_blocks(&a->k, &a->k_scale) || has_short_blocks(&a->v, &a->v_scale))
        snprintf(reason, REASON_SIZE,
                 "a scale has fewer than 32 channels, or not a multiple of 32");
    else if (p->qk_channels > CHANNELS)
        snprintf(reason, REASON_SIZE, "q has %" PRId64 " channels (at most %d)", p->qk_channels,
                 CHANNELS);
    else return NULL;
    return reason;
}
#endif

/* ---- The table ---- */

/* Features of each row and of the rows that it builds on. */
enum {
    NEEDS_none = 0,
#define LEVEL(name, on, feature, ...) NEEDS_##name = NEEDS_##on | (feature),
#include "cpu/levels.def"
};

const struct cpu_level cpu_levels[CPU_LEVELS] = {
#define LEVEL(name, on, feature, refuses, rows, blocks, ...)                                       \
    {&cpu_##name, NEEDS_##name, refuses, rows, blocks},
#include "cpu/levels.def"
};

int cpu_levels_under(const char *mask)
{
    if (!mask || !*mask) return CPU_LEVELS;
    for (int i = 0; i < CPU_LEVELS; i++)
        if (!strcmp(mask, cpu_levels[i].kernels->arch)) return i + 1;
    return -1;
}

void cpu_level_names(char *text, size_t size)
{
    size_t length = 0;
    text[0] = 0;
    for (int i = 0; i < CPU_LEVELS && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s", i ? ", " : "",
                                   cpu_levels[i].kernels->arch);
}
