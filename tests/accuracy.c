/* accuracy.c: compares results with the oracle, operation by operation, as fractions of their
 * bounds. */
#include "base/dtype.h"
#include "bound.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double u = 0x1p-24;

enum { LEAST_ROWS = 24 }; /* of a sample, whatever they cost */

static double read(const rapt_tensor *t, int64_t offset)
{
    return load_float(t->data, t->dtype, offset);
}

/* NaN for a 0 beside NaN, which GPUs may write (S13, S15). */
static bool is_excused(const struct rounding *r, const struct oracle_row *row, double got,
                       double want)
{
    return !r->zeros && isnan(row->total) && want == 0 && isnan(got);
}

static void note_row(const struct oracle *o, const struct rounding *r, const struct oracle_row *row,
                     const struct row_bound *bound, struct accuracy *result)
{
    const rapt_attention *a = o->a;
    int64_t b = row->sequence, h = row->head, i = row->query;
    for (int64_t d = 0; d < o->v_channels; d++) {
        double got = read(&a->out, oracle_offset(a, &a->out, b, h, i, d));
        if (!is_excused(r, row, got, row->out[d]))
            accuracy_note(result, got, row->out[d], bound->out[d], a->out.dtype, "out",
                          (const int64_t[4]){b, h, i, d});
    }
    if (a->lse.dtype) {
        double got = read(&a->lse, oracle_offset(a, &a->lse, b, h, i, 0));
        accuracy_note(result, got, row->lse, bound->lse, RAPT_F32, "lse",
                      (const int64_t[4]){b, h, i, 0});
    }
    for (int64_t j = 0; j < a->weights.size[3] && a->weights.dtype;
         j++) { /* columns past the length are hidden keys */
        bool used = j < row->columns;
        double got = read(&a->weights, oracle_offset(a, &a->weights, b, h, i, j));
        if (!is_excused(r, row, got, used ? row->p[j] : 0))
            accuracy_note(result, got, used ? row->p[j] : 0, used ? bound->weights[j] : 0,
                          a->weights.dtype, "weights", (const int64_t[4]){b, h, i, j});
    }
}

/* A row that is not sampled must at least be written: its outputs were all 1 bits. */
static void note_written(const struct oracle *o, int64_t b, int64_t h, int64_t i,
                         struct accuracy *result)
{
    const rapt_attention *a = o->a;
    static const unsigned char ones[4] = {0xff, 0xff, 0xff, 0xff};
    size_t element = dtype_size(a->out.dtype);
    for (int64_t d = 0; d < o->v_channels; d++) {
        int64_t at = oracle_offset(a, &a->out, b, h, i, d);
        if (!memcmp((char *)a->out.data + at * (int64_t)element, ones, element))
            accuracy_note(result, NAN, 0, 0, a->out.dtype, "out", (const int64_t[4]){b, h, i, d});
    }
}

static bool check_rows(struct oracle *o, const struct rounding *r, double budget,
                       struct oracle_row *row, struct row_bound *bound, struct accuracy *result)
{
    const rapt_attention *a = o->a;
    double rows = (double)a->q.size[0] * (double)a->q.size[1] * (double)a->q.size[2];
    double cost = (double)o->capacity * (double)(2 * o->qk_channels + 3 * o->v_channels),
           chance = 1;
    if (budget > 0 && rows * cost > budget)
        chance = fmax(budget / (rows * cost), LEAST_ROWS / rows);
    uint64_t count = 0;
    for (int64_t b = 0; b < o->sequences; b++)
        for (int64_t h = 0; h < o->q_heads; h++)
            for (int64_t i = 0; i < oracle_q_length(a, b); i++) {
                if (chance < 1 && problem_uniform(1, 80, count++) >= chance) {
                    note_written(o, b, h, i, result);
                    continue;
                }
                if (!oracle_row(o, b, h, i, row)) return false;
                bound_row(o, row, r, bound);
                note_row(o, r, row, bound, result);
            }
    return true;
}

