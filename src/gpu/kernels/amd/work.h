/* work.h: what a block of the AMD forward works on, and where its tiles lie in LDS.
 *
 * A block is WAVES waves; each owns QT times EDGE neighbouring query rows of the tile, a lane the
 * query lane % EDGE of each. LDS holds one tile of K, TILE_KV rows of D, and one of V transposed,
 * DV rows of TILE_KV; the 16-byte pieces of a row are XORed with a number of the row, so that the
 * rows that one access serves meet different banks. When the keys are done the same memory takes
 * the output on its way to whole rows.
 *
 *   Q_SHARED  1: Q lies in LDS too, behind V; n: its last n chunks of 16 channels do, the rest in
 *             registers; 0: all of it in registers
 *   Q_STREAMED  1: Q is read from memory for every tile of keys
 *   DIRECT    1: tiles go to LDS when they are wanted, without the registers of a request ahead
 *   LATE      1: tiles are requested late, which takes fewer registers
 *   CAUSAL    1: window_right may hide keys; 0: every key in use is visible
 *   FEATURES  1: windows, softcap, ALiBi, sinks and narrow heads too (implies CAUSAL)
 *   SPLIT_KEYS  1: blocks share the keys of a tile, whose rows are those of several heads (parts.h);
 *             windows too (implies CAUSAL) */
#ifndef RAPT_AMD_WORK_H
#define RAPT_AMD_WORK_H

#include "amd/fragment.h"

#ifndef Q_SHARED
#define Q_SHARED 0
#endif
#ifndef DIRECT
#define DIRECT 0
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef Q_STREAMED
#define Q_STREAMED 0
#endif
#define FEW_ADDRESSES (DIRECT || LATE) /* addresses in LDS are made anew, not kept in registers */
#ifndef CAUSAL
#define CAUSAL 0
#endif
#ifndef FEATURES
#define FEATURES 0
#endif
#ifndef SPLIT_KEYS
#define SPLIT_KEYS 0
#endif
#define WINDOWS (FEATURES || SPLIT_KEYS)
#if SPLIT_KEYS
#include "parts.h"
#endif

enum {
    WAVES = THREADS / WAVE,
    QT = TILE_Q / (EDGE * WAVES), /* query tiles per wave */
    KT = TILE_KV / EDGE,          /* score tiles */
    CT = DV / EDGE,               /* output tiles */
    QK_CHUNKS = D / 16,
    K_PIECES = D / 8, /* 16-byte pieces of a row of K */
    V_PIECES = DV / 8,
    V_LINE = TILE_KV / 8, /* and of a row of V transposed */
    K_BYTES = TILE_KV * D * 2,
    V_BYTES = TILE_KV * DV * 2,
    Q_CHUNKS = Q_SHARED == 1 ? QK_CHUNKS : Q_SHARED, /* in LDS */
    Q_OWN = QK_CHUNKS - Q_CHUNKS,                    /* in registers */
    Q_LINE = Q_SHARED ? 2 * Q_CHUNKS : 8,
    Q_BYTES = TILE_Q * Q_CHUNKS * 32
};
static_assert(D % 32 == 0 && DV % EDGE == 0 && TILE_Q == QT * EDGE * WAVES && TILE_KV % 32 == 0,
              "tile sizes");
static_assert(SHARED_BYTES == K_BYTES + V_BYTES + Q_BYTES, "K, then V transposed, then Q");

extern __shared__ uint4 shared_memory[]; /* in pieces */

struct work {
    struct sequence seq;
    int b, head, kv_head;
    int first_query; /* of the tile, within the sequence */
    int first_key,
        end_key;       /* keys that some row of the tile sees; first_key a multiple of TILE_KV */
    const char *k, *v; /* row 0 of the sequence */
    float scale_log2;  /* of the products, for exp2 */
    float slope;       /* ALiBi */
    int changes;       /* changes_scores */
#if SPLIT_KEYS
    int part, tokens; /* tile_tokens */
#endif
};

DEVICE int lane_here(void)
{
    return THREAD % WAVE;
}

/* Scalar registers hold it. */
DEVICE int wave_here(void)
{
    return __builtin_amdgcn_readfirstlane(THREAD / WAVE);
}

DEVICE int uniform(int x)
{
    return __builtin_amdgcn_readfirstlane(x);
}

DEVICE int any_in_wave(int x)
{
#if WAVE == 64
    return __builtin_amdgcn_ballot_w64(x) != 0;
#else
    return __builtin_amdgcn_ballot_w32(x) != 0;
#endif
}

DEVICE const char *uniform_address(const char *p)
{
    uint64_t x = (uint64_t)p;
    uint32_t low = uniform((int)(uint32_t)x), high = uniform((int)(x >> 32));
    return (const char *)((uint64_t)high << 32 | low);
}

/* The same address, new to the compiler and in scalar registers: what is computed from it stays
 * where it is, and a lane's part is added as an offset. */
DEVICE const char *scalar(const char *p)
{
    p = uniform_address(p);
    asm volatile("" : "+s"(p));
    return p;
}

/* The arguments, likewise; they stay in constant memory. */
DEVICE const struct attention_args *fresh_args(const struct attention_args *a)
{
    const __attribute__((address_space(4))) struct attention_args *p =
        (const __attribute__((address_space(4))) struct attention_args *)a;
    asm volatile("" : "+s"(p));
    return (const struct attention_args *)p;
}

/* Byte addresses in LDS. Piece p of a row lies at p ^ turn, the turn made of the row's number so
 * that neighbouring rows differ: rows of a multiple of 128 bytes begin at the same bank, of others
 * every second one does. As the bits of rows and pieces are apart, an address is a lane's own part,
 * XORed with a constant, plus a constant. */
