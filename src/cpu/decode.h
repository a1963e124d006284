/* decode.h: what the parts of decode share: decode_plan.c chooses sizes, decode.c cuts keys into items and merges their
 * results, decode_item.c computes the results of one item, decode_keys.c finds its keys. */
#ifndef RAPT_CPU_DECODE_H
#define RAPT_CPU_DECODE_H

#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/cpu.h"

#include <stdatomic.h>

enum {
    /* Past this, reading K and V again for each tile of rows costs more than packing them. */
    DECODE_ROWS_MAX = 16,
    /* Keys of one softmax; blocks begin at multiples of it. Between the scores of a block and its
     * values memory waits, so keys that have no gaps are taken in longer ones, up to the second number,
     * which DECODE_BLOCK divides. */
    DECODE_BLOCK = 256,
    DECODE_BLOCK_MAX = 1024,
    DECODE_PAGE_MIN = 8,  /* tokens: shorter pages count as gaps */
    DECODE_PAGE_MAX = 64, /* of a head in longer ones so much lies together that others can wait */
    DECODE_WINDOW = 64, /* most keys of a call of a kernel that does not take a block; divides it */
    /* A thread takes neighbouring items as a run: as many as leave each thread about so many such runs. */
    DECODE_RUNS_PER_THREAD = 4,
};

/* A row of q where a level has decode_q, in 4-byte units: room for what it leaves there. */
static inline int64_t decode_q_words(int64_t channels)
{
    return round_up(channels, 32) + 16;
}

/* From a row of scores to the next, in floats: at steps of 4 KiB, rows would share one set of the first cache. */
static inline int64_t decode_score_stride(const struct cpu_plan *plan)
{
    return plan->decode_block + 16;
}

/* How the keys of one sequence are split into chunks; filled by number_items of decode.c. An item is a chunk of
 * plan->decode_heads neighbouring KV heads. */
struct decode_sequence {
    int64_t item0;      /* number of its first item */
    int64_t low, high;  /* keys that some query sees; low is not reduced to a chunk's start */
    int64_t chunk_keys; /* of each chunk, which begins at a multiple of so many */
    int64_t chunk0;     /* number of the first chunk: of that of key low */
    int64_t chunks;     /* at least one, even without a key, so that out is written */
    int64_t rows;       /* packed rows of a KV head; 0: forward.c serves it */
    int64_t partial0;   /* of the job's partial results, in floats: [kv_head][chunk] */
};

/* Addresses of one block's keys, [column]: row and scale of struct cpu_rows. */
struct decode_table {
    const void **row;    /* NULL: a key that is not looked at */
    const float **scale; /* I8 */
};

/* Whether a page holds its heads one behind another, each with all of its keys, and blocks end with pages. */
static inline int decode_by_page(const struct problem *p, const rapt_tensor *t)
{
    int64_t page = p->page_tokens;
    return page >= DECODE_PAGE_MIN && page <= DECODE_PAGE_MAX && DECODE_BLOCK % page == 0 &&
           t->stride[3] == 1 && t->stride[2] == t->size[3] && t->stride[1] == page * t->size[3];
}

/* Bytes from a key of an item's heads to the next if nothing lies between them, but for the ends of pages, else
 * 0; where a page holds its heads one behind another, those of a key of all heads. */
static inline int64_t decode_gapless(const struct problem *p, const rapt_tensor *t, int64_t heads)
{
    int64_t size = (int64_t)dtype_size(t->dtype),
            key = ((heads - 1) * t->stride[1] + t->size[3]) * size;
    if (p->page_tokens && p->page_tokens < DECODE_PAGE_MIN) return 0;
    if (p->a.kv_layout == RAPT_KV_BLOCKED) return t->size[3] * size;
    if (decode_by_page(p, t)) return heads * t->size[3] * size;
    return t->stride[3] == 1 && t->stride[2] * size == key ? key : 0;
}

/* Scratch of one thread. heads: plan->decode_heads; rows: the most of a KV head. */
struct decode_scratch {
    void *q;  /* [heads][rows][q_stride], in the level's format */
    float *s; /* [heads][rows][decode_score_stride]: scores, then weights, of a block */
    /* [decode_block]: of the first head, this block and the next one by turns; of another head, as far as a kernel's
     * call looks. */
    struct decode_table k[2], v[2], of_head;
    int64_t *first, *last; /* [DECODE_ROWS_MAX]: the keys of the sequence that a row sees */
};

/* One decode_run. */
struct decode_job {
    const struct cpu_call *call;
    struct decode_sequence *sequences; /* [batch] */
    _Atomic int64_t *unfinished;       /* [batch][kv_heads / heads]: chunks */
    float *partials; /* a partial result for each KV head and chunk: o, m and l (partial_m) */
    char *scratch;   /* [decode_slots][decode_scratch_bytes] */
    int64_t items;
    int64_t width; /* channels of o, padded */
    int score_options;
    float exponent_scale; /* p = 2^(exponent_scale * (s - m)) */
    _Atomic int64_t next; /* item that no thread has taken yet */
};

/* A thread's items, one after another: one chunk of keys of one sequence, with plan->decode_heads neighbouring KV
 * heads. */
struct decode_item {
    /* Of the call. */
    const struct decode_job *job;
    const struct cpu_call *call;
    const struct problem *problem;
    const struct cpu_plan *plan;
    const struct cpu_kernels *kernels;
    struct decode_scratch scratch;
    /* Of the item at hand. */
    struct cpu_sequence sequence;
    const struct decode_sequence *split; /* of this sequence */
    int64_t kv_head;                     /* the first */
    int64_t rows;                        /* of each head */
    float *partial; /* result of the first head; of the next ones partial_step floats further */
    int64_t partial_step;
    int64_t ahead; /* keys from the item's last up to this one are the thread's next */
    /* Whose queries the scratch holds: a thread's items are mostly chunks of the same. */
    const struct decode_sequence *loaded;
    int64_t loaded_head;
};

/* Floats of a partial result: o [rows][width], m [rows], l [rows], as in struct cpu_softmax_tile. */
static inline int64_t decode_partial_floats(int64_t rows, int64_t width)
{
    return rows * width + round_up(2 * rows, 16);
}

static inline float *partial_m(float *partial, int64_t rows, int64_t width)
{
    return partial + rows * width;
}

static inline float *partial_l(float *partial, int64_t rows, int64_t width)
{
    return partial + rows * width + rows;
}

/* Query head of row r of one KV head. */
static inline int64_t decode_query_head(const struct decode_item *t, int64_t kv_head, int64_t r)
{
    return kv_head * t->problem->group + r % t->problem->group;
}

/* ---- decode_plan.c ---- */

/* Keys of a chunk, of so many that a sequence's queries see. */
int64_t decode_chunk_keys(int64_t keys);
/* The job's parts of the workspace, and its width. */
void decode_lay_out(struct decode_job *job, const struct problem *p, const struct cpu_plan *plan,
                    struct arena *arena);

/* ---- decode_item.c ---- */

/* One thread's part. */
void decode_lay_out_scratch(struct decode_scratch *w, const struct problem *p,
                            const struct cpu_plan *plan, struct arena *arena);
/* Writes the partial results of keys [low, high), which lie within one chunk. */
void decode_run_item(struct decode_item *t, int64_t low, int64_t high);

#endif
