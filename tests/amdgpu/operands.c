/* Reads the text of one disassembled instruction: mnemonic, operands and modifiers, without knowing
 * the opcode. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "emu.h"

static const struct {
    const char *name;
    uint16_t reg;
    uint8_t dwords;
} named_registers[] = {
    {"vcc_lo", S_VCC, 1},
    {"vcc_hi", S_VCC + 1, 1},
    {"vcc", S_VCC, 2},
    {"exec_lo", S_EXEC, 1},
    {"exec_hi", S_EXEC + 1, 1},
    {"exec", S_EXEC, 2},
    {"m0", S_M0, 1},
    {"scc", S_SCC, 1},
    {"src_scc", S_SCC, 1},
    {"vccz", S_VCCZ, 1},
    {"src_vccz", S_VCCZ, 1},
    {"execz", S_EXECZ, 1},
    {"src_execz", S_EXECZ, 1},
    {"src_shared_base", S_SHARED_BASE, 2},
    {"src_shared_limit", S_SHARED_LIMIT, 2},
    {"src_private_base", S_PRIVATE_BASE, 2},
    {"src_private_limit", S_PRIVATE_LIMIT, 2},
    {"flat_scratch", S_FLAT_SCRATCH_HW, 2},
    {"flat_scratch_lo", S_FLAT_SCRATCH_HW, 1},
    {"flat_scratch_hi", S_FLAT_SCRATCH_HW + 1, 1},
    {"src_flat_scratch_base_lo", S_FLAT_SCRATCH_HW, 1},
    {"src_flat_scratch_base_hi", S_FLAT_SCRATCH_HW + 1, 1},
    {"xnack_mask", S_XNACK, 2},
    {"xnack_mask_lo", S_XNACK, 1},
    {"xnack_mask_hi", S_XNACK + 1, 1},
};

/* "v3", "s[4:7]", "a12", "ttmp9", "v7.h"; false when the text is not a numbered register. */
static bool parse_numbered(const char *text, struct operand *out)
{
    static const struct {
        const char *prefix;
        uint8_t kind;
        uint16_t base;
    } files[] = {
        {"ttmp", OPK_SGPR, S_TTMP}, {"v", OPK_VGPR, 0}, {"a", OPK_VGPR, 256}, {"s", OPK_SGPR, 0}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t length = strlen(files[i].prefix);
        const char *p = text + length;
        if (strncmp(text, files[i].prefix, length) != 0) continue;
        bool bracket = *p == '[';
        if (bracket) p++;
        if (!isdigit((unsigned char)*p)) continue;
        char *end;
        unsigned long first = strtoul(p, &end, 10), last = first;
        if (bracket && *end == ':') last = strtoul(end + 1, &end, 10);
        if (bracket && *end++ != ']') return false;
        if (end[0] == '.' && (end[1] == 'l' || end[1] == 'h')) {
            out->half = end[1] == 'l' ? 1 : 2;
            end += 2;
        }
        if (*end || last < first || last - first > 63) return false;
        out->kind = files[i].kind;
        out->reg = (uint16_t)(files[i].base + first);
        out->dwords = (uint8_t)(last - first + 1);
        return true;
    }
    return false;
}

static bool parse_number(const char *text, struct operand *out)
{
    char *end;
    const char *digits = text + (*text == '-');
    if (!isdigit((unsigned char)*digits)) return false;
    out->kind = OPK_IMM;
    out->dwords = 1;
    if (strchr(text, '.') && strncmp(digits, "0x", 2) != 0) {
        out->is_float = 1;
        out->real = strtod(text, &end);
    } else {
        out->imm = *text == '-' ? (uint64_t)strtoll(text, &end, 0) : strtoull(text, &end, 0);
    }
    return *end == 0;
}

