/* ops.c: RoPE, softmax, qk, pv, causal mask, KV replication and KV append on a GPU: one row each,
 * launched straight away. */
#include "base/error.h"
#include "gpu/gpu.h"

#include <string.h>

/* Kernels count in 32 bits. */
static rapt_status check_size(const char *function, const char *name, const rapt_tensor *t)
{
    for (int axis = 0; axis < 4; axis++)
        if (t->size[axis] >= (int64_t)1 << 29)
            return fail(RAPT_UNSUPPORTED,
                        "%s: %s has size %lld on an axis (a GPU kernel takes less than 2^29)",
                        function, name, (long long)t->size[axis]);
    return RAPT_OK;
}

/* Rows of other lengths have kernels of their own: a graph that captures them later must find them
 * loaded. */
static rapt_status load_longer(struct gpu_device *device)
{
    const struct code *code;
    rapt_status status = RAPT_OK;
    for (int i = 0; i < LONGER && !status; i++)
        if (device->longer[i]) status = modules_get(device, device->longer[i], &code);
    return status;
}

/* Launches the row of an op over e with the arguments; function names the caller in sentences.
 */
static rapt_status run(rapt_device *rapt, const char *function, enum op op, const struct extent *e,
                       void *args, rapt_stream stream)
{
    struct gpu_device *device = rapt->state;
    const struct row *row = device->op_row[op];
    if (op == OP_softmax) {
        const struct attention_args *a = args;
        row = kernels_for_rows(device, row, a->columns, a->scores.dtype);
    }
    if (!row)
        return fail(RAPT_UNSUPPORTED,
                    "%s: %s, %s, has no code object of %s (this library was built without)",
                    function, device->label, device->arch, op_name[op]);
    struct grid grid;
    int blocks = row_grid(row, e, &grid);
    if (blocks < 0)
        return fail(RAPT_UNSUPPORTED, "%s: more blocks than a launch may have (split the call)",
                    function);
    if (!blocks) return RAPT_OK;
    struct driver_scope scope;
    const struct code *code;
    rapt_status status = device->driver->enter(device, &scope);
    if (status) return status;
    status = modules_get(device, row, &code);
    if (!status && op == OP_softmax) status = load_longer(device);
    if (!status) {
        void *parameters[] = {args, NULL};
        /* Who writes a file of their own need not know that the kernel has to wait. */
        int early = (row->needs & NEED_EARLY) != 0 && !code->image;
        struct driver_launch l = {code->main,
                                  {grid.x, grid.y, grid.z},
                                  (uint32_t)row->threads,
                                  (uint32_t)row->shared,
                                  parameters,
                                  early};
        status = device->driver->launch(device, &l, stream);
    }
    device->driver->leave(device, &scope);
    return status;
}

static rapt_status fill_rope(struct rope_args *a, const char *function, const rapt_rope_args *args,
                             int64_t channels)
{
    double inverse[ROPE_PAIRS_MAX];
    int64_t pairs = args->rotary_channels / 2;
    *a = (struct rope_args){.rotary = (int32_t)args->rotary_channels,
                            .interleaved = (int32_t)args->interleaved};
    a->channels = (int32_t)channels;
    a->position = view_of(&args->position);
    a->cos = view_of(&args->cos);
    a->sin = view_of(&args->sin);
    if (args->cos.dtype) return RAPT_OK;
    if (pairs > ROPE_ARGS_PAIRS)
        return fail(RAPT_UNSUPPORTED,
                    "%s: %lld rotary channels (a GPU kernel takes at most %d; give cos and sin)",
                    function, (long long)args->rotary_channels, 2 * ROPE_ARGS_PAIRS);
    rope_frequencies(args, args->rotary_channels, inverse, &a->magnitude);
    memcpy(a->inverse, inverse, (size_t)pairs * sizeof *inverse);
    return RAPT_OK;
}

