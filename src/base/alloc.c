/* alloc.c: host memory of the library. */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector register */

void *alloc_bytes(size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGNMENT) return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, rounded ? rounded : ALIGNMENT);
}

void *alloc_zeroed(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size) return NULL;
    void *memory = alloc_bytes(count * size);
    if (memory) memset(memory, 0, count * size);
    return memory;
}
