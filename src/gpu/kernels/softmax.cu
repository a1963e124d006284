/* softmax.cu: weights = softmax(scores) along the keys, any length and stride; a row of -inf gives
 * zeros. Portable, f32 arithmetic.
 *
 * A team of lanes, a part of a wave up to the whole block, has KEPT elements of a row per lane in
 * registers, or fewer of several rows at once, in pieces of 16 bytes; what lies before the first
 * 16-byte boundary of a row and behind the last is taken one element per lane. All loads go out
 * before the first is looked at. Of a row beyond the whole block's registers, as many parts as fit
 * are kept in shared memory as they lie (LONG), and the others read twice. Where blocks form
 * clusters, the CLUSTER blocks of one share a row. */
#include "rows.h"

#ifndef KEPT
#define KEPT 32 /* elements per lane in registers */
#endif
#ifndef LONG
#define LONG 0
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
#if CLUSTER > 1
#include "nvidia/cluster.h"
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif
extern __shared__ uint4 held[]; /* LONG: [part][piece][thread] */

enum {
    WAVES = THREADS / WAVE,
    SHORT = 8 * WAVE, /* columns up to which a lane takes elements of several rows */
    AT_ONCE = 4,      /* these rows */
    EDGE = 8          /* more than the elements at an edge of a row */
};

/* Who works on a row. A wave's lanes have neighbouring pieces, `step` columns between those of one
 * lane; waves follow each other. */
struct team {
    int lanes;         /* of a team, a power of two */
    int number, count; /* which of the block's teams this is, how many there are */
    int first, step;   /* first column of this lane, columns between its pieces */
    float *shared;     /* for reductions over waves: of maxima, then of sums */
};

DEVICE int lane_of(const struct team *t)
{
    return fresh(THREAD) & (t->lanes - 1);
}

DEVICE float combined(float x, float y, int sums)
{
    return sums ? x + y : maximum(x, y);
}

/* x[r] becomes the maximum or the sum of the team's. Maxima and sums take turns, so that the
 * barrier of the one lets the next of the other overwrite its part of `shared`. */
DEVICE void reduce(float *x, int rows, int sums, const struct team *t)
{
#pragma unroll 1
    for (int mask = smaller(t->lanes, WAVE) / 2; mask; mask /= 2)
#pragma unroll
        for (int r = 0; r < rows; r++) x[r] = combined(x[r], lane_xor(x[r], mask), sums);
    if (t->lanes <= WAVE) return;
    float *all = t->shared + sums * WAVES;
    if (THREAD % WAVE == 0) all[THREAD / WAVE] = x[0];
    block_barrier();
    const float *parts = all + t->number * (t->lanes / WAVE);
    x[0] = parts[0];
#pragma unroll 1
    for (int i = 1; i < t->lanes / WAVE; i++) x[0] = combined(x[0], parts[i], sums);
}

/* The same over the blocks of a cluster, of a value that all threads of a block have. */
DEVICE void reduce_cluster(float *x, int sums, const struct team *t)
{
#if CLUSTER > 1
    float *own = t->shared + 2 * WAVES + sums;
    if (THREAD == 0) *own = *x;
    cluster_barrier();
    *x = load_of_rank(own, 0);
#pragma unroll
    for (int rank = 1; rank < CLUSTER; rank++) *x = combined(*x, load_of_rank(own, rank), sums);
#else
    (void)x, (void)sums, (void)t;
#endif
}

struct partial {
    float m, l; /* maximum; sum of exp(x - m) */
};

DEVICE struct partial merged(struct partial a, struct partial b)
{
    struct partial c = {maximum(a.m, b.m), 0};
    float base = c.m == -INFINITY ? 0 : c.m;
    c.l = a.l * exp2_fast((a.m - base) * LOG2_E) + b.l * exp2_fast((b.m - base) * LOG2_E);
    return c;
}

/* Rows follow each other at one distance, and no row has a sink or a log-sum-exp. */
DEVICE int is_simple(const struct attention_args *a)
{
    const struct view *in = &a->scores, *out = &a->weights;
    return !a->q_start.data && !a->sink.data && !a->lse.data &&
           in->stride[1] == a->q_tokens * in->stride[2] &&
           out->stride[1] == a->q_tokens * out->stride[2] &&
           in->stride[0] == a->q_heads * in->stride[1] &&
           out->stride[0] == a->q_heads * out->stride[1];
}

