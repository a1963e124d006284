/* mma_forward.h: the parts of the sm_80 forward, cut by role: tiles in shared memory (load), scores
 * and their mask, softmax, output (store).
 *
 * A block is WARPS warps; warp w owns query rows 16 * RT * w ... of the tile, lane (g, t) the rows
 * g and g + 8 of each of its RT 16-row tiles. Tiles in shared memory are rows of D elements and 16
 * bytes of padding: an odd number of 16-byte pieces, so that the 8 rows of an ldmatrix fall into
 * different banks at every head size.
 *
 *   CAUSAL    1: window_right may hide keys; 0: every key in use is visible
 *   FEATURES  1: windows, softcap, bias, mask, ALiBi, sinks and pages too (implies CAUSAL) */
#ifndef RAPT_MMA_FORWARD_H
#define RAPT_MMA_FORWARD_H

#include "nvidia/mma.h"

#ifndef CAUSAL
#define CAUSAL 0
#endif
#ifndef FEATURES
#define FEATURES 0
#endif

enum {
    WARPS = THREADS / 32,
    RT = TILE_Q / (16 * WARPS), /* 16-row tiles per warp */
    ROWS = 2 * RT,              /* query rows per lane */
    NT = TILE_KV / 8,           /* 8-key tiles */
    CT = D / 8,                 /* 8-channel tiles */
    PIECES = D / 8,             /* 16-byte pieces of a row */
    PITCH = D * 2 + 16,         /* bytes from row to row */
    WORK_BYTES = 96
};
static_assert(D == DV && D % 32 == 0 && TILE_Q % (16 * WARPS) == 0 && TILE_KV % 16 == 0,
              "tile sizes");
#define SPREAD (THREADS % (D / 8) == 0 && !(FEATURES && D > 128)) /* see struct copies */
enum { COPIES = TILE_KV * PIECES / THREADS, EARLY_K = RT > 1 || FEATURES };
static_assert(!SPREAD || (COPIES % 2 == 0 && COPIES <= D / 8 && (EARLY_K || COPIES <= 2 * NT)),
              "room for the copies of a tile");
static_assert(SHARED_BYTES == (TILE_Q + 2 * TILE_KV) * PITCH + WORK_BYTES,
              "Q, K and V, then struct work");

extern __shared__ uint4 shared_memory[];

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
};

static_assert(sizeof(struct work) <= WORK_BYTES, "room behind the tiles");

/* The warp, and within it the lane's place in a fragment; made anew where they are used, to keep no
 * register. */
struct lane {
    int warp, g, t;
};