static bool check_attention(const rapt_attention *a, int exact, struct engine engine, double budget,
                            struct accuracy *result)
{
    struct oracle o;
    struct oracle_row row = {0};
    struct row_bound bound = {0};
    struct rounding r = rounding_of(a, exact, engine);
    memset(result, 0, sizeof *result);
    if (!oracle_open(&o, a)) return false;
    bool ok = oracle_row_open(&row, &o) && row_bound_open(&bound, &o) &&
              check_rows(&o, &r, budget, &row, &bound, result);
    row_bound_close(&bound);
    oracle_row_close(&row);
    oracle_close(&o);
    return ok;
}

bool accuracy_check_attention(const rapt_attention *a, struct engine engine, double budget,
                              struct accuracy *result)
{
    return check_attention(a, 0, engine, budget, result);
}

/* The operand in place is compared from the copy that was taken before the call. */
static rapt_tensor before(const struct problem_instance *p, const rapt_tensor *t)
{
    rapt_tensor view = *t;
    for (int i = 0; i < p->region_count; i++) {
        const struct problem_region *region = &p->region[i];
        if (region->tensor == t && region->saved)
            view.data = region->saved + ((char *)t->data - region->base);
    }
    return view;
}

typedef void row_check(const struct problem_instance *p, const int64_t at[4], double *x, double *y,
                       struct accuracy *result);

static void check_rope_row(const struct problem_instance *p, const int64_t at[4], double *x,
                           double *y, struct accuracy *result)
{
    const rapt_rope_args *a = &p->args.rope;
    rapt_tensor in = before(p, &a->x);
    int64_t position = at[2], n = a->x.size[3],
            rotary = a->rotary_channels ? a->rotary_channels : n;
    if (a->position.dtype)
        position = load_index(a->position.data, a->position.dtype,
                              tensor_offset(&a->position, at[0], 0, at[2], 0));
    /* the angle itself, in f64 on both sides; exact where frequencies are powers of two */
    double turned = p->line.farthest ? 0 : 0x1p-50 * fabs((double)position);
    oracle_load(&in, at[0], at[1], at[2], x);
    oracle_rotate(a, position, n, x, y);
    for (int64_t c = 0; c < n; c++) {
        int64_t half = rotary / 2, partner = a->interleaved ? c ^ 1
                                             : c < half     ? c + half
                                                            : c - half;
        double got = read(&a->out, tensor_offset(&a->out, at[0], at[1], at[2], c)), bound = 0;
        /* two products and a sum in f32 of cos and sin rounded to f32; magnitudes of tables and
         * YaRN are below 2 */
        if (c < rotary) bound = (8 * u + turned) * (fabs(x[c]) + fabs(x[partner]));
        if (c < rotary || a->out.dtype != a->x.dtype)
            bound += unit_roundoff(a->out.dtype) * fabs(y[c]) + subnormal_error(a->out.dtype);
        accuracy_note(result, got, y[c], bound, a->out.dtype, "out",
                      (const int64_t[4]){at[0], at[1], at[2], c});
    }
}

static void check_softmax_row(const struct problem_instance *p, const int64_t at[4], double *x,
                              double *y, struct accuracy *result)
{
    const rapt_softmax_args *a = &p->args.softmax;
    rapt_tensor in = before(p, &a->x);
    int64_t n = a->x.size[3];
    double maximum = -INFINITY, s = gamma_bound((double)n, u);
    oracle_load(&in, at[0], at[1], at[2], x);
    oracle_softmax(x, n, y);
    for (int64_t j = 0; j < n; j++) maximum = fmax(maximum, x[j]);
    for (int64_t j = 0; j < n;
         j++) /* as for attention's weights, with exact scores and online rescaling by blocks */
        s += y[j] > 0 ? y[j] * expm1(u * (8 + 2 * fabs(x[j]) + 4 * fabs(x[j] - maximum))) : 0;
    for (int64_t j = 0; j < n; j++) {
        double e = y[j] > 0 ? expm1(u * (8 + 2 * fabs(x[j]) + 4 * fabs(x[j] - maximum))) + s : 0;
        double bound = y[j] * (e / (1 - fmin(s, 0.5)) + 3 * u + unit_roundoff(a->out.dtype));
        if (x[j] != -INFINITY) bound += subnormal_error(a->out.dtype);
        accuracy_note(result, read(&a->out, tensor_offset(&a->out, at[0], at[1], at[2], j)), y[j],
                      bound, a->out.dtype, "out", (const int64_t[4]){at[0], at[1], at[2], j});
    }
}

