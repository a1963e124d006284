/* decode_mma.cu: few queries over many keys, f16 and bf16, split over the keys: mma.sync fed by
 * cp.async, on every NVIDIA GPU from sm_80 on.
 *
 * A block takes one part of the keys of one KV head for all of its query rows, row r being query r /
 * group of query head r % group of the KV head; the rows are packed into tiles of 16. Each warp walks
 * every WARPS-th run of 16 keys through a ring of STAGES of its own in shared memory, so that nothing
 * waits for another warp before the end, where the block merges its warps. With one part the block
 * writes the output; with more it writes partials, and NAME_combine merges these. */
#include "nvidia/decode.h"

/* Scores of the warp's rows with a tile of 16 keys; two sums for each eight of them, so that a
 * product waits for the one before the last. */
DEVICE void scores_of(const struct queries *q, uint32_t k_tile, float (*s)[2][4])
{
    int lane = THREAD % 32, row = lane % 8 + lane / 16 * 8;
    uint32_t k = k_tile + row * PITCH;
    float odd[RT][2][4] = {};
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int e = 0; e < 8; e++) s[i][e / 4][e % 4] = 0;
    UNROLL for (int c = 0; c < D / 16; c++)
    {
        uint32_t y[4], own[4];
        load_matrices(y, k + piece_at(2 * c + lane / 8 % 2, row));
        UNROLL for (int i = 0; i < RT; i++)
        {
            const uint32_t *x = query_fragment(q, i, c, own);
            float(*sum)[4] = c % 2 ? odd[i] : s[i];
            multiply_add(sum[0], x, y[0], y[1]);
            multiply_add(sum[1], x, y[2], y[3]);
        }
    }
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int e = 0; e < 8; e++) s[i][e / 4][e % 4] +=
        odd[i][e / 4][e % 4];
}

/* Softcap and negative scales leave natural scores. */
DEVICE void change_scores(const struct attention_args *a, float (*s)[2][4])
{
    float inverse = a->softcap > 0 ? a->scale / a->softcap : 0;
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int e = 0; e < 8; e++)
    {
        float *x = &s[i][e / 4][e % 4];
        *x = a->softcap > 0 ? a->softcap * tanh_f32(*x * inverse) : *x * a->scale;
    }
}

DEVICE void hide_scores(const struct attention_args *a, const struct part *p, int key,
                        float (*s)[2][4])
{
    int first = key + THREAD % 4 * 2;
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        struct span row = span_of_row(a, p, r);
        UNROLL for (int n = 0; n < 2; n++)
            UNROLL for (int e = 0; e < 2; e++) if (!sees(row, first + 8 * n + e))
                s[r / 2][n][r % 2 * 2 + e] = -INFINITY;
    }
}

/* Scores to weights, in place; the state is raised where a maximum grows. */
DEVICE void weights_of(struct state *st, float scale_log2, float (*s)[2][4])
{
    float top[ROWS];
    int grows = 0;
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        const float *low = &s[r / 2][0][r % 2 * 2], *high = &s[r / 2][1][r % 2 * 2];
        top[r] = max_of_quad(maximum(maximum(low[0], low[1]), maximum(high[0], high[1])));
        top[r] *= scale_log2;
        grows |= top[r] > st->m[r];
    }
    if (__any_sync(~0u, grows)) {
        UNROLL for (int r = 0; r < ROWS; r++)
        {
            float m = maximum(st->m[r], top[r]), factor = exp2_fast(st->m[r] - exponent_base(m));
            st->m[r] = m;
            st->l[r] *= factor;
            UNROLL for (int c = 0; c < CT; c++) UNROLL for (int e = 0; e < 2; e++)
                st->o[r / 2][c][r % 2 * 2 + e] *= factor;
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        float base = exponent_base(st->m[r]);
        UNROLL for (int n = 0; n < 2; n++) UNROLL for (int e = 0; e < 2; e++)
        {
            float *x = &s[r / 2][n][r % 2 * 2 + e];
            *x = exp2_fast(fused(*x, scale_log2, -base));
            st->l[r] += *x;
        }
    }
}

