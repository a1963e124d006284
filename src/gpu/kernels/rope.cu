/* rope.cu: rotary position embedding, half-split or interleaved, of part or all of a head's
 * channels; out may be x. Portable. Rows are numbered [batch][token][head]: the heads of a token
 * are neighbours, and the block computes the angles of its tokens once, in shared memory, for all
 * of them. */
#include "rope.h"

enum { ANGLES = 2048 }; /* pairs of as many tokens as fit: at least 7 tokens */

/* What the block needs of neighbouring rows: the angles of their places (place = batch * tokens +
 * token), and where they lie. */
struct rope_table {
    float cosine[ANGLES], sine[ANGLES];
    struct rope_row row[TILE_Q];
} __attribute__((aligned(16)));

DEVICE int64_t position_of(const struct rope_args *a, int b, int token)
{
    return a->position.data ? load_index(&a->position, b, token) : token;
}

/* `rows` rows from number `first` of the heads of `place` on, and the angles of their places. */
DEVICE void fill_table(const struct rope_args *a, int first, int rows, int64_t place, int places,
                       struct rope_table *table)
{
    int pairs = a->rotary / 2;
#pragma unroll 1
    for (int i = THREAD; i < rows; i += THREADS) {
        a = AGAIN(rope_args, a);
        int at = (uint32_t)(first + i) / (uint32_t)a->heads, head = first + i - at * a->heads;
        int64_t b = quotient(place + at, a->tokens), token = place + at - b * a->tokens;
        table->row[i].from = element_at(&a->x, b, head, token, 0);
        table->row[i].to = element_at(&a->out, b, head, token, 0);
        table->row[i].angle = at * pairs;
    }
    a = AGAIN(rope_args, a);
#pragma unroll 1
    for (int i = THREAD; i < places * pairs; i += THREADS) {
        int64_t at = place + i / pairs, b = quotient(at, a->tokens);
        struct angle t =
            pair_angle(a, i % pairs, position_of(a, (int)b, (int)(at - b * a->tokens)));
        table->cosine[i] = t.cosine;
        table->sine[i] = t.sine;
    }
}

/* Neighbouring threads take the items of a row, then the next row. */
DEVICE void turn_table(const struct rope_args *a, const struct rope_cut *cut, int rows,
                       const struct rope_table *table)
{
    int across = larger(1, smaller(cut->items, THREADS)), groups = THREADS / across;
    struct rope_span s = {THREAD % across, THREAD / across, groups, rows};
    if (s.first >= groups) return;
#pragma unroll 1
    for (; s.item < cut->items; s.item += across)
        turn_rows(table->row, &s, cut, &a->x, &a->out, table->cosine, table->sine);
}

DEVICE void rope_block(const struct rope_args *a, const struct rope_cut *cut,
                       struct rope_table *table)
{
    a = AGAIN(rope_args, a);
    int64_t rows = (int64_t)a->batch * a->heads * a->tokens, start = (int64_t)BLOCK_X * TILE_Q;
    int64_t place = quotient(start, a->heads);
    int left = (int)(rows - start < TILE_Q ? rows - start : TILE_Q),
        first = (int)(start - place * a->heads); /* of the rows that are left, within the place */
    int most = cut->pairs ? smaller(TILE_Q, ANGLES / cut->pairs) : TILE_Q;
#pragma unroll 1
    while (left > 0) {
        a = AGAIN(rope_args, a);
        int places = smaller(most, (first + left + a->heads - 1) / a->heads),
            count = smaller(first + left, places * a->heads) - first;
        block_barrier();
        fill_table(a, first, count, place, places, table);
        block_barrier();
        turn_table(AGAIN(rope_args, a), cut, count, table);
        place += places;
        left -= count;
        first = 0;
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct rope_args args)
{
    __shared__ struct rope_table table;
    const struct rope_args *a = ARGUMENT(rope_args, args);
    struct rope_cut cut = rope_cut_of(&a->x, &a->out, a->channels, a->rotary, a->interleaved);
    /* Constants, so that each copy is unrolled for its run and converts without asking. */
    if (cut.run == 8 && cut.in == DTYPE_bf16) {
        cut.run = 8;
        cut.in = cut.out = DTYPE_bf16;
        rope_block(a, &cut, &table);
    } else if (cut.run == 8) {
        cut.run = 8;
        cut.in = cut.out = DTYPE_f16;
        rope_block(a, &cut, &table);
    } else if (cut.run == 4) {
        cut.run = 4;
        cut.in = cut.out = DTYPE_f32;
        rope_block(a, &cut, &table);
    } else {
        cut.run = 1;
        rope_block(a, &cut, &table);
    }
}
