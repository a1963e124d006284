/* splits.h: how many blocks share the keys of a query row, and what their results take. */
#ifndef RAPT_GPU_SPLITS_H
#define RAPT_GPU_SPLITS_H

#include "backend.h"
#include "gpu/registry.h"

/* Fills splits, split_keys and tile_tokens for a row with NEED_PARTIALS. memory_gbs: of the device, 0: not
 * known. */
void splits_choose(struct attention_args *args, const struct row *row, int memory_gbs);

/* Bytes of partial_out and partial_lse for so many query rows; 0 without several parts. NO_MEMORY
 * with a sentence when they do not fit. */
rapt_status splits_bytes(const struct attention_args *args, int64_t rows, size_t *out, size_t *lse);

/* Shared memory that a block asks for at least, after splits_choose, so that no other shares its
 * multiprocessor; 0: its own. */
int splits_shared(const struct attention_args *args, const struct row *row);
/* The most. */
int splits_most_shared(const struct row *row);

/* Blocks of NAME_combine, after splits_choose. */
struct grid splits_combine_grid(const struct attention_args *args, const struct row *row);
/* Shared memory that such a block asks for besides its own, only so that fewer share a multiprocessor. */
int splits_combine_shared(const struct attention_args *args, const struct row *row);
/* The most. */
int splits_most_combine_shared(const struct row *row);

/* Tiles of queries and heads of a row that shares keys among them (grid shared_keys); each is there
 * args->splits times. */
int64_t splits_tiles(const struct attention_args *args, const struct row *row);

/* Whether such a row is to serve a problem: whether tiles that see all keys would leave
 * multiprocessors idle. Asks no device. */
int splits_pay(const struct problem *p, const struct row *row);

#endif
