/* Conversions over lanes, including the fp8 formats. */
#include "fp8.h"
#include "lanes.h"

static inline int32_t to_int(float a)
{
    return a != a                ? 0
           : a >= 2147483648.0f  ? INT32_MAX
           : a <= -2147483648.0f ? INT32_MIN
                                 : (int32_t)a;
}

static inline uint32_t to_unsigned(float a)
{
    return a != a || a <= 0 ? 0 : a >= 4294967296.0f ? UINT32_MAX : (uint32_t)a;
}

static enum fp8_format format_of(const struct wave *w, uint32_t wide_exponent)
{
    bool fnuz = w->program->target->gen == GEN_CDNA3;
    return wide_exponent ? (fnuz ? BF8_FNUZ : BF8_OCP) : (fnuz ? FP8_FNUZ : FP8_OCP);
}

/* v_cvt_f32_{fp8,bf8}: one byte, chosen by SDWA, op_sel or byte_sel; v_cvt_pk_f32_*: two bytes to
   two registers. param: bit 0 bf8, bit 1 packed. */
static void exec_from_fp8(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0);
    enum fp8_format format = format_of(w, in->param & 1);
    uint64_t undef = undefined_lanes(w, in);
    int byte = in->byte_sel, words = in->param & 2 ? 2 : 1;
    if (words == 1 && in->opsel) byte = (in->opsel & 1 ? 2 : 0) | (in->opsel & 2 ? 1 : 0);
    if (words == 2) byte = in->opsel & 1 ? 2 : 0;
    for (int k = 0; k < words; k++) {
        uint32_t *d = w->tmp[4] + (size_t)k * ROW;
        for (int l = 0; l < w->n; l++)
            d[l] = as_bits(fp8_to_float(a[l] >> (8 * (byte + k)), format));
    }
    for (int k = 0; k < words; k++)
        write_row(w, in->op[0].reg + k, w->tmp[4] + (size_t)k * ROW, w->exec);
    set_undefined(w, &in->vwrite[0], w->exec, undef);
}

/* v_cvt_pk_{fp8,bf8}_f32: two results into the half that op_sel names; the other half stays. */
static void exec_to_fp8(struct wave *w, const struct inst *in)
{
    const uint32_t *a = fetch(w, in, 1, 0), *b = fetch(w, in, 2, 1);
    enum fp8_format format = format_of(w, in->param & 1);
    uint64_t undef = undefined_lanes(w, in);
    uint32_t *old = vrow(w, in->op[0].reg), *d = w->tmp[4];
    bool high = in->opsel >> 2 & 1 || in->op[0].half == 2;
    for (int l = 0; l < w->n; l++) {
        uint32_t pair = float_to_fp8(as_float(a[l]), format) | float_to_fp8(as_float(b[l]), format)
                                                                   << 8;
        d[l] = high ? (old[l] & 0xffff) | pair << 16 : (old[l] & 0xffff0000) | pair;
    }
    write_row(w, in->op[0].reg, d, w->exec);
    struct reg_range half = {in->op[0].reg, 1, high ? 2 : 1};
    set_undefined(w, &half, w->exec, undef);
}

#define LANE_DEF "lanes_convert.def"
#include "lanes_gen.h"

static const struct op_row extra[] = {
    {"v_cvt_f32_fp8", exec_from_fp8, NULL, "F:U", OPF_VALU, 0},
    {"v_cvt_f32_bf8", exec_from_fp8, NULL, "F:U", OPF_VALU, 1},
    {"v_cvt_pk_f32_fp8", exec_from_fp8, NULL, "Q:U", OPF_VALU, 2},
    {"v_cvt_pk_f32_bf8", exec_from_fp8, NULL, "Q:U", OPF_VALU, 3},
    {"v_cvt_pk_fp8_f32", exec_to_fp8, NULL, "U:FF", OPF_VALU | OPF_NO_DST, 0},
    {"v_cvt_pk_bf8_f32", exec_to_fp8, NULL, "U:FF", OPF_VALU | OPF_NO_DST, 1},
};

const struct op_table ops_convert = {rows, sizeof rows / sizeof *rows};
const struct op_table ops_fp8 = {extra, sizeof extra / sizeof *extra};
