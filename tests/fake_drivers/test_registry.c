/* test_registry.c: the table of code objects: which devices a row runs on, what it refuses, its
 * grids. */
#include "session.h"

#include "gpu/gpu.h"

#include <stdio.h>

static void archs(void **state)
{
    (void)state;
    static const struct {
        enum vendor vendor;
        const char *row, *device;
        int runs;
    } cases[] = {
        {VENDOR_cuda, "sm_80", "sm_80", 1},      {VENDOR_cuda, "sm_80", "sm_86", 1},
        {VENDOR_cuda, "sm_80", "sm_89", 1},      {VENDOR_cuda, "sm_86", "sm_80", 0},
        {VENDOR_cuda, "sm_80", "sm_90", 0},      {VENDOR_cuda, "sm_90a", "sm_90", 1},
        {VENDOR_cuda, "sm_90a", "sm_100", 0},    {VENDOR_cuda, "sm_100", "sm_103", 1},
        {VENDOR_cuda, "sm_100a", "sm_103", 0},   {VENDOR_cuda, "sm_100", "sm_120", 0},
        {VENDOR_cuda, "sm_120", "sm_121", 1},    {VENDOR_cuda, "compute_80", "sm_75", 0},
        {VENDOR_cuda, "compute_80", "sm_80", 1}, {VENDOR_cuda, "compute_80", "sm_130", 1},
        {VENDOR_hip, "gfx942", "gfx942", 1},     {VENDOR_hip, "gfx942", "gfx90a", 0},
        {VENDOR_hip, "gfx1100", "gfx1101", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct row row = {.vendor = cases[i].vendor, .arch = cases[i].row};
        if ((row_suits(&row, cases[i].device) != 0) != cases[i].runs)
            print_error("%s on %s\n", cases[i].row, cases[i].device);
        assert_int_equal(row_suits(&row, cases[i].device) != 0, cases[i].runs);
    }
    struct row near = {.arch = "sm_86"}, far = {.arch = "sm_80"}, text = {.arch = "compute_80"};
    assert_true(row_suits(&near, "sm_89") > row_suits(&far, "sm_89"));
    assert_true(row_suits(&far, "sm_89") > row_suits(&text, "sm_89"));
}

/* A kernel compiled for less than sm_90, PTX of compute_80 on a newer device among them, has no
 * instruction that waits. */
static void early_launches(void **state)
{
    (void)state;
    int early = 0;
    for (int i = 0; i < kernel_row_count; i++) {
        const struct row *row = &kernel_rows[i];
        if (!(row->needs & NEED_EARLY)) continue;
        early++;
        if (row->vendor != VENDOR_cuda || atoi(strchr(row->arch, '_') + 1) < 90)
            print_error("%s of %s\n", row->name, row->arch);
        assert_int_equal(row->vendor, VENDOR_cuda);
        assert_true(atoi(strchr(row->arch, '_') + 1) >= 90);
    }
    assert_true(early > 0);
}

static const char *refusal(const struct row *row, const rapt_attention *a)
{
    static char reason[512];
    struct problem p = session_checked(a);
    const char *words = row_refuses(row, &p, reason, sizeof reason);
    return words ? words : "";
}

static char memory[1 << 20];

/* A row that can do nothing but plain attention. */
static const struct row plain = {.name = "plain",
                                 .dtype = DTYPE_f16,
                                 .d = 64,
                                 .dv = 64,
                                 .tile_q = 64,
                                 .tile_kv = 64,
                                 .shared = 1024,
                                 .can = CAN_MULTI_QUERY};

struct refused {
    const char *words;
    rapt_attention a;
};

/* Appends what words say of base after the statements that follow have changed it, as a. */
#define CASE(expected, ...)                                                                        \
    do {                                                                                           \
        rapt_attention a = base;                                                                   \
        __VA_ARGS__;                                                                               \
        cases[count].words = expected, cases[count++].a = a;                                       \
    } while (0)

/* The plain row names the one thing asked; a row that can do everything does not mind. */
static void refusals_of_features(void **state)
{
    (void)state;
    struct row able = plain;
    struct refused cases[16];
    int count = 0;
    able.can = CAN_ALL;
    const rapt_attention base = session_problem(memory);
    assert_string_equal(refusal(&plain, &base), "");
    const rapt_tensor per_head = {memory, RAPT_F32, {2, 4, 1, 1}, {4, 1, 0, 0}},
                      starts = {memory, RAPT_I32, {3, 1, 1, 1}, {1, 0, 0, 0}},
                      lengths = {memory, RAPT_I64, {2, 1, 1, 1}, {1, 0, 0, 0}};
    CASE("does not do causal masks", a.causal = 1);
    CASE("does not do sliding windows", a.window_left = RAPT_WINDOW(3));
    CASE("does not do sliding windows", a.window_right = RAPT_WINDOW(3));
    CASE("does not do softcap", a.softcap = 1);
    CASE("does not do a bias", a.bias = rapt_tensor_bhtd(memory, RAPT_F32, 1, 1, 64, 96));
    CASE("does not do a mask tensor", a.mask = rapt_tensor_bhtd(memory, RAPT_U8, 1, 1, 64, 96));
    CASE("does not do ALiBi", a.alibi_slope = per_head);
    CASE("does not do sinks", a.sink = per_head);
    CASE("does not do the log-sum-exp", a.lse = rapt_tensor_bhtd(memory, RAPT_F32, 2, 4, 64, 1));
    CASE("does not do kv_length", a.kv_length = lengths);
    CASE("does not do writing the weights",
         a.weights = rapt_tensor_bhtd(memory, RAPT_F32, 2, 4, 64, 96));
    CASE("does not do batch invariance", a.batch_invariant = 1);
    CASE("does not do an output of another dtype than q",
         a.out = rapt_tensor_bthd(memory, RAPT_F32, 2, 4, 64, 64));
    CASE("does not do a negative scale", a.scale = -1);
    CASE("does not do rows that are not contiguous, whole and 16-byte aligned", a.k.stride[2] = 65);
    CASE("does not do ragged queries", a.q_start = starts, a.q.size[0] = a.out.size[0] = 1);
    for (int i = 0; i < count; i++) {
        assert_string_equal(refusal(&plain, &cases[i].a), cases[i].words);
        assert_string_equal(refusal(&able, &cases[i].a), "");
    }
}

/* What depends on the row's own columns too, or on the size of the problem. */
static void refusals_of_shapes(void **state)
{
    (void)state;
    struct row mapped = plain, causal = plain, quantised = plain;
    struct refused cases[16];
    int count = 0;
    const rapt_attention base = session_problem(memory);
    const int64_t most = ((int64_t)1 << 29) - 1;
    const char *too_many = "counts tokens, channels, heads, batch and pages in 29 bits";
    const rapt_tensor starts = {memory, RAPT_I32, {3, 1, 1, 1}, {1, 0, 0, 0}},
                      pages = {memory, RAPT_I32, {2, 1, 3, 1}, {3, 0, 1, 0}};
    CASE("does not do ragged keys", a.kv_start = starts, a.k.size[0] = a.v.size[0] = 1);
    CASE("does not do paged K/V", a.page_table = pages);
    CASE("is for f16 (q is bf16)", a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = RAPT_BF16);
    CASE("is for heads of 64 and 64 channels (q has 128, v has 64)",
         a.q.size[3] = a.k.size[3] = 128);
    CASE("is for heads of 64 and 64 channels (q has 64, v has 128)",
         a.v.size[3] = a.out.size[3] = 128);
    CASE("does not do fewer channels than its tile", a.q.size[3] = a.k.size[3] = 32);
    CASE("does not do fewer channels than its tile", a.v.size[3] = a.out.size[3] = 32);
    CASE(too_many, a.k.size[2] = a.v.size[2] = most + 1);
    CASE(too_many, a.q.size[1] = a.out.size[1] = most + 1);
    CASE("", a.q.size[1] = a.out.size[1] = most - 1);
    CASE(too_many, a.page_table = pages, a.k.size[0] = a.v.size[0] = most + 1);
    CASE("does not do paged K/V", a.page_table = pages, a.k.size[0] = a.v.size[0] = most);
    CASE(too_many, a.weights = rapt_tensor_bhtd(memory, RAPT_F16, 2, 4, 64, most + 1),
         a.kv_start = starts, a.k.size[0] = a.v.size[0] = 1);
    for (int i = 0; i < count; i++)
        assert_string_equal(refusal(&plain, &cases[i].a), cases[i].words);
    causal.can |= CAN_CAUSAL;
    rapt_attention corner = base, bytes = base, nothing = base;
    corner.causal = 1;
    assert_string_equal(refusal(&causal, &corner), "");
    corner.align = RAPT_TOP_LEFT;
    assert_string_equal(refusal(&causal, &corner), "does not do top-left alignment");
    corner = base, corner.align = RAPT_TOP_LEFT;
    assert_string_equal(refusal(&causal, &corner), ""); /* nothing to align */
    corner.alibi_slope = rapt_tensor_bhtd(memory, RAPT_F32, 2, 4, 1, 1);
    causal.can |= CAN_ALIBI;
    assert_string_equal(refusal(&causal, &corner), "does not do top-left alignment");
    quantised.can |= CAN_I8; /* which is no other dtype in the sense of MIXED */
    bytes.k.dtype = bytes.v.dtype = RAPT_I8;
    bytes.k_scale = bytes.v_scale = (rapt_tensor){memory, RAPT_F32, {2, 2, 96, 1}, {192, 96, 1, 1}};
    assert_string_equal(refusal(&quantised, &bytes), "");
    mapped.needs = NEED_MAPS;
    static const int64_t strides[] = {-64, 0, 64, ((int64_t)1 << 37) - 8, (int64_t)1 << 37};
    for (int i = 0; i < 5 * 4 * 3; i++) { /* of each tensor, each axis but the last */
        rapt_attention a = base;
        rapt_tensor *tensors[] = {&a.q, &a.k, &a.v, &a.out};
        tensors[i / 5 % 4]->stride[i / 20] = strides[i % 5];
        if (!a.out.stride[i / 20]) continue; /* which no row is asked for */
        assert_string_equal(refusal(&mapped, &a),
                            i % 5 == 2 || i % 5 == 3
                                ? ""
                                : "reads through tensor maps (no axis may be empty, no stride 0, "
                                  "negative or over 2^37 elements)");
    }
    nothing.q.size[2] = nothing.out.size[2] = 0; /* which no launch reads */
    assert_string_equal(refusal(&mapped, &nothing), "");
    rapt_attention eights = bytes; /* whose result has another dtype than q in any case */
    eights.q.dtype = RAPT_I8, eights.out.dtype = RAPT_F32;
    eights.q_scale = (rapt_tensor){memory, RAPT_F32, {2, 4, 64, 1}, {256, 64, 1, 1}};
    quantised.dtype = DTYPE_i8;
    assert_string_equal(refusal(&quantised, &eights), "");
}
#undef CASE

/* The library's row of this name, the first of its archs: the others have the same features. */
static const struct row *row_of(const char *name)
{
    for (int i = 0; i < kernel_row_count; i++)
        if (!strcmp(kernel_rows[i].name, name)) return &kernel_rows[i];
    fail_msg("there is no row %s", name);
    return NULL;
}

struct limit {
    const char *row, *words; /* "": served */
    rapt_attention a;
};

#define SIZES(q_tokens, kv_tokens)                                                                 \
    a.q.size[2] = a.out.size[2] = q_tokens, a.k.size[2] = a.v.size[2] = kv_tokens
#define CHANNELS(channels)                                                                         \
    a.q = a.out = rapt_tensor_bthd(memory, RAPT_F16, 2, 4, 64, channels),                          \
    a.k = a.v = rapt_tensor_bthd(memory, RAPT_F16, 2, 2, 96, channels)
#define F32          a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = RAPT_F32
#define BIAS(keys)   a.bias = rapt_tensor_bhtd(memory, RAPT_F32, 2, 4, 256, keys)
#define MASK(keys)   a.mask = rapt_tensor_bhtd(memory, RAPT_U8, 2, 4, 256, keys)
#define HEADS(heads) a.q.size[1] = a.out.size[1] = heads
#define PACKED(sequences)                                                                          \
    a.q.size[0] = a.out.size[0] = a.k.size[0] = a.v.size[0] = 1,                                   \
    a.q_start = a.kv_start = rapt_tensor_bhtd(memory, RAPT_I32, sequences + 1, 1, 1, 1)
/* Three of each sequence. */
#define PAGES(tokens)                                                                              \
    a.k = a.v = rapt_tensor_bthd(memory, RAPT_F16, 6, 2, tokens, 64),                              \
    a.page_table = rapt_tensor_bthd(memory, RAPT_I32, 2, 1, 3, 1)
/* A head's scales in so many blocks of channels. */
#define KV_I8(k_blocks, v_blocks)                                                                  \
    a.k.dtype = a.v.dtype = RAPT_I8,                                                               \
    a.k_scale = rapt_tensor_bthd(memory, RAPT_F32, 2, 2, 96, k_blocks),                            \
    a.v_scale = rapt_tensor_bthd(memory, RAPT_F32, 2, 2, 96, v_blocks)
#define PACKED_I8 KV_I8(1, 1), PACKED(2), a.k_scale.size[0] = a.v_scale.size[0] = 1
#define CASE(name, expected, ...)                                                                  \
    do {                                                                                           \
        rapt_attention a = base;                                                                   \
        __VA_ARGS__;                                                                               \
        cases[count++] = (struct limit){name, expected, a};                                        \
    } while (0)

static void assert_limits(const struct limit *cases, int count)
{
    for (int i = 0; i < count; i++) {
        const char *words = refusal(row_of(cases[i].row), &cases[i].a);
        if (strcmp(words, cases[i].words)) print_error("%d: %s\n", i, cases[i].row);
        assert_string_equal(words, cases[i].words);
    }
}

/* The limits of features.def that the library's rows for NVIDIA's matrix units are made or measured
 * for, on either side of each. */
static void limits_of_tiles(void **state)
{
    static const char
        tall[] = "does not do fewer than 2048 queries, its tiles being tall",
        narrow[] = "does not do so many keys (2048 or more), its blocks being narrow",
        split[] = "does not do fewer than 256 queries unless named, its operands being split "
                  "first, or with batch_invariant any packed batch",
        aligned[] = "does not do rows that are not contiguous, whole and 16-byte aligned",
        whole[] = "does not do so many query rows or so few keys unless named, its tiles sharing "
                  "the keys",
        many[] = "does not do more than 256 ragged sequences",
        keys[] = "does not do more keys than it keeps in registers",
        plain_scores[] = "does not do scores without a softcap, having no other",
        ahead[] = "does not do rows that see keys past themselves, its distances having one sign",
        few[] = "does not do heads of 128 channels or fewer, its tile being wide",
        cells[] = "does not do a bias or mask whose rows are not contiguous and 16-byte aligned",
        odd_pages[] = "does not do pages whose tokens are no multiple of 16";
    struct limit cases[70];
    int count = 0;
    (void)state;
    const rapt_attention base = session_problem(memory);
    const rapt_tensor slopes = {memory, RAPT_F32, {2, 4, 1, 1}, {4, 1, 0, 0}};
    CASE("sm90_f16_d64_causal_long", tall, a.causal = 1, SIZES(2047, 2047));
    CASE("sm90_f16_d64_causal_long", "", a.causal = 1, SIZES(2048, 2048));
    CASE("sm90_f16_d256_short", narrow, CHANNELS(256), SIZES(64, 2048));
    CASE("sm90_f16_d256_short", "", CHANNELS(256), SIZES(64, 2047));
    CASE("sm90_f16_d256", "", CHANNELS(256), SIZES(64, 2048));
    CASE("sm90_f16_d256_causal_short", narrow, CHANNELS(256), a.causal = 1, SIZES(64, 2048));
    CASE("sm90_f16_d256_causal_short", "", CHANNELS(256), a.causal = 1, SIZES(64, 2047));
    CASE("sm90_f32_d128_strict", "", CHANNELS(128), F32, SIZES(256, 2048));
    CASE("sm90_f32_d64", split, F32, SIZES(255, 96));
    CASE("sm90_f32_d64", "", F32, SIZES(256, 96));
    CASE("sm90_f32_d64", "", F32, SIZES(255, 96), a.kernel = "sm90_f32_d64");
    CASE("sm90_f32_d64_features", "", F32, SIZES(256, 96), PACKED(3));
    CASE("sm90_f32_d64_features", split, F32, SIZES(255, 96), PACKED(3));
    CASE("sm90_f32_d64_features", split, F32, SIZES(256, 96), PACKED(3), a.batch_invariant = 1);
    CASE("sm90_f32_d64_features", "", F32, SIZES(256, 96), PACKED(256));
    CASE("sm90_f32_d64_features", many, F32, SIZES(256, 96), PACKED(257));
    CASE("sm90_f32_d64_features", many, F32, SIZES(256, 96), PACKED(257),
         a.q_start = (rapt_tensor){0}, a.q.size[0] = a.out.size[0] = 257);
    CASE("sm90_f32_d128_features", "", CHANNELS(68), F32, SIZES(256, 96));
    CASE("sm90_f32_d128_features", aligned, CHANNELS(72), F32, SIZES(256, 96), a.q.size[3] = 70,
         a.k.size[3] = 70);
    CASE("sm90_f32_d128_features", aligned, CHANNELS(72), F32, SIZES(256, 96), a.v.size[3] = 71,
         a.out.size[3] = 71);
    CASE("sm90_f32_d256_features", "", CHANNELS(132), F32, SIZES(256, 2048));
    CASE("sm90_f32_d256_features", "", CHANNELS(256), F32, SIZES(256, 96));
    CASE("sm90_f32_d256_features", split, CHANNELS(256), F32, SIZES(255, 96));
    CASE("sm90_f32_d256_features", few, CHANNELS(128), F32, SIZES(256, 96));
    CASE("sm90_f32_d256_features", "", CHANNELS(128), F32, SIZES(256, 96), a.v.size[3] = 132,
         a.out.size[3] = 132);
    CASE("sm90_f32_d256_features", "", CHANNELS(192), F32, SIZES(256, 96), a.v.size[3] = 128,
         a.out.size[3] = 128);
    CASE("sm90_f32_d64_cells", "", F32, SIZES(256, 96), BIAS(96));
    CASE("sm90_f32_d64_cells", "", F32, SIZES(256, 100), BIAS(100));
    CASE("sm90_f32_d64_cells", cells, F32, SIZES(256, 98), BIAS(98));
    CASE("sm90_f32_d64_cells", cells, F32, SIZES(256, 96), BIAS(96), a.bias.size[3] = 1,
         a.bias.stride[3] = 0);
    CASE("sm90_f32_d64_cells", "", F32, SIZES(256, 96), BIAS(96), a.bias.size[2] = 1,
         a.bias.stride[2] = 0);
    CASE("sm90_f32_d128_cells", "", CHANNELS(80), F32, SIZES(256, 96), MASK(96));
    CASE("sm90_f32_d128_cells", cells, CHANNELS(80), F32, SIZES(256, 100), MASK(100));
    CASE("sm90_f32_d64_features", "does not do a bias", F32, SIZES(256, 96), BIAS(96));
    CASE("sm90_f16_d128_split", "", CHANNELS(128), SIZES(64, 8192));
    CASE("sm90_f16_d128_split", "", CHANNELS(128), SIZES(1024, 8192));
    CASE("sm90_f16_d128_split", "", CHANNELS(128), SIZES(8, 8192), HEADS(16));
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(7, 8192), HEADS(16));
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(16, 8192)); /* 32 rows */
    CASE("sm90_f16_d128_split", "", CHANNELS(128), SIZES(17, 8192));
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(8192, 8192));
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(64, 256));
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(64, 8192), a.window_left = 100,
         a.window_right = 100);
    CASE("sm90_f16_d128_split", whole, CHANNELS(128), SIZES(64, 8192), a.align = RAPT_TOP_LEFT,
         a.causal = 1);
    CASE("sm90_f16_d128_split", "", CHANNELS(128), SIZES(64, 256),
         a.kernel = "sm90_f16_d128_split");
    CASE("sm90_f16_d64_linear", many, PACKED(257));
    CASE("sm90_f16_d64_linear", "", PACKED(256));
    CASE("sm80_f16_d64_features", "", PACKED(257));
    CASE("tiny_f16_d128", keys, CHANNELS(128), SIZES(8, 33));
    CASE("tiny_f16_d128", "", CHANNELS(128), SIZES(8, 32));
    CASE("sm90_f16_d64_capped", plain_scores, a.softcap = 0);
    CASE("sm90_f16_d64_capped", "", a.softcap = 30);
    CASE("sm90_f16_d64_features", "", a.softcap = 0);
    CASE("sm90_f16_d64_sloped", ahead, a.alibi_slope = slopes);
    CASE("sm90_f16_d64_sloped", "", a.alibi_slope = slopes, a.causal = 1);
    CASE("sm90_f16_d64_features", "", a.alibi_slope = slopes);
    CASE("sm90_f16_d64_linear", odd_pages, PAGES(8));
    CASE("sm90_f16_d64_linear", odd_pages, PAGES(24));
    CASE("sm90_f16_d64_linear", "", PAGES(16));
    CASE("sm90_f16_d64_linear", "", PAGES(48));
    CASE("sm90_f16_d64_split", odd_pages, PAGES(4096 + 8));
    CASE("sm90_f16_d64_split", "", PAGES(4096));
    CASE("sm80_f16_d64_features", "", PAGES(8));
    assert_limits(cases, count);
}

