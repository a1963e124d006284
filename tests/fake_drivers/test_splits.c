/* test_splits.c: how many blocks share the keys of a query row, what their results take, and the
 * launch that makes one result of them. */
#include "rows.h"

#include <stdio.h>

#include "group.h"

/* Tiles of 16 query rows and 64 keys, two blocks a unit. */
static struct row row_of_tiles(void)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (!strcmp(kernel_rows[i].name, "decode_bf16_d64") && kernel_rows[i].tile_kv == 64)
            return kernel_rows[i];
    fail_msg("no row of that name");
    return kernel_rows[0];
}

/* Whole tiles, all keys, no more than four turns of two blocks a unit and 128 keys or more in each,
 * or one. */
static void cuts(void **state)
{
    static const int keys[] = {0,    1,    64,   128,   129,    256,    300,
                               1000, 1024, 5000, 32768, 131072, 1 << 28};
    const struct row row = row_of_tiles();
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (int batch = 1; batch <= 300; batch += batch < 40 ? 1 : 87)
            for (int heads = 1; heads <= 32; heads *= 2) {
                struct attention_args a = args_of(batch, heads, keys[i]);
                splits_choose(&a, &row, 0);
                assert_true(a.splits >= 1 && a.split_keys >= 128 && a.split_keys % 64 == 0);
                assert_true((int64_t)a.splits * a.split_keys >= keys[i]);
                assert_true((int64_t)(a.splits - 1) * a.split_keys < keys[i] || a.splits == 1);
                assert_true(a.splits == 1 || a.splits * batch * heads <= 4 * 2 * a.units);
                if (keys[i] >= 131072 && batch * heads <= 2 * a.units)
                    assert_true((a.splits + 1) * batch * heads > a.units);
            }
}

/* 132 units run twice as many blocks at once, unless one takes half of the shared memory; a block has
 * as many query rows of a KV head as its tile, and packed sequences may begin one more each. */
static void blocks_at_once(void **state)
{
    static const struct {
        int packed, shared, queries, parts; /* of 2^20 keys, with 4 query heads over each KV head */
    } cases[] = {{0, 0, 1, 264},         {0, 65536, 1, 264},
                 {0, 113 << 10, 1, 264}, {0, (113 << 10) + 1, 1, 132},
                 {0, 200 << 10, 1, 132}, {0, 0, 4, 264},
                 {0, 0, 5, 132},         {0, 0, 8, 132},
                 {0, 0, 32, 33},         {0, 200 << 10, 1000, 1},
                 {1, 0, 3, 264},         {1, 0, 4, 132},
                 {1, 0, 28, 33}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct row own = row_of_tiles();
        struct attention_args a = args_of(1, 1, 1 << 20);
        own.shared = cases[i].shared, a.q_tokens = cases[i].queries;
        if (cases[i].packed) a.q_start.dtype = DTYPE_i32;
        splits_choose(&a, &own, 0);
        /* whole tiles of keys may leave the last blocks none */
        assert_true(a.splits <= cases[i].parts && a.splits >= cases[i].parts * 0.95);
    }
}

/* ---- Tiles that share the keys of many query rows ---- */

static const struct row tiles_row = {.arch = "sm_90a",
                                     .source = "nvidia/forward_sm90.cu",
                                     .tile_q = 128,
                                     .tile_kv = 128,
                                     .threads = 384,
                                     .needs = NEED_CLAIMED | NEED_PARTIALS | NEED_TILE_TOKENS};

