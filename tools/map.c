/* map.c: `rapt map`: a head's attention weights as a picture. */
#include "commands.h"
#include "input.h"
#include "map_weights.h"
#include "output.h"
#include "picture.h"
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_SIZE = 900, NAME = 512, TITLE = NAME + 192 };

struct map {
    struct attention_options attention;
    struct device_options where;
    const char *path, *out_path, *title;
    int64_t head, batch, size;
    int logarithmic, mean, json;
};

enum { KEY_HEAD = 512, KEY_BATCH, KEY_SIZE, KEY_LOG, KEY_POOL, KEY_TITLE, KEY_JSON };

static const struct argp_option options[] = {
    {"output", 'o', "FILE", 0, "Write the picture to this PNG file (required)", 0},
    {"head", KEY_HEAD, "N", 0, "Draw query head N, from 0 (default 0)", 0},
    {"batch", KEY_BATCH, "N", 0, "Draw sequence N, from 0 (default 0)", 0},
    {"log", KEY_LOG, NULL, 0, "Colours stand for the weights' logarithms, four decades deep", 0},
    {"pool", KEY_POOL, "HOW", 0,
     "Where a pixel covers several weights: their max (default) or mean", 0},
    {"size", KEY_SIZE, "PX", 0, "Pixels of the plot's longer side, 240 to 8192 (default 900)", 0},
    {"title", KEY_TITLE, "TEXT", 0, "Title in place of the model, layer and head", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0},
    {0},
};

static int is_mean(const char *text, struct argp_state *state)
{
    if (strcmp(text, "max") && strcmp(text, "mean"))
        argp_error(state, "--pool: \"%s\" is unknown (max or mean)", text);
    return !strcmp(text, "mean");
}

