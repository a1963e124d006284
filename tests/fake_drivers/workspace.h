/* workspace.h: what test_workspace.c and test_numbers.c ask of a plan on sm_90: the parts of its
 * workspace, tensor maps and launches, as they follow from the kernel's row. */
#ifndef RAPT_TESTS_WORKSPACE_H
#define RAPT_TESTS_WORKSPACE_H

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

/* Blocks of so many keys of a head; each sequence of a packed batch begins one. */
static int64_t blocks_of(const struct attention_args *a, int64_t keys)
{
    return a->kv_start.data ? a->kv_tokens / keys + a->batch : parts_of(a->kv_tokens, keys);
}

static int64_t key_blocks(const struct attention_args *a)
{
    return blocks_of(a, PART_KEYS);
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
                           const rapt_tensor *of, const struct attention_args *a, int64_t keys,
                           int64_t channels, int64_t dtype)
{
    int64_t head = at_least_one(blocks_of(a, keys)) * keys * channels,
            sequences = a->kv_start.data ? 1 : a->batch;
    expect_part(t, name, half->data, sequences * of->size[1] * head * 2);
    expect(t, half->stride[0] == of->size[1] * head && half->stride[1] == head &&
                  half->stride[2] == channels && half->stride[3] == 1 && half->dtype == dtype);
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
        int64_t keys = row->tile_kv, blocks = at_least_one(blocks_of(a, keys)),
                scales = t->a.k_scale.size[3], words = (scales + 1) * keys + 4;
        expect_numbers(t, "numbers of k", &a->k_half, &t->a.k, a, keys, row->d, t->a.q.dtype);
        expect_numbers(t, "numbers of v", &a->v_half, &t->a.v, a, keys,
                       scales > 1 ? 2 * row->dv : row->dv, scales > 1 ? RAPT_BF16 : t->a.q.dtype);
        expect_part(t, "scales", a->key_factors,
                    (a->kv_start.data ? 1 : a->batch) * a->kv_heads * blocks * words * 4);
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
                                : (x->dtype == RAPT_F32 ? 4 : 2) * (uint64_t)x->stride[axis];
}

/* Of K or V: whether two heads of a token are whole sectors of 32 bytes, wherever they are, and one is
 * not; there are always columns left. */
static int in_pairs(const struct row *row, const rapt_tensor *x)
{
    return (row->needs & NEED_PAIRS) && x->size[3] % 16 == 8 && x->size[1] % 2 == 0 &&
           x->stride[1] == x->size[3] && x->stride[2] % 16 == 0 && x->stride[0] % 16 == 0;
}

/* half: of a tensor that kernels read in parts, else NULL; then one of f32 is read as it is. heads: that
 * are one in the map. */
static void expect_map(const struct trial *t, const struct row *row, const struct tensor_map *map,
                       const rapt_tensor *x, const struct view *half, int64_t rows, uint64_t heads)
{
    struct fake_map m;
    int whole = !half && x->dtype == RAPT_F32;
    uint64_t channels = (uint64_t)(half ? half->stride[2] : x->size[3]), of_panel = whole ? 32 : 64,
             panels = channels / of_panel,
             tokens = (uint64_t)(half ? half->stride[1] / half->stride[2] : x->size[2]),
             sequences = (uint64_t)x->size[0] * (half ? HALVES : 1);
    int64_t type = half ? half->dtype : row->dtype;
    if (half && (row->needs & NEED_NUMBERS))
        sequences = t->a.kv_start.dtype ? 1 : (uint64_t)t->a.q.size[0];
    memcpy(&m, map, sizeof m);
    expect(t, m.data == (half ? half->data : x->data));
    /* CU_TENSOR_MAP_DATA_TYPE_ FLOAT32, FLOAT16, BFLOAT16 */
    expect(t, m.type == (whole ? 7 : type == RAPT_F16 ? 6 : 9));
    expect(t, m.swizzle == 3 && m.fill == 0); /* CU_TENSOR_MAP_SWIZZLE_128B, FLOAT_OOB_FILL_NONE */
    expect(t, m.promotion == 2);              /* CU_TENSOR_MAP_L2_PROMOTION_L2_128B */
    expect(t, m.box[0] == of_panel && m.box[1] == rows);
    if (row->needs & NEED_PANELS) {
        const uint64_t size[] = {channels * heads, tokens, (uint64_t)x->size[1] / heads, sequences};
        expect(t, m.rank == 4 && !memcmp(m.size, size, sizeof size));
        expect(t, m.box[2] == 1 && m.box[3] == 1);
        for (int i = 0; i < 3; i++)
            expect(t, m.stride[i] == step_of(x, half, 2 - i) * (i == 1 ? heads : 1));
        return;
    }
    const uint64_t size[] = {of_panel, tokens, panels, (uint64_t)x->size[1], sequences};
    expect(t, m.rank == 5 && !memcmp(m.size, size, sizeof size));
    expect(t, m.box[2] == panels && m.box[3] == 1 && m.box[4] == 1);
    expect(t, m.stride[0] == step_of(x, half, 2) && m.stride[1] == 128);
    expect(t, m.stride[2] == step_of(x, half, 1) && m.stride[3] == step_of(x, half, 0));
}

static void expect_maps(const struct trial *t, const struct row *row, const struct fake_launch *l)
{
    const struct attention_args *a = &l->args.attention;
    int halved = (row->needs & NEED_HALVES) != 0;
    int keys = (halved && !(row->needs & NEED_WHOLE_KEYS)) || (row->needs & NEED_NUMBERS);
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
                       at_least_one(parts_of(l[0].args.attention.kv_tokens, row->tile_kv)));
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
    size_t length = strlen(row->name);
    if (row->needs & NEED_WHOLE_KEYS) length -= strlen("_short");
    snprintf(name, sizeof name, "%.*s_strict", (int)length, row->name);
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

#define ON_CUDA(test)                                                                              \
    {                                                                                              \
#test, test, NULL, NULL, (void *)&vendors[0]                                               \
    }

#endif
