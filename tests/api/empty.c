/* empty.c: calls over tensors without elements, whose other axes are as long as 63 bits allow: each returns at
 * once, with what a short one returns. */
#include "api.h"

#include <signal.h>
#include <unistd.h>

#define MANY ((int64_t)1 << 60)
#define SOME ((int64_t)1 << 46) /* attention on a CPU takes 2^48 elements, a table as many tokens */

enum { SECONDS = 20, HEAD = 32, ROWS = 9, PAGE = 4 };

static rapt_context *context;
static rapt_device *device;
static const int64_t minus_one = -1, zero = 0, eight = 8, nine = 9;
static float one[PAGE * HEAD];

static void too_long(int number)
{
    static const char words[] = "# a call over nothing does not return\n";
    (void)number;
    _exit(write(2, words, sizeof words - 1) > 0 ? 3 : 4);
}

static int ends_in_time(void **state)
{
    (void)state;
    alarm(SECONDS);
    return 0;
}

/* One element as often as asked; none where a size is 0. */
static rapt_tensor repeated(const void *data, int64_t dtype, int64_t batch, int64_t heads,
                            int64_t tokens, int64_t channels)
{
    return (rapt_tensor){(void *)data, dtype, {batch, heads, tokens, channels}, {0, 0, 0, 0}};
}

static rapt_tensor floats(int64_t batch, int64_t heads, int64_t tokens, int64_t channels)
{
    return repeated(one, RAPT_F32, batch, heads, tokens, channels);
}

static rapt_tensor indices(const int64_t *value, int64_t batch, int64_t tokens)
{
    rapt_tensor t = repeated(value, RAPT_I64, batch, 1, tokens, 1);
    if (!batch || !tokens) t.stride[0] = t.stride[2] = 1;
    return t;
}

static void done(rapt_status status)
{
    if (status) fail_msg("%s", rapt_last_error());
}

/* Of a problem: one is 0, and another or all others are as long as it goes. */
struct sizes {
    int64_t batch, heads, tokens, keys, channels;
};
enum { AXES = 5, ALL = AXES };

static struct sizes without(int empty, int longest, int64_t most)
{
    struct sizes n;
    int64_t *size[AXES] = {&n.batch, &n.heads, &n.tokens, &n.keys, &n.channels};
    for (int axis = 0; axis < AXES; axis++)
        *size[axis] = axis == empty ? 0 : longest == ALL || axis == longest ? most : 1;
    return n;
}

/* longest: at most so. */
static void each_size(void (*call)(struct sizes n), int64_t most, int longest)
{
    for (int empty = 0; empty < AXES; empty++)
        for (int axis = 0; axis <= longest; axis++) call(without(empty, axis, most));
}

/* ---- Rows ---- */

static void pass_rows(struct sizes n)
{
    rapt_softmax_args softmax = {.struct_size = sizeof softmax};
    rapt_causal_mask_args mask = {.struct_size = sizeof mask};
    if (!n.keys) return;
    softmax.x = softmax.out = mask.x = floats(n.batch, n.heads, n.tokens, n.channels);
    done(rapt_softmax(device, &softmax, NULL));
    done(rapt_causal_mask(device, &mask, NULL));
}

static void rows(void **state)
{
    (void)state;
    each_size(pass_rows, MANY, ALL);
}

/* Positions are looked at although nothing turns. */
static void rotate(struct sizes n)
{
    rapt_rope_args a = {.struct_size = sizeof a};
    int64_t channels = n.channels ? HEAD : 0;
    if (!n.keys) return;
    a.x = a.out = floats(n.batch, n.heads, n.tokens, channels);
    done(rapt_rope(device, &a, NULL));
    a.cos = a.sin = floats(1, 1, ROWS, channels / 2);
    a.position = indices(&eight, n.batch, n.tokens);
    done(rapt_rope(device, &a, NULL));
    for (int given = 0; given < 2 && n.batch && n.tokens == MANY; given++) {
        a.position = given ? indices(&nine, n.batch, n.tokens) : (rapt_tensor){0};
        expect(rapt_rope(device, &a, NULL), RAPT_INVALID,
               "rapt_rope: a position is 9 (cos and sin have rows 0 ... 8)");
    }
}

static void rotations(void **state)
{
    (void)state;
    each_size(rotate, MANY, ALL);
}

/* ---- Products ---- */

