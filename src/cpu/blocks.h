/* blocks.h: what the kernels for blocked caches share: where a block begins. */
#ifndef RAPT_CPU_BLOCKS_H
#define RAPT_CPU_BLOCKS_H

#include "base/dtype.h"
#include "base/integer.h"
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

/* The two blocks after that of key j. */
struct blocks_ahead {
    const char *block[2]; /* NULL: there is none, or no row in it */
};

static inline struct blocks_ahead blocks_after(const struct cpu_rows *rows, int64_t j, int64_t last)
{
    struct blocks_ahead ahead = {{NULL, NULL}};
    j += RAPT_KV_BLOCK - j % RAPT_KV_BLOCK;
    for (int i = 0; i < 2 && j < last; i++, j += RAPT_KV_BLOCK)
        ahead.block[i] = block_of(rows, j, min64(j + RAPT_KV_BLOCK, last));
    return ahead;
}

/* Asks for bytes from at on of both blocks into the second cache, while a block is read: for each of its lines twice,
 * as a processor may drop requests. */
static inline void ask_ahead(const struct blocks_ahead *ahead, int64_t at, int64_t bytes)
{
    enum { READ = 0, SECOND_CACHE = 2, LINE = 64 };
    for (int i = 0; i < 2; i++)
        for (int64_t n = at; ahead->block[i] && n < at + bytes; n += LINE)
            __builtin_prefetch(ahead->block[i] + n, READ, SECOND_CACHE);
}

#endif
