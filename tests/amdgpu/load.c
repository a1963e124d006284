/* Loads an AMD GPU code object: ELF segments, relocations, symbols, kernel descriptors, offload
 * bundles. */
#include "load.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef EM_AMDGPU
#define EM_AMDGPU 224
#endif
enum { RELOCATION_ABS64 = 3, RELOCATION_RELATIVE64 = 13, NOTE_METADATA = 32, PAGE = 4096 };

static bool refuse(char *error, size_t size, const char *what)
{
    snprintf(error, size, "code object: %s", what);
    return false;
}

/* A clang offload bundle: magic, entry count, then (offset, size, id length, id) records. Picks the
   first entry whose id ends in an AMD target that fits `gfx`. */
static bool unbundle(const uint8_t **data, size_t *size, const char *gfx)
{
    static const char magic[] = "__CLANG_OFFLOAD_BUNDLE__";
    uint64_t count, at = 32;
    if (*size < 32 || memcmp(*data, magic, 24) != 0) return true;
    memcpy(&count, *data + 24, 8);
    for (uint64_t i = 0; i < count && at + 24 <= *size; i++) {
        uint64_t head[3];
        memcpy(head, *data + at, 24);
        if (head[2] > 255 || at + 24 + head[2] > *size) return false;
        char id[256] = "";
        memcpy(id, *data + at + 24, head[2]);
        at += 24 + head[2];
        const char *arch = strstr(id, "gfx");
        if (!arch || head[0] > *size || head[1] > *size - head[0] || !head[1]) continue;
        if (gfx && strncmp(arch, gfx, strlen(gfx)) != 0) continue;
        *data += head[0];
        *size = head[1];
        return true;
    }
    return false;
}

static bool map_segments(struct amdgpu_module *m, const uint8_t *data, size_t size, char *error,
                         size_t error_size)
{
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)(const void *)data;
    const Elf64_Phdr *p = (const Elf64_Phdr *)(const void *)(data + e->e_phoff);
    uint64_t top = 0;
    if (e->e_phoff + (uint64_t)e->e_phnum * sizeof *p > size)
        return refuse(error, error_size, "program headers outside of the file");
    for (int i = 0; i < e->e_phnum; i++) {
        if (p[i].p_type == PT_LOAD && p[i].p_vaddr + p[i].p_memsz > top)
            top = p[i].p_vaddr + p[i].p_memsz;
        if (p[i].p_offset > size || p[i].p_filesz > size - p[i].p_offset)
            return refuse(error, error_size, "a segment lies outside of the file");
        if (p[i].p_type == PT_LOAD &&
            (p[i].p_filesz > p[i].p_memsz || p[i].p_memsz > (uint64_t)1 << 32))
            return refuse(error, error_size, "a segment has impossible sizes");
    }
    if (!top || top > (uint64_t)1 << 32) return refuse(error, error_size, "no loadable segment");
    m->image_size = (top + PAGE - 1) / PAGE * PAGE;
    void *map =
        mmap(NULL, m->image_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return refuse(error, error_size, "no memory for the image");
    m->image = map;
    for (int i = 0; i < e->e_phnum; i++)
        if (p[i].p_type == PT_LOAD)
            memcpy(m->image + p[i].p_vaddr, data + p[i].p_offset, p[i].p_filesz);
    for (int i = 0; i < e->e_phnum; i++)
        if (p[i].p_type == PT_LOAD && p[i].p_flags & PF_X)
            return program_open(&m->program, m->target, m->image + p[i].p_vaddr,
                                (uint64_t)(uintptr_t)(m->image + p[i].p_vaddr), p[i].p_memsz)
                       ? true
                       : refuse(error, error_size, "the disassembler does not start");
    return refuse(error, error_size, "no executable segment");
}

static bool read_symbols(struct amdgpu_module *m, const uint8_t *data, size_t size,
                         const Elf64_Shdr *s, const Elf64_Shdr *strings)
{
    if (s->sh_offset + s->sh_size > size || strings->sh_offset + strings->sh_size > size)
        return false;
    size_t count = s->sh_size / sizeof(Elf64_Sym);
    m->symbols = calloc(count + 1, sizeof *m->symbols);
    if (!m->symbols) return false;
    for (size_t i = 0; i < count; i++) {
        Elf64_Sym sym;
        memcpy(&sym, data + s->sh_offset + i * sizeof sym, sizeof sym);
        if (sym.st_name >= strings->sh_size) return false;
        struct symbol *to = &m->symbols[m->symbol_count++];
        snprintf(to->name, sizeof to->name, "%s",
                 (const char *)data + strings->sh_offset + sym.st_name);
        to->value = sym.st_value;
        to->size = sym.st_size;
    }
    return true;
}

