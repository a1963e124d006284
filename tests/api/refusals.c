/* refusals.c: every input that a call cannot mean gets its status and its sentence, from plan,
 * forward and explain alike, and leaves the outputs untouched. One row per rule. */
#include "api.h"

static rapt_context *context;
static rapt_device *device;
static struct call call;

static void q_absent(struct call *c)
{
    c->a.q.dtype = 0;
}
static void k_absent(struct call *c)
{
    c->a.k.dtype = 0;
}
static void v_absent(struct call *c)
{
    c->a.v.dtype = 0;
}
static void out_absent(struct call *c)
{
    memset(&c->a.out, 0, sizeof c->a.out);
}
static void q_of_bytes(struct call *c)
{
    c->a.q.dtype = RAPT_U8;
}
static void no_dtype(struct call *c)
{
    c->a.k.dtype = 77;
}
static void negative_dtype(struct call *c)
{
    c->a.k.dtype = -1;
}
static void kv_mixed(struct call *c)
{
    c->a.v.dtype = RAPT_F16;
}
static void half_q_f32_k(struct call *c)
{
    c->a.q.dtype = c->a.out.dtype = RAPT_F16;
}
static void out_of_other_half(struct call *c)
{
    c->a.out.dtype = RAPT_BF16;
}
static void heads_not_multiple(struct call *c)
{
    c->a.q.size[1] = c->a.out.size[1] = 3;
}
static void no_kv_heads(struct call *c)
{
    c->a.k.size[1] = c->a.v.size[1] = 0;
}
static void k_of_other_batch(struct call *c)
{
    c->a.k.size[0] = 1;
}
static void v_shorter(struct call *c)
{
    c->a.v.size[2] = SKV - 1;
}
static void v_of_other_heads(struct call *c)
{
    c->a.v.size[1] = 1;
}
static void k_of_other_channels(struct call *c)
{
    c->a.k.size[3] = D - 1;
}
static void out_of_other_channels(struct call *c)
{
    c->a.out.size[3] = DV - 1;
}
static void out_of_other_queries(struct call *c)
{
    c->a.out.size[2] = SQ + 1;
}
static void negative_size(struct call *c)
{
    c->a.q.size[2] = -1;
}
static void no_channels(struct call *c)
{
    c->a.q.size[3] = c->a.k.size[3] = 0;
}
static void out_repeats(struct call *c)
{
    c->a.out.stride[1] = 0;
}
static void extent_overflows(struct call *c)
{
    c->a.k.stride[0] = INT64_MAX;
}
static void layout_unknown(struct call *c)
{
    c->a.kv_layout = 2;
}
static void blocked_channels(struct call *c)
{
    c->a.kv_layout = RAPT_KV_BLOCKED;
}
static void blocked_strides(struct call *c)
{
    c->a.kv_layout = RAPT_KV_BLOCKED;
    c->a.q = c->a.out = rapt_tensor_bthd(c->q, RAPT_F32, B, HQ, SQ, 32);
    c->a.k = c->a.v = rapt_tensor_bthd(c->k, RAPT_F32, B, HKV, 64, 32);
}
static void blocked_ragged(struct call *c)
{
    c->a.kv_layout = RAPT_KV_BLOCKED;
    c->a.kv_start = rapt_tensor_bhtd(c->k, RAPT_I32, B + 1, 1, 1, 1);
    c->a.k.size[0] = c->a.v.size[0] = 1;
}
static void blocked_bytes(struct call *c)
{
    c->a.kv_layout = RAPT_KV_BLOCKED;
    c->a.k.dtype = c->a.v.dtype = RAPT_I8;
    c->a.k_scale = c->a.v_scale = rapt_tensor_bhtd(c->scale, RAPT_F32, 1, 1, 1, 1);
}
static void lse_f16(struct call *c)
{
    c->a.lse = rapt_tensor_bhtd(c->lse, RAPT_F16, B, HQ, SQ, 1);
}
static void lse_too_short(struct call *c)
{
    c->a.lse = rapt_tensor_bhtd(c->lse, RAPT_F32, B, HQ, SQ - 1, 1);
}
static void bias_too_narrow(struct call *c)
{
    c->a.bias = rapt_tensor_bhtd(c->bias, RAPT_F32, B, HQ, SQ, SKV - 1);
}
static void bias_other_half(struct call *c)
{
    c->a.bias = rapt_tensor_bhtd(c->bias, RAPT_F16, B, HQ, SQ, SKV);
}
static void mask_of_f32(struct call *c)
{
    c->a.mask = rapt_tensor_bhtd(c->bias, RAPT_F32, B, HQ, SQ, SKV);
}
static void mask_of_two_heads(struct call *c)
{
    c->a.mask = rapt_tensor_bhtd(c->mask, RAPT_U8, B, 2, SQ, SKV);
}
static void slopes_too_few(struct call *c)
{
    c->a.alibi_slope = rapt_tensor_bhtd(c->slope, RAPT_F32, 1, HQ - 1, 1, 1);
}
static void sink_per_query(struct call *c)
{
    c->a.sink = rapt_tensor_bhtd(c->bias, RAPT_F32, 1, HQ, SQ, 1);
}
static void weights_too_wide(struct call *c)
{
    c->a.weights = rapt_tensor_bhtd(c->weights, RAPT_F32, B, HQ, SQ, SKV + 1);
}
static void lengths_of_f32(struct call *c)
{
    c->a.kv_length = rapt_tensor_bhtd(c->bias, RAPT_F32, B, 1, 1, 1);
}
static void lengths_too_many(struct call *c)
{
    c->a.kv_length = rapt_tensor_bhtd(c->lengths, RAPT_I32, B + 1, 1, 1, 1);
}
static void causal_of_two(struct call *c)
{
    c->a.causal = 2;
}
static void causal_negative(struct call *c)
{
    c->a.causal = -1;
}
static void align_unknown(struct call *c)
{
    c->a.align = 2;
}
static void invariant_unknown(struct call *c)
{
    c->a.batch_invariant = 5;
}
static void window_negative(struct call *c)
{
    c->a.window_left = -3;
}
static void window_right_negative(struct call *c)
{
    c->a.window_right = INT64_MIN;
}
static void scale_nan(struct call *c)
{
    c->a.scale = (double)0x1p1023 * 4 - (double)0x1p1023 * 4;
}
static void scale_infinite(struct call *c)
{
    c->a.scale = 1e308 * 10;
}
static void softcap_negative(struct call *c)
{
    c->a.softcap = -1;
}
static void kernel_unknown(struct call *c)
{
    c->a.kernel = "no_such_kernel";
}
static void i8_without_scale(struct call *c)
{
    c->a.k = rapt_tensor_bthd(c->bytes, RAPT_I8, B, HKV, SKV, D);
    c->a.v = rapt_tensor_bthd(c->bytes, RAPT_I8, B, HKV, SKV, DV);
}
static void scale_without_i8(struct call *c)
{
    c->a.k_scale = rapt_tensor_bhtd(c->scale, RAPT_F32, B, HKV, SKV, 1);
}
static void scale_blocks_uneven(struct call *c)
{
    i8_without_scale(c);
    c->a.k_scale = rapt_tensor_bhtd(c->scale, RAPT_F32, 1, 1, 1, 3);
    c->a.v_scale = rapt_tensor_bhtd(c->scale, RAPT_F32, 1, 1, 1, 3);
}
static void pages_and_starts(struct call *c)
{
    c->a.page_table = rapt_tensor_bhtd(c->pages, RAPT_I32, B, 1, 1, 1);
    c->a.kv_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
}
static void ragged_with_batch(struct call *c)
{
    c->a.q_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
}
static void page_without_tokens(struct call *c)
{
    c->a.page_table = rapt_tensor_bhtd(c->pages, RAPT_I32, B, 1, 1, 1);
    c->a.k.size[2] = c->a.v.size[2] = 0;
}
static void pages_overflow(struct call *c)
{
    c->a.page_table = rapt_tensor_bhtd(c->pages, RAPT_I32, B, 1, 1, 1);
    c->a.page_table.size[2] = c->a.k.size[2] = c->a.v.size[2] = (int64_t)1 << 40;
    c->a.page_table.stride[2] = c->a.k.stride[2] = c->a.v.stride[2] = 0;
}
static void q_scale_without_i8(struct call *c)
{
    c->a.q_scale = rapt_tensor_bhtd(c->scale, RAPT_F32, 1, 1, 1, 1);
}
static void q_start_empty(struct call *c)
{
    c->a.q_start = rapt_tensor_bhtd(c->starts, RAPT_I32, 0, 1, 1, 1);
}
static void size_zero(struct call *c)
{
    c->a.struct_size = 0;
}
static void size_short(struct call *c)
{
    c->a.struct_size = offsetof(rapt_attention, kv_layout) - 8;
}
static void size_odd(struct call *c)
{
    c->a.struct_size = sizeof c->a + 3;
}
static void size_far(struct call *c)
{
    c->a.struct_size = (uint64_t)1 << 40;
}
static void size_absurd(struct call *c)
{
    c->a.struct_size = UINT64_MAX;
}

