/* mma_forward.h: the parts of the sm_80 forward, cut by role: tiles in shared memory (load), scores
 * and their mask, softmax; mma_change.h has what bias and the like do to scores, mma_store.h the
 * output.
 *
 * A block is WARPS warps in groups of SPLIT; group w owns query rows 16 * RT * w ... of the tile,
 * lane (g, t) the rows g and g + 8 of each of its RT 16-row tiles. The warps of a group share their
 * rows: each takes its part of the tile's keys for the scores and its part of the channels for the
 * output, and they exchange weights. So a head size whose accumulators allow 16 rows per warp reads
 * K and V once per 32 rows. Tiles in shared memory are rows of D elements whose
 * 16-byte pieces trade places within groups of 128 bytes (see swizzle), so that the 8 rows of an
 * ldmatrix fall into different banks. Padding would do that too, but cp.async fetches each sector
 * twice that lands across two.
 *
 *   SPLIT     1, or 2: pairs of warps
 *   CAUSAL    1: window_right may hide keys; 0: every key in use is visible
 *   FEATURES  1: windows, softcap, bias, mask, ALiBi, sinks and pages too (implies CAUSAL)
 *   SPLIT_KEYS  1: blocks share the keys of a tile, whose rows are those of several heads (parts.h);
 *             windows and pages too (implies CAUSAL) */
#ifndef RAPT_MMA_FORWARD_H
#define RAPT_MMA_FORWARD_H

#include "nvidia/mma.h"

#ifndef CAUSAL
#define CAUSAL 0
#endif
#ifndef FEATURES
#define FEATURES 0
#endif
#ifndef SPLIT
#define SPLIT 1
#endif
#ifndef SPLIT_KEYS
#define SPLIT_KEYS 0
#endif
#define WINDOWS (FEATURES || SPLIT_KEYS)
#define PAGES   (FEATURES || SPLIT_KEYS)
#if SPLIT_KEYS
#include "parts.h"
#endif

enum {
    WARPS = THREADS / 32,
    RT = TILE_Q * SPLIT / (16 * WARPS), /* 16-row tiles per warp */
    ROWS = 2 * RT,                      /* query rows per lane */
    NT = TILE_KV / 8 / SPLIT,           /* 8-key tiles of a warp's scores */
    CT = D / 8 / SPLIT,                 /* 8-channel tiles of a warp's output */
    PIECES = D / 8,                     /* 16-byte pieces of a row */
    PITCH = D * 2,                      /* bytes from row to row */
    GROUP = D % 64 ? 64 : 128,          /* bytes within which pieces trade places */
    STRIDE = THREADS / PIECES,          /* rows that the block copies at a time */
    WORK_BYTES = 96,
    EXCHANGE_BYTES = SPLIT > 1 ? THREADS *(RT *NT / 2 * 16 + ROWS * 4) : 0
};
static_assert(D == DV && D % 32 == 0 && TILE_Q * SPLIT % (16 * WARPS) == 0 &&
                  TILE_KV % (16 * SPLIT) == 0 && SPLIT <= 2 && CT * 16 % GROUP == 0,
              "tile sizes");
#define SPREAD (THREADS % (D / 8) == 0 && !(FEATURES && D > 128)) /* see struct copies */
enum { COPIES = TILE_KV * PIECES / THREADS, EARLY_K = (RT > 1 && SPLIT == 1) || FEATURES };
static_assert(THREADS % PIECES || STRIDE % 16 == 0 || 16 % STRIDE == 0, "see copy_some");
static_assert(!SPREAD || (COPIES % 2 == 0 && COPIES <= D / 8 && (EARLY_K || COPIES <= ROWS * NT)),
              "room for the copies of a tile");
static_assert(SHARED_BYTES == (TILE_Q + 2 * TILE_KV) * PITCH + EXCHANGE_BYTES + WORK_BYTES,
              "Q, K and V, what warps exchange, then struct work");

extern __shared__ __align__(128) uint4 shared_memory[];

/* What this block works on; it lies in shared memory, for the accumulators need nearly all
 * registers. */
