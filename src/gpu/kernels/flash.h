/* flash.h: the portable fused forward, f32 arithmetic, one block per (query tile, head, sequence);
 * online softmax over tiles of TILE_KV keys (Milakov and Gimelshein 2018; Dao et al. 2022). The
 * three flash_attention sources include it with
 *
 *   FLASH_CAUSAL    1: window_right is 0, and whole tiles to the right are skipped; 0: every key in
 *                   use is visible
 *   FLASH_GENERAL   1: everything rapt_attention can ask (implies windows): softcap, bias, mask,
 *                   ALiBi, sink, pages, i8
 *   FLASH_CELLS     1: bias and mask tensors
 *   FLASH_AT_ONCE   1: a tile of K and of V lies in shared memory complete: least latency, for few
 *                   queries; 0: in parts
 *   Q_PART          channels of Q that lie in shared memory beside as many of K, read again for
 *                   each tile of keys: twice the rows fit; 0: Q lies there whole
 *
 * D and DV are multiples of 64, the most channels the row serves; fewer are padded by zeros. Shared
 * memory, in float4: Q [TILE_Q][D / 4] unless in parts, stage (K part, Q part; then V part), P
 * [TILE_Q][TILE_KV / 4]. */
#ifndef RAPT_FLASH_H
#define RAPT_FLASH_H

#include "score_change.h"
#include "tile.h"

#ifndef FLASH_CELLS
#define FLASH_CELLS FLASH_GENERAL
#endif
#ifndef FLASH_AT_ONCE
#define FLASH_AT_ONCE 0
#endif
#ifndef Q_PART
#define Q_PART 0
#endif

enum {
    PART = FLASH_AT_ONCE ? D
           : Q_PART      ? Q_PART
                         : 64, /* channels of K staged at a time */
    V_KEYS = FLASH_AT_ONCE || DV <= 64 ? TILE_KV
             : DV <= 128               ? TILE_KV / 2
             : DV <= 256               ? TILE_KV / 4
                                       : TILE_KV / 8,
    Q_FLOAT4 = Q_PART ? 0 : TILE_Q * D / 4,
    K_FLOAT4 = (TILE_KV + (Q_PART ? TILE_Q : 0)) * PART / 4,
    V_FLOAT4 = V_KEYS * DV / 4,
    STAGE_FLOAT4 = FLASH_AT_ONCE         ? K_FLOAT4 + V_FLOAT4
                   : K_FLOAT4 > V_FLOAT4 ? K_FLOAT4
                                         : V_FLOAT4,
    P_FLOAT4 = TILE_Q * TILE_KV / 4
};
static_assert(DV <= D, "the output is staged where Q was");
static_assert(SHARED_BYTES == 16 * (Q_FLOAT4 + STAGE_FLOAT4 + P_FLOAT4),
              "the row's shared memory is what the tiles need");

extern __shared__ float4 shared_memory[];

/* Weight of a hidden key: a negative zero, which exp2 never gives, so that its value can be left
 * alone. */
#define HIDDEN_BITS 0x80000000u

struct accumulator {
    float4 o[RM][NC];
    float m[RM], l[RM]; /* maximum of the scores so far; this lane's part of the sum */
};

/* What this block works on. */
struct work {
    struct sequence seq;
    int b, head, kv_head;
    int first_query;        /* of the tile, within the sequence */
    int first_key, end_key; /* keys that some row of the tile can see */
    struct rows q, k, v;
};