/* Only the data pointers or what they point at are wrong: plan_create does not see them. */
static void q_without_data(struct call *c)
{
    c->a.q.data = NULL;
}
static void out_without_data(struct call *c)
{
    c->a.out.data = NULL;
}
static void q_misaligned(struct call *c)
{
    c->a.q.data = (char *)c->q + 1;
}
static void out_is_q(struct call *c)
{
    c->a.v.size[3] = D;
    c->a.v = c->a.k;
    c->a.out = c->a.q;
}
static void out_overlaps_v(struct call *c)
{
    c->a.out.data = c->v;
}
static void lse_overlaps_out(struct call *c)
{
    c->a.lse = rapt_tensor_bhtd(c->out, RAPT_F32, B, HQ, SQ, 1);
}
static void length_too_long(struct call *c)
{
    c->a.kv_length = rapt_tensor_bhtd(c->lengths, RAPT_I32, B, 1, 1, 1);
    c->lengths[1] = SKV + 1;
}
static void length_negative(struct call *c)
{
    c->a.kv_length = rapt_tensor_bhtd(c->lengths, RAPT_I32, B, 1, 1, 1);
    c->lengths[0] = -1;
}
static void ragged(struct call *c)
{
    c->a.q = rapt_tensor_bthd(c->q, RAPT_F32, 1, HQ, B * SQ, D);
    c->a.out = rapt_tensor_bthd(c->out, RAPT_F32, 1, HQ, B * SQ, DV);
    c->a.q_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
}
static void starts_falling(struct call *c)
{
    ragged(c);
    c->starts[1] = B * SQ;
    c->starts[2] = SQ;
}
static void starts_beyond(struct call *c)
{
    ragged(c);
    c->starts[2] = B * SQ + 1;
}
static void start_negative(struct call *c)
{
    ragged(c);
    c->starts[0] = -1;
}
static void paged(struct call *c)
{
    c->a.page_table = rapt_tensor_bhtd(c->pages, RAPT_I32, B, 1, 1, 1);
}
static void page_beyond(struct call *c)
{
    paged(c);
    c->pages[1] = B;
}
static void page_in_part_beyond(struct call *c)
{
    paged(c);
    length_too_long(c);
    c->lengths[1] = 1; /* a page that is not full counts too */
    c->pages[1] = B;
}
static void page_negative(struct call *c)
{
    paged(c);
    c->pages[0] = -1;
}

