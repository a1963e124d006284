/* flash_attention_cells.cu: the fused forward with a bias, a mask tensor or both, and perhaps a causal
 * mask; portable. */
#define FLASH_CAUSAL  1
#define FLASH_GENERAL 0
#define FLASH_CELLS   1
#include "flash.h"

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args a)
{
    flash_grid(ARGUMENT(attention_args, a));
}
