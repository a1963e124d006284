/* pipeline_scores.h: what becomes of a panel of scores between q k^T and softmax in pipeline_amx.c. */
#include "cpu/kernels.h"

enum { PIPELINE_PANEL = 32 };

/* Asks memory for what the options of such a panel read; t has options. */
void ask_for_options_amx(const struct cpu_pipeline *t, int64_t row, int64_t panel);

/* Columns of a panel of 32 rows from packed row `row` on: softcap, bias, ALiBi and mask, where there are such options
 * (s is a natural logit then), and -inf where a row does not see a key. whole: every row sees all of them. */
void change_scores_amx(const struct cpu_pipeline *t, int parts, int64_t row, int64_t panel,
                       int whole, float (*s)[PIPELINE_PANEL]);
