/* kv_append.cu: new keys and values behind those that a plain or paged cache holds; keys rotated,
 * both converted or quantised to i8 on the way. Portable. Rows are numbered [batch][token][head]
 * (ragged: [total token][head]); 16 lanes share a row. */
#include "rope.h"

enum { LANES = 16, ROWS_AT_ONCE = THREADS / LANES };

/* Where a row comes from and goes to. */
struct append_row {
    int b, head, token;   /* of k_new; ragged: b is 0 and token counts in the total */
    int64_t outer, inner; /* of the cache: batch or page, row */
    int64_t position;
};

DEVICE struct append_row append_row_of(const struct kv_append_args *a, int64_t row)
{
    struct append_row r;
    int64_t place = row / a->kv_heads;
    r.head = (int)(row - place * a->kv_heads);
    int sequence = (int)(place / a->tokens), first = 0;
    r.token = (int)(place - (int64_t)sequence * a->tokens);
    r.b = sequence;
    if (a->q_start.data) {
        sequence = sequence_of_token(&a->q_start, a->batch, r.token);
        first = (int)load_index(&a->q_start, sequence, 0);
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

/* One channel of the row after rotation. */
DEVICE float new_value(const struct kv_append_args *a, const struct view *v, const char *row,
                       int channel, int rotary, int64_t position)
{
    float x = load_element(row, channel * v->stride[3], v->dtype);
    if (channel >= rotary) return x;
    int interleaved = a->rope.interleaved, pairs = rotary / 2;
    int pair = interleaved ? channel / 2 : channel % pairs,
        second = interleaved ? channel & 1 : channel >= pairs;
    int other = interleaved ? channel ^ 1 : second ? channel - pairs : channel + pairs;
    float y = load_element(row, other * v->stride[3], v->dtype), cosine, sine;
    struct rope_cut cut = {1, pairs, pairs, pairs, 0, v->dtype, DTYPE_f32};
    item_angles(&a->rope, &cut, pair, position, &cosine, &sine);
    return second ? y * sine + x * cosine : x * cosine - y * sine;
}

/* Symmetric i8: scale = largest magnitude / 127 per block of channels; a block with NaN or infinity
 * gets the scale NaN, so that it stays visible. Values are those of the CPU's kv_append. */
DEVICE void quantise_row(const struct kv_append_args *a, const struct view *from, const char *row,
                         const struct view *to, char *cache, const struct view *scale, char *scales,
                         int channels, int block, int rotary, int64_t position)
{
    int lane = THREAD % LANES;
    for (int start = 0; start < channels; start += block, scales += scale->stride[3] * 4) {
        float largest = 0, bad = 0;
        for (int c = start + lane; c < start + block; c += LANES) {
            float x = new_value(a, from, row, c, rotary, position);
            if (!is_finite(x)) bad = 1;
            largest = maximum(largest, x < 0 ? -x : x);
        }
        largest = max_of_16(largest);
        bad = max_of_16(bad);
        float inverse = bad == 0 && largest > 0 ? 127 / largest : 0;
        if (lane == 0) STORE(float, scales, bad != 0 ? float_of(0x7fc00000u) : largest / 127);
        for (int c = start + lane; c < start + block; c += LANES) {
            float q = nearest_f32(new_value(a, from, row, c, rotary, position) * inverse);
            if (bad != 0) q = 1;
            STORE(int8_t, cache + c * to->stride[3], (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q));
        }
    }
}

/* The row's items over the 16 lanes; rotary 0 copies. */
DEVICE void append_items(const struct kv_append_args *a, const struct view *from, const char *row,
                         const struct view *to, char *cache, const struct rope_cut *cut,
                         int64_t position)
{
    for (int item = THREAD % LANES; item < cut->items; item += LANES) {
        struct rope_piece piece;
        struct rope_values values;
        load_item(&piece, row, from, cut, item);
        unpack_item(&piece, cut, &values);
        if (item < cut->pair_items) {
            float cosine[RUN_MAX], sine[RUN_MAX];
            item_angles(&a->rope, cut, item, position, cosine, sine);
            turn_item(&values, cut, cosine, sine);
        }
        store_item(&values, cache, to, cut, item);
    }
}

DEVICE void append_one(const struct kv_append_args *a, const struct append_row *r,
                       const struct view *from, const struct view *to, const struct view *scale,
                       int channels, int block, int rotary)
{
    const char *row = element_at(from, r->b, r->head, r->token, 0);
    char *cache = element_at(to, r->outer, r->head, r->inner, 0);
    if (to->dtype == DTYPE_i8) {
        quantise_row(a, from, row, to, cache, scale,
                     element_at(scale, r->outer, r->head, r->inner, 0), channels, block, rotary,
                     r->position);
        return;
    }
    struct rope_cut cut = rope_cut_of(from, to, channels, rotary, a->rope.interleaved);
    if (cut.run == 8) {
        cut.run = 8; /* constants, so that each copy is unrolled for its run */
        append_items(a, from, row, to, cache, &cut, r->position);
    } else if (cut.run == 4) {
        cut.run = 4;
        append_items(a, from, row, to, cache, &cut, r->position);
    } else {
        cut.run = 1;
        append_items(a, from, row, to, cache, &cut, r->position);
    }
}

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct kv_append_args args)
{
    const struct kv_append_args *a = ARGUMENT(kv_append_args, args);
    int64_t rows = (int64_t)(a->q_start.data ? 1 : a->batch) * a->kv_heads * a->tokens;
    for (int i = THREAD / LANES; i < TILE_Q; i += ROWS_AT_ONCE) {
        int64_t row = (int64_t)BLOCK_X * TILE_Q + i;
        if (row >= rows) break;
        struct append_row r = append_row_of(a, row);
        append_one(a, &r, &a->k_new, &a->k, &a->k_scale, a->channels, a->k_block, a->rope.rotary);
        append_one(a, &r, &a->v_new, &a->v, &a->v_scale, a->v_channels, a->v_block, 0);
    }
}
