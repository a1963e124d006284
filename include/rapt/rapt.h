/* rapt.h: the whole public API of rapt, transformer attention on CPUs, NVIDIA GPUs and AMD GPUs.
 * SPDX-License-Identifier: MIT
 *
 * For batch b, query head h, query i, key j and KV head g = h / (query heads / KV heads):
 *
 *     s   = scale * dot(q[b,h,i,:], k[b,g,j,:])
 *     s   = softcap * tanh(s / softcap)                       if softcap > 0
 *     s   = s + bias[b,h,i,j] - alibi_slope[h] * |i + offset - j|
 *     s   = -inf             where mask, causal, window or length hide key j
 *     p   = exp(s - m) / (exp(sink[h] - m) + sum_j exp(s - m))      m: maximum over s and sink
 *     out[b,h,i,:] = sum_j p v[b,g,j,:]
 *     lse[b,h,i]   = log(exp(sink[h]) + sum_j exp(s))
 *
 * docs/SEMANTICS.md defines every corner (empty rows, NaN, alignment, rounding); docs/ENGINES.md is
 * for authors of inference engines. Typical use:
 *
 *     rapt_config config = {.struct_size = sizeof config, .backends = "cpu"}; host pointers
 *     rapt_context *context; rapt_open(&context, &config);
 *     rapt_attention a = {.struct_size = sizeof a, .causal = 1};
 *     a.q = rapt_tensor_bthd(q, RAPT_F32, 1, 32, 512, 128);     ... k, v, out alike
 *     if (rapt_forward(rapt_device_at(context, 0), &a, NULL)) puts(rapt_last_error());
 *     rapt_close(&context);
 *
 * In C++: rapt_attention a = {}; a.struct_size = sizeof a; ...
 *
 * Threads: every function may be called from any thread at once, except that an object must not be
 * closed or destroyed while another thread uses it. Calls on the CPU device at the same time share
 * its threads. A call leaves the thread's current CUDA or HIP device as it was. A child of fork opens
 * contexts of its own, and neither uses nor closes those of its parent. Nothing here prints or aborts.
 */
#ifndef RAPT_H
#define RAPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RAPT_VERSION_MAJOR 0
#define RAPT_VERSION_MINOR 1
#define RAPT_VERSION_PATCH 0

#if defined(__GNUC__)
#define RAPT_API __attribute__((visibility("default")))
#else
#define RAPT_API
#endif

/* ---- Status ---- */

#define RAPT_STATUS_LIST(X)                                                                        \
    X(OK, 0, "success")                                                                            \
    X(INVALID, 1, "invalid argument")                                                              \
    X(UNSUPPORTED, 2, "not supported by this device or kernel")                                    \
    X(NO_MEMORY, 3, "out of memory")                                                               \
    X(NO_DEVICE, 4, "no such device")                                                              \
    X(DRIVER, 5, "a GPU driver call failed")                                                       \
    X(SYSTEM, 6, "an operating system call failed")

typedef enum rapt_status {
#define RAPT_STATUS_ENUM(name, value, text) RAPT_##name = value,
    RAPT_STATUS_LIST(RAPT_STATUS_ENUM)
#undef RAPT_STATUS_ENUM
} rapt_status;

/* The status in a few words; a constant string. */
RAPT_API const char *rapt_status_text(rapt_status status);
/* The sentence of this thread's last failed call, "function: fact (rule)"; "" before the first.
 * Owned by the library, valid until this thread's next failing call. */
RAPT_API const char *rapt_last_error(void);
/* MAJOR * 10000 + MINOR * 100 + PATCH of the library that is linked. */
RAPT_API int rapt_version(void);

/* ---- Tensors ---- */

#define RAPT_DTYPE_LIST(X) /* name, value, bytes, text */                                          \
    X(F32, 1, 4, "f32")                                                                            \
    X(F16, 2, 2, "f16")                                                                            \
    X(BF16, 3, 2, "bf16")                                                                          \
    X(I8, 4, 1, "i8")                                                                              \
    X(U8, 5, 1, "u8")                                                                              \
    X(I32, 6, 4, "i32")                                                                            \
    X(I64, 7, 8, "i64")

typedef enum rapt_dtype {
#define RAPT_DTYPE_ENUM(name, value, bytes, text) RAPT_##name = value,
    RAPT_DTYPE_LIST(RAPT_DTYPE_ENUM)
#undef RAPT_DTYPE_ENUM
} rapt_dtype;

