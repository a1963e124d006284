/* ops_append.c: new keys and values behind those of a plain or paged cache, rotated, converted and
 * quantised on the way. */
#include "base/dtype.h"
#include "base/error.h"
#include "cpu/dtype_cases.h"
#include "cpu/ops.h"
#include "overlap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW_CHANNELS_MAX = 8192, /* of a row that is rotated or converted */
    PART_CHANNELS = 512,     /* of it at once, so that a small stack has room for them */
    AHEAD = 4096,            /* bytes: the next page */
};

struct append_job {
    const rapt_kv_append_args *args;
    const struct rotation *rotation;      /* NULL: none */
    int64_t batch, kv_heads, page_tokens; /* page_tokens 0: not paged */
    int64_t block_tokens;                 /* of an item */
    const struct row_kernels *rows;
    const rapt_device *device;
    int stream; /* past the caches */
};

/* New tokens of sequence b: [first, first + count) of k_new and v_new, and how many tokens the
 * cache holds before them. */
struct append_sequence {
    int64_t b, first, count, held;
};

static struct append_sequence append_sequence(const struct append_job *job, int64_t b)
{
    const rapt_kv_append_args *args = job->args;
    struct append_sequence s = {.b = b, .count = args->k_new.size[2]};
    if (args->q_start.dtype) {
        s.first = load_index(args->q_start.data, args->q_start.dtype, b * args->q_start.stride[0]);
        s.count =
            load_index(args->q_start.data, args->q_start.dtype, (b + 1) * args->q_start.stride[0]) -
            s.first;
    }
    if (args->kv_length.dtype)
        s.held =
            load_index(args->kv_length.data, args->kv_length.dtype, b * args->kv_length.stride[0]);
    return s;
}

static int64_t page_of(const struct append_job *job, int64_t b, int64_t token)
{
    const rapt_tensor *table = &job->args->page_table;
    return load_index(table->data, table->dtype,
                      b * table->stride[0] + token / job->page_tokens * table->stride[2]);
}

static int64_t new_position(const struct append_job *job, const struct append_sequence *s,
                            int64_t token)
{
    const rapt_tensor *position = &job->args->rope->position;
    if (!position->dtype) return s->held + token;
    int64_t batch = job->args->q_start.dtype ? 0 : s->b;
    return load_index(position->data, position->dtype,
                      batch * position->stride[0] + (s->first + token) * position->stride[2]);
}

/* ---- what the data may say ---- */

static rapt_status check_pages(const struct append_job *job, const struct append_sequence *s)
{
    int64_t end =
        job->args->page_table.stride[2] ? s->held + s->count : s->held + min64(s->count, 1);
    for (int64_t token = s->held; token < end;) {
        int64_t page = page_of(job, s->b, token);
        if (page < 0 || page >= job->args->k.size[0] || page >= job->args->v.size[0])
            return fail(RAPT_INVALID, "rapt_kv_append: page_table[%lld, %lld] is %lld (0 ... %lld)",
                        (long long)s->b, (long long)(token / job->page_tokens), (long long)page,
                        (long long)job->args->k.size[0] - 1);
        token += job->page_tokens - token % job->page_tokens;
    }
    return RAPT_OK;
}

static rapt_status check_positions(const struct append_job *job, const struct append_sequence *s)
{
    const rapt_tensor *position = &job->args->rope->position;
    int64_t differ = position->stride[2] ? s->count : min64(s->count, 1);
    rapt_status status = RAPT_OK;
    if (!job->args->rope->cos.dtype) return RAPT_OK;
    if (!position->dtype)
        return rotation_check_run(job->rotation, s->held, s->count, "rapt_kv_append");
    for (int64_t t = 0; t < differ && !status; t++)
        status = rotation_check(job->rotation, new_position(job, s, t), "rapt_kv_append");
    return status;
}

