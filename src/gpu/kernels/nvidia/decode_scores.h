/* decode_scores.h: what a lane of decode_mma.cu holds of a tile's scores, and its weights as an operand;
 * the same for keys and values of q's type and of i8. */
#ifndef RAPT_DECODE_SCORES_H
#define RAPT_DECODE_SCORES_H

#include "nvidia/decode.h"

/* Of a lane: rows g and g + 8 of each 16, keys 2t and 2t + 1 of each 8. */
struct scores {
    float s[RT][NT][4];
};

/* Weights of the n-th 16 keys, as the left operand of p v. */
DEVICE void pack_weights(const struct scores *x, int n, uint32_t (*p)[4])
{
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int j = 0; j < 4; j++)
    {
        const float *two = &x->s[i][2 * n + j / 2][j % 2 * 2];
        p[i][j] = pack(two[0], two[1]);
    }
}

#endif