/* A view; the caller owns the memory. data is element [0, 0, 0, 0]; axes are [batch, head, token,
 * channel]; strides are in elements, may be negative, and 0 repeats. A tensor whose dtype is 0, as in
 * a zeroed struct, is absent. Element alignment suffices. */
typedef struct rapt_tensor {
    void *data;
    int64_t dtype; /* rapt_dtype */
    int64_t size[4], stride[4];
} rapt_tensor;

#ifdef __cplusplus /* casts that -Wold-style-cast and -Wcast-qual let pass */
#define RAPT_DATA_(data)  const_cast<void *>(data)
#define RAPT_I64_(number) static_cast<int64_t>(number)
#else
#define RAPT_DATA_(data)  ((void *)(uintptr_t)(data))
#define RAPT_I64_(number) ((int64_t)(number))
#endif

/* Dense tensors in the two common memory orders, [batch][head][token][channel] and
 * [batch][token][head][channel]. */
static inline rapt_tensor rapt_tensor_bhtd(const void *data, rapt_dtype dtype, int64_t batch,
                                           int64_t heads, int64_t tokens, int64_t channels)
{
    rapt_tensor t = {RAPT_DATA_(data),
                     dtype,
                     {batch, heads, tokens, channels},
                     {heads * tokens * channels, tokens * channels, channels, 1}};
    return t;
}

static inline rapt_tensor rapt_tensor_bthd(const void *data, rapt_dtype dtype, int64_t batch,
                                           int64_t heads, int64_t tokens, int64_t channels)
{
    rapt_tensor t = {RAPT_DATA_(data),
                     dtype,
                     {batch, heads, tokens, channels},
                     {tokens * heads * channels, channels, heads * channels, 1}};
    return t;
}

/* How k and v of a cache lie in memory.
 *
 * STRIDED: as their strides say.
 *
 * BLOCKED: in blocks of RAPT_KV_BLOCK tokens, each block in the order in which the kernels of CPUs
 * read it. Sizes and strides are those of the strided cache in the order [batch][head][token]
 * [channel], or [page][head][token][channel], with tokens and channels multiples of RAPT_KV_BLOCK
 * (rapt_tensor_blocked fills them in); so the bytes are the same, and the blocks lie where they
 * would lie, but the elements within each are
 *
 *   k of F32, F16   [channel][32 tokens]
 *   k of BF16       [channel / 2][32 tokens][2 channels]
 *   v of F32, F16   [channel / 32][32 tokens][32 channels]
 *   v of BF16       [channel / 32][16 pairs of tokens][32 channels][2 tokens]
 *
 * rapt_kv_append writes it; rapt_kv_blocked_index says where an element lies. Tokens past kv_length
 * are not read as values: they may hold anything. */
enum { RAPT_KV_STRIDED = 0, RAPT_KV_BLOCKED = 1, RAPT_KV_BLOCK = 32 };

/* A blocked k or v; its memory has room for tokens rounded up to a multiple of RAPT_KV_BLOCK.
 * Paged: batch is the number of pages, tokens those of a page. */
static inline rapt_tensor rapt_tensor_blocked(const void *data, rapt_dtype dtype, int64_t batch,
                                              int64_t heads, int64_t tokens, int64_t channels)
{
    return rapt_tensor_bhtd(data, dtype, batch, heads,
                            (tokens + RAPT_KV_BLOCK - 1) / RAPT_KV_BLOCK * RAPT_KV_BLOCK, channels);
}

/* The element of a token and channel, counted from its head's token 0. value: 0 for k, 1 for v. */
static inline int64_t rapt_kv_blocked_index(int value, int64_t dtype, int64_t channels,
                                            int64_t token, int64_t channel)
{
    int64_t block = token / RAPT_KV_BLOCK * RAPT_KV_BLOCK * channels, t = token % RAPT_KV_BLOCK;
    int64_t pairs = dtype == RAPT_BF16 ? 2 : 1; /* neighbours of the axis that is summed over */
    if (!value) return block + (channel / pairs * RAPT_KV_BLOCK + t) * pairs + channel % pairs;
    return block + channel / RAPT_KV_BLOCK * RAPT_KV_BLOCK * RAPT_KV_BLOCK +
           (t / pairs * RAPT_KV_BLOCK + channel % RAPT_KV_BLOCK) * pairs + t % pairs;
}

