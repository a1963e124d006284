/* pieces.c: the exported separate operations: adopt, check, delegate. */
#include "backend.h"
#include "base/dtype.h"
#include "base/error.h"
#include "overlap.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A check of one call: the first rule that fails leaves its sentence and status, later ones do
 * nothing. */
struct check {
    const char *function;
    rapt_status status;
    bool packed; /* the batch is what q_start says */
};

enum { ANY = -1 };

static bool is_float(int64_t dtype)
{
    return dtype == RAPT_F32 || dtype == RAPT_F16 || dtype == RAPT_BF16;
}

/* Sizes must equal the given ones (ANY: free); an axis whose bit is set in broadcast may have size
 * 1 and then repeats. */
static void check_sizes(struct check *c, rapt_tensor *t, const char *name,
                        const int64_t expected[4], unsigned broadcast)
{
    static const char *const axis_name[4] = {"batch", "head", "token", "channel"};
    int64_t low, high;
    for (int axis = 0; axis < 4 && !c->status; axis++) {
        if (t->size[axis] == 1 && (broadcast >> axis & 1) && expected[axis] >= 0) {
            t->size[axis] = expected[axis];
            t->stride[axis] = 0;
        }
        if (t->size[axis] < 0 || (expected[axis] >= 0 && t->size[axis] != expected[axis]))
            c->status = fail(RAPT_INVALID, "%s: %s has size %lld on its %s axis (must be %s%lld%s)",
                             c->function, name, (long long)t->size[axis], axis_name[axis],
                             expected[axis] < 0 ? "at least " : "",
                             expected[axis] < 0 ? 0LL : (long long)expected[axis],
                             c->packed && axis == 0 ? ", one less than q_start" : "");
        if (t->size[axis] == 1) t->stride[axis] = 0;
    }
    if (!c->status && !view_extent(t, &low, &high))
        c->status =
            fail(RAPT_INVALID, "%s: the extent of %s does not fit in 63 bits (check its strides)",
                 c->function, name);
}

static void check_memory(struct check *c, const rapt_tensor *t, const char *name, bool output)
{
    if (c->status) return;
    if (!t->data && view_has_elements(t)) {
        c->status =
            fail(RAPT_INVALID, "%s: %s has no data (its pointer is NULL)", c->function, name);
        return;
    }
    size_t size = dtype_size(t->dtype); /* never 0: other checks have refused that */
    if (size && (uintptr_t)t->data % size) {
        c->status = fail(RAPT_INVALID, "%s: %s is not aligned to its elements (%zu bytes)",
                         c->function, name, size);
        return;
    }
    for (int axis = 0; output && axis < 4 && view_has_elements(t); axis++)
        if (t->size[axis] > 1 && t->stride[axis] == 0)
            c->status = fail(RAPT_INVALID, "%s: %s has stride 0 (an output cannot repeat)",
                             c->function, name);
    if (output && !c->status && view_repeats(t))
        c->status = fail(RAPT_INVALID, "%s: elements of %s share memory (check its strides)",
                         c->function, name);
}

static void check_float(struct check *c, rapt_tensor *t, const char *name,
                        const int64_t expected[4], unsigned broadcast, bool output)
{
    if (!c->status && !is_float(t->dtype))
        c->status = fail(RAPT_INVALID, "%s: %s has dtype %s (must be f32, f16 or bf16)",
                         c->function, name, dtype_name(t->dtype));
    check_sizes(c, t, name, expected, broadcast);
    check_memory(c, t, name, output);
}

static void check_index(struct check *c, rapt_tensor *t, const char *name,
                        const int64_t expected[4], unsigned broadcast)
{
    if (!t->dtype) {
        memset(t, 0, sizeof *t);
        return;
    }
    if (!c->status && t->dtype != RAPT_I32 && t->dtype != RAPT_I64)
        c->status = fail(RAPT_INVALID, "%s: %s has dtype %s (must be i32 or i64)", c->function,
                         name, dtype_name(t->dtype));
    check_sizes(c, t, name, expected, broadcast);
    check_memory(c, t, name, false);
}

