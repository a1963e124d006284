/* pipeline_amx.c: attention of a block of keys on the matrix unit (AMX BF16), with softmax between its
 * products. Stages of 32 rows by 32 keys: while the scores of one panel of K and a share of the values of
 * the tile before are multiplied, the vector units turn the scores of the panel before into weights, a row
 * after each product. A core looks no further ahead than a few products, so they must alternate one by one.
 *
 * The largest score of 128 keys is known too late for that, so a row keeps its maximum m while no score
 * exceeds it by more than KEPT binary orders of magnitude (as FlashAttention-4 does on GPUs): weights are up
 * to 2^KEPT then, which sums and products in f32 bear and the division by l takes out. Its first m is the
 * largest score of the first panel that it sees. If a score exceeds that, the unit's weights are computed
 * anew with its maxima (`careful`). Which m a row has depends on its own scores alone. The last keys come first:
 * beside ALiBi they have the largest scores. */
#define V_REDUCES /* 2^x on [0, 1) */
#include "cpu/x86/vec_avx512.h"

#include "base/dtype.h"
#include "base/integer.h"
#include "cpu/scalar/scalar.h"
#include "cpu/vec_math.h"
#include "cpu/x86/amx_shapes.h"
#include "cpu/x86/pack_parts_amx.h"
#include "cpu/x86/pipeline_scores.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = CPU_PIPELINE_ROWS,
    HALF = ROWS / 2,
    PANEL = PIPELINE_PANEL,
    PANEL_STEP = PANEL * sizeof(float), /* bytes from pair to pair of a panel */
    DEPTH = 32,                         /* channels, or keys, of a product */
    PANELS = CPU_PIPELINE_KEYS / PANEL,
    P_STRIDE = CPU_PIPELINE_KEYS + PANEL, /* bf16; lines of neighbours lie in different sets */
    KEPT = 8,
    /* Of two weights: where one is above 2^KEPT their sum is more, for all that 2^x is off by. */
    LEAP = 255,
    FLUSH_TO_ZERO = 0x8000, /* of MXCSR: without it 2^x below -126 takes 70 times as long */
};

#if defined(__clang__)
#define UNROLL_PRODUCTS _Pragma("clang loop unroll(full)")
#else
#define UNROLL_PRODUCTS _Pragma("GCC unroll 6")
#endif

/* Tiles: sums of two by two, an upper and a lower left one, two right ones. */
#define SUM0  0
#define SUM1  1
#define SUM2  2
#define SUM3  3
#define UPPER 4
#define LOWER 5
#define LEFT  6
#define RIGHT 7

enum { PARTS_MAX = 3, TERMS_MAX = 5 };
typedef uint16_t weights[ROWS][P_STRIDE];

struct scratch {
    float s[2][ROWS][PANEL];        /* scores of two panels, one after another */
    float spare[ROWS][PANEL];       /* for sums that belong nowhere */
    float lanes[ROWS][LANES];       /* sums of a unit's weights */
    float all[PANELS][ROWS][PANEL]; /* careful: the scores of a unit */
    float top[ROWS];                /* m, or 0 where there is none */
    weights p[2][PARTS_MAX];        /* of two units, one after another */
};

/* What a type of q, K and V asks for: parts of an element; the products of parts that count, neighbours with a
 * tile in common; the terms of 2^x on [0, 1), to 2.9e-6 or, with five, 1.5e-7 (minimax in relative error, by
 * Lawson's algorithm, constant term 1). Parts of f32 are its bits by eights, and what is left out, of
 * products of parts, is below 2^-21 of theirs; f16 has eleven bits: its scores are exact products, its weights
 * have 16 bits. */
struct product {
    int left, right;
};
struct kind {
    int parts, key_products, value_products, terms;
    struct product key[6], value[6];
    float term[TERMS_MAX];
};
static const struct kind bf16_kind = {1, 1, 1, 4, {{0, 0}}, {{0, 0}}, {V_EXP2_HALF_TERMS}};
static const struct kind f16_kind = {.parts = 2,
                                     .key_products = 4,
                                     .value_products = 3,
                                     .terms = 4,
                                     .key = {{1, 0}, {1, 1}, {0, 1}, {0, 0}},
                                     .value = {{1, 0}, {0, 0}, {0, 1}},
                                     .term = {V_EXP2_HALF_TERMS}};
