/* lifetimes.c: contexts, devices, plans and error sentences: who owns what, in any order. */
#include "api.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_and_close(void **state)
{
    rapt_context *contexts[8];
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 8; i++) open_cpu(&contexts[i], 1 + i % 3);
        for (int i = 7; i >= 0; i -= 2) rapt_close(&contexts[i]);
        for (int i = 0; i < 8; i += 2) rapt_close(&contexts[i]);
        for (int i = 0; i < 8; i++) assert_null(contexts[i]);
    }
    rapt_close(&contexts[0]);
    rapt_close(NULL);
}

/* As many as the CPUs that the caller may run on, whatever the machine has. */
static void threads_by_affinity(void **state)
{
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    rapt_device_info info = {.struct_size = sizeof info};
    rapt_context *context;
    cpu_set_t before, one;
    int cpu = 0;
    (void)state;
    unsetenv("RAPT_THREADS");
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(cpu, &before)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    for (int restricted = 0; restricted < 2; restricted++) {
        assert_int_equal(sched_setaffinity(0, sizeof one, restricted ? &one : &before), 0);
        assert_int_equal(rapt_open(&context, &config), RAPT_OK);
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
        assert_int_equal(rapt_device_describe(rapt_device_at(context, 0), &info), RAPT_OK);
        assert_int_equal(info.compute_units, restricted ? 1 : CPU_COUNT(&before));
        rapt_close(&context);
    }
}

/* Without arguments every machine opens at least its CPU, last in the list. */
static void the_cpu_is_last(void **state)
{
    rapt_context *context;
    rapt_device_info info = {.struct_size = sizeof info};
    (void)state;
    assert_int_equal(rapt_open(&context, NULL), RAPT_OK);
    int count = rapt_device_count(context);
    assert_true(count >= 1);
    assert_int_equal(rapt_device_describe(rapt_device_at(context, count - 1), &info), RAPT_OK);
    assert_string_equal(info.backend, "cpu");
    assert_true(info.name[0] && info.arch[0] && info.compute_units > 0 && info.memory_bytes > 0);
    assert_null(rapt_device_at(context, count));
    assert_null(rapt_device_at(context, -1));
    assert_null(rapt_device_at(NULL, 0));
    assert_int_equal(rapt_device_count(NULL), 0);
    rapt_close(&context);
}

