/* error.c: the thread-local error sentence. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[1024];

#undef fail
rapt_status fail(rapt_status status, const char *format, ...)
{
    /* A caller may pass the old sentence as an argument, so the new one is built beside it. */
    char text[sizeof sentence];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(sentence, text, sizeof sentence);
    return status;
}

const char *last_error(void)
{
    return sentence;
}
