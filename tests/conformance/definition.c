/* definition.c: the oracle against closed forms, and the problem lines against counts and guards
 * that are known by hand. */
#include "base/dtype.h"
#include "bound.h"
#include "oracle.h"
#include "problem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

#define assert_near(got, want) assert_true(fabs((got) - (want)) <= 1e-12 * (1 + fabs(want)))

/* One head of at most 8 keys and 4 channels in f32. */
struct small {
    float q[8 * 4], k[8 * 4], v[8 * 4], out[8 * 4], sink[1], slope[1], bias[64];
    uint8_t mask[64];
    rapt_attention a;
    struct oracle oracle;
    struct oracle_row row;
};

static void small_open(struct small *s, int64_t queries, int64_t keys)
{
    memset(s, 0, sizeof *s);
    s->a = (rapt_attention){.struct_size = sizeof s->a};
    s->a.q = rapt_tensor_bhtd(s->q, RAPT_F32, 1, 1, queries, 4);
    s->a.k = rapt_tensor_bhtd(s->k, RAPT_F32, 1, 1, keys, 4);
    s->a.v = rapt_tensor_bhtd(s->v, RAPT_F32, 1, 1, keys, 4);
    s->a.out = rapt_tensor_bhtd(s->out, RAPT_F32, 1, 1, queries, 4);
    for (int i = 0; i < 32; i++) {
        s->q[i] = (float)problem_normal(1, 1, (uint64_t)i);
        s->k[i] = (float)problem_normal(1, 2, (uint64_t)i);
        s->v[i] = (float)problem_normal(1, 3, (uint64_t)i);
    }
}

static void small_row(struct small *s, int64_t query)
{
    assert_true(oracle_open(&s->oracle, &s->a));
    assert_true(oracle_row_open(&s->row, &s->oracle));
    assert_true(oracle_row(&s->oracle, 0, 0, query, &s->row));
}

static void small_close(struct small *s)
{
    oracle_row_close(&s->row);
    oracle_close(&s->oracle);
}

/* Equal scores: the average of the values, and lse = log of their number. */
static void uniform_scores(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 2, 8);
    memset(s.q, 0, sizeof s.q);
    small_row(&s, 0);
    double mean = 0;
    for (int j = 0; j < 8; j++) mean += s.v[j * 4 + 1] / 8.0;
    assert_near(s.row.out[1], mean);
    assert_near(s.row.lse, log(8));
    assert_int_equal(s.row.visible, 8);
    small_close(&s);
}

static void one_key(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 1, 1);
    small_row(&s, 0);
    double dot = 0;
    for (int c = 0; c < 4; c++) dot += (double)s.q[c] * s.k[c];
    assert_near(s.row.out[2], s.v[2]);
    assert_near(s.row.lse, dot / 2); /* scale 1 / sqrt(4) */
    small_close(&s);
}

/* Two keys: the logistic function of the difference of their scores. */
static void two_keys(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 1, 2);
    s.a.scale = -0.75;
    small_row(&s, 0);
    double d = 0;
    for (int c = 0; c < 4; c++) d += -0.75 * s.q[c] * ((double)s.k[4 + c] - s.k[c]);
    double p = 1 / (1 + exp(-d));
    assert_near(s.row.p[1], p);
    assert_near(s.row.out[3], (1 - p) * s.v[3] + p * s.v[7]);
    small_close(&s);
}

static void softcap_then_bias_then_slope(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 3, 5);
    s.a.softcap = 0.5;
    s.bias[0] = 3;
    s.a.bias = rapt_tensor_bhtd(s.bias, RAPT_F32, 1, 1, 1, 1);
    s.slope[0] = 0.25f;
    s.a.alibi_slope = rapt_tensor_bhtd(s.slope, RAPT_F32, 1, 1, 1, 1);
    small_row(&s, 1); /* position 1 + 5 - 3 = 3 */
    double dot = 0;
    for (int c = 0; c < 4; c++) dot += (double)s.q[4 + c] * s.k[c] / 2;
    assert_near(s.row.score[0], 0.5 * tanh(dot / 0.5) + 3 - 0.25 * 3);
    small_close(&s);
}

