/* test_archs.c: on a device of each arch, and on devices of several at once, every row of kernels.def
 * that should serve it runs, from the code object that suits the device best, within its limits. */
#include "session.h"

#include "gpu/registry.h"

#include <stdio.h>

enum { CHOICES = 5 };

/* objects: the archs of the code objects that run on the device, best first. max_shared: bytes. */
struct kind {
    const char *arch;
    int max_shared;
    const char *objects[CHOICES];
};

/* CUDA C++ Programming Guide, compute capabilities: shared memory that a block may opt in to. */
static const struct kind cuda_kinds[] = {
    {"sm_75", 65536, {NULL}},
    {"sm_80", 166912, {"sm_80", "compute_80"}},
    {"sm_86", 101376, {"sm_86", "sm_80", "compute_80"}},
    {"sm_87", 166912, {"compute_80"}},
    {"sm_89", 101376, {"sm_89", "sm_86", "sm_80", "compute_80"}},
    {"sm_90", 232448, {"sm_90a", "compute_80"}},
    {"sm_100", 232448, {"sm_100", "compute_80"}},
    {"sm_101", 232448, {"compute_80"}},
    {"sm_103", 232448, {"sm_100", "compute_80"}},
    {"sm_110", 232448, {"compute_80"}},
    {"sm_120", 101376, {"sm_120", "compute_80"}},
    {"sm_121", 101376, {"sm_120", "compute_80"}},
    {"sm_130", 232448, {"compute_80"}}, /* newer than every object: PTX */
};
static const struct kind hip_kinds[] = {
    {"gfx90a", 65536, {"gfx90a"}},   {"gfx942", 65536, {"gfx942"}},
    {"gfx950", 163840, {"gfx950"}},  {"gfx1030", 65536, {"gfx1030"}},
    {"gfx1036", 65536, {NULL}},      {"gfx1100", 65536, {"gfx1100"}},
    {"gfx1151", 65536, {"gfx1151"}}, {"gfx1200", 65536, {"gfx1200"}},
    {"gfx1201", 65536, {"gfx1201"}},
};

static const struct kind *kinds_of(const struct stand_in *v, int *count)
{
    int cuda = !strcmp(v->name, "cuda");
    *count = cuda ? sizeof cuda_kinds / sizeof *cuda_kinds : sizeof hip_kinds / sizeof *hip_kinds;
    return cuda ? cuda_kinds : hip_kinds;
}

static int has_row(const struct stand_in *v, const char *name, const char *arch)
{
    enum vendor vendor = strcmp(v->name, "cuda") ? VENDOR_hip : VENDOR_cuda;
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++)
        if (row->vendor == vendor && !strcmp(row->name, name) && !strcmp(row->arch, arch)) return 1;
    return 0;
}

/* The arch of the object that a device of this kind should use for the rows of a name; NULL: none.
 */
static const char *object_for(const struct stand_in *v, const struct kind *kind, const char *name)
{
    for (int i = 0; i < CHOICES && kind->objects[i]; i++)
        if (has_row(v, name, kind->objects[i])) return kind->objects[i];
    return NULL;
}

static struct fake *begin(const struct stand_in *v)
{
    struct fake *fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    return fake;
}

/* An entry point is its row's name, or that with _prepare or _combine. */
static void row_of(const char *entry, char row[64])
{
    static const char *const suffixes[] = {"_prepare", "_combine"};
    size_t length = strlen(entry);
    snprintf(row, 64, "%s", entry);
    for (int i = 0; i < 2; i++) {
        size_t tail = strlen(suffixes[i]);
        if (length > tail && !strcmp(entry + length - tail, suffixes[i])) row[length - tail] = 0;
    }
}

/* All launches so far came from the right objects; then forgets them. */
static void expect_objects(const struct stand_in *v, struct fake *fake, const struct kind *kind)
{
    char row[64];
    assert_true(fake->launch_count > 0 && fake->launch_count <= FAKE_LAUNCHES);
    for (int i = 0; i < fake->launch_count; i++) {
        const struct fake_launch *l = &fake->launch[i];
        row_of(l->name, row);
        const char *expected = object_for(v, kind, row);
        if (!expected || strcmp(l->arch, expected))
            print_error("%s on %s: the object of %s, not %s\n", l->name, kind->arch, l->arch,
                        expected ? expected : "none");
        assert_non_null(expected);
        assert_string_equal(l->arch, expected);
    }
    fake->launch_count = 0;
}

/* Attention of one sequence, 16 heads over 2, at addresses that nobody reads: 1 TiB for each
 * tensor. option 1: causal; 2: with a softcap; 3: keys and values of i8; 4: a bias of q's type for all
 * heads; 5: a mask tensor of a row for each query;
 * 6: a bias of f32; 7: as 3, with a scale for each 32 channels; 8: values are the first channels of the keys. */
