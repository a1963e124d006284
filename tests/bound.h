/* bound.h: how far a result may lie from the oracle, derived from rounding analysis; see bound.c
 * for the derivation. */
#ifndef RAPT_TESTS_BOUND_H
#define RAPT_TESTS_BOUND_H

#include "oracle.h"
#include "problem.h"

/* The worst element of a comparison, as a fraction of its bound: above 1 is wrong. */
struct accuracy {
    double worst; /* error / bound; INFINITY: NaN or Inf where a number belongs, or the reverse */
    double got, want, bound;  /* of the worst element */
    char where[96];           /* "out[0,3,17,5]" */
    int64_t elements;         /* compared */
    double max_abs, max_want; /* of out: largest error and largest finite magnitude of the answer */
};

/* What an engine computes with, from the dtypes of the problem. */
struct rounding {
    double accumulate;   /* relative error of one step of a sum */
    double weight;       /* relative error of P before PV */
    double weight_floor; /* absolute error of P, where the largest weight is 1 */
    double output, output_floor, weights_output, weights_floor;
    double scaled; /* steps of a sum for the scales of its terms */
    double least;  /* elements of q, k and v below it may count as 0 */
    double small;  /* relative error of small weights of f32, see small_weight_error(); 0: none */
    double
        product_floor; /* weights times scales may be lost below so much of the largest of both */
    bool
        zeros; /* keys that a row of NaN does not see have weight 0, and a row of none is 0 beside any sink */
    int exact; /* 1: dot products are exact, 2: scores are (see PROBLEM_DATA_LIST) */
};

/* Bounds of one row. Arrays are owned by the struct. */
struct row_bound {
    double lse;
    double *out;     /* [Dv] */
    double *weights; /* [columns] */
    double *error;   /* [columns] scratch: relative errors of the weights */
    double *pile;    /* [columns] scratch */
    double *small;   /* [Dv] scratch: errors of the numerators by small weights */
};

/* Relative error of the last bit of a dtype, 2^-p; and the absolute error of its subnormal numbers.
 */
double unit_roundoff(int64_t dtype);
double subnormal_error(int64_t dtype);
/* The bound n u / (1 - n u) on the relative error of n roundings (Higham 2002, lemma 3.1). */
double gamma_bound(double n, double u);

struct rounding rounding_of(const rapt_attention *a, int exact, struct engine engine);
bool row_bound_open(struct row_bound *bound, const struct oracle *o); /* false: out of memory */
void row_bound_close(struct row_bound *bound);
void bound_row(const struct oracle *o, const struct oracle_row *row, const struct rounding *r,
               struct row_bound *bound);

/* Notes one element: want from the oracle, dtype of the result for its range. */
void accuracy_note(struct accuracy *result, double got, double want, double bound, int64_t dtype,
                   const char *name, const int64_t at[4]);
/* Compares the outputs that a problem's host memory holds with the oracle: out, lse and weights, or
 * the op's output. budget: multiply-adds that the oracle may spend before it samples rows; 0: all
 * rows. false: out of memory. */
bool accuracy_check(const struct problem_instance *instance, double budget,
                    struct accuracy *result);
/* The same for attention arguments that come from elsewhere. */
bool accuracy_check_attention(const rapt_attention *a, struct engine engine, double budget,
                              struct accuracy *result);

#endif
