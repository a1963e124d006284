/* sentences.c: linked with --wrap=fail, notes which of the library's error sentences a test program met: with
 * RAPT_SENTENCES=FILE each one's format is appended to FILE, one a line, the first time it is used; of
 * "function: rule" the rule. */
#include "base/error.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

rapt_status __real_fail(rapt_status status, const char *format, ...);
rapt_status __wrap_fail(rapt_status status, const char *format, ...);

enum { MOST = 512 };
static _Atomic(const char *) met[MOST];

/* 1 the first time; two equal literals of different files count twice, which does no harm. */
static int is_new(const char *format)
{
    for (int i = 0; i < MOST; i++) {
        const char *empty = NULL;
        if (atomic_compare_exchange_strong(&met[i], &empty, format)) return 1;
        if (empty == format) return 0;
    }
    return 1;
}

static void note(const char *path, const char *format)
{
    char line[1024];
    int length = snprintf(line, sizeof line, "%s\n", format);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, line, (size_t)length) != length) abort();
    close(file);
}

rapt_status __wrap_fail(rapt_status status, const char *format, ...)
{
    const char *path = getenv("RAPT_SENTENCES");
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (path && !strcmp(format, "%s: %s")) note(path, strchr(text, ':') + 2);
    else if (path && is_new(format)) note(path, format);
    return __real_fail(status, "%s", text);
}
