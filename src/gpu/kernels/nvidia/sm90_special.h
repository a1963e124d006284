/* sm90_special.h: values of V that are NaN or infinite, in a tile that is computed again
 * (sm90_repair.h). Zeros take their place; what they make of the rows that see their keys is found
 * from bits: of each channel of a block there is one for every key whose value is NaN or infinite,
 * of each row one for every key that it sees. Where a row's bits meet a channel's, its result there
 * is NaN or infinite, and is written over what has been stored.
 *
 * The bits lie in shared memory where nothing is during a repair: in stage 1, or with one stage in
 * the other warpgroup's Q. */
#ifndef RAPT_NVIDIA_SM90_SPECIAL_H
#define RAPT_NVIDIA_SM90_SPECIAL_H

#include "sm90_consumer.h"

/* Not where V is integers with one scale for each key: those are all finite, and scales keep to
 * their keys. */
#define SPECIALS !(KV_I8 && SCALE_BLOCKS == 1)

/* What is known of a block's keys, a bit each. */
constexpr int KEY_WORDS = (KEYS + 31) / 32;

#if SPECIALS
/* Numbers that add up to a value, and which of them is NaN or infinite as the value is; channels that
 * are looked at together; 32 bytes for each of these, a bit for every key whose value is NaN or +inf,
 * then one for every key whose value is NaN or -inf; and for each 128 channels the same for what a
 * lane's two rows see. */
constexpr int NUMBERS = PARTS * V_NUMBERS, TELLING = PARTS == 2,
              CHANNELS_AT_ONCE = BY_PANELS ? 64 : 64 * V_PANELS, FOUND_SETS = (V_PANELS + 1) / 2;
constexpr uint32_t FOUND_SET_BYTES = 128 * 16, FOUND_BYTES = FOUND_SETS * FOUND_SET_BYTES,
                   CHANNEL_WORDS = CHANNELS_AT_ONCE * 32;
static_assert(FOUND_BYTES + CHANNEL_WORDS + 16 <= (STAGES > 1 ? K_BYTES : Q_BYTES) &&
                  (STAGES > 1 || GROUPS == 2),
              "room for the bits");

DEVICE uint32_t found_at(const struct consumer &c)
{
    uint32_t at = c.base + (STAGES > 1 ? AT_K + K_BYTES : AT_Q + (1 - group_now(c)) * Q_BYTES);
    asm volatile("" : "+r"(at)); /* computed anew at each use */
    return at;
}

/* The lane's own, of the first 128 channels. */
DEVICE uint32_t own_found(const struct consumer &c)
{
    return found_at(c) + thread_now(c) * 16;
}

DEVICE uint32_t channel_words(const struct consumer &c)
{
    return found_at(c) + FOUND_BYTES;
}

DEVICE void clear_found(const struct consumer &c)
{
    for (int i = 0; i < FOUND_SETS; i++)
        shared_store4(own_found(c) + i * FOUND_SET_BYTES, 0, 0, 0, 0);
}

constexpr uint32_t V_EXPONENT = F16_PARTS && !V_BF16 ? 0x7c00 : 0x7f80,
                   V_FRACTION = 0x7fff - V_EXPONENT;

/* All ones in each half that is NaN or infinite. */
DEVICE uint32_t special_halves(uint32_t x)
{
    return ((x & V_EXPONENT) == V_EXPONENT ? 0xffff : 0) |
           ((x >> 16 & V_EXPONENT) == V_EXPONENT ? 0xffff0000 : 0);
}

constexpr int SIDE_BY_SIDE = BY_PANELS ? 1 : 4; /* loads; there registers are few */

/* One bit for each eight channels in which a key has such values. row: the key's, in `tile`. */
DEVICE uint32_t special_octets(uint32_t tile, int row)
{
    uint32_t octets = 0;
#pragma unroll
    for (int n = 0; n < NUMBERS; n++) {
#pragma unroll SIDE_BY_SIDE
        for (int i = 0; i < CHANNELS_AT_ONCE / 8; i++) {
            int x[4];
            shared_load4(tile + n * V_PART + (i >> 3) * KEYS * 128 + row * 128 + (i & 7) * 16, x[0],
                         x[1], x[2], x[3]);
            uint32_t special = special_halves(x[0]) | special_halves(x[1]) | special_halves(x[2]) |
                               special_halves(x[3]);
            octets |= (uint32_t)(special != 0) << (i ^ (row & 7));
        }
    }
    return octets;
}

