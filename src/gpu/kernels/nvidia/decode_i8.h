/* decode_i8.h: tiles of i8 keys and values in decode_mma.cu (KV_I8). A tile's integers become numbers
 * of q's type on their way to the tensor cores, exactly. SCALE_CHANNELS channels have a scale: that of
 * a key goes on their part of its scores, that of a value on the weights that multiply them.
 *
 * A value hidden from some rows holds only integers; its weight is made 0 there after the product
 * with its scale, which may be anything. */
#ifndef RAPT_DECODE_I8_H
#define RAPT_DECODE_I8_H

#include "nvidia/decode_merge.h"
#include "nvidia/decode_scores.h"
#include "nvidia/i8.h"

enum { SCALE_STEPS = SCALE_CHANNELS / 16 }; /* of 16 channels that have a scale */

/* The block-th scales of the lane's two keys of the n-th eight. */
DEVICE float2 two_scales(uint32_t scales, int block, int n)
{
    uint32_t at = scales + ((8 * n + THREAD % 4 * 2) * SCALES + block) * 4;
    return make_float2(float_of(load_word(at)), float_of(load_word(at + SCALES * 4)));
}

/* Adds products of a block with the n-th eight keys times the keys' scales, or sets the scores to them.
 * An infinite scale makes NaN, as the products of an infinity with numbers of both signs do. */
DEVICE void add_scaled(uint32_t scales, int block, int n, const struct scores *products,
                       struct scores *x)
{
    float2 scale = two_scales(scales, block, n);
    scale = make_float2(fused(scale.x, 0, scale.x), fused(scale.y, 0, scale.y));
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        const float *two = &products->s[r / 2][n][r % 2 * 2];
        float *sum = &x->s[r / 2][n][r % 2 * 2];
        sum[0] = block ? fused(two[0], scale.x, sum[0]) : two[0] * scale.x;
        sum[1] = block ? fused(two[1], scale.y, sum[1]) : two[1] * scale.y;
    }
}

/* Scores of the warp's rows for a tile of keys, 32 channels at a time. */
DEVICE void multiply_queries(const struct queries *q, uint32_t k_tile, struct scores *x)
{
    int key = THREAD % 32;
    uint32_t k = k_tile + key * PITCH;
    struct scores products;
    UNROLL for (int c = 0; c < D / 16; c += 2)
    {
        uint32_t y[2][4], own[2][RT][4];
        const uint32_t *rows[2][RT];
        UNROLL for (int h = 0; h < 2; h++)
        {
            load_matrices(y[h], k + piece_at<PITCH>(c + h, key));
            UNROLL for (int i = 0; i < RT; i++) rows[h][i] = query_fragment(q, i, c + h, own[h][i]);
        }
        UNROLL for (int n = 0; n < NT; n++)
        {
            if (c % SCALE_STEPS == 0)
                UNROLL for (int i = 0; i < RT * 4; i++) products.s[i / 4][n][i % 4] = 0;
            UNROLL for (int h = 0; h < 2; h++)
            {
                uint32_t low = two_numbers<0x4140>(y[h][n]), high = two_numbers<0x4342>(y[h][n]);
                UNROLL for (int i = 0; i < RT; i++)
                    multiply_add(products.s[i][n], rows[h][i], low, high);
            }
            if ((c + 2) % SCALE_STEPS == 0)
                add_scaled(k_tile + 2 * TILE_BYTES, c / SCALE_STEPS, n, &products, x);
        }
    }
}

#if DTYPE == DTYPE_f16
/* f16 holds no weight times scale of every size. The sums of a row and the channels of a scale are
 * relative to a power of two: that which brings the largest scale so far to 2^14 ... 2^15. The power
 * for a scale; those that are no numbers ask for none. */
DEVICE float shrink_for(uint32_t scale)
{
    int exponent = (int)(load_word(scale) >> 23 & 255);
    exponent = exponent == 255 ? 15 : larger(exponent, 15);
    return float_of((uint32_t)(268 - exponent) << 23);
}

/* For the values that row r sees. */
DEVICE float least_shrink(const struct attention_args *a, const struct part *p, int key,
                          uint32_t scales, int r, float before)
{
    struct own_rows rows = rows_of_block(a, p->b);
    struct span row = span_of_row(a, p, &rows, r);
#pragma unroll 1
    for (int i = larger(row.first - key, 0); i < smaller(row.end - key, KEYS); i++)
        before = fminf(before, shrink_for(scales + i * (SCALES * 4)));
    return before;
}

