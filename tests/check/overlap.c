/* overlap.c: extents and overlaps of strided views, and of elements of one, against all their elements, one by one. */
#include "overlap.h"
#include "base/dtype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

enum { MEMORY = 16384, MIDDLE = MEMORY / 2 };

static unsigned char memory[MEMORY];
static uint64_t state_of_draws = 88172645463325252u;

/* xorshift64 (Marsaglia 2003): 0 ... below - 1. */
static int64_t draw(int64_t below)
{
    state_of_draws ^= state_of_draws << 13;
    state_of_draws ^= state_of_draws >> 7;
    state_of_draws ^= state_of_draws << 17;
    return (int64_t)(state_of_draws % (uint64_t)below);
}

static rapt_tensor any_view(void)
{
    static const int64_t dtypes[] = {RAPT_F32, RAPT_BF16, RAPT_I8, RAPT_I64};
    rapt_tensor t = {.data = memory + MIDDLE, .dtype = dtypes[draw(4)]};
    int64_t element = (int64_t)dtype_size(t.dtype);
    t.data = memory + MIDDLE + (draw(64) - 32) * element;
    for (int axis = 0; axis < 4; axis++) {
        t.size[axis] = draw(8) ? 1 + draw(4) : draw(2);
        t.stride[axis] = draw(3) ? draw(20) - 6 : draw(60) - 20;
    }
    return t;
}

/* Marks the bytes of each element; the lowest and one past the highest, relative to data. */
static void mark(const rapt_tensor *t, unsigned char *bytes, int64_t *low, int64_t *high)
{
    int64_t element = (int64_t)dtype_size(t->dtype), base = (unsigned char *)t->data - memory;
    memset(bytes, 0, MEMORY);
    *low = *high = 0;
    bool first = true;
    for (int64_t a = 0; a < t->size[0]; a++)
        for (int64_t b = 0; b < t->size[1]; b++)
            for (int64_t c = 0; c < t->size[2]; c++)
                for (int64_t d = 0; d < t->size[3]; d++) {
                    int64_t at = (a * t->stride[0] + b * t->stride[1] + c * t->stride[2] +
                                  d * t->stride[3]) *
                                 element;
                    assert_true(base + at >= 0 && base + at + element <= MEMORY);
                    memset(bytes + base + at, 1, (size_t)element);
                    if (first || at < *low) *low = at;
                    if (first || at + element > *high) *high = at + element;
                    first = false;
                }
}

static void overlaps_are_never_missed(void **state)
{
    static unsigned char x[MEMORY], y[MEMORY];
    long shared = 0, apart = 0, told_apart = 0;
    (void)state;
    for (int n = 0; n < 20000; n++) {
        rapt_tensor a = any_view(), b = any_view();
        int64_t low, high, given_low, given_high;
        bool share = false;
        mark(&b, y, &low, &high);
        mark(&a, x, &low, &high);
        for (int i = 0; i < MEMORY && !share; i++) share = x[i] && y[i];
        assert_true(view_extent(&a, &given_low, &given_high));
        assert_int_equal(given_low, low);
        assert_int_equal(given_high, high);
        bool found = views_overlap(&a, &b);
        if (low == high) assert_false(found); /* no element shares memory */
        assert_int_equal(found, views_overlap(&b, &a));
        if (share && !found)
            fail_msg("views that share memory are told apart: sizes %lld %lld %lld %lld",
                     (long long)a.size[0], (long long)a.size[1], (long long)a.size[2],
                     (long long)a.size[3]);
        shared += share;
        apart += !share;
        told_apart += !share && !found;
    }
    assert_true(shared > 1000 && apart > 1000 && told_apart > apart / 4);
}

/* The layouts that people use: parts of one packed array lie apart although their extents overlap.
 */
static void packed_arrays_are_told_apart(void **state)
{
    static float packed[2 * 5 * 4 * 3 * 8];
    rapt_tensor part[4];
    (void)state;
    for (int n = 0; n < 4; n++) { /* [batch][token][head][q k v out][channel] */
        rapt_tensor t = {packed + n * 8, RAPT_F32, {2, 3, 5, 8}, {5 * 3 * 32, 32, 3 * 32, 1}};
        part[n] = t;
    }
    for (int n = 0; n < 4; n++)
        for (int m = 0; m < 4; m++) assert_int_equal(views_overlap(&part[n], &part[m]), n == m);
    for (int n = 0; n < 4; n++) { /* [batch][token][q k v out][head][channel] */
        rapt_tensor t = {packed + n * 24, RAPT_F32, {2, 3, 5, 8}, {5 * 96, 8, 96, 1}};
        part[n] = t;
    }
    for (int n = 0; n < 4; n++)
        for (int m = 0; m < 4; m++) assert_int_equal(views_overlap(&part[n], &part[m]), n == m);
}

