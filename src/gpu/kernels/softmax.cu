/* softmax.cu: weights = softmax(scores) along the keys, any length and stride; a row of -inf gives
 * zeros. Portable, f32 arithmetic.
 *
 * A team of lanes, a part of a wave up to the whole block, has KEPT elements of a row per lane in
 * registers, in pieces of 16 bytes; what lies before the first 16-byte boundary of a row and behind
 * the last is taken one element per lane. Of short rows it has fewer elements of several at once,
 * in pieces of 16 bytes, of 4 or of one element, so that rows are whole pieces. All loads go out
 * before the first is looked at, and those of a row that several waves share before the row ahead of
 * it is computed. A block takes rows as far apart as the launch has blocks, so that those of one
 * moment are neighbours. Of a row beyond the whole block's registers, as many parts as fit
 * are kept in shared memory as they lie (LONG), and the others read twice. Where blocks form
 * clusters, the CLUSTER blocks of one share a row. */
#include "softmax_pieces.h"

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
#if defined(__HIP__) || CLUSTER > 1
#define FETCHES 0
#else
#include "nvidia/mma.h"
#define FETCHES 1 /* memory is copied to shared memory past the registers */
#endif
extern __shared__ uint4 held[]; /* LONG: [part][piece][thread] */

enum {
    WAVES = THREADS / WAVE,
    SHORT = 8 * WAVE, /* columns up to which a lane takes elements of several rows */
    AT_ONCE = 4       /* these rows */
};

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

/* Whether rows follow each other at one distance; the stride of an axis of one is 0. */
DEVICE int is_list(const struct attention_args *a, const struct view *v)
{
    int64_t head = a->q_tokens * v->stride[2];
    return (a->q_heads == 1 || v->stride[1] == head) &&
           (a->batch == 1 || v->stride[0] == a->q_heads * head);
}

