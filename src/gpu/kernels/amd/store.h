/* store.h: the output of the AMD forward, divided by the sums, and the log-sum-exp. */
#ifndef RAPT_AMD_STORE_H
#define RAPT_AMD_STORE_H

#include "amd/scores.h"
#include "amd/softmax.h"

/* Through LDS: STRIPE channels of the wave's rows at a time, so that memory sees whole runs. */
enum {
    STRIPE = DV % 64 == 0 ? 64 : 32,
    STRIPE_PIECES = STRIPE / 8,
    STRIPE_ROWS = WAVE / STRIPE_PIECES, /* rows that a wave writes at once */
    TILES_OF_STRIPE = STRIPE / EDGE
};
static_assert(WAVES * EDGE * STRIPE * 2 <= SHARED_BYTES, "a stripe per wave");
static_assert(DV % STRIPE == 0 && STRIPE % EDGE == 0 && EDGE % STRIPE_ROWS == 0, "whole stripes");

/* A piece of row `row` of the wave's stripe. */
DEVICE int stripe_address(int row, int piece)
{
    return ((wave_here() * EDGE + row) * STRIPE_PIECES + (piece ^ turn_of(row, STRIPE_PIECES))) *
           16;
}

/* Results times the factor of their row: 0 where it has no weights, whatever its values hold. */
DEVICE results scaled_row(results o, float factor)
{
#pragma unroll
    for (int v = 0; v < RESULTS; v++) o[v] = factor == 0 ? 0 : o[v] * factor;
    return o;
}

/* RUN neighbouring channels of query `row` of the wave's from register v on. */
DEVICE void stage_run(results o, int v, int row, int channel)
{
    uint16_t *to = (uint16_t *)shared_at(stripe_address(row, channel / 8)) + channel % 8;
    if (RUN == 8) {
        uint4 x;
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = pack_two(o[v + 2 * i], o[v + 2 * i + 1], DTYPE);
        *(uint4 *)to = x;
    } else if (RUN == 4) {
        uint2 x;
#pragma unroll
        for (int i = 0; i < 2; i++) x[i] = pack_two(o[v + 2 * i], o[v + 2 * i + 1], DTYPE);
        *(uint2 *)to = x;
    } else {
        *to = DTYPE == DTYPE_f16 ? f32_to_f16(o[v]) : f32_to_bf16(o[v]);
    }
}

/* Piece `piece` of a row of the output; channels from `channels` on are not written. */
DEVICE void store_piece(char *row, int piece, uint4 x, int channels)
{
    if (!FEATURES || piece * 8 + 8 <= channels) {
        STORE(uint4, row + piece * 16, x);
        return;
    }
#pragma unroll
    for (int c = 0; c < 8; c++)
        if (piece * 8 + c < channels)
            STORE(uint16_t, row + piece * 16 + c * 2, (uint16_t)(x[c / 2] >> c % 2 * 16));
}

DEVICE void store_packed(const struct attention_args *a, const struct work *w,
                         const struct accumulator *acc, int r, float factor)
{
    int lane = fresh(THREAD) % WAVE, half = lane / EDGE,
        first = w->first_query + (wave_here() * QT + r) * EDGE;
    char *to = element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + first, 0);
#pragma unroll
    for (int stripe = 0; stripe < DV / STRIPE; stripe++) {
        wave_barrier();
#pragma unroll
        for (int c = 0; c < TILES_OF_STRIPE; c++) {
            results o = scaled_row(acc->o[r][stripe * TILES_OF_STRIPE + c], factor);
#pragma unroll
            for (int v = 0; v < RESULTS; v += RUN)
                stage_run(o, v, lane % EDGE, c * EDGE + row_of(v) + half * HALF_ROWS);
        }
        wave_barrier();
#pragma unroll
        for (int i = 0; i < EDGE / STRIPE_ROWS; i++) {
            int row = i * STRIPE_ROWS + lane / STRIPE_PIECES, piece = lane % STRIPE_PIECES;
            uint4 x = *shared_at(stripe_address(row, piece));
            if (first + row < w->seq.q_length)
                store_piece(to + row * (a->out.stride[2] * 2), stripe * STRIPE_PIECES + piece, x,
                            a->v_channels);
        }
    }
}

DEVICE void store_f32(const struct attention_args *a, const struct work *w,
                      const struct accumulator *acc, int r, float factor)
{
    int lane = fresh(THREAD) % WAVE, query = query_of(w, r, lane), half = lane / EDGE;
    if (query >= w->seq.q_length) return;
    float *to = (float *)element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + query, 0);
#pragma unroll
    for (int c = 0; c < CT; c++) {
        results o = scaled_row(acc->o[r][c], factor);
#pragma unroll
        for (int v = 0; v < RESULTS; v++) {
            int channel = c * EDGE + row_of(v) + half * HALF_ROWS;
            if (!FEATURES || channel < a->v_channels)
                STORE(float, to + channel, o[v]);
        }
    }
}

/* All waves are through with K and V. */
DEVICE void store_results(const struct attention_args *a, const struct work *w,
                          const struct accumulator *acc)
{
    block_barrier();
#pragma unroll
    for (int r = 0; r < QT; r++) {
        float l = acc->l[r] + lane_xor(acc->l[r], EDGE), factor = l == 0 ? 0 : 1 / l;
        int lane = fresh(THREAD) % WAVE, query = query_of(w, r, lane);
        if (a->lse.data && lane < EDGE && query < w->seq.q_length)
            store_element(element_at(&a->lse, w->seq.q_batch, w->head, w->seq.q_start + query, 0),
                          0, DTYPE_f32, (acc->m[r] + log2_fast(l)) * LN_2);
        if (a->out.dtype == DTYPE_f32) store_f32(a, w, acc, r, factor);
        else store_packed(a, w, acc, r, factor);
    }
    block_barrier();
}

#endif
