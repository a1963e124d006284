/* sm90_keys_i8.h: brings K and V of i8; a part of sm90_load.h.
 *
 * As for pages (sm90_pages.h) the producer says which block of keys comes next. Three warps beside
 * it take its halves in turn, the units: two of K, then two of V. A warp copies a unit's integers to
 * one of two places of its own while it works on the unit before: it waits for the stage, and lays
 * the integers down there as numbers of q's type, swizzled as a tensor copy would. The scales of the
 * keys and of the values come with K: those of the keys times what brings scores to units of log2,
 * and NaN where they are infinite, as products of an infinity with numbers of both signs are. Keys
 * past the sequence's end are not read: their numbers and scales are 0. */
#include "i8.h"

constexpr int HALF_KEYS = KEYS / 2, CONVERTERS = 3, SHARES_OF_BLOCK = 4;
/* Pieces of 16 channels of a row; keys that a warp reads at once, and how often: four lanes have a
 * key's 64 channels, so that eight lanes store to all banks. */
constexpr int PIECES = D / 16, KEYS_AT_ONCE = 32 / PIECES, READS = HALF_KEYS / KEYS_AT_ONCE;
/* Keys that lie side by side, since pages are multiples of them; and copies of a lane for these. */
constexpr int RUN = 16, RUNS = HALF_KEYS / RUN, RUN_READS = RUN / KEYS_AT_ONCE;
/* Reads that are converted together: registers are few. */
constexpr int TOGETHER = 4;
static_assert(READS * 512 + 8 * HALF_KEYS == COPY_BYTES, "a warp's own place");
static_assert(RUNS == 4 && READS % TOGETHER == 0 && TOGETHER % 2 == 0, "");

/* Where a tensor of elements of `size` bytes begins in a block of keys; to `at`. Of few registers: one
 * after the other. */
DEVICE void write_row(uint32_t at, const struct view &v, int batch, int head, int row, int size)
{
    asm volatile("" : "+r"(batch), "+r"(head), "+r"(row));
    int64_t offset = batch * v.stride[0] + head * v.stride[1] + row * v.stride[2];
    shared_store8(at, (uint64_t)v.data + offset * size);
}

/* A block of keys for copy_unit(), to `at`: its page_job, but the head is of K and V, and where K, V and
 * their scales begin if they are not in pages. */
DEVICE void write_job(const struct attention_args &a, const struct key_source &from,
                      const struct tile &t, int block, uint32_t at)
{
    int row = from.token + block * KEYS;
    shared_store4(at, block * KEYS, from.head, t.batch, t.kv_tokens);
    write_row(at + 16, a.k, from.batch, from.head, row, 1);
    write_row(at + 24, a.v, from.batch, from.head, row, 1);
    write_row(at + 32, a.k_scale, from.batch, from.head, row, 4);
    write_row(at + 40, a.v_scale, from.batch, from.head, row, 4);
}

/* In the ring of jobs; slot JOBS: that of a repair. */
DEVICE uint32_t job_at(uint32_t base, uint32_t slot)
{
    return base + AT_JOB + slot * JOB_BYTES;
}

DEVICE uint32_t job_full(uint32_t base, uint32_t slot)
{
    return base + AT_JOB + (JOBS + 1) * JOB_BYTES + 8 * slot;
}

DEVICE uint32_t job_empty(uint32_t base, uint32_t slot)
{
    return job_full(base, slot) + 8 * JOBS;
}

/* The producer's side: slot and parity of the next job are a ring's stage and phase. */
DEVICE void post_keys(const struct attention_args &a, uint32_t base, const struct key_source &from,
                      const struct tile &t, int block, struct ring &r)
{
    mbarrier_wait(job_empty(base, r.stage), r.phase);
    write_job(a, from, t, block, job_at(base, r.stage));
    mbarrier_arrive(job_full(base, r.stage));
    if (++r.stage == JOBS) r.stage = 0, r.phase ^= 1;
}

/* There are no more. */
DEVICE void post_end(uint32_t base, const struct ring &r)
{
    mbarrier_wait(job_empty(base, r.stage), r.phase);
    shared_store4(job_at(base, r.stage), -1, 0, 0, 0);
    mbarrier_arrive(job_full(base, r.stage));
}

/* Key and piece of a lane in its first read; and in its first copy, where lanes have rows side by side,
 * so that a row is one write. */
DEVICE int lane_key(int lane)
{
    return D > 64 ? lane >> 2 & 3 : lane >> 2;
}

DEVICE int lane_piece(int lane)
{
    return (lane & 3) + (D > 64 ? lane >> 4 << 2 : 0);
}

DEVICE int copy_key(int lane)
{
    return lane / PIECES;
}

DEVICE int copy_piece(int lane)
{
    return lane % PIECES;
}

/* Where a piece lies among those that are copied at once: every second row of 128 bytes has its halves
 * the other way round, so that eight lanes read from all banks. */
DEVICE int piece_place(int key, int piece)
{
    return key * D + (D > 64 ? piece ^ (key & 1) << 2 : piece) * 16;
}

