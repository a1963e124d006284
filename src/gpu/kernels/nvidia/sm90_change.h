/* sm90_change.h: what a bias or a mask tensor changes in a block's scores, as consumers ask for it and
 * take it. */
#ifndef RAPT_NVIDIA_SM90_CHANGE_H
#define RAPT_NVIDIA_SM90_CHANGE_H

#include "sm90_turns.h"

#if LOOSE
/* Of the warp's rows of cells. */
DEVICE uint32_t own_cells(const struct consumer &c)
{
    return c.base + AT_CELLS + (4 * group_now(c) + (thread_now(c) >> 5)) * LOOSE_BYTES;
}
#endif

#if CELLS
/* What the tensor says about the scores of the block worked on, whose cells are then given back. In a
 * repair they have come with K. */
template <bool REPAIR>
DEVICE void take_cells(const struct consumer &c, const struct attention_args &a,
                       float (&s)[KEYS / 2])
{
    uint32_t at = c.base + AT_CELLS + c.stage * CELL_BYTES;
    int lane = lane_now(c), row = group_now(c) * 64 + (thread_now(c) >> 5) * 16;
#if LOOSE
    await_rows();
    take_loose(s, a.scale, own_cells(c), c.shift, lane);
    return;
#endif
    if (!REPAIR) mbarrier_wait(c.base + AT_CELLS_FULL + 8 * c.stage, c.phase);
    if (CELLS == 4) add_cells_f32(s, a.scale, at, row, lane);
    else if (CELLS == 2) add_cells(s, a.scale, at, row, lane);
    else hide_cells(s, at, row, lane);
    if (REPAIR) return;
    __syncwarp();
    if (lane == 0) mbarrier_arrive(c.base + AT_CELLS_EMPTY + 8 * c.stage);
}
#endif

/* Of a block whose scores come next. */
DEVICE void ask_block(struct consumer &c, const struct attention_args &a, const struct tile &t,
                      int block)
{
#if KEYED
    ask_cells(a, t, block, lane_now(c), c.cells);
#elif LOOSE
    int lane = lane_now(c), first = group_now(c) * 64 + (thread_now(c) >> 5) * 16;
    c.shift = shift_of(cell_row(a, t, block, first + (lane >> 2)));
    ask_rows(a, t, block, first, lane, own_cells(c));
#endif
}

#endif
