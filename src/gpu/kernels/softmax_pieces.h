/* softmax_pieces.h: where a row of softmax lies, who works on it, and how its elements come and go in
 * pieces. */
#ifndef RAPT_SOFTMAX_PIECES_H
#define RAPT_SOFTMAX_PIECES_H

#include "rows.h"

enum { EDGE = 8 }; /* more than the elements at an edge of a row */

/* Who works on a row. A wave's lanes have neighbouring pieces, `step` columns between those of one
 * lane; waves follow each other. */
struct team {
    int lanes;         /* of a team, a power of two */
    int number, count; /* which of the block's teams this is, how many there are */
    int first, step;   /* first column of this lane, columns between its pieces */
    float *shared;     /* for reductions over waves: of maxima, then of sums */
};

DEVICE int lane_of(const struct team *t)
{
    return fresh(THREAD) & (t->lanes - 1);
}

/* Where row `number` is read and written, and what it needs besides. */
struct place {
    const char *from; /* of whole pieces from here on */
    char *to;
    float *lse; /* NULL: none */
    float sink; /* a logit without a column; -inf: none */
    int end;    /* of the whole pieces, in columns from here */
    int edge;   /* this lane's element outside of them; EDGE_NONE: has none */
};
#define EDGE_NONE (-(1 << 30))

DEVICE struct place place_of(const struct attention_args *a, int64_t number, int simple)
{
    const struct view *in = &a->scores, *out = &a->weights;
    struct place p = {(char *)in->data + number * in->stride[2] * dtype_bytes(in->dtype),
                      (char *)out->data + number * out->stride[2] * dtype_bytes(out->dtype),
                      (float *)0,
                      -INFINITY,
                      a->columns,
                      EDGE_NONE};
    if (simple) return p;
    a = AGAIN(attention_args, a);
    struct score_row s = score_row_of(a, number);
    int b = s.seq.q_batch, token = s.seq.q_start + s.query;
    p.from = element_at(in, b, s.head, token, 0);
    p.to = element_at(out, b, s.head, token, 0);
    if (a->lse.data) p.lse = (float *)element_at(&a->lse, b, s.head, token, 0);
    if (a->sink.data) p.sink = load_element(element_at(&a->sink, s.b, s.head, 0, 0), 0, DTYPE_f32);
    return p;
}

/* How rows are read and written. run: elements of a piece, which has 16 bytes, 4 or one element;
 * kept: elements of one row that a lane holds in pieces. Constants but for the last two. */
struct form {
    int64_t dtype;
    int run, kept;
    int columns, whole; /* whole: every row begins and ends with a piece */
};

/* Cuts the row at its 16-byte boundaries; lane: within the team, of at least 2 * EDGE. */
DEVICE void cut_edges(struct place *p, const struct form *f, int lane)
{
    int bytes = dtype_bytes(f->dtype), before = (int)(-(uint64_t)p->from & 15) / bytes,
        head = smaller(before, f->columns);
    p->end = (f->columns - head) / f->run * f->run;
    p->from += head * bytes;
    p->to += head * bytes;
    if (lane < head) p->edge = lane - head;
    else if ((uint32_t)(lane - EDGE) < (uint32_t)(f->columns - head - p->end))
        p->edge = p->end + lane - EDGE;
}

/* 32-bit words that a piece takes in registers. */
DEVICE int piece_words(const struct form *f)
{
    return larger(1, f->run * dtype_bytes(f->dtype) / 4);
}

DEVICE void load_piece(uint32_t *raw, const char *from, const struct form *f)
{
    if (piece_words(f) == 4) {
        uint4 h = LOAD(uint4, from);
        raw[0] = h.x, raw[1] = h.y, raw[2] = h.z, raw[3] = h.w;
    } else if (f->run * dtype_bytes(f->dtype) == 4) raw[0] = LOAD(uint32_t, from);
    else raw[0] = LOAD(uint16_t, from);
}

/* The lane's pieces of a row from column `start` on, -inf from the end on. */
DEVICE void load_pieces(uint32_t *raw, const struct place *p, const struct form *f, int start,
                        const struct team *t)
{
    int first = start + t->first, step = fresh(t->step);
    const char *from = p->from + (int64_t)first * dtype_bytes(f->dtype);
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++) {
#pragma unroll
        for (int w = 0; w < piece_words(f); w++)
            raw[k * piece_words(f) + w] = hidden_bits(f->dtype);
        if (first + k * step < p->end) load_piece(raw + k * piece_words(f), from, f);
        from += step * dtype_bytes(f->dtype);
    }
}

DEVICE float load_edge(const struct place *p, const struct form *f)
{
    return p->edge == EDGE_NONE ? -INFINITY : load_element(p->from, p->edge, f->dtype);
}

DEVICE void unpack_pieces(float *x, const uint32_t *raw, const struct form *f)
{
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++)
#pragma unroll
        for (int w = 0; w < piece_words(f); w++) {
            uint32_t h = raw[k * piece_words(f) + w];
            float *to = x + k * f->run + w * f->run / piece_words(f);
            to[0] = f->dtype == DTYPE_f32   ? float_of(h)
                    : f->dtype == DTYPE_f16 ? f16_to_f32((uint16_t)h)
                                            : float_of(h << 16);
            if (f->dtype == DTYPE_f32 || f->run == 1) continue;
            to[1] =
                f->dtype == DTYPE_f16 ? f16_to_f32((uint16_t)(h >> 16)) : float_of(h & 0xffff0000u);
        }
}

#ifndef __HIP__
/* The larger one of two 16-bit floats each; the other one when one is NaN. */
DEVICE uint32_t max_of_two(uint32_t a, uint32_t b, int64_t dtype)
{
    uint32_t c;
    if (dtype == DTYPE_f16) asm("max.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    else asm("max.bf16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    return c;
}
#endif

/* The larger of m and the largest element of the pieces. */
DEVICE float max_of_pieces(const uint32_t *raw, const struct form *f, float m)
{
#ifndef __HIP__
    if (f->dtype != DTYPE_f32 && f->run > 1) {
        uint32_t most = raw[0];
#pragma unroll
        for (int i = 1; i < f->kept / 2; i++) most = max_of_two(most, raw[i], f->dtype);
        struct form last = {f->dtype, 2, 2, 0, 0};
        float x[2];
        unpack_pieces(x, &most, &last);
        return maximum(m, maximum(x[0], x[1]));
    }
#endif
    float x[64];
    unpack_pieces(x, raw, f);
#pragma unroll
    for (int i = 0; i < f->kept; i++) m = maximum(m, x[i]);
    return m;
}

DEVICE void store_piece(char *to, const float *x, const struct form *f)
{
    if (piece_words(f) == 4) store_run(to, f->dtype, f->run, f->run, x);
    else if (f->run == 2) STORE(uint32_t, to, pack_two(x[0], x[1], f->dtype));
    else store_element(to, 0, f->dtype, x[0]);
}

DEVICE void store_pieces(const float *x, const struct place *p, const struct form *f, int start,
                         const struct team *t)
{
    int first = start + t->first, step = fresh(t->step);
    char *to = p->to + (int64_t)first * dtype_bytes(f->dtype);
#pragma unroll
    for (int k = 0; k < f->kept / f->run; k++) {
        if (first + k * step < p->end) store_piece(to, x + k * f->run, f);
        to += step * dtype_bytes(f->dtype);
    }
}

DEVICE void store_edge(float x, const struct place *p, const struct form *f)
{
    if (p->edge != EDGE_NONE) store_element(p->to, p->edge, f->dtype, x);
}

#endif
