/* few.c: attention of few query rows to few keys without packing: an item is one KV head of one
 * sequence, whose rows a level's attend_few reads in place. It serves what needs no option but
 * causality and windows; forward.c and decode.c serve the rest.
 *
 * Packed row r is query r / group of head kv_head * group + r % group, as in forward.c. A row's
 * arithmetic depends on nothing but its own data. */
#include "base/dtype.h"
#include "cpu/arena.h"
#include "cpu/cpu.h"

#include <math.h>
#include <stdatomic.h>

enum {
    FEW_KEY_STEP = 2 * FEW_STRIP, /* keys of two tiles */
    FEW_ROWS_MIN = 8,             /* with fewer, decode.c takes about as long or less */
    FEW_SCORES_MAX = 64 * 32,     /* of an item; with more, packing K and V pays */
    FEW_CHANNELS_MAX = 512,       /* longer rows of q and K leave the first cache */
};

/* Scratch of one thread. */
struct few_scratch {
    struct cpu_few_strip *strip;
    const char **q, **k, **v, **out; /* addresses of the rows of a sequence's first head */
    float *p, *factor, *turned, *paired, *m, *l; /* as in struct cpu_few */
    /* Of levels of f32: rows of another type or with gaps, copied to f32, and their addresses. */
    const char **q_list, **k_list, **v_list;
    float *q_rows, *k_rows, *v_rows;
};

/* A thread's items, one after another: few and sequence are those of the one at hand. */
struct few_item {
    const struct cpu_call *call;
    struct few_scratch scratch;
    struct cpu_few few;
    struct cpu_sequence sequence; /* whose rows scratch lists; index -1: of none yet */
};

struct few_job {
    const struct cpu_call *call;
    atomic_int_fast64_t next;
};

/* Whether the kernel can read the rows of t where they are. */
static int lies_in_place(const struct cpu_kernels *k, const rapt_tensor *t)
{
    return t->dtype == (k->pair == 1 ? RAPT_F32 : RAPT_BF16) && t->stride[3] == 1;
}

static int has_options(const rapt_attention *a)
{
    return cpu_has_score_options(a) || a->sink.dtype || a->weights.dtype || a->scale < 0;
}

static int serves(const struct problem *p, const struct cpu_kernels *k)
{
    const rapt_attention *a = &p->a;
    const rapt_tensor *t[3] = {&a->q, &a->k, &a->v};
    int64_t rows = p->q_tokens * p->group, line = 16 * k->pair;
    if (!k->attend_few || has_options(a) || p->ragged_q || p->ragged_kv || a->batch_invariant ||
        a->kv_layout != RAPT_KV_STRIDED || a->out.stride[3] != 1)
        return 0;
    if (rows < FEW_ROWS_MIN || p->kv_tokens > FEW_KEYS_MAX || rows * p->kv_tokens > FEW_SCORES_MAX)
        return 0;
    if (p->qk_channels % line || p->v_channels % line || p->qk_channels > FEW_CHANNELS_MAX ||
        p->v_channels > FEW_CHANNELS_MAX)
        return 0;
    for (int i = 0; i < 3; i++)
        if (t[i]->dtype == RAPT_I8 || (k->pair == 2 && !lies_in_place(k, t[i]))) return 0;
    return 1;
}

static void lay_out(struct few_scratch *w, const struct problem *p, const struct cpu_kernels *k,
                    struct arena *arena)
{
    int64_t rows = round_up(p->q_tokens * p->group, FEW_STRIP), strips = rows / FEW_STRIP,
            keys = round_up(p->kv_tokens, FEW_KEY_STEP);
    int converts = k->pair == 1;
    w->strip = take(arena, strips, sizeof *w->strip);
    w->q = take(arena, rows, sizeof *w->q);
    w->k = take(arena, keys, sizeof *w->k);
    w->v = take(arena, keys, sizeof *w->v);
    w->out = take(arena, rows, sizeof *w->out);
    w->p = take(arena, strips * keys * FEW_STRIP, sizeof(float));
    w->factor = take(arena, strips * 16, sizeof(float));
    w->m = take(arena, rows, sizeof(float));
    w->l = take(arena, rows, sizeof(float));
    w->q_list = take(arena, converts * rows, sizeof *w->q_list);
    w->k_list = take(arena, converts * keys, sizeof *w->k_list);
    w->v_list = take(arena, converts * keys, sizeof *w->v_list);
    w->q_rows = take(arena, converts * rows * p->qk_channels, sizeof(float));
    w->k_rows = take(arena, converts * keys * p->qk_channels, sizeof(float));
    w->v_rows = take(arena, converts * keys * p->v_channels, sizeof(float));
    w->turned = take(arena, converts ? 0 : p->qk_channels / k->pair * 16, sizeof(float));
    w->paired = take(arena, converts ? 0 : keys * 16, sizeof(float));
}