/* Of the key of the thread's own number. tile: V. */
DEVICE uint32_t own_octets(const struct consumer &c, uint32_t tile)
{
    int key = thread_now(c);
    return key < KEYS ? special_octets(tile, place_of_key(key)) : 0;
}

/* Bits that a thread of the warpgroup has. */
DEVICE uint32_t group_bits(const struct consumer &c, uint32_t bits)
{
    uint32_t at = channel_words(c) + CHANNEL_WORDS;
    bits = __reduce_or_sync(~0u, bits);
    if (lane_now(c) == 0) shared_store(at + thread_now(c) / 32 * 4, bits);
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
    int x[4];
    shared_load4(at, x[0], x[1], x[2], x[3]);
    return __reduce_or_sync(~0u, x[0] | x[1] | x[2] | x[3]);
}

/* Eight values: the number of each that says what it is, and halves of all ones where another one
 * is not finite. */
struct octet {
    int x[4];
    uint32_t rest[4];
};

/* Zeros take the place of those that are not finite. */
DEVICE struct octet take_octet(uint32_t at)
{
    struct octet o = {};
    uint32_t keep[4];
    shared_load4(at + TELLING * V_PART, o.x[0], o.x[1], o.x[2], o.x[3]);
#pragma unroll
    for (int n = 0; n < NUMBERS; n++) {
        if (n == TELLING) continue;
        int y[4];
        shared_load4(at + n * V_PART, y[0], y[1], y[2], y[3]);
#pragma unroll
        for (int j = 0; j < 4; j++) o.rest[j] |= special_halves(y[j]);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) keep[j] = ~(o.rest[j] | special_halves(o.x[j]));
#pragma unroll
    for (int n = 0; n < NUMBERS; n++) {
        int y[4] = {o.x[0], o.x[1], o.x[2], o.x[3]};
        if (NUMBERS > 1) shared_load4(at + n * V_PART, y[0], y[1], y[2], y[3]);
        shared_store4(at + n * V_PART, y[0] & keep[0], y[1] & keep[1], y[2] & keep[2],
                      y[3] & keep[3]);
    }
    return o;
}

#if BY_PANELS
/* The same for all of a key's row of a panel, two values at a time: registers are few. */
DEVICE void clear_key(uint32_t at)
{
#pragma unroll 1
    for (int i = 0; i < 128; i += 4) {
        uint32_t special = 0;
#pragma unroll
        for (int n = 0; n < NUMBERS; n++)
            special |= special_halves(shared_load(at + i + n * V_PART));
        if (!special) continue;
#pragma unroll
        for (int n = 0; n < NUMBERS; n++)
            shared_store(at + i + n * V_PART, shared_load(at + i + n * V_PART) & ~special);
    }
}
#endif

/* The words of channels, eight for each bit of `octets`, and zeros in V. own: the bits of the
 * thread's key. tile: of V. */
DEVICE void take_special(const struct consumer &c, uint32_t tile, uint32_t own, uint32_t octets)
{
    int thread = thread_now(c), lane = thread & 31, row = place_of_key(thread);
    uint32_t to = channel_words(c) + (lane & 7) * 32 + (lane >> 3) * 16 + (thread >> 5) * 4;
#pragma unroll 1
    for (; octets; octets &= octets - 1) {
        int i = __ffs((int)octets) - 1;
        struct octet o = {};
        uint32_t word = 0;
        if (own >> i & 1)
            o = take_octet(tile + (i >> 3) * KEYS * 128 + row * 128 + (((i ^ row) & 7) << 4));
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t half = (uint32_t)o.x[j / 2] >> 16 * (j & 1),
                     rest = o.rest[j / 2] >> 16 * (j & 1) & 1;
            bool telling = (half & V_EXPONENT) == V_EXPONENT,
                 nan = telling ? (half & V_FRACTION) != 0 : rest != 0;
            uint32_t plus = __ballot_sync(~0u, nan || (telling && !(half & 0x8000))),
                     minus = __ballot_sync(~0u, nan || (telling && (half & 0x8000)));
            if (lane == j) word = plus;
            if (lane == 8 + j) word = minus;
        }
        if (lane < 16 && thread < 32 * KEY_WORDS) shared_store(to + i * 8 * 32, word);
    }
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
}