DEVICE struct lane lane_here(void)
{
    int thread = fresh(THREAD);
    struct lane l = {thread / 32, thread % 32 / 4, thread % 4};
    return l;
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
    w.first_query = tile * TILE_Q;
    int last_query = smaller(w.first_query + TILE_Q, w.seq.q_length) - 1;
    w.end_key = w.seq.kv_length;
    if (CAUSAL || FEATURES)
        w.end_key = smaller(w.end_key, last_query + w.seq.offset + a->window_right + 1);
    if (FEATURES)
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
    to += row * PITCH + piece * 16;
#pragma unroll
    for (int i = 0; i < count; i += THREADS / PIECES) {
        copy_async(to + i * PITCH, from, i < left ? bytes : 0);
        from += THREADS / PIECES * row_bytes;
    }
#else
#pragma unroll 1
    for (int i = fresh(THREAD); i < count * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES,
            bytes = larger(0, smaller(16, 2 * channels - 16 * piece));
        copy_async(to + row * PITCH + piece * 16, base + (first_row + row) * row_bytes + piece * 16,
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
    struct copies c = {to + row * PITCH + piece * 16,
                       base + (first_row + row) * row_bytes + piece * 16,
                       THREADS / PIECES * row_bytes, on};
    return c;
}

DEVICE void copy_some(struct copies *c, int count)
{
#pragma unroll
    for (int i = 0; i < count; i++) {
        copy_async_if(c->to, c->from, c->on);
        c->to += THREADS / PIECES * PITCH;
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
        copy_async(to + row * PITCH + piece * 16, from, bytes);
    }
}

DEVICE void load_keys(const struct attention_args *a, const struct work *w, int key)
{
    if (FEATURES && a->page_table.data) load_pages(k_tile(), a, &a->k, w, key, a->channels);
    else load_rows(k_tile(), TILE_KV, w->k, a->k.stride[2] * 2, key, w->seq.kv_length, a->channels);
    copies_commit();
}

DEVICE void load_values(const struct attention_args *a, const struct work *w, int key)
{
    if (FEATURES && a->page_table.data) load_pages(v_tile(), a, &a->v, w, key, a->v_channels);
    else
        load_rows(v_tile(), TILE_KV, w->v, a->v.stride[2] * 2, key, w->seq.kv_length,
                  a->v_channels);
    copies_commit();
}

/* ---- Scores ---------------------------------------------------------------------------------- */

/* s = Q K^T of this warp's rows and all keys of the tile; copies go out in the first half. */
DEVICE void scores(float (*s)[NT][4], struct copies *copies)
{
    int thread = fresh(THREAD), lane = thread % 32;
    uint32_t q = q_tile() + (thread / 32 * RT * 16 + lane % 16) * PITCH + lane / 16 * 16;
    uint32_t k = k_tile() + (lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 16;
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int n = 0; n < NT; n++) s[i][n][0] = s[i][n][1] = s[i][n][2] = s[i][n][3] = 0;
#pragma unroll
    for (int c = 0; c < D / 16; c++) {
        uint32_t x[RT][4];
#pragma unroll
        for (int i = 0; i < RT; i++) load_matrices(x[i], q + i * 16 * PITCH + c * 32);
        if (SPREAD && c < COPIES / 2) copy_some(copies, 2);
#pragma unroll
        for (int n = 0; n < NT / 2; n++) {
            uint32_t y[4];
            load_matrices(y, k + n * 16 * PITCH + c * 32);
#pragma unroll
            for (int i = 0; i < RT; i++) {
                multiply_add(s[i][2 * n], x[i], y[0], y[1]);
                multiply_add(s[i][2 * n + 1], x[i], y[2], y[3]);
            }
        }
    }
}

/* Query (within the sequence) of the lane's row r, r < ROWS: tile r / 2, half r % 2. */
DEVICE int query_of(const struct work *w, const struct lane *lane, int r)
{
    return w->first_query + (lane->warp * RT + r / 2) * 16 + r % 2 * 8 + lane->g;
}

DEVICE int is_hidden(const struct attention_args *a, const struct work *w, int query, int key)
{
    int position = query + w->seq.offset, hidden = key >= w->seq.kv_length;
    if (CAUSAL || FEATURES) hidden |= key > position + a->window_right;
    if (FEATURES) hidden |= key < position - a->window_left;
    if (FEATURES && a->mask.data && !hidden && query < w->seq.q_length)
        hidden = !LOAD(uint8_t,
                       element_at(&a->mask, w->seq.q_batch, w->head, w->seq.q_start + query, key));
    return hidden;
}

/* Whether some row of this warp may not see some key of the tile that starts at key. */
DEVICE int has_hidden(const struct attention_args *a, const struct work *w, int key)
{
    int first = w->first_query + lane_here().warp * RT * 16 + w->seq.offset,
        hidden = key + TILE_KV > w->seq.kv_length;
    if (CAUSAL || FEATURES) hidden |= key + TILE_KV - 1 > first + a->window_right;
    if (FEATURES) hidden |= key < first + RT * 16 - 1 - a->window_left;
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
        if (CAUSAL || FEATURES) end = smaller(end, position + a->window_right + 1);
        if (FEATURES) first = position - a->window_left;
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[r / 2][n][r % 2 * 2 + i];
                if (8 * n + i >= end || (FEATURES && 8 * n + i < first)) *x = -INFINITY;
            }
        }
    }
}

/* Scale, softcap, bias and ALiBi, in the order that SEMANTICS gives; the scores are then natural
 * ones. */
DEVICE void change_scores(float (*s)[NT][4], const struct attention_args *a, const struct work *w,
                          int key)
{
    if (!changes_scores(a)) return;
    float inverse = a->softcap > 0 ? a->scale / a->softcap : 0;
    struct lane lane = lane_here();
    int64_t step = a->bias.stride[3] * dtype_bytes(a->bias.dtype);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int query = query_of(w, &lane, r), first = key + 2 * lane.t,
            position = query + w->seq.offset - first;
        int end = a->bias.data && query < w->seq.q_length ? w->seq.kv_length - first : 0;
        const char *bias =
            element_at(&a->bias, w->seq.q_batch, w->head, w->seq.q_start + query, first);
#pragma unroll
        for (int n = 0; n < NT; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[r / 2][n][r % 2 * 2 + i];
                int distance = position - 8 * n - i;
                *x = a->softcap > 0 ? a->softcap * tanh_f32(*x * inverse) : *x * a->scale;
                if (8 * n + i < end)
                    *x += load_element(bias + (8 * n + i) * step, 0, a->bias.dtype);
                *x -= w->slope * (float)(distance < 0 ? -distance : distance);
            }
        }
    }
}

