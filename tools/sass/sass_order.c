/* sass_order.c: checks in an sm_90a object that the compiler kept the overlap of a wgmma kernel.
 *
 *   sass_order OBJECT.co KEYS CHANNELS PARTS EARLY SUMS SCALE
 *                            one forward kernel of forward_sm90.cu with blocks of KEYS keys, heads
 *                            of CHANNELS, operands in PARTS parts, EARLY eighths of the
 *                            exponentials before the second wait and SUMS to a score; SCALE: channels
 *                            to which a scale of i8 keys belongs, 0: all
 *   sass_order -l OBJECT.co  lists the order of the instructions that matter
 *
 * ptxas may move exponentials over the wait for the second matrix product, or put a wait behind
 * every multiply, without any error: the results stay right and a part of the speed is gone. So the
 * object itself is read: an ELF file whose .text sections are instructions of 16 bytes, opcode in
 * the low 12 bits. The opcodes below were found by assembling one instruction each with nvcc 13.0
 * (they are the same since sm_70, the wgmma ones since sm_90).
 *
 * A step must read: at least CHANNELS/16 + KEYS/16 multiplies without a wait between; a wait that
 * leaves one group in flight; a third of the EARLY exponentials on every way to the wait for the
 * rest, since the compiler evens out the two sides; with three parts all KEYS/2. With EARLY 0 the
 * multiplies end in a wait for everything. With parts there are 3 or 6 times as many multiplies;
 * with two parts the softmax comes before them, and with two sums each of the two products ends in
 * a wait for everything. With several scales of a key the products of its channels come scale by scale,
 * and between each and the next a share of those with values, behind a wait that leaves these in
 * flight. Local-memory accesses (spills) fail as well; but
 * with two parts each of two copies of issue_weights() may put KEYS/2 weights there and take them
 * back, and ptxas's own count of spills (mk/resources.awk) has to do. */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { OTHER, MULTIPLY, WAIT_NONE, WAIT_ONE, EXP2, LOCAL, BRANCH, LEAVE, KIND_COUNT };

static const char *const kind_names[KIND_COUNT] = {"",     "multiply", "wait0", "wait1",
                                                   "exp2", "local",    "",      ""};

struct instruction {
    enum kind kind;
    int always;  /* BRANCH, LEAVE: under no condition */
    long target; /* BRANCH: index of the instruction that it goes to */
};

/* BRA: the distance from the next instruction in units of 4 bytes, its low 8 bits in bits 16-23,
 * the rest from bit 34 on. */
static long branch_target(uint64_t low, uint64_t high, long index)
{
    uint64_t units = (((low >> 34 | high << 30) & 0xffffffffffff) << 8) | (low >> 16 & 0xff);
    int64_t distance = (int64_t)(units << 8) >> 8;
    return index + 1 + (long)(distance * 4 / 16);
}

/* One instruction: its low and high 64 bits. Guard predicate in bits 12-15, a second condition of a
 * branch in bits 87-90. */
static struct instruction decode(uint64_t low, uint64_t high, long index)
{
    struct instruction i = {OTHER, (low >> 12 & 15) == 7, 0};
    unsigned opcode = low & 0xfff;
    if ((opcode & 0x1ff) == 0x1f0 || (opcode & 0x1ff) == 0x0f0)
        i.kind = MULTIPLY; /* HGMMA: operand forms in the upper bits */
    switch (opcode) {
    case 0x9c5: /* WARPGROUP: .DEPBAR with the count in bits 72-74, or .ARRIVE */
        if (low & 0x800000000000) i.kind = (high >> 8 & 7) ? WAIT_ONE : WAIT_NONE;
        break;
    case 0x308: /* MUFU, function in bits 74-77 */
        if ((high >> 10 & 0xf) == 2) i.kind = EXP2;
        break;
    case 0x387: /* STL */
    case 0x983: /* LDL */
        i.kind = LOCAL;
        break;
    case 0x947: /* BRA; bits 32, 33: a uniform predicate decides */
        i.kind = BRANCH;
        i.always = i.always && (high >> 23 & 15) == 7 && !(low >> 32 & 3);
        i.target = branch_target(low, high, index);
        break;
    case 0x94d: /* EXIT */
    case 0x950: /* RET */
        i.kind = LEAVE;
        break;
    default:
        break;
    }
    return i;
}

/* whole: a step ends in a wait for everything. */
struct demand {
    long multiplies, exponentials;
    int whole;
};

struct report {
    long steps, spills, serialised, early;
};

static void list_run(enum kind kind, long count)
{
    if (*kind_names[kind] && count)
        printf(count > 1 ? "%s x%ld\n" : "%s\n", kind_names[kind], count);
}

/* The fewest exponentials on any way from behind `start` to a wait for everything; -1: no such wait
 * is reached. best: count scratch values. Relaxes until nothing improves, so spin loops end. */
