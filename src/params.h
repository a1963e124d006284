/* params.h: what is asked: adopts the caller's struct, checks it, and names its dimensions. Pure,
 * device-free. */
#ifndef RAPT_PARAMS_H
#define RAPT_PARAMS_H

#include "rapt/rapt.h"

#include <stddef.h>

#define WINDOW_OPEN INT64_MAX

/* rapt_attention's tensors stand one behind the other: the number of one, and one by its number. */
#define TENSOR_INDEX(name)                                                                         \
    ((offsetof(rapt_attention, name) - offsetof(rapt_attention, q)) / sizeof(rapt_tensor))
enum { PROBLEM_TENSORS = TENSOR_INDEX(weights) + 1 };
static inline const rapt_tensor *problem_tensor(const rapt_attention *a, int i)
{
    return (const rapt_tensor *)(const void *)((const char *)a + offsetof(rapt_attention, q)) + i;
}

/* A checked problem: the whole of what a kernel needs besides data. Equal problems have equal
 * bytes. */
struct problem {
    rapt_attention
        a; /* complete: absent tensors all zero, broadcast axes with their full size and stride 0,
              axes of size 1 with stride 0, scale resolved, data pointers NULL */
    rapt_attention
        asked;        /* as the caller wrote it, data pointers and kernel NULL; for params_match */
    uint64_t present; /* bit i: a has tensor i */
    uint64_t blank;   /* bit i: tensor i of asked is all zero */
    uint64_t repeats; /* bit i: elements of output i share memory */
    const char *kernel; /* as asked: borrowed from the caller during the call, NULL in a plan */
    int64_t batch;      /* sequences */
    int64_t q_heads, kv_heads, group;
    int64_t q_tokens; /* per sequence; ragged: the total over all sequences */
    int64_t
        kv_tokens; /* capacity of a sequence; ragged keys: the total; paged: pages * page_tokens */
    int64_t qk_channels, v_channels;
    int64_t page_tokens; /* 0: not paged */
    int64_t ragged_q, ragged_kv;
    int64_t window_left;  /* keys pos - left ... pos + right are visible; WINDOW_OPEN: no limit. */
    int64_t window_right; /* causal is right = 0 (or less than the window's own right) */
    /* [low, high): the bytes that each tensor of a spans, counted from its data (view_extent) */
    struct {
        int64_t low, high;
    } extent[PROBLEM_TENSORS];
};

/* Adopts a (older, equal or newer struct_size) and checks everything that does not need data:
 * dtypes, sizes, strides, options. function names the caller in the sentence. */
rapt_status params_check(const rapt_attention *given, const char *function, struct problem *p);

/* Copies a caller's growing struct into ours: a shorter one is zero-filled, a longer one is refused
 * unless its tail is zero. minimum: the size of the first version. */
rapt_status params_adopt(void *to, size_t size, const void *from, size_t minimum,
                         const char *function);

/* Whether a sequence's pages have so few tokens that they can be counted. */
rapt_status params_check_pages(int64_t pages, int64_t tokens, const char *function);

/* Whether k and v, whose form is checked, can be what kv_layout says. */
rapt_status params_check_layout(const rapt_tensor *k, const rapt_tensor *v, int64_t kv_layout,
                                int ragged, const char *function);

/* Whether kernels can multiply scores with it in f32, also by log2(e): one that became 0 or infinite
 * would make NaN of hidden scores. */
rapt_status params_check_scale(double scale, const char *function);

/* What an execute brings: the data pointers of a problem's tensors, NULL where it has none. */
struct problem_data {
    void *of[PROBLEM_TENSORS];
};

/* For an execute of a plan made from *planned: checks that given differs in data pointers alone,
 * that every tensor that is present and not empty has data, and that out, lse and weights overlap
 * no input nor each other. It reads little memory: a driver has used the caches since. */
rapt_status params_match(const struct problem *planned, const rapt_attention *given,
                         const char *function, struct problem_data *out);
/* planned->a with the data pointers. */
void params_complete(const struct problem *planned, const struct problem_data *data,
                     rapt_attention *out);

/* The key that a query stands at, which causal masks, windows and ALiBi count from. query is its index
 * within its sequence, of q_length queries and kv_length keys. */
static inline int64_t query_position(const struct problem *p, int64_t query, int64_t q_length,
                                     int64_t kv_length)
{
    return query + (p->a.align == RAPT_TOP_LEFT ? 0 : kv_length - q_length);
}

/* The visible keys of that query: j in [*first, *last). Saturating, so that any window is safe. */
void visible_keys(const struct problem *p, int64_t query, int64_t q_length, int64_t kv_length,
                  int64_t *first, int64_t *last);

#endif
