/* values.h: O^T += V^T P^T of the AMD forward, and what keeps NaN and Inf in V from rows that do
 * not see them. */
#ifndef RAPT_AMD_VALUES_H
#define RAPT_AMD_VALUES_H

#include "amd/scores.h"
#include "amd/softmax.h"

/* Where a lane reads its operands of V. */
DEVICE int value_base(int lane)
{
    return v_address(lane % EDGE, operand_piece(lane / EDGE, 0));
}

/* The operand of chunk n and output tile c. */
DEVICE operand value_operand(int base, int n, int c)
{
    operand v;
#pragma unroll
    for (int i = 0; i < OPERAND_PIECES; i++) {
        uint4 x = *shared_at(v_further(base ^ i * 16, c, 2 * n));
        ((uint4 *)&v)[i] = v_swapped(c * EDGE) ? x.zwxy : x;
    }
    return v;
}

/* The keys of score tile n; with_weights: those of the next score tile are made meanwhile. */
DEVICE void add_values(struct accumulator *acc, operand (*p)[CHUNKS_OF_EDGE], int n,
                       int with_weights, struct weighing *weights, results (*s)[KT])
{
    enum { COUNT = CHUNKS_OF_EDGE * CT, SLOTS = COUNT * PARTS };
    int base = value_base(lane_here());
    operand v[COUNT];
#pragma unroll
    for (int t = 0; t < COUNT + AHEAD; t++) {
        if (t < COUNT) {
            if (FEW_ADDRESSES) base = fresh(base);
            v[t] = value_operand(base, n * CHUNKS_OF_EDGE + t / CT, t % CT);
        }
        int now = t - AHEAD, u = now / CT, c = now % CT;
        if (now < 0) continue;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
            for (int r = 0; r < QT; r++) multiply_add_part(&acc->o[r][c], v[now], p[r][u], part);
            if (with_weights) weigh(weights, s, n + 1, now * PARTS + part, SLOTS);
            pin();
        }
        if ((c + 1) % OPERANDS_AT_ONCE == 0) finish(&acc->o[0][c]);
    }
}

/* ---- Values that are not finite -------------------------------------------------------------- */

/* 0 * NaN is NaN: a hidden key's value must not meet its weight 0. After a tile's result came out
 * not finite, the tile is computed once more with zeros in place of NaN and infinities of V; and
 * where an operand has some, products of ones with visible keys say which results see one. */

#if DTYPE == DTYPE_bf16
enum { EXPONENT = 0x7f80, FRACTION = 0x7f, FRACTION_BITS = 7, ONE = 0x3f80 };
#else
enum { EXPONENT = 0x7c00, FRACTION = 0x3ff, FRACTION_BITS = 10, ONE = 0x3c00 };
#endif

#define TWICE(h) ((uint32_t)(h)*0x10001u)

/* Of two elements, bit 15 of those that are NaN or infinite. */
DEVICE uint32_t special_bits(uint32_t x)
{
    return ((x & TWICE(EXPONENT)) + TWICE(1 << FRACTION_BITS)) & TWICE(0x8000);
}

/* Bit 15 of those that are NaN or an infinity of this sign: NaN counts as both, which add up to
 * it. */
DEVICE uint32_t special_bits_of(uint32_t x, int minus)
{
    uint32_t fraction = (x & TWICE(FRACTION)) + TWICE(FRACTION);
    return special_bits(x) & (fraction << (15 - FRACTION_BITS) | (minus ? x : ~x));
}

DEVICE int operand_has_special(const operand *v)
{
    const uint32_t *x = (const uint32_t *)v;
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < 4 * OPERAND_PIECES; i++) bits |= special_bits(x[i]);
    return bits != 0;
}

/* Zeros in place of what is not finite. */
DEVICE operand finite_operand(operand v)
{
    uint32_t *x = (uint32_t *)&v;
#pragma unroll
    for (int i = 0; i < 4 * OPERAND_PIECES; i++) x[i] &= ~((special_bits(x[i]) >> 15) * 0xffff);
    return v;
}

