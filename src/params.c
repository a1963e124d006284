/* params.c: adopts and checks rapt_attention; one rule, one sentence. */
#include "params.h"
#include "base/dtype.h"
#include "base/error.h"
#include "overlap.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum {
    D_F32 = 1 << RAPT_F32,
    D_FLOAT = 1 << RAPT_F32 | 1 << RAPT_F16 | 1 << RAPT_BF16,
    D_DATA = D_FLOAT | 1 << RAPT_I8,
    D_U8 = 1 << RAPT_U8,
    D_INDEX = 1 << RAPT_I32 | 1 << RAPT_I64
};

/* What an axis must measure. ROWS is the batch axis of query-shaped tensors (1 when ragged),
 * KV_ROWS and KV_AXIS those of stored keys (pages when paged), COLUMNS the keys of a score row;
 * FREE is checked by itself. */
enum extent {
    ONE,
    BATCH,
    BATCH_1,
    ROWS,
    KV_ROWS,
    QH,
    KVH,
    QT,
    KV_AXIS,
    COLUMNS,
    CD,
    CDV,
    FREE,
    EXTENTS
};

/* rapt_attention before kv_layout. */
enum { FIRST_SIZE = offsetof(rapt_attention, kv_layout) };

enum { INPUT = 0, OUTPUT = 1, REQUIRED = 2 };

/* name, dtypes, role, extents of the four axes, broadcast axes (bit a: axis a may have size 1) */
#define TENSOR_LIST(X)                                                                             \
    X(q, D_DATA, REQUIRED, ROWS, QH, QT, CD, 0)                                                    \
    X(k, D_DATA, REQUIRED, KV_ROWS, KVH, KV_AXIS, CD, 0)                                           \
    X(v, D_DATA, REQUIRED, KV_ROWS, KVH, KV_AXIS, CDV, 0)                                          \
    X(out, D_FLOAT, REQUIRED | OUTPUT, ROWS, QH, QT, CDV, 0)                                       \
    X(lse, D_F32, OUTPUT, ROWS, QH, QT, ONE, 0)                                                    \
    X(bias, D_FLOAT, INPUT, ROWS, QH, QT, COLUMNS, 15)                                             \
    X(mask, D_U8, INPUT, ROWS, QH, QT, COLUMNS, 15)                                                \
    X(alibi_slope, D_F32, INPUT, BATCH, QH, ONE, ONE, 1)                                           \
    X(sink, D_F32, INPUT, BATCH, QH, ONE, ONE, 1)                                                  \
    X(q_start, D_INDEX, INPUT, BATCH_1, ONE, ONE, ONE, 0)                                          \
    X(kv_start, D_INDEX, INPUT, BATCH_1, ONE, ONE, ONE, 0)                                         \
    X(kv_length, D_INDEX, INPUT, BATCH, ONE, ONE, ONE, 0)                                          \
    X(page_table, D_INDEX, INPUT, BATCH, ONE, FREE, ONE, 0)                                        \
    X(q_scale, D_F32, INPUT, ROWS, QH, QT, FREE, 7)                                                \
    X(k_scale, D_F32, INPUT, KV_ROWS, KVH, KV_AXIS, FREE, 7)                                       \
    X(v_scale, D_F32, INPUT, KV_ROWS, KVH, KV_AXIS, FREE, 7)                                       \
    X(weights, D_FLOAT, OUTPUT, ROWS, QH, QT, COLUMNS, 0)

