/* Connects a parsed instruction to its operation: operand types, constants, and which registers it
 * reads and writes. */
#include <stdlib.h>
#include <string.h>

#include "emu.h"
#include "lanes.h"

static bool is_short(int type)
{
    return type == 'H' || type == 'S' || type == 'T' || type == 'B';
}

static uint64_t bits_of_double(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}

static uint32_t bits_of_float(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

/* The bits an immediate has for an operand of this type. Inline fractions are encoded in the
   operand's own format; a 32-bit literal of an f64 operand is its upper half (ISA documents,
   "Literal constants"). */
static uint64_t encode_immediate(const struct operand *o, int type)
{
    if (o->is_float) {
        if (type == 'D' || type == 'Q' || type == 'L') return bits_of_double(o->real);
        if (type == 'H' || type == 'P' || type == 'S' || type == 'T')
            return f32_to_f16_bits((float)o->real);
        if (type == 'B') return bits_of_float((float)o->real) >> 16;
        uint64_t f = bits_of_float((float)o->real);
        return type == 'W' ? f | f << 32 : f;
    }
    int64_t value = (int64_t)o->imm;
    bool inline_integer = value >= -16 && value <= 64;
    if (type == 'D' && !inline_integer && o->imm <= UINT32_MAX) return o->imm << 32;
    if (type == 'W') return (o->imm & UINT32_MAX) | o->imm << 32;
    if (type == 'L' && !inline_integer) return (uint64_t)(int64_t)(int32_t)o->imm;
    return o->imm;
}

static bool splat_immediate(struct operand *o, int type)
{
    uint64_t bits = encode_immediate(o, type);
    uint32_t *rows = aligned_alloc(64, 2 * ROW * sizeof *rows);
    if (!rows) return false;
    for (int l = 0; l < ROW; l++) {
        rows[l] = (uint32_t)bits;
        rows[ROW + l] = (uint32_t)(bits >> 32);
    }
    o->rows = rows;
    o->imm = bits;
    return true;
}

static void add_read(struct inst *in, int reg, int count, int halves)
{
    if (in->nvread < MAX_RANGES)
        in->vread[in->nvread++] =
            (struct reg_range){(uint16_t)reg, (uint8_t)count, (uint8_t)halves};
}

static void add_write(struct inst *in, int reg, int count, int halves)
{
    if (in->nvwrite < 2)
        in->vwrite[in->nvwrite++] =
            (struct reg_range){(uint16_t)reg, (uint8_t)count, (uint8_t)halves};
}

static void add_scalar(struct reg_range *list, uint8_t *count, int limit, int reg, int n)
{
    if (*count < limit) list[(*count)++] = (struct reg_range){(uint16_t)reg, (uint8_t)n, 3};
}

/* The half that an SDWA selection of a byte or a word lies in. */
static int sdwa_half(int select)
{
    return select == 0 || select == 1 || select == 4 ? 1 : 2;
}

/* Which half of a 16-bit source is meant: from the register name (.l/.h) or from op_sel. */
static int source_halves(const struct inst *in, const struct operand *o, int source)
{
    if (in->sdwa && source < 2 && in->sdwa_src[source] != 6) return sdwa_half(in->sdwa_src[source]);
    if (!is_short(o->type)) return o->half == 1 ? 1 : o->half == 2 ? 2 : 3;
    if (o->half == 2 || (!o->half && (in->opsel >> source & 1))) return 2;
    return 1;
}

static void collect_ranges(struct inst *in, int wave)
{
    for (int i = 0; i < in->nops; i++) {
        const struct operand *o = &in->op[i];
        bool writes = i < in->ndst;
        if (o->kind == OPK_VGPR && writes) {
            int halves = 3;
            if (is_short(o->type) && !(in->flags & OPF_ZERO_HIGH)) halves = in->dst_high ? 2 : 1;
            if (in->sdwa && in->sdwa_dst != 6)
                halves = in->sdwa_unused == 2 ? sdwa_half(in->sdwa_dst) : 3;
            if (in->flags & OPF_D16) halves = 1;
            if (in->flags & OPF_D16_HI && !(in->flags & OPF_STORE)) halves = 2;
            add_write(in, o->reg, o->dwords, halves);
        } else if (o->kind == OPK_VGPR) {
            add_read(in, o->reg, o->dwords, source_halves(in, o, i - in->ndst));
        } else if (o->kind == OPK_SGPR && writes) {
            add_scalar(in->swrite, &in->nswrite, 3, o->reg, o->dwords);
        } else if (o->kind == OPK_SGPR) {
            add_scalar(in->sread, &in->nsread, MAX_RANGES, o->reg, o->dwords);
        }
    }
    if (in->flags & OPF_READS_DST && in->op[0].kind == OPK_VGPR)
        add_read(in, in->op[0].reg, in->op[0].dwords,
                 is_short(in->op[0].type) ? (in->dst_high ? 2 : 1) : 3);
    if (in->flags & OPF_READS_DST && in->op[0].kind == OPK_SGPR)
        add_scalar(in->sread, &in->nsread, MAX_RANGES, in->op[0].reg, in->op[0].dwords);
    if (in->flags & OPF_READS_VCC) add_scalar(in->sread, &in->nsread, MAX_RANGES, S_VCC, wave / 32);
}

/* A 32-bit operand type on a 64-bit register text means the instruction takes a pair anyway
 * (addresses, masks). */
static bool set_types(struct inst *in)
{
    const char *types = in->row->types;
    const char *colon = strchr(types, ':');
    int dst = colon ? (int)(colon - types) : 0;
    /* an atomic that returns nothing, and v_cmpx that writes only EXEC, print no destination */
    bool dropped = dst && ((in->flags & OPF_ATOMIC && !in->glc) ||
                           (in->flags & OPF_WRITES_EXEC && in->nops == (int)strlen(colon + 1)));
    in->ndst = (uint8_t)(dropped ? 0 : dst);
    const char *p = dropped ? colon + 1 : types;
    for (int i = 0; i < in->nops; i++) {
        if (*p == ':') p++;
        in->op[i].type = (uint8_t)(*p ? *p : 'U');
        if (*p) p++;
    }
    in->nsrc = (uint8_t)(in->nops - in->ndst);
    for (int i = 0; i < in->nops; i++) {
        struct operand *o = &in->op[i];
        if (o->kind == OPK_IMM && !splat_immediate(o, o->type)) return false;
    }
    return true;
}

static void set_fetch(struct inst *in)
{
    for (int i = in->ndst; i < in->nops; i++) {
        struct operand *o = &in->op[i];
        int source = i - in->ndst;
        bool touched = o->neg || o->abs || o->sext || o->half == 2;
        if (is_short(o->type) && !in->sdwa && !o->half && (in->opsel >> source & 1)) touched = true;
        if (o->type == 'E') touched = false;
        if (in->dpp && source == 0) touched = true;
        if (in->sdwa && source < 2 && in->sdwa_src[source] != 6) touched = true;
        o->plain = !touched;
    }
    const struct operand *d = &in->op[0];
    bool dst_short = in->ndst && is_short(d->type);
    in->dst_high = dst_short && (d->half == 2 || (!d->half && (in->opsel >> in->nsrc & 1)));
    in->direct_dst = in->ndst && d->kind == OPK_VGPR && !dst_short && !in->clamp && !in->omod &&
                     !in->dpp && !(in->sdwa && in->sdwa_dst != 6);
}

/* gfx9 clears the upper half for most 16-bit results; later generations and the fma family keep it
   (LLVM, SITargetLowering "zeroesHigh16BitsOfDest"). */
static void set_zero_high(const struct program *program, struct inst *in)
{
    if (!program->target->zero_high16) in->flags &= ~(uint32_t)OPF_ZERO_HIGH;
    if (in->op[0].half) in->flags &= ~(uint32_t)OPF_ZERO_HIGH;
    if (in->dst_high) in->flags &= ~(uint32_t)OPF_ZERO_HIGH;
}

static const struct op_row *lookup(const char *mnemonic)
{
    static const char *const suffixes[] = {"_e64_dpp", "_e32", "_e64", "_dpp", "_sdwa"};
    char name[96];
    const struct op_row *row = find_op(mnemonic);
    if (row) return row;
    if (strncmp(mnemonic, "v_dual_", 7) == 0) {
        strcpy(name, "v_");
        strcat(name, mnemonic + 7);
        return find_op(name);
    }
    size_t length = strlen(mnemonic);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t k = strlen(suffixes[i]);
        if (length > k && strcmp(mnemonic + length - k, suffixes[i]) == 0) {
            memcpy(name, mnemonic, length - k);
            name[length - k] = 0;
            return find_op(name);
        }
    }
    return NULL;
}

