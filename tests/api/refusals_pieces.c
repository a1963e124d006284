/* refusals_pieces.c: what the separate operations refuse, with the sentence, and that nothing is
 * written. */
#include "api.h"

#include <math.h>

static rapt_context *context;
static rapt_device *device;

enum { WIDE = 100000 };
static float x[4096], y[4096], out[4096], more[4096], wide[4 * WIDE];
static int32_t indices[64];

/* One call of any piece, bent by a row. */
struct pieces {
    rapt_rope_args rope;
    rapt_softmax_args softmax;
    rapt_qk_args qk;
    rapt_pv_args pv;
    rapt_causal_mask_args causal_mask;
    rapt_kv_replicate_args kv_replicate;
    rapt_kv_append_args kv_append;
    rapt_rope_args append_rope;
};

static void straighten(struct pieces *p)
{
    rapt_tensor a = rapt_tensor_bhtd(x, RAPT_F32, 2, 4, 3, 8),
                b = rapt_tensor_bhtd(out, RAPT_F32, 2, 4, 3, 8);
    rapt_tensor k = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 5, 8),
                scores = rapt_tensor_bhtd(out, RAPT_F32, 2, 4, 3, 5);
    memset(p, 0, sizeof *p);
    memset(out, 0xff, sizeof out);
    memset(more, 0xff, sizeof more);
    p->rope = (rapt_rope_args){.struct_size = sizeof p->rope, .x = a, .out = b};
    p->softmax = (rapt_softmax_args){.struct_size = sizeof p->softmax, .x = a, .out = b};
    p->qk = (rapt_qk_args){.struct_size = sizeof p->qk, .q = a, .k = k, .out = scores};
    p->pv = (rapt_pv_args){.struct_size = sizeof p->pv,
                           .weights = rapt_tensor_bhtd(x, RAPT_F32, 2, 4, 3, 5),
                           .v = k,
                           .out = b};
    p->causal_mask = (rapt_causal_mask_args){.struct_size = sizeof p->causal_mask, .x = b};
    p->kv_replicate =
        (rapt_kv_replicate_args){.struct_size = sizeof p->kv_replicate,
                                 .k = k,
                                 .v = rapt_tensor_bhtd(x, RAPT_F32, 2, 2, 5, 8),
                                 .k_out = rapt_tensor_bhtd(out, RAPT_F32, 2, 4, 5, 8),
                                 .v_out = rapt_tensor_bhtd(more, RAPT_F32, 2, 4, 5, 8)};
    p->kv_append = (rapt_kv_append_args){.struct_size = sizeof p->kv_append,
                                         .k_new = rapt_tensor_bhtd(x, RAPT_F32, 2, 2, 3, 8),
                                         .v_new = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 3, 8),
                                         .k = rapt_tensor_bhtd(out, RAPT_F32, 2, 2, 9, 8),
                                         .v = rapt_tensor_bhtd(more, RAPT_F32, 2, 2, 9, 8)};
    p->append_rope = (rapt_rope_args){.struct_size = sizeof p->append_rope};
    memset(indices, 0, sizeof indices);
}

enum piece { rope, softmax, qk, pv, causal_mask, kv_replicate, kv_append };

static rapt_status run(enum piece piece, const struct pieces *p, rapt_device *on)
{
    switch (piece) {
    case rope:
        return rapt_rope(on, &p->rope, NULL);
    case softmax:
        return rapt_softmax(on, &p->softmax, NULL);
    case qk:
        return rapt_qk(on, &p->qk, NULL);
    case pv:
        return rapt_pv(on, &p->pv, NULL);
    case causal_mask:
        return rapt_causal_mask(on, &p->causal_mask, NULL);
    case kv_replicate:
        return rapt_kv_replicate(on, &p->kv_replicate, NULL);
    default:
        return rapt_kv_append(on, &p->kv_append, NULL);
    }
}

#define BEND(name, statement)                                                                      \
    static void name(struct pieces *p)                                                             \
    {                                                                                              \
        statement;                                                                                 \
    }
