/* sm90_store.h: a finished tile to memory: output divided by the row sums, from registers, some
 * rows' by way of shared memory, and the log-sum-exp. */
#ifndef RAPT_NVIDIA_SM90_STORE_H
#define RAPT_NVIDIA_SM90_STORE_H

#include "sm90_lead.h"
#include "sm90_mask.h"
#include "sm90_softmax.h"

/* Factor of a lane's row and its log-sum-exp, from sum and reference (in log2 units, -inf: nothing
 * seen). */
struct row_result {
    float factor, lse;
};

DEVICE struct row_result finish_row(float sum, float reference)
{
    struct row_result f;
    f.factor = sum == 0             ? 0.f /* NaN stays NaN */
               : DTYPE == DTYPE_f32 ? __frcp_rn(sum)
                                    : __fdividef(1.f, sum);
    f.lse = sum == 0 ? -INFINITY : __fmul_rn(__fadd_rn(reference, __log2f(sum)), LN2);
    return f;
}

/* A sink is one more logit, without a value; both parts are brought to the larger of the two
 * references. fmaxf() passes over a sink of NaN, which makes both results NaN all the same. */
DEVICE struct row_result finish_row_sink(float sum, float reference, float sink)
{
    if (reference == -INFINITY && sink == -INFINITY) return finish_row(sum, reference);
    float top = fmaxf(reference, sink);
    float decay = exp2_approx(reference - top),
          total = __fmaf_rn(sum, decay, exp2_approx(sink - top));
    struct row_result f;
    f.factor = DTYPE == DTYPE_f32 ? __fmul_rn(decay, __frcp_rn(total)) : __fdividef(decay, total);
    f.lse = __fmul_rn(__fadd_rn(top, __log2f(total)), LN2);
    return f;
}

/* 32 columns of the lane's two rows, of which the first `blocks` times 8 exist: after a transpose
 * inside each group of four lanes, lane c of the group holds columns 8c ... 8c + 7 of both rows:
 * x[0..3] of row r, x[4..7] of row r + 8. */
DEVICE void gather_columns(const float *o, int blocks, float factor0, float factor1, int lane,
                           uint32_t (&x)[8])
{
    bool odd = lane & 1, high = lane & 2;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        x[j] = j < blocks ? pack2(o[4 * j] * factor0, o[4 * j + 1] * factor0) : 0;
        x[4 + j] = j < blocks ? pack2(o[4 * j + 2] * factor1, o[4 * j + 3] * factor1) : 0;
    }
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
        uint32_t other = __shfl_xor_sync(~0u, odd ? x[j] : x[j + 1], 1);
        if (odd) x[j] = other;
        else x[j + 1] = other;
    }
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            uint32_t other = __shfl_xor_sync(~0u, high ? x[j + e] : x[j + e + 2], 2);
            if (high) x[j + e] = other;
            else x[j + e + 2] = other;
        }
    }
}

/* NaN in a half of x makes sure that the sum's half is NaN; it starts from 0 and else stays 0. (Inf
 * does so too: 0 * Inf.) */
DEVICE uint32_t poison2(uint32_t x, uint32_t sum)
{
    uint32_t y;
#if DTYPE != DTYPE_f16
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(x), "r"(0), "r"(sum));
#else
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(x), "r"(0), "r"(sum));
#endif
    return y;
}

DEVICE bool poisoned2(uint32_t sum)
{
    return (sum & 0x7fff7fff) != 0;
}

/* Eight elements at `to`, of which `count` exist. The first to leave L2, for which K and V are the
 * better use. */
DEVICE void store_columns(uint16_t *to, const uint32_t *x, int count)
{
#if PANEL_MAPS
    if (count < 8) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) to[i] = (uint16_t)(x[i / 2] >> (16 * (i & 1)));
        return;
    }
#endif
    __stcs((uint4 *)to, make_uint4(x[0], x[1], x[2], x[3]));
}

#if FEATURES || DTYPE == DTYPE_f32
DEVICE bool any_nan(const float (&o)[VALUES / 2])
{
    float sum = 0;
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) sum = fmaf(o[i], 0, sum);
    return sum != sum;
}

