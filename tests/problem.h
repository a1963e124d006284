/* problem.h: one line of text describes a problem for tests, benches and bug reports; here it
 * becomes tensors. */
/* clang-format off */
/*   forward bf16 b1 h32/8 q4096 kv4096 d128 causal
 *
 * First word: forward rope softmax qk pv causal_mask kv_replicate kv_append. Then, in any order:
 *
 *   f32 f16 bf16 i8       type of q, and of all that is not named: kv-f32 kv-f16 kv-bf16 kv-i8 out-f32
 *   i64                   index tensors are I64, else I32
 *   bN hN[/N] qN kvN      sequences, query[/KV] heads, queries and keys of a sequence (1, 1, 16, as q)
 *   dN[/N]                channels[/of v] (64)
 *   causal topleft        causal; align is RAPT_TOP_LEFT
 *   windowL,R             neighbours to the left and right; a side may be "inf"
 *   softcapX scaleX alibi lse weights weights-f16 weights-bf16
 *   sink sink-inf sink-nan  sinks; of every second head -inf; of every third NaN and of others infinite
 *   bias bias=AXES        AXES: four of "bhqk", "1" where it is broadcast, e.g. 1h1k; F32
 *   bias-own bias-inf     bias in q's type; some entries and rows of it are -inf
 *   bias-far              some entries and rows of the bias are -1e30, other rows near 1e6
 *   bias-low              some entries, halves and rows of it are -1e30 (of f16 -65504), or rise from -5682 to -5678
 *   mask mask=AXES        hides three keys of ten, and every key of some rows
 *   mask-ends             a mask that hides the keys of one half or of both ends besides, as padding does
 *   ragged ragged-q ragged-kv qlens=3,0,7 kvlens=5,0,9
 *                         packed sequences of seeded lengths 0 ... q, 0 ... kv, or the given ones
 *   spareN                packed queries of no sequence, N before those of the sequences and N behind
 *   kvlen kvlen=5,0,17    keys in use of each sequence, seeded or given
 *   pagedP                pages of P tokens, in scattered order
 *   blockN scales=AXES    channels that share an i8 scale (0: all); axes "bht" of the scales (bht)
 *   kv-blocked            K and V of RAPT_KV_BLOCKED: room for a multiple of 32 keys, in use as kv or kvlen say; bhtd
 *   kv-shared             V is the first channels of K, in its memory
 *   bthd bhtd             memory order (bthd)
 *   neg zero odd pad8 chan2  strides: tokens and channels backwards; KV heads repeat; odd padding behind
 *                         each row; rows padded to 8 elements; every second channel
 *   huge-stride           elements beyond 2^31, on memory that is touched at the data alone
 *   edge                  tensors end at an unmapped page (host), so that a read past the end faults
 *   normal needles growing falling peaked cancelling constant tiny huge vast denormal sincos100
 *   integer minus1e30 large_v nan_q nan_k nan_v nan_v_end inf_q inf_k inf_v minf_k minf_all minf_first
 *   minf_first_nan_v minf_last minf_nan_v leap nan_heads nan_odd_heads vanishing unusual wide_k wide_v steps
 *   mixed_v nan_bias inf_bias faint   data (normal); problem_values.c says what they are for
 *   hidden-nan            keys and values that no query sees are NaN
 *   seedN                 odd: sinks, slopes and positions differ between sequences
 *   batch_invariant kernel=NAME
 *   thetaX rotaryN interleaved positions far farthest inplace table linearX ntkX yarnX llama3=X contextN
 *   untruncated           rope, and rope inside kv_append; far: positions beyond 2^31, farthest: 2^52
 *   rope                  kv_append rotates k
 *
 * All memory that a kernel must not use is NaN (all bits set): guards around each tensor, padding
 * between elements, keys past a length, unused pages; unused page numbers are -1. So are outputs
 * before the run. */
/* clang-format on */
#ifndef RAPT_TESTS_PROBLEM_H
#define RAPT_TESTS_PROBLEM_H

#include "rapt/rapt.h"

#include <stdbool.h>

#define PROBLEM_OP_LIST(X)                                                                         \
    X(forward) X(rope) X(softmax) X(qk) X(pv) X(causal_mask) X(kv_replicate) X(kv_append)

enum problem_op {
#define OP_ENUM(name) OP_##name,
    PROBLEM_OP_LIST(OP_ENUM)
#undef OP_ENUM
};

/* name, 1: every product sum of q and k is exact in f32, in any order of summation; 2: and so are
 * the scores */
