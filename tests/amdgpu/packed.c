/* Packed operations (VOP3P): two halves or two f32 at once, mixed-precision fma, and dot products.
 */
#include "lanes.h"

typedef uint32_t pair_fn(uint32_t a, uint32_t b, uint32_t c); /* one 16-bit half */

#define HALF(x)   half_to_float((x)&0xffff)
#define BFLOAT(x) bf16_to_float((x)&0xffff)
#define SHORT(x)  ((int32_t)(int16_t)(x))

#define PACKED(name, expr)                                                                         \
    static void pair_##name(LANE_ARGS)                                                             \
    {                                                                                              \
        (void)m;                                                                                   \
        FOR_LANES                                                                                  \
        {                                                                                          \
            uint32_t a = pa[l] & 0xffff, b = pb[l] & 0xffff, c = pc[l] & 0xffff;                   \
            (void)a, (void)b, (void)c;                                                             \
            d[l] = (uint32_t)(expr)&0xffff;                                                        \
        }                                                                                          \
    }
#define FMA_HALF(a, b, c)                                                                          \
    float_to_half(double_to_float_odd((double)HALF(a) * (double)HALF(b) + (double)HALF(c)))
#define FMA_BFLOAT(a, b, c) float_to_bf16(__builtin_fmaf(BFLOAT(a), BFLOAT(b), BFLOAT(c)))

PACKED(add_f16, float_to_half(HALF(a) + HALF(b)))
PACKED(mul_f16, float_to_half(HALF(a) * HALF(b)))
PACKED(fma_f16, FMA_HALF(a, b, c))
PACKED(max_f16, float_to_half(max_num(HALF(a), HALF(b))))
PACKED(min_f16, float_to_half(min_num(HALF(a), HALF(b))))
PACKED(maximum_f16, float_to_half(maximum(HALF(a), HALF(b))))
PACKED(minimum_f16, float_to_half(minimum(HALF(a), HALF(b))))
PACKED(maximum3_f16, float_to_half(maximum(maximum(HALF(a), HALF(b)), HALF(c))))
PACKED(minimum3_f16, float_to_half(minimum(minimum(HALF(a), HALF(b)), HALF(c))))
PACKED(add_u16, a + b)
PACKED(sub_u16, a - b)
PACKED(mul_lo_u16, a *b)
PACKED(mad_u16, a *b + c)
PACKED(max_i16, SHORT(a) > SHORT(b) ? a : b)
PACKED(min_i16, SHORT(a) < SHORT(b) ? a : b)
PACKED(max_u16, a > b ? a : b)
PACKED(min_u16, a < b ? a : b)
PACKED(lshlrev_b16, b << (a & 15))
PACKED(lshrrev_b16, b >> (a & 15))
PACKED(ashrrev_i16, SHORT(b) >> (a & 15))
PACKED(add_bf16, float_to_bf16(BFLOAT(a) + BFLOAT(b)))
PACKED(mul_bf16, float_to_bf16(BFLOAT(a) * BFLOAT(b)))
PACKED(fma_bf16, FMA_BFLOAT(a, b, c))

static uint64_t undef_and_mark(struct wave *w, const struct inst *in)
{
    uint64_t undef = undefined_lanes(w, in);
    if (in->nvwrite) set_undefined(w, &in->vwrite[0], w->exec, undef);
    return undef;
}

/* The half of source `i` that result half `high` uses, with its sign modifier. */
static const uint32_t *half_source(struct wave *w, const struct inst *in, int i,
                                   const uint32_t *row, bool high, uint32_t *out)
{
    bool upper = (high ? in->opsel_hi : in->opsel) >> i & 1;
    uint32_t flip = (high ? in->neg_hi : in->neg_lo) >> i & 1 ? 0x8000 : 0;
    int shift = upper ? 16 : 0;
    for (int l = 0; l < w->n; l++) out[l] = (row[l] >> shift & 0xffff) ^ flip;
    return out;
}

static void exec_packed(struct wave *w, const struct inst *in)
{
    const uint32_t *src[3], *part[3];
    bool reads_dst = in->flags & OPF_READS_DST;
    int count = in->nsrc + reads_dst;
    for (int i = 0; i < in->nsrc && i < 3; i++) src[i] = fetch(w, in, 1 + i, i);
    if (reads_dst) src[2] = vrow(w, in->op[0].reg);
    uint32_t *low = w->tmp[3], *high = w->tmp[4];
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < 3; i++)
            part[i] = i < count ? half_source(w, in, i, src[i], h, w->tmp[5 + i]) : w->tmp[5];
        in->lane(h ? high : low, part[0], part[1], part[2], w->mask, w->n);
    }
    undef_and_mark(w, in);
    for (int l = 0; l < w->n; l++) low[l] |= high[l] << 16;
    if (in->clamp)
        for (int l = 0; l < w->n; l++) {
            float x = half_to_float(low[l] & 0xffff), y = half_to_float(low[l] >> 16);
            x = !(x > 0) ? 0 : x > 1 ? 1 : x;
            y = !(y > 0) ? 0 : y > 1 ? 1 : y;
            low[l] = float_to_half(x) | float_to_half(y) << 16;
        }
    write_row(w, in->op[0].reg, low, w->exec);
}

