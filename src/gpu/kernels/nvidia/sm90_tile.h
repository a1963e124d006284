/* sm90_tile.h: the shape of one sm_90a forward kernel: what its row fixes at compile time, and
 * where things lie in shared memory.
 *
 * The row of kernels.def gives D, DV, TILE_Q, TILE_KV, THREADS, SHARED_BYTES and, as flags:
 *   CAUSAL         1: heaviest row tiles first, a masked loop at the diagonal. 0: no causal mask
 *   FEATURES       1: window, softcap, sink, ALiBi, ragged batches, lengths, f32 output, any scale:
 *                  chosen at run time
 *   SCORES         with FEATURES: which scores the row is for: SCORES_ANY, or of one kind, so that
 *                  the others cost nothing
 *   EARLY          16-bit rows: eighths of a block's weights that are taken while p v runs; 0: the
 *                  softmax waits for p v
 *   STAGES         K/V blocks in flight
 *   Q_SLOTS        row tiles of Q in shared memory
 *   Q_REGISTERS    1: Q is an operand in registers, its slot is free at once; D <= 128
 *   LINES          1: output goes through shared memory, so that whole lines leave, with fewer
 *                  instructions than an exchange among lanes; plain rows with 2 KB left a warp.
 *                  2: from there by one tensor copy a warp, behind the threads' backs (16 rows of
 *                  output a warp; NEED_OUT_MAP)
 *   SECTION        heads that are worked on together, so that their K and V stay in the L2 cache
 *   SECTION_LAST   tiles of the last section for each block: it ends with light ones of many heads
 *   SECTION_TILES  of which it counts so many for a head at least: those of short heads are all light
 *   ASCENDING      1: keys are walked from the first to the last, so that the row tiles of a head,
 *                  at work side by side, ask for the same blocks at the same time, and a row's
 *                  first block shows it all keys; 0: from the last
 *   MERGED         with ASCENDING: one step for masked and other blocks; tall tiles have no
 *                  registers for the question
 *   PARTS          2, 3: f32, each element as the sum of two f16 parts, scaled by a power of two
 *                  for its row, or of three bf16 parts
 *                  (docs/decisions/0007-f32-on-tensor-cores.md); the maps hold part i of sequence b
 *                  at batch i * a.batch + b. 1: 16-bit elements
 *                  With FEATURES besides: D and DV are the most channels that q and v have, the
 *                  others are zeros in the parts
 *   SUMS           2, with PARTS 2: a score is added up in two sums, over half of the channels
 *                  each, since the multiplies cut where they add; their registers are those of P
 *                  and P V, so that a warpgroup overlaps nothing itself, and one stage serves
 *   IN_PLACE       1, with PARTS 2: K and V come as f32, and each tile splits them in shared memory,
 *                  by WORKERS warps beside the producer, four of them in a warpgroup of their own
 *                  (sm90_in_place.h)
 *   BY_PANELS      1: f32 of up to 256 channels: K and V come one panel of 64 channels at a time, in
 *                  a ring of STAGES panels (sm90_panels.h), and a score has as many SUMS as panels.
 *                  With FEATURES
 *   SPLIT_KEYS     1: tiles share the keys of their rows: each takes one of a.splits parts and leaves
 *                  its sums to NAME_combine; its rows are a.tile_tokens queries of several heads of
 *                  a group, so that few queries fill them (sm90_parts.h). With FEATURES, SCORES_LINEAR
 *                  and Q_REGISTERS
 *   KV_I8          1: K and V are i8 with a scale for each key, made numbers of q's type by the
 *                  producers (sm90_keys_i8.h). With FEATURES and SCORES_LINEAR
 *   KV_AHEAD       1: with KV_I8: made numbers by a launch ahead, NAME_prepare (sm90_numbers.h)
 *   SCALE_CHANNELS with KV_AHEAD: channels of K and V to which a scale belongs; those of a row if not
 *                  said
 *   CELL_ROWS      1: f32 with FEATURES: a bias of f32 and a mask besides (sm90_cell_rows.h)
 *   PANEL_MAPS     1: tensor maps are 4-D (channel, token, head, batch) and each 64-column panel is
 *                  a box of its own, so that channels past the tensor's are zero: head sizes that
 *                  are no multiple of 64, or smaller than the tile's
 *   WHOLE_PANELS   0: p v is taken over DV columns, a multiple of 16, in place of whole panels
 *   LEADS          1: heads of an odd number of 16 bytes are loaded by whole sectors of 32, with
 *                  channels of their neighbours (sm90_lead.h); with PANEL_MAPS and FEATURES, NEED_PAIRS */
