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

/* How lines are asked for before they are read. */
struct cpu_requests {
    uint64_t feature; /* of CPUs that it is for; 0: all */
    int64_t pair;     /* of levels that it is for (kernels.h); 0: all */
    /* Decode, rows of K and V without gaps: so many bytes ahead, and again (kernels.h). */
    int64_t ahead, again;
    /* Decode of heads that lie together, and of pages. Keys are taken head by head from tokens of so many bytes,
     * and lines are asked for half as far beyond, and again; pages of one head, as far ahead. 0: longer windows,
     * head by head. */
    int64_t span, span_again;
    /* Separate operations beyond the caches: each line about so many bytes ahead; 0: the first lines of each
     * page that comes (ops.h). */
    int64_t rows_ahead;
};
extern const struct cpu_requests cpu_requests[CPU_REQUESTS]; /* the first that fits */
const struct cpu_requests *cpu_requests_of(uint64_t features, int64_t pair); /* 0: of no level */

/* rapt_plan.state */
struct cpu_plan {
    const struct cpu_kernels *kernels; /* of the level, or blocked */
    struct cpu_kernels blocked; /* the level's with its forms for a blocked cache; else unused */
    int64_t slots; /* workers that may join, the caller included: scratch exists for so many */
    const struct cpu_requests *requests;
    int64_t decode_rows; /* sequences of at most so many packed rows go to decode.c; 0: none */
    /* forward.c */
    int64_t row_block, key_block;                /* packed rows of an item; keys of a block */
    int64_t tile_rows;                           /* packed rows of a tile */
    const struct cpu_pipeline_kernels *pipeline; /* NULL: none */
    int64_t block_count;  /* upper bound on row blocks over all sequences, per KV head */
    size_t scratch_bytes; /* per slot */
    /* decode.c: its own sizes, set by decode_plan */
    int64_t decode_heads, decode_block, decode_window, decode_slots;
    int decode_in_order; /* the heads of an item, where the level can (decode_qk_heads) */
    int decode_steps; /* keys lie equal steps apart and the level can do with the first (cpu_rows.step) */
    size_t decode_scratch_bytes;
    /* few.c */
    int serves_few;               /* it serves every sequence of the problem */
    int64_t few_slots, few_worth; /* threads that may join; that it is worth */
    size_t few_scratch_bytes;
};

/* One execute. */
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
