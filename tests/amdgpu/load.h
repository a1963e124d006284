/* A loaded code object: image, symbols, kernels. */
#ifndef AMDGPU_LOAD_H
#define AMDGPU_LOAD_H

#include "emu.h"

enum { MAX_KERNELS = 256 };

struct symbol {
    char name[256];
    uint64_t value, size; /* offset in the image */
};

struct amdgpu_module {
    const struct target *target;
    struct amdgpu_memory *memory;
    uint8_t *image; /* page aligned, zero filled, registered in `memory` */
    size_t image_size;
    struct symbol *symbols;
    int symbol_count;
    struct amdgpu_kernel *kernels;
    int kernel_count;
    struct program program;
};

/* notes.c: fills kernels from the metadata note (MessagePack). False when it is malformed. */
bool read_metadata(struct amdgpu_module *, const uint8_t *note, size_t size);

#endif
