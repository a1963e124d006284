/* ops.c: what the CPU's separate operations share: the row kernels of a device and a loop over its
 * threads. */
#include "cpu/ops.h"

#include "base/cpuid.h"
#include "cpu/arena.h"

#include <stdatomic.h>

/* Read and written by a thread: below the first it is not worth an awake worker, below the second
 * not one that sleeps. */
#define AWAKE_BYTES  65536.0
#define ASLEEP_BYTES 1048576.0

const struct cpu_device *ops_device(const rapt_device *device)
{
    return device->state;
}

const struct row_kernels *ops_rows(const rapt_device *device)
{
    uint64_t features = ops_device(device)->features;
    (void)features;
#if defined(__x86_64__)
    if ((features & CPU_AVX512_BF16) && (features & CPU_AMX_BF16)) return &rows_amx;
    if ((features & CPU_AVX512) && (features & CPU_AVX512_BF16)) return &rows_avx512_bf16;
    if (features & CPU_AVX512) return &rows_avx512;
    if (features & CPU_AVX2) return &rows_avx2;
#elif defined(__aarch64__)
    if (features & CPU_NEON) return &rows_neon;
#endif
    return &rows_scalar;
}

struct loop {
    void (*stream_end)(void);
    void (*item)(const void *argument, int64_t index);
    const void *argument;
    int64_t items;
    _Atomic int64_t next;
};

static void run_items(void *argument, int64_t slot)
{
    struct loop *loop = argument;
    (void)slot;
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&loop->next, 1, memory_order_relaxed);
        if (i >= loop->items) break;
        loop->item(loop->argument, i);
    }
    if (loop->stream_end) loop->stream_end();
}

void ops_parallel(const rapt_device *device, int64_t items, double bytes,
                  void (*item)(const void *argument, int64_t index), const void *argument)
{
    const struct cpu_device *cpu = ops_device(device);
    struct loop loop = {.stream_end = ops_rows(device)->stream_end,
                        .item = item,
                        .argument = argument,
                        .items = items};
    int64_t slots = min64(min64(cpu->threads, items), (int64_t)(bytes / AWAKE_BYTES));
    if (items > 0) pool_run(cpu->pool, slots, (int64_t)(bytes / ASLEEP_BYTES), run_items, &loop);
}
