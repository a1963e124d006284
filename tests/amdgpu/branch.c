/* Control flow, barriers, waits and the instructions that only steer the hardware. */
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

static void need_defined_scalar(struct wave *w, int reg, int count, const char *what)
{
    if (!w->worker->launch->options->check_undefined) return;
    for (int k = 0; k < count; k++)
        if (w->s_undef[reg + k]) fault_undefined(w, w->s_root[reg + k], what);
}

enum { BR_ALWAYS, BR_SCC0, BR_SCC1, BR_VCCZ, BR_VCCNZ, BR_EXECZ, BR_EXECNZ };

static void exec_branch(struct wave *w, const struct inst *in)
{
    bool take = true;
    uint64_t vcc, undef;
    switch (in->param) {
    case BR_SCC0:
    case BR_SCC1:
        need_defined_scalar(w, S_SCC, 1,
                            "branch on scc, which depends on a value that was never written");
        take = w->scc == (in->param == BR_SCC1);
        break;
    case BR_VCCZ:
    case BR_VCCNZ:
        vcc = w->s[S_VCC] | (w->n == 64 ? (uint64_t)w->s[S_VCC + 1] << 32 : 0);
        undef = w->s_undef[S_VCC] | (w->n == 64 ? (uint64_t)w->s_undef[S_VCC + 1] << 32 : 0);
        if (!(vcc & ~undef)) /* one defined bit that is set decides */
            need_defined_scalar(w, S_VCC, w->n / 32,
                                "branch on vcc, which depends on a value that was never written");
        take = (vcc == 0) == (in->param == BR_VCCZ);
        break;
    case BR_EXECZ:
        take = w->exec == 0;
        break;
    case BR_EXECNZ:
        take = w->exec != 0;
        break;
    default:
        break;
    }
    if (take) w->pc = in->target;
}

static void exec_end(struct wave *w, const struct inst *in)
{
    (void)in;
    struct group *g = w->group;
    w->done_flag = w->yield = 1;
    g->live--;
    if (g->live && g->arrived == g->live) {
        g->arrived = 0;
        g->generation++;
        g->epoch++;
    }
}

static void signal_barrier(struct wave *w)
{
    struct group *g = w->group;
    if (w->worker->launch->options->check_waits && w->last_lds_store > w->done[CNT_DS])
        fault(w, "barrier reached while an LDS store is outstanding (wait for %s first)",
              w->program->target->gen == GEN_RDNA4 ? "dscnt 0" : "lgkmcnt(0)");
    w->generation_seen = g->generation;
    w->signalled = 1;
    w->worker->stats.barriers++;
    if (++g->arrived == g->live) {
        g->arrived = 0;
        g->generation++;
        g->epoch++;
    }
}

static void wait_barrier(struct wave *w, const struct inst *in)
{
    if (!w->signalled) fault(w, "s_barrier_wait without s_barrier_signal");
    if (w->group->generation != w->generation_seen) {
        w->signalled = 0;
        return;
    }
    w->pc = in->pc; /* looked at again when the wave runs next */
    w->yield = w->blocked = 1;
}

static void exec_barrier(struct wave *w, const struct inst *in)
{
    if (!w->signalled) signal_barrier(w);
    wait_barrier(w, in);
}

static void exec_barrier_signal(struct wave *w, const struct inst *in)
{
    if (in->op[0].kind == OPK_IMM && (int32_t)in->op[0].imm != -1)
        fault(w, "only barrier -1 (the workgroup's) is known");
    signal_barrier(w);
}

static void exec_barrier_wait(struct wave *w, const struct inst *in)
{
    wait_barrier(w, in);
}

static void exec_wait(struct wave *w, const struct inst *in)
{
    for (int c = 0; c < CNT_KINDS; c++)
        if (in->wait[c] >= 0) wait_for(w, (enum counter)c, (uint32_t)in->wait[c]);
    w->outstanding = false;
    for (int c = 0; c < CNT_KINDS; c++) w->outstanding |= w->issued[c] != w->done[c];
}

static void exec_nothing(struct wave *w, const struct inst *in)
{
    (void)w;
    (void)in;
}

static void exec_sleep(struct wave *w, const struct inst *in)
{
    (void)in;
    w->yield = 1;
}

static void exec_getpc(struct wave *w, const struct inst *in)
{
    write_scalar64(w, &in->op[0], in->next_pc);
}

static void exec_setpc(struct wave *w, const struct inst *in)
{
    uint64_t target = read_scalar64(w, &in->op[in->nops - 1]);
    if (in->nops == 2) write_scalar64(w, &in->op[0], in->next_pc);
    w->pc = target;
}

