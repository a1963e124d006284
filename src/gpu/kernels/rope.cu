/* rope.cu: rotary position embedding, half-split or interleaved, of part or all of a head's
 * channels; out may be x. Portable. Rows are numbered [batch][token][head]: the heads of a token
 * are neighbours, and the block computes the angles of its tokens once, in shared memory, for all
 * of them. */
#include "rope.h"

enum {
    AT_ONCE = 2,  /* rows whose loads are in flight together */
    ANGLES = 2048 /* pairs of as many tokens as fit: at least 7 tokens */
};

/* The angles of tokens first_place ... of all sequences in a row (place = batch * tokens + token).
 */
struct angle_table {
    float cosine[ANGLES], sine[ANGLES];
};

struct rope_row {
    int b, token, head;
};

DEVICE struct rope_row rope_row_of(const struct rope_args *a, int64_t row)
{
    struct rope_row r;
    int64_t place = quotient(row, a->heads);
    r.head = (int)(row - place * a->heads);
    r.b = (int)quotient(place, a->tokens);
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

/* The angles of `count` tokens from first_place on. */
DEVICE void fill_angles(const struct rope_args *a, int64_t first_place, int count,
                        struct angle_table *table)
{
    int pairs = a->rotary / 2;
    for (int i = THREAD; i < count * pairs; i += THREADS) {
        int64_t place = first_place + i / pairs;
        struct rope_row r = {(int)quotient(place, a->tokens), 0, 0};
        r.token = (int)(place - (int64_t)r.b * a->tokens);
        struct angle t = pair_angle(a, i % pairs, position_of(a, &r));
        table->cosine[i] = t.cosine;
        table->sine[i] = t.sine;
    }
}

/* Rows first ... end - 1, one item of each; their tokens are in the table from first_place on. */
DEVICE void turn_rows(const struct rope_args *a, const struct rope_cut *cut, int item,
                      int64_t first, int64_t end, int64_t first_place,
                      const struct angle_table *table)
{
    struct rope_row at = rope_row_of(a, first);
    for (int64_t row = first; row < end; row += AT_ONCE) {
        struct rope_values values[AT_ONCE];
        struct rope_row place[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            place[i] = at;
            if (row + i < end)
                load_item(&values[i], element_at(&a->x, at.b, at.head, at.token, 0), &a->x, cut,
                          item);
            next_row(a, &at);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (row + i >= end) break;
            const struct rope_row *r = &place[i];
            if (item < cut->pair_items) {
                int token = (int)((int64_t)r->b * a->tokens + r->token - first_place),
                    angle = token * cut->pairs + item * cut->run;
                turn_item(&values[i], cut, table->cosine + angle, table->sine + angle);
            }
            store_item(&values[i], element_at(&a->out, r->b, r->head, r->token, 0), &a->out, cut,
                       item);
        }
    }
}

/* Rows first ... end - 1 of the block, in as many groups of neighbours as there are threads for. */
DEVICE void turn_groups(const struct rope_args *a, const struct rope_cut *cut, int64_t first,
                        int64_t end, int64_t first_place, const struct angle_table *table)
{
    int rows = (int)(end - first), groups = larger(1, THREADS / cut->items),
        group = THREAD / cut->items;
    int each = (rows + groups - 1) / groups, start = group * each;
    if (cut->items > THREADS) {
        for (int item = THREAD; item < cut->items; item += THREADS)
            turn_rows(a, cut, item, first, end, first_place, table);
    } else if (group < groups && start < rows) {
        turn_rows(a, cut, THREAD - group * cut->items, first + start,
                  first + smaller(rows, start + each), first_place, table);
    }
}

DEVICE void rope_block(const struct rope_args *a, const struct rope_cut *cut,
                       struct angle_table *table)
{
    int64_t rows = (int64_t)a->batch * a->heads * a->tokens, start = (int64_t)BLOCK_X * TILE_Q;
    int64_t end = rows - start < TILE_Q ? rows : start + TILE_Q;
    int64_t place = quotient(start, a->heads), last = quotient(end - 1, a->heads);
    int most = cut->pairs ? ANGLES / cut->pairs : TILE_Q;
    for (; place <= last; place += most) {
        int64_t after = place + most <= last ? place + most : last + 1,
                first_row = place * a->heads, last_row = after * a->heads;
        block_barrier();
        fill_angles(a, place, (int)(after - place), table);
        block_barrier();
        turn_groups(a, cut, first_row > start ? first_row : start, last_row < end ? last_row : end,
                    place, table);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct rope_args args)
{
    __shared__ struct angle_table table;
    const struct rope_args *a = ARGUMENT(rope_args, args);
    struct rope_cut cut = rope_cut_of(&a->x, &a->out, a->channels, a->rotary, a->interleaved);
    if (cut.run == 8) {
        cut.run = 8; /* constants, so that each copy is unrolled for its run */
        rope_block(a, &cut, &table);
    } else if (cut.run == 4) {
        cut.run = 4;
        rope_block(a, &cut, &table);
    } else {
        cut.run = 1;
        rope_block(a, &cut, &table);
    }
}
