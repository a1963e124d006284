/* alloc.h: host memory of the library: zeroed, 64-byte aligned, sizes checked for overflow. */
#ifndef RAPT_BASE_ALLOC_H
#define RAPT_BASE_ALLOC_H

#include <stddef.h>

/* count * size bytes, zeroed, 64-byte aligned; NULL when memory is out or the product overflows.
 * Freed with free(). */
void *alloc_zeroed(size_t count, size_t size);
/* The same, not zeroed. */
void *alloc_bytes(size_t bytes);
/* The same, for arrays that are walked through: in pages of 2 MiB from 8 MiB on, where the system
 * has them. Each page of 4 KiB begins with a translation that no prefetcher hides. */
void *alloc_large(size_t bytes);

#endif
