/* Matrix instructions: MFMA of the CDNA targets, WMMA of RDNA3 and RDNA4.

   Rounding model: inputs are converted exactly; each result element is a chain of f32 fused
   multiply-adds over k in ascending order that starts from C (f64 for f64 inputs, wrapping 32-bit
   integers for i8). Hardware sums in wider groups; differences stay within a few ulp of the largest
   partial sum. gfx90a takes subnormal inputs of f16 and bf16 for 0 and leaves no subnormal results
   of them (AMD, "MI200 MFMA behavior specifics"), RDNA3 takes those of bf16 for 0 (measured on
   gfx1151 by others); else they are kept.

   Layouts (AMD's matrix instruction calculator and the ISA documents):
   MFMA M x M x K with B blocks, g = lane / M: A[i][k] and B[k][j] lie in lane i (or j) + M g,
   element e, where with one block k = g * E + e (E elements per lane), with several blocks g is the
   block. D: register v of lane l is column l % M, row 8 (v/4) + 4 (l/32) + v % 4 for M = 32, 4
   (l/16) + v for M = 16, v for M = 4; blocks follow one another in v (M = 32, 16) or lie in lanes
   (M = 4). WMMA gfx11: lanes 0-15 hold row (column) l with all k; D register v: row 2 v + l / 16.
   WMMA gfx12: element e of lane l is k = 8 (e/4 for 16-bit) ...: see wmma_k. D register v: row v +
   8 (l / 16). */
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "fp8.h"
#include "lanes.h"

enum element { E_F16, E_BF16, E_F32, E_FP8, E_BF8, E_I8, E_U8, E_I4, E_U4, E_F64, E_XF32 };

/* One row of the instruction table, packed in op_row.param:
   bits 0-5 M, 6-12 K, 13-17 blocks, 18-21 A's type, 22-25 B's type, 26-27 result (0 f32, 1 i32, 2
   f16, 3 bf16) */
#define SHAPE(M, K, blocks, a, b, result)                                                          \
    ((uint32_t)(M) | (uint32_t)(K) << 6 | (uint32_t)(blocks) << 13 | (uint32_t)(a) << 18 |         \
     (uint32_t)(b) << 22 | (uint32_t)(result) << 26)

struct shape {
    int m, k, blocks;
    enum element a, b;
    int result;
};

static struct shape shape_of(const struct inst *in)
{
    uint32_t p = in->param;
    return (struct shape){(int)(p & 63),
                          (int)(p >> 6 & 127),
                          (int)(p >> 13 & 31),
                          (enum element)(p >> 18 & 15),
                          (enum element)(p >> 22 & 15),
                          (int)(p >> 26 & 3)};
}

static int bits_of(enum element e)
{
    return e == E_F64                  ? 64
           : e == E_F32 || e == E_XF32 ? 32
           : e == E_F16 || e == E_BF16 ? 16
           : e == E_I4 || e == E_U4    ? 4
                                       : 8;
}

void matrix_work(const struct inst *in, double *flops, int *bits)
{
    struct shape s = shape_of(in);
    *flops = 2.0 * s.m * s.m * s.k * s.blocks;
    *bits = bits_of(s.a) < 8 ? 8 : bits_of(s.a);
}

static enum fp8_format format_of(const struct wave *w, enum element e)
{
    bool fnuz = w->program->target->gen == GEN_CDNA3;
    return e == E_BF8 ? (fnuz ? BF8_FNUZ : BF8_OCP) : (fnuz ? FP8_FNUZ : FP8_OCP);
}

/* Element `e` of every lane as f32 bits (integers as int32) into out[0..n). */
static void unpack(const struct wave *w, const struct inst *in, int op, enum element type, int e,
                   uint32_t *out)
{
    const struct operand *o = &in->op[op];
    int per = bits_of(type) >= 32 ? 1 : 32 / bits_of(type),
        shift = per > 1 ? bits_of(type) * (e % per) : 0;
    const uint32_t *row = o->kind == OPK_VGPR ? w->v[o->reg + e / per] : o->rows;
    enum fp8_format format = format_of(w, type);
    int n = w->n;
    switch (type) {
    case E_F16:
        for (int l = 0; l < n; l++) out[l] = as_bits(half_to_float(row[l] >> shift & 0xffff));
        break;
    case E_BF16:
        for (int l = 0; l < n; l++) out[l] = row[l] >> shift << 16;
        break;
    case E_FP8:
    case E_BF8:
        for (int l = 0; l < n; l++) out[l] = as_bits(fp8_to_float(row[l] >> shift & 0xff, format));
        break;
    case E_I8:
        for (int l = 0; l < n; l++) out[l] = (uint32_t)(int32_t)(int8_t)(row[l] >> shift);
        break;
    case E_U8:
        for (int l = 0; l < n; l++) out[l] = row[l] >> shift & 0xff;
        break;
    case E_I4:
        for (int l = 0; l < n; l++) out[l] = (uint32_t)((int32_t)(row[l] << (28 - shift)) >> 28);
        break;
    case E_U4:
        for (int l = 0; l < n; l++) out[l] = row[l] >> shift & 15;
        break;
    case E_XF32: /* 10 mantissa bits, rounded to nearest even */
        for (int l = 0; l < n; l++) out[l] = (row[l] + 0xfff + (row[l] >> 13 & 1)) & ~0x1fffu;
        break;
    default:
        for (int l = 0; l < n; l++) out[l] = row[l];
        break;
    }
}