static double step_of(int64_t dtype)
{
    return dtype == RAPT_F32 ? u : 1.25 * 0x1p-23; /* matrix units may truncate: see bound.c */
}

static void check_qk_row(const struct problem_instance *p, const int64_t at[4], double *x,
                         double *y, struct accuracy *result)
{
    const rapt_qk_args *a = &p->args.qk;
    int64_t n = a->q.size[3], g = at[1] / (a->q.size[1] / a->k.size[1]);
    double scale = a->scale != 0 ? a->scale : 1 / sqrt((double)n);
    double steps = problem_exact(&p->line) ? 0 : gamma_bound((double)n + 2, step_of(a->q.dtype));
    oracle_load(&a->q, at[0], at[1], at[2], x);
    for (int64_t j = 0; j < a->k.size[2]; j++) {
        double want = 0, magnitude = 0;
        oracle_load(&a->k, at[0], g, j, y);
        for (int64_t c = 0; c < n; c++) {
            want += scale * x[c] * y[c];
            magnitude += fabs(scale * x[c] * y[c]);
        }
        double bound = steps * magnitude + (4 * u + unit_roundoff(a->out.dtype)) * fabs(want) +
                       subnormal_error(a->out.dtype);
        accuracy_note(result, read(&a->out, tensor_offset(&a->out, at[0], at[1], at[2], j)), want,
                      bound, a->out.dtype, "out", (const int64_t[4]){at[0], at[1], at[2], j});
    }
}

static void check_pv_row(const struct problem_instance *p, const int64_t at[4], double *x,
                         double *y, struct accuracy *result)
{
    const rapt_pv_args *a = &p->args.pv;
    int64_t n = a->weights.size[3], channels = a->v.size[3],
            g = at[1] / (a->weights.size[1] / a->v.size[1]);
    double steps = gamma_bound((double)n + 2, step_of(a->weights.dtype));
    (void)y;
    oracle_load(&a->weights, at[0], at[1], at[2], x);
    for (int64_t d = 0; d < channels; d++) {
        double want = 0, magnitude = 0;
        for (int64_t j = 0; j < n; j++) {
            if (x[j] == 0) continue;
            double v = read(&a->v, tensor_offset(&a->v, at[0], g, j, d));
            want += x[j] * v;
            magnitude += fabs(x[j] * v);
        }
        double bound = steps * magnitude + unit_roundoff(a->out.dtype) * fabs(want) +
                       subnormal_error(a->out.dtype);
        accuracy_note(result, read(&a->out, tensor_offset(&a->out, at[0], at[1], at[2], d)), want,
                      bound, a->out.dtype, "out", (const int64_t[4]){at[0], at[1], at[2], d});
    }
}

static void check_causal_mask_row(const struct problem_instance *p, const int64_t at[4], double *x,
                                  double *y, struct accuracy *result)
{
    const rapt_causal_mask_args *a = &p->args.causal_mask;
    rapt_tensor in = before(p, &a->x);
    int64_t offset = a->align == RAPT_TOP_LEFT ? 0 : a->x.size[3] - a->x.size[2];
    (void)y;
    oracle_load(&in, at[0], at[1], at[2], x);
    for (int64_t j = 0; j < a->x.size[3]; j++)
        accuracy_note(result, read(&a->x, tensor_offset(&a->x, at[0], at[1], at[2], j)),
                      j > at[2] + offset ? -INFINITY : x[j], 0, a->x.dtype, "x",
                      (const int64_t[4]){at[0], at[1], at[2], j});
}

static void check_kv_replicate_row(const struct problem_instance *p, const int64_t at[4], double *x,
                                   double *y, struct accuracy *result)
{
    const rapt_kv_replicate_args *a = &p->args.kv_replicate;
    const rapt_tensor *from[2] = {&a->k, &a->v}, *to[2] = {&a->k_out, &a->v_out};
    int64_t g = at[1] / (a->k_out.size[1] / a->k.size[1]);
    for (int i = 0; i < 2; i++) {
        oracle_load(from[i], at[0], g, at[2], x);
        oracle_load(to[i], at[0], at[1], at[2], y);
        for (int64_t c = 0; c < from[i]->size[3]; c++)
            accuracy_note(result, y[c], x[c], 0, a->k.dtype, i ? "v_out" : "k_out",
                          (const int64_t[4]){at[0], at[1], at[2], c});
    }
}

