/* alloc.c: host memory of the library. */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGNMENT = 64, /* a cache line, and the widest vector register */
    LARGE_PAGE = 2 << 20,
    LARGE_LEAST = 4 * LARGE_PAGE, /* rounding up costs a quarter of it at most */
};

void *alloc_bytes(size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGNMENT) return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, rounded ? rounded : ALIGNMENT);
}

void *alloc_large(size_t bytes)
{
#if defined(MADV_HUGEPAGE)
    if (bytes >= LARGE_LEAST && bytes <= SIZE_MAX - LARGE_PAGE) {
        size_t rounded = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
        void *memory = aligned_alloc(LARGE_PAGE, rounded);
        /* A request only: pages of any size are right. */
        if (memory) (void)madvise(memory, rounded, MADV_HUGEPAGE);
        return memory;
    }
#endif
    return alloc_bytes(bytes);
}

void *alloc_zeroed(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size) return NULL;
    void *memory = alloc_bytes(count * size);
    if (memory) memset(memory, 0, count * size);
    return memory;
}
