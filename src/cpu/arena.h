/* arena.h: pieces of a caller's workspace. */
#ifndef RAPT_CPU_ARENA_H
#define RAPT_CPU_ARENA_H

#include "base/integer.h"

#include <stddef.h>

enum { WORKSPACE_ALIGNMENT = 64 };

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
