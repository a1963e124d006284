/* causal_mask.cu: scores = -inf in place where a key is hidden: right of the diagonal; with the
 * composed path's options also by window, length and mask, after softcap, bias and ALiBi. Portable.
 *
 * Hidden runs are written without being read, but for the 32 bytes in which one begins: what is
 * visible there is read, so that they are written whole and memory has nothing to complete. Memory
 * that changes between reading and writing loses several times what those reads take, so there is
 * one block for each multiprocessor, which reads for as many rows as it has room for in shared
 * memory and then writes them. Where they lie is worked out while the launch before still runs. */
#include "early.h"
#include "rows.h"
#include "score_change.h"

/* A row of scores: columns [0, first) and [end, columns) are hidden. */
struct hidden_row {
    char *to; /* its first element; NULL: no row */
    int32_t first, end;
};

/* Rows of which a block has the beginnings: two pieces of 16 bytes and a hidden_row for each. */
enum { MOST = SHARED_BYTES / 48 };
extern __shared__ uint4 beginnings[]; /* [row][2], then hidden_row [row] */

/* What the composed path's options make of a scaled score. */
DEVICE float finished_score(const struct attention_args *a, const struct score_row *r, float s,
                            int key)
{
    if (a->mask.data && is_masked(a, &r->seq, r->head, r->query, key)) return -INFINITY;
    return changed_score(a, &r->seq, r->b, r->head, s, r->query, key);
}

/* Elements [first, end) of a row become -inf. */
DEVICE void hide_elements(const struct view *v, char *row, int first, int end, int lanes, int lane)
{
    int64_t step = v->stride[3] * dtype_bytes(v->dtype);
    for (int at = first + lane; at < end; at += lanes)
        store_element(row + at * step, 0, v->dtype, -INFINITY);
}

/* 16 bytes of a row, `run` elements, of which [first, end) stay as they are. */
DEVICE uint4 partly_hidden(uint4 h, int first, int end, int run, uint32_t hidden)
{
    uint32_t w[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int low = i * run / 4, high = low + run / 8; /* the elements of a word; one of 32 bits */
        uint32_t kept = (low >= first && low < end ? 0xffffu : 0) |
                        (high >= first && high < end ? 0xffff0000u : 0);
        w[i] = (w[i] & kept) | (hidden & ~kept);
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

/* Row number `number`, r. */
DEVICE struct hidden_row hidden_row_of(const struct attention_args *a, const struct score_row *r)
{
    int position = r->query + r->seq.offset;
    struct hidden_row h;
    h.to = element_at(&a->scores, r->seq.q_batch, r->head, r->seq.q_start + r->query, 0);
    h.end =
        larger(0, smaller(smaller(r->seq.kv_length, a->columns), position + a->window_right + 1));
    h.first = larger(0, smaller(h.end, position - a->window_left));
    return h;
}

DEVICE int has_changes(const struct attention_args *a)
{
    return a->mask.data || a->bias.data || a->alibi.data || a->softcap > 0;
}

/* ---- Rows of 16-byte pieces -------------------------------------------------------------------- */

/* `run` elements are a piece. Columns of whole pieces; where the two begin in which hidden columns
 * do, at `end`. */
DEVICE int whole_columns(const struct attention_args *a, int run)
{
    return a->columns / run * run;
}

DEVICE int beginning(int end, int run)
{
    return end / (2 * run) * (2 * run);
}

/* 16 bytes whose neighbours nobody will want, and which this launch may write later. */
DEVICE uint4 load_piece(const char *from)
{
#ifdef __HIP__
    return LOAD(uint4, from);
#else
    uint4 p;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(p.x), "=r"(p.y), "=r"(p.z), "=r"(p.w)
                 : "l"(from));
    return p;
#endif
}

/* The block's rows from number `from` on, `blocks` apart. Of memory, only lengths are read. */
DEVICE void find_rows(const struct attention_args *a, struct hidden_row *row, int64_t from,
                      int64_t blocks, int count)
{
    int64_t rows = score_row_count(a);
    if (a->q_start.data || a->kv_start.data || a->kv_length.data) wait_for_predecessors();
#pragma unroll 1
    for (int i = THREAD; i < count; i += THREADS) {
        a = AGAIN(attention_args, a);
        int64_t number = from + i * blocks;
        struct hidden_row h = {(char *)0, 0, 0};
        if (number < rows) {
            struct score_row r = score_row_of(a, number);
            h = hidden_row_of(a, &r);
        }
        row[i] = h;
    }
}

/* Each thread those rows that it has found itself, the loads of several at once. */
DEVICE void read_beginnings(const struct hidden_row *row, int run, int whole, int count)
{
    enum { TOGETHER = 4 };
#pragma unroll 1
    for (int i = THREAD; i < count; i += TOGETHER * THREADS) {
        uint4 piece[TOGETHER][2] = {};
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            struct hidden_row h = {(char *)0, 0, 0};
            if (i + j * THREADS < count) h = row[i + j * THREADS];
            int start = beginning(h.end, run);
            const char *at = h.to + start * (16 / run);
            if (start < h.end && h.end < whole) {
                piece[j][0] = load_piece(at);
                if (start + run < whole) piece[j][1] = load_piece(at + 16);
            }
        }
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            int n = i + j * THREADS;
            if (n >= count) break;
            beginnings[2 * n] = piece[j][0];
            beginnings[2 * n + 1] = piece[j][1];
        }
    }
    block_barrier();
}

