/* kernels.h: what an instruction set offers the CPU engine: functions and their tile sizes.
 *
 * One table per level (scalar, AVX2, AVX-512, ...), filled by the level's own files; what serves in place
 * of a slot that is NULL stands beside the slot. Every function here is pure: no allocation, no global state
 * (decode_stage: the thread's tiles), any pointer alignment of the caller's tensors; scratch (q, panels,
 * s, o) is 64-byte aligned. The levels compute the same function within rounding; tests/check compares each
 * with scalar.
 *
 * The formats of packed q, of the panels and of p are private to a level, but their sizes are not:
 *
 * - pair = 1: f32 elements. q [row][channel], K panels [panel][channel][column_tile], V panels
 *   [panel][key][column_tile], p f32 in place of s.
 *
 * - pair = 2: bf16 pairs, two neighbours of the summed axis side by side. q [row][channel / 2][2],
 *   K panels [panel][channel / 2][column_tile][2], V panels [panel][key / 2][column_tile][2], p
 *   bf16 at the start of each row of s. An odd channel or key count is padded by a zero.
 *
 * A K panel is column_tile keys; a V panel is column_tile channels. Strides of q and s are in
 * 4-byte units. A level may leave part of this memory unused, and has a K panel of 4 channels for
 * fewer. */
#ifndef RAPT_CPU_KERNELS_H
#define RAPT_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    ROW_TILE_MAX = 16,
    COLUMN_TILE_MAX = 64,
    FEW_STRIP = 4,
    FEW_KEYS_MAX = 64,
    DECODE_HEADS_ROWS = 4, /* with 8, o of a few keys is read and written for too few values */
    DECODE_HEADS_KEYS = 8,
    DECODE_HEADS_SCORES = 4
};

/* Rows of K or V, read in place. Only rows [first, last) of a call are looked at. */
struct cpu_rows {
    const void *const *row;    /* one pointer per key, to its channel 0; NULL: a row of zeros */
    int64_t dtype;             /* rapt_dtype: F32, F16, BF16 or I8 */
    int64_t channel_stride;    /* elements */
    const float *const *scale; /* I8: one pointer per key, to the scale of its first channels */
    int64_t scale_channels;    /* I8: channels that share a scale */
    int64_t scale_stride;      /* I8: from one scale of a key to the next, in floats */
    int64_t span, span_stride; /* blocked caches: channels of a span, elements to the next */
    int64_t page; /* keys of a page, which may lie anywhere; 0: all keys are a constant step apart */
    /* Bytes from each key to the next, and from its scales to the next ones: of all keys of a call the first alone
     * has its pointers, and none is a row of zeros; step 0: each has its own. For kernels behind decode_q. */
    int64_t step, scale_step;
};

/* Where channel c of a row lies, in elements. */
static inline int64_t channel_offset(const struct cpu_rows *rows, int64_t c)
{
    if (!rows->span) return c * rows->channel_stride;
    return c / rows->span * rows->span_stride + c % rows->span * rows->channel_stride;
}

/* One row of scores on its way from q k to what softmax takes; every field but scale may say
 * "none". */
struct cpu_score_row {
    float scale;      /* s = scale * s */
    float softcap;    /* 0: none */
    float slope;      /* ALiBi; 0: none */
    int64_t position; /* query position minus the key of column 0: j is at |position - j| */
    const void *bias; /* of column 0; NULL: none */
    int64_t bias_dtype, bias_stride;
    const unsigned char *mask; /* of column 0; NULL: none; 0 hides */
    int64_t mask_stride;
};

/* One step of online softmax over a tile of rows. Columns outside a row's [row_first, row_last) are
 * hidden, whatever s holds there (also NaN). first is a multiple of column_tile; s is owned up to
 * last rounded up to column_tile. */
