/* pipeline.c: several operations in a row on device memory: replicated against in-place KV heads,
 * RoPE -> KV append -> forward over a paged cache without a copy back, launch after launch, and
 * scores -> mask -> softmax -> values without waiting in between. */
#include "devices.h"
#include "oracle.h"

#include <math.h>

static void *to_device(rapt_device *device, const void *from, size_t bytes)
{
    void *memory;
    expect_ok(rapt_alloc(device, bytes, &memory), device, "rapt_alloc");
    expect_ok(rapt_copy(device, memory, from, bytes, NULL), device, "rapt_copy");
    return memory;
}

/* Head h of the copy in device memory, [token][head][channel], has the bits of KV head h / group. */
static void expect_copies(rapt_device *device, const rapt_tensor *from, rapt_tensor copy)
{
    int64_t count, head = from->size[2] * from->size[3], group = copy.size[1] / from->size[1];
    size_t bytes = (size_t)(copy.size[1] * head) * (copy.dtype == RAPT_F32 ? 4 : 2);
    void *host = malloc(bytes);
    assert_non_null(host);
    expect_ok(rapt_copy(device, host, copy.data, bytes, NULL), device, "rapt_copy");
    copy.data = host;
    float *got = elements(&copy, &count), *want = elements(from, &count);
    for (int64_t h = 0; h < copy.size[1]; h++)
        assert_memory_equal(got + h * head, want + h / group * head, (size_t)head * sizeof *got);
    free(got);
    free(want);
    free(host);
}

/* KV heads read in place and KV heads copied by rapt_kv_replicate give results within one bound: of
 * unequal shapes, kernels and so bits may differ. */
static void replicated_is_in_place(rapt_device *device, const char *text)
{
    struct problem_instance instance;
    struct problem_device on;
    build(text, &instance);
    run_on(device, &instance);
    expect_ok(problem_upload(&instance, device, &on), device, text);
    rapt_attention a = on.args.forward;
    int64_t heads = a.q.size[1], tokens = a.k.size[2], channels = a.k.size[3];
    size_t bytes = (size_t)(heads * tokens * channels) * (a.k.dtype == RAPT_F32 ? 4 : 2);
    void *memory[2];
    for (int i = 0; i < 2; i++)
        expect_ok(rapt_alloc(device, bytes, &memory[i]), device, "rapt_alloc");
    rapt_kv_replicate_args replicate = {.struct_size = sizeof replicate, .k = a.k, .v = a.v};
    replicate.k_out =
        rapt_tensor_bthd(memory[0], (rapt_dtype)a.k.dtype, 1, heads, tokens, channels);
    replicate.v_out =
        rapt_tensor_bthd(memory[1], (rapt_dtype)a.k.dtype, 1, heads, tokens, channels);
    expect_ok(rapt_kv_replicate(device, &replicate, NULL), device, "rapt_kv_replicate");
    a.k = replicate.k_out;
    a.v = replicate.v_out;
    problem_reset(&instance);
    expect_ok(rapt_forward(device, &a, NULL), device, text);
    expect_ok(rapt_synchronize(device, NULL), device, text);
    expect_ok(problem_download(&on, &instance), device, text);
    expect_copies(device, &instance.args.forward.k, a.k);
    expect_copies(device, &instance.args.forward.v, a.v);
    expect_right(device, &instance);
    for (int i = 0; i < 2; i++) rapt_free(device, memory[i]);
    problem_device_free(&on);
    problem_free(&instance);
}

static void replicated_mqa_and_gqa(void **state)
{
    (void)state;
    for_each_device(device)
    {
        replicated_is_in_place(device, "forward f32 b1 h32/1 q32 kv32 d128 causal");
        replicated_is_in_place(device, "forward f32 b1 h32/8 q32 kv32 d128");
        replicated_is_in_place(device, "forward bf16 b1 h32/1 q32 kv32 d128");
        replicated_is_in_place(device, "forward bf16 b1 h32/8 q32 kv32 d128 causal");
        replicated_is_in_place(device, "forward f16 b1 h32/1 q32 kv32 d128");
        replicated_is_in_place(device, "forward f16 b1 h32/8 q32 kv32 d128 causal");
    }
}

enum {
    BATCH = 2,
    HEADS = 8,
    KV_HEADS = 2,
    CHANNELS = 64,
    PAGE = 16,
    PAGES = 8,
    PAGES_EACH = 4,
    PREFILL = 24,
    STEPS = 4
};
enum {
    Q_ALL = BATCH * HEADS * PREFILL * CHANNELS,
    KV_ALL = BATCH * KV_HEADS * PREFILL * CHANNELS,
    CACHE = PAGES * KV_HEADS * PAGE * CHANNELS
};