/* Keys of a block that a row sees. */
struct seen_keys {
    uint32_t word[KEY_WORDS];
};

/* Of the 32 numbers from 32 * word on, those from `from` to `to` - 1. */
DEVICE uint32_t bits_between(int from, int to, int word)
{
    int low = max_int(from - 32 * word, 0), high = min_int(to - 32 * word, 32);
    return low < high ? ~0u >> (32 - (high - low)) << low : 0;
}

/* Of 32 keys, the (lane % 4)th such of a block, those whose byte of the mask is not 0 in row `row` of
 * the tile. */
#if CELLS == 1
DEVICE uint32_t shown_keys(const struct consumer &c, const struct attention_args &,
                           const struct tile &, int, int row)
{
    int first = lane_now(c) & 3;
#if LOOSE
    uint32_t shown = 0, at = own_cells(c) + (row & 15) * LOOSE_PITCH * 4 + first * 32;
#pragma unroll
    for (int i = 0; i < 8; i++)
        shown |= shown4(shared_bytes(at + (c.shift & ~3) + 4 * i, 8 * (c.shift & 3))) << 4 * i;
    return shown;
#else
    uint32_t at = c.base + AT_CELLS + row * 128, shown[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int x[4];
        shared_load4(at + ((2 * first + i ^ (row & 7)) << 4), x[0], x[1], x[2], x[3]);
        shown[i] = shown16(make_uint4(x[0], x[1], x[2], x[3]));
    }
    return shown[0] | shown[1] << 16;
#endif
}
#elif CELL_ROWS
DEVICE uint32_t shown_keys(const struct consumer &c, const struct attention_args &a,
                           const struct tile &t, int block, int row)
{
    int first = (lane_now(c) & 3) * 32;
    const uint8_t *from =
        (const uint8_t *)a.mask.data + cell_offset(a, a.mask, t, block, row) + first;
    if (first >= KEYS) return 0;
    if (!whole_block(a, t, block)) return shown_of(from, kv_tokens(a, &t) - block * KEYS - first);
    const uint4 *x = (const uint4 *)from;
    return shown16(__ldg(x)) | shown16(__ldg(x + 1)) << 16;
}
#endif

/* row: of the tile, one of the lane's. */
DEVICE struct seen_keys keys_seen(const struct consumer &c, const struct attention_args &a,
                                  const struct tile &t, int block, int row)
{
    int key = block * KEYS, keys = kv_tokens(a, &t) - key,
        end = t.rows * tile_tokens(a) + token_of_row(a, row) + query_offset(a, &t) +
              a.window_right + 1 - key;
    int begin = FEATURES ? end - 1 - a.window_right - a.window_left : 0;
    struct seen_keys seen;
#pragma unroll
    for (int i = 0; i < KEY_WORDS; i++) seen.word[i] = bits_between(begin, min_int(end, keys), i);
#if KEYED
#pragma unroll
    for (int i = 0; i < KEY_WORDS; i++) seen.word[i] &= __ballot_sync(~0u, c.cells.shown[i] != 0);
#elif CELLS == 1 || CELL_ROWS
    if (CELL_ROWS && !a.mask.data) return seen;
    uint32_t shown = shown_keys(c, a, t, block, row);
#pragma unroll
    for (int i = 0; i < KEY_WORDS; i++)
        seen.word[i] &= __shfl_sync(~0u, shown, (lane_now(c) & ~3) + i);
#endif
    return seen;
}

/* What rows see of channels from `first` on, eight for each bit of `octets`, is added to what was
 * found for them; a lane has each fourth channel. */
