/* edges.c: calls at the edge of a rule: what stands on its right side is served, the next step is refused. */
#include "api.h"

#include <math.h>

static rapt_context *context;
static rapt_device *device;
static struct call call, other;

static void served(const struct call *c)
{
    if (rapt_forward(device, &c->a, NULL)) fail_msg("%s", rapt_last_error());
}

/* ---- A scale that f32 holds, also times log2(e) ---- */

/* With the least one hidden scores stay hidden: no result is NaN. */
static void least_and_greatest_scale(void **state)
{
    const double least = 0x1p-126, most = 0x1p127;
    (void)state;
    for (int sign = -1; sign <= 1; sign += 2) {
        call_reset(&call);
        call.a.causal = 1;
        call.a.scale = sign * least;
        served(&call);
        for (size_t i = 0; i < sizeof call.out / sizeof *call.out; i++)
            assert_true(isfinite(call.out[i]));
        call.a.scale = sign * nextafter(least, 0);
        expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
               "rapt_forward: scale is *e-38 (0, or of a magnitude from 2^-126 to 2^127)");
        call.a.scale = sign * most;
        served(&call);
        call.a.scale = sign * nextafter(most, INFINITY);
        expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
               "rapt_forward: scale is *e+38 (0, or of a magnitude from 2^-126 to 2^127)");
    }
}

/* ---- A sink that is no number ---- */

/* Rows that see a key are NaN, few of them or many; one that sees none is 0 all the same. */
static void sinks_of_no_number(void **state)
{
    enum { QUERIES = 40, CHANNELS = 32 };
    static float x[QUERIES * CHANNELS], keys[QUERIES * CHANNELS], out[QUERIES * CHANNELS],
        lse[QUERIES];
    (void)state;
    for (int i = 0; i < QUERIES * CHANNELS; i++) keys[i] = x[i] = (float)(i % 13 + 1) / 7;
    for (int kind = 0; kind < 4; kind++) {
        /* also where every score is -infinity */
        for (int i = 0; kind == 2 && i < QUERIES; i++) keys[i * CHANNELS] = -INFINITY;
        for (int queries = 4; queries <= QUERIES; queries += QUERIES - 4) {
            float sink = kind % 2 ? INFINITY : NAN;
            rapt_attention a = {.struct_size = sizeof a, .causal = 1};
            a.q = rapt_tensor_bhtd(x, RAPT_F32, 1, 1, queries, CHANNELS);
            a.k = rapt_tensor_bhtd(keys, RAPT_F32, 1, 1, queries - 2, CHANNELS);
            a.v = rapt_tensor_bhtd(x, RAPT_F32, 1, 1, queries - 2, CHANNELS);
            a.out = rapt_tensor_bhtd(out, RAPT_F32, 1, 1, queries, CHANNELS);
            a.lse = rapt_tensor_bhtd(lse, RAPT_F32, 1, 1, queries, 1);
            a.sink = rapt_tensor_bhtd(&sink, RAPT_F32, 1, 1, 1, 1);
            if (rapt_forward(device, &a, NULL)) fail_msg("%s", rapt_last_error());
            for (int i = 0; i < queries; i++)
                for (int c = 0; c < CHANNELS; c++)
                    if (i < 2 ? out[i * CHANNELS + c] != 0 : !isnan(out[i * CHANNELS + c]))
                        fail_msg("sink %g, query %d of %d: %g", (double)sink, i, queries,
                                 (double)out[i * CHANNELS + c]);
            assert_true(isnan(lse[queries - 1]));
        }
    }
}

/* ---- A softcap that f32 holds, and its ratio to the scale with a square ---- */

