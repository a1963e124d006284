/* pipeline_amx.c: attention of a block of keys on the matrix unit (AMX BF16), with softmax between its
 * products. Stages of 32 rows by 32 keys: while the scores of one panel of K and a share of the values of
 * the tile before are multiplied, the vector units turn the scores of the panel before into weights, a row
 * after each product. A core looks no further ahead than a few products, so they must alternate one by one.
 *
 * The largest score of 128 keys is known too late for that, so a row keeps its maximum m while no score
 * exceeds it by more than KEPT binary orders of magnitude (as FlashAttention-4 does on GPUs): weights are up
 * to 2^KEPT then, which sums and products in f32 bear and the division by l takes out. Its first m is the
 * largest score of the first panel that it sees. If a score exceeds that, the unit's weights are computed
 * anew with its maxima (`careful`). Which m a row has depends on its own scores alone. */
#include "cpu/x86/vec_avx512.h"

#include "cpu/arena.h"
#include "cpu/vec_math.h"
#include "cpu/x86/amx_shapes.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = CPU_PIPELINE_ROWS,
    HALF = ROWS / 2,
    PANEL = 32,
    PANEL_STEP = PANEL * sizeof(float), /* bytes from pair to pair of a panel */
    DEPTH = 32,                         /* channels, or keys, of a product */
    PANELS = CPU_PIPELINE_KEYS / PANEL,
    P_STRIDE =
        CPU_PIPELINE_KEYS + PANEL, /* bf16; lines of one row after another lie in different sets */
    KEPT = 8,
};

/* Tiles: sums of two by two, an upper and a lower left one, two right ones. */
#define SUM0  0
#define SUM1  1
#define SUM2  2
#define SUM3  3
#define UPPER 4
#define LOWER 5
#define LEFT  6
#define RIGHT 7

/* The intrinsics do not say that a load reads memory. */
#define KEEP_ORDER __asm__ volatile("" : : : "memory")

struct scratch {
    float s[2][ROWS][PANEL];        /* scores of two panels, one after another */
    float spare[ROWS][PANEL];       /* for sums that belong nowhere */
    float lanes[ROWS][LANES];       /* sums of a unit's weights */
    float all[PANELS][ROWS][PANEL]; /* careful: the scores of a unit */
    float top[ROWS];                /* m, or 0 where there is none */
    uint16_t p[2][ROWS][P_STRIDE];  /* weights of two units, one after another */
};

size_t pipeline_scratch_amx(void)
{
    return sizeof(struct scratch);
}

/* A tile of rows and the panels that some row of it sees. */
struct unit {
    int64_t row, first, last;        /* packed row; panels */
    int64_t whole_first, whole_last; /* the keys that all its rows see */
    int sums;                        /* o holds sums of keys before */
    int64_t p_first;                 /* panel of column 0 of p */
    uint16_t (*p)[P_STRIDE];
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
    __m512 exceeded;  /* the most that scores of the unit exceed m by, in binary orders */
};

static const float *key_panel(const struct cpu_pipeline *t, int64_t panel)
{
    return (const float *)t->k_panels + panel * PANEL * (t->qk_channels / 2);
}

static const float *value_panel(const struct cpu_pipeline *t, int64_t output, int64_t panel)
{
    return (const float *)t->v_panels + output * PANEL * (t->panel_keys / 2) + panel * PANEL * HALF;
}

static float *sums_at(const struct pipeline *x, const struct unit *u, int64_t output)
{
    return x->call->o + u->row * x->call->o_stride + output * PANEL;
}

/* ---- Weights ---- */

/* What a stage has left to weigh: rows of one panel. The terms of v_exp2_half are here so that they stay in
 * registers. */
struct weighing {
    const float *s, *top;
    uint16_t *p;
    float *lanes;
    int64_t rows;
    vec scale, exceeded, term[4], one, least;
};

VEC struct weighing weighing_of(float scale, vec exceeded)
{
    static const float terms[4] = {V_EXP2_HALF_TERMS};
    struct weighing t = {.scale = v_set(scale), .exceeded = exceeded};
    t.one = v_set(1), t.least = v_set(-126);
    for (int i = 0; i < 4; i++) t.term[i] = v_set(terms[i]);
    __asm__(""
            : "+v"(t.term[0]), "+v"(t.term[1]), "+v"(t.term[2]), "+v"(t.term[3]), "+v"(t.one),
              "+v"(t.least));
    return t;
}

