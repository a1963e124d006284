/* group.h: the end of a test program's main: --list prints the names of its tests
 * (tests/requirements.t reads them), else they run. Include after cmocka.h. */
#ifndef RAPT_TESTS_GROUP_H
#define RAPT_TESTS_GROUP_H

#include <stdio.h>
#include <string.h>

/* Ends the test, which passes: this machine lacks what it needs. cmocka's own way is a "not ok", which
 * fails the whole program. */
#define skip_test(reason)                                                                          \
    do {                                                                                           \
        print_message("# %s: skipped\n", reason);                                                  \
        return;                                                                                    \
    } while (0)

static inline int run_group(const char *group, const struct CMUnitTest *tests, size_t count,
                            CMFixtureFunction setup, CMFixtureFunction teardown, int argc,
                            char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--list")) {
        for (size_t i = 0; i < count; i++) printf("%s\n", tests[i].name);
        return 0;
    }
    return _cmocka_run_group_tests(group, tests, count, setup, teardown) != 0;
}

#endif