/* Eight rows of 16 columns: d[r][j] += a[k][r] * b[k][j] in ascending k; a[k] points at the eight
 * rows' neighbouring elements. */
static void rows_fma(float *const d[8], const float *const *a, const float *const *b, int depth)
{
#if defined(__AVX512F__)
    __m512 sum[8];
    for (int r = 0; r < 8; r++) sum[r] = _mm512_loadu_ps(d[r]);
    for (int k = 0; k < depth; k++) {
        __m512 x = _mm512_loadu_ps(b[k]);
        for (int r = 0; r < 8; r++) sum[r] = _mm512_fmadd_ps(_mm512_set1_ps(a[k][r]), x, sum[r]);
    }
    for (int r = 0; r < 8; r++) _mm512_storeu_ps(d[r], sum[r]);
#else
    for (int r = 0; r < 8; r++)
        for (int k = 0; k < depth; k++)
            for (int j = 0; j < 16; j++) d[r][j] = __builtin_fmaf(a[k][r], b[k][j], d[r][j]);
#endif
}

/* One row of any width. */
static void row_fma(float *d, const float *a, const float *const *b, int depth, int count)
{
    for (int k = 0; k < depth; k++)
        for (int j = 0; j < count; j++) d[j] = __builtin_fmaf(a[k], b[k][j], d[j]);
}

static void row_integer(uint32_t *restrict d, const int32_t *a, const int32_t *const *b, int depth,
                        int count)
{
    for (int k = 0; k < depth; k++)
        for (int j = 0; j < count; j++) d[j] += (uint32_t)(a[k] * b[k][j]);
}

static void check_matrix(struct wave *w, const struct inst *in)
{
    if (w->exec != w->full && w->n == 32) fault(w, "matrix instruction with lanes switched off");
    uint64_t undef = undefined_lanes(w, in);
    set_undefined(w, &in->vwrite[0], w->full, undef ? w->full : 0);
}

static uint32_t c_value(const struct wave *w, const struct operand *c, int v, int lane)
{
    if (c->kind == OPK_VGPR) return w->v[c->reg + v][lane];
    return c->kind == OPK_IMM ? (uint32_t)c->imm : 0;
}

/* Which register and first lane hold row i of block b of an M x M result. */
static void result_place(int m, int i, int b, int *v, int *lane)
{
    if (m == 32) {
        *v = b * 16 + i / 8 * 4 + i % 4;
        *lane = 32 * (i / 4 % 2);
    } else if (m == 16) {
        *v = b * 4 + i % 4;
        *lane = 16 * (i / 4);
    } else {
        *v = i;
        *lane = 4 * b;
    }
}

/* Block b of the result from the unpacked inputs. */
static void mfma_block(const struct shape *s, int b, int per, uint32_t (*av)[ROW],
                       uint32_t (*bv)[ROW], uint32_t (*result)[ROW])
{
    const float *columns[128], *rows[128], *part[128];
    int step = s->m < 16 || s->result == 1 ? 1 : 8;
    for (int k = 0; k < s->k; k++) {
        int g = s->blocks > 1 ? b : k / per, e = k % per;
        rows[k] = (const float *)&av[e][s->m * g];
        columns[k] = (const float *)&bv[e][s->m * g];
    }
    for (int i = 0; i < s->m; i += step) {
        int v, lane;
        float a[128], *d[8];
        for (int k = 0; k < s->k; k++) {
            rows[k] += i ? step : 0;
            if (step == 1) a[k] = *rows[k];
        }
        result_place(s->m, i, b, &v, &lane);
        if (s->result == 1) {
            row_integer(&result[v][lane], (const int32_t *)(const void *)a,
                        (const int32_t *const *)(const void *)columns, s->k, s->m);
        } else if (s->m < 16) {
            row_fma((float *)&result[v][lane], a, columns, s->k, s->m);
        } else {
            for (int j = 0; j < s->m; j += 16) {
                for (int k = 0; k < s->k; k++) part[k] = columns[k] + j;
                for (int r = 0; r < 8; r++) {
                    result_place(s->m, i + r, b, &v, &lane);
                    d[r] = (float *)&result[v][lane + j];
                }
                rows_fma(d, rows, part, s->k);
            }
        }
    }
}

