/* kernels.h: the contract between the CPU engine and an instruction set: struct cpu_kernels, its table of functions
 * and tile sizes, and the structs that these take.
 *
 * One table per level (scalar, AVX2, AVX-512, ...), filled by the level's own files; what serves in place of a slot
 * that is NULL stands beside the slot. Every function is pure: no allocation, no global state (decode_stage: the
 * thread's tiles). The levels compute the same function within rounding; tests/check compares each with scalar.
 *
 * Words, in all of src/cpu:
 *
 *   packed row     r of a KV head: query r / group of query head kv_head * group + r % group, so that all heads of a
 *                  group share what is read of K and V. Rows of q, s, p and o are packed rows
 *   s, p, o        scores; weights p = 2^(scale * (s - m)); sums of p v, not yet divided by l
 *   m, l           of each row: the maximum of s so far, and the sum of p before rounding
 *   block, column  keys go by in blocks; column j of s, p, panels and struct cpu_rows is key key0 + j of the sequence
 *   [first, last)  columns, or keys of a sequence where that is said
 *   stride         from one row to the next; of q, s, p and o in units of 4 bytes, whatever the type
 *   NULL row       of K or V: zeros in its place (a key that no row sees, or whose value is added in another way)
 *   to ask for     to prefetch
 *
 * Who calls what, in this order:
 *
 *   forward.c      pack_q, tile_q: once for the rows of an item. Per block: pack_k, pack_v, then for each tile of rows
 *                  qk, score, softmax, pv; or, for all tiles at once, run of a pipeline. At the end store_row. Where
 *                  weights are returned: pack_k, qk, score, weights and store_row once more
 *   decode.c       pack_q, decode_q; per block decode_qk, score, softmax, decode_pv, with decode_stage around them;
 *                  store_row after the merge
 *   few.c          attend_few
 *   ops_matmul.c   load_row, decode_qk, decode_pv, store_row of the best level of f32 arithmetic
 *
 * Memory. Tensors of the caller have any alignment of their elements. Scratch (q, panels, s, o) begins at 64 bytes;
 * so does each row of q and s, and each row of o at a multiple of column_tile floats. Room for q, s, p and panels is
 * given by pair and column_tile, and so are the formats of most levels:
 *
 *              q                        K panel                           V panel                       p
 *   pair = 1   f32 [channel]            [channel][column_tile]            [key][column_tile]            f32, over s
 *   pair = 2   bf16 [channel / 2][2]    [channel / 2][column_tile][2]     [key / 2][column_tile][2]     bf16 [column]
 *
 * pair = 2: two neighbours of the axis that is summed share 4 bytes; an odd one has a zero beside it. p then lies at
 * the start of each row of s. Panel i of K holds all channels of columns i * column_tile ...; panel i of V holds
 * channels i * column_tile ... of panel_keys columns. Panels follow each other without gaps; K panels of fewer than 4
 * channels have the room of 4. p is read by the engine too (forward_unusual.c); q and panels only by the level, which
 * may put other things into their room (integers and scales: x86/i8_panels.h). */
#ifndef RAPT_CPU_KERNELS_H
#define RAPT_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { ROW_TILE_MAX = 16, COLUMN_TILE_MAX = 64 };

/* Rows of K or V, read in place; those of columns [first, last) of a call alone are looked at. Filled by key_rows and
 * rows_behind (address.c), for decode by decode_keys.c. */
struct cpu_rows {
    const void *const *row;    /* [column]: address of the key's channel 0; NULL: a NULL row */
    int64_t dtype;             /* rapt_dtype: F32, F16, BF16 or I8 */
    int64_t channel_stride;    /* elements from a channel to the next */
    const float *const *scale; /* I8, [column]: address of the scale of the key's first channels; else not read */
    int64_t scale_channels;    /* I8: channels that share a scale */
    int64_t scale_stride;      /* I8: floats from one scale of a key to the next */
    /* Blocked caches (RAPT_KV_BLOCKED), where channels have two strides: so many channels lie channel_stride apart, and
     * span_stride elements after the first of them the next ones begin. 0: no blocked cache. */
    int64_t span, span_stride;
    int64_t page; /* keys of a page; pages may lie anywhere. 0: all keys are a constant step apart */
    /* step > 0: all keys of a call lie so many bytes apart, their scales scale_step bytes, none is a NULL row, and row
     * and scale hold an address at column first alone. 0: each key has its own. Only levels with decode_q meet it. */
    int64_t step, scale_step;
};

