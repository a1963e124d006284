/* decode_heads.c: decode_qk_heads and decode_pv_heads of each level give each head the bits that decode_qk and
 * decode_pv give it alone, for every number of rows, and touch nothing else. All memory outside the rows that a call
 * may read is NaN (of i8: its scales), and outside what it may write a mark. Keys that lie equal steps apart give the
 * same bits by their first pointer alone as each by its own. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "cpu/decode.h"
#include "cpu/decode_kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
#include "numbers.h"
#endif

enum { KEYS = 168, HEADS = 18, ROWS = DECODE_HEADS_ROWS, CHANNELS = 208, GAP = 5, MARK = 12345 };
enum {
    TOKEN = 3 * (CHANNELS + GAP), /* of HEADS with few channels as well */
    O_STEP = ROWS * CHANNELS + 32,
    SCALES = CHANNELS / 32 + 2 /* of a row, and what lies between two */
};

#if defined(__x86_64__)
struct setting {
    int64_t heads, rows, channels, first, last, keys;
    int64_t turn, before; /* turn 0: keys */
    int nulls;            /* a fifth of the keys have no row */
    /* I8: channels of a scale, 0 for all; floats from the scales of a head to the next head's, 0: SCALES. */
    int64_t scale_channels, scale_step;
};

static const struct {
    const struct cpu_level *level;
    int dtype;
} cases[] = {{&cpu_levels[LEVEL_avx512], RAPT_F32},
             {&cpu_levels[LEVEL_avx512], RAPT_F16},
             {&cpu_levels[LEVEL_avx512], RAPT_BF16},
             {&cpu_levels[LEVEL_avx512_vnni], RAPT_I8},
             {&cpu_levels[LEVEL_avx512_bf16], RAPT_BF16}};

static const struct cpu_kernels *kernels;
static int dtype;
static _Alignas(64) char tokens[KEYS * TOKEN * sizeof(float)];
static float scales[KEYS * HEADS * SCALES];
static const void *rows[KEYS], *rows_of_head[KEYS];
static const float *row_scales[KEYS], *scales_of_head[KEYS];
static _Alignas(64) float q[HEADS * ROWS * CHANNELS], p[HEADS * ROWS * KEYS + 64];
static _Alignas(64) float s[2][HEADS * ROWS * KEYS + 64], o[2][HEADS * O_STEP],
    start[HEADS * O_STEP];

/* A number as the level keeps it. */
static void put(float *row, int64_t i, float x)
{
    store_float(row, kernels->pair == 2 ? RAPT_BF16 : RAPT_F32, i, x);
}

/* Floats from the scales of a token to the next one's. */
static int64_t scales_of_token(const struct setting *t)
{
    return t->scale_step == 1 ? t->heads : HEADS * SCALES;
}

static int64_t scale_step(const struct setting *t)
{
    return t->scale_step ? t->scale_step : SCALES;
}

/* What a key of the call may read; k has its scales. */
static void put_key(const struct setting *t, const struct cpu_rows *k, int64_t j)
{
    int64_t size = (int64_t)dtype_size(dtype);
    rows[j] = tokens + j * TOKEN * size;
    for (int64_t h = 0; h < t->heads; h++)
        for (int64_t c = 0; c < t->channels; c++) {
            int64_t at = j * TOKEN + h * (t->channels + GAP) + c;
            if (dtype == RAPT_I8) tokens[at] = (char)(int8_t)(127 * number());
            else store_float(tokens, dtype, at, number());
        }
    row_scales[j] = scales + j * scales_of_token(t);
    for (int64_t h = 0; h < t->heads; h++)
        for (int64_t c = 0; c < t->channels; c += k->scale_channels)
            scales[j * scales_of_token(t) + h * scale_step(t) + c / k->scale_channels] = number();
}

/* Tokens of heads (channels + GAP) elements apart, so that none is aligned. */
static struct cpu_rows make_rows(const struct setting *t)
{
    struct cpu_rows k = {.row = rows, .dtype = dtype, .channel_stride = 1};
    if (dtype == RAPT_I8) {
        k.scale = row_scales;
        k.scale_channels = t->scale_channels ? t->scale_channels : t->channels;
        k.scale_stride = 1;
    } else k.scale_channels = t->channels;
    memset(tokens, 0xff, sizeof tokens);
    memset(scales, 0xff, sizeof scales);
    for (int64_t j = 0; j < KEYS; j++) {
        rows[j] = NULL;
        row_scales[j] = NULL;
        if (j >= t->first && j < t->last && !(t->nulls && j % 5 == 2)) put_key(t, &k, j);
    }
    return k;
}

