/* halves.h: what rows take that work on f32 in parts of 16 bits (NEED_HALVES, NEED_STRICT). */
#ifndef RAPT_GPU_HALVES_H
#define RAPT_GPU_HALVES_H

#include "gpu/registry.h"

/* Fills q_half, k_half and v_half but for their addresses; bytes of each. Fails where these are no
 * number. */
rapt_status halves_views(struct attention_args *args, const struct row *row,
                         const struct problem *p, size_t bytes[3]);

/* Bytes of key_factors, wide_blocks and wide. */
struct strict_bytes {
    size_t factors, blocks, heads;
};

/* Fills wide_queries and wide_keys of a row with NEED_STRICT. */
struct strict_bytes halves_strict(struct attention_args *args, const struct problem *p);

/* Blocks of the launch that splits keys ahead of the forward kernel, four warps for each block of
 * keys of one head: those that the first tiles ask for, two for each multiprocessor. The kernel
 * itself splits the rest on its way. */
int64_t halves_split_blocks(const struct attention_args *args, const struct row *row,
                            const struct problem *p);

#endif
