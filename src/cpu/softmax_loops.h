/* softmax_loops.h: score, weights and softmax of struct cpu_kernels: the part of tile_loops.h that comes between q k^T
 * and p v. */

/* ---- Scores ---- */

VEC vec score_vector(vec x, const struct cpu_score_row *r, int64_t j, int64_t n, int bias_dtype)
{
    x = v_mul(x, v_set(r->scale));
    if (r->softcap != 0) x = v_mul(v_set(r->softcap), v_tanh(v_mul(x, v_set(1 / r->softcap))));
    if (r->bias && r->bias_stride == 0)
        x = v_add(x, v_set(bias_dtype == RAPT_F32 ? *(const float *)r->bias
                                                  : load_float(r->bias, bias_dtype, 0)));
    else if (r->bias) {
        const char *p = element_at(r->bias, bias_dtype, j);
        x = v_add(x, n == LANES ? v_load(p, bias_dtype) : v_load_part(p, bias_dtype, n));
    }
    if (r->slope != 0) {
        vec distance = v_sub(v_set((float)(r->position - j)), v_iota());
        x = v_fnma(v_set(r->slope), v_abs(distance), x);
    }
    return r->mask ? TILE_HIDE(x, r->mask + j, n) : x;
}

VEC void score_as(float *s, const struct cpu_score_row *r, int64_t first, int64_t last,
                  int bias_dtype)
{
    int64_t j = first;
    for (; j + LANES <= last; j += LANES)
        v_store(s + j, RAPT_F32, score_vector(v_load(s + j, RAPT_F32), r, j, LANES, bias_dtype));
    if (j < last)
        v_store_part(
            s + j, RAPT_F32,
            score_vector(v_load_part(s + j, RAPT_F32, last - j), r, j, last - j, bias_dtype),
            last - j);
}

static void score(float *s, const struct cpu_score_row *given, int64_t first, int64_t last)
{
    struct cpu_score_row r = *given;
    int exact = r.slope == 0 ||
                (r.position - first < EXACT_INTEGERS && r.position - last > -EXACT_INTEGERS);
    if (last <= first) return;
    if (!exact || (r.mask && r.mask_stride > 1) || (r.mask && r.mask_stride < 0) ||
        (r.bias && r.bias_stride != 1 && r.bias_stride != 0)) {
        scalar_score(s, given, first, last);
        return;
    }
    if (r.mask && r.mask_stride == 0) {
        if (!r.mask[0])
            for (int64_t j = first; j < last; j++) s[j] = -INFINITY;
        if (!r.mask[0]) return;
        r.mask = NULL;
    }
    if (r.bias_dtype == RAPT_F16) score_as(s, &r, first, last, RAPT_F16);
    else if (r.bias_dtype == RAPT_BF16) score_as(s, &r, first, last, RAPT_BF16);
    else score_as(s, &r, first, last, RAPT_F32);
}

static void weights(float *s, int64_t first, int64_t last, float scale, float m, float factor)
{
    vec f = v_set(factor), c = v_set(scale), top = v_set(m);
    int64_t j = first;
    for (; j + LANES <= last; j += LANES)
        v_store(s + j, RAPT_F32, v_mul(f, v_exp2(v_mul(v_sub(v_load(s + j, RAPT_F32), top), c))));
    if (j < last)
        v_store_part(s + j, RAPT_F32,
                     v_mul(f, v_exp2(v_mul(v_sub(v_load_part(s + j, RAPT_F32, last - j), top), c))),
                     last - j);
}

/* ---- Online softmax ---- */

enum { SOFTMAX_STEP = 2 * LANES }; /* two accumulators each for the maximum and the sum */
_Static_assert(COLUMN_TILE % SOFTMAX_STEP == 0, "steps do not leave the columns that a tile owns");

/* -inf in the columns of [low, high) that lie outside [first, last); low and high are multiples of
 * SOFTMAX_STEP, and both ends of the interval lie in the outermost steps. */
VEC void hide_ends(float *s, int64_t low, int64_t high, int64_t first, int64_t last)
{
    vec hidden = v_set(-INFINITY);
    for (int64_t j = low; j < low + SOFTMAX_STEP; j += LANES)
        if (first > j)
            v_store(s + j, RAPT_F32,
                    v_keep(v_load(s + j, RAPT_F32), (int)(first - j), LANES, hidden));
    for (int64_t j = high - SOFTMAX_STEP; j < high; j += LANES)
        if (last < j + LANES)
            v_store(s + j, RAPT_F32, v_keep(v_load(s + j, RAPT_F32), 0, (int)(last - j), hidden));
}

