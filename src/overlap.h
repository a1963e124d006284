/* overlap.h: where a strided view lies in memory, and whether two, or two of its elements, share any of it, exactly
 * for the layouts people use. */
#ifndef RAPT_OVERLAP_H
#define RAPT_OVERLAP_H

#include "rapt/rapt.h"

#include <stdbool.h>

static inline bool view_has_elements(const rapt_tensor *t)
{
    return t->size[0] && t->size[1] && t->size[2] && t->size[3];
}

/* Indices along an axis whose elements may differ: 1 of those that repeat. */
static inline int64_t view_distinct(const rapt_tensor *t, int axis)
{
    return t->stride[axis] || t->size[axis] < 1 ? t->size[axis] : 1;
}

/* Whether the view has at most VIEW_MOST elements, its empty axes counted as 1: products of sizes then stay in 63
 * bits. */
#define VIEW_MOST ((int64_t)1 << 48)
bool view_fits(const rapt_tensor *t);

/* Bytes of the view's lowest and one past its highest address relative to data. false: the extent
 * does not fit in 63 bits. A view without elements has *low == *high == 0. */
bool view_extent(const rapt_tensor *t, int64_t *low, int64_t *high);

/* true when an element of a may share a byte with an element of b. Never false when they share one;
 * views that are interleaved with equal strides, such as the parts of a packed q, k, v, out array,
 * are told apart. */
bool views_overlap(const rapt_tensor *a, const rapt_tensor *b);
/* The same of two elements of one view. */
bool view_repeats(const rapt_tensor *t);

#endif
