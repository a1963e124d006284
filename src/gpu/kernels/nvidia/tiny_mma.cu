/* tiny_mma.cu: the forward for at most TILE_KV keys, f16 and bf16, without shared memory and
 * without a barrier. A warp takes 16 queries of a head and 32 output channels: it loads the
 * fragments of Q, K and V straight from global memory, all at once.
 *
 * The sum over channels may take them in any order, so lane t of a quad loads 16 contiguous bytes
 * of a row (channels 8t ... 8t + 7 of each 32), which serve as the k pairs (2t, 2t + 1) and (2t +
 * 8, 2t + 9) of two products; Q and K agree on it. Likewise lane group g loads 4 contiguous
 * channels of V, which become column g of four products, and each lane ends with 8 contiguous
 * channels of the output. */
#include "nvidia/mma.h"
#include "nvidia/tiny.h"

enum {
    KEY_TILES = TILE_KV / 8,
    STEPS = TILE_KV / 16, /* of 16 keys */
    PIECES = D / 32       /* 16-byte pieces of a row per lane */
};
static_assert(TILE_Q == 16 && TILE_KV % 16 == 0 && D % 32 == 0 && THREADS == DV &&
                  SHARED_BYTES == 0,
              "one warp per 32 output channels");

struct fragments {
    uint4 q[2][PIECES], k[KEY_TILES][PIECES];
    uint2 v[STEPS][4];
};

DEVICE uint4 piece_or_zero(const char *row, int piece, int present)
{
    uint4 zero = {0, 0, 0, 0};
    return present ? LOAD(uint4, row + piece * 64) : zero;
}

DEVICE void load_fragments(const struct attention_args *a, int b, int head, int query, int g, int t,
                           int channel, struct fragments *f)
{
    int kv_head = head / a->group;
    const char *q = element_at(&a->q, b, head, query, 8 * t),
               *k = element_at(&a->k, b, kv_head, g, 8 * t);
    const char *v = element_at(&a->v, b, kv_head, 2 * t, channel + 4 * g);
    int64_t q_row = a->q.stride[2] * 2, k_row = a->k.stride[2] * 2, v_row = a->v.stride[2] * 2;
    uint2 zero = {0, 0};
    UNROLL for (int r = 0; r < 2; r++) UNROLL for (int i = 0; i < PIECES; i++) f->q[r][i] =
        piece_or_zero(q + 8 * r * q_row, i, query + 8 * r < a->q_tokens);
    UNROLL for (int n = 0; n < KEY_TILES; n++) UNROLL for (int i = 0; i < PIECES; i++) f->k[n][i] =
        piece_or_zero(k + 8 * n * k_row, i, 8 * n + g < a->kv_tokens);
    UNROLL for (int s = 0; s < STEPS; s++) UNROLL for (int i = 0; i < 4; i++)
    {
        int key = 16 * s + i / 2 * 8 + i % 2; /* plus 2t */
        f->v[s][i] = key + 2 * t < a->kv_tokens ? LOAD(uint2, v + key * v_row) : zero;
    }
}

DEVICE uint32_t word(uint4 x, int i)
{
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

/* Two sums per tile of keys, so that a product waits for the one before the last; tiles without a
 * key cost nothing. */
DEVICE void scores_of(const struct fragments *f, int keys, float (*s)[4])
{
    UNROLL for (int n = 0; n < KEY_TILES; n++)
    {
        float odd[4] = {0, 0, 0, 0};
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
        if (8 * n >= keys) continue;
        UNROLL for (int i = 0; i < PIECES; i++) UNROLL for (int half = 0; half < 2; half++)
        {
            const uint32_t q[4] = {word(f->q[0][i], 2 * half), word(f->q[1][i], 2 * half),
                                   word(f->q[0][i], 2 * half + 1), word(f->q[1][i], 2 * half + 1)};
            multiply_add(half ? odd : s[n], q, word(f->k[n][i], 2 * half),
                         word(f->k[n][i], 2 * half + 1));
        }
        UNROLL for (int e = 0; e < 4; e++) s[n][e] += odd[e];
    }
}

/* Scores to weights, in place; maximum (log2 units) and sum of the lane's two rows. */
DEVICE void weights_of(float (*s)[4], const struct visible *seen, int t, float scale_log2, float *m,
                       float *l)
{
    UNROLL for (int r = 0; r < 2; r++)
    {
        float maximum_here = -INFINITY, sum = 0;
        UNROLL for (int n = 0; n < KEY_TILES; n++) UNROLL for (int e = 0; e < 2; e++)
        {
            float *x = &s[n][2 * r + e];
            *x = sees(seen[r], 8 * n + 2 * t + e) ? *x * scale_log2 : -INFINITY;
            maximum_here = maximum(maximum_here, *x);
        }
        m[r] = max_of_quad(maximum_here);
        float base = exponent_base(m[r]);
        UNROLL for (int n = 0; n < KEY_TILES; n++) UNROLL for (int e = 0; e < 2; e++) sum +=
            s[n][2 * r + e] = exp2_fast(s[n][2 * r + e] - base);
        l[r] = sum_of_quad(sum);
    }
}

enum {
    ONE = DTYPE == DTYPE_bf16 ? 0x3f80 : 0x3c00,
    EXPONENT = DTYPE == DTYPE_bf16 ? 0x7f80 : 0x7c00,
    /* how infinities are counted: those below 0 by MINUS; NaN as one of each */
    MINUS = 128,
    MINUS_BITS = DTYPE == DTYPE_bf16 ? 0x4300 : 0x5800,
    BOTH_BITS = DTYPE == DTYPE_bf16 ? 0x4301 : 0x5808
};
static_assert(TILE_KV < MINUS, "a count of infinities below MINUS");

DEVICE int is_special(uint32_t h)
{
    return (h & EXPONENT) == EXPONENT;
}

DEVICE int has_special(uint2 x)
{
    return is_special(x.x) | is_special(x.x >> 16) | is_special(x.y) | is_special(x.y >> 16);
}

/* o += p v; o[j][2r + e] is row r's channel 8t + 4e + j of the warp's 32. */
DEVICE void add_values(const uint2 (*values)[4], int keys, float (*s)[4], float (*o)[4])
{
    UNROLL for (int step = 0; step < STEPS; step++)
    {
        if (16 * step >= keys) break;
        const float *low = s[2 * step], *high = s[2 * step + 1];
        const uint32_t p[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]),
                               pack(high[2], high[3])};
        const uint2 *v = values[step];
        UNROLL for (int j = 0; j < 4; j++)
        {
            uint32_t select = j % 2 ? 0x7632 : 0x5410;
            multiply_add(o[j], p,
                         __byte_perm(j < 2 ? v[0].x : v[0].y, j < 2 ? v[1].x : v[1].y, select),
                         __byte_perm(j < 2 ? v[2].x : v[2].y, j < 2 ? v[3].x : v[3].y, select));
        }
    }
}