static void ragged_keys(struct call *c)
{
    c->a.k = rapt_tensor_bthd(c->k, RAPT_F32, 1, HKV, B * SKV, D);
    c->a.v = rapt_tensor_bthd(c->v, RAPT_F32, 1, HKV, B * SKV, DV);
    c->a.kv_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
    c->starts[1] = SKV;
    c->starts[2] = B * SKV;
}
static void kv_starts_falling(struct call *c)
{
    ragged_keys(c);
    c->starts[2] = SKV - 2;
}
static void kv_starts_beyond(struct call *c)
{
    ragged_keys(c);
    c->starts[2] = B * SKV + 1;
}
static void mask_short_of_ragged_keys(struct call *c)
{
    ragged_keys(c);
    c->a.mask = rapt_tensor_bhtd(c->mask, RAPT_U8, B, HQ, SQ, SKV - 1);
}
static void length_beyond_ragged_keys(struct call *c)
{
    ragged_keys(c);
    c->a.kv_length = rapt_tensor_bhtd(c->lengths, RAPT_I32, B, 1, 1, 1);
    c->lengths[1] = SKV + 1;
}

enum when { AT_PLAN, AT_EXECUTE };

static const struct refusal {
    const char *name;
    void (*bend)(struct call *c);
    rapt_status status;
    enum when when;
    const char *sentence; /* after the function's name; see says() */
} refusals[] = {
#define ROW(name, status, when, words)                                                             \
    {                                                                                              \
#name, name, RAPT_##status, when, words                                                    \
    }
    ROW(q_absent, INVALID, AT_PLAN, "q is absent (its dtype is 0)"),
    ROW(k_absent, INVALID, AT_PLAN, "k is absent (its dtype is 0)"),
    ROW(v_absent, INVALID, AT_PLAN, "v is absent (its dtype is 0)"),
    ROW(out_absent, INVALID, AT_PLAN, "out is absent (its dtype is 0)"),
    ROW(q_of_bytes, INVALID, AT_PLAN, "q has dtype 5, u8 (must be f32, f16, bf16 or i8)"),
    ROW(no_dtype, INVALID, AT_PLAN, "k has dtype 77, unknown (must be f32, f16, bf16 or i8)"),
    ROW(negative_dtype, INVALID, AT_PLAN, "k has dtype -1, unknown (must be f32, f16, bf16 or i8)"),
    ROW(kv_mixed, INVALID, AT_PLAN, "k is f32 and v is f16 (they must agree)"),
    ROW(half_q_f32_k, INVALID, AT_PLAN, "q is f16 and k is f32 (k has q's dtype, or q is f32)"),
    ROW(out_of_other_half, INVALID, AT_PLAN,
        "out is bf16 and q is f32 (out is f32 or has q's dtype)"),
    ROW(heads_not_multiple, INVALID, AT_PLAN,
        "3 query heads and 2 KV heads (query heads must be a multiple of KV heads)"),
    ROW(no_kv_heads, INVALID, AT_PLAN,
        "4 query heads and 0 KV heads (query heads must be a multiple of KV heads)"),
    ROW(k_of_other_batch, INVALID, AT_PLAN, "k has size 1 on its batch axis (must be 2)"),
    ROW(v_shorter, INVALID, AT_PLAN, "v has size 6 on its token axis (must be 7)"),
    ROW(v_of_other_heads, INVALID, AT_PLAN, "v has size 1 on its head axis (must be 2)"),
    ROW(k_of_other_channels, INVALID, AT_PLAN, "k has size 7 on its channel axis (must be 8)"),
    ROW(out_of_other_channels, INVALID, AT_PLAN, "out has size 5 on its channel axis (must be 6)"),
    ROW(out_of_other_queries, INVALID, AT_PLAN, "out has size 6 on its token axis (must be 5)"),
    ROW(negative_size, INVALID, AT_PLAN, "q has size -1 on its token axis (0 or more)"),
    ROW(no_channels, INVALID, AT_PLAN, "q has 0 and v has 6 channels (at least 1)"),
    ROW(out_repeats, INVALID, AT_PLAN,
        "out has stride 0 on its head axis (an output cannot repeat)"),
    ROW(extent_overflows, INVALID, AT_PLAN,
        "the extent of k does not fit in 63 bits (check its strides)"),
    ROW(lse_f16, INVALID, AT_PLAN, "lse has dtype 2, f16 (must be f32)"),
    ROW(lse_too_short, INVALID, AT_PLAN, "lse has size 4 on its token axis (must be 5)"),
    ROW(bias_too_narrow, INVALID, AT_PLAN, "bias has size 6 on its key axis (must be 7)"),
    ROW(bias_other_half, INVALID, AT_PLAN,
        "bias is f16 and q is f32 (bias is f32 or has q's dtype)"),
    ROW(mask_of_f32, INVALID, AT_PLAN, "mask has dtype 1, f32 (must be u8)"),
    ROW(mask_of_two_heads, INVALID, AT_PLAN, "mask has size 2 on its head axis (must be 4)"),
    ROW(slopes_too_few, INVALID, AT_PLAN, "alibi_slope has size 3 on its head axis (must be 4)"),
    ROW(sink_per_query, INVALID, AT_PLAN, "sink has size 5 on its token axis (must be 1)"),
    ROW(weights_too_wide, INVALID, AT_PLAN, "weights has size 8 on its key axis (must be 7)"),
    ROW(lengths_of_f32, INVALID, AT_PLAN, "kv_length has dtype 1, f32 (must be i32 or i64)"),
    ROW(lengths_too_many, INVALID, AT_PLAN, "kv_length has size 3 on its batch axis (must be 2)"),
    ROW(causal_of_two, INVALID, AT_PLAN, "causal is 2 (0 ... 1)"),
    ROW(causal_negative, INVALID, AT_PLAN, "causal is -1 (0 ... 1)"),
    ROW(align_unknown, INVALID, AT_PLAN, "align is 2 (0 ... 1)"),
    ROW(invariant_unknown, INVALID, AT_PLAN, "batch_invariant is 5 (0 ... 1)"),
    ROW(window_negative, INVALID, AT_PLAN,
        "window_left is -3 (0 is open, RAPT_WINDOW(n) is n neighbours)"),
    ROW(window_right_negative, INVALID, AT_PLAN,
        "window_right is -9223372036854775808 (0 is open, RAPT_WINDOW(n) is n neighbours)"),
    ROW(scale_nan, INVALID, AT_PLAN, "scale is *nan (0, or of a magnitude from 2^-126 to 2^127)"),
    ROW(scale_infinite, INVALID, AT_PLAN,
        "scale is inf (0, or of a magnitude from 2^-126 to 2^127)"),
    ROW(softcap_negative, INVALID, AT_PLAN,
        "softcap is -1 (0, or from 2^-126 to 2^127 and 2^-60 to 2^60 times the scale)"),
    ROW(kernel_unknown, UNSUPPORTED, AT_PLAN,
        "no kernel of cpu:0 serves this (no_such_kernel: this device has no kernel of that name)"),
    ROW(i8_without_scale, INVALID, AT_PLAN,
        "k is i8 and k_scale is absent (i8 keys and values have both scales, any others neither)"),
    ROW(scale_without_i8, INVALID, AT_PLAN,
        "k is f32 and k_scale is given (i8 keys and values have both scales, any others neither)"),
    ROW(scale_blocks_uneven, INVALID, AT_PLAN,
        "k_scale has 3 blocks for 8 channels (blocks must divide channels)"),
    ROW(pages_and_starts, INVALID, AT_PLAN,
        "page_table and kv_start are both given (keys are paged or ragged)"),
    ROW(ragged_with_batch, INVALID, AT_PLAN, "q has size 2 on its batch axis (must be 1)"),
    ROW(q_start_empty, INVALID, AT_PLAN, "q_start or kv_start is empty (batch + 1 entries)"),
    ROW(layout_unknown, INVALID, AT_PLAN, "kv_layout is 2 (0 ... 1)"),
    ROW(blocked_channels, INVALID, AT_PLAN,
        "k has 7 tokens and 8 channels (blocked: multiples of 32)"),
    ROW(blocked_strides, INVALID, AT_PLAN,
        "k has strides 64, 1 on its token and channel axes (blocked: its channels, 1)"),
    ROW(blocked_ragged, INVALID, AT_PLAN,
        "kv_start is given and kv_layout is blocked (blocked keys are a cache, plain or paged)"),
    ROW(size_zero, INVALID, AT_PLAN,
        "struct_size is 0 (set it to sizeof of the struct, at least *)"),
    ROW(size_short, INVALID, AT_PLAN,
        "struct_size is * (set it to sizeof of the struct, at least *)"),
    ROW(size_odd, INVALID, AT_PLAN,
        "struct_size is * (set it to sizeof of the struct, at least *)"),
    ROW(size_absurd, INVALID, AT_PLAN,
        "struct_size is 18446744073709551615 (set it to sizeof of the struct, at least *)"),
    ROW(size_far, INVALID, AT_PLAN,
        "struct_size is 1099511627776 (set it to sizeof of the struct)"),
    ROW(page_without_tokens, INVALID, AT_PLAN, "a page of k has no tokens (at least 1)"),
    ROW(pages_overflow, INVALID, AT_PLAN,
        "1099511627776 pages of 1099511627776 tokens (at most 2^48 tokens in all)"),
    ROW(q_scale_without_i8, INVALID, AT_PLAN,
        "q is f32 and q_scale is given (q_scale belongs to i8 queries)"),
    ROW(blocked_bytes, INVALID, AT_PLAN, "k is i8 (blocked it must be f32, f16 or bf16)"),
    ROW(q_without_data, INVALID, AT_EXECUTE, "q has no data (its pointer is NULL)"),
    ROW(out_without_data, INVALID, AT_EXECUTE, "out has no data (its pointer is NULL)"),
    ROW(q_misaligned, INVALID, AT_EXECUTE, "q is not aligned to its elements (4 bytes)"),
    ROW(out_is_q, INVALID, AT_EXECUTE, "out overlaps q (outputs need memory of their own)"),
    ROW(out_overlaps_v, INVALID, AT_EXECUTE, "out overlaps v (outputs need memory of their own)"),
    ROW(lse_overlaps_out, INVALID, AT_EXECUTE,
        "out overlaps lse (outputs need memory of their own)"),
    ROW(length_too_long, INVALID, AT_EXECUTE, "kv_length[1] is 8 (0 ... 7)"),
    ROW(length_negative, INVALID, AT_EXECUTE, "kv_length[0] is -1 (0 ... 7)"),
    ROW(starts_falling, INVALID, AT_EXECUTE, "q_start[2] is 5 (10 ... 10)"),
    ROW(starts_beyond, INVALID, AT_EXECUTE, "q_start[2] is 11 (5 ... 10)"),
    ROW(start_negative, INVALID, AT_EXECUTE, "q_start[0] is -1 (0 ... 10)"),
    ROW(kv_starts_falling, INVALID, AT_EXECUTE, "kv_start[2] is 5 (7 ... 14)"),
    ROW(kv_starts_beyond, INVALID, AT_EXECUTE, "kv_start[2] is 15 (7 ... 14)"),
    ROW(mask_short_of_ragged_keys, INVALID, AT_EXECUTE,
        "mask has 6 columns (sequence 0 has 7 keys)"),
    ROW(length_beyond_ragged_keys, INVALID, AT_EXECUTE, "kv_length[1] is 8 (0 ... 7)"),
    ROW(page_beyond, INVALID, AT_EXECUTE, "page_table[1, 0] is 2 (0 ... 1)"),
    ROW(page_in_part_beyond, INVALID, AT_EXECUTE, "page_table[1, 0] is 2 (0 ... 1)"),
    ROW(page_negative, INVALID, AT_EXECUTE, "page_table[0, 0] is -1 (0 ... 1)"),
};
enum { REFUSALS = sizeof refusals / sizeof *refusals };

