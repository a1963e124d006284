/* Matrix instructions, lane by lane. The places of the elements are written down here from AMD's
   ISA documents (tables of the matrix chapters) and AMD's matrix instruction calculator; `known`
   holds points quoted from the latter. The inputs are small numbers, so that every product and sum
   is exact in any order. */
#include "support.h"

#include <math.h>

enum element { F16, BF16, F32, FP8, BF8, I8, U8, I4, U4, I32 };
enum family { MFMA, WMMA11, WMMA12 };

struct row {
    const char *kernel;
    enum family family;
    int m, k, blocks;
    enum element a, b, d;
};

static const struct row rows[] = {
    {"mfma_f32_32x32x1f32", MFMA, 32, 1, 2, F32, F32, F32},
    {"mfma_f32_16x16x1f32", MFMA, 16, 1, 4, F32, F32, F32},
    {"mfma_f32_4x4x1f32", MFMA, 4, 1, 16, F32, F32, F32},
    {"mfma_f32_32x32x2f32", MFMA, 32, 2, 1, F32, F32, F32},
    {"mfma_f32_16x16x4f32", MFMA, 16, 4, 1, F32, F32, F32},
    {"mfma_f32_32x32x4f16", MFMA, 32, 4, 2, F16, F16, F32},
    {"mfma_f32_16x16x4f16", MFMA, 16, 4, 4, F16, F16, F32},
    {"mfma_f32_4x4x4f16", MFMA, 4, 4, 16, F16, F16, F32},
    {"mfma_f32_32x32x8f16", MFMA, 32, 8, 1, F16, F16, F32},
    {"mfma_f32_16x16x16f16", MFMA, 16, 16, 1, F16, F16, F32},
    {"mfma_f32_32x32x4bf16_1k", MFMA, 32, 4, 2, BF16, BF16, F32},
    {"mfma_f32_16x16x4bf16_1k", MFMA, 16, 4, 4, BF16, BF16, F32},
    {"mfma_f32_4x4x4bf16_1k", MFMA, 4, 4, 16, BF16, BF16, F32},
    {"mfma_f32_32x32x8bf16_1k", MFMA, 32, 8, 1, BF16, BF16, F32},
    {"mfma_f32_16x16x16bf16_1k", MFMA, 16, 16, 1, BF16, BF16, F32},
    {"mfma_i32_32x32x8i8", MFMA, 32, 8, 1, I8, I8, I32},
    {"mfma_i32_16x16x16i8", MFMA, 16, 16, 1, I8, I8, I32},
    {"mfma_i32_32x32x16_i8", MFMA, 32, 16, 1, I8, I8, I32},
    {"mfma_i32_16x16x32_i8", MFMA, 16, 32, 1, I8, I8, I32},
    {"mfma_f32_16x16x32_fp8_fp8", MFMA, 16, 32, 1, FP8, FP8, F32},
    {"mfma_f32_16x16x32_fp8_bf8", MFMA, 16, 32, 1, FP8, BF8, F32},
    {"mfma_f32_16x16x32_bf8_fp8", MFMA, 16, 32, 1, BF8, FP8, F32},
    {"mfma_f32_16x16x32_bf8_bf8", MFMA, 16, 32, 1, BF8, BF8, F32},
    {"mfma_f32_32x32x16_fp8_fp8", MFMA, 32, 16, 1, FP8, FP8, F32},
    {"mfma_f32_32x32x16_bf8_bf8", MFMA, 32, 16, 1, BF8, BF8, F32},
    {"mfma_f32_16x16x8_xf32", MFMA, 16, 8, 1, F32, F32, F32},
    {"mfma_f32_32x32x4_xf32", MFMA, 32, 4, 1, F32, F32, F32},
    {"mfma_f32_16x16x32_f16", MFMA, 16, 32, 1, F16, F16, F32},
    {"mfma_f32_32x32x16_f16", MFMA, 32, 16, 1, F16, F16, F32},
    {"mfma_f32_16x16x32_bf16", MFMA, 16, 32, 1, BF16, BF16, F32},
    {"mfma_f32_32x32x16_bf16", MFMA, 32, 16, 1, BF16, BF16, F32},
    {"mfma_i32_16x16x64_i8", MFMA, 16, 64, 1, I8, I8, I32},
    {"mfma_i32_32x32x32_i8", MFMA, 32, 32, 1, I8, I8, I32},
    {"wmma_f32_16x16x16_f16", WMMA11, 16, 16, 1, F16, F16, F32},
    {"wmma_f32_16x16x16_bf16", WMMA11, 16, 16, 1, BF16, BF16, F32},
    {"wmma_f16_16x16x16_f16", WMMA11, 16, 16, 1, F16, F16, F16},
    {"wmma_f16_16x16x16_f16_high", WMMA11, 16, 16, 1, F16, F16, F16},
    {"wmma_bf16_16x16x16_bf16", WMMA11, 16, 16, 1, BF16, BF16, BF16},
    {"wmma_i32_16x16x16_iu8_11", WMMA11, 16, 16, 1, I8, I8, I32},
    {"wmma_i32_16x16x16_iu8_01", WMMA11, 16, 16, 1, U8, I8, I32},
    {"wmma_i32_16x16x16_iu4_11", WMMA11, 16, 16, 1, I4, I4, I32},
    {"wmma_f32_16x16x16_f16", WMMA12, 16, 16, 1, F16, F16, F32},
    {"wmma_f32_16x16x16_bf16", WMMA12, 16, 16, 1, BF16, BF16, F32},
    {"wmma_f16_16x16x16_f16", WMMA12, 16, 16, 1, F16, F16, F16},
    {"wmma_bf16_16x16x16_bf16", WMMA12, 16, 16, 1, BF16, BF16, BF16},
    {"wmma_f32_16x16x16_fp8_fp8", WMMA12, 16, 16, 1, FP8, FP8, F32},
    {"wmma_f32_16x16x16_fp8_bf8", WMMA12, 16, 16, 1, FP8, BF8, F32},
    {"wmma_f32_16x16x16_bf8_fp8", WMMA12, 16, 16, 1, BF8, FP8, F32},
    {"wmma_f32_16x16x16_bf8_bf8", WMMA12, 16, 16, 1, BF8, BF8, F32},
    {"wmma_i32_16x16x16_iu8_11", WMMA12, 16, 16, 1, I8, I8, I32},
    {"wmma_i32_16x16x16_iu8_01", WMMA12, 16, 16, 1, U8, I8, I32},
    {"wmma_i32_16x16x16_iu4_11", WMMA12, 16, 16, 1, I4, I4, I32},
    {"wmma_i32_16x16x32_iu4_10", WMMA12, 16, 32, 1, I4, U4, I32},
};

