/* tiny_f32.cu: the forward for at most TILE_KV keys in f32. A block takes TILE_Q queries of a head,
 * one per warp; K and V are requested together and meet in static shared memory after the only
 * barrier. Half a warp's lanes take the lower half of the channels of 16 keys' scores, the other
 * half the upper; then lane c owns output channels 4c ... 4c + 3. */
#include "nvidia/tiny.h"

enum { PIECES = D / 4, GROUPS = TILE_KV / 16, LOADS = TILE_KV * PIECES / THREADS };
static_assert(D == 128 && DV == D && THREADS == 32 * TILE_Q && (TILE_KV == 16 || TILE_KV == 32) &&
                  SHARED_BYTES == 0,
              "a warp is 128 channels wide");

struct tile {
    float4 k[TILE_KV][PIECES],
        v[TILE_KV]
         [PIECES]; /* k: piece c of key j lies at c ^ (j % 8), so that 8 lanes meet 8 bank groups */
};

DEVICE void load_keys(const struct attention_args *a, int b, int kv_head, struct tile *tile)
{
    const char *k = element_at(&a->k, b, kv_head, 0, 0), *v = element_at(&a->v, b, kv_head, 0, 0);
    int64_t k_row = a->k.stride[2] * 4, v_row = a->v.stride[2] * 4;
    int row = THREAD / PIECES, piece = THREAD % PIECES;
    float4 kx[LOADS], vx[LOADS];
    UNROLL for (int i = 0; i < LOADS; i++)
    {
        int key = row + i * (THREADS / PIECES);
        kx[i] = vx[i] = float4_of(0, 0, 0, 0);
        if (key >= a->kv_tokens) continue;
        kx[i] = LOAD(float4, k + key * k_row + piece * 16);
        vx[i] = LOAD(float4, v + key * v_row + piece * 16);
    }
    UNROLL for (int i = 0; i < LOADS; i++)
    {
        int key = row + i * (THREADS / PIECES);
        tile->k[key][piece ^ (key & 7)] = kx[i];
        tile->v[key][piece] = vx[i];
    }
}

/* Score of key lane % 16 of a group, whole in both halves of the warp. */
DEVICE float score_of(const struct tile *tile, const float4 *q, int key, int half)
{
    float s = 0;
    UNROLL for (int c = 0; c < PIECES / 2; c++)
    {
        float4 x = q[half * (PIECES / 2) + c],
               y = tile->k[key][(half * (PIECES / 2) + c) ^ (key & 7)];
        s = fused(x.x, y.x, s);
        s = fused(x.y, y.y, s);
        s = fused(x.z, y.z, s);
        s = fused(x.w, y.w, s);
    }
    return s + lane_xor(s, 16);
}

KERNEL_ENTRY void LAUNCH(THREADS, 1) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    __shared__ struct tile tile;
    __shared__ float4 queries[TILE_Q][PIECES];
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int warp = THREAD / 32, lane = THREAD % 32, query = BLOCK_X * TILE_Q + warp;
    wait_for_predecessors();
    FOR_EACH_HEAD(a, head, b)
    {
        float4 zero = float4_of(0, 0, 0, 0);
        float4 q =
            query < a->q_tokens ? LOAD(float4, element_at(&a->q, b, head, query, 4 * lane)) : zero;
        load_keys(a, b, head / a->group, &tile);
        queries[warp][lane] = q;
        block_barrier();
        struct visible seen = visible_of(a, query);
        float s[GROUPS], m = -INFINITY, l = 0;
        UNROLL for (int i = 0; i < GROUPS; i++)
        {
            int key = 16 * i + lane % 16;
            s[i] = -INFINITY;
            if (16 * i < a->kv_tokens)
                s[i] = score_of(&tile, queries[warp], key, lane / 16) * a->scale;
            if (!sees(seen, key)) s[i] = -INFINITY;
            m = maximum(m, s[i]);
        }
        m = max_of_16(m);
        float base = exponent_base(m);
        UNROLL for (int i = 0; i < GROUPS; i++) l += s[i] = exp2_fast((s[i] - base) * LOG2_E);
        l = sum_of_16(l);
        float4 o = zero;
        if (l == 0) seen.last = 0; /* scores of -inf alone: no weights, whatever the values hold */
#pragma unroll 4
        for (int key = seen.first; key < seen.last;
             key++) { /* hidden keys are never touched, be they NaN */
            float p = __shfl_sync(~0u, key < 16 ? s[0] : s[GROUPS - 1], key & 15);
            float4 v = tile.v[key][lane];
            o.x = fused(p, v.x, o.x);
            o.y = fused(p, v.y, o.y);
            o.z = fused(p, v.z, o.z);
            o.w = fused(p, v.w, o.w);
        }
        float factor = l == 0 ? 0 : 1 / l;
        if (query < a->q_tokens) {
            STORE(float4, element_at(&a->out, b, head, query, 4 * lane),
                  float4_of(o.x * factor, o.y * factor, o.z * factor, o.w * factor));
            if (lane == 0) store_lse(a, b, head, query, m * LOG2_E, l);
        }
        block_barrier();
    }
}
