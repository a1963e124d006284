/* append_runs.c: an append of many tokens has the bits of as many appends of one token, whatever is rotated,
 * converted or quantised on the way, whichever way tokens, heads and scales lie, and writes nothing else. */
#include "api.h"

#include <math.h>

#include "base/dtype.h"

enum { MOST = 40 * 8 * 128, PAGES = 8, ROOM = PAGES * (40 / 2 + 1) * 8 * 128 };

static rapt_context *context;
static rapt_device *device;

struct append_case {
    int64_t from, to, tokens, heads, channels, rotary, blocks;
    int from_by_head, cache_by_head, scales_apart, paged;
};

struct cache {
    _Alignas(64) unsigned char k[ROOM * 4], v[ROOM * 4];
    float k_scale[ROOM / 16], v_scale[ROOM / 16];
};

static rapt_tensor laid_out(void *data, int64_t dtype, int by_head, int64_t batch, int64_t heads,
                            int64_t tokens, int64_t channels)
{
    return by_head ? rapt_tensor_bhtd(data, dtype, batch, heads, tokens, channels)
                   : rapt_tensor_bthd(data, dtype, batch, heads, tokens, channels);
}

/* With every other float left alone. */
static rapt_tensor scales_in(float *data, const struct append_case *c, int64_t batch,
                             int64_t tokens)
{
    rapt_tensor t = laid_out(data, RAPT_F32, c->cache_by_head, batch, c->heads, tokens, c->blocks);
    for (int i = 0; i < 4 && c->scales_apart; i++) t.stride[i] *= 2;
    return t;
}

static rapt_tensor tokens_of(rapt_tensor t, int64_t first, int64_t count)
{
    t.data = (char *)t.data + first * t.stride[2] * (int64_t)dtype_size(t.dtype);
    t.size[2] = count;
    return t;
}

static void append(const struct append_case *c, struct cache *to, void *k_new, void *v_new,
                   int64_t first, int64_t count)
{
    static const int32_t table[] = {5, 2, 7};
    int64_t batch = c->paged ? PAGES : 1, room = c->paged ? c->tokens / 2 + 1 : c->tokens;
    rapt_rope_args rope = {.struct_size = sizeof rope, .rotary_channels = c->rotary};
    rapt_kv_append_args a = {.struct_size = sizeof a, .rope = c->rotary ? &rope : NULL};
    a.k_new =
        tokens_of(laid_out(k_new, c->from, c->from_by_head, 1, c->heads, c->tokens, c->channels),
                  first, count);
    a.v_new =
        tokens_of(laid_out(v_new, c->from, c->from_by_head, 1, c->heads, c->tokens, c->channels),
                  first, count);
    a.k = laid_out(to->k, c->to, c->cache_by_head, batch, c->heads, room, c->channels);
    a.v = laid_out(to->v, c->to, c->cache_by_head, batch, c->heads, room, c->channels);
    if (c->to == RAPT_I8) {
        a.k_scale = scales_in(to->k_scale, c, batch, room);
        a.v_scale = scales_in(to->v_scale, c, batch, room);
    }
    if (c->paged) a.page_table = rapt_tensor_bhtd(table, RAPT_I32, 1, 1, 3, 1);
    a.kv_length = rapt_tensor_bhtd(&first, RAPT_I64, 1, 1, 1, 1);
    if (rapt_kv_append(device, &a, NULL)) fail_msg("%s", rapt_last_error());
}

static void compare(const struct append_case *c)
{
    static struct cache whole, single;
    static float k_new[MOST], v_new[MOST];
    memset(&whole, 0xff, sizeof whole), memset(&single, 0xff, sizeof single);
    for (int64_t i = 0; i < c->tokens * c->heads * c->channels; i++) {
        store_float(k_new, c->from, i, sinf(0.7f * (float)i) * (float)(1 + i % 5));
        store_float(v_new, c->from, i, sinf(0.3f * (float)i) * (float)(1 + i % 3));
    }
    append(c, &whole, k_new, v_new, 0, c->tokens);
    for (int64_t t = 0; t < c->tokens; t++) append(c, &single, k_new, v_new, t, 1);
    for (int64_t i = 1; i < ROOM / 16 && c->scales_apart; i += 2)
        if (!isnan(whole.k_scale[i]) || !isnan(whole.v_scale[i]))
            fail_msg("written between scales");
    if (memcmp(&whole, &single, sizeof whole))
        fail_msg("%s to %s, %lld tokens of %lld x %lld, %lld rotated, %lld blocks, by head %d %d, "
                 "scales apart %d, paged %d",
                 dtype_name(c->from), dtype_name(c->to), (long long)c->tokens, (long long)c->heads,
                 (long long)c->channels, (long long)c->rotary, (long long)c->blocks,
                 c->from_by_head, c->cache_by_head, c->scales_apart, c->paged);
}

