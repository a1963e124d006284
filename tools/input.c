/* input.c: turns the tensors of a safetensors file into rapt_attention, and checks what the library
 * cannot. */
#include "input.h"

#include "base/dtype.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a tensor's axes map to [batch, head, token, channel]. */
enum { SEQUENCE_AXES, SCORE_AXES, HEAD_AXIS, BATCH_AXIS, PAGE_AXES };

static const unsigned char role_rank[] = {
    [SEQUENCE_AXES] = 4, [SCORE_AXES] = 4, [HEAD_AXIS] = 1, [BATCH_AXIS] = 1, [PAGE_AXES] = 2};

#define FIELD(name, role)                                                                          \
    {                                                                                              \
#name, offsetof(rapt_attention, name), role                                                \
    }
const struct input_field input_fields[] = {
    FIELD(q, SEQUENCE_AXES),       FIELD(k, SEQUENCE_AXES),       FIELD(v, SEQUENCE_AXES),
    FIELD(bias, SCORE_AXES),       FIELD(mask, SCORE_AXES),       FIELD(sink, HEAD_AXIS),
    FIELD(alibi_slope, HEAD_AXIS), FIELD(q_start, BATCH_AXIS),    FIELD(kv_start, BATCH_AXIS),
    FIELD(kv_length, BATCH_AXIS),  FIELD(page_table, PAGE_AXES),  FIELD(q_scale, SEQUENCE_AXES),
    FIELD(k_scale, SEQUENCE_AXES), FIELD(v_scale, SEQUENCE_AXES),
};
#undef FIELD
enum { REQUIRED = 3 }; /* the first of them */
const int input_field_count = sizeof input_fields / sizeof *input_fields;

_Static_assert(sizeof input_fields / sizeof *input_fields <= INPUT_FIELDS,
               "a copy may be needed of each");

static const struct {
    enum safetensors_dtype file;
    rapt_dtype ours;
} dtypes[] = {
    {SAFETENSORS_F32, RAPT_F32}, {SAFETENSORS_F16, RAPT_F16}, {SAFETENSORS_BF16, RAPT_BF16},
    {SAFETENSORS_I8, RAPT_I8},   {SAFETENSORS_U8, RAPT_U8},   {SAFETENSORS_BOOL, RAPT_U8},
    {SAFETENSORS_I32, RAPT_I32}, {SAFETENSORS_I64, RAPT_I64},
};

static int64_t dtype_of(const struct safetensors_tensor *t)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].file == t->dtype) return dtypes[i].ours;
    return 0;
}

static rapt_tensor shape_tensor(const struct safetensors_tensor *t, int role, int64_t head_first,
                                const void *data)
{
    rapt_dtype dtype = (rapt_dtype)dtype_of(t);
    const int64_t *n = t->size;
    switch (role) {
    case SEQUENCE_AXES:
        return head_first ? rapt_tensor_bhtd(data, dtype, n[0], n[1], n[2], n[3])
                          : rapt_tensor_bthd(data, dtype, n[0], n[2], n[1], n[3]);
    case SCORE_AXES:
        return rapt_tensor_bhtd(data, dtype, n[0], n[1], n[2], n[3]);
    case HEAD_AXIS:
        return rapt_tensor_bhtd(data, dtype, 1, n[0], 1, 1);
    case BATCH_AXIS:
        return rapt_tensor_bhtd(data, dtype, n[0], 1, 1, 1);
    default:
        return rapt_tensor_bhtd(data, dtype, n[0], 1, n[1], 1);
    }
}

/* The tensor's data where its elements are aligned. */
static const void *aligned_data(struct input *input, const struct safetensors_tensor *t)
{
    if ((uintptr_t)t->data % safetensors_dtype_size(t->dtype) == 0) return t->data;
    void *copy = malloc(t->bytes + 1);
    if (copy) input->copies[input->copy_count++] = memcpy(copy, t->data, t->bytes);
    return copy;
}

