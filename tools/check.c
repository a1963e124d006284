/* check.c: `rapt check`: every named problem on this machine's devices, against the f64 definition.
 */
#include "bound.h"
#include "commands.h"
#include "problem.h"
#include "report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Multiply-adds of the definition for one problem before it takes a sample of rows. */
#define ORACLE_BUDGET 3e7

struct check {
    struct device_options where;
    const char *selected;
    int all, json, terminal;
    int right, wrong, refused;
    char refusal[640]; /* the first one: a name and a sentence */
    double worst;      /* largest fraction of a bound among the right ones */
    const char *worst_name;
};

enum { KEY_SELECT = 512, KEY_ALL, KEY_JSON };

static const struct argp_option options[] = {
    {"select", KEY_SELECT, "PATTERNS", 0, "Problems whose names fit, e.g. 'semantics/*,!*alibi*'",
     0},
    {"all", KEY_ALL, NULL, 0, "The large problems too", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct check *check = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &check->where;
        return 0;
    case KEY_SELECT:
        check->selected = text;
        return 0;
    case KEY_ALL:
        check->all = 1;
        return 0;
    case KEY_JSON:
        check->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "check takes no file");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&device_argp, 0, "Where:", 2}, {0}};
static const struct argp check_argp = {
    options,
    parse,
    NULL,
    "Compares this machine's results with the f64 definition, over the library's named "
    "problems.\v"
    "Progress is shown on a terminal. Failures are named on the error stream, and a last line "
    "counts "
    "all. Exit code 1: a result is wrong.",
    children,
    NULL,
    NULL};

/* Why the result of a problem that ran is wrong; "": it is right. */
static int judge(struct check *check, const struct named_problem *named,
                 struct problem_instance *instance, char *fault, size_t size)
{
    struct accuracy accuracy;
    const char *spoiled = problem_spoiled(instance);
    *fault = 0;
    if (!accuracy_check(instance, ORACLE_BUDGET, &accuracy))
        return complain(EXIT_NOT_HERE, "out of memory");
    if (spoiled) snprintf(fault, size, "memory beside %s was written", spoiled);
    else if (!(accuracy.worst <= 1))
        snprintf(fault, size, "%s is %.9g, not %.9g: %.3g of its bound", accuracy.where,
                 accuracy.got, accuracy.want, accuracy.worst);
    else if (accuracy.worst > check->worst) {
        check->worst = accuracy.worst;
        check->worst_name = named->name;
    }
    return EXIT_OK;
}

static void show_progress(const struct check *check, const struct device *device, int index,
                          const char *name)
{
    if (!check->terminal) return;
    printf("\r\033[K%s  %d of %d  %s", device->label, index + 1, named_problem_count, name);
    fflush(stdout);
}

static int check_problem(struct check *check, struct device *device,
                         const struct named_problem *named)
{
    struct problem_line line;
    struct problem_instance instance;
    struct problem_device on_device;
    char fault[512];
    if (!problem_parse(named->line, &line, fault, sizeof fault) ||
        !problem_build(&line, &instance, fault, sizeof fault))
        return complain(EXIT_NOT_HERE, "%s: %s", named->name, fault);
    int code = EXIT_OK;
    rapt_status status = problem_upload(&instance, device->handle, &on_device);
    if (!status) {
        if (check->where.kernel && line.op == OP_forward)
            on_device.args.forward.kernel = check->where.kernel;
        status = problem_run(&on_device, line.op, NULL);
        if (!status) status = problem_download(&on_device, &instance);
        if (status) snprintf(fault, sizeof fault, "%s", rapt_last_error());
        problem_device_free(&on_device);
    } else {
        snprintf(fault, sizeof fault, "%s", rapt_last_error());
    }
    if (!status) code = judge(check, named, &instance, fault, sizeof fault);
    check->right += !status && !*fault;
    if (status == RAPT_UNSUPPORTED && !check->refused++)
        snprintf(check->refusal, sizeof check->refusal, "%s: %s", named->name, fault);
    if (*fault && status != RAPT_UNSUPPORTED) {
        check->wrong++;
        if (check->terminal) printf("\r\033[K");
        complain(EXIT_WRONG, "%s: %s (%s): %s", device->label, named->name, named->line, fault);
    }
    problem_free(&instance);
    return code;
}

static int is_selected(const struct check *check, const struct named_problem *named)
{
    return named->size <= (check->all ? 2 : 1) && problem_selected(named->name, check->selected);
}

static int count_selected(const struct check *check)
{
    int count = 0;
    for (int i = 0; i < named_problem_count; i++) count += is_selected(check, &named_problems[i]);
    return count;
}

static int check_device(struct check *check, struct device *device)
{
    int code = EXIT_OK;
    for (int i = 0; i < named_problem_count && !code; i++) {
        const struct named_problem *named = &named_problems[i];
        if (!is_selected(check, named)) continue;
        show_progress(check, device, i, named->name);
        code = check_problem(check, device, named);
    }
    if (check->terminal) printf("\r\033[K");
    return code;
}

/* Each device by its own name, so that one that fails does not take the others' places. */
static int check_devices(struct check *check)
{
    struct device device;
    if (check->where.device && strcmp(check->where.device, "auto")) {
        int code = device_open(&check->where, &device);
        if (code) return code;
        code = check_device(check, &device);
        device_close(&device);
        return code;
    }
    int code = device_open(&check->where, &device),
        count = code ? 0 : rapt_device_count(device.context);
    for (int i = 0; i < count && !code; i++) {
        device_select(&device, i);
        code = check_device(check, &device);
    }
    if (count) device_close(&device);
    return code;
}

static int summarise(const struct check *check)
{
    int code = check->wrong ? EXIT_WRONG : check->right ? EXIT_OK : EXIT_NOT_HERE;
    if (check->json) {
        int printed = print_json(json_pack("{s:i, s:i, s:i, s:o, s:o}", "right", check->right,
                                           "wrong", check->wrong, "refused", check->refused,
                                           "worst_fraction_of_bound", json_number(check->worst),
                                           "worst_problem", json_text(check->worst_name)));
        return code ? code : printed;
    }
    if (!check->right && !check->wrong)
        return complain(code, "no problem ran: %d are not supported here (%s)", check->refused,
                        check->refusal);
    printf("%d right, %d wrong, %d not supported here", check->right, check->wrong, check->refused);
    if (check->worst_name)
        printf("; the nearest to its bound: %.3g, %s", check->worst, check->worst_name);
    printf("\n");
    return code;
}

int command_check(int argc, char **argv)
{
    struct check check = {.terminal = isatty(STDOUT_FILENO)};
    argp_parse(&check_argp, argc, argv, 0, NULL, &check);
    if (check.json) check.terminal = 0;
    if (!count_selected(&check))
        return complain(EXIT_BAD_INPUT, "--select: no problem's name fits \"%s\"", check.selected);
    int code = check_devices(&check);
    return code ? code : summarise(&check);
}
