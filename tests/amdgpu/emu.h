/* Internal contract of the AMD GPU emulator: decoded instructions, wave state and the helpers
 * shared by its parts. */
#ifndef AMDGPU_EMU_H
#define AMDGPU_EMU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amdgpu.h"

enum {
    ROW = 64,        /* lanes a register row has room for; wave32 uses the first half */
    VGPR_ROWS = 513, /* 0..255 VGPRs, 256..511 accumulation VGPRs, 512 a spare row for dual issue */
    SPARE_ROW = 512,
    SGPR_COUNT = 160, /* scalar file incl. the special registers below */
    MAX_OPERANDS = 8,
    MAX_RANGES = 10,
    AMDGPU_LDS_MAX = 163840 /* bytes, the largest LDS of a known target */
};

/* Scalar register numbers: 0..105 SGPRs, then our own fixed places for the named ones. */
enum {
    S_FLAT_SCRATCH = 102,
    S_VCC = 106,
    S_TTMP = 108,
    S_M0 = 124,
    S_EXEC = 126,
    S_SCC = 128,
    S_VCCZ = 129,
    S_EXECZ = 130,
    S_SHARED_BASE = 132, /* each aperture register is a 64-bit pair */
    S_SHARED_LIMIT = 134,
    S_PRIVATE_BASE = 136,
    S_PRIVATE_LIMIT = 138,
    S_XNACK = 140,
    S_FLAT_SCRATCH_HW = 142,
    S_MODE = 144
};

/* Generic address apertures: a flat address whose upper half equals one of these means LDS or
 * scratch. */
#define SHARED_APERTURE  UINT64_C(0x0001000000000000)
#define PRIVATE_APERTURE UINT64_C(0x0002000000000000)

enum operand_kind { OPK_NONE, OPK_VGPR, OPK_SGPR, OPK_IMM, OPK_NULL, OPK_OFF };

struct operand {
    uint8_t kind;   /* enum operand_kind */
    uint8_t dwords; /* registers named by the text; 1 for immediates */
    uint8_t half;   /* 16-bit register halves: 0 whole register, 1 low, 2 high */
    uint8_t neg, abs, sext;
    uint8_t is_float; /* the immediate was printed as a decimal fraction */
    uint8_t type;     /* letter of the operand type, see lanes.h; 0 until the opcode is known */
    uint8_t plain;    /* the row can be read in place: no modifier, no half, no permutation */
    uint16_t reg;
    uint64_t imm;
    double real;
    const uint32_t *rows; /* immediates: the value splatted over two rows (low and high word) */
};

struct wave;
struct inst;
typedef void exec_fn(struct wave *, const struct inst *);
/* One operation over n lanes; rows of 64 words, 64-bit values as two successive rows; m is the EXEC
 * mask as words. */
typedef void lane_fn(uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c,
                     const uint32_t *m, int n);
typedef void scalar_fn(struct wave *, const struct inst *);

enum op_flag {
    OPF_READS_DST = 1 << 0, /* fmac and friends: the destination is the last source */
    OPF_HALVES =
        1
        << 1, /* each result half depends only on the same half of the sources (and, or, mov...) */
    OPF_ZERO_HIGH = 1 << 2, /* gfx9 writes zero above a 16-bit result */
    OPF_MATRIX = 1 << 3,
    OPF_LDS = 1 << 4,
    OPF_VMEM = 1 << 5,
    OPF_SMEM = 1 << 6,
    OPF_STORE = 1 << 7,     /* every operand is read */
    OPF_READS_VCC = 1 << 8, /* implicit VCC source */
    OPF_TWO_DST = 1 << 9,   /* the first two operands are written */
    OPF_NO_DST = 1 << 10,
    OPF_ATOMIC = 1 << 11, /* the destination exists only when the instruction returns */
    OPF_VALU = 1 << 12,
    OPF_D16 = 1 << 13,       /* load into the low half */
    OPF_D16_HI = 1 << 14,    /* load into, or store from, the high half */
    OPF_END_BLOCK = 1 << 15, /* may change the program counter or yield */
    OPF_WRITES_EXEC = 1 << 16,
    OPF_CROSS = 1 << 17 /* reads other lanes: the undefined-lane mask is handled by the operation */
};

/* One row of the mnemonic tables. `types` lists destination and source letters "D:ABC". */
struct op_row {
    const char *name;
    exec_fn *exec;
    void (*fn)(void); /* a lane_fn or an operation's own helper, cast */
    const char *types;
    uint32_t flags;
    uint32_t param;
};

struct reg_range {
    uint16_t reg;
    uint8_t count;
    uint8_t halves; /* bit 0 low half, bit 1 high half */
};

struct dpp {
    int32_t from[ROW];  /* source lane, -1: outside, lane is off or reads zero (bound_ctrl) */
    int closed;         /* 64, 32 or 0: for waves up to this size no source lies outside */
    uint64_t lanes;     /* row_mask and bank_mask */
    uint8_t bound_zero; /* invalid source lanes read zero instead of disabling the write */
    uint8_t fetch_inactive;
};