static bool relocate(struct amdgpu_module *m, const uint8_t *data, size_t size, const Elf64_Shdr *s,
                     char *error, size_t error_size)
{
    if (s->sh_offset + s->sh_size > size)
        return refuse(error, error_size, "relocations outside of the file");
    for (size_t i = 0; i < s->sh_size / sizeof(Elf64_Rela); i++) {
        Elf64_Rela r;
        memcpy(&r, data + s->sh_offset + i * sizeof r, sizeof r);
        uint32_t type = (uint32_t)r.r_info, symbol = (uint32_t)(r.r_info >> 32);
        uint64_t value = (uint64_t)(uintptr_t)m->image + (uint64_t)r.r_addend;
        if (type == RELOCATION_ABS64 && symbol < (uint32_t)m->symbol_count)
            value += m->symbols[symbol].value;
        else if (type != RELOCATION_RELATIVE64)
            return refuse(error, error_size, "a relocation type that is not known");
        if (r.r_offset + 8 > m->image_size)
            return refuse(error, error_size, "a relocation outside of the image");
        memcpy(m->image + r.r_offset, &value, 8);
    }
    return true;
}

static bool read_sections(struct amdgpu_module *m, const uint8_t *data, size_t size, char *error,
                          size_t error_size)
{
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)(const void *)data;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(const void *)(data + e->e_shoff);
    if (e->e_shoff + (uint64_t)e->e_shnum * sizeof *s > size)
        return refuse(error, error_size, "section headers outside of the file");
    for (int i = 0; i < e->e_shnum; i++)
        if (s[i].sh_type == SHT_DYNSYM &&
            (s[i].sh_link >= e->e_shnum || !read_symbols(m, data, size, &s[i], &s[s[i].sh_link])))
            return refuse(error, error_size, "malformed symbol table");
    for (int i = 0; i < e->e_shnum; i++)
        if (s[i].sh_type == SHT_RELA && s[i].sh_flags & SHF_ALLOC &&
            !relocate(m, data, size, &s[i], error, error_size))
            return false;
    for (int i = 0; i < e->e_shnum; i++) {
        if (s[i].sh_type != SHT_NOTE || s[i].sh_offset + s[i].sh_size > size) continue;
        for (uint64_t at = s[i].sh_offset, end = at + s[i].sh_size; at + 12 <= end;) {
            uint32_t head[3]; /* name size, descriptor size, type */
            memcpy(head, data + at, 12);
            uint64_t text = at + 12 + (head[0] + 3) / 4 * 4;
            if (text + head[1] > end) return refuse(error, error_size, "malformed note");
            if (head[2] == NOTE_METADATA && !read_metadata(m, data + text, head[1]))
                return refuse(error, error_size, "malformed metadata");
            at = text + (head[1] + 3) / 4 * 4;
        }
    }
    return true;
}

/* Joins each kernel of the metadata with its 64-byte descriptor (LLVM AMDGPU usage, "Kernel
 * Descriptor"). */
static bool read_descriptors(struct amdgpu_module *m, char *error, size_t error_size)
{
    for (int i = 0; i < m->kernel_count; i++) {
        struct amdgpu_kernel *k = &m->kernels[i];
        char name[300];
        uint64_t at = 0;
        snprintf(name, sizeof name, "%s.kd", k->name);
        for (int j = 0; j < m->symbol_count; j++)
            if (strcmp(m->symbols[j].name, name) == 0) at = m->symbols[j].value;
        if (!at || at + 64 > m->image_size)
            return refuse(error, error_size, "a kernel has no descriptor");
        const uint8_t *d = m->image + at;
        int64_t entry;
        memcpy(&k->lds_size, d, 4);
        memcpy(&k->private_size, d + 4, 4);
        memcpy(&k->kernarg_size, d + 8, 4);
        memcpy(&entry, d + 16, 8);
        memcpy(&k->rsrc3, d + 44, 4);
        memcpy(&k->rsrc1, d + 48, 4);
        memcpy(&k->rsrc2, d + 52, 4);
        memcpy(&k->properties, d + 56, 2);
        memcpy(&k->preload, d + 58, 2);
        k->descriptor = (uint64_t)(uintptr_t)d;
        k->entry = k->descriptor + (uint64_t)entry;
        if (!k->wave_size) k->wave_size = m->target->wave;
    }
    return true;
}