static rapt_status check_sequence(const struct append_job *job, int64_t b)
{
    const rapt_kv_append_args *args = job->args;
    struct append_sequence s = append_sequence(job, b);
    int64_t total = args->k_new.size[2],
            capacity = args->k.size[2] * (job->page_tokens ? args->page_table.size[2] : 1);
    if (s.first < 0 || s.count < 0 || s.first > total || s.count > total - s.first)
        return fail(
            RAPT_INVALID,
            "rapt_kv_append: q_start[%lld] is %lld and q_start[%lld] is %lld (rising, 0 ... %lld)",
            (long long)b, (long long)s.first, (long long)(b + 1), (long long)(s.first + s.count),
            (long long)total);
    if (s.held < 0 || s.held > capacity || s.count > capacity - s.held)
        return fail(RAPT_INVALID,
                    "rapt_kv_append: sequence %lld holds %lld tokens and gets %lld (the cache has "
                    "room for %lld)",
                    (long long)b, (long long)s.held, (long long)s.count, (long long)capacity);
    rapt_status status = job->page_tokens ? check_pages(job, &s) : RAPT_OK;
    return status || !job->rotation ? status : check_positions(job, &s);
}

/* Sequences that the index tensors may tell apart: 1 of those that are alike. */
static int64_t sequences_that_differ(const struct append_job *job)
{
    const rapt_kv_append_args *args = job->args;
    int64_t strides =
        args->q_start.stride[0] | args->kv_length.stride[0] | args->page_table.stride[0];
    if (args->rope && !args->q_start.dtype) strides |= args->rope->position.stride[0];
    return strides ? job->batch : min64(job->batch, 1);
}

/* Whether no sequence gets anything; starts that are one number tell of no token. */
static int appends_nothing(const rapt_kv_append_args *args)
{
    return (args->q_start.dtype && !args->q_start.stride[0]) ||
           (!view_has_elements(&args->k_new) && !view_has_elements(&args->v_new));
}

static rapt_status check_rows(const rapt_tensor *from, const rapt_tensor *cache, int rotated,
                              int64_t layout)
{
    int converted = from->dtype != cache->dtype || rotated || layout != RAPT_KV_STRIDED;
    if (!converted || from->size[3] <= ROW_CHANNELS_MAX) return RAPT_OK;
    return fail(
        RAPT_UNSUPPORTED,
        "rapt_kv_append: %lld channels are to be rotated, converted or blocked (at most %d)",
        (long long)from->size[3], ROW_CHANNELS_MAX);
}

/* ---- one row ---- */

struct append_target {
    const rapt_tensor *from, *cache, *scale;
    const struct rotation *rotation;
    int value; /* 0: k, 1: v */
};

/* A row: its first channels, rotated, and all of them as they were given. */
struct append_source {
    const void *rotated, *from;
    int64_t rotated_channels, rotated_dtype, dtype, step;
};

/* Channels of a row, of one kind and at most PART_CHANNELS. */
struct append_part {
    const void *data;
    int64_t dtype, step, count;
};

static struct append_part part_at(const struct append_source *s, int64_t first, int64_t end)
{
    int rotated = first < s->rotated_channels;
    if (rotated && end > s->rotated_channels) end = s->rotated_channels;
    struct append_part part = {.data = rotated ? s->rotated : s->from,
                               .dtype = rotated ? s->rotated_dtype : s->dtype,
                               .step = rotated ? 1 : s->step,
                               .count = end - first < PART_CHANNELS ? end - first : PART_CHANNELS};
    part.data = (const char *)part.data + first * part.step * (int64_t)dtype_size(part.dtype);
    return part;
}

static void part_to_floats(const struct row_kernels *rows, float *to,
                           const struct append_part *part)
{
    if (part->step == 1) {
        struct row_run run = {.to = to, .from = part->data, .rows = 1};
        rows->convert(&run, RAPT_F32, part->dtype, part->count);
        return;
    }
#define CALL(type)                                                                                 \
    for (int64_t c = 0; c < part->count; c++) to[c] = load_float(part->data, type, c * part->step)
    FLOAT_CASES(part->dtype, CALL)
#undef CALL
}

static void load_channels(const struct row_kernels *rows, float *to, const struct append_source *s,
                          int64_t first, int64_t end)
{
    for (int64_t c = first; c < end;) {
        struct append_part part = part_at(s, c, end);
        part_to_floats(rows, to + c - first, &part);
        c += part.count;
    }
}