/* ---- Context and devices ---- */

typedef struct rapt_context rapt_context;
typedef struct rapt_device rapt_device;
typedef struct rapt_plan rapt_plan;
/* CUstream (cudaStream_t), hipStream_t, or NULL: the legacy default stream; ignored on a CPU. */
typedef void *rapt_stream;

/* Structs whose first field is struct_size grow at the end: set it to sizeof of the struct you
 * compiled with, zero the rest. A library older than your header refuses a tail that is not zero;
 * it never ignores one. */
typedef struct rapt_config {
    uint64_t struct_size;
    int64_t threads;      /* of the CPU device, the caller's included: 1 ... 1024; 0: what the
                             environment's RAPT_THREADS says, else all that the process may use */
    const char *backends; /* NULL: all; else some of cuda, hip and cpu: "cpu", "cuda,cpu" */
} rapt_config;

/* Opens the devices of this machine, GPUs first, the CPU last; a missing driver or GPU is no error,
 * unless no device is left: NO_DEVICE. config NULL: defaults. On success *out is the caller's, to be
 * closed with rapt_close; on failure *out is NULL. */
RAPT_API rapt_status rapt_open(rapt_context **out, const rapt_config *config);
/* Closes the context and its devices and sets *context to NULL. Its plans must be destroyed and its
 * work on GPUs be done before. NULL is fine. */
RAPT_API void rapt_close(rapt_context **context);
/* Devices belong to their context. rapt_device_at returns NULL for an index out of range. */
RAPT_API int rapt_device_count(const rapt_context *context);
RAPT_API rapt_device *rapt_device_at(const rapt_context *context, int index);

typedef struct rapt_device_info {
    uint64_t struct_size;
    char name[96];         /* the hardware's own name */
    char backend[16];      /* "cuda", "hip" or "cpu" */
    char arch[32];         /* "sm_90", "gfx942", "avx512_bf16", ... */
    int64_t index;         /* within its backend: cuda:0, cuda:1, ... */
    int64_t compute_units; /* multiprocessors, compute units, or threads */
    int64_t memory_bytes;
} rapt_device_info;

/* Fills *info, whose struct_size the caller has set; INVALID if that is too small. */
RAPT_API rapt_status rapt_device_describe(const rapt_device *device, rapt_device_info *info);
/* Why backend number index (0, 1, ...) opened no device: a sentence; "" when it did; NULL past
 * the last. *name receives the backend's name; name may be NULL. Strings live as long as the
 * context. */
RAPT_API const char *rapt_backend_note(const rapt_context *context, int index, const char **name);

typedef struct rapt_kernel_info {
    uint64_t struct_size;
    const char *name;     /* as rapt_attention.kernel takes it */
    const char *backend;  /* "cuda", "hip" or "cpu" */
    const char *arch;     /* the instruction set it is built for */
    const char *op;       /* "forward", "rope", ... */
    const char *override; /* the file that replaces it, from the environment; NULL: none */
    int64_t bytes;        /* of embedded code; 0: not built into this library */
    int64_t present;      /* 1: a device of this context can run it */
} rapt_kernel_info;

/* Every kernel row of the library, those of a backend best first; strings live as long as the
 * context. *info as in rapt_device_describe; INVALID past the last. */
RAPT_API int64_t rapt_kernel_count(const rapt_context *context);
RAPT_API rapt_status rapt_kernel_at(const rapt_context *context, int64_t index,
                                    rapt_kernel_info *info);

/* Device memory; on the CPU device plain memory, 64-byte aligned, from 8 MiB on in pages of 2 MiB
 * if there are any. On success *out is the caller's, to be freed with rapt_free before the context
 * closes and when no work uses it; on failure *out is NULL. rapt_copy copies bytes between any two
 * of host and this device's memory, in stream order; a copy that touches host memory has finished on
 * return. rapt_synchronize waits for all work of the stream. */
RAPT_API rapt_status rapt_alloc(rapt_device *device, size_t bytes, void **out);
RAPT_API void rapt_free(rapt_device *device, void *memory);
RAPT_API rapt_status rapt_copy(rapt_device *device, void *to, const void *from, size_t bytes,
                               rapt_stream stream);
RAPT_API rapt_status rapt_synchronize(rapt_device *device, rapt_stream stream);

