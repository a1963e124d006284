/* Emulated HIP runtime: modules, functions, launches. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "hip.h"

enum { MAX_FUNCTIONS = 256 };

struct module;
struct function {
    struct module *module;
    const struct amdgpu_kernel *kernel;
    struct amdgpu_stats sum;
    int max_dynamic;
    uint64_t launches;
};
struct module {
    struct module *next;
    struct amdgpu_module *code;
    struct function functions[MAX_FUNCTIONS];
    int function_count;
};
static struct module *modules;

HIP_API hip_error hipModuleLoadData(void **, const void *);
HIP_API hip_error hipModuleLoadDataEx(void **, const void *, unsigned, void *, void **);
HIP_API hip_error hipModuleLoad(void **, const char *);
HIP_API hip_error hipModuleUnload(void *);
HIP_API hip_error hipModuleGetFunction(void **, void *, const char *);
HIP_API hip_error hipModuleGetGlobal(void **, size_t *, void *, const char *);
HIP_API hip_error hipModuleLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned,
                                        unsigned, unsigned, void *, void **, void **);
HIP_API hip_error hipFuncGetAttribute(int *, int, void *);
HIP_API hip_error hipFuncSetAttribute(const void *, int, int);
HIP_API hip_error hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int *, void *, int, size_t);

/* Size of a code object that is given without one: an ELF file ends with its section headers or
   last section; a bundle with its last entry. */
static size_t image_size(const void *image)
{
    const uint8_t *p = image;
    size_t size = 0;
    if (memcmp(p, "__CLANG_OFFLOAD_BUNDLE__", 24) == 0) {
        uint64_t count, at = 32;
        memcpy(&count, p + 24, 8);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t head[3];
            memcpy(head, p + at, 24);
            at += 24 + head[2];
            if (head[0] + head[1] > size) size = head[0] + head[1];
        }
        return size > at ? size : at;
    }
    if (memcmp(p, ELFMAG, 4) != 0) return 0;
    Elf64_Ehdr e;
    memcpy(&e, p, sizeof e);
    size = e.e_shoff + (size_t)e.e_shnum * e.e_shentsize;
    for (int i = 0; i < e.e_shnum; i++) {
        Elf64_Shdr s;
        memcpy(&s, p + e.e_shoff + (size_t)i * sizeof s, sizeof s);
        if (s.sh_type != SHT_NOBITS && s.sh_offset + s.sh_size > size)
            size = s.sh_offset + s.sh_size;
    }
    return size;
}

static hip_error load(void **out, const void *image, size_t size)
{
    struct hip_state *s = hip_state();
    char error[512];
    if (!s) return hip_note(hipErrorNoDevice);
    if (!out || !image) return hip_note(hipErrorInvalidValue);
    if (!size) return hip_note(hipErrorInvalidImage);
    struct module *m = calloc(1, sizeof *m);
    if (!m) return hip_note(hipErrorOutOfMemory);
    m->code = amdgpu_module_load(image, size, s->devices[hip_current_device()].info.gfx, s->memory,
                                 error, sizeof error);
    if (!m->code) {
        free(m);
        fprintf(stderr, "hipModuleLoadData: %s\n", error);
        return hip_note(strstr(error, "built for") ? hipErrorNoBinaryForGpu : hipErrorInvalidImage);
    }
    pthread_mutex_lock(&s->lock);
    m->next = modules;
    modules = m;
    pthread_mutex_unlock(&s->lock);
    *out = m;
    return hipSuccess;
}

hip_error hipModuleLoadData(void **out, const void *image)
{
    return load(out, image, image ? image_size(image) : 0);
}

hip_error hipModuleLoadDataEx(void **out, const void *image, unsigned options, void *option,
                              void **values)
{
    (void)options, (void)option, (void)values;
    return hipModuleLoadData(out, image);
}

hip_error hipModuleLoad(void **out, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return hip_note(hipErrorNotFound);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    void *data = n > 0 ? malloc((size_t)n) : NULL;
    hip_error e = hipErrorInvalidImage;
    if (data && fread(data, 1, (size_t)n, f) == (size_t)n) e = load(out, data, (size_t)n);
    free(data);
    fclose(f);
    return hip_note(e);
}

static bool is_module(const struct module *m)
{
    struct hip_state *s = hip_state();
    bool found = false;
    if (!s) return false;
    pthread_mutex_lock(&s->lock);
    for (const struct module *p = modules; p && !found; p = p->next) found = p == m;
    pthread_mutex_unlock(&s->lock);
    return found;
}

