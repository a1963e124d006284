/* decode_mma.cu: few queries over many keys, f16 and bf16, or i8 keys and values, split over the keys:
 * mma.sync fed by cp.async, on every NVIDIA GPU from sm_80 on.
 *
 * A block takes one part of the keys of one KV head for BLOCK_ROWS of its query rows, row r being query r /
 * group of query head r % group of the KV head; the rows are packed into tiles of 16. Blocks of the
 * same keys are neighbours, so that all but one find them in a cache. Each warp walks
 * every WARPS-th run of KEYS keys through a ring of STAGES of its own in shared memory, so that nothing
 * waits for another warp before the end, where the block merges its warps. With one part the block
 * writes the output; with more it writes partials, and NAME_combine merges these. */
#include "nvidia/decode_merge.h"
#include "nvidia/decode_scores.h"
#if KV_I8
#include "nvidia/decode_i8.h"
#else

/* Products of the warp's rows with a tile of keys; with 16 keys two sums for each eight, so that a
 * product waits for the one before the last (registers hold one beside 256 channels). */
DEVICE void multiply_queries(const struct queries *q, uint32_t k_tile, struct scores *x)
{
    enum { TWO = NT == 2 && D < 256 };
    int lane = THREAD % 32, row = lane % 8 + lane / 16 * 8;
    uint32_t k = k_tile + row * PITCH;
    struct scores odd;
    UNROLL for (int i = 0; i < RT * NT * 4; i++)(&x->s[0][0][0])[i] = (&odd.s[0][0][0])[i] = 0;
    UNROLL for (int c = 0; c < D / 16; c++)
    {
        uint32_t y[STEPS][4], own[RT][4];
        UNROLL for (int n = 0; n < STEPS; n++)
            load_matrices(y[n], k + n * 16 * PITCH + piece_at<PITCH>(2 * c + lane / 8 % 2, row));
        UNROLL for (int i = 0; i < RT; i++)
        {
            const uint32_t *rows = query_fragment(q, i, c, own[i]);
            struct scores *sum = TWO && c % 2 ? &odd : x;
            UNROLL for (int n = 0; n < STEPS; n++)
            {
                multiply_add(sum->s[i][2 * n], rows, y[n][0], y[n][1]);
                multiply_add(sum->s[i][2 * n + 1], rows, y[n][2], y[n][3]);
            }
        }
    }
    if (TWO)
        UNROLL for (int i = 0; i < RT * NT * 4; i++)(&x->s[0][0][0])[i] += (&odd.s[0][0][0])[i];
}

/* o += p v */
DEVICE void add_values(struct state *st, uint32_t v_tile, const struct scores *x)
{
    int lane = THREAD % 32, row = lane % 16;
    uint32_t v = v_tile + row * PITCH;
    UNROLL for (int n = 0; n < STEPS; n++)
    {
        uint32_t p[RT][4];
        pack_weights(x, n, p);
        UNROLL for (int c = 0; c < CT / 2; c++)
        {
            uint32_t y[4];
            load_matrices_transposed(y, v + n * 16 * PITCH + piece_at<PITCH>(2 * c + lane / 16, row));
            UNROLL for (int i = 0; i < RT; i++)
            {
                multiply_add(st->o[i][2 * c], p[i], y[0], y[1]);
                multiply_add(st->o[i][2 * c + 1], p[i], y[2], y[3]);
            }
        }
    }
}
#endif

/* Softcap and negative scales leave natural scores. */
DEVICE void change_scores(const struct attention_args *a, struct scores *scores)
{
    float inverse = a->softcap > 0 ? a->scale / a->softcap : 0;
    UNROLL for (int i = 0; i < RT * NT * 4; i++)
    {
        float *x = &scores->s[0][0][0] + i;
        *x = a->softcap > 0 ? a->softcap * tanh_f32(*x * inverse) : *x * a->scale;
    }
}

DEVICE void hide_scores(const struct attention_args *a, const struct part *p, int key,
                        struct scores *x)
{
    int first = key + THREAD % 4 * 2;
    struct own_rows rows = rows_of_block(a, p->b);
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        struct span row = span_of_row(a, p, &rows, r);
        UNROLL for (int n = 0; n < NT; n++)
            UNROLL for (int e = 0; e < 2; e++) if (!sees(row, first + 8 * n + e))
                x->s[r / 2][n][r % 2 * 2 + e] = -INFINITY;
    }
}

