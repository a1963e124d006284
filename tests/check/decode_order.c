/* decode_order.c: decode that reads K and V in the order of memory, with the rows of cpu_requests that say so,
 * whatever the CPU: heads of a token together, and keys in pages. A sequence has the same bits with its heads
 * together or one by one, in pages or in one piece; and each line of K and V is in what is asked for once, but for
 * the first ones of an item, and nothing else is. Heads of i8 stay apart where lines come into the first cache
 * alone. Heads of a page share a scratch that stays in the second cache. */
#include "base/cpuid.h"
#include "base/dtype.h"
#include "cpu/decode.h"
#include "cpu/decode_kernels.h"
#include "backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
#include "decode_spies.h"
#include "numbers.h"
#endif
#include "group.h"

enum {
    HEADS = 5,
    GROUP = 2,
    CHANNELS = 64,
    CAPACITY = 4224,
    LENGTH = 4107,
    WINDOW = 3901, /* an odd first key */
    LINE = 64
};
enum {
    ELEMENTS = HEADS * CAPACITY * CHANNELS,
    LINES = ELEMENTS * 4 / LINE,
    GROUP_MANY = 6, /* rows, more than DECODE_HEADS_ROWS */
    OUT = HEADS * GROUP_MANY * CHANNELS
};

/* A case: how K and V lie, and what a query sees of them. */
struct setting {
    int dtype, token_major;
    int64_t page, window; /* keys; 0: none */
    int64_t v_channels;
    int64_t unused; /* heads in memory that are not of the problem */
    int64_t group;
};

#if defined(__x86_64__)
static const struct {
    const struct cpu_level *level;
    int dtype;
} cases[] = {{&cpu_levels[LEVEL_avx512], RAPT_F32},
             {&cpu_levels[LEVEL_avx512], RAPT_F16},
             {&cpu_levels[LEVEL_avx512_vnni], RAPT_I8},
             {&cpu_levels[LEVEL_avx512_bf16], RAPT_BF16}};

static _Alignas(64) char memory[2][ELEMENTS * 4];
static float scales[2][HEADS * CAPACITY]; /* I8: of each row */
static char asked[2][LINES], used[2][LINES];
static float q[OUT], out[OUT];
static int32_t table[CAPACITY / DECODE_PAGE_MIN], length = LENGTH;
static int64_t outside;
static int in_order;     /* the requests that the case is about */
static int64_t again;    /* and how they are to be repeated */
static const char *arch; /* of the level */
static const struct cpu_requests *row;

/* ---- What is asked for ---- */

static void ask(const char *at)
{
    for (int i = 0; i < 2; i++) {
        int64_t line = (at - memory[i]) / LINE;
        if (at < memory[i] || line >= LINES) continue;
        asked[i][line]++;
        outside += !used[i][line];
        return;
    }
    outside++;
}

/* Lines in the order of the runs. */
static void note(const struct cpu_ahead *ahead)
{
    if (!ahead) return;
    assert_true(ahead->skip < ahead->run_bytes || ahead->bytes == 0);
    if (in_order) assert_int_equal(ahead->again, again);
    int64_t left = ahead->bytes, skip = ahead->skip;
    for (const void *const *run = ahead->run; left > 0; run += ahead->run_step, skip = 0)
        for (int64_t at = skip; at < ahead->run_bytes && left > 0; at += LINE, left -= LINE)
            ask((const char *)*run + at);
}

/* ---- The problem ---- */

static int64_t low_of(const struct setting *t)
{
    return t->window ? LENGTH - 1 - t->window : 0;
}

static int64_t channels_of(const struct setting *t, int i)
{
    return i ? t->v_channels : CHANNELS;
}

static int64_t heads_of(const struct setting *t)
{
    return HEADS - t->unused;
}

/* Element [token][head][channel] of K or V in the order of memory. */
static int64_t place(const struct setting *t, int i, int64_t token, int64_t head)
{
    int64_t page = t->page ? t->page : CAPACITY, number = t->page ? table[token / page] : 0;
    int64_t in_page = token % page;
    return (number * page * HEADS +
            (t->token_major ? in_page * HEADS + head : head * page + in_page)) *
           channels_of(t, i);
}

/* The values of one row; x: what they depend on. */
static void fill_row(const struct setting *t, int i, int64_t at, uint32_t x)
{
    if (t->dtype == RAPT_I8)
        scales[i][at / channels_of(t, i)] = 0.001f + (float)(x >> 8) * 0x1p-32f;
    for (int64_t c = 0; c < channels_of(t, i); c++) {
        x = x * 1664525u + 1013904223u;
        if (t->dtype == RAPT_I8) memory[i][at + c] = (char)(x >> 24);
        else store_float(memory[i], t->dtype, at + c, (float)(x >> 8) * 0x1p-23f - 1);
    }
}

