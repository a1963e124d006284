/* early.h: launches that may come before earlier work of the stream has ended (NEED_EARLY), in two
 * steps, so that what needs no memory is done between them. HIP: a launch comes after that work. */
#ifndef RAPT_EARLY_H
#define RAPT_EARLY_H

#include "device.h"

/* The next launch may come early too. */
DEVICE void let_successors_begin(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Nothing in memory may be touched before. */
DEVICE void wait_for_earlier_work(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Both, where there is nothing to do between. */
DEVICE void wait_for_predecessors(void)
{
    let_successors_begin();
    wait_for_earlier_work();
}

/* The same address, worked out by here: not behind a wait that follows. */
DEVICE const char *settled(const void *p)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("" : "+l"(p));
#endif
    return (const char *)p;
}

#endif