DEVICE struct work work_of(const struct attention_args *a, int b, int head, int tile)
{
    struct work w = {};
    w.seq = sequence_of(a, b);
    w.b = b;
    w.head = head;
    w.kv_head = head / a->group;
    w.first_query = tile * TILE_Q;
    int last_query = smaller(w.first_query + TILE_Q, w.seq.q_length) - 1;
    w.end_key = w.seq.kv_length;
    if (FLASH_CAUSAL || FLASH_GENERAL)
        w.end_key = smaller(w.end_key, last_query + w.seq.offset + a->window_right + 1);
    if (FLASH_GENERAL)
        w.first_key = larger(0, w.first_query + w.seq.offset - a->window_left) / TILE_KV * TILE_KV;
    w.k = rows_of(a, &a->k, w.seq.kv_batch, w.kv_head, w.seq.kv_start, a->channels);
    w.v = rows_of(a, &a->v, w.seq.kv_batch, w.kv_head, w.seq.kv_start, a->v_channels);
    if (FLASH_GENERAL) {
        if (READ_AGAIN) { /* these are from here on in addresses of lanes alone */
            w.kv_head = fresh(w.kv_head);
            w.seq.q_batch = fresh(w.seq.q_batch);
            w.seq.q_start = fresh(w.seq.q_start);
        }
        rows_add_pages(&w.k, b, w.kv_head);
        rows_add_pages(&w.v, b, w.kv_head);
        rows_add_scale(&w.k, &a->k_scale, &a->k_block, w.seq.kv_batch, w.kv_head, w.seq.kv_start);
        rows_add_scale(&w.v, &a->v_scale, &a->v_block, w.seq.kv_batch, w.kv_head, w.seq.kv_start);
    }
    return w;
}

/* The query that row i of this thread is, within the sequence. */
DEVICE int query_of(const struct work *w, int i)
{
    return w->first_query + THREAD / LANES + ROW_LANES * i;
}

/* Whether some row of the tile may not see some key of the tile that starts at key. */
DEVICE int tile_has_hidden(const struct attention_args *a, const struct work *w, int key)
{
    int hidden = key + TILE_KV > w->seq.kv_length, first = w->first_query + w->seq.offset;
    if (FLASH_CAUSAL || FLASH_GENERAL) hidden |= key + TILE_KV - 1 > first + a->window_right;
    if (FLASH_GENERAL) hidden |= key < first + TILE_Q - 1 - a->window_left || a->mask.data;
    if (FLASH_CELLS && !FLASH_GENERAL) hidden |= a->mask.data != 0;
    return hidden;
}

/* Where a thread's first key lies against the limits of its first row; positive or zero: hidden.
 * Written so that the tests of all its rows and keys compare these three numbers with constants. */
struct limits {
    int past_length, past_right, before_left;
};

DEVICE struct limits limits_of(const struct attention_args *a, const struct work *w, int key)
{
    int first = key + THREAD % LANES * RN, position = query_of(w, 0) + w->seq.offset;
    struct limits l = {first - w->seq.kv_length, first - position - a->window_right - 1,
                       position - a->window_left - first - 1};
    return l;
}

DEVICE int is_hidden(const struct limits *l, int i, int n)
{
    int hidden = l->past_length + n >= 0;
    if (FLASH_CAUSAL || FLASH_GENERAL) hidden |= l->past_right + n - ROW_LANES * i >= 0;
    if (FLASH_GENERAL) hidden |= l->before_left - n + ROW_LANES * i >= 0;
    return hidden;
}

/* ---- Bias and mask --------------------------------------------------------------------------- */

/* What both tensors have for a thread's keys. It is loaded before a tile's products, when registers
 * are free, for TOGETHER rows that wait together; as many bytes at a time as RN cells take, where
 * the tensor's rows allow that. Cells of queries or keys that do not exist are not read. The
 * weights' places in shared memory hold them until the softmax: the bias, or HIDDEN_CELL. */
enum {
    TOGETHER = RM < 2 ? RM : 2,
    STAGED = FLASH_CELLS && NC <= 4 /* registers are few with more channels: loaded where used */
};
struct cells {
    float bias[TOGETHER][RN];
    uint32_t shown[TOGETHER]; /* a byte for each key, 0 hides */
};
#define HIDDEN_CELL 0xffffffffu /* a NaN that no bias is stored as */
static_assert(!STAGED || (RN == 4 && RM % TOGETHER == 0), "cells of four keys");

/* Where the thread's cells in row i lie, and how many of them exist: all, as one piece (RN), or fewer. */
struct cell_rows {
    const char *from;
    int64_t row, step; /* bytes */
    int whole, keys, queries;
};

DEVICE struct cell_rows cell_rows_of(const struct view *v, const struct work *w, int key, int i)
{
    int first = key + THREAD % LANES * RN, query = query_of(w, i), bytes = dtype_bytes(v->dtype);
    struct cell_rows r = {element_at(v, w->seq.q_batch, w->head, w->seq.q_start + query, first),
                          v->stride[2] * ROW_LANES * bytes,
                          v->stride[3] * bytes,
                          0,
                          smaller(RN, w->seq.kv_length - first),
                          w->seq.q_length - query};
    r.whole = r.keys == RN && runs_aligned(v, RN);
    return r;
}