enum { K_TURNS = K_PIECES % 8 ? 4 : 8, V_TURNS = V_LINE % 8 ? 4 : 8 };

DEVICE int turn_of(int row, int turns)
{
    return turns == 8 ? row & 7 : row >> 1 & 3;
}

DEVICE uint4 *shared_at(int address)
{
    return (uint4 *)((char *)shared_memory + address);
}

/* Whether x holds in some thread of the block. Uses the memory of K. */
DEVICE int any_in_block(int x)
{
    int *flag = (int *)shared_at(fresh(0)), any = 0;
    x = any_in_wave(x);
    block_barrier();
    if (lane_here() == 0) flag[wave_here()] = x;
    block_barrier();
#pragma unroll
    for (int i = 0; i < WAVES; i++) any |= flag[i];
    block_barrier();
    return uniform(any);
}

/* Piece `piece` of row `key` of K. */
DEVICE int k_address(int key, int piece)
{
    return key * K_PIECES * 16 + (piece ^ turn_of(key, K_TURNS)) * 16;
}

/* The piece that is `more` pieces on, an even number of which only bits may be set that are not set
 * in the piece of `address`. */
DEVICE int k_further(int address, int more)
{
    return (address ^ more % K_TURNS * 16) + more / K_TURNS * K_TURNS * 16;
}

/* The same of row `row` of the part of Q in LDS. */
enum { Q_TURNS = Q_LINE % 8 ? 4 : 8 };

DEVICE int q_address(int row, int piece)
{
    return K_BYTES + V_BYTES + row * Q_LINE * 16 + (piece ^ turn_of(row, Q_TURNS)) * 16;
}

DEVICE int q_further(int address, int more)
{
    return (address ^ more % Q_TURNS * 16) + more / Q_TURNS * Q_TURNS * 16;
}

/* Piece `piece` of row `channel` of V transposed. Neighbouring readers differ in the channel by 1,
 * writers by 8 and, where a row of V is 4 pieces (or an odd multiple), in the piece too: both
 * turn the pieces. Two more bits keep 16 writers of 8 bytes apart: bit 3 of the channel swaps two
 * rows that are shorter than 128 bytes, bit 6 the two halves of a piece. */
DEVICE int v_turn(int channel)
{
    int eights = channel >> 3;
    return turn_of(channel ^ (V_PIECES % 8 ? eights << 1 : eights), V_TURNS);
}

DEVICE int v_address(int channel, int piece)
{
    int row = V_TURNS == 8 ? channel : channel ^ (channel >> 3 & 1);
    return K_BYTES + row * V_LINE * 16 + (piece ^ v_turn(channel)) * 16;
}

/* The same for output tile c and a piece `more` (even) on. */
DEVICE int v_further(int address, int c, int more)
{
    return (address ^ (more ^ v_turn(c * EDGE)) * 16) + c * EDGE * V_LINE * 16;
}

/* Whether the halves of a piece of V are swapped; the same for all channels of an output tile. */
DEVICE int v_swapped(int channel)
{
    return channel >> 6 & 1;
}

/* Whether change_scores has work; it leaves natural scores. A negative scale would turn the maximum
 * of the products around. */
DEVICE int changes_scores(const struct attention_args *a)
{
    return a->softcap > 0 || a->alibi.data || a->scale < 0;
}

#if SPLIT_KEYS
/* A lane's row of the wave's query tile r, within the tile: row % tokens is its query behind
 * first_query, row / tokens its head behind w->head. */
DEVICE int row_in_tile(int r, int lane)
{
    return (wave_here() * QT + r) * EDGE + lane % EDGE;
}

DEVICE int head_of(const struct work *w, int r, int lane)
{
    return w->head + (row_in_tile(r, lane) >> __builtin_ctz(w->tokens));
}
#endif

/* Channel 0 of a token in a view of 2-byte elements. */
DEVICE const char *half_at(const struct view *v, int64_t batch, int64_t head, int64_t token)
{
    return (const char *)v->data +
           (batch * v->stride[0] + head * v->stride[1] + token * v->stride[2]) * 2;
}

DEVICE struct work work_of(const struct attention_args *a, int b, int head, int tile)
{
    struct work w = {};
    w.seq = sequence_of(a, b);
    w.seq.q_start = uniform(w.seq.q_start);
    w.seq.q_length = uniform(w.seq.q_length);
    w.seq.kv_start = uniform(w.seq.kv_start);
    w.seq.kv_length = uniform(w.seq.kv_length);
    w.seq.offset = uniform(w.seq.offset);
    w.b = uniform(b);
    w.head = uniform(head);
    w.kv_head = uniform(head / a->group);
    int tokens = SPLIT_KEYS ? a->tile_tokens : TILE_Q;
    w.first_query = uniform(tile * tokens);
    int last_query = smaller(w.first_query + tokens, w.seq.q_length) - 1;
    w.end_key = w.seq.kv_length;
    if (CAUSAL || WINDOWS)
        w.end_key = smaller(w.end_key, last_query + w.seq.offset + a->window_right + 1);
    if (WINDOWS)
        w.first_key = larger(0, w.first_query + w.seq.offset - a->window_left) / TILE_KV * TILE_KV;
    w.k = uniform_address(half_at(&a->k, w.seq.kv_batch, w.kv_head, w.seq.kv_start));
    w.v = uniform_address(half_at(&a->v, w.seq.kv_batch, w.kv_head, w.seq.kv_start));
    w.scale_log2 = a->scale_log2;
    if (FEATURES) w.changes = uniform(changes_scores(a));
    if (FEATURES && w.changes) w.scale_log2 = LOG2_E;
    if (FEATURES && a->alibi.data)
        w.slope = load_element(element_at(&a->alibi, b, head, 0, 0), 0, DTYPE_f32);
    return w;
}

#endif