/* The mask tensor: 0 hides. */
DEVICE void mask_by_tensor(float (*s)[NT][4], const struct attention_args *a, const struct work *w,
                           int key)
{
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int query = query_of(w, &lane, r), first = key + 2 * lane.t;
        int end = query < w->seq.q_length ? w->seq.kv_length - first : 0;
        const char *mask =
            element_at(&a->mask, w->seq.q_batch, w->head, w->seq.q_start + query, first);
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (8 * n + i < end && !LOAD(uint8_t, mask + (8 * n + i) * a->mask.stride[3]))
                    s[r / 2][n][r % 2 * 2 + i] = -INFINITY;
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

DEVICE void raise_maximum(struct accumulator *acc, const float *m)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float raised = maximum(acc->m[r], max_of_quad(m[r]));
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

/* The multiply-subtract of softmax_step is exact but for one rounding, while m is a rounded
 * product; far from 0 the two part. There the scores are rounded first and the scale becomes 1. */
#define FAR 65536.0f

DEVICE float scale_far_scores(const struct accumulator *acc, float (*s)[NT][4], float scale)
{
    int far = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        far |= (acc->m[r] > FAR || acc->m[r] < -FAR) && acc->m[r] != -INFINITY;
    if (!RARE(__any_sync(~0u, far))) return scale;
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int h = 0; h < 4; h++) s[i][n][h] *= scale;
    return 1;
}

/* Scores become weights p = exp2(scale * s - m), rounded to DTYPE and in the layout of a product's
 * first operand, which is that of the scores in pairs; the sums take the unrounded ones. Copies go
 * out on the way. */
DEVICE void softmax_step(struct accumulator *acc, float (*s)[NT][4], uint32_t (*p)[NT / 2][4],
                         float scale, struct copies *copies)
{
    float m[ROWS];
    int unusual = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        m[r] = s[r / 2][0][r % 2 * 2];
#pragma unroll
        for (int n = 0; n < NT; n++)
            m[r] = maximum(maximum(m[r], s[r / 2][n][r % 2 * 2]), s[r / 2][n][r % 2 * 2 + 1]);
        m[r] *= scale;
        unusual |= m[r] > acc->m[r] + KEEP || m[r] < -FAR || m[r] > FAR;
    }
    if (RARE(__any_sync(~0u, unusual))) {
        raise_maximum(acc, m);
        scale = scale_far_scores(acc, s, scale);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float base = acc->m[r] == -INFINITY ? 0 : acc->m[r];
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float x = exp2_fast(fused(s[r / 2][n][r % 2 * 2], scale, -base)),
                  y = exp2_fast(fused(s[r / 2][n][r % 2 * 2 + 1], scale, -base));
            acc->l[r] += x;
            acc->l[r] += y;
            p[r / 2][n / 2][n % 2 * 2 + r % 2] = pack(x, y);
            if (SPREAD && !EARLY_K && r * NT + n < COPIES) copy_some(copies, 1);
        }
    }
}

/* o += P V */
DEVICE void add_values(struct accumulator *acc, uint32_t (*p)[NT / 2][4])
{
    int lane = fresh(THREAD) % 32;
    uint32_t v = v_tile() + lane % 16 * PITCH + lane / 16 * 16;
#pragma unroll
    for (int n = 0; n < NT / 2; n++) {
#pragma unroll
        for (int c = 0; c < CT / 2; c++) {
            uint32_t y[4];
            load_matrices_transposed(y, v + n * 16 * PITCH + c * 32);
#pragma unroll
            for (int i = 0; i < RT; i++) {
                multiply_add(acc->o[i][2 * c], p[i][n], y[0], y[1]);
                multiply_add(acc->o[i][2 * c + 1], p[i][n], y[2], y[3]);
            }
        }
    }
}

DEVICE void start(const struct attention_args *a, const struct work *w, struct accumulator *acc)
{
    float sink = -INFINITY;
    if (FEATURES && a->sink.data)
        sink = load_element(element_at(&a->sink, w->b, w->head, 0, 0), 0, DTYPE_f32) * LOG2_E;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        acc->m[r] = sink;
        acc->l[r] = sink != -INFINITY && fresh(THREAD) % 4 == 0 ? 1 : 0;
    }
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int c = 0; c < CT; c++)
            acc->o[i][c][0] = acc->o[i][c][1] = acc->o[i][c][2] = acc->o[i][c][3] = 0;
}

/* ---- Values that are not finite
 * ---------------------------------------------------------------------------------------------- */

DEVICE int element_is_finite(uint32_t h)
{
    uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) != exponent;
}

/* 0 * NaN is NaN: a hidden key's value must not meet its weight 0. Before P V of such a tile, every
 * NaN and infinity of V is added to the rows that see its key, and becomes 0 in shared memory.
 * Slow; run only after a tile's result came out not finite. */