struct work {
    struct sequence seq;
    int b, head, kv_head;
    int first_query; /* of the tile, within the sequence */
    int first_key,
        end_key;       /* keys that some row of the tile can see; first_key a multiple of TILE_KV */
    const char *k, *v; /* row 0 of the sequence; not used with pages */
    float scale_log2;  /* of the products, for exp2 */
    float slope;       /* ALiBi */
#if SPLIT_KEYS
    int part, tokens; /* tile_tokens */
#endif
};

static_assert(sizeof(struct work) <= WORK_BYTES, "room behind the tiles");

/* The warp's group and part, and the lane's place in a fragment; made anew where they are used, to
 * keep no register. */
struct lane {
    int group, part, g, t;
};

DEVICE struct lane lane_here(void)
{
    int thread = fresh(THREAD), warp = thread / 32;
    struct lane l = {warp / SPLIT, warp % SPLIT, thread % 32 / 4, thread % 4};
    return l;
}

/* First of the warp's keys in a tile that starts at key. */
DEVICE int own_keys(int key)
{
    return SPLIT == 1 ? key : key + lane_here().part * NT * 8;
}

DEVICE uint32_t q_tile(void)
{
    return shared_address(shared_memory);
}

DEVICE uint32_t k_tile(void)
{
    return q_tile() + TILE_Q * PITCH;
}

DEVICE uint32_t v_tile(void)
{
    return k_tile() + TILE_KV * PITCH;
}

/* What a row's pieces trade places by: piece i lies at i * 16 ^ swizzle(row), bytes. Rows whose
 * numbers differ by 16 agree. */
DEVICE uint32_t swizzle(int row)
{
    return GROUP == 128 ? row % 8 * 16 : row / 2 % 4 * 16;
}

/* From the address of one of a row's first 8 + 8 channels (its first byte, plus 0 or 16 ^ its
 * swizzle) to that of the same half of channels 16 * c ... */
DEVICE uint32_t fragment(uint32_t first, int c)
{
    return (first ^ c * 32 % GROUP) + c * 32 / GROUP * GROUP;
}

/* Whether change_scores has work; it leaves natural scores. A negative scale would turn the maximum
 * of the products around. */
DEVICE int changes_scores(const struct attention_args *a)
{
    return a->softcap > 0 || a->bias.data || a->alibi.data || a->scale < 0;
}

DEVICE struct work work_of(const struct attention_args *a, int b, int head, int tile)
{
    struct work w = {};
    w.seq = sequence_of(a, b);
    w.b = b;
    w.head = head;
    w.kv_head = head / a->group;
    int tokens = SPLIT_KEYS ? a->tile_tokens : TILE_Q;
    w.first_query = tile * tokens;
    int last_query = smaller(w.first_query + tokens, w.seq.q_length) - 1;
    w.end_key = w.seq.kv_length;
    if (CAUSAL || WINDOWS)
        w.end_key = smaller(w.end_key, last_query + w.seq.offset + a->window_right + 1);
    if (WINDOWS)
        w.first_key = larger(0, w.first_query + w.seq.offset - a->window_left) / TILE_KV * TILE_KV;
    w.k = element_at(&a->k, w.seq.kv_batch, w.kv_head, w.seq.kv_start, 0);
    w.v = element_at(&a->v, w.seq.kv_batch, w.kv_head, w.seq.kv_start, 0);
    w.scale_log2 = a->scale_log2;
    if (FEATURES && changes_scores(a)) w.scale_log2 = LOG2_E;
    if (FEATURES && a->alibi.data)
        w.slope = load_element(element_at(&a->alibi, b, head, 0, 0), 0, DTYPE_f32);
    return w;
}

/* ---- Load ------------------------------------------------------------------------------------ */

/* Rows first_row ... first_row + count - 1 of a [token][channel] view; rows from limit and channels
 * from `channels` on become zero and are not read. base: row 0. One running address, so that few
 * registers are taken. */