static void assert_refused(const struct refusal *r, rapt_status status, const char *function)
{
    const char *sentence = rapt_last_error();
    if (status != r->status)
        fail_msg("%s: %s gives %s: %s", r->name, function, rapt_status_text(status), sentence);
    if (strncmp(sentence, function, strlen(function)))
        fail_msg("%s: the sentence does not name %s: %s", r->name, function, sentence);
    if (!says(sentence, r->sentence))
        fail_msg("%s: \"%s\" is not: %s", r->name, r->sentence, sentence);
}

static void assert_untouched(const struct refusal *r)
{
    const unsigned char *bytes[3] = {(unsigned char *)call.out, (unsigned char *)call.lse,
                                     (unsigned char *)call.weights};
    const size_t sizes[3] = {sizeof call.out, sizeof call.lse, sizeof call.weights};
    for (int n = 0; n < 3; n++)
        for (size_t i = 0; i < sizes[n]; i++)
            if (bytes[n][i] != 0xff) fail_msg("%s: an output was written", r->name);
}

static void test_refusal(void **state)
{
    const struct refusal *r = *state;
    rapt_plan *plan = (rapt_plan *)&call;
    char text[512], shorter[16];
    call_reset(&call);
    r->bend(&call);
    if (r->when == AT_PLAN) {
        assert_refused(r, rapt_plan_create(&plan, device, &call.a), "rapt_plan_create");
        assert_null(plan);
        size_t length = rapt_explain(device, &call.a, text, sizeof text);
        assert_int_equal(length, strlen(text));
        if (r->status == RAPT_INVALID) assert_true(says(text, r->sentence));
        else assert_non_null(strstr(text, call.a.kernel)); /* a problem that makes sense */
        assert_int_equal(rapt_explain(device, &call.a, shorter, sizeof shorter), length);
        assert_true(strlen(shorter) == sizeof shorter - 1 &&
                    !memcmp(shorter, text, sizeof shorter - 1));
    } else { /* the plan is fine, its execution is not */
        assert_int_equal(rapt_plan_create(&plan, device, &call.a), RAPT_OK);
        void *workspace = aligned_alloc(64, (rapt_plan_workspace_size(plan) + 127) / 64 * 64);
        assert_refused(r, rapt_plan_execute(plan, &call.a, workspace, NULL), "rapt_plan_execute");
        assert_untouched(r);
        free(workspace);
        rapt_plan_destroy(&plan);
    }
    assert_refused(r, rapt_forward(device, &call.a, NULL), "rapt_forward");
    assert_untouched(r);
}