/* A run of a lane's keys, from the lane's first on; left: keys of the unit that exist. */
DEVICE void copy_run(uint32_t to, const char *from, int64_t stride, int run, int left, int lane)
{
#pragma unroll
    for (int j = 0; j < RUN_READS; j++) {
        bool exists = RUN * run + KEYS_AT_ONCE * j + copy_key(lane) < left;
        uint32_t place = piece_place(copy_key(lane), copy_piece(lane));
        async_copy16(to + place + (run * RUN_READS + j) * 512, from, exists);
        from += stride;
    }
}

DEVICE void copy_scales(uint32_t to, const void *k, const void *v, bool exists)
{
    async_copy4(to, k, exists);
    async_copy4(to + 4 * HALF_KEYS, v, exists);
}

/* Row of a key's page, and the page, as offset into a view. */
DEVICE int64_t page_offset(const struct view &v, const struct page_job &job, int page, int row)
{
    return page * v.stride[0] + job.head * v.stride[1] + row * v.stride[2];
}

/* copy_unit() where keys lie in pages: lane i looks up the page of run i % 4. */
DEVICE void copy_pages(const struct attention_args &a, const struct page_job &job, uint32_t own,
                       const struct view &v, int half, bool scales, int lane)
{
    const int left = job.keys - job.first - half;
    int at = half + RUN * (lane & 3), key = job.first + at, page = max_int(page_of(a, job, at), 0),
        row = key - page_index(a, key) * a.page_tokens;
    int64_t offset = page_offset(v, job, page, row), stride = v.stride[2];
    const char *from = (const char *)v.data + copy_key(lane) * stride + 16 * copy_piece(lane);
#pragma unroll 1
    for (int i = 0; i < RUNS; i++)
        copy_run(own, from + __shfl_sync(~0u, offset, i), stride * KEYS_AT_ONCE, i, left, lane);
#pragma unroll 1
    for (int i = 0; scales && i < HALF_KEYS / 32; i++) {
        int run = 32 / RUN * i + lane / RUN, own_page = __shfl_sync(~0u, page, run),
            own_row = __shfl_sync(~0u, row, run) + lane % RUN;
        copy_scales(own + READS * 512 + 128 * i + 4 * lane,
                    (const float *)a.k_scale.data + page_offset(a.k_scale, job, own_page, own_row),
                    (const float *)a.v_scale.data + page_offset(a.v_scale, job, own_page, own_row),
                    32 * i + lane < left);
    }
}

/* A unit's integers, and of K's the scales of both, on their way to `own`, the warp's place, as the job
 * at `at` says. */
DEVICE void copy_unit(const struct attention_args &a, uint32_t at, uint32_t own, int unit, int lane)
{
    asm volatile("" : "+r"(lane)); /* nothing of it in registers meanwhile */
    const bool value = unit >= 2;
    const struct view &v = value ? a.v : a.k;
    const int half = (unit & 1) * HALF_KEYS;
    struct page_job job;
    shared_load4(at, job.first, job.head, job.batch, job.keys);
    if (paged(a)) {
        copy_pages(a, job, own, v, half, !value, lane);
        return;
    }
    const int left = job.keys - job.first - half;
    const int64_t stride = v.stride[2];
    const char *from = (const char *)shared_load8(at + 16 + 8 * value) +
                       (half + copy_key(lane)) * stride + 16 * copy_piece(lane);
#pragma unroll
    for (int i = 0; i < RUNS; i++) {
        copy_run(own, from, stride * KEYS_AT_ONCE, i, left, lane);
        from += stride * RUN;
    }
    if (value) return;
#pragma unroll
    for (int i = 0; i < HALF_KEYS / 32; i++) {
        int key = half + 32 * i + lane;
        copy_scales(own + READS * 512 + 128 * i + 4 * lane,
                    (const char *)shared_load8(at + 32) + key * a.k_scale.stride[2] * 4,
                    (const char *)shared_load8(at + 40) + key * a.v_scale.stride[2] * 4,
                    32 * i + lane < left);
    }
}

