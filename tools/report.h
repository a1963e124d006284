/* report.h: what the commands print: JSON objects, one a line, or aligned text. */
#ifndef RAPT_TOOLS_REPORT_H
#define RAPT_TOOLS_REPORT_H

#include "device.h"

#include <jansson.h>

/* A JSON number; null for NaN and the infinities, which JSON cannot write. */
json_t *json_number(double value);
/* A JSON string; null for NULL. Bytes that are no UTF-8 become null too. */
json_t *json_text(const char *text);
/* Prints the object on one line and frees it. 0, or an exit code after a sentence. */
int print_json(json_t *object);
/* One "label  text" line of the form for people. */
void print_field(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "0.61 ms", "12.3 us", "4.56 s". */
const char *time_text(double seconds, char text[32]);
/* A backend's note without the backend's name in front. */
const char *note_text(const char *backend, const char *note);
/* What a backend's compute unit is called. */
const char *unit_text(const char *backend);
/* "cpu: AMD EPYC, avx512_bf16, 2 threads". */
const char *device_text(const struct device *device, char text[256]);

#endif