/* Where row `number` is read and written, and what it needs besides. */
struct place {
    const char *from; /* of whole pieces from here on */
    char *to;
    float *lse; /* NULL: none */
    float sink; /* a logit without a column; -inf: none */
    int end;    /* of the whole pieces, in columns from here */
    int edge;   /* this lane's element outside of them; EDGE_NONE: has none */
};
#define EDGE_NONE (-(1 << 30))

DEVICE struct place place_of(const struct attention_args *a, int64_t number, int simple)
{
    const struct view *in = &a->scores, *out = &a->weights;
    struct place p = {(char *)in->data + number * in->stride[2] * dtype_bytes(in->dtype),
                      (char *)out->data + number * out->stride[2] * dtype_bytes(out->dtype),
                      (float *)0,
                      -INFINITY,
                      a->columns,
                      EDGE_NONE};
    if (simple) return p;
    struct score_row s = score_row_of(a, number);
    int b = s.seq.q_batch, token = s.seq.q_start + s.query;
    p.from = element_at(in, b, s.head, token, 0);
    p.to = element_at(out, b, s.head, token, 0);
    if (a->lse.data) p.lse = (float *)element_at(&a->lse, b, s.head, token, 0);
    if (a->sink.data) p.sink = load_element(element_at(&a->sink, s.b, s.head, 0, 0), 0, DTYPE_f32);
    return p;
}

/* The sink joins; also writes the log-sum-exp. Returns what to multiply exp(x - m) with. */
DEVICE float finish_row(const struct place *p, float m, float l, int writer)
{
    struct partial own = {m, l}, extra = {p->sink, 1};
    if (p->sink != -INFINITY) own = merged(own, extra);
    if (p->lse && writer) STORE(float, p->lse, own.m + log2_fast(own.l) * LN_2);
    float change = p->sink == -INFINITY ? 1 : exp2_fast((m - own.m) * LOG2_E);
    return own.l == 0 ? 0 : change / own.l; /* 0 for a row without keys */
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* How rows are read and written. run: elements in 16 bytes; kept: elements of one row that a lane
 * holds in pieces; rows: of a team at once. Constants but for the last two. */
struct form {
    int64_t dtype;
    int run, kept, rows;
    int columns, whole; /* whole: every row begins and ends on 16 bytes */
};

/* Cuts the row at its 16-byte boundaries; lane: within the team, of at least 2 * EDGE. */
DEVICE void cut_edges(struct place *p, const struct form *f, int lane)
{
    int bytes = dtype_bytes(f->dtype), before = (int)(-(uint64_t)p->from & 15) / bytes,
        head = smaller(before, f->columns);
    p->end = (f->columns - head) / f->run * f->run;
    p->from += head * bytes;
    p->to += head * bytes;
    if (lane < head) p->edge = lane - head;
    else if (lane >= EDGE && lane - EDGE < f->columns - head - p->end)
        p->edge = p->end + lane - EDGE;
}

DEVICE uint32_t hidden_bits(int64_t dtype) /* -inf, twice where it is narrow */
{
    return dtype == DTYPE_f32 ? 0xff800000u : dtype == DTYPE_f16 ? 0xfc00fc00u : 0xff80ff80u;
}

/* The lane's pieces of a row from column `start` on, -inf from the end on. */
DEVICE void load_pieces(uint4 *raw, const struct place *p, const struct form *f, int start,
                        const struct team *t)
{
    int first = start + t->first;
    uint32_t fill = hidden_bits(f->dtype);
    const char *from = p->from + (int64_t)first * dtype_bytes(f->dtype);
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++) {
        uint4 h = {fill, fill, fill, fill};
        if (first + k * t->step < p->end) h = LOAD(uint4, from);
        raw[k] = h;
        from += t->step * dtype_bytes(f->dtype);
    }
}

DEVICE float load_edge(const struct place *p, const struct form *f)
{
    return p->edge == EDGE_NONE ? -INFINITY : load_element(p->from, p->edge, f->dtype);
}

DEVICE void unpack_pieces(float *x, const uint4 *raw, const struct form *f)
{
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++) unpack_16_bytes(raw[k], f->dtype, x + k * f->run);
}

