/* session.h: one rapt context on a stand-in driver, for the tests of this folder. */
#ifndef SESSION_H
#define SESSION_H

#include "fake.h"
#include "sentence.h"
#include "rapt/rapt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs the four above. */
#include <cmocka.h>

struct stand_in {
    const char *name, *library_variable, *library, *broken_library, *suffix, *arch, *old_arch,
        *launch, *enter, *missing_symbol;
    int max_shared, old_version;
};
extern const struct stand_in vendors[2]; /* cuda, hip */

/* The fake behind the vendor's library, reset; the environment names it, and names a file for each
 * of the nine replaceable rows. */
struct fake *session_begin(const struct stand_in *v);
/* Removes the variables and checks that nothing is alive and that nobody misused the driver. */
void session_end(const struct stand_in *v);
/* Points one of the nine variables at a new file with this text; NULL: removes the variable. */
void session_override(const struct stand_in *v, const char *stem, const char *text);
/* Removes all nine. */
void session_no_overrides(const struct stand_in *v);
/* A function of the vendor's library, as its caller would find it; fails the test without. */
void *session_symbol(const struct stand_in *v, const char *name);
/* How often a driver function was called since the last reset. */
int session_calls(const struct fake *fake, const char *name);

/* A context with this vendor's devices alone. */
rapt_context *session_open(const struct stand_in *v);

/* Plain attention over addresses of `memory` that a fake never reads: b2 h4/2 q64 kv96 d64 f16. */
rapt_attention session_problem(void *memory);
/* As the library sees a (params.h); fails the test where it refuses. */
struct problem;
struct problem session_checked(const rapt_attention *a);

/* Its plan, with the kernel of that name if one is given; fails the test without. */
rapt_plan *session_plan(rapt_device *device, const rapt_attention *a, const char *kernel);

/* Two entries of an array of struct CMUnitTest: the test on each vendor's stand-in. */
#define BOTH(test)                                                                                 \
    {"cuda: " #test, test, NULL, NULL, (void *)&vendors[0]},                                       \
    {                                                                                              \
        "hip: " #test, test, NULL, NULL, (void *)&vendors[1]                                       \
    }

#endif