static bool parse_operand(char *text, struct operand *out)
{
    memset(out, 0, sizeof *out);
    size_t length = strlen(text);
    static const char *const wraps[] = {"neg(", "abs(", "sext(", "lit(", "lit64("};
    for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++) {
        size_t k = strlen(wraps[i]);
        if (strncmp(text, wraps[i], k) == 0 && text[length - 1] == ')') {
            text[length - 1] = 0;
            if (!parse_operand(text + k, out)) return false;
            if (i == 0) out->neg ^= 1;
            if (i == 1) out->abs = 1;
            if (i == 2) out->sext = 1;
            return true;
        }
    }
    if (text[0] == '-' && !isdigit((unsigned char)text[1])) {
        if (!parse_operand(text + 1, out)) return false;
        out->neg ^= 1;
        return true;
    }
    if (text[0] == '|' && length > 2 && text[length - 1] == '|') {
        text[length - 1] = 0;
        if (!parse_operand(text + 1, out)) return false;
        out->abs = 1;
        return true;
    }
    if (strcmp(text, "null") == 0) {
        out->kind = OPK_NULL;
        out->dwords = 1;
        return true;
    }
    if (strcmp(text, "off") == 0) {
        out->kind = OPK_OFF;
        return true;
    }
    for (size_t i = 0; i < sizeof named_registers / sizeof *named_registers; i++)
        if (strcmp(text, named_registers[i].name) == 0) {
            out->kind = OPK_SGPR;
            out->reg = named_registers[i].reg;
            out->dwords = named_registers[i].dwords;
            return true;
        }
    return parse_numbered(text, out) || parse_number(text, out);
}

/* "[0,1,1]" as bits, first entry in bit 0. */
static uint8_t parse_bits(const char *list)
{
    uint8_t bits = 0;
    int at = 0;
    for (const char *p = list; *p && *p != ']'; p++) {
        if (*p == '1') bits |= (uint8_t)(1 << at);
        if (*p == ',') at++;
    }
    return bits;
}

