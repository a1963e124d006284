/* cmocka.c: the few functions of cmocka that the tests call, for architectures whose cmocka cannot be
 * installed beside the host's. Prints TAP as cmocka does; a test ends at its first failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static jmp_buf test_end;
static int in_test;

void print_message(const char *const format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}

void print_error(const char *const format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("# ");
    vprintf(format, arguments);
    va_end(arguments);
}

void _fail(const char *const file, const int line)
{
    print_error("%s:%d: failed\n", file, line);
    fflush(stdout);
    if (in_test) longjmp(test_end, 1);
}

void _assert_true(const LargestIntegralType result, const char *const expression,
                  const char *const file, const int line)
{
    if (result) return;
    print_error("%s\n", expression);
    _fail(file, line);
}

void _assert_int_equal(const LargestIntegralType a, const LargestIntegralType b,
                       const char *const file, const int line)
{
    if (a == b) return;
    print_error("%#llx != %#llx\n", (unsigned long long)a, (unsigned long long)b);
    _fail(file, line);
}

void _assert_string_equal(const char *const a, const char *const b, const char *const file,
                          const int line)
{
    if (!strcmp(a, b)) return;
    print_error("\"%s\" != \"%s\"\n", a, b);
    _fail(file, line);
}

void _assert_string_not_equal(const char *const a, const char *const b, const char *file,
                              const int line)
{
    if (strcmp(a, b)) return;
    print_error("\"%s\" twice\n", a);
    _fail(file, line);
}

void _assert_memory_equal(const void *const a, const void *const b, const size_t size,
                          const char *const file, const int line)
{
    if (!memcmp(a, b, size)) return;
    print_error("%zu bytes differ\n", size);
    _fail(file, line);
}

/* 0, or 1: it failed. */
static int run(const struct CMUnitTest *test)
{
    void *state = test->initial_state;
    if (setjmp(test_end)) {
        in_test = 0;
        return 1;
    }
    in_test = 1;
    if (test->setup_func && test->setup_func(&state)) _fail(test->name, 0);
    test->test_func(&state);
    if (test->teardown_func && test->teardown_func(&state)) _fail(test->name, 0);
    in_test = 0;
    return 0;
}

int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *const tests,
                            const size_t count, CMFixtureFunction setup, CMFixtureFunction teardown)
{
    void *state = NULL;
    int failed = 0;
    printf("1..%zu\n# %s\n", count, group);
    if (setup && setup(&state)) return (int)count;
    for (size_t i = 0; i < count; i++) {
        int bad = run(&tests[i]);
        printf("%sok %zu - %s\n", bad ? "not " : "", i + 1, tests[i].name);
        fflush(stdout);
        failed += bad;
    }
    if (teardown && teardown(&state)) failed++;
    return failed;
}
