/* flash_decode.cu: the fused forward for few queries, every option of rapt_attention, f32
 * arithmetic; portable. TILE query rows of a KV head (queries x heads of its group) are one block's,
 * and several blocks share the keys (combine.h), so that as many blocks as the device can hold read K
 * and V from memory once, and from a cache for further tiles of rows: that is what takes time here.
 *
 * Nothing is staged: KEY_LANES neighbouring lanes hold a key, RUNS runs of 8 channels each, for K, V
 * and the output alike. Each such group of lanes goes through keys of its own, AHEAD at a time, with
 * a softmax of its own; groups meet at the end. Q lies in shared memory as f32, and then what waves
 * pass to each other. D = DV: the most channels the row serves.
 */
#include "combine.h"
#include "score_change.h"

enum {
    TILE = BLOCK_ROWS, /* query rows of a block */
    KEY_LANES = D < 128 ? D / 8 : 16,
    RUNS = D / (8 * KEY_LANES),
    GROUPS = THREADS / KEY_LANES,
    AHEAD = KEYS_AHEAD,   /* keys of a lane at a time */
    LOADS = AHEAD * RUNS, /* runs of K, and of V */
    STEP = GROUPS * AHEAD,
    CHANNELS = 8 * RUNS, /* of a lane */
    WAVES = THREADS / WAVE,
    ROWS = 4,                     /* query rows that are worked on side by side */
    VALUES = WAVES / 2 * TILE * D /* floats that waves hand to others */
};
static_assert(D == DV && (KEY_LANES == 8 || KEY_LANES == 16) && D == 8 * KEY_LANES * RUNS &&
                  TILE % ROWS == 0,
              "a key is 8 or 16 lanes wide");
static_assert(WAVES * TILE <= THREADS && SHARED_BYTES == 4 * (VALUES + 2 * WAVES * TILE),
              "the row's shared memory holds Q, then what waves pass on");

extern __shared__ float4 shared_memory[];

/* Where K or V of one head lies: token 0 of the sequence (of page 0), channel 0, and its scale. */
struct cache {
    const char *base, *scales;
};

struct work {
    struct sequence seq;
    int b, kv_head;
    int first_row, rows; /* of the block: row r is query r / group of head r % group */
    int wide;            /* runs of 8 channels of K and V are whole, contiguous and aligned */
    struct key_range keys;
    struct cache k, v;
};

/* What this lane has of its rows. */
struct sums {
    float o[TILE][CHANNELS], m[TILE], l[TILE]; /* m in log2 units */
};

DEVICE float sum_of_key(float x)
{
    return KEY_LANES == 8 ? sum_of_8(x) : sum_of_16(x);
}

DEVICE int channel_of(int run)
{
    return 8 * (THREAD % KEY_LANES + KEY_LANES * run);
}

/* ---- Memory ---- */

/* 16 bytes at a time (i8: 8). */
DEVICE int is_wide(const struct view *v, int channels, int block)
{
    int64_t bytes = dtype_bytes(v->dtype), align = bytes == 1 ? 7 : 15;
    int64_t all = (v->stride[0] | v->stride[1] | v->stride[2]) * bytes | (int64_t)(uint64_t)v->data;
    return v->stride[3] == 1 && !(all & align) && channels % 8 == 0 && block % 8 == 0;
}

DEVICE struct cache cache_of(const struct attention_args *a, const struct view *v,
                             const struct view *scale, const struct work *w)
{
    int batch = a->page_table.data ? 0 : w->seq.kv_batch;
    struct cache c = {in_lanes(element_at(v, batch, w->kv_head, w->seq.kv_start, 0)), NULL};
    if (scale->data) c.scales = in_lanes(element_at(scale, batch, w->kv_head, w->seq.kv_start, 0));
    return c;
}

/* Where a token lies: a page and a row in it, or 0 and the token. */
struct spot {
    int64_t page;
    int row;
};

DEVICE struct spot spot_of(const struct attention_args *a, const struct work *w, int token)
{
    struct spot s = {0, token};
    if (a->page_table.data) {
        int page = a->page_shift >= 0 ? token >> a->page_shift : token / a->page_tokens;
        s.row = token - page * a->page_tokens;
        s.page = load_index(&a->page_table, w->b, page);
    }
    return s;
}