static bool load_into(struct amdgpu_module *m, const uint8_t *data, size_t size, const char *gfx,
                      char *error, size_t error_size)
{
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)(const void *)data;
    if (!unbundle(&data, &size, gfx))
        return refuse(error, error_size, "the bundle holds no entry for this GPU");
    e = (const Elf64_Ehdr *)(const void *)data;
    if (size < sizeof *e || memcmp(e->e_ident, ELFMAG, 4) != 0 || e->e_machine != EM_AMDGPU)
        return refuse(error, error_size, "not an AMD GPU ELF file");
    m->target = find_target(e->e_flags & 0xff);
    if (!m->target) return refuse(error, error_size, "its GPU target is not emulated");
    if (gfx && strcmp(gfx, m->target->name) != 0) {
        snprintf(error, error_size, "code object: built for %s, the device is %s", m->target->name,
                 gfx);
        return false;
    }
    return map_segments(m, data, size, error, error_size) &&
           read_sections(m, data, size, error, error_size) &&
           read_descriptors(m, error, error_size);
}

struct amdgpu_module *amdgpu_module_load(const void *data, size_t size, const char *gfx,
                                         struct amdgpu_memory *memory, char *error,
                                         size_t error_size)
{
    struct amdgpu_module *m = calloc(1, sizeof *m);
    if (!m) {
        refuse(error, error_size, "out of memory");
        return NULL;
    }
    m->memory = memory;
    /* the file may lie at any address: copy it so that headers can be read in place */
    uint8_t *copy = aligned_alloc(64, (size + 127) / 64 * 64);
    bool ok = copy != NULL;
    if (ok) {
        memcpy(copy, data, size);
        ok = load_into(m, copy, size, gfx, error, error_size) &&
             amdgpu_memory_add(memory, m->image, m->image_size, "code object image");
    }
    free(copy);
    if (!ok) amdgpu_module_close(&m);
    return m;
}

void amdgpu_module_close(struct amdgpu_module **module)
{
    struct amdgpu_module *m = *module;
    if (!m) return;
    program_close(&m->program);
    if (m->image) {
        amdgpu_memory_remove(m->memory, m->image);
        munmap(m->image, m->image_size);
    }
    free(m->symbols);
    free(m->kernels);
    free(m);
    *module = NULL;
}

const char *amdgpu_module_target(const struct amdgpu_module *m)
{
    return m->target->name;
}

int amdgpu_module_kernel_count(const struct amdgpu_module *m)
{
    return m->kernel_count;
}

const struct amdgpu_kernel *amdgpu_module_kernel_at(const struct amdgpu_module *m, int index)
{
    return index >= 0 && index < m->kernel_count ? &m->kernels[index] : NULL;
}

const struct amdgpu_kernel *amdgpu_module_kernel(const struct amdgpu_module *m, const char *name)
{
    for (int i = 0; i < m->kernel_count; i++)
        if (strcmp(m->kernels[i].name, name) == 0) return &m->kernels[i];
    return NULL;
}

bool amdgpu_module_symbol(const struct amdgpu_module *m, const char *name, uint64_t *address,
                          uint64_t *size)
{
    for (int i = 0; i < m->symbol_count; i++)
        if (strcmp(m->symbols[i].name, name) == 0) {
            *address = (uint64_t)(uintptr_t)m->image + m->symbols[i].value;
            *size = m->symbols[i].size;
            return true;
        }
    return false;
}

uint64_t amdgpu_module_decode(const struct amdgpu_module *m,
                              void (*unknown)(void *context, const char *what), void *context)
{
    uint64_t count = 0;
    char error[600];
    for (uint64_t pc = m->program.base; pc < m->program.base + m->program.size;) {
        const struct inst *in = decode_at(&m->program, pc, error, sizeof error);
        if (!in) unknown(context, error);
        count += in != NULL;
        pc = in ? in->next_pc : pc + 4;
    }
    return count;
}
