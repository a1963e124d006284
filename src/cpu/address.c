/* address.c: where the rows of a call lie in memory: ragged, cached and paged sequences. */
#include "base/dtype.h"
#include "cpu/cpu.h"

struct cpu_sequence sequence_at(const struct cpu_call *call, int64_t b)
{
    const struct problem *p = call->problem;
    const rapt_attention *a = call->a;
    struct cpu_sequence s = {.index = b, .q_length = p->q_tokens, .kv_length = p->kv_tokens};
    if (p->ragged_q) {
        const rapt_tensor *t = &a->q_start;
        s.q_first = load_index(t->data, t->dtype, b * t->stride[0]);
        s.q_length = load_index(t->data, t->dtype, (b + 1) * t->stride[0]) - s.q_first;
    }
    if (p->ragged_kv) {
        const rapt_tensor *t = &a->kv_start;
        s.kv_first = load_index(t->data, t->dtype, b * t->stride[0]);
        s.kv_length = load_index(t->data, t->dtype, (b + 1) * t->stride[0]) - s.kv_first;
    }
    if (a->kv_length.dtype)
        s.kv_length = load_index(a->kv_length.data, a->kv_length.dtype, b * a->kv_length.stride[0]);
    return s;
}

void *query_row(const struct cpu_call *call, const rapt_tensor *t, const struct cpu_sequence *s,
                int64_t head, int64_t query)
{
    if (!t->dtype) return NULL;
    int64_t batch = call->problem->ragged_q ? 0 : s->index;
    int64_t element =
        batch * t->stride[0] + head * t->stride[1] + (s->q_first + query) * t->stride[2];
    return (char *)t->data + element * (int64_t)dtype_size(t->dtype);
}

float head_value(const rapt_tensor *t, int64_t b, int64_t head, float otherwise)
{
    return t->dtype ? ((const float *)t->data)[b * t->stride[0] + head * t->stride[1]] : otherwise;
}

struct cpu_rows rows_behind(const struct cpu_call *call, const rapt_tensor *t,
                            const void *const *row, const float *const *scale)
{
    int value = t == &call->a->v, pairs = t->dtype == RAPT_BF16;
    const rapt_tensor *scales = value ? &call->a->v_scale : &call->a->k_scale;
    struct cpu_rows rows = {.row = row,
                            .dtype = t->dtype,
                            .channel_stride = t->stride[3],
                            .scale = scale,
                            .scale_channels = scales->dtype ? t->size[3] / scales->size[3] : 1,
                            .scale_stride = scales->stride[3],
                            .page = call->problem->page_tokens};
    if (call->a->kv_layout == RAPT_KV_STRIDED) return rows;
    rows.channel_stride = value && pairs ? 2 : 1;
    rows.span = value ? RAPT_KV_BLOCK : pairs ? 2 : 1;
    rows.span_stride = RAPT_KV_BLOCK * (value ? (int64_t)RAPT_KV_BLOCK : rows.span);
    return rows;
}

/* Addresses of the tokens of a whole block: pairs of them step bytes apart, and the second of each so
 * many bytes past the first. */
static void whole_block(const char *at, int64_t pair, int64_t second, const void **row)
{
    for (int64_t i = 0; i < RAPT_KV_BLOCK / 2; i++) {
        row[2 * i] = at + i * pair;
        row[2 * i + 1] = at + i * pair + second;
    }
}

/* Addresses of tokens of one head of a blocked cache, or of one page of it: within a block a line of
 * equal steps, half of that from token 0 to token 2; but of V in bf16 tokens lie in pairs, the second an
 * element behind the first. */
static void block_rows(const rapt_tensor *t, int value, int64_t batch, int64_t head, int64_t token,
                       int64_t first, int64_t last, const void **row)
{
    int64_t size = (int64_t)dtype_size(t->dtype), token_pairs = value && t->dtype == RAPT_BF16;
    int64_t step = (rapt_kv_blocked_index(value, t->dtype, t->size[3], 2, 0)) * size / 2,
            odd = token_pairs ? size - step : 0;
    const char *base = (const char *)t->data + (batch * t->stride[0] + head * t->stride[1]) * size;
    while (first < last) {
        int64_t in_block = token % RAPT_KV_BLOCK, left = RAPT_KV_BLOCK - in_block;
        int64_t end = last - first < left ? last : first + left;
        const char *at = base + (token - in_block) * t->size[3] * size;
        if (end - first == RAPT_KV_BLOCK) {
            whole_block(at, 2 * step, step + odd, row + first);
            first = end;
            token += RAPT_KV_BLOCK;
            continue;
        }
        for (; first < end; first++, token++, in_block++)
            row[first] = at + in_block * step + (in_block & 1) * odd;
    }
}

/* Addresses of tokens in a plain or ragged tensor, or in one page: a line of equal steps. */
static void step_rows(const rapt_tensor *t, int64_t batch, int64_t head, int64_t token,
                      int64_t first, int64_t last, const void **row)
{
    int64_t size = (int64_t)dtype_size(t->dtype), step = t->stride[2] * size;
    const char *at = (const char *)t->data +
                     (batch * t->stride[0] + head * t->stride[1] + token * t->stride[2]) * size;
    int64_t j = first;
    for (; j + 4 <= last; j += 4, at += 4 * step) {
        row[j] = at;
        row[j + 1] = at + step;
        row[j + 2] = at + 2 * step;
        row[j + 3] = at + 3 * step;
    }
    for (; j < last; j++, at += step) row[j] = at;
}

/* The same for every page that keys key0 + first ... key0 + last - 1 touch. */
static void page_rows(const struct cpu_call *call, const rapt_tensor *t, int64_t b, int64_t head,
                      int64_t key0, int64_t first, int64_t last, const void **row)
{
    const rapt_tensor *table = &call->a->page_table;
    int64_t page_tokens = call->problem->page_tokens;
    for (int64_t j = first; j < last;) {
        int64_t token = key0 + j, page = token / page_tokens, offset = token % page_tokens;
        int64_t end = j + page_tokens - offset < last ? j + page_tokens - offset : last;
        int64_t at = b * table->stride[0] + page * table->stride[2];
        int64_t number = load_index(table->data, table->dtype, at);
        if (call->a->kv_layout == RAPT_KV_BLOCKED)
            block_rows(t, t == &call->a->v, number, head, offset, j, end, row);
        else step_rows(t, number, head, offset, j, end, row);
        j = end;
    }
}

void key_rows(const struct cpu_call *call, const rapt_tensor *t, const struct cpu_sequence *s,
              int64_t kv_head, int64_t key0, int64_t first, int64_t last, const void **row,
              const float **scale)
{
    const rapt_tensor *scales = t == &call->a->k ? &call->a->k_scale : &call->a->v_scale;
    if (call->problem->page_tokens) {
        page_rows(call, t, s->index, kv_head, key0, first, last, row);
        if (scale)
            page_rows(call, scales, s->index, kv_head, key0, first, last, (const void **)scale);
        return;
    }
    int64_t batch = call->problem->ragged_kv ? 0 : s->index, token = s->kv_first + key0 + first;
    if (call->a->kv_layout == RAPT_KV_BLOCKED) {
        block_rows(t, t == &call->a->v, batch, kv_head, token, first, last, row);
        return;
    }
    step_rows(t, batch, kv_head, token, first, last, row);
    if (scale) step_rows(scales, batch, kv_head, token, first, last, (const void **)scale);
}