DEVICE const char *run_at(const char *base, const struct view *v, struct spot s, int channel)
{
    int64_t at = s.row * v->stride[2] + channel * v->stride[3];
    if (s.page) at += s.page * v->stride[0];
    return base + at * dtype_bytes(v->dtype);
}

/* A view of K, V or Q of one head, with its scales, for loads element by element. */
struct elements {
    struct cache of;
    const struct view *view, *scale;
    int channels, block;
};

/* Any strides, any type: the channels that there are, and zeros. */
DEVICE void gather_run(float *x, const struct elements *e, struct spot s, int channel)
{
    const char *from = run_at(e->of.base, e->view, s, channel);
    int64_t dtype = e->view->dtype, step = e->view->stride[3];
    int count = e->channels - channel;
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = 0;
    if (dtype == DTYPE_f32) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) x[i] = load_element(from, i * step, DTYPE_f32);
    } else if (dtype == DTYPE_i8) {
#pragma unroll 1
        for (int i = 0; i < 8 && i < count; i++) {
            float y = load_element(from, i * step, DTYPE_i8) *
                      LOAD(float, run_at(e->of.scales, e->scale, s, (channel + i) / e->block));
#pragma unroll
            for (int n = 0; n < 8; n++) x[n] = n == i ? y : x[n];
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < count) x[i] = load_element(from, i * step, dtype);
    }
}

/* K and V of tokens token, + GROUPS ...: one run after the other. */
DEVICE void gather(const struct attention_args *a, const struct work *w, int token, float (*x)[8])
{
#pragma unroll 1
    for (int i = 0; i < 2 * LOADS; i++) {
        int is_v = i >= LOADS, at = i % LOADS;
        struct elements e = {w->k, &a->k, &a->k_scale, a->channels, a->k_block};
        if (is_v) {
            struct elements v = {w->v, &a->v, &a->v_scale, a->v_channels, a->v_block};
            e = v;
        }
        float y[8];
        gather_run(y, &e, spot_of(a, w, smaller(token + at / RUNS * GROUPS, w->keys.end - 1)),
                   channel_of(at % RUNS));
#pragma unroll
        for (int n = 0; n < 2 * LOADS * 8; n++)
            x[n / 8][n % 8] = n / 8 == i ? y[n % 8] : x[n / 8][n % 8];
    }
}

/* A lane beyond the channels reads the first ones, which nobody uses. */
DEVICE const char *wide_run_at(const struct cache *c, const struct view *v, struct spot s,
                               int channels, int run)
{
    int channel = channel_of(run);
    return run_at(c->base, v, s, channel < channels ? channel : 0);
}

/* The scale of such a run. */
DEVICE float scale_of_run(const struct cache *c, const struct view *scale, struct spot s,
                          int channels, int block, int run)
{
    int channel = channel_of(run);
    return LOAD(float, run_at(c->scales, scale, s, channel < channels ? channel / block : 0));
}

/* All runs of K and V of AHEAD tokens are on their way before the first is unpacked. */
DEVICE void load_f32(const char *const *from, float (*x)[8])
{
    uint4 r[2 * LOADS][2];
#pragma unroll
    for (int i = 0; i < 2 * LOADS; i++)
        r[i][0] = LOAD(uint4, from[i]), r[i][1] = LOAD(uint4, from[i] + 16);
#pragma unroll
    for (int i = 0; i < 2 * LOADS; i++) {
        unpack_16_bytes(r[i][0], DTYPE_f32, x[i]);
        unpack_16_bytes(r[i][1], DTYPE_f32, x[i] + 4);
    }
}

DEVICE void load_half(const char *const *from, int64_t dtype, float (*x)[8])
{
    uint4 r[2 * LOADS];
#pragma unroll
    for (int i = 0; i < 2 * LOADS; i++) r[i] = LOAD(uint4, from[i]);
#pragma unroll
    for (int i = 0; i < 2 * LOADS; i++) unpack_16_bytes(r[i], dtype, x[i]);
}

