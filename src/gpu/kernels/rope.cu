/* rope.cu: rotary position embedding, half-split or interleaved, of part or all of a head's
 * channels; out may be x. Portable. Rows are numbered [batch][token][head]: the heads of a token
 * are neighbours, and the block computes the angles of its tokens once, in shared memory, for all
 * of them. */
#include "rope.h"

enum {
    AT_ONCE = 2,  /* rows whose loads are in flight together */
    ANGLES = 2048 /* pairs of as many tokens as fit: at least 7 tokens */
};

/* What the block needs of some neighbouring places (place = batch * tokens + token): their angles,
 * and where their first heads begin, in bytes from the start of x and out. */
struct place_table {
    float cosine[ANGLES], sine[ANGLES];
    int64_t x[TILE_Q], out[TILE_Q];
} __attribute__((aligned(16)));

DEVICE int64_t position_of(const struct rope_args *a, int b, int token)
{
    return a->position.data ? load_index(&a->position, b, token) : token;
}

/* The angles and addresses of `count` places from first on. */
DEVICE void fill_places(const struct rope_args *a, int64_t first, int count,
                        struct place_table *table)
{
    int pairs = a->rotary / 2;
#pragma unroll 1
    for (int i = THREAD; i < count; i += THREADS) {
        int64_t b = quotient(first + i, a->tokens), token = first + i - b * a->tokens;
        table->x[i] =
            (b * a->x.stride[0] + token * a->x.stride[2]) * dtype_bytes(a->x.dtype);
        table->out[i] =
            (b * a->out.stride[0] + token * a->out.stride[2]) * dtype_bytes(a->out.dtype);
    }
    a = AGAIN(rope_args, a);
#pragma unroll 1
    for (int i = THREAD; i < count * pairs; i += THREADS) {
        int64_t place = first + i / pairs, b = quotient(place, a->tokens);
        struct angle t =
            pair_angle(a, i % pairs, position_of(a, (int)b, (int)(place - b * a->tokens)));
        table->cosine[i] = t.cosine;
        table->sine[i] = t.sine;
    }
}

/* The angles of an item's pairs: 16 bytes at a time where they come in runs. */
DEVICE void load_angles(const float *from, int run, float *to)
{
    if (run == 1) to[0] = from[0];
#pragma unroll
    for (int i = 0; i < run / 4; i++) {
        float4 four = ((const float4 *)from)[i];
        to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
    }
}

/* One item of the rows first, first + step, ... below end, counted from head 0 of the table's first
 * place. */
DEVICE void turn_rows(const struct rope_args *a, const struct rope_cut *cut, int item, int first,
                      int end, int step, const struct place_table *table)
{
#pragma unroll 1
    for (int row = first; row < end; row += AT_ONCE * step) {
        struct rope_piece pieces[AT_ONCE];
        a = AGAIN(rope_args, a);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            int at = smaller(row + i * step, end - 1), place = (uint32_t)at / (uint32_t)a->heads,
                head = at - place * a->heads;
            const char *x = (const char *)a->x.data + table->x[place];
            load_item(&pieces[i], x + head * a->x.stride[1] * dtype_bytes(cut->in), &a->x, cut,
                      item);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            a = AGAIN(rope_args, a);
            int at = row + i * step, place = (uint32_t)at / (uint32_t)a->heads,
                head = at - place * a->heads;
            if (at >= end) break;
            struct rope_values values;
            unpack_item(&pieces[i], cut, &values);
            if (item < cut->pair_items) {
                float cosine[RUN_MAX], sine[RUN_MAX];
                int angle = place * cut->pairs + item * cut->run;
                load_angles(table->cosine + angle, cut->run, cosine);
                load_angles(table->sine + angle, cut->run, sine);
                turn_item(&values, cut, cosine, sine);
            }
            char *out = (char *)a->out.data + table->out[place];
            store_item(&values, out + head * a->out.stride[1] * dtype_bytes(cut->out), &a->out, cut,
                       item);
        }
    }
}

/* Rows first ... end - 1, counted as above: neighbouring threads take the items of a row, then the
 * next row. */
DEVICE void turn_groups(const struct rope_args *a, const struct rope_cut *cut, int first, int end,
                        const struct place_table *table)
{
    int groups = larger(1, THREADS / cut->items), group = THREAD / cut->items;
    if (cut->items <= THREADS) {
        if (group < groups)
            turn_rows(a, cut, THREAD - group * cut->items, first + group, end, groups, table);
        return;
    }
    for (int item = THREAD; item < cut->items; item += THREADS)
        turn_rows(a, cut, item, first, end, 1, table);
}

DEVICE void rope_block(const struct rope_args *a, const struct rope_cut *cut,
                       struct place_table *table)
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
        int count = smaller(most, (first + left + a->heads - 1) / a->heads),
            end = smaller(first + left, count * a->heads);
        block_barrier();
        fill_places(a, place, count, table);
        block_barrier();
        turn_groups(a, cut, first, end, table);
        place += count;
        left -= end - first;
        first = 0;
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct rope_args args)
{
    __shared__ struct place_table table;
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
