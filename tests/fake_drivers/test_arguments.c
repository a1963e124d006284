/* test_arguments.c: what kernels are told of a problem: every view, size and option of every launch
 * of the named problems, and the launch's shape, computed here from the problem's line alone. */
#include "session.h"

#include "problem.h"

#include <math.h>
#include <stdio.h>

#include "group.h"

/* A launch with what it must hold. */
struct trial {
    const struct stand_in *v;
    struct fake *fake;
    rapt_device *device;
    struct problem_instance *p;
    const struct fake_launch *l;
};

#define expect(t, what)                                                                            \
    do {                                                                                           \
        if (!(what))                                                                               \
            fail_msg("%s: %s of %s: not %s", (t)->p->line.text, (t)->l->name, (t)->v->name,        \
                     #what);                                                                       \
    } while (0)

/* ---- Views ---- */

static bool same_view(const struct view *v, const rapt_tensor *t)
{
    bool same = v->data == t->data && v->dtype == t->dtype;
    for (int axis = 0; axis < 4 && t->dtype; axis++)
        same = same && v->stride[axis] == (t->size[axis] == 1 ? 0 : t->stride[axis]);
    return same;
}

#define EXPECT_VIEW(t, view, tensor) expect(t, same_view(&(view), &(tensor)))

static void expect_views(const struct trial *t)
{
    const rapt_attention *p = &t->p->args.forward;
    const struct attention_args *a = &t->l->args.attention;
    EXPECT_VIEW(t, a->q, p->q);
    EXPECT_VIEW(t, a->k, p->k);
    EXPECT_VIEW(t, a->v, p->v);
    EXPECT_VIEW(t, a->out, p->out);
    EXPECT_VIEW(t, a->lse, p->lse);
    EXPECT_VIEW(t, a->bias, p->bias);
    EXPECT_VIEW(t, a->mask, p->mask);
    EXPECT_VIEW(t, a->alibi, p->alibi_slope);
    EXPECT_VIEW(t, a->sink, p->sink);
    EXPECT_VIEW(t, a->q_scale, p->q_scale);
    EXPECT_VIEW(t, a->k_scale, p->k_scale);
    EXPECT_VIEW(t, a->v_scale, p->v_scale);
    EXPECT_VIEW(t, a->q_start, p->q_start);
    EXPECT_VIEW(t, a->kv_start, p->kv_start);
    EXPECT_VIEW(t, a->kv_length, p->kv_length);
    EXPECT_VIEW(t, a->page_table, p->page_table);
    if (p->weights.dtype) EXPECT_VIEW(t, a->weights, p->weights);
}

/* ---- Sizes and options ---- */

static int64_t least(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static int64_t parts_of(int64_t x, int64_t part)
{
    return (x + part - 1) / part;
}

/* Neighbours as rapt.h has them: 0 open, else one more. */
static int64_t neighbours(int64_t window)
{
    return window ? least(window - 1, WINDOW_LIMIT) : WINDOW_LIMIT;
}

static int log2_of(int64_t x)
{
    for (int n = 0; n < 40; n++)
        if ((int64_t)1 << n == x) return n;
    return -1;
}

static int64_t block(const struct problem_line *line, int64_t dtype, int64_t channels)
{
    return dtype != RAPT_I8 ? 0 : line->scale_block ? line->scale_block : channels;
}

static void expect_sizes(const struct trial *t)
{
    const struct problem_line *line = &t->p->line;
    const rapt_attention *p = &t->p->args.forward;
    const struct attention_args *a = &t->l->args.attention;
    int64_t keys = line->page_tokens ? p->page_table.size[2] * line->page_tokens : p->k.size[2];
    expect(t, a->batch == line->batch);
    expect(t, a->q_heads == line->q_heads && a->kv_heads == line->kv_heads);
    expect(t, a->group == line->q_heads / line->kv_heads);
    expect(t, a->q_tokens == p->q.size[2]);
    expect(t, a->kv_tokens == keys);
    expect(t, a->splits >= 1 && (int64_t)a->splits * a->split_keys >= keys);
    expect(t, a->columns == (p->weights.dtype ? p->weights.size[3] : keys));
    expect(t, a->channels == line->qk_channels && a->v_channels == line->v_channels);
    expect(t, a->page_tokens == line->page_tokens);
    expect(t, a->page_shift == log2_of(line->page_tokens));
    expect(t, a->q_block == block(line, line->dtype, line->qk_channels));
    expect(t, a->k_block == block(line, line->kv_dtype, line->qk_channels));
    expect(t, a->v_block == block(line, line->kv_dtype, line->v_channels));
    expect(t, a->units == (strcmp(t->v->name, "cuda") ? 304 : 132));
}

static void expect_options(const struct trial *t)
{
    const struct problem_line *line = &t->p->line;
    const struct attention_args *a = &t->l->args.attention;
    int64_t right = neighbours(line->window_right);
    double scale = line->scale != 0 ? line->scale : 1 / sqrt((double)line->qk_channels);
    expect(t, a->window_left == neighbours(line->window_left));
    expect(t, a->window_right == (line->causal ? 0 : right));
    expect(t, a->top_left == (line->align == RAPT_TOP_LEFT));
    expect(t, a->batch_invariant == line->batch_invariant);
    expect(t, fabs(a->scale - scale) <= 1e-7 * fabs(scale));
    expect(t, fabs(a->scale_log2 - scale / log(2)) <= 1e-6 * fabs(scale));
    expect(t, a->softcap == (float)line->softcap);
    expect(t, (uint32_t)a->ticket != 0);
}

/* ---- Launches ---- */

/* kernels.def once more: what a launch follows from. */
struct row {
    const char *arch, *name, *grid, *needs;
    int tile_q, tile_kv, threads, shared;
};
static const struct row table[] = {
#define KERNEL(vendor, arch, source, name, op, dtype, d, dv, tile_q, tile_kv, threads, shared,     \
               grid, can, needs, flags)                                                            \
    {#arch, #name, #grid, #needs, tile_q, tile_kv, threads, shared},
#include "gpu/kernels.def"
#undef KERNEL
};

/* NULL: another entry point of a row. */
static const struct row *row_of(const struct trial *t)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, t->l->name) && !strcmp(table[i].arch, t->l->arch))
            return &table[i];
    return NULL;
}

