/* shared_pages.c: two sequences with a prefix in common, as docs/ENGINES.md has them: both read its whole pages, the
 * one that it fills in part is copied, tokens are taken back, the common pages are a part of the keys, and so are
 * drafts that form a tree. */
#include "api.h"

#include <math.h>

enum { PAGE = 8, PAGES = 10, COLUMNS = 4, PREFIX = 21, SHARED = PREFIX / PAGE, OWN = 10, BACK = 4 };
enum { TOKENS = PREFIX + 2 * OWN, LENGTH = PREFIX + OWN, HEADS = 2, CHANNELS = 64 };

typedef float row[HEADS][CHANNELS];

static rapt_context *context;
static rapt_device *device;

/* The prefix, the first sequence's own tokens, the second's. */
static row k_new[TOKENS], v_new[TOKENS], q[TOKENS], k_pool[PAGES * PAGE], v_pool[PAGES * PAGE];
static row out[2 * OWN];
static const int32_t table[2][COLUMNS] = {{3, 7, 1, 5}, {3, 7, 9, 2}};
static int32_t start[3], held[2], now[2];

static void done(rapt_status status)
{
    if (status) fail_msg("%s", rapt_last_error());
}

static rapt_tensor packed(row *rows, int count)
{
    return rapt_tensor_bthd(rows, RAPT_F32, 1, HEADS, count, CHANNELS);
}

static rapt_tensor numbers(const int32_t *data, int count)
{
    return rapt_tensor_bhtd(data, RAPT_I32, count, 1, 1, 1);
}

static void close_to(row *a, row *b, int count)
{
    const float *x = &a[0][0][0], *y = &b[0][0][0];
    for (int i = 0; i < count * HEADS * CHANNELS; i++) assert_true(fabsf(x[i] - y[i]) < 1e-5f);
}

/* count[b] tokens of sequence b behind those that it holds, from the packed rows of k_new and v_new on. */
static void append(int first, int count0, int count1)
{
    rapt_kv_append_args a = {.struct_size = sizeof a};
    start[1] = count0, start[2] = count0 + count1;
    a.k_new = packed(k_new + first, start[2]), a.v_new = packed(v_new + first, start[2]);
    a.k = rapt_tensor_bthd(k_pool, RAPT_F32, PAGES, HEADS, PAGE, CHANNELS);
    a.v = rapt_tensor_bthd(v_pool, RAPT_F32, PAGES, HEADS, PAGE, CHANNELS);
    a.q_start = numbers(start, 3), a.kv_length = numbers(held, 2);
    a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 2, 1, COLUMNS, 1);
    done(rapt_kv_append(device, &a, NULL));
    for (int b = 0; b < 2; b++) now[b] = held[b] + (b ? count1 : count0);
}

/* Over the pages, with the queries of the tokens that were appended last. */
static rapt_attention over_pages(int first)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = packed(q + first, start[2]), a.out = packed(out, start[2]);
    a.k = rapt_tensor_bthd(k_pool, RAPT_F32, PAGES, HEADS, PAGE, CHANNELS);
    a.v = rapt_tensor_bthd(v_pool, RAPT_F32, PAGES, HEADS, PAGE, CHANNELS);
    a.q_start = numbers(start, 3), a.kv_length = numbers(now, 2);
    a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 2, 1, COLUMNS, 1);
    return a;
}

static void in_one_piece(row *x, row *tokens, int sequence)
{
    memcpy(x, tokens, PREFIX * sizeof *x);
    memcpy(x + PREFIX, tokens + PREFIX + sequence * OWN, OWN * sizeof *x);
}

/* What a sequence's last queries see, its keys in one piece. */
static void expected(int sequence, int queries, row *result)
{
    static row x[3][LENGTH];
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    in_one_piece(x[0], q, sequence);
    in_one_piece(x[1], k_new, sequence);
    in_one_piece(x[2], v_new, sequence);
    a.q = packed(x[0] + LENGTH - queries, queries), a.out = packed(result, queries);
    a.k = packed(x[1], LENGTH), a.v = packed(x[2], LENGTH);
    done(rapt_forward(device, &a, NULL));
}

/* The prefix once, a copy of its last page, each sequence's own tokens. */
static void two_sequences(void)
{
    const float step[] = {1.3f, 0.9f, 0.4f};
    row *const tokens[] = {q, k_new, v_new};
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < TOKENS * HEADS * CHANNELS; i++)
            (&tokens[t][0][0][0])[i] = sinf(step[t] * (float)i);
    memset(k_pool, 0xff, sizeof k_pool);
    memset(v_pool, 0xff, sizeof v_pool);
    held[0] = held[1] = 0;
    append(0, PREFIX, 0);
    row *const pools[] = {k_pool, v_pool};
    for (int i = 0; i < 2; i++)
        memcpy(pools[i] + table[1][SHARED] * PAGE, pools[i] + table[0][SHARED] * PAGE,
               PAGE * sizeof(row));
    held[0] = held[1] = PREFIX;
    append(PREFIX, OWN, OWN);
}