static rapt_attention large_problem(rapt_dtype dtype, int64_t tokens, int64_t d, int64_t dv,
                                    int option)
{
    char *base = (char *)((uintptr_t)1 << 44);
    rapt_attention a = {.struct_size = sizeof a};
    a.causal = option == 1;
    a.softcap = option == 2 ? 30 : 0;
    a.q = rapt_tensor_bthd(base, dtype, 1, 16, tokens, d);
    a.k = rapt_tensor_bthd(base + ((uintptr_t)1 << 40), dtype, 1, 2, tokens, d);
    a.v = rapt_tensor_bthd(base + ((uintptr_t)2 << 40), dtype, 1, 2, tokens, dv);
    a.out = rapt_tensor_bthd(base + ((uintptr_t)3 << 40), dtype, 1, 16, tokens, dv);
    if (option == 8) a.v = a.k, a.v.size[3] = dv;
    if (option == 3 || option == 7) {
        char *scales = base + ((uintptr_t)4 << 40);
        a.k.dtype = a.v.dtype = RAPT_I8;
        a.k_scale = rapt_tensor_bthd(scales, RAPT_F32, 1, 2, tokens, option == 3 ? 1 : d / 32);
        a.v_scale = rapt_tensor_bthd(scales, RAPT_F32, 1, 2, tokens, option == 3 ? 1 : dv / 32);
    }
    if (option >= 4 && option <= 6) {
        rapt_tensor t = rapt_tensor_bhtd(base + ((uintptr_t)5 << 40),
                                         option == 4   ? dtype
                                         : option == 5 ? RAPT_U8
                                                       : RAPT_F32,
                                         1, 1, tokens, (tokens + 15) / 16 * 16);
        t.size[3] = tokens;
        if (option == 5) a.mask = t;
        else a.bias = t;
    }
    return a;
}

/* 1 when the kernel takes the problem; what it then launches has passed the fake's checks by the
 * end of the session. */
static int try_kernel(rapt_device *device, const char *kernel, rapt_attention a)
{
    rapt_plan *plan = NULL;
    void *workspace = NULL;
    a.kernel = kernel;
    if (rapt_plan_create(&plan, device, &a)) {
        if (kernel) assert_non_null(strstr(rapt_last_error(), kernel));
        return 0;
    }
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    return 1;
}

enum { OPTIONS = 9, PROBLEMS = 9 * 4 * 3 * OPTIONS };

/* How many of a set of problems the kernel serves. */
static int try_all(const struct stand_in *v, rapt_context *context, struct fake *fake,
                   const struct kind *kind, const char *kernel)
{
    static const int64_t heads[][2] = {{32, 32},   {64, 64},   {96, 96},   {128, 128}, {160, 160},
                                       {192, 128}, {192, 192}, {256, 256}, {576, 512}};
    static const int64_t tokens[] = {1, 100, 1024, 16384};
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    int ran = 0;
    for (int j = 0; j < PROBLEMS; j++) {
        int n = j / OPTIONS; /* types, tokens, heads */
        if (!try_kernel(rapt_device_at(context, 0), kernel,
                        large_problem(dtypes[n % 3], tokens[n / 3 % 4], heads[n / 12][0],
                                      heads[n / 12][1], j % OPTIONS)))
            continue;
        ran++;
        expect_objects(v, fake, kind);
    }
    return ran;
}

/* The name of the backend chooses what no name does. */
static void by_the_backends_name(const struct stand_in *v, rapt_device *device)
{
    static const int64_t tokens[][2] = {
        {1, 4096}, {1, 32768}, {64, 8192}, {512, 512}, {8192, 8192}};
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    for (int n = 0; n < 5 * 3 * OPTIONS; n++) {
        rapt_attention a = large_problem(dtypes[n % 3], tokens[n / 3 % 5][1], 128, 128, n / 15);
        if (n / 15 != 4 && n / 15 != 5 && n / 15 != 6)
            a.q.size[2] = a.out.size[2] = tokens[n / 3 % 5][0];
        rapt_plan *best, *named;
        assert_int_equal(rapt_plan_create(&best, device, &a), RAPT_OK);
        a.kernel = v->name;
        assert_int_equal(rapt_plan_create(&named, device, &a), RAPT_OK);
        assert_string_equal(rapt_plan_kernel(named), rapt_plan_kernel(best));
        assert_int_equal(rapt_plan_workspace_size(named), rapt_plan_workspace_size(best));
        rapt_plan_destroy(&best);
        rapt_plan_destroy(&named);
    }
}

/* Softmax of rows that are longer than its row's: by a row that holds them and that the device has the
 * shared memory for. */
