/* draw.h: problem lines of random sizes, types, layouts and options; each number is one sequence of lines. */
#ifndef RAPT_TESTS_DRAW_H
#define RAPT_TESTS_DRAW_H

#include "problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct draw {
    uint64_t seed, count;
};

static inline int64_t below(struct draw *d, int64_t n)
{
    return (int64_t)(problem_random(d->seed, 77, d->count++) % (uint64_t)n);
}

static inline bool chance(struct draw *d, int percent)
{
    return below(d, 100) < percent;
}

#define ONE_OF(d, list) (list)[below(d, sizeof(list) / sizeof *(list))]

__attribute__((format(printf, 2, 3))) static inline void add(char *line, const char *format, ...)
{
    size_t length = strlen(line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + length, PROBLEM_LINE - length, format, arguments);
    va_end(arguments);
}

/* A word that may be there beside any others, and how often of a hundred times. */
struct option {
    const char *word;
    int percent;
};

static inline void add_options(struct draw *d, char *line, const struct option *options,
                               size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (chance(d, options[i].percent)) add(line, " %s", options[i].word);
}

#define ADD_OPTIONS(d, line, options)                                                              \
    add_options(d, line, options, sizeof(options) / sizeof *(options))

/* At most one of these. */
static const char *const draw_strides[] = {"neg", "odd", "pad8", "chan2", "zero"};
static const char *const draw_pages[] = {"paged1", "paged7", "paged16", "paged33", "paged64"};

/* ---- forward ---- */

static const struct option forward_options[] = {{"causal", 35},
                                                {"topleft", 20},
                                                {"lse", 60},
                                                {"sink", 12},
                                                {"sink-nan", 2},
                                                {"sink-inf", 3},
                                                {"bias-inf", 2},
                                                {"bias-far", 2},
                                                {"bias-low", 2},
                                                {"mask-ends", 3},
                                                {"kv-shared", 4},
                                                {"alibi", 12},
                                                {"softcap2", 7},
                                                {"softcap0.25", 4},
                                                {"scale-0.3", 5},
                                                {"scale0.7", 5},
                                                {"bhtd", 40},
                                                {"kvlen", 30},
                                                {"batch_invariant", 15},
                                                {"edge", 20},
                                                {"weights", 5},
                                                {"out-f32", 15},
                                                {"hidden-nan", 25},
                                                {"i64", 10},
                                                {"bias", 6},
                                                {"bias=1h1k", 3},
                                                {"bias=b11k", 3},
                                                {"bias-own", 5},
                                                {"mask", 6},
                                                {"mask=11qk", 3},
                                                {"mask=b1q1", 3},
                                                {"ragged-q", 10},
                                                {"ragged-kv", 10},
                                                {"spare3", 10}};
static const char *const draw_windows[] = {"window0,0", "window5,3", "window40,0", "windowinf,9",
                                           "window130,inf"};
static const char *const draw_scales[] = {"block32",    "block32",    "block16",
                                          "scales=1h1", "scales=b1t", "scales=111"};
/* But the first two also of i8, whose scales make inexact what these have exact. */
static const char *const draw_numbers[] = {
    "huge",     "integer",   "needles", "growing",  "falling", "peaked", "cancelling",
    "constant", "sincos100", "tiny",    "denormal", "leap",    "large_v"};
enum { EXACT = 2, NUMBERS = sizeof draw_numbers / sizeof *draw_numbers };
/* The second half also of i8, whose infinite scales may give NaN (S23). */
static const char *const draw_special[] = {"inf_q", "inf_v", "minf_k", "minf_first", "minf_last",
                                           "nan_q", "nan_k", "nan_v",  "nan_v_end",  "nan_heads"};

static inline void draw_sizes(struct draw *d, char *line, int step)
{
    static const int64_t queries[] = {1, 1, 1, 2, 3, 4, 7, 13, 17, 33, 40, 64, 65, 100, 129},
                         keys[] = {0,   1,   2,   7,   15,   16,   17,  31,  33,
                                   63,  65,  100, 127, 128,  129,  255, 256, 257,
                                   300, 511, 513, 700, 1023, 1025, 1537},
                         channels[] = {1,  3,  8,  16, 17,  31,  33,  40,
                                       64, 65, 80, 96, 128, 130, 192, 256},
                         groups[] = {1, 1, 2, 3, 4, 5, 8, 9, 16};
    int64_t q = ONE_OF(d, queries), kv = ONE_OF(d, keys), batch = 1 + below(d, 3),
            kv_heads = 1 + below(d, 3), group = ONE_OF(d, groups), qk = ONE_OF(d, channels),
            v = chance(d, 70) ? qk : ONE_OF(d, channels);
    if (step > 1) qk = step * (1 + below(d, 6)), v = chance(d, 70) ? qk : step * (1 + below(d, 6));
    if (chance(d, 2)) qk = 576, v = 512; /* absorbed MLA */
    while (batch * kv_heads * group * q * kv * (qk + v) > 6000000) {
        if (q > 2 * kv) q /= 2;
        else if (group > 1) group /= 2;
        else if (batch > 1) batch--;
        else if (kv_heads > 1) kv_heads--;
        else if (q > 8) q /= 2;
        else kv /= 2;
    }
    add(line, " b%d h%d/%d q%d kv%d d%d/%d", (int)batch, (int)(kv_heads * group), (int)kv_heads,
        (int)q, (int)kv, (int)qk, (int)v);
}

