/* explain.c: `rapt explain`: which kernel would serve a problem, and why each better one refuses. */
#include "commands.h"
#include "problem.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct explain {
    struct device_options where;
    struct problem_line line;
    int given, json;
    int served; /* by a device at least */
};

enum { KEY_JSON = 512 };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object per device", 0}, {0}};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct explain *explain = state->input;
    char error[PROBLEM_LINE + 256];
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &explain->where;
        return 0;
    case KEY_JSON:
        explain->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (explain->given++)
            argp_error(state, "more than one problem is given (a line in quotes is one)");
        if (!problem_parse(text, &explain->line, error, sizeof error))
            argp_error(state, "\"%s\": %s", text, error);
        if (explain->line.op != OP_forward)
            argp_error(state, "only forward has several kernels to choose from");
        return 0;
    case ARGP_KEY_END:
        if (!explain->given) argp_error(state, "no problem is given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&device_argp, 0, "Where:", 2}, {0}};
static const struct argp explain_argp = {
    options,
    parse,
    "LINE",
    "Says which kernel of each device would serve a problem, and why each better one refuses it.\v"
    "A LINE is one argument, as `rapt bench' takes it: \"forward bf16 b1 h32/8 q4096 kv4096 d128 "
    "causal\". Exit code 3: no device serves it.",
    children,
    NULL,
    NULL};

/* rapt_explain's whole text, the caller's to free; NULL: out of memory. */
static char *explanation(rapt_device *device, const rapt_attention *a)
{
    size_t size = rapt_explain(device, a, NULL, 0) + 1;
    char *text = malloc(size);
    if (text) rapt_explain(device, a, text, size);
    return text;
}

/* From lines of the form "kernel: reason", the last one "kernel: runs" where one serves. */
static int print_as_json(const struct device *device, const char *problem, char *text,
                         const char *kernel)
{
    json_t *refusals = json_array();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *colon = strstr(line, ": ");
        if (!colon || !strcmp(colon, ": runs")) continue;
        *colon = 0;
        json_array_append_new(refusals, json_pack("{s:o, s:o}", "kernel", json_text(line), "reason",
                                                  json_text(colon + 2)));
    }
    return print_json(json_pack("{s:s, s:s, s:o, s:o}", "problem", problem, "device", device->label,
                                "kernel", json_text(kernel), "refusals", refusals));
}

static int explain_device(struct explain *explain, const struct device *device, rapt_attention *a)
{
    char label[256];
    rapt_plan *plan;
    if (explain->where.kernel) a->kernel = explain->where.kernel;
    char *text = explanation(device->handle, a);
    if (!text) return complain(EXIT_NOT_HERE, "out of memory");
    int code = EXIT_OK;
    rapt_status status = rapt_plan_create(&plan, device->handle, a);
    const char *kernel = status ? NULL : rapt_plan_kernel(plan);
    if (status == RAPT_INVALID) {
        code = complain(EXIT_BAD_INPUT, "%s: %s", device->label, text);
    } else if (explain->json) {
        code = print_as_json(device, explain->line.text, text, kernel);
    } else {
        printf("%s\n", device_text(device, label));
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
            printf("  %s\n", line);
    }
    explain->served |= !status;
    rapt_plan_destroy(&plan);
    free(text);
    return code;
}

static int explain_devices(struct explain *explain, rapt_attention *a)
{
    struct device device;
    int code = device_open(&explain->where, &device);
    if (code) return code;
    int all = !explain->where.device || !strcmp(explain->where.device, "auto");
    int count = all ? rapt_device_count(device.context) : 1;
    for (int i = 0; i < count && !code; i++) {
        if (all) device_select(&device, i);
        code = explain_device(explain, &device, a);
    }
    device_close(&device);
    return code;
}

int command_explain(int argc, char **argv)
{
    struct explain explain = {0};
    struct problem_instance instance;
    char error[512];
    argp_parse(&explain_argp, argc, argv, 0, NULL, &explain);
    if (!problem_build(&explain.line, &instance, error, sizeof error))
        return complain(EXIT_NOT_HERE, "%s", error);
    int code = explain_devices(&explain, &instance.args.forward);
    problem_free(&instance);
    return code ? code : explain.served ? EXIT_OK : EXIT_NOT_HERE;
}
