/* tiles_amx.c: the AMX BF16 level: tiles of 16 x 32 sums of bf16 pairs on the matrix unit. Formats
 * of q, p and panels are those of AVX-512 BF16, which serves everything but the two products: a row
 * of q or p is a row of an A tile, and 16 rows of a panel are two B tiles as they lie in memory.
 * tdpbf16ps flushes subnormal numbers and rounds to nearest even (Intel SDM, TDPBF16PS).
 *
 * Each call sets the shape of its tiles and gives them back at its end: the shape follows from the
 * number of rows and the depth of the last step, and a thread that holds no tile data is cheaper to
 * switch. */
#include "cpu/decode_kernels.h"

#include "cpu/x86/amx_shapes.h"

#define LEVEL_BELOW cpu_avx512_bf16
#include "cpu/x86/level_above.h"

enum { ROW_TILE = 16, COLUMN_TILE = 32, LANES = 16, DEPTH = 16 /* pairs of one step */ };
enum { LANE_BYTES = 4 };

/* Tile registers: the sums, an A tile and two B tiles, and these three for a last step of less than
 * DEPTH pairs. Macros, as the intrinsics paste the number into the instruction. */
#define SUM0        0
#define SUM1        1
#define LEFT        2
#define RIGHT0      3
#define RIGHT1      4
#define LAST_LEFT   5
#define LAST_RIGHT0 6
#define LAST_RIGHT1 7

static void shape_tiles(int64_t rows, int64_t depth)
{
    int64_t rest = depth % DEPTH ? depth % DEPTH : DEPTH;
    struct tile_shapes t = {.palette = PALETTE};
    for (int i = 0; i < TILES; i++) {
        int is_right = i == RIGHT0 || i == RIGHT1, is_last_right = i > LAST_LEFT;
        t.row_bytes[i] = (uint16_t)(i == LAST_LEFT ? rest * LANE_BYTES : ROW_BYTES);
        t.rows[i] = (uint8_t)(is_right ? DEPTH : is_last_right ? rest : rows);
    }
    load_shapes(&t);
}

/* c[rows][half or whole panel] (+)= a[rows][depth] b[depth][COLUMN_TILE], in pairs; rows as shaped.
 */
static void multiply(float *c, int64_t c_stride, const float *a, int64_t a_stride, const float *b,
                     int64_t depth, int whole, int accumulate)
{
    size_t c_step = (size_t)c_stride * LANE_BYTES, a_step = (size_t)a_stride * LANE_BYTES,
           b_step = (size_t)COLUMN_TILE * LANE_BYTES;
    _tile_zero(SUM0);
    _tile_zero(SUM1);
    if (accumulate) _tile_loadd(SUM0, c, c_step);
    if (accumulate && whole) _tile_loadd(SUM1, c + LANES, c_step);
    int64_t k = 0;
    for (; k + DEPTH <= depth; k += DEPTH, b += (int64_t)DEPTH * COLUMN_TILE) {
        _tile_loadd(LEFT, a + k, a_step);
        _tile_loadd(RIGHT0, b, b_step);
        _tile_dpbf16ps(SUM0, LEFT, RIGHT0);
        if (!whole) continue;
        _tile_loadd(RIGHT1, b + LANES, b_step);
        _tile_dpbf16ps(SUM1, LEFT, RIGHT1);
    }
    if (k < depth) {
        _tile_loadd(LAST_LEFT, a + k, a_step);
        _tile_loadd(LAST_RIGHT0, b, b_step);
        _tile_dpbf16ps(SUM0, LAST_LEFT, LAST_RIGHT0);
        if (whole) {
            _tile_loadd(LAST_RIGHT1, b + LANES, b_step);
            _tile_dpbf16ps(SUM1, LAST_LEFT, LAST_RIGHT1);
        }
    }
    _tile_stored(SUM0, c, c_step);
    if (whole) _tile_stored(SUM1, c + LANES, c_step);
}

static void qk(float *s, int64_t s_stride, const void *q, int64_t q_stride, const void *panels,
               int64_t rows, int64_t channels, int64_t first, int64_t last)
{
    int64_t depth = (channels + 1) / 2;
    const float *k = panels;
    shape_tiles(rows, depth);
    for (int64_t j = first; j < last; j += COLUMN_TILE)
        multiply(s + j, s_stride, q, q_stride, k + j * depth, depth, j + LANES < last, 0);
    _tile_release();
}

static void pv(float *o, int64_t o_stride, const float *p, int64_t p_stride, const void *panels,
               int64_t panel_keys, int64_t rows, int64_t channels, int64_t first, int64_t last,
               int accumulate)
{
    const float *v = (const float *)panels + first / 2 * COLUMN_TILE;
    int64_t depth = (last - first + 1) / 2;
    shape_tiles(rows, depth);
    for (int64_t c = 0; c < channels; c += COLUMN_TILE)
        multiply(o + c, o_stride, p + first / 2, p_stride, v + c * (panel_keys / 2), depth,
                 c + LANES < channels, accumulate);
    _tile_release();
}

static void pack_k(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels)
{
    LEVEL_BELOW.pack_k(panels, k, first, last, channels);
}

static int pack_v(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                  int64_t channels, int64_t panel_keys)
{
    return LEVEL_BELOW.pack_v(panels, v, first, last, channels, panel_keys);
}

const struct cpu_kernels cpu_amx = {
    .name = "cpu_amx",
    .arch = "amx",
    CPU_TILE_SLOTS,
    CPU_PACK_SLOTS,
    .pair = 2,
    .pipeline_bf16 = &pipeline_bf16_amx,
    .decode_stage = decode_stage_amx,
    .decode_keys = DECODE_KEYS_AMX,
    .decode_qk = decode_qk_amx,
    .decode_pv = decode_pv_amx,
    .attend_few = attend_few_amx,
    .wake_share = 8 << 20, /* 50 us */
};
