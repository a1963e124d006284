/* kv_append.cu: new keys and values behind those that a plain or paged cache holds; keys rotated,
 * both converted or quantised to i8 on the way. Portable. Rows are numbered [batch][token][head]
 * (ragged: [total token][head]): the heads of a token are neighbours, and the block works out where
 * its rows lie and the angles of its tokens once, in shared memory. */
#include "rope.h"

enum {
    AT_ONCE = 4,   /* copied pieces whose loads are in flight together */
    ANGLES = 2048, /* pairs of as many tokens as fit: at least 2 */
    LANES = 16     /* of a row that is quantised */
};

/* Of K and V; a row of a token of no sequence goes nowhere. */
struct append_table {
    float cosine[ANGLES], sine[ANGLES];
    struct rope_row row[2][TILE_Q];
    float *scales[2][TILE_Q]; /* of an i8 cache */
    int64_t position[TILE_Q]; /* of the places */
} __attribute__((aligned(16)));

/* What belongs to K (which 0) or V (1). */
struct append_half {
    const struct view *from, *to, *scale;
    int which, channels, block, rotary;
};

/* A token of k_new: ragged: b is 0 and token counts in the total. */
struct append_place {
    int b, token;
    int64_t outer, inner; /* of the cache: batch or page (-1: a token of no sequence), row */
    int64_t position;
};

DEVICE struct append_place append_place_of(const struct kv_append_args *a, int64_t place)
{
    struct append_place r;
    r.b = (int)quotient(place, a->tokens);
    r.token = (int)(place - (int64_t)r.b * a->tokens);
    int sequence = r.b, first = 0;
    if (a->q_start.data) {
        sequence = sequence_of_token(&a->q_start, a->batch, r.token);
        first = (int)load_index(&a->q_start, sequence, 0);
        if (r.token < first || r.token >= load_index(&a->q_start, sequence + 1, 0)) {
            r.outer = -1, r.inner = r.position = 0;
            return r;
        }
    }
    int64_t held = a->kv_length.data ? load_index(&a->kv_length, sequence, 0) : 0,
            at = held + r.token - first;
    r.outer = sequence;
    r.inner = at;
    if (a->page_table.data) {
        int page = a->page_shift >= 0 ? (int)(at >> a->page_shift) : (int)at / a->page_tokens;
        r.outer = load_index(&a->page_table, sequence, page);
        r.inner = at - (int64_t)page * a->page_tokens;
    }
    r.position = a->rope.position.data ? load_index(&a->rope.position, r.b, r.token) : at;
    return r;
}

/* `count` rows from number `first` of the heads of `place` on, and the angles of their places. */
DEVICE void fill_table(const struct kv_append_args *a, int first, int count, int64_t place,
                       int places, struct append_table *table)
{
    int pairs = a->rope.rotary / 2;
#pragma unroll 1
    for (int i = THREAD; i < count; i += THREADS) {
        a = AGAIN(kv_append_args, a);
        int at = (uint32_t)(first + i) / (uint32_t)a->kv_heads, head = first + i - at * a->kv_heads;
        struct append_place p = append_place_of(a, place + at);
        struct rope_row k = {element_at(&a->k_new, p.b, head, p.token, 0), (char *)0, at * pairs},
                        v = {element_at(&a->v_new, p.b, head, p.token, 0), (char *)0, 0};
        table->scales[0][i] = table->scales[1][i] = (float *)0;
        if (p.outer >= 0) {
            k.to = element_at(&a->k, p.outer, head, p.inner, 0);
            v.to = element_at(&a->v, p.outer, head, p.inner, 0);
            table->scales[0][i] = (float *)element_at(&a->k_scale, p.outer, head, p.inner, 0);
            table->scales[1][i] = (float *)element_at(&a->v_scale, p.outer, head, p.inner, 0);
        }
        table->row[0][i] = k;
        table->row[1][i] = v;
        if (i == 0 || head == 0) table->position[at] = p.position;
    }
    if (!pairs) return;
    block_barrier();
#pragma unroll 1
    for (int i = THREAD; i < places * pairs; i += THREADS) {
        a = AGAIN(kv_append_args, a);
        struct angle t = pair_angle(&a->rope, i % pairs, table->position[i / pairs]);
        table->cosine[i] = t.cosine;
        table->sine[i] = t.sine;
    }
}

/* ---- i8 -------------------------------------------------------------------------------------- */

/* One channel of the row after rotation; angle: where the row's angles begin in the table. */
DEVICE float new_value(const struct kv_append_args *a, const struct append_half *h, const char *row,
                       int channel, int angle, const struct append_table *table)
{
    const struct view *v = h->from;
    float x = load_element(row, channel * v->stride[3], v->dtype);
    if (channel >= h->rotary) return x;
    int interleaved = a->rope.interleaved, pairs = h->rotary / 2;
    int pair = interleaved ? channel / 2 : channel % pairs,
        second = interleaved ? channel & 1 : channel >= pairs;
    int other = interleaved ? channel ^ 1 : second ? channel - pairs : channel + pairs;
    float y = load_element(row, other * v->stride[3], v->dtype);
    float cosine = table->cosine[angle + pair], sine = table->sine[angle + pair];
    return second ? y * sine + x * cosine : x * cosine - y * sine;
}

/* Symmetric i8: scale = largest magnitude / 127 per block of channels, but at least 2^-126, so that
 * neither the scale nor its inverse leaves the normal numbers; 0 for zeros alone; a block with NaN or
 * infinity gets the scale NaN, so that it stays visible. Values are those of the CPU's kv_append. All
 * lanes of a wave go along, since they ask each other, those of a row that is not written too. */