/* The call that the rows bend is itself fine, and plan, forward and pointers of another call agree.
 */
static void the_straight_call_runs(void **state)
{
    static struct call other;
    rapt_plan *plan;
    (void)state;
    call_reset(&call);
    call_reset(&other);
    assert_int_equal(rapt_forward(device, &call.a, NULL), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, device, &call.a), RAPT_OK);
    void *workspace = aligned_alloc(64, (rapt_plan_workspace_size(plan) + 127) / 64 * 64);
    assert_int_equal(rapt_plan_execute(plan, &other.a, workspace, NULL), RAPT_OK);
    assert_memory_equal(call.out, other.out, sizeof call.out);
    other.a.scale = 0.5;
    expect(rapt_plan_execute(plan, &other.a, workspace, NULL), RAPT_INVALID,
           "* scale differs from the plan: 0.5, planned 0 (only data pointers may change)");
    other.a.scale = call.a.scale;
    other.a.kv_layout = RAPT_KV_BLOCKED;
    expect(rapt_plan_execute(plan, &other.a, workspace, NULL), RAPT_INVALID,
           "* kv_layout differs from the plan: 1, planned 0 (only data pointers may change)");
    if (rapt_plan_workspace_size(plan)) {
        expect(rapt_plan_execute(plan, &call.a, NULL, NULL), RAPT_INVALID,
               "rapt_plan_execute: workspace is NULL (the plan needs * bytes of it)");
        expect(rapt_plan_execute(plan, &call.a, (char *)workspace + 32, NULL), RAPT_INVALID,
               "rapt_plan_execute: workspace is * (must be 64-byte aligned)");
    }
    free(workspace);
    rapt_plan_destroy(&plan);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[REFUSALS + 1] = {cmocka_unit_test(the_straight_call_runs)};
    for (int i = 0; i < REFUSALS; i++)
        tests[i + 1] =
            (struct CMUnitTest){refusals[i].name, test_refusal, NULL, NULL, (void *)&refusals[i]};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("refusals", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