#if FEATURES && !SPLIT_KEYS && PARTS == 1
DEVICE void store_f32(const float (&o)[VALUES / 2], float factor0, float factor1, float *out,
                      int64_t row_stride, bool row0, bool row1, int channel, int channels,
                      int lead = 0)
{
    asm volatile(""
                 : "+r"(channel)); /* or the compiler keeps every channel's number in registers */
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++) {
        if (LEADS && i == 0 && lead > 0) continue;
        float2 x = make_float2(o[4 * i] * factor0, o[4 * i + 1] * factor0),
               y = make_float2(o[4 * i + 2] * factor1, o[4 * i + 3] * factor1);
        float *at = out + 8 * i + channel, *below = at + 8 * row_stride;
        if (8 * i + channel < channels && row0) at[0] = x.x;
        if (8 * i + channel + 1 < channels && row0) at[1] = x.y;
        if (8 * i + channel < channels && row1) below[0] = y.x;
        if (8 * i + channel + 1 < channels && row1) below[1] = y.y;
    }
}
#else
/* The second launch reads sums of parts, nobody a result. */
#if SPLIT_KEYS
#define STORE_LAST ""
#else
#define STORE_LAST ".cs"
#endif
/* Predicated: a branch for each store would keep the exchanges from running side by side. */
DEVICE void store_if(bool exists, float *to, const float4 &x)
{
    asm volatile("{.reg .pred p; setp.ne.s32 p, %0, 0; "
                 "@p st.global" STORE_LAST ".v4.f32 [%1], {%2, %3, %4, %5};}"
                 :
                 : "r"((int)exists), "l"(to), "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w)
                 : "memory");
}

/* Rows are 16-byte aligned, and their channels, with parts a multiple of four, else all that the
 * tile has. Two lanes exchange halves of two 8-column blocks, so that each stores four columns of
 * one of them. */
DEVICE void store_f32(const float (&o)[VALUES / 2], float factor0, float factor1, float *out,
                      int64_t row_stride, bool row0, bool row1, int channel, int channels,
                      int lead = 0)
{
    bool odd = channel & 2;
    int first = odd ? channel + 6 : channel;
    out += first;
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++) { /* of row i % 2 */
        const float *x = o + i / 2 * 8 + i % 2 * 2;
        float factor = i % 2 ? factor1 : factor0, a = x[0] * factor, b = x[1] * factor,
              c = x[4] * factor, d = x[5] * factor, e = __shfl_xor_sync(~0u, odd ? a : c, 1),
              f = __shfl_xor_sync(~0u, odd ? b : d, 1);
        float4 y = odd ? make_float4(e, f, c, d) : make_float4(a, b, e, f);
        bool exists = !(FEATURES && PARTS > 1) || i / 2 * 16 + first < channels;
        store_if(exists && (i % 2 ? row1 : row0), out + i / 2 * 16 + (i % 2 ? 8 * row_stride : 0),
                 y);
    }
}
#endif
#endif

#if LINES
/* 64 columns of the warp's 16 rows to shared memory at `lines`, where 16-byte column c of row r
 * lies at column c ^ (r % 8). */
DEVICE void lay_lines(const float *o, float factor0, float factor1, int lane, uint32_t lines,
                      uint32_t &poison0, uint32_t &poison1)
{
    uint32_t to = lines + (lane & 15) * 128 + (((lane >> 4) ^ (lane & 7)) << 4);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t x[4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float *y = o + 8 * i + 4 * j;
            x[2 * j] = pack2(y[0] * factor0, y[1] * factor0);
            x[2 * j + 1] = pack2(y[2] * factor1, y[3] * factor1);
            poison0 = poison2(x[2 * j], poison0);
            poison1 = poison2(x[2 * j + 1], poison1);
        }
        stmatrix4(to ^ i << 5, x);
    }
}
#endif

#if LINES == 2
/* The warp's 16 rows, the first of them `token`, by one tensor copy, which leaves out those behind
 * the last one; it reads what lies at `lines` until the warp's next tile. */