static bool needs(const struct row *row, const char *what)
{
    return strstr(row->needs, what) != NULL;
}

static void expect_grid(const struct trial *t, int64_t x, int64_t y, int64_t z)
{
    expect(t, t->l->grid[0] == x);
    expect(t, t->l->grid[1] == least(65535, y) && t->l->grid[2] == least(65535, z));
}

/* Of rows of scores, in blocks of at least one row and of tile_q elements, rows being as long as
 * powers of two. */
static int64_t softmax_blocks(const struct row *row, int64_t rows, int64_t columns)
{
    int64_t power = 1;
    while (power < columns) power *= 2;
    return parts_of(rows, row->tile_q / power > 1 ? row->tile_q / power : 1);
}

/* Rows of 16 bits, but for short ones of whole 16-byte pieces: four times the blocks that 640 threads
 * of each multiprocessor are. */
static int64_t most_softmax_blocks(const struct row *row, const struct attention_args *a)
{
    bool wide = a->scores.dtype == RAPT_F32, pieces = a->columns % 8 == 0 && a->columns <= 256;
    return wide || pieces ? INT64_MAX : 4 * (640 / row->threads) * (int64_t)a->units;
}

/* A block for each part of the keys, KV head and tile of its query rows, of which the grid's name has
 * the size; packed queries may begin one more tile for each sequence. */
static void expect_split(const struct trial *t, const struct row *row)
{
    const struct attention_args *a = &t->l->args.attention;
    char *after;
    int64_t size = strtol(row->grid + 6, &after, 10), rows = (int64_t)a->q_tokens * a->group,
            x = (a->q_start.data ? rows / size + a->batch : parts_of(rows, size)) * a->splits;
    int64_t batch = a->q_start.data ? 1 : a->batch;
    if (*after) expect_grid(t, x * a->kv_heads * batch, 1, 1);
    else expect_grid(t, x, a->kv_heads, batch);
}