static rapt_attention with_stride(int tensor, int axis, int64_t more)
{
    rapt_attention a = session_problem(memory);
    rapt_tensor *t[] = {&a.q, &a.k, &a.v, &a.out};
    t[tensor]->stride[axis] += more;
    return a;
}

/* Rows that read 16 bytes at a time: of each of the four tensors, contiguous channels and steps of
 * 16 bytes on every other axis, whatever the element; an axis of one element has no step. */
static void alignment_of_rows(void **state)
{
    static const char words[] =
        "does not do rows that are not contiguous, whole and 16-byte aligned";
    const struct row *row = row_of("sm80_f16_d64");
    (void)state;
    for (int tensor = 0; tensor < 4; tensor++) {
        rapt_attention apart = with_stride(tensor, 3, 1); /* every other channel */
        assert_string_equal(refusal(row, &apart), words);
        for (int axis = 0; axis < 3; axis++)
            for (int64_t more = 0; more <= 16; more++) {
                rapt_attention a = with_stride(tensor, axis, more);
                assert_string_equal(refusal(row, &a), more % 8 ? words : "");
            }
    }
    struct row f32 = *row, narrow = *row;
    f32.dtype = DTYPE_f32, narrow.can |= CAN_NARROW;
    for (int64_t more = 0; more <= 8; more++) {
        rapt_attention a = with_stride(1, 2, more);
        a.q.dtype = a.k.dtype = a.v.dtype = a.out.dtype = RAPT_F32;
        assert_string_equal(refusal(&f32, &a), more % 4 ? words : "");
    }
    rapt_attention one = session_problem(memory);
    one.q.size[0] = one.k.size[0] = one.v.size[0] = one.out.size[0] = 1;
    one.q.stride[0] = 3;
    assert_string_equal(refusal(row, &one), "");
    one.q.size[3] = one.k.size[3] = 1; /* a single channel is contiguous */
    one.q.stride[3] = one.k.stride[3] = 5;
    assert_string_equal(refusal(&narrow, &one), "");
}

