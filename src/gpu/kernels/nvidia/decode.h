/* decode.h: what a block of decode_mma.cu works on, and how its warps get K, V and Q.
 *
 * Shared memory: each warp's ring of STAGES of KEYS keys, K then V (KV_I8: then their scales), rows of
 * D elements whose 16-byte pieces trade places within 128 bytes (piece_at), so that the 8 rows of an
 * ldmatrix fall into different banks. A warp's queries come through its last stage. At the end the
 * ring holds the warp's sums: o, rows of D + 8 floats, then maximum and sum of each row. */
#ifndef RAPT_DECODE_H
#define RAPT_DECODE_H

#include "nvidia/mma.h"

#include "nvidia/decode_rows.h"

#ifndef WARP_KEYS
#define WARP_KEYS 16
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
/* K and V are i8, with a scale for so many neighbouring channels of a token and head: all, or 32. */
#ifndef KV_I8
#define KV_I8 0
#endif
#ifndef SCALE_CHANNELS
#define SCALE_CHANNELS D
#endif

enum {
    WARPS = THREADS / 32,
    KEYS = WARP_KEYS, /* that a warp handles at a time: 16 or 32 */
    STEPS = KEYS / 16,
    NT = KEYS / 8,            /* 8-key tiles of scores */
    RT = BLOCK_ROWS / 16,     /* 16-row tiles */
    ROWS = 2 * RT,            /* query rows per lane: g, g + 8 of each tile */
    CT = D / 8,               /* 8-channel tiles */
    KV_BYTES = KV_I8 ? 1 : 2, /* of an element */
    PITCH = KV_BYTES * D,     /* bytes of a row of K or V, and from row to row */
    Q_PITCH = 2 * D,          /* the same of Q */
    TILE_BYTES = KEYS * PITCH,
    SCALES = D / SCALE_CHANNELS, /* of a row of K, and of V */
    SCALE_BYTES = KV_I8 ? KEYS * SCALES * 4 : 0, /* of a tile of K, and of V */
    STAGE_BYTES = 2 * (TILE_BYTES + SCALE_BYTES),
    RING_BYTES = STAGES * STAGE_BYTES,
    SUMS_PITCH = D + 8 /* floats; eight more, so that four rows fall into different banks */
};
static_assert(D == DV && D % 64 == 0 && D <= 256 && TILE_KV == WARPS * KEYS, "tile sizes");
static_assert(!KV_I8 || KEYS == 32, "a lane, a key's scales");
static_assert(SCALE_CHANNELS % 32 == 0 && D % SCALE_CHANNELS == 0, "32 channels are turned at once");
static_assert(RT <= 2 && BLOCK_ROWS * (SUMS_PITCH * 4 + 8) <= RING_BYTES,
              "room for sums and queries");
/* Registers hold the queries, or the output of so many rows and channels, or of fewer with many scales,
 * alone. */
enum {
    Q_SHARED = BLOCK_ROWS * D > 2048 || SCALES > 2,
    Q_BYTES = Q_SHARED ? BLOCK_ROWS * Q_PITCH : 0
};
static_assert(SHARED_BYTES == WARPS * RING_BYTES + Q_BYTES, "a ring per warp, and the queries");

extern __shared__ __align__(128) uint4 shared_memory[];

/* A warp copies rows of so many bytes in 16-byte pieces, one a lane, some rows at a time. */
template <int BYTES> struct rows {
    enum { PIECES = BYTES / 16, AT_ONCE = 32 / PIECES, COPIES = 16 / AT_ONCE /* for 16 rows */ };
};
typedef struct rows<PITCH> kv_rows;
typedef struct rows<Q_PITCH> q_rows;

/* Keys [first, end). */
struct span {
    int first, end;
};

DEVICE int sees(struct span s, int key)
{
    return key >= s.first && key < s.end;
}

/* What a block works on: a part of the keys of sequence b and one KV head, for some of its rows: row
 * r of all is query r / group of query head r % group. */
