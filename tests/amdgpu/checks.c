/* What hardware hides: outstanding results read too early, values never written, LDS words shared
 * without a barrier. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "emu.h"

_Noreturn void fault(struct wave *w, const char *format, ...)
{
    char what[400];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    const struct launch *launch = w->worker->launch;
    const struct group *g = w->group;
    uint64_t pc = w->at ? w->at->pc : w->pc;
    snprintf(w->worker->error, sizeof w->worker->error,
             "%s: %s (at code+0x%llx \"%s\", workgroup %u,%u,%u, wave %u)", launch->kernel->name,
             what, (unsigned long long)(pc - w->program->base), w->at ? w->at->text : "?", g->id[0],
             g->id[1], g->id[2], w->index);
    longjmp(w->worker->escape, 1);
}

uint32_t issue(struct wave *w, enum counter c)
{
    w->outstanding = true;
    return ++w->issued[c];
}

/* Counters fall in order, except while scalar loads are among the outstanding: then only zero says
 * anything. */
void wait_for(struct wave *w, enum counter c, uint32_t left)
{
    uint32_t reached = w->issued[c] > left ? w->issued[c] - left : 0;
    bool scalar_counter = c == CNT_KM || (c == CNT_DS && w->program->target->gen != GEN_RDNA4);
    if (left && scalar_counter && w->last_smem > w->done[c]) return;
    if (reached > w->done[c]) w->done[c] = reached;
}

static uint32_t make_tag(const struct wave *w, enum counter c)
{
    return (uint32_t)(c + 1) << 28 | (w->issued[c] & 0xfffffff);
}

void tag_vgprs(struct wave *w, int reg, int count, enum counter c)
{
    for (int k = 0; k < count; k++) w->vtag[reg + k] = make_tag(w, c);
}

void tag_sgprs(struct wave *w, int reg, int count, enum counter c)
{
    for (int k = 0; k < count; k++) w->stag[reg + k] = make_tag(w, c);
}

static bool still_out(const struct wave *w, uint32_t tag)
{
    return tag && (tag & 0xfffffff) > (w->done[(tag >> 28) - 1] & 0xfffffff);
}

static _Noreturn void too_early(struct wave *w, char file, int reg, uint32_t tag)
{
    static const char *const old_names[] = {"vmcnt", "vscnt", "lgkmcnt", "lgkmcnt", "expcnt"};
    static const char *const new_names[] = {"s_wait_loadcnt", "s_wait_storecnt", "s_wait_dscnt",
                                            "s_wait_kmcnt", "s_wait_expcnt"};
    bool split = w->program->target->gen == GEN_RDNA4;
    const char *name = (split ? new_names : old_names)[(tag >> 28) - 1];
    if (reg >= 256) {
        file = 'a';
        reg -= 256;
    }
    fault(w, "%c%d is still on its way from memory (%s must be waited for)", file, reg, name);
}

/* Faults when the instruction touches a register whose load has not been waited for. A load of the
   same kind may overwrite: results of one kind return in order. */
void check_pending(struct wave *w, const struct inst *in)
{
    for (int i = 0; i < in->nvread; i++)
        for (int k = 0; k < in->vread[i].count; k++) {
            int reg = in->vread[i].reg + k;
            if (still_out(w, w->vtag[reg])) too_early(w, 'v', reg, w->vtag[reg]);
        }
    int same = in->flags & OPF_VMEM ? CNT_VM + 1 : in->flags & OPF_LDS ? CNT_DS + 1 : -1;
    for (int i = 0; i < in->nvwrite; i++)
        for (int k = 0; k < in->vwrite[i].count; k++) {
            int reg = in->vwrite[i].reg + k;
            if ((int)(w->vtag[reg] >> 28) != same && still_out(w, w->vtag[reg]))
                too_early(w, 'v', reg, w->vtag[reg]);
        }
    for (int i = 0; i < in->nsread; i++)
        for (int k = 0; k < in->sread[i].count; k++) {
            int reg = in->sread[i].reg + k;
            if (still_out(w, w->stag[reg])) too_early(w, 's', reg, w->stag[reg]);
        }
    for (int i = 0; i < in->nswrite; i++)
        for (int k = 0; k < in->swrite[i].count; k++) {
            int reg = in->swrite[i].reg + k;
            if (still_out(w, w->stag[reg])) too_early(w, 's', reg, w->stag[reg]);
        }
}

