/* test_companions.c: a plan of a kernel that reads 16 bytes at a time carries another kernel for the
 * executes whose addresses are not so aligned: which one, with what workspace, and when it runs. */
#include "session.h"

#include "gpu/registry.h"

#include <stdio.h>

static _Alignas(256) char memory[6 << 18];
enum { HEAD = 128 };

static struct fake *begin_on(const struct stand_in *v, rapt_context **context, int shared,
                             const char *arch)
{
    struct fake *fake = session_begin(v);
#define OVERRIDE(name, stem) session_override(v, #stem, NULL);
#include "gpu/overrides.def"
#undef OVERRIDE
    if (shared) fake->max_shared = shared;
    if (arch) snprintf(fake->arch, sizeof fake->arch, "%s", arch);
    *context = session_open(v);
    return fake;
}

static struct fake *begin(const struct stand_in *v, rapt_context **context, int shared)
{
    return begin_on(v, context, shared, NULL);
}

/* One sequence of two heads. */
static rapt_attention problem_of(rapt_dtype dtype, int64_t tokens)
{
    rapt_attention a = {.struct_size = sizeof a};
    a.q = rapt_tensor_bthd(memory, dtype, 1, 2, tokens, HEAD);
    a.k = rapt_tensor_bthd(memory + (1 << 18), dtype, 1, 2, tokens, HEAD);
    a.v = rapt_tensor_bthd(memory + (2 << 18), dtype, 1, 2, tokens, HEAD);
    a.out = rapt_tensor_bthd(memory + (3 << 18), dtype, 1, 2, tokens, HEAD);
    return a;
}

static size_t workspace_of(rapt_device *device, const rapt_attention *a, const char *kernel)
{
    rapt_plan *plan = session_plan(device, a, kernel);
    size_t size = rapt_plan_workspace_size(plan);
    rapt_plan_destroy(&plan);
    return size;
}

/* The kernel that the library takes where rows themselves are not aligned. */
static void name_of_companion(rapt_device *device, rapt_attention a, char name[64])
{
    a.k.stride[2]++;
    rapt_plan *plan = session_plan(device, &a, NULL);
    snprintf(name, 64, "%s", rapt_plan_kernel(plan));
    rapt_plan_destroy(&plan);
}

/* Executes with one tensor `bytes` on; whether the companion ran. */
static int runs_companion(struct fake *fake, const rapt_plan *plan, rapt_attention a, int tensor,
                          int bytes, void *workspace)
{
    rapt_tensor *t[] = {&a.q, &a.k, &a.v, &a.out};
    t[tensor]->data = (char *)t[tensor]->data + bytes;
    fake->launch_count = 0;
    if (rapt_plan_execute(plan, &a, workspace, NULL)) fail_msg("%s", rapt_last_error());
    const struct attention_args *args = &fake->launch[0].args.attention;
    const struct view *views[] = {&args->q, &args->k, &args->v, &args->out};
    assert_true(fake->launch_count > 0);
    assert_ptr_equal(views[tensor]->data, t[tensor]->data);
    for (int i = 0; i < fake->launch_count; i++)
        if (!strcmp(fake->launch[i].name, rapt_plan_kernel(plan))) return 0;
    return 1;
}