static void a_failed_open_leaves_null(void **state)
{
    static const struct {
        rapt_config config;
        const char *words;
    } rows[] = {
        {{.struct_size = sizeof(rapt_config), .backends = "cpu,gpu"},
         "there is no backend 'gpu' (cuda, hip and cpu, with commas between)"},
        {{.struct_size = sizeof(rapt_config), .backends = ""},
         "there is no backend '' (cuda, hip and cpu, with commas between)"},
        {{.struct_size = sizeof(rapt_config), .threads = -1, .backends = "cpu"},
         "threads is -1 (0 ... *)"},
        {{.struct_size = sizeof(rapt_config), .threads = 1000000, .backends = "cpu"},
         "threads is 1000000 (0 ... *)"},
        {{.struct_size = sizeof(rapt_config), .threads = 1025, .backends = "cpu"},
         "threads is 1025 (0 ... 1024)"},
        {{.struct_size = 4}, "struct_size is 4 (set it to sizeof of the struct, at least *)"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rapt_context *context = (rapt_context *)&rows;
        assert_int_equal(rapt_open(&context, &rows[i].config), RAPT_INVALID);
        assert_null(context);
        if (!says(rapt_last_error(), rows[i].words))
            fail_msg("\"%s\" is not: %s", rows[i].words, rapt_last_error());
    }
    expect(rapt_open(NULL, NULL), RAPT_INVALID,
           "rapt_open: out is NULL (pass the address of a context pointer)");
}

/* Threads of a context that asks for so many. */
static int64_t threads_opened(int64_t asked)
{
    rapt_context *context;
    rapt_device_info info = {.struct_size = sizeof info};
    open_cpu(&context, asked);
    assert_int_equal(rapt_device_describe(rapt_device_at(context, 0), &info), RAPT_OK);
    rapt_close(&context);
    return info.compute_units;
}

static void threads_of_the_environment(void)
{
    static const char *const wrong[] = {"many", "0", "-1", "1025", "3x", "99999999999999999999"};
    rapt_context *context;
    char sentence[96];
    int64_t own = threads_opened(0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("RAPT_THREADS", wrong[i], 1);
        snprintf(sentence, sizeof sentence, "rapt_open: RAPT_THREADS is '%s' (1 ... 1024)",
                 wrong[i]);
        expect(rapt_open(&context, NULL), RAPT_INVALID, sentence);
    }
    setenv("RAPT_THREADS", "3", 1);
    assert_int_equal(threads_opened(0), 3);
    assert_int_equal(threads_opened(2), 2); /* the config's own number goes first */
    setenv("RAPT_THREADS", "", 1);
    assert_int_equal(threads_opened(0), own);
    setenv("RAPT_THREADS", "1024", 1); /* in range, though not every system starts as many */
    rapt_config config = {.struct_size = sizeof config, .backends = "cpu"};
    if (rapt_open(&context, &config))
        assert_string_equal(rapt_last_error(), "rapt_open: the system starts no 1024 threads (ask "
                                               "for fewer, by rapt_config or RAPT_THREADS)");
    rapt_close(&context);
}

/* RAPT_CPU and RAPT_THREADS: a wrong value is a sentence, not a guess. */
static void environment_is_checked(void **state)
{
    rapt_context *context;
    const char *level = getenv("RAPT_CPU");
    char kept[64];
    (void)state;
    snprintf(kept, sizeof kept, "%s", level ? level : "");
    setenv("RAPT_CPU", "z80", 1);
    expect(rapt_open(&context, NULL), RAPT_INVALID, "rapt_open: RAPT_CPU is 'z80' (one of *)");
    if (level) setenv("RAPT_CPU", kept, 1);
    else unsetenv("RAPT_CPU");
    threads_of_the_environment();
    unsetenv("RAPT_THREADS");
}

static void plans_are_destroyed_once(void **state)
{
    static struct call call;
    rapt_context *context;
    rapt_plan *plans[4];
    (void)state;
    open_cpu(&context, 2);
    call_reset(&call);
    for (int i = 0; i < 4; i++) {
        call.a.scale = i + 1;
        assert_int_equal(rapt_plan_create(&plans[i], rapt_device_at(context, 0), &call.a), RAPT_OK);
        assert_true(strlen(rapt_plan_kernel(plans[i])) > 0);
    }
    for (int i = 0; i < 4; i++) {
        rapt_plan_destroy(&plans[(i * 3) % 4]);
        assert_null(plans[(i * 3) % 4]);
        rapt_plan_destroy(&plans[(i * 3) % 4]);
    }
    rapt_plan_destroy(NULL);
    rapt_close(&context);
}

/* More shapes than the device keeps plans for, each several times: the answers stay those of the
 * shape. */
static void forward_with_many_shapes(void **state)
{
    static struct call call;
    static float first[40][DV];
    rapt_context *context;
    (void)state;
    open_cpu(&context, 2);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 40; i++) {
            call_reset(&call);
            call.a.scale = 0.1 * (i + 1);
            if (rapt_forward(rapt_device_at(context, 0), &call.a, NULL))
                fail_msg("%s", rapt_last_error());
            if (!round) memcpy(first[i], call.out, sizeof first[i]);
            assert_memory_equal(first[i], call.out, sizeof first[i]);
        }
    rapt_close(&context);
}

/* A thread without a failure has no sentence; a failure gives it its own. */
static void *fresh_thread(void *empty)
{
    *(bool *)empty = !*rapt_last_error();
    return rapt_forward(NULL, NULL, NULL) == RAPT_INVALID && *rapt_last_error() ? empty : NULL;
}

static void errors_belong_to_their_thread(void **state)
{
    pthread_t thread;
    bool empty = false;
    void *failed = NULL;
    char kept[128];
    (void)state;
    assert_int_equal(rapt_synchronize(NULL, NULL), RAPT_INVALID);
    snprintf(kept, sizeof kept, "%s", rapt_last_error());
    assert_int_equal(pthread_create(&thread, NULL, fresh_thread, &empty), 0);
    pthread_join(thread, &failed);
    assert_non_null(failed);
    assert_true(empty);
    assert_string_equal(rapt_last_error(), kept);
}

