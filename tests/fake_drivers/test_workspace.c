/* test_workspace.c: what plans on sm_90 give their kernels besides the problem: the parts of the
 * workspace, as kernel_args.h has them, apart from each other and inside; tensor maps of the right
 * memory; launches before and after the main one. */
#include "session.h"

#include "gpu/registry.h"

#include <stdio.h>

#include "group.h"

struct trial {
    struct fake *fake;
    rapt_device *device;
    rapt_attention a;
    const char *kernel;
    char *workspace;
    size_t size; /* of the workspace */
    struct {
        const char *name;
        size_t from, to; /* within the workspace */
    } part[8];
    int parts;
};

#define expect(t, what)                                                                            \
    do {                                                                                           \
        if (!(what)) fail_msg("%s: not %s", (t)->kernel, #what);                                   \
    } while (0)

static int64_t parts_of(int64_t x, int64_t part)
{
    return (x + part - 1) / part;
}

static int64_t least(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t at_least_one(int64_t x)
{
    return x > 1 ? x : 1;
}

static const struct row *row_of(const char *name)
{
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++)
        if (!strcmp(row->name, name) && !strcmp(row->arch, "sm_90a")) return row;
    fail_msg("there is no row %s of sm_90a", name);
    return NULL;
}

/* ---- Parts ---- */

/* Part of `bytes` at an address that kernels are given: aligned, inside, apart from the others. */
static void expect_part(struct trial *t, const char *name, const void *at, int64_t bytes)
{
    size_t from = (size_t)((const char *)at - t->workspace), to = from + (size_t)bytes;
    if (!at || (uintptr_t)at % 64 || (const char *)at < t->workspace || to > t->size)
        fail_msg("%s: %s, %lld bytes at %p, in a workspace of %zu at %p", t->kernel, name,
                 (long long)bytes, at, t->size, (void *)t->workspace);
    for (int i = 0; i < t->parts; i++)
        if (from < t->part[i].to && t->part[i].from < to)
            fail_msg("%s: %s lies in %s", t->kernel, name, t->part[i].name);
    t->part[t->parts].name = name;
    t->part[t->parts].from = from;
    t->part[t->parts++].to = to;
}

/* Tiles of rows that share keys: as few as there can be, of queries of 1, 2, 4 or 8 heads of a group. */
static int64_t shared_tiles(const struct attention_args *a, const struct row *row)
{
    int64_t fewest = INT64_MAX;
    for (int64_t heads = 1; heads <= 8; heads *= 2)
        fewest = least(fewest, parts_of(a->q_tokens, row->tile_q / heads) *
                                   parts_of(a->group, heads) * a->kv_heads * a->batch);
    return fewest;
}

/* One note behind the counter for each 64 rows of each tile; a sequence of a packed batch may begin
 * within a tile of another. */
static void expect_notes(struct trial *t, const struct row *row, const struct attention_args *a)
{
    int64_t groups = parts_of(row->tile_q, 64), tiles = parts_of(a->q_tokens, row->tile_q),
            heads = (int64_t)a->batch * a->q_heads;
    if (a->q_start.data) heads = a->q_heads, tiles = a->q_tokens / row->tile_q + a->batch + 1;
    if (row->needs & NEED_PARTIALS) heads = a->splits, tiles = shared_tiles(a, row);
    expect_part(t, "counters and notes", a->counters, 16 * (1 + heads * tiles * groups));
}

/* Blocks of 128 keys of a head; each sequence of a packed batch begins one. */
static int64_t key_blocks(const struct attention_args *a)
{
    return a->kv_start.data ? a->kv_tokens / PART_KEYS + a->batch
                            : parts_of(a->kv_tokens, PART_KEYS);
}

/* Three dense parts of 16 bits of all elements, and of those that are zeros. */
static void expect_half(struct trial *t, const char *name, const struct view *half,
                        const rapt_tensor *of, int64_t tokens, int64_t row)
{
    int64_t head = tokens * row, sequence = of->size[1] * head;
    expect_part(t, name, half->data, HALVES * of->size[0] * sequence * 2);
    expect(t, half->stride[0] == sequence && half->stride[1] == head && half->stride[2] == row &&
                  half->stride[3] == 1 && half->dtype == DTYPE_bf16);
}

static void expect_strict_parts(struct trial *t, const struct row *row,
                                const struct attention_args *a)
{
    int64_t heads = t->a.k.size[0] * a->kv_heads, keys = key_blocks(a),
            queries = a->q_start.data ? a->q_tokens / 16 + a->batch : parts_of(a->q_tokens, 16);
    expect(t, PART_KEYS % row->tile_kv == 0 && a->wide_queries == queries && a->wide_keys == keys);
    expect_part(t, "factors", a->key_factors, heads * keys * PART_KEYS * 16);
    expect_part(t, "wide blocks", a->wide_blocks,
                (t->a.q.size[0] * a->q_heads * queries + 2 * heads * keys) * 4);
    expect_part(t, "wide heads", a->wide, ((int64_t)a->batch * a->kv_heads + 1) * 4);
}

/* Integers of K or V as dense numbers of q's type, each sequence's from a whole block on. */
static void expect_numbers(struct trial *t, const char *name, const struct view *half,
                           const rapt_tensor *of, const struct attention_args *a, int64_t channels)
{
    int64_t head = at_least_one(key_blocks(a)) * PART_KEYS * channels,
            sequences = a->kv_start.data ? 1 : a->batch;
    expect_part(t, name, half->data, sequences * of->size[1] * head * 2);
    expect(t, half->stride[0] == of->size[1] * head && half->stride[1] == head &&
                  half->stride[2] == channels && half->stride[3] == 1 &&
                  half->dtype == t->a.q.dtype);
}

static void expect_parts(struct trial *t, const struct row *row, const struct attention_args *a)
{
    t->parts = 0;
    if (row->needs & NEED_CLAIMED) expect_notes(t, row, a);
    else expect(t, !a->counters);
    if (row->needs & NEED_HALVES) {
        int64_t keys = row->can & CAN_RAGGED_KV ? key_blocks(a) * PART_KEYS : a->kv_tokens;
        expect_half(t, "q in parts", &a->q_half, &t->a.q, a->q_tokens, row->d);
        expect_half(t, "k in parts", &a->k_half, &t->a.k, keys, row->d);
        expect_half(t, "v in parts", &a->v_half, &t->a.v, keys, row->dv);
    }
    if (row->needs & NEED_STRICT) expect_strict_parts(t, row, a);
    if (row->needs & NEED_NUMBERS) {
        int64_t blocks = at_least_one(key_blocks(a));
        expect_numbers(t, "numbers of k", &a->k_half, &t->a.k, a, row->d);
        expect_numbers(t, "numbers of v", &a->v_half, &t->a.v, a, row->dv);
        expect_part(t, "scales", a->key_factors,
                    (a->kv_start.data ? 1 : a->batch) * a->kv_heads * blocks * (2 * PART_KEYS + 4) *
                        4);
        expect(t, a->wide_keys == blocks && !a->q_half.data);
    }
    if (row->needs & NEED_PARTIALS) {
        int64_t rows = (int64_t)a->splits * a->batch * a->q_heads * a->q_tokens;
        expect_part(t, "sums of parts", a->partial_out, rows * a->v_channels * 4);
        expect_part(t, "maxima and sums of parts", a->partial_lse, rows * 8);
        return;
    }
    expect(t, !a->partial_out && !a->partial_lse);
}

/* ---- Tensor maps ---- */

/* In bytes, from one along an axis to the next; an axis of one element has the least step. */
static uint64_t step_of(const rapt_tensor *x, const struct view *half, int axis)
{
    return half                 ? 2 * (uint64_t)half->stride[axis]
           : x->size[axis] == 1 ? 16
                                : 2 * (uint64_t)x->stride[axis];
}

/* Of K or V: whether two heads of a token are whole sectors of 32 bytes, wherever they are, and one is
 * not; there are always columns left. */
static int in_pairs(const struct row *row, const rapt_tensor *x)
{
    return (row->needs & NEED_PAIRS) && x->size[3] % 16 == 8 && x->size[1] % 2 == 0 &&
           x->stride[1] == x->size[3] && x->stride[2] % 16 == 0 && x->stride[0] % 16 == 0;
}

/* half: of a tensor that kernels read in parts, else NULL. heads: that are one in the map. */
static void expect_map(const struct trial *t, const struct row *row, const struct tensor_map *map,
                       const rapt_tensor *x, const struct view *half, int64_t rows, uint64_t heads)
{
    struct fake_map m;
    uint64_t channels = (uint64_t)(half ? half->stride[2] : x->size[3]), panels = channels / 64,
             tokens = (uint64_t)(half ? half->stride[1] / half->stride[2] : x->size[2]),
             sequences = (uint64_t)x->size[0] * (half ? HALVES : 1);
    if (half && (row->needs & NEED_NUMBERS))
        sequences = t->a.kv_start.dtype ? 1 : (uint64_t)t->a.q.size[0];
    memcpy(&m, map, sizeof m);
    expect(t, m.data == (half ? half->data : x->data));
    expect(t,
           m.type ==
               (row->dtype == RAPT_F16 ? 6 : 9)); /* CU_TENSOR_MAP_DATA_TYPE_ FLOAT16, BFLOAT16 */
    expect(t, m.swizzle == 3 && m.fill == 0); /* CU_TENSOR_MAP_SWIZZLE_128B, FLOAT_OOB_FILL_NONE */
    expect(t, m.promotion == 2);              /* CU_TENSOR_MAP_L2_PROMOTION_L2_128B */
    expect(t, m.box[0] == 64 && m.box[1] == rows);
    if (row->needs & NEED_PANELS) {
        const uint64_t size[] = {channels * heads, tokens, (uint64_t)x->size[1] / heads, sequences};
        expect(t, m.rank == 4 && !memcmp(m.size, size, sizeof size));
        expect(t, m.box[2] == 1 && m.box[3] == 1);
        for (int i = 0; i < 3; i++)
            expect(t, m.stride[i] == step_of(x, half, 2 - i) * (i == 1 ? heads : 1));
        return;
    }
    const uint64_t size[] = {64, tokens, panels, (uint64_t)x->size[1], sequences};
    expect(t, m.rank == 5 && !memcmp(m.size, size, sizeof size));
    expect(t, m.box[2] == panels && m.box[3] == 1 && m.box[4] == 1);
    expect(t, m.stride[0] == step_of(x, half, 2) && m.stride[1] == 128);
    expect(t, m.stride[2] == step_of(x, half, 1) && m.stride[3] == step_of(x, half, 0));
}

static void expect_maps(const struct trial *t, const struct row *row, const struct fake_launch *l)
{
    const struct attention_args *a = &l->args.attention;
    int halved = (row->needs & NEED_HALVES) != 0, keys = halved || (row->needs & NEED_NUMBERS) != 0;
    if (!(row->needs & NEED_MAPS)) return;
    expect_map(t, row, &l->maps.q, &t->a.q, halved ? &a->q_half : NULL,
               row->needs & NEED_PARTIALS ? 16 : least(row->tile_q, 64), 1);
    expect_map(t, row, &l->maps.k, &t->a.k, keys ? &a->k_half : NULL, row->tile_kv,
               in_pairs(row, &t->a.k) ? 2 : 1);
    expect_map(t, row, &l->maps.v, &t->a.v, keys ? &a->v_half : NULL, row->tile_kv,
               in_pairs(row, &t->a.v) ? 2 : 1);
    if (row->needs & NEED_OUT_MAP)
        expect_map(t, row, &l->maps.out, &t->a.out, NULL, OUT_MAP_ROWS, 1);
}

/* ---- Launches ---- */

static void expect_main(struct trial *t, const struct fake_launch *l, const struct row *row)
{
    const struct attention_args *a = &l->args.attention;
    int64_t blocks = parts_of(a->q_tokens, row->tile_q) * a->q_heads * a->batch;
    if (row->needs & NEED_PARTIALS) blocks = shared_tiles(a, row) * a->splits;
    assert_string_equal(l->name, row->name);
    expect(t, l->grid[0] == (unsigned)(blocks < a->units ? blocks : a->units));
    expect(t, l->block[0] == (unsigned)row->threads && l->shared == (unsigned)row->shared);
    expect(t, l->early == ((row->needs & NEED_EARLY) != 0));
    expect_maps(t, row, l);
}

/* Heads of q, k and v, sequences; x: blocks along the tokens, 0: any. */
static void expect_prepare(const struct trial *t, const struct fake_launch *l,
                           const struct row *row, int64_t x)
{
    const struct attention_args *a = &l->args.attention;
    char name[80];
    snprintf(name, sizeof name, "%s_prepare", row->name);
    assert_string_equal(l->name, name);
    expect(t, l->block[0] == (unsigned)row->threads && l->shared == 0);
    int64_t q_heads = row->needs & NEED_NUMBERS ? 0 : a->q_heads;
    expect(t, l->grid[1] == least(65535, q_heads + 2 * a->kv_heads));
    expect(t, l->grid[2] == least(65535, a->batch) && (!x || l->grid[0] == x));
}

/* The launch that splits the first blocks of keys, four warps each: never more than there are, and
 * at least one for every multiprocessor, if there are so many. */
static void expect_split(const struct trial *t, const struct fake_launch *l, const struct row *row)
{
    const struct attention_args *a = &l->args.attention;
    int64_t tasks = 2 * t->a.k.size[0] * a->kv_heads * a->wide_keys, at_once = row->threads / 128,
            done = l->grid[0] * at_once;
    char name[80];
    snprintf(name, sizeof name, "%s_prepare", row->name);
    assert_string_equal(l->name, name);
    expect(t, l->block[0] == (unsigned)row->threads && l->shared == 0);
    expect(t, l->grid[1] == 1 && l->grid[2] == 1);
    expect(t, done < tasks + at_once && done >= (tasks < a->units ? tasks : a->units));
}

/* A warp for each row of the result. */
static void expect_combine(const struct trial *t, const struct fake_launch *l,
                           const struct row *row)
{
    const struct attention_args *a = &l->args.attention;
    char name[80];
    snprintf(name, sizeof name, "%s_combine", row->name);
    assert_string_equal(l->name, name);
    expect(t, a->splits > 1 && row->tile_q % a->tile_tokens == 0 && a->tile_tokens >= 16);
    expect(t, l->block[0] == (unsigned)row->threads && l->shared == 0 && l->early);
    expect(t, l->grid[0] == parts_of(a->q_tokens, row->threads / 32));
    expect(t, l->grid[1] == (unsigned)a->q_heads && l->grid[2] == (unsigned)a->batch);
}

static void expect_launches(struct trial *t, const struct row *row)
{
    const struct fake_launch *l = t->fake->launch;
    int64_t longest = t->a.q.size[2] > t->a.k.size[2] ? t->a.q.size[2] : t->a.k.size[2];
    int strict = (row->needs & NEED_STRICT) != 0, before = (row->needs & NEED_PREPARE) != 0,
        after = (row->needs & NEED_COMBINE) != 0;
    assert_int_equal(t->fake->launch_count, strict ? 4 : 1 + before + after);
    if (strict) expect_split(t, &l[0], row);
    else if (row->needs & NEED_NUMBERS)
        expect_prepare(t, &l[0], row,
                       at_least_one(parts_of(l[0].args.attention.kv_tokens, PART_KEYS)));
    else if (before) expect_prepare(t, &l[0], row, parts_of(longest, row->tile_kv));
    expect_main(t, &l[before], row);
    if (after) expect_combine(t, &l[before + 1], row);
    for (int i = 0; i < t->fake->launch_count; i++) {
        assert_memory_equal(&l[i].args.attention, &l[0].args.attention, sizeof l->args.attention);
        expect_parts(t, row, &l[i].args.attention);
        expect(t, l[i].stream == (void *)0x77);
    }
    if (!strict) return;
    char name[80];
    snprintf(name, sizeof name, "%s_strict", row->name);
    const struct row *companion = row_of(name);
    expect_prepare(t, &l[2], companion, 0);
    expect_main(t, &l[3], companion);
}

/* The problem on the kernel; what its main launch must look like follows from its row. */
static void run(struct trial *t, const char *kernel)
{
    rapt_stream stream = (void *)0x77;
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    t->kernel = t->a.kernel = kernel;
    t->fake->launch_count = 0;
    if (rapt_plan_create(&plan, t->device, &t->a)) fail_msg("%s", rapt_last_error());
    t->size = rapt_plan_workspace_size(plan);
    assert_int_equal(rapt_alloc(t->device, t->size, &workspace), RAPT_OK);
    t->workspace = workspace;
    assert_int_equal(rapt_plan_execute(plan, &t->a, workspace, stream), RAPT_OK);
    expect_launches(t, row_of(kernel));
    uint64_t ticket = t->fake->launch[0].args.attention.ticket;
    assert_int_equal(rapt_plan_execute(plan, &t->a, workspace, NULL), RAPT_OK);
    expect(t, t->fake->launch[t->fake->launch_count - 1].args.attention.ticket != ticket);
    rapt_free(t->device, workspace);
    rapt_plan_destroy(&plan);
}

/* ---- Problems ---- */

/* At addresses that nobody reads, 1 TiB for each tensor. */
static void set_problem(struct trial *t, rapt_dtype dtype, const int64_t size[5], int64_t d,
                        int64_t dv)
{
    char *base = (char *)((uintptr_t)1 << 44);
    int64_t batch = size[0], heads = size[1], kv_heads = size[2];
    t->a = (rapt_attention){.struct_size = sizeof t->a};
    t->a.q = rapt_tensor_bthd(base, dtype, batch, heads, size[3], d);
    t->a.k = rapt_tensor_bthd(base + ((uintptr_t)1 << 40), dtype, batch, kv_heads, size[4], d);
    t->a.v = rapt_tensor_bhtd(base + ((uintptr_t)2 << 40), dtype, batch, kv_heads, size[4], dv);
    t->a.out = rapt_tensor_bthd(base + ((uintptr_t)3 << 40), dtype, batch, heads, size[3], dv);
}

static struct fake *begin(const struct stand_in *v, rapt_context **context, struct trial *t)
{
    t->fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    snprintf(t->fake->arch, sizeof t->fake->arch, "sm_90");
    *context = session_open(v);
    t->device = rapt_device_at(*context, 0);
    return t->fake;
}

/* Batch, heads, KV heads, queries, keys: few and many tiles, in whole tiles and not. */
static const int64_t shapes[][5] = {
    {1, 1, 1, 2048, 2048}, {3, 6, 2, 2101, 2303}, {2, 4, 4, 2300, 301}, {5, 2, 1, 2049, 129},
    {1, 2, 1, 2048, 1},    {1, 1, 1, 2305, 70},   {2, 8, 8, 2048, 130}, {1, 32, 8, 64, 8192},
    {2, 7, 1, 20, 700},    {1, 24, 2, 33, 5000}};

/* Each row of a needs-bit that takes plain problems of its head size. */
static void each_row(const struct stand_in *v, uint32_t needs, uint32_t without)
{
    struct trial t;
    rapt_context *context;
    int rows = 0;
    begin(v, &context, &t);
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++) {
        if (strcmp(row->arch, "sm_90a") || (row->needs & needs) != needs || (row->needs & without))
            continue;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            char reason[512];
            set_problem(&t, (rapt_dtype)row->dtype, shapes[i], row->d, row->dv);
            t.a.softcap = (row->can & CAN_SOFTCAP) && !(row->can & CAN_ALIBI) ? 20 : 0;
            t.a.causal = (row->can & CAN_CAUSAL) != 0;
            t.a.kernel = row->name;
            struct problem p;
            assert_int_equal(params_check(&t.a, "test", &p), RAPT_OK);
            if (row_refuses(row, &p, reason, sizeof reason)) continue;
            run(&t, row->name);
            rows++;
        }
    }
    assert_true(rows >= 12);
    rapt_close(&context);
    session_end(v);
}