/* The same values wherever they lie; NaN, of i8 in its scales, in what no query sees. */
static void fill(const struct setting *t)
{
    int64_t size = (int64_t)dtype_size(t->dtype), pages = t->page ? CAPACITY / t->page : 1;
    for (int64_t i = 0; i < pages; i++)
        table[i] = (int32_t)(i * 5 % pages); /* none has a factor 5 */
    memset(memory, 0xff, sizeof memory);
    memset(scales, 0xff, sizeof scales);
    memset(used, 0, sizeof used);
    memset(asked, 0, sizeof asked);
    outside = calls_of_heads = other_turns = 0;
    page_of_heads = t->token_major ? 0 : t->page;
    for (int i = 0; i < 2; i++)
        for (int64_t token = low_of(t); token < LENGTH; token++)
            for (int64_t head = 0; head < heads_of(t); head++) {
                uint32_t x = (uint32_t)((token * HEADS + head) * 2 + i) * 2654435761u;
                int64_t at = place(t, i, token, head);
                memset(&used[i][at * size / LINE], 1,
                       (size_t)((channels_of(t, i) * size + LINE - 1) / LINE));
                fill_row(t, i, at, x);
            }
}

static rapt_tensor rows_of(const struct setting *t, void *data, int dtype, int64_t channels)
{
    int64_t page = t->page ? t->page : CAPACITY;
    rapt_tensor rows = (t->token_major ? rapt_tensor_bthd : rapt_tensor_bhtd)(
        data, (rapt_dtype)dtype, CAPACITY / page, HEADS, page, channels);
    rows.size[1] = heads_of(t);
    return rows;
}

static int q_dtype(int dtype)
{
    return dtype == RAPT_I8 ? RAPT_F16 : dtype;
}

/* Whether the heads of a token, or of a page, go by together. */
static int heads_together(const struct setting *t)
{
    if (t->group > DECODE_HEADS_ROWS) return 0;
    if (t->dtype == RAPT_I8 && row->span_again == CPU_ONCE) return 0;
    if (t->token_major) return !t->unused;
    return t->page > 0 && t->page <= DECODE_PAGE_MAX && DECODE_BLOCK % t->page == 0;
}

static rapt_attention attention(const struct setting *t)
{
    rapt_attention a = {.struct_size = sizeof a};
    rapt_dtype q_type = (rapt_dtype)q_dtype(t->dtype);
    a.q = rapt_tensor_bhtd(q, q_type, 1, heads_of(t) * t->group, 1, CHANNELS);
    a.out = rapt_tensor_bhtd(out, q_type, 1, heads_of(t) * t->group, 1, t->v_channels);
    a.k = rows_of(t, memory[0], t->dtype, CHANNELS);
    a.v = rows_of(t, memory[1], t->dtype, t->v_channels);
    if (t->dtype == RAPT_I8) {
        a.k_scale = rows_of(t, scales[0], RAPT_F32, 1);
        a.v_scale = rows_of(t, scales[1], RAPT_F32, 1);
    }
    a.kv_length = rapt_tensor_bhtd(&length, RAPT_I32, 1, 1, 1, 1);
    if (t->page) a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 1, 1, CAPACITY / t->page, 1);
    if (t->window) {
        a.causal = 1;
        a.window_left = RAPT_WINDOW(t->window);
    }
    return a;
}

/* ---- One execute ---- */

/* Plans again as a CPU would that the row is for; out has the result. */
static void execute(const struct setting *t, int together)
{
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
    rapt_context *context = NULL;
    rapt_plan *plan = NULL;
    rapt_attention a = attention(t);
    fill(t);
    setenv("RAPT_CPU", arch, 1);
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_OK);
    unsetenv("RAPT_CPU");
    struct cpu_plan *own = plan->state;
    assert_string_equal(own->kernels->arch, arch);
    struct cpu_kernels spies = spies_of(own->kernels);
    if (!together) spies.decode_qk_heads = NULL;
    together = together && heads_together(t);
    in_order = together || (t->page > 0 && (!t->token_major || t->dtype != RAPT_I8));
    again = t->page && row->span_again > 0 ? 0 : row->span_again;
    own->kernels = &spies;
    own->requests = row;
    size_t bytes = decode_plan(&plan->problem, own);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(workspace);
    memset(out, 0xff, sizeof out);
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    assert_int_equal(calls_of_heads > 0, together);
    assert_int_equal(other_turns, 0);
    if (calls_of_heads && t->dtype == RAPT_I8) assert_int_equal(keys_of_heads, DECODE_KEYS_VNNI);
    else
        assert_true(!calls_of_heads || (keys_of_heads >= 2 && keys_of_heads % 2 == 0 &&
                                        keys_of_heads <= DECODE_HEADS_KEYS));
    free(workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
}

