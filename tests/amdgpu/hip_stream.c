/* Emulated HIP runtime: streams, events, capture and graphs. Work is done when it is submitted; a
   capturing stream records it instead. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hip.h"

enum { STREAM_MAGIC = 0x73747265, EVENT_MAGIC = 0x6576656e, GRAPH_MAGIC = 0x67726170 };

struct graph {
    uint32_t magic;
    struct work *works;
    int count;
};

struct stream {
    uint32_t magic;
    bool capturing;
    struct graph *graph;
};

struct event {
    uint32_t magic;
    bool recorded;
    struct timespec at;
};

HIP_API hip_error hipStreamCreate(void **);
HIP_API hip_error hipStreamCreateWithFlags(void **, unsigned);
HIP_API hip_error hipStreamCreateWithPriority(void **, unsigned, int);
HIP_API hip_error hipStreamDestroy(void *);
HIP_API hip_error hipStreamSynchronize(void *);
HIP_API hip_error hipStreamQuery(void *);
HIP_API hip_error hipStreamWaitEvent(void *, void *, unsigned);
HIP_API hip_error hipEventCreate(void **);
HIP_API hip_error hipEventCreateWithFlags(void **, unsigned);
HIP_API hip_error hipEventRecord(void *, void *);
HIP_API hip_error hipEventSynchronize(void *);
HIP_API hip_error hipEventQuery(void *);
HIP_API hip_error hipEventElapsedTime(float *, void *, void *);
HIP_API hip_error hipEventDestroy(void *);
HIP_API hip_error hipStreamBeginCapture(void *, int);
HIP_API hip_error hipStreamEndCapture(void *, void **);
HIP_API hip_error hipStreamIsCapturing(void *, int *);
HIP_API hip_error hipGraphInstantiate(void **, void *, void **, char *, size_t);
HIP_API hip_error hipGraphInstantiateWithFlags(void **, void *, unsigned long long);
HIP_API hip_error hipGraphLaunch(void *, void *);
HIP_API hip_error hipGraphDestroy(void *);
HIP_API hip_error hipGraphExecDestroy(void *);
HIP_API hip_error hipGraphGetNodes(void *, void **, size_t *);

/* NULL, 1 (legacy) and 2 (per thread) are the default streams. */
static struct stream *own_stream(void *handle)
{
    return (uintptr_t)handle > 2 ? handle : NULL;
}

bool hip_is_stream(void *handle)
{
    const struct stream *s = own_stream(handle);
    return !s || s->magic == STREAM_MAGIC;
}

bool hip_is_capturing(void *handle)
{
    const struct stream *s = own_stream(handle);
    return s && s->capturing;
}

hip_error hip_perform(const struct work *w)
{
    if (w->kind == WORK_LAUNCH) return hip_launch_now(&w->dispatch);
    if (w->kind == WORK_COPY) {
        memmove(w->to, w->from, w->bytes);
        return hipSuccess;
    }
    for (size_t i = 0; i < w->bytes; i += w->value_size)
        memcpy((char *)w->to + i, &w->value, w->value_size);
    return hipSuccess;
}

/* Appends a copy of the work; launch arguments are copied too. */
static bool append(struct graph *g, const struct work *w)
{
    struct work *grown = realloc(g->works, (size_t)(g->count + 1) * sizeof *grown);
    if (!grown) return false;
    g->works = grown;
    grown[g->count] = *w;
    if (w->kind == WORK_LAUNCH) {
        void *args = malloc(w->dispatch.args_size + 1);
        if (!args) return false;
        memcpy(args, w->dispatch.args, w->dispatch.args_size);
        grown[g->count].dispatch.args = args;
    }
    g->count++;
    return true;
}