static void claimed_rows(void **state)
{
    each_row(*state, NEED_CLAIMED, NEED_HALVES | NEED_PARTIALS);
}

static void rows_that_share_keys(void **state)
{
    each_row(*state, NEED_CLAIMED | NEED_PARTIALS, 0);
}

static void rows_in_parts(void **state)
{
    each_row(*state, NEED_HALVES, 0);
}

/* K and V of 8 bits, with a scale for each row: one sequence's keys apart from the next's, in pages of
 * 24 tokens, or packed. */
enum keys { KEYS_APART, KEYS_PAGED, KEYS_PACKED };
static void make_i8(struct trial *t, enum keys keys, void *index)
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
                                     data[i]->size[1], rows, 1);
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
                make_i8(&t, keys, index);
                t.a.causal = 1;
                run(&t, row->name);
                served++;
            }
    }
    assert_true(rows == 8 && served == 240);
    rapt_close(&context);
    session_end(*state);
}

/* Where the library takes such rows: where many query rows see a key, and the numbers have room. */
static void numbers_that_pay(void **state)
{
    static const struct {
        int64_t size[5]; /* batch, heads, KV heads, queries, keys */
        int64_t window, invariant;
        int ahead;
    } cases[] = {
        {{1, 32, 8, 2048, 2048}, 0, 0, 1},  {{1, 32, 8, 2048, 2048}, 0, 1, 0},
        {{1, 32, 8, 128, 8192}, 0, 0, 1},   {{1, 32, 8, 127, 8192}, 0, 0, 0},
        {{1, 8, 8, 2048, 8192}, 0, 0, 1},   {{1, 8, 8, 2048, 8192}, 300, 0, 0},
        {{1, 8, 8, 2048, 8192}, 384, 0, 1}, {{1, 32, 8, 512, 131072}, 0, 0, 1},
        {{1, 32, 8, 512, 131200}, 0, 0, 0}, {{4, 32, 8, 512, 32768}, 0, 0, 1},
        {{4, 32, 8, 512, 32769}, 0, 0, 0},
    };
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_problem(&t, RAPT_BF16, cases[i].size, 128, 128);
        make_i8(&t, KEYS_APART, NULL);
        t.a.causal = !cases[i].window;
        t.a.window_left = t.a.window_right = 0;
        if (cases[i].window) t.a.window_left = cases[i].window + 1, t.a.window_right = 1;
        t.a.batch_invariant = cases[i].invariant;
        rapt_plan *plan = NULL;
        if (rapt_plan_create(&plan, t.device, &t.a)) fail_msg("%s", rapt_last_error());
        int ahead = strstr(rapt_plan_kernel(plan), "_ahead") != NULL;
        if (ahead != cases[i].ahead) fail_msg("case %zu: %s", i, rapt_plan_kernel(plan));
        if (ahead) assert_true(rapt_plan_workspace_size(plan) >= (size_t)cases[i].size[4] * 4096);
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
    session_end(*state);
}