static void least_and_greatest_softcap(void **state)
{
    const struct {
        double scale, least, most;
    } rows[] = {{1, 0x1p-60, 0x1p60}, {-0x1p-100, 0x1p-126, 0x1p-40}, {0x1p80, 0x1p20, 0x1p127}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        call_reset(&call);
        call.a.scale = rows[i].scale;
        call.a.softcap = rows[i].least;
        served(&call);
        call.a.softcap = nextafter(rows[i].least, 0);
        expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
               "rapt_forward: softcap is * (0, or from 2^-126 to 2^127 and 2^-60 to 2^60 times the "
               "scale)");
        call.a.softcap = rows[i].most;
        served(&call);
        call.a.softcap = nextafter(rows[i].most, INFINITY);
        expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
               "rapt_forward: softcap is * (0, or from 2^-126 to 2^127 and 2^-60 to 2^60 times the "
               "scale)");
    }
    const double never[] = {1e-300, 1e300, INFINITY, NAN};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        call_reset(&call);
        call.a.softcap = never[i];
        expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
               "rapt_forward: softcap is * (0, or from 2^-126 to 2^127 and 2^-60 to 2^60 times the "
               "scale)");
    }
}

/* ---- Columns for the keys of a ragged batch, of which execute alone knows the number ---- */

static void ragged_keys(struct call *c)
{
    call_reset(c);
    c->a.k = rapt_tensor_bthd(c->k, RAPT_F32, 1, HKV, B * SKV, D);
    c->a.v = rapt_tensor_bthd(c->v, RAPT_F32, 1, HKV, B * SKV, DV);
    c->a.kv_start = rapt_tensor_bhtd(c->starts, RAPT_I32, B + 1, 1, 1, 1);
    c->starts[1] = SKV;
    c->starts[2] = B * SKV;
}

/* One column of a bias or a mask is that of all keys: here one that changes nothing. */
static void one_column_for_all_keys(void **state)
{
    (void)state;
    ragged_keys(&other);
    served(&other);
    for (int masked = 0; masked < 2; masked++) {
        ragged_keys(&call);
        for (int i = 0; i < B * HQ * SQ; i++) call.bias[i] = (float)(i % 5);
        if (masked) call.a.mask = rapt_tensor_bhtd(call.mask, RAPT_U8, B, HQ, SQ, 1);
        else call.a.bias = rapt_tensor_bhtd(call.bias, RAPT_F32, B, HQ, SQ, 1);
        served(&call);
        for (size_t i = 0; i < sizeof call.out / sizeof *call.out; i++)
            assert_true(fabsf(call.out[i] - other.out[i]) <= 1e-5f);
    }
}

/* A number of columns that is neither 1 nor enough is too few, repeated or not. */
static void repeated_columns_are_counted(void **state)
{
    (void)state;
    ragged_keys(&call);
    call.a.bias = rapt_tensor_bhtd(call.bias, RAPT_F32, B, HQ, SQ, SKV);
    call.a.bias.stride[3] = 0;
    served(&call);
    call.a.bias.size[3] = SKV - 1;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: bias has 6 columns (sequence 0 has 7 keys)");
}

/* Weights are written: one column has no room for seven. */
static void one_column_of_weights(void **state)
{
    (void)state;
    ragged_keys(&call);
    call.a.weights = rapt_tensor_bhtd(call.weights, RAPT_F32, B, HQ, SQ, SKV);
    served(&call);
    ragged_keys(&call);
    call.a.weights = rapt_tensor_bhtd(call.weights, RAPT_F32, B, HQ, SQ, 1);
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: weights has 1 columns (sequence 0 has 7 keys)");
    for (size_t i = 0; i < sizeof call.out; i++)
        assert_int_equal(((unsigned char *)call.out)[i], 0xff);
    call.starts[0] = call.starts[1] = 0, call.starts[2] = 1;
    served(&call);
}

/* ---- Tensors without elements ---- */

static void no_queries(void)
{
    call_reset(&call);
    call.a.q.size[2] = call.a.out.size[2] = 0;
}

static void nothing_needs_no_memory(void **state)
{
    (void)state;
    for (int axis = 0; axis < 2; axis++) { /* no sequence, no head */
        rapt_tensor *all[] = {&call.a.q, &call.a.k, &call.a.v, &call.a.out};
        call_reset(&call);
        for (int i = 0; i < 4; i++) all[i]->data = NULL, all[i]->size[axis] = 0;
        served(&call);
    }
    no_queries();
    call.a.q.data = call.a.out.data = NULL;
    served(&call);
    call.a.out.size[2] = call.a.q.size[2] = 1;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: q has no data (its pointer is NULL)");
}