struct part {
    int b, kv_head;
    uint32_t inverse;  /* of group, times 2^31: rows times heads are below 2^31 */
    const char *k, *v; /* the lane's first piece of token 0 (ragged: of all; pages: of page 0) */
    const char *k_scale, *v_scale; /* likewise, of the token whose number is the lane's */
    struct sequence seq;
    int first, end;         /* keys of this part that some row sees; first is a multiple of KEYS */
    int all_first, all_end; /* keys that all rows see */
};

DEVICE int query_of_row(const struct part *p, int row)
{
    return (int)__umulhi(2 * (uint32_t)row, p->inverse); /* row / group */
}

DEVICE struct span span_of_query(const struct attention_args *a, const struct sequence *s,
                                 int query)
{
    int position = query + s->offset;
    struct span x = {larger(0, position - a->window_left),
                     smaller(s->kv_length, position + a->window_right + 1)};
    return x;
}

/* Where a row lies whose elements have so many bytes. */
DEVICE const char *row_at(const struct view *v, int64_t batch, int64_t head, int64_t token,
                          int bytes)
{
    return (const char *)v->data +
           (batch * v->stride[0] + head * v->stride[1] + token * v->stride[2]) * bytes;
}

/* As far as no memory is asked. */
DEVICE struct part part_of(const struct attention_args *a, int b, int kv_head)
{
    int lane = THREAD % 32, piece = lane % kv_rows::PIECES * 16, row = lane / kv_rows::PIECES,
        batch = a->page_table.data || a->kv_start.data ? 0 : b;
    struct part p = {b, kv_head, (1u << 31) / (uint32_t)a->group + 1};
    p.k = settled(row_at(&a->k, batch, kv_head, row, KV_BYTES) + piece);
    p.v = settled(row_at(&a->v, batch, kv_head, row, KV_BYTES) + piece);
    if (KV_I8) {
        row = a->page_table.data ? 0 : lane;
        p.k_scale = settled(row_at(&a->k_scale, batch, kv_head, row, 4));
        p.v_scale = settled(row_at(&a->v_scale, batch, kv_head, row, 4));
    }
    return p;
}

/* Whether memory says which keys there are. */
DEVICE int asks_memory(const struct attention_args *a)
{
    return a->kv_length.data || a->kv_start.data || a->q_start.data;
}

/* Of all queries of the sequence, of which there are few; KV_I8: of the block's. */
DEVICE void find_keys(const struct attention_args *a, struct part *p, const struct own_rows *rows)
{
    p->seq = sequence_of(a, p->b);
    int first_query = KV_I8 ? query_of_row(p, rows->first) : 0,
        last_query =
            KV_I8 ? query_of_row(p, rows->first + rows->count - 1) : p->seq.q_length - 1;
    struct span first = span_of_query(a, &p->seq, first_query),
                last = span_of_query(a, &p->seq, last_query);
    struct key_range own = keys_of_part(a, first.first, last.end, TILE_KV, rows->number);
    p->first = own.first / KEYS * KEYS; /* cuts lie at multiples of TILE_KV */
    p->end = own.end;
    p->all_first = last.first;
    p->all_end = first.end;
}

/* Row of the tile that lane row r is, and its query. */
DEVICE int row_of_lane(int r)
{
    return r / 2 * 16 + r % 2 * 8 + THREAD % 32 / 4;
}

/* Rows past the last see what the first does. */
DEVICE struct span span_of_row(const struct attention_args *a, const struct part *p,
                               const struct own_rows *rows, int r)
{
    int query = query_of_row(p, rows->first + row_of_lane(r));
    return span_of_query(a, &p->seq, query < rows->q_length ? query : 0);
}

/* Where piece `piece` of a row of so many bytes lies within it; two rows of 64 bytes share 128. */
template <int BYTES> DEVICE uint32_t piece_at(int piece, int row)
{
    return (uint32_t)((piece ^ (BYTES < 128 ? row / 2 % 4 : row % 8)) * 16);
}

