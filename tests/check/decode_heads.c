/* decode_heads.c: decode_qk_heads and decode_pv_heads of each level give each head the bits that decode_qk and
 * decode_pv give it alone, for every number of rows, and touch nothing else. All memory outside the rows that a call
 * may read is NaN, and outside what it may write a mark. */
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

enum { KEYS = 40, HEADS = 3, ROWS = DECODE_HEADS_ROWS, CHANNELS = 208, GAP = 5, MARK = 12345 };
enum { TOKEN = HEADS * (CHANNELS + GAP), O_STEP = ROWS * CHANNELS + 32 };

#if defined(__x86_64__)
struct setting {
    int64_t heads, rows, channels, first, last, keys;
    int nulls; /* a fifth of the keys have no row */
};

static const struct {
    const struct cpu_kernels *kernels;
    uint64_t needs;
    int dtype;
} levels[] = {{&cpu_avx512, CPU_AVX512, RAPT_F32},
              {&cpu_avx512, CPU_AVX512, RAPT_F16},
              {&cpu_avx512, CPU_AVX512, RAPT_BF16},
              {&cpu_avx512_bf16, CPU_AVX512 | CPU_AVX512_BF16, RAPT_BF16}};

static const struct cpu_kernels *kernels;
static int dtype;
static _Alignas(64) char tokens[KEYS * TOKEN * sizeof(float)];
static const void *rows[KEYS], *rows_of_head[KEYS];
static _Alignas(64) float q[HEADS * ROWS * CHANNELS], p[HEADS * ROWS * KEYS + 64];
static _Alignas(64) float s[2][HEADS * ROWS * KEYS + 64], o[2][HEADS * O_STEP];

static float number(void)
{
    static uint32_t seed = 1;
    seed = seed * 1664525u + 1013904223u;
    return (float)(seed >> 8) * 0x1p-23f - 1;
}

/* A number as the level keeps it. */
static void put(float *row, int64_t i, float x)
{
    store_float(row, kernels->pair == 2 ? RAPT_BF16 : RAPT_F32, i, x);
}

/* Tokens of heads (channels + GAP) elements apart, so that none is aligned. */
static struct cpu_rows make_rows(const struct setting *t)
{
    int64_t size = (int64_t)dtype_size(dtype);
    memset(tokens, 0xff, sizeof tokens);
    for (int64_t j = 0; j < KEYS; j++) {
        int used = j >= t->first && j < t->last && !(t->nulls && j % 5 == 2);
        rows[j] = used ? tokens + j * TOKEN * size : NULL;
        for (int64_t h = 0; h < t->heads && used; h++)
            for (int64_t c = 0; c < t->channels; c++)
                store_float(tokens, dtype, j * TOKEN + h * (t->channels + GAP) + c, number());
    }
    return (struct cpu_rows){.row = rows, .dtype = dtype, .channel_stride = 1};
}

static struct cpu_rows head_rows(const struct cpu_rows *of, const struct cpu_heads *heads,
                                 int64_t h)
{
    struct cpu_rows own = *of;
    for (int64_t j = 0; j < KEYS; j++)
        rows_of_head[j] = rows[j] ? (const char *)rows[j] + h * heads->bytes : NULL;
    own.row = rows_of_head;
    return own;
}

static void fill(float *x, size_t count, int numbers)
{
    for (size_t i = 0; i < count; i++) x[i] = numbers ? number() : MARK;
}

static void check(struct setting t)
{
    struct cpu_rows k = make_rows(&t);
    int64_t size = (int64_t)dtype_size(dtype);
    struct cpu_heads heads = {t.heads, (t.channels + GAP) * size, O_STEP, t.keys};
    const void *run[1] = {tokens};
    struct cpu_ahead ahead = {run, 1, TOKEN * KEYS * size, 0, TOKEN * KEYS * size, CPU_ONCE};
    for (int64_t i = 0; i < kernels->pair * (int64_t)(sizeof q / sizeof *q); i++)
        put(q, i, number());
    memset(p, 0, sizeof p);
    for (int64_t r = 0; r < t.heads * t.rows; r++)
        for (int64_t j = t.first; j < t.last; j++) put(p + r * KEYS, j, rows[j] ? number() : 0);
    for (int i = 0; i < 2; i++) fill(s[i], sizeof s[i] / sizeof(float), 0);
    fill(o[0], sizeof o[0] / sizeof(float), 1);
    memcpy(o[1], o[0], sizeof o[0]);

    kernels->decode_qk_heads(s[0], KEYS, q, CHANNELS, &k, &heads, t.rows, t.channels, t.first,
                             t.last, &ahead);
    kernels->decode_pv_heads(o[0], CHANNELS, p, KEYS, &k, &heads, t.rows, t.channels,
                             t.first & ~(int64_t)1, t.last, &ahead);
    for (int64_t h = 0; h < t.heads; h++) {
        struct cpu_rows own = head_rows(&k, &heads, h);
        kernels->decode_qk(s[1] + h * t.rows * KEYS, KEYS, q + h * t.rows * CHANNELS, CHANNELS,
                           &own, t.rows, t.channels, t.first, t.last, NULL);
        kernels->decode_pv(o[1] + h * O_STEP, CHANNELS, p + h * t.rows * KEYS, KEYS, &own, t.rows,
                           t.channels, t.first & ~(int64_t)1, t.last, NULL);
    }
    if (memcmp(s[0], s[1], sizeof s[0]) || memcmp(o[0], o[1], sizeof o[0]))
        fail_msg("%s %s %s: heads %lld rows %lld channels %lld keys %lld...%lld by %lld nulls %d",
                 kernels->name, dtype_name(dtype),
                 memcmp(s[0], s[1], sizeof s[0]) ? "scores" : "values", (long long)t.heads,
                 (long long)t.rows, (long long)t.channels, (long long)t.first, (long long)t.last,
                 (long long)t.keys, t.nulls);
}

static void every_tile(void)
{
    static const int64_t channels[] = {1, 31, 32, 50, 64, 96, 128, 160, 200};
    for (int64_t n = 1; n <= ROWS; n++)
        for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
            for (int64_t keys = 2; keys <= DECODE_HEADS_KEYS; keys += 2)
                check((struct setting){2, n, channels[c], 0, 37, keys, (int)(c % 2)});
}

static void every_range(void)
{
    for (int64_t first = 0; first < KEYS; first += 3)
        for (int64_t last = first + 1; last <= KEYS; last++)
            for (int nulls = 0; nulls < 2; nulls++)
                check((struct setting){HEADS, 4, 64, first, last, 4, nulls});
}

static void each_level(void (*check_all)(void))
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (cpu_permitted(cpu_features() & levels[i].needs) != levels[i].needs) continue;
        kernels = levels[i].kernels;
        dtype = levels[i].dtype;
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
#endif

int main(void)
{
#if defined(__x86_64__)
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles), cmocka_unit_test(ranges)};
    if (cpu_permitted(cpu_features() & CPU_AVX512))
        return cmocka_run_group_tests(tests, NULL, NULL);
#endif
    puts("1..0 # SKIP no level of this CPU takes several heads at once");
    return 0;
}