static void sink_takes_its_share(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 1, 2);
    memset(s.q, 0, sizeof s.q);
    s.sink[0] = (float)log(2.0);
    s.a.sink = rapt_tensor_bhtd(s.sink, RAPT_F32, 1, 1, 1, 1);
    small_row(&s, 0);
    assert_true(fabs(s.row.p[0] - 0.25) < 1e-7); /* 1 / (1 + 1 + 2) */
    assert_true(fabs(s.row.lse - log(4)) < 1e-7);
    small_close(&s);
}

/* Which keys query i of 3 sees among 5: by causal and window, in both alignments. */
static void visible_keys_by_hand(void **state)
{
    static const struct {
        int causal, align, left, right, query;
        const char *seen;
    } cases[] = {
        {1, RAPT_BOTTOM_RIGHT, -1, -1, 0, "11100"}, {1, RAPT_BOTTOM_RIGHT, -1, -1, 2, "11111"},
        {1, RAPT_TOP_LEFT, -1, -1, 0, "10000"},     {1, RAPT_TOP_LEFT, -1, -1, 2, "11100"},
        {0, RAPT_BOTTOM_RIGHT, 1, 1, 0, "01110"},   {0, RAPT_BOTTOM_RIGHT, 0, 0, 1, "00010"},
        {0, RAPT_TOP_LEFT, 0, 1, 2, "00110"},       {1, RAPT_BOTTOM_RIGHT, 1, 3, 1, "00110"},
        {0, RAPT_BOTTOM_RIGHT, -1, 0, 0, "11100"},  {0, RAPT_BOTTOM_RIGHT, 2, -1, 2, "00111"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct small s;
        small_open(&s, 3, 5);
        s.a.causal = cases[i].causal;
        s.a.align = cases[i].align;
        s.a.window_left = RAPT_WINDOW(cases[i].left);
        s.a.window_right = RAPT_WINDOW(cases[i].right);
        small_row(&s, cases[i].query);
        for (int j = 0; j < 5; j++) assert_int_equal(s.row.seen[j], cases[i].seen[j] - '0');
        small_close(&s);
    }
}

static void empty_row(void **state)
{
    struct small s;
    (void)state;
    small_open(&s, 5, 3);
    s.a.causal = 1; /* position 0 + 3 - 5 */
    small_row(&s, 0);
    assert_int_equal(s.row.visible, 0);
    assert_true(s.row.lse == -INFINITY && s.row.out[0] == 0);
    small_close(&s);
}

/* Dense, packed and paged storage of the same tokens are the same problem. */
static void storage_does_not_matter(void **state)
{
    static const char *const lines[] = {
        "forward f32 b3 h4/2 q9 kv40 d16 causal lse kvlen=40,7,21",
        "forward f32 b3 h4/2 q9 kv40 d16 causal lse kvlen=40,7,21 paged7 i64",
        "forward f32 b3 h4/2 q9 kv40 d16 causal lse kvlens=40,7,21 bhtd odd",
        "forward f32 h4/2 q9 kv40 d16 causal lse qlens=9,9,9 kvlens=40,7,21 neg"};
    static struct problem_line line;
    double first[3][4];
    (void)state;
    for (int n = 0; n < 4; n++) {
        char error[256];
        struct problem_instance *p = malloc(sizeof *p);
        struct oracle o;
        struct oracle_row row;
        assert_true(problem_parse(lines[n], &line, error, sizeof error) &&
                    problem_build(&line, p, error, sizeof error));
        assert_true(oracle_open(&o, &p->args.forward) && oracle_row_open(&row, &o));
        for (int b = 0; b < 3; b++)
            for (int h = 0; h < 4; h++) {
                assert_true(oracle_row(&o, b, h, 8, &row));
                if (!n) first[b][h] = row.out[5] + row.lse;
                assert_true(row.out[5] + row.lse == first[b][h]);
            }
        oracle_row_close(&row);
        oracle_close(&o);
        problem_free(p);
        free(p);
    }
}

/* ---- RoPE ---- */

static void rope_angles(void **state)
{
    rapt_rope_args a = {.struct_size = sizeof a};
    double c, s;
    (void)state;
    oracle_rope_angle(&a, 64, 3, 0, &c, &s);
    assert_near(c, cos(3.0));
    assert_near(s, sin(3.0));
    oracle_rope_angle(&a, 64, 1000, 16, &c, &s); /* 10000^(-32/64) = 1/100 */
    assert_true(fabs(c - cos(10.0)) < 1e-11 && fabs(s - sin(10.0)) < 1e-11);
    a.scaling = RAPT_ROPE_LINEAR;
    a.factor = 4;
    oracle_rope_angle(&a, 64, 8, 0, &c, &s);
    assert_near(c, cos(2.0));
    a.scaling = RAPT_ROPE_NTK; /* the last pair turns as slowly as with linear scaling */
    double last, linear;
    oracle_rope_angle(&a, 64, 1000, 31, &c, &last);
    a.scaling = RAPT_ROPE_LINEAR;
    oracle_rope_angle(&a, 64, 1000, 31, &c, &linear);
    assert_true(fabs(last - linear) < 1e-12);
}

/* Llama 3.1: 8192 tokens, factor 8, theta 500000, heads of 128. Fast pairs are kept, slow ones
 * divided by 8. */
static void rope_llama3(void **state)
{
    rapt_rope_args plain = {.struct_size = sizeof plain, .theta = 500000}, scaled = plain;
    double c, s, kept, slow;
    (void)state;
    scaled.scaling = RAPT_ROPE_LLAMA3;
    scaled.factor = 8;
    scaled.original_context = 8192;
    oracle_rope_angle(&plain, 128, 5, 10, &c, &s);
    oracle_rope_angle(&scaled, 128, 5, 10, &c, &kept);
    assert_true(s == kept);
    oracle_rope_angle(&plain, 128, 1, 60, &c, &s);
    oracle_rope_angle(&scaled, 128, 8, 60, &c, &slow);
    assert_near(slow, s);
}

static void rope_yarn(void **state)
{
    rapt_rope_args a = {
        .struct_size = sizeof a, .scaling = RAPT_ROPE_YARN, .factor = 4, .original_context = 4096};
    rapt_rope_args plain = {.struct_size = sizeof plain};
    double c, s, c0, s0, m = 0.1 * log(4.0) + 1;
    (void)state;
    oracle_rope_angle(&a, 128, 3, 0, &c,
                      &s); /* fast pairs keep their frequency; cos and sin are multiplied */
    oracle_rope_angle(&plain, 128, 3, 0, &c0, &s0);
    assert_near(c, m * c0);
    oracle_rope_angle(&a, 128, 400, 63, &c, &s); /* slow ones are interpolated */
    oracle_rope_angle(&plain, 128, 100, 63, &c0, &s0);
    assert_near(s, m * s0);
}

/* gpt-oss: of its 32 pairs those from 9 to 17 have other frequencies if the ends of the blend are
 * rounded. */
static void rope_yarn_untruncated(void **state)
{
    rapt_rope_args a = {.struct_size = sizeof a,
                        .scaling = RAPT_ROPE_YARN,
                        .theta = 150000,
                        .factor = 32,
                        .original_context = 4096,
                        .untruncated = 1};
    double c, s, truncated, m = 0.1 * log(32.0) + 1;
    (void)state;
    oracle_rope_angle(&a, 64, 100, 13, &c, &s);
    assert_near(c, m * cos(0.38603593171920662812));
    oracle_rope_angle(&a, 64, 1000, 17, &c, &s);
    assert_near(s, m * sin(0.12931870124506272061));
    oracle_rope_angle(&a, 64, 1000, 18, &c, &s);
    a.untruncated = 0;
    oracle_rope_angle(&a, 64, 1000, 18, &c, &truncated);
    assert_true(s == truncated);
    oracle_rope_angle(&a, 64, 1000, 17, &c, &s);
    assert_near(s, m * sin(0.22794779579512526326));
}

/* A rotation keeps the norm, and the dot product depends on the distance alone. */
static void rope_is_a_relative_rotation(void **state)
{
    double q[64], k[64], a[64], b[64], dot[2] = {0, 0}, norm = 0, turned = 0;
    (void)state;
    for (int i = 0; i < 64; i++) {
        q[i] = problem_normal(1, 1, (uint64_t)i);
        k[i] = problem_normal(1, 2, (uint64_t)i);
    }
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        rapt_rope_args args = {.struct_size = sizeof args, .interleaved = interleaved};
        for (int n = 0; n < 2; n++) {
            oracle_rotate(&args, 100 + 5000 * n, 64, q, a);
            oracle_rotate(&args, 77 + 5000 * n, 64, k, b);
            dot[n] = 0;
            for (int i = 0; i < 64; i++) dot[n] += a[i] * b[i];
        }
        assert_true(fabs(dot[0] - dot[1]) < 1e-10);
        norm = turned = 0;
        for (int i = 0; i < 64; i++) {
            norm += q[i] * q[i];
            turned += a[i] * a[i];
        }
        assert_near(turned, norm);
    }
}