/* Results on their way: vector loads, vector stores, LDS (before gfx12 also scalar loads), scalar
 * loads, exports. */
enum counter { CNT_VM, CNT_VS, CNT_DS, CNT_KM, CNT_EXP, CNT_KINDS };

enum category { CAT_OTHER, CAT_VALU, CAT_SALU, CAT_MATRIX, CAT_LDS, CAT_VMEM, CAT_SMEM, CAT_KINDS };

struct inst {
    exec_fn *exec;
    lane_fn *lane;
    const struct op_row *row;
    const struct inst *next;
    struct inst *dual;   /* second half of a dual-issue pair */
    exec_fn *dual_first; /* what the first half does */
    uint64_t pc, next_pc, target;
    struct operand op[MAX_OPERANDS];
    uint8_t nops, ndst, nsrc;
    uint8_t direct_dst; /* the lane function may write the register itself */
    uint8_t dst_high;   /* 16-bit result goes to the high half */
    uint8_t clamp, omod;
    uint8_t opsel, opsel_hi, neg_lo, neg_hi; /* one bit per source, destination last in opsel */
    uint8_t has_opsel_hi;
    uint8_t sdwa, sdwa_dst, sdwa_unused, sdwa_src[2];
    uint8_t glc, offen, idxen, lds, gds, tfe, returns;
    uint8_t cbsz, abid, blgp, byte_sel, bitop3;
    uint8_t dual_crossed; /* each half reads what the other writes */
    uint8_t nvread, nvwrite, nsread, nswrite;
    int32_t offset, offset0, offset1;
    uint32_t flags, param, swizzle;
    int64_t simm;
    int16_t
        wait[CNT_KINDS]; /* s_waitcnt and kin: how many may stay outstanding, -1: not waited for */
    uint8_t category;
    struct reg_range vread[MAX_RANGES], vwrite[2], sread[MAX_RANGES], swrite[3];
    struct dpp *dpp;
    char *text;
};

enum generation { GEN_CDNA2, GEN_CDNA3, GEN_CDNA4, GEN_RDNA2, GEN_RDNA3, GEN_RDNA4 };

struct target {
    const char *name;
    uint8_t mach; /* EF_AMDGPU_MACH, ELF flags bits 0..7 */
    enum generation gen;
    int wave;                /* default wave size */
    int vgprs, vgpr_granule; /* per SIMD and lane, and the allocation step, for occupancy */
    int waves_per_simd, simds;
    int lds_bytes;
    int units;               /* compute units reported by the fake driver */
    uint8_t packed_ids;      /* v0 holds x | y << 10 | z << 20 */
    uint8_t architected_ids; /* workgroup numbers in ttmp7 and ttmp9 */
    uint8_t architected_scratch;
    uint8_t store_in_vmcnt; /* stores count in vmcnt (gfx9) instead of a counter of their own */
    uint8_t zero_high16;    /* most 16-bit results clear the upper half */
};

/* What a profile counts per instruction, over all waves. */
struct place {
    uint64_t hits, lds_cycles, lds_conflicts;
};

struct program {
    const struct target *target;
    const uint8_t *code; /* loaded text */
    uint64_t base;       /* its address */
    size_t size;
    struct inst **at;      /* per 4 bytes, NULL until decoded */
    struct place *profile; /* per 4 bytes; NULL: not counted */
    void *disasm;
};

struct worker {
    jmp_buf escape;
    const struct launch *launch;
    struct amdgpu_stats stats;
    uint64_t counts[CAT_KINDS];
    const struct amdgpu_range *last; /* allocation hit last */
    uint8_t *lds, *lds_written;
    uint32_t *lds_writer, *lds_reader; /* per dword: who touched it in which barrier epoch */
    bool count_conflicts;
    uint32_t epoch;
    struct launch *shared; /* the same launch, for its work counter */
    struct wave *waves;
    char error[768];
};

struct group {
    uint32_t id[3];
    uint32_t live, arrived, generation;
    uint32_t lds_size, wave_count;
    uint32_t epoch;
};

struct wave {
    uint32_t mask[ROW] __attribute__((aligned(64)));
    uint32_t tmp[8][2 * ROW] __attribute__((aligned(64)));
    uint32_t (*v)[ROW]; /* VGPR_ROWS rows, 64-byte aligned */
    uint64_t exec, full, pc;
    const struct inst *at;
    int n; /* lanes: 32 or 64 */
    uint32_t s[SGPR_COUNT];
    uint32_t scc;
    uint32_t s_undef[SGPR_COUNT]; /* per scalar register: the bits that were never given a value */
    uint64_t (*undef)[2];         /* per VGPR and half: lanes never given a value */
    uint32_t *v_root, s_root[SGPR_COUNT],
        root;       /* code offset where an undefined value was first used, + 1 */
    uint32_t *vtag; /* per VGPR: outstanding counter and sequence, 0 none */
    uint32_t stag[SGPR_COUNT];
    uint32_t issued[CNT_KINDS], done[CNT_KINDS], last_smem, last_lds_store;
    bool outstanding; /* something may be on its way */
    struct group *group;
    struct worker *worker;
    const struct program *program;
    uint8_t *scratch, *scratch_written; /* lane-major: private_size bytes per lane */
    uint32_t private_size;
    uint32_t index; /* wave number in the workgroup */
    uint32_t generation_seen;
    uint64_t budget;
    uint8_t done_flag, blocked, yield, signalled;
};

