/* Public interface of the AMD GPU emulator: load a code object, register memory, launch kernels,
 * read statistics. */
#ifndef AMDGPU_H
#define AMDGPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct amdgpu_module;
struct amdgpu_memory;

struct amdgpu_range {
    uint64_t base, size;
    const char *what;
};

enum { AMDGPU_MAX_ARGS = 64 };

struct amdgpu_arg {
    uint32_t offset, size;
    char kind[32]; /* .value_kind of the metadata: by_value, global_buffer, hidden_... */
};

struct amdgpu_kernel {
    char name[256];
    uint64_t descriptor; /* address of the 64-byte kernel descriptor in the loaded image */
    uint64_t entry;
    uint32_t lds_size, private_size, kernarg_size;
    uint32_t rsrc1, rsrc2, rsrc3;
    uint16_t properties, preload;
    uint32_t sgpr_count, vgpr_count, agpr_count, sgpr_spills, vgpr_spills, max_workgroup;
    int wave_size;
    int explicit_args, arg_count;
    struct amdgpu_arg args[AMDGPU_MAX_ARGS];
};

enum amdgpu_order { AMDGPU_FORWARD, AMDGPU_BACKWARD, AMDGPU_SHUFFLED };

struct amdgpu_options {
    int threads;               /* 0: one per core */
    enum amdgpu_order order;   /* in which order the waves of a workgroup run between barriers */
    uint32_t seed;             /* of the shuffled order */
    bool check_races;          /* LDS words touched by two waves without a barrier between */
    bool check_undefined;      /* values that were never written must not reach memory, addresses or
                                  branches */
    bool check_waits;          /* outstanding results must be waited for */
    bool profile;              /* count every instruction and LDS cycle by address */
    uint64_t max_instructions; /* per wave; 0: no limit */
};

/* Sums over a launch. "wave" counts one per wave and instruction. */
struct amdgpu_stats {
    uint64_t instructions, valu, salu, matrix, lds, vmem, smem;
    uint64_t matrix_flops;
    uint64_t global_read, global_written, lds_read, lds_written; /* bytes of active lanes */
    uint64_t lds_cycles, lds_conflict_cycles,
        lds_sampled; /* bank cycles without and by conflicts, and LDS instructions they were
                        counted on */
    uint64_t barriers, groups, waves;
    uint64_t nanoseconds; /* of CPU time, all threads together */
};

struct amdgpu_occupancy {
    uint32_t waves_per_simd, limit_vgpr, limit_lds, limit_hardware;
    uint32_t lds_bytes; /* of a workgroup, with its dynamic part */
};

struct amdgpu_memory *amdgpu_memory_open(void);
void amdgpu_memory_close(struct amdgpu_memory **);
/* Registers [base, base + size) as accessible; `what` must outlive the registration. False when out
 * of memory. */
bool amdgpu_memory_add(struct amdgpu_memory *, const void *base, size_t size, const char *what);
bool amdgpu_memory_remove(struct amdgpu_memory *, const void *base);

/* Loads a code object (bare ELF or a clang offload bundle with one AMD entry). NULL with a sentence
   on failure. The module owns its image; `data` may be freed. `gfx` NULL accepts every supported
   target. */
struct amdgpu_module *amdgpu_module_load(const void *data, size_t size, const char *gfx,
                                         struct amdgpu_memory *, char *error, size_t error_size);
void amdgpu_module_close(struct amdgpu_module **);
const char *amdgpu_module_target(const struct amdgpu_module *);
int amdgpu_module_kernel_count(const struct amdgpu_module *);
const struct amdgpu_kernel *amdgpu_module_kernel_at(const struct amdgpu_module *, int index);
const struct amdgpu_kernel *amdgpu_module_kernel(const struct amdgpu_module *, const char *name);
bool amdgpu_module_symbol(const struct amdgpu_module *, const char *name, uint64_t *address,
                          uint64_t *size);

/* Decodes all of the code. Calls `unknown` with the text and offset of each instruction that is not
   emulated; returns how many instructions were decoded. */
uint64_t amdgpu_module_decode(const struct amdgpu_module *,
                              void (*unknown)(void *context, const char *what), void *context);

struct amdgpu_dispatch {
    const struct amdgpu_module *module;
    const struct amdgpu_kernel *kernel;
    struct amdgpu_memory *memory;
    uint32_t grid[3];  /* workgroups */
    uint32_t block[3]; /* work items per workgroup */
    uint32_t dynamic_lds;
    const void *args; /* the explicit arguments in their kernarg layout */
    size_t args_size;
};

/* Runs the kernel to its end. False with a sentence naming kernel, instruction and address on any
 * fault. */
bool amdgpu_launch(const struct amdgpu_dispatch *, const struct amdgpu_options *,
                   struct amdgpu_stats *, char *error, size_t error_size);
struct amdgpu_options amdgpu_default_options(void);
struct amdgpu_occupancy amdgpu_occupancy(const struct amdgpu_module *, const struct amdgpu_kernel *,
                                         uint32_t block_threads, uint32_t dynamic_lds);
void amdgpu_report(const struct amdgpu_module *, const struct amdgpu_kernel *,
                   const struct amdgpu_stats *, const struct amdgpu_occupancy *, char *text,
                   size_t size);

/* The innermost loop with matrix instructions that took most issue cycles in the launches so far
   that were profiled. Cycles are counted as if nothing overlapped: see loops.c. */
struct amdgpu_loop {
    uint64_t first, last; /* offsets in the code of its first instruction and of its branch */
    uint64_t passes;      /* how often waves took the branch or fell out of it */
    double instructions, matrix_instructions; /* per pass */
    double cycles, matrix_cycles;             /* issue cycles per pass, nothing overlapping */
    double ordered_cycles, ordered_matrix_cycles; /* the same when units overlap, in order */
    uint64_t lds_cycles, lds_conflicts;       /* sums; conflicts are extra to the cycles */
};
/* False when no loop with matrix instructions ran. */
bool amdgpu_matrix_loop(const struct amdgpu_module *, struct amdgpu_loop *);
/* Writes those of its instructions that at least every second pass executes, one a line. */
void amdgpu_loop_print(const struct amdgpu_module *, const struct amdgpu_loop *, FILE *);
void amdgpu_loop_report(const struct amdgpu_loop *, char *text, size_t size);

struct amdgpu_device_info {
    const char *gfx, *name;
    int wave_size, units, lds_bytes, simds_per_unit, waves_per_simd, vgprs;
};
/* Facts of a target by name (gfx1100...); false when the emulator does not know it. */
bool amdgpu_device_info(const char *gfx, struct amdgpu_device_info *);

#endif
