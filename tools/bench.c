/* bench.c: `rapt bench`: times problem lines and puts them beside what this machine can do. */
#include "bench_case.h"
#include "ceiling.h"
#include "commands.h"
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    MOST_LINES = 4096,
    TURNS = 8,
    KEY_JSON = 512,
    KEY_CSV,
    KEY_ROTATE,
    KEY_SECONDS,
    KEY_FORWARD
};

struct bench {
    struct device_options where;
    int json, csv, through_forward;
    int64_t rotate; /* -1: chosen */
    double seconds;
    struct problem_line *lines; /* owned */
    int count;
    struct ceiling flops[RAPT_I8 + 1]; /* measured once: by type */
    struct ceiling copies;
};

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object per line", 0},
    {"csv", KEY_CSV, NULL, 0, "Print comma-separated values", 0},
    {"rotate", KEY_ROTATE, "N", 0,
     "Copies of K and V that calls take in turn, so that caches do not flatter; 1: none. Default "
     "for decode steps (up to 32 queries, and more keys): enough for four times the last cache",
     0},
    {"forward", KEY_FORWARD, NULL, 0,
     "Call rapt_forward, which finds its plan and workspace at each call, not rapt_plan_execute",
     0},
    {"seconds", KEY_SECONDS, "X", 0, "Time each problem for about X seconds (default 0.5)", 0},
    {0},
};

/* where: what a sentence begins with that says where the line stands. */
static void add_line(struct bench *bench, const char *text, const char *where,
                     struct argp_state *state)
{
    char error[PROBLEM_LINE + 256];
    if (bench->count == MOST_LINES) argp_error(state, "more than %d lines", MOST_LINES);
    if (!problem_parse(text, &bench->lines[bench->count], error, sizeof error))
        argp_error(state, "%s%s", where, error);
    bench->count++;
}

/* Lines of a file; empty ones and those that begin with # are passed over. */
static void add_file(struct bench *bench, const char *path, struct argp_state *state)
{
    char text[4096], where[4096];
    FILE *file = strcmp(path, "-") ? fopen(path, "r") : stdin;
    if (!file) {
        argp_error(state, "%s: cannot be read: %s", path, strerror(errno));
        return;
    }
    for (int number = 1; fgets(text, sizeof text, file); number++) {
        text[strcspn(text, "\r\n")] = 0;
        size_t first = strspn(text, " \t");
        snprintf(where, sizeof where, "%s:%d: ", path, number);
        if (text[first] && text[first] != '#') add_line(bench, text + first, where, state);
    }
    int failed = ferror(file) ? errno : 0;
    if (file != stdin) fclose(file);
    if (failed) argp_error(state, "%s: cannot be read: %s", path, strerror(failed));
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct bench *bench = state->input;
    struct stat status;
    char where[256];
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &bench->where;
        return 0;
    case KEY_JSON:
        bench->json = 1;
        return 0;
    case KEY_CSV:
        bench->csv = 1;
        return 0;
    case KEY_ROTATE:
        bench->rotate = option_integer(text, 1, 1 << 20, "--rotate", state);
        return 0;
    case KEY_FORWARD:
        bench->through_forward = 1;
        return 0;
    case KEY_SECONDS:
        bench->seconds = option_number(text, "--seconds", state);
        if (bench->seconds <= 0 || bench->seconds > 3600)
            argp_error(state, "--seconds: %s is not above 0 and at most 3600", text);
        return 0;
    case ARGP_KEY_ARG:
        if (!strcmp(text, "-") || !stat(text, &status)) {
            add_file(bench, text, state);
        } else {
            snprintf(where, sizeof where, "\"%.200s\" is no file, and as a ", text);
            add_line(bench, text, where, state);
        }
        return 0;
    case ARGP_KEY_END:
        if (!bench->count) argp_error(state, "no problem is given");
        if (bench->csv && bench->json)
            argp_error(state, "--csv and --json are both given (one of them)");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&device_argp, 0, "Where:", 2}, {0}};
