/* options.c: parses the options that run, map, bench and check share. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *command_name; /* NULL: the tool itself */

enum {
    KEY_CAUSAL = 256,
    KEY_ALIGN,
    KEY_WINDOW,
    KEY_SOFTCAP,
    KEY_SCALE,
    KEY_LAYOUT,
    KEY_DEVICE,
    KEY_KERNEL,
    KEY_THREADS
};

static const struct argp_option attention_list[] = {
    {"causal", KEY_CAUSAL, NULL, 0, "A query sees keys up to its own position", 1},
    {"align", KEY_ALIGN, "SIDE", 0,
     "bottom-right (default): the last query stands at the last key; top-left: the first at the "
     "first",
     1},
    {"window", KEY_WINDOW, "L,R", 0,
     "A query sees L keys before its position and R after it; -1: all", 1},
    {"softcap", KEY_SOFTCAP, "X", 0, "Scores become X * tanh(score / X)", 1},
    {"scale", KEY_SCALE, "X", 0, "Scores are X * (q . k); default 1 / sqrt(channels)", 1},
    {"layout", KEY_LAYOUT, "ORDER", 0,
     "Axes of q, k and v: bthd (default) is batch, token, head, channel; bhtd is batch, head, "
     "token, channel",
     1},
    {0},
};

static const struct argp_option device_list[] = {
    {"device", KEY_DEVICE, "NAME", 0, "auto (default), cpu, cuda:N or hip:N", 2},
    {"kernel", KEY_KERNEL, "NAME", 0, "Run this kernel of `rapt info', or refuse", 2},
    {"threads", KEY_THREADS, "N", 0, "Threads of the CPU device", 2},
    {0},
};

int64_t option_integer(const char *text, int64_t low, int64_t high, const char *name,
                       struct argp_state *state)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high)
        argp_error(state, "%s: \"%s\" is no whole number from %lld to %lld", name, text,
                   (long long)low, (long long)high);
    return value;
}

double option_number(const char *text, const char *name, struct argp_state *state)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        argp_error(state, "%s: \"%s\" is no finite number", name, text);
    return value;
}

static int is_one_of(const char *text, const char *first, const char *second, const char *name,
                     struct argp_state *state)
{
    if (!strcmp(text, second)) return 1;
    if (strcmp(text, first))
        argp_error(state, "%s: \"%s\" is unknown (%s or %s)", name, text, first, second);
    return 0;
}

static void parse_window(struct attention_options *options, const char *text,
                         struct argp_state *state)
{
    char left[32];
    const char *comma = strchr(text, ',');
    if (!comma || (size_t)(comma - text) >= sizeof left) {
        argp_error(state, "--window: \"%s\" is not L,R", text);
        return;
    }
    memcpy(left, text, (size_t)(comma - text));
    left[comma - text] = 0;
    options->window_left = RAPT_WINDOW(option_integer(left, -1, INT64_MAX - 1, "--window", state));
    options->window_right =
        RAPT_WINDOW(option_integer(comma + 1, -1, INT64_MAX - 1, "--window", state));
}

static error_t parse_attention(int key, char *text, struct argp_state *state)
{
    struct attention_options *options = state->input;
    switch (key) {
    case KEY_CAUSAL:
        options->causal = 1;
        return 0;
    case KEY_ALIGN:
        options->align = is_one_of(text, "bottom-right", "top-left", "--align", state)
                             ? RAPT_TOP_LEFT
                             : RAPT_BOTTOM_RIGHT;
        return 0;
    case KEY_WINDOW:
        parse_window(options, text, state);
        return 0;
    case KEY_SOFTCAP:
        options->softcap = option_number(text, "--softcap", state);
        if (options->softcap <= 0) argp_error(state, "--softcap: %s is not above 0", text);
        return 0;
    case KEY_SCALE:
        options->scale = option_number(text, "--scale", state);
        if (options->scale == 0)
            argp_error(state,
                       "--scale: 0 hides every difference (leave it out for 1 / sqrt(channels))");
        return 0;
    case KEY_LAYOUT:
        options->head_first = is_one_of(text, "bthd", "bhtd", "--layout", state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_device(int key, char *text, struct argp_state *state)
{
    struct device_options *options = state->input;
    switch (key) {
    case KEY_DEVICE:
        options->device = text;
        return 0;
    case KEY_KERNEL:
        options->kernel = text;
        if (!*text) argp_error(state, "--kernel: the name is empty");
        return 0;
    case KEY_THREADS:
        options->threads = option_integer(text, 1, 1024, "--threads", state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp attention_argp = {.options = attention_list, .parser = parse_attention};
const struct argp device_argp = {.options = device_list, .parser = parse_device};

void attention_apply(const struct attention_options *options, rapt_attention *a)
{
    a->causal = options->causal;
    a->align = options->align;
    a->window_left = options->window_left;
    a->window_right = options->window_right;
    a->softcap = options->softcap;
    a->scale = options->scale;
}

#undef complain
int complain(int code, const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "rapt%s%s: ", command_name ? " " : "", command_name ? command_name : "");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

int exit_code_of(rapt_status status)
{
    switch (status) {
    case RAPT_OK:
        return EXIT_OK;
    case RAPT_INVALID:
        return EXIT_BAD_INPUT;
    default:
        return EXIT_NOT_HERE;
    }
}
