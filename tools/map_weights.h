/* map_weights.h: one head's attention weights, pooled to a small grid in bounded memory. */
#ifndef RAPT_TOOLS_MAP_WEIGHTS_H
#define RAPT_TOOLS_MAP_WEIGHTS_H

#include "device.h"
#include "input.h"

struct map_request {
    int64_t sequence, head; /* which; q_length and kv_length of it are not 0 */
    int64_t rows, columns;  /* of the grid: at most one a token */
    int mean;               /* a cell is the mean of its weights; else the largest */
};

/* Fills cells[rows][columns]. The device is open; input's tensors are the host's. 0, or an exit
 * code after a sentence. */
int map_weights(struct device *device, const struct device_options *options,
                const struct input *input, const struct map_request *request, float *cells,
                char kernel[64]);

#endif