static const struct argp bench_argp = {
    options,
    parse,
    "LINE-OR-FILE...",
    "Times problems: median, least and most time of a call, rates, and the percentage of a "
    "ceiling that is measured in the same run.\v"
    "A LINE is one argument: \"forward bf16 b1 h32/8 q4096 kv4096 d128 causal\". A FILE holds a "
    "line each; - is the standard input. Arithmetic is counted as 2 flop for each product of "
    "visible pairs, memory as each input and output once. The ceiling on a CPU is the slower of "
    "multiply-adds in registers and a stream over as many bytes, over the same threads: of reads "
    "for forward, qk and pv, of copies (read + write) for operations that read as they write, of "
    "bytes read once and written four times for kv_replicate, of writes for causal_mask; its "
    "trials lie between the rounds of the problem, and the rate is their median. On a GPU it is "
    "copies within the device, for problems that are bound by memory.",
    children,
    NULL,
    NULL};

/* The stream that an operation is compared with on a CPU. */
static const enum traffic traffic_of[] = {
    [OP_forward] = TRAFFIC_READS,
    [OP_rope] = TRAFFIC_COPIES,
    [OP_softmax] = TRAFFIC_COPIES,
    [OP_qk] = TRAFFIC_READS,
    [OP_pv] = TRAFFIC_READS,
    [OP_causal_mask] = TRAFFIC_WRITES,
    [OP_kv_replicate] = TRAFFIC_REPETITIONS,
    [OP_kv_append] = TRAFFIC_COPIES,
};

/* What binds the problem on this device, at most. rate 0: unknown. */
struct limit {
    double rate, share; /* in unit's 1e9; share of it that the problem reached */
    const char *unit, *what;
};

/* Half queries meet i8 keys and values as integers. */
static int64_t type_of_products(const struct problem_line *line)
{
    int is_half = line->dtype == RAPT_F16 || line->dtype == RAPT_BF16;
    return is_half && line->kv_dtype == RAPT_I8 ? RAPT_I8 : line->dtype;
}

static struct limit limit_of(struct bench *bench, const struct device *device,
                             const struct bench_case *c, const struct ceiling *stream)
{
    struct limit limit = {0};
    double flops = problem_flops(&c->line), bytes = problem_bytes(&c->line),
           seconds = c->times.median;
    double memory = stream->rate > 0 ? bytes / stream->rate : 0, arithmetic = 0;
    int64_t type = type_of_products(&c->line);
    struct ceiling *f = &bench->flops[type];
    if (device->is_cpu && flops > 0) {
        if (f->rate <= 0) *f = ceiling_cpu_flops(type, device->info.compute_units);
        arithmetic = f->rate > 0 ? flops / f->rate : 0;
    }
    if (arithmetic > memory)
        limit = (struct limit){f->rate * 1e-9, arithmetic / seconds, "GFLOP/s", f->what};
    else if (memory > 0)
        limit = (struct limit){stream->rate * 1e-9, memory / seconds, "GB/s", stream->what};
    return limit;
}

static int print_json_row(const struct device *device, const struct bench_case *c,
                          const struct limit *limit)
{
    const struct bench_times *t = &c->times;
    int known = limit->rate > 0;
    return print_json(json_pack(
        "{s:s, s:s, s:o, s:s, s:o, s:{s:f, s:f, s:f}, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I}",
        "problem", c->line.text, "device", device->label, "device_name",
        json_text(device->info.name), "kernel", c->kernel, "threads",
        device->is_cpu ? json_integer(device->info.compute_units) : json_null(), "time_ms", "min",
        t->least * 1e3, "median", t->median * 1e3, "max", t->most * 1e3, "gflops",
        json_number(problem_flops(&c->line) / t->median * 1e-9), "gbytes_per_s",
        json_number(problem_bytes(&c->line) / t->median * 1e-9), "ceiling",
        known ? json_number(limit->rate) : json_null(), "ceiling_unit", json_text(limit->unit),
        "ceiling_of", json_text(limit->what), "percent_of_ceiling",
        known ? json_number(100 * limit->share) : json_null(), "rotated",
        (json_int_t)(c->copies ? c->copies : 1), "calls", (json_int_t)t->calls));
}