static int bits_of(enum element e)
{
    return e == F32 || e == I32 ? 32 : e == F16 || e == BF16 ? 16 : e == I4 || e == U4 ? 4 : 8;
}

struct place {
    int lane, reg, bit;
};

/* Element (i, k) of A, or (j, k) of B, of block b. */
static struct place input_place(const struct row *r, enum element type, int i, int k, int b)
{
    int width = bits_of(type), lane = i, element = k;
    if (r->family == MFMA && r->blocks > 1) {
        lane = i + r->m * b;
    } else if (r->family == MFMA) {
        int per_lane = r->m * r->k / 64;
        lane = i + r->m * (k / per_lane);
        element = k % per_lane;
    } else if (r->family == WMMA12) {
        int run = type == I4 || type == U4 ? 8 : 4; /* neighbouring k in one lane half */
        lane = i + 16 * (k / run % 2);
        element = k / (2 * run) * run + k % run;
    }
    return (struct place){lane, element * width / 32, element * width % 32};
}

/* Element (i, j) of C and D. */
static struct place result_place(const struct row *r, int i, int j, int b)
{
    bool narrow = bits_of(r->d) == 16;
    if (r->family == WMMA11)
        return (struct place){j + 16 * (i & 1), i >> 1, strstr(r->kernel, "_high") ? 16 : 0};
    if (r->family == WMMA12) {
        int v = i & 7;
        return (struct place){j + 16 * (i >> 3), narrow ? v / 2 : v, narrow ? 16 * (v & 1) : 0};
    }
    if (r->m == 32)
        return (struct place){j + 32 * (i >> 2 & 1), 16 * b + 4 * (i >> 3) + (i & 3), 0};
    if (r->m == 16) return (struct place){j + 16 * (i >> 2), 4 * b + (i & 3), 0};
    return (struct place){j + 4 * b, i, 0};
}