/* ---- Attention ---- */

/* A side of a window: 0 and more: that many neighbours; -1: open. A model's window of W tokens, the
 * query's own among them, is window_left = RAPT_WINDOW(W - 1). */
#define RAPT_WINDOW(neighbours) (RAPT_I64_(neighbours) + 1)
enum { RAPT_BOTTOM_RIGHT = 0, RAPT_TOP_LEFT = 1 };

/* Every zero means plain attention. B batch, Hq/Hkv heads, Sq/Skv tokens, D and Dv channels.
 * "Broadcast" axes may have size 1. All pointers are memory of the device, those of index tensors
 * too, which are I32 or I64. Only 64-bit fields, no padding. */
typedef struct rapt_attention {
    uint64_t struct_size;
    rapt_tensor q; /* [B, Hq, Sq, D] F32, F16, BF16 or I8; Hq a multiple of Hkv; D, Dv from 1 on */
    /* [B, Hkv, Skv, D]; paged: [page, Hkv, tokens of a page, D]. Its dtype is q's; or I8; or F16 or
     * BF16 where q is F32. */
    rapt_tensor k;
    rapt_tensor v;   /* [B, Hkv, Skv, Dv], k's dtype; paged alike */
    rapt_tensor out; /* [B, Hq, Sq, Dv] F32, or q's dtype if not I8; must not overlap an input */
    rapt_tensor lse; /* optional [B, Hq, Sq, 1] F32: natural logarithm */
    /* Optional [B, Hq, Sq, Skv], all axes broadcast: bias, F32 or q's dtype, is added to the
     * scores; mask, U8, hides where it is 0. */
    rapt_tensor bias, mask;
    /* Optional [B, Hq, 1, 1] F32, batch broadcast: sink is a logit without a value. */
    rapt_tensor alibi_slope, sink;
    /* Ragged batch [B + 1, 1, 1, 1]: sequence b has tokens q_start[b] ... q_start[b+1] - 1 of q,
     * out, lse [1, Hq, total, .], and bias, mask, weights are [1, Hq, total, Skv]; kv_start alike,
     * of k and v [1, Hkv, total, .]. The longest kv sequence is read from the data, so bias, mask
     * and weights need at least that many columns. Starts never fall; tokens before the first
     * sequence and behind the last are left alone. */
    rapt_tensor q_start, kv_start;
    rapt_tensor kv_length; /* optional [B, 1, 1, 1]: keys in use, 0 ... capacity */
    /* Paged K/V [B, 1, pages, 1]: token t lies in page page_table[b, t / P], row t % P. Entries
     * behind the last key in use may hold anything; those whose keys a window hides name any page. */
    rapt_tensor page_table;
    /* Of I8 data, and of no other: value = scale * data. F32, with the first three sizes of q, k
     * or v (paged: [page, Hkv, tokens of a page, .]), each broadcast; the last size is the number
     * of blocks into which the channels are cut, 1 for one scale a row. */
    rapt_tensor q_scale, k_scale, v_scale;
    rapt_tensor weights; /* optional [B, Hq, Sq, Skv] F32, F16, BF16: receives p, 0 where hidden */
    double scale;        /* 0: 1 / sqrt(D); else a magnitude from 2^-126 to 2^127, either sign */
    double softcap;      /* 0: none; else from 2^-126 to 2^127, and 2^-60 to 2^60 times the scale */
    int64_t causal;      /* 1: key j visible iff j <= i + offset */
    /* RAPT_BOTTOM_RIGHT: offset = kv_length - q_length, per sequence; RAPT_TOP_LEFT: 0. */
    int64_t align;
    /* 0: open; RAPT_WINDOW(n): keys i+offset-n ... and ... i+offset+n, both ends included. */
    int64_t window_left, window_right;
    /* 1: a sequence's bits do not depend on its neighbours or its place in the batch. */
    int64_t batch_invariant;
    /* NULL: the best. Else the kernel of this name, or the best one of the backend of this name
     * ("cpu"): where it cannot serve, the call is refused. */
    const char *kernel;
    int64_t kv_layout; /* RAPT_KV_...: of k and v */
} rapt_attention;

/* Chooses a kernel for the shapes, strides, dtypes and options of a; data pointers are ignored (an
 * absent tensor has dtype 0). On success *out is the caller's; on failure *out is NULL and
 * rapt_last_error says why every kernel refused. */
