/* sm90_pages.h: loads K and V that lie in pages; a part of sm90_load.h.
 *
 * The producer says which block of keys comes next. Two warps beside it, the pagers, one for K and
 * one for V, look its pages up, a lane for each, wait for the stage and load it. So looking up takes
 * time while a stage is still in use, and neither the producer, which has no register left, nor the
 * consumers know of pages.
 *
 * A tensor map has the pages as its last axis. A copy brings a box: box_keys() rows of one panel. */

DEVICE bool paged(const struct attention_args &a)
{
    return a.page_table.data != nullptr;
}

/* The most keys such that neither a page nor a block ends inside a box; 16 or more (gpu/maps.c makes
 * the maps alike, features.def refuses other pages). */
DEVICE int box_keys(const struct attention_args &a)
{
    return min_int(a.page_tokens & -a.page_tokens, KEYS & -KEYS);
}

DEVICE int page_index(const struct attention_args &a, int key)
{
    return a.page_shift >= 0 ? key >> a.page_shift : key / a.page_tokens;
}

/* The most boxes of a block. */
constexpr int BOXES = KEYS / 16;

/* A block of keys: from `first` on, -1: there are no more blocks; of the sequence that has so many
 * keys. head: of the queries, where the producer posts it. */
struct page_job {
    int first, head, batch, keys;
};

/* The page of the block's key number `at`. Past the sequence's end, where the table may hold anything,
 * -1: there a copy finds nothing and leaves zeros. */
DEVICE int page_of(const struct attention_args &a, const struct page_job &job, int at)
{
    const struct view &table = a.page_table;
    int key = job.first + at;
    if (key >= job.keys) return -1;
    int64_t entry = job.batch * table.stride[0] + page_index(a, key) * table.stride[2];
    return table.dtype == DTYPE_i64 ? (int)((const int64_t *)table.data)[entry]
                                    : ((const int32_t *)table.data)[entry];
}

/* All panels of a box, from a row of a page on; to: its place in the first panel of a block. */
template <int PANELS>
DEVICE void load_box(const struct tensor_map *map, uint32_t to, uint32_t full, int row,
                     struct head_place at, int page)
{
#pragma unroll
    for (int p = 0; p < PANELS; p++)
#if PANEL_MAPS
        tma_load_4d(to + p * KEYS * 128, map, full, at.first + 64 * p, row, at.head, page,
                    L2_EVICT_LAST);
#else
        tma_load_5d(to + p * KEYS * 128, map, full, 0, row, p, at.head, page, L2_EVICT_LAST);
#endif
}

/* A block by one thread, which waits for the page table. */
template <int PANELS>
DEVICE void load_pages(const struct attention_args &a, const struct tensor_map *map, uint32_t to,
                       uint32_t full, const struct page_job &job, struct head_place at)
{
#pragma unroll 1
    for (int i = 0; i < KEYS; i += box_keys(a)) {
        int key = job.first + i;
        load_box<PANELS>(map, to + i * 128, full, key - page_index(a, key) * a.page_tokens, at,
                         page_of(a, job, i));
    }
}

/* ---- The producer's side ---- */

/* Waits until both pagers have taken the one before. phase: 1 at first. */
DEVICE void post_job(uint32_t base, const struct page_job &job, uint32_t &phase)
{
    mbarrier_wait(base + AT_JOB_EMPTY, phase);
    shared_store4(base + AT_JOB, job.first, job.head, job.batch, job.keys);
    mbarrier_arrive(base + AT_JOB_FULL);
    phase ^= 1;
}

/* ---- The pagers', all lanes of a warp each ---- */

/* One lane reads, the one that says so; the reductions bring what it has read to the others, before
 * it says so. */
DEVICE struct page_job take_job(const struct attention_args &a, uint32_t base, uint32_t phase,
                                bool elected)
{
    int x[4] = {INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    mbarrier_wait(base + AT_JOB_FULL, phase);
    if (elected) shared_load4(base + AT_JOB, x[0], x[1], x[2], x[3]);
    struct page_job job = {__reduce_max_sync(~0u, x[0]), __reduce_max_sync(~0u, x[1]),
                           __reduce_max_sync(~0u, x[2]), __reduce_max_sync(~0u, x[3])};
    if (elected) mbarrier_arrive(base + AT_JOB_EMPTY);
    job.head /= a.group;
    return job;
}

/* All blocks of K, or, with `values`, of V; to, full, empty: of stage 0. */
template <int PANELS>
DEVICE void load_paged(const struct attention_args &a, const struct tensor_map *map, uint32_t base,
                       uint32_t to, uint32_t full, uint32_t empty, bool values)
{
    const bool elected = elect_lane();
    const int lane = threadIdx.x & 31;
    uint32_t stage = 0, phase = 1;
#pragma unroll 1
    for (uint32_t number = 0;; number++) {
        struct page_job job = take_job(a, base, number & 1, elected);
        if (job.first < 0) return;
        int box = box_keys(a), own = lane * box < KEYS ? page_of(a, job, lane * box) : -1;
        int row = job.first - page_index(a, job.first) * a.page_tokens, page[BOXES];
        const int leads = leads_of(a, job.head);
        const struct head_place at =
            values ? value_place(a, job.head, leads) : key_place(a, job.head, leads);
        mbarrier_wait(empty + 8 * stage, phase);
#pragma unroll
        for (int i = 0; i < BOXES; i++) page[i] = __shfl_sync(~0u, own, i);
        if (elected) {
            mbarrier_expect(full + 8 * stage, PANELS * KEYS * 128);
#pragma unroll
            for (int i = 0; i < BOXES; i++) {
                if (i * box >= KEYS) break;
                load_box<PANELS>(map, to + (stage * PANELS * KEYS + i * box) * 128,
                                 full + 8 * stage, row, at, page[i]);
                row += box;
                if (row == a.page_tokens) row = 0;
            }
        }
        __syncwarp();
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
}