DEVICE void store_copied(const float *o, float factor0, float factor1, const struct tensor_map *map,
                         int token, int head, int batch, int lane, uint32_t lines,
                         uint32_t &poison0, uint32_t &poison1)
{
    tma_store_wait_read();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < V_PANELS; i++)
        lay_lines(o + 32 * i, factor0, factor1, lane, lines + 2048 * i, poison0, poison1);
    async_proxy_fence();
    __syncwarp();
    if (lane == 0) tma_store_5d(map, lines, 0, token, 0, head, batch, L2_EVICT_FIRST);
    tma_store_commit();
}
#elif LINES
/* 64 columns of the warp's 16 rows, which begin at `out` and of which `rows` exist, by way of
 * shared memory at `lines`. */
DEVICE void store_lines(const float *o, float factor0, float factor1, uint16_t *out,
                        int64_t row_stride, int rows, int lane, uint32_t lines, uint32_t &poison0,
                        uint32_t &poison1)
{
    lay_lines(o, factor0, factor1, lane, lines, poison0, poison1);
    __syncwarp();
    int row = lane >> 3;
    uint32_t from = lines + row * 128 + (((lane & 7) ^ row) << 4);
    out += row * row_stride + (lane & 7) * 8;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int x[4];
        shared_load4((from ^ (i & 1) << 6) + 512 * i, x[0], x[1], x[2], x[3]);
        if (row + 4 * i < rows) __stcs((int4 *)out, make_int4(x[0], x[1], x[2], x[3]));
        out += 4 * row_stride;
    }
    __syncwarp();
}
#endif

/* The lane's two rows, the second `down` behind `out`, by an exchange among lanes. channels: with
 * the `lead` columns before the first, which are left out. */
DEVICE void store_rows(const float (&o)[VALUES / 2], float factor0, float factor1, uint16_t *out,
                       int64_t down, bool row0, bool row1, int lane, int channels, int lead,
                       uint32_t &poison0, uint32_t &poison1)
{
#pragma unroll
    for (int i = 0; i < (DV + 31) / 32; i++) {
        uint32_t x[8];
        int count = PANEL_MAPS ? channels - 32 * i - (lane & 3) * 8 : 8;
        bool leads = LEADS && i == 0 && (lane & 3) * 8 < lead;
        gather_columns(o + 16 * i, VALUES / 8 - 4 * i, factor0, factor1, lane, x);
        if (row0 && !leads) store_columns(out + 32 * i, x, count);
        if (row1 && !leads) store_columns(out + 32 * i + down, x + 4, count);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            poison0 = poison2(x[j], poison0);
            poison1 = poison2(x[4 + j], poison1);
        }
    }
}

/* A row whose weights add up to NaN sees a NaN score: no repair changes that. (Tall tiles have no
 * register for the question and repair in vain; where heads lie beside others the NaN may be
 * theirs; where a bias can be low such a sum says more,
 * sm90_low.h.) */
DEVICE bool mendable(float sum)
{
    return PARTS > 1 || GROUPS > 2 || LOW_ROWS || LEADS || sum == sum;
}

/* A row without a reference whose weights do not add up to 0: its first block had scores of -inf
 * alone and a later one had others, which were not weighed against a maximum; or all of them are
 * -inf and were subtracted from themselves. (In tall tiles, which walk down, its output is NaN.) */
DEVICE bool unset(float sum, float reference)
{
    return PARTS == 1 && GROUPS <= 2 && reference == -INFINITY && !(sum == 0);
}

/* In units of log2; -inf: none. */
DEVICE float tile_sink(const struct attention_args &a, const struct tile &t)
{
    if (!FEATURES || !a.sink.data) return -INFINITY;
    return ((const float *)a.sink.data)[t.batch * a.sink.stride[0] + t.head * a.sink.stride[1]] *
           LOG2E;
}

#if PARTS > 1
/* Rows without weights: their product is NaN where a value is; and so is their result if a sink
 * makes their sum other than 0. */
DEVICE void clear_weightless(float (&o)[VALUES / 2], float sum0, float sum1)
{
    if (!__any_sync(~0u, (sum0 == 0) | (sum1 == 0))) return;
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++)
        if ((i & 2 ? sum1 : sum0) == 0) o[i] = 0;
}
#endif

#if !SPLIT_KEYS
/* row: the lane's first row within the tile. scale: log2 units per unit of the references. IN_LINES:
 * by way of `lines` and with LINES 2 out_map. True if something that was stored is not finite or not
 * right, or rows behind the last one are not. */