rapt_status gpu_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream)
{
    struct rope_args a;
    rapt_status status = check_size("rapt_rope", "x", &args->x);
    if (!status) status = fill_rope(&a, "rapt_rope", args, args->x.size[3]);
    if (status) return status;
    a.x = view_of(&args->x);
    a.out = view_of(&args->out);
    a.batch = (int32_t)args->x.size[0];
    a.heads = (int32_t)args->x.size[1];
    a.tokens = (int32_t)args->x.size[2];
    struct extent e = {.batch = a.batch,
                       .q_heads = a.heads,
                       .q_tokens = a.tokens,
                       .rows = args->x.size[3] ? args->x.size[0] * args->x.size[1] * args->x.size[2]
                                               : 0};
    return run(device, "rapt_rope", OP_rope, &e, &a, stream);
}

/* What qk, pv, softmax and causal_mask share: no window, length or option unless set afterwards. */
static struct attention_args plain_args(const rapt_device *rapt, const int64_t scores[4],
                                        int64_t kv_heads)
{
    const struct gpu_device *device = rapt->state;
    struct attention_args a = {
        .batch = (int32_t)scores[0],
        .q_heads = (int32_t)scores[1],
        .kv_heads = (int32_t)kv_heads,
        .group = kv_heads ? (int32_t)(scores[1] / kv_heads) : 1,
        .q_tokens = (int32_t)scores[2],
        .kv_tokens = (int32_t)scores[3],
        .columns = (int32_t)scores[3],
        .page_shift = -1,
        .window_left = WINDOW_LIMIT,
        .window_right = WINDOW_LIMIT,
        .splits = 1,
        .split_keys = (int32_t)scores[3],
        .scale = 1,
        .scale_log2 = 1.44269504f, /* log2(e) */
        .units = device->units,
    };
    return a;
}

static rapt_status run_scores(rapt_device *device, const char *function, enum op op,
                              struct attention_args *a, rapt_stream stream)
{
    struct extent e = extent_of(a, (int64_t)a->batch * a->q_heads * a->q_tokens);
    return run(device, function, op, &e, a, stream);
}

rapt_status gpu_softmax(rapt_device *device, const rapt_softmax_args *args, rapt_stream stream)
{
    rapt_status status = check_size("rapt_softmax", "x", &args->x);
    if (status) return status;
    if (!args->x.size[3]) return RAPT_OK; /* nothing to write */
    struct attention_args a = plain_args(device, args->x.size, args->x.size[1]);
    a.scores = view_of(&args->x);
    a.weights = view_of(&args->out);
    return run_scores(device, "rapt_softmax", OP_softmax, &a, stream);
}

rapt_status gpu_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream)
{
    rapt_status status = check_size("rapt_qk", "q", &args->q);
    if (!status) status = check_size("rapt_qk", "k", &args->k);
    if (status) return status;
    struct attention_args a = plain_args(device, args->out.size, args->k.size[1]);
    a.q = view_of(&args->q);
    a.k = view_of(&args->k);
    a.scores = view_of(&args->out);
    a.channels = (int32_t)args->q.size[3];
    a.scale = (float)args->scale;
    a.scale_log2 = (float)(args->scale * 1.4426950408889634);
    return run_scores(device, "rapt_qk", OP_qk, &a, stream);
}

rapt_status gpu_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream)
{
    rapt_status status = check_size("rapt_pv", "weights", &args->weights);
    if (!status) status = check_size("rapt_pv", "v", &args->v);
    if (status) return status;
    if (!args->out.size[3]) return RAPT_OK;
    struct attention_args a = plain_args(device, args->weights.size, args->v.size[1]);
    a.weights = view_of(&args->weights);
    a.v = view_of(&args->v);
    a.out = view_of(&args->out);
    a.v_channels = (int32_t)args->v.size[3];
    return run_scores(device, "rapt_pv", OP_pv, &a, stream);
}

rapt_status gpu_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                            rapt_stream stream)
{
    rapt_status status = check_size("rapt_causal_mask", "x", &args->x);
    if (status) return status;
    struct attention_args a = plain_args(device, args->x.size, args->x.size[1]);
    a.scores = view_of(&args->x);
    a.window_right = 0;
    a.top_left = args->align == RAPT_TOP_LEFT;
    return run_scores(device, "rapt_causal_mask", OP_causal_mask, &a, stream);
}

