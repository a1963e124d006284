/* mla_load.h: how a block of mla_sm90.cu gets its keys, whose first channels are the values, and its
 * queries.
 *
 * The blocks of keys of a part go to stage 0 and 1 in turns, the even ones for consumer 0 and the odd
 * ones for consumer 1. A consumer begins with the half of its panels that it multiplies its weights with,
 * which nobody else reads, so that this half is free again while the other one is still in use. */
#ifndef RAPT_NVIDIA_MLA_LOAD_H
#define RAPT_NVIDIA_MLA_LOAD_H

#include "nvidia/mla_part.h"

DEVICE uint32_t stage_at(uint32_t base, int stage)
{
    return base + AT_KV + stage * STAGE_BYTES;
}

/* half: 0, the one that is loaded first, 1, the other with the channels behind the values. */
DEVICE uint32_t full_at(uint32_t base, int stage, int half)
{
    return base + AT_FULL + (stage * 2 + half) * 8;
}

DEVICE uint32_t empty_at(uint32_t base, int stage, int half)
{
    return base + AT_EMPTY + (stage * 2 + half) * 8;
}

/* The most keys such that neither a page nor a stage ends inside a box (gpu/maps.c makes the maps
 * alike); 16 or more. */
DEVICE int box_keys(const struct attention_args &a)
{
    return a.page_table.data ? smaller(a.page_tokens & -a.page_tokens, KEYS) : KEYS;
}

/* The page of a key; past the part's end -1, where a copy finds nothing and leaves zeros. */
DEVICE int page_of(const struct attention_args &a, const struct part &p, int key)
{
    return key < p.end ? (int)load_index(&a.page_table, p.b, page_index(a, key)) : -1;
}

struct place {
    int token, batch; /* coordinates of a box */
};

/* Panels first ... first + HALF - 1 of a box, and the last one with `rest`. */
DEVICE void load_box(const struct tensor_map *map, uint32_t to, uint32_t full, int first, bool rest,
                     int head, struct place from, uint64_t policy)
{
#pragma unroll 1
    for (int i = 0; i < HALF + rest; i++) {
        int panel = i < HALF ? first + i : PANELS - 1;
        tma_load_4d(to + panel * PANEL, map, full, panel * 64, from.token, head, from.batch,
                    policy);
    }
}

/* All stages of the part, by one warp. A lane looks up the page of one box of a pair of blocks, and of
 * the next pair before it waits for this one's stages. */
DEVICE void load_keys(const struct attention_args &a, const struct tensor_maps &maps,
                      const struct part &p, uint32_t base)
{
    const bool elected = elect_lane(), pages = a.page_table.data != nullptr;
    /* Few tiles read the same keys at the same time; then what the parts leave is to stay in L2. */
    const uint64_t policy = a.q_tokens * a.group > 4 * ROWS ? L2_EVICT_LAST : L2_EVICT_FIRST;
    int lane = threadIdx.x % 32, box = box_keys(a), boxes = KEYS / box, phase = 1,
        next = pages && lane < 2 * boxes ? page_of(a, p, p.first + lane * box) : 0;
#pragma unroll 1
    for (int pair = p.first; pair < p.end; pair += 2 * KEYS, phase ^= 1) {
        int page = next;
        if (pages && lane < 2 * boxes) next = page_of(a, p, pair + 2 * KEYS + lane * box);
#pragma unroll 1
        for (int i = 0; i < 4; i++) {
            int stage = i >> 1, half = i & 1, key = pair + stage * KEYS;
            if (key >= p.end) continue;
            uint32_t full = full_at(base, stage, half);
            mbarrier_wait(empty_at(base, stage, half), phase);
            if (elected) mbarrier_expect(full, (HALF + half) * PANEL);
            __syncwarp();
#pragma unroll 1
            for (int n = 0; n < boxes; n++, key += box) {
                struct place from = {p.seq.kv_start + key, p.seq.kv_batch};
                if (pages) {
                    from.batch = __shfl_sync(~0u, page, stage * boxes + n);
                    from.token = key - page_index(a, key) * a.page_tokens;
                }
                if (elected)
                    load_box(&maps.k, stage_at(base, stage) + n * box * 128, full,
                             (stage ^ half) * HALF, half, p.kv_head, from, policy);
            }
            __syncwarp();
        }
    }
}

/* Asks for the block's rows of Q, by all consumers, in 16-byte pieces that lie as a tensor copy with 128-byte
 * swizzle would leave them, a warp for each row; rows that do not exist are zeros. */
DEVICE void load_queries(const struct attention_args &a, const struct part &p, uint32_t base,
                         int thread)
{
    enum { PIECES = D / 8 };
    const char *from = (const char *)a.q.data;
    const int lane = thread % 32;
    int64_t start = p.seq.q_batch * a.q.stride[0] + p.kv_head * a.group * a.q.stride[1] +
                    p.seq.q_start * a.q.stride[2];
#pragma unroll 2
    for (int row = thread / 32; row < ROWS; row += CONSUMERS / 32) {
        int query = (p.row + row) / a.group, head = p.row + row - query * a.group;
        bool exists = row < p.count;
        const char *of_row =
            from + 2 * (exists ? start + head * a.q.stride[1] + query * a.q.stride[2] : 0);
#pragma unroll
        for (int i = 0; i < PIECES; i += 32) {
            int piece = i + lane;
            if (piece < PIECES)
                async_copy16(base + piece / 8 * PANEL + row * 128 + ((piece ^ row) & 7) * 16,
                             of_row + piece * 16, exists);
        }
    }
    async_copy_commit();
}

#endif