/* 2^((s - m) scale) of LANES scores; raises exceeded. */
VEC vec weight(vec s, vec m, struct weighing *t)
{
    vec x = v_mul(v_sub(s, m), t->scale);
    __asm__("" : "+v"(x));               /* the same roundings wherever this is inlined */
    t->exceeded = v_max(x, t->exceeded); /* NaN raises nothing */
    vec n = v_round(x), u = v_sub(x, n), p = v_fma(t->term[0], u, t->term[1]);
    p = v_fma(p, u, t->term[2]);
    p = v_fma(p, u, t->term[3]);
    p = v_fma(p, u, t->one);
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, t->least, _CMP_NLT_UQ), p, n);
}

VEC void weigh_row(struct weighing *t)
{
    vec m = v_set(*t->top);
    vec a = weight(v_load(t->s, RAPT_F32), m, t), b = weight(v_load(t->s + LANES, RAPT_F32), m, t);
    _mm512_store_si512(t->p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    v_store(t->lanes, RAPT_F32, v_add(v_load(t->lanes, RAPT_F32), v_add(a, b)));
    t->s += PANEL, t->top++, t->p += P_STRIDE, t->lanes += LANES, t->rows--;
}

VEC void weigh_rows(struct weighing *t, int64_t count)
{
    KEEP_ORDER;
    for (int64_t i = 0; i < count && t->rows; i++) weigh_row(t);
    KEEP_ORDER;
}

/* -inf in the columns of a panel of scores that a row does not see. */
static void hide(const struct cpu_pipeline *t, const struct unit *u, int64_t panel,
                 float (*s)[PANEL])
{
    int64_t key = t->key0 + panel * PANEL;
    if (u->whole_first <= key && u->whole_last >= key + PANEL) return;
    for (int64_t r = 0; r < ROWS; r++) {
        int64_t first = t->row_first[u->row + r] - key, last = t->row_last[u->row + r] - key;
        uint32_t seen = last <= 0 || first >= PANEL ? 0 : UINT32_MAX;
        if (seen && first > 0) seen &= UINT32_MAX << first;
        if (seen && last < PANEL) seen &= ~(UINT32_MAX << last);
        _mm512_mask_storeu_ps(s[r], (__mmask16)~seen, v_set(-INFINITY));
        _mm512_mask_storeu_ps(s[r] + LANES, (__mmask16)(~seen >> LANES), v_set(-INFINITY));
    }
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

/* Rows without a maximum take that of this panel. */
static void begin_rows(struct pipeline *x, const struct unit *u, float (*s)[PANEL])
{
    const vec none = v_set(-INFINITY);
    float found[ROWS];
    int has_found = 0;
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
        }
        v_store(x->w->top + r, RAPT_F32,
                _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(m, none, _CMP_NEQ_UQ), m));
    }
}

/* ---- Products ---- */

VEC char *lower_half(const struct sums *c)
{
    return (char *)c->at + HALF * c->step;
}

/* One step of 2 x 2 tiles, a times two halves of a panel; rows are weighed after each product. The first one
 * of a product also stores what the product before has summed and loads, or clears, its own sums, tile by
 * tile: a core waits with all that follows while it moves four tiles at once. */
VEC void step(const void *a, size_t a_step, const float *b, struct weighing *t, int64_t rows)
{
    const char *lower = (const char *)a + HALF * a_step;
    _tile_loadd(UPPER, a, a_step);
    _tile_stream_loadd(LEFT, b, PANEL_STEP);
    _tile_dpbf16ps(SUM0, UPPER, LEFT);
    weigh_rows(t, rows);
    _tile_stream_loadd(RIGHT, b + LANES, PANEL_STEP);
    _tile_dpbf16ps(SUM1, UPPER, RIGHT);
    weigh_rows(t, rows);
    _tile_loadd(LOWER, lower, a_step);
    _tile_dpbf16ps(SUM2, LOWER, LEFT);
    weigh_rows(t, rows);
    _tile_dpbf16ps(SUM3, LOWER, RIGHT);
    weigh_rows(t, rows);
}