enum { PAIR_ADD, PAIR_MUL, PAIR_FMA, PAIR_MOV };

#define PAIR_LOOP(name, expr)                                                                      \
    static void pair32_##name(uint32_t *r, const uint32_t *const part[3], const uint32_t flip[3],  \
                              int n)                                                               \
    {                                                                                              \
        const uint32_t *pa = part[0], *pb = part[1], *pc = part[2];                                \
        uint32_t fa = flip[0], fb = flip[1], fc = flip[2];                                         \
        (void)pc, (void)fc;                                                                        \
        FOR_LANES                                                                                  \
        {                                                                                          \
            float x = as_float(pa[l] ^ fa), y = as_float(pb[l] ^ fb), z = as_float(pc[l] ^ fc);    \
            (void)z;                                                                               \
            r[l] = as_bits(expr);                                                                  \
        }                                                                                          \
    }
PAIR_LOOP(add, x + y)
PAIR_LOOP(mul, x *y)
PAIR_LOOP(fma, __builtin_fmaf(x, y, z))

/* Which register of source i's pair result h reads. */
static bool reads_second(const struct inst *in, int h, int i)
{
    return (h && in->param != PAIR_MOV ? in->opsel_hi : in->opsel) >> i & 1;
}

/* Exact per result: only the registers that op_sel chose count. */
static void mark_pair(struct wave *w, const struct inst *in)
{
    uint64_t exact[2] = {0, 0};
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < in->nsrc; i++) {
            const struct operand *o = &in->op[1 + i];
            int second = reads_second(in, h, i);
            if (in->param == PAIR_MOV && i != h) continue;
            if (o->kind == OPK_VGPR)
                exact[h] |= w->undef[o->reg + second][0] | w->undef[o->reg + second][1];
            if (o->kind == OPK_SGPR && w->s_undef[o->reg + (o->dwords > 1 && second)])
                exact[h] = w->full;
        }
    for (int h = 0; h < 2; h++)
        set_undefined(w, &(struct reg_range){(uint16_t)(in->op[0].reg + h), 1, 3}, w->exec,
                      exact[h]);
}

/* v_pk_{add,mul,fma}_f32 and v_pk_mov_b32: op_sel picks the register of a pair for each result. */
static void exec_pair32(struct wave *w, const struct inst *in)
{
    const uint32_t *src[3] = {w->tmp[0], w->tmp[0], w->tmp[0]};
    for (int i = 0; i < in->nsrc && i < 3; i++) src[i] = fetch(w, in, 1 + i, i);
    for (int h = 0; h < 2; h++) {
        uint32_t *r = w->tmp[4] + (size_t)h * ROW, flip[3];
        const uint32_t *part[3];
        for (int i = 0; i < 3; i++) {
            part[i] = src[i] + (reads_second(in, h, i) ? ROW : 0);
            flip[i] = (h ? in->neg_hi : in->neg_lo) >> i & 1 ? 0x80000000u : 0;
        }
        switch (in->param) {
        case PAIR_ADD:
            pair32_add(r, part, flip, w->n);
            break;
        case PAIR_MUL:
            pair32_mul(r, part, flip, w->n);
            break;
        case PAIR_FMA:
            pair32_fma(r, part, flip, w->n);
            break;
        default:
            memcpy(r, part[h], (size_t)w->n * sizeof *r);
            break;
        }
    }
    if (undefined_lanes(w, in) & w->exec) mark_pair(w, in);
    else set_undefined(w, &in->vwrite[0], w->exec, 0);
    write_row(w, in->op[0].reg, w->tmp[4], w->exec);
    write_row(w, in->op[0].reg + 1, w->tmp[4] + ROW, w->exec);
}

/* v_fma_mix*: per source, op_sel_hi says f16 and op_sel which half; neg_hi is the absolute value.
   param: 0 f32 result, 1 low half, 2 high half. Source type X: signs are applied here, after the
   conversion. */
