/* requests.h: included before all else into sources of the library that are compiled once more for
 * tests/check/pack_requests.c: a function of the test takes the place of each request for a cache line. */
#ifndef RAPT_TESTS_REQUESTS_H
#define RAPT_TESTS_REQUESTS_H

void note_request(const void *at);

#define RAPT_REQUEST(at, ...)   note_request(at)
#define __builtin_prefetch(...) RAPT_REQUEST(__VA_ARGS__, 0)

#endif
