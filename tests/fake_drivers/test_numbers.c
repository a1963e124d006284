/* test_numbers.c: plans on sm_90 that make numbers of i8 keys and values ahead (NEED_NUMBERS): their
 * workspace, maps and launches, and for which problems the library takes them. */
#include "workspace.h"
#include "gpu/numbers.h"

/* K and V of 8 bits, with so many scales for each row: one sequence's keys apart from the next's, in pages
 * of 24 tokens, or packed. */
enum keys { KEYS_APART, KEYS_PAGED, KEYS_PACKED };
static void make_i8(struct trial *t, enum keys keys, void *index, int64_t scales)
{
    rapt_tensor *data[2] = {&t->a.k, &t->a.v}, *scale[2] = {&t->a.k_scale, &t->a.v_scale};
    int64_t batch = t->a.k.size[0], tokens = t->a.k.size[2], pages = parts_of(tokens, 24);
    for (int i = 0; i < 2; i++) {
        int64_t rows = keys == KEYS_PAGED ? 24 : tokens, d = data[i]->size[3],
                places = keys == KEYS_PAGED    ? 3 * batch * pages
                         : keys == KEYS_PACKED ? 1
                                               : batch;
        *data[i] = rapt_tensor_bthd(data[i]->data, RAPT_I8, places, data[i]->size[1], rows, d);
        *scale[i] = rapt_tensor_bthd((char *)data[i]->data + ((uintptr_t)1 << 39), RAPT_F32, places,
                                     data[i]->size[1], rows, scales);
    }
    if (keys == KEYS_PAGED) t->a.page_table = rapt_tensor_bhtd(index, RAPT_I32, batch, 1, pages, 1);
    if (keys == KEYS_PACKED)
        t->a.kv_start = (rapt_tensor){index, RAPT_I32, {batch + 1, 1, 1, 1}, {1, 0, 0, 0}};
}

static void rows_with_numbers(void **state)
{
    static int32_t index[4096];
    struct trial t;
    rapt_context *context;
    int rows = 0, served = 0;
    begin(*state, &context, &t);
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++) {
        if (!(row->needs & NEED_NUMBERS)) continue;
        rows++;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (enum keys keys = KEYS_APART; keys <= KEYS_PACKED; keys++) {
                set_problem(&t, (rapt_dtype)row->dtype, shapes[i], row->d, row->dv);
                make_i8(&t, keys, index, row->needs & NEED_BLOCK_SCALES ? row->d / 32 : 1);
                t.a.causal = 1;
                run(&t, row->name);
                served++;
            }
    }
    assert_true(rows == 16 && served == 480);
    rapt_close(&context);
    session_end(*state);
}

