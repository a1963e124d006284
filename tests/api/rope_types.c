/* rope_types.c: rapt_rope into another type has the bits of a rotation in f32 whose result is rounded once, whichever
 * way tokens and heads lie, and writes nothing else. */
#include "api.h"

#include <math.h>

#include "base/dtype.h"

enum { GAP = 16, MOST = 90 * 10 * (128 + GAP) };

static rapt_context *context;
static rapt_device *device;

struct rope_case {
    int64_t from, to, tokens, heads, channels, rotary, interleaved;
    int from_by_head, to_by_head;
};

/* With GAP channels behind each row. */
static rapt_tensor laid_out(void *data, int64_t dtype, int by_head, const struct rope_case *c)
{
    rapt_tensor t =
        by_head
            ? rapt_tensor_bhtd(data, (rapt_dtype)dtype, 1, c->heads, c->tokens, c->channels + GAP)
            : rapt_tensor_bthd(data, (rapt_dtype)dtype, 1, c->heads, c->tokens, c->channels + GAP);
    t.size[3] = c->channels;
    return t;
}

static void rotate(const struct rope_case *c, rapt_tensor x, rapt_tensor out)
{
    rapt_rope_args a = {.struct_size = sizeof a,
                        .x = x,
                        .out = out,
                        .rotary_channels = c->rotary,
                        .interleaved = c->interleaved};
    if (rapt_rope(device, &a, NULL)) fail_msg("%s", rapt_last_error());
}

static int64_t place(const rapt_tensor *t, int64_t head, int64_t token, int64_t channel)
{
    return head * t->stride[1] + token * t->stride[2] + channel;
}

/* Of x, in f32 whatever its type. */
static float element(const rapt_tensor *t, int64_t head, int64_t token, int64_t channel)
{
    return load_float(t->data, t->dtype, place(t, head, token, channel));
}

static void compare(const struct rope_case *c)
{
    static float x[MOST], wide[MOST], turned[MOST];
    static unsigned char out[MOST * 4], expected[MOST * 4];
    rapt_tensor from = laid_out(x, c->from, c->from_by_head, c),
                from_wide = laid_out(wide, RAPT_F32, 0, c),
                to_wide = laid_out(turned, RAPT_F32, 0, c),
                to = laid_out(out, c->to, c->to_by_head, c), by_hand = to;
    by_hand.data = expected;
    memset(x, 0xff, sizeof x), memset(wide, 0xff, sizeof wide);
    memset(out, 0xff, sizeof out), memset(expected, 0xff, sizeof expected);
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t t = 0; t < c->tokens; t++)
            for (int64_t i = 0; i < c->channels; i++) {
                float value = sinf((float)(h * 7919 + t * 131 + i)) * (float)(1 + i % 5);
                store_float(x, c->from, place(&from, h, t, i), value);
                wide[place(&from_wide, h, t, i)] = element(&from, h, t, i);
            }
    rotate(c, from, to);
    rotate(c, from_wide, to_wide);
    for (int64_t h = 0; h < c->heads; h++)
        for (int64_t t = 0; t < c->tokens; t++)
            for (int64_t i = 0; i < c->channels; i++)
                store_float(expected, c->to, place(&by_hand, h, t, i), element(&to_wide, h, t, i));
    if (memcmp(out, expected, sizeof out))
        fail_msg(
            "%s to %s, %lld tokens of %lld x %lld, %lld rotated, interleaved %lld, by head %d %d",
            dtype_name(c->from), dtype_name(c->to), (long long)c->tokens, (long long)c->heads,
            (long long)c->channels, (long long)c->rotary, (long long)c->interleaved,
            c->from_by_head, c->to_by_head);
}

static void rows(int64_t tokens, int64_t heads, int64_t channels, int64_t rotary)
{
    static const int64_t types[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    for (int pair = 0; pair < 9; pair++)
        for (int form = 0; form < 8; form++)
            if (types[pair / 3] != types[pair % 3])
                compare(&(struct rope_case){types[pair / 3], types[pair % 3], tokens, heads,
                                            channels, rotary, form & 1, form >> 1 & 1, form >> 2});
}

/* More rows than are rotated at once, of one token and of one head; parts of vectors; one row alone. */
static void each_shape(void **state)
{
    (void)state;
    rows(90, 10, 128, 128);
    rows(90, 10, 128, 96);
    rows(33, 40, 50, 34);
    rows(5, 70, 80, 80);
    rows(3, 2, 2048, 2048);
    rows(1, 1, 2, 2);
}

/* ---- as many bytes as are written past the caches, on lines of their own for each row and not ---- */

enum { TOKENS = 1600, STEP = 200, HEADS = 20, CHANNELS = 128, LONG = TOKENS * HEADS * CHANNELS };

static void rotate_long(float *x, unsigned char *to, int64_t first, int64_t count)
{
    static int64_t position[TOKENS];
    rapt_rope_args a = {.struct_size = sizeof a};
    for (int64_t t = 0; t < count; t++) position[t] = first + t;
    a.x = rapt_tensor_bthd((uint16_t *)x + first * HEADS * CHANNELS, RAPT_BF16, 1, HEADS, count,
                           CHANNELS);
    a.out =
        rapt_tensor_bthd(to + first * HEADS * CHANNELS * 4, RAPT_F32, 1, HEADS, count, CHANNELS);
    a.position = rapt_tensor_bhtd(position, RAPT_I64, 1, 1, count, 1);
    if (rapt_rope(device, &a, NULL)) fail_msg("%s", rapt_last_error());
}

static void past_the_caches(void **state)
{
    static float x[LONG / 2];
    static _Alignas(64) unsigned char whole[LONG * 4 + 64], parts[LONG * 4 + 64];
    (void)state;
    for (int64_t i = 0; i < LONG; i++)
        store_float(x, RAPT_BF16, i, (float)(i * 7 % 1999 - 999) / 64);
    for (int shift = 0; shift < 32; shift += 16) {
        memset(whole, 0xff, sizeof whole), memset(parts, 0xff, sizeof parts);
        rotate_long(x, whole + shift, 0, TOKENS);
        for (int64_t t = 0; t < TOKENS; t += STEP) rotate_long(x, parts + shift, t, STEP);
        if (memcmp(whole, parts, sizeof whole)) fail_msg("%d bytes off", shift);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_shape),
                                       cmocka_unit_test(past_the_caches)};
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed =
        run_group("rope types", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