/* Scores to weights, in place; the state is raised where a maximum grows. */
DEVICE void weigh_scores(struct state *st, float scale_log2, struct scores *scores)
{
    float top[ROWS];
    int grows = 0;
    UNROLL for (int r = 0; r < ROWS; r++)
    {
        float m = -INFINITY;
        UNROLL for (int n = 0; n < NT; n++) m =
            maximum(m, maximum(scores->s[r / 2][n][r % 2 * 2], scores->s[r / 2][n][r % 2 * 2 + 1]));
        top[r] = max_of_quad(m) * scale_log2;
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
        UNROLL for (int n = 0; n < NT; n++) UNROLL for (int e = 0; e < 2; e++)
        {
            float *x = &scores->s[r / 2][n][r % 2 * 2 + e];
            *x = exp2_fast(fused(*x, scale_log2, -base));
            st->l[r] += *x;
        }
    }
}

/* A tile of keys that has landed. Whether add_special has work. */
DEVICE int add_tile(const struct attention_args *a, const struct part *p, const struct queries *q,
                    int key, uint32_t tile, struct state *st)
{
    struct scores x;
    int changes = a->softcap > 0 || a->scale < 0, special = 0,
        some_hidden = key < p->all_first || key + KEYS > p->all_end;
    multiply_queries(q, tile, &x); /* KV_I8: and times the scales */
    if (RARE(changes)) change_scores(a, &x);
    if (RARE(some_hidden)) hide_scores(a, p, key, &x);
    weigh_scores(st, changes ? LOG2_E : a->scale_log2, &x);
#if KV_I8
    add_scaled_values(a, p, key, tile, some_hidden, st, &x);
#else
    if (RARE(some_hidden)) special = clear_special(p, key, tile + TILE_BYTES);
    add_values(st, tile + TILE_BYTES, &x);
#endif
    return special;
}

/* The warp's share of the part. The first STAGES - 1 rounds, which all warps take, only request: keys
 * and values before the queries, since these come from nearer by. What comes before
 * wait_for_earlier_work overlaps the end of the launch before. */
DEVICE int walk_keys(const struct attention_args *a, struct part *p, struct state *st)
{
    struct own_rows rows = rows_of_block(a, p->b);
    struct query_pieces pieces = query_pieces_of(a, p, &rows);
    if (asks_memory(a)) wait_for_earlier_work();
    find_keys(a, p, &rows);
    struct cursor at = cursor_of(a, p);
    struct queries q;
    int special = 0;
    wait_for_earlier_work();
    look_up_pages(a, p, &at);
#pragma unroll 1
    for (;;) {
        int first = first_key(p);
        wave_barrier(); /* all lanes are done with the stage that is requested next */
        request(a, p, &at);
        if (at.key == first + TILE_KV) request_queries(a, &pieces, at.ring);
        copies_commit();
        int key = at.key - STAGES * TILE_KV; /* of the tile in the stage that comes next */
        if (key < first) {
            if (key < first - TILE_KV) continue;
            copies_wait_but<STAGES - 2>();
            take_queries(&q, &at);
            continue;
        }
        if (key >= p->end) break;
        copies_wait_but<STAGES - 1>();
        wave_barrier();
        special |= add_tile(a, p, &q, key, at.stage, st);
    }
    copies_wait();
    return special;
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int packed = a->q_start.data != NULL, batches = packed ? 1 : a->batch;
    let_successors_begin();
    for (int z = BLOCK_Z; z < batches; z += (int)gridDim.z)
        for (int kv_head = BLOCK_Y; kv_head < a->kv_heads; kv_head += (int)gridDim.y) {
            if (packed) wait_for_earlier_work();
            int b = packed ? sequence_of_tile(a, share_of_block(a).tile, BLOCK_ROWS) : z;
            struct part p = part_of(a, b, kv_head);
            if (packed && rows_of_block(a, b).count <= 0) return; /* a tile of no sequence */
            struct state st;
            UNROLL for (int r = 0; r < ROWS; r++) st.m[r] = -INFINITY, st.l[r] = 0;
#if KV_I8 && DTYPE == DTYPE_f16
            UNROLL for (int i = 0; i < ROWS * SCALES; i++)(&st.shrink[0][0])[i] = 0x1p126f;
#endif
            UNROLL for (int i = 0; i < RT * CT; i++) UNROLL for (int e = 0; e < 4; e++)
                st.o[i / CT][i % CT][e] = 0;
            int special = walk_keys(a, &p, &st);
            leave_state(&st);
            special = __syncthreads_or(special);
            write_rows(a, &p, special);
            block_barrier();
        }
}