DEVICE uint32_t load_word(uint32_t address)
{
    uint32_t x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(address) : "memory");
    return x;
}

DEVICE void load_two_words(uint32_t *x, uint32_t *y, uint32_t address)
{
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(*x), "=r"(*y) : "r"(address) : "memory");
}

DEVICE void store_word(uint32_t address, uint32_t x)
{
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(x) : "memory");
}

/* ---- Load ------------------------------------------------------------------------------------ */

/* What the warp requests next. A lane copies piece LANE % PIECES of rows LANE / PIECES, + AT_ONCE ...
 * of a tile (kv_rows). */
struct cursor {
    uint32_t ring, stage; /* addresses: the warp's ring, the next stage */
    int key;              /* first of the next tile */
    int page,
        next_page; /* of key + lane % KEYS and of the tile after it, looked up two tiles ahead */
    const char *k, *v;             /* the lane's first piece of the next tile; pages: of page 0 */
    const char *k_scale, *v_scale; /* of the lane's key of the next tile; pages: of page 0, row 0 */
};

DEVICE int page_index(const struct attention_args *a, int key)
{
    return a->page_shift >= 0 ? key >> a->page_shift : key / a->page_tokens;
}

DEVICE int page_of(const struct attention_args *a, const struct part *p, int key)
{
    return key < p->end ? (int)load_index(&a->page_table, p->b, page_index(a, key)) : 0;
}

/* Of the warp. */
DEVICE int first_key(const struct part *p)
{
    return p->first + THREAD / 32 * KEYS;
}

DEVICE struct cursor cursor_of(const struct attention_args *a, const struct part *p)
{
    int key = first_key(p), token = a->page_table.data ? 0 : p->seq.kv_start + key;
    struct cursor c;
    c.ring = c.stage = shared_address(shared_memory) + THREAD / 32 * RING_BYTES;
    c.key = key;
    c.page = c.next_page = 0;
    c.k = settled(p->k + token * a->k.stride[2] * KV_BYTES);
    c.v = settled(p->v + token * a->v.stride[2] * KV_BYTES);
    if (KV_I8) {
        c.k_scale = settled(p->k_scale + token * a->k_scale.stride[2] * 4);
        c.v_scale = settled(p->v_scale + token * a->v_scale.stride[2] * 4);
    }
    return c;
}

DEVICE void look_up_pages(const struct attention_args *a, const struct part *p, struct cursor *c)
{
    if (!a->page_table.data) return;
    c->page = page_of(a, p, c->key + THREAD % KEYS);
    c->next_page = page_of(a, p, c->key + TILE_KV + THREAD % KEYS);
}

/* Where the lane's first piece goes in a tile of rows of so many bytes; its i-th is `row_step(first,
 * i)`. */
template <int BYTES> DEVICE uint32_t lane_place(uint32_t tile)
{
    int lane = THREAD % 32, row = lane / rows<BYTES>::PIECES;
    return tile + row * BYTES + piece_at<BYTES>(lane % rows<BYTES>::PIECES, row);
}

template <int BYTES> DEVICE uint32_t row_step(uint32_t first, int i)
{
    enum { AT_ONCE = rows<BYTES>::AT_ONCE };
    return (first ^ piece_at<BYTES>(0, i * AT_ONCE)) + i * AT_ONCE * BYTES;
}

/* So many rows of a tile, a constant; those from `left` on become zero and are not read. */
DEVICE void copy_rows(uint32_t to, const char *from, int64_t row_bytes, int count, int left)
{
    enum { AT_ONCE = kv_rows::AT_ONCE };
    left -= THREAD % 32 / kv_rows::PIECES;
    UNROLL for (int i = 0; i < count / AT_ONCE; i++)
    {
        copy_async(row_step<PITCH>(to, i), from, i * AT_ONCE < left ? 16 : 0);
        from += AT_ONCE * row_bytes;
    }
}

