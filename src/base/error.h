/* error.h: the thread's error sentence; every failing function of rapt leaves through fail(). */
#ifndef RAPT_BASE_ERROR_H
#define RAPT_BASE_ERROR_H

#include "rapt/rapt.h"

/* Stores the sentence ("function: fact (rule)") for rapt_last_error and returns status, so that a
 * refusal is one line: `return fail(RAPT_INVALID, "rapt_rope: ...")`. Sentences over 1023 bytes are
 * cut. Never allocates. */
rapt_status fail(rapt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__ /* looks into one file at a time: a failure is never RAPT_OK */
#define fail(status, ...) ((fail)(status, __VA_ARGS__), (status))
#endif
/* The sentence of this thread, also for callers inside the library that wrap it. */
const char *last_error(void);

#endif
