/* problem_values.c: what the data kinds of problem lines put into the tensors. */
#include "problem.h"

#include <math.h>

/* SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014) over a counter. */
uint64_t problem_random(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + stream * 0xd1342543de82ef95u +
                 index * 0xc2b2ae3d27d4eb4fu + 0x632be59bd9b4e019u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

double problem_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(problem_random(seed, stream, index) >> 11) * 0x1p-53;
}

/* Sum of four 16-bit uniforms, scaled to variance 1: no libm, so the same bits on every machine. */
double problem_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t x = problem_random(seed, stream, index);
    double sum = (double)(x & 0xffff) + (double)(x >> 16 & 0xffff) + (double)(x >> 32 & 0xffff) +
                 (double)(x >> 48);
    return (sum + 2) * 0x1.bb67ae8584caap+0 * 0x1p-16 - 2 * 0x1.bb67ae8584caap+0;
}

int problem_exact(const struct problem_line *line)
{
    static const int exact[] = {
#define EXACT(name, exact) exact,
        PROBLEM_DATA_LIST(EXACT)
#undef EXACT
    };
    return exact[line->data];
}

/* Integers -3 ... 3: 9 * channels is the largest sum of products, far below 2^24. */
static double small_integer(uint64_t bits)
{
    return (double)(bits % 7) - 3;
}

/* Linear number of an element; sizes do not matter, so a longer problem starts with the same
 * values. */
static uint64_t element(int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (uint64_t)i0 * 0x9e3779b97f4a7c15u + (uint64_t)i1 * 0xc2b2ae3d27d4eb4fu +
           (uint64_t)i2 * 0x10001u + (uint64_t)i3;
}

/* -2^100 for 2^50 * -2^50; halves have no such range, their lowest is -2^28. Every third key is
 * lower by as much again. */
static double lowest_score(const struct problem_line *line, int which, int64_t token,
                           int64_t channel)
{
    double root = line->dtype == RAPT_F16 ? 0x1p14 : 0x1p50;
    if (channel) return 0;
    return which == VALUE_Q ? root : token % 3 ? -root : -2 * root;
}

/* Every third key of every second KV head is NaN, from the third key and the first head on (odd: the second);
 * the others have one value that is infinite. */
static double in_heads(int which, const int64_t *at, int odd, double usual)
{
    if (which == VALUE_Q) return usual;
    if (at[1] % 2 == odd) return at[2] % 3 == 2 ? NAN : usual;
    return which == VALUE_V && at[2] == 7 && at[3] == 1 ? INFINITY : usual;
}

/* One entry in the middle of the first sequence and head that is no number, in the first channel or
 * the last; of i8 keys or values, the scale that it has. */
static double with_spoiler(const struct problem_line *line, int which, const int64_t *at,
                           double usual)
{
    static const struct {
        int data, which;
        double value;
    } spoilers[] = {{DATA_nan_q, VALUE_Q, NAN},      {DATA_nan_k, VALUE_K, NAN},
                    {DATA_nan_v, VALUE_V, NAN},      {DATA_inf_q, VALUE_Q, INFINITY},
                    {DATA_nan_v_end, VALUE_V, NAN},  {DATA_inf_k, VALUE_K, INFINITY},
                    {DATA_inf_v, VALUE_V, INFINITY}, {DATA_minf_k, VALUE_K, -INFINITY}};
    for (size_t i = 0; i < sizeof spoilers / sizeof *spoilers; i++) {
        if (line->data != spoilers[i].data || which != spoilers[i].which) continue;
        int64_t token =
            (which == VALUE_Q ? problem_q_length(line, 0) : problem_kv_length(line, 0)) / 2;
        int64_t channel = line->data == DATA_nan_v_end ? line->v_channels - 1 : 0;
        if (!at[0] && !at[1] && at[2] == token && at[3] == channel) return spoilers[i].value;
    }
    return usual;
}

/* Every key has a value that is not finite, pairs of keys in one channel: infinities of both signs, or
 * one beside NaN. */
static double mixed(const struct problem_line *line, const int64_t *at, double usual)
{
    static const double kinds[] = {INFINITY, -INFINITY, NAN, INFINITY};
    return at[3] == at[2] / 2 * 5 % line->v_channels ? kinds[at[2] % 4] : usual;
}