template <bool IN_LINES = false>
DEVICE bool store_tile(const struct attention_args &a, const struct tile &t, float (&o)[VALUES / 2],
                       struct row_state r, float scale, int row, int lane, uint32_t lines = 0,
                       const struct tensor_map *out_map = nullptr)
{
    r.sum0 += __shfl_xor_sync(~0u, r.sum0, 2);
    r.sum1 += __shfl_xor_sync(~0u, r.sum1, 2);
    r.sum0 += __shfl_xor_sync(~0u, r.sum0, 1);
    r.sum1 += __shfl_xor_sync(~0u, r.sum1, 1);
#if PARTS > 1
    if (tile_sink(a, t) == -INFINITY) clear_weightless(o, r.sum0, r.sum1);
#endif
    float top0 = __fmul_rn(r.reference0, scale), top1 = __fmul_rn(r.reference1, scale);
    struct row_result f0 = finish_row(r.sum0, top0), f1 = finish_row(r.sum1, top1);
    int q = t.rows * ROWS + row, tokens = q_tokens(a, &t), batch = t.batch;
    int64_t token = q;
#if FEATURES
    if (a.sink.data) {
        float sink = tile_sink(a, t);
        f0 = finish_row_sink(r.sum0, top0, sink);
        f1 = finish_row_sink(r.sum1, top1, sink);
    }
    token += t.q_start;
    if (a.q_start.data) batch = 0;
#endif
    if (PARTS == 2) { /* V came in times 2^14 */
        f0.factor *= 0x1p-14f;
        f1.factor *= 0x1p-14f;
    }
    int64_t at = batch * a.out.stride[0] + t.head * a.out.stride[1] + token * a.out.stride[2],
            down = 8 * a.out.stride[2];
    const int lead = LEADS ? value_lead(leads_of(a, t.head / a.group)) : 0;
    bool row0 = q < tokens;
    bool row1 = q + 8 < tokens;
    bool wrong = (row0 && unset(r.sum0, r.reference0)) || (row1 && unset(r.sum1, r.reference1));
    if (!TRACE && a.lse.data && (lane & 3) == 0) {
        float *lse = (float *)a.lse.data + batch * a.lse.stride[0] + t.head * a.lse.stride[1] +
                     token * a.lse.stride[2];
        if (row0) *lse = f0.lse;
        if (row1) lse[8 * a.lse.stride[2]] = f1.lse;
    }
#if FEATURES || DTYPE == DTYPE_f32
    if (DTYPE == DTYPE_f32 || a.out.dtype == DTYPE_f32) {
        store_f32(o, f0.factor, f1.factor, (float *)a.out.data + at - lead, a.out.stride[2], row0,
                  row1, 2 * (lane & 3), a.v_channels + lead, lead);
        if (LOW_ROWS) /* whose o may be finite: sm90_low.h */
            wrong |= (row0 && r.sum0 != r.sum0) || (row1 && r.sum1 != r.sum1);
        return wrong || ((mendable(r.sum0) || mendable(r.sum1)) && any_nan(o));
    }
#endif
    bool look0 = row0 && mendable(r.sum0), look1 = row1 && mendable(r.sum1);
    uint32_t poison0 = 0, poison1 = 0;
    uint16_t *out = (uint16_t *)a.out.data + at - lead;
#if LINES
    if (IN_LINES) {
#if LINES == 2
        store_copied(o, f0.factor, f1.factor, out_map, q - (lane >> 2), t.head, batch, lane, lines,
                     poison0, poison1);
#else
#pragma unroll
        for (int i = 0; i < DV / 64; i++)
            store_lines(o + 32 * i, f0.factor, f1.factor,
                        out - (lane >> 2) * a.out.stride[2] + 64 * i, a.out.stride[2],
                        tokens - q + (lane >> 2), lane, lines, poison0, poison1);
#endif
        return wrong || (look0 && poisoned2(poison0)) || (look1 && poisoned2(poison1));
    }
#endif
    store_rows(o, f0.factor, f1.factor, out + (lane & 3) * 8, down, row0, row1, lane,
               a.v_channels + lead, lead, poison0, poison1);
    return wrong || (look0 && poisoned2(poison0)) || (look1 && poisoned2(poison1));
}
#endif

#endif
