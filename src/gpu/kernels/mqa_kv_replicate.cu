/* mqa_kv_replicate.cu: KV head g becomes heads g * group ... g * group + group - 1, K and V in one
 * launch (blockIdx.z). Portable; copies bits. Rows are numbered as they lie in the output, [batch][kv
 * head][token] or [batch][token][kv head]; each is read once and written `group` times. */
#include "device.h"

/* Elements are copied as integers of their own size; runs as 16 bytes. */
DEVICE void copy_element(char *to, const char *from, int bytes)
{
    if (bytes == 4) STORE(uint32_t, to, LOAD(uint32_t, from));
    else if (bytes == 2) STORE(uint16_t, to, LOAD(uint16_t, from));
    else STORE(uint8_t, to, LOAD(uint8_t, from));
}

struct copy {
    const struct view *from, *to;
    int channels, run; /* elements of 16 bytes, or 1 */
};

DEVICE void copy_piece(const struct kv_replicate_args *a, const struct copy *c, int64_t row,
                       int channel)
{
    int heads_first = c->to->stride[1] > c->to->stride[2],
        inside = heads_first ? a->tokens : a->kv_heads,
        outside = heads_first ? a->kv_heads : a->tokens;
    int64_t pair = quotient(row, inside);
    int low = (int)(row - pair * inside), b = (int)quotient(pair, outside),
        high = (int)(pair - (int64_t)b * outside), token = heads_first ? low : high,
        kv_head = heads_first ? high : low;
    const char *from = element_at(c->from, b, kv_head, token, channel);
    char *to = element_at(c->to, b, kv_head * a->group, token, channel);
    int64_t step = c->to->stride[1] * dtype_bytes(c->to->dtype);
    if (c->run == 1) {
        for (int i = 0; i < a->group; i++)
            copy_element(to + i * step, from, dtype_bytes(c->from->dtype));
        return;
    }
    uint4 x = LOAD(uint4, from);
#pragma unroll 4
    for (int i = 0; i < a->group; i++) STORE(uint4, to + i * step, x);
}

KERNEL_ENTRY void LAUNCH(THREADS, 6) KERNEL_NAME(const BY_VALUE struct kv_replicate_args args)
{
    const struct kv_replicate_args *a = ARGUMENT(kv_replicate_args, args);
    struct copy c = {BLOCK_Z ? &a->v : &a->k, BLOCK_Z ? &a->v_out : &a->k_out,
                     BLOCK_Z ? a->v_channels : a->channels, 1};
    int run = 16 / dtype_bytes(c.from->dtype);
    if (runs_aligned(c.from, run) && runs_aligned(c.to, run) && c.channels % run == 0) c.run = run;
    int64_t rows = (int64_t)a->batch * a->kv_heads * a->tokens, start = (int64_t)BLOCK_X * TILE_Q;
    int count = (int)(rows - start < TILE_Q ? rows - start : TILE_Q), pieces = c.channels / c.run;
    if (!pieces) return;
    int row = THREAD / pieces, piece = THREAD % pieces;
#pragma unroll 4
    while (row < count) {
        copy_piece(a, &c, start + row, piece * c.run);
        row += THREADS / pieces;
        piece += THREADS % pieces;
        if (piece >= pieces) piece -= pieces, row++;
    }
}
