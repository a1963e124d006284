/* registry.c: kernels.def as C data: the rows, why one refuses a problem, which devices its code
 * runs on, its launch shape. */
#include "gpu/registry.h"
#include "base/dtype.h"
#include "base/integer.h"
#include "gpu/numbers.h"
#include "gpu/splits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tiles of so many query rows of a KV head, of a sequence; ragged: of all, where each may begin one
 * (first_tile_of, kernels/combine.h). */
static int64_t row_tiles(const struct extent *e, int64_t rows)
{
    int64_t all = e->q_tokens * e->group;
    return e->ragged ? all / rows + e->batch : ceil_div(all, rows);
}

/* Sequences that have tiles of their own. */
static int64_t tiled_batches(const struct extent *e)
{
    return e->ragged ? min64(1, e->batch) : e->batch;
}

/* As many rows to a block as would have tile_q elements if each had a power of two of them, at least one: a
 * block does several at once, and so none of its passes is a part of one. */
static int64_t element_blocks(const struct extent *e, const struct row *row)
{
    return ceil_div(e->rows, max64(1, row->tile_q / power_from(e->columns)));
}

/* Blocks of softmax begin with some hundred instructions, which rows of 16 bits, whose bytes come in
 * half the time, do not hide. So there are four rounds of blocks at most, each with many rows; not
 * for f32, nor for short rows of whole pieces, which are read slower so (bench/notes/operations.md). */
static int64_t four_rounds(const struct extent *e, const struct row *row)
{
    int64_t at_once = 640 / row->threads; /* blocks of a multiprocessor: 5, 2 or 1 */
    if (e->score_bytes != 2 || (e->columns <= 256 && e->columns % 8 == 0)) return INT64_MAX;
    return 4 * at_once * e->units;
}

#define GRID(name, x, y, z)                                                                        \
    __attribute__((unused)) static void grid_##name(const struct extent *e, const struct row *row, \
                                                    int64_t blocks[3])                             \
    {                                                                                              \
        (void)row;                                                                                 \
        blocks[0] = (x), blocks[1] = (y), blocks[2] = (z);                                         \
    }
#include "gpu/grids.def"
#undef GRID

#define KERNEL(vendor, arch, source, name, ...)                                                    \
    extern const unsigned char rapt_code_##name##_##arch[], rapt_code_##name##_##arch##_end[];
#include "gpu/kernels.def"
#undef KERNEL

const char *const op_name[OP_COUNT] = {[OP_forward] = "forward",
                                       [OP_qk] = "qk",
                                       [OP_pv] = "pv",
                                       [OP_softmax] = "softmax",
                                       [OP_causal_mask] = "causal_mask",
                                       [OP_rope] = "rope",
                                       [OP_kv_replicate] = "kv_replicate",
                                       [OP_kv_append] = "kv_append"};

/* Ends in a row of zeros, so that a table without rows is C too. */
const struct row kernel_rows[] = {
#define KERNEL(vendor, arch, source, name, op, dtype, d, dv, tile_q, tile_kv, threads, shared,     \
               grid, can, needs, flags)                                                            \
    {VENDOR_##vendor,                                                                              \
     #arch,                                                                                        \
     #source,                                                                                      \
     #name,                                                                                        \
     OP_##op,                                                                                      \
     DTYPE_##dtype,                                                                                \
     d,                                                                                            \
     dv,                                                                                           \
     tile_q,                                                                                       \
     tile_kv,                                                                                      \
     threads,                                                                                      \
     shared,                                                                                       \
     grid_##grid,                                                                                  \
     can,                                                                                          \
     needs,                                                                                        \
     rapt_code_##name##_##arch,                                                                    \
     rapt_code_##name##_##arch##_end},
#include "gpu/kernels.def"
#undef KERNEL
    {0},
};
const int kernel_row_count = sizeof kernel_rows / sizeof *kernel_rows - 1;

_Static_assert(FEATURE_COUNT <= 32, "a row's features are 32 bits");