/* Heads of 72 channels, which lie in pairs in K and, token by token of a head, not in V; 72 beside 80. */
static void heads_in_pairs(void **state)
{
    struct trial t;
    rapt_context *context;
    int pairs = 0, others = 0;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int more = 0; more <= 8; more += 8) {
            set_problem(&t, RAPT_BF16, shapes[i], 72 + more, 72);
            t.a.causal = 1;
            run(&t, "sm90_bf16_narrow80_linear");
            if (in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.k)) pairs++;
            else others++;
        }
    assert_true(pairs == 5 && others == 15);
    rapt_close(&context);
    session_end(*state);
}

/* A layout of K that makes pairs, and such as miss it by one thing each; V has the first. */
static void heads_almost_in_pairs(void **state)
{
    static const struct {
        int64_t heads, channels, stride[3]; /* of sequences, heads, tokens */
    } layouts[] = {{4, 72, {86400, 72, 288}},   {3, 72, {86400, 72, 288}},
                   {4, 64, {86400, 72, 288}},   {4, 72, {96000, 80, 320}},
                   {4, 72, {88800, 72, 296}},   {4, 72, {86408, 72, 288}},
                   {4, 72, {262176, 65544, 80}}};
    struct trial t;
    rapt_context *context;
    int pairs = 0, values = 0;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const int64_t heads = layouts[i].heads, shape[] = {2, heads, heads, 300, 300};
        set_problem(&t, RAPT_BF16, shape, layouts[i].channels, 72);
        memcpy(t.a.k.stride, layouts[i].stride, sizeof layouts[i].stride);
        memcpy(t.a.v.stride, layouts[0].stride, sizeof layouts[0].stride);
        run(&t, "sm90_bf16_narrow80_linear");
        pairs += in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.k);
        values += in_pairs(row_of("sm90_bf16_narrow80_linear"), &t.a.v);
    }
    assert_true(pairs == 1 && values == 6);
    rapt_close(&context);
    session_end(*state);
}

