/* sm90_consumer.h: what a consumer warpgroup does in every order of steps: mask and softmax between
 * the products of a block, and the end of a tile. */
#ifndef RAPT_NVIDIA_SM90_CONSUMER_H
#define RAPT_NVIDIA_SM90_CONSUMER_H

#include "sm90_load.h"
#include "sm90_mask.h"
#include "sm90_repair.h"
#include "sm90_softmax.h"
#include "sm90_store.h"
#if SPLIT_KEYS
#include "sm90_store_part.h"
#endif
#include "sm90_change.h"
#if PARTS == 1
#include "sm90_weights.h"
#if CAPPED
#include "sm90_capped.h"
#endif
#include "sm90_scales_i8.h"
#elif PARTS == 2
#include "sm90_softmax_scaled.h"
#elif PARTS == 3
#include "sm90_prepare.h"
#endif
#include "sm90_products.h"
#include "sm90_turns.h"

#if FEATURES && PARTS != 2
/* Rows past a sequence's end hold what lies behind it in memory; a weight of 0 would not keep NaN
 * out of p v. Every warpgroup writes the same zeros, so they need not wait for each other. */
DEVICE void clear_tail(const struct consumer &c, uint32_t stage)
{
    uint32_t at = c.base + (BY_PANELS ? AT_K : AT_V) + stage * V_BYTES;
    for (int p = 0; p < PARTS * (BY_PANELS ? 1 : V_PANELS); p++)
        for (int i = c.tail * 8 + (PARTS == 1 ? c.thread : thread_now(c)); i < KEYS * 8; i += 128)
            shared_store4(at + p * KEYS * 128 + i * 16, 0, 0, 0, 0);
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
}

/* Of a tile's first block, the only one that can reach past the sequence's end. */
DEVICE int existing_rows(const struct tile &t)
{
    return max_int(0, min_int(KEYS, t.kv_tokens - (t.key_end - 1) * KEYS));
}
#endif

/* The first block, counted down from key_end, that every row of the warpgroup sees whole; with
 * FEATURES, every row of the tile. Blocks above need the mask. */
DEVICE int masked_from(const struct consumer &c, const struct attention_args &a,
                       const struct tile &t)
{
#if FEATURES
    int first_row = t.rows * tile_tokens(a) + query_offset(a, &t) + a.window_right + 1;
    return max_int(0, min_int(t.kv_tokens, first_row)) / KEYS;
#else
    int end = t.rows * ROWS + 64 * group_now(c) + query_offset(a, &t) + a.window_right;
    return max_int(0, (ASCENDING ? min_int(end, a.kv_tokens) : end) / KEYS);
#endif
}

/* Rows whose warpgroups pass over tiles, see idle_in(). Not tall causal ones: registers are few. */
constexpr bool IDLES = (GROUPS > 2 && !CAUSAL && !FEATURES) || PARTS == 2;

/* Whether the loop of steps is left where weights are too large, so that its code stays short;
 * measured: bench/notes/hopper.md. */
constexpr bool RAISES_APART = PARTS == 1 && VALUES <= 128 && !(FEATURES && SCORES == SCORES_ANY);

/* Capped scores: whether steps of unmasked blocks take all scores for near ones, see sm90_capped.h.
 */
constexpr bool NEAR_STEPS = CAPPED && RAISES_APART && PING_PONG;

/* Whether a branch keeps arithmetic on scores behind the end of the turn, before which nvcc 13.0
 * places 238 instructions here. Elsewhere that costs nothing, but the branch does. */
constexpr bool HOLDS_SCORES = FEATURES && SCORES == SCORES_SLOPED && VALUES == 64;

/* Whether a step finds out where its operands lie before its turn begins; measured as well. */
constexpr bool OPERANDS_FIRST = VALUES == 64 && GROUPS < 3 && PARTS == 1 && !FEATURES;

/* Whether the warpgroup has no rows in the tile, which then reaches past the last query. */
DEVICE bool idle_in(const struct consumer &c, const struct attention_args &a, const struct tile &t)
{
    return IDLES && t.rows * ROWS + 64 * group_now(c) >= q_tokens(a, &t);
}

/* Blocks below it are masked on the left. */
DEVICE int masked_below(const struct attention_args &a, const struct tile &t)
{
#if FEATURES
    return (max_int(0, (t.rows + 1) * tile_tokens(a) - 1 + query_offset(a, &t) - a.window_left) +
            KEYS - 1) /
           KEYS;
#else
    return 0;
#endif
}