/* Rotating (x, y) costs two products, one sum and the rounding of cos and sin: five roundings of
 * |x| + |y|. got is dense, [batch][token][head][channel]. */
static void expect_rotated(const rapt_rope_args *args, int64_t (*position)[PREFILL],
                           const float *got, const char *what)
{
    const rapt_tensor *x = &args->x;
    double row[CHANNELS], want[CHANNELS];
    for (int64_t b = 0; b < x->size[0]; b++)
        for (int64_t t = 0; t < x->size[2]; t++)
            for (int64_t h = 0; h < x->size[1]; h++, got += CHANNELS) {
                oracle_load(x, b, h, t, row);
                oracle_rotate(args, position[b][t], CHANNELS, row, want);
                for (int c = 0; c < CHANNELS; c++) {
                    double size = fabs(row[c]) + fabs(row[(c + CHANNELS / 2) % CHANNELS]);
                    if (!(fabs(got[c] - want[c]) <= 5 * 0x1p-24 * size + 0x1p-149))
                        fail_msg("%s: [%d,%d,%d,%d] is %.9g, want %.9g", what, (int)b, (int)h,
                                 (int)t, c, got[c], want[c]);
                }
            }
}

struct step {
    rapt_device *device;
    int64_t tokens, held;
    float *q, *k, *v;                /* host, [batch][token][head][channel] */
    void *k_pages, *v_pages, *table; /* device */
};

/* What a step called, with device pointers, and what it left there. */
struct stages {
    rapt_rope_args rope;
    rapt_attention a;
    size_t q_bytes;
    int64_t used[BATCH], position[BATCH][PREFILL];
};

/* The new rows of K, gathered from the pages; those of V are the step's own, bit for bit. */
static void gather_new_rows(const struct step *s, const int32_t *table, const float *k_cache,
                            const float *v_cache, float *k_rows)
{
    for (int b = 0; b < BATCH; b++)
        for (int64_t t = 0; t < s->tokens; t++)
            for (int g = 0; g < KV_HEADS; g++) {
                int64_t row = s->held + t, page = table[b * PAGES_EACH + row / PAGE];
                int64_t from = ((page * KV_HEADS + g) * PAGE + row % PAGE) * CHANNELS,
                        to = ((b * s->tokens + t) * KV_HEADS + g) * CHANNELS;
                memcpy(k_rows + to, k_cache + from, CHANNELS * sizeof *k_rows);
                assert_memory_equal(s->v + to, v_cache + from, CHANNELS * sizeof *v_cache);
            }
}

/* Each stage against the oracle on what the stage before really gave. */
static void check_stages(const struct step *s, struct stages *done)
{
    static float q_rotated[Q_ALL], out[Q_ALL], k_cache[CACHE], v_cache[CACHE], k_rows[KV_ALL];
    static int32_t table[BATCH * PAGES_EACH];
    rapt_device *device = s->device;
    rapt_attention *a = &done->a;
    expect_ok(rapt_copy(device, q_rotated, done->rope.out.data, done->q_bytes, NULL), device,
              "copy");
    expect_ok(rapt_copy(device, out, a->out.data, done->q_bytes, NULL), device, "copy");
    expect_ok(rapt_copy(device, k_cache, s->k_pages, sizeof k_cache, NULL), device, "copy");
    expect_ok(rapt_copy(device, v_cache, s->v_pages, sizeof v_cache, NULL), device, "copy");
    expect_ok(rapt_copy(device, table, s->table, sizeof table, NULL), device, "copy");
    rapt_rope_args rope = done->rope;
    rope.x.data = s->q;
    expect_rotated(&rope, done->position, q_rotated, "q");
    gather_new_rows(s, table, k_cache, v_cache, k_rows);
    rope.x = rapt_tensor_bthd(s->k, RAPT_F32, BATCH, KV_HEADS, s->tokens, CHANNELS);
    expect_rotated(&rope, done->position, k_rows, "k in the cache");
    a->q.data = q_rotated, a->k.data = k_cache, a->v.data = v_cache, a->out.data = out;
    a->kv_length.data = done->used, a->page_table.data = table;
    struct accuracy accuracy;
    rapt_device_info info = {.struct_size = sizeof info};
    expect_ok(rapt_device_describe(device, &info), device, "describe");
    assert_true(accuracy_check_attention(a, engine_of(&info), 0, &accuracy));
    if (!(accuracy.worst <= 1))
        fail_msg("forward: error is %g of its bound at %s", accuracy.worst, accuracy.where);
}

