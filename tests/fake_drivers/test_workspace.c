/* test_workspace.c: what plans on sm_90 give their kernels besides the problem: the parts of the
 * workspace, as kernel_args.h has them, apart from each other and inside; tensor maps of the right
 * memory; launches before and after the main one. */
#include "workspace.h"

/* Each row of a needs-bit that takes plain problems of its head size. */
static void each_row(const struct stand_in *v, uint32_t needs, uint32_t without)
{
    struct trial t;
    rapt_context *context;
    int rows = 0;
    begin(v, &context, &t);
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++) {
        if (strcmp(row->arch, "sm_90a") || (row->needs & needs) != needs || (row->needs & without))
            continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            char reason[512];
            set_problem(&t, (rapt_dtype)row->dtype, shapes[i], row->d, row->dv);
            t.a.softcap = (row->can & CAN_SOFTCAP) && !(row->can & CAN_ALIBI) ? 20 : 0;
            t.a.causal = (row->can & CAN_CAUSAL) != 0;
            t.a.kernel = row->name;
            struct problem p;
            assert_int_equal(params_check(&t.a, "test", &p), RAPT_OK);
            if (row_refuses(row, &p, reason, sizeof reason)) continue;
            run(&t, row->name);
            rows++;
        }
    }
    assert_true(rows >= 12);
    rapt_close(&context);
    session_end(v);
}

static void claimed_rows(void **state)
{
    each_row(*state, NEED_CLAIMED, NEED_HALVES | NEED_PARTIALS);
}

static void rows_that_share_keys(void **state)
{
    each_row(*state, NEED_CLAIMED | NEED_PARTIALS, 0);
}

static void rows_in_parts(void **state)
{
    each_row(*state, NEED_HALVES, 0);
}

/* Heads of 72 channels, which lie in pairs in K and, token by token of a head, not in V; 72 beside 80. */
static void heads_in_pairs(void **state)
{
    struct trial t;
    rapt_context *context;
    int pairs = 0, others = 0;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int more = 0; more <= 8; more += 8) {
            set_problem(&t, RAPT_BF16, shapes[i], 72 + more, 72);
            t.a.causal = 1;
            run(&t, "sm90_bf16_narrow80_linear");
            if (in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.k)) pairs++;
            else others++;
        }
    assert_true(pairs == 5 && others == 15);
    rapt_close(&context);
    session_end(*state);
}

/* A layout of K that makes pairs, and such as miss it by one thing each; V has the first. */
static void heads_almost_in_pairs(void **state)
{
    static const struct {
        int64_t heads, channels, stride[3]; /* of sequences, heads, tokens */
    } layouts[] = {{4, 72, {86400, 72, 288}},   {3, 72, {86400, 72, 288}},
                   {4, 64, {86400, 72, 288}},   {4, 72, {96000, 80, 320}},
                   {4, 72, {88800, 72, 296}},   {4, 72, {86408, 72, 288}},
                   {4, 72, {262176, 65544, 80}}};
    struct trial t;
    rapt_context *context;
    int pairs = 0, values = 0;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const int64_t heads = layouts[i].heads, shape[] = {2, heads, heads, 300, 300};
        set_problem(&t, RAPT_BF16, shape, layouts[i].channels, 72);
        memcpy(t.a.k.stride, layouts[i].stride, sizeof layouts[i].stride);
        memcpy(t.a.v.stride, layouts[0].stride, sizeof layouts[0].stride);
        run(&t, "sm90_bf16_narrow80_linear");
        pairs += in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.k);
        values += in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.v);
    }
    assert_true(pairs == 1 && values == 6);
    rapt_close(&context);
    session_end(*state);
}

/* Packed queries and keys: room for a partial tile of every sequence. */
static void packed_rows(void **state)
{
    static const int64_t tokens[] = {1, 127, 128, 129, 1000};
    struct trial t;
    rapt_context *context;
    static int32_t starts[8];
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (int64_t batch = 1; batch <= 7; batch += 3) {
            const int64_t size[5] = {1, 4, 2, tokens[i], tokens[i]};
            set_problem(&t, RAPT_BF16, size, 128, 128);
            t.a.q_start = (rapt_tensor){starts, RAPT_I32, {batch + 1, 1, 1, 1}, {1, 0, 0, 0}};
            t.a.kv_start = t.a.q_start;
            t.a.causal = 1;
            run(&t, "sm90_bf16_d128_linear");
            const rapt_tensor start = t.a.q_start;
            for (int packed = 1; packed < 4; packed++) { /* queries, keys, both */
                const int64_t own[5] = {batch, 4, 2, tokens[i], tokens[i]};
                for (int wide = 0; wide < 2; wide++) {
                    set_problem(&t, RAPT_F32, packed == 3 ? size : own, wide ? 196 : 96,
                                wide ? 140 : 80);
                    t.a.causal = 1;
                    if (packed & 1) {
                        t.a.q_start = start;
                        t.a.q.size[0] = t.a.out.size[0] = 1;
                    }
                    if (packed & 2) t.a.kv_start = start, t.a.k.size[0] = t.a.v.size[0] = 1;
                    run(&t, wide ? "sm90_f32_d256_features" : "sm90_f32_d128_features");
                    run(&t,
                        wide ? "sm90_f32_d256_features_strict" : "sm90_f32_d128_features_strict");
                }
            }
        }
    rapt_close(&context);
    session_end(*state);
}

