/* plan.h: who can do what is asked: walks a device's kernels, keeps the reasons, remembers plans
 * for rapt_forward. */
#ifndef RAPT_PLAN_H
#define RAPT_PLAN_H

#include "backend.h"

/* Builds a plan for a checked problem with the first kernel that serves it, of those that it asks
 * for by name. */
rapt_status plan_build(rapt_device *device, const struct problem *asked, const char *function,
                       rapt_plan **out);
void plan_destroy(rapt_plan *plan);
/* One line for each kernel up to the one that runs. As snprintf: returns the length of the whole
 * text. */
size_t plan_explain(rapt_device *device, const struct problem *asked, char *text, size_t size);

/* A plan and a workspace for one call of rapt_forward, from the device's cache or new. Give both
 * back with plan_cache_return. The cache holds some plans (plan_cache.c) and frees the least recently
 * used, also where memory ends. */
struct cached_plan {
    rapt_plan *plan;
    void *workspace;
    struct plan_entry *entry;
    struct plan_workspace *slot;
};
struct plan_cache *plan_cache_create(void);
void plan_cache_destroy(rapt_device *device);
rapt_status plan_cache_take(rapt_device *device, const struct problem *p, rapt_stream stream,
                            struct cached_plan *out);
void plan_cache_return(rapt_device *device, const struct cached_plan *taken);

#endif
