/* refusals_pieces.c: what the separate operations refuse, with the sentence, and that nothing is
 * written. */
#include "api.h"

static rapt_context *context;
static rapt_device *device;

static float x[4096], y[4096], out[4096], more[4096];
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
BEND(rope_overlap, p->rope.out.data = x + 8)
BEND(rope_interleaved, p->rope.interleaved = 2)
BEND(rope_scaling, p->rope.scaling = 9)
BEND(rope_factor, p->rope.scaling = RAPT_ROPE_LINEAR; p->rope.factor = 0.5)
BEND(rope_context, p->rope.scaling = RAPT_ROPE_YARN; p->rope.factor = 4)
BEND(rope_theta, p->rope.theta = -3)
BEND(rope_cos_alone, p->rope.cos = rapt_tensor_bhtd(y, RAPT_F32, 1, 1, 9, 4))
BEND(rope_position_f32, p->rope.position = rapt_tensor_bhtd(y, RAPT_F32, 2, 1, 3, 1))
BEND(rope_position_short, p->rope.position = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 2, 1))
BEND(rope_null, p->rope.x.data = NULL)
BEND(rope_odd_head, p->rope.x.size[3] = p->rope.out.size[3] = 7)
BEND(softmax_shape, p->softmax.out.size[3] = 7)
BEND(softmax_overlap, p->softmax.out.data = x + 1)
BEND(softmax_misaligned, p->softmax.x.data = (char *)x + 1)
BEND(softmax_repeats, p->softmax.out.stride[2] = 0)
BEND(qk_heads, p->qk.k.size[1] = 3)
BEND(qk_channels, p->qk.k.size[3] = 7)
BEND(qk_shape, p->qk.out.size[3] = 4)
BEND(qk_scale, p->qk.scale = 1e308 * 10)
BEND(qk_dtype, p->qk.k.dtype = RAPT_U8)
BEND(pv_tokens, p->pv.v.size[2] = 4)
BEND(pv_overlap, p->pv.out.data = x)
BEND(causal_mask_align, p->causal_mask.align = 7)
BEND(causal_mask_null, p->causal_mask.x.data = NULL)
BEND(replicate_heads, p->kv_replicate.k_out.size[1] = p->kv_replicate.v_out.size[1] = 3)
BEND(replicate_dtype, p->kv_replicate.k_out.dtype = RAPT_F16)
BEND(replicate_overlap, p->kv_replicate.v_out.data = out)
BEND(append_heads, p->kv_append.k.size[1] = 1)
BEND(append_channels, p->kv_append.v.size[3] = 4)
BEND(append_full, p->kv_append.k.size[2] = p->kv_append.v.size[2] = 2)
BEND(append_length, indices[0] = 7;
     p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_length_negative, indices[1] = -1;
     p->kv_append.kv_length = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_page, indices[1] = 2;
     p->kv_append.page_table = rapt_tensor_bhtd(indices, RAPT_I32, 2, 1, 1, 1))
BEND(append_layout, p->kv_append.kv_layout = RAPT_KV_BLOCKED)
BEND(append_overlap, p->kv_append.v.data = out)
BEND(append_scales, p->kv_append.k_scale = rapt_tensor_bhtd(y, RAPT_F32, 2, 2, 9, 1))
BEND(append_rope_width, p->append_rope.rotary_channels = 12; p->kv_append.rope = &p->append_rope)

static const struct refusal {
    const char *name;
    enum piece piece;
    void (*bend)(struct pieces *p);
    const char *words;
} refusals[] = {
#define ROW(piece, name, words)                                                                    \
    {                                                                                              \
#name, piece, name, words                                                                  \
    }
    ROW(rope, rope_size, "struct_size is 8"),
    ROW(rope, rope_dtype, "x has dtype i8"),
    ROW(rope, rope_shape, "out has size 2 on its token axis (must be 3)"),
    ROW(rope, rope_odd_width, "rotary_channels must be even"),
    ROW(rope, rope_wide, "rotary_channels must be even and at most"),
    ROW(rope, rope_overlap, "out overlaps x"),
    ROW(rope, rope_interleaved, "interleaved must be 0 or 1"),
    ROW(rope, rope_scaling, "scaling is no RAPT_ROPE_"),
    ROW(rope, rope_factor, "factor must be at least 1"),
    ROW(rope, rope_context, "original_context must be at least 1"),
    ROW(rope, rope_theta, "theta must be over 1"),
    ROW(rope, rope_cos_alone, "cos and sin must both be given"),
    ROW(rope, rope_position_f32, "position has dtype f32"),
    ROW(rope, rope_position_short, "position has size 2 on its token axis"),
    ROW(rope, rope_null, "x has no data"),
    ROW(rope, rope_odd_head, "rotary_channels must be even"),
    ROW(softmax, softmax_shape, "out has size 7 on its channel axis"),
    ROW(softmax, softmax_overlap, "out overlaps x"),
    ROW(softmax, softmax_misaligned, "x is not aligned"),
    ROW(softmax, softmax_repeats, "out has stride 0"),
    ROW(qk, qk_heads, "query heads must be a multiple"),
    ROW(qk, qk_channels, "k has size 7 on its channel axis"),
    ROW(qk, qk_shape, "out has size 4 on its channel axis"),
    ROW(qk, qk_scale, "scale must be finite"),
    ROW(qk, qk_dtype, "k has dtype u8"),
    ROW(pv, pv_tokens, "v has size 4 on its token axis"),
    ROW(pv, pv_overlap, "out overlaps weights"),
    ROW(causal_mask, causal_mask_align, "align is no"),
    ROW(causal_mask, causal_mask_null, "x has no data"),
    ROW(kv_replicate, replicate_heads, "query heads must be a multiple"),
    ROW(kv_replicate, replicate_dtype, "must have one dtype"),
    ROW(kv_replicate, replicate_overlap, "k_out overlaps v_out"),
    ROW(kv_append, append_heads, "k has size 1 on its head axis"),
    ROW(kv_append, append_channels, "v has size 4 on its channel axis"),
    ROW(kv_append, append_full, "the cache has room for 2"),
    ROW(kv_append, append_length, "holds 7 tokens"),
    ROW(kv_append, append_length_negative, "-1"),
    ROW(kv_append, append_page, "2"),
    ROW(kv_append, append_layout, "(blocked: multiples of 32)"),
    ROW(kv_append, append_overlap, "k overlaps v"),
    ROW(kv_append, append_scales, "k_scale and v_scale belong to i8"),
    ROW(kv_append, append_rope_width, "rotary_channels must be even"),
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
    if (status != RAPT_INVALID) fail_msg("%s: %s: %s", r->name, rapt_status_text(status), sentence);
    if (strncmp(sentence, functions[r->piece], strlen(functions[r->piece])))
        fail_msg("%s does not name the function: %s", r->name, sentence);
    if (!strstr(sentence, r->words))
        fail_msg("%s: \"%s\" is not in: %s", r->name, r->words, sentence);
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
        assert_int_equal(run((enum piece)piece, &p, NULL), RAPT_INVALID);
        assert_non_null(strstr(rapt_last_error(), "device is NULL"));
    }
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[REFUSALS + 1] = {cmocka_unit_test(the_straight_calls_run)};
    for (int i = 0; i < REFUSALS; i++)
        tests[i + 1] =
            (struct CMUnitTest){refusals[i].name, test_refusal, NULL, NULL, (void *)&refusals[i]};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("refusals of the pieces", tests, sizeof tests / sizeof *tests, NULL,
                           NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
