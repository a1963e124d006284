/* run.c: `rapt run`: attention over the tensors of a file. */
#include "commands.h"
#include "input.h"
#include "output.h"
#include "report.h"
#include "verify.h"

#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A run is repeated while it is short, so that the printed time is not the first touch of memory.
 */
enum { REPEATS = 5 };
#define REPEAT_SECONDS 0.5

struct run {
    struct attention_options attention;
    struct device_options where;
    const char *path, *out_path;
    int64_t out_dtype; /* 0: q's */
    int weights, verify, json;
};

enum { KEY_WEIGHTS = 512, KEY_OUT_DTYPE, KEY_VERIFY, KEY_JSON };

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "Write out, lse (and weights) to this safetensors file", 0},
    {"out-dtype", KEY_OUT_DTYPE, "TYPE", 0, "Type of out: f32 or q's own (default)", 0},
    {"weights", KEY_WEIGHTS, NULL, 0, "Compute the attention weights too", 0},
    {"verify", KEY_VERIFY, NULL, 0,
     "Compare with the f64 definition; exit code 1 if the error is above its bound", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static void parse_out_dtype(struct run *run, const char *text, struct argp_state *state)
{
    for (int64_t dtype = RAPT_F32; dtype <= RAPT_BF16; dtype++)
        if (!strcmp(text, dtype_name(dtype))) {
            run->out_dtype = dtype;
            return;
        }
    argp_error(state, "--out-dtype: \"%s\" is unknown (f32, f16 or bf16)", text);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct run *run = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &run->attention;
        state->child_inputs[1] = &run->where;
        return 0;
    case 'o':
        run->out_path = text;
        return 0;
    case KEY_OUT_DTYPE:
        parse_out_dtype(run, text, state);
        return 0;
    case KEY_WEIGHTS:
        run->weights = 1;
        return 0;
    case KEY_VERIFY:
        run->verify = 1;
        return 0;
    case KEY_JSON:
        run->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (run->path) argp_error(state, "more than one file is given");
        run->path = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no file is given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&attention_argp, 0, "What to compute:", 1}, {&device_argp, 0, "Where:", 2}, {0}};
static const struct argp run_argp = {
    options,
    parse,
    "FILE.safetensors",
    "Attention over the tensors q, k, v [batch, token, head, channel] of a file.\v"
    "k and v have q's type, or I8, or under F32 q also F16 or BF16. Optional tensors: bias, mask "
    "[batch, head, query, key, each of them or 1], sink, alibi_slope [head], "
    "kv_length [batch], q_start, kv_start [batch + 1] (ragged: q, k, v are [1, all tokens, head, "
    "channel]), page_table [batch, pages] (k, v are [page, tokens of a page, head, channel]), "
    "q_scale, k_scale, v_scale (8-bit data). If the file holds `out', the error against it is "
    "printed; tensors of other names are ignored, and named.\n\n"
    "Exit codes: 0 success, 1 wrong result, 2 bad usage or input, 3 not supported here.",
    children,
    NULL,
    NULL};

/* The outputs of a run in host memory. */
struct results {
    rapt_attention a; /* the input's, with outputs on the host */
    double seconds;
    char kernel[64];
};

static int add_output(rapt_tensor *t, rapt_tensor shape, const char *name)
{
    int64_t elements = tensor_elements(&shape);
    size_t bytes;
    if (elements < 0 || __builtin_mul_overflow((size_t)elements, dtype_size(shape.dtype), &bytes) ||
        bytes > PTRDIFF_MAX)
        return complain(EXIT_BAD_INPUT, "%s would be larger than memory can be", name);
    *t = shape;
    /* As large as the vectors of a kernel like it; calloc leaves untouched pages unpaid. */
    t->data = calloc(bytes ? bytes : 1, 1);
    return t->data ? EXIT_OK
                   : complain(EXIT_NOT_HERE, "no %zu bytes of memory for %s", bytes, name);
}