/* Lines that were not asked for; fails on those that no query needs, or that were asked for twice. */
static int64_t missed(const struct setting *t)
{
    int64_t count = 0;
    for (int i = 0; i < 2; i++)
        for (int64_t line = 0; line < LINES; line++) {
            if (asked[i][line] > 1)
                fail_msg("%s page %lld: line %lld of %c was asked for %d times",
                         dtype_name(t->dtype), (long long)t->page, (long long)line, "kv"[i],
                         asked[i][line]);
            count += used[i][line] && !asked[i][line];
        }
    if (outside)
        fail_msg("%s page %lld: %lld lines that no query sees", dtype_name(t->dtype),
                 (long long)t->page, (long long)outside);
    return count;
}

/* ---- The cases ---- */

static const int64_t pages[] = {0, 8, 16, 24, 48, 64, CAPACITY};

/* Every layout, window and number of channels. */
static void each_setting(int dtype, void (*check)(const struct setting *t))
{
    for (int64_t window = 0; window <= WINDOW; window += WINDOW)
        for (int token_major = 0; token_major < 2; token_major++)
            for (int64_t v_channels = CHANNELS / 2; v_channels <= CHANNELS; v_channels *= 2)
                for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
                    check(&(struct setting){dtype, token_major, pages[i], window, v_channels, 0,
                                            GROUP});
}

/* Against heads one by one, and pages against one piece. */
static void check_bits(const struct setting *t)
{
    static char expected[sizeof out];
    struct setting plain = *t;
    plain.page = 0;
    execute(&plain, t->page > 0);
    memcpy(expected, out, sizeof out);
    execute(t, 1);
    if (memcmp(out, expected, sizeof out))
        fail_msg("%s token_major %d page %lld window %lld v_channels %lld: other bits",
                 dtype_name(t->dtype), t->token_major, (long long)t->page, (long long)t->window,
                 (long long)t->v_channels);
}

/* The most of K that an item reads before what it has asked for comes. */
static int64_t first_bytes(const struct setting *t)
{
    if (t->dtype == RAPT_I8 && heads_together(t))
        return DECODE_KEYS_VNNI * HEADS * CHANNELS + row->span / 2;
    return row->span + row->span / 2;
}

/* Keys of the first and the last page, where queries see a part of each head's. */
static int64_t page_ends(const struct setting *t)
{
    int64_t low = low_of(t) % t->page, before = low ? t->page - low : 0;
    return (before + LENGTH % t->page) * HEADS * (CHANNELS + t->v_channels) *
           (int64_t)dtype_size(t->dtype);
}

/* An item misses what it would have asked for before it began. Where a block
 * does not end with a page, or pages of K and V differ in size, each half of a block does. */
static void check_lines(const struct setting *t)
{
    enum { CHUNKS = CAPACITY / 512 + 1, BLOCKS = CAPACITY / DECODE_BLOCK + 1 };
    int64_t heads = heads_together(t) ? 1 : HEADS,
            starts = heads * (t->page && (DECODE_BLOCK % t->page || t->v_channels != CHANNELS)
                                  ? 2 * BLOCKS
                                  : CHUNKS + 1);
    if (t->token_major ? !heads_together(t) : !t->page) return; /* prefetch.c */
    execute(t, 1);
    int64_t count = missed(t), bytes = starts * first_bytes(t);
    if (!t->token_major && heads_together(t)) bytes += page_ends(t);
    if (count > bytes / LINE)
        fail_msg("%s token_major %d page %lld window %lld v_channels %lld: %lld lines were not "
                 "asked for",
                 dtype_name(t->dtype), t->token_major, (long long)t->page, (long long)t->window,
                 (long long)t->v_channels, (long long)count);
}

/* More rows of heads one behind another in pages: windows of all heads, of which an item's first is not asked for. */
static void check_windows(const struct setting *t)
{
    enum { CHUNKS = CAPACITY / 512 + 1 };
    struct setting many = *t;
    if (t->token_major || !heads_together(t) || row->span_again == CPU_ONCE) return;
    many.group = GROUP_MANY;
    check_bits(&many);
    int64_t count = missed(&many),
            window = DECODE_WINDOW * HEADS * CHANNELS * (int64_t)dtype_size(t->dtype);
    if (count > ((CHUNKS + 1) * window + page_ends(t)) / LINE)
        fail_msg("%s page %lld window %lld: %lld lines were not asked for", dtype_name(t->dtype),
                 (long long)t->page, (long long)t->window, (long long)count);
}

