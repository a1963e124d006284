/* params.c: fuzz target: hostile argument structs through explain, plan, forward and the separate
 * operations. Bytes of the input are instructions that bend a call which is fine; the rest of the
 * input becomes the memory, index tensors included. A call runs only when its views lie within that
 * memory: the library cannot know where memory ends, but it must refuse everything else by itself.
 * Refused calls must leave all memory as it was, accepted ones every input. */
#include "base/dtype.h"
#include "rapt/rapt.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 1 << 16, SLOT = 3072, TAIL = 70000 };

static _Alignas(64) unsigned char memory[MEMORY], before[MEMORY];
static rapt_device *device;

struct input {
    const uint8_t *data;
    size_t size, at;
};

static uint8_t take(struct input *in)
{
    return in->at < in->size ? in->data[in->at++] : 0;
}

/* Mostly small numbers; some at the edges of what arithmetic bears. */
static int64_t take_number(struct input *in)
{
    static const int64_t edges[] = {0,
                                    1,
                                    -1,
                                    2,
                                    INT64_MAX,
                                    INT64_MIN,
                                    (int64_t)1 << 31,
                                    (int64_t)1 << 32,
                                    (int64_t)1 << 62,
                                    INT32_MAX,
                                    -((int64_t)1 << 33),
                                    65535,
                                    65536,
                                    4611686018427387905,
                                    -2,
                                    3037000500,
                                    0x3ff0000000000000,
                                    0x7ff8000000000000,
                                    0x7ff0000000000000,
                                    (int64_t)0xfff0000000000000,
                                    0x3f90000000000000,
                                    0x40b0000000000000};
    uint8_t kind = take(in);
    if (kind & 0x80) return edges[(kind & 0x7f) % (sizeof edges / sizeof *edges)];
    return kind & 0x40 ? (int8_t)take(in) : kind & 0x3f;
}

/* A call: its struct, how many tensors follow struct_size, how many 64-bit fields follow them, and
 * which tensors are written. */
struct form {
    size_t size;
    int tensors, words;
    unsigned outputs;
    rapt_status (*run)(void *args);
};

#define FIELD(type, name) (1u << ((offsetof(type, name) - 8) / sizeof(rapt_tensor)))

static rapt_status run_attention(void *args)
{
    char text[256];
    rapt_plan *plan = NULL;
    size_t length = rapt_explain(device, args, text, sizeof text);
    if (!length || !memchr(text, 0, sizeof text)) abort();
    rapt_status status = rapt_plan_create(&plan, device, args);
    if (!status != !!plan) abort();
    rapt_plan_destroy(&plan);
    return status;
}

static rapt_status run_forward(void *args)
{
    return rapt_forward(device, args, NULL);
}

static rapt_status run_rope(void *args)
{
    return rapt_rope(device, args, NULL);
}

static rapt_status run_softmax(void *args)
{
    return rapt_softmax(device, args, NULL);
}

static rapt_status run_qk(void *args)
{
    return rapt_qk(device, args, NULL);
}

static rapt_status run_pv(void *args)
{
    return rapt_pv(device, args, NULL);
}

static rapt_status run_kv_append(void *args)
{
    return rapt_kv_append(device, args, NULL);
}

static const struct form forms[] = {
    {sizeof(rapt_attention), 17, 7,
     FIELD(rapt_attention, out) | FIELD(rapt_attention, lse) | FIELD(rapt_attention, weights),
     run_forward},
    {sizeof(rapt_rope_args), 5, 12, FIELD(rapt_rope_args, out), run_rope},
    {sizeof(rapt_softmax_args), 2, 0, FIELD(rapt_softmax_args, out), run_softmax},
    {sizeof(rapt_qk_args), 3, 1, FIELD(rapt_qk_args, out), run_qk},
    {sizeof(rapt_pv_args), 3, 0, FIELD(rapt_pv_args, out), run_pv},
    {sizeof(rapt_kv_append_args), 9, 0,
     FIELD(rapt_kv_append_args, k) | FIELD(rapt_kv_append_args, v) |
         FIELD(rapt_kv_append_args, k_scale) | FIELD(rapt_kv_append_args, v_scale),
     run_kv_append},
};