/* Queries of a tile: one head's, or those of as many heads of a group as leave the fewest tiles. */
static void tiles_of_heads(void **state)
{
    static const struct {
        int queries, group, tokens, tiles; /* of each of two KV heads of two sequences */
    } cases[] = {{1, 1, 128, 1},  {64, 1, 128, 1},  {64, 4, 64, 2},  {32, 4, 32, 1},
                 {33, 4, 64, 2},  {16, 8, 16, 1},   {17, 8, 32, 2},  {128, 4, 128, 4},
                 {200, 4, 32, 7}, {20, 7, 32, 2},   {16, 32, 16, 4}, {96, 2, 128, 2},
                 {80, 4, 32, 3},  {130, 1, 128, 2}, {130, 8, 16, 9}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct attention_args a = args_of(2, 2, 8192);
        a.q_tokens = cases[i].queries, a.group = cases[i].group, a.q_heads = 2 * a.group;
        splits_choose(&a, &tiles_row, 0);
        if (a.tile_tokens != cases[i].tokens || splits_tiles(&a, &tiles_row) != 4L * cases[i].tiles)
            fail_msg("%d queries, %d heads: %d of a tile, %lld tiles", a.q_tokens, a.group,
                     a.tile_tokens, (long long)splits_tiles(&a, &tiles_row));
    }
}

/* Sizes whose products leave little of 63 bits. */
static void tiles_without_number(void **state)
{
    struct problem p = {.batch = 1 << 20,
                        .q_heads = 1 << 10,
                        .kv_heads = 1 << 10,
                        .group = 1,
                        .q_tokens = 1 << 24,
                        .kv_tokens = (1 << 29) - 1,
                        .window_left = WINDOW_OPEN,
                        .window_right = WINDOW_OPEN};
    struct attention_args a = args_of(1 << 20, 1 << 10, (1 << 29) - 1);
    (void)state;
    a.q_tokens = 1 << 24, a.group = 1, a.q_heads = a.kv_heads;
    a.window_left = a.window_right = WINDOW_LIMIT;
    splits_choose(&a, &tiles_row, 0);
    assert_int_equal(a.splits, 2);
    assert_int_equal(splits_tiles(&a, &tiles_row), (int64_t)1 << 47);
    assert_int_equal(splits_pay(&p, &tiles_row), 0);
    p.batch = p.q_heads = p.kv_heads = 1, p.q_tokens = 128;
    assert_int_equal(splits_pay(&p, &tiles_row), 1);
    p.batch = p.q_tokens = 0, p.a.kv_start.dtype = RAPT_I32; /* packed, of no sequence */
    assert_int_equal(splits_pay(&p, &tiles_row), 0);
}

/* Several parts, none without a block where there are two; and they fill the units, or ask for about as
 * many blocks of different keys as memory brings at least, unless keys are few. */
static void parts_of_tiles(void **state)
{
    (void)state;
    for (int batch = 1; batch <= 64; batch *= 2)
        for (int keys = 1; keys < 1 << 20; keys = 3 * keys + 1)
            for (int queries = 16; queries <= 1024; queries *= 2) {
                struct attention_args a = args_of(batch, 2, keys);
                a.q_tokens = queries, a.window_left = a.window_right = WINDOW_LIMIT;
                splits_choose(&a, &tiles_row, 0);
                int64_t blocks = (keys + 127) / 128, tiles = splits_tiles(&a, &tiles_row);
                assert_true(a.splits >= 2 && (a.splits <= blocks || a.splits == 2));
                if (blocks >= 1000 && tiles < a.units)
                    if (tiles * a.splits <= a.units * 2 / 3 && 2 * batch * a.splits <= 64 * 2 / 3)
                        fail_msg("%d of %d queries: %d parts of %lld tiles", batch, queries,
                                 a.splits, (long long)tiles);
            }
}

/* Parts that were the fastest of those measured on an H100, with 32 query heads over 8: where a tile has
 * all query rows of a KV head, memory has 64 blocks for all at a time, or eight of each KV head. */
