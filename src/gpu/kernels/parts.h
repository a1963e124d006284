/* parts.h: tiles of many query rows that share their keys (grid key_parts, NEED_TILE_TOKENS): which
 * rows and which keys are a block's. combine.h has what a block leaves and the second launch.
 *
 * A tile is TILE_Q rows of one KV head: a.tile_tokens queries of each of TILE_Q / a.tile_tokens heads
 * of its group, head after head. Each tile is there a.splits times, once for each part of the keys
 * that its rows see. Blocks of the same keys are neighbours. */
#ifndef RAPT_PARTS_H
#define RAPT_PARTS_H

#ifndef COMBINE_THREADS
#define COMBINE_THREADS WAVE
#endif
#include "combine.h"

struct part_place {
    int b, kv_head, head, tile, part; /* head: of row 0; tile: along the queries */
};

/* Of this block. The last tile along a group's heads may have fewer than it has room for. */
DEVICE struct part_place part_place_of_block(const struct attention_args *a)
{
    int along = (a->q_tokens + a->tile_tokens - 1) / a->tile_tokens,
        tiles = along * ((a->group * a->tile_tokens + TILE_Q - 1) / TILE_Q);
    uint32_t rest = (uint32_t)BLOCK_X / (uint32_t)tiles;
    int place = (int)(BLOCK_X - rest * tiles), unit = place / along, pair = (int)rest / a->splits;
    struct part_place at = {};
    at.part = (int)rest - pair * a->splits;
    at.b = pair / a->kv_heads;
    at.kv_head = pair - at.b * a->kv_heads;
    at.head = at.kv_head * a->group + unit * (TILE_Q / a->tile_tokens);
    at.tile = place - unit * along;
    return at;
}

/* Cuts what a tile sees, from first_key, a multiple of TILE_KV, to end_key - 1, to its part; with
 * fewer blocks of keys than parts some have none. */
DEVICE void take_part(const struct attention_args *a, int part, int *first_key, int *end_key)
{
    int blocks = (larger(*end_key - *first_key, 0) + TILE_KV - 1) / TILE_KV,
        each = blocks / a->splits, more = blocks - each * a->splits, first = *first_key,
        begin = each * part + smaller(part, more), end = begin + each + (part < more);
    *first_key = first + begin * TILE_KV;
    *end_key = smaller(first + end * TILE_KV, *end_key);
}

#endif