/* The same for how rows read memory. */
static void limits_of_memory(void **state)
{
    static const char
        queries[] = "does not do so many queries or query rows per KV head, or with "
                    "batch_invariant any packed batch",
        far_rows[] = "does not do tokens of K or V that lie backwards or over 2^24 elements apart",
        i8[] = "does not do i8 data", mixed[] = "does not do K/V of another dtype than q",
        other[] = "does not do keys and values but those of i8 with one scale for all channels",
        few[] = "does not do few query rows of a KV head, or packed invariant ones, unless named";
    struct limit cases[64];
    int count = 0;
    (void)state;
    const rapt_attention base = session_problem(memory);
    const rapt_tensor scale = {memory, RAPT_F32, {2, 2, 96, 1}, {192, 96, 1, 1}},
                      bias = {memory, RAPT_F32, {2, 64, 4, 4096}, {0, 0, 0, 1}};
    CASE("flash_nocausal_small", queries, SIZES(9, 96)); /* of 16 rows: 2 heads share K and V */
    CASE("flash_nocausal_small", "", SIZES(8, 96));
    CASE("flash_nocausal_small", queries, SIZES(1, 96), PACKED(2), a.batch_invariant = 1);
    CASE("flash_nocausal_small", "", SIZES(1, 96), PACKED(2));
    CASE("flash_nocausal_d64", "", SIZES(1, 96), PACKED(2), a.batch_invariant = 1);
    CASE("mfma_f16_d64", far_rows, a.k.stride[2] = -128);
    CASE("mfma_f16_d64", far_rows, a.v.stride[2] = -128);
    CASE("mfma_f16_d64", far_rows, a.k.stride[2] = (1 << 24) + 8);
    CASE("mfma_f16_d64", far_rows, a.v.stride[2] = (1 << 24) + 8);
    CASE("mfma_f16_d64", "", a.v.stride[2] = 1 << 24);
    CASE("flash_nocausal_d64", "", a.v.stride[2] = (1 << 24) + 8);
    CASE("sm80_f16_d64", "", a.v.stride[2] = (1 << 24) + 8);
    CASE("flash_nocausal_d64", i8, a.k.dtype = a.v.dtype = RAPT_I8, a.k_scale = a.v_scale = scale);
    CASE("flash", "", a.k.dtype = a.v.dtype = RAPT_I8, a.k_scale = a.v_scale = scale);
    CASE("sm90_f32_d64", mixed, F32, SIZES(256, 96), a.k.dtype = a.v.dtype = RAPT_F16);
    CASE("flash_nocausal_d64", "", F32, a.k.dtype = a.v.dtype = RAPT_F16);
    CASE("decode_d64", queries, F32, SIZES(17, 4096)); /* 16 queries of 2 heads each */
    CASE("decode_d64", "", F32, SIZES(16, 4096), a.causal = 1);
    CASE("decode_d64", "", F32, SIZES(16, 4096), a.k.dtype = a.v.dtype = RAPT_F16);
    CASE("decode_d64", "", SIZES(16, 96), a.k.dtype = a.v.dtype = RAPT_I8,
         a.k_scale = a.v_scale = scale);
    CASE("decode_d64", queries, F32, SIZES(33, 4096), PACKED(2)); /* their mean */
    CASE("decode_d64", "", F32, SIZES(32, 4096), PACKED(2));
    CASE("decode_d128", queries, F32, SIZES(9, 4096), HEADS(8)); /* half of the channels: half */
    CASE("decode_d128", "", F32, SIZES(8, 4096), HEADS(8));
    CASE("decode_d64", queries, SIZES(9, 4096)); /* 16 bits: 16 rows, or one query */
    CASE("decode_d64", "", SIZES(8, 4096));
    CASE("decode_d64", queries, SIZES(9, 4096), PACKED(2));
    CASE("decode_d64", queries, SIZES(2, 4096), HEADS(64));
    CASE("decode_d64", "", SIZES(1, 4096), HEADS(64));
    CASE("decode_d64", queries, SIZES(5, 4096), HEADS(64), a.bias = bias,
         a.bias.size[2] = 5); /* four with a bias */
    CASE("decode_d64", "", SIZES(4, 4096), HEADS(64), a.bias = bias);
    CASE("decode_d64", "", SIZES(4, 4096), HEADS(64), a.mask = bias, a.mask.dtype = RAPT_U8);
    CASE("decode_d256", queries, CHANNELS(256), SIZES(9, 4096));
    CASE("decode_d256", "", CHANNELS(256), SIZES(8, 4096));
    CASE("decode_f16_d64", queries, SIZES(17, 4096));
    CASE("decode_f16_d64", "", SIZES(16, 4096), PACKED(1));
    CASE("decode_f16_d64", "", SIZES(32, 4096), PACKED(2)); /* the mean of two sequences */
    CASE("decode_f16_d64", queries, SIZES(33, 4096), PACKED(2));
    CASE("decode_f16_d64", "", SIZES(16, 4096), HEADS(256)); /* 2048 rows */
    CASE("decode_f16_d64", queries, SIZES(16, 4096), HEADS(258));
    CASE("decode_f16_d64", "", SIZES(16 * 8000, 4096), HEADS(256), PACKED(8000));
    CASE("decode_f16_d64", queries, SIZES(16 * 8200, 4096), HEADS(256), PACKED(8200)); /* 2^31 */
    CASE("decode_d128", queries, SIZES(1, 96), PACKED(2), a.batch_invariant = 1);
    CASE("decode_d128", "", SIZES(8, 96), PACKED(2));
    CASE("decode_f16_i8_d128", other, CHANNELS(128), SIZES(8, 96));
    CASE("decode_f16_i8_d128", "", CHANNELS(128), SIZES(8, 96), KV_I8(1, 1));
    CASE("decode_f16_i8_d128", other, CHANNELS(128), SIZES(8, 96), KV_I8(4, 1));
    CASE("decode_f16_i8_d128", other, CHANNELS(128), SIZES(8, 96), KV_I8(1, 4));
    CASE("decode_f16_i8_d128", "", CHANNELS(128), SIZES(1 << 19, 96), KV_I8(1, 1));
    CASE("decode_f16_i8_d128", queries, CHANNELS(128), SIZES((1 << 19) + 1, 96), KV_I8(1, 1));
    CASE("decode_f16_d128", i8, CHANNELS(128), SIZES(8, 96), KV_I8(1, 1));
    CASE("sm90_f16_i8_d128", few, CHANNELS(128), SIZES(255, 96), KV_I8(1, 1));
    CASE("sm90_f16_i8_d128", "", CHANNELS(128), SIZES(256, 96), KV_I8(1, 1));
    CASE("sm90_f16_i8_d128", few, CHANNELS(128), SIZES(511, 96), PACKED_I8);
    CASE("sm90_f16_i8_d128", "", CHANNELS(128), SIZES(512, 96), PACKED_I8);
    CASE("sm90_f16_i8_d128", few, CHANNELS(128), SIZES(512, 96), PACKED_I8, a.batch_invariant = 1);
    assert_limits(cases, count);
    struct row portable = *row_of("flash_nocausal_d64"); /* one that takes any address */
    rapt_attention falling = base;
    portable.vendor = VENDOR_hip;
    falling.k.stride[2] = -128;
    assert_string_equal(refusal(&portable, &falling), "");
}
#undef CASE

