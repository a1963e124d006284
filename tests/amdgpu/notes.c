/* Reads the AMDGPU metadata note: a small MessagePack walker that picks the kernel facts and
 * argument layouts. */
#include <stdlib.h>
#include <string.h>

#include "load.h"

struct reader {
    const uint8_t *p, *end;
    bool bad;
};

struct value {
    enum { V_NIL, V_INT, V_STRING, V_ARRAY, V_MAP } kind;
    uint64_t number; /* the integer, or the number of elements */
    const char *text;
};

static uint64_t big_endian(struct reader *r, int bytes)
{
    uint64_t x = 0;
    if (r->end - r->p < bytes) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++) x = x << 8 | *r->p++;
    return x;
}

static struct value text_value(struct reader *r, uint64_t length)
{
    struct value v = {V_STRING, length, (const char *)r->p};
    if ((uint64_t)(r->end - r->p) < length) r->bad = true;
    else r->p += length;
    return v;
}

/* The head of the next object; the elements of arrays and maps follow it. */
static struct value next_value(struct reader *r)
{
    struct value v = {V_NIL, 0, NULL};
    uint8_t t = (uint8_t)big_endian(r, 1);
    if (r->bad) return v;
    if (t < 0x80) return (struct value){V_INT, t, NULL};
    if (t < 0x90) return (struct value){V_MAP, t & 15, NULL};
    if (t < 0xa0) return (struct value){V_ARRAY, t & 15, NULL};
    if (t < 0xc0) return text_value(r, t & 31);
    if (t >= 0xe0) return (struct value){V_INT, (uint64_t)(int64_t)(int8_t)t, NULL};
    switch (t) {
    case 0xc2:
        return (struct value){V_INT, 0, NULL};
    case 0xc3:
        return (struct value){V_INT, 1, NULL};
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return (struct value){V_INT, big_endian(r, 1 << (t - 0xcc)), NULL};
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return (struct value){V_INT, big_endian(r, 1 << (t - 0xd0)), NULL};
    case 0xd9:
    case 0xda:
    case 0xdb:
        return text_value(r, big_endian(r, 1 << (t - 0xd9)));
    case 0xdc:
    case 0xdd:
        return (struct value){V_ARRAY, big_endian(r, t == 0xdc ? 2 : 4), NULL};
    case 0xde:
    case 0xdf:
        return (struct value){V_MAP, big_endian(r, t == 0xde ? 2 : 4), NULL};
    case 0xc0:
        return v;
    default:
        r->bad = true;
        return v;
    }
}

static void skip(struct reader *r)
{
    struct value v = next_value(r);
    uint64_t count = v.kind == V_MAP ? 2 * v.number : v.kind == V_ARRAY ? v.number : 0;
    for (uint64_t i = 0; i < count && !r->bad; i++) skip(r);
}

static bool is(const struct value *v, const char *name)
{
    return v->kind == V_STRING && v->number == strlen(name) &&
           memcmp(v->text, name, v->number) == 0;
}

static void copy_text(const struct value *v, char *out, size_t size)
{
    size_t n = v->kind == V_STRING ? (size_t)v->number : 0;
    if (n >= size) n = size - 1;
    if (n) memcpy(out, v->text, n);
    out[n] = 0;
}

static void read_args(struct reader *r, struct amdgpu_kernel *k)
{
    struct value list = next_value(r);
    if (list.kind != V_ARRAY) r->bad = true;
    for (uint64_t i = 0; i < list.number && !r->bad; i++) {
        struct value map = next_value(r);
        struct amdgpu_arg arg = {0, 0, ""};
        for (uint64_t j = 0; map.kind == V_MAP && j < map.number && !r->bad; j++) {
            struct value key = next_value(r);
            if (is(&key, ".offset")) {
                arg.offset = (uint32_t)next_value(r).number;
            } else if (is(&key, ".size")) {
                arg.size = (uint32_t)next_value(r).number;
            } else if (is(&key, ".value_kind")) {
                struct value kind = next_value(r);
                copy_text(&kind, arg.kind, sizeof arg.kind);
            } else {
                skip(r);
            }
        }
        if (k->arg_count == AMDGPU_MAX_ARGS) {
            r->bad = true;
            return;
        }
        if (strncmp(arg.kind, "hidden_", 7) != 0) k->explicit_args++;
        k->args[k->arg_count++] = arg;
    }
}

static void read_kernel(struct reader *r, struct amdgpu_kernel *k)
{
    struct value map = next_value(r);
    struct {
        const char *name;
        uint32_t *to;
    } numbers[] = {{".group_segment_fixed_size", &k->lds_size},
                   {".private_segment_fixed_size", &k->private_size},
                   {".kernarg_segment_size", &k->kernarg_size},
                   {".sgpr_count", &k->sgpr_count},
                   {".vgpr_count", &k->vgpr_count},
                   {".agpr_count", &k->agpr_count},
                   {".sgpr_spill_count", &k->sgpr_spills},
                   {".vgpr_spill_count", &k->vgpr_spills},
                   {".max_flat_workgroup_size", &k->max_workgroup}};
    for (uint64_t i = 0; map.kind == V_MAP && i < map.number && !r->bad; i++) {
        struct value key = next_value(r);
        bool known = false;
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers && !known; n++)
            if (is(&key, numbers[n].name)) {
                *numbers[n].to = (uint32_t)next_value(r).number;
                known = true;
            }
        if (known) continue;
        if (is(&key, ".name")) {
            struct value name = next_value(r);
            copy_text(&name, k->name, sizeof k->name);
        } else if (is(&key, ".wavefront_size")) {
            k->wave_size = (int)next_value(r).number;
        } else if (is(&key, ".args")) {
            read_args(r, k);
        } else {
            skip(r);
        }
    }
}

bool read_metadata(struct amdgpu_module *m, const uint8_t *note, size_t size)
{
    struct reader r = {note, note + size, false};
    struct value top = next_value(&r);
    if (top.kind != V_MAP) return false;
    for (uint64_t i = 0; i < top.number && !r.bad; i++) {
        struct value key = next_value(&r);
        if (!is(&key, "amdhsa.kernels")) {
            skip(&r);
            continue;
        }
        struct value list = next_value(&r);
        if (list.kind != V_ARRAY || list.number > MAX_KERNELS) return false;
        m->kernels = calloc(list.number + 1, sizeof *m->kernels);
        if (!m->kernels) return false;
        for (uint64_t k = 0; k < list.number && !r.bad; k++)
            read_kernel(&r, &m->kernels[m->kernel_count++]);
    }
    return !r.bad;
}