/* One key in 64 is a needle: large in one channel, which each query looks for in its own. A query's
 * needles share its weight alone, so that even among 100,000 keys a block that is dropped is far
 * beyond the bound of some query. */
static double needle(const struct problem_line *line, int which, const int64_t *at, double normal)
{
    int64_t channels = line->qk_channels,
            place = (int64_t)(problem_random(line->seed, 65, (uint64_t)(at[2] / 64)) % 64);
    int64_t sought = (at[2] * 5 + at[1] * 17) % channels, marked = at[2] / 64 % channels;
    double large = sqrt(14 * sqrt((double)channels));
    if (which == VALUE_Q) return at[3] == sought ? large : 0.5 * normal;
    if (which == VALUE_K && at[2] % 64 == place && at[3] == marked) return large;
    return which == VALUE_K ? 0.5 * normal : normal;
}

/* Channel 0 gives every key of a part a score of -inf, and is NaN in the values of some of them. */
static double without_weight(const struct problem_line *line, int which, const int64_t *at,
                             double usual)
{
    int64_t token = at[2], half = line->kv_tokens / 2;
    if (at[3]) return usual;
    switch (which) {
    case VALUE_Q:
        return 1;
    case VALUE_K:
        return line->data == DATA_minf_all || (line->data == DATA_minf_last) == (token >= half)
                   ? -INFINITY
                   : usual;
    default:
        if (line->data == DATA_minf_all && token % 5 == 1) return INFINITY;
        if (line->data == DATA_minf_all && token % 5 == 3) return NAN;
        return line->data == DATA_minf_first_nan_v && !token ? NAN : usual;
    }
}

/* Channel 0 gives every seventh key a score of -inf; every second of these is NaN in the values. (No
 * such key begins a block of 64, 96 or 128: the score of one alone would be a row's first block. Of
 * blocks of 80, one begins at key 160.) */
static double weight_zero(int which, const int64_t *at, double usual)
{
    if (at[3] || (which == VALUE_V && at[2] % 14 != 13)) return usual;
    if (which == VALUE_Q) return 1;
    if (which == VALUE_V) return NAN;
    return at[2] % 7 == 6 ? -INFINITY : usual;
}

/* In the first sequence and KV head the key in the middle has a score that lies so far above those of
 * the keys before and behind it that exp of the distance is infinite in f32. */
static double leaping(const struct problem_line *line, int which, const int64_t *at, double normal)
{
    if (which == VALUE_V || at[3]) return normal;
    if (which == VALUE_Q) return 8;
    return !at[0] && !at[1] && at[2] == problem_kv_length(line, 0) / 2 ? 320 : normal;
}

/* Tokens of about 2^-118, 2^-121 ... 2^-154, a quarter of their channels zeros. */
static double vanishing(uint64_t bits, int64_t token, double normal)
{
    return bits % 4 ? ldexp(normal, (int)(-118 - token % 13 * 3)) : 0;
}

/* Scores of softmax, by rows: -inf alone, -inf but for the last, one NaN, one infinity, half of them -inf, -inf and one
 * NaN, and two usual ones. */
static double unusual(const struct problem_line *line, const int64_t *at, double normal)
{
    int64_t columns = line->kv_tokens;
    bool one = at[3] == columns * 3 / 4;
    switch (at[2] % 8) {
    case 0:
        return -INFINITY;
    case 1:
        return at[3] == columns - 1 ? normal : -INFINITY;
    case 2:
        return one ? NAN : normal;
    case 3:
        return one ? INFINITY : normal;
    case 4:
        return problem_random(line->seed, VALUE_X + 50, element(at[0], at[1], at[2], at[3])) % 2
                   ? normal
                   : -INFINITY;
    case 5:
        return one ? NAN : -INFINITY;
    default:
        return normal;
    }
}

/* Every second KV head has keys, or values, that f32 rows in two parts of 16 bits cannot hold, and no
 * query is so: a channel of 2^42 beside queries of 2^-36, or 2^60. */
