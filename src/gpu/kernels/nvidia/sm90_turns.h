/* sm90_turns.h: where a consumer thread stands: what it knows, its rows and columns, the stages and
 * slots it waits for and gives back, its turns, and the tile and Q that it receives. */
#ifndef RAPT_NVIDIA_SM90_TURNS_H
#define RAPT_NVIDIA_SM90_TURNS_H

#include "sm90_load.h"
#if CAPPED
#include "sm90_capped.h"
#endif
#include "sm90_keyed.h"
#include "sm90_loose.h"

/* What a consumer thread knows besides its tile. */
#if KV_I8
/* Of the lane's columns of 16 keys: its first two, then the two 8 further on. */
struct four_scales {
    float x[4];
};

/* Beside products shared memory answers late, which the compiler does not know: scales of so many times
 * 16 keys are read while these run. */
constexpr int KEYS_HELD = CONVERTS             ? 0
                          : Q_HELD && V_BF16   ? 1
                          : !Q_HELD || D <= 64 ? KEYS / 16
                          : SCALE_BLOCKS > 1   ? 1
                                               : 2;
#endif

/* Likewise of what brings scores from one scale to the next. */
constexpr int STEPS_HELD = Q_HELD && (D > 64 || V_BF16) ? 1 : KEYS / 16;

struct consumer {
#if LINES == 2
    const struct tensor_map *out_map;
#endif
    uint32_t base;         /* of shared memory */
    int group, thread;     /* warpgroup, from 0; thread of the warpgroup */
    uint32_t stage, phase; /* of the K and V block worked on last; BY_PANELS: of the panel */
    uint32_t tiles;        /* received so far; with one stage, or BY_PANELS, bit 1 of the phase is
                              their parity, and bit 2 the slot of the keys' factors */
    float scale;           /* log2 units per unit of a score as the softmax sees it */
#if PARTS == 2
    uint32_t factors; /* slot of the keys' factors */
    float row0, row1; /* of the lane's two rows: factor times log2 units per unit of a score */
#endif
#if FEATURES && PARTS == 2
    int above, below; /* blocks from `above` on and those below `below` have masks */
#elif FEATURES
    int tail;    /* rows that exist in the V block that comes next */
    float slope; /* ALiBi's, times log2(e) */
#endif
#if CAPPED
    struct cap cap;
#endif
#if KV_I8
    struct four_scales scales[KEYS_HELD > 0 ? KEYS_HELD : 1]; /* of keys of the block worked on */
#endif
#if KEYED
    struct key_cells cells;
#endif
#if LOOSE
    int shift; /* of the lane's two rows of cells */
#endif
};

/* Derived from the thread's number where they are needed: the empty statement keeps them out of
 * registers in between; with parts there is not even one for the number. */
DEVICE int thread_now(const struct consumer &c)
{
#if PARTS == 2 || (PARTS == 3 && FEATURES)
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread & 127;
#else
    int thread = c.thread;
    asm volatile("" : "+r"(thread));
    return thread;
#endif
}

DEVICE int group_now(const struct consumer &c)
{
#if PARTS == 2 || (PARTS == 3 && FEATURES)
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return (thread >> 7) - 1;
#else
    return c.group;
#endif
}

DEVICE const struct tensor_map *out_map_now(const struct consumer &c)
{
#if LINES == 2
    return c.out_map;
#else
    return nullptr;
#endif
}

DEVICE int lane_now(const struct consumer &c)
{
    return thread_now(c) & 31;
}

/* The lane's first row in the tile; its other one is 8 below. */
DEVICE int row_now(const struct consumer &c)
{
    int thread = thread_now(c);
    return group_now(c) * 64 + (thread >> 5) * 16 + (thread >> 2 & 7);
}

/* The warp's first row in the tile. */
DEVICE int warp_row(const struct consumer &c)
{
    return group_now(c) * 64 + (thread_now(c) >> 5) * 16;
}

/* The lane's first column in a block of scores. */
DEVICE int column_now(const struct consumer &c)
{
    return (thread_now(c) & 3) * (KEY_QUADS ? 4 : 2);
}

DEVICE void release_stage(const struct consumer &c, uint32_t at)
{
    if (thread_now(c) == 0) mbarrier_arrive(c.base + at);
}

/* The slot of Q, and the parity that says that it is full. */
DEVICE uint32_t slot_now(const struct consumer &c)
{
    return Q_SLOTS == 1 ? 0 : c.tiles % Q_SLOTS;
}

DEVICE uint32_t slot_phase(const struct consumer &c)
{
    if (BY_PANELS) return c.phase >> 1 & 1;
    return STAGES == 1 ? c.phase >> 1 : c.tiles / Q_SLOTS & 1;
}

DEVICE void next_slot(struct consumer &c)
{
    if (STAGES == 1 || BY_PANELS) c.phase ^= 2;
    else c.tiles++;
}

DEVICE uint32_t phase_now(const struct consumer &c)
{
    return STAGES == 1 || BY_PANELS ? c.phase & 1 : c.phase;
}