/* Main launches; those of NAME_prepare are test_workspace's. */
static void expect_shape(const struct trial *t)
{
    const struct row *row = row_of(t);
    const struct attention_args *a = &t->l->args.attention;
    if (!row) return;
    int64_t count = (int64_t)(a->q_start.data ? 1 : a->batch) * a->q_heads * a->q_tokens;
    expect(t, t->l->block[0] == (unsigned)row->threads && t->l->block[1] * t->l->block[2] == 1);
    int64_t of_score = (a->mask.dtype ? 1 : 0) + (a->bias.dtype == RAPT_F32 ? 4
                                                  : a->bias.dtype           ? 2
                                                                            : 0);
    int64_t cells = needs(row, "NEED_CELLS") ? (int64_t)row->tile_q * row->tile_kv : 0;
    int64_t own = row->shared + cells * of_score,
            blocks = t->l->grid[0] * (int64_t)t->l->grid[1] * t->l->grid[2];
    /* Blocks of integers have a multiprocessor of sm_90 each while there are enough. */
    int apart = strstr(t->l->name, "decode_") == t->l->name && strstr(t->l->name, "_i8_") &&
                !strncmp(row->arch, "sm_90", 5) && blocks <= a->units;
    expect(t, t->l->shared == (apart ? 120 << 10 : own));
    int64_t tiles = row->tile_q ? parts_of(a->q_tokens, row->tile_q) : 0;
    if (needs(row, "NEED_TILE_TOKENS"))
        expect(t, a->splits > 1 && a->tile_tokens >= 16 && row->tile_q % a->tile_tokens == 0);
    else if (needs(row, "NEED_PARTIALS"))
        expect(t, a->split_keys % row->tile_kv == 0 &&
                      (int64_t)(a->splits - 1) * a->split_keys <= a->kv_tokens);
    else expect(t, a->splits == 1 && a->split_keys == a->kv_tokens);
    if (!strcmp(row->grid, "persistent"))
        expect_grid(t, least(a->units, tiles * a->q_heads * a->batch), 1, 1);
    else if (!strcmp(row->grid, "key_parts"))
        expect_grid(t,
                    parts_of(a->q_tokens, a->tile_tokens) *
                        parts_of((int64_t)a->group * a->tile_tokens, row->tile_q) * a->kv_heads *
                        a->batch * a->splits,
                    1, 1);
    else if (!strcmp(row->grid, "tiles")) expect_grid(t, tiles, a->q_heads, a->batch);
    else if (!strncmp(row->grid, "split_", 6)) expect_split(t, row);
    else if (!strcmp(row->grid, "scores"))
        expect_grid(t, parts_of(a->columns, row->tile_kv), tiles, (int64_t)a->q_heads * a->batch);
    else if (!strcmp(row->grid, "row_elements"))
        expect_grid(t, softmax_blocks(row, count, a->columns), 1, 1);
    else if (!strcmp(row->grid, "row_rounds"))
        expect_grid(t, least(most_softmax_blocks(row, a), softmax_blocks(row, count, a->columns)),
                    1, 1);
    else if (!strcmp(row->grid, "row_quarters")) expect_grid(t, 4 * count, 1, 1);
    else if (!strcmp(row->grid, "units")) expect_grid(t, least(a->units, count), 1, 1);
    else fail_msg("the grid %s of %s is not known here", row->grid, row->name);
    if (strncmp(row->name, "causal_mask", 11)) expect(t, t->l->early == needs(row, "NEED_EARLY"));
}

