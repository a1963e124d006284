/* verify.h: how far a result lies from the f64 definition, or from an answer that a file brings. */
#ifndef RAPT_TOOLS_VERIFY_H
#define RAPT_TOOLS_VERIFY_H

#include "input.h"

struct difference {
    double max_abs;  /* largest |got - want| of out; INFINITY: NaN or Inf where a number belongs, or
                        the reverse */
    double max_rel;  /* max_abs / largest |want| */
    double fraction; /* of the bound, the worst of out, lse and weights; above 1: wrong. NaN: no
                        bound was asked for */
    char where[96];  /* "out[0,3,17,5]": the element nearest to its bound; "": all are exact */
    int64_t elements; /* compared with the definition */
};

/* out against the file's tensor `out`, of the same shape. 0, or an exit code after a sentence. */
int compare_with_file(const struct input *input, const rapt_tensor *out, struct difference *result);
/* out, lse and weights of a (host memory) against the definition and the bound of its dtypes on the
 * device. */
int compare_with_oracle(const rapt_attention *a, const rapt_device_info *device,
                        struct difference *result);

#endif