/* clang-format off */
#define PROBLEM_DATA_LIST(X) \
    X(normal, 0) X(needles, 0) X(growing, 0) X(falling, 0) X(peaked, 0) X(cancelling, 0) \
    X(constant, 0) X(large_v, 0) X(tiny, 0) X(huge, 1) X(vast, 1) X(denormal, 0) X(sincos100, 0) \
    X(integer, 1) X(minus1e30, 2) X(nan_q, 0) X(nan_k, 0) X(nan_v, 0) X(nan_v_end, 0) X(inf_q, 0) X(inf_k, 0) \
    X(inf_v, 0) X(minf_k, 0) X(minf_all, 0) X(minf_first, 0) X(minf_first_nan_v, 0) X(minf_last, 0) \
    X(minf_nan_v, 0) X(leap, 0) X(nan_heads, 0) X(nan_odd_heads, 0) X(vanishing, 0) X(unusual, 0) X(wide_k, 0) \
    X(wide_v, 0) X(steps, 0) X(mixed_v, 0) X(nan_bias, 0) X(inf_bias, 0) X(faint, 0)
/* clang-format on */

enum problem_data {
#define DATA_ENUM(name, exact) DATA_##name,
    PROBLEM_DATA_LIST(DATA_ENUM)
#undef DATA_ENUM
};

enum problem_stride {
    STRIDE_dense,
    STRIDE_neg,
    STRIDE_zero,
    STRIDE_huge,
    STRIDE_odd,
    STRIDE_pad8,
    STRIDE_chan2
};

/* Lengths may differ in the first PROBLEM_SEQUENCES sequences only; a larger batch must be uniform.
 */
enum { PROBLEM_LINE = 256, PROBLEM_SEQUENCES = 512, PROBLEM_TENSORS = 24 };

/* A parsed line. Axes sets have bit a for axis a (batch, head, query or token, key); broadcast axes
 * are clear. */
struct problem_line {
    char text[PROBLEM_LINE];
    int op, data, stride;
    int64_t dtype, kv_dtype, out_dtype, weights_dtype, index_dtype;
    int64_t batch, q_heads, kv_heads, q_tokens, kv_tokens, qk_channels, v_channels;
    int64_t causal, align, window_left, window_right, batch_invariant; /* as in rapt_attention */
    double scale, softcap;
    bool sink, sink_inf, sink_nan, alibi, lse, weights, bias, bias_own, bias_inf, bias_far,
        bias_low, mask, mask_ends, kv_length, edge, bhtd, hidden_nan, kv_blocked, kv_shared;
    unsigned bias_axes, mask_axes, scale_axes;
    bool ragged_q, ragged_kv;
    int64_t
        q_lengths[PROBLEM_SEQUENCES]; /* queries of each sequence; all arrays are always complete */
    int64_t kv_capacity[PROBLEM_SEQUENCES]; /* keys that there is room for */
    int64_t kv_lengths[PROBLEM_SEQUENCES];  /* keys in use */
    int64_t page_tokens, scale_block;
    int64_t spare; /* packed queries of no sequence on each side */
    uint64_t seed;
    char kernel[48];
    bool rope, interleaved, positions, far, farthest, inplace, table, untruncated;
    int64_t rotary, scaling;
    double theta, factor, original_context;
};

/* false: error holds a sentence that names the word. */
bool problem_parse(const char *line, struct problem_line *out, char *error, size_t size);

/* Lengths of any sequence, also beyond the arrays. */
int64_t problem_q_length(const struct problem_line *line, int64_t sequence);
int64_t problem_kv_length(const struct problem_line *line, int64_t sequence);
int64_t problem_kv_capacity(const struct problem_line *line, int64_t sequence);
/* Keys [*first, *last) that a query sees by causal and window, before masks. */
void problem_visible(const struct problem_line *line, int64_t sequence, int64_t query,
                     int64_t *first, int64_t *last);

/* The arguments of the call, one member in use by op. */
struct problem_args {
    rapt_attention forward;
    rapt_rope_args rope; /* also of kv_append */
    rapt_softmax_args softmax;
    rapt_qk_args qk;
    rapt_pv_args pv;
    rapt_causal_mask_args causal_mask;
    rapt_kv_replicate_args kv_replicate;
    rapt_kv_append_args kv_append;
};

