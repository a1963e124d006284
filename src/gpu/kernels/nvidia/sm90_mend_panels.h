/* sm90_mend_panels.h: how a noted tile is computed again where K and V come by panels (BY_PANELS): one
 * panel at a time into the ring's first slot; V's come once more before, to find its bad rows. */
#ifndef RAPT_NVIDIA_SM90_MEND_PANELS_H
#define RAPT_NVIDIA_SM90_MEND_PANELS_H

#include "sm90_panels.h"

/* Panels of a block that the warpgroup loads for itself. */
struct own_panels {
    const struct attention_args &a;
    const struct tensor_maps &maps;
    const struct tile &whole;
    uint32_t &phase;
    int block;
    bool bad; /* the thread's key, number `thread` of the block, has NaN or Inf in V */

    DEVICE void fetch(const struct consumer &c, bool values, int panel)
    {
        int group = group_now(c);
        uint32_t full = c.base + AT_REPAIR_FULL + 8 * group;
        const struct tile t = tile_of(c, whole);
        async_proxy_fence();
        named_barrier_sync(BARRIER_GROUP + group, 128);
        if (thread_now(c) == 0) {
            struct key_source from = key_source_of(a, &t);
            int row = from.token + block * KEYS;
            bool factors = !values && panel == 0;
            load_panel(values ? &maps.v : &maps.k, c.base + AT_K, full, panel, row, from,
                       parts_apart(a, from), factors ? KEY_FACTOR_BYTES : 0);
#if PARTS == 2
            if (factors)
                load_key_factors(a, c.base + AT_KEY_FACTORS, full, row / KEYS, from.head,
                                 from.batch);
#endif
        }
        __syncwarp();
        mbarrier_wait(full, phase);
        phase ^= 1;
    }

    /* One bit per key, for every thread of the warpgroup. */
    DEVICE struct key_bits find_bad(const struct consumer &c)
    {
        int thread = thread_now(c);
        bad = false;
#pragma unroll 1
        for (int panel = 0; panel < panels_of(a.v_channels); panel++) {
            fetch(c, true, panel);
            if (thread >= KEYS) continue;
#pragma unroll 1
            for (int i = 0; i < 8 * PARTS; i++) {
                int x[4];
                shared_load4(c.base + AT_K + (i >> 3) * V_PART + thread * 128 + (i & 7) * 16, x[0],
                             x[1], x[2], x[3]);
                bad |=
                    not_finite2(x[0]) | not_finite2(x[1]) | not_finite2(x[2]) | not_finite2(x[3]);
            }
        }
        uint32_t word = __ballot_sync(~0u, bad);
        if ((thread & 31) == 0) shared_store(c.base + AT_BAD_KEYS + 4 * (thread >> 5), word);
        named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
        struct key_bits bits;
#pragma unroll
        for (int i = 0; i < KEY_WORDS; i++)
            bits.word[i] = shared_load(c.base + AT_BAD_KEYS + 4 * i);
        return bits;
    }

    DEVICE uint32_t take_key(struct consumer &c, int panel)
    {
        fetch(c, false, panel);
        return 0;
    }

    DEVICE uint32_t take_value(struct consumer &c, int panel, bool)
    {
        fetch(c, true, panel);
        if (bad) {
#pragma unroll 1
            for (int i = 0; i < 8 * PARTS; i++)
                shared_store4(c.base + AT_K + (i >> 3) * V_PART + thread_now(c) * 128 +
                                  (i & 7) * 16,
                              0, 0, 0, 0);
        }
        async_proxy_fence();
        named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
        return 0;
    }

    DEVICE void give(const struct consumer &) {}
};

/* Whether a block that some row of the tile sees in part has bad rows of V. Else nothing can be
 * mended: every row sees the bad key. */
DEVICE bool hides_bad_values(const struct consumer &c, const struct attention_args &a,
                             const struct tensor_maps &maps, const struct tile &whole,
                             uint32_t &phase)
{
    int above = masked_from(c, a, whole), below = masked_below(a, whole);
#pragma unroll 1
    for (int block = whole.key_end - 1; block >= whole.key_begin; block--) {
        if (block < above && block >= below) continue;
        struct own_panels panels = {a, maps, whole, phase, block, false};
        if (any_key(panels.find_bad(c))) return true;
    }
    return false;
}

/* The whole tile again, see sm90_repair.h: the multiplies of work(), one panel at a time. */
DEVICE void repair_tile(struct consumer &c, const struct attention_args &a,
                        const struct tensor_maps &maps, const struct tile &whole, uint32_t &phase)
{
    struct row_state r = {-INFINITY, -INFINITY, 0, 0, 1, 1, false, ~0u};
    float o[VALUES / 2];
    bool clean0 = true, clean1 = true;
#if PARTS == 2
    split_q(c, a, tile_of(c, whole));
#else
    uint32_t full = c.base + AT_REPAIR_FULL + 8 * group_now(c);
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
    if (thread_now(c) == 0) {
        mbarrier_expect(full, Q_BYTES);
        load_q(a, maps, c.base + AT_Q + group_now(c) * Q_BYTES, full, &whole, group_now(c));
    }
    __syncwarp();
    mbarrier_wait(full, phase);
    phase ^= 1;
    c.tail = KEYS; /* what lies behind the last key is bad or meets a weight of 0 */
#endif
#pragma unroll
    for (int i = 0; i < VALUES / 2; i++) o[i] = 0;
#pragma unroll 1
    for (int i = 0;; i++) {
        const struct tile t = tile_of(c, whole);
        int block = t.key_end - 1 - i;
        if (block < t.key_begin) break;
        struct own_panels panels = {a, maps, whole, phase, block, false};
        int key = block * KEYS, keys = t.kv_tokens - key,
            end = t.rows * ROWS + row_now(c) + query_offset(a, &t) + a.window_right + 1,
            begin = end - 1 - a.window_right - a.window_left;
        struct key_bits bad = panels.find_bad(c);
        bool bad0 = any_key_between(bad, begin - key, min_int(end - key, keys));
        bool bad1 = any_key_between(bad, begin + 8 - key, min_int(end + 8 - key, keys));
#if PARTS == 2 /* registers are few: such a row's factor is NaN from here on */
        spoil_factors(c, bad0, bad1);
#else
        clean0 = clean0 && !bad0;
        clean1 = clean1 && !bad1;
#endif
        panel_step(c, a, t, panels, block, o, r);
    }
#if PARTS == 2
    shared_load2(own_factors(c), c.row0, c.row1);
    clean0 = c.row0 == c.row0;
    clean1 = c.row1 == c.row1;
#endif
    const struct tile t = tile_of(c, whole);
    store_tile(a, t, o, r, c.scale, row_now(c), lane_now(c), clean0, clean1);
}

#endif