VEC void first_step(const struct sums *done, const struct sums *next, int loads, const void *a,
                    size_t a_step, const float *b, struct weighing *t, int64_t rows)
{
    const char *lower = (const char *)a + HALF * a_step;
    _tile_stored(SUM0, done->at, done->step);
    if (loads) _tile_loadd(SUM0, next->at, next->step);
    else _tile_zero(SUM0);
    _tile_loadd(UPPER, a, a_step);
    _tile_stream_loadd(LEFT, b, PANEL_STEP);
    _tile_dpbf16ps(SUM0, UPPER, LEFT);
    weigh_rows(t, rows);
    _tile_stored(SUM1, done->at + LANES, done->step);
    if (loads) _tile_loadd(SUM1, next->at + LANES, next->step);
    else _tile_zero(SUM1);
    _tile_stream_loadd(RIGHT, b + LANES, PANEL_STEP);
    _tile_dpbf16ps(SUM1, UPPER, RIGHT);
    weigh_rows(t, rows);
    _tile_stored(SUM2, lower_half(done), done->step);
    if (loads) _tile_loadd(SUM2, lower_half(next), next->step);
    else _tile_zero(SUM2);
    _tile_loadd(LOWER, lower, a_step);
    _tile_dpbf16ps(SUM2, LOWER, LEFT);
    weigh_rows(t, rows);
    _tile_stored(SUM3, lower_half(done) + sizeof(vec), done->step);
    if (loads) _tile_loadd(SUM3, lower_half(next) + sizeof(vec), next->step);
    else _tile_zero(SUM3);
    _tile_dpbf16ps(SUM3, LOWER, RIGHT);
    weigh_rows(t, rows);
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

VEC void multiply_keys(struct pipeline *x, int64_t row, int64_t panel, float (*s)[PANEL],
                       struct weighing *t, int64_t rows)
{
    const float *q = (const float *)x->call->q + row * x->call->q_stride,
                *k = key_panel(x->call, panel);
    struct sums c = {s[0], sizeof s[0]};
    first_step(&x->done, &c, 0, q, x->q_step, k, t, rows);
    for (int64_t i = 1; i < x->steps; i++)
        step(q + i * DEPTH / 2, x->q_step, k + i * PANEL * DEPTH / 2, t, rows);
    x->done = c;
}

VEC void multiply_values(struct pipeline *x, const struct unit *u, int64_t output,
                         struct weighing *t, int64_t rows)
{
    const uint16_t *p = u->p[0] + (u->first - u->p_first) * PANEL;
    const float *v = value_panel(x->call, output, u->first);
    struct sums c = {sums_at(x, u, output), x->o_step};
    if (u->sums) first_step(&x->done, &c, 1, p, sizeof u->p[0], v, t, rows);
    else first_step(&x->done, &c, 0, p, sizeof u->p[0], v, t, rows);
    for (int64_t i = 1; i < u->last - u->first; i++)
        step(p + i * PANEL, sizeof u->p[0], v + i * PANEL * HALF, t, rows);
    x->done = c;
}

/* ---- Stages ---- */

/* A unit whose scores exceed a maximum: its scores again, m by its rule, weights and sums. */
static void careful(struct pipeline *x, const struct unit *u)
{
    const struct cpu_pipeline *t = x->call;
    struct weighing none = {0};
    float largest[ROWS];
    store_sums(x);
    for (int64_t i = u->first; i < u->last; i++) {
        multiply_keys(x, u->row, i, x->w->all[i - u->p_first], &none, 0);
        store_sums(x);
        hide(t, u, i, x->w->all[i - u->p_first]);
        float of_panel[ROWS];
        maxima(of_panel, x->w->all[i - u->p_first]);
        for (int64_t r = 0; r < ROWS; r++)
            largest[r] = i > u->first && !(of_panel[r] > largest[r]) ? largest[r] : of_panel[r];
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
        float m = t->m[u->row + r];
        struct weighing row = weighing_of(t->scale, v_zero());
        for (int64_t lane = 0; lane < LANES; lane++) x->w->lanes[r][lane] = 0;
        m = m == -INFINITY ? 0 : m;
        for (int64_t i = u->first; i < u->last; i++) {
            row.s = x->w->all[i - u->p_first][r], row.top = &m,
            row.p = u->p[r] + (i - u->p_first) * PANEL, row.rows = 1;
            row.lanes = x->w->lanes[r];
            weigh_rows(&row, 1);
        }
    }
}

/* All weights of a unit are there: their sums, or what its scores ask for first. */
static void finish_unit(struct pipeline *x, const struct unit *u)
{
    float *l = x->call->l + u->row;
    if (_mm512_cmp_ps_mask(x->exceeded, v_set(KEPT), _CMP_GT_OQ)) careful(x, u);
    for (int64_t r0 = 0; r0 < ROWS; r0 += LANES) {
        vec lanes[LANES];
        for (int64_t r = 0; r < LANES; r++) lanes[r] = v_load(x->w->lanes[r0 + r], RAPT_F32);
        v_store(l + r0, RAPT_F32, v_add(v_load(l + r0, RAPT_F32), v_sums(lanes)));
    }
    x->exceeded = v_set(-INFINITY);
    memset(x->w->lanes, 0, sizeof x->w->lanes);
}

/* The panel's scores (u NULL: none), the weights of the panel before, and a share of the values of the unit
 * before. */
static void stage(struct pipeline *x, const struct unit *u, int64_t panel)
{
    int weighs = x->weigh.row >= 0, values = x->value.row >= 0;
    int64_t left = values ? x->outputs - x->output : 0,
            shares = weighs ? x->weigh.last - x->panel : 1, outputs = (left + shares - 1) / shares,
            depth = x->value.last - x->value.first,
            products = 4 * ((u ? x->steps : 0) + outputs * depth),
            rows = products ? (ROWS + products - 1) / products : 0;
    struct weighing t = weighing_of(x->call->scale, x->exceeded);
    if (weighs) {
        t.s = x->w->s[!x->parity][0], t.top = x->w->top, t.lanes = x->w->lanes[0], t.rows = ROWS;
        t.p = x->weigh.p[0] + (x->panel - x->weigh.p_first) * PANEL;
    }
    if (u) multiply_keys(x, u->row, panel, x->w->s[x->parity], &t, rows);
    for (int64_t i = 0; i < outputs; i++) multiply_values(x, &x->value, x->output + i, &t, rows);
    if (u && !outputs) store_sums(x);
    weigh_rows(&t, ROWS);
    x->exceeded = t.exceeded;
    x->output += outputs;
    if (weighs && ++x->panel == x->weigh.last) {
        finish_unit(x, &x->weigh);
        x->value = x->weigh, x->output = 0;
        x->weigh.row = -1;
    } else if (!weighs) x->value.row = -1;
    if (u) {
        if (x->weigh.row < 0) x->weigh = *u, x->panel = panel;
        hide(x->call, u, panel, x->w->s[x->parity]);
        begin_rows(x, u, x->w->s[x->parity]);
    }
    x->parity ^= 1;
}

/* Products read values of all keys of a panel, and 0 times NaN is NaN. */
static void clear_behind(const struct cpu_pipeline *t)
{
    int64_t first = (t->last + 1) / 2, last = (t->last + PANEL - 1) / PANEL * HALF;
    for (int64_t c = 0; c < t->v_channels; c += PANEL)
        memset((float *)t->v_panels + c * (t->panel_keys / 2) + first * PANEL, 0,
               (size_t)((last - first) * PANEL) * sizeof(float));
}

/* Tile i and the keys from column key on; 0: no row sees one. */
static int unit_of(const struct cpu_pipeline *t, int64_t i, int64_t key, struct unit *u)
{
    int64_t end = min64(t->last, key + CPU_PIPELINE_KEYS),
            low = max64(t->tile_low[i] - t->key0, max64(t->first, key)),
            high = min64(t->tile_high[i] - t->key0, end);
    if (high <= low) return 0;
    *u = (struct unit){.row = i * ROWS,
                       .first = low / PANEL,
                       .last = (high + PANEL - 1) / PANEL,
                       .whole_first = INT64_MIN,
                       .whole_last = INT64_MAX,
                       .sums = t->tile_low[i] < t->key0 + key,
                       .p_first = key / PANEL};
    for (int64_t r = u->row; r < u->row + ROWS; r++) {
        u->whole_first = max64(u->whole_first, t->row_first[r]);
        u->whole_last = min64(u->whole_last, t->row_last[r]);
    }
    return 1;
}

void pipeline_amx(struct cpu_pipeline *t)
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
                         .exceeded = v_set(-INFINITY)};
    int64_t units = 0;
    x.done = nowhere(&x);
    clear_behind(t);
    memset(x.w->lanes, 0, sizeof x.w->lanes);
    load_shapes(&shapes);
    for (int64_t i = 0; i < t->tiles; i++)
        for (int64_t key = t->first / CPU_PIPELINE_KEYS * CPU_PIPELINE_KEYS; key < t->last;
             key += CPU_PIPELINE_KEYS) {
            struct unit u;
            if (!unit_of(t, i, key, &u)) continue;
            u.p = x.w->p[units++ % 2];
            for (int64_t panel = u.first; panel < u.last; panel++) stage(&x, &u, panel);
            t->p_first = key;
        }
    if (x.weigh.row >= 0) stage(&x, NULL, 0);
    if (x.value.row >= 0) stage(&x, NULL, 0);
    store_sums(&x);
    _tile_release();
    t->p = (const float *)x.w->p[(units + 1) % 2][0];
    t->p_stride = P_STRIDE / 2;
}
