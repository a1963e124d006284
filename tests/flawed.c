/* flawed.c: see flawed.h. One row at a time, blocks of 16 keys, f32, P in q's dtype: what a kernel
 * does, without its speed. */
#include "flawed.h"
#include "base/dtype.h"
#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16, CHANNELS = 640 };

struct flawed {
    const rapt_attention *a;
    enum fault fault;
    int64_t b, h, g, i; /* row */
    int64_t q_length, length, capacity;
    float scale, softcap, sink;
    float out[CHANNELS], maximum, sum;
    int64_t seen;
};

static float load(const rapt_tensor *t, int64_t b, int64_t h, int64_t s, int64_t c)
{
    return load_float(t->data, t->dtype, tensor_offset(t, b, h, s, c));
}

static float round_to(float x, int64_t dtype)
{
    if (dtype == RAPT_F16) return float_from_f16(f16_from_float(x));
    return dtype == RAPT_BF16 ? float_from_bf16(bf16_from_float(x)) : x;
}

static float tf32(float x)
{
    return float_from_bits(bits_from_float(x) & 0xffffe000u);
}

static int64_t offset_of(const struct flawed *f)
{
    bool top_left = (f->a->align == RAPT_TOP_LEFT) != (f->fault == FAULT_wrong_alignment);
    return top_left ? 0 : f->length - f->q_length;
}

static bool is_hidden(const struct flawed *f, int64_t j)
{
    const rapt_attention *a = f->a;
    int64_t position = f->i + offset_of(f), reach = position, left = a->window_left - 1,
            right = a->window_right - 1;
    if (f->fault == FAULT_causal_one_more) reach++;
    if (f->fault == FAULT_causal_one_less) reach--;
    if (f->fault == FAULT_window_left_one_more) left++;
    if (f->fault == FAULT_window_left_one_less) left--;
    if (f->fault == FAULT_window_right_one_more) right++;
    if (a->causal && j > reach) return true;
    if (a->window_left > 0 && position - j > left) return true;
    if (a->window_right > 0 && j - position > right) return true;
    if (f->fault == FAULT_last_key_dropped && j == f->length - 1) return true;
    if (f->fault == FAULT_late_block_dropped && f->length > 4096 && j / 64 == 39) return true;
    if (!a->mask.dtype || j >= f->length) return false;
    int64_t head = f->fault == FAULT_mask_of_head_0 ? 0 : f->h;
    bool shown = ((const uint8_t *)a->mask.data)[tensor_offset(&a->mask, f->b, head, f->i, j)] != 0;
    return shown == (f->fault == FAULT_mask_inverted);
}

static float cap(const struct flawed *f, float s)
{
    return f->softcap > 0 && f->fault != FAULT_softcap_ignored ? f->softcap * tanhf(s / f->softcap)
                                                               : s;
}

static float score(const struct flawed *f, int64_t j)
{
    const rapt_attention *a = f->a;
    int64_t channels = a->q.size[3] - (f->fault == FAULT_last_channel_dropped);
    bool zero = f->fault == FAULT_zero_tail && j >= f->length;
    float dot = 0;
    for (int64_t c = 0; c < channels && !zero; c++) {
        float q = load(&a->q, f->b, f->h, f->i, c), k = load(&a->k, f->b, f->g, j, c);
        dot += f->fault == FAULT_tf32_products ? tf32(q) * tf32(k) : q * k;
    }
    float s = dot * f->scale;
    if (f->fault != FAULT_softcap_after_bias) s = cap(f, s);
    if (a->bias.dtype && j < f->length) s += load(&a->bias, f->b, f->h, f->i, j);
    if (a->alibi_slope.dtype) {
        int64_t offset = f->fault == FAULT_alibi_without_offset ? 0 : offset_of(f);
        float term = load(&a->alibi_slope, f->b, f->h, 0, 0) * fabsf((float)(f->i + offset - j));
        s -= f->fault == FAULT_alibi_scaled ? term * f->scale : term;
    }
    return f->fault == FAULT_softcap_after_bias ? cap(f, s) : s;
}

static float exponential(const struct flawed *f, float s, float m)
{
    if (f->fault == FAULT_base_2_weights) return exp2f(s - m);
    if (f->fault == FAULT_fused_exponent) {
        float log2e = 1.44269504f, scaled = m * log2e;
        return exp2f(fmaf(s, log2e, -scaled));
    }
    return expf(s - m);
}

static float weight_in_product(const struct flawed *f, float p)
{
    return round_to(p, f->fault == FAULT_bf16_weights ? RAPT_BF16 : f->a->q.dtype);
}

/* One block of keys: scores, the new maximum, rescale, sum and product with V. */
static void block(struct flawed *f, int64_t first, int64_t last)
{
    const rapt_attention *a = f->a;
    float s[BLOCK], maximum = f->maximum;
    int64_t dv = a->v.size[3], limit = last;
    if (f->fault == FAULT_unmasked_tail || f->fault == FAULT_zero_tail)
        limit = first + BLOCK < f->capacity ? first + BLOCK : f->capacity;
    for (int64_t j = first; j < limit; j++) {
        bool hidden = is_hidden(f, j);
        s[j - first] =
            hidden ? f->fault == FAULT_finite_minus_infinity ? -1e4f : -INFINITY : score(f, j);
        f->seen += !hidden;
        if (f->fault == FAULT_first_maximum_kept && f->maximum != -INFINITY) continue;
        maximum = fmaxf(maximum, s[j - first]);
    }
    float rescale = f->maximum == -INFINITY ? 0 : exponential(f, f->maximum, maximum);
    f->maximum = maximum;
    if (f->fault != FAULT_stale_sum) f->sum *= rescale;
    for (int64_t c = 0; c < dv && f->fault != FAULT_stale_rescale; c++) f->out[c] *= rescale;
    for (int64_t j = first; j < limit; j++) {
        float p = s[j - first] == -INFINITY ? 0 : exponential(f, s[j - first], maximum);
        bool zero = f->fault == FAULT_zero_tail && j >= f->length;
        f->sum += p;
        if (f->fault == FAULT_skipped_pv_block && first / BLOCK == 1) continue;
        if (p == 0 && is_hidden(f, j) && f->fault != FAULT_hidden_values_used) continue;
        for (int64_t c = 0; c < dv && !zero; c++) {
            f->out[c] += weight_in_product(f, p) * load(&a->v, f->b, f->g, j, c);
            if (f->fault == FAULT_half_output_sum)
                f->out[c] = round_to(f->out[c], a->q.dtype == RAPT_F32 ? RAPT_BF16 : a->q.dtype);
        }
    }
}