static const struct {
    const char *kernel;
    enum family family;
    char matrix;
    int row, column;
    struct place at;
} known[] = {
    {"mfma_f32_32x32x8f16", MFMA, 'D', 9, 3, {3, 5, 0}},
    {"wmma_f32_16x16x16_f16", WMMA11, 'D', 9, 3, {19, 4, 0}},
    {"wmma_f32_16x16x16_f16", WMMA12, 'D', 9, 3, {19, 1, 0}},
    {"wmma_f32_16x16x16_f16", WMMA12, 'A', 9, 5, {25, 0, 16}},
};

static void test_known_places(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof known / sizeof *known; n++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const struct row *r = &rows[i];
            if (strcmp(r->kernel, known[n].kernel) != 0 || r->family != known[n].family) continue;
            struct place p = known[n].matrix == 'D'
                                 ? result_place(r, known[n].row, known[n].column, 0)
                                 : input_place(r, r->a, known[n].row, known[n].column, 0);
            assert_memory_equal(&p, &known[n].at, sizeof p);
        }
}

/* Bits of a small number: mantissa and exponent written out for the narrow formats. */
static uint32_t encode(enum element type, double x, bool fnuz)
{
    int e;
    if (type >= I8)
        return (uint32_t)(int)x & (bits_of(type) == 32 ? ~0u : (1u << bits_of(type)) - 1);
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    if (type == F32) return u;
    if (type == BF16) return u >> 16;
    if (x == 0) return 0;
    double m = frexp(fabs(x), &e); /* 0.5 <= m < 1 */
    int mantissa = type == F16   ? 10
                   : type == FP8 ? 3
                                 : 2,
        bias = type == F16 ? 15 : (type == FP8 ? 7 : 15) + fnuz;
    uint32_t code =
        (uint32_t)(e - 1 + bias) << mantissa | (uint32_t)((2 * m - 1) * (1 << mantissa));
    return code | (x < 0 ? 1u << (bits_of(type) - 1) : 0);
}

static double random_value(enum element type, uint64_t *seed)
{
    int r = (int)(next_random(seed) >> 40);
    switch (type) {
    case I8:
        return (r & 255) - 128;
    case U8:
        return r & 255;
    case I4:
        return (r & 15) - 8;
    case U4:
        return r & 15;
    case I32:
        return r % 100000 - 50000;
    case BF8:
        return ((r & 7) - 3) * 0.5; /* two mantissa bits: up to 2 in halves */
    default:
        return ((r & 15) - 7) * 0.5;
    }
}

static void put(uint32_t *words, int per_lane, struct place p, uint32_t bits)
{
    words[p.lane * per_lane + p.reg] |= bits << p.bit;
}

static void fill(const struct row *r, enum element type, const double *x, bool fnuz,
                 uint32_t *words, int per_lane)
{
    for (int b = 0; b < r->blocks; b++)
        for (int i = 0; i < r->m; i++)
            for (int k = 0; k < r->k; k++) {
                struct place p = input_place(r, type, i, k, b);
                uint32_t bits = encode(type, x[(b * r->m + i) * r->k + k], fnuz);
                put(words, per_lane, p, bits);
                if (r->family == WMMA11) { /* lanes 16 to 31 repeat the input */
                    p.lane += 16;
                    put(words, per_lane, p, bits);
                }
            }
}