/* Children of a process that is at work open contexts of their own. */
struct parent {
    rapt_device *device;
    atomic_int over;
};

static void *keep_calling(void *argument)
{
    static struct call call;
    struct parent *parent = argument;
    call_reset(&call);
    while (!atomic_load(&parent->over))
        if (rapt_forward(parent->device, &call.a, NULL)) return NULL;
    return argument;
}

/* A child's exit status: 0 if its results are the expected ones. */
static int be_a_child(const float *expected)
{
    static struct call call;
    rapt_context *own;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = "cpu"};
    alarm(60);
    call_reset(&call);
    if (rapt_open(&own, &config)) return 1;
    if (rapt_forward(rapt_device_at(own, 0), &call.a, NULL)) return 2;
    rapt_close(&own);
    return memcmp(call.out, expected, sizeof call.out) ? 3 : 0;
}

static void children_open_their_own(void **state)
{
    static struct call call;
    rapt_context *context;
    pthread_t thread;
    void *done = NULL;
    (void)state;
    open_cpu(&context, 2);
    struct parent parent = {.device = rapt_device_at(context, 0)};
    call_reset(&call);
    assert_int_equal(rapt_forward(parent.device, &call.a, NULL), RAPT_OK);
    assert_int_equal(pthread_create(&thread, NULL, keep_calling, &parent), 0);
    int wrong = 0;
    for (int i = 0; i < 10; i++) {
        int status = -1;
        pid_t child = fork();
        if (!child) _exit(be_a_child(call.out));
        if (child > 0) waitpid(child, &status, 0);
        if (status) wrong = status;
    }
    atomic_store(&parent.over, 1);
    pthread_join(thread, &done);
    rapt_close(&context);
    assert_non_null(done);
    assert_int_equal(wrong, 0);
}

static void statuses_and_version(void **state)
{
    (void)state;
    assert_string_equal(rapt_status_text(RAPT_OK), "success");
    for (int s = RAPT_OK; s <= RAPT_SYSTEM; s++)
        assert_string_not_equal(rapt_status_text((rapt_status)s), "unknown status");
    assert_string_equal(rapt_status_text((rapt_status)99), "unknown status");
    assert_int_equal(rapt_version(),
                     RAPT_VERSION_MAJOR * 10000 + RAPT_VERSION_MINOR * 100 + RAPT_VERSION_PATCH);
}

/* Every row of the library is named, also of hardware that is not here; backends say why they
 * opened nothing. */
static void rows_and_notes(void **state)
{
    rapt_context *context;
    int present = 0;
    (void)state;
    open_cpu(&context, 1);
    for (int64_t i = 0; i < rapt_kernel_count(context); i++) {
        rapt_kernel_info info = {.struct_size = sizeof info};
        assert_int_equal(rapt_kernel_at(context, i, &info), RAPT_OK);
        assert_true(info.name && info.name[0] && info.backend && info.arch && info.op);
        present += info.present && !strcmp(info.backend, "cpu");
    }
    assert_true(present >= 1);
    rapt_kernel_info info = {.struct_size = sizeof info};
    assert_int_equal(rapt_kernel_at(context, rapt_kernel_count(context), &info), RAPT_INVALID);
    assert_int_equal(rapt_kernel_at(context, -1, &info), RAPT_INVALID);
    int notes = 0;
    for (const char *name = NULL, *note; (note = rapt_backend_note(context, notes, &name)); notes++)
        assert_true(!strcmp(name, "cpu") ? !*note : strlen(note) > 0);
    assert_int_equal(notes, 3);
    assert_null(rapt_backend_note(NULL, 0, NULL));
    assert_null(rapt_backend_note(context, -1, NULL));
    rapt_close(&context);
}

