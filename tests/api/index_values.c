/* index_values.c: index tensors of 64 bits are read whole: an entry that differs from a good one by
 * 2^32, which is the same number in 32 bits, is refused as itself, and nothing is written. */
#include "api.h"

enum { PAGE = 4, PAGES = 2, ENTRIES = 4, TABLE_ROWS = 16 };

static rapt_context *context;
static rapt_device *device;
static struct call call;
static int64_t starts[ENTRIES], lengths[ENTRIES], table[ENTRIES], positions[B * SQ];
static float cache_k[64], cache_v[64], new_k[64], new_v[64], angles[TABLE_ROWS * D / 2];

static rapt_tensor whole(const int64_t *entries, int64_t count)
{
    return rapt_tensor_bhtd(entries, RAPT_I64, count, 1, 1, 1);
}

static void fill(int64_t *entries, int64_t a, int64_t b, int64_t c, int64_t d)
{
    entries[0] = a, entries[1] = b, entries[2] = c, entries[3] = d;
}

/* ---- Attention: ragged, a cache, a paged one ---- */

static void ragged(void)
{
    fill(starts, 0, 3, B * SQ, 0);
    call.a.q = rapt_tensor_bthd(call.q, RAPT_F32, 1, HQ, B * SQ, D);
    call.a.out = rapt_tensor_bthd(call.out, RAPT_F32, 1, HQ, B * SQ, DV);
    call.a.q_start = whole(starts, B + 1);
}

static void ragged_keys(void)
{
    fill(starts, 0, 3, B * SKV, 0);
    call.a.k = rapt_tensor_bthd(call.k, RAPT_F32, 1, HKV, B * SKV, D);
    call.a.v = rapt_tensor_bthd(call.v, RAPT_F32, 1, HKV, B * SKV, DV);
    call.a.kv_start = whole(starts, B + 1);
}

static void cached(void)
{
    fill(lengths, 5, SKV, 0, 0);
    call.a.kv_length = whole(lengths, B);
}

static void paged(void)
{
    fill(table, 1, 0, 0, 1);
    call.a.k = rapt_tensor_bthd(call.k, RAPT_F32, PAGES, HKV, PAGE, D);
    call.a.v = rapt_tensor_bthd(call.v, RAPT_F32, PAGES, HKV, PAGE, DV);
    call.a.page_table = (rapt_tensor){table, RAPT_I64, {B, 1, PAGES, 1}, {PAGES, 0, 1, 0}};
}

/* ---- Append: the same cache; positions that a table of angles has ---- */

static rapt_kv_append_args append;
static rapt_rope_args rope;

static void appended(void)
{
    fill(lengths, 2, 0, 0, 0);
    append = (rapt_kv_append_args){.struct_size = sizeof append,
                                   .k_new = rapt_tensor_bhtd(new_k, RAPT_F32, 1, 1, 2, D),
                                   .v_new = rapt_tensor_bhtd(new_v, RAPT_F32, 1, 1, 2, D),
                                   .k = rapt_tensor_bhtd(cache_k, RAPT_F32, 1, 1, 8, D),
                                   .v = rapt_tensor_bhtd(cache_v, RAPT_F32, 1, 1, 8, D),
                                   .kv_length = whole(lengths, 1)};
}

static void appended_ragged(void)
{
    appended();
    fill(starts, 0, 2, 0, 0);
    append.q_start = whole(starts, 2);
}

static void appended_paged(void)
{
    appended();
    fill(table, 1, 0, 0, 0);
    append.k = rapt_tensor_bhtd(cache_k, RAPT_F32, 2, 1, 4, D);
    append.v = rapt_tensor_bhtd(cache_v, RAPT_F32, 2, 1, 4, D);
    append.page_table = (rapt_tensor){table, RAPT_I64, {1, 1, PAGES, 1}, {PAGES, 0, 1, 0}};
}

