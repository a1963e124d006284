/* rope.cu: rotary position embedding, half-split or interleaved, of part or all of a head's channels; out may be x. Portable.
 * Rows are numbered [batch][token][head]: a thread keeps its pairs through neighbouring rows, so that the angles of a token are
 * computed once for several heads. */
#include "rope.h"

enum { AT_ONCE = 2 }; /* rows whose loads are in flight together */

struct rope_row {
    int b, token, head;
};

DEVICE struct rope_row rope_row_of(const struct rope_args *a, int64_t row)
{
    struct rope_row r;
    int64_t place = row / a->heads;
    r.head = (int)(row - place * a->heads);
    r.b = (int)(place / a->tokens);
    r.token = (int)(place - (int64_t)r.b * a->tokens);
    return r;
}

DEVICE void next_row(const struct rope_args *a, struct rope_row *r)
{
    if (++r->head < a->heads) return;
    r->head = 0;
    if (++r->token < a->tokens) return;
    r->token = 0;
    r->b++;
}

DEVICE int64_t position_of(const struct rope_args *a, const struct rope_row *r)
{
    return a->position.data ? load_index(&a->position, r->b, r->token) : r->token;
}

/* Rows first ... end - 1, one item of each. */
DEVICE void turn_rows(const struct rope_args *a, const struct rope_cut *cut, int item, int64_t first, int64_t end)
{
    float cosine[RUN_MAX], sine[RUN_MAX];
    int last_token = -1, last_b = -1;
    struct rope_row at = rope_row_of(a, first);
    for (int64_t row = first; row < end; row += AT_ONCE) {
        struct rope_values values[AT_ONCE];
        struct rope_row place[AT_ONCE];
        UNROLL for (int i = 0; i < AT_ONCE; i++) {
            place[i] = at;
            if (row + i < end) load_item(&values[i], element_at(&a->x, at.b, at.head, at.token, 0), &a->x, cut, item);
            next_row(a, &at);
        }
        UNROLL for (int i = 0; i < AT_ONCE; i++) {
            if (row + i >= end) break;
            const struct rope_row *r = &place[i];
            if (item < cut->pair_items) {
                if (r->token != last_token || r->b != last_b) item_angles(a, cut, item, position_of(a, r), cosine, sine);
                last_token = r->token;
                last_b = r->b;
                turn_item(&values[i], cut, cosine, sine);
            }
            store_item(&values[i], element_at(&a->out, r->b, r->head, r->token, 0), &a->out, cut, item);
        }
    }
}

DEVICE void rope_block(const struct rope_args *a, const struct rope_cut *cut)
{
    int64_t rows = (int64_t)a->batch * a->heads * a->tokens, start = (int64_t)BLOCK_X * TILE_Q;
    int end = (int)(rows - start < TILE_Q ? rows - start : TILE_Q);
    int groups = larger(1, THREADS / cut->items), group = THREAD / cut->items, each = (TILE_Q + groups - 1) / groups;
    if (cut->items > THREADS) {
        for (int item = THREAD; item < cut->items; item += THREADS) turn_rows(a, cut, item, start, start + end);
    } else if (group < groups && group * each < end) {
        turn_rows(a, cut, THREAD - group * cut->items, start + group * each, start + smaller(end, (group + 1) * each));
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct rope_args args)
{
    const struct rope_args *a = ARGUMENT(rope_args, args);
    struct rope_cut cut = rope_cut_of(&a->x, &a->out, a->channels, a->rotary, a->interleaved);
    if (cut.run == 8) {
        cut.run = 8; /* constants, so that each copy is unrolled for its run */
        rope_block(a, &cut);
    } else if (cut.run == 4) {
        cut.run = 4;
        rope_block(a, &cut);
    } else {
        cut.run = 1;
        rope_block(a, &cut);
    }
}
