/* Registered memory: which host addresses a kernel may touch. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "emu.h"

struct amdgpu_memory {
    pthread_rwlock_t lock;       /* held for reading during a launch */
    struct amdgpu_range *ranges; /* sorted by base, disjoint */
    int count, capacity;
};

struct amdgpu_memory *amdgpu_memory_open(void)
{
    struct amdgpu_memory *m = calloc(1, sizeof *m);
    if (m) pthread_rwlock_init(&m->lock, NULL);
    return m;
}

void amdgpu_memory_close(struct amdgpu_memory **memory)
{
    if (!*memory) return;
    pthread_rwlock_destroy(&(*memory)->lock);
    free((*memory)->ranges);
    free(*memory);
    *memory = NULL;
}

/* Index of the first range that starts above the address. */
static int upper_bound(const struct amdgpu_memory *m, uint64_t address)
{
    int low = 0, high = m->count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (m->ranges[middle].base <= address) low = middle + 1;
        else high = middle;
    }
    return low;
}

bool amdgpu_memory_add(struct amdgpu_memory *m, const void *base, size_t size, const char *what)
{
    bool ok = true;
    pthread_rwlock_wrlock(&m->lock);
    if (m->count == m->capacity) {
        int capacity = m->capacity ? 2 * m->capacity : 64;
        struct amdgpu_range *grown = realloc(m->ranges, (size_t)capacity * sizeof *grown);
        ok = grown != NULL;
        if (ok) {
            m->ranges = grown;
            m->capacity = capacity;
        }
    }
    if (ok) {
        int at = upper_bound(m, (uint64_t)(uintptr_t)base);
        memmove(m->ranges + at + 1, m->ranges + at, (size_t)(m->count - at) * sizeof *m->ranges);
        m->ranges[at] = (struct amdgpu_range){(uint64_t)(uintptr_t)base, size, what};
        m->count++;
    }
    pthread_rwlock_unlock(&m->lock);
    return ok;
}

bool amdgpu_memory_remove(struct amdgpu_memory *m, const void *base)
{
    pthread_rwlock_wrlock(&m->lock);
    int at = upper_bound(m, (uint64_t)(uintptr_t)base) - 1;
    bool found = at >= 0 && m->ranges[at].base == (uint64_t)(uintptr_t)base;
    if (found) {
        memmove(m->ranges + at, m->ranges + at + 1,
                (size_t)(m->count - at - 1) * sizeof *m->ranges);
        m->count--;
    }
    pthread_rwlock_unlock(&m->lock);
    return found;
}

/* The last range that starts at or below the address; it need not contain it. Only during a launch,
   which holds the lock. */
const struct amdgpu_range *memory_find(const struct amdgpu_memory *m, uint64_t address)
{
    int at = upper_bound(m, address) - 1;
    return at < 0 ? NULL : &m->ranges[at];
}

void memory_hold(struct amdgpu_memory *m)
{
    pthread_rwlock_rdlock(&m->lock);
}

void memory_release(struct amdgpu_memory *m)
{
    pthread_rwlock_unlock(&m->lock);
}

static bool inside(const struct amdgpu_range *r, uint64_t low, uint64_t high)
{
    return r && low >= r->base && high <= r->base + r->size && low <= high;
}

/* Are all of [low, high) in one allocation? Remembers it for the next call. */
bool global_span(struct wave *w, uint64_t low, uint64_t high)
{
    struct worker *k = w->worker;
    if (inside(k->last, low, high)) return true;
    const struct amdgpu_range *r = memory_find(k->launch->memory, low);
    if (!inside(r, low, high)) return false;
    k->last = r;
    return true;
}

/* Host pointer of a checked address. */
uint8_t *global_at(struct wave *w, const struct inst *in, uint64_t address, uint32_t bytes,
                   int lane)
{
    (void)in;
    if (global_span(w, address, address + bytes)) return (uint8_t *)(uintptr_t)address;
    const struct amdgpu_range *r = memory_find(w->worker->launch->memory, address);
    if (!r)
        fault(w, "lane %d accesses %u bytes at 0x%llx, which is in no allocation", lane, bytes,
              (unsigned long long)address);
    fault(w,
          "lane %d accesses %u bytes at 0x%llx, out of bounds: the nearest allocation below (%s) "
          "has %llu bytes "
          "and this is byte %llu of it",
          lane, bytes, (unsigned long long)address, r->what, (unsigned long long)r->size,
          (unsigned long long)(address - r->base));
}
