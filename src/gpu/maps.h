/* maps.h: the tensor maps of rows with NEED_MAPS. */
#ifndef RAPT_GPU_MAPS_H
#define RAPT_GPU_MAPS_H

#include "gpu/driver.h"

/* MAP_CELLS: in the place of MAP_OUT. */
enum { MAP_Q, MAP_K, MAP_V, MAP_OUT, MAP_CELLS = MAP_OUT, MAP_COUNT };

/* The maps of a problem for a row; halves: whose views q_half, k_half and v_half take the place of
 * q, k and v (NEED_HALVES), or of k and v (NEED_NUMBERS). */
void maps_describe(const struct row *row, const struct problem *p,
                   const struct attention_args *halves, struct driver_map maps[MAP_COUNT]);
/* Encodes them over the data of args. Between enter and leave. */
rapt_status maps_encode(struct gpu_device *device, const struct row *row,
                        const struct driver_map maps[MAP_COUNT], const struct attention_args *args,
                        struct tensor_maps *out);

#endif