struct cpu_softmax_tile {
    /* In: scores. Out: p in the level's format, in columns [first, last rounded up to pair),
     * exactly 0 where hidden. */
    float *s;
    int64_t stride, rows, first, last;
    const int64_t *row_first, *row_last;
    /* p = 2^(scale * (s - m)): log2(e), times the attention scale if s is not yet scaled. */
    float scale;
    /* Per row: running maximum, in units of s (-inf: no key yet), and sum of unrounded p. */
    float *m, *l;
    /* [row][o_stride]: multiplied by 2^(scale * (m_old - m_new)) where m rises; untouched in rows
     * that had no key before. Channels up to the next multiple of column_tile may be multiplied. */
    float *o;
    int64_t o_stride, channels;
};

/* What a later call will read, to be fetched into the second cache: runs of run_bytes, in the order
 * of memory. */
struct cpu_ahead {
    const void *const *run; /* addresses */
    int64_t run_step;       /* entries of run from one to the next */
    int64_t run_bytes;
    int64_t skip;  /* bytes of the first run */
    int64_t bytes; /* in all */
    /* Each line is asked for once more so many bytes later; 0: at once; below 0: as many, and then into
     * the first cache. CPU_ONCE: it is asked for once, into the first cache. */
    int64_t again;
};

#define CPU_ONCE INT64_MIN

/* Neighbouring heads, whose keys lie side by side: rows of each bytes further than those of the head before, its
 * scales scale_bytes, its q, scores and weights behind those of that, its o o_step floats further. */
struct cpu_heads {
    int64_t count, bytes, o_step;
    int64_t keys; /* of a head at a time: decode_keys, or an even number, at most DECODE_HEADS_KEYS */
    /* So many keys of a head come before those of the next one, of which so many lie before the first key. */
    int64_t turn, before;
    int64_t scale_bytes;
};

/* FEW_STRIP rows of cpu_few and the keys that they see: each row first ... last - 1 (none: first >=
 * last), some row low ... high - 1, every row all_low ... all_high - 1 (none: both are low). */
struct cpu_few_strip {
    int32_t first[FEW_STRIP], last[FEW_STRIP];
    int32_t low, high, all_low, all_high;
};

/* Few queries of one KV head against few keys, all read in place, channels side by side in the
 * level's type (pair 1: F32, 2: BF16), a multiple of 64 bytes. Lists of rows are padded to a
 * multiple of FEW_STRIP by repeating the last, and shared by the heads of a sequence: those of
 * this one are so many bytes further (_at). */
struct cpu_few {
    const struct cpu_few_strip *strip;
    const char **q, **k, **v;
    char **out; /* F32, F16 or BF16, channels side by side */
    int64_t q_at, k_at, v_at, out_at;
    int64_t out_dtype, strips, qk_channels, v_channels;
    float scale; /* as in struct cpu_softmax_tile */
    /* Scratch: scores [strips][key_tiles][16], with an even number of tiles of FEW_STRIP keys, and
     * [strips][16]. */
    float *p, *factor;
    int64_t key_tiles;
    float *turned; /* pair 2: [pairs of qk_channels][16] */
    float *paired; /* pair 2: [keys][16] */
    float *m, *l;  /* NULL, or per row: the largest score, in units of s, and the sum of weights */
};

enum { CPU_PIPELINE_ROWS = 32, CPU_PIPELINE_KEYS = 128 };

/* Tiles of CPU_PIPELINE_ROWS packed rows against one block of keys, key0 ..., of which columns
 * [first, last) are packed. Channels are multiples of 32. Rows up to the next multiple of CPU_PIPELINE_ROWS
 * are there and see nothing. */