/* What a value counts for, 0 if it is finite; a special one becomes 0. */
DEVICE uint32_t count_of(uint32_t *h)
{
    if (!is_special(*h)) return 0;
    uint32_t x = *h;
    *h = 0;
    return x & ~(EXPONENT | 0x8000u) ? BOTH_BITS : x & 0x8000 ? MINUS_BITS : ONE;
}

DEVICE uint32_t counts_of(uint32_t *two)
{
    uint32_t low = *two & 0xffff, high = *two >> 16, counts = count_of(&low);
    counts |= count_of(&high) << 16;
    *two = low | high << 16;
    return counts;
}

/* 0 * NaN is NaN: a value that is not finite must not meet the weight 0 of a row that does not see
 * its key. Such values become 0 in their fragments, and one more product counts them for the rows
 * that do, unless the scores of these are all -inf (sum l 0, NaN with a NaN score). Taken when a
 * warp holds one. */
DEVICE void take_special_values(struct fragments *f, int keys, const struct visible *seen,
                                const float *l, int t, float (*o)[4])
{
    uint2 values[STEPS][4];
    float ones[KEY_TILES][4], counts[4][4] = {};
    UNROLL for (int i = 0; i < 4 * STEPS; i++)
    {
        uint2 *v = &f->v[i / 4][i % 4];
        values[i / 4][i % 4].x = counts_of(&v->x);
        values[i / 4][i % 4].y = counts_of(&v->y);
    }
    UNROLL for (int n = 0; n < KEY_TILES; n++) UNROLL for (int i = 0; i < 4; i++) ones[n][i] =
        sees(seen[i / 2], 8 * n + 2 * t + i % 2) && l[i / 2] != 0 ? 1 : 0;
    add_values(values, keys, ones, counts);
    UNROLL for (int i = 0; i < 16; i++)
    {
        int count = (int)counts[i / 4][i % 4];
        float plus = count % MINUS ? INFINITY : 0, minus = count / MINUS ? INFINITY : 0;
        o[i / 4][i % 4] = plus - minus;
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, 1) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int lane = THREAD % 32, g = lane / 4, t = lane % 4, channel = THREAD / 32 * 32,
        query = BLOCK_X * TILE_Q + g;
    wait_for_predecessors();
    FOR_EACH_HEAD(a, head, b)
    {
        struct fragments f;
        float s[KEY_TILES][4], o[4][4] = {}, m[2], l[2];
        load_fragments(a, b, head, query, g, t, channel, &f);
        const struct visible seen[2] = {visible_of(a, query), visible_of(a, query + 8)};
        scores_of(&f, a->kv_tokens, s);
        weights_of(s, seen, t, a->scale_log2, m, l);
        int special = 0;
        UNROLL for (int i = 0; i < 4 * STEPS; i++) special |= has_special(f.v[i / 4][i % 4]);
        if (__any_sync(~0u, special)) take_special_values(&f, a->kv_tokens, seen, l, t, o);
        add_values(f.v, a->kv_tokens, s, o);
        UNROLL for (int r = 0; r < 2; r++)
        {
            if (query + 8 * r >= a->q_tokens) continue;
            float factor = l[r] == 0 ? 0 : 1 / l[r];
            uint4 out = {pack(o[0][2 * r] * factor, o[1][2 * r] * factor),
                         pack(o[2][2 * r] * factor, o[3][2 * r] * factor),
                         pack(o[0][2 * r + 1] * factor, o[1][2 * r + 1] * factor),
                         pack(o[2][2 * r + 1] * factor, o[3][2 * r + 1] * factor)};
            STORE(uint4, element_at(&a->out, b, head, query + 8 * r, channel + 8 * t), out);
            if (channel == 0 && t == 0) store_lse(a, b, head, query + 8 * r, m[r], l[r]);
        }
    }
}