DEVICE void load_i8(const struct attention_args *a, const struct work *w, const struct spot *s,
                    const char *const *from, float (*x)[8])
{
    uint2 r[2 * LOADS];
    float scale[2 * LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        r[i] = LOAD(uint2, from[i]), r[LOADS + i] = LOAD(uint2, from[LOADS + i]);
        scale[i] = scale_of_run(&w->k, &a->k_scale, s[i / RUNS], a->channels, a->k_block, i % RUNS);
        scale[LOADS + i] =
            scale_of_run(&w->v, &a->v_scale, s[i / RUNS], a->v_channels, a->v_block, i % RUNS);
    }
#pragma unroll
    for (int i = 0; i < 2 * LOADS * 8; i++) {
        uint32_t word = i % 8 < 4 ? r[i / 8].x : r[i / 8].y;
        x[i / 8][i % 8] = (float)((int32_t)(word << (24 - 8 * (i % 4))) >> 24) * scale[i / 8];
    }
}

DEVICE void load_wide(const struct attention_args *a, const struct work *w, const struct spot *s,
                      float (*x)[8])
{
    const char *from[2 * LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
        from[i] = wide_run_at(&w->k, &a->k, s[i / RUNS], a->channels, i % RUNS);
        from[LOADS + i] = wide_run_at(&w->v, &a->v, s[i / RUNS], a->v_channels, i % RUNS);
    }
    if (a->k.dtype == DTYPE_bf16) load_half(from, DTYPE_bf16, x);
    else if (a->k.dtype == DTYPE_f16) load_half(from, DTYPE_f16, x);
    else if (a->k.dtype == DTYPE_f32) load_f32(from, x);
    else load_i8(a, w, s, from, x);
}

/* Q of all rows to shared memory, f32; zeros in the rows up to a multiple of ROWS. */
DEVICE void load_queries(const struct attention_args *a, const struct work *w)
{
    int rows = (w->rows + ROWS - 1) / ROWS * ROWS;
#pragma unroll 1
    for (int i = THREAD; i < rows * (D / 8); i += THREADS) {
        int row = w->first_row + smaller(i / (D / 8), w->rows - 1),
            head = w->kv_head * a->group + row % a->group;
        struct spot s = {0, w->seq.q_start + row / a->group};
        struct elements e = {{element_at(&a->q, w->seq.q_batch, head, 0, 0),
                              element_at(&a->q_scale, w->seq.q_batch, head, 0, 0)},
                             &a->q,
                             &a->q_scale,
                             i / (D / 8) < w->rows ? a->channels : 0,
                             a->q_block};
        float x[8];
        gather_run(x, &e, s, i % (D / 8) * 8);
        shared_memory[2 * i] = float4_of(x[0], x[1], x[2], x[3]);
        shared_memory[2 * i + 1] = float4_of(x[4], x[5], x[6], x[7]);
    }
}

/* ---- Scores and softmax ---- */

/* s[i][j]: products of row first + i and key j, in all lanes of the key. */
DEVICE void products(const struct attention_args *a, float (*s)[AHEAD], int first,
                     float (*k)[CHANNELS])
{
    const float4 *q_rows =
        shared_memory + fresh(THREAD % KEY_LANES * 2); /* not kept in registers */
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float q[CHANNELS];
#pragma unroll
        for (int n = 0; n < CHANNELS / 4; n++) {
            float4 x = q_rows[((first + i) * D + n / 2 * 8 * KEY_LANES) / 4 + n % 2];
            q[4 * n] = x.x, q[4 * n + 1] = x.y, q[4 * n + 2] = x.z, q[4 * n + 3] = x.w;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            float sum = 0;
#pragma unroll
            for (int n = 0; n < RUNS; n++) {
                float part = 0;
#pragma unroll
                for (int c = 8 * n; c < 8 * n + 8; c++) part = fused(q[c], k[j][c], part);
                sum += channel_of(n) < a->channels ? part : 0;
            }
            s[i][j] = sum_of_key(sum);
        }
    }
}

/* Whether a row does not see a key; the score in log2 units in *s. */
DEVICE int finish_score(const struct attention_args *a, const struct work *w, int row, int key,
                        float *s)
{
    int at = w->first_row + row, query = at / a->group, position = query + w->seq.offset,
        head = w->kv_head * a->group + at % a->group;
    if (row >= w->rows || key >= w->keys.end || key > position + a->window_right ||
        key < position - a->window_left ||
        (a->mask.data && is_masked(a, &w->seq, head, query, key))) {
        *s = -INFINITY;
        return 1;
    }
    *s = LOG2_E * changed_score(a, &w->seq, w->b, head, *s * a->scale, query, key);
    return 0;
}

/* finish_score of ROWS x AHEAD products: each lane of a key does its share, and tells the others.
 * Returns which are hidden, as bits. */
