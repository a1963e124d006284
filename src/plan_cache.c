/* plan_cache.c: the plans and workspaces that rapt_forward keeps on a device. */
#include "base/alloc.h"
#include "base/error.h"
#include "plan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PLAN_CACHE_SIZE = 64 };

/* Work of two streams may run at once, so a workspace stays with the stream that used it first. */
struct plan_workspace {
    struct plan_workspace *next;
    void *memory;
    rapt_stream stream;
    uint64_t thread; /* whose stream it is, where the handle means another one in each; else 0 */
    bool taken;
};

struct plan_entry {
    struct plan_entry *next;
    rapt_plan *plan;
    char *kernel; /* as asked; NULL: any */
    struct plan_workspace *workspaces;
    int users;
    uint64_t used_at;
};

struct plan_cache {
    pthread_mutex_t lock;
    struct plan_entry *entries;
    int count;
    uint64_t clock;
};

struct plan_cache *plan_cache_create(void)
{
    struct plan_cache *cache = alloc_zeroed(1, sizeof *cache);
    if (cache && pthread_mutex_init(&cache->lock, NULL)) {
        free(cache);
        cache = NULL;
    }
    return cache;
}

static void entry_free(rapt_device *device, struct plan_entry *entry)
{
    for (struct plan_workspace *w = entry->workspaces, *next; w; w = next) {
        next = w->next;
        device->backend->free(device, w->memory);
        free(w);
    }
    plan_destroy(entry->plan);
    free(entry->kernel);
    free(entry);
}

void plan_cache_destroy(rapt_device *device)
{
    struct plan_cache *cache = device->cache;
    if (!cache) return;
    for (struct plan_entry *entry = cache->entries, *next; entry; entry = next) {
        next = entry->next;
        entry_free(device, entry);
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache);
    device->cache = NULL;
}

/* A number of this thread that no other thread has had. */
static uint64_t thread_number(void)
{
    static atomic_uint_least64_t threads;
    static _Thread_local uint64_t own;
    if (!own) own = atomic_fetch_add(&threads, 1) + 1;
    return own;
}

static bool same_name(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static struct plan_entry *find(struct plan_cache *cache, const struct problem *p)
{
    for (struct plan_entry *e = cache->entries; e; e = e->next)
        if (same_name(e->kernel, p->kernel) &&
            /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): no padding */
            !memcmp(&e->plan->problem.asked, &p->asked, sizeof p->asked))
            return e;
    return NULL;
}

/* Frees the least recently used entry that nobody uses, but for one (NULL: any). False: there is
 * none. */
static bool evict(rapt_device *device, struct plan_cache *cache, const struct plan_entry *kept)
{
    struct plan_entry **oldest = NULL;
    for (struct plan_entry **at = &cache->entries; *at; at = &(*at)->next)
        if (!(*at)->users && *at != kept && (!oldest || (*at)->used_at < (*oldest)->used_at))
            oldest = at;
    if (!oldest) return false;
    struct plan_entry *entry = *oldest;
    *oldest = entry->next;
    cache->count--;
    entry_free(device, entry);
    return true;
}

/* Frees the workspaces of an entry that nobody uses: of streams, or threads, that may have ended. False: there
 * is none. */
static bool free_idle(rapt_device *device, struct plan_entry *entry)
{
    bool found = false;
    for (struct plan_workspace **at = &entry->workspaces; *at;) {
        struct plan_workspace *w = *at;
        if (w->taken) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        device->backend->free(device, w->memory);
        free(w);
        found = true;
    }
    return found;
}

static rapt_status add(rapt_device *device, const struct problem *p, struct plan_entry **out)
{
    struct plan_cache *cache = device->cache;
    const char *kernel = p->kernel;
    if (cache->count >= PLAN_CACHE_SIZE) evict(device, cache, NULL);
    struct plan_entry *entry = alloc_zeroed(1, sizeof *entry);
    char *name = kernel ? alloc_zeroed(1, strlen(kernel) + 1) : NULL;
    if (!entry || (kernel && !name)) {
        free(entry);
        free(name);
        return fail(RAPT_NO_MEMORY, "rapt_forward: no memory to keep a plan");
    }
    if (name) memcpy(name, kernel, strlen(kernel) + 1);
    entry->kernel = name;
    rapt_status status = plan_build(device, p, "rapt_forward", &entry->plan);
    if (status) {
        entry_free(device, entry);
        return status;
    }
    entry->next = cache->entries;
    cache->entries = entry;
    cache->count++;
    *out = entry;
    return RAPT_OK;
}

static rapt_status take_workspace(rapt_device *device, struct plan_entry *entry, rapt_stream stream,
                                  struct plan_workspace **out)
{
    const struct backend *backend = device->backend;
    if (!backend->thread_stream) stream = NULL;
    uint64_t thread = stream && stream == backend->thread_stream ? thread_number() : 0;
    *out = NULL;
    if (!entry->plan->workspace_size) return RAPT_OK;
    for (struct plan_workspace *w = entry->workspaces; w; w = w->next)
        if (!w->taken && w->stream == stream && w->thread == thread) {
            *out = w;
            return RAPT_OK;
        }
    struct plan_workspace *w = alloc_zeroed(1, sizeof *w);
    if (!w) return fail(RAPT_NO_MEMORY, "rapt_forward: no memory to keep a workspace");
    rapt_status status;
    do status = backend->alloc(device, entry->plan->workspace_size, &w->memory);
    while (status == RAPT_NO_MEMORY &&
           (evict(device, device->cache, entry) || free_idle(device, entry)));
    if (status) {
        free(w);
        return status;
    }
    w->stream = stream;
    w->thread = thread;
    w->next = entry->workspaces;
    entry->workspaces = w;
    *out = w;
    return RAPT_OK;
}

rapt_status plan_cache_take(rapt_device *device, const struct problem *p, rapt_stream stream,
                            struct cached_plan *out)
{
    struct plan_cache *cache = device->cache;
    rapt_status status = RAPT_OK;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&cache->lock);
    struct plan_entry *entry = find(cache, p);
    if (!entry) status = add(device, p, &entry);
    if (!status) status = take_workspace(device, entry, stream, &out->slot);
    if (!status) {
        entry->users++;
        entry->used_at = ++cache->clock;
        out->entry = entry;
        out->plan = entry->plan;
        if (out->slot) {
            out->slot->taken = true;
            out->workspace = out->slot->memory;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return status;
}

void plan_cache_return(rapt_device *device, const struct cached_plan *taken)
{
    struct plan_cache *cache = device->cache;
    pthread_mutex_lock(&cache->lock);
    taken->entry->users--;
    if (taken->slot) taken->slot->taken = false;
    pthread_mutex_unlock(&cache->lock);
}