static void report_sums(const struct module *m)
{
    char text[2048];
    for (int i = 0; i < m->function_count; i++) {
        const struct function *f = &m->functions[i];
        if (!f->launches) continue;
        struct amdgpu_occupancy o =
            amdgpu_occupancy(m->code, f->kernel, f->kernel->max_workgroup, 0);
        amdgpu_report(m->code, f->kernel, &f->sum, &o, text, sizeof text);
        fprintf(stderr, "%llu launches of %s", (unsigned long long)f->launches, text);
    }
    struct amdgpu_loop loop;
    if (!amdgpu_matrix_loop(m->code, &loop)) return;
    amdgpu_loop_report(&loop, text, sizeof text);
    fputs(text, stderr);
    if (hip_state()->report == 3) amdgpu_loop_print(m->code, &loop, stderr);
}

hip_error hipModuleUnload(void *module)
{
    struct hip_state *s = hip_state();
    struct module *m = module;
    if (!is_module(m)) return hip_note(hipErrorInvalidHandle);
    pthread_mutex_lock(&s->lock);
    for (struct module **p = &modules; *p; p = &(*p)->next)
        if (*p == m) {
            *p = m->next;
            break;
        }
    pthread_mutex_unlock(&s->lock);
    if (s->report >= 2) report_sums(m);
    amdgpu_module_close(&m->code);
    free(m);
    return hipSuccess;
}

hip_error hipModuleGetFunction(void **out, void *module, const char *name)
{
    struct module *m = module;
    if (!out || !name) return hip_note(hipErrorInvalidValue);
    if (!is_module(m)) return hip_note(hipErrorInvalidHandle);
    const struct amdgpu_kernel *k = amdgpu_module_kernel(m->code, name);
    if (!k) return hip_note(hipErrorNotFound);
    struct hip_state *s = hip_state();
    struct function *f = NULL;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < m->function_count && !f; i++)
        if (m->functions[i].kernel == k) f = &m->functions[i];
    if (!f && m->function_count < MAX_FUNCTIONS) {
        f = &m->functions[m->function_count++];
        f->module = m;
        f->kernel = k;
    }
    pthread_mutex_unlock(&s->lock);
    *out = f;
    return hip_note(f ? hipSuccess : hipErrorOutOfMemory);
}

hip_error hipModuleGetGlobal(void **address, size_t *size, void *module, const char *name)
{
    const struct module *m = module;
    uint64_t at, bytes;
    if (!is_module(m)) return hip_note(hipErrorInvalidHandle);
    if (!name || !amdgpu_module_symbol(m->code, name, &at, &bytes))
        return hip_note(hipErrorNotFound);
    if (address) *address = (void *)(uintptr_t)at;
    if (size) *size = bytes;
    return hipSuccess;
}

static struct function *function_of(const struct amdgpu_kernel *kernel)
{
    for (struct module *m = modules; m; m = m->next)
        for (int i = 0; i < m->function_count; i++)
            if (m->functions[i].kernel == kernel) return &m->functions[i];
    return NULL;
}

static void add_stats(struct amdgpu_stats *sum, const struct amdgpu_stats *s)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)s;
    for (size_t i = 0; i < sizeof *s / sizeof *to; i++) to[i] += from[i];
}

hip_error hip_launch_now(const struct amdgpu_dispatch *d)
{
    struct hip_state *s = hip_state();
    struct amdgpu_stats stats;
    char text[2048];
    if (!amdgpu_launch(d, &s->options, &stats, text, sizeof text)) {
        fprintf(stderr, "emulated GPU: %s\n", text);
        return strstr(text, "out of bounds") || strstr(text, "in no allocation")
                   ? hipErrorIllegalAddress
                   : hipErrorLaunchFailure;
    }
    if (s->report == 1) {
        struct amdgpu_occupancy o = amdgpu_occupancy(
            d->module, d->kernel, d->block[0] * d->block[1] * d->block[2], d->dynamic_lds);
        amdgpu_report(d->module, d->kernel, &stats, &o, text, sizeof text);
        fputs(text, stderr);
    }
    pthread_mutex_lock(&s->lock);
    struct function *f = function_of(d->kernel);
    if (f) {
        f->launches++;
        add_stats(&f->sum, &stats);
    }
    pthread_mutex_unlock(&s->lock);
    return hipSuccess;
}

/* kernelParams: one pointer per explicit argument; each is copied to its kernarg offset. */
static bool gather_parameters(const struct amdgpu_kernel *k, void **parameters, uint8_t *block,
                              size_t *used)
{
    int next = 0;
    *used = 0;
    for (int i = 0; i < k->arg_count; i++) {
        const struct amdgpu_arg *a = &k->args[i];
        if (strncmp(a->kind, "hidden_", 7) == 0) continue;
        if (!parameters[next]) return false;
        memcpy(block + a->offset, parameters[next++], a->size);
        if (a->offset + a->size > *used) *used = a->offset + a->size;
    }
    return true;
}