static void softmax_of_long_rows(const struct stand_in *v, rapt_context *context, struct fake *fake,
                                 const struct kind *kind)
{
    char *base = (char *)((uintptr_t)1 << 44);
    for (int64_t columns = 1024; columns <= 1 << 20; columns *= 4) {
        rapt_tensor x = rapt_tensor_bhtd(base, RAPT_F32, 1, 1, 4, columns);
        rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
        assert_int_equal(rapt_softmax(rapt_device_at(context, 0), &softmax, NULL), RAPT_OK);
        int longer = strcmp(fake->launch[0].name, "softmax") != 0;
        assert_int_equal(longer, columns > 4096 && object_for(v, kind, "softmax_long") != NULL);
        assert_true(fake->launch[0].shared <= (unsigned)kind->max_shared);
        expect_objects(v, fake, kind);
    }
}

/* On one kind of device: the rows that the library says it uses are those it should; each forward
 * kernel of them serves some problems, and launches within the device's limits. */
static void on_kind(const struct stand_in *v, const struct kind *kind)
{
    struct fake *fake = begin(v);
    snprintf(fake->arch, sizeof fake->arch, "%s", kind->arch);
    fake->max_shared = kind->max_shared;
    rapt_context *context = session_open(v);
    rapt_kernel_info info = {.struct_size = sizeof info};
    int launches = 0, kernels = 0;
    for (int64_t i = 0; !rapt_kernel_at(context, i, &info); i++) {
        if (strcmp(info.backend, v->name) || !strcmp(info.name, "composed")) continue;
        const char *expected = object_for(v, kind, info.name);
        if (info.present != (expected && !strcmp(info.arch, expected)))
            print_error("%s for %s on %s\n", info.name, info.arch, kind->arch);
        assert_int_equal(info.present, expected && !strcmp(info.arch, expected));
        if (!info.present || strcmp(info.op, "forward")) continue;
        int ran = try_all(v, context, fake, kind, info.name);
        if (!ran) print_error("%s on %s serves none of these\n", info.name, kind->arch);
        assert_true(ran > 0);
        kernels++;
        launches += ran;
    }
    if (kind->objects[0]) softmax_of_long_rows(v, context, fake, kind);
    if (kind->objects[0]) by_the_backends_name(v, rapt_device_at(context, 0));
    int composed = try_all(v, context, fake, kind, "composed"),
        best = try_all(v, context, fake, kind, NULL);
    assert_true(kind->objects[0] ? kernels > 0 && composed > 0 && best == PROBLEMS
                                 : !kernels && !composed && !best);
    print_message("# %s: %d forward kernels, %d problems\n", kind->arch, kernels, launches);
    rapt_close(&context);
    session_end(v);
}

static void every_kernel(void **state)
{
    int count;
    const struct kind *kinds = kinds_of(*state, &count);
    for (int i = 0; i < count; i++) on_kind(*state, &kinds[i]);
}

/* Where a row of long rows needs more shared memory than there is, softmax itself takes them. */
static void little_shared_memory(void **state)
{
    const struct stand_in *v = *state;
    struct fake *fake = begin(v);
    if (!strcmp(v->name, "cuda")) snprintf(fake->arch, sizeof fake->arch, "sm_90");
    fake->max_shared = 16384;
    rapt_context *context = session_open(v);
    rapt_tensor x =
        rapt_tensor_bhtd((char *)((uintptr_t)1 << 44), RAPT_F32, 1, 1, 4, (int64_t)1 << 17);
    rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = x, .out = x};
    assert_int_equal(rapt_softmax(rapt_device_at(context, 0), &softmax, NULL), RAPT_OK);
    assert_string_equal(fake->launch[0].name, "softmax");
    rapt_close(&context);
    session_end(v);
}

/* Devices of different archs in one context: each takes its own objects, in turns. */
static void mixed_devices(void **state)
{
    const struct stand_in *v = *state;
    int count;
    const struct kind *kinds = kinds_of(v, &count),
                      *used[FAKE_DEVICES] = {&kinds[1], &kinds[2], &kinds[5], &kinds[count - 1]};
    struct fake *fake = begin(v);
    fake->devices = FAKE_DEVICES;
    for (int i = 0; i < FAKE_DEVICES; i++)
        snprintf(fake->arch_of[i], sizeof fake->arch_of[i], "%s", used[i]->arch);
    fake->max_shared = 65536;
    rapt_context *context = session_open(v);
    assert_int_equal(rapt_device_count(context), FAKE_DEVICES);
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < FAKE_DEVICES; i++) {
            rapt_attention a = large_problem(RAPT_BF16, 100, 128, 128, turn == 1);
            rapt_softmax_args softmax = {.struct_size = sizeof softmax, .x = a.q, .out = a.out};
            rapt_device *device = rapt_device_at(context, i);
            assert_true(try_kernel(device, turn == 2 ? "composed" : NULL, a));
            assert_int_equal(rapt_softmax(device, &softmax, NULL), RAPT_OK);
            for (int l = 0; l < fake->launch_count; l++)
                assert_int_equal(fake->launch[l].device, i);
            expect_objects(v, fake, used[i]);
        }
    rapt_close(&context);
    session_end(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(every_kernel), BOTH(little_shared_memory),
                                       BOTH(mixed_devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
