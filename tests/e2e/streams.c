/* streams.c: rapt on the streams, graphs and memory of a program that uses CUDA or HIP itself:
 * captured in a graph and replayed, on several streams and threads at once, and on several GPUs. */
#include "devices.h"

#include <dlfcn.h>
#include <pthread.h>

enum { BATCH = 2, HEADS = 8, KV_HEADS = 2, QUERIES = 64, KEYS = 160, CHANNELS = 64 };
enum {
    Q_BYTES = BATCH * HEADS * QUERIES * CHANNELS * 2,
    KV_BYTES = BATCH * KV_HEADS * KEYS * CHANNELS * 2
};

/* The program's own use of the driver; the two vendors' functions have the same form. */
struct native {
    void *library;
    int (*device_get)(int *, int);
    int (*retain)(void **, int);
    int (*set_current)(void *);
    int (*get_current)(void **);
    int (*release)(int);
    int (*stream_create)(void **, unsigned);
    int (*stream_destroy)(void *);
    int (*stream_wait)(void *);
    int (*begin)(void *, int);
    int (*end)(void *, void **);
    int (*instantiate)(void **, void *, unsigned long long);
    int (*replay)(void *, void *);
    int (*exec_destroy)(void *);
    int (*graph_destroy)(void *);
};

static const struct {
    const char *cuda, *hip;
    size_t field;
} functions[] = {
    {"cuDeviceGet", "hipDeviceGet", offsetof(struct native, device_get)},
    {"cuDevicePrimaryCtxRetain", "hipDevicePrimaryCtxRetain", offsetof(struct native, retain)},
    {"cuCtxSetCurrent", "hipCtxSetCurrent", offsetof(struct native, set_current)},
    {"cuCtxGetCurrent", "hipCtxGetCurrent", offsetof(struct native, get_current)},
    {"cuDevicePrimaryCtxRelease_v2", "hipDevicePrimaryCtxRelease",
     offsetof(struct native, release)},
    {"cuStreamCreate", "hipStreamCreateWithFlags", offsetof(struct native, stream_create)},
    {"cuStreamDestroy_v2", "hipStreamDestroy", offsetof(struct native, stream_destroy)},
    {"cuStreamSynchronize", "hipStreamSynchronize", offsetof(struct native, stream_wait)},
    {"cuStreamBeginCapture_v2", "hipStreamBeginCapture", offsetof(struct native, begin)},
    {"cuStreamEndCapture", "hipStreamEndCapture", offsetof(struct native, end)},
    {"cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags",
     offsetof(struct native, instantiate)},
    {"cuGraphLaunch", "hipGraphLaunch", offsetof(struct native, replay)},
    {"cuGraphExecDestroy", "hipGraphExecDestroy", offsetof(struct native, exec_destroy)},
    {"cuGraphDestroy", "hipGraphDestroy", offsetof(struct native, graph_destroy)},
};

static void native_open(struct native *n, const rapt_device *device)
{
    int cuda = !strcmp(info_of(device).backend, "cuda");
    const char *chosen = getenv(cuda ? "RAPT_CUDA_LIBRARY" : "RAPT_HIP_LIBRARY");
    n->library = dlopen(chosen && *chosen ? chosen
                        : cuda            ? "libcuda.so.1"
                                          : "libamdhip64.so",
                        RTLD_NOW);
    assert_non_null(n->library);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *address = dlsym(n->library, cuda ? functions[i].cuda : functions[i].hip);
        if (!address) fail_msg("the driver has no %s", cuda ? functions[i].cuda : functions[i].hip);
        memcpy((char *)n + functions[i].field, &address, sizeof address);
    }
    int id;
    void *primary;
    assert_int_equal(n->device_get(&id, (int)info_of(device).index), 0);
    assert_int_equal(n->retain(&primary, id), 0);
    assert_int_equal(n->set_current(primary), 0);
}

static void native_close(struct native *n, const rapt_device *device)
{
    assert_int_equal(n->release((int)info_of(device).index), 0);
    dlclose(n->library);
}