static int add_outputs(const struct run *run, const struct input *input, rapt_attention *a)
{
    const int64_t *n = a->q.size;
    rapt_dtype dtype = (rapt_dtype)(run->out_dtype          ? run->out_dtype
                                    : a->q.dtype == RAPT_I8 ? RAPT_F32
                                                            : a->q.dtype);
    int code = add_output(&a->out, input_like_q(input, NULL, dtype, a->v.size[3]), "out");
    if (!code)
        code = add_output(&a->lse, rapt_tensor_bhtd(NULL, RAPT_F32, n[0], n[1], n[2], 1), "lse");
    if (!code && run->weights)
        code = add_output(&a->weights,
                          rapt_tensor_bhtd(NULL, RAPT_F32, n[0], n[1], n[2], input->kv_longest),
                          "weights");
    return code;
}

static void free_outputs(rapt_attention *a)
{
    free(a->out.data);
    free(a->lse.data);
    free(a->weights.data);
}

static size_t tensor_bytes(const rapt_tensor *t)
{
    return (size_t)tensor_elements(t) * dtype_size(t->dtype);
}

static rapt_tensor *const *outputs_of(rapt_attention *a, rapt_tensor *list[4])
{
    list[0] = &a->out;
    list[1] = &a->lse;
    list[2] = a->weights.dtype ? &a->weights : NULL;
    list[3] = NULL;
    return list;
}

/* The problem in the device's memory. */
static int move_to_device(struct device *device, const rapt_attention *host, rapt_attention *a)
{
    *a = *host;
    for (int i = 0; i < input_field_count; i++) {
        rapt_tensor *t = (rapt_tensor *)((char *)a + input_fields[i].offset);
        if (t->dtype && !(t->data = device_upload(device, t->data, tensor_bytes(t))))
            return EXIT_NOT_HERE;
    }
    /* Outputs come from the host too: tokens of no sequence stay as they are, 0. */
    rapt_tensor *list[4];
    for (rapt_tensor *const *t = outputs_of(a, list); *t; t++)
        if (!((*t)->data = device_upload(device, (*t)->data, tensor_bytes(*t))))
            return EXIT_NOT_HERE;
    return EXIT_OK;
}

/* Runs once, and again while that is short: the median. */
static rapt_status execute(const struct device *device, const rapt_plan *plan,
                           const rapt_attention *a, void *workspace, double *seconds)
{
    double times[REPEATS], total = 0;
    int count = 0;
    rapt_status status = rapt_plan_execute(plan, a, workspace, NULL);
    if (!status) status = rapt_synchronize(device->handle, NULL);
    while (!status && count < REPEATS && total < REPEAT_SECONDS) {
        double start = seconds_now();
        status = rapt_plan_execute(plan, a, workspace, NULL);
        if (!status) status = rapt_synchronize(device->handle, NULL);
        times[count] = seconds_now() - start;
        total += times[count++];
    }
    if (status) return status;
    *seconds = median_of(times, count);
    return RAPT_OK;
}

static int compute_on(struct device *device, const rapt_plan *plan, struct results *results)
{
    rapt_attention a;
    int code = move_to_device(device, &results->a, &a);
    size_t bytes = rapt_plan_workspace_size(plan);
    void *workspace = NULL;
    if (!code && bytes && !(workspace = device_memory(device, bytes))) code = EXIT_NOT_HERE;
    if (code) return code;
    rapt_status status = execute(device, plan, &a, workspace, &results->seconds);
    if (status) return complain(exit_code_of(status), "%s: %s", device->label, rapt_last_error());
    rapt_tensor *from[4], *to[4];
    outputs_of(&a, from);
    outputs_of(&results->a, to);
    for (int i = 0; from[i] && to[i] && !code; i++)
        code = device_download(device, to[i]->data, from[i]->data, tensor_bytes(to[i]));
    return code;
}

static int write_results(const struct run *run, const struct results *results)
{
    const rapt_attention *a = &results->a;
    enum safetensors_dtype out_dtype = a->out.dtype == RAPT_F32   ? SAFETENSORS_F32
                                       : a->out.dtype == RAPT_F16 ? SAFETENSORS_F16
                                                                  : SAFETENSORS_BF16;
    const int64_t *n = a->out.size, *w = a->weights.size;
    struct safetensors_tensor tensors[3] = {
        {"out", out_dtype, 4, {n[0], n[2], n[1], n[3]}, a->out.data, tensor_bytes(&a->out)},
        {"lse", SAFETENSORS_F32, 3, {n[0], n[1], n[2]}, a->lse.data, tensor_bytes(&a->lse)},
        {"weights", SAFETENSORS_F32, 4, {w[0], w[1], w[2], w[3]}, a->weights.data, 0},
    };
    if (run->attention.head_first) {
        tensors[0].size[1] = n[1];
        tensors[0].size[2] = n[2];
    }
    if (run->weights) tensors[2].bytes = tensor_bytes(&a->weights);
    const struct safetensors_note note = {"kernel", (char *)results->kernel};
    char error[SAFETENSORS_ERROR];
    if (safetensors_write(run->out_path, tensors, run->weights ? 3 : 2, &note, 1, error))
        return complain(EXIT_BAD_INPUT, "%s", error);
    return EXIT_OK;
}

