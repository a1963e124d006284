/* problem_build.c: from a problem line to host tensors, operation by operation. */
#include "base/dtype.h"
#include "oracle.h"
#include "problem_memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum place { PLACE_SEQUENCES, PLACE_PACKED_Q, PLACE_PACKED_KV, PLACE_PAGES };

static int64_t sum_of(const struct problem_line *line,
                      int64_t (*length)(const struct problem_line *, int64_t))
{
    int64_t sum = 0;
    for (int64_t b = 0; b < line->batch; b++) sum += length(line, b);
    return sum;
}

/* The token axis of q and of what is shaped like it. */
static int64_t packed_tokens(const struct problem_line *line)
{
    return line->ragged_q ? sum_of(line, problem_q_length) + 2 * line->spare : line->q_tokens;
}

static bool add(struct problem_instance *p, rapt_tensor *t, int64_t dtype, int64_t s0, int64_t s1,
                int64_t s2, int64_t s3, unsigned role)
{
    return memory_add(p, t, dtype, (const int64_t[4]){s0, s1, s2, s3}, role);
}

/* Fills a tensor whose elements have the value of their own indices. */
static void fill(struct problem_instance *p, const rapt_tensor *t, int which)
{
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t s = 0; s < t->size[2]; s++)
                for (int64_t c = 0; c < t->size[3]; c++)
                    memory_store(t, b, h, s, c, problem_value(&p->line, which, b, h, s, c));
}

/* Fills the tokens in use of every sequence, wherever they are stored: the values depend on
 * sequence and token alone. Axes of size 1 hold what all share. */
static void fill_tokens(struct problem_instance *p, const rapt_tensor *t, int which,
                        enum place place, int64_t (*length)(const struct problem_line *, int64_t),
                        const rapt_tensor *page_table)
{
    int64_t start = place == PLACE_PACKED_Q ? p->line.spare : 0, page = p->line.page_tokens;
    for (int64_t b = 0; b < p->line.batch; b++) {
        for (int64_t token = 0; token < length(&p->line, b); token++) {
            int64_t i0 = b, i2 = token;
            if (place == PLACE_PACKED_Q || place == PLACE_PACKED_KV) i0 = 0, i2 = start + token;
            if (place == PLACE_PAGES) {
                i0 = load_index((char *)page_table->data +
                                    memory_offset(page_table, b, 0, token / page, 0),
                                page_table->dtype, 0);
                i2 = token % page;
            }
            if (t->size[0] == 1) i0 = 0;
            if (t->size[2] == 1) i2 = 0;
            for (int64_t h = 0; h < t->size[1]; h++)
                for (int64_t c = 0; c < t->size[3]; c++) {
                    double x =
                        problem_blank(&p->line, which, token, c) ? 0
                        : t->dtype == RAPT_I8
                            ? (double)(int8_t)problem_random(
                                  p->line.seed, (uint64_t)which + 70,
                                  (uint64_t)(((b * 64 + h) * 65536 + token) * 1024 + c))
                            : problem_value(&p->line, which,
                                            t->size[0] == 1 && place == PLACE_SEQUENCES ? 0 : b, h,
                                            t->size[2] == 1 ? 0 : token, c);
                    memory_store(t, i0, h, i2, c, x);
                }
        }
        start += place == PLACE_PACKED_KV ? problem_kv_capacity(&p->line, b) : length(&p->line, b);
    }
}

static bool add_starts(struct problem_instance *p, rapt_tensor *t, int64_t start,
                       int64_t (*length)(const struct problem_line *, int64_t))
{
    if (!add(p, t, p->line.index_dtype, p->line.batch + 1, 1, 1, 1, ROLE_INPUT)) return false;
    for (int64_t b = 0; b <= p->line.batch; b++) {
        memory_store(t, b, 0, 0, 0, (double)start);
        if (b < p->line.batch) start += length(&p->line, b);
    }
    return true;
}

static bool add_lengths(struct problem_instance *p, rapt_tensor *t)
{
    if (!add(p, t, p->line.index_dtype, p->line.batch, 1, 1, 1, ROLE_INPUT)) return false;
    for (int64_t b = 0; b < p->line.batch; b++)
        memory_store(t, b, 0, 0, 0, (double)problem_kv_length(&p->line, b));
    return true;
}

/* Tokens that a sequence's pages must hold: those in use, and for an append those to come. */
static int64_t paged_tokens(const struct problem_line *line, int64_t b)
{
    return problem_kv_length(line, b) + (line->op == OP_kv_append ? problem_q_length(line, b) : 0);
}