/* Where channel c of a row lies, in elements. */
static inline int64_t channel_offset(const struct cpu_rows *rows, int64_t c)
{
    if (!rows->span) return c * rows->channel_stride;
    return c / rows->span * rows->span_stride + c % rows->span * rows->channel_stride;
}

/* What becomes of a row of scores between q k^T and softmax: scale, softcap, bias, ALiBi, mask, in this order. Every
 * field but scale may say "none". */
struct cpu_score_row {
    float scale;      /* s = scale * s; not negative: pack_q takes the sign */
    float softcap;    /* s = softcap * tanh(s / softcap); 0: none */
    float slope;      /* ALiBi: s = s - slope * |position - j|; 0: none */
    int64_t position; /* of the query, minus the key of column 0 */
    const void *bias; /* of column 0; NULL: none */
    int64_t bias_dtype, bias_stride; /* F32, F16 or BF16; elements from a column to the next */
    const unsigned char *mask;       /* of column 0; NULL: none; a byte of 0 hides */
    int64_t mask_stride;             /* bytes from a column to the next */
};

/* One step of online softmax over a tile of rows. Columns outside a row's [row_first, row_last) are hidden, whatever s
 * holds there (also NaN). first is a multiple of column_tile; s may be written up to last rounded up to column_tile. */
struct cpu_softmax_tile {
    /* In: scores. Out: p in the level's format, in columns [first, last rounded up to pair), exactly 0 where hidden. */
    float *s;
    int64_t stride, rows, first, last;   /* rows: 1 ... row_tile */
    const int64_t *row_first, *row_last; /* [row] */
    /* p = 2^(scale * (s - m)): log2(e), times the attention scale if s is not yet scaled. */
    float scale;
    /* [row], in and out: running maximum, in units of s (-inf: no key yet), and sum of unrounded p. */
    float *m, *l;
    /* [row][o_stride]: multiplied by 2^(scale * (m_old - m_new)) where m rises; untouched in rows that had no key
     * before. Channels up to the next multiple of column_tile may be multiplied. */
    float *o;
    int64_t o_stride, channels;
};

/* ---- Decode ---- */

/* What a later call will read, to be fetched meanwhile: runs of run_bytes at run[0], run[run_step], run[2 * run_step],
 * ..., of which the first skip bytes are left out, and bytes in all. */
struct cpu_ahead {
    const void *const *run; /* addresses */
    int64_t run_step;       /* entries of run from one to the next */
    int64_t run_bytes;
    int64_t skip;  /* bytes of the first run */
    int64_t bytes; /* in all */
    /* Each line is asked for twice, as a CPU may drop requests: into the second cache, and when the line `again` bytes
     * further on is asked for, once more; 0: at once. Below 0: so many bytes later as well, but then into the first
     * cache. CPU_ONCE: it is asked for once, into the first cache. */
    int64_t again;
};

#define CPU_ONCE INT64_MIN

enum {
    DECODE_HEADS_ROWS = 4, /* most rows of each head; with 8, o is read and written for too few values */
    /* Most keys of a head at a time where decode_keys is 0: of decode_pv_heads, and of decode_qk_heads. */
    DECODE_HEADS_KEYS = 8,
    DECODE_HEADS_SCORES = 4,
};

/* Neighbouring KV heads of one call of decode_qk_heads or decode_pv_heads. The call's rows, q, s, p and o are those of
 * the first; head h has its rows h * bytes further, their scales h * scale_bytes, its q, s and p behind those of the
 * head before (rows * stride), its o h * o_step floats further. */
struct cpu_heads {
    int64_t count, bytes, o_step;
    /* Keys of a head that the kernel takes before it turns to the next head: decode_keys, or an even number, at most
     * DECODE_HEADS_KEYS. */
    int64_t keys;
    /* How they lie in memory: turn keys of the first head, the same keys of the second, ..., then the next turn keys.
     * A page that holds its heads one behind another: its keys; else turn is keys. before: so many keys of the first
     * turn come before column first. */
    int64_t turn, before;
    int64_t scale_bytes;
};