RAPT_API rapt_status rapt_plan_create(rapt_plan **out, rapt_device *device,
                                      const rapt_attention *a);
/* Bytes of device memory that one execute needs; 0: none. It may hold anything and keeps nothing, so
 * plans whose executes follow each other in a stream may share one; two executes at the same time
 * need two. */
RAPT_API size_t rapt_plan_workspace_size(const rapt_plan *plan);
/* The chosen kernel's name, as long as the plan lives. */
RAPT_API const char *rapt_plan_kernel(const rapt_plan *plan);
/* a as at creation, with data pointers: any other difference is INVALID. A cache that grows keeps
 * its plan if the sizes of k and v are its capacity and kv_length says what is in use. Allocates
 * nothing; asynchronous on a GPU and capturable in a graph, done on return on a CPU. On return *a
 * and the plan are no longer needed, on a GPU the tensors and the workspace are until the stream has
 * done the work. After a failure out is untouched unless the device itself failed. Starts, lengths and
 * page numbers out of range are refused where the host can see them; on a GPU it cannot, and that they
 * are in range is the caller's promise. workspace: memory of the device, from rapt_alloc or any other,
 * 64-byte aligned, apart from the tensors (which is not checked), not shared with a running execute;
 * NULL if the plan needs none. */
RAPT_API rapt_status rapt_plan_execute(const rapt_plan *plan, const rapt_attention *a,
                                       void *workspace, rapt_stream stream);
RAPT_API void rapt_plan_destroy(rapt_plan **plan); /* sets it to NULL; NULL is fine */
/* Which kernel would run and why each better one is refused, one line each. Writes at most size
 * bytes, 0-terminated; returns the length of the whole text. */
RAPT_API size_t rapt_explain(rapt_device *device, const rapt_attention *a, char *text, size_t size);
/* Plan and execute with a plan and a workspace that the device keeps from earlier calls of the same
 * shape; the first call of a shape on a stream allocates. It keeps 64 shapes, fewer where the device
 * has no more memory, and frees the workspace of the one that was used longest ago: a graph that is
 * to be replayed needs a plan. Fails as the two do. */
RAPT_API rapt_status rapt_forward(rapt_device *device, const rapt_attention *a, rapt_stream stream);

/* ---- The pieces, on every device ---- */

enum {
    RAPT_ROPE_PLAIN = 0,
    RAPT_ROPE_LINEAR = 1,
    RAPT_ROPE_NTK = 2,
    RAPT_ROPE_YARN = 3,
    RAPT_ROPE_LLAMA3 = 4
};

typedef struct rapt_rope_args {
    uint64_t struct_size;
    rapt_tensor x, out;   /* [B, H, S, D] F32, F16, BF16; out may be x */
    rapt_tensor position; /* [B, 1, S, 1] I32 or I64, batch broadcast; absent: 0, 1, 2, ... */
    rapt_tensor cos, sin; /* optional [1, 1, positions, rotary / 2] F32: used in place of theta */
    double theta;         /* over 1; 0: 10000 */
    /* Even, at most D and 2048, on a GPU without cos and sin 576; 0: D. The rest is copied. */
    int64_t rotary_channels;
    int64_t interleaved;     /* 0: pairs (c, c + rotary/2), NeoX; 1: pairs (2c, 2c + 1), GPT-J */
    int64_t scaling;         /* RAPT_ROPE_... */
    double factor;           /* context extension: at least 1; PLAIN: 0 or 1 */
    double original_context; /* YARN, LLAMA3: tokens the model was trained on */
    double low_freq_factor, high_freq_factor; /* LLAMA3; 0: 1 and 4 */
    double beta_fast, beta_slow;              /* YARN; 0: 32 and 1 */
    double attention_factor; /* YARN: multiplies cos and sin; 0: 0.1 ln(factor) + 1 */
    /* YARN: 0: the pairs at which beta_fast and beta_slow turn, between which frequencies blend, are
     * rounded down and up to whole ones; 1: they are not, which is "truncate": false in models for
     * Hugging Face transformers (find_correction_range of modeling_rope_utils.py), as gpt-oss. */
    int64_t untruncated;
} rapt_rope_args;