/* One attention problem in device memory, f16; fill(seed) gives q other numbers. */
struct work {
    rapt_device *device;
    rapt_attention a;
    rapt_plan *plan;
    void *workspace;
    void *scores; /* not NULL: by pieces, with these between them */
    unsigned char host[Q_BYTES];
};

/* f16 in [-1, 1): the bits of a linear congruential generator (Knuth's MMIX constants). */
static void *random_f16(uint16_t *to, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        to[i] = (uint16_t)((seed >> 48 & 0x8000u) | (0x2c00u + (seed >> 40 & 0x0fffu)));
    }
    return to;
}

static void *device_f16(rapt_device *device, size_t bytes, uint64_t seed)
{
    void *memory = NULL;
    uint16_t *host = malloc(bytes);
    assert_non_null(host);
    expect_ok(rapt_alloc(device, bytes, &memory), device, "alloc");
    expect_ok(rapt_copy(device, memory, random_f16(host, bytes / 2, seed), bytes, NULL), device,
              "copy");
    free(host);
    return memory;
}

static void work_begin(struct work *w, rapt_device *device, const char *kernel)
{
    memset(w, 0, sizeof *w);
    w->device = device;
    w->a = (rapt_attention){.struct_size = sizeof w->a, .causal = 1, .kernel = kernel};
    w->a.q =
        rapt_tensor_bthd(device_f16(device, Q_BYTES, 1), RAPT_F16, BATCH, HEADS, QUERIES, CHANNELS);
    w->a.k = rapt_tensor_bthd(device_f16(device, KV_BYTES, 2), RAPT_F16, BATCH, KV_HEADS, KEYS,
                              CHANNELS);
    w->a.v = rapt_tensor_bthd(device_f16(device, KV_BYTES, 3), RAPT_F16, BATCH, KV_HEADS, KEYS,
                              CHANNELS);
    w->a.out =
        rapt_tensor_bthd(device_f16(device, Q_BYTES, 4), RAPT_F16, BATCH, HEADS, QUERIES, CHANNELS);
    expect_ok(rapt_plan_create(&w->plan, device, &w->a), device, "plan");
    expect_ok(rapt_alloc(device, rapt_plan_workspace_size(w->plan), &w->workspace), device,
              "workspace");
}

static void work_end(struct work *w)
{
    rapt_plan_destroy(&w->plan);
    rapt_free(w->device, w->workspace);
    rapt_free(w->device, w->scores);
    rapt_free(w->device, w->a.q.data);
    rapt_free(w->device, w->a.k.data);
    rapt_free(w->device, w->a.v.data);
    rapt_free(w->device, w->a.out.data);
}

static void set_q(struct work *w, uint64_t seed)
{
    expect_ok(rapt_copy(w->device, w->a.q.data, random_f16((uint16_t *)w->host, Q_BYTES / 2, seed),
                        Q_BYTES, NULL),
              w->device, "q");
}

/* What lies in out, after spoiling it if clear is set. */
static const unsigned char *out_of(struct work *w, int clear)
{
    memset(w->host, 0xff, Q_BYTES);
    if (clear)
        expect_ok(rapt_copy(w->device, w->a.out.data, w->host, Q_BYTES, NULL), w->device, "clear");
    expect_ok(rapt_copy(w->device, w->host, w->a.out.data, Q_BYTES, NULL), w->device, "out");
    return w->host;
}

static rapt_status run_pieces(const struct work *w, rapt_stream stream)
{
    rapt_qk_args qk = {.struct_size = sizeof qk, .q = w->a.q, .k = w->a.k};
    qk.out = rapt_tensor_bhtd(w->scores, RAPT_F16, BATCH, HEADS, QUERIES, KEYS);
    rapt_causal_mask_args mask = {.struct_size = sizeof mask, .x = qk.out};
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = qk.out, .out = qk.out};
    rapt_pv_args pv = {.struct_size = sizeof pv, .weights = qk.out, .v = w->a.v, .out = w->a.out};
    rapt_status status = rapt_qk(w->device, &qk, stream);
    if (!status) status = rapt_causal_mask(w->device, &mask, stream);
    if (!status) status = rapt_causal_mask(w->device, &mask, stream);
    if (!status) status = rapt_softmax(w->device, &softmax, stream);
    return status ? status : rapt_pv(w->device, &pv, stream);
}