DEVICE int finish_scores(const struct attention_args *a, const struct work *w, int first, int key,
                         float *s)
{
    int hidden = 0, lane = THREAD % WAVE, of_key = lane / KEY_LANES * KEY_LANES;
    a = AGAIN(attention_args, a);
#pragma unroll
    for (int part = 0; part < ROWS * AHEAD; part += KEY_LANES) {
        int own = part + lane - of_key;
        float x = 0;
#pragma unroll
        for (int n = part; n < part + KEY_LANES && n < ROWS * AHEAD; n++)
            if (own == n) x = s[n];
        a = AGAIN(attention_args, a);
        int hides = finish_score(a, w, first + own / AHEAD, key + own % AHEAD * GROUPS, &x);
        hidden |= (int)(lanes_with(hides) >> of_key & ((1 << KEY_LANES) - 1)) << part;
#pragma unroll
        for (int n = part; n < part + KEY_LANES && n < ROWS * AHEAD; n++)
            s[n] = lane_read(x, of_key + n - part);
    }
    return hidden;
}

/* One step of a row's online softmax; s: scores in, weights out. */
DEVICE void softmax_step(struct sums *acc, int row, float *s)
{
    float m = acc->m[row], sum = 0;
#pragma unroll
    for (int j = 0; j < AHEAD; j++) m = maximum(m, s[j]);
    float base = m == -INFINITY ? 0 : m; /* -inf - -inf must not reach exp2 */
    float keep = exp2_fast(acc->m[row] - base);
#pragma unroll
    for (int j = 0; j < AHEAD; j++) sum += s[j] = exp2_fast(s[j] - base);
    acc->m[row] = m;
    acc->l[row] = fused(acc->l[row], keep, sum);
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) acc->o[row][c] *= keep;
}

DEVICE void add_value(struct sums *acc, int row, float weight, const float *v)
{
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) acc->o[row][c] = fused(weight, v[c], acc->o[row][c]);
}

/* Keys `key`, + GROUPS ..., AHEAD of them, for all rows. apart: some row may not see some key that
 * is asked for; values of hidden keys are not touched then, be they NaN. */
DEVICE void take_keys(const struct attention_args *a, const struct work *w, struct sums *acc,
                      int key, int apart, float (*k)[CHANNELS], float (*v)[CHANNELS])
{
    a = AGAIN(attention_args, a);
    int changed = apart || a->bias.data || a->alibi.data || a->softcap > 0;
#pragma unroll
    for (int first = 0; first < TILE; first += ROWS) {
        if (first >= w->rows) break;
        float s[ROWS][AHEAD];
        int hidden = 0;
        products(a, s, first, k);
        if (changed) {
            hidden = finish_scores(a, w, first, key, s[0]);
        } else {
#pragma unroll
            for (int n = 0; n < ROWS * AHEAD; n++) s[n / AHEAD][n % AHEAD] *= a->scale_log2;
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) softmax_step(acc, first + i, s[i]);
        if (hidden) {
#pragma unroll
            for (int n = 0; n < ROWS * AHEAD; n++)
                if (!(hidden >> n & 1))
                    add_value(acc, first + n / AHEAD, s[n / AHEAD][n % AHEAD], v[n % AHEAD]);
        } else {
#pragma unroll
            for (int n = 0; n < ROWS * AHEAD; n++)
                add_value(acc, first + n / AHEAD, s[n / AHEAD][n % AHEAD], v[n % AHEAD]);
        }
    }
}

/* Whether some row of the sequence may not see some of the STEP keys from `key` on. */
DEVICE int keys_apart(const struct attention_args *a, const struct work *w, int key)
{
    int first = w->seq.offset, last = first + w->seq.q_length - 1;
    return key + STEP > w->keys.end || a->mask.data || key + STEP - 1 > first + a->window_right ||
           key < last - a->window_left;
}

