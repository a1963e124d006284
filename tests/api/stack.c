/* stack.c: calls need little of their thread's stack. Threads of an engine may have 64 KiB. */
#include "api.h"

#include <pthread.h>

enum { SMALL = 64 << 10, GUARD = 4 << 10, ROOM = 1 << 20, PAINT = 0x5c };
enum { TOKENS = 72, HEADS = 4, KV_HEADS = 2, MOST = 2048 };

static rapt_context *context;
static rapt_device *device;
static float x[TOKENS * HEADS * MOST], y[TOKENS * HEADS * MOST], z[TOKENS * HEADS * MOST],
    table[TOKENS * MOST];
static int failures;

static void note(rapt_status status)
{
    if (!status) return;
    print_message("%s\n", rapt_last_error());
    failures++;
}

static rapt_tensor rows(const void *data, rapt_dtype dtype, int heads, int tokens, int channels)
{
    return rapt_tensor_bthd(data, dtype, 1, heads, tokens, channels);
}

/* Prefill and decode by plans of each kernel that takes them. */
static void attend(rapt_dtype type, rapt_dtype cache, int tokens, int channels, int everything)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = rows(x, type, HEADS, tokens, channels);
    a.k = a.v = rows(y, cache, KV_HEADS, TOKENS, channels);
    a.out = rows(z, RAPT_F32, HEADS, tokens, channels);
    if (cache == RAPT_I8)
        a.k_scale = a.v_scale = rows(table, RAPT_F32, KV_HEADS, TOKENS, everything ? 2 : 1);
    if (everything) {
        a.softcap = 5;
        a.bias = rapt_tensor_bhtd(table, RAPT_F32, 1, 1, tokens, TOKENS);
        a.sink = a.alibi_slope = rapt_tensor_bhtd(table, RAPT_F32, 1, HEADS, 1, 1);
        a.weights =
            rapt_tensor_bhtd(z + TOKENS * HEADS * MOST / 2, RAPT_F32, 1, HEADS, tokens, TOKENS);
    }
    note(rapt_forward(device, &a, NULL));
    for (int64_t i = 0; i < rapt_kernel_count(context); i++) {
        rapt_kernel_info info = {.struct_size = sizeof info};
        rapt_plan *plan;
        void *workspace;
        note(rapt_kernel_at(context, i, &info));
        a.kernel = info.name;
        if (!info.present || strcmp(info.op, "forward") || rapt_plan_create(&plan, device, &a))
            continue;
        note(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace));
        note(rapt_plan_execute(plan, &a, workspace, NULL));
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
    }
}

static void attention(void)
{
    static const rapt_dtype types[][2] = {{RAPT_F32, RAPT_F32},   {RAPT_F16, RAPT_F16},
                                          {RAPT_BF16, RAPT_BF16}, {RAPT_F32, RAPT_BF16},
                                          {RAPT_F32, RAPT_I8},    {RAPT_BF16, RAPT_I8}};
    static const int channels[] = {6, 64, 128, 256, 576};
    for (int i = 0; i < 6 * 5 * 2; i++)
        for (int tokens = 1; tokens <= TOKENS; tokens += tokens == 1 ? 4 : TOKENS - 5)
            attend(types[i % 6][0], types[i % 6][1], tokens, channels[i / 6 % 5], i / 30);
    rapt_attention wrong = {.struct_size = sizeof wrong};
    char text[64];
    assert_int_equal(rapt_forward(device, &wrong, NULL), RAPT_INVALID);
    rapt_explain(device, &wrong, text, sizeof text);
}