static void check_title(const char *text, struct argp_state *state)
{
    for (size_t bytes, at = 0; text[at]; at += bytes)
        if (!(bytes = picture_character(text + at)))
            argp_error(
                state,
                "--title: byte %zu begins no character that can be drawn (the title must be UTF-8)",
                at + 1);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct map *map = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &map->attention;
        state->child_inputs[1] = &map->where;
        return 0;
    case 'o':
        map->out_path = text;
        return 0;
    case KEY_HEAD:
        map->head = option_integer(text, 0, INT64_MAX, "--head", state);
        return 0;
    case KEY_BATCH:
        map->batch = option_integer(text, 0, INT64_MAX, "--batch", state);
        return 0;
    case KEY_SIZE:
        map->size = option_integer(text, PICTURE_SMALLEST, PICTURE_LARGEST, "--size", state);
        return 0;
    case KEY_LOG:
        map->logarithmic = 1;
        return 0;
    case KEY_POOL:
        map->mean = is_mean(text, state);
        return 0;
    case KEY_TITLE:
        check_title(text, state);
        map->title = text;
        return 0;
    case KEY_JSON:
        map->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (map->path) argp_error(state, "more than one file is given");
        map->path = text;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no file is given");
        return 0;
    case ARGP_KEY_END:
        if (!map->out_path) argp_error(state, "-o FILE is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&attention_argp, 0, "What to compute:", 1}, {&device_argp, 0, "Where:", 2}, {0}};
static const struct argp map_argp = {
    options,
    parse,
    "FILE.safetensors",
    "Draws one head's attention weights: queries from top to bottom, keys from left to right.\v"
    "The file's tensors are those of `rapt run'. Weights are computed by the library in blocks "
    "of rows, so that memory stays bounded for any number of tokens.",
    children,
    NULL,
    NULL};

/* Plans the whole problem, so that every rule of the library is checked on what the file says. */
static int open_device(const struct map *map, const struct input *input, struct device *device)
{
    rapt_attention a = input->a;
    rapt_plan *plan;
    const int64_t *n = a.q.size;
    a.out = input_like_q(input, NULL, a.q.dtype == RAPT_I8 ? RAPT_F32 : (rapt_dtype)a.q.dtype,
                         a.v.size[3]);
    a.weights = rapt_tensor_bhtd(NULL, RAPT_F32, 1, 1, 1, 1);
    int64_t row, plane, all;
    if (__builtin_mul_overflow(n[2], input->kv_longest, &row) ||
        __builtin_mul_overflow(row, n[1], &plane) || __builtin_mul_overflow(plane, n[0], &all))
        return complain(EXIT_BAD_INPUT, "the weights are more than 63 bits can count");
    a.weights = rapt_tensor_bhtd(NULL, RAPT_F32, n[0], n[1], n[2], input->kv_longest);
    int code = device_plan(&map->where, &a, device, &plan);
    if (!code) rapt_plan_destroy(&plan);
    return code;
}

static int check_choice(const struct map *map, const struct input *input)
{
    if (map->head >= input->a.q.size[1])
        return complain(EXIT_BAD_INPUT, "--head %" PRId64 ": q has heads 0 to %" PRId64, map->head,
                        input->a.q.size[1] - 1);
    if (map->batch >= input->batch)
        return complain(EXIT_BAD_INPUT,
                        "--batch %" PRId64 ": the file has %" PRId64 " sequences (from 0)",
                        map->batch, input->batch);
    if (!input_q_length(input, map->batch) || !input_kv_length(input, map->batch))
        return complain(EXIT_BAD_INPUT, "sequence %" PRId64 " has no queries or no keys to draw",
                        map->batch);
    return EXIT_OK;
}

/* What fits of text; bytes that are no character become question marks. */
static void copy_text(char *to, size_t size, const char *text)
{
    size_t used = 0;
    while (*text) {
        size_t bytes = picture_character(text), step = bytes ? bytes : 1;
        if (used + step >= size) break;
        memcpy(to + used, bytes ? text : "?", step);
        used += step;
        text += step;
    }
    to[used] = 0;
}

/* The model's name up to its remarks in parentheses; the file's own name where no model is given.
 */
static void name_source(const struct map *map, const struct input *input, char name[NAME])
{
    const char *model = safetensors_note(&input->file, "model"), *slash = strrchr(map->path, '/');
    copy_text(name, NAME, model ? model : slash ? slash + 1 : map->path);
    char *remark = model ? strstr(name, " (") : NULL;
    if (remark) *remark = 0;
}

static void write_title(const struct map *map, const struct input *input, char title[TITLE])
{
    char name[NAME], layer[64] = "", sequence[64] = "", of[17] = "", all[17] = "";
    const char *number = safetensors_note(&input->file, "layer"),
               *count = safetensors_note(&input->file, "layers");
    name_source(map, input, name);
    copy_text(of, sizeof of, number ? number : "");
    copy_text(all, sizeof all, count ? count : "");
    if (number) snprintf(layer, sizeof layer, ", layer %s%s%s", of, count ? " of " : "", all);
    if (input->batch > 1)
        snprintf(sequence, sizeof sequence, ", sequence %" PRId64 " (0 to %" PRId64 ")", map->batch,
                 input->batch - 1);
    snprintf(title, TITLE, "%s%s%s, head %" PRId64 " (0 to %" PRId64 ")", name, layer, sequence,
             map->head, input->a.q.size[1] - 1);
}

static void write_note(const struct map *map, const struct input *input,
                       const struct picture *picture, char note[256])
{
    const rapt_attention *a = &input->a;
    char cell[64], window[64] = "";
    int64_t high = (picture->queries + picture->size.rows - 1) / picture->size.rows;
    int64_t wide = (picture->keys + picture->size.columns - 1) / picture->size.columns;
    if (high == 1 && wide == 1) snprintf(cell, sizeof cell, "one cell per weight");
    else
        snprintf(cell, sizeof cell, "a pixel is the %s of up to %" PRId64 " \303\227 %" PRId64,
                 map->mean ? "mean" : "largest", high, wide);
    if (a->window_left || a->window_right)
        snprintf(window, sizeof window, ", window %" PRId64 ",%" PRId64, a->window_left - 1,
                 a->window_right - 1);
    char queries[32], keys[32];
    picture_number(picture->queries, queries);
    picture_number(picture->keys, keys);
    snprintf(note, 256, "%s queries \303\227 %s keys%s%s; %s; grey: hidden or 0", queries, keys,
             a->causal ? ", causal" : "", window, cell);
}

static int draw(const struct map *map, const struct input *input, struct device *device)
{
    struct picture picture = {.queries = input_q_length(input, map->batch),
                              .keys = input_kv_length(input, map->batch),
                              .logarithmic = map->logarithmic};
    char title[TITLE], note[256], kernel[64], error[PICTURE_ERROR], text[256];
    picture.size = picture_measure(picture.queries, picture.keys, (int)map->size);
    float *cells = calloc((size_t)picture.size.rows * (size_t)picture.size.columns, sizeof *cells);
    if (!cells) return complain(EXIT_NOT_HERE, "out of memory");
    struct map_request request = {map->batch, map->head, picture.size.rows, picture.size.columns,
                                  map->mean};
    double start = seconds_now();
    int code = map_weights(device, &map->where, input, &request, cells, kernel);
    double seconds = seconds_now() - start;
    write_title(map, input, title);
    write_note(map, input, &picture, note);
    picture.title = map->title ? map->title : title;
    picture.note = note;
    picture.cells = cells;
    if (!code && picture_write(&picture, map->out_path, error))
        code = complain(EXIT_BAD_INPUT, "%s", error);
    free(cells);
    if (code) return code;
    if (map->json)
        return print_json(json_pack(
            "{s:o, s:s, s:o, s:s, s:f, s:I, s:I, s:I, s:I, s:o}", "ignored", input_ignored(input),
            "device", device->label, "device_name", json_text(device->info.name), "kernel", kernel,
            "time_ms", seconds * 1e3, "head", (json_int_t)map->head, "batch",
            (json_int_t)map->batch, "rows", (json_int_t)picture.size.rows, "columns",
            (json_int_t)picture.size.columns, "picture", json_text(map->out_path)));
    input_print_notes(input);
    print_field("device", "%s", device_text(device, text));
    print_field("kernel", "%s", kernel);
    print_field("time", "%s", time_text(seconds, text));
    print_field("picture", "%s: %s", map->out_path, note);
    return EXIT_OK;
}

int command_map(int argc, char **argv)
{
    struct map map = {.size = DEFAULT_SIZE};
    struct input input;
    struct device device;
    char error[OUTPUT_ERROR];
    argp_parse(&map_argp, argc, argv, 0, NULL, &map);
    int code = input_open(map.path, &map.attention, &input);
    if (code) return code;
    if (output_check(map.out_path, input.file.file_device, input.file.file_inode, error))
        code = complain(EXIT_BAD_INPUT, "-o %s", error);
    if (!code) code = check_choice(&map, &input);
    if (!code) code = open_device(&map, &input, &device);
    if (!code) {
        code = draw(&map, &input, &device);
        device_close(&device);
    }
    input_close(&input);
    return code;
}