/* Words may contradict each other: then the parser says so, and others are drawn. true: some values are no numbers. */
static inline bool draw_forward(struct draw *d, char *line)
{
    static const char *const dtypes[] = {"f32",        "f16",        "bf16",       "f32",
                                         "f16",        "bf16",       "f32 kv-i8",  "f16 kv-i8",
                                         "bf16 kv-i8", "bf16 kv-i8", "f32 kv-f16", "f32 kv-bf16",
                                         "i8 kv-i8"};
    const char *dtype = ONE_OF(d, dtypes), *scale = chance(d, 60) ? ONE_OF(d, draw_scales) : "";
    bool q_is_i8 = dtype[0] == 'i', is_i8 = strstr(dtype, "i8") != NULL,
         blocked = !is_i8 && chance(d, 12);
    snprintf(line, PROBLEM_LINE, "forward %s", dtype);
    draw_sizes(d, line, (is_i8 && strncmp(scale, "block", 5) == 0) || blocked ? 32 : 1);
    if (is_i8) add(line, " %s", scale);
    if (blocked) add(line, " kv-blocked%s", chance(d, 30) ? " paged64" : "");
    else if (chance(d, 20)) add(line, " %s", ONE_OF(d, draw_pages));
    if (!blocked && chance(d, 15)) add(line, " %s", ONE_OF(d, draw_strides));
    if (chance(d, 20)) add(line, " %s", ONE_OF(d, draw_windows));
    for (size_t i = 0; i < sizeof forward_options / sizeof *forward_options; i++)
        if (chance(d, forward_options[i].percent) &&
            !(q_is_i8 && !strcmp(forward_options[i].word, "bias-own")))
            add(line, " %s", forward_options[i].word);
    bool numbers = chance(d, 25), special = !numbers && chance(d, 20);
    if (numbers)
        add(line, " %s",
            draw_numbers[is_i8 ? EXACT + below(d, NUMBERS - EXACT) : below(d, NUMBERS)]);
    if (special) add(line, " %s", draw_special[is_i8 ? 5 + below(d, 5) : below(d, 10)]);
    add(line, " seed%d", (int)below(d, 1000));
    return special;
}

/* ---- The separate operations ---- */

static const char *const draw_floats[] = {"f32", "f16", "bf16"};
static const int64_t draw_rows[] = {0, 1, 1, 2, 3, 7, 16, 17, 31, 32, 33, 64, 65, 100, 129},
                     draw_columns[] = {0,   1,   2,   7,   8,   9,   15,   16,   17,   31,
                                       33,  63,  64,  65,  100, 127, 128,  129,  200,  255,
                                       256, 257, 303, 511, 512, 640, 1000, 1024, 1025, 2049},
                     draw_channels[] = {2,  3,  8,  16,  17,  31,  32,  33,  40, 64,
                                        65, 80, 96, 128, 130, 160, 192, 256, 320};
static const struct option layout_options[] = {{"bhtd", 40}, {"edge", 25}};

static inline void add_layout(struct draw *d, char *line)
{
    ADD_OPTIONS(d, line, layout_options);
    if (chance(d, 35)) add(line, " %s", ONE_OF(d, draw_strides));
}

static inline void add_target(struct draw *d, char *line)
{
    if (chance(d, 25)) add(line, " inplace");
    else if (chance(d, 25)) add(line, " out-f32");
}

/* Positions and frequencies of channels that turn. */
static inline void add_angles(struct draw *d, char *line, int64_t channels)
{
    static const char *const places[] = {"",      "positions", "positions i64", "positions far i64",
                                         "table", "table i64"},
                             *const scalings[] = {"",
                                                  "",
                                                  "linear4",
                                                  "ntk4",
                                                  "yarn4 context4096",
                                                  "yarn32 context4096 untruncated",
                                                  "llama3=8 context8192"},
                             *const thetas[] = {"", "", "theta500000", "theta7.5"};
    int64_t pairs = channels / 2;
    if (channels % 2 || chance(d, 40)) add(line, " rotary%d", 2 * (int)(1 + below(d, pairs)));
    if (chance(d, 40)) add(line, " interleaved");
    add(line, " %s %s %s", ONE_OF(d, places), ONE_OF(d, scalings), ONE_OF(d, thetas));
}

static inline void draw_rope(struct draw *d, char *line)
{
    int64_t channels = ONE_OF(d, draw_channels);
    add(line, "rope %s b%d h%d q%d d%d", ONE_OF(d, draw_floats), (int)(1 + below(d, 3)),
        (int)(1 + below(d, 4)), (int)ONE_OF(d, draw_rows), (int)channels);
    add_angles(d, line, channels);
    add_target(d, line);
    add_layout(d, line);
}

