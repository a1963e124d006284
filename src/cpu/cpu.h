/* cpu.h: what the files of the CPU backend share: device, plan, call, and where the rows of a call
 * lie in memory. */
#ifndef RAPT_CPU_CPU_H
#define RAPT_CPU_CPU_H

#include "backend.h"
#include "base/threads.h"
#include "cpu/kernels.h"
#include "cpu/levels.h"

enum { CPU_REQUESTS = 6 };

/* rapt_device.state */
struct cpu_device {
    struct thread_pool *pool;
    int64_t threads;   /* the caller's included */
    uint64_t features; /* cpuid.h, under the mask of RAPT_CPU */
    int level_count;
    const struct cpu_level *levels[CPU_LEVELS]; /* best first; the last is scalar */
    const struct row_kernels *rows;             /* of the best level that has some */
};

/* How a kind of CPU is asked for lines of memory (software prefetch): a row of cpu_requests (cpu.c). Distances in
 * bytes; again as in struct cpu_ahead. */
struct cpu_requests {
    uint64_t feature; /* of CPUs that it is for; 0: all */
    int64_t pair;     /* of levels that it is for (kernels.h); 0: all */
    /* Decode of one head whose rows of K and V lie without gaps: how far ahead, and again. */
    int64_t ahead, again;
    /* Decode of several heads that lie together, and of pages. Where a call takes a few keys of each head in turn
     * (decode_qk_heads), these are the keys of tokens of span bytes, and lines are asked for span / 2 bytes beyond
     * them; of pages of one head, span bytes ahead. 0: windows of keys, head by head (decode_keys.c). */
    int64_t span, span_again;
    /* Separate operations beyond the caches: each line about so many bytes ahead; 0: the first lines of each
     * page that comes (ops.h). */
    int64_t rows_ahead;
};
extern const struct cpu_requests cpu_requests[CPU_REQUESTS]; /* the first that fits */
const struct cpu_requests *cpu_requests_of(uint64_t features, int64_t pair); /* 0: of no level */

/* rapt_plan.state: which of few.c, decode.c and forward.c serve, and the sizes that they work with. Zero until the file
 * that is named has set its part. */
struct cpu_plan {
    /* cpu.c */
    const struct cpu_kernels *kernels; /* of the level, or blocked */
    struct cpu_kernels blocked; /* the level's with its forms for a blocked cache; else unused */
    int64_t slots;              /* threads that may join, the caller included; each has scratch */
    const struct cpu_requests *requests;
    /* few.c, which serves the whole problem or nothing of it */
    int serves_few;
    int64_t few_slots, few_worth; /* threads that may join; that it is worth waking */
    size_t few_scratch_bytes;     /* per slot */
    /* decode.c (decode_plan) */
    int64_t decode_rows;   /* sequences of at most so many packed rows go to decode.c; 0: none */
    int64_t decode_heads;  /* neighbouring KV heads of an item */
    int64_t decode_block;  /* keys of a block: DECODE_BLOCK ... DECODE_BLOCK_MAX */
    int64_t decode_window; /* most keys of a call of decode_qk or decode_pv: the block, or less */
    int64_t decode_slots;  /* threads that may join */
    int decode_in_order;   /* few rows: all heads of an item in one call (decode_qk_heads) */
    int decode_steps;      /* kernels get the first key's address alone (step of struct cpu_rows) */
    size_t decode_scratch_bytes; /* per slot */
    /* forward.c (forward_plan) */
    int64_t row_block; /* packed rows of an item: a multiple of tile_rows */
    int64_t key_block; /* keys of a block */
    int64_t tile_rows; /* packed rows of a tile */
    const struct cpu_pipeline_kernels *pipeline; /* NULL: none */
    int64_t block_count;  /* upper bound on row blocks over all sequences, per KV head */
    size_t scratch_bytes; /* per slot */
};

/* One execute: what few_run, decode_run and forward_run are given. */
struct cpu_call {
    const struct problem *problem;
    const rapt_attention *a; /* complete, with data pointers */
    const struct cpu_plan *plan;
    struct thread_pool *pool;
    char *workspace; /* 64-byte aligned; forward and decode use it one after the other */
};

/* One sequence of the batch. */
struct cpu_sequence {
    int64_t index;               /* its number b in the batch */
    int64_t q_first, q_length;   /* tokens of q, out, lse, bias, mask, weights */
    int64_t kv_first, kv_length; /* tokens of k, v; paged: kv_first is 0 */
};

/* address.c. All indices are within what execute has checked. */
struct cpu_sequence sequence_at(const struct cpu_call *call, int64_t b);
/* Address of element [sequence, head, query token, channel 0] of q, out, lse, bias, mask or
 * weights; query counts from the start of the sequence. NULL: the tensor is absent. */
void *query_row(const struct cpu_call *call, const rapt_tensor *t, const struct cpu_sequence *s,
                int64_t head, int64_t query);
/* Element [b, head, 0, 0] of alibi_slope or sink; otherwise when absent. */
float head_value(const rapt_tensor *t, int64_t b, int64_t head, float otherwise);
/* The rows of k or v (t is &call->a->k or &call->a->v) behind pointers that key_rows fills. */
struct cpu_rows rows_behind(const struct cpu_call *call, const rapt_tensor *t,
                            const void *const *row, const float *const *scale);
/* Fills row[first ... last - 1] with the addresses of keys key0 + first ... of k or v. scale (I8
 * only, else NULL) is filled alike. */
void key_rows(const struct cpu_call *call, const rapt_tensor *t, const struct cpu_sequence *s,
              int64_t kv_head, int64_t key0, int64_t first, int64_t last, const void **row,
              const float **scale);

/* cpu.c: threads that a whole problem, no decode, is worth (base/threads.h): 1 at least. */
int64_t cpu_threads_worth_waking(const struct problem *p, const struct cpu_plan *plan);
/* Whether the score slot has work: softcap, bias, ALiBi or mask. Then s is a natural logit after it; else s stays
 * q k^T, not yet scaled. */
int cpu_has_score_options(const rapt_attention *a);
/* scale of struct cpu_softmax_tile: what s is multiplied with to be an exponent of 2. */
float cpu_exponent_scale(const rapt_attention *a);

/* forward.c: any problem. forward_plan fills its part of plan and returns bytes of workspace. */
size_t forward_plan(const struct problem *p, struct cpu_plan *plan);
void forward_run(const struct cpu_call *call); /* sequences with more than plan->decode_rows rows */

/* decode.c: few query rows against many keys, the keys split over the threads. decode_plan sets
 * decode_rows (0: it does not serve the problem) and its sizes, and returns the bytes of workspace.
 * Work does not depend on the number of threads. */
size_t decode_plan(const struct problem *p, struct cpu_plan *plan);
void decode_run(const struct cpu_call *call); /* sequences with at most plan->decode_rows rows */

/* few.c: few query rows against few keys, in place. few_plan sets serves_few and its sizes, and
 * returns the bytes of workspace. */
size_t few_plan(const struct problem *p, struct cpu_plan *plan);
void few_run(const struct cpu_call *call);

/* ops.c: the slots of the vtable. */
rapt_status cpu_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream);
rapt_status cpu_softmax(rapt_device *device, const rapt_softmax_args *args, rapt_stream stream);
rapt_status cpu_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream);
rapt_status cpu_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream);
rapt_status cpu_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                            rapt_stream stream);
rapt_status cpu_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                             rapt_stream stream);
rapt_status cpu_kv_append(rapt_device *device, const rapt_kv_append_args *args, rapt_stream stream);

#endif
