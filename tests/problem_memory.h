/* problem_memory.h: the guarded memory behind the tensors of a problem (inside tests/problem*.c
 * only). */
#ifndef RAPT_TESTS_PROBLEM_MEMORY_H
#define RAPT_TESTS_PROBLEM_MEMORY_H

#include "problem.h"

/* A tensor's role. TOKENS: [batch, head, token, channel] data in the line's memory order, with all
 * stride tricks; ROWS: rows of scores, with those that do not depend on memory order; else dense.
 * REPEAT: KV heads, which "zero" lets share memory. */
enum { ROLE_INPUT = 1, ROLE_OUTPUT = 2, ROLE_TOKENS = 4, ROLE_ROWS = 8, ROLE_REPEAT = 16 };

/* Lays *t out, maps its memory, fills it with 1 bits and appends its region. false: out of memory.
 */
bool memory_add(struct problem_instance *instance, rapt_tensor *t, int64_t dtype,
                const int64_t size[4], unsigned role);
/* After the data is in place: remembers what must not change. false: out of memory. */
bool memory_seal(struct problem_instance *instance);
/* Bytes of an element's offset from t->data. */
int64_t memory_offset(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3);
/* With kv-shared: V is K's first channels. */
void problem_share(const struct problem_line *line, rapt_attention *a);
/* Stores x as the element's dtype; integers are rounded. */
void memory_store(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double x);
/* Sets all bits of the elements of one row of channels. */
void memory_blank_row(const rapt_tensor *t, int64_t i0, int64_t i1, int64_t i2);

#endif