/* Of the slot and of the tile's record in it; the barrier orders the reads of the other lanes
 * before the arrival of one. */
DEVICE void release_q(const struct consumer &c)
{
    __syncwarp();
    if (lane_now(c) == 0)
        mbarrier_arrive(c.base + AT_Q_EMPTY + 8 * (slot_now(c) * GROUPS + group_now(c)));
}

DEVICE void next_stage(struct consumer &c)
{
    if (STAGES == 1) c.phase ^= 1; /* the stage is 0 for the compiler too */
    else if (++c.stage == STAGES) c.stage = 0, c.phase ^= 1;
#if PARTS == 2 && !BY_PANELS
    if (++c.factors == FACTOR_SLOTS) c.factors = 0;
#endif
}

/* BY_PANELS: behind a block. */
DEVICE void next_factors(struct consumer &c)
{
    c.phase ^= 4;
}

/* A stage, and the parity that says that it is full. */
struct place {
    uint32_t stage, phase;
};

/* The place `back` blocks before the one worked on last; back is at most STAGES. */
DEVICE struct place place_before(const struct consumer &c, uint32_t back)
{
    bool wraps = c.stage < back;
    struct place p = {wraps ? c.stage + STAGES - back : c.stage - back, phase_now(c) ^ wraps};
    return p;
}

DEVICE void take_turn(const struct consumer &c)
{
    if (PING_PONG) named_barrier_sync(BARRIER_TURN + group_now(c), 256);
}

/* Behind the first wait for the multiplies of a step. Where it came as soon as they were asked for,
 * those of the next warpgroup ran beside them and both ended late: bench/notes/hopper.md */
DEVICE void end_turn(const struct consumer &c)
{
    if (PING_PONG) named_barrier_arrive(BARRIER_TURN + (group_now(c) + 1) % GROUPS, 256);
}

/* K of blocks that none of the warpgroup's rows sees: waited for and given back. */
DEVICE void pass_keys(struct consumer &c, int blocks)
{
#pragma unroll 1
    for (; blocks > 0; blocks--) {
        next_stage(c);
        mbarrier_wait(c.base + AT_K_READY + 8 * c.stage, phase_now(c));
        take_turn(c);
        end_turn(c);
        release_stage(c, AT_K_EMPTY + 8 * c.stage);
    }
}

/* V of as many, the last of them `back` blocks before the one worked on last. */
DEVICE void pass_values(const struct consumer &c, int blocks, int back)
{
#pragma unroll 1
    for (; blocks > 0; blocks--) {
        struct place v = place_before(c, back + blocks - 1);
        mbarrier_wait(c.base + AT_V_READY + 8 * v.stage, v.phase);
        release_stage(c, AT_V_EMPTY + 8 * v.stage);
    }
}

/* K and V of so many blocks. BY_PANELS: one warp waits for the panels and gives them back; without
 * multiplies and turns nothing keeps the others from missing a parity of a slot. */
DEVICE void pass_blocks(struct consumer &c, const struct attention_args &a, int blocks)
{
#if BY_PANELS
    if (blocks == 0) return;
    uint32_t panels = blocks * (panels_of(a.channels) + panels_of(a.v_channels)),
             end = c.stage + panels, phase = c.phase ^ (end / STAGES & 1) ^ (blocks & 1) << 2;
    if (thread_now(c) < 32) pass_keys(c, panels);
    c.stage = end % STAGES;
    c.phase = phase;
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
#else
#pragma unroll 1
    for (; blocks > 0; blocks--) {
        pass_keys(c, 1);
        pass_values(c, 1, 0);
        if (IN_PLACE)
            named_barrier_sync(BARRIER_GROUP + group_now(c), 128); /* or one misses a parity */
    }
#endif
}

/* Waits for a tile; its Q is then in shared memory. */
DEVICE void receive_tile(const struct consumer &c, const struct attention_args &a, struct tile &t)
{
    uint32_t i = slot_now(c) * GROUPS + group_now(c);
    mbarrier_wait(c.base + AT_Q_FULL + 8 * i, slot_phase(c));
    tile_read(c.base + AT_RECORD + RECORD_BYTES * i, lane_now(c) == 0, &t);
}

/* With Q_HELD: Q as A operands in registers. Its slot is given back when a first product with them
 * is over: an arrival behind ldmatrix alone can overtake the read, and the next Q then comes into
 * this tile's rows; so it was seen with tiles of one key block. */
DEVICE void hold_q(const struct consumer &c, uint32_t (&held)[Q_HELD ? 4 * QK_SLICES : 1])
{
    if (!Q_HELD) return;
    int thread = thread_now(c),
        row = (thread >> 5) * 16 +
              (thread & 15); /* swizzle: 16-byte column c of row r lies at column c ^ (r % 8) */
    const uint32_t panel = (SPLIT_KEYS ? 16 : 64) * 128; /* SPLIT_KEYS: each warp's rows apart */
    uint32_t at = c.base + AT_Q + (slot_now(c) * GROUPS + group_now(c)) * Q_BYTES +
                  (SPLIT_KEYS ? (thread >> 5) * (Q_BYTES / 4) + (thread & 15) * 128 : row * 128);
#pragma unroll
    for (int k = 0; k < QK_SLICES; k++)
        ldmatrix4(at + (k >> 2) * panel + ((((k & 3) * 2 + (thread >> 4 & 1)) ^ (row & 7)) << 4),
                  held + (Q_HELD ? 4 * k : 0));
    registers_fence(held);
}