DEVICE void walk_keys(const struct attention_args *a, const struct work *w, struct sums *acc)
{
    struct spot spot[AHEAD];
    int own = THREAD / KEY_LANES;
    a = AGAIN(attention_args, a);
#pragma unroll
    for (int j = 0; j < AHEAD; j++)
        spot[j] = spot_of(a, w, smaller(w->keys.first + own + j * GROUPS, w->keys.end - 1));
#pragma unroll 1
    for (int key = w->keys.first; key < w->keys.end; key += STEP) {
        float x[2 * LOADS][8];
        a = AGAIN(attention_args, a);
        if (w->wide) load_wide(a, w, spot, x);
        else gather(a, w, key + own, x);
        a = AGAIN(attention_args, a);
#pragma unroll
        for (int j = 0; j < AHEAD; j++) /* keys past the end: the last one again, hidden */
            spot[j] = spot_of(a, w, smaller(key + STEP + own + j * GROUPS, w->keys.end - 1));
        take_keys(a, w, acc, key + own, keys_apart(a, w, key), (float(*)[CHANNELS])x,
                  (float(*)[CHANNELS])x[LOADS]);
    }
}

/* ---- Results ---- */

DEVICE float max_over_groups(float x)
{
#pragma unroll
    for (int step = KEY_LANES; step < WAVE; step *= 2) x = maximum(x, lane_xor(x, step));
    return x;
}

DEVICE float sum_over_groups(float x)
{
#pragma unroll
    for (int step = KEY_LANES; step < WAVE; step *= 2) x += lane_xor(x, step);
    return x;
}

/* All groups of lanes relative to the block's maxima, and summed up within each wave; the block's m
 * and l of row r at pairs + 2 r. */
DEVICE void meet_in_waves(struct sums *acc, float *pairs)
{
    float *own = pairs + THREAD / WAVE * 2 * TILE;
#pragma unroll
    for (int r = 0; r < TILE; r++) {
        float m = max_over_groups(acc->m[r]);
        if (THREAD % WAVE == 0) own[2 * r] = m;
    }
    block_barrier();
#pragma unroll
    for (int r = 0; r < TILE; r++) {
        float m = pairs[2 * r];
#pragma unroll
        for (int i = 1; i < WAVES; i++) m = maximum(m, pairs[2 * (i * TILE + r)]);
        float weight = exp2_fast(acc->m[r] - (m == -INFINITY ? 0 : m));
        acc->m[r] = m;
        acc->l[r] = sum_over_groups(acc->l[r] * weight);
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) acc->o[r][c] = sum_over_groups(acc->o[r][c] * weight);
    }
    block_barrier();
#pragma unroll
    for (int r = 0; r < TILE; r++)
        if (THREAD % WAVE == 0) own[2 * r] = acc->m[r], own[2 * r + 1] = acc->l[r];
}

/* Half of the waves hand their sums to the other half, until the first wave has all of them; it
 * leaves them in shared memory, [TILE][D]. */
DEVICE void meet_in_block(struct sums *acc, float *values)
{
    int wave = THREAD / WAVE;
#pragma unroll 1
    for (int waves = WAVES; waves > 0; waves /= 2) {
        int half = waves / 2;
        float *own = values + (wave >= half ? wave - half : wave) * TILE * D;
        if (wave >= half && wave < waves && THREAD % WAVE < KEY_LANES)
#pragma unroll
            for (int i = 0; i < TILE * CHANNELS; i++)
                own[i / CHANNELS * D + channel_of(i % CHANNELS / 8) + i % 8] =
                    acc->o[i / CHANNELS][i % CHANNELS];
        block_barrier();
        if (wave < half)
#pragma unroll
            for (int i = 0; i < TILE * CHANNELS; i++)
                acc->o[i / CHANNELS][i % CHANNELS] +=
                    own[i / CHANNELS * D + channel_of(i % CHANNELS / 8) + i % 8];
        block_barrier();
    }
}

/* One row as the block has it: to its part, or with one part to the caller's tensors. */
DEVICE void store_row(const struct attention_args *a, const struct work *w, int part, int row,
                      int channel, float m, float l, float4 x)
{
    int own = w->first_row + row, head = w->kv_head * a->group + own % a->group,
        token = w->seq.q_start + own / a->group;
    if (a->splits > 1) {
        int64_t at = partial_row(a, w->seq.q_batch, head, token);
        float *pair = partial_lse_at(a, part, at);
        if (channel < a->v_channels && !(l < 0))
            STORE(float4, partial_out_at(a, part, at, channel), x);
        if (channel == 0) {
            STORE(float, pair, m);
            STORE(float, pair + 1, l);
        }
        return;
    }
    struct total t;
    float weight = total_of_one(&t, m, l, sink_of(a, w->b, head));
    x = add_part(float4_of(0, 0, 0, 0), x, weight);
    store_result(a, w->seq.q_batch, head, token, channel, x, total_factor(&t));
    if (channel == 0) store_lse_of(a, w->seq.q_batch, head, token, &t);
}

