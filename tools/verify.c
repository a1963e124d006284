/* verify.c: compares outputs with the f64 definition of tests/oracle.h and with answers stored in
 * files. */
#include "verify.h"

#include "base/dtype.h"
#include "bound.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Multiply-adds of the definition: some seconds of one core. Longer problems are compared on a
 * sample of their rows. */
#define ORACLE_BUDGET 4e9

/* Element of a file's tensor as a number; the tensor may lie unaligned. */
static double stored_value(const struct safetensors_tensor *t, int64_t index)
{
    const char *at = (const char *)t->data + (size_t)index * safetensors_dtype_size(t->dtype);
    double wide;
    float single;
    uint16_t half;
    switch (t->dtype) {
    case SAFETENSORS_F64:
        memcpy(&wide, at, sizeof wide);
        return wide;
    case SAFETENSORS_F32:
        memcpy(&single, at, sizeof single);
        return single;
    case SAFETENSORS_F16:
        memcpy(&half, at, sizeof half);
        return float_from_f16(half);
    default:
        memcpy(&half, at, sizeof half);
        return float_from_bf16(half);
    }
}

/* NaN for NaN and infinity for the same infinity are no difference. */
static double distance(double got, double want)
{
    if (isfinite(got) && isfinite(want)) return fabs(got - want);
    return (isnan(got) && isnan(want)) || got == want ? 0 : INFINITY;
}

static int check_answer(const struct input *input, const rapt_tensor *out)
{
    const struct safetensors_tensor *t = input->answer;
    const int64_t *n = out->size,
                  middle[2] = {n[input->head_first ? 1 : 2], n[input->head_first ? 2 : 1]};
    if (t->dtype != SAFETENSORS_F64 && t->dtype != SAFETENSORS_F32 && t->dtype != SAFETENSORS_F16 &&
        t->dtype != SAFETENSORS_BF16)
        return complain(EXIT_BAD_INPUT, "tensor out has dtype %s (F64, F32, F16 or BF16)",
                        safetensors_dtype_name(t->dtype));
    if (t->rank == 4 && t->size[0] == n[0] && t->size[1] == middle[0] && t->size[2] == middle[1] &&
        t->size[3] == n[3])
        return EXIT_OK;
    return complain(EXIT_BAD_INPUT,
                    "tensor out of the file does not have the result's shape [%" PRId64 ", %" PRId64
                    ", %" PRId64 ", %" PRId64 "]",
                    n[0], middle[0], middle[1], n[3]);
}

int compare_with_file(const struct input *input, const rapt_tensor *out, struct difference *result)
{
    int code = check_answer(input, out);
    if (code) return code;
    double largest = 0;
    *result = (struct difference){.fraction = NAN};
    /* Both are dense and in the same order. */
    for (int64_t i = 0, count = tensor_elements(out); i < count; i++) {
        double got = load_float(out->data, out->dtype, i), want = stored_value(input->answer, i);
        result->max_abs = fmax(result->max_abs, distance(got, want));
        if (isfinite(want)) largest = fmax(largest, fabs(want));
    }
    result->max_rel = result->max_abs == 0 ? 0 : result->max_abs / largest;
    return EXIT_OK;
}

int compare_with_oracle(const rapt_attention *a, const rapt_device_info *device,
                        struct difference *result)
{
    struct accuracy accuracy;
    if (!accuracy_check_attention(a, engine_of(device), ORACLE_BUDGET, &accuracy))
        return complain(EXIT_NOT_HERE, "out of memory");
    *result = (struct difference){.fraction = accuracy.worst, .elements = accuracy.elements};
    result->max_abs = accuracy.max_abs;
    result->max_rel = accuracy.max_abs == 0 ? 0 : accuracy.max_abs / accuracy.max_want;
    snprintf(result->where, sizeof result->where, "%s", accuracy.where);
    return EXIT_OK;
}
