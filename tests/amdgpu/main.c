/* Command line of the emulator: lists the kernels of a code object, or runs one on buffers given as
 * files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "amdgpu.h"

static const char usage[] =
    "usage: run FILE.hsaco                         list the kernels\n"
    "       run FILE.hsaco --decode                list instructions that are not emulated\n"
    "       run FILE.hsaco KERNEL GX,GY,GZ BX,BY,BZ [options] ARG...\n"
    "  ARG  i32:N  i64:N  f32:X  in:FILE  out:BYTES:FILE (zeroed)  garbage:BYTES:FILE  inout:FILE\n"
    "  options  --lds N (dynamic bytes)  --threads N  --order forward|backward|shuffled  --races  "
    "--no-checks  --stats\n";

struct buffer {
    uint8_t *data;
    size_t size;
    const char *save_as;
};

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    uint8_t *data = n >= 0 ? aligned_alloc(256, ((size_t)n + 511) / 256 * 256) : NULL;
    if (data && fread(data, 1, (size_t)n, f) != (size_t)n) {
        free(data);
        data = NULL;
    }
    fclose(f);
    *size = (size_t)n;
    return data;
}

static void list_kernels(const struct amdgpu_module *m)
{
    printf("target %s\n", amdgpu_module_target(m));
    for (int i = 0; i < amdgpu_module_kernel_count(m); i++) {
        const struct amdgpu_kernel *k = amdgpu_module_kernel_at(m, i);
        printf("%s: wave %d, %u VGPRs, %u SGPRs, %u bytes LDS, %u scratch, %u bytes of arguments "
               "(%d explicit)\n",
               k->name, k->wave_size, k->vgpr_count, k->sgpr_count, k->lds_size, k->private_size,
               k->kernarg_size, k->explicit_args);
    }
}

static void print_unknown(void *context, const char *what)
{
    ++*(int *)context;
    puts(what);
}

static bool parse_triple(const char *text, uint32_t out[3])
{
    out[0] = out[1] = out[2] = 1;
    return sscanf(text, "%u,%u,%u", &out[0], &out[1], &out[2]) >= 1;
}

/* Appends one argument at its natural alignment. */
static bool add_argument(const char *text, uint8_t *block, size_t *used,
                         struct amdgpu_memory *memory, struct buffer *b)
{
    uint64_t value = 0;
    size_t bytes = 8;
    const char *rest = strchr(text, ':');
    if (!rest++) return false;
    if (strncmp(text, "i32:", 4) == 0) {
        value = (uint32_t)strtol(rest, NULL, 0);
        bytes = 4;
    } else if (strncmp(text, "i64:", 4) == 0) {
        value = (uint64_t)strtoll(rest, NULL, 0);
    } else if (strncmp(text, "f32:", 4) == 0) {
        float f = strtof(rest, NULL);
        memcpy(&value, &f, 4);
        bytes = 4;
    } else if (strncmp(text, "in:", 3) == 0 || strncmp(text, "inout:", 6) == 0) {
        b->data = read_file(rest, &b->size);
        if (text[2] == 'o') b->save_as = rest;
        if (!b->data) return false;
    } else {
        char *end;
        b->size = strtoull(rest, &end, 0);
        b->data = aligned_alloc(256, (b->size + 511) / 256 * 256);
        if (!b->data) return false;
        memset(b->data, text[0] == 'g' ? 0xdb : 0, b->size);
        if (*end == ':') b->save_as = end + 1;
    }
    if (b->data) {
        value = (uint64_t)(uintptr_t)b->data;
        if (!amdgpu_memory_add(memory, b->data, b->size, text)) return false;
    }
    *used = (*used + bytes - 1) / bytes * bytes;
    memcpy(block + *used, &value, bytes);
    *used += bytes;
    return true;
}

static bool save(const struct buffer *b)
{
    FILE *f = fopen(b->save_as, "wb");
    if (!f) return false;
    bool ok = fwrite(b->data, 1, b->size, f) == b->size;
    return fclose(f) == 0 && ok;
}