static void check_apart(struct check *c, const rapt_tensor *output, const char *name,
                        const rapt_tensor *other, const char *other_name)
{
    if (!c->status && views_overlap(output, other))
        c->status = fail(RAPT_INVALID, "%s: %s overlaps %s (outputs need memory of their own)",
                         c->function, name, other_name);
}

/* In-place is the same view exactly; anything between is refused. */
static void check_apart_or_same(struct check *c, const rapt_tensor *output, const rapt_tensor *x)
{
    if (output->data != x->data || output->dtype != x->dtype ||
        memcmp(output->stride, x->stride, sizeof x->stride))
        check_apart(c, output, "out", x, "x");
}

static void check_true(struct check *c, bool fact, const char *sentence)
{
    if (!c->status && !fact) c->status = fail(RAPT_INVALID, "%s: %s", c->function, sentence);
}

static void check_device(struct check *c, const rapt_device *device)
{
    check_true(c, device != NULL, "device is NULL (as rapt_device_at past the last one)");
}

static void check_adopt(struct check *c, void *to, size_t size, const void *from)
{
    if (!c->status) c->status = params_adopt(to, size, from, size, c->function);
}

static void check_adopt_rope(struct check *c, rapt_rope_args *to, const rapt_rope_args *from)
{
    if (!c->status)
        c->status =
            params_adopt(to, sizeof *to, from, offsetof(rapt_rope_args, untruncated), c->function);
}

static void check_groups(struct check *c, int64_t q_heads, int64_t kv_heads)
{
    if (!c->status && (kv_heads ? q_heads % kv_heads != 0 : q_heads != 0))
        c->status = fail(
            RAPT_INVALID,
            "%s: %lld query heads and %lld KV heads (query heads must be a multiple of KV heads)",
            c->function, (long long)q_heads, (long long)kv_heads);
}

static void check_same_dtype(struct check *c, const rapt_tensor *a, const char *name,
                             const rapt_tensor *b, const char *other_name)
{
    if (!c->status && a->dtype != b->dtype)
        c->status = fail(RAPT_INVALID, "%s: %s is %s and %s is %s (they must agree)", c->function,
                         name, dtype_name(a->dtype), other_name, dtype_name(b->dtype));
}

static void check_f32(struct check *c, const rapt_tensor *t, const char *name)
{
    if (!c->status && t->dtype != RAPT_F32)
        c->status = fail(RAPT_INVALID, "%s: %s has dtype %s (must be f32)", c->function, name,
                         dtype_name(t->dtype));
}

/* Which channels turn, and how far apart their frequencies are. */
static rapt_status rope_rotation(const rapt_rope_args *a, int64_t channels, const char *function)
{
    int64_t rotary = a->rotary_channels;
    if (rotary < 0 || rotary > channels || rotary % 2)
        return fail(RAPT_INVALID,
                    "%s: rotary_channels is %lld (even, from 0 to the head's %lld channels)",
                    function, (long long)rotary, (long long)channels);
    if (rotary / 2 > ROPE_PAIRS_MAX)
        return fail(RAPT_INVALID,
                    "%s: rotary_channels is %lld (at most 2048, the longest frequency table)",
                    function, (long long)rotary);
    if (a->interleaved != 0 && a->interleaved != 1)
        return fail(RAPT_INVALID, "%s: interleaved is %lld (0 or 1)", function,
                    (long long)a->interleaved);
    if (!isfinite(a->theta) || (a->theta != 0 && a->theta <= 1))
        return fail(RAPT_INVALID, "%s: theta is %g (over 1 and finite; 0: 10000)", function,
                    a->theta);
    return RAPT_OK;
}