static void appended_turned(void)
{
    appended();
    positions[0] = 9, positions[1] = 10;
    rope = (rapt_rope_args){.struct_size = sizeof rope,
                            .position = {positions, RAPT_I64, {1, 1, 2, 1}, {2, 0, 1, 0}},
                            .cos = rapt_tensor_bhtd(angles, RAPT_F32, 1, 1, TABLE_ROWS, D / 2)};
    rope.sin = rope.cos;
    append.rope = &rope;
}

static void turned(void)
{
    appended_turned();
    rope.x = rapt_tensor_bhtd(new_k, RAPT_F32, 1, 1, 2, D);
    rope.out = rapt_tensor_bhtd(cache_k, RAPT_F32, 1, 1, 2, D);
}

/* ---- All of them ---- */

enum function { FORWARD, APPEND, ROPE };

static rapt_status run(enum function function)
{
    return function == FORWARD  ? rapt_forward(device, &call.a, NULL)
           : function == APPEND ? rapt_kv_append(device, &append, NULL)
                                : rapt_rope(device, &rope, NULL);
}

static const struct wide {
    const char *name;
    enum function function;
    void (*set_up)(void);
    int64_t *entry;
    const char *sentence;
} rows[] = {
    {"q_start", FORWARD, ragged, &starts[1], "rapt_forward: q_start[1] is 4294967299 (0 ... 10)"},
    {"kv_start", FORWARD, ragged_keys, &starts[1],
     "rapt_forward: kv_start[1] is 4294967299 (0 ... 14)"},
    {"kv_length", FORWARD, cached, &lengths[0],
     "rapt_forward: kv_length[0] is 4294967301 (0 ... 7)"},
    {"page_table", FORWARD, paged, &table[0],
     "rapt_forward: page_table[0, 0] is 4294967297 (0 ... 1)"},
    {"kv_length of append", APPEND, appended, &lengths[0],
     "rapt_kv_append: sequence 0 holds 4294967298 tokens and gets 2 (the cache has room for 8)"},
    {"q_start of append", APPEND, appended_ragged, &starts[1],
     "rapt_kv_append: q_start[0] is 0 and q_start[1] is 4294967298 (rising, 0 ... 2)"},
    {"page_table of append", APPEND, appended_paged, &table[0],
     "rapt_kv_append: page_table[0, 0] is 4294967297 (0 ... 1)"},
    {"position of append", APPEND, appended_turned, &positions[1],
     "rapt_kv_append: a position is 4294967306 (cos and sin have rows 0 ... 15)"},
    {"position", ROPE, turned, &positions[1],
     "rapt_rope: a position is 4294967306 (cos and sin have rows 0 ... 15)"},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void fill_outputs(void)
{
    memset(call.out, 0xff, sizeof call.out);
    memset(cache_k, 0xff, sizeof cache_k);
    memset(cache_v, 0xff, sizeof cache_v);
}

/* Whether all outputs are as fill_outputs left them. */
static int untouched(void)
{
    const unsigned char *bytes[] = {(unsigned char *)call.out, (unsigned char *)cache_k,
                                    (unsigned char *)cache_v};
    const size_t sizes[] = {sizeof call.out, sizeof cache_k, sizeof cache_v};
    for (int n = 0; n < 3; n++)
        for (size_t i = 0; i < sizes[n]; i++)
            if (bytes[n][i] != 0xff) return 0;
    return 1;
}

static void test_wide(void **state)
{
    const struct wide *row = *state;
    call_reset(&call);
    row->set_up();
    fill_outputs();
    if (run(row->function)) fail_msg("%s", rapt_last_error());
    assert_false(untouched());
    fill_outputs();
    *row->entry += (int64_t)1 << 32;
    expect(run(row->function), RAPT_INVALID, row->sentence);
    assert_true(untouched());
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[ROWS];
    for (int i = 0; i < ROWS; i++)
        tests[i] = (struct CMUnitTest){rows[i].name, test_wide, NULL, NULL, (void *)&rows[i]};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("index values", tests, ROWS, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