/* More heads or sequences than a grid's axes hold: kernels go around, the launch is cut. */
static void many_heads(void **state)
{
    static const int64_t sizes[][5] = {{1, 70000, 70000, 256, 256}, {70000, 1, 1, 256, 256}};
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (int i = 0; i < 2; i++) {
        set_problem(&t, RAPT_F32, sizes[i], 64, 64);
        run(&t, "sm90_f32_d64");
    }
    rapt_close(&context);
    session_end(*state);
}

/* The composed path's scores: room for each row of each sequence. */
static void scores_of_the_composed_path(void **state)
{
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *size = shapes[i], columns = size[4], rows = size[3];
        rapt_plan *plan = NULL;
        void *workspace = NULL;
        set_problem(&t, RAPT_BF16, size, 64, 64);
        t.kernel = t.a.kernel = "composed";
        t.fake->launch_count = t.parts = 0;
        assert_int_equal(rapt_plan_create(&plan, t.device, &t.a), RAPT_OK);
        t.size = rapt_plan_workspace_size(plan);
        assert_int_equal(rapt_alloc(t.device, t.size, &workspace), RAPT_OK);
        t.workspace = workspace;
        assert_int_equal(rapt_plan_execute(plan, &t.a, workspace, NULL), RAPT_OK);
        const struct view *s = &t.fake->launch[0].args.attention.scores;
        expect_part(&t, "scores", s->data, size[0] * size[1] * rows * columns * 4);
        expect(&t, s->stride[0] == size[1] * rows * columns && s->stride[1] == rows * columns &&
                       s->stride[2] == columns && s->stride[3] == 1);
        rapt_free(t.device, workspace);
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
    session_end(*state);
}

/* Packed tokens of no sequence: whatever the kernel, nothing is launched, before or after it either. */
static void packed_rows_of_nobody(void **state)
{
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    static int32_t starts[1];
    rapt_kernel_info info = {.struct_size = sizeof info};
    int served = 0;
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++)
        for (int n = 0; n < 12; n++) { /* types, packed keys too, head sizes */
            const int64_t size[5] = {1, 4, 2, 300, 300}, d = n / 6 ? 128 : 64;
            rapt_plan *plan = NULL;
            if (strcmp(info.op, "forward")) continue;
            set_problem(&t, dtypes[n % 3], size, d, d);
            t.a.q_start = (rapt_tensor){starts, RAPT_I32, {1, 1, 1, 1}, {1, 0, 0, 0}};
            if (n / 3 % 2) t.a.kv_start = t.a.q_start;
            else t.a.k.size[0] = t.a.v.size[0] = 0;
            t.kernel = t.a.kernel = info.name;
            if (rapt_plan_create(&plan, t.device, &t.a)) continue;
            served++;
            t.fake->launch_count = 0;
            assert_int_equal(rapt_plan_execute(plan, &t.a, NULL, NULL), RAPT_OK);
            expect(&t, t.fake->launch_count == 0 && rapt_plan_workspace_size(plan) == 0);
            rapt_plan_destroy(&plan);
        }
    assert_true(served > 40);
    rapt_close(&context);
    session_end(*state);
}

/* Nor does an append of tokens that are those of no sequence. */
static void append_for_nobody(void **state)
{
    static int32_t starts[2];
    static char memory[2 * 500 * 64 * 4];
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    rapt_kv_append_args a = {.struct_size = sizeof a,
                             .k = rapt_tensor_bthd(NULL, RAPT_F32, 0, 2, 16, 64)};
    a.k_new = a.v_new = rapt_tensor_bthd(memory, RAPT_F32, 1, 2, 300, 64);
    a.v = a.k;
    a.q_start = rapt_tensor_bhtd(starts, RAPT_I32, 1, 1, 1, 1);
    t.fake->launch_count = 0;
    assert_int_equal(rapt_kv_append(t.device, &a, NULL), RAPT_OK);
    assert_int_equal(t.fake->launch_count, 0);
    a.q_start.size[0] = 2; /* one sequence without a token: the kernel is told, and leaves them */
    a.k = a.v = rapt_tensor_bthd(memory, RAPT_F32, 1, 2, 16, 64);
    a.k.data = memory + 2 * 300 * 64 * 4, a.v.data = memory + 2 * 400 * 64 * 4;
    assert_int_equal(rapt_kv_append(t.device, &a, NULL), RAPT_OK);
    assert_int_equal(t.fake->launch_count, 1);
    rapt_close(&context);
    session_end(*state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {ON_CUDA(claimed_rows),
                                       ON_CUDA(rows_that_share_keys),
                                       ON_CUDA(rows_in_parts),
                                       ON_CUDA(packed_rows),
                                       ON_CUDA(many_heads),
                                       ON_CUDA(scores_of_the_composed_path),
                                       ON_CUDA(packed_rows_of_nobody),
                                       ON_CUDA(append_for_nobody),
                                       ON_CUDA(heads_in_pairs),
                                       ON_CUDA(heads_almost_in_pairs)};
    return run_group("workspace", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