/* Packed queries and keys: room for a partial tile of every sequence. */
static void packed_rows(void **state)
{
    static const int64_t tokens[] = {1, 127, 128, 129, 1000};
    struct trial t;
    rapt_context *context;
    static int32_t starts[8];
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        for (int64_t batch = 1; batch <= 7; batch += 3) {
            const int64_t size[5] = {1, 4, 2, tokens[i], tokens[i]};
            set_problem(&t, RAPT_BF16, size, 128, 128);
            t.a.q_start = (rapt_tensor){starts, RAPT_I32, {batch + 1, 1, 1, 1}, {1, 0, 0, 0}};
            t.a.kv_start = t.a.q_start;
            t.a.causal = 1;
            run(&t, "sm90_bf16_d128_linear");
            const rapt_tensor start = t.a.q_start;
            for (int packed = 1; packed < 4; packed++) { /* queries, keys, both */
                const int64_t own[5] = {batch, 4, 2, tokens[i], tokens[i]};
                for (int wide = 0; wide < 2; wide++) {
                    set_problem(&t, RAPT_F32, packed == 3 ? size : own, wide ? 196 : 96,
                                wide ? 140 : 80);
                    t.a.causal = 1;
                    if (packed & 1) {
                        t.a.q_start = start;
                        t.a.q.size[0] = t.a.out.size[0] = 1;
                    }
                    if (packed & 2) t.a.kv_start = start, t.a.k.size[0] = t.a.v.size[0] = 1;
                    run(&t, wide ? "sm90_f32_d256_features" : "sm90_f32_d128_features");
                    run(&t,
                        wide ? "sm90_f32_d256_features_strict" : "sm90_f32_d128_features_strict");
                }
            }
        }
    rapt_close(&context);
    session_end(*state);
}

