/* test_splits.c: how many blocks share the keys of a query row, and what their results take. */
#include "session.h"

#include "gpu/splits.h"

static struct attention_args args_of(int batch, int kv_heads, int kv_tokens)
{
    return (struct attention_args){.batch = batch,
                                   .q_heads = 4 * kv_heads,
                                   .kv_heads = kv_heads,
                                   .group = 4,
                                   .q_tokens = 1,
                                   .kv_tokens = kv_tokens,
                                   .v_channels = 128,
                                   .units = 132};
}

static const struct row row = {.tile_q = 16, .tile_kv = 64};

/* Whole tiles, all keys, no more than two blocks a unit and 128 keys or more in each, or one. */
static void cuts(void **state)
{
    static const int keys[] = {0,    1,    64,   128,   129,    256,    300,
                               1000, 1024, 5000, 32768, 131072, 1 << 28};
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (int batch = 1; batch <= 300; batch += batch < 40 ? 1 : 87)
            for (int heads = 1; heads <= 32; heads *= 2) {
                struct attention_args a = args_of(batch, heads, keys[i]);
                splits_choose(&a, &row);
                assert_true(a.splits >= 1 && a.split_keys >= 128 && a.split_keys % 64 == 0);
                assert_true((int64_t)a.splits * a.split_keys >= keys[i]);
                assert_true((int64_t)(a.splits - 1) * a.split_keys < keys[i] || a.splits == 1);
                assert_true(a.splits == 1 || a.splits * batch * heads <= 2 * a.units);
                if (keys[i] >= 131072 && batch * heads <= 2 * a.units)
                    assert_true((a.splits + 1) * batch * heads > a.units);
            }
}

/* Cuts that know nothing but where a key is. */
static void invariant_cuts(void **state)
{
    (void)state;
    for (int batch = 1; batch < 400; batch += 57)
        for (int keys = 1; keys < 1 << 20; keys = 3 * keys + 1) {
            struct attention_args a = args_of(batch, 2, keys);
            a.batch_invariant = 1;
            splits_choose(&a, &row);
            assert_int_equal(a.split_keys, 1024);
            assert_int_equal(a.splits, (keys + 1023) / 1024);
        }
}

static void bytes(void **state)
{
    struct attention_args a = args_of(2, 8, 4096);
    size_t out = 1, lse = 1;
    (void)state;
    a.splits = 1;
    assert_int_equal(splits_bytes(&a, 64, &out, &lse), RAPT_OK);
    assert_true(out == 0 && lse == 0);
    a.splits = 3, a.v_channels = 126;
    assert_int_equal(splits_bytes(&a, 64, &out, &lse), RAPT_OK);
    assert_true(out == (size_t)3 * 64 * 128 * 4 && lse == (size_t)3 * 64 * 2 * 4);
    a.splits = 1 << 18;
    assert_int_equal(splits_bytes(&a, (int64_t)1 << 40, &out, &lse), RAPT_NO_MEMORY);
    if (!says(rapt_last_error(),
              "rapt_plan_create: the sums of 1099511627776 query rows over 262144 parts of their "
              "keys do not fit in 63 bits"))
        fail_msg("%s", rapt_last_error());
    assert_int_equal(splits_bytes(&a, (int64_t)1 << 45, &out, &lse), RAPT_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts), cmocka_unit_test(invariant_cuts),
                                       cmocka_unit_test(bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
