/* numbers.h: what rows take for which i8 keys and values are made numbers of q's type ahead
 * (NEED_NUMBERS), and where these rows pay. */
#ifndef RAPT_GPU_NUMBERS_H
#define RAPT_GPU_NUMBERS_H

#include "gpu/registry.h"

/* Bytes of k_half, v_half and key_factors. */
struct number_bytes {
    size_t k, v, scales;
};

/* Fills k_half and v_half but for their addresses, and wide_keys. Fails where the bytes are no number. */
rapt_status numbers_views(struct attention_args *args, const struct row *row,
                          const struct problem *p, struct number_bytes *bytes);

/* Whether enough query rows see a key to make numbers of it once, in a workspace of at most 512 MiB.
 * Pure: asks no device. */
int numbers_pay(const struct problem *p, const struct row *row);
/* The same of whole tiles in place of this row of the same type and channels. */
int numbers_pay_whole(const struct problem *p, const struct row *row);
/* Whether whole tiles over i8 have enough query rows of a KV head, else decode rows are faster. */
int numbers_fill_tiles(const struct problem *p, const struct row *row);

#endif