/* Where the library takes such rows: where many query rows see a key, and the numbers have room. */
static void numbers_that_pay(void **state)
{
    static const struct {
        int64_t size[6]; /* batch, heads, KV heads, queries, keys, channels if not 128 */
        int64_t window, invariant;
        int ahead, ahead_block32;
    } cases[] = {
        {{1, 32, 8, 2048, 2048}, 0, 0, 1, 1},
        {{1, 32, 8, 2048, 2048}, 0, 1, 0, 0},
        {{1, 32, 8, 256, 8192}, 0, 0, 1, 1},
        {{1, 32, 8, 191, 8192}, 0, 0, 0, 1},
        {{1, 32, 8, 256, 1024}, 0, 0, 1, 1},
        {{1, 32, 8, 256, 1023}, 0, 0, 0, 1},
        {{1, 32, 8, 512, 512}, 0, 0, 1, 1},
        {{1, 32, 8, 511, 511}, 0, 0, 0, 1},
        {{1, 8, 8, 2048, 8192}, 0, 0, 1, 1},
        {{1, 8, 8, 2048, 8192}, 383, 0, 0, 1},
        {{1, 8, 8, 2048, 8192}, 384, 0, 1, 1},
        {{1, 32, 8, 512, 131072}, 0, 0, 1, 0},
        {{1, 32, 8, 512, 131073}, 0, 0, 0, 0},
        {{4, 32, 8, 512, 32768}, 0, 0, 1, 0},
        {{4, 32, 8, 512, 32769}, 0, 0, 0, 0},
        {{1, 32, 8, 512, 87360}, 0, 0, 1, 1},
        {{1, 32, 8, 512, 87361}, 0, 0, 1, 0},
        {{1, 32, 8, 64, 8192}, 0, 0, 0, 1},
        {{1, 32, 8, 63, 8192}, 0, 0, 0, 1},
        {{1, 32, 8, 64, 4096}, 0, 0, 0, 1},
        {{1, 32, 8, 64, 4095}, 0, 0, 0, 1},
        {{1, 8, 8, 2048, 8192}, 127, 0, 0, 0},
        {{1, 8, 8, 2048, 8192}, 128, 0, 0, 1},
        {{4, 32, 8, 128, 2048}, 0, 0, 1, 1},
        {{4, 32, 8, 127, 2048}, 0, 0, 0, 1},
        {{3, 32, 8, 128, 4096}, 0, 0, 1, 1},
        {{1, 32, 8, 128, 8192}, 0, 0, 0, 1},
        {{2, 32, 8, 128, 8192}, 0, 0, 0, 1},
        {{1, 32, 8, 192, 2048}, 0, 0, 1, 1},
        {{1, 32, 8, 256, 2048}, 0, 0, 1, 1},
        {{1, 32, 8, 320, 4096}, 0, 0, 1, 1},
        {{2, 32, 8, 160, 4096}, 0, 0, 1, 1},
        {{1, 32, 8, 128, 2048}, 0, 0, 0, 1},
        {{2, 32, 8, 128, 2048}, 0, 0, 0, 1},
        {{1, 32, 8, 64, 2048}, 0, 0, 0, 1},
        {{2, 32, 8, 64, 2048}, 0, 0, 0, 1},
        {{2, 32, 8, 64, 2047}, 0, 0, 0, 1},
        {{4, 32, 8, 64, 2048}, 0, 0, 0, 1},
        /* three quarters of 2^22 rows times keys of all heads, and 96 rows */
        {{1, 32, 8, 96, 1024}, 0, 0, 0, 1},
        {{1, 32, 8, 96, 1023}, 0, 0, 0, 0},
        {{2, 32, 8, 48, 1024}, 0, 0, 0, 1},
        {{2, 32, 8, 48, 1023}, 0, 0, 0, 0},
        {{1, 32, 1, 16, 6144}, 0, 0, 0, 1},
        {{1, 32, 1, 16, 6143}, 0, 0, 0, 0},
        {{1, 32, 8, 24, 8192}, 0, 0, 0, 1},
        {{1, 32, 8, 23, 8192}, 0, 0, 0, 0},
        /* whole tiles from 192 rows on; heads with keys of their own from 120 queries on */
        {{4, 32, 32, 120, 1024}, 0, 0, 0, 1},
        {{4, 32, 32, 119, 1024}, 0, 0, 0, 0},
        {{16, 32, 8, 48, 512}, 0, 0, 0, 1},
        {{16, 32, 8, 47, 512}, 0, 0, 0, 0},
        /* 64 channels: 2^22, and 128 rows */
        {{1, 32, 8, 32, 4096, 64}, 0, 0, 0, 1},
        {{1, 32, 8, 32, 4095, 64}, 0, 0, 0, 0},
        {{1, 32, 8, 31, 8192, 64}, 0, 0, 0, 0},
        {{8, 32, 8, 64, 256, 64}, 0, 0, 0, 1},
        {{8, 32, 8, 64, 255, 64}, 0, 0, 0, 0},
        {{2, 32, 8, 64, 1024, 64}, 0, 0, 0, 1},
        {{2, 32, 8, 64, 1023, 64}, 0, 0, 0, 0},
    };
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const int block32 = i % 2;
        const int64_t *size = cases[i / 2].size, channels = size[5] ? size[5] : 128;
        set_problem(&t, RAPT_BF16, size, channels, channels);
        make_i8(&t, KEYS_APART, NULL, block32 ? channels / 32 : 1);
        t.a.causal = !cases[i / 2].window;
        t.a.window_left = t.a.window_right = 0;
        if (cases[i / 2].window) t.a.window_left = cases[i / 2].window + 1, t.a.window_right = 1;
        t.a.batch_invariant = cases[i / 2].invariant;
        rapt_plan *plan = NULL;
        if (rapt_plan_create(&plan, t.device, &t.a)) fail_msg("%s", rapt_last_error());
        int ahead = strstr(rapt_plan_kernel(plan), "_ahead") != NULL;
        if (ahead != (block32 ? cases[i / 2].ahead_block32 : cases[i / 2].ahead))
            fail_msg("case %zu: %s", i, rapt_plan_kernel(plan));
        if (ahead) {
            assert_true(!strstr(rapt_plan_kernel(plan), "_block32") == !block32);
            assert_true(rapt_plan_workspace_size(plan) >=
                        (size_t)(size[4] * size[2] * channels) * (block32 ? 6 : 4));
        }
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
    session_end(*state);
}