/* How frequencies are changed for longer contexts. */
static rapt_status rope_scaling(const rapt_rope_args *a, const char *function)
{
    double low = a->low_freq_factor ? a->low_freq_factor : 1,
           high = a->high_freq_factor ? a->high_freq_factor : 4,
           fast = a->beta_fast ? a->beta_fast : 32, slow = a->beta_slow ? a->beta_slow : 1;
    if (a->scaling < RAPT_ROPE_PLAIN || a->scaling > RAPT_ROPE_LLAMA3)
        return fail(RAPT_INVALID, "%s: scaling is %lld (a RAPT_ROPE_ value, 0 ... %d)", function,
                    (long long)a->scaling, RAPT_ROPE_LLAMA3);
    if (a->scaling == RAPT_ROPE_PLAIN && a->factor != 0 && a->factor != 1)
        return fail(RAPT_INVALID, "%s: factor is %g and scaling is RAPT_ROPE_PLAIN (plain: 0 or 1)",
                    function, a->factor);
    if (a->scaling != RAPT_ROPE_PLAIN && (!isfinite(a->factor) || a->factor < 1))
        return fail(RAPT_INVALID, "%s: factor is %g (at least 1, finite)", function, a->factor);
    if (a->scaling >= RAPT_ROPE_YARN && (!isfinite(a->original_context) || a->original_context < 1))
        return fail(RAPT_INVALID,
                    "%s: original_context is %g (at least 1 for YaRN and Llama 3 scaling, finite)",
                    function, a->original_context);
    if (!isfinite(low) || low < 0 || !isfinite(high) || high <= low)
        return fail(RAPT_INVALID,
                    "%s: low_freq_factor is %g and high_freq_factor is %g (0 ... high, finite; "
                    "0: 1 and 4)",
                    function, low, high);
    if (!isfinite(slow) || slow < 0 || !isfinite(fast) || fast <= slow)
        return fail(RAPT_INVALID,
                    "%s: beta_slow is %g and beta_fast is %g (0 ... fast, finite; 0: 1 and 32)",
                    function, slow, fast);
    if (!isfinite(a->attention_factor) || a->attention_factor < 0)
        return fail(RAPT_INVALID, "%s: attention_factor is %g (0 or more, finite)", function,
                    a->attention_factor);
    if (a->untruncated != 0 && a->untruncated != 1)
        return fail(RAPT_INVALID, "%s: untruncated is %lld (0 or 1)", function,
                    (long long)a->untruncated);
    return RAPT_OK;
}

static void check_rope_options(struct check *c, rapt_rope_args *a, int64_t channels)
{
    if (c->status) return;
    if (!a->rotary_channels && channels % 2) {
        c->status = fail(RAPT_INVALID,
                         "%s: rotary_channels is 0, all %lld of the head (an even number turns)",
                         c->function, (long long)channels);
        return;
    }
    if (!a->rotary_channels) a->rotary_channels = channels;
    c->status = rope_rotation(a, channels, c->function);
    if (!c->status) c->status = rope_scaling(a, c->function);
    if (!c->status && !a->cos.dtype != !a->sin.dtype)
        c->status =
            fail(RAPT_INVALID, "%s: cos is %s and sin is %s (give both or neither)", c->function,
                 a->cos.dtype ? "given" : "absent", a->sin.dtype ? "given" : "absent");
    rapt_tensor *tables[2] = {&a->cos, &a->sin};
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "sin" : "cos";
        if (!tables[i]->dtype) {
            memset(tables[i], 0, sizeof *tables[i]);
            continue;
        }
        check_f32(c, tables[i], name);
        check_sizes(c, tables[i], name,
                    (const int64_t[4]){1, 1, i ? a->cos.size[2] : ANY, a->rotary_channels / 2}, 0);
        check_memory(c, tables[i], name, false);
    }
}