/* ---- Problem lines ---- */

static double flops_of(const char *text)
{
    static struct problem_line line;
    char error[256];
    assert_true(problem_parse(text, &line, error, sizeof error));
    return problem_flops(&line);
}

static void counts_of_work(void **state)
{
    (void)state;
    assert_true(flops_of("forward bf16 b2 h16/4 q1024 kv2048 d128") ==
                4.0 * 2 * 16 * 1024 * 2048 * 128);
    assert_true(flops_of("forward bf16 b1 h1 q100 kv100 d64 causal") == 4.0 * 5050 * 64);
    assert_true(flops_of("forward bf16 b1 h1 q10 kv100 d64 causal") == 4.0 * (91 + 100) * 5 * 64);
    assert_true(flops_of("forward bf16 b1 h1 q100 kv100 d64 window0,0") == 4.0 * 100 * 64);
    assert_true(flops_of("forward bf16 q9 kv3 window9223372036854775806,0") ==
                flops_of("forward bf16 q9 kv3 causal"));
    assert_true(flops_of("forward bf16 q3 kv9 window0,9223372036854775806") ==
                flops_of("forward bf16 q3 kv9 window0,inf"));
    assert_true(flops_of("forward bf16 h3 q9 kv9 d64/32 qlens=3,0,2 kvlens=5,9,4") ==
                2.0 * 3 * (15 + 8) * 96);
}

