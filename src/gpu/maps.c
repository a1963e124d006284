/* maps.c: tensor maps: their shapes are fixed in the plan, their addresses at execute. */
#include "gpu/maps.h"
#include "base/dtype.h"

#include <string.h>

enum { PANEL = 64 }; /* 2-byte channels of one 128-byte swizzled row */

/* An axis of one element has stride 0 here; the driver wants a multiple of 16 bytes and never steps
 * along it. */
static uint64_t bytes(int64_t stride)
{
    return stride ? (uint64_t)stride * 2 : 16;
}

/* The shape of a map's boxes. */
enum boxes {
    BOX_WHOLE,  /* all panels of some rows: 5-D */
    BOX_PANEL,  /* one of them: 5-D */
    BOX_CHANNEL /* 64 channels, be they a panel or a part of it: 4-D */
};

/* size and stride: [batch, head, token, channel]. */
static void describe(struct driver_map *map, int64_t dtype, const int64_t size[4],
                     const int64_t stride[4], int64_t box, enum boxes boxes)
{
    const uint64_t tokens = (uint64_t)size[2], heads = (uint64_t)size[1], batch = (uint64_t)size[0];
    uint32_t box_rows = (uint32_t)(box < 256 ? box : 256);
    if (boxes == BOX_CHANNEL)
        *map = (struct driver_map){4,
                                   {(uint64_t)size[3], tokens, heads, batch},
                                   {bytes(stride[2]), bytes(stride[1]), bytes(stride[0])},
                                   {PANEL, box_rows, 1, 1},
                                   dtype};
    else
        *map = (struct driver_map){
            5,
            {PANEL, tokens, (uint64_t)size[3] / PANEL, heads, batch},
            {bytes(stride[2]), (uint64_t)PANEL * 2, bytes(stride[1]), bytes(stride[0])},
            {PANEL, box_rows, boxes == BOX_PANEL ? 1 : (uint32_t)(size[3] / PANEL), 1, 1},
            dtype};
}

/* Keys or values of f32, in boxes of whole rows: 32 channels in each 128 bytes. */
static void describe_f32(struct driver_map *map, const rapt_tensor *t, int64_t box)
{
    const uint64_t size = 4;
    *map = (struct driver_map){
        .rank = 5,
        .size = {PANEL / 2, (uint64_t)t->size[2], (uint64_t)t->size[3] / (PANEL / 2),
                 (uint64_t)t->size[1], (uint64_t)t->size[0]},
        .stride = {(uint64_t)t->stride[2] * size, PANEL * 2, (uint64_t)t->stride[1] * size,
                   (uint64_t)t->stride[0] * size},
        .box = {PANEL / 2, (uint32_t)box, (uint32_t)(t->size[3] / (PANEL / 2)), 1, 1},
        .dtype = t->dtype};
    for (int i = 0; i < 4; i++)
        if (!map->stride[i]) map->stride[i] = 16; /* of one element */
}

/* A bias or mask: boxes of 128 bytes of keys; an axis that repeats is one element long. */
static void describe_cells(struct driver_map *map, const rapt_tensor *t, int64_t box)
{
    const uint64_t bytes_of = dtype_size(t->dtype), size = bytes_of ? bytes_of : 1;
    *map = (struct driver_map){.rank = 4, .box = {(uint32_t)(128 / size), (uint32_t)box, 1, 1}};
    map->dtype = t->dtype;
    for (int i = 0; i < 4; i++) {
        int64_t stride = t->stride[3 - i];
        map->size[i] = stride ? (uint64_t)t->size[3 - i] : 1;
        if (i) map->stride[i - 1] = stride ? (uint64_t)stride * size : 16;
    }
}

/* Of the row; those behind are not used. */
static int map_count(const struct row *row)
{
    return row->needs & (NEED_OUT_MAP | NEED_CELL_MAP) ? MAP_COUNT : MAP_OUT;
}

/* Keys that a box brings: a block's, or of these so many that neither a page nor a block ends inside
 * a box (nvidia/sm90_pages.h). */
static int64_t box_keys(const struct row *row, const struct problem *p)
{
    int64_t block = row->tile_kv & -row->tile_kv, page = p->page_tokens & -p->page_tokens;
    if (!p->page_tokens || (row->needs & NEED_NUMBERS)) return row->tile_kv;
    return page < block ? page : block;
}

