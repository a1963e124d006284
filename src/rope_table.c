/* rope_table.c: RoPE's inverse frequencies and their context-extension rules, in f64.
 * Plain: Su et al., "RoFormer", arXiv:2104.09864. Linear: Chen et al., arXiv:2306.15595. NTK-aware:
 * the base is raised to theta * factor^(d / (d - 2)). YaRN: Peng et al., "YaRN", arXiv:2309.00071,
 * section 3; untruncated: gpt-oss, and Hugging Face transformers, modeling_rope_utils.py. Llama 3:
 * the frequency rule that Llama 3.1 was published with (wavelengths below the high limit kept, above
 * the low limit divided by factor, linear blend between). */
#include "backend.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925286766559;

/* The pair index, as a real number, whose wavelength makes `turns` turns in the original context.
 */
static double pair_of_turns(double turns, double rotary, double theta, double context)
{
    return rotary * log(context / (turns * two_pi)) / (2 * log(theta));
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

static double llama3(double frequency, const rapt_rope_args *args)
{
    double low = args->low_freq_factor ? args->low_freq_factor : 1,
           high = args->high_freq_factor ? args->high_freq_factor : 4;
    double turns = args->original_context * frequency / two_pi;
    if (turns > high) return frequency;
    if (turns < low) return frequency / args->factor;
    double smooth = (turns - low) / (high - low);
    return (1 - smooth) * frequency / args->factor + smooth * frequency;
}

void rope_frequencies(const rapt_rope_args *args, int64_t rotary, double *inverse,
                      double *magnitude)
{
    double theta = args->theta ? args->theta : 10000, r = (double)rotary;
    /* Of 2 channels this is infinite, which leaves the frequency of their only pair at 1. */
    if (args->scaling == RAPT_ROPE_NTK) theta *= pow(args->factor, r / (r - 2));
    double low = 0, high = 0;
    *magnitude = 1;
    if (args->scaling == RAPT_ROPE_YARN) {
        double fast = args->beta_fast ? args->beta_fast : 32,
               slow = args->beta_slow ? args->beta_slow : 1;
        low = pair_of_turns(fast, r, theta, args->original_context);
        high = pair_of_turns(slow, r, theta, args->original_context);
        low = fmax(args->untruncated ? low : floor(low), 0);
        high = fmin(args->untruncated ? high : ceil(high), r - 1);
        if (high <= low) high = low + 0.001;
        *magnitude = args->attention_factor ? args->attention_factor : 0.1 * log(args->factor) + 1;
    }
    for (int64_t pair = 0; pair < rotary / 2; pair++) {
        double frequency = pow(theta, -2.0 * (double)pair / r);
        if (args->scaling == RAPT_ROPE_LINEAR) frequency /= args->factor;
        if (args->scaling == RAPT_ROPE_LLAMA3) frequency = llama3(frequency, args);
        if (args->scaling == RAPT_ROPE_YARN) {
            double interpolate = clamp(((double)pair - low) / (high - low), 0, 1);
            frequency = frequency * (1 - interpolate) + frequency / args->factor * interpolate;
        }
        inverse[pair] = frequency;
    }
}
