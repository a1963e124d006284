/* forward.c: plans and executes attention on a GPU: arguments, workspace and launches are prepared
 * in the plan; execute fills in pointers and launches. */
#include "base/alloc.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/integer.h"
#include "gpu/gpu.h"
#include "gpu/halves.h"
#include "gpu/maps.h"
#include "gpu/numbers.h"
#include "gpu/splits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Tensors that reach the kernels as they are: field of rapt_attention, field of attention_args. */
/* clang-format off */
#define VIEW_LIST(X)                                                                               \
    X(q, q)                                                                                        \
    X(k, k)                                                                                        \
    X(v, v)                                                                                        \
    X(out, out)                                                                                    \
    X(lse, lse)                                                                                    \
    X(bias, bias)                                                                                  \
    X(mask, mask)                                                                                  \
    X(alibi_slope, alibi)                                                                          \
    X(sink, sink)                                                                                  \
    X(weights, weights)                                                                            \
    X(q_scale, q_scale)                                                                            \
    X(k_scale, k_scale)                                                                            \
    X(v_scale, v_scale)                                                                            \
    X(q_start, q_start)                                                                            \
    X(kv_start, kv_start)                                                                          \
    X(kv_length, kv_length)                                                                        \
    X(page_table, page_table)
/* clang-format on */

/* By the tensor's number. */
static const uint16_t view_at[PROBLEM_TENSORS] = {
#define ROW(tensor, view) [TENSOR_INDEX(tensor)] = offsetof(struct attention_args, view),
    VIEW_LIST(ROW)
#undef ROW
};
#define ROW(tensor, view) VIEW_OF_##tensor,
enum { VIEW_LIST(ROW) VIEW_COUNT };
#undef ROW
_Static_assert((int)VIEW_COUNT == (int)PROBLEM_TENSORS, "each tensor has its view");

/* Parts of the workspace, in this order; each 64-byte aligned. */
enum {
    PART_COUNTERS,
    PART_PARTIAL_OUT,
    PART_PARTIAL_LSE,
    PART_SCORES,
    PART_HALF,
    PART_KEY_FACTORS = PART_HALF + 3,
    PART_WIDE_BLOCKS,
    PART_WIDE,
    PART_COUNT
};

enum { MAX_STEPS = 4 };

struct step {
    void *function;
    struct grid grid;
    uint32_t threads, shared;
    int strict; /* a launch of the row's strict companion: with its maps */
};

/* What an execute passes to the kernels, but for the ticket. */
struct launch_args {
    struct attention_args args;
    struct tensor_maps maps[2]; /* the row's, its strict companion's */
};

/* The one made last, and from what (q NULL: none): callers mostly execute on the same memory again. */
struct last_args {
    atomic_int busy; /* one thread at a time; the others make their own */
    struct problem_data data;
    void *workspace;
    struct launch_args l;
};

struct gpu_plan {
    const struct row *row, *strict; /* strict: NEED_STRICT */
    struct attention_args args;     /* complete but for addresses and ticket */
    struct driver_map maps[MAP_COUNT], strict_maps[MAP_COUNT];
    struct last_args last;
    struct step steps[MAX_STEPS];
    int step_count;
    size_t offset[PART_COUNT], bytes[PART_COUNT]; /* bytes 0: not used */
    size_t workspace_size;
    _Atomic(uint64_t) executes;
    struct gpu_plan *unaligned; /* for addresses that are not 16-byte aligned, or of values that are
                                   not within the keys, if this row needs that; NULL: it does not */
};

_Static_assert(sizeof(struct attention_args) + sizeof(struct tensor_maps) + 64 <= 4096,
               "kernel parameters: 4 KB at most");
_Static_assert(sizeof(struct kv_append_args) <= 4096, "kernel parameters: 4 KB at most");
_Static_assert(RAPT_F32 == DTYPE_f32 && RAPT_I64 == DTYPE_i64, "kernel_args.h repeats rapt_dtype");

struct view view_of(const rapt_tensor *t)
{
    struct view v = {t->data, {t->stride[0], t->stride[1], t->stride[2], t->stride[3]}, t->dtype};
    return v;
}

