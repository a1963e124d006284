/* oracle.c: attention in f64, straight from the formulas of rapt.h; clarity before speed. */
#include "oracle.h"
#include "base/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t tensor_offset(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    const int64_t index[4] = {i0, i1, i2, i3};
    int64_t offset = 0;
    for (int axis = 0; axis < 4; axis++)
        if (t->size[axis] != 1) offset += index[axis] * t->stride[axis];
    return offset;
}

static int64_t index_at(const rapt_tensor *t, int64_t i0, int64_t i2)
{
    return load_index(t->data, t->dtype, tensor_offset(t, i0, 0, i2, 0));
}

static int64_t sequences_of(const rapt_attention *a)
{
    return a->q_start.dtype ? a->q_start.size[0] - 1 : a->q.size[0];
}

int64_t oracle_q_length(const rapt_attention *a, int64_t sequence)
{
    if (!a->q_start.dtype) return a->q.size[2];
    return index_at(&a->q_start, sequence + 1, 0) - index_at(&a->q_start, sequence, 0);
}

int64_t oracle_kv_length(const rapt_attention *a, int64_t sequence)
{
    if (a->kv_length.dtype) return index_at(&a->kv_length, sequence, 0);
    if (a->kv_start.dtype)
        return index_at(&a->kv_start, sequence + 1, 0) - index_at(&a->kv_start, sequence, 0);
    if (a->page_table.dtype) return a->page_table.size[2] * a->k.size[2];
    return a->k.size[2];
}

int64_t oracle_offset(const rapt_attention *a, const rapt_tensor *t, int64_t sequence, int64_t head,
                      int64_t query, int64_t channel)
{
    if (!a->q_start.dtype) return tensor_offset(t, sequence, head, query, channel);
    return tensor_offset(t, 0, head, index_at(&a->q_start, sequence, 0) + query, channel);
}

/* Where key `token` of a sequence is stored: axes 0 and 2 of k and v. */
static void locate_key(const rapt_attention *a, int64_t sequence, int64_t token, int64_t *i0,
                       int64_t *i2)
{
    *i0 = sequence;
    *i2 = token;
    if (a->page_table.dtype) {
        int64_t page = a->k.size[2];
        *i0 = index_at(&a->page_table, sequence, token / page);
        *i2 = token % page;
    } else if (a->kv_start.dtype) {
        *i0 = 0;
        *i2 = index_at(&a->kv_start, sequence, 0) + token;
    }
}

int64_t oracle_block_index(int value, int64_t dtype, int64_t token, int64_t channel)
{
    int64_t pair = dtype == RAPT_BF16 ? 2 : 1;
    if (!value) return channel / pair * (32 * pair) + token * pair + channel % pair;
    return channel / 32 * 1024 + token / pair * (32 * pair) + channel % 32 * pair + token % pair;
}

int64_t oracle_key_offset(int64_t layout, int value, const rapt_tensor *t, int64_t i0, int64_t i1,
                          int64_t i2, int64_t c)
{
    if (layout != RAPT_KV_BLOCKED) return tensor_offset(t, i0, i1, i2, c);
    return tensor_offset(t, i0, i1, i2 - i2 % 32, 0) +
           oracle_block_index(value, t->dtype, i2 % 32, c);
}

/* What 1 stands for in I8 data. */
static double load_unit(const rapt_tensor *t, const rapt_tensor *scale, int64_t i0, int64_t i1,
                        int64_t i2, int64_t c)
{
    int64_t block = t->size[3] / scale->size[3];
    return ((const float *)scale->data)[tensor_offset(scale, i0, i1, i2, c / block)];
}

/* value = data, or scale * data when the data is I8. */
static double load_value(const rapt_tensor *t, const rapt_tensor *scale, int64_t i0, int64_t i1,
                         int64_t i2, int64_t c)
{
    int64_t at = tensor_offset(t, i0, i1, i2, c);
    if (t->dtype != RAPT_I8) return load_float(t->data, t->dtype, at);
    return load_unit(t, scale, i0, i1, i2, c) * ((const int8_t *)t->data)[at];
}

