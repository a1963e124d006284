/* dynlib.h: shared libraries opened at run time, their symbols looked up by list. */
#ifndef RAPT_BASE_DYNLIB_H
#define RAPT_BASE_DYNLIB_H

#include <stddef.h>

/* One function pointer of a struct that dynlib_resolve fills. */
struct dynlib_symbol {
    const char *name;
    size_t offset; /* of the pointer in the struct */
    int optional;  /* 1: NULL when the library lacks it */
};

/* Opens the first of paths (ended by NULL; one at least) that opens, or NULL with the reason, said
 * once for neighbours that share it: "libx.so.1, libx.so: cannot open ...". Closed with
 * dynlib_close; its code stays loaded even then, since drivers start threads and register handlers
 * that run at exit. */
void *dynlib_open(const char *const *paths, char *reason, size_t size);
/* The first of paths that the process has loaded already, or NULL. Closed with dynlib_close. */
void *dynlib_loaded(const char *const *paths);
/* Fills table from count symbols; 0 when a symbol that is not optional is missing, with the reason:
 * "the library has no f (...)". */
int dynlib_resolve(void *library, const struct dynlib_symbol *symbols, size_t count, void *table,
                   char *reason, size_t size);
void dynlib_close(void *library);

#endif