static int read_field(struct input *input, const struct input_field *field)
{
    const struct safetensors_tensor *t = safetensors_find(&input->file, field->name);
    if (!t) return EXIT_OK;
    if (t->rank != role_rank[field->role])
        return complain(EXIT_BAD_INPUT, "tensor %s has %d axes (it needs %d)", t->name, t->rank,
                        role_rank[field->role]);
    if (!dtype_of(t))
        return complain(
            EXIT_BAD_INPUT,
            "tensor %s has dtype %s (F32, F16, BF16, I8, U8, BOOL, I32 and I64 can be used)",
            t->name, safetensors_dtype_name(t->dtype));
    int64_t elements = 1;
    for (int axis = 0; axis < t->rank; axis++)
        if (__builtin_mul_overflow(elements, t->size[axis] ? t->size[axis] : 1, &elements))
            return complain(EXIT_BAD_INPUT, "tensor %s is larger than 63 bits can count", t->name);
    const void *data = aligned_data(input, t);
    if (!data)
        return complain(EXIT_NOT_HERE, "no %" PRIu64 " bytes of memory for %s", t->bytes, t->name);
    *(rapt_tensor *)((char *)&input->a + field->offset) =
        shape_tensor(t, field->role, input->head_first, data);
    return EXIT_OK;
}

static int64_t index_at(const rapt_tensor *t, int64_t i)
{
    return load_index(t->data, t->dtype, i);
}

static int is_index(const rapt_tensor *t)
{
    return t->dtype == RAPT_I32 || t->dtype == RAPT_I64;
}

/* Starts of a ragged batch must climb within the total number of tokens. */
static int check_starts(const char *name, const rapt_tensor *t, const rapt_tensor *tokens)
{
    if (!t->dtype) return EXIT_OK;
    if (!is_index(t)) return complain(EXIT_BAD_INPUT, "tensor %s is no I32 or I64", name);
    if (t->size[0] < 1)
        return complain(EXIT_BAD_INPUT, "tensor %s is empty (batch + 1 entries)", name);
    for (int64_t i = 0, last = 0; i < t->size[0]; i++) {
        int64_t start = index_at(t, i);
        if (start < last || start > tokens->size[2])
            return complain(EXIT_BAD_INPUT,
                            "%s[%" PRId64 "] is %" PRId64
                            " (starts climb from 0 to at most %" PRId64 " tokens)",
                            name, i, start, tokens->size[2]);
        last = start;
    }
    return EXIT_OK;
}

/* Tokens that sequence b may hold, before kv_length; b matters to ragged keys alone. */
static int64_t capacity(const struct input *input, int64_t b)
{
    const rapt_attention *a = &input->a;
    if (a->kv_start.dtype) return index_at(&a->kv_start, b + 1) - index_at(&a->kv_start, b);
    if (!a->page_table.dtype) return a->k.size[2];
    int64_t tokens;
    return __builtin_mul_overflow(a->page_table.size[2], a->k.size[2], &tokens) ? INT64_MAX
                                                                                : tokens;
}

static int check_lengths(const struct input *input)
{
    const rapt_tensor *t = &input->a.kv_length;
    if (!t->dtype) return EXIT_OK;
    if (!is_index(t)) return complain(EXIT_BAD_INPUT, "tensor kv_length is no I32 or I64");
    if (t->size[0] != input->batch)
        return complain(EXIT_BAD_INPUT, "kv_length has %" PRId64 " entries for a batch of %" PRId64,
                        t->size[0], input->batch);
    for (int64_t b = 0; b < input->batch; b++)
        if (index_at(t, b) < 0 || index_at(t, b) > capacity(input, b))
            return complain(EXIT_BAD_INPUT,
                            "kv_length[%" PRId64 "] is %" PRId64 " (0 to the %" PRId64
                            " tokens there is room for)",
                            b, index_at(t, b), capacity(input, b));
    return EXIT_OK;
}

