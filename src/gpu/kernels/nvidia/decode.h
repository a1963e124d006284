/* decode.h: what a block of decode_mma.cu works on, how its warps get K and V, and how it merges
 * them.
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
/* K and V are i8, with one scale for all channels of a token and head. */
#ifndef KV_I8
#define KV_I8 0
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
    SCALE_BYTES = KV_I8 ? KEYS * 4 : 0, /* of a tile of K, and of V */
    STAGE_BYTES = 2 * (TILE_BYTES + SCALE_BYTES),
    RING_BYTES = STAGES * STAGE_BYTES,
    SUMS_PITCH = D + 8 /* floats; eight more, so that four rows fall into different banks */
};
static_assert(D == DV && D % 64 == 0 && D <= 256 && TILE_KV == WARPS * KEYS, "tile sizes");
static_assert(!KV_I8 || KEYS == 32, "a lane, a key's scales");
static_assert(RT <= 2 && BLOCK_ROWS * (SUMS_PITCH * 4 + 8) <= RING_BYTES,
              "room for sums and queries");
/* Registers hold the queries, or the output of so many rows and channels alone. */
enum { Q_SHARED = BLOCK_ROWS * D > 2048, Q_BYTES = Q_SHARED ? BLOCK_ROWS * Q_PITCH : 0 };
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

/* The lane's key's scales, of page 0 (no pages: 0) and its row in it, behind a stage's tiles. */
DEVICE void request_scales(const struct attention_args *a, const struct cursor *c, int64_t page,
                           int64_t row, int left)
{
    uint32_t to = c->stage + 2 * TILE_BYTES + THREAD % 32 * 4;
    int bytes = THREAD % 32 < left ? 4 : 0;
    const struct view *k = &a->k_scale, *v = &a->v_scale;
    copy_async_word(to, c->k_scale + (page * k->stride[0] + row * k->stride[2]) * 4, bytes);
    copy_async_word(to + SCALE_BYTES, c->v_scale + (page * v->stride[0] + row * v->stride[2]) * 4,
                    bytes);
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
        x[i] = load_word(at);
        x[2 + i] = load_word(at + 4);
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

/* ---- The end --------------------------------------------------------------------------------- */

/* Of the lane's rows: sums of weights times values, maxima (log2 units), the lane's sums of weights. */
struct state {
    float o[RT][CT][4], m[ROWS], l[ROWS];
#if KV_I8 && DTYPE == DTYPE_f16
    float shrink[ROWS]; /* o: times that, see raise_units */
#endif
};

DEVICE float value_unit(const struct state *st, int r)
{
#if KV_I8 && DTYPE == DTYPE_f16
    return float_of(0x7f000000u - bits_of(st->shrink[r])); /* powers of two */
#else
    return 1;
#endif
}

/* A maximum of -inf (no key yet) is replaced by 0, so that -inf - -inf never reaches exp2. */
DEVICE float exponent_base(float maximum)
{
    return maximum == -INFINITY ? 0 : maximum;
}

DEVICE int is_special(uint32_t h)
{
    uint32_t exponent = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00;
    return (h & exponent) == exponent;
}

/* 0 * NaN is NaN: a value that is not finite must not meet the weight 0 of a row that does not see
 * its key. Where a tile has keys that only some rows see, such values become 0, and add_special adds
 * them to the rows that do. Whether there were any. */
DEVICE int clear_special(const struct part *p, int key, uint32_t v_tile)
{
    int found = 0, end = smaller(key + KEYS, p->end); /* behind p->end are zeros */
#pragma unroll 1
    for (int own = key; own < end; own++) {
        if (own >= p->all_first && own < p->all_end) {
            own = p->all_end - 1;
            continue;
        }
        UNROLL for (int i = 0; i < D / 64; i++)
        {
            uint32_t at = v_tile + ((own - key) * (D / 2) + i * 32 + THREAD % 32) * 4,
                     two = load_word(at), low = is_special(two), high = is_special(two >> 16);
            if (!(low | high)) continue;
            store_word(at, (low ? 0 : two & 0xffff) | (high ? 0 : two & 0xffff0000u));
            found = 1;
        }
    }
    wave_barrier();
    return found;
}

/* Four channels of a value in memory: what of it is not finite. */
DEVICE float4 special_values(const struct attention_args *a, const struct part *p, int key,
                             int channel)
{
    int batch = p->seq.kv_batch, token = p->seq.kv_start + key;
    if (a->page_table.data) {
        int page = page_index(a, key);
        batch = (int)load_index(&a->page_table, p->b, page);
        token = key - page * a->page_tokens;
    }
    const char *from = row_at(&a->v, batch, p->kv_head, token, 2) + channel * 2;
    float4 x = unpack_four(LOAD(uint2, from), DTYPE);
    return float4_of(is_finite(x.x) ? 0 : x.x, is_finite(x.y) ? 0 : x.y, is_finite(x.z) ? 0 : x.z,
                     is_finite(x.w) ? 0 : x.w);
}

DEVICE float4 add_special(const struct attention_args *a, const struct part *p, int query,
                          int channel, float4 o)
{
    struct span row = span_of_query(a, &p->seq, query);
#pragma unroll 1
    for (int key = larger(p->first, row.first); key < smaller(p->end, row.end); key++) {
        if (key == p->all_first && p->all_end > key) key = p->all_end; /* those all rows see */
        if (key >= smaller(p->end, row.end)) break;
        o = add_part(o, special_values(a, p, key, channel), 1);
    }
    return o;
}

DEVICE float *sums_of_warp(int warp)
{
    return (float *)((char *)shared_memory + warp * RING_BYTES);
}

/* The warp's state to its ring. */
DEVICE void leave_state(const struct state *st)
{
    float *sums = sums_of_warp(THREAD / 32), *ends = sums + BLOCK_ROWS * SUMS_PITCH;
    int t = THREAD % 4;
    wave_barrier();
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        int row = row_of_lane(r);
        float l = sum_of_quad(st->l[r]);
        UNROLL for (int c = 0; c < CT; c += 2)
        {
            const float *x = st->o[r / 2][c] + r % 2 * 2, *y = st->o[r / 2][c + 1] + r % 2 * 2;
            float *to = sums + row * SUMS_PITCH + c * 8;
            if (KV_I8) { /* see add_values */
                float unit = value_unit(st, r);
                *(float4 *)(to + t * 4) =
                    float4_of(x[0] * unit, y[0] * unit, x[1] * unit, y[1] * unit);
                continue;
            }
            *(float2 *)(to + t * 2) = make_float2(x[0], x[1]);
            *(float2 *)(to + t * 2 + 8) = make_float2(y[0], y[1]);
        }
        if (t == 0) *(float2 *)(ends + row * 2) = make_float2(st->m[r], l);
    }
}