static double beyond_parts(const struct problem_line *line, int which, const int64_t *at,
                           double normal)
{
    if (line->data == DATA_wide_v) return which == VALUE_V && at[1] % 2 ? normal * 0x1p60 : normal;
    if (which == VALUE_V || at[3]) return normal;
    return which == VALUE_Q ? 0x1p-36 : at[1] % 2 ? normal * 0x1p42 : normal;
}

/* Of steps: whether a block of channels of a token has integers of 0 alone. */
static bool is_blank(const struct problem_line *line, int64_t token, int64_t block)
{
    int64_t blocks = line->scale_block ? line->v_channels / line->scale_block : 1;
    return token % 4 == 1 && token / 4 % blocks == block;
}

/* Scales that step by powers of two from one block of channels to the next, of blank ones far up; and one
 * block of all values far down. */
static double stepping(const struct problem_line *line, bool values, int64_t token, int64_t block,
                       double usual)
{
    if (is_blank(line, token, block)) return ldexp(usual, values ? 10 : 40);
    if (values) return ldexp(usual, block == 1 ? -20 : token * 7 / 3 % 2 * -6);
    switch ((token * 7 + block * 5 + token / 3) % 3) {
    case 0:
        return usual;
    case 1:
        return ldexp(usual, -6);
    default:
        return token % 11 ? ldexp(usual, -45) : 0;
    }
}

static double qkv_value(const struct problem_line *line, int which, const int64_t *at)
{
    uint64_t index = element(at[0], at[1], at[2], at[3]);
    double normal = problem_normal(line->seed, (uint64_t)which, index);
    double place = (double)at[2] /
                   (double)(line->kv_tokens > 1 ? line->kv_tokens : 1); /* 0 ... 1 along the keys */
    uint64_t bits = problem_random(line->seed, (uint64_t)which + 50, index);
    switch (line->data) {
    case DATA_needles:
        return needle(line, which, at, normal);
    case DATA_growing: /* the running maximum rises in every block */
        return which == VALUE_Q   ? fabs(normal)
               : which == VALUE_K ? 0.5 * normal + 4 * place
                                  : normal;
    case DATA_falling: /* the first block holds nearly all weight */
        return which == VALUE_Q   ? fabs(normal)
               : which == VALUE_K ? 0.5 * normal - 4 * place
                                  : normal;
    case DATA_peaked: /* one key outweighs the rest */
        if (which == VALUE_Q) return fabs(normal);
        return which == VALUE_K && at[2] == line->kv_tokens * 2 / 3 ? 6 : normal;
    case DATA_faint: /* one key outweighs each of the others 2^14.7 times, not all of them together */
        if (which == VALUE_V) return (double)(at[3] + 1) * 0.125;
        if (which == VALUE_Q) return 1;
        return at[2] == line->kv_tokens * 2 / 3 ? 10.2 / sqrt((double)line->qk_channels)
                                                : 0.05 * normal;
    case DATA_cancelling: /* values of alternating sign leave a small sum */
        return which == VALUE_V ? (at[2] % 2 ? -100 : 100) * (1 + normal * 1e-3) : normal;
    case DATA_constant: /* any weights give the same answer */
        return which == VALUE_V ? (double)(at[3] + 1) * 0.125 : normal;
    case DATA_large_v: /* past what f16 holds */
        return which == VALUE_V ? normal * 0x1p20 : normal;
    case DATA_tiny:
        return normal * 1e-3;
    case DATA_huge: /* raw scores to 2.5e5, as seen in real models; integers times a power of two */
        return which == VALUE_V ? normal : small_integer(bits) * (which == VALUE_Q ? 256 : 128);
    case DATA_vast: /* raw scores to 2.6e8, of which f32 keeps multiples of 16; values far apart */
        return which == VALUE_V ? normal * (at[2] % 3 ? 1 : 0x1p20)
                                : small_integer(bits) * (which == VALUE_Q ? 0x1p18 : 128);
    case DATA_denormal: /* values below the dtype's smallest normal number */
        return which == VALUE_V ? normal * (line->dtype == RAPT_F16 ? 0x1p-18 : 0x1p-131) : normal;
    case DATA_vanishing:
        return vanishing(bits, at[2], normal);
    case DATA_sincos100: /* smooth, and coherent between q and k: products of 100 */
        index = (uint64_t)(at[2] * 37 + at[3] + at[1]);
        return which == VALUE_Q   ? 10 * sin((double)index)
               : which == VALUE_K ? 10 * cos((double)index)
                                  : sin(3 * (double)index);
    case DATA_integer:
        return which == VALUE_V ? (double)(bits % 17) - 8 : small_integer(bits);
    case DATA_minf_all:
    case DATA_minf_first:
    case DATA_minf_first_nan_v:
    case DATA_minf_last:
        return without_weight(line, which, at, normal);
    case DATA_minf_nan_v:
        return weight_zero(which, at, normal);
    case DATA_nan_heads:
    case DATA_nan_odd_heads:
        return in_heads(which, at, line->data == DATA_nan_odd_heads, normal);
    case DATA_mixed_v:
        return which == VALUE_V ? mixed(line, at, normal) : normal;
    case DATA_leap:
        return leaping(line, which, at, normal);
    case DATA_wide_k:
    case DATA_wide_v:
        return beyond_parts(line, which, at, normal);
    case DATA_minus1e30:
        return which == VALUE_V ? normal : lowest_score(line, which, at[2], at[3]);
    default:
        return with_spoiler(line, which, at, normal);
    }
}