static int64_t pages_of(const struct problem_line *line, int64_t b)
{
    return (paged_tokens(line, b) + line->page_tokens - 1) / line->page_tokens;
}

/* Pages in an order scattered by a stride that is prime to their number; a few pages belong to
 * nobody. */
static bool add_page_table(struct problem_instance *p, rapt_tensor *t, int64_t *pool)
{
    const struct problem_line *line = &p->line;
    int64_t columns = (line->kv_tokens + line->page_tokens - 1) / line->page_tokens, step = 7919,
            next = 0;
    *pool = sum_of(line, pages_of) + 3;
    while (*pool % step == 0) step += 2;
    if (!add(p, t, line->index_dtype, line->batch, 1, columns, 1, ROLE_INPUT)) return false;
    for (int64_t b = 0; b < line->batch; b++)
        for (int64_t i = 0; i < pages_of(line, b); i++)
            memory_store(t, b, 0, i, 0, (double)((1 + step % *pool * next++) % *pool));
    return true;
}

/* Whether any query of the group's heads sees the key. */
static bool seen_by_any(const struct problem_instance *p, int64_t b, int64_t g, int64_t key)
{
    const struct problem_line *line = &p->line;
    const rapt_tensor *mask = &p->args.forward.mask;
    int64_t group = line->q_heads / line->kv_heads, start = line->spare, first, last;
    for (int64_t i = 0; i < b && line->ragged_q; i++) start += problem_q_length(line, i);
    for (int64_t i = 0; i < problem_q_length(line, b); i++) {
        problem_visible(line, b, i, &first, &last);
        if (key < first || key >= last) continue;
        if (!mask->dtype) return true;
        for (int64_t h = g * group; h < (g + 1) * group; h++) {
            const uint8_t *at = mask->data;
            if (at[memory_offset(mask, mask->size[0] == 1 ? 0 : b, mask->size[1] == 1 ? 0 : h,
                                 mask->size[2] == 1 ? 0 : start + i, mask->size[3] == 1 ? 0 : key)])
                return true;
        }
    }
    return false;
}

static void blank_hidden(struct problem_instance *p, const rapt_tensor *t, enum place place,
                         const rapt_tensor *page_table)
{
    int64_t start = 0, page = p->line.page_tokens;
    for (int64_t b = 0; b < p->line.batch; b++) {
        for (int64_t g = 0; g < p->line.kv_heads; g++)
            for (int64_t key = 0; key < problem_kv_length(&p->line, b); key++) {
                if (seen_by_any(p, b, g, key)) continue;
                int64_t i0 = place == PLACE_SEQUENCES ? b : 0,
                        i2 = place == PLACE_SEQUENCES ? key : start + key;
                if (place == PLACE_PAGES) {
                    i0 = load_index((char *)page_table->data +
                                        memory_offset(page_table, b, 0, key / page, 0),
                                    page_table->dtype, 0);
                    i2 = key % page;
                }
                memory_blank_row(t, i0, g, i2);
            }
        start += problem_kv_capacity(&p->line, b);
    }
}

struct storage { /* how keys and values are stored */
    enum place place;
    int64_t rows, tokens;
};

static bool add_scale(struct problem_instance *p, rapt_tensor *t, int which,
                      const rapt_tensor *data, enum place place, const rapt_tensor *page_table)
{
    const struct problem_line *line = &p->line;
    int64_t blocks = line->scale_block ? data->size[3] / line->scale_block : 1;
    unsigned axes = line->scale_axes;
    if (!add(p, t, RAPT_F32, axes & 1 ? data->size[0] : 1, axes & 2 ? data->size[1] : 1,
             axes & 4 ? data->size[2] : 1, blocks, ROLE_INPUT))
        return false;
    if (which == VALUE_Q_SCALE) fill(p, t, which);
    else if (place == PLACE_PAGES && (t->size[0] == 1 || t->size[2] == 1))
        fill(p, t, which); /* a scale per page or per row of pages has no sequence of its own */
    else fill_tokens(p, t, which, place, problem_kv_length, page_table);
    return true;
}

/* Tokens that memory for n of a sequence has room for. */
static int64_t room_for(const struct problem_line *line, int64_t n)
{
    int64_t step = line->page_tokens ? line->page_tokens : line->kv_blocked ? RAPT_KV_BLOCK : 1;
    return (n + step - 1) / step * step;
}

