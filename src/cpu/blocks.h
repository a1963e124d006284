/* blocks.h: what the kernels for blocked caches share: where a block begins, and asking for the one
 * to come. */
#ifndef RAPT_CPU_BLOCKS_H
#define RAPT_CPU_BLOCKS_H

#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/decode_kernels.h"

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

/* Fetches about so many bytes in each step, whatever the steps. */
static inline __attribute__((always_inline)) struct prefetch
block_stream_of(const struct cpu_ahead *ahead, int64_t step)
{
    struct prefetch p = prefetch_of(ahead, 1);
    if (p.quota) p.quota = max64(1, step / FETCH_BYTES);
    return p;
}

#endif