/* qk, a mask where something changes or hides scores, softmax, pv. */
static void expect_composed(struct trial *t)
{
    const struct problem_line *line = &t->p->line;
    const rapt_attention *p = &t->p->args.forward;
    bool masked = line->causal || line->window_left || line->window_right || line->softcap > 0 ||
                  p->bias.dtype || p->mask.dtype || p->alibi_slope.dtype || p->kv_length.dtype ||
                  p->kv_start.dtype;
    static const char *const names[] = {"qk", "causal_mask", "softmax", "pv"};
    int at = 0;
    for (int i = 0; i < 4; i++) {
        if (i == 1 && !masked) continue;
        if (!i && !t->fake->launch[0].args.attention.columns) continue; /* no block at all */
        t->l = &t->fake->launch[at++];
        if (strncmp(t->l->name, names[i], strlen(names[i])))
            fail_msg("%s: %s, not %s", line->text, t->l->name, names[i]);
    }
    assert_int_equal(t->fake->launch_count, at);
}

/* One kernel, NULL for the library's choice; what it refuses is not executed. Returns launches. */
static int run_kernel(struct trial *t, const char *kernel)
{
    rapt_attention a = t->p->args.forward;
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    a.kernel = kernel;
    t->fake->launch_count = 0;
    if (rapt_plan_create(&plan, t->device, &a)) return 0;
    assert_int_equal(rapt_alloc(t->device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    rapt_status status = rapt_plan_execute(plan, &a, workspace, NULL);
    if (status) assert_non_null(strstr(rapt_last_error(), "16-byte aligned"));
    if (!status && t->fake->launch_count && !strcmp(rapt_plan_kernel(plan), "composed"))
        expect_composed(t);
    for (int i = 0; i < t->fake->launch_count && !status; i++) {
        t->l = &t->fake->launch[i];
        expect_views(t);
        expect_sizes(t);
        expect_options(t);
        expect_shape(t);
    }
    rapt_free(t->device, workspace);
    rapt_plan_destroy(&plan);
    return t->fake->launch_count;
}

static struct fake *begin(const struct stand_in *v, rapt_context **context)
{
    struct fake *fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    if (!strcmp(v->name, "cuda")) snprintf(fake->arch, sizeof fake->arch, "sm_90");
    *context = session_open(v);
    return fake;
}

static struct problem_instance *instance_of(const char *text)
{
    static struct problem_line line;
    char error[256];
    struct problem_instance *p = malloc(sizeof *p);
    if (!problem_parse(text, &line, error, sizeof error) ||
        !problem_build(&line, p, error, sizeof error))
        fail_msg("%s", error);
    return p;
}

/* Every kind of problem: the small ones, and those of pages, scales and packed sequences. */
static bool is_wanted(const struct named_problem *named)
{
    if (strncmp(named->line, "forward", 7) || named->size > 1) return false;
    return problem_selected(named->name, "semantics/*,empty/*,stride/*,paged/*,ragged/*,quant/*") &&
           !problem_selected(named->name, "stride/huge*");
}

static void forward_arguments(void **state)
{
    struct trial t = {.v = *state};
    rapt_context *context;
    int64_t launches = 0;
    t.fake = begin(t.v, &context);
    t.device = rapt_device_at(context, 0);
    for (int i = 0; i < named_problem_count; i++) {
        if (!is_wanted(&named_problems[i])) continue;
        t.p = instance_of(named_problems[i].line);
        launches += run_kernel(&t, NULL);
        launches += run_kernel(&t, "flash");
        launches += run_kernel(&t, "composed");
        problem_free(t.p);
        free(t.p);
    }
    assert_true(launches > 1000);
    rapt_close(&context);
    session_end(t.v);
}

/* ---- The other operations ---- */

static void expect_rope(const struct trial *t, const struct rope_args *a, const rapt_rope_args *p,
                        int64_t channels)
{
    const struct problem_line *line = &t->p->line;
    int64_t rotary = line->rotary ? line->rotary : channels;
    EXPECT_VIEW(t, a->position, p->position);
    EXPECT_VIEW(t, a->cos, p->cos);
    EXPECT_VIEW(t, a->sin, p->sin);
    expect(t, a->channels == channels && a->rotary == rotary);
    expect(t, a->interleaved == line->interleaved);
    if (p->cos.dtype || line->scaling) return;
    for (int64_t c = 0; c < rotary / 2; c++) {
        double theta = line->theta > 0 ? line->theta : 10000,
               inverse = pow(theta, -2.0 * (double)c / (double)rotary);
        expect(t, fabs(a->inverse[c] - inverse) <= 1e-12 * inverse);
    }
}

static void expect_rope_op(const struct trial *t)
{
    const struct rope_args *a = &t->l->args.rope;
    const rapt_rope_args *p = &t->p->args.rope;
    EXPECT_VIEW(t, a->x, p->x);
    EXPECT_VIEW(t, a->out, p->out);
    expect(t, a->batch == p->x.size[0] && a->heads == p->x.size[1] && a->tokens == p->x.size[2]);
    expect_grid(t, parts_of(p->x.size[0] * p->x.size[1] * p->x.size[2], row_of(t)->tile_q), 1, 1);
    expect_rope(t, a, p, p->x.size[3]);
}

/* Of a piece on scores of [batch, heads, tokens, columns]: nothing hides, nothing is paged. */
static void expect_piece(const struct trial *t, const int64_t size[4], int64_t kv_heads)
{
    const struct attention_args *a = &t->l->args.attention;
    expect(t, a->batch == size[0] && a->q_heads == size[1] && a->kv_heads == kv_heads);
    expect(t, a->group == size[1] / kv_heads);
    expect(t, a->q_tokens == size[2] && a->kv_tokens == size[3] && a->columns == size[3]);
    expect(t, a->page_tokens == 0 && a->page_shift == -1 && !a->page_table.data);
    expect(t, a->window_left == WINDOW_LIMIT && !a->kv_length.data && !a->sink.data);
    expect(t, a->units == (strcmp(t->v->name, "cuda") ? 304 : 132));
    expect(t, a->window_right == (t->p->line.op == OP_causal_mask ? 0 : WINDOW_LIMIT));
    expect_shape(t);
}

static void expect_softmax(const struct trial *t)
{
    const rapt_softmax_args *p = &t->p->args.softmax;
    EXPECT_VIEW(t, t->l->args.attention.scores, p->x);
    EXPECT_VIEW(t, t->l->args.attention.weights, p->out);
    expect_piece(t, p->x.size, p->x.size[1]);
}

static void expect_qk(const struct trial *t)
{
    const struct attention_args *a = &t->l->args.attention;
    const rapt_qk_args *p = &t->p->args.qk;
    double scale = p->scale != 0 ? p->scale : 1 / sqrt((double)p->q.size[3]);
    EXPECT_VIEW(t, a->q, p->q);
    EXPECT_VIEW(t, a->k, p->k);
    EXPECT_VIEW(t, a->scores, p->out);
    expect(t, a->channels == p->q.size[3]);
    expect(t, fabs(a->scale - scale) <= 1e-7 * fabs(scale));
    expect(t, fabs(a->scale_log2 - scale / log(2)) <= 1e-6 * fabs(scale));
    expect_piece(t, p->out.size, p->k.size[1]);
}

static void expect_pv(const struct trial *t)
{
    const struct attention_args *a = &t->l->args.attention;
    const rapt_pv_args *p = &t->p->args.pv;
    EXPECT_VIEW(t, a->weights, p->weights);
    EXPECT_VIEW(t, a->v, p->v);
    EXPECT_VIEW(t, a->out, p->out);
    expect(t, a->v_channels == p->v.size[3]);
    expect_piece(t, p->weights.size, p->v.size[1]);
}

static void expect_mask(const struct trial *t)
{
    const rapt_causal_mask_args *p = &t->p->args.causal_mask;
    EXPECT_VIEW(t, t->l->args.attention.scores, p->x);
    expect(t, t->l->args.attention.top_left == (p->align == RAPT_TOP_LEFT));
    expect_piece(t, p->x.size, p->x.size[1]);
}

static void expect_replicate(const struct trial *t)
{
    const struct kv_replicate_args *a = &t->l->args.replicate;
    const rapt_kv_replicate_args *p = &t->p->args.kv_replicate;
    const int64_t *k = p->k.size;
    EXPECT_VIEW(t, a->k, p->k);
    EXPECT_VIEW(t, a->v, p->v);
    EXPECT_VIEW(t, a->k_out, p->k_out);
    EXPECT_VIEW(t, a->v_out, p->v_out);
    expect(t, a->batch == k[0] && a->kv_heads == k[1] && a->group == p->k_out.size[1] / k[1]);
    expect(t, a->tokens == k[2] && a->channels == k[3] && a->v_channels == p->v.size[3]);
    expect_grid(t, parts_of(k[0] * k[1] * k[2], row_of(t)->tile_q), 1, 2);
}

static void expect_append(const struct trial *t)
{
    const struct problem_line *line = &t->p->line;
    const struct kv_append_args *a = &t->l->args.append;
    const rapt_kv_append_args *p = &t->p->args.kv_append;
    const int64_t *new = p->k_new.size;
    EXPECT_VIEW(t, a->k_new, p->k_new);
    EXPECT_VIEW(t, a->v_new, p->v_new);
    EXPECT_VIEW(t, a->k, p->k);
    EXPECT_VIEW(t, a->v, p->v);
    EXPECT_VIEW(t, a->k_scale, p->k_scale);
    EXPECT_VIEW(t, a->v_scale, p->v_scale);
    EXPECT_VIEW(t, a->kv_length, p->kv_length);
    EXPECT_VIEW(t, a->q_start, p->q_start);
    EXPECT_VIEW(t, a->page_table, p->page_table);
    expect(t, a->batch == line->batch && a->kv_heads == line->kv_heads && a->tokens == new[2]);
    expect(t, a->channels == line->qk_channels && a->v_channels == line->v_channels);
    expect(t, a->page_tokens == line->page_tokens);
    expect(t, a->page_shift == log2_of(line->page_tokens));
    expect(t, a->k_block == block(line, p->k.dtype, line->qk_channels));
    expect(t, a->v_block == block(line, p->k.dtype, line->v_channels));
    expect_grid(t, parts_of(new[0] * new[1] * new[2], row_of(t)->tile_q), 1, 1);
    if (p->rope) expect_rope(t, &a->rope, p->rope, new[3]);
    else expect(t, a->rope.rotary == 0);
}

static void other_arguments(void **state)
{
    static void (*const expected[])(const struct trial *) = {[OP_rope] = expect_rope_op,
                                                             [OP_softmax] = expect_softmax,
                                                             [OP_qk] = expect_qk,
                                                             [OP_pv] = expect_pv,
                                                             [OP_causal_mask] = expect_mask,
                                                             [OP_kv_replicate] = expect_replicate,
                                                             [OP_kv_append] = expect_append};
    struct trial t = {.v = *state};
    rapt_context *context;
    int launches[sizeof expected / sizeof *expected] = {0};
    t.fake = begin(t.v, &context);
    for (int i = 0; i < named_problem_count; i++) {
        const struct named_problem *named = &named_problems[i];
        if (!strncmp(named->line, "forward", 7) || named->size > 1) continue;
        t.p = instance_of(named->line);
        struct problem_device there = {.device = rapt_device_at(context, 0), .args = t.p->args};
        t.fake->launch_count = 0;
        if (!problem_run(&there, t.p->line.op, NULL) && t.fake->launch_count) {
            assert_int_equal(t.fake->launch_count, 1);
            t.l = &t.fake->launch[0];
            expected[t.p->line.op](&t);
            launches[t.p->line.op]++;
        }
        problem_free(t.p);
        free(t.p);
    }
    for (size_t op = 0; op < sizeof expected / sizeof *expected; op++)
        assert_true(!expected[op] || launches[op] > 3);
    rapt_close(&context);
    session_end(t.v);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {BOTH(forward_arguments), BOTH(other_arguments)};
    return run_group("arguments", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