DEVICE void take_special_values(const struct attention_args *a, const struct work *w,
                                struct accumulator *acc, int key)
{
    const char *v = (const char *)shared_memory + (TILE_Q + TILE_KV) * PITCH;
    struct lane lane = lane_here();
#pragma unroll 1
    for (int j = 0; j < TILE_KV; j++) {
#pragma unroll
        for (int c = 0; c < CT; c++) {
            asm volatile("" ::: "memory"); /* one at a time: the scores hold the registers */
            uint32_t two = *(const uint32_t *)(v + j * PITCH + c * 16 + lane.t * 4);
            if (element_is_finite(two) && element_is_finite(two >> 16)) continue;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint32_t h = i ? two >> 16 : two & 0xffff;
                if (element_is_finite(h)) continue;
                float x = DTYPE == DTYPE_bf16 ? bf16_to_f32(h) : f16_to_f32((uint16_t)h);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    if (!is_hidden(a, w, query_of(w, &lane, r), key + j))
                        acc->o[r / 2][c][r % 2 * 2 + i] += x;
            }
        }
    }
    block_barrier();
    for (int i = fresh(THREAD); i < TILE_KV * D; i += THREADS) {
        uint16_t *h = (uint16_t *)(v + i / D * PITCH) + i % D;
        if (!element_is_finite(*h)) *h = 0;
    }
    block_barrier();
}

DEVICE int result_is_finite(const struct accumulator *acc)
{
    float nothing[4] = {0, 0, 0, 0}; /* 0 * x is NaN for an x that is not finite */
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int c = 0; c < CT; c++)
#pragma unroll
            for (int h = 0; h < 4; h++) nothing[h] = fused(acc->o[i][c][h], 0, nothing[h]);
    return nothing[0] + nothing[1] + nothing[2] + nothing[3] == 0;
}

/* ---- Store ----------------------------------------------------------------------------------- */

/* One piece of a row whose last channels are not all there. */
DEVICE void store_narrow(char *to, const char *from, int channels)
{
    for (int c = 0; c < channels; c++)
        ((uint16_t *)to)[c] = ((const uint16_t *)from)[c];
}

/* Rows of the warp go out through the memory of its own Q rows, 16 bytes at a time. */
DEVICE void store_packed(const struct attention_args *a, const struct work *w,
                         const struct accumulator *acc, const float *factor)
{
    struct lane lane = lane_here();
    char *rows = (char *)shared_memory + lane.warp * RT * 16 * PITCH;
    wave_barrier();
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < CT; c++)
            *(uint32_t *)(rows + (r / 2 * 16 + r % 2 * 8 + lane.g) * PITCH + c * 16 + lane.t * 4) =
                pack(acc->o[r / 2][c][r % 2 * 2] * factor[r],
                     acc->o[r / 2][c][r % 2 * 2 + 1] * factor[r]);
    wave_barrier();
    int first = w->first_query + lane.warp * RT * 16,
        count = smaller(RT * 16, w->seq.q_length - first);
    char *to = element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + first, 0);
#pragma unroll 4
    for (int i = fresh(THREAD) % 32; i < count * PIECES; i += 32) {
        int row = i / PIECES, piece = i % PIECES;
        const char *from = rows + row * PITCH + piece * 16;
        char *at = to + row * a->out.stride[2] * 2 + piece * 16;
        if (RARE(piece * 8 + 8 > a->v_channels))
            store_narrow(at, from, a->v_channels - piece * 8);
        else *(uint4 *)at = *(const uint4 *)from;
    }
}

DEVICE void store_f32(const struct attention_args *a, const struct work *w,
                      const struct accumulator *acc, const float *factor)
{
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int query = query_of(w, &lane, r);
        if (query >= w->seq.q_length) continue;
        float *to =
            (float *)element_at(&a->out, w->seq.q_batch, w->head, w->seq.q_start + query, 0);
#pragma unroll
        for (int c = 0; c < CT; c++) {
            int channel = 8 * c + 2 * lane.t;
            if (channel < a->v_channels) to[channel] = acc->o[r / 2][c][r % 2 * 2] * factor[r];
            if (channel + 1 < a->v_channels)
                to[channel + 1] = acc->o[r / 2][c][r % 2 * 2 + 1] * factor[r];
        }
    }
}

DEVICE void store_results(const struct attention_args *a, const struct work *w,
                          const struct accumulator *acc)
{
    float factor[ROWS];
    struct lane lane = lane_here();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float l = sum_of_quad(acc->l[r]);
        int query = query_of(w, &lane, r);
        factor[r] = l == 0 ? 0 : 1 / l;
        if (a->lse.data && lane.t == 0 && query < w->seq.q_length)
            store_element(element_at(&a->lse, w->seq.q_batch, w->head, w->seq.q_start + query, 0),
                          0, DTYPE_f32, (acc->m[r] + log2_fast(l)) * LN_2);
    }
    if (a->out.dtype == DTYPE_f32) store_f32(a, w, acc, factor);
    else store_packed(a, w, acc, factor);
}

#endif