static rapt_status run_work(const struct work *w, rapt_stream stream)
{
    return w->scores ? run_pieces(w, stream)
                     : rapt_plan_execute(w->plan, &w->a, w->workspace, stream);
}

static void expected(struct work *w, unsigned char *to)
{
    expect_ok(run_work(w, NULL), w->device, "execute");
    expect_ok(rapt_synchronize(w->device, NULL), w->device, "synchronize");
    memcpy(to, out_of(w, 0), Q_BYTES);
}

/* Captured once, replayed with other data: the bits of a direct execute. */
static void replay(rapt_device *device, const char *kernel, bool by_pieces)
{
    struct native n;
    struct work w;
    void *stream, *graph, *exec;
    static unsigned char want[Q_BYTES];
    native_open(&n, device);
    work_begin(&w, device, kernel);
    if (by_pieces) {
        expect_ok(rapt_alloc(device, BATCH * HEADS * QUERIES * KEYS * 2, &w.scores), device,
                  "alloc");
        expected(&w, want); /* loads the code, which a capture cannot */
    }
    assert_int_equal(n.stream_create(&stream, 1), 0); /* not ordered after the default stream */
    assert_int_equal(n.begin(stream, 0), 0); /* the strictest mode: nothing unsafe on any thread */
    rapt_status status = run_work(&w, stream);
    assert_int_equal(n.end(stream, &graph), 0);
    expect_ok(status, device, "execute under capture");
    assert_int_equal(n.instantiate(&exec, graph, 0), 0);
    for (uint64_t seed = 10; seed < 14; seed++) {
        set_q(&w, seed);
        expected(&w, want);
        out_of(&w, 1);
        assert_int_equal(n.replay(exec, stream), 0);
        assert_int_equal(n.stream_wait(stream), 0);
        assert_memory_equal(out_of(&w, 0), want, Q_BYTES);
    }
    n.exec_destroy(exec);
    n.graph_destroy(graph);
    n.stream_destroy(stream);
    work_end(&w);
    native_close(&n, device);
}

static void graphs(void **state)
{
    (void)state;
    static const char *const kernels[] = {NULL, "flash", "composed"};
    for_each_device(device)
    {
        for (int i = 0; i < 3 && is_gpu(device); i++) replay(device, kernels[i], false);
        if (is_gpu(device)) replay(device, NULL, true);
    }
}

enum { THREADS = 4, ROUNDS = 8 };

struct lane {
    struct work work;
    const struct native *native;
    const unsigned char *want;
    rapt_status status;
    int same;
};

static void *run_lane(void *argument)
{
    struct lane *l = argument;
    void *stream = NULL;
    l->same = 1;
    rapt_device_info info = info_of(l->work.device);
    void *primary;
    if (l->native->retain(&primary, (int)info.index) || l->native->set_current(primary) ||
        l->native->stream_create(&stream, 1)) {
        l->status = RAPT_DRIVER;
        return NULL;
    }
    for (int i = 0; i < ROUNDS && !l->status; i++) {
        l->status = rapt_plan_execute(l->work.plan, &l->work.a, l->work.workspace, stream);
        if (!l->status) l->status = rapt_synchronize(l->work.device, stream);
        if (!l->status) l->same &= !memcmp(out_of(&l->work, 0), l->want, Q_BYTES);
    }
    l->native->stream_destroy(stream);
    l->native->release((int)info.index);
    return NULL;
}

/* Every thread has a stream, tensors, a plan and a workspace; all inputs are the same, so all
 * outputs are. */
static void threads(void **state)
{
    (void)state;
    static unsigned char want[Q_BYTES];
    for_each_device(device)
    {
        if (!is_gpu(device)) continue;
        static struct lane lanes[THREADS];
        struct native n;
        pthread_t ids[THREADS];
        memset(lanes, 0, sizeof lanes);
        native_open(&n, device);
        for (int i = 0; i < THREADS; i++) {
            work_begin(&lanes[i].work, device, NULL);
            lanes[i].native = &n;
            lanes[i].want = want;
        }
        expected(&lanes[0].work, want);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&ids[i], NULL, run_lane, &lanes[i]), 0);
        for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(lanes[i].status, RAPT_OK);
            assert_true(lanes[i].same);
            work_end(&lanes[i].work);
        }
        native_close(&n, device);
    }
}