VEC vec row_maxima(const float *s, int64_t low, int64_t high)
{
    vec m0 = v_load(s + low, RAPT_F32), m1 = v_load(s + low + LANES, RAPT_F32);
    for (int64_t j = low + SOFTMAX_STEP; j < high; j += SOFTMAX_STEP) {
        m0 = v_max(m0, v_load(s + j, RAPT_F32));
        m1 = v_max(m1, v_load(s + j + LANES, RAPT_F32));
    }
    return v_max(m0, m1);
}

/* Lane by lane of each row: the largest, or the sum. A row's bits do not depend on the rows beside
 * it: both ways add in the same order. */
VEC void reduce_rows(float *to, const vec *from, int64_t rows, int sums)
{
#ifdef TILE_TOGETHER
    _Static_assert((int)ROW_TILE <= (int)LANES, "one transposition reduces all rows");
    if (rows > ROW_TILE / 3) {
        vec x[LANES];
        for (int64_t row = 0; row < LANES; row++) x[row] = row < rows ? from[row] : v_zero();
        v_store_part(to, RAPT_F32, sums ? v_sums(x) : v_maxima(x), rows);
        return;
    }
#endif
    for (int64_t row = 0; row < rows; row++)
        to[row] = sums ? v_sum(from[row]) : v_largest(from[row]);
}

VEC void rescale(const struct cpu_softmax_tile *t, int64_t row, float m)
{
    float shrink = exp2f((t->m[row] - m) * t->scale), *o = t->o + row * t->o_stride;
    vec f = v_set(shrink);
    for (int64_t c = 0; c < t->channels; c += LANES)
        v_store(o + c, RAPT_F32, v_mul(f, v_load(o + c, RAPT_F32)));
    t->l[row] *= shrink;
}

/* The columns of a row that hold visible keys, and the steps around them; empty where last <=
 * first. */
struct row_span {
    int64_t first, last, low, high;
};

VEC struct row_span span_of(const struct cpu_softmax_tile *t, int64_t row)
{
    struct row_span x = {.first = t->row_first[row] > t->first ? t->row_first[row] : t->first,
                         .last = t->row_last[row] < t->last ? t->row_last[row] : t->last};
    x.low = x.first / SOFTMAX_STEP * SOFTMAX_STEP;
    x.high = (x.last + SOFTMAX_STEP - 1) / SOFTMAX_STEP * SOFTMAX_STEP;
    return x;
}

/* p of one row and its sum. s - m comes before the factor, so that the largest score gives exactly
 * 1 however large it is. While a row has seen no key, m is -inf and 0 stands in for it: -inf - m
 * must stay -inf. */
VEC vec row_weights(float *s, const struct row_span *x, float m, float scale)
{
    vec top = v_set(m == -INFINITY ? 0 : m), c = v_set(scale), sum0 = v_zero(), sum1 = v_zero();
    int64_t j = x->low;
#ifdef TILE_TOGETHER
    for (; j + TILE_TOGETHER * LANES <= x->high; j += TILE_TOGETHER * LANES) {
        vec p[TILE_TOGETHER];
        V_EACH(i, TILE_TOGETHER)
        p[i] = v_mul(v_sub(v_load(s + j + i * LANES, RAPT_F32), top), c);
        v_exp2_several(p, TILE_TOGETHER, 0);
        V_EACH(i, TILE_TOGETHER / 2)
        {
            sum0 = v_add(sum0, p[2 * i]);
            sum1 = v_add(sum1, p[2 * i + 1]);
            TILE_STORE(s, j + 2 * i * LANES, p[2 * i], p[2 * i + 1]);
        }
    }
#endif
    for (; j < x->high; j += SOFTMAX_STEP) {
        vec p0 = TILE_EXP2(v_mul(v_sub(v_load(s + j, RAPT_F32), top), c));
        vec p1 = TILE_EXP2(v_mul(v_sub(v_load(s + j + LANES, RAPT_F32), top), c));
        sum0 = v_add(sum0, p0);
        sum1 = v_add(sum1, p1);
        TILE_STORE(s, j, p0, p1);
    }
    return v_add(sum0, sum1);
}