/* More heads or sequences than a grid's axes hold: kernels go around, the launch is cut. */
static void many_heads(void **state)
{
    static const int64_t sizes[][5] = {{1, 70000, 70000, 256, 256}, {70000, 1, 1, 256, 256}};
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (int i = 0; i < 2; i++) {
        set_problem(&t, RAPT_F32, sizes[i], 64, 64);
        run(&t, "sm90_f32_d64");
    }
    rapt_close(&context);
    session_end(*state);
}

/* The composed path's scores: room for each row of each sequence. */
static void scores_of_the_composed_path(void **state)
{
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t *size = shapes[i], columns = size[4], rows = size[3];
        rapt_plan *plan = NULL;
        void *workspace = NULL;
        set_problem(&t, RAPT_BF16, size, 64, 64);
        t.kernel = t.a.kernel = "composed";
        t.fake->launch_count = t.parts = 0;
        assert_int_equal(rapt_plan_create(&plan, t.device, &t.a), RAPT_OK);
        t.size = rapt_plan_workspace_size(plan);
        assert_int_equal(rapt_alloc(t.device, t.size, &workspace), RAPT_OK);
        t.workspace = workspace;
        assert_int_equal(rapt_plan_execute(plan, &t.a, workspace, NULL), RAPT_OK);
        const struct view *s = &t.fake->launch[0].args.attention.scores;
        expect_part(&t, "scores", s->data, size[0] * size[1] * rows * columns * 4);
        expect(&t, s->stride[0] == size[1] * rows * columns && s->stride[1] == rows * columns &&
                       s->stride[2] == columns && s->stride[3] == 1);
        rapt_free(t.device, workspace);
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
    session_end(*state);
}

