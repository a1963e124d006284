/* error.h: the thread's error sentence; every failing function of rapt leaves through fail(). */
#ifndef RAPT_BASE_ERROR_H
#define RAPT_BASE_ERROR_H

#include "rapt/rapt.h"

/* Stores the sentence ("function: fact (rule)") for rapt_last_error and returns status, so that a
 * refusal is one line: `return fail(RAPT_INVALID, "rapt_rope: ...")`. Sentences over 1023 bytes are
 * cut. Never allocates. */
rapt_status fail(rapt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The sentence of this thread, also for callers inside the library that wrap it. */
const char *last_error(void);

#endif
