/* problem_device.c: carries a problem to a device and back, and makes its call. */
#include "problem_memory.h"

#include "base/dtype.h"
#include "bound.h"

#include <stddef.h>
#include <string.h>

#define FIELD(args, name)                                                                          \
    {                                                                                              \
        offsetof(struct problem_args, args.name), #name                                            \
    }

const char *problem_tensor_name(const struct problem_instance *instance, const rapt_tensor *tensor)
{
    static const struct {
        size_t offset;
        const char *name;
    } fields[] = {FIELD(forward, q),
                  FIELD(forward, k),
                  FIELD(forward, v),
                  FIELD(forward, out),
                  FIELD(forward, lse),
                  FIELD(forward, bias),
                  FIELD(forward, mask),
                  FIELD(forward, alibi_slope),
                  FIELD(forward, sink),
                  FIELD(forward, q_start),
                  FIELD(forward, kv_start),
                  FIELD(forward, kv_length),
                  FIELD(forward, page_table),
                  FIELD(forward, q_scale),
                  FIELD(forward, k_scale),
                  FIELD(forward, v_scale),
                  FIELD(forward, weights),
                  FIELD(rope, x),
                  FIELD(rope, out),
                  FIELD(rope, position),
                  FIELD(rope, cos),
                  FIELD(rope, sin),
                  FIELD(softmax, x),
                  FIELD(softmax, out),
                  FIELD(qk, q),
                  FIELD(qk, k),
                  FIELD(qk, out),
                  FIELD(pv, weights),
                  FIELD(pv, v),
                  FIELD(pv, out),
                  FIELD(causal_mask, x),
                  FIELD(kv_replicate, k),
                  FIELD(kv_replicate, v),
                  FIELD(kv_replicate, k_out),
                  FIELD(kv_replicate, v_out),
                  FIELD(kv_append, k_new),
                  FIELD(kv_append, v_new),
                  FIELD(kv_append, k),
                  FIELD(kv_append, v),
                  FIELD(kv_append, kv_length),
                  FIELD(kv_append, q_start),
                  FIELD(kv_append, page_table),
                  FIELD(kv_append, k_scale),
                  FIELD(kv_append, v_scale)};
    size_t offset = (size_t)((const char *)tensor - (const char *)&instance->args);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].offset == offset) return fields[i].name;
    return "a tensor";
}

/* Moves the bytes of one region; the rows alone when most of it is untouched. */
static rapt_status move(rapt_device *device, const struct problem_region *region, char *memory,
                        bool up)
{
    const rapt_tensor *t = region->tensor;
    char *host = region->base;
    if (!region->sparse)
        return rapt_copy(device, up ? memory : host, up ? host : memory, region->bytes, NULL);
    int64_t reach = (t->size[3] - 1) * t->stride[3], low = reach < 0 ? reach : 0;
    size_t element = dtype_size(t->dtype),
           bytes = (size_t)(reach < 0 ? 1 - reach : 1 + reach) * element;
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t s = 0; s < t->size[2]; s++) {
                char *row = (char *)t->data + memory_offset(t, b, h, s, 0) + low * (int64_t)element;
                char *there = memory + (row - host);
                rapt_status status =
                    rapt_copy(device, up ? there : row, up ? row : there, bytes, NULL);
                if (status) return status;
            }
    return RAPT_OK;
}

void problem_share(const struct problem_line *line, rapt_attention *a)
{
    a->v = a->k;
    a->v.size[3] = line->v_channels;
}

rapt_status problem_upload(const struct problem_instance *instance, rapt_device *device,
                           struct problem_device *out)
{
    rapt_device_info info = {.struct_size = sizeof info};
    *out = (struct problem_device){.device = device, .args = instance->args};
    rapt_status status = rapt_device_describe(device, &info);
    if (!status) out->engine = engine_of(&info);
    bool host = out->engine.cpu;
    for (int i = 0; i < instance->region_count && !host && !status; i++) {
        const struct problem_region *region = &instance->region[i];
        rapt_tensor *t = (rapt_tensor *)((char *)&out->args +
                                         ((char *)region->tensor - (char *)&instance->args));
        if ((status = rapt_alloc(device, region->bytes, &out->memory[i]))) break;
        t->data = (char *)out->memory[i] + ((char *)t->data - region->base);
        status = move(device, region, out->memory[i], true);
    }
    if (instance->line.inplace) {
        out->args.rope.out = out->args.rope.x;
        out->args.softmax.out = out->args.softmax.x;
    }
    if (instance->line.kv_shared) problem_share(&instance->line, &out->args.forward);
    if (out->args.kv_append.rope) out->args.kv_append.rope = &out->args.rope;
    if (status) problem_device_free(out);
    return status;
}

rapt_status problem_download(const struct problem_device *from, struct problem_instance *instance)
{
    rapt_status status = rapt_synchronize(from->device, NULL);
    instance->engine = from->engine;
    for (int i = 0; i < instance->region_count && !status; i++)
        if (from->memory[i])
            status = move(from->device, &instance->region[i], from->memory[i], false);
    return status;
}

void problem_device_free(struct problem_device *problem)
{
    for (int i = 0; i < PROBLEM_TENSORS; i++)
        if (problem->memory[i]) rapt_free(problem->device, problem->memory[i]);
    memset(problem, 0, sizeof *problem);
}

rapt_status problem_run(const struct problem_device *problem, int op, rapt_stream stream)
{
    switch (op) {
#define RUN(name)                                                                                  \
    case OP_##name:                                                                                \
        return rapt_##name(problem->device, &problem->args.name, stream);
        PROBLEM_OP_LIST(RUN)
#undef RUN
    default:
        return RAPT_INVALID;
    }
}