/* "vmcnt(0) lgkmcnt(1)", "null, 0x0" or "0x203": the counts that a wait instruction lets stay
   outstanding, -1 for no wait. Before gfx12 one counter serves LDS and scalar loads; here it is
   CNT_DS. */
static bool bind_wait(struct inst *in, const char *mnemonic)
{
    static const struct {
        const char *name;
        uint8_t high, low; /* counters in bits 13:8 and 5:0, CNT_KINDS: unused */
    } split[] = {
        {"s_wait_loadcnt", CNT_KINDS, CNT_VM},     {"s_wait_storecnt", CNT_KINDS, CNT_VS},
        {"s_wait_dscnt", CNT_KINDS, CNT_DS},       {"s_wait_kmcnt", CNT_KINDS, CNT_KM},
        {"s_wait_expcnt", CNT_KINDS, CNT_EXP},     {"s_wait_loadcnt_dscnt", CNT_VM, CNT_DS},
        {"s_wait_storecnt_dscnt", CNT_VS, CNT_DS}, {"s_waitcnt_vscnt", CNT_KINDS, CNT_VS},
        {"s_waitcnt_vmcnt", CNT_KINDS, CNT_VM},    {"s_waitcnt_lgkmcnt", CNT_KINDS, CNT_DS},
        {"s_waitcnt_expcnt", CNT_KINDS, CNT_EXP}};
    static const struct {
        const char *name;
        uint8_t counter;
    } named[] = {
        {"vmcnt(", CNT_VM}, {"lgkmcnt(", CNT_DS}, {"expcnt(", CNT_EXP}, {"vscnt(", CNT_VS}};
    for (int i = 0; i < CNT_KINDS; i++) in->wait[i] = -1;
    const char *rest = in->text + strlen(mnemonic);
    if (strcmp(mnemonic, "s_waitcnt") == 0) {
        bool any = false;
        for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
            const char *at = strstr(rest, named[i].name);
            if (!at) continue;
            in->wait[named[i].counter] = (int16_t)strtol(at + strlen(named[i].name), NULL, 0);
            any = true;
        }
        return any || strtol(rest, NULL, 0) == 0;
    }
    for (size_t i = 0; i < sizeof split / sizeof *split; i++)
        if (strcmp(mnemonic, split[i].name) == 0) {
            const char *comma = strchr(rest, ',');
            long value = strtol(comma ? comma + 1 : rest, NULL, 0);
            in->wait[split[i].low] = (int16_t)(split[i].high == CNT_KINDS ? value : value & 63);
            if (split[i].high != CNT_KINDS) in->wait[split[i].high] = (int16_t)(value >> 8 & 63);
        }
    return true;
}

