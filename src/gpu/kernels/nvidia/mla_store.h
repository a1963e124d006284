/* mla_store.h: values that are not finite, and what a block of mla_sm90.cu leaves of its part. */
#ifndef RAPT_NVIDIA_MLA_STORE_H
#define RAPT_NVIDIA_MLA_STORE_H

#include "nvidia/mla_load.h"

/* ---- 0 * NaN is NaN: a value that is not finite must not meet the weight 0 of a row that does not see
 * its key. Where a block has keys that only some rows see, such values become 0, and add_special adds
 * them to the rows that do. */

DEVICE bool is_special(uint32_t h)
{
    const uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) == exponent;
}

/* Two values, those that are not finite replaced by 0. */
DEVICE uint32_t finite_of(uint32_t two)
{
    return (is_special(two) ? 0 : two & 0xffff) | (is_special(two >> 16) ? 0 : two & 0xffff0000u);
}

/* Keys `key` ... of a stage, by the threads of a consumer, after its scores: those behind the part's end
 * become zeros. Whether others had values that are not finite. */
DEVICE bool clear_hidden(const struct part &p, uint32_t stage, int key, int thread)
{
    bool found = false;
    uint32_t at = stage + thread % 64 / 8 * PANEL + thread % 8 * 16;
#pragma unroll 1
    for (int row = thread / 64; row < KEYS; row += 2) {
        int own = key + row;
        if (own >= p.all_first && own < p.all_end && own < p.end) continue;
        if (own >= p.end) {
            shared_store4(at + row * 128, 0, 0, 0, 0);
            continue;
        }
        int x[4];
        shared_load4(at + row * 128, x[0], x[1], x[2], x[3]);
        bool any = false;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int y = (int)finite_of((uint32_t)x[i]);
            any |= y != x[i];
            x[i] = y;
        }
        if (any) shared_store4(at + row * 128, x[0], x[1], x[2], x[3]);
        found |= any;
    }
    return found;
}

/* Four channels of a value in memory: what of it is not finite. */
DEVICE float4 special_values(const struct attention_args &a, const struct part &p, int key,
                             int channel)
{
    int batch = p.seq.kv_batch, token = p.seq.kv_start + key;
    if (a.page_table.data) {
        batch = page_of(a, p, key);
        token = key - page_index(a, key) * a.page_tokens;
    }
    float4 x = unpack_four(LOAD(uint2, element_at(&a.k, batch, p.kv_head, token, channel)), DTYPE);
    return float4_of(is_finite(x.x) ? 0 : x.x, is_finite(x.y) ? 0 : x.y, is_finite(x.z) ? 0 : x.z,
                     is_finite(x.w) ? 0 : x.w);
}

DEVICE float4 add_special(const struct attention_args &a, const struct part &p, int query,
                          int channel, float4 o)
{
    struct span row = span_of_query(a, p, query);
    int end = smaller(p.end, row.end);
#pragma unroll 1
    for (int key = larger(p.first, row.first); key < end; key++) {
        if (key >= p.all_first && key < p.all_end) key = p.all_end; /* those all rows see */
        if (key >= end) break;
        o = add_part(o, special_values(a, p, key, channel), 1);
    }
    return o;
}

/* ---- The end of a part ---- */

/* A consumer's sums of rows `row` and row + 8 to shared memory, from `channel` on. */
DEVICE void leave_sums(const float (&o)[DV / 4], float *sums, int row, int channel)
{
#pragma unroll
    for (int i = 0; i < DV / 16; i++) {
        float *to = sums + row * SUMS_PITCH + channel + 8 * i;
        *(float2 *)to = make_float2(o[4 * i], o[4 * i + 1]);
        *(float2 *)(to + 8 * SUMS_PITCH) = make_float2(o[4 * i + 2], o[4 * i + 3]);
    }
}

/* Where one of the block's rows is among the results, and among the query heads. */
struct row_place {
    int head, token, query;
};

DEVICE struct row_place place_of(const struct attention_args &a, const struct part &p, int row)
{
    struct row_place x;
    x.query = (p.row + row) / a.group;
    x.head = p.kv_head * a.group + p.row + row - x.query * a.group;
    x.token = p.seq.q_start + x.query;
    return x;
}

/* A part for NAME_combine, from shared memory, each row by one of four threads. ends: of each row, maximum and sum
 * of weights. */
DEVICE void store_part(const struct attention_args &a, const struct part &p, const float *sums,
                       const float2 *ends, int thread)
{
    int row = thread / (CONSUMERS / ROWS);
    if (thread % (CONSUMERS / ROWS) || row >= p.count) return;
    struct row_place at = place_of(a, p, row);
    int64_t number = partial_row(&a, p.seq.q_batch, at.head, at.token);
    bool some = p.first < p.end;
    STORE(float2, partial_lse_at(&a, p.number, number),
          make_float2(ends[row].x, some ? ends[row].y : NO_KEYS));
    if (!some) return;
    bulk_store(partial_out_at(&a, p.number, number, 0), shared_address(sums + row * SUMS_PITCH),
               DV * 4);
    tma_store_commit();
    tma_store_wait();
}

/* The result where the keys have one part, and parts with values that were not finite. ends:
 * of each row. */
DEVICE void write_rows(const struct attention_args &a, const struct part &p, const float *sums,
                       const float2 *ends, bool special, int thread)
{
    int channel = thread % (DV / 4) * 4;
#pragma unroll 4
    for (int i = thread / (DV / 4); i < p.count; i += CONSUMERS / (DV / 4)) {
        struct row_place at = place_of(a, p, i);
        float4 x = *(const float4 *)(sums + i * SUMS_PITCH + channel);
        if (RARE(special)) x = add_special(a, p, at.query, channel, x);
        if (RARE(a.splits > 1)) {
            int64_t number = partial_row(&a, p.seq.q_batch, at.head, at.token);
            STORE(float4, partial_out_at(&a, p.number, number, channel), x);
            if (channel == 0) STORE(float2, partial_lse_at(&a, p.number, number), ends[i]);
            continue;
        }
        struct total t;
        float weight = total_of_one(&t, ends[i].x, ends[i].y, sink_of(&a, p.b, at.head));
        x = add_part(float4_of(0, 0, 0, 0), x, weight);
        store_result(&a, p.seq.q_batch, at.head, at.token, channel, x, total_factor(&t));
        if (channel == 0) store_lse_of(&a, p.seq.q_batch, at.head, at.token, &t);
    }
}

#endif