static int32_t window(int64_t neighbours)
{
    return neighbours > WINDOW_LIMIT ? WINDOW_LIMIT : (int32_t)neighbours;
}

int32_t shift_of(int64_t x)
{
    return x > 0 && (x & (x - 1)) == 0 ? (int32_t)__builtin_ctzll((unsigned long long)x) : -1;
}

int32_t block_of(const rapt_tensor *scale, int64_t channels)
{
    return scale->dtype ? (int32_t)(channels / scale->size[3]) : 0;
}

static void fill_args(struct attention_args *args, const struct problem *p,
                      const struct gpu_device *device)
{
    for (int i = 0; i < PROBLEM_TENSORS; i++) {
        struct view v = view_of(problem_tensor(&p->a, i));
        memcpy((char *)args + view_at[i], &v, sizeof v);
    }
    args->batch = (int32_t)p->batch;
    args->q_heads = (int32_t)p->q_heads;
    args->kv_heads = (int32_t)p->kv_heads;
    args->group = (int32_t)p->group;
    args->q_tokens = (int32_t)p->q_tokens;
    args->kv_tokens = (int32_t)p->kv_tokens;
    args->columns = (int32_t)(p->a.weights.dtype ? p->a.weights.size[3] : p->kv_tokens);
    args->channels = (int32_t)p->qk_channels;
    args->v_channels = (int32_t)p->v_channels;
    args->page_tokens = (int32_t)p->page_tokens;
    args->page_shift = shift_of(p->page_tokens);
    args->q_block = block_of(&p->a.q_scale, p->qk_channels);
    args->k_block = block_of(&p->a.k_scale, p->qk_channels);
    args->v_block = block_of(&p->a.v_scale, p->v_channels);
    args->window_left = window(p->window_left);
    args->window_right = window(p->window_right);
    args->top_left = p->a.align == RAPT_TOP_LEFT;
    args->batch_invariant = (int32_t)p->a.batch_invariant;
    args->scale = (float)p->a.scale;
    args->scale_log2 = (float)(p->a.scale * 1.4426950408889634); /* log2(e) */
    args->softcap = (float)p->a.softcap;
    args->units = device->units;
    args->splits = 1;
    args->split_keys = args->kv_tokens;
}

static int64_t query_rows(const struct problem *p)
{
    return (p->ragged_q ? 1 : p->batch) * p->q_heads * p->q_tokens;
}

/* Scores are the caller's weights if these are f32, else f32 in the workspace; without weights,
 * softmax works in place. */
static rapt_status fill_scores(struct gpu_plan *gp, const struct problem *p)
{
    struct attention_args *a = &gp->args;
    if (p->a.weights.dtype == RAPT_F32) {
        a->scores = a->weights;
        return RAPT_OK;
    }
    int64_t columns = a->columns, total;
    if (__builtin_mul_overflow(query_rows(p), columns, &total) || total > INT64_MAX / 8)
        return fail(
            RAPT_NO_MEMORY,
            "rapt_plan_create: the scores of %lld query rows and %lld keys do not fit in 63 bits",
            (long long)query_rows(p), (long long)columns);
    a->scores = (struct view){
        NULL, {p->q_heads * p->q_tokens * columns, p->q_tokens * columns, columns, 1}, DTYPE_f32};
    if (!p->a.weights.dtype) a->weights = a->scores;
    gp->bytes[PART_SCORES] = (size_t)total * 4;
    return RAPT_OK;
}

/* The counter's 16 bytes, then room for one note for each 64 rows of each tile; ragged: a sequence
 * may begin a tile anywhere. */
static size_t claimed_bytes(const struct problem *p, const struct row *row)
{
    int64_t tile = max64(row->tile_q, 1), heads = p->q_heads * (p->ragged_q ? 1 : p->batch);
    int64_t tiles = p->ragged_q ? p->q_tokens / tile + p->batch + 1 : ceil_div(p->q_tokens, tile);
    return (size_t)(1 + heads * tiles * ceil_div(tile, 64)) * 16;
}

/* Likewise where tiles share the keys. */
static size_t claimed_parts_bytes(const struct attention_args *a, const struct row *row)
{
    return (size_t)(1 + splits_tiles(a, row) * a->splits * ceil_div(row->tile_q, 64)) * 16;
}