#ifndef RAPT_NVIDIA_SM90_TILE_H
#define RAPT_NVIDIA_SM90_TILE_H

#include "gpu/kernel_args.h"
#include "wgmma.h"

#ifndef CAUSAL
#define CAUSAL 0
#endif
#ifndef FEATURES
#define FEATURES 0
#endif
/* LINEAR: neither softcap nor ALiBi nor a negative scale; CAPPED: softcap alone; SLOPED: ALiBi
 * alone; BIASED: a bias of the elements' type alone, BIASED_F32: of f32; HIDDEN: a mask tensor
 * alone; KEYED: a bias, a mask tensor or both, of one row for all queries. */
#define SCORES_ANY        0
#define SCORES_LINEAR     1
#define SCORES_CAPPED     2
#define SCORES_SLOPED     3
#define SCORES_BIASED     4
#define SCORES_HIDDEN     5
#define SCORES_BIASED_F32 6
#define SCORES_KEYED      7
#ifndef SCORES
#define SCORES SCORES_ANY
#endif
#ifndef EARLY
#define EARLY 4
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef Q_SLOTS
#define Q_SLOTS 1
#endif
#ifndef Q_REGISTERS
#define Q_REGISTERS 0
#endif
#ifndef SECTION
#define SECTION (CAUSAL || FEATURES ? 16 : 1) /* measured: bench/notes/hopper.md */
#endif
#ifndef LINES
#define LINES 0
#endif
#ifndef SECTION_LAST
#define SECTION_LAST 0
#endif
#ifndef SECTION_TILES
#define SECTION_TILES 1
#endif
#ifndef SPLIT_KEYS
#define SPLIT_KEYS 0
#endif
#ifndef KV_I8
#define KV_I8 0
#endif
#ifndef KV_AHEAD
#define KV_AHEAD 0
#endif
/* Whether the producers make numbers of K and V. */
#define CONVERTS (KV_I8 && !KV_AHEAD)
#ifndef SCALE_CHANNELS
#define SCALE_CHANNELS D
#endif
/* Scales of a key, and of a value; where there are several, values come as two numbers that add up. */
#define SCALE_BLOCKS (D / SCALE_CHANNELS)
#ifndef PARTS
#define PARTS (DTYPE == DTYPE_f32 ? 3 : 1) /* HALVES */
#endif
#define CAPPED (PARTS == 1 && FEATURES && SCORES == SCORES_CAPPED)
/* Bytes of what a tensor has for each score, see sm90_cells.h. */
#define CELLS                                                                                      \
    (!FEATURES                     ? 0                                                             \
     : SCORES == SCORES_BIASED     ? 2                                                             \
     : SCORES == SCORES_BIASED_F32 ? 4                                                             \
     : SCORES == SCORES_HIDDEN     ? 1                                                             \
                                   : 0)
#ifndef CELL_ROWS
#define CELL_ROWS 0
#endif
/* 1: rows of cells may begin at any byte, see sm90_loose.h. */
#ifndef LOOSE
#define LOOSE 0
#endif
#define KEYED    (PARTS == 1 && FEATURES && SCORES == SCORES_KEYED)
#define LOW_ROWS (CELLS > 1 || KEYED)
#ifndef SUMS
#define SUMS 1
#endif
#ifndef IN_PLACE
#define IN_PLACE 0
#endif
#ifndef BY_PANELS
#define BY_PANELS 0
#endif
#ifndef ASCENDING
#define ASCENDING (CAUSAL && !FEATURES && PARTS == 1)
#endif
#ifndef MERGED
#define MERGED (ASCENDING && D > 96)
#endif
#ifndef PANEL_MAPS
#define PANEL_MAPS (D % 64 != 0 || DV % 64 != 0)
#endif
#ifndef WHOLE_PANELS
#define WHOLE_PANELS 1
#endif
#ifndef LEADS
#define LEADS 0
#endif
/* Whether K and V may lie in pages (sm90_pages.h). */
#define PAGES (FEATURES && PARTS == 1 && !CELLS && !KV_AHEAD)