/* Such rows without a sink or a log-sum-exp. */
DEVICE int is_simple(const struct attention_args *a)
{
    return !a->q_start.data && !a->sink.data && !a->lse.data && is_list(a, &a->scores) &&
           is_list(a, &a->weights);
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

/* Where the team's row `number` is, the last one if there are fewer. */
DEVICE struct place kept_place(const struct attention_args *a, const struct form *f, int64_t number,
                               int64_t end, int simple, const struct team *t)
{
    struct place place = place_of(a, number < end ? number : end - 1, simple);
    if (!f->whole) cut_edges(&place, f, lane_of(t));
    return place;
}

/* Rows [first, end) of the launch: one for each team, then those `step` further on. ahead: whether these
 * are loaded before the ones at hand are computed; a constant. */
DEVICE void kept_rows(const struct attention_args *a, const struct form *f, int64_t first,
                      int64_t step, int64_t end, int simple, int ahead, const struct team *t)
{
    int loaded = 0;
    float x[KEPT], next_edge = -INFINITY;
    uint32_t raw[KEPT];
#pragma unroll 1
    for (; first < end; first += step) {
        int64_t number = first + t->number;
        struct place place;
        a = AGAIN(attention_args, a);
        if (READ_AGAIN) end = score_row_count(a);
        if (!loaded) {
            place = kept_place(a, f, number, end, simple, t);
            load_pieces(raw, &place, f, 0, t);
            next_edge = load_edge(&place, f);
        }
        float edge = next_edge, m = max_of_pieces(raw, f, edge);
        unpack_pieces(x, raw, f);
        loaded = ahead && first + step < end;
        if (loaded) {
            place = kept_place(a, f, number + step, end, simple, t);
            load_pieces(raw, &place, f, 0, t);
            next_edge = load_edge(&place, f);
        }
        reduce(&m, 1, 0, t);
        float l = exp_of_kept(x, KEPT, m, 1) + exp_of_kept(&edge, 1, m, 1);
        reduce(&l, 1, 1, t);
        if (number >= end) continue;
        if (ahead) place = kept_place(a, f, number, end, simple, t); /* anew, to keep no register */
        float factor = finish_row(&place, m, l, lane_of(t) == 0);
#pragma unroll
        for (int i = 0; i < KEPT; i++) x[i] *= factor;
        store_pieces(x, &place, f, 0, t);
        store_edge(edge * factor, &place, f);
    }
}

/* The pieces of AT_ONCE rows of each team. */
DEVICE void load_short(uint32_t *raw, const struct attention_args *a, const struct form *f,
                       int64_t first, int64_t end, const struct team *t)
{
    int words = f->kept / f->run * piece_words(f);
#pragma unroll
    for (int r = 0; r < AT_ONCE; r++) {
        int64_t number = first + r * t->count + t->number;
        struct place place = place_of(a, number < end ? number : end - 1, 1);
        load_pieces(raw + r * words, &place, f, 0, t);
    }
}

/* x: the exponentials of AT_ONCE rows, l: their sums. */
DEVICE void store_short(float *x, const float *l, const struct attention_args *a,
                        const struct form *f, int64_t first, int64_t end, const struct team *t)
{
#pragma unroll
    for (int r = 0; r < AT_ONCE; r++) {
        int64_t number = first + r * t->count + t->number;
        if (number >= end) continue;
        struct place place = place_of(a, number, 1);
        float factor = l[r] == 0 ? 0 : 1 / l[r];
#pragma unroll
        for (int i = 0; i < f->kept; i++) x[r * f->kept + i] *= factor;
        store_pieces(x + r * f->kept, &place, f, 0, t);
    }
}

/* Such rows of up to SHORT columns that follow each other and are whole pieces, AT_ONCE for each team.
 * The next are on their way while some are computed, where there are registers for both. */
DEVICE void short_rows(const struct attention_args *a, const struct form *f, int64_t first,
                       int64_t step, int64_t end, const struct team *t)
{
    float x[KEPT], m[AT_ONCE], l[AT_ONCE];
    uint32_t raw[KEPT];
    int words = f->kept / f->run * piece_words(f), ahead = words <= 4;
    if (ahead) load_short(raw, a, f, first, end, t);
#pragma unroll 1
    for (; first < end; first += step) {
        a = AGAIN(attention_args, a);
        if (READ_AGAIN) end = score_row_count(a);
        if (!ahead) load_short(raw, a, f, first, end, t);
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) {
            m[r] = max_of_pieces(raw + r * words, f, -INFINITY);
            unpack_pieces(x + r * f->kept, raw + r * words, f);
        }
        if (ahead && first + step < end) load_short(raw, a, f, first + step, end, t);
        reduce(m, AT_ONCE, 0, t);
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++) l[r] = exp_of_kept(x + r * f->kept, f->kept, m[r], 1);
        reduce(l, AT_ONCE, 1, t);
        store_short(x, l, a, f, first, end, t);
    }
}

/* Whether the part of a row that begins at this column stays in shared memory: there is room, and
 * it is not the last one, which stays in registers. */
DEVICE int is_held(const struct form *f, int start)
{
    int end = start + THREADS * KEPT;
    return SHARED_BYTES && end <= SHARED_BYTES / dtype_bytes(f->dtype) && end < f->columns;
}

/* Puts the thread's pieces of such a part there, or takes them. */
DEVICE void hold(uint32_t *raw, const struct form *f, int start, int take)
{
    uint4 *at = held + start / f->run + THREAD;
#pragma unroll
    for (int k = 0; k < KEPT / f->run; k++) {
        uint32_t *w = raw + 4 * k;
        if (take) {
            uint4 h = at[k * THREADS];
            w[0] = h.x, w[1] = h.y, w[2] = h.z, w[3] = h.w;
        } else {
            uint4 h = {w[0], w[1], w[2], w[3]};
            at[k * THREADS] = h;
        }
    }
}

