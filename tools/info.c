/* info.c: `rapt info`: what this machine and this library can do, and why not more. */
#include "commands.h"
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct info {
    struct device_options where;
    int json;
};

enum { KEY_JSON = 512 };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object", 0}, {0}};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct info *info = state->input;
    (void)text;
    switch (key) {
    case KEY_JSON:
        info->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "info takes no file");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp info_argp = {
    options, parse, NULL, "Lists devices, instruction sets and kernels.", NULL, NULL, NULL};

static const char *vendor_of(const char *backend)
{
    return !strcmp(backend, "cuda") ? "nvidia" : !strcmp(backend, "hip") ? "amd" : "cpu";
}

static json_t *list_devices(const rapt_context *context)
{
    json_t *list = json_array();
    for (int i = 0; i < rapt_device_count(context); i++) {
        rapt_device_info d = {.struct_size = sizeof d};
        if (rapt_device_describe(rapt_device_at(context, i), &d)) continue;
        json_array_append_new(list, json_pack("{s:o, s:s, s:s, s:I, s:I, s:I}", "name",
                                              json_text(d.name), "backend", d.backend, "arch",
                                              d.arch, "index", (json_int_t)d.index, "compute_units",
                                              (json_int_t)d.compute_units, "memory_bytes",
                                              (json_int_t)d.memory_bytes));
    }
    return list;
}

static json_t *list_kernels(const rapt_context *context)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < rapt_kernel_count(context); i++) {
        rapt_kernel_info k = {.struct_size = sizeof k};
        if (rapt_kernel_at(context, i, &k)) continue;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:o}", "name",
                                              k.name, "vendor", vendor_of(k.backend), "backend",
                                              k.backend, "arch", k.arch, "op", k.op, "bytes",
                                              (json_int_t)k.bytes, "present", (int)k.present,
                                              "override", json_text(k.override)));
    }
    return list;
}

static json_t *list_notes(const rapt_context *context)
{
    json_t *list = json_array();
    const char *name, *note;
    for (int i = 0; (note = rapt_backend_note(context, i, &name)); i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:o}", "name", name, "note",
                                        *note ? json_text(note_text(name, note)) : json_null()));
    return list;
}

/* The code objects that the library holds for GPUs; the CPU's code is not counted apart. */
static int64_t count_objects(const rapt_context *context, int64_t *bytes)
{
    int64_t count = 0;
    *bytes = 0;
    for (int64_t i = 0; i < rapt_kernel_count(context); i++) {
        rapt_kernel_info k = {.struct_size = sizeof k};
        if (rapt_kernel_at(context, i, &k) || !strcmp(k.backend, "cpu")) continue;
        count += k.bytes > 0;
        *bytes += k.bytes;
    }
    return count;
}

static int print_as_json(const rapt_context *context, const char *version)
{
    int64_t bytes, count = count_objects(context, &bytes);
    return print_json(json_pack("{s:s, s:o, s:o, s:{s:I, s:I}, s:o}", "version", version, "devices",
                                list_devices(context), "backends", list_notes(context),
                                "code_objects", "count", (json_int_t)count, "bytes",
                                (json_int_t)bytes, "kernels", list_kernels(context)));
}

static void print_devices(const rapt_context *context)
{
    printf("\nDevices\n");
    for (int i = 0; i < rapt_device_count(context); i++) {
        rapt_device_info d = {.struct_size = sizeof d};
        if (rapt_device_describe(rapt_device_at(context, i), &d)) continue;
        printf("  %s:%-3" PRId64 " %s, %s, %" PRId64 " %s%s, %.1f GiB\n", d.backend, d.index,
               d.name, d.arch, d.compute_units, unit_text(d.backend),
               d.compute_units == 1 ? "" : "s", (double)d.memory_bytes / (1 << 30));
    }
    const char *name, *note;
    for (int i = 0; (note = rapt_backend_note(context, i, &name)); i++)
        if (*note) printf("  %-5s %s\n", name, note_text(name, note));
}

/* Of code in this library; that of CPU kernels is part of the library itself. */
static const char *bytes_text(const char *backend, int64_t bytes, char text[24])
{
    if (!strcmp(backend, "cpu")) snprintf(text, 24, "-");
    else if (bytes) snprintf(text, 24, "%" PRId64, bytes);
    else snprintf(text, 24, "not built");
    return text;
}

static void print_kernel(const rapt_kernel_info *k, int64_t bytes, int width)
{
    char text[24];
    printf("  %-*s %-5s %-13s %9s  %s", width, k->name, k->backend, k->op,
           bytes_text(k->backend, bytes, text), k->arch);
}

static void print_override(const rapt_kernel_info *k)
{
    if (k->override) printf("  replaced by %s", k->override);
    printf("\n");
}

static int describe(const rapt_context *context, int64_t index, rapt_kernel_info *k)
{
    *k = (rapt_kernel_info){.struct_size = sizeof *k};
    return !rapt_kernel_at(context, index, k);
}

static int is_elsewhere(const rapt_kernel_info *k, const rapt_kernel_info *other)
{
    return !other->present && !strcmp(k->name, other->name) && !strcmp(k->backend, other->backend);
}

/* The kernel that no device here runs, once for all that it is built for. */
static void print_elsewhere(const rapt_context *context, int64_t index, const rapt_kernel_info *k,
                            int width)
{
    rapt_kernel_info other;
    int64_t bytes = 0, count = rapt_kernel_count(context);
    for (int64_t i = 0; i < index; i++)
        if (describe(context, i, &other) && is_elsewhere(k, &other)) return;
    for (int64_t i = index; i < count; i++)
        if (describe(context, i, &other) && is_elsewhere(k, &other)) bytes += other.bytes;
    print_kernel(k, bytes, width);
    for (int64_t i = index + 1; i < count; i++)
        if (describe(context, i, &other) && is_elsewhere(k, &other)) printf(" %s", other.arch);
    print_override(k);
}

static void print_kernels(const rapt_context *context)
{
    rapt_kernel_info k;
    int64_t count = rapt_kernel_count(context);
    int64_t bytes, objects = count_objects(context, &bytes);
    printf("\n%" PRId64 " code objects for GPUs in this library, %" PRId64 " bytes\n", objects,
           bytes);
    int width = 0;
    for (int64_t i = 0; i < count; i++)
        if (describe(context, i, &k) && (int)strlen(k.name) > width) width = (int)strlen(k.name);
    printf("\nKernels that run here, best first\n  %-*s %-5s %-13s %9s  %s\n", width, "name", "for",
           "operation", "bytes", "built for");
    for (int64_t i = 0; i < count; i++)
        if (describe(context, i, &k) && k.present) {
            print_kernel(&k, k.bytes, width);
            print_override(&k);
        }
    printf("\nKernels for other hardware\n");
    for (int64_t i = 0; i < count; i++)
        if (describe(context, i, &k) && !k.present) print_elsewhere(context, i, &k, width);
}

int command_info(int argc, char **argv)
{
    struct info info = {0};
    char version[32];
    rapt_context *context;
    argp_parse(&info_argp, argc, argv, 0, NULL, &info);
    rapt_status status = rapt_open(&context, NULL);
    if (status) return complain(exit_code_of(status), "%s", rapt_last_error());
    int number = rapt_version(), code = EXIT_OK;
    snprintf(version, sizeof version, "%d.%d.%d", number / 10000, number / 100 % 100, number % 100);
    if (info.json) {
        code = print_as_json(context, version);
    } else {
        printf("rapt %s\n", version);
        print_devices(context);
        print_kernels(context);
    }
    rapt_close(&context);
    return code;
}
