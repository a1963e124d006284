/* scalar.h: portable functions that every level may use for what it does not do faster itself. */
#ifndef RAPT_CPU_SCALAR_SCALAR_H
#define RAPT_CPU_SCALAR_SCALAR_H

#include "cpu/kernels.h"

/* As the slots of struct cpu_kernels, for any tile. */
void scalar_load_row(float *x, const void *row, int64_t dtype, int64_t channel_stride,
                     int64_t channels);
void scalar_store_row(void *row, int64_t dtype, int64_t channel_stride, const float *x,
                      float factor, int64_t channels);
void scalar_pack_q(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
void scalar_pack_q_pairs(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                         int64_t channels, float sign);
void scalar_score(float *s, const struct cpu_score_row *r, int64_t first, int64_t last);

/* With the level's column_tile and pair as arguments. */
void scalar_pack_k_panels(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                          int64_t channels, int64_t column_tile, int64_t pair);
int scalar_pack_v_panels(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                         int64_t channels, int64_t panel_keys, int64_t column_tile, int64_t pair);
/* Channel c of key j, in f32; 0 for a NULL row. */
float scalar_row_value(const struct cpu_rows *rows, int64_t j, int64_t c);

#endif