static void nothing_may_repeat(void **state)
{
    (void)state;
    no_queries();
    call.a.out.stride[1] = 0;
    served(&call);
    call.a.out.size[2] = call.a.q.size[2] = 1;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: out has stride 0 on its head axis (an output cannot repeat)");
}

/* A blocked cache with room for no token: its strides are those of nothing. */
static void a_blocked_cache_without_room(void **state)
{
    static float cache[HKV * RAPT_KV_BLOCK * RAPT_KV_BLOCK];
    (void)state;
    call_reset(&call);
    call.a.kv_layout = RAPT_KV_BLOCKED;
    call.a.q = rapt_tensor_bthd(call.q, RAPT_F32, 1, HKV, 1, RAPT_KV_BLOCK);
    call.a.out = rapt_tensor_bthd(call.out, RAPT_F32, 1, HKV, 1, RAPT_KV_BLOCK);
    call.a.k = call.a.v = rapt_tensor_bhtd(cache, RAPT_F32, 1, HKV, RAPT_KV_BLOCK, RAPT_KV_BLOCK);
    served(&call);
    call.a.k.size[2] = call.a.v.size[2] = 0;
    call.a.k.stride[2] = call.a.v.stride[3] = 7;
    served(&call);
    for (int i = 0; i < HKV * RAPT_KV_BLOCK; i++) assert_true(call.out[i] == 0);
    call.a.k.size[2] = call.a.v.size[2] = RAPT_KV_BLOCK;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: k has strides 7, 1 on its token and channel axes (blocked: its channels, "
           "1)");
}

/* ---- A page that no head reads ---- */

static void pages_without_heads(void **state)
{
    (void)state;
    call_reset(&call);
    call.a.q.size[1] = call.a.k.size[1] = call.a.v.size[1] = call.a.out.size[1] = 0;
    call.a.page_table = rapt_tensor_bhtd(call.pages, RAPT_I32, B, 1, 1, 1);
    served(&call);
    call.pages[1] = B;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: page_table[1, 0] is 2 (0 ... 1)");
}

/* ---- Blocks of scales that the level of i8 takes ---- */

static void blocks_of_scales(void **state)
{
    static const char name[] = "cpu_avx512_vnni",
                      refusal[] = "a scale has fewer than 32 channels, or not a multiple of 32";
    static const struct {
        int64_t channels, k_blocks, v_blocks;
        int served;
    } rows[] = {{72, 1, 1, 1}, {8, 1, 1, 1},  {64, 2, 2, 1}, {96, 3, 3, 1}, {192, 3, 3, 1},
                {64, 4, 1, 0}, {64, 1, 4, 0}, {96, 2, 1, 0}, {96, 1, 2, 0}, {32, 2, 2, 0}};
    char sentence[256];
    (void)state;
    snprintf(sentence, sizeof sentence, "no kernel of cpu:0 serves this (%s: %s)", name, refusal);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rapt_plan *plan = NULL;
        call_reset(&call);
        int64_t channels = rows[i].channels;
        call.a.q = rapt_tensor_bthd(call.q, RAPT_F16, 1, 1, 1, channels);
        call.a.out = rapt_tensor_bthd(call.out, RAPT_F16, 1, 1, 1, channels);
        call.a.k = call.a.v = rapt_tensor_bthd(call.bytes, RAPT_I8, 1, 1, 1, channels);
        call.a.k_scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, rows[i].k_blocks);
        call.a.v_scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, rows[i].v_blocks);
        call.a.kernel = name;
        rapt_status status = rapt_plan_create(&plan, device, &call.a);
        if (status && strstr(rapt_last_error(), "this device has no kernel of that name"))
            skip_test("no such kernel here");
        if (rows[i].served) {
            if (status) fail_msg("row %zu: %s", i, rapt_last_error());
            rapt_plan_destroy(&plan);
        } else {
            expect(status, RAPT_UNSUPPORTED, sentence);
        }
    }
}