BEND(rope_size, p->rope.struct_size = 8)
BEND(rope_dtype, p->rope.x.dtype = RAPT_I8)
BEND(rope_shape, p->rope.out.size[2] = 2)
BEND(rope_odd_width, p->rope.rotary_channels = 3)
BEND(rope_wide, p->rope.rotary_channels = 10)
BEND(rope_narrow, p->rope.rotary_channels = -2)
BEND(rope_overlap, p->rope.out.data = x + 8)
BEND(rope_over_position, p->rope.position = rapt_tensor_bhtd(out, RAPT_I32, 2, 1, 3, 1))
BEND(rope_over_cos, p->rope.cos = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 9, 4);
     p->rope.sin = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4))
BEND(rope_over_sin, p->rope.cos = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4);
     p->rope.sin = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 9, 4))
BEND(rope_repeats, p->rope.out.stride[3] = 0)
BEND(rope_interleaved, p->rope.interleaved = 2)
BEND(rope_scaling, p->rope.scaling = RAPT_ROPE_LLAMA3 + 1)
BEND(rope_scaling_low, p->rope.scaling = -1)
BEND(rope_factor, p->rope.scaling = RAPT_ROPE_LINEAR; p->rope.factor = 0.5)
BEND(rope_factor_infinite, p->rope.scaling = RAPT_ROPE_NTK; p->rope.factor = INFINITY)
BEND(rope_factor_plain, p->rope.factor = 4)
BEND(rope_factor_plain_low, p->rope.factor = 0.5)
BEND(rope_context, p->rope.scaling = RAPT_ROPE_YARN; p->rope.factor = 4;
     p->rope.original_context = 0.5)
BEND(rope_context_llama3, p->rope.scaling = RAPT_ROPE_LLAMA3; p->rope.factor = 4;
     p->rope.original_context = 0.5)
BEND(rope_theta, p->rope.theta = -3)
BEND(rope_theta_one, p->rope.theta = 1)
BEND(rope_theta_infinite, p->rope.theta = INFINITY)
BEND(rope_cos_alone, p->rope.cos = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4))
BEND(rope_position_f32, p->rope.position = rapt_tensor_bhtd(y, RAPT_F32, 2, 1, 3, 1))
BEND(rope_position_short, p->rope.position = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 2, 1))
BEND(rope_null, p->rope.x.data = NULL)
BEND(rope_odd_head, p->rope.x.size[3] = p->rope.out.size[3] = 7)
BEND(rope_extent, p->rope.x.stride[0] = INT64_MAX)
BEND(rope_long, p->rope.x = rapt_tensor_bhtd(x, RAPT_F32, 1, 1, 1, 2050);
     p->rope.out = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 1, 2050))
BEND(rope_frequencies, p->rope.high_freq_factor = 0.5)
BEND(rope_frequencies_low, p->rope.low_freq_factor = 4)
BEND(rope_frequencies_negative, p->rope.low_freq_factor = -1)
BEND(rope_betas, p->rope.beta_fast = 0.5)
BEND(rope_betas_slow, p->rope.beta_slow = 32)
BEND(rope_betas_negative, p->rope.beta_slow = -2)
BEND(rope_attention, p->rope.attention_factor = -1)
BEND(rope_untruncated, p->rope.untruncated = 2)
BEND(rope_untruncated_low, p->rope.untruncated = -1)
BEND(rope_table_f16, p->rope.cos = p->rope.sin = rapt_tensor_bhtd(y, RAPT_F16, 1, 1, 9, 4))
BEND(rope_table_sin, p->rope.cos = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4);
     p->rope.sin = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 8, 4))
BEND(rope_table_wide, p->rope.cos = p->rope.sin = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 8))
BEND(rope_table_short, indices[4] = 9;
     p->rope.position = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 3, 1);
     p->rope.cos = p->rope.sin = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4))
BEND(rope_table_negative, indices[4] = -1;
     p->rope.position = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 3, 1);
     p->rope.cos = p->rope.sin = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4))