static void fill_strict(struct gpu_plan *gp, const struct problem *p)
{
    struct strict_bytes bytes = halves_strict(&gp->args, p);
    gp->bytes[PART_KEY_FACTORS] = bytes.factors;
    gp->bytes[PART_WIDE_BLOCKS] = bytes.blocks;
    gp->bytes[PART_WIDE] = bytes.heads;
}

static rapt_status fill_numbers(struct gpu_plan *gp, const struct problem *p)
{
    struct number_bytes bytes = {0};
    rapt_status status = numbers_views(&gp->args, gp->row, p, &bytes);
    gp->bytes[PART_HALF + 1] = bytes.k;
    gp->bytes[PART_HALF + 2] = bytes.v;
    gp->bytes[PART_KEY_FACTORS] = bytes.scales;
    return status;
}

static rapt_status fill_workspace(struct gpu_plan *gp, const struct problem *p)
{
    const struct row *row = gp->row;
    rapt_status status = RAPT_OK;
    if (row->needs & NEED_CLAIMED)
        gp->bytes[PART_COUNTERS] = row->needs & NEED_PARTIALS ? claimed_parts_bytes(&gp->args, row)
                                                              : claimed_bytes(p, row);
    if (row->needs & NEED_HALVES) status = halves_views(&gp->args, row, p, &gp->bytes[PART_HALF]);
    if (!status && (row->needs & NEED_STRICT)) fill_strict(gp, p);
    if (!status && (row->needs & NEED_NUMBERS)) status = fill_numbers(gp, p);
    return status;
}

static void place_workspace(struct gpu_plan *gp)
{
    size_t at = 0;
    for (int i = 0; i < PART_COUNT; i++) {
        gp->offset[i] = at;
        at += (gp->bytes[i] + 63) / 64 * 64;
    }
    gp->workspace_size = at;
}

static void add_step(struct gpu_plan *gp, const struct row *row, void *function,
                     const struct grid *grid, int shared)
{
    gp->steps[gp->step_count++] =
        (struct step){function, *grid, (uint32_t)row->threads, (uint32_t)shared, row == gp->strict};
}

/* The row's main launch; a grid without blocks adds none. */
static rapt_status add_main(struct gpu_plan *gp, const struct row *row, const struct code *code,
                            int64_t row_total)
{
    struct grid grid;
    struct extent e = extent_of(&gp->args, row_total);
    int blocks = row_grid(row, &e, &grid);
    if (blocks < 0)
        return fail(
            RAPT_UNSUPPORTED,
            "rapt_plan_create: %s would need more blocks than a launch may have (split the batch)",
            row->name);
    const struct attention_args *a = &gp->args;
    int shared = row_shared(row, a->mask.dtype != 0, (int)dtype_size(a->bias.dtype)),
        alone = splits_shared(a, row);
    if (blocks) add_step(gp, row, code->main, &grid, shared > alone ? shared : alone);
    return RAPT_OK;
}

static uint32_t cut(int64_t blocks)
{
    return (uint32_t)(blocks < GRID_LIMIT ? blocks : GRID_LIMIT);
}

/* NAME_prepare; x: blocks along the tokens. */
static void add_prepare(struct gpu_plan *gp, const struct row *row, const struct code *code,
                        int64_t x, int64_t heads, int64_t batch)
{
    struct grid grid = {(uint32_t)x, cut(heads), cut(batch)};
    add_step(gp, row, code->prepare, &grid, 0);
}

/* The companion that does what this row leaves. */
static rapt_status find_strict(struct gpu_plan *gp, struct gpu_device *device,
                               const struct problem *p, const struct code **code)
{
    char name[64];
    const char *tail = gp->row->needs & NEED_WHOLE_KEYS ? strrchr(gp->row->name, '_') : NULL;
    snprintf(name, sizeof name, "%.*s_strict",
             (int)(tail ? (size_t)(tail - gp->row->name) : strlen(gp->row->name)), gp->row->name);
    gp->strict = kernels_row(device, name);
    if (!gp->strict)
        return fail(RAPT_UNSUPPORTED,
                    "rapt_plan_create: %s needs %s, which is not in this library for %s",
                    gp->row->name, name, device->arch);
    maps_describe(gp->strict, p, &gp->args, gp->strict_maps);
    return modules_get(device, gp->strict, code);
}