/* Each of the four tensors decides, at every step below 16 bytes. */
static void each_address(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    char companion[64];
    rapt_plan *plan = session_plan(device, &a, NULL);
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    name_of_companion(device, a, companion);
    assert_string_not_equal(rapt_plan_kernel(plan), companion);
    for (int tensor = 0; tensor < 4; tensor++)
        for (int bytes = 0; bytes <= 32; bytes += 2) {
            int ran = runs_companion(fake, plan, a, tensor, bytes, workspace);
            assert_int_equal(ran, bytes % 16 != 0);
            if (ran) assert_string_equal(fake->launch[0].name, companion);
        }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* Rows that read the bias or the mask in pieces of 16 bytes: their addresses decide as well. */
static void cells_addresses(void **state)
{
    static _Alignas(256) char cells[4 * 256 * 256 + 32];
    static const char *const names[] = {"sm90_bf16_d128_biased", "sm90_bf16_d128_masked",
                                        "sm90_f32_d128_cells", "sm90_f32_d128_cells"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        int mask = i & 1, f32 = i > 1;
        rapt_context *context;
        struct fake *fake = begin_on(&vendors[0], &context, 227 << 10, "sm_90");
        rapt_device *device = rapt_device_at(context, 0);
        int64_t tokens = f32 ? 256 : 128;
        rapt_attention a = problem_of(f32 ? RAPT_F32 : RAPT_BF16, tokens);
        rapt_tensor *t = mask ? &a.mask : &a.bias;
        *t = rapt_tensor_bhtd(cells, mask ? RAPT_U8 : (rapt_dtype)a.q.dtype, 1, 1, tokens, tokens);
        rapt_plan *plan = session_plan(device, &a, NULL);
        const char *name = names[i];
        rapt_plan *named = session_plan(device, &a, name);
        void *workspace = NULL;
        size_t size = rapt_plan_workspace_size(plan), other = rapt_plan_workspace_size(named);
        assert_int_equal(rapt_alloc(device, size > other ? size : other, &workspace), RAPT_OK);
        assert_string_equal(rapt_plan_kernel(plan), name);
        for (int bytes = 0; bytes <= 32; bytes += 4) {
            t->data = cells + bytes;
            fake->launch_count = 0;
            assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
            assert_int_equal(!strncmp(fake->launch[0].name, name, strlen(name)), bytes % 16 == 0);
            rapt_status status = rapt_plan_execute(named, &a, workspace, NULL);
            assert_int_equal(status, bytes % 16 ? RAPT_UNSUPPORTED : RAPT_OK);
            if (status)
                assert_true(says(rapt_last_error(),
                                 "rapt_plan_execute: bias or mask is not 16-byte aligned (* needs "
                                 "that, and no other kernel was allowed or serves)"));
        }
        rapt_free(device, workspace);
        rapt_plan_destroy(&plan);
        rapt_plan_destroy(&named);
        rapt_close(&context);
        session_end(&vendors[0]);
    }
}

/* The driver is told of that tensor, not of another, and of its type. */
static void cells_encoded(void **state)
{
    static const struct {
        const char *name;
        rapt_dtype dtype, cells;
        int type; /* CUtensorMapDataType */
    } kinds[] = {{"sm90_bf16_d128_masked", RAPT_BF16, RAPT_U8, 0},
                 {"sm90_f16_d128_biased", RAPT_F16, RAPT_F16, 6},
                 {"sm90_f16_d128_biased_f32", RAPT_F16, RAPT_F32, 7},
                 {"sm90_bf16_d128_biased_f32", RAPT_BF16, RAPT_F32, 7},
                 {"sm90_bf16_d128_biased", RAPT_BF16, RAPT_BF16, 9}};
    static _Alignas(256) char cells[4 * 128 * 128];
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        rapt_context *context;
        struct fake *fake = begin_on(&vendors[0], &context, 227 << 10, "sm_90");
        rapt_attention a = problem_of(kinds[i].dtype, 128);
        struct fake_map map;
        a.kernel = kinds[i].name;
        *(kinds[i].cells == RAPT_U8 ? &a.mask : &a.bias) =
            rapt_tensor_bhtd(cells, kinds[i].cells, 1, 1, 128, 128);
        if (rapt_forward(rapt_device_at(context, 0), &a, NULL)) fail_msg("%s", rapt_last_error());
        assert_string_equal(fake->launch[0].name, kinds[i].name);
        memcpy(&map, &fake->launch[0].maps.cells, sizeof map);
        assert_ptr_equal(map.data, cells);
        assert_int_equal(map.type, kinds[i].type);
        rapt_close(&context);
        session_end(&vendors[0]);
    }
}