/* So are they when an axis repeats: it adds no memory. */
static void repeated_axes_are_told_apart(void **state)
{
    static float packed[5 * 16];
    rapt_tensor left = {packed, RAPT_F32, {2, 3, 5, 8}, {0, 0, 16, 1}}, right = left;
    (void)state;
    right.data = packed + 8;
    assert_false(views_overlap(&left, &right));
    right.stride[0] = 3; /* not a repeat */
    assert_true(views_overlap(&left, &right));
    right.size[0] = 1, right.stride[0] = 1000; /* no step is taken */
    assert_false(views_overlap(&left, &right));
}

/* Elements that share memory mark fewer bytes than they have. */
static void repeats_are_never_missed(void **state)
{
    static unsigned char bytes[MEMORY];
    long repeating = 0, single = 0, found_single = 0;
    (void)state;
    for (int n = 0; n < 20000; n++) {
        rapt_tensor t = any_view();
        int64_t low, high, marked = 0, elements = t.size[0] * t.size[1] * t.size[2] * t.size[3];
        mark(&t, bytes, &low, &high);
        for (int i = 0; i < MEMORY; i++) marked += bytes[i];
        int repeats = marked < elements * (int64_t)dtype_size(t.dtype), found = view_repeats(&t);
        if (repeats && !found) fail_msg("view %d: elements that share memory are told apart", n);
        repeating += repeats;
        single += !repeats;
        found_single += !repeats && !found;
    }
    assert_true(repeating > 1000 && single > 1000 && found_single > single * 9 / 10);
}

/* Axes in any order, in any direction, with gaps, one in the gaps of another. */
static void layouts_do_not_repeat(void **state)
{
    const rapt_tensor views[] = {{memory, RAPT_F32, {2, 3, 5, 8}, {120, 40, 8, 1}},
                                 {memory, RAPT_F32, {2, 3, 5, 8}, {120, 8, 24, 1}},
                                 {memory, RAPT_F32, {8, 5, 3, 2}, {1, 8, 40, 120}},
                                 {memory, RAPT_F16, {2, 3, 5, 8}, {-500, 100, -20, 2}},
                                 {memory, RAPT_F16, {1, 1, 2, 4}, {0, 0, 5, 2}},
                                 {memory, RAPT_F16, {1, 3, 1, 4}, {0, 1, 0, 3}},
                                 {memory, RAPT_I8, {0, 3, 1, 4}, {0, 0, 0, 0}}};
    (void)state;
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) assert_false(view_repeats(&views[i]));
    rapt_tensor repeated = views[0];
    repeated.stride[1] = 39;
    assert_true(view_repeats(&repeated));
    repeated.stride[1] = 0;
    assert_true(view_repeats(&repeated));
}

static void elements_that_fit(void **state)
{
    rapt_tensor t = {memory, RAPT_I8, {1 << 16, 1 << 16, 1 << 16, 0}, {0, 0, 0, 0}};
    (void)state;
    assert_true(view_fits(&t));
    t.size[3] = 2;
    assert_false(view_fits(&t));
    t.size[0] = INT64_MAX, t.size[3] = 0;
    assert_false(view_fits(&t));
}

static void extents_that_overflow(void **state)
{
    static const int64_t large[] = {INT64_MAX, INT64_MAX / 2, INT64_MIN, (int64_t)1 << 61};
    int64_t low, high;
    (void)state;
    for (int i = 0; i < 4; i++) {
        rapt_tensor t = {memory, RAPT_F32, {3, 2, 2, 2}, {large[i], large[i], 1, 1}};
        assert_false(view_extent(&t, &low, &high));
        t.size[0] = 0; /* no element, no extent */
        assert_true(view_extent(&t, &low, &high) && !low && !high);
    }
    rapt_tensor wide = {memory, RAPT_I8, {INT64_MAX, INT64_MAX, 2, 2}, {0, 0, 0, 0}};
    assert_true(view_extent(&wide, &low, &high) && low == 0 && high == 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(overlaps_are_never_missed),
                                       cmocka_unit_test(packed_arrays_are_told_apart),
                                       cmocka_unit_test(repeated_axes_are_told_apart),
                                       cmocka_unit_test(repeats_are_never_missed),
                                       cmocka_unit_test(layouts_do_not_repeat),
                                       cmocka_unit_test(elements_that_fit),
                                       cmocka_unit_test(extents_that_overflow)};
    return run_group("overlap", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
