/* causal_mask.cu: scores = -inf in place where a key is hidden: right of the diagonal; with the
 * composed path's options also by window, length and mask, after softcap, bias and ALiBi. Portable.
 * Hidden runs are written without being read. */
#include "rows.h"

/* softcap, bias and ALiBi on a scaled score, in the order that SEMANTICS gives. */
DEVICE float changed_score(const struct attention_args *a, const struct score_row *r, float s,
                           int key)
{
    int token = r->seq.q_start + r->query;
    if (a->mask.data && !LOAD(uint8_t, element_at(&a->mask, r->seq.q_batch, r->head, token, key)))
        return -INFINITY;
    if (a->softcap > 0) s = a->softcap * tanh_f32(s / a->softcap);
    if (a->bias.data)
        s += load_element(element_at(&a->bias, r->seq.q_batch, r->head, token, key), 0,
                          a->bias.dtype);
    if (a->alibi.data) {
        int distance = r->query + r->seq.offset - key;
        float slope = load_element(element_at(&a->alibi, r->b, r->head, 0, 0), 0, DTYPE_f32);
        s -= slope * (float)(distance < 0 ? -distance : distance);
    }
    return s;
}

/* Elements [first, end) of a row become -inf. */
DEVICE void hide_elements(const struct view *v, char *row, int first, int end, int lanes, int lane)
{
    int64_t step = v->stride[3] * dtype_bytes(v->dtype);
    for (int at = first + lane; at < end; at += lanes)
        store_element(row + at * step, 0, v->dtype, -INFINITY);
}

/* 16 bytes of a row whose first `visible` elements stay as they are; run: elements in them. */
DEVICE uint4 partly_hidden(uint4 h, int visible, int run, uint32_t hidden)
{
    uint32_t w[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int left = visible - i * run / 4;
        if (left <= 0) w[i] = hidden;
        else if (run == 8 && left == 1) w[i] = (w[i] & 0xffff) | (hidden & 0xffff0000u);
    }
    uint4 all = {w[0], w[1], w[2], w[3]};
    return all;
}

/* Columns [first, end), in pieces of 16 bytes where they are aligned (run elements; 1: nowhere). */
DEVICE void hide(const struct view *v, char *row, int first, int end, int run, int lanes, int lane)
{
    int from = (first + run - 1) / run * run, to = end / run * run;
    if (run == 1 || from >= to) {
        hide_elements(v, row, first, end, lanes, lane);
        return;
    }
    uint32_t hidden = hidden_bits(v->dtype);
    uint4 all = {hidden, hidden, hidden, hidden};
    if (first < from) hide_elements(v, row, first, from, lanes, lane);
    for (int at = from + lane * run; at < to; at += lanes * run)
        STORE(uint4, row + at * (16 / run), all);
    if (to < end) hide_elements(v, row, to, end, lanes, lane);
}

/* The 32 bytes in which hidden columns begin, at `first`: two lanes read what is visible there and
 * write them whole, so that memory has no sector to complete. Returns where the rest begins. */
DEVICE int hide_sector(const struct view *v, char *row, int first, int columns, int run, int lane)
{
    int start = first / (2 * run) * (2 * run), rest = smaller(start + 2 * run, columns / run * run),
        at = start + lane * run;
    if (first == start || rest <= first) return first;
    if (lane < 2 && at < rest) {
        char *to = row + at * (16 / run);
        uint32_t hidden = hidden_bits(v->dtype);
        STORE(uint4, to, partly_hidden(LOAD(uint4, to), first - at, run, hidden));
    }
    return rest;
}

DEVICE int has_changes(const struct attention_args *a)
{
    return a->mask.data || a->bias.data || a->alibi.data || a->softcap > 0;
}

/* to: the row's first element; run: elements of aligned pieces, or 1. */
DEVICE void one_row(const struct attention_args *a, const struct score_row *r, char *to, int run,
                    int changes, int lanes, int lane)
{
    int64_t step = a->scores.stride[3] * dtype_bytes(a->scores.dtype);
    int position = r->query + r->seq.offset;
    int end =
        larger(0, smaller(smaller(r->seq.kv_length, a->columns), position + a->window_right + 1));
    int first = larger(0, smaller(end, position - a->window_left));
    int rest = end; /* other lanes change what is visible: each its own elements */
    if (first > 0) hide(&a->scores, to, 0, first, run, lanes, lane);
    if (run > 1 && !changes) rest = hide_sector(&a->scores, to, end, a->columns, run, lane);
    hide(&a->scores, to, rest, a->columns, run, lanes, lane);
    if (!changes) return;
    for (int key = first + lane; key < end; key += lanes)
        store_element(to + key * step, 0, a->scores.dtype,
                      changed_score(a, r, load_element(to + key * step, 0, a->scores.dtype), key));
}

/* Rows first ... end - 1, which are neighbours: most begin one stride behind the one before. */
DEVICE void neighbours(const struct attention_args *a, int64_t first, int64_t end, int lanes,
                       int lane)
{
    const struct view *v = &a->scores;
    int64_t step = v->stride[2] * dtype_bytes(v->dtype);
    int run = v->dtype == DTYPE_f32 ? 4 : 8, changes = has_changes(a);
    if (!runs_aligned(v, run)) run = 1;
    struct score_row r;
    char *to = (char *)v->data;
#pragma unroll 1
    for (int64_t row = first; row < end; row++) {
        if (row > first && r.query + 1 < r.seq.q_length) {
            r.query++;
            to += step;
        } else {
            r = score_row_of(a, row);
            to = element_at(v, r.seq.q_batch, r.head, r.seq.q_start + r.query, 0);
        }
        one_row(a, &r, to, run, changes, lanes, lane);
    }
}

/* A block has as many rows as have TILE_Q elements. Its lanes are shared out among them, eight or
 * more to a row; each group of lanes takes neighbouring rows. */
KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int64_t rows = score_row_count(a), count = larger(1, TILE_Q / power_from(a->columns)),
            first = BLOCK_X * count, end = first + count < rows ? first + count : rows;
    int lanes = THREADS;
    while (lanes > 8 && lanes * count > THREADS) lanes /= 2;
    int groups = THREADS / lanes, each = ((int)count + groups - 1) / groups;
    int64_t own = first + THREAD / lanes * each;
    neighbours(a, own, own + each < end ? own + each : end, lanes, THREAD % lanes);
}