static void parts_as_measured(void **state)
{
    static const struct {
        int batch, queries, keys, parts;
    } cases[] = {{1, 32, 8192, 8},  {1, 32, 32768, 8},  {1, 32, 131072, 8}, {1, 64, 8192, 8},
                 {1, 64, 32768, 8}, {1, 64, 131072, 8}, {4, 64, 8192, 2},   {2, 32, 8192, 8},
                 {2, 32, 32768, 8}, {2, 32, 131072, 8}, {3, 16, 32768, 5},  {4, 32, 131072, 4}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct attention_args a = args_of(cases[i].batch, 8, cases[i].keys);
        a.q_tokens = cases[i].queries, a.window_left = a.window_right = WINDOW_LIMIT;
        splits_choose(&a, &tiles_row, 0);
        if (a.splits != cases[i].parts)
            fail_msg("%dx%d, %d queries: %d parts, not %d", cases[i].batch, cases[i].keys,
                     cases[i].queries, a.splits, cases[i].parts);
    }
}

/* More where memory is faster: on an H200 those that were the fastest or within 3 % of them; fewer where it is slower,
 * but for eight of each KV head; as many where integers set the pace. */
static void parts_by_memory(void **state)
{
    const struct row *integers = row_named("sm_90a", "sm90_bf16_i8_d128_split");
    const struct {
        const struct row *row;
        int gbs, heads, keys, least, most;
    } cases[] = {{&tiles_row, 3352, 8, 32768, 8, 8},    {&tiles_row, 3352, 8, 131072, 8, 8},
                 {&tiles_row, 4917, 8, 32768, 16, 16},  {&tiles_row, 4917, 8, 131072, 16, 16},
                 {&tiles_row, 4917, 8, 8192, 8, 16},    {&tiles_row, 2039, 8, 32768, 8, 8},
                 {&tiles_row, 3352, 2, 131072, 30, 34}, {&tiles_row, 2039, 2, 131072, 18, 21},
                 {integers, 0, 8, 131072, 16, 16},      {integers, 4917, 8, 131072, 16, 16},
                 {integers, 2039, 8, 131072, 16, 16}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct attention_args a = args_of(1, cases[i].heads, cases[i].keys);
        a.q_tokens = 32, a.window_left = a.window_right = WINDOW_LIMIT;
        splits_choose(&a, cases[i].row, cases[i].gbs);
        if (a.splits < cases[i].least || a.splits > cases[i].most)
            fail_msg("%d GB/s, %d heads, %d keys: %d parts", cases[i].gbs, a.kv_heads, a.kv_tokens,
                     a.splits);
    }
}

/* Which chunks of 32 query heads of 8 KV heads are worth a second launch: those whose tiles leave
 * much of the GPU idle. Few queries are the decode rows' on sm_90a alone, whose own come later. */
