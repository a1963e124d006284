/* rows.h: what the row-wise kernels (softmax, causal mask) share: which query a row is, and rows in
 * groups of neighbours. */
#ifndef RAPT_ROWS_H
#define RAPT_ROWS_H

#include "device.h"

/* One row of scores: (batch, head, query), with the sequence that it belongs to. */
struct score_row {
    struct sequence seq;
    int b, head, query; /* query within the sequence */
};

/* The sequence of token number `token` of a ragged batch: the last one that starts at or before it
 * and is not empty. */
DEVICE int sequence_of_token(const struct view *q_start, int batch, int64_t token)
{
    int low = 0, high = batch;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (load_index(q_start, middle, 0) <= token) low = middle;
        else high = middle;
    }
    return low;
}

/* Row number `row` in the order [batch][head][token]. */
DEVICE struct score_row score_row_of(const struct attention_args *a, int64_t row)
{
    struct score_row r;
    int64_t pair = quotient(row, a->q_tokens);
    int token = (int)(row - pair * a->q_tokens);
    r.b = (int)quotient(pair, a->q_heads);
    r.head = (int)(pair - (int64_t)r.b * a->q_heads);
    if (a->q_start.data) r.b = sequence_of_token(&a->q_start, a->batch, token);
    r.seq = sequence_of(a, r.b);
    r.query = token - r.seq.q_start;
    return r;
}

DEVICE int64_t score_row_count(const struct attention_args *a)
{
    return (int64_t)(a->q_start.data ? 1 : a->batch) * a->q_heads * a->q_tokens;
}

/* The least power of two that is not below x. */
DEVICE int power_from(int x)
{
    uint32_t below = x < 1 ? 0 : (uint32_t)x - 1;
#pragma unroll
    for (int bits = 1; bits < 32; bits *= 2) below |= below >> bits; /* ones from its first one on */
    return (int)(below + 1);
}

DEVICE uint32_t hidden_bits(int64_t dtype) /* -inf, twice where it is narrow */
{
    return dtype == DTYPE_f32 ? 0xff800000u : dtype == DTYPE_f16 ? 0xfc00fc00u : 0xff80ff80u;
}

/* A run of `run` elements, 1, 4 or 8, from f32; the first `count` of them. */
DEVICE void store_run(char *to, int64_t dtype, int run, int count, const float *x)
{
    if (run == 8 && count >= 8) {
        store_eight(to, dtype, x);
    } else if (run == 4 && count >= 4) {
        STORE(float4, to, float4_of(x[0], x[1], x[2], x[3]));
    } else {
#pragma unroll
        for (int i = 0; i < run; i++)
            if (i < count) store_element(to, i, dtype, x[i]);
    }
}

#endif
