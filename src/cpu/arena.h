/* arena.h: pieces of a caller's workspace, and the small integer helpers that sizes need. */
#ifndef RAPT_CPU_ARENA_H
#define RAPT_CPU_ARENA_H

#include "cpu/cpu.h"

static inline int64_t round_up(int64_t x, int64_t step)
{
    return (x + step - 1) / step * step;
}

static inline int64_t min64(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static inline int64_t max64(int64_t x, int64_t y)
{
    return x > y ? x : y;
}

/* Hands out pieces of the workspace; with base NULL it only counts. */
struct arena {
    char *base;
    size_t used;
};

static inline void *take(struct arena *arena, int64_t count, size_t size)
{
    void *piece = arena->base ? arena->base + arena->used : NULL;
    size_t bytes = (size_t)count * size;
    arena->used += (bytes + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    return piece;
}

#endif