static int report(const struct run *run, const struct input *input, const struct device *device,
                  const struct results *results, const struct difference *stored,
                  const struct difference *verified)
{
    const struct difference *shown = stored ? stored : verified;
    char problem[INPUT_PROBLEM], text[256];
    input_problem(input, problem);
    if (run->json) {
        json_t *error = shown
                            ? json_pack("{s:o, s:o, s:o}", "max_abs", json_number(shown->max_abs),
                                        "max_rel", json_number(shown->max_rel), "fraction_of_bound",
                                        verified ? json_number(verified->fraction) : json_null())
                            : json_null();
        return print_json(
            json_pack("{s:s, s:o, s:s, s:o, s:s, s:f, s:o, s:o}", "problem", problem, "ignored",
                      input_ignored(input), "device", device->label, "device_name",
                      json_text(device->info.name), "kernel", results->kernel, "time_ms",
                      results->seconds * 1e3, "error", error, "ok",
                      verified ? json_boolean(verified->fraction <= 1) : json_null()));
    }
    input_print_notes(input);
    print_field("problem", "%s", problem);
    print_field("device", "%s", device_text(device, text));
    print_field("kernel", "%s", results->kernel);
    print_field("time", "%s", time_text(results->seconds, text));
    if (stored)
        print_field("error", "at most %.3g, relative %.3g, against the file's out", stored->max_abs,
                    stored->max_rel);
    if (verified && !verified->elements) print_field("verified", "nothing: the results are empty");
    else if (verified && !*verified->where)
        print_field("verified",
                    "right: %lld elements compared with the f64 definition, no difference",
                    (long long)verified->elements);
    else if (verified)
        print_field(
            "verified",
            "%s: at most %.3g, relative %.3g, against the f64 definition; %.3g of its bound, at %s",
            verified->fraction <= 1 ? "right" : "WRONG", verified->max_abs, verified->max_rel,
            verified->fraction, verified->where);
    if (run->out_path) print_field("written", "%s", run->out_path);
    return EXIT_OK;
}

/* After the computation: compare, write, report. */
static int finish(const struct run *run, const struct input *input, const struct device *device,
                  struct results *results)
{
    struct difference stored, verified;
    int code = EXIT_OK;
    if (input->answer) code = compare_with_file(input, &results->a.out, &stored);
    if (!code && run->verify) code = compare_with_oracle(&results->a, &device->info, &verified);
    if (!code && run->out_path) code = write_results(run, results);
    if (!code)
        code = report(run, input, device, results, input->answer ? &stored : NULL,
                      run->verify ? &verified : NULL);
    if (!code && run->verify && !(verified.fraction <= 1)) code = EXIT_WRONG;
    return code;
}

int command_run(int argc, char **argv)
{
    struct run run = {0};
    struct input input;
    struct device device;
    struct results results = {0};
    rapt_plan *plan = NULL;
    argp_parse(&run_argp, argc, argv, 0, NULL, &run);
    int code = input_open(run.path, &run.attention, &input);
    if (code) return code;
    char error[OUTPUT_ERROR];
    if (run.out_path &&
        output_check(run.out_path, input.file.file_device, input.file.file_inode, error))
        code = complain(EXIT_BAD_INPUT, "-o %s", error);
    results.a = input.a;
    if (!code) code = add_outputs(&run, &input, &results.a);
    if (!code) code = device_plan(&run.where, &results.a, &device, &plan);
    if (!code) {
        snprintf(results.kernel, sizeof results.kernel, "%s", rapt_plan_kernel(plan));
        code = compute_on(&device, plan, &results);
        if (!code) code = finish(&run, &input, &device, &results);
        rapt_plan_destroy(&plan);
        device_close(&device);
    }
    free_outputs(&results.a);
    input_close(&input);
    return code;
}