/* One step of a model: rotate q, append k (rotated) and v, attend; then every intermediate is
 * checked from copies. */
static void run_step(const struct step *s)
{
    rapt_device *device = s->device;
    int64_t q_count = BATCH * HEADS * s->tokens * CHANNELS, held[BATCH];
    struct stages done;
    static float blank[Q_ALL];
    for (int b = 0; b < BATCH; b++) {
        held[b] = s->held;
        done.used[b] = s->held + s->tokens;
        for (int64_t t = 0; t < s->tokens; t++) done.position[b][t] = s->held + t;
    }
    for (int64_t i = 0; i < q_count; i++) blank[i] = NAN;
    size_t q_bytes = (size_t)q_count * sizeof(float),
           kv_bytes = (size_t)(BATCH * KV_HEADS * s->tokens * CHANNELS) * sizeof(float);
    void *q = to_device(device, s->q, q_bytes), *q_out = to_device(device, blank, q_bytes),
         *k = to_device(device, s->k, kv_bytes);
    void *v = to_device(device, s->v, kv_bytes), *o = to_device(device, blank, q_bytes),
         *h = to_device(device, held, sizeof held);
    void *u = to_device(device, done.used, sizeof done.used),
         *p = to_device(device, done.position, sizeof done.position);

    rapt_rope_args rope = {.struct_size = sizeof rope, .theta = 500000};
    rope.x = rapt_tensor_bthd(q, RAPT_F32, BATCH, HEADS, s->tokens, CHANNELS);
    rope.out = rapt_tensor_bthd(q_out, RAPT_F32, BATCH, HEADS, s->tokens, CHANNELS);
    rope.position = (rapt_tensor){p, RAPT_I64, {BATCH, 1, s->tokens, 1}, {PREFILL, 0, 1, 0}};
    rapt_kv_append_args append = {.struct_size = sizeof append};
    rapt_rope_args k_rope = {.struct_size = sizeof k_rope, .theta = 500000};
    append.k_new = rapt_tensor_bthd(k, RAPT_F32, BATCH, KV_HEADS, s->tokens, CHANNELS);
    append.v_new = rapt_tensor_bthd(v, RAPT_F32, BATCH, KV_HEADS, s->tokens, CHANNELS);
    append.k = rapt_tensor_bhtd(s->k_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.v = rapt_tensor_bhtd(s->v_pages, RAPT_F32, PAGES, KV_HEADS, PAGE, CHANNELS);
    append.kv_length = rapt_tensor_bhtd(h, RAPT_I64, BATCH, 1, 1, 1);
    append.page_table = rapt_tensor_bhtd(s->table, RAPT_I32, BATCH, 1, PAGES_EACH, 1);
    append.rope = &k_rope;
    rapt_attention a = {.struct_size = sizeof a,
                        .causal = 1,
                        .k = append.k,
                        .v = append.v,
                        .page_table = append.page_table};
    a.q = rope.out;
    a.out = rapt_tensor_bthd(o, RAPT_F32, BATCH, HEADS, s->tokens, CHANNELS);
    a.kv_length = rapt_tensor_bhtd(u, RAPT_I64, BATCH, 1, 1, 1);
    expect_ok(rapt_rope(device, &rope, NULL), device, "rapt_rope");
    expect_ok(rapt_kv_append(device, &append, NULL), device, "rapt_kv_append");
    expect_ok(rapt_forward(device, &a, NULL), device, "rapt_forward");
    expect_ok(rapt_synchronize(device, NULL), device, "rapt_synchronize");

    done.q_bytes = q_bytes;
    done.rope = rope;
    done.a = a;
    check_stages(s, &done);
    void *const memory[] = {q, q_out, k, v, o, h, u, p};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) rapt_free(device, memory[i]);
}

