/* test_softmax_rows.c: which kernel softmax has for rows of a length, and how many blocks. */
#include "rows.h"

#include "gpu/gpu.h"

#include "group.h"

/* Softmax of more columns than its row's tile has a kernel of its own, where there is one. */
static void long_rows(void **state)
{
    (void)state;
    struct row softmax = {.op = OP_softmax, .tile_kv = 4096}, mask = {.op = OP_causal_mask},
               more = {.op = OP_softmax, .tile_kv = 32768},
               twice = {.op = OP_softmax, .tile_kv = 65536}, most = {.op = OP_softmax};
    struct gpu_device all = {.longer = {&more, &twice, &most}}, none = {0},
                      some = {.longer = {&more}}, gap = {.longer = {&more, NULL, &most}};
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 4096, RAPT_F32), &softmax);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 4097, RAPT_BF16), &more);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 32768, RAPT_F32), &more);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 32769, RAPT_F32), &twice);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 65537, RAPT_F32), &most);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 65536, RAPT_F16), &more);
    assert_ptr_equal(kernels_for_rows(&all, &softmax, 131072, RAPT_F16), &twice);
    assert_ptr_equal(kernels_for_rows(&gap, &softmax, 32769, RAPT_F32), &most);
    assert_ptr_equal(kernels_for_rows(&some, &softmax, 32769, RAPT_F32), &more);
    assert_ptr_equal(kernels_for_rows(&none, &softmax, 32769, RAPT_F32), &softmax);
    assert_ptr_equal(kernels_for_rows(&all, &mask, 32769, RAPT_F32), &mask);
    assert_null(kernels_for_rows(&all, NULL, 32769, RAPT_F32));
}

/* Rows of 16 bits have four rounds of 5, 2 or 1 blocks for each of 132 multiprocessors at most; of f32, and short
 * ones of whole pieces of 16 bytes, as many as their elements ask for. */
static void blocks_of_rows(void **state)
{
    static const struct {
        const char *name;
        int64_t bytes, columns, rows, blocks;
    } cases[] = {{"softmax", 2, 264, 1 << 20, 2640},    {"softmax", 2, 256, 1 << 20, 16384},
                 {"softmax", 2, 100, 1 << 20, 2640},    {"softmax", 2, 257, 1 << 20, 2640},
                 {"softmax", 4, 264, 1 << 20, 32768},   {"softmax", 4, 100, 1 << 20, 8192},
                 {"softmax", 2, 4096, 10000, 2500},     {"softmax", 2, 4096, 10560, 2640},
                 {"softmax", 2, 4096, 10564, 2640},     {"softmax", 4, 4096, 10564, 2641},
                 {"softmax_long", 2, 8192, 5000, 1056}, {"softmax_long", 4, 8192, 5000, 2500},
                 {"softmax_long", 2, 8192, 2000, 1000}, {"softmax_longer", 2, 131072, 5000, 528},
                 {"softmax_longer", 2, 131072, 7, 7},   {"softmax_longer", 4, 65536, 5000, 5000}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct row *row = row_named("sm_90a", cases[i].name);
        struct extent e = {.columns = cases[i].columns,
                           .rows = cases[i].rows,
                           .units = 132,
                           .score_bytes = cases[i].bytes};
        struct grid grid;
        assert_int_equal(row_grid(row, &e, &grid), 1);
        if (grid.x != cases[i].blocks)
            fail_msg("%s, %d bytes, %dx%d: %u blocks, not %d", row->name, (int)e.score_bytes,
                     (int)e.rows, (int)e.columns, grid.x, (int)cases[i].blocks);
        assert_true(grid.y == 1 && grid.z == 1);
    }
}

/* A device's multiprocessors and the type of the scores reach the grid. */
static void extent_of_scores(void **state)
{
    struct attention_args a = {.units = 7, .scores = {.dtype = DTYPE_bf16}};
    (void)state;
    struct extent e = extent_of(&a, 3);
    assert_true(e.units == 7 && e.rows == 3 && e.score_bytes == 2);
    a.scores.dtype = DTYPE_f32;
    e = extent_of(&a, 3);
    assert_int_equal(e.score_bytes, 4);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_rows),
                                       cmocka_unit_test(blocks_of_rows),
                                       cmocka_unit_test(extent_of_scores)};
    return run_group("softmax_rows", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
