/* sass_order.c: checks in an sm_90a object that the compiler kept the overlap of a wgmma kernel.
 *
 *   sass_order OBJECT.co KEYS CHANNELS     one forward kernel of forward_sm90.cu with blocks of KEYS keys and heads of CHANNELS
 *   sass_order -l OBJECT.co                lists the order of the instructions that matter
 *
 * ptxas may move the wait for the second matrix product above the exponentials, or put a wait behind every multiply, without any
 * error: the results stay right and a third of the speed is gone. So the object itself is read: an ELF file whose .text sections
 * are instructions of 16 bytes, opcode in the low 12 bits. The opcodes below were found by assembling one instruction each with
 * nvcc 13.0 (they are the same since sm_70, the wgmma ones since sm_90).
 *
 * A steady step must read: at least CHANNELS/16 + KEYS/16 multiplies without a wait between; a wait that leaves one group in
 * flight; KEYS/2 exponentials; only then the wait for the rest. Local-memory accesses (spills) fail as well. */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { OTHER, MULTIPLY, WAIT_NONE, WAIT_ONE, EXP2, LOCAL, KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = {"", "multiply", "wait0", "wait1", "exp2", "local"};

/* One instruction: low and high 64 bits. */
static enum kind decode(uint64_t low, uint64_t high)
{
    unsigned opcode = low & 0xfff;
    if ((opcode & 0x1ff) == 0x1f0 && (opcode & 0xff) == 0xf0) return MULTIPLY; /* HGMMA: operand forms in the upper bits */
    switch (opcode) {
    case 0x9c5: /* WARPGROUP: .DEPBAR with the count in bits 72-74, or .ARRIVE */
        if (!(low & 0x800000000000)) return OTHER;
        return (high >> 8 & 7) ? WAIT_ONE : WAIT_NONE;
    case 0x308: return (high >> 10 & 0xf) == 2 ? EXP2 : OTHER; /* MUFU, function in bits 74-77 */
    case 0x387: /* STL */
    case 0x983: return LOCAL; /* LDL */
    default: return OTHER;
    }
}

struct demand {
    long multiplies, exponentials;
};

struct report {
    long steps, spills, serialised, early, instructions;
};

static void list_run(enum kind kind, long count)
{
    if (kind != OTHER && count) printf(count > 1 ? "%s x%ld\n" : "%s\n", kind_names[kind], count);
}

/* Walks one kernel's code in the order it lies in memory, which is the order of the source for the straight steps. */
static void walk(const unsigned char *code, size_t bytes, struct demand demand, int list, struct report *report)
{
    long      multiplies = 0, exponentials = 0, run = 0;
    int       open = 0; /* behind a wait1, before the wait0 that belongs to it */
    enum kind last = OTHER;
    for (size_t at = 0; at + 16 <= bytes; at += 16) {
        uint64_t word[2];
        memcpy(word, code + at, 16);
        enum kind kind = decode(word[0], word[1]);
        report->instructions++;
        if (kind == OTHER) continue;
        if (list && kind != last) list_run(last, run), run = 0;
        run++;
        last = kind;
        report->spills += kind == LOCAL;
        if (kind == MULTIPLY) multiplies++;
        if (kind == EXP2) exponentials++;
        if (kind == WAIT_ONE) {
            report->steps++;
            report->serialised += multiplies < demand.multiplies;
            multiplies = exponentials = 0;
            open = 1;
        }
        if (kind == WAIT_NONE) {
            report->early += open && exponentials < demand.exponentials;
            multiplies = open = 0;
        }
    }
    if (list) list_run(last, run);
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE          *file = fopen(path, "rb");
    unsigned char *data = NULL;
    if (!file) return NULL;
    if (!fseek(file, 0, SEEK_END)) {
        long end = ftell(file);
        if (end > 0 && (data = malloc((size_t)end)) && (rewind(file), fread(data, 1, (size_t)end, file)) != (size_t)end) {
            free(data);
            data = NULL;
        }
        *size = end > 0 ? (size_t)end : 0;
    }
    fclose(file);
    return data;
}

/* Every .text section of the object. Returns 0 when it is no 64-bit ELF file. */
static int walk_object(const unsigned char *data, size_t size, struct demand demand, int list, struct report *report)
{
    Elf64_Ehdr header;
    if (size < sizeof header) return 0;
    memcpy(&header, data, sizeof header);
    if (memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
    for (size_t i = 0; i < header.e_shnum; i++) {
        Elf64_Shdr section;
        if (header.e_shoff + (i + 1) * header.e_shentsize > size) return 0;
        memcpy(&section, data + header.e_shoff + i * header.e_shentsize, sizeof section);
        if (section.sh_type != SHT_PROGBITS || !(section.sh_flags & SHF_EXECINSTR)) continue;
        if (section.sh_offset + section.sh_size > size) return 0;
        walk(data + section.sh_offset, section.sh_size, demand, list, report);
    }
    return 1;
}

int main(int argc, char **argv)
{
    int list = argc == 3 && !strcmp(argv[1], "-l");
    if (!list && argc != 4) {
        fprintf(stderr, "sass_order: usage: sass_order OBJECT.co KEYS CHANNELS | sass_order -l OBJECT.co\n");
        return 2;
    }
    const char    *path = argv[list ? 2 : 1];
    long           keys = list ? 0 : strtol(argv[2], NULL, 10), channels = list ? 0 : strtol(argv[3], NULL, 10);
    struct demand  demand = {(channels + 15) / 16 + keys / 16, keys / 2};
    struct report  report = {0};
    size_t         size = 0;
    unsigned char *data = read_file(path, &size);
    if (!data || !walk_object(data, size, demand, list, &report)) {
        fprintf(stderr, "sass_order: %s: cannot be read as an ELF object\n", path);
        free(data);
        return 2;
    }
    free(data);
    if (list) return 0;
    if (!report.steps || report.serialised || report.early || report.spills) {
        fprintf(stderr,
                "sass_order: %s: %ld steps, %ld with a wait between their multiplies, %ld that wait before the exponentials, %ld "
                "accesses to local memory (a forward kernel overlaps its softmax with p v and spills nothing)\n",
                path, report.steps, report.serialised, report.early, report.spills);
        return 1;
    }
    return 0;
}