/* Entries of pages that are in use must name a page of k. */
static int check_pages(const struct input *input)
{
    const rapt_attention *a = &input->a;
    const rapt_tensor *t = &a->page_table;
    if (!t->dtype) return EXIT_OK;
    if (!is_index(t)) return complain(EXIT_BAD_INPUT, "tensor page_table is no I32 or I64");
    if (t->size[0] != input->batch)
        return complain(EXIT_BAD_INPUT, "page_table has %" PRId64 " rows for a batch of %" PRId64,
                        t->size[0], input->batch);
    if (a->k.size[2] < 1) return complain(EXIT_BAD_INPUT, "a page of k has no tokens (at least 1)");
    for (int64_t b = 0; b < input->batch; b++) {
        int64_t length = input_kv_length(input, b),
                used = length / a->k.size[2] + (length % a->k.size[2] > 0);
        for (int64_t i = 0; i < used; i++) {
            int64_t page = index_at(t, b * t->size[2] + i);
            if (page < 0 || page >= a->k.size[0])
                return complain(EXIT_BAD_INPUT,
                                "page_table[%" PRId64 ", %" PRId64 "] is %" PRId64
                                " (k has %" PRId64 " pages)",
                                b, i, page, a->k.size[0]);
        }
    }
    return EXIT_OK;
}

static int check_indices(struct input *input)
{
    const rapt_attention *a = &input->a;
    if (a->kv_start.dtype && a->page_table.dtype)
        return complain(EXIT_BAD_INPUT,
                        "page_table and kv_start are both given (keys are paged or ragged)");
    int code = check_starts("q_start", &a->q_start, &a->q);
    if (!code) code = check_starts("kv_start", &a->kv_start, &a->k);
    if (code) return code;
    input->batch = a->q_start.dtype ? a->q_start.size[0] - 1 : a->q.size[0];
    if (a->kv_start.dtype && a->kv_start.size[0] - 1 != input->batch)
        return complain(EXIT_BAD_INPUT,
                        "kv_start has %" PRId64 " entries for a batch of %" PRId64 " (batch + 1)",
                        a->kv_start.size[0], input->batch);
    code = check_lengths(input);
    if (!code) code = check_pages(input);
    if (code) return code;
    if (!a->kv_start.dtype) input->kv_longest = capacity(input, 0);
    for (int64_t b = 0; a->kv_start.dtype && b < input->batch; b++)
        if (capacity(input, b) > input->kv_longest) input->kv_longest = capacity(input, b);
    return EXIT_OK;
}

int input_open(const char *path, const struct attention_options *options, struct input *out)
{
    char error[SAFETENSORS_ERROR];
    memset(out, 0, sizeof *out);
    if (safetensors_open(path, &out->file, error))
        return complain(EXIT_BAD_INPUT, "%s: %s", path, error);
    out->head_first = options->head_first;
    out->a.struct_size = sizeof out->a;
    attention_apply(options, &out->a);
    int code = EXIT_OK;
    for (int i = 0; i < input_field_count && !code; i++) code = read_field(out, &input_fields[i]);
    for (int i = 0; i < REQUIRED && !code; i++)
        if (!((rapt_tensor *)((char *)&out->a + input_fields[i].offset))->dtype)
            code = complain(EXIT_BAD_INPUT, "%s: has no tensor %s (q, k and v are needed)", path,
                            input_fields[i].name);
    if (!code) code = check_indices(out);
    out->answer = safetensors_find(&out->file, "out");
    if (code) input_close(out);
    return code;
}

void input_close(struct input *input)
{
    for (int i = 0; i < input->copy_count; i++) free(input->copies[i]);
    safetensors_close(&input->file);
    memset(input, 0, sizeof *input);
}

rapt_tensor input_like_q(const struct input *input, void *data, rapt_dtype dtype, int64_t channels)
{
    const int64_t *n = input->a.q.size;
    return input->head_first ? rapt_tensor_bhtd(data, dtype, n[0], n[1], n[2], channels)
                             : rapt_tensor_bthd(data, dtype, n[0], n[1], n[2], channels);
}

int64_t tensor_elements(const rapt_tensor *t)
{
    int64_t elements = 1;
    for (int axis = 0; axis < 4; axis++)
        if (!t->size[axis]) return 0;
    for (int axis = 0; axis < 4; axis++)
        if (__builtin_mul_overflow(elements, t->size[axis], &elements)) return -1;
    return elements;
}