static void rope_append_forward(void **state)
{
    (void)state;
    static float q[Q_ALL], k[KV_ALL], v[KV_ALL], poison[CACHE];
    static const int32_t table[BATCH * PAGES_EACH] = {7, 2, 4, 0, 1, 6, 3, 5};
    for_each_device(device)
    {
        for (int i = 0; i < CACHE; i++) poison[i] = NAN;
        struct step s = {.device = device, .tokens = PREFILL, .q = q, .k = k, .v = v};
        s.k_pages = to_device(device, poison, sizeof poison);
        s.v_pages = to_device(device, poison, sizeof poison);
        s.table = to_device(device, table, sizeof table);
        for (int step = 0; step <= STEPS; step++) {
            for (int i = 0; i < Q_ALL; i++)
                q[i] = (float)problem_normal(11, (uint64_t)step, (uint64_t)i);
            for (int i = 0; i < KV_ALL; i++)
                k[i] = (float)problem_normal(12, (uint64_t)step, (uint64_t)i);
            for (int i = 0; i < KV_ALL; i++)
                v[i] = (float)problem_normal(13, (uint64_t)step, (uint64_t)i);
            run_step(&s);
            s.held += s.tokens;
            s.tokens = 1;
        }
        rapt_free(device, s.k_pages);
        rapt_free(device, s.v_pages);
        rapt_free(device, s.table);
    }
}

/* Launches of one problem give the bits of the first one. */
static void launches_agree(rapt_device *device, const char *text, int launches)
{
    struct problem_instance instance;
    struct problem_device on;
    int64_t count;
    build(text, &instance);
    expect_ok(problem_upload(&instance, device, &on), device, text);
    float *want = NULL;
    for (int i = 0; i < launches; i++) {
        problem_reset(&instance);
        expect_ok(rapt_forward(device, &on.args.forward, NULL), device, text);
        expect_ok(rapt_synchronize(device, NULL), device, text);
        expect_ok(problem_download(&on, &instance), device, text);
        float *got = elements(&instance.args.forward.out, &count);
        if (want) assert_memory_equal(got, want, (size_t)count * sizeof *got);
        else want = got;
        if (got != want) free(got);
    }
    free(want);
    problem_device_free(&on);
    problem_free(&instance);
}

/* Row tiles of one key block or two follow each other fastest. */
static void tiles_in_a_row(void **state)
{
    (void)state;
    for_each_device(device)
    {
        bool large = is_gpu(device) && !is_emulated(device);
        launches_agree(device,
                       large ? "forward bf16 b5 h80/8 q100 kv100 d128 causal"
                             : "forward bf16 b1 h2 q100 kv100 d128 causal",
                       large ? 100 : 2);
        launches_agree(device,
                       large ? "forward f16 b5 h80/8 q100 kv100 d128 causal window90,0"
                             : "forward f16 b1 h2 q100 kv100 d128 causal window90,0",
                       large ? 100 : 2);
    }
}

/* Steps that share a workspace, whose launches may begin while those before still run: the bits are
 * those of steps that wait. */
static void steps_agree(rapt_device *device, const char *const texts[2], int rounds)
{
    struct problem_instance instance[2];
    struct problem_device on[2];
    rapt_plan *plan[2];
    float *want[2];
    void *workspace = NULL;
    int64_t count;
    for (int i = 0; i < 2; i++) {
        build(texts[i], &instance[i]);
        expect_ok(problem_upload(&instance[i], device, &on[i]), device, texts[i]);
        expect_ok(rapt_plan_create(&plan[i], device, &on[i].args.forward), device, texts[i]);
    }
    assert_int_equal(rapt_plan_workspace_size(plan[0]), rapt_plan_workspace_size(plan[1]));
    expect_ok(rapt_alloc(device, rapt_plan_workspace_size(plan[0]), &workspace), device, "alloc");
    for (int round = -1; round < rounds; round++) {
        for (int step = 0; step < (round < 0 ? 2 : 6); step++) {
            int i = step % 2;
            expect_ok(rapt_plan_execute(plan[i], &on[i].args.forward, workspace, NULL), device,
                      texts[i]);
            if (round < 0) expect_ok(rapt_synchronize(device, NULL), device, "synchronize");
        }
        expect_ok(rapt_synchronize(device, NULL), device, "synchronize");
        for (int i = 0; i < 2; i++) {
            problem_reset(&instance[i]);
            expect_ok(problem_download(&on[i], &instance[i]), device, texts[i]);
            float *got = elements(&instance[i].args.forward.out, &count);
            if (round < 0) want[i] = got;
            else assert_memory_equal(got, want[i], (size_t)count * sizeof *got);
            if (round >= 0) free(got);
        }
    }
    rapt_free(device, workspace);
    for (int i = 0; i < 2; i++) {
        free(want[i]);
        rapt_plan_destroy(&plan[i]);
        problem_device_free(&on[i]);
        problem_free(&instance[i]);
    }
}