constexpr int ROWS = TILE_Q,
              GROUPS = ROWS / 64; /* query rows of a tile; one warpgroup for each 64 */
constexpr int KEYS = TILE_KV;     /* keys of a block */
/* Words of a block's weights as operands. */
constexpr int WEIGHT_WORDS = (PARTS + V_BF16) * KEYS / 4;
constexpr int QK_SLICES = (D + 15) / 16, QK_PANELS = (D + 63) / 64;
constexpr int V_PANELS = (DV + 63) / 64, V_NUMBERS = SCALE_BLOCKS > 1 ? 2 : 1,
              VALUES = WHOLE_PANELS ? 64 * V_PANELS : DV; /* columns of the output accumulator */
/* Warpgroups take turns at the tensor cores; with two parts, or by panels, they need no order. */
constexpr bool PING_PONG = GROUPS > 1 && PARTS != 2 && !BY_PANELS;
constexpr bool Q_HELD = Q_REGISTERS;
/* f16 holds no weight times scale of every size: rows have units, see sm90_scales_i8.h. */
constexpr bool UNITS = KV_I8 && DTYPE == DTYPE_f16 && !V_BF16;
/* Some rows of a tile may not see a key that others see, or 16-bit rows' weights may overflow. */
constexpr bool REPAIRS = CAUSAL || FEATURES || PARTS == 1;

static_assert(THREADS == 128 * (GROUPS + 1 + IN_PLACE),
              "one producer warpgroup and one consumer warpgroup per 64 rows");
constexpr int WORKERS = 7; /* IN_PLACE */
static_assert(!SPLIT_KEYS || (FEATURES && SCORES == SCORES_LINEAR && Q_REGISTERS && !PANEL_MAPS),
              "warps that read their rows of Q themselves, and no heads told apart but by them");
static_assert(!LINES || (PARTS == 1 && !PANEL_MAPS && !FEATURES), "plain rows alone");
static_assert(!ASCENDING || (CAUSAL && !FEATURES && PARTS == 1), "plain causal rows alone");

/* Keys of a block lie in shared memory, with their factors, in an order in which a lane's columns
 * of scores are neighbours, four of 16 keys: key 4 q + 2 h + e at 8 h + 2 q + e. */
constexpr bool KEY_QUADS = CELL_ROWS && PARTS == 2;
__host__ __device__ constexpr int place_of_key(int key)
{
    return KEY_QUADS ? (key & ~15) | (key & 2) << 2 | (key >> 1 & 6) | (key & 1) : key;
}
/* Of element 4 i + e of a lane's scores, e below 2, counted from the lane's first column. */
__host__ __device__ constexpr int column_of(int i, int e)
{
    return KEY_QUADS ? i / 2 * 16 + i % 2 * 2 + e : 8 * i + e;
}

/* Products of parts, a of the left operand with b of the right one, the small ones first; the
 * smallest ones, one of four or three of nine, are left out. */
constexpr int PAIRS = PARTS == 1 ? 1 : PARTS == 2 ? 3 : 6;
__host__ __device__ constexpr int pair_left(int i)
{
    return PARTS == 1 ? 0 : (PARTS == 2 ? 0x001 : 0x001102) >> 4 * i & 15;
}
__host__ __device__ constexpr int pair_right(int i)
{
    return PARTS == 1 ? 0 : (PARTS == 2 ? 0x010 : 0x010120) >> 4 * i & 15;
}

/* ---- Shared memory, byte offsets from the 1024-byte aligned base
 * ------------------------------------------------------------ */

/* BY_PANELS: K_PART, V_PART, K_BYTES and V_BYTES are those of a panel. */
constexpr uint32_t Q_PART = 64 * QK_PANELS * 128, K_PART = KEYS * (BY_PANELS ? 1 : QK_PANELS) * 128,
                   V_PART = KEYS * (BY_PANELS ? 1 : V_PANELS) * 128;
constexpr uint32_t Q_BYTES = PARTS * Q_PART, K_BYTES = PARTS * K_PART,
                   V_BYTES = PARTS * V_NUMBERS * V_PART; /* the parts one after the other */
constexpr int Q_COUNT = Q_SLOTS * GROUPS; /* one Q slot holds the 64 rows of one warpgroup */
constexpr int RAGGED_LIMIT =
    256; /* sequences of a ragged batch (ragged_refuses in the host's table) */