int64_t input_q_length(const struct input *input, int64_t b)
{
    const rapt_tensor *t = &input->a.q_start;
    return t->dtype ? index_at(t, b + 1) - index_at(t, b) : input->a.q.size[2];
}

int64_t input_kv_length(const struct input *input, int64_t b)
{
    return input->a.kv_length.dtype ? index_at(&input->a.kv_length, b) : capacity(input, b);
}

/* One line of text: breaks become spaces, and a long text ends in dots. */
static void print_line(const char *label, const char *text)
{
    enum { WIDTH = 78 };
    printf("%-9s ", label);
    int column = 0;
    for (; *text && (column < WIDTH || (*text & 0xc0) == 0x80); text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ' && column && text[1] && (unsigned char)text[1] > ' ') putchar(' ');
        if (c >= ' ' && c != 127) putchar(c);
        column += c >= ' ' && (c & 0xc0) != 0x80;
    }
    puts(*text ? " ..." : "");
}

static void add(char text[INPUT_PROBLEM], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add(char text[INPUT_PROBLEM], const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, INPUT_PROBLEM - used, format, arguments);
    va_end(arguments);
}

void input_problem(const struct input *input, char text[INPUT_PROBLEM])
{
    const rapt_attention *a = &input->a;
    *text = 0;
    add(text, "%s", dtype_name(a->q.dtype));
    if (a->k.dtype != a->q.dtype) add(text, " over %s", dtype_name(a->k.dtype));
    add(text,
        ", batch %" PRId64 ", heads %" PRId64 "/%" PRId64 ", queries %" PRId64 ", keys %" PRId64
        ", channels %" PRId64,
        input->batch, a->q.size[1], a->k.size[1], a->q.size[2], input->kv_longest, a->q.size[3]);
    if (a->v.size[3] != a->q.size[3]) add(text, "/%" PRId64, a->v.size[3]);
    if (a->causal) add(text, ", causal");
    if (a->window_left || a->window_right)
        add(text, ", window %" PRId64 ",%" PRId64, a->window_left - 1, a->window_right - 1);
    if (a->align == RAPT_TOP_LEFT) add(text, ", top-left");
    if (a->softcap != 0) add(text, ", softcap %g", a->softcap);
    if (a->scale != 0) add(text, ", scale %g", a->scale);
    const char *before = "; with ";
    for (int i = REQUIRED; i < input_field_count; i++) {
        if (!((const rapt_tensor *)((const char *)a + input_fields[i].offset))->dtype) continue;
        add(text, "%s%s", before, input_fields[i].name);
        before = ", ";
    }
}

json_t *input_ignored(const struct input *input)
{
    json_t *names = json_array();
    for (size_t t = 0; t < input->file.count; t++) {
        const char *name = input->file.tensors[t].name;
        int known = !strcmp(name, "out");
        for (int i = 0; i < input_field_count; i++) known |= !strcmp(name, input_fields[i].name);
        if (!known) json_array_append_new(names, json_string(name));
    }
    return names;
}

static void print_ignored(const struct input *input)
{
    json_t *names = input_ignored(input);
    char text[INPUT_PROBLEM] = "";
    for (size_t i = 0; i < json_array_size(names); i++)
        add(text, "%s%s", i ? ", " : "", json_string_value(json_array_get(names, i)));
    if (*text) print_line("ignored", text);
    json_decref(names);
}

void input_print_notes(const struct input *input)
{
    static const char *const keys[] = {"model", "title", "text"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = safetensors_note(&input->file, keys[i]);
        if (value) print_line(keys[i], value);
    }
    const char *layer = safetensors_note(&input->file, "layer"),
               *layers = safetensors_note(&input->file, "layers");
    char *text;
    if (layer &&
        asprintf(&text, "%s%s%s", layer, layers ? " of " : "", layers ? layers : "") >= 0) {
        print_line("layer", text);
        free(text);
    }
    print_ignored(input);
}