static uint8_t sdwa_select(const char *name)
{
    static const char *const names[] = {"BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3",
                                        "WORD_0", "WORD_1", "DWORD"};
    for (uint8_t i = 0; i < 7; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return 6;
}

static struct dpp *dpp_of(struct inst *in)
{
    if (!in->dpp) {
        in->dpp = calloc(1, sizeof *in->dpp);
        if (!in->dpp) abort();
        for (int l = 0; l < ROW; l++) in->dpp->from[l] = l;
        in->dpp->lanes = ~UINT64_C(0);
    }
    return in->dpp;
}

/* Lane permutations of DPP16 (ISA documents, "Data Parallel Processing"). -1 marks a source outside
 * of the row. */
static int dpp_source(const char *key, int amount, const int *list, int lane, int wave)
{
    int row = lane & ~15, at = lane & 15;
    if (strcmp(key, "quad_perm") == 0) return (lane & ~3) + list[lane & 3];
    if (strcmp(key, "row_shl") == 0) return at + amount < 16 ? lane + amount : -1;
    if (strcmp(key, "row_shr") == 0) return at - amount >= 0 ? lane - amount : -1;
    if (strcmp(key, "row_ror") == 0) return row + ((at - amount) & 15);
    if (strcmp(key, "row_mirror") == 0) return row + 15 - at;
    if (strcmp(key, "row_half_mirror") == 0) return row + (at & 8) + 7 - (at & 7);
    if (strcmp(key, "row_share") == 0 || strcmp(key, "row_newbcast") == 0) return row + amount;
    if (strcmp(key, "row_xmask") == 0) return row + (at ^ amount);
    if (strcmp(key, "row_bcast") == 0) {
        if (amount == 15) return row >= 16 ? row - 1 : -1;
        return lane >= 32 ? 31 : -1;
    }
    if (strcmp(key, "wave_shl") == 0) return lane + 1 < wave ? lane + 1 : -1;
    if (strcmp(key, "wave_shr") == 0) return lane - 1;
    if (strcmp(key, "wave_rol") == 0) return (lane + 1) % wave;
    if (strcmp(key, "wave_ror") == 0) return (lane + wave - 1) % wave;
    return -2;
}

static bool parse_dpp(struct inst *in, const char *key, const char *value)
{
    int list[8] = {0}, amount = (int)strtol(value, NULL, 0);
    if (*value == '[') {
        const char *p = value + 1;
        for (int i = 0; i < 8 && *p && *p != ']'; i++) {
            char *end;
            list[i] = (int)strtol(p, &end, 10);
            p = *end == ',' ? end + 1 : end;
        }
    }
    if (strcmp(key, "dpp8") == 0) {
        for (int l = 0; l < ROW; l++) dpp_of(in)->from[l] = (l & ~7) + list[l & 7];
        dpp_of(in)->bound_zero = 1;
        return true;
    }
    if (strcmp(key, "row_mask") == 0 || strcmp(key, "bank_mask") == 0) {
        for (int l = 0; l < ROW; l++) {
            int bit = strcmp(key, "row_mask") == 0 ? l >> 4 : l >> 2 & 3;
            if (!(amount >> bit & 1)) dpp_of(in)->lanes &= ~(UINT64_C(1) << l);
        }
        return true;
    }
    if (strcmp(key, "bound_ctrl") == 0) {
        dpp_of(in)->bound_zero = 1; /* printed only when the bit is set, as :0 or :1 */
        return true;
    }
    if (strcmp(key, "fi") == 0) {
        dpp_of(in)->fetch_inactive = amount != 0;
        return true;
    }
    if (dpp_source(key, amount, list, 0, 64) == -2) return false;
    for (int l = 0; l < ROW; l++) dpp_of(in)->from[l] = dpp_source(key, amount, list, l, 64);
    return true;
}

static bool parse_flag(struct inst *in, const char *key)
{
    struct {
        const char *name;
        uint8_t *flag;
    } flags[] = {
        {"clamp", &in->clamp}, {"glc", &in->glc},    {"sc0", &in->glc}, {"offen", &in->offen},
        {"idxen", &in->idxen}, {"lds", &in->lds},    {"gds", &in->gds}, {"tfe", &in->tfe},
        {"off", NULL},         {"row_mirror", NULL}, {"slc", NULL},     {"dlc", NULL},
        {"scc", NULL},         {"sc1", NULL},        {"nt", NULL},      {"nv", NULL}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcmp(key, flags[i].name) == 0 && strcmp(key, "row_mirror") != 0) {
            if (flags[i].flag) *flags[i].flag = 1;
            return true;
        }
    return parse_dpp(in, key, "");
}

static bool parse_keyed(struct inst *in, const char *key, const char *value)
{
    struct {
        const char *name;
        uint8_t *bits;
    } lists[] = {{"op_sel", &in->opsel},
                 {"op_sel_hi", &in->opsel_hi},
                 {"neg_lo", &in->neg_lo},
                 {"neg_hi", &in->neg_hi},
                 {"neg", &in->neg_lo}};
    struct {
        const char *name;
        uint8_t *number;
    } numbers[] = {{"cbsz", &in->cbsz},
                   {"abid", &in->abid},
                   {"blgp", &in->blgp},
                   {"byte_sel", &in->byte_sel},
                   {"bitop3", &in->bitop3}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (strcmp(key, lists[i].name) == 0) {
            *lists[i].bits = parse_bits(value);
            if (lists[i].bits == &in->opsel_hi) in->has_opsel_hi = 1;
            return true;
        }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].name) == 0) {
            *numbers[i].number = (uint8_t)strtoul(value, NULL, 0);
            return true;
        }
    if (strcmp(key, "offset") == 0) {
        in->offset = (int32_t)strtol(value, NULL, 0); /* swizzle(...) is read from the encoding */
        return true;
    }
    if (strcmp(key, "offset0") == 0) return in->offset0 = (int32_t)strtol(value, NULL, 0), true;
    if (strcmp(key, "offset1") == 0) return in->offset1 = (int32_t)strtol(value, NULL, 0), true;
    if (strcmp(key, "mul") == 0) return in->omod = *value == '2' ? 1 : 2, true;
    if (strcmp(key, "div") == 0) return in->omod = 3, true;
    if (strcmp(key, "dst_sel") == 0) return in->sdwa = 1, in->sdwa_dst = sdwa_select(value), true;
    if (strcmp(key, "src0_sel") == 0)
        return in->sdwa = 1, in->sdwa_src[0] = sdwa_select(value), true;
    if (strcmp(key, "src1_sel") == 0)
        return in->sdwa = 1, in->sdwa_src[1] = sdwa_select(value), true;
    if (strcmp(key, "dst_unused") == 0) {
        in->sdwa_unused = strcmp(value, "UNUSED_PAD") == 0    ? 0
                          : strcmp(value, "UNUSED_SEXT") == 0 ? 1
                                                              : 2;
        return true;
    }
    if (strcmp(key, "th") == 0) {
        if (strstr(value, "ATOMIC_RETURN")) in->glc = 1;
        return true;
    }
    if (strcmp(key, "scope") == 0) return true;
    return parse_dpp(in, key, value);
}