/* Packed tokens of no sequence: whatever the kernel, nothing is launched, before or after it either. */
static void packed_rows_of_nobody(void **state)
{
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    static int32_t starts[1];
    rapt_kernel_info info = {.struct_size = sizeof info};
    int served = 0;
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++)
        for (int n = 0; n < 12; n++) { /* types, packed keys too, head sizes */
            const int64_t size[5] = {1, 4, 2, 300, 300}, d = n / 6 ? 128 : 64;
            rapt_plan *plan = NULL;
            if (strcmp(info.op, "forward")) continue;
            set_problem(&t, dtypes[n % 3], size, d, d);
            t.a.q_start = (rapt_tensor){starts, RAPT_I32, {1, 1, 1, 1}, {1, 0, 0, 0}};
            if (n / 3 % 2) t.a.kv_start = t.a.q_start;
            else t.a.k.size[0] = t.a.v.size[0] = 0;
            t.kernel = t.a.kernel = info.name;
            if (rapt_plan_create(&plan, t.device, &t.a)) continue;
            served++;
            t.fake->launch_count = 0;
            assert_int_equal(rapt_plan_execute(plan, &t.a, NULL, NULL), RAPT_OK);
            expect(&t, t.fake->launch_count == 0 && rapt_plan_workspace_size(plan) == 0);
            rapt_plan_destroy(&plan);
        }
    assert_true(served > 40);
    rapt_close(&context);
    session_end(*state);
}