/* What a warpgroup remembers of its tile besides the record: registers are few. */
DEVICE void begin_tile(struct consumer &c, const struct attention_args &a, const struct tile &t)
{
#if PARTS == 2
    keep_tile(c, t);
#if BY_PANELS
    if (lane_now(c) == 0)
        shared_store4(own_tile(c) + RECORD_BYTES, masked_from(c, a, t), masked_below(a, t),
                      t.key_begin, 0);
#elif FEATURES
    c.above = masked_from(c, a, t);
    c.below = masked_below(a, t);
#endif
#endif
}

/* Blocks at the upper end of the tile that none of the warpgroup's rows sees. At least one block
 * is left, whatever it holds. */
DEVICE int unseen_blocks(const struct consumer &c, const struct attention_args &a,
                         const struct tile &t)
{
    if (!CAUSAL || FEATURES || KEYS >= ROWS) return 0;
    int group = group_now(c);
    asm volatile("" : "+r"(group)); /* computed anew at each use */
    int end = t.rows * ROWS + 64 * group + 64 + query_offset(a, &t) + a.window_right;
    return t.key_end - max_int(1, min_int(t.key_end, (end + KEYS - 1) / KEYS));
}

/* The most that there can be; place_before() reaches back over them. */
constexpr int UNSEEN_MOST = !CAUSAL || FEATURES || KEYS >= ROWS ? 0 : (ROWS - 64 + KEYS - 1) / KEYS;
static_assert(UNSEEN_MOST <= STAGES, "stages for the blocks that a warpgroup passes over");

#if PARTS == 1
/* Log2 units per unit of a score as the softmax sees it; in a register only where it varies. */
DEVICE float score_scale(const struct consumer &c, const struct attention_args &a)
{
    if (!FEATURES || SCORES == SCORES_LINEAR || SCORES == SCORES_SLOPED) return a.scale_log2;
    if (SCORES == SCORES_HIDDEN) return a.scale_log2;
#if KEYED
    return c.cells.scale;
#endif
    if (CELLS > 1) return LOG2E;
    return SCORES == SCORES_ANY ? c.scale : 1;
}

DEVICE float score_slope(const struct consumer &c)
{
#if FEATURES
    return c.slope;
#else
    return 0;
#endif
}

/* ALiBi's distance of the lane's first column from its first row, all times log2(e); the other
 * row's is 8 slopes less. */
DEVICE float first_bias(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, int block)
{
    int position = t.rows * ROWS + row_now(c) + query_offset(a, &t);
    return __fmul_rn(score_slope(c), (float)(block * KEYS + column_now(c) - position));
}

/* Of a block's visible scores, in units of log2. */
DEVICE void block_maxima(const struct consumer &c, const struct attention_args &a,
                         const float (&s)[KEYS / 2], float bias0, float bias1, float &x0, float &x1)
{
    row_maxima(s, score_scale(c, a), score_slope(c), x0, x1);
#if CAPPED
    struct cap_wide wide = cap_wide_of(a);
    x0 = cap_any<true>(x0, c.cap, wide, 0);
    x1 = cap_any<true>(x1, c.cap, wide, 0);
#endif
    if (SCORES == SCORES_SLOPED) x0 = __fadd_rn(x0, bias0), x1 = __fadd_rn(x1, bias1);
}

/* Whether a block for which the compiled step has a mask needs it. With ASCENDING the first of a
 * tile seldom does. */
template <bool FIRST>
DEVICE bool needs_mask(const struct consumer &c, const struct attention_args &a,
                       const struct tile &t, int block)
{
    if (ASCENDING && (FIRST || MERGED)) return block >= masked_from(c, a, t);
    return CAUSAL || FEATURES || (block + 1) * KEYS > kv_tokens(a, &t);
}

/* Mask, and the first weights; MASKED: some scores of the block may be hidden. FIRST: of the
 * tile. */