/* Moves the elements of a k or v, which lies as its strides say, to their places in blocks. */
static bool block_elements(const rapt_tensor *t, int value)
{
    size_t size = dtype_size(t->dtype), bytes = (size_t)(RAPT_KV_BLOCK * t->size[3]) * size;
    char *copy = malloc(bytes);
    for (int64_t b = 0; b < t->size[0] && copy; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t first = 0; first < t->size[2]; first += RAPT_KV_BLOCK) {
                char *block = (char *)t->data + memory_offset(t, b, h, first, 0);
                memcpy(copy, block, bytes);
                for (int64_t i = 0; i < RAPT_KV_BLOCK * t->size[3]; i++)
                    memcpy(block +
                               oracle_block_index(value, t->dtype, i / t->size[3], i % t->size[3]) *
                                   (int64_t)size,
                           copy + i * (int64_t)size, size);
            }
    free(copy);
    return copy;
}

static bool add_keys(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_attention *a = &p->args.forward;
    unsigned role = ROLE_INPUT | ROLE_TOKENS | ROLE_REPEAT;
    struct storage s = {PLACE_SEQUENCES, line->batch, room_for(line, line->kv_tokens)};
    if (line->ragged_kv) {
        s = (struct storage){PLACE_PACKED_KV, 1, sum_of(line, problem_kv_capacity)};
        if (!add_starts(p, &a->kv_start, 0, problem_kv_capacity)) return false;
    }
    if (line->page_tokens) {
        s = (struct storage){PLACE_PAGES, 0, line->page_tokens};
        if (!add_page_table(p, &a->page_table, &s.rows)) return false;
    }
    if (line->kv_length && !add_lengths(p, &a->kv_length)) return false;
    if (!add(p, &a->k, line->kv_dtype, s.rows, line->kv_heads, s.tokens, line->qk_channels, role) ||
        (!line->kv_shared &&
         !add(p, &a->v, line->kv_dtype, s.rows, line->kv_heads, s.tokens, line->v_channels, role)))
        return false;
    fill_tokens(p, &a->k, VALUE_K, s.place, problem_kv_length, &a->page_table);
    if (line->kv_shared) problem_share(line, a);
    else fill_tokens(p, &a->v, VALUE_V, s.place, problem_kv_length, &a->page_table);
    bool i8 = line->kv_dtype == RAPT_I8;
    if (i8 && (!add_scale(p, &a->k_scale, VALUE_K_SCALE, &a->k, s.place, &a->page_table) ||
               !add_scale(p, &a->v_scale, VALUE_V_SCALE, &a->v, s.place, &a->page_table)))
        return false;
    if (line->hidden_nan && line->scale_axes == 7) { /* integers are no NaN, their scales can be */
        blank_hidden(p, i8 ? &a->k_scale : &a->k, s.place, &a->page_table);
        if (!line->kv_shared) blank_hidden(p, i8 ? &a->v_scale : &a->v, s.place, &a->page_table);
    }
    if (!line->kv_blocked) return true;
    a->kv_layout = RAPT_KV_BLOCKED;
    return block_elements(&a->k, 0) && block_elements(&a->v, 1);
}

/* Bias, mask, slopes and sinks. */
static bool add_terms(struct problem_instance *p, int64_t rows, int64_t q_tokens, int64_t columns)
{
    const struct problem_line *line = &p->line;
    rapt_attention *a = &p->args.forward;
    unsigned bias = line->bias_axes, mask = line->mask_axes;
    int64_t sequences = line->seed % 2 ? line->batch : 1;
    if (line->bias || line->bias_own || line->bias_inf || line->bias_far || line->bias_low) {
        if (!add(p, &a->bias, line->bias_own ? line->dtype : RAPT_F32, bias & 1 ? rows : 1,
                 bias & 2 ? line->q_heads : 1, bias & 4 ? q_tokens : 1, bias & 8 ? columns : 1,
                 ROLE_INPUT | ROLE_ROWS))
            return false;
        fill(p, &a->bias, VALUE_BIAS);
    }
    if (line->mask) {
        if (!add(p, &a->mask, RAPT_U8, mask & 1 ? rows : 1, mask & 2 ? line->q_heads : 1,
                 mask & 4 ? q_tokens : 1, mask & 8 ? columns : 1, ROLE_INPUT | ROLE_ROWS))
            return false;
        fill(p, &a->mask, VALUE_MASK);
    }
    if (line->alibi) {
        if (!add(p, &a->alibi_slope, RAPT_F32, sequences, line->q_heads, 1, 1, ROLE_INPUT))
            return false;
        fill(p, &a->alibi_slope, VALUE_SLOPE);
    }
    if (line->sink || line->sink_inf || line->sink_nan) {
        if (!add(p, &a->sink, RAPT_F32, sequences, line->q_heads, 1, 1, ROLE_INPUT)) return false;
        fill(p, &a->sink, VALUE_SINK);
    }
    return true;
}

