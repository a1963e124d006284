/* fragment.h: the matrix verbs of the AMD forward kernels, one vocabulary per family of targets.
 *
 * A product is D += A B with D of EDGE x EDGE f32 and a depth of 16. Of each operand a lane holds a
 * part of one line, row lane % EDGE of A or column lane % EDGE of B; half = lane / EDGE. Operands
 * of both products are read as 16-byte pieces from memory where the depth is contiguous, so that
 * S^T = K Q^T takes rows of K as A and rows of Q as B, and O^T = V^T P^T rows of V transposed as A.
 * A lane's results all belong to one query, column lane % EDGE. A vocabulary defines
 *
 *   EDGE            32 (MFMA, wave64) or 16 (WMMA, wave32)
 *   RESULTS         elements of D per lane: EDGE * EDGE / WAVE
 *   results         an f32 vector of RESULTS
 *   row_of(v)       D's row in register v is row_of(v) + half * HALF_ROWS
 *   RUN             registers v ... v + RUN - 1 (v a multiple of RUN) are that many rows in a row
 *   operand         a lane's part of a line of 16 elements: OPERAND_PIECES 16-byte pieces
 *   operand_piece(half, i)  which of the line's two 16-byte pieces the lane's piece i is. The order
 *                   of the depth is free as long as A and B have the same
 *   multiply_add_part(d, a, b, part)  one of the PARTS instructions of *d += a b
 *   pin()           no instruction is moved across, where the written order is the best one
 *   AHEAD           how many operands are read before the product that is due
 *   finish(d)       where registers are few: no operand is read beyond this point before d's
 *                   products are done; called after every OPERANDS_AT_ONCE of them
 *   pack_weights(x, y)      two weights rounded to DTYPE
 *   weights_operand(p, pairs)  those of D (EDGE keys of this lane's query), in pairs of
 *                   neighbouring registers, as EDGE / 16 operands B. Lanes exchange what the
 *                   layout asks
 *   key_of_place(i) which key (of EDGE) lies at element i of a line of V transposed, so that its
 *                   pieces meet weights_operand's order. Four places from a multiple of 4 on are
 *                   keys QUAD_STEP apart
 *
 * EDGE <= 32, RESULTS, RUN and OPERAND_PIECES are enumeration constants. */
#ifndef RAPT_AMD_FRAGMENT_H
#define RAPT_AMD_FRAGMENT_H

#include "device.h"

#if defined(__GFX9__)
#include "amd/mfma_gfx9.h"
#elif defined(__GFX11__)
#include "amd/wmma_gfx11.h"
#elif defined(__GFX12__)
#include "amd/wmma_gfx12.h"
#else
#error "no matrix units that these kernels know"
#endif

enum { CHUNKS_OF_EDGE = EDGE / 16 };

DEVICE void multiply_add(results *d, operand a, operand b)
{
#pragma unroll
    for (int part = 0; part < PARTS; part++) multiply_add_part(d, a, b, part);
}

#endif