template <bool MASKED, bool FIRST, bool REPAIR, bool NEAR = false>
DEVICE struct weighing begin_block(struct consumer &c, const struct attention_args &a,
                                   const struct tile &t, float (&s)[KEYS / 2], struct row_state &r,
                                   int block)
{
#if KV_I8
    return begin_scaled<MASKED, FIRST, REPAIR>(c, a, t, s, r, block);
#endif
#if CAPPED
    bool far = MASKED && any_far(s, c.cap);
#elif CELLS
    take_cells<REPAIR>(c, a, s);
#elif KEYED
    take_key_cells(a, c.cells, s, column_now(c));
#elif FEATURES && SCORES == SCORES_ANY
    if (scores_change(a)) change_scores(a, t, s, block, row_now(c), column_now(c), c.slope);
#endif
    if (MASKED && needs_mask<FIRST>(c, a, t, block))
        mask_block(a, t, s, block, token_of_row(a, row_now(c)), column_now(c));
    bool sloped = SCORES == SCORES_SLOPED;
    float slope = score_slope(c);
    float bias0 = sloped ? first_bias(c, a, t, block) : 0,
          bias1 = sloped ? __fmaf_rn(slope, -8, bias0) : 0;
    constexpr bool CHECKED = MASKED || CELLS || KEYED; /* these may hide whole rows of a block */
    if (needs_maxima<CHECKED, FIRST, REPAIR>(r)) {
        float x0, x1;
        block_maxima(c, a, s, bias0, bias1, x0, x1);
        take_maxima<REPAIR>(r, x0, x1);
    }
    struct weighing w = weighing_of<CHECKED, REPAIR>(r);
#if LOW_ROWS
    if (REPAIR) lift_low<0>(s, r.reference0, w.from0);
    if (REPAIR) lift_low<2>(s, r.reference1, w.from1);
#endif
#if CAPPED
    w.far = far;
    w.signs = ~0u;
    if (NEAR) {
#pragma unroll
        for (int i = 0; i < EARLY_COLUMNS; i++) weigh_near(s, i, w.early[i], w, c.cap);
        w.far = EARLY_COLUMNS > 0 && __any_sync(~0u, beyond(w));
    } else {
        cap_prepare<0, MASKED>(s, w, c.cap);
        weigh_capped<0, EARLY_COLUMNS, MASKED>(a, s, w, c.cap);
    }
#else
    if (sloped) w.from0 = __fadd_rn(w.from0, -bias0), w.from1 = __fadd_rn(w.from1, -bias1);
    weigh_columns<0, EARLY_COLUMNS>(s, w, score_scale(c, a), slope);
#endif
    return w;
}

#if CAPPED
/* All weights of a block of which some score is beyond the polynomial. */
DEVICE void weigh_again(const struct consumer &c, const struct attention_args &a,
                        float (&s)[KEYS / 2], struct weighing &w, uint32_t (&p)[WEIGHT_WORDS])
{
    registers_fence(s); /* or the polynomials above are kept for it: registers are few */
    w.sum0 = w.sum1 = 0;
    cap_prepare<0, false>(s, w, c.cap);
    weigh_capped<0, COLUMNS, false>(a, s, w, c.cap);
    pack_weights(s, p);
}
#endif

/* The other weights, and all of them rounded, behind the wait for o. The compiler would take them
 * up before it, so they seem to need o: they ask for the one number that o has only at the edge of
 * overflow. Not for infinity: a row that sees one has finite results in its other channels, and when
 * FIRST o is still that of the tile before. (The bits of a NaN that no arithmetic gives cost the
 * overlap with 256 channels, nvcc 13.0; x > infinity does not, but orders other instructions anew.)
 */
template <bool MASKED, bool FIRST, bool NEAR = false>
DEVICE void end_block(const struct consumer &c, const struct attention_args &a,
                      const struct tile &t, int block, const float (&o)[VALUES / 2],
                      float (&s)[KEYS / 2], struct row_state &r, struct weighing &w,
                      uint32_t (&p)[WEIGHT_WORDS])
{
    if (EARLY > 0) {
        w.from0 = o[0] == -0x1.fffffep127f ? KV_I8 : w.from0;
        w.from1 = o[2] == -0x1.fffffep127f ? KV_I8 : w.from1;
    }
#if CAPPED
    if (NEAR) {
        weigh_near_late<EARLY_COLUMNS>(s, w, p, c.cap);
    } else {
        weigh_capped<EARLY_COLUMNS, COLUMNS, MASKED>(a, s, w, c.cap);
        pack_weights(s, p);
    }
#elif KV_I8
    end_scaled<MASKED>(c, a, t, s, w, block);
    pack_weights(s, p);
#else
    weigh_columns<EARLY_COLUMNS, COLUMNS>(s, w, score_scale(c, a), score_slope(c));
    pack_weights(s, p);
#endif
}