static bool build_forward(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_attention *a = &p->args.forward;
    int64_t rows = line->ragged_q ? 1 : line->batch;
    int64_t q_tokens = packed_tokens(line);
    int64_t columns = room_for(line, line->kv_tokens);
    *a = (rapt_attention){.struct_size = sizeof *a,
                          .scale = line->scale,
                          .softcap = line->softcap,
                          .causal = line->causal,
                          .align = line->align,
                          .window_left = line->window_left,
                          .window_right = line->window_right,
                          .batch_invariant = line->batch_invariant,
                          .kernel = line->kernel[0] ? line->kernel : NULL};
    if (!add(p, &a->q, line->dtype, rows, line->q_heads, q_tokens, line->qk_channels,
             ROLE_INPUT | ROLE_TOKENS) ||
        !add(p, &a->out, line->out_dtype, rows, line->q_heads, q_tokens, line->v_channels,
             ROLE_OUTPUT | ROLE_TOKENS))
        return false;
    fill_tokens(p, &a->q, VALUE_Q, line->ragged_q ? PLACE_PACKED_Q : PLACE_SEQUENCES,
                problem_q_length, NULL);
    if (line->dtype == RAPT_I8 &&
        !add_scale(p, &a->q_scale, VALUE_Q_SCALE, &a->q, PLACE_SEQUENCES, NULL))
        return false;
    if (line->ragged_q && !add_starts(p, &a->q_start, line->spare, problem_q_length)) return false;
    if (line->lse &&
        !add(p, &a->lse, RAPT_F32, rows, line->q_heads, q_tokens, 1, ROLE_OUTPUT | ROLE_ROWS))
        return false;
    if (line->weights && !add(p, &a->weights, line->weights_dtype, rows, line->q_heads, q_tokens,
                              columns, ROLE_OUTPUT | ROLE_ROWS))
        return false;
    return add_terms(p, rows, q_tokens, columns) &&
           add_keys(p); /* the mask first: blank_hidden reads it */
}

static bool build_rope_options(struct problem_instance *p, rapt_rope_args *a, int64_t batch,
                               int64_t tokens)
{
    const struct problem_line *line = &p->line;
    int64_t rotary = line->rotary ? line->rotary : line->qk_channels, positions = 512;
    a->struct_size = sizeof *a;
    a->theta = line->theta;
    a->rotary_channels = line->rotary;
    a->interleaved = line->interleaved;
    a->scaling = line->scaling;
    a->factor = line->factor;
    a->original_context = line->original_context;
    a->untruncated = line->untruncated;
    if (line->positions || line->table) {
        if (!add(p, &a->position, line->index_dtype, line->seed % 2 ? batch : 1, 1, tokens, 1,
                 ROLE_INPUT))
            return false;
        fill(p, &a->position, VALUE_POSITION);
    }
    if (!line->table) return true;
    for (int64_t b = 0; b < a->position.size[0]; b++)
        for (int64_t t = 0; t < tokens; t++)
            memory_store(&a->position, b, 0, t, 0, (double)((t * 37 + b) % positions));
    if (!add(p, &a->cos, RAPT_F32, 1, 1, positions, rotary / 2, ROLE_INPUT) ||
        !add(p, &a->sin, RAPT_F32, 1, 1, positions, rotary / 2, ROLE_INPUT))
        return false;
    for (int64_t t = 0; t < positions; t++)
        for (int64_t c = 0; c < rotary / 2;
             c++) { /* not a rotation by any theta, so that the table must be used */
            memory_store(&a->cos, 0, 0, t, c, 0.5 + cos(0.01 * (double)(t * (c + 1))));
            memory_store(&a->sin, 0, 0, t, c, 0.25 - sin(0.02 * (double)(t * (c + 1))));
        }
    return true;
}