/* A block of a row by row_scale_of, in parts. to: of channel 0 of the row. */
static void quantise_block(const struct row_kernels *rows, int8_t *to, int64_t stride, float *scale,
                           const struct append_source *s, int64_t first, int64_t end)
{
    float x[PART_CHANNELS];
    int8_t line[PART_CHANNELS];
    uint32_t bits = 0;
    for (int64_t c = first; c < end; c += PART_CHANNELS) {
        int64_t last = end - c < PART_CHANNELS ? end : c + PART_CHANNELS;
        load_channels(rows, x, s, c, last);
        uint32_t own = rows->largest(x, last - c);
        bits = own > bits ? own : bits;
    }
    struct row_scale by = row_scale_of(bits);
    *scale = by.scale;
    for (int64_t c = first; c < end; c += PART_CHANNELS) {
        int64_t last = end - c < PART_CHANNELS ? end : c + PART_CHANNELS;
        int8_t *part = stride == 1 ? to + c : line;
        if (end - first > PART_CHANNELS) load_channels(rows, x, s, c, last);
        if (by.finite) rows->integers(part, x, last - c, by.inverse);
        else memset(part, 1, (size_t)(last - c));
        for (int64_t i = c; i < last && part == line; i++) to[i * stride] = line[i - c];
    }
}

/* Channels side by side into their places of a block, from that of the first on. There is an even
 * number of them, and of values a multiple of RAPT_KV_BLOCK. */
static void scatter_part(const struct append_target *t, void *to, const void *from,
                         int64_t channels)
{
    enum { SPAN = RAPT_KV_BLOCK, PANEL = SPAN * RAPT_KV_BLOCK };
    int wide = t->cache->dtype == RAPT_F32, pairs = t->cache->dtype == RAPT_BF16;
    if (t->value && !pairs) {
        size_t size = dtype_size(t->cache->dtype);
        for (int64_t c = 0; c < channels; c += SPAN)
            memcpy((char *)to + c / SPAN * PANEL * (int64_t)size,
                   (const char *)from + c * (int64_t)size, SPAN * size);
    } else if (t->value) {
        for (int64_t c = 0; c < channels; c++)
            ((uint16_t *)to)[c / SPAN * PANEL + c % SPAN * 2] = ((const uint16_t *)from)[c];
    } else if (wide || pairs) { /* of 32 bits each: a channel, or two */
        for (int64_t c = 0; c < (pairs ? channels / 2 : channels); c++)
            memcpy((char *)to + c * RAPT_KV_BLOCK * 4, (const char *)from + c * 4, 4);
    } else {
        for (int64_t c = 0; c < channels; c++)
            ((uint16_t *)to)[c * RAPT_KV_BLOCK] = ((const uint16_t *)from)[c];
    }
}

/* Elements as they are, steps apart in elements. */
static void copy_part(void *to, int64_t to_step, const struct append_part *part)
{
    int64_t size = (int64_t)dtype_size(part->dtype);
    if (part->count == 1 || (part->step == 1 && to_step == 1))
        memcpy(to, part->data, (size_t)(part->count * size));
    else
        for (int64_t c = 0; c < part->count; c++)
            memcpy((char *)to + c * to_step * size,
                   (const char *)part->data + c * part->step * size, (size_t)size);
}

/* Channels of one kind to their places, from that of the first on. */
static void append_part(const struct row_kernels *rows, const struct append_target *t, int blocked,
                        void *to, struct append_part part)
{
    float x[PART_CHANNELS], line[PART_CHANNELS];
    if (part.dtype != t->cache->dtype) {
        struct row_run run = {.to = line, .from = x, .rows = 1};
        part_to_floats(rows, x, &part);
        rows->convert(&run, t->cache->dtype, RAPT_F32, part.count);
        part.data = line, part.dtype = t->cache->dtype, part.step = 1;
    }
    if (!blocked) {
        copy_part(to, t->cache->stride[3], &part);
        return;
    }
    if (part.step != 1) {
        copy_part(line, 1, &part);
        part.data = line;
    }
    scatter_part(t, to, part.data, part.count);
}