/* Whether a block's weights can be kept; they are then added to the sums. */
template <bool NEAR> DEVICE bool keep_weights(struct row_state &r, const struct weighing &w)
{
#if CAPPED
    bool large = (w.sum0 > LARGEST_SUM) | (w.sum1 > LARGEST_SUM);
    if (NEAR && w.far) return false;
    if (__any_sync(~0u, large | (NEAR && beyond(w)))) return false;
#else
    if (too_large(r, w)) return false;
#endif
    add_sums(r, w);
    return true;
}

/* Where they cannot. NEAR: s holds scores, not weights. */
template <bool NEAR>
DEVICE void raise_block(const struct consumer &c, const struct attention_args &a,
                        float (&s)[KEYS / 2], struct row_state &r, struct weighing &w,
                        uint32_t (&p)[WEIGHT_WORDS])
{
#if CAPPED
    if (NEAR) {
        weigh_again(c, a, s, w, p);
        if (keep_weights<false>(r, w)) return;
    }
#endif
    lower_block(s, r, w);
    pack_weights(s, p);
    add_sums(r, w);
}
#else
#if PARTS == 2
/* The shared address of the factors of the block worked on. */
DEVICE uint32_t block_factors(const struct consumer &c)
{
    uint32_t slot = BY_PANELS ? c.phase >> 2
                    : STAGES == 1 ? phase_now(c)
                                  : c.factors; /* two slots then */
    return c.base + AT_KEY_FACTORS + slot * KEY_FACTOR_BYTES;
}

DEVICE struct common block_common(const struct consumer &c)
{
    return common_factors(block_factors(c), lane_now(c), c.row0, c.row1);
}

/* Weights may have been too large: the warp's queries are wide. Plain rows read the arguments by an
 * address that the compiler cannot see through, or it keeps them in registers all the time. */
DEVICE void tell_far(const struct consumer &c, const struct attention_args &a0,
                     const struct row_state &r)
{
    if (!far_references(r)) return;
    const struct attention_args *a = &a0;
    if (!FEATURES) asm volatile("" : "+l"(a));
    struct tile own = kept_tile(c);
    tell_queries(*a, own, own.rows * ROWS + warp_row(c), lane_now(c), true);
}

/* Mask, then softmax. */
DEVICE void weigh_scaled(const struct consumer &c, const struct attention_args &a,
                         const struct tile &t, float (&s)[KEYS / 2], struct row_state &r, int block,
                         const struct common &f)
{
    uint32_t factors = block_factors(c), at = factors + (thread_now(c) & 3) * 32;
    float s0, s1, e, row0 = c.row0, row1 = c.row1;
    if (f.all) {
        e = exponent_of(__float_as_uint(f.value));
        row0 *= f.key;
        row1 *= f.key;
    } else {
        e = largest_exponent(factors, lane_now(c));
        scale_keys(s, at);
    }
#if FEATURES
    bool masked = block >= c.above || block < c.below, changed = scores_change(a),
         cells = CELL_ROWS && a.mask.data;
    if (masked || changed || cells) {
        struct tile own = kept_tile(c);
#if CELL_ROWS
        if (block > own.key_begin) prefetch_cells(a, own, block - 1, warp_row(c), lane_now(c));
#endif
        if (changed) change_scaled(a, own, s, block, row_now(c), column_now(c), row0, row1);
        if (masked) mask_block(a, own, s, block, row_now(c), column_now(c));
#if CELL_ROWS
        if (cells) hide_cells(a, own, s, block, row_now(c), lane_now(c));
#endif
    }
#endif
    if (!FEATURES &&
        ((CAUSAL && block >= masked_from(c, a, t)) || (block + 1) * KEYS > kv_tokens(a, &t))) {
        int above0, above1;
        visible_columns(a, t, block, row_now(c), column_now(c), above0, above1);
        largest_scores<true>(s, above0, above1, s0, s1);
    } else {
        largest_scores<false>(s, 0, 0, s0, s1);
    }
    update_references(s, r, at, row0, row1, s0, s1, e, f.all);
#if CELL_ROWS
    if (a.bias.data && e > LARGEST_FAR) tell_far(c, a, r);
#endif
    if (f.all) softmax_scaled<true>(s, r, at, row0, row1, f.value);
    else softmax_scaled<false>(s, r, at, row0, row1, 1);
}
#else
/* Mask, then softmax; MASKED: some scores of the block may be hidden. FIRST: of the tile. */
template <bool MASKED, bool FIRST>
DEVICE void weigh_block(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, float (&s)[KEYS / 2], struct row_state &r, int block)
{
#if FEATURES
    if (scores_change(a)) change_scores(a, t, s, block, row_now(c), column_now(c), c.slope);
#endif
    if (MASKED && (CAUSAL || FEATURES || (block + 1) * KEYS > kv_tokens(a, &t)))
        mask_block(a, t, s, block, row_now(c), column_now(c));
#if CELL_ROWS
    if (a.mask.data) hide_cells(a, t, s, block, row_now(c), lane_now(c));
#endif
    softmax_block<MASKED, FIRST>(s, r, c.scale);
}

