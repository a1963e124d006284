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
    uint32_t own; /* where the thread's key has NaN or infinities in V: eight bits for each panel */

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

    /* One of V into the slot: the thread's own bits of it. */
    DEVICE uint32_t find_special(const struct consumer &c, int panel)
    {
        fetch(c, true, panel);
        return own_octets(c, c.base + AT_K);
    }

    /* Notes what the rows see, panel by panel. */
    DEVICE void note(const struct consumer &c, const struct tile &t)
    {
        own = 0;
#pragma unroll 1
        for (int panel = 0; panel < panels_of(a.v_channels); panel++) {
            uint32_t here = find_special(c, panel), octets = group_bits(c, here);
            own |= here << 8 * panel;
            if (!octets) continue;
            take_special(c, c.base + AT_K, here, octets);
            note_special(c, a, t, block, 64 * panel, octets);
        }
    }

    DEVICE uint32_t take_key(struct consumer &c, int panel)
    {
        fetch(c, false, panel);
        return 0;
    }

    DEVICE uint32_t take_value(struct consumer &c, int panel, bool)
    {
        fetch(c, true, panel);
        clear_octets(c.base + AT_K, thread_now(c), own >> 8 * panel & 0xff);
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
        struct own_panels panels = {a, maps, whole, phase, block, 0};
#pragma unroll 1
        for (int panel = 0; panel < panels_of(a.v_channels); panel++)
            if (group_bits(c, panels.find_special(c, panel))) return true;
    }
    return false;
}

/* The whole tile again, see sm90_repair.h: the multiplies of work(), one panel at a time. */
DEVICE void repair_tile(struct consumer &c, const struct attention_args &a,
                        const struct tensor_maps &maps, const struct tile &whole, uint32_t &phase)
{
    struct row_state r = {-INFINITY, -INFINITY, 0, 0, 1, 1, false, ~0u};
    float o[VALUES / 2];
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
    clear_found(c);
#pragma unroll 1
    for (int i = 0;; i++) {
        const struct tile t = tile_of(c, whole);
        int block = t.key_end - 1 - i;
        if (block < t.key_begin) break;
        struct own_panels panels = {a, maps, whole, phase, block, 0};
        panels.note(c, t);
        panel_step(c, a, t, panels, block, o, r);
    }
    const struct tile t = tile_of(c, whole);
    add_special(c, a, t, o, r);
    store_tile(a, t, o, r, c.scale, row_now(c), lane_now(c));
}

#endif