/* Pairs of heads in place of heads, see NEED_PAIRS. */
static void pair_heads(int64_t size[4], int64_t stride[4])
{
    size[3] += stride[1];
    size[1] /= 2;
    stride[1] *= 2;
}

static int is_paired(const struct row *row, const struct problem *p, int map)
{
    if (!(row->needs & NEED_PAIRS)) return 0;
    return map == MAP_K   ? PAIRED(p->a.k.stride, p->kv_heads, p->qk_channels, row->d)
           : map == MAP_V ? PAIRED(p->a.v.stride, p->kv_heads, p->v_channels, row->dv)
                          : 0;
}

void maps_describe(const struct row *row, const struct problem *p,
                   const struct attention_args *halves, struct driver_map maps[MAP_COUNT])
{
    const rapt_tensor *tensors[MAP_COUNT] = {&p->a.q, &p->a.k, &p->a.v, &p->a.out};
    const struct view *half[MAP_OUT] = {&halves->q_half, &halves->k_half, &halves->v_half};
    int64_t kv_rows = box_keys(row, p);
    int64_t q_rows = row->needs & NEED_PARTIALS ? 16 : row->tile_q < 64 ? row->tile_q : 64;
    const int64_t rows[MAP_COUNT] = {q_rows, kv_rows, kv_rows, OUT_MAP_ROWS};
    if (row->needs & NEED_CELL_MAP)
        describe_cells(&maps[MAP_CELLS], row_cells(row, p), row->tile_q);
    for (int i = 0; i < map_count(row) && !(i == MAP_CELLS && (row->needs & NEED_CELL_MAP)); i++) {
        int64_t size[4], stride[4];
        if (tensors[i]->dtype == RAPT_I8 && !(row->needs & NEED_NUMBERS)) continue; /* no map */
        if ((row->needs & NEED_WHOLE_KEYS) && (i == MAP_K || i == MAP_V)) {
            describe_f32(&maps[i], tensors[i], kv_rows);
            continue;
        }
        memcpy(size, tensors[i]->size, sizeof size);
        memcpy(stride, tensors[i]->stride, sizeof stride);
        if (is_paired(row, p, i)) pair_heads(size, stride);
        int numbers = (row->needs & NEED_NUMBERS) && (i == MAP_K || i == MAP_V);
        int halved = (i < MAP_OUT && (row->needs & NEED_HALVES)) || numbers;
        int pages = p->page_tokens && (i == MAP_K || i == MAP_V) && !numbers;
        if (numbers) size[0] = p->ragged_kv ? 1 : p->batch;
        else if (halved) size[0] *= HALVES;
        if (halved) {
            size[2] = half[i]->stride[1] / half[i]->stride[2];
            size[3] = half[i]->stride[2];
        }
        describe(&maps[i], halved ? half[i]->dtype : tensors[i]->dtype, size,
                 halved ? half[i]->stride : stride, rows[i],
                 row->needs & NEED_PANELS ? BOX_CHANNEL
                 : pages                  ? BOX_PANEL
                                          : BOX_WHOLE);
    }
}

rapt_status maps_encode(struct gpu_device *device, const struct row *row,
                        const struct driver_map maps[MAP_COUNT], const struct attention_args *args,
                        struct tensor_maps *out)
{
    int halves = (row->needs & NEED_HALVES) != 0,
        keys = (row->needs & (NEED_HALVES | NEED_NUMBERS)) && !(row->needs & NEED_WHOLE_KEYS);
    const void *data[MAP_COUNT] = {halves ? args->q_half.data : args->q.data,
                                   keys ? args->k_half.data : args->k.data,
                                   keys ? args->v_half.data : args->v.data,
                                   !(row->needs & NEED_CELL_MAP) ? args->out.data
                                   : row->can & CAN_BIAS         ? args->bias.data
                                                                 : args->mask.data};
    struct tensor_map *to[MAP_COUNT] = {&out->q, &out->k, &out->v, &out->out};
    rapt_status status = RAPT_OK;
    for (int i = 0; i < map_count(row) && !status; i++)
        if (maps[i].rank) status = device->driver->encode(device, &maps[i], data[i], to[i]);
    return status;
}