/* Each kernel of the CPU by its name, and explain says that it runs. */
static void kernels_by_name(void **state)
{
    static struct call call;
    rapt_context *context;
    int ran = 0;
    (void)state;
    open_cpu(&context, 2);
    rapt_device *device = rapt_device_at(context, 0);
    for (int64_t i = 0; i < rapt_kernel_count(context); i++) {
        rapt_kernel_info info = {.struct_size = sizeof info};
        char text[2048], line[160];
        assert_int_equal(rapt_kernel_at(context, i, &info), RAPT_OK);
        call_reset(&call);
        call.a.kernel = info.name;
        rapt_status status = rapt_forward(device, &call.a, NULL);
        assert_true(status == RAPT_OK || status == RAPT_UNSUPPORTED);
        assert_true(status == RAPT_UNSUPPORTED || info.present);
        rapt_explain(device, &call.a, text, sizeof text);
        snprintf(line, sizeof line, "%s: runs", info.name);
        assert_int_equal(strstr(text, line) != NULL, status == RAPT_OK);
        ran += status == RAPT_OK;
    }
    assert_true(ran >= 1);
    rapt_close(&context);
}

static void memory_of_a_device(void **state)
{
    rapt_context *context;
    void *a, *b;
    char host[100], back[100];
    (void)state;
    open_cpu(&context, 1);
    rapt_device *device = rapt_device_at(context, 0);
    assert_int_equal(rapt_alloc(device, 100, &a), RAPT_OK);
    assert_int_equal(rapt_alloc(device, 0, &b), RAPT_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    for (int i = 0; i < 100; i++) host[i] = (char)i;
    assert_int_equal(rapt_copy(device, a, host, 100, NULL), RAPT_OK);
    assert_int_equal(rapt_copy(device, back, a, 100, NULL), RAPT_OK);
    assert_int_equal(rapt_synchronize(device, NULL), RAPT_OK);
    assert_memory_equal(host, back, 100);
    rapt_free(device, a);
    rapt_free(device, b);
    expect(rapt_alloc(device, SIZE_MAX, &a), RAPT_NO_MEMORY,
           "rapt_alloc: no memory (18446744073709551615 bytes)");
    assert_null(a);
    rapt_close(&context);
}

/* The flags that the system keeps of the mapping that holds an address; empty where it tells none. */
static void mapping_flags(const void *memory, char *flags, int size)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    int inside = 0;
    flags[0] = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long low, high;
        if (sscanf(line, "%lx-%lx ", &low, &high) == 2)
            inside = (uintptr_t)memory >= low && (uintptr_t)memory < high;
        if (inside && !strncmp(line, "VmFlags:", 8)) snprintf(flags, (size_t)size, "%s", line);
    }
    if (maps) fclose(maps);
}

/* Whether the system remembers what madvise asks of a mapping: an emulator of processors need not pass it on. */
static int advice_is_kept(size_t page)
{
    char flags[512] = "";
    void *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 0;
    if (!madvise(memory, 2 * page, MADV_HUGEPAGE)) mapping_flags(memory, flags, sizeof flags);
    munmap(memory, 2 * page);
    return strstr(flags, " hg") != NULL;
}

static void large_memory(void **state)
{
    enum { PAGE = 2 << 20, BYTES = 4 * PAGE + 100 };
    rapt_context *context;
    void *a;
    char flags[512];
    (void)state;
    open_cpu(&context, 1);
    rapt_device *device = rapt_device_at(context, 0);
    assert_int_equal(rapt_alloc(device, BYTES, &a), RAPT_OK);
    ((char *)a)[0] = ((char *)a)[BYTES - 1] = 1;
    if (advice_is_kept(PAGE)) {
        mapping_flags(a, flags, sizeof flags);
        assert_int_equal((uintptr_t)a % PAGE, 0);
        assert_non_null(strstr(flags, " hg"));
    }
    rapt_free(device, a);
    rapt_close(&context);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(errors_belong_to_their_thread),
                                       cmocka_unit_test(open_and_close),
                                       cmocka_unit_test(threads_by_affinity),
                                       cmocka_unit_test(the_cpu_is_last),
                                       cmocka_unit_test(a_failed_open_leaves_null),
                                       cmocka_unit_test(environment_is_checked),
                                       cmocka_unit_test(plans_are_destroyed_once),
                                       cmocka_unit_test(forward_with_many_shapes),
                                       cmocka_unit_test(children_open_their_own),
                                       cmocka_unit_test(statuses_and_version),
                                       cmocka_unit_test(rows_and_notes),
                                       cmocka_unit_test(kernels_by_name),
                                       cmocka_unit_test(memory_of_a_device),
                                       cmocka_unit_test(large_memory)};
    return run_group("lifetimes", tests, sizeof tests / sizeof *tests, NULL, NULL, argc, argv);
}