static void add_sink(struct flawed *f)
{
    float sink = f->fault == FAULT_sink_scaled ? f->sink * f->scale : f->sink;
    if (sink == -INFINITY) return;
    float maximum = fmaxf(f->maximum, sink),
          rescale = f->maximum == -INFINITY ? 0 : expf(f->maximum - maximum);
    f->sum = f->sum * rescale + expf(sink - maximum) * (f->fault == FAULT_sink_twice ? 2 : 1);
    for (int64_t c = 0; c < f->a->v.size[3]; c++) f->out[c] *= rescale;
    f->maximum = maximum;
}

static void store(struct flawed *f)
{
    const rapt_attention *a = f->a;
    float before_sink = f->maximum + logf(f->sum);
    add_sink(f);
    for (int64_t c = 0; c < a->v.size[3]; c++) {
        float x = f->sum > 0 || isnan(f->sum) ? f->out[c] / f->sum : 0;
        if (f->fault == FAULT_truncated_output && a->out.dtype == RAPT_BF16)
            x = float_from_bits(bits_from_float(x) & 0xffff0000u);
        if (f->fault == FAULT_truncated_output && a->out.dtype == RAPT_F16)
            x = float_from_bits(bits_from_float(x) & 0xffffe000u);
        store_float(a->out.data, a->out.dtype, tensor_offset(&a->out, f->b, f->h, f->i, c), x);
    }
    if (!a->lse.dtype) return;
    float lse = f->sum > 0 || isnan(f->sum) ? f->maximum + logf(f->sum) : -INFINITY;
    if (f->fault == FAULT_sink_not_in_lse && f->sink != -INFINITY) lse = before_sink;
    if (f->fault == FAULT_lse_base_2) lse *= 1.44269504f;
    store_float(a->lse.data, RAPT_F32, tensor_offset(&a->lse, f->b, f->h, f->i, 0), lse);
}

static void average_all(struct flawed *f)
{
    f->sum = (float)f->length;
    f->maximum = 0;
    for (int64_t j = 0; j < f->length; j++)
        for (int64_t c = 0; c < f->a->v.size[3]; c++) f->out[c] += load(&f->a->v, f->b, f->g, j, c);
}

static void clear(struct flawed *f)
{
    f->maximum = -INFINITY;
    f->sum = 0;
    f->seen = 0;
    memset(f->out, 0, sizeof f->out);
}

static void row(struct flawed *f)
{
    int64_t half = f->fault == FAULT_halves_averaged ? f->length / 2 / BLOCK * BLOCK : 0;
    float first[CHANNELS];
    clear(f);
    for (int64_t j = 0; j < half; j += BLOCK) block(f, j, j + BLOCK);
    if (half) {
        for (int64_t c = 0; c < f->a->v.size[3]; c++)
            first[c] = f->sum > 0 ? f->out[c] / f->sum : 0;
        clear(f);
    }
    for (int64_t j = half; j < f->length; j += BLOCK)
        block(f, j, j + BLOCK < f->length ? j + BLOCK : f->length);
    for (int64_t c = 0; c < f->a->v.size[3] && half; c++)
        f->out[c] = (f->out[c] + first[c] * f->sum) / 2;
    if (f->fault == FAULT_empty_row_average && !f->seen) average_all(f);
    store(f);
}

bool flawed_forward(const rapt_attention *a, enum fault fault)
{
    if (a->q_start.dtype || a->kv_start.dtype || a->page_table.dtype || a->k.dtype == RAPT_I8 ||
        a->weights.dtype)
        return false;
    if (a->q.size[3] > CHANNELS || a->v.size[3] > CHANNELS) return false;
    struct flawed *f = calloc(1, sizeof *f);
    if (!f) return false;
    f->a = a;
    f->fault = fault;
    f->scale = (float)(a->scale != 0 ? a->scale : 1 / sqrt((double)a->q.size[3]));
    if (fault == FAULT_scale_missing) f->scale = 1;
    if (fault == FAULT_scale_absolute) f->scale = fabsf(f->scale);
    f->softcap = (float)a->softcap;
    f->q_length = a->q.size[2];
    f->capacity = a->k.size[2];
    for (f->b = 0; f->b < a->q.size[0]; f->b++)
        for (f->h = 0; f->h < a->q.size[1]; f->h++)
            for (f->i = 0; f->i < a->q.size[2]; f->i++) {
                f->length = oracle_kv_length(a, f->b);
                f->g = fault == FAULT_kv_head_modulo ? f->h % a->k.size[1]
                                                     : f->h / (a->q.size[1] / a->k.size[1]);
                f->sink = a->sink.dtype ? load(&a->sink, f->b, f->h, 0, 0) : -INFINITY;
                row(f);
            }
    free(f);
    return true;
}