/* Where token `token` of a sequence lies in the cache. */
static void locate(const rapt_kv_append_args *a, int64_t sequence, int64_t token, int64_t *i0,
                   int64_t *i2)
{
    int64_t page = a->k.size[2];
    *i0 = sequence;
    *i2 = token;
    if (!a->page_table.dtype) return;
    *i0 = load_index(a->page_table.data, a->page_table.dtype,
                     tensor_offset(&a->page_table, sequence, 0, token / page, 0));
    *i2 = token % page;
}

/* One cached row against what was appended; I8 rows may be off by half a step of their block's
 * scale. */
static void check_cached(int64_t layout, const rapt_tensor *cache, const rapt_tensor *scale,
                         const char *name, const int64_t at[4], const double *want, double rotated,
                         int64_t from, struct accuracy *result)
{
    int64_t n = cache->size[3], block = scale->dtype ? n / scale->size[3] : n;
    for (int64_t c = 0; c < n; c++) {
        int64_t offset = oracle_key_offset(layout, *name == 'v', cache, at[0], at[1], at[2], c);
        double bound = rotated, got, most = 0;
        if (scale->dtype) {
            for (int64_t i = c / block * block; i < c / block * block + block; i++)
                most = fmax(most, fabs(want[i]));
            got = ((const int8_t *)cache->data)[offset] *
                  (double)((const float *)
                               scale->data)[tensor_offset(scale, at[0], at[1], at[2], c / block)];
            if (most > 0) bound += fmax(most / 127, 0x1p-126) * (0.5 + 0x1p-12);
        } else {
            got = read(cache, offset);
            if (rotated > 0 || cache->dtype != from)
                bound +=
                    unit_roundoff(cache->dtype) * fabs(want[c]) + subnormal_error(cache->dtype);
        }
        accuracy_note(result, got, want[c], bound, cache->dtype, name,
                      (const int64_t[4]){at[0], at[1], at[2], c});
    }
}

/* at: a row of k_new: [row, head, token]. */
static void check_kv_append_row(const struct problem_instance *p, const int64_t at[4], double *x,
                                double *y, struct accuracy *result)
{
    const rapt_kv_append_args *a = &p->args.kv_append;
    int64_t b = at[0], t = at[2] - p->line.spare;
    if (t < 0) return; /* of no sequence: goes nowhere, which check_kept sees */
    if (p->line.ragged_q)
        for (b = 0; b < p->line.batch && t >= problem_q_length(&p->line, b); b++)
            t -= problem_q_length(&p->line, b);
    if (p->line.ragged_q && b == p->line.batch) return;
    int64_t token = problem_kv_length(&p->line, b) + t, place[4] = {0, at[1], 0, 0},
            position = token;
    locate(a, b, token, &place[0], &place[2]);
    oracle_load(&a->v_new, at[0], at[1], at[2], x);
    check_cached(a->kv_layout, &a->v, &a->v_scale, "v", place, x, 0, a->v_new.dtype, result);
    oracle_load(&a->k_new, at[0], at[1], at[2], x);
    double rotated = 0;
    if (a->rope) {
        const rapt_tensor *positions = &a->rope->position;
        if (positions->dtype)
            position = load_index(positions->data, positions->dtype,
                                  tensor_offset(positions, at[0], 0, at[2], 0));
        oracle_rotate(a->rope, position, a->k_new.size[3], x, y);
        for (int64_t c = 0; c < a->k_new.size[3]; c++) rotated = fmax(rotated, 16 * u * fabs(x[c]));
    }
    check_cached(a->kv_layout, &a->k, &a->k_scale, "k", place, a->rope ? y : x, rotated,
                 a->k_new.dtype, result);
}