static const struct kind f32_kind = {.parts = 3,
                                     .key_products = 6,
                                     .value_products = 6,
                                     .terms = 5,
                                     .key = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}},
                                     .value = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}},
                                     .term = {V_EXP2_F32_TERMS}};

/* A tile of rows and the panels that some row of it sees. */
struct unit {
    int64_t row, first, last;        /* packed row; panels */
    int64_t whole_first, whole_last; /* the keys that all its rows see */
    int sums;                        /* o holds sums of later keys, which come first */
    int64_t p_first;                 /* panel of column 0 of p */
    weights *p;                      /* its parts */
};

/* Where the sums in the tiles belong, or what they begin with. */
struct sums {
    float *at;
    size_t step; /* bytes from row to row */
};

struct pipeline {
    const struct cpu_pipeline *call;
    struct scratch *w;
    int64_t steps, outputs; /* products of a panel's depth; panels of V */
    size_t q_step, o_step;  /* bytes from row to row */
    /* Softmax: a panel of a unit whose scores are there. Values: a unit whose weights are there, and its
     * next panel of V. row < 0: none. */
    struct unit weigh, value;
    int64_t panel, output;
    struct sums done; /* of the last product, still in the tiles */
    int parity;       /* of the panel that comes: which s it takes */
    int missing;      /* a row of the tile that is weighed has no maximum yet */
    vec most;         /* of the unit: the largest sum of two weights */
};

VEC const float *key_panel(const struct cpu_pipeline *t, int parts, int64_t panel, int part)
{
    return (const float *)t->k_panels + (panel * parts + part) * PANEL * (t->qk_channels / 2);
}

VEC float *value_panel(const struct cpu_pipeline *t, int parts, int64_t output, int part,
                       int64_t panel)
{
    return (float *)t->v_panels + (output * parts + part) * PANEL * (t->panel_keys / 2) +
           panel * PANEL * HALF;
}

static float *sums_at(const struct pipeline *x, const struct unit *u, int64_t output)
{
    return x->call->o + u->row * x->call->o_stride + output * PANEL;
}

/* ---- Weights ---- */

/* What a stage has left to weigh: rows of one panel. */
struct weighing {
    const float *s, *top;
    uint16_t *p;
    float *lanes;
    int64_t rows;
    vec scale, most, term[TERMS_MAX], one;
};

/* Constants that the compiler does not know stay in registers. */
VEC struct weighing weighing_of(const struct kind *kind, float scale, vec most)
{
    struct weighing t = {.scale = v_set(scale), .most = most, .one = v_set(1)};
    for (int i = 0; i < TERMS_MAX; i++) t.term[i] = v_set(i < kind->terms ? kind->term[i] : 0);
    __asm__(""
            : "+v"(t.term[0]), "+v"(t.term[1]), "+v"(t.term[2]), "+v"(t.term[3]), "+v"(t.term[4]),
              "+v"(t.one));
    return t;
}

/* 2^((s - m) scale) of LANES scores: vscalefps takes the whole part of x, vreduceps the rest. 0 for -inf, and below
 * -126. */
VEC vec weight(int terms, vec s, vec m, const struct weighing *t)
{
    enum { DOWN = 1, QUIET = 8 };
    vec x = v_mul(v_sub(s, m), t->scale);
    __asm__("" : "+v"(x)); /* the same roundings wherever this is inlined */
    vec u = _mm512_reduce_ps(x, DOWN | QUIET), p = v_fma(t->term[0], u, t->term[1]);
    for (int i = 2; i < terms; i++) p = v_fma(p, u, t->term[i]);
    return _mm512_scalef_ps(v_fma(p, u, t->one), x);
}

/* The bits of x that bf16 holds. */
VEC vec leading(vec x)
{
    return _mm512_and_ps(x, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000)));
}