DEVICE void load_bias_f32(const struct cell_rows *r, struct cells *c)
{
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) {
        float4 x = float4_of(0, 0, 0, 0);
        if (r->whole && ROW_LANES * j < r->queries) x = LOAD(float4, r->from + j * r->row);
        c->bias[j][0] = x.x, c->bias[j][1] = x.y;
        c->bias[j][2 % RN] = x.z, c->bias[j][3 % RN] = x.w;
    }
    if (r->whole) return;
#pragma unroll
    for (int j = 0; j < TOGETHER; j++)
#pragma unroll
        for (int n = 0; n < RN; n++)
            if (n < r->keys && ROW_LANES * j < r->queries)
                c->bias[j][n] = LOAD(float, r->from + j * r->row + n * r->step);
}

DEVICE void load_bias_16(const struct cell_rows *r, int64_t dtype, struct cells *c)
{
    uint2 two[TOGETHER];
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) {
        two[j].x = two[j].y = 0;
        if (r->whole && ROW_LANES * j < r->queries) two[j] = LOAD(uint2, r->from + j * r->row);
    }
    if (!r->whole) {
        uint32_t x[TOGETHER][RN] = {};
#pragma unroll
        for (int j = 0; j < TOGETHER; j++)
#pragma unroll
            for (int n = 0; n < RN; n++)
                if (n < r->keys && ROW_LANES * j < r->queries)
                    x[j][n] = LOAD(uint16_t, r->from + j * r->row + n * r->step);
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            two[j].x = x[j][0] | x[j][1] << 16;
            two[j].y = x[j][2 % RN] | x[j][3 % RN] << 16;
        }
    }
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) {
        float4 x = unpack_four(two[j], dtype);
        c->bias[j][0] = x.x, c->bias[j][1] = x.y;
        c->bias[j][2 % RN] = x.z, c->bias[j][3 % RN] = x.w;
    }
}

DEVICE void load_mask(const struct cell_rows *r, struct cells *c)
{
#pragma unroll
    for (int j = 0; j < TOGETHER; j++) {
        c->shown[j] = 0;
        if (r->whole && ROW_LANES * j < r->queries)
            c->shown[j] = LOAD(uint32_t, r->from + j * r->row);
    }
    if (r->whole) return;
#pragma unroll
    for (int j = 0; j < TOGETHER; j++)
#pragma unroll
        for (int n = 0; n < RN; n++)
            if (n < r->keys && ROW_LANES * j < r->queries)
                c->shown[j] |= (uint32_t)LOAD(uint8_t, r->from + j * r->row + n * r->step) << 8 * n;
}

/* Those of rows from, ..., from + TOGETHER - 1 to the places of the weights p. */
DEVICE void stage_rows(const struct attention_args *a, const struct work *w, int key, int from,
                       float4 *p)
{
    struct cells c;
    if (a->bias.data) {
        struct cell_rows r = cell_rows_of(&a->bias, w, key, from);
        if (a->bias.dtype == DTYPE_f32) load_bias_f32(&r, &c);
        else load_bias_16(&r, a->bias.dtype, &c);
    } else {
#pragma unroll
        for (int i = 0; i < TOGETHER * RN; i++) c.bias[i / RN][i % RN] = 0;
    }
    if (a->mask.data) {
        struct cell_rows r = cell_rows_of(&a->mask, w, key, from);
        load_mask(&r, &c);
    }
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) {
#pragma unroll
        for (int n = 0; n < RN; n++) {
            float *x = &c.bias[i][n];
            if (*x != *x) *x = float_of(0x7fc00000u);
            if (a->mask.data && !(c.shown[i] >> 8 * n & 0xff)) *x = float_of(HIDDEN_CELL);
        }
        store_weights(p, from + i, c.bias[i]);
    }
}

DEVICE void stage_cells(const struct attention_args *a, const struct work *w, int key, float4 *p)
{
    if (!a->bias.data && !a->mask.data) return;
    a = AGAIN(attention_args, a);
    wave_barrier(); /* p of the tile before has been read */
#pragma unroll 1
    for (int i = 0; i < RM; i += TOGETHER) stage_rows(a, w, fresh(key), i, p);
}