static void exec_call(struct wave *w, const struct inst *in)
{
    write_scalar64(w, &in->op[0], in->next_pc);
    w->pc = in->next_pc + (uint64_t)((int64_t)(int16_t)in->op[1].imm * 4);
}

/* hwreg(HW_REG_MODE, offset, width): denormal and rounding fields of the mode register. The f32
   denormal field switches the host's flush modes in dispatch.c; other registers are kept as plain
   storage. */
static void mode_field(const struct inst *in, int *offset, int *width, bool *is_mode)
{
    const char *p = strstr(in->text, "hwreg(");
    *offset = 0;
    *width = 32;
    *is_mode = p && strstr(p, "MODE");
    const char *comma = p ? strchr(p, ',') : NULL;
    const char *close = p ? strchr(p, ')') : NULL;
    if (!comma || !close || comma > close) return;
    char *end;
    *offset = (int)strtol(comma + 1, &end, 0);
    if (*end == ',') *width = (int)strtol(end + 1, NULL, 0);
}

static void exec_setreg(struct wave *w, const struct inst *in)
{
    int offset, width;
    bool is_mode;
    uint32_t value;
    mode_field(in, &offset, &width, &is_mode);
    const char *last = strrchr(in->text, ',');
    const char *close = strchr(in->text, ')');
    if (last && close && last < close) last = strchr(close, ',');
    if (in->param) {
        value = last ? (uint32_t)strtoul(last + 1, NULL, 0) : 0;
    } else { /* "s_setreg_b32 hwreg(...), s4" */
        const char *reg = last ? strchr(last, 's') : NULL;
        value = reg ? w->s[strtol(reg + 1, NULL, 10) % 104] : 0;
    }
    uint32_t field = (width >= 32 ? ~0u : (1u << width) - 1) << offset;
    if (is_mode) w->s[S_MODE] = (w->s[S_MODE] & ~field) | (value << offset & field);
    set_float_mode(w);
}

static void exec_denorm_mode(struct wave *w, const struct inst *in)
{
    w->s[S_MODE] = (w->s[S_MODE] & ~0xf0u) | (uint32_t)(in->op[0].imm & 15) << 4;
    set_float_mode(w);
}

static void exec_round_mode(struct wave *w, const struct inst *in)
{
    if (in->op[0].imm & 15) fault(w, "only round-to-nearest-even is emulated");
}

static void exec_getreg(struct wave *w, const struct inst *in)
{
    int offset, width;
    bool is_mode;
    mode_field(in, &offset, &width, &is_mode);
    const char *reg = strchr(in->text, ' ');
    while (reg && *reg == ' ') reg++;
    if (!reg || *reg != 's') fault(w, "s_getreg without a scalar destination");
    uint32_t value = is_mode ? w->s[S_MODE] : 0;
    int to = (int)strtol(reg + 1, NULL, 10);
    w->s[to] = value >> offset & (width >= 32 ? ~0u : (1u << width) - 1);
    w->s_undef[to] = 0;
}

/* Answers of the host to a message (doorbell, time): 0 here. The destination is in the text: s0 or
 * s[0:1]. */
static void exec_message_return(struct wave *w, const struct inst *in)
{
    const char *p = strpbrk(in->text + strlen("s_sendmsg_rtn_bxx"), "0123456789");
    if (!p) fault(w, "message without a destination");
    long to = strtol(p, NULL, 10);
    for (int k = 0; k < (int)in->param; k++) {
        w->s[to + k] = 0;
        w->s_undef[to + k] = 0;
    }
}

static void exec_trap(struct wave *w, const struct inst *in)
{
    fault(w, "trap %d reached (a device-side assertion or unreachable code)", (int)in->op[0].imm);
}

static void exec_code_end(struct wave *w, const struct inst *in)
{
    (void)in;
    fault(w, "ran past the end of the kernel");
}

/* A clock that only moves forward: instructions executed so far. */
static void exec_time(struct wave *w, const struct inst *in)
{
    write_scalar64(w, &in->op[0], w->budget);
}

#define QUIET(name)                                                                                \
    {                                                                                              \
        name, exec_nothing, NULL, ":UUU", 0, 0                                                     \
    }
#define BRANCH(name, kind)                                                                         \
    {                                                                                              \
        name, exec_branch, NULL, ":U", OPF_END_BLOCK, kind                                         \
    }
#define WAIT(name)                                                                                 \
    {                                                                                              \
        name, exec_wait, NULL, ":UU", 0, 0                                                         \
    }