static bool build_rope(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_rope_args *a = &p->args.rope;
    unsigned role = ROLE_TOKENS | ROLE_INPUT | (line->inplace ? ROLE_OUTPUT : 0);
    if (!build_rope_options(p, a, line->batch, line->q_tokens) ||
        !add(p, &a->x, line->dtype, line->batch, line->q_heads, line->q_tokens, line->qk_channels,
             role))
        return false;
    fill(p, &a->x, VALUE_X);
    a->out = a->x;
    return line->inplace || add(p, &a->out, line->out_dtype, line->batch, line->q_heads,
                                line->q_tokens, line->qk_channels, ROLE_TOKENS | ROLE_OUTPUT);
}

/* Rows of scores; every seventh row is all -inf and some entries are. */
static void fill_scores(struct problem_instance *p, const rapt_tensor *t)
{
    fill(p, t, VALUE_X);
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t i = 0; i < t->size[2]; i++)
                for (int64_t j = 0; j < t->size[3]; j++)
                    if ((b + h + i) % 7 == 3 ||
                        problem_random(p->line.seed, 64, (uint64_t)(i * 8191 + j)) % 5 == 0)
                        memory_store(t, b, h, i, j, -INFINITY);
}

static bool build_softmax(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_softmax_args *a = &p->args.softmax;
    unsigned role = ROLE_ROWS | ROLE_INPUT | (line->inplace ? ROLE_OUTPUT : 0);
    a->struct_size = sizeof *a;
    if (!add(p, &a->x, line->dtype, line->batch, line->q_heads, line->q_tokens, line->kv_tokens,
             role))
        return false;
    fill_scores(p, &a->x);
    a->out = a->x;
    return line->inplace || add(p, &a->out, line->out_dtype, line->batch, line->q_heads,
                                line->q_tokens, line->kv_tokens, ROLE_ROWS | ROLE_OUTPUT);
}

static bool build_qk(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_qk_args *a = &p->args.qk;
    a->struct_size = sizeof *a;
    a->scale = line->scale;
    if (!add(p, &a->q, line->dtype, line->batch, line->q_heads, line->q_tokens, line->qk_channels,
             ROLE_TOKENS | ROLE_INPUT) ||
        !add(p, &a->k, line->kv_dtype, line->batch, line->kv_heads, line->kv_tokens,
             line->qk_channels, ROLE_TOKENS | ROLE_INPUT | ROLE_REPEAT) ||
        !add(p, &a->out, line->out_dtype, line->batch, line->q_heads, line->q_tokens,
             line->kv_tokens, ROLE_ROWS | ROLE_OUTPUT))
        return false;
    fill(p, &a->q, VALUE_Q);
    fill(p, &a->k, VALUE_K);
    return true;
}

/* A value that no weight touches is NaN when the line says hidden-nan. */
static bool build_pv(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_pv_args *a = &p->args.pv;
    a->struct_size = sizeof *a;
    if (!add(p, &a->weights, line->dtype, line->batch, line->q_heads, line->q_tokens,
             line->kv_tokens, ROLE_ROWS | ROLE_INPUT) ||
        !add(p, &a->v, line->kv_dtype, line->batch, line->kv_heads, line->kv_tokens,
             line->v_channels, ROLE_TOKENS | ROLE_INPUT | ROLE_REPEAT) ||
        !add(p, &a->out, line->out_dtype, line->batch, line->q_heads, line->q_tokens,
             line->v_channels, ROLE_TOKENS | ROLE_OUTPUT))
        return false;
    fill(p, &a->weights, VALUE_WEIGHT);
    fill(p, &a->v, VALUE_V);
    for (int64_t b = 0; b < line->batch && line->hidden_nan; b++)
        for (int64_t j = 1; j < line->kv_tokens; j += 3) {
            for (int64_t h = 0; h < line->q_heads; h++)
                for (int64_t i = 0; i < line->q_tokens; i++)
                    memory_store(&a->weights, b, h, i, j, 0);
            for (int64_t g = 0; g < line->kv_heads; g++) memory_blank_row(&a->v, b, g, j);
        }
    return true;
}

static bool build_causal_mask(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_causal_mask_args *a = &p->args.causal_mask;
    a->struct_size = sizeof *a;
    a->align = line->align;
    if (!add(p, &a->x, line->dtype, line->batch, line->q_heads, line->q_tokens, line->kv_tokens,
             ROLE_ROWS | ROLE_INPUT | ROLE_OUTPUT))
        return false;
    fill(p, &a->x, VALUE_X);
    return true;
}