struct cpu_pipeline {
    const void *q;
    int64_t q_stride, tiles; /* stride in 4-byte units */
    const void *k_panels;
    void *v_panels; /* keys past last may be cleared */
    int64_t panel_keys, qk_channels, v_channels;
    int64_t key0, first, last;
    const int64_t *row_first, *row_last; /* keys that each row sees */
    const int64_t *tile_low,
        *tile_high;          /* of each tile: an interval that holds them; none: high 0 */
    float scale, *m, *l, *o; /* as in struct cpu_softmax_tile */
    int64_t o_stride;
    /* Rows of q, and columns, that hold NaN or infinity (NULL: none): parts do not multiply as they do, so
     * their scores are computed from q and k. */
    const unsigned char *odd_row, *odd_key;
    const struct cpu_rows *k;
    /* Score options of each row, column 0 being key 0; NULL: none. plain: their strides are 0 or 1, and distances are
     * exact in f32. */
    const struct cpu_score_row *options;
    int plain_options, has_slopes;
    void *scratch;
    /* Out: the last tile's weights of its last CPU_PIPELINE_KEYS columns, p_first ..., each the sum of parts
     * in bf16 p_part elements apart. */
    const uint16_t *p;
    int64_t p_first, p_stride, p_part;
};

/* Scores, softmax and values of all tiles of an item, with a maximum that lags behind: weights may be up to
 * 2^8. A tile's bits do not depend on the others. Every element of q, K, V and p is the sum of so many parts
 * in bf16; formats are those of pair 2, with parts of a row of q, a K panel or a V panel one after another.
 * The pack slots as in struct cpu_kernels, but each says whether an element is NaN or infinite; NULL: those
 * of the level. */
struct cpu_pipeline_kernels {
    int parts;
    void (*run)(struct cpu_pipeline *x);
    size_t scratch_bytes;
    int (*pack_q)(void *q, const void *row, int64_t dtype, int64_t channel_stride, int64_t channels,
                  float sign);
    int (*pack_k)(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                  int64_t channels);
    int (*pack_v)(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys);
    float
        least_value; /* below it parts are lost: rows of V that have no larger element count as unusual */
};

enum decode_stage { DECODE_SCORES, DECODE_VALUES, DECODE_DONE };

struct cpu_kernels {
    const char *name;    /* "cpu_avx512" */
    const char *arch;    /* "avx512" */
    int64_t row_tile;    /* most rows of one call of qk, softmax, pv; at most ROW_TILE_MAX */
    int64_t column_tile; /* width of a panel; at most COLUMN_TILE_MAX */
    int64_t pair;        /* 1: f32 arithmetic; 2: bf16 pairs (q, k and v must be BF16) */