static void check_row(struct object *o, const struct row *r, int wave, bool fnuz, uint64_t *seed)
{
    static double a[4096], b[4096], c[4096];
    int elements = r->m * r->k * r->blocks, results = r->m * r->m * r->blocks;
    int copies = r->family == WMMA11 ? 2 : 1;
    int na = elements * bits_of(r->a) / 32 * copies / wave, nc = results / wave;
    if (bits_of(r->d) == 16 && r->family == WMMA12) nc /= 2;
    uint32_t *A = buffer(o, (size_t)(wave * na) * 4), *B = buffer(o, (size_t)(wave * na) * 4);
    uint32_t *C = buffer(o, (size_t)(wave * nc) * 4), *D = buffer(o, (size_t)(wave * nc) * 4);
    for (int i = 0; i < elements; i++)
        a[i] = random_value(r->a, seed), b[i] = random_value(r->b, seed);
    for (int i = 0; i < results; i++) c[i] = random_value(r->d, seed);
    fill(r, r->a, a, fnuz, A, na);
    fill(r, r->b, b, fnuz, B, na);
    for (int n = 0; n < r->blocks; n++)
        for (int i = 0; i < r->m; i++)
            for (int j = 0; j < r->m; j++)
                put(C, nc, result_place(r, i, j, n),
                    encode(r->d, c[(n * r->m + i) * r->m + j], fnuz));
    clear_args(o);
    arg_pointer(o, A);
    arg_pointer(o, B);
    arg_pointer(o, C);
    arg_pointer(o, D);
    assert_launch(o, r->kernel, 1, (uint32_t)wave, 0);
    for (int n = 0; n < r->blocks; n++)
        for (int i = 0; i < r->m; i++)
            for (int j = 0; j < r->m; j++) {
                double sum = c[(n * r->m + i) * r->m + j];
                struct place p = result_place(r, i, j, n);
                for (int k = 0; k < r->k; k++)
                    sum += a[(n * r->m + i) * r->k + k] * b[(n * r->m + j) * r->k + k];
                uint32_t got = D[p.lane * nc + p.reg] >> p.bit, expected = encode(r->d, sum, fnuz);
                if (bits_of(r->d) == 16) got &= 0xffff;
                if (r->d == BF16) { /* rounded to 8 bits */
                    float x = (float)sum;
                    memcpy(&expected, &x, 4);
                    expected = (expected + 0x7fff + (expected >> 16 & 1)) >> 16;
                }
                if (got != expected && !(sum == 0 && (got & 0x7fffffff) == 0))
                    fail_msg("%s: D[%d][%d] of block %d in v%d lane %d is %08x, expected %08x (%g)",
                             r->kernel, i, j, n, p.reg, p.lane, got, expected, sum);
            }
    amdgpu_memory_remove(o->memory, A);
    amdgpu_memory_remove(o->memory, B);
    amdgpu_memory_remove(o->memory, C);
    amdgpu_memory_remove(o->memory, D);
    while (o->buffer_count) free(o->buffers[--o->buffer_count]);
}

/* How many matrix instructions each target's object must hold. */
static int expected_count(const char *target)
{
    if (strcmp(target, "gfx90a") == 0) return 17;
    if (strcmp(target, "gfx942") == 0) return 25;
    if (strcmp(target, "gfx950") == 0) return 29;
    if (strcmp(target, "gfx1030") == 0) return 0;
    return strncmp(target, "gfx12", 5) == 0 ? 12 : 8;
}

static void test_layouts(void **state)
{
    struct object o;
    const char *target = *state;
    enum family family = strncmp(target, "gfx9", 4) == 0    ? MFMA
                         : strncmp(target, "gfx12", 5) == 0 ? WMMA12
                                                            : WMMA11;
    uint64_t seed = 21;
    int count = 0;
    object_open(&o, "matrix", target);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].family != family || !amdgpu_module_kernel(o.module, rows[i].kernel)) continue;
        check_row(&o, &rows[i], wave_size(target), strcmp(target, "gfx942") == 0, &seed);
        assert_int_equal(o.stats.matrix, 1);
        count++;
    }
    assert_int_equal(count, expected_count(target));
    object_close(&o);
}

/* Element 0 of row 0 of A is x, all of B are y, C is c but for D[0][0], the result: 0. */
static float product_of(const char *target, const char *kernel, uint16_t x, uint16_t y, uint32_t c)
{
    struct object o;
    object_open(&o, "matrix", target);
    int wave = wave_size(target), copies = wave == 64 ? 1 : 2;
    uint32_t *A = buffer(&o, 2048), *B = buffer(&o, 2048), *C = buffer(&o, 4096),
             *D = buffer(&o, 4096);
    for (int i = 0; i < 512; i++) B[i] = y * 0x10001u;
    for (int i = 0; i < 1024; i++) C[i] = i ? c : 0;
    for (int i = 0; i < copies; i++) A[i * 128] = x; /* lane 0, and lane 16 of 8 registers each */
    arg_pointer(&o, A);
    arg_pointer(&o, B);
    arg_pointer(&o, C);
    arg_pointer(&o, D);
    assert_launch(&o, kernel, 1, (uint32_t)wave, 0);
    float result;
    memcpy(&result, D, sizeof result);
    if (c) assert_true(D[1] == c || D[1] == 0);
    if (c) result = D[1] == c;
    object_close(&o);
    return result;
}

