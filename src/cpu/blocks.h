/* blocks.h: what the kernels for blocked caches share: where a block begins, and asking for the one
 * to come. */
#ifndef RAPT_CPU_BLOCKS_H
#define RAPT_CPU_BLOCKS_H

#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/kernels.h"

enum { BLOCK_PANEL = RAPT_KV_BLOCK * RAPT_KV_BLOCK }; /* elements of 32 channels of a block of V */

/* The block of keys first ... last - 1, which lie within one: found from any row that is not NULL.
 * NULL: there is none. */
static inline const char *block_of(const struct cpu_rows *rows, int64_t first, int64_t last)
{
    int value = rows->span == RAPT_KV_BLOCK;
    int64_t size = (int64_t)dtype_size(rows->dtype);
    for (int64_t j = first; j < last; j++)
        if (rows->row[j])
            return (const char *)rows->row[j] -
                   rapt_kv_blocked_index(value, rows->dtype, RAPT_KV_BLOCK, j % RAPT_KV_BLOCK, 0) *
                       size;
    return NULL;
}

/* Memory that the following call will read: a block lies in one piece. */
struct block_stream {
    const char *at, *end; /* equal: nothing is left */
    int64_t step;         /* bytes to ask for in each step of a loop */
};

static inline __attribute__((always_inline)) struct block_stream
block_stream_of(const void *const *next, int64_t bytes, int64_t step)
{
    const char *at = next ? *next : NULL;
    return (struct block_stream){at, at ? at + bytes : NULL, step};
}

static inline __attribute__((always_inline)) void block_stream_step(struct block_stream *s)
{
    if (s->at == s->end) return;
    for (int64_t i = 0; i < s->step; i += 64) __builtin_prefetch(s->at + i);
    s->at += s->step;
    if (s->at > s->end) s->at = s->end;
}

#endif