/* Heads of a token between those of others: windows of it, of which a thread's first is not asked for. */
static void check_gaps(const struct setting *t)
{
    struct setting gaps = *t;
    gaps.unused = 2;
    if (!t->token_major || t->page || t->v_channels != CHANNELS) return;
    execute(&gaps, 1);
    int64_t count = missed(&gaps),
            window = DECODE_WINDOW * heads_of(t) * CHANNELS * (int64_t)dtype_size(t->dtype) / LINE;
    if (count > (CAPACITY / 512 + 2) * window)
        fail_msg("%s window %lld: %lld lines were not asked for", dtype_name(t->dtype),
                 (long long)t->window, (long long)count);
}

/* Many heads in a page share a thread's scratch, which is to stay in the second cache. */
static void check_scratch(const struct setting *t)
{
    enum { MANY_HEADS = 32, FEW_CHANNELS = 32, PAGE = 16, MAPPED = 2048, CACHE = 1 << 20 };
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu", .threads = 1};
    rapt_dtype q_type = (rapt_dtype)q_dtype(t->dtype), kv_type = (rapt_dtype)t->dtype;
    rapt_attention a = {.struct_size = sizeof a};
    rapt_context *context = NULL;
    rapt_plan *plan = NULL;
    a.q = rapt_tensor_bhtd(NULL, q_type, 1, MANY_HEADS * 16, 1, FEW_CHANNELS);
    a.out = a.q;
    a.k = a.v = rapt_tensor_bhtd(NULL, kv_type, MAPPED, MANY_HEADS, PAGE, FEW_CHANNELS);
    if (t->dtype == RAPT_I8)
        a.k_scale = a.v_scale = rapt_tensor_bhtd(NULL, RAPT_F32, MAPPED, MANY_HEADS, PAGE, 1);
    a.page_table = rapt_tensor_bhtd(NULL, RAPT_I32, 1, 1, MAPPED, 1);
    setenv("RAPT_CPU", arch, 1);
    assert_int_equal(rapt_open(&context, &config), RAPT_OK);
    assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_OK);
    unsetenv("RAPT_CPU");
    struct cpu_plan *own = plan->state;
    own->requests = row;
    decode_plan(&plan->problem, own);
    assert_in_range(own->decode_scratch_bytes, 1, CACHE * 3 / 2);
    if (row->span_again != CPU_ONCE) assert_true(own->decode_heads > 1);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
}

static void each_level(void (*check)(const struct setting *t))
{
    static const uint64_t features[] = {CPU_FETCHES_EARLY, CPU_DROPS_REQUESTS};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t needs = cases[i].level->needs;
        if (cpu_permitted(cpu_features() & needs) != needs) continue;
        arch = cases[i].level->kernels->arch;
        for (int64_t r = 0; r < (int64_t)(sizeof q / sizeof *q); r++)
            store_float(q, q_dtype(cases[i].dtype), r, number());
        for (size_t f = 0; f < sizeof features / sizeof *features; f++) {
            row = cpu_requests_of(features[f], cases[i].dtype == RAPT_BF16 ? 2 : 1);
            each_setting(cases[i].dtype, check);
        }
    }
}

static void same_bits(void **state)
{
    (void)state;
    if (!cpu_permitted(cpu_features() & CPU_AVX512))
        skip_test("no level of this CPU takes several heads at once");
    each_level(check_bits);
}

static void small_scratch(void **state)
{
    (void)state;
    if (!cpu_permitted(cpu_features() & CPU_AVX512))
        skip_test("no level of this CPU takes several heads at once");
    each_level(check_scratch);
}

static void each_line_once(void **state)
{
    (void)state;
    if (!cpu_permitted(cpu_features() & CPU_AVX512))
        skip_test("no level of this CPU takes several heads at once");
    each_level(check_lines);
    each_level(check_windows);
    each_level(check_gaps);
}
#else
static void same_bits(void **state)
{
    (void)state;
    skip_test("no level of this CPU takes several heads at once");
}
#define each_line_once same_bits
#define small_scratch  same_bits
#endif

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits),
                                       cmocka_unit_test(each_line_once),
                                       cmocka_unit_test(small_scratch)};
    return run_group("decode_order", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
