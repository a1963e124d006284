/* amx_model.h: the AMX intrinsics in C, for machines without AMX: a file of kernels that is
 * compiled with this header computes with the tiles of the calling thread, kept in memory. Written
 * from the operations that Intel's manual gives (SDM vol. 2: LDTILECFG, TILELOADD, TILESTORED,
 * TILEZERO, TILERELEASE, TDPBF16PS); whatever would fault aborts with a sentence. */
#ifndef RAPT_TESTS_AMX_MODEL_H
#define RAPT_TESTS_AMX_MODEL_H

#include <stddef.h>

void amx_load_config(const void *shapes);
void amx_release(void);
void amx_zero(int tile);
void amx_load(int tile, const void *memory, size_t stride);
void amx_store(int tile, void *memory, size_t stride);
void amx_dot_bf16(int sum, int left, int right);

#define _tile_loadconfig(shapes)           amx_load_config(shapes)
#define _tile_release()                    amx_release()
#define _tile_zero(tile)                   amx_zero(tile)
#define _tile_loadd(tile, memory, stride)  amx_load(tile, memory, stride)
#define _tile_stored(tile, memory, stride) amx_store(tile, memory, stride)
#define _tile_dpbf16ps(sum, left, right)   amx_dot_bf16(sum, left, right)

/* Faults that RAPT_AMX_FAULT=name plants and that a test must notice (faults.t). */
#define AMX_FAULT_LIST(X)                                                                          \
    X(swapped_pairs)  /* the right tile's pairs are taken in the wrong order */                    \
    X(lost_last_pair) /* the last pair of a step is not added */                                   \
    X(stale_sum)      /* zeroing does nothing */                                                   \
    X(row_too_few)    /* the last row of a tile is not stored */                                   \
    X(kept_shape)     /* a second shape is ignored */                                              \
    X(rounded_sum)    /* sums are cut to bf16 */

/* With RAPT_AMX_COUNT set, the number of products is printed at exit: a test that ran none proves
 * nothing. */

#endif