static void decode_steps_in_a_row(void **state)
{
    static const char
        *const large[] = {"forward bf16 b1 h32/8 q1 kv3000 d128 seed3",
                          "forward bf16 b1 h32/8 q1 kv3000 d128 seed4"},
               *const lengths[] =
                   {"forward f16 b3 h8/2 q2 kv2000 d64 causal paged16 kvlen=1999,3,800 seed3",
                    "forward f16 b3 h8/2 q2 kv2000 d64 causal paged16 kvlen=77,2000,801 seed4"},
               *const small[] = {"forward bf16 b1 h4/2 q1 kv300 d64 seed3",
                                 "forward bf16 b1 h4/2 q1 kv300 d64 seed4"};
    (void)state;
    for_each_device(device)
    {
        if (is_gpu(device) && !is_emulated(device)) {
            steps_agree(device, large, 100);
            steps_agree(device, lengths, 100);
        } else {
            steps_agree(device, small, 2);
        }
    }
}

/* Scores, mask (the same one twice), softmax and values, all on one stream. */
static void run_pieces(rapt_device *device, void *const memory[5], int64_t tokens, bool wait_each)
{
    rapt_qk_args qk = {.struct_size = sizeof qk};
    qk.q = rapt_tensor_bhtd(memory[0], RAPT_F32, 1, KV_HEADS, tokens, CHANNELS);
    qk.k = rapt_tensor_bhtd(memory[1], RAPT_F32, 1, KV_HEADS, tokens, CHANNELS);
    qk.out = rapt_tensor_bhtd(memory[3], RAPT_F32, 1, KV_HEADS, tokens, tokens);
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = qk.out};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = qk.out, .out = qk.out};
    rapt_pv_args pv = {.struct_size = sizeof pv, .weights = qk.out};
    pv.v = rapt_tensor_bhtd(memory[2], RAPT_F32, 1, KV_HEADS, tokens, CHANNELS);
    pv.out = rapt_tensor_bhtd(memory[4], RAPT_F32, 1, KV_HEADS, tokens, CHANNELS);
    for (int i = 0; i < 5; i++) {
        rapt_status status = i == 0   ? rapt_qk(device, &qk, NULL)
                             : i <= 2 ? rapt_causal_mask(device, &mask, NULL)
                             : i == 3 ? rapt_softmax(device, &softmax, NULL)
                                      : rapt_pv(device, &pv, NULL);
        expect_ok(status, device, "a piece");
        if (wait_each || i == 4) expect_ok(rapt_synchronize(device, NULL), device, "synchronize");
    }
}

/* A launch may begin while the one before it still runs: the bits are those of launches that wait. */
static void pieces_in_a_row(void **state)
{
    enum { LONG = 1024, ROUNDS = 20 };
    (void)state;
    static float data[KV_HEADS * LONG * CHANNELS], want[KV_HEADS * LONG * CHANNELS],
        got[KV_HEADS * LONG * CHANNELS];
    static float scores[KV_HEADS * LONG * LONG];
    for_each_device(device)
    {
        int64_t tokens = is_gpu(device) && !is_emulated(device) ? LONG : 48;
        size_t bytes = (size_t)(KV_HEADS * tokens * CHANNELS) * sizeof *data;
        void *memory[5];
        for (int i = 0; i < 3; i++) {
            for (int64_t n = 0; n < KV_HEADS * tokens * CHANNELS; n++)
                data[n] = (float)problem_normal(14, (uint64_t)i, (uint64_t)n);
            memory[i] = to_device(device, data, bytes);
        }
        memory[3] =
            to_device(device, scores, (size_t)(KV_HEADS * tokens * tokens) * sizeof *scores);
        memory[4] = to_device(device, data, bytes);
        run_pieces(device, memory, tokens, true);
        expect_ok(rapt_copy(device, want, memory[4], bytes, NULL), device, "rapt_copy");
        for (int round = 0; round < (tokens == LONG ? ROUNDS : 1); round++) {
            run_pieces(device, memory, tokens, false);
            expect_ok(rapt_copy(device, got, memory[4], bytes, NULL), device, "rapt_copy");
            assert_memory_equal(got, want, bytes);
        }
        for (int i = 0; i < 5; i++) rapt_free(device, memory[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicated_mqa_and_gqa), cmocka_unit_test(rope_append_forward),
        cmocka_unit_test(tiles_in_a_row), cmocka_unit_test(decode_steps_in_a_row),
        cmocka_unit_test(pieces_in_a_row)};
    return run_end_to_end("pipeline", tests, false);
}