DEVICE void raise_units(const struct attention_args *a, const struct part *p, int key,
                        uint32_t scales, int some_hidden, struct state *st)
{
    float least[ROWS][SCALES];
    int lower = 0;
    UNROLL for (int b = 0; b < SCALES; b++)
    {
        float own = shrink_for(scales + (THREAD % 32 * SCALES + b) * 4),
              all = float_of(__reduce_min_sync(~0u, bits_of(own)));
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            float before = st->shrink[r][b];
            least[r][b] = RARE(some_hidden) ? least_shrink(a, p, key, scales + b * 4, r, before)
                                            : fminf(before, all);
            lower |= least[r][b] < before;
        }
    }
    if (!RARE(__any_sync(~0u, lower))) return;
    UNROLL for (int r = 0; r < ROWS; r++) UNROLL for (int b = 0; b < SCALES; b++)
    {
        float factor = least[r][b] * (1 / st->shrink[r][b]);
        st->shrink[r][b] = least[r][b];
        UNROLL for (int c = b * (CT / SCALES); c < (b + 1) * (CT / SCALES); c++)
            UNROLL for (int e = 0; e < 2; e++) st->o[r / 2][c][r % 2 * 2 + e] *= factor;
    }
}
#else
DEVICE void raise_units(const struct attention_args *, const struct part *, int, uint32_t, int,
                        struct state *)
{
}
#endif

/* Weights times the values' scales of a block. */
DEVICE void scale_weights(const struct state *st, uint32_t scales, int block,
                          const struct scores *weights, struct scores *x)
{
    UNROLL for (int n = 0; n < NT; n++)
    {
        float2 scale = two_scales(scales, block, n);
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            const float *from = &weights->s[r / 2][n][r % 2 * 2];
            float *to = &x->s[r / 2][n][r % 2 * 2], shrink = 1;
#if DTYPE == DTYPE_f16
            shrink = st->shrink[r][block];
#endif
            to[0] = from[0] * (scale.x * shrink);
            to[1] = from[1] * (scale.y * shrink);
        }
    }
}

/* Weights of hidden keys become -0, which no other weight is. */
DEVICE void mark_hidden(const struct attention_args *a, const struct part *p, int key,
                        struct scores *weights)
{
    struct own_rows rows = rows_of_block(a, p->b);
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        struct span row = span_of_row(a, p, &rows, r);
        UNROLL for (int i = 0; i < NT * 2; i++)
        {
            int n = i / 2, e = i % 2;
            if (!sees(row, key + 8 * n + THREAD % 4 * 2 + e))
                weights->s[r / 2][n][r % 2 * 2 + e] = -0.0f;
        }
    }
}

DEVICE void clear_hidden(const struct scores *weights, struct scores *x)
{
    UNROLL for (int i = 0; i < RT * NT * 4; i++)
    {
        int marked = bits_of((&weights->s[0][0][0])[i]) == 0x80000000u;
        if (marked) (&x->s[0][0][0])[i] = 0;
    }
}

/* o += p v, of the block-th channels that have a scale. Matrices of pairs of channels are turned: a
 * lane has, of two keys, the channels 2g and 2g + 1 of 16. The even ones are a tile of sums, the odd
 * ones the next, so that the lane's sums are of channels 4t ... 4t + 3. */
DEVICE void add_values(struct state *st, uint32_t v_tile, int block, const struct scores *x)
{
    int lane = THREAD % 32, row = lane % 16;
    uint32_t v = v_tile + row * PITCH;
    UNROLL for (int n = 0; n < STEPS; n++)
    {
        uint32_t p[RT][4];
        pack_weights(x, n, p);
        UNROLL for (int c = block * SCALE_STEPS; c < (block + 1) * SCALE_STEPS; c += 2)
        {
            uint32_t y[4];
            load_matrices_transposed(y, v + n * 16 * PITCH + piece_at<PITCH>(c + lane / 16, row));
            UNROLL for (int h = 0; h < 2; h++)
            {
                const uint32_t *two = y + 2 * h;
                uint32_t even[2] = {two_numbers<0x4240>(two[0]), two_numbers<0x4240>(two[1])},
                         odd[2] = {two_numbers<0x4341>(two[0]), two_numbers<0x4341>(two[1])};
                UNROLL for (int i = 0; i < RT; i++)
                {
                    multiply_add(st->o[i][2 * (c + h)], p[i], even[0], even[1]);
                    multiply_add(st->o[i][2 * (c + h) + 1], p[i], odd[0], odd[1]);
                }
            }
        }
    }
}

/* Weights times the values' scales, those of hidden values 0, times the values. */
DEVICE void add_scaled_values(const struct attention_args *a, const struct part *p, int key,
                              uint32_t tile, int some_hidden, struct state *st,
                              struct scores *weights)
{
    uint32_t scales = tile + 2 * TILE_BYTES + SCALE_BYTES;
    raise_units(a, p, key, scales, some_hidden, st);
    if (RARE(some_hidden)) mark_hidden(a, p, key, weights);
    UNROLL for (int b = 0; b < SCALES; b++)
    {
        struct scores x;
        scale_weights(st, scales, b, weights, &x);
        if (RARE(some_hidden)) clear_hidden(weights, &x);
        add_values(st, tile + TILE_BYTES, b, &x);
    }
}

#endif
