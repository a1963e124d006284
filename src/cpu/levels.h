/* levels.h: the levels of this architecture: a row of levels.def each. */
#ifndef RAPT_CPU_LEVELS_H
#define RAPT_CPU_LEVELS_H

#include "backend.h"
#include "cpu/kernels.h"
#include "cpu/row_kernels.h"

/* LEVEL_scalar, LEVEL_avx2, ...: numbers of the rows. */
enum {
#define LEVEL(name, ...) LEVEL_##name,
#include "cpu/levels.def"
    CPU_LEVELS
};

struct cpu_level {
    const struct cpu_kernels *kernels;
    uint64_t needs; /* bits of base/cpuid.h, those of the levels that it builds on included */
    const char *(*refuses)(const struct problem *p,
                           char reason[REASON_SIZE]); /* NULL: serves all */
    const struct row_kernels *rows;                   /* NULL: those of the level before serve */
    const struct cpu_block_kernels *blocks; /* NULL: reads blocked caches element by element */
};

extern const struct cpu_level cpu_levels[CPU_LEVELS]; /* worst first */

/* The number of levels that RAPT_CPU=mask leaves; -1: it names none of them. */
int cpu_levels_under(const char *mask);
/* Their names, separated by commas. */
void cpu_level_names(char *text, size_t size);

#endif
