/* ops.c: what the CPU's separate operations share: a loop over the device's threads. */
#include "cpu/ops.h"

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
    struct loop loop = {
        .stream_end = cpu->rows->stream_end, .item = item, .argument = argument, .items = items};
    int64_t slots = min64(min64(cpu->threads, items), (int64_t)(bytes / AWAKE_BYTES));
    if (items > 0) pool_run(cpu->pool, slots, (int64_t)(bytes / ASLEEP_BYTES), run_items, &loop);
}
