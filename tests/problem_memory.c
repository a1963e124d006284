/* problem_memory.c: mappings with guards, strides as the line asks for, and the proof that nothing
 * else was written. */
#include "problem_memory.h"
#include "base/dtype.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD = 256, ROW_GUARD = 64 };
static const size_t sparse_bytes = (size_t)1
                                   << 30; /* mappings over 1 GiB are touched only where data is */

int64_t memory_offset(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return (i0 * t->stride[0] + i1 * t->stride[1] + i2 * t->stride[2] + i3 * t->stride[3]) *
           (int64_t)dtype_size(t->dtype);
}

void memory_store(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double x)
{
    char *at = (char *)t->data + memory_offset(t, i0, i1, i2, i3);
    switch (t->dtype) {
    case RAPT_I8:
        *(int8_t *)at = (int8_t)x;
        break;
    case RAPT_U8:
        *(uint8_t *)at = (uint8_t)x;
        break;
    case RAPT_I32:
        *(int32_t *)at = (int32_t)x;
        break;
    case RAPT_I64:
        *(int64_t *)at = (int64_t)x;
        break;
    default:
        store_float(at, t->dtype, 0, (float)x);
    }
}

void memory_blank_row(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2)
{
    for (int64_t c = 0; c < t->size[3]; c++)
        memset((char *)t->data + memory_offset(t, i0, i1, i2, c), 0xff, dtype_size(t->dtype));
}

/* Strides from the outermost axis of the memory order inwards. Returns the elements between the
 * lowest and one past the highest, and in *origin where element 0 lies. */
static int64_t lay_out(rapt_tensor *t, const struct problem_line *line, unsigned role,
                       int64_t *origin)
{
    static const int bthd[4] = {0, 2, 1, 3}, bhtd[4] = {0, 1, 2, 3};
    const int *order = (role & ROLE_TOKENS) && !line->bhtd ? bthd : bhtd;
    bool tricks = role & (ROLE_TOKENS | ROLE_ROWS);
    int64_t run = tricks && line->stride == STRIDE_chan2 ? 2 : 1, span = 1;
    *origin = 0;
    for (int i = 3; i >= 0; i--) {
        int axis = order[i];
        bool repeats = axis == 1 && line->stride == STRIDE_zero && (role & ROLE_REPEAT);
        t->stride[axis] = repeats ? 0 : run;
        if (!repeats) run *= t->size[axis];
        if (i == 3 && tricks && line->stride == STRIDE_odd) run += run % 2 ? 2 : 3;
        if (i == 3 && tricks && line->stride == STRIDE_pad8) run = (run + 7) / 8 * 8;
    }
    for (int i = 0; i < 3 && (role & ROLE_TOKENS) && line->stride == STRIDE_huge; i++) {
        int axis = order[i];
        if (t->size[axis] < 2) continue;
        int64_t least = ((int64_t)1 << 31) / (t->size[axis] - 1) + 7;
        if (t->stride[axis] < least) t->stride[axis] = least;
        break;
    }
    for (int axis = 0; axis < 4; axis++) {
        int64_t reach = t->size[axis] > 0 ? (t->size[axis] - 1) * t->stride[axis] : 0;
        span += reach;
        if (tricks && line->stride == STRIDE_neg && axis >= 2) {
            t->stride[axis] = -t->stride[axis];
            *origin += reach;
        }
    }
    return t->size[0] && t->size[1] && t->size[2] && t->size[3] ? span : 0;
}

/* Calls f for the first byte of each row of channels (its lowest address) and the row's length in
 * bytes. */
static void each_row(const rapt_tensor *t, void (*f)(char *row, size_t bytes, void *cookie),
                     void *cookie)
{
    size_t element = dtype_size(t->dtype);
    int64_t reach = (t->size[3] - 1) * t->stride[3];
    for (int64_t b = 0; b < t->size[0]; b++)
        for (int64_t h = 0; h < t->size[1]; h++)
            for (int64_t s = 0; s < t->size[2]; s++) {
                char *row = (char *)t->data + memory_offset(t, b, h, s, 0) +
                            (reach < 0 ? reach * (int64_t)element : 0);
                f(row, (size_t)(llabs(reach) + 1) * element, cookie);
            }
}

static void blank_around(char *row, size_t bytes, void *cookie)
{
    (void)cookie;
    memset(row - ROW_GUARD, 0xff, bytes + 2 * ROW_GUARD);
}

static double elements_of(const int64_t size[4])
{
    return (double)size[0] * (double)size[1] * (double)size[2] * (double)size[3];
}

/* Whether the tensors so far and one more fit: mappings are given freely, and what is touched beyond
 * the machine's memory ends the process. Outputs are copied once to be compared. */
