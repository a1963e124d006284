/* error.c: the thread-local error sentence. */
#include "base/error.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[1024];

#undef fail
rapt_status fail(rapt_status status, const char *format, ...)
{
    /* A caller may pass the old sentence as an argument, so the new one is built beside it. */
    char text[sizeof sentence];
    /* 0.5 in every program's locale; C libraries have "C" without an allocation. */
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    locale_t before = plain ? uselocale(plain) : (locale_t)0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (before) uselocale(before);
    if (plain) freelocale(plain);
    memcpy(sentence, text, sizeof sentence);
    return status;
}

const char *last_error(void)
{
    return sentence;
}