/* The row of a vendor and arch that serves tokens of batch sequences in one packed batch. */
static const char *packed_kernel(const struct row *like, rapt_dtype dtype, int64_t tokens,
                                 int64_t batch, int64_t causal)
{
    rapt_attention a = {.struct_size = sizeof a, .causal = causal, .batch_invariant = 1};
    a.q = a.out = rapt_tensor_bthd(memory, dtype, 1, 8, tokens, 64);
    a.k = a.v = rapt_tensor_bthd(memory, dtype, 1, 2, 100 * tokens, 64);
    a.q_start = a.kv_start = rapt_tensor_bhtd(memory, RAPT_I32, batch + 1, 1, 1, 1);
    for (const struct row *row = kernel_rows; row < kernel_rows + kernel_row_count; row++)
        if (row->op == OP_forward && row->vendor == like->vendor &&
            !strcmp(row->arch, like->arch) && !*refusal(row, &a))
            return row->name;
    return "";
}

/* A sequence's bits would follow the kernel, so with batch_invariant the company chooses none. */
static void packed_batches_keep_their_kernel(void **state)
{
    static const rapt_dtype dtypes[] = {RAPT_F32, RAPT_F16, RAPT_BF16};
    int served = 0;
    (void)state;
    for (int i = 0; i < kernel_row_count; i++)
        for (int n = 0; n < 3 * 2 && kernel_rows[i].op == OP_forward; n++) {
            const char *one = packed_kernel(&kernel_rows[i], dtypes[n / 2], 1, 1, n % 2);
            served += *one != 0; /* an arch of few rows leaves the rest to those of another */
            assert_string_equal(packed_kernel(&kernel_rows[i], dtypes[n / 2], 60, 3, n % 2), one);
            assert_string_equal(packed_kernel(&kernel_rows[i], dtypes[n / 2], 5000, 256, n % 2),
                                one);
        }
    assert_true(served > 0);
}

