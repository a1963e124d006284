/* caches.c: caches as engines lay them out and reuse them (docs/ENGINES.md): latents and rotated channels of absorbed
 * MLA in one row, keys and values that share pages, and pages that a window has left. */
#include "api.h"

#include <math.h>

static rapt_context *context;
static rapt_device *device;

static void done(rapt_status status)
{
    if (status) fail_msg("%s", rapt_last_error());
}

static void fill(float *x, int count, float step)
{
    for (int i = 0; i < count; i++) x[i] = sinf(step * (float)i);
}

/* ---- absorbed MLA ---- */

enum { LATENT = 48, ROTATED = 16, ROW = LATENT + ROTATED, NEW = 9, HELD = 5, MLA_PAGE = 4 };

static rapt_tensor channels(rapt_tensor t, int first, int count)
{
    t.data = (float *)t.data + first;
    t.size[3] = count;
    return t;
}

/* The rotated channels go in as keys and the latents as values, both into the same rows. */
static void rows_of_latents(void **state)
{
    static float cache[5 * MLA_PAGE][ROW], x[NEW][ROW], rotated[NEW][ROTATED];
    static const int32_t pages[] = {3, 0, 4, 1};
    static const int64_t held = HELD;
    static int64_t position[NEW];
    (void)state;
    fill(x[0], NEW * ROW, 0.7f);
    memset(cache, 0xff, sizeof cache);
    for (int i = 0; i < NEW; i++) position[i] = HELD + i;
    rapt_tensor now = rapt_tensor_bthd(x, RAPT_F32, 1, 1, NEW, ROW),
                all = rapt_tensor_bthd(cache, RAPT_F32, 5, 1, MLA_PAGE, ROW);
    rapt_rope_args rope = {.struct_size = sizeof rope, .interleaved = 1};
    rapt_kv_append_args a = {.struct_size = sizeof a, .rope = &rope};
    a.k_new = channels(now, LATENT, ROTATED), a.k = channels(all, LATENT, ROTATED);
    a.v_new = channels(now, 0, LATENT), a.v = channels(all, 0, LATENT);
    a.page_table = rapt_tensor_bhtd(pages, RAPT_I32, 1, 1, 4, 1);
    a.kv_length = rapt_tensor_bhtd(&held, RAPT_I64, 1, 1, 1, 1);
    done(rapt_kv_append(device, &a, NULL));
    rope.x = a.k_new;
    rope.out = rapt_tensor_bthd(rotated, RAPT_F32, 1, 1, NEW, ROTATED);
    rope.position = rapt_tensor_bhtd(position, RAPT_I64, 1, 1, NEW, 1);
    done(rapt_rope(device, &rope, NULL));
    for (int i = 0; i < NEW; i++) {
        const float *row = cache[pages[(HELD + i) / MLA_PAGE] * MLA_PAGE + (HELD + i) % MLA_PAGE];
        assert_memory_equal(row, x[i], LATENT * sizeof *row);
        assert_memory_equal(row + LATENT, rotated[i], ROTATED * sizeof *row);
    }
    a.v_new = channels(now, 0, ROW), a.v = channels(all, 0, ROW); /* one channel in both */
    expect(rapt_kv_append(device, &a, NULL), RAPT_INVALID,
           "rapt_kv_append: k overlaps v (outputs need memory of their own)");
}

/* ---- paged caches ---- */

enum { PAGE = 8, PAGES = 12, TOKENS = 60, WINDOW = 20, HEADS = 2, CHANNELS = 64 };

static float k_new[TOKENS][HEADS][CHANNELS], v_new[TOKENS][HEADS][CHANNELS],
    q[TOKENS][HEADS][CHANNELS], out[TOKENS][HEADS][CHANNELS], expected[TOKENS][HEADS][CHANNELS];
static float pool[2 * PAGES * PAGE * HEADS * CHANNELS];
static int32_t table[PAGES];
static const int32_t tokens = TOKENS;

