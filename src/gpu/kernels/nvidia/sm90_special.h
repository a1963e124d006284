/* sm90_special.h: values of V that are NaN or infinite, in a tile that is computed again
 * (sm90_repair.h). Zeros take their place; what they make of the rows that see their keys is found
 * from bits: of each channel of a block there is one for every key whose value is NaN or infinite,
 * of each row one for every key that it sees. Where a row's bits meet a channel's, its result there
 * is NaN or infinite, which is added before it is stored.
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
static_assert(GROUPS * FOUND_BYTES + CHANNEL_WORDS <= (STAGES > 1 ? K_BYTES : Q_BYTES) &&
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
    return found_at(c) + group_now(c) * FOUND_BYTES + thread_now(c) * 16;
}

DEVICE uint32_t channel_words(const struct consumer &c)
{
    return found_at(c) + GROUPS * FOUND_BYTES;
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
    uint32_t at = c.base + AT_GROUP_BITS;
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
/* The same for a key's bits of a panel, two values at a time: registers are few. */
DEVICE void clear_octets(uint32_t tile, int key, uint32_t octets)
{
#pragma unroll 1
    for (; octets; octets &= octets - 1) {
        uint32_t at = tile + key * 128 + ((__ffs((int)octets) - 1 ^ (key & 7)) << 4);
#pragma unroll 1
        for (uint32_t end = at + 16; at < end; at += 4) {
            uint32_t special = 0;
#pragma unroll
            for (int n = 0; n < NUMBERS; n++)
                special |= special_halves(shared_load(at + n * V_PART));
#pragma unroll
            for (int n = 0; n < NUMBERS; n++)
                shared_store(at + n * V_PART, shared_load(at + n * V_PART) & ~special);
        }
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

/* The row's sum of weights is 0. */
DEVICE bool weightless(float sum)
{
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2) == 0;
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
 * found for them; of eight a lane has those two that it has of the output. */
template <int COUNT>
DEVICE void note_rows(const struct seen_keys (&seen)[COUNT], uint32_t found, uint32_t words,
                      int first, uint32_t octets)
{
#pragma unroll 1
    for (; octets; octets &= octets - 1) {
        int i = __ffs((int)octets) - 1;
        uint32_t x[COUNT][2]; /* loaded anew: else nvcc 13.0 orders steps otherwise */
#pragma unroll
        for (int j = 0; j < COUNT; j++) shared_load2(found + 8 * j, x[j][0], x[j][1]);
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int of[4];
                shared_load4(words + i * 256 + n * 32 + e * 16, of[0], of[1], of[2], of[3]);
#pragma unroll
                for (int j = 0; j < COUNT; j++) {
                    uint32_t met = 0;
#pragma unroll
                    for (int w = 0; w < KEY_WORDS; w++) met |= of[w] & seen[j].word[w];
                    x[j][e] |= (uint32_t)(met != 0) << (first / 4 % 32 + 2 * i + n);
                }
            }
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) shared_store2(found + 8 * j, x[j][0], x[j][1]);
    }
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
                      channel_words(c) + (done + (lane_now(c) & 3) * 2) * 32, first,
                      octets >> done / 8 & 0xffff);
    }
}

/* Adds what was found to the results of the lane's rows, when V's other values have been. Not of rows
 * without weights, which are 0 whatever they see; of a part, that is known when parts are added up. */
DEVICE void add_special(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, float (&o)[VALUES / 2], const struct row_state &r)
{
    bool some0 = true, some1 = true;
#if !SPLIT_KEYS
    if (tile_sink(a, t) == -INFINITY) some0 = !weightless(r.sum0), some1 = !weightless(r.sum1);
#endif
#pragma unroll
    for (int set = 0; set < FOUND_SETS; set++) {
        int x[4];
        shared_load4(own_found(c) + set * FOUND_SET_BYTES, x[0], x[1], x[2], x[3]);
        if (!some0) x[0] = x[1] = 0;
        if (!some1) x[2] = x[3] = 0;
        if (!(x[0] | x[1] | x[2] | x[3])) continue;
#pragma unroll
        for (int i = set * 64; i < min_int(set * 64 + 64, VALUES / 2); i++) {
            int bit = i % 64 / 4 * 2 + i % 2, row = i & 2;
            if (x[row] >> bit & 1) o[i] = __fadd_rn(o[i], INFINITY);
            if (x[row + 1] >> bit & 1) o[i] = __fadd_rn(o[i], -INFINITY);
        }
    }
}
#endif

#endif