RAPT_API rapt_status rapt_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream)
{
    struct check c = {.function = "rapt_rope"};
    rapt_rope_args a;
    check_device(&c, device);
    check_adopt_rope(&c, &a, args);
    if (c.status) return c.status;
    check_float(&c, &a.x, "x", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, false);
    check_float(&c, &a.out, "out", a.x.size, 0, true);
    check_index(&c, &a.position, "position", (const int64_t[4]){a.x.size[0], 1, a.x.size[2], 1}, 1);
    check_rope_options(&c, &a, a.x.size[3]);
    check_apart_or_same(&c, &a.out, &a.x);
    if (a.position.dtype) check_apart(&c, &a.out, "out", &a.position, "position");
    if (a.cos.dtype) check_apart(&c, &a.out, "out", &a.cos, "cos");
    if (a.sin.dtype) check_apart(&c, &a.out, "out", &a.sin, "sin");
    return c.status ? c.status : device->backend->rope(device, &a, stream);
}

RAPT_API rapt_status rapt_softmax(rapt_device *device, const rapt_softmax_args *args,
                                  rapt_stream stream)
{
    struct check c = {.function = "rapt_softmax"};
    rapt_softmax_args a;
    check_device(&c, device);
    check_adopt(&c, &a, sizeof a, args);
    if (c.status) return c.status;
    check_float(&c, &a.x, "x", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, false);
    check_float(&c, &a.out, "out", a.x.size, 0, true);
    check_apart_or_same(&c, &a.out, &a.x);
    return c.status ? c.status : device->backend->softmax(device, &a, stream);
}

RAPT_API rapt_status rapt_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream)
{
    struct check c = {.function = "rapt_qk"};
    rapt_qk_args a;
    check_device(&c, device);
    check_adopt(&c, &a, sizeof a, args);
    if (c.status) return c.status;
    check_float(&c, &a.q, "q", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, false);
    check_float(&c, &a.k, "k", (const int64_t[4]){a.q.size[0], ANY, ANY, a.q.size[3]}, 0, false);
    check_float(&c, &a.out, "out",
                (const int64_t[4]){a.q.size[0], a.q.size[1], a.q.size[2], a.k.size[2]}, 0, true);
    check_groups(&c, a.q.size[1], a.k.size[1]);
    check_true(&c, a.q.size[3] > 0, "q has no channels (at least 1)");
    if (!c.status && a.k.dtype != a.q.dtype && a.q.dtype != RAPT_F32)
        c.status = fail(RAPT_INVALID, "%s: q is %s and k is %s (k has q's dtype, or q is f32)",
                        c.function, dtype_name(a.q.dtype), dtype_name(a.k.dtype));
    if (!c.status) c.status = params_check_scale(a.scale, c.function);
    check_apart(&c, &a.out, "out", &a.q, "q");
    check_apart(&c, &a.out, "out", &a.k, "k");
    if (a.scale == 0 && !c.status) a.scale = 1 / sqrt((double)a.q.size[3]);
    return c.status ? c.status : device->backend->qk(device, &a, stream);
}

RAPT_API rapt_status rapt_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream)
{
    struct check c = {.function = "rapt_pv"};
    rapt_pv_args a;
    check_device(&c, device);
    check_adopt(&c, &a, sizeof a, args);
    if (c.status) return c.status;
    check_float(&c, &a.weights, "weights", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, false);
    check_float(&c, &a.v, "v", (const int64_t[4]){a.weights.size[0], ANY, a.weights.size[3], ANY},
                0, false);
    check_float(
        &c, &a.out, "out",
        (const int64_t[4]){a.weights.size[0], a.weights.size[1], a.weights.size[2], a.v.size[3]}, 0,
        true);
    check_groups(&c, a.weights.size[1], a.v.size[1]);
    check_apart(&c, &a.out, "out", &a.weights, "weights");
    check_apart(&c, &a.out, "out", &a.v, "v");
    return c.status ? c.status : device->backend->pv(device, &a, stream);
}

RAPT_API rapt_status rapt_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                                      rapt_stream stream)
{
    struct check c = {.function = "rapt_causal_mask"};
    rapt_causal_mask_args a;
    check_device(&c, device);
    check_adopt(&c, &a, sizeof a, args);
    if (c.status) return c.status;
    check_float(&c, &a.x, "x", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, true);
    if (!c.status && a.align != RAPT_BOTTOM_RIGHT && a.align != RAPT_TOP_LEFT)
        c.status =
            fail(RAPT_INVALID, "%s: align is %lld (RAPT_BOTTOM_RIGHT, %d, or RAPT_TOP_LEFT, %d)",
                 c.function, (long long)a.align, RAPT_BOTTOM_RIGHT, RAPT_TOP_LEFT);
    return c.status ? c.status : device->backend->causal_mask(device, &a, stream);
}