struct launch {
    const struct amdgpu_kernel *kernel;
    const struct amdgpu_module *module;
    const struct program *program;
    uint32_t grid[3], block[3]; /* grid in workgroups */
    uint32_t threads, waves;
    uint32_t lds_size;
    const uint8_t *kernarg, *packet;
    uint32_t kernarg_size;
    struct amdgpu_memory *memory;
    const struct amdgpu_options *options;
    uint64_t next_group, total_groups;
    int failed;
};

/* decode.c */
const struct inst *decode_at(const struct program *, uint64_t pc, char *error, size_t size);
bool program_open(struct program *, const struct target *, const uint8_t *code, uint64_t base,
                  size_t size);
void program_close(struct program *);
/* operands.c */
bool parse_instruction(struct inst *, const char *text, char *mnemonic, size_t size);
/* ops.c */
const struct op_row *find_op(const char *name);
/* bind.c */
bool bind_instruction(const struct program *, struct inst *, const char *mnemonic);
const struct target *find_target(uint32_t mach);
const struct target *find_target_name(const char *name);
uint32_t f32_to_f16_bits(float);
float f16_bits_to_f32(uint32_t);

/* checks.c */
_Noreturn void fault(struct wave *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_pending(struct wave *, const struct inst *);
void check_scalar_defined(struct wave *, const struct inst *, int reg, int count, const char *use);
void tag_vgprs(struct wave *, int reg, int count, enum counter);
void tag_sgprs(struct wave *, int reg, int count, enum counter);
uint32_t issue(struct wave *, enum counter);
void wait_for(struct wave *, enum counter, uint32_t left);
void need_defined(struct wave *, const struct inst *, const struct operand *, uint64_t lanes,
                  const char *use);
uint64_t undefined_lanes(struct wave *, const struct inst *);
void note_root(struct wave *, uint32_t root);
_Noreturn void fault_undefined(struct wave *, uint32_t root, const char *what);
void set_undefined(struct wave *, const struct reg_range *, uint64_t written, uint64_t undef);
void race_read(struct wave *, uint32_t address, uint32_t bytes, int lane);
void race_write(struct wave *, uint32_t address, uint32_t bytes, int lane);

/* matrix.c: multiply-adds, counted as 2, and the width of the inputs. */
void matrix_work(const struct inst *, double *flops, int *bits);

/* vector.c */
void exec_valu(struct wave *, const struct inst *);
void exec_dual(struct wave *, const struct inst *);
const uint32_t *fetch(struct wave *, const struct inst *, int operand, int slot);
void write_row(struct wave *, int reg, const uint32_t *row, uint64_t lanes);
void finish_row(struct wave *, const struct inst *, const uint32_t *result);
void mask_to_row(uint64_t mask, uint32_t *row);
uint64_t row_to_mask(const uint32_t *row, int n);

/* scalar.c */
uint64_t read_scalar64(struct wave *, const struct operand *);
uint32_t read_scalar(struct wave *, const struct operand *);
void write_scalar(struct wave *, const struct operand *, uint32_t);
void write_scalar64(struct wave *, const struct operand *, uint64_t);
void write_lane_mask(struct wave *, const struct operand *, uint64_t);
uint64_t read_lane_mask(struct wave *, const struct operand *);
void set_exec(struct wave *, uint64_t);
void mark_scalar(struct wave *, int reg, uint32_t undef_bits);
void mark_lane_mask(struct wave *, const struct operand *, uint64_t undef_lanes);
uint64_t undefined_mask(const struct wave *, const struct operand *);
/* dispatch.c: applies the denormal field of the mode register to the host. */
void set_float_mode(const struct wave *);

/* memory.c */
uint8_t *global_at(struct wave *, const struct inst *, uint64_t address, uint32_t bytes, int lane);
bool global_span(struct wave *, uint64_t low, uint64_t high);
const struct amdgpu_range *memory_find(const struct amdgpu_memory *, uint64_t address);
void memory_hold(struct amdgpu_memory *);
void memory_release(struct amdgpu_memory *);
/* global.c */
void global_access(struct wave *, const struct inst *, const struct operand *data,
                   const uint64_t *at);
void scratch_access(struct wave *, const struct inst *, const struct operand *data,
                    const int64_t *offset);
/* lds.c */
void lds_flat(struct wave *, const struct inst *, const uint64_t *at);
uint8_t *lds_at(struct wave *, const struct inst *, uint64_t address, uint32_t bytes, int lane);
void lds_note(struct wave *, const struct inst *, uint32_t address, uint32_t bytes, int lane,
              bool write, bool defined);

/* dispatch.c */
void run_wave(struct wave *);
void setup_wave(struct wave *, struct group *, uint32_t index);

static inline uint32_t *vrow(struct wave *w, int reg)
{
    return w->v[reg];
}

#endif