/* The same for k or v. */
static double load_key(const rapt_attention *a, int value, int64_t i0, int64_t i1, int64_t i2,
                       int64_t c)
{
    const rapt_tensor *t = value ? &a->v : &a->k;
    if (a->kv_layout == RAPT_KV_STRIDED)
        return load_value(t, value ? &a->v_scale : &a->k_scale, i0, i1, i2, c);
    return load_float(t->data, t->dtype, oracle_key_offset(a->kv_layout, value, t, i0, i1, i2, c));
}

bool oracle_open(struct oracle *o, const rapt_attention *a)
{
    memset(o, 0, sizeof *o);
    o->a = a;
    o->sequences = sequences_of(a);
    o->q_heads = a->q.size[1];
    o->kv_heads = a->k.size[1];
    o->qk_channels = a->q.size[3];
    o->v_channels = a->v.size[3];
    o->scale = a->scale != 0 ? a->scale : 1 / sqrt((double)o->qk_channels);
    o->sequence = o->kv_head = -1;
    for (int64_t b = 0; b < o->sequences; b++)
        if (oracle_kv_length(a, b) > o->capacity) o->capacity = oracle_kv_length(a, b);
    o->k = malloc(sizeof(double) * (size_t)(o->capacity * o->qk_channels + 1));
    o->v = malloc(sizeof(double) * (size_t)(o->capacity * o->v_channels + 1));
    o->q = malloc(sizeof(double) * (size_t)(o->qk_channels + 1));
    if (a->v.dtype == RAPT_I8)
        o->v_unit = malloc(sizeof(double) * (size_t)(o->capacity * o->v_channels + 1));
    if (o->k && o->v && o->q && (o->v_unit || a->v.dtype != RAPT_I8)) return true;
    oracle_close(o);
    return false;
}

void oracle_close(struct oracle *o)
{
    free(o->k);
    free(o->v);
    free(o->v_unit);
    free(o->q);
    memset(o, 0, sizeof *o);
}

/* Fetches the keys and values of one sequence and KV head. */
static void load_head(struct oracle *o, int64_t sequence, int64_t kv_head)
{
    const rapt_attention *a = o->a;
    if (o->sequence == sequence && o->kv_head == kv_head) return;
    o->sequence = sequence;
    o->kv_head = kv_head;
    o->q_length = oracle_q_length(a, sequence);
    o->kv_length = oracle_kv_length(a, sequence);
    for (int64_t j = 0; j < o->kv_length; j++) {
        int64_t i0, i2;
        locate_key(a, sequence, j, &i0, &i2);
        for (int64_t c = 0; c < o->qk_channels; c++)
            o->k[j * o->qk_channels + c] = load_key(a, 0, i0, kv_head, i2, c);
        for (int64_t c = 0; c < o->v_channels; c++)
            o->v[j * o->v_channels + c] = load_key(a, 1, i0, kv_head, i2, c);
        for (int64_t c = 0; c < o->v_channels && o->v_unit; c++)
            o->v_unit[j * o->v_channels + c] = load_unit(&a->v, &a->v_scale, i0, kv_head, i2, c);
    }
}

bool oracle_row_open(struct oracle_row *row, const struct oracle *o)
{
    size_t n = (size_t)o->capacity + 1;
    memset(row, 0, sizeof *row);
    row->out = malloc(sizeof(double) * (size_t)(o->v_channels + 1));
    row->p = malloc(sizeof(double) * n);
    row->seen = malloc(n);
    row->score = malloc(sizeof(double) * n);
    row->product = malloc(sizeof(double) * n);
    row->magnitude = malloc(sizeof(double) * n);
    row->added = malloc(sizeof(double) * n);
    if (row->out && row->p && row->seen && row->score && row->product && row->magnitude &&
        row->added)
        return true;
    oracle_row_close(row);
    return false;
}

void oracle_row_close(struct oracle_row *row)
{
    free(row->out);
    free(row->p);
    free(row->seen);
    free(row->score);
    free(row->product);
    free(row->magnitude);
    free(row->added);
    memset(row, 0, sizeof *row);
}

