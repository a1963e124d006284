/* Turns machine code into decoded instructions, once per address, through LLVM's disassembler
 * library. */
#include <llvm-c/Disassembler.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emu.h"

/* The AMDGPU parts of LLVM's shared library; llvm-c/Target.h declares them only for the configured
 * list of targets. */
void LLVMInitializeAMDGPUTargetInfo(void);
void LLVMInitializeAMDGPUTargetMC(void);
void LLVMInitializeAMDGPUDisassembler(void);

static pthread_mutex_t decode_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t llvm_once = PTHREAD_ONCE_INIT;

static void start_llvm(void)
{
    LLVMInitializeAMDGPUTargetInfo();
    LLVMInitializeAMDGPUTargetMC();
    LLVMInitializeAMDGPUDisassembler();
}

bool program_open(struct program *program, const struct target *target, const uint8_t *code,
                  uint64_t base, size_t size)
{
    pthread_once(&llvm_once, start_llvm);
    program->target = target;
    program->code = code;
    program->base = base;
    program->size = size;
    program->at = calloc(size / 4 + 1, sizeof *program->at);
    program->profile = calloc(size / 4 + 1, sizeof *program->profile);
    program->disasm = LLVMCreateDisasmCPU("amdgcn-amd-amdhsa", target->name, NULL, 0, NULL, NULL);
    if (program->at && program->profile && program->disasm) return true;
    program_close(program);
    return false;
}

static void free_inst(struct inst *in)
{
    if (!in) return;
    for (int i = 0; i < in->nops; i++) free((void *)in->op[i].rows);
    free_inst(in->dual);
    free(in->dpp);
    free(in->text);
    free(in);
}

void program_close(struct program *program)
{
    if (program->at)
        for (size_t i = 0; i < program->size / 4; i++) free_inst(program->at[i]);
    free(program->at);
    free(program->profile);
    if (program->disasm) LLVMDisasmDispose(program->disasm);
    memset(program, 0, sizeof *program);
}

static struct inst *parse_one(const struct program *program, uint64_t pc, uint64_t next_pc,
                              const char *text)
{
    struct inst *in = aligned_alloc(64, (sizeof *in + 63) / 64 * 64);
    char mnemonic[96];
    if (!in) return NULL;
    memset(in, 0, sizeof *in);
    in->pc = pc;
    in->next_pc = next_pc;
    in->text = strdup(text);
    in->swizzle =
        (uint32_t)(program->code[pc - program->base] | program->code[pc - program->base + 1] << 8);
    if (in->text && parse_instruction(in, text, mnemonic, sizeof mnemonic) &&
        bind_instruction(program, in, mnemonic))
        return in;
    free_inst(in);
    return NULL;
}

/* Does `in` read VGPR `reg`? */
static bool reads(const struct inst *in, int reg)
{
    for (int i = 0; i < in->nvread; i++)
        if (reg >= in->vread[i].reg && reg < in->vread[i].reg + in->vread[i].count) return true;
    return false;
}

/* Both halves of a dual-issue pair read their sources before either writes: order them, or send the
   first result to a spare row when each reads what the other writes. */
static void order_pair(struct inst **first, struct inst **second)
{
    struct inst *x = *first, *y = *second;
    if (!reads(y, x->op[0].reg)) return;
    if (!reads(x, y->op[0].reg)) {
        *first = y;
        *second = x;
        return;
    }
    x->dual_crossed = 1;
}

static struct inst *parse_text(const struct program *program, uint64_t pc, uint64_t next_pc,
                               char *text)
{
    char *split = strstr(text, " :: ");
    if (!split) return parse_one(program, pc, next_pc, text);
    *split = 0;
    struct inst *x = parse_one(program, pc, next_pc, text);
    struct inst *y = parse_one(program, pc, next_pc, split + 4);
    *split = ' ';
    if (!x || !y || !(x->flags & y->flags & OPF_VALU)) {
        free_inst(x);
        free_inst(y);
        return NULL;
    }
    order_pair(&x, &y);
    free(x->text);
    x->text = strdup(text);
    x->dual = y;
    x->dual_first = x->exec;
    x->exec = exec_dual;
    return x;
}

const struct inst *decode_at(const struct program *program, uint64_t pc, char *error, size_t size)
{
    uint64_t offset = pc - program->base;
    if (offset >= program->size || (offset & 3)) {
        snprintf(error, size, "program counter 0x%llx is outside of the code (%zu bytes at 0x%llx)",
                 (unsigned long long)pc, program->size, (unsigned long long)program->base);
        return NULL;
    }
    struct inst *in = __atomic_load_n(&program->at[offset / 4], __ATOMIC_ACQUIRE);
    if (in) return in;
    pthread_mutex_lock(&decode_lock);
    in = program->at[offset / 4];
    if (!in) {
        char text[512] = "";
        size_t bytes =
            LLVMDisasmInstruction(program->disasm, (uint8_t *)(uintptr_t)(program->code + offset),
                                  program->size - offset, pc, text, sizeof text);
        char *line = text;
        while (*line == '\t' || *line == ' ') line++;
        if (bytes) in = parse_text(program, pc, pc + bytes, line);
        if (in) __atomic_store_n(&program->at[offset / 4], in, __ATOMIC_RELEASE);
        else
            snprintf(error, size, "unknown instruction at code+0x%llx: %s",
                     (unsigned long long)offset, bytes ? line : "bytes that do not decode");
    }
    pthread_mutex_unlock(&decode_lock);
    return in;
}
