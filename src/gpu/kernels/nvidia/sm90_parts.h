/* sm90_parts.h: tiles of rows that share their keys (SPLIT_KEYS); a part of sm90_schedule.h.
 *
 * A tile is ROWS rows of one KV head, a.tile_tokens queries of each of ROWS / a.tile_tokens heads of
 * its group, and one of a.splits parts of the key blocks that these rows see. Tiles of the same
 * keys are neighbours. */

/* Tiles along the queries; and along a group's heads, the last of which may have fewer. */
DEVICE int token_tiles(const struct attention_args &a)
{
    return (a.q_tokens + a.tile_tokens - 1) / a.tile_tokens;
}

DEVICE int head_tiles(const struct attention_args &a)
{
    return (a.group * a.tile_tokens + ROWS - 1) / ROWS;
}

DEVICE struct schedule schedule_of(const struct attention_args &a, const char *)
{
    struct schedule s;
    s.tiles = token_tiles(a) * head_tiles(a) + opaque_zero();
    s.heads = a.kv_heads * a.batch;
    s.section = s.last = 0;
    s.total = s.tiles * a.splits * s.heads;
    return s;
}

/* The tile's part of its blocks; with fewer blocks than parts some have none. */
DEVICE void part_blocks(const struct attention_args &a, struct tile *t)
{
    int begin = t->key_begin, blocks = t->key_end - begin;
    t->key_begin = begin + blocks * t->part / a.splits;
    t->key_end = begin + blocks * (t->part + 1) / a.splits;
    if (t->key_begin == t->key_end) {
        t->kv_tokens = t->key_begin = 0;
        t->key_end = 1;
    }
}

DEVICE void tile_at(const struct attention_args &a, const char *, const struct schedule &s,
                    int index, struct tile *t)
{
    int rest = index / s.tiles, place = index - rest * s.tiles, pair = rest / a.splits,
        unit = place / token_tiles(a);
    t->index = index;
    t->part = rest - pair * a.splits;
    t->batch = pair / a.kv_heads;
    t->rows = place - unit * token_tiles(a);
    t->head = (pair - t->batch * a.kv_heads) * a.group + unit * (ROWS / a.tile_tokens);
    t->kv_tokens = sequence_keys(a, t->batch);
    tile_blocks(a, t);
    part_blocks(a, t);
}