RAPT_API rapt_status rapt_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                                       rapt_stream stream)
{
    struct check c = {.function = "rapt_kv_replicate"};
    rapt_kv_replicate_args a;
    check_device(&c, device);
    check_adopt(&c, &a, sizeof a, args);
    if (c.status) return c.status;
    check_float(&c, &a.k, "k", (const int64_t[4]){ANY, ANY, ANY, ANY}, 0, false);
    check_float(&c, &a.v, "v", (const int64_t[4]){a.k.size[0], a.k.size[1], a.k.size[2], ANY}, 0,
                false);
    check_float(&c, &a.k_out, "k_out",
                (const int64_t[4]){a.k.size[0], ANY, a.k.size[2], a.k.size[3]}, 0, true);
    check_float(&c, &a.v_out, "v_out",
                (const int64_t[4]){a.k.size[0], a.k_out.size[1], a.k.size[2], a.v.size[3]}, 0,
                true);
    check_groups(&c, a.k_out.size[1], a.k.size[1]);
    check_same_dtype(&c, &a.k, "k", &a.v, "v");
    check_same_dtype(&c, &a.k, "k", &a.k_out, "k_out");
    check_same_dtype(&c, &a.k, "k", &a.v_out, "v_out");
    check_apart(&c, &a.k_out, "k_out", &a.k, "k");
    check_apart(&c, &a.k_out, "k_out", &a.v, "v");
    check_apart(&c, &a.v_out, "v_out", &a.k, "k");
    check_apart(&c, &a.v_out, "v_out", &a.v, "v");
    check_apart(&c, &a.k_out, "k_out", &a.v_out, "v_out");
    return c.status ? c.status : device->backend->kv_replicate(device, &a, stream);
}

/* The cache's scales, one per block of channels. */
static void check_cache_scale(struct check *c, rapt_tensor *scale, const rapt_tensor *cache,
                              const char *name)
{
    bool quantised = cache->dtype == RAPT_I8;
    if (!c->status && quantised != (scale->dtype != 0))
        c->status =
            fail(RAPT_INVALID,
                 "%s: the cache is %s and %s is %s (an i8 cache has k_scale and v_scale, "
                 "any other has neither)",
                 c->function, dtype_name(cache->dtype), name, scale->dtype ? "given" : "absent");
    if (!quantised) {
        memset(scale, 0, sizeof *scale);
        return;
    }
    check_f32(c, scale, name);
    check_sizes(c, scale, name,
                (const int64_t[4]){cache->size[0], cache->size[1], cache->size[2], ANY}, 0);
    if (!c->status && (scale->size[3] < 1 || cache->size[3] % scale->size[3]))
        c->status = fail(RAPT_INVALID,
                         "%s: %s has %lld blocks for %lld channels (blocks must divide channels)",
                         c->function, name, (long long)scale->size[3], (long long)cache->size[3]);
    check_memory(c, scale, name, true);
}

/* The cache and its scales share memory with nothing else; absent tensors overlap nothing. */
static void check_append_apart(struct check *c, const rapt_kv_append_args *a)
{
    static const rapt_tensor none;
    const rapt_rope_args *rope = a->rope;
    const struct {
        const char *name;
        const rapt_tensor *t;
    } tensors[] = {{"k", &a->k},
                   {"v", &a->v},
                   {"k_scale", &a->k_scale},
                   {"v_scale", &a->v_scale},
                   {"k_new", &a->k_new},
                   {"v_new", &a->v_new},
                   {"kv_length", &a->kv_length},
                   {"q_start", &a->q_start},
                   {"page_table", &a->page_table},
                   {"position", rope ? &rope->position : &none},
                   {"cos", rope ? &rope->cos : &none},
                   {"sin", rope ? &rope->sin : &none}};
    enum { OUTPUTS = 4, COUNT = sizeof tensors / sizeof *tensors };
    for (int i = 0; i < OUTPUTS; i++)
        for (int j = i + 1; j < COUNT; j++)
            check_apart(c, tensors[i].t, tensors[i].name, tensors[j].t, tensors[j].name);
}

