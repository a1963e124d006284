/* session.c: opens rapt on a stand-in driver. */
#include "session.h"
#include "params.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

const struct stand_in vendors[2] = {
    {"cuda", "RAPT_CUDA_LIBRARY", RAPT_BUILD_FOLDER "/tests/fake_drivers/libcuda.so",
     RAPT_BUILD_FOLDER "/tests/fake_drivers/libcuda_broken.so", "CUBIN", "sm_90", "sm_35",
     "cuLaunchKernel", "cuCtxGetCurrent", "cuInit", 232448, 11040},
    {"hip", "RAPT_HIP_LIBRARY", RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64.so",
     RAPT_BUILD_FOLDER "/tests/fake_drivers/libamdhip64_broken.so", "HSACO", "gfx942", "gfx803",
     "hipModuleLaunchKernel", "hipGetDevice", "hipInit", 65536, 40300000},
};

static const char *const stems[] = {
#define OVERRIDE(name, stem) #stem,
#include "gpu/overrides.def"
#undef OVERRIDE
};

void *session_symbol(const struct stand_in *v, const char *name)
{
    void *library = dlopen(v->library, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    void *address = dlsym(library, name);
    assert_non_null(address);
    return address;
}

void session_override(const struct stand_in *v, const char *stem, const char *text)
{
    char variable[64], path[512];
    snprintf(variable, sizeof variable, "%s_%s", stem, v->suffix);
    if (!text) {
        unsetenv(variable);
        return;
    }
    snprintf(path, sizeof path, RAPT_BUILD_FOLDER "/tests/fake_drivers/%s.%d", variable,
             (int)getpid());
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    setenv(variable, path, 1);
}

void session_no_overrides(const struct stand_in *v)
{
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
}

static void remove_files(const struct stand_in *v)
{
    char variable[64], path[512];
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        snprintf(variable, sizeof variable, "%s_%s", stems[i], v->suffix);
        snprintf(path, sizeof path, RAPT_BUILD_FOLDER "/tests/fake_drivers/%s.%d", variable,
                 (int)getpid());
        remove(path);
        unsetenv(variable);
    }
}

struct fake *session_begin(const struct stand_in *v)
{
    char text[512];
    fake_state_function *state;
    fake_reset_function *reset;
    void *address = session_symbol(v, "fake_state");
    memcpy(&state, &address, sizeof state);
    address = session_symbol(v, "fake_reset");
    memcpy(&reset, &address, sizeof reset);
    reset();
#ifdef M_PERTURB
    mallopt(M_PERTURB, 0x5a); /* new memory is not zeros by chance */
#endif
    struct fake *fake = state();
    snprintf(fake->arch, sizeof fake->arch, "%s", v->arch);
    fake->max_shared = v->max_shared;
    setenv(v->library_variable, v->library, 1);
    snprintf(text, sizeof text, "fake %s", v->arch);
#define OVERRIDE(name, stem) strcat(text, " " #name);
#include "gpu/overrides.def"
#undef OVERRIDE
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) session_override(v, stems[i], text);
    return fake;
}

void session_end(const struct stand_in *v)
{
    fake_state_function *state;
    void *address = session_symbol(v, "fake_state");
    memcpy(&state, &address, sizeof state);
    struct fake *fake = state();
    assert_string_equal(fake->misuse, "");
    assert_int_equal(fake->modules, 0);
    assert_int_equal(fake->allocations, 0);
    assert_int_equal(fake->contexts, 0);
    assert_int_equal(fake->pushed, 0);
    unsetenv(v->library_variable);
    remove_files(v);
}

int session_calls(const struct fake *fake, const char *name)
{
    for (int i = 0; i < FAKE_CALLS; i++)
        if (!strcmp(fake->call[i].name, name)) return fake->call[i].count;
    return 0;
}

rapt_context *session_open(const struct stand_in *v)
{
    rapt_context *context = NULL;
    rapt_config config = {.struct_size = sizeof config, .threads = 1, .backends = v->name};
    if (rapt_open(&context, &config)) print_error("%s\n", rapt_last_error());
    assert_non_null(context);
    return context;
}

rapt_attention session_problem(void *memory)
{
    rapt_attention a = {.struct_size = sizeof a};
    char *at = memory;
    a.q = rapt_tensor_bthd(at, RAPT_F16, 2, 4, 64, 64);
    a.k = rapt_tensor_bhtd(at + (1 << 18), RAPT_F16, 2, 2, 96, 64);
    a.v = rapt_tensor_bhtd(at + (2 << 18), RAPT_F16, 2, 2, 96, 64);
    a.out = rapt_tensor_bthd(at + (3 << 18), RAPT_F16, 2, 4, 64, 64);
    return a;
}

struct problem session_checked(const rapt_attention *a)
{
    struct problem p;
    if (params_check(a, "test", &p)) print_error("%s\n", rapt_last_error());
    assert_int_equal(params_check(a, "test", &p), RAPT_OK);
    return p;
}

rapt_plan *session_plan(rapt_device *device, const rapt_attention *a, const char *kernel)
{
    rapt_plan *plan = NULL;
    rapt_attention named = *a;
    if (kernel) named.kernel = kernel;
    if (rapt_plan_create(&plan, device, &named)) fail_msg("%s", rapt_last_error());
    return plan;
}