/* Contiguous channels and 16-byte steps on all other axes of q, k, v and out: what rows without
 * CAN_UNALIGNED need. */
static int rows_aligned(const struct problem *p)
{
    const rapt_tensor *tensors[] = {&p->a.q, &p->a.k, &p->a.v, &p->a.out};
    for (int i = 0; i < 4; i++) {
        const rapt_tensor *t = tensors[i];
        if (t->size[3] > 1 && t->stride[3] != 1) return 0;
        for (int axis = 0; axis < 3; axis++)
            if (t->stride[axis] * (int64_t)dtype_size(t->dtype) % 16) return 0;
    }
    return 1;
}

/* i8 with a scale for each 32 channels, those of a token and head contiguous and on all other axes in
 * steps of as many. */
static int scales_of_32(const rapt_tensor *data, const rapt_tensor *scale)
{
    int64_t count = scale->size[3];
    if (data->dtype != RAPT_I8 || count * 32 != data->size[3]) return 0;
    for (int axis = 0; axis < 3; axis++)
        if (scale->stride[axis] % count) return 0;
    return count == 1 || scale->stride[3] == 1;
}

/* The strides of values that are the first channels of the keys, as many as the row is for; whether they lie there
 * is known at execute. */
static int values_within_keys(const struct problem *p)
{
    const rapt_tensor *k = &p->a.k, *v = &p->a.v;
    for (int axis = 0; axis < 4; axis++)
        if (v->size[axis] > 1 && v->stride[axis] != k->stride[axis]) return 0;
    return 1;
}

/* Tokens of K or V in falling order, or too far apart for 32-bit offsets within a tile. */
static int rows_far(const struct problem *p)
{
    const int64_t strides[] = {p->a.k.stride[2], p->a.v.stride[2]};
    return strides[0] < 0 || strides[1] < 0 || strides[0] > 1 << 24 || strides[1] > 1 << 24;
}

/* What cuTensorMapEncodeTiled asks: no empty axis, no stride negative or zero (of an axis longer
 * than 1), all below 2^40 bytes. */
static int mappable(const struct problem *p)
{
    const rapt_tensor *tensors[] = {&p->a.q, &p->a.k, &p->a.v, &p->a.out};
    for (int i = 0; i < 4; i++)
        for (int axis = 0; axis < 4; axis++) {
            int64_t stride = tensors[i]->stride[axis];
            if (i < 3 && tensors[i]->size[axis] < 1 && p->q_tokens) return 0;
            if (axis == 3) continue;
            if (tensors[i]->size[axis] > 1 && (stride <= 0 || stride >= (int64_t)1 << 37)) return 0;
        }
    return 1;
}

const rapt_tensor *row_cells(const struct row *row, const struct problem *p)
{
    return row->can & CAN_BIAS ? &p->a.bias : &p->a.mask;
}

/* The same of a bias or mask, in which a head or a sequence may repeat; rows of a tile may not. */
static int cells_mappable(const rapt_tensor *t)
{
    int64_t size = (int64_t)dtype_size(t->dtype);
    if (t->size[3] < 1 || t->stride[3] != 1 || (t->size[2] > 1 && t->stride[2] == 0)) return 0;
    for (int axis = 0; axis < 3; axis++) {
        int64_t bytes = t->stride[axis] * size;
        if (t->size[axis] < 1 || bytes < 0 || bytes % 16 || bytes >= (int64_t)1 << 38) return 0;
    }
    return 1;
}

/* A bias and a mask that rows of f32 in parts read straight from memory. */
static int cell_rows_readable(const struct problem *p)
{
    const rapt_tensor *cells[] = {&p->a.bias, &p->a.mask};
    for (int i = 0; i < 2; i++) {
        const rapt_tensor *t = cells[i];
        if (!t->dtype) continue;
        if (t->stride[3] != 1) return 0;
        for (int axis = 0; axis < 3; axis++)
            if (t->stride[axis] * (i ? 1 : 4) % 16) return 0;
    }
    return 1;
}