static const struct tensor_rule {
    const char *name;
    size_t offset;
    unsigned dtypes, role, broadcast;
    unsigned char extent[4];
} rules[] = {
#define RULE(name, dtypes, role, e0, e1, e2, e3, broadcast)                                        \
    {#name, offsetof(rapt_attention, name), dtypes, role, broadcast, {e0, e1, e2, e3}},
    TENSOR_LIST(RULE)
#undef RULE
};
enum { RULE_COUNT = sizeof rules / sizeof *rules };
#define IN_ORDER(name, ...) RULE_##name,
enum { TENSOR_LIST(IN_ORDER) };
#undef IN_ORDER
#define NUMBERED(name, ...)                                                                        \
    _Static_assert((size_t)RULE_##name == TENSOR_INDEX(name),                                      \
                   "rules are in rapt_attention's order");
TENSOR_LIST(NUMBERED)
#undef NUMBERED

static const char *const axis_name[4] = {"batch", "head", "token", "channel"};

/* As sentences call it. */
static const char *axis_of(const struct tensor_rule *rule, int axis)
{
    return rule->extent[axis] == COLUMNS ? "key" : axis_name[axis];
}

static rapt_tensor *tensor_of(rapt_attention *a, const struct tensor_rule *rule)
{
    return (rapt_tensor *)((char *)a + rule->offset);
}

rapt_status params_adopt(void *to, size_t size, const void *from, size_t minimum,
                         const char *function)
{
    if (!from) return fail(RAPT_INVALID, "%s: the struct is NULL (pass its address)", function);
    uint64_t given;
    memcpy(&given, from, sizeof given);
    if (given < minimum || given % 8)
        return fail(RAPT_INVALID,
                    "%s: struct_size is %llu (set it to sizeof of the struct, at least %zu)",
                    function, (unsigned long long)given, minimum);
    if (given > size) {
        if (given > size + 65536)
            return fail(RAPT_INVALID, "%s: struct_size is %llu (set it to sizeof of the struct)",
                        function, (unsigned long long)given);
        for (uint64_t at = size; at < given; at++)
            if (((const unsigned char *)from)[at])
                return fail(
                    RAPT_UNSUPPORTED,
                    "%s: a field that version %d.%d.%d does not know is set (link a newer library)",
                    function, RAPT_VERSION_MAJOR, RAPT_VERSION_MINOR, RAPT_VERSION_PATCH);
    }
    memset(to, 0, size);
    memcpy(to, from, given < size ? (size_t)given : size);
    uint64_t own = size;
    memcpy(to, &own, sizeof own);
    return RAPT_OK;
}

static rapt_status check_tensor_form(const rapt_tensor *t, const struct tensor_rule *rule,
                                     const char *function)
{
    if (!dtype_size(t->dtype) || !(rule->dtypes >> t->dtype & 1))
        return fail(RAPT_INVALID, "%s: %s has dtype %lld, %s (%s)", function, rule->name,
                    (long long)t->dtype, dtype_name(t->dtype),
                    rule->dtypes == D_INDEX  ? "must be i32 or i64"
                    : rule->dtypes == D_U8   ? "must be u8"
                    : rule->dtypes == D_F32  ? "must be f32"
                    : rule->dtypes == D_DATA ? "must be f32, f16, bf16 or i8"
                                             : "must be f32, f16 or bf16");
    for (int axis = 0; axis < 4; axis++) {
        if (t->size[axis] < 0)
            return fail(RAPT_INVALID, "%s: %s has size %lld on its %s axis (0 or more)", function,
                        rule->name, (long long)t->size[axis], axis_of(rule, axis));
        if ((rule->role & OUTPUT) && t->size[axis] > 1 && t->stride[axis] == 0 &&
            view_has_elements(t))
            return fail(RAPT_INVALID,
                        "%s: %s has stride 0 on its %s axis (an output cannot repeat)", function,
                        rule->name, axis_of(rule, axis));
    }
    int64_t low, high;
    if (!view_extent(t, &low, &high))
        return fail(RAPT_INVALID,
                    "%s: the extent of %s does not fit in 63 bits (check its strides)", function,
                    rule->name);
    return RAPT_OK;
}

/* packed: batch is what q_start says. */
static rapt_status check_tensor_sizes(rapt_tensor *t, const struct tensor_rule *rule,
                                      const int64_t *extent, bool packed, const char *function)
{
    for (int axis = 0; axis < 4; axis++) {
        int kind = rule->extent[axis];
        int64_t expected = kind == FREE ? t->size[axis] : extent[kind];
        if (t->size[axis] == 1 && (rule->broadcast >> axis & 1)) {
            t->size[axis] = expected < 0 ? 1 : expected;
            t->stride[axis] = 0;
        }
        if (expected >= 0 && t->size[axis] != expected)
            return fail(RAPT_INVALID, "%s: %s has size %lld on its %s axis (must be %lld%s)",
                        function, rule->name, (long long)t->size[axis], axis_of(rule, axis),
                        (long long)expected,
                        packed && kind == BATCH ? ", one less than q_start" : "");
        if (t->size[axis] == 1) t->stride[axis] = 0;
    }
    return RAPT_OK;
}

static rapt_status check_dtypes(const rapt_attention *a, const char *function)
{
    if (a->k.dtype != a->v.dtype)
        return fail(RAPT_INVALID, "%s: k is %s and v is %s (they must agree)", function,
                    dtype_name(a->k.dtype), dtype_name(a->v.dtype));
    bool quantised = a->k.dtype == RAPT_I8;
    if (!quantised && a->k.dtype != a->q.dtype && a->q.dtype != RAPT_F32)
        return fail(RAPT_INVALID, "%s: q is %s and k is %s (k has q's dtype, or q is f32)",
                    function, dtype_name(a->q.dtype), dtype_name(a->k.dtype));
    bool wrong_k = quantised != !!a->k_scale.dtype, wrong_v = quantised != !!a->v_scale.dtype;
    if (wrong_k || wrong_v)
        return fail(
            RAPT_INVALID,
            "%s: k is %s and %s is %s (i8 keys and values have both scales, any others neither)",
            function, dtype_name(a->k.dtype), wrong_k ? "k_scale" : "v_scale",
            quantised ? "absent" : "given");
    if ((a->q.dtype == RAPT_I8) != !!a->q_scale.dtype)
        return fail(RAPT_INVALID, "%s: q is %s and q_scale is %s (q_scale belongs to i8 queries)",
                    function, dtype_name(a->q.dtype), a->q_scale.dtype ? "given" : "absent");
    if (a->out.dtype != RAPT_F32 && a->out.dtype != a->q.dtype)
        return fail(RAPT_INVALID, "%s: out is %s and q is %s (out is f32 or has q's dtype)",
                    function, dtype_name(a->out.dtype), dtype_name(a->q.dtype));
    if (a->bias.dtype && a->bias.dtype != RAPT_F32 && a->bias.dtype != a->q.dtype)
        return fail(RAPT_INVALID, "%s: bias is %s and q is %s (bias is f32 or has q's dtype)",
                    function, dtype_name(a->bias.dtype), dtype_name(a->q.dtype));
    return RAPT_OK;
}

static rapt_status check_scale_blocks(const rapt_attention *a, const char *function)
{
    const struct {
        const char *name;
        const rapt_tensor *scale, *data;
    } rows[] = {{"q_scale", &a->q_scale, &a->q},
                {"k_scale", &a->k_scale, &a->k},
                {"v_scale", &a->v_scale, &a->v}};
    for (size_t i = 0; i < 3; i++)
        if (rows[i].scale->dtype &&
            (rows[i].scale->size[3] < 1 || rows[i].data->size[3] % rows[i].scale->size[3]))
            return fail(RAPT_INVALID,
                        "%s: %s has %lld blocks for %lld channels (blocks must divide channels)",
                        function, rows[i].name, (long long)rows[i].scale->size[3],
                        (long long)rows[i].data->size[3]);
    return RAPT_OK;
}

static rapt_status check_flag(int64_t value, int64_t maximum, const char *name,
                              const char *function)
{
    if (value >= 0 && value <= maximum) return RAPT_OK;
    return fail(RAPT_INVALID, "%s: %s is %lld (0 ... %lld)", function, name, (long long)value,
                (long long)maximum);
}

static bool f32_holds(double magnitude)
{
    return magnitude >= 0x1p-126 && magnitude <= 0x1p127;
}

rapt_status params_check_scale(double scale, const char *function)
{
    if (scale == 0 || f32_holds(fabs(scale))) return RAPT_OK;
    return fail(RAPT_INVALID, "%s: scale is %g (0, or of a magnitude from 2^-126 to 2^127)",
                function, scale);
}

/* Kernels multiply sums of q k by scale / softcap, and this by itself. scale is resolved. */
static rapt_status check_softcap(double softcap, double scale, const char *function)
{
    double ratio = fabs(scale) / softcap;
    if (softcap == 0 || (f32_holds(softcap) && ratio >= 0x1p-60 && ratio <= 0x1p60)) return RAPT_OK;
    return fail(RAPT_INVALID,
                "%s: softcap is %g (0, or from 2^-126 to 2^127 and 2^-60 to 2^60 times the scale)",
                function, softcap);
}

static rapt_status check_options(const rapt_attention *a, const char *function)
{
    rapt_status status;
    if ((status = check_flag(a->causal, 1, "causal", function))) return status;
    if ((status = check_flag(a->align, RAPT_TOP_LEFT, "align", function))) return status;
    if ((status = check_flag(a->batch_invariant, 1, "batch_invariant", function))) return status;
    if (a->window_left < 0 || a->window_right < 0)
        return fail(RAPT_INVALID, "%s: %s is %lld (0 is open, RAPT_WINDOW(n) is n neighbours)",
                    function, a->window_left < 0 ? "window_left" : "window_right",
                    (long long)(a->window_left < 0 ? a->window_left : a->window_right));
    if ((status = params_check_scale(a->scale, function))) return status;
    return RAPT_OK;
}

rapt_status params_check_pages(int64_t pages, int64_t tokens, const char *function)
{
    int64_t all;
    if (!__builtin_mul_overflow(pages, tokens, &all) && all <= VIEW_MOST) return RAPT_OK;
    return fail(RAPT_INVALID, "%s: %lld pages of %lld tokens (at most 2^48 tokens in all)",
                function, (long long)pages, (long long)tokens);
}

static rapt_status find_dimensions(struct problem *p, const char *function)
{
    const rapt_attention *a = &p->a;
    p->ragged_q = a->q_start.dtype != 0;
    p->ragged_kv = a->kv_start.dtype != 0;
    p->page_tokens = a->page_table.dtype ? a->k.size[2] : 0;
    if (a->page_table.dtype && p->ragged_kv)
        return fail(RAPT_INVALID,
                    "%s: page_table and kv_start are both given (keys are paged or ragged)",
                    function);
    if (a->page_table.dtype && p->page_tokens < 1)
        return fail(RAPT_INVALID, "%s: a page of k has no tokens (at least 1)", function);
    if ((p->ragged_q && a->q_start.size[0] < 1) || (p->ragged_kv && a->kv_start.size[0] < 1))
        return fail(RAPT_INVALID, "%s: q_start or kv_start is empty (batch + 1 entries)", function);
    p->batch = p->ragged_q ? a->q_start.size[0] - 1 : a->q.size[0];
    p->q_heads = a->q.size[1];
    p->kv_heads = a->k.size[1];
    p->q_tokens = a->q.size[2];
    p->qk_channels = a->q.size[3];
    p->v_channels = a->v.size[3];
    p->kv_tokens = a->k.size[2];
    if (p->page_tokens) {
        rapt_status status = params_check_pages(a->page_table.size[2], p->page_tokens, function);
        if (status) return status;
        p->kv_tokens = a->page_table.size[2] * p->page_tokens;
    }
    if (p->qk_channels < 1 || p->v_channels < 1)
        return fail(RAPT_INVALID, "%s: q has %lld and v has %lld channels (at least 1)", function,
                    (long long)p->qk_channels, (long long)p->v_channels);
    if (p->kv_heads ? p->q_heads % p->kv_heads != 0 : p->q_heads != 0)
        return fail(
            RAPT_INVALID,
            "%s: %lld query heads and %lld KV heads (query heads must be a multiple of KV heads)",
            function, (long long)p->q_heads, (long long)p->kv_heads);
    p->group = p->kv_heads ? p->q_heads / p->kv_heads : 1;
    return RAPT_OK;
}

rapt_status params_check_layout(const rapt_tensor *k, const rapt_tensor *v, int64_t kv_layout,
                                int ragged, const char *function)
{
    const rapt_tensor *tensors[2] = {k, v};
    rapt_status status = check_flag(kv_layout, RAPT_KV_BLOCKED, "kv_layout", function);
    if (status || kv_layout == RAPT_KV_STRIDED) return status;
    if (ragged)
        return fail(RAPT_INVALID,
                    "%s: kv_start is given and kv_layout is blocked (blocked keys "
                    "are a cache, plain or paged)",
                    function);
    for (int i = 0; i < 2; i++) {
        const rapt_tensor *t = tensors[i];
        char name = i ? 'v' : 'k';
        if (!(D_FLOAT >> t->dtype & 1))
            return fail(RAPT_INVALID, "%s: %c is %s (blocked it must be f32, f16 or bf16)",
                        function, name, dtype_name(t->dtype));
        if (t->size[2] % RAPT_KV_BLOCK || t->size[3] % RAPT_KV_BLOCK)
            return fail(
                RAPT_INVALID, "%s: %c has %lld tokens and %lld channels (blocked: multiples of %d)",
                function, name, (long long)t->size[2], (long long)t->size[3], RAPT_KV_BLOCK);
        if (view_has_elements(t) && (t->stride[3] != 1 || t->stride[2] != t->size[3]))
            return fail(RAPT_INVALID,
                        "%s: %c has strides %lld, %lld on its token and channel axes (blocked: "
                        "its channels, 1)",
                        function, name, (long long)t->stride[2], (long long)t->stride[3]);
    }
    return RAPT_OK;
}

/* Not 0 where a tensor without data is not all zero. */
static uint64_t filled(const rapt_tensor *t)
{
    uint64_t bits = (uint64_t)t->dtype;
    for (int axis = 0; axis < 4; axis++) bits |= (uint64_t)(t->size[axis] | t->stride[axis]);
    return bits;
}

rapt_status params_check(const rapt_attention *given, const char *function, struct problem *p)
{
    memset(p, 0, sizeof *p);
    rapt_attention *a = &p->a;
    rapt_status status = params_adopt(a, sizeof *a, given, FIRST_SIZE, function);
    if (status) return status;
    for (int i = 0; i < RULE_COUNT; i++) {
        rapt_tensor *t = tensor_of(a, &rules[i]);
        t->data = NULL;
        if (t->dtype ? (status = check_tensor_form(t, &rules[i], function)) != 0
                     : rules[i].role & REQUIRED)
            return t->dtype ? status
                            : fail(RAPT_INVALID, "%s: %s is absent (its dtype is 0)", function,
                                   rules[i].name);
    }
    p->kernel = a->kernel;
    a->kernel = NULL;
    p->asked = *a;
    for (int i = 0; i < RULE_COUNT; i++)
        if (!filled(problem_tensor(a, i))) p->blank |= (uint64_t)1 << i;
    if ((status = find_dimensions(p, function)) || (status = check_dtypes(a, function)) ||
        (status = check_options(a, function)))
        return status;
    const int64_t extent[EXTENTS] = {[ONE] = 1,
                                     [BATCH] = p->batch,
                                     [BATCH_1] = p->batch + 1,
                                     [ROWS] = p->ragged_q ? 1 : p->batch,
                                     [KV_ROWS] = p->page_tokens ? a->k.size[0]
                                                 : p->ragged_kv ? 1
                                                                : p->batch,
                                     [QH] = p->q_heads,
                                     [KVH] = p->kv_heads,
                                     [QT] = p->q_tokens,
                                     [KV_AXIS] = a->k.size[2],
                                     [COLUMNS] = p->ragged_kv ? -1 : p->kv_tokens,
                                     [CD] = p->qk_channels,
                                     [CDV] = p->v_channels,
                                     [FREE] = -1};
    for (int i = 0; i < RULE_COUNT; i++) {
        rapt_tensor *t = tensor_of(a, &rules[i]);
        if (!t->dtype) memset(t, 0, sizeof *t);
        else if ((status = check_tensor_sizes(t, &rules[i], extent, p->ragged_q, function)))
            return status;
        if (t->dtype) p->present |= (uint64_t)1 << i;
        view_extent(t, &p->extent[i].low, &p->extent[i].high);
        if ((rules[i].role & OUTPUT) && view_repeats(t)) p->repeats |= (uint64_t)1 << i;
    }
    if ((status = check_scale_blocks(a, function)) ||
        (status = params_check_layout(&a->k, &a->v, a->kv_layout, (int)p->ragged_kv, function)))
        return status;
    if (a->scale == 0) a->scale = 1 / sqrt((double)p->qk_channels);
    if ((status = check_softcap(a->softcap, a->scale, function))) return status;
    p->window_left = a->window_left ? a->window_left - 1 : WINDOW_OPEN;
    p->window_right = a->window_right ? a->window_right - 1 : WINDOW_OPEN;
    if (a->causal) p->window_right = 0;
    return RAPT_OK;
}

/* Whether tensors number i and j span no byte in common. */
static bool apart(const struct problem *planned, const struct problem_data *data, int i, int j)
{
    uintptr_t low[2], bytes[2];
    for (int k = 0; k < 2; k++) {
        int n = k ? j : i;
        low[k] = (uintptr_t)data->of[n] + (uintptr_t)planned->extent[n].low;
        bytes[k] = (uintptr_t)(planned->extent[n].high - planned->extent[n].low);
    }
    return low[1] - low[0] >= bytes[0] && low[0] - low[1] >= bytes[1];
}

static bool overlap(const struct problem *planned, const struct problem_data *data, int i, int j)
{
    if (apart(planned, data, i, j)) return false;
    rapt_tensor a = *problem_tensor(&planned->a, i), b = *problem_tensor(&planned->a, j);
    a.data = data->of[i];
    b.data = data->of[j];
    return views_overlap(&a, &b);
}

/* The lowest of several bits. */
static int first_of(uint64_t bits)
{
    return __builtin_ctzll((unsigned long long)bits);
}

static rapt_status check_data(const struct problem *planned, const struct problem_data *data,
                              const char *function)
{
    for (uint64_t left = planned->present; left; left &= left - 1) {
        int i = first_of(left);
        const rapt_tensor *t = problem_tensor(&planned->a, i);
        if (!data->of[i] && view_has_elements(t))
            return fail(RAPT_INVALID, "%s: %s has no data (its pointer is NULL)", function,
                        rules[i].name);
        if ((uintptr_t)data->of[i] & (dtype_size(t->dtype) - 1))
            return fail(RAPT_INVALID, "%s: %s is not aligned to its elements (%zu bytes)", function,
                        rules[i].name, dtype_size(t->dtype));
    }
    for (uint64_t left = planned->present; left; left &= left - 1) {
        int i = first_of(left);
        if (!(rules[i].role & OUTPUT)) continue;
        if (planned->repeats >> i & 1)
            return fail(RAPT_INVALID, "%s: %s has elements that share memory (check its strides)",
                        function, rules[i].name);
        for (uint64_t others = planned->present; others; others &= others - 1) {
            int j = first_of(others);
            if (j == i || ((rules[j].role & OUTPUT) && j < i)) continue;
            if (overlap(planned, data, i, j))
                return fail(RAPT_INVALID, "%s: %s overlaps %s (outputs need memory of their own)",
                            function, rules[i].name, rules[j].name);
        }
    }
    return RAPT_OK;
}

/* Not 0 where two tensors differ in more than their data. */
static uint64_t difference(const rapt_tensor *a, const rapt_tensor *b)
{
    uint64_t bits = (uint64_t)(a->dtype ^ b->dtype);
    for (int axis = 0; axis < 4; axis++)
        bits |= (uint64_t)((a->size[axis] ^ b->size[axis]) | (a->stride[axis] ^ b->stride[axis]));
    return bits;
}

/* The options behind the tensors, but for the kernel's name, which a plan has used up. */
static const struct option {
    const char *name;
    size_t offset;
} options[] = {
#define OPTION(name)                                                                               \
    {                                                                                              \
#name, offsetof(rapt_attention, name)                                                      \
    }
    OPTION(scale),       OPTION(softcap),      OPTION(causal),          OPTION(align),
    OPTION(window_left), OPTION(window_right), OPTION(batch_invariant), OPTION(kv_layout),
#undef OPTION
};
enum { OPTION_BYTES = 8, OPTION_COUNT = sizeof options / sizeof *options };
_Static_assert(offsetof(rapt_attention, scale) + (size_t)OPTION_COUNT * OPTION_BYTES +
                       sizeof(const char *) ==
                   sizeof(rapt_attention),
               "options has every option");

/* The first tensor that differs from what the plan's problem asked, or, counted from behind the tensors, option; -1:
 * none. */
static int first_difference(const struct problem *planned, const rapt_attention *a)
{
    const rapt_attention *b = &planned->asked;
    for (int i = 0; i < RULE_COUNT; i++) {
        const rapt_tensor *t = problem_tensor(a, i);
        if (planned->blank >> i & 1 ? filled(t) : difference(t, problem_tensor(b, i))) return i;
    }
    for (int i = 0; i < OPTION_COUNT; i++)
        if (memcmp((const char *)a + options[i].offset, (const char *)b + options[i].offset,
                   OPTION_BYTES))
            return RULE_COUNT + i;
    return -1;
}

static rapt_status fail_on_option(const struct option *option, const rapt_attention *a,
                                  const rapt_attention *b, const char *function)
{
    int64_t number[2];
    double real[2];
    for (int i = 0; i < 2; i++) {
        memcpy(&number[i], (const char *)(i ? b : a) + option->offset, OPTION_BYTES);
        memcpy(&real[i], &number[i], OPTION_BYTES);
    }
    if (option->offset < offsetof(rapt_attention, causal))
        return fail(RAPT_INVALID,
                    "%s: %s differs from the plan: %g, planned %g (only data pointers may change)",
                    function, option->name, real[0], real[1]);
    return fail(RAPT_INVALID,
                "%s: %s differs from the plan: %lld, planned %lld (only data pointers may change)",
                function, option->name, (long long)number[0], (long long)number[1]);
}

/* Sizes go first: strides that differ follow from them. */
static rapt_status fail_on_difference(const struct problem *planned, const rapt_attention *a,
                                      int which, const char *function)
{
    if (which >= RULE_COUNT)
        return fail_on_option(&options[which - RULE_COUNT], a, &planned->asked, function);
    const struct tensor_rule *rule = &rules[which];
    const rapt_tensor *t = problem_tensor(a, which), *b = problem_tensor(&planned->asked, which);
    if (t->dtype != b->dtype)
        return fail(RAPT_INVALID,
                    "%s: %s differs from the plan: dtype %s, planned %s (only data pointers may "
                    "change)",
                    function, rule->name, dtype_name(t->dtype), dtype_name(b->dtype));
    int axis = 0, strides = !memcmp(t->size, b->size, sizeof t->size);
    const int64_t *now = strides ? t->stride : t->size, *then = strides ? b->stride : b->size;
    while (now[axis] == then[axis]) axis++;
    return fail(RAPT_INVALID,
                "%s: %s differs from the plan: %s %lld on its %s axis, planned %lld (only data "
                "pointers may change)",
                function, rule->name, strides ? "stride" : "size", (long long)now[axis],
                axis_of(rule, axis), (long long)then[axis]);
}

rapt_status params_match(const struct problem *planned, const rapt_attention *given,
                         const char *function, struct problem_data *out)
{
    rapt_attention adopted;
    const rapt_attention *a = given;
    if (!given || given->struct_size != sizeof adopted) {
        rapt_status status = params_adopt(&adopted, sizeof adopted, given, FIRST_SIZE, function);
        if (status) return status;
        a = &adopted;
    }
    int differs = first_difference(planned, a);
    if (differs >= 0) return fail_on_difference(planned, a, differs, function);
    for (int i = 0; i < RULE_COUNT; i++)
        out->of[i] = planned->present >> i & 1 ? problem_tensor(a, i)->data : NULL;
    return check_data(planned, out, function);
}

void params_complete(const struct problem *planned, const struct problem_data *data,
                     rapt_attention *out)
{
    *out = planned->a;
    for (int i = 0; i < RULE_COUNT; i++) tensor_of(out, &rules[i])->data = data->of[i];
}

static int64_t saturating_add(int64_t x, int64_t y)
{
    int64_t sum;
    return __builtin_add_overflow(x, y, &sum) ? (y < 0 ? INT64_MIN : INT64_MAX) : sum;
}

void visible_keys(const struct problem *p, int64_t query, int64_t q_length, int64_t kv_length,
                  int64_t *first, int64_t *last)
{
    int64_t position = query_position(p, query, q_length, kv_length);
    *first = 0;
    *last = kv_length;
    if (p->window_left != WINDOW_OPEN) {
        int64_t low = saturating_add(position, -p->window_left);
        if (low > *first) *first = low;
    }
    if (p->window_right != WINDOW_OPEN) {
        int64_t high = saturating_add(saturating_add(position, p->window_right), 1);
        if (high < *last) *last = high;
    }
    if (*last < *first) *last = *first;
    if (*first > kv_length) *first = *last = kv_length;
}