/* Causal, window and mask; the length is the loop's own limit. */
static bool is_visible(const struct oracle *o, const struct oracle_row *row, int64_t key)
{
    const rapt_attention *a = o->a;
    int64_t position = row->query + (a->align == RAPT_TOP_LEFT ? 0 : o->kv_length - o->q_length);
    if (a->causal && key > position) return false;
    if (a->window_left > 0 && position - key > a->window_left - 1) return false;
    if (a->window_right > 0 && key - position > a->window_right - 1) return false;
    if (!a->mask.dtype) return true;
    return ((const uint8_t *)a->mask
                .data)[oracle_offset(a, &a->mask, row->sequence, row->head, row->query, key)] != 0;
}

static void score_key(const struct oracle *o, struct oracle_row *row, int64_t key)
{
    const rapt_attention *a = o->a;
    const double *k = o->k + key * o->qk_channels;
    double dot = 0, absolute = 0;
    for (int64_t c = 0; c < o->qk_channels; c++) {
        dot += o->q[c] * k[c];
        absolute += fabs(o->q[c] * k[c]);
    }
    double s = o->scale * dot;
    row->product[key] = s;
    row->magnitude[key] = fabs(o->scale) * absolute;
    row->added[key] = 0;
    if (a->softcap > 0) s = a->softcap * tanh(s / a->softcap);
    if (a->bias.dtype) {
        double bias =
            load_float(a->bias.data, a->bias.dtype,
                       oracle_offset(a, &a->bias, row->sequence, row->head, row->query, key));
        s += bias;
        row->added[key] += fabs(bias);
    }
    if (a->alibi_slope.dtype) {
        int64_t offset = a->align == RAPT_TOP_LEFT ? 0 : o->kv_length - o->q_length;
        double slope = load_float(a->alibi_slope.data, RAPT_F32,
                                  tensor_offset(&a->alibi_slope, row->sequence, row->head, 0, 0));
        double distance = fabs((double)(row->query + offset - key));
        s -= slope * distance;
        row->added[key] += fabs(slope * distance);
    }
    row->score[key] = s;
}

static void normalise(const struct oracle *o, struct oracle_row *row)
{
    row->maximum = row->sink;
    for (int64_t j = 0; j < o->kv_length; j++)
        if (row->seen[j] && (row->score[j] > row->maximum || isnan(row->score[j])))
            row->maximum = row->score[j];
    bool empty = row->maximum == -INFINITY;
    row->total = row->sink == -INFINITY ? 0 : exp(row->sink - row->maximum);
    for (int64_t j = 0; j < o->kv_length; j++) {
        row->p[j] = row->seen[j] && !empty ? exp(row->score[j] - row->maximum) : 0;
        row->total += row->p[j];
    }
    row->lse = empty ? -INFINITY : row->maximum + log(row->total);
    for (int64_t j = 0; j < o->kv_length && !empty; j++)
        if (row->seen[j]) row->p[j] /= row->total;
}

bool oracle_row(struct oracle *o, int64_t sequence, int64_t head, int64_t query,
                struct oracle_row *row)
{
    const rapt_attention *a = o->a;
    load_head(o, sequence, head / (o->q_heads / o->kv_heads));
    row->sequence = sequence;
    row->head = head;
    row->query = query;
    row->columns = o->kv_length;
    row->visible = 0;
    row->v = o->v;
    row->sink = a->sink.dtype ? load_float(a->sink.data, RAPT_F32,
                                           tensor_offset(&a->sink, sequence, head, 0, 0))
                              : -INFINITY;
    int64_t i0 = a->q_start.dtype ? 0 : sequence,
            i2 = a->q_start.dtype ? index_at(&a->q_start, sequence, 0) + query : query;
    for (int64_t c = 0; c < o->qk_channels; c++)
        o->q[c] = load_value(&a->q, &a->q_scale, i0, head, i2, c);
    for (int64_t j = 0; j < o->kv_length; j++) {
        row->seen[j] = (char)is_visible(o, row, j);
        row->score[j] = -INFINITY;
        if (!row->seen[j]) continue;
        row->visible++;
        score_key(o, row, j);
    }
    normalise(o, row);
    memset(row->out, 0, sizeof(double) * (size_t)o->v_channels);
    for (int64_t j = 0; j < o->kv_length; j++)
        for (int64_t c = 0; c < o->v_channels && row->seen[j] && row->maximum != -INFINITY; c++)
            row->out[c] += row->p[j] * o->v[j * o->v_channels + c];
    return true;
}