static long fewest_exponentials(const struct instruction *code, long count, long start, long *best)
{
    long fewest = -1;
    int changed = 1;
    for (long i = 0; i < count; i++) best[i] = -1;
    if (start + 1 < count) best[start + 1] = 0;
    while (changed) {
        changed = 0;
        for (long i = 0; i < count; i++) {
            if (best[i] < 0 || code[i].kind == WAIT_NONE ||
                (code[i].kind == LEAVE && code[i].always))
                continue;
            long cost = best[i] + (code[i].kind == EXP2), next[2] = {i + 1, -1};
            if (code[i].kind == BRANCH) next[1] = code[i].target;
            if (code[i].kind == BRANCH && code[i].always) next[0] = -1;
            for (int k = 0; k < 2; k++) {
                if (next[k] < 0 || next[k] >= count ||
                    (best[next[k]] >= 0 && best[next[k]] <= cost))
                    continue;
                best[next[k]] = cost;
                changed = 1;
            }
        }
    }
    for (long i = 0; i < count; i++)
        if (code[i].kind == WAIT_NONE && best[i] >= 0 && (fewest < 0 || best[i] < fewest))
            fewest = best[i];
    return fewest;
}

/* Walks one kernel's code; groups of multiplies lie in memory as they are issued. */
static void walk(const struct instruction *code, long count, long *scratch, struct demand demand,
                 int list, struct report *report)
{
    long multiplies = 0, run = 0;
    enum kind last = OTHER;
    for (long i = 0; i < count; i++) {
        enum kind kind = code[i].kind;
        if (kind == OTHER || kind == BRANCH || kind == LEAVE) continue;
        if (kind != last) {
            if (list) list_run(last, run);
            run = 0;
        }
        run++;
        last = kind;
        report->spills += kind == LOCAL;
        if (kind == MULTIPLY) multiplies++;
        if (kind == WAIT_NONE && demand.whole && multiplies >= demand.multiplies) report->steps++;
        if (kind == WAIT_NONE) multiplies = 0;
        if (kind != WAIT_ONE) continue;
        long exponentials = fewest_exponentials(code, count, i, scratch);
        report->steps++;
        report->serialised += multiplies < demand.multiplies;
        report->early += exponentials < demand.exponentials;
        multiplies = 0;
        if (list)
            list_run(last, run), run = 0,
                                 printf("  at least %ld exp2 before wait0\n", exponentials);
    }
    if (list) list_run(last, run);
}

static int walk_section(const unsigned char *text, size_t bytes, struct demand demand, int list,
                        struct report *report)
{
    long count = (long)(bytes / 16);
    struct instruction *code = malloc((size_t)count * sizeof *code + 1);
    long *scratch = malloc((size_t)count * sizeof *scratch + 1);
    int done = code && scratch;
    for (long i = 0; done && i < count; i++) {
        uint64_t word[2];
        memcpy(word, text + 16 * i, 16);
        code[i] = decode(word[0], word[1], i);
    }
    if (done) walk(code, count, scratch, demand, list, report);
    free(code);
    free(scratch);
    return done;
}

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    unsigned char *data = NULL;
    if (!file) return NULL;
    if (!fseek(file, 0, SEEK_END)) {
        long end = ftell(file);
        if (end > 0 && (data = malloc((size_t)end)) &&
            (rewind(file), fread(data, 1, (size_t)end, file)) != (size_t)end) {
            free(data);
            data = NULL;
        }
        *size = end > 0 ? (size_t)end : 0;
    }
    fclose(file);
    return data;
}

/* Every .text section of the object. Returns 0 when it is no 64-bit ELF file. */
static int walk_object(const unsigned char *data, size_t size, struct demand demand, int list,
                       struct report *report)
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
        if (!walk_section(data + section.sh_offset, section.sh_size, demand, list, report))
            return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    int list = argc == 3 && !strcmp(argv[1], "-l");
    if (!list && argc != 8) {
        fprintf(stderr,
                "sass_order: usage: sass_order OBJECT.co KEYS CHANNELS PARTS EARLY SUMS SCALE | "
                "sass_order -l OBJECT.co\n");
        return 2;
    }
    const char *path = argv[list ? 2 : 1];
    long number[6] = {0}; /* keys, channels, parts, early, sums, channels of a scale */
    for (int i = 0; i < 6 && !list; i++) number[i] = strtol(argv[2 + i], NULL, 10);
    long products = number[2] * (number[2] + 1) / 2, all = number[0] / 2;
    const long exponentials[4] = {0, all * number[3] / 24, 0, all}; /* by parts */
    long scores = (number[1] + 15) / 16, values = number[0] / 16;
    struct demand demand = {products * (scores + values), exponentials[number[2] & 3],
                            number[3] == 0};
    if (number[4] > 1)
        demand = (struct demand){products * (scores < values ? scores : values), 0, 1};
    if (number[5] > 0 && number[5] < number[1]) /* values come as two numbers, or more products */
        demand = (struct demand){number[5] / 16 + 2 * values / (number[1] / number[5]), 0, 0};
    struct report report = {0};
    size_t size = 0;
    unsigned char *data = read_file(path, &size);
    if (!data || !walk_object(data, size, demand, list, &report)) {
        fprintf(stderr, "sass_order: %s: cannot be read as an ELF object\n", path);
        free(data);
        return 2;
    }
    free(data);
    if (list) return 0;
    long kept = number[2] == 2 ? 2 * number[0] : 0;
    if (!report.steps || report.serialised || report.early || report.spills > kept) {
        fprintf(stderr,
                "sass_order: %s: %ld steps, %ld with a wait between their multiplies, %ld that "
                "wait before the exponentials, %ld "
                "accesses to local memory (a forward kernel overlaps its softmax with p v and "
                "spills nothing)\n",
                path, report.steps, report.serialised, report.early, report.spills);
        return 1;
    }
    return 0;
}