static void where_parts_pay(void **state)
{
    static const struct {
        const char *arch, *name;
        int batch, queries, keys, pays;
    } cases[] = {
        {"sm_90a", "sm90_bf16_d128_split", 1, 64, 8192, 1},
        {"sm_90a", "sm90_bf16_d128_split", 1, 7, 8192, 0},
        {"sm_90a", "sm90_bf16_d128_split", 1, 8, 8192, 0 /* 32 rows */},
        {"sm_90a", "sm90_bf16_d128_split", 1, 9, 8192, 1},
        {"sm_90a", "sm90_bf16_d128_split", 4, 512, 8192, 0},
        /* In blocks of keys, parts and whole: the second launch takes 2, a tile's ends 2, and an eighth
         * must be saved. */
        {"sm_90a", "sm90_bf16_d128_split", 1, 64, 512, 0 /* 7, 6 */},
        {"sm_90a", "sm90_bf16_d128_split", 1, 256, 2048, 0 /* 16, 18 */},
        {"sm_90a", "sm90_bf16_d128_split", 3, 384, 8192, 0 /* 190, 198 */},
        /* Over numbers made ahead; and without them, where whole tiles have them: three quarters. */
        {"sm_90a", "sm90_bf16_i8_d128_split_ahead", 1, 256, 2048, 1 /* 15.2, 18 */},
        {"sm_90a", "sm90_bf16_i8_d128_split_ahead", 4, 48, 1024, 0 /* 10.4, 10 */},
        {"sm_90a", "sm90_bf16_i8_d128_split_ahead", 2, 320, 4096, 0 /* 64, 68 */},
        /* Several scales: one in 25 must be saved. */
        {"sm_90a", "sm90_bf16_i8_d128_block32_split_ahead", 4, 48, 1024, 1 /* 11.4, 12 */},
        {"sm_90a", "sm90_bf16_i8_d128_block32_split_ahead", 2, 96, 1024, 1 /* 11.4, 12 */},
        {"sm_90a", "sm90_bf16_i8_d128_block32_split_ahead", 8, 64, 1024, 1 /* 22.4, 24 */},
        {"sm_90a", "sm90_bf16_i8_d128_block32_split_ahead", 3, 96, 4096, 1 /* 37.4, 39 */},
        {"sm_90a", "sm90_bf16_i8_d128_block32_split_ahead", 1, 320, 4096, 0 /* 38, 39 */},
        {"sm_90a", "sm90_f16_i8_d128_block32_split_ahead", 4, 64, 1024, 1 /* 14.2, 15 */},
        {"sm_90a", "sm90_bf16_i8_d128_split", 1, 256, 2048, 1 /* 12, 12.8 */},
        {"sm_90a", "sm90_bf16_i8_d128_split", 1, 320, 4096, 0 /* 28.8, 24.8 */},
        {"sm_90a", "sm90_bf16_i8_d128_split", 8, 64, 1024,
         1 /* 15, 18: too few rows for numbers */},
        /* Where 132 units would say the other thing, or AMD's largest. */
        {"sm_80", "sm80_bf16_d128_split", 1, 512, 4096, 1 /* 53, 65 */},
        {"sm_86", "sm80_bf16_d128_split", 1, 384, 1024, 1 /* 40, 46 */},
        {"sm_120", "sm80_bf16_d128_split", 3, 64, 1024, 1 /* 12, 15 */},
        {"gfx942", "mfma_bf16_d128_split", 1, 768, 4096, 1 /* 29, 41 */},
        {"gfx1151", "wmma_bf16_d128_split", 1, 128, 1024, 0 /* 37, 33 */},
        {"gfx1201", "wmma_bf16_d128_split", 1, 256, 2048, 0 /* 71, 65 */},
        {"sm_80", "sm80_bf16_d128_split", 1, 2, 8192, 1},
        {"sm_80", "sm80_bf16_d128_split", 1, 256, 8192, 1},
        {"sm_80", "sm80_bf16_d128_split", 1, 2048, 8192, 0},
        {"sm_80", "sm80_bf16_d128_split", 1, 64, 128, 0},
        {"sm_90a", "sm80_bf16_d128_split", 1, 512, 2048, 0 /* 64 us in parts, 57 whole */},
        {"sm_90a", "sm80_bf16_d128_split", 1, 512, 8192, 1 /* 202, 218 */},
        {"sm_90a", "sm80_bf16_d128_split", 4, 128, 8192, 1 /* 204, 234 */},
        {"sm_90a", "sm80_bf16_d128_split", 4, 256, 8192, 0 /* 432, 385 */},
        {"sm_89", "sm80_bf16_d64_split", 1, 64, 8192, 1},
        {"gfx942", "mfma_bf16_d128_split", 1, 17, 8192, 1},
        {"gfx942", "mfma_bf16_d128_split", 4, 128, 8192, 1},
        {"gfx942", "mfma_bf16_d128_split", 1, 4096, 8192, 0},
        {"gfx942", "mfma_bf16_d128_split", 1, 64, 64, 0},
        {"gfx1100", "wmma_bf16_d128_split", 1, 64, 8192, 1},
        {"gfx1100", "wmma_bf16_d128_split", 8, 256, 8192, 0},
        {"gfx1151", "wmma_bf16_d128_split", 1, 32, 8192, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct problem p = {.batch = cases[i].batch,
                            .q_heads = 32,
                            .kv_heads = 8,
                            .group = 4,
                            .q_tokens = cases[i].queries,
                            .kv_tokens = cases[i].keys,
                            .window_left = WINDOW_OPEN,
                            .window_right = 0};
        if (splits_pay(&p, row_named(cases[i].arch, cases[i].name)) != cases[i].pays)
            fail_msg("%s %s, %dx%d, %d queries: not %d", cases[i].arch, cases[i].name,
                     cases[i].batch, cases[i].keys, cases[i].queries, cases[i].pays);
    }
}

/* Packed keys count on average: 8 sequences of 1,024 keys are not 8,192 for each. */
static void packed_keys_pay_on_average(void **state)
{
    const struct row *row = row_named("sm_90a", "sm90_bf16_d128_split");
    struct problem p = {.batch = 8,
                        .q_heads = 32,
                        .kv_heads = 8,
                        .group = 4,
                        .q_tokens = 64,
                        .kv_tokens = 8192,
                        .window_left = WINDOW_OPEN,
                        .window_right = 0};
    (void)state;
    assert_int_equal(splits_pay(&p, row), 1);
    p.a.kv_start.dtype = RAPT_I32;
    assert_int_equal(splits_pay(&p, row), 0);
    p.kv_tokens = 8 * 8192;
    assert_int_equal(splits_pay(&p, row), 1);
}

/* Parts of one KV head's two tiles fill what its GPU holds at once, about: tiles of 128 threads two
 * for a multiprocessor, of 256 as many for a compute unit of AMD's. */
static void parts_of_families(void **state)
{
    static const struct {
        const char *arch, *name;
        int units, at_once;
    } cases[] = {{"sm_90a", "sm90_bf16_d128_split", 132, 132},
                 {"sm_80", "sm80_bf16_d128_split", 108, 216},
                 {"gfx942", "mfma_bf16_d128_split", 304, 512 /* 256 parts at most */},
                 {"gfx1100", "wmma_bf16_d128_split", 48, 96},
                 {"gfx1100", "wmma_bf16_d64_split", 48, 192}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct row *row = row_named(cases[i].arch, cases[i].name);
        struct attention_args a = args_of(1, 1, 1 << 20);
        a.q_tokens = row->tile_q / 2, a.units = cases[i].units; /* two tiles of half a group */
        a.window_left = a.window_right = WINDOW_LIMIT;
        splits_choose(&a, row, 0);
        int64_t blocks = splits_tiles(&a, row) * a.splits;
        if (blocks > cases[i].at_once || blocks < cases[i].at_once * 0.95)
            fail_msg("%s %s: %lld blocks", cases[i].arch, cases[i].name, (long long)blocks);
    }
}

/* Where one part of each would leave units idle, in the only turn or the last one: more parts, in
 * more turns. On NVIDIA a block of more than 128 threads is alone on its unit. */
static void turns(void **state)
{
    static const struct {
        int batch, keys, parts, threads; /* 8 KV heads */
        enum vendor vendor;
    } cases[] = {{16, 8192, 1, 256, VENDOR_cuda}, {9, 8192, 5, 256, VENDOR_cuda},
                 {20, 8192, 3, 256, VENDOR_cuda}, {9, 8192, 7, 128, VENDOR_cuda},
                 {9, 8192, 7, 256, VENDOR_hip},   {20, 1024, 2, 256, VENDOR_cuda}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct row own = row_of_tiles();
        struct attention_args a = args_of(cases[i].batch, 8, cases[i].keys);
        own.vendor = cases[i].vendor, own.threads = cases[i].threads;
        splits_choose(&a, &own, 0);
        if (a.splits != cases[i].parts) print_error("%zu: %d\n", i, a.splits);
        assert_int_equal(a.splits, cases[i].parts);
    }
}

/* Cuts that know nothing but where a key is. */
static void invariant_cuts(void **state)
{
    const struct row row = row_of_tiles();
    (void)state;
    for (int batch = 1; batch < 400; batch += 57)
        for (int keys = 1; keys < 1 << 20; keys = 3 * keys + 1) {
            struct attention_args a = args_of(batch, 2, keys);
            a.batch_invariant = 1;
            splits_choose(&a, &row, 0);
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
    assert_int_equal(splits_bytes(&a, (int64_t)1 << 36, &out, &lse), RAPT_NO_MEMORY); /* 2^61 */
    assert_int_equal(splits_bytes(&a, (int64_t)1 << 34, &out, &lse), RAPT_OK);
}

/* ---- Launches ---- */

struct decoding {
    rapt_context *context;
    rapt_device *device;
    struct fake *fake;
    rapt_attention a;
    char *workspace;
    size_t size;
};

/* One query of 8 heads over `keys` keys of 2, at addresses that nobody reads, two sequences. */
static struct decoding begin_on(const struct stand_in *v, const char *arch, int64_t keys)
{
    struct decoding d = {.fake = session_begin(v)};
    char *base = (char *)((uintptr_t)1 << 44);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    if (arch) snprintf(d.fake->arch, sizeof d.fake->arch, "%s", arch);
    d.context = session_open(v);
    d.device = rapt_device_at(d.context, 0);
    d.a = (rapt_attention){.struct_size = sizeof d.a, .kernel = "decode_d128"};
    d.a.q = rapt_tensor_bthd(base, RAPT_F32, 2, 8, 1, 128);
    d.a.k = rapt_tensor_bthd(base + ((uintptr_t)1 << 40), RAPT_F32, 2, 2, keys, 128);
    d.a.v = rapt_tensor_bthd(base + ((uintptr_t)2 << 40), RAPT_F32, 2, 2, keys, 126);
    d.a.out = rapt_tensor_bthd(base + ((uintptr_t)3 << 40), RAPT_F32, 2, 8, 1, 126);
    return d;
}

static struct decoding begin(const struct stand_in *v, int64_t keys)
{
    return begin_on(v, strcmp(v->name, "cuda") ? NULL : "sm_90", keys);
}

static void run(struct decoding *d)
{
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    if (rapt_plan_create(&plan, d->device, &d->a)) fail_msg("%s", rapt_last_error());
    d->size = rapt_plan_workspace_size(plan);
    if (d->size) assert_int_equal(rapt_alloc(d->device, d->size, &workspace), RAPT_OK);
    d->workspace = workspace;
    assert_int_equal(rapt_plan_execute(plan, &d->a, workspace, NULL), RAPT_OK);
    rapt_free(d->device, workspace);
    rapt_plan_destroy(&plan);
}

static void end(struct decoding *d, const struct stand_in *v)
{
    rapt_close(&d->context);
    session_end(v);
}

/* bytes at an address that kernels are given lie in the workspace, aligned. */
static void assert_inside(const struct decoding *d, const void *at, size_t bytes)
{
    assert_true(at && (uintptr_t)at % 64 == 0 && (const char *)at >= d->workspace);
    assert_true((const char *)at + bytes <= d->workspace + d->size);
}

/* The main launch, then one block for each row of the result, early where the row is. */
static void several_parts(void **state)
{
    const struct stand_in *v = *state;
    struct decoding d = begin(v, 4096);
    int early = !strcmp(v->name, "cuda");
    run(&d);
    assert_int_equal(d.fake->launch_count, 2);
    const struct fake_launch *l = d.fake->launch;
    const struct attention_args *a = &l[0].args.attention;
    size_t rows = (size_t)a->splits * 2 * 8;
    assert_string_equal(l[0].name, "decode_d128");
    assert_string_equal(l[1].name, "decode_d128_combine");
    assert_true(l[0].early == early && l[1].early == early);
    assert_true(a->splits > 1 && l[0].grid[0] == (unsigned)(a->splits * 2 * 2));
    assert_true(l[1].grid[0] == 1 && l[1].grid[1] == 8 && l[1].grid[2] == 2);
    assert_true(l[1].block[0] == 256 && l[1].shared == 0);
    assert_memory_equal(a, &l[1].args.attention, sizeof *a);
    assert_inside(&d, a->partial_out, rows * 128 * 4);
    assert_inside(&d, a->partial_lse, rows * 2 * 4);
    assert_true((char *)a->partial_out + rows * 128 * 4 <= (char *)a->partial_lse ||
                (char *)a->partial_lse + rows * 2 * 4 <= (char *)a->partial_out);
    end(&d, v);
}

/* A block for each tile and part, and a wave for each row of the result. */
static void tiles_in_parts(void **state)
{
    static const struct {
        const char *vendor, *arch, *kernel;
        unsigned rows; /* of a block of the second launch */
    } cases[] = {{"cuda", "sm_80", "sm80_bf16_d128_split", 4},
                 {"cuda", "sm_120", "sm80_bf16_d128_split", 4},
                 {"hip", "gfx942", "mfma_bf16_d128_split", 4},
                 {"hip", "gfx90a", "mfma_bf16_d128_split", 4},
                 {"hip", "gfx1100", "wmma_bf16_d128_split", 8},
                 {"hip", "gfx1201", "wmma_bf16_d128_split", 8}};
    const struct stand_in *v = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(v->name, cases[i].vendor) != 0) continue;
        struct decoding d = begin_on(v, cases[i].arch, 8192);
        d.a.q = rapt_tensor_bthd(d.a.q.data, RAPT_BF16, 2, 8, 40, 128);
        d.a.out = rapt_tensor_bthd(d.a.out.data, RAPT_BF16, 2, 8, 40, 128);
        d.a.k = rapt_tensor_bthd(d.a.k.data, RAPT_BF16, 2, 2, 8192, 128);
        d.a.v = rapt_tensor_bthd(d.a.v.data, RAPT_BF16, 2, 2, 8192, 128);
        d.a.kernel = cases[i].kernel;
        run(&d);
        const struct fake_launch *l = d.fake->launch;
        const struct attention_args *a = &l[0].args.attention;
        assert_int_equal(d.fake->launch_count, 2);
        assert_string_equal(l[0].name, cases[i].kernel);
        assert_true(!strncmp(l[1].name, cases[i].kernel, strlen(cases[i].kernel)) &&
                    !strcmp(l[1].name + strlen(cases[i].kernel), "_combine"));
        assert_true(a->splits > 1);
        assert_int_equal(l[0].grid[0],
                         splits_tiles(a, row_named(cases[i].arch, cases[i].kernel)) * a->splits);
        assert_int_equal(l[1].grid[0], 40 / cases[i].rows);
        assert_true(l[1].grid[1] == 8 && l[1].grid[2] == 2 && l[1].shared == 0);
        assert_memory_equal(a, &l[1].args.attention, sizeof *a);
        assert_inside(&d, a->partial_out, (size_t)a->splits * 2 * 8 * 40 * 128 * 4);
        assert_inside(&d, a->partial_lse, (size_t)a->splits * 2 * 8 * 40 * 2 * 4);
        end(&d, v);
    }
}

