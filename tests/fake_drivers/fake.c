/* fake.c: what both stand-in drivers share: counting, failing on demand, modules, memory, the
 * record of launches. */
#include "fake.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

struct allocation {
    struct allocation *next;
    char *memory;
    size_t bytes, mapped;
};

static struct fake state;
static struct allocation *allocations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((visibility("default"))) struct fake *fake_state(void)
{
    return &state;
}

__attribute__((visibility("default"))) void fake_reset(void)
{
    pthread_mutex_lock(&lock);
    state.version = state.devices = state.max_shared = state.memory_khz = state.fail_at =
        state.fail_code = state.capturing = state.most_allocations = state.slow_start =
            state.calls = state.launch_count = 0;
    state.pinned = state.waited_for = NULL;
    memset(state.arch, 0, sizeof state.arch);
    memset(state.arch_of, 0, sizeof state.arch_of);
    memset(state.failed, 0, sizeof state.failed);
    memset(state.misuse, 0, sizeof state.misuse);
    memset(state.call, 0, sizeof state.call);
    state.devices = 1;
    pthread_mutex_unlock(&lock);
}

/* For programs that know nothing of this file: FAKE_ARCH is one device of that arch, FAKE_SHARED the
 * bytes of shared memory that its blocks may have. */
__attribute__((constructor)) static void from_environment(void)
{
    const char *arch = getenv("FAKE_ARCH"), *shared = getenv("FAKE_SHARED");
    if (!arch) return;
    fake_reset();
    snprintf(state.arch, sizeof state.arch, "%s", arch);
    state.max_shared = shared ? atoi(shared) : 64 << 10;
}

