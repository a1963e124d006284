/* flawed.h: a small flash-style engine with one deliberate fault at a time, to prove that the
 * bounds can fail. */
#ifndef RAPT_TESTS_FLAWED_H
#define RAPT_TESTS_FLAWED_H

#include "rapt/rapt.h"

#include <stdbool.h>

/* name, dtypes where it is a fault */
#define FAULT_LIST(X)                                                                              \
    X(none, all)                                                                                   \
    X(skipped_pv_block, all) /* the second block of keys counts in the sum only */                 \
    X(stale_rescale, all)    /* the output is not rescaled when the maximum rises */               \
    X(stale_sum, all)        /* the row sum is not */                                              \
    X(causal_one_more, all)  /* j <= i + offset + 1 */                                             \
    X(causal_one_less, all)                                                                        \
    X(wrong_alignment, all)                                                                        \
    X(window_left_one_more, all)                                                                   \
    X(window_left_one_less, all)                                                                   \
    X(window_right_one_more, all)                                                                  \
    X(sink_twice, all)                                                                             \
    X(sink_scaled, all)                                                                            \
    X(sink_not_in_lse, all)                                                                        \
    X(lse_base_2, all)                                                                             \
    X(kv_head_modulo, all) /* h % Hkv in place of h / group */                                     \
    X(softcap_after_bias, all)                                                                     \
    X(softcap_ignored, all)                                                                        \
    X(alibi_without_offset, all)                                                                   \
    X(alibi_scaled, all)                                                                           \
    X(mask_inverted, all)                                                                          \
    X(mask_of_head_0, all)                                                                         \
    X(unmasked_tail, all)         /* keys between the length and the end of its block */           \
    X(zero_tail, all)             /* the same, as if they were zeros */                            \
    X(hidden_values_used, all)    /* 0 * NaN from hidden values */                                 \
    X(finite_minus_infinity, all) /* hidden scores are -1e4 */                                     \
    X(empty_row_average, all)     /* a row without keys averages all */                            \
    X(base_2_weights, all)        /* exp2 without log2(e) */                                       \
    X(scale_missing, all)                                                                          \
    X(scale_absolute, all) /* the sign of a negative scale is lost */                              \
    X(last_channel_dropped, all)                                                                   \
    X(last_key_dropped, all)                                                                       \
    X(late_block_dropped, all)      /* 64 of 4200 keys, in sum and output alike */                 \
    X(halves_averaged, all)    /* two halves of the keys merged without their lse */               \
    X(first_maximum_kept, all) /* no running maximum: scores overflow */                           \
    X(fused_exponent, all)     /* s log2(e) - round(m log2(e)) in one step */                      \
    X(bf16_weights, not_bf16)  /* P coarser than the input */                                      \
    X(half_output_sum, all)    /* the output accumulates in the input's precision, f32: bf16 */    \
    X(truncated_output, f16)   /* cut, not rounded; in bf16 no larger than P's rounding */         \
    X(tf32_products, f32)      /* q and k lose 13 bits */

enum fault {
#define FAULT_ENUM(name, where) FAULT_##name,
    FAULT_LIST(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_COUNT
};

/* Attention of plain (not ragged, paged or i8) host tensors: out and lse. false: it does not serve
 * a. */
bool flawed_forward(const rapt_attention *a, enum fault fault);

#endif