/* What the next calls of a thread are: those of decode_qk of a block, those of decode_pv, neither. */
enum decode_stage { DECODE_SCORES, DECODE_VALUES, DECODE_DONE };

/* ---- Few queries and few keys ---- */

enum {
    FEW_STRIP = 4,     /* rows of a strip, keys of a tile of scores */
    FEW_KEYS_MAX = 64, /* of a sequence */
};

/* FEW_STRIP rows of cpu_few and the keys that they see: row i sees first[i] ... last[i] - 1 (none: first >= last), some
 * row low ... high - 1, every row all_low ... all_high - 1 (none: both are low). */
struct cpu_few_strip {
    int32_t first[FEW_STRIP], last[FEW_STRIP];
    int32_t low, high, all_low, all_high;
};

/* Few packed rows of one KV head against its few keys, all read in place; filled by few.c. Channels of q, k and v lie
 * side by side in the level's type (pair 1: F32, 2: BF16) and are a multiple of 64 bytes. The lists of rows hold
 * addresses of a sequence's first head, which all its heads share: rows of this one lie so many bytes further (_at).
 * Lists are padded to a multiple of FEW_STRIP by repeating the last. */
struct cpu_few {
    const struct cpu_few_strip *strip; /* [strips] */
    const char **q, **k, **v;          /* [packed row], [key], [key] */
    char **out;                        /* [packed row]: F32, F16 or BF16, channels side by side */
    int64_t q_at, k_at, v_at, out_at;
    int64_t out_dtype, strips, qk_channels, v_channels;
    float scale; /* as in struct cpu_softmax_tile; not negative */
    /* Scratch: scores and weights [strips][key_tiles][16], with an even number of tiles of FEW_STRIP keys, and what
     * each row's sum is to be multiplied with, [strips][16]. How rows and keys share the 16 is the level's affair. */
    float *p, *factor;
    int64_t key_tiles;
    float *turned; /* scratch of pair 2: 16 queries, transposed: [qk_channels / 2][16] */
    float *paired; /* scratch of pair 2: V as pairs of keys: [keys][16] */
    float *m, *l;  /* out, [packed row]: the largest score, in units of s, and the sum of weights. m NULL: not wanted */
};

/* ---- Pipelines ---- */

enum { CPU_PIPELINE_ROWS = 32, CPU_PIPELINE_KEYS = 128 };

/* Tiles of CPU_PIPELINE_ROWS packed rows against one block of keys, of which columns [first, last) are packed; first is
 * a multiple of column_tile. Filled by forward_pipeline.c, which takes the last block of an item first. Channels are
 * multiples of 32. Rows up to the next multiple of CPU_PIPELINE_ROWS are there and see nothing. */
struct cpu_pipeline {
    const void *q; /* of the first tile */
    int64_t q_stride, tiles;
    const void *k_panels;
    void *v_panels; /* keys past last may be cleared */
    int64_t panel_keys, qk_channels, v_channels;
    int64_t key0, first, last;
    const int64_t *row_first, *row_last; /* [row]: keys of the sequence, not columns, that each row sees */
    const int64_t *tile_low, *tile_high; /* [tile]: an interval of keys that holds those of its rows; none: high 0 */
    /* As in struct cpu_softmax_tile, but m may lag behind the maximum, so that p exceeds 1. o of a tile is set where it
     * sees no key behind this block, else added to. */
    float scale, *m, *l, *o;
    int64_t o_stride;
    /* [row], [column]: not 0 where a row of q or a key holds NaN or infinity (NULL: none does). Parts do not
     * multiply as these do, so their scores are computed from q and k. */
    const unsigned char *nonfinite_row, *nonfinite_key;
    const struct cpu_rows *k;
    /* [row], column 0 being key 0: score options; NULL: none. plain_options: strides of bias and mask are 0 or 1, and
     * distances are exact in f32. has_slopes: some row may have one. */
    const struct cpu_score_row *options;
    int plain_options, has_slopes;
    void *scratch; /* scratch_bytes */
    /* Out: the last tile's weights of its last CPU_PIPELINE_KEYS columns, [part][row][column - p_first] in bf16, whose
     * parts add up; steps in elements. Valid until the next run with this scratch. */
    const uint16_t *p;
    int64_t p_first, p_stride, p_part;
};

