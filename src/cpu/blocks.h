/* blocks.h: what the kernels for blocked caches share: where a block begins. */
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

#endif
