/* oracle_ops.c: the separate operations in f64. RoPE's scaling rules follow their papers: linear
 * arXiv:2306.15595, NTK-aware (theta * factor^(d/(d-2))), YaRN arXiv:2309.00071 section 3
 * (untruncated as in gpt-oss), Llama 3 as published with Llama 3.1. */
#include "base/dtype.h"
#include "oracle.h"

#include <math.h>

static const double pi = 3.14159265358979323846264338327950288;

static double or_default(double x, double value)
{
    return x != 0 ? x : value;
}

/* YaRN's blend of a pair: 0 keeps the frequency, 1 divides it by factor. The limits are the pairs
 * that make beta turns within the original context, rounded outwards or as they are. */
static double yarn_blend(const rapt_rope_args *args, double rotary, double theta, double pair)
{
    double turns[2] = {or_default(args->beta_fast, 32), or_default(args->beta_slow, 1)}, limit[2];
    for (int i = 0; i < 2; i++)
        limit[i] = rotary / 2 * log(args->original_context / (2 * pi * turns[i])) / log(theta);
    if (!args->untruncated) {
        limit[0] = floor(limit[0]);
        limit[1] = ceil(limit[1]);
    }
    double low = fmax(limit[0], 0), high = fmin(limit[1], rotary - 1);
    if (high <= low) high = low + 0.001;
    return fmin(fmax((pair - low) / (high - low), 0), 1);
}

static double frequency(const rapt_rope_args *args, double rotary, double pair)
{
    double theta = or_default(args->theta, 10000);
    if (args->scaling == RAPT_ROPE_NTK && rotary > 2)
        theta *= pow(args->factor, rotary / (rotary - 2));
    double plain = pow(theta, -2 * pair / rotary);
    if (args->scaling == RAPT_ROPE_LINEAR) return plain / args->factor;
    if (args->scaling == RAPT_ROPE_YARN) {
        double blend = yarn_blend(args, rotary, theta, pair);
        return plain * (1 - blend) + plain / args->factor * blend;
    }
    if (args->scaling == RAPT_ROPE_LLAMA3) {
        double wavelength = 2 * pi / plain, context = args->original_context;
        double low = or_default(args->low_freq_factor, 1),
               high = or_default(args->high_freq_factor, 4);
        if (wavelength < context / high) return plain;
        if (wavelength > context / low) return plain / args->factor;
        double smooth = (context / wavelength - low) / (high - low);
        return (1 - smooth) * plain / args->factor + smooth * plain;
    }
    return plain;
}

void oracle_rope_angle(const rapt_rope_args *args, int64_t channels, int64_t position, int64_t pair,
                       double *cosine, double *sine)
{
    double rotary = (double)(args->rotary_channels ? args->rotary_channels : channels),
           magnitude = 1;
    if (args->cos.dtype) {
        *cosine = ((const float *)args->cos.data)[tensor_offset(&args->cos, 0, 0, position, pair)];
        *sine = ((const float *)args->sin.data)[tensor_offset(&args->sin, 0, 0, position, pair)];
        return;
    }
    if (args->scaling == RAPT_ROPE_YARN)
        magnitude = or_default(args->attention_factor, 0.1 * log(args->factor) + 1);
    double angle = (double)position * frequency(args, rotary, (double)pair);
    *cosine = magnitude * cos(angle);
    *sine = magnitude * sin(angle);
}

void oracle_rotate(const rapt_rope_args *args, int64_t position, int64_t channels, const double *x,
                   double *out)
{
    int64_t rotary = args->rotary_channels ? args->rotary_channels : channels, half = rotary / 2;
    for (int64_t c = rotary; c < channels; c++) out[c] = x[c];
    for (int64_t pair = 0; pair < half; pair++) {
        int64_t first = args->interleaved ? 2 * pair : pair,
                second = args->interleaved ? 2 * pair + 1 : pair + half;
        double cosine, sine;
        oracle_rope_angle(args, channels, position, pair, &cosine, &sine);
        out[first] = x[first] * cosine - x[second] * sine;
        out[second] = x[second] * cosine + x[first] * sine;
    }
}

void oracle_softmax(const double *x, int64_t n, double *out)
{
    double maximum = -INFINITY, total = 0;
    for (int64_t j = 0; j < n; j++)
        if (x[j] > maximum || isnan(x[j])) maximum = x[j];
    for (int64_t j = 0; j < n; j++)
        total += out[j] = maximum == -INFINITY ? 0 : exp(x[j] - maximum);
    for (int64_t j = 0; j < n && total != 0; j++) out[j] /= total;
}

void oracle_load(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, double *out)
{
    for (int64_t c = 0; c < t->size[3]; c++)
        out[c] = load_float(t->data, t->dtype, tensor_offset(t, i0, i1, i2, c));
}