static struct cpu_rows head_rows(const struct cpu_rows *of, const struct cpu_heads *heads,
                                 int64_t h)
{
    struct cpu_rows own = *of;
    for (int64_t j = 0; j < KEYS; j++) {
        rows_of_head[j] = rows[j] ? (const char *)rows[j] + h * heads->bytes : NULL;
        scales_of_head[j] =
            rows[j] ? row_scales[j] + h * heads->scale_bytes / (int64_t)sizeof(float) : NULL;
    }
    own.row = rows_of_head;
    if (of->scale) own.scale = scales_of_head;
    return own;
}

/* Of keys equal steps apart: by the pointer of the first. */
static void forget_pointers(const struct setting *t, struct cpu_rows *k)
{
    k->step = TOKEN;
    k->scale_step = scales_of_token(t) * (int64_t)sizeof(float);
    for (int64_t j = t->first + 1; j < KEYS; j++) {
        rows[j] = NULL;
        row_scales[j] = NULL;
    }
}

static void fill(float *x, size_t count, int numbers)
{
    for (size_t i = 0; i < count; i++) x[i] = numbers ? number() : MARK;
}

static void explain(const struct setting *t, const char *what)
{
    fail_msg(
        "%s %s %s: heads %lld rows %lld channels %lld keys %lld...%lld by %lld nulls %d scales of "
        "%lld channels %lld apart",
        kernels->name, dtype_name(dtype), what, (long long)t->heads, (long long)t->rows,
        (long long)t->channels, (long long)t->first, (long long)t->last, (long long)t->keys,
        t->nulls, (long long)t->scale_channels, (long long)t->scale_step);
}

static void run_heads(const struct setting *t, const struct cpu_rows *k,
                      const struct cpu_heads *heads, int64_t first)
{
    int64_t size = (int64_t)dtype_size(dtype);
    const void *run[1] = {tokens};
    struct cpu_ahead ahead = {run, 1, TOKEN * KEYS * size, 0, TOKEN * KEYS * size, CPU_ONCE};
    struct cpu_heads of_values = *heads;
    of_values.before = t->before ? t->before - (t->first - first) : 0;
    kernels->decode_qk_heads(s[0], KEYS, q, CHANNELS, k, heads, t->rows, t->channels, t->first,
                             t->last, &ahead);
    kernels->decode_pv_heads(o[0], CHANNELS, p, KEYS, k, &of_values, t->rows, t->channels, first,
                             t->last, &ahead);
}

static void check(struct setting t)
{
    struct cpu_rows k = make_rows(&t);
    int64_t size = (int64_t)dtype_size(dtype), even = t.first & ~(int64_t)1;
    struct cpu_heads heads = {.count = t.heads,
                              .bytes = (t.channels + GAP) * size,
                              .o_step = O_STEP,
                              .keys = t.keys,
                              .turn = t.turn ? t.turn : t.keys,
                              .before = t.before,
                              .scale_bytes = scale_step(&t) * (int64_t)sizeof(float)};
    for (int64_t i = 0; i < kernels->pair * (int64_t)(sizeof q / sizeof *q); i++)
        put(q, i, number());
    if (kernels->decode_q) kernels->decode_q(q, CHANNELS, t.heads * t.rows, t.channels);
    memset(p, 0, sizeof p);
    for (int64_t r = 0; r < t.heads * t.rows; r++)
        for (int64_t j = t.first; j < t.last; j++) put(p + r * KEYS, j, rows[j] ? number() : 0);
    for (int i = 0; i < 2; i++) fill(s[i], sizeof s[i] / sizeof(float), 0);
    fill(start, sizeof start / sizeof(float), 1);
    for (int i = 0; i < 2; i++) memcpy(o[i], start, sizeof start);

    run_heads(&t, &k, &heads, even);
    for (int64_t h = 0; h < t.heads; h++) {
        struct cpu_rows own = head_rows(&k, &heads, h);
        kernels->decode_qk(s[1] + h * t.rows * KEYS, KEYS, q + h * t.rows * CHANNELS, CHANNELS,
                           &own, t.rows, t.channels, t.first, t.last, NULL);
        kernels->decode_pv(o[1] + h * O_STEP, CHANNELS, p + h * t.rows * KEYS, KEYS, &own, t.rows,
                           t.channels, even, t.last, NULL);
    }
    if (memcmp(s[0], s[1], sizeof s[0])) explain(&t, "scores");
    if (memcmp(o[0], o[1], sizeof o[0])) explain(&t, "values");
    if (!kernels->decode_q || t.nulls || t.first % 2) return;
    forget_pointers(&t, &k);
    fill(s[0], sizeof s[0] / sizeof(float), 0);
    memcpy(o[0], start, sizeof start);
    run_heads(&t, &k, &heads, t.first);
    if (memcmp(s[0], s[1], sizeof s[0])) explain(&t, "scores by steps");
    if (memcmp(o[0], o[1], sizeof o[0])) explain(&t, "values by steps");
}

