/* oracle.h: the definition of right: rapt.h's formulas in f64, from the caller's structs, for any
 * shape, stride and dtype.
 *
 * Nothing here is shared with the library but the conversions of base/dtype.h. One row (batch,
 * head, query) at a time, so that a sample of rows of a long problem costs what the sample costs.
 */
#ifndef RAPT_TESTS_ORACLE_H
#define RAPT_TESTS_ORACLE_H

#include "rapt/rapt.h"

#include <stdbool.h>

/* A problem as the definition sees it; keeps the keys and values of one (sequence, KV head) in f64.
 */
struct oracle {
    const rapt_attention *a; /* complete: struct_size of this header; host pointers */
    int64_t sequences, q_heads, kv_heads, qk_channels, v_channels;
    double scale;
    int64_t sequence, kv_head;   /* what is loaded; -1: nothing */
    int64_t q_length, kv_length; /* of the loaded sequence */
    int64_t capacity;            /* keys that the arrays below have room for */
    double *k, *v;               /* [kv_length][channels] */
    double *v_unit;              /* I8: the scale of each value, as v; else NULL */
    double *q;                   /* [channels] of the row */
};

/* One row of the answer and the magnitudes that error bounds are made of. Arrays are owned by the
 * row. */
struct oracle_row {
    int64_t sequence, head, query;
    int64_t columns; /* kv_length: entries of the arrays over keys */
    int64_t visible; /* keys that the row sees */
    double maximum;  /* over visible scores and the sink */
    double total;    /* exp(sink - maximum) + sum exp(s - maximum); 0 for an empty row */
    double sink;     /* -INFINITY: none */
    double lse;
    double *out;       /* [Dv] */
    double *p;         /* [columns] weights; 0 where hidden */
    char *seen;        /* [columns] 1: visible */
    double *score;     /* [columns] s at the end; -INFINITY where hidden */
    double *product;   /* [columns] scale * dot(q, k) */
    double *magnitude; /* [columns] |scale| * sum |q_c k_c| */
    double *added;     /* [columns] |bias| + |ALiBi term| */
    const double *v;   /* [columns][Dv] the values, of the oracle */
};

bool oracle_open(struct oracle *o, const rapt_attention *a); /* false: out of memory */
void oracle_close(struct oracle *o);
int64_t oracle_q_length(const rapt_attention *a, int64_t sequence);
int64_t oracle_kv_length(const rapt_attention *a, int64_t sequence);

bool oracle_row_open(struct oracle_row *row, const struct oracle *o); /* room for any row of o */
void oracle_row_close(struct oracle_row *row);
/* Evaluates one row. Fastest when rows of the same sequence and head follow each other. false: out
 * of memory. */
bool oracle_row(struct oracle *o, int64_t sequence, int64_t head, int64_t query,
                struct oracle_row *row);

/* Address of an element of a tensor of a (out, lse, weights, bias, mask, ...) that belongs to a
 * query of a sequence: ragged queries are looked up. Element offsets, for use with dtype.h's
 * load_float. */
int64_t oracle_offset(const rapt_attention *a, const rapt_tensor *t, int64_t sequence, int64_t head,
                      int64_t query, int64_t channel);
/* Element offset with broadcast of axes of size 1. */
int64_t tensor_offset(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3);
/* Where an element of a block of 32 tokens of RAPT_KV_BLOCKED lies within it, by the list in
 * rapt.h. value: 0 for k, 1 for v. */
int64_t oracle_block_index(int value, int64_t dtype, int64_t token, int64_t channel);
/* Element offset of k or v in either layout (RAPT_KV_...). */
int64_t oracle_key_offset(int64_t layout, int value, const rapt_tensor *t, int64_t i0, int64_t i1,
                          int64_t i2, int64_t c);

/* The separate operations, element by element from their definitions in rapt.h. */

/* RoPE of one row of channels at a position; x and out are different arrays. */
void oracle_rotate(const rapt_rope_args *args, int64_t position, int64_t channels, const double *x,
                   double *out);
/* RoPE's cos and sin of a pair at a position, the magnitude factor included. */
void oracle_rope_angle(const rapt_rope_args *args, int64_t channels, int64_t position, int64_t pair,
                       double *cosine, double *sine);
/* Softmax of one row of n; -inf throughout gives zeros. */
void oracle_softmax(const double *x, int64_t n, double *out);
/* Elements of a row of channels, or any axis-3 run, as f64. */
void oracle_load(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, double *out);

#endif