static void grids(void **state)
{
    (void)state;
    struct row row = {.tile_q = 64, .tile_kv = 32};
    struct extent e = {.batch = 2,
                       .q_heads = 8,
                       .kv_heads = 2,
                       .group = 4,
                       .q_tokens = 100,
                       .kv_tokens = 50,
                       .columns = 50,
                       .rows = 1600,
                       .splits = 3,
                       .units = 20};
    struct grid grid;
#define EXPECT(function, gx, gy, gz)                                                               \
    do {                                                                                           \
        row.grid = function;                                                                       \
        assert_int_equal(row_grid(&row, &e, &grid), 1);                                            \
        assert_true(grid.x == gx && grid.y == gy && grid.z == gz);                                 \
    } while (0)
    EXPECT(row_of("flash")->grid, 2, 8, 2); /* tiles */
    EXPECT(row_of("qk")->grid, 2, 2, 16);   /* scores */
    EXPECT(row_of("rope")->grid, 25, 1, 1); /* rows */
    e.q_heads = 70000;
    EXPECT(row_of("flash")->grid, 2, 65535, 2);
    e.batch = 0;
    assert_int_equal(row_grid(&row, &e, &grid), 0);
    e.batch = 1;
    e.q_tokens = (int64_t)64 << 25;
    row.threads = 256;
    assert_int_equal(row_grid(&row, &e, &grid), 1);
    row.vendor = VENDOR_hip; /* 2^25 blocks of 256 threads are 2^33 threads */
    assert_int_equal(row_grid(&row, &e, &grid), -1);
    row.vendor = VENDOR_cuda;
    e.q_tokens = (int64_t)1 << 40;
    assert_int_equal(row_grid(&row, &e, &grid), -1);
#undef EXPECT
}

/* The composed path is there when all of its four pieces are. */
static void pieces_of_the_composed_path(void **state)
{
    (void)state;
    struct row piece = {.op = OP_qk};
    for (int absent = -1; absent < PIECE_COUNT; absent++) {
        struct gpu_kernel kernel = {.composed = 1};
        struct gpu_device device = {.kernels = &kernel, .kernel_count = 1};
        for (int i = 0; i < PIECE_COUNT; i++) kernel.piece[i] = i == absent ? NULL : &piece;
        assert_int_equal(kernels_composed(&device), absent < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(archs),
                                       cmocka_unit_test(early_launches),
                                       cmocka_unit_test(refusals_of_features),
                                       cmocka_unit_test(refusals_of_shapes),
                                       cmocka_unit_test(limits_of_tiles),
                                       cmocka_unit_test(alignment_of_rows),
                                       cmocka_unit_test(limits_of_memory),
                                       cmocka_unit_test(packed_batches_keep_their_kernel),
                                       cmocka_unit_test(grids),
                                       cmocka_unit_test(pieces_of_the_composed_path)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