/* Scales of whole rows and of blocks, of heads that lie side by side and apart. */
static void every_scale(struct setting t)
{
    check(t);
    if (dtype != RAPT_I8) return;
    t.scale_step = 1;
    check(t);
    for (t.scale_channels = 32; t.scale_channels < t.channels; t.scale_channels *= 2)
        if (t.channels % t.scale_channels == 0) {
            t.scale_step = 0;
            check(t);
        }
}

static void every_tile(void)
{
    static const int64_t channels[] = {1, 31, 32, 50, 64, 96, 128, 160, 200};
    for (int64_t n = 1; n <= ROWS; n++)
        for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
            for (int64_t keys = 2; keys <= DECODE_HEADS_KEYS; keys += 2)
                every_scale((struct setting){.heads = 2,
                                             .rows = n,
                                             .channels = channels[c],
                                             .last = 37,
                                             .keys = keys,
                                             .nulls = (int)(c % 2)});
}

static void every_range(void)
{
    for (int64_t first = 0; first < 40; first += 3)
        for (int64_t last = first + 1; last <= 40; last++)
            for (int nulls = 0; nulls < 2; nulls++)
                check((struct setting){.heads = 3,
                                       .rows = 4,
                                       .channels = 64,
                                       .first = first,
                                       .last = last,
                                       .keys = 4,
                                       .nulls = nulls});
}

/* Pages, of which the first begins before the first key, which is an odd one. */
static void every_turn(void)
{
    for (int64_t turn = 2; turn <= 24; turn += turn < 8 ? 2 : 8)
        for (int64_t before = 1; before < turn; before += 2)
            for (int64_t keys = 2; keys <= DECODE_HEADS_KEYS; keys *= 2)
                for (int64_t last = 10; last < 60; last += 7)
                    check((struct setting){.heads = 3,
                                           .rows = 3,
                                           .channels = 64,
                                           .first = 9,
                                           .last = last,
                                           .keys = keys,
                                           .turn = turn,
                                           .before = before,
                                           .nulls = (int)(last % 2)});
}

/* Past the keys that are fixed together, and the heads whose scales come at once. */
static void long_range(void)
{
    static const int64_t firsts[] = {0, 6, 7, 62, 64}, lasts[] = {65, 66, 127, 128, 129, KEYS};
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++)
        for (size_t j = 0; j < sizeof lasts / sizeof *lasts; j++)
            for (int64_t heads = 1; heads <= HEADS; heads += heads < 8 ? 7 : 5)
                for (int nulls = 0; nulls < 2; nulls++)
                    every_scale((struct setting){.heads = heads,
                                                 .rows = 4,
                                                 .channels = heads > 1 ? 24 : 192,
                                                 .first = firsts[i],
                                                 .last = lasts[j],
                                                 .keys = 8,
                                                 .nulls = nulls});
}

static void each_level(void (*check_all)(void))
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t needs = cases[i].level->needs;
        if (cpu_permitted(cpu_features() & needs) != needs) continue;
        kernels = cases[i].level->kernels;
        dtype = cases[i].dtype;
        check_all();
    }
}

static void tiles(void **state)
{
    (void)state;
    each_level(every_tile);
}

static void ranges(void **state)
{
    (void)state;
    each_level(every_range);
}

static void turns(void **state)
{
    (void)state;
    each_level(every_turn);
}

static void long_ranges(void **state)
{
    (void)state;
    each_level(long_range);
}
#endif

int main(void)
{
#if defined(__x86_64__)
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles), cmocka_unit_test(ranges),
                                       cmocka_unit_test(turns), cmocka_unit_test(long_ranges)};
    if (cpu_permitted(cpu_features() & CPU_AVX512))
        return cmocka_run_group_tests(tests, NULL, NULL);
#endif
    puts("1..0 # SKIP no level of this CPU takes several heads at once");
    return 0;
}