hip_error hip_submit(void *handle, const struct work *w)
{
    struct stream *s = own_stream(handle);
    struct hip_state *state = hip_state();
    if (s && s->capturing) return append(s->graph, w) ? hipSuccess : hipErrorOutOfMemory;
    /* the default stream waits for every other stream, which a capture forbids */
    if (!s && __atomic_load_n(&state->captures, __ATOMIC_SEQ_CST))
        return hipErrorStreamCaptureUnsupported;
    return hip_perform(w);
}

static void free_graph(struct graph *g)
{
    for (int i = 0; i < g->count; i++)
        if (g->works[i].kind == WORK_LAUNCH) free((void *)(uintptr_t)g->works[i].dispatch.args);
    free(g->works);
    g->magic = 0;
    free(g);
}

hip_error hipStreamCreate(void **out)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!out) return hip_note(hipErrorInvalidValue);
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return hip_note(hipErrorOutOfMemory);
    s->magic = STREAM_MAGIC;
    *out = s;
    return hipSuccess;
}

hip_error hipStreamCreateWithFlags(void **out, unsigned flags)
{
    return flags > 1 ? hip_note(hipErrorInvalidValue) : hipStreamCreate(out);
}

hip_error hipStreamCreateWithPriority(void **out, unsigned flags, int priority)
{
    (void)priority;
    return hipStreamCreateWithFlags(out, flags);
}

hip_error hipStreamDestroy(void *handle)
{
    struct stream *s = own_stream(handle);
    if (!s || s->magic != STREAM_MAGIC) return hip_note(hipErrorInvalidHandle);
    if (s->capturing) {
        __atomic_fetch_sub(&hip_state()->captures, 1, __ATOMIC_SEQ_CST);
        free_graph(s->graph);
    }
    s->magic = 0;
    free(s);
    return hipSuccess;
}

hip_error hipStreamSynchronize(void *handle)
{
    if (!hip_state()) return hip_note(hipErrorNoDevice);
    if (!hip_is_stream(handle)) return hip_note(hipErrorInvalidHandle);
    return hip_note(hip_is_capturing(handle) ? hipErrorStreamCaptureUnsupported : hipSuccess);
}

hip_error hipStreamQuery(void *handle)
{
    return hipStreamSynchronize(handle);
}

hip_error hipStreamWaitEvent(void *handle, void *event, unsigned flags)
{
    const struct event *e = event;
    (void)flags;
    return hip_note(hip_is_stream(handle) && e && e->magic == EVENT_MAGIC ? hipSuccess
                                                                          : hipErrorInvalidHandle);
}

hip_error hipEventCreateWithFlags(void **out, unsigned flags)
{
    (void)flags;
    if (!out) return hip_note(hipErrorInvalidValue);
    struct event *e = calloc(1, sizeof *e);
    if (!e) return hip_note(hipErrorOutOfMemory);
    e->magic = EVENT_MAGIC;
    *out = e;
    return hipSuccess;
}

hip_error hipEventCreate(void **out)
{
    return hipEventCreateWithFlags(out, 0);
}

hip_error hipEventRecord(void *event, void *stream)
{
    struct event *e = event;
    if (!e || e->magic != EVENT_MAGIC || !hip_is_stream(stream))
        return hip_note(hipErrorInvalidHandle);
    e->recorded = true;
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return hipSuccess;
}

hip_error hipEventSynchronize(void *event)
{
    const struct event *e = event;
    return hip_note(e && e->magic == EVENT_MAGIC ? hipSuccess : hipErrorInvalidHandle);
}

hip_error hipEventQuery(void *event)
{
    return hipEventSynchronize(event);
}

hip_error hipEventElapsedTime(float *milliseconds, void *start, void *stop)
{
    const struct event *a = start, *b = stop;
    if (!milliseconds) return hip_note(hipErrorInvalidValue);
    if (!a || !b || a->magic != EVENT_MAGIC || b->magic != EVENT_MAGIC || !a->recorded ||
        !b->recorded)
        return hip_note(hipErrorInvalidHandle);
    *milliseconds = (float)(1e3 * (double)(b->at.tv_sec - a->at.tv_sec) +
                            1e-6 * (double)(b->at.tv_nsec - a->at.tv_nsec));
    return hipSuccess;
}