static const char *cells_refuse(const struct row *row, const struct problem *p)
{
    const rapt_tensor *t = row_cells(row, p);
    int64_t dtype = row->needs & NEED_F32_CELLS ? RAPT_F32 : p->a.q.dtype;
    if ((row->can & CAN_BIAS) && t->dtype != dtype)
        return row->needs & NEED_F32_CELLS ? "is for problems with a bias of f32"
                                           : "is for problems with a bias of q's type";
    if (!t->dtype) return "is for problems with a mask tensor";
    if ((row->needs & NEED_LOOSE_CELLS) && t->stride[3] != 1)
        return "is for a bias or mask whose keys are contiguous";
    if (!(row->needs & NEED_LOOSE_CELLS) && !cells_mappable(t))
        return "reads a bias or mask through a tensor map (keys contiguous, a row for each query, "
               "strides multiples of 16 bytes and not negative)";
    return NULL;
}

/* Up to how many queries of a sequence a row whose blocks share the keys is faster than the row that
 * serves else, also where heads and sequences are many (bench/notes/decode.md). Beside matrix units f32
 * arithmetic pays for less; so does a row that leaves half of its lanes idle. */
static int64_t queries_that_pay(const struct row *row, const struct problem *p)
{
    int64_t queries = 16;
    if (row->dtype && (row->can & CAN_I8 || row->d > 256))
        return INT64_MAX >> 32; /* else f32 arithmetic serves */
    if (!row->dtype && dtype_size(p->a.q.dtype) == 2 && dtype_size(p->a.k.dtype) == 2)
        queries = p->a.bias.dtype || p->a.mask.dtype ? 4 : 1;
    return 2 * p->v_channels <= row->dv ? max64(1, queries / 2) : queries;
}

/* More query rows of a KV head, queries times heads, than tile_q; where blocks share the keys, also
 * more than 16 and more queries than pay. There packed sequences count on average, but for f32
 * arithmetic beside matrix units. The kernels count rows times heads in 31 bits. */
static int many_queries(const struct row *row, const struct problem *p)
{
    int64_t heads = max64(1, p->group), rows = p->q_tokens * heads;
    if (!(row->needs & NEED_PARTIALS)) return rows > row->tile_q;
    int64_t most = queries_that_pay(row, p),
            sequences = p->ragged_q && (row->dtype || most > 4) ? max64(1, p->batch) : 1;
    return rows > row->tile_q * sequences || rows > INT32_MAX / heads ||
           (rows > 16 * sequences && p->q_tokens > most * sequences);
}

/* The row's head size, exactly, or with CAN_NARROW at most. */
static int fits(int32_t own, int64_t asked)
{
    return own == 0 || asked <= own;
}