/* What the driver says of the memory counts: an H100's, an H200's. */
static void memory_as_the_driver_has_it(void **state)
{
    static const struct {
        int khz, parts;
    } cases[] = {{2619000, 8}, {3841000, 16}};
    const struct stand_in *v = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct decoding d = begin_on(v, "sm_90", 32768);
        rapt_close(&d.context);
        d.fake->memory_khz = cases[i].khz, d.fake->max_shared = 227 << 10;
        d.context = session_open(v);
        d.device = rapt_device_at(d.context, 0);
        d.a.q = rapt_tensor_bthd(d.a.q.data, RAPT_BF16, 1, 32, 32, 128);
        d.a.out = rapt_tensor_bthd(d.a.out.data, RAPT_BF16, 1, 32, 32, 128);
        d.a.k = rapt_tensor_bthd(d.a.k.data, RAPT_BF16, 1, 8, 32768, 128);
        d.a.v = rapt_tensor_bthd(d.a.v.data, RAPT_BF16, 1, 8, 32768, 128);
        d.a.kernel = "sm90_bf16_d128_split";
        run(&d);
        assert_int_equal(d.fake->launch[0].args.attention.splits, cases[i].parts);
        end(&d, v);
    }
}

/* More heads than a grid's axis holds: the kernel goes around. */
static void many_heads(void **state)
{
    const struct stand_in *v = *state;
    struct decoding d = begin(v, 4096);
    d.a.batch_invariant = 1; /* else so many rows leave nothing to share */
    d.a.q = rapt_tensor_bthd(d.a.q.data, RAPT_F32, 1, 70000, 1, 128);
    d.a.out = rapt_tensor_bthd(d.a.out.data, RAPT_F32, 1, 70000, 1, 126);
    d.a.k = rapt_tensor_bthd(d.a.k.data, RAPT_F32, 1, 17500, 4096, 128);
    d.a.v = rapt_tensor_bthd(d.a.v.data, RAPT_F32, 1, 17500, 4096, 126);
    run(&d);
    assert_int_equal(d.fake->launch_count, 2);
    assert_int_equal(d.fake->launch[1].grid[1], 65535);
    end(&d, v);
}

