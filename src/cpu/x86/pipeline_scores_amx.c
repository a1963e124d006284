/* pipeline_scores_amx.c: score options and hidden keys of a panel of scores (pipeline_scores.h). */
#include "cpu/x86/vec_avx512.h"

#include "base/dtype.h"
#include "cpu/scalar/scalar.h"
#include "cpu/vec_math.h"
#include "cpu/x86/pipeline_scores.h"

#include <math.h>

enum { PANEL = PIPELINE_PANEL };

/* The columns of a panel, from key on, that a row sees. */
static uint32_t columns_seen(const struct cpu_pipeline *t, int64_t row, int64_t key)
{
    int64_t first = t->row_first[row] - key, last = t->row_last[row] - key;
    if (last <= 0 || first >= PANEL || last <= first) return 0;
    uint32_t seen = first > 0 ? UINT32_MAX << first : UINT32_MAX;
    return last < PANEL ? seen & ~(UINT32_MAX << last) : seen;
}

/* What a panel is: rows step apart, its first key, the columns that each row sees, and the options of each. */
struct panel {
    float (*s)[PANEL];
    int64_t key;
    const struct cpu_score_row *row;
    uint32_t seen[CPU_PIPELINE_ROWS];
};

static void scale(const struct panel *x)
{
    const vec factor = v_set(x->row->scale);
    for (float *s = x->s[0]; s < x->s[CPU_PIPELINE_ROWS]; s += LANES)
        v_store(s, RAPT_F32, v_mul(v_load(s, RAPT_F32), factor));
}

static void scale_and_cap(const struct panel *x)
{
    const vec cap = v_set(x->row->softcap), inverse = v_set(1 / x->row->softcap),
              factor = v_set(x->row->scale);
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++)
        for (int64_t j = 0; j < PANEL; j += LANES) { /* two at once: each is a long chain */
            vec y = v_mul(v_mul(v_load(x->s[r] + j, RAPT_F32), factor), inverse);
            v_store(x->s[r] + j, RAPT_F32, v_mul(cap, v_tanh(y)));
        }
}

/* Of LANES keys from key on. What a row does not see may not be there to be read. */
VEC vec load_bias(const struct cpu_score_row *r, int64_t key, uint32_t seen, int dtype)
{
    __mmask16 lanes = (__mmask16)seen;
    if (!lanes) return v_zero();
    if (r->bias_stride == 0) return v_set(load_float(r->bias, dtype, 0));
    if (dtype == RAPT_F32) return _mm512_maskz_loadu_ps(lanes, (const float *)r->bias + key);
    return v_widen(_mm256_maskz_loadu_epi16(lanes, (const uint16_t *)r->bias + key), dtype);
}

VEC void add_bias_as(const struct panel *x, int dtype)
{
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++)
        for (int64_t j = 0; j < PANEL; j += LANES) {
            vec bias = load_bias(x->row + r, x->key + j, x->seen[r] >> j, dtype);
            v_store(x->s[r] + j, RAPT_F32, v_add(v_load(x->s[r] + j, RAPT_F32), bias));
        }
}

static void add_bias(const struct panel *x)
{
    if (x->row->bias_dtype == RAPT_F32) add_bias_as(x, RAPT_F32);
    else if (x->row->bias_dtype == RAPT_F16) add_bias_as(x, RAPT_F16);
    else add_bias_as(x, RAPT_BF16);
}

static void add_distances(const struct panel *x)
{
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++)
        for (int64_t j = 0; j < PANEL; j += LANES) {
            vec distance = v_sub(v_set((float)(x->row[r].position - x->key - j)), v_iota());
            v_store(x->s[r] + j, RAPT_F32,
                    v_fnma(v_set(x->row[r].slope), v_abs(distance), v_load(x->s[r] + j, RAPT_F32)));
        }
}

/* Keys that the mask hides are not seen. */
static void apply_mask(struct panel *x)
{
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++) {
        const struct cpu_score_row *row = x->row + r;
        if (!x->seen[r]) continue;
        if (row->mask_stride == 0) x->seen[r] = row->mask[0] ? x->seen[r] : 0;
        else {
            __m256i bytes = _mm256_maskz_loadu_epi8(x->seen[r], row->mask + x->key);
            x->seen[r] = _mm256_test_epi8_mask(bytes, bytes);
        }
    }
}

static void hide(const struct panel *x)
{
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++)
        for (int64_t j = 0; x->seen[r] != UINT32_MAX && j < PANEL; j += LANES) {
            vec s = v_load(x->s[r] + j, RAPT_F32); /* no masked store: loads would wait for it */
            v_store(x->s[r] + j, RAPT_F32,
                    _mm512_mask_blend_ps((__mmask16)(x->seen[r] >> j), v_set(-INFINITY), s));
        }
}

/* For any options. */
static void change_each(const struct panel *x)
{
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++) {
        struct cpu_score_row at = x->row[r];
        at.position -= x->key;
        if (at.bias)
            at.bias = (const char *)at.bias +
                      x->key * at.bias_stride * (int64_t)dtype_size(at.bias_dtype);
        if (at.mask) at.mask += x->key * at.mask_stride;
        for (int64_t j = 0; j < PANEL; j++)
            if (x->seen[r] >> j & 1) scalar_score(x->s[r], &at, j, j + 1);
    }
}

void ask_for_options_amx(const struct cpu_pipeline *t, int64_t row, int64_t panel)
{
    int64_t key = t->key0 + panel * PANEL;
    if (!t->options[row].bias && !t->options[row].mask) return;
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++) {
        const struct cpu_score_row *x = t->options + row + r;
        int64_t size = (int64_t)dtype_size(x->bias_dtype);
        const char *bias = x->bias;
        if (bias) __builtin_prefetch(bias + key * x->bias_stride * size);
        if (bias) __builtin_prefetch(bias + ((key + PANEL) * x->bias_stride - 1) * size);
        if (x->mask) __builtin_prefetch(x->mask + key * x->mask_stride);
    }
}

void change_scores_amx(const struct cpu_pipeline *t, int parts, int64_t row, int64_t panel,
                       int whole, float (*s)[PIPELINE_PANEL])
{
    struct panel x = {.s = s, .key = t->key0 + panel * PANEL};
    if (t->nonfinite_row || t->nonfinite_key)
        pipeline_score_nonfinite(t, parts, row, panel * PANEL, s[0], PANEL);
    if (whole && !t->options) return;
    for (int64_t r = 0; r < CPU_PIPELINE_ROWS; r++)
        x.seen[r] = whole ? UINT32_MAX : columns_seen(t, row + r, x.key);
    if (t->options) {
        x.row = t->options + row;
        if (t->plain_options) {
            if (x.row->softcap != 0) scale_and_cap(&x);
            else scale(&x);
            if (x.row->bias) add_bias(&x);
            if (t->has_slopes) add_distances(&x);
            if (x.row->mask) apply_mask(&x);
        } else change_each(&x);
    }
    if (!whole || (t->options && x.row->mask)) hide(&x);
}