DEVICE void load_rows(uint32_t to, int count, const char *base, int64_t row_bytes, int first_row,
                      int limit, int channels)
{
#if THREADS % (D / 8) == 0
    int row = fresh(THREAD) / PIECES, piece = fresh(THREAD) % PIECES;
    int bytes = larger(0, smaller(16, 2 * channels - 16 * piece)), left = limit - first_row - row;
    const char *from = base + (first_row + row) * row_bytes + piece * 16;
    to += row * PITCH + (piece * 16 ^ swizzle(row));
#pragma unroll
    for (int i = 0; i < count; i += STRIDE) {
        copy_async((to + i * PITCH) ^ swizzle(i), from, i < left ? bytes : 0);
        from += STRIDE * row_bytes;
    }
#else
#pragma unroll 1
    for (int i = fresh(THREAD); i < count * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES,
            bytes = larger(0, smaller(16, 2 * channels - 16 * piece));
        copy_async(to + row * PITCH + (piece * 16 ^ swizzle(row)),
                   base + (first_row + row) * row_bytes + piece * 16,
                   first_row + row < limit ? bytes : 0);
    }
#endif
}

/* Whole tiles of K and V are copied a few pieces at a time, between products and exponentials: a
 * burst would hold up the reads of the other warps. on: 0 for a tile that load_rows has to take. */
struct copies {
    uint32_t to;
    const char *from;
    int64_t step;
    int on;
};

DEVICE struct copies copies_of(uint32_t to, const char *base, int64_t row_bytes, int first_row,
                               int on)
{
    int row = fresh(THREAD) / PIECES, piece = fresh(THREAD) % PIECES;
    struct copies c = {to + row * PITCH + (piece * 16 ^ swizzle(row)),
                       base + (first_row + row) * row_bytes + piece * 16, STRIDE * row_bytes, on};
    return c;
}

DEVICE void copy_some(struct copies *c, int count)
{
#pragma unroll
    for (int i = 0; i < count; i++) {
        copy_async_if(c->to, c->from, c->on);
        c->to = (c->to + STRIDE * PITCH) ^ swizzle(STRIDE);
        c->from += c->step;
    }
}

DEVICE void load_pages(uint32_t to, const struct attention_args *a, const struct view *v,
                       const struct work *w, int first_row, int channels)
{
#pragma unroll 1
    for (int i = THREAD; i < TILE_KV * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES, token = first_row + row,
            bytes = larger(0, smaller(16, 2 * channels - 16 * piece));
        const char *from = (const char *)v->data;
        if (token < w->seq.kv_length) {
            int page = a->page_shift >= 0 ? token >> a->page_shift : token / a->page_tokens;
            from = element_at(v, load_index(&a->page_table, w->b, page), w->kv_head,
                              token - page * a->page_tokens, piece * 8);
        } else {
            bytes = 0;
        }
        copy_async(to + row * PITCH + (piece * 16 ^ swizzle(row)), from, bytes);
    }
}

DEVICE void load_keys(const struct attention_args *a, const struct work *w, int key)
{
    if (PAGES && a->page_table.data) load_pages(k_tile(), a, &a->k, w, key, a->channels);
    else load_rows(k_tile(), TILE_KV, w->k, a->k.stride[2] * 2, key, w->seq.kv_length, a->channels);
    copies_commit();
}

DEVICE void load_values(const struct attention_args *a, const struct work *w, int key)
{
    if (PAGES && a->page_table.data) load_pages(v_tile(), a, &a->v, w, key, a->v_channels);
    else
        load_rows(v_tile(), TILE_KV, w->v, a->v.stride[2] * 2, key, w->seq.kv_length,
                  a->v_channels);
    copies_commit();
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* s = Q K^T of this warp's rows and its keys of the tile; copies go out in the first half. */
DEVICE void scores(float (*s)[NT][4], struct copies *copies)
{
    int thread = fresh(THREAD), lane = thread % 32, warp = thread / 32;
    int key = lane % 8 + lane / 16 * 8;
    uint32_t q = q_tile() + (warp / SPLIT * RT * 16 + lane % 16) * PITCH +
                 (lane / 16 * 16 ^ swizzle(lane % 16)),
             k = k_tile() + (warp % SPLIT * NT * 8 + key) * PITCH +
                 (lane / 8 % 2 * 16 ^ swizzle(key));
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int n = 0; n < NT; n++) s[i][n][0] = s[i][n][1] = s[i][n][2] = s[i][n][3] = 0;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t x[RT][4], q_at = fragment(q, c), k_at = fragment(k, c);
#pragma unroll
        for (int i = 0; i < RT; i++) load_matrices(x[i], q_at + i * 16 * PITCH);
        if (SPREAD && c < COPIES / 2) copy_some(copies, 2);
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            uint32_t y[4];
            load_matrices(y, k_at + n * 16 * PITCH);
#pragma unroll
            for (int i = 0; i < RT; i++) {
                multiply_add(s[i][2 * n], x[i], y[0], y[1]);
                multiply_add(s[i][2 * n + 1], x[i], y[2], y[3]);
            }
        }
    }
}