/* The same where every row may lie in another page. */
DEVICE void copy_scattered(uint32_t to, const struct view *v, const char *base, int page,
                           int within, int left)
{
    int own = THREAD % 32 / kv_rows::PIECES;
#pragma unroll 1
    for (int i = 0; i < STEPS * kv_rows::COPIES; i++) {
        int row = i * kv_rows::AT_ONCE + own;
        int64_t at = __shfl_sync(~0u, page, row) * v->stride[0] +
                     (__shfl_sync(~0u, within, row) - own) * v->stride[2];
        copy_async(row_step<PITCH>(to, i), base + at * KV_BYTES, row < left ? 16 : 0);
    }
}

/* So many bytes (4, 8 or 16), or zero. */
template <int BYTES> DEVICE void copy_async_scales(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(bytes),
                 "n"(BYTES)
                 : "memory");
}

/* The lane's key's scales, of page 0 (no pages: 0) and its row in it, behind a stage's tiles. */
DEVICE void request_scales(const struct attention_args *a, const struct cursor *c, int64_t page,
                           int64_t row, int left)
{
    enum { BYTES = SCALES * 4 };
    uint32_t to = c->stage + 2 * TILE_BYTES + THREAD % 32 * BYTES;
    int bytes = THREAD % 32 < left ? BYTES : 0;
    const struct view *k = &a->k_scale, *v = &a->v_scale;
    copy_async_scales<BYTES>(to, c->k_scale + (page * k->stride[0] + row * k->stride[2]) * 4,
                             bytes);
    copy_async_scales<BYTES>(to + SCALE_BYTES,
                             c->v_scale + (page * v->stride[0] + row * v->stride[2]) * 4, bytes);
}

/* Requests the next tile in pages. */
DEVICE void request_pages(const struct attention_args *a, const struct part *p, struct cursor *c,
                          uint32_t to, int left)
{
    int key = c->key + THREAD % KEYS, page = c->page,
        within = key - page_index(a, key) * a->page_tokens;
    c->page = c->next_page;
    c->next_page = page_of(a, p, key + 2 * TILE_KV);
    if (KV_I8) request_scales(a, c, page, within, left);
    if (RARE(a->page_tokens % 16)) {
        copy_scattered(to, &a->k, c->k, page, within, left);
        copy_scattered(to + TILE_BYTES, &a->v, c->v, page, within, left);
        return;
    }
    UNROLL for (int n = 0; n < STEPS; n++) /* one page has all 16 */
    {
        int row = __shfl_sync(~0u, within, 16 * n), own = __shfl_sync(~0u, page, 16 * n);
        const char *k = c->k + (own * a->k.stride[0] + row * a->k.stride[2]) * KV_BYTES,
                   *v = c->v + (own * a->v.stride[0] + row * a->v.stride[2]) * KV_BYTES;
        uint32_t at = to + n * 16 * PITCH;
        copy_rows(at, k, a->k.stride[2] * KV_BYTES, 16, left - 16 * n);
        copy_rows(at + TILE_BYTES, v, a->v.stride[2] * KV_BYTES, 16, left - 16 * n);
    }
}

/* Requests the next tile of K and V, if there is one. */
DEVICE void request(const struct attention_args *a, const struct part *p, struct cursor *c)
{
    int left = p->end - c->key;
    uint32_t to = lane_place<PITCH>(c->stage);
    if (left > 0 && a->page_table.data) {
        request_pages(a, p, c, to, left);
    } else if (left > 0) {
        if (KV_I8) {
            request_scales(a, c, 0, 0, left);
            c->k_scale += TILE_KV * a->k_scale.stride[2] * 4;
            c->v_scale += TILE_KV * a->v_scale.stride[2] * 4;
        }
        copy_rows(to, c->k, a->k.stride[2] * KV_BYTES, KEYS, left);
        copy_rows(to + TILE_BYTES, c->v, a->v.stride[2] * KV_BYTES, KEYS, left);
        c->k += TILE_KV * a->k.stride[2] * KV_BYTES;
        c->v += TILE_KV * a->v.stride[2] * KV_BYTES;
    }
    c->key += TILE_KV;
    c->stage = c->stage + STAGE_BYTES == c->ring + RING_BYTES ? c->ring : c->stage + STAGE_BYTES;
}