static rapt_status build_row(struct gpu_plan *gp, struct gpu_device *device,
                             const struct problem *p)
{
    const struct row *row = gp->row;
    const struct attention_args *a = &gp->args;
    const struct code *code;
    rapt_status status = modules_get(device, row, &code);
    if (status) return status;
    if (row->needs & NEED_PARTIALS) {
        splits_choose(&gp->args, row, device->memory_gbs);
        status = splits_bytes(a, query_rows(p), &gp->bytes[PART_PARTIAL_OUT],
                              &gp->bytes[PART_PARTIAL_LSE]);
        if (status) return status;
    }
    status = fill_workspace(gp, p);
    if (status) return status;
    if (row->needs & NEED_MAPS) maps_describe(row, p, a, gp->maps);
    const struct code *strict = NULL;
    int64_t longest = max64(p->q_tokens, p->kv_tokens), heads = p->q_heads + 2 * p->kv_heads;
    if (row->needs & NEED_STRICT) {
        status = find_strict(gp, device, p, &strict);
        if (!status) add_prepare(gp, row, code, halves_split_blocks(a, row, p), 1, 1);
    } else if (row->needs & NEED_NUMBERS) {
        add_prepare(gp, row, code, max64(ceil_div(p->kv_tokens, row->tile_kv), 1), 2 * p->kv_heads,
                    p->batch);
    } else if (row->needs & NEED_PREPARE) {
        add_prepare(gp, row, code, ceil_div(longest, row->tile_kv), heads, p->batch);
    }
    if (!status) status = add_main(gp, row, code, query_rows(p));
    if (!status && strict) {
        add_prepare(gp, gp->strict, strict, ceil_div(longest, 2048), heads, p->batch);
        status = add_main(gp, gp->strict, strict, query_rows(p));
    }
    if (!status && (row->needs & NEED_COMBINE) && a->splits > 1) {
        struct grid grid = splits_combine_grid(a, row);
        add_step(gp, row, code->combine, &grid, splits_combine_shared(a, row));
    }
    return status;
}

/* Whether scores need anything between qk and softmax. */
static int changes_scores(const struct problem *p)
{
    return p->window_left != WINDOW_OPEN || p->window_right != WINDOW_OPEN || p->a.softcap != 0 ||
           p->a.bias.dtype || p->a.mask.dtype || p->a.alibi_slope.dtype || p->a.kv_length.dtype ||
           p->ragged_kv;
}

static rapt_status build_composed(struct gpu_plan *gp, struct gpu_device *device,
                                  const struct gpu_kernel *k, const struct problem *p)
{
    rapt_status status = fill_scores(gp, p);
    for (int i = 0; i < PIECE_COUNT && !status; i++) {
        const struct code *code;
        if (i == PIECE_MASK && !changes_scores(p)) continue;
        const struct row *row =
            kernels_for_rows(device, k->piece[i], gp->args.columns, gp->args.scores.dtype);
        status = modules_get(device, row, &code);
        if (!status) status = add_main(gp, row, code, query_rows(p));
    }
    return status;
}

static void free_plan(struct gpu_plan *gp)
{
    if (gp) free_plan(gp->unaligned);
    free(gp);
}

/* Between enter and leave. */
static rapt_status build(struct gpu_device *device, int kernel, const struct problem *p,
                         struct gpu_plan **out)
{
    const struct gpu_kernel *k = &device->kernels[kernel];
    struct gpu_plan *gp = alloc_zeroed(1, sizeof *gp);
    *out = NULL;
    if (!gp)
        return fail(RAPT_NO_MEMORY, "rapt_plan_create: no memory for a plan (%zu bytes)",
                    sizeof *gp);
    gp->row = k->row;
    fill_args(&gp->args, p, device);
    rapt_status status = RAPT_OK;
    if (query_rows(p) && p->batch) /* packed tokens may be those of no sequence */
        status = k->composed ? build_composed(gp, device, k, p) : build_row(gp, device, p);
    if (status) {
        free_plan(gp);
        return status;
    }
    place_workspace(gp);
    *out = gp;
    return RAPT_OK;
}