VEC void store_weights(uint16_t *p, vec a, vec b)
{
    _mm512_store_si512(p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

VEC void weigh_row(const struct kind *kind, struct weighing *t)
{
    vec m = v_set(*t->top);
    vec a = weight(kind->terms, v_load(t->s, RAPT_F32), m, t),
        b = weight(kind->terms, v_load(t->s + LANES, RAPT_F32), m, t), sum = v_add(a, b);
    t->most = v_max(sum, t->most); /* NaN raises nothing */
    v_store(t->lanes, RAPT_F32, v_add(v_load(t->lanes, RAPT_F32), sum));
    for (int part = 0; part + 1 < kind->parts; part++) {
        vec a0 = leading(a), b0 = leading(b);
        store_weights(t->p + part * ROWS * P_STRIDE, a0, b0);
        a = v_sub(a, a0), b = v_sub(b, b0);
    }
    store_weights(t->p + (kind->parts - 1) * ROWS * P_STRIDE, a, b);
    t->s += PANEL, t->top++, t->p += P_STRIDE, t->lanes += LANES, t->rows--;
}

VEC void weigh_rows(const struct kind *kind, struct weighing *t, int64_t count)
{
    KEEP_ORDER;
    for (int64_t i = 0; i < count && t->rows; i++) weigh_row(kind, t);
    KEEP_ORDER;
}

static void change_scores(const struct kind *kind, const struct cpu_pipeline *t,
                          const struct unit *u, int64_t panel, float (*s)[PANEL])
{
    int64_t key = t->key0 + panel * PANEL;
    change_scores_amx(t, kind->parts, u->row, panel,
                      u->whole_first <= key && u->whole_last >= key + PANEL, s);
}

/* The largest score of each row of a panel. */
static void maxima(float *to, float (*s)[PANEL])
{
    for (int64_t r0 = 0; r0 < ROWS; r0 += LANES) {
        vec x[LANES];
        for (int64_t r = 0; r < LANES; r++)
            x[r] = v_max(v_load(s[r0 + r], RAPT_F32), v_load(s[r0 + r] + LANES, RAPT_F32));
        v_store(to + r0, RAPT_F32, v_maxima(x));
    }
}

/* A panel that is weighed next: rows without a maximum take that of its scores. */
static void begin_rows(struct pipeline *x, const struct unit *u, float (*s)[PANEL])
{
    const vec none = v_set(-INFINITY);
    float found[ROWS];
    int has_found = 0;
    x->missing = 0;
    for (int64_t r = 0; r < ROWS; r += LANES) {
        float *at = x->call->m + u->row + r;
        vec m = v_load(at, RAPT_F32);
        __mmask16 missing = _mm512_cmp_ps_mask(m, none, _CMP_EQ_OQ);
        if (missing) {
            if (!has_found) maxima(found, s);
            has_found = 1;
            vec new = v_load(found + r, RAPT_F32);
            missing &= _mm512_cmp_ps_mask(new, new, _CMP_ORD_Q);
            m = _mm512_mask_blend_ps(missing, m, new);
            v_store(at, RAPT_F32, m);
            missing = _mm512_cmp_ps_mask(m, none, _CMP_EQ_OQ);
            x->missing |= missing != 0;
        }
        v_store(x->w->top + r, RAPT_F32, _mm512_maskz_mov_ps((__mmask16)~missing, m));
    }
}

/* ---- Products ---- */

/* Tiles that are read but once leave the first cache to what is read again. */
#define LOAD_PANEL(tile, b)                                                                        \
    do {                                                                                           \
        if (kind->parts == 1) _tile_stream_loadd(tile, b, PANEL_STEP);                             \
        else _tile_loadd(tile, b, PANEL_STEP);                                                     \
    } while (0)

VEC char *lower_half(const struct sums *c)
{
    return (char *)c->at + HALF * c->step;
}

/* One step of 2 x 2 tiles, a times two halves of a panel; rows are weighed after each product, with parts after
 * the first. The first step of a product also stores what the one before has summed and loads, or clears, its own
 * sums, tile by tile: a core waits with all that follows while it moves four tiles at once. */
VEC void step(const struct kind *kind, const void *a, size_t a_step, const float *b, int loads_a,
              int loads_b, struct weighing *t, int64_t rows)
{
    const char *lower = (const char *)a + HALF * a_step;
    if (loads_a) _tile_loadd(UPPER, a, a_step);
    if (loads_b) LOAD_PANEL(LEFT, b);
    _tile_dpbf16ps(SUM0, UPPER, LEFT);
    weigh_rows(kind, t, rows);
    if (loads_b) LOAD_PANEL(RIGHT, b + LANES);
    _tile_dpbf16ps(SUM1, UPPER, RIGHT);
    if (kind->parts == 1) weigh_rows(kind, t, rows);
    if (loads_a) _tile_loadd(LOWER, lower, a_step);
    _tile_dpbf16ps(SUM2, LOWER, LEFT);
    if (kind->parts == 1) weigh_rows(kind, t, rows);
    _tile_dpbf16ps(SUM3, LOWER, RIGHT);
    if (kind->parts == 1) weigh_rows(kind, t, rows);
}

VEC void first_step(const struct kind *kind, const struct sums *done, const struct sums *next,
                    int loads, const void *a, size_t a_step, const float *b, struct weighing *t,
                    int64_t rows)
{
    const char *lower = (const char *)a + HALF * a_step;
    _tile_stored(SUM0, done->at, done->step);
    if (loads) _tile_loadd(SUM0, next->at, next->step);
    else _tile_zero(SUM0);
    _tile_loadd(UPPER, a, a_step);
    LOAD_PANEL(LEFT, b);
    _tile_dpbf16ps(SUM0, UPPER, LEFT);
    weigh_rows(kind, t, rows);
    _tile_stored(SUM1, done->at + LANES, done->step);
    if (loads) _tile_loadd(SUM1, next->at + LANES, next->step);
    else _tile_zero(SUM1);
    LOAD_PANEL(RIGHT, b + LANES);
    _tile_dpbf16ps(SUM1, UPPER, RIGHT);
    weigh_rows(kind, t, rows);
    _tile_stored(SUM2, lower_half(done), done->step);
    if (loads) _tile_loadd(SUM2, lower_half(next), next->step);
    else _tile_zero(SUM2);
    _tile_loadd(LOWER, lower, a_step);
    _tile_dpbf16ps(SUM2, LOWER, LEFT);
    weigh_rows(kind, t, rows);
    _tile_stored(SUM3, lower_half(done) + sizeof(vec), done->step);
    if (loads) _tile_loadd(SUM3, lower_half(next) + sizeof(vec), next->step);
    else _tile_zero(SUM3);
    _tile_dpbf16ps(SUM3, LOWER, RIGHT);
    weigh_rows(kind, t, rows);
}

static struct sums nowhere(const struct pipeline *x)
{
    return (struct sums){x->w->spare[0], sizeof x->w->spare[0]};
}

/* Stores what the last product has summed now; what follows stores it once more, elsewhere. */
static void store_sums(struct pipeline *x)
{
    const struct sums *c = &x->done;
    _tile_stored(SUM0, c->at, c->step);
    _tile_stored(SUM1, c->at + LANES, c->step);
    _tile_stored(SUM2, lower_half(c), c->step);
    _tile_stored(SUM3, lower_half(c) + sizeof(vec), c->step);
    KEEP_ORDER;
    x->done = nowhere(x);
}

/* One operand: where its parts are, from row to row, and from step to step, in bytes. */
struct operand {
    const char *part[PARTS_MAX];
    size_t row, step;
};

/* next += a b over so many steps, from 0 or from what is there. */
VEC void multiply(const struct kind *kind, const struct product *products, int count,
                  struct sums *done, const struct sums *next, int loads, const struct operand *a,
                  const struct operand *b, int64_t steps, struct weighing *t, int64_t rows)
{
    const char *left = a->part[products[0].left], *right = b->part[products[0].right];
    if (loads) first_step(kind, done, next, 1, left, a->row, (const float *)right, t, rows);
    else first_step(kind, done, next, 0, left, a->row, (const float *)right, t, rows);
    for (size_t i = 0; i < (size_t)steps; i++) {
        if (i > 0)
            step(kind, left + i * a->step, a->row, (const float *)(right + i * b->step), 1, 1, t,
                 rows);
        UNROLL_PRODUCTS for (int n = 1; n < count; n++)
            step(kind, a->part[products[n].left] + i * a->step, a->row,
                 (const float *)(b->part[products[n].right] + i * b->step),
                 products[n].left != products[n - 1].left,
                 products[n].right != products[n - 1].right, t, rows);
    }
    *done = *next;
}

VEC void multiply_keys(const struct kind *kind, struct pipeline *x, int64_t row, int64_t panel,
                       float (*s)[PANEL], struct weighing *t, int64_t rows)
{
    const struct cpu_pipeline *call = x->call;
    struct sums c = {s[0], sizeof s[0]};
    struct operand q = {.row = x->q_step, .step = DEPTH * sizeof(uint16_t)},
                   k = {.step = (size_t)PANEL * DEPTH * sizeof(uint16_t)};
    for (int i = 0; i < kind->parts; i++) {
        q.part[i] = (const char *)((const float *)call->q + row * call->q_stride +
                                   i * call->qk_channels / 2);
        k.part[i] = (const char *)key_panel(call, kind->parts, panel, i);
    }
    multiply(kind, kind->key, kind->key_products, &x->done, &c, 0, &q, &k, x->steps, t, rows);
}

VEC void multiply_values(const struct kind *kind, struct pipeline *x, const struct unit *u,
                         int64_t output, struct weighing *t, int64_t rows)
{
    struct sums c = {sums_at(x, u, output), x->o_step};
    struct operand p = {.row = P_STRIDE * sizeof(uint16_t), .step = PANEL * sizeof(uint16_t)},
                   v = {.step = (size_t)PANEL * DEPTH * sizeof(uint16_t)};
    for (int i = 0; i < kind->parts; i++) {
        p.part[i] = (const char *)(u->p[i][0] + (u->first - u->p_first) * PANEL);
        v.part[i] = (const char *)value_panel(x->call, kind->parts, output, i, u->first);
    }
    if (u->sums)
        multiply(kind, kind->value, kind->value_products, &x->done, &c, 1, &p, &v,
                 u->last - u->first, t, rows);
    else
        multiply(kind, kind->value, kind->value_products, &x->done, &c, 0, &p, &v,
                 u->last - u->first, t, rows);
}

/* ---- Stages ---- */

/* A unit whose scores exceed a maximum: its scores again, m by its rule, weights and sums. Its first product
 * stores what the tiles hold of o. */
VEC void careful(const struct kind *kind, struct pipeline *x, const struct unit *u)
{
    const struct cpu_pipeline *t = x->call;
    struct weighing none = {0};
    float largest[ROWS];
    for (int64_t r = 0; r < ROWS; r++) largest[r] = -INFINITY;
    for (int64_t i = u->first; i < u->last; i++) {
        multiply_keys(kind, x, u->row, i, x->w->all[i - u->p_first], &none, 0);
        store_sums(x);
        change_scores(kind, t, u, i, x->w->all[i - u->p_first]);
        float of_panel[ROWS];
        maxima(of_panel, x->w->all[i - u->p_first]);
        for (int64_t r = 0; r < ROWS; r++)
            if (of_panel[r] > largest[r]) largest[r] = of_panel[r];
    }
    for (int64_t r = 0; r < ROWS; r++) {
        float *m = t->m + u->row + r, *o = t->o + (u->row + r) * t->o_stride;
        if (!((largest[r] - *m) * t->scale > KEPT)) continue;
        float shrink = exp2f((*m - largest[r]) * t->scale);
        for (int64_t c = 0; u->sums && c < t->v_channels; c++) o[c] *= shrink;
        t->l[u->row + r] *= shrink;
        *m = largest[r];
    }
    for (int64_t r = 0; r < ROWS; r++) {
        float m = t->m[u->row + r] == -INFINITY ? 0 : t->m[u->row + r];
        struct weighing row = weighing_of(kind, t->scale, v_zero());
        v_store(x->w->lanes[r], RAPT_F32, v_zero());
        for (int64_t i = u->first; i < u->last; i++) {
            row.s = x->w->all[i - u->p_first][r], row.top = &m,
            row.p = u->p[0][r] + (i - u->p_first) * PANEL, row.rows = 1;
            row.lanes = x->w->lanes[r];
            weigh_rows(kind, &row, 1);
        }
    }
}

/* All weights of a unit are there: their sums, or what its scores ask for first. */
VEC void finish_unit(const struct kind *kind, struct pipeline *x, const struct unit *u)
{
    float *l = x->call->l + u->row;
    if (_mm512_cmp_ps_mask(x->most, v_set(LEAP), _CMP_GT_OQ)) careful(kind, x, u);
    for (int64_t r0 = 0; r0 < ROWS; r0 += LANES) {
        vec lanes[LANES];
        for (int64_t r = 0; r < LANES; r++) lanes[r] = v_load(x->w->lanes[r0 + r], RAPT_F32);
        v_store(l + r0, RAPT_F32, v_add(v_load(l + r0, RAPT_F32), v_sums(lanes)));
    }
    x->most = v_zero();
    memset(x->w->lanes, 0, sizeof x->w->lanes);
}

/* The panel's scores (u NULL: none), the weights of the panel before, and a share of the values of the unit
 * before. */
VEC void stage(const struct kind *kind, struct pipeline *x, const struct unit *u, int64_t panel)
{
    int weighs = x->weigh.row >= 0, values = x->value.row >= 0;
    int64_t left = values ? x->outputs - x->output : 0,
            shares = weighs ? x->weigh.last - x->panel : 1, outputs = (left + shares - 1) / shares,
            depth = x->value.last - x->value.first,
            products = (kind->parts == 1 ? 4 : 1) * ((u ? kind->key_products * x->steps : 0) +
                                                     kind->value_products * outputs * depth),
            rows = products ? (ROWS + products - 1) / products : 0;
    struct weighing t = weighing_of(kind, x->call->scale, x->most);
    if (weighs) {
        t.s = x->w->s[!x->parity][0], t.top = x->w->top, t.lanes = x->w->lanes[0], t.rows = ROWS;
        t.p = x->weigh.p[0][0] + (x->panel - x->weigh.p_first) * PANEL;
    }
    if (u && x->call->options) ask_for_options_amx(x->call, u->row, panel);
    if (u) multiply_keys(kind, x, u->row, panel, x->w->s[x->parity], &t, rows);
    for (int64_t i = 0; i < outputs; i++)
        multiply_values(kind, x, &x->value, x->output + i, &t, rows);
    if (u && !outputs) store_sums(x);
    weigh_rows(kind, &t, ROWS);
    x->most = t.most;
    x->output += outputs;
    if (weighs && ++x->panel == x->weigh.last) {
        finish_unit(kind, x, &x->weigh);
        x->value = x->weigh, x->output = 0;
        x->weigh.row = -1;
    } else if (!weighs) x->value.row = -1;
    if (u) {
        if (x->weigh.row < 0) x->weigh = *u, x->panel = panel, x->missing = 1;
        change_scores(kind, x->call, u, panel, x->w->s[x->parity]);
        if (x->missing) begin_rows(x, u, x->w->s[x->parity]);
    }
    x->parity ^= 1;
}

/* Products read values of all keys of a panel, and 0 times NaN is NaN. */
static void clear_behind(const struct cpu_pipeline *t, int parts)
{
    int64_t first = (t->last + 1) / 2, last = (t->last + PANEL - 1) / PANEL * HALF;
    for (int64_t i = 0; i < t->v_channels / PANEL * parts; i++)
        memset(value_panel(t, 1, i, 0, 0) + first * PANEL, 0,
               (size_t)((last - first) * PANEL) * sizeof(float));
}

static struct unit tile_of(const struct cpu_pipeline *t, int64_t i)
{
    struct unit u = {.row = i * ROWS, .whole_first = INT64_MIN, .whole_last = INT64_MAX};
    for (int64_t r = u.row; r < u.row + ROWS; r++) {
        u.whole_first = max64(u.whole_first, t->row_first[r]);
        u.whole_last = min64(u.whole_last, t->row_last[r]);
    }
    return u;
}

/* Of tile i, the keys from column key on; 0: no row sees one. */
static int find_unit(const struct cpu_pipeline *t, int64_t i, int64_t key, struct unit *u)
{
    int64_t end = min64(t->last, key + CPU_PIPELINE_KEYS),
            low = max64(t->tile_low[i] - t->key0, max64(t->first, key)),
            high = min64(t->tile_high[i] - t->key0, end);
    u->first = low / PANEL, u->last = (high + PANEL - 1) / PANEL, u->p_first = key / PANEL;
    u->sums = t->tile_high[i] > t->key0 + end;
    return high > low;
}

VEC void run(const struct kind *kind, struct cpu_pipeline *t)
{
    struct tile_shapes shapes = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) shapes.row_bytes[i] = ROW_BYTES, shapes.rows[i] = HALF;
    struct pipeline x = {.call = t,
                         .w = t->scratch,
                         .steps = t->qk_channels / DEPTH,
                         .outputs = t->v_channels / PANEL,
                         .q_step = (size_t)t->q_stride * sizeof(float),
                         .o_step = (size_t)t->o_stride * sizeof(float),
                         .weigh = {.row = -1},
                         .value = {.row = -1},
                         .most = v_zero()};
    unsigned control = _mm_getcsr();
    int64_t units = 0;
    x.done = nowhere(&x);
    clear_behind(t, kind->parts);
    memset(x.w->lanes, 0, sizeof x.w->lanes);
    load_shapes(&shapes);
    _mm_setcsr(control | FLUSH_TO_ZERO);
    for (int64_t i = 0; i < t->tiles; i++) {
        struct unit u = tile_of(t, i);
        for (int64_t key = (t->last - 1) / CPU_PIPELINE_KEYS * CPU_PIPELINE_KEYS;
             key > t->first - CPU_PIPELINE_KEYS; key -= CPU_PIPELINE_KEYS) {
            if (!find_unit(t, i, key, &u)) continue;
            u.p = x.w->p[units++ % 2];
            for (int64_t panel = u.first; panel < u.last; panel++) stage(kind, &x, &u, panel);
            t->p_first = key;
        }
    }
    if (x.weigh.row >= 0) stage(kind, &x, NULL, 0);
    if (x.value.row >= 0) stage(kind, &x, NULL, 0);
    store_sums(&x);
    _tile_release();
    _mm_setcsr(control);
    t->p = x.w->p[(units + 1) % 2][0][0];
    t->p_stride = P_STRIDE;
    t->p_part = ROWS * P_STRIDE;
}

#define DEFINE(type)                                                                               \
    static void run_##type(struct cpu_pipeline *t)                                                 \
    {                                                                                              \
        run(&type##_kind, t);                                                                      \
    }
DEFINE(bf16)
DEFINE(f16)
DEFINE(f32)

const struct cpu_pipeline_kernels pipeline_bf16_amx = {
    .parts = 1, .run = run_bf16, .scratch_bytes = sizeof(struct scratch)};
const struct cpu_pipeline_kernels pipeline_f16_amx = {.parts = 2,
                                                      .run = run_f16,
                                                      .scratch_bytes = sizeof(struct scratch),
                                                      .pack_q = pack_q_f16_amx,
                                                      .pack_k = pack_k_f16_amx,
                                                      .pack_v = pack_v_f16_amx};
const struct cpu_pipeline_kernels pipeline_f32_amx = {.parts = 3,
                                                      .run = run_f32,
                                                      .scratch_bytes = sizeof(struct scratch),
                                                      .pack_q = pack_q_f32_amx,
                                                      .pack_k = pack_k_f32_amx,
                                                      .pack_v = pack_v_f32_amx,
                                                      .least_value = PACK_LEAST_F32};