constexpr uint32_t RECORD_BYTES = FEATURES ? 32 : 16; /* struct tile, beside each Q slot */

constexpr uint32_t AT_Q = 0;
constexpr uint32_t AT_K = AT_Q + Q_COUNT * Q_BYTES;
constexpr uint32_t AT_V = AT_K + STAGES * K_BYTES;
constexpr uint32_t CELL_BYTES = LOOSE ? 0 : CELLS * ROWS * KEYS, CELL_PANELS = KEYS * CELLS / 128;
/* LOOSE: words of a row of cells, and from one row to the next, so that 8 of them lie in other banks. */
constexpr int LOOSE_WORDS = KEYS * CELLS / 4 + (CELLS < 4), LOOSE_PITCH = KEYS * CELLS / 4 + 4;
constexpr uint32_t LOOSE_BYTES = LOOSE ? 16 * LOOSE_PITCH * 4 : 0;       /* of a warp */
constexpr uint32_t AT_CELLS = AT_V + (BY_PANELS ? 0 : STAGES) * V_BYTES; /* of each stage */
constexpr uint32_t AT_RECORD = AT_CELLS + STAGES * CELL_BYTES + 4 * GROUPS * LOOSE_BYTES;
constexpr uint32_t AT_K_FULL = AT_RECORD + Q_COUNT * RECORD_BYTES; /* mbarriers, 8 bytes each */
constexpr uint32_t AT_K_EMPTY = AT_K_FULL + 8 * STAGES;
constexpr uint32_t AT_V_FULL = AT_K_EMPTY + 8 * STAGES;
constexpr uint32_t AT_V_EMPTY = AT_V_FULL + 8 * STAGES;
constexpr uint32_t AT_Q_FULL = AT_V_EMPTY + 8 * STAGES;
constexpr uint32_t AT_Q_EMPTY = AT_Q_FULL + 8 * Q_COUNT;
constexpr uint32_t AT_BEHIND =
    (AT_Q_EMPTY + 8 * Q_COUNT + 15) / 16 * 16;    /* the producer's: see sm90_load.h */
constexpr uint32_t AT_NOTES = AT_BEHIND + 16;     /* sm90_repair.h: one word for each warpgroup */
constexpr uint32_t AT_GROUP_BITS = AT_NOTES + 16; /* one word for each warp of a warpgroup */
constexpr uint32_t AT_REPAIR_FULL = AT_GROUP_BITS + 16; /* mbarriers, one for each warpgroup */
constexpr uint32_t AT_FIRST_TILE =
    AT_REPAIR_FULL + 8 * 4; /* ragged queries: int[RAGGED_LIMIT + 1] */
constexpr uint32_t AT_ORDER = AT_FIRST_TILE + 4 * (RAGGED_LIMIT + 1); /* uint16_t[RAGGED_LIMIT] */
/* PARTS 2, ragged keys: struct key_table. */
constexpr uint32_t AT_KEY_TABLE = AT_ORDER + 2 * RAGGED_LIMIT,
                   KEY_TABLE_BYTES = 4 * (RAGGED_LIMIT + 1) + 2 * RAGGED_LIMIT;
/* PARTS 2: factors of keys, in a ring of one more than stages: K's stage is free again before the
 * softmax that needs its factors. BY_PANELS: a block has four panels or more (features.def), so that
 * the slot of K's first one was not given back before the softmax of the block before the last. */
constexpr int FACTOR_SLOTS = BY_PANELS ? 2 : STAGES + 1;
/* KV_I8: scales of the keys and of the values of a block, and what these ask for. With several scales:
 * before the keys' last ones what brings sums of scores from each scale to the next. */
constexpr uint32_t SCALE_BYTES = 4 * KEYS, AT_KEY_SCALES = (SCALE_BLOCKS - 1) * SCALE_BYTES,
                   AT_VALUE_SCALES = AT_KEY_SCALES + SCALE_BYTES,
                   AT_EXPONENTS = AT_VALUE_SCALES + SCALE_BYTES, SLOT_BYTES = AT_EXPONENTS + 16;
