/* input.h: an attention problem read from a safetensors file. */
#ifndef RAPT_TOOLS_INPUT_H
#define RAPT_TOOLS_INPUT_H

#include "options.h"
#include "safetensors.h"

#include <jansson.h>

enum { INPUT_FIELDS = 16, INPUT_PROBLEM = 1024 };

struct input {
    struct safetensors file;
    rapt_attention a;                        /* host pointers; outputs absent */
    const struct safetensors_tensor *answer; /* the file's own `out`; NULL: none */
    int64_t head_first;                      /* the layout of q, k, v and out */
    int64_t batch;                           /* sequences */
    int64_t kv_longest;                      /* keys of the longest sequence */
    void
        *copies[INPUT_FIELDS]; /* aligned copies of tensors that lie unaligned in the file; owned */
    int copy_count;
};

/* Reads path and checks all that rapt.h leaves to the caller (index values). 0, or an exit code
 * after a sentence on the error stream; *out is then empty. */
int input_open(const char *path, const struct attention_options *options, struct input *out);
void input_close(struct input *input);

/* The tensors that rapt reads, by their name in the file and their place in rapt_attention. */
struct input_field {
    const char *name;
    size_t offset;
    int role;
};
extern const struct input_field input_fields[];
extern const int input_field_count;

/* A dense tensor for an output that is shaped like q but for its channels, in memory order of the
 * layout. */
rapt_tensor input_like_q(const struct input *input, void *data, rapt_dtype dtype, int64_t channels);
/* Elements of a tensor; -1: more than 63 bits count. */
int64_t tensor_elements(const rapt_tensor *t);

/* Tokens of sequence b, after q_start, kv_start and kv_length. */
int64_t input_q_length(const struct input *input, int64_t b);
int64_t input_kv_length(const struct input *input, int64_t b);

/* What is computed, in words: types, sizes, options that differ from their defaults, optional
 * tensors of the file. */
void input_problem(const struct input *input, char text[INPUT_PROBLEM]);
/* Names of the file's tensors that are not read, a JSON array. */
json_t *input_ignored(const struct input *input);
/* Prints model, layer and text if the file's metadata name them, and the tensors that are not read.
 */
void input_print_notes(const struct input *input);

#endif