static const char *feature_refuses(const struct row *row, const struct problem *p)
{
    struct {
        const char *sentence;
        int asked;
        uint32_t can; /* with one of these bits the row does it */
    } const features[] = {
#define FEATURE(name, test, words) {"does not do " words, (test) != 0, (uint32_t)CAN_##name},
#define LIMIT(test, words)         {"does not do " words, (test) != 0, 0},
#include "gpu/features.def"
#undef FEATURE
#undef LIMIT
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (features[i].asked && !(row->can & features[i].can)) return features[i].sentence;
    return NULL;
}

/* One row for all queries, or not there. */
static int keyed(const rapt_tensor *t)
{
    return !t->dtype || t->size[2] <= 1 || t->stride[2] == 0;
}

const char *row_refuses(const struct row *row, const struct problem *p, char *reason, size_t size)
{
    const int64_t longest = ((int64_t)1 << 29) - 1;
    if (row->dtype ? row->dtype != p->a.q.dtype : !dtype_size(p->a.q.dtype)) {
        snprintf(reason, size, "is for %s (q is %s)", dtype_name(row->dtype),
                 dtype_name(p->a.q.dtype));
        return reason;
    }
    if (!fits(row->d, p->qk_channels) || !fits(row->dv, p->v_channels)) {
        snprintf(reason, size, "is for heads of %d and %d channels (q has %lld, v has %lld)",
                 row->d, row->dv, (long long)p->qk_channels, (long long)p->v_channels);
        return reason;
    }
    const int64_t sizes[] = {p->q_tokens, p->kv_tokens, p->qk_channels, p->v_channels,
                             p->batch,    p->q_heads,   p->a.k.size[0], p->a.weights.size[3]};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] > longest) return "counts tokens, channels, heads, batch and pages in 29 bits";
    if ((row->needs & NEED_MAPS) && !mappable(p))
        return "reads through tensor maps (no axis may be empty, no stride 0, negative or over "
               "2^37 elements)";
    if (row->needs & (NEED_CELL_MAP | NEED_LOOSE_CELLS)) {
        const char *reason_of_cells = cells_refuse(row, p);
        if (reason_of_cells) return reason_of_cells;
    }
    if ((row->needs & NEED_KEY_CELLS) &&
        (!(p->a.bias.dtype || p->a.mask.dtype) || !keyed(&p->a.bias) || !keyed(&p->a.mask)))
        return "is for problems with a bias or a mask tensor of one row for all queries";
    return feature_refuses(row, p);
}

/* Jetson Orin, its successors: no cubin of another arch runs there, only PTX does. */
static int is_tegra(long arch)
{
    return arch == 87 || arch == 88 || arch == 101;
}

int row_suits(const struct row *row, const char *arch)
{
    if (row->vendor == VENDOR_hip) return !strcmp(row->arch, arch);
    const char *digits = strchr(row->arch, '_'), *device_digits = strchr(arch, '_');
    if (!digits || !device_digits) return 0;
    char *suffix;
    long own = strtol(digits + 1, &suffix, 10), device = strtol(device_digits + 1, NULL, 10);
    if (!strncmp(row->arch, "compute_", 8)) return own <= device ? 1 + (int)own : 0;
    if (*suffix) return own == device ? 100000 : 0;
    if (is_tegra(device) && own != device) return 0;
    return own / 10 == device / 10 && own <= device ? 10000 + (int)own : 0;
}

int row_shared(const struct row *row, int mask, int bias_bytes)
{
    int cells = row->needs & NEED_CELLS ? row->tile_q * row->tile_kv : 0;
    return row->shared + cells * ((mask != 0) + bias_bytes);
}

int row_wave(const struct row *row)
{
    return row->vendor == VENDOR_hip && !strncmp(row->arch, "gfx9", 4) ? 64 : 32;
}

struct extent extent_of(const struct attention_args *a, int64_t rows)
{
    return (struct extent){.batch = a->batch,
                           .q_heads = a->q_heads,
                           .kv_heads = a->kv_heads,
                           .group = a->group,
                           .q_tokens = a->q_tokens,
                           .kv_tokens = a->kv_tokens,
                           .columns = a->columns,
                           .rows = rows,
                           .splits = a->splits,
                           .units = a->units,
                           .tile_tokens = a->tile_tokens,
                           .ragged = a->q_start.dtype != 0,
                           .score_bytes = (int64_t)dtype_size(a->scores.dtype)};
}

int row_grid(const struct row *row, const struct extent *e, struct grid *grid)
{
    int64_t blocks[3];
    row->grid(e, row, blocks);
    *grid = (struct grid){0};
    if (blocks[0] < 1 || blocks[1] < 1 || blocks[2] < 1) return 0;
    if (blocks[0] > (row->vendor == VENDOR_hip ? UINT32_MAX / row->threads : INT32_MAX)) return -1;
    *grid = (struct grid){(uint32_t)blocks[0], (uint32_t)min64(GRID_LIMIT, blocks[1]),
                          (uint32_t)min64(GRID_LIMIT, blocks[2])};
    return 1;
}