size_t few_plan(const struct problem *p, struct cpu_plan *plan)
{
    plan->serves_few = serves(p, plan->kernels);
    if (!plan->serves_few) return 0;
    struct few_scratch scratch;
    struct arena arena = {NULL, 0};
    lay_out(&scratch, p, plan->kernels, &arena);
    plan->few_slots = max64(1, min64(plan->slots, p->batch * p->kv_heads));
    plan->few_worth = cpu_threads_worth_waking(p, plan);
    plan->few_scratch_bytes = arena.used;
    return (size_t)plan->few_slots * arena.used;
}

/* ---- One item ---- */

/* The keys that the rows of each strip see: the same for every head. */
static void find_ranges(struct few_item *t)
{
    const struct problem *p = t->call->problem;
    const struct cpu_sequence *s = &t->sequence;
    int64_t rows = p->q_tokens * p->group;
    for (int64_t n = 0; n < t->few.strips; n++) {
        struct cpu_few_strip *strip = &t->scratch.strip[n];
        *strip = (struct cpu_few_strip){.low = INT32_MAX, .all_high = INT32_MAX};
        for (int64_t i = 0; i < FEW_STRIP; i++) {
            int64_t r = min64(n * FEW_STRIP + i, rows - 1), first, last;
            visible_keys(p, r / p->group, s->q_length, s->kv_length, &first, &last);
            if (last <= first) first = last = 0;
            strip->first[i] = (int32_t)first;
            strip->last[i] = (int32_t)last;
            if (last > first) strip->low = (int32_t)min64(strip->low, first);
            strip->high = (int32_t)max64(strip->high, last);
            strip->all_low = (int32_t)max64(strip->all_low, first);
            strip->all_high = (int32_t)min64(strip->all_high, last);
        }
        if (!strip->high) strip->low = 0;
        if (strip->all_high <= strip->all_low) strip->all_low = strip->all_high = strip->low;
    }
}

static void repeat_last(const char **row, int64_t count)
{
    for (int64_t i = count; count && i % FEW_STRIP; i++) row[i] = row[count - 1];
}

/* Rows of q or out. */
static void list_queries(const struct few_item *t, const rapt_tensor *tensor, const char **row)
{
    const struct problem *p = t->call->problem;
    int64_t size = (int64_t)dtype_size(tensor->dtype), r = 0;
    const char *first = query_row(t->call, tensor, &t->sequence, 0, 0);
    for (int64_t query = 0; query < p->q_tokens; query++)
        for (int64_t head = 0; head < p->group; head++)
            row[r++] = first + (query * tensor->stride[2] + head * tensor->stride[1]) * size;
    repeat_last(row, r);
}

static void list_keys(const struct few_item *t, const rapt_tensor *tensor, const char **row)
{
    key_rows(t->call, tensor, &t->sequence, 0, 0, 0, t->sequence.kv_length, (const void **)row,
             NULL);
    repeat_last(row, t->sequence.kv_length);
}

static void begin_sequence(struct few_item *t, int64_t b)
{
    const rapt_attention *a = t->call->a;
    t->sequence = sequence_at(t->call, b);
    find_ranges(t);
    list_queries(t, &a->q, t->scratch.q);
    list_queries(t, &a->out, t->scratch.out);
    list_keys(t, &a->k, t->scratch.k);
    list_keys(t, &a->v, t->scratch.v);
}

/* From one head of a tensor to the next. */
static int64_t head_bytes(const rapt_tensor *tensor)
{
    return tensor->stride[1] * (int64_t)dtype_size(tensor->dtype);
}

