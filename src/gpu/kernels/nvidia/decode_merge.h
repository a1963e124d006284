/* decode_merge.h: what a warp of decode_mma.cu sums up, and how a block merges its warps and writes
 * the result. */
#ifndef RAPT_DECODE_MERGE_H
#define RAPT_DECODE_MERGE_H

#include "nvidia/decode.h"

/* Of the lane's rows: sums of weights times values, maxima (log2 units), the lane's sums of weights. */
struct state {
    float o[RT][CT][4], m[ROWS], l[ROWS];
#if KV_I8 && DTYPE == DTYPE_f16
    float shrink[ROWS][SCALES]; /* o: times that, see raise_units */
#endif
};

DEVICE float value_unit(const struct state *st, int r, int tile)
{
#if KV_I8 && DTYPE == DTYPE_f16
    return float_of(0x7f000000u - bits_of(st->shrink[r][tile / (CT / SCALES)])); /* powers of two */
#else
    return 1;
#endif
}

DEVICE int is_special(uint32_t h)
{
    uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) == exponent;
}

/* 0 * NaN is NaN: a value that is not finite must not meet the weight 0 of a row that does not see
 * its key. Where a tile has keys that only some rows see, such values become 0, and add_special adds
 * them to the rows that do. Whether there were any. */
DEVICE int clear_special(const struct part *p, int key, uint32_t v_tile)
{
    int found = 0, end = smaller(key + KEYS, p->end); /* behind p->end are zeros */
#pragma unroll 1
    for (int own = key; own < end; own++) {
        if (own >= p->all_first && own < p->all_end) {
            own = p->all_end - 1;
            continue;
        }
        UNROLL for (int i = 0; i < D / 64; i++)
        {
            uint32_t at = v_tile + ((own - key) * (D / 2) + i * 32 + THREAD % 32) * 4,
                     two = load_word(at), low = is_special(two), high = is_special(two >> 16);
            if (!(low | high)) continue;
            store_word(at, (low ? 0 : two & 0xffff) | (high ? 0 : two & 0xffff0000u));
            found = 1;
        }
    }
    wave_barrier();
    return found;
}

/* Four channels of a value in memory: what of it is not finite. */
DEVICE float4 special_values(const struct attention_args *a, const struct part *p, int key,
                             int channel)
{
    int batch = p->seq.kv_batch, token = p->seq.kv_start + key;
    if (a->page_table.data) {
        int page = page_index(a, key);
        batch = (int)load_index(&a->page_table, p->b, page);
        token = key - page * a->page_tokens;
    }
    const char *from = row_at(&a->v, batch, p->kv_head, token, 2) + channel * 2;
    float4 x = unpack_four(LOAD(uint2, from), DTYPE);
    return float4_of(is_finite(x.x) ? 0 : x.x, is_finite(x.y) ? 0 : x.y, is_finite(x.z) ? 0 : x.z,
                     is_finite(x.w) ? 0 : x.w);
}

DEVICE float4 add_special(const struct attention_args *a, const struct part *p, int query,
                          int channel, float4 o)
{
    struct span row = span_of_query(a, &p->seq, query);
#pragma unroll 1
    for (int key = larger(p->first, row.first); key < smaller(p->end, row.end); key++) {
        if (key >= p->all_first && key < p->all_end) key = p->all_end; /* those all rows see */
        if (key >= smaller(p->end, row.end)) break;
        o = add_part(o, special_values(a, p, key, channel), 1);
    }
    return o;
}

DEVICE float *sums_of_warp(int warp)
{
    return (float *)((char *)shared_memory + warp * RING_BYTES);
}

/* The warp's state to its ring. */
DEVICE void leave_state(const struct state *st)
{
    float *sums = sums_of_warp(THREAD / 32), *ends = sums + BLOCK_ROWS * SUMS_PITCH;
    int t = THREAD % 4;
    wave_barrier();
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        int row = row_of_lane(r);
        float l = sum_of_quad(st->l[r]);
        UNROLL for (int c = 0; c < CT; c += 2)
        {
            const float *x = st->o[r / 2][c] + r % 2 * 2, *y = st->o[r / 2][c + 1] + r % 2 * 2;
            float *to = sums + row * SUMS_PITCH + c * 8;
            if (KV_I8) { /* see add_values */
                float unit = value_unit(st, r, c);
                *(float4 *)(to + t * 4) =
                    float4_of(x[0] * unit, y[0] * unit, x[1] * unit, y[1] * unit);
                continue;
            }
            *(float2 *)(to + t * 2) = make_float2(x[0], x[1]);
            *(float2 *)(to + t * 2 + 8) = make_float2(y[0], y[1]);
        }
        if (t == 0) *(float2 *)(ends + row * 2) = make_float2(st->m[r], l);
    }
}

/* Four channels of a row, of all warps. */
struct merged {
    float m, l;
    float4 o;
};

/* In the order of the warps. */
DEVICE struct merged merge_warps(int row, int channel)
{
    float2 ends[WARPS];
    struct merged x = {-INFINITY, 0, float4_of(0, 0, 0, 0)};
    UNROLL for (int w = 0; w < WARPS; w++)
    {
        ends[w] = *(const float2 *)(sums_of_warp(w) + BLOCK_ROWS * SUMS_PITCH + row * 2);
        x.m = maximum(x.m, ends[w].x);
    }
    UNROLL for (int w = 0; w < WARPS; w++)
    {
        float weight = exp2_fast(ends[w].x - exponent_base(x.m));
        x.l = fused(ends[w].y, weight, x.l);
        x.o =
            add_part(x.o, *(const float4 *)(sums_of_warp(w) + row * SUMS_PITCH + channel), weight);
    }
    return x;
}

DEVICE void write_result(const struct attention_args *a, const struct part *p,
                         const struct own_rows *rows, int head, int query, int channel,
                         const struct merged *x)
{
    struct total t;
    float weight = total_of_one(&t, x->m, x->l, sink_of(a, p->b, head));
    float4 o = add_part(float4_of(0, 0, 0, 0), x->o, weight);
    int token = rows->q_start + query;
    store_result(a, rows->q_batch, head, token, channel, o, total_factor(&t));
    if (channel == 0) store_lse_of(a, rows->q_batch, head, token, &t);
}

/* The result where the keys have one part, else what the block leaves for NAME_combine. A thread
 * takes the same four channels of several rows. */
DEVICE void write_rows(const struct attention_args *a, const struct part *p, int special)
{
    struct own_rows rows = rows_of_block(a, p->b);
    int channel = THREAD % (D / 4) * 4, some = p->first < p->end;
    int64_t first = partial_row(a, rows.q_batch, p->kv_head * a->group, rows.q_start);
    char *values = (char *)partial_out_at(a, rows.number, first, channel),
         *ends = (char *)partial_lse_at(a, rows.number, first);
#pragma unroll 1
    for (int i = THREAD / (D / 4); i < rows.count; i += THREADS / (D / 4)) {
        int row = rows.first + i, query = query_of_row(p, row), head = row - query * a->group;
        struct merged x = merge_warps(i, channel);
        if (!KV_I8 && RARE(special)) x.o = add_special(a, p, query, channel, x.o);
        if (a->splits == 1) {
            write_result(a, p, &rows, p->kv_head * a->group + head, query, channel, &x);
            continue;
        }
        int at = head * a->q_tokens + query;
        if (some) STORE(float4, values + at * (D * 4), x.o);
        if (channel == 0) STORE(float2, ends + at * 8, make_float2(x.m, some ? x.l : NO_KEYS));
    }
}

#endif
