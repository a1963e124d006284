/* ops.c: what the CPU's separate operations share: the row kernels of a device and a loop over its
 * threads. */
#include "cpu/ops.h"

#include "base/cpuid.h"

#include <stdatomic.h>

/* Below so many bytes waking a worker costs more than it brings. */
#define PARALLEL_BYTES 262144.0

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
    int64_t slots = bytes < PARALLEL_BYTES ? 1 : cpu->threads < items ? cpu->threads : items;
    if (items > 0) pool_run(cpu->pool, slots, run_items, &loop);
}
