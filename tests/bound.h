/* bound.h: how far a result may lie from the oracle, derived from rounding analysis; see bound.c for the derivation. */
#ifndef RAPT_TESTS_BOUND_H
#define RAPT_TESTS_BOUND_H

#include "oracle.h"
#include "problem.h"

/* The worst element of a comparison, as a fraction of its bound: above 1 is wrong. */
struct accuracy {
    double worst;            /* error / bound; INFINITY: NaN or Inf where a number belongs, or the reverse */
    double got, want, bound; /* of the worst element */
    char   where[96];        /* "out[0,3,17,5]" */
    int64_t elements;        /* compared */
};

/* What the engine computes with, from the dtypes of the problem. */
struct rounding {
    double accumulate;  /* relative error of one step of a sum */
    double weight;      /* relative error of P before PV */
    double weight_floor;/* absolute, relative to the largest weight 1 */
    double output, weights_output;
    int    exact;       /* 1: dot products are, 2: scores are (see PROBLEM_DATA_LIST) */
};

struct rounding rounding_of(const rapt_attention *a, int exact);
/* Bounds of one row: out_bound[Dv]; weight_bound[columns] may be NULL. Returns the bound of lse. */
double bound_row(const struct oracle_row *row, const rapt_attention *a, const struct rounding *r, double *out_bound, double *weight_bound);

/* Compares the outputs that a problem's host memory holds with the oracle: out, lse and weights, or the op's output.
 * budget: multiply-adds that the oracle may spend before it samples rows; 0: all rows. false: out of memory. */
bool accuracy_check(const struct problem_instance *instance, double budget, struct accuracy *result);
/* The same for attention arguments that come from elsewhere. */
bool accuracy_check_attention(const rapt_attention *a, int exact, double budget, struct accuracy *result);

#endif
