/* sm90_lead.h: heads that begin or end in the middle of a sector of 32 bytes, as those of 72 channels.
 *
 * Tensor copies are slow where a row's part of a box begins or ends there. Where two heads are whole
 * sectors (PAIRED of kernel_args.h), the maps of K and V have pairs of heads in place of heads. A head
 * is asked for from the sector on in which it begins, up to 8 channels before its first, its lead, and
 * the box goes on behind it as far as the pair does: the tile's rows hold channels of its neighbour as
 * well. Q is loaded as far right as K is, with zeros beside it, so that these add nothing to a score;
 * columns of V beside a head's give columns of output that nobody stores.
 *
 * What is not finite in a neighbour makes scores NaN all the same. That is found as what V holds is
 * (sm90_repair.h): such tiles are computed again with zeros in the neighbour's place. */
#ifndef RAPT_NVIDIA_SM90_LEAD_H
#define RAPT_NVIDIA_SM90_LEAD_H

#include "sm90_schedule.h"

/* Of K and V, in one number: 8 and 16 for leads, 32 and 64 for maps of pairs. */
enum { KEY_LEAD = 8, VALUE_LEAD = 16, KEY_PAIRS = 32, VALUE_PAIRS = 64 };

/* KEY_PAIRS and KEY_LEAD, if so, of a head of K; or of V as if it were K. */
DEVICE int leads_in(const struct attention_args &a, const struct view &v, int head, int channels,
                    int columns)
{
    if (!PAIRED(v.stride, a.kv_heads, channels, columns)) return 0;
    uint32_t first = (uint32_t)((uintptr_t)v.data / 2) + (uint32_t)head * (uint32_t)v.stride[1];
    return KEY_PAIRS | (int)(first & KEY_LEAD);
}

/* head: of K and V. */
DEVICE int leads_of(const struct attention_args &a, int head)
{
    if (!LEADS) return 0;
    return leads_in(a, a.k, head, a.channels, D) | leads_in(a, a.v, head, a.v_channels, DV) << 1;
}

DEVICE int key_lead(int leads)
{
    return LEADS ? leads & KEY_LEAD : 0;
}
DEVICE int value_lead(int leads)
{
    return LEADS ? (leads & VALUE_LEAD) / 2 : 0;
}

/* Where a head is in a map: on the axis of heads, and the channel of the tile's first column. */
struct head_place {
    int head, first;
};

DEVICE struct head_place key_place(const struct attention_args &a, int head, int leads)
{
    if (!LEADS || !(leads & KEY_PAIRS)) return {head, 0};
    return {head >> 1, (head & 1) * (int)a.k.stride[1] - key_lead(leads)};
}
DEVICE struct head_place value_place(const struct attention_args &a, int head, int leads)
{
    if (!LEADS || !(leads & VALUE_PAIRS)) return {head, 0};
    return {head >> 1, (head & 1) * (int)a.v.stride[1] - value_lead(leads)};
}

#if LEADS
/* Zeros in the columns of a row of a tile that are not the head's; channels 0: in all. */
DEVICE void clear_beside(uint32_t tile, int panels, int row, int lead, int channels)
{
#pragma unroll 1
    for (int i = 0; i < 8 * panels; i++)
        if (8 * i < lead || 8 * i >= lead + channels)
            shared_store4(tile + (i >> 3) * KEYS * 128 + row * 128 + (((i ^ row) & 7) << 4), 0, 0,
                          0, 0);
}
#endif

#endif