/* Stores of 8 and 16 bits look at the low half of their register alone. */
static bool is_narrow_store(const struct inst *in)
{
    return in->flags & OPF_STORE && !(in->flags & OPF_ATOMIC) && (in->param & 0x1f) < 4;
}

/* Says also where the value was first used. */
_Noreturn void fault_undefined(struct wave *w, uint32_t root, const char *what)
{
    char error[64];
    uint64_t pc = w->program->base + root - 1;
    const struct inst *first = root ? decode_at(w->program, pc, error, sizeof error) : NULL;
    if (first && first != w->at)
        fault(w, "%s (first used at code+0x%x by \"%s\")", what, root - 1, first->text);
    fault(w, "%s", what);
}

void need_defined(struct wave *w, const struct inst *in, const struct operand *o, uint64_t lanes,
                  const char *use)
{
    char what[160];
    if (!w->worker->launch->options->check_undefined) return;
    for (int k = 0; k < o->dwords; k++) {
        if (o->kind == OPK_VGPR) {
            const uint64_t *u = w->undef[o->reg + k];
            int halves = o->half == 2 || in->flags & OPF_D16_HI ? 2 : is_narrow_store(in) ? 1 : 3;
            uint64_t undef = ((halves & 1 ? u[0] : 0) | (halves & 2 ? u[1] : 0)) & lanes;
            if (!undef) continue;
            snprintf(what, sizeof what,
                     "%s v%d, a value that was never written to a register or to LDS, lane %d", use,
                     o->reg + k, __builtin_ctzll(undef));
            fault_undefined(w, w->v_root[o->reg], what);
        } else if (o->kind == OPK_SGPR && w->s_undef[o->reg + k]) {
            snprintf(what, sizeof what, "%s s%d, a value that was never written", use, o->reg + k);
            fault_undefined(w, w->s_root[o->reg + k], what);
        }
    }
}

/* LDS race shadow: per dword the wave that wrote last and the wave that read last, each with the
   barrier epoch: (epoch << 8 | wave + 1); reader 0xff: several waves. */
void race_read(struct wave *w, uint32_t address, uint32_t bytes, int lane)
{
    uint32_t epoch = w->group->epoch << 8, me = epoch | (w->index + 1);
    for (uint32_t at = address / 4; at <= (address + bytes - 1) / 4; at++) {
        uint32_t writer = w->worker->lds_writer[at];
        if (writer >> 8 == epoch >> 8 && writer && writer != me)
            fault(w,
                  "missing barrier: LDS byte %u was written by wave %u since the last barrier "
                  "(lane %d reads it)",
                  at * 4, (writer & 0xff) - 1, lane);
        uint32_t *reader = &w->worker->lds_reader[at];
        if (*reader >> 8 != epoch >> 8 || !*reader) *reader = me;
        else if (*reader != me) *reader = epoch | 0xff;
    }
}

void race_write(struct wave *w, uint32_t address, uint32_t bytes, int lane)
{
    uint32_t epoch = w->group->epoch << 8, me = epoch | (w->index + 1);
    for (uint32_t at = address / 4; at <= (address + bytes - 1) / 4; at++) {
        uint32_t writer = w->worker->lds_writer[at], reader = w->worker->lds_reader[at];
        bool by_other = writer && writer >> 8 == epoch >> 8 && writer != me && bytes >= 4;
        if (by_other)
            fault(w,
                  "missing barrier: LDS byte %u was written by wave %u since the last barrier "
                  "(lane %d writes it)",
                  at * 4, (writer & 0xff) - 1, lane);
        if (reader && reader >> 8 == epoch >> 8 && reader != me)
            fault(w,
                  "missing barrier: LDS byte %u was read by another wave since the last barrier "
                  "(lane %d writes it)",
                  at * 4, lane);
        w->worker->lds_writer[at] = me;
    }
}