/* to: of channel 0. */
static void append_row(const struct row_kernels *rows, const struct append_target *t, int blocked,
                       void *to, float *scale, const void *from, const float *cosine,
                       const float *sine)
{
    int64_t channels = t->from->size[3], dtype = t->cache->dtype, stride = t->cache->stride[3];
    _Alignas(64) float rotated[2 * ROPE_PAIRS_MAX];
    struct append_source s = {
        .from = from, .dtype = t->from->dtype, .step = t->from->stride[3], .rotated = rotated};
    if (t->rotation) {
        s.rotated_channels = 2 * t->rotation->pairs;
        s.rotated_dtype = s.dtype == dtype ? dtype : RAPT_F32;
        if (s.step == 1 &&
            s.rotated_dtype != s.dtype) { /* rotated as vectors, which have one type */
            struct row_run run = {.to = rotated, .from = from, .rows = 1};
            rows->convert(&run, RAPT_F32, s.dtype, s.rotated_channels);
            from = rotated;
        }
        rotation_row(t->rotation, rotated, s.rotated_dtype, 1, from,
                     from == rotated ? RAPT_F32 : s.dtype, s.step, s.rotated_channels, cosine,
                     sine);
    }
    if (dtype == RAPT_I8) {
        int64_t blocks = t->scale->size[3], width = channels / blocks;
        for (int64_t block = 0; block < blocks; block++)
            quantise_block(rows, to, stride, scale + block * t->scale->stride[3], &s, block * width,
                           (block + 1) * width);
        return;
    }
    for (int64_t c = 0; c < channels;) {
        struct append_part part = part_at(&s, c, channels);
        int64_t at = blocked ? rapt_kv_blocked_index(t->value, dtype, 0, 0, c) : c * stride;
        append_part(rows, t, blocked, (char *)to + at * (int64_t)dtype_size(dtype), part);
        c += part.count;
    }
}

/* Where channel 0 of a token lies. */
static void *cache_row(const struct append_job *job, const struct append_target *t, int64_t outer,
                       int64_t head, int64_t inner)
{
    const rapt_tensor *cache = t->cache;
    size_t size = dtype_size(cache->dtype);
    if (job->args->kv_layout == RAPT_KV_STRIDED) return ops_row(cache, size, outer, head, inner);
    return (char *)ops_row(cache, size, outer, head, 0) +
           rapt_kv_blocked_index(t->value, cache->dtype, cache->size[3], inner, 0) * (int64_t)size;
}

/* Token and head of a sequence into the cache. */
static void append_head(const struct append_job *job, const struct append_target *t,
                        const struct append_sequence *s, int64_t token, int64_t head,
                        const float *cosine, const float *sine)
{
    int64_t at = s->held + token, outer = job->page_tokens ? page_of(job, s->b, at) : s->b;
    int64_t inner = job->page_tokens ? at % job->page_tokens : at;
    int64_t batch = job->args->q_start.dtype ? 0 : s->b;
    float *scale =
        t->cache->dtype == RAPT_I8 ? ops_row(t->scale, sizeof(float), outer, head, inner) : NULL;
    append_row(job->rows, t, job->args->kv_layout == RAPT_KV_BLOCKED,
               cache_row(job, t, outer, head, inner), scale,
               ops_row(t->from, dtype_size(t->from->dtype), batch, head, s->first + token), cosine,
               sine);
}

/* A run of rows whose channels lie side by side, and where their scales go. */
struct append_run {
    struct row_run rows;
    struct row_scales scales;
};

/* Rows of the cache's dtype: rotated, or copied at once where they follow each other without a gap. */
static void append_alike(const struct append_job *job, const struct append_target *t,
                         const struct row_run *run, const float *cosine, const float *sine)
{
    int64_t channels = t->from->size[3];
    size_t bytes = (size_t)channels * dtype_size(t->from->dtype);
    int dense = run->to_step == (int64_t)bytes && run->from_step == (int64_t)bytes;
    if (t->rotation) {
        rotation_rows(t->rotation, run, t->from->dtype, channels, cosine, sine);
        return;
    }
    for (int64_t r = 0; r < run->rows; r += dense ? run->rows : 1) {
        size_t count = dense ? bytes * (size_t)run->rows : bytes;
        char *to = (char *)run->to + r * run->to_step;
        const char *from = (const char *)run->from + r * run->from_step;
        if (run->stream && job->rows->copy_stream) job->rows->copy_stream(to, from, count);
        else memcpy(to, from, count);
    }
}

static void store_converted(const struct row_kernels *rows, const struct append_target *t,
                            const struct append_run *run, int64_t dtype)
{
    if (t->cache->dtype == RAPT_I8)
        rows->quantise(&run->rows, &run->scales, dtype, t->from->size[3]);
    else rows->convert(&run->rows, t->cache->dtype, dtype, t->from->size[3]);
}