/* A call that is fine: batch 2, heads 4 over 2, 3 queries, 5 keys, 8 channels, each tensor in its
 * slot. */
static void straighten(int form, unsigned char *args)
{
    rapt_tensor *t = (rapt_tensor *)(args + 8);
#define AT(n) (memory + (n)*SLOT)
    switch (form) {
    case 0: {
        rapt_attention *a = (rapt_attention *)args;
        a->q = rapt_tensor_bthd(AT(0), RAPT_F32, 2, 4, 3, 8);
        a->k = rapt_tensor_bthd(AT(1), RAPT_F32, 2, 2, 5, 8);
        a->v = rapt_tensor_bthd(AT(2), RAPT_F32, 2, 2, 5, 8);
        a->out = rapt_tensor_bthd(AT(3), RAPT_F32, 2, 4, 3, 8);
        a->causal = 1;
        break;
    }
    case 1:
        t[0] = rapt_tensor_bthd(AT(0), RAPT_F32, 2, 4, 3, 8),
        t[1] = rapt_tensor_bthd(AT(1), RAPT_F32, 2, 4, 3, 8);
        break;
    case 2:
        t[0] = rapt_tensor_bhtd(AT(0), RAPT_F32, 2, 4, 3, 8),
        t[1] = rapt_tensor_bhtd(AT(1), RAPT_F32, 2, 4, 3, 8);
        break;
    case 3:
        t[0] = rapt_tensor_bthd(AT(0), RAPT_F32, 2, 4, 3, 8),
        t[1] = rapt_tensor_bthd(AT(1), RAPT_F32, 2, 2, 5, 8);
        t[2] = rapt_tensor_bhtd(AT(2), RAPT_F32, 2, 4, 3, 5);
        break;
    case 4:
        t[0] = rapt_tensor_bhtd(AT(0), RAPT_F32, 2, 4, 3, 5),
        t[1] = rapt_tensor_bthd(AT(1), RAPT_F32, 2, 2, 5, 8);
        t[2] = rapt_tensor_bthd(AT(2), RAPT_F32, 2, 4, 3, 8);
        break;
    default:
        t[0] = rapt_tensor_bthd(AT(0), RAPT_F32, 2, 2, 3, 8),
        t[1] = rapt_tensor_bthd(AT(1), RAPT_F32, 2, 2, 3, 8);
        t[2] = rapt_tensor_bthd(AT(2), RAPT_F32, 2, 2, 9, 8),
        t[3] = rapt_tensor_bthd(AT(3), RAPT_F32, 2, 2, 9, 8);
    }
#undef AT
}

/* Instructions: a tensor becomes absent, dense of small sizes in its slot, or has one field set; or
 * a word is set. */
static void bend(const struct form *form, unsigned char *args, struct input *in)
{
    rapt_tensor *tensors = (rapt_tensor *)(args + 8);
    int64_t *words = (int64_t *)(tensors + form->tensors);
    for (int steps = take(in) % 12; steps > 0; steps--) {
        uint8_t what = take(in);
        if (what >= 0xf0) {
            *(uint64_t *)args = form->size + (uint64_t)take_number(in) * 8;
        } else if (form->words && what >= 0xc0) {
            words[what % form->words] = take_number(in);
        } else {
            int n = what % form->tensors, field = take(in) % 12;
            rapt_tensor *t = &tensors[n];
            if (field == 0) memset(t, 0, sizeof *t);
            if (field == 1 || field == 2) {
                int64_t dtype = take(in) % 9, s[4];
                for (int i = 0; i < 4; i++) s[i] = take(in) % 9;
                *t = (field == 1 ? rapt_tensor_bhtd : rapt_tensor_bthd)(
                    memory + n * SLOT, (rapt_dtype)dtype, s[0], s[1], s[2], s[3]);
            }
            if (field == 3) t->dtype = take_number(in);
            if (field >= 4 && field < 8) t->size[field - 4] = take_number(in);
            if (field >= 8) t->stride[field - 8] = take_number(in);
            if (field == 3) t->data = memory + take(in) % 64 * 256 + take(in) % 16;
        }
    }
}