/* Numbers of more bytes than 63 bits count, and of as many as they do. */
static void numbers_too_many(void **state)
{
    const int64_t b = 1 << 20, h = 1 << 12, s = 1 << 28;
    struct trial t;
    rapt_context *context;
    rapt_plan *plan = NULL;
    begin(*state, &context, &t);
    set_problem(&t, RAPT_BF16, (const int64_t[]){1, 1, 1, 256, 256}, 64, 64);
    make_i8(&t, KEYS_APART, NULL, 1);
    rapt_tensor *of_keys[4] = {&t.a.k, &t.a.v, &t.a.k_scale, &t.a.v_scale};
    for (int i = 0; i < 4; i++) {
        of_keys[i]->size[0] = b, of_keys[i]->size[1] = h, of_keys[i]->size[2] = s;
        of_keys[i]->stride[0] = of_keys[i]->stride[1] = of_keys[i]->stride[2];
    }
    t.a.q = rapt_tensor_bthd(t.a.q.data, RAPT_BF16, b, h, 1, 64);
    t.a.out = rapt_tensor_bthd(t.a.out.data, RAPT_BF16, b, h, 1, 64);
    t.a.kernel = "sm90_bf16_i8_d64_ahead";
    assert_int_equal(rapt_plan_create(&plan, t.device, &t.a), RAPT_NO_MEMORY);
    assert_string_equal(
        rapt_last_error(),
        "rapt_plan_create: the numbers of 4294967296 x 2097152 blocks of 128 keys do "
        "not fit in 63 bits");
    assert_null(plan);
    for (int i = 0; i < 4; i++) of_keys[i]->size[2] = s >> 8;
    assert_int_equal(rapt_plan_create(&plan, t.device, &t.a), RAPT_OK);
    assert_true(rapt_plan_workspace_size(plan) > (size_t)1 << 59);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(*state);
}

/* Of packed sequences the mean counts. */
static void packed_numbers_that_pay(void **state)
{
    enum { SEQUENCES = 4 };
    const struct row *row = kernel_rows;
    struct problem p = {.batch = SEQUENCES,
                        .q_heads = 32,
                        .kv_heads = 8,
                        .group = 4,
                        .q_tokens = SEQUENCES * 256,
                        .kv_tokens = SEQUENCES * 1024,
                        .ragged_q = 1,
                        .ragged_kv = 1,
                        .window_left = WINDOW_OPEN,
                        .window_right = WINDOW_OPEN};
    (void)state;
    while (strcmp(row->name, "sm90_bf16_i8_d128_ahead")) row++;
    assert_true(numbers_pay_whole(&p, row));
    p.kv_tokens -= SEQUENCES;
    assert_false(numbers_pay_whole(&p, row));
    p.kv_tokens = SEQUENCES * 8192, p.q_tokens = SEQUENCES * 128;
    assert_true(numbers_pay_whole(&p, row));
    p.q_tokens -= SEQUENCES;
    assert_false(numbers_pay_whole(&p, row));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {ON_CUDA(rows_with_numbers), ON_CUDA(numbers_that_pay),
                                       ON_CUDA(packed_numbers_that_pay), ON_CUDA(numbers_too_many)};
    return run_group("numbers", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