static void exec_mix(struct wave *w, const struct inst *in)
{
    uint32_t *r = w->tmp[4], *values[3] = {w->tmp[0], w->tmp[1], w->tmp[2]};
    for (int i = 0; i < 3; i++) {
        const struct operand *o = &in->op[1 + i];
        const uint32_t *src = fetch(w, in, 1 + i, i);
        bool half = in->has_opsel_hi && (in->opsel_hi >> i & 1), upper = in->opsel >> i & 1;
        for (int l = 0; l < w->n; l++) {
            uint32_t bits = src[l];
            if (half) bits = as_bits(half_to_float(upper ? bits >> 16 : bits & 0xffff));
            if (o->abs || in->neg_hi >> i & 1) bits &= 0x7fffffff;
            if (o->neg ^ (in->neg_lo >> i & 1)) bits ^= 0x80000000u;
            values[i][l] = bits;
        }
    }
    for (int l = 0; l < w->n; l++) {
        float a = as_float(values[0][l]), b = as_float(values[1][l]), c = as_float(values[2][l]);
        float x = __builtin_fmaf(a, b, c);
        if (in->param) x = double_to_float_odd((double)a * (double)b + (double)c);
        if (in->clamp) x = !(x > 0) ? 0 : x > 1 ? 1 : x;
        r[l] = in->param ? float_to_half(x) : as_bits(x);
    }
    uint64_t undef = 0;
    for (int i = 0; i < 3; i++) {
        const struct operand *o = &in->op[1 + i];
        bool half = in->has_opsel_hi && (in->opsel_hi >> i & 1), upper = in->opsel >> i & 1;
        if (o->kind == OPK_VGPR)
            undef |= half ? w->undef[o->reg][upper] : w->undef[o->reg][0] | w->undef[o->reg][1];
        if (o->kind == OPK_SGPR && w->s_undef[o->reg]) undef = w->full;
    }
    struct reg_range written = {in->op[0].reg, 1, (uint8_t)(in->param == 0 ? 3 : in->param)};
    set_undefined(w, &written, w->exec, undef);
    if (in->param) {
        const uint32_t *old = vrow(w, in->op[0].reg);
        for (int l = 0; l < w->n; l++)
            r[l] = in->param == 1 ? (old[l] & 0xffff0000) | r[l] : (old[l] & 0xffff) | r[l] << 16;
    }
    write_row(w, in->op[0].reg, r, w->exec);
}

enum { DOT2_F32_F16, DOT2_F32_BF16, DOT4_I32_I8, DOT4_U32_U8, DOT2_I32_I16, DOT4_I32_IU8 };

static uint32_t dot(const struct inst *in, uint32_t a, uint32_t b, uint32_t c)
{
    switch (in->param) {
    case DOT2_F32_F16: /* gfx11 rounds once: products are exact in f64 */
        return as_bits((float)((double)HALF(a) * (double)HALF(b) +
                               (double)HALF(a >> 16) * (double)HALF(b >> 16) +
                               (double)as_float(c)));
    case DOT2_F32_BF16:
        return as_bits(__builtin_fmaf(BFLOAT(a >> 16), BFLOAT(b >> 16),
                                      __builtin_fmaf(BFLOAT(a), BFLOAT(b), as_float(c))));
    case DOT2_I32_I16:
        return (uint32_t)(SHORT(a) * SHORT(b)) + (uint32_t)(SHORT(a >> 16) * SHORT(b >> 16)) + c;
    default:
        for (int i = 0; i < 32; i += 8) {
            uint32_t x = a >> i & 0xff, y = b >> i & 0xff;
            bool sx = in->param == DOT4_I32_I8 || (in->param == DOT4_I32_IU8 && in->neg_lo & 1);
            bool sy = in->param == DOT4_I32_I8 || (in->param == DOT4_I32_IU8 && in->neg_lo & 2);
            int32_t p = sx ? (int8_t)x : (int32_t)x, q = sy ? (int8_t)y : (int32_t)y;
            c += (uint32_t)(p * q);
        }
        return c;
    }
}

static void exec_dot(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1);
    const uint32_t *c = in->flags & OPF_READS_DST ? vrow(w, in->op[0].reg) : fetch(w, in, 3, 2);
    uint32_t *r = w->tmp[4];
    bool floating = in->param <= DOT2_F32_BF16;
    uint32_t flip_a =
        !floating ? 0 : (in->neg_lo & 1 ? 0x8000u : 0) | (in->neg_hi & 1 ? 0x80000000u : 0);
    uint32_t flip_b =
        !floating ? 0 : (in->neg_lo & 2 ? 0x8000u : 0) | (in->neg_hi & 2 ? 0x80000000u : 0);
    for (int l = 0; l < w->n; l++) r[l] = dot(in, a[l] ^ flip_a, b[l] ^ flip_b, c[l]);
    undef_and_mark(w, in);
    write_row(w, in->op[0].reg, r, w->exec);
}

