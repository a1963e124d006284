/* decode_i8.h: tiles of i8 keys and values in decode_mma.cu (KV_I8). A tile's integers become numbers
 * of q's type on their way to the tensor cores, exactly; the scale of a key goes on its scores, that of
 * a value on its weights.
 *
 * A value hidden from some rows holds only integers; its weight is made 0 there after the product
 * with its scale, which may be anything. */
#ifndef RAPT_DECODE_I8_H
#define RAPT_DECODE_I8_H

#include "nvidia/decode_scores.h"
#include "nvidia/i8.h"

/* Products of the warp's rows with a tile of keys. */
DEVICE void multiply_queries(const struct queries *q, uint32_t k_tile, struct scores *x)
{
    int key = THREAD % 32;
    uint32_t k = k_tile + key * PITCH;
    UNROLL for (int i = 0; i < RT * NT * 4; i++)(&x->s[0][0][0])[i] = 0;
    UNROLL for (int c = 0; c < D / 16; c++)
    {
        uint32_t y[4], own[RT][4];
        const uint32_t *rows[RT];
        load_matrices(y, k + piece_at<PITCH>(c, key));
        UNROLL for (int i = 0; i < RT; i++) rows[i] = query_fragment(q, i, c, own[i]);
        UNROLL for (int n = 0; n < NT; n++)
        {
            uint32_t low = two_numbers<0x4140>(y[n]), high = two_numbers<0x4342>(y[n]);
            UNROLL for (int i = 0; i < RT; i++) multiply_add(x->s[i][n], rows[i], low, high);
        }
    }
}

/* Scales of the lane's two keys of the n-th eight. */
DEVICE float2 two_scales(uint32_t scales, int n)
{
    uint32_t at = scales + (8 * n + THREAD % 4 * 2) * 4;
    return make_float2(float_of(load_word(at)), float_of(load_word(at + 4)));
}

/* Products times the keys' scales. An infinite one makes NaN, as the products of an infinity with
 * numbers of both signs do. */
DEVICE void scale_scores(uint32_t scales, struct scores *x)
{
    UNROLL for (int n = 0; n < NT; n++)
    {
        float2 scale = two_scales(scales, n),
               none = make_float2(scale.x - scale.x, scale.y - scale.y);
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            float *two = &x->s[r / 2][n][r % 2 * 2];
            two[0] = fused(two[0], scale.x, none.x);
            two[1] = fused(two[1], scale.y, none.y);
        }
    }
}

#if DTYPE == DTYPE_f16
/* f16 holds no weight times scale of every size. A row's sums are relative to a power of two: that
 * which brings the largest scale so far to 2^14 ... 2^15. The power for a scale; those that are no
 * numbers ask for none. */
DEVICE float shrink_for(float scale)
{
    int exponent = (int)(bits_of(scale) >> 23 & 255);
    exponent = exponent == 255 ? 15 : larger(exponent, 15);
    return float_of((uint32_t)(268 - exponent) << 23);
}

/* Of the values that a row sees. */
DEVICE void raise_units(const struct attention_args *a, const struct part *p, int key,
                        uint32_t scales, int some_hidden, struct state *st)
{
    float own = shrink_for(float_of(load_word(scales + THREAD % 32 * 4))), least[ROWS];
    uint32_t all = __reduce_min_sync(~0u, bits_of(own));
    int lower = 0;
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        least[r] = float_of(all);
        if (RARE(some_hidden)) {
            struct own_rows rows = rows_of_block(a, p->b);
            struct span row = span_of_row(a, p, &rows, r);
            least[r] = st->shrink[r];
#pragma unroll 1
            for (int i = larger(row.first - key, 0); i < smaller(row.end - key, KEYS); i++)
                least[r] = fminf(least[r], shrink_for(float_of(load_word(scales + i * 4))));
        }
        lower |= least[r] < st->shrink[r];
    }
    if (!RARE(__any_sync(~0u, lower))) return;
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        float shrink = fminf(least[r], st->shrink[r]), factor = shrink * (1 / st->shrink[r]);
        st->shrink[r] = shrink;
        UNROLL for (int c = 0; c < CT; c++) UNROLL for (int e = 0; e < 2; e++)
            st->o[r / 2][c][r % 2 * 2 + e] *= factor;
    }
}
#else
DEVICE void raise_units(const struct attention_args *, const struct part *, int, uint32_t, int,
                        struct state *)
{
}
#endif

/* Weights times the values' scales; those of hidden values are 0. */
DEVICE void scale_weights(const struct attention_args *a, const struct part *p, int key,
                          uint32_t scales, int some_hidden, struct state *st, struct scores *x)
{
    raise_units(a, p, key, scales, some_hidden, st);
    UNROLL for (int n = 0; n < NT; n++)
    {
        float2 scale = two_scales(scales, n);
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            float shrink = 1;
#if DTYPE == DTYPE_f16
            shrink = st->shrink[r];
#endif
            x->s[r / 2][n][r % 2 * 2] *= scale.x * shrink;
            x->s[r / 2][n][r % 2 * 2 + 1] *= scale.y * shrink;
        }
    }
    if (!RARE(some_hidden)) return;
    struct own_rows rows = rows_of_block(a, p->b);
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        struct span row = span_of_row(a, p, &rows, r);
        UNROLL for (int i = 0; i < NT * 2; i++)
        {
            int n = i / 2, e = i % 2;
            if (!sees(row, key + 8 * n + THREAD % 4 * 2 + e)) x->s[r / 2][n][r % 2 * 2 + e] = 0;
        }
    }
}

/* o += p v. Matrices of pairs of channels are turned: a lane has, of two keys, the channels 2g and 2g
 * + 1 of 16. The even ones are a tile of sums, the odd ones the next, so that the lane's sums are of
 * channels 4t ... 4t + 3. */
DEVICE void add_values(struct state *st, uint32_t v_tile, const struct scores *x)
{
    int lane = THREAD % 32, row = lane % 16;
    uint32_t v = v_tile + row * PITCH;
    UNROLL for (int n = 0; n < STEPS; n++)
    {
        uint32_t p[RT][4];
        pack_weights(x, n, p);
        UNROLL for (int c = 0; c < D / 16; c += 2)
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

#endif