template <int COUNT>
DEVICE void note_rows(const struct seen_keys (&seen)[COUNT], uint32_t found, uint32_t words,
                      int first, uint32_t octets)
{
    uint32_t x[2 * COUNT];
#pragma unroll
    for (int j = 0; j < COUNT; j++) shared_load2(found + 8 * j, x[2 * j], x[2 * j + 1]);
#pragma unroll 1
    for (; octets; octets &= octets - 1) {
        int i = 2 * (__ffs((int)octets) - 1);
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int of[4];
                shared_load4(words + (i + n) * 128 + 16 * e, of[0], of[1], of[2], of[3]);
#pragma unroll
                for (int j = 0; j < COUNT; j++) {
                    uint32_t met = 0;
#pragma unroll
                    for (int w = 0; w < KEY_WORDS; w++) met |= of[w] & seen[j].word[w];
                    x[2 * j + e] |= (uint32_t)(met != 0) << (first / 4 % 32 + i + n);
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < COUNT; j++) shared_store2(found + 8 * j, x[2 * j], x[2 * j + 1]);
}

/* The same of the lane's two rows, and of all channels that are looked at. */
DEVICE void note_special(const struct consumer &c, const struct attention_args &a,
                         const struct tile &t, int block, int first, uint32_t octets)
{
    constexpr int COUNT = PARTS == 1 ? 2 : 1; /* f32: registers are few */
#if LOOSE && CELLS == 1
    await_rows();
#endif
#pragma unroll 1
    for (int r = 0; r < 2; r += COUNT) {
        struct seen_keys seen[COUNT];
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            seen[j] = keys_seen(c, a, t, block, row_now(c) + 8 * (r + j));
#pragma unroll 1
        for (int done = 0; done < CHANNELS_AT_ONCE; done += 128)
            note_rows(seen, own_found(c) + (first + done) / 128 * FOUND_SET_BYTES + 8 * r,
                      channel_words(c) + (done + (lane_now(c) & 3)) * 32, first,
                      octets >> done / 8 & 0xffff);
    }
}

/* Where the lane's row `row` of the tile, or part, lies, as in store_tile() and store_part(); its
 * elements are f32 or of q's type. None: data 0. */
struct result_row {
    char *data;
    bool is_f32;
};

DEVICE struct result_row result_row_of(const struct attention_args &a, const struct tile &t,
                                       int row, float sum)
{
#if SPLIT_KEYS
    int token = t.rows * a.tile_tokens + token_of_row(a, row), head = t.head + row / a.tile_tokens;
    if (head >= t.head - t.head % a.group + a.group || token >= a.q_tokens) return {nullptr, true};
    float *data = partial_out_at(&a, t.part, partial_row(&a, t.batch, head, token), 0);
    return {(char *)data, true};
#else
    int token = t.rows * ROWS + row, batch = t.batch;
    sum += __shfl_xor_sync(~0u, sum, 2);
    sum += __shfl_xor_sync(~0u, sum, 1);
    bool none = sum == 0 && tile_sink(a, t) == -INFINITY; /* all its scores are -inf */
    if (token >= q_tokens(a, &t) || none || sum != sum) return {nullptr, true};
    bool is_f32 = DTYPE == DTYPE_f32 || (FEATURES && a.out.dtype == DTYPE_f32);
#if FEATURES
    token += t.q_start;
    if (a.q_start.data) batch = 0;
#endif
    int64_t at = batch * a.out.stride[0] + t.head * a.out.stride[1] + token * a.out.stride[2];
    return {(char *)a.out.data + at * (is_f32 ? 4 : 2), is_f32};
#endif
}

/* Writes what was noted over the results of the lane's rows; by all lanes of a warp that has stored
 * them. */
DEVICE void store_special(const struct consumer &c, const struct attention_args &a,
                          const struct tile &t, const struct row_state &r)
{
    const int lead = LEADS ? value_lead(leads_of(a, t.head / a.group)) : 0;
    const uint32_t out_exponent = DTYPE == DTYPE_f16 ? 0x7c00 : 0x7f80;
    __syncwarp();
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        struct result_row to = result_row_of(a, t, row_now(c) + 8 * half, half ? r.sum1 : r.sum0);
#pragma unroll 1
        for (int i = 0; i < FOUND_SETS; i++) {
            uint32_t plus, minus;
            shared_load2(own_found(c) + i * FOUND_SET_BYTES + 8 * half, plus, minus);
            uint32_t left = to.data ? plus | minus : 0;
#pragma unroll 1
            for (; left; left &= left - 1) {
                uint32_t bit = left & -left;
                int channel = 128 * i + 4 * (__ffs((int)left) - 1) + (lane_now(c) & 3) - lead;
                if (channel < 0 || channel >= a.v_channels) continue;
                uint32_t sign = minus & bit ? 0x8000 : 0;
                bool nan = (minus & plus & bit) != 0;
                if (to.is_f32)
                    ((uint32_t *)to.data)[channel] = (nan ? 0x7fff : sign | 0x7f80) << 16;
                else ((uint16_t *)to.data)[channel] = nan ? 0x7fff : sign | out_exponent;
            }
        }
    }
}
#endif

#endif