BEND(softmax_shape, p->softmax.out.size[3] = 7)
BEND(softmax_overlap, p->softmax.out.data = x + 1)
/* In place is the same view: what differs reads rows that are already written. */
BEND(softmax_over_other_dtype, p->softmax.out.data = x; p->softmax.out.dtype = RAPT_BF16)
BEND(softmax_over_other_strides, p->softmax.out.data = x; p->softmax.out.stride[0] = 24;
     p->softmax.out.stride[1] = 48)
BEND(softmax_misaligned, p->softmax.x.data = (char *)x + 1)
BEND(softmax_repeats, p->softmax.out.stride[2] = 0)
BEND(qk_heads, p->qk.k.size[1] = 3)
BEND(qk_no_heads, p->qk.k.size[1] = 0)
BEND(qk_channels, p->qk.k.size[3] = 7)
BEND(qk_shape, p->qk.out.size[3] = 4)
BEND(qk_scale, p->qk.scale = 1e308 * 10)
BEND(qk_dtype, p->qk.k.dtype = RAPT_U8)
BEND(qk_empty, p->qk.q.size[3] = p->qk.k.size[3] = 0)
BEND(qk_half, p->qk.q.dtype = RAPT_F16)
BEND(qk_over_q, p->qk.out.data = x)
BEND(qk_over_k, p->qk.out.data = y)
BEND(pv_tokens, p->pv.v.size[2] = 4)
BEND(pv_overlap, p->pv.out.data = x)
BEND(pv_over_v, p->pv.out.data = y)
BEND(causal_mask_align, p->causal_mask.align = 7)
BEND(causal_mask_null, p->causal_mask.x.data = NULL)
BEND(replicate_heads, p->kv_replicate.k_out.size[1] = p->kv_replicate.v_out.size[1] = 3)
BEND(replicate_dtype, p->kv_replicate.k_out.dtype = RAPT_F16)
BEND(replicate_dtype_v, p->kv_replicate.v.dtype = RAPT_BF16)
BEND(replicate_dtype_v_out, p->kv_replicate.v_out.dtype = RAPT_F16)
BEND(replicate_overlap, p->kv_replicate.v_out.data = out)
BEND(replicate_k_over_k, p->kv_replicate.k_out.data = y)
BEND(replicate_k_over_v, p->kv_replicate.k_out.data = x)
BEND(replicate_v_over_k, p->kv_replicate.v_out.data = y)
BEND(replicate_v_over_v, p->kv_replicate.v_out.data = x)
BEND(append_heads, p->kv_append.k.size[1] = 1)
BEND(append_channels, p->kv_append.v.size[3] = 4)
BEND(append_full, p->kv_append.k.size[2] = p->kv_append.v.size[2] = 2)
BEND(append_length, indices[0] = 7;
     p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_length_negative, indices[1] = -1;
     p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_page, indices[1] = 2;
     p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
/* Of three tokens the first alone lies in the page that is there. */
BEND(append_page_after, indices[1] = 5; indices[8] = indices[9] = 8;
     p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 2, 1);
     p->kv_append.kv_length = rapt_tensor_bhtd(indices + 8, RAPT_I32, 2, 1, 1, 1))
BEND(append_starts_empty, p->kv_append.q_start = rapt_tensor_bhtd(indices, RAPT_I32, 0, 1, 1, 1))
BEND(append_starts_falling, indices[1] = 2; indices[2] = 1;
     p->kv_append.k_new.size[0] = p->kv_append.v_new.size[0] = 1;
     p->kv_append.q_start = rapt_tensor_bhtd(indices, RAPT_I32, 3, 1, 1, 1))
BEND(append_page_empty, p->kv_append.k.size[2] = p->kv_append.v.size[2] = 0;
     p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_pages_overflow,
     p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1);
     p->kv_append.page_table.size[2] = INT32_MAX; p->kv_append.page_table.stride[2] = 0;
     p->kv_append.k.size[2] = p->kv_append.v.size[2] = (int64_t)1 << 24;
     p->kv_append.k.stride[2] = p->kv_append.v.stride[2] = 100)
