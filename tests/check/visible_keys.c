/* visible_keys.c: which keys a row sees (docs/SEMANTICS.md, S06 to S08), against the rule key by key, and
 * with windows as wide as their type. */
#include "params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "group.h"

enum { LONGEST = 6 };

/* Neighbours on each side, WINDOW_OPEN for all. */
static const int64_t windows[] = {WINDOW_OPEN, 0, 1, 3, 9, INT64_MAX - 2};

static int is_visible(const struct problem *p, int64_t position, int64_t key)
{
    int64_t before = position - key;
    return (p->window_left == WINDOW_OPEN || before <= p->window_left) &&
           (p->window_right == WINDOW_OPEN || -before <= p->window_right);
}

static void each_key(void **state)
{
    (void)state;
    for (int n = 0; n < 6 * 6 * 2; n++) {
        struct problem p = {.window_left = windows[n % 6], .window_right = windows[n / 6 % 6]};
        p.a.align = n < 6 * 6 ? RAPT_BOTTOM_RIGHT : RAPT_TOP_LEFT;
        for (int64_t queries = 1; queries <= LONGEST; queries++)
            for (int64_t keys = 0; keys <= LONGEST; keys++)
                for (int64_t query = 0; query < queries; query++) {
                    int64_t position = query + (n < 6 * 6 ? keys - queries : 0), first, last;
                    visible_keys(&p, query, queries, keys, &first, &last);
                    assert_true(0 <= first && first <= last && last <= keys);
                    for (int64_t key = 0; key < keys; key++)
                        assert_int_equal(first <= key && key < last, is_visible(&p, position, key));
                }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_key)};
    return run_group("visible keys", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