/* Rows of another dtype than the cache's; those that are rotated pass through f32, some at a time. */
static void append_converted(const struct append_job *job, const struct append_target *t,
                             const struct append_run *run, const float *cosine, const float *sine)
{
    int64_t channels = t->from->size[3];
    if (!t->rotation) {
        store_converted(job->rows, t, run, t->from->dtype);
        return;
    }
    _Alignas(64) float x[ROTATED_FLOATS];
    struct append_run piece = *run;
    piece.rows.from = x;
    piece.rows.from_step = channels * (int64_t)sizeof *x;
    for (int64_t r = 0; r < run->rows.rows; r += piece.rows.rows) {
        piece.rows.rows =
            rotation_piece(t->rotation, x, &run->rows, r, t->from->dtype, channels, cosine, sine);
        piece.rows.to = (char *)run->rows.to + r * run->rows.to_step;
        piece.scales.first = run->scales.first + r * run->scales.row_step;
        store_converted(job->rows, t, &piece, RAPT_F32);
    }
}

/* The tokens of a head that lie in one page at once, or the heads of a token. */
static void append_runs(const struct append_job *job, const struct append_target *t,
                        const struct append_sequence *s, int64_t first, int64_t last,
                        int token_first, const float *cosine, const float *sine)
{
    int64_t size = (int64_t)dtype_size(t->from->dtype),
            to_size = (int64_t)dtype_size(t->cache->dtype),
            pairs = t->rotation ? t->rotation->pairs : 0;
    int64_t batch = job->args->q_start.dtype ? 0 : s->b, axis = token_first ? 1 : 2;
    struct append_run run = {.rows = {.to_step = t->cache->stride[axis] * to_size,
                                      .from_step = t->from->stride[axis] * size,
                                      .table_step = token_first ? 0 : pairs,
                                      .stream = job->stream},
                             .scales = {.row_step = t->scale->stride[axis],
                                        .blocks = t->scale->size[3],
                                        .block_step = t->scale->stride[3]}};
    struct row_run *rows = &run.rows;
    int alike = t->cache->dtype == t->from->dtype, computed = t->rotation || !alike;
    for (int64_t token = first, end; token < last; token = end) {
        int64_t at = s->held + token, outer = s->b, inner = at;
        end = token_first ? token + 1 : last;
        if (job->page_tokens) {
            outer = page_of(job, s->b, at);
            inner = at % job->page_tokens;
            if (end - token > job->page_tokens - inner) end = token + job->page_tokens - inner;
        }
        rows->rows = token_first ? job->kv_heads : end - token;
        for (int64_t head = 0; head < (token_first ? 1 : job->kv_heads); head++) {
            rows->to = ops_row(t->cache, (size_t)to_size, outer, head, inner);
            rows->from = ops_row(t->from, (size_t)size, batch, head, s->first + token);
            if (t->cache->dtype == RAPT_I8)
                run.scales.first = ops_row(t->scale, sizeof(float), outer, head, inner);
            rows->ahead =
                rows->stream && t->rotation && alike
                    ? ops_ahead(job->device, rows->rows * t->from->size[3] * size, head,
                                token_first ? 1 : job->kv_heads, t->from->stride[1] * size,
                                (end - token) * t->from->stride[2] * size)
                    : 0;
            if (rows->stream && computed && !rows->ahead) {
                ops_expect((const char *)rows->from + AHEAD, 1, 1);
                ops_expect((const char *)rows->to + AHEAD, 1, 1);
            }
            const float *c = cosine + (token - first) * pairs, *sn = sine + (token - first) * pairs;
            if (alike) append_alike(job, t, rows, c, sn);
            else append_converted(job, t, &run, c, sn);
        }
    }
}

/* Whether runs of rows serve. */
static int in_runs(const struct append_job *job, const struct append_target *t)
{
    int alike = t->cache->dtype == t->from->dtype;
    return t->cache->stride[3] == 1 && t->from->stride[3] == 1 &&
           job->args->kv_layout == RAPT_KV_STRIDED &&
           (alike || !t->rotation || t->from->size[3] <= ROTATED_FLOATS) && t->from->size[3];
}