/* Four channels of a row, of all warps. */
struct merged {
    float m, l;
    float4 o;
};

/* In the order of the warps. */
DEVICE struct merged merge_warps(int row, int channel)
{
    float2 ends[WARPS];
    struct merged x = {-INFINITY, 0, float4_of(0, 0, 0, 0)};
    UNROLL for (int w = 0; w < WARPS; w++)
    {
        ends[w] = *(const float2 *)(sums_of_warp(w) + BLOCK_ROWS * SUMS_PITCH + row * 2);
        x.m = maximum(x.m, ends[w].x);
    }
    UNROLL for (int w = 0; w < WARPS; w++)
    {
        float weight = exp2_fast(ends[w].x - exponent_base(x.m));
        x.l = fused(ends[w].y, weight, x.l);
        x.o =
            add_part(x.o, *(const float4 *)(sums_of_warp(w) + row * SUMS_PITCH + channel), weight);
    }
    return x;
}

DEVICE void write_result(const struct attention_args *a, const struct part *p,
                         const struct own_rows *rows, int head, int query, int channel,
                         const struct merged *x)
{
    struct total t;
    float weight = total_of_one(&t, x->m, x->l, sink_of(a, p->b, head));
    float4 o = add_part(float4_of(0, 0, 0, 0), x->o, weight);
    int token = rows->q_start + query;
    store_result(a, rows->q_batch, head, token, channel, o, total_factor(&t));
    if (channel == 0) store_lse_of(a, rows->q_batch, head, token, &t);
}

/* The result where the keys have one part, else what the block leaves for NAME_combine. A thread
 * takes the same four channels of several rows. */
DEVICE void write_rows(const struct attention_args *a, const struct part *p, int special)
{
    struct own_rows rows = rows_of_block(a, p->b);
    int channel = THREAD % (D / 4) * 4, some = p->first < p->end;
    int64_t first = partial_row(a, rows.q_batch, p->kv_head * a->group, rows.q_start);
    char *values = (char *)partial_out_at(a, rows.number, first, channel),
         *ends = (char *)partial_lse_at(a, rows.number, first);
#pragma unroll 1
    for (int i = THREAD / (D / 4); i < rows.count; i += THREADS / (D / 4)) {
        int row = rows.first + i, query = query_of_row(p, row), head = row - query * a->group;
        struct merged x = merge_warps(i, channel);
        if (!KV_I8 && RARE(special)) x.o = add_special(a, p, query, channel, x.o);
        if (a->splits == 1) {
            write_result(a, p, &rows, p->kv_head * a->group + head, query, channel, &x);
            continue;
        }
        int at = head * a->q_tokens + query;
        if (some) STORE(float4, values + at * (D * 4), x.o);
        if (channel == 0) STORE(float2, ends + at * 8, make_float2(x.m, some ? x.l : NO_KEYS));
    }
}

#endif
