/* flash_attention.cu: the fused forward with every option of rapt_attention; portable. */
#define FLASH_CAUSAL  0
#define FLASH_GENERAL 1
#include "flash.h"

KERNEL_ENTRY void LAUNCH(THREADS, BLOCKS) KERNEL_NAME(const BY_VALUE struct attention_args a)
{
    flash_grid(ARGUMENT(attention_args, a));
}