static void rows(int64_t tokens, int64_t heads, int64_t channels)
{
    static const int64_t from[] = {RAPT_F32, RAPT_F16, RAPT_BF16},
                         to[] = {RAPT_I8, RAPT_F16, RAPT_BF16, RAPT_F32};
    for (int pair = 0; pair < 12; pair++)
        for (int form = 0; form < 16; form++)
            for (int turn = 0; turn < 3; turn++)
                for (int64_t blocks = 1; blocks <= (to[pair % 4] == RAPT_I8 ? 4 : 1); blocks *= 4) {
                    struct append_case c = {
                        from[pair / 4], to[pair % 4], tokens,
                        heads,          channels,     turn == 2 ? 64 : turn * channels,
                        blocks,         form & 1,     form >> 1 & 1,
                        form >> 2 & 1,  form >> 3};
                    if (c.rotary <= 2048) compare(&c);
                }
}

static void many_rows(void **state)
{
    (void)state;
    rows(40, 8, 128);
    rows(7, 3, 80);
}

/* More channels than rows that are rotated and converted may have on the stack. */
static void long_rows(void **state)
{
    (void)state;
    rows(3, 2, 2304);
}

/* ---- as many bytes as leave the caches, which are written past them where lines allow it ---- */

enum { TOKENS = 4800, STEP = 400, HEADS = 8, CHANNELS = 128, LONG = TOKENS * HEADS * CHANNELS };
struct long_cache {
    _Alignas(64) unsigned char k[2 * LONG + 64], v[2 * LONG + 64];
    float k_scale[4 * LONG / CHANNELS], v_scale[4 * LONG / CHANNELS];
};

static void append_long(struct long_cache *to, float *x, int64_t dtype, int64_t blocks, int shift,
                        int64_t first, int64_t count)
{
    rapt_rope_args rope = {.struct_size = sizeof rope};
    rapt_kv_append_args a = {.struct_size = sizeof a, .rope = &rope};
    a.k_new = a.v_new =
        tokens_of(rapt_tensor_bthd(x, RAPT_F32, 1, HEADS, TOKENS, CHANNELS), first, count);
    a.k = rapt_tensor_bthd(to->k + shift, dtype, 1, HEADS, TOKENS, CHANNELS);
    a.v = rapt_tensor_bthd(to->v + shift, dtype, 1, HEADS, TOKENS, CHANNELS);
    if (dtype == RAPT_I8) {
        a.k_scale = rapt_tensor_bthd(to->k_scale, RAPT_F32, 1, HEADS, TOKENS, blocks);
        a.v_scale = rapt_tensor_bthd(to->v_scale, RAPT_F32, 1, HEADS, TOKENS, blocks);
    }
    a.kv_length = rapt_tensor_bhtd(&first, RAPT_I64, 1, 1, 1, 1);
    if (rapt_kv_append(device, &a, NULL)) fail_msg("%s", rapt_last_error());
}

static void past_the_caches(void **state)
{
    static struct long_cache whole, parts;
    static float x[LONG];
    (void)state;
    for (int i = 0; i < LONG; i++) x[i] = (float)(i * 7 % 1999 - 999) / 64;
    for (int form = 0; form < 6; form++) {
        int64_t dtype = form < 4 ? RAPT_I8 : RAPT_BF16, blocks = form / 2 == 1 ? 4 : 1;
        int shift = form % 2 * 16; /* bytes: no line of its own for a row */
        memset(&whole, 0xff, sizeof whole), memset(&parts, 0xff, sizeof parts);
        append_long(&whole, x, dtype, blocks, shift, 0, TOKENS);
        for (int64_t t = 0; t < TOKENS; t += STEP)
            append_long(&parts, x, dtype, blocks, shift, t, STEP);
        if (memcmp(&whole, &parts, sizeof whole))
            fail_msg("%s, %d blocks, %d bytes off", dtype_name(dtype), (int)blocks, shift);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_rows), cmocka_unit_test(long_rows),
                                       cmocka_unit_test(past_the_caches)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed =
        run_group("append runs", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