static int parse_option(struct amdgpu_options *o, struct amdgpu_dispatch *d, bool *stats,
                        char **argv)
{
    if (strcmp(argv[0], "--races") == 0) return o->check_races = true, 1;
    if (strcmp(argv[0], "--stats") == 0) return *stats = o->profile = true, 1;
    if (strcmp(argv[0], "--no-checks") == 0) return o->check_undefined = o->check_waits = false, 1;
    if (!argv[1]) return 0;
    if (strcmp(argv[0], "--lds") == 0) return d->dynamic_lds = (uint32_t)atoi(argv[1]), 2;
    if (strcmp(argv[0], "--threads") == 0) return o->threads = atoi(argv[1]), 2;
    if (strcmp(argv[0], "--order") == 0) {
        o->order = argv[1][0] == 'b'   ? AMDGPU_BACKWARD
                   : argv[1][0] == 's' ? AMDGPU_SHUFFLED
                                       : AMDGPU_FORWARD;
        return 2;
    }
    return 0;
}

static int run(struct amdgpu_dispatch *d, char **argv)
{
    static uint8_t block[4096];
    static struct buffer buffers[256];
    char error[1024], report[2048];
    struct amdgpu_options options = amdgpu_default_options();
    struct amdgpu_stats stats;
    bool show = false;
    size_t used = 0;
    int count = 0;
    while (*argv) {
        int took = strncmp(*argv, "--", 2) == 0 ? parse_option(&options, d, &show, argv) : 0;
        if (!took &&
            (count == 256 || !add_argument(*argv, block, &used, d->memory, &buffers[count++]))) {
            fprintf(stderr, "run: cannot use \"%s\"\n%s", *argv, usage);
            return 2;
        }
        argv += took ? took : 1;
    }
    d->args = block;
    d->args_size = used;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    if (!amdgpu_launch(d, &options, &stats, error, sizeof error)) {
        fprintf(stderr, "run: %s\n", error);
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    if (show) {
        struct amdgpu_occupancy o = amdgpu_occupancy(
            d->module, d->kernel, d->block[0] * d->block[1] * d->block[2], d->dynamic_lds);
        amdgpu_report(d->module, d->kernel, &stats, &o, report, sizeof report);
        struct amdgpu_loop loop;
        fputs(report, stdout);
        report[0] = 0;
        if (amdgpu_matrix_loop(d->module, &loop)) amdgpu_loop_report(&loop, report, sizeof report);
        double seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
        printf("%s  emulated in %.3f s, %.2f million wave-instructions per second\n", report,
               seconds, 1e-6 * (double)stats.instructions / seconds);
    }
    for (int i = 0; i < count; i++) {
        if (buffers[i].save_as && !save(&buffers[i])) {
            fprintf(stderr, "run: cannot write %s\n", buffers[i].save_as);
            return 1;
        }
        free(buffers[i].data);
    }
    return 0;
}

int main(int argc, char **argv)
{
    char error[1024];
    size_t size;
    bool decode = argc == 3 && strcmp(argv[2], "--decode") == 0;
    if (argc < 2 || (argc > 2 && argc < 5 && !decode)) {
        fputs(usage, stderr);
        return 2;
    }
    uint8_t *data = read_file(argv[1], &size);
    struct amdgpu_memory *memory = amdgpu_memory_open();
    if (!data || !memory) {
        fprintf(stderr, "run: cannot read %s\n", argv[1]);
        return 1;
    }
    struct amdgpu_module *m = amdgpu_module_load(data, size, NULL, memory, error, sizeof error);
    free(data);
    if (!m) {
        fprintf(stderr, "run: %s\n", error);
        return 1;
    }
    int status = 0;
    if (argc == 2) {
        list_kernels(m);
    } else if (decode) {
        amdgpu_module_decode(m, print_unknown, &status);
        status = status != 0;
    } else {
        struct amdgpu_dispatch d = {
            .module = m, .memory = memory, .kernel = amdgpu_module_kernel(m, argv[2])};
        if (!d.kernel || !parse_triple(argv[3], d.grid) || !parse_triple(argv[4], d.block)) {
            fprintf(stderr, "run: no kernel %s, or bad dimensions\n%s", argv[2], usage);
            status = 2;
        } else {
            status = run(&d, argv + 5);
        }
    }
    amdgpu_module_close(&m);
    amdgpu_memory_close(&memory);
    return status;
}