static const struct op_row rows[] = {
    BRANCH("s_branch", BR_ALWAYS),
    BRANCH("s_cbranch_scc0", BR_SCC0),
    BRANCH("s_cbranch_scc1", BR_SCC1),
    BRANCH("s_cbranch_vccz", BR_VCCZ),
    BRANCH("s_cbranch_vccnz", BR_VCCNZ),
    BRANCH("s_cbranch_execz", BR_EXECZ),
    BRANCH("s_cbranch_execnz", BR_EXECNZ),
    {"s_endpgm", exec_end, NULL, "", 0, 0},
    {"s_barrier", exec_barrier, NULL, "", 0, 0},
    {"s_barrier_signal", exec_barrier_signal, NULL, ":U", 0, 0},
    {"s_barrier_wait", exec_barrier_wait, NULL, ":U", 0, 0},
    {"s_getpc_b64", exec_getpc, NULL, "Q:", 0, 0},
    {"s_setpc_b64", exec_setpc, NULL, ":Q", 0, 0},
    {"s_swappc_b64", exec_setpc, NULL, "Q:Q", 0, 0},
    {"s_call_b64", exec_call, NULL, "Q:U", 0, 0},
    {"s_setreg_b32", exec_setreg, NULL, ":U", 0, 0},
    {"s_setreg_imm32_b32", exec_setreg, NULL, ":U", 0, 1},
    {"s_getreg_b32", exec_getreg, NULL, "U:", 0, 0},
    {"s_denorm_mode", exec_denorm_mode, NULL, ":U", 0, 0},
    {"s_round_mode", exec_round_mode, NULL, ":U", 0, 0},
    {"s_sendmsg_rtn_b32", exec_message_return, NULL, "", 0, 1},
    {"s_sendmsg_rtn_b64", exec_message_return, NULL, "", 0, 2},
    {"s_trap", exec_trap, NULL, ":U", 0, 0},
    {"s_sleep", exec_sleep, NULL, ":U", 0, 0},
    {"s_sleep_var", exec_sleep, NULL, ":U", 0, 0},
    {"s_memtime", exec_time, NULL, "Q:", 0, 0},
    {"s_memrealtime", exec_time, NULL, "Q:", 0, 0},
    WAIT("s_waitcnt"),
    WAIT("s_waitcnt_vscnt"),
    WAIT("s_waitcnt_vmcnt"),
    WAIT("s_waitcnt_lgkmcnt"),
    WAIT("s_waitcnt_expcnt"),
    WAIT("s_wait_loadcnt"),
    WAIT("s_wait_storecnt"),
    WAIT("s_wait_dscnt"),
    WAIT("s_wait_kmcnt"),
    WAIT("s_wait_expcnt"),
    WAIT("s_wait_loadcnt_dscnt"),
    WAIT("s_wait_storecnt_dscnt"),
    QUIET("s_wait_samplecnt"),
    QUIET("s_wait_bvhcnt"),
    QUIET("s_wait_alu"),
    QUIET("s_wait_event"),
    QUIET("s_waitcnt_depctr"),
    QUIET("s_nop"),
    QUIET("s_delay_alu"),
    QUIET("s_clause"),
    QUIET("s_sendmsg"),
    QUIET("s_setprio"),
    QUIET("s_sethalt"),
    QUIET("s_wakeup"),
    QUIET("s_icache_inv"),
    QUIET("s_dcache_inv"),
    QUIET("s_dcache_wb"),
    QUIET("s_gl1_inv"),
    QUIET("s_inst_prefetch"),
    QUIET("s_set_inst_prefetch_distance"),
    QUIET("s_prefetch_inst_pc_rel"),
    QUIET("s_prefetch_inst"),
    QUIET("s_prefetch_data"),
    QUIET("s_version"),
    {"s_code_end", exec_code_end, NULL, "", 0, 0},
    QUIET("s_ttracedata"),
    QUIET("s_ttracedata_imm"),
    QUIET("s_incperflevel"),
    QUIET("s_decperflevel"),
    QUIET("s_singleuse_vdst"),
    QUIET("buffer_gl0_inv"),
    QUIET("buffer_gl1_inv"),
    QUIET("buffer_wbl2"),
    QUIET("buffer_invl2"),
    QUIET("buffer_inv"),
    QUIET("buffer_wbinvl1"),
    QUIET("buffer_wbinvl1_vol"),
    QUIET("global_wb"),
    QUIET("global_inv"),
    QUIET("global_wbinv"),
};

const struct op_table ops_branch = {rows, sizeof rows / sizeof *rows};