/* Zeros of the same sign in place of f32 numbers below a power of two, given by its bits. */
static void flush_below(uint32_t *x, int n, uint32_t limit)
{
    for (int l = 0; l < n; l++)
        if ((x[l] & 0x7fffffff) < limit) x[l] &= 0x80000000;
}

enum { LEAST_F32 = 0x00800000, LEAST_F16 = 0x38800000 }; /* 2^-126, 2^-14 */

static void exec_mfma(struct wave *w, const struct inst *in)
{
    static _Thread_local uint32_t av[128][ROW] __attribute__((aligned(64))),
        bv[128][ROW] __attribute__((aligned(64)));
    struct shape s = shape_of(in);
    uint32_t(*result)[ROW] = &w->v[in->op[0].reg]; /* the inputs are unpacked before it changes */
    int groups = 64 / s.m, per = s.blocks > 1 ? s.k : s.k / groups,
        rows = s.m * s.m * s.blocks / 64;
    bool flushes = w->program->target->gen == GEN_CDNA2 && (s.a == E_F16 || s.a == E_BF16);
    if (in->cbsz || in->abid || in->blgp) fault(w, "MFMA broadcast modifiers are not emulated");
    for (int e = 0; e < per; e++) {
        unpack(w, in, 1, s.a, e, av[e]);
        unpack(w, in, 2, s.b, e, bv[e]);
        if (flushes) flush_below(av[e], w->n, s.a == E_F16 ? LEAST_F16 : LEAST_F32);
        if (flushes) flush_below(bv[e], w->n, s.b == E_F16 ? LEAST_F16 : LEAST_F32);
    }
    check_matrix(w, in);
    const struct operand *c = &in->op[3];
    if (c->kind == OPK_VGPR && c->reg != in->op[0].reg)
        memmove(result, &w->v[c->reg], (size_t)rows * sizeof *result);
    for (int v = 0; v < rows && c->kind != OPK_VGPR; v++)
        for (int l = 0; l < 64; l++) result[v][l] = c_value(w, c, v, l);
    for (int v = 0; v < rows && flushes; v++) flush_below(result[v], w->n, LEAST_F32);
    for (int b = 0; b < s.blocks; b++) mfma_block(&s, b, per, av, bv, result);
    for (int v = 0; v < rows && flushes; v++) flush_below(result[v], w->n, LEAST_F32);
    w->worker->stats.matrix_flops +=
        2u * (uint64_t)s.m * (uint64_t)s.m * (uint64_t)s.k * (uint64_t)s.blocks;
}

/* Which k element e of lane half `half` is. gfx12: groups of 4 (16-bit), 8 (8-bit) elements
 * alternate between the halves. */
static int wmma_k(bool gfx12, enum element type, int half, int e)
{
    if (!gfx12) return e;
    int run = type == E_F16 || type == E_BF16 ? 4 : type == E_I4 || type == E_U4 ? 8 : 4;
    return (e / run) * 2 * run + half * run + e % run;
}

static enum element signed_form(enum element e, bool is_signed)
{
    if (e == E_I8 || e == E_U8) return is_signed ? E_I8 : E_U8;
    if (e == E_I4 || e == E_U4) return is_signed ? E_I4 : E_U4;
    return e;
}

/* gfx11: lanes 16 to 31 hold the inputs of lanes 0 to 15 once more; hardware takes some results from
   each. */
static void check_repeated(struct wave *w, const struct operand *o, int words)
{
    for (int r = 0; o->kind == OPK_VGPR && r < words; r++)
        for (int l = 16; l < w->n; l++)
            if (w->v[o->reg + r][l] != w->v[o->reg + r][l % 16])
                fault(w, "v%d differs between lanes %d and %d: WMMA inputs must be repeated",
                      o->reg + r, l % 16, l);
}

/* 16 x 16 x K, wave32 (wave64 of gfx11 repeats the inputs in lanes 32-63 and spreads D over four
 * lane groups). */