/* What copy_unit() brought, when it is there, to its stage; scales: the slot of the block's. */
DEVICE void lay_unit(const struct attention_args &a, uint32_t base, uint32_t own, int unit,
                     uint32_t stage, uint32_t scales, int lane)
{
    asm volatile("" : "+r"(lane)); /* as there */
    __syncwarp();                  /* other lanes have copied what this one reads */
    const bool value = unit >= 2;
    const int half = (unit & 1) * HALF_KEYS;
    uint32_t to = base + (value ? AT_V + stage * V_BYTES : AT_K + stage * K_BYTES) +
                  (half + lane_key(lane)) * 128 + (lane_piece(lane) >> 2) * KEYS * 128;
    uint32_t column = (2 * (lane & 3) ^ (lane_key(lane) & 7))
                      << 4; /* swizzled, of the first read */
    if (!value) {
        int exponent = 0;
#pragma unroll
        for (int i = 0; i < HALF_KEYS / 32; i++) {
            uint32_t from = own + READS * 512 + 128 * i + 4 * lane,
                     at = scales + place_of_scale(half + 32 * i + lane) * 4,
                     of_value = shared_load(from + 4 * HALF_KEYS);
            float x = scale_of_key(__uint_as_float(shared_load(from)), a.scale_log2);
            shared_store(at, __float_as_uint(x));
            shared_store(at + SCALE_BYTES, of_value);
            exponent = max_int(exponent, scale_exponent(of_value));
        }
        if (UNITS) {
            exponent = __reduce_max_sync(~0u, exponent);
            if (lane == 0) shared_store(scales + 2 * SCALE_BYTES + 4 * (unit & 1), exponent);
        }
    }
    own += piece_place(lane_key(lane), lane_piece(lane));
    /* in a register, for the permutations have their order as a constant: the compiler cannot know */
    const uint32_t exponent = __shfl_sync(~0u, I8_EXPONENT, 0);
#pragma unroll 1
    for (int i = 0; i < READS; i += TOGETHER) {
        int4 x[TOGETHER];
#pragma unroll
        for (int j = 0; j < TOGETHER; j++)
            shared_load4(own + j * 512, x[j].x, x[j].y, x[j].z, x[j].w);
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) {
            const int word[4] = {x[j].x, x[j].y, x[j].z, x[j].w};
            uint32_t row = to + j * KEYS_AT_ONCE * 128;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t low = word[2 * h], high = word[2 * h + 1];
                shared_store4(
                    row + (column ^ (KEYS_AT_ONCE * j & 7) << 4 ^ h << 4),
                    two_numbers<0x4140>(low, exponent), two_numbers<0x4342>(low, exponent),
                    two_numbers<0x4140>(high, exponent), two_numbers<0x4342>(high, exponent));
            }
        }
        own += TOGETHER * 512;
        to += TOGETHER * KEYS_AT_ONCE * 128;
    }
}

DEVICE uint32_t own_place(uint32_t base, int number)
{
    return base + AT_COPIES + number * COPY_BYTES;
}

/* Where a unit goes: parity as for a wait for an empty stage, 1 at first. */
struct unit {
    int number;
    uint32_t stage, phase;
};

/* The next unit of the warp; true: it is of the next block. */
DEVICE bool advance(struct unit &u)
{
    u.number += CONVERTERS;
    if (u.number < SHARES_OF_BLOCK) return false;
    u.number -= SHARES_OF_BLOCK;
    if (++u.stage == STAGES) u.stage = 0, u.phase ^= 1;
    return true;
}

/* All blocks, by one of the warps. A unit is copied as soon as the producer says where it lies, but
 * does not wait for that while there is one to lay down. */
DEVICE void convert_blocks(const struct attention_args &a, uint32_t base, int warp)
{
    const bool elected = elect_lane();
    const int lane = threadIdx.x & 31;
    struct unit next = {warp, 0, 1}, now = next;
    uint32_t slot = 0, parity = 0;     /* of the next unit's block */
    bool known = false, ended = false; /* that block is */
    int copied = 0, place = 0;         /* units on their way or there; the next one's place */
#pragma unroll 1
    for (;;) {
        if (!ended && copied < 2) {
            if (!known && copied == 0) mbarrier_wait(job_full(base, slot), parity);
            known = known || copied == 0 ||
                    __any_sync(~0u, mbarrier_done(job_full(base, slot), parity));
            if (known) {
                ended = (int)shared_load(job_at(base, slot)) < 0;
                if (ended) continue;
                copy_unit(a, job_at(base, slot), own_place(base, 2 * warp + place), next.number,
                          lane);
                async_copy_commit();
                copied++;
                place ^= 1;
                if (advance(next)) {
                    __syncwarp();
                    if (elected) mbarrier_arrive(job_empty(base, slot));
                    if (++slot == JOBS) slot = 0, parity ^= 1;
                    known = false;
                }
                continue;
            }
        }
        if (copied == 0) return;
        const bool value = now.number >= 2;
        mbarrier_wait(base + (value ? AT_V_EMPTY : AT_K_EMPTY) + 8 * now.stage, now.phase);
        if (copied == 2) async_copy_wait<1>();
        else async_copy_wait<0>();
        lay_unit(a, base, own_place(base, 2 * warp + (copied == 2 ? place : place ^ 1)), now.number,
                 now.stage, base + AT_SCALES + ((now.phase ^ 1) * STAGES + now.stage) * SLOT_BYTES,
                 lane);
        async_proxy_fence();
        __syncwarp();
        if (elected) mbarrier_arrive(base + (value ? AT_V_FULL : AT_K_FULL) + 8 * now.stage);
        copied--;
        advance(now);
    }
}

/* A unit of its job into stage 0 by a warp of a repair; the scales' slot is the first. */
DEVICE void fetch_unit(const struct attention_args &a, uint32_t base, int unit, int lane)
{
    copy_unit(a, job_at(base, JOBS), own_place(base, unit), unit, lane);
    async_copy_commit();
    async_copy_wait<0>();
    lay_unit(a, base, own_place(base, unit), unit, 0, base + AT_SCALES, lane);
}