static uint8_t category_of(const struct inst *in, const char *mnemonic)
{
    if (in->flags & OPF_MATRIX) return CAT_MATRIX;
    if (in->flags & OPF_VALU) return CAT_VALU;
    if (in->flags & OPF_LDS) return CAT_LDS;
    if (in->flags & OPF_VMEM) return CAT_VMEM;
    if (in->flags & OPF_SMEM) return CAT_SMEM;
    return strncmp(mnemonic, "s_", 2) == 0 ? CAT_SALU : CAT_OTHER;
}

bool bind_instruction(const struct program *program, struct inst *in, const char *mnemonic)
{
    in->row = lookup(mnemonic);
    if (!in->row) return false;
    in->exec = in->row->exec;
    in->lane = (lane_fn *)in->row->fn;
    in->flags = in->row->flags;
    in->param = in->row->param;
    if (!in->has_opsel_hi) in->opsel_hi = 0xff;
    in->returns = in->glc;
    if (!set_types(in)) return false;
    set_fetch(in);
    set_zero_high(program, in);
    collect_ranges(in, program->target->wave);
    if (in->flags & OPF_END_BLOCK && in->nops && in->op[0].kind == OPK_IMM) {
        in->simm = (int16_t)in->op[0].imm;
        in->target = in->next_pc + (uint64_t)(in->simm * 4);
    }
    in->category = category_of(in, mnemonic);
    if (strncmp(mnemonic, "s_wait", 6) == 0 && !bind_wait(in, mnemonic)) return false;
    /* v_dual_cndmask names no mask: it is VCC */
    if (strncmp(mnemonic, "v_dual_cndmask", 14) == 0 && in->nops == 3) {
        in->op[3] = (struct operand){.kind = OPK_SGPR, .reg = S_VCC, .dwords = 1, .type = 'M'};
        in->nops = 4;
        in->nsrc = 3;
        add_scalar(in->sread, &in->nsread, MAX_RANGES, S_VCC, 1);
    }
    return true;
}