static void print_csv_row(const struct device *device, const struct bench_case *c,
                          const struct limit *limit)
{
    const struct bench_times *t = &c->times;
    printf("\"%s\",%s,%s,", c->line.text, device->label, c->kernel);
    if (device->is_cpu) printf("%" PRId64, device->info.compute_units);
    printf(",%.6g,%.6g,%.6g,%.6g,%.6g,", t->least * 1e3, t->median * 1e3, t->most * 1e3,
           problem_flops(&c->line) / t->median * 1e-9, problem_bytes(&c->line) / t->median * 1e-9);
    if (limit->rate > 0) printf("%.6g,%s,%.4g\n", limit->rate, limit->unit, 100 * limit->share);
    else printf(",,\n");
}

static void print_row(const struct bench_case *c, const struct limit *limit)
{
    char least[32], median[32], most[32];
    const struct bench_times *t = &c->times;
    printf("%s\n  %-22s %s  (%s ... %s)  %.4g GFLOP/s  %.4g GB/s", c->line.text, c->kernel,
           time_text(t->median, median), time_text(t->least, least), time_text(t->most, most),
           problem_flops(&c->line) / t->median * 1e-9, problem_bytes(&c->line) / t->median * 1e-9);
    if (c->copies > 1) printf("  (K and V: %" PRId64 " copies in turn)", c->copies);
    if (limit->rate > 0)
        printf("\n  %-22s %.1f %% of %.4g %s: %s", "", 100 * limit->share, limit->rate, limit->unit,
               limit->what);
    printf("\n");
    fflush(stdout);
}

/* Times the case, in turn with the stream if memory is what it is compared with. */
static int time_in_turn(struct bench *bench, struct bench_case *c, struct ceiling *ceiling)
{
    struct device *device = c->device;
    struct stream *stream = NULL;
    int64_t threads = device->info.compute_units;
    int in_turn = bench_is_bound_by_memory(&c->line), code = bench_case_warm(c);
    if (device->is_cpu)
        stream = stream_open(traffic_of[c->line.op],
                             c->stream_memory ? (double)c->stream_bytes : c->working_set,
                             c->stream_memory, threads);
    for (int i = 0; i < TURNS && !code; i++) {
        code = bench_case_time(c, bench->seconds / TURNS);
        if (in_turn) stream_try(stream);
    }
    for (int i = 0; i < TURNS && !code && !in_turn; i++) stream_try(stream);
    if (!code) c->times = bench_case_times(c);
    *ceiling = stream_ceiling(stream);
    stream_close(stream);
    if (device->is_cpu || code || !in_turn) return code;
    if (bench->copies.rate <= 0) bench->copies = ceiling_gpu_copies(device);
    *ceiling = bench->copies;
    return code;
}

static int run_line(struct bench *bench, struct device *device, const struct problem_line *line)
{
    struct bench_case c;
    struct ceiling stream;
    int code = bench_case_open(device, &bench->where, line, bench->rotate, &c);
    if (code) return code;
    c.through_forward = bench->through_forward;
    code = time_in_turn(bench, &c, &stream);
    if (!code) {
        struct limit limit = limit_of(bench, device, &c, &stream);
        if (bench->json) code = print_json_row(device, &c, &limit);
        else if (bench->csv) print_csv_row(device, &c, &limit);
        else print_row(&c, &limit);
    }
    bench_case_close(&c);
    return code;
}

int command_bench(int argc, char **argv)
{
    struct bench bench = {.rotate = -1, .seconds = 0.5};
    struct device device;
    char text[256];
    bench.lines = calloc(MOST_LINES, sizeof *bench.lines);
    if (!bench.lines) return complain(EXIT_NOT_HERE, "out of memory");
    argp_parse(&bench_argp, argc, argv, 0, NULL, &bench);
    int worst = device_open(&bench.where, &device);
    if (!worst) {
        if (bench.csv)
            puts("problem,device,kernel,threads,time_ms_min,time_ms_median,time_ms_max,gflops,"
                 "gbytes_per_s,ceiling,ceiling_unit,percent_of_ceiling");
        else if (!bench.json) printf("%s\n\n", device_text(&device, text));
        for (int i = 0; i < bench.count; i++) {
            int code = run_line(&bench, &device, &bench.lines[i]);
            if (code > worst) worst = code;
        }
        device_close(&device);
    }
    free(bench.lines);
    return worst;
}