#define PK(name, types)                                                                            \
    {                                                                                              \
        "v_pk_" #name, exec_packed, (void (*)(void))pair_##name, types, OPF_VALU, 0                \
    }
#define PK_AS(new_name, name, types)                                                               \
    {                                                                                              \
        "v_pk_" #new_name, exec_packed, (void (*)(void))pair_##name, types, OPF_VALU, 0            \
    }
#define DOT(name, types, flags, kind)                                                              \
    {                                                                                              \
        "v_" #name, exec_dot, NULL, types, OPF_VALU | (flags), kind                                \
    }

static const struct op_row rows[] = {
    PK(add_f16, "P:PP"),
    PK(mul_f16, "P:PP"),
    PK(fma_f16, "P:PPP"),
    {"v_pk_fmac_f16", exec_packed, (void (*)(void))pair_fma_f16, "P:PP", OPF_VALU | OPF_READS_DST,
     0},
    PK(max_f16, "P:PP"),
    PK(min_f16, "P:PP"),
    PK_AS(max_num_f16, max_f16, "P:PP"),
    PK_AS(min_num_f16, min_f16, "P:PP"),
    PK(maximum_f16, "P:PP"),
    PK(minimum_f16, "P:PP"),
    PK(maximum3_f16, "P:PPP"),
    PK(minimum3_f16, "P:PPP"),
    PK(add_u16, "K:KK"),
    PK_AS(add_i16, add_u16, "K:KK"),
    PK(sub_u16, "K:KK"),
    PK_AS(sub_i16, sub_u16, "K:KK"),
    PK(mul_lo_u16, "K:KK"),
    PK(mad_u16, "K:KKK"),
    PK_AS(mad_i16, mad_u16, "K:KKK"),
    PK(max_i16, "K:KK"),
    PK(min_i16, "K:KK"),
    PK(max_u16, "K:KK"),
    PK(min_u16, "K:KK"),
    PK(lshlrev_b16, "K:KK"),
    PK(lshrrev_b16, "K:KK"),
    PK(ashrrev_i16, "K:KK"),
    PK(add_bf16, "K:KK"),
    PK(mul_bf16, "K:KK"),
    PK(fma_bf16, "K:KKK"),
    {"v_pk_add_f32", exec_pair32, NULL, "W:WW", OPF_VALU, PAIR_ADD},
    {"v_pk_mul_f32", exec_pair32, NULL, "W:WW", OPF_VALU, PAIR_MUL},
    {"v_pk_fma_f32", exec_pair32, NULL, "W:WWW", OPF_VALU, PAIR_FMA},
    {"v_pk_mov_b32", exec_pair32, NULL, "W:WW", OPF_VALU, PAIR_MOV},
    {"v_fma_mix_f32", exec_mix, NULL, "F:EEE", OPF_VALU, 0},
    {"v_fma_mixlo_f16", exec_mix, NULL, "U:EEE", OPF_VALU, 1},
    {"v_fma_mixhi_f16", exec_mix, NULL, "U:EEE", OPF_VALU, 2},
    {"v_mad_mix_f32", exec_mix, NULL, "F:EEE", OPF_VALU, 0},
    {"v_mad_mixlo_f16", exec_mix, NULL, "U:EEE", OPF_VALU, 1},
    {"v_mad_mixhi_f16", exec_mix, NULL, "U:EEE", OPF_VALU, 2},
    DOT(dot2_f32_f16, "F:PPF", 0, DOT2_F32_F16),
    DOT(dot2c_f32_f16, "F:PP", OPF_READS_DST, DOT2_F32_F16),
    DOT(dot2acc_f32_f16, "F:PP", OPF_READS_DST, DOT2_F32_F16),
    DOT(dot2_f32_bf16, "F:KKF", 0, DOT2_F32_BF16),
    DOT(dot2c_f32_bf16, "F:KK", OPF_READS_DST, DOT2_F32_BF16),
    DOT(dot2acc_f32_bf16, "F:KK", OPF_READS_DST, DOT2_F32_BF16),
    DOT(dot4_i32_i8, "U:UUU", 0, DOT4_I32_I8),
    DOT(dot4c_i32_i8, "U:UU", OPF_READS_DST, DOT4_I32_I8),
    DOT(dot4_u32_u8, "U:UUU", 0, DOT4_U32_U8),
    DOT(dot4_i32_iu8, "U:UUU", 0, DOT4_I32_IU8),
    DOT(dot2_i32_i16, "U:KKU", 0, DOT2_I32_I16),
};

const struct op_table ops_packed = {rows, sizeof rows / sizeof *rows};
