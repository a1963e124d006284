/* dynlib.c: dlopen and dlsym by list, with sentences. */
#include "base/dynlib.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

void *dynlib_open(const char *const *paths, char *reason, size_t size)
{
    size_t length = 0;
    if (size) *reason = 0;
    for (; *paths; paths++) {
        void *library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (library) return library;
        const char *why = dlerror();
        int written = snprintf(reason + length, size - length, "%s%s", length ? "; " : "",
                               why ? why : *paths);
        length += written < 0                       ? 0
                  : (size_t)written < size - length ? (size_t)written
                                                    : size - length - 1;
    }
    return NULL;
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