/* Whether every element lies within the memory; absent and empty tensors do. *elements is the
 * product of the sizes, capped. */
static bool is_within(const rapt_tensor *t, double *elements)
{
    __extension__ typedef __int128 wide;
    wide low = 0, high = 0;
    *elements = 1;
    if (!t->dtype || !t->data) return true;
    for (int axis = 0; axis < 4; axis++) {
        if (t->size[axis] < 0) return false;
        *elements *= (double)t->size[axis];
        if (!t->size[axis]) return true;
        wide reach = (wide)(t->size[axis] - 1) * t->stride[axis];
        if (reach < 0) low += reach;
        else high += reach;
    }
    if (low < -MEMORY || high > MEMORY) return false;
    wide element = (wide)dtype_size(t->dtype), at = (unsigned char *)t->data - memory;
    return at + low * element >= 0 && at + (high + 1) * element <= MEMORY;
}

/* Inputs of an accepted call are as they were, element by element. */
static void check_inputs(const struct form *form, const unsigned char *args)
{
    const rapt_tensor *tensors = (const rapt_tensor *)(args + 8);
    for (int n = 0; n < form->tensors; n++) {
        const rapt_tensor *t = &tensors[n];
        bool in_place = form == &forms[1] || form == &forms[2] ? t->data == tensors[1].data : false;
        if (!t->dtype || !t->data || (form->outputs >> n & 1) || in_place) continue;
        int64_t bytes = (int64_t)dtype_size(t->dtype), at = (unsigned char *)t->data - memory;
        for (int64_t b = 0; b < t->size[0]; b++)
            for (int64_t h = 0; h < t->size[1]; h++)
                for (int64_t s = 0; s < t->size[2]; s++)
                    for (int64_t c = 0; c < t->size[3]; c++) {
                        int64_t o = at + (b * t->stride[0] + h * t->stride[1] + s * t->stride[2] +
                                          c * t->stride[3]) *
                                             bytes;
                        if (memcmp(memory + o, before + o, (size_t)bytes)) abort();
                    }
    }
}

/* Repeats the bytes; without any, small numbers. */
static void fill_memory(const uint8_t *data, size_t size)
{
    static const uint8_t none[] = {0, 1, 2, 3, 4};
    size_t filled = size ? size < MEMORY ? size : MEMORY : sizeof none;
    memcpy(memory, size ? data : none, filled);
    for (size_t part; filled < MEMORY; filled += part) {
        part = filled < MEMORY - filled ? filled : MEMORY - filled;
        memcpy(memory + filled, memory, part);
    }
}

static void open_once(void)
{
    static rapt_context *context;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = "cpu"};
    if (context) return;
    if (rapt_open(&context, &config)) abort();
    device = rapt_device_at(context, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) unsigned char args[sizeof(rapt_attention) + TAIL];
    struct input in = {data, size, 0};
    int number = take(&in) % (int)(sizeof forms / sizeof *forms);
    const struct form *form = &forms[number];
    bool fits = true;
    double work = 1;
    open_once();
    memset(args, 0, sizeof args);
    *(uint64_t *)args = form->size;
    straighten(number, args);
    bend(form, args, &in);
    fill_memory(data + in.at, size - in.at);
    memcpy(before, memory, MEMORY);
    for (int n = 0; n < form->tensors; n++) {
        double elements;
        fits = is_within((const rapt_tensor *)(args + 8) + n, &elements) && fits;
        if (elements > work) work = elements;
    }
    if (!number) run_attention(args);
    if (memcmp(memory, before, MEMORY)) abort();
    if (!fits || work > 1 << 15) return 0;
    rapt_status status = form->run(args);
    if (status && !*rapt_last_error()) abort();
    if (status && memcmp(memory, before, MEMORY)) abort();
    if (!status) check_inputs(form, args);
    return 0;
}