/* Which row serves which bias and mask: [1, 1, 128 or 1, 128], from one row to the next `down`. */
static void cells_chosen(void **state)
{
    static const struct {
        int64_t bias, mask; /* dtypes */
        int64_t bias_rows, bias_down, mask_rows, mask_down;
        const char *kernel;
    } cases[] = {
        {RAPT_BF16, 0, 128, 128, 0, 0, "sm90_bf16_d128_biased"},
        {RAPT_BF16, 0, 128, 129, 0, 0, "sm90_bf16_d128_biased_loose"},
        {RAPT_F32, 0, 128, 128, 0, 0, "sm90_bf16_d128_biased_f32"},
        {RAPT_F32, 0, 128, 130, 0, 0, "sm90_bf16_d128_biased_f32_loose"},
        {0, RAPT_U8, 0, 0, 128, 128, "sm90_bf16_d128_masked"},
        {0, RAPT_U8, 0, 0, 128, 136, "sm90_bf16_d128_masked_loose"},
        {0, RAPT_U8, 0, 0, 1, 128, "sm90_bf16_d128_keyed"},
        {RAPT_BF16, 0, 1, 129, 0, 0, "sm90_bf16_d128_keyed"},
        {RAPT_F32, RAPT_U8, 1, 128, 1, 128, "sm90_bf16_d128_keyed"},
        {RAPT_BF16, RAPT_U8, 128, 128, 1, 128, "sm80_bf16_d128_features"},
    };
    static _Alignas(256) char cells[128 * 136 * 4];
    (void)state;
    rapt_context *context;
    begin_on(&vendors[0], &context, 227 << 10, "sm_90");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rapt_attention a = problem_of(RAPT_BF16, 128);
        if (cases[i].bias)
            a.bias = rapt_tensor_bhtd(cells, cases[i].bias, 1, 1, cases[i].bias_rows, 128);
        if (cases[i].mask)
            a.mask = rapt_tensor_bhtd(cells, cases[i].mask, 1, 1, cases[i].mask_rows, 128);
        if (cases[i].bias) a.bias.stride[2] = cases[i].bias_down;
        if (cases[i].mask) a.mask.stride[2] = cases[i].mask_down;
        rapt_plan *plan = session_plan(rapt_device_at(context, 0), &a, NULL);
        assert_string_equal(rapt_plan_kernel(plan), cases[i].kernel);
        rapt_plan_destroy(&plan);
    }
    rapt_close(&context);
    session_end(&vendors[0]);
}

/* What such a row refuses, by name. */
static void cells_refused(void **state)
{
    static const char map[] =
        "reads a bias or mask through a tensor map (keys contiguous, a row for each query, "
        "strides multiples of 16 bytes and not negative)";
    static char cells[128 * 260];
    (void)state;
    rapt_context *context;
    begin_on(&vendors[0], &context, 227 << 10, "sm_90");
    for (int i = 0; i < 13; i++) {
        rapt_attention a = problem_of(RAPT_BF16, 128);
        const char *sentence = map;
        a.kernel = i < 4 || i > 6 ? "sm90_bf16_d128_biased" : "sm90_bf16_d128_masked";
        a.bias = rapt_tensor_bhtd(cells, RAPT_BF16, 1, 1, 128, 128);
        if (i == 0) a.bias.stride[2] = 130;
        if (i == 1) a.bias.size[2] = 1;
        if (i == 2) a.bias.dtype = RAPT_F32, sentence = "is for problems with a bias of q's type";
        if (i == 6)
            a.kernel = "sm90_bf16_d128_biased_f32", sentence = "is for problems with a bias of f32";
        if (i == 3) a.bias.stride[3] = 2, a.bias.stride[2] = 256;
        if (i == 7) a.bias.data = cells + sizeof cells - 256, a.bias.stride[2] = -128;
        if (i == 8) a.bias.stride[2] = (int64_t)1 << 37; /* 2^38 bytes */
        if (i == 4) a.bias = (rapt_tensor){0}, sentence = "is for problems with a mask tensor";
        if (i == 5) a.mask = rapt_tensor_bhtd(cells, RAPT_U8, 1, 1, 128, 136), a.bias = a.lse;
        if (i == 5) a.mask.size[3] = 128;
        if (i == 9)
            a.kernel = "sm90_bf16_d128_biased_loose",
            sentence = "is for a bias or mask whose keys are contiguous";
        if (i == 9) a.bias.stride[3] = 2, a.bias.stride[2] = 256;
        if (i > 9)
            a.kernel = "sm90_bf16_d128_keyed",
            sentence = "is for problems with a bias or a mask tensor of one row for all queries";
        if (i == 11) a.bias = (rapt_tensor){0};
        if (i == 12) a.bias.size[2] = 1, a.mask = rapt_tensor_bhtd(cells, RAPT_U8, 1, 1, 128, 128);
        rapt_plan *plan = NULL;
        assert_int_equal(rapt_plan_create(&plan, rapt_device_at(context, 0), &a), RAPT_UNSUPPORTED);
        char whole[300];
        snprintf(whole, sizeof whole, "rapt_plan_create: no kernel of cuda:0 serves this (%s: %s)",
                 a.kernel, sentence);
        assert_string_equal(rapt_last_error(), whole);
    }
    rapt_close(&context);
    session_end(&vendors[0]);
}