    /* One row of F32, F16 or BF16 as floats, and back: row = factor * x. */
    void (*load_row)(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels);
    void (*store_row)(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels);
    /* One query row into the level's format; sign is 1 or -1 (a negative scale lives in q). */
    void (*pack_q)(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
    /* Rows of q, in place, from what pack_q left into what qk takes; NULL: the same. */
    void (*tile_q)(void *q, int64_t q_stride, int64_t rows, int64_t channels);
    /* Keys [first, last) into panels; first is a multiple of column_tile. What the last panel holds
     * past last is unspecified: its columns are hidden from every row. */
    void (*pack_k)(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
    /* Keys [first, last) into panels of panel_keys keys each; first is even, panel_keys a multiple
     * of 64; channels up to a multiple of column_tile and an odd last key are filled with 0.
     * Returns 1 if some value is NaN or infinite, else 0. */
    int (*pack_v)(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys);

    /* s[row][j] = dot(q[row], k[j]) for j in [first, last); first is a multiple of column_tile.
     * Columns up to the next multiple of column_tile may be written too. rows is 1 ... row_tile. */
    void (*qk)(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last);
    /* Columns [first, last) of one row, in place, as f32. Hidden columns become -inf. */
    void (*score)(float *s, const struct cpu_score_row *r, int64_t first, int64_t last);
    void (*softmax)(const struct cpu_softmax_tile *t);
    /* o[row][c] = (accumulate ? o[row][c] : 0) + sum of p[row][j] v[j][c] over j in [first, last);
     * channels up to the next multiple of column_tile may be written too; p as softmax left it,
     * first even. */
    void (*pv)(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate);
    /* s = 2^(scale * (s - m)) * factor in place, as f32; -inf gives 0. m and factor are finite. */
    void (*weights)(float *s, int64_t first, int64_t last, float scale, float m, float factor);

    /* For q, K and V of one type; NULL: the slots above serve. */
    const struct cpu_pipeline_kernels *pipeline_f32, *pipeline_f16, *pipeline_bf16;

    /* Decode, for a few query rows: K and V are read once, in place, no panels. The slots are
     * filled by decode_*.c of each folder; q as decode_q left it, p as softmax left it. ahead: what
     * to fetch meanwhile, or NULL. Columns are keys
     * [first, last). decode_qk: s[row][j] = dot(q[row], k[j]), 0 for NULL rows; decode_pv:
     * o[row][c] += sum of p[row][j] v[j][c] without the NULL rows, which is how a caller keeps a
     * hidden value out (0 * NaN is NaN). NULL slots: the level below serves (with the same pair).
     */
    /* Rows of q, in place, from what pack_q left into what decode_qk takes; NULL: the same. */
    void (*decode_q)(void *q, int64_t q_stride, int64_t rows, int64_t channels);
    /* Before the calls of decode_qk of a block, before those of decode_pv and after them, with their
     * rows and channels; NULL: nothing to prepare. */
    void (*decode_stage)(enum decode_stage stage, int64_t rows, int64_t channels);
    int64_t decode_keys; /* what the level sums at once: calls between those of other heads get as
                          * many, however many heads there are; 0: bits do not depend on it */
    void (*decode_qk)(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                      const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
    void (*decode_pv)(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                      const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,
                      int64_t last, const struct cpu_ahead *ahead);
    /* The same of several heads, up to DECODE_HEADS_ROWS rows of each, in the order of memory: a few keys of each
     * head in turn. NULL: head by head. */
    void (*decode_qk_heads)(float *s, int64_t s_stride, const void *q, int64_t q_stride,
                            const struct cpu_rows *k, const struct cpu_heads *heads, int64_t rows,
                            int64_t channels, int64_t first, int64_t last,
                            const struct cpu_ahead *ahead);
    void (*decode_pv_heads)(float *o, int64_t o_stride, const float *p, int64_t p_stride,
                            const struct cpu_rows *v, const struct cpu_heads *heads, int64_t rows,
                            int64_t channels, int64_t first, int64_t last,
                            const struct cpu_ahead *ahead);

    /* out = softmax(scale q k^T) v of few rows (few_*.c of each folder). A hidden value does not
     * reach a row, and a row without weights is 0. NULL: other slots serve. */
    void (*attend_few)(const struct cpu_few *x);

    int64_t wake_share; /* multiply-adds, not of decode, that are worth waking a thread for; 0: any */
};

/* Slots that a level fills with functions of its file that have their names. */
#define CPU_TILE_SLOTS                                                                             \
    .row_tile = ROW_TILE, .column_tile = COLUMN_TILE, .load_row = load_row,                        \
    .store_row = store_row, .qk = qk, .score = score, .softmax = softmax, .pv = pv,                \
    .weights = weights
#define CPU_PACK_SLOTS .pack_q = pack_q, .pack_k = pack_k, .pack_v = pack_v

/* The slots of a level that have a form for blocked caches (RAPT_KV_BLOCKED): the same arguments,
 * with rows whose keys j, j + 1, ... are tokens j % RAPT_KV_BLOCK, ... of a block. */
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

/* The levels; only some have forms for blocked caches or attend_few. */
#define LEVEL(name, ...)                                                                           \
    extern const struct cpu_kernels cpu_##name;                                                    \
    extern const struct cpu_block_kernels cpu_blocks_##name;                                       \
    void attend_few_##name(const struct cpu_few *x);
#include "cpu/levels.def"
#if defined(__x86_64__)
extern const struct cpu_pipeline_kernels pipeline_f32_amx, pipeline_f16_amx, pipeline_bf16_amx;
#define PACK_LEAST_F32 0x1p-100f
int pack_q_f32_amx(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
int pack_q_f16_amx(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
int pack_k_f32_amx(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
int pack_k_f16_amx(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
int pack_v_f32_amx(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                   int64_t channels, int64_t panel_keys);
int pack_v_f16_amx(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                   int64_t channels, int64_t panel_keys);
#endif

#endif
