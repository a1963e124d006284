/* pack.c: portable conversion of rows to and from f32, and packing of q, K and V for any tile. */
#include "base/dtype.h"
#include "cpu/scalar/scalar.h"

void scalar_load_row(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels)
{
    if (dtype == RAPT_I8)
        for (int64_t c = 0; c < channels; c++) x[c] = ((const int8_t *)row)[c * channel_stride];
    else
        for (int64_t c = 0; c < channels; c++) x[c] = load_float(row, dtype, c * channel_stride);
}

void scalar_store_row(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels)
{
    for (int64_t c = 0; c < channels; c++)
        store_float(row, dtype, c * channel_stride, x[c] * factor);
}

void scalar_pack_q(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign)
{
    float *x = q;
    scalar_load_row(x, row, dtype, channel_stride, channels);
    if (sign < 0)
        for (int64_t c = 0; c < channels; c++) x[c] = -x[c];
}

void scalar_pack_q_pairs(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                         int64_t channels, float sign)
{
    uint16_t *x = q;
    for (int64_t c = 0; c < channels; c++)
        x[c] = bf16_from_float(sign * load_float(row, dtype, c * channel_stride));
    if (channels % 2) x[channels] = 0;
}

float scalar_row_value(const struct cpu_rows *rows, int64_t j, int64_t c)
{
    const void *row = rows->row[j];
    if (!row) return 0;
    int64_t element = channel_offset(rows, c);
    if (rows->dtype != RAPT_I8) return load_float(row, rows->dtype, element);
    return (float)((const int8_t *)row)[element] *
           rows->scale[j][c / rows->scale_channels * rows->scale_stride];
}

void scalar_pack_k_panels(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                          int64_t channels, int64_t column_tile, int64_t pair)
{
    int64_t depth = (channels + pair - 1) / pair * pair;
    for (int64_t j0 = first; j0 < last; j0 += column_tile)
        for (int64_t c = 0; c < depth; c++)
            for (int64_t j = j0; j < j0 + column_tile; j++) {
                float x = j < last && c < channels ? scalar_row_value(k, j, c) : 0;
                int64_t at = j0 * depth + (c / pair * column_tile + j - j0) * pair + c % pair;
                if (pair == 1) ((float *)panels)[at] = x;
                else ((uint16_t *)panels)[at] = bf16_from_float(x);
            }
}

int scalar_pack_v_panels(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                         int64_t channels, int64_t panel_keys, int64_t column_tile, int64_t pair)
{
    int64_t width = (channels + column_tile - 1) / column_tile * column_tile;
    int64_t end = (last + pair - 1) / pair * pair;
    int unusual = 0;
    for (int64_t j = first; j < end; j++)
        for (int64_t c = 0; c < width; c++) {
            float x = j < last && c < channels ? scalar_row_value(v, j, c) : 0;
            if ((bits_from_float(x) & 0x7f800000u) == 0x7f800000u) unusual = 1;
            int64_t at = c / column_tile * panel_keys * column_tile +
                         (j / pair * column_tile + c % column_tile) * pair + j % pair;
            if (pair == 1) ((float *)panels)[at] = x;
            else ((uint16_t *)panels)[at] = bf16_from_float(x);
        }
    return unusual;
}