DEVICE void store_pieces(const float *x, const struct place *p, const struct form *f, int start,
                         const struct team *t)
{
    int first = start + t->first;
    char *to = p->to + (int64_t)first * dtype_bytes(f->dtype);
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++) {
        if (first + k * t->step < p->end) store_run(to, f->dtype, f->run, f->run, x + k * f->run);
        to += t->step * dtype_bytes(f->dtype);
    }
}

DEVICE void store_edge(float x, const struct place *p, const struct form *f)
{
    if (p->edge != EDGE_NONE) store_element(p->to, p->edge, f->dtype, x);
}

DEVICE float max_of_kept(const float *x, int kept, float m)
{
#pragma unroll
    for (int i = 0; i < kept; i++) m = maximum(m, x[i]);
    return m;
}

/* x becomes factor * exp(x - m); returns the sum of the exponentials. */
DEVICE float exp_of_kept(float *x, int kept, float m, float factor)
{
    float l = 0, base = m == -INFINITY ? 0 : m;
#pragma unroll
    for (int i = 0; i < kept; i++) {
        float e = exp2_fast((x[i] - base) * LOG2_E);
        l += e;
        x[i] = e * factor;
    }
    return l;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* f->rows rows of each team, the first of the block's being number `first`; those from `end` on are
 * not there. */
DEVICE void kept_rows(const struct attention_args *a, const struct form *f, int64_t first,
                      int64_t end, int simple, const struct team *t)
{
    float x[KEPT], m[AT_ONCE], l[AT_ONCE], edge[AT_ONCE];
    uint4 raw[KEPT / 4];
    struct place place[AT_ONCE];
    int pieces = f->kept / f->run;
#pragma unroll
    for (int r = 0; r < f->rows; r++) {
        int64_t number = first + r * t->count + t->number;
        place[r] = place_of(a, number < end ? number : end - 1, simple);
        if (!f->whole) cut_edges(&place[r], f, lane_of(t));
        load_pieces(raw + r * pieces, &place[r], f, 0, t);
        edge[r] = load_edge(&place[r], f);
    }
#pragma unroll
    for (int r = 0; r < f->rows; r++) {
        unpack_pieces(x + r * f->kept, raw + r * pieces, f);
        m[r] = max_of_kept(x + r * f->kept, f->kept, edge[r]);
    }
    reduce(m, f->rows, 0, t);
#pragma unroll
    for (int r = 0; r < f->rows; r++)
        l[r] = exp_of_kept(x + r * f->kept, f->kept, m[r], 1) + exp_of_kept(&edge[r], 1, m[r], 1);
    reduce(l, f->rows, 1, t);
#pragma unroll
    for (int r = 0; r < f->rows; r++) {
        if (first + r * t->count + t->number >= end) continue;
        float factor = finish_row(&place[r], m[r], l[r], lane_of(t) == 0);
#pragma unroll
        for (int i = 0; i < f->kept; i++) x[r * f->kept + i] *= factor;
        store_pieces(x + r * f->kept, &place[r], f, 0, t);
        store_edge(edge[r] * factor, &place[r], f);
    }
}

/* Whether the part of a row that begins at this column has room in shared memory. */
DEVICE int is_held(const struct form *f, int start)
{
    return SHARED_BYTES && start + THREADS * KEPT <= SHARED_BYTES / dtype_bytes(f->dtype);
}

/* Puts the thread's pieces of such a part there, or takes them. */
DEVICE void hold(uint4 *raw, const struct form *f, int start, int take)
{
    uint4 *at = held + start / f->run + THREAD;
#pragma unroll
    for (int k = 0; k < KEPT / f->run; k++) {
        if (take) raw[k] = at[k * THREADS];
        else at[k * THREADS] = raw[k];
    }
}

#if CLUSTER > 1
/* Columns of a block of a cluster but the last, in whole pieces. */
DEVICE int cluster_columns(const struct attention_args *a)
{
    return (a->columns + 8 * CLUSTER - 1) / (8 * CLUSTER) * 8;
}
#endif

DEVICE int first_part(void)
{
#if CLUSTER > 1
    return cluster_rank() == 0;
#else
    return 1;
#endif
}

/* The block's part of a row: f->columns of them. */
DEVICE struct place part_of_row(const struct attention_args *a, const struct form *f,
                                int64_t number, int simple, int lane)
{
    struct place p = place_of(a, number, simple);
#if CLUSTER > 1
    int64_t begin = (int64_t)cluster_rank() * cluster_columns(a) * dtype_bytes(f->dtype);
    p.from += begin;
    p.to += begin;
#endif
    p.end = f->columns;
    if (!f->whole) cut_edges(&p, f, lane);
    return p;
}

/* A row that the block's registers do not hold: the last part stays there, others in shared memory,
 * and what is left is read again, the newest first. */
DEVICE void long_row(const struct attention_args *a, const struct form *f, int64_t number,
                     int simple, const struct team *t)
{
    struct place place = part_of_row(a, f, number, simple, THREAD);
    float x[KEPT], edge = load_edge(&place, f);
    struct partial sum = {edge, edge == -INFINITY ? 0.0f : 1.0f};
    uint4 raw[KEPT / 4];
    int part = THREADS * KEPT, start = 0;
#pragma unroll 1
    for (;; start += part) {
        load_pieces(raw, &place, f, start, t);
        if (is_held(f, start) && start + part < f->columns) hold(raw, f, start, 0);
        unpack_pieces(x, raw, f);
        if (start + part >= f->columns) break;
        struct partial own = {max_of_kept(x, KEPT, -INFINITY), 0};
        own.l = exp_of_kept(x, KEPT, own.m, 1);
        sum = merged(sum, own);
    }
    float m = max_of_kept(x, KEPT, sum.m);
    reduce(&m, 1, 0, t);
    reduce_cluster(&m, 0, t);
    place = part_of_row(a, f, number, simple, fresh(THREAD)); /* anew, to keep no register */
    float base = m == -INFINITY ? 0 : m, l = sum.l * exp2_fast((sum.m - base) * LOG2_E);
    l += exp_of_kept(x, KEPT, m, 1);
    reduce(&l, 1, 1, t);
    reduce_cluster(&l, 1, t);
    float factor = finish_row(&place, m, l, THREAD == 0 && first_part());
    store_edge(exp2_fast((edge - base) * LOG2_E) * factor, &place, f);
#pragma unroll
    for (int i = 0; i < KEPT; i++) x[i] *= factor;
#pragma unroll 1
    for (;;) {
        store_pieces(x, &place, f, start, t);
        if (start == 0) break;
        start -= part;
        if (is_held(f, start)) hold(raw, f, start, 1);
        else load_pieces(raw, &place, f, start, t);
        unpack_pieces(x, raw, f);
        exp_of_kept(x, KEPT, m, factor);
    }
}

/* Of any strides and dtypes, element by element; read twice. */
DEVICE void row_of_elements(const struct attention_args *a, int64_t number, const struct team *t)
{
    struct place place = place_of(a, number, 0);
    int64_t in = a->scores.dtype, out = a->weights.dtype, step = a->scores.stride[3],
            out_step = a->weights.stride[3];
    struct partial own = {-INFINITY, 0};
#pragma unroll 1
    for (int at = t->first; at < a->columns; at += t->lanes) {
        struct partial one = {load_element(place.from, at * step, in), 1};
        if (one.m != -INFINITY) own = merged(own, one);
    }
    float m = own.m;
    reduce(&m, 1, 0, t);
    float base = m == -INFINITY ? 0 : m, l = own.l * exp2_fast((own.m - base) * LOG2_E);
    reduce(&l, 1, 1, t);
    float factor = finish_row(&place, m, l, t->first == 0);
#pragma unroll 1
    for (int at = t->first; at < a->columns; at += t->lanes) {
        float x = load_element(place.from, at * step, in);
        store_element(place.to, at * out_step, out, exp2_fast((x - base) * LOG2_E) * factor);
    }
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* The least power of two that is not below x. */
DEVICE int power_from(int x)
{
    int p = 1;
    while (p < x) p *= 2;
    return p;
}

/* As few lanes for a row as hold it and its edges. */
DEVICE struct team team_of(const struct form *f, float *shared)
{
    int lanes = smaller(
        THREADS, power_from(larger(f->whole ? 1 : 2 * EDGE, (f->columns + f->kept - 1) / f->kept)));
    int lane = THREAD % lanes;
    struct team t = {lanes,
                     THREAD / lanes,
                     THREADS / lanes,
                     lane / WAVE * WAVE * f->kept + lane % WAVE * f->run,
                     smaller(lanes, WAVE) * f->run,
                     shared};
    return t;
}

/* The block's rows are [first, end). */
DEVICE void rows_of_elements(const struct attention_args *a, int64_t first, int64_t end,
                             float *shared)
{
    int lanes = a->columns > WAVE * KEPT ? THREADS : WAVE;
    struct team t = {lanes, THREAD / lanes, THREADS / lanes, THREAD % lanes, 0, shared};
#pragma unroll 1
    for (first += t.number; first < end; first += t.count) row_of_elements(a, first, &t);
}

/* The cluster's row; all its blocks stay until nobody reads their shared memory. */
DEVICE void row_of_cluster(const struct attention_args *a, int64_t dtype, int run, int whole,
                           int64_t number, float *shared)
{
#if CLUSTER > 1
    int each = cluster_columns(a), left = a->columns - cluster_rank() * each;
    struct form f = {dtype, run, KEPT, 1, larger(0, smaller(each, left)), whole};
    struct team t = {THREADS,    0,     1, THREAD / WAVE * WAVE * KEPT + THREAD % WAVE * run,
                     WAVE * run, shared};
    long_row(a, &f, number, is_simple(a), &t);
    cluster_barrier();
#else
    (void)a, (void)dtype, (void)run, (void)whole, (void)number, (void)shared;
#endif
}

DEVICE void rows_of_pieces(const struct attention_args *a, int64_t dtype, int run, int whole,
                           int64_t first, int64_t end, float *shared)
{
    int simple = is_simple(a);
    if (CLUSTER > 1) {
        row_of_cluster(a, dtype, run, whole, first, shared);
        return;
    }
    if (!LONG && simple && a->columns <= SHORT) {
        struct form f = {dtype, run, KEPT / AT_ONCE, AT_ONCE, a->columns, whole};
        struct team t = team_of(&f, shared);
#pragma unroll 1
        for (; first < end; first += AT_ONCE * t.count) kept_rows(a, &f, first, end, 1, &t);
        return;
    }
    struct form f = {dtype, run, KEPT, 1, a->columns, whole};
    struct team t = team_of(&f, shared);
#pragma unroll 1
    for (; first < end; first += t.count) {
        if (a->columns > THREADS * KEPT) long_row(a, &f, first, simple, &t);
        else kept_rows(a, &f, first, end, simple, &t);
    }
}

/* Whether in and out are cut by the same 16-byte boundaries in every row. */
DEVICE int same_edges(const struct view *in, const struct view *out)
{
    int bytes = dtype_bytes(in->dtype), run = 16 / bytes;
    int64_t apart = (in->stride[0] - out->stride[0]) | (in->stride[1] - out->stride[1]) |
                    (in->stride[2] - out->stride[2]);
    return in->dtype == out->dtype && in->stride[3] == 1 && out->stride[3] == 1 &&
           !(apart & (run - 1)) && !(((uint64_t)in->data - (uint64_t)out->data) & 15) &&
           !((uint64_t)in->data & (bytes - 1));
}

KERNEL_ENTRY void IN_CLUSTERS LAUNCH(THREADS, BLOCKS)
    KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    __shared__ float shared[2 * WAVES + 2]; /* see reduce and reduce_cluster */
    const struct attention_args *a = ARGUMENT(attention_args, args);
    const struct view *in = &a->scores, *out = &a->weights;
    int64_t all = score_row_count(a), count = larger(1, TILE_Q / larger(1, a->columns)),
            first = BLOCK_X / CLUSTER * count, end = first + count < all ? first + count : all;
    int run = in->dtype == DTYPE_f32 ? 4 : 8,
        whole = runs_aligned(in, run) && runs_aligned(out, run) && a->columns % run == 0;
    if (!same_edges(in, out)) {
        if (first_part()) rows_of_elements(a, first, end, shared);
    } else if (in->dtype == DTYPE_f32) rows_of_pieces(a, DTYPE_f32, 4, whole, first, end, shared);
    else if (in->dtype == DTYPE_f16) rows_of_pieces(a, DTYPE_f16, 8, whole, first, end, shared);
    else rows_of_pieces(a, DTYPE_bf16, 8, whole, first, end, shared);
}