/* A kernel that reads 16 bytes at a time gets a companion for the executes whose addresses are not
 * so aligned. */
static rapt_status build_unaligned(struct gpu_device *device, int kernel, const struct problem *p,
                                   struct gpu_plan **out)
{
    char reason[REASON_SIZE];
    for (int i = kernel + 1; i < device->kernel_count; i++)
        if ((device->kernels[i].row->can & CAN_UNALIGNED) && !kernels_refuse(device, i, p, reason))
            return build(device, i, p, out);
    return RAPT_OK;
}

rapt_status gpu_plan(rapt_plan *plan)
{
    struct gpu_device *device = plan->device->state;
    struct driver_scope scope;
    struct gpu_plan *gp = NULL;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    status = build(device, plan->kernel, &plan->problem, &gp);
    if (!status && !plan->named && !(gp->row->can & CAN_UNALIGNED))
        status = build_unaligned(device, plan->kernel, &plan->problem, &gp->unaligned);
    device->driver->leave(device, &scope);
    if (status) {
        free_plan(gp);
        return status;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    atomic_store(&gp->executes,
                 (uint64_t)(uintptr_t)gp ^ (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec);
    plan->state = gp;
    plan->workspace_size = gp->workspace_size;
    if (gp->unaligned && gp->unaligned->workspace_size > plan->workspace_size)
        plan->workspace_size = gp->unaligned->workspace_size;
    return RAPT_OK;
}

void gpu_plan_free(rapt_plan *plan)
{
    free_plan(plan->state);
    plan->state = NULL;
}

/* Which of the row's tensors are not 16-byte aligned, or NULL: all are. */
static const char *misaligned(const struct row *row, const struct problem_data *data)
{
    uintptr_t cells = (row->can & CAN_BIAS ? (uintptr_t)data->of[TENSOR_INDEX(bias)] : 0) |
                      (row->can & CAN_MASK ? (uintptr_t)data->of[TENSOR_INDEX(mask)] : 0);
    if ((row->needs & (NEED_CELL_MAP | NEED_HALVES)) && cells & 15) return "bias or mask";
    if ((row->needs & NEED_BLOCK_SCALES) &&
        ((uintptr_t)data->of[TENSOR_INDEX(k_scale)] | (uintptr_t)data->of[TENSOR_INDEX(v_scale)]) &
            15)
        return "k_scale or v_scale";
    return (((uintptr_t)data->of[TENSOR_INDEX(q)] | (uintptr_t)data->of[TENSOR_INDEX(k)] |
             (uintptr_t)data->of[TENSOR_INDEX(v)] | (uintptr_t)data->of[TENSOR_INDEX(out)]) &
            15) != 0
               ? "q, k, v or out"
               : NULL;
}

/* Values that are not the keys' first channels, for a row that needs that. */
static int values_apart(const struct row *row, const struct problem_data *data)
{
    return (row->needs & NEED_SHARED_KV) && data->of[TENSOR_INDEX(v)] != data->of[TENSOR_INDEX(k)];
}

static rapt_status refuse_data(const struct row *row, const char *misaligned)
{
    if (misaligned)
        return fail(RAPT_UNSUPPORTED,
                    "rapt_plan_execute: %s is not 16-byte aligned (%s needs that, "
                    "and no other kernel was allowed or serves)",
                    misaligned, row->name);
    return fail(
        RAPT_UNSUPPORTED,
        "rapt_plan_execute: v does not begin where k does (%s takes its values from the keys, "
        "and no other kernel was allowed or serves)",
        row->name);
}

/* SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads a counter over all bits. The low
 * half must not be 0. */
static uint64_t ticket_of(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (uint32_t)x ? x : x | 1;
}

static void *part(const struct gpu_plan *gp, int i, void *workspace)
{
    return gp->bytes[i] ? (char *)workspace + gp->offset[i] : NULL;
}

static void place(const struct gpu_plan *gp, const struct problem_data *data, void *workspace,
                  struct attention_args *args)
{
    *args = gp->args;
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        if (data->of[i])
            memcpy((char *)args + view_at[i] + offsetof(struct view, data), &data->of[i],
                   sizeof data->of[i]);
    args->counters = part(gp, PART_COUNTERS, workspace);
    args->partial_out = part(gp, PART_PARTIAL_OUT, workspace);
    args->partial_lse = part(gp, PART_PARTIAL_LSE, workspace);
    args->q_half.data = part(gp, PART_HALF, workspace);
    args->k_half.data = part(gp, PART_HALF + 1, workspace);
    args->v_half.data = part(gp, PART_HALF + 2, workspace);
    args->key_factors = part(gp, PART_KEY_FACTORS, workspace);
    args->wide_blocks = part(gp, PART_WIDE_BLOCKS, workspace);
    args->wide = part(gp, PART_WIDE, workspace);
    if (args->scores.dtype) {
        args->scores.data =
            gp->bytes[PART_SCORES] ? part(gp, PART_SCORES, workspace) : args->weights.data;
        if (!args->weights.data) args->weights.data = args->scores.data;
    }
}

static rapt_status make_args(struct gpu_device *device, const struct gpu_plan *gp,
                             const struct problem_data *data, void *workspace,
                             struct launch_args *out)
{
    rapt_status status = RAPT_OK;
    place(gp, data, workspace, &out->args);
    if (gp->row->needs & NEED_MAPS)
        status = maps_encode(device, gp->row, gp->maps, &out->args, &out->maps[0]);
    if (!status && gp->strict)
        status = maps_encode(device, gp->strict, gp->strict_maps, &out->args, &out->maps[1]);
    return status;
}

static rapt_status launch(struct gpu_device *device, const struct gpu_plan *gp,
                          struct launch_args *l, uint64_t ticket, rapt_stream stream)
{
    void *parameters[2][3] = {{&l->args, &l->maps[0], NULL}, {&l->args, &l->maps[1], NULL}};
    rapt_status status = RAPT_OK;
    l->args.ticket = ticket;
    for (int i = 0; i < gp->step_count && !status; i++) {
        const struct step *s = &gp->steps[i];
        struct driver_launch to = {
            s->function,           {s->grid.x, s->grid.y, s->grid.z}, s->threads, s->shared,
            parameters[s->strict], (gp->row->needs & NEED_EARLY) != 0};
        status = device->driver->launch(device, &to, stream);
    }
    return status;
}

/* With the arguments made last where they still hold; a driver copies them before it returns. */
static rapt_status launch_last(struct gpu_device *device, const struct gpu_plan *gp,
                               struct last_args *last, const struct problem_data *data,
                               void *workspace, uint64_t ticket, rapt_stream stream)
{
    rapt_status status = RAPT_OK;
    if (last->workspace != workspace || memcmp(&last->data, data, sizeof *data) != 0) {
        status = make_args(device, gp, data, workspace, &last->l);
        last->data = *data;
        if (status) last->data.of[TENSOR_INDEX(q)] = NULL;
        last->workspace = workspace;
    }
    return status ? status : launch(device, gp, &last->l, ticket, stream);
}

rapt_status gpu_execute(const rapt_plan *plan, const struct problem_data *data, void *workspace,
                        rapt_stream stream)
{
    struct gpu_device *device = plan->device->state;
    struct gpu_plan *gp = plan->state;
    uint64_t number = atomic_fetch_add_explicit(&gp->executes, 1, memory_order_relaxed);
    const char *what = gp->row->can & CAN_UNALIGNED ? NULL : misaligned(gp->row, data);
    if (what || values_apart(gp->row, data)) {
        if (!gp->unaligned) return refuse_data(gp->row, what);
        gp = gp->unaligned;
    }
    if (!gp->step_count) return RAPT_OK;
    struct driver_scope scope;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    if (!atomic_exchange_explicit(&gp->last.busy, 1, memory_order_acquire)) {
        status = launch_last(device, gp, &gp->last, data, workspace, ticket_of(number), stream);
        atomic_store_explicit(&gp->last.busy, 0, memory_order_release);
    } else {
        struct launch_args own;
        status = make_args(device, gp, data, workspace, &own);
        if (!status) status = launch(device, gp, &own, ticket_of(number), stream);
    }
    device->driver->leave(device, &scope);
    return status;
}