/* What comes with a block of K. */
constexpr uint32_t KEY_FACTOR_BYTES = PARTS == 2 ? 16 * KEYS : KV_AHEAD ? SLOT_BYTES : 0;
constexpr uint32_t AT_KEY_FACTORS =
    ((FEATURES ? AT_KEY_TABLE + KEY_TABLE_BYTES : AT_FIRST_TILE) + 127) / 128 * 128;
/* f32 rows on their way through each of three warps that split. */
constexpr uint32_t AT_SPLIT = AT_KEY_FACTORS + FACTOR_SLOTS * KEY_FACTOR_BYTES,
                   SPLIT_RING_BYTES = BY_PANELS ? 4096 : 8192;
/* IN_PLACE, in place of these: for each stage mbarriers that say that its K, its V is in parts, and
 * which block it holds. */
constexpr uint32_t AT_K_READY = IN_PLACE ? AT_SPLIT : AT_K_FULL,
                   AT_V_READY = IN_PLACE ? AT_K_READY + 8 * STAGES : AT_V_FULL,
                   AT_STAGE_RECORD = AT_SPLIT + 16 * STAGES,
                   SPLIT_BYTES = IN_PLACE ? 48 * STAGES : 3 * SPLIT_RING_BYTES;
/* And a copy of its tile's record for each consumer warp: registers are few. BY_PANELS: and more that
 * it knows of the tile, four words, and the factors of its rows. */
constexpr uint32_t AT_OWN_TILE = AT_SPLIT + SPLIT_BYTES,
                   OWN_TILE_BYTES = RECORD_BYTES + (BY_PANELS ? 16 + 8 * 8 : 0);
/* LINES: output on its way to memory, 16 rows of 64 columns for each consumer warp, or with 2 of
 * all columns, 64 after 64; swizzled in patterns of 1024 bytes. */
constexpr uint32_t LINES_BYTES = 16 * 128 * (LINES == 2 ? V_PANELS : 1);
constexpr uint32_t AT_LINES = (AT_FIRST_TILE + 1023) / 1024 * 1024;
/* Capped scores: two words for each warpgroup, see begin_near(). */
constexpr uint32_t AT_FAR = AT_ORDER + 2 * RAGGED_LIMIT;
/* Cells: mbarriers. */
constexpr uint32_t AT_CELLS_FULL = (AT_FAR + 7) / 8 * 8;
constexpr uint32_t AT_CELLS_EMPTY = AT_CELLS_FULL + 8 * STAGES;
/* Paged keys: what the pagers are to load next, and two mbarriers (sm90_pages.h). */
constexpr uint32_t AT_JOB = (AT_FAR + (CAPPED ? 8 * GROUPS : 0) + 15) / 16 * 16;
constexpr uint32_t AT_JOB_FULL = AT_JOB + 16, AT_JOB_EMPTY = AT_JOB_FULL + 8;
/* The same of integers, in a ring (sm90_keys_i8.h). */
constexpr uint32_t JOBS = 4, JOB_BYTES = 48;
/* Scales in twice as many slots as stages, since K's stage is free again before the softmax that needs
 * them: first those of parity 0. */
constexpr uint32_t SCALE_SLOTS = 2 * STAGES;
constexpr uint32_t AT_SCALES = KV_AHEAD ? AT_JOB : AT_JOB + (JOBS + 1) * JOB_BYTES + 16 * JOBS;
/* Integers and scales on their way: halves of a block, two for each of three warps, or of four warps
 * in a repair. */
constexpr uint32_t COPY_BYTES = KEYS / 2 * (D + 8);
constexpr uint32_t AT_COPIES = AT_SCALES + SCALE_SLOTS * SLOT_BYTES;
constexpr uint32_t SHARED_END = KV_AHEAD     ? AT_SCALES + SCALE_SLOTS * SLOT_BYTES
                                : KV_I8      ? AT_COPIES + 6 * COPY_BYTES
                                : CELLS      ? AT_CELLS_EMPTY + 8 * STAGES
                                : PAGES      ? AT_JOB_EMPTY + 8
                                : PARTS == 2 ? AT_OWN_TILE + 4 * GROUPS * OWN_TILE_BYTES
                                : FEATURES   ? AT_FAR
                                : LINES      ? AT_LINES + 4 * GROUPS * LINES_BYTES
                                             : AT_FIRST_TILE;