/* Tokens first ... last - 1 in the order of the cache's memory. */
static void append_tokens(const struct append_job *job, const struct append_target *t,
                          const struct append_sequence *s, int64_t first, int64_t last,
                          const float *cosine, const float *sine)
{
    int64_t tokens = last - first, pairs = t->rotation ? t->rotation->pairs : 0;
    int token_first = llabs(t->cache->stride[2]) > llabs(t->cache->stride[1]);
    if (in_runs(job, t)) {
        append_runs(job, t, s, first, last, token_first, cosine, sine);
        return;
    }
    for (int64_t i = 0; i < tokens * job->kv_heads; i++) {
        int64_t head = token_first ? i % job->kv_heads : i / tokens;
        int64_t token = token_first ? i / job->kv_heads : i % tokens;
        append_head(job, t, s, first + token, head, cosine + token * pairs, sine + token * pairs);
    }
}

/* ---- the operation ---- */

enum { BLOCK_TOKENS = 32, TABLE_FLOATS = 2 * ROPE_PAIRS_MAX }; /* of an item; of cos and of sin */

/* Item: a block of token numbers of all sequences, so that any mix of lengths is shared out. */
static void append_block(const void *argument, int64_t index)
{
    const struct append_job *job = argument;
    const rapt_kv_append_args *args = job->args;
    struct append_target k = {&args->k_new, &args->k, &args->k_scale, job->rotation, 0};
    struct append_target v = {&args->v_new, &args->v, &args->v_scale, NULL, 1};
    _Alignas(64) float cosine[TABLE_FLOATS], sine[TABLE_FLOATS];
    int64_t blocks = ceil_div(args->k_new.size[2], job->block_tokens), b = index / blocks;
    struct append_sequence s = append_sequence(job, b);
    int64_t first = index % blocks * job->block_tokens;
    int64_t last = first + job->block_tokens < s.count ? first + job->block_tokens : s.count;
    int64_t position[BLOCK_TOKENS], batch = args->q_start.dtype ? 0 : s.b;
    if (first >= last || !job->kv_heads) return;
    ops_expect_lines(
        ops_row(&args->k_new, dtype_size(args->k_new.dtype), batch, 0, s.first + first),
        LINES_FIRST);
    ops_expect_lines(
        ops_row(&args->v_new, dtype_size(args->v_new.dtype), batch, 0, s.first + first),
        LINES_FIRST);
    for (int64_t i = first; i < last && job->rotation; i++)
        position[i - first] = new_position(job, &s, i);
    if (job->rotation) rotation_angles(job->rotation, position, last - first, cosine, sine);
    append_tokens(job, &k, &s, first, last, cosine, sine);
    append_tokens(job, &v, &s, first, last, cosine, sine);
}

rapt_status cpu_kv_append(rapt_device *device, const rapt_kv_append_args *args, rapt_stream stream)
{
    (void)stream;
    struct rotation rotation;
    struct append_job job = {.args = args, .kv_heads = args->k_new.size[1]};
    job.batch = args->q_start.dtype ? args->q_start.size[0] - 1 : args->k_new.size[0];
    job.page_tokens = args->page_table.dtype ? args->k.size[2] : 0;
    job.block_tokens = BLOCK_TOKENS;
    rapt_status status;
    if (args->rope) {
        rotation_prepare(&rotation, device, args->rope);
        job.rotation = &rotation;
        while (job.block_tokens > 1 && job.block_tokens * rotation.pairs > TABLE_FLOATS)
            job.block_tokens /= 2;
    }
    if ((status = check_rows(&args->k_new, &args->k, job.rotation != NULL, args->kv_layout)) ||
        (status = check_rows(&args->v_new, &args->v, 0, args->kv_layout)))
        return status;
    for (int64_t b = 0; b < sequences_that_differ(&job); b++)
        if ((status = check_sequence(&job, b))) return status;
    if (appends_nothing(args)) return RAPT_OK;
    double bytes = (double)job.batch * (double)args->k_new.size[1] * (double)args->k_new.size[2] *
                   (double)(args->k_new.size[3] + args->v_new.size[3]) *
                   (double)dtype_size(args->k_new.dtype);
    job.rows = ops_device(device)->rows;
    job.device = device;
    job.stream = bytes > STREAM_BYTES;
    ops_parallel(device, job.batch * ceil_div(args->k_new.size[2], job.block_tokens), bytes,
                 append_block, &job);
    return RAPT_OK;
}