/* PARTS == 3: the softmax is whole before the wait. */
struct weighing {
};
template <bool MASKED, bool FIRST, bool REPAIR, bool NEAR = false>
DEVICE struct weighing begin_block(const struct consumer &c, const struct attention_args &a,
                                   const struct tile &t, float (&s)[KEYS / 2], struct row_state &r,
                                   int block)
{
    weigh_block<MASKED, FIRST>(c, a, t, s, r, block);
    return {};
}
template <bool MASKED, bool FIRST, bool NEAR = false>
DEVICE void end_block(const struct consumer &, const struct attention_args &, const struct tile &,
                      int, const float (&)[VALUES / 2], float (&s)[KEYS / 2], struct row_state &,
                      struct weighing &, uint32_t (&p)[WEIGHT_WORDS])
{
    pack_weights(s, p);
}
DEVICE void add_sums(struct row_state &, const struct weighing &) {}
template <bool NEAR> DEVICE bool keep_weights(struct row_state &, const struct weighing &)
{
    return true;
}
template <bool NEAR>
DEVICE void raise_block(const struct consumer &, const struct attention_args &, float (&)[KEYS / 2],
                        struct row_state &, struct weighing &, uint32_t (&)[WEIGHT_WORDS])
{
}
#endif
#endif

#if CAPPED
/* Whether a tile takes its unmasked blocks for near ones. All warps of a warpgroup must run the
 * same products, so they decide together, by what they met in the tile before: word `tiles % 2` is
 * written from the turn of a tile's second step to that of the next tile's first, and read between
 * the turns of that one's first and second. */
DEVICE bool begin_near(const struct consumer &c)
{
    uint32_t at = c.base + AT_FAR + 8 * group_now(c), now = 4 * (c.tiles & 1);
    uint32_t before = __reduce_or_sync(~0u, shared_load(at + (now ^ 4)));
    if (thread_now(c) == 0) shared_store(at + now, 0);
    return NEAR_STEPS && !before;
}

DEVICE void note_far(const struct consumer &c, const struct weighing &w)
{
    if (NEAR_STEPS && beyond(w))
        shared_store(c.base + AT_FAR + 8 * group_now(c) + 4 * (c.tiles & 1), 1);
}
#endif

/* Where references have changed. */
DEVICE void follow_references(const struct consumer &c, const struct attention_args &a,
                              float (&o)[VALUES / 2], const struct row_state &r)
{
    if (!r.rescale) return;
    rescale(o, r);
#if PARTS == 2
    if (!CELL_ROWS || !a.bias.data) tell_far(c, a, r);
#endif
}

/* The tile's output to memory; a NaN in it is noted. */
DEVICE void finish_tile(const struct consumer &c, const struct attention_args &a,
                        const struct tile &t, float (&o)[VALUES / 2], const struct row_state &r)
{
#if LOW_ROWS
    bool bad = store_tile<0>(a, t, o, marked(r), 1, row_now(c), lane_now(c));
#elif SPLIT_KEYS
    bool bad = store_part(a, t, o, r, row_now(c), lane_now(c));
#else
    uint32_t lines = 0;
    if (LINES) lines = c.base + AT_LINES + (4 * group_now(c) + thread_now(c) / 32) * LINES_BYTES;
    bool bad = store_tile<LINES>(a, t, o, r, PARTS == 1 ? 1 : c.scale, row_now(c), lane_now(c),
                                 lines, out_map_now(c));
#endif
    if (REPAIRS && __any_sync(~0u, bad)) {
        if (lane_now(c) == 0) note_tile(a, t, c.base, group_now(c));
        __syncwarp();
    }
}

/* Tiles in which the warpgroup has no rows, up to the next that it works on. */
DEVICE void pass_tiles(struct consumer &c, const struct attention_args &a, struct tile &t)
{
    while (t.rows >= 0 && idle_in(c, a, t)) {
        release_q(c);
        pass_blocks(c, a, t.key_end - key_begin(&t));
        next_slot(c);
        receive_tile(c, a, t);
    }
}

#endif