/* What mask-ends leaves of three sequences: no key outside of it is shown, each within it to some query. */
static void masks_of_padding(void **state)
{
    enum { QUERIES = 64, KEYS = 40, HALF = KEYS / 2, LESS = KEYS / 20 };
    static const int left[3][2] = {
        {0, HALF + LESS}, {HALF - LESS, KEYS}, {HALF - LESS, HALF + LESS}};
    static struct problem_line line;
    char error[256];
    struct problem_instance *p = malloc(sizeof *p);
    (void)state;
    assert_true(
        problem_parse("forward f32 b3 h1 q64 kv40 d8 mask-ends", &line, error, sizeof error) &&
        problem_build(&line, p, error, sizeof error));
    const rapt_tensor *mask = &p->args.forward.mask;
    const unsigned char *bytes = mask->data;
    assert_non_null(bytes);
    for (int64_t b = 0; b < 3; b++)
        for (int64_t j = 0; j < KEYS; j++) {
            bool shown = false;
            for (int64_t i = 0; i < QUERIES; i++)
                shown |= bytes[tensor_offset(mask, b, 0, i, j)] != 0;
            assert_int_equal(shown, j >= left[b][0] && j < left[b][1]);
        }
    problem_free(p);
    free(p);
}

static void lines_that_mean_nothing(void **state)
{
    static const char *const lines[] = {"",
                                        "attention f32",
                                        "forward f33",
                                        "forward b",
                                        "forward h7/2",
                                        "forward q3 qlens=4",
                                        "forward window3",
                                        "forward window9223372036854775807,0",
                                        "forward kvlen=5 kv4",
                                        "forward mask=qq11",
                                        "kv_append q9 kv5",
                                        "forward paged16 ragged",
                                        "forward d64/",
                                        "forward b1x"};
    static struct problem_line line;
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char error[256] = "";
        assert_false(problem_parse(lines[i], &line, error, sizeof error));
        assert_non_null(strstr(error, "problem line: "));
    }
}