/* Those of row i. */
DEVICE float4 staged_cells(const float4 *p, int i)
{
    int x = THREAD % LANES, y = THREAD / LANES;
    return p[(y + ROW_LANES * i) * (TILE_KV / 4) + (x ^ (y & 7))];
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* Softcap, bias, ALiBi and mask of one row; returns which of its keys the mask hides, as bits. */
DEVICE int change_row(const struct attention_args *a, const struct work *w, float *s, int i,
                      int key, const float4 *p)
{
    int hidden = 0, cells = a->mask.data || a->bias.data;
    if (!cells && !(FLASH_GENERAL && (a->alibi.data || a->softcap > 0))) return 0;
    a = AGAIN(attention_args, a);
    float slope = 0;
    float4 four = float4_of(0, 0, 0, 0);
    int distance = query_of(w, i) + w->seq.offset - key - THREAD % LANES * RN;
    if (cells) four = staged_cells(p, i);
    if (FLASH_GENERAL && a->alibi.data)
        slope = load_element(element_at(&a->alibi, w->b, w->head, 0, 0), 0, DTYPE_f32);
#pragma unroll
    for (int n = 0; n < RN; n++) {
        float cell = component(four, n % 4);
        if (FLASH_GENERAL && a->softcap > 0) s[n] = a->softcap * tanh_f32(s[n] / a->softcap);
        s[n] += cell;
        if (FLASH_GENERAL && a->alibi.data)
            s[n] -= slope * (float)(distance < n ? n - distance : distance - n);
        if (bits_of(cell) == HIDDEN_CELL) hidden |= 1 << n;
    }
    return hidden;
}

/* Products to scores of one row; returns which of its keys are hidden, as bits. */
DEVICE int finish_scores(const struct attention_args *a, const struct work *w, float *s, int i,
                         int key, int some_hidden, const struct limits *limits, const float4 *p)
{
    int hidden = 0;
#pragma unroll
    for (int n = 0; n < RN; n++) {
        s[n] *= a->scale;
        if (some_hidden && is_hidden(limits, i, n)) hidden |= 1 << n;
    }
    if (STAGED) hidden |= change_row(a, w, s, i, key, p);
    if (FLASH_GENERAL && !STAGED &&
        (a->mask.data || a->bias.data || a->alibi.data || a->softcap > 0)) {
        a = AGAIN(attention_args, a);
        int query = query_of(w, i), first = key + THREAD % LANES * RN;
#pragma unroll
        for (int n = 0; n < RN; n++) {
            if ((hidden >> n & 1) || query >= w->seq.q_length || first + n >= w->seq.kv_length)
                continue;
            if (a->mask.data && is_masked(a, &w->seq, w->head, query, first + n)) hidden |= 1 << n;
            else s[n] = changed_score(a, &w->seq, w->b, w->head, s[n], query, first + n);
        }
    }
#pragma unroll
    for (int n = 0; n < RN; n++)
        if (hidden >> n & 1) s[n] = -INFINITY;
    return hidden;
}

/* One step of the online softmax for all rows; leaves the weights in p. */
DEVICE void softmax_step(const struct attention_args *a, const struct work *w,
                         struct accumulator *acc, float (*s)[RN], float4 *p, int key,
                         int some_hidden)
{
    struct limits limits = limits_of(a, w, fresh(key));
#pragma unroll
    for (int i = 0; i < RM; i++) {
        int hidden = finish_scores(a, w, s[i], i, key, some_hidden, &limits, p);
        float m = s[i][0];
#pragma unroll
        for (int n = 1; n < RN; n++) m = maximum(m, s[i][n]);
        m = maximum(acc->m[i], max_of_16(m));
        float base = m == -INFINITY ? 0 : m, sum = 0; /* -inf - -inf must not reach exp2 */
        float keep = exp2_fast((acc->m[i] - base) * LOG2_E);
#pragma unroll
        for (int n = 0; n < RN; n++) {
            float e = exp2_fast((s[i][n] - base) * LOG2_E);
            sum += e;
            s[i][n] = some_hidden && (hidden >> n & 1) ? float_of(HIDDEN_BITS) : e;
        }
        acc->m[i] = m;
        acc->l[i] = acc->l[i] * keep + sum;
#pragma unroll
        for (int j = 0; j < NC; j++) {
            acc->o[i][j].x *= keep;
            acc->o[i][j].y *= keep;
            acc->o[i][j].z *= keep;
            acc->o[i][j].w *= keep;
        }
        store_weights(p, i, s[i]);
    }
}

/* A sink is a logit without a value: it starts the maximum and the sum. Lane 0 of a row carries its
 * part of the sum. */
DEVICE void start(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    float sink = -INFINITY;
    if (FLASH_GENERAL && a->sink.data)
        sink = load_element(element_at(&a->sink, w->b, w->head, 0, 0), 0, DTYPE_f32);
#pragma unroll
    for (int i = 0; i < RM; i++) {
        acc->m[i] = sink;
        acc->l[i] = sink != -INFINITY && THREAD % LANES == 0 ? 1 : 0;
#pragma unroll
        for (int j = 0; j < NC; j++) acc->o[i][j] = float4_of(0, 0, 0, 0);
    }
}

/* The log-sum-exp of row i; returns what to multiply its output with. */
DEVICE float finish_row(const struct attention_args *a, const struct work *w,
                        const struct accumulator *acc, int i)
{
    float l = sum_of_16(acc->l[i]);
    int query = query_of(w, i);
    if (a->lse.data && THREAD % LANES == 0 && query < w->seq.q_length)
        store_element(element_at(&a->lse, w->seq.q_batch, w->head, w->seq.q_start + query, 0), 0,
                      DTYPE_f32, acc->m[i] + log2_fast(l) * LN_2);
    return l == 0 ? 0 : 1 / l;
}

/* Through the memory of the Q tile, so that the stores are of whole rows. */
DEVICE void store_results(const struct attention_args *a, const struct work *w,
                          const struct accumulator *acc)
{
    block_barrier();
#pragma unroll
    for (int i = 0; i < RM; i++) {
        float l = sum_of_16(acc->l[i]);
        int query = query_of(w, i);
        stage_row(shared_memory, i, acc->o[i], l == 0 ? 0 : 1 / l);
        if (a->lse.data && THREAD % LANES == 0 && query < w->seq.q_length)
            store_element(element_at(&a->lse, w->seq.q_batch, w->head, w->seq.q_start + query, 0),
                          0, DTYPE_f32, acc->m[i] + log2_fast(l) * LN_2);
    }
    block_barrier();
    store_tile(shared_memory, smaller(TILE_Q, w->seq.q_length - w->first_query), &a->out,
               w->seq.q_batch, w->head, w->seq.q_start + w->first_query, a->v_channels);
}

/* Without such memory: 16 lanes store 64 neighbouring channels. */
DEVICE void store_directly(const struct attention_args *a, const struct work *w,
                           const struct accumulator *acc)
{
    int aligned = runs_aligned(&a->out, 4) && a->v_channels % 4 == 0;
#pragma unroll
    for (int i = 0; i < RM; i++) {
        float factor = finish_row(a, w, acc, i);
        int query = query_of(w, i);
        if (query >= w->seq.q_length) continue;
#pragma unroll
        for (int j = 0; j < NC; j++)
            store_channels(&a->out, w->seq.q_batch, w->head, w->seq.q_start + query,
                           4 * (THREAD % LANES + LANES * j), a->v_channels, aligned, acc->o[i][j],
                           factor);
    }
}

/* One tile of keys, staged in parts. */
DEVICE void key_tile(const struct attention_args *a, const struct work *w, struct accumulator *acc,
                     int key)
{
    float4 *q = shared_memory, *stage = q + Q_FLOAT4, *p = stage + STAGE_FLOAT4,
           *q_part = stage + TILE_KV * PART / 4;
    if (STAGED) stage_cells(a, w, key, p);
    float s[RM][RN] = {};
#pragma unroll 1
    for (int c = 0; c < D && c < a->channels; c += PART) {
        block_barrier();
        load_tile(stage, TILE_KV, PART / 4, SWIZZLE_KEY, &w->k, key, w->seq.kv_length, c);
        if (Q_PART)
            load_tile(q_part, TILE_Q, PART / 4, SWIZZLE_ROW, &w->q, w->first_query, w->seq.q_length,
                      c);
        block_barrier();
        if (Q_PART) add_scores(s, q_part, PART / 4, 0, stage, PART / 4, PART / 4);
        else add_scores(s, q, D / 4, c / 4, stage, PART / 4, PART / 4);
    }
    int some_hidden = tile_has_hidden(a, w, key);
    softmax_step(a, w, acc, s, p, key, some_hidden);
    wave_barrier(); /* the 16 lanes of a row lie in one wave: only they read its weights */
#pragma unroll 1
    for (int part = 0; part < TILE_KV && key + part < w->end_key; part += V_KEYS) {
        block_barrier();
        load_tile(stage, V_KEYS, DV / 4, SWIZZLE_NONE, &w->v, key + part, w->seq.kv_length, 0);
        block_barrier();
        if (some_hidden) add_values(acc->o, p, part, stage, V_KEYS, 1, HIDDEN_BITS, ~0u);
        else add_values(acc->o, p, part, stage, V_KEYS, 0, 0, 0);
    }
}

/* The same with K and V requested together. */
DEVICE void key_tile_at_once(const struct attention_args *a, const struct work *w,
                             struct accumulator *acc, int key)
{
    float4 *q = shared_memory, *k = q + Q_FLOAT4, *v = k + K_FLOAT4, *p = k + STAGE_FLOAT4;
    if (STAGED) stage_cells(a, w, key, p);
    float s[RM][RN] = {};
    block_barrier();
    load_tile(k, TILE_KV, D / 4, SWIZZLE_KEY, &w->k, key, w->seq.kv_length, 0);
    load_tile(v, TILE_KV, DV / 4, SWIZZLE_NONE, &w->v, key, w->seq.kv_length, 0);
    block_barrier();
    add_scores(s, q, D / 4, 0, k, D / 4, (smaller(D, a->channels) + 31) / 32 * 8);
    int some_hidden = tile_has_hidden(a, w, key);
    softmax_step(a, w, acc, s, p, key, some_hidden);
    wave_barrier();
    add_values(acc->o, p, 0, v, TILE_KV, 1, HIDDEN_BITS, ~0u);
    wave_barrier();
}

DEVICE void flash_block(const struct attention_args *a, int b, int head, int tile)
{
    a = AGAIN(attention_args, a);
    struct work w = work_of(a, b, head, tile);
    if (w.first_query >= w.seq.q_length) return;
    if (FLASH_GENERAL && READ_AGAIN) w.seq.q_length = fresh(w.seq.q_length);
    w.q = rows_of(a, &a->q, w.seq.q_batch, head, w.seq.q_start, a->channels);
    if (FLASH_GENERAL)
        rows_add_scale(&w.q, &a->q_scale, &a->q_block, w.seq.q_batch, head, w.seq.q_start);
    block_barrier(); /* a block may do several heads */
    if (!Q_PART)
        load_tile(shared_memory, TILE_Q, D / 4, SWIZZLE_ROW, &w.q, w.first_query, w.seq.q_length,
                  0);
    struct accumulator acc;
    a = AGAIN(attention_args, a);
    start(a, &w, &acc);
    for (int key = w.first_key; key < w.end_key; key += TILE_KV) {
        a = AGAIN(attention_args, a);
        if (FLASH_AT_ONCE) key_tile_at_once(a, &w, &acc, key);
        else key_tile(a, &w, &acc, key);
    }
    a = AGAIN(attention_args, a);
    if (Q_PART) store_directly(a, &w, &acc);
    else store_results(a, &w, &acc);
}

/* Heads whose keys are walked at the same time: 16 keep their K and V in an L2 cache of 32 MB and
 * more at usual lengths. */
enum { SECTION = 16 };

DEVICE void flash_grid(const struct attention_args *a)
{
    int tiles = (a->q_tokens + TILE_Q - 1) / TILE_Q;
    int heads = smaller(a->q_heads, GRID_LIMIT), batches = smaller(a->batch, GRID_LIMIT);
    struct tile_place at = place_of_block(tiles, heads, batches, SECTION);
    for (int b = at.z; b < AGAIN(attention_args, a)->batch; b += batches)
        for (int head = at.y; head < AGAIN(attention_args, a)->q_heads; head += heads)
            flash_block(a, b, head, at.tile);
}

#endif