static bool parse_modifier(struct inst *in, char *token)
{
    char *colon = strchr(token, ':');
    if (!colon) return parse_flag(in, token);
    *colon = 0;
    return parse_keyed(in, token, colon + 1);
}

/* Instructions whose operands are words of their own; their handlers read the text. */
static bool has_free_text(const char *mnemonic)
{
    static const char *const names[] = {"s_waitcnt",    "s_delay_alu",      "s_sendmsg",
                                        "s_setreg",     "s_getreg",         "s_wait_alu",
                                        "s_wait_event", "s_set_gpr_idx_on", "s_barrier_wait"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(mnemonic, names[i], strlen(names[i])) == 0) return true;
    return false;
}

static char *next_token(char **at, char separator)
{
    while (**at == ' ' || **at == '\t') (*at)++;
    if (!**at) return NULL;
    char *start = *at;
    int depth = 0;
    for (; **at; (*at)++) {
        char c = **at;
        if (c == '[' || c == '(') depth++;
        if (c == ']' || c == ')') depth--;
        if (depth == 0 && (c == separator || (c == ' ' && separator == ','))) break;
    }
    return start;
}

static void close_dpp(struct dpp *dpp)
{
    dpp->closed = 64;
    for (int l = 63; l >= 0; l--) {
        if (dpp->from[l] < 0 || (l < 32 && dpp->from[l] >= 32)) dpp->closed = l < 32 ? 0 : 32;
        if (dpp->closed == 0) break;
    }
}

bool parse_instruction(struct inst *in, const char *text, char *mnemonic, size_t size)
{
    char copy[512];
    while (*text == ' ' || *text == '\t') text++;
    if (strlen(text) >= sizeof copy) return false;
    strcpy(copy, text);
    char *at = copy;
    while (*at && *at != ' ' && *at != '\t') at++;
    if (*at) *at++ = 0;
    if (strlen(copy) >= size) return false;
    strcpy(mnemonic, copy);
    in->sdwa_dst = 6;
    in->sdwa_src[0] = in->sdwa_src[1] = 6;
    if (has_free_text(mnemonic)) return true;
    bool more = true;
    while (more) {
        char *token = next_token(&at, ',');
        if (!token) break;
        char *end = at;
        while (*at == ' ') at++;
        more = *at == ',';
        if (more) at++;
        *end = 0;
        if (in->nops == MAX_OPERANDS) return false;
        if (!parse_operand(token, &in->op[in->nops])) {
            if (in->nops != 0 || more) return false;
            return parse_modifier(in, token); /* no operand at all, only modifiers */
        }
        in->nops++;
        if (end == at && !*at) break;
    }
    for (char *token; (token = next_token(&at, ' ')) != NULL;) {
        if (*at) *at++ = 0;
        if (!parse_modifier(in, token)) return false;
    }
    if (in->dpp) close_dpp(in->dpp);
    return true;
}