enum { GPUS = 8, EACH = 2 };

static int gpus_under_test(rapt_device *gpus[GPUS])
{
    int count = 0;
    for_each_device(device) if (is_gpu(device) && count < GPUS) gpus[count++] = device;
    if (count < 2) print_message("# fewer than two GPUs here: skipped\n");
    return count < 2 ? 0 : count;
}

/* Threads of all GPUs at the same time, each with a stream of its own. */
static void gpus_and_threads(void **state)
{
    (void)state;
    static unsigned char want[GPUS][Q_BYTES];
    static struct lane lanes[GPUS * EACH];
    rapt_device *gpus[GPUS];
    struct native natives[GPUS];
    pthread_t ids[GPUS * EACH];
    int count = gpus_under_test(gpus);
    memset(lanes, 0, sizeof lanes);
    for (int i = 0; i < count; i++) {
        native_open(&natives[i], gpus[i]);
        for (int j = i * EACH; j < (i + 1) * EACH; j++) {
            work_begin(&lanes[j].work, gpus[i], NULL);
            lanes[j].native = &natives[i];
            lanes[j].want = want[i];
        }
        expected(&lanes[i * EACH].work, want[i]);
        if (!strcmp(info_of(gpus[i]).name, info_of(gpus[0]).name))
            assert_memory_equal(want[i], want[0], Q_BYTES);
    }
    for (int j = 0; j < count * EACH; j++)
        assert_int_equal(pthread_create(&ids[j], NULL, run_lane, &lanes[j]), 0);
    for (int j = 0; j < count * EACH; j++) pthread_join(ids[j], NULL);
    for (int j = 0; j < count * EACH; j++) {
        assert_int_equal(lanes[j].status, RAPT_OK);
        assert_true(lanes[j].same);
        work_end(&lanes[j].work);
    }
    for (int i = 0; i < count; i++) native_close(&natives[i], gpus[i]);
}

/* One thread, whose current context is the first GPU's all along, executes on each GPU in turn and
 * only then waits for them. */
static void gpus_in_turn(void **state)
{
    (void)state;
    static unsigned char want[Q_BYTES];
    static struct work works[GPUS];
    rapt_device *gpus[GPUS];
    struct native natives[GPUS];
    void *stream[GPUS], *first = NULL, *current;
    int count = gpus_under_test(gpus);
    for (int i = 0; i < count; i++) {
        native_open(&natives[i], gpus[i]); /* makes the GPU current */
        if (!i) assert_int_equal(natives[0].get_current(&first), 0);
        assert_int_equal(natives[i].stream_create(&stream[i], 1), 0);
        work_begin(&works[i], gpus[i], NULL);
    }
    if (count) assert_int_equal(natives[0].set_current(first), 0);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < count; i++) {
            set_q(&works[i], 20 + round + (uint64_t)i);
            out_of(&works[i], 1);
        }
        for (int i = 0; i < count; i++)
            expect_ok(rapt_plan_execute(works[i].plan, &works[i].a, works[i].workspace, stream[i]),
                      gpus[i], "execute");
        for (int i = 0; i < count; i++) {
            expect_ok(rapt_synchronize(gpus[i], stream[i]), gpus[i], "synchronize");
            static unsigned char got[Q_BYTES];
            memcpy(got, out_of(&works[i], 0), Q_BYTES);
            expected(&works[i], want);
            assert_memory_equal(got, want, Q_BYTES);
            assert_int_equal(natives[0].get_current(&current), 0);
            assert_ptr_equal(current, first);
        }
    }
    for (int i = 0; i < count; i++) {
        work_end(&works[i]);
        assert_int_equal(natives[i].stream_destroy(stream[i]), 0);
        native_close(&natives[i], gpus[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(graphs), cmocka_unit_test(threads),
                                       cmocka_unit_test(gpus_and_threads),
                                       cmocka_unit_test(gpus_in_turn)};
    return run_end_to_end("streams", tests, true);
}
