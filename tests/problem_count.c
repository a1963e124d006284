/* problem_count.c: the useful work of a problem line, and the choice of named problems. */
#include "base/dtype.h"
#include "problem.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* Visible query-key pairs of one head over the batch. */
static double visible_pairs(const struct problem_line *line)
{
    double pairs = 0, uniform = -1;
    for (int64_t b = 0; b < line->batch; b++) {
        if (b >= PROBLEM_SEQUENCES && uniform >= 0) {
            pairs += uniform;
            continue;
        }
        double sum = 0;
        for (int64_t i = 0; i < problem_q_length(line, b); i++) {
            int64_t first, last;
            problem_visible(line, b, i, &first, &last);
            sum += (double)(last - first);
        }
        pairs += sum;
        if (b >= PROBLEM_SEQUENCES) uniform = sum;
    }
    return pairs;
}

/* Tokens of all sequences. */
static double tokens(const struct problem_line *line,
                     int64_t (*length)(const struct problem_line *, int64_t))
{
    double sum = 0;
    for (int64_t b = 0; b < line->batch; b++) sum += (double)length(line, b);
    return sum;
}

double problem_flops(const struct problem_line *line)
{
    double queries = tokens(line, problem_q_length) * (double)line->q_heads;
    double scores = (double)line->batch * (double)line->q_heads * (double)line->q_tokens *
                    (double)line->kv_tokens;
    double d = (double)line->qk_channels, dv = (double)line->v_channels;
    switch (line->op) {
    case OP_forward:
        return 2 * visible_pairs(line) * (double)line->q_heads * (d + dv);
    case OP_qk:
        return 2 * scores * d;
    case OP_pv:
        return 2 * scores * dv;
    case OP_softmax:
        return 4 * scores; /* maximum, subtraction with exp, sum, product */
    case OP_rope:
        return 3 * queries * d;
    default:
        return 0;
    }
}

/* Keys that some query of the sequence sees: from the first one's first to the last one's last. */
static double keys_in_use(const struct problem_line *line)
{
    double sum = 0;
    for (int64_t b = 0; b < line->batch; b++) {
        int64_t queries = problem_q_length(line, b), first, last, ignored;
        if (queries < 1) continue;
        problem_visible(line, b, 0, &first, &ignored);
        problem_visible(line, b, queries - 1, &ignored, &last);
        if (last > problem_kv_length(line, b)) last = problem_kv_length(line, b);
        if (last > first) sum += (double)(last - first);
    }
    return sum;
}

static double axes_bytes(const struct problem_line *line, unsigned axes, double element)
{
    double rows = line->ragged_q ? tokens(line, problem_q_length)
                                 : (double)(axes & 1 ? line->batch : 1) * (double)line->q_tokens;
    if (!(axes & 4)) rows = axes & 1 && !line->ragged_q ? (double)line->batch : 1;
    return rows * (axes & 2 ? (double)line->q_heads : 1) *
           (axes & 8 ? (double)line->kv_tokens : 1) * element;
}

static double forward_bytes(const struct problem_line *line)
{
    double queries = tokens(line, problem_q_length) * (double)line->q_heads;
    double keys = keys_in_use(line) * (double)line->kv_heads;
    double d = (double)line->qk_channels, dv = (double)line->v_channels,
           own = (double)dtype_size(line->dtype);
    double bytes = queries * (d * own + dv * (double)dtype_size(line->out_dtype)) +
                   keys * (d + dv) * (double)dtype_size(line->kv_dtype);
    if (line->kv_dtype == RAPT_I8)
        bytes += keys * 4 * (line->scale_block ? (d + dv) / (double)line->scale_block : 2);
    if (line->lse) bytes += queries * 4;
    if (line->bias || line->bias_own || line->bias_inf || line->bias_far || line->bias_low)
        bytes += axes_bytes(line, line->bias_axes, line->bias_own ? own : 4);
    if (line->mask) bytes += axes_bytes(line, line->mask_axes, 1);
    if (line->weights) bytes += axes_bytes(line, 15, (double)dtype_size(line->weights_dtype));
    return bytes;
}

/* Elements of one head's scores that causal_mask hides. */
static double hidden_elements(const struct problem_line *line)
{
    int64_t offset = line->align == RAPT_TOP_LEFT ? 0 : line->kv_tokens - line->q_tokens;
    double sum = 0;
    for (int64_t i = 0; i < line->q_tokens; i++) {
        int64_t visible = i + offset + 1 > 0 ? i + offset + 1 : 0;
        if (visible < line->kv_tokens) sum += (double)(line->kv_tokens - visible);
    }
    return sum;
}

double problem_bytes(const struct problem_line *line)
{
    double b = (double)line->batch, h = (double)line->q_heads, g = (double)line->kv_heads,
           q = (double)line->q_tokens;
    double kv = (double)line->kv_tokens, d = (double)line->qk_channels,
           dv = (double)line->v_channels;
    double own = (double)dtype_size(line->dtype), cache = (double)dtype_size(line->kv_dtype);
    double out = (double)dtype_size(line->out_dtype);
    switch (line->op) {
    case OP_rope:
        return b * h * q * d * (own + out);
    case OP_softmax:
        return b * h * q * kv * (own + out);
    case OP_causal_mask: /* what it hides; the rest is not looked at */
        return b * h * hidden_elements(line) * own;
    case OP_qk:
        return b * (h * q * d * own + g * kv * d * cache + h * q * kv * out);
    case OP_pv:
        return b * (h * q * kv * own + g * kv * dv * cache + h * q * dv * out);
    case OP_kv_replicate:
        return b * kv * (d + dv) * own * (g + h);
    case OP_kv_append:
        return tokens(line, problem_q_length) * g * (d + dv) * (own + cache);
    default:
        return forward_bytes(line);
    }
}

const struct named_problem named_problems[] = {
#define PROBLEM(name, size, line) {name, line, size},
#include "problems.def"
#undef PROBLEM
};
const int named_problem_count = sizeof named_problems / sizeof *named_problems;

bool problem_selected(const char *name, const char *patterns)
{
    char copy[512];
    bool wanted = false, any = false;
    if (!patterns || !*patterns) return true;
    snprintf(copy, sizeof copy, "%s", patterns);
    for (char *state, *pattern = strtok_r(copy, ",", &state); pattern;
         pattern = strtok_r(NULL, ",", &state)) {
        if (*pattern == '!' && !fnmatch(pattern + 1, name, 0)) return false;
        if (*pattern == '!') continue;
        any = true;
        if (!fnmatch(pattern, name, 0)) wanted = true;
    }
    return wanted || !any;
}