static rapt_tensor rows(void *data, int first)
{
    return rapt_tensor_bthd((float *)data + first * HEADS * CHANNELS, RAPT_F32, 1, HEADS,
                            TOKENS - first, CHANNELS);
}

/* All tokens in pages of k and v, which are views of the pool. */
static void append(rapt_tensor k, rapt_tensor v)
{
    rapt_kv_append_args a = {.struct_size = sizeof a, .k = k, .v = v};
    fill(&k_new[0][0][0], TOKENS * HEADS * CHANNELS, 0.9f);
    fill(&v_new[0][0][0], TOKENS * HEADS * CHANNELS, 0.4f);
    fill(&q[0][0][0], TOKENS * HEADS * CHANNELS, 1.3f);
    memset(pool, 0xff, sizeof pool);
    for (int i = 0; i < PAGES; i++) table[i] = i * 7 % PAGES;
    a.k_new = rows(k_new, 0), a.v_new = rows(v_new, 0);
    a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 1, 1, PAGES, 1);
    done(rapt_kv_append(device, &a, NULL));
}

/* The queries from first on, over the pages and over the same keys in one piece. */
static rapt_attention attend(rapt_tensor k, rapt_tensor v, int first, int window)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.window_left = window ? RAPT_WINDOW(window - 1) : 0;
    a.q = rows(q, first), a.out = rows(expected, first);
    a.k = rows(k_new, 0), a.v = rows(v_new, 0);
    done(rapt_forward(device, &a, NULL));
    a.k = k, a.v = v, a.out = rows(out, first);
    a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 1, 1, PAGES, 1);
    a.kv_length = rapt_tensor_bhtd(&tokens, RAPT_I32, 1, 1, 1, 1);
    done(rapt_forward(device, &a, NULL));
    for (const float *x = &out[first][0][0], *y = &expected[first][0][0];
         x < &out[0][0][0] + TOKENS * HEADS * CHANNELS; x++, y++)
        assert_true(fabsf(*x - *y) < 1e-5f);
    return a;
}

/* Pages that hold keys and values: one behind the other, and head by head. */
static void keys_and_values_share_pages(void **state)
{
    (void)state;
    for (int apart = PAGE * HEADS; apart >= 1; apart = apart > 1 ? 1 : 0) {
        int64_t row = apart > 1 ? CHANNELS : 2 * CHANNELS;
        rapt_tensor k = {pool,
                         RAPT_F32,
                         {PAGES, HEADS, PAGE, CHANNELS},
                         {2 * PAGE * HEADS * CHANNELS, row, HEADS * row, 1}},
                    v = k;
        v.data = pool + apart * CHANNELS;
        append(k, v);
        attend(k, v, 0, 0);
    }
}

/* Pages whose keys a window hides may be another's; their entries name some page. */
static void pages_behind_a_window(void **state)
{
    enum { FIRST = TOKENS - 3, HIDDEN = (FIRST - WINDOW + 1) / PAGE };
    (void)state;
    rapt_tensor k = rapt_tensor_bthd(pool, RAPT_F32, PAGES, HEADS, PAGE, CHANNELS), v = k;
    v.data = pool + PAGES * PAGE * HEADS * CHANNELS;
    append(k, v);
    for (int i = 0; i < HIDDEN; i++) { /* all in one page of NaN */
        int64_t bytes = PAGE * HEADS * CHANNELS * sizeof *pool, at = table[i] * k.stride[0];
        memset((float *)k.data + at, 0xff, (size_t)bytes);
        memset((float *)v.data + at, 0xff, (size_t)bytes);
        table[i] = table[0];
    }
    assert_true(HIDDEN > 1);
    rapt_attention a = attend(k, v, FIRST, WINDOW);
    table[1] = -1;
    expect(rapt_forward(device, &a, NULL), RAPT_INVALID,
           "rapt_forward: page_table[0, 1] is -1 (0 ... 11)");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_latents),
                                       cmocka_unit_test(keys_and_values_share_pages),
                                       cmocka_unit_test(pages_behind_a_window)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("caches", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