/* The kernel writes the result itself. */
static void one_part(void **state)
{
    const struct stand_in *v = *state;
    struct decoding d = begin(v, 128);
    run(&d);
    assert_int_equal(d.fake->launch_count, 1);
    assert_string_equal(d.fake->launch[0].name, "decode_d128");
    const struct attention_args *a = &d.fake->launch[0].args.attention;
    assert_true(a->splits == 1 && !a->partial_out && !a->partial_lse && !d.size);
    end(&d, v);
}

/* Packed queries: a block for each token of all. */
static void packed_queries(void **state)
{
    static int32_t starts[3];
    const struct stand_in *v = *state;
    struct decoding d = begin(v, 4096);
    rapt_tensor *tensors[] = {&d.a.q, &d.a.out, &d.a.k, &d.a.v};
    for (int i = 0; i < 4; i++) tensors[i]->size[0] = 1;
    d.a.q.size[2] = d.a.out.size[2] = 3;
    d.a.q_start = (rapt_tensor){starts, RAPT_I32, {3, 1, 1, 1}, {1, 0, 0, 0}};
    d.a.kv_start = d.a.q_start;
    run(&d);
    const struct fake_launch *l = d.fake->launch;
    assert_int_equal(d.fake->launch_count, 2);
    assert_true(l[1].grid[0] == 3 && l[1].grid[1] == 8 && l[1].grid[2] == 1);
    /* twelve rows in tiles of eight, and one more for each of two sequences; two KV heads */
    assert_int_equal(l[0].grid[0], l[0].args.attention.splits * 3 * 2);
    end(&d, v);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts),
                                       cmocka_unit_test(turns),
                                       cmocka_unit_test(invariant_cuts),
                                       cmocka_unit_test(bytes),
                                       cmocka_unit_test(tiles_of_heads),
                                       cmocka_unit_test(parts_of_tiles),
                                       cmocka_unit_test(parts_as_measured),
                                       cmocka_unit_test(parts_by_memory),
                                       cmocka_unit_test(tiles_without_number),
                                       cmocka_unit_test(where_parts_pay),
                                       cmocka_unit_test(packed_keys_pay_on_average),
                                       cmocka_unit_test(parts_of_families),
                                       BOTH(tiles_in_parts),
                                       BOTH(several_parts),
                                       {"memory_as_the_driver_has_it", memory_as_the_driver_has_it,
                                        NULL, NULL, (void *)&vendors[0]},
                                       cmocka_unit_test(blocks_at_once),
                                       BOTH(many_heads),
                                       BOTH(one_part),
                                       BOTH(packed_queries)};
    return run_group("splits", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
