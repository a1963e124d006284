/* scalar.c: the reference level: plain C for every operation, any CPU. */
#include "base/dtype.h"
#include "cpu/decode_kernels.h"
#include "cpu/scalar/scalar.h"

#include <math.h>

enum { ROW_TILE = 4, COLUMN_TILE = 16 };

static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    scalar_pack_k_panels(panels, k, first, last, channels, COLUMN_TILE, 1);
}

static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    return scalar_pack_v_panels(panels, v, first, last, channels, panel_keys, COLUMN_TILE, 1);
}

/* c[row][0 ... COLUMN_TILE) (+)= sum over k of a[row][k] b[k][.] */
static void multiply_panel(float *c, int64_t c_stride, const float *a, int64_t a_stride,
                           const float *b, int64_t rows, int64_t depth, int accumulate)
{
    for (int64_t row = 0; row < rows; row++) {
        float sum[COLUMN_TILE] = {0};
        for (int64_t j = 0; accumulate && j < COLUMN_TILE; j++) sum[j] = c[row * c_stride + j];
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < COLUMN_TILE; j++)
                sum[j] += a[row * a_stride + k] * b[k * COLUMN_TILE + j];
        for (int64_t j = 0; j < COLUMN_TILE; j++) c[row * c_stride + j] = sum[j];
    }
}

static void qk(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j += COLUMN_TILE)
        multiply_panel(s + j, s_stride, q, q_stride, (const float *)panels + j * channels, rows,
                       channels, 0);
}

static void pv(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate)
{
    for (int64_t c = 0; c < channels; c += COLUMN_TILE)
        multiply_panel(o + c, o_stride, p + first, p_stride,
                       (const float *)panels + c * panel_keys + first * COLUMN_TILE, rows,
                       last - first, accumulate);
}

void scalar_score(float *s, const struct cpu_score_row *r, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j++) {
        float x = s[j] * r->scale;
        if (r->softcap != 0) x = r->softcap * tanhf(x / r->softcap);
        if (r->bias) x += load_float(r->bias, r->bias_dtype, j * r->bias_stride);
        if (r->slope != 0) {
            int64_t distance = r->position - j;
            x -= r->slope * (float)(distance < 0 ? -distance : distance);
        }
        s[j] = r->mask && !r->mask[j * r->mask_stride] ? -INFINITY : x;
    }
}

/* One row of a tile. A row without any key so far keeps m = -inf; 0 then stands in for m, so that
 * -inf - m is -inf. */
static void softmax_row(const struct cpu_softmax_tile *t, int64_t row)
{
    float *s = t->s + row * t->stride;
    for (int64_t j = t->first; j < t->last; j++)
        if (j < t->row_first[row] || j >= t->row_last[row]) s[j] = -INFINITY;
    float m_old = t->m[row], m = m_old, sum = 0;
    for (int64_t j = t->first; j < t->last; j++)
        if (s[j] > m) m = s[j];
    float base = m == -INFINITY ? 0 : m;
    for (int64_t j = t->first; j < t->last; j++) {
        s[j] = exp2f((s[j] - base) * t->scale);
        sum += s[j];
    }
    if (m > m_old && m_old > -INFINITY) {
        float shrink = exp2f((m_old - m) * t->scale);
        for (int64_t c = 0; c < t->channels; c++) t->o[row * t->o_stride + c] *= shrink;
        t->l[row] *= shrink;
    }
    t->l[row] += sum;
    t->m[row] = m;
}

static void softmax(const struct cpu_softmax_tile *t)
{
    for (int64_t row = 0; row < t->rows; row++) softmax_row(t, row);
}

static void scalar_weights(float *s, int64_t first, int64_t last, float scale, float m, float factor)
{
    for (int64_t j = first; j < last; j++) s[j] = exp2f((s[j] - m) * scale) * factor;
}

const struct cpu_kernels cpu_scalar = {
    .name = "cpu_scalar",
    .arch = "scalar",
    .row_tile = ROW_TILE,
    .column_tile = COLUMN_TILE,
    .pair = 1,
    .load_row = scalar_load_row,
    .store_row = scalar_store_row,
    .pack_q = scalar_pack_q,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .qk = qk,
    .score = scalar_score,
    .softmax = softmax,
    .pv = pv,
    .weights = scalar_weights,
    .decode_qk = decode_qk_scalar,
    .decode_pv = decode_pv_scalar,
};
