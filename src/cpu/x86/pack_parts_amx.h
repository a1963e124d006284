/* pack_parts_amx.h: the pack slots of the pipelines of f32 and f16 (struct cpu_pipeline_kernels). */
#ifndef RAPT_CPU_X86_PACK_PARTS_AMX_H
#define RAPT_CPU_X86_PACK_PARTS_AMX_H

#include "cpu/kernels.h"

/* least_value of f32: beside a value as large as this, what parts lose below 2^-126 does not count. */
#define PACK_LEAST_F32 0x1p-100f

int pack_q_f32_amx(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
int pack_q_f16_amx(void *q, const void *row, int64_t dtype, int64_t channel_stride,
                   int64_t channels, float sign);
int pack_k_f32_amx(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
int pack_k_f16_amx(void *panels, const struct cpu_rows *k, int64_t first, int64_t last,
                   int64_t channels);
int pack_v_f32_amx(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                   int64_t channels, int64_t panel_keys);
int pack_v_f16_amx(void *panels, const struct cpu_rows *v, int64_t first, int64_t last,
                   int64_t channels, int64_t panel_keys);

#endif