/* 1 for the keys of chunk n that this lane's query sees, as a second operand. */
DEVICE operand visible_keys(const struct attention_args *a, const struct work *w, int r, int n,
                            int key)
{
    int lane = fresh(THREAD) % WAVE, half = lane / EDGE, query = query_of(w, r, lane);
    operand seen;
    uint32_t *x = (uint32_t *)&seen;
#pragma unroll
    for (int i = 0; i < 8 * OPERAND_PIECES; i++) {
        int place = n * 16 + operand_piece(half, i / 8) * 8 + i % 8,
            j = key + place / EDGE * EDGE + key_of_place(place % EDGE);
        uint32_t one = is_hidden(a, w, query, j) ? 0 : ONE;
        x[i / 2] = i % 2 ? x[i / 2] | one << 16 : one;
    }
    return seen;
}

/* Adds the special values of an operand of V to the results that see their keys. */
DEVICE void add_special(results *o, operand v, operand seen)
{
#pragma unroll
    for (int minus = 0; minus < 2; minus++) {
        operand ones = v;
        uint32_t *x = (uint32_t *)&ones;
#pragma unroll
        for (int i = 0; i < 4 * OPERAND_PIECES; i++)
            x[i] = (special_bits_of(x[i], minus) >> 15) * ONE;
        results count = float_of(fresh(0)); /* not zeros kept in registers */
        multiply_add(&count, ones, seen);
#pragma unroll
        for (int i = 0; i < RESULTS; i++)
            (*o)[i] += count[i] > 0 ? (minus ? -INFINITY : INFINITY) : 0;
    }
}

/* Output tile `tile`, whose registers are those of o[.][at]. */
DEVICE void add_tile_carefully(const struct attention_args *a, const struct work *w,
                               struct accumulator *acc, int at, operand (*p)[CHUNKS_OF_EDGE], int u,
                               int chunk, int tile, int key)
{
    operand v = value_operand(value_base(fresh(THREAD) % WAVE), chunk, tile),
            clean = finite_operand(v);
#pragma unroll
    for (int r = 0; r < QT; r++) {
        multiply_add(&acc->o[r][at], clean, p[r][u]);
        if (any_in_wave(operand_has_special(&v)))
            add_special(&acc->o[r][at], v, visible_keys(a, w, r, chunk, key));
    }
}

/* Registers cannot be indexed by a loop's counter: tile 0 is worked on, then all move on by one. */
DEVICE void next_output_tile(struct accumulator *acc)
{
#pragma unroll
    for (int r = 0; r < QT; r++) {
        results first = acc->o[r][0];
#pragma unroll
        for (int c = 1; c < CT; c++) acc->o[r][c - 1] = acc->o[r][c];
        acc->o[r][CT - 1] = first;
    }
}

/* Half of the registers or more hold the output: none are left to move it. */
enum { MOVES = QT * CT * RESULTS < 128 };

DEVICE void add_values_carefully(const struct attention_args *a, const struct work *w,
                                 struct accumulator *acc, operand (*p)[CHUNKS_OF_EDGE], int n,
                                 int key)
{
#pragma unroll
    for (int u = 0; u < CHUNKS_OF_EDGE; u++) {
        int chunk = n * CHUNKS_OF_EDGE + u;
        if (MOVES) {
#pragma unroll 1
            for (int c = 0; c < CT; c++) {
                add_tile_carefully(a, w, acc, 0, p, u, chunk, c, key);
                next_output_tile(acc);
            }
        } else {
#pragma unroll
            for (int c = 0; c < CT; c++) add_tile_carefully(a, w, acc, c, p, u, chunk, c, key);
        }
    }
}

DEVICE int result_is_finite(const struct accumulator *acc)
{
    float2 bad = {0, 0}; /* 0 * x is 0 or NaN */
#pragma unroll
    for (int r = 0; r < QT; r++)
#pragma unroll
        for (int c = 0; c < CT; c++)
#pragma unroll
            for (int v = 0; v < RESULTS; v += 2) {
                float2 two = {acc->o[r][c][v], acc->o[r][c][v + 1]}, zero = {0, 0};
                bad = __builtin_elementwise_fma(two, zero, bad);
            }
    return bad.x + bad.y == 0;
}

#endif