/* In a capture of the strictest mode, as both drivers document. */
static int forbidden(const char *name)
{
    static const char *const names[] = {
        "cuMemAlloc", "cuMemFree", "cuModuleLoadData",  "cuModuleUnload",  "cuStreamSynchronize",
        "hipMalloc",  "hipFree",   "hipModuleLoadData", "hipModuleUnload", "hipStreamSynchronize"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return 1;
    return 0;
}

const char *fake_arch(int device)
{
    return state.arch_of[device][0] ? state.arch_of[device] : state.arch;
}

int fake_call(const char *name, int device)
{
    pthread_mutex_lock(&lock);
    int code = 0;
    state.calls++;
    for (int i = 0; i < FAKE_CALLS; i++) {
        if (!state.call[i].name[0])
            snprintf(state.call[i].name, sizeof state.call[i].name, "%s", name);
        if (strcmp(state.call[i].name, name)) continue;
        state.call[i].count++;
        break;
    }
    if (state.fail_at && state.calls == state.fail_at) {
        code = state.fail_code;
        snprintf(state.failed, sizeof state.failed, "%s", name);
        state.failed_on = device;
    } else if (state.capturing && forbidden(name)) {
        code = FAKE_CAPTURING;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

void fake_misuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&lock);
    if (!state.misuse[0]) vsnprintf(state.misuse, sizeof state.misuse, format, arguments);
    pthread_mutex_unlock(&lock);
    va_end(arguments);
}

static int change(int *counter, int by)
{
    pthread_mutex_lock(&lock);
    int now = *counter += by;
    pthread_mutex_unlock(&lock);
    return now;
}

/* Whether a driver runs an object's code on a device: of NVIDIA's, "sm_NNa" on NN alone, "sm_NN" on
 * the same major version from that minor on, PTX of "compute_NN" on NN and newer (CUDA C++
 * Programming Guide, binary and PTX compatibility); on AMD's, the same name. */
static int runs(const char *object, const char *device)
{
    int own, minor;
    if (sscanf(device, "sm_%d", &minor) != 1) return !strcmp(object, device);
    if (sscanf(object, "compute_%d", &own) == 1) return own <= minor;
    if (sscanf(object, "sm_%d", &own) != 1) return 0;
    if (minor == 87 || minor == 101) return own == minor; /* Tegra takes no other's cubins */
    if (object[strlen(object) - 1] == 'a') return own == minor;
    return own / 10 == minor / 10 && own <= minor;
}

void fake_pause(void)
{
    if (state.slow_start) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

int fake_module_load(int device, const void *image, void **module)
{
    const char *text = image;
    fake_pause();
    int real = !memcmp(text, "\177ELF", 4) || !strncmp(text, "//", 2) ||
               !memcmp(text, "\x50\xed\x55\xba", 4); /* ELF, PTX, a fat binary */
    char arch[32] = "", symbols[480] = "";
    if (!real) {
        if (strncmp(text, "fake ", 5)) return 200; /* an invalid image, in both drivers */
        sscanf(text, "fake %31s %479[^\n]", arch, symbols);
        if (!runs(arch, fake_arch(device))) return FAKE_NO_BINARY;
    }
    struct fake_module *m = calloc(1, sizeof *m);
    if (!m) return FAKE_OUT_OF_MEMORY;
    m->device = device;
    snprintf(m->arch, sizeof m->arch, "%s", arch);
    snprintf(m->symbols, sizeof m->symbols, real ? "*" : " %s ", symbols);
    *module = m;
    change(&state.modules, 1);
    return 0;
}

/* Functions live in a list of their module's own size class: freed with the process; a driver too
 * keeps them until unload. */
struct function_list {
    struct function_list *next;
    struct fake_function function;
};
static struct function_list *functions;

int fake_module_unload(void *module)
{
    pthread_mutex_lock(&lock);
    for (struct function_list **at = &functions; *at;) {
        struct function_list *f = *at;
        if (f->function.module == module) {
            *at = f->next;
            free(f);
        } else {
            at = &f->next;
        }
    }
    pthread_mutex_unlock(&lock);
    free(module);
    change(&state.modules, -1);
    return 0;
}

int fake_module_function(void *module, const char *name, void **function)
{
    struct fake_module *m = module;
    char word[80];
    snprintf(word, sizeof word, " %s ", name);
    if (strcmp(m->symbols, "*") && !strstr(m->symbols, word)) return FAKE_NOT_FOUND;
    struct function_list *f = calloc(1, sizeof *f);
    if (!f) return FAKE_OUT_OF_MEMORY;
    f->function.module = m;
    snprintf(f->function.name, sizeof f->function.name, "%s", name);
    pthread_mutex_lock(&lock);
    f->next = functions;
    functions = f;
    pthread_mutex_unlock(&lock);
    *function = &f->function;
    return 0;
}

/* The struct that an entry point takes: named in kernel_args.h. */
static size_t argument_size(const char *name)
{
    if (!strcmp(name, "rope")) return sizeof(struct rope_args);
    if (!strcmp(name, "kv_replicate")) return sizeof(struct kv_replicate_args);
    if (!strcmp(name, "kv_append")) return sizeof(struct kv_append_args);
    return sizeof(struct attention_args);
}

int fake_launch(int device, void *function, const unsigned grid[3], const unsigned block[3],
                unsigned shared, void *stream, void **parameters, int early)
{
    const struct fake_function *f = function;
    uint64_t threads = (uint64_t)block[0] * block[1] * block[2];
    if (f->module->device != device)
        fake_misuse("%s of device %d launched on %d", f->name, f->module->device, device);
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > INT32_MAX || grid[1] > 65535 ||
        grid[2] > 65535)
        fake_misuse("%s: grid %u x %u x %u", f->name, grid[0], grid[1], grid[2]);
    if (threads < 32 || threads > 1024 || threads % 32)
        fake_misuse("%s: %llu threads", f->name, (unsigned long long)threads);
    if (shared > (unsigned)state.max_shared)
        fake_misuse("%s: %u bytes of shared memory", f->name, shared);
    pthread_mutex_lock(&lock);
    if (state.launch_count < FAKE_LAUNCHES) {
        struct fake_launch *l = &state.launch[state.launch_count];
        memset(l, 0, sizeof *l);
        l->device = device;
        memcpy(l->arch, f->module->arch, sizeof l->arch);
        memcpy(l->name, f->name, sizeof l->name);
        memcpy(l->grid, grid, sizeof l->grid);
        memcpy(l->block, block, sizeof l->block);
        l->shared = shared;
        l->stream = stream;
        l->early = early;
        memcpy(&l->args, parameters[0], argument_size(f->name));
        if (parameters[1]) memcpy(&l->maps, parameters[1], sizeof l->maps);
    }
    state.launch_count++;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* Mapped and not reserved: workspaces of gigabytes, which nothing touches, take no memory. The last
 * such mapping serves again, as qemu-user keeps an entry for each page that was ever mapped. */
enum { LARGE = 1 << 30 };
static struct {
    void *memory;
    size_t bytes;
} spare;

/* mapped: the size of the mapping, bytes or more. */
static void *map(size_t bytes, size_t *mapped)
{
    pthread_mutex_lock(&lock);
    void *memory = bytes >= LARGE && bytes <= spare.bytes ? spare.memory : NULL;
    *mapped = memory ? spare.bytes : bytes;
    if (memory) spare.bytes = 0;
    pthread_mutex_unlock(&lock);
    if (memory) return memory;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unmap(void *memory, size_t bytes)
{
    pthread_mutex_lock(&lock);
    if (bytes >= LARGE && bytes > spare.bytes) {
        void *kept = memory;
        size_t kept_bytes = bytes;
        memory = spare.memory;
        bytes = spare.bytes;
        spare.memory = kept;
        spare.bytes = kept_bytes;
    }
    pthread_mutex_unlock(&lock);
    if (bytes) munmap(memory, bytes);
}

int fake_alloc(size_t bytes, void **memory)
{
    if (state.most_allocations && state.allocations >= state.most_allocations)
        return FAKE_OUT_OF_MEMORY;
    struct allocation *a = calloc(1, sizeof *a);
    size_t mapped;
    void *mapping = map(bytes, &mapped);
    if (!a || !mapping) {
        if (mapping) unmap(mapping, mapped);
        free(a);
        return FAKE_OUT_OF_MEMORY;
    }
    a->memory = mapping;
    a->bytes = bytes;
    a->mapped = mapped;
    *memory = a->memory;
    pthread_mutex_lock(&lock);
    a->next = allocations;
    allocations = a;
    state.allocations++;
    pthread_mutex_unlock(&lock);
    return 0;
}

int fake_free(void *memory)
{
    struct allocation *found = NULL;
    pthread_mutex_lock(&lock);
    for (struct allocation **at = &allocations; *at && !found; at = &(*at)->next)
        if ((*at)->memory == memory) {
            found = *at;
            *at = found->next;
            state.allocations--;
            break;
        }
    pthread_mutex_unlock(&lock);
    if (!found) {
        fake_misuse("free of %p, which is not allocated", memory);
        return 1;
    }
    unmap(found->memory, found->mapped);
    free(found);
    return 0;
}

int fake_owns(const void *address, size_t bytes)
{
    int owned = 0;
    pthread_mutex_lock(&lock);
    for (struct allocation *a = allocations; a && !owned; a = a->next)
        owned = (const char *)address >= a->memory &&
                (const char *)address + bytes <= a->memory + a->bytes;
    pthread_mutex_unlock(&lock);
    return owned;
}