static void multiply(struct sizes n)
{
    rapt_qk_args qk = {.struct_size = sizeof qk};
    rapt_pv_args pv = {.struct_size = sizeof pv};
    int64_t kv_heads = n.heads ? n.heads : MANY;
    qk.q = floats(n.batch, n.heads, n.tokens, HEAD);
    qk.k = floats(n.batch, kv_heads, n.keys, HEAD);
    qk.out = pv.weights = floats(n.batch, n.heads, n.tokens, n.keys);
    pv.v = floats(n.batch, kv_heads, n.keys, n.channels);
    pv.out = floats(n.batch, n.heads, n.tokens, n.channels);
    if (n.channels) done(rapt_qk(device, &qk, NULL));
    if (n.keys) done(rapt_pv(device, &pv, NULL));
}

static void products(void **state)
{
    (void)state;
    each_size(multiply, MANY, ALL);
}

/* ---- Keys and values ---- */

static void replicate(struct sizes n)
{
    rapt_kv_replicate_args a = {.struct_size = sizeof a};
    if (!n.keys) return;
    a.k = a.v = a.k_out = a.v_out = floats(n.batch, n.heads, n.tokens, n.channels);
    done(rapt_kv_replicate(device, &a, NULL));
    if (n.heads) return;
    a.k.size[1] = a.v.size[1] = MANY;
    done(rapt_kv_replicate(device, &a, NULL));
}

static void replicas(void **state)
{
    (void)state;
    each_size(replicate, MANY, ALL);
}

static rapt_kv_append_args append_of(int64_t batch, int64_t heads, int64_t tokens, int64_t channels)
{
    rapt_kv_append_args a = {.struct_size = sizeof a};
    a.k_new = a.v_new = a.k = a.v = floats(batch, heads, tokens, channels);
    return a;
}

static void append(struct sizes n)
{
    rapt_rope_args rope = {.struct_size = sizeof rope};
    if (!n.keys) return;
    rapt_kv_append_args a = append_of(n.batch, n.heads, n.tokens, n.channels ? HEAD : 0);
    done(rapt_kv_append(device, &a, NULL));
    a.kv_length = indices(&zero, n.batch, 1);
    a.rope = &rope;
    done(rapt_kv_append(device, &a, NULL));
}

static void appends(void **state)
{
    (void)state;
    each_size(append, MANY, ALL);
}

/* Lengths and positions are looked at although nothing is written. */
static void appends_refused(void **state)
{
    rapt_rope_args rope = {.struct_size = sizeof rope};
    rapt_kv_append_args a = append_of(MANY, 0, MANY, HEAD);
    (void)state;
    a.kv_length = indices(&minus_one, MANY, 1);
    expect(rapt_kv_append(device, &a, NULL), RAPT_INVALID,
           "rapt_kv_append: sequence 0 holds -1 tokens and gets 1152921504606846976 (the cache has "
           "room for 1152921504606846976)");
    a = append_of(MANY, 0, MANY, HEAD);
    a.rope = &rope;
    rope.cos = rope.sin = floats(1, 1, ROWS, HEAD / 2);
    for (int given = 0; given < 2; given++) {
        if (given) rope.position = indices(&nine, MANY, MANY);
        expect(rapt_kv_append(device, &a, NULL), RAPT_INVALID,
               "rapt_kv_append: a position is 9 (cos and sin have rows 0 ... 8)");
    }
    rope.position = indices(&eight, MANY, MANY);
    done(rapt_kv_append(device, &a, NULL));
}

/* Pages and starts that are one entry, repeated. */
static void appends_to_pages(void **state)
{
    (void)state;
    rapt_kv_append_args a = append_of(MANY, 0, SOME, HEAD);
    a.k = a.v = floats(2, 0, PAGE, HEAD);
    a.page_table = indices(&zero, MANY, SOME);
    done(rapt_kv_append(device, &a, NULL));
    a.page_table = indices(&nine, MANY, SOME);
    expect(rapt_kv_append(device, &a, NULL), RAPT_INVALID,
           "rapt_kv_append: page_table[0, 0] is 9 (0 ... 1)");
    /* Of sequences that all begin and end with the same token none has one. */
    static float k[PAGE * HEAD], v[PAGE * HEAD];
    a.k_new = a.v_new = rapt_tensor_bthd(one, RAPT_F32, 1, 1, PAGE, HEAD);
    a.k = rapt_tensor_bthd(k, RAPT_F32, 1, 1, PAGE, HEAD);
    a.v = rapt_tensor_bthd(v, RAPT_F32, 1, 1, PAGE, HEAD);
    a.page_table = indices(&zero, MANY, 1);
    a.q_start = indices(&zero, MANY + 1, 1);
    done(rapt_kv_append(device, &a, NULL));
    a.q_start = indices(&nine, MANY + 1, 1);
    expect(rapt_kv_append(device, &a, NULL), RAPT_INVALID,
           "rapt_kv_append: q_start[0] is 9 and q_start[1] is 9 (rising, 0 ... 4)");
}

