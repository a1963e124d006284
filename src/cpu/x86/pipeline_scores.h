/* pipeline_scores.h: what becomes of a panel of scores between q k^T and softmax in pipeline_amx.c. */
#ifndef RAPT_CPU_X86_PIPELINE_SCORES_H
#define RAPT_CPU_X86_PIPELINE_SCORES_H

#include "cpu/kernels.h"

enum { PIPELINE_PANEL = 32 };

/* Asks memory for what the options of such a panel read; t has options. */
void ask_for_options_amx(const struct cpu_pipeline *t, int64_t row, int64_t panel);

/* Columns of a panel of 32 rows from packed row `row` on: softcap, bias, ALiBi and mask, where there are such options
 * (s is a natural logit then), and -inf where a row does not see a key. whole: every row sees all of them. */
void change_scores_amx(const struct cpu_pipeline *t, int parts, int64_t row, int64_t panel,
                       int whole, float (*s)[PIPELINE_PANEL]);

/* Scores of CPU_PIPELINE_ROWS rows from row on and width columns from first on, where either holds NaN or infinity: a
 * part that is 0 would make NaN of an infinite product. */
void pipeline_score_nonfinite(const struct cpu_pipeline *x, int parts, int64_t row, int64_t first,
                              float *s, int64_t width);

#endif