/* Mixed values: of each 32nd key one scale is not finite, that of one block of channels after another.
 * Leaping values: in the first sequence and KV head the last scale, of the last channels, is 2^40 times
 * what it would be. */
static double scale_value(const struct problem_line *line, int which, const int64_t *at,
                          uint64_t index)
{
    int data = which == VALUE_K_SCALE ? VALUE_K : which == VALUE_V_SCALE ? VALUE_V : VALUE_Q;
    int64_t blocks = line->scale_block ? line->v_channels / line->scale_block : 1;
    double usual = (0.5 + problem_uniform(line->seed, (uint64_t)which, index)) / 73;
    if (line->data == DATA_leap && data == VALUE_V && !at[0] && !at[1] &&
        at[2] == problem_kv_length(line, 0) - 1 && at[3] == blocks - 1)
        return usual * 0x1p40;
    if (line->data == DATA_mixed_v && data == VALUE_V && at[2] % 32 == 7 &&
        at[3] == at[2] / 32 % blocks)
        return at[2] % 64 == 7 ? INFINITY : NAN;
    if (line->data == DATA_steps && data != VALUE_Q)
        return stepping(line, data == VALUE_V, at[2], at[3], usual);
    return with_spoiler(line, data, at, usual);
}

/* Where a mask is as that of padding: the second half, the first one, or all but a tenth in the middle. */
static bool in_padding(const struct problem_line *line, int64_t kind, int64_t key)
{
    int64_t half = line->kv_tokens / 2, less = line->kv_tokens / 20;
    bool before = key < half - less, behind = key >= half + less;
    return kind == 0 ? behind : kind == 1 ? before : before || behind;
}

/* A mask hides three keys of ten; every eighth query sees nothing. Visible bytes are any value but
 * 0. */
static double mask_value(const struct problem_line *line, uint64_t index, int64_t i0, int64_t i1,
                         int64_t i2, int64_t i3)
{
    if (line->mask_ends && in_padding(line, (i0 + i1) % 3, i3)) return 0;
    uint64_t bits = problem_random(line->seed, VALUE_MASK, index);
    bool blind =
        (line->mask_axes & 4) && problem_random(line->seed, 60, element(i0, i1, i2, 0)) % 8 == 0;
    return blind || bits % 10 < 3 ? 0 : (double)(1 + (bits >> 8) % 255);
}

/* What padding is given for -inf: rows that have nothing else, rows of which the second half is so or a
 * quarter here and there, and rows that rise by 4, which f16 rounds to 0, far below 0: across -2^13 in units of
 * log2, so that e^-4 of the lse is in keys that were all there was (src/gpu/kernels/nvidia/sm90_low.h). */
