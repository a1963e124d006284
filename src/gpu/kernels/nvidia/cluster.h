/* cluster.h: blocks of a cluster (sm_90 and newer) among themselves: ranks, barriers, and floats in
 * each other's shared memory. */
#ifndef RAPT_CLUSTER_H
#define RAPT_CLUSTER_H

#include "device.h"

DEVICE int cluster_rank(void)
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return (int)rank;
}

/* Until all threads of the cluster are here; what they wrote before is seen after it. */
DEVICE void cluster_barrier(void)
{
    asm volatile("barrier.cluster.arrive.aligned;\n barrier.cluster.wait.aligned;" ::: "memory");
}

/* The float at the same place in the shared memory of the block of this rank. */
DEVICE float load_of_rank(const float *own, int rank)
{
    float x;
    asm volatile("{.reg .u32 a; mapa.shared::cluster.u32 a, %1, %2;"
                 " ld.shared::cluster.f32 %0, [a];}"
                 : "=f"(x)
                 : "r"((uint32_t)__cvta_generic_to_shared(own)), "r"(rank)
                 : "memory");
    return x;
}

#endif