static void whole_pages_are_read_by_both(void **state)
{
    static row whole[OWN];
    (void)state;
    two_sequences();
    rapt_attention a = over_pages(PREFIX);
    done(rapt_forward(device, &a, NULL));
    for (int b = 0; b < 2; b++) {
        expected(b, OWN, whole);
        close_to(out + start[b], whole, OWN);
    }
}

/* Drafts that are refused: a shorter length, and the next append writes over them. */
static void tokens_taken_back(void **state)
{
    enum { FIRST = PREFIX + OWN - BACK };
    static row whole[BACK];
    (void)state;
    two_sequences();
    for (int i = 0; i < BACK; i++) { /* others than the drafts */
        memcpy(k_new[FIRST + i], q[i], sizeof(row));
        memcpy(v_new[FIRST + i], q[i + 1], sizeof(row));
    }
    held[0] = LENGTH - BACK, held[1] = LENGTH;
    append(FIRST, BACK, 0);
    rapt_attention a = over_pages(FIRST);
    done(rapt_forward(device, &a, NULL));
    expected(0, BACK, whole);
    close_to(out, whole, BACK);
}

/* Two parts of the keys, merged, are what the call over all of them left in out. */
static void parts_are_the_whole(rapt_attention *first, rapt_attention *rest)
{
    static row part[2][2 * OWN];
    static float lse[2][2 * OWN][HEADS];
    rapt_attention *const parts[] = {first, rest};
    for (int i = 0; i < 2; i++) {
        parts[i]->out.data = part[i];
        parts[i]->lse = rapt_tensor_bthd(lse[i], RAPT_F32, 1, HEADS, 2 * OWN, 1);
        done(rapt_forward(device, parts[i], NULL));
    }
    for (int t = 0; t < 2 * OWN; t++)
        for (int h = 0; h < HEADS; h++) {
            float share = 1 / (1 + expf(lse[1][t][h] - lse[0][t][h]));
            for (int c = 0; c < CHANNELS; c++)
                part[0][t][h][c] = share * part[0][t][h][c] + (1 - share) * part[1][t][h][c];
        }
    close_to(part[0], out, 2 * OWN);
}

/* The queries of both over the pages in common, and each sequence's over the columns behind them. */
static void common_pages_are_a_part(void **state)
{
    const int32_t common = SHARED * PAGE;
    const int32_t behind[2] = {LENGTH - common, LENGTH - common};
    (void)state;
    two_sequences();
    rapt_attention whole = over_pages(PREFIX), first = whole, rest = whole;
    done(rapt_forward(device, &whole, NULL));
    first.causal = 0, first.q_start.dtype = 0;
    first.page_table.size[0] = 1, first.page_table.size[2] = SHARED;
    first.kv_length = numbers(&common, 1);
    rest.page_table.data = (void *)&table[0][SHARED];
    rest.page_table.size[2] = COLUMNS - SHARED;
    rest.kv_length = numbers(behind, 2);
    parts_are_the_whole(&first, &rest);
}

/* Drafts of which each sees what was held, the drafts that it follows, and itself: a mask over all keys, or one over
 * the drafts alone, as keys of their own. */
static void a_tree_of_drafts(void **state)
{
    static uint8_t all[2 * OWN][COLUMNS * PAGE], own[2 * OWN][OWN];
    (void)state;
    two_sequences();
    memset(all, 0, sizeof all);
    for (int t = 0; t < 2 * OWN; t++) {
        memset(all[t], 1, PREFIX);
        for (int at = t % OWN;; at = (at - 1) / 2) {
            all[t][PREFIX + at] = own[t][at] = 1;
            if (!at) break;
        }
    }
    rapt_attention whole = over_pages(PREFIX);
    whole.causal = 0;
    rapt_attention first = whole, rest = whole;
    whole.mask = rapt_tensor_bhtd(all, RAPT_U8, 1, 1, 2 * OWN, COLUMNS * PAGE);
    done(rapt_forward(device, &whole, NULL));
    first.kv_length = numbers(held, 2);
    rest.page_table.dtype = rest.kv_length.dtype = 0;
    rest.kv_start = rest.q_start;
    rest.k = packed(k_new + PREFIX, 2 * OWN), rest.v = packed(v_new + PREFIX, 2 * OWN);
    rest.mask = rapt_tensor_bhtd(own, RAPT_U8, 1, 1, 2 * OWN, OWN);
    parts_are_the_whole(&first, &rest);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_pages_are_read_by_both), cmocka_unit_test(tokens_taken_back),
        cmocka_unit_test(common_pages_are_a_part), cmocka_unit_test(a_tree_of_drafts)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed =
        run_group("shared pages", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