/* Rows at bytes past a list, as the kernel takes them: those that it cannot read in place become
 * rows of f32. Returns where they are past *list. */
static int64_t provide(const struct few_item *t, const rapt_tensor *tensor, const char ***list,
                       int64_t at, int64_t count, const char **own, float *to)
{
    const struct cpu_kernels *k = t->call->plan->kernels;
    int64_t channels = tensor->size[3];
    if (lies_in_place(k, tensor)) return at;
    for (int64_t i = 0; i < count; i++) {
        k->load_row(to + i * channels, (*list)[i] + at, tensor->dtype, tensor->stride[3], channels);
        own[i] = (const char *)(to + i * channels);
    }
    repeat_last(own, count);
    *list = own;
    return 0;
}

/* The natural logarithm of the sum of a row's e^s. */
static void write_lse(const struct few_item *t, int64_t kv_head)
{
    const struct problem *p = t->call->problem;
    const rapt_attention *a = t->call->a;
    for (int64_t r = 0; r < p->q_tokens * p->group; r++) {
        double l = t->scratch.l[r], m = t->scratch.m[r] * a->scale;
        float *lse = query_row(t->call, &a->lse, &t->sequence, kv_head * p->group + r % p->group,
                               r / p->group);
        *lse = l == 0 ? -INFINITY : (float)((l != l ? 0 : m) + log(l));
    }
}

static void run_item(struct few_item *t, int64_t number)
{
    const struct problem *p = t->call->problem;
    const rapt_attention *a = t->call->a;
    const struct few_scratch *w = &t->scratch;
    int64_t b = number / p->kv_heads, kv_head = number % p->kv_heads;
    if (b != t->sequence.index) begin_sequence(t, b);
    struct cpu_few *x = &t->few;
    x->q = w->q, x->k = w->k, x->v = w->v;
    int64_t head = kv_head * p->group, rows = p->q_tokens * p->group;
    int64_t keys = t->sequence.kv_length;
    x->q_at = provide(t, &a->q, &x->q, head * head_bytes(&a->q), rows, w->q_list, w->q_rows);
    x->k_at = provide(t, &a->k, &x->k, kv_head * head_bytes(&a->k), keys, w->k_list, w->k_rows);
    x->v_at = provide(t, &a->v, &x->v, kv_head * head_bytes(&a->v), keys, w->v_list, w->v_rows);
    x->out_at = head * head_bytes(&a->out);
    t->call->plan->kernels->attend_few(x);
    if (a->lse.dtype) write_lse(t, kv_head);
}

/* ---- All items over the threads ---- */

static void work(void *argument, int64_t slot)
{
    struct few_job *job = argument;
    const struct cpu_call *call = job->call;
    const struct problem *p = call->problem;
    const rapt_attention *a = call->a;
    struct few_item item = {.call = call, .sequence.index = -1};
    struct few_scratch *w = &item.scratch;
    struct arena arena = {call->workspace + (size_t)slot * call->plan->few_scratch_bytes, 0};
    lay_out(w, p, call->plan->kernels, &arena);
    item.few = (struct cpu_few){.strip = w->strip,
                                .out = (char **)w->out,
                                .out_dtype = a->out.dtype,
                                .strips = (p->q_tokens * p->group + FEW_STRIP - 1) / FEW_STRIP,
                                .qk_channels = p->qk_channels,
                                .v_channels = p->v_channels,
                                .scale = cpu_exponent_scale(a),
                                .p = w->p,
                                .factor = w->factor,
                                .turned = w->turned,
                                .paired = w->paired,
                                .key_tiles = round_up(p->kv_tokens, FEW_KEY_STEP) / FEW_STRIP,
                                .m = a->lse.dtype ? w->m : NULL,
                                .l = w->l};
    int64_t i;
    while ((i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) <
           p->batch * p->kv_heads)
        run_item(&item, i);
}

void few_run(const struct cpu_call *call)
{
    struct few_job job = {.call = call};
    atomic_init(&job.next, 0);
    pool_run(call->pool, call->plan->few_slots, call->plan->few_worth, work, &job);
}