static inline void add_scores(struct draw *d, char *line)
{
    add(line, " %s b%d h%d q%d kv%d", ONE_OF(d, draw_floats), (int)(1 + below(d, 3)),
        (int)(1 + below(d, 3)), (int)ONE_OF(d, draw_rows), (int)ONE_OF(d, draw_columns));
}

static inline void draw_softmax(struct draw *d, char *line)
{
    static const char *const values[] = {"", "", "huge", "unusual"};
    add(line, "softmax");
    add_scores(d, line);
    add_target(d, line);
    add_layout(d, line);
    add(line, " %s", ONE_OF(d, values));
}

static inline void draw_causal_mask(struct draw *d, char *line)
{
    add(line, "causal_mask");
    add_scores(d, line);
    add_layout(d, line);
    if (chance(d, 30)) add(line, " topleft");
}

/* Sizes of a product of matrices; k and v may be of another type where q or the weights are f32. */
static inline void add_product(struct draw *d, char *line)
{
    static const char *const dtypes[] = {"f32", "f16", "bf16", "f32 kv-f16", "f32 kv-bf16"};
    int64_t q = ONE_OF(d, draw_rows), kv = ONE_OF(d, draw_columns),
            channels = ONE_OF(d, draw_channels), heads = 1 + below(d, 2);
    while (q * kv * channels > 1000000) q /= 2;
    add(line, " %s b%d h%d/%d q%d kv%d d%d", ONE_OF(d, dtypes), (int)(1 + below(d, 2)),
        (int)(heads * (1 + below(d, 3))), (int)heads, (int)q, (int)kv, (int)channels);
    if (chance(d, 40)) add(line, " out-f32");
    add_layout(d, line);
}

/* Integers have scores that are exact, but for the scale. */
static inline void draw_qk(struct draw *d, char *line)
{
    static const char *const values[] = {
        "", "", "scale-0.7", "scale1", "integer scale1", "cancelling", "tiny", "denormal scale-1"};
    add(line, "qk");
    add_product(d, line);
    add(line, " %s", ONE_OF(d, values));
}

static inline void draw_pv(struct draw *d, char *line)
{
    add(line, "pv");
    add_product(d, line);
    if (chance(d, 40)) add(line, " hidden-nan");
}

static inline void draw_kv_replicate(struct draw *d, char *line)
{
    int64_t heads = 1 + below(d, 3);
    add(line, "kv_replicate %s b%d h%d/%d q1 kv%d d%d/%d", ONE_OF(d, draw_floats),
        (int)(1 + below(d, 3)), (int)(heads * (1 + below(d, 5))), (int)heads,
        (int)ONE_OF(d, draw_rows), (int)ONE_OF(d, draw_channels), (int)ONE_OF(d, draw_channels));
    add_layout(d, line);
}

static inline void draw_kv_append(struct draw *d, char *line)
{
    static const char *const caches[] = {"", "", "kv-f32", "kv-f16", "kv-bf16", "kv-i8", "kv-i8"},
                             *const pages[] = {"paged32", "paged64"};
    static const struct option lengths[] = {{"kvlen", 60}, {"i64", 20}};
    const char *cache = ONE_OF(d, caches);
    bool is_i8 = !strcmp(cache, "kv-i8"), blocked = !is_i8 && chance(d, 20),
         blocks = is_i8 && chance(d, 50), turns = chance(d, 50);
    int64_t q = ONE_OF(d, draw_rows), k = ONE_OF(d, draw_channels), v = ONE_OF(d, draw_channels);
    if (blocked || blocks) k = 32 * (1 + below(d, 5)), v = 32 * (1 + below(d, 5));
    add(line, "kv_append %s %s b%d h%d q%d kv%d d%d/%d", ONE_OF(d, draw_floats), cache,
        (int)(1 + below(d, 4)), (int)(1 + below(d, 4)), (int)q, (int)(q + below(d, 80)), (int)k,
        (int)v);
    if (blocks) add(line, " block%d", chance(d, 70) ? 32 : 16);
    if (blocked) add(line, " kv-blocked");
    if (chance(d, 40)) add(line, " %s", blocked ? ONE_OF(d, pages) : ONE_OF(d, draw_pages));
    ADD_OPTIONS(d, line, lengths);
    if (chance(d, 40)) add(line, " ragged-q%s", chance(d, 40) ? " spare3" : "");
    if (turns) {
        add(line, " rope");
        add_angles(d, line, k);
    }
    if (is_i8 && chance(d, 20)) add(line, " vanishing");
    ADD_OPTIONS(d, line, layout_options);
    if (!blocked && chance(d, 35)) add(line, " %s", draw_strides[below(d, 3)]);
}

static inline void draw_operation(struct draw *d, char *line)
{
    static void (*const operations[])(struct draw *, char *) = {
        draw_rope,        draw_softmax,      draw_qk,        draw_pv,
        draw_causal_mask, draw_kv_replicate, draw_kv_append, draw_kv_append};
    line[0] = 0;
    ONE_OF(d, operations)(d, line);
    add(line, " seed%d", (int)below(d, 1000));
}

#endif