/* In place of qk ... pv: all tiles of an item against a block, products and softmax overlapping. Every element of q,
 * K, V and p is the sum of so many parts in bf16; formats are those of pair 2, with the parts of a row of q, of a K
 * panel or of a V panel one after another. A tile's bits do not depend on the others. */
struct cpu_pipeline_kernels {
    int parts;
    void (*run)(struct cpu_pipeline *x);
    size_t scratch_bytes; /* of a thread */
    /* As in struct cpu_kernels, but all of them say whether an element is NaN or infinite (pack_v also: whether a
     * row of V has no element as large as least_value, but one other than 0). NULL: those of the level serve. */
    int (*pack_q)(void *q, const void *row, int64_t dtype, int64_t channel_stride, int64_t channels,
                  float sign);
    int (*pack_k)(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                  int64_t channels);
    int (*pack_v)(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys);
    float least_value; /* below it parts are lost; 0: they are not */
};

/* ---- The table of a level ---- */

struct cpu_kernels {
    const char *name;    /* "cpu_avx512": as rapt explain and rapt info have it */
    const char *arch;    /* "avx512": as RAPT_CPU has it */
    int64_t row_tile;    /* most rows of one call of qk, softmax, pv; at most ROW_TILE_MAX */
    int64_t column_tile; /* width of a panel; at most COLUMN_TILE_MAX, and it divides 64 */
    int64_t pair;        /* 1: f32 (or integers in its room); 2: bf16 pairs (q, k and v must be BF16) */

    /* -- Rows of the caller; none is NULL. channel_stride in elements, any -- */

    /* x[channels] = a row of F32, F16, BF16 or, without its scale, I8. */
    void (*load_row)(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels);
    /* A row of F32, F16 or BF16 = factor * x[channels]. */
    void (*store_row)(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels);
    /* One query row (F32, F16 or BF16) times sign into one row of q; sign is 1 or -1 (a negative scale lives in q). */
    void (*pack_q)(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);

    /* -- Prefill, for blocks of keys in panels; only tile_q may be NULL -- */