DEVICE void quantise_row(const struct kv_append_args *a, const struct append_half *h, int number,
                         int written, const struct append_table *table)
{
    int lane = THREAD % LANES, angle = table->row[h->which][number].angle;
    const char *row = table->row[h->which][number].from;
    char *cache = written ? table->row[h->which][number].to : (char *)0;
    float *scale = table->scales[h->which][number];
    for (int start = 0; start < h->channels; start += h->block, scale += h->scale->stride[3]) {
        float largest = 0, bad = 0;
        for (int c = start + lane; c < start + h->block; c += LANES) {
            float x = new_value(a, h, row, c, angle, table);
            if (!is_finite(x)) bad = 1;
            largest = maximum(largest, x < 0 ? -x : x);
        }
        largest = max_of_16(largest);
        bad = max_of_16(bad);
        if (largest > 0) largest = maximum(largest, 127 * 0x1p-126f);
        float inverse = bad == 0 && largest > 0 ? 127 / largest : 0;
        if (cache && lane == 0)
            STORE(float, scale, bad != 0 ? float_of(0x7fc00000u) : largest / 127);
        for (int c = start + lane; cache && c < start + h->block; c += LANES) {
            float q = nearest_f32(new_value(a, h, row, c, angle, table) * inverse);
            if (bad != 0) q = 1;
            STORE(int8_t, cache + c * h->to->stride[3],
                  (int8_t)(q > 127    ? 127
                           : q < -127 ? -127
                                      : q));
        }
    }
}

/* ---- Floats ---------------------------------------------------------------------------------- */

/* Copied channels in runs, as they lie. */
DEVICE void copy_rows(const struct rope_row *rows, const struct rope_span *s,
                      const struct rope_cut *cut)
{
    int at = item_channel(cut, s->item) * dtype_bytes(cut->in);
#pragma unroll 1
    for (int row = s->first; row < s->end; row += AT_ONCE * s->step) {
        uint4 pieces[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            pieces[i] = LOAD(uint4, rows[smaller(row + i * s->step, s->end - 1)].from + at);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (row + i * s->step < s->end && rows[row + i * s->step].to)
                STORE(uint4, rows[row + i * s->step].to + at, pieces[i]);
    }
}

/* Neighbouring threads take the items of a row, then the next row. */
DEVICE void append_items(const struct append_half *h, const struct rope_cut *cut, int count,
                         const struct append_table *table)
{
    const struct rope_row *rows = table->row[h->which];
    int across = larger(1, smaller(cut->items, THREADS)), groups = THREADS / across;
    struct rope_span s = {THREAD % across, THREAD / across, groups, count};
    if (s.first >= groups) return;
#pragma unroll 1
    for (; s.item < cut->items; s.item += across) {
        if (cut->run > 1 && s.item >= cut->pair_items) copy_rows(rows, &s, cut);
        else turn_rows(rows, &s, cut, h->from, h->to, table->cosine, table->sine);
    }
}

/* K or V of the table's rows. */
DEVICE void append_half(const struct kv_append_args *a, const struct append_half *h, int count,
                        const struct append_table *table)
{
    if (h->to->dtype == DTYPE_i8) {
        for (int first = 0; first < count; first += THREADS / LANES) {
            int number = first + THREAD / LANES;
            quantise_row(a, h, smaller(number, count - 1), number < count, table);
        }
        return;
    }
    struct rope_cut cut = rope_cut_of(h->from, h->to, h->channels, h->rotary, a->rope.interleaved);
    if (cut.run == 8 && cut.in == DTYPE_bf16) {
        cut.run = 8; /* constants, so that each copy is unrolled for its run */
        cut.in = cut.out = DTYPE_bf16;
        append_items(h, &cut, count, table);
    } else if (cut.run == 8) {
        cut.run = 8;
        cut.in = cut.out = DTYPE_f16;
        append_items(h, &cut, count, table);
    } else if (cut.run == 4) {
        cut.run = 4;
        cut.in = cut.out = DTYPE_f32;
        append_items(h, &cut, count, table);
    } else {
        cut.run = 1;
        append_items(h, &cut, count, table);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct kv_append_args args)
{
    __shared__ struct append_table table;
    const struct kv_append_args *a = ARGUMENT(kv_append_args, args);
    int64_t rows = (int64_t)(a->q_start.data ? 1 : a->batch) * a->kv_heads * a->tokens,
            start = (int64_t)BLOCK_X * TILE_Q, place = quotient(start, a->kv_heads);
    int left = (int)(rows - start < TILE_Q ? rows - start : TILE_Q),
        first = (int)(start - place * a->kv_heads); /* of what is left, within the place */
#pragma unroll 1
    while (left > 0) {
        a = AGAIN(kv_append_args, a);
        int pairs = a->rope.rotary / 2, most = pairs ? smaller(TILE_Q, ANGLES / pairs) : TILE_Q;
        int places = smaller(most, (first + left + a->kv_heads - 1) / a->kv_heads),
            count = smaller(first + left, places * a->kv_heads) - first;
        block_barrier();
        fill_table(a, first, count, place, places, &table);
        block_barrier();
#pragma unroll 1
        for (int which = 0; which < 2; which++) {
            a = AGAIN(kv_append_args, a);
            struct append_half h = {
                which ? &a->v_new : &a->k_new,       which ? &a->v : &a->k,
                which ? &a->v_scale : &a->k_scale,   which,
                which ? a->v_channels : a->channels, which ? a->v_block : a->k_block,
                which ? 0 : a->rope.rotary};
            append_half(a, &h, count, &table);
        }
        place += places;
        left -= count;
        first = 0;
    }
}