/* out[..., :] = softmax(x[..., :]); a row of -inf gives zeros; out may be x. */
typedef struct rapt_softmax_args {
    uint64_t struct_size;
    rapt_tensor x, out; /* [B, H, Sq, Skv] F32, F16, BF16 */
} rapt_softmax_args;

/* out = scale * q k^T */
typedef struct rapt_qk_args {
    uint64_t struct_size;
    rapt_tensor q, k, out; /* [B, Hq, Sq, D], [B, Hkv, Skv, D], [B, Hq, Sq, Skv] */
    double scale;          /* 0: 1 / sqrt(D); else as in rapt_attention */
} rapt_qk_args;

/* out = weights v; a weight of 0 does not touch its value. */
typedef struct rapt_pv_args {
    uint64_t struct_size;
    rapt_tensor weights, v, out; /* [B, Hq, Sq, Skv], [B, Hkv, Skv, Dv], [B, Hq, Sq, Dv] */
} rapt_pv_args;

/* x = -inf where key > query + offset, in place. */
typedef struct rapt_causal_mask_args {
    uint64_t struct_size;
    rapt_tensor x; /* [B, H, Sq, Skv] F32, F16, BF16 */
    int64_t align;
} rapt_causal_mask_args;

/* KV head g becomes heads g * group ... g * group + group - 1: [B, Hkv, S, D|Dv] ->
 * [B, Hq, S, D|Dv], K and V in one launch. */
typedef struct rapt_kv_replicate_args {
    uint64_t struct_size;
    rapt_tensor k, v, k_out, v_out;
} rapt_kv_replicate_args;

/* New tokens behind those that a cache holds. Pages may be in several rows of the table, but for
 * those that get tokens. */
typedef struct rapt_kv_append_args {
    uint64_t struct_size;
    rapt_tensor k_new, v_new; /* [B, Hkv, S, D|Dv]; ragged: [1, Hkv, total, .] with q_start */
    rapt_tensor k, v; /* the cache, plain or paged as in rapt_attention; also F32, F16, BF16, I8 */
    rapt_tensor kv_length; /* [B, 1, 1, 1]: tokens held before this call; absent: 0. Not changed */
    rapt_tensor q_start, page_table; /* entries of pages that get tokens are read */
    /* I8 cache: receives the scales; as in rapt_attention, without broadcast. A scale is the
     * largest |x| of its block / 127, at least 2^-126; 0 for zeros, NaN if an x is not finite. */
    rapt_tensor k_scale, v_scale;
    /* NULL: none; else K is rotated on the way; x and out are unused, an absent position counts
     * kv_length + 0, 1, 2, ... */
    const rapt_rope_args *rope;
    int64_t kv_layout; /* RAPT_KV_...: of the cache */
} rapt_kv_append_args;

/* Data are F32, F16 or BF16, inputs and outputs each of their own type if nothing else is said;
 * k of rapt_qk has q's dtype, or q is F32; the four tensors of rapt_kv_replicate share one
 * dtype. Outputs overlap no input but where "out may be x" says so, and then they are the same view.
 * OK, or INVALID or UNSUPPORTED with a sentence and nothing written, on a GPU DRIVER or NO_MEMORY too;
 * what index tensors hold is checked as rapt_plan_execute does. Asynchronous on a GPU, where the first
 * call of each loads its kernel: call it once before a graph captures it. On a CPU rapt_softmax
 * allocates for rows of 4,097 to 131,072 columns, and is slower where there is no memory. */
RAPT_API rapt_status rapt_rope(rapt_device *device, const rapt_rope_args *args, rapt_stream stream);
RAPT_API rapt_status rapt_softmax(rapt_device *device, const rapt_softmax_args *args,
                                  rapt_stream stream);
RAPT_API rapt_status rapt_qk(rapt_device *device, const rapt_qk_args *args, rapt_stream stream);
RAPT_API rapt_status rapt_pv(rapt_device *device, const rapt_pv_args *args, rapt_stream stream);
RAPT_API rapt_status rapt_causal_mask(rapt_device *device, const rapt_causal_mask_args *args,
                                      rapt_stream stream);
RAPT_API rapt_status rapt_kv_replicate(rapt_device *device, const rapt_kv_replicate_args *args,
                                       rapt_stream stream);
RAPT_API rapt_status rapt_kv_append(rapt_device *device, const rapt_kv_append_args *args,
                                    rapt_stream stream);

#ifdef __cplusplus
}
#endif
#endif