BEND(append_negative_batch, p->kv_append.k_new.size[0] = -1)
BEND(rope_shares, p->rope.out.stride[1] = p->rope.out.stride[2])
BEND(append_mixed, p->kv_append.v_new.dtype = RAPT_F16)
BEND(append_mixed_cache, p->kv_append.v.dtype = RAPT_F16)
BEND(append_dtype, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_U8)
BEND(append_scale_dtype, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = p->kv_append.v_scale = rapt_tensor_bhtd(y, RAPT_F16, 2, 2, 9, 1))
BEND(append_scale_blocks, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = p->kv_append.v_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 3))
BEND(append_scale_empty, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 2);
     p->kv_append.v_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 0))
BEND(append_scale_absent, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 1))
/* Wider than the rows that a conversion holds. */
BEND(append_wide, p->kv_append.k_new = rapt_tensor_bhtd(wide, RAPT_F32, 1, 1, 1, WIDE);
     p->kv_append.v_new = rapt_tensor_bhtd(wide + WIDE, RAPT_F32, 1, 1, 1, WIDE);
     p->kv_append.k = rapt_tensor_bhtd(wide + 2 * WIDE, RAPT_F16, 1, 1, 1, WIDE);
     p->kv_append.v = rapt_tensor_bhtd(wide + 3 * WIDE, RAPT_F16, 1, 1, 1, WIDE))
BEND(append_layout, p->kv_append.kv_layout = RAPT_KV_BLOCKED)
BEND(append_overlap, p->kv_append.v.data = out)
BEND(append_over_new, p->kv_append.k_new.data = out)
BEND(append_over_lengths, p->kv_append.kv_length = rapt_tensor_bhtd(more, RAPT_I32, 2, 1, 1, 1))
BEND(append_over_positions, p->kv_append.rope = &p->append_rope;
     p->append_rope.position = rapt_tensor_bhtd(out, RAPT_I32, 2, 1, 3, 1))
BEND(append_over_sin, p->kv_append.rope = &p->append_rope;
     p->append_rope.cos = rapt_tensor_bhtd(wide, RAPT_F32, 1, 1, 9, 4);
     p->append_rope.sin = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 9, 4))
BEND(append_scale_over_new, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = rapt_tensor_bhtd(wide, RAPT_F32, 2, 2, 9, 1);
     p->kv_append.v_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 1))
BEND(append_scale_repeats, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = rapt_tensor_bhtd(wide, RAPT_F32, 2, 2, 9, 1);
     p->kv_append.v_scale = rapt_tensor_bhtd(wide + 100, RAPT_F32, 2, 2, 9, 1);
     p->kv_append.v_scale.stride[1] = 0)
BEND(append_lengths_short, p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 1, 1, 1, 1))
BEND(append_table_short, p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 1, 1, 1, 1))
BEND(append_starts_short, p->kv_append.q_start = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1);
     p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1);
     p->kv_append.k_new.size[0] = p->kv_append.v_new.size[0] = 1;
     p->kv_append.k.size[0] = p->kv_append.v.size[0] = 1)
BEND(append_positions_short, p->kv_append.rope = &p->append_rope;
     p->append_rope.position = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 2, 1))
BEND(append_layout_v, p->kv_append.kv_layout = RAPT_KV_BLOCKED;
     p->kv_append.k_new = p->kv_append.v_new = rapt_tensor_bhtd(x, RAPT_F32, 1, 1, 3, 32);
     p->kv_append.k = p->kv_append.v = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, 32, 32);
     p->kv_append.v.data = more; p->kv_append.v.stride[3] = 2)
BEND(append_scales_overlap, p->kv_append.k.dtype = p->kv_append.v.dtype = RAPT_I8;
     p->kv_append.k_scale = p->kv_append.v_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 1))