hip_error hipEventDestroy(void *event)
{
    struct event *e = event;
    if (!e || e->magic != EVENT_MAGIC) return hip_note(hipErrorInvalidHandle);
    e->magic = 0;
    free(e);
    return hipSuccess;
}

hip_error hipStreamBeginCapture(void *handle, int mode)
{
    struct stream *s = own_stream(handle);
    if (mode < 0 || mode > 2) return hip_note(hipErrorInvalidValue);
    if (!s) return hip_note(hipErrorStreamCaptureUnsupported);
    if (s->magic != STREAM_MAGIC || s->capturing) return hip_note(hipErrorInvalidHandle);
    s->graph = calloc(1, sizeof *s->graph);
    if (!s->graph) return hip_note(hipErrorOutOfMemory);
    s->graph->magic = GRAPH_MAGIC;
    s->capturing = true;
    __atomic_fetch_add(&hip_state()->captures, 1, __ATOMIC_SEQ_CST);
    return hipSuccess;
}

hip_error hipStreamEndCapture(void *handle, void **graph)
{
    struct stream *s = own_stream(handle);
    if (!graph) return hip_note(hipErrorInvalidValue);
    if (!s || s->magic != STREAM_MAGIC || !s->capturing)
        return hip_note(hipErrorStreamCaptureUnmatched);
    s->capturing = false;
    __atomic_fetch_sub(&hip_state()->captures, 1, __ATOMIC_SEQ_CST);
    *graph = s->graph;
    s->graph = NULL;
    return hipSuccess;
}

hip_error hipStreamIsCapturing(void *handle, int *status)
{
    if (!status || !hip_is_stream(handle)) return hip_note(hipErrorInvalidValue);
    *status = hip_is_capturing(handle);
    return hipSuccess;
}

hip_error hipGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags)
{
    const struct graph *g = graph;
    (void)flags;
    if (!exec || !g || g->magic != GRAPH_MAGIC) return hip_note(hipErrorInvalidValue);
    struct graph *copy = calloc(1, sizeof *copy);
    if (!copy) return hip_note(hipErrorOutOfMemory);
    copy->magic = GRAPH_MAGIC;
    for (int i = 0; i < g->count; i++)
        if (!append(copy, &g->works[i])) {
            free_graph(copy);
            return hip_note(hipErrorOutOfMemory);
        }
    *exec = copy;
    return hipSuccess;
}

hip_error hipGraphInstantiate(void **exec, void *graph, void **node, char *log, size_t log_size)
{
    if (node) *node = NULL;
    if (log && log_size) *log = 0;
    return hipGraphInstantiateWithFlags(exec, graph, 0);
}

hip_error hipGraphLaunch(void *exec, void *stream)
{
    const struct graph *g = exec;
    if (!g || g->magic != GRAPH_MAGIC || !hip_is_stream(stream))
        return hip_note(hipErrorInvalidHandle);
    for (int i = 0; i < g->count; i++) {
        hip_error e = hip_submit(stream, &g->works[i]);
        if (e) return hip_note(e);
    }
    return hipSuccess;
}

hip_error hipGraphDestroy(void *graph)
{
    struct graph *g = graph;
    if (!g || g->magic != GRAPH_MAGIC) return hip_note(hipErrorInvalidValue);
    free_graph(g);
    return hipSuccess;
}

hip_error hipGraphExecDestroy(void *exec)
{
    return hipGraphDestroy(exec);
}

/* Only the count; nodes have no handles of their own here. */
hip_error hipGraphGetNodes(void *graph, void **nodes, size_t *count)
{
    const struct graph *g = graph;
    if (!g || g->magic != GRAPH_MAGIC || !count) return hip_note(hipErrorInvalidValue);
    if (nodes) return hip_note(hipErrorNotSupported);
    *count = (size_t)g->count;
    return hipSuccess;
}