DEVICE void write_row(const struct attention_args *a, const struct hidden_row *h,
                      const uint4 *pieces, int run, int lanes, int lane)
{
    uint32_t hidden = hidden_bits(a->scores.dtype);
    uint4 all = {hidden, hidden, hidden, hidden};
    int whole = whole_columns(a, run), start = beginning(h->end, run), at = start + lane * run;
    int was_read = h->end < whole && start < h->end,
        left = was_read ? smaller(h->first, start) : h->first;
    if (left > 0) hide(&a->scores, h->to, 0, left, run, lanes, lane);
    if (h->end < whole && at < whole) {
        uint4 own = all;
        if (lane < 2 && was_read)
            own = partly_hidden(pieces[lane], h->first - at, h->end - at, run, hidden);
        STORE(uint4, h->to + at * (16 / run), own);
        for (at += lanes * run; at < whole; at += lanes * run)
            STORE(uint4, h->to + at * (16 / run), all);
    }
    if (whole < a->columns)
        hide_elements(&a->scores, h->to, larger(h->end, whole), a->columns, lanes, lane);
}

/* Rows BLOCK_X + blocks * n, of which there are `each`. */
DEVICE void rows_of_pieces(const struct attention_args *a, int run, int64_t blocks, int64_t each,
                           int lanes)
{
    struct hidden_row *row = (struct hidden_row *)(beginnings + 2 * MOST);
    int lane = THREAD % lanes, group = THREAD / lanes, groups = THREADS / lanes;
#pragma unroll 1
    for (int64_t done = 0; done < each; done += MOST) {
        int count = each - done < MOST ? (int)(each - done) : MOST;
        if (done > 0) block_barrier();
        find_rows(AGAIN(attention_args, a), row, BLOCK_X + done * blocks, blocks, count);
        wait_for_predecessors();
        read_beginnings(row, run, whole_columns(a, run), count);
#pragma unroll 1
        for (int n = group; n < count; n += groups)
            if (row[n].to)
                write_row(AGAIN(attention_args, a), &row[n], beginnings + 2 * n, run, lanes, lane);
    }
}

/* ---- Rows of elements, and options ------------------------------------------------------------- */

DEVICE void changed_row(const struct attention_args *a, int64_t number, int run, int changes,
                        int lanes, int lane)
{
    int64_t step = a->scores.stride[3] * dtype_bytes(a->scores.dtype);
    struct score_row r = score_row_of(a, number);
    struct hidden_row h = hidden_row_of(a, &r);
    if (h.first > 0) hide(&a->scores, h.to, 0, h.first, run, lanes, lane);
    hide(&a->scores, h.to, h.end, a->columns, run, lanes, lane);
    if (!changes) return;
    a = AGAIN(attention_args, a);
    for (int key = h.first + lane; key < h.end; key += lanes) {
        char *at = h.to + key * step;
        float s = load_element(at, 0, a->scores.dtype);
        store_element(at, 0, a->scores.dtype, finished_score(a, &r, s, key));
    }
}

DEVICE void changed_rows(const struct attention_args *a, int run, int64_t blocks, int lanes)
{
    int64_t rows = score_row_count(a), groups = THREADS / lanes, group = THREAD / lanes;
    int changes = has_changes(a);
    wait_for_predecessors();
#pragma unroll 1
    for (int64_t row = BLOCK_X + blocks * group; row < rows; row += blocks * groups)
        changed_row(AGAIN(attention_args, a), row, run, changes, lanes, THREAD % lanes);
}

/* ---- Blocks ------------------------------------------------------------------------------------ */

/* Lanes that share a row: fewer for short rows, more where the block has few. */
DEVICE int lanes_of(const struct attention_args *a, int64_t each)
{
    int few = each < THREADS ? THREADS / power_from((int)each) : 1;
    return smaller(THREADS, larger(few, larger(8, smaller(WAVE, power_from(a->columns / 32)))));
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int64_t rows = score_row_count(a), blocks = rows < a->units ? rows : a->units;
    int64_t each = (rows + blocks - 1) / blocks;
    int run = a->scores.dtype == DTYPE_f32 ? 4 : 8, lanes = lanes_of(a, each);
    if (!runs_aligned(&a->scores, run)) run = 1;
    if (run == 1 || has_changes(a)) changed_rows(a, run, blocks, lanes);
    else if (run == 4) rows_of_pieces(a, 4, blocks, each, lanes);
    else rows_of_pieces(a, 8, blocks, each, lanes);
}
