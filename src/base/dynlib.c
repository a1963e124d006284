/* dynlib.c: dlopen and dlsym by list, with sentences. */
#include "base/dynlib.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Adds to a text of *length characters in size bytes, as much as there is room for. */
__attribute__((format(printf, 4, 5))) static void append(char *text, size_t size, size_t *length,
                                                         const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(text + *length, size - *length, format, arguments);
    va_end(arguments);
    if (written > 0 && size > *length + 1)
        *length += (size_t)written < size - *length ? (size_t)written : size - *length - 1;
}

/* dlerror's sentence without the path that it begins with. */
static const char *failure_of(const char *path)
{
    const char *text = dlerror();
    size_t length = strlen(path);
    if (!text) return "cannot be opened";
    return strncmp(text, path, length) || strncmp(text + length, ": ", 2) ? text
                                                                          : text + length + 2;
}

void *dynlib_open(const char *const *paths, char *reason, size_t size)
{
    char last[256] = ""; /* the failure of the paths listed last, which stands behind them */
    size_t length = 0;
    for (int first = 1; *paths; paths++, first = 0) {
        void *library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (library) return library;
        const char *failure = failure_of(*paths);
        int same = !strncmp(failure, last, sizeof last - 1);
        if (!first && same) append(reason, size, &length, ", %s", *paths);
        else if (!first) append(reason, size, &length, ": %s; %s", last, *paths);
        else append(reason, size, &length, "%s", *paths);
        snprintf(last, sizeof last, "%s", failure);
    }
    append(reason, size, &length, ": %s", last);
    return NULL;
}

void *dynlib_loaded(const char *const *paths)
{
    void *library = NULL;
    for (; *paths && !library; paths++)
        library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_NOLOAD);
    return library;
}

int dynlib_resolve(void *library, const struct dynlib_symbol *symbols, size_t count, void *table,
                   char *reason, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (!address && !symbols[i].optional) {
            snprintf(reason, size, "the library has no %s (it is too old or no driver)",
                     symbols[i].name);
            return 0;
        }
        /* POSIX gives a function as void *; the copy avoids the cast that ISO C lacks. */
        memcpy((char *)table + symbols[i].offset, &address, sizeof address);
    }
    return 1;
}

void dynlib_close(void *library)
{
    if (library) dlclose(library);
}
