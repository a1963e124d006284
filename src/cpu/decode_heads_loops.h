/* decode_heads_loops.h: decode_qk_heads and decode_pv_heads over an instruction set's own tiles: a few keys of each
 * head in turn, as they lie in memory. Included at the end of a file that has struct qk_call and pv_call and
 * their qk_call_of and pv_call_of, and defines DECODE_ISA, HEADS_TILE (scores of a tile), HEADS_WINDOW (values of a few
 * keys) and HEADS_TYPES (the call of heads_of for each type that rows may have; their channels lie side by side). */

VEC void qk_heads_by(struct qk_call t, int dtype, int row_count, int key_count, int64_t keys,
                     const struct cpu_heads *heads, const struct cpu_ahead *ahead)
{
    struct prefetch fetch = prefetch_of(ahead);
    for (int64_t j = 0; j < keys; j += key_count, t.row += key_count, t.s += key_count) {
        struct qk_call own = t;
        int64_t wanted = keys - j < key_count ? keys - j : key_count;
        for (int64_t h = 0; h < heads->count; h++) {
            HEADS_TILE(&own, dtype, row_count, key_count, wanted, &fetch);
            own.s += row_count * t.s_stride;
            own.q += row_count * t.q_stride;
            own.offset += heads->bytes;
        }
    }
    prefetch_rest(&fetch);
}

VEC void qk_heads(struct qk_call t, int dtype, int row_count, int64_t keys,
                  const struct cpu_heads *heads, const struct cpu_ahead *ahead)
{
    if (heads->keys >= 4) qk_heads_by(t, dtype, row_count, 4, keys, heads, ahead);
    else qk_heads_by(t, dtype, row_count, 2, keys, heads, ahead);
}

VEC void pv_heads(struct pv_call t, int dtype, int row_count, const struct cpu_heads *heads)
{
    struct pv_call own = t;
    own.fetch = prefetch_of(t.ahead);
    for (int64_t j = 0; j < t.keys; j += heads->keys) {
        own.o = t.o;
        own.p = t.p + j;
        own.row = t.row + j;
        own.offset = 0;
        own.keys = t.keys - j < heads->keys ? t.keys - j : heads->keys;
        for (int64_t h = 0; h < heads->count; h++) {
            HEADS_WINDOW(&own, dtype, row_count);
            own.o += heads->o_step;
            own.p += row_count * t.p_stride;
            own.offset += heads->bytes;
        }
    }
    prefetch_rest(&own.fetch);
}

/* Each number of rows has its own code. */
_Static_assert((int)DECODE_HEADS_ROWS == 4, "the longest list");
#define OF_ROWS(heads_of, type, count, ...)                                                        \
    case count:                                                                                    \
        HEADS_TYPES(heads_of, type, count, __VA_ARGS__);                                           \
        break;
#define EACH_HEADS_ROWS(heads_of, type, ...)                                                       \
    OF_ROWS(heads_of, type, 1, __VA_ARGS__)                                                        \
    OF_ROWS(heads_of, type, 2, __VA_ARGS__)                                                        \
    OF_ROWS(heads_of, type, 3, __VA_ARGS__)                                                        \
    OF_ROWS(heads_of, type, 4, __VA_ARGS__)

#define DECODE_QK_HEADS_OF(isa) DECODE_QK_HEADS(isa)
#define DECODE_PV_HEADS_OF(isa) DECODE_PV_HEADS(isa)

DECODE_QK_HEADS_OF(DECODE_ISA)
{
    struct qk_call t = qk_call_of(s, s_stride, q, q_stride, k, channels, first);
    switch (rows) {
        EACH_HEADS_ROWS(qk_heads, k->dtype, last - first, heads, ahead)
    }
}

DECODE_PV_HEADS_OF(DECODE_ISA)
{
    struct pv_call t = pv_call_of(o, o_stride, p, p_stride, v, channels, first, last, ahead);
    switch (rows) {
        EACH_HEADS_ROWS(pv_heads, v->dtype, heads)
    }
}