/* ---- Starts: one more than there are sequences ---- */

static void starts(void **state)
{
    (void)state;
    call_reset(&call);
    call.a.q = rapt_tensor_bthd(call.q, RAPT_F32, 1, HQ, B * SQ, D);
    call.a.out = rapt_tensor_bthd(call.out, RAPT_F32, 1, HQ, B * SQ, DV);
    call.a.kv_length = rapt_tensor_bhtd(call.lengths, RAPT_I32, B, 1, 1, 1);
    call.a.page_table = rapt_tensor_bhtd(call.pages, RAPT_I32, B, 1, 1, 1);
    call.a.q_start = rapt_tensor_bhtd(call.starts, RAPT_I32, B + 1, 1, 1, 1);
    served(&call);
    call.a.q_start.size[0] = B;
    expect(
        rapt_forward(device, &call.a, NULL), RAPT_INVALID,
        "rapt_forward: kv_length has size 2 on its batch axis (must be 1, one less than q_start)");
}

/* One scale of two: the sentence names the other. */
static void one_scale(void **state)
{
    (void)state;
    call_reset(&call);
    rapt_tensor scale = rapt_tensor_bhtd(call.scale, RAPT_F32, 1, 1, 1, 1);
    call.a.v_scale = scale;
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: k is f32 and v_scale is given (i8 keys and values have both scales, "
           "any others neither)");
    call.a.k = rapt_tensor_bthd(call.bytes, RAPT_I8, B, HKV, SKV, D);
    call.a.v = rapt_tensor_bthd(call.bytes, RAPT_I8, B, HKV, SKV, DV);
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: k is i8 and k_scale is absent (i8 keys and values have both scales, "
           "any others neither)");
    call.a.k_scale = scale;
    served(&call);
    memset(&call.a.v_scale, 0, sizeof call.a.v_scale);
    expect(rapt_forward(device, &call.a, NULL), RAPT_INVALID,
           "rapt_forward: k is i8 and v_scale is absent (i8 keys and values have both scales, "
           "any others neither)");
}

/* ---- A newer caller's plan, executed with a field that this version does not know ---- */

static void a_newer_field_at_execute(void **state)
{
    struct {
        rapt_attention a;
        uint64_t newer;
    } given;
    rapt_plan *plan;
    _Alignas(64) static char workspace[1 << 16];
    (void)state;
    call_reset(&call);
    memset(&given, 0, sizeof given);
    given.a = call.a;
    given.a.struct_size = sizeof given;
    assert_int_equal(rapt_plan_create(&plan, device, &given.a), RAPT_OK);
    assert_true(rapt_plan_workspace_size(plan) <= sizeof workspace);
    assert_int_equal(rapt_plan_execute(plan, &given.a, workspace, NULL), RAPT_OK);
    given.newer = 1;
    expect(rapt_plan_execute(plan, &given.a, workspace, NULL), RAPT_UNSUPPORTED,
           "rapt_plan_execute: a field that version *.*.* does not know is set (link a newer "
           "library)");
    rapt_plan_destroy(&plan);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_column_for_all_keys),
                                       cmocka_unit_test(repeated_columns_are_counted),
                                       cmocka_unit_test(one_column_of_weights),
                                       cmocka_unit_test(nothing_needs_no_memory),
                                       cmocka_unit_test(nothing_may_repeat),
                                       cmocka_unit_test(a_blocked_cache_without_room),
                                       cmocka_unit_test(pages_without_heads),
                                       cmocka_unit_test(blocks_of_scales),
                                       cmocka_unit_test(one_scale),
                                       cmocka_unit_test(starts),
                                       cmocka_unit_test(a_newer_field_at_execute),
                                       cmocka_unit_test(least_and_greatest_scale),
                                       cmocka_unit_test(least_and_greatest_softcap),
                                       cmocka_unit_test(sinks_of_no_number)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("edges", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