rapt_status gpu_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                             rapt_stream stream)
{
    rapt_status status = check_size("rapt_kv_replicate", "k_out", &args->k_out);
    if (!status) status = check_size("rapt_kv_replicate", "v_out", &args->v_out);
    if (status) return status;
    const int64_t *k = args->k.size, heads = args->k_out.size[1];
    struct kv_replicate_args a = {.k = view_of(&args->k),
                                  .v = view_of(&args->v),
                                  .k_out = view_of(&args->k_out),
                                  .v_out = view_of(&args->v_out),
                                  .batch = (int32_t)k[0],
                                  .kv_heads = (int32_t)k[1],
                                  .group = k[1] ? (int32_t)(heads / k[1]) : 1,
                                  .tokens = (int32_t)k[2],
                                  .channels = (int32_t)k[3],
                                  .v_channels = (int32_t)args->v.size[3]};
    struct extent e = {.batch = k[0],
                       .q_heads = heads,
                       .kv_heads = k[1],
                       .group = a.group,
                       .q_tokens = k[2],
                       .rows = k[0] * heads * k[2]};
    return run(device, "rapt_kv_replicate", OP_kv_replicate, &e, &a, stream);
}

static rapt_status check_append(const rapt_kv_append_args *args)
{
    const struct {
        const char *name;
        const rapt_tensor *t;
    } tensors[] = {{"k_new", &args->k_new},
                   {"v_new", &args->v_new},
                   {"k", &args->k},
                   {"q_start", &args->q_start},
                   {"page_table", &args->page_table}};
    rapt_status status = RAPT_OK;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors && !status; i++)
        status = check_size("rapt_kv_append", tensors[i].name, tensors[i].t);
    int64_t pages = args->page_table.size[2], tokens = args->k.size[2];
    if (!status && args->page_table.dtype && pages * tokens >= (int64_t)1 << 29)
        return fail(RAPT_UNSUPPORTED,
                    "rapt_kv_append: %lld pages of %lld tokens for each sequence (a GPU kernel "
                    "takes less than 2^29 tokens)",
                    (long long)pages, (long long)tokens);
    return status;
}

rapt_status gpu_kv_append(rapt_device *device, const rapt_kv_append_args *args, rapt_stream stream)
{
    const rapt_tensor *new = &args->k_new, *cache = &args->k;
    struct kv_append_args a = {.k_new = view_of(new),
                               .v_new = view_of(&args->v_new),
                               .k = view_of(cache),
                               .v = view_of(&args->v),
                               .k_scale = view_of(&args->k_scale),
                               .v_scale = view_of(&args->v_scale),
                               .kv_length = view_of(&args->kv_length),
                               .q_start = view_of(&args->q_start),
                               .page_table = view_of(&args->page_table)};
    if (args->kv_layout != RAPT_KV_STRIDED)
        return fail(RAPT_UNSUPPORTED,
                    "rapt_kv_append: kv_layout is blocked (a GPU's caches are strided)");
    rapt_status status = check_append(args);
    if (!status && args->rope)
        status = fill_rope(&a.rope, "rapt_kv_append", args->rope, new->size[3]);
    if (status) return status;
    int ragged = args->q_start.dtype != 0;
    a.batch = (int32_t)(ragged ? args->q_start.size[0] - 1 : new->size[0]);
    if (!a.batch) return RAPT_OK; /* packed tokens may be those of no sequence */
    a.kv_heads = (int32_t) new->size[1];
    a.tokens = (int32_t) new->size[2];
    a.channels = (int32_t) new->size[3];
    a.v_channels = (int32_t)args->v_new.size[3];
    a.page_tokens = args->page_table.dtype ? (int32_t)cache->size[2] : 0;
    a.page_shift = shift_of(a.page_tokens);
    a.k_block = block_of(&args->k_scale, a.channels);
    a.v_block = block_of(&args->v_scale, a.v_channels);
    struct extent e = {.batch = a.batch,
                       .q_heads = a.kv_heads,
                       .kv_heads = a.kv_heads,
                       .group = 1,
                       .q_tokens = a.tokens,
                       .rows = new->size[0] * new->size[1] * new->size[2]};
    return run(device, "rapt_kv_append", OP_kv_append, &e, &a, stream);
}