/* Tiles of a mask and of a bias lie behind a row's own shared memory: a device that lacks room for
 * those that a problem has refuses it, and others run. */
static void cells_need_room(void **state)
{
    static const char name[] = "sm80_bf16_d128_features";
    static char cells[128 * 128 * 4];
    const struct row *row = kernel_rows;
    while (strcmp(row->name, name) || strcmp(row->arch, "sm_90a")) row++;
    const int tile = row->tile_q * row->tile_kv;
    (void)state;
    for (int room = 0; room <= 6; room++)
        for (int n = 0; n < 6; n++) { /* mask or not; no bias, bf16, f32 */
            rapt_context *context;
            struct fake *fake = begin_on(&vendors[0], &context, row->shared + room * tile, "sm_90");
            rapt_attention a = problem_of(RAPT_BF16, 128);
            int bytes = n % 2 + (int)(n / 2 * 2);
            a.kernel = name;
            if (n % 2) a.mask = rapt_tensor_bhtd(cells, RAPT_U8, 1, 1, 128, 128);
            if (n / 2)
                a.bias = rapt_tensor_bhtd(cells, n / 2 == 1 ? RAPT_BF16 : RAPT_F32, 1, 1, 128, 128);
            rapt_status status = rapt_forward(rapt_device_at(context, 0), &a, NULL);
            char words[80];
            snprintf(words, sizeof words, "needs %d bytes of shared memory",
                     row->shared + bytes * tile);
            assert_int_equal(status, bytes > room ? RAPT_UNSUPPORTED : RAPT_OK);
            if (status) assert_non_null(strstr(rapt_last_error(), words));
            else assert_int_equal(fake->launch[0].shared, (unsigned)(row->shared + bytes * tile));
            rapt_close(&context);
            session_end(&vendors[0]);
        }
}

/* A kernel asked for by name runs or refuses; no other takes its place. */
static void no_companion_of_a_name(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    rapt_plan *any = session_plan(device, &a, NULL),
              *plan = session_plan(device, &a, rapt_plan_kernel(any));
    void *workspace = NULL;
    assert_int_equal(rapt_alloc(device, rapt_plan_workspace_size(plan), &workspace), RAPT_OK);
    a.kernel = rapt_plan_kernel(plan);
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_OK);
    a.v.data = memory + (2 << 18) + 2;
    fake->launch_count = 0;
    assert_int_equal(rapt_plan_execute(plan, &a, workspace, NULL), RAPT_UNSUPPORTED);
    assert_true(says(rapt_last_error(),
                     "rapt_plan_execute: q, k, v or out is not 16-byte aligned (* needs that, and "
                     "no other kernel was allowed or serves)"));
    assert_non_null(strstr(rapt_last_error(), rapt_plan_kernel(plan)));
    assert_int_equal(fake->launch_count, 0);
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_plan_destroy(&any);
    rapt_close(&context);
    session_end(v);
}