/* Sends for the thread's pieces of all such parts at once, a group of copies for each. */
DEVICE void fetch_held(const struct place *p, const struct form *f, const struct team *t)
{
#if FETCHES
    uint32_t fill = hidden_bits(f->dtype);
    uint4 none = {fill, fill, fill, fill};
#pragma unroll 1
    for (int start = 0; is_held(f, start); start += THREADS * KEPT) {
        int first = start + t->first;
        const char *from = p->from + (int64_t)first * dtype_bytes(f->dtype);
        uint4 *at = held + start / f->run + THREAD;
#pragma unroll 4
        for (int k = 0; k < KEPT / f->run; k++, at += THREADS) {
            if (first + k * t->step < p->end) copy_async(shared_address(at), from, 16);
            else *at = none;
            from += t->step * dtype_bytes(f->dtype);
        }
        copies_commit();
    }
#else
    (void)p, (void)f, (void)t;
#endif
}

/* Waits for the pieces of this part, but for at most two later ones. */
DEVICE void await_held(const struct form *f, int start)
{
#if FETCHES
    int next = start + THREADS * KEPT;
    if (!is_held(f, next)) copies_wait();
    else if (!is_held(f, next + THREADS * KEPT)) copies_wait_but<1>();
    else copies_wait_but<2>();
#else
    (void)f, (void)start;
#endif
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
    uint32_t raw[KEPT];
    int part = THREADS * KEPT, start = 0;
    fetch_held(&place, f, t);
#pragma unroll 1
    for (;; start += part) {
        if (FETCHES && is_held(f, start)) {
            await_held(f, start);
            hold(raw, f, start, 1);
        } else load_pieces(raw, &place, f, start, t);
        if (!FETCHES && is_held(f, start)) hold(raw, f, start, 0);
        unpack_pieces(x, raw, f);
        if (start + part >= f->columns) break;
        struct partial own = {max_of_pieces(raw, f, -INFINITY), 0};
        own.l = exp_of_kept(x, KEPT, own.m, 1);
        sum = merged(sum, own);
    }
    float m = max_of_pieces(raw, f, sum.m);
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
    a = AGAIN(attention_args, a);
#pragma unroll 1
    for (int at = t->first; at < a->columns; at += t->lanes) {
        float x = load_element(place.from, at * step, in);
        store_element(place.to, at * out_step, out, exp2_fast((x - base) * LOG2_E) * factor);
    }
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

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

/* Blocks, or clusters of them, that share all rows. HIP: the grid rule row_elements. */
DEVICE int64_t block_count(const struct attention_args *a, int64_t all)
{
#ifdef __HIP__
    int64_t each = larger(1, TILE_Q / power_from(a->columns));
    return (all + each - 1) / each;
#else
    (void)a, (void)all;
    return gridDim.x / CLUSTER;
#endif
}

DEVICE void rows_of_elements(const struct attention_args *a, int64_t blocks, int64_t all,
                             float *shared)
{
    int lanes = a->columns > WAVE * KEPT ? THREADS : WAVE;
    struct team t = {lanes, THREAD / lanes, THREADS / lanes, THREAD % lanes, 0, shared};
#pragma unroll 1
    for (int64_t row = (int64_t)(BLOCK_X / CLUSTER) * t.count + t.number; row < all;
         row += blocks * t.count)
        row_of_elements(AGAIN(attention_args, a), row, &t);
}

/* The cluster's row; all its blocks stay until nobody reads their shared memory. */
DEVICE void row_of_cluster(const struct attention_args *a, int64_t dtype, int run, int whole,
                           int64_t number, float *shared)
{
#if CLUSTER > 1
    int each = cluster_columns(a), left = a->columns - cluster_rank() * each;
    struct form f = {dtype, run, KEPT, larger(0, smaller(each, left)), whole};
    struct team t = {THREADS,    0,     1, THREAD / WAVE * WAVE * KEPT + THREAD % WAVE * run,
                     WAVE * run, shared};
    long_row(a, &f, number, is_simple(a), &t);
    cluster_barrier();
#else
    (void)a, (void)dtype, (void)run, (void)whole, (void)number, (void)shared;
#endif
}

DEVICE void rows_of_pieces(const struct attention_args *a, int64_t dtype, int run, int whole,
                           int64_t blocks, int64_t all, float *shared)
{
    a = AGAIN(attention_args, a);
    int simple = is_simple(a);
    if (CLUSTER > 1) {
        row_of_cluster(a, dtype, run, whole, BLOCK_X / CLUSTER, shared);
        return;
    }
    struct form f = {dtype, run, KEPT, LONG ? fresh(a->columns) : a->columns, whole};
    struct team t = team_of(&f, shared);
    if (a->columns <= THREADS * KEPT) {
        int64_t first = (int64_t)BLOCK_X * t.count, step = blocks * t.count;
        /* Two rows of 16 bits fit the registers; those of one wave wait little between two of them. */
        if (KEPT <= 32 && dtype != DTYPE_f32 && t.lanes > WAVE)
            kept_rows(a, &f, first, step, all, simple, 1, &t);
        else kept_rows(a, &f, first, step, all, simple, 0, &t);
        return;
    }
#pragma unroll 1
    for (int64_t row = BLOCK_X; row < all; row += blocks)
        long_row(AGAIN(attention_args, a), &f, row, simple, &t);
}

DEVICE void rows_at_once(const struct attention_args *a, int64_t dtype, int run, int64_t blocks,
                         int64_t all, float *shared)
{
    struct form f = {dtype, run, KEPT / AT_ONCE, a->columns, 1};
    struct team t = team_of(&f, shared);
    int64_t rows = AT_ONCE * t.count;
    short_rows(a, &f, BLOCK_X * rows, blocks * rows, all, &t);
}

/* Whether every row of in and out is whole pieces of `run` elements. */
DEVICE int are_whole(const struct attention_args *a, int run)
{
    return runs_aligned(&a->scores, run) && runs_aligned(&a->weights, run) && a->columns % run == 0;
}

/* Whether in and out are cut by the same 16-byte boundaries in every row. */
DEVICE int same_edges(const struct view *in, const struct view *out)
{
    int bytes = dtype_bytes(in->dtype), run = 16 / bytes;
    int64_t apart = (in->stride[0] - out->stride[0]) | (in->stride[1] - out->stride[1]) |
                    (in->stride[2] - out->stride[2]);
    return !(apart & (run - 1)) && !(((uint64_t)in->data - (uint64_t)out->data) & 15);
}

/* How the block's rows are read and written: by the element, from one 16-byte boundary to the next,
 * or as short rows of pieces of so many elements. */
enum { BY_ELEMENT = -1, BY_EDGES = 0 };

DEVICE int way_of(const struct attention_args *a, int run)
{
    if (a->scores.dtype != a->weights.dtype || !are_whole(a, 1)) return BY_ELEMENT;
    if (LONG || a->columns > SHORT || !is_simple(a))
        return same_edges(&a->scores, &a->weights) ? BY_EDGES : BY_ELEMENT;
    return are_whole(a, run) ? run : run == 8 && are_whole(a, 2) ? 2 : 1;
}

/* The block's rows of all, of one type. */
DEVICE void rows_of_type(const struct attention_args *a, int64_t dtype, int run, int way,
                         int64_t blocks, int64_t all, float *shared)
{
    if (LONG || way == BY_EDGES)
        rows_of_pieces(a, dtype, run, are_whole(a, run), blocks, all, shared);
    else if (way == run) rows_at_once(a, dtype, run, blocks, all, shared);
    else if (run == 8 && way == 2) rows_at_once(a, dtype, 2, blocks, all, shared);
    else rows_at_once(a, dtype, 1, blocks, all, shared);
}

KERNEL_ENTRY void IN_CLUSTERS LAUNCH(THREADS, BLOCKS)
    KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    __shared__ float shared[2 * WAVES + 2]; /* see reduce and reduce_cluster */
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int64_t all = score_row_count(a), blocks = block_count(a, all);
    int way = way_of(a, 16 / dtype_bytes(a->scores.dtype));
    if (way == BY_ELEMENT) {
        if (first_part()) rows_of_elements(a, blocks, all, shared);
    } else if (a->scores.dtype == DTYPE_f32) {
        rows_of_type(a, DTYPE_f32, 4, way, blocks, all, shared);
    } else if (a->scores.dtype == DTYPE_f16) {
        rows_of_type(a, DTYPE_f16, 8, way, blocks, all, shared);
    } else rows_of_type(a, DTYPE_bf16, 8, way, blocks, all, shared);
}