/* The memory behind one tensor of the arguments. */
struct problem_region {
    rapt_tensor *tensor; /* in the instance's args */
    char *base;          /* a mapping of `bytes`, owned; the tensor with its guards */
    size_t bytes;
    char *saved;   /* of an operand in place: the mapping before the call, owned; else NULL */
    uint64_t hash; /* of all bytes that the call must not change */
    bool output;   /* written by the call */
    bool input;    /* holds data before the call */
    bool sparse;   /* mostly untouched: handled row by row */
};

/* What bounds depend on besides the problem: which kind of device computes (bound.c). */
struct engine {
    bool cpu;     /* a CPU, of whose kernels more is known */
    bool flushes; /* matrix units take subnormal numbers of f16 for 0: gfx90a */
    bool halves;  /* f32 may be multiplied as sums of two f16 parts: sm_90a */
};

struct engine engine_of(const rapt_device_info *device);

/* A problem in host memory. Not to be copied or moved: args and regions point into it. */
struct problem_instance {
    struct problem_line line;
    struct problem_args args;
    struct problem_region region[PROBLEM_TENSORS];
    int region_count;
    struct engine engine; /* that computed the outputs; set by problem_download */
};

/* Creates host tensors from the line; equal lines give equal bits everywhere. false: they do not
 * fit into memory, with a sentence; the instance then needs no free. */
bool problem_build(const struct problem_line *line, struct problem_instance *out, char *error,
                   size_t size);
void problem_free(struct problem_instance *instance);
/* Fills outputs with NaN again, to run the same problem twice. In-place operands are restored. */
void problem_reset(struct problem_instance *instance);
/* NULL: the call wrote nothing but elements of its outputs. Else the name of the region that was
 * spoiled. */
const char *problem_spoiled(const struct problem_instance *instance);
/* The tensor's name within its arguments ("q", "page_table", ...). */
const char *problem_tensor_name(const struct problem_instance *instance, const rapt_tensor *tensor);

/* The same problem in device memory. On the CPU device the host memory serves itself. */
struct problem_device {
    rapt_device *device;
    struct problem_args args;
    void *memory[PROBLEM_TENSORS]; /* NULL: the host's */
    struct engine engine;
};

rapt_status problem_upload(const struct problem_instance *instance, rapt_device *device,
                           struct problem_device *out);
/* Copies the output regions into the instance. */
rapt_status problem_download(const struct problem_device *from, struct problem_instance *instance);
void problem_device_free(struct problem_device *problem);
/* Makes the call that op names with args. rapt_forward for forward. */
rapt_status problem_run(const struct problem_device *problem, int op, rapt_stream stream);

/* Counts of the useful work. Visible pairs are counted exactly (causal, window, lengths; masks do
 * not reduce them). flops: 4 * pairs * heads * channels style; bytes: every input element in use
 * and every output element once. */
double problem_flops(const struct problem_line *line);
double problem_bytes(const struct problem_line *line);

/* Counter-based random numbers: the same on every machine. Uniform in [0, 1) and nearly normal
 * (variance 1, at most 3.47). */
uint64_t problem_random(uint64_t seed, uint64_t stream, uint64_t index);
double problem_uniform(uint64_t seed, uint64_t stream, uint64_t index);
double problem_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* The value that a line's data kind gives one element before conversion to its dtype; which: the
 * tensor. */
enum problem_value {
    VALUE_Q,
    VALUE_K,
    VALUE_V,
    VALUE_BIAS,
    VALUE_MASK,
    VALUE_SLOPE,
    VALUE_SINK,
    VALUE_K_SCALE,
    VALUE_V_SCALE,
    VALUE_Q_SCALE,
    VALUE_X,
    VALUE_POSITION,
    VALUE_WEIGHT
};
double problem_value(const struct problem_line *line, int which, int64_t i0, int64_t i1, int64_t i2,
                     int64_t i3);
/* Whether i8 data of K or V is 0 there, whatever its random bits. */
bool problem_blank(const struct problem_line *line, int which, int64_t token, int64_t channel);
/* 1, 2: see PROBLEM_DATA_LIST; 0 otherwise. */
int problem_exact(const struct problem_line *line);

/* The named problems of problems.def. size: 0 fits a slow emulator (some 1e5 multiply-adds), 1
 * usual, 2 large, 3 on request. */
struct named_problem {
    const char *name, *line;
    int size;
};
extern const struct named_problem named_problems[];
extern const int named_problem_count;
/* Shell-style * and ? over a comma list of patterns; "" matches all. A pattern after ! excludes. */
bool problem_selected(const char *name, const char *patterns);

#endif