/* The lane's row r, within the tile. */
DEVICE int row_of(const struct lane *lane, int r)
{
    return (lane->group * RT + r / 2) * 16 + r % 2 * 8 + lane->g;
}

/* Query (within the sequence) of the lane's row r, r < ROWS: tile r / 2, half r % 2. */
DEVICE int query_of(const struct work *w, const struct lane *lane, int r)
{
#if SPLIT_KEYS
    return w->first_query + (row_of(lane, r) & (w->tokens - 1));
#endif
    return w->first_query + (lane->group * RT + r / 2) * 16 + r % 2 * 8 + lane->g;
}

DEVICE int is_hidden(const struct attention_args *a, const struct work *w, int query, int key)
{
    int position = query + w->seq.offset, hidden = key >= w->seq.kv_length;
    if (CAUSAL || WINDOWS) hidden |= key > position + a->window_right;
    if (WINDOWS) hidden |= key < position - a->window_left;
    if (FEATURES && a->mask.data && !hidden && query < w->seq.q_length)
        hidden = !LOAD(uint8_t,
                       element_at(&a->mask, w->seq.q_batch, w->head, w->seq.q_start + query, key));
    return hidden;
}

/* Whether some row of this warp may not see some of its keys, which start at key. */
DEVICE int has_hidden(const struct attention_args *a, const struct work *w, int key)
{
    int first = w->first_query + lane_here().group * RT * 16 + w->seq.offset, queries = RT * 16,
        hidden = key + NT * 8 > w->seq.kv_length;
#if SPLIT_KEYS
    first = w->first_query + (lane_here().group * RT * 16 & (w->tokens - 1)) + w->seq.offset;
    queries = smaller(queries, w->tokens);
#endif
    if (CAUSAL || WINDOWS) hidden |= key + NT * 8 - 1 > first + a->window_right;
    if (WINDOWS) hidden |= key < first + queries - 1 - a->window_left;
    return hidden;
}

DEVICE void mask_scores(float (*s)[NT][4], const struct attention_args *a, const struct work *w,
                        int key)
{
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int position = query_of(w, &lane, r) + w->seq.offset - key - 2 * lane.t,
            end = w->seq.kv_length - key - 2 * lane.t, first = -1;
        if (CAUSAL || WINDOWS) end = smaller(end, position + a->window_right + 1);
        if (WINDOWS) first = position - a->window_left;
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[r / 2][n][r % 2 * 2 + i];
                if (8 * n + i >= end || (WINDOWS && 8 * n + i < first)) *x = -INFINITY;
            }
        }
    }
}

/* ---- Softmax --------------------------------------------------------------------------------- */

struct accumulator {
    float o[RT][CT][4];
    float m[ROWS]; /* what exponents are taken against, times log2 e: at most KEEP below the maximum
                      so far */
    float l[ROWS]; /* this lane's part of the sum */
};

/* A maximum is kept while no score exceeds it by more: P grows to 2^8 at most, and O is rescaled
 * rarely. */
#define KEEP 8.0f

/* What the warps of a group hand each other: weights in the layout of fragments, which is the same
 * for all of them, then a number per row. */