/* o += p v */
DEVICE void add_values(struct state *st, uint32_t v_tile, float (*s)[2][4])
{
    int lane = THREAD % 32, row = lane % 16;
    uint32_t v = v_tile + row * PITCH, p[RT][4];
    UNROLL for (int i = 0; i < RT; i++) UNROLL for (int j = 0; j < 4; j++) p[i][j] =
        pack(s[i][j / 2][j % 2 * 2], s[i][j / 2][j % 2 * 2 + 1]);
    UNROLL for (int c = 0; c < CT / 2; c++)
    {
        uint32_t y[4];
        load_matrices_transposed(y, v + piece_at(2 * c + lane / 16, row));
        UNROLL for (int i = 0; i < RT; i++)
        {
            multiply_add(st->o[i][2 * c], p[i], y[0], y[1]);
            multiply_add(st->o[i][2 * c + 1], p[i], y[2], y[3]);
        }
    }
}

/* A tile of keys that has landed. Whether add_special has work. */
DEVICE int add_tile(const struct attention_args *a, const struct part *p, const struct queries *q,
                    int key, uint32_t tile, struct state *st)
{
    float s[RT][2][4];
    int changes = a->softcap > 0 || a->scale < 0, special = 0,
        some_hidden = key < p->all_first || key + KEYS > p->all_end;
    scores_of(q, tile, s);
    if (RARE(changes)) change_scores(a, s);
    if (RARE(some_hidden)) hide_scores(a, p, key, s);
    weights_of(st, changes ? LOG2_E : a->scale_log2, s);
    if (RARE(some_hidden)) special = clear_special(p, key, tile + TILE_BYTES);
    add_values(st, tile + TILE_BYTES, s);
    return special;
}

/* The warp's share of the part. The first STAGES - 1 rounds, which all warps take, only request: keys
 * and values before the queries, since these come from nearer by. */
DEVICE int walk_keys(const struct attention_args *a, const struct part *p, struct state *st)
{
    struct cursor at = cursor_of(a, p);
    struct query_pieces pieces = query_pieces_of(a, p);
    struct queries q;
    int special = 0, key = at.key;
    uint32_t tile = at.ring;
    wait_for_earlier_work();
#pragma unroll 1
    for (int round = 1 - STAGES; round < 0 || key < p->end; round++) {
        wave_barrier(); /* all lanes are done with the stage that is requested next */
        request(a, p, &at);
        if (round == 1 - STAGES) request_queries(a, &pieces, at.ring);
        copies_commit();
        if (round < -1) continue;
        if (round < 0) {
            copies_wait_but<STAGES - 2>();
            take_queries(&q, &at);
            continue;
        }
        copies_wait_but<STAGES - 1>();
        wave_barrier();
        special |= add_tile(a, p, &q, key, tile, st);
        key += TILE_KV;
        tile = tile + STAGE_BYTES == at.ring + RING_BYTES ? at.ring : tile + STAGE_BYTES;
    }
    copies_wait();
    return special;
}

/* Whether memory says where the part's keys lie. */
DEVICE int asks_memory(const struct attention_args *a)
{
    return a->kv_length.data || a->kv_start.data || a->page_table.data;
}

/* What comes before wait_for_earlier_work overlaps the end of the launch before. */
KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    let_successors_begin();
    if (asks_memory(a)) wait_for_earlier_work();
    for (int b = BLOCK_Z; b < a->batch; b += (int)gridDim.z)
        for (int kv_head = BLOCK_Y; kv_head < a->kv_heads; kv_head += (int)gridDim.y) {
            struct part p = part_of(a, b, kv_head, BLOCK_X);
            struct state st;
            UNROLL for (int r = 0; r < ROWS; r++) st.m[r] = -INFINITY, st.l[r] = 0;
            UNROLL for (int i = 0; i < RT * CT; i++) UNROLL for (int e = 0; e < 4; e++)
                st.o[i / CT][i % CT][e] = 0;
            int special = walk_keys(a, &p, &st);
            leave_state(&st);
            special = __syncthreads_or(special);
            for (int i = THREAD; i < p.seq.q_length * a->group * (D / 4); i += THREADS)
                write_merged(a, &p, i / (D / 4), i % (D / 4) * 4, special);
            block_barrier();
        }
}
