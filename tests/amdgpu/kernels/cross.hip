/* Exchanges between lanes: each kernel writes what one operation gives for data = 1000 + lane. */
#include "kernel.h"

#define DPP(control, row_mask, bank_mask, bound)                                                   \
    __builtin_amdgcn_update_dpp(-1, x, control, row_mask, bank_mask, bound)
#define PUT(value) out[k++ * WAVE + lane] = (value)

KERNEL THREADS(WAVE) void exchange(int *out)
{
    int lane = THREAD, k = 0, x = 1000 + lane;
    PUT(DPP(0x1b, 15, 15, true));                /* quad_perm 3,2,1,0 */
    PUT(DPP(0x101, 15, 15, false));              /* row_shl 1 */
    PUT(DPP(0x113, 15, 15, true));               /* row_shr 3 */
    PUT(DPP(0x124, 15, 15, true));               /* row_ror 4 */
    PUT(DPP(0x140, 15, 15, true));               /* row_mirror */
    PUT(DPP(0x141, 15, 15, true));               /* row_half_mirror */
    PUT(DPP(0x1b, 5, 15, true));                 /* rows 0 and 2 alone */
    PUT(DPP(0x1b, 15, 6, true));                 /* banks 1 and 2 alone */
    PUT(__builtin_amdgcn_ds_swizzle(x, 0x401f)); /* xor 16 */
    PUT(__builtin_amdgcn_ds_swizzle(x, 0x8055)); /* quads 1,1,1,1 */
    PUT(__builtin_amdgcn_ds_bpermute(((lane * 7 + 3) & (WAVE - 1)) << 2, x));
    PUT(__builtin_amdgcn_ds_permute(((lane * 7 + 3) & (WAVE - 1)) << 2, x));
    PUT(__builtin_amdgcn_readlane(x, 5));
    PUT(__builtin_amdgcn_readfirstlane(x + 2));
    PUT((int)__builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0)));
    PUT((int)__builtin_popcountll(__builtin_amdgcn_ballot_w64(lane & 1)));
#if !defined(__GFX9__)
    PUT(__builtin_amdgcn_permlane16(-1, x, 0x76543210, 0xfedcba98, false, true));
    PUT(__builtin_amdgcn_permlanex16(-1, x, 0x01234567, 0x89abcdef, false, true));
    PUT(__builtin_amdgcn_mov_dpp8(x, 0x053977));
    PUT(DPP(0x155, 15, 15, true)); /* row_share 5 */
    PUT(DPP(0x163, 15, 15, true)); /* row_xmask 3 */
#else
    PUT(DPP(0x142, 15, 15, true)); /* row_bcast 15 */
    PUT(DPP(0x143, 15, 15, true)); /* row_bcast 31 */
#endif
}

/* The same value summed over the wave where half of the lanes are off. */
KERNEL THREADS(WAVE) void diverged(const int *in, int *out)
{
    int lane = THREAD, x = in[lane];
    if (lane % 3 == 0) {
        x = x * 2 + 1;
        if (lane % 2 == 0) x -= 7;
    } else {
        for (int i = 0; i < lane % 5; i++) x = x * 3 + i;
    }
    out[lane] = x;
}