DEVICE uint4 *exchanged_weights(int part)
{
    int thread = fresh(THREAD);
    uint4 *all = (uint4 *)((char *)shared_memory + (TILE_Q + 2 * TILE_KV) * PITCH);
    return all + (thread / 32 / SPLIT * SPLIT + part) * 32 * (RT * NT / 2) + thread % 32;
}

DEVICE float *exchanged_rows(int part)
{
    int thread = fresh(THREAD);
    float *all = (float *)((char *)shared_memory + (TILE_Q + 2 * TILE_KV) * PITCH + EXCHANGE_BYTES -
                           THREADS * ROWS * 4);
    return all + (thread / 32 / SPLIT * SPLIT + part) * 32 * ROWS + thread % 32;
}

DEVICE void group_barrier(void)
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + fresh(THREAD) / 32 / SPLIT), "n"(32 * SPLIT)
                 : "memory");
}

/* x of this lane's rows becomes that of the other part's lane. */
DEVICE void swap_rows(float *x)
{
    int part = lane_here().part;
    float *own = exchanged_rows(part), *other = exchanged_rows(1 - part);
#pragma unroll
    for (int r = 0; r < ROWS; r++) own[r * 32] = x[r];
    group_barrier();
#pragma unroll
    for (int r = 0; r < ROWS; r++) x[r] = other[r * 32];
}

/* The multiply-subtract of softmax_step is exact but for one rounding, while m is a rounded
 * product; far from 0 the two part. There the scores are rounded first. */
#define FAR 65536.0f

/* Whether a row's maximum rises to x, the largest of its scores. The row's own question: its bits do
 * not depend on its neighbours, whatever made the warp ask. */
DEVICE int raises(float m, float x)
{
    return x > m + KEEP || x < -FAR || x > FAR;
}

DEVICE void raise_maximum(struct accumulator *acc, const float *m)
{
    float top[ROWS], other[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) other[r] = top[r] = max_of_quad(m[r]);
    if (SPLIT > 1) swap_rows(other);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float x = maximum(top[r], other[r]),
              raised = raises(acc->m[r], x) ? maximum(acc->m[r], x) : acc->m[r];
        float factor = exp2_fast(acc->m[r] - (raised == -INFINITY ? 0 : raised));
        acc->m[r] = raised;
        acc->l[r] *= factor;
#pragma unroll
        for (int c = 0; c < CT; c++) {
            acc->o[r / 2][c][r % 2 * 2] *= factor;
            acc->o[r / 2][c][r % 2 * 2 + 1] *= factor;
        }
    }
}

/* What is subtracted from a row's scores: -inf - -inf must not reach exp2. */
DEVICE float base_of(const struct accumulator *acc, int r)
{
    return acc->m[r] == -INFINITY ? 0 : acc->m[r];
}

/* Where a row of the warp is far from 0, the scores become exponents here, each row's in its own
 * way, and 1 is returned: softmax_step has nothing to scale or to subtract. */
DEVICE int take_far_scores(const struct accumulator *acc, float (*s)[NT][4], float scale)
{
    int far = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) far |= base_of(acc, r) > FAR || base_of(acc, r) < -FAR;
    if (!RARE(__any_sync(~0u, far))) return 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float base = base_of(acc, r);
        int own = base > FAR || base < -FAR;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[r / 2][n][r % 2 * 2 + i];
                /* A branch, not a choice of two results, which takes a second register for each
                 * score. */
                if (own) *x = __fadd_rn(__fmul_rn(*x, scale), -base);
                else *x = fused(*x, scale, -base);
            }
    }
    return 1;
}

/* m: this lane's maxima of the scaled scores; returns whether they ask for raise_maximum. */
DEVICE int find_maxima(const struct accumulator *acc, float (*s)[NT][4], float scale, float *m)
{
    int unusual = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        m[r] = s[r / 2][0][r % 2 * 2];
#pragma unroll
        for (int n = 0; n < NT; n++)
            m[r] = maximum(maximum(m[r], s[r / 2][n][r % 2 * 2]), s[r / 2][n][r % 2 * 2 + 1]);
        m[r] *= scale;
        unusual |= raises(acc->m[r], m[r]);
    }
    return unusual;
}

