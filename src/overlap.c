/* overlap.c: whether two strided views share memory, or two elements of one. */
#include "overlap.h"
#include "base/dtype.h"

/* A view as a set of byte offsets: base + sum over axes of index * stride, each element `width`
 * bytes; strides positive, largest first. */
struct lattice {
    int64_t base, width, size[4], stride[4];
    int axes;
};

bool view_fits(const rapt_tensor *t)
{
    int64_t elements = 1;
    for (int axis = 0; axis < 4; axis++)
        if (t->size[axis] > 1 &&
            (__builtin_mul_overflow(elements, t->size[axis], &elements) || elements > VIEW_MOST))
            return false;
    return true;
}

bool view_extent(const rapt_tensor *t, int64_t *low, int64_t *high)
{
    int64_t width = (int64_t)dtype_size(t->dtype), last;
    *low = *high = 0;
    if (!view_has_elements(t)) return true;
    *high = width;
    for (int axis = 0; axis < 4; axis++) {
        if (__builtin_mul_overflow(t->size[axis] - 1, t->stride[axis], &last)) return false;
        if (__builtin_mul_overflow(last, width, &last)) return false;
        if (__builtin_add_overflow(last < 0 ? *low : *high, last, last < 0 ? low : high))
            return false;
    }
    return true;
}

static struct lattice lattice_of(const rapt_tensor *t)
{
    struct lattice l = {.base = (int64_t)(intptr_t)t->data, .width = (int64_t)dtype_size(t->dtype)};
    for (int axis = 0; axis < 4; axis++) {
        int64_t size = t->size[axis], stride = t->stride[axis] * l.width;
        if (size == 1 || stride == 0) continue;
        if (stride < 0) {
            l.base += (size - 1) * stride;
            stride = -stride;
        }
        int at = l.axes++;
        for (; at > 0 && l.stride[at - 1] < stride; at--) {
            l.size[at] = l.size[at - 1];
            l.stride[at] = l.stride[at - 1];
        }
        l.size[at] = size;
        l.stride[at] = stride;
    }
    return l;
}

static int64_t span(const struct lattice *l, int from_axis)
{
    int64_t bytes = l->width;
    for (int axis = from_axis; axis < l->axes; axis++)
        bytes += (l->size[axis] - 1) * l->stride[axis];
    return bytes;
}

/* Whether the sets overlap when b starts shift bytes after a. Equal outermost strides that no inner
 * extent exceeds leave two relative positions of the inner sets to look at; anything else is
 * decided by the ranges. */
static bool shifted_overlap(const struct lattice *a, int axis_a, const struct lattice *b,
                            int axis_b, int64_t shift)
{
    if (shift >= span(a, axis_a) || -shift >= span(b, axis_b)) return false;
    if (axis_a == a->axes || axis_b == b->axes) {
        /* One set is a single element: step through the other's outermost axis. */
        if (axis_a == a->axes && axis_b == b->axes) return true;
        const struct lattice *l = axis_a < a->axes ? a : b;
        int axis = axis_a < a->axes ? axis_a : axis_b;
        int64_t stride = l->stride[axis];
        if (span(l, axis + 1) > stride) return true;
        int64_t offset = axis_a < a->axes ? shift : -shift,
                width = axis_a < a->axes ? b->width : a->width;
        int64_t index = offset >= 0 ? offset / stride : -1;
        for (int64_t at = index; at <= index + 1; at++) {
            int64_t inner = offset - at * stride;
            if (at < 0 || at >= l->size[axis] || inner <= -width || inner >= span(l, axis + 1))
                continue;
            int a_next = axis_a < a->axes ? axis_a + 1 : axis_a,
                b_next = axis_a < a->axes ? axis_b : axis_b + 1;
            if (shifted_overlap(a, a_next, b, b_next, axis_a < a->axes ? inner : -inner))
                return true;
        }
        return false;
    }
    int64_t stride = a->stride[axis_a];
    if (b->stride[axis_b] != stride || span(a, axis_a + 1) > stride || span(b, axis_b + 1) > stride)
        return true;
    int64_t inner = shift % stride;
    if (inner < 0) inner += stride;
    return shifted_overlap(a, axis_a + 1, b, axis_b + 1, inner) ||
           shifted_overlap(a, axis_a + 1, b, axis_b + 1, inner - stride);
}

bool views_overlap(const rapt_tensor *a, const rapt_tensor *b)
{
    if (!a->data || !b->data || !view_has_elements(a) || !view_has_elements(b)) return false;
    struct lattice la = lattice_of(a), lb = lattice_of(b);
    return shifted_overlap(&la, 0, &lb, 0, lb.base - la.base);
}

/* The part of an outer axis' first index against those of its later ones that reach into it: none where the inner
 * axes are shorter than a step of the outer. */
bool view_repeats(const rapt_tensor *t)
{
    if (!view_has_elements(t)) return false;
    for (int axis = 0; axis < 4; axis++)
        if (t->size[axis] > 1 && t->stride[axis] == 0) return true;
    struct lattice l = lattice_of(t);
    for (int axis = 0; axis < l.axes; axis++) {
        int64_t inner = span(&l, axis + 1), shift = l.stride[axis];
        for (int64_t i = 1; i < l.size[axis] && shift < inner; i++, shift += l.stride[axis])
            if (shifted_overlap(&l, axis + 1, &l, axis + 1, shift)) return true;
    }
    return false;
}
