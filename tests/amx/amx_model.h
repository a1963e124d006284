/* amx_model.h: the AMX intrinsics in C, for machines without AMX: a file of kernels that is
 * includes this header after immintrin.h computes with the tiles of the calling thread, kept in memory. Written
 * from the operations that Intel's manual gives (SDM vol. 2: LDTILECFG, TILELOADD, TILESTORED,
 * TILEZERO, TILERELEASE, TDPBF16PS, TDPBSSD and TDPBUSD); whatever would fault aborts with a sentence. */
#ifndef RAPT_TESTS_AMX_MODEL_H
#define RAPT_TESTS_AMX_MODEL_H

#include <stddef.h>

void amx_load_config(const void *shapes);
void amx_release(void);
void amx_zero(int tile);
void amx_load(int tile, const void *memory, size_t stride);
void amx_store(int tile, void *memory, size_t stride);
void amx_dot_bf16(int sum, int left, int right);
/* left_signed: bytes of the left tile are signed, as those of the right one always are. */
void amx_dot_bytes(int sum, int left, int right, int left_signed);

/* The compiler may have macros of these names. */
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbusd
#define _tile_loadconfig(shapes)           amx_load_config(shapes)
#define _tile_release()                    amx_release()
#define _tile_zero(tile)                   amx_zero(tile)
#define _tile_loadd(tile, memory, stride)  amx_load(tile, memory, stride)
#define _tile_stream_loadd(tile, memory, stride) amx_load(tile, memory, stride)
#define _tile_stored(tile, memory, stride) amx_store(tile, memory, stride)
#define _tile_dpbf16ps(sum, left, right)   amx_dot_bf16(sum, left, right)
#define _tile_dpbssd(sum, left, right)     amx_dot_bytes(sum, left, right, 1)
#define _tile_dpbusd(sum, left, right)     amx_dot_bytes(sum, left, right, 0)

/* Faults that RAPT_AMX_FAULT=name plants and that a test must notice (faults.t). */
#define AMX_FAULT_LIST(X)                                                                          \
    X(swapped_pairs)  /* the right tile's pairs, or fours, are taken in the wrong order */         \
    X(lost_last_pair) /* the last pair, or four, of a step is not added */                         \
    X(stale_sum)      /* zeroing does nothing */                                                   \
    X(row_too_few)    /* the last row of a tile is not stored */                                   \
    X(kept_shape)     /* a second shape is ignored */                                              \
    X(rounded_sum)    /* sums are cut to 16 bits: bf16, or the high half of integers */            \
    X(signed_bytes)   /* bytes without a sign are taken for signed ones */

/* With RAPT_AMX_COUNT set, the number of products is printed at exit: a test that ran none proves
 * nothing. */

#endif