static void appends(void)
{
    rapt_rope_args rope = {.struct_size = sizeof rope};
    rapt_kv_append_args a = {.struct_size = sizeof a, .rope = &rope};
    a.k_new = a.v_new = rows(x, RAPT_F32, KV_HEADS, TOKENS, MOST);
    for (int type = RAPT_F32; type <= RAPT_I8; type++) {
        a.k = rows(y, (rapt_dtype)type, KV_HEADS, TOKENS, MOST);
        a.v = rows(z, (rapt_dtype)type, KV_HEADS, TOKENS, MOST);
        if (type == RAPT_I8) {
            a.k_scale = rows(table, RAPT_F32, KV_HEADS, TOKENS, 1);
            a.v_scale = rows(table + TOKENS * KV_HEADS, RAPT_F32, KV_HEADS, TOKENS, 1);
        }
        note(rapt_kv_append(device, &a, NULL));
        if (type == RAPT_I8) break;
        a.kv_layout = RAPT_KV_BLOCKED;
        a.k = rapt_tensor_blocked(y, (rapt_dtype)type, 1, KV_HEADS, TOKENS, MOST);
        a.v = rapt_tensor_blocked(z, (rapt_dtype)type, 1, KV_HEADS, TOKENS, MOST);
        note(rapt_kv_append(device, &a, NULL));
        a.kv_layout = RAPT_KV_STRIDED;
    }
}

static void pieces(void)
{
    static const rapt_dtype types[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    for (int i = 0; i < 3; i++) {
        rapt_dtype type = types[i];
        rapt_rope_args rope = {.struct_size = sizeof rope};
        rope.x = rows(x, type, HEADS, TOKENS, MOST);
        rope.out = rows(y, type, HEADS, TOKENS, MOST);
        note(rapt_rope(device, &rope, NULL));
        for (int columns = 50; columns <= 50000; columns *= 10) {
            rapt_softmax_args softmax = {.struct_size = sizeof softmax};
            softmax.x = rapt_tensor_bhtd(x, type, 1, 1, 2, columns);
            softmax.out = rapt_tensor_bhtd(y, type, 1, 1, 2, columns);
            note(rapt_softmax(device, &softmax, NULL));
        }
        rapt_qk_args qk = {.struct_size = sizeof qk};
        qk.q = rows(x, type, HEADS, TOKENS, 512), qk.k = rows(y, type, KV_HEADS, TOKENS, 512);
        qk.out = rapt_tensor_bhtd(z, RAPT_F32, 1, HEADS, TOKENS, TOKENS);
        note(rapt_qk(device, &qk, NULL));
        rapt_pv_args pv = {.struct_size = sizeof pv};
        pv.weights = rapt_tensor_bhtd(x, RAPT_F32, 1, HEADS, TOKENS, TOKENS);
        pv.v = qk.k, pv.out = rows(z, type, HEADS, TOKENS, 512);
        note(rapt_pv(device, &pv, NULL));
        rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = pv.weights};
        note(rapt_causal_mask(device, &mask, NULL));
        rapt_kv_replicate_args replicate = {.struct_size = sizeof replicate};
        replicate.k = replicate.v = rows(x, type, KV_HEADS, TOKENS, 128);
        replicate.k_out = rows(y, type, HEADS, TOKENS, 128);
        replicate.v_out = rows(z, type, HEADS, TOKENS, 128);
        note(rapt_kv_replicate(device, &replicate, NULL));
    }
}

static void *run(void *calls)
{
    (*(void (**)(void))calls)();
    return NULL;
}

/* Bytes of its stack that a thread has written when it has made the calls. */
static size_t stack_of(void (*calls)(void))
{
    unsigned char *stack = aligned_alloc(GUARD, ROOM);
    pthread_attr_t attributes;
    pthread_t thread;
    assert_non_null(stack);
    memset(stack, PAINT, ROOM);
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, ROOM), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run, (void *)&calls), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    size_t untouched = 0;
    while (untouched < ROOM && stack[untouched] == PAINT) untouched++;
    free(stack);
    return ROOM - untouched;
}

static void calls_take_little_stack(void **state)
{
    static void (*const calls[])(void) = {attention, appends, pieces};
    static const char *const names[] = {"attention", "rapt_kv_append", "the other pieces"};
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip_test("sanitizers take a stack of their own");
#endif
    for (int i = 0; i < 3; i++) {
        size_t bytes = stack_of(calls[i]);
        print_message("# %s: %zu bytes of stack\n", names[i], bytes);
        if (bytes > SMALL - GUARD) fail_msg("%s: %zu bytes of stack", names[i], bytes);
    }
    assert_int_equal(failures, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_take_little_stack)};
    open_cpu(&context, 1);
    device = rapt_device_at(context, 0);
    int failed = run_group("stack", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
