/* flash_attention_causal.cu: the fused forward under a causal mask; portable. */
#define FLASH_CAUSAL  1
#define FLASH_GENERAL 0
#include "flash.h"

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args a)
{
    flash_grid(ARGUMENT(attention_args, a));
}