/* Nor does an append of tokens that are those of no sequence. */
static void append_for_nobody(void **state)
{
    static int32_t starts[2];
    static char memory[2 * 500 * 64 * 4];
    struct trial t;
    rapt_context *context;
    begin(*state, &context, &t);
    rapt_kv_append_args a = {.struct_size = sizeof a,
                             .k = rapt_tensor_bthd(NULL, RAPT_F32, 0, 2, 16, 64)};
    a.k_new = a.v_new = rapt_tensor_bthd(memory, RAPT_F32, 1, 2, 300, 64);
    a.v = a.k;
    a.q_start = rapt_tensor_bhtd(starts, RAPT_I32, 1, 1, 1, 1);
    t.fake->launch_count = 0;
    assert_int_equal(rapt_kv_append(t.device, &a, NULL), RAPT_OK);
    assert_int_equal(t.fake->launch_count, 0);
    a.q_start.size[0] = 2; /* one sequence without a token: the kernel is told, and leaves them */
    a.k = a.v = rapt_tensor_bthd(memory, RAPT_F32, 1, 2, 16, 64);
    a.k.data = memory + 2 * 300 * 64 * 4, a.v.data = memory + 2 * 400 * 64 * 4;
    assert_int_equal(rapt_kv_append(t.device, &a, NULL), RAPT_OK);
    assert_int_equal(t.fake->launch_count, 1);
    rapt_close(&context);
    session_end(*state);
}

int main(int argc, char **argv)
{
#define ON_CUDA(test)                                                                              \
    {                                                                                              \
#test, test, NULL, NULL, (void *)&vendors[0]                                               \
    }
    const struct CMUnitTest tests[] = {ON_CUDA(claimed_rows),
                                       ON_CUDA(rows_that_share_keys),
                                       ON_CUDA(rows_in_parts),
                                       ON_CUDA(rows_with_numbers),
                                       ON_CUDA(numbers_that_pay),
                                       ON_CUDA(packed_rows),
                                       ON_CUDA(many_heads),
                                       ON_CUDA(scores_of_the_composed_path),
                                       ON_CUDA(packed_rows_of_nobody),
                                       ON_CUDA(append_for_nobody),
                                       ON_CUDA(heads_in_pairs),
                                       ON_CUDA(heads_almost_in_pairs)};
    return run_group("workspace", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
