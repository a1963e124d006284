/* amx_model.c: see amx_model.h. The rules that fault on hardware (#GP, #UD) abort here. */
#include "amx_model.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

/* Palette 1: 8 tiles of at most 16 rows of 64 bytes. */
static _Thread_local struct {
    int configured;
    int rows[TILES], bytes[TILES];
    unsigned char data[TILES][ROWS][ROW_BYTES];
} state;

enum amx_fault {
    sound,
#define FAULT(name) name,
    AMX_FAULT_LIST(FAULT)
#undef FAULT
};
static enum amx_fault fault;
static atomic_long dots;

static _Noreturn void die(const char *what, int tile)
{
    fprintf(stderr, "amx_model: %s (tile %d)\n", what, tile);
    abort();
}

static void print_count(void)
{
    fprintf(stderr, "amx_model: %ld products\n", atomic_load(&dots));
}

__attribute__((constructor)) static void read_environment(void)
{
    const char *wanted = getenv("RAPT_AMX_FAULT");
#define FAULT(name)                                                                                \
    if (wanted && !strcmp(wanted, #name)) fault = name;
    AMX_FAULT_LIST(FAULT)
#undef FAULT
    if (wanted && fault == sound) die("RAPT_AMX_FAULT names no fault", -1);
    if (getenv("RAPT_AMX_COUNT")) atexit(print_count);
}

/* Bytes 0: palette, 1: start row, 2 ... 15: 0, 16 ... 47: bytes of a row, 2 each, for 16 tiles, 48
 * ... 63: rows. */
void amx_load_config(const void *shapes)
{
    const unsigned char *byte = shapes;
    if (fault == kept_shape && state.configured) return;
    if (byte[0] > 1) die("unknown palette", byte[0]);
    if (byte[1]) die("a start row", byte[1]);
    for (int i = 2; i < 16; i++)
        if (byte[i]) die("a reserved byte is set", -1);
    memset(&state, 0, sizeof state);
    if (!byte[0]) return;
    for (int i = 0; i < 16; i++) {
        int bytes = byte[16 + 2 * i] | byte[17 + 2 * i] << 8, rows = byte[48 + i];
        if (i >= TILES && (bytes || rows)) die("a shape for a tile that is not there", i);
        if (bytes > ROW_BYTES || rows > ROWS) die("the shape is larger than a tile", i);
        if (!bytes != !rows) die("rows without bytes or bytes without rows", i);
        if (i < TILES) state.bytes[i] = bytes, state.rows[i] = rows;
    }
    state.configured = 1;
}

void amx_release(void)
{
    if (fault == kept_shape) return;
    memset(&state, 0, sizeof state);
}

static void check_tile(int tile)
{
    if (!state.configured) die("no shapes are loaded", tile);
    if (tile < 0 || tile >= TILES || !state.rows[tile]) die("the tile has no shape", tile);
}

void amx_zero(int tile)
{
    check_tile(tile);
    if (fault != stale_sum) memset(state.data[tile], 0, sizeof state.data[tile]);
}

/* What the shape leaves of a tile becomes 0. */
void amx_load(int tile, const void *memory, size_t stride)
{
    check_tile(tile);
    memset(state.data[tile], 0, sizeof state.data[tile]);
    for (int r = 0; r < state.rows[tile]; r++)
        memcpy(state.data[tile][r], (const char *)memory + (size_t)r * stride,
               (size_t)state.bytes[tile]);
}

void amx_store(int tile, void *memory, size_t stride)
{
    check_tile(tile);
    int rows = state.rows[tile] - (fault == row_too_few);
    for (int r = 0; r < rows; r++)
        memcpy((char *)memory + (size_t)r * stride, state.data[tile][r], (size_t)state.bytes[tile]);
}

/* Subnormal numbers are zero on their way in and out. */
static float flushed(float x)
{
    return fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x;
}

static float bf16(const unsigned char *byte)
{
    uint32_t bits = (uint32_t)byte[0] << 16 | (uint32_t)byte[1] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return flushed(x);
}

static float f32(const unsigned char *byte)
{
    float x;
    memcpy(&x, byte, sizeof x);
    return x;
}

static void round_to_bf16(float *x)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(x, &bits, sizeof bits);
}

/* Elements of four bytes in all meet in a product. */
static void check_product(int sum, int left, int right)
{
    check_tile(sum), check_tile(left), check_tile(right);
    if (sum == left || sum == right || left == right) die("a tile is named twice", sum);
    if (state.bytes[sum] % 4 || state.bytes[left] % 4 || state.bytes[right] % 4)
        die("a row is no number of lanes", sum);
    if (state.rows[sum] != state.rows[left] || state.rows[right] != state.bytes[left] / 4 ||
        state.bytes[right] != state.bytes[sum])
        die("the shapes do not fit each other", sum);
    atomic_fetch_add_explicit(&dots, 1, memory_order_relaxed);
}

static void clear_rows_past(int tile)
{
    memset(state.data[tile] + state.rows[tile], 0, (size_t)(ROWS - state.rows[tile]) * ROW_BYTES);
}

/* sum[m][n] += sum over k of left[m][k] right[k][n], in pairs: even and odd elements are summed
 * apart by fused multiply-adds, then added, then added to the sum (SDM: temp1[2 n], temp1[2 n +
 * 1]). */
void amx_dot_bf16(int sum, int left, int right)
{
    check_product(sum, left, right);
    int depth = state.bytes[left] / 4 - (fault == lost_last_pair),
        swap = fault == swapped_pairs ? 2 : 0;
    for (int m = 0; m < state.rows[sum]; m++)
        for (int n = 0; n < state.bytes[sum] / 4; n++) {
            float even = 0, odd = 0;
            for (int k = 0; k < depth; k++) {
                const unsigned char *a = state.data[left][m] + 4 * k,
                                    *b = state.data[right][k] + 4 * n;
                even = flushed(fmaf(bf16(a), bf16(b + swap), even));
                odd = flushed(fmaf(bf16(a + 2), bf16(b + (2 ^ swap)), odd));
            }
            unsigned char *to = state.data[sum][m] + 4 * n;
            float x = flushed(flushed(f32(to)) + flushed(even + odd));
            if (fault == rounded_sum) round_to_bf16(&x);
            memcpy(to, &x, sizeof x);
        }
    clear_rows_past(sum);
}

/* The same of integers of 8 bits, in fours; sums wrap. */
void amx_dot_bytes(int sum, int left, int right, int left_signed)
{
    check_product(sum, left, right);
    int depth = state.bytes[left] / 4 - (fault == lost_last_pair),
        swap = fault == swapped_pairs ? 3 : 0;
    if (fault == signed_bytes) left_signed = 1;
    for (int m = 0; m < state.rows[sum]; m++)
        for (int n = 0; n < state.bytes[sum] / 4; n++) {
            unsigned char *to = state.data[sum][m] + 4 * n;
            uint32_t x;
            memcpy(&x, to, sizeof x);
            for (int k = 0; k < 4 * depth; k++) {
                unsigned char byte = state.data[left][m][k];
                int a = left_signed ? (int8_t)byte : byte;
                int b = (int8_t)state.data[right][k / 4][4 * n + (k % 4 ^ swap)];
                x += (uint32_t)(a * b);
            }
            if (fault == rounded_sum) x &= 0xffff0000u;
            memcpy(to, &x, sizeof x);
        }
    clear_rows_past(sum);
}