#if PARTS == 2
/* The first of the warp's rows in the tile. */
DEVICE int warp_row(const struct consumer &c, const struct tile &t)
{
    return t.rows * ROWS + group_now(c) * 64 + (thread_now(c) >> 5) * 16;
}

/* The warp's copy of its tile's record, brought back to registers where it is needed. */
DEVICE uint32_t own_tile(const struct consumer &c)
{
    return c.base + AT_OWN_TILE + (thread_now(c) / 32 + 4 * group_now(c)) * (int)OWN_TILE_BYTES;
}

DEVICE void keep_tile(const struct consumer &c, const struct tile &t)
{
    if (lane_now(c) == 0) tile_write(own_tile(c), &t);
}

DEVICE struct tile kept_tile(const struct consumer &c)
{
    struct tile t;
    tile_read(own_tile(c), lane_now(c) == 0, &t);
    return t;
}

#if !BY_PANELS
DEVICE void load_q(const struct consumer &c, const struct attention_args &a, const struct tile &t,
                   float4 (&x)[ROW_LOADS])
{
    load_queries(a, t, warp_row(c, t), lane_now(c), x);
}
#endif

/* The next tile's Q on its way to L2, if its record has come: two lanes ask for half a row each. */
DEVICE void prefetch_q(const struct consumer &c, const struct attention_args &a)
{
    uint32_t i = slot_now(c) * GROUPS + group_now(c);
    if (!mbarrier_done(c.base + AT_Q_FULL + 8 * i, slot_phase(c) ^ 1)) return;
    struct tile t;
    shared_load4(c.base + AT_RECORD + RECORD_BYTES * i, t.rows, t.head, t.batch, t.key_end);
#if FEATURES
    shared_load4(c.base + AT_RECORD + RECORD_BYTES * i + 16, t.key_begin, t.q_start, t.q_tokens,
                 t.kv_tokens);
#endif
    int token = warp_row(c, t) + lane_now(c) / 2;
    if (t.rows < 0 || token >= q_tokens(a, &t)) return;
    const float *row = (const float *)a.q.data + query_batch(a, t) * a.q.stride[0] +
                       t.head * a.q.stride[1] + (query_start(t) + token) * a.q.stride[2] +
                       lane_now(c) % 2 * (D / 2);
#pragma unroll
    for (int line = 0; line < D / 64; line++)
        if (!FEATURES || lane_now(c) % 2 * (D / 2) + 32 * line < a.channels)
            prefetch_line(row + 32 * line);
}

#if BY_PANELS
/* Rows of Q of a tile of the warp, some at a time. Returns their exponents as split_queries() does. */
DEVICE int2 load_and_split(const struct consumer &c, const struct attention_args &a,
                           const struct tile &t, uint32_t to)
{
    int2 exponents = {0, 0};
    int first = warp_row(c, t), lane = lane_now(c);
    bool wide = false;
#pragma unroll 1
    for (int i = 0; i < 16 / Q_ROWS; i++) {
        float4 x[ROW_LOADS];
        load_queries(a, t, first + i * Q_ROWS, lane, x);
        wide |= split_some(a, lane, x, i * Q_STEPS, to, exponents);
    }
    tell_queries(a, t, first, lane, __any_sync(~0u, wide));
    return exponents;
}
#endif

#if BY_PANELS
/* The factors of the lane's two rows, in shared memory; four lanes share them. */
DEVICE uint32_t own_factors(const struct consumer &c)
{
    return own_tile(c) + RECORD_BYTES + 16 + (lane_now(c) >> 2) * 8;
}
#endif

/* Q of a tile into the warpgroup's slot, when all of its warps are through with what lies there. */
DEVICE void split_q(struct consumer &c, const struct attention_args &a, const struct tile &t
#if !BY_PANELS
                    ,
                    const float4 (&x)[ROW_LOADS]
#endif
)
{
    uint32_t to = c.base + AT_Q + group_now(c) * Q_BYTES + (thread_now(c) >> 5) * 16 * 128;
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
#if BY_PANELS
    int2 exponents = load_and_split(c, a, t, to);
#else
    int2 exponents = split_queries(a, t, warp_row(c, t), lane_now(c), x, to);
#endif
#if BY_PANELS
    shared_store2(own_factors(c), __float_as_uint(power_of_two(exponents.x - 14) * a.scale_log2),
                  __float_as_uint(power_of_two(exponents.y - 14) * a.scale_log2));
#else
    c.row0 = power_of_two(exponents.x - 14) * a.scale_log2;
    c.row1 = power_of_two(exponents.y - 14) * a.scale_log2;
#endif
    async_proxy_fence();
    named_barrier_sync(BARRIER_GROUP + group_now(c), 128);
}
#endif

#endif