RAPT_API rapt_status rapt_kv_append(rapt_device *device, const rapt_kv_append_args *args,
                                    rapt_stream stream)
{
    struct check c = {.function = "rapt_kv_append"};
    rapt_kv_append_args a;
    rapt_rope_args rope;
    check_device(&c, device);
    c.status = c.status ? c.status
                        : params_adopt(&a, sizeof a, args, offsetof(rapt_kv_append_args, kv_layout),
                                       c.function);
    if (c.status) return c.status;
    bool ragged = a.q_start.dtype != 0, paged = a.page_table.dtype != 0;
    int64_t starts = a.q_start.size[0], batch = a.k_new.size[0];
    if (ragged) batch = starts > 0 ? starts - 1 : -1;
    check_true(&c, !ragged || batch >= 0, "q_start is empty (batch + 1 entries)");
    check_float(&c, &a.k_new, "k_new", (const int64_t[4]){ragged ? 1 : ANY, ANY, ANY, ANY}, 0,
                false);
    check_float(&c, &a.v_new, "v_new",
                (const int64_t[4]){a.k_new.size[0], a.k_new.size[1], a.k_new.size[2], ANY}, 0,
                false);
    check_same_dtype(&c, &a.k_new, "k_new", &a.v_new, "v_new");
    check_same_dtype(&c, &a.k, "k", &a.v, "v");
    if (!c.status && a.k.dtype != RAPT_I8 && !is_float(a.k.dtype))
        c.status = fail(RAPT_INVALID, "%s: the cache is %s (f32, f16, bf16 or i8)", c.function,
                        dtype_name(a.k.dtype));
    check_sizes(&c, &a.k, "k",
                (const int64_t[4]){paged ? ANY : batch, a.k_new.size[1], ANY, a.k_new.size[3]}, 0);
    check_sizes(&c, &a.v, "v",
                (const int64_t[4]){a.k.size[0], a.k_new.size[1], a.k.size[2], a.v_new.size[3]}, 0);
    if (!c.status) c.status = params_check_layout(&a.k, &a.v, a.kv_layout, 0, c.function);
    check_memory(&c, &a.k, "k", true);
    check_memory(&c, &a.v, "v", true);
    check_index(&c, &a.q_start, "q_start", (const int64_t[4]){starts, 1, 1, 1}, 0);
    c.packed = ragged;
    check_index(&c, &a.kv_length, "kv_length", (const int64_t[4]){batch, 1, 1, 1}, 0);
    check_index(&c, &a.page_table, "page_table", (const int64_t[4]){batch, 1, ANY, 1}, 0);
    c.packed = false;
    check_true(&c, !paged || a.k.size[2] > 0, "a page of k has no tokens (at least 1)");
    if (!c.status && paged)
        c.status = params_check_pages(a.page_table.size[2], a.k.size[2], c.function);
    check_cache_scale(&c, &a.k_scale, &a.k, "k_scale");
    check_cache_scale(&c, &a.v_scale, &a.v, "v_scale");
    if (a.rope) {
        check_adopt_rope(&c, &rope, a.rope);
        if (c.status) return c.status;
        memset(&rope.x, 0, sizeof rope.x);
        memset(&rope.out, 0, sizeof rope.out);
        check_index(&c, &rope.position, "position",
                    (const int64_t[4]){a.k_new.size[0], 1, a.k_new.size[2], 1}, 1);
        check_rope_options(&c, &rope, a.k_new.size[3]);
        a.rope = &rope;
    }
    check_append_apart(&c, &a);
    return c.status ? c.status : device->backend->kv_append(device, &a, stream);
}