/* The backend's name is no kernel's: it means the best one, companion and all. */
static void companion_of_the_backend(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    a.kernel = v->name;
    rapt_plan *plan = session_plan(rapt_device_at(context, 0), &a, v->name);
    void *workspace = NULL;
    assert_int_equal(
        rapt_alloc(rapt_device_at(context, 0), rapt_plan_workspace_size(plan), &workspace),
        RAPT_OK);
    assert_int_equal(runs_companion(fake, plan, a, 2, 2, workspace), 1);
    rapt_free(rapt_device_at(context, 0), workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* rapt_explain: a line for each kernel that refuses, the last one for the kernel that runs. */
static void explained(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    char text[16384], name[64], expected[96];
    name_of_companion(device, a, name);
    a.k.stride[2]++;
    size_t length = rapt_explain(device, &a, text, sizeof text);
    assert_true(length == strlen(text) && text[length - 1] == '\n');
    assert_true(*text != '\n' && !strstr(text, "\n\n"));
    snprintf(expected, sizeof expected, "\n%s: runs\n", name);
    assert_string_equal(text + length - strlen(expected), expected);
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
        assert_non_null(strstr(line, ": "));
    assert_true(lines > 2);
    rapt_close(&context);
    session_end(v);
}

/* A kernel that takes any address loads nothing for a second one. */
static void none_where_none_is_needed(void **state)
{
    const struct stand_in *v = *state;
    rapt_context *context;
    struct fake *fake = begin(v, &context, 0);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(RAPT_BF16, 100);
    a.k.stride[2]++;
    rapt_plan *plan = session_plan(device, &a, NULL);
    assert_int_equal(fake->modules, 1);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
}

/* The workspace is the larger of the two kernels'. shared: of the device, where only some rows fit. */
static int larger_of_companion(const struct stand_in *v, int shared, rapt_dtype dtype,
                               int64_t tokens)
{
    rapt_context *context;
    struct fake *fake = begin(v, &context, shared);
    rapt_device *device = rapt_device_at(context, 0);
    rapt_attention a = problem_of(dtype, tokens);
    char companion[64];
    rapt_plan *plan = session_plan(device, &a, NULL);
    void *workspace = NULL;
    name_of_companion(device, a, companion);
    size_t size = rapt_plan_workspace_size(plan),
           own = workspace_of(device, &a, rapt_plan_kernel(plan)),
           other = workspace_of(device, &a, companion);
    assert_int_equal(size, own > other ? own : other);
    assert_int_equal(rapt_alloc(device, size, &workspace), RAPT_OK);
    if (strcmp(companion, rapt_plan_kernel(plan)) != 0) {
        assert_int_equal(runs_companion(fake, plan, a, 1, 0, workspace), 0);
        assert_int_equal(runs_companion(fake, plan, a, 1, 8, workspace), 1);
    }
    rapt_free(device, workspace);
    rapt_plan_destroy(&plan);
    rapt_close(&context);
    session_end(v);
    return other > own;
}

static void workspaces(void **state)
{
    const struct stand_in *v = *state;
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    static const int64_t tokens[] = {2, 8, 32, 200};
    int larger = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
            larger_of_companion(v, 0, dtypes[i], tokens[j]);
            /* keys in registers need no shared memory, the composed path less than flash */
            if (!strcmp(v->name, "cuda") && tokens[j] <= 32)
                larger += larger_of_companion(v, 40000, dtypes[i], tokens[j]);
        }
    assert_true(strcmp(v->name, "cuda") || larger > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {BOTH(each_address),
                                       BOTH(no_companion_of_a_name),
                                       BOTH(companion_of_the_backend),
                                       cmocka_unit_test(cells_addresses),
                                       cmocka_unit_test(cells_encoded),
                                       cmocka_unit_test(cells_chosen),
                                       cmocka_unit_test(cells_refused),
                                       cmocka_unit_test(cells_need_room),
                                       BOTH(explained),
                                       BOTH(none_where_none_is_needed),
                                       BOTH(workspaces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