static bool build_kv_replicate(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_kv_replicate_args *a = &p->args.kv_replicate;
    int64_t b = line->batch, s = line->kv_tokens;
    a->struct_size = sizeof *a;
    if (!add(p, &a->k, line->dtype, b, line->kv_heads, s, line->qk_channels,
             ROLE_TOKENS | ROLE_INPUT) ||
        !add(p, &a->v, line->dtype, b, line->kv_heads, s, line->v_channels,
             ROLE_TOKENS | ROLE_INPUT) ||
        !add(p, &a->k_out, line->dtype, b, line->q_heads, s, line->qk_channels,
             ROLE_TOKENS | ROLE_OUTPUT) ||
        !add(p, &a->v_out, line->dtype, b, line->q_heads, s, line->v_channels,
             ROLE_TOKENS | ROLE_OUTPUT))
        return false;
    fill(p, &a->k, VALUE_K);
    fill(p, &a->v, VALUE_V);
    return true;
}

static bool add_cache(struct problem_instance *p, rapt_kv_append_args *a, const struct storage *s)
{
    const struct problem_line *line = &p->line;
    unsigned role = ROLE_TOKENS | ROLE_INPUT | ROLE_OUTPUT;
    int64_t block = line->scale_block;
    if (!add(p, &a->k, line->kv_dtype, s->rows, line->kv_heads, s->tokens, line->qk_channels,
             role) ||
        !add(p, &a->v, line->kv_dtype, s->rows, line->kv_heads, s->tokens, line->v_channels, role))
        return false;
    fill_tokens(p, &a->k, VALUE_K, s->place, problem_kv_length, &a->page_table);
    fill_tokens(p, &a->v, VALUE_V, s->place, problem_kv_length, &a->page_table);
    if (line->kv_blocked) {
        a->kv_layout = RAPT_KV_BLOCKED;
        return block_elements(&a->k, 0) && block_elements(&a->v, 1);
    }
    if (line->kv_dtype != RAPT_I8) return true;
    if (!add(p, &a->k_scale, RAPT_F32, s->rows, line->kv_heads, s->tokens,
             block ? line->qk_channels / block : 1, role) ||
        !add(p, &a->v_scale, RAPT_F32, s->rows, line->kv_heads, s->tokens,
             block ? line->v_channels / block : 1, role))
        return false;
    fill_tokens(p, &a->k_scale, VALUE_K_SCALE, s->place, problem_kv_length, &a->page_table);
    fill_tokens(p, &a->v_scale, VALUE_V_SCALE, s->place, problem_kv_length, &a->page_table);
    return true;
}

static bool build_kv_append(struct problem_instance *p)
{
    const struct problem_line *line = &p->line;
    rapt_kv_append_args *a = &p->args.kv_append;
    int64_t rows = line->ragged_q ? 1 : line->batch;
    int64_t tokens = packed_tokens(line);
    struct storage s = {PLACE_SEQUENCES, line->batch, room_for(line, line->kv_tokens)};
    enum place packed = line->ragged_q ? PLACE_PACKED_Q : PLACE_SEQUENCES;
    a->struct_size = sizeof *a;
    if (line->page_tokens) {
        s = (struct storage){PLACE_PAGES, 0, line->page_tokens};
        if (!add_page_table(p, &a->page_table, &s.rows)) return false;
    }
    if ((line->kv_length && !add_lengths(p, &a->kv_length)) ||
        (line->ragged_q && !add_starts(p, &a->q_start, line->spare, problem_q_length)) ||
        !add(p, &a->k_new, line->dtype, rows, line->kv_heads, tokens, line->qk_channels,
             ROLE_TOKENS | ROLE_INPUT) ||
        !add(p, &a->v_new, line->dtype, rows, line->kv_heads, tokens, line->v_channels,
             ROLE_TOKENS | ROLE_INPUT) ||
        !add_cache(p, a, &s))
        return false;
    fill_tokens(p, &a->k_new, VALUE_X, packed, problem_q_length, NULL);
    fill_tokens(p, &a->v_new, VALUE_V, packed, problem_q_length, NULL);
    if (!line->rope) return true;
    a->rope = &p->args.rope;
    return build_rope_options(p, &p->args.rope, rows, tokens);
}

bool problem_build(const struct problem_line *line, struct problem_instance *out, char *error,
                   size_t size)
{
    static bool (*const builders[])(struct problem_instance *) = {
#define BUILDER(name) build_##name,
        PROBLEM_OP_LIST(BUILDER)
#undef BUILDER
    };
    memset(out, 0, sizeof *out);
    out->line = *line;
    if (builders[line->op](out) && memory_seal(out)) return true;
    problem_free(out);
    snprintf(error, size, "its tensors do not fit into this machine's memory");
    return false;
}
