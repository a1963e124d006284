/* pipeline.c: several operations in a row on device memory: replicated against in-place KV heads,
 * and RoPE -> KV append -> forward over a paged cache without a copy back. */
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

/* KV heads replicated by rapt_kv_replicate and KV heads read in place give equal bits. */
static void replicate_equals_in_place(rapt_device *device, const char *text)
{
    struct problem_instance instance;
    struct problem_device on;
    build(text, &instance);
    expect_ok(problem_upload(&instance, device, &on), device, text);
    rapt_attention a = on.args.forward;
    int64_t heads = a.q.size[1], tokens = a.k.size[2], channels = a.k.size[3], count;
    size_t bytes = (size_t)(heads * tokens * channels) * (a.k.dtype == RAPT_F32 ? 4 : 2);
    void *memory[2];
    for (int i = 0; i < 2; i++)
        expect_ok(rapt_alloc(device, bytes, &memory[i]), device, "rapt_alloc");

    rapt_plan *plan;
    expect_ok(rapt_plan_create(&plan, device, &a), device, text);
    char kernel[64];
    snprintf(kernel, sizeof kernel, "%s", rapt_plan_kernel(plan));
    rapt_plan_destroy(&plan);
    run_on(device, &instance);
    float *in_place = elements(&instance.args.forward.out, &count);

    rapt_kv_replicate_args replicate = {.struct_size = sizeof replicate, .k = a.k, .v = a.v};
    replicate.k_out =
        rapt_tensor_bthd(memory[0], (rapt_dtype)a.k.dtype, 1, heads, tokens, channels);
    replicate.v_out =
        rapt_tensor_bthd(memory[1], (rapt_dtype)a.k.dtype, 1, heads, tokens, channels);
    expect_ok(rapt_kv_replicate(device, &replicate, NULL), device, "rapt_kv_replicate");
    a.k = replicate.k_out;
    a.v = replicate.v_out;
    a.kernel = kernel;
    problem_reset(&instance);
    expect_ok(rapt_forward(device, &a, NULL), device, text);
    expect_ok(rapt_synchronize(device, NULL), device, text);
    expect_ok(problem_download(&on, &instance), device, text);
    float *replicated = elements(&instance.args.forward.out, &count);
    assert_memory_equal(in_place, replicated, (size_t)count * sizeof *in_place);
    free(in_place);
    free(replicated);
    for (int i = 0; i < 2; i++) rapt_free(device, memory[i]);
    problem_device_free(&on);
    problem_free(&instance);
}

static void replicated_mqa_and_gqa(void **state)
{
    (void)state;
    for_each_device(device)
    {
        replicate_equals_in_place(device, "forward f32 b1 h32/1 q32 kv32 d128 causal");
        replicate_equals_in_place(device, "forward f32 b1 h32/8 q32 kv32 d128");
        replicate_equals_in_place(device, "forward bf16 b1 h32/1 q32 kv32 d128");
        replicate_equals_in_place(device, "forward bf16 b1 h32/8 q32 kv32 d128 causal");
        replicate_equals_in_place(device, "forward f16 b1 h32/1 q32 kv32 d128");
        replicate_equals_in_place(device, "forward f16 b1 h32/8 q32 kv32 d128 causal");
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

/* One step of a model: rotate q, append k (rotated) and v, attend; then every intermediate is
 * checked from copies. */
static void run_step(const struct step *s)
{
    rapt_device *device = s->device;
    int64_t q_count = BATCH * HEADS * s->tokens * CHANNELS, held[BATCH], used[BATCH],
            position[BATCH][PREFILL];
    static float q_rotated[Q_ALL], out[Q_ALL], k_cache[CACHE], v_cache[CACHE];
    for (int b = 0; b < BATCH; b++) {
        held[b] = s->held;
        used[b] = s->held + s->tokens;
        for (int64_t t = 0; t < s->tokens; t++) position[b][t] = s->held + t;
    }
    for (int64_t i = 0; i < q_count; i++) q_rotated[i] = out[i] = NAN;
    size_t q_bytes = (size_t)q_count * sizeof(float),
           kv_bytes = (size_t)(BATCH * KV_HEADS * s->tokens * CHANNELS) * sizeof(float);
    void *q = to_device(device, s->q, q_bytes), *q_out = to_device(device, q_rotated, q_bytes),
         *k = to_device(device, s->k, kv_bytes);
    void *v = to_device(device, s->v, kv_bytes), *o = to_device(device, out, q_bytes),
         *h = to_device(device, held, sizeof held);
    void *u = to_device(device, used, sizeof used),
         *p = to_device(device, position, sizeof position);

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

    /* Each stage against the oracle on what the stage before really gave. */
    static int32_t table[BATCH * PAGES_EACH];
    expect_ok(rapt_copy(device, q_rotated, q_out, q_bytes, NULL), device, "copy");
    expect_ok(rapt_copy(device, out, o, q_bytes, NULL), device, "copy");
    expect_ok(rapt_copy(device, k_cache, s->k_pages, sizeof k_cache, NULL), device, "copy");
    expect_ok(rapt_copy(device, v_cache, s->v_pages, sizeof v_cache, NULL), device, "copy");
    expect_ok(rapt_copy(device, table, s->table, sizeof table, NULL), device, "copy");
    rope.x.data = s->q;
    expect_rotated(&rope, position, q_rotated, "q");
    static float k_rows[KV_ALL];
    for (int b = 0; b < BATCH; b++)
        for (int64_t t = 0; t < s->tokens; t++)
            for (int g = 0; g < KV_HEADS; g++) {
                int64_t row = s->held + t, page = table[b * PAGES_EACH + row / PAGE];
                int64_t from = ((page * KV_HEADS + g) * PAGE + row % PAGE) * CHANNELS,
                        to = ((b * s->tokens + t) * KV_HEADS + g) * CHANNELS;
                memcpy(k_rows + to, k_cache + from, CHANNELS * sizeof *k_rows);
                assert_memory_equal(s->v + to, v_cache + from, CHANNELS * sizeof *v_cache);
            }
    rapt_rope_args k_check = rope;
    k_check.x = rapt_tensor_bthd(s->k, RAPT_F32, BATCH, KV_HEADS, s->tokens, CHANNELS);
    expect_rotated(&k_check, position, k_rows, "k in the cache");
    a.q.data = q_rotated, a.k.data = k_cache, a.v.data = v_cache, a.out.data = out,
    a.kv_length.data = used, a.page_table.data = table;
    struct accuracy accuracy;
    assert_true(accuracy_check_attention(&a, 0, 0, &accuracy));
    if (!(accuracy.worst <= 1))
        fail_msg("forward: error is %g of its bound at %s", accuracy.worst, accuracy.where);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(replicated_mqa_and_gqa),
                                       cmocka_unit_test(rope_append_forward)};
    return cmocka_run_group_tests_name("pipeline", tests, open_devices, close_devices);
}