BEND(append_scales, p->kv_append.k_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 1))
BEND(append_rope_width, p->append_rope.rotary_channels = 12; p->kv_append.rope = &p->append_rope)
BEND(append_rope_factor, p->append_rope.factor = 4; p->kv_append.rope = &p->append_rope)
BEND(append_rope_untruncated, p->append_rope.untruncated = 2; p->kv_append.rope = &p->append_rope)

static const struct refusal {
    const char *name;
    enum piece piece;
    void (*bend)(struct pieces *p);
    const char *sentence; /* after the function's name; see says() */
} refusals[] = {
#define ROW(piece, name, words)                                                                    \
    {                                                                                              \
#name, piece, name, words                                                                  \
    }
    ROW(rope, rope_size, "struct_size is 8 (set it to sizeof of the struct, at least *)"),
    ROW(rope, rope_dtype, "x has dtype i8 (must be f32, f16 or bf16)"),
    ROW(rope, rope_shape, "out has size 2 on its token axis (must be 3)"),
    ROW(rope, rope_odd_width, "rotary_channels is 3 (even, from 0 to the head's 8 channels)"),
    ROW(rope, rope_wide, "rotary_channels is 10 (even, from 0 to the head's 8 channels)"),
    ROW(rope, rope_narrow, "rotary_channels is -2 (even, from 0 to the head's 8 channels)"),
    ROW(rope, rope_overlap, "out overlaps x (outputs need memory of their own)"),
    ROW(rope, rope_over_position, "out overlaps position (outputs need memory of their own)"),
    ROW(rope, rope_over_cos, "out overlaps cos (outputs need memory of their own)"),
    ROW(rope, rope_over_sin, "out overlaps sin (outputs need memory of their own)"),
    ROW(rope, rope_repeats, "out has stride 0 (an output cannot repeat)"),
    ROW(rope, rope_context_llama3,
        "original_context is 0.5 (at least 1 for YaRN and Llama 3 scaling, finite)"),
    ROW(rope, rope_interleaved, "interleaved is 2 (0 or 1)"),
    ROW(rope, rope_scaling, "scaling is 5 (a RAPT_ROPE_ value, 0 ... 4)"),
    ROW(rope, rope_scaling_low, "scaling is -1 (a RAPT_ROPE_ value, 0 ... 4)"),
    ROW(rope, rope_factor, "factor is 0.5 (at least 1, finite)"),
    ROW(rope, rope_factor_infinite, "factor is inf (at least 1, finite)"),
    ROW(rope, rope_factor_plain, "factor is 4 and scaling is RAPT_ROPE_PLAIN (plain: 0 or 1)"),
    ROW(rope, rope_factor_plain_low,
        "factor is 0.5 and scaling is RAPT_ROPE_PLAIN (plain: 0 or 1)"),
    ROW(rope, rope_context,
        "original_context is 0.5 (at least 1 for YaRN and Llama 3 scaling, finite)"),
    ROW(rope, rope_theta, "theta is -3 (over 1 and finite; 0: 10000)"),
    ROW(rope, rope_theta_one, "theta is 1 (over 1 and finite; 0: 10000)"),
    ROW(rope, rope_theta_infinite, "theta is inf (over 1 and finite; 0: 10000)"),
    ROW(rope, rope_cos_alone, "cos is given and sin is absent (give both or neither)"),
    ROW(rope, rope_position_f32, "position has dtype f32 (must be i32 or i64)"),
    ROW(rope, rope_position_short, "position has size 2 on its token axis (must be 3)"),
    ROW(rope, rope_null, "x has no data (its pointer is NULL)"),
    ROW(rope, rope_odd_head, "rotary_channels is 0, all 7 of the head (an even number turns)"),
    ROW(rope, rope_shares, "elements of out share memory (check its strides)"),
    ROW(rope, rope_extent, "the extent of x does not fit in 63 bits (check its strides)"),
    ROW(rope, rope_long, "rotary_channels is 2050 (at most 2048, the longest frequency table)"),
    ROW(rope, rope_frequencies,
        "low_freq_factor is 1 and high_freq_factor is 0.5 (0 ... high, finite; 0: 1 and 4)"),
    ROW(rope, rope_frequencies_low,
        "low_freq_factor is 4 and high_freq_factor is 4 (0 ... high, finite; 0: 1 and 4)"),
    ROW(rope, rope_frequencies_negative,
        "low_freq_factor is -1 and high_freq_factor is 4 (0 ... high, finite; 0: 1 and 4)"),
    ROW(rope, rope_betas, "beta_slow is 1 and beta_fast is 0.5 (0 ... fast, finite; 0: 1 and 32)"),
    ROW(rope, rope_betas_slow,
        "beta_slow is 32 and beta_fast is 32 (0 ... fast, finite; 0: 1 and 32)"),
    ROW(rope, rope_betas_negative,
        "beta_slow is -2 and beta_fast is 32 (0 ... fast, finite; 0: 1 and 32)"),
    ROW(rope, rope_attention, "attention_factor is -1 (0 or more, finite)"),
    ROW(rope, rope_untruncated, "untruncated is 2 (0 or 1)"),
    ROW(rope, rope_untruncated_low, "untruncated is -1 (0 or 1)"),
    ROW(rope, rope_table_f16, "cos has dtype f16 (must be f32)"),
    ROW(rope, rope_table_sin, "sin has size 8 on its token axis (must be 9)"),
    ROW(rope, rope_table_wide, "cos has size 8 on its channel axis (must be 4)"),
    ROW(rope, rope_table_short, "a position is 9 (cos and sin have rows 0 ... 8)"),
    ROW(rope, rope_table_negative, "a position is -1 (cos and sin have rows 0 ... 8)"),
    ROW(softmax, softmax_shape, "out has size 7 on its channel axis (must be 8)"),
    ROW(softmax, softmax_overlap, "out overlaps x (outputs need memory of their own)"),
    ROW(softmax, softmax_over_other_dtype, "out overlaps x (outputs need memory of their own)"),
    ROW(softmax, softmax_over_other_strides, "out overlaps x (outputs need memory of their own)"),
    ROW(softmax, softmax_misaligned, "x is not aligned to its elements (4 bytes)"),
    ROW(softmax, softmax_repeats, "out has stride 0 (an output cannot repeat)"),
    ROW(qk, qk_heads, "4 query heads and 3 KV heads (query heads must be a multiple of KV heads)"),
    ROW(qk, qk_no_heads,
        "4 query heads and 0 KV heads (query heads must be a multiple of KV heads)"),
    ROW(qk, qk_channels, "k has size 7 on its channel axis (must be 8)"),
    ROW(qk, qk_shape, "out has size 4 on its channel axis (must be 5)"),
    ROW(qk, qk_scale, "scale is inf (0, or of a magnitude from 2^-126 to 2^127)"),
    ROW(qk, qk_dtype, "k has dtype u8 (must be f32, f16 or bf16)"),
    ROW(qk, qk_empty, "q has no channels (at least 1)"),
    ROW(qk, qk_half, "q is f16 and k is f32 (k has q's dtype, or q is f32)"),
    ROW(qk, qk_over_q, "out overlaps q (outputs need memory of their own)"),
    ROW(qk, qk_over_k, "out overlaps k (outputs need memory of their own)"),
    ROW(pv, pv_tokens, "v has size 4 on its token axis (must be 5)"),
    ROW(pv, pv_overlap, "out overlaps weights (outputs need memory of their own)"),
    ROW(pv, pv_over_v, "out overlaps v (outputs need memory of their own)"),
    ROW(causal_mask, causal_mask_align, "align is 7 (RAPT_BOTTOM_RIGHT, 0, or RAPT_TOP_LEFT, 1)"),
    ROW(causal_mask, causal_mask_null, "x has no data (its pointer is NULL)"),
    ROW(kv_replicate, replicate_heads,
        "3 query heads and 2 KV heads (query heads must be a multiple of KV heads)"),
    ROW(kv_replicate, replicate_dtype, "k is f32 and k_out is f16 (they must agree)"),
    ROW(kv_replicate, replicate_dtype_v, "k is f32 and v is bf16 (they must agree)"),
    ROW(kv_replicate, replicate_dtype_v_out, "k is f32 and v_out is f16 (they must agree)"),
    ROW(kv_replicate, replicate_overlap, "k_out overlaps v_out (outputs need memory of their own)"),
    ROW(kv_replicate, replicate_k_over_k, "k_out overlaps k (outputs need memory of their own)"),
    ROW(kv_replicate, replicate_k_over_v, "k_out overlaps v (outputs need memory of their own)"),
    ROW(kv_replicate, replicate_v_over_k, "v_out overlaps k (outputs need memory of their own)"),
    ROW(kv_replicate, replicate_v_over_v, "v_out overlaps v (outputs need memory of their own)"),
    ROW(kv_append, append_heads, "k has size 1 on its head axis (must be 2)"),
    ROW(kv_append, append_channels, "v has size 4 on its channel axis (must be 8)"),
    ROW(kv_append, append_full, "sequence 0 holds 0 tokens and gets 3 (the cache has room for 2)"),
    ROW(kv_append, append_length,
        "sequence 0 holds 7 tokens and gets 3 (the cache has room for 9)"),
    ROW(kv_append, append_length_negative,
        "sequence 1 holds -1 tokens and gets 3 (the cache has room for 9)"),
    ROW(kv_append, append_page, "page_table[1, 0] is 2 (0 ... 1)"),
    ROW(kv_append, append_page_after, "page_table[0, 1] is 5 (0 ... 1)"),
    ROW(kv_append, append_starts_empty, "q_start is empty (batch + 1 entries)"),
    ROW(kv_append, append_starts_falling, "q_start[1] is 2 and q_start[2] is 1 (rising, 0 ... 3)"),
    ROW(kv_append, append_page_empty, "a page of k has no tokens (at least 1)"),
    ROW(kv_append, append_pages_overflow,
        "2147483647 pages of 16777216 tokens (at most 2^48 tokens in all)"),
    ROW(kv_append, append_negative_batch,
        "k_new has size -1 on its batch axis (must be at least 0)"),
    ROW(kv_append, append_mixed, "k_new is f32 and v_new is f16 (they must agree)"),
    ROW(kv_append, append_mixed_cache, "k is f32 and v is f16 (they must agree)"),
    ROW(kv_append, append_dtype, "the cache is u8 (f32, f16, bf16 or i8)"),
    ROW(kv_append, append_scale_dtype, "k_scale has dtype f16 (must be f32)"),
    ROW(kv_append, append_scale_blocks,
        "k_scale has 3 blocks for 8 channels (blocks must divide channels)"),
    ROW(kv_append, append_scale_empty,
        "v_scale has 0 blocks for 8 channels (blocks must divide channels)"),
    ROW(kv_append, append_wide,
        "100000 channels are to be rotated, converted or blocked (at most *)"),
    ROW(kv_append, append_layout, "k has 9 tokens and 8 channels (blocked: multiples of 32)"),
    ROW(kv_append, append_overlap, "k overlaps v (outputs need memory of their own)"),
    ROW(kv_append, append_over_new, "k overlaps k_new (outputs need memory of their own)"),
    ROW(kv_append, append_over_lengths, "v overlaps kv_length (outputs need memory of their own)"),
    ROW(kv_append, append_over_positions, "k overlaps position (outputs need memory of their own)"),
    ROW(kv_append, append_over_sin, "k overlaps sin (outputs need memory of their own)"),
    ROW(kv_append, append_scale_over_new,
        "v_scale overlaps v_new (outputs need memory of their own)"),
    ROW(kv_append, append_scale_repeats, "v_scale has stride 0 (an output cannot repeat)"),
    ROW(kv_append, append_lengths_short, "kv_length has size 1 on its batch axis (must be 2)"),
    ROW(kv_append, append_table_short, "page_table has size 1 on its batch axis (must be 2)"),
    ROW(kv_append, append_starts_short,
        "kv_length has size 2 on its batch axis (must be 1, one less than q_start)"),
    ROW(kv_append, append_positions_short, "position has size 2 on its token axis (must be 3)"),
    ROW(kv_append, append_layout_v,
        "v has strides 32, 2 on its token and channel axes (blocked: its channels, 1)"),
    ROW(kv_append, append_scales_overlap,
        "k_scale overlaps v_scale (outputs need memory of their own)"),
    ROW(kv_append, append_scales,
        "the cache is f32 and k_scale is given (an i8 cache has k_scale and v_scale, any other has "
        "neither)"),
    ROW(kv_append, append_scale_absent,
        "the cache is i8 and v_scale is absent (an i8 cache has k_scale and v_scale, any other has "
        "neither)"),
    ROW(kv_append, append_rope_width,
        "rotary_channels is 12 (even, from 0 to the head's 8 channels)"),
    ROW(kv_append, append_rope_factor,
        "factor is 4 and scaling is RAPT_ROPE_PLAIN (plain: 0 or 1)"),
    ROW(kv_append, append_rope_untruncated, "untruncated is 2 (0 or 1)"),
};
enum { REFUSALS = sizeof refusals / sizeof *refusals };