/* extra: pairs of (1 buffer pointer, 2 pointer to its size), ended by 3. */
static bool find_buffer(void **extra, const void **buffer, size_t *size)
{
    *buffer = NULL;
    for (int i = 0; i < 8 && extra[i] != (void *)3; i += 2) {
        if (extra[i] == (void *)1) *buffer = extra[i + 1];
        if (extra[i] == (void *)2) *size = *(size_t *)extra[i + 1];
    }
    return *buffer != NULL;
}

hip_error hipModuleLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                unsigned by, unsigned bz, unsigned shared, void *stream,
                                void **parameters, void **extra)
{
    struct hip_state *s = hip_state();
    const struct function *f = function;
    uint8_t *block = NULL;
    if (!s) return hip_note(hipErrorNoDevice);
    if (!f || !is_module(f->module) || !hip_is_stream(stream))
        return hip_note(hipErrorInvalidHandle);
    if (parameters && extra) return hip_note(hipErrorInvalidValue);
    if (!gx || !gy || !gz || !bx || !by || !bz || bx > 1024 || by > 1024 || bz > 1024 ||
        bx * by * bz > 1024)
        return hip_note(hipErrorInvalidConfiguration);
    if (f->kernel->max_workgroup && bx * by * bz > f->kernel->max_workgroup)
        return hip_note(hipErrorLaunchFailure);
    if (f->kernel->lds_size + shared > (unsigned)s->devices[hip_current_device()].info.lds_bytes)
        return hip_note(hipErrorInvalidValue);
    struct work w = {.kind = WORK_LAUNCH,
                     .dispatch = {.module = f->module->code,
                                  .kernel = f->kernel,
                                  .memory = s->memory,
                                  .grid = {gx, gy, gz},
                                  .block = {bx, by, bz},
                                  .dynamic_lds = shared}};
    if (extra) {
        if (!find_buffer(extra, &w.dispatch.args, &w.dispatch.args_size))
            return hip_note(hipErrorInvalidValue);
    } else {
        block = calloc(1, f->kernel->kernarg_size + 1);
        if (!block) return hip_note(hipErrorOutOfMemory);
        if (f->kernel->explicit_args &&
            (!parameters ||
             !gather_parameters(f->kernel, parameters, block, &w.dispatch.args_size))) {
            free(block);
            return hip_note(hipErrorInvalidValue);
        }
        w.dispatch.args = block;
    }
    hip_error e = hip_submit(stream, &w);
    free(block);
    return hip_note(e);
}

/* hipFunction_attribute: 0 threads, 1 LDS, 2 constant, 3 scratch, 4 registers, 8 dynamic LDS limit.
 */
hip_error hipFuncGetAttribute(int *value, int attribute, void *function)
{
    const struct function *f = function;
    if (!value || !f) return hip_note(hipErrorInvalidValue);
    const int values[] = {(int)f->kernel->max_workgroup,
                          (int)f->kernel->lds_size,
                          0,
                          (int)f->kernel->private_size,
                          (int)f->kernel->vgpr_count,
                          0,
                          0,
                          0,
                          f->max_dynamic};
    if (attribute < 0 || attribute > 8) return hip_note(hipErrorInvalidValue);
    *value = values[attribute];
    return hipSuccess;
}

hip_error hipFuncSetAttribute(const void *function, int attribute, int value)
{
    struct function *f = (struct function *)(uintptr_t)function;
    if (!f || value < 0 || (attribute != 8 && attribute != 9))
        return hip_note(hipErrorInvalidValue);
    if (attribute == 8) f->max_dynamic = value;
    return hipSuccess;
}

hip_error hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function,
                                                             int threads, size_t dynamic)
{
    const struct function *f = function;
    struct amdgpu_device_info info;
    if (!blocks || !f || threads < 1) return hip_note(hipErrorInvalidValue);
    struct amdgpu_occupancy o =
        amdgpu_occupancy(f->module->code, f->kernel, (uint32_t)threads, (uint32_t)dynamic);
    amdgpu_device_info(amdgpu_module_target(f->module->code), &info);
    uint32_t waves =
        ((uint32_t)threads + (uint32_t)f->kernel->wave_size - 1) / (uint32_t)f->kernel->wave_size;
    *blocks = (int)(o.waves_per_simd * (uint32_t)info.simds_per_unit / waves);
    return hipSuccess;
}
