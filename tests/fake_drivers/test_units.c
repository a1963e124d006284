/* test_units.c: which blocks of decode share a compute unit, and which are kept apart. */
#include "rows.h"

#include "group.h"

/* Parts of 32 query heads over 8 that were the fastest on an H200 or within 4 % of these, where two blocks of integers
 * share a multiprocessor, which both together use better than one, though each takes longer; and shared memory that
 * keeps blocks apart which are no more than multiprocessors. */
static void parts_of_integers(void **state)
{
    static const struct {
        int batch, keys, parts;
    } cases[] = {{1, 1024, 8},  {1, 2048, 16}, {1, 4096, 16}, {1, 8192, 16}, {1, 32768, 32},
                 {4, 1024, 8},  {4, 8192, 8},  {8, 1024, 4},  {8, 2048, 4},  {16, 1024, 1},
                 {16, 2048, 2}, {16, 8192, 2}, {24, 2048, 1}, {64, 1024, 1}, {64, 8192, 1}};
    static const char *const names[] = {"decode_bf16_i8_d128", "decode_f16_i8_d128_block32"};
    (void)state;
    for (int n = 0; n < 2; n++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const struct row *row = row_named("sm_90a", names[n]);
            struct attention_args a = args_of(cases[i].batch, 8, cases[i].keys);
            splits_choose(&a, row, 0);
            if (a.splits != cases[i].parts)
                fail_msg("%s, %dx%d: %d parts, not %d", row->name, a.batch, a.kv_tokens, a.splits,
                         cases[i].parts);
            int apart = a.batch * 8 * a.splits <= a.units;
            assert_int_equal(splits_shared(&a, row), apart ? 120 << 10 : 0);
            assert_true(splits_shared(&a, row) <= splits_most_shared(row));
        }
}

/* Rows that are alone on a multiprocessor anyway, or that memory limits, ask for nothing. */
static void nothing_to_keep_apart(void **state)
{
    static const struct {
        const char *arch, *name;
    } rows[] = {{"sm_90a", "decode_bf16_d128"},
                {"sm_80", "decode_bf16_d128"},
                {"sm_80", "decode_bf16_i8_d128"},
                {"sm_120", "decode_bf16_i8_d128"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = row_named(rows[i].arch, rows[i].name);
        struct attention_args a = args_of(1, 8, 1024);
        splits_choose(&a, row, 0);
        assert_int_equal(splits_shared(&a, row), 0);
        assert_int_equal(splits_most_shared(row), 0);
    }
}

/* Shared memory that spreads the blocks of the second launch, a query row's each. */
static void second_launches_spread(void **state)
{
    static const struct {
        const char *arch, *name;
        int batch, keys, shared;
    } cases[] = {{"sm_90a", "decode_bf16_d128", 1, 8192, 76 << 10},
                 {"sm_90a", "decode_bf16_d128", 1, 512, 0 /* of few first blocks */},
                 {"sm_90a", "decode_bf16_d128", 4, 8192, 48 << 10},
                 {"sm_90a", "decode_bf16_d128", 8, 8192, 48 << 10},
                 {"sm_90a", "decode_bf16_d128", 9, 8192, 0},
                 {"sm_90a", "decode_bf16_i8_d128", 1, 8192, 76 << 10},
                 {"sm_90a", "decode_bf16_i8_d128", 1, 32768, 76 << 10},
                 {"sm_90a", "decode_bf16_i8_d128", 4, 8192, 0 /* beside two */},
                 {"sm_90a", "decode_bf16_i8_d64", 1, 32768, 0},
                 {"sm_100", "decode_f16_d256", 2, 8192, 76 << 10},
                 {"sm_80", "decode_bf16_d128", 1, 8192, 0},
                 {"sm_120", "decode_bf16_d128", 1, 8192, 0},
                 {"sm_90a", "decode_d128", 1, 8192, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct row *row = row_named(cases[i].arch, cases[i].name);
        struct attention_args a = args_of(cases[i].batch, 8, cases[i].keys);
        splits_choose(&a, row, 0);
        int shared = splits_combine_shared(&a, row);
        if (shared != cases[i].shared || shared > splits_most_combine_shared(row))
            fail_msg("%s %s, %dx%d: %d of %d bytes, not %d", row->arch, row->name, a.batch,
                     a.kv_tokens, shared, splits_most_combine_shared(row), cases[i].shared);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_of_integers),
                                       cmocka_unit_test(nothing_to_keep_apart),
                                       cmocka_unit_test(second_launches_spread)};
    return run_group("units", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