/* Which targets take subnormal numbers for 0: 2^-15 of f16, 2^-127 of bf16 times 2^100. */
static void test_subnormals(void **state)
{
    const char *target = *state;
    int first = !strcmp(target, "gfx90a");
    if (!strncmp(target, "gfx11", 5)) {
        assert_true(product_of(target, "wmma_f32_16x16x16_f16", 0x200, 0x3c00, 0) == 0x1p-15f);
        assert_true(product_of(target, "wmma_f32_16x16x16_bf16", 0x40, 0x7180, 0) == 0);
        return;
    }
    float kept = product_of(target, "mfma_f32_32x32x8f16", 0x200, 0x3c00, 0);
    assert_true(kept == (first ? 0 : 0x1p-15f));
    kept = product_of(target, "mfma_f32_32x32x8bf16_1k", 0x40, 0x7180, 0);
    assert_true(kept == (first ? 0 : 0x1p-27f));
    /* the smallest normal number counts */
    assert_true(product_of(target, "mfma_f32_32x32x8f16", 0x400, 0x3c00, 0) == 0x1p-14f);
    assert_true(product_of(target, "mfma_f32_32x32x8f16", 0, 0x3c00, 0x400000) == !first);
}

static void test_unrepeated(void **state)
{
    struct object o;
    object_open(&o, "matrix", *state);
    int *in = buffer(&o, 128), *out = buffer(&o, 1024);
    for (int i = 0; i < 32; i++) in[i] = i % 16;
    arg_pointer(&o, in);
    arg_pointer(&o, out);
    assert_launch(&o, "unrepeated", 1, 32, 0);
    in[20]++;
    assert_fault(&o, "unrepeated", 1, 32, 0, "differs between lanes 4 and 20");
    object_close(&o);
}

/* The report of the inner loop: passes, matrix cycles of a pass, LDS conflicts. */
static void test_loop(void **state)
{
    struct object o;
    struct amdgpu_loop loop;
    const char *target = *state;
    int wave = wave_size(target);
    double cycles = !strcmp(target, "gfx90a") ? 64 : !strcmp(target, "gfx950") ? 16 : 32;
    if (!strncmp(target, "gfx12", 5)) cycles = 16;
    object_open(&o, "matrix", target);
    o.options.profile = true;
    float *out = buffer(&o, 64 * 64);
    arg_pointer(&o, out);
    arg_int(&o, 10);
    assert_false(amdgpu_matrix_loop(o.module, &loop));
    assert_launch(&o, "rounds", 1, (uint32_t)wave, 0);
    assert_true(out[0] == 10 * (wave == 64 ? 8 : 16));
    assert_true(amdgpu_matrix_loop(o.module, &loop));
    assert_int_equal(loop.passes, 10);
    assert_true(loop.matrix_instructions == 1 && loop.matrix_cycles == cycles);
    assert_true(loop.cycles >= cycles + (loop.instructions - 1) * (wave == 64 ? 4 : 1));
    assert_true(loop.ordered_matrix_cycles == cycles);
    assert_true(loop.ordered_cycles >= cycles && loop.ordered_cycles < loop.cycles + 1);
    assert_int_equal(loop.lds_cycles, 10 * wave / 32);
    assert_int_equal(loop.lds_conflicts, 10 * wave / 32);
    object_close(&o);
}

int main(void)
{
    struct suite s = {.count = 0};
    add_test(&s, "known places", test_known_places, "gfx1100");
    add_test(&s, "layouts", test_layouts, "gfx");
    static const char *const families[] = {"gfx9", "gfx11", "gfx12"};
    for (int i = 0; i < 3; i++) add_test(&s, "loop", test_loop, families[i]);
    add_test(&s, "unrepeated", test_unrepeated, "gfx11");
    add_test(&s, "subnormals", test_subnormals, "gfx9");
    add_test(&s, "subnormals", test_subnormals, "gfx11");
    return run_suite(&s, "amdgpu matrix");
}