static double low_bias(const struct problem_line *line, uint64_t index, int64_t i0, int64_t i1,
                       int64_t i2, int64_t i3)
{
    double least = line->bias_own && line->dtype == RAPT_F16 ? -65504 : -1e30,
           usual = 2 * problem_normal(line->seed, VALUE_BIAS, index);
    uint64_t kind = line->bias_axes & 4 ? problem_random(line->seed, 63, element(i0, i1, i2, 0))
                                        : (uint64_t)(i0 + i1);
    bool second = i3 >= line->kv_tokens / 2;
    switch (kind % 4) {
    case 0:
        return second ? least : usual;
    case 1:
        return least;
    case 2:
        return second ? -5678 : -5682;
    default:
        return problem_random(line->seed, 62, index) % 4 == 0 ? least : usual;
    }
}

/* nan_bias, inf_bias: one entry of a row, which its first key has. */
static double bias_value(const struct problem_line *line, uint64_t index, int64_t i0, int64_t i1,
                         int64_t i2, int64_t i3)
{
    if (line->bias_low) return low_bias(line, index, i0, i1, i2, i3);
    if ((line->data == DATA_nan_bias || line->data == DATA_inf_bias) && !i0 && !i1 && !i3 &&
        i2 == problem_q_length(line, 0) / 2)
        return line->data == DATA_nan_bias ? NAN : INFINITY;
    if (line->bias_inf) {
        bool blind = (line->bias_axes & 4) &&
                     problem_random(line->seed, 61, element(i0, i1, i2, 0)) % 8 == 0;
        if (blind || problem_random(line->seed, 62, index) % 4 == 0) return -INFINITY;
    }
    double normal = 2 * problem_normal(line->seed, VALUE_BIAS, index);
    if (!line->bias_far) return normal;
    uint64_t row = problem_random(line->seed, 61, element(i0, i1, i2, 0)) % 8;
    if (row == 0 || problem_random(line->seed, 62, index) % 4 == 0) return -1e30;
    return row == 1 ? 1e6 + normal : normal;
}

bool problem_blank(const struct problem_line *line, int which, int64_t token, int64_t channel)
{
    return line->data == DATA_steps && line->scale_block &&
           (which == VALUE_K || which == VALUE_V) &&
           is_blank(line, token, channel / line->scale_block);
}

double problem_value(const struct problem_line *line, int which, int64_t i0, int64_t i1, int64_t i2,
                     int64_t i3)
{
    const int64_t at[] = {i0, i1, i2, i3};
    uint64_t index = element(i0, i1, i2, i3);
    switch (which) {
    case VALUE_BIAS:
        return bias_value(line, index, i0, i1, i2, i3);
    case VALUE_MASK:
        return mask_value(line, index, i0, i1, i2, i3);
    case VALUE_SLOPE: /* the usual geometric slopes (Press, Smith, Lewis 2022); odd seeds shift them
                         per sequence */
        return exp2(-8.0 * (double)(i1 + 1) / (double)line->q_heads - 0.25 * (double)i0);
    case VALUE_SINK:
        if (line->sink_inf && (i1 % 2 == 0)) return -INFINITY;
        if (line->sink_nan && i1 % 3) return i1 % 3 == 1 ? NAN : INFINITY;
        return 1 + problem_normal(line->seed, VALUE_SINK, index);
    case VALUE_K_SCALE:
    case VALUE_V_SCALE:
    case VALUE_Q_SCALE:
        return scale_value(line, which, at, index);
    case VALUE_POSITION: /* mostly near, some far */
        return (line->farthest ? 0x1p52
                : line->far    ? 3e9
                               : 0) +
               (double)(problem_random(line->seed, VALUE_POSITION, index) %
                        (i2 % 5 ? 4096 : 131072));
    case VALUE_WEIGHT: /* of the pv operation: about a quarter are 0 */
        return problem_random(line->seed, 63, index) % 4
                   ? problem_uniform(line->seed, VALUE_WEIGHT, index)
                   : 0;
    case VALUE_X:
        if (line->data == DATA_huge) return 3e4 * problem_normal(line->seed, VALUE_X, index);
        if (line->data == DATA_vanishing)
            return vanishing(problem_random(line->seed, VALUE_X + 50, index), i2,
                             problem_normal(line->seed, VALUE_X, index));
        if (line->data == DATA_unusual)
            return unusual(line, at, 3 * problem_normal(line->seed, VALUE_X, index));
        return 3 * problem_normal(line->seed, VALUE_X, index);
    default:
        return qkv_value(line, which, at);
    }
}
