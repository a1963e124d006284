/* forward_items.c: the items of a packed batch on the CPU. Each row of a sequence that is not decode's is in one item
 * of each KV head, whether units are sequences or blocks of rows, and what takes longest comes first. */
#include "cpu/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

enum {
    SEQUENCES = 8,
    KV_HEADS = 2,
    GROUP = 4,
    CHANNELS = 32,
    LONGEST = 300,
    TOKENS = 353,
    ROWS = 53, /* of a block: 160 rows are three blocks and a row */
    UNITS = TOKENS * GROUP / ROWS + SEQUENCES,
    CLASSES = 63 /* of costs; those of one class come in any order */
};

/* 4 queries of 4 heads are 16 rows, the most that decode takes. */
static const int32_t lengths[SEQUENCES] = {40, 1, 4, 5, LONGEST, 0, 0, 3};
static int32_t starts[SEQUENCES + 1];
static float q[KV_HEADS * GROUP * TOKENS * CHANNELS], out[KV_HEADS * GROUP * TOKENS * CHANNELS],
    k[KV_HEADS * TOKENS * CHANNELS];

static rapt_attention packed(void)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    for (int i = 0; i < SEQUENCES; i++) starts[i + 1] = starts[i] + lengths[i];
    assert_int_equal(starts[SEQUENCES], TOKENS);
    a.q = rapt_tensor_bthd(q, RAPT_F32, 1, KV_HEADS * GROUP, TOKENS, CHANNELS);
    a.out = rapt_tensor_bthd(out, RAPT_F32, 1, KV_HEADS * GROUP, TOKENS, CHANNELS);
    a.k = a.v = rapt_tensor_bthd(k, RAPT_F32, 1, KV_HEADS, TOKENS, CHANNELS);
    a.q_start = a.kv_start = rapt_tensor_bhtd(starts, RAPT_I32, SEQUENCES + 1, 1, 1, 1);
    return a;
}

/* Rows times the keys that they see between them; there are as many keys as queries. */
static double cost_of(const struct forward_unit *u, int64_t left)
{
    int64_t first = u->row_first / GROUP - left, last = (u->row_first + u->rows - 1) / GROUP;
    return (double)u->rows * (double)(last + 1 - (first > 0 ? first : 0));
}

static void check_call(const struct cpu_call *call, int64_t left, int64_t expected_units)
{
    static int seen[SEQUENCES][KV_HEADS][LONGEST * GROUP];
    struct forward_unit table[UNITS];
    int64_t items = -1;
    assert_true(forward_count_units(call->problem, call->plan) <= UNITS);
    int64_t units = forward_sort_units(call, table, &items);
    assert_int_equal(units, expected_units);
    assert_true(units <= forward_count_units(call->problem, call->plan)); /* which have room */
    double most = 0;
    for (int64_t i = 0; i < units; i++)
        if (cost_of(&table[i], left) > most) most = cost_of(&table[i], left);
    for (int64_t i = 0; i + 1 < units; i++)
        assert_true((int)(cost_of(&table[i + 1], left) / most * CLASSES) <=
                    (int)(cost_of(&table[i], left) / most * CLASSES));
    memset(seen, 0, sizeof seen);
    for (int64_t i = 0; i < items; i++) {
        struct forward_block b = forward_item_at(call, table, units, i);
        for (int64_t r = b.row0; r < b.row0 + ROWS && r < lengths[b.sequence] * GROUP; r++)
            seen[b.sequence][b.kv_head][r]++;
    }
    for (int s = 0; s < SEQUENCES; s++)
        for (int h = 0; h < KV_HEADS; h++)
            for (int r = 0; r < LONGEST * GROUP; r++)
                assert_int_equal(seen[s][h][r], lengths[s] > 4 && r < lengths[s] * GROUP);
}

/* With all keys up to a row's own, or with so many before it. */
static void check_window(rapt_device *device, int64_t left)
{
    rapt_attention a = packed(), complete;
    rapt_plan *plan = NULL;
    struct problem_data data;
    if (left < LONGEST) a.window_left = RAPT_WINDOW(left);
    assert_int_equal(rapt_plan_create(&plan, device, &a), RAPT_OK);
    assert_int_equal(params_match(&plan->problem, &a, "test", &data), RAPT_OK);
    params_complete(&plan->problem, &data, &complete);
    struct cpu_plan own = *(const struct cpu_plan *)plan->state;
    own.decode_rows = 16;
    own.row_block = ROWS;
    own.block_count = forward_count_blocks(&plan->problem, ROWS);
    struct cpu_call call = {&plan->problem, &complete, &own, NULL, NULL};
    own.slots = 1;
    check_call(&call, left, 3); /* sequences */
    own.slots = 64;
    check_call(&call, left, 4 + 1 + 23); /* blocks of 160, 20 and 1,200 rows */
    rapt_plan_destroy(&plan);
}

static void each_row_once(void **state)
{
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
    rapt_context *context = NULL;
    (void)state;
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    check_window(rapt_device_at(context, 0), LONGEST);
    check_window(rapt_device_at(context, 0), 9);
    rapt_close(&context);
}

/* Rows of a sequence begin a block of their own. */
static void blocks_of_a_batch(void **state)
{
    struct problem p = {.batch = 3, .group = GROUP, .q_tokens = 40};
    (void)state;
    assert_int_equal(forward_count_blocks(&p, ROWS), 3 * 4);
    p.q_tokens = ROWS;
    assert_int_equal(forward_count_blocks(&p, ROWS), 3 * GROUP);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_row_once),
                                       cmocka_unit_test(blocks_of_a_batch)};
    return run_group("forward items", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
