/* replay.c: runs a fuzz target without a fuzzer: every file of its corpus, and seeded mutations of
 * each. With file names as arguments, those files alone. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MUTATIONS = 8000, LARGEST = 1 << 16 };

static uint64_t state = 1;

/* xorshift64* (Vigna 2016). */
static uint64_t draw(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}

/* The bytes in memory of their exact size, so that a sanitizer sees a read behind them. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) abort();
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static size_t mutate(uint8_t *data, size_t size)
{
    for (uint64_t n = 1 + draw() % 6; n > 0; n--) {
        size_t at = size ? draw() % size : 0;
        switch (draw() % 6) {
        case 0:
            if (size) data[at] = (uint8_t)draw();
            break;
        case 1:
            if (size) data[at] ^= (uint8_t)(1u << draw() % 8);
            break;
        case 2:
            if (size < LARGEST)
                memmove(data + at + 1, data + at, size++ - at), data[at] = (uint8_t)draw();
            break;
        case 3:
            if (size) memmove(data + at, data + at + 1, --size - at);
            break;
        case 4:
            if (size > 8) size -= draw() % 8;
            break;
        default:
            if (size) data[at] = (uint8_t[]){0, 1, 0x7f, 0x80, 0xff, '"', '{', '9'}[draw() % 8];
        }
    }
    return size;
}

static size_t read_file(const char *path, uint8_t *data)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        printf("Bail out! %s cannot be read\n", path);
        exit(1);
    }
    size_t size = fread(data, 1, LARGEST, file);
    fclose(file);
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t seed[LARGEST], data[LARGEST + 8];
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    char folder[256], path[600];
    long files = 0, inputs = 0;
    for (int i = 1; i < argc; i++) run(seed, read_file(argv[i], seed));
    if (argc > 1) return 0;
    snprintf(folder, sizeof folder, "%s/%s", FUZZ_CORPUS, name);
    DIR *corpus = opendir(folder);
    if (!corpus) {
        printf("Bail out! %s cannot be opened (run in the root of the source)\n", folder);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(corpus));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        size_t size = read_file(path, seed);
        run(seed, size);
        state = 1 + size;
        for (int n = 0; n < MUTATIONS; n++) {
            memcpy(data, seed, size);
            run(data, mutate(data, size));
        }
        files++;
        inputs += 1 + MUTATIONS;
    }
    closedir(corpus);
    printf("1..1\n%s 1 - %s: %ld files, %ld inputs\n", files ? "ok" : "not ok", name, files,
           inputs);
    return !files;
}