static const char *const functions[] = {"rapt_rope",     "rapt_softmax",     "rapt_qk",
                                        "rapt_pv",       "rapt_causal_mask", "rapt_kv_replicate",
                                        "rapt_kv_append"};

static void test_refusal(void **state)
{
    const struct refusal *r = *state;
    struct pieces p;
    straighten(&p);
    r->bend(&p);
    rapt_status status = run(r->piece, &p, device);
    const char *sentence = rapt_last_error();
    /* What the CPU alone cannot do is a matter of its buffers, not of the call. */
    if (status != (r->bend == append_wide ? RAPT_UNSUPPORTED : RAPT_INVALID))
        fail_msg("%s: %s: %s", r->name, rapt_status_text(status), sentence);
    if (strncmp(sentence, functions[r->piece], strlen(functions[r->piece])))
        fail_msg("%s does not name the function: %s", r->name, sentence);
    if (!says(sentence, r->sentence))
        fail_msg("%s: \"%s\" is not: %s", r->name, r->sentence, sentence);
    for (size_t i = 0; i < sizeof out; i++)
        if (((unsigned char *)out)[i] != 0xff || ((unsigned char *)more)[i] != 0xff)
            fail_msg("%s: an output was written", r->name);
}

static void the_straight_calls_run(void **state)
{
    struct pieces p;
    (void)state;
    for (int piece = rope; piece <= kv_append; piece++) {
        straighten(&p);
        if (run((enum piece)piece, &p, device)) fail_msg("%s", rapt_last_error());
        expect(run((enum piece)piece, &p, NULL), RAPT_INVALID,
               "device is NULL (as rapt_device_at past the last one)");
    }
}

/* What frequencies are plain with: no factor, and one that extends nothing. */
static void plain_factors_run(void **state)
{
    struct pieces p;
    (void)state;
    for (int factor = 0; factor < 2; factor++) {
        straighten(&p);
        p.rope.factor = p.append_rope.factor = factor;
        p.kv_append.rope = &p.append_rope;
        if (run(rope, &p, device) || run(kv_append, &p, device)) fail_msg("%s", rapt_last_error());
    }
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[REFUSALS + 2] = {cmocka_unit_test(the_straight_calls_run),
                                                    cmocka_unit_test(plain_factors_run)};
    for (int i = 0; i < REFUSALS; i++)
        tests[i + 2] =
            (struct CMUnitTest){refusals[i].name, test_refusal, NULL, NULL, (void *)&refusals[i]};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("refusals of the pieces", tests, sizeof tests / sizeof *tests, NULL,
                           NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
