/* score_change.h: what the portable kernels do to a score of a visible key beyond its scale. */
#ifndef RAPT_SCORE_CHANGE_H
#define RAPT_SCORE_CHANGE_H

#include "device.h"

/* softcap, bias and ALiBi on a scaled score of sequence b, in the order that SEMANTICS gives; query
 * and key within the sequence. */
DEVICE float changed_score(const struct attention_args *a, const struct sequence *seq, int b,
                           int head, float s, int query, int key)
{
    if (a->softcap > 0) s = a->softcap * tanh_f32(s / a->softcap);
    if (a->bias.data)
        s += load_element(element_at(&a->bias, seq->q_batch, head, seq->q_start + query, key), 0,
                          a->bias.dtype);
    if (a->alibi.data) {
        int distance = query + seq->offset - key;
        float slope = load_element(element_at(&a->alibi, b, head, 0, 0), 0, DTYPE_f32);
        s -= slope * (float)(distance < 0 ? -distance : distance);
    }
    return s;
}

/* Whether the mask tensor, which is there, hides the key. */
DEVICE int is_masked(const struct attention_args *a, const struct sequence *seq, int head,
                     int query, int key)
{
    return !LOAD(uint8_t, element_at(&a->mask, seq->q_batch, head, seq->q_start + query, key));
}

#endif