static_assert(GROUPS <= 4, "one word and one barrier for each warpgroup");
static_assert(!REPAIRS || KEYS <= 128, "one thread of a warpgroup looks at each key");
static_assert(PARTS == 1 || (!PANEL_MAPS && !Q_HELD),
              "parts: panels of 64 channels, and Q in memory");
static_assert(PARTS != 2 || PART_KEYS % KEYS == 0, "so many keys are split as a whole");
static_assert(PARTS != 2 ||
                  (128 % KEYS == 0 && D == DV && (D == 64 || D == 128 || D == 256) && Q_SLOTS == 1),
              "two parts: a warp splits a row of Q, or several, at a time");
static_assert(!BY_PANELS ||
                  (PARTS > 1 && FEATURES && !CELL_ROWS && D == 256 && DV == 256 && Q_SLOTS == 1 &&
                   SUMS == QK_PANELS && (PARTS == 3 || STAGES >= V_PANELS)),
              "by panels: those of V wait where small weights want them again");
static_assert(!CELL_ROWS || (PARTS > 1 && FEATURES && SCORES == SCORES_ANY && KEYS % 32 == 0),
              "f32 rows with all features");
static_assert(SUMS == 1 || BY_PANELS || IN_PLACE ||
                  (PARTS == 2 && D == 128 && STAGES == 1 && KEYS == 128),
              "two sums");
static_assert(!IN_PLACE || (PARTS == 2 && D == 128 && SUMS == 2 && STAGES == 2 && KEYS == 64 &&
                            GROUPS == 2 && !FEATURES),
              "rows of K and V of 512 bytes, and a block ahead");
static_assert(K_PART % 1024 == 0 && V_PART % 1024 == 0, "every tile starts a new swizzle pattern");
static_assert(!KV_I8 || (FEATURES && SCORES == SCORES_LINEAR && PARTS == 1 && !PANEL_MAPS &&
                         GROUPS == 2 && D == DV && KEYS % 16 == 0),
              "integers: turns that keep the scales' slots apart");
static_assert(!CONVERTS || (KEYS == 128 && SCALE_BLOCKS == 1), "halves of a block, and one scale");
static_assert(!KV_AHEAD || (KV_I8 && SLOT_BYTES == 4 * SCALE_WORDS(SCALE_BLOCKS, KEYS)),
              "what a launch ahead leaves");
static_assert(SCALE_BLOCKS == 1 ||
                  ((DTYPE == DTYPE_bf16 || V_BF16) && KV_AHEAD && SCALE_CHANNELS == 32),
              "two steps of channels a scale");
static_assert(!LEADS || (PANEL_MAPS && FEATURES && PARTS == 1), "channels outside a map's axis");
static_assert(!CELLS || (KEYS * CELLS % 128 == 0 && PARTS == 1), "panels of 128 bytes");
static_assert(SHARED_END <= SHARED_BYTES, "the row's shared bytes hold the layout");
static_assert(SHARED_BYTES <= 227 * 1024, "the most that a block of sm_90 can have");

/* ---- Registers: 65536 / THREADS at launch, rounded down to 8; the producers give theirs to the
 * consumers --------------------- */

constexpr int PRODUCER_REGISTERS = IN_PLACE                                ? 64
                                   : GROUPS == 3                           ? 32
                                   : CONVERTS && !Q_HELD                   ? 72
                                   : PARTS == 2 || CELLS || KV_I8 || LEADS ? 56
                                                                           : 40;
constexpr int CONSUMER_REGISTERS = IN_PLACE                                ? 192
                                   : GROUPS == 3                           ? 160
                                   : CONVERTS && !Q_HELD                   ? 216
                                   : PARTS == 2 || CELLS || KV_I8 || LEADS ? 224
                                                                           : 232;
static_assert((1 + IN_PLACE) * PRODUCER_REGISTERS + GROUPS * CONSUMER_REGISTERS <=
                  65536 / THREADS / 8 * 8 * (GROUPS + 1 + IN_PLACE),
              "no more than were there at launch: else the consumers wait forever");

/* Named barriers: 0 is __syncthreads, 1 ... GROUPS the turns of the warpgroups, then one for the
 * threads of each, then one for all consumers. */
enum { BARRIER_TURN = 1, BARRIER_GROUP = BARRIER_TURN + 4, BARRIER_REPAIR = BARRIER_GROUP + 4 };

#endif