static void exec_wmma(struct wave *w, const struct inst *in)
{
    static _Thread_local uint32_t av[32][ROW] __attribute__((aligned(64))),
        bv[32][ROW] __attribute__((aligned(64)));
    const float *rows[32], *columns[32];
    float *d[16];
    struct shape s = shape_of(in);
    bool gfx12 = w->program->target->gen == GEN_RDNA4;
    int per = gfx12 ? s.k / 2 : s.k, halves = gfx12 ? 2 : 1, lane_groups = w->n / 16;
    if (w->n != 32 && gfx12) fault(w, "WMMA in wave64 is not emulated on gfx12");
    enum element ta = signed_form(s.a, in->neg_lo & 1), tb = signed_form(s.b, in->neg_lo & 2);
    for (int i = 1; i < 3 && !gfx12; i++) check_repeated(w, &in->op[i], in->op[i].dwords);
    for (int e = 0; e < per; e++) {
        unpack(w, in, 1, ta, e, av[e]);
        unpack(w, in, 2, tb, e, bv[e]);
        if (!gfx12 && s.a == E_BF16) flush_below(av[e], w->n, LEAST_F32);
        if (!gfx12 && s.a == E_BF16) flush_below(bv[e], w->n, LEAST_F32);
    }
    for (int h = 0; h < halves; h++)
        for (int e = 0; e < per; e++) {
            int k = wmma_k(gfx12, s.a, h, e);
            rows[k] = (const float *)&av[e][16 * h];
            columns[k] = (const float *)&bv[e][16 * h];
        }
    bool narrow = s.result >= 2, high = narrow && !gfx12 && in->opsel & 4;
    uint32_t out[16][ROW] __attribute__((aligned(64)));
    const struct operand *c = &in->op[3];
    for (int i = 0; i < 16; i++) {
        int v = gfx12 ? i % 8 : i / lane_groups, lane = 16 * (gfx12 ? i / 8 : i % lane_groups);
        int reg = narrow && gfx12 ? v / 2 : v, shift = narrow && (gfx12 ? v & 1 : high) ? 16 : 0;
        d[i] = (float *)&out[v][lane];
        for (int j = 0; j < 16; j++) {
            uint32_t bits = c_value(w, c, reg, lane + j);
            if (narrow && c->kind == OPK_VGPR) bits = bits >> shift & 0xffff;
            if (s.result == 2) bits = as_bits(half_to_float(bits & 0xffff));
            if (s.result == 3) bits = bits << 16;
            out[v][lane + j] = bits;
        }
    }
    if (s.result == 1) {
        for (int i = 0; i < 16; i++) {
            int32_t a[32];
            for (int k = 0; k < s.k; k++) memcpy(&a[k], rows[k] + i, 4);
            row_integer((uint32_t *)d[i], a, (const int32_t *const *)(const void *)columns, s.k,
                        16);
        }
    } else {
        rows_fma(d, rows, columns, s.k);
        for (int k = 0; k < s.k; k++) rows[k] += 8;
        rows_fma(d + 8, rows, columns, s.k);
    }
    check_matrix(w, in);
    for (int v = 0; v < 256 / w->n; v++) {
        uint32_t *to = w->v[in->op[0].reg + (narrow && gfx12 ? v / 2 : v)];
        for (int l = 0; l < w->n; l++) {
            uint32_t bits = out[v][l];
            if (s.result == 2) bits = float_to_half(as_float(bits));
            if (s.result == 3) bits = float_to_bf16(as_float(bits));
            if (!narrow) to[l] = bits;
            else if (gfx12 ? v & 1 : high) to[l] = (to[l] & 0xffff) | bits << 16;
            else to[l] = (to[l] & 0xffff0000) | bits;
        }
    }
    w->worker->stats.matrix_flops += 2u * 16 * 16 * (uint64_t)s.k;
}

#define MFMA(name, M, K, blocks, a, b, result)                                                     \
    {"v_mfma_" name,                                                                               \
     exec_mfma,                                                                                    \
     NULL,                                                                                         \
     "U:UUU",                                                                                      \
     OPF_VALU | OPF_MATRIX,                                                                        \
     SHAPE(M, K, blocks, a, b, result)},
#define EIGHT(name, M, K)                                                                          \
    MFMA(name "_fp8_fp8", M, K, 1, E_FP8, E_FP8, 0)                                                \
    MFMA(name "_fp8_bf8", M, K, 1, E_FP8, E_BF8, 0)                                                \
    MFMA(name "_bf8_fp8", M, K, 1, E_BF8, E_FP8, 0)                                                \
    MFMA(name "_bf8_bf8", M, K, 1, E_BF8, E_BF8, 0)
#define WMMA(name, K, a, b, result)                                                                \
    {"v_wmma_" name,                                                                               \
     exec_wmma,                                                                                    \
     NULL,                                                                                         \
     "U:UUU",                                                                                      \
     OPF_VALU | OPF_MATRIX,                                                                        \
     SHAPE(16, K, 1, a, b, result)},

static const struct op_row rows[] = {
#include "matrix.def"
};

const struct op_table ops_matrix = {rows, sizeof rows / sizeof *rows};