/* Few keys: one vector of each row. */
static void softmax_narrow(const struct cpu_softmax_tile *t)
{
    vec hidden = v_set(-INFINITY), c = v_set(t->scale);
    for (int64_t row = 0; row < t->rows; row++) {
        struct row_span x = span_of(t, row);
        float *s = t->s + row * t->stride, m_old = t->m[row], m = m_old;
        if (x.last <= x.first) {
            TILE_CLEAR(s, t->first, t->first + SOFTMAX_STEP);
            continue;
        }
        vec a = v_keep(v_load(s + t->first, RAPT_F32), (int)(x.first - t->first),
                       (int)(x.last - t->first), hidden);
        float maximum = v_largest(a);
        if (maximum > m) m = maximum;
        vec p = TILE_EXP2(v_mul(v_sub(a, v_set(m == -INFINITY ? 0 : m)), c));
        TILE_STORE(s, t->first, p, v_zero());
        if (m > m_old && m_old > -INFINITY) rescale(t, row, m);
        t->l[row] += v_sum(p);
        t->m[row] = m;
    }
}

/* Columns of which a row fits into registers: with 16 lanes, a block of decode. */
enum { WHOLE = 4 * LANES };

/* Every row sees the same WHOLE columns. */
static int is_whole(const struct cpu_softmax_tile *t)
{
    if (t->last - t->first != WHOLE) return 0;
    for (int64_t row = 0; row < t->rows; row++)
        if (t->row_first[row] > t->first || t->row_last[row] < t->last) return 0;
    return 1;
}

/* Sums in the order of row_weights: a row has the same bits beside any others. */
static void softmax_whole(const struct cpu_softmax_tile *t)
{
    float maximum[ROW_TILE], sum[ROW_TILE];
    vec c = v_set(t->scale);
    for (int64_t row = 0; row < t->rows; row++)
        maximum[row] = v_largest(row_maxima(t->s + row * t->stride, t->first, t->last));
    for (int64_t row = 0; row < t->rows; row++) {
        float *s = t->s + row * t->stride, m = t->m[row];
        if (maximum[row] > m) m = maximum[row];
        vec x[4], top = v_set(m == -INFINITY ? 0 : m);
        V_EACH(i, 4)
        x[i] = TILE_EXP2(v_mul(v_sub(v_load(s + t->first + i * LANES, RAPT_F32), top), c));
        TILE_STORE(s, t->first, x[0], x[1]);
        TILE_STORE(s, t->first + SOFTMAX_STEP, x[2], x[3]);
        sum[row] = v_sum(v_add(v_add(x[0], x[2]), v_add(x[1], x[3])));
        maximum[row] = m;
    }
    for (int64_t row = 0; row < t->rows; row++) {
        if (maximum[row] > t->m[row] && t->m[row] > -INFINITY) rescale(t, row, maximum[row]);
        t->l[row] += sum[row];
        t->m[row] = maximum[row];
    }
}

/* All maxima first: the rows are independent, so their long reductions overlap. */
static void softmax(const struct cpu_softmax_tile *t)
{
    if (is_whole(t)) {
        softmax_whole(t);
        return;
    }
    if (t->last - t->first <= LANES) {
        softmax_narrow(t);
        return;
    }
    int64_t end = (t->last + SOFTMAX_STEP - 1) / SOFTMAX_STEP * SOFTMAX_STEP;
    float maximum[ROW_TILE], sum[ROW_TILE];
    vec lanes[ROW_TILE];
    for (int64_t row = 0; row < t->rows; row++) {
        struct row_span x = span_of(t, row);
        float *s = t->s + row * t->stride;
        lanes[row] = v_zero();
        if (x.last <= x.first) continue;
        if (x.first > x.low || x.last < x.high) hide_ends(s, x.low, x.high, x.first, x.last);
        lanes[row] = row_maxima(s, x.low, x.high);
    }
    reduce_rows(maximum, lanes, t->rows, 0);
    for (int64_t row = 0; row < t->rows; row++) {
        struct row_span x = span_of(t, row);
        float *s = t->s + row * t->stride, m_old = t->m[row], m = m_old;
        if (x.last <= x.first) {
            TILE_CLEAR(s, t->first, end);
            lanes[row] = v_zero();
            continue;
        }
        if (maximum[row] > m) m = maximum[row];
        lanes[row] = row_weights(s, &x, m, t->scale);
        TILE_CLEAR(s, t->first, x.low);
        TILE_CLEAR(s, x.high, end);
        if (m > m_old && m_old > -INFINITY) rescale(t, row, m);
        t->m[row] = m;
    }
    reduce_rows(sum, lanes, t->rows, 1);
    for (int64_t row = 0; row < t->rows; row++) t->l[row] += sum[row];
}
