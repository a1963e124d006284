/* decode_spies.h: the decode slots of a level by functions that show what is asked for ahead and then call the level's
 * own. The including file defines note(ahead). */
#ifndef RAPT_TESTS_DECODE_SPIES_H
#define RAPT_TESTS_DECODE_SPIES_H

#include "cpu/decode_kernels.h"

static void note(const struct cpu_ahead *ahead);

static const struct cpu_kernels *real;
static int64_t calls_of_heads, keys_of_heads; /* of decode_qk_heads; the last one's heads->keys */
static int64_t page_of_heads,
    other_turns; /* keys of a page that go by head by head; calls of other turns */

static DECODE_QK(spy)
{
    note(ahead);
    real->decode_qk(s, s_stride, q, q_stride, k, rows, channels, first, last, ahead);
}

static DECODE_PV(spy)
{
    note(ahead);
    real->decode_pv(o, o_stride, p, p_stride, v, rows, channels, first, last, ahead);
}

static void note_turn(const struct cpu_heads *heads, int64_t first)
{
    int64_t turn = page_of_heads ? page_of_heads : heads->keys,
            before = page_of_heads ? first % page_of_heads : 0;
    other_turns += heads->turn != turn || heads->before != before;
}

static DECODE_QK_HEADS(spy)
{
    note(ahead);
    note_turn(heads, first);
    calls_of_heads++;
    keys_of_heads = heads->keys;
    real->decode_qk_heads(s, s_stride, q, q_stride, k, heads, rows, channels, first, last, ahead);
}

static DECODE_PV_HEADS(spy)
{
    note(ahead);
    note_turn(heads, first);
    real->decode_pv_heads(o, o_stride, p, p_stride, v, heads, rows, channels, first, last, ahead);
}

static struct cpu_kernels spies_of(const struct cpu_kernels *kernels)
{
    struct cpu_kernels spies = *kernels;
    real = kernels;
    spies.decode_qk = decode_qk_spy;
    spies.decode_pv = decode_pv_spy;
    if (kernels->decode_qk_heads) spies.decode_qk_heads = decode_qk_heads_spy;
    if (kernels->decode_pv_heads) spies.decode_pv_heads = decode_pv_heads_spy;
    return spies;
}

#endif
