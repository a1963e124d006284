/* sentence.h: comparing an error sentence with what a test expects of it. */
#ifndef RAPT_TESTS_SENTENCE_H
#define RAPT_TESTS_SENTENCE_H

#include <string.h>

/* Whether sentence is exactly expected, where '*' stands for any text (a name or number of this
 * machine); the function's name before it, "rapt_open: ", may be left out of expected. */
static inline int says(const char *sentence, const char *expected)
{
    const char *function_end = strncmp(sentence, "rapt_", 5) ? NULL : strstr(sentence, ": ");
    const char *star = NULL, *resume = NULL, *s = sentence, *e = expected;
    while (*s) {
        if (*e == '*') {
            star = e++;
            resume = s;
        } else if (*e == *s) {
            e++;
            s++;
        } else if (star) { /* the last star takes one more */
            e = star + 1;
            s = ++resume;
        } else {
            break;
        }
    }
    while (*e == '*') e++;
    if (!*s && !*e) return 1;
    return function_end ? says(function_end + 2, expected) : 0;
}

#endif