/* A byte outside of the outputs is noticed, inside it is not; a read-only input may not change at
 * all. */
static void guards_notice_stray_writes(void **state)
{
    static const char *const strides[] = {"", "odd", "neg", "chan2", "bhtd", "edge"};
    static struct problem_line line;
    (void)state;
    for (size_t n = 0; n < sizeof strides / sizeof *strides; n++) {
        char text[128], error[256];
        struct problem_instance *p = malloc(sizeof *p);
        snprintf(text, sizeof text, "forward f32 b2 h2 q5 kv9 d7 lse %s", strides[n]);
        assert_true(problem_parse(text, &line, error, sizeof error) &&
                    problem_build(&line, p, error, sizeof error));
        assert_null(problem_spoiled(p));
        float *out = p->args.forward.out.data, *q = p->args.forward.q.data;
        out[tensor_offset(&p->args.forward.out, 1, 1, 4, 6)] = 1;
        assert_null(problem_spoiled(p));
        const rapt_tensor *t = &p->args.forward.out;
        int64_t low = 0;
        for (int axis = 0; axis < 4; axis++)
            low += t->stride[axis] < 0 ? (t->size[axis] - 1) * t->stride[axis] : 0;
        out[low - 1] = 1;
        assert_string_equal(problem_spoiled(p), "out");
        problem_free(p);
        assert_true(problem_build(&line, p, error, sizeof error));
        q = p->args.forward.q.data;
        q[0] += 1;
        assert_string_equal(problem_spoiled(p), "q");
        problem_free(p);
        free(p);
    }
}

/* Size classes tell the truth, names are unique, and every line builds into what it says. */
static void named_problems_are_sound(void **state)
{
    static const double most[] = {1e6, 5e7, 1e12, 1e18};
    static struct problem_line line;
    (void)state;
    for (int i = 0; i < named_problem_count; i++) {
        char error[256] = "";
        const struct named_problem *named = &named_problems[i];
        if (!problem_parse(named->line, &line, error, sizeof error))
            fail_msg("%s: %s", named->name, error);
        if (problem_flops(&line) / 2 > most[named->size])
            fail_msg("%s is larger than size %d", named->name, named->size);
        for (int j = 0; j < i; j++)
            if (!strcmp(named_problems[j].name, named->name))
                fail_msg("%s is named twice", named->name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(uniform_scores),
                                       cmocka_unit_test(one_key),
                                       cmocka_unit_test(two_keys),
                                       cmocka_unit_test(softcap_then_bias_then_slope),
                                       cmocka_unit_test(sink_takes_its_share),
                                       cmocka_unit_test(visible_keys_by_hand),
                                       cmocka_unit_test(empty_row),
                                       cmocka_unit_test(storage_does_not_matter),
                                       cmocka_unit_test(rope_angles),
                                       cmocka_unit_test(rope_llama3),
                                       cmocka_unit_test(rope_yarn),
                                       cmocka_unit_test(rope_yarn_untruncated),
                                       cmocka_unit_test(rope_is_a_relative_rotation),
                                       cmocka_unit_test(counts_of_work),
                                       cmocka_unit_test(masks_of_padding),
                                       cmocka_unit_test(lines_that_mean_nothing),
                                       cmocka_unit_test(guards_notice_stray_writes),
                                       cmocka_unit_test(named_problems_are_sound)};
    return run_group("definition", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