/* ---- Queries --------------------------------------------------------------------------------- */

struct queries {
    uint32_t x[RT][Q_SHARED ? 1 : D / 16][4];
};

/* Where the query rows come to lie: behind the rings, or in the warp's last stage, which no tile takes
 * before they are in registers. */
DEVICE uint32_t query_tile(uint32_t ring)
{
    return Q_SHARED ? shared_address(shared_memory) + WARPS * RING_BYTES
                    : ring + RING_BYTES - STAGE_BYTES;
}

/* Where the lane's pieces of the query rows lie; NULL: there is no such row. With Q_SHARED each warp
 * copies its part of the rows. */
struct query_pieces {
    const char *from[RT * q_rows::COPIES / (Q_SHARED ? WARPS : 1)];
};
enum { QUERY_COPIES = sizeof(struct query_pieces) / sizeof(const char *) };

DEVICE int first_query_copy(void)
{
    return Q_SHARED ? THREAD / 32 * QUERY_COPIES : 0;
}

DEVICE struct query_pieces query_pieces_of(const struct attention_args *a, const struct part *p,
                                           const struct own_rows *rows)
{
    int lane = THREAD % 32;
    struct query_pieces q;
    const char *from = row_at(&a->q, rows->q_batch, p->kv_head * a->group, rows->q_start, 2) +
                       lane % q_rows::PIECES * 16;
    UNROLL for (int i = 0; i < QUERY_COPIES; i++)
    {
        int own = (first_query_copy() + i) * q_rows::AT_ONCE + lane / q_rows::PIECES,
            row = rows->first + own, query = query_of_row(p, row);
        int64_t at = (row - query * a->group) * a->q.stride[1] + query * a->q.stride[2];
        q.from[i] = own < rows->count ? from + at * 2 : NULL;
        if (!Q_SHARED) q.from[i] = settled(q.from[i]);
    }
    return q;
}

DEVICE void request_queries(const struct attention_args *a, const struct query_pieces *q,
                            uint32_t ring)
{
    uint32_t to = lane_place<Q_PITCH>(query_tile(ring));
    UNROLL for (int i = 0; i < QUERY_COPIES; i++)
        copy_async(row_step<Q_PITCH>(to, first_query_copy() + i),
                   q->from[i] ? q->from[i] : a->q.data, q->from[i] ? 16 : 0);
}

/* A fragment of rows 16 * tile ... and channels 16 * c ... KV_I8: its columns 2t, 2t + 1 and 8 + 2t, 9
 * + 2t are channels 4t ... 4t + 3, of which a lane has the keys. */
DEVICE void load_query_fragment(uint32_t *x, uint32_t queries, int tile, int c)
{
    int lane = THREAD % 32, row = lane % 16, t = lane % 4;
    if (!KV_I8) {
        load_matrices(x, queries + (tile * 16 + row) * Q_PITCH + piece_at<Q_PITCH>(2 * c + lane / 16, row));
        return;
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        row = lane / 4 + 8 * i;
        uint32_t at =
            queries + (tile * 16 + row) * Q_PITCH + piece_at<Q_PITCH>(2 * c + t / 2, row) + t % 2 * 8;
        load_two_words(x + i, x + 2 + i, at);
    }
}

/* After the copies of all that copied. */
DEVICE void take_queries(struct queries *q, const struct cursor *c)
{
    if (Q_SHARED) {
        block_barrier();
        return;
    }
    wave_barrier();
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int j = 0; j < D / 16; j++)
        load_query_fragment(q->x[i][Q_SHARED ? 0 : j], query_tile(c->ring), i, j);
}

DEVICE const uint32_t *query_fragment(const struct queries *q, int tile, int c, uint32_t *own)
{
    if (!Q_SHARED) return q->x[tile][Q_SHARED ? 0 : c];
    load_query_fragment(own, query_tile(0), tile, c);
    return own;
}

#endif