/* Every byte of a cache that no new token owns is as before. */
static void check_kept(const struct problem_instance *p, const rapt_tensor *t, const char *name,
                       struct accuracy *result)
{
    const struct problem_line *line = &p->line;
    rapt_tensor old = before(p, t), now = *t;
    size_t element = dtype_size(t->dtype);
    char *fresh = calloc((size_t)(t->size[0] * t->size[2] + 1), 1);
    if (old.data == now.data || !fresh) { /* sparse: nothing was saved */
        free(fresh);
        return;
    }
    for (int64_t b = 0; b < line->batch; b++)
        for (int64_t i = 0; i < problem_q_length(line, b); i++) {
            int64_t i0, i2;
            locate(&p->args.kv_append, b, problem_kv_length(line, b) + i, &i0, &i2);
            fresh[i0 * t->size[2] + i2] = 1;
        }
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t s = 0; s < t->size[2]; s++)
                for (int64_t c = 0; c < t->size[3] && !fresh[b * t->size[2] + s]; c++) {
                    int64_t at = oracle_key_offset(p->args.kv_append.kv_layout, *name == 'v', t, b,
                                                   h, s, c) *
                                 (int64_t)element;
                    if (memcmp((char *)old.data + at, (char *)now.data + at, element))
                        accuracy_note(result, NAN, 0, 0, t->dtype, name,
                                      (const int64_t[4]){b, h, s, c});
                }
    free(fresh);
}

/* Queries of no sequence have no result: their rows of out are as before, NaN. */
static void check_spare(const struct problem_line *line, const rapt_tensor *out,
                        struct accuracy *result)
{
    for (int64_t h = 0; h < out->size[1]; h++)
        for (int64_t i = 0; i < 2 * line->spare; i++) {
            int64_t token = i < line->spare ? i : out->size[2] - 1 - (i - line->spare);
            for (int64_t c = 0; c < out->size[3]; c++)
                if (!isnan(read(out, tensor_offset(out, 0, h, token, c))))
                    accuracy_note(result, NAN, 0, 0, out->dtype, "out",
                                  (const int64_t[4]){0, h, token, c});
        }
}

/* The tensor whose rows are walked, and how one is checked. */
static const struct {
    size_t tensor;
    row_check *check;
} op_checks[] = {
    [OP_rope] = {offsetof(struct problem_args, rope.x), check_rope_row},
    [OP_softmax] = {offsetof(struct problem_args, softmax.x), check_softmax_row},
    [OP_qk] = {offsetof(struct problem_args, qk.q), check_qk_row},
    [OP_pv] = {offsetof(struct problem_args, pv.weights), check_pv_row},
    [OP_causal_mask] = {offsetof(struct problem_args, causal_mask.x), check_causal_mask_row},
    [OP_kv_replicate] = {offsetof(struct problem_args, kv_replicate.k_out), check_kv_replicate_row},
    [OP_kv_append] = {offsetof(struct problem_args, kv_append.k_new), check_kv_append_row}};

bool accuracy_check(const struct problem_instance *p, double budget, struct accuracy *result)
{
    const struct problem_line *line = &p->line;
    if (line->op == OP_forward) {
        bool ok = check_attention(&p->args.forward, problem_exact(line), p->engine, budget, result);
        if (line->spare) check_spare(line, &p->args.forward.out, result);
        return ok;
    }
    const rapt_tensor *t =
        (const rapt_tensor *)((const char *)&p->args + op_checks[line->op].tensor);
    int64_t most = t->size[3];
    memset(result, 0, sizeof *result);
    if (line->qk_channels > most) most = line->qk_channels;
    if (line->v_channels > most) most = line->v_channels;
    double *x = malloc(sizeof(double) * (size_t)(most + 1)),
           *y = malloc(sizeof(double) * (size_t)(most + 1));
    for (int64_t b = 0; b < t->size[0] && x && y; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t s = 0; s < t->size[2]; s++)
                op_checks[line->op].check(p, (const int64_t[4]){b, h, s, 0}, x, y, result);
    if (line->op == OP_kv_append) {
        check_kept(p, &p->args.kv_append.k, "k", result);
        check_kept(p, &p->args.kv_append.v, "v", result);
    }
    bool ok = x && y;
    free(x);
    free(y);
    return ok;
}
