/* test_maps.c: what tensor maps a row with NEED_MAPS gets for a problem. */
#include "session.h"

#include "gpu/maps.h"

static char memory[1 << 20];

static void pieces(void **state)
{
    (void)state;
    rapt_attention a = session_problem(memory);
    struct problem p = session_checked(&a);
    struct attention_args none = {0};
    struct driver_map map[MAP_COUNT];
    struct row row = {.tile_q = 128, .tile_kv = 112, .needs = NEED_MAPS};
    maps_describe(&row, &p, &none, map);
    const struct driver_map *q = &map[MAP_Q], *k = &map[MAP_K];
    assert_true(q->rank == 5 && q->size[0] == 64 && q->size[1] == 64 && q->size[2] == 1 &&
                q->size[3] == 4 && q->size[4] == 2);
    assert_true(q->stride[0] == 4 * 64 * 2 && q->stride[1] == 128 && q->stride[2] == 128 &&
                q->stride[3] == 64 * 4 * 64 * 2);
    assert_true(q->box[0] == 64 && q->box[1] == 64 && q->box[2] == 1 && q->box[3] == 1);
    assert_true(k->size[1] == 96 && k->box[1] == 112 && k->stride[0] == 128 &&
                k->stride[2] == 96 * 128 && k->dtype == DTYPE_f16);
    row.needs |= NEED_OUT_MAP;
    maps_describe(&row, &p, &none, map);
    const struct driver_map *out = &map[MAP_OUT];
    assert_true(out->size[1] == 64 && out->size[3] == 4 && out->size[4] == 2);
    assert_true(out->box[0] == 64 && out->box[1] == 16 && out->box[2] == 1 && out->box[3] == 1);
    row.needs = NEED_MAPS | NEED_PANELS;
    maps_describe(&row, &p, &none, map);
    assert_true(k->rank == 4 && k->size[0] == 64 && k->size[1] == 96 && k->size[2] == 2 &&
                k->box[1] == 112 && k->box[2] == 1);
}

/* i8 keys and values are read without maps. */
static void integers(void **state)
{
    (void)state;
    rapt_attention a = session_problem(memory);
    rapt_tensor scale = rapt_tensor_bthd(memory, RAPT_F32, 2, 2, 96, 1);
    struct attention_args none = {0};
    struct driver_map map[MAP_COUNT] = {{0}};
    struct row row = {.tile_q = 128, .tile_kv = 128, .needs = NEED_MAPS};
    a.k.dtype = a.v.dtype = RAPT_I8;
    a.k_scale = a.v_scale = scale;
    struct problem p = session_checked(&a);
    maps_describe(&row, &p, &none, map);
    assert_true(map[MAP_Q].rank == 5 && map[MAP_Q].size[1] == 64);
    assert_true(map[MAP_K].rank == 0 && map[MAP_V].rank == 0);
}

static void pages(void **state)
{
    (void)state;
    rapt_attention a = session_problem(memory);
    struct problem p;
    struct attention_args none = {0};
    struct driver_map map[MAP_COUNT];
    struct row row = {.tile_q = 128, .tile_kv = 112, .needs = NEED_MAPS | NEED_PANELS};
    const struct driver_map *q = &map[MAP_Q], *k = &map[MAP_K];
    /* pages of 16 tokens: a box is a page */
    rapt_tensor pages = {memory, RAPT_I32, {2, 1, 3, 1}, {3, 0, 1, 0}};
    a.k = a.v = rapt_tensor_bhtd(memory + (1 << 18), RAPT_F16, 40, 2, 16, 64);
    a.page_table = pages;
    p = session_checked(&a);
    maps_describe(&row, &p, &none, map);
    assert_true(k->size[1] == 16 && k->size[3] == 40 && k->box[1] == 16);
    /* other pages: one panel of as many keys as end neither a page nor a block inside */
    static const struct {
        int64_t page;
        int tile_kv;
        uint32_t box;
    } boxes[] = {{16, 128, 16},   {48, 128, 16},   {64, 128, 64}, {128, 128, 128},
                 {256, 128, 128}, {384, 128, 128}, {80, 80, 16},  {256, 80, 16}};
    row.needs = NEED_MAPS;
    a.q = a.out = rapt_tensor_bthd(memory, RAPT_F16, 2, 4, 64, 128);
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        a.k = a.v = rapt_tensor_bhtd(memory, RAPT_F16, 40, 2, boxes[i].page, 128);
        row.tile_kv = boxes[i].tile_kv;
        p = session_checked(&a);
        maps_describe(&row, &p, &none, map);
        assert_true(k->rank == 5 && k->size[1] == (uint64_t)boxes[i].page && k->size[4] == 40);
        assert_true(k->box[0] == 64 && k->box[1] == boxes[i].box && k->box[2] == 1);
        assert_true(k->box[3] == 1 && k->box[4] == 1 && q->box[2] == 2);
        assert_memory_equal(k, &map[MAP_V], sizeof *k);
    }
}

/* The bias or mask of a row with NEED_CELL_MAP: boxes of 128 bytes of keys for each query of a tile;
 * an axis that repeats is one element long, whatever its size. */
static void cells(void **state)
{
    static const struct {
        rapt_dtype dtype;
        int64_t bytes;
    } kinds[] = {{RAPT_BF16, 2}, {RAPT_F16, 2}, {RAPT_F32, 4}, {RAPT_U8, 1}};
    (void)state;
    for (int n = 0; n < 16; n++) { /* kinds; own sequences or not, own heads or not */
        rapt_attention a = session_problem(memory);
        struct attention_args none = {0};
        struct driver_map map[MAP_COUNT];
        const struct driver_map *c = &map[MAP_CELLS];
        rapt_dtype dtype = kinds[n % 4].dtype;
        const int64_t bytes = kinds[n % 4].bytes, batch = n / 4 % 2 + 1, heads = n / 8 ? 4 : 1;
        struct row row = {.tile_q = 128, .tile_kv = 64, .needs = NEED_MAPS | NEED_CELL_MAP};
        if (dtype != RAPT_U8) row.can = CAN_BIAS;
        *(dtype == RAPT_U8 ? &a.mask : &a.bias) =
            rapt_tensor_bhtd(memory, dtype, batch, heads, 64, 96);
        if (dtype == RAPT_F16 || dtype == RAPT_BF16)
            a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = dtype;
        struct problem p = session_checked(&a);
        maps_describe(&row, &p, &none, map);
        assert_true(c->rank == 4 && c->dtype == (int64_t)dtype);
        assert_true(c->size[0] == 96 && c->size[1] == 64 && c->size[2] == (uint64_t)heads &&
                    c->size[3] == (uint64_t)batch);
        assert_true(c->stride[0] == 96 * (uint64_t)bytes);
        assert_true(c->stride[1] == (heads > 1 ? 64 * 96 * (uint64_t)bytes : 16));
        assert_true(c->stride[2] == (batch > 1 ? (uint64_t)(heads * 64 * 96 * bytes) : 16));
        assert_true(c->box[0] == 128 / bytes && c->box[1] == 128 && c->box[2] == 1 &&
                    c->box[3] == 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces), cmocka_unit_test(integers),
                                       cmocka_unit_test(pages), cmocka_unit_test(cells)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
