/* decode_kernels.h: what each instruction set has for the decode slots of struct cpu_kernels (kernels.h), and
 * what the files of these functions share. */
#ifndef RAPT_CPU_DECODE_KERNELS_H
#define RAPT_CPU_DECODE_KERNELS_H

#include "cpu/kernels.h"

enum {
    DECODE_CHANNELS_MAX = 1024, /* of a row; buffers of the kernels are sized by it */
    PV_KEYS = 16,               /* of V: all channels of so many go by before the next keys do */
};

#define DECODE_QK(isa)                                                                             \
    void decode_qk_##isa(float *s, int64_t s_stride, const void *q, int64_t q_stride,              \
                         const struct cpu_rows *k, int64_t rows, int64_t channels, int64_t first,  \
                         int64_t last, const struct cpu_ahead *ahead)
#define DECODE_PV(isa)                                                                             \
    void decode_pv_##isa(float *o, int64_t o_stride, const float *p, int64_t p_stride,             \
                         const struct cpu_rows *v, int64_t rows, int64_t channels, int64_t first,  \
                         int64_t last, const struct cpu_ahead *ahead)

#define DECODE_QK_HEADS(isa)                                                                       \
    void decode_qk_heads_##isa(float *s, int64_t s_stride, const void *q, int64_t q_stride,        \
                               const struct cpu_rows *k, const struct cpu_heads *heads,            \
                               int64_t rows, int64_t channels, int64_t first, int64_t last,        \
                               const struct cpu_ahead *ahead)
#define DECODE_PV_HEADS(isa)                                                                       \
    void decode_pv_heads_##isa(float *o, int64_t o_stride, const float *p, int64_t p_stride,       \
                               const struct cpu_rows *v, const struct cpu_heads *heads,            \
                               int64_t rows, int64_t channels, int64_t first, int64_t last,        \
                               const struct cpu_ahead *ahead)

/* Of each level that has them. */
#define LEVEL(name, ...)                                                                           \
    DECODE_QK(name);                                                                               \
    DECODE_PV(name);                                                                               \
    DECODE_QK_HEADS(name);                                                                         \
    DECODE_PV_HEADS(name);
#include "cpu/levels.def"
/* What two levels have in their tables: i8 as integers (VNNI), and AMX. */
#if defined(__x86_64__)
enum { DECODE_KEYS_VNNI = 64 };
void decode_q_avx512_vnni(void *q, int64_t q_stride, int64_t rows, int64_t channels);
#define DECODE_SLOTS_VNNI                                                                          \
    .decode_q = decode_q_avx512_vnni, .decode_keys = DECODE_KEYS_VNNI,                             \
    .decode_qk = decode_qk_avx512_vnni, .decode_pv = decode_pv_avx512_vnni,                        \
    .decode_qk_heads = decode_qk_heads_avx512_vnni, .decode_pv_heads = decode_pv_heads_avx512_vnni
enum { DECODE_KEYS_AMX = 32 };
void decode_stage_amx(enum decode_stage stage, int64_t rows, int64_t channels);
#endif

/* What a NULL row stands for, in any dtype. */
extern const char decode_zeros[DECODE_CHANNELS_MAX * 4];

/* Of bf16: channels side by side, 0 of a NULL row. */
static inline void gather_bf16_row(uint16_t *x, const struct cpu_rows *rows, int64_t j,
                                   int64_t channels)
{
    const uint16_t *row = rows->row[j];
    for (int64_t c = 0; c < channels; c++) x[c] = row ? row[channel_offset(rows, c)] : 0;
}

/* Walks over what is to be fetched, into the second cache: the first is too small for what two
 * blocks hold. A kernel asks for a line for each that it reads, in constant numbers: a count in a
 * variable takes registers and branches from its inner loop. Each line is asked for twice, by
 * cpu_ahead.again: a processor whose queues are full drops what it is asked for
 * (bench/notes/cpu.md). Near the start of a run the second address may be anything; asking for it
 * cannot fault. */
struct prefetch {
    const char *at, *end; /* of this run */
    const void *const *run;
    int64_t run_step, run_bytes, left; /* left: past this run */
    int64_t again;
};

enum { FETCH_LINE = 64 };

/* lines is a constant. Both requests for a line come before those for the next: sixteen of the first
 * kind fill the queues. */
static inline __attribute__((always_inline)) void fetch_lines(const struct prefetch *p, int lines)
{
    enum { READ = 0, SECOND_CACHE = 2, FIRST_CACHE = 3 };
    if (p->again == CPU_ONCE) {
#pragma GCC unroll 16
        for (int i = 0; i < lines; i++)
            __builtin_prefetch(p->at + i * FETCH_LINE, READ, FIRST_CACHE);
        return;
    }
    if (p->again < 0) {
#pragma GCC unroll 16
        for (int i = 0; i < lines; i++) {
            __builtin_prefetch(p->at + i * FETCH_LINE, READ, SECOND_CACHE);
            __builtin_prefetch(p->at + p->again + i * FETCH_LINE, READ, FIRST_CACHE);
        }
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lines; i++) {
        __builtin_prefetch(p->at + i * FETCH_LINE, READ, SECOND_CACHE);
        __builtin_prefetch(p->at - p->again + i * FETCH_LINE, READ, SECOND_CACHE);
    }
}

static inline __attribute__((always_inline)) struct prefetch
prefetch_of(const struct cpu_ahead *ahead)
{
    struct prefetch p = {0};
    if (!ahead) return p;
    int64_t here = ahead->run_bytes - ahead->skip;
    p.run = ahead->run;
    p.again = ahead->again;
    p.run_step = ahead->run_step;
    p.run_bytes = ahead->run_bytes;
    p.at = (const char *)*p.run + ahead->skip;
    p.end = p.at + (here < ahead->bytes ? here : ahead->bytes);
    p.left = ahead->bytes - (p.end - p.at);
    return p;
}

/* Lines one by one, over the ends of runs. */
static inline __attribute__((always_inline)) void prefetch_over_ends(struct prefetch *p,
                                                                     int64_t lines)
{
    for (; lines > 0; lines--) {
        if (p->at >= p->end) {
            if (p->left <= 0) return;
            p->run += p->run_step;
            p->at = (const char *)*p->run;
            p->end = p->at + (p->run_bytes < p->left ? p->run_bytes : p->left);
            p->left -= p->run_bytes;
        }
        fetch_lines(p, 1);
        p->at += FETCH_LINE;
    }
}

/* lines is a constant. */
static inline __attribute__((always_inline)) void prefetch_lines(struct prefetch *p, int lines)
{
    if (__builtin_expect(p->end - p->at < lines * FETCH_LINE, 0)) {
        if (p->left > 0 || p->at < p->end) prefetch_over_ends(p, lines);
        return;
    }
    fetch_lines(p, lines);
    p->at += lines * FETCH_LINE;
}

/* For steps of less than a line: step number i of steps of so many bytes each. */
static inline __attribute__((always_inline)) void prefetch_step(struct prefetch *p, int64_t i,
                                                                int bytes)
{
    if (bytes >= FETCH_LINE) prefetch_lines(p, bytes / FETCH_LINE);
    else if (i % (FETCH_LINE / bytes) == 0) prefetch_lines(p, 1);
}

/* What is left, where the tensor ahead has longer rows than the one that was read. */
static inline __attribute__((always_inline)) void prefetch_rest(struct prefetch *p)
{
    prefetch_over_ends(p, (p->end - p->at + (p->left > 0 ? p->left : 0)) / FETCH_LINE);
}

#endif