static bool fits(const struct problem_instance *instance, int64_t dtype, const int64_t size[4],
                 unsigned role)
{
    double bytes = elements_of(size) * (double)dtype_size(dtype) * (role & ROLE_OUTPUT ? 2 : 1);
    for (int i = 0; i < instance->region_count; i++) {
        const struct problem_region *region = &instance->region[i];
        bytes += elements_of(region->tensor->size) * (double)dtype_size(region->tensor->dtype) *
                 (region->output ? 2 : 1);
    }
    return bytes <= 0.9 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

bool memory_add(struct problem_instance *instance, rapt_tensor *t, int64_t dtype,
                const int64_t size[4], unsigned role)
{
    struct problem_region *region = &instance->region[instance->region_count];
    int64_t origin, page = sysconf(_SC_PAGESIZE);
    if (!fits(instance, dtype, size, role)) return false;
    memcpy(t->size, size, sizeof t->size);
    t->dtype = dtype;
    size_t span = (size_t)lay_out(t, &instance->line, role, &origin) * dtype_size(dtype);
    size_t bytes = (span + 2 * GUARD + (size_t)page - 1) / (size_t)page * (size_t)page;
    bool edge = instance->line.edge;
    char *base = mmap(NULL, bytes + (edge ? (size_t)page : 0), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return false;
    if (edge) mprotect(base + bytes, (size_t)page, PROT_NONE);
    t->data = base + (edge ? bytes - span : GUARD) + (size_t)origin * dtype_size(dtype);
    *region = (struct problem_region){.tensor = t,
                                      .base = base,
                                      .bytes = bytes,
                                      .input = role & ROLE_INPUT,
                                      .output = role & ROLE_OUTPUT,
                                      .sparse = bytes > sparse_bytes};
    instance->region_count++;
    if (!region->sparse) memset(base, 0xff, bytes);
    else if (span) each_row(t, blank_around, NULL);
    return true;
}

static void release(const struct problem_instance *instance, struct problem_region *region)
{
    munmap(region->base, region->bytes + (instance->line.edge ? (size_t)sysconf(_SC_PAGESIZE) : 0));
    free(region->saved);
}

void problem_free(struct problem_instance *instance)
{
    for (int i = 0; i < instance->region_count; i++) release(instance, &instance->region[i]);
    memset(instance, 0, sizeof *instance);
}

/* A copy of the tensor's view into memory that starts at `copy` in place of the region's base. */
static rapt_tensor view_in(const struct problem_region *region, char *copy)
{
    rapt_tensor view = *region->tensor;
    view.data = copy + ((char *)view.data - region->base);
    return view;
}

static void blank_view(const rapt_tensor *view)
{
    for (int64_t b = 0; b < view->size[0]; b++)
        for (int64_t h = 0; h < view->size[1]; h++)
            for (int64_t s = 0; s < view->size[2]; s++) memory_blank_row(view, b, h, s);
}

/* FNV-1a over words, with the elements of an output blanked. false: out of memory. */
static bool hash_region(const struct problem_region *region, uint64_t *hash)
{
    const char *bytes = region->base;
    char *copy = NULL;
    if (region->output) {
        if (!(copy = malloc(region->bytes))) return false;
        memcpy(copy, region->base, region->bytes);
        rapt_tensor view = view_in(region, copy);
        blank_view(&view);
        bytes = copy;
    }
    *hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < region->bytes; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        *hash = (*hash ^ word) * 0x100000001b3u;
    }
    free(copy);
    return true;
}

bool memory_seal(struct problem_instance *instance)
{
    for (int i = 0; i < instance->region_count; i++) {
        struct problem_region *region = &instance->region[i];
        if (region->sparse) continue;
        if (!hash_region(region, &region->hash)) return false;
        if (!region->input || !region->output) continue;
        if (!(region->saved = malloc(region->bytes))) return false;
        memcpy(region->saved, region->base, region->bytes);
    }
    return true;
}

void problem_reset(struct problem_instance *instance)
{
    for (int i = 0; i < instance->region_count; i++) {
        struct problem_region *region = &instance->region[i];
        if (region->output && region->saved) memcpy(region->base, region->saved, region->bytes);
        else if (region->output) blank_view(region->tensor);
    }
}

const char *problem_spoiled(const struct problem_instance *instance)
{
    for (int i = 0; i < instance->region_count; i++) {
        const struct problem_region *region = &instance->region[i];
        uint64_t hash;
        if (region->sparse || !hash_region(region, &hash) || hash == region->hash) continue;
        return problem_tensor_name(instance, region->tensor);
    }
    return NULL;
}