/* What the block's shared memory holds of its rows. */
DEVICE void store_rows(const struct attention_args *a, const struct work *w, int part)
{
    const float *pairs = (const float *)shared_memory + VALUES;
#pragma unroll 1
    for (int i = fresh(THREAD); i < w->rows * (DV / 4); i += THREADS) {
        int row = i / (DV / 4);
        float l = 0;
#pragma unroll
        for (int n = 0; n < WAVES; n++) l += pairs[2 * (n * TILE + row) + 1];
        store_row(a, w, part, row, i % (DV / 4) * 4, pairs[2 * row], l, shared_memory[i]);
    }
}

/* Of a part without keys, or a sequence without: the first wave's word is the sum. */
DEVICE void leave_nothing(const struct attention_args *a)
{
    float *pairs = (float *)shared_memory + VALUES;
#pragma unroll 1
    for (int i = THREAD; i < TILE * (DV / 4); i += THREADS)
        shared_memory[i] = float4_of(0, 0, 0, 0);
    if (THREAD < WAVES * TILE) {
        pairs[2 * THREAD] = -INFINITY;
        pairs[2 * THREAD + 1] = a->splits > 1 && THREAD < TILE ? NO_KEYS : 0;
    }
    block_barrier();
}

/* Leaves the rows' sums over the block's keys in shared memory. */
DEVICE void attend(const struct attention_args *a, struct work *w)
{
    float *values = (float *)shared_memory;
    struct sums acc;
    w->wide = is_wide(&a->k, a->channels, a->k_block) && is_wide(&a->v, a->v_channels, a->v_block);
    w->k = cache_of(a, &a->k, &a->k_scale, w);
    w->v = cache_of(a, &a->v, &a->v_scale, w);
    if (READ_AGAIN) w->kv_head = fresh(w->kv_head);
#pragma unroll
    for (int r = 0; r < TILE; r++) {
        acc.m[r] = -INFINITY, acc.l[r] = 0;
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) acc.o[r][c] = 0;
    }
    load_queries(AGAIN(attention_args, a), w);
    block_barrier();
    walk_keys(a, w, &acc);
    block_barrier(); /* nobody reads Q any more */
    meet_in_waves(&acc, values + VALUES);
    meet_in_block(&acc, values);
}

DEVICE void decode_rows(const struct attention_args *a, int b, int kv_head, int tile, int part)
{
    struct work w = {};
    w.seq = sequence_of(a, b);
    w.b = b;
    w.kv_head = kv_head;
    w.first_row = tile * TILE;
    w.rows = smaller(w.seq.q_length * a->group - w.first_row, TILE);
    if (w.rows <= 0) return;
    int first = larger(0, w.seq.offset - a->window_left),
        end = smaller(w.seq.kv_length, w.seq.offset + w.seq.q_length + a->window_right);
    w.keys = keys_of_part(a, first, end, TILE_KV, part);
    if (READ_AGAIN) { /* these are from here on in addresses of lanes alone */
        w.seq.q_batch = fresh(w.seq.q_batch);
        w.seq.q_start = fresh(w.seq.q_start);
        w.b = fresh(w.b);
        part = fresh(part);
    }
    if (w.keys.first < w.keys.end) attend(a, &w);
    else leave_nothing(a);
    store_rows(AGAIN(attention_args, a), &w, part);
}

/* Tiles of the same keys are neighbours, so that all but one find them in a cache. */
KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args args)
{
    const struct attention_args *a = ARGUMENT(attention_args, args);
    int rows = a->q_tokens * a->group, packed = a->q_start.data != NULL,
        tiles = packed ? rows / TILE + a->batch : (rows + TILE - 1) / TILE, pair = BLOCK_X / tiles,
        tile = BLOCK_X % tiles, head = pair / a->splits, b = head / a->kv_heads;
    wait_for_predecessors();
    if (packed) {
        b = sequence_of_tile(a, tile, TILE);
        tile -= first_tile_of(a, b, TILE);
        if (tile < 0) return; /* of tokens before the first sequence */
    }
    decode_rows(a, b, head % a->kv_heads, tile, pair % a->splits);
}