/* ---- Attention ---- */

static rapt_attention attention_of(struct sizes n, int64_t kv_heads)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = 1};
    a.q = a.out = floats(n.batch, n.heads, n.tokens, HEAD);
    a.k = a.v = floats(n.batch, kv_heads, n.keys, HEAD);
    return a;
}

static void attend(struct sizes n)
{
    if (n.batch && n.heads && n.tokens) return; /* has results */
    rapt_attention a = attention_of(n, n.heads);
    done(rapt_forward(device, &a, NULL));
    a.kv_length = indices(&zero, n.batch, 1);
    done(rapt_forward(device, &a, NULL));
    if (n.heads) return;
    a.k.size[1] = a.v.size[1] = n.batch > 1 || n.keys > 1 ? 1 : SOME / HEAD;
    done(rapt_forward(device, &a, NULL));
}

static void attention(void **state)
{
    (void)state;
    each_size(attend, SOME / HEAD, ALL - 1);
    for (int empty = 0; empty < 3; empty++) {
        struct sizes n = without(empty, ALL, SOME);
        rapt_attention a = attention_of(n, n.heads);
        expect(rapt_forward(device, &a, NULL), RAPT_UNSUPPORTED,
               "no kernel of cpu:0 serves this (*counts elements of a tensor in 48 bits, empty "
               "axes as 1*)");
    }
}

/* Lengths, pages and starts are looked at although nothing is computed. */
static void attention_over_indices(void **state)
{
    (void)state;
    struct sizes n = {.batch = SOME / HEAD, .tokens = 1, .keys = 1};
    rapt_attention a = attention_of(n, 0);
    a.kv_length = indices(&nine, n.batch, 1);
    expect(rapt_forward(device, &a, NULL), RAPT_INVALID,
           "rapt_forward: kv_length[0] is 9 (0 ... 1)");
    a = attention_of(n, 0);
    a.k.size[0] = a.v.size[0] = 1;
    a.page_table = indices(&zero, n.batch, SOME / n.batch);
    done(rapt_forward(device, &a, NULL));
    a.page_table = indices(&nine, 2, SOME);
    a.q.size[0] = a.out.size[0] = 2;
    expect(rapt_forward(device, &a, NULL), RAPT_INVALID,
           "rapt_forward: page_table[0, 0] is 9 (0 ... 0)");
    a.page_table = indices(&zero, 2, SOME);
    done(rapt_forward(device, &a, NULL));
    /* Of sequences that all begin and end with the same token none has one. */
    static float out[HEAD];
    a = attention_of((struct sizes){1, 1, 1, 1, HEAD}, 1);
    a.out = rapt_tensor_bthd(out, RAPT_F32, 1, 1, 1, HEAD);
    a.q_start = indices(&zero, SOME, 1);
    a.kv_start = indices(&zero, SOME, 1);
    done(rapt_forward(device, &a, NULL));
    a.kv_start = indices(&nine, SOME, 1);
    expect(rapt_forward(device, &a, NULL), RAPT_INVALID,
           "rapt_forward: kv_start[0] is 9 (0 ... 1)");
    for (int i = 0; i < HEAD; i++) assert_true(out[i] == 0);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup(name, ends_in_time)
    const struct CMUnitTest tests[] = {TEST(rows),
                                       TEST(rotations),
                                       TEST(products),
                                       TEST(replicas),
                                       TEST(appends),
                                       TEST(appends_refused),
                                       TEST(appends_to_pages),
                                       TEST(attention),
                                       TEST(attention_over_indices)};
#undef TEST
    signal(SIGALRM, too_long);
    open_cpu(&context, 2);
    device = rapt_device_at(context, 0);
    int failed = run_group("empty", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
    rapt_close(&context);
    return failed;
}
