/* options.h: command-line options that several commands share, and how a command ends. */
#ifndef RAPT_TOOLS_OPTIONS_H
#define RAPT_TOOLS_OPTIONS_H

#include "rapt/rapt.h"

#include <argp.h>

enum exit_code { EXIT_OK = 0, EXIT_WRONG = 1, EXIT_BAD_INPUT = 2, EXIT_NOT_HERE = 3 };

/* What is computed, beside the tensors. A child parser's input; all zero: plain attention. */
struct attention_options {
    int64_t head_first; /* 1: q, k, v are [batch, head, token, channel]; 0: [batch, token, head,
                           channel] */
    int64_t causal, align;
    int64_t window_left, window_right; /* as rapt_attention has them */
    double softcap, scale;
};

/* Where it is computed. A child parser's input. */
struct device_options {
    const char *device; /* NULL or "auto", "cpu", "cuda:N", "hip:N" */
    const char *kernel; /* NULL: the best */
    int64_t threads;
};

extern const struct argp attention_argp, device_argp;

/* Sets a's options (not its tensors) from ours. */
void attention_apply(const struct attention_options *options, rapt_attention *a);

/* A whole number from low to high, or a finite number; anything else ends the program with exit
 * code 2 and a sentence. */
int64_t option_integer(const char *text, int64_t low, int64_t high, const char *name,
                       struct argp_state *state);
double option_number(const char *text, const char *name, struct argp_state *state);

/* Prints "rapt COMMAND: sentence" on the error stream and returns code. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__ /* looks into one file at a time */
#define complain(code, ...) ((complain)(code, __VA_ARGS__), (code))
#endif
/* The exit code for a status of the library. */
int exit_code_of(rapt_status status);
/* Set by main: the name that complain uses. */
extern const char *command_name;

#endif
