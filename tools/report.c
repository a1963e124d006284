/* report.c: prints results as JSON or as aligned text. */
#include "report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS = 9 };

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *json_text(const char *text)
{
    json_t *value = text ? json_string(text) : NULL;
    return value ? value : json_null();
}

int print_json(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(object);
    if (!text) return complain(EXIT_NOT_HERE, "out of memory");
    puts(text);
    fflush(stdout);
    free(text);
    return EXIT_OK;
}

void print_field(const char *label, const char *format, ...)
{
    va_list arguments;
    printf("%-9s ", label);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

const char *time_text(double seconds, char text[32])
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1, "s"}, {1e-3, "ms"}, {1e-6, "us"}};
    size_t i = 0;
    while (i < 2 && seconds < units[i].unit) i++;
    snprintf(text, 32, "%.3g %s", seconds / units[i].unit, units[i].name);
    return text;
}

const char *unit_text(const char *backend)
{
    return !strcmp(backend, "cpu")   ? "thread"
           : !strcmp(backend, "hip") ? "compute unit"
                                     : "multiprocessor";
}

const char *device_text(const struct device *device, char text[256])
{
    const rapt_device_info *info = &device->info;
    snprintf(text, 256, "%s: %s, %s, %" PRId64 " %s%s", device->label, info->name, info->arch,
             info->compute_units, unit_text(info->backend), info->compute_units == 1 ? "" : "s");
    return text;
}

const char *note_text(const char *backend, const char *note)
{
    size_t length = strlen(backend);
    return strncmp(note, backend, length) || strncmp(note + length, ": ", 2) ? note
                                                                             : note + length + 2;
}