/* Scores become weights p = exp2(scale * s - m), rounded to DTYPE and in the layout of a product's
 * first operand, which is that of the scores in pairs; the sums take the unrounded ones. Copies go
 * out on the way. m, unusual: of find_maxima, the latter the same in all warps of a group. */
DEVICE void softmax_step(struct accumulator *acc, float (*s)[NT][4], uint32_t (*p)[NT / 2][4],
                         float scale, const float *m, int unusual, struct copies *copies)
{
    int taken = 0;
    if (RARE(unusual)) {
        raise_maximum(acc, m);
        taken = take_far_scores(acc, s, scale);
        if (taken) scale = 1;
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float base = taken ? 0 : base_of(acc, r);
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float x = exp2_fast(fused(s[r / 2][n][r % 2 * 2], scale, -base)),
                  y = exp2_fast(fused(s[r / 2][n][r % 2 * 2 + 1], scale, -base));
            acc->l[r] += x + y;
            p[r / 2][n / 2][n % 2 * 2 + r % 2] = pack(x, y);
            if (SPREAD && !EARLY_K && r * NT + n < COPIES) copy_some(copies, 1);
        }
    }
}

/* o += p V for 16 keys in the warp's channels; v: for fragment. */
DEVICE void add_sixteen(struct accumulator *acc, uint32_t (*p)[NT / 2][4], int n, uint32_t v)
{
#pragma unroll
    for (int c = 0; c < CT / 2; c++) {
        uint32_t y[4];
        load_matrices_transposed(y, fragment(v, c));
#pragma unroll
        for (int i = 0; i < RT; i++) {
            multiply_add(acc->o[i][2 * c], p[i][n], y[0], y[1]);
            multiply_add(acc->o[i][2 * c + 1], p[i][n], y[2], y[3]);
        }
    }
}

/* o += P V. The keys of the other part come last, when their weights are there. */
DEVICE void add_values(struct accumulator *acc, uint32_t (*p)[NT / 2][4])
{
    int lane = fresh(THREAD) % 32, part = SPLIT == 1 ? 0 : lane_here().part;
    uint32_t v = v_tile() + lane % 16 * PITCH + part * CT * 16 +
                 (lane / 16 * 16 ^ swizzle(lane % 16)),
             own = v + part * NT * 8 * PITCH, other = v + (1 - part) * NT * 8 * PITCH;
    if (SPLIT > 1)
#pragma unroll
        for (int i = 0; i < RT * NT / 2; i++) {
            const uint32_t *x = p[i / (NT / 2)][i % (NT / 2)];
            exchanged_weights(part)[i * 32] = make_uint4(x[0], x[1], x[2], x[3]);
        }
#pragma unroll
    for (int n = 0; n < NT / 2; n++) add_sixteen(acc, p, n, own + n * 16 * PITCH);
    if (SPLIT == 1) return;
    group_barrier();
#pragma unroll
    for (int i = 0; i < RT * NT / 2; i++) {
        uint4 x = exchanged_weights(1 - part)[i * 32];
        uint32_t *y = p[i / (NT / 2)][i % (NT / 2)];
        y[0] = x.x, y[1] = x.y, y[2] = x.z, y[3] = x.w;
    }
#pragma unroll
    for (int n = 0; n < NT / 2; n++) add_sixteen(acc, p, n, other + n * 16 * PITCH);
}

DEVICE void start(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    float sink = -INFINITY;
    struct lane lane = lane_here();
    if (FEATURES && a->sink.data)
        sink = load_element(element_at(&a->sink, w->b, w->head, 0, 0), 0, DTYPE_f32) * LOG2_E;
    float one = 1 + 0 * sink; /* the weight of the sink: NaN of an infinite one, S13 */
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        acc->m[r] = sink;
        acc->l[r] = sink != -INFINITY && lane.part == 0 && lane.t == 0 ? one : 0;
    }
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int c = 0; c < CT; c++)
            acc->o[i][c][0] = acc->o[i][c][1] = acc->o[i][c][2] = acc->o[i][c][3] = 0;
}

#endif