    /* Rows of q, in place, from what pack_q left into what qk takes; NULL: that is the same. */
    void (*tile_q)(void *q, int64_t q_stride, int64_t rows, int64_t channels);
    /* Keys of columns [first, last) into their places of the panels; first is a multiple of column_tile. What panels
     * hold past last and for NULL rows is unspecified: these columns are hidden from every row. */
    void (*pack_k)(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
    /* The same of values; first is even, panel_keys a multiple of 64; channels up to a multiple of column_tile and,
     * with pair 2, the neighbour of an odd last key are filled with 0. Returns 1 if some value is NaN or infinite
     * (the engine then packs again, with NULL rows in their place), else 0. */
    int (*pack_v)(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys);

    /* s[row][j] = dot(q[row], k[j]) for j in [first, last); first is a multiple of column_tile. Columns up to the
     * next multiple of column_tile may be written too. rows is 1 ... row_tile. panels: from column 0 on. Without
     * tile_q, q of pair 1 may also be rows of F32 of the caller, with their stride. */
    void (*qk)(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last);
    /* Columns [first, last) of one row of s, in place; those that the mask hides become -inf. Not called where there is
     * no option: then s stays unscaled. */
    void (*score)(float *s, const struct cpu_score_row *r, int64_t first, int64_t last);
    void (*softmax)(const struct cpu_softmax_tile *t);
    /* o[row][c] = (accumulate ? o[row][c] : 0) + sum of p[row][j] v[j][c] over j in [first, last); channels up to the
     * next multiple of column_tile may be written too; p as softmax left it, p and panels from column 0 on, first even,
     * rows 1 ... row_tile. */
    void (*pv)(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate);
    /* Columns [first, last) of one row of s, in place: 2^(scale * (s - m)) * factor, as f32; -inf gives 0. m and factor
     * are finite. */
    void (*weights)(float *s, int64_t first, int64_t last, float scale, float m, float factor);

    /* In place of qk, score, softmax and pv where q, K and V have this type (forward_pipeline_of says when); NULL:
     * these slots serve. */
    const struct cpu_pipeline_kernels *pipeline_f32, *pipeline_f16, *pipeline_bf16;

    /* -- Decode: a few rows, K and V read once, in place, without panels (decode_*.c of each folder). At most
     * DECODE_ROWS_MAX rows and DECODE_CHANNELS_MAX channels. Without decode_qk or decode_pv forward.c serves; NULL
     * in the other slots: see each -- */

    /* Rows of q, in place, from what pack_q left into what decode_qk takes, with room for decode_q_words(channels);
     * NULL: that is the same. Set by levels that multiply i8 as integers. */
    void (*decode_q)(void *q, int64_t q_stride, int64_t rows, int64_t channels);
    /* Before the calls of decode_qk of a block, before those of decode_pv and after them, with the rows and channels of
     * these calls; NULL: nothing to prepare. */
    void (*decode_stage)(enum decode_stage stage, int64_t rows, int64_t channels);
    /* Keys whose products the level sums up at once, so that the bits of a row depend on where a call begins: a call
     * for one of several heads then has as many, whatever the number of heads. 0: they do not depend on it. */
    int64_t decode_keys;
    /* s[row][j] = dot(q[row], k[j]) for j in [first, last), any of them; 0 for NULL rows. s and k: from column 0 on.
     * ahead: what to ask for meanwhile; NULL: nothing. */
    void (*decode_qk)(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                      const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
    /* o[row][c] += sum of p[row][j] v[j][c] over j in [first, last), first even, without the NULL rows: so a caller
     * keeps a hidden value out (0 * NaN is NaN). p as softmax left it; p and v from column 0 on. */
    void (*decode_pv)(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
    /* The same of several heads, up to DECODE_HEADS_ROWS rows of each, in the order of memory: heads->keys keys of each
     * head in turn. Same bits as head by head. NULL, or more rows: head by head. */
    void (*decode_qk_heads)(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                            const struct cpu_rows *k, const struct cpu_heads *heads, int64_t rows,
                            int64_t channels, int64_t first, int64_t last,
                            const struct cpu_ahead *ahead);
    void (*decode_pv_heads)(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                            const struct cpu_rows *v, const struct cpu_heads *heads, int64_t rows,
                            int64_t channels, int64_t first, int64_t last,
                            const struct cpu_ahead *ahead);

    /* -- Few rows and few keys -- */

    /* out = softmax(scale q k^T) v (few_*.c of each folder). A hidden value does not reach a row, and a row without
     * weights is 0. NULL: decode.c or forward.c serves. */
    void (*attend_few)(const struct cpu_few *x);

    int64_t wake_share; /* multiply-adds, not of decode, that are worth waking a thread for; 0: any */
};

/* Slots that a level fills with functions of its file that have their names. */
#define CPU_TILE_SLOTS                                                                             \
    .row_tile = ROW_TILE, .column_tile = COLUMN_TILE, .load_row = load_row,                        \
    .store_row = store_row, .qk = qk, .score = score, .softmax = softmax, .pv = pv,                \
    .weights = weights
#define CPU_PACK_SLOTS .pack_q = pack_q, .pack_k = pack_k, .pack_v = pack_v

/* The slots of a level that have a form for blocked caches (RAPT_KV_BLOCKED), in place of those of its table
 * (plan_attention of cpu.c): the same arguments, with rows whose column j is token j % RAPT_KV_BLOCK of a block. The
 * level's decode_stage and decode_keys are not used then. */
struct cpu_block_kernels {
    void (*pack_k)(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
    int (*pack_v)(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys);
    void (*decode_qk)(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                      const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
    void (*decode_pv)(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
};

/* The levels; only some have forms for blocked caches or attend_few, and pipelines. */
#define LEVEL(name, ...)                                                                           \
    extern const struct cpu_kernels cpu_##name;                                                    \
    extern const struct cpu_block_kernels cpu_blocks_##name;                                       \
    void attend_few_##name(const struct cpu_few *x);
#include "cpu/levels.def"
#if defined(__x86_64__)
extern const struct cpu_pipeline_kernels pipeline_f32_amx, pipeline_f16_amx, pipeline_bf16_amx;
#endif

#endif
